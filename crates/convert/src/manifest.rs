//! What an unfinished conversion needs to be continued: what it was asked for, and how far it has come.
//!
//! Both are files beside the shards, in the folder of the unfinished split (see [`crate::out_root`]):
//!
//! | file | what it is | written |
//! |---|---|---|
//! | `manifest.json` | the input files with their sizes and times, and the settings that the output depends on | once |
//! | `progress.json` | the newest [`Progress`] records | every few seconds |
//!
//! A run that goes on asks the writer how many samples its complete shards hold, takes the newest record of no more, reads
//! its files on from there, and leaves out the samples that are in the shards already. Since a sample depends on nothing
//! but the input before it, the result is byte for byte that of a run which never stopped.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::record::BadLine;
use crate::source::SourceFile;

const MANIFEST: &str = "manifest.json";
const PROGRESS: &str = "progress.json";

/// Of these files.
const VERSION: u32 = 1;

/// Bytes of samples from one record to the next, at least; so that the record of a small shard is not
/// larger than it.
const LEAST_SPACING: u64 = 8 << 20;

/// What the output depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    version: u32,
    /// Flags and their values, as a user would write them.
    settings: BTreeMap<String, String>,
    files: Vec<Input>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Input {
    name: String,
    bytes: u64,
    /// When it was changed last, where that is known: nanoseconds since 1970.
    modified: Option<u64>,
}

/// A place in the input, between two lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Position {
    /// The number of the file, from 0.
    pub(crate) file: usize,
    /// Uncompressed bytes of it that lie before.
    pub(crate) offset: u64,
    /// Lines of it that lie before.
    pub(crate) lines: u64,
}

/// How far a conversion had come at some place of its input.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) position: Position,
    /// Samples made of what lies before.
    pub(crate) samples: u64,
    pub(crate) documents: u64,
    pub(crate) skipped: u64,
    /// The first lines that were left out.
    pub(crate) bad_lines: Vec<BadLine>,
    /// Tokens that wait to become a sample.
    pub(crate) pending: Vec<u32>,
}

impl Manifest {
    pub(crate) fn new(settings: BTreeMap<String, String>, files: &[SourceFile]) -> Self {
        let files = files.iter().map(|file| Input {
            name: file.name().to_owned(),
            bytes: file.bytes(),
            modified: file.modified(),
        });
        Self { version: VERSION, settings, files: files.collect() }
    }

    /// Writes it to `folder`, or makes sure that what is there was begun with the same.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] with the difference, and as the file system fails.
    pub(crate) fn agree(&self, folder: &Path) -> Result<()> {
        if self.is_at(folder)? { Ok(()) } else { write(folder, MANIFEST, self) }
    }

    /// Whether it is what was begun in `folder`; not if nothing was.
    ///
    /// # Errors
    /// As [`agree`](Self::agree), if something else was.
    pub(crate) fn is_at(&self, folder: &Path) -> Result<bool> {
        let Some(begun) = read::<Self>(folder, MANIFEST)? else { return Ok(false) };
        match self.difference(&begun) {
            None => Ok(true),
            Some(difference) => Err(Error::invalid(
                format!("{} was begun with {difference}", folder.display()),
                "use the same again to go on with it, or --restart to begin anew",
            )),
        }
    }

    /// What is another in `begun`, as `OLD, not NEW`.
    fn difference(&self, begun: &Self) -> Option<String> {
        if self.version != begun.version {
            let version = begun.version;
            return Some(format!("version {version} of its records, not {VERSION}"));
        }
        // What is in the columns comes first, before the flags that follow from it.
        let flags = self.settings.keys().rev().chain(begun.settings.keys());
        for flag in flags {
            let shown = |settings: &BTreeMap<String, String>| match settings.get(flag) {
                Some(value) => format!("{flag} {value}").trim_end().to_owned(),
                None => format!("no {flag}"),
            };
            let (old, new) = (shown(&begun.settings), shown(&self.settings));
            if old != new {
                return Some(format!("{old}, not {new}"));
            }
        }
        for (new, old) in self.files.iter().zip(&begun.files) {
            if new.name != old.name {
                return Some(format!("the file {}, not {}", old.name, new.name));
            }
            if new.bytes != old.bytes {
                return Some(format!("{} of {} bytes, not {}", new.name, old.bytes, new.bytes));
            }
            if new.modified != old.modified {
                return Some(format!("{} as it was before it changed", new.name));
            }
        }
        let counts = (begun.files.len(), self.files.len());
        (counts.0 != counts.1).then(|| format!("{} files, not {}", counts.0, counts.1))
    }
}

/// The records of a conversion that is under way.
#[derive(Debug)]
pub(crate) struct Journal {
    records: VecDeque<Progress>,
    /// Bytes of samples from one to the next.
    spacing: u64,
    most: usize,
    /// Bytes of samples at the newest.
    recorded: u64,
}

impl Journal {
    /// For a writer that has up to `threads` shards of `size_limit` bytes in work. One record at least is always of no more
    /// samples than are in complete shards.
    pub(crate) fn new(size_limit: Option<u64>, threads: usize) -> Self {
        // Without a limit the format's, which is 4 GiB.
        let shard = size_limit.filter(|&limit| limit > 0).unwrap_or(1 << 32);
        let spacing = (shard / 2).max(LEAST_SPACING);
        Self { records: VecDeque::new(), spacing, most: 2 * (threads + 2) + 1, recorded: 0 }
    }

    /// Whether a record is to be made once the samples have `bytes` bytes.
    pub(crate) fn is_due(&self, bytes: u64) -> bool {
        bytes >= self.recorded + self.spacing
    }

    /// Records where a conversion is, whose samples have `bytes` bytes.
    pub(crate) fn record(&mut self, progress: Progress, bytes: u64, folder: &Path) -> Result<()> {
        self.recorded = bytes;
        self.records.push_back(progress);
        if self.records.len() > self.most {
            self.records.pop_front();
        }
        write(folder, PROGRESS, &self.records)
    }

    /// The newest record in `folder` of no more than `samples` samples; else the beginning.
    pub(crate) fn resume(&mut self, folder: &Path, samples: u64, bytes: u64) -> Result<Progress> {
        self.records = read(folder, PROGRESS)?.unwrap_or_default();
        self.records.retain(|progress: &Progress| progress.samples <= samples);
        self.recorded = bytes;
        Ok(self.records.back().cloned().unwrap_or_default())
    }
}

fn write(folder: &Path, name: &str, value: &impl Serialize) -> Result<()> {
    let path = folder.join(name);
    let text = serde_json::to_vec(value)
        .map_err(|e| Error::internal(&format!("{name} cannot be written: {e}")))?;
    mds::durable::replace(&path, &text).map_err(|e| Error::io(e, "write", &path))
}

fn read<T: for<'a> Deserialize<'a>>(folder: &Path, name: &str) -> Result<Option<T>> {
    let path = folder.join(name);
    let text = match fs::read(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|e| Error::io(e, "read", &path))?,
    };
    serde_json::from_slice(&text).map(Some).map_err(|e| {
        let what = format!("{} is damaged: {e}", path.display());
        Error::new(ErrorKind::Corrupt, what, "begin anew with --restart")
    })
}
