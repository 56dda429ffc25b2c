//! The index of a cache: fetched and compared with the remote's once, by whoever comes first.
//!
//! Whoever uses a cache holds a shared lock on a file that is called after its remote. If nobody does,
//! the index may be out of date, or another remote's: so it is fetched. If somebody does, it was
//! compared with the same remote when that process opened the cache, and those who start together
//! take it as it is. The time of the file is that of the comparison: who comes long after it compares
//! again, and is refused if the remote has changed, as all who share a cache read the same dataset.
//! A second lock lets one process at a time find out which.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::lock::{FileLock, is_still_at};
use super::publish::publish;
use super::{CacheOptions, lock_limit, lock_path, user};
use crate::durable;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{HashAlgorithm, Index, IndexOptions, ShardName};
use crate::regular;
use crate::shard::not_out_of;
use crate::storage::{Location, Remote, RemoteOptions, Stop};

/// The ranks of a node start within this time of each other.
const TOGETHER: Duration = Duration::from_secs(60);

/// Held as long as a cache is used. The last who lets go removes the file.
#[derive(Debug)]
pub(super) struct InUse {
    path: PathBuf,
    file: File,
}

impl Drop for InUse {
    fn drop(&mut self) {
        // Failures do no harm: a file that nobody holds is swept.
        let _ = self.file.unlock();
        if self.file.try_lock().is_ok() && is_still_at(&self.file, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The index of the cache in `dir` of a remote. The folder is made if need be, and does not stay if
/// there is no such dataset.
pub(super) fn shared(
    dir: &Path,
    remote: &Remote,
    options: &CacheOptions,
) -> Result<(Index, InUse)> {
    let created = durable::create_directory(dir)
        .map_err(|e| Error::io(e, format!("cannot create {}", dir.display())))?;
    let joined = join(dir, remote, options);
    if let (Err(_), Some(created)) = (&joined, created) {
        let mut made = dir.ancestors().take_while(|folder| folder.starts_with(&created));
        // Unless another process has put something there.
        let _ = made.try_for_each(fs::remove_dir);
    }
    joined
}

fn join(dir: &Path, remote: &Remote, options: &CacheOptions) -> Result<(Index, InUse)> {
    let path = dir.join(Index::FILE_NAME);
    let first = FileLock::acquire(&lock_path(&path), lock_limit(options), &Stop::new())?;
    let use_path = use_path(dir, remote);
    let is_fresh = is_held(&use_path)? && is_recent(&use_path);
    let is_compared = !is_fresh || cached(dir)?.is_some_and(|cached| cached.is_damaged());
    if is_compared {
        compare(dir, remote, options.index)?;
    }
    let in_use = hold(use_path, lock_limit(options))?;
    if is_compared {
        // If it fails, the next one compares again.
        let _ = in_use.file.set_modified(SystemTime::now());
    }
    drop(first);
    let text = read(dir)?.ok_or_else(|| not_in(dir))?;
    let index = Index::parse_with(&text, options.index);
    Ok((index.map_err(|e| e.in_dataset(remote.address()))?, in_use))
}

/// Fetches the remote's index and puts it into the cache, or finds it there.
fn compare(dir: &Path, remote: &Remote, options: IndexOptions) -> Result<()> {
    match fetch(remote, options) {
        Ok((text, index)) => keep(dir, remote, &text, &index, options),
        // A remote that cannot be reached does not stop a run whose cache has what it needs.
        Err(unreachable) if unreachable.kind() == ErrorKind::Download => {
            let Some(cached) = cached(dir)? else { return Err(unreachable) };
            if cached.is_damaged() || Index::parse_with(&cached.text, options).is_err() {
                let path = dir.join(Index::FILE_NAME);
                let what = format!("the cached index {} is damaged", path.display());
                return Err(unreachable.within(what));
            }
            tracing::warn!(
                remote = remote.address(),
                cache = %dir.display(),
                "the remote cannot be reached; going on with the cached index"
            );
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// What lies in a cache.
struct Cached {
    text: Vec<u8>,
    /// `None` if no process of ours put the index there, or the seal is damaged too.
    seal: Option<Seal>,
}

impl Cached {
    /// Whether the index is not the one that was put there.
    fn is_damaged(&self) -> bool {
        self.seal.as_ref().is_some_and(|seal| seal.text != Seal::hash(&self.text))
    }
}

fn cached(dir: &Path) -> Result<Option<Cached>> {
    let Some(text) = read(dir)? else { return Ok(None) };
    Ok(Some(Cached { text, seal: Seal::read(dir)? }))
}

/// What is known of an index besides its text.
struct Seal {
    /// The fingerprint of the index.
    dataset: String,
    /// The hash of its text.
    text: String,
}

impl Seal {
    const FILE_NAME: &str = ".index.seal";

    fn hash(text: &[u8]) -> String {
        HashAlgorithm::Xxh3_128.hex(text)
    }

    fn read(dir: &Path) -> Result<Option<Self>> {
        const MAX_BYTES: u64 = 100;
        let path = not_out_of(dir, dir.join(Self::FILE_NAME))?;
        let seal = match regular::read_at_most(&path, MAX_BYTES) {
            Ok(seal) => seal,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(e, format!("cannot read {}", path.display()))),
        };
        let is_hash = |text: &str| text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let parts = str::from_utf8(&seal).ok().and_then(|seal| seal.split_once(' '));
        let whole = parts.filter(|(dataset, text)| is_hash(dataset) && is_hash(text));
        Ok(whole.map(|(dataset, text)| Self { dataset: dataset.into(), text: text.into() }))
    }

    fn publish(dir: &Path, dataset: &str, text: &[u8]) -> Result<()> {
        let seal = format!("{dataset} {}", Self::hash(text));
        publish(&dir.join(Self::FILE_NAME), seal.as_bytes())
    }
}

/// The files beside the shards that a cache has.
pub(super) fn own_files(dir: &Path) -> [PathBuf; 2] {
    // The index first: without it, nothing that is left is taken for a dataset.
    [Index::FILE_NAME, Seal::FILE_NAME].map(|name| dir.join(name))
}

/// Files that say who uses a cache begin so.
const USE_PREFIX: &str = ".used-";

/// The file that those hold who use the cache of a remote.
fn use_path(dir: &Path, remote: &Remote) -> PathBuf {
    let hash = HashAlgorithm::Xxh3_64.hex(remote.identity().as_bytes());
    dir.join(format!("{USE_PREFIX}{hash}.lock"))
}

/// Whether any process uses the cache in `dir`.
pub(super) fn is_used(dir: &Path) -> Result<bool> {
    let unreadable = |e| Error::io(e, format!("cannot list {}", dir.display()));
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if entry.file_name().as_encoded_bytes().starts_with(USE_PREFIX.as_bytes())
            && is_held(&entry.path())?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_held(path: &Path) -> Result<bool> {
    match regular::open_own(OpenOptions::new().read(true), path) {
        Ok(file) => Ok(file.try_lock().is_err()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io(e, format!("cannot read {}", path.display()))),
    }
}

/// Whether the comparison that the file stands for was a short time ago.
fn is_recent(path: &Path) -> bool {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < TOGETHER))
}

fn hold(path: PathBuf, limit: Duration) -> Result<InUse> {
    let failed = |e| Error::io(e, format!("cannot lock {}", path.display()));
    let started = Instant::now();
    loop {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = regular::open_own(&mut options, &path).map_err(failed)?;
        match file.try_lock_shared() {
            // Whoever was the last before may have removed it meanwhile.
            Ok(()) if is_still_at(&file, &path) => return Ok(InUse { path, file }),
            Ok(()) => {}
            // Somebody looks whether it is held.
            Err(TryLockError::WouldBlock) if started.elapsed() < limit => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(Error::new(
                    ErrorKind::Timeout,
                    format!(
                        "waited {limit:?} for another process, which holds the lock {}",
                        path.display()
                    ),
                    "end the process that hangs, and try again",
                ));
            }
            Err(TryLockError::Error(e)) => return Err(failed(e)),
        }
    }
}

fn fetch(remote: &Remote, options: IndexOptions) -> Result<(Vec<u8>, Index)> {
    let text = match (remote.get(Index::FILE_NAME, Index::MAX_BYTES), remote.folder()) {
        (Err(e), Some(folder)) if e.kind() == ErrorKind::NotFound => return Err(not_in(folder)),
        (text, _) => text?,
    };
    let index = Index::parse_with(&text, options).map_err(|e| e.in_dataset(remote.address()))?;
    Ok((text, index))
}

/// Puts the remote's index into the cache, unless the cache belongs to another dataset.
fn keep(
    dir: &Path,
    remote: &Remote,
    text: &[u8],
    index: &Index,
    options: IndexOptions,
) -> Result<()> {
    let path = dir.join(Index::FILE_NAME);
    let fingerprint = index.fingerprint();
    let is_known = if let Some(cached) = cached(dir)? {
        let parsed = Index::parse_with(&cached.text, options).ok();
        let found = parsed.map(|index| index.fingerprint());
        let is_same = found.as_ref() == Some(&fingerprint);
        if is_same && !cached.is_damaged() {
            return match cached.seal {
                Some(_) => Ok(()),
                None => Seal::publish(dir, &fingerprint, &cached.text),
            };
        }
        let whose = cached.seal.map(|seal| seal.dataset).or(found);
        if let Some(other) = whose.as_ref().filter(|whose| !is_same && **whose != fingerprint) {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!(
                    "the cache {} holds another dataset (index {other}) than {} (index \
                     {fingerprint})",
                    dir.display(),
                    remote.address(),
                ),
                match user::name_at(dir) {
                    Some(name) => {
                        format!("run mds-inspect cache clean {name}, or choose a local folder")
                    }
                    None => "remove that folder or choose another local one".to_owned(),
                },
            ));
        }
        tracing::warn!(file = %path.display(), "replacing a damaged cached index");
        whose.is_some()
    } else {
        // A process that died between the two leaves a seal alone.
        Seal::read(dir)?.is_some_and(|seal| seal.dataset == fingerprint)
    };
    // Nobody knows whose shards these are. Without hashes, those of another dataset with files of the
    // same sizes would be taken for this one's.
    if !is_known {
        refuse_shards(dir, remote, index)?;
    }
    // The seal first: if the process dies between the two, the index that is there does not fit it
    // and is replaced.
    Seal::publish(dir, &fingerprint, text)?;
    publish(&path, text)
}

/// A folder with files that are called like shards is not a new cache.
fn refuse_shards(dir: &Path, remote: &Remote, index: &Index) -> Result<()> {
    let is_visible = |entry: io::Result<fs::DirEntry>| {
        entry.is_ok_and(|entry| {
            let name = entry.file_name();
            !name.as_encoded_bytes().starts_with(b".") && name != Index::FILE_NAME
        })
    };
    let unreadable = |e| Error::io(e, format!("cannot list {}", dir.display()));
    // Asked first: a million shards need not be looked for in an empty folder.
    if !fs::read_dir(dir).map_err(unreadable)?.any(is_visible) {
        return Ok(());
    }
    let files = index.shards.iter().flat_map(|shard| shard.files());
    let names = files.flat_map(|file| [Some(file.raw), file.zip]).flatten();
    let mut names = names.map(|file| &file.basename);
    let is_there = |name: &&ShardName| {
        fs::symlink_metadata(name.join_to(dir)).is_ok_and(|metadata| metadata.is_file())
    };
    let Some(name) = names.find(is_there) else { return Ok(()) };
    Err(Error::new(
        ErrorKind::AlreadyExists,
        format!(
            "the folder {} holds a file {name}, but no index that says of which dataset, so it \
             cannot be the cache of {}",
            dir.display(),
            remote.address(),
        ),
        "choose another local folder, or remove that one if nothing in it is needed",
    ))
}

/// The text of the index in a folder; `None` if it has none.
pub(super) fn read(dir: &Path) -> Result<Option<Vec<u8>>> {
    let path = not_out_of(dir, dir.join(Index::FILE_NAME))?;
    match regular::read_at_most(&path, Index::MAX_BYTES) {
        Ok(text) if text.len() as u64 > Index::MAX_BYTES => Err(Error::corrupt(
            format!("{} is longer than the {} bytes it may have", path.display(), Index::MAX_BYTES),
            "check that this is the index of a dataset",
        )),
        Ok(text) => Ok(Some(text)),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(e) => Err(Error::io(e, format!("cannot read {}", path.display()))),
    }
}

/// There is no dataset in a folder; names the splits below it, if that is the reason.
pub(super) fn not_in(dir: &Path) -> Error {
    let splits = Remote::at(Location::Folder(dir.to_path_buf()), RemoteOptions::default())
        .map(|folder| folder.splits())
        .unwrap_or_default();
    let what = format!("there is no dataset in {}: it has no {}", dir.display(), Index::FILE_NAME);
    let remedy = match splits.as_slice() {
        [] if dir.is_dir() => "check the path and the split".to_owned(),
        [] => "the folder does not exist, so check the path and the split".to_owned(),
        splits => format!("choose one of its splits: {}", splits.join(", ")),
    };
    Error::new(ErrorKind::NotFound, what, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_for_one_who_looks_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".used-x.lock");
        let looking = File::create(&path).unwrap();
        looking.lock().unwrap();
        let limit = Duration::from_millis(20);
        let error = hold(path.clone(), limit).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert_eq!(
            error.to_string(),
            format!(
                "waited 20ms for another process, which holds the lock {}; end the process that \
                 hangs, and try again",
                path.display()
            )
        );
        drop(looking);
        drop(hold(path.clone(), limit).unwrap());
        assert!(!path.exists());
    }
}
