//! Indexes as the reference writes them, and damaged ones.

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
    let entry = &ONE_SHARD["{\"shards\": [".len()..ONE_SHARD.len() - "], \"version\": 2}".len()];
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
            format!("the index has version {version}, but only version 2 is supported; {remedy}")
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
    for (text, found, end) in
        [("null", "null", 4), ("\"x\"", "string \"x\"", 3), ("[2, []]", "sequence", 0)]
    {
        assert_eq!(
            message(text, ErrorKind::Corrupt),
            format!(
                "the index is empty or damaged: invalid type: {found}, expected an object with the \
                 fields `version` and `shards` at line 1 column {end}; {REMEDY}"
            )
        );
    }
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
        ("\"samples\": 3", "\"samples\": 4294967296", "the shard cannot hold 4294967296 samples"),
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
        format!("shard shard.00000.mds: the file has 4 bytes, but the index declares 3; {remedy}")
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
