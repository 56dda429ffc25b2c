//! Parquet files: one column of text, whose row groups are read independently of one another.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{BinaryArray, RecordBatch};
use arrow_schema::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use parquet::basic::{Encoding as ParquetEncoding, Type as PhysicalType};
use parquet::column::page::{Page, PageReader};
use parquet::errors::ParquetError;
use parquet::file::metadata::{FileMetaData, ParquetMetaData};
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::schema::types::{SchemaDescriptor, Type};

use super::chunk::Chunk;
use super::{Chunks, Part};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::Position;
use crate::progress::Meter;

/// About as many bytes as a chunk of lines has, and at most how many rows.
const BATCH_BYTES: u64 = 256 << 10;
const BATCH_ROWS: u64 = 1024;

/// Bytes of a batch whose rows are all the longest text that they may share: few stored bytes may be very many texts. A
/// batch has this many rows at least.
const LARGEST_BATCH: u64 = 8 << 20;
const FEW_ROWS: u64 = 32;

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
    let metadata = with_bytes(&metadata, column).map_err(failed)?;
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

/// The same, but what is text in `column` is no more than bytes: of text the reader would refuse a whole batch of rows,
/// and not say for which of them.
fn with_bytes(
    metadata: &ArrowReaderMetadata,
    column: usize,
) -> Result<ArrowReaderMetadata, ParquetError> {
    let file = metadata.metadata().file_metadata();
    let mut columns = file.schema().get_fields().to_vec();
    let text = columns[column].get_basic_info();
    let bytes = Type::primitive_type_builder(text.name(), PhysicalType::BYTE_ARRAY)
        .with_repetition(text.repetition())
        .build()?;
    columns[column] = Arc::new(bytes);
    let rows = Type::group_type_builder(file.schema().name()).with_fields(columns).build()?;
    let descriptor = Arc::new(SchemaDescriptor::new(Arc::new(rows)));
    let file = FileMetaData::new(file.version(), file.num_rows(), None, None, descriptor, None);
    let row_groups = metadata.metadata().row_groups().to_vec();
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    ArrowReaderMetadata::try_new(Arc::new(ParquetMetaData::new(file, row_groups)), options)
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
            let batch = batch.map_err(|e| unreadable(&name, e.into()))?;
            place.units += batch.num_rows() as u64;
            let read = |done: u64| (u128::from(bytes) * u128::from(done) / u128::from(rows)) as u64;
            meter.pass_over(read(done + batch.num_rows() as u64) - read(done));
            done += batch.num_rows() as u64;
            Ok((Chunk::rows(before, texts(&batch, &name)?), place))
        })))
    }

    fn reader(&self) -> Result<ParquetRecordBatchReader> {
        let file = open(&self.file.path)?;
        let rows = BATCH_BYTES / (self.raw_bytes / self.rows.max(1)).max(1);
        let longest = self.longest_shared().map_err(|e| unreadable(&self.file.name, e))?;
        // Small ones are slow where the long text is rare, which is not known beforehand.
        let batch = rows.min((LARGEST_BATCH / longest.max(1)).max(FEW_ROWS));
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

impl RowGroup {
    /// Bytes of the longest text that rows may share, however many there are: of the dictionary, or any where texts are
    /// stored by what they have in common with the one before; 0 where each row has its own bytes.
    fn longest_shared(&self) -> Result<u64, ParquetError> {
        let schema = self.metadata.parquet_schema();
        // Groups of columns count as one where the text's own number is known.
        let leaf =
            (0..schema.num_columns()).find(|&i| schema.get_column_root_idx(i) == self.column);
        let group = self.metadata.metadata().row_group(self.number);
        let Some(column) = leaf.and_then(|leaf| group.columns().get(leaf)) else { return Ok(0) };
        if column.encodings().any(|encoding| encoding == ParquetEncoding::DELTA_BYTE_ARRAY) {
            return Ok(u64::MAX);
        }
        if column.dictionary_page_offset().is_none() {
            return Ok(0);
        }
        let file = File::open(&self.file.path)?;
        let mut pages =
            SerializedPageReader::new(Arc::new(file), column, self.rows as usize, None)?;
        let Some(Page::DictionaryPage { buf, .. }) = pages.get_next_page()? else { return Ok(0) };
        let (mut longest, mut rest) = (0, &*buf);
        // Each text stands behind its length.
        while let Some((length, texts)) = rest.split_first_chunk() {
            let length = u32::from_le_bytes(*length);
            longest = longest.max(length);
            rest = texts.get(length as usize..).unwrap_or_default();
        }
        Ok(longest.into())
    }
}

fn texts(batch: &RecordBatch, name: &str) -> Result<BinaryArray> {
    let column = batch.columns().first().and_then(|column| column.as_binary_opt::<i32>());
    column
        .cloned()
        .ok_or_else(|| Error::internal(&format!("the text of {name} was read as something else")))
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|e| Error::io(e, "open", path))
}

fn unreadable(name: &str, error: ParquetError) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!("{name}: cannot be read as Parquet: {error}"),
        "the file is damaged or cut short: fetch or write it again",
    )
    .with_source(error)
}
