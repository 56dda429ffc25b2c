//! Epochs from a bucket through the loader and a local cache, and how fast the bucket gives its objects at
//! all.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use mds::format::{Compression, Index};
use mds::storage::{Remote, RemoteOptions};
use mds::{BatchLoader, DatasetOptions, LoaderOptions, Rows, Stream, StreamingDataset};
use serde_json::json;

use crate::Result;
use crate::epoch::{Total, Way, add_rows, add_text, add_tokens, samples, text_field};
use crate::limits::{Object, object};

/// A shuffled epoch into an empty cache, from opening the dataset on, and a second one from the cache.
pub(crate) fn epochs(
    remote: String,
    local: PathBuf,
    way: Way,
    workers: usize,
    batch: usize,
    width: usize,
) -> Result<Object> {
    let start = Instant::now();
    let mut options = DatasetOptions::default();
    options.order.batch_size = Some(batch);
    options.order.shuffle = true;
    let dataset = StreamingDataset::open(vec![Stream::cached(remote, local)], options)?;
    let options = LoaderOptions { num_workers: workers, ..LoaderOptions::default() };
    match way {
        Way::Rows => {
            let loader = BatchLoader::<Rows<i32>>::rows(dataset, options, "tokens", width)?;
            both(start, loader, add_rows)
        }
        Way::Tokens => both(start, samples(&dataset, options), add_tokens),
        Way::Text => {
            let mut field = None;
            both(start, samples(&dataset, options), |batch, total| {
                let field = match field {
                    Some(field) => field,
                    None => *field.insert(text_field(&dataset)?),
                };
                add_text(batch, field, total)
            })
        }
    }
}

fn both<B: Send + 'static>(
    start: Instant,
    mut loader: BatchLoader<B>,
    mut each: impl FnMut(B, &mut Total) -> Result<()>,
) -> Result<Object> {
    let mut first = None;
    let mut epoch = |start: Instant| -> Result<(f64, Total)> {
        let mut total = Total::default();
        while let Some(batch) = loader.next_batch()? {
            first.get_or_insert_with(|| start.elapsed().as_secs_f64());
            each(batch, &mut total)?;
        }
        Ok((start.elapsed().as_secs_f64(), total))
    };
    let (cold, Total { samples, bytes, sum }) = epoch(start)?;
    let (warm, _) = epoch(Instant::now())?;
    Ok(object(json!({
        "first_batch_seconds": first, "cold_seconds": cold, "warm_seconds": warm,
        "samples": samples, "bytes": bytes, "sum": sum,
    })))
}

/// Fetches every shard of a dataset into memory, several at a time, and looks at none.
pub(crate) fn download(remote: &str, threads: usize) -> Result<Object> {
    let remote = Remote::open(remote, RemoteOptions::default())?;
    let index = Index::parse(&remote.get(Index::FILE_NAME, Index::MAX_BYTES)?)?;
    let files: Vec<_> = index.shards.iter().map(|shard| shard.stored()).collect();
    let bytes: u64 = files.iter().map(|file| file.bytes).sum();
    let start = Instant::now();
    on_threads(threads, &files, |file| {
        remote.get(file.basename.as_str(), file.bytes)?;
        Ok(())
    })?;
    Ok(object(json!({ "seconds": start.elapsed().as_secs_f64(), "bytes": bytes })))
}

/// Decompresses every shard of a dataset in a folder with nothing but the library.
pub(crate) fn unzip(data: &Path, threads: usize) -> Result<Object> {
    let index = Index::parse(&std::fs::read(data.join(Index::FILE_NAME))?)?;
    let mut zips = Vec::new();
    for shard in &index.shards {
        zips.push((std::fs::read(shard.stored().basename.join_to(data))?, shard.raw_bytes()));
    }
    let zstd: Compression = "zstd".parse()?;
    let raw = AtomicU64::new(0);
    let start = Instant::now();
    on_threads(threads, &zips, |(zip, bytes)| {
        raw.fetch_add(zstd.decompress(zip, *bytes)?.len() as u64, Ordering::Relaxed);
        Ok(())
    })?;
    Ok(object(json!({ "seconds": start.elapsed().as_secs_f64(), "bytes": raw.into_inner() })))
}

fn on_threads<T: Sync>(
    threads: usize,
    items: &[T],
    work: impl Fn(&T) -> mds::Result<()> + Sync,
) -> Result<()> {
    let (next, failed) = (Mutex::new(items.iter()), Mutex::new(None));
    let one = || next.lock().ok().and_then(|mut items| items.next());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(item) = one() {
                    if let Err(error) = work(item)
                        && let Ok(mut failed) = failed.lock()
                    {
                        *failed = Some(error);
                    }
                }
            });
        }
    });
    match failed.into_inner() {
        Ok(None) => Ok(()),
        Ok(Some(error)) => Err(error.into()),
        Err(_) => Err("a thread has died".into()),
    }
}
