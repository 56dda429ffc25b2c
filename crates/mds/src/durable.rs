//! Files that are either complete under their name or absent, whatever dies when.
//!
//! A file is written under a temporary name in the same directory, synced, renamed, and the
//! directory is synced, so that even a power cut leaves the old state or the new one.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use crate::{Error, Result};

/// [`replace`] with an error that names the path.
pub(crate) fn write(path: &Path, contents: &[u8]) -> Result<()> {
    replace(path, contents)
        .map_err(|error| Error::io(error, format!("cannot write {}", path.display())))
}

/// Writes `contents` to `path`, replacing what is there.
///
/// # Errors
/// As the file system fails; `path` is then as it was.
pub fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut options = tempfile::Builder::new();
    options.prefix(".").suffix(".part");
    #[cfg(unix)]
    {
        // Temporary files are private by default; a dataset is as readable as the umask allows.
        use std::os::unix::fs::PermissionsExt;
        options.permissions(std::fs::Permissions::from_mode(0o666));
    }
    // Dropped, and so removed, if any step below fails.
    let mut file = options.tempfile_in(directory)?;
    file.write_all(contents)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_directory(directory)
}

/// Makes renames in a directory last. Only Unix can, and only there it is needed.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn files_are_replaced_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
    }

    #[test]
    fn failures_name_the_path_and_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("missing").join("a");
        let error = write(&path, b"one").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(error.to_string(), format!("cannot write {}; check the path", path.display()));
        // A directory in the place of the file: the rename fails.
        let path = dir.path().join("b");
        std::fs::create_dir(&path).unwrap();
        assert!(write(&path, b"one").is_err());
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
    }
}
