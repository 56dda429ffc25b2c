//! Files that appear whole or not at all: written under a unique name beside their final one,
//! synced, renamed, and the directory synced.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::lock::is_still_at;
use crate::durable::{begin_writing, sync_directory};
use crate::error::{Error, Result};
use crate::regular;

/// A file under its temporary name, removed when dropped before [`publish`](Self::publish).
///
/// Its writer holds a lock on it, so that [`sweep`] can tell a file at work from one that a killed
/// process left behind. Its name says how many bytes it is going to have: `.NAME.BYTES-RANDOM.part`.
#[derive(Debug)]
pub(crate) struct PartFile {
    file: NamedTempFile,
    target: PathBuf,
    /// Bytes that were appended, and those of them that the disk was told of.
    appended: u64,
    begun: u64,
}

/// The disk is told of so many appended bytes at once.
const AT_ONCE: u64 = 8 << 20;

impl PartFile {
    /// An empty file beside `target`, whose folder is made if need be, for so many `bytes`.
    pub(crate) fn create(target: &Path, bytes: u64) -> Result<Self> {
        let failed = |e| Error::io(e, format!("cannot write {}", target.display()));
        let folder = folder_of(target);
        std::fs::create_dir_all(folder).map_err(failed)?;
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let mut options = tempfile::Builder::new();
        let prefix = format!(".{name}.{bytes}-");
        options.prefix(&prefix).suffix(".part");
        // What the umask leaves of it, as for any other file; temporary files are private.
        options.permissions(Permissions::from_mode(0o666));
        loop {
            let file = options.tempfile_in(folder).map_err(failed)?;
            // A sweep may take it for abandoned before it is locked.
            let is_locked = match file.as_file().try_lock() {
                Err(TryLockError::Error(e)) => return Err(failed(e)),
                locked => locked.is_ok(),
            };
            if is_locked && is_still_at(file.as_file(), file.path()) {
                return Ok(Self { file, target: target.to_path_buf(), appended: 0, begun: 0 });
            }
        }
    }

    /// Writes what comes next in the file. The disk begins with it at once: all shards of a first batch
    /// are unpacked at the same time, and it would be idle until the last of them waits for it.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.file.as_file_mut().write_all(bytes);
        written.map_err(|e| Error::io(e, format!("cannot write {}", self.target.display())))?;
        self.appended += bytes.len() as u64;
        if self.appended - self.begun >= AT_ONCE {
            begin_writing(self.file.as_file(), self.begun..self.appended);
            self.begun = self.appended;
        }
        Ok(())
    }

    /// The file to write to.
    pub(crate) fn file(&self) -> &File {
        self.file.as_file()
    }

    /// The name that the file is going to have.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Gives the file its name, replacing what had it, once its bytes are on the disk.
    pub(crate) fn publish(self) -> Result<()> {
        let target = self.target;
        let failed = |e| Error::io(e, format!("cannot write {}", target.display()));
        self.file.as_file().sync_all().map_err(failed)?;
        // Locked until the end, so that no sweep sees it free under its temporary name.
        let _locked = self.file.persist(&target).map_err(|e| failed(e.error))?;
        sync_directory(folder_of(&target)).map_err(failed)
    }
}

/// Publishes a file that holds `bytes`.
pub(crate) fn publish(target: &Path, bytes: &[u8]) -> Result<()> {
    let mut part = PartFile::create(target, bytes.len() as u64)?;
    part.append(bytes)?;
    part.publish()
}

/// Removes what killed processes left in `folder`: temporary and lock files that nobody holds.
/// Failures are no reason not to read the dataset, so they are ignored.
pub(crate) fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if !(name.starts_with('.') && (name.ends_with(".part") || name.ends_with(".lock"))) {
            continue;
        }
        remove_abandoned(&entry.path());
    }
}

/// Removes a temporary or lock file unless somebody holds it. True if it did: a temporary file that is
/// gone may have become a shard.
pub(super) fn remove_abandoned(path: &Path) -> bool {
    let Ok(file) = regular::open_own(OpenOptions::new().read(true), path) else { return false };
    // Locked until it is gone: a writer that waits for the lock then sees that it is.
    if file.try_lock().is_err() || !is_still_at(&file, path) {
        return false;
    }
    tracing::info!(file = %path.display(), "removing what a killed process left");
    fs::remove_file(path).is_ok()
}

/// The bytes that a temporary file of this name is going to have; `None` for other files.
pub(super) fn reserved_bytes(name: &str) -> Option<u64> {
    let (_, reserved) = name.strip_prefix('.')?.strip_suffix(".part")?.rsplit_once('.')?;
    reserved.split_once('-')?.0.parse().ok()
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("sub/a");
        let mut part = PartFile::create(&target, 4).unwrap();
        part.append(b"half").unwrap();
        assert!(!target.exists());
        drop(part);
        assert!(names(&dir.path().join("sub")).is_empty());
        publish(&target, b"one").unwrap();
        publish(&target, b"two").unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"two");
        assert_eq!(names(&dir.path().join("sub")), ["a"]);
    }

    #[test]
    fn the_sweep_takes_only_what_nobody_holds() {
        let dir = tempfile::tempdir().unwrap();
        for name in [".a.x.part", ".a.lock", ".a.note", "b.part"] {
            File::create(dir.path().join(name)).unwrap();
        }
        let held = PartFile::create(&dir.path().join("h"), 7).unwrap();
        sweep(dir.path());
        let left = names(dir.path());
        assert_eq!(left.len(), 3, "{left:?}");
        assert_eq!(reserved_bytes(&left[1]), Some(7));
        assert!(left[0] == ".a.note" && left[1].starts_with(".h.") && left[2] == "b.part");
        held.publish().unwrap();
        sweep(dir.path());
        assert_eq!(names(dir.path()), [".a.note", "b.part", "h"]);
    }

    #[test]
    fn a_sweep_at_the_wrong_moment_takes_nothing_from_a_writer() {
        let dir = tempfile::tempdir().unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    sweep(dir.path());
                }
            });
            let published =
                (0..200).try_for_each(|i| publish(&dir.path().join(format!("{i}")), b"x"));
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            published.unwrap();
        });
        assert_eq!(names(dir.path()).len(), 200);
    }
}
