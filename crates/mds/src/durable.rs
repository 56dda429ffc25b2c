//! Files that are either complete under their name or absent, whatever dies when.
//!
//! A file is written under a temporary name in the same directory, synced, renamed, and the
//! directory is synced, so that even a power cut leaves the old state or the new one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempPath};

use crate::{Error, Result};

mod folder;

pub use folder::OutFolder;

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
    replace_with(path, |file| file.write_all(contents))
}

/// [`replace`] with the contents of another file.
pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    replace_with(to, |file| io::copy(&mut source, file).map(drop))
}

/// Writes `contents` to `path`, where nothing may be.
///
/// # Errors
/// `AlreadyExists` if something has the name, else as the file system fails; what has the name is
/// then as it was.
pub(crate) fn create(path: &Path, contents: &[u8]) -> io::Result<()> {
    sealed(path, |file| file.write_all(contents))?.publish_new()
}

fn replace_with(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    sealed(path, fill)?.publish()
}

fn sealed(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<Sealed> {
    let mut draft = Draft::create(path)?;
    fill(draft.file.as_file_mut())?;
    draft.seal()
}

/// A file that is still being written, under a temporary name beside its final one. Removed when
/// dropped.
#[derive(Debug)]
pub struct Draft {
    file: NamedTempFile,
    path: PathBuf,
}

impl Draft {
    /// Begins the file that shall be called `path`, in a directory that exists.
    ///
    /// # Errors
    /// As the file system fails.
    pub fn create(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let mut options = tempfile::Builder::new();
        options.prefix(PREFIX).suffix(SUFFIX);
        #[cfg(unix)]
        {
            // Temporary files are private by default; a dataset is as readable as the umask allows.
            use std::os::unix::fs::PermissionsExt;
            options.permissions(fs::Permissions::from_mode(0o666));
        }
        let file = options.tempfile_in(parent(&path))?;
        Ok(Self { file, path })
    }

    /// Makes the contents last and closes the file, which keeps its temporary name.
    ///
    /// # Errors
    /// As the file system fails; the file is then removed.
    pub fn seal(self) -> io::Result<Sealed> {
        self.file.as_file().sync_all()?;
        let bytes = self.file.as_file().metadata()?.len();
        Ok(Sealed { file: self.file.into_temp_path(), path: self.path, bytes })
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A complete file that still has its temporary name. Removed when dropped.
#[derive(Debug)]
pub struct Sealed {
    file: TempPath,
    path: PathBuf,
    bytes: u64,
}

impl Sealed {
    /// The size in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives the file its final name, replacing what is there.
    ///
    /// # Errors
    /// As the file system fails; what had the name is then as it was.
    pub fn publish(self) -> io::Result<()> {
        self.file.persist(&self.path).map_err(|error| error.error)?;
        sync_directory(parent(&self.path))
    }

    /// [`publish`](Self::publish), unless something has the name.
    fn publish_new(self) -> io::Result<()> {
        let named = self.file.persist_noclobber(&self.path).or_else(|refused| {
            let is_taken = refused.error.kind() == io::ErrorKind::AlreadyExists;
            // A bucket that is mounted as a folder may know no other way than to replace.
            if is_taken || self.path.exists() {
                Err(refused)
            } else {
                refused.path.persist(&self.path)
            }
        });
        named.map_err(|error| error.error)?;
        sync_directory(parent(&self.path))
    }
}

/// Temporary names begin and end so.
const PREFIX: &str = ".";
const SUFFIX: &str = ".part";

/// Whether a file of this name may be what a process that died left of [`replace`].
pub(crate) fn is_leftover(name: &str) -> bool {
    name.starts_with(PREFIX) && name.ends_with(SUFFIX)
}

/// Lets the disk begin with bytes of a file that is going to be synced, while the rest of it is made.
/// Promises nothing: only `sync_all` says that they are there, or why not.
pub(crate) fn begin_writing(file: &File, bytes: Range<u64>) {
    #[cfg(target_os = "linux")]
    if let (Ok(start), Ok(length)) =
        (i64::try_from(bytes.start), i64::try_from(bytes.end - bytes.start))
    {
        let fd = file.as_raw_fd();
        // SAFETY: the descriptor is open for as long as `file` is borrowed, and the call changes no
        // contents.
        let _ = unsafe { libc::sync_file_range(fd, start, length, libc::SYNC_FILE_RANGE_WRITE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (file, bytes);
}

/// The directory of `path`, `.` if it names none.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Creates `directory` with its parents. Returns the outermost one that was not there before.
///
/// # Errors
/// As the file system fails.
pub fn create_directory(directory: &Path) -> io::Result<Option<PathBuf>> {
    let missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let created = directory.ancestors().take_while(missing).last().map(Path::to_path_buf);
    fs::create_dir_all(directory)?;
    Ok(created)
}

/// Makes `directory` and its parents last, up to `created`, as [`create_directory`] returned it.
///
/// # Errors
/// As the file system fails.
pub fn sync_created(directory: &Path, created: &Path) -> io::Result<()> {
    let new = directory.ancestors().take_while(|path| path.starts_with(created));
    new.map(parent).try_for_each(sync_directory)
}

/// Makes renames in a directory last. Only Unix can, and only there it is needed.
///
/// # Errors
/// As the file system fails.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
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
    fn what_is_there_is_not_created() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        create(&path, b"one").unwrap();
        assert_eq!(create(&path, b"two").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
    }

    #[test]
    fn copies_replace_too_and_bring_their_directories() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        std::fs::write(&from, b"one").unwrap();
        let folder = dir.path().join("a").join("b");
        let created = create_directory(&folder).unwrap().unwrap();
        assert_eq!(created, dir.path().join("a"));
        assert_eq!(create_directory(&folder).unwrap(), None);
        sync_created(&folder, &created).unwrap();
        std::fs::write(folder.join("to"), b"old").unwrap();
        copy(&from, &folder.join("to")).unwrap();
        assert_eq!(std::fs::read(folder.join("to")).unwrap(), b"one");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        assert!(copy(&dir.path().join("none"), &folder.join("to")).is_err());
        assert_eq!(std::fs::read(folder.join("to")).unwrap(), b"one");
    }

    #[test]
    fn drafts_appear_only_when_they_are_published() {
        let dir = tempfile::tempdir().unwrap();
        let names = || {
            let entries = std::fs::read_dir(&dir).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        };
        let hidden = |names: Vec<String>| names.len() == 1 && is_leftover(&names[0]);
        let mut draft = Draft::create(dir.path().join("a")).unwrap();
        draft.write_all(b"one").unwrap();
        assert!(hidden(names()));
        let sealed = draft.seal().unwrap();
        assert_eq!(sealed.bytes(), 3);
        assert!(hidden(names()));
        sealed.publish().unwrap();
        assert_eq!(names(), ["a"]);
        drop(Draft::create(dir.path().join("a")).unwrap());
        drop(Draft::create(dir.path().join("b")).unwrap().seal().unwrap());
        assert_eq!(names(), ["a"]);
        assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"one");
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
