//! The encodings of columns: their names in `index.json` and their fixed sizes.

use std::fmt;
use std::str::FromStr;

use super::dtype::DType;
use crate::{Error, Result};

/// How the values of one column are stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Encoding {
    /// Bytes as they are.
    Bytes,
    /// UTF-8 text.
    Str,
    /// A signed 64-bit integer.
    Int,
    /// One number.
    Scalar(DType),
    /// An integer of any size as decimal text.
    StrInt,
    /// A float as Python's shortest text.
    StrFloat,
    /// A decimal number as Python's text, which keeps trailing zeros.
    StrDecimal,
    /// JSON text.
    Json,
    /// An array of numbers. What the encoding does not fix is stored with each value.
    NdArray {
        /// The fixed type, if any.
        dtype: Option<DType>,
        /// The fixed shape, if any; never without a fixed type.
        shape: Option<Vec<u64>>,
    },
}

/// Encodings of the reference that this version knows by name only.
const KNOWN_UNSUPPORTED: [&str; 9] = [
    "pil",
    "jpeg",
    "png",
    "jpeg_array",
    "jpegarray",
    "list[pil]",
    "list[jpeg]",
    "list[png]",
    "pkl",
];

impl Encoding {
    /// The size of every value in bytes, or `None` if it varies (each value then stores its length).
    pub fn size(&self) -> Option<u32> {
        match self {
            Self::Int => Some(8),
            Self::Scalar(dtype) => Some(dtype.size() as u32),
            Self::NdArray { dtype: Some(dtype), shape: Some(shape) } => fixed_size(*dtype, shape),
            _ => None,
        }
    }
}

/// The size of an array in bytes, or `None` if it does not fit in 32 bits.
fn fixed_size(dtype: DType, shape: &[u64]) -> Option<u32> {
    let item = dtype.size() as u64;
    let bytes = shape.iter().try_fold(item, |bytes, &dim| bytes.checked_mul(dim))?;
    u32::try_from(bytes).ok()
}

impl fmt::Display for Encoding {
    /// Writes the name as it stands in `index.json`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes => f.write_str("bytes"),
            Self::Str => f.write_str("str"),
            Self::Int => f.write_str("int"),
            Self::Scalar(dtype) => f.write_str(dtype.as_str()),
            Self::StrInt => f.write_str("str_int"),
            Self::StrFloat => f.write_str("str_float"),
            Self::StrDecimal => f.write_str("str_decimal"),
            Self::Json => f.write_str("json"),
            Self::NdArray { dtype, shape } => {
                f.write_str("ndarray")?;
                let Some(dtype) = dtype else { return Ok(()) };
                write!(f, ":{dtype}")?;
                for (i, dim) in shape.iter().flatten().enumerate() {
                    write!(f, "{}{dim}", if i == 0 { ':' } else { ',' })?;
                }
                Ok(())
            }
        }
    }
}

impl FromStr for Encoding {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            "bytes" => Self::Bytes,
            "str" => Self::Str,
            "int" => Self::Int,
            "str_int" => Self::StrInt,
            "str_float" => Self::StrFloat,
            "str_decimal" => Self::StrDecimal,
            "json" => Self::Json,
            "ndarray" => Self::NdArray { dtype: None, shape: None },
            _ if name.starts_with("ndarray:") => parse_ndarray(name, &name["ndarray:".len()..])?,
            _ if KNOWN_UNSUPPORTED.contains(&name) => {
                return Err(Error::unsupported(
                    format!("the encoding {name:?} cannot be read or written by this version"),
                    "store such values in a `bytes` column",
                ));
            }
            _ => match name.parse() {
                Ok(dtype) => Self::Scalar(dtype),
                Err(_) => {
                    return Err(Error::unsupported(
                        format!("there is no encoding {name:?}"),
                        "use bytes, str, int, str_int, str_float, str_decimal, json, a number \
                         type such as int32 or float64, or ndarray[:<type>[:<d0>,<d1>,...]]",
                    ));
                }
            },
        })
    }
}

/// Parses what follows `ndarray:`, `<type>` or `<type>:<d0>,<d1>,...`. An empty tail fixes nothing.
fn parse_ndarray(name: &str, tail: &str) -> Result<Encoding> {
    if tail.is_empty() {
        return Ok(Encoding::NdArray { dtype: None, shape: None });
    }
    let (dtype, dims) = match tail.split_once(':') {
        Some((dtype, dims)) => (dtype, Some(dims)),
        None => (tail, None),
    };
    let dtype: DType = dtype.parse()?;
    let Some(dims) = dims else {
        return Ok(Encoding::NdArray { dtype: Some(dtype), shape: None });
    };
    let bad_shape = |why: &str| {
        Error::invalid(
            format!("the encoding {name:?} {why}"),
            "give the dimensions as positive integers with commas between, such as \
             ndarray:float32:2,3",
        )
    };
    let shape = dims
        .split(',')
        .map(|dim| {
            let digits = !dim.is_empty() && dim.bytes().all(|b| b.is_ascii_digit());
            dim.parse().ok().filter(|&dim: &u64| digits && dim > 0)
        })
        .collect::<Option<Vec<u64>>>()
        .ok_or_else(|| bad_shape("has a dimension that is not a positive integer"))?;
    if shape.len() > MAX_NDIM {
        return Err(bad_shape("has more than 63 dimensions"));
    }
    if fixed_size(dtype, &shape).is_none() {
        return Err(bad_shape("makes values of 4 GiB or more"));
    }
    Ok(Encoding::NdArray { dtype: Some(dtype), shape: Some(shape) })
}

/// The most dimensions that the six bits of an array header can count.
pub(super) const MAX_NDIM: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn message(name: &str) -> String {
        name.parse::<Encoding>().unwrap_err().to_string()
    }

    #[test]
    fn names_and_sizes_of_every_encoding() {
        let cases = [
            ("bytes", None),
            ("str", None),
            ("int", Some(8)),
            ("uint8", Some(1)),
            ("float16", Some(2)),
            ("float64", Some(8)),
            ("str_int", None),
            ("str_float", None),
            ("str_decimal", None),
            ("json", None),
            ("ndarray", None),
            ("ndarray:uint16", None),
            ("ndarray:uint16:128", Some(256)),
            ("ndarray:float32:2,3", Some(24)),
        ];
        for (name, size) in cases {
            let encoding: Encoding = name.parse().unwrap();
            assert_eq!(encoding.to_string(), name);
            assert_eq!(encoding.size(), size, "{name}");
        }
        assert_eq!("ndarray:".parse::<Encoding>().unwrap().to_string(), "ndarray");
    }

    #[test]
    fn images_and_pickles_are_refused_by_name() {
        for name in KNOWN_UNSUPPORTED {
            assert_eq!(name.parse::<Encoding>().unwrap_err().kind(), ErrorKind::Unsupported);
        }
        assert_eq!(
            message("jpeg"),
            "the encoding \"jpeg\" cannot be read or written by this version; store such values \
             in a `bytes` column"
        );
    }

    #[test]
    fn unknown_names_list_the_known_ones() {
        assert_eq!(
            message("float"),
            "there is no encoding \"float\"; use bytes, str, int, str_int, str_float, \
             str_decimal, json, a number type such as int32 or float64, or \
             ndarray[:<type>[:<d0>,<d1>,...]]"
        );
    }

    #[test]
    fn bad_shapes_are_refused() {
        let remedy = "give the dimensions as positive integers with commas between, such as \
                      ndarray:float32:2,3";
        for dims in ["", "0", "-1", "+1", "2,", "2, 3", "2x3", "99999999999999999999"] {
            let name = format!("ndarray:int8:{dims}");
            assert_eq!(
                message(&name),
                format!(
                    "the encoding {name:?} has a dimension that is not a positive integer; {remedy}"
                )
            );
        }
        assert_eq!(
            message("ndarray:int8:65536,65536"),
            format!(
                "the encoding \"ndarray:int8:65536,65536\" makes values of 4 GiB or more; {remedy}"
            )
        );
        let deep = format!("ndarray:int8:{}", ["1"; 64].join(","));
        assert_eq!(
            message(&deep),
            format!("the encoding {deep:?} has more than 63 dimensions; {remedy}")
        );
    }
}
