//! Where converted samples go: a new dataset, or Parquet files.

use arrow_array::RecordBatch;
use mds::format::{Column, Encoding, Index, Schema, ShardInfo, Value};
use mds::storage::{Remote, RemoteOptions};
use mds::{Error, ErrorKind, Result, Shard, Writer, WriterOptions};

use super::Failure;
use super::columns::{Columns, positions};
use super::input::Input;
use super::options::{MAX_SHARD_BYTES, Options};
use super::parts::Parts;
use super::position::Place;
use super::stop::StopSignal;

/// Shards of a dataset that is made of files, as the writer has it by default.
const SIZE_LIMIT: u64 = 64 << 20;

pub(super) enum Sink {
    Dataset { writer: Box<Writer>, columns: Columns },
    Parquet { parts: Box<Parts>, columns: Vec<String> },
}

impl Sink {
    /// Begins to write. Everything that can be refused is refused here.
    pub(super) fn create(
        out: &str,
        input: &Input,
        options: &Options,
        stop: &StopSignal,
    ) -> Result<Self, Failure> {
        let shard = input.shard();
        let Some(format) = options.format(shard.map(|shard| &shard.format))? else {
            if let Input::Dataset(_) = input {
                refuse_pickles(input, &options.columns)?;
            }
            let schema = input.arrow_schema(&options.columns)?;
            let limit = options.size_limit.clone().or(None);
            let (codec, remote) = (options.codec()?, Remote::open(out, RemoteOptions::default())?);
            let parts = match remote.folder() {
                Some(folder) => Parts::create(folder, schema, codec, limit)?,
                None => Parts::create_at(remote, schema, codec, limit, stop)?,
            };
            return Ok(Self::Parquet { parts: Box::new(parts), columns: options.columns.clone() });
        };
        let located = |error: Error| error.in_dataset(input.shown());
        let source = if input.units() == 0 && options.columns.is_empty() {
            // Of a dataset without shards, which has no columns. No shard is written, so that nobody
            // sees this one.
            Schema::new([("none", Encoding::Int)])?
        } else {
            input.schema()?
        };
        let columns = Columns::new(&source, &options.columns, &format).map_err(located)?;
        if let Input::Dataset(source) = input {
            source.refuse_pickles(&options.columns)?;
        }
        let kept = match shard {
            // A limit that this writer does not take is none.
            Some(shard) => shard.size_limit.filter(|&limit| limit <= MAX_SHARD_BYTES),
            None => Some(SIZE_LIMIT),
        };
        let options = WriterOptions {
            format,
            compression: options.compression.clone().or(shard.and_then(|shard| shard.compression)),
            hashes: options
                .hashes
                .clone()
                .or(shard.map(|shard| shard.hashes.clone()).unwrap_or_default()),
            size_limit: options.size_limit.clone().or(kept),
            threads: options.threads,
            ..WriterOptions::default()
        };
        refuse_what_would_hide(out)?;
        let writer = Writer::create(out, columns.target.clone(), options)?;
        Ok(Self::Dataset { writer: Box::new(writer), columns })
    }

    /// Writes all samples of a shard; `each` is called after every one.
    pub(super) fn write_shard(
        &mut self,
        shard: &Shard,
        mut each: impl FnMut() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match self {
            Self::Dataset { writer, columns } => {
                columns.check(shard)?;
                let written = writer.samples();
                let place = Place { shard: Some(shard.name()), first: 0, written };
                if columns.copies(shard.schema(), shard.format()) {
                    for sample in shard.samples()? {
                        writer.write_encoded(sample.encoded()).map_err(|e| place.of(e))?;
                        each()?;
                    }
                    return Ok(());
                }
                let mut values: Vec<Value<'_>> = Vec::new();
                for sample in shard.samples()? {
                    columns.of_sample(sample, shard.format(), &mut values)?;
                    writer.write(&values).map_err(|e| place.of(e))?;
                    each()?;
                }
                Ok(())
            }
            Self::Parquet { parts, columns } => {
                let batch = project(shard.to_record_batch()?, columns)?;
                parts.write(&batch).map_err(|error| error.in_shard(shard.name()))?;
                (0..batch.num_rows()).try_for_each(|_| each())
            }
        }
    }

    /// Writes all rows of a batch, of which `first` is the number of the first one in its file.
    pub(super) fn write_batch(&mut self, batch: &RecordBatch, first: u64) -> Result<()> {
        match self {
            Self::Dataset { writer, columns } => {
                let place = Place { shard: None, first, written: writer.samples() };
                let written = if writer.schema() == columns.source() {
                    writer.write_batch(batch)
                } else {
                    write_rows(writer, columns, batch)
                };
                written.map_err(|error| place.of(error))
            }
            Self::Parquet { parts, .. } => parts.write(batch),
        }
    }

    /// A shard or a file of the source ends here.
    pub(super) fn end_unit(&mut self) -> Result<()> {
        match self {
            Self::Dataset { .. } => Ok(()),
            Self::Parquet { parts, .. } => parts.end_unit(),
        }
    }

    /// Completes the output: how many shards or files, what they are, and their bytes.
    pub(super) fn finish(self, stop: &StopSignal) -> Result<(u64, &'static str, u64), Failure> {
        match self {
            Self::Dataset { writer, .. } => {
                let index = writer.finish()?;
                let bytes = index.shards.iter().map(ShardInfo::stored_bytes).sum();
                Ok((index.shards.len() as u64, "shard", bytes))
            }
            Self::Parquet { parts, .. } => {
                let (files, bytes) = parts.finish(|| stop.check())?;
                Ok((files, "file", bytes))
            }
        }
    }
}

/// An index at a remote hides the datasets in the folders below it. A dataset in the place itself is
/// refused by the writer; shards without an index are left by a conversion that was interrupted.
fn refuse_what_would_hide(out: &str) -> Result<()> {
    let remote = Remote::open(out, RemoteOptions::default())?;
    if remote.folder().is_some() || !remote.can_list() {
        return Ok(());
    }
    let objects = match remote.objects() {
        // Who may write need not be allowed to list.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(()),
        objects => objects?,
    };
    let is_left = |object: &String| object.starts_with("shard.") && !object.contains('/');
    if objects.iter().all(is_left) || objects.iter().any(|object| object == Index::FILE_NAME) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::AlreadyExists,
        format!("the remote {} is not empty", remote.address()),
        "choose another one, or delete it first if its data may go",
    ))
}

fn write_rows(writer: &mut Writer, columns: &Columns, batch: &RecordBatch) -> Result<()> {
    let rows = columns.rows(batch)?;
    let mut values = Vec::new();
    for row in 0..rows.len() {
        rows.read(row, &mut values)?;
        columns.convert(&mut values);
        writer.write(&values)?;
    }
    Ok(())
}

/// Parquet has no type that says what a pickle is.
fn refuse_pickles(input: &Input, columns: &[String]) -> Result<()> {
    let schema = input.schema()?;
    let wanted = |column: &&Column| columns.is_empty() || columns.contains(&column.name);
    let mut wanted = schema.columns().iter().filter(wanted);
    match wanted.find(|column| column.encoding == Encoding::Pickle) {
        None => Ok(()),
        Some(column) => Err(Error::new(
            ErrorKind::Unsupported,
            "pickles are not written to Parquet",
            "leave the column out: name the others with --columns",
        )
        .in_column(&column.name)
        .in_dataset(input.shown())),
    }
}

fn project(batch: RecordBatch, columns: &[String]) -> Result<RecordBatch> {
    if columns.is_empty() {
        return Ok(batch);
    }
    let schema = batch.schema();
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    batch.project(&positions(&names, columns)?).map_err(|error| {
        Error::new(ErrorKind::Unsupported, error.to_string(), "name other columns")
    })
}
