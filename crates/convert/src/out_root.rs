//! Where splits go: a folder of this machine, or a remote.
//!
//! In a folder an unfinished split is hidden: its shards are in `OUT_ROOT/.<split>.part/data`, beside what is needed to go
//! on with it (see `manifest`). Once the index is complete, `data` gets the split's name. A run that dies leaves no folder
//! that looks like a dataset, and the same command goes on with what it did leave; the folder is locked by whoever writes
//! it. To a remote each shard is uploaded when it is complete and the index last; shards without an index are no dataset.
//! What is needed to go on lies in `<split>/.part/` until then.

mod losses;

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use mds::format::Index;
use mds::storage::{Remote, RemoteOptions, join};

use self::losses::{is_in, refuse_to_lose};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{self, Journal};
use crate::source::{SourceFile, Split};
use crate::statistics::{self, Statistics};

/// What holds the folders of the splits.
#[derive(Clone, PartialEq, Eq)]
pub enum OutRoot {
    /// A folder of this machine.
    Folder(PathBuf),
    /// An address as in [`Remote::open`]; it may hold secrets.
    Remote(String),
}

impl fmt::Debug for OutRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => write!(f, "{folder:?}"),
            Self::Remote(address) => write!(f, "{:?}", mds::redacted(address)),
        }
    }
}

impl From<PathBuf> for OutRoot {
    fn from(folder: PathBuf) -> Self {
        Self::Folder(folder)
    }
}

impl OutRoot {
    /// Reads what a user wrote: an address, or a folder that may be made.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for an address that nothing can be written to, or a file.
    pub fn parse(given: OsString) -> Result<Self> {
        let folder = match given.into_string() {
            Ok(text) => match Remote::open(&text, RemoteOptions::default())?.folder() {
                Some(folder) => folder.to_path_buf(),
                None => return Ok(Self::Remote(text)),
            },
            Err(path) => PathBuf::from(path),
        };
        if folder.is_file() {
            return Err(Error::invalid(
                format!("--out_root {} is a file", folder.display()),
                "give a folder, or a name that is not taken yet",
            ));
        }
        Ok(Self::Folder(folder))
    }

    /// How messages call the place of a split.
    pub fn shown(&self, split: &Split) -> String {
        match self {
            Self::Folder(folder) => folder.join(split.as_str()).display().to_string(),
            Self::Remote(address) => mds::redacted(&join(address, split.as_str())),
        }
    }

    /// Makes sure that nothing stands where a split shall be written.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] if something does; as a remote fails.
    pub fn refuse_existing(&self, split: &Split) -> Result<()> {
        let exists = match self {
            Self::Folder(folder) => fs::symlink_metadata(folder.join(split.as_str())).is_ok(),
            Self::Remote(address) => has_index(&open(address, split)?)?,
        };
        if exists { Err(taken(&self.shown(split))) } else { Ok(()) }
    }

    /// Makes sure that none of `files` is where `split` shall be written, whatever their paths are called: they would be lost
    /// with what is replaced there, or lie among the shards.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if one is; as a remote fails.
    pub(crate) fn refuse_input(&self, split: &Split, files: &[SourceFile]) -> Result<()> {
        // The folder of a task lies in that of all parts, which becomes one dataset.
        let place = if split.task().is_some() { self.clone() } else { self.below(split.as_str()) };
        let input = match &place {
            Self::Folder(folder) => {
                // It is worked in its part, too; in what is not there yet nothing lies.
                let places = match self {
                    Self::Folder(root) => vec![folder.clone(), part_of(root, split)],
                    Self::Remote(_) => vec![folder.clone()],
                };
                let folders: Vec<_> =
                    places.iter().filter_map(|folder| folder.canonicalize().ok()).collect();
                let is_in_one = |path: &PathBuf| folders.iter().any(|folder| is_in(path, folder));
                files.iter().find(|file| file.paths().iter().any(is_in_one))
            }
            Self::Remote(address) => {
                let remote = Remote::open(address, RemoteOptions::default())?;
                let folder = format!("{}/", remote.address().trim_end_matches('/'));
                files.iter().find(|file| file.name().starts_with(&folder))
            }
        };
        let Some(input) = input else { return Ok(()) };
        let place = mds::redacted(&place.address());
        Err(Error::invalid(
            format!("{place} is to be written, but the input {} lies there", input.name()),
            "write to another place",
        ))
    }

    /// Makes sure that a complete split can be made again: not at a remote, where nothing gets its name at once, and not
    /// what is no dataset of this program.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] if it cannot; as the file system or a remote fails.
    pub(crate) fn refuse_to_replace(&self, split: &Split) -> Result<()> {
        match self {
            Self::Folder(folder) => refuse_to_lose(&folder.join(split.as_str())),
            Self::Remote(address) if has_index(&open(address, split)?)? => Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("--reprocess cannot replace {} at a remote", self.shown(split)),
                "delete it first, or write to another place",
            )),
            _ => Ok(()),
        }
    }

    /// Makes sure that this holds no dataset itself, as the folder of a split does whose parts were joined.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] if it does; as a remote fails.
    pub(crate) fn refuse_merged(&self) -> Result<()> {
        let (shown, exists) = match self {
            Self::Folder(folder) => {
                (folder.display().to_string(), folder.join(Index::FILE_NAME).exists())
            }
            Self::Remote(address) => {
                let remote = Remote::open(address, RemoteOptions::default())?;
                (mds::redacted(address), has_index(&remote)?)
            }
        };
        if !exists {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::AlreadyExists,
            format!("the parts in {shown} were joined already"),
            format!(
                "remove {shown}/{}, and join them again when all tasks are done",
                Index::FILE_NAME
            ),
        ))
    }

    /// The path or the address, which may hold secrets.
    pub(crate) fn address(&self) -> String {
        match self {
            Self::Folder(folder) => folder.to_string_lossy().into_owned(),
            Self::Remote(address) => address.clone(),
        }
    }

    /// Puts the statistics of the dataset here beside its index. `title` is for people.
    pub(crate) fn write_statistics(&self, statistics: &Statistics, title: &str) -> Result<()> {
        for (name, text) in statistics.files(title)? {
            match self {
                Self::Folder(folder) => {
                    let path = folder.join(name);
                    mds::durable::replace(&path, &text)
                        .map_err(|e| Error::io(e, "write", &path))?;
                }
                Self::Remote(address) => {
                    Remote::open(address, RemoteOptions::default())?.put(name, text)?;
                }
            }
        }
        Ok(())
    }

    /// A folder in this one.
    #[must_use]
    pub fn below(&self, name: &str) -> Self {
        match self {
            Self::Folder(folder) => Self::Folder(folder.join(name)),
            Self::Remote(address) => Self::Remote(join(address, name)),
        }
    }

    /// What an unfinished `split` has left that holds a complete shard, if it has left any.
    ///
    /// # Errors
    /// As the file system or the remote fails.
    pub(crate) fn unfinished(&self, split: &Split) -> Result<Option<Left>> {
        let (shown, records, shards) = match self {
            Self::Folder(folder) => {
                let part = part_of(folder, split);
                let shards = complete_shards(&part.join(DATA));
                (part.display().to_string(), Records::Folder(part), shards)
            }
            Self::Remote(address) => {
                let records = Records::Remote(open(address, split)?);
                let shards = Journal::open(&records, None, 1)?.shards()?.len();
                (self.shown(split), records, shards)
            }
        };
        Ok((shards > 0).then_some(Left { shown, records, shards }))
    }

    /// What a complete split was made of, if it says so.
    ///
    /// # Errors
    /// As the file system or the remote fails.
    pub fn statistics(&self, split: &Split) -> Result<Option<Statistics>> {
        // The index comes after the statistics.
        let text = match self {
            Self::Folder(folder) => {
                let split = folder.join(split.as_str());
                let is_complete = split.join(Index::FILE_NAME).exists();
                is_complete.then(|| read_file(&split.join(statistics::JSON_NAME))).transpose()?
            }
            Self::Remote(address) => {
                let remote = open(address, split)?;
                let is_complete = has_index(&remote)?;
                is_complete.then(|| read_object(&remote, statistics::JSON_NAME)).transpose()?
            }
        }
        .flatten();
        // One of another version says nothing.
        Ok(text.and_then(|text| serde_json::from_slice(&text).ok()))
    }

    /// A place for a split that is not complete yet: that where an earlier run has left it, if it `goes_on`. A complete one
    /// makes room in the end if the split is to `replace` it.
    pub(crate) fn begin(&self, split: &Split, goes_on: bool, replace: bool) -> Result<Unfinished> {
        match self {
            Self::Folder(folder) => {
                let root = RootFolder::create(folder)?;
                let part = PartFolder::open(folder, split, goes_on)?;
                let records = Records::Folder(part.path.clone());
                let target = folder.join(split.as_str());
                Ok(Unfinished { records, place: Place::Folder { part, root, target, replace } })
            }
            Self::Remote(address) => {
                let remote = open(address, split)?;
                if is_on_the_web(address) {
                    // Most web servers take no files: better found before the conversion than after it.
                    remote.put(PROBE, Vec::new())?;
                    remove(&remote, PROBE);
                }
                let records = Records::Remote(remote);
                if !goes_on || Journal::open(&records, None, 1)?.shards()?.is_empty() {
                    records.remove();
                }
                Ok(Unfinished { records, place: Place::Remote(join(address, split.as_str())) })
            }
        }
    }
}

fn is_on_the_web(address: &str) -> bool {
    let scheme = address.split_once("://").map_or("", |(scheme, _)| scheme);
    ["http", "https"].iter().any(|web| scheme.eq_ignore_ascii_case(web))
}

/// The folder of `split` at the remote `address`.
fn open(address: &str, split: &Split) -> Result<Remote> {
    Ok(Remote::open(&join(address, split.as_str()), RemoteOptions::default())?)
}

fn has_index(remote: &Remote) -> Result<bool> {
    Ok(remote.known_size(Index::FILE_NAME)?.is_some())
}

/// What an interrupted run has left.
#[derive(Debug)]
pub(crate) struct Left {
    /// Where it is, without any password.
    pub(crate) shown: String,
    pub(crate) records: Records,
    /// How many shards are complete.
    pub(crate) shards: usize,
}

/// Where the records are that another run can go on from.
#[derive(Debug, Clone)]
pub(crate) enum Records {
    /// A folder of this machine.
    Folder(PathBuf),
    /// The address of a split.
    Remote(Remote),
}

/// Where records are at a remote.
const REMOTE_RECORDS: &str = ".part";

/// What is put beside the shards to see whether anything can be.
const PROBE: &str = ".probe";

/// Of one record.
const LARGEST_RECORD: u64 = 1 << 30;

impl Records {
    /// All of them.
    const NAMES: [&str; 2] = [manifest::MANIFEST, manifest::PROGRESS];

    /// How messages call the place of all records.
    pub(crate) fn place(&self) -> String {
        match self {
            Self::Folder(folder) => folder.display().to_string(),
            Self::Remote(remote) => {
                format!("{}/{REMOTE_RECORDS}", remote.address().trim_end_matches('/'))
            }
        }
    }

    /// How messages call the record `name`.
    pub(crate) fn shown(&self, name: &str) -> String {
        format!("{}/{name}", self.place())
    }

    /// The record `name`, if there is one.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Folder(folder) => read_file(&folder.join(name)),
            Self::Remote(remote) => read_object(remote, &format!("{REMOTE_RECORDS}/{name}")),
        }
    }

    /// Writes the record `name`, or over it.
    pub(crate) fn write(&self, name: &str, text: Vec<u8>) -> Result<()> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(name);
                mds::durable::replace(&path, &text).map_err(|e| Error::io(e, "write", &path))
            }
            Self::Remote(remote) => Ok(remote.put(&format!("{REMOTE_RECORDS}/{name}"), text)?),
        }
    }

    /// Whether shards are here too, or the records must list them.
    pub(crate) fn is_remote(&self) -> bool {
        matches!(self, Self::Remote(_))
    }

    /// Removes those at a remote.
    pub(crate) fn remove(&self) {
        let Self::Remote(remote) = self else { return };
        for name in Self::NAMES {
            let name = format!("{REMOTE_RECORDS}/{name}");
            if let Ok(Some(_)) = remote.known_size(&name) {
                remove(remote, &name);
            }
        }
    }
}

/// Not everything that can be written to can delete, and then what stays is in nobody's way.
fn remove(remote: &Remote, name: &str) {
    if let Err(error) = remote.delete(name) {
        tracing::debug!(%error, "{name} stays");
    }
}

fn read_file(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        text => text.map(Some).map_err(|e| Error::io(e, "read", path)),
    }
}

fn read_object(remote: &Remote, name: &str) -> Result<Option<Vec<u8>>> {
    match remote.get(name, LARGEST_RECORD) {
        Err(e) if e.kind() == mds::ErrorKind::NotFound => Ok(None),
        text => Ok(text.map(Some)?),
    }
}

fn taken(shown: &str) -> Error {
    Error::new(
        ErrorKind::AlreadyExists,
        format!("{shown} exists already"),
        "remove it, or write to another place",
    )
}

/// Where a split is being written.
pub(crate) struct Unfinished {
    records: Records,
    place: Place,
}

enum Place {
    Folder {
        part: PartFolder,
        /// Dropped after the part that lies in it.
        root: RootFolder,
        target: PathBuf,
        /// Whether a split that is there makes room.
        replace: bool,
    },
    Remote(String),
}

impl Unfinished {
    /// For the writer.
    pub(crate) fn output(&self) -> mds::Output {
        match self.data() {
            OutRoot::Folder(folder) => mds::Output::Local(folder),
            OutRoot::Remote(address) => mds::Output::Remote(address),
        }
    }

    /// Where the records are that another run can go on from.
    pub(crate) fn records(&self) -> &Records {
        &self.records
    }

    /// Where the index will be.
    pub(crate) fn data(&self) -> OutRoot {
        match &self.place {
            Place::Folder { part, .. } => OutRoot::Folder(part.path.join(DATA)),
            Place::Remote(address) => OutRoot::Remote(address.clone()),
        }
    }

    /// Gives the split its name, now that its index is complete.
    pub(crate) fn publish(self) -> Result<()> {
        let Place::Folder { part, mut root, target, replace } = self.place else {
            self.records.remove();
            return Ok(());
        };
        let data = part.path.join(DATA);
        let old = part.path.join(REPLACED);
        match fs::symlink_metadata(&target) {
            // Another program may have been quicker.
            Ok(_) if !replace => return Err(taken(&target.display().to_string())),
            Ok(_) => {
                // What is there now may have come after the conversion began.
                refuse_to_lose(&target)?;
                fs::rename(&target, &old).map_err(|e| Error::io(e, "replace", &target))?;
            }
            Err(_) => {}
        }
        if let Err(e) = fs::rename(&data, &target) {
            // The old one, if there was one, must not be lost with this.
            let _ = fs::rename(&old, &target);
            return Err(Error::io(e, "create", &target));
        }
        mds::durable::sync_directory(&root.path).map_err(|e| Error::io(e, "write", &root.path))?;
        root.created = false;
        Ok(())
    }
}

/// The folder of all splits, which does not stay if it was made for one that failed.
pub(crate) struct RootFolder {
    path: PathBuf,
    created: bool,
}

impl RootFolder {
    fn create(path: &Path) -> Result<Self> {
        let created = !path.is_dir();
        fs::create_dir_all(path).map_err(|e| Error::io(e, "create", path))?;
        Ok(Self { path: path.to_path_buf(), created })
    }
}

impl Drop for RootFolder {
    fn drop(&mut self) {
        if self.created {
            // Only an empty folder can be removed this way.
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// Where the shards are in the folder of an unfinished split.
const DATA: &str = "data";
/// Where a complete split goes that is replaced; it is removed with the folder.
const REPLACED: &str = "replaced";

fn part_of(out_root: &Path, split: &Split) -> PathBuf {
    out_root.join(format!(".{}.part", split.as_str()))
}

fn complete_shards(data: &Path) -> usize {
    let names = fs::read_dir(data).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.filter(|name| name.to_string_lossy().starts_with("shard.")).count()
}

/// The folder of an unfinished split, locked. What holds no complete shard is removed when this is dropped.
pub(crate) struct PartFolder {
    path: PathBuf,
    /// Dropped last: says to others that the run lives.
    _lock: fs::File,
}

impl PartFolder {
    fn open(out_root: &Path, split: &Split, goes_on: bool) -> Result<Self> {
        let path = part_of(out_root, split);
        let failed = |e| Error::io(e, "write to", &path);
        let lock = loop {
            fs::create_dir_all(&path).map_err(failed)?;
            let lock = fs::File::open(&path).map_err(failed)?;
            if let Err(fs::TryLockError::WouldBlock) = lock.try_lock() {
                return Err(Error::new(
                    ErrorKind::AlreadyExists,
                    format!("another run is writing {}", path.display()),
                    "wait for it, or choose another --out_root",
                ));
            }
            // Between the two a run that has just ended may have removed it.
            if path.exists() {
                break lock;
            }
        };
        // A run that died while it replaced a split: the old one has its name again.
        let (old, target) = (path.join(REPLACED), out_root.join(split.as_str()));
        if old.exists() && fs::symlink_metadata(&target).is_err() {
            fs::rename(&old, &target).map_err(failed)?;
        }
        // Without a complete shard there is nothing to go on with, whatever it was begun with.
        if !goes_on || complete_shards(&path.join(DATA)) == 0 {
            for entry in fs::read_dir(&path).map_err(failed)? {
                let entry = entry.map_err(failed)?.path();
                let removed = if entry.is_dir() {
                    fs::remove_dir_all(&entry)
                } else {
                    fs::remove_file(&entry)
                };
                removed.map_err(|e| Error::io(e, "remove", &entry))?;
            }
        }
        // A run that died between index and publication: its last shards are checked again.
        let index = path.join(DATA).join(Index::FILE_NAME);
        match fs::remove_file(&index) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(e, "remove", &index));
            }
            _ => {}
        }
        Ok(Self { path, _lock: lock })
    }
}

impl Drop for PartFolder {
    fn drop(&mut self) {
        let (data, old) = (self.path.join(DATA), self.path.join(REPLACED));
        // Where the new split did not get its name, the old one may not have its own again: the next run gives it back.
        if old.exists() && data.exists() {
            return;
        }
        if complete_shards(&data) == 0 {
            // What cannot be removed is in nobody's way.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
