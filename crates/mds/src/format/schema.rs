//! Columns and the layout of one sample.
//!
//! ```text
//! for each column of variable size, in order:  uint32 length of its value
//! for each column, in order:                   its value, back to back
//! ```
//! Columns are ordered by the Unicode code points of their names.

use std::borrow::Cow;

use super::dtype::{DType, Scalar};
use super::encoding::Encoding;
use super::ndarray;
use super::value::Value;
use crate::{Error, Result};

const LENGTH_SIZE: usize = size_of::<u32>();

/// A named column and the way its values are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
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
        Ok(Self { columns, sizes, variable })
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
        let result = self.encode_values(values, out);
        if result.is_err() {
            out.clear();
        }
        result
    }

    fn encode_values(&self, values: &[Value<'_>], out: &mut Vec<u8>) -> Result<()> {
        if values.len() != self.columns.len() {
            let names: Vec<_> = self.columns.iter().map(|column| column.name.as_str()).collect();
            return Err(Error::invalid(
                format!(
                    "the sample has {} values, but there are {} columns",
                    values.len(),
                    self.columns.len()
                ),
                format!("give one value for each of {}, in this order", names.join(", ")),
            ));
        }
        out.resize(self.variable * LENGTH_SIZE, 0);
        let mut length_at = 0;
        for ((column, size), value) in self.columns.iter().zip(&self.sizes).zip(values) {
            let start = out.len();
            encode_value(&column.encoding, value, out)
                .and_then(|()| check_length(*size, out.len() - start))
                .and_then(|length| {
                    if size.is_none() {
                        out[length_at..][..LENGTH_SIZE].copy_from_slice(&length.to_le_bytes());
                        length_at += LENGTH_SIZE;
                    }
                    Ok(())
                })
                .map_err(|error| error.in_column(&column.name))?;
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
        decode_value(encoding, bytes).map_err(|error| error.in_column(name))
    }

    fn no_column(&self, column: usize) -> Error {
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
        let (lengths, values) = sample.split_at_checked(head).ok_or_else(|| {
            corrupt(format!(
                "the sample has {size} bytes, but the lengths of its columns alone take {head}"
            ))
        })?;
        Ok(Self { schema, column: 0, lengths: lengths.as_chunks().0, values, size })
    }

    /// The bytes of the next column. Called once for each column.
    fn next_value(&mut self) -> Result<&'a [u8]> {
        let size = match self.schema.sizes.get(self.column).copied().flatten() {
            Some(size) => size,
            None => self.lengths.split_off_first().map_or(0, |&length| u32::from_le_bytes(length)),
        };
        let (value, rest) = self.values.split_at_checked(size as usize).ok_or_else(|| {
            let error = corrupt(format!(
                "the value takes {size} bytes, but only {} are left of the sample's {}",
                self.values.len(),
                self.size
            ));
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
        Err(corrupt(format!(
            "{} bytes are left over of the sample's {}",
            self.values.len(),
            self.size
        )))
    }
}

fn corrupt(what: impl Into<String>) -> Error {
    Error::corrupt(what, "fetch the shard again, or write it again from its source")
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

fn encode_value(encoding: &Encoding, value: &Value<'_>, out: &mut Vec<u8>) -> Result<()> {
    let refuse = |expected: &str| {
        Err(Error::invalid(
            format!("the encoding {encoding} does not take {}", value.describe()),
            format!("give {expected}"),
        ))
    };
    match (encoding, value) {
        // Bytes pass through whatever the encoding, as in the reference; they are encoded already.
        (_, Value::Bytes(bytes)) => out.extend_from_slice(bytes),
        (
            Encoding::Str
            | Encoding::StrInt
            | Encoding::StrFloat
            | Encoding::StrDecimal
            | Encoding::Json,
            Value::Str(text),
        ) => out.extend_from_slice(text.as_bytes()),
        (Encoding::Int, Value::Int(value)) => out.extend_from_slice(&value.to_le_bytes()),
        (Encoding::Int, Value::Scalar(scalar)) => match scalar.to_i64() {
            Some(value) => out.extend_from_slice(&value.to_le_bytes()),
            None => return refuse("an integer from -9223372036854775808 to 9223372036854775807"),
        },
        (Encoding::Scalar(dtype), Value::Int(value)) => {
            return encode_scalar(*dtype, Scalar::I64(*value), out)
                .map_or_else(|| refuse(&format!("a number that fits {dtype}")), Ok);
        }
        (Encoding::Scalar(dtype), Value::Scalar(value)) => {
            return encode_scalar(*dtype, *value, out)
                .map_or_else(|| refuse(&format!("a number that fits {dtype}")), Ok);
        }
        (Encoding::NdArray { dtype, shape }, Value::NdArray(array)) => {
            return ndarray::encode(array, *dtype, shape.as_deref(), out);
        }
        (Encoding::Bytes, _) => return refuse("bytes"),
        (Encoding::Int | Encoding::Scalar(_), _) => return refuse("a number"),
        (Encoding::NdArray { .. }, _) => return refuse("an array"),
        (_, _) => return refuse("a text"),
    }
    Ok(())
}

fn encode_scalar(dtype: DType, value: Scalar, out: &mut Vec<u8>) -> Option<()> {
    value.cast(dtype)?.write_le(out);
    Some(())
}

fn decode_value<'a>(encoding: &Encoding, bytes: &'a [u8]) -> Result<Value<'a>> {
    let wrong_size = || {
        corrupt(format!("the value has {} bytes, but the encoding takes another size", bytes.len()))
    };
    Ok(match encoding {
        Encoding::Bytes => Value::Bytes(Cow::Borrowed(bytes)),
        Encoding::Str
        | Encoding::StrInt
        | Encoding::StrFloat
        | Encoding::StrDecimal
        | Encoding::Json => match std::str::from_utf8(bytes) {
            Ok(text) => Value::Str(Cow::Borrowed(text)),
            Err(error) => {
                let at = error.valid_up_to();
                return Err(corrupt(format!("the text is not UTF-8 from its byte {at} on"))
                    .with_source(error));
            }
        },
        Encoding::Int => match Scalar::read_le(DType::I64, bytes).and_then(Scalar::to_i64) {
            Some(value) => Value::Int(value),
            None => return Err(wrong_size()),
        },
        Encoding::Scalar(dtype) => {
            Value::Scalar(Scalar::read_le(*dtype, bytes).ok_or_else(wrong_size)?)
        }
        Encoding::NdArray { dtype, shape } => {
            Value::NdArray(ndarray::decode(bytes, *dtype, shape.as_deref())?)
        }
    })
}
