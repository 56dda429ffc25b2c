//! The JSON of an index: what its text may hold, and how an entry becomes a shard.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value as Json;

use super::super::config::ColumnsText;
use super::super::damage::Damage;
use super::super::encoding::Encoding;
use super::super::name::ShardName;
use super::super::schema::{Column, Schema};
use super::super::text::Format;
use super::{FileInfo, IndexOptions, ShardInfo};
use crate::{Error, Result};

pub(super) const VERSION: u64 = 2;

/// The whole text, once [`check_versions`] has seen to the version.
#[derive(Deserialize)]
pub(super) struct IndexText {
    pub(super) shards: Vec<ShardText>,
}

/// The entry of a shard, its fields in the order of `sort_keys=True`. Which of the optional ones
/// there are depends on the format.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the object of a shard")]
pub(super) struct ShardText {
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
    pub(super) raw_data: FileText,
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
#[serde(deny_unknown_fields, expecting = "the object of a file")]
pub(super) struct FileText {
    pub(super) basename: String,
    bytes: u64,
    hashes: BTreeMap<String, String>,
}

/// Looks only at versions and formats, since entries of another version or format may have other
/// fields.
pub(super) fn check_versions(text: &[u8]) -> Result<()> {
    #[derive(Deserialize)]
    struct Probe {
        #[serde(default)]
        version: Word,
        #[serde(default)]
        shards: Entries,
    }
    let Object(probe): Object<Probe> =
        serde_json::from_slice(text).map_err(|e| not_an_index(&e))?;
    check_version(&probe.version, "the index")?;
    match probe.shards.0 {
        Some((number, error)) => Err(error.in_shard(number)),
        None => Ok(()),
    }
}

/// The whole index as an object: derived code would take a list of the fields too.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with the fields `version` and `shards`")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(fields)).map(Object)
            }
        }
        deserializer.deserialize_map(Fields(PhantomData))
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
        #[serde(expecting = "the object of a shard")]
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

pub(super) fn not_an_index(error: &serde_json::Error) -> Error {
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

impl ShardText {
    pub(super) fn check(
        self,
        previous: Option<&Arc<Schema>>,
        options: IndexOptions,
    ) -> Result<ShardInfo> {
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
