//! The numeric types of the format: their names, their codes in array headers, and single numbers.

use std::fmt;
use std::str::FromStr;

use half::f16;

use crate::{Error, Result};

/// A numeric type, named as in numpy. Stored little-endian everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each variant is the type that it is named after")]
pub enum DType {
    U8,
    I8,
    U16,
    I16,
    F16,
    U32,
    I32,
    F32,
    U64,
    I64,
    F64,
}

impl DType {
    /// Every type, in the order of the codes.
    pub const ALL: [Self; 11] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::F16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    /// The numpy name, such as `int32`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::U8 => "uint8",
            Self::I8 => "int8",
            Self::U16 => "uint16",
            Self::I16 => "int16",
            Self::F16 => "float16",
            Self::U32 => "uint32",
            Self::I32 => "int32",
            Self::F32 => "float32",
            Self::U64 => "uint64",
            Self::I64 => "int64",
            Self::F64 => "float64",
        }
    }

    /// The code in the header of an array with a dynamic type: bits, plus 0 for unsigned,
    /// 1 for signed, 2 for floating point.
    pub const fn code(self) -> u8 {
        match self {
            Self::U8 => 8,
            Self::I8 => 9,
            Self::U16 => 16,
            Self::I16 => 17,
            Self::F16 => 18,
            Self::U32 => 32,
            Self::I32 => 33,
            Self::F32 => 34,
            Self::U64 => 64,
            Self::I64 => 65,
            Self::F64 => 66,
        }
    }

    /// The type of a code, or `None` if no type has it.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.code() == code)
    }

    /// The size of one number, in bytes.
    pub const fn size(self) -> usize {
        self.code() as usize / 8
    }

    /// Whether the type is a floating-point one.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::F32 | Self::F64)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for DType {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.as_str() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|dtype| dtype.as_str()).collect();
            Error::unsupported(
                format!("there is no number type {name:?}"),
                format!("use one of {}", names.join(", ")),
            )
        })
    }
}

/// One number of a column with a [`DType`] encoding.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs, reason = "each variant is the type that it is named after")]
pub enum Scalar {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    F16(f16),
    U32(u32),
    I32(i32),
    F32(f32),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl Scalar {
    /// The type of the number.
    pub const fn dtype(self) -> DType {
        match self {
            Self::U8(_) => DType::U8,
            Self::I8(_) => DType::I8,
            Self::U16(_) => DType::U16,
            Self::I16(_) => DType::I16,
            Self::F16(_) => DType::F16,
            Self::U32(_) => DType::U32,
            Self::I32(_) => DType::I32,
            Self::F32(_) => DType::F32,
            Self::U64(_) => DType::U64,
            Self::I64(_) => DType::I64,
            Self::F64(_) => DType::F64,
        }
    }

    /// The number as a 64-bit float; 64-bit integers beyond 2⁵³ are rounded.
    pub fn to_f64(self) -> f64 {
        match self {
            Self::U8(v) => v.into(),
            Self::I8(v) => v.into(),
            Self::U16(v) => v.into(),
            Self::I16(v) => v.into(),
            Self::F16(v) => v.into(),
            Self::U32(v) => v.into(),
            Self::I32(v) => v.into(),
            Self::F32(v) => v.into(),
            Self::U64(v) => v as f64,
            Self::I64(v) => v as f64,
            Self::F64(v) => v,
        }
    }

    /// The number as an `i64`, or `None` if it is a float or does not fit.
    pub fn to_i64(self) -> Option<i64> {
        match self {
            Self::U8(v) => Some(v.into()),
            Self::I8(v) => Some(v.into()),
            Self::U16(v) => Some(v.into()),
            Self::I16(v) => Some(v.into()),
            Self::U32(v) => Some(v.into()),
            Self::I32(v) => Some(v.into()),
            Self::U64(v) => v.try_into().ok(),
            Self::I64(v) => Some(v),
            Self::F16(_) | Self::F32(_) | Self::F64(_) => None,
        }
    }

    /// Appends the little-endian bytes of the number.
    pub(crate) fn write_le(self, out: &mut Vec<u8>) {
        match self {
            Self::U8(v) => out.extend_from_slice(&v.to_le_bytes()),
            Self::I8(v) => out.extend_from_slice(&v.to_le_bytes()),
            Self::U16(v) => out.extend_from_slice(&v.to_le_bytes()),
            Self::I16(v) => out.extend_from_slice(&v.to_le_bytes()),
            Self::F16(v) => out.extend_from_slice(&v.to_le_bytes()),
            Self::U32(v) => out.extend_from_slice(&v.to_le_bytes()),
            Self::I32(v) => out.extend_from_slice(&v.to_le_bytes()),
            Self::F32(v) => out.extend_from_slice(&v.to_le_bytes()),
            Self::U64(v) => out.extend_from_slice(&v.to_le_bytes()),
            Self::I64(v) => out.extend_from_slice(&v.to_le_bytes()),
            Self::F64(v) => out.extend_from_slice(&v.to_le_bytes()),
        }
    }

    /// Reads a number of type `dtype` from its little-endian bytes; `None` if the length is wrong.
    pub fn read_le(dtype: DType, bytes: &[u8]) -> Option<Self> {
        Some(match dtype {
            DType::U8 => Self::U8(u8::from_le_bytes(bytes.try_into().ok()?)),
            DType::I8 => Self::I8(i8::from_le_bytes(bytes.try_into().ok()?)),
            DType::U16 => Self::U16(u16::from_le_bytes(bytes.try_into().ok()?)),
            DType::I16 => Self::I16(i16::from_le_bytes(bytes.try_into().ok()?)),
            DType::F16 => Self::F16(f16::from_le_bytes(bytes.try_into().ok()?)),
            DType::U32 => Self::U32(u32::from_le_bytes(bytes.try_into().ok()?)),
            DType::I32 => Self::I32(i32::from_le_bytes(bytes.try_into().ok()?)),
            DType::F32 => Self::F32(f32::from_le_bytes(bytes.try_into().ok()?)),
            DType::U64 => Self::U64(u64::from_le_bytes(bytes.try_into().ok()?)),
            DType::I64 => Self::I64(i64::from_le_bytes(bytes.try_into().ok()?)),
            DType::F64 => Self::F64(f64::from_le_bytes(bytes.try_into().ok()?)),
        })
    }

    /// The number as a value of `dtype`: exact between integers, rounded half to even between
    /// floats and from integers to floats. `None` if an integer does not fit, or if a float would
    /// have to lose its fraction silently.
    pub(crate) fn cast(self, dtype: DType) -> Option<Self> {
        if self.dtype() == dtype {
            return Some(self);
        }
        if let DType::F16 | DType::F32 | DType::F64 = dtype {
            let value = self.to_f64();
            return Some(match dtype {
                DType::F16 => Self::F16(f16::from_f64(value)),
                DType::F32 => Self::F32(value as f32),
                _ => Self::F64(value),
            });
        }
        // Every integer type fits in an i128.
        let value: i128 = match self {
            Self::U64(v) => v.into(),
            other => other.to_i64()?.into(),
        };
        Some(match dtype {
            DType::U8 => Self::U8(value.try_into().ok()?),
            DType::I8 => Self::I8(value.try_into().ok()?),
            DType::U16 => Self::U16(value.try_into().ok()?),
            DType::I16 => Self::I16(value.try_into().ok()?),
            DType::U32 => Self::U32(value.try_into().ok()?),
            DType::I32 => Self::I32(value.try_into().ok()?),
            DType::U64 => Self::U64(value.try_into().ok()?),
            DType::I64 => Self::I64(value.try_into().ok()?),
            DType::F16 | DType::F32 | DType::F64 => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_codes_and_sizes_agree() {
        for dtype in DType::ALL {
            assert_eq!(dtype.as_str().parse::<DType>().unwrap(), dtype);
            assert_eq!(DType::from_code(dtype.code()), Some(dtype));
            let mut bytes = Vec::new();
            let one = Scalar::U8(1).cast(dtype).unwrap();
            one.write_le(&mut bytes);
            assert_eq!(bytes.len(), dtype.size());
            assert_eq!(Scalar::read_le(dtype, &bytes), Some(one));
            assert_eq!(Scalar::read_le(dtype, &bytes[1..]), None);
        }
        assert_eq!(DType::from_code(10), None);
    }

    #[test]
    fn unknown_type_lists_the_known_ones() {
        assert_eq!(
            "bool".parse::<DType>().unwrap_err().to_string(),
            "there is no number type \"bool\"; use one of uint8, int8, uint16, int16, float16, \
             uint32, int32, float32, uint64, int64, float64"
        );
    }

    #[test]
    fn casts_are_exact_or_refused() {
        assert_eq!(Scalar::I64(255).cast(DType::U8), Some(Scalar::U8(255)));
        assert_eq!(Scalar::I64(256).cast(DType::U8), None);
        assert_eq!(Scalar::I64(-1).cast(DType::U64), None);
        assert_eq!(Scalar::U64(u64::MAX).cast(DType::I64), None);
        assert_eq!(Scalar::U64(u64::MAX).cast(DType::U64), Some(Scalar::U64(u64::MAX)));
        assert_eq!(Scalar::F64(1.5).cast(DType::I32), None);
    }

    #[test]
    fn floats_round_half_to_even() {
        // 1 + 2^-11 lies halfway between two float16 values, 1 + 3 * 2^-11 as well.
        let half = |v: f64| Scalar::F64(v).cast(DType::F16);
        assert_eq!(half(1.0 + 2f64.powi(-11)), Some(Scalar::F16(f16::from_f32(1.0))));
        let up = f16::from_bits(f16::from_f32(1.0).to_bits() + 2);
        assert_eq!(half(1.0 + 3.0 * 2f64.powi(-11)), Some(Scalar::F16(up)));
        assert_eq!(Scalar::F64(1.0 + 2f64.powi(-24)).cast(DType::F32), Some(Scalar::F32(1.0)));
    }
}
