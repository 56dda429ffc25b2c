//! Values of samples: what goes into an encoder and what comes out of a decoder.
//!
//! Decoded values borrow from the shard wherever the stored bytes are the value.

use std::borrow::Cow;

use super::dtype::{DType, Scalar};
use super::image::{Image, ImageFile};
use super::python::{Decimal, Integer, Json};
use crate::{Error, Result};

/// The value of one column of one sample.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value<'a> {
    /// Bytes. Every encoding takes them as already encoded and stores them as they are.
    Bytes(Cow<'a, [u8]>),
    /// Text of a `str` column. Columns of `str_int`, `str_float`, `str_decimal` and `json` take it
    /// too if it is the text of such a value.
    Str(Cow<'a, str>),
    /// An integer of an `int` column. Columns of a number type take it too, if it fits.
    Int(i64),
    /// One number, and the value of `str_float` and of `float` in text formats.
    Scalar(Scalar),
    /// An integer of any size, of a `str_int` column.
    Integer(Integer<'a>),
    /// A decimal number of a `str_decimal` column.
    Decimal(Decimal<'a>),
    /// What a `json` column holds.
    Json(Json),
    /// An array of numbers.
    NdArray(NdArray<'a>),
    /// The pixels of an image, of a `pil` column. Columns of image files take it too and make a
    /// file of it as Python's imaging library does by default.
    Image(Image<'a>),
    /// The file of an image, of a `jpeg` or `png` column. It is decoded only if asked to, and
    /// stored again byte for byte.
    ImageFile(ImageFile<'a>),
    /// Several images, of a `jpeg_array` or `list[...]` column.
    List(Vec<Self>),
}

impl<'a> Value<'a> {
    /// What the value is, for messages.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Bytes(bytes) => format!("{} bytes", bytes.len()),
            Self::Str(_) => "a text".to_owned(),
            Self::Int(value) => format!("the integer {value}"),
            Self::Scalar(value) => format!("the {} {}", value.dtype(), scalar_text(*value)),
            Self::Integer(value) => format!("the integer {value}"),
            Self::Decimal(value) => format!("the decimal number {value}"),
            Self::Json(_) => "a JSON value".to_owned(),
            Self::NdArray(array) => format!("a {} array of shape {:?}", array.dtype, array.shape),
            Self::Image(image) => {
                format!(
                    "an image of mode {} and size {}x{}",
                    image.mode(),
                    image.width(),
                    image.height()
                )
            }
            Self::ImageFile(file) => format!("a {} file", file.format()),
            Self::List(values) => format!("a list of {}", values.len()),
        }
    }

    /// The same value, owning all its data.
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Self::Bytes(bytes) => Value::Bytes(Cow::Owned(bytes.into_owned())),
            Self::Str(text) => Value::Str(Cow::Owned(text.into_owned())),
            Self::Int(value) => Value::Int(value),
            Self::Scalar(value) => Value::Scalar(value),
            Self::Integer(value) => Value::Integer(value.into_owned()),
            Self::Decimal(value) => Value::Decimal(value.into_owned()),
            Self::Json(value) => Value::Json(value),
            Self::NdArray(NdArray { dtype, shape, data }) => {
                Value::NdArray(NdArray { dtype, shape, data: Cow::Owned(data.into_owned()) })
            }
            Self::Image(image) => Value::Image(image.into_owned()),
            Self::ImageFile(file) => Value::ImageFile(file.into_owned()),
            Self::List(values) => Value::List(values.into_iter().map(Value::into_owned).collect()),
        }
    }

    /// The text of a `str` value.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::Str(text) = self { Some(text) } else { None }
    }

    /// The number as an `i64`, if it is an integer that fits.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            Self::Scalar(value) => value.to_i64(),
            Self::Integer(value) => value.to_i64(),
            Self::Json(value) => value.as_i64(),
            _ => None,
        }
    }

    /// The number as an `f64`, rounded if need be.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Int(value) => Some(*value as f64),
            Self::Scalar(value) => Some(value.to_f64()),
            Self::Decimal(value) => Some(value.to_f64()),
            Self::Json(value) => value.as_f64(),
            _ => None,
        }
    }

    /// The bytes of a `bytes` value.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    /// The array of an `ndarray` value.
    pub fn as_ndarray(&self) -> Option<&NdArray<'a>> {
        if let Self::NdArray(array) = self { Some(array) } else { None }
    }
}

/// Integers in full, whatever their size; floats shortest.
fn scalar_text(value: Scalar) -> String {
    match value {
        Scalar::U64(value) => value.to_string(),
        other => other.to_i64().map_or_else(|| other.to_f64().to_string(), |v| v.to_string()),
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Str(Cow::Borrowed(text))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Str(Cow::Owned(text))
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(Cow::Borrowed(bytes))
    }
}

impl From<Vec<u8>> for Value<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(Cow::Owned(bytes))
    }
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<f64> for Value<'_> {
    fn from(value: f64) -> Self {
        Self::Scalar(Scalar::F64(value))
    }
}

impl From<Json> for Value<'_> {
    fn from(value: Json) -> Self {
        Self::Json(value)
    }
}

impl<'a> From<Decimal<'a>> for Value<'a> {
    fn from(value: Decimal<'a>) -> Self {
        Self::Decimal(value)
    }
}

impl<'a> From<Integer<'a>> for Value<'a> {
    fn from(value: Integer<'a>) -> Self {
        Self::Integer(value)
    }
}

impl<'a> From<Image<'a>> for Value<'a> {
    fn from(image: Image<'a>) -> Self {
        Self::Image(image)
    }
}

impl<'a> From<ImageFile<'a>> for Value<'a> {
    fn from(file: ImageFile<'a>) -> Self {
        Self::ImageFile(file)
    }
}

impl From<Scalar> for Value<'_> {
    fn from(value: Scalar) -> Self {
        Self::Scalar(value)
    }
}

impl<'a> From<NdArray<'a>> for Value<'a> {
    fn from(array: NdArray<'a>) -> Self {
        Self::NdArray(array)
    }
}

/// An array of numbers in C order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NdArray<'a> {
    /// The type of the numbers.
    pub dtype: DType,
    /// The dimensions, outermost first.
    pub shape: Vec<u64>,
    /// The numbers, little-endian, last dimension fastest: `shape.product() * dtype.size()` bytes.
    pub data: Cow<'a, [u8]>,
}

impl<'a> NdArray<'a> {
    /// An array of the given shape over little-endian bytes in C order.
    ///
    /// # Errors
    /// `InvalidArgument` if the length of `data` does not fit the shape.
    pub fn new(dtype: DType, shape: Vec<u64>, data: impl Into<Cow<'a, [u8]>>) -> Result<Self> {
        let array = Self { dtype, shape, data: data.into() };
        array.check()?;
        Ok(array)
    }

    /// A one-dimensional `int32` array.
    pub fn from_i32(values: &[i32]) -> NdArray<'static> {
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        NdArray { dtype: DType::I32, shape: vec![values.len() as u64], data: Cow::Owned(data) }
    }

    /// The number of elements, `None` if it overflows 64 bits.
    pub(super) fn elements(shape: &[u64]) -> Option<u64> {
        shape.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim))
    }

    /// Refuses an array whose data does not fill its shape exactly.
    pub(super) fn check(&self) -> Result<()> {
        let item = self.dtype.size() as u64;
        let expected = Self::elements(&self.shape).and_then(|n| n.checked_mul(item));
        if expected == Some(self.data.len() as u64) {
            return Ok(());
        }
        Err(Error::invalid(
            format!(
                "a {} array of shape {:?} has {} bytes of data",
                self.dtype,
                self.shape,
                self.data.len()
            ),
            "give exactly the product of the dimensions times the size of the type",
        ))
    }

    /// The numbers as `i64`, flattened in C order, whatever integer type they are stored in.
    ///
    /// # Errors
    /// `InvalidArgument` if the type is a floating-point one or a `uint64` exceeds `i64::MAX`.
    pub fn to_vec_i64(&self) -> Result<Vec<i64>> {
        fn widen<const N: usize, T>(data: &[u8], read: fn([u8; N]) -> T) -> Vec<i64>
        where
            i64: From<T>,
        {
            let (chunks, _) = data.as_chunks::<N>();
            chunks.iter().map(|&chunk| i64::from(read(chunk))).collect()
        }
        Ok(match self.dtype {
            DType::U8 => widen(&self.data, u8::from_le_bytes),
            DType::I8 => widen(&self.data, i8::from_le_bytes),
            DType::U16 => widen(&self.data, u16::from_le_bytes),
            DType::I16 => widen(&self.data, i16::from_le_bytes),
            DType::U32 => widen(&self.data, u32::from_le_bytes),
            DType::I32 => widen(&self.data, i32::from_le_bytes),
            DType::I64 => widen(&self.data, i64::from_le_bytes),
            DType::U64 => {
                let (chunks, _) = self.data.as_chunks::<8>();
                let read = |&chunk| i64::try_from(u64::from_le_bytes(chunk)).ok();
                chunks.iter().map(read).collect::<Option<_>>().ok_or_else(|| {
                    Error::invalid(
                        "a uint64 array holds a number above 9223372036854775807",
                        "read its bytes instead",
                    )
                })?
            }
            DType::F16 | DType::F32 | DType::F64 => {
                return Err(Error::invalid(
                    format!("a {} array does not hold integers", self.dtype),
                    "read its bytes instead, or store the column with an integer type",
                ));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_every_type_widen() {
        for dtype in DType::ALL.into_iter().filter(|dtype| !dtype.is_float()) {
            let mut data = Vec::new();
            for value in [0, 1, 127] {
                Scalar::I64(value).cast(dtype).unwrap().write_le(&mut data);
            }
            let array = NdArray::new(dtype, vec![3, 1], data).unwrap();
            assert_eq!(array.to_vec_i64().unwrap(), [0, 1, 127], "{dtype}");
        }
        assert_eq!(NdArray::from_i32(&[-1, 5]).to_vec_i64().unwrap(), [-1, 5]);
    }

    #[test]
    fn what_is_not_an_i64_is_refused() {
        let big = NdArray::new(DType::U64, vec![1], u64::MAX.to_le_bytes().to_vec()).unwrap();
        assert_eq!(
            big.to_vec_i64().unwrap_err().to_string(),
            "a uint64 array holds a number above 9223372036854775807; read its bytes instead"
        );
        let float = NdArray::new(DType::F32, vec![1], vec![0; 4]).unwrap();
        assert_eq!(
            float.to_vec_i64().unwrap_err().to_string(),
            "a float32 array does not hold integers; read its bytes instead, or store the column \
             with an integer type"
        );
    }

    #[test]
    fn data_must_fill_the_shape() {
        let remedy = "give exactly the product of the dimensions times the size of the type";
        assert_eq!(
            NdArray::new(DType::I32, vec![2, 2], vec![0; 15]).unwrap_err().to_string(),
            format!("a int32 array of shape [2, 2] has 15 bytes of data; {remedy}")
        );
        let overflow = vec![u64::MAX, u64::MAX];
        assert!(NdArray::new(DType::I32, overflow, vec![0; 15]).is_err());
    }
}
