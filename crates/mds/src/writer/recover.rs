//! What a writer that died left in its folder, and how far it can be used.
//!
//! Shards appear whole under their names, so each one that is there should be sound; it is checked
//! nevertheless, since without an index there is no other word for it.

use std::fs;
use std::io;
use std::path::Path;
use std::thread;

use serde_json::{Map, Value as Json};

use super::INDEX;
use super::publish::Publisher;
use crate::durable;
use crate::format::{Compression, Index, ShardInfo, ShardName, ShardTable};
use crate::storage::Remote;
use crate::{Error, ErrorKind, Result};

/// The shards that are sound and follow one another from the first.
pub(super) struct Recovered {
    pub(super) entries: Vec<ShardInfo>,
    /// The size of all their samples, in bytes.
    pub(super) bytes: u64,
    /// The last one, not compressed, with its table. Its entry is among `entries`.
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
        let ours = publisher.stored_name(&ShardName::numbered(number));
        if ours.as_str() != name {
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
        remove(publisher.stored_name(&ShardName::numbered(number)).as_str())?;
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
    let name = ShardName::numbered(number);
    let stored = publisher.stored_name(&name);
    let path = stored.join_to(&publisher.folder);
    let file = match fs::read(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(Error::io(error, format!("cannot read {}", path.display())));
        }
    };
    let opened = open(publisher, name, file, config);
    match opened.map_err(|error| error.in_shard(&stored)) {
        Ok(sound) => Ok(Some(sound)),
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            tracing::warn!(%error, "a damaged shard is written again");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn open(publisher: &Publisher, name: ShardName, file: Vec<u8>, config: &str) -> Result<Sound> {
    let (raw, zip) = match publisher.config.compression {
        None => (file, None),
        Some(compression) => (decompress(compression, &file)?, Some(file)),
    };
    let table = ShardTable::parse(&raw, ShardTable::claimed_samples(&raw))?;
    let found = table.config_text(&raw);
    if found != config.as_bytes() {
        return Err(difference(found, config));
    }
    let files = publisher.describe(name, &raw, zip.as_deref());
    let entry = publisher.entry(files, table.len() as u32);
    Ok(Sound { entry, raw, table })
}

/// The raw form of a compressed shard. Without an index, the file itself must say its size; no
/// shard takes more than 4 GiB.
fn decompress(compression: Compression, zip: &[u8]) -> Result<Vec<u8>> {
    // By name, so that a new compression is refused here until it is given its rule.
    let declared = match compression.extension() {
        "zstd" => zstd::zstd_safe::get_frame_content_size(zip).ok().flatten(),
        other => {
            return Err(Error::unsupported(
                format!("a dataset compressed with {other} cannot be resumed"),
                "write it again, or use zstd",
            ));
        }
    };
    let declared = declared.ok_or_else(|| {
        Error::corrupt("the compressed file does not say its size", "write the shard again")
    })?;
    compression.decompress(zip, declared)
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

/// Refuses a remote whose index lists other shards: it holds another dataset. The same shards mean
/// that only the local index is missing.
pub(super) fn check_remote(remote: &Remote, entries: &[ShardInfo]) -> Result<()> {
    if remote.size(INDEX)?.is_none() {
        return Ok(());
    }
    let text = remote.get(INDEX, MAX_INDEX_BYTES)?;
    let same = Index::parse(&text).is_ok_and(|index| {
        let ours = Index { shards: entries.to_vec() };
        index.to_json() == ours.to_json()
    });
    if same {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::AlreadyExists,
        format!("the remote {} holds another dataset", remote.address()),
        "choose another one, or delete it first if its data may go",
    ))
}

/// Far more than the index of a million shards takes.
const MAX_INDEX_BYTES: u64 = 4 << 30;

/// Uploads the shards that the remote lacks: those that are not there with the right size.
pub(super) fn upload_missing(publisher: &Publisher, entries: &[ShardInfo]) -> Result<()> {
    let Some(remote) = &publisher.remote else { return Ok(()) };
    for entry in entries {
        let file = entry.stored();
        if remote.size(file.basename.as_str())? != Some(file.bytes) {
            publisher.upload(&file.basename).map_err(|error| error.in_shard(&file.basename))?;
        }
    }
    Ok(())
}
