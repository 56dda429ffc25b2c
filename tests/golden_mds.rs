//! Datasets written by the reference implementation: read, compared value by value, and written
//! again byte for byte.
//!
//! The cases lie in `$MDS_GOLDEN_DIR/mds`, by default `tests/golden/mds`. Each is a folder with
//! `data/` as the reference wrote it, `expected.jsonl` (decoded values and raw bytes of each
//! column) and `case.json` (arguments of the writer, SHA-256 of every decompressed file).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine};
use mds::format::python::float_repr;
use mds::format::{
    Compression, Encoding, Format, HashAlgorithm, Index, IndexOptions, NdArray, Scalar, Schema,
    ShardConfig, ShardFile, ShardInfo, Value, parse_size,
};
use mds::{ErrorKind, Shard, ShardOptions, Writer, WriterOptions};
use serde_json::Value as Json;

#[path = "support/vectors.rs"]
mod vectors;
use vectors::{assert_some_vectors, golden_dir, notice, panic_text};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Returns from the function with a text unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            return Err(format!($($text)*).into());
        }
    };
}

#[test]
fn reference_datasets_are_read_and_reproduced() {
    assert_some_vectors();
    let root = golden_dir();
    let Ok(entries) = fs::read_dir(root.join("mds")) else {
        notice(&format!("SKIPPED: {} has no part mds/", root.display()));
        return;
    };
    let mut cases: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.is_dir()); // a README may lie beside the cases
    cases.sort();

    let (mut ran, mut all_compressed) = (0, Compressed::new());
    let mut failed = Vec::new();
    for case in &cases {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        match catch_unwind(AssertUnwindSafe(|| run_case(case))) {
            Ok(Ok(compressed)) => {
                ran += 1;
                for (extension, count) in compressed {
                    let sum = all_compressed.entry(extension).or_default();
                    sum.equal += count.equal;
                    sum.total += count.total;
                }
            }
            Ok(Err(error)) => failed.push(format!("  {name}: {error}")),
            Err(panic) => failed.push(format!("  {name}: panicked: {}", panic_text(&*panic))),
        }
    }
    let counts = all_compressed
        .iter()
        .map(|(extension, Count { equal, total })| format!("{equal} of {total} {extension}"));
    notice(&format!(
        "{ran} cases of {} passed; compressed files with the reference's very bytes: {}",
        root.join("mds").display(),
        counts.collect::<Vec<_>>().join(", "),
    ));
    assert!(failed.is_empty(), "{} cases failed:\n{}", failed.len(), failed.join("\n"));
    assert!(ran > 0, "no case ran");
}

/// How many compressed files of each extension came out byte for byte as the reference's. Another
/// compressor may choose other bytes; what must be equal is what they decompress to.
type Compressed = BTreeMap<&'static str, Count>;

#[derive(Default)]
struct Count {
    equal: usize,
    total: usize,
}

fn run_case(dir: &Path) -> Outcome<Compressed> {
    let case: Json = read_json(&dir.join("case.json"))?;
    let data = dir.join("data");
    let (index, merged) = read_index(&data)?;
    let samples = read_samples(&data, &index, &case)?;
    check_expected(dir, &index, &samples, merged)?;

    let mut compressed = Compressed::new();
    if case["writer_args"].is_object() {
        reproduce(&data, &case, &index, &samples, &mut compressed)?;
        return Ok(compressed);
    }
    // A merged index: its parts have indexes of their own.
    ensure!(merged, "there are no writer_args");
    let mut parts: Vec<_> = fs::read_dir(&data)?.map(|entry| entry.unwrap().path()).collect();
    parts.retain(|path| path.is_dir());
    parts.sort();
    let mut shards = Vec::new();
    for part in &parts {
        let (index, _) = read_index(part)?;
        let samples = read_samples(part, &index, &case)?;
        let first = index.shards.first().ok_or("a part without shards")?;
        let schema = first.schema();
        write_and_compare(part, schema, first.config(), &index, &samples, &mut compressed)?;
        let folder = part.file_name().unwrap().to_str().unwrap();
        for shard in index.shards {
            shards.push(shard.below(folder)?);
        }
    }
    ensure!(Index { shards } == index, "the parts do not make up the merged index");
    Ok(compressed)
}

/// The index, whose text must come out again byte for byte, and whether it is a merged one.
fn read_index(data: &Path) -> Outcome<(Index, bool)> {
    let text = fs::read_to_string(data.join("index.json"))?;
    if text.contains("\"pkl\"") {
        let refused = Index::parse(text.as_bytes()).unwrap_err();
        ensure!(refused.kind() == ErrorKind::Unsupported, "a pickle: {refused}");
    }
    let index = Index::parse_with(text.as_bytes(), IndexOptions { pickle_bytes: true })?;
    let merged = !text.starts_with("{\"shards\"");
    let ours = if merged { index.to_merged_json() } else { index.to_json() };
    ensure!(ours == text, "index.json differs:\n{ours}\nshould be\n{text}");
    Ok((index, merged))
}

fn read_json(path: &Path) -> Outcome<Json> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// The samples of each shard, after every size, hash and offset was checked.
fn read_samples(dir: &Path, index: &Index, case: &Json) -> Outcome<Vec<Vec<Vec<u8>>>> {
    let mut shards = Vec::new();
    for shard in &index.shards {
        for file in shard.files() {
            let raw = read_raw(dir, shard, file)?;
            let name = file.raw.basename.as_str();
            if let Some(expected) = case["raw_file_sha256"].get(name) {
                let found = HashAlgorithm::Sha256.hex(&raw);
                ensure!(found == *expected, "{name} decompresses to {found}");
            }
        }
        let opened = Shard::open(dir, shard, ShardOptions::default())?;
        shards.push(opened.samples()?.map(|sample| sample.encoded().to_vec()).collect());
    }
    Ok(shards)
}

/// A file of a shard before compression, with all sizes and hashes checked.
fn read_raw(dir: &Path, shard: &ShardInfo, file: ShardFile<'_>) -> Outcome<Vec<u8>> {
    let stored = fs::read(file.stored().basename.join_to(dir))?;
    file.stored().verify(&stored)?;
    let raw = match shard.compression {
        Some(compression) => compression.decompress(&stored, file.raw.bytes)?,
        None => stored,
    };
    file.raw.verify(&raw)?;
    Ok(raw)
}

/// Compares every value with `expected.jsonl`, and encodes each decoded value again.
fn check_expected(dir: &Path, index: &Index, samples: &[Vec<Vec<u8>>], is_merged: bool) -> Outcome {
    let text = fs::read_to_string(dir.join("expected.jsonl"))?;
    let mut expected = text.lines();
    let mut again = Vec::new();
    let mut number = 0;
    for (shard, samples) in index.shards.iter().zip(samples) {
        let (schema, format) = (shard.schema(), &shard.format);
        for sample in samples {
            let line: Json = serde_json::from_str(expected.next().ok_or("too many samples")?)?;
            ensure!(line["i"] == number, "sample {number} is called {}", line["i"]);
            number += 1;
            let values = format.decode_sample(schema, sample)?;
            let columns = line["columns"].as_object().ok_or("no columns")?;
            ensure!(columns.len() == values.len(), "sample {}: other columns", line["i"]);
            for (i, (column, value)) in schema.columns().iter().zip(&values).enumerate() {
                let expected = &columns[&column.name];
                let checked = match format {
                    Format::Mds => check_raw(schema.column_bytes(sample, i)?, expected, is_merged),
                    _ => Ok(()),
                };
                checked
                    .and_then(|()| check_value(&column.encoding, value, expected))
                    .map_err(|error| format!("sample {}, {}: {error}", line["i"], column.name))?;
            }
            format.encode_sample(schema, &values, &mut again)?;
            ensure!(again == *sample, "sample {}: encoding the decoded values differs", line["i"]);
        }
    }
    ensure!(expected.next().is_none(), "too few samples");
    Ok(())
}

fn check_raw(raw: &[u8], expected: &Json, is_merged: bool) -> Outcome {
    // Those of merged parts are given decoded only.
    let is_given = expected.get("raw_b64").or(expected.get("raw_sha256")).is_some();
    ensure!(is_given || is_merged, "there is neither raw_b64 nor raw_sha256");
    if let Some(length) = expected.get("raw_len") {
        ensure!(raw.len() as u64 == *length, "{} raw bytes instead of {length}", raw.len());
    }
    if let Some(base64) = expected.get("raw_b64") {
        ensure!(BASE64_STANDARD.encode(raw) == *base64, "the raw bytes differ");
    }
    if let Some(sha256) = expected.get("raw_sha256") {
        ensure!(HashAlgorithm::Sha256.hex(raw) == *sha256, "the raw bytes differ");
    }
    Ok(())
}

fn check_value(encoding: &Encoding, value: &Value<'_>, expected: &Json) -> Outcome {
    let field = |name: &str| expected[name].as_str().ok_or_else(|| format!("no field {name}"));
    let equal = match (encoding, value) {
        (Encoding::Bytes, Value::Bytes(bytes)) => BASE64_STANDARD.encode(bytes) == field("b64")?,
        (Encoding::Pickle, Value::Bytes(bytes)) => {
            BASE64_STANDARD.encode(bytes) == field("pickle_b64")?
        }
        (Encoding::Str, Value::Str(text)) => *text == field("str")?,
        (Encoding::StrInt | Encoding::Int, Value::Integer(number)) => {
            number.as_str() == field("int")?
        }
        (Encoding::StrDecimal, Value::Decimal(number)) => number.as_str() == field("decimal")?,
        (Encoding::StrFloat | Encoding::Float, Value::Scalar(Scalar::F64(number))) => {
            let bits = hex::encode(number.to_le_bytes());
            float_repr(*number) == field("repr")? && (number.is_nan() || bits == field("f64_bits")?)
        }
        // The vectors hold the values with sorted keys.
        (Encoding::Json, Value::Json(json)) => json.dumps_sorted() == field("json_text")?,
        (Encoding::Int, Value::Int(value)) => value.to_string() == field("int")?,
        (Encoding::Scalar(dtype), Value::Scalar(scalar)) => {
            ensure!(scalar.dtype() == *dtype, "the value is a {}", scalar.dtype());
            match scalar {
                Scalar::U64(value) => value.to_string() == field("int")?,
                Scalar::F16(value) => hex::encode(value.to_le_bytes()) == field("float_bits")?,
                Scalar::F32(value) => hex::encode(value.to_le_bytes()) == field("float_bits")?,
                Scalar::F64(value) => hex::encode(value.to_le_bytes()) == field("float_bits")?,
                _ => scalar.to_i64().ok_or("not an integer")?.to_string() == field("int")?,
            }
        }
        (
            Encoding::NdArray { .. } | Encoding::NdArrayColon,
            Value::NdArray(NdArray { dtype, shape, data }),
        ) => {
            let numbers = match (expected.get("b64"), expected.get("sha256")) {
                (Some(base64), _) => BASE64_STANDARD.encode(data) == *base64,
                (None, Some(sha256)) => HashAlgorithm::Sha256.hex(data) == *sha256,
                // The raw bytes, which were compared, end with the numbers.
                (None, None) => true,
            };
            dtype.as_str() == field("dtype")?
                && Json::from(shape.clone()) == expected["shape"]
                && numbers
        }
        (Encoding::Image(_), value) => {
            if let Value::ImageFile(file) = value {
                let base64 = BASE64_STANDARD.encode(file.bytes());
                ensure!(base64 == field("file_b64")?, "another image file");
            }
            same_image(value, expected)?
        }
        (
            Encoding::JpegArray | Encoding::Jpegarray | Encoding::ImageList(_),
            Value::List(values),
        ) => {
            let images = expected["images"].as_array().ok_or("no field images")?;
            let mut same = images.len() == values.len();
            for (value, expected) in values.iter().zip(images) {
                same &= same_image(value, expected)?;
            }
            same
        }
        _ => false,
    };
    ensure!(equal, "{value:?} instead of {expected}");
    Ok(())
}

/// Compares mode, size and pixels with what Pillow decoded.
fn same_image(value: &Value<'_>, expected: &Json) -> Outcome<bool> {
    let image = match value {
        Value::Image(image) => image.clone().into_owned(),
        Value::ImageFile(file) => file.decode()?,
        _ => return Ok(false),
    };
    let pixels = match (expected.get("pixels_b64"), expected.get("pixels_sha256")) {
        (Some(base64), _) => BASE64_STANDARD.encode(image.pixels()) == *base64,
        (None, Some(sha256)) => HashAlgorithm::Sha256.hex(image.pixels()) == *sha256,
        (None, None) => return Err("no pixels to compare with".into()),
    };
    let size = Json::from(vec![image.width(), image.height()]);
    Ok(pixels && image.mode().name() == expected["mode"] && size == expected["size"])
}

/// Writes the dataset again with the arguments of the case.
fn reproduce(
    data: &Path,
    case: &Json,
    index: &Index,
    samples: &[Vec<Vec<u8>>],
    compressed: &mut Compressed,
) -> Outcome {
    let args = &case["writer_args"];
    let per_shard: Vec<_> = index.shards.iter().map(|shard| Json::from(shard.samples)).collect();
    ensure!(Json::from(per_shard) == case["shard_samples"], "other numbers of samples per shard");

    // In the order of the user's arguments, so that the sorting is ours.
    let mut columns = Vec::new();
    for (name, encoding) in args["columns"].as_object().ok_or("no columns")? {
        let encoding = match encoding.as_str().ok_or("no text")? {
            "pkl" => Encoding::Pickle,
            name => name.parse()?,
        };
        columns.push((name.as_str(), encoding));
    }
    let hashes = args["hashes"].as_array().into_iter().flatten().filter_map(Json::as_str);
    let config = ShardConfig {
        format: format_of(case)?,
        compression: args["compression"].as_str().map(str::parse).transpose()?,
        hashes: hashes.map(str::parse).collect::<Result<_, _>>()?,
        size_limit: match args.get("size_limit") {
            None => WriterOptions::default().size_limit,
            Some(Json::String(text)) => Some(parse_size(text)?),
            Some(limit) => limit.as_u64(),
        },
    };
    write_and_compare(data, &Schema::new(columns)?, config, index, samples, compressed)
}

/// The format that the arguments of the writer ask for.
fn format_of(case: &Json) -> Outcome<Format> {
    let text = |name: &str| case["writer_args"][name].as_str().map(|text| text.to_owned().into());
    let newline = text("newline").unwrap_or_else(|| "\n".into());
    Ok(match case["format"].as_str().ok_or("no format")? {
        "mds" => Format::Mds,
        "json" => Format::Json { newline },
        "csv" => Format::Csv { newline },
        "tsv" => Format::Tsv { newline },
        "xsv" => Format::Xsv { separator: text("separator").ok_or("no separator")?, newline },
        other => return Err(format!("the format {other}").into()),
    })
}

/// Gives the decoded values to the writer, and compares files and index with the reference's.
fn write_and_compare(
    data: &Path,
    schema: &Schema,
    config: ShardConfig,
    index: &Index,
    samples: &[Vec<Vec<u8>>],
    compressed: &mut Compressed,
) -> Outcome {
    let out = tempfile::tempdir()?;
    let format = config.format.clone();
    let mut writer = Writer::create(out.path(), schema.clone(), WriterOptions::from(config))?;
    for sample in samples.iter().flatten() {
        writer.write(&format.decode_sample(schema, sample)?)?;
    }
    let ours = writer.finish()?;

    ensure!(ours.shards.len() == index.shards.len(), "{} shards were written", ours.shards.len());
    let mut all_equal = true;
    for (ours, theirs) in ours.shards.iter().zip(&index.shards) {
        ensure!(ours.samples == theirs.samples, "a shard has {} samples", ours.samples);
        for (our_file, their_file) in ours.files().zip(theirs.files()) {
            // The size and the hashes stand for the bytes where the raw file is not stored.
            ensure!(our_file.raw == their_file.raw, "{:?}", our_file.raw);
            let our_raw = read_raw(out.path(), ours, our_file)?;
            let name = &our_file.raw.basename;
            ensure!(our_raw == read_raw(data, theirs, their_file)?, "{name} differs");
            let (our_zip, their_zip) = (our_file.stored(), their_file.stored());
            ensure!(our_zip.basename == their_zip.basename, "{our_zip:?}");
            if let Some(compression) = theirs.compression {
                let count = compressed.entry(compression.extension()).or_default();
                let equal = fs::read(our_zip.basename.join_to(out.path()))?
                    == fs::read(their_zip.basename.join_to(data))?;
                count.total += 1;
                count.equal += usize::from(equal);
                all_equal &= equal;
                // gzip and Brotli leave the choice to the compressor, and gzip holds the time.
                ensure!(
                    equal || matches!(compression, Compression::Br(_) | Compression::Gz(_)),
                    "{} has other bytes",
                    our_zip.basename
                );
            }
        }
    }
    let written = fs::read_to_string(out.path().join("index.json"))?;
    ensure!(written == ours.to_json(), "the writer returned another index than it wrote");
    ensure!(!all_equal || written == index.to_json(), "index.json differs");
    // Where a compressor's choice differs, all but the size and hashes of what it made is equal.
    let mut but_for_zips = ours;
    for (ours, theirs) in but_for_zips.shards.iter_mut().zip(&index.shards) {
        ours.zip_data.clone_from(&theirs.zip_data);
        ours.zip_meta.clone_from(&theirs.zip_meta);
    }
    ensure!(but_for_zips == *index, "index.json differs:\n{}", but_for_zips.to_json());
    Ok(())
}
