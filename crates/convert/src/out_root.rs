//! Where splits go: a folder of this machine, or a remote.
//!
//! In a folder the shards are written into a hidden one beside the final one,
//! `OUT_ROOT/.<split>.*.part`, which is renamed once its index is complete. A run that dies leaves no
//! folder that looks like a dataset, and the next one removes what it did leave: the folder is locked
//! by whoever writes it. To a remote each shard is uploaded when it is complete and the index last;
//! shards without an index are no dataset, and the next run writes over them.

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
    pub fn shown(&self, split: Split) -> String {
        match self {
            Self::Folder(folder) => folder.join(split.as_str()).display().to_string(),
            Self::Remote(address) => mds::redacted(&join(address, split.as_str())),
        }
    }

    /// Makes sure that nothing stands where a split shall be written.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] if something does; as a remote fails.
    pub fn refuse_existing(&self, split: Split) -> Result<()> {
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

    /// Removes what dead runs left of `split` on this machine, and names the folders of runs that
    /// still go on.
    pub fn remove_abandoned(&self, split: Split) -> Vec<PathBuf> {
        match self {
            Self::Folder(folder) => remove_abandoned(folder, split),
            Self::Remote(_) => Vec::new(),
        }
    }

    /// A place for a split that is not complete yet.
    pub(crate) fn begin(&self, split: Split) -> Result<Unfinished> {
        match self {
            Self::Remote(address) => Ok(Unfinished::Remote(join(address, split.as_str()))),
            Self::Folder(folder) => {
                let root = RootFolder::create(folder)?;
                let part = PartFolder::create(folder, split)?;
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

/// Where a split is being written. What is in a folder goes when this is dropped.
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
            Self::Folder { part, .. } => mds::Output::Local(part.folder.path().to_path_buf()),
            Self::Remote(address) => mds::Output::Remote(address.clone()),
        }
    }

    /// Gives the split its name, now that its index is complete.
    pub(crate) fn publish(self) -> Result<()> {
        let Self::Folder { part, mut root, target } = self else { return Ok(()) };
        // Another run may have been quicker.
        if fs::symlink_metadata(&target).is_ok() {
            return Err(taken(&target.display().to_string()));
        }
        part.publish(&target)?;
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

/// Removes the unfinished folders of `split` in `out_root` that dead runs left, and names those of
/// runs that still go on.
fn remove_abandoned(out_root: &Path, split: Split) -> Vec<PathBuf> {
    let mut in_use = Vec::new();
    for part in unfinished(out_root, split) {
        match fs::File::open(&part).map(|folder| (folder.try_lock(), folder)) {
            Ok((Ok(()), _lock)) => {
                tracing::warn!("removing {}, which a run that died has left", part.display());
                // What cannot be removed is in nobody's way.
                let _ = fs::remove_dir_all(&part);
            }
            Ok((Err(_), _)) => in_use.push(part),
            Err(_) => {}
        }
    }
    in_use
}

/// Unfinished folders of `split` in `out_root`: of runs that were killed, or that still go on.
fn unfinished(out_root: &Path, split: Split) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(out_root) else { return Vec::new() };
    let is_part = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(&format!(".{split}.")) && name.ends_with(".part")
    };
    let mut paths: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_part).collect();
    paths.sort();
    paths
}

/// A folder of its own beside the final one, locked, and removed when dropped.
pub(crate) struct PartFolder {
    folder: tempfile::TempDir,
    /// Says to [`remove_abandoned`] that the run lives.
    _lock: fs::File,
}

impl PartFolder {
    fn create(out_root: &Path, split: Split) -> Result<Self> {
        let failed = |e| Error::io(e, "create a folder in", out_root);
        let prefix = format!(".{split}.");
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(".part");
        // It becomes the split's folder: as readable as the user's umask says, not private.
        #[cfg(unix)]
        let builder = builder
            .permissions(<fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o777));
        loop {
            let folder = builder.tempdir_in(out_root).map_err(failed)?;
            // Before it is locked, another run may take it for abandoned: then it is gone.
            let lock = match fs::File::open(folder.path()) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                opened => opened.map_err(failed)?,
            };
            // Where folders cannot be locked, nobody can take one for abandoned either.
            let _ = lock.lock();
            if folder.path().exists() {
                return Ok(Self { folder, _lock: lock });
            }
        }
    }

    /// Gives the finished folder its name, durably.
    fn publish(self, folder: &Path) -> Result<()> {
        fs::rename(self.folder.path(), folder).map_err(|e| Error::io(e, "create", folder))?;
        let _ = self.folder.keep();
        let out_root = folder.parent().unwrap_or(Path::new("."));
        mds::durable::sync_directory(out_root).map_err(|e| Error::io(e, "write", out_root))
    }
}
