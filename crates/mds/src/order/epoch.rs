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
    pub fn rank_batches(&self, node: usize, rank: usize) -> Batches {
        let World { nodes, ranks_per_node, .. } = self.layout.world;
        assert!(node < nodes && rank < ranks_per_node, "no rank {rank} on node {node}");
        self.batches(Some((node, rank)))
    }

    /// The batches of all ranks, step by step: `[node][rank][position]` ids each, flat. As with
    /// [`rank_batches`](Self::rank_batches), steps that are skipped are not computed.
    pub fn global_batches(&self) -> Batches {
        self.batches(None)
    }

    fn batches(&self, rank: Option<(usize, usize)>) -> Batches {
        Batches { order: self.clone(), readers: Readers::default(), rank, next: 0 }
    }

    /// The whole order in stretches, computed on all processors: for those who want all of it.
    ///
    /// # Panics
    /// While it is computed, if the system can start no thread.
    pub fn stretches(&self) -> Stretches {
        Stretches::new(self.clone())
    }

    /// The whole order, `[step][node][rank][position]` flat, computed on all processors.
    pub fn to_vec(&self) -> Vec<i64> {
        let mut ids = untouched(self.layout.len());
        let mut stretches = self.stretches();
        let len = stretches.steps * self.layout.global_batch();
        for stretch in ids.chunks_mut(len.max(1)) {
            stretches.fill(stretch);
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

/// Zeros, which cost nothing until the threads write over them.
fn untouched(len: usize) -> Vec<i64> {
    let mut ids = vec![0; len];
    ask_for_huge_pages(&mut ids);
    ids
}

/// The order of some steps at a time: see [`EpochOrder::stretches`].
///
/// Each thread fills a part of a stretch. What the threads would all compute is computed before,
/// shared out among them.
#[derive(Debug)]
pub struct Stretches {
    order: EpochOrder,
    /// One for each thread.
    readers: Vec<Readers>,
    shared: SharedSegments,
    /// Steps of a stretch, as many for each thread.
    steps: usize,
    next: usize,
    ids: Vec<i64>,
}

impl Stretches {
    fn new(order: EpochOrder) -> Self {
        /// Ids of a thread.
        const PART: usize = 1 << 22;
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let step = order.layout.global_batch().max(1);
        // An order of less than two stretches is one: threads then wait for one another less often.
        let len = order.layout.len();
        let ids = if len <= 2 * PART * threads { len } else { PART * threads };
        let steps = ids.div_ceil(step).next_multiple_of(threads).max(threads);
        Self {
            readers: (0..threads).map(|_| Readers::default()).collect(),
            shared: SharedSegments::default(),
            steps,
            next: 0,
            ids: Vec::new(),
            order,
        }
    }

    /// The next steps, `[step][node][rank][position]` flat; `None` at the end.
    pub fn next_stretch(&mut self) -> Option<&[i64]> {
        let steps = self.steps.min(self.order.batches_per_rank() - self.next);
        if steps == 0 {
            return None;
        }
        let len = steps * self.order.layout.global_batch();
        let mut ids = std::mem::take(&mut self.ids);
        ids.truncate(len);
        if ids.len() < len {
            ids = untouched(len);
        }
        self.fill(&mut ids);
        self.ids = ids;
        Some(&self.ids)
    }

    /// Writes the ids of the next steps, at most a stretch.
    fn fill(&mut self, ids: &mut [i64]) {
        let layout = &self.order.layout;
        let step = layout.global_batch();
        let part = self.steps / self.readers.len();
        let first = self.next;
        self.next += ids.len() / step;
        let mixing = &self.order.mixing;
        self.shared =
            mixing.compute_shared(layout, first..self.next, &mut self.readers, &self.shared);
        thread::scope(|scope| {
            let parts = ids.chunks_mut(part * step).zip(&mut self.readers);
            for (number, (ids, readers)) in parts.enumerate() {
                readers.share(&self.shared);
                let (order, first) = (&self.order, first + number * part);
                scope.spawn(move || {
                    for (at, ids) in ids.chunks_mut(step).enumerate() {
                        order.fill_step(first + at, readers, ids);
                    }
                });
            }
        });
    }
}

/// Batches in the order of serving: of one rank, [`EpochOrder::rank_batches`], or of all,
/// [`EpochOrder::global_batches`].
#[derive(Debug)]
pub struct Batches {
    order: EpochOrder,
    readers: Readers,
    /// The node and the rank of the node; `None` for all of them.
    rank: Option<(usize, usize)>,
    next: usize,
}

impl Iterator for Batches {
    /// The ids of a batch, `[batch_size]`, or of a batch of every rank, `[node][rank][batch_size]`
    /// flat; -1 is padding.
    type Item = Vec<i64>;

    fn next(&mut self) -> Option<Vec<i64>> {
        let Self { order, readers, .. } = self;
        let layout = &order.layout;
        if self.next >= layout.rank_batches() {
            return None;
        }
        let ids = match self.rank {
            Some(rank) => {
                let mut ids = vec![-1; layout.batch_size];
                order.mixing.fill(layout, rank, self.next, readers, &mut ids);
                ids
            }
            None => {
                let mut ids = vec![0; layout.global_batch()];
                order.fill_step(self.next, readers, &mut ids);
                ids
            }
        };
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

impl ExactSizeIterator for Batches {}
