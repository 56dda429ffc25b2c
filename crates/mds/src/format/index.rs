//! `index.json`: the list of the shards of a dataset.
//!
//! The text is byte for byte that of Python's `json.dumps(index, sort_keys=True)`. An index from
//! outside may be hostile; nothing in a parsed [`Index`] can lead out of the dataset's directory.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value as Json;

use super::compression::{Compression, MAX_SHARD_BYTES};
use super::config::{ColumnsText, ShardConfig};
use super::damage::Damage;
use super::encoding::Encoding;
use super::hash::HashAlgorithm;
use super::json::to_python_json;
use super::name::ShardName;
use super::schema::{Column, Schema};
use super::text::Format;
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
        let shards = self.shards.iter().map(ShardText::from).collect();
        to_python_json(&IndexText { shards, version: VERSION })
    }

    /// The text of the index as the reference's `merge_index` writes it, which does not sort the
    /// two outer keys.
    pub fn to_merged_json(&self) -> String {
        let shards = self.shards.iter().map(ShardText::from).collect();
        to_python_json(&MergedIndexText { version: VERSION, shards })
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

#[derive(Serialize)]
struct MergedIndexText {
    version: u64,
    shards: Vec<ShardText>,
}

/// The entry of a shard. Which of the optional fields there are depends on the format.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShardText {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    column_encodings: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    column_names: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    column_sizes: Option<Vec<Option<u32>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    columns: Option<BTreeMap<String, String>>,
    compression: Option<String>,
    format: String,
    hashes: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    newline: Option<String>,
    raw_data: FileText,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    raw_meta: Option<FileText>,
    samples: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    separator: Option<String>,
    size_limit: Option<u64>,
    version: u64,
    zip_data: Option<FileText>,
    /// `null`, not absent, for a format with two files that is not compressed.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "null_or_absent")]
    zip_meta: Option<Option<FileText>>,
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
        version: Word,
        #[serde(default)]
        shards: Entries,
    }
    let probe: Probe = serde_json::from_slice(text).map_err(|e| not_an_index(&e))?;
    check_version(&probe.version, "the index")?;
    match probe.shards.0 {
        Some((number, error)) => Err(error.in_shard(number)),
        None => Ok(()),
    }
}

fn check_version(version: &Word, what: &str) -> Result<()> {
    if version.0.as_u64() == Some(VERSION) {
        return Ok(());
    }
    Err(Error::unsupported(
        format!("{what} has version {}, but only version 2 is supported", version.0),
        "write the dataset with a writer of MDS version 2",
    ))
}

/// The first entry at fault and what is wrong with it. The entries are looked at one by one: a list
/// of millions of empty ones would take many times the memory of its text.
#[derive(Default)]
struct Entries(Option<(usize, Error)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Entry {
            #[serde(default)]
            version: Word,
            #[serde(default)]
            format: Word,
            #[serde(default)]
            column_names: Count,
            #[serde(default)]
            columns: Count,
        }
        struct OneByOne;
        impl<'de> Visitor<'de> for OneByOne {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a sequence")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Entries, A::Error> {
                let mut first = None;
                let mut number = 0;
                while let Some(entry) = list.next_element::<Entry>()? {
                    if first.is_none() {
                        let checked = check_version(&entry.version, "the entry of the shard")
                            .and_then(|()| check_format(&entry.format))
                            .and_then(|()| check_columns(&entry.column_names))
                            .and_then(|()| check_columns(&entry.columns));
                        first = checked.err().map(|error| (number, error));
                    }
                    number += 1;
                }
                Ok(Entries(first))
            }
        }
        deserializer.deserialize_seq(OneByOne)
    }
}

fn check_format(format: &Word) -> Result<()> {
    if FORMATS.iter().any(|name| format.0 == *name) {
        return Ok(());
    }
    Err(Error::unsupported(
        format!("the shard has the format {}, which does not exist", format.0),
        format!("write the dataset as one of {}", FORMATS.join(", ")),
    ))
}

/// Nobody has so many columns; an index of ten million takes gigabytes of memory.
const MAX_COLUMNS: u64 = 1 << 20;

fn check_columns(columns: &Count) -> Result<()> {
    match columns.0 {
        0..=MAX_COLUMNS => Ok(()),
        columns => Err(Damage::TooManyColumns { columns, limit: MAX_COLUMNS }.into()),
    }
}

/// How many items a list or an object has; 0 for anything else, which is found out later.
#[derive(Default)]
struct Count(u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Counter;
        impl<'de> Visitor<'de> for Counter {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list or an object")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Count, A::Error> {
                let mut count = 0;
                while list.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Count(count))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Count, A::Error> {
                let mut count = 0;
                while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Count(count))
            }

            fn visit_unit<E>(self) -> Result<Count, E> {
                Ok(Count(0))
            }
        }
        deserializer.deserialize_any(Counter)
    }
}

/// A number or a word, as far as it is needed to compare and to show it: lists and objects are
/// passed over, whatever their size, and texts are kept only if they are short.
#[derive(Default)]
struct Word(Json);

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Word;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<Word, E> {
                Ok(Word(Json::Null))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Word, E> {
                Ok(Word(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Word, E> {
                Ok(Word(value.into()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Word, E> {
                Ok(Word(value.into()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Word, E> {
                Ok(Word(value.into()))
            }

            fn visit_str<E>(self, text: &str) -> Result<Word, E> {
                Ok(Word(if text.len() > 100 { "...".into() } else { text.into() }))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Word, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Word("[...]".into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Word, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Word("{...}".into()))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

const FORMATS: [&str; 5] = ["mds", "json", "csv", "tsv", "xsv"];

fn not_an_index(error: &serde_json::Error) -> Error {
    // The text of serde_json ends with the line and the column.
    let mut reason = error.to_string();
    // It repeats a text that stands in the wrong place, which may be all of the index.
    if reason.len() > 1000 {
        let (head, tail) =
            (reason.floor_char_boundary(500), reason.ceil_char_boundary(reason.len() - 200));
        reason.replace_range(head..tail, " ... ");
    }
    Damage::NotAnIndex { reason }.into()
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

impl ShardText {
    fn check(self, previous: Option<&Arc<Schema>>, options: IndexOptions) -> Result<ShardInfo> {
        let format =
            Format::from_index(&self.format, self.separator.clone(), self.newline.clone())?;
        let schema = self.schema(&format, options)?;
        let schema = match previous {
            Some(previous) if **previous == schema => Arc::clone(previous),
            _ => Arc::new(schema),
        };
        let shard = ShardInfo {
            schema,
            format,
            compression: self.compression.as_deref().map(str::parse).transpose()?,
            hashes: self.hashes.iter().map(|name| name.parse()).collect::<Result<_>>()?,
            raw_data: self.raw_data.check()?,
            zip_data: self.zip_data.map(FileText::check).transpose()?,
            raw_meta: self.raw_meta.map(FileText::check).transpose()?,
            zip_meta: self.zip_meta.flatten().map(FileText::check).transpose()?,
            samples: self.samples,
            size_limit: self.size_limit,
        };
        shard.check_files()?;
        shard.check_samples()?;
        Ok(shard)
    }

    fn schema(&self, format: &Format, options: IndexOptions) -> Result<Schema> {
        let (names, encodings, sizes) = self.columns(format)?;
        if names.len() != encodings.len() || sizes.is_some_and(|sizes| sizes.len() != names.len()) {
            return Err(Damage::ColumnCounts {
                names: names.len(),
                encodings: encodings.len(),
                sizes: sizes.map_or(names.len(), <[_]>::len),
            }
            .into());
        }
        let columns = names.iter().zip(&encodings).map(|(name, encoding)| {
            let encoding = Encoding::from_index(encoding, options.pickle_bytes);
            let encoding = encoding.map_err(|error| error.in_column(name))?;
            Ok(Column { name: (*name).to_owned(), encoding })
        });
        let schema = Schema::in_given_order(columns.collect::<Result<_>>()?)
            .map_err(|error| Damage::Columns { reason: error.what().to_owned() })?;
        format.check(&schema).map_err(|error| {
            Error::unsupported(error.what(), error.remedy())
                .in_column(error.position().column.clone().unwrap_or_default())
        })?;
        for (column, &declared) in schema.columns().iter().zip(sizes.into_iter().flatten()) {
            // The reference reads a size of 0 as variable too.
            let expected = column.encoding.size();
            if declared.filter(|&size| size != 0) != expected {
                let encoding = column.encoding.to_string();
                let damage = Damage::ColumnSize { declared, encoding, expected };
                return Err(Error::from(damage).in_column(&column.name));
            }
        }
        Ok(schema)
    }

    /// The names, encodings and sizes of the columns, wherever the format has them.
    #[expect(clippy::type_complexity, reason = "three lists side by side")]
    fn columns(&self, format: &Format) -> Result<(Vec<&str>, Vec<&str>, Option<&[Option<u32>]>)> {
        let missing = |field: &str| {
            let reason = format!("an entry of the format {format} lacks the field `{field}`");
            Error::from(Damage::NotAnIndex { reason })
        };
        if let Format::Json { .. } = format {
            let columns = self.columns.as_ref().ok_or_else(|| missing("columns"))?;
            let names = columns.keys().map(String::as_str).collect();
            return Ok((names, columns.values().map(String::as_str).collect(), None));
        }
        fn texts(list: &[String]) -> Vec<&str> {
            list.iter().map(String::as_str).collect()
        }
        let names = self.column_names.as_deref().ok_or_else(|| missing("column_names"))?;
        let encodings =
            self.column_encodings.as_deref().ok_or_else(|| missing("column_encodings"))?;
        let sizes = match format {
            Format::Mds => {
                Some(self.column_sizes.as_deref().ok_or_else(|| missing("column_sizes"))?)
            }
            _ => None,
        };
        Ok((texts(names), texts(encodings), sizes))
    }
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

/// A field that is absent, `null` or there.
mod null_or_absent {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T: Serialize, S: Serializer>(
        value: &Option<Option<T>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().and_then(Option::as_ref).serialize(serializer)
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Option<T>>, D::Error> {
        Option::deserialize(deserializer).map(Some)
    }
}

impl FileText {
    fn check(self) -> Result<FileInfo> {
        let basename = ShardName::new(self.basename)?;
        Ok(FileInfo { basename, bytes: self.bytes, hashes: self.hashes })
    }
}

impl From<&ShardInfo> for ShardText {
    fn from(shard: &ShardInfo) -> Self {
        let ColumnsText { encodings, names, sizes, columns, newline, separator } =
            ColumnsText::new(&shard.format, &shard.schema);
        Self {
            column_encodings: encodings,
            column_names: names,
            column_sizes: sizes,
            columns,
            compression: shard.compression.map(|c| c.to_string()),
            format: shard.format.name().to_owned(),
            hashes: shard.hashes.iter().map(|hash| hash.name().to_owned()).collect(),
            newline,
            raw_data: FileText::from(&shard.raw_data),
            raw_meta: shard.raw_meta.as_ref().map(FileText::from),
            samples: shard.samples,
            separator,
            size_limit: shard.size_limit,
            version: VERSION,
            zip_data: shard.zip_data.as_ref().map(FileText::from),
            zip_meta: shard.format.has_meta().then(|| shard.zip_meta.as_ref().map(FileText::from)),
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
        let second = entry.replace("00000", "00001");
        let text = format!("{{\"shards\": [{entry}, {second}], \"version\": 2}}");
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
            message(&replaced("\"mds\"", "\"lance\""), ErrorKind::Unsupported),
            "shard 0: the shard has the format \"lance\", which does not exist; write the dataset as \
             one of mds, json, csv, tsv, xsv"
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
            "shard shard.00000.mds, column a: the encoding \"pkl\" is refused: loading a Python \
             pickle can run any code; store such values in a `bytes` column; to read their bytes \
             all the same, ask for pickle_bytes"
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
