//! From values to stored bytes and back, for each encoding.

use std::borrow::Cow;

use super::damage::Damage;
use super::dtype::{DType, Scalar};
use super::encoding::{Encoding, ImageEncoding};
use super::image::{self, Image, ImageFault, ImageFile, ImageFormat, ListKind};
use super::ndarray;
use super::python::{Decimal, Integer, Json, TextError, parse_float, write_float_repr};
use super::value::Value;
use crate::{Error, Result};

/// Appends the stored form of a value.
///
/// # Errors
/// `InvalidArgument` if the encoding does not take the value.
pub(crate) fn encode(encoding: &Encoding, value: &Value<'_>, out: &mut Vec<u8>) -> Result<()> {
    // Bytes pass through whatever the encoding, as in the reference; they are encoded already.
    if let Value::Bytes(bytes) = value {
        out.extend_from_slice(bytes);
        return Ok(());
    }
    let taken = match encoding {
        Encoding::Str => encode_str(value, out),
        Encoding::Int => encode_int(value, out),
        Encoding::Scalar(dtype) => encode_scalar(*dtype, value, out),
        Encoding::StrInt => encode_str_int(value, out)?,
        Encoding::StrFloat => encode_str_float(value, out)?,
        Encoding::StrDecimal => encode_str_decimal(value, out)?,
        Encoding::Json => encode_json(value, out)?,
        Encoding::NdArray { dtype, shape } => encode_array(*dtype, shape.as_deref(), value, out)?,
        Encoding::NdArrayColon => encode_array(None, None, value, out)?,
        Encoding::Image(image) => encode_image(*image, value, out)?,
        Encoding::JpegArray | Encoding::Jpegarray => {
            encode_list(ListKind::JpegArray, ImageEncoding::Jpeg, value, out)?
        }
        Encoding::ImageList(image) => encode_list(ListKind::List, *image, value, out)?,
        Encoding::Bytes | Encoding::Float | Encoding::Pickle => false,
    };
    if taken {
        return Ok(());
    }
    Err(Error::invalid(
        format!("the encoding {encoding} does not take {}", value.describe()),
        format!("give {}", wanted(encoding)),
    ))
}

/// What an encoding takes, for messages.
fn wanted(encoding: &Encoding) -> String {
    match encoding {
        Encoding::Bytes | Encoding::Pickle => "bytes".to_owned(),
        Encoding::Str => "a text".to_owned(),
        Encoding::Int => "an integer from -9223372036854775808 to 9223372036854775807".to_owned(),
        Encoding::Scalar(dtype) => format!("a number that fits {dtype}"),
        Encoding::StrInt => "an integer".to_owned(),
        Encoding::Float | Encoding::StrFloat => "a float".to_owned(),
        Encoding::StrDecimal => "a decimal number".to_owned(),
        Encoding::Json => "a JSON value, or the text of one".to_owned(),
        Encoding::NdArray { .. } | Encoding::NdArrayColon => "an array".to_owned(),
        Encoding::Image(ImageEncoding::Pil) => "an image, or a file of one".to_owned(),
        Encoding::Image(image) => format!("a {} file, or an image", image.name()),
        Encoding::JpegArray | Encoding::Jpegarray => "a list of jpeg files".to_owned(),
        Encoding::ImageList(image) => format!("a list of {} images", image.name()),
    }
}

fn encode_str(value: &Value<'_>, out: &mut Vec<u8>) -> bool {
    let Value::Str(text) = value else { return false };
    out.extend_from_slice(text.as_bytes());
    true
}

fn encode_int(value: &Value<'_>, out: &mut Vec<u8>) -> bool {
    let number = match value {
        Value::Int(number) => Some(*number),
        Value::Scalar(number) => number.to_i64(),
        _ => None,
    };
    number.map(|number| out.extend_from_slice(&number.to_le_bytes())).is_some()
}

fn encode_scalar(dtype: DType, value: &Value<'_>, out: &mut Vec<u8>) -> bool {
    let number = match value {
        Value::Int(number) => Scalar::I64(*number).cast(dtype),
        Value::Scalar(number) => number.cast(dtype),
        _ => None,
    };
    number.map(|number| number.write_le(out)).is_some()
}

fn encode_array(
    dtype: Option<DType>,
    shape: Option<&[u64]>,
    value: &Value<'_>,
    out: &mut Vec<u8>,
) -> Result<bool> {
    let Value::NdArray(array) = value else { return Ok(false) };
    ndarray::encode(array, dtype, shape, out)?;
    Ok(true)
}

fn encode_str_int(value: &Value<'_>, out: &mut Vec<u8>) -> Result<bool> {
    match value {
        Value::Int(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Value::Scalar(Scalar::U64(number)) => out.extend_from_slice(number.to_string().as_bytes()),
        Value::Scalar(number) => match number.to_i64() {
            Some(number) => out.extend_from_slice(number.to_string().as_bytes()),
            None => return Ok(false),
        },
        Value::Integer(number) => out.extend_from_slice(number.as_str().as_bytes()),
        Value::Str(text) => {
            let number = Integer::parse(text).map_err(|error| not_taken("an integer", &error))?;
            out.extend_from_slice(number.as_str().as_bytes());
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn encode_str_float(value: &Value<'_>, out: &mut Vec<u8>) -> Result<bool> {
    let number = match value {
        Value::Scalar(number) if number.dtype().is_float() => number.to_f64(),
        Value::Str(text) => parse_float(text)
            .ok_or_else(|| Error::invalid(format!("the text {text:?} is not a float"), FIX_TEXT))?,
        _ => return Ok(false),
    };
    write_float_repr(number, out);
    Ok(true)
}

fn encode_str_decimal(value: &Value<'_>, out: &mut Vec<u8>) -> Result<bool> {
    match value {
        Value::Decimal(number) => out.extend_from_slice(number.as_str().as_bytes()),
        Value::Int(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Value::Str(text) => {
            let number =
                Decimal::parse(text).map_err(|error| not_taken("a decimal number", &error))?;
            out.extend_from_slice(number.as_str().as_bytes());
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn encode_json(value: &Value<'_>, out: &mut Vec<u8>) -> Result<bool> {
    match value {
        Value::Json(json) => out.extend_from_slice(json.dumps().as_bytes()),
        // Stored as it is, since it may come from a JSON column or from another program.
        Value::Str(text) => {
            Json::parse(text).map_err(|error| not_taken("JSON", &error))?;
            out.extend_from_slice(text.as_bytes());
        }
        _ => return Ok(false),
    }
    Ok(true)
}

const FIX_TEXT: &str = "correct the text, or give the value itself";

fn not_taken(expected: &str, error: &TextError) -> Error {
    Error::invalid(format!("the text is not {expected}: {error}"), FIX_TEXT)
}

fn encode_image(encoding: ImageEncoding, value: &Value<'_>, out: &mut Vec<u8>) -> Result<bool> {
    match (encoding, value) {
        (ImageEncoding::Pil, Value::Image(image)) => image.encode_pil(out),
        (ImageEncoding::Pil, Value::ImageFile(file)) => {
            file.decode().map_err(image_not_taken)?.encode_pil(out);
        }
        (ImageEncoding::Jpeg | ImageEncoding::Png, Value::ImageFile(file)) => {
            if file.format() == format_of(encoding) {
                out.extend_from_slice(file.bytes());
            } else {
                let image = file.decode().map_err(image_not_taken)?;
                out.extend_from_slice(new_file(&image, encoding)?.bytes());
            }
        }
        (ImageEncoding::Jpeg | ImageEncoding::Png, Value::Image(image)) => {
            out.extend_from_slice(new_file(image, encoding)?.bytes());
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn new_file(image: &Image<'_>, encoding: ImageEncoding) -> Result<ImageFile<'static>> {
    ImageFile::from_image(image, format_of(encoding)).map_err(image_not_taken)
}

fn format_of(encoding: ImageEncoding) -> ImageFormat {
    match encoding {
        ImageEncoding::Png => ImageFormat::Png,
        _ => ImageFormat::Jpeg,
    }
}

fn image_not_taken(fault: ImageFault) -> Error {
    Error::invalid(fault.to_string(), "give another image")
}

fn encode_list(
    kind: ListKind,
    encoding: ImageEncoding,
    value: &Value<'_>,
    out: &mut Vec<u8>,
) -> Result<bool> {
    let Value::List(values) = value else { return Ok(false) };
    let mut elements = Vec::with_capacity(values.len());
    for value in values {
        let mut element = Vec::new();
        self::encode(&Encoding::Image(encoding), value, &mut element)?;
        elements.push(element);
    }
    let elements: Vec<&[u8]> = elements.iter().map(Vec::as_slice).collect();
    image::encode_list(kind, &elements, out).map_err(image_not_taken)?;
    Ok(true)
}

/// The value of stored bytes, borrowing from them wherever they are the value.
///
/// # Errors
/// `Corrupt` if the bytes are not a value of the encoding.
pub(crate) fn decode<'a>(encoding: &Encoding, bytes: &'a [u8]) -> Result<Value<'a>> {
    let wrong_size = || Damage::ValueSize { bytes: bytes.len() };
    Ok(match encoding {
        Encoding::Bytes | Encoding::Pickle => Value::Bytes(Cow::Borrowed(bytes)),
        Encoding::Str => Value::Str(Cow::Borrowed(utf8(bytes)?)),
        Encoding::Int => {
            let number = Scalar::read_le(DType::I64, bytes).and_then(Scalar::to_i64);
            Value::Int(number.ok_or_else(wrong_size)?)
        }
        Encoding::Float => {
            Value::Scalar(Scalar::read_le(DType::F64, bytes).ok_or_else(wrong_size)?)
        }
        Encoding::Scalar(dtype) => {
            Value::Scalar(Scalar::read_le(*dtype, bytes).ok_or_else(wrong_size)?)
        }
        Encoding::StrInt => Value::Integer(
            Integer::parse(utf8(bytes)?).map_err(|error| not_the_text("an integer", &error))?,
        ),
        Encoding::StrFloat => {
            let text = utf8(bytes)?;
            let number = parse_float(text).ok_or_else(|| Damage::NotTheText {
                expected: "a float",
                reason: format!("{text:?}"),
            })?;
            Value::Scalar(Scalar::F64(number))
        }
        Encoding::StrDecimal => {
            let number = Decimal::parse(utf8(bytes)?);
            Value::Decimal(number.map_err(|error| not_the_text("a decimal number", &error))?)
        }
        Encoding::Json => {
            let json = Json::parse(utf8(bytes)?);
            Value::Json(json.map_err(|error| not_the_text("JSON", &error))?)
        }
        Encoding::NdArray { dtype, shape } => {
            Value::NdArray(ndarray::decode(bytes, *dtype, shape.as_deref())?)
        }
        Encoding::NdArrayColon => Value::NdArray(ndarray::decode(bytes, None, None)?),
        Encoding::Image(image) => decode_image(*image, bytes)?,
        Encoding::JpegArray | Encoding::Jpegarray => {
            decode_list(ListKind::JpegArray, ImageEncoding::Jpeg, bytes)?
        }
        Encoding::ImageList(image) => decode_list(ListKind::List, *image, bytes)?,
    })
}

/// The text of a column that holds text.
pub(crate) fn utf8(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|error| {
        Error::from(Damage::NotUtf8 { at: error.valid_up_to() }).with_source(error)
    })
}

fn not_the_text(expected: &'static str, error: &TextError) -> Damage {
    Damage::NotTheText { expected, reason: error.to_string() }
}

fn decode_image(encoding: ImageEncoding, bytes: &[u8]) -> Result<Value<'_>> {
    Ok(match encoding {
        ImageEncoding::Pil => Value::Image(Image::decode_pil(bytes).map_err(Damage::Image)?),
        declared => Value::ImageFile(open_file(format_of(declared), bytes)?),
    })
}

/// The reference opens whatever image file it finds, so a PNG file in a `jpeg` column is one.
fn open_file(declared: ImageFormat, bytes: &[u8]) -> Result<ImageFile<'_>> {
    let other = match declared {
        ImageFormat::Jpeg => ImageFormat::Png,
        ImageFormat::Png => ImageFormat::Jpeg,
    };
    let file = ImageFile::new(declared, bytes);
    Ok(file.or_else(|fault| ImageFile::new(other, bytes).map_err(|_| Damage::Image(fault)))?)
}

fn decode_list(kind: ListKind, encoding: ImageEncoding, bytes: &[u8]) -> Result<Value<'_>> {
    let elements = image::decode_list(kind, bytes).map_err(Damage::Image)?;
    let values = elements.into_iter().map(|element| decode_image(encoding, element));
    values.collect::<Result<_>>().map(Value::List)
}

#[cfg(test)]
mod tests {
    use super::super::NdArray;
    use super::*;

    fn encoded(encoding: &str, value: &Value<'_>) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        encode(&encoding.parse()?, value, &mut out)?;
        Ok(out)
    }

    #[test]
    fn texts_of_numbers_and_json_become_those_of_python() {
        let cases: [(&str, Value<'_>, &str); 12] = [
            ("str_int", 7.into(), "7"),
            ("str_int", Scalar::U64(u64::MAX).into(), "18446744073709551615"),
            ("str_int", " +1_000 ".into(), "1000"),
            ("str_float", 1e16.into(), "1e+16"),
            ("str_float", Scalar::F32(0.5).into(), "0.5"),
            ("str_float", "1E-5".into(), "1e-05"),
            ("str_decimal", "1e-7".into(), "1E-7"),
            ("str_decimal", (-3).into(), "-3"),
            ("json", Json::parse("[1.0,null,\"é\"]").unwrap().into(), "[1.0, null, \"\\u00e9\"]"),
            ("json", "{\"b\":1}".into(), "{\"b\":1}"),
            ("json", Json::Float(f64::NAN).into(), "NaN"),
            ("str", "é".into(), "é"),
        ];
        for (encoding, value, text) in cases {
            let bytes = encoded(encoding, &value).unwrap();
            assert_eq!(String::from_utf8(bytes).unwrap(), text, "{encoding} {value:?}");
        }
    }

    #[test]
    fn texts_that_are_no_such_value_are_refused_and_corrupt() {
        let cases = [
            ("str_int", "1.5", "an integer"),
            ("str_float", "x", "a float"),
            ("str_decimal", "", "a decimal number"),
            ("json", "{", "JSON"),
        ];
        for (encoding, text, what) in cases {
            let refused = encoded(encoding, &text.into()).unwrap_err();
            assert_eq!(refused.kind(), crate::ErrorKind::InvalidArgument);
            assert!(refused.to_string().contains(&format!("is not {what}")), "{refused}");
            let error = decode(&encoding.parse().unwrap(), text.as_bytes()).unwrap_err();
            assert!(
                matches!(error.damage(), Some(Damage::NotTheText { expected, .. }) if *expected == what),
                "{error}"
            );
        }
    }

    #[test]
    fn an_image_file_of_another_format_is_one_all_the_same() {
        let image = Image::new(1, 1, image::ImageMode::Rgb, &[9, 8, 7][..]).unwrap();
        let png = ImageFile::from_image(&image, ImageFormat::Png).unwrap();
        let Value::ImageFile(file) = decode(&"jpeg".parse().unwrap(), png.bytes()).unwrap() else {
            panic!("an image file");
        };
        assert_eq!((file.format(), file.decode().unwrap()), (ImageFormat::Png, image.clone()));
        // Written to a column of the other format, it becomes one of those.
        let jpeg = encoded("jpeg", &Value::ImageFile(png.clone())).unwrap();
        assert!(ImageFile::new(ImageFormat::Jpeg, jpeg.as_slice()).is_ok());
        assert_eq!(encoded("png", &Value::ImageFile(png.clone())).unwrap(), png.bytes());
        assert_eq!(encoded("png", &Value::Image(image.clone())).unwrap(), png.bytes());
        let pil = encoded("pil", &Value::ImageFile(png)).unwrap();
        assert_eq!(decode(&"pil".parse().unwrap(), &pil).unwrap(), Value::Image(image));
        let error = decode(&"jpeg".parse().unwrap(), b"GIF89a").unwrap_err();
        assert!(matches!(error.damage(), Some(Damage::Image(ImageFault::Signature { .. }))));
    }

    #[test]
    fn arrays_under_both_names_of_the_encoding_are_the_same() {
        let array = Value::NdArray(NdArray::from_i32(&[1, -2]));
        let bytes = encoded("ndarray", &array).unwrap();
        assert_eq!(encoded("ndarray:", &array).unwrap(), bytes);
        assert_eq!(decode(&"ndarray:".parse().unwrap(), &bytes).unwrap(), array);
    }
}
