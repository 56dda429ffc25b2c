//! What a conversion must not write over: its input, and whatever is no dataset of this program.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;

use mds::format::Index;

use crate::error::{Error, ErrorKind, Result};
use crate::statistics;

/// Whether the file `path`, or what it is a link to, lies in `folder`, which is canonical.
pub(super) fn is_in(path: &Path, folder: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().is_ok_and(|path| path.starts_with(folder));
    real(path) || path.parent().is_some_and(real)
}

/// Makes sure that nothing is at `target`, or nothing but a dataset that this program has made.
pub(super) fn refuse_to_lose(target: &Path) -> Result<()> {
    match fs::metadata(target) {
        Err(_) => return Ok(()),
        Ok(there) if !there.is_dir() => {
            return Err(kept(format!("{} is a file", target.display())));
        }
        Ok(_) => {}
    }
    let names = names_in(target)?;
    let is_ours = || target.join(Index::FILE_NAME).is_file() && has_statistics(target);
    let other = names.iter().find(|name| !is_of_dataset(target, name));
    match other {
        None if names.is_empty() || is_ours() => Ok(()),
        None => Err(kept(format!("{} is no dataset of this program", target.display()))),
        Some(name) => Err(kept(format!(
            "{} holds {}, which is of no dataset of this program",
            target.display(),
            name.to_string_lossy()
        ))),
    }
}

fn kept(what: String) -> Error {
    let remedy = "move it elsewhere, or write to another place";
    Error::new(
        ErrorKind::AlreadyExists,
        format!("{what}, and --reprocess replaces nothing else"),
        remedy,
    )
}

fn names_in(folder: &Path) -> Result<Vec<OsString>> {
    let failed = |e| Error::io(e, "list", folder);
    let entries = fs::read_dir(folder).map_err(failed)?;
    let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
    let mut names = names.collect::<std::io::Result<Vec<_>>>().map_err(failed)?;
    names.sort();
    Ok(names)
}

/// Whether they are those that this program writes, of whatever version.
fn has_statistics(folder: &Path) -> bool {
    let text = fs::read(folder.join(statistics::JSON_NAME)).unwrap_or_default();
    let read = serde_json::from_slice::<serde_json::Value>(&text);
    read.is_ok_and(|statistics| statistics.get("manifest").is_some())
}

/// Whether a dataset of this program has a file of this name, or a part that a task has written.
fn is_of_dataset(folder: &Path, name: &OsStr) -> bool {
    match name.to_str() {
        Some(Index::FILE_NAME | statistics::JSON_NAME | statistics::HTML_NAME) => true,
        Some(shard) if shard.starts_with("shard.") => {
            folder.join(shard).is_file() && is_name_of_shard(shard)
        }
        Some(part) if part.len() == 5 && part.bytes().all(|byte| byte.is_ascii_digit()) => {
            refuse_to_lose(&folder.join(part)).is_ok()
        }
        _ => false,
    }
}

/// Whether it is a name such as `shard.00012.mds`, or that with the ending of a compression.
fn is_name_of_shard(name: &str) -> bool {
    let mut parts = name.split('.').skip(1);
    let number = parts.next().unwrap_or_default();
    number.len() >= 5
        && number.bytes().all(|byte| byte.is_ascii_digit())
        && parts.next() == Some("mds")
        && parts.count() <= 1
}
