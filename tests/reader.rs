//! One shard, read as a user's program reads it: borrowed, owned, typed, mapped or copied.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::borrow::Cow;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use mds::format::{
    DType, Damage, Encoding, Format, HashAlgorithm, Index, NdArray, Scalar, Schema, Value,
};
use mds::{ErrorKind, Shard, ShardOptions, Writer, WriterOptions};

const REMEDY: &str = "fetch the shard again, or write it again from its source";

fn schema() -> Schema {
    Schema::new([
        ("id", Encoding::Int),
        ("ids", "ndarray:int32".parse().unwrap()),
        ("score", Encoding::Scalar(DType::F32)),
        ("text", Encoding::Str),
    ])
    .unwrap()
}

fn row(i: i64) -> Vec<Value<'static>> {
    let ids: Vec<i32> = (0..=i as i32).collect();
    vec![
        i.into(),
        NdArray::from_i32(&ids).into(),
        Scalar::F32(i as f32 / 2.0).into(),
        format!("täxt {i}").into(),
    ]
}

/// A dataset of 20 samples.
fn write(dir: &Path, options: WriterOptions) -> Index {
    let mut writer = Writer::create(dir, schema(), options).unwrap();
    (0..20).for_each(|i| writer.write(&row(i)).unwrap());
    writer.finish().unwrap()
}

fn compressed(name: &str) -> WriterOptions {
    let hashes = vec![HashAlgorithm::Sha1, HashAlgorithm::Xxh64];
    let compression = (!name.is_empty()).then(|| name.parse().unwrap());
    WriterOptions { compression, hashes, ..WriterOptions::default() }
}

#[test]
fn samples_are_slices_of_the_file_whatever_its_compression() {
    for name in ["", "br:3", "bz2", "gz", "snappy", "zstd"] {
        let dir = tempfile::tempdir().unwrap();
        let index = write(dir.path(), compressed(name));
        for options in [ShardOptions::default(), ShardOptions::default().copied()] {
            let shard = Shard::open(dir.path(), &index.shards[0], options).unwrap();
            assert_eq!((shard.len(), shard.samples().unwrap().len()), (20, 20));
            let file = shard.bytes().as_ptr_range();
            for (i, sample) in shard.samples().unwrap().enumerate() {
                assert!(file.contains(&sample.encoded().as_ptr()), "{name}");
                assert!(file.contains(&sample.str("text").unwrap().as_ptr()), "{name}");
                assert_eq!(sample.decode().unwrap(), row(i as i64), "{name}");
                assert_eq!(sample.values().unwrap()[3], ("text", format!("täxt {i}").into()));
                assert_eq!(sample.bytes("score").unwrap(), (i as f32 / 2.0).to_le_bytes());
                assert_eq!(sample.position(), i);
            }
        }
    }
}

#[test]
fn fields_are_read_by_their_type() {
    let dir = tempfile::tempdir().unwrap();
    let index = write(dir.path(), WriterOptions::default());
    let shard = Shard::open(dir.path(), &index.shards[0], ShardOptions::default()).unwrap();
    let mut fields = shard.fields();
    let id = fields.field::<i64>("id");
    let ids = fields.field::<[i32]>("ids");
    let score = fields.field::<f32>("score");
    let text = fields.field::<str>("text");
    let raw = fields.field::<[u8]>("ids");
    fields.build().unwrap();
    let mut borrowed = 0;
    for (i, sample) in shard.samples().unwrap().enumerate() {
        assert_eq!(sample.get(id).unwrap(), i as i64);
        assert_eq!(sample.get(score).unwrap(), i as f32 / 2.0);
        assert_eq!(sample.get(text).unwrap(), format!("täxt {i}"));
        let numbers = sample.get(ids).unwrap();
        assert_eq!(*numbers, (0..=i as i32).collect::<Vec<_>>());
        let start = sample.get(raw).unwrap().as_ptr() as usize + 2; // after the header of the array
        assert_eq!(matches!(numbers, Cow::Borrowed(_)), start.is_multiple_of(4), "sample {i}");
        borrowed += usize::from(matches!(numbers, Cow::Borrowed(_)));
    }
    assert!(borrowed > 0 && borrowed < 20, "{borrowed} of 20 happen to be aligned");
}

#[test]
fn every_wrong_field_is_named_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let index = write(dir.path(), WriterOptions::default());
    let shard = Shard::open(dir.path(), &index.shards[0], ShardOptions::default()).unwrap();
    let mut fields = shard.fields();
    fields.field::<str>("tokens");
    let wrong = fields.field::<f64>("score");
    fields.field::<[u16]>("ids");
    let error = fields.build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(
        error.to_string(),
        "there is no column \"tokens\", and the column \"score\" holds float32, not float64, and \
         the column \"ids\" holds ndarray:int32, not uint16 array; the columns are id (int), ids \
         (ndarray:int32), score (float32), text (str)"
    );
    // Used all the same, it is an error and no wrong number.
    assert_eq!(
        shard.sample(0).unwrap().get(wrong).unwrap_err().to_string(),
        "shard shard.00000.mds, sample 0, column score: the field was made for other columns; make \
         the fields anew for each shard whose columns differ"
    );
}

#[test]
fn values_that_are_asked_for_wrongly_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let index = write(dir.path(), WriterOptions::default());
    let shard = Shard::open(dir.path(), &index.shards[0], ShardOptions::default()).unwrap();
    let sample = shard.sample(3).unwrap();
    assert_eq!(
        sample.value("x").unwrap_err().to_string(),
        "shard shard.00000.mds, sample 3: there is no column \"x\"; the columns are id, ids, score, \
         text"
    );
    assert_eq!(
        sample.str("ids").unwrap_err().to_string(),
        "shard shard.00000.mds, sample 3, column ids: the column holds ndarray:int32, not str; read \
         it with value()"
    );
    assert_eq!(
        shard.sample(20).unwrap_err().to_string(),
        "shard shard.00000.mds: there is no sample 20 in the shard; it has 20 samples, numbered \
         from 0"
    );
}

#[test]
fn an_owned_sample_outlives_everything_else() {
    let dir = tempfile::tempdir().unwrap();
    let index = write(dir.path(), WriterOptions::default());
    let shard = Shard::open(dir.path(), &index.shards[0], ShardOptions::default()).unwrap();
    let sample = Arc::new(shard).owned_sample(7).unwrap();
    // Unlinked, as a cache evicts: the mapped file lives on.
    drop(dir);
    let text = std::thread::spawn(move || sample.str("text").unwrap().to_owned()).join().unwrap();
    assert_eq!(text, "täxt 7");
}

#[test]
fn text_formats_are_read_too() {
    let schema = || {
        Schema::new([("f", Encoding::Float), ("i", Encoding::Int), ("s", Encoding::Str)]).unwrap()
    };
    let xsv = Format::Xsv { separator: "::".into(), newline: "\r\n".into() };
    for format in [Format::JSON, Format::CSV, Format::TSV, xsv] {
        for compression in [None, Some("zstd".parse().unwrap())] {
            let dir = tempfile::tempdir().unwrap();
            let options =
                WriterOptions { format: format.clone(), compression, ..WriterOptions::default() };
            let mut writer = Writer::create(dir.path(), schema(), options).unwrap();
            let rows: Vec<[Value<'_>; 3]> = (0..9)
                .map(|i| [(i as f64 / 3.0).into(), i.into(), format!("né{i}").into()])
                .collect();
            writer.write_rows(&rows).unwrap();
            let index = writer.finish().unwrap();
            assert_eq!(index.shards[0].files().count(), 2);
            let shard = Shard::open(dir.path(), &index.shards[0], ShardOptions::default()).unwrap();
            for (sample, row) in shard.samples().unwrap().zip(&rows) {
                assert_eq!(sample.decode().unwrap(), row, "{format}");
                assert_eq!(sample.value("s").unwrap(), row[2]);
            }
            let mut fields = shard.fields();
            let text = fields.field::<str>("s");
            fields.build().unwrap();
            let read = shard.sample(1).unwrap().get(text);
            match format {
                Format::Json { .. } => assert_eq!(
                    read.unwrap_err().to_string(),
                    "shard shard.00000.json, sample 1: a JSON line has no bytes for each column; \
                     read the decoded value of the column"
                ),
                _ => assert_eq!(read.unwrap(), "né1"),
            }
            // The dataset reads both files of a shard.
            let stream = mds::Stream::local(dir.path());
            let dataset = mds::StreamingDataset::open(vec![stream], Default::default()).unwrap();
            assert_eq!(dataset.sample(8).unwrap().value("i").unwrap(), Value::Int(8));
            // And through a cache.
            let cache = tempfile::tempdir().unwrap();
            let stream = mds::Stream::cached(dir.path().to_str().unwrap(), cache.path());
            let dataset = mds::StreamingDataset::open(vec![stream], Default::default()).unwrap();
            assert_eq!(dataset.sample(8).unwrap().value("i").unwrap(), Value::Int(8));
            let meta = format!("shard.00000.{format}.meta");
            assert!(cache.path().join(&meta).exists());
            // A damaged file of offsets is fetched again.
            drop(dataset);
            fs::write(cache.path().join(&meta), "torn").unwrap();
            let stream = mds::Stream::cached(dir.path().to_str().unwrap(), cache.path());
            let dataset = mds::StreamingDataset::open(vec![stream], Default::default()).unwrap();
            assert_eq!(dataset.sample(8).unwrap().value("i").unwrap(), Value::Int(8));
        }
    }
}

#[test]
fn hashes_are_checked_unless_told_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let index = write(dir.path(), compressed(""));
    let path = dir.path().join("shard.00000.mds");
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::remove_file(&path).unwrap();
    fs::write(&path, &bytes).unwrap();
    let info = &index.shards[0];
    for options in [ShardOptions::default(), ShardOptions::default().copied()] {
        let error = Shard::open(dir.path(), info, options).unwrap_err();
        assert!(matches!(error.damage(), Some(Damage::FileHash { hash, .. }) if hash == "xxh64"));
        let found = HashAlgorithm::Xxh64.hex(&bytes);
        let declared = &info.raw_data.hashes["xxh64"];
        assert_eq!(
            error.to_string(),
            format!(
                "shard shard.00000.mds: {} is damaged: the xxh64 of the file is {found}, but the \
                 index declares {declared}; remove the file, so that it is fetched again, or write \
                 the dataset again",
                path.display()
            )
        );
    }
    let options = ShardOptions::default().without_hashes();
    let shard = Shard::open(dir.path(), info, options).unwrap();
    assert_eq!(shard.sample(19).unwrap().str("text").unwrap(), "täxt 18");
}

#[test]
fn the_table_is_checked_at_the_first_sample() {
    let dir = tempfile::tempdir().unwrap();
    let index = write(dir.path(), WriterOptions::default());
    let mut bytes = fs::read(dir.path().join("shard.00000.mds")).unwrap();
    bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    let shard = Shard::from_bytes(bytes, None, &index.shards[0]).unwrap();
    for _ in 0..2 {
        let error = shard.sample(5).unwrap_err();
        assert!(matches!(error.damage(), Some(Damage::OffsetsDescend { .. })), "{error}");
        assert!(error.to_string().starts_with("shard shard.00000.mds, sample 1, byte 12: "));
    }
    let short = Shard::from_bytes(vec![0; 7], None, &index.shards[0]).unwrap_err();
    let declared = index.shards[0].raw_data.bytes;
    assert_eq!(
        short.to_string(),
        format!(
            "shard shard.00000.mds: the file has 7 bytes, but the index declares {declared}; \
             {REMEDY}"
        )
    );
}

#[test]
fn a_file_that_is_missing_or_leads_out_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let index = write(dir.path(), WriterOptions::default());
    let path = dir.path().join("shard.00000.mds");
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("x");
    fs::rename(&path, &target).unwrap();
    let open = || Shard::open(dir.path(), &index.shards[0], ShardOptions::default());
    assert_eq!(
        open().unwrap_err().to_string(),
        format!(
            "shard shard.00000.mds: {} does not exist, although index.json lists it; copy the file \
             there or write the dataset again",
            path.display()
        )
    );
    std::os::unix::fs::symlink(&target, &path).unwrap();
    let error = open().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(
        error.to_string(),
        format!(
            "shard shard.00000.mds: {} is a symbolic link that leads out of {}; copy what it points \
             to into the dataset, or do not use this dataset",
            path.display(),
            dir.path().display()
        )
    );
    // A link within the dataset is fine, and so is a link to the dataset.
    fs::remove_file(&path).unwrap();
    fs::rename(&target, dir.path().join("y")).unwrap();
    std::os::unix::fs::symlink("y", &path).unwrap();
    open().unwrap();
    let link = elsewhere.path().join("dataset");
    std::os::unix::fs::symlink(dir.path(), &link).unwrap();
    Shard::open(&link, &index.shards[0], ShardOptions::default()).unwrap();
}
