//! Parquet files: one column of text, whose row groups are read independently of one another.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{RecordBatch, StringArray};
use arrow_schema::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;

use super::chunk::Chunk;
use super::{Chunks, Part};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::Position;
use crate::progress::Meter;

/// About as many bytes as a chunk of lines has, and at most how many rows.
const BATCH_BYTES: u64 = 256 << 10;
const BATCH_ROWS: u64 = 1024;

/// A file of this machine; `held` is what removes it, if it is a copy of a remote one.
#[derive(Clone)]
pub(super) struct ParquetFile {
    pub(super) name: Arc<str>,
    pub(super) path: PathBuf,
    pub(super) held: Option<Arc<mds::ScratchFolder>>,
}

/// The row groups from `from` on.
pub(super) fn parts(file: &ParquetFile, column: &str, from: Position) -> Result<Vec<Part>> {
    let failed = |e| unreadable(&file.name, e);
    let opened = open(&file.path)?;
    // What Arrow has noted may make a column of dictionaries; the plain type is always text.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let metadata = ArrowReaderMetadata::load(&opened, options).map_err(failed)?;
    let column = position_of(&metadata, column, &file.name)?;
    let mut parts = Vec::new();
    let mut first_row = 0;
    for (number, group) in metadata.metadata().row_groups().iter().enumerate() {
        let rows = group.num_rows().unsigned_abs();
        let skipped = from.units.saturating_sub(first_row);
        if skipped < rows {
            let group = RowGroup {
                file: file.clone(),
                metadata: metadata.clone(),
                column,
                number,
                rows,
                bytes: group.compressed_size().unsigned_abs(),
                raw_bytes: group.total_byte_size().unsigned_abs(),
                start: Position { units: first_row + skipped, ..from },
                skipped,
            };
            let name = Arc::clone(&file.name);
            parts.push(Part::new(name, move |meter| group.chunks(meter)));
        }
        first_row += rows;
    }
    Ok(parts)
}

/// The number of the column in the schema.
fn position_of(metadata: &ArrowReaderMetadata, column: &str, name: &str) -> Result<usize> {
    let fields = metadata.schema().fields();
    let Some(position) = fields.iter().position(|field| field.name() == column) else {
        let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
        return Err(Error::invalid(
            format!("{name} has no column {column:?}, but {}", names.join(", ")),
            "name the column with the text with --column",
        ));
    };
    let found = fields[position].data_type();
    if *found != DataType::Utf8 {
        return Err(Error::invalid(
            format!("the column {column:?} of {name} holds {found}, not text"),
            "name the column with the text with --column",
        ));
    }
    Ok(position)
}

struct RowGroup {
    file: ParquetFile,
    metadata: ArrowReaderMetadata,
    column: usize,
    number: usize,
    rows: u64,
    /// Compressed, of all columns.
    bytes: u64,
    raw_bytes: u64,
    /// Where it begins, after rows that are not wanted.
    start: Position,
    skipped: u64,
}

impl RowGroup {
    fn chunks(self, meter: &Arc<Meter>) -> Result<Chunks> {
        let reader = self.reader()?;
        let of_rows = |rows: u64| u128::from(self.bytes) * u128::from(rows) / u128::from(self.rows);
        let mut done = self.skipped;
        meter.pass_over(of_rows(done) as u64);
        let (mut place, meter) = (self.start, Arc::clone(meter));
        let (name, bytes, rows) = (Arc::clone(&self.file.name), self.bytes, self.rows);
        let held = self.file.held;
        Ok(Box::new(reader.map(move |batch| {
            // The copy of a remote file stays until its last row is read.
            let _ = &held;
            let before = place.units;
            let batch = batch.map_err(|e| match ParquetError::from(e) {
                e if e.to_string().contains("non UTF-8") => not_utf8(&name, before, e),
                e => unreadable(&name, e),
            })?;
            place.units += batch.num_rows() as u64;
            let read = |done: u64| (u128::from(bytes) * u128::from(done) / u128::from(rows)) as u64;
            meter.pass_over(read(done + batch.num_rows() as u64) - read(done));
            done += batch.num_rows() as u64;
            Ok((Chunk::rows(before, texts(&batch, &name)?), place))
        })))
    }

    fn reader(&self) -> Result<ParquetRecordBatchReader> {
        let file = open(&self.file.path)?;
        let batch = BATCH_BYTES / (self.raw_bytes / self.rows.max(1)).max(1);
        let schema = self.metadata.parquet_schema();
        let mask = ProjectionMask::roots(schema, [self.column]);
        ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
            .with_row_groups(vec![self.number])
            .with_offset(self.skipped as usize)
            .with_batch_size(batch.clamp(1, BATCH_ROWS) as usize)
            .with_projection(mask)
            .build()
            .map_err(|e| unreadable(&self.file.name, e))
    }
}

fn texts(batch: &RecordBatch, name: &str) -> Result<StringArray> {
    let column = batch.columns().first().and_then(|column| column.as_string_opt::<i32>());
    column
        .cloned()
        .ok_or_else(|| Error::internal(&format!("the text of {name} was read as something else")))
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|e| Error::io(e, "open", path))
}

/// The library does not say which row it is.
fn not_utf8(name: &str, first_row: u64, error: ParquetError) -> Error {
    let what =
        format!("{name}: a text in row {first_row} or the {BATCH_ROWS} after it is not UTF-8");
    Error::new(ErrorKind::Corrupt, what, "write the file again with texts in UTF-8")
        .with_source(error)
}

fn unreadable(name: &str, error: ParquetError) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!("{name}: cannot be read as Parquet: {error}"),
        "the file is damaged or cut short: fetch or write it again",
    )
    .with_source(error)
}
