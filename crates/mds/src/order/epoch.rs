//! The finished order of one epoch: which worker of which rank serves which samples, and when.

use super::world::World;

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
    /// Ids of one worker.
    pub(super) const fn worker_len(&self) -> usize {
        self.batches * self.batch_size
    }

    /// Ids of one rank.
    pub(super) const fn rank_len(&self) -> usize {
        self.world.workers_per_rank * self.worker_len()
    }

    /// Ids of all ranks.
    pub(super) const fn len(&self) -> usize {
        self.world.ranks() * self.rank_len()
    }

    /// Where batch `batch` of a rank begins in that rank's ids: it comes from worker
    /// `batch mod workers`.
    pub(super) const fn batch_start(&self, batch: usize) -> usize {
        let workers = self.world.workers_per_rank;
        (batch % workers) * self.worker_len() + (batch / workers) * self.batch_size
    }
}

/// The samples of one epoch (or of what is left of it), divided among nodes, ranks and workers.
///
/// Every worker has the same number of batches of `batch_size` ids each. An id of `-1` is padding
/// and is skipped when serving, so that the last batches may be short or empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochOrder {
    layout: Layout,
    /// `[node][rank][worker][batch][position]`, flat.
    ids: Vec<i64>,
}

impl EpochOrder {
    pub(super) fn new(layout: Layout, ids: Vec<i64>) -> Self {
        debug_assert_eq!(ids.len(), layout.len());
        Self { layout, ids }
    }

    /// Deals a list in the order in which samples are served (batch, worker, node, rank,
    /// position) to the workers. The list holds whole global batches, a multiple of the workers.
    pub(super) fn deal(served: &[i64], world: World, batch_size: usize) -> Self {
        let ranks = world.ranks();
        let batches = served.len() / (ranks * world.workers_per_rank * batch_size);
        let layout = Layout { world, batch_size, batches };
        let mut ids = vec![-1; layout.len()];
        for (index, batch) in
            served.chunks_exact(batch_size).take(ids.len() / batch_size).enumerate()
        {
            let start = (index % ranks) * layout.rank_len() + layout.batch_start(index / ranks);
            ids[start..start + batch_size].copy_from_slice(batch);
        }
        Self::new(layout, ids)
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

    /// The ids of one worker, batch after batch: `[batches_per_worker * batch_size]`.
    ///
    /// # Panics
    /// If there is no such node, rank or worker in [`world`](Self::world), as slices do.
    pub fn worker(&self, node: usize, rank: usize, worker: usize) -> &[i64] {
        let len = self.layout.worker_len();
        let first = worker * len;
        assert!(worker < self.layout.world.workers_per_rank, "no worker {worker}");
        &self.rank_ids(node, rank)[first..first + len]
    }

    /// The batches of one rank in the order of serving, `[batch_size]` ids each: batch `b` comes
    /// from worker `b mod workers_per_rank`.
    ///
    /// # Panics
    /// If there is no such node or rank in [`world`](Self::world), as slices do.
    pub fn rank_batches(&self, node: usize, rank: usize) -> impl Iterator<Item = &[i64]> {
        let (layout, ids) = (self.layout, self.rank_ids(node, rank));
        (0..layout.batches * layout.world.workers_per_rank).map(move |batch| {
            let start = layout.batch_start(batch);
            &ids[start..start + layout.batch_size]
        })
    }

    fn rank_ids(&self, node: usize, rank: usize) -> &[i64] {
        let World { nodes, ranks_per_node, .. } = self.layout.world;
        assert!(node < nodes && rank < ranks_per_node, "no rank {rank} on node {node}");
        let start = (node * ranks_per_node + rank) * self.layout.rank_len();
        &self.ids[start..start + self.layout.rank_len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn served_lists_are_dealt_batch_worker_node_rank() {
        let world = World { nodes: 2, ranks_per_node: 1, workers_per_rank: 2 };
        let served: Vec<i64> = (0..16).collect();
        let order = EpochOrder::deal(&served, world, 2);
        assert_eq!(order.batches_per_worker(), 2);
        assert_eq!(order.worker(0, 0, 0), [0, 1, 8, 9]);
        assert_eq!(order.worker(0, 0, 1), [4, 5, 12, 13]);
        assert_eq!(order.worker(1, 0, 0), [2, 3, 10, 11]);
        let batches: Vec<_> = order.rank_batches(1, 0).collect();
        assert_eq!(batches, [[2, 3], [6, 7], [10, 11], [14, 15]]);
    }

    #[test]
    fn nothing_is_dealt_from_an_empty_list() {
        let order = EpochOrder::deal(&[], World::default(), 3);
        assert_eq!(order.batches_per_worker(), 0);
        assert_eq!(order.rank_batches(0, 0).count(), 0);
        assert!(order.worker(0, 0, 0).is_empty());
    }
}
