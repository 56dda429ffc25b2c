//! Sources without samples.

use std::fs;

use mds::format::{Encoding, Format, Schema};
use mds::{Writer, WriterOptions};

use super::program::{inspect, path};
use super::{convert, index, names, refused};

const NO_SHARDS: &str = "{\"shards\": [], \"version\": 2}";

#[test]
fn a_dataset_without_shards_becomes_one() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let schema = Schema::new([("text", Encoding::Str)]).unwrap();
    Writer::create(at("none"), schema, WriterOptions::default()).unwrap().finish().unwrap();
    for (name, flags) in [
        ("kept", &[][..]),
        ("mds", &["--to", "mds", "--compression", "zstd"]),
        ("json", &["--to", "json"]),
        ("csv", &["--to", "csv"]),
        ("xsv", &["--to", "xsv", "--separator", "|"]),
    ] {
        let summary = convert(path(&at("none")), &at(name), flags);
        assert_eq!(
            summary, "converted 0 samples from 0 shards (0 bytes) to 0 shards (0 bytes)",
            "{name}"
        );
        assert_eq!(names(&at(name)), ["index.json"]);
        assert_eq!(fs::read_to_string(at(name).join("index.json")).unwrap(), NO_SHARDS);
    }
    // What needs to know the columns.
    for flags in [["--to", "parquet"], ["--columns", "text"]] {
        assert_eq!(
            refused(&[&[path(&at("none")), path(&at("out"))], &flags[..]].concat()),
            format!(
                "mds-inspect: dataset {}: the dataset has no shards, and so no columns; give one \
                 with samples; or write a dataset, without --columns",
                at("none").display()
            )
        );
    }
    assert!(!at("out").exists());
}

#[test]
fn an_empty_shard_keeps_its_columns_where_there_is_a_place_for_them() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    // Its writer begins with an empty shard if the first sample is larger than the limit.
    let schema = Schema::new([("id", Encoding::Int), ("text", Encoding::Str)]).unwrap();
    let options = WriterOptions { size_limit: Some(300), ..WriterOptions::default() };
    let mut writer = Writer::create(at("empty"), schema, options).unwrap();
    writer.write(&[7.into(), "word ".repeat(100).as_str().into()]).unwrap();
    let mut shards = writer.finish().unwrap();
    assert_eq!(shards.shards[0].samples, 0, "{shards:?}");
    shards.shards.truncate(1);
    fs::write(at("empty/index.json"), shards.to_json()).unwrap();
    fs::remove_file(at("empty/shard.00001.mds")).unwrap();

    for to in ["mds", "json"] {
        let summary = convert(path(&at("empty")), &at(to), &["--to", to]);
        assert!(summary.starts_with("converted 0 samples from 1 shard ("), "{summary}");
        assert_eq!(index(&at(to)).shards.len(), 0);
    }
    let summary = convert(path(&at("empty")), &at("parquet"), &["--to", "parquet"]);
    assert!(summary.contains(" to 1 file ("), "{summary}");
    assert_eq!(names(&at("parquet")), ["part-00000.parquet"]);
    // From there on as from any other source, with its columns.
    convert(path(&at("parquet")), &at("back"), &[]);
    assert_eq!(fs::read_to_string(at("back/index.json")).unwrap(), NO_SHARDS);
    convert(path(&at("parquet")), &at("text"), &["--to", "parquet", "--columns", "text"]);
    assert_eq!(names(&at("text")), ["part-00000.parquet"]);
    let error = refused(&[path(&at("text")), path(&at("out")), "--columns", "id"]);
    assert!(error.ends_with("there is no column \"id\"; the columns are text"), "{error}");
    // A format that cannot hold a column refuses it before it asks for samples.
    let schema = Schema::new([("x", Encoding::Bytes)]).unwrap();
    let options = WriterOptions { format: Format::Mds, ..WriterOptions::default() };
    let mut writer = Writer::create(at("bytes"), schema, options).unwrap();
    writer.write(&[b"a".as_slice().into()]).unwrap();
    writer.finish().unwrap();
    let error = refused(&[path(&at("bytes")), path(&at("out")), "--to", "csv"]);
    assert!(error.contains("column x: the format csv cannot hold bytes; "), "{error}");
}

#[test]
fn text_files_without_rows_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("head.csv"), "a,b\n").unwrap();
    fs::write(at("empty.jsonl"), "").unwrap();
    for source in ["head.csv", "empty.jsonl"].map(at) {
        for to in ["mds", "parquet"] {
            assert_eq!(
                refused(&[path(&source), path(&at("out")), "--to", to]),
                format!(
                    "mds-inspect: dataset {}: there are no samples to convert; give a source that \
                     has some",
                    source.display()
                )
            );
        }
    }
    assert!(!at("out").exists());
    let verified = inspect(&["verify", path(dir.path())]).output();
    assert_eq!(verified.code, 1, "no dataset was made there");
}
