//! What the machine itself can do: the figures that ours are held against.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use serde_json::{Map, Value, json};

use crate::Result;
use crate::reading::sum_bytes;

const BLOCK: usize = 256 << 20;
const FILE: u64 = 64 << 20;

/// An object of JSON.
pub(crate) type Object = Map<String, Value>;

/// The members of an object literal.
pub(crate) fn object(value: Value) -> Object {
    match value {
        Value::Object(members) => members,
        other => Map::from_iter([("value".to_owned(), other)]),
    }
}

/// Seconds to copy 256 MiB with `copy_from_slice`, to sum their bytes, and to sum them in blocks of 8
/// KiB in scattered order, on one thread: the medians of seven rounds over memory that has been
/// touched before.
pub(crate) fn memory() -> Object {
    const SAMPLE: usize = 8192;
    let from: Vec<u8> = (0..BLOCK).map(|i| (i >> 3) as u8).collect();
    let mut to = vec![1; BLOCK];
    let samples: Vec<&[u8]> = from.chunks(SAMPLE).collect();
    // Steps of a number that is odd, and large: every block once, none beside the last one.
    let scattered = || (0..samples.len()).map(|i| samples[i * 20_011 % samples.len()]);
    let (mut copies, mut sums, mut scatters) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..7 {
        copies.push(seconds(|| to.copy_from_slice(black_box(&from))));
        black_box(&mut to);
        sums.push(seconds(|| _ = black_box(sum_bytes(black_box(&from)))));
        scatters.push(seconds(|| _ = black_box(scattered().map(sum_bytes).sum::<u64>())));
    }
    object(json!({
        "bytes": BLOCK,
        "copy_seconds": median(copies),
        "sum_seconds": median(sums),
        "scattered_seconds": median(scatters),
    }))
}

fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Writes `bytes` bytes in files of the size of a shard: twice, the second time by the clock, as all writes here.
pub(crate) fn files(out: &Path, bytes: u64, fsync: bool) -> Result<Object> {
    let block: Vec<u8> = (0..FILE.min(bytes)).map(|i| (i >> 3) as u8).collect();
    write_files(out, bytes, &block, fsync)?;
    fs::remove_dir_all(out)?;
    let start = Instant::now();
    write_files(out, bytes, &block, fsync)?;
    Ok(object(json!({ "seconds": start.elapsed().as_secs_f64(), "bytes": bytes })))
}

fn write_files(out: &Path, bytes: u64, block: &[u8], fsync: bool) -> Result<()> {
    fs::create_dir(out)?;
    let (mut left, mut number) = (bytes, 0);
    while left > 0 {
        let size = left.min(FILE);
        let mut file = File::create(out.join(number.to_string()))?;
        file.write_all(block.get(..size as usize).unwrap_or(block))?;
        if fsync {
            file.sync_all()?;
        }
        left -= size;
        number += 1;
    }
    Ok(())
}

/// Compresses every raw shard below `data` with plain zstd, the shards shared out among threads.
pub(crate) fn zstd(data: &Path, level: i32, threads: usize) -> Result<Object> {
    let mut shards = Vec::new();
    for entry in fs::read_dir(data)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "mds") {
            shards.push(fs::read(path)?);
        }
    }
    let bytes: usize = shards.iter().map(Vec::len).sum();
    let (next, zipped) = (AtomicUsize::new(0), AtomicU64::new(0));
    let compress = || -> std::io::Result<()> {
        let mut compressor = zstd::bulk::Compressor::new(level)?;
        while let Some(shard) = shards.get(next.fetch_add(1, Ordering::Relaxed)) {
            let zip = compressor.compress(shard)?;
            zipped.fetch_add(zip.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    };
    let start = Instant::now();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(compress)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(_) => Err(std::io::Error::other("a thread has died")),
        })
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let zipped = zipped.into_inner();
    Ok(object(json!({ "seconds": seconds, "bytes": bytes, "zip_bytes": zipped })))
}
