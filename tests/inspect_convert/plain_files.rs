//! What plain text files may have in them, and where they may lie.

use std::fs;
use std::path::Path;

use mds::format::Compression;
use mds::{Shard, ShardOptions};

use super::program::path;
use super::support::Server;
use super::{convert, index, inspect, refused, values};

/// What no line may be longer than.
const LONGEST: usize = 256 << 20;

fn write_zipped(path: &Path, text: &[u8]) {
    let zip: Compression = "zstd:1".parse().unwrap();
    fs::write(path, zip.compress(text).unwrap()).unwrap();
}

#[test]
fn a_line_that_never_ends_is_refused_by_its_number() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let mut text = b"{\"a\": \"b\"}\n\n{\"a\": \"".to_vec();
    text.resize(text.len() + LONGEST, b'x');
    write_zipped(&at("x.jsonl.zst"), &text);
    assert_eq!(
        refused(&[path(&at("x.jsonl.zst")), path(&at("out"))]),
        format!(
            "mds-inspect: line 3 of {} is longer than 256 MiB; cut it into several objects, each in \
             a line of its own",
            at("x.jsonl.zst").display()
        )
    );
    // A quote that is not ended takes all lines behind it, one of a measure none.
    let mut text = b"a,b\n\"1\n2\",5\" tube\r\n3,\"".to_vec();
    text.extend(b"many words\n".repeat(LONGEST / 11 + 1));
    write_zipped(&at("x.csv.zst"), &text);
    assert_eq!(
        refused(&[path(&at("x.csv.zst")), path(&at("out"))]),
        format!(
            "mds-inspect: the row in line 4 of {} is longer than 256 MiB; cut it into several rows, \
             or end what is quoted in it",
            at("x.csv.zst").display()
        )
    );
    assert!(!at("out").exists());
}

#[test]
fn many_short_lines_are_no_long_one() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    // Quotes within a field that does not begin with one are signs like others.
    let row = format!("5\" tube,\"{}\"\n", "quoted \"\"text\"\"\n".repeat(20_000));
    let rows = 1 + LONGEST / row.len();
    write_zipped(&at("x.csv.zst"), format!("a,b\n{}", row.repeat(rows)).as_bytes());
    let summary = convert(path(&at("x.csv.zst")), &at("out"), &["--columns", "a"]);
    assert!(summary.starts_with(&format!("converted {rows} samples")), "{summary}");
}

#[test]
fn long_lines_are_read_a_few_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let long = "word ".repeat(8 << 20);
    let lines: String = (0..4).map(|n| format!("{{\"n\": {n}, \"text\": \"{long}\"}}\n")).collect();
    write_zipped(&at("x.jsonl.zst"), lines.as_bytes());
    convert(path(&at("x.jsonl.zst")), &at("out"), &["--columns", "n"]);
    let numbers: Vec<_> = values(&at("out")).into_iter().map(|s| s[0].1.clone()).collect();
    assert_eq!(numbers, ["Int(0)", "Int(1)", "Int(2)", "Int(3)"]);
}

#[test]
fn integers_that_floats_would_round_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let source = |name: &str, text: &str| {
        fs::write(at(name), text).unwrap();
        at(name).display().to_string()
    };
    let out = path(&at("out")).to_owned();
    let expected = |source: &str, column: &str, place: &str, integer: &str, remedy: &str| {
        format!(
            "mds-inspect: dataset {source}, column {column}: {place} has the integer {integer}, \
             which no float64 is equal to, and the column is one of float64: it has floats or \
             integers beyond 64 bits; {remedy}"
        )
    };
    let leave_out = "leave the column out: name the others with --columns";
    let texts =
        |integer: &str| format!("write its numbers as texts, as in \"{integer}\", or {leave_out}");
    for (name, text, column, line, integer) in [
        ("mixed", "{\"a\": 0.5}\n\n{\"a\": 9007199254740993}\n", "a", 3, "9007199254740993"),
        ("first", "{\"a\": -9007199254740993}\n{\"a\": 1e3}\n", "a", 1, "-9007199254740993"),
        ("large", "{\"a\": 1}\n{\"a\": 18446744073709551615}\n", "a", 2, "18446744073709551615"),
        (
            "huge",
            "{\"a\": 100000000000000000000000000001}\n",
            "a",
            1,
            "100000000000000000000000000001",
        ),
        ("list", "{\"l\": [1.5, 2]}\n{\"l\": [9007199254740993]}\n", "l", 2, "9007199254740993"),
    ] {
        let source = source(&format!("{name}.jsonl"), text);
        let place = format!("line {line}");
        let remedy = texts(integer);
        assert_eq!(refused(&[&source, &out]), expected(&source, column, &place, integer, &remedy));
    }
    let csv = source("x.csv", "a,b\n1,2.5\n2,9007199254740993\n");
    let remedy = leave_out;
    assert_eq!(refused(&[&csv, &out]), expected(&csv, "b", "sample 1", "9007199254740993", remedy));
    assert!(!at("out").exists());
    convert(&csv, &at("a"), &["--columns", "a"]);
    assert_eq!(values(&at("a")).len(), 2);

    // Those that floats hold, those of a column of integers, and those that are texts.
    let lines = "{\"f\": 9007199254740992, \"i\": 9007199254740993, \"t\": 9007199254740993}\n\
                 {\"f\": 0.5, \"i\": -9223372036854775808, \"t\": \"x\"}\n\
                 {\"f\": 100000000000000000000, \"i\": 1, \"t\": \"y\"}\n";
    convert(&source("held.jsonl", lines), &at("held"), &[]);
    let schema = index(&at("held")).shards[0].schema().clone();
    let encodings: Vec<_> = schema.columns().iter().map(|c| c.encoding.to_string()).collect();
    assert_eq!(encodings, ["float64", "int", "json"]);
    let of = |column: usize| -> Vec<String> {
        values(&at("held")).iter().map(|sample| sample[column].1.clone()).collect()
    };
    let floats = ["9007199254740992.0", "0.5", "1e20"].map(|f| format!("Scalar(F64({f}))"));
    assert_eq!(of(0), floats);
    assert_eq!(of(1), ["Int(9007199254740993)", "Int(-9223372036854775808)", "Int(1)"]);
    assert_eq!(raw(&at("held"), "t"), ["9007199254740993", "\"x\"", "\"y\""]);
}

/// The stored texts of a column.
fn raw(dataset: &Path, column: &str) -> Vec<String> {
    let info = &index(dataset).shards[0];
    let shard = Shard::open(dataset, info, ShardOptions::default()).unwrap();
    let texts = shard.samples().unwrap().map(|sample| sample.str(column).unwrap().to_owned());
    texts.collect()
}

#[test]
fn what_is_not_of_one_kind_is_json_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let metas = [
        r#"{"n": 1, "tags": ["a"]}"#,
        r#"{"tags": "b", "n": "two", "x": 9007199254740993}"#,
        r#"{"lang": "\ud83d", "y": 1.0, "z": null, "b": [1, 2.5, true, "x"]}"#,
    ];
    let kinds = ["1", "true", "\"x\""];
    let lists = ["[[1], [2, 3]]", "[]", "[1, \"a\"]"];
    let empty = ["[]", "[1]", "[1, null]"];
    let nulls = ["null", "null", "null"];
    let columns = [metas, kinds, lists, empty, nulls];
    let lines: String = (0..3)
        .map(|row| {
            let [meta, kind, list, empty, null] = columns.map(|column| column[row]);
            format!(
                "{{\"k\": {kind}, \"m\": {meta}, \"l\": {list}, \"e\": {empty}, \"n\": {null}, \
                 \"i\": [{row}], \"f\": [0.5, {row}]}}\n"
            )
        })
        .collect();
    fs::write(at("x.jsonl"), lines).unwrap();
    convert(path(&at("x.jsonl")), &at("mds"), &[]);
    convert(path(&at("x.jsonl")), &at("parquet"), &["--to", "parquet"]);
    convert(path(&at("parquet")), &at("back"), &[]);
    for dataset in [at("mds"), at("back")] {
        let schema = index(&dataset).shards[0].schema().clone();
        let encodings = schema.columns().iter().map(|c| format!("{} {}", c.name, c.encoding));
        let expected = [
            "e json",
            "f ndarray:float64",
            "i ndarray:int64",
            "k json",
            "l json",
            "m json",
            "n json",
        ];
        assert_eq!(encodings.collect::<Vec<_>>(), expected);
        for (name, column) in ["m", "k", "l", "e", "n"].into_iter().zip(columns) {
            assert_eq!(raw(&dataset, name), column);
        }
    }
    // A key that is missing is no null.
    fs::write(at("y.jsonl"), "{\"a\": {}}\n{\"a\": null}\n{}\n").unwrap();
    let error = refused(&[path(&at("y.jsonl")), path(&at("out"))]);
    let expected = format!(
        "mds-inspect: dataset {}, sample 2, column a: the value is null, and MDS has no nulls; fill the \
         nulls with a value, or drop the rows, before writing",
        at("y.jsonl").display()
    );
    assert_eq!(error, expected);
}

#[test]
fn lines_that_are_no_objects_are_told_by_their_number() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.jsonl");
    let out = dir.path().join("out");
    for (line, why) in [
        (&b"{\"a\": 3,}"[..], "line 3 is not JSON: expected a key in double quotes at byte 8"),
        (b"[1]", "line 3 is not an object"),
        (
            b"{\"a\": \"\xff\"}",
            "line 3 is not UTF-8: invalid utf-8 sequence of 1 bytes from index 7",
        ),
        (b"{\"\\ud83d\": 1}", "line 3 has the key \"\u{fffd}\" with half of a surrogate pair"),
    ] {
        fs::write(&file, [b"{\"a\": 1}\n\n", line, b"\n"].concat()).unwrap();
        let expected = format!(
            "mds-inspect: cannot read {} as JSON lines; give one JSON object in each line ({why})",
            file.display()
        );
        assert_eq!(refused(&[path(&file), path(&out)]), expected);
    }
}

/// Comparing all pairs of them would take minutes.
#[test]
fn very_many_columns_are_converted_soon() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let members: Vec<String> = (0..60_000).map(|n| format!("\"k{n}\": {n}")).collect();
    fs::write(at("x.jsonl"), format!("{{{}}}\n", members.join(", "))).unwrap();
    let started = std::time::Instant::now();
    convert(path(&at("x.jsonl")), &at("mds"), &[]);
    convert(path(&at("mds")), &at("zstd"), &["--compression", "zstd"]);
    let took = started.elapsed();
    assert!(took.as_secs() < 20, "{took:?}");
}

#[test]
fn the_output_does_not_lie_around_its_input() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("data/raw")).unwrap();
    fs::write(at("data/raw/x.jsonl"), "{\"a\": 1}\n").unwrap();
    let file = path(&at("data/raw/x.jsonl")).to_owned();
    convert(&file, &at("data/parquet"), &["--to", "parquet"]);
    let parquet = path(&at("data/parquet")).to_owned();
    let part = format!("{parquet}/part-00000.parquet");
    let raw = path(&at("data/raw")).to_owned();
    let data = path(&at("data")).to_owned();
    for (source, out, input) in [
        (&file, raw.clone(), &file),
        (&file, format!("file://{raw}"), &file),
        (&file, format!("{raw}/../raw"), &file),
        (&file, data.clone(), &file),
        (&parquet, parquet.clone(), &part),
        (&parquet, format!("file://{parquet}"), &part),
        (&part, data, &part),
    ] {
        for to in ["mds", "parquet"] {
            assert_eq!(
                refused(&[source, &out, "--to", to]),
                format!(
                    "mds-inspect: {out} is to be written, but the input {input} lies there; write to \
                     another place"
                )
            );
        }
    }
    assert_eq!(fs::read_dir(&raw).unwrap().count(), 1);
    // Beside the input is the usual place.
    convert(&file, &at("data/raw/x"), &[]);
    convert(&parquet, &at("data/parquet/mds"), &[]);

    let server = Server::start(dir.path());
    let url = server.url("data/raw");
    assert_eq!(
        refused(&[&format!("{url}/x.jsonl"), &format!("{url}/")]),
        format!(
            "mds-inspect: {url}/ is to be written, but the input {url}/x.jsonl lies there; write to \
             another place"
        )
    );
}

#[cfg(unix)]
#[test]
fn a_link_lies_where_it_is_and_where_it_leads_to() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for folder in ["a", "b"] {
        fs::create_dir(at(folder)).unwrap();
    }
    fs::write(at("a/x.csv"), "n\n1\n").unwrap();
    std::os::unix::fs::symlink(at("a/x.csv"), at("b/y.csv")).unwrap();
    for folder in ["a", "b"] {
        let mut run = inspect(&["convert", "y.csv", path(&at(folder))]);
        run.0.current_dir(at("b"));
        let expected = format!(
            "mds-inspect: {} is to be written, but the input y.csv lies there; write to another place",
            at(folder).display()
        );
        assert_eq!(run.fails(), expected);
    }
}
