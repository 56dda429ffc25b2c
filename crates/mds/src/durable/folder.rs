//! The folder of a dataset that is being written.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::{create_directory, is_leftover, sync_created};
use crate::cache::is_still_at;
use crate::{Error, ErrorKind, Result};

/// A folder that this program alone writes a dataset to. Others are refused until this is dropped or the
/// process ends, by a lock on the folder itself, which leaves nothing in it. File systems without locks
/// refuse nobody.
#[derive(Debug)]
pub struct OutFolder {
    path: PathBuf,
    /// The outermost directory that was created, if any.
    created: Option<PathBuf>,
    _lock: File,
}

impl OutFolder {
    /// A folder that is empty, or is created with its parents.
    ///
    /// # Errors
    /// `AlreadyExists` if something is in the folder or another program writes to it, else as the file
    /// system fails.
    pub fn create(path: &Path) -> Result<Self> {
        let folder = Self::open(path)?;
        let names: Vec<_> = fs::read_dir(path)
            .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect())
            .map_err(|error| cannot_use(error, path))?;
        if names.is_empty() {
            return Ok(folder);
        }
        let is_leftover = |name: &std::ffi::OsString| name.to_str().is_some_and(is_leftover);
        let shown = path.display();
        let what = match names.iter().all(is_leftover) {
            true => format!("the directory {shown} holds hidden files that a killed program left"),
            false => format!("the directory {shown} is not empty"),
        };
        let remedy = "choose another one, or delete it first if its data may go";
        Err(Error::new(ErrorKind::AlreadyExists, what, remedy))
    }

    /// A folder with whatever is in it, created if it does not exist.
    ///
    /// # Errors
    /// `AlreadyExists` if another program writes to it, else as the file system fails.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |error| cannot_use(error, path);
        loop {
            let created = match fs::read_dir(path) {
                Ok(_) => None,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    create_directory(path).map_err(failed)?
                }
                Err(error) => return Err(failed(error)),
            };
            let lock = match File::open(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.map_err(failed)?,
            };
            if let Err(TryLockError::WouldBlock) = lock.try_lock() {
                return Err(Error::new(
                    ErrorKind::AlreadyExists,
                    format!("another program is writing to the directory {}", path.display()),
                    "wait for it, or choose another one",
                ));
            }
            // Whoever had the lock before may have removed the folder.
            if is_still_at(&lock, path) {
                return Ok(Self { path: path.to_path_buf(), created, _lock: lock });
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the directories that were created last, themselves and not only what is in them.
    ///
    /// # Errors
    /// As the file system fails.
    pub fn sync(&self) -> Result<()> {
        let Some(created) = &self.created else { return Ok(()) };
        sync_created(&self.path, created).map_err(|error| {
            Error::io(error, format!("cannot complete the directory {}", self.path.display()))
        })
    }

    /// Removes the directories that were created, if nobody has put anything there.
    pub fn remove_if_empty(&self) {
        let Some(created) = &self.created else { return };
        for directory in self.path.ancestors() {
            if fs::remove_dir(directory).is_err() || directory == created {
                return;
            }
        }
    }
}

fn cannot_use(error: io::Error, path: &Path) -> Error {
    Error::io(error, format!("cannot use the directory {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_writer_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("new").join("folder");
        let first = OutFolder::create(&path).unwrap();
        for second in [OutFolder::create(&path), OutFolder::open(&path)] {
            assert_eq!(
                second.unwrap_err().to_string(),
                format!(
                    "another program is writing to the directory {}; wait for it, or choose \
                     another one",
                    path.display()
                )
            );
        }
        first.remove_if_empty();
        drop(first);
        assert!(fs::read_dir(parent.path()).unwrap().next().is_none());
        drop(OutFolder::create(&path).unwrap());
        OutFolder::open(&path).unwrap();
    }

    #[test]
    fn hidden_files_of_killed_programs_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let message = || OutFolder::create(folder.path()).unwrap_err().to_string();
        let shown = folder.path().display().to_string();
        let remedy = "choose another one, or delete it first if its data may go";
        fs::write(folder.path().join(".a1b2c3.part"), "").unwrap();
        assert_eq!(
            message(),
            format!(
                "the directory {shown} holds hidden files that a killed program left; {remedy}"
            )
        );
        fs::write(folder.path().join("a"), "").unwrap();
        assert_eq!(message(), format!("the directory {shown} is not empty; {remedy}"));
    }
}
