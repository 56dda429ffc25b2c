//! Streaming a dataset as a training run does.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use mds::format::{Value, parse_size};
use mds::{Batch, CacheStats, DatasetOptions, Loader, LoaderOptions, Sample, StreamingDataset};

use super::{Failure, Source, progress, show};

#[derive(Debug, clap::Args)]
pub(super) struct Flags {
    /// Samples per batch
    #[arg(
        long = "batch_size",
        alias = "batch-size",
        default_value = "2",
        value_name = "N",
        value_parser = positive
    )]
    batch_size: usize,

    /// Stop after so many batches [default: the whole dataset]
    #[arg(long = "num_batches", alias = "num-batches", value_name = "N")]
    num_batches: Option<u64>,

    /// Print so many batches; the others only count for the rate
    #[arg(long = "print_batches", alias = "print-batches", default_value_t = 5, value_name = "N")]
    print_batches: u64,

    /// Shuffle as a training run does, with the default algorithm and seed
    #[arg(long)]
    shuffle: bool,

    /// Threads that read samples
    #[arg(long = "num_workers", alias = "num-workers", default_value_t = 2, value_name = "N")]
    num_workers: usize,

    /// Bytes of shards that LOCAL may hold, such as 10gb [default: no limit]
    #[arg(
        long = "cache_limit",
        alias = "cache-limit",
        value_name = "SIZE",
        value_parser = parse_size
    )]
    cache_limit: Option<u64>,
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(0) => Err("give 1 or more".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(error.to_string()),
    }
}

/// What went by.
#[derive(Default)]
struct Totals {
    batches: u64,
    samples: u64,
    bytes: u64,
}

pub(super) fn run(
    source: &Source,
    local: Option<PathBuf>,
    flags: &Flags,
    full: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    source.refuse_pickles(&[])?;
    let mut options =
        DatasetOptions { pickle_bytes: source.pickle_bytes, ..DatasetOptions::default() };
    options.order.batch_size = Some(flags.batch_size);
    options.order.shuffle = flags.shuffle;
    options.cache_limit = flags.cache_limit;
    let dataset = StreamingDataset::open(vec![source.stream(local)], options)?;
    writeln!(
        out,
        "{}: {} in {}",
        source.remote.address(),
        show::count(dataset.num_samples(), "sample"),
        show::count(source.index.shards.len() as u64, "shard")
    )?;
    let bar = progress::samples(dataset.num_samples());
    let started = Instant::now();
    let workers = LoaderOptions { num_workers: flags.num_workers, prefetch_batches: 64 };
    let mut loader = Loader::new(Arc::clone(&dataset), workers, |sample: Sample| {
        let bytes = sample.encoded()?.len() as u64;
        Ok((sample, bytes))
    });
    let mut totals = Totals::default();
    while flags.num_batches.is_none_or(|limit| totals.batches < limit) {
        let Some(batch) = loader.next_batch()? else { break };
        if totals.batches < flags.print_batches {
            bar.suspend(|| print_batch(totals.batches, &batch, full, out))?;
        }
        totals.batches += 1;
        totals.samples += batch.ids.len() as u64;
        totals.bytes += batch.items.iter().map(|(_, bytes)| bytes).sum::<u64>();
        bar.set_position(totals.samples);
    }
    bar.finish_and_clear();
    print_rate(&totals, started.elapsed().as_secs_f64(), out)?;
    print_cache(&dataset.stats(), out)
}

/// What was fetched, where anything was.
fn print_cache(stats: &CacheStats, out: &mut dyn Write) -> Result<(), Failure> {
    if stats.fetched_shards == 0 {
        return Ok(());
    }
    writeln!(
        out,
        "fetched {} ({} downloaded), found {} in the cache, evicted {}; waited {:.2} s for them",
        show::count(stats.fetched_shards, "shard"),
        show::size(stats.downloaded_bytes),
        stats.found_shards,
        stats.evicted_shards,
        stats.wait.as_secs_f64()
    )?;
    Ok(())
}

fn print_batch(
    number: u64,
    batch: &Batch<(Sample, u64)>,
    full: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    writeln!(out, "\nBatch {number}")?;
    let Some((first, _)) = batch.items.first() else { return Ok(()) };
    for column in first.schema().columns() {
        let values: Vec<Value<'_>> = batch
            .items
            .iter()
            .map(|(sample, _)| sample.value(&column.name))
            .collect::<mds::Result<_>>()?;
        let dtype = show::dtype(&column.encoding, &values);
        let name = show::printable(&column.name);
        writeln!(out, "  {name:<12} {:<12} {dtype}", show::batch_shape(&values))?;
    }
    for (sample, _) in &batch.items {
        writeln!(out, "  ---- sample {} ----", sample.id())?;
        for (name, value) in sample.values()? {
            writeln!(out, "  {}: {}", show::printable(name), show::value(name, &value, full))?;
        }
    }
    Ok(())
}

fn print_rate(totals: &Totals, seconds: f64, out: &mut dyn Write) -> Result<(), Failure> {
    let per_second = |n: u64| n as f64 / seconds.max(1e-9);
    writeln!(
        out,
        "\nread {} in {} ({}) in {seconds:.2} s: {:.0} samples/s, {:.1} MB/s",
        show::count(totals.samples, "sample"),
        if totals.batches == 1 {
            "1 batch".to_owned()
        } else {
            format!("{} batches", totals.batches)
        },
        show::size(totals.bytes),
        per_second(totals.samples),
        per_second(totals.bytes) / 1e6,
    )?;
    Ok(())
}
