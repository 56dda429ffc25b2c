//! Datasets written by our writer for the reference: every format, encoding, compression and hash.
//!
//! Runs only where `MDS_CROSS_DIR` names a folder for the datasets, else it says so and does
//! nothing: the check is in `tests/conformance/matrix_reads.py`, which lets the reference read
//! them. `MDS_CROSS_SEED` chooses the random values.
//!
//! Each case is a folder with `data/`, `case.json` and `expected.jsonl`. What to expect is written
//! from the Rust values that go in, not from what the encoder makes of them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use mds::format::{Compression, Encoding, Format, HashAlgorithm, Schema};
use mds::{Writer, WriterOptions};
use serde_json::{Value as Json, json};
use support::values::{Values, mds_columns, text_columns};

#[test]
fn every_format_encoding_compression_and_hash() {
    let Some(root) = std::env::var_os("MDS_CROSS_DIR") else {
        notice("SKIPPED: MDS_CROSS_DIR is not set; scripts/conformance sets it");
        return;
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(root);
    let seed = std::env::var("MDS_CROSS_SEED").map_or(0, |seed| seed.parse().unwrap());
    let mut values = Values::new(seed);

    let (mut datasets, mut samples) = (0, 0);
    for format in ["mds", "json", "csv", "tsv", "xsv"] {
        for code in [None, Some("br"), Some("bz2"), Some("gz"), Some("snappy"), Some("zstd")] {
            for hashes in hash_lists() {
                let compression = code.map(|code| level(&mut values, code));
                let case = Case {
                    dir: root.join(format!("{format}_{}_{datasets:03}", code.unwrap_or("none"))),
                    format: format_of(&mut values, format),
                    compression,
                    hashes,
                    threads: if datasets % 2 == 0 { 1 } else { 3 },
                };
                samples += case.write(&mut values);
                datasets += 1;
            }
        }
    }
    notice(&format!("wrote {datasets} datasets, {samples} samples"));
}

/// Written past the capture of the test harness.
fn notice(text: &str) {
    let _ = writeln!(std::io::stderr(), "cross_write: {text}");
}

/// No hash, each alone, all.
fn hash_lists() -> Vec<Vec<HashAlgorithm>> {
    let single = HashAlgorithm::ALL.into_iter().map(|hash| vec![hash]);
    [vec![]].into_iter().chain(single).chain([HashAlgorithm::ALL.to_vec()]).collect()
}

/// The code without a level and then with each, in turn.
fn level(values: &mut Values, code: &str) -> Compression {
    let levels = (0..=22).map(|level| format!("{code}:{level}"));
    let all = [code.to_owned()].into_iter().chain(levels);
    let all: Vec<Compression> = all.filter_map(|text| text.parse().ok()).collect();
    values.turn(code, &all)
}

/// The format with each separator and line end in turn.
fn format_of(values: &mut Values, name: &str) -> Format {
    // The reference parses JSON with the line end, which must be a space of JSON then.
    let ends = ["\n", "\r\n", "\n\n", "\r", if name == "json" { " \t" } else { "\u{2028}" }];
    let newline = values.turn(name, &ends).into();
    match name {
        "json" => Format::Json { newline },
        "csv" => Format::Csv { newline },
        "tsv" => Format::Tsv { newline },
        "xsv" => {
            let separator = values.turn("separator", &["::", "|", ";", "\t\t", "→", "<sep>"]);
            Format::Xsv { separator: separator.into(), newline }
        }
        _ => Format::Mds,
    }
}

struct Case {
    dir: PathBuf,
    format: Format,
    compression: Option<Compression>,
    hashes: Vec<HashAlgorithm>,
    threads: usize,
}

impl Case {
    /// Writes the dataset and what to expect of it. Returns the number of samples.
    fn write(self, values: &mut Values) -> u64 {
        let mds = matches!(self.format, Format::Mds);
        let columns = if mds {
            mds_columns()
        } else {
            text_columns(matches!(self.format, Format::Json { .. }))
        };
        let schema = Schema::new(columns).unwrap();
        let options = WriterOptions {
            format: self.format.clone(),
            compression: self.compression,
            hashes: self.hashes.clone(),
            size_limit: Some(if mds { 20_000 } else { 1500 }),
            threads: Some(self.threads),
            ..WriterOptions::default()
        };
        let mut writer = Writer::create(self.dir.join("data"), schema.clone(), options).unwrap();
        let mut expected = String::new();
        for _ in 0..values.between(3, if mds { 5 } else { 12 }) {
            let mut row = Vec::new();
            let mut entries = serde_json::Map::new();
            for column in schema.columns() {
                let (value, entry) = if mds {
                    values.mds(&column.encoding)
                } else {
                    values.text_format(&column.encoding, &self.format)
                };
                row.push(value);
                entries.insert(column.name.clone(), entry);
            }
            let taken = writer.write(&row);
            taken.unwrap_or_else(|error| panic!("{}: {error}", self.dir.display()));
            expected += &(Json::Object(entries).to_string() + "\n");
        }
        let index = writer.finish().unwrap();
        fs::write(self.dir.join("expected.jsonl"), expected).unwrap();
        fs::write(self.dir.join("case.json"), self.describe(&schema).to_string()).unwrap();
        index.samples()
    }

    fn describe(&self, schema: &Schema) -> Json {
        let columns = schema.columns().iter();
        json!({
            "format": self.format.name(),
            "separator": self.format.separator(),
            "newline": self.format.newline(),
            "compression": self.compression.map(|compression| compression.to_string()),
            "hashes": self.hashes.iter().map(|hash| hash.name()).collect::<Vec<_>>(),
            "columns": columns
                .map(|column| (column.name.clone(), encoding_name(&column.encoding)))
                .collect::<serde_json::Map<_, _>>(),
        })
    }
}

fn encoding_name(encoding: &Encoding) -> Json {
    encoding.to_string().into()
}
