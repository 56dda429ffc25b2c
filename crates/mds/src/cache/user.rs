//! The caches of one user: where a remote that is given no local folder has one, and what lies there.
//!
//! All lie below one folder that belongs to the user alone: `$MDS_CACHE_DIR`, else `mds/datasets` in the
//! user's cache folder (`$XDG_CACHE_HOME` or `~/.cache`). Each is named after its address. Every cache
//! may be removed at any time by `mds-inspect cache clean` and is fetched again when needed. Below
//! `outgoing` lies what a program has made for a remote and not uploaded yet.

use std::env;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use etcetera::BaseStrategy;

use super::index;
use super::lock::FileLock;
use super::publish::sweep;
use super::{lock_limit_of, lock_path};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{FileInfo, HashAlgorithm, Index, IndexOptions, ShardInfo};
use crate::shard::{FileBytes, Shard, ShardOptions, inside};
use crate::storage::{Remote, RemoteOptions, Stop};

/// The variable that names another folder.
const VARIABLE: &str = "MDS_CACHE_DIR";

/// Holds what is on its way to remotes.
const OUTGOING: &str = "outgoing";

/// All caches of this user.
///
/// ```no_run
/// for cached in mds::UserCache::open()?.datasets()? {
///     println!("{}: {} bytes", cached.name(), cached.bytes());
/// }
/// # Ok::<(), mds::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct UserCache {
    root: PathBuf,
}

/// The cache of one dataset.
#[derive(Debug)]
pub struct CachedDataset {
    name: String,
    folder: PathBuf,
    /// `None` if it is damaged.
    index: Option<Index>,
    /// The numbers of the shards that are there, raw or compressed.
    shards: Vec<usize>,
    bytes: u64,
    last_used: Option<SystemTime>,
}

impl UserCache {
    /// The folder of this user's caches, which is made if need be.
    ///
    /// # Errors
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) if it is a symbolic link, or others may
    /// read or write it: they could put other data there.
    pub fn open() -> Result<Self> {
        let root = root()?;
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700);
        private
            .create(&root)
            .map_err(|e| Error::io(e, format!("cannot create {}", root.display())))?;
        check_own(&root)?;
        Ok(Self { root })
    }

    /// The folder for what is on its way to `remote`, made if need be and open to this user alone.
    /// It is no cache: what lies there exists nowhere else yet, and is not listed or cleaned.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn outgoing(&self, remote: &Remote) -> Result<PathBuf> {
        let folder = self.root.join(OUTGOING).join(name_of(remote.address(), &remote.identity()));
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700);
        private
            .create(&folder)
            .map_err(|e| Error::io(e, format!("cannot create {}", folder.display())))?;
        check_own(&folder)?;
        Ok(folder)
    }

    /// The folder that holds the caches.
    pub fn folder(&self) -> &Path {
        &self.root
    }

    /// The caches that are there, by name, those with a damaged index too. What has no index yet is
    /// none.
    ///
    /// # Errors
    /// As the file system fails.
    pub fn datasets(&self) -> Result<Vec<CachedDataset>> {
        let unreadable = |e| Error::io(e, format!("cannot list {}", self.root.display()));
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            // Links are not followed: what they lead to is no cache.
            let is_folder = entry.file_type().map_err(unreadable)?.is_dir();
            if let Ok(name) = entry.file_name().into_string()
                && is_folder
                && let Some(dataset) = CachedDataset::open(name, entry.path())
            {
                found.push(dataset);
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Removes the folders of caches that never got an index: processes that are killed leave them.
    ///
    /// # Errors
    /// As the file system fails.
    pub fn remove_unfinished(&self) -> Result<()> {
        let unreadable = |e| Error::io(e, format!("cannot list {}", self.root.display()));
        for entry in fs::read_dir(&self.root).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let (folder, name) = (entry.path(), entry.file_name());
            let index_path = folder.join(Index::FILE_NAME);
            let is_cache = name.to_str().is_some_and(is_name) && !folder.is_symlink();
            if !is_cache || index_path.exists() {
                continue;
            }
            // Else somebody is fetching the index.
            let Some(lock) = FileLock::try_acquire(&lock_path(&index_path))? else { continue };
            if !index_path.exists() {
                index::own_files(&folder).iter().try_for_each(|path| remove(path))?;
                sweep(&folder);
            }
            drop(lock);
            // Not if something else is in it.
            let _ = fs::remove_dir(&folder);
        }
        Ok(())
    }
}

impl CachedDataset {
    /// `None` if the folder has no index, or a strange one and a name that no cache is given.
    fn open(name: String, folder: PathBuf) -> Option<Self> {
        let read = read_index(&folder).and_then(|index| {
            // So is one that names files elsewhere.
            index
                .iter()
                .flat_map(|index| &index.shards)
                .try_for_each(|shard| files(&folder, shard).map(drop))?;
            Ok(index)
        });
        let index = match read {
            Ok(index) => Some(index?),
            Err(_) if is_name(&name) => None,
            Err(_) => return None,
        };
        let mut dataset = Self { name, folder, index, shards: vec![], bytes: 0, last_used: None };
        let shards = dataset.files_of_shards();
        for (number, paths) in shards.iter().enumerate() {
            let found: Vec<_> = paths.iter().filter_map(|path| path.metadata().ok()).collect();
            dataset.bytes += found.iter().map(fs::Metadata::len).sum::<u64>();
            let used = found.iter().filter_map(|metadata| metadata.modified().ok());
            dataset.last_used = dataset.last_used.max(used.max());
            dataset.shards.extend((!found.is_empty()).then_some(number));
        }
        Some(dataset)
    }

    /// The files of each shard, there or not. Those of a damaged index are told by their names.
    fn files_of_shards(&self) -> Vec<Vec<PathBuf>> {
        match &self.index {
            // What leads elsewhere was taken for damage.
            Some(index) => {
                let shards = index.shards.iter();
                shards.map(|shard| files(&self.folder, shard).unwrap_or_default()).collect()
            }
            None => {
                let mut found = Vec::new();
                find_shards(&self.folder, 0, &mut found);
                found.into_iter().map(|path| vec![path]).collect()
            }
        }
    }

    /// The name of its folder: the address and, as several addresses may look alike, a hash of it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it lies.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The index of the whole dataset; `None` if it is damaged.
    pub fn index(&self) -> Option<&Index> {
        self.index.as_ref()
    }

    /// How many of its shards are there. If the index is damaged, how many files of shards.
    pub fn num_shards(&self) -> usize {
        self.shards.len()
    }

    /// What its shards take up.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When a shard was last used; `None` if there is none.
    pub fn last_used(&self) -> Option<SystemTime> {
        self.last_used
    }

    /// Whether a process uses it now.
    ///
    /// # Errors
    /// As the file system fails.
    pub fn is_used(&self) -> Result<bool> {
        index::is_used(&self.folder)
    }

    /// Checks the sizes, hashes and offsets of all shards that are there. Returns an error for each
    /// that is damaged, or for the index; they are fetched again when they are needed.
    pub fn verify(&self) -> Vec<Error> {
        let Some(index) = &self.index else { return vec![self.damage()] };
        let check = |&number: &usize| {
            let shard = &index.shards[number];
            let raw = Shard::open_cached(&self.folder, shard, ShardOptions::default());
            let raw = raw.map(drop).map_err(|error| error.in_shard(&shard.raw_data.basename));
            let zips = shard.files().filter_map(|file| file.zip).map(|zip| self.verify_zip(zip));
            std::iter::once(raw).chain(zips).filter_map(Result::err)
        };
        self.shards.iter().flat_map(check).collect()
    }

    /// Checks a compressed file, if it was kept.
    fn verify_zip(&self, zip: &FileInfo) -> Result<()> {
        let path = inside(&self.folder, &zip.basename)?;
        FileBytes::map_raw(&path, zip, ShardOptions::default(), false).map(drop)
    }

    /// What is wrong with the index.
    fn damage(&self) -> Error {
        let path = self.folder.join(Index::FILE_NAME);
        let what = format!("the cached index {} is damaged", path.display());
        let remedy = format!("run mds-inspect cache clean {}", self.name);
        match read_index(&self.folder) {
            Err(error) => error.within(what),
            Ok(_) => Error::corrupt(what, remedy),
        }
    }

    /// Removes the shards, the index and the folder. Files that are none of the dataset's stay, and
    /// so does their folder. Returns how many bytes went.
    ///
    /// # Errors
    /// [`AlreadyExists`](ErrorKind::AlreadyExists) if a process uses it, and as the file system fails.
    pub fn remove(self) -> Result<u64> {
        let index_path = self.folder.join(Index::FILE_NAME);
        // Nobody can begin to use it meanwhile.
        let limit = lock_limit_of(&RemoteOptions::default());
        let lock = FileLock::acquire(&lock_path(&index_path), limit, &Stop::new())?;
        if self.is_used()? {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("the cache {} is in use", self.folder.display()),
                "end the processes that read from it first",
            ));
        }
        let mut folders = vec![self.folder.clone()];
        for path in self.files_of_shards().into_iter().flatten() {
            remove(&path)?;
            folders.extend(path.parent().map(Path::to_path_buf));
        }
        // Last, so that what cannot be removed is still listed.
        index::own_files(&self.folder).iter().try_for_each(|path| remove(path))?;
        folders.sort();
        folders.dedup();
        folders.iter().for_each(|folder| sweep(folder));
        drop(lock);
        for folder in folders.iter().rev() {
            // Not if something else is in it.
            let _ = fs::remove_dir(folder);
        }
        Ok(self.bytes)
    }
}

/// The folder of all caches, there or not.
fn root() -> Result<PathBuf> {
    if let Some(folder) = env::var_os(VARIABLE).filter(|folder| !folder.is_empty()) {
        return Ok(PathBuf::from(folder));
    }
    let strategy = etcetera::choose_base_strategy().map_err(|_| {
        Error::new(
            ErrorKind::NotFound,
            "there is no folder for caches, as this user has no home",
            format!("set {VARIABLE}, or give a local folder"),
        )
    })?;
    Ok(strategy.cache_dir().join("mds").join("datasets"))
}

/// The name of the user's cache in `folder`, if it is one.
pub(super) fn name_at(folder: &Path) -> Option<&str> {
    let is_below = folder.parent() == Some(root().ok()?.as_path());
    folder.file_name()?.to_str().filter(|_| is_below)
}

fn read_index(folder: &Path) -> Result<Option<Index>> {
    let Some(text) = index::read(folder)? else { return Ok(None) };
    let index = Index::parse_with(&text, IndexOptions { pickle_bytes: true });
    index.map(Some).map_err(|e| e.in_dataset(folder.display()))
}

/// Adds the files below a folder that are called like shards. Links are not followed.
fn find_shards(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    /// Folders that were merged, or columns in folders of their own.
    const MAX_DEPTH: usize = 16;
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && depth < MAX_DEPTH {
            find_shards(&entry.path(), depth + 1, found);
        } else if kind.is_file() && entry.file_name().as_encoded_bytes().starts_with(b"shard.") {
            found.push(entry.path());
        }
    }
}

/// The cache of a remote that is given no folder.
pub(super) fn folder_for(remote: &Remote) -> Result<PathBuf> {
    let folder = UserCache::open()?.root.join(name_of(remote.address(), &remote.identity()));
    // Whoever made it may have been tricked into it, and what is cleaned would be elsewhere.
    if folder.is_symlink() {
        return Err(Error::new(
            ErrorKind::PermissionDenied,
            format!("the cache folder {} is a symbolic link", folder.display()),
            "remove it",
        ));
    }
    Ok(folder)
}

/// A name that a person recognizes and no other remote has.
fn name_of(address: &str, identity: &str) -> String {
    const LONGEST: usize = 100;
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    let name: String = address.chars().map(plain).take(LONGEST).collect();
    let parts = name.split(['-']).filter(|part| !part.is_empty());
    let name = parts.collect::<Vec<_>>().join("-");
    let hash = HashAlgorithm::Xxh3_64.hex(identity.as_bytes());
    format!("{}-{hash}", name.trim_start_matches('.'))
}

/// Whether [`name_of`] may have given a folder this name.
fn is_name(name: &str) -> bool {
    let hash = name.rsplit_once('-').map_or("", |(_, hash)| hash);
    hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Refuses a folder in which others could put files.
fn check_own(folder: &Path) -> Result<()> {
    let metadata = fs::symlink_metadata(folder)
        .map_err(|e| Error::io(e, format!("cannot read {}", folder.display())))?;
    // SAFETY: it takes nothing and cannot fail.
    let own = metadata.uid() == unsafe { libc::geteuid() };
    let (fault, remedy) = if metadata.is_symlink() {
        ("is a symbolic link", "remove it, or set MDS_CACHE_DIR to the folder itself".to_owned())
    } else if !metadata.is_dir() {
        ("is not a folder", "remove it, or set MDS_CACHE_DIR to another".to_owned())
    } else if !own {
        ("belongs to another user", "set MDS_CACHE_DIR to a folder of your own".to_owned())
    } else if metadata.mode() & 0o077 != 0 {
        ("is open to other users", format!("run chmod 700 {}", folder.display()))
    } else {
        return Ok(());
    };
    let what = format!("the cache folder {} {fault}", folder.display());
    Err(Error::new(ErrorKind::PermissionDenied, what, remedy))
}

fn files(folder: &Path, shard: &ShardInfo) -> Result<Vec<PathBuf>> {
    let files = shard.files().flat_map(|file| [Some(file.raw), file.zip]).flatten();
    files.map(|file| inside(folder, &file.basename)).collect()
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(e, format!("cannot remove {}", path.display())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_recognized_and_differ() {
        let of = |address: &str| {
            let remote = Remote::open(address, RemoteOptions::default()).unwrap();
            name_of(remote.address(), &remote.identity())
        };
        let name = of("http://h/c4/val");
        assert!(name.starts_with("http-h-c4-val-") && name.len() == 30, "{name}");
        assert_ne!(of("http://h/c4-val"), name);
        assert!(of(&format!("http://h/{}", "x".repeat(5000))).len() < 130);
        // The same bucket at two places is two; who reads it does not matter.
        let key = "access_key_id=a&secret_access_key=b&region=x";
        let here = of(&format!("s3://b/c4?{key}&endpoint=http://127.0.0.1:1"));
        assert_eq!(
            of(
                "s3://b/c4?access_key_id=c&secret_access_key=d&region=x&endpoint=http://127.0.0.1:1"
            ),
            here
        );
        assert_ne!(of(&format!("s3://b/c4?{key}&endpoint=http://127.0.0.1:2")), here);
        assert!(here.starts_with("s3-b-c4-"), "{here}");
        assert!(is_name(&here) && !is_name("c4") && !is_name("s3-b-c4"));
    }
}
