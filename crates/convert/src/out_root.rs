//! Where splits go: a folder of this machine, or a remote.
//!
//! In a folder an unfinished split is hidden: its shards are in `OUT_ROOT/.<split>.part/data`, beside what is needed to go
//! on with it (see `manifest`). Once the index is complete, `data` gets the split's name. A run that dies leaves no folder
//! that looks like a dataset, and the same command goes on with what it did leave; the folder is locked by whoever writes
//! it. To a remote each shard is uploaded when it is complete and the index last; shards without an index are no dataset,
//! and the next run writes over them.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use mds::format::Index;
use mds::storage::{Remote, RemoteOptions, join};

use crate::error::{Error, ErrorKind, Result};
use crate::source::Split;

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
            Self::Remote(address) => {
                let remote =
                    Remote::open(&join(address, split.as_str()), RemoteOptions::default())?;
                remote.known_size(Index::FILE_NAME)?.is_some()
            }
        };
        if exists { Err(taken(&self.shown(split))) } else { Ok(()) }
    }

    /// The folder of an unfinished `split` on this machine, and how many complete shards it holds, if any.
    pub fn unfinished(&self, split: &Split) -> Option<(PathBuf, usize)> {
        let Self::Folder(folder) = self else { return None };
        let part = part_of(folder, split);
        let shards = complete_shards(&part.join(DATA));
        (shards > 0).then_some((part, shards))
    }

    /// A place for a split that is not complete yet; what an earlier run has left there is removed with `restart`.
    pub(crate) fn begin(&self, split: &Split, restart: bool) -> Result<Unfinished> {
        match self {
            Self::Remote(address) => Ok(Unfinished::Remote(join(address, split.as_str()))),
            Self::Folder(folder) => {
                let root = RootFolder::create(folder)?;
                let part = PartFolder::open(folder, split, restart)?;
                Ok(Unfinished::Folder { part, root, target: folder.join(split.as_str()) })
            }
        }
    }
}

fn taken(shown: &str) -> Error {
    Error::new(
        ErrorKind::AlreadyExists,
        format!("{shown} exists already"),
        "remove it, or choose another --out_root or other --splits",
    )
}

/// Where a split is being written.
pub(crate) enum Unfinished {
    Folder {
        part: PartFolder,
        /// Dropped after the part that lies in it.
        root: RootFolder,
        target: PathBuf,
    },
    Remote(String),
}

impl Unfinished {
    /// For the writer.
    pub(crate) fn output(&self) -> mds::Output {
        match self {
            Self::Folder { part, .. } => mds::Output::Local(part.path.join(DATA)),
            Self::Remote(address) => mds::Output::Remote(address.clone()),
        }
    }

    /// Where the records are that another run can go on from.
    pub(crate) fn records(&self) -> Option<&Path> {
        match self {
            Self::Folder { part, .. } => Some(&part.path),
            Self::Remote(_) => None,
        }
    }

    /// Gives the split its name, now that its index is complete.
    pub(crate) fn publish(self) -> Result<()> {
        let Self::Folder { part, mut root, target } = self else { return Ok(()) };
        // Another program may have been quicker.
        if fs::symlink_metadata(&target).is_ok() {
            return Err(taken(&target.display().to_string()));
        }
        fs::rename(part.path.join(DATA), &target).map_err(|e| Error::io(e, "create", &target))?;
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

fn part_of(out_root: &Path, split: &Split) -> PathBuf {
    out_root.join(format!(".{split}.part"))
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
    fn open(out_root: &Path, split: &Split, restart: bool) -> Result<Self> {
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
        // Without a complete shard there is nothing to go on with, whatever it was begun with.
        if restart || complete_shards(&path.join(DATA)) == 0 {
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
        if complete_shards(&self.path.join(DATA)) == 0 {
            // What cannot be removed is in nobody's way.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
