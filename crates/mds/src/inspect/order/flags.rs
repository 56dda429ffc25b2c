//! The flags of `mds-inspect order`, under the reference's names.

use std::path::PathBuf;

use mds::format::parse_size;
use mds::order::{
    BatchingMethod, OrderOptions, PartitionAlgo, SamplingMethod, ShuffleAlgo, World,
    parse_epoch_size,
};

use super::reads::Steps;
use super::streams::{Dataset, StreamSpec, parse_sizes};
use super::{Failure, Format};

#[derive(Debug, clap::Args)]
pub(in crate::inspect) struct Flags {
    /// The dataset, as for streaming
    remote: Option<String>,

    /// Instead of a dataset, the samples in its shards: 20000x18243,8892
    #[arg(
        long = "shard_sizes",
        alias = "shard-sizes",
        value_name = "SIZES",
        value_parser = parse_sizes,
        conflicts_with_all = ["remote", "streams"]
    )]
    shard_sizes: Option<Dataset>,

    /// Bytes of the largest shard of --shard_sizes; the others are in proportion
    #[arg(
        long = "shard_bytes",
        alias = "shard-bytes",
        value_name = "SIZE",
        default_value = "64mb",
        value_parser = parse_size,
        conflicts_with_all = ["remote", "streams"]
    )]
    shard_bytes: u64,

    /// One of several streams: REMOTE or sizes=SIZES, then ,proportion=P or ,repeat=R or ,choose=N
    #[arg(long = "stream", value_name = "STREAM", conflicts_with = "remote")]
    streams: Vec<StreamSpec>,

    #[command(flatten, next_help_heading = "World")]
    world: WorldFlags,

    #[command(flatten, next_help_heading = "Order")]
    order: OrderFlags,

    #[command(flatten, next_help_heading = "Position, cache and output")]
    pub(super) rest: Rest,
}

#[derive(Debug, clap::Args)]
struct WorldFlags {
    /// Hosts
    #[arg(long, default_value_t = 1, value_name = "N")]
    nodes: usize,

    /// Device processes on each host
    #[arg(
        long = "ranks_per_node",
        alias = "ranks-per-node",
        default_value_t = 1,
        value_name = "N"
    )]
    ranks_per_node: usize,

    /// Loader workers of each rank
    #[arg(
        long = "workers_per_rank",
        alias = "workers-per-rank",
        default_value_t = 1,
        value_name = "N"
    )]
    workers_per_rank: usize,

    /// Consecutive ranks that get the same samples
    #[arg(long, value_name = "N")]
    replication: Option<usize>,
}

#[derive(Debug, clap::Args)]
struct OrderFlags {
    /// Samples per rank and step
    #[arg(long = "batch_size", alias = "batch-size", default_value_t = 32, value_name = "N")]
    batch_size: usize,

    /// Shuffle (the default here, where the library's is not to)
    #[arg(long, overrides_with = "no_shuffle")]
    shuffle: bool,

    /// Serve the samples as they are stored
    #[arg(long = "no_shuffle", alias = "no-shuffle", overrides_with = "shuffle")]
    no_shuffle: bool,

    /// naive, py1b, py1br, py1e, py1s or py2s
    #[arg(
        long = "shuffle_algo",
        alias = "shuffle-algo",
        default_value = "py1e",
        value_name = "ALGO"
    )]
    shuffle_algo: ShuffleAlgo,

    /// Seed of every draw
    #[arg(
        long = "shuffle_seed",
        alias = "shuffle-seed",
        default_value_t = 9176,
        value_name = "SEED"
    )]
    shuffle_seed: u64,

    /// Samples that are mixed with one another [default: 4000000 / canonical nodes, at least 262144]
    #[arg(long = "shuffle_block_size", alias = "shuffle-block-size", value_name = "N")]
    shuffle_block_size: Option<u64>,

    /// Parts of the samples that fix the order [default: the nodes; 64 times that for py1s, py2s]
    #[arg(long = "num_canonical_nodes", alias = "num-canonical-nodes", value_name = "N")]
    num_canonical_nodes: Option<u64>,

    /// orig or relaxed
    #[arg(
        long = "partition_algo",
        alias = "partition-algo",
        default_value = "relaxed",
        value_name = "ALGO"
    )]
    partition_algo: PartitionAlgo,

    /// random, stratified, per_stream or device_per_stream
    #[arg(
        long = "batching_method",
        alias = "batching-method",
        default_value = "random",
        value_name = "METHOD"
    )]
    batching_method: BatchingMethod,

    /// balanced or fixed
    #[arg(
        long = "sampling_method",
        alias = "sampling-method",
        default_value = "balanced",
        value_name = "METHOD"
    )]
    sampling_method: SamplingMethod,

    /// Samples drawn at a time from a shard of a stream that is not taken whole
    #[arg(
        long = "sampling_granularity",
        alias = "sampling-granularity",
        default_value_t = 1,
        value_name = "N"
    )]
    sampling_granularity: u64,

    /// Samples per epoch, such as 1000 or 1.5m [default: what the weights say]
    #[arg(
        long = "epoch_size",
        alias = "epoch-size",
        value_name = "N",
        value_parser = parse_epoch_size
    )]
    epoch_size: Option<u64>,
}

/// Which part of the run is looked at, and how it is shown.
#[derive(Debug, clap::Args)]
pub(super) struct Rest {
    /// The epoch, from 0
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(super) epoch: u64,

    /// Begin behind so many samples of the epoch, over all ranks, as a resumed run does
    #[arg(
        long = "sample_in_epoch",
        alias = "sample-in-epoch",
        default_value_t = 0,
        value_name = "N"
    )]
    pub(super) sample_in_epoch: u64,

    /// Samples of each rank whose shards are fetched ahead [default: 8 batches]
    #[arg(long, value_name = "N")]
    pub(super) predownload: Option<usize>,

    /// Bytes of shards that the cache of a node may hold, such as 10gb [default: no limit]
    #[arg(
        long = "cache_limit",
        alias = "cache-limit",
        value_name = "SIZE",
        value_parser = parse_size
    )]
    pub(super) cache_limit: Option<u64>,

    /// Steps whose reads are listed: A..B (without B), A.., ..B or A [default: 0..2; all with --full]
    #[arg(long, value_name = "STEPS")]
    pub(super) steps: Option<Steps>,

    /// What to print
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    pub(super) format: Format,

    /// Draw a picture into this file too, which may be at a URL
    #[arg(long, value_name = "FILE")]
    pub(super) svg: Option<PathBuf>,
}

impl Flags {
    /// The streams that were asked for. `before` is a dataset that stands before the subcommand.
    pub(super) fn streams(&self, before: Option<String>) -> Result<Vec<StreamSpec>, Failure> {
        if let Some(sizes) = &self.shard_sizes {
            refuse(before.is_some(), "--shard_sizes")?;
            return Ok(vec![StreamSpec::sizes(sizes.clone(), self.shard_bytes)]);
        }
        if !self.streams.is_empty() {
            refuse(before.is_some(), "--stream")?;
            return Ok(self.streams.clone());
        }
        match self.remote.clone().or(before) {
            Some(remote) => Ok(vec![StreamSpec::remote(remote)]),
            None => Err(Failure::Usage(
                "order needs a dataset: give its REMOTE, --stream or --shard_sizes".to_owned(),
            )),
        }
    }

    /// The world as it is, before replication.
    pub(super) fn world(&self) -> World {
        let WorldFlags { nodes, ranks_per_node, workers_per_rank, .. } = self.world;
        World { nodes, ranks_per_node, workers_per_rank }
    }

    pub(super) fn options(&self) -> OrderOptions {
        let order = &self.order;
        OrderOptions {
            epoch_size: order.epoch_size,
            sampling_method: order.sampling_method,
            sampling_granularity: order.sampling_granularity,
            partition_algo: order.partition_algo,
            num_canonical_nodes: order.num_canonical_nodes,
            batch_size: Some(order.batch_size),
            shuffle: order.shuffle || !order.no_shuffle,
            shuffle_algo: order.shuffle_algo,
            shuffle_seed: order.shuffle_seed,
            shuffle_block_size: order.shuffle_block_size,
            batching_method: order.batching_method,
            replication: self.world.replication,
        }
    }
}

fn refuse(is_before: bool, flag: &str) -> Result<(), Failure> {
    if !is_before {
        return Ok(());
    }
    Err(Failure::Usage(format!("give a REMOTE or {flag}, not both")))
}
