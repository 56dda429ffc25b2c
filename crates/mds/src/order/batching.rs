//! How streams are mixed into batches: the last stage, which runs all others.
//!
//! `random` treats all streams as one. The other methods order every stream by itself, as a list
//! of the ids in the order of serving, and then compose global batches from these lists. They
//! resume by whole global batches.

use std::ops::Range;

use super::epoch::{EpochOrder, Layout};
use super::error::{Error, Result};
use super::mixing::{Dealt, Mixing, Origins, StreamList};
use super::options::{BatchingMethod, OrderOptions, SamplingMethod};
use super::partition::{Partition, PartitionRule};
use super::rng::Generator;
use super::sampling::{self, DrawRule, StreamDraw};
use super::shuffle::{SampleOrder, ShuffleRule};
use super::state::State;
use super::weights::Shares;
use super::world::World;

/// Everything that decides the order of one epoch.
#[derive(Debug)]
pub(super) struct Run<'a> {
    /// Samples in each shard of each stream.
    pub(super) shards: &'a [Vec<u64>],
    pub(super) shares: &'a Shares,
    pub(super) options: &'a OrderOptions,
    /// The world after replication.
    pub(super) world: World,
    /// Samples per batch of a rank.
    pub(super) batch_size: usize,
    /// Where the epoch is entered, and what holds for the run.
    pub(super) state: State,
}

/// The order of what is left of the epoch.
pub(super) fn order(run: &Run<'_>) -> Result<EpochOrder> {
    match run.options.batching_method {
        BatchingMethod::Random => random(run),
        BatchingMethod::Stratified => stratified(run),
        BatchingMethod::PerStream => per_stream(run),
        BatchingMethod::DevicePerStream => device_per_stream(run),
    }
}

impl Run<'_> {
    /// Samples of a global batch: one batch of every rank.
    const fn global_batch(&self) -> usize {
        self.batch_size * self.world.ranks()
    }

    fn epoch_seed(&self) -> u128 {
        u128::from(self.state.shuffle_seed) + u128::from(self.state.epoch)
    }

    fn balanced(&self) -> bool {
        self.options.sampling_method == SamplingMethod::Balanced
    }

    /// Seed of the choice among shards and of the mixing of streams, which stays the same in all
    /// epochs unless samples are shuffled and drawn anew.
    fn mixing_seed(&self) -> u128 {
        if self.options.shuffle && self.balanced() {
            self.epoch_seed()
        } else {
            self.state.shuffle_seed.into()
        }
    }

    fn partition_rule(&self, samples: u64) -> PartitionRule {
        PartitionRule {
            algo: self.options.partition_algo,
            samples,
            canonical_nodes: self.state.num_canonical_nodes,
            world: self.world,
            initial_nodes: self.state.initial_physical_nodes,
            batch_size: self.batch_size,
            drop_first: 0,
        }
    }

    /// Draws and shuffles the samples of some streams together.
    fn samples(&self, streams: Range<usize>, block: u64) -> Result<SampleOrder> {
        // Whether samples are drawn anew does not depend on shuffling, unlike the shards' parts.
        let sample_seed =
            if self.balanced() { self.epoch_seed() } else { self.state.shuffle_seed.into() };
        let rule = DrawRule {
            granularity: self.options.sampling_granularity,
            shard_seed: self.mixing_seed(),
            sample_seed,
        };
        let mut first_id = self.shards[..streams.start].iter().flatten().sum();
        let mut draws = Vec::with_capacity(streams.len());
        for stream in streams {
            let shard_sizes = &self.shards[stream][..];
            draws.push(StreamDraw { shard_sizes, first_id, choose: self.shares.choose[stream] });
            first_id += shard_sizes.iter().sum::<u64>();
        }
        let draw = sampling::draw(&draws, rule)?;
        if !self.options.shuffle {
            return Ok(SampleOrder::in_order(draw, self.state.num_canonical_nodes));
        }
        let rule = ShuffleRule {
            algo: self.options.shuffle_algo,
            canonical_nodes: self.state.num_canonical_nodes,
            seed: self.state.shuffle_seed,
            epoch: self.state.epoch,
            block,
        };
        SampleOrder::shuffled(draw, &rule)
    }

    /// Draws and shuffles the samples of one stream, over its part of the shuffle block.
    fn stream_samples(&self, stream: usize) -> Result<SampleOrder> {
        let block = self.options.block_size(self.state.num_canonical_nodes);
        let block = (block as f64 * self.shares.proportion[stream]) as u64;
        let algo = self.options.shuffle_algo;
        let device = self.options.batching_method == BatchingMethod::DevicePerStream;
        if device && self.options.shuffle && block == 0 {
            return Err(Error::ShuffleBlock { algo, block, least: 1, stream: Some(stream) });
        }
        self.samples(stream..stream + 1, block).map_err(|error| match error {
            Error::ShuffleBlock { algo, block, least, .. } => {
                Error::ShuffleBlock { algo, block, least, stream: Some(stream) }
            }
            other => other,
        })
    }

    /// Deals whole global batches of a list of `len` ids to the ranks, from where the epoch is
    /// entered. All workers get the same number of batches; the last ones may be padding.
    fn deal(&self, list: Dealt, streams: Vec<StreamList>, len: u64) -> EpochOrder {
        let global_batch = self.global_batch() as u64;
        if !self.state.sample_in_epoch.is_multiple_of(global_batch) {
            tracing::warn!(
                sample_in_epoch = self.state.sample_in_epoch,
                global_batch,
                "the epoch is resumed at the start of a global batch; some samples come again"
            );
        }
        let skipped = self.state.sample_in_epoch / global_batch * global_batch;
        let round = global_batch * self.world.workers_per_rank as u64;
        let batches = len.saturating_sub(skipped).div_ceil(round) as usize;
        let layout = Layout { world: self.world, batch_size: self.batch_size, batches };
        EpochOrder::new(layout, Mixing::Dealt { list, streams, skipped, len })
    }
}

fn random(run: &Run<'_>) -> Result<EpochOrder> {
    let partition = Partition::new(&PartitionRule {
        drop_first: run.state.sample_in_epoch,
        ..run.partition_rule(run.shares.epoch_size)
    })?;
    let block = run.options.block_size(run.state.num_canonical_nodes);
    let samples = run.samples(0..run.shards.len(), block)?;
    Ok(EpochOrder::new(partition.layout(), Mixing::Random { partition, samples }))
}

/// Every global batch holds the streams' ids one stream after the other, in their proportions.
fn stratified(run: &Run<'_>) -> Result<EpochOrder> {
    let parts = stratified_parts(&run.shares.proportion, run.global_batch())?;
    let mut streams = Vec::with_capacity(parts.len());
    let mut fewest = None;
    for (stream, &choose) in run.shares.choose.iter().enumerate() {
        let world = World { nodes: 1, ..run.world };
        let rule = PartitionRule { world, batch_size: 1, ..run.partition_rule(choose) };
        let partition = Partition::new(&rule)?;
        let batches = partition.served_len(&(0..1)) / parts[stream] as u64;
        if fewest.is_none_or(|(_, least)| batches < least) {
            fewest = Some((stream, batches));
        }
        streams.push(StreamList { partition, samples: run.stream_samples(stream)? });
    }
    let (stream, batches) = fewest.ok_or(Error::NoStreams)?;
    // The reference goes on here with an epoch of nothing, and another, for ever.
    if batches == 0 {
        return Err(Error::StreamTooSmall { stream, batch: parts[stream] as u64 });
    }
    let len = batches * run.global_batch() as u64;
    Ok(run.deal(Dealt::Stratified { parts }, streams, len))
}

/// Samples of each stream in a global batch: its proportion rounded down, plus one for the streams
/// with the largest remainders. Of equal remainders the higher stream number comes first, as in a
/// stable ascending sort that is read from its end.
fn stratified_parts(proportion: &[f64], global_batch: usize) -> Result<Vec<usize>> {
    let exact: Vec<f64> = proportion.iter().map(|part| global_batch as f64 * part).collect();
    let mut parts: Vec<usize> = exact.iter().map(|&part| part as usize).collect();
    let remainder = |&stream: &usize| exact[stream] - parts[stream] as f64;
    let mut ascending: Vec<usize> = (0..parts.len()).collect();
    ascending.sort_by(|a, b| remainder(a).total_cmp(&remainder(b)));
    let missing = global_batch.saturating_sub(parts.iter().sum());
    for &stream in ascending.iter().rev().take(missing) {
        parts[stream] += 1;
    }
    match parts.iter().position(|&part| part == 0) {
        Some(stream) => Err(Error::StreamShare {
            stream,
            proportion: proportion[stream],
            global_batch: global_batch as u64,
        }),
        None => Ok(parts),
    }
}

/// Every global batch comes from one stream.
fn per_stream(run: &Run<'_>) -> Result<EpochOrder> {
    let global_batch = run.global_batch() as u64;
    let mut streams = Vec::with_capacity(run.shards.len());
    let mut origins = Vec::new();
    for (stream, &choose) in run.shares.choose.iter().enumerate() {
        let partition = Partition::new(&run.partition_rule(choose))?;
        let samples = run.stream_samples(stream)?;
        let batches = partition.full_batches();
        if batches == 0 {
            return Err(Error::StreamTooSmall { stream, batch: global_batch });
        }
        origins.extend(std::iter::repeat_n(stream as u32, batches as usize));
        streams.push(StreamList { partition, samples });
    }
    Generator::new(run.mixing_seed()).shuffle(&mut origins);
    let len = origins.len() as u64 * global_batch;
    Ok(run.deal(Dealt::PerStream { origins: Origins::new(&origins) }, streams, len))
}

/// Every device batch comes from one stream. The canonical nodes belong to fixed physical nodes.
fn device_per_stream(run: &Run<'_>) -> Result<EpochOrder> {
    let (nodes, canonical) = (run.world.nodes, run.state.num_canonical_nodes);
    if !canonical.is_multiple_of(nodes as u64) {
        return Err(Error::DeviceCanonicalNodes { canonical, nodes });
    }
    let per_node = canonical as usize / nodes;
    let mut streams = Vec::with_capacity(run.shards.len());
    // The streams of each node's batches.
    let mut origins: Vec<Vec<u32>> = vec![Vec::new(); nodes];
    for (stream, &choose) in run.shares.choose.iter().enumerate() {
        let world = World { nodes: canonical as usize, ..run.world };
        let rule = PartitionRule { world, batch_size: 1, ..run.partition_rule(choose) };
        let partition = Partition::new(&rule)?;
        let samples = run.stream_samples(stream)?;
        for (node, origins) in origins.iter_mut().enumerate() {
            let len = partition.served_len(&(node * per_node..(node + 1) * per_node));
            let batches = len as usize / run.batch_size;
            if batches == 0 {
                return Err(Error::StreamTooSmall { stream, batch: run.batch_size as u64 });
            }
            origins.extend(std::iter::repeat_n(stream as u32, batches));
        }
        streams.push(StreamList { partition, samples });
    }
    // Always at least one more, so that a multiple of the devices gets a whole round more.
    let most = origins.iter().map(Vec::len).max().unwrap_or(0);
    let batches = (most + 1).next_multiple_of(run.world.ranks());
    let mut rng = Generator::new(run.mixing_seed());
    let mut shuffled = |mut origins: Vec<u32>| {
        rng.shuffle(&mut origins);
        Origins::new(&origins)
    };
    let list = Dealt::DevicePerStream {
        nodes: origins.into_iter().map(&mut shuffled).collect(),
        per_node,
    };
    Ok(run.deal(list, streams, (batches * nodes * run.batch_size) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::{Plan, StreamShape, Weight};

    fn plan(method: BatchingMethod, weights: &[f64], options: OrderOptions) -> Plan {
        let stream = |&weight: &f64| StreamShape {
            shard_sizes: vec![30, 0, 30],
            weight: Weight::Proportion(weight),
        };
        let streams: Vec<_> = weights.iter().map(stream).collect();
        let options = OrderOptions {
            batching_method: method,
            batch_size: options.batch_size.or(Some(4)),
            shuffle: true,
            ..options
        };
        let world = World { nodes: 1, ranks_per_node: 2, workers_per_rank: 3 };
        Plan::new(&streams, options, world).unwrap()
    }

    fn message(method: BatchingMethod, weights: &[f64], options: OrderOptions) -> String {
        plan(method, weights, options).epoch(0, 0, None).unwrap_err().to_string()
    }

    #[test]
    fn remainders_go_to_the_higher_stream_of_equal_ones() {
        let third = 1.0 / 3.0;
        assert_eq!(stratified_parts(&[third; 3], 8), Ok(vec![2, 3, 3]));
        assert_eq!(stratified_parts(&[0.5, 0.3, 0.2], 10), Ok(vec![5, 3, 2]));
        // A share that rounds down to none may still get one of the missing.
        assert_eq!(stratified_parts(&[0.91, 0.09], 10), Ok(vec![9, 1]));
    }

    #[test]
    fn stratified_batches_hold_every_stream_in_order() {
        let plan = plan(BatchingMethod::Stratified, &[3.0, 1.0], OrderOptions::default());
        let order = plan.epoch(0, 0, None).unwrap();
        let first: Vec<_> =
            (0..2).flat_map(|rank| order.worker(0, rank, 0)[..4].to_vec()).collect();
        assert!(first[..6].iter().all(|&id| id < 60) && first[6..].iter().all(|&id| id >= 60));
    }

    #[test]
    fn a_resumed_epoch_skips_whole_global_batches() {
        for method in
            [BatchingMethod::Stratified, BatchingMethod::PerStream, BatchingMethod::DevicePerStream]
        {
            let plan = plan(method, &[3.0, 1.0], OrderOptions::default());
            let batches = |offset| {
                let order = plan.epoch(2, offset, None).unwrap();
                let served: Vec<_> = order.rank_batches(0, 1).collect();
                served.into_iter().filter(|batch| batch[0] >= 0).collect::<Vec<_>>()
            };
            let all = batches(0);
            assert_eq!(batches(16), all[2..], "{method}");
            assert_eq!(batches(17), all[2..], "{method}");
            assert!(batches(1 << 40).is_empty(), "{method}");
        }
    }

    #[test]
    fn batches_of_one_stream_hold_only_that() {
        for method in [BatchingMethod::PerStream, BatchingMethod::DevicePerStream] {
            let plan = plan(method, &[1.0, 1.0], OrderOptions::default());
            let order = plan.epoch(0, 0, None).unwrap();
            for batch in (0..2).flat_map(|rank| order.rank_batches(0, rank)) {
                let first = batch.iter().filter(|id| (0..60).contains(*id)).count();
                let second = batch.iter().filter(|&&id| id >= 60).count();
                assert!(first == 0 || second == 0, "{method}: {batch:?}");
            }
        }
    }

    #[test]
    fn set_ups_without_batches_are_refused() {
        let large = OrderOptions { batch_size: Some(64), ..OrderOptions::default() };
        assert_eq!(
            message(BatchingMethod::PerStream, &[1.0, 1.0], large.clone()),
            "stream 0 has too few samples to fill one batch of 128; \
             lower batch_size, choose more of the stream or remove it"
        );
        assert!(message(BatchingMethod::DevicePerStream, &[1.0], large.clone()).contains("of 64;"));
        assert!(message(BatchingMethod::Stratified, &[1.0], large).contains("of 128;"));
        assert_eq!(
            message(BatchingMethod::Stratified, &[0.99, 0.01], OrderOptions::default()),
            "stream 1 has no sample in a global batch of 8 (its proportion is 0.01); \
             raise batch_size, raise the stream's proportion or remove the stream"
        );
    }

    #[test]
    fn a_stream_s_part_of_the_block_must_not_vanish() {
        let tiny = OrderOptions { shuffle_block_size: Some(3), ..OrderOptions::default() };
        let expected = "shuffle_block_size 0 is too small for py1e; use at least 1 \
                        (this is the part of stream 1: raise the whole block or the stream's proportion)";
        for method in [BatchingMethod::PerStream, BatchingMethod::DevicePerStream] {
            assert_eq!(message(method, &[3.0, 1.0], tiny.clone()), expected);
        }
        // Algorithms without blocks do not mind, save for device_per_stream.
        let algo = super::super::options::ShuffleAlgo::Py1s;
        let py1s = OrderOptions { shuffle_algo: algo, num_canonical_nodes: Some(1), ..tiny };
        let epoch = |method| plan(method, &[3.0, 1.0], py1s.clone()).epoch(0, 0, None);
        assert!(epoch(BatchingMethod::PerStream).is_ok());
        assert!(epoch(BatchingMethod::DevicePerStream).is_err());
    }

    #[test]
    fn device_batches_need_whole_canonical_nodes() {
        let options = OrderOptions {
            batch_size: Some(2),
            num_canonical_nodes: Some(1),
            ..OrderOptions::default()
        };
        let stream = StreamShape { shard_sizes: vec![40], weight: Weight::Natural };
        let options = OrderOptions { batching_method: BatchingMethod::DevicePerStream, ..options };
        let world = World { nodes: 2, ranks_per_node: 1, workers_per_rank: 1 };
        let plan = Plan::new(&[stream], options, world).unwrap();
        assert_eq!(
            plan.epoch(0, 0, None).unwrap_err().to_string(),
            "batching_method device_per_stream needs num_canonical_nodes (1) to be a multiple \
             of the 2 physical nodes; change num_canonical_nodes"
        );
    }
}
