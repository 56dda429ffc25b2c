//! Shards to batches and back.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod read;
mod schema;
mod write;

use crate::format::{Encoding, Index, Schema, Value};
use crate::{Result, Shard, ShardOptions, Writer, WriterOptions};
use std::fs;

fn schema(columns: &[(&str, &str)]) -> Schema {
    let encoding = |name: &str| match name {
        "pkl" => Encoding::Pickle,
        name => name.parse().unwrap(),
    };
    Schema::new(columns.iter().map(|(name, e)| (*name, encoding(e)))).unwrap()
}

/// A dataset in a directory of its own.
struct Dataset {
    dir: tempfile::TempDir,
    index: Index,
}

impl Dataset {
    fn write(schema: Schema, write: impl FnOnce(&mut Writer) -> Result<()>) -> Result<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut writer =
            Writer::create(dir.path().join("d"), schema, WriterOptions::default()).unwrap();
        write(&mut writer)?;
        Ok(Self { dir, index: writer.finish().unwrap() })
    }

    /// The only shard.
    fn shard(&self) -> Shard {
        let [info] = &self.index.shards[..] else { panic!("{} shards", self.index.shards.len()) };
        Shard::open(self.dir.path().join("d"), info, ShardOptions::default()).unwrap()
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.dir.path().join("d/shard.00000.mds")).unwrap()
    }
}

/// The dataset of these samples.
fn dataset(columns: &[(&str, &str)], samples: &[&[Value<'_>]]) -> Dataset {
    Dataset::write(schema(columns), |writer| {
        samples.iter().try_for_each(|sample| writer.write(sample))
    })
    .unwrap()
}
