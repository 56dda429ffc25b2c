//! What lies below a remote: its objects, and the folders that hold something.

use std::collections::HashMap;
use std::fs::{self, FileType};
use std::io;
use std::path::Path;
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::path::PathPart;
use percent_encoding::percent_decode_str;

use super::upload::timely;
use super::{Connection, ObjectStat, Remote, Root, Service, Stop, connect};
use crate::error::{Error, ErrorKind, Result};

/// Deeper than anybody nests datasets; ends a walk through folders that link to each other.
const MAX_DEPTH: usize = 16;

impl Remote {
    /// Whether what lies below can be listed: folders and buckets can, web servers and the hub cannot.
    pub fn can_list(&self) -> bool {
        match &self.root {
            Root::Folder(_) => true,
            Root::Store(connection) => connection.service == Service::Cloud,
        }
    }

    /// All objects below this folder, at any depth, as relative paths in order; none if there is no
    /// such folder.
    ///
    /// # Errors
    /// As [`folders_with`](Self::folders_with).
    pub fn objects(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        match &self.root {
            Root::Folder(folder) if !folder.exists() => {}
            Root::Folder(folder) => files(folder, "", 0, &mut found)?,
            Root::Store(connection) => {
                found
                    .extend(self.list(connection, &Stop::new())?.into_iter().map(|(path, _)| path));
            }
        }
        found.sort();
        Ok(found)
    }

    /// The sizes in bytes of all [`objects`](Self::objects).
    ///
    /// # Errors
    /// As [`folders_with`](Self::folders_with).
    pub fn sizes(&self) -> Result<HashMap<String, u64>> {
        self.sizes_until(&Stop::new())
    }

    /// [`sizes`](Self::sizes) that gives up when `stop` goes up.
    pub(crate) fn sizes_until(&self, stop: &Stop) -> Result<HashMap<String, u64>> {
        let stats = self.stats_until(stop)?.into_iter();
        Ok(stats.map(|(path, stat)| (path, stat.bytes)).collect())
    }

    /// The folders below this one, at any depth, that hold an object called `name`, as relative
    /// paths in order. What lies below such a folder belongs to it and is not listed.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) if the remote cannot list (plain HTTP, the hub); else as
    /// [`get`](Self::get).
    pub fn folders_with(&self, name: &str) -> Result<Vec<String>> {
        let is_there = |folder: &Path| Ok(folder.join(name).is_file());
        self.folders_where(&is_there, &|file| file == name, true)
    }

    /// All folders below this one that hold a file whose name is meant, those below such a folder too;
    /// else as [`folders_with`](Self::folders_with).
    ///
    /// # Errors
    /// As [`folders_with`](Self::folders_with).
    pub(crate) fn folders_holding(&self, is_meant: &dyn Fn(&str) -> bool) -> Result<Vec<String>> {
        let is_there = |folder: &Path| {
            let mut files = entries(folder)?.into_iter().filter(|(_, kind)| !kind.is_dir());
            Ok(files.any(|(name, _)| is_meant(&name)))
        };
        self.folders_where(&is_there, is_meant, false)
    }

    /// All folders or the outermost ones, by what is in one of this machine, or by the names of the files.
    fn folders_where(
        &self,
        is_there: &dyn Fn(&Path) -> Result<bool>,
        is_meant: &dyn Fn(&str) -> bool,
        are_outermost: bool,
    ) -> Result<Vec<String>> {
        let mut found = match &self.root {
            Root::Folder(folder) => {
                let mut found = Vec::new();
                for below in subfolders(folder)? {
                    walk(&folder.join(&below), &below, is_there, are_outermost, 1, &mut found)?;
                }
                found
            }
            Root::Store(connection) => {
                let objects = self.list(connection, &Stop::new())?;
                let paths = objects.iter().filter_map(|(path, _)| path.rsplit_once('/'));
                paths
                    .filter(|(_, file)| is_meant(file))
                    .map(|(folder, _)| folder.to_owned())
                    .collect()
            }
        };
        found.sort();
        found.dedup();
        if !are_outermost {
            return Ok(found);
        }
        // Sorted, a folder comes before those below it, though not always right before.
        let mut outermost: Vec<String> = Vec::with_capacity(found.len());
        for folder in found {
            let is_below = |outer: &String| {
                folder.strip_prefix(outer.as_str()).is_some_and(|rest| rest.starts_with('/'))
            };
            if !outermost.iter().rev().any(is_below) {
                outermost.push(folder);
            }
        }
        Ok(outermost)
    }

    /// The objects, and what is known of them.
    pub(super) fn list(
        &self,
        connection: &Connection,
        stop: &Stop,
    ) -> Result<Vec<(String, ObjectStat)>> {
        if connection.service != Service::Cloud {
            return Err(Error::unsupported(
                format!("{} cannot list its folders", self.shown),
                "name the folders, or work on the storage behind the web server",
            ));
        }
        let (store, prefix) = (Arc::clone(&connection.store), connection.prefix.clone());
        let limit = connect::request_limit(&self.options);
        let list = async move {
            let (mut objects, mut found) = (store.list(Some(&prefix)), Vec::new());
            // Each page in its time: there may be many.
            while let Some(object) = timely(limit, objects.try_next()).await? {
                let parts = object.location.prefix_match(&prefix).into_iter().flatten();
                // Undoes what `ObjectPath::from` did to the name.
                let plain = |part: PathPart<'_>| {
                    percent_decode_str(part.as_ref()).decode_utf8_lossy().into_owned()
                };
                let path = parts.map(plain).collect::<Vec<_>>().join("/");
                // What has the name of the folder itself marks one that was made by hand.
                if !path.is_empty() {
                    found.push((path, ObjectStat::of(&object)));
                }
            }
            Ok(found)
        };
        let listed = self.wait(list, stop)?;
        listed.map_err(|error: object_store::Error| self.failed(&self.shown, &error))
    }
}

/// The names of the folders in a folder. Symbolic links are not followed.
fn subfolders(folder: &Path) -> Result<Vec<String>> {
    let all = entries(folder)?.into_iter();
    Ok(all.filter_map(|(name, kind)| kind.is_dir().then_some(name)).collect())
}

/// What is in a folder, but for names that no address can have.
fn entries(folder: &Path) -> Result<Vec<(String, FileType)>> {
    let unreadable = |e: io::Error| Error::io(e, format!("cannot list {}", folder.display()));
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let kind = entry.file_type().map_err(unreadable)?;
        if let Ok(name) = entry.file_name().into_string() {
            found.push((name, kind));
        }
    }
    Ok(found)
}

/// Adds the files of a folder and of those below it.
fn files(folder: &Path, path: &str, depth: usize, found: &mut Vec<String>) -> Result<()> {
    for (name, kind) in entries(folder)? {
        let below = folder.join(&name);
        let path = if path.is_empty() { name } else { format!("{path}/{name}") };
        if !kind.is_dir() {
            found.push(path);
        } else if depth < MAX_DEPTH {
            files(&below, &path, depth + 1, found)?;
        } else {
            return Err(too_deep(&below));
        }
    }
    Ok(())
}

fn too_deep(folder: &Path) -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        format!("{} lies more than {MAX_DEPTH} folders deep", folder.display()),
        "give a folder further down",
    )
}

fn walk(
    folder: &Path,
    path: &str,
    is_there: &dyn Fn(&Path) -> Result<bool>,
    are_outermost: bool,
    depth: usize,
    found: &mut Vec<String>,
) -> Result<()> {
    if is_there(folder)? {
        found.push(path.to_owned());
        if are_outermost {
            return Ok(());
        }
    }
    if depth >= MAX_DEPTH {
        return Err(too_deep(folder));
    }
    for below in subfolders(folder)? {
        let path = format!("{path}/{below}");
        walk(&folder.join(&below), &path, is_there, are_outermost, depth + 1, found)?;
    }
    Ok(())
}
