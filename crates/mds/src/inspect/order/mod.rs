//! What a run would read: which rank which samples when, what its nodes would download and must
//! cache, and how well it is shuffled. No shard is read.
//!
//! [`streams`] and [`flags`] say what is asked; [`walk`] goes through the epoch once, with
//! [`node`], [`quality`] and [`reads`] looking on; [`report`] is the answer, which [`text`] and
//! [`picture`] show.

mod flags;
mod node;
mod picture;
mod quality;
mod reads;
mod recency;
mod report;
mod shards;
mod streams;
mod text;
mod timeline;
mod walk;

use std::fmt::Display;
use std::io::Write;
use std::path::Path;

use clap::ValueEnum;
use mds::ErrorKind;
use mds::order::{Plan, World};
use mds::storage::{Remote, RemoteOptions};

pub(super) use flags::Flags;

use super::{Failure, Source, progress};
use reads::Listing;
use report::Asked;
use walk::Walk;

pub(super) const EXAMPLES: &str = "\
Examples:
  mds-inspect order ./c4 --split train --ranks_per_node 8
                                          what 8 GPUs of one host read from ./c4/train
  mds-inspect order --shard_sizes 20000x18243,8892 --nodes 4 --ranks_per_node 8
                                          18,243 shards of 20,000 samples and one of 8,892
  mds-inspect order ./c4 --shuffle_algo py1br --shuffle_block_size 100000 --svg order.svg
  mds-inspect order ./c4 --cache_limit 10gb
                                          what so small a cache would download again
  mds-inspect order ./c4 --steps 100..110 --full --format json
  mds-inspect order ./c4 --epoch 3 --sample_in_epoch 65536
                                          the rest of epoch 3 of a run that is resumed there
  mds-inspect order --stream ./c4,proportion=0.7 --stream 'sizes=5000x90,bytes=16mb,proportion=0.3'
                                          two streams, one of which is not written yet

Only indexes are read. Shards and samples are numbered from 0 through all streams. A step is one
batch of every rank.

Downloads: every node has one cache for all its ranks, empty at the start. A shard is downloaded
when it comes within `predownload` samples of any rank of the node (rounded up to whole batches) and
is not in the cache. With --cache_limit, the shards whose last need lies furthest back make room;
those within `predownload` stay, even if that exceeds the limit. Compressed shards are downloaded
compressed and cached raw. Time is counted in steps, not in seconds.

Cache: \"needed\" are the most bytes of shards at once between first download and last use; the
\"smallest limit\" is that with which this cache downloads nothing twice, and may be more.

Shuffle quality: the harmonic mean of the entropies, in bits, of the distances between samples that
are served one after the other, in sample numbers and in shard numbers, as the reference's simulator
has it. More is better. It grows with the dataset: compare options, not datasets.

JSON (--format json), one object:
  reads    [{step, ranks, nodes, samples: [[first, last], ...], shards}] of the --steps
  dataset  samples, shards, raw_bytes, stored_bytes, streams: [{name, samples, shards, ...}]
  options  all that decides the order, with defaults filled in
  epoch    epoch_size, steps, served, unique, repeated, never_served, padding, ...
  quality  entropy_bits, sample_entropy_bits, shard_entropy_bits, distance: {mean, p10, ...}, ...
  shards_per_global_batch  mean, min, max
  nodes    [{node, download: {bytes, again_bytes, first_batch_bytes, ...},
             cache: {needed_bytes, no_redownload_limit, ...}, steps_per_point,
             timeline: [{first_step, downloaded_bytes, cumulative_bytes, largest_step_bytes,
             needed_bytes}]}]";

/// Steps whose reads are listed unless others are asked for.
const LISTED_STEPS: std::ops::Range<u64> = 0..2;

/// What is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// One object, described below
    Json,
}

/// `before` is a dataset that stands before the subcommand.
pub(super) fn run(
    flags: &Flags,
    before: Option<String>,
    split: Option<&str>,
    full: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let svg = flags.rest.svg.as_deref().map(Picture::at).transpose()?;
    let (streams, shards) = shards::find(&flags.streams(before)?, split)?;
    let shapes: Vec<_> = streams.iter().map(|stream| stream.shape.clone()).collect();
    let (options, physical, rest) = (flags.options(), flags.world(), &flags.rest);
    let plan = Plan::new(&shapes, options, physical).map_err(mds::Error::from)?;
    let spinner = progress::spinner("computing the order");
    let order = plan.epoch(rest.epoch, rest.sample_in_epoch, None);
    spinner.finish_and_clear();
    let order = order.map_err(mds::Error::from)?;

    let batch_size = order.batch_size();
    let predownload = rest.predownload.unwrap_or_else(|| batch_size.saturating_mul(8));
    let nodes_of = nodes_of_ranks(&plan, physical)?;
    let walk = Walk {
        order: &order,
        shards: &shards,
        nodes: physical.nodes,
        nodes_of: &nodes_of,
        ahead: predownload.div_ceil(batch_size).max(1),
        cache_limit: rest.cache_limit,
    };
    let asked = Asked {
        streams: &streams,
        shards: &shards,
        plan: &plan,
        physical,
        batch_size,
        predownload,
        cache_limit: rest.cache_limit,
        epoch: rest.epoch,
        sample_in_epoch: rest.sample_in_epoch,
    };
    let default_steps = if full { 0..u64::MAX } else { LISTED_STEPS };
    let mut listing = Listing {
        steps: rest.steps.as_ref().map_or(default_steps, |steps| steps.0.clone()),
        format: rest.format,
        full,
        shards: &shards,
        nodes_of: &nodes_of,
        replication: plan.options().replication.unwrap_or(1),
        batch_size,
        is_first: true,
    };
    match rest.format {
        Format::Text => text::write_head(&asked, out)?,
        Format::Json => write!(out, "{{\"reads\": [")?,
    }
    let steps = order.batches_per_worker() * order.world().workers_per_rank;
    let bar = progress::samples((steps * order.world().ranks() * batch_size) as u64);
    let outcome = walk.run(&bar, |step, ids| match listing.has(step, ids) {
        true => bar.suspend(|| listing.step(step, ids, out)),
        false => Ok(()),
    });
    bar.finish_and_clear();
    let outcome = outcome?;
    let report = asked.report(&outcome);
    // Before the rest is printed, which may find that nobody reads it.
    if let Some(place) = &svg {
        draw(&report, &outcome.heats, place)?;
    }
    match rest.format {
        Format::Text => text::write_report(&report, &listing, full, out)?,
        Format::Json => {
            // The object goes on where the reads ended.
            let json = serde_json::to_string(&report).map_err(std::io::Error::from)?;
            writeln!(out, "\n], {}", json.trim_start_matches('{'))?;
        }
    }
    Ok(())
}

/// The physical nodes of each rank of the order: several where ranks that share their samples are
/// on several nodes.
fn nodes_of_ranks(plan: &Plan, physical: World) -> mds::Result<Vec<Vec<usize>>> {
    let mut nodes_of = vec![Vec::new(); plan.world().ranks()];
    for rank in 0..physical.ranks() {
        let place = plan.place(rank)?;
        let nodes: &mut Vec<usize> =
            &mut nodes_of[place.node * plan.world().ranks_per_node + place.rank];
        let node = rank / physical.ranks_per_node;
        if nodes.last() != Some(&node) {
            nodes.push(node);
        }
    }
    Ok(nodes_of)
}

/// Where the picture goes.
enum Picture<'a> {
    File(&'a Path),
    /// The object that the address names.
    Object(Remote),
}

impl<'a> Picture<'a> {
    fn at(path: &'a Path) -> mds::Result<Self> {
        let Some(text) = path.to_str() else { return Ok(Self::File(path)) };
        let remote = Remote::open(text, RemoteOptions::default())?;
        Ok(if remote.folder().is_some() { Self::File(path) } else { Self::Object(remote) })
    }
}

fn draw(
    report: &report::Report,
    heats: &[timeline::Heat],
    place: &Picture<'_>,
) -> Result<(), Failure> {
    let failed = |shown: &dyn Display, reason: String| {
        let what = format!("cannot write the picture {shown}: {reason}");
        let remedy = "choose a file in a folder that exists and can be written to";
        Failure::Dataset(mds::Error::new(ErrorKind::Io, what, remedy))
    };
    match place {
        Picture::File(path) => {
            let shown = path.display();
            let svg = picture::draw(report, heats).map_err(|e| failed(&shown, e))?;
            let replaced = mds::durable::replace(path, svg.as_bytes());
            replaced.map_err(|e| failed(&shown, e.to_string()))
        }
        Picture::Object(remote) => {
            let svg = picture::draw(report, heats).map_err(|e| failed(&remote.address(), e))?;
            Ok(remote.put("", svg)?)
        }
    }
}
