//! Datasets written by the reference implementation: read, compared value by value, and written
//! again byte for byte.
//!
//! The cases lie in `$MDS_GOLDEN_DIR/mds`, by default `tests/golden/mds`. Each is a folder with
//! `data/` as the reference wrote it, `expected.jsonl` (decoded values and raw bytes of each
//! column) and `case.json` (arguments of the writer, SHA-256 of every decompressed file).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::any::Any;
use std::fs;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine};
use mds::format::{
    Encoding, HashAlgorithm, Index, NdArray, RawShard, Scalar, Schema, ShardBuilder, ShardConfig,
    ShardInfo, ShardTable, Value, parse_size,
};
use mds::{ErrorKind, Writer, WriterOptions};
use serde_json::Value as Json;

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
    // A test runs in its crate's folder; who sets a relative path means it from the workspace's root.
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(std::env::var_os("MDS_GOLDEN_DIR").unwrap_or("tests/golden".into()));
    // Vectors of the order alone are cases too: tests/golden_order.rs runs those.
    let parts = ["mds", "numpy_rng.json", "primitives", "order", "e2e"];
    let some = parts.iter().any(|part| root.join(part).exists());
    assert!(some, "there are no golden vectors in {}", root.display());
    let Ok(entries) = fs::read_dir(root.join("mds")) else {
        notice(&format!("SKIPPED: {} has no part mds/", root.display()));
        return;
    };
    let mut cases: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.is_dir()); // a README may lie beside the cases
    cases.sort();

    let (mut ran, mut zstd_equal, mut zstd_total) = (0, 0, 0);
    let (mut out_of_scope, mut failed) = (Vec::new(), Vec::new());
    for case in &cases {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        match catch_unwind(AssertUnwindSafe(|| run_case(case))) {
            Ok(Ok(Verdict::Passed(zstd))) => {
                ran += 1;
                zstd_equal += zstd.equal;
                zstd_total += zstd.total;
            }
            Ok(Ok(Verdict::OutOfScope(why))) => out_of_scope.push(format!("  {name}: {why}")),
            Ok(Err(error)) => failed.push(format!("  {name}: {error}")),
            Err(panic) => failed.push(format!("  {name}: panicked: {}", panic_text(&*panic))),
        }
    }
    notice(&format!(
        "{ran} cases of {} passed; {zstd_equal} of {zstd_total} zstd files have the reference's \
         very bytes; {} cases out of scope:\n{}",
        root.join("mds").display(),
        out_of_scope.len(),
        out_of_scope.join("\n")
    ));
    assert!(failed.is_empty(), "{} cases failed:\n{}", failed.len(), failed.join("\n"));
    assert!(ran > 0, "no case ran");
}

/// Written past the capture of the test harness, so that a passing run says what it skipped.
fn notice(text: &str) {
    let _ = writeln!(std::io::stderr(), "golden_mds: {text}");
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?").to_owned()
}

enum Verdict {
    Passed(Zstd),
    OutOfScope(String),
}

/// How many compressed files came out byte for byte as the reference's.
#[derive(Default)]
struct Zstd {
    equal: usize,
    total: usize,
}

fn run_case(dir: &Path) -> Outcome<Verdict> {
    let case: Json = read_json(&dir.join("case.json"))?;
    let data = dir.join("data");
    let text = fs::read_to_string(data.join("index.json"))?;
    let json: Json = serde_json::from_str(&text)?;
    let parsed = Index::parse(text.as_bytes());
    if let Some(why) = out_of_scope(&json) {
        // What is out of scope must be refused as such, not misread.
        match parsed {
            Err(error) if error.kind() == ErrorKind::Unsupported => {}
            other => {
                return Err(format!("{why} is out of scope, but parsing gave {other:?}").into());
            }
        }
        return Ok(Verdict::OutOfScope(why));
    }
    let index = parsed?;
    check_index(&index, &text, &json)?;
    let samples = read_samples(&data, &index, &case)?;
    check_expected(dir, &index, &samples)?;

    let mut zstd = Zstd::default();
    if case["writer_args"].is_object() {
        reproduce(&data, &case, &index, &samples, &mut zstd)?;
    } else {
        // A merged index: its parts have indexes of their own.
        let mut parts = 0;
        for entry in fs::read_dir(&data)? {
            let part = entry?.path();
            if !part.is_dir() {
                continue;
            }
            parts += 1;
            let text = fs::read_to_string(part.join("index.json"))?;
            let index = Index::parse(text.as_bytes())?;
            check_index(&index, &text, &serde_json::from_str(&text)?)?;
            let samples = read_samples(&part, &index, &case)?;
            let first = index.shards.first().ok_or("a part without shards")?;
            write_and_compare(
                &part,
                first.schema(),
                config_of(first),
                &index,
                &samples,
                &mut zstd,
            )?;
        }
        ensure!(parts > 0, "there are neither writer_args nor parts");
    }
    Ok(Verdict::Passed(zstd))
}

/// The first format, compression or encoding that is not part of this version yet.
fn out_of_scope(index: &Json) -> Option<String> {
    for shard in index["shards"].as_array()? {
        let format = shard["format"].as_str()?;
        if format != "mds" {
            return Some(format!("format {format}"));
        }
        if let Some(compression) = shard["compression"].as_str()
            && compression.split(':').next() != Some("zstd")
        {
            return Some(format!("compression {compression}"));
        }
        for encoding in shard["column_encodings"].as_array()?.iter().filter_map(Json::as_str) {
            if ["pil", "jpeg", "png", "list[", "pkl"].iter().any(|name| encoding.starts_with(name))
            {
                return Some(format!("encoding {encoding}"));
            }
        }
    }
    None
}

fn read_json(path: &Path) -> Outcome<Json> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// Our text of the index is the file's; that of a merged index, whose keys the reference does not
/// sort, holds the same data.
fn check_index(index: &Index, text: &str, json: &Json) -> Outcome {
    let ours = index.to_json();
    if text.starts_with("{\"shards\"") {
        ensure!(ours == text, "index.json differs:\n{ours}\nshould be\n{text}");
    } else {
        ensure!(serde_json::from_str::<Json>(&ours)? == *json, "index.json differs:\n{ours}");
    }
    Ok(())
}

/// The samples of each shard, after every size, hash and offset was checked.
fn read_samples(dir: &Path, index: &Index, case: &Json) -> Outcome<Vec<Vec<Vec<u8>>>> {
    let mut shards = Vec::new();
    for shard in &index.shards {
        let stored = fs::read(shard.stored().basename.join_to(dir))?;
        shard.stored().verify(&stored)?;
        let raw = match shard.compression {
            Some(compression) => compression.decompress(&stored, shard.raw_data.bytes)?,
            None => stored,
        };
        shard.raw_data.verify(&raw)?;
        if let Some(expected) = case["raw_file_sha256"].get(shard.raw_data.basename.as_str()) {
            let found = HashAlgorithm::Sha256.hex(&raw);
            ensure!(found == *expected, "{} decompresses to {found}", shard.raw_data.basename);
        }
        let table = ShardTable::parse(&raw, shard.samples)?;
        let samples = (0..table.len()).map(|i| table.sample(&raw, i).map(<[u8]>::to_vec));
        shards.push(samples.collect::<Result<_, _>>()?);
    }
    Ok(shards)
}

/// Compares every value with `expected.jsonl`, and encodes each decoded value again.
fn check_expected(dir: &Path, index: &Index, samples: &[Vec<Vec<u8>>]) -> Outcome {
    let text = fs::read_to_string(dir.join("expected.jsonl"))?;
    let mut expected = text.lines();
    let mut again = Vec::new();
    for (shard, samples) in index.shards.iter().zip(samples) {
        let schema = shard.schema();
        for sample in samples {
            let line: Json = serde_json::from_str(expected.next().ok_or("too many samples")?)?;
            let values = schema.decode_sample(sample)?;
            let columns = line["columns"].as_object().ok_or("no columns")?;
            ensure!(columns.len() == values.len(), "sample {}: other columns", line["i"]);
            for (i, (column, value)) in schema.columns().iter().zip(&values).enumerate() {
                let raw = schema.column_bytes(sample, i)?;
                check_raw(raw, &columns[&column.name])
                    .and_then(|()| {
                        check_value(&column.encoding, value, raw, &columns[&column.name])
                    })
                    .map_err(|error| format!("sample {}, {}: {error}", line["i"], column.name))?;
            }
            schema.encode_sample(&values, &mut again)?;
            ensure!(again == *sample, "sample {}: encoding the decoded values differs", line["i"]);
        }
    }
    ensure!(expected.next().is_none(), "too few samples");
    Ok(())
}

fn check_raw(raw: &[u8], expected: &Json) -> Outcome {
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

fn check_value(encoding: &Encoding, value: &Value<'_>, raw: &[u8], expected: &Json) -> Outcome {
    let field = |name: &str| expected[name].as_str().ok_or_else(|| format!("no field {name}"));
    let equal = match (encoding, value) {
        (Encoding::Bytes, Value::Bytes(bytes)) => BASE64_STANDARD.encode(bytes) == field("b64")?,
        (Encoding::Str, Value::Str(text)) => *text == field("str")?,
        (Encoding::StrInt, Value::Str(text)) => *text == field("int")?,
        (Encoding::StrDecimal, Value::Str(text)) => *text == field("decimal")?,
        (Encoding::StrFloat, Value::Str(text)) => {
            let bits = hex::encode(text.parse::<f64>()?.to_le_bytes());
            *text == field("repr")? && (*text == "nan" || bits == field("f64_bits")?)
        }
        (Encoding::Json, Value::Str(text)) => same_json(text, field("json_text")?),
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
        (Encoding::NdArray { .. }, Value::NdArray(NdArray { dtype, shape, data })) => {
            let numbers = match expected.get("b64") {
                Some(base64) => BASE64_STANDARD.encode(data) == *base64,
                None => raw.ends_with(data),
            };
            dtype.as_str() == field("dtype")?
                && Json::from(shape.clone()) == expected["shape"]
                && numbers
        }
        _ => false,
    };
    ensure!(equal, "{value:?} instead of {expected}");
    Ok(())
}

/// The vectors hold the JSON values with sorted keys. `NaN` and `Infinity`, which Python writes,
/// are no JSON to others; then the texts without their order must agree.
fn same_json(text: &str, expected: &str) -> bool {
    match (serde_json::from_str::<Json>(text), serde_json::from_str::<Json>(expected)) {
        (Ok(found), Ok(expected)) => found == expected,
        (Err(_), Err(_)) => {
            let sorted = |text: &str| {
                let mut characters: Vec<char> = text.chars().collect();
                characters.sort_unstable();
                characters
            };
            sorted(text) == sorted(expected)
        }
        _ => false,
    }
}

/// Writes the dataset again with the arguments of the case.
fn reproduce(
    data: &Path,
    case: &Json,
    index: &Index,
    samples: &[Vec<Vec<u8>>],
    zstd: &mut Zstd,
) -> Outcome {
    let args = &case["writer_args"];
    let per_shard: Vec<_> = index.shards.iter().map(|shard| Json::from(shard.samples)).collect();
    ensure!(Json::from(per_shard) == case["shard_samples"], "other numbers of samples per shard");

    // In the order of the user's arguments, so that the sorting is ours.
    let mut columns = Vec::new();
    for (name, encoding) in args["columns"].as_object().ok_or("no columns")? {
        columns.push((name.as_str(), encoding.as_str().ok_or("no text")?.parse::<Encoding>()?));
    }
    let hashes = args["hashes"].as_array().into_iter().flatten().filter_map(Json::as_str);
    let config = ShardConfig {
        compression: args["compression"].as_str().map(str::parse).transpose()?,
        hashes: hashes.map(str::parse).collect::<Result<_, _>>()?,
        size_limit: match args.get("size_limit") {
            None => WriterOptions::default().size_limit,
            Some(Json::String(text)) => Some(parse_size(text)?),
            Some(limit) => limit.as_u64(),
        },
    };
    write_and_compare(data, &Schema::new(columns)?, config, index, samples, zstd)
}

fn config_of(shard: &ShardInfo) -> ShardConfig {
    ShardConfig {
        compression: shard.compression,
        hashes: shard.hashes.clone(),
        size_limit: shard.size_limit,
    }
}

/// Gives the raw column bytes to the shard builder and to the writer, and compares shards, index
/// and files with the reference's.
fn write_and_compare(
    data: &Path,
    schema: &Schema,
    config: ShardConfig,
    index: &Index,
    samples: &[Vec<Vec<u8>>],
    zstd: &mut Zstd,
) -> Outcome {
    let out = tempfile::tempdir()?;
    let ShardConfig { compression, hashes, size_limit } = config.clone();
    let options = WriterOptions { compression, hashes, size_limit, ..WriterOptions::default() };
    let mut writer = Writer::create(out.path(), schema.clone(), options)?;
    let mut builder = ShardBuilder::new(schema, config);
    let (mut shards, mut encoded) = (Vec::new(), Vec::new());
    for sample in samples.iter().flatten() {
        let values: Vec<Value<'_>> = (0..schema.columns().len())
            .map(|column| schema.column_bytes(sample, column).map(Value::from))
            .collect::<Result<_, _>>()?;
        schema.encode_sample(&values, &mut encoded)?;
        shards.extend(builder.push(&encoded)?);
        writer.write(&values)?;
    }
    shards.extend(builder.finish());
    let ours = writer.finish()?;

    ensure!(shards.len() == index.shards.len(), "{} shards were built", shards.len());
    ensure!(ours.shards.len() == index.shards.len(), "{} shards were written", ours.shards.len());
    for (RawShard { bytes, .. }, theirs) in shards.iter().zip(&index.shards) {
        // The size and the hashes stand for the bytes where the file itself is not stored.
        theirs.raw_data.verify(bytes)?;
    }
    for ((ours, theirs), RawShard { bytes, samples, .. }) in
        ours.shards.iter().zip(&index.shards).zip(&shards)
    {
        ensure!(u64::from(*samples) == theirs.samples, "a shard has {samples} samples");
        ensure!(ours.raw_data == theirs.raw_data, "{:?}", ours.raw_data);
        let our_file = fs::read(ours.stored().basename.join_to(out.path()))?;
        let their_file = fs::read(theirs.stored().basename.join_to(data))?;
        ensure!(ours.stored().basename == theirs.stored().basename, "{:?}", ours.stored());
        match theirs.compression {
            None => ensure!(our_file == their_file, "{} differs", theirs.stored().basename),
            Some(compression) => {
                zstd.total += 1;
                zstd.equal += usize::from(our_file == their_file);
                let raw = compression.decompress(&our_file, theirs.raw_data.bytes)?;
                ensure!(raw == *bytes, "{} decompresses differently", theirs.stored().basename);
                let theirs = compression.decompress(&their_file, theirs.raw_data.bytes)?;
                ensure!(raw == theirs, "the reference's file decompresses differently");
            }
        }
    }
    let all_equal = ours.shards.iter().zip(&index.shards).all(|(ours, theirs)| ours == theirs);
    let written = fs::read_to_string(out.path().join("index.json"))?;
    ensure!(written == ours.to_json(), "the writer returned another index than it wrote");
    ensure!(!all_equal || written == index.to_json(), "index.json differs");
    Ok(())
}
