//! What an unfinished conversion needs to be continued: what it was asked for, and how far it has come.
//!
//! Both are files beside the shards, in the folder of the unfinished split (see [`crate::out_root`]):
//!
//! | file | what it is | written |
//! |---|---|---|
//! | `manifest.json` | the input files with their sizes and versions, and the settings that the output depends on | once |
//! | `progress.json` | the newest [`Progress`] records, and what the files before held | every few seconds |
//!
//! A run that goes on asks the writer how many samples its complete shards hold, takes the newest record of no more, reads
//! its files on from there, and leaves out the samples that are in the shards already. Since a sample depends on nothing
//! but the input before it, the result is byte for byte that of a run which never stopped.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Component, Path, PathBuf};

use mds::Writer;
use mds::format::{Index, ShardInfo};
use mds::storage::is_address;
use serde::{Deserialize, Serialize};

use crate::concat::Pending;
use crate::error::{Error, ErrorKind, Result};
use crate::out_root::Records;
use crate::source::{BadDocument, Shares, SourceFile};
use crate::statistics::{Counts, Tally};

pub(crate) const MANIFEST: &str = "manifest.json";
pub(crate) const PROGRESS: &str = "progress.json";

/// Settings that say which task of how many.
pub(crate) const TASK_ID: &str = "--task_id";
pub(crate) const NUM_TASKS: &str = "--num_tasks";

/// Of these files.
const VERSION: u32 = 3;

/// Bytes of samples from one record to the next, at least; so that the record of a small shard is not
/// larger than it.
const LEAST_SPACING: u64 = 8 << 20;

/// So many times as much at a remote, where a record takes longer.
const REMOTE_FACTOR: u64 = 4;

/// What the output depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    version: u32,
    /// Flags and their values, as a user would write them.
    settings: BTreeMap<String, String>,
    /// Of a task: which files the others have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shares: Option<Shares>,
    files: Vec<Input>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Input {
    name: String,
    bytes: u64,
    /// What is another once it is written again, where that is known.
    #[serde(default)]
    version: Option<String>,
}

/// A place in the input, between two documents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Position {
    /// The number of the file, from 0.
    pub(crate) file: usize,
    /// Uncompressed bytes of it that lie before, of a file of lines.
    pub(crate) offset: u64,
    /// Lines of it that lie before; else rows, samples or documents.
    pub(crate) units: u64,
    /// The hash of the bytes before, of a file of lines.
    pub(crate) prefix: u64,
}

/// How far a conversion had come at some place of its input.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) position: Position,
    /// Samples made of what lies before.
    pub(crate) samples: u64,
    pub(crate) tally: Tally,
    pub(crate) skipped: u64,
    /// The first documents that were left out.
    pub(crate) bad: Vec<BadDocument>,
    /// Tokens that wait to become a sample.
    pub(crate) pending: Pending,
}

impl Manifest {
    pub(crate) fn new(
        settings: BTreeMap<String, String>,
        shares: Option<Shares>,
        files: &[SourceFile],
    ) -> Self {
        let files = files.iter().map(|file| Input {
            name: plain_name(file.name()),
            bytes: file.bytes(),
            version: file.version(),
        });
        Self { version: VERSION, settings, shares, files: files.collect() }
    }

    /// The names of the input files, in order.
    pub(crate) fn file_names(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|file| file.name.as_str())
    }

    /// Flags and their values.
    pub(crate) fn settings(&self) -> &BTreeMap<String, String> {
        &self.settings
    }

    /// Of a task: which files the others have.
    pub(crate) fn shares(&self) -> Option<&Shares> {
        self.shares.as_ref()
    }

    /// Writes it to the records.
    pub(crate) fn write(&self, records: &Records) -> Result<()> {
        write(records, MANIFEST, self)
    }

    /// Whether it is what was begun with these records; not if nothing was. A file of `files` in which the last run met a
    /// fault may have changed behind that.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] with the difference if something else was begun, and as the file system fails.
    pub(crate) fn is_at(&self, records: &Records, files: &[SourceFile]) -> Result<bool> {
        let Some(mut begun) = read::<Self>(records, MANIFEST)? else { return Ok(false) };
        let fault = read::<Kept>(records, PROGRESS)?.and_then(|kept| kept.fault);
        if let Some(fault) = fault
            && let Some(file) = files.get(fault.file)
            && let (Some(old), Some(new)) =
                (begun.files.get_mut(fault.file), self.files.get(fault.file))
            && old.name == new.name
            && old != new
            && file.begins_like(fault)?
        {
            old.clone_from(new);
        }
        // Of what lies behind the file that was at fault nothing is recorded yet.
        if let Some(fault) = fault {
            let (old, new) = (begun.files.iter_mut(), &self.files);
            let behind =
                old.zip(new).skip(fault.file + 1).filter(|(old, new)| old.name == new.name);
            behind.for_each(|(old, new)| old.clone_from(new));
        }
        match self.difference(&begun) {
            None => Ok(true),
            Some(difference) => Err(Error::invalid(
                format!("{} was begun with {difference}", records.place()),
                "use the same again to go on with it, or --restart to begin anew",
            )),
        }
    }

    /// Adds what another task was asked for, to that of the first.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if that was another conversion.
    pub(crate) fn add(&mut self, other: Self) -> Result<()> {
        let task = other.settings.get(TASK_ID).cloned().unwrap_or_default();
        let settings = |manifest: &Self| {
            let mut settings = manifest.settings.clone();
            settings.remove(TASK_ID);
            settings
        };
        let alone = |manifest: &Self| Self {
            version: manifest.version,
            settings: settings(manifest),
            ..Self::default()
        };
        if let Some(difference) = alone(&other).difference(&alone(self)) {
            return Err(Error::invalid(
                format!("the first task was made with {difference} as task {task}"),
                "convert both with the same flags",
            ));
        }
        if let (Some(first), Some(other)) = (&self.shares, &other.shares)
            && first != other
        {
            let how = match (first.files, other.files) {
                (first, other) if first != other => format!("one of {first}, the other of {other}"),
                _ => "whose names or sizes had changed in between".to_owned(),
            };
            return Err(Error::invalid(
                format!("the first task and task {task} were given other lists of files, {how}"),
                "convert the parts of all tasks again, with the same files, to another place",
            ));
        }
        self.settings = settings(self);
        self.files.extend(other.files);
        Ok(())
    }

    /// What is another in `begun`, as `OLD, not NEW`.
    pub(crate) fn difference(&self, begun: &Self) -> Option<String> {
        if self.version != begun.version {
            let version = begun.version;
            return Some(format!(
                "another version of this program (its records are of version {version}, not {VERSION})"
            ));
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
        if let (Some(new), Some(old)) = (&self.shares, &begun.shares)
            && new != old
        {
            let what = if new.files == old.files {
                "a source whose files had other names or sizes".to_owned()
            } else {
                format!("a source of {} files, not {}", old.files, new.files)
            };
            return Some(what);
        }
        for (new, old) in self.files.iter().zip(&begun.files) {
            if new.name != old.name {
                return Some(format!("the file {}, not {}", old.name, new.name));
            }
            if new.bytes != old.bytes {
                return Some(format!("{} of {} bytes, not {}", new.name, old.bytes, new.bytes));
            }
            if new.version != old.version {
                return Some(format!("{} as it was before it changed", new.name));
            }
        }
        let counts = (begun.files.len(), self.files.len());
        (counts.0 != counts.1).then(|| format!("{} files, not {}", counts.0, counts.1))
    }
}

/// The name of a file, `pile/p0.jsonl` of `./pile//p0.jsonl` too: the same path may be given in other words. What depends
/// on links, such as `..`, stays.
fn plain_name(name: &str) -> String {
    if is_address(name) {
        return name.to_owned();
    }
    let parts = Path::new(name).components().filter(|part| *part != Component::CurDir);
    parts.collect::<PathBuf>().display().to_string()
}

/// The records of a conversion that is under way.
#[derive(Debug)]
pub(crate) struct Journal {
    kept: Kept,
    /// Bytes of samples from one to the next.
    spacing: u64,
    most: usize,
    /// Bytes of samples at the newest.
    recorded: u64,
}

/// What of them is in a file.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    records: VecDeque<Progress>,
    /// What each file held that lies before the place of the newest record, in order.
    files: Vec<Counts>,
    /// The index of the complete shards, where they are at a remote.
    index: Option<String>,
    /// Where the input was at fault, after the last place that was read: what comes behind it in this file may change.
    fault: Option<Position>,
}

impl Journal {
    /// Reads the records, if there are any. The writer has up to `threads` shards of `size_limit` bytes in work; one record
    /// at least is always of no more samples than are in complete shards.
    pub(crate) fn open(records: &Records, size_limit: Option<u64>, threads: usize) -> Result<Self> {
        // Without a limit the format's, which is 4 GiB.
        let shard = size_limit.filter(|&limit| limit > 0).unwrap_or(1 << 32);
        let mut spacing = (shard / 2).max(LEAST_SPACING);
        if records.is_remote() {
            spacing *= REMOTE_FACTOR;
        }
        let kept = read(records, PROGRESS)?.unwrap_or_default();
        Ok(Self { kept, spacing, most: 2 * (threads + 2) + 1, recorded: 0 })
    }

    /// The complete shards at a remote.
    pub(crate) fn shards(&self) -> Result<Vec<ShardInfo>> {
        let Some(index) = &self.kept.index else { return Ok(Vec::new()) };
        Ok(Index::parse(index.as_bytes())?.shards)
    }

    /// The newest record of no more than `samples` samples, which have `bytes` bytes; else the beginning.
    pub(crate) fn newest(&mut self, samples: u64, bytes: u64) -> Progress {
        self.kept.records.retain(|progress| progress.samples <= samples);
        self.recorded = bytes;
        self.kept.fault = None;
        let newest = self.kept.records.back().cloned().unwrap_or_default();
        self.kept.files.truncate(newest.position.file);
        newest
    }

    /// Says that the input is at fault behind `place`.
    pub(crate) fn set_fault(&mut self, place: Position) {
        self.kept.fault = Some(place);
    }

    /// Whether another run could go on from here.
    pub(crate) fn has_records(&self) -> bool {
        !self.kept.records.is_empty()
    }

    /// Whether a record is to be made once the samples have `bytes` bytes.
    pub(crate) fn is_due(&self, bytes: u64) -> bool {
        bytes >= self.recorded + self.spacing
    }

    /// What each file held before that which is read now.
    pub(crate) fn files(&self) -> &[Counts] {
        &self.kept.files
    }

    /// Says that file `number` held `counts`.
    pub(crate) fn end_file(&mut self, number: usize, counts: Counts) {
        self.kept.files.resize(number, Counts::default());
        self.kept.files.push(counts);
    }

    /// Records where a conversion is.
    pub(crate) fn record(
        &mut self,
        progress: Progress,
        writer: &mut Writer,
        records: &Records,
    ) -> Result<()> {
        self.recorded = writer.bytes();
        self.kept.records.push_back(progress);
        if self.kept.records.len() > self.most {
            self.kept.records.pop_front();
        }
        self.write(writer.complete_shards()?, records)
    }

    /// Records that these shards are complete.
    pub(crate) fn write(&mut self, shards: Vec<ShardInfo>, records: &Records) -> Result<()> {
        if records.is_remote() {
            self.kept.index = Some(Index { shards }.to_json());
        }
        write(records, PROGRESS, &self.kept)
    }
}

fn write(records: &Records, name: &str, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec(value)
        .map_err(|e| Error::internal(&format!("{name} cannot be written: {e}")))?;
    records.write(name, text)
}

fn read<T: for<'a> Deserialize<'a>>(records: &Records, name: &str) -> Result<Option<T>> {
    let Some(text) = records.read(name)? else { return Ok(None) };
    serde_json::from_slice(&text).map(Some).map_err(|e| {
        let what = format!("{} is damaged: {e}", records.shown(name));
        Error::new(ErrorKind::Corrupt, what, "begin anew with --restart")
    })
}
