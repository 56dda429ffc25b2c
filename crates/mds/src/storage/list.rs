//! Finding the folders below a remote that hold something.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::ObjectMeta;

use super::{Connection, Remote, Root, Service, Stop};
use crate::error::{Error, ErrorKind, Result};

/// Deeper than anybody nests datasets; ends a walk through folders that link to each other.
const MAX_DEPTH: usize = 16;

impl Remote {
    /// The folders below this one, at any depth, that hold an object called `name`, as relative
    /// paths in order. What lies below such a folder belongs to it and is not listed.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) if the remote cannot list (plain HTTP, the hub); else as
    /// [`get`](Self::get).
    pub fn folders_with(&self, name: &str) -> Result<Vec<String>> {
        let mut found = match &self.root {
            Root::Folder(folder) => {
                let mut found = Vec::new();
                for below in subfolders(folder)? {
                    walk(&folder.join(&below), &below, name, 1, &mut found)?;
                }
                found
            }
            Root::Store(connection) => self.list_objects(connection, name)?,
        };
        found.sort();
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

    /// The objects directly in this folder with their sizes in bytes, by name.
    ///
    /// # Errors
    /// As [`folders_with`](Self::folders_with).
    pub fn objects(&self) -> Result<Vec<(String, u64)>> {
        let mut found = match &self.root {
            Root::Folder(folder) => files(folder)?,
            Root::Store(connection) => {
                self.refuse_to_list(connection)?;
                let (store, prefix) = (Arc::clone(&connection.store), connection.prefix.clone());
                let path = prefix.clone();
                let list = async move { store.list_with_delimiter(Some(&path)).await };
                let listed = self.wait(list, &Stop::new())?;
                let listed = listed.map_err(|error| self.failed(&self.shown, &error))?;
                // What has the name of the folder itself marks one that was made by hand.
                let named = |object: ObjectMeta| {
                    let name = object.location.prefix_match(&prefix)?.next()?.as_ref().to_owned();
                    Some((name, object.size))
                };
                listed.objects.into_iter().filter_map(named).collect()
            }
        };
        found.sort();
        Ok(found)
    }

    fn refuse_to_list(&self, connection: &Connection) -> Result<()> {
        if connection.service == Service::Cloud {
            return Ok(());
        }
        Err(Error::unsupported(
            format!("{} cannot list its folders", self.shown),
            "name the folders, or work on the storage behind the web server",
        ))
    }

    fn list_objects(&self, connection: &Connection, name: &str) -> Result<Vec<String>> {
        self.refuse_to_list(connection)?;
        let (store, prefix) = (Arc::clone(&connection.store), connection.prefix.clone());
        let suffix = format!("/{name}");
        let list = async move {
            let objects = store.list(Some(&prefix));
            let folders = objects.try_filter_map(|object| {
                let parts = object.location.prefix_match(&prefix);
                let path: Option<Vec<_>> =
                    parts.map(|parts| parts.map(|part| part.as_ref().to_owned()).collect());
                let path = path.unwrap_or_default().join("/");
                let folder = path.strip_suffix(&suffix).map(str::to_owned);
                futures::future::ready(Ok(folder))
            });
            folders.try_collect::<Vec<String>>().await
        };
        let listed = self.wait(list, &Stop::new())?;
        listed.map_err(|error| self.failed(&self.shown, &error))
    }
}

/// The names and sizes of the files in a folder.
fn files(folder: &Path) -> Result<Vec<(String, u64)>> {
    let unreadable = |e: io::Error| Error::io(e, format!("cannot list {}", folder.display()));
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let metadata = entry.path().metadata().map_err(unreadable)?;
        if metadata.is_file()
            && let Ok(name) = entry.file_name().into_string()
        {
            found.push((name, metadata.len()));
        }
    }
    Ok(found)
}

/// The names of the folders in a folder. Symbolic links are not followed.
fn subfolders(folder: &Path) -> Result<Vec<String>> {
    let unreadable = |e: io::Error| Error::io(e, format!("cannot list {}", folder.display()));
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if entry.file_type().map_err(unreadable)?.is_dir()
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    Ok(names)
}

fn walk(
    folder: &Path,
    path: &str,
    name: &str,
    depth: usize,
    found: &mut Vec<String>,
) -> Result<()> {
    if folder.join(name).is_file() {
        found.push(path.to_owned());
        return Ok(());
    }
    if depth >= MAX_DEPTH {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("{} lies more than {MAX_DEPTH} folders deep", folder.display()),
            "give a folder further down",
        ));
    }
    for below in subfolders(folder)? {
        walk(&folder.join(&below), &format!("{path}/{below}"), name, depth + 1, found)?;
    }
    Ok(())
}
