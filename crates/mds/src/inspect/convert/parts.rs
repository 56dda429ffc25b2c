//! A folder of Parquet files, whose names appear when all of them are complete, the first one last. Those
//! of a remote are written to a temporary folder first and go up, in that order, when all are complete.

use std::fmt::Display;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{Schema, SchemaRef};
use mds::durable::{Draft, OutFolder, Sealed};
use mds::format::Index;
use mds::storage::Remote;
use mds::{Error, ErrorKind, Result};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression as Codec;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use tempfile::TempDir;

use super::Failure;
use super::stop::StopSignal;

/// The size of a row group, as it is written: what a reader must hold, and this writer does.
const ROW_GROUP_BYTES: usize = 64 << 20;

/// Rows that are given to the writer at once, so that it can end a row group between them.
const ROWS: usize = 1024;

pub(super) struct Parts {
    folder: OutFolder,
    schema: SchemaRef,
    codec: Codec,
    limit: Option<u64>,
    open: Option<ArrowWriter<Draft>>,
    /// The raw bytes in the open part.
    raw: u64,
    /// The complete parts.
    sealed: Vec<Sealed>,
    /// Parts that have their names.
    published: Vec<PathBuf>,
    finished: bool,
    upload: Option<Upload>,
}

/// Where the parts go from their folder.
struct Upload {
    remote: Remote,
    /// The folder, removed when this is dropped.
    _folder: TempDir,
}

impl Parts {
    /// For a folder that is empty or does not exist.
    pub(super) fn create(
        folder: &Path,
        schema: Schema,
        codec: Codec,
        limit: Option<u64>,
    ) -> Result<Self> {
        Ok(Self {
            folder: OutFolder::create(folder)?,
            schema: Arc::new(schema),
            codec,
            limit,
            open: None,
            raw: 0,
            sealed: Vec::new(),
            published: Vec::new(),
            finished: false,
            upload: None,
        })
    }

    /// For a folder of a remote that holds nothing. The parts take as much room on this machine until
    /// they are there.
    pub(super) fn create_at(
        remote: Remote,
        schema: Schema,
        codec: Codec,
        limit: Option<u64>,
        stop: &StopSignal,
    ) -> Result<Self> {
        let is_empty = match remote.objects() {
            Ok(objects) => objects.is_empty(),
            // Nobody lists plain HTTP.
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                remote.size(&part_name(0))?.is_none() && remote.size(Index::FILE_NAME)?.is_none()
            }
            Err(error) => return Err(error),
        };
        if !is_empty {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("the remote {} is not empty", remote.address()),
                "choose another one, or delete it first if its data may go",
            ));
        }
        let folder = stop.temporary_folder()?;
        let mut parts = Self::create(folder.path(), schema, codec, limit)?;
        parts.upload = Some(Upload { remote, _folder: folder });
        Ok(parts)
    }

    /// Adds the rows of a batch, in parts of about the limit's size: rows count with the average
    /// size of their batch.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let Some(limit) = self.limit else { return self.append(batch) };
        let rows = batch.num_rows();
        let size = (batch.get_array_memory_size() as u64 / (rows as u64).max(1)).max(1);
        let mut start = 0;
        while start < rows {
            let room = limit.saturating_sub(self.raw) / size;
            if room == 0 && self.open.is_some() {
                self.seal()?;
                continue;
            }
            // A row that is larger than the limit gets a part of its own.
            let taken = usize::try_from(room.max(1)).unwrap_or(rows).min(rows - start);
            self.append(&batch.slice(start, taken))?;
            self.raw += taken as u64 * size;
            start += taken;
        }
        Ok(())
    }

    fn append(&mut self, batch: &RecordBatch) -> Result<()> {
        let name = self.path(self.sealed.len());
        let mut writer = match self.open.take() {
            Some(writer) => writer,
            None => self.begin(&name)?,
        };
        for start in (0..batch.num_rows()).step_by(ROWS) {
            let rows = batch.slice(start, ROWS.min(batch.num_rows() - start));
            writer.write(&rows).map_err(|error| cannot_write(error, &name))?;
        }
        self.open = Some(writer);
        Ok(())
    }

    fn begin(&self, path: &Path) -> Result<ArrowWriter<Draft>> {
        let properties = WriterProperties::builder()
            .set_compression(self.codec)
            .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
            .build();
        let draft = Draft::create(path).map_err(|e| cannot_write(e.into(), path))?;
        ArrowWriter::try_new(draft, Arc::clone(&self.schema), Some(properties))
            .map_err(|error| cannot_write(error, path))
    }

    /// Without a limit, each shard or file of the source is a part.
    pub(super) fn end_unit(&mut self) -> Result<()> {
        if self.limit.is_none() { self.seal() } else { Ok(()) }
    }

    /// Completes the open part, under its temporary name.
    fn seal(&mut self) -> Result<()> {
        let Some(writer) = self.open.take() else { return Ok(()) };
        self.raw = 0;
        let path = self.path(self.sealed.len());
        let failed = |error: ParquetError| cannot_write(error, &path);
        // Writes the last row group and what readers begin with.
        let draft = writer.into_inner().map_err(failed)?;
        self.sealed.push(draft.seal().map_err(|error| failed(error.into()))?);
        Ok(())
    }

    /// Gives all parts their names, at the remote too unless `stop` says no. The first part comes last:
    /// without it the others are no whole dataset, which is how readers tell what a killed program left.
    /// Returns how many there are and their bytes.
    pub(super) fn finish(
        mut self,
        stop: impl Fn() -> Result<(), Failure>,
    ) -> Result<(u64, u64), Failure> {
        if self.sealed.is_empty() && self.open.is_none() {
            // Without a sample there is a file all the same, which has the columns.
            self.open = Some(self.begin(&self.path(0))?);
        }
        self.seal()?;
        let bytes = self.sealed.iter().map(Sealed::bytes).sum();
        for (number, sealed) in std::mem::take(&mut self.sealed).into_iter().enumerate().rev() {
            let path = self.path(number);
            sealed.publish().map_err(|error| cannot_write(error.into(), &path))?;
            self.published.push(path);
        }
        let parts = self.published.len();
        match &self.upload {
            Some(Upload { remote, .. }) => self.upload(remote, stop)?,
            None => {
                self.folder.sync()?;
                self.finished = true;
            }
        }
        Ok((parts as u64, bytes))
    }

    /// Uploads the parts, the first one last here too. If one fails, those before it are removed.
    fn upload(
        &self,
        remote: &Remote,
        stop: impl Fn() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let parts = self.published.len();
        for number in (0..parts).rev() {
            let put = |()| Ok(remote.put_file(&part_name(number), &self.path(number))?);
            let Err(failure) = stop().and_then(put) else { continue };
            for uploaded in number + 1..parts {
                if let Err(error) = remote.delete(&part_name(uploaded)) {
                    tracing::warn!(%error, "a part of what is not complete stays at the remote");
                }
            }
            // It may have arrived all the same; where it did not, there may be nothing to remove.
            let _ = remote.delete(&part_name(number));
            return Err(failure);
        }
        Ok(())
    }

    fn path(&self, number: usize) -> PathBuf {
        self.folder.path().join(part_name(number))
    }
}

fn part_name(number: usize) -> String {
    format!("part-{number:05}.parquet")
}

/// Whether a file has a name that this program gives.
fn is_part(name: &str) -> bool {
    let number = name.strip_prefix("part-").and_then(|rest| rest.strip_suffix(".parquet"));
    number.is_some_and(|number| number.len() >= 5 && number.bytes().all(|b| b.is_ascii_digit()))
}

/// Refuses the Parquet files of a folder which are parts without the first one: it comes last.
pub(super) fn refuse_cut_off<'a>(
    mut names: impl Iterator<Item = &'a str>,
    folder: &dyn Display,
) -> Result<()> {
    let first = part_name(0);
    if !names.all(|name| is_part(name) && name != first) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::NotFound,
        format!("{folder} has parts, but no {first}"),
        "write them again: what wrote them was cut off",
    ))
}

impl Drop for Parts {
    /// Removes what was not completed, and the directories that were created for it.
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        self.open = None;
        self.sealed.clear();
        for part in &self.published {
            let _ = fs::remove_file(part);
        }
        self.folder.remove_if_empty();
    }
}

fn cannot_write(error: ParquetError, path: &Path) -> Error {
    let what = format!("cannot write {}", path.display());
    match error {
        ParquetError::External(cause) => match cause.downcast::<io::Error>() {
            Ok(error) => Error::io(*error, what),
            Err(cause) => {
                Error::new(ErrorKind::Unsupported, what, "leave the column out").with_source(cause)
            }
        },
        error => {
            Error::new(ErrorKind::Unsupported, what, "leave the column out").with_source(error)
        }
    }
}
