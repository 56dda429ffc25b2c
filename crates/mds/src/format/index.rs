//! `index.json`: the list of the shards of a dataset.
//!
//! The text is byte for byte that of Python's `json.dumps(index, sort_keys=True)`. An index from
//! outside may be hostile; nothing in a parsed [`Index`] can lead out of the dataset's directory.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::compression::Compression;
use super::hash::HashAlgorithm;
use super::json::to_python_json;
use super::name::ShardName;
use super::schema::{Column, Schema};
use crate::{Error, Result};

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
    /// The compression, if any.
    pub compression: Option<Compression>,
    /// The hashes of the files.
    pub hashes: Vec<HashAlgorithm>,
    /// The file before compression. If there is a compressed one, this one is not stored.
    pub raw_data: FileInfo,
    /// The compressed file, if any.
    pub zip_data: Option<FileInfo>,
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
            return Err(self.differs(format!(
                "the file has {} bytes, but the index declares {}",
                contents.len(),
                self.bytes
            )));
        }
        for (name, declared) in &self.hashes {
            let Ok(hash) = name.parse::<HashAlgorithm>() else { continue };
            let found = hash.hex(contents);
            if found != *declared {
                return Err(self.differs(format!(
                    "the {name} of the file is {found}, but the index declares {declared}"
                )));
            }
        }
        Ok(())
    }

    fn differs(&self, what: String) -> Error {
        Error::corrupt(what, "fetch the shard again, or write it again from its source")
            .in_shard(&self.basename)
    }
}

impl ShardInfo {
    /// An entry for a new shard.
    pub(crate) fn new(
        schema: Arc<Schema>,
        config: &super::ShardConfig,
        raw_data: FileInfo,
        zip_data: Option<FileInfo>,
        samples: u32,
    ) -> Self {
        Self {
            schema,
            compression: config.compression,
            hashes: config.hashes.clone(),
            raw_data,
            zip_data,
            samples: samples.into(),
            size_limit: config.size_limit,
        }
    }

    /// The columns.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// The file that the dataset stores: the compressed one if there is one.
    pub fn stored(&self) -> &FileInfo {
        self.zip_data.as_ref().unwrap_or(&self.raw_data)
    }
}

impl Index {
    /// Reads the text of an `index.json`.
    ///
    /// # Errors
    /// `Corrupt` if the text is not an index; `Unsupported` if its version is not 2 or it uses a
    /// format, an encoding, a compression or a hash that this version does not handle. A shard at
    /// fault is named.
    pub fn parse(text: &[u8]) -> Result<Self> {
        check_versions(text)?;
        let index: IndexText = serde_json::from_slice(text).map_err(not_an_index)?;
        let mut shards: Vec<ShardInfo> = Vec::with_capacity(index.shards.len());
        for (number, entry) in index.shards.into_iter().enumerate() {
            let name = entry.raw_data.basename.clone();
            let previous = shards.last().map(|shard| &shard.schema);
            let shard = entry.check(previous).map_err(|error| {
                if name.is_empty() { error.in_shard(number) } else { error.in_shard(name) }
            })?;
            shards.push(shard);
        }
        Ok(Self { shards })
    }

    /// The text of the index.
    pub fn to_json(&self) -> String {
        let shards = self.shards.iter().map(ShardText::from).collect();
        to_python_json(&IndexText { shards, version: VERSION })
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

const VERSION: u64 = 2;

/// The whole text. Fields in the order of `sort_keys=True`, here and below.
#[derive(Serialize, Deserialize)]
struct IndexText {
    shards: Vec<ShardText>,
    version: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShardText {
    column_encodings: Vec<String>,
    column_names: Vec<String>,
    column_sizes: Vec<Option<u32>>,
    compression: Option<String>,
    format: String,
    hashes: Vec<String>,
    raw_data: FileText,
    samples: u64,
    size_limit: Option<u64>,
    version: u64,
    zip_data: Option<FileText>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    basename: String,
    bytes: u64,
    hashes: BTreeMap<String, String>,
}

/// Looks only at versions and formats, since entries of another version or format may have other
/// fields.
fn check_versions(text: &[u8]) -> Result<()> {
    #[derive(Deserialize)]
    struct Probe {
        #[serde(default)]
        version: Json,
        #[serde(default)]
        shards: Vec<ShardProbe>,
    }
    #[derive(Deserialize)]
    struct ShardProbe {
        #[serde(default)]
        version: Json,
        #[serde(default)]
        format: Json,
    }
    let probe: Probe = serde_json::from_slice(text).map_err(not_an_index)?;
    let check = |version: &Json, what: &str| {
        if *version == Json::from(VERSION) {
            return Ok(());
        }
        Err(Error::unsupported(
            format!("{what} has version {version}, but only version 2 is supported"),
            "write the dataset with a writer of MDS version 2",
        ))
    };
    check(&probe.version, "the index")?;
    for (number, shard) in probe.shards.iter().enumerate() {
        check(&shard.version, "the entry of the shard").map_err(|error| error.in_shard(number))?;
        if shard.format != Json::from("mds") {
            return Err(Error::unsupported(
                format!(
                    "the shard has the format {}, which this version cannot read",
                    shard.format
                ),
                "write the dataset as MDS",
            )
            .in_shard(number));
        }
    }
    Ok(())
}

fn not_an_index(error: serde_json::Error) -> Error {
    // The text of serde_json ends with the line and the column.
    damaged(format!("the index is empty or damaged: {error}"))
}

impl ShardText {
    fn check(self, previous: Option<&Arc<Schema>>) -> Result<ShardInfo> {
        let schema = self.schema()?;
        let schema = match previous {
            Some(previous) if **previous == schema => Arc::clone(previous),
            _ => Arc::new(schema),
        };
        let shard = ShardInfo {
            schema,
            compression: self.compression.as_deref().map(str::parse).transpose()?,
            hashes: self.hashes.iter().map(|name| name.parse()).collect::<Result<_>>()?,
            raw_data: self.raw_data.check()?,
            zip_data: self.zip_data.map(FileText::check).transpose()?,
            samples: self.samples,
            size_limit: self.size_limit,
        };
        if shard.compression.is_some() != shard.zip_data.is_some() {
            let (has, lacks) = match shard.compression {
                Some(_) => ("a compression", "a compressed file"),
                None => ("a compressed file", "a compression"),
            };
            return Err(damaged(format!("the entry of the shard has {has}, but not {lacks}")));
        }
        if shard.samples > u64::from(u32::MAX) {
            return Err(damaged(format!("the shard cannot hold {} samples", shard.samples)));
        }
        Ok(shard)
    }

    fn schema(&self) -> Result<Schema> {
        let (names, encodings, sizes) =
            (&self.column_names, &self.column_encodings, &self.column_sizes);
        if names.len() != encodings.len() || names.len() != sizes.len() {
            return Err(damaged(format!(
                "the shard has {} column names, {} encodings and {} sizes",
                names.len(),
                encodings.len(),
                sizes.len()
            )));
        }
        let columns = names.iter().zip(encodings).map(|(name, encoding)| {
            let encoding = encoding.parse().map_err(|error: Error| error.in_column(name))?;
            Ok(Column { name: name.clone(), encoding })
        });
        let schema = Schema::in_given_order(columns.collect::<Result<_>>()?)
            .map_err(|error| damaged(error.what()))?;
        for (column, &declared) in schema.columns().iter().zip(sizes) {
            // The reference reads a size of 0 as variable too.
            if declared.filter(|&size| size != 0) != column.encoding.size() {
                return Err(damaged(format!(
                    "the index declares the size {}, but the encoding {} has {}",
                    size_text(declared),
                    column.encoding,
                    size_text(column.encoding.size())
                ))
                .in_column(&column.name));
            }
        }
        Ok(schema)
    }
}

fn size_text(size: Option<u32>) -> String {
    size.map_or_else(|| "null".to_owned(), |size| size.to_string())
}

fn damaged(what: impl Into<String>) -> Error {
    Error::corrupt(what, "fetch index.json again, or write the dataset again")
}

impl FileText {
    fn check(self) -> Result<FileInfo> {
        let basename = ShardName::new(self.basename)?;
        Ok(FileInfo { basename, bytes: self.bytes, hashes: self.hashes })
    }
}

impl From<&ShardInfo> for ShardText {
    fn from(shard: &ShardInfo) -> Self {
        let columns = shard.schema.columns();
        Self {
            column_encodings: columns.iter().map(|c| c.encoding.to_string()).collect(),
            column_names: columns.iter().map(|c| c.name.clone()).collect(),
            column_sizes: shard.schema.sizes().to_vec(),
            compression: shard.compression.map(|c| c.to_string()),
            format: "mds".to_owned(),
            hashes: shard.hashes.iter().map(|hash| hash.name().to_owned()).collect(),
            raw_data: FileText::from(&shard.raw_data),
            samples: shard.samples,
            size_limit: shard.size_limit,
            version: VERSION,
            zip_data: shard.zip_data.as_ref().map(FileText::from),
        }
    }
}

impl From<&FileInfo> for FileText {
    fn from(file: &FileInfo) -> Self {
        Self {
            basename: file.basename.as_str().to_owned(),
            bytes: file.bytes,
            hashes: file.hashes.clone(),
        }
    }
}
