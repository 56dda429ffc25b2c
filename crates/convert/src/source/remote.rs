//! Sources at remotes: an object, a folder of objects, or those whose names fit a pattern.

use std::collections::HashMap;
use std::path::Path;

use mds::storage::{ObjectStat, Remote, RemoteOptions};

use super::files::meant;
use super::{Format, HUB_FOLDER, Place, SourceFile, joined};
use crate::error::{Error, ErrorKind, Result};

/// A conversion reads for hours, and ends with the first part that does not come.
const ATTEMPTS: u32 = 10;

/// The remote at `address`, which is read for long.
pub(crate) fn open(address: &str) -> Result<Remote> {
    let options = RemoteOptions { attempts: ATTEMPTS, ..RemoteOptions::default() };
    Remote::open(address, options).map_err(Error::of_remote)
}

/// The files of a format at `address`, which is that of `there`, in name order.
pub(super) fn candidates(
    address: &str,
    there: &Remote,
    format: &Format,
) -> Result<Vec<SourceFile>> {
    // The address of a bucket alone has no last name.
    match mds::storage::split(address) {
        // Only what can be listed can be looked through.
        Ok((folder, name)) if there.can_list() && name.contains(['*', '[']) => {
            fitting(&open(&folder)?, &name, format)
        }
        Ok((folder, name)) if format.kind_of(&name).is_some() => {
            one(&open(&folder)?, &name, format)
        }
        _ => in_folder(there, format),
    }
}

fn one(folder: &Remote, name: &str, format: &Format) -> Result<Vec<SourceFile>> {
    let stat = |name: &str| folder.stat(name).map_err(Error::of_remote);
    let Some(mut found) = stat(name)? else {
        return Err(missing(folder, &format!("no {name}")));
    };
    if *format == Format::Indexed {
        let index = stat(&index_of(name))?;
        found.version = joined([found.version, index.and_then(|index| index.version)]);
    }
    Ok(describe(folder, [(name.to_owned(), found)], format))
}

fn fitting(folder: &Remote, pattern: &str, format: &Format) -> Result<Vec<SourceFile>> {
    let pattern = glob::Pattern::new(pattern).map_err(|e| {
        Error::invalid(format!("{pattern} is not a pattern: {e}"), "correct or quote it")
    })?;
    let fits = |name: &String| {
        !name.contains('/') && pattern.matches(name) && format.takes(name, pattern.as_str())
    };
    let stats = stats(folder, format)?;
    let found = describe(folder, stats.into_iter().filter(|(name, _)| fits(name)), format);
    if found.is_empty() {
        let endings = format.endings();
        return Err(missing(
            folder,
            &format!("no file that matches {pattern} and ends in {endings}"),
        ));
    }
    Ok(found)
}

fn in_folder(folder: &Remote, format: &Format) -> Result<Vec<SourceFile>> {
    let (mut own, mut nested) = (Vec::new(), Vec::new());
    for (path, stat) in stats(folder, format)? {
        if path.split('/').any(|name| format.leaves_out(name)) {
            continue;
        }
        match path.split_once('/') {
            None => own.push((path, stat)),
            Some(_) if format.is_deep() => own.push((path, stat)),
            Some((HUB_FOLDER, name)) if !name.contains('/') => nested.push((path, stat)),
            Some(_) => {}
        }
    }
    let mut found = describe(folder, own, format);
    if *format == Format::C4 {
        let nested = describe(folder, nested, format);
        found = meant(found, nested, |file| file.last_name().to_owned());
    }
    if found.is_empty() {
        return Err(missing(folder, &format!("no file that ends in {}", format.endings())));
    }
    Ok(found)
}

/// What lies in the folder. An indexed dataset is of another version if either of its files is.
fn stats(folder: &Remote, format: &Format) -> Result<HashMap<String, ObjectStat>> {
    if !folder.can_list() {
        return Err(Error::invalid(
            format!("{} cannot be listed", folder.address()),
            format!("give the address of one file, which ends in {}", format.endings()),
        ));
    }
    let mut stats = folder.stats().map_err(Error::of_remote)?;
    if *format == Format::Indexed {
        let indexes = stats.clone();
        for (name, stat) in &mut stats {
            let index = indexes.get(&index_of(name)).and_then(|index| index.version.clone());
            stat.version = joined([stat.version.take(), index]);
        }
    }
    Ok(stats)
}

/// The file beside the `.bin` of an indexed dataset.
fn index_of(name: &str) -> String {
    Path::new(name).with_extension("idx").to_string_lossy().into_owned()
}

/// The objects that can be read, in name order.
fn describe(
    folder: &Remote,
    found: impl IntoIterator<Item = (String, ObjectStat)>,
    format: &Format,
) -> Vec<SourceFile> {
    let described = found.into_iter().filter_map(|(path, stat)| {
        Some(SourceFile {
            kind: format.kind_of(&path)?,
            name: format!("{}/{path}", folder.address().trim_end_matches('/')),
            bytes: stat.bytes,
            version: stat.version,
            place: Place::Remote(folder.clone(), path),
        })
    });
    let mut files: Vec<_> = described.collect();
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files
}

fn missing(folder: &Remote, what: &str) -> Error {
    let what = format!("{} has {what}", folder.address());
    Error::new(ErrorKind::NotFound, what, "check the address")
}
