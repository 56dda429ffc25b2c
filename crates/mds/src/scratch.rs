//! Private temporary folders that do not outlive their processes for long.
//!
//! A killed process removes nothing. So whoever uses such a folder holds a lock on it, which the kernel
//! releases, and the next one that makes a folder of its kind removes those that nobody holds.

use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use tempfile::{Builder, TempDir};

/// A folder below the system's temporary one, open to this user alone; removed when dropped.
#[derive(Debug)]
pub struct ScratchFolder {
    folder: TempDir,
    _in_use: File,
}

impl ScratchFolder {
    /// A new folder. Its name begins with `kind`, which no other program may use. Those of `kind` that died without
    /// removing theirs are cleaned up after.
    ///
    /// # Errors
    /// As the file system fails.
    pub fn create(kind: &str) -> io::Result<Self> {
        Self::create_in(&std::env::temp_dir(), kind)
    }

    fn create_in(parent: &Path, kind: &str) -> io::Result<Self> {
        remove_abandoned(parent, kind);
        loop {
            let folder = private(kind).tempdir_in(parent)?;
            // Somebody may take it for abandoned before it is locked.
            let in_use = match File::open(folder.path()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened?,
            };
            if in_use.try_lock().is_ok() && folder.path().exists() {
                return Ok(Self { folder, _in_use: in_use });
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

fn private(kind: &str) -> Builder<'_, 'static> {
    let mut builder = Builder::new();
    builder.prefix(kind).permissions(Permissions::from_mode(0o700));
    builder
}

/// Failures are no reason not to go on.
fn remove_abandoned(parent: &Path, kind: &str) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let is_of_kind = entry.file_name().to_str().is_some_and(|name| name.starts_with(kind));
        // Of the entry itself: links are not followed.
        if !is_of_kind || !entry.metadata().is_ok_and(|metadata| is_own_folder(&metadata)) {
            continue;
        }
        let Ok(folder) = File::open(entry.path()) else { continue };
        if folder.try_lock().is_ok() {
            tracing::info!(folder = %entry.path().display(), "removing what a killed process left");
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn is_own_folder(metadata: &Metadata) -> bool {
    // SAFETY: it takes nothing and cannot fail.
    let user = unsafe { libc::geteuid() };
    metadata.is_dir() && metadata.uid() == user && metadata.permissions().mode() & 0o077 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_that_nobody_holds_are_removed_by_the_next() {
        let parent = tempfile::tempdir().unwrap();
        let create = || ScratchFolder::create_in(parent.path(), "mds-test-").unwrap();
        let names = || {
            let entries = fs::read_dir(parent.path()).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
            names.sort();
            names
        };
        // As a killed process leaves it: there, and not locked.
        let left = private("mds-test-").tempdir_in(&parent).unwrap().keep();
        fs::create_dir(left.join("sub")).unwrap();
        fs::write(left.join("sub/shard.00000.mds"), "1").unwrap();
        // What is not private, or of another kind, is somebody else's.
        let (open, other) = (parent.path().join("mds-test-open"), parent.path().join("mds-other"));
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(&other).unwrap();
        fs::set_permissions(&other, Permissions::from_mode(0o700)).unwrap();

        let first = create();
        assert!(!left.exists() && first.path().exists());
        let second = create();
        let mut expected = vec![first.path().into(), second.path().into(), open, other];
        expected.sort();
        assert_eq!(names(), expected);
        drop((first, second));
        assert_eq!(names().len(), 2);
    }

    #[test]
    fn many_at_once_keep_theirs() {
        let parent = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let folder = ScratchFolder::create_in(parent.path(), "mds-test-").unwrap();
                        fs::write(folder.path().join("a"), "1").unwrap();
                        assert!(folder.path().join("a").exists());
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
