//! What is fuzzed: one function for each kind of bytes that strangers write.
//!
//! Each takes any bytes and must return: it reads them and, where they can be read, checks that what
//! was read is the same after writing and reading it again, and stays inside its bounds. The
//! programs in `fuzz_targets/` run these under libFuzzer, `tests/fuzz.rs` runs them on stable Rust.

#![allow(dead_code, unreachable_pub, reason = "each program runs one of the targets")]
#![allow(clippy::panic, clippy::unwrap_used, reason = "a target fails by panicking")]

use mds::format::image::{Image, ImageFile, ImageFormat, ListKind, decode_list, encode_list};
use mds::format::python::{float_repr, parse_float};
use mds::format::{
    Compression, Decimal, Encoding, Format, HashAlgorithm, Index, IndexOptions, Integer, Json,
    Schema, ShardName, ShardTable, parse_size,
};
use mds::{Shard, ShardOptions};

/// A name, the function, and the bytes that it may allocate besides some for each of its input.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    pub allowance: usize,
}

/// No target declares more raw bytes than this to a decompressor.
const MAX_DECLARED: u64 = 1 << 20;

/// No target lets an image take more memory than this.
const MAX_IMAGE: u64 = 4 << 20;

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run, allowance: 0 }
}

const fn unpacks(name: &'static str, run: fn(&[u8])) -> Target {
    // What is unpacked is compressed once more, to compare.
    Target { name, run, allowance: 4 * MAX_DECLARED as usize }
}

const fn draws(name: &'static str, run: fn(&[u8])) -> Target {
    // The pixels, the rows that a decoder works on, and the file that is made of them again.
    Target { name, run, allowance: 4 * MAX_IMAGE as usize }
}

/// All targets, by their names in `corpus/` and `fuzz_targets/`.
pub const TARGETS: &[Target] = &[
    target("index", index),
    target("shard_table", shard_table),
    target("meta_table", meta_table),
    target("sample", sample),
    target("line", line),
    target("shard", shard),
    target("names", names),
    target("encoding_bytes", encoding_bytes),
    target("encoding_str", encoding_str),
    target("encoding_int", encoding_int),
    target("encoding_scalar", encoding_scalar),
    target("encoding_str_int", encoding_str_int),
    target("encoding_str_float", encoding_str_float),
    target("encoding_str_decimal", encoding_str_decimal),
    target("encoding_json", encoding_json),
    target("encoding_ndarray", encoding_ndarray),
    target("encoding_ndarray_type", encoding_ndarray_type),
    target("encoding_ndarray_shape", encoding_ndarray_shape),
    draws("encoding_pil", encoding_pil),
    target("encoding_jpeg", encoding_jpeg),
    target("encoding_png", encoding_png),
    target("encoding_jpeg_array", encoding_jpeg_array),
    draws("encoding_list_pil", encoding_list_pil),
    target("encoding_list_jpeg", encoding_list_jpeg),
    target("encoding_list_png", encoding_list_png),
    target("encoding_pkl", encoding_pkl),
    draws("image_jpeg", image_jpeg),
    draws("image_png", image_png),
    unpacks("decompress_br", decompress_br),
    unpacks("decompress_bz2", decompress_bz2),
    unpacks("decompress_gz", decompress_gz),
    unpacks("decompress_snappy", decompress_snappy),
    unpacks("decompress_zstd", decompress_zstd),
    target("json", json),
    target("decimal", decimal),
    target("integer", integer),
    target("float", float),
];

/// `index.json`.
pub fn index(data: &[u8]) {
    for options in [IndexOptions { pickle_bytes: false }, IndexOptions { pickle_bytes: true }] {
        let Ok(index) = Index::parse_with(data, options) else { continue };
        let text = index.to_json();
        let again = Index::parse_with(text.as_bytes(), options).expect("own texts are read");
        assert_eq!(again, index);
        assert_eq!(again.to_json(), text);
        assert_eq!(again.fingerprint(), index.fingerprint());
        let merged = Index::parse_with(index.to_merged_json().as_bytes(), options);
        assert_eq!(merged.expect("own texts are read"), index);
        let _sums_do_not_overflow = index.samples();
        let root = std::path::Path::new("/root");
        for shard in &index.shards {
            assert!(shard.samples <= u64::from(u32::MAX));
            let _sums_do_not_overflow = (shard.raw_bytes(), shard.stored_bytes());
            for file in shard.files().flat_map(|file| [Some(file.raw), file.zip]).flatten() {
                let path = file.basename.join_to(root);
                let plain = path.components().all(|part| {
                    use std::path::Component::{Normal, RootDir};
                    matches!(part, RootDir | Normal(_))
                });
                assert!(plain && path.starts_with(root) && path != root, "{path:?}");
            }
        }
    }
}

/// The table of an MDS shard; the count in it stands for that of the index, unless it is odd.
pub fn shard_table(data: &[u8]) {
    let count = word(data).unwrap_or(0);
    let declared = if count % 7 == 3 { count / 2 } else { count };
    let Ok(table) = ShardTable::parse(data, declared.into()) else { return };
    assert_eq!(declared, count);
    check_table(&table, data, count as usize);
}

fn check_table(table: &ShardTable, data: &[u8], count: usize) {
    assert_eq!(table.len(), count);
    assert_eq!(table.is_empty(), count == 0);
    let mut end = None;
    for i in 0..table.len() {
        let range = table.range(i);
        assert!(range.start <= range.end && range.end <= data.len());
        assert!(end.is_none_or(|end| end == range.start));
        assert_eq!(table.sample(data, i).expect("it is inside"), &data[range.clone()]);
        end = Some(range.end);
    }
    assert!(table.sample(data, count).is_err());
    assert!(end.is_none_or(|end| end == data.len()));
}

/// A file of offsets; before it stands the size of the data file.
pub fn meta_table(data: &[u8]) {
    let (Some(size), Some(meta)) = (word(data), data.get(4..)) else { return };
    let count = word(meta).unwrap_or(0);
    let Ok(table) = ShardTable::parse_meta(meta, count.into(), size.into()) else { return };
    assert_eq!(table.len(), count as usize);
    let mut end = None;
    for i in 0..table.len() {
        let range = table.range(i);
        assert!(range.start <= range.end && range.end <= size as usize);
        assert!(end.is_none_or(|end| end == range.start));
        end = Some(range.end);
    }
}

const SCHEMAS: [&[(&str, &str)]; 4] = [
    &[("id", "int"), ("text", "str"), ("tokens", "ndarray:int32")],
    &[("a", "uint8"), ("b", "float16"), ("c", "int64"), ("d", "ndarray:uint16:2,2")],
    &[("a", "bytes"), ("b", "json"), ("c", "str_int"), ("d", "str_float"), ("e", "str_decimal")],
    &[("i", "pil"), ("j", "jpeg"), ("k", "png"), ("l", "list[png]"), ("m", "jpeg_array")],
];

/// A sample of one of four schemas, which the first byte chooses.
pub fn sample(data: &[u8]) {
    let Some((&first, sample)) = data.split_first() else { return };
    let schema = schema(SCHEMAS[usize::from(first) % SCHEMAS.len()]);
    let columns = 0..schema.columns().len();
    if let Ok(first) = schema.column_bytes(sample, 0) {
        // One column is found only if all lie inside the sample and fill it.
        let bytes = columns.clone().map(|i| schema.column_bytes(sample, i).expect("as the first"));
        let rest: usize = bytes.map(<[u8]>::len).sum();
        let variable = schema.sizes().iter().filter(|size| size.is_none()).count();
        assert_eq!(4 * variable + rest, sample.len());
        assert!(sample.as_ptr_range().contains(&first.as_ptr()) || first.is_empty());
    }
    let Ok(values) = schema.decode_sample(sample) else { return };
    for i in columns {
        let _same_value = schema.decode_column(sample, i).expect("as in the whole sample");
    }
    let mut written = Vec::new();
    schema.encode_sample(&values, &mut written).expect("decoded values can be stored");
    let again = schema.decode_sample(&written).expect("what was written is read");
    let mut twice = Vec::new();
    schema.encode_sample(&again, &mut twice).expect("decoded values can be stored");
    assert_eq!(twice, written);
}

/// A line of a text format, which the first byte chooses.
pub fn line(data: &[u8]) {
    let Some((&first, line)) = data.split_first() else { return };
    let xsv = Format::Xsv { separator: "::".into(), newline: "\r\n".into() };
    let formats = [Format::JSON, Format::CSV, Format::TSV, xsv];
    let format = &formats[usize::from(first) % formats.len()];
    let schema = schema(&[("a", "str"), ("b", "int"), ("c", "float")]);
    for column in 0..4 {
        let _must_return = format.column_bytes(&schema, line, column);
    }
    let Ok(values) = format.decode_sample(&schema, line) else { return };
    let mut written = Vec::new();
    format.encode_sample(&schema, &values, &mut written).expect("decoded values can be stored");
    let again = format.decode_sample(&schema, &written).expect("what was written is read");
    let mut twice = Vec::new();
    format.encode_sample(&schema, &again, &mut twice).expect("decoded values can be stored");
    assert_eq!(twice, written);
}

/// A whole shard behind an index that agrees with its size and its count.
pub fn shard(data: &[u8]) {
    let index = format!(
        r#"{{"shards": [{{"column_encodings": ["int", "str", "ndarray:int32"], "column_names": ["id", "text", "tokens"], "column_sizes": [8, null, null], "compression": null, "format": "mds", "hashes": [], "raw_data": {{"basename": "shard.00000.mds", "bytes": {}, "hashes": {{}}}}, "samples": {}, "size_limit": null, "version": 2, "zip_data": null}}], "version": 2}}"#,
        data.len(),
        word(data).unwrap_or(0)
    );
    let Ok(index) = Index::parse(index.as_bytes()) else { return };
    let info = &index.shards[0];
    let shard = Shard::from_bytes(data.to_vec(), None, info).expect("the sizes agree");
    let _not_read = ShardOptions::default();
    let mut fields = shard.fields();
    let text = fields.field::<str>("text");
    let tokens = fields.field::<[i32]>("tokens");
    let id = fields.field::<i64>("id");
    fields.build().expect("these are the columns");
    let Ok(samples) = shard.samples() else {
        assert!(shard.sample(0).is_err());
        return;
    };
    assert_eq!(samples.len() as u64, info.samples);
    for sample in samples.take(100) {
        let values = sample.decode();
        let fields = (sample.get(text), sample.get(tokens), sample.get(id));
        match values {
            Ok(values) => {
                let (text, tokens, id) = fields;
                assert_eq!(values[0].as_i64(), Some(id.expect("as a value")));
                assert_eq!(values[1].as_str(), Some(text.expect("as a value")));
                let array = values[2].as_ndarray().expect("an array").to_vec_i64();
                let array = array.expect("of integers");
                let tokens = tokens.expect("as a value");
                assert!(array.iter().copied().eq(tokens.iter().map(|&token| i64::from(token))));
            }
            Err(error) => {
                assert_eq!(error.position().sample, Some(sample.position() as u64));
                assert_eq!(error.position().shard.as_deref(), Some("shard.00000.mds"));
            }
        }
    }
}

/// The short texts of an index: encodings, compressions, hashes, names of files; and sizes.
pub fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(encoding) = text.parse::<Encoding>() {
        let shown = encoding.to_string();
        assert_eq!(shown.parse::<Encoding>().expect("own names are read"), encoding);
    }
    if let Ok(compression) = text.parse::<Compression>() {
        assert_eq!(compression.to_string(), text);
    }
    if let Ok(hash) = text.parse::<HashAlgorithm>() {
        assert_eq!(hash.to_string(), text);
    }
    if let Ok(name) = ShardName::new(text) {
        assert_eq!(name.as_str(), text);
        let path = name.join_to(std::path::Path::new("/root"));
        assert_eq!(path.to_str(), Some(format!("/root/{text}").as_str()));
    }
    let _must_return = parse_size(text);
}

fn word(data: &[u8]) -> Option<u32> {
    data.first_chunk().map(|word| u32::from_le_bytes(*word))
}

fn schema(columns: &[(&str, &str)]) -> Schema {
    let columns = columns.iter().map(|(name, encoding)| {
        (*name, encoding.parse::<Encoding>().expect("the name of an encoding"))
    });
    Schema::new(columns).expect("columns with names of their own")
}

/// Whether the stored form of a value is the only one.
#[derive(Clone, Copy, PartialEq)]
enum Stored {
    OneWay,
    SeveralWays,
}

/// A value of one column alone.
fn encoding(name: &str, stored: Stored, data: &[u8]) {
    let schema = schema(&[("x", name)]);
    value(&schema, stored, data);
}

fn value(schema: &Schema, stored: Stored, data: &[u8]) {
    let head = if schema.sizes()[0].is_some() { 0 } else { 4 };
    let mut sample = Vec::with_capacity(head + data.len());
    if head > 0 {
        sample.extend_from_slice(&(data.len() as u32).to_le_bytes());
    }
    sample.extend_from_slice(data);
    let Ok(values) = schema.decode_sample(&sample) else { return };
    let mut written = Vec::new();
    schema.encode_sample(&values, &mut written).expect("decoded values can be stored");
    if stored == Stored::OneWay {
        assert_eq!(written, sample);
    }
    let again = schema.decode_sample(&written).expect("what was written is read");
    let mut twice = Vec::new();
    schema.encode_sample(&again, &mut twice).expect("decoded values can be stored");
    assert_eq!(twice, written);
    let owned = values.into_iter().next().expect("one column").into_owned();
    schema.encode_sample(&[owned], &mut twice).expect("decoded values can be stored");
    assert_eq!(twice, written);
}

macro_rules! encodings {
    ($($function:ident, $name:literal, $stored:ident;)*) => {$(
        #[doc = concat!("A value of the encoding `", $name, "`.")]
        pub fn $function(data: &[u8]) {
            encoding($name, Stored::$stored, data);
        }
    )*};
}

encodings! {
    encoding_bytes, "bytes", OneWay;
    encoding_str, "str", OneWay;
    encoding_int, "int", OneWay;
    encoding_str_int, "str_int", SeveralWays;
    encoding_str_float, "str_float", SeveralWays;
    encoding_str_decimal, "str_decimal", SeveralWays;
    encoding_json, "json", SeveralWays;
    encoding_ndarray, "ndarray", SeveralWays;
    encoding_ndarray_type, "ndarray:float32", SeveralWays;
    encoding_ndarray_shape, "ndarray:uint16:2,3", OneWay;
    encoding_pil, "pil", SeveralWays; // unused bits of black and white rows
    encoding_jpeg, "jpeg", OneWay;
    encoding_png, "png", OneWay;
    encoding_jpeg_array, "jpeg_array", OneWay;
    encoding_list_pil, "list[pil]", SeveralWays;
    encoding_list_jpeg, "list[jpeg]", OneWay;
    encoding_list_png, "list[png]", OneWay;
}

/// A number of the type that the first byte chooses.
pub fn encoding_scalar(data: &[u8]) {
    const TYPES: [&str; 11] = [
        "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16",
        "float32", "float64",
    ];
    let Some((&first, number)) = data.split_first() else { return };
    encoding(TYPES[usize::from(first) % TYPES.len()], Stored::OneWay, number);
}

/// A pickle, which stays bytes.
pub fn encoding_pkl(data: &[u8]) {
    let schema = Schema::new([("x", Encoding::Pickle)]).expect("one column");
    value(&schema, Stored::OneWay, data);
}

/// A JPEG file, decoded.
pub fn image_jpeg(data: &[u8]) {
    image(ImageFormat::Jpeg, data);
}

/// A PNG file, decoded, and encoded again without loss.
pub fn image_png(data: &[u8]) {
    image(ImageFormat::Png, data);
}

fn image(format: ImageFormat, data: &[u8]) {
    let Ok(file) = ImageFile::new(format, data) else { return };
    let size = file.dimensions();
    let Ok(image) = file.decode_within(MAX_IMAGE) else { return };
    assert_eq!(size.expect("it was decoded"), (image.width(), image.height()));
    let expected = image.mode().row_bytes(image.width()) * u64::from(image.height());
    assert_eq!(image.pixels().len() as u64, expected);
    assert!(expected <= MAX_IMAGE);
    let mut raw = Vec::new();
    image.encode_pil(&mut raw);
    assert_eq!(Image::decode_pil(&raw).expect("what was written is read"), image);
    if format == ImageFormat::Png
        && let Ok(again) = ImageFile::from_image(&image, format)
    {
        assert_eq!(again.decode().expect("what was written is read"), image);
    }
    let files = [data, again_as_list(data)];
    let mut list = Vec::new();
    encode_list(ListKind::List, &files, &mut list).expect("two short files");
    assert_eq!(decode_list(ListKind::List, &list).expect("what was written is read"), files);
}

fn again_as_list(data: &[u8]) -> &[u8] {
    &data[..data.len() / 2]
}

macro_rules! decompressors {
    ($($function:ident, $name:literal;)*) => {$(
        #[doc = concat!("A file of the compression `", $name, "`, behind its declared size.")]
        pub fn $function(data: &[u8]) {
            decompress($name, data);
        }
    )*};
}

decompressors! {
    decompress_br, "br:1";
    decompress_bz2, "bz2:1";
    decompress_gz, "gz:1";
    decompress_snappy, "snappy";
    decompress_zstd, "zstd:1";
}

fn decompress(name: &str, data: &[u8]) {
    let (Some(declared), Some(zip)) = (word(data), data.get(4..)) else { return };
    let declared = u64::from(declared) % MAX_DECLARED;
    let compression: Compression = name.parse().expect("the name of a compression");
    let Ok(raw) = compression.decompress(zip, declared) else { return };
    assert_eq!(raw.len() as u64, declared);
    assert!(raw.capacity() as u64 <= declared.max(32));
    if raw.len() <= 4096 {
        let again = compression.compress(&raw).expect("few bytes can be compressed");
        assert_eq!(compression.decompress(&again, declared).expect("own files are read"), raw);
    }
}

/// JSON as Python reads it.
pub fn json(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Json::parse(text) {
        Ok(value) => {
            let written = value.dumps();
            assert!(written.is_ascii());
            let again = Json::parse(&written).expect("own texts are read");
            assert_eq!(again.dumps(), written);
            let sorted = Json::parse(&value.dumps_sorted()).expect("own texts are read");
            assert_eq!(sorted.dumps_sorted(), value.dumps_sorted());
            let _must_return = value.to_serde();
        }
        Err(error) => assert!(error.byte <= text.len(), "{error}"),
    }
}

/// A decimal number as Python reads it.
pub fn decimal(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Decimal::parse(text) {
        Ok(number) => {
            assert_eq!(Decimal::parse(number.as_str()).expect("own texts are read"), number);
            let _must_return = number.to_f64();
        }
        Err(error) => assert!(error.byte <= text.len(), "{error}"),
    }
}

/// An integer as Python reads it.
pub fn integer(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Integer::parse(text) {
        Ok(number) => {
            assert_eq!(Integer::parse(number.as_str()).expect("own texts are read"), number);
            let _must_return = (number.to_i64(), number.to_u64(), number.to_i128());
        }
        Err(error) => assert!(error.byte <= text.len(), "{error}"),
    }
}

/// A float as Python reads it.
pub fn float(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(number) = parse_float(text) else { return };
    let again = parse_float(&float_repr(number)).expect("own texts are read");
    assert!(again == number || again.is_nan() && number.is_nan());
}
