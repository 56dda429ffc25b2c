//! Columns and the layout of one sample.
//!
//! ```text
//! for each column of variable size, in order:  uint32 length of its value
//! for each column, in order:                   its value, back to back
//! ```
//! Columns are ordered by the Unicode code points of their names.

use super::codec;
use super::damage::Damage;
use super::encoding::Encoding;
use super::value::Value;
use crate::error::shown;
use crate::{Error, Result};

const LENGTH_SIZE: usize = size_of::<u32>();

/// A named column and the way its values are stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Column {
    /// The name.
    pub name: String,
    /// How the values are stored.
    pub encoding: Encoding,
}

/// The columns of a dataset, and with them the layout of its samples.
///
/// ```
/// use mds::format::{Encoding, Schema, Value};
///
/// # fn main() -> mds::Result<()> {
/// let schema = Schema::new([("url", Encoding::Str), ("id", Encoding::Int)])?;
/// let mut sample = Vec::new();
/// schema.encode_sample(&[7.into(), "a.b".into()], &mut sample)?; // in the order of the names
/// assert_eq!(sample, *b"\x03\0\0\0\x07\0\0\0\0\0\0\0a.b");
/// assert_eq!(schema.column_bytes(&sample, 1)?, b"a.b");
/// assert_eq!(schema.decode_sample(&sample)?, [Value::Int(7), "a.b".into()]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    columns: Vec<Column>,
    /// The fixed size of each column's values, `None` if variable.
    sizes: Vec<Option<u32>>,
    /// How many columns have a variable size.
    variable: usize,
    /// By name, as all are but what other programs may have made.
    is_sorted: bool,
}

impl Schema {
    /// Sorts the columns by name.
    ///
    /// # Errors
    /// `InvalidArgument` if there is no column or a name occurs twice.
    pub fn new(columns: impl IntoIterator<Item = (impl Into<String>, Encoding)>) -> Result<Self> {
        let mut columns: Vec<Column> = columns
            .into_iter()
            .map(|(name, encoding)| Column { name: name.into(), encoding })
            .collect();
        // The order of UTF-8 bytes is the order of code points.
        columns.sort_by(|a, b| a.name.cmp(&b.name));
        Self::in_given_order(columns)
    }

    /// Takes the columns in the order of an index file.
    pub(super) fn in_given_order(columns: Vec<Column>) -> Result<Self> {
        if columns.is_empty() {
            return Err(Error::invalid("there are no columns", "declare at least one"));
        }
        let mut names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::invalid(
                format!("the column {:?} is declared twice", pair[0]),
                "give every column a name of its own",
            ));
        }
        let sizes: Vec<_> = columns.iter().map(|column| column.encoding.size()).collect();
        let variable = sizes.iter().filter(|size| size.is_none()).count();
        let is_sorted = columns.is_sorted_by(|a, b| a.name < b.name);
        Ok(Self { columns, sizes, variable, is_sorted })
    }

    /// The columns in the order of their values in a sample.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The fixed size in bytes of each column's values, `None` if variable.
    pub fn sizes(&self) -> &[Option<u32>] {
        &self.sizes
    }

    /// The place of a column in [`columns`](Self::columns).
    pub fn position(&self, name: &str) -> Option<usize> {
        if self.is_sorted {
            return self.columns.binary_search_by(|column| column.name.as_str().cmp(name)).ok();
        }
        self.columns.iter().position(|column| column.name == name)
    }

    /// Replaces `out` by the bytes of the sample with these values, in the order of
    /// [`columns`](Self::columns).
    ///
    /// # Errors
    /// `InvalidArgument`, naming the column, if a value does not fit its encoding; `out` is then
    /// empty.
    pub fn encode_sample(&self, values: &[Value<'_>], out: &mut Vec<u8>) -> Result<()> {
        out.clear();
        self.append_sample(values, out)
    }

    /// [`encode_sample`](Self::encode_sample) after what `out` holds, which stays as it is if a
    /// value does not fit.
    pub(super) fn append_sample(&self, values: &[Value<'_>], out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        self.append_values(values, out).inspect_err(|_| out.truncate(start))
    }

    fn append_values(&self, values: &[Value<'_>], out: &mut Vec<u8>) -> Result<()> {
        self.check_count(values)?;
        let mut length_at = out.len();
        out.resize(length_at + self.variable * LENGTH_SIZE, 0);
        for ((column, size), value) in self.columns.iter().zip(&self.sizes).zip(values) {
            let start = out.len();
            let length = codec::encode(&column.encoding, value, out)
                .and_then(|()| check_length(*size, out.len() - start))
                .map_err(|error| error.in_column(&column.name))?;
            if size.is_none() {
                out[length_at..][..LENGTH_SIZE].copy_from_slice(&length.to_le_bytes());
                length_at += LENGTH_SIZE;
            }
        }
        Ok(())
    }

    /// Refuses another number of values than of columns.
    pub(super) fn check_count(&self, values: &[Value<'_>]) -> Result<()> {
        if values.len() != self.columns.len() {
            let names: Vec<_> = self.columns.iter().map(|column| shown(&column.name)).collect();
            return Err(Error::invalid(
                format!(
                    "the sample has {} values, but there are {} columns",
                    values.len(),
                    self.columns.len()
                ),
                format!("give one value for each of {}, in this order", names.join(", ")),
            ));
        }
        Ok(())
    }

    /// The values of a sample, in the order of [`columns`](Self::columns), borrowing from it.
    ///
    /// # Errors
    /// `Corrupt`, naming the column, if the bytes are not a sample of these columns.
    pub fn decode_sample<'a>(&self, sample: &'a [u8]) -> Result<Vec<Value<'a>>> {
        let mut values = Vec::with_capacity(self.columns.len());
        let mut cursor = Cursor::new(self, sample)?;
        for index in 0..self.columns.len() {
            values.push(self.decode_value(index, cursor.next_value()?)?);
        }
        cursor.finish()?;
        Ok(values)
    }

    /// Calls `each` with the number and the stored bytes of every column of a sample, in one pass.
    ///
    /// # Errors
    /// `Corrupt` if the bytes are not a sample of these columns, and the first error of `each`.
    pub(crate) fn each_value<'a>(
        &self,
        sample: &'a [u8],
        mut each: impl FnMut(usize, &'a [u8]) -> Result<()>,
    ) -> Result<()> {
        let mut cursor = Cursor::new(self, sample)?;
        for index in 0..self.columns.len() {
            each(index, cursor.next_value()?)?;
        }
        cursor.finish()
    }

    /// The stored bytes of one column of a sample.
    ///
    /// # Errors
    /// `Corrupt` if the bytes are not a sample of these columns, `InvalidArgument` if there is no
    /// such column.
    pub fn column_bytes<'a>(&self, sample: &'a [u8], column: usize) -> Result<&'a [u8]> {
        let mut cursor = Cursor::new(self, sample)?;
        let mut found = None;
        for index in 0..self.columns.len() {
            let bytes = cursor.next_value()?;
            if index == column {
                found = Some(bytes);
            }
        }
        cursor.finish()?;
        found.ok_or_else(|| self.no_column(column))
    }

    /// The value of one column of a sample, borrowing from it.
    ///
    /// # Errors
    /// As [`column_bytes`](Self::column_bytes), and `Corrupt` if the bytes are not a value of the
    /// column's encoding.
    pub fn decode_column<'a>(&self, sample: &'a [u8], column: usize) -> Result<Value<'a>> {
        self.decode_value(column, self.column_bytes(sample, column)?)
    }

    fn decode_value<'a>(&self, column: usize, bytes: &'a [u8]) -> Result<Value<'a>> {
        let Column { name, encoding } =
            self.columns.get(column).ok_or_else(|| self.no_column(column))?;
        codec::decode(encoding, bytes).map_err(|error| error.in_column(name))
    }

    pub(super) fn no_column(&self, column: usize) -> Error {
        Error::invalid(
            format!("there is no column number {column}"),
            format!("the columns are numbered 0 to {}", self.columns.len() - 1),
        )
    }
}

/// Walks the values of a sample.
struct Cursor<'s, 'a> {
    schema: &'s Schema,
    column: usize,
    /// The stored lengths of the columns of variable size still to come.
    lengths: &'a [[u8; LENGTH_SIZE]],
    /// The values still to come.
    values: &'a [u8],
    size: usize,
}

impl<'s, 'a> Cursor<'s, 'a> {
    fn new(schema: &'s Schema, sample: &'a [u8]) -> Result<Self> {
        let size = sample.len();
        let head = schema.variable * LENGTH_SIZE;
        let (lengths, values) = sample
            .split_at_checked(head)
            .ok_or_else(|| Error::from(Damage::SampleTooShort { bytes: size, head }))?;
        Ok(Self { schema, column: 0, lengths: lengths.as_chunks().0, values, size })
    }

    /// The bytes of the next column. Called once for each column.
    fn next_value(&mut self) -> Result<&'a [u8]> {
        let size = match self.schema.sizes.get(self.column).copied().flatten() {
            Some(size) => size,
            None => self.lengths.split_off_first().map_or(0, |&length| u32::from_le_bytes(length)),
        };
        let (value, rest) = self.values.split_at_checked(size as usize).ok_or_else(|| {
            let (left, bytes) = (self.values.len(), self.size);
            let error = Error::from(Damage::ValueTooLong { size, left, bytes })
                .at_byte((bytes - left) as u64);
            match self.schema.columns.get(self.column) {
                Some(column) => error.in_column(&column.name),
                None => error,
            }
        })?;
        self.values = rest;
        self.column += 1;
        Ok(value)
    }

    fn finish(self) -> Result<()> {
        if self.values.is_empty() {
            return Ok(());
        }
        let (left, bytes) = (self.values.len(), self.size);
        Err(Error::from(Damage::LeftOver { left, bytes }).at_byte((bytes - left) as u64))
    }
}

/// Refuses a value whose size the format cannot express.
fn check_length(size: Option<u32>, length: usize) -> Result<u32> {
    let too_large = |_| {
        Error::invalid(
            format!("the value has {length} bytes"),
            "split it: a value may have at most 4294967295 bytes",
        )
    };
    let length = u32::try_from(length).map_err(too_large)?;
    match size {
        Some(size) if size != length => Err(Error::invalid(
            format!("the value has {length} bytes, but the encoding takes {size}"),
            "give a value of the declared size, or declare the column as `bytes`",
        )),
        _ => Ok(length),
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::super::dtype::Scalar;
    use half::f16;

    use super::super::value::NdArray;
    use super::*;
    use crate::ErrorKind;

    const REMEDY: &str = "fetch the shard again, or write it again from its source";

    fn schema(columns: &[(&str, &str)]) -> Schema {
        Schema::new(columns.iter().map(|(name, e)| (*name, e.parse().unwrap()))).unwrap()
    }

    /// Encodes one value of one column.
    fn encoded(encoding: &str, value: Value<'_>) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        schema(&[("x", encoding)]).encode_sample(&[value], &mut out)?;
        Ok(out)
    }

    #[test]
    fn columns_are_sorted_by_code_point() {
        let schema = schema(&[
            ("b", "str"),
            ("😀", "int"),
            ("a", "int8"),
            ("Z", "bytes"),
            ("\u{ffff}", "str"),
        ]);
        let names: Vec<_> = schema.columns().iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["Z", "a", "b", "\u{ffff}", "😀"]);
        assert_eq!(schema.sizes(), [None, Some(1), None, None, Some(8)]);
        assert_eq!(schema.position("b"), Some(2));
        assert_eq!(schema.position("c"), None);
    }

    #[test]
    fn schemas_need_columns_with_names_of_their_own() {
        let none: [(&str, Encoding); 0] = [];
        assert_eq!(
            Schema::new(none).unwrap_err().to_string(),
            "there are no columns; declare at least one"
        );
        assert_eq!(
            Schema::new([("a", Encoding::Str), ("a", Encoding::Int)]).unwrap_err().to_string(),
            "the column \"a\" is declared twice; give every column a name of its own"
        );
    }

    #[test]
    fn samples_hold_lengths_first_then_values() {
        let schema = schema(&[("a", "str"), ("b", "uint16"), ("c", "bytes"), ("d", "int")]);
        let values = [
            "hé".into(),
            Value::Scalar(Scalar::U16(258)),
            [9u8, 8].as_slice().into(),
            Value::Int(-1),
        ];
        let mut sample = b"left over".to_vec();
        schema.encode_sample(&values, &mut sample).unwrap();
        let expected =
            [b"\x03\0\0\0\x02\0\0\0h\xc3\xa9\x02\x01\x09\x08".as_slice(), &[0xff; 8]].concat();
        assert_eq!(sample, expected);
        assert_eq!(schema.decode_sample(&sample).unwrap(), values);
        let columns: Vec<_> = (0..4).map(|i| schema.column_bytes(&sample, i).unwrap()).collect();
        assert_eq!(columns, ["hé".as_bytes(), &[2, 1], &[9, 8], &[0xff; 8]]);
        assert_eq!(schema.decode_column(&sample, 3).unwrap(), Value::Int(-1));
        assert_eq!(
            schema.column_bytes(&sample, 4).unwrap_err().to_string(),
            "there is no column number 4; the columns are numbered 0 to 3"
        );
    }

    #[test]
    fn decoded_values_borrow() {
        let schema = schema(&[("a", "ndarray:int32"), ("t", "str")]);
        let mut sample = Vec::new();
        schema.encode_sample(&[NdArray::from_i32(&[1]).into(), "[1]".into()], &mut sample).unwrap();
        match schema.decode_sample(&sample).unwrap().as_slice() {
            [
                Value::NdArray(NdArray { data: Cow::Borrowed(_), .. }),
                Value::Str(Cow::Borrowed(_)),
            ] => {}
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn numbers_convert_if_nothing_is_lost_silently() {
        assert_eq!(encoded("uint8", 255.into()).unwrap(), [255]);
        assert_eq!(encoded("float32", 3.into()).unwrap(), 3f32.to_le_bytes());
        assert_eq!(encoded("int", Scalar::U8(4).into()).unwrap(), 4i64.to_le_bytes());
        let half = encoded("float16", Scalar::F64(0.1).into()).unwrap();
        assert_eq!(half, f16::from_f64(0.1).to_le_bytes());
    }

    #[test]
    fn values_that_do_not_fit_are_refused() {
        let cases: [(&str, Value<'_>, &str); 9] = [
            ("uint8", 256.into(), "does not take the integer 256; give a number that fits uint8"),
            (
                "int64",
                Scalar::U64(u64::MAX).into(),
                "does not take the uint64 18446744073709551615; give a number that fits int64",
            ),
            (
                "int8",
                Scalar::F64(1.5).into(),
                "does not take the float64 1.5; give a number that fits int8",
            ),
            (
                "int",
                Scalar::F32(1.0).into(),
                "does not take the float32 1; give an integer from -9223372036854775808 to \
                 9223372036854775807",
            ),
            (
                "int",
                "1".into(),
                "does not take a text; give an integer from -9223372036854775808 to \
                 9223372036854775807",
            ),
            ("bytes", "1".into(), "does not take a text; give bytes"),
            ("str", 1.into(), "does not take the integer 1; give a text"),
            (
                "json",
                NdArray::from_i32(&[1, 2]).into(),
                "does not take a int32 array of shape [2]; give a JSON value, or the text of one",
            ),
            ("ndarray", 1.into(), "does not take the integer 1; give an array"),
        ];
        for (encoding, value, expected) in cases {
            let error = encoded(encoding, value).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert_eq!(error.to_string(), format!("column x: the encoding {encoding} {expected}"));
        }
    }

    #[test]
    fn bytes_pass_through_every_encoding_if_the_size_is_right() {
        for encoding in ["str", "json", "str_int", "ndarray", "ndarray:int8"] {
            assert_eq!(encoded(encoding, vec![0xff].into()).unwrap(), [1, 0, 0, 0, 0xff]);
        }
        assert_eq!(encoded("int", vec![7; 8].into()).unwrap(), [7; 8]);
        assert_eq!(
            encoded("int", vec![7; 9].into()).unwrap_err().to_string(),
            "column x: the value has 9 bytes, but the encoding takes 8; give a value of the \
             declared size, or declare the column as `bytes`"
        );
    }

    #[test]
    fn the_number_of_values_must_be_that_of_the_columns() {
        let mut out = vec![1];
        let schema = schema(&[("b", "int"), ("a", "int")]);
        assert_eq!(
            schema.encode_sample(&[1.into()], &mut out).unwrap_err().to_string(),
            "the sample has 1 values, but there are 2 columns; give one value for each of a, b, \
             in this order"
        );
        assert!(out.is_empty());
    }

    #[test]
    fn damaged_samples_are_corrupt() {
        let schema = schema(&[("a", "str"), ("b", "uint16")]);
        let message = |sample: &[u8]| {
            let error = schema.decode_sample(sample).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            error.to_string()
        };
        assert_eq!(
            message(&[0; 3]),
            format!(
                "the sample has 3 bytes, but the lengths of its columns alone take 4; {REMEDY}"
            )
        );
        assert_eq!(
            message(b"\xff\xff\xff\xffabcd"),
            format!(
                "byte 4, column a: the value takes 4294967295 bytes, but only 4 are left of the sample's \
                 8; {REMEDY}"
            )
        );
        assert_eq!(
            message(b"\x01\0\0\0ab"),
            format!(
                "byte 5, column b: the value takes 2 bytes, but only 1 are left of the sample's 6; \
                 {REMEDY}"
            )
        );
        assert_eq!(
            message(b"\x01\0\0\0abcd"),
            format!("byte 7: 1 bytes are left over of the sample's 8; {REMEDY}")
        );
        assert_eq!(
            message(b"\x02\0\0\0a\xff\0\0"),
            format!("column a: the text is not UTF-8 from its byte 1 on; {REMEDY}")
        );
        assert!(schema.column_bytes(b"\x01\0\0\0abcd", 0).is_err());
    }

    /// Whatever the bytes, reading them returns.
    #[test]
    fn random_bytes_never_panic() {
        let schema =
            schema(&[("a", "ndarray"), ("b", "str"), ("c", "ndarray:uint16"), ("d", "int")]);
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u8
        };
        for length in 0..2000 {
            // Small lengths are likely, so that the values behind them are reached too.
            let sample: Vec<u8> = (0..length % 61)
                .map(|i| if i < 12 && i % 4 > 0 { 0 } else { next() % 20 })
                .collect();
            let _ = schema.decode_sample(&sample);
            let _ = schema.column_bytes(&sample, 1);
        }
    }
}
