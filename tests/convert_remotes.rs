//! `convert-c4 --source` and `preprocess-data --input` at remotes: the same dataset as from files of this machine, whatever
//! the server does, or an error that names the object.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/bucket.rs"]
mod bucket;
#[path = "support/faultd.rs"]
mod faultd;
#[path = "support/listing.rs"]
mod listing;
#[path = "support/workshop.rs"]
mod workshop;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bucket::Bucket;
use faultd::{Fault, Faultd};
use workshop::{Workshop, stderr};

const VALIDATION: &str = "c4-validation.00000-of-00001.json.gz";

/// The committed sample of C4, `en` and all.
fn sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/c4-sample/en")
}

/// A server whose bucket and whose web folder hold the sample below `c4/en`.
fn server(shop: &Workshop) -> Faultd {
    for place in ["bucket", "web"] {
        for entry in fs::read_dir(sample()).unwrap() {
            let entry = entry.unwrap();
            let name = format!("served/{place}/c4/en/{}", entry.file_name().to_str().unwrap());
            shop.write(&name, fs::read(entry.path()).unwrap());
        }
    }
    Faultd::start(&shop.path("served"))
}

fn convert(shop: &Workshop, source: &str, out: &str) -> BTreeMap<String, Vec<u8>> {
    shop.succeed(&["--source", source, "--out_root", out, "--splits", "val"]);
    let entries = fs::read_dir(shop.path(out).join("val")).unwrap().map(|entry| entry.unwrap());
    // The statistics say where the files came from.
    entries
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with("statistics."))
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect()
}

#[test]
fn remotes_give_what_files_give() {
    let shop = Workshop::new();
    let server = server(&shop);
    let here = convert(&shop, sample().to_str().unwrap(), "here");
    let folder = format!("file://{}", fs::canonicalize(sample()).unwrap().display());
    let sources = [
        folder,
        server.in_bucket("c4"),
        server.in_bucket("c4/en/"),
        server.in_bucket("c4/en/*.json.gz"),
        server.in_bucket(&format!("c4/en/{VALIDATION}")),
        server.url(&format!("web/c4/en/{VALIDATION}")),
    ];
    for (number, source) in sources.iter().enumerate() {
        assert!(convert(&shop, source, &number.to_string()) == here, "{source}");
    }
    // Each split takes its own from a bucket as well.
    let source = server.in_bucket("c4");
    server.reset_requests();
    shop.succeed(&["--source", &source, "--out_root", "both"]);
    assert_eq!(fs::read_dir(shop.path("both")).unwrap().count(), 2);
    assert_eq!(server.requests_for("c4-train.00001"), 1, "{:?}", server.requests());
}

/// Lines of JSON that take several parts of 8 MiB.
fn long_file() -> String {
    (0..50_000)
        .map(|n| {
            let text = format!("{n} is a number that has a place of its own here. ").repeat(8);
            format!("{{\"text\":\"{text}\",\"timestamp\":\"t\",\"url\":\"u{n}\"}}\n")
        })
        .collect()
}

#[test]
fn a_storm_is_survived_part_by_part() {
    let shop = Workshop::new();
    let text = long_file();
    assert!(text.len() > 20 << 20, "{}", text.len());
    let local = shop.write("here.jsonl", &text);
    for place in ["bucket", "web"] {
        shop.write(&format!("served/{place}/in/long.jsonl"), &text);
    }
    let here = convert(&shop, local.to_str().unwrap(), "here");
    let server = Faultd::start(&shop.path("served"));
    let storms: [&[Fault]; 2] = [&[Fault::Status(503)], &[Fault::ResetInBody, Fault::Truncated]];
    for (number, storm) in storms.into_iter().enumerate() {
        for source in [server.in_bucket("in"), server.url("web/in/long.jsonl")] {
            server.storm("long.jsonl", storm, 3);
            let out = format!("{number}-{}", &source[..4]);
            assert!(convert(&shop, &source, &out) == here, "{storm:?} {source}");
        }
    }

    // Two versions of a file are never joined.
    server.next_parts(8 << 20, &[Fault::ChangedTag]);
    let source = server.in_bucket("in/long.jsonl");
    assert_eq!(
        shop.fail(&["--source", &source, "--out_root", "out", "--splits", "val"]),
        "s3://bucket/in/long.jsonl changed while it was read; do not write over a dataset that is \
         in use; try again when it is complete"
    );

    // So parts that do not say of which version they are are not even asked for.
    server.always("long.jsonl", Fault::Unversioned);
    server.reset_requests();
    assert!(convert(&shop, &server.url("web/in/long.jsonl"), "unversioned") == here);
    assert_eq!(server.requests_for("long.jsonl"), 3, "the size, a part, all of it");

    // Who has no parts gives all of it.
    let whole = Bucket::start();
    whole.put("in/long.jsonl", text.as_bytes());
    assert!(convert(&shop, &whole.address("in"), "whole") == here);

    // Names are encoded in addresses.
    whole.put("in/ä b.jsonl", text.as_bytes());
    let source = whole.web_address("in/%C3%A4%20b.jsonl");
    assert!(convert(&shop, &source, "strange") == here);
}

/// Two lines, a text, and an archive whose end is read first.
fn write_documents(shop: &Workshop, folder: &str) {
    shop.write(&format!("{folder}/a.jsonl"), "{\"text\":\"one\"}\n{\"text\":\"two\"}\n");
    shop.write(&format!("{folder}/b.txt"), "three");
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    archive.start_file("c", zip::write::SimpleFileOptions::default()).unwrap();
    std::io::Write::write_all(&mut archive, b"four").unwrap();
    shop.write(&format!("{folder}/c.zip"), archive.finish().unwrap().into_inner());
    shop.write(&format!("{folder}/notes.md"), "not read");
    shop.write(&format!("{folder}/below/d.txt"), "nor this");
}

#[test]
fn indexed_datasets_are_made_of_remotes() {
    let shop = Workshop::of(env!("CARGO_BIN_EXE_preprocess-data"));
    for folder in ["in", "served/bucket/in", "served/web/in"] {
        write_documents(&shop, folder);
    }
    let server = Faultd::start(&shop.path("served"));
    let bytes = ["--tokenizer-type", "CharLevelTokenizer", "--append-eod"];
    let made = |input: &str, prefix: &str| {
        shop.succeed(&[&["--input", input, "--output-prefix", prefix][..], &bytes].concat());
        ["bin", "idx"]
            .map(|end| fs::read(shop.path(&format!("{prefix}_text_document.{end}"))).unwrap())
    };
    let here = made("in", "here");
    assert_eq!(here[0].len(), 2 * ("onetwothreefour".len() + 4));
    let web = ["a.jsonl", "b.txt", "c.zip"].map(|name| server.url(&format!("web/in/{name}")));
    let one_by_one =
        ["a.jsonl", "b.txt", "c.zip"].map(|name| server.in_bucket(&format!("in/{name}")));
    server.storm("/in/", &[Fault::Status(503), Fault::ResetInBody], 3);
    let inputs = [server.in_bucket("in"), one_by_one.join(","), web.join(",")];
    for (number, input) in inputs.iter().enumerate() {
        assert!(made(input, &number.to_string()) == here, "{input}");
    }

    server.well();
    let refused = |input: &str| {
        let mut args = vec!["--input", input, "--output-prefix", "none"];
        args.extend(bytes);
        shop.fail(&args)
    };
    assert_eq!(
        refused(&server.in_bucket("in/none.txt")),
        "--input s3://bucket/in/none.txt not found; check the address"
    );
    let kinds = ".jsonl, .jsonl.zst, .jsonl.gz, .jsonl.zst.tar, .json.gz, .json.zst, .txt, .zip, .tar.gz, \
                 .tar.xz, _data.xz, .dat.zst or .gz";
    assert_eq!(
        refused(&server.in_bucket("in/below/none")),
        format!(
            "folder s3://bucket/in/below/none holds no file that ends in {kinds}; check the path"
        )
    );
    assert_eq!(
        refused(&server.url("web/in/notes.md")),
        format!(
            "{} is not a kind of file that can be read; give it a name that ends in {kinds}",
            server.url("web/in/notes.md")
        )
    );
    shop.write("served/bucket/in/bad.jsonl", "{\"text\":1}\n");
    let bad = refused(&server.in_bucket("in/bad.jsonl"));
    assert!(bad.starts_with("s3://bucket/in/bad.jsonl, line 1: not JSON with texts: "), "{bad}");
    server.always("a.jsonl", Fault::Status(403));
    let denied = refused(&server.in_bucket("in/a.jsonl"));
    assert!(denied.contains("s3://bucket/in/a.jsonl"), "{denied}");
    assert!(!denied.contains("TopSecret"), "{denied}");
}

#[test]
fn what_cannot_be_read_is_named_without_keys() {
    let shop = Workshop::new();
    let server = server(&shop);
    let fail = |source: &str| {
        let args = ["--source", source, "--out_root", "out", "--splits", "val"];
        let message = shop.fail(&args);
        assert!(!message.contains("TopSecret"), "{message}");
        assert!(!shop.path("out/val").exists());
        message
    };
    let kinds = ".json, .jsonl, .json.gz, .jsonl.gz or .zst";
    assert_eq!(
        fail(&server.in_bucket("c4/none.jsonl")),
        "s3://bucket/c4 has no none.jsonl; check the address"
    );
    assert_eq!(
        fail(&server.in_bucket("empty")),
        format!("s3://bucket/empty has no file that ends in {kinds}; check the address")
    );
    assert_eq!(
        fail(&server.in_bucket("c4/en/*.jsonl")),
        format!(
            "s3://bucket/c4/en has no file that matches *.jsonl and ends in {kinds}; check the address"
        )
    );
    let web = server.url("web/c4");
    assert_eq!(
        fail(&web),
        format!("{web} cannot be listed; give the address of one file, which ends in {kinds}")
    );
    assert_eq!(
        fail("dbfs:/x?secret=TopSecret"),
        shop.fail(&["--source", "x", "--out_root", "dbfs:/x", "--splits", "val"])
    );
    assert_eq!(
        fail("s3:/b/c4"),
        "the remote s3:/b/c4 has too few slashes for an address; write s3://b/c4, or ./s3:... \
         for a folder of this name"
    );
    let train = server.in_bucket("c4/en/c4-train.*.json.gz");
    assert_eq!(
        fail(&train),
        "s3://bucket/c4/en/c4-train.*.json.gz holds no file of split val (c4-validation.*); name \
         another source or other --splits"
    );

    // Refused while it is read, and cut off where it is stored.
    let source = server.in_bucket("c4");
    server.by_path(&[("c4-validation", Fault::Refusal(403, "AccessDenied"))]);
    assert_eq!(
        fail(&source),
        format!(
            "access to s3://bucket/c4/en/{VALIDATION} is denied; check the credentials in the \
             environment"
        )
    );
    server.well();
    let cut = fs::read(sample().join(VALIDATION)).unwrap();
    shop.write(&format!("served/bucket/c4/en/{VALIDATION}"), &cut[..cut.len() / 2]);
    let message = fail(&source);
    let name = format!("s3://bucket/c4/en/{VALIDATION}: cannot read after byte {}", cut.len() / 2);
    assert!(message.starts_with(&name), "{message}");
}

#[test]
fn help_names_remotes() {
    let help = Workshop::new().succeed(&["--help"]);
    let help = String::from_utf8(help.stdout.clone()).unwrap() + &stderr(&help);
    assert!(help.contains("--source s3://bucket/c4/en"), "{help}");
}
