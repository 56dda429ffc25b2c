//! How shards are written, and the text in each of them that says so.

use std::collections::BTreeMap;

use serde::Serialize;

use super::compression::Compression;
use super::hash::HashAlgorithm;
use super::json::to_python_json;
use super::schema::Schema;
use super::text::Format;

/// How shards are written. All of it is repeated in each shard and in the index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShardConfig {
    /// The layout of the samples. Default: MDS.
    pub format: Format,
    /// The compression of the files, if any.
    pub compression: Option<Compression>,
    /// The hashes of the files, in ascending order of their names.
    pub hashes: Vec<HashAlgorithm>,
    /// The largest size of a shard before compression, in bytes. `None` or 0 for no limit but that
    /// of the format, 4 GiB.
    pub size_limit: Option<u64>,
}

/// What describes the columns in a config and in an entry of the index. Each format has fields of
/// its own: MDS the sizes, JSON lines a map, the separated ones their separator and line end.
#[derive(Debug, Default)]
pub(super) struct ColumnsText {
    pub(super) encodings: Option<Vec<String>>,
    pub(super) names: Option<Vec<String>>,
    pub(super) sizes: Option<Vec<Option<u32>>>,
    pub(super) columns: Option<BTreeMap<String, String>>,
    pub(super) newline: Option<String>,
    pub(super) separator: Option<String>,
}

impl ColumnsText {
    pub(super) fn new(format: &Format, schema: &Schema) -> Self {
        let columns = schema.columns();
        let encodings = columns.iter().map(|column| column.encoding.to_string());
        let names = columns.iter().map(|column| column.name.clone());
        let newline = format.newline().map(str::to_owned);
        match format {
            Format::Json { .. } => {
                Self { columns: Some(names.zip(encodings).collect()), newline, ..Self::default() }
            }
            _ => Self {
                encodings: Some(encodings.collect()),
                names: Some(names.collect()),
                sizes: matches!(format, Format::Mds).then(|| schema.sizes().to_vec()),
                separator: match format {
                    Format::Xsv { separator, .. } => Some(separator.to_string()),
                    _ => None,
                },
                newline,
                columns: None,
            },
        }
    }
}

/// The JSON text in the head of every shard. The fields are in the order of `sort_keys=True`.
#[derive(Serialize)]
struct ConfigText {
    #[serde(skip_serializing_if = "Option::is_none")]
    column_encodings: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column_names: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column_sizes: Option<Vec<Option<u32>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    columns: Option<BTreeMap<String, String>>,
    compression: Option<String>,
    format: &'static str,
    hashes: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    newline: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    separator: Option<String>,
    size_limit: Option<u64>,
    version: u32,
}

impl ShardConfig {
    /// The text, as Python's `json.dumps(config, sort_keys=True)` writes it.
    pub(super) fn text(&self, schema: &Schema) -> String {
        let ColumnsText { encodings, names, sizes, columns, newline, separator } =
            ColumnsText::new(&self.format, schema);
        to_python_json(&ConfigText {
            column_encodings: encodings,
            column_names: names,
            column_sizes: sizes,
            columns,
            compression: self.compression.map(|c| c.to_string()),
            format: self.format.name(),
            hashes: self.hashes.iter().map(|hash| hash.name()).collect(),
            newline,
            separator,
            size_limit: self.size_limit,
            version: 2,
        })
    }
}
