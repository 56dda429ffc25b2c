//! Batches gathered into one buffer: the numbers of a column, row after row.

use std::fmt;
use std::sync::{Arc, Mutex};

use bytemuck::Pod;

use super::picks::Picks;
use crate::cache::relock;
use crate::error::{Error, Result};
use crate::format::{DType, Encoding, NdArray, Schema, Value};
use crate::shard::{Fields, SampleRef};

/// A number type of rows.
pub trait Number: Pod + Send + Sync {
    /// Its name in schemas.
    const DTYPE: DType;
}

macro_rules! numbers {
    ($($number:ty, $dtype:ident;)*) => {$(
        impl Number for $number {
            const DTYPE: DType = DType::$dtype;
        }
    )*};
}

numbers! {
    u8, U8; i8, I8; u16, U16; i16, I16; u32, U32; i32, I32; f32, F32; u64, U64; i64, I64;
    f64, F64;
}

/// A batch as one buffer of `[rows, width]` numbers in C order.
///
/// The buffer goes back to its loader when the batch is dropped, and is used again: a loader whose
/// batches are dropped allocates nothing from then on.
pub struct Rows<T> {
    buffers: Buffers<T>,
    width: usize,
    /// Where the buffers go afterwards.
    free: Arc<Free<T>>,
}

impl<T: fmt::Debug> fmt::Debug for Rows<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows")
            .field("ids", &self.buffers.ids)
            .field("width", &self.width)
            .finish_non_exhaustive()
    }
}

impl<T> Rows<T> {
    /// The numbers of the samples; padding is left out, so a last batch may be short.
    pub fn ids(&self) -> &[u64] {
        &self.buffers.ids
    }

    /// Numbers in each row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// All numbers, row after row: `ids().len() * width()`.
    pub fn data(&self) -> &[T] {
        &self.buffers.data[..self.buffers.ids.len() * self.width]
    }

    /// The rows in order, [`width`](Self::width) numbers each.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[T]> {
        self.data().chunks_exact(self.width)
    }

    /// The buffer of [`data`](Self::data), which then is the caller's own and does not go back.
    pub fn into_data(mut self) -> Vec<T> {
        let mut data = std::mem::take(&mut self.buffers.data);
        data.truncate(self.buffers.ids.len() * self.width);
        data
    }
}

impl<T> Drop for Rows<T> {
    fn drop(&mut self) {
        let buffers = std::mem::take(&mut self.buffers);
        self.free.put(buffers);
    }
}

struct Buffers<T> {
    ids: Vec<u64>,
    /// As long as the longest batch so far.
    data: Vec<T>,
}

impl<T> Default for Buffers<T> {
    fn default() -> Self {
        Self { ids: Vec::new(), data: Vec::new() }
    }
}

/// Buffers that wait to be used again. The last one in is the first one out, as its bytes may still
/// be in a cache of the processor.
struct Free<T> {
    list: Mutex<Vec<Buffers<T>>>,
    most: usize,
}

impl<T> Free<T> {
    fn take(&self) -> Buffers<T> {
        relock(&self.list).pop().unwrap_or_default()
    }

    fn put(&self, buffers: Buffers<T>) {
        let mut list = relock(&self.list);
        if !buffers.data.is_empty() && list.len() < self.most {
            list.push(buffers);
        }
    }
}

/// Gathers the rows of a column.
pub(super) struct Gather<T> {
    name: String,
    /// The column in shards that have the schema of the dataset, as nearly all do.
    column: Column,
    schema: Arc<Schema>,
    width: usize,
    free: Arc<Free<T>>,
}

/// A column, and what stands before its numbers.
struct Column {
    position: usize,
    encoding: Encoding,
    /// The stored header of a list of `width` numbers; empty where it is not stored.
    header: Vec<u8>,
}

impl<T: Number> Gather<T> {
    /// Rows of `width` numbers from the column `name`. Up to `buffers` are kept to be used again.
    pub(super) fn new(
        schema: &Arc<Schema>,
        name: &str,
        width: usize,
        buffers: usize,
    ) -> Result<Self> {
        if width == 0 {
            return Err(Error::invalid(
                "rows of 0 numbers hold nothing",
                "give a width of at least 1",
            ));
        }
        if width.checked_mul(T::DTYPE.size()).is_none_or(|bytes| bytes > u32::MAX as usize) {
            return Err(Error::invalid(
                format!("rows of {width} numbers are longer than any sample"),
                "give the number of values in each sample as the width",
            ));
        }
        Ok(Self {
            name: name.to_owned(),
            column: Column::find::<T>(schema, name, width)?,
            schema: Arc::clone(schema),
            width,
            free: Arc::new(Free { list: Mutex::default(), most: buffers }),
        })
    }

    /// The rows of the samples that were picked.
    pub(super) fn rows(&self, picks: &mut Picks<'_>) -> Result<Rows<T>> {
        let (ids, width) = (picks.ids(), self.width);
        // In a guard from the beginning, so that the buffers go back even after an error.
        let mut rows = Rows { buffers: self.free.take(), width, free: Arc::clone(&self.free) };
        let Buffers { ids: numbers, data } = &mut rows.buffers;
        numbers.clear();
        numbers.extend_from_slice(ids);
        let len = ids.len().checked_mul(width).ok_or_else(|| {
            Error::invalid(
                format!("{} rows of {width} numbers are too many", ids.len()),
                "lower the width",
            )
        })?;
        if data.len() < len {
            data.resize(len, T::zeroed());
        }
        picks.for_each(|position, sample| {
            let row = &mut data[position * width..][..width];
            self.read(sample, row)
        })?;
        Ok(rows)
    }

    fn read(&self, sample: SampleRef<'_>, row: &mut [T]) -> Result<()> {
        let schema = sample.schema();
        if std::ptr::eq(schema, &*self.schema) || *schema == *self.schema {
            return self.column.read(sample, row);
        }
        let column = Column::find::<T>(schema, &self.name, self.width);
        column.map_err(|error| sample.located(error))?.read(sample, row)
    }
}

impl Column {
    /// # Errors
    /// `InvalidArgument` if the column is not there or cannot hold rows of `width` numbers.
    fn find<T: Number>(schema: &Schema, name: &str, width: usize) -> Result<Self> {
        let mut fields = Fields::new(schema);
        fields.field::<[u8]>(name);
        fields.build()?;
        let position = schema.position(name).unwrap_or(usize::MAX);
        let encoding = schema.columns()[position].encoding.clone();
        let number = T::DTYPE;
        let other = |what: String| {
            let remedy = "choose the column and the type that the dataset was written with";
            Err(Error::invalid(what, remedy).in_column(name))
        };
        let header = match &encoding {
            Encoding::Bytes => Vec::new(),
            Encoding::NdArray { dtype: Some(dtype), .. } if *dtype != number => {
                return other(format!("the column holds {encoding}, not rows of {number}"));
            }
            Encoding::NdArray { shape: Some(shape), .. }
                if shape.iter().try_fold(1u64, |n, &dim| n.checked_mul(dim))
                    != Some(width as u64) =>
            {
                return other(format!("the column holds {encoding}, not rows of {width} numbers"));
            }
            Encoding::NdArray { shape: Some(_), .. } => Vec::new(),
            Encoding::NdArray { shape: None, .. } | Encoding::NdArrayColon => {
                header(&encoding, number, width)?
            }
            _ => return other(format!("the column holds {encoding}, not rows of {number}")),
        };
        Ok(Self { position, encoding, header })
    }

    fn read<T: Number>(&self, sample: SampleRef<'_>, row: &mut [T]) -> Result<()> {
        let stored = sample.column_bytes(self.position)?;
        let size = size_of_val(row);
        let numbers = match stored.strip_prefix(self.header.as_slice()) {
            Some(numbers) if numbers.len() == size => numbers,
            _ => self.decode(stored, T::DTYPE, row.len()).map_err(|error| {
                let schema = sample.schema();
                sample.located(error.in_column(&schema.columns()[self.position].name))
            })?,
        };
        bytemuck::cast_slice_mut::<T, u8>(row).copy_from_slice(numbers);
        if cfg!(target_endian = "big") {
            for number in row {
                bytemuck::bytes_of_mut(number).reverse();
            }
        }
        Ok(())
    }

    /// The numbers of a value that does not begin as expected: an array of another shape, which is
    /// as good if it has as many numbers, or something else.
    fn decode<'a>(&self, stored: &'a [u8], number: DType, width: usize) -> Result<&'a [u8]> {
        let (found, len) = match crate::format::decode(&self.encoding, stored)? {
            Value::NdArray(array) => {
                let len = array.data.len();
                if array.dtype == number && len == width * number.size() {
                    // The numbers are what the value ends with.
                    return Ok(&stored[stored.len() - len..]);
                }
                (array.dtype, len)
            }
            _ => (number, stored.len()),
        };
        Err(Error::invalid(
            format!(
                "the row holds {len} bytes of {found}, not the {} bytes of {width} {number} numbers",
                width * number.size()
            ),
            "leave the sample out, or write the dataset again with rows of one length",
        ))
    }
}

/// What is stored before the numbers of a list of `width` of them.
fn header(encoding: &Encoding, dtype: DType, width: usize) -> Result<Vec<u8>> {
    let zeros = vec![0; width * dtype.size()];
    let array = NdArray::new(dtype, vec![width as u64], zeros.as_slice())?;
    let mut stored = Vec::new();
    crate::format::encode(encoding, &array.into(), &mut stored)?;
    stored.truncate(stored.len() - zeros.len());
    Ok(stored)
}
