//! Where documents come from: files of JSON lines on this machine, at a remote or on the hub.
//!
//! [`files_of_split`] names the files of one split in the order in which they are converted; a
//! [`SourceFile`] opens itself for reading, uncompressed.

mod files;
pub(crate) mod lines;
mod remote;

use std::fmt;
use std::io::{BufReader, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use mds::storage::Remote;

use crate::error::{Error, ErrorKind, Result};
use crate::hub::{Hub, HubFile};
use crate::progress::{Counted, Meter};

/// The dataset that is read when no source is named.
pub const HUB_DATASET: &str = "allenai/c4";
/// Its English part.
const HUB_FOLDER: &str = "en";

/// A dataset that is written: what its folder is called, and how many samples it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    name: String,
    /// The first ones; `None` for all.
    pub most_samples: Option<u64>,
}

impl Split {
    /// All samples, in the folder `name`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if that is not the plain name of a folder.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let is_plain =
            !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0']);
        if !is_plain {
            return Err(Error::invalid(
                format!("--split {name:?} cannot be the name of a folder"),
                "give a plain name, such as train",
            ));
        }
        Ok(Self { name, most_samples: None })
    }

    /// The name of the output folder.
    pub fn as_str(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl From<C4Split> for Split {
    fn from(split: C4Split) -> Self {
        Self { name: split.as_str().to_owned(), most_samples: split.most_samples() }
    }
}

/// A part of C4; the small ones are the first samples of another, as in llm-foundry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum C4Split {
    /// `train`, in the hub's files `c4-train.*`.
    Train,
    /// The first 100,000 samples of `train`.
    TrainSmall,
    /// `val`, in the hub's files `c4-validation.*`.
    Val,
    /// The first 10,000 samples of `val`.
    ValSmall,
    /// The first 3,000 samples of `val`.
    ValXsmall,
    /// The first 100 samples of `val`.
    ValXxsmall,
}

impl C4Split {
    /// The name of the output folder.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::TrainSmall => "train_small",
            Self::Val => "val",
            Self::ValSmall => "val_small",
            Self::ValXsmall => "val_xsmall",
            Self::ValXxsmall => "val_xxsmall",
        }
    }

    /// The split whose files it is made of: `train` or `val`.
    #[must_use]
    pub fn whole(self) -> Self {
        match self {
            Self::Train | Self::TrainSmall => Self::Train,
            Self::Val | Self::ValSmall | Self::ValXsmall | Self::ValXxsmall => Self::Val,
        }
    }

    /// How many of the samples it takes, if not all.
    pub fn most_samples(self) -> Option<u64> {
        match self {
            Self::Train | Self::Val => None,
            Self::TrainSmall => Some(100_000),
            Self::ValSmall => Some(10_000),
            Self::ValXsmall => Some(3_000),
            Self::ValXxsmall => Some(100),
        }
    }

    /// How the hub's file names of this split begin.
    fn hub_prefix(self) -> &'static str {
        match self.whole() {
            Self::Train => "c4-train.",
            _ => "c4-validation.",
        }
    }

    /// The whole split that a file's name says it belongs to, if it is one of the hub's names.
    fn of_hub_name(name: &str) -> Option<Self> {
        let named = |split: &Self| name.starts_with(split.hub_prefix());
        [Self::Train, Self::Val].into_iter().find(named).filter(|_| Packing::of(name).is_some())
    }
}

impl fmt::Display for C4Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a file's bytes are compressed, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Plain,
    Gzip,
    Zstd,
}

impl Packing {
    /// `None` if it is not a name of a file of JSON lines.
    fn of(name: &str) -> Option<Self> {
        let json = |name: &str| name.ends_with(".json") || name.ends_with(".jsonl");
        if json(name) {
            Some(Self::Plain)
        } else if name.strip_suffix(".gz").is_some_and(json) {
            Some(Self::Gzip)
        } else if name.ends_with(".zst") {
            Some(Self::Zstd)
        } else {
            None
        }
    }
}

/// One file of JSON lines.
#[derive(Debug, Clone)]
pub struct SourceFile {
    name: String,
    bytes: u64,
    packing: Packing,
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Local(PathBuf),
    /// A folder, and the path of the object in it.
    Remote(Remote, String),
    Hub(Hub, HubFile),
}

/// The files of `split` in `source`, in name order; in `allenai/c4` on the hub if it is `None`.
///
/// `source` is a file, a folder or a glob pattern, or the address of one (a web server and the hub's
/// `hf://` list nothing, so that of one file). Where any file has one of the hub's names
/// (`c4-train.*`, `c4-validation.*`), in the folder itself or in its `en`, the split picks its
/// own; else it gets all files. `alone` says that no other split is asked for: files whose names
/// do not tell splits apart must not be copied into two of them, but into parts of one.
///
/// # Errors
/// [`ErrorKind::NotFound`] if there is no such source or no file of the split in it,
/// [`ErrorKind::InvalidArgument`] if the files do not tell splits apart and the split is not alone,
/// [`ErrorKind::Hub`] if the hub or the remote fails.
pub fn files_of_split(
    source: Option<&str>,
    split: C4Split,
    alone: bool,
) -> Result<Vec<SourceFile>> {
    match source {
        Some(source) => files::of_split(source, split, alone),
        None => on_hub(&Hub::from_env()?, split),
    }
}

/// The files of JSON lines in `source`, in name order: a file, a folder or a glob pattern, or the address of one.
///
/// # Errors
/// [`ErrorKind::NotFound`] if there is none, [`ErrorKind::Hub`] if the remote fails.
pub fn files_of(source: &str) -> Result<Vec<SourceFile>> {
    files::candidates(source)
}

fn on_hub(hub: &Hub, split: C4Split) -> Result<Vec<SourceFile>> {
    let mut files = Vec::new();
    for folder in [HUB_FOLDER, ""] {
        let listed = hub.dataset_files(HUB_DATASET, folder)?.unwrap_or_default();
        files.extend(listed.into_iter().filter_map(|file| {
            let name = file.path.rsplit('/').next().unwrap_or_default();
            let packing = Packing::of(name)?;
            (C4Split::of_hub_name(name) == Some(split.whole())).then(|| SourceFile {
                name: file.path.clone(),
                bytes: file.bytes,
                packing,
                place: Place::Hub(hub.clone(), file),
            })
        }));
        if !files.is_empty() {
            break;
        }
    }
    if files.is_empty() {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!(
                "{} holds no {}*.json.gz, with or without {HUB_FOLDER}/",
                hub.address(&format!("datasets/{HUB_DATASET}")),
                split.hub_prefix()
            ),
            "check HF_ENDPOINT, or read local files with --source",
        ));
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

impl SourceFile {
    /// How messages name the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn last_name(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or_default()
    }

    /// What its name says of the split that it belongs to.
    fn split(&self) -> Option<C4Split> {
        C4Split::of_hub_name(self.last_name())
    }

    /// Its size as stored, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When it was changed last, in nanoseconds since 1970; only known of plain files of this machine.
    pub(crate) fn modified(&self) -> Option<u64> {
        let Place::Local(path) = &self.place else { return None };
        let metadata = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
        let since = metadata.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
        u64::try_from(since.as_nanos()).ok()
    }

    /// Opens it for reading, uncompressed; `count` and `meter` count its stored bytes.
    #[expect(
        clippy::disallowed_types,
        reason = "sources declare no size; they are read as a stream, a line at a time"
    )]
    pub(crate) fn open(&self, meter: &Arc<Meter>, count: &Arc<AtomicU64>) -> Result<Box<dyn Read>> {
        let stored: Box<dyn Read> = match &self.place {
            Place::Local(path) => {
                Box::new(std::fs::File::open(path).map_err(|e| Error::io(e, "open", path))?)
            }
            Place::Remote(folder, path) => Box::new(folder.reader(path, self.bytes)),
            Place::Hub(hub, file) => Box::new(hub.open_dataset_file(HUB_DATASET, file)?),
        };
        let counted = Counted { inner: stored, meter: Arc::clone(meter), count: Arc::clone(count) };
        let buffered = BufReader::with_capacity(128 << 10, counted);
        Ok(match self.packing {
            Packing::Plain => Box::new(buffered),
            Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(buffered)),
            Packing::Zstd => Box::new(
                zstd::stream::read::Decoder::with_buffer(buffered)
                    .map_err(|e| Error::from_read(e, &self.name, 0))?,
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_packing_and_the_split() {
        for (name, packing) in [
            ("a.json", Some(Packing::Plain)),
            ("a.jsonl", Some(Packing::Plain)),
            ("a.json.gz", Some(Packing::Gzip)),
            ("a.jsonl.gz", Some(Packing::Gzip)),
            ("a.jsonl.zst", Some(Packing::Zstd)),
            ("a.zst", Some(Packing::Zstd)),
            ("a.gz", None),
            ("a.txt", None),
            ("json", None),
        ] {
            assert_eq!(Packing::of(name), packing, "{name}");
        }
        let of = C4Split::of_hub_name;
        assert_eq!(of("c4-train.00000-of-01024.json.gz"), Some(C4Split::Train));
        assert_eq!(of("c4-validation.00000-of-00008.json.gz"), Some(C4Split::Val));
        assert_eq!(of("c4-train.00000-of-01024.json.gz.lock"), None);
        assert_eq!(of("train.json"), None);
    }
}
