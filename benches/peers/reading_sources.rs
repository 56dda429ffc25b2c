//! How fast the files of a source are read, and how fast their decompressor alone is, on one thread.
//!
//! `reading FOLDER SOURCE.json.gz...` writes the texts of the sources to FOLDER as `.jsonl.zst` and `.parquet`, both zstd,
//! unless they are there, reads each in both ways in turns, and prints the best seconds as a line of JSON.

#![allow(clippy::unwrap_used, reason = "a failed measurement ends the program")]

use std::fs::File;
use std::hint::black_box;
use std::io::{BufReader, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use convert::source::{Format, Raw, files_of};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};

/// Documents of a row group.
const ROWS: usize = 2_000;
const TURNS: usize = 7;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().unwrap();
    let (lines, table) = (format!("{folder}/text.jsonl.zst"), format!("{folder}/text.parquet"));
    if !Path::new(&table).exists() {
        let texts: Vec<String> = arguments.flat_map(|source| texts(&source)).collect();
        write_lines(&lines, &texts);
        write_table(&table, &texts);
    }
    let parquet = Format::Parquet { column: "text".to_owned() };
    let zstd = best([&|| read(&lines, &Format::JsonLines), &|| decompress(&lines)]);
    let parquet = best([&|| read(&table, &parquet), &|| decompress_pages(&table)]);
    let row = |[ours, alone]: [f64; 2]| serde_json::json!({ "ours": ours, "alone": alone });
    println!("{}", serde_json::json!({ "zstd": row(zstd), "parquet": row(parquet) }));
}

fn texts(source: &str) -> Vec<String> {
    let mut texts = Vec::new();
    for file in files_of(source, &Format::JsonLines).unwrap() {
        let add = |_, raw: Raw<'_>| {
            if let Raw::Json(line) = raw {
                let value: serde_json::Value = serde_json::from_slice(line).unwrap();
                texts.push(value["text"].as_str().unwrap().to_owned());
            }
        };
        file.for_each(add).unwrap();
    }
    texts
}

fn write_lines(path: &str, texts: &[String]) {
    let mut writer = zstd::Encoder::new(File::create(path).unwrap(), 3).unwrap();
    for text in texts {
        writeln!(writer, "{}", serde_json::json!({ "text": text })).unwrap();
    }
    writer.finish().unwrap();
}

fn write_table(path: &str, texts: &[String]) {
    let zstd = Compression::ZSTD(ZstdLevel::try_new(3).unwrap());
    // Texts are all different: a dictionary would be in vain.
    let properties = WriterProperties::builder()
        .set_compression(zstd)
        .set_dictionary_enabled(false)
        .set_max_row_group_row_count(Some(ROWS))
        .build();
    let column: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
    let batch = RecordBatch::try_from_iter([("text", column)]).unwrap();
    let file = File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// The least seconds of each, in turns.
fn best(ways: [&dyn Fn() -> usize; 2]) -> [f64; 2] {
    let mut best = [f64::INFINITY; 2];
    for _ in 0..TURNS {
        for (way, best) in ways.iter().zip(&mut best) {
            let started = Instant::now();
            black_box(way());
            *best = best.min(started.elapsed().as_secs_f64());
        }
    }
    best
}

/// Every document of the source, as stored; those of a table are checked to be text.
fn read(path: &str, format: &Format) -> usize {
    let mut bytes = 0;
    for file in files_of(path, format).unwrap() {
        let count = |_, raw: Raw<'_>| match raw {
            Raw::Json(line) => bytes += line.len(),
            Raw::Bytes(text) => bytes += std::str::from_utf8(text).unwrap().len(),
            _ => {}
        };
        file.for_each(count).unwrap();
    }
    bytes
}

#[allow(
    clippy::disallowed_types,
    reason = "a file that this program has written, read as a stream"
)]
fn decompress(path: &str) -> usize {
    let file = BufReader::with_capacity(128 << 10, File::open(path).unwrap());
    let mut decoder = zstd::stream::read::Decoder::with_buffer(file).unwrap();
    let (mut buffer, mut bytes) = (vec![0; 256 << 10], 0);
    loop {
        match decoder.read(&mut buffer).unwrap() {
            0 => return bytes,
            read => bytes += read,
        }
    }
}

/// The pages, without a look at what is in them.
fn decompress_pages(path: &str) -> usize {
    let file = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
    let mut bytes = 0;
    for group in 0..file.num_row_groups() {
        let group = file.get_row_group(group).unwrap();
        let mut pages = group.get_column_page_reader(0).unwrap();
        while let Some(page) = pages.get_next_page().unwrap() {
            bytes += page.buffer().len();
        }
    }
    bytes
}
