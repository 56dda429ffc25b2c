//! Sources at remotes: an object, a folder of objects, or those whose names fit a pattern.

use std::collections::HashMap;

use mds::storage::{Remote, RemoteOptions};

use super::files::meant;
use super::{Format, HUB_FOLDER, Place, SourceFile};
use crate::error::{Error, ErrorKind, Result};

/// A conversion reads for hours, and ends with the first part that does not come.
const ATTEMPTS: u32 = 10;

pub(super) fn open(address: &str) -> Result<Remote> {
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
    match folder.size(name).map_err(Error::of_remote)? {
        Some(bytes) => Ok(describe(folder, [(name.to_owned(), bytes)], format)),
        None => Err(missing(folder, &format!("no {name}"))),
    }
}

fn fitting(folder: &Remote, pattern: &str, format: &Format) -> Result<Vec<SourceFile>> {
    let pattern = glob::Pattern::new(pattern).map_err(|e| {
        Error::invalid(format!("{pattern} is not a pattern: {e}"), "correct or quote it")
    })?;
    let fits = |name: &String| !name.contains('/') && pattern.matches(name);
    let sizes = sizes(folder, format)?;
    let found = describe(folder, sizes.into_iter().filter(|(name, _)| fits(name)), format);
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
    for (path, bytes) in sizes(folder, format)? {
        match path.split_once('/') {
            None => own.push((path, bytes)),
            Some(_) if format.is_deep() => own.push((path, bytes)),
            Some((HUB_FOLDER, name)) if !name.contains('/') => nested.push((path, bytes)),
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

fn sizes(folder: &Remote, format: &Format) -> Result<HashMap<String, u64>> {
    if folder.can_list() {
        return folder.sizes().map_err(Error::of_remote);
    }
    Err(Error::invalid(
        format!("{} cannot be listed", folder.address()),
        format!("give the address of one file, which ends in {}", format.endings()),
    ))
}

/// The objects that can be read, in name order.
fn describe(
    folder: &Remote,
    found: impl IntoIterator<Item = (String, u64)>,
    format: &Format,
) -> Vec<SourceFile> {
    let described = found.into_iter().filter_map(|(path, bytes)| {
        Some(SourceFile {
            kind: format.kind_of(&path)?,
            name: format!("{}/{path}", folder.address().trim_end_matches('/')),
            bytes,
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
