//! Opening files that strangers may have put there: only regular ones, and without waiting.
//!
//! To open a named pipe waits until somebody writes to it, which may be never; to read a device may
//! never end. So every file of a dataset and of a cache is opened here.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::format::Damage;

/// Opens a regular file for reading.
///
/// # Errors
/// [`Damage::NotAFile`] inside the error for anything else, which is not waited for.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    open_with(OpenOptions::new().read(true), path, 0)
}

/// Opens a file of this program's own making in a folder that others may write to: as [`open`],
/// and a symbolic link is an error too.
pub(crate) fn open_own(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    open_with(options, path, libc::O_NOFOLLOW)
}

fn open_with(options: &mut OpenOptions, path: &Path, flags: i32) -> io::Result<File> {
    // Without O_NONBLOCK, open waits for the other end of a pipe; regular files ignore it.
    let file = options.custom_flags(flags | libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, Damage::NotAFile))
}

/// The contents of a regular file, but no more than one byte beyond `max_bytes`: a caller that
/// compares lengths sees that it is longer.
pub(crate) fn read_at_most(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    contents(open(path)?, max_bytes)
}

/// [`read_at_most`] of a file that is open.
pub(crate) fn contents(file: File, max_bytes: u64) -> io::Result<Vec<u8>> {
    let size = file.metadata()?.len();
    let mut contents = Vec::with_capacity(usize::try_from(size.min(max_bytes)).unwrap_or(0));
    file.take(max_bytes.saturating_add(1)).read_to_end(&mut contents)?;
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, ErrorKind};

    #[test]
    fn only_regular_files_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [&pipe, dir.path(), Path::new("/dev/zero")] {
            let error =
                Error::io(open(path).unwrap_err(), format!("cannot read {}", path.display()));
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert_eq!(
                error.to_string(),
                format!(
                    "cannot read {}: it is not a regular file; remove it, or put the file there \
                     that belongs there",
                    path.display()
                )
            );
        }
    }

    #[test]
    fn a_file_that_is_too_long_is_read_one_byte_too_far() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, b"12345").unwrap();
        assert_eq!(read_at_most(&path, 3).unwrap(), b"1234");
        assert_eq!(read_at_most(&path, u64::MAX).unwrap(), b"12345");
    }

    #[test]
    fn own_files_are_no_links() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join(".a.lock");
        std::os::unix::fs::symlink(dir.path().join("victim"), &link).unwrap();
        let mut options = OpenOptions::new();
        assert!(open_own(options.read(true).write(true).create(true), &link).is_err());
        assert!(!dir.path().join("victim").exists());
    }
}
