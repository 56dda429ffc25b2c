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
        if version.as_u64() == Some(VERSION) {
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
        if shard.format != "mds" {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    const REMEDY: &str = "fetch index.json again, or write the dataset again";

    /// As the reference writes it.
    const ONE_SHARD: &str = r#"{"shards": [{"column_encodings": ["str", "int"], "column_names": ["a", "\u00e9"], "column_sizes": [null, 8], "compression": "zstd:7", "format": "mds", "hashes": ["sha1"], "raw_data": {"basename": "shard.00000.mds", "bytes": 300, "hashes": {"sha1": "00"}}, "samples": 3, "size_limit": 1024, "version": 2, "zip_data": {"basename": "shard.00000.mds.zstd", "bytes": 200, "hashes": {"sha1": "11"}}}], "version": 2}"#;

    fn replaced(from: &str, to: &str) -> String {
        assert!(ONE_SHARD.contains(from), "{from}");
        ONE_SHARD.replacen(from, to, 1)
    }

    fn message(text: &str, kind: ErrorKind) -> String {
        let error = Index::parse(text.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        error.to_string()
    }

    #[test]
    fn the_text_round_trips_byte_for_byte() {
        let index = Index::parse(ONE_SHARD.as_bytes()).unwrap();
        assert_eq!(index.to_json(), ONE_SHARD);
        assert_eq!(index.samples(), 3);
        assert_eq!(index.shards[0].stored().basename.as_str(), "shard.00000.mds.zstd");
        assert_eq!(index.shards[0].schema().position("é"), Some(1));
        let empty = r#"{"shards": [], "version": 2}"#;
        assert_eq!(Index::default().to_json(), empty);
        assert_eq!(Index::parse(empty.as_bytes()).unwrap(), Index::default());
    }

    #[test]
    fn the_fingerprint_does_not_depend_on_the_order_of_keys() {
        let merged = replaced(r#"{"shards": ["#, r#"{"version": 2, "shards": ["#)
            .replace(r#"], "version": 2}"#, "]}");
        let (a, b) = (Index::parse(ONE_SHARD.as_bytes()), Index::parse(merged.as_bytes()));
        let (a, b) = (a.unwrap().fingerprint(), b.unwrap().fingerprint());
        assert_eq!(a, b);
        assert_eq!(a.len(), 32);
        let other = Index::parse(replaced("\"samples\": 3", "\"samples\": 4").as_bytes()).unwrap();
        assert_ne!(a, other.fingerprint());
    }

    #[test]
    fn shards_with_the_same_columns_share_their_schema() {
        let entry =
            &ONE_SHARD["{\"shards\": [".len()..ONE_SHARD.len() - "], \"version\": 2}".len()];
        let text = format!("{{\"shards\": [{entry}, {entry}], \"version\": 2}}");
        let index = Index::parse(text.as_bytes()).unwrap();
        assert!(Arc::ptr_eq(index.shards[0].schema(), index.shards[1].schema()));
    }

    #[test]
    fn other_versions_and_formats_are_refused() {
        let remedy = "write the dataset with a writer of MDS version 2";
        for (text, version) in [
            (r#"{"shards": [], "version": 3}"#, "3"),
            (r#"{"version": 1, "shards": [{"unknown": 1, "version": 2, "format": "mds"}]}"#, "1"),
            (r#"{"shards": [], "version": "2"}"#, "\"2\""),
            (r#"{"shards": []}"#, "null"),
        ] {
            assert_eq!(
                message(text, ErrorKind::Unsupported),
                format!(
                    "the index has version {version}, but only version 2 is supported; {remedy}"
                )
            );
        }
        assert_eq!(
            message(&replaced("\"version\": 2,", "\"version\": 1,"), ErrorKind::Unsupported),
            format!(
                "shard 0: the entry of the shard has version 1, but only version 2 is supported; \
                 {remedy}"
            )
        );
        assert_eq!(
            message(&replaced("\"mds\"", "\"csv\""), ErrorKind::Unsupported),
            "shard 0: the shard has the format \"csv\", which this version cannot read; write the \
             dataset as MDS"
        );
    }

    #[test]
    fn damaged_texts_are_corrupt() {
        assert_eq!(
            message("", ErrorKind::Corrupt),
            format!(
                "the index is empty or damaged: EOF while parsing a value at line 1 column 0; \
                 {REMEDY}"
            )
        );
        let cut = &ONE_SHARD[..40];
        assert_eq!(
            message(cut, ErrorKind::Corrupt),
            format!(
                "the index is empty or damaged: EOF while parsing a value at line 1 column 40; \
                 {REMEDY}"
            )
        );
        let extra = replaced("\"samples\": 3", "\"samples\": 3, \"x\": 1");
        assert!(message(&extra, ErrorKind::Corrupt).contains("unknown field `x`"));
        for (from, to) in [
            ("\"samples\": 3", "\"samples\": -3"),
            ("\"samples\": 3", "\"samples\": 3.5"),
            ("\"samples\": 3, ", ""),
            ("\"bytes\": 300", "\"bytes\": \"300\""),
            ("[null, 8]", "[null, 99999999999]"),
        ] {
            let text = message(&replaced(from, to), ErrorKind::Corrupt);
            assert!(text.starts_with("the index is empty or damaged: "), "{text}");
        }
        for not_utf8 in [&b"\xff"[..], b"{\"shards\": [\"\xff\"]}", b"\0\0\0\0"] {
            assert_eq!(Index::parse(not_utf8).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }

    #[test]
    fn entries_that_contradict_themselves_are_corrupt() {
        let cases = [
            (
                r#"["str", "int"]"#,
                r#"["str"]"#,
                "the shard has 2 column names, 1 encodings and 2 sizes",
            ),
            (r#"["a", "\u00e9"]"#, r#"["a", "a"]"#, "the column \"a\" is declared twice"),
            (
                "\"samples\": 3",
                "\"samples\": 4294967296",
                "the shard cannot hold 4294967296 samples",
            ),
            (
                "\"zstd:7\"",
                "null",
                "the entry of the shard has a compressed file, but not a compression",
            ),
        ];
        for (from, to, what) in cases {
            assert_eq!(
                message(&replaced(from, to), ErrorKind::Corrupt),
                format!("shard shard.00000.mds: {what}; {REMEDY}")
            );
        }
        for (sizes, size, has) in [("[null, 4]", "4", "8"), ("[null, null]", "null", "8")] {
            assert_eq!(
                message(&replaced("[null, 8]", sizes), ErrorKind::Corrupt),
                format!(
                    "shard shard.00000.mds, column é: the index declares the size {size}, but the \
                     encoding int has {has}; {REMEDY}"
                )
            );
        }
        let zero = replaced("[null, 8]", "[0, 8]");
        assert!(Index::parse(zero.as_bytes()).is_ok(), "0 means variable");
    }

    #[test]
    fn what_this_version_does_not_handle_is_named() {
        assert_eq!(
            message(&replaced("\"str\"", "\"pkl\""), ErrorKind::Unsupported),
            "shard shard.00000.mds, column a: the encoding \"pkl\" cannot be read or written by \
             this version; store such values in a `bytes` column"
        );
        assert_eq!(
            message(&replaced("\"zstd:7\"", "\"lz4\""), ErrorKind::Unsupported),
            "shard shard.00000.mds: there is no compression \"lz4\"; use br, bz2, gz, snappy or \
             zstd, with a level where there is one (zstd:7), or no compression"
        );
    }

    #[test]
    fn names_that_leave_the_directory_are_refused() {
        for name in ["../shard.00000.mds", "/etc/passwd", "..\\\\x"] {
            let text = replaced("\"shard.00000.mds\"", &format!("\"{name}\""));
            assert_eq!(Index::parse(text.as_bytes()).unwrap_err().kind(), ErrorKind::Corrupt);
            let zip = replaced("\"shard.00000.mds.zstd\"", &format!("\"{name}\""));
            assert_eq!(Index::parse(zip.as_bytes()).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }

    #[test]
    fn counts_of_a_hostile_index_do_not_overflow() {
        let mut index = Index::parse(ONE_SHARD.as_bytes()).unwrap();
        index.shards[0].samples = u64::MAX;
        index.shards.push(index.shards[0].clone());
        assert_eq!(index.samples(), u64::MAX);
    }

    #[test]
    fn files_are_verified_by_size_and_hash() {
        let name = ShardName::new("shard.00000.mds").unwrap();
        let file = FileInfo::of(name, b"abc", &[HashAlgorithm::Xxh32]);
        assert!(file.verify(b"abc").is_ok());
        let remedy = "fetch the shard again, or write it again from its source";
        assert_eq!(
            file.verify(b"abcd").unwrap_err().to_string(),
            format!(
                "shard shard.00000.mds: the file has 4 bytes, but the index declares 3; {remedy}"
            )
        );
        assert_eq!(
            file.verify(b"abd").unwrap_err().to_string(),
            format!(
                "shard shard.00000.mds: the xxh32 of the file is {}, but the index declares \
                 32d153ff; {remedy}",
                HashAlgorithm::Xxh32.hex(b"abd")
            )
        );
    }
}
