//! `convert parquet`, as a user runs it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray, StructArray};
use arrow_schema::{DataType, Field};
use parquet::arrow::ArrowWriter;
use parquet::basic::Encoding as ParquetEncoding;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::{Value as Json, json};

#[path = "support/faultd.rs"]
mod faultd;
#[path = "support/listing.rs"]
mod listing;
#[path = "support/shards.rs"]
mod shards;
#[path = "support/workshop.rs"]
mod workshop;

use faultd::Faultd;
use workshop::{Workshop, entries, stderr, stdout};

fn statistics(folder: &Path) -> Json {
    serde_json::from_slice(&fs::read(folder.join("statistics.json")).unwrap()).unwrap()
}

/// Rows of two columns, some without text, in row groups of 100.
fn write_parquet(path: &Path, column: &str, rows: std::ops::Range<usize>, nulls: bool) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let text = |row: usize| (!nulls || !row.is_multiple_of(150)).then(|| row_text(row));
    let texts: StringArray = rows.clone().map(text).collect();
    let numbers: Int64Array = rows.map(|row| Some(row as i64)).collect();
    let columns: [(&str, ArrayRef); 2] = [("n", Arc::new(numbers)), (column, Arc::new(texts))];
    let batch =
        RecordBatch::try_from_iter_with_nullable(columns.map(|(n, c)| (n, c, true))).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(100)).build();
    let file = File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn row_text(row: usize) -> String {
    format!("row {row} ").repeat(row % 90)
}

#[test]
fn rows_of_parquet_keep_their_order() {
    let shop = Workshop::new();
    write_parquet(&shop.path("in/a.parquet"), "content", 0..1_050, false);
    write_parquet(&shop.path("in/b.parquet"), "content", 1_050..1_300, false);
    let expected: Vec<Vec<String>> = (0..1_300).map(|row| vec![row_text(row)]).collect();
    for threads in ["1", "4", "20000"] {
        let common = ["parquet", "--path", "in", "--column", "content", "--num_workers", threads];
        let out = shop.converted(&[&common[..], &["--out_root", threads]].concat());
        assert!(shards::read_strings(&shop.path(threads).join("train")) == expected);
        assert!(stderr(&out).starts_with("train: reading 2 files, "), "{}", stderr(&out));
    }
    let made_of = statistics(&shop.path("4/train"));
    assert_eq!(made_of["files"]["in/b.parquet"]["documents"], 250);

    // The same from a bucket, to which Parquet is written as one object.
    for name in ["a", "b"] {
        let bytes = fs::read(shop.path(&format!("in/{name}.parquet"))).unwrap();
        shop.write(&format!("served/bucket/in/{name}.parquet"), bytes);
    }
    let server = Faultd::start(&shop.path("served"));
    let source = server.in_bucket("in");
    shop.converted(&["parquet", "--path", &source, "--column", "content", "--out_root", "there"]);
    assert!(shards::read_strings(&shop.path("there/train")) == expected);
}

/// Row groups of a column that is text by its schema; every 1,234th row but the first is not UTF-8.
fn write_bytes_as_text(path: &Path, groups: usize, rows: usize) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let schema = parse_message_type("message rows { required binary text (UTF8); }").unwrap();
    let file = File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, Arc::new(schema), Arc::default()).unwrap();
    for group in 0..groups {
        let texts: Vec<ByteArray> =
            (group * rows..(group + 1) * rows).map(|row| latin_text(row).into()).collect();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&texts, None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
}

fn latin_text(row: usize) -> Vec<u8> {
    if row > 0 && row.is_multiple_of(1_234) {
        b"caf\xe9".to_vec()
    } else {
        format!("caf\u{e9} {row}").into_bytes()
    }
}

#[test]
fn rows_of_parquet_that_are_not_utf_8_are_skipped_one_by_one() {
    let shop = Workshop::new();
    write_bytes_as_text(&shop.path("in/a.parquet"), 3, 2_000);
    let expected: Vec<Vec<String>> = (0..6_000)
        .filter_map(|row| String::from_utf8(latin_text(row)).ok())
        .map(|text| vec![text])
        .collect();
    assert_eq!(expected.len(), 5_996);
    let problem = |row| format!("in/a.parquet, row {row}: not UTF-8 text after byte 3");
    let rows = [1_234, 2_468, 3_702, 4_936].map(problem);
    let common = ["parquet", "--path", "in", "--size_limit", "4kb"];
    let skip = [&common[..], &["--on_bad_line", "skip"]].concat();
    let said = stderr(&shop.converted(&[&skip[..], &["--out_root", "out"]].concat()));
    let end = format!("train: 4 unreadable documents skipped:\n  {}\n", rows.join("\n  "));
    assert!(said.ends_with(&end), "{said}");
    assert_eq!(statistics(&shop.path("out/train"))["skipped_documents"], json!(rows));
    assert!(shards::read_strings(&shop.path("out/train")) == expected);

    // What lies before the row that ended a run is gone on from.
    let refused = shop.refused(&[&common[..], &["--out_root", "again"]].concat());
    let remedy = "correct the row, or leave such rows out with --on_bad_line skip";
    assert_eq!(refused, format!("{}; {remedy}", rows[0]));
    let said = stderr(&shop.converted(&[&skip[..], &["--out_root", "again"]].concat()));
    assert!(said.contains("train: going on with the "), "{said}");
    assert!(said.ends_with(&end), "{said}");
    assert_eq!(folder_bytes(&shop.path("again/train")), folder_bytes(&shop.path("out/train")));
}

fn folder_bytes(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let read = |name: String| (name.clone(), fs::read(folder.join(name)).unwrap());
    entries(folder).into_iter().map(read).collect()
}

#[test]
fn parquet_that_cannot_be_read_is_named() {
    let shop = Workshop::new();
    write_parquet(&shop.path("a.parquet"), "content", 0..10, false);
    let refused = |path: &str, flags: &[&str]| {
        shop.refused(&[&["parquet", "--path", path, "--out_root", "x"], flags].concat())
    };
    assert_eq!(
        refused("a.parquet", &[]),
        "a.parquet has no column \"text\", but n, content; name the column with the text with --column"
    );
    assert_eq!(
        refused("a.parquet", &["--column", "n"]),
        "the column \"n\" of a.parquet holds Int64, not text; name the column with the text with --column"
    );
    write_parquet(&shop.path("nulls.parquet"), "text", 0..400, true);
    assert_eq!(
        refused("nulls.parquet", &[]),
        "nulls.parquet, row 0: the text is missing (null); correct the row, or leave such rows out \
         with --on_bad_line skip"
    );
    let skip = ["parquet", "--path", "nulls.parquet", "--out_root", "out", "--on_bad_line", "skip"];
    let said = stderr(&shop.converted(&skip));
    assert!(said.contains("train: 3 unreadable documents skipped:\n"), "{said}");
    assert!(said.ends_with("\n  nulls.parquet, row 300: the text is missing (null)\n"), "{said}");

    let whole = fs::read(shop.path("a.parquet")).unwrap();
    shop.write("cut.parquet", &whole[..whole.len() / 2]);
    let error = refused("cut.parquet", &["--column", "content"]);
    assert!(error.starts_with("cut.parquet: cannot be read as Parquet: "), "{error}");
    assert!(
        error.ends_with("; the file is damaged or cut short: fetch or write it again"),
        "{error}"
    );
    shop.write("notes.txt", "x");
    assert_eq!(
        refused("notes.txt", &[]),
        "notes.txt is not a kind of file that can be read; give it a name that ends in .parquet"
    );
}

/// Of bytes all over what describes the rows, since the reader panics at some damage.
#[test]
fn parquet_whose_description_is_damaged_is_converted_whole_or_refused() {
    let shop = Workshop::new();
    write_parquet(&shop.path("a.parquet"), "text", 1..10, false);
    let whole = fs::read(shop.path("a.parquet")).unwrap();
    let length: [u8; 4] = whole[whole.len() - 8..whole.len() - 4].try_into().unwrap();
    let description = whole.len() - 8 - u32::from_le_bytes(length) as usize;
    for byte in (description..whole.len()).step_by(4) {
        let mut damaged = whole.clone();
        damaged[byte] ^= 1;
        shop.write("a.parquet", damaged);
        let run = shop.convert(&["parquet", "--path", "a.parquet", "--out_root", "out"]);
        let said = stderr(&run);
        if run.status.success() {
            assert_eq!(shards::read_strings(&shop.path("out/train")).len(), 9, "byte {byte}");
            fs::remove_dir_all(shop.path("out")).unwrap();
        } else {
            assert_eq!(run.status.code(), Some(1), "byte {byte}: {said}");
            assert!(said.contains("a.parquet") && !said.contains("defect"), "byte {byte}: {said}");
            assert!(!shop.path("out/train").exists(), "byte {byte}");
        }
    }
}

/// Rows that share one long text are few bytes in the file, and many in memory if they are read at once.
#[test]
fn rows_that_share_a_long_text_take_bounded_memory() {
    let shop = Workshop::new();
    let text = "all the same ".repeat(1 << 16);
    let texts: ArrayRef = Arc::new(StringArray::from(vec![text.as_str(); 800]));
    let others: ArrayRef = Arc::new(Int64Array::from_iter_values(0..800));
    let pairs = StructArray::from(vec![
        (Arc::new(Field::new("a", DataType::Int64, false)), Arc::clone(&others)),
        (Arc::new(Field::new("b", DataType::Int64, false)), others),
    ]);
    // What stands before the text has two columns of numbers.
    let batch =
        RecordBatch::try_from_iter([("pairs", Arc::new(pairs) as ArrayRef), ("text", texts)]);
    let batch = batch.unwrap();
    let plain = || WriterProperties::builder().set_dictionary_enabled(false);
    let encodings = [
        ("dictionary", WriterProperties::default()),
        (
            "delta",
            plain().set_column_encoding("text".into(), ParquetEncoding::DELTA_BYTE_ARRAY).build(),
        ),
    ];
    for (name, properties) in encodings {
        let mut file = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        assert!(file.len() < 2 << 20, "{name}: {}", file.len());
        shop.write("a.parquet", file);
        let out = shop.converted(&["parquet", "--path", "a.parquet", "--out_root", name]);
        let said = stdout(&out);
        let peak =
            said.lines().find_map(|line| line.strip_prefix("peak memory ")?.strip_suffix(" MiB"));
        let peak: f64 = peak.unwrap_or_else(|| panic!("{said}")).parse().unwrap();
        assert!(peak < 600.0, "{name}: {peak} MiB of {} MiB of text", (800 * text.len()) >> 20);
    }
}
