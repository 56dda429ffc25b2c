//! The order of one epoch: which worker of which rank serves which samples, and when.

use std::fmt;
use std::sync::Arc;
use std::thread;

use super::mixing::{Mixing, Readers};
use super::partition::Partition;
use super::sampling::Draw;
use super::shuffle::{SampleOrder, SharedSegments};
use super::world::World;
use crate::huge_pages::ask_for_huge_pages;

/// The dimensions of an epoch's order: `[node][rank][worker][batch][position]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) world: World,
    /// Samples per batch of a rank.
    pub(super) batch_size: usize,
    /// Batches of each worker.
    pub(super) batches: usize,
}

impl Layout {
    /// Batches of each rank.
    pub(super) const fn rank_batches(&self) -> usize {
        self.world.workers_per_rank * self.batches
    }

    /// Ids of all ranks in one batch of each.
    pub(super) const fn global_batch(&self) -> usize {
        self.world.ranks() * self.batch_size
    }

    /// Ids of all ranks.
    pub(super) const fn len(&self) -> usize {
        self.rank_batches() * self.global_batch()
    }
}

/// The samples of one epoch (or of what is left of it), divided among nodes, ranks and workers.
///
/// Every worker has the same number of batches of `batch_size` ids each. An id of `-1` is padding
/// and is skipped when serving, so that the last batches may be short or empty.
///
/// An order is computed where it is looked at. A clone is another handle to the same one, for use
/// on any thread; it holds what all ranks have in common, some 100 bytes for each shard.
#[derive(Clone)]
pub struct EpochOrder {
    layout: Layout,
    mixing: Arc<Mixing>,
}

impl fmt::Debug for EpochOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EpochOrder").field("layout", &self.layout).finish_non_exhaustive()
    }
}

impl EpochOrder {
    pub(super) fn new(layout: Layout, mixing: Mixing) -> Self {
        Self { layout, mixing: Arc::new(mixing) }
    }

    /// The order of a partition by itself, whose ids are the positions that it divides.
    pub fn of_positions(partition: Partition) -> Self {
        let draw = Draw::whole(vec![partition.positions()], 0);
        let samples = SampleOrder::in_order(draw, 1);
        Self::new(partition.layout(), Mixing::Random { partition, samples })
    }

    /// The world that the samples are divided among, after replication.
    pub const fn world(&self) -> World {
        self.layout.world
    }

    /// Samples per batch of a rank, padding included.
    pub const fn batch_size(&self) -> usize {
        self.layout.batch_size
    }

    /// Batches that each worker serves, padding included.
    pub const fn batches_per_worker(&self) -> usize {
        self.layout.batches
    }

    /// Batches that each rank serves, and so steps of the epoch, padding included.
    pub const fn batches_per_rank(&self) -> usize {
        self.layout.rank_batches()
    }

    /// The ids of one worker, batch after batch: `[batches_per_worker * batch_size]`.
    ///
    /// # Panics
    /// If there is no such node, rank or worker in [`world`](Self::world), as slices do.
    pub fn worker(&self, node: usize, rank: usize, worker: usize) -> Vec<i64> {
        let workers = self.layout.world.workers_per_rank;
        assert!(worker < workers, "no worker {worker}");
        self.rank_batches(node, rank).skip(worker).step_by(workers).flatten().collect()
    }

    /// The batches of one rank in the order of serving, `[batch_size]` ids each: batch `b` comes
    /// from worker `b mod workers_per_rank`. To begin in the middle, [skip](Iterator::skip) the
    /// batches before: none of them is computed.
    ///
    /// # Panics
    /// If there is no such node or rank in [`world`](Self::world), as slices do.
    pub fn rank_batches(&self, node: usize, rank: usize) -> RankBatches {
        let World { nodes, ranks_per_node, .. } = self.layout.world;
        assert!(node < nodes && rank < ranks_per_node, "no rank {rank} on node {node}");
        RankBatches { order: self.clone(), readers: Readers::default(), node, rank, next: 0 }
    }

    /// The batches of all ranks, step by step: `[node][rank][position]` ids each, flat. As with
    /// [`rank_batches`](Self::rank_batches), steps that are skipped are not computed.
    pub fn global_batches(&self) -> GlobalBatches {
        GlobalBatches { order: self.clone(), readers: Readers::default(), next: 0 }
    }

    /// The whole order, `[step][node][rank][position]` flat, computed on all processors.
    pub fn to_vec(&self) -> Vec<i64> {
        // Zeros, which cost nothing until the threads write over them.
        let mut ids = vec![0; self.layout.len()];
        ask_for_huge_pages(&mut ids);
        let step = self.layout.global_batch();
        if ids.is_empty() {
            return ids;
        }
        let threads = thread::available_parallelism().map_or(1, usize::from);
        // Each thread fills a part of a stretch at a time. What the threads would all compute is
        // computed before, shared out among them.
        const STRETCH: usize = 1 << 22;
        let steps = (STRETCH * threads).div_ceil(step).next_multiple_of(threads);
        let mut readers: Vec<Readers> = (0..threads).map(|_| Readers::default()).collect();
        let mut shared = SharedSegments::default();
        for (number, stretch) in ids.chunks_mut(steps * step).enumerate() {
            let first = number * steps;
            let end = (first + steps).min(self.layout.rank_batches());
            shared = self.mixing.compute_shared(&self.layout, first..end, &mut readers, &shared);
            readers.iter_mut().for_each(|readers| readers.share(&shared));
            thread::scope(|scope| {
                let parts = stretch.chunks_mut(steps / threads * step);
                for (part, (ids, readers)) in parts.zip(&mut readers).enumerate() {
                    let first = first + part * (steps / threads);
                    scope.spawn(move || {
                        for (at, ids) in ids.chunks_mut(step).enumerate() {
                            self.fill_step(first + at, readers, ids);
                        }
                    });
                }
            });
        }
        ids
    }

    /// Writes the ids of all ranks in a step.
    fn fill_step(&self, step: usize, readers: &mut Readers, ids: &mut [i64]) {
        ids.fill(-1);
        let ranks_per_node = self.layout.world.ranks_per_node;
        for (rank, ids) in ids.chunks_exact_mut(self.layout.batch_size).enumerate() {
            let place = (rank / ranks_per_node, rank % ranks_per_node);
            self.mixing.fill(&self.layout, place, step, readers, ids);
        }
    }
}

/// The batches of one rank: see [`EpochOrder::rank_batches`].
#[derive(Debug)]
pub struct RankBatches {
    order: EpochOrder,
    readers: Readers,
    node: usize,
    rank: usize,
    next: usize,
}

impl Iterator for RankBatches {
    /// `[batch_size]`
    type Item = Vec<i64>;

    fn next(&mut self) -> Option<Vec<i64>> {
        let layout = &self.order.layout;
        if self.next >= layout.rank_batches() {
            return None;
        }
        let mut ids = vec![-1; layout.batch_size];
        let place = (self.node, self.rank);
        self.order.mixing.fill(layout, place, self.next, &mut self.readers, &mut ids);
        self.next += 1;
        Some(ids)
    }

    fn nth(&mut self, skipped: usize) -> Option<Vec<i64>> {
        self.next = self.next.saturating_add(skipped);
        self.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.order.layout.rank_batches().saturating_sub(self.next);
        (left, Some(left))
    }
}

impl ExactSizeIterator for RankBatches {}

/// The batches of all ranks: see [`EpochOrder::global_batches`].
#[derive(Debug)]
pub struct GlobalBatches {
    order: EpochOrder,
    readers: Readers,
    next: usize,
}

impl Iterator for GlobalBatches {
    /// `[node][rank][position]`, flat.
    type Item = Vec<i64>;

    fn next(&mut self) -> Option<Vec<i64>> {
        let layout = &self.order.layout;
        if self.next >= layout.rank_batches() {
            return None;
        }
        let mut ids = vec![0; layout.global_batch()];
        self.order.fill_step(self.next, &mut self.readers, &mut ids);
        self.next += 1;
        Some(ids)
    }

    fn nth(&mut self, skipped: usize) -> Option<Vec<i64>> {
        self.next = self.next.saturating_add(skipped);
        self.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.order.layout.rank_batches().saturating_sub(self.next);
        (left, Some(left))
    }
}

impl ExactSizeIterator for GlobalBatches {}
