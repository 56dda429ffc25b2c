//! Where checkpoints are read from: folders of this machine and of remotes.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use mds::ErrorKind;
use mds::storage::{Remote, RemoteOptions};

use super::{Checkpoint, LATEST, STATE_FILE, folder, remote};
use crate::error::{Error, Result};

/// A save folder, or the folder of one checkpoint.
#[derive(Clone, Debug)]
pub enum Place {
    /// A folder of this machine.
    Folder(PathBuf),
    /// One of a remote, whose address is shown without options.
    Remote(Remote),
}

/// A checkpoint to continue from.
#[derive(Debug)]
pub struct Found {
    /// Its folder.
    pub place: Place,
    /// What it holds.
    pub checkpoint: Checkpoint,
    /// Newer ones that were passed over, and why.
    pub notices: Vec<String>,
}

/// Batch and epoch of a checkpoint: the order in which checkpoints are made.
pub(super) type Position = (u64, u64);

/// The position that the name of a checkpoint's folder tells.
pub(super) fn position(name: &str) -> Option<Position> {
    let (epoch, batch) = name.strip_prefix("ep")?.split_once("-ba")?;
    Some((batch.parse().ok()?, epoch.parse().ok()?))
}

impl Place {
    /// The folder at `address`, a path or as in [`Remote::open`]; connects to nothing yet.
    ///
    /// # Errors
    /// When the address cannot be understood.
    pub fn open(address: &str, options: RemoteOptions) -> Result<Self> {
        // The pointer to the newest stands for the folder that it lies in.
        let address =
            address.strip_suffix(LATEST).and_then(|a| a.strip_suffix('/')).unwrap_or(address);
        let remote = Remote::open(address, options)?;
        Ok(match remote.folder() {
            Some(folder) => Self::Folder(folder.to_owned()),
            None => Self::Remote(remote),
        })
    }

    /// The checkpoint here: this is its own folder, or a save folder, whose newest is taken.
    ///
    /// # Errors
    /// When there is none, or it is damaged, or a remote fails.
    pub fn load(&self) -> Result<Found> {
        if self.position().is_none()
            && !self.has(STATE_FILE)?
            && let Some(found) = self.newest()?
        {
            return Ok(found);
        }
        let checkpoint = Checkpoint::load(self)?;
        Ok(Found { place: self.clone(), checkpoint, notices: Vec::new() })
    }

    /// The newest complete checkpoint in this save folder, `None` where there is no checkpoint at all.
    fn newest(&self) -> Result<Option<Found>> {
        newest_of(self.checkpoints()?)
    }

    /// The checkpoints in this save folder, oldest first.
    pub(super) fn checkpoints(&self) -> Result<Vec<Self>> {
        Ok(match self {
            Self::Folder(folder) => {
                folder::restore_replaced(folder)?;
                folder::list(folder)?.into_iter().map(|(_, path)| Self::Folder(path)).collect()
            }
            Self::Remote(remote) if remote.can_list() => remote::complete(remote)?,
            // All that can be asked there is which one is the newest.
            Self::Remote(remote) => match remote.get(LATEST, 1000) {
                Ok(name) => {
                    let name = String::from_utf8_lossy(&name);
                    vec![Self::Remote(remote.below(name.trim())?)]
                }
                Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
                Err(error) => return Err(error.into()),
            },
        })
    }

    /// Whether the checkpoint `found` lies in this save folder, or is on its way there.
    pub fn owns(&self, found: &Found) -> bool {
        let is_parent = |folder: &Path, path: &Path| {
            let parent = path.parent().and_then(|parent| std::fs::canonicalize(parent).ok());
            parent.is_some() && parent == std::fs::canonicalize(folder).ok()
        };
        match (self, &found.place) {
            (Self::Folder(folder), Self::Folder(path)) => is_parent(folder, path),
            (Self::Remote(remote), Self::Folder(path)) => {
                // One that was set aside is nobody's.
                found.place.position().is_some()
                    && remote::staging(remote).is_ok_and(|staging| is_parent(&staging, path))
            }
            (Self::Remote(remote), Self::Remote(at)) => found
                .place
                .name()
                .and_then(|name| remote.below(&name).ok())
                .is_some_and(|below| below.identity() == at.identity()),
            (Self::Folder(_), Self::Remote(_)) => false,
        }
    }

    /// The name of the folder: `ep0-ba20`.
    pub(super) fn name(&self) -> Option<String> {
        match self {
            Self::Folder(path) => Some(path.file_name()?.to_str()?.to_owned()),
            Self::Remote(remote) => {
                Some(remote.address().trim_end_matches('/').rsplit_once('/')?.1.to_owned())
            }
        }
    }

    /// The position that the name tells, if this is the folder of a checkpoint.
    pub(super) fn position(&self) -> Option<Position> {
        position(&self.name()?)
    }

    /// The contents of the file `name`, `None` if there is no such file.
    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(name);
                match std::fs::read(&path) {
                    Ok(bytes) => Ok(Some(bytes)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(Error::io("read", &path)(error)),
                }
            }
            Self::Remote(remote) => match remote.size(name)? {
                Some(size) => Ok(Some(remote.get(name, size)?)),
                None => Ok(None),
            },
        }
    }

    /// The contents of the file `name`, which must be there.
    ///
    /// # Errors
    /// When it is not, or cannot be read.
    pub(crate) fn file(&self, name: &str) -> Result<Vec<u8>> {
        let missing =
            || Error::Checkpoint(format!("there is no {name} in `{self}`; check the path"));
        self.read(name)?.ok_or_else(missing)
    }

    /// Whether there is a file of that name.
    pub(crate) fn has(&self, name: &str) -> Result<bool> {
        match self {
            Self::Folder(folder) => Ok(folder.join(name).exists()),
            Self::Remote(remote) => Ok(remote.size(name)?.is_some()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => folder.display().fmt(f),
            Self::Remote(remote) => f.write_str(remote.address()),
        }
    }
}

/// The last of `checkpoints` that is whole; those after it are passed over. `None` if there are none at all.
///
/// # Errors
/// When all are damaged; when one cannot be read now, or not by this version: it may well be the newest, and whole.
pub(super) fn newest_of(checkpoints: Vec<Place>) -> Result<Option<Found>> {
    let mut problems = Vec::new();
    for place in checkpoints.into_iter().rev() {
        match Checkpoint::load(&place) {
            Ok(checkpoint) => {
                let passed_over = |problem| format!("passed over: {problem}");
                let notices = problems.into_iter().map(passed_over).collect();
                return Ok(Some(Found { place, checkpoint, notices }));
            }
            Err(error @ (Error::Dataset(_) | Error::Io { .. } | Error::CheckpointVersion(_))) => {
                return Err(error);
            }
            Err(error) => problems.push(error.to_string()),
        }
    }
    match problems.into_iter().next() {
        None => Ok(None),
        Some(problem) => Err(Error::Checkpoint(problem)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pointer_to_the_newest_stands_for_its_folder() {
        let place = |address: &str| Place::open(address, RemoteOptions::default()).unwrap();
        let folder = place("runs/a").to_string();
        assert_eq!(place("runs/a/latest").to_string(), folder);
        assert_ne!(place("runs/a/the-latest").to_string(), folder);
    }
}
