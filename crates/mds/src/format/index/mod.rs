//! `index.json`: the list of the shards of a dataset.
//!
//! The text is byte for byte that of Python's `json.dumps(index, sort_keys=True)`. An index from
//! outside may be hostile; nothing in a parsed [`Index`] can lead out of the dataset's directory.

mod text;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::compression::{Compression, MAX_SHARD_BYTES};
use super::config::ShardConfig;
use super::damage::Damage;
use super::hash::HashAlgorithm;
use super::json::to_python_json;
use super::name::ShardName;
use super::schema::Schema;
use super::text::Format;
use crate::{Error, Result};
use text::{IndexText, ShardText, VERSION, check_versions, not_an_index};

/// The shards of a dataset, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    /// The shards.
    pub shards: Vec<ShardInfo>,
}

/// What the index says of one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardInfo {
    /// Shared by the shards with the same columns, since an index may list a million of them.
    schema: Arc<Schema>,
    /// The layout of the samples.
    pub format: Format,
    /// The compression, if any.
    pub compression: Option<Compression>,
    /// The hashes of the files.
    pub hashes: Vec<HashAlgorithm>,
    /// The file before compression. If there is a compressed one, this one is not stored.
    pub raw_data: FileInfo,
    /// The compressed file, if any.
    pub zip_data: Option<FileInfo>,
    /// The file of offsets before compression, for formats [with one](Format::has_meta).
    pub raw_meta: Option<FileInfo>,
    /// The compressed file of offsets, if any.
    pub zip_meta: Option<FileInfo>,
    /// The number of samples; 0 is legal.
    pub samples: u64,
    /// The largest size of a shard before compression, in bytes, when it was written.
    pub size_limit: Option<u64>,
}

/// A file of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    /// The name, relative to the directory of the index.
    pub basename: ShardName,
    /// The size in bytes.
    pub bytes: u64,
    /// The digests in lower-case hexadecimal by the name of the hash.
    pub hashes: BTreeMap<String, String>,
}

impl FileInfo {
    /// The name, size and digests of a file with these contents.
    pub fn of(basename: ShardName, contents: &[u8], hashes: &[HashAlgorithm]) -> Self {
        let digests = hashes.iter().map(|hash| (hash.name().to_owned(), hash.hex(contents)));
        Self { basename, bytes: contents.len() as u64, hashes: digests.collect() }
    }

    /// Checks the size and every listed digest that this version knows.
    ///
    /// # Errors
    /// `Corrupt`, naming the file, at the first difference.
    pub fn verify(&self, contents: &[u8]) -> Result<()> {
        if contents.len() as u64 != self.bytes {
            let found = contents.len() as u64;
            return Err(self.differs(Damage::FileSize { found, declared: self.bytes }));
        }
        for (name, declared) in &self.hashes {
            let Ok(hash) = name.parse::<HashAlgorithm>() else { continue };
            let found = hash.hex(contents);
            if found != *declared {
                let (hash, declared) = (name.clone(), declared.clone());
                return Err(self.differs(Damage::FileHash { hash, found, declared }));
            }
        }
        Ok(())
    }

    fn differs(&self, damage: Damage) -> Error {
        Error::from(damage).in_shard(&self.basename)
    }
}

/// A file of a shard, before and after compression.
#[derive(Debug, Clone, Copy)]
pub struct ShardFile<'a> {
    /// Before compression.
    pub raw: &'a FileInfo,
    /// After compression, if there is one; then this is what the dataset stores.
    pub zip: Option<&'a FileInfo>,
}

impl<'a> ShardFile<'a> {
    /// The file that the dataset stores.
    pub fn stored(self) -> &'a FileInfo {
        self.zip.unwrap_or(self.raw)
    }
}

impl ShardInfo {
    /// An entry for a new shard: its data file and, for formats with one, its file of offsets,
    /// each with its compressed form if there is one.
    pub(crate) fn new(
        schema: Arc<Schema>,
        config: &ShardConfig,
        (raw_data, zip_data): (FileInfo, Option<FileInfo>),
        meta: Option<(FileInfo, Option<FileInfo>)>,
        samples: u32,
    ) -> Self {
        let (raw_meta, zip_meta) = meta.unzip();
        Self {
            schema,
            format: config.format.clone(),
            compression: config.compression,
            hashes: config.hashes.clone(),
            raw_data,
            zip_data,
            raw_meta,
            zip_meta: zip_meta.flatten(),
            samples: samples.into(),
            size_limit: config.size_limit,
        }
    }

    /// The columns.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// How the shard was written.
    pub fn config(&self) -> ShardConfig {
        ShardConfig {
            format: self.format.clone(),
            compression: self.compression,
            hashes: self.hashes.clone(),
            size_limit: self.size_limit,
        }
    }

    /// The data file that the dataset stores: the compressed one if there is one.
    pub fn stored(&self) -> &FileInfo {
        self.data().stored()
    }

    /// The data file.
    pub fn data(&self) -> ShardFile<'_> {
        ShardFile { raw: &self.raw_data, zip: self.zip_data.as_ref() }
    }

    /// The file of offsets, for formats with one.
    pub fn meta(&self) -> Option<ShardFile<'_>> {
        Some(ShardFile { raw: self.raw_meta.as_ref()?, zip: self.zip_meta.as_ref() })
    }

    /// Both files: the data and, for formats with one, the offsets.
    pub fn files(&self) -> impl Iterator<Item = ShardFile<'_>> {
        std::iter::once(self.data()).chain(self.meta())
    }

    /// The sizes of all files before compression together, in bytes.
    pub fn raw_bytes(&self) -> u64 {
        self.files().map(|file| file.raw.bytes).fold(0, u64::saturating_add)
    }

    /// The sizes of all files as they are stored together, in bytes.
    pub fn stored_bytes(&self) -> u64 {
        self.files().map(|file| file.stored().bytes).fold(0, u64::saturating_add)
    }

    /// The same shard seen from a directory further up: `folder` stands before every name.
    ///
    /// # Errors
    /// `Corrupt` if a name becomes too long.
    pub fn below(mut self, folder: &str) -> Result<Self> {
        let files = [
            Some(&mut self.raw_data),
            self.zip_data.as_mut(),
            self.raw_meta.as_mut(),
            self.zip_meta.as_mut(),
        ];
        for file in files.into_iter().flatten() {
            file.basename = ShardName::new(format!("{folder}/{}", file.basename))?;
        }
        Ok(self)
    }
}

/// What an index may hold besides what is safe by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IndexOptions {
    /// Take `pkl` columns, whose values then are the bytes of the pickles; they are never decoded.
    /// Default: a dataset with such a column is refused.
    pub pickle_bytes: bool,
}

impl Index {
    /// The name of the file.
    pub const FILE_NAME: &'static str = "index.json";

    /// The largest file that is read, in bytes: an entry takes a few hundred, so this is enough for
    /// two million shards.
    pub const MAX_BYTES: u64 = 1 << 30;

    /// Reads the text of an `index.json`.
    ///
    /// # Errors
    /// `Corrupt` if the text is not an index; `Unsupported` if its version is not 2 or it uses a
    /// format, an encoding, a compression or a hash that this version does not handle. A shard at
    /// fault is named.
    pub fn parse(text: &[u8]) -> Result<Self> {
        Self::parse_with(text, IndexOptions::default())
    }

    /// [`parse`](Self::parse) with a say in what is taken.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_with(text: &[u8], options: IndexOptions) -> Result<Self> {
        check_versions(text)?;
        let index: IndexText = serde_json::from_slice(text).map_err(|e| not_an_index(&e))?;
        let mut shards: Vec<ShardInfo> = Vec::with_capacity(index.shards.len());
        for (number, entry) in index.shards.into_iter().enumerate() {
            let name = entry.raw_data.basename.clone();
            let previous = shards.last().map(|shard| &shard.schema);
            let shard = entry.check(previous, options).map_err(|error| {
                if name.is_empty() { error.in_shard(number) } else { error.in_shard(name) }
            })?;
            shards.push(shard);
        }
        check_names(&shards)?;
        Ok(Self { shards })
    }

    /// The text of the index.
    pub fn to_json(&self) -> String {
        format!("{{\"shards\": [{}], \"version\": {VERSION}}}", self.entries())
    }

    /// The text of the index as the reference's `merge_index` writes it, which does not sort the
    /// two outer keys.
    pub fn to_merged_json(&self) -> String {
        format!("{{\"version\": {VERSION}, \"shards\": [{}]}}", self.entries())
    }

    /// The texts of the entries, made one by one: an index may list a million shards.
    fn entries(&self) -> String {
        let mut text = String::new();
        for (i, shard) in self.shards.iter().enumerate() {
            if i > 0 {
                text.push_str(", ");
            }
            text.push_str(&to_python_json(&ShardText::from(shard)));
        }
        text
    }

    /// The number of samples in all shards.
    pub fn samples(&self) -> u64 {
        // Saturates, since the counts of a hostile index may add up to anything.
        self.shards.iter().fold(0, |sum, shard| sum.saturating_add(shard.samples))
    }

    /// A short name for exactly these shards: the xxh3_128 of the [text](Self::to_json).
    pub fn fingerprint(&self) -> String {
        HashAlgorithm::Xxh3_128.hex(self.to_json().as_bytes())
    }
}

/// Refuses two entries for the same file: a cache would mix them up.
fn check_names(shards: &[ShardInfo]) -> Result<()> {
    let mut names = HashSet::with_capacity(shards.len());
    for (number, shard) in shards.iter().enumerate() {
        for file in shard.files().flat_map(|file| [Some(file.raw), file.zip]).flatten() {
            if !names.insert(file.basename.as_str()) {
                let name = file.basename.to_string();
                return Err(Error::from(Damage::DuplicateFile { name }).in_shard(number));
            }
        }
    }
    Ok(())
}

impl ShardInfo {
    /// Refuses an entry whose files do not fit its format and its compression.
    fn check_files(&self) -> Result<()> {
        if self.raw_meta.is_some() != self.format.has_meta() {
            let (has, says) = match self.raw_meta {
                Some(_) => ("has not", "has one"),
                None => ("has", "has none"),
            };
            let format = self.format.to_string();
            return Err(Damage::MetaFile { format, has, says }.into());
        }
        for zip in self.files().map(|file| file.zip) {
            let (has, lacks) = match (self.compression, zip) {
                (Some(_), None) => ("a compression", "a compressed file"),
                (None, Some(_)) => ("a compressed file", "a compression"),
                _ => continue,
            };
            return Err(Damage::HalfCompressed { has, lacks }.into());
        }
        Ok(())
    }

    /// Refuses more samples than there can be offsets for.
    fn check_samples(&self) -> Result<()> {
        let samples = self.samples;
        if samples > u64::from(u32::MAX) {
            return Err(Damage::TooManySamples { samples }.into());
        }
        for ShardFile { raw, .. } in self.files() {
            if raw.bytes > MAX_SHARD_BYTES {
                return Err(Damage::RawSize { declared: raw.bytes }.into());
            }
        }
        // The count, and one offset more than there are samples.
        let bytes = self.raw_meta.as_ref().unwrap_or(&self.raw_data).bytes;
        if 4 * (samples + 2) > bytes {
            return Err(Damage::SamplesBeyondSize { samples, bytes }.into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
