//! What is known of an epoch at the end: the object that `--format json` writes.

use mds::order::{OrderOptions, Plan, World};
use serde::Serialize;

use super::quality::Quality;
use super::shards::{Shards, StreamInfo};
use super::walk::{Outcome, Spread};

/// The whole answer. Bytes, samples and steps are whole numbers; steps count global batches.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) dataset: DatasetReport,
    pub(super) options: OptionsReport,
    pub(super) epoch: EpochReport,
    pub(super) quality: Quality,
    /// Different shards in a global batch.
    pub(super) shards_per_global_batch: Spread,
    pub(super) nodes: Vec<NodeReport>,
}

/// What there is to read.
#[derive(Debug, Serialize)]
pub(super) struct DatasetReport {
    pub(super) samples: u64,
    pub(super) shards: usize,
    /// Bytes of all shards in a cache, and to download.
    pub(super) raw_bytes: u64,
    pub(super) stored_bytes: u64,
    pub(super) streams: Vec<StreamReport>,
}

#[derive(Debug, Serialize)]
pub(super) struct StreamReport {
    pub(super) name: String,
    pub(super) samples: u64,
    pub(super) shards: usize,
    pub(super) first_sample: u64,
    pub(super) first_shard: usize,
    /// Samples that it gives to an epoch, and their part of it.
    pub(super) choose: u64,
    pub(super) proportion: f64,
}

/// The options as they hold, defaults filled in.
#[derive(Debug, Serialize)]
pub(super) struct OptionsReport {
    pub(super) nodes: usize,
    pub(super) ranks_per_node: usize,
    pub(super) workers_per_rank: usize,
    pub(super) replication: usize,
    pub(super) batch_size: usize,
    pub(super) shuffle: bool,
    pub(super) shuffle_algo: &'static str,
    pub(super) shuffle_seed: u64,
    pub(super) shuffle_block_size: u64,
    pub(super) num_canonical_nodes: u64,
    pub(super) partition_algo: &'static str,
    pub(super) batching_method: &'static str,
    pub(super) sampling_method: &'static str,
    pub(super) sampling_granularity: u64,
    pub(super) predownload: usize,
    pub(super) cache_limit: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(super) struct EpochReport {
    pub(super) epoch: u64,
    pub(super) sample_in_epoch: u64,
    /// Samples that the weights give to an epoch.
    pub(super) epoch_size: u64,
    pub(super) steps: u64,
    /// Places in a global batch.
    pub(super) global_batch_size: u64,
    /// Batches that hold a sample, of the rank with the fewest and the one with the most.
    pub(super) batches_per_rank_min: u64,
    pub(super) batches_per_rank_max: u64,
    /// Samples served; how many different ones, how often one again, how many of the dataset not.
    pub(super) served: u64,
    pub(super) unique: u64,
    pub(super) repeated: u64,
    pub(super) never_served: u64,
    /// Places in the steps' batches that stay empty.
    pub(super) padding: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct NodeReport {
    pub(super) node: usize,
    pub(super) download: DownloadReport,
    pub(super) cache: CacheReport,
    /// Steps of each point of the timeline.
    pub(super) steps_per_point: u64,
    pub(super) timeline: Vec<PointReport>,
}

/// Downloads are counted when a shard comes within `predownload` samples of a rank of the node.
#[derive(Debug, Serialize)]
pub(super) struct DownloadReport {
    pub(super) bytes: u64,
    pub(super) shards: u64,
    /// Those of them that had been downloaded before and were evicted since.
    pub(super) again_bytes: u64,
    pub(super) again_shards: u64,
    /// For the first batch alone, and before it is served, with what is fetched ahead.
    pub(super) first_batch_bytes: u64,
    pub(super) first_step_bytes: u64,
    /// The most in one of the later steps.
    pub(super) largest_later_step_bytes: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct CacheReport {
    /// The most bytes of shards between their first download and their last use at once.
    pub(super) needed_bytes: u64,
    /// The smallest cache_limit with which nothing is downloaded twice.
    pub(super) no_redownload_limit: u64,
    /// The most bytes of shards that are wanted at once: less is exceeded.
    pub(super) largest_window_bytes: u64,
    /// With a cache_limit: the most bytes held, and steps in which a download went beyond the limit.
    pub(super) held_bytes_max: Option<u64>,
    pub(super) steps_over_limit: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(super) struct PointReport {
    pub(super) first_step: u64,
    pub(super) downloaded_bytes: u64,
    /// With all before.
    pub(super) cumulative_bytes: u64,
    pub(super) largest_step_bytes: u64,
    pub(super) needed_bytes: u64,
}

/// What the walk does not know.
pub(super) struct Asked<'a> {
    pub(super) streams: &'a [StreamInfo],
    pub(super) shards: &'a Shards,
    pub(super) plan: &'a Plan,
    pub(super) physical: World,
    pub(super) batch_size: usize,
    pub(super) predownload: usize,
    pub(super) cache_limit: Option<u64>,
    pub(super) epoch: u64,
    pub(super) sample_in_epoch: u64,
}

impl Asked<'_> {
    pub(super) fn dataset(&self) -> DatasetReport {
        let shares = self.plan.shares();
        let stream = |(number, stream): (usize, &StreamInfo)| StreamReport {
            name: stream.name.clone(),
            samples: stream.shape.shard_sizes.iter().sum(),
            shards: stream.shape.shard_sizes.len(),
            first_sample: stream.first_sample,
            first_shard: stream.first_shard,
            choose: shares.choose[number],
            proportion: shares.proportion[number],
        };
        let sum = |bytes: &[u64]| bytes.iter().copied().fold(0, u64::saturating_add);
        DatasetReport {
            samples: self.shards.samples(),
            shards: self.shards.len(),
            raw_bytes: sum(&self.shards.raw),
            stored_bytes: sum(&self.shards.stored),
            streams: self.streams.iter().enumerate().map(stream).collect(),
        }
    }

    pub(super) fn options(&self) -> OptionsReport {
        let options: &OrderOptions = self.plan.options();
        OptionsReport {
            nodes: self.physical.nodes,
            ranks_per_node: self.physical.ranks_per_node,
            workers_per_rank: self.physical.workers_per_rank,
            replication: options.replication.unwrap_or(1),
            batch_size: self.batch_size,
            shuffle: options.shuffle,
            shuffle_algo: options.shuffle_algo.as_str(),
            shuffle_seed: options.shuffle_seed,
            shuffle_block_size: self.plan.shuffle_block_size(),
            num_canonical_nodes: self.plan.num_canonical_nodes(),
            partition_algo: options.partition_algo.as_str(),
            batching_method: options.batching_method.as_str(),
            sampling_method: options.sampling_method.as_str(),
            sampling_granularity: options.sampling_granularity,
            predownload: self.predownload,
            cache_limit: self.cache_limit,
        }
    }

    pub(super) fn report(&self, outcome: &Outcome<'_>) -> Report {
        let global_batch_size = (self.plan.world().ranks() * self.batch_size) as u64;
        let epoch = EpochReport {
            epoch: self.epoch,
            sample_in_epoch: self.sample_in_epoch,
            epoch_size: self.plan.epoch_size(),
            steps: outcome.steps,
            global_batch_size,
            batches_per_rank_min: outcome.batches_per_rank.0,
            batches_per_rank_max: outcome.batches_per_rank.1,
            served: outcome.served,
            unique: outcome.unique,
            repeated: outcome.served - outcome.unique,
            never_served: self.shards.samples() - outcome.unique,
            padding: outcome.steps * global_batch_size - outcome.served,
        };
        Report {
            dataset: self.dataset(),
            options: self.options(),
            epoch,
            quality: outcome.quality,
            shards_per_global_batch: outcome.shards_per_batch,
            nodes: (0..outcome.nodes.len()).map(|node| node_report(node, outcome)).collect(),
        }
    }
}

fn node_report(number: usize, outcome: &Outcome<'_>) -> NodeReport {
    let node = &outcome.nodes[number];
    let downloads = node.downloads;
    let width = node.timeline.width;
    let points = node.timeline.points.iter().zip((0..).step_by(width as usize));
    let timeline = points.scan(0, |cumulative, (point, first_step)| {
        *cumulative += point.downloaded_bytes;
        Some(PointReport {
            first_step,
            downloaded_bytes: point.downloaded_bytes,
            cumulative_bytes: *cumulative,
            largest_step_bytes: point.largest_step_bytes,
            needed_bytes: point.needed_bytes,
        })
    });
    NodeReport {
        node: number,
        download: DownloadReport {
            bytes: downloads.bytes,
            shards: downloads.shards,
            again_bytes: downloads.again_bytes,
            again_shards: downloads.again_shards,
            first_batch_bytes: downloads.first_batch_bytes,
            first_step_bytes: downloads.first_step_bytes,
            largest_later_step_bytes: downloads.largest_later_step_bytes,
        },
        cache: CacheReport {
            needed_bytes: outcome.needed_bytes[number],
            no_redownload_limit: node.no_redownload_bytes(),
            largest_window_bytes: node.largest_window_bytes,
            held_bytes_max: node.under_the_limit().map(|(held, _)| held),
            steps_over_limit: node.under_the_limit().map(|(_, steps)| steps),
        },
        steps_per_point: width,
        timeline: timeline.collect(),
    }
}
