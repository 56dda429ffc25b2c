//! Where the files of one stream are: in a folder that is read in place, or in a cache that
//! mirrors a remote.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tempfile::TempDir;

use super::lock::FileLock;
use super::publish::{PartFile, publish, sweep};
use super::{CacheOptions, lock_limit, lock_path, relock};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Damage, FileInfo, Index, IndexOptions, ShardInfo};
use crate::regular;
use crate::shard::{check_bytes, inside, map, not_out_of};
use crate::storage::{Location, Remote, RemoteOptions, Stop, check_split};

/// The place of one stream.
#[derive(Debug)]
pub(crate) struct Place {
    /// How messages call the dataset.
    shown: String,
    /// What is read; for a mirror, also what is written.
    dir: PathBuf,
    /// `None` if the dataset is read in place.
    remote: Option<Remote>,
    /// Made when first needed: for shards that exist only compressed where nothing may be written.
    private: Mutex<Option<TempDir>>,
    /// The folders that files of shards lie in, below `dir`.
    folders: Vec<PathBuf>,
}

/// A stream's addresses, as a user gives them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses<'a> {
    pub(crate) remote: Option<&'a str>,
    pub(crate) local: Option<&'a Path>,
    pub(crate) split: Option<&'a str>,
}

impl Place {
    /// Finds the place of a stream and reads its index, from the remote if there is one.
    pub(crate) fn open(addresses: Addresses<'_>, options: &CacheOptions) -> Result<(Self, Index)> {
        let split = addresses.split.filter(|split| !split.is_empty());
        check_split(split.unwrap_or_default())?;
        let local = addresses.local.map(|local| match split {
            Some(split) => local.join(split),
            None => local.to_path_buf(),
        });
        let Some(remote) = addresses.remote else {
            let local = local.ok_or_else(|| {
                Error::invalid("a stream has neither a remote nor a local folder", "give one")
            })?;
            return Self::in_place(local, options);
        };
        let location = Location::parse(remote)?.join(split);
        if let Some(local) = &local {
            check_local(local, &location)?;
        }
        match (location.folder(), local) {
            (Some(folder), None) => Self::in_place(folder.to_path_buf(), options),
            (Some(folder), Some(local)) if same_folder(folder, &local) => {
                Self::in_place(local, options)
            }
            (_, local) => {
                Self::mirror(Remote::at(location, options.remote.clone())?, local, options)
            }
        }
    }

    fn in_place(dir: PathBuf, options: &CacheOptions) -> Result<(Self, Index)> {
        let shown = dir.display().to_string();
        let text = read_index(&dir)?.ok_or_else(|| no_index(&dir))?;
        let index = Index::parse_with(&text, options.index).map_err(|e| e.in_dataset(&shown))?;
        let folders = folders(&index);
        Ok((Self { shown, dir, remote: None, private: Mutex::new(None), folders }, index))
    }

    fn mirror(
        remote: Remote,
        local: Option<PathBuf>,
        options: &CacheOptions,
    ) -> Result<(Self, Index)> {
        let shown = remote.address().to_owned();
        let fetched = fetch_index(&remote, options.index);
        let (dir, private) = match local {
            Some(dir) => (dir, None),
            None => {
                let private = private_dir()?;
                (private.path().to_path_buf(), Some(private))
            }
        };
        let index = match fetched {
            Ok((text, index)) => {
                std::fs::create_dir_all(&dir)
                    .map_err(|e| Error::io(e, format!("cannot create {}", dir.display())))?;
                keep_index(&dir, &remote, &text, &index, options)?;
                index
            }
            // A remote that cannot be reached does not stop a run whose cache has what it needs.
            Err(unreachable) if unreachable.kind() == ErrorKind::Download => {
                let cached = read_index(&dir)?;
                let cached = cached.and_then(|text| Index::parse_with(&text, options.index).ok());
                let Some(index) = cached else { return Err(unreachable) };
                tracing::warn!(
                    remote = shown,
                    cache = %dir.display(),
                    "the remote cannot be reached; going on with the cached index"
                );
                index
            }
            Err(error) => return Err(error),
        };
        let folders = folders(&index);
        folders.iter().for_each(|folder| sweep(&dir.join(folder)));
        Ok((
            Self { shown, dir, remote: Some(remote), private: Mutex::new(private), folders },
            index,
        ))
    }

    /// How messages call the dataset: its address without any password.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// Whether shards may be fetched again once they are evicted.
    pub(crate) fn is_cache(&self) -> bool {
        self.remote.is_some()
    }

    /// Where the raw files of the shard are, or are to be put.
    ///
    /// # Errors
    /// If a symbolic link there leads out of the dataset's folder.
    pub(crate) fn raw_files(&self, info: &ShardInfo) -> Result<RawFiles> {
        let in_folder = |folder: &Path, cached| {
            let data = inside(folder, &info.raw_data.basename)?;
            let meta = info.raw_meta.as_ref().map(|meta| inside(folder, &meta.basename));
            Ok(RawFiles { data, meta: meta.transpose()?, cached })
        };
        let files: RawFiles = in_folder(&self.dir, self.is_cache())?;
        if files.cached || info.compression.is_none() || files.paths().all(Path::exists) {
            return Ok(files);
        }
        let mut private = relock(&self.private);
        let folder = match &mut *private {
            Some(folder) => folder,
            empty => empty.insert(private_dir()?),
        };
        in_folder(folder.path(), true)
    }

    /// The folders of this machine where shards are put, as the root of a cache and a folder below it.
    pub(crate) fn cache_folders(&self) -> Vec<(PathBuf, &Path)> {
        let private = relock(&self.private).as_ref().map(|folder| folder.path().to_path_buf());
        // A private folder is the whole cache where there is no other.
        let own = self.is_cache().then(|| self.dir.clone());
        let Some(root) = own.or(private) else { return Vec::new() };
        self.folders.iter().map(|folder| (root.clone(), folder.as_path())).collect()
    }

    /// Where a compressed file is kept in a cache.
    pub(crate) fn zip_path(&self, zip: &FileInfo) -> Result<Option<PathBuf>> {
        self.is_cache().then(|| inside(&self.dir, &zip.basename)).transpose()
    }

    /// The compressed file, checked: from the cache if it is there, else from the remote.
    /// The flag says that it was downloaded.
    pub(crate) fn read_zip(
        &self,
        zip: &FileInfo,
        options: &CacheOptions,
        stop: &Stop,
    ) -> Result<(Vec<u8>, bool)> {
        let path = inside(&self.dir, &zip.basename)?;
        match regular::read_at_most(&path, zip.bytes) {
            Ok(bytes) => match check_bytes(&bytes, zip, options.validate_hash) {
                Ok(()) => return Ok((bytes, false)),
                Err(damage) if self.remote.is_none() => {
                    return Err(damaged(&path.display().to_string(), damage));
                }
                Err(damage) => {
                    tracing::warn!(file = %path.display(), %damage, "fetching it again");
                }
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound && self.remote.is_some() => {}
            Err(e) => return Err(Error::io(e, format!("cannot read {}", path.display()))),
        }
        let Some(remote) = &self.remote else { return Err(no_index(&self.dir)) };
        let bytes = remote.get_until(zip.basename.as_str(), zip.bytes, stop)?;
        check_bytes(&bytes, zip, options.validate_hash)
            .map_err(|damage| damaged(&object(remote, zip), damage))?;
        Ok((bytes, true))
    }

    /// Downloads the raw file to a temporary one and checks it.
    pub(crate) fn download_raw(
        &self,
        raw: &FileInfo,
        part: &mut PartFile,
        options: &CacheOptions,
        stop: &Stop,
    ) -> Result<()> {
        let Some(remote) = &self.remote else { return Err(no_index(&self.dir)) };
        remote.download(raw.basename.as_str(), part.file_mut(), raw.bytes, stop)?;
        let checked = map(part.file_mut())
            .map_err(|e| Error::io(e, format!("cannot read {}", part.target().display())))
            .map(|map| check_bytes(&map, raw, options.validate_hash))?;
        checked.map_err(|damage| damaged(&object(remote, raw), damage))
    }
}

/// Where the raw files of a shard are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawFiles {
    pub(crate) data: PathBuf,
    /// The file of offsets, for formats with one.
    pub(crate) meta: Option<PathBuf>,
    /// In a cache, or to be put there; else in the dataset itself, which is not to be touched.
    pub(crate) cached: bool,
}

impl RawFiles {
    /// Both files, in the order of [`ShardInfo::files`].
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(self.data.as_path()).chain(self.meta.as_deref())
    }

    /// The file that is not there.
    pub(crate) fn first_missing(&self) -> &Path {
        self.paths().find(|path| !path.exists()).unwrap_or(&self.data)
    }
}

const REWRITE: &str = "copy the dataset to its remote again or write it again";

fn damaged(at: &str, damage: Damage) -> Error {
    Error::corrupt(format!("{at} is damaged: {damage}"), REWRITE).with_damage(damage)
}

fn object(remote: &Remote, file: &FileInfo) -> String {
    format!("{}/{}", remote.address().trim_end_matches('/'), file.basename)
}

fn fetch_index(remote: &Remote, options: IndexOptions) -> Result<(Vec<u8>, Index)> {
    let text = match (remote.get(Index::FILE_NAME, Index::MAX_BYTES), remote.folder()) {
        (Err(e), Some(folder)) if e.kind() == ErrorKind::NotFound => return Err(no_index(folder)),
        (text, _) => text?,
    };
    let index = Index::parse_with(&text, options).map_err(|e| e.in_dataset(remote.address()))?;
    Ok((text, index))
}

/// Puts the remote's index into the cache, unless the cache already belongs to another dataset.
fn keep_index(
    dir: &Path,
    remote: &Remote,
    text: &[u8],
    index: &Index,
    options: &CacheOptions,
) -> Result<()> {
    let path = dir.join(Index::FILE_NAME);
    let _lock = FileLock::acquire(&lock_path(&path), lock_limit(options), &Stop::new())?;
    match read_index(dir)? {
        Some(cached) if cached == text => return Ok(()),
        Some(cached) => match Index::parse_with(&cached, options.index) {
            Ok(other) if other.fingerprint() == index.fingerprint() => return Ok(()),
            Ok(other) => {
                return Err(Error::new(
                    ErrorKind::AlreadyExists,
                    format!(
                        "the cache {} holds another dataset (index {}) than {} (index {})",
                        dir.display(),
                        other.fingerprint(),
                        remote.address(),
                        index.fingerprint()
                    ),
                    "remove that folder or choose another local one",
                ));
            }
            // Shards in this folder are still checked one by one before they are trusted.
            Err(_) => tracing::warn!(file = %path.display(), "replacing a damaged cached index"),
        },
        None => {}
    }
    publish(&path, text)
}

fn read_index(dir: &Path) -> Result<Option<Vec<u8>>> {
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
fn no_index(dir: &Path) -> Error {
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

fn private_dir() -> Result<TempDir> {
    tempfile::Builder::new()
        .prefix("mds-")
        .tempdir()
        .map_err(|e| Error::io(e, "cannot create a temporary folder for shards"))
}

/// The folders that the files of shards lie in, relative to the dataset's; that one comes first.
fn folders(index: &Index) -> Vec<PathBuf> {
    let files = index.shards.iter().flat_map(ShardInfo::files);
    let names = files.flat_map(|file| [Some(file.raw), file.zip]).flatten();
    let folder = |file: &FileInfo| {
        let path = file.basename.join_to(Path::new(""));
        path.parent().map(Path::to_path_buf).unwrap_or_default()
    };
    let folders: BTreeSet<PathBuf> = names.map(folder).chain([PathBuf::new()]).collect();
    folders.into_iter().collect()
}

/// Refuses a local folder that is no folder, or whose `index.json` would hide the splits of the remote.
fn check_local(local: &Path, location: &Location) -> Result<()> {
    if local.to_string_lossy().contains("://") {
        return Err(Error::invalid(
            format!("the local folder {} is a URL", local.display()),
            "give a folder of this machine; the remote comes first",
        ));
    }
    let holds = |folder: &Path| match (local.canonicalize(), folder.canonicalize()) {
        (Ok(local), Ok(folder)) => local != folder && folder.starts_with(local),
        _ => false,
    };
    match location.folder().filter(|folder| holds(folder)) {
        None => Ok(()),
        Some(folder) => Err(Error::invalid(
            format!(
                "the local folder {} holds the dataset {} itself",
                local.display(),
                folder.display()
            ),
            "give a folder outside of it, or none to read it in place",
        )),
    }
}

fn same_folder(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}
