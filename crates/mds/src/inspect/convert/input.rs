//! What is converted, and reading it piece by piece.

use std::path::Path;
use std::sync::mpsc::SyncSender;

use arrow_array::RecordBatch;
use mds::format::{Schema, ShardInfo};
use mds::storage::is_address;
use mds::{Error, ErrorKind, Result, Shard};
use tempfile::TempDir;

use super::super::source::Source;
use super::Failure;
use super::columns::positions;
use super::fetched::{self, Fetched};
use super::files::Files;
use super::stop::StopSignal;

pub(super) enum Input {
    Dataset(Source),
    Files(Files),
    /// With the folder that they were brought to, which goes with this.
    Fetched {
        files: Files,
        _folder: TempDir,
    },
}

/// A part of the input. Of a dataset each shard is one, of a file each batch.
pub(super) enum Piece {
    Shard(Box<Shard>),
    Batch(String, RecordBatch),
    /// The shard or the file before was the whole of this.
    End(Unit),
}

/// A shard of a dataset, or a file.
pub(super) struct Unit {
    pub(super) name: String,
    pub(super) samples: u64,
    /// As it is stored.
    pub(super) bytes: u64,
}

/// Whoever takes the pieces has gone.
struct Gone;

impl Input {
    /// A dataset, or files of another kind, which are brought here if they are elsewhere.
    pub(super) fn find(
        address: &str,
        split: Option<&str>,
        columns: &[String],
        stop: &StopSignal,
    ) -> Result<Self> {
        let path = Path::new(address);
        if !is_address(address) && path.is_file() {
            return Files::of_file(path, columns).map(Self::Files);
        }
        if split.is_none()
            && let Some(fetched) = fetched::file(address, stop)?
        {
            return Self::of_fetched(fetched, columns);
        }
        match Source::find(address.to_owned(), split) {
            Ok(source) => Ok(Self::Dataset(source)),
            Err(error) if error.kind() == ErrorKind::NotFound && split.is_none() => {
                if let Some(files) = Files::of_folder(path, columns)? {
                    return Ok(Self::Files(files));
                }
                match is_address(address).then(|| fetched::folder(address, stop)).transpose()? {
                    Some(Some(fetched)) => Self::of_fetched(fetched, columns),
                    _ => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    fn of_fetched(fetched: Fetched, columns: &[String]) -> Result<Self> {
        let Fetched { places, folder } = fetched;
        Ok(Self::Fetched { files: Files::of_places(places, columns)?, _folder: folder })
    }

    pub(super) fn files(&self) -> Option<&Files> {
        match self {
            Self::Dataset(_) => None,
            Self::Files(files) | Self::Fetched { files, .. } => Some(files),
        }
    }

    /// The columns of a dataset, or those of the files as a dataset would have them.
    pub(super) fn schema(&self) -> Result<Schema> {
        match self {
            Self::Dataset(source) => Ok(first_shard(source)?.schema().as_ref().clone()),
            Self::Files(files) | Self::Fetched { files, .. } => {
                Schema::from_arrow(&files.schema).map_err(|error| error.in_dataset(files.first()))
            }
        }
    }

    /// The columns as Arrow has them.
    pub(super) fn arrow_schema(&self, columns: &[String]) -> Result<arrow_schema::Schema> {
        if let Some(files) = self.files() {
            return Ok(files.schema.as_ref().clone());
        }
        let schema = self.schema()?.to_arrow();
        if columns.is_empty() {
            return Ok(schema);
        }
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let positions = positions(&names, columns)?;
        schema.project(&positions).map_err(|error| {
            Error::new(ErrorKind::Unsupported, error.to_string(), "name other columns")
        })
    }

    /// The first shard of a dataset, if it has one, whose options the others share.
    pub(super) fn shard(&self) -> Option<&ShardInfo> {
        match self {
            Self::Dataset(source) => source.index.shards.first(),
            Self::Files(_) | Self::Fetched { .. } => None,
        }
    }

    pub(super) fn samples(&self) -> u64 {
        match self {
            Self::Dataset(source) => source.index.samples(),
            Self::Files(files) | Self::Fetched { files, .. } => files.samples(),
        }
    }

    /// How many shards or files there are.
    pub(super) fn units(&self) -> u64 {
        match self {
            Self::Dataset(source) => source.index.shards.len() as u64,
            Self::Files(files) | Self::Fetched { files, .. } => files.len() as u64,
        }
    }

    pub(super) fn noun(&self) -> &'static str {
        match self {
            Self::Dataset(_) => "shard",
            Self::Files(_) | Self::Fetched { .. } => "file",
        }
    }

    /// The dataset or the file, for messages.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Dataset(source) => source.remote.address().to_owned(),
            Self::Files(files) | Self::Fetched { files, .. } => files.first().to_owned(),
        }
    }

    /// The folder of a dataset on this machine.
    pub(super) fn folder(&self) -> Option<&Path> {
        match self {
            Self::Dataset(source) => source.remote.folder(),
            Self::Files(_) | Self::Fetched { .. } => None,
        }
    }

    /// Says in which dataset.
    pub(super) fn located(&self, failure: Failure) -> Failure {
        match (self, failure) {
            (Self::Dataset(source), Failure::Dataset(error)) => {
                Failure::Dataset(error.in_dataset(source.remote.address()))
            }
            (_, failure) => failure,
        }
    }

    /// Sends everything, and at the end or the first error no more.
    pub(super) fn read(&self, pieces: &SyncSender<Result<Piece>>) {
        let mut send = |piece: Result<Piece>| {
            let failed = piece.is_err();
            if pieces.send(piece).is_err() || failed { Err(Gone) } else { Ok(()) }
        };
        // Gone is the end too.
        let _ = match self {
            Self::Dataset(source) => {
                source.index.shards.iter().try_for_each(|info| read_one(source, info, &mut send))
            }
            Self::Files(files) | Self::Fetched { files, .. } => {
                files.read(|piece| send(piece).is_ok()).then_some(()).ok_or(Gone)
            }
        };
    }
}

fn read_one(
    source: &Source,
    info: &ShardInfo,
    send: &mut impl FnMut(Result<Piece>) -> Result<(), Gone>,
) -> Result<(), Gone> {
    let shard = Shard::fetch(&source.remote, info);
    send(
        shard
            .map(|shard| Piece::Shard(Box::new(shard)))
            .map_err(|e| e.in_shard(&info.stored().basename).in_dataset(source.remote.address())),
    )?;
    send(Ok(Piece::End(Unit {
        name: info.stored().basename.to_string(),
        samples: info.samples,
        bytes: info.stored_bytes(),
    })))
}

fn first_shard(source: &Source) -> Result<&ShardInfo> {
    source.index.shards.first().ok_or_else(|| {
        Error::new(
            ErrorKind::InvalidArgument,
            "the dataset has no shards, and so no columns",
            "give one with samples; or write a dataset, without --columns",
        )
        .in_dataset(source.remote.address())
    })
}
