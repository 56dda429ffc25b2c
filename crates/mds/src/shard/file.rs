//! The bytes of one file of a shard, mapped or owned, compared with the index.

use std::fs::{File, TryLockError};
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use memmap2::Mmap;

use super::{ShardOptions, missing, quickest_hash};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Compression, Damage, FileInfo, ShardFile, ShardName};
use crate::regular;

/// The bytes of a raw file.
#[derive(Debug)]
pub(crate) enum FileBytes {
    Owned(Vec<u8>),
    Mapped {
        map: Mmap,
        /// Holds a shared lock on a cached file, which keeps other processes from evicting it.
        _in_use: Option<File>,
    },
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Mapped { map, .. } => map,
        }
    }
}

impl FileBytes {
    /// Reads a file of the dataset in `dir`: maps the raw one, or unpacks the compressed one if
    /// `file` has one.
    pub(super) fn read(
        dir: &Path,
        file: ShardFile<'_>,
        compression: Option<Compression>,
        options: ShardOptions,
    ) -> Result<Self> {
        let path = inside(dir, &file.stored().basename)?;
        let (Some(zip), Some(compression)) = (file.zip, compression) else {
            let bytes = Self::map_raw(&path, file.raw, options, false)?;
            return bytes.ok_or_else(|| missing(&path));
        };
        let stored = read_at_most(&path, zip.bytes)?;
        check_bytes(&stored, zip, options.validate_hash)?;
        let raw = compression.decompress(&stored, file.raw.bytes)?;
        check_bytes(&raw, file.raw, options.validate_hash)?;
        Ok(Self::Owned(raw))
    }

    /// The bytes of a file that nobody else writes to.
    pub(crate) fn mapped(file: &File) -> io::Result<Self> {
        Ok(Self::Mapped { map: map(file)?, _in_use: None })
    }

    /// Maps or reads the file at `path`; `None` if there is none. `hold` keeps other processes
    /// from evicting it.
    pub(crate) fn map_raw(
        path: &Path,
        info: &FileInfo,
        options: ShardOptions,
        hold: bool,
    ) -> Result<Option<Self>> {
        let unreadable = |e| Error::io(e, format!("cannot read {}", path.display()));
        let file = match regular::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(unreadable(e)),
        };
        if hold {
            hold_in_use(&file);
        }
        let bytes = if options.copy {
            Self::Owned(regular::contents(file, info.bytes).map_err(unreadable)?)
        } else {
            let map = map(&file).map_err(unreadable)?;
            Self::Mapped { map, _in_use: hold.then_some(file) }
        };
        match check_bytes(&bytes, info, options.validate_hash) {
            Ok(()) => Ok(Some(bytes)),
            Err(damage) => Err(damaged(path, damage).in_shard(&info.basename)),
        }
    }
}

impl ShardFile<'_> {
    /// What is read of the file where the dataset in `folder` is read in place: the raw file if it is
    /// there, as by the reference, else the compressed one. Each file of a shard is looked for on its
    /// own. Everything that reads in place asks here, so that what is verified is what is served.
    #[must_use]
    pub fn served_in(self, folder: &Path) -> Self {
        let is_raw_there = self.raw.basename.join_to(folder).exists();
        Self { zip: self.zip.filter(|_| !is_raw_there), ..self }
    }
}

/// Locks a file so that no other process evicts it. Waits only while one looks whether it is in use. Where
/// there are no locks, or that process hangs, an evicted file still lives until it is unmapped.
fn hold_in_use(file: &File) {
    const LIMIT: Duration = Duration::from_secs(1);
    let started = Instant::now();
    while matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
        && started.elapsed() < LIMIT
    {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// An error that names the damaged file of this machine.
fn damaged(path: &Path, damage: Damage) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!("{} is damaged: {damage}", path.display()),
        "remove the file, so that it is fetched again, or write the dataset again",
    )
    .with_damage(damage)
}

/// What keeps `bytes` from being the file that `info` describes, if anything: its size always, a
/// hash where there is one and `hash` is set.
pub(crate) fn check_bytes(bytes: &[u8], info: &FileInfo, hash: bool) -> Result<(), Damage> {
    let found = bytes.len() as u64;
    if found != info.bytes {
        return Err(Damage::FileSize { found, declared: info.bytes });
    }
    let Some((algorithm, declared)) = quickest_hash(info).filter(|_| hash) else { return Ok(()) };
    let found = algorithm.hex(bytes);
    if found == declared {
        return Ok(());
    }
    let (hash, declared) = (algorithm.to_string(), declared.to_owned());
    Err(Damage::FileHash { hash, found, declared })
}

/// The path of a file of the dataset in `root`, unless a symbolic link there leads out of it.
///
/// # Errors
/// `Corrupt` if it does. A file that does not exist yet is fine if its folder is inside.
pub(crate) fn inside(root: &Path, name: &ShardName) -> Result<PathBuf> {
    not_out_of(root, name.join_to(root))
}

/// As [`inside`], for a path that is below `root` by its text.
pub(crate) fn not_out_of(root: &Path, path: PathBuf) -> Result<PathBuf> {
    let Ok(real_root) = root.canonicalize() else { return Ok(path) };
    // The deepest part that exists decides: what is below it will be made there.
    let existing = path.ancestors().find_map(|part| part.canonicalize().ok());
    if existing.is_none_or(|real| real.starts_with(&real_root)) {
        return Ok(path);
    }
    let (path, root) = (path.display().to_string(), root.display().to_string());
    Err(Damage::LinkOut { path, root }.into())
}

fn read_at_most(path: &Path, bytes: u64) -> Result<Vec<u8>> {
    let unreadable = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound => missing(path),
        _ => Error::io(e, format!("cannot read {}", path.display())),
    };
    regular::read_at_most(path, bytes).map_err(unreadable)
}

/// Maps a whole file for reading.
pub(crate) fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the mapped bytes must not change or vanish while the map lives. Files of a cache are
    // written under another name, renamed when complete and afterwards only ever unlinked, which
    // leaves the mapped bytes in place; nothing in this crate opens a shard for writing. That the
    // owner of a dataset that is read in place does not truncate or rewrite it meanwhile is a
    // documented condition of mapping it, as with every program that maps files.
    unsafe { Mmap::map(file) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_a_file_for_ever_is_not_waited_for() {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let [hung, file] = [(); 2].map(|()| File::open(&path).unwrap());
        hung.lock().unwrap();
        let started = Instant::now();
        hold_in_use(&file);
        assert!(started.elapsed() >= Duration::from_secs(1));
        drop(hung);
        hold_in_use(&file);
        assert!(File::open(&path).unwrap().try_lock().is_err());
    }
}
