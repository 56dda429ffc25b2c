//! One pass over an epoch, global batch by global batch: all that is counted on the way.

use std::collections::VecDeque;

use indicatif::ProgressBar;
use mds::order::EpochOrder;

use super::Failure;
use super::node::{Node, Sizes};
use super::quality::{Meter, Quality};
use super::shards::Shards;
use super::timeline::{Heat, Timeline};

/// Nodes whose reads are kept for the picture.
const DRAWN_NODES: usize = 4;

/// What the pass is about.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    pub(super) order: &'a EpochOrder,
    pub(super) shards: &'a Shards,
    /// Physical nodes, and those of each rank of the order (several where ranks are replicated).
    pub(super) nodes: usize,
    pub(super) nodes_of: &'a [Vec<usize>],
    /// Batches of each rank whose shards are fetched ahead, with the one at hand.
    pub(super) ahead: usize,
    pub(super) cache_limit: Option<u64>,
}

/// What was counted.
#[derive(Debug)]
pub(super) struct Outcome<'a> {
    /// Global batches up to the last one with a sample.
    pub(super) steps: u64,
    /// Samples served, and how many different ones.
    pub(super) served: u64,
    pub(super) unique: u64,
    /// Batches with a sample of the rank with the fewest and the one with the most.
    pub(super) batches_per_rank: (u64, u64),
    pub(super) quality: Quality,
    /// Different shards of a global batch.
    pub(super) shards_per_batch: Spread,
    pub(super) nodes: Vec<Node<'a>>,
    /// The most bytes that each node's cache needs at once.
    pub(super) needed_bytes: Vec<u64>,
    pub(super) heats: Vec<Heat>,
}

/// Mean and extremes of a number.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize)]
pub(super) struct Spread {
    pub(super) mean: f64,
    pub(super) min: u64,
    pub(super) max: u64,
}

impl<'a> Walk<'a> {
    /// Goes through the epoch. `listen` hears of each step with the ids of all ranks.
    pub(super) fn run(
        &self,
        bar: &ProgressBar,
        mut listen: impl FnMut(u64, &[i64]) -> Result<(), Failure>,
    ) -> Result<Outcome<'a>, Failure> {
        let mut pass = Pass::new(self);
        let mut batches = self.order.global_batches().enumerate();
        let mut window: VecDeque<Vec<Vec<u32>>> = VecDeque::new();
        let mut step = 0;
        loop {
            while window.len() < self.ahead {
                let Some((number, ids)) = batches.next() else { break };
                listen(number as u64, &ids)?;
                let needed = pass.read(number as u64, &ids);
                for (node, shards) in pass.nodes.iter_mut().zip(&needed) {
                    node.enter(step, shards);
                    if number == 0 {
                        node.mark_first_batch();
                    }
                }
                window.push_back(needed);
                bar.inc(ids.len() as u64);
            }
            let Some(needed) = window.pop_front() else { break };
            for (node, shards) in pass.nodes.iter_mut().zip(&needed) {
                node.leave(step, shards);
            }
            step += 1;
        }
        Ok(pass.finish())
    }
}

/// The counters while they count.
struct Pass<'a, 'w> {
    walk: &'w Walk<'a>,
    batch_size: usize,
    nodes: Vec<Node<'a>>,
    heats: Vec<Heat>,
    meter: Meter,
    /// A bit for each sample that was served.
    served: Vec<u64>,
    served_count: u64,
    unique: u64,
    steps: u64,
    batches: Vec<u64>,
    batch_shards: Seen,
    node_shards: Vec<Seen>,
    shards_sum: u64,
    shards_min: u64,
    shards_max: u64,
}

/// Which shards occurred in the current batch.
#[derive(Clone)]
struct Seen {
    in_batch: Vec<u64>,
}

impl Seen {
    fn new(shards: usize) -> Self {
        Self { in_batch: vec![u64::MAX; shards] }
    }

    /// Whether this is the first time in this batch.
    fn is_first(&mut self, shard: u32, batch: u64) -> bool {
        std::mem::replace(&mut self.in_batch[shard as usize], batch) != batch
    }
}

impl<'a, 'w> Pass<'a, 'w> {
    fn new(walk: &'w Walk<'a>) -> Self {
        let (order, shards) = (walk.order, walk.shards);
        let world = order.world();
        let steps = order.batches_per_worker() as u64 * world.workers_per_rank as u64;
        let places = steps.saturating_mul((world.ranks() * order.batch_size()) as u64);
        let sizes = Sizes { raw: &shards.raw, stored: &shards.stored, limit: walk.cache_limit };
        let seen = Seen::new(shards.len());
        let heat = Heat::new(shards.len() as u64, steps);
        Self {
            walk,
            batch_size: order.batch_size(),
            nodes: (0..walk.nodes).map(|_| Node::new(sizes, Timeline::new(steps))).collect(),
            heats: vec![heat; walk.nodes.min(DRAWN_NODES)],
            meter: Meter::new(shards.len(), places),
            served: vec![0; shards.samples().div_ceil(64) as usize],
            served_count: 0,
            unique: 0,
            steps: 0,
            batches: vec![0; world.ranks()],
            batch_shards: seen.clone(),
            node_shards: vec![seen; walk.nodes],
            shards_sum: 0,
            shards_min: u64::MAX,
            shards_max: 0,
        }
    }

    /// Takes the ids of one global batch in. Returns the shards that each node needs for it.
    fn read(&mut self, number: u64, ids: &[i64]) -> Vec<Vec<u32>> {
        let mut needed = vec![Vec::new(); self.nodes.len()];
        let mut different = 0;
        for (rank, batch) in ids.chunks(self.batch_size).enumerate() {
            let nodes = &self.walk.nodes_of[rank];
            let mut is_empty = true;
            for sample in batch.iter().filter_map(|id| u64::try_from(*id).ok()) {
                is_empty = false;
                let shard = self.walk.shards.of(sample);
                self.served_count += 1;
                let bit = 1 << (sample % 64);
                let word = &mut self.served[(sample / 64) as usize];
                self.unique += u64::from(*word & bit == 0);
                *word |= bit;
                self.meter.take(sample, shard);
                different += u64::from(self.batch_shards.is_first(shard, number));
                for &node in nodes {
                    if self.node_shards[node].is_first(shard, number) {
                        needed[node].push(shard);
                    }
                    if let Some(heat) = self.heats.get_mut(node) {
                        heat.read(number, shard);
                    }
                }
            }
            self.batches[rank] += u64::from(!is_empty);
        }
        if different > 0 {
            self.steps = number + 1;
            self.shards_sum += different;
            self.shards_min = self.shards_min.min(different);
            self.shards_max = self.shards_max.max(different);
        }
        needed
    }

    fn finish(mut self) -> Outcome<'a> {
        for node in &mut self.nodes {
            node.timeline.end(self.steps);
        }
        let needed_bytes = self.nodes.iter_mut().map(Node::finish).collect();
        let most = |list: &[u64]| list.iter().copied().max().unwrap_or(0);
        let fewest = self.batches.iter().copied().min().unwrap_or(0);
        Outcome {
            steps: self.steps,
            served: self.served_count,
            unique: self.unique,
            batches_per_rank: (fewest, most(&self.batches)),
            quality: self.meter.finish(self.walk.shards.samples()),
            shards_per_batch: Spread {
                mean: self.shards_sum as f64 / self.steps.max(1) as f64,
                min: if self.steps == 0 { 0 } else { self.shards_min },
                max: self.shards_max,
            },
            nodes: self.nodes,
            needed_bytes,
            heats: self.heats,
        }
    }
}
