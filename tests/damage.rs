//! One damaged dataset for each way in which data can be wrong: the whole message, with dataset,
//! shard, sample and byte as far as they are known, and a check that no way is left out.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::Path;

use mds::format::{Damage, Index, ShardName, ShardTable};
use mds::{DatasetOptions, Error, Stream, StreamingDataset};
use serde_json::{Value as Json, json};

const INDEX: &str = "fetch index.json again, or write the dataset again";
const SHARD: &str = "fetch the shard again, or write it again from its source";

/// What was seen, by the names of the variants.
#[derive(Default)]
struct Seen(BTreeSet<String>);

impl Seen {
    #[track_caller]
    fn error(&mut self, error: &Error, text: &str) {
        assert_eq!(error.to_string(), text);
        let damage = error.damage().unwrap_or_else(|| panic!("no damage: {error}"));
        self.0.insert(first_word(&format!("{damage:?}")));
        if let Damage::Name { fault, .. } = damage {
            self.0.insert(format!("{fault:?}"));
        }
    }

    /// The dataset is read by a program that iterates it; its folder is called D in `text`.
    #[track_caller]
    fn dataset(&mut self, data: Data, text: &str) {
        let dir = tempfile::tempdir().unwrap();
        data.write(dir.path());
        let error = read(dir.path()).expect_err(text);
        let shown = dir.path().display().to_string();
        self.error(&error, &text.replace("{D}", &shown));
    }
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|c| c.is_ascii_alphanumeric()).collect()
}

fn read(dir: &Path) -> Result<(), Error> {
    let stream = Stream::local(dir);
    let dataset = StreamingDataset::open(vec![stream], DatasetOptions::default())?;
    for id in 0..dataset.num_samples() {
        dataset.sample(id)?.values()?;
    }
    Ok(())
}

/// A dataset of one shard before it is written, to be damaged.
struct Data {
    entry: Json,
    files: Vec<(String, Vec<u8>)>,
}

impl Data {
    /// An MDS shard. A column is its name, encoding and size.
    fn mds(columns: &[(&str, &str, Option<u32>)], samples: &[&[u8]]) -> Self {
        let first = 4 * (samples.len() as u32 + 2);
        let bytes = [table(first, samples), samples.concat()].concat();
        let entry = json!({
            "column_encodings": columns.iter().map(|c| c.1).collect::<Vec<_>>(),
            "column_names": columns.iter().map(|c| c.0).collect::<Vec<_>>(),
            "column_sizes": columns.iter().map(|c| c.2).collect::<Vec<_>>(),
            "compression": null, "format": "mds", "hashes": [],
            "raw_data": file("s.mds", &bytes),
            "samples": samples.len(), "size_limit": null, "version": 2, "zip_data": null,
        });
        Self { entry, files: vec![("s.mds".to_owned(), bytes)] }
    }

    /// A shard of text with the columns `a` (str) and `b` (int).
    fn text(format: &str, header: &str, lines: &[&str]) -> Self {
        let samples: Vec<_> = lines.iter().map(|line| line.as_bytes()).collect();
        let data = format!("{header}{}", lines.concat()).into_bytes();
        let meta = table(header.len() as u32, &samples);
        let mut entry = json!({
            "compression": null, "format": format, "hashes": [], "newline": "\n",
            "raw_data": file("s.txt", &data), "raw_meta": file("s.txt.meta", &meta),
            "samples": lines.len(), "size_limit": null, "version": 2,
            "zip_data": null, "zip_meta": null,
        });
        if format == "json" {
            entry["columns"] = json!({"a": "str", "b": "int"});
        } else {
            entry["column_names"] = json!(["a", "b"]);
            entry["column_encodings"] = json!(["str", "int"]);
        }
        Self { entry, files: vec![("s.txt".to_owned(), data), ("s.txt.meta".to_owned(), meta)] }
    }

    /// One sample of one column of variable size.
    fn value(encoding: &str, value: &[u8]) -> Self {
        let sample = [&(value.len() as u32).to_le_bytes(), value].concat();
        Self::mds(&[("x", encoding, None)], &[&sample])
    }

    fn entry(mut self, change: impl FnOnce(&mut Json)) -> Self {
        change(&mut self.entry);
        self
    }

    /// Changes a word of the first file.
    fn word(mut self, at: usize, word: u32) -> Self {
        self.files[0].1[at..at + 4].copy_from_slice(&word.to_le_bytes());
        self
    }

    /// Stores `zip` as the compressed form of the first file.
    fn zipped(mut self, zip: &[u8]) -> Self {
        self.entry["compression"] = "gz".into();
        self.entry["zip_data"] = file("s.mds.gz", zip);
        self.files = vec![("s.mds.gz".to_owned(), zip.to_vec())];
        self
    }

    fn write(&self, dir: &Path) {
        for (name, bytes) in &self.files {
            std::fs::write(dir.join(name), bytes).unwrap();
        }
        let index = json!({"shards": [self.entry], "version": 2});
        std::fs::write(dir.join("index.json"), index.to_string()).unwrap();
    }
}

fn file(name: &str, bytes: &[u8]) -> Json {
    json!({"basename": name, "bytes": bytes.len(), "hashes": {}})
}

fn table(first: u32, samples: &[&[u8]]) -> Vec<u8> {
    let mut words = vec![samples.len() as u32, first];
    let mut end = first;
    for sample in samples {
        end += sample.len() as u32;
        words.push(end);
    }
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn plain() -> Data {
    Data::mds(&[("n", "uint8", Some(1))], &[b"1", b"2"])
}

#[test]
fn every_damage_is_told_with_its_place() {
    let mut seen = Seen::default();
    the_index(&mut seen);
    the_files(&mut seen);
    the_table(&mut seen);
    the_samples(&mut seen);
    the_values(&mut seen);
    the_lines(&mut seen);
    the_names(&mut seen);

    let source = include_str!("../crates/mds/src/format/damage.rs");
    let mut all: BTreeSet<String> = ["Damage", "NameFault"]
        .iter()
        .flat_map(|name| {
            let start = source.find(&format!("pub enum {name} {{")).unwrap();
            let body = &source[start..];
            body[..body.find("\n}").unwrap()].lines().filter_map(variant)
        })
        .collect();
    // A schema cuts values of a fixed size to that size, so none of another size is ever decoded.
    assert!(all.remove("ValueSize"));
    assert!(all.len() > 40, "{all:?}");
    assert_eq!(seen.0, all);
}

/// The name that a line of an enum begins with.
fn variant(line: &str) -> Option<String> {
    let name = line.strip_prefix("    ")?;
    name.starts_with(|c: char| c.is_ascii_uppercase()).then(|| first_word(name))
}

fn the_index(seen: &mut Seen) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("index.json"), "").unwrap();
    let text = format!(
        "dataset {}: the index is empty or damaged: EOF while parsing a value at line 1 column 0; \
         {INDEX}",
        dir.path().display()
    );
    seen.error(&read(dir.path()).unwrap_err(), &text);

    let here = "dataset {D}, shard s.mds";
    let many: Vec<String> = (0..(1 << 20) + 1).map(|i: u32| i.to_string()).collect();
    seen.dataset(
        plain().entry(|entry| entry["column_names"] = many.into()),
        &format!(
            "dataset {{D}}, shard 0: the shard has 1048577 columns, more than the 1048576 that \
             there may be; {INDEX}"
        ),
    );
    let mut entry = |change: fn(&mut Json), place: &str, what: &str| {
        seen.dataset(plain().entry(change), &format!("{here}{place}: {what}; {INDEX}"));
    };
    entry(
        |e| e["column_names"] = json!(["n", "m"]),
        "",
        "the shard has 2 column names, 1 encodings and 1 sizes",
    );
    entry(
        |e| {
            e["column_names"] = json!(["n", "n"]);
            e["column_encodings"] = json!(["uint8", "uint8"]);
            e["column_sizes"] = json!([1, 1]);
        },
        "",
        "the column \"n\" is declared twice",
    );
    entry(
        |e| e["column_sizes"] = json!([null]),
        ", column n",
        "the index declares the size null, but the encoding uint8 has 1",
    );
    entry(
        |e| e["compression"] = "zstd".into(),
        "",
        "the entry of the shard has a compression, but not a compressed file",
    );
    entry(
        |e| e["zip_data"] = file("s.mds.zstd", b""),
        "",
        "the entry of the shard has a compressed file, but not a compression",
    );
    entry(|e| e["samples"] = (1_u64 << 32).into(), "", "the shard cannot hold 4294967296 samples");
    entry(|e| e["samples"] = 3.into(), "", "a file of 18 bytes cannot hold 3 samples");
    entry(
        |e| e["raw_meta"] = file("s.meta", &[0; 40]),
        "",
        "the format mds has not a file of offsets, but the entry of the shard has one",
    );
    seen.dataset(
        Data::text("csv", "a,b\n", &["x,1\n"]).entry(|e| e["raw_meta"] = Json::Null),
        &format!(
            "dataset {{D}}, shard s.txt: the format csv has a file of offsets, but the entry of \
             the shard has none; {INDEX}"
        ),
    );
    seen.dataset(
        Data::text("csv", "a,b\n", &["x,1\n"]).entry(|e| e["newline"] = "".into()),
        &format!(
            "dataset {{D}}, shard s.txt: the separator \",\" and the line end \"\" cannot divide a \
             text; {INDEX}"
        ),
    );
    seen.dataset(
        plain().entry(|e| e["raw_data"]["bytes"] = (1_u64 << 32).into()),
        &format!(
            "dataset {{D}}, shard s.mds: the index declares a raw size of 4294967296 bytes, more \
             than any shard can have; {INDEX}"
        ),
    );
    seen.dataset(
        Data::text("csv", "a,b\n", &["x,1\n"])
            .entry(|e| e["raw_meta"]["basename"] = "s.txt".into()),
        &format!("dataset {{D}}, shard 0: the index lists the file s.txt twice; {INDEX}"),
    );
}

fn the_files(seen: &mut Seen) {
    let remove = "remove the file, so that it is fetched again, or write the dataset again";
    let mut short = plain();
    short.files[0].1.pop();
    seen.dataset(
        short,
        &format!(
            "dataset {{D}}, shard s.mds: {{D}}/s.mds is damaged: the file has 17 bytes, but the \
             index declares 18; {remove}"
        ),
    );
    seen.dataset(
        plain().entry(|e| e["raw_data"]["hashes"] = json!({"xxh32": "00000000"})),
        &format!(
            "dataset {{D}}, shard s.mds: {{D}}/s.mds is damaged: the xxh32 of the file is \
             {}, but the index declares 00000000; {remove}",
            mds::format::HashAlgorithm::Xxh32.hex(&plain().files[0].1)
        ),
    );
    let dir = tempfile::tempdir().unwrap();
    let shown = dir.path().join("data").display().to_string();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    plain().write(&data);
    std::fs::rename(data.join("s.mds"), dir.path().join("s.mds")).unwrap();
    std::os::unix::fs::symlink("../s.mds", data.join("s.mds")).unwrap();
    seen.error(
        &read(&data).unwrap_err(),
        &format!(
            "dataset {shown}, shard s.mds: {shown}/s.mds is a symbolic link that leads out of \
             {shown}; copy what it points to into the dataset, or do not use this dataset"
        ),
    );
    std::fs::remove_file(data.join("s.mds")).unwrap();
    std::fs::create_dir(data.join("s.mds")).unwrap();
    seen.error(
        &read(&data).unwrap_err(),
        &format!(
            "dataset {shown}, shard s.mds: cannot read {shown}/s.mds: it is not a regular file; \
             remove it, or put the file there that belongs there"
        ),
    );

    let gz: mds::format::Compression = "gz".parse().unwrap();
    let raw = plain().files[0].1.clone();
    let here = "dataset {D}, shard s.mds";
    seen.dataset(
        plain().zipped(&gz.compress(&raw[..9]).unwrap()),
        &format!("{here}: the compressed file holds 9 bytes, but the index declares 18; {SHARD}"),
    );
    seen.dataset(
        plain().zipped(&gz.compress(&[0; 99]).unwrap()),
        &format!(
            "{here}: the compressed file holds more than the 18 bytes that the index declares; \
             {SHARD}"
        ),
    );
    seen.dataset(
        plain().zipped(b"no gzip"),
        &format!("{here}: the compressed file is not valid gz; {SHARD}"),
    );
}

fn the_table(seen: &mut Seen) {
    // An index is refused before a file that is too short for its samples is read.
    let error = ShardTable::parse(&[2, 0, 0, 0, 9], 2).unwrap_err();
    seen.error(&error, &format!("byte 5: the shard is cut short: it has 5 bytes; {SHARD}"));
    let mut word = |at, word, place: &str, what: &str| {
        let text = format!("dataset {{D}}, shard s.mds, {place}: {what}; {SHARD}");
        seen.dataset(plain().word(at, word), &text);
    };
    word(0, 3, "byte 0", "the shard holds 3 samples, but the index declares 2");
    word(4, 15, "byte 4", "the first sample begins at byte 15, inside the table of offsets");
    word(8, 99, "sample 1, byte 12", "the sample ends at byte 18, before its beginning at byte 99");
    word(12, 99, "byte 12", "the samples end at byte 99, but the shard has 18 bytes");
}

fn the_samples(seen: &mut Seen) {
    let good = [&[1, 0, 0, 0][..], b"x"].concat();
    let mut second = |sample: &[u8], place: &str, what: &str| {
        let text = format!("dataset {{D}}, shard s.mds, sample 1{place}: {what}; {SHARD}");
        seen.dataset(Data::mds(&[("x", "str", None)], &[&good, sample]), &text);
    };
    second(
        b"abc",
        ", byte 0",
        "the sample has 3 bytes, but the lengths of its columns alone take 4",
    );
    second(
        &[9, 0, 0, 0, b'a'],
        ", byte 4, column x",
        "the value takes 9 bytes, but only 1 are left of the sample's 5",
    );
    second(&[1, 0, 0, 0, b'a', b'b'], ", byte 5", "1 bytes are left over of the sample's 6");
    second(&[1, 0, 0, 0, 0xff], ", byte 4, column x", "the text is not UTF-8 from its byte 0 on");
}

fn the_values(seen: &mut Seen) {
    let mut value = |encoding: &str, bytes: &[u8], what: &str| {
        let text =
            format!("dataset {{D}}, shard s.mds, sample 0, byte 4, column x: {what}; {SHARD}");
        seen.dataset(Data::value(encoding, bytes), &text);
    };
    value("str_int", b"1x", "the text is not an integer: expected a digit at byte 1");
    value("str_float", b"1x", "the text is not a float: \"1x\"");
    value(
        "str_decimal",
        b"1x",
        "the text is not a decimal number: expected the end of the number at byte 1",
    );
    value("json", b"[1", "the text is not JSON: expected ',' or ']' at byte 2");
    value("ndarray", &[7], "the array has the unknown type code 7");
    value("ndarray", &[8], "the array header is cut short");
    value("ndarray", &[8, 0], "the array has the shape []");
    value("ndarray", &[33, 4, 2, 0], "a int32 array of shape [2] has 1 bytes of data");
    value(
        "png",
        b"GIF89a",
        "the bytes are no PNG file: they begin with [47, 49, 46, 38, 39, 61], not [89, 50, 4e, 47, \
         0d, 0a, 1a, 0a]",
    );
}

fn the_lines(seen: &mut Seen) {
    let here = "dataset {D}, shard s.txt";
    let mut text = |format: &str, header: &str, lines: &[&str], place: &str, what: &str| {
        let text = format!("{here}, {place}: {what}; {SHARD}");
        seen.dataset(Data::text(format, header, lines), &text);
    };
    text(
        "csv",
        "a,b\n",
        &["x,1\n", "x,1"],
        "sample 1, byte 0",
        "the line does not end with \"\\n\"",
    );
    text(
        "csv",
        "a,b\n",
        &["x\n,1\n"],
        "sample 0, byte 0",
        "the line contains the line end \"\\n\"",
    );
    text(
        "csv",
        "a,b\n",
        &["x,1\n", "x,1,2\n"],
        "sample 1, byte 0",
        "the line has 3 columns, but the index declares 2",
    );
    text(
        "csv",
        "a;b\n",
        &["x,1\n"],
        "byte 0",
        "the first line does not hold the names of the columns",
    );
    text("json", "", &["[1]\n"], "sample 0, byte 0", "the line is not a JSON object");
    text(
        "json",
        "",
        &["{\"a\": \"\"}\n"],
        "sample 0, byte 0, column b",
        "the JSON object has no such key",
    );
    text(
        "json",
        "",
        &["{\"a\": \"\", \"b\": 1, \"c\": 2}\n"],
        "sample 0, byte 0",
        "the JSON object has the key \"c\", which is not a column",
    );
    text(
        "json",
        "",
        &["{\"a\": \"\", \"b\": 1.5}\n"],
        "sample 0, byte 0, column b",
        "the value is not of the type int",
    );
}

fn the_names(seen: &mut Seen) {
    let long = "a".repeat(241);
    let names = [
        ("/a", "is an absolute path"),
        ("C:a", "begins with a drive letter"),
        ("a\\b", "contains a backslash"),
        ("a\u{202e}b", "contains a control character"),
        ("../a", "has an empty, `.` or `..` segment"),
        (long.as_str(), "is too long"),
        ("index.json", "is that of an index"),
        (".index.seal", "is that of a hidden file"),
    ];
    let remedy = "do not use this dataset unless you trust it; correct its index.json";
    for (name, fault) in names {
        let place = if name.contains('\u{202e}') { "a\\u{202e}b" } else { name };
        let text =
            format!("dataset {{D}}, shard {place}: the shard name {name:?} {fault}; {remedy}");
        seen.dataset(plain().entry(|e| e["raw_data"]["basename"] = name.into()), &text);
    }
    let text = format!("dataset {{D}}, shard 0: the shard name \"\" is empty; {remedy}");
    seen.dataset(plain().entry(|e| e["raw_data"]["basename"] = "".into()), &text);
    assert!(ShardName::new("").is_err());
}

/// What these tests damage is read while it is whole.
#[test]
fn undamaged_datasets_are_read() {
    for data in [
        plain(),
        Data::value("str", b"x"),
        Data::text("csv", "a,b\n", &["x,1\n", "y,2\n"]),
        Data::text("json", "", &["{\"a\": \"x\", \"b\": 1}\n"]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        data.write(dir.path());
        read(dir.path()).unwrap();
        let index = Index::parse(&std::fs::read(dir.path().join("index.json")).unwrap());
        assert!(index.unwrap().samples() > 0);
    }
}
