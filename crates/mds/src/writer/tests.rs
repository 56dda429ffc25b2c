//! The writer, driven through its files.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::*;
use crate::format::{Encoding, ShardTable};

fn schema() -> Schema {
    Schema::new([("id", Encoding::Int), ("text", Encoding::Str)]).unwrap()
}

fn options(size_limit: u64, compression: Option<&str>) -> WriterOptions {
    WriterOptions {
        compression: compression.map(|text| text.parse().unwrap()),
        hashes: vec![HashAlgorithm::Sha256, HashAlgorithm::Xxh64],
        size_limit: Some(size_limit),
        threads: Some(1),
        ..WriterOptions::default()
    }
}

fn files(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn texts(count: i64) -> impl Iterator<Item = (i64, String)> {
    (0..count).map(|id| (id, format!("text {id} ").repeat(id as usize % 5)))
}

#[test]
fn what_is_written_is_read_back() {
    for compression in [None, Some("zstd"), Some("zstd:1")] {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("a").join("b");
        let mut writer = Writer::create(&dir, schema(), options(400, compression)).unwrap();
        let mut bytes = 0;
        for (id, text) in texts(50) {
            writer.write(&[id.into(), text.as_str().into()]).unwrap();
            bytes += 4 + 8 + text.len() as u64;
        }
        assert_eq!((writer.samples(), writer.bytes()), (50, bytes));
        let index = writer.finish().unwrap();
        assert_eq!(index.to_json(), fs::read_to_string(dir.join("index.json")).unwrap());
        assert_eq!(index, Index::parse(&fs::read(dir.join("index.json")).unwrap()).unwrap());
        assert_eq!(index.samples(), 50);
        assert!(index.shards.len() > 3);

        let mut expected: BTreeSet<_> = ["index.json".to_owned()].into();
        let mut read = Vec::new();
        for shard in &index.shards {
            expected.insert(shard.stored().basename.to_string());
            let stored = fs::read(shard.stored().basename.join_to(&dir)).unwrap();
            shard.stored().verify(&stored).unwrap();
            let raw = match shard.compression {
                Some(compression) => compression.decompress(&stored, shard.raw_data.bytes).unwrap(),
                None => stored,
            };
            shard.raw_data.verify(&raw).unwrap();
            let table = ShardTable::parse(&raw, shard.samples).unwrap();
            for i in 0..table.len() {
                let sample = table.sample(&raw, i).unwrap();
                match shard.schema().decode_sample(sample).unwrap().as_slice() {
                    [Value::Int(id), Value::Str(text)] => read.push((*id, text.to_string())),
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!(read, texts(50).collect::<Vec<_>>());
        assert_eq!(files(&dir), expected);
    }
}

#[test]
fn no_samples_make_an_index_without_shards() {
    let dir = tempfile::tempdir().unwrap();
    Writer::create(dir.path(), schema(), WriterOptions::default()).unwrap().finish().unwrap();
    assert_eq!(
        fs::read_to_string(dir.path().join("index.json")).unwrap(),
        r#"{"shards": [], "version": 2}"#
    );
}

#[test]
fn a_sample_beyond_the_limit_at_the_start_leaves_an_empty_shard() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(dir.path(), schema(), options(300, None)).unwrap();
    writer.write(&[1.into(), "x".repeat(500).into()]).unwrap();
    let index = writer.finish().unwrap();
    let samples: Vec<_> = index.shards.iter().map(|shard| shard.samples).collect();
    assert_eq!(samples, [0, 1]);
    assert!(dir.path().join("shard.00000.mds").exists());
}

#[test]
fn dropped_unfinished_it_leaves_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("a").join("b");
    let mut writer = Writer::create(&dir, schema(), options(300, None)).unwrap();
    for (id, text) in texts(50) {
        writer.write(&[id.into(), text.into()]).unwrap();
    }
    assert!(dir.join("shard.00001.mds").exists());
    assert!(!dir.join("index.json").exists());
    drop(writer);
    assert!(files(parent.path()).is_empty());
}

#[test]
fn dropped_unfinished_it_keeps_what_it_did_not_create() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Writer::create(dir.path(), schema(), WriterOptions::default()).unwrap();
    fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    drop(writer);
    assert_eq!(files(dir.path()), ["notes.txt".to_owned()].into());
}

#[test]
fn a_folder_has_one_writer_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let first = Writer::create(dir.path(), schema(), WriterOptions::default()).unwrap();
    for second in [Writer::create, Writer::resume] {
        let error = second(dir.path(), schema(), WriterOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(
            error.to_string().split_once("another program").unwrap().1,
            format!(
                " is writing to the directory {}; wait for it, or choose another one",
                dir.path().display()
            )
        );
    }
    drop(first);
    Writer::resume(dir.path(), schema(), WriterOptions::default()).unwrap().finish().unwrap();
}

#[test]
fn a_directory_that_is_not_empty_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("index.json"), "{}").unwrap();
    let error = Writer::create(dir.path(), schema(), WriterOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(
        error.to_string(),
        format!(
            "the directory {} is not empty; choose another one, or delete it first if its data \
             may go",
            dir.path().display()
        )
    );
    assert_eq!(fs::read_to_string(dir.path().join("index.json")).unwrap(), "{}");
}

#[test]
fn options_out_of_range_are_refused_before_anything_is_created() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("a");
    let message = |options| Writer::create(&dir, schema(), options).unwrap_err().to_string();
    assert_eq!(
        message(options(1 << 32, None)),
        "the size limit of 4294967296 bytes is too large; give at most 4294967295: offsets in a \
         shard have 32 bits"
    );
    let hashes = vec![HashAlgorithm::Xxh64, HashAlgorithm::Md5];
    assert_eq!(
        message(WriterOptions { hashes, ..WriterOptions::default() }),
        "the hashes xxh64,md5 are not in ascending order; write md5,xxh64"
    );
    assert!(!dir.exists());
}

#[test]
fn a_refused_sample_is_named_and_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(dir.path(), schema(), WriterOptions::default()).unwrap();
    writer.write(&[1.into(), "one".into()]).unwrap();
    let error = writer.write(&["two".into(), "two".into()]).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "dataset {}, sample 1, column id: the encoding int does not take a text; give an integer from -9223372036854775808 to 9223372036854775807",
            dir.path().display()
        )
    );
    writer.write(&[2.into(), "two".into()]).unwrap();
    assert_eq!(writer.finish().unwrap().samples(), 2);
}

/// A directory that vanishes stands for a disk that fails.
#[test]
fn after_a_lost_shard_there_is_no_going_on() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("a");
    let mut writer = Writer::create(&dir, schema(), options(300, None)).unwrap();
    writer.write(&[1.into(), "x".into()]).unwrap();
    fs::remove_dir(&dir).unwrap();
    let error = writer.write(&[2.into(), "x".repeat(300).into()]).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "dataset {0}, shard shard.00000.mds: cannot write {0}{1}shard.00000.mds; check the path",
            dir.display(),
            std::path::MAIN_SEPARATOR
        )
    );
    fs::create_dir(&dir).unwrap();
    let lost = format!(
        "dataset {}: the writer has lost a shard that it could not write; correct the earlier \
         failure and write the dataset again",
        dir.display()
    );
    assert_eq!(writer.write(&[3.into(), "x".into()]).unwrap_err().to_string(), lost);
    assert_eq!(writer.finish().unwrap_err().to_string(), lost);
    assert!(files(parent.path()).is_empty());
}

/// A folder in the place of the index: it cannot be renamed into place.
#[test]
fn without_an_index_the_shards_go_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(dir.path(), schema(), WriterOptions::default()).unwrap();
    writer.write(&[1.into(), "x".into()]).unwrap();
    fs::create_dir(dir.path().join("index.json")).unwrap();
    assert!(writer.finish().is_err());
    assert_eq!(files(dir.path()), ["index.json".to_owned()].into());
}

#[cfg(unix)]
#[test]
fn files_are_as_readable_as_the_umask_allows() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("plain");
    fs::write(&plain, "").unwrap();
    let expected = fs::metadata(&plain).unwrap().permissions().mode();
    let data = dir.path().join("data");
    Writer::create(&data, schema(), WriterOptions::default()).unwrap().finish().unwrap();
    let index = fs::metadata(data.join("index.json")).unwrap();
    assert_eq!(index.permissions().mode(), expected);
}
