//! Columns of a known type: found and checked once, then read without detours.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use super::sample::is_text;
use crate::error::{Error, ErrorKind, Result, shown};
use crate::format::{DType, Encoding, Format, NdArray, Scalar, Schema, Value};

/// A type that a column can be read as.
///
/// | type | columns | what is read |
/// | --- | --- | --- |
/// | `str` | `str`, `json`, `str_int`, `str_float`, `str_decimal` | `&str`, the stored text |
/// | `[u8]` | any | `&[u8]`, the stored bytes |
/// | `i8` … `u64`, `f16`, `f32`, `f64` | the number type of that name; `int` for `i64` | the number |
/// | `[i8]` … `[f64]` | `ndarray`, `ndarray:<type>`, `ndarray:<type>:<shape>` | the numbers in C order: a slice of the shard where they are aligned, else a copy |
pub trait FieldType: 'static {
    /// What reading gives.
    type Ref<'a>;

    /// The name in messages.
    const NAME: &'static str;

    /// Whether a column of this encoding can be read as this type.
    fn reads(encoding: &Encoding) -> bool;

    /// Reads the stored bytes of a value.
    ///
    /// # Errors
    /// `Corrupt` if they are no such value.
    fn read<'a>(encoding: &Encoding, bytes: &'a [u8]) -> Result<Self::Ref<'a>>;
}

/// A column of type `T`. Made by [`Fields`], given to [`SampleRef::get`](super::SampleRef::get).
pub struct Field<T: ?Sized> {
    column: usize,
    of: PhantomData<fn(&T)>,
}

impl<T: ?Sized> Clone for Field<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized> Copy for Field<T> {}

impl<T: FieldType + ?Sized> fmt::Debug for Field<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Field::<{}>({})", T::NAME, self.column)
    }
}

impl<T: FieldType + ?Sized> Field<T> {
    pub(super) const fn at(column: usize) -> Self {
        Self { column, of: PhantomData }
    }

    pub(super) fn column(self) -> usize {
        self.column
    }

    pub(super) fn read<'a>(
        self,
        schema: &Schema,
        format: &Format,
        bytes: &'a [u8],
    ) -> Result<T::Ref<'a>> {
        let Some(column) = schema.columns().get(self.column) else {
            return Err(other_columns());
        };
        let encoding = match (format, &column.encoding) {
            (Format::Mds, encoding) => encoding,
            // The values of text formats are texts, whatever they stand for.
            (_, Encoding::Str) => &Encoding::Str,
            (_, _) => &Encoding::Bytes,
        };
        if !T::reads(encoding) {
            return Err(other_columns().in_column(&column.name));
        }
        T::read(encoding, bytes).map_err(|error| error.in_column(&column.name))
    }
}

fn other_columns() -> Error {
    Error::invalid(
        "the field was made for other columns",
        "make the fields anew for each shard whose columns differ",
    )
}

/// Collects the columns to read, and says at once everything that is wrong with them.
#[derive(Debug)]
pub struct Fields<'s> {
    schema: &'s Schema,
    faults: Vec<String>,
}

impl<'s> Fields<'s> {
    pub(crate) fn new(schema: &'s Schema) -> Self {
        Self { schema, faults: Vec::new() }
    }

    /// Adds the column `name`, to be read as `T`.
    pub fn field<T: FieldType + ?Sized>(&mut self, name: &str) -> Field<T> {
        let Some(column) = self.schema.position(name) else {
            self.faults.push(format!("there is no column {name:?}"));
            return Field::at(usize::MAX);
        };
        let encoding = &self.schema.columns()[column].encoding;
        if !T::reads(encoding) {
            self.faults.push(format!("the column {name:?} holds {encoding}, not {}", T::NAME));
        }
        Field::at(column)
    }

    /// Ends the list.
    ///
    /// # Errors
    /// `InvalidArgument` names every column that is not there or holds something else.
    pub fn build(self) -> Result<()> {
        if self.faults.is_empty() {
            return Ok(());
        }
        let columns = self.schema.columns().iter();
        let columns: Vec<_> =
            columns.map(|c| format!("{} ({})", shown(&c.name), c.encoding)).collect();
        Err(Error::new(
            ErrorKind::InvalidArgument,
            self.faults.join(", and "),
            format!("the columns are {}", columns.join(", ")),
        ))
    }
}

impl FieldType for str {
    type Ref<'a> = &'a Self;

    const NAME: &'static Self = "text";

    fn reads(encoding: &Encoding) -> bool {
        is_text(encoding)
    }

    fn read<'a>(_: &Encoding, bytes: &'a [u8]) -> Result<&'a Self> {
        crate::format::utf8(bytes)
    }
}

impl FieldType for [u8] {
    type Ref<'a> = &'a Self;

    const NAME: &'static str = "bytes";

    fn reads(_: &Encoding) -> bool {
        true
    }

    fn read<'a>(_: &Encoding, bytes: &'a [u8]) -> Result<&'a Self> {
        Ok(bytes)
    }
}

/// Numbers, and slices of them.
macro_rules! numbers {
    ($($number:ty, $dtype:ident;)*) => {$(
        impl FieldType for $number {
            type Ref<'a> = Self;

            const NAME: &'static str = DType::$dtype.as_str();

            fn reads(encoding: &Encoding) -> bool {
                match encoding {
                    Encoding::Scalar(dtype) => *dtype == DType::$dtype,
                    Encoding::Int => matches!(DType::$dtype, DType::I64),
                    _ => false,
                }
            }

            fn read(encoding: &Encoding, bytes: &[u8]) -> Result<Self> {
                match Scalar::read_le(DType::$dtype, bytes) {
                    Some(Scalar::$dtype(number)) => Ok(number),
                    _ => Err(wrong_value(encoding, bytes)),
                }
            }
        }
    )*};
}

/// Bytes have a meaning of their own as a slice, so `[u8]` is not among these.
macro_rules! slices {
    ($($number:ty, $dtype:ident, $name:literal;)*) => {$(
        impl FieldType for [$number] {
            type Ref<'a> = Cow<'a, [$number]>;

            const NAME: &'static str = $name;

            fn reads(encoding: &Encoding) -> bool {
                match encoding {
                    Encoding::NdArray { dtype, .. } => dtype.is_none_or(|d| d == DType::$dtype),
                    Encoding::NdArrayColon => true,
                    _ => false,
                }
            }

            fn read<'a>(encoding: &Encoding, bytes: &'a [u8]) -> Result<Cow<'a, [$number]>> {
                let array = array(encoding, bytes, DType::$dtype, $name)?;
                let Cow::Borrowed(data) = array.data else {
                    return Err(wrong_value(encoding, bytes));
                };
                if cfg!(target_endian = "little")
                    && let Ok(numbers) = bytemuck::try_cast_slice::<u8, $number>(data)
                {
                    return Ok(Cow::Borrowed(numbers));
                }
                let (words, _) = data.as_chunks();
                Ok(words.iter().map(|&word| <$number>::from_le_bytes(word)).collect())
            }
        }
    )*};
}

numbers! {
    u8, U8; i8, I8; u16, U16; i16, I16; u32, U32; i32, I32; u64, U64; i64, I64;
    half::f16, F16; f32, F32; f64, F64;
}

slices! {
    i8, I8, "int8 array"; u16, U16, "uint16 array"; i16, I16, "int16 array";
    u32, U32, "uint32 array"; i32, I32, "int32 array"; u64, U64, "uint64 array";
    i64, I64, "int64 array"; f32, F32, "float32 array"; f64, F64, "float64 array";
}

fn array<'a>(
    encoding: &Encoding,
    bytes: &'a [u8],
    dtype: DType,
    name: &str,
) -> Result<NdArray<'a>> {
    match crate::format::decode(encoding, bytes)? {
        Value::NdArray(array) if array.dtype == dtype => Ok(array),
        Value::NdArray(array) => Err(Error::invalid(
            format!("the value is a {} array, not a {name}", array.dtype),
            "read it with value()",
        )),
        _ => Err(wrong_value(encoding, bytes)),
    }
}

fn wrong_value(encoding: &Encoding, bytes: &[u8]) -> Error {
    // Decoding says what is wrong; if it finds nothing, the type does not belong to the encoding.
    crate::format::decode(encoding, bytes).err().unwrap_or_else(other_columns)
}
