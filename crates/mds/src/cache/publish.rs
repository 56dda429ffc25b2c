//! Files that appear whole or not at all: written under a unique name beside their final one,
//! synced, renamed, and the directory synced.

use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::NamedTempFile;

use crate::durable::sync_directory;
use crate::error::{Error, Result};

/// A file under its temporary name, removed when dropped before [`publish`](Self::publish).
///
/// Its writer holds a lock on it, so that [`sweep`] can tell a file at work from one that a killed
/// process left behind.
#[derive(Debug)]
pub(crate) struct PartFile {
    file: NamedTempFile,
    target: PathBuf,
}

impl PartFile {
    /// An empty file beside `target`, whose folder is made if need be.
    pub(crate) fn create(target: &Path) -> Result<Self> {
        let failed = |e| Error::io(e, format!("cannot write {}", target.display()));
        let folder = folder_of(target);
        std::fs::create_dir_all(folder).map_err(failed)?;
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let file = tempfile::Builder::new()
            .prefix(&format!(".{name}."))
            .suffix(".part")
            // What the umask leaves of it, as for any other file; temporary files are private.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder)
            .map_err(failed)?;
        file.as_file().lock().map_err(failed)?;
        Ok(Self { file, target: target.to_path_buf() })
    }

    /// The file to write to.
    pub(crate) fn file_mut(&mut self) -> &mut File {
        self.file.as_file_mut()
    }

    /// Gives the file its name, replacing what had it, once its bytes are on the disk.
    pub(crate) fn publish(self) -> Result<()> {
        let target = self.target;
        let failed = |e| Error::io(e, format!("cannot write {}", target.display()));
        self.file.as_file().sync_all().map_err(failed)?;
        self.file.as_file().unlock().map_err(failed)?;
        self.file.persist(&target).map_err(|e| failed(e.error))?;
        sync_directory(folder_of(&target)).map_err(failed)
    }
}

/// Publishes a file that holds `bytes`.
pub(crate) fn publish(target: &Path, bytes: &[u8]) -> Result<()> {
    let mut part = PartFile::create(target)?;
    part.file_mut()
        .write_all(bytes)
        .map_err(|e| Error::io(e, format!("cannot write {}", target.display())))?;
    part.publish()
}

/// Removes what killed processes left in `folder`: temporary and lock files that nobody holds.
/// Failures are no reason not to read the dataset, so they are ignored.
pub(crate) fn sweep(folder: &Path) {
    const YOUNG: Duration = Duration::from_secs(60);
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if !(name.starts_with('.') && (name.ends_with(".part") || name.ends_with(".lock"))) {
            continue;
        }
        // A file is created just before it is locked.
        let age = entry
            .metadata()
            .and_then(|m| m.modified())
            .map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
        if age.is_ok_and(|age| age < YOUNG) {
            continue;
        }
        let abandoned = File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok());
        if abandoned {
            tracing::info!(file = %entry.path().display(), "removing what a killed process left");
            let _ = std::fs::remove_file(entry.path());
        }
    }
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
        let mut part = PartFile::create(&target).unwrap();
        part.file_mut().write_all(b"half").unwrap();
        assert!(!target.exists());
        drop(part);
        assert!(names(&dir.path().join("sub")).is_empty());
        publish(&target, b"one").unwrap();
        publish(&target, b"two").unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"two");
        assert_eq!(names(&dir.path().join("sub")), ["a"]);
    }

    #[test]
    fn the_sweep_takes_only_what_is_old_and_free() {
        let dir = tempfile::tempdir().unwrap();
        let old = SystemTime::now() - Duration::from_secs(3600);
        for name in [".a.x.part", ".a.lock", ".a.note", "b.part"] {
            File::create(dir.path().join(name)).unwrap().set_modified(old).unwrap();
        }
        File::create(dir.path().join(".young.part")).unwrap();
        let mut held = PartFile::create(&dir.path().join("h")).unwrap();
        held.file_mut().set_modified(old).unwrap();
        sweep(dir.path());
        let left = names(dir.path());
        assert_eq!(left.len(), 4, "{left:?}");
        assert!(left[..2].iter().all(|name| name == ".a.note" || name.starts_with(".h.")));
        assert_eq!(left[2..], [".young.part", "b.part"]);
    }
}
