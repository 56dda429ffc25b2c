//! Plain text files, which say nothing of themselves: what their columns are is inferred from all that
//! is in them. Here are separated values, and what they share with [JSON lines](super::json_lines).

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_schema::{DataType, Field, Schema};

use super::files::Fault;

/// No document is this long; a file without line ends must not fill the memory. `convert` has the
/// same limit.
pub(super) const LONGEST_LINE: u64 = 256 << 20;

/// About how many bytes of text are in memory at once, and at most how many rows.
const TEXT_BYTES: u64 = 64 << 20;
const TEXT_ROWS: u64 = 1024;

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

pub(super) fn rows_at_once(longest: u64) -> usize {
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

/// Whether this is a decimal integer that no float64 is equal to.
pub(super) fn is_inexact_integer(text: &str) -> bool {
    let digits = text.trim_start_matches(['+', '-']);
    let significant = digits.trim_start_matches('0');
    // All of fifteen digits can be held.
    significant.len() > 15
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && significant.parse::<f64>().is_ok_and(|float| format!("{float:.0}") != significant)
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
