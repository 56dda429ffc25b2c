//! Values, shapes and sizes as text.

use mds::format::python::float_repr;
use mds::format::{Encoding, Image, NdArray, Scalar, Value, is_hostile_to_terminals};

/// Characters and elements of a value that are shown unless all are asked for.
const CHARACTERS: usize = 400;
const ELEMENTS: usize = 16;

/// A value in one line. Cuts long ones, with a note, unless `full`.
pub(super) fn value(name: &str, value: &Value<'_>, full: bool) -> String {
    match value {
        Value::Str(text) => self::text(text, full),
        Value::Int(number) => number.to_string(),
        Value::Scalar(scalar) => self::scalar(scalar),
        Value::NdArray(array) => list(&elements(array), full),
        Value::Bytes(bytes) => match token_ids(name, bytes) {
            Some(ids) => format!("{} as int64", list(&ids, full)),
            None => self::bytes(bytes, full),
        },
        Value::Integer(number) => self::text(number.as_str(), full),
        Value::Decimal(number) => self::text(number.as_str(), full),
        Value::Json(json) => self::text(&json.dumps(), full),
        Value::Image(image) => {
            format!("{} pixels of mode {}", image_size(image), image.mode())
        }
        Value::ImageFile(file) => match file.dimensions() {
            Ok((width, height)) => {
                format!("{} file of {width} x {height} pixels", file.format())
            }
            Err(fault) => format!("{} file ({fault})", file.format()),
        },
        Value::List(values) => {
            let values: Vec<_> = values.iter().map(|v| self::value(name, v, full)).collect();
            list(&values, full)
        }
        other => format!("{other:?}"),
    }
}

fn image_size(image: &Image<'_>) -> String {
    format!("{} x {}", image.width(), image.height())
}

/// The length of a value, in the unit of its encoding; `None` where it goes without saying.
pub(super) fn extent(value: &Value<'_>) -> Option<String> {
    match value {
        Value::Str(text) => Some(count(text.chars().count() as u64, "character")),
        Value::Bytes(bytes) => Some(count(bytes.len() as u64, "byte")),
        Value::NdArray(array) => Some(format!("shape {}", shape(&array.shape))),
        Value::ImageFile(file) => Some(count(file.bytes().len() as u64, "byte")),
        Value::List(values) => Some(count(values.len() as u64, "element")),
        _ => None,
    }
}

/// The shape of a batch of values: the common shape of arrays, `*` where lengths differ.
pub(super) fn batch_shape(values: &[Value<'_>]) -> String {
    let shapes: Vec<&[u64]> = values
        .iter()
        .map(|value| match value {
            Value::NdArray(array) => array.shape.as_slice(),
            _ => &[],
        })
        .collect();
    let mut dims = vec![values.len().to_string()];
    let first = shapes.first().copied().unwrap_or_default();
    for axis in 0..first.len() {
        let same = shapes.iter().all(|shape| shape.get(axis) == first.get(axis));
        dims.push(if same { first[axis].to_string() } else { "*".to_owned() });
    }
    format!("[{}]", dims.join(", "))
}

/// The type of a column's values: the element type of arrays, else the name of the encoding.
pub(super) fn dtype(encoding: &Encoding, values: &[Value<'_>]) -> String {
    match values.first() {
        Some(Value::NdArray(array)) => array.dtype.as_str().to_owned(),
        Some(Value::Int(_)) => "int64".to_owned(),
        _ => encoding.to_string(),
    }
}

/// A number of bytes with a decimal unit.
pub(super) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["bytes", "kB", "MB", "GB"] {
        if value < 1000.0 {
            return match unit {
                "bytes" => count(bytes, "byte"),
                unit => format!("{value:.1} {unit}"),
            };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

/// `1 shard`, `2 shards`.
pub(super) fn count(n: u64, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// A name or a text in one line. Control characters in data must not reach the terminal, nor marks that
/// turn the direction of writing; quotes may stay as they are.
pub(super) fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hostile_to_terminals(c) { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

fn text(text: &str, full: bool) -> String {
    let shown: String =
        if full { text.to_owned() } else { text.chars().take(CHARACTERS).collect() };
    let rest = if full { 0 } else { text.chars().count().saturating_sub(CHARACTERS) };
    let line = printable(&shown);
    match rest {
        0 => line,
        rest => format!("{line}... ({} more; --full prints them)", count(rest as u64, "character")),
    }
}

fn list<T: ToString>(elements: &[T], full: bool) -> String {
    let shown = if full { elements.len() } else { elements.len().min(ELEMENTS) };
    let text: Vec<String> = elements[..shown].iter().map(ToString::to_string).collect();
    match elements.len() - shown {
        0 => format!("[{}]", text.join(", ")),
        rest => format!("[{}, ... ({rest} more; --full prints them)]", text.join(", ")),
    }
}

fn bytes(bytes: &[u8], full: bool) -> String {
    let shown = if full { bytes.len() } else { bytes.len().min(2 * ELEMENTS) };
    let hex: String = bytes[..shown].iter().map(|byte| format!("{byte:02x}")).collect();
    match bytes.len() - shown {
        0 => hex,
        rest => format!("{hex}... ({} more; --full prints them)", count(rest as u64, "byte")),
    }
}

fn shape(dims: &[u64]) -> String {
    let dims: Vec<String> = dims.iter().map(ToString::to_string).collect();
    format!("[{}]", dims.join(", "))
}

fn elements(array: &NdArray<'_>) -> Vec<String> {
    match array.to_vec_i64() {
        Ok(integers) => integers.iter().map(ToString::to_string).collect(),
        Err(_) => {
            let chunks = array.data.chunks_exact(array.dtype.size());
            let numbers = chunks.filter_map(|chunk| Scalar::read_le(array.dtype, chunk));
            numbers.map(|number| scalar(&number)).collect()
        }
    }
}

fn scalar(scalar: &Scalar) -> String {
    match (scalar, scalar.to_i64()) {
        (Scalar::U64(number), _) => number.to_string(),
        // Widening first would show digits that the number does not have.
        (Scalar::F32(number), _) => {
            float_repr(number.to_string().parse().unwrap_or_else(|_| f64::from(*number)))
        }
        (_, Some(integer)) if !scalar.dtype().is_float() => integer.to_string(),
        _ => float_repr(scalar.to_f64()),
    }
}

/// Older converters stored token ids as bytes: 64-bit integers in a column called `tokens`.
fn token_ids(name: &str, bytes: &[u8]) -> Option<Vec<i64>> {
    let (words, rest) = bytes.as_chunks::<8>();
    let is_ids = name == "tokens" && rest.is_empty() && !words.is_empty();
    is_ids.then(|| words.iter().map(|word| i64::from_le_bytes(*word)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_cut_with_a_note() {
        let long = "é".repeat(CHARACTERS + 3);
        let shown = value("text", &long.as_str().into(), false);
        assert!(shown.ends_with("é... (3 characters more; --full prints them)"), "{shown}");
        assert_eq!(value("text", &long.as_str().into(), true), long);
        let ids: Vec<i32> = (0..20).collect();
        let shown = value("tokens", &NdArray::from_i32(&ids).into(), false);
        assert!(shown.ends_with("15, ... (4 more; --full prints them)]"), "{shown}");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(value("text", &"a\n\u{1b}[2J\"".into(), false), "a\\n\\u{1b}[2J\"");
        assert_eq!(printable("\u{202e}abc"), "\\u{202e}abc");
    }

    #[test]
    fn floats_are_shown_as_python_prints_them() {
        let cases = [(5e-324, "5e-324"), (1e300, "1e+300"), (100_000.0, "100000.0")];
        for (number, shown) in cases {
            assert_eq!(scalar(&Scalar::F64(number)), shown);
        }
        assert_eq!(scalar(&Scalar::F32(0.1)), "0.1");
        assert_eq!(scalar(&Scalar::F32(f32::MAX)), "3.4028235e+38");
        assert_eq!(scalar(&Scalar::I8(-1)), "-1");
    }

    #[test]
    fn token_bytes_are_shown_as_ids() {
        let bytes: Vec<u8> = [5i64, -1].iter().flat_map(|id| id.to_le_bytes()).collect();
        assert_eq!(value("tokens", &bytes.as_slice().into(), false), "[5, -1] as int64");
        assert_eq!(value("image", &bytes[..2].into(), false), "0500");
    }

    #[test]
    fn shapes_of_batches_mark_what_differs() {
        let same = [NdArray::from_i32(&[1, 2]).into(), NdArray::from_i32(&[3, 4]).into()];
        assert_eq!(batch_shape(&same), "[2, 2]");
        let ragged = [NdArray::from_i32(&[1, 2]).into(), NdArray::from_i32(&[3]).into()];
        assert_eq!(batch_shape(&ragged), "[2, *]");
        assert_eq!(batch_shape(&["a".into(), "bc".into(), "".into()]), "[3]");
    }

    #[test]
    fn sizes_have_decimal_units() {
        assert_eq!(size(1), "1 byte");
        assert_eq!(size(999), "999 bytes");
        assert_eq!(size(67_108_864), "67.1 MB");
    }
}
