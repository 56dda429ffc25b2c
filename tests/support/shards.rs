//! Reads a dataset folder back, by the format alone.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::Path;

use mds::format::{Index, ShardTable, Value};

/// All samples in order; each is its columns' values as text (strings) or ids (arrays).
pub(crate) fn read_strings(folder: &Path) -> Vec<Vec<String>> {
    read(folder, |values| {
        let text = |value: &Value<'_>| match value {
            Value::Str(text) => text.to_string(),
            other => panic!("not a string: {other:?}"),
        };
        values.iter().map(text).collect()
    })
}

/// All samples of a dataset whose only column is an integer array.
pub(crate) fn read_ids(folder: &Path) -> Vec<Vec<i64>> {
    read(folder, |values| match values {
        [Value::NdArray(array)] => array.to_vec_i64().unwrap(),
        other => panic!("not one array: {other:?}"),
    })
}

fn read<T>(folder: &Path, convert: impl Fn(&[Value<'_>]) -> T) -> Vec<T> {
    let index = Index::parse(&std::fs::read(folder.join("index.json")).unwrap()).unwrap();
    let mut samples = Vec::new();
    for shard in &index.shards {
        let stored = std::fs::read(shard.stored().basename.join_to(folder)).unwrap();
        let raw = match shard.compression {
            Some(compression) => compression.decompress(&stored, shard.raw_data.bytes).unwrap(),
            None => stored,
        };
        let table = ShardTable::parse(&raw, shard.samples).unwrap();
        for i in 0..shard.samples {
            let sample = table.sample(&raw, i as _).unwrap();
            samples.push(convert(&shard.schema().decode_sample(sample).unwrap()));
        }
    }
    assert_eq!(samples.len() as u64, index.samples());
    samples
}
