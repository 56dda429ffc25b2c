//! A shard as one batch.

use std::sync::Arc;

use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{
    ArrayRef, ArrowPrimitiveType, FixedSizeListArray, LargeBinaryArray, LargeListArray,
    LargeStringArray, PrimitiveArray, RecordBatch,
};
use arrow_buffer::{Buffer, MutableBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::ArrowError;

use super::schema::{Layout, item_field};
use crate::format::{Column, DType, Encoding, Format, Scalar, Value, decode, utf8};
use crate::{Error, Result, Shard};

impl Shard {
    /// All samples as one Arrow batch; see the [module](crate::arrow) for the types. What it holds
    /// is copied out of the shard, about as many bytes as its file has.
    ///
    /// # Errors
    /// `Corrupt` if a sample is damaged. `Unsupported` if an `ndarray:<type>` column holds an array
    /// of several dimensions or an `int` of a text format is beyond 64 bits. Shard, sample and
    /// column are named.
    pub fn to_record_batch(&self) -> Result<RecordBatch> {
        let rows = self.table()?.len(); // checked against the file, unlike the index
        let capacities = self.column_bytes()?;
        let columns = self.schema().columns().iter();
        let mut builders: Vec<_> = columns
            .zip(capacities)
            .map(|(column, bytes)| Builder::new(column, rows, bytes))
            .collect();
        for sample in self.samples()? {
            let pushed = match self.format() {
                Format::Mds => self.schema().each_value(sample.encoded(), |column, bytes| {
                    builders.get_mut(column).map_or(Ok(()), |builder| builder.push(bytes))
                }),
                _ => push_values(&mut builders, &sample.decode()?),
            };
            pushed.map_err(|error| sample.located(error))?;
        }
        let arrays = builders.into_iter().map(|builder| {
            let column = builder.column;
            builder.finish().map_err(|error| self.find_fault(column, error))
        });
        let arrays = arrays.collect::<Result<Vec<_>>>()?;
        RecordBatch::try_new(self.schema().to_arrow().into(), arrays)
            .map_err(|error| not_arrow(&error).in_shard(self.name()))
    }

    /// The bytes that each column has in all samples, to allocate them at once. In a text format,
    /// where they are not known, none.
    fn column_bytes(&self) -> Result<Vec<usize>> {
        let mut sizes = vec![0; self.schema().columns().len()];
        if *self.format() != Format::Mds {
            return Ok(sizes);
        }
        for sample in self.samples()? {
            let counted = self.schema().each_value(sample.encoded(), |column, bytes| {
                // The values are disjoint slices of the file.
                if let Some(size) = sizes.get_mut(column) {
                    *size += bytes.len();
                }
                Ok(())
            });
            counted.map_err(|error| sample.located(error))?;
        }
        Ok(sizes)
    }

    /// The sample whose text is not UTF-8: texts are checked all at once, for speed.
    fn find_fault(&self, column: &Column, error: ArrowError) -> Error {
        let fault = self.samples().and_then(|samples| {
            for sample in samples {
                let bytes = sample.bytes(&column.name)?;
                utf8(bytes).map_err(|error| sample.located(error.in_column(&column.name)))?;
            }
            Ok(())
        });
        let error = fault.err().unwrap_or_else(|| not_arrow(&error));
        error.in_column(&column.name).in_shard(self.name())
    }
}

/// What Arrow refuses although its rules were kept.
fn not_arrow(error: &ArrowError) -> Error {
    Error::unsupported(
        format!("the samples do not make an Arrow batch: {error}"),
        "read the shard sample by sample",
    )
}

fn push_values(builders: &mut [Builder<'_>], values: &[Value<'_>]) -> Result<()> {
    for (builder, value) in builders.iter_mut().zip(values) {
        builder.push_value(value)?;
    }
    Ok(())
}

/// Collects the values of one column.
struct Builder<'s> {
    column: &'s Column,
    layout: Layout,
    /// How many values there are.
    rows: usize,
    /// The values back to back; numbers are little-endian. Its memory is aligned for any number.
    bytes: MutableBuffer,
    /// Where each value ends, in bytes or numbers, after a 0; empty where all have one size.
    offsets: Vec<i64>,
}

impl<'s> Builder<'s> {
    fn new(column: &'s Column, rows: usize, bytes: usize) -> Self {
        let layout = Layout::of(&column.encoding);
        let offsets = match layout {
            Layout::Binary | Layout::Text | Layout::Lists(_) => {
                let mut offsets = Vec::with_capacity(rows + 1);
                offsets.push(0);
                offsets
            }
            Layout::Numbers(_) | Layout::ParsedFloat | Layout::FixedLists(..) => Vec::new(),
        };
        let bytes = if layout == Layout::ParsedFloat { rows * size_of::<f64>() } else { bytes };
        Self { column, layout, rows: 0, bytes: MutableBuffer::with_capacity(bytes), offsets }
    }

    /// Adds the stored bytes of a value.
    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        let encoding = &self.column.encoding;
        let kept = match self.layout {
            Layout::Binary => self.push_bytes(bytes, 1),
            Layout::Text => {
                // Of a `str` all texts are checked at once, at the end.
                if *encoding != Encoding::Str {
                    decode(encoding, bytes).map_err(|e| e.in_column(&self.column.name))?;
                }
                self.push_bytes(bytes, 1)
            }
            Layout::Numbers(dtype) => {
                self.bytes.extend_from_slice(bytes);
                bytes.len() == dtype.size()
            }
            Layout::FixedLists(dtype, size) => {
                self.bytes.extend_from_slice(bytes);
                usize::try_from(size).ok().and_then(|n| n.checked_mul(dtype.size()))
                    == Some(bytes.len())
            }
            Layout::Lists(dtype) => match one_dimension(bytes, dtype) {
                Some(numbers) => self.push_bytes(numbers, dtype.size()),
                None => return Err(self.refuse_array(bytes)),
            },
            Layout::ParsedFloat => match decode(encoding, bytes) {
                Ok(Value::Scalar(Scalar::F64(number))) => {
                    self.bytes.extend_from_slice(&number.to_le_bytes());
                    true
                }
                Ok(_) => false,
                Err(error) => return Err(error.in_column(&self.column.name)),
            },
        };
        if !kept {
            // Decoding says what is wrong.
            let error = decode(encoding, bytes).err();
            return Err(error
                .unwrap_or_else(|| other_value(encoding))
                .in_column(&self.column.name));
        }
        self.rows += 1;
        Ok(())
    }

    /// Adds the value of a text format: a text, an integer or a float.
    fn push_value(&mut self, value: &Value<'_>) -> Result<()> {
        match value {
            Value::Str(text) => self.push(text.as_bytes()),
            Value::Int(number) => self.push(&number.to_le_bytes()),
            Value::Scalar(Scalar::F64(number)) => self.push(&number.to_le_bytes()),
            Value::Integer(number) => Err(Error::unsupported(
                format!("the integer {number} is beyond the 64 bits of Arrow's Int64"),
                "read the shard sample by sample",
            )
            .in_column(&self.column.name)),
            _ => Err(other_value(&self.column.encoding).in_column(&self.column.name)),
        }
    }

    fn push_bytes(&mut self, bytes: &[u8], item: usize) -> bool {
        self.bytes.extend_from_slice(bytes);
        // All values together are smaller than the file, so below 2^63.
        self.offsets.push((self.bytes.len() / item) as i64);
        true
    }

    /// Why an array cannot be an item of a list.
    fn refuse_array(&self, bytes: &[u8]) -> Error {
        let error = match decode(&self.column.encoding, bytes) {
            Ok(Value::NdArray(array)) => Error::unsupported(
                format!(
                    "the array has the shape {:?}, and a list of Arrow has one dimension",
                    array.shape
                ),
                "declare the column with a fixed shape, or read the shard sample by sample",
            ),
            Ok(_) => other_value(&self.column.encoding),
            Err(error) => error,
        };
        error.in_column(&self.column.name)
    }

    fn finish(self) -> Result<ArrayRef, ArrowError> {
        let Self { layout, rows, bytes, offsets, .. } = self;
        let offsets = || OffsetBuffer::new(ScalarBuffer::from(offsets));
        Ok(match layout {
            Layout::Binary => {
                Arc::new(LargeBinaryArray::try_new(offsets(), Buffer::from(bytes), None)?)
            }
            Layout::Text => {
                Arc::new(LargeStringArray::try_new(offsets(), Buffer::from(bytes), None)?)
            }
            Layout::Numbers(dtype) => numbers(dtype, bytes),
            Layout::ParsedFloat => numbers(DType::F64, bytes),
            Layout::Lists(dtype) => Arc::new(LargeListArray::try_new(
                item_field(dtype).into(),
                offsets(),
                numbers(dtype, bytes),
                None,
            )?),
            Layout::FixedLists(dtype, size) => Arc::new(FixedSizeListArray::try_new_with_length(
                item_field(dtype).into(),
                size,
                numbers(dtype, bytes),
                None,
                rows,
            )?),
        })
    }
}

fn other_value(encoding: &Encoding) -> Error {
    Error::corrupt(
        format!("the value is not one of {encoding}"),
        "fetch the shard again, or write it again from its source",
    )
}

/// The numbers of a stored array of one dimension, under an encoding that fixes the type; `None` if
/// it has more dimensions or is damaged. Unlike decoding, it allocates no shape.
fn one_dimension(bytes: &[u8], dtype: DType) -> Option<&[u8]> {
    let (&head, rest) = bytes.split_first()?;
    let (dimensions, width) = (head >> 2, 1usize << (head & 3));
    let (stored, numbers) = rest.split_at_checked(width)?;
    let mut wide = [0; 8];
    wide.get_mut(..width)?.copy_from_slice(stored);
    let items = u64::from_le_bytes(wide);
    let size = items.checked_mul(dtype.size() as u64)?;
    (dimensions == 1 && items > 0 && size == numbers.len() as u64).then_some(numbers)
}

/// The array of little-endian numbers.
fn numbers(dtype: DType, mut bytes: MutableBuffer) -> ArrayRef {
    if cfg!(target_endian = "big") {
        bytes.as_slice_mut().chunks_mut(dtype.size()).for_each(<[u8]>::reverse);
    }
    fn array<T: ArrowPrimitiveType>(bytes: MutableBuffer) -> ArrayRef {
        Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(Buffer::from(bytes)), None))
    }
    match dtype {
        DType::U8 => array::<UInt8Type>(bytes),
        DType::I8 => array::<Int8Type>(bytes),
        DType::U16 => array::<UInt16Type>(bytes),
        DType::I16 => array::<Int16Type>(bytes),
        DType::F16 => array::<Float16Type>(bytes),
        DType::U32 => array::<UInt32Type>(bytes),
        DType::I32 => array::<Int32Type>(bytes),
        DType::F32 => array::<Float32Type>(bytes),
        DType::U64 => array::<UInt64Type>(bytes),
        DType::I64 => array::<Int64Type>(bytes),
        DType::F64 => array::<Float64Type>(bytes),
    }
}
