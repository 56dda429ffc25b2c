//! What a writer that died left in its folder, and how far it can be used.
//!
//! Shards appear whole under their names, so each one that is there should be sound; it is checked
//! nevertheless, since without an index there is no other word for it.

use std::fs;
use std::io;
use std::path::Path;
use std::thread;

use serde_json::{Map, Value as Json};

use super::publish::{Publisher, Stored, meta_name};
use crate::durable;
use crate::format::{Index, IndexOptions, ShardInfo, ShardName, ShardTable};
use crate::storage::Remote;
use crate::{Error, ErrorKind, Result};

/// The shards that are sound and follow one another from the first.
pub(super) struct Recovered {
    pub(super) entries: Vec<ShardInfo>,
    /// The size of all their samples, in bytes.
    pub(super) bytes: u64,
    /// The data file of the last one, not compressed, with its table. Its entry is among `entries`.
    pub(super) last: Option<(Vec<u8>, ShardTable)>,
}

/// A sound shard.
struct Sound {
    entry: ShardInfo,
    raw: Vec<u8>,
    table: ShardTable,
}

/// Checks what is there, on up to `threads` threads, then removes what cannot be used: temporary
/// files, and shards from the first gap or damage on.
pub(super) fn recover(publisher: &Publisher, config: &str, threads: usize) -> Result<Recovered> {
    let found = list(publisher)?;
    let mut recovered = Recovered { entries: Vec::new(), bytes: 0, last: None };
    let mut sound = true;
    while sound {
        let first = recovered.entries.len() as u64;
        let numbers: Vec<u64> = (first..first + threads as u64).collect();
        let checked: Vec<Result<Option<Sound>>> = thread::scope(|scope| {
            let tasks: Vec<_> = numbers
                .iter()
                .map(|&number| scope.spawn(move || check(publisher, config, number)))
                .collect();
            let dead =
                || Error::new(ErrorKind::Io, "a thread that checks shards has died", "report it");
            tasks.into_iter().map(|task| task.join().unwrap_or_else(|_| Err(dead()))).collect()
        });
        for result in checked {
            let Some(Sound { entry, raw, table }) = result? else {
                sound = false;
                break;
            };
            recovered.bytes += (0..table.len()).map(|i| table.range(i).len() as u64).sum::<u64>();
            recovered.entries.push(entry);
            recovered.last = Some((raw, table));
        }
    }
    remove_rest(publisher, &found, recovered.entries.len() as u64)?;
    Ok(recovered)
}

/// The numbers of the shards in the folder.
fn list(publisher: &Publisher) -> Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for name in file_names(&publisher.folder)? {
        let Some(number) = name.strip_prefix("shard.").and_then(|rest| rest.split('.').next())
        else {
            continue;
        };
        let Ok(number) = number.parse() else { continue };
        let mut ours = publisher.stored_names(number);
        if !ours.by_ref().any(|ours| ours.as_str() == name) {
            let ours = publisher.stored_name(&publisher.name(number));
            return Err(Error::invalid(
                format!("the folder holds {name}, but these options write {ours}"),
                "resume with the options that the dataset was begun with",
            ));
        }
        numbers.push(number);
    }
    Ok(numbers)
}

fn remove_rest(publisher: &Publisher, found: &[u64], sound: u64) -> Result<()> {
    let remove = |name: &str| {
        let path = publisher.folder.join(name);
        fs::remove_file(&path)
            .map_err(|error| Error::io(error, format!("cannot remove {}", path.display())))
    };
    for &number in found.iter().filter(|&&number| number >= sound) {
        for name in publisher.stored_names(number) {
            if publisher.folder.join(name.as_str()).exists() {
                remove(name.as_str())?;
            }
        }
    }
    let names = file_names(&publisher.folder)?;
    names.iter().filter(|name| durable::is_leftover(name)).try_for_each(|name| remove(name))
}

/// The names of the plain files in a folder.
fn file_names(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
    let entries =
        entries.map_err(|error| Error::io(error, format!("cannot list {}", folder.display())))?;
    let files = entries.iter().filter(|e| e.file_type().is_ok_and(|kind| kind.is_file()));
    Ok(files.filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

/// Reads and checks a shard. `None` if it is not there or is damaged.
fn check(publisher: &Publisher, config: &str, number: u64) -> Result<Option<Sound>> {
    let name = publisher.name(number);
    match open(publisher, &name, config) {
        Ok(sound) => Ok(sound),
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            let error = error.in_shard(&name);
            tracing::warn!(%error, "a damaged shard is written again");
            Ok(None)
        }
        Err(error) => Err(error.in_shard(&name)),
    }
}

fn open(publisher: &Publisher, name: &ShardName, config: &str) -> Result<Option<Sound>> {
    let Some((raw, data)) = read(publisher, name)? else { return Ok(None) };
    let meta = match publisher.config.format.has_meta() {
        false => None,
        true => match read(publisher, &meta_name(name))? {
            Some(meta) => Some(meta),
            None => return Ok(None),
        },
    };
    let head = meta.as_ref().map_or(&raw, |(meta, _)| meta);
    let samples = ShardTable::claimed_samples(head);
    let table = match &meta {
        None => ShardTable::parse(&raw, samples)?,
        Some((meta, _)) => ShardTable::parse_meta(meta, samples, raw.len() as u64)?,
    };
    let found = table.config_text(head, meta.is_some());
    if found != config.as_bytes() {
        return Err(difference(found, config));
    }
    let entry = publisher.entry(data, meta.map(|(_, stored)| stored), table.len() as u32);
    Ok(Some(Sound { entry, raw, table }))
}

/// A raw file, and the entries of it and its compressed form; `None` if it is not there.
fn read(publisher: &Publisher, name: &ShardName) -> Result<Option<(Vec<u8>, Stored)>> {
    let path = publisher.stored_name(name).join_to(&publisher.folder);
    let file = match fs::read(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(error, format!("cannot read {}", path.display()))),
    };
    let (raw, zip) = match publisher.config.compression {
        None => (file, None),
        Some(compression) => (compression.decompress_unsized(&file)?, Some(file)),
    };
    let stored = publisher.describe(name.clone(), &raw, zip.as_deref());
    Ok(Some((raw, stored)))
}

/// Says in what the configuration of a shard differs from the one that would be written now.
fn difference(found: &[u8], expected: &str) -> Error {
    let remedy = "resume with the schema and the options that the dataset was begun with";
    let object = |text: &[u8]| serde_json::from_slice::<Map<String, Json>>(text).ok();
    let (Some(found), Some(expected)) = (object(found), object(expected.as_bytes())) else {
        return Error::invalid("the shard was not written by this writer", remedy);
    };
    let differing = expected.iter().find(|(key, value)| found.get(*key) != Some(value));
    match differing {
        Some((key, value)) => {
            let found = found.get(key).unwrap_or(&Json::Null);
            Error::invalid(format!("the shard was written with {key} {found}, not {value}"), remedy)
        }
        None => Error::invalid("the shard was not written by this writer", remedy),
    }
}

/// Whether a remote has the index of these shards: then only the local one is missing. A remote
/// whose index lists other shards holds another dataset and is refused.
pub(super) fn is_published(remote: &Remote, entries: &[ShardInfo]) -> Result<bool> {
    if remote.known_size(Index::FILE_NAME)?.is_none() {
        return Ok(false);
    }
    let text = remote.get(Index::FILE_NAME, Index::MAX_BYTES)?;
    // Who writes pickles gives their bytes.
    let same = Index::parse_with(&text, IndexOptions { pickle_bytes: true }).is_ok_and(|index| {
        let ours = Index { shards: entries.to_vec() };
        index.to_json() == ours.to_json()
    });
    if same {
        return Ok(true);
    }
    Err(Error::new(
        ErrorKind::AlreadyExists,
        format!("the remote {} holds another dataset", remote.address()),
        "choose another one, or delete it first if its data may go",
    ))
}

/// Uploads the shards that the remote lacks: those that are not there with the right size.
pub(super) fn upload_missing(publisher: &Publisher, entries: &[ShardInfo]) -> Result<()> {
    let Some(remote) = &publisher.remote else { return Ok(()) };
    for entry in entries {
        for file in entry.files().map(|file| file.stored()) {
            if remote.known_size(file.basename.as_str())? != Some(file.bytes) {
                publisher.upload(file).map_err(|error| error.in_shard(&file.basename))?;
            }
        }
    }
    Ok(())
}
