//! Streaming datasets as sources: shards of this machine or at a remote, and one column of them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use mds::format::{DType, Encoding, HashAlgorithm, Index, NdArray, ShardInfo, Value};
use mds::storage::Remote;
use mds::{Shard, ShardOptions};

use super::chunk::{Chunk, Joined, Unit};
use super::{Chunks, Kind, Part, Place, SourceFile, joined, remote};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::Position;
use crate::statistics::{JSON_NAME, Statistics};

/// As a chunk of lines has.
const CHUNK_BYTES: usize = 256 << 10;

/// The columns that are looked for where none is named.
const COLUMNS: [&str; 2] = ["text", "tokens"];

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    Text,
    /// An array of whole numbers.
    Ids,
    /// Bytes that are 64-bit numbers, as llm-foundry wrote tokens at first.
    IdsAsBytes,
}

/// The shards of the dataset at `address`, a path or an address of the folder with its index.
pub(super) fn shards(address: &str, column: Option<&str>) -> Result<Vec<SourceFile>> {
    let folder = remote::open(address)?;
    let text = folder.get(Index::FILE_NAME, Index::MAX_BYTES).map_err(|e| match e.kind() {
        mds::ErrorKind::NotFound => Error::new(
            ErrorKind::NotFound,
            format!("there is no dataset: {} has no {}", folder.address(), Index::FILE_NAME),
            "give the folder of one split, such as ./c4/val",
        ),
        _ => Error::of_remote(e),
    })?;
    let index =
        Index::parse(&text).map_err(|e| Error::of_remote(e.in_dataset(folder.address())))?;
    let versions = Versions::of(&folder)?;
    let files = index.shards.into_iter().map(|shard| {
        let column = chosen(&shard, column, folder.address())?;
        Ok(SourceFile {
            name: format!(
                "{}/{}",
                folder.address().trim_end_matches('/'),
                shard.data().stored().basename
            ),
            bytes: shard.data().stored().bytes,
            version: versions.of_shard(&shard),
            kind: Kind::Shard(Arc::new(shard), column),
            place: Place::Folder(folder.clone()),
        })
    });
    files.collect()
}

/// What the dataset at `address` was made of, if it says so.
///
/// # Errors
/// As the remote fails.
pub(super) fn statistics(address: &str) -> Result<Option<Statistics>> {
    match remote::open(address)?.get(JSON_NAME, Index::MAX_BYTES) {
        // What is not of these programs, or of another version, says nothing.
        Ok(text) => Ok(serde_json::from_slice(&text).ok()),
        // Some clouds say so of an object that is not there.
        Err(e)
            if matches!(e.kind(), mds::ErrorKind::NotFound | mds::ErrorKind::PermissionDenied) =>
        {
            Ok(None)
        }
        Err(e) => Err(Error::of_remote(e)),
    }
}

/// What tells the versions of shards at a remote from others.
enum Versions {
    /// Of each object.
    Listed(HashMap<String, Option<String>>),
    /// Of the index alone, where nothing is listed and a request for each shard would be too much.
    Index(Option<String>),
}

impl Versions {
    /// Of a folder of this machine there are none here: files are looked at when they are read.
    fn of(folder: &Remote) -> Result<Self> {
        if folder.folder().is_some() {
            return Ok(Self::Index(None));
        }
        if folder.can_list() {
            match folder.stats() {
                Ok(stats) => {
                    let versions = stats.into_iter().map(|(name, stat)| (name, stat.version));
                    return Ok(Self::Listed(versions.collect()));
                }
                // Shards may be read where nothing may be listed.
                Err(error) if error.kind() == mds::ErrorKind::PermissionDenied => {}
                Err(error) => return Err(Error::of_remote(error)),
            }
        }
        // Not every server that gives objects says something of them alone.
        let index = folder.stat(Index::FILE_NAME).ok().flatten();
        Ok(Self::Index(index.and_then(|index| index.version)))
    }

    fn of_shard(&self, shard: &ShardInfo) -> Option<String> {
        match self {
            Self::Index(version) => version.clone(),
            Self::Listed(versions) => joined(
                shard
                    .files()
                    .map(|file| versions.get(file.stored().basename.as_str()).cloned().flatten()),
            ),
        }
    }
}

/// When the files of a shard in the folder were changed last.
pub(super) fn modified(folder: &Path, shard: &ShardInfo) -> Option<String> {
    let served = shard.files().map(|file| file.served_in(folder).stored());
    joined(served.map(|file| super::modified(&folder.join(file.basename.as_str()))))
}

/// What the index says of a shard, in short.
pub(super) fn entry(shard: &ShardInfo) -> String {
    let alone = Index { shards: vec![shard.clone()] }.to_json();
    format!("entry {}", HashAlgorithm::Xxh64.hex(alone.as_bytes()))
}

/// The column that is read.
fn chosen(shard: &ShardInfo, column: Option<&str>, address: &str) -> Result<String> {
    let schema = shard.schema();
    let has = |name: &str| schema.columns().iter().any(|column| column.name == name);
    let found = match column {
        Some(name) => has(name).then_some(name),
        None => COLUMNS.into_iter().find(|name| has(name)),
    };
    found.map(str::to_owned).ok_or_else(|| {
        let names: Vec<&str> = schema.columns().iter().map(|column| column.name.as_str()).collect();
        let wanted =
            column.map_or_else(|| "\"text\" or \"tokens\"".to_owned(), |c| format!("{c:?}"));
        Error::invalid(
            format!("{address} has no column {wanted}, but {}", names.join(", ")),
            "name the column with the text or the tokens with --column",
        )
    })
}

/// The samples of one shard from `from` on.
pub(super) fn part(
    name: Arc<str>,
    folder: Remote,
    shard: Arc<ShardInfo>,
    column: String,
    from: Position,
) -> Part {
    Part::new(name, move |meter| {
        let stored = shard.data().stored().bytes;
        let holds = holds(&shard, &column)?;
        let opened = match folder.folder() {
            Some(local) => Shard::open(local, &shard, ShardOptions::default()),
            None => Shard::fetch(&folder, &shard),
        };
        let reader = ShardReader {
            address: folder.address().to_owned(),
            name: shard.data().stored().basename.to_string(),
            shard: opened.map_err(|e| Error::of_remote(e.in_dataset(folder.address())))?,
            column,
            holds,
            place: from,
        };
        // It is read at once, so it counts at once.
        meter.pass_over(stored);
        Ok(Box::new(reader) as Chunks)
    })
}

fn holds(shard: &ShardInfo, column: &str) -> Result<Holds> {
    let schema = shard.schema();
    let encoding = schema.columns().iter().find(|c| c.name == column).map(|c| &c.encoding);
    match encoding {
        Some(Encoding::Str) => Ok(Holds::Text),
        Some(Encoding::NdArray { .. }) => Ok(Holds::Ids),
        Some(Encoding::Bytes) => Ok(Holds::IdsAsBytes),
        _ => {
            let found = encoding.map_or_else(String::new, ToString::to_string);
            Err(Error::invalid(
                format!("the column {column:?} holds {found}, neither text nor tokens"),
                "name the column with the text or the tokens with --column",
            ))
        }
    }
}

/// Whether the column holds token ids; one that cannot be read counts as text, and is refused where it is read.
pub(super) fn holds_ids(shard: &ShardInfo, column: &str) -> bool {
    matches!(holds(shard, column), Ok(Holds::Ids | Holds::IdsAsBytes))
}

struct ShardReader {
    /// Of the dataset.
    address: String,
    /// Of the shard.
    name: String,
    shard: Shard,
    column: String,
    holds: Holds,
    place: Position,
}

impl Iterator for ShardReader {
    type Item = Result<(Chunk, Position)>;

    fn next(&mut self) -> Option<Self::Item> {
        let chunk = match self.holds {
            Holds::Text => self.texts(),
            Holds::Ids | Holds::IdsAsBytes => self.ids(),
        };
        let named = |e: mds::Error| e.in_shard(&self.name).in_dataset(&self.address);
        let chunk = chunk.map_err(|e| Error::of_remote(named(e))).transpose()?;
        Some(chunk.map(|chunk| (chunk, self.place)))
    }
}

impl ShardReader {
    fn texts(&mut self) -> mds::Result<Option<Chunk>> {
        let (before, mut texts) = (self.place.units, Joined::default());
        // An empty text counts as well.
        let is_short =
            |texts: &Joined<u8>, count: u64| texts.items() + (count as usize) < CHUNK_BYTES;
        while (self.place.units as usize) < self.shard.len()
            && is_short(&texts, self.place.units - before)
        {
            let sample = self.shard.sample(self.place.units as usize)?;
            texts.push(sample.bytes(&self.column)?.iter().copied());
            self.place.units += 1;
        }
        let more = self.place.units > before;
        Ok(more.then(|| Chunk::samples(before, texts)))
    }

    fn ids(&mut self) -> mds::Result<Option<Chunk>> {
        let (before, mut ids) = (self.place.units, Joined::default());
        while (self.place.units as usize) < self.shard.len() && ids.items() < CHUNK_BYTES / 4 {
            let sample = self.shard.sample(self.place.units as usize)?;
            let array = match sample.value(&self.column)? {
                Value::NdArray(array) => array,
                _ => {
                    let bytes = sample.bytes(&self.column)?;
                    NdArray::new(DType::I64, vec![bytes.len() as u64 / 8], bytes)?
                }
            };
            ids.push(ids_of(&array, self.place.units)?);
            self.place.units += 1;
        }
        let more = self.place.units > before;
        Ok(more.then(|| Chunk::ids(Unit::Sample, before, ids)))
    }
}

/// The ids of sample `number`.
fn ids_of(array: &NdArray<'_>, number: u64) -> mds::Result<Vec<u32>> {
    let narrow = |numbers: Vec<i64>| numbers.into_iter().map(|id| u32::try_from(id).ok()).collect();
    let ids: Option<Vec<u32>> = array.to_vec_i64().ok().and_then(narrow);
    ids.ok_or_else(|| {
        mds::Error::new(
            mds::ErrorKind::InvalidArgument,
            "it holds numbers that are no token ids, which are whole ones from 0 to 2^32 - 1",
            "name the column with the tokens with --column",
        )
        .at_sample(number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_every_width_are_read() {
        let ids = |dtype, bytes: &'static [u8]| {
            let array = NdArray::new(dtype, vec![(bytes.len() / dtype.size()) as u64], bytes);
            ids_of(&array.unwrap(), 7).map_err(|e| e.to_string())
        };
        assert_eq!(ids(DType::U16, &[1, 0, 0xff, 0xff]).unwrap(), [1, 0xffff]);
        assert_eq!(ids(DType::I32, &[1, 2, 0, 0]).unwrap(), [0x201]);
        assert_eq!(ids(DType::I64, &[5, 0, 0, 0, 0, 0, 0, 0]).unwrap(), [5]);
        assert_eq!(
            ids(DType::I16, &[0xff, 0xff]).unwrap_err(),
            "sample 7: it holds numbers that are no token ids, which are whole ones from 0 to 2^32 - 1; name the \
             column with the tokens with --column"
        );
    }
}
