//! Where the files of one stream are: in a folder that is read in place, or in a cache that
//! mirrors a remote.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::index::{self, InUse};
use super::publish::{PartFile, sweep};
use super::{CacheOptions, relock, user};
use crate::error::{Error, Result};
use crate::format::{Damage, FileInfo, Index, ShardFile, ShardInfo};
use crate::scratch::ScratchFolder;
use crate::shard::{FileBytes, ShardOptions, check_bytes, inside, map, missing};
use crate::storage::{Location, Remote, Stop, check_split, is_address, redacted};

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
    private: Mutex<Option<ScratchFolder>>,
    /// The folders that files of shards lie in, below `dir`.
    folders: Vec<PathBuf>,
    /// Tells other processes that this one uses the cache.
    _in_use: Option<InUse>,
}

/// A stream's addresses, as a user gives them: with their keys, so not to be printed.
#[derive(Clone, Copy)]
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
        let text = index::read(&dir)?.ok_or_else(|| index::not_in(&dir))?;
        let index = Index::parse_with(&text, options.index).map_err(|e| e.in_dataset(&shown))?;
        let (folders, private) = (folders(&index), Mutex::new(None));
        Ok((Self { shown, dir, remote: None, private, folders, _in_use: None }, index))
    }

    fn mirror(
        remote: Remote,
        local: Option<PathBuf>,
        options: &CacheOptions,
    ) -> Result<(Self, Index)> {
        let shown = remote.address().to_owned();
        let dir = match local {
            Some(dir) => dir,
            None => user::folder_for(&remote)?,
        };
        let (index, in_use) = index::shared(&dir, &remote, options)?;
        let folders = folders(&index);
        folders.iter().for_each(|folder| sweep(&dir.join(folder)));
        let private = Mutex::new(None);
        Ok((
            Self { shown, dir, remote: Some(remote), private, folders, _in_use: Some(in_use) },
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

    /// Where shards are fetched from.
    pub(crate) fn remote(&self) -> Option<&Remote> {
        self.remote.as_ref()
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
        let is_raw = |file: ShardFile<'_>| file.served_in(&self.dir).zip.is_none();
        if files.cached || info.compression.is_none() || info.files().all(is_raw) {
            return Ok(files);
        }
        let mut private = relock(&self.private);
        let folder = match &mut *private {
            Some(folder) => folder,
            empty => empty.insert(private_folder()?),
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

    /// A raw file of the dataset that is read in place while the other file of its shard has to be
    /// unpacked; `None` if this one has to be unpacked or fetched, too.
    pub(crate) fn open_served_raw(
        &self,
        file: ShardFile<'_>,
        options: &CacheOptions,
    ) -> Result<Option<FileBytes>> {
        if self.is_cache() || file.served_in(&self.dir).zip.is_some() {
            return Ok(None);
        }
        let path = inside(&self.dir, &file.raw.basename)?;
        FileBytes::map_raw(&path, file.raw, shard_options(options), false)
    }

    /// Where a compressed file is kept in a cache.
    pub(crate) fn zip_path(&self, zip: &FileInfo) -> Result<Option<PathBuf>> {
        self.is_cache().then(|| inside(&self.dir, &zip.basename)).transpose()
    }

    /// The compressed file, mapped and checked: from the cache if it is there, else from the remote,
    /// in `part`. The flag says that it was downloaded.
    pub(crate) fn open_zip(
        &self,
        zip: &FileInfo,
        part: Option<&mut PartFile>,
        options: &CacheOptions,
        stop: &Stop,
    ) -> Result<(FileBytes, bool)> {
        let path = inside(&self.dir, &zip.basename)?;
        match FileBytes::map_raw(&path, zip, shard_options(options), false) {
            Ok(Some(bytes)) => return Ok((bytes, false)),
            Ok(None) => {}
            Err(error) => match (error.damage(), &self.remote) {
                (Some(damage), Some(_)) => {
                    tracing::warn!(file = %path.display(), %damage, "fetching it again");
                }
                (Some(damage), None) => {
                    return Err(damaged(&path.display().to_string(), damage.clone()));
                }
                (None, _) => return Err(error),
            },
        }
        let (Some(remote), Some(part)) = (&self.remote, part) else { return Err(missing(&path)) };
        remote.download(zip.basename.as_str(), part.file(), part.target(), zip.bytes, stop)?;
        let bytes = FileBytes::mapped(part.file())
            .map_err(|e| Error::io(e, format!("cannot read {}", path.display())))?;
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
        let Some(remote) = &self.remote else { return Err(index::not_in(&self.dir)) };
        remote.download(raw.basename.as_str(), part.file(), part.target(), raw.bytes, stop)?;
        self.check_raw(raw, part, options)
    }

    /// Compares a temporary raw file, downloaded or unpacked, with the index.
    pub(crate) fn check_raw(
        &self,
        raw: &FileInfo,
        part: &mut PartFile,
        options: &CacheOptions,
    ) -> Result<()> {
        let checked = map(part.file())
            .map_err(|e| Error::io(e, format!("cannot read {}", part.target().display())))
            .map(|map| check_bytes(&map, raw, options.validate_hash))?;
        let shown = || match &self.remote {
            Some(remote) => object(remote, raw),
            None => raw.basename.join_to(&self.dir).display().to_string(),
        };
        checked.map_err(|damage| damaged(&shown(), damage))
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

fn shard_options(options: &CacheOptions) -> ShardOptions {
    ShardOptions { validate_hash: options.validate_hash, copy: options.copy }
}

fn private_folder() -> Result<ScratchFolder> {
    ScratchFolder::create("mds-unpacked-")
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
    let text = local.to_string_lossy();
    if is_address(&text) {
        return Err(Error::invalid(
            format!("the local folder {} is a URL", redacted(&text)),
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
