//! The answer as text for people.

use std::io::Write;

use super::Failure;
use super::reads::Listing;
use super::report::{Asked, NodeReport, Report};
use crate::inspect::show::{count, printable, size};

/// Nodes and rows of the table over time that are shown unless all are asked for.
const SHOWN_NODES: usize = 4;
const SHOWN_ROWS: usize = 8;

/// What is known before the walk.
pub(super) fn write_head(asked: &Asked<'_>, out: &mut dyn Write) -> Result<(), Failure> {
    let dataset = asked.dataset();
    for stream in &dataset.streams {
        write!(
            out,
            "stream       {}: {} in {}",
            printable(&stream.name),
            count(stream.samples, "sample"),
            count(stream.shards as u64, "shard")
        )?;
        if dataset.streams.len() > 1 {
            write!(
                out,
                ", from sample {} and shard {} on; gives {} ({:.1} %)",
                stream.first_sample,
                stream.first_shard,
                stream.choose,
                100.0 * stream.proportion
            )?;
        }
        writeln!(out)?;
    }
    writeln!(
        out,
        "bytes        {} to download, {} in a cache",
        size(dataset.stored_bytes),
        size(dataset.raw_bytes)
    )?;
    let options = asked.options();
    write!(
        out,
        "world        {} x {} x {}, batches of {} per rank",
        count(options.nodes as u64, "node"),
        count(options.ranks_per_node as u64, "rank"),
        count(options.workers_per_rank as u64, "worker"),
        options.batch_size
    )?;
    if options.replication > 1 {
        write!(out, "; {} ranks share their samples", options.replication)?;
    }
    writeln!(out)?;
    if options.shuffle {
        writeln!(
            out,
            "shuffle      {}, seed {}, blocks of {}",
            options.shuffle_algo, options.shuffle_seed, options.shuffle_block_size
        )?;
    } else {
        writeln!(out, "shuffle      none")?;
    }
    writeln!(
        out,
        "order        {}, {} partition, {} batching, {} sampling",
        count(options.num_canonical_nodes, "canonical node"),
        options.partition_algo,
        options.batching_method,
        options.sampling_method
    )?;
    writeln!(out)?;
    Ok(())
}

/// What the walk has found.
pub(super) fn write_report(
    report: &Report,
    listing: &Listing<'_>,
    full: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    if !listing.is_first {
        if !full && report.epoch.steps > listing.steps.end {
            writeln!(out, "... ({} in all; --steps A..B lists others)", steps(report.epoch.steps))?;
        }
        writeln!(out)?;
    } else if report.epoch.steps > 0 {
        writeln!(out, "no step is listed: the epoch has {}\n", steps(report.epoch.steps))?;
    }
    write_epoch(report, out)?;
    write_quality(report, out)?;
    write_nodes(report, full, out)
}

fn steps(steps: u64) -> String {
    count(steps, "step")
}

fn write_epoch(report: &Report, out: &mut dyn Write) -> Result<(), Failure> {
    let epoch = &report.epoch;
    write!(out, "epoch        {}: {}", epoch.epoch, count(epoch.epoch_size, "sample"))?;
    if epoch.sample_in_epoch > 0 {
        write!(out, ", from sample {} on", epoch.sample_in_epoch)?;
    }
    writeln!(out)?;
    write!(out, "steps        {} of {} samples", epoch.steps, epoch.global_batch_size)?;
    let (fewest, most) = (epoch.batches_per_rank_min, epoch.batches_per_rank_max);
    if fewest == most {
        writeln!(
            out,
            "; {} per rank",
            if most == 1 { "1 batch".to_owned() } else { format!("{most} batches") }
        )?;
    } else {
        writeln!(out, "; {fewest} to {most} batches per rank")?;
    }
    writeln!(
        out,
        "served       {}: {} different, {} again; {} of the dataset never",
        epoch.served, epoch.unique, epoch.repeated, epoch.never_served
    )?;
    writeln!(out, "padding      {} in the batches", count(epoch.padding, "empty place"))?;
    Ok(())
}

fn write_quality(report: &Report, out: &mut dyn Write) -> Result<(), Failure> {
    let quality = &report.quality;
    write!(
        out,
        "\nquality      {:.3} bits: samples {:.3} of at most {:.3}, shards {:.3} of at most {:.3}",
        quality.entropy_bits,
        quality.sample_entropy_bits,
        quality.sample_entropy_most_bits,
        quality.shard_entropy_bits,
        quality.shard_entropy_most_bits
    )?;
    if quality.measured_samples < report.epoch.served {
        write!(out, " (the first {})", count(quality.measured_samples, "sample"))?;
    }
    writeln!(out)?;
    let distance = &quality.distance;
    writeln!(
        out,
        "distance     between samples served one after the other: mean {:.0}, 10 % up to {}, \
         50 % up to {}, 90 % up to {}, all up to {}",
        distance.mean, distance.p10, distance.p50, distance.p90, distance.max
    )?;
    let shards = &report.shards_per_global_batch;
    writeln!(
        out,
        "mixture      {:.1} different shards in a global batch on average, {} to {}",
        shards.mean, shards.min, shards.max
    )?;
    Ok(())
}

fn write_nodes(report: &Report, full: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let ahead = report.options.predownload;
    writeln!(out, "\ndownloads    {} ahead for each rank", count(ahead as u64, "sample"))?;
    let shown = if full { report.nodes.len() } else { report.nodes.len().min(SHOWN_NODES) };
    for node in &report.nodes[..shown] {
        write_node(report, node, out)?;
    }
    if shown < report.nodes.len() {
        writeln!(out, "  ... ({} more nodes; --full prints them)", report.nodes.len() - shown)?;
    }
    write_timeline(report, &report.nodes[..shown], full, out)
}

fn write_node(report: &Report, node: &NodeReport, out: &mut dyn Write) -> Result<(), Failure> {
    let (download, cache) = (&node.download, &node.cache);
    writeln!(
        out,
        "  node {}     {} in {}; {} for the first batch, {} before it is served, then at most {} \
         in a step",
        node.node,
        size(download.bytes),
        count(download.shards, "shard"),
        size(download.first_batch_bytes),
        size(download.first_step_bytes),
        size(download.largest_later_step_bytes)
    )?;
    writeln!(
        out,
        "    cache    {} needed; the smallest limit without downloading twice is {} ({} bytes)",
        size(cache.needed_bytes),
        size(cache.no_redownload_limit),
        cache.no_redownload_limit
    )?;
    let Some(limit) = report.options.cache_limit else { return Ok(()) };
    writeln!(
        out,
        "    limit    {}: {} downloaded again ({}), {} held at most",
        size(limit),
        count(download.again_shards, "shard"),
        size(download.again_bytes),
        size(cache.held_bytes_max.unwrap_or(0)),
    )?;
    if let Some(over @ 1..) = cache.steps_over_limit {
        writeln!(
            out,
            "    warning  the limit is exceeded in {}: {} are wanted at once",
            steps(over),
            size(cache.largest_window_bytes)
        )?;
    }
    Ok(())
}

/// Bytes downloaded so far and bytes needed, at some steps.
fn write_timeline(
    report: &Report,
    nodes: &[NodeReport],
    full: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let Some(first) = nodes.first().filter(|node| !node.timeline.is_empty()) else {
        return Ok(());
    };
    writeln!(out, "\nover time, per node: downloaded so far, needed in the cache")?;
    write!(out, "  {:>14}", "after step")?;
    for node in nodes {
        write!(out, "  {:>22}", format!("node {}", node.node))?;
    }
    writeln!(out)?;
    let points = first.timeline.len();
    let rows = if full { points } else { points.min(SHOWN_ROWS) };
    for row in 1..=rows {
        let before = (row - 1) * points / rows;
        let end = row * points / rows;
        let step = (end as u64 * first.steps_per_point).min(report.epoch.steps) - 1;
        write!(out, "  {step:>14}")?;
        for node in nodes {
            let part = &node.timeline[before..end];
            let downloaded = part.last().map_or(0, |point| point.cumulative_bytes);
            let needed = part.iter().map(|point| point.needed_bytes).max().unwrap_or(0);
            write!(out, "  {:>22}", format!("{}, {}", size(downloaded), size(needed)))?;
        }
        writeln!(out)?;
    }
    Ok(())
}
