//! One shard, checked and mapped into memory.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

use crate::error::{Error, ErrorKind, Result};
use crate::format::{FileInfo, HashAlgorithm, Schema, ShardInfo, ShardTable};

/// A raw shard in memory whose size, header and offsets were checked against the index.
#[derive(Debug)]
pub(crate) struct MappedShard {
    map: Mmap,
    table: ShardTable,
    schema: Arc<Schema>,
    name: String,
    /// Holds a shared lock on a cached file, which keeps other processes from evicting it.
    _in_use: Option<File>,
}

impl MappedShard {
    /// Maps the shard at `path`; `None` if there is no such file.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt) if the file does not agree with `info`.
    pub(crate) fn open(path: &Path, info: &ShardInfo, options: MapOptions) -> Result<Option<Self>> {
        let unreadable = |e| Error::io(e, format!("cannot read {}", path.display()));
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(unreadable(e)),
        };
        if options.hold {
            // Waits only while another process looks whether the file is in use. Where there are
            // no locks, an evicted file still lives until it is unmapped.
            let _ = file.lock_shared();
        }
        let map = map(&file).map_err(unreadable)?;
        let damaged = |what: String| {
            Error::corrupt(format!("{} is damaged: {what}", path.display()), DAMAGED)
                .in_shard(&info.raw_data.basename)
        };
        check(&map, &info.raw_data, options.hash).map_err(damaged)?;
        let table = ShardTable::parse(&map, info.samples)
            .map_err(|e| e.in_shard(&info.raw_data.basename))?;
        Ok(Some(Self {
            map,
            table,
            schema: Arc::clone(info.schema()),
            name: info.raw_data.basename.to_string(),
            _in_use: options.hold.then_some(file),
        }))
    }

    /// The bytes of sample `position`.
    pub(crate) fn sample(&self, position: usize) -> Result<&[u8]> {
        self.table.sample(&self.map, position)
    }

    /// The columns of the shard.
    pub(crate) fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The name of the shard, as in the index.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// How to map a shard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MapOptions {
    /// Compare its hash with the index.
    pub(crate) hash: bool,
    /// Keep other processes from evicting it.
    pub(crate) hold: bool,
}

const DAMAGED: &str = "remove the file, so that it is fetched again, or write the dataset again";

/// What keeps `bytes` from being the file that `info` describes, if anything: its size always, its
/// hash where there is one and `hash` is set.
pub(crate) fn check(bytes: &[u8], info: &FileInfo, hash: bool) -> Result<(), String> {
    check_size(bytes.len() as u64, info)?;
    match quickest_hash(info).filter(|_| hash) {
        Some((algorithm, expected)) => check_hash(bytes, algorithm, expected),
        None => Ok(()),
    }
}

pub(crate) fn check_size(bytes: u64, info: &FileInfo) -> Result<(), String> {
    if bytes == info.bytes {
        return Ok(());
    }
    Err(format!("it has {bytes} bytes, but index.json says {}", info.bytes))
}

fn check_hash(bytes: &[u8], algorithm: HashAlgorithm, expected: &str) -> Result<(), String> {
    let found = algorithm.hex(bytes);
    if found == expected {
        return Ok(());
    }
    Err(format!("its {algorithm} is {found}, but index.json says {expected}"))
}

/// The recorded hash that is quickest to compute; one is enough to find damage.
fn quickest_hash(info: &FileInfo) -> Option<(HashAlgorithm, &str)> {
    const QUICK: [&str; 7] = ["xxh3_64", "xxh3_128", "xxh128", "xxh64", "xxh32", "sha1", "blake2b"];
    let rank = |name: &str| QUICK.iter().position(|quick| *quick == name).unwrap_or(QUICK.len());
    info.hashes
        .iter()
        .filter_map(|(name, hex)| Some((rank(name), name.parse().ok()?, hex.as_str())))
        .min_by_key(|(rank, ..)| *rank)
        .map(|(_, algorithm, hex)| (algorithm, hex))
}

/// Maps a whole file for reading.
pub(crate) fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the mapped bytes must not change or vanish while the map lives. Files of a cache are
    // written under another name, renamed when complete and afterwards only ever unlinked, which
    // leaves the mapped bytes in place; nothing in this crate opens a shard for writing. That the
    // owner of a dataset that is read in place does not truncate or rewrite it meanwhile is a
    // documented condition of `StreamingDataset::open`, as with every program that maps files.
    unsafe { Mmap::map(file) }
}

/// A shard that is in the index but not where it should be.
pub(crate) fn missing(path: &Path, info: &ShardInfo) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("{} does not exist, although index.json lists it", path.display()),
        "copy the file there or write the dataset again",
    )
    .in_shard(&info.raw_data.basename)
}
