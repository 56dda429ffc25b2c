//! `mds-inspect` with paths at remotes for what it writes and for files of other programs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/bucket.rs"]
mod bucket;
#[path = "support/faultd.rs"]
mod faultd;
#[path = "support/listing.rs"]
mod listing;
#[path = "support/inspect.rs"]
mod program;
mod support;

use std::path::Path;

use bucket::{Bucket, Rule};
use faultd::{Fault, Faultd};
use program::{inspect, path};
use support::{ZIPPED, files, write};

const LINES: &str = "{\"text\": \"one\", \"n\": 1}\n{\"text\": \"two\", \"n\": 2}\n";

fn convert(source: &str, out: &Path, flags: &[&str]) {
    inspect(&[&["convert", source, path(out)], flags].concat()).succeeds();
}

/// Each path of a conversion may be at a remote, with the same result as on this machine.
#[test]
fn parquet_and_plain_files_come_from_and_go_to_remotes() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (source, tmp) = (at("c4"), at("tmp"));
    write(&at("c4/val"), 90, &ZIPPED);
    std::fs::create_dir(&tmp).unwrap();
    convert(path(&source), &at("parquet"), &["--to", "parquet", "--size_limit", "1kb"]);
    let expected = files(&at("parquet"));
    assert!(expected.len() > 2, "{:?}", expected.keys());

    let server = Faultd::start(&at("served"));
    let end = server.url("");
    let options = format!(
        "?endpoint={}&region=us-east-1&access_key_id=AK&secret_access_key=TopSecret",
        end.trim_end_matches('/')
    );
    let web = server.url("web/parquet");
    let flags = ["--to", "parquet", "--size_limit", "1kb"];
    let out = inspect(&[&["convert", path(&source), web.as_str()], &flags[..]].concat());
    let printed = out.succeeds();
    assert!(printed.contains(&format!(" to {} files (", expected.len())), "{printed}");
    assert!(files(&at("served/web/parquet")) == expected);
    // It is there now, and is not written over.
    let again = [&["convert", path(&source), web.as_str()], &flags[..]].concat();
    assert_eq!(
        inspect(&again).fails(),
        format!(
            "mds-inspect: the remote {web} is not empty; choose another one, or delete it first if \
             its data may go"
        )
    );

    // One part that does not arrive takes those before it away.
    server.always_uploads("part-00001", Fault::Refusal(403, "AccessDenied"));
    let failed = server.url("web/failed");
    let run = [&["convert", path(&source), failed.as_str()], &flags[..]].concat();
    let error = inspect(&run).env("TMPDIR", path(&tmp)).fails();
    assert_eq!(
        error,
        format!(
            "mds-inspect: writing {failed}/part-00001.parquet is denied; check the credentials in \
             the environment"
        )
    );
    assert!(files(&at("served/web/failed")).is_empty());
    assert_eq!(std::fs::read_dir(&tmp).unwrap().count(), 0, "a temporary folder stays");
    server.well();

    // Files of other programs, one by one.
    std::fs::write(at("served/web/crawl.jsonl"), LINES).unwrap();
    std::fs::write(at("crawl.jsonl"), LINES).unwrap();
    convert(path(&at("crawl.jsonl")), &at("here"), &[]);
    convert(&server.url("web/crawl.jsonl"), &at("there"), &[]);
    assert!(files(&at("there")) == files(&at("here")));
    convert(&server.url("web/parquet/part-00000.parquet"), &at("part"), &[]);
    convert(path(&at("parquet/part-00000.parquet")), &at("part-here"), &[]);
    assert!(files(&at("part")) == files(&at("part-here")));
    std::fs::write(at("served/web/broken.csv.gz"), "no gzip").unwrap();
    let broken = server.url("web/broken.csv.gz");
    assert!(
        inspect(&["convert", &broken, path(&at("none"))])
            .fails()
            .starts_with(&format!("mds-inspect: {broken} is cut short, damaged or not gzip; ")),
    );
    assert_eq!(
        inspect(&["convert", &server.url("web/none.csv"), path(&at("none"))]).fails(),
        format!(
            "mds-inspect: there is no dataset: neither {0}/index.json nor {0}/val/index.json \
             exists; check the address, and the split if there is one",
            server.url("web/none.csv")
        )
    );

    // A picture.
    let svg = format!("s3://web/order.svg{options}");
    inspect(&["order", path(&source), "--svg", &svg]).succeeds();
    inspect(&["order", path(&source), "--svg", path(&at("order.svg"))]).succeeds();
    let read = |name: &str| std::fs::read(at(name)).unwrap();
    assert!(read("served/web/order.svg") == read("order.svg"));
    assert_eq!(
        inspect(&["order", path(&source), "--svg", "dbfs:/order.svg"]).fails(),
        "mds-inspect: the remote dbfs:/order.svg is of a kind that is not read or written; on \
         Databricks give the mounted path, /dbfs/... or /Volumes/...; elsewhere the s3://, gs:// or \
         abfss:// address of the storage below it"
    );
}

#[test]
fn a_dataset_is_not_written_over_the_splits_of_a_bucket() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("c4");
    write(&source, 20, &ZIPPED);
    let bucket = Bucket::start();
    bucket.put("tok/val/index.json", b"{}");
    // What an interrupted conversion leaves is no obstacle.
    bucket.put("again/shard.00000.mds.zstd", b"half");
    let to = |folder: &str| inspect(&["convert", path(&source), &bucket.address(folder)]);
    assert_eq!(
        to("tok").fails(),
        "mds-inspect: the remote s3://bucket/tok is not empty; choose another one, or delete it \
         first if its data may go"
    );
    assert!(!bucket.keys().contains(&"tok/index.json".to_owned()));
    to("tok/train").succeeds();
    to("again").succeeds();
    assert_eq!(
        to("again").fails(),
        "mds-inspect: the remote s3://bucket/again holds a dataset; choose another one, or delete \
         it first if its data may go"
    );
    bucket.fail(Some(Rule { method: "GET", key: "", after: 0, fault: bucket::Fault::Status(404) }));
    assert_eq!(
        to("none").fails(),
        "mds-inspect: s3://bucket/none does not exist; check the address and the split"
    );
}

/// A file whose path reads like an address that lacks a slash is not taken for what was meant.
#[test]
fn an_address_that_is_refused_is_no_file_to_convert() {
    let dir = tempfile::tempdir().unwrap();
    for (source, refused) in [
        (
            "s3:/bucket/a.csv",
            "has too few slashes for an address; write s3://bucket/a.csv, or ./s3:... for a folder \
             of this name",
        ),
        (
            "dbfs:/bucket/a.csv",
            "is of a kind that is not read or written; on Databricks give the mounted path, \
             /dbfs/... or /Volumes/...; elsewhere the s3://, gs:// or abfss:// address of the \
             storage below it",
        ),
    ] {
        let file = dir.path().join(source);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "id\n1\n").unwrap();
        let convert = |source: &str| {
            let mut run = inspect(&["convert", source, "out"]);
            run.0.current_dir(&dir);
            run
        };
        let message = format!("mds-inspect: the remote {source} {refused}");
        assert_eq!(convert(source).fails(), message);
        assert!(!dir.path().join("out").exists());
        convert(&format!("./{source}")).succeeds();
        std::fs::remove_dir_all(dir.path().join("out")).unwrap();
    }
}
