//! The encodings of columns: their names in `index.json` and their fixed sizes.

use std::fmt;
use std::str::FromStr;

use super::dtype::DType;
use super::python::Integer;
use crate::{Error, Result};

/// How the values of one column are stored.
///
/// | name in the index | bytes | value |
/// | --- | --- | --- |
/// | `bytes` | any | [`Value::Bytes`](super::Value::Bytes) |
/// | `str` | UTF-8 | [`Value::Str`](super::Value::Str) |
/// | `int` | 8, signed | [`Value::Int`](super::Value::Int) |
/// | `uint8` … `float64` | 1, 2, 4 or 8 | [`Value::Scalar`](super::Value::Scalar) |
/// | `str_int` | decimal digits | [`Value::Integer`](super::Value::Integer) |
/// | `str_float` | Python's `repr` | [`Value::Scalar`](super::Value::Scalar) |
/// | `str_decimal` | Python's `str(Decimal)` | [`Value::Decimal`](super::Value::Decimal) |
/// | `json` | Python's `json.dumps` | [`Value::Json`](super::Value::Json) |
/// | `ndarray[:type[:shape]]` | header, numbers | [`Value::NdArray`](super::Value::NdArray) |
/// | `pil` | size, mode, pixels | [`Value::Image`](super::Value::Image) |
/// | `jpeg`, `png` | the file | [`Value::ImageFile`](super::Value::ImageFile) |
/// | `jpeg_array`, `list[…]` | sizes, elements | [`Value::List`](super::Value::List) |
/// | `pkl` | a Python pickle | refused, or [`Value::Bytes`](super::Value::Bytes) if asked for |
///
/// All numbers are little-endian. Whatever the encoding, [`Value::Bytes`](super::Value::Bytes) is
/// stored as it is, as already encoded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Encoding {
    /// Bytes as they are.
    Bytes,
    /// UTF-8 text.
    Str,
    /// A signed 64-bit integer; in the text formats an integer of any size.
    Int,
    /// A 64-bit float, in the text formats only: MDS has `float64`.
    Float,
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
    /// The same as an array of which nothing is fixed, under the name `ndarray:`.
    NdArrayColon,
    /// An image.
    Image(ImageEncoding),
    /// A list of JPEG files, with at least one.
    JpegArray,
    /// The same as [`JpegArray`](Self::JpegArray) under another name.
    Jpegarray,
    /// A list of images.
    ImageList(ImageEncoding),
    /// A Python pickle. Loading one runs whatever its author wrote, so it is never decoded, and
    /// not even parsed as the name of an encoding: who wants its bytes asks for them with
    /// [`IndexOptions::pickle_bytes`](super::IndexOptions::pickle_bytes).
    Pickle,
}

/// How an image is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImageEncoding {
    /// The pixels, under the name of Python's imaging library.
    Pil,
    /// A JPEG file.
    Jpeg,
    /// A PNG file.
    Png,
}

impl ImageEncoding {
    const ALL: [Self; 3] = [Self::Pil, Self::Jpeg, Self::Png];

    /// The name in an index.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pil => "pil",
            Self::Jpeg => "jpeg",
            Self::Png => "png",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|encoding| encoding.name() == name)
    }
}

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
            Self::Float => f.write_str("float"),
            Self::NdArrayColon => f.write_str("ndarray:"),
            Self::Image(image) => f.write_str(image.name()),
            Self::ImageList(image) => write!(f, "list[{}]", image.name()),
            Self::JpegArray => f.write_str("jpeg_array"),
            Self::Jpegarray => f.write_str("jpegarray"),
            Self::Pickle => f.write_str("pkl"),
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
            "float" => Self::Float,
            "str_int" => Self::StrInt,
            "str_float" => Self::StrFloat,
            "str_decimal" => Self::StrDecimal,
            "json" => Self::Json,
            "ndarray" => Self::NdArray { dtype: None, shape: None },
            "jpeg_array" => Self::JpegArray,
            "jpegarray" => Self::Jpegarray,
            "pkl" => {
                return Err(Error::unsupported(
                    "the encoding \"pkl\" is refused: loading a Python pickle can run any code",
                    "store such values in a `bytes` column; to read their bytes all the same, \
                     ask for pickle_bytes",
                ));
            }
            _ => return Self::parse_compound(name),
        })
    }
}

impl Encoding {
    /// The names that are not plain words.
    fn parse_compound(name: &str) -> Result<Self> {
        if let Some(tail) = name.strip_prefix("ndarray:") {
            return parse_ndarray(name, tail);
        }
        if let Some(image) = ImageEncoding::named(name) {
            return Ok(Self::Image(image));
        }
        let element = name.strip_prefix("list[").and_then(|tail| tail.strip_suffix(']'));
        if let Some(image) = element.and_then(ImageEncoding::named) {
            return Ok(Self::ImageList(image));
        }
        name.parse().map(Self::Scalar).map_err(|_| {
            Error::unsupported(
                format!("there is no encoding {name:?}"),
                "use bytes, str, int, str_int, str_float, str_decimal, json, a number type such \
                 as int32 or float64, ndarray[:<type>[:<d0>,<d1>,...]], pil, jpeg, png, \
                 jpeg_array, list[pil], list[jpeg] or list[png]",
            )
        })
    }

    /// As an index names it; a pickle only if `pickle_bytes`.
    pub(super) fn from_index(name: &str, pickle_bytes: bool) -> Result<Self> {
        if pickle_bytes && name == "pkl" { Ok(Self::Pickle) } else { name.parse() }
    }
}

/// Parses what follows `ndarray:`, `<type>` or `<type>:<d0>,<d1>,...`. An empty tail fixes nothing.
fn parse_ndarray(name: &str, tail: &str) -> Result<Encoding> {
    if tail.is_empty() {
        return Ok(Encoding::NdArrayColon);
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
        // The reference gives each to `int`, which takes `+2`, ` 3` and `1_000`.
        .map(|dim| Integer::parse(dim).ok()?.to_u64().filter(|&dim| dim > 0))
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
            ("ndarray:", None),
            ("ndarray:uint16", None),
            ("ndarray:uint16:128", Some(256)),
            ("ndarray:float32:2,3", Some(24)),
            ("pil", None),
            ("jpeg", None),
            ("png", None),
            ("jpeg_array", None),
            ("jpegarray", None),
            ("list[pil]", None),
            ("list[jpeg]", None),
            ("list[png]", None),
        ];
        for (name, size) in cases {
            let encoding: Encoding = name.parse().unwrap();
            assert_eq!(encoding.to_string(), name);
            assert_eq!(encoding.size(), size, "{name}");
        }
    }

    #[test]
    fn dimensions_are_read_as_python_reads_integers() {
        for dims in ["2, 3", "+2,03", " 2 ,\t3", "0_2,3"] {
            let encoding: Encoding = format!("ndarray:int32:{dims}").parse().unwrap();
            assert_eq!(encoding.to_string(), "ndarray:int32:2,3");
        }
    }

    #[test]
    fn pickles_are_refused_by_name() {
        assert_eq!(
            message("pkl"),
            "the encoding \"pkl\" is refused: loading a Python pickle can run any code; store such \
             values in a `bytes` column; to read their bytes all the same, ask for pickle_bytes"
        );
        assert_eq!(Encoding::from_index("pkl", true).unwrap(), Encoding::Pickle);
        assert_eq!(Encoding::from_index("pkl", false).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn unknown_names_list_the_known_ones() {
        for name in ["bool", "list[str]", "list[pil", "pil]", "jpg", ""] {
            assert_eq!(
                message(name),
                format!(
                    "there is no encoding {name:?}; use bytes, str, int, str_int, str_float, \
                     str_decimal, json, a number type such as int32 or float64, \
                     ndarray[:<type>[:<d0>,<d1>,...]], pil, jpeg, png, jpeg_array, list[pil], \
                     list[jpeg] or list[png]"
                )
            );
        }
    }

    #[test]
    fn bad_shapes_are_refused() {
        let remedy = "give the dimensions as positive integers with commas between, such as \
                      ndarray:float32:2,3";
        for dims in ["", "0", "-1", "2,", "2,+ 3", "2x3", "99999999999999999999"] {
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
