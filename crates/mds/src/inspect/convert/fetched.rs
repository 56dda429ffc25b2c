//! Files of other programs at a remote, brought to this machine before they are read: their formats
//! are read from the end, or twice.

use std::path::{Path, PathBuf};

use mds::storage::{Remote, RemoteOptions};
use mds::{ErrorKind, Result};
use tempfile::TempDir;

use super::files::{Kind, Place};
use super::parts;
use super::stop::StopSignal;

/// Files at a remote, and the folder that they were brought to.
pub(super) struct Fetched {
    pub(super) places: Vec<Place>,
    /// Removed with what is in it when this is dropped.
    pub(super) folder: TempDir,
}

/// The file that an address names; `None` if that is no file of a kind that is read.
pub(super) fn file(address: &str, stop: &StopSignal) -> Result<Option<Fetched>> {
    let remote = Remote::open(address, RemoteOptions::default())?;
    // What messages call it ends with its name.
    let name = remote.address().rsplit('/').next().unwrap_or_default().to_owned();
    if remote.folder().is_some() || Kind::of(Path::new(&name)).is_none() {
        return Ok(None);
    }
    match remote.size("")? {
        None => Ok(None),
        Some(_) => fetch(&remote, vec![String::new()], &[name], stop).map(Some),
    }
}

/// The Parquet files in a remote's folder, in the order of their names; `None` if there are none, or
/// the remote cannot list.
pub(super) fn folder(address: &str, stop: &StopSignal) -> Result<Option<Fetched>> {
    let remote = Remote::open(address, RemoteOptions::default())?;
    let objects = match remote.objects() {
        Ok(objects) => objects,
        Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(None),
        Err(error) => return Err(error),
    };
    let is_meant =
        |name: &String| !name.contains('/') && Kind::of(Path::new(name)) == Some(Kind::Parquet);
    let names: Vec<_> = objects.into_iter().filter(is_meant).collect();
    if names.is_empty() {
        return Ok(None);
    }
    parts::refuse_cut_off(names.iter().map(String::as_str), &remote.address())?;
    fetch(&remote, names.clone(), &names, stop).map(Some)
}

/// Brings objects into files of the given names.
fn fetch(
    remote: &Remote,
    objects: Vec<String>,
    names: &[String],
    stop: &StopSignal,
) -> Result<Fetched> {
    let folder = stop.temporary_folder()?;
    let mut places = Vec::with_capacity(names.len());
    for (object, name) in objects.iter().zip(names) {
        let path: PathBuf = folder.path().join(name);
        remote.get_file(object, &path)?;
        let root = remote.address().trim_end_matches('/');
        let shown = if object.is_empty() { root.to_owned() } else { format!("{root}/{object}") };
        places.push(Place { path, shown });
    }
    Ok(Fetched { places, folder })
}
