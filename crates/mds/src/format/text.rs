//! The layouts of samples: MDS itself and its siblings of text, JSON lines and separated values.
//!
//! A shard of text is two files. The data file can be read by anything that reads such text:
//!
//! ```text
//! shard.00000.json    {"id": 1, "text": "one"}\n{"id": 2, "text": "two"}\n
//! shard.00000.csv     id,text\n1,one\n2,two\n
//! ```
//! and the `.meta` file beside it holds the number of samples, the offsets of their lines in the
//! data file and the config, as the head of an MDS shard does. Columns are of the encodings `str`,
//! `int` and `float` only. Separated values have no quotes: a text that contains the separator or
//! the line end cannot be stored.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use super::damage::Damage;
use super::dtype::Scalar;
use super::encoding::Encoding;
use super::python::{Integer, Json, JsonText, parse_float, write_float_repr};
use super::schema::Schema;
use super::value::Value;
use crate::{Error, Result};

/// The layout of the samples of a shard: the field `format` of an index.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// Binary samples behind a table of offsets, in one file.
    #[default]
    Mds,
    /// A JSON object in each line.
    Json {
        /// What ends a line.
        newline: Cow<'static, str>,
    },
    /// Values with commas between.
    Csv {
        /// What ends a line.
        newline: Cow<'static, str>,
    },
    /// Values with tabs between.
    Tsv {
        /// What ends a line.
        newline: Cow<'static, str>,
    },
    /// Values with any other text between.
    Xsv {
        /// What stands between two values.
        separator: Cow<'static, str>,
        /// What ends a line.
        newline: Cow<'static, str>,
    },
}

const NEWLINE: Cow<'static, str> = Cow::Borrowed("\n");

impl Format {
    /// JSON lines that end with `\n`.
    pub const JSON: Self = Self::Json { newline: NEWLINE };
    /// Comma-separated values in lines that end with `\n`.
    pub const CSV: Self = Self::Csv { newline: NEWLINE };
    /// Tab-separated values in lines that end with `\n`.
    pub const TSV: Self = Self::Tsv { newline: NEWLINE };

    /// The format as it is named in an index, where it also has these fields.
    pub(super) fn from_index(
        name: &str,
        separator: Option<String>,
        newline: Option<String>,
    ) -> Result<Self> {
        let newline = Cow::Owned(newline.unwrap_or_else(|| "\n".to_owned()));
        let format = match (name, separator) {
            ("mds", _) => return Ok(Self::Mds),
            ("json", _) => Self::Json { newline },
            ("csv", _) => Self::Csv { newline },
            ("tsv", _) => Self::Tsv { newline },
            ("xsv", Some(separator)) => Self::Xsv { separator: separator.into(), newline },
            ("xsv", None) => Self::Xsv { separator: Cow::Borrowed(""), newline },
            (other, _) => {
                return Err(Error::unsupported(
                    format!("the shard has the format {other:?}, which does not exist"),
                    "write the dataset as mds, json, csv, tsv or xsv",
                ));
            }
        };
        format.check_separators()?;
        Ok(format)
    }

    /// The name in an index, which is also the extension of the data file.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Mds => "mds",
            Self::Json { .. } => "json",
            Self::Csv { .. } => "csv",
            Self::Tsv { .. } => "tsv",
            Self::Xsv { .. } => "xsv",
        }
    }

    /// What stands between the values of a line, if they are separated.
    pub fn separator(&self) -> Option<&str> {
        match self {
            Self::Mds | Self::Json { .. } => None,
            Self::Csv { .. } => Some(","),
            Self::Tsv { .. } => Some("\t"),
            Self::Xsv { separator, .. } => Some(separator),
        }
    }

    /// What ends a line, if the samples are lines.
    pub fn newline(&self) -> Option<&str> {
        match self {
            Self::Mds => None,
            Self::Json { newline }
            | Self::Csv { newline }
            | Self::Tsv { newline }
            | Self::Xsv { newline, .. } => Some(newline),
        }
    }

    /// Whether each shard has a second file, `.meta`, with the offsets of its samples.
    pub const fn has_meta(&self) -> bool {
        !matches!(self, Self::Mds)
    }

    /// Refuses columns that the format cannot hold, before anything is written.
    ///
    /// # Errors
    /// `InvalidArgument`, naming the column.
    pub(crate) fn check(&self, schema: &Schema) -> Result<()> {
        self.check_separators().map_err(|error| {
            Error::invalid(error.what(), "give texts that are not empty and not within each other")
        })?;
        self.check_json_newline()?;
        for column in schema.columns() {
            if !self.takes(&column.encoding) {
                return Err(Error::invalid(
                    format!("the format {self} has no encoding {}", column.encoding),
                    match self {
                        Self::Mds => "use float32 or float64",
                        _ => "use str, int or float, or write the dataset as mds",
                    },
                )
                .in_column(&column.name));
            }
            self.check_text(&column.name).map_err(|error| error.in_column(&column.name))?;
        }
        Ok(())
    }

    /// Refuses lines of JSON that the reference cannot read: it parses them with their line ends.
    fn check_json_newline(&self) -> Result<()> {
        match self {
            Self::Json { newline } if !newline.bytes().all(|byte| b" \t\n\r".contains(&byte)) => {
                Err(Error::invalid(
                    format!("the line end {newline:?} is no space of JSON"),
                    "end the lines with \\n or \\r\\n",
                ))
            }
            _ => Ok(()),
        }
    }

    fn takes(&self, encoding: &Encoding) -> bool {
        match self {
            Self::Mds => !matches!(encoding, Encoding::Float),
            _ => matches!(encoding, Encoding::Str | Encoding::Int | Encoding::Float),
        }
    }

    fn check_separators(&self) -> Result<()> {
        let Some(newline) = self.newline() else { return Ok(()) };
        let separator = self.separator().unwrap_or_default();
        let clash =
            !separator.is_empty() && (separator.contains(newline) || newline.contains(separator));
        let none = separator.is_empty() && self.separator().is_some();
        if newline.is_empty() || none || clash {
            let (separator, newline) = (separator.to_owned(), newline.to_owned());
            return Err(Damage::Separators { separator, newline }.into());
        }
        Ok(())
    }

    /// Refuses a name or a value that would be read back as several.
    fn check_text(&self, text: &str) -> Result<()> {
        let Some(separator) = self.separator() else { return Ok(()) };
        let newline = self.newline().unwrap_or_default();
        let remedy = "write the dataset as json or mds, or choose another separator with xsv";
        for (part, what) in [(separator, "separator"), (newline, "line end")] {
            if text.contains(part) {
                return Err(Error::invalid(
                    format!("the text contains the {what} {part:?}, and {self} has no quotes"),
                    remedy,
                ));
            }
        }
        // `a:` and `b` around `::` are `a:::b`, which is read as `a` and `:b`.
        let is_cut = |head: &str| {
            text.ends_with(head) && format!("{head}{separator}").find(separator) != Some(head.len())
        };
        let mut heads = separator.char_indices().skip(1).map(|(at, _)| separator.split_at(at).0);
        if heads.any(is_cut) {
            return Err(Error::invalid(
                format!(
                    "the text ends as the separator {separator:?} begins, so it would be cut there"
                ),
                remedy,
            ));
        }
        Ok(())
    }

    /// What stands before the first sample of a data file: the names of the columns, if the values
    /// are separated.
    pub(crate) fn header(&self, schema: &Schema) -> String {
        let (Some(separator), Some(newline)) = (self.separator(), self.newline()) else {
            return String::new();
        };
        let names: Vec<_> = schema.columns().iter().map(|column| column.name.as_str()).collect();
        names.join(separator) + newline
    }

    /// Replaces `out` by the bytes of the sample with these values, in the order of
    /// [`Schema::columns`].
    ///
    /// # Errors
    /// `InvalidArgument`, naming the column, if a value does not fit its encoding or, in separated
    /// values, contains the separator or the line end; `out` is then empty.
    pub fn encode_sample(
        &self,
        schema: &Schema,
        values: &[Value<'_>],
        out: &mut Vec<u8>,
    ) -> Result<()> {
        out.clear();
        self.append_sample(schema, values, out)
    }

    /// [`encode_sample`](Self::encode_sample) after what `out` holds, which stays as it is if a
    /// value does not fit.
    pub(crate) fn append_sample(
        &self,
        schema: &Schema,
        values: &[Value<'_>],
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let Some(newline) = self.newline() else { return schema.append_sample(values, out) };
        schema.check_count(values)?;
        let start = out.len();
        let encoded = match self.separator() {
            Some(separator) => self.encode_line(schema, values, separator, out),
            None => encode_object(schema, values, out),
        };
        match encoded {
            Ok(()) => out.extend_from_slice(newline.as_bytes()),
            Err(_) => out.truncate(start),
        }
        encoded
    }

    fn encode_line(
        &self,
        schema: &Schema,
        values: &[Value<'_>],
        separator: &str,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        for (i, (column, value)) in schema.columns().iter().zip(values).enumerate() {
            if i > 0 {
                out.extend_from_slice(separator.as_bytes());
            }
            if let (Encoding::Str, Value::Str(text)) = (&column.encoding, value) {
                self.check_text(text).map_err(|error| error.in_column(&column.name))?;
                out.extend_from_slice(text.as_bytes());
                continue;
            }
            let json = text_value(&column.encoding, value)
                .map_err(|error| error.in_column(&column.name))?;
            match json {
                // `nan` and `inf`, where JSON has `NaN` and `Infinity`.
                Json::Float(number) => write_float_repr(number, out),
                number => out.extend_from_slice(number.dumps().as_bytes()),
            }
        }
        Ok(())
    }

    /// The values of a sample, in the order of [`Schema::columns`], borrowing from it where its
    /// bytes are the value.
    ///
    /// # Errors
    /// `Corrupt`, naming the column, if the bytes are not a sample of these columns.
    pub fn decode_sample<'a>(&self, schema: &Schema, sample: &'a [u8]) -> Result<Vec<Value<'a>>> {
        let Some(newline) = self.newline() else { return schema.decode_sample(sample) };
        let line = line(sample, newline)?;
        match self.separator() {
            Some(separator) => {
                refuse_newline(line, newline)?;
                decode_line(schema, line, separator)
            }
            None => decode_object(schema, line),
        }
    }

    /// The stored bytes of one column of a sample: for separated values the text between the
    /// separators.
    ///
    /// # Errors
    /// As [`Schema::column_bytes`]. `Unsupported` for JSON lines, which hold columns under escapes.
    pub fn column_bytes<'a>(
        &self,
        schema: &Schema,
        sample: &'a [u8],
        column: usize,
    ) -> Result<&'a [u8]> {
        let Some(newline) = self.newline() else { return schema.column_bytes(sample, column) };
        let Some(separator) = self.separator() else {
            return Err(Error::unsupported(
                "a JSON line has no bytes for each column",
                "read the decoded value of the column",
            ));
        };
        let line = line(sample, newline)?;
        refuse_newline(line, newline)?;
        let fields = fields(schema, line, separator)?;
        fields.get(column).map(|text| text.as_bytes()).ok_or_else(|| schema.no_column(column))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The value of a column of text as what JSON would hold.
fn text_value(encoding: &Encoding, value: &Value<'_>) -> Result<Json> {
    match (encoding, value) {
        (Encoding::Str, Value::Str(text)) => Ok(Json::Str(text.as_ref().into())),
        (Encoding::Int, Value::Int(number)) => Ok(Json::Int(Integer::from(*number))),
        (Encoding::Int, Value::Integer(number)) => Ok(Json::Int(number.clone().into_owned())),
        (Encoding::Int, Value::Scalar(Scalar::U64(number))) => {
            Ok(Json::Int(Integer::from(*number)))
        }
        (Encoding::Int, Value::Scalar(number)) if number.to_i64().is_some() => {
            Ok(Json::Int(Integer::from(number.to_i64().unwrap_or_default())))
        }
        (Encoding::Float, Value::Scalar(number)) if number.dtype().is_float() => {
            Ok(Json::Float(number.to_f64()))
        }
        _ => Err(Error::invalid(
            format!("the encoding {encoding} does not take {}", value.describe()),
            match encoding {
                Encoding::Str => "give a text",
                Encoding::Int => "give an integer",
                _ => "give a float",
            },
        )),
    }
}

fn encode_object(schema: &Schema, values: &[Value<'_>], out: &mut Vec<u8>) -> Result<()> {
    let mut members = Vec::with_capacity(values.len());
    for (column, value) in schema.columns().iter().zip(values) {
        let value =
            text_value(&column.encoding, value).map_err(|error| error.in_column(&column.name))?;
        members.push((column.name.as_str().into(), value));
    }
    // Columns are sorted by name, which is what `sort_keys=True` does.
    out.extend_from_slice(Json::Object(members).dumps().as_bytes());
    Ok(())
}

/// A sample without its line end.
fn line<'a>(sample: &'a [u8], newline: &str) -> Result<&'a str> {
    let line = sample
        .strip_suffix(newline.as_bytes())
        .ok_or_else(|| Damage::NoNewline { newline: newline.to_owned() })?;
    std::str::from_utf8(line).map_err(|error| {
        Error::from(Damage::NotUtf8 { at: error.valid_up_to() }).with_source(error)
    })
}

/// Values cannot contain the line end, so what does is several lines behind one offset. A JSON line
/// is whole if it can be parsed.
fn refuse_newline(line: &str, newline: &str) -> Result<()> {
    if !line.contains(newline) {
        return Ok(());
    }
    Err(Damage::NewlineInside { newline: newline.to_owned() }.into())
}

fn fields<'a>(schema: &Schema, line: &'a str, separator: &str) -> Result<Vec<&'a str>> {
    let declared = schema.columns().len();
    // One more than declared is enough to see that there are too many.
    let fields: Vec<_> = line.splitn(declared + 1, separator).collect();
    if fields.len() == declared {
        return Ok(fields);
    }
    Err(Damage::LineColumns { found: line.split(separator).count(), declared }.into())
}

fn decode_line<'a>(schema: &Schema, line: &'a str, separator: &str) -> Result<Vec<Value<'a>>> {
    let fields = fields(schema, line, separator)?;
    let values = schema.columns().iter().zip(fields).map(|(column, text)| {
        decode_field(&column.encoding, text).map_err(|error| error.in_column(&column.name))
    });
    values.collect()
}

fn decode_field<'a>(encoding: &Encoding, text: &'a str) -> Result<Value<'a>> {
    let not = |expected, reason: String| Error::from(Damage::NotTheText { expected, reason });
    Ok(match encoding {
        Encoding::Int => {
            let number = Integer::parse(text).map_err(|e| not("an integer", e.to_string()))?;
            number.to_i64().map_or(Value::Integer(number), Value::Int)
        }
        Encoding::Float => {
            let number = parse_float(text);
            Value::Scalar(Scalar::F64(number.ok_or_else(|| not("a float", format!("{text:?}")))?))
        }
        _ => Value::Str(Cow::Borrowed(text)),
    })
}

fn decode_object(schema: &Schema, line: &str) -> Result<Vec<Value<'static>>> {
    let json = Json::parse(line).map_err(|error| {
        Error::from(Damage::NotTheText { expected: "JSON", reason: error.to_string() })
    })?;
    let Json::Object(members) = json else { return Err(Damage::NotAnObject.into()) };
    // A map, since both the columns and the keys may be many: comparing all pairs could take days.
    let mut members: HashMap<JsonText, Json> = members.into_iter().collect();
    let mut values = Vec::with_capacity(schema.columns().len());
    for column in schema.columns() {
        let value = members
            .remove(&column.name.as_str().into())
            .ok_or_else(|| Error::from(Damage::MissingKey))
            .and_then(|json| json_value(&column.encoding, json))
            .map_err(|error| error.in_column(&column.name))?;
        values.push(value);
    }
    // The same one whatever the order of the map.
    match members.into_keys().min() {
        Some(key) => Err(Damage::UnknownKey { key: key.to_string_lossy().into_owned() }.into()),
        None => Ok(values),
    }
}

fn json_value(encoding: &Encoding, json: Json) -> Result<Value<'static>> {
    Ok(match (encoding, json) {
        (Encoding::Str, Json::Str(text)) => {
            Value::Str(Cow::Owned(text.into_string().map_err(|_| half_pair())?))
        }
        (Encoding::Int, Json::Int(number)) => {
            number.to_i64().map_or(Value::Integer(number), Value::Int)
        }
        // Python counts `True` and `False` among the integers.
        (Encoding::Int, Json::Bool(flag)) => Value::Int(flag.into()),
        (Encoding::Float, Json::Float(number)) => Value::Scalar(Scalar::F64(number)),
        (encoding, _) => return Err(Damage::JsonType { expected: encoding.to_string() }.into()),
    })
}

/// Python's `str` holds it, and neither [`Value::Str`] nor the column of an MDS shard can.
fn half_pair() -> Error {
    Error::unsupported(
        "the text has half of a surrogate pair, which UTF-8 cannot hold",
        "replace it where the dataset is written",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xsv(separator: &'static str) -> Format {
        Format::Xsv { separator: separator.into(), newline: NEWLINE }
    }

    #[test]
    fn what_a_separator_would_cut_is_refused() {
        let schema = Schema::new([("a", Encoding::Str), ("b", Encoding::Str)]).unwrap();
        let written = |separator, text: &str| {
            let (format, mut line) = (xsv(separator), Vec::new());
            format.encode_sample(&schema, &[text.into(), "x".into()], &mut line)?;
            let values = format.decode_sample(&schema, &line)?;
            assert_eq!(values, [text.into(), "x".into()], "{separator:?}");
            Ok::<_, Error>(())
        };
        assert_eq!(
            written("::", "a:").unwrap_err().to_string(),
            "column a: the text ends as the separator \"::\" begins, so it would be cut \
             there; write the dataset as json or mds, or choose another separator with xsv"
        );
        for (separator, text) in [("aba", "xab"), ("\t\t", "\t"), ("éé", "é"), (":::", "x::")] {
            assert!(written(separator, text).is_err(), "{separator:?} {text:?}");
        }
        for (separator, text) in [("::", ":a"), ("ab", "xa"), ("<sep>", "<"), (":", ""), ("→", "a")]
        {
            written(separator, text).unwrap();
        }
    }

    /// In Python, `json.loads` reads the text, and its `encode("utf-8")` raises.
    #[test]
    fn texts_that_utf8_cannot_hold_are_refused_and_no_damage() {
        let schema = Schema::new([("a", Encoding::Str)]).unwrap();
        let format = Format::Json { newline: NEWLINE };
        let error = format.decode_sample(&schema, b"{\"a\": \"x\\ud83d\"}\n").unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Unsupported);
        assert_eq!(
            error.to_string(),
            "column a: the text has half of a surrogate pair, which UTF-8 cannot hold; replace it \
             where the dataset is written"
        );
        assert_eq!(
            format
                .decode_sample(&schema, b"{\"a\": \"x\", \"\\ud83d\": 1}\n")
                .unwrap_err()
                .to_string(),
            "the JSON object has the key \"\u{fffd}\", which is not a column; fetch the shard again, or \
             write it again from its source"
        );
    }

    #[test]
    fn lines_of_json_end_with_its_spaces() {
        let schema = Schema::new([("a", Encoding::Str)]).unwrap();
        for newline in ["\n", "\r\n", "\r", " \t"] {
            Format::Json { newline: newline.into() }.check(&schema).unwrap();
        }
        assert_eq!(
            Format::Json { newline: "\u{2028}".into() }.check(&schema).unwrap_err().to_string(),
            "the line end \"\\u{2028}\" is no space of JSON; end the lines with \\n or \\r\\n"
        );
    }
}
