//! Files of other programs as record batches: Parquet, and plain JSON lines, CSV and TSV.

use std::fs::{self, File};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, Field, Schema, SchemaRef};
use mds::{Error, ErrorKind, Result};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::columns::positions;
use super::input::{Piece, Unit};
use super::json_lines;
use super::parts;
use super::text::{self, Inferred, Rounded};

/// About how many bytes of Parquet are in memory at once, and at most how many rows.
const PARQUET_BYTES: u64 = 16 << 20;
const PARQUET_ROWS: u64 = 8192;

/// Files of one kind and with the same columns.
pub(super) struct Files {
    kind: Kind,
    files: Vec<(Place, Unit)>,
    /// The columns that are read.
    pub(super) schema: SchemaRef,
    /// Their places in the files; all if empty.
    projection: Vec<usize>,
    /// All columns, and how many rows of a text file are read at once.
    all: SchemaRef,
    batch: usize,
}

/// Where a file is, and what messages call it.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) shown: String,
}

impl Place {
    fn of(path: PathBuf) -> Self {
        Self { shown: path.display().to_string(), path }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Parquet,
    Json,
    Separated { by: u8 },
}

impl Kind {
    /// By the extension, one of a compression left aside.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let plain = name.strip_suffix(".gz").or(name.strip_suffix(".zst")).unwrap_or(&name);
        let (_, extension) = plain.rsplit_once('.')?;
        match extension {
            "parquet" if plain == name => Some(Self::Parquet),
            "json" | "jsonl" | "ndjson" => Some(Self::Json),
            "csv" => Some(Self::Separated { by: b',' }),
            "tsv" => Some(Self::Separated { by: b'\t' }),
            _ => None,
        }
    }
}

impl Files {
    /// One file, of a kind that its name tells.
    pub(super) fn of_file(path: &Path, columns: &[String]) -> Result<Self> {
        Self::of_places(vec![Place::of(path.to_path_buf())], columns)
    }

    /// Files of one kind, which the name of the first tells.
    pub(super) fn of_places(places: Vec<Place>, columns: &[String]) -> Result<Self> {
        let Some(Place { path, shown }) = places.first() else {
            return Err(Error::new(ErrorKind::NotFound, "there is no file", "name one"));
        };
        let refuse =
            |what: String, remedy: &str| Err(Error::new(ErrorKind::InvalidArgument, what, remedy));
        if path.file_name().is_some_and(|name| name == "index.json") {
            return refuse(format!("{shown} is the index of a dataset"), "give its folder");
        }
        let Some(kind) = Kind::of(path) else {
            return refuse(
                format!("{shown} is a file of an unknown kind"),
                "give a dataset, or a file called .parquet, .jsonl, .ndjson, .json, .csv or .tsv, \
                 the text ones as they are or as .gz or .zst",
            );
        };
        Self::open(kind, places, columns)
    }

    /// The Parquet files in a folder, in the order of their names, if there are any.
    pub(super) fn of_folder(folder: &Path, columns: &[String]) -> Result<Option<Self>> {
        let Ok(entries) = fs::read_dir(folder) else { return Ok(None) };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let mut paths: Vec<_> =
            paths.filter(|path| Kind::of(path) == Some(Kind::Parquet) && path.is_file()).collect();
        paths.sort();
        if paths.is_empty() {
            return Ok(None);
        }
        let names = paths.iter().filter_map(|path| path.file_name()?.to_str());
        parts::refuse_cut_off(names, &folder.display())?;
        let places = paths.into_iter().map(Place::of).collect();
        Self::open(Kind::Parquet, places, columns).map(Some)
    }

    fn open(kind: Kind, places: Vec<Place>, columns: &[String]) -> Result<Self> {
        let mut files = Vec::new();
        let mut first: Option<(Place, Inferred)> = None;
        for place in places {
            let described =
                describe(kind, &place.path).map_err(|fault| fault.in_file(kind, &place))?;
            refuse_rounded(kind, &place, &described.rounded, columns)?;
            let metadata = fs::metadata(&place.path);
            let bytes = metadata.map_err(|e| Fault::Io(e).in_file(kind, &place))?.len();
            let unit = Unit { name: place.shown.clone(), samples: described.rows, bytes };
            files.push((place.clone(), unit));
            match &first {
                None => first = Some((place, described)),
                Some((of, first)) if !same_columns(&first.schema, &described.schema) => {
                    return Err(Error::new(
                        ErrorKind::InvalidArgument,
                        format!("{} has other columns than {}", place.shown, of.shown),
                        "convert the files one by one",
                    ));
                }
                Some(_) => {}
            }
        }
        let Some((place, Inferred { schema, batch, .. })) = first else {
            return Err(Error::new(ErrorKind::NotFound, "there is no file", "name one"));
        };
        let all = Arc::new(schema);
        if columns.is_empty() {
            let schema = Arc::clone(&all);
            return Ok(Self { kind, files, schema, projection: Vec::new(), all, batch });
        }
        let names: Vec<&str> = all.fields().iter().map(|field| field.name().as_str()).collect();
        let mut projection =
            positions(&names, columns).map_err(|error| error.in_dataset(&place.shown))?;
        // Readers give the columns in the order of the file.
        projection.sort_unstable();
        let schema = all.project(&projection).map_err(|e| Fault::Arrow(e).in_file(kind, &place))?;
        Ok(Self { kind, files, schema: Arc::new(schema), projection, all, batch })
    }

    /// Whether these are files of text, of which an empty one says nothing about its columns.
    pub(super) fn are_text(&self) -> bool {
        self.kind != Kind::Parquet
    }

    pub(super) fn places(&self) -> impl Iterator<Item = &Place> {
        self.files.iter().map(|(place, _)| place)
    }

    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    pub(super) fn samples(&self) -> u64 {
        self.files.iter().map(|(_, file)| file.samples).fold(0, u64::saturating_add)
    }

    /// What messages call the file that told the columns.
    pub(super) fn first(&self) -> &str {
        self.files.first().map_or("", |(place, _)| place.shown.as_str())
    }

    /// Sends the batches of all files until `send` says that nobody takes them.
    pub(super) fn read(&self, mut send: impl FnMut(Result<Piece>) -> bool) -> bool {
        self.files.iter().all(|(place, file)| {
            let mut batches = match self.batches(&place.path, file) {
                Ok(batches) => batches,
                Err(fault) => return send(Err(fault.in_file(self.kind, place))),
            };
            while let Some(batch) = unpanicked(|| batches.next().transpose()).transpose() {
                let piece = batch.map(|batch| Piece::Batch(place.shown.clone(), batch));
                if !send(piece.map_err(|fault| fault.in_file(self.kind, place))) {
                    return false;
                }
            }
            let Unit { name, samples, bytes } = file;
            send(Ok(Piece::End(Unit { name: name.clone(), samples: *samples, bytes: *bytes })))
        })
    }

    fn batches(&self, path: &Path, file: &Unit) -> Result<Batches, Fault> {
        match self.kind {
            Kind::Parquet => {
                Ok(Box::new(self.parquet(path, file)?.map(|b| b.map_err(Fault::from))))
            }
            Kind::Json => Ok(Box::new(json_lines::batches(path, &self.schema, self.batch)?)),
            Kind::Separated { by } => {
                // Its reader takes all columns and leaves some out itself.
                let mut reader = arrow_csv::ReaderBuilder::new(Arc::clone(&self.all))
                    .with_format(text::separated(by)?)
                    .with_batch_size(self.batch);
                if !self.projection.is_empty() {
                    reader = reader.with_projection(self.projection.clone());
                }
                Ok(Box::new(reader.build(text::open(path)?)?.map(|b| b.map_err(Fault::from))))
            }
        }
    }

    fn parquet(&self, path: &Path, file: &Unit) -> Result<ParquetRecordBatchReader, Fault> {
        let builder = parquet_builder(path)?;
        let groups = builder.metadata().row_groups();
        let sizes = groups.iter().map(|group| group.total_byte_size().unsigned_abs());
        let raw = sizes.fold(0, u64::saturating_add);
        let rows = PARQUET_BYTES / (raw / file.samples.max(1)).max(1);
        let mask = match self.projection.as_slice() {
            [] => ProjectionMask::all(),
            projection => {
                ProjectionMask::roots(builder.parquet_schema(), projection.iter().copied())
            }
        };
        let rows = rows.clamp(1, PARQUET_ROWS) as usize;
        unpanicked(|| Ok(builder.with_projection(mask).with_batch_size(rows).build()?))
    }
}

fn parquet_builder(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>, Fault> {
    let file = File::open(path)?;
    unpanicked(|| Ok(ParquetRecordBatchReaderBuilder::try_new(file)?))
}

/// What a reader of files finds wrong. That of Parquet panics at some damage instead of saying so.
fn unpanicked<T>(read: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    // Whatever state the reader was left in: nobody reads on after a fault.
    panic::catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|reason| {
        let text = reason.downcast_ref::<String>().cloned();
        let text = text.or_else(|| reason.downcast_ref::<&str>().map(|&text| text.to_owned()));
        Err(Fault::Panic(text.unwrap_or_else(|| "its reader panicked".to_owned())))
    })
}

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, Fault>>>;

/// The columns of a file and the number of its rows. A text file is read to its end for them.
fn describe(kind: Kind, path: &Path) -> Result<Inferred, Fault> {
    match kind {
        Kind::Parquet => {
            let builder = parquet_builder(path)?;
            let rows = builder.metadata().file_metadata().num_rows().unsigned_abs();
            let schema = builder.schema().as_ref().clone();
            // Its rows are as large as its row groups say.
            Ok(Inferred { schema, rows, batch: 0, rounded: Vec::new() })
        }
        Kind::Json => json_lines::infer(path),
        Kind::Separated { by } => text::infer_separated(path, by),
    }
}

/// Refuses integers that would become other numbers in a wanted column.
fn refuse_rounded(
    kind: Kind,
    place: &Place,
    rounded: &[Rounded],
    columns: &[String],
) -> Result<()> {
    let is_wanted = |found: &&Rounded| columns.is_empty() || columns.contains(&found.column);
    let Some(Rounded { column, place: at, integer }) = rounded.iter().find(is_wanted) else {
        return Ok(());
    };
    let leave_out = "leave the column out: name the others with --columns";
    let remedy = match kind {
        Kind::Json => format!("write its numbers as texts, as in \"{integer}\", or {leave_out}"),
        _ => leave_out.to_owned(),
    };
    Err(Error::new(
        ErrorKind::InvalidArgument,
        format!(
            "{at} has the integer {integer}, which no float64 is equal to, and the column is one of \
             float64: it has floats or integers beyond 64 bits"
        ),
        remedy,
    )
    .in_column(column)
    .in_dataset(&place.shown))
}

/// Whether two files can be read as one: what else their schemas say does not matter.
fn same_columns(a: &Schema, b: &Schema) -> bool {
    let column = |field: &Field| {
        let encoding = field.metadata().get(mds::arrow::ENCODING_KEY).cloned();
        (field.name().clone(), field.data_type().clone(), encoding)
    };
    a.fields().iter().map(|f| column(f)).eq(b.fields().iter().map(|f| column(f)))
}

/// What is wrong with a file.
pub(super) enum Fault {
    /// A line, or a row that begins in it, which is longer than any is.
    LongLine(u64),
    /// A line that is no row, and why.
    Line(String),
    Io(std::io::Error),
    Arrow(ArrowError),
    Parquet(parquet::errors::ParquetError),
    /// What a reader said when it panicked.
    Panic(String),
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<ArrowError> for Fault {
    fn from(error: ArrowError) -> Self {
        Self::Arrow(error)
    }
}

impl From<parquet::errors::ParquetError> for Fault {
    fn from(error: parquet::errors::ParquetError) -> Self {
        Self::Parquet(error)
    }
}

impl Fault {
    /// What is wrong with the compressed form of a file, which the readers of text do not tell from
    /// other faults.
    fn in_compression(&self, path: &Path) -> Option<std::io::Error> {
        match self {
            Self::LongLine(_) | Self::Line(_) => return None,
            Self::Io(error) if error.raw_os_error().is_some() => return None,
            _ => {}
        }
        let read = |mut text| std::io::copy(&mut text, &mut std::io::sink());
        let error = text::open(path).and_then(read).err()?;
        error.raw_os_error().is_none().then_some(error)
    }

    fn in_file(self, kind: Kind, place: &Place) -> Error {
        let Place { path, shown } = place;
        if let (Some(compression), Some(error)) =
            (text::compression(path), self.in_compression(path))
        {
            let what = format!("{shown} is cut short, damaged or not {compression}");
            return Error::new(ErrorKind::Corrupt, what, "fetch it again").with_source(error);
        }
        let (what, remedy) = match kind {
            Kind::Parquet => ("Parquet", "check that the file is whole"),
            Kind::Json => ("JSON lines", "give one JSON object in each line"),
            Kind::Separated { .. } => {
                ("separated values", "give a line of names, then the values of a row in each line")
            }
        };
        let error: Box<dyn std::error::Error + Send + Sync> = match self {
            Self::LongLine(line) => return long_line(kind, line, shown),
            Self::Line(why) => why.into(),
            Self::Io(error) => {
                return Error::io(error, format!("cannot read {shown}"));
            }
            Self::Arrow(error) => error.into(),
            Self::Parquet(error) => error.into(),
            Self::Panic(reason) => reason.into(),
        };
        let what = format!("cannot read {shown} as {what}");
        Error::new(ErrorKind::Corrupt, what, remedy).with_source(error)
    }
}

fn long_line(kind: Kind, line: u64, shown: &str) -> Error {
    let limit = text::LONGEST_LINE >> 20;
    let (what, remedy) = match kind {
        Kind::Separated { .. } => (
            format!("the row in line {line} of {shown} is longer than {limit} MiB"),
            "cut it into several rows, or end what is quoted in it",
        ),
        _ => (
            format!("line {line} of {shown} is longer than {limit} MiB"),
            "cut it into several objects, each in a line of its own",
        ),
    };
    Error::new(ErrorKind::InvalidArgument, what, remedy)
}
