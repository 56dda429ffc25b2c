//! `mds-inspect merge` and `mds-inspect convert` as a user runs them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "inspect_convert/empty.rs"]
mod empty;
#[path = "inspect_convert/interrupted.rs"]
mod interrupted;
#[path = "inspect_convert/plain_files.rs"]
mod plain_files;
#[path = "support/inspect.rs"]
mod program;
mod support;

use std::fs;
use std::io::Read;
use std::path::Path;

use mds::format::image::{Image, ImageFile, ImageFormat, ImageMode};
use mds::format::{
    DType, Encoding, HashAlgorithm, Index, Integer, Json, NdArray, Scalar, Schema, Value,
};
use mds::{DatasetOptions, Stream, StreamingDataset, Writer, WriterOptions};
use program::{inspect, path};
use support::{HASHED, PLAIN, Server, ZIPPED, files, write};

/// The documents of a part of the C4 sample, as JSON lines.
fn documents() -> String {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../data/c4-sample/en/c4-validation.00000-of-00001.json.gz");
    let mut text = String::new();
    #[allow(clippy::disallowed_types, reason = "a file of this repository")]
    flate2::read::MultiGzDecoder::new(fs::File::open(sample).unwrap())
        .read_to_string(&mut text)
        .unwrap();
    text
}

/// The same as a dataset of 93 samples with the columns text, timestamp and url.
fn c4(dir: &Path) -> Index {
    let schema = Schema::new(["text", "timestamp", "url"].map(|name| (name, Encoding::Str)));
    let options = WriterOptions {
        compression: Some("zstd".parse().unwrap()),
        hashes: vec![HashAlgorithm::Sha1],
        size_limit: Some(100_000),
        ..WriterOptions::default()
    };
    let mut writer = Writer::create(dir, schema.unwrap(), options).unwrap();
    for line in documents().lines() {
        let json = Json::parse(line).unwrap();
        let text = |key: &str| Value::from(json.get(key).unwrap().as_str().unwrap().to_owned());
        writer.write(&[text("text"), text("timestamp"), text("url")]).unwrap();
    }
    writer.finish().unwrap()
}

/// All values of a dataset, as text.
fn values(dir: &Path) -> Vec<Vec<(String, String)>> {
    let stream = Stream { local: Some(dir.to_path_buf()), ..Stream::default() };
    let dataset = StreamingDataset::open(vec![stream], DatasetOptions::default()).unwrap();
    let sample = |number| {
        let sample = dataset.sample(number).unwrap();
        let values = sample.values().unwrap();
        values.into_iter().map(|(name, value)| (name.to_owned(), format!("{value:?}"))).collect()
    };
    (0..dataset.num_samples()).map(sample).collect()
}

fn index(dir: &Path) -> Index {
    Index::parse(&fs::read(dir.join("index.json")).unwrap()).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    files(dir).into_keys().collect()
}

/// Runs a conversion and returns its summary without what depends on time.
#[track_caller]
fn convert(source: &str, out: &Path, flags: &[&str]) -> String {
    let printed = inspect(&[&["convert", source, path(out)], flags].concat()).succeeds();
    let summary = printed.lines().last().unwrap();
    let (summary, rate) = summary.split_once(" in ").unwrap();
    assert!(rate.contains(" s: ") && rate.ends_with(" MB/s"), "{rate}");
    summary.to_owned()
}

#[track_caller]
fn refused(args: &[&str]) -> String {
    inspect(&[&["convert"], args].concat()).fails()
}

#[test]
fn merge_lists_folders_and_totals() {
    let root = tempfile::tempdir().unwrap();
    write(&root.path().join("b"), 20, &PLAIN);
    write(&root.path().join("a/2"), 3, &PLAIN);
    assert_eq!(
        inspect(&["merge", path(root.path())]).succeeds(),
        "a/2  1 shard, 3 samples\nb  2 shards, 20 samples\n\
         merged 2 folders: 3 shards, 23 samples\n"
    );
    let one = inspect(&["merge", path(root.path()), "b"]).succeeds();
    assert_eq!(one, "b  2 shards, 20 samples\nmerged 1 folder: 2 shards, 20 samples\n");
    assert!(inspect(&["verify", path(root.path())]).succeeds().contains("20 samples"));
    // A part that was named counts even if it is empty.
    let schema = Schema::new([("text", Encoding::Str)]).unwrap();
    let options = WriterOptions::default();
    Writer::create(root.path().join("c"), schema, options).unwrap().finish().unwrap();
    let two = inspect(&["merge", path(root.path()), "b", "c"]).succeeds();
    assert_eq!(two, "b  2 shards, 20 samples\nmerged 2 folders: 2 shards, 20 samples\n");
}

#[test]
fn what_cannot_be_merged_is_one_clear_sentence() {
    let root = tempfile::tempdir().unwrap();
    let shown = root.path().display();
    assert_eq!(
        inspect(&["merge", path(root.path())]).fails(),
        format!(
            "mds-inspect: no folder below {shown} has an index.json; give the folder that holds \
             the parts of the dataset, each in a folder of its own"
        )
    );
    let output = inspect(&[path(root.path()), "merge", "x"]).output();
    assert_eq!(output.code, 2);
    let usage = "write mds-inspect merge ROOT [PART]..., in this order";
    assert!(output.err.contains(usage), "{}", output.err);
    let output = inspect(&["merge", path(root.path()), "--split", "val"]).output();
    assert_eq!(output.code, 2);
    let usage = "merge takes no --split: name the folders behind ROOT";
    assert!(output.err.contains(usage), "{}", output.err);
}

#[test]
fn compression_alone_gives_the_shards_that_a_writer_gives() {
    let dir = tempfile::tempdir().unwrap();
    for (name, kind) in [("plain", PLAIN), ("hashed", HASHED), ("zipped", ZIPPED)] {
        write(&dir.path().join(name), 50, &kind);
    }
    let at = |name: &str| dir.path().join(name);
    let convert = |from: &str, to: &str, flags: &[&str]| {
        convert(path(&at(from)), &at(to), flags);
        files(&at(to))
    };
    let hashes = ["--hashes", "xxh64", "--hashes", "sha1"];
    let zip = ["--compression", "zstd", "--hashes", "sha1,xxh64"];
    assert_eq!(convert("plain", "1", &hashes), files(&at("hashed")));
    assert_eq!(convert("plain", "2", &zip), files(&at("zipped")));
    let none = ["--compression", "none", "--hashes", "none"];
    assert_eq!(convert("zipped", "3", &none), files(&at("plain")));
    assert_eq!(convert("zipped", "4", &["--compression", "none"]), files(&at("hashed")));
    assert_eq!(convert("zipped", "5", &["--threads", "1"]), files(&at("zipped")), "all is kept");

    convert("zipped", "large", &["--size_limit", "64mb"]);
    let large = index(&at("large"));
    assert_eq!((large.shards.len(), large.shards[0].size_limit), (1, Some(64 << 20)));
    assert_eq!(values(&at("large")), values(&at("plain")));
    assert_eq!(convert("large", "6", &["--size_limit", "1000"]), files(&at("zipped")));
}

#[test]
fn lines_and_a_summary_are_printed_when_piped() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("c4"), dir.path().join("out"));
    let shards = c4(&from.join("val")).shards;
    let out = inspect(&["convert", path(&from), path(&to), "--to", "json"]).succeeds();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), shards.len() + 1);
    for (line, shard) in lines.iter().zip(&shards) {
        let stored = shard.stored();
        let expected =
            format!("read {}  {} samples, {} bytes", stored.basename, shard.samples, stored.bytes);
        assert_eq!(*line, expected);
    }
    let start = format!("converted 93 samples from {} shards (", shards.len());
    assert!(lines[shards.len()].starts_with(&start), "{out}");
}

#[test]
fn real_text_goes_through_every_format() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    c4(&at("mds"));
    let original = values(&at("mds"));
    assert_eq!(original.len(), 93);
    // Texts with line ends: in JSON, in Parquet, and in separated values with strange separators.
    convert(path(&at("mds")), &at("json"), &["--to", "json"]);
    let first = index(&at("json")).shards.remove(0);
    let kept = (first.compression, first.hashes, first.size_limit);
    assert_eq!(kept, (Some("zstd".parse().unwrap()), vec![HashAlgorithm::Sha1], Some(100_000)));
    convert(path(&at("json")), &at("parquet"), &["--to", "parquet"]);
    let strange = ["--to", "xsv", "--separator", "<|>", "--newline", r"<\n>"];
    convert(path(&at("parquet")), &at("xsv"), &strange);
    assert_eq!(index(&at("xsv")).shards[0].format.newline(), Some("<\n>"));
    let zip =
        ["--to", "mds", "--compression", "zstd", "--hashes", "sha1", "--size_limit", "100000"];
    convert(path(&at("xsv")), &at("again"), &zip);
    assert_eq!(files(&at("again")), files(&at("mds")));

    // And two columns without them.
    let two = ["--columns", "url,timestamp", "--compression", "none"];
    convert(path(&at("mds")), &at("csv"), &[&two[..], &["--to", "csv"]].concat());
    convert(path(&at("csv")), &at("tsv"), &["--to", "tsv"]);
    convert(path(&at("tsv")), &at("two"), &["--to", "mds"]);
    let short: Vec<Vec<_>> = original.iter().map(|sample| sample[1..].to_vec()).collect();
    assert_eq!(values(&at("two")), short);
    let csv = fs::read_to_string(at("csv").join("shard.00000.csv")).unwrap();
    assert!(csv.starts_with("timestamp,url\n"), "{csv}");
}

#[test]
fn plain_text_files_become_datasets_and_parquet() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    c4(&at("mds"));
    let original = values(&at("mds"));
    fs::write(at("c4.jsonl"), documents()).unwrap();
    let zip = zstd_of(&documents());
    fs::write(at("c4.json.zst"), zip).unwrap();
    let sample = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../data/c4-sample/en/c4-validation.00000-of-00001.json.gz");
    for (number, file) in [at("c4.jsonl"), at("c4.json.zst"), sample].iter().enumerate() {
        let out = at(&number.to_string());
        let summary = convert(path(file), &out, &[]);
        assert!(summary.starts_with("converted 93 samples from 1 file ("), "{summary}");
        assert!(summary.contains(" to 1 shard ("), "{summary}");
        assert_eq!(values(&out), original);
    }
    convert(path(&at("c4.jsonl")), &at("parquet"), &["--to", "parquet", "--columns", "text,url"]);
    convert(path(&at("parquet")), &at("back"), &["--columns", "url"]);
    let urls: Vec<Vec<_>> = original.iter().map(|sample| sample[2..].to_vec()).collect();
    assert_eq!(values(&at("back")), urls);
}

fn zstd_of(text: &str) -> Vec<u8> {
    "zstd".parse::<mds::format::Compression>().unwrap().compress(text.as_bytes()).unwrap()
}

#[test]
fn types_of_plain_files_are_inferred_from_all_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let columns = |name: &str| -> Vec<String> {
        let schema = index(&at(name)).shards[0].schema().clone();
        schema.columns().iter().map(|c| format!("{} {}", c.name, c.encoding)).collect()
    };
    let csv = "id,when,score,note,both\n1,2019-04-25T12:57:54Z,1,\"a, \"\"b\"\"\nc\",1\n\
               2,2020-01-01,2.5,,x\n";
    fs::write(at("x.csv"), format!("\u{feff}{csv}")).unwrap();
    convert(path(&at("x.csv")), &at("csv"), &[]);
    let expected = ["both str", "id int", "note str", "score float64", "when str"];
    assert_eq!(columns("csv"), expected);
    let shown = inspect(&["sample", path(&at("csv")), "0"]).succeeds();
    assert!(shown.contains("a, \"b\"\\nc") && shown.contains("2019-04-25T12:57:54Z"), "{shown}");
    let shown = inspect(&["sample", path(&at("csv")), "1"]).succeeds();
    assert!(shown.contains("note (str, 0 characters): \n"), "{shown}");
    convert(path(&at("x.csv")), &at("some"), &["--columns", "score,id"]);
    assert_eq!(columns("some"), ["id int", "score float64"]);

    fs::write(at("x.tsv"), "a\tb\n1,5\ttrue\n").unwrap();
    convert(path(&at("x.tsv")), &at("tsv"), &[]);
    assert_eq!(columns("tsv"), ["a str", "b uint8"]);

    let lines = "{\"f\": 1, \"l\": [1, 2], \"s\": {\"a\": null}}\n{\"f\": 0.5, \"l\": [3], \"s\": {\"a\": 1}}\n";
    fs::write(at("x.ndjson"), lines).unwrap();
    convert(path(&at("x.ndjson")), &at("json"), &[]);
    assert_eq!(columns("json"), ["f float64", "l ndarray:int64", "s json"]);
}

const TYPES: [&str; 11] = [
    "uint8", "int8", "uint16", "int16", "float16", "uint32", "int32", "float32", "uint64", "int64",
    "float64",
];

/// A dataset of two samples for each of 20 shards, with a column of every encoding but pickles.
fn every_encoding(dir: &Path) {
    let plain = [
        "bytes",
        "str",
        "int",
        "str_int",
        "str_float",
        "str_decimal",
        "json",
        "ndarray",
        "pil",
        "jpeg",
        "png",
        "jpeg_array",
        "jpegarray",
        "list[pil]",
        "list[jpeg]",
        "list[png]",
    ];
    let mut columns: Vec<(String, Encoding)> =
        plain.iter().map(|name| (name.to_string(), name.parse().unwrap())).collect();
    for dtype in TYPES {
        columns.push((format!("scalar {dtype}"), dtype.parse().unwrap()));
        for shape in ["", ":3", ":2,1,2"] {
            let encoding = format!("ndarray:{dtype}{shape}");
            columns.push((encoding.clone(), encoding.parse().unwrap()));
        }
    }
    let schema = Schema::new(columns).unwrap();
    let options = WriterOptions {
        hashes: vec![HashAlgorithm::Xxh64],
        size_limit: Some(10_000),
        ..WriterOptions::default()
    };
    let mut writer = Writer::create(dir, schema.clone(), options).unwrap();
    for i in 0..40 {
        let values: Vec<_> = schema.columns().iter().map(|c| example(&c.encoding, i)).collect();
        writer.write(&values).unwrap();
    }
    assert!(writer.finish().unwrap().shards.len() > 5);
}

/// A number all of whose bytes are `byte`.
fn number(dtype: DType, byte: u8) -> Scalar {
    Scalar::read_le(dtype, &vec![byte; dtype.size()]).unwrap()
}

fn example(encoding: &Encoding, i: u8) -> Value<'static> {
    let image = || Image::new(2, 2, ImageMode::Rgb, vec![200 - i; 12]).unwrap();
    let file = |format| Value::from(ImageFile::from_image(&image(), format).unwrap());
    match encoding {
        Encoding::Bytes => vec![0xff; i.into()].into(),
        Encoding::Str => ["", "hé😀\n"][usize::from(i % 2)].into(),
        Encoding::Int => Value::Int(i64::MIN + i64::from(i)),
        Encoding::Scalar(dtype) => number(*dtype, 80 + i).into(),
        Encoding::StrInt => Integer::parse("123456789012345678901234567890").unwrap().into(),
        Encoding::StrFloat => [f64::NAN, 0.1][usize::from(i % 2)].into(),
        Encoding::StrDecimal => "1.500".into(),
        Encoding::Json => Json::parse(r#"{"b": [1, null], "a": "é"}"#).unwrap().into(),
        Encoding::NdArray { dtype, shape } => {
            let dtype = dtype.unwrap_or(DType::F32);
            let shape = shape.clone().unwrap_or(vec![1 + u64::from(i) % 7]);
            let mut data = Vec::new();
            for n in 0..shape.iter().product() {
                data.extend(vec![n as u8 + i; dtype.size()]);
            }
            NdArray::new(dtype, shape, data).unwrap().into()
        }
        Encoding::Image(e) => match e.name() {
            "pil" => image().into(),
            "png" => file(ImageFormat::Png),
            _ => file(ImageFormat::Jpeg),
        },
        Encoding::ImageList(e) => Value::List(vec![example(&Encoding::Image(*e), i)]),
        Encoding::JpegArray | Encoding::Jpegarray => Value::List(vec![file(ImageFormat::Jpeg)]),
        other => unreachable!("{other}"),
    }
}

#[test]
fn every_encoding_comes_back_from_parquet_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    every_encoding(&at("mds"));
    let shards = index(&at("mds")).shards.len();
    for (name, flags) in [
        ("default", &[][..]),
        ("none", &["--compression", "none"]),
        ("br", &["--compression", "br:3"]),
        ("gz", &["--compression", "gz"]),
        ("snappy", &["--compression", "snappy"]),
    ] {
        let parquet = at(&format!("parquet-{name}"));
        let summary = convert(path(&at("mds")), &parquet, &[flags, &["--to", "parquet"]].concat());
        assert!(summary.contains(&format!("to {shards} files (")), "{summary}");
        assert_eq!(names(&parquet).len(), shards);
        assert_eq!(names(&parquet)[0], "part-00000.parquet");
        let back = at(&format!("back-{name}"));
        convert(path(&parquet), &back, &["--hashes", "xxh64", "--size_limit", "10000"]);
        assert_eq!(files(&back), files(&at("mds")), "{name}");
    }
    // A few columns, and parts of a size.
    let few = ["--columns", "str,int", "--to", "parquet", "--size_limit", "64mb"];
    convert(path(&at("mds")), &at("few"), &few);
    assert_eq!(names(&at("few")), ["part-00000.parquet"]);
    convert(path(&at("few")), &at("small"), &["--to", "parquet", "--size_limit", "200"]);
    assert!(names(&at("small")).len() > 3);
    convert(path(&at("small")), &at("few-mds"), &[]);
    convert(path(&at("mds")), &at("direct"), &["--columns", "int,str"]);
    assert_eq!(values(&at("few-mds")), values(&at("direct")));
    let one = at("few").join("part-00000.parquet");
    convert(path(&one), &at("one"), &[]);
    assert_eq!(files(&at("one")), files(&at("few-mds")));
}

#[test]
fn columns_are_mapped_to_text_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let columns = [
        ("d", "str_decimal"),
        ("f", "float16"),
        ("g", "str_float"),
        ("i", "str_int"),
        ("j", "json"),
        ("n", "uint64"),
        ("s", "str"),
        ("t", "int"),
    ];
    let schema = Schema::new(columns.map(|(name, e)| (name, e.parse::<Encoding>().unwrap())));
    let mut writer = Writer::create(at("mds"), schema.unwrap(), WriterOptions::default()).unwrap();
    let half = Scalar::read_le(DType::F16, &[0, 0x38]).unwrap();
    writer
        .write(&[
            "1.50".into(),
            half.into(),
            f64::INFINITY.into(),
            Integer::parse("7").unwrap().into(),
            "{\"b\":  1}".into(),
            Scalar::U64(9).into(),
            "a".into(),
            Value::Int(-3),
        ])
        .unwrap();
    writer.finish().unwrap();
    let line = "1.50|0.5|inf|7|{\"b\":  1}|9|a|-3\n";
    let bars = ["--to", "xsv", "--separator", "|"];
    convert(path(&at("mds")), &at("xsv"), &bars);
    let head = "d|f|g|i|j|n|s|t\n";
    let text = |name: &str| fs::read_to_string(at(name).join("shard.00000.xsv")).unwrap();
    let stored = text("xsv");
    // JSON is stored as it is printed by Python.
    let line =
        if stored.contains("{\"b\":  1}") { line.to_owned() } else { line.replace("  1", " 1") };
    assert_eq!(stored, format!("{head}{line}"));
    convert(path(&at("mds")), &at("parquet"), &["--to", "parquet"]);
    convert(path(&at("parquet")), &at("xsv2"), &bars);
    assert_eq!(text("xsv2"), text("xsv"));
    let encodings = |name: &str| -> Vec<String> {
        let schema = index(&at(name)).shards[0].schema().clone();
        schema.columns().iter().map(|column| column.encoding.to_string()).collect()
    };
    assert_eq!(encodings("xsv"), ["str", "float", "float", "int", "str", "int", "str", "int"]);
    convert(path(&at("xsv")), &at("back"), &["--to", "mds"]);
    let back = ["str", "float64", "float64", "int", "str", "int", "str", "int"];
    assert_eq!(encodings("back"), back);
    convert(path(&at("back")), &at("xsv3"), &bars);
    assert_eq!(text("xsv3"), text("xsv"));
    // A float of the text formats, by way of Parquet.
    convert(path(&at("xsv")), &at("parquet2"), &["--to", "parquet"]);
    convert(path(&at("parquet2")), &at("back2"), &[]);
    assert_eq!(values(&at("back2")), values(&at("back")));
}

#[test]
fn what_cannot_be_converted_is_one_clear_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let shown = |name: &str| at(name).display().to_string();
    write(&at("ids"), 9, &PLAIN);
    write(&at("taken/ids"), 9, &PLAIN);
    let (ids, out) = (shown("ids"), shown("out"));
    assert_eq!(
        refused(&[&ids, &out, "--to", "csv"]),
        format!(
            "mds-inspect: dataset {ids}, column tokens: the format csv cannot hold ndarray:int32; \
             leave the column out: name the others with --columns; or write mds or parquet"
        )
    );
    assert_eq!(
        refused(&[&ids, &out, "--columns", "text,nope"]),
        format!(
            "mds-inspect: dataset {ids}: there is no column \"nope\"; the columns are id, text, \
             tokens"
        )
    );
    assert_eq!(
        refused(&[&shown("taken/ids"), &ids]),
        format!(
            "mds-inspect: the directory {ids} is not empty; choose another one, or delete it \
             first if its data may go"
        )
    );
    for inside in [ids.clone(), format!("{ids}/deep/er"), format!("{ids}/../ids/x")] {
        for to in ["mds", "parquet"] {
            assert_eq!(
                refused(&[&ids, &inside, "--to", to]),
                format!(
                    "mds-inspect: the output {inside} would be in the folder of the dataset {ids}; \
                     give a folder outside of it"
                )
            );
        }
    }
    assert_eq!(names(&at("ids")).len(), index(&at("ids")).shards.len() + 1);
    assert_eq!(
        refused(&[&ids, &out, "--to", "parquet", "--compression", "bz2"]),
        "mds-inspect: Parquet has no compression bz2; use zstd, snappy, gz or br, with a level as \
         in zstd:7, or none"
    );
    assert_eq!(
        refused(&[&format!("{ids}/index.json"), &out]),
        format!("mds-inspect: {ids}/index.json is the index of a dataset; give its folder")
    );
    fs::write(at("x.txt"), "").unwrap();
    assert_eq!(
        refused(&[&shown("x.txt"), &out]),
        format!(
            "mds-inspect: {} is a file of an unknown kind; give a dataset, or a file called \
             .parquet, .jsonl, .ndjson, .json, .csv or .tsv, the text ones as they are or as .gz \
             or .zst",
            shown("x.txt")
        )
    );
    fs::write(at("x.jsonl"), "{\"a\": 1}\n{\"a\": null}\n").unwrap();
    assert_eq!(
        refused(&[&shown("x.jsonl"), &out]),
        format!(
            "mds-inspect: dataset {}, sample 1, column a: the value is null, and MDS \
             has no nulls; fill the nulls with a value, or drop the rows, before writing",
            shown("x.jsonl")
        )
    );
    fs::write(at("y.jsonl"), "[1]\n").unwrap();
    let error = refused(&[&shown("y.jsonl"), &out]);
    let start = format!(
        "mds-inspect: cannot read {} as JSON lines; give one JSON object in each line (",
        shown("y.jsonl")
    );
    assert!(error.starts_with(&start), "{error}");
    fs::write(at("z.parquet"), "PAR1 not really").unwrap();
    let error = refused(&[&shown("z.parquet"), &out]);
    let start = format!(
        "mds-inspect: cannot read {} as Parquet; check that the file is whole (",
        shown("z.parquet")
    );
    assert!(error.starts_with(&start), "{error}");
    let none = shown("none");
    assert_eq!(
        refused(&[&none, &out]),
        format!(
            "mds-inspect: there is no dataset: neither {none}/index.json nor \
             {none}/val/index.json exists; check the address, and the split if there is one"
        )
    );
    for (flags, usage) in [
        (&["--to", "xsv"][..], "--to xsv needs a --separator, such as '|'"),
        (&["--to", "csv", "--separator", ";"], "--separator is for --to xsv"),
        (&["--newline", ";"], "--newline is for text formats"),
        (&["--to", "parquet", "--hashes", "sha1"], "--hashes are for datasets; Parquet files"),
        (&["--hashes", "none,sha1"], "--hashes none goes with no other hash"),
        (&["--size_limit", "abc"], "invalid value 'abc' for '--size_limit <SIZE>': \"abc\" is not"),
        (
            &["--size_limit", "5gb"],
            "--size_limit: a shard has at most 4294967295 bytes, but 5368709120 were given; give \
             less, or 0 for no limit",
        ),
        (&["--compression", "foo"], "invalid value 'foo' for '--compression <CODE>': "),
        (&["--hashes", "sha1,foo"], "invalid value 'foo' for '--hashes <HASH>': "),
        (
            &["--to", "xsv", "--separator", ""],
            "invalid value '' for '--separator <TEXT>': give at least one character",
        ),
        (&["--to", "csv", "--newline="], "invalid value '' for '--newline <TEXT>': give at"),
        (&["--to", "parquet", "--newline", ";"], "--separator and --newline are for text formats"),
    ] {
        let output = inspect(&[&["convert", &ids, &out], flags].concat()).output();
        assert_eq!(output.code, 2, "{flags:?}");
        assert!(output.err.contains(usage), "{}", output.err);
    }
    assert!(!at("out").exists(), "nothing was begun");
}

#[test]
fn bad_values_name_their_sample_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let shown = |name: &str| at(name).display().to_string();
    let schema = Schema::new([("n", Encoding::Int)]).unwrap();
    let json = mds::format::Format::JSON;
    let options = WriterOptions { format: json, ..WriterOptions::default() };
    let mut writer = Writer::create(at("json"), schema, options).unwrap();
    writer.write(&[Value::Int(1)]).unwrap();
    writer.write(&[Integer::parse("9223372036854775808").unwrap().into()]).unwrap();
    writer.finish().unwrap();
    let out = shown("deep/er");
    assert_eq!(
        refused(&[&shown("json"), &out, "--to", "mds"]),
        format!(
            "mds-inspect: dataset {}, shard shard.00000.json, sample 1, column n: the encoding int \
             does not take the integer 9223372036854775808; give an integer from \
             -9223372036854775808 to 9223372036854775807",
            shown("json")
        )
    );
    c4(&at("c4"));
    let error = refused(&[&shown("c4"), &out, "--to", "csv"]);
    let start = format!(
        "mds-inspect: dataset {}, shard shard.00000.mds, sample 0, column text: the text contains \
         the ",
        shown("c4")
    );
    assert!(error.starts_with(&start), "{error}");

    let mut shard = fs::read(at("c4").join("shard.00001.mds.zstd")).unwrap();
    let last = shard.len() - 1;
    shard[last] ^= 1;
    fs::write(at("c4").join("shard.00001.mds.zstd"), shard).unwrap();
    for to in ["mds", "parquet"] {
        let error = inspect(&["convert", &shown("c4"), &out, "--to", to]).output().err;
        let start = format!(
            "mds-inspect: dataset {}, shard shard.00001.mds.zstd: the sha1 of ",
            shown("c4")
        );
        assert!(error.starts_with(&start), "{error}");
    }
    assert!(!at("deep").exists(), "nothing was left");
}

#[test]
fn shards_with_other_columns_than_the_first_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("root/a"), 9, &PLAIN);
    c4(&dir.path().join("root/b"));
    let root = dir.path().join("root");
    inspect(&["merge", path(&root)]).succeeds();
    let out = dir.path().join("out");
    assert_eq!(
        refused(&[path(&root), path(&out)]),
        format!(
            "mds-inspect: dataset {}, shard b/shard.00000.mds: the shard has other columns than \
             the first one; convert the datasets that were merged one by one",
            root.display()
        )
    );
    convert(path(&root), &out, &["--columns", "text"]);
    assert_eq!(values(&out).len(), 9 + 93);
}

#[test]
fn a_remote_is_converted() {
    let dir = tempfile::tempdir().unwrap();
    let index = write(&dir.path().join("c4/val"), 30, &ZIPPED);
    let server = Server::start(dir.path());
    let out = dir.path().join("out");
    convert(&server.url("c4"), &out, &["--compression", "none"]);
    let gets: usize = server.shard_gets().values().sum();
    assert_eq!(gets, index.shards.len(), "each shard is fetched once");
    convert(
        path(&dir.path().join("c4/val")),
        &dir.path().join("local"),
        &["--compression", "none"],
    );
    assert_eq!(files(&out), files(&dir.path().join("local")));
}

#[test]
fn help_teaches_with_examples() {
    for (name, expected) in [
        ("convert", "mds-inspect convert ./c4 ./c4-parquet --to parquet\n"),
        ("merge", "mds-inspect merge s3://bucket/parts"),
    ] {
        let help = inspect(&[name, "--help"]).succeeds();
        assert!(help.contains(expected), "{help}");
        let long: Vec<_> = help.lines().filter(|line| line.chars().count() > 100).collect();
        assert!(long.is_empty(), "{long:?}");
    }
    let help = inspect(&["convert", "--help"]).succeeds().replace('\n', " ");
    for expected in [
        "Compression, hashes and size limit of the shards are not recorded: give them again",
        "Arrays of several dimensions in a column ndarray:<type>, without a shape, cannot be",
        "007 becomes 7",
        "nor be in the folder of SOURCE",
    ] {
        assert!(help.contains(expected), "{expected:?} is not in\n{help}");
    }
    for name in ["verify", "sample", "convert"] {
        let help = inspect(&[name, "--help"]).succeeds();
        assert!(help.contains("--pickle_bytes\n"), "{help}");
        assert!(help.contains("What reads indexes alone takes them in any case"), "{help}");
    }
    let usage = inspect(&["sample", "--help"]).succeeds();
    assert!(usage.contains("Usage: mds-inspect sample [OPTIONS] REMOTE N\n"), "{usage}");
}

#[test]
fn verify_says_that_nothing_is_there() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("index.json"), "{\"shards\": [], \"version\": 2}").unwrap();
    assert_eq!(
        inspect(&["verify", path(dir.path())]).succeeds(),
        "the index is sound and lists no shards: there is nothing to verify\n"
    );
}

#[cfg(unix)]
#[test]
fn conversions_and_merges_finish_when_nobody_reads_along() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    write(&at("root/ids"), 50, &PLAIN);
    for to in ["mds", "parquet"] {
        let output =
            inspect(&["convert", path(&at("root/ids")), path(&at(to)), "--to", to]).closed();
        assert_eq!((output.code, output.err.as_str()), (0, ""), "{to}");
    }
    assert_eq!(files(&at("mds")), files(&at("root/ids")));
    assert!(at("parquet/part-00000.parquet").exists());
    let output = inspect(&["merge", path(&at("root"))]).closed();
    assert_eq!((output.code, output.err.as_str()), (0, ""));
    assert!(at("root/index.json").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_output_is_told_when_the_conversion_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let (ids, out) = (dir.path().join("ids"), dir.path().join("out"));
    write(&ids, 50, &PLAIN);
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = inspect(&["convert", path(&ids), path(&out)]).printing_to(full.into());
    assert_eq!(output.code, 1);
    let expected = "mds-inspect: cannot write the output: No space left on device (os error 28)\n";
    assert_eq!(output.err, expected);
    assert_eq!(files(&out), files(&ids));
}

#[test]
fn the_sample_at_fault_is_numbered_as_in_the_source() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let out = at("out");
    // Beyond the first batch.
    let mut lines = "{\"a\": 1}\n".repeat(3000);
    lines.push_str("{\"a\": null}\n");
    fs::write(at("x.jsonl"), &lines).unwrap();
    let error = refused(&[path(&at("x.jsonl")), path(&out)]);
    let start = format!(
        "mds-inspect: dataset {}, sample 3000, column a: the value is null, ",
        at("x.jsonl").display()
    );
    assert!(error.starts_with(&start), "{error}");

    // In the second shard.
    let schema = Schema::new([("a", Encoding::Str)]).unwrap();
    let options = WriterOptions { size_limit: Some(200), ..WriterOptions::default() };
    let mut writer = Writer::create(at("mds"), schema, options).unwrap();
    for number in 0..40 {
        writer.write(&[if number == 39 { "a\tb" } else { "ab" }.into()]).unwrap();
    }
    let shards = writer.finish().unwrap().shards;
    let last = shards.last().unwrap();
    assert!(shards.len() > 1);
    let error = refused(&[path(&at("mds")), path(&out), "--to", "tsv"]);
    let start = format!(
        "mds-inspect: dataset {}, shard {}, sample {}, column a: ",
        at("mds").display(),
        last.raw_data.basename,
        last.samples - 1
    );
    assert!(error.starts_with(&start), "{error}");
    assert!(!out.exists());
}

#[test]
fn damaged_compression_says_to_fetch_the_file_again() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let rows: String = (0..5000).map(|n| format!("{n},{}\n", n * 7919 % 5003)).collect();
    let zip = |code: &str| {
        let zip = code.parse::<mds::format::Compression>().unwrap();
        let mut bytes = zip.compress(format!("a,b\n{rows}").as_bytes()).unwrap();
        bytes.truncate(bytes.len() / 2);
        bytes
    };
    for (name, bytes, compression) in [
        ("a.jsonl.gz", b"no gzip".to_vec(), "gzip"),
        ("b.csv.gz", b"no gzip".to_vec(), "gzip"),
        ("c.jsonl.zst", b"no zstd".to_vec(), "zstd"),
        ("d.csv.gz", zip("gz"), "gzip"),
        ("e.csv.zst", zip("zstd"), "zstd"),
    ] {
        fs::write(at(name), bytes).unwrap();
        let error = refused(&[path(&at(name)), path(&at("out"))]);
        let start = format!(
            "mds-inspect: {} is cut short, damaged or not {compression}; fetch it again (",
            at(name).display()
        );
        assert!(error.starts_with(&start), "{error}");
    }
}
