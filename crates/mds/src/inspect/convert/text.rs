//! Plain text files, which say nothing of themselves: what their columns are is inferred from all that
//! is in them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_json::reader::infer_json_schema_from_iterator;
use arrow_schema::{ArrowError, DataType, Field, Schema};
use mds::format::python::Json;
use serde_json::Value;

use super::files::Fault;

/// No document is this long; a file without line ends must not fill the memory. `convert` has the
/// same limit.
pub(super) const LONGEST_LINE: u64 = 256 << 20;

/// About how many bytes of text are in memory at once, and at most how many rows.
const TEXT_BYTES: u64 = 64 << 20;
const TEXT_ROWS: u64 = 1024;

/// From here on there are integers that no float64 is equal to.
const EXACT: u64 = 1 << 53;

/// What was found in a file.
pub(super) struct Inferred {
    pub(super) schema: Schema,
    pub(super) rows: u64,
    /// Rows that are read at once.
    pub(super) batch: usize,
    pub(super) rounded: Vec<Rounded>,
}

/// An integer in a column of float64 that none is equal to, the first one of its place.
pub(super) struct Rounded {
    pub(super) column: String,
    /// The line or the row.
    pub(super) place: String,
    pub(super) integer: String,
}

/// JSON lines.
pub(super) fn infer_json(path: &Path) -> Result<Inferred, Fault> {
    let mut lines = JsonLines::new(open(path)?);
    let mut fault = None;
    let values = std::iter::from_fn(|| match lines.next() {
        Ok(value) => value.map(Ok),
        Err(found) => {
            fault = Some(found);
            None
        }
    });
    let schema = infer_json_schema_from_iterator::<_, Value>(values);
    if let Some(fault) = fault {
        return Err(fault);
    }
    let schema = schema?;
    let all = DataType::Struct(schema.fields().clone());
    let is_rounded = |keys: &[String]| innermost(&all, keys) == Some(&DataType::Float64);
    let rounded = lines.inexact.iter().filter(|(keys, _)| is_rounded(keys));
    let rounded = rounded.map(|(keys, (line, integer))| Rounded {
        column: keys.first().cloned().unwrap_or_default(),
        place: format!("line {line}"),
        integer: integer.clone(),
    });
    let rounded = rounded.collect();
    Ok(Inferred { schema, rows: lines.rows, batch: rows_at_once(lines.longest), rounded })
}

/// Separated values with a line of names.
pub(super) fn infer_separated(path: &Path, by: u8) -> Result<Inferred, Fault> {
    let mut text = Rows::new(open(path)?, by);
    let inferred = separated(by)?.infer_schema(&mut text, None);
    if text.is_too_long() {
        return Err(Fault::LongLine(text.begun));
    }
    let (schema, rows) = inferred?;
    let fields = schema.fields().iter().map(|field| match field.data_type() {
        DataType::Int64 | DataType::Float64 | DataType::Boolean => field.as_ref().clone(),
        // Dates stay what they are in the file.
        _ => Field::new(field.name(), DataType::Utf8, field.is_nullable()),
    });
    let schema = Schema::new(fields.collect::<Vec<_>>());
    let batch = rows_at_once(text.longest);
    let rounded = rounded_in_separated(path, by, &schema, batch)?;
    Ok(Inferred { schema, rows: rows as u64, batch, rounded })
}

fn rows_at_once(longest: u64) -> usize {
    (TEXT_BYTES / longest.max(1)).clamp(1, TEXT_ROWS) as usize
}

/// Reads the columns of float64 as texts, if there are any: who infers the types tells no more of
/// them.
fn rounded_in_separated(
    path: &Path,
    by: u8,
    schema: &Schema,
    batch: usize,
) -> Result<Vec<Rounded>, Fault> {
    let fields = schema.fields();
    let is_float = |&number: &usize| *fields[number].data_type() == DataType::Float64;
    let floats: Vec<usize> = (0..fields.len()).filter(is_float).collect();
    let mut rounded: Vec<Option<Rounded>> = floats.iter().map(|_| None).collect();
    if floats.is_empty() {
        return Ok(Vec::new());
    }
    let texts = fields.iter().map(|field| Field::new(field.name(), DataType::Utf8, true));
    let reader = arrow_csv::ReaderBuilder::new(Arc::new(Schema::new(texts.collect::<Vec<_>>())))
        .with_format(separated(by)?)
        .with_batch_size(batch)
        .with_projection(floats.clone())
        .build(open(path)?)?;
    let mut first = 0;
    for batch in reader {
        let batch = batch?;
        for (column, found) in rounded.iter_mut().enumerate().filter(|(_, found)| found.is_none()) {
            let texts = batch.column(column).as_string::<i32>();
            let mut integers = texts.iter().enumerate().filter_map(|(n, text)| Some((n, text?)));
            if let Some((row, text)) = integers.find(|(_, text)| is_inexact_integer(text)) {
                *found = Some(Rounded {
                    column: fields[floats[column]].name().clone(),
                    place: format!("sample {}", first + row),
                    integer: text.to_owned(),
                });
            }
        }
        first += batch.num_rows();
    }
    Ok(rounded.into_iter().flatten().collect())
}

/// Separated values with a line of names. An empty field is an empty text, not a null.
pub(super) fn separated(by: u8) -> Result<arrow_csv::reader::Format, Fault> {
    let never = regex::Regex::new(r"[^\s\S]").map_err(|e| Fault::Io(io::Error::other(e)))?;
    Ok(arrow_csv::reader::Format::default()
        .with_header(true)
        .with_delimiter(by)
        .with_null_regex(never))
}

#[expect(
    clippy::disallowed_types,
    reason = "these files declare no size; they are read as a stream, some rows at a time"
)]
pub(super) fn open(path: &Path) -> io::Result<BufReader<Box<dyn Read>>> {
    let stored = File::open(path)?;
    let plain: Box<dyn Read> = match compression(path) {
        Some("gzip") => Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::new(stored))),
        Some("zstd") => Box::new(zstd::stream::read::Decoder::new(stored)?),
        _ => Box::new(stored),
    };
    let mut text = BufReader::with_capacity(1 << 16, plain);
    // Some programs begin a text file with a mark of its byte order.
    if text.fill_buf()?.starts_with(b"\xef\xbb\xbf") {
        text.consume(3);
    }
    Ok(text)
}

/// The compression that the name of a file tells.
pub(super) fn compression(path: &Path) -> Option<&'static str> {
    match path.extension()?.to_ascii_lowercase().to_str()? {
        "gz" => Some("gzip"),
        "zst" => Some("zstd"),
        _ => None,
    }
}

struct JsonLines<R> {
    text: R,
    line: Vec<u8>,
    lines: u64,
    /// Lines that are not blank.
    rows: u64,
    longest: u64,
    /// The first integers that no float64 is equal to, with their lines, by the keys that lead to
    /// them. Whether they become floats is known at the end.
    inexact: BTreeMap<Vec<String>, (u64, String)>,
}

impl<R: BufRead> JsonLines<R> {
    fn new(text: R) -> Self {
        let inexact = BTreeMap::new();
        Self { text, line: Vec::new(), lines: 0, rows: 0, longest: 0, inexact }
    }

    fn next(&mut self) -> Result<Option<Value>, Fault> {
        loop {
            self.line.clear();
            let mut text = self.text.by_ref().take(LONGEST_LINE + 1);
            let bytes = text.read_until(b'\n', &mut self.line)? as u64;
            if bytes == 0 {
                return Ok(None);
            }
            self.lines += 1;
            self.longest = self.longest.max(bytes);
            if bytes > LONGEST_LINE {
                return Err(Fault::LongLine(self.lines));
            }
            let line = self.line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            self.rows += 1;
            let value: Value = serde_json::from_slice(line)
                .map_err(|error| ArrowError::JsonError(format!("Not valid JSON: {error}")))?;
            if may_be_inexact(&value)
                && let Ok(text) = str::from_utf8(line)
                // This one keeps integers of any size.
                && let Ok(json) = Json::parse(text)
            {
                note_inexact(&json, &mut Vec::new(), self.lines, &mut self.inexact);
            }
            return Ok(Some(value));
        }
    }
}

/// Whether there may be an integer in it that no float64 is equal to.
fn may_be_inexact(value: &Value) -> bool {
    match value {
        Value::Number(number) => match number.as_i64() {
            Some(integer) => integer.unsigned_abs() > EXACT,
            None => number.as_f64().is_some_and(|float| float.abs() > EXACT as f64),
        },
        Value::Array(values) => values.iter().any(may_be_inexact),
        Value::Object(values) => values.values().any(may_be_inexact),
        _ => false,
    }
}

fn note_inexact(
    value: &Json,
    keys: &mut Vec<String>,
    line: u64,
    found: &mut BTreeMap<Vec<String>, (u64, String)>,
) {
    match value {
        Json::Int(integer)
            if is_inexact_integer(integer.as_str()) && !found.contains_key(keys.as_slice()) =>
        {
            found.insert(keys.clone(), (line, integer.as_str().to_owned()));
        }
        Json::List(values) => values.iter().for_each(|v| note_inexact(v, keys, line, found)),
        Json::Object(values) => {
            for (key, value) in values {
                // Such a value has no half pairs: serde_json has read it before.
                keys.push(key.to_string_lossy().into_owned());
                note_inexact(value, keys, line, found);
                keys.pop();
            }
        }
        _ => {}
    }
}

/// Whether this is a decimal integer that no float64 is equal to.
fn is_inexact_integer(text: &str) -> bool {
    let digits = text.trim_start_matches(['+', '-']);
    let significant = digits.trim_start_matches('0');
    // All of fifteen digits can be held.
    significant.len() > 15
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && significant.parse::<f64>().is_ok_and(|float| format!("{float:.0}") != significant)
}

/// The type of the values that keys lead to, in lists too.
fn innermost<'a>(data_type: &'a DataType, keys: &[String]) -> Option<&'a DataType> {
    match data_type {
        DataType::List(field) => innermost(field.data_type(), keys),
        DataType::Struct(fields) => {
            let (key, keys) = keys.split_first()?;
            innermost(fields.find(key)?.1.data_type(), keys)
        }
        other => keys.is_empty().then_some(other),
    }
}

/// Passes separated values on and measures their rows: a line end within quotes ends none.
struct Rows<R> {
    text: R,
    by: u8,
    at: At,
    /// The line at hand, and the one that the row began in.
    line: u64,
    begun: u64,
    after_return: bool,
    /// Bytes of the row at hand, and of the longest one.
    bytes: u64,
    longest: u64,
}

#[derive(Clone, Copy)]
enum At {
    Begin,
    Plain,
    Quoted,
    /// A quote within quotes: their end, or the first half of one that stands for itself.
    Quote,
}

impl<R> Rows<R> {
    fn new(text: R, by: u8) -> Self {
        let (line, begun) = (1, 1);
        Self { text, by, at: At::Begin, line, begun, after_return: false, bytes: 0, longest: 0 }
    }

    fn is_too_long(&self) -> bool {
        self.bytes > LONGEST_LINE
    }

    fn pass(&mut self, byte: u8) {
        self.bytes += 1;
        let ends_line = byte == b'\r' || byte == b'\n' && !self.after_return;
        self.line += u64::from(ends_line);
        self.after_return = byte == b'\r';
        self.at = match (self.at, byte) {
            (At::Quoted, b'"') => At::Quote,
            (At::Quoted, _) | (At::Quote | At::Begin, b'"') => At::Quoted,
            (_, b'\r' | b'\n') => {
                self.longest = self.longest.max(self.bytes);
                (self.bytes, self.begun) = (0, self.line);
                At::Begin
            }
            (_, byte) if byte == self.by => At::Begin,
            _ => At::Plain,
        };
    }
}

impl<R: Read> Read for Rows<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.text.read(buffer)?;
        for &byte in &buffer[..read] {
            self.pass(byte);
            if self.is_too_long() {
                return Err(io::Error::other("the row is too long"));
            }
        }
        // The last row may have no end.
        self.longest = self.longest.max(self.bytes);
        Ok(read)
    }
}
