//! To which node, rank and worker each sample goes.
//!
//! The epoch's positions `0..n` are cut into canonical nodes of equal size, which is all that the
//! shuffles know of. They are read column by column (the first position of every canonical node,
//! then the second), dealt to the physical nodes in turn, then to the ranks of a node in turn, and
//! finally batch by batch to the workers of a rank. So the global batches hold the same samples
//! whatever the number of nodes.
//!
//! Nothing is dropped: some positions are repeated so that all ranks get the same number, and `-1`
//! pads the last batches. Source: `get_partitions_orig` and `get_partitions_relaxed` of the
//! reference.
//!
//! A partition is arithmetic; it holds no table of samples.

use std::ops::Range;

use super::epoch::{EpochOrder, Layout};
use super::error::{Error, Result};
use super::options::PartitionAlgo;
use super::world::World;

/// What a partition depends on.
#[derive(Debug, Clone, Copy)]
pub struct PartitionRule {
    /// The algorithm.
    pub algo: PartitionAlgo,
    /// Positions to divide.
    pub samples: u64,
    /// Buckets of the positions.
    pub canonical_nodes: u64,
    /// Nodes, ranks and workers, after replication.
    pub world: World,
    /// Nodes that the run was started with, if it continues a checkpoint that says so.
    pub initial_nodes: Option<u64>,
    /// Samples per batch of a rank.
    pub batch_size: usize,
    /// Samples that were served already.
    pub drop_first: u64,
}

/// Positions divided among nodes, ranks and workers.
#[derive(Debug)]
pub struct Partition {
    grid: Grid,
    /// The dimensions in which the positions are first divided.
    layout: Layout,
    /// The world and the batch size to deal them out again for, in a relaxed resumption.
    regroup: Option<(World, usize)>,
}

impl Partition {
    /// Divides positions by `rule`.
    ///
    /// # Errors
    /// [`Error::OffsetBeyondEpoch`], [`Error::NodesDoNotDivide`], [`Error::TooFewSamples`],
    /// [`Error::GlobalBatchDoesNotDivide`], [`Error::BatchSize`], [`Error::NoCanonicalNodes`],
    /// [`Error::EpochTooLong`], [`Error::OrderTooLong`] or an error about the world.
    pub fn new(rule: &PartitionRule) -> Result<Self> {
        let world = rule.world.validated()?;
        if rule.batch_size == 0 {
            return Err(Error::BatchSize);
        }
        if rule.canonical_nodes == 0 {
            return Err(Error::NoCanonicalNodes);
        }
        if rule.samples > u64::from(u32::MAX) {
            return Err(Error::EpochTooLong { samples: rule.samples });
        }
        match rule.initial_nodes {
            Some(initial)
                if rule.algo == PartitionAlgo::Relaxed
                    && !divide_one_another(rule.canonical_nodes, world.nodes as u64) =>
            {
                Self::relaxed(rule, initial)
            }
            _ => Self::orig(rule),
        }
    }

    fn orig(rule: &PartitionRule) -> Result<Self> {
        let grid = Grid::new(rule)?;
        let layout = grid.layout(rule.world, rule.batch_size)?;
        Ok(Self { grid, layout, regroup: None })
    }

    /// Divides the positions as the first run did, with its nodes and a batch size that gives the
    /// same global batch; they are then dealt out again for the new nodes.
    fn relaxed(rule: &PartitionRule, initial_nodes: u64) -> Result<Self> {
        check_offset(rule)?;
        let world = rule.world;
        let nodes = usize::try_from(initial_nodes).unwrap_or(usize::MAX);
        let initial = World { nodes, ..world }.validated()?;
        let global_batch = (world.ranks() as u64)
            .checked_mul(rule.batch_size as u64)
            .ok_or(Error::OrderTooLong { ids: world.ranks() as u128 * rule.batch_size as u128 })?;
        let ranks = initial.ranks() as u64;
        if !global_batch.is_multiple_of(ranks) {
            return Err(Error::GlobalBatchDoesNotDivide { global_batch, ranks });
        }
        let batch_size = (global_batch / ranks) as usize;
        let first = Self::orig(&PartitionRule { world: initial, batch_size, ..*rule })?;
        Ok(Self { regroup: Some((world, rule.batch_size)), ..first })
    }

    /// The order of the epoch, with `id` of each position.
    pub fn order(&self, id: impl Fn(u32) -> i64) -> EpochOrder {
        if let Some((world, batch_size)) = self.regroup {
            return EpochOrder::deal(&self.served(id), world, batch_size);
        }
        let layout = self.layout;
        let mut ids = vec![-1; layout.len()];
        self.fill(0..layout.world.nodes, &id, &mut ids, |rank, batch| {
            rank * layout.rank_len() + layout.batch_start(batch)
        });
        EpochOrder::new(layout, ids)
    }

    /// The ids in the order in which they are served: (batch, worker, node, rank, position).
    pub(super) fn served(&self, id: impl Fn(u32) -> i64) -> Vec<i64> {
        self.served_by(0..self.layout.world.nodes, id)
    }

    /// The ids of some nodes in the order in which they are served.
    pub(super) fn served_by(&self, nodes: Range<usize>, id: impl Fn(u32) -> i64) -> Vec<i64> {
        let layout = self.layout;
        let ranks = nodes.len() * layout.world.ranks_per_node;
        let mut ids = vec![-1; ranks * layout.rank_len()];
        self.fill(nodes, &id, &mut ids, |rank, batch| (batch * ranks + rank) * layout.batch_size);
        ids
    }

    /// Writes the ids of `nodes` where `start(rank, batch)` says that a batch begins. Ranks count
    /// from the first of these nodes; what is left over keeps its padding.
    fn fill(
        &self,
        nodes: Range<usize>,
        id: &impl Fn(u32) -> i64,
        ids: &mut [i64],
        start: impl Fn(usize, usize) -> usize,
    ) {
        let World { ranks_per_node, .. } = self.layout.world;
        let batch_size = self.layout.batch_size;
        let places = nodes.flat_map(|node| (0..ranks_per_node).map(move |rank| (node, rank)));
        for (index, (node, rank)) in places.enumerate() {
            let mut positions = self.grid.rank(node as u64, rank as u64);
            let mut batch = 0;
            while positions.left() > 0 {
                let first = start(index, batch);
                // The iterator comes second, so that none of its items is lost.
                for (slot, position) in
                    ids[first..first + batch_size].iter_mut().zip(positions.by_ref())
                {
                    *slot = id(position);
                }
                batch += 1;
            }
        }
    }
}

const fn divide_one_another(a: u64, b: u64) -> bool {
    a.is_multiple_of(b) || b.is_multiple_of(a)
}

fn check_offset(rule: &PartitionRule) -> Result<()> {
    let ranks = rule.world.ranks() as u64;
    let served = rule.samples + (ranks - rule.samples % ranks);
    if served < rule.drop_first {
        return Err(Error::OffsetBeyondEpoch { sample_in_epoch: rule.drop_first, served });
    }
    Ok(())
}

/// The positions as a table with a row for each canonical node, and how its columns are dealt.
#[derive(Debug)]
struct Grid {
    rows: Rows,
    canonical: u64,
    nodes: u64,
    ranks: u64,
    /// Places of the column-wise reading that are left out.
    drop: u64,
    /// Places of each node, and how many of them are repeated to make its ranks equal.
    per_node: u64,
    extra: u64,
}

#[derive(Debug)]
enum Rows {
    /// Row `c` begins at `starts[c]`; the next row begins where it ends. A row that is one shorter
    /// than `len` repeats its last position. Columns from `len` on, which make the rows' length a
    /// multiple of the nodes that share a row, repeat those `back` before.
    Split { starts: Vec<u64>, len: u64, back: u64 },
    /// Too few samples for that: `0..samples` over and over, row by row.
    Cyclic { samples: u64, width: u64 },
}

impl Grid {
    fn new(rule: &PartitionRule) -> Result<Self> {
        check_offset(rule)?;
        let PartitionRule { samples, canonical_nodes: canonical, world, .. } = *rule;
        let nodes = world.nodes as u64;
        if !divide_one_another(canonical, nodes) {
            let resumed = rule.initial_nodes.is_some();
            return Err(Error::NodesDoNotDivide { canonical, nodes: world.nodes, resumed });
        }
        let len = samples.div_ceil(canonical);
        let sharing = if canonical < nodes { nodes / canonical } else { 1 };
        let pad = len.next_multiple_of(sharing) - len;
        let width = len + pad;
        let places = u128::from(canonical) * u128::from(width);
        if places > u128::from(u32::MAX) {
            return Err(Error::OrderTooLong { ids: places });
        }

        let rows = if samples > canonical || (samples == canonical && canonical >= nodes) {
            // The columns to repeat must exist.
            let back = pad + sharing - 1;
            if pad > 0 && back > len {
                return Err(Error::TooFewSamples { samples, canonical, nodes: world.nodes });
            }
            let starts = (0..=canonical).map(|row| row * samples / canonical).collect();
            Rows::Split { starts, len, back }
        } else {
            Rows::Cyclic { samples, width }
        };

        let drop = rule.drop_first - rule.drop_first % nodes;
        let per_node = (places as u64).saturating_sub(drop) / nodes;
        let ranks = world.ranks_per_node as u64;
        let extra = per_node.next_multiple_of(ranks) - per_node;
        Ok(Self { rows, canonical, nodes, ranks, drop, per_node, extra })
    }

    /// Positions of each rank, without padding.
    const fn per_rank(&self) -> u64 {
        (self.per_node + self.extra) / self.ranks
    }

    /// The dimensions of the order for workers that take whole batches.
    fn layout(&self, world: World, batch_size: usize) -> Result<Layout> {
        const MOST_IDS: u128 = 1 << 34;
        let round = world.workers_per_rank as u128 * batch_size as u128;
        let batches = u128::from(self.per_rank()).div_ceil(round);
        let ids = world.ranks() as u128 * batches * round;
        if ids > MOST_IDS {
            return Err(Error::OrderTooLong { ids });
        }
        Ok(Layout { world, batch_size, batches: batches as usize })
    }

    /// The position at a place of the table.
    #[inline]
    fn position(&self, row: u64, column: u64) -> u32 {
        let position = match &self.rows {
            Rows::Split { starts, len, back } => {
                let column = if column < *len { column } else { column - back };
                let row = row as usize;
                (starts[row] + column).min(starts[row + 1] - 1)
            }
            Rows::Cyclic { samples, width } => (row * width + column) % samples,
        };
        position as u32
    }

    /// The position at a place of the column-wise reading of one node.
    fn node_position(&self, node: u64, place: u64) -> u32 {
        let at = self.drop + node + place * self.nodes;
        self.position(at % self.canonical, at / self.canonical)
    }

    fn rank(&self, node: u64, rank: u64) -> RankPositions<'_> {
        let at = self.drop + node + rank * self.nodes;
        let step = self.nodes * self.ranks;
        RankPositions {
            grid: self,
            node,
            rank,
            regular: self.per_node.saturating_sub(rank).div_ceil(self.ranks),
            repeated: u64::from(self.extra > 0 && rank >= self.ranks - self.extra),
            row: at % self.canonical,
            column: at / self.canonical,
            row_step: step % self.canonical,
            column_step: step / self.canonical,
        }
    }
}

/// The positions of one rank in the order of serving.
#[derive(Debug)]
struct RankPositions<'a> {
    grid: &'a Grid,
    node: u64,
    rank: u64,
    /// Positions still to come, and (0 or 1) repeated ones after them.
    regular: u64,
    repeated: u64,
    row: u64,
    column: u64,
    row_step: u64,
    column_step: u64,
}

impl RankPositions<'_> {
    const fn left(&self) -> u64 {
        self.regular + self.repeated
    }

    /// The one that makes this rank equal to the others: the end of the node's places is
    /// repeated, from just behind what the last full round of ranks began with.
    fn repeated(&self) -> u32 {
        let Grid { ranks, per_node, extra, .. } = *self.grid;
        let index = self.rank - (ranks - extra);
        let place = if ranks + extra - 1 <= per_node {
            per_node + 1 - (ranks + extra) + index
        } else {
            index % per_node
        };
        self.grid.node_position(self.node, place)
    }
}

impl Iterator for RankPositions<'_> {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        if self.regular == 0 {
            self.repeated = self.repeated.checked_sub(1)?;
            return Some(self.repeated());
        }
        self.regular -= 1;
        let position = self.grid.position(self.row, self.column);
        self.column += self.column_step;
        self.row += self.row_step;
        if self.row >= self.grid.canonical {
            self.row -= self.grid.canonical;
            self.column += 1;
        }
        Some(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(samples: u64, canonical_nodes: u64, nodes: usize, ranks: usize) -> PartitionRule {
        PartitionRule {
            algo: PartitionAlgo::Orig,
            samples,
            canonical_nodes,
            world: World { nodes, ranks_per_node: ranks, workers_per_rank: 1 },
            initial_nodes: None,
            batch_size: 2,
            drop_first: 0,
        }
    }

    fn ranks(rule: &PartitionRule) -> Vec<Vec<i64>> {
        let order = Partition::new(rule).unwrap().order(i64::from);
        let World { nodes, ranks_per_node, .. } = order.world();
        let places = (0..nodes).flat_map(|node| (0..ranks_per_node).map(move |rank| (node, rank)));
        places
            .map(|(node, rank)| order.rank_batches(node, rank).flatten().copied().collect())
            .collect()
    }

    fn message(rule: &PartitionRule) -> String {
        Partition::new(rule).unwrap_err().to_string()
    }

    #[test]
    fn short_rows_repeat_their_last_position_and_short_batches_are_padded() {
        // Rows 0 1 | 2 3 4: the first is one short.
        assert_eq!(ranks(&rule(5, 2, 1, 1)), [[0, 2, 1, 3, 1, 4]]);
        assert_eq!(ranks(&rule(5, 1, 1, 1)), [[0, 1, 2, 3, 4, -1]]);
    }

    #[test]
    fn fewer_samples_than_ranks_are_repeated_cyclically() {
        assert_eq!(ranks(&rule(3, 1, 1, 8)), [0, 1, 2, 0, 1, 2, 0, 1].map(|id| [id, -1]));
        // Fewer than canonical nodes.
        assert_eq!(ranks(&rule(2, 4, 1, 2)), [[0, 0], [1, 1]]);
    }

    #[test]
    fn the_end_of_a_node_is_repeated_for_its_last_ranks() {
        // 10 places for 4 ranks: 2 are missing, taken from places 10 - 4 - 2 + 1 on.
        let served = ranks(&rule(10, 1, 1, 4));
        assert_eq!(served[2], [2, 6, 5, -1]);
        assert_eq!(served[3], [3, 7, 6, -1]);
        // The fewest places that hold them: the first ones.
        assert_eq!(ranks(&rule(5, 1, 1, 4)), [[0, 4], [1, 0], [2, 1], [3, 2]]);
    }

    #[test]
    fn no_samples_make_no_batches() {
        assert_eq!(ranks(&rule(0, 4, 2, 2)), vec![Vec::<i64>::new(); 4]);
    }

    #[test]
    fn a_whole_epoch_may_be_dropped_but_not_more() {
        let rule = |drop_first| PartitionRule { drop_first, ..rule(5, 1, 1, 2) };
        assert!(ranks(&rule(6)).concat().is_empty());
        assert_eq!(
            message(&rule(7)),
            "cannot resume at sample 7 of an epoch that serves 6; \
             the checkpoint belongs to another dataset or to other weights"
        );
    }

    #[test]
    fn worlds_that_do_not_fit_are_refused() {
        assert_eq!(
            message(&rule(100, 4, 6, 1)),
            "num_canonical_nodes 4 and the 6 physical nodes do not divide one another; \
             make one a multiple of the other"
        );
        assert_eq!(
            message(&rule(3, 2, 16, 1)),
            "3 samples in 2 canonical nodes are too few to fill 16 physical nodes; \
             use fewer nodes, or set num_canonical_nodes to a multiple of 16"
        );
        let relaxed = PartitionRule {
            algo: PartitionAlgo::Relaxed,
            initial_nodes: Some(4),
            ..rule(100, 4, 6, 1)
        };
        assert!(Partition::new(&relaxed).is_ok());
        assert_eq!(
            message(&PartitionRule { batch_size: 1, ..relaxed }),
            "the global batch of 6 samples is not a multiple of the 4 ranks \
             that the run was started with; change batch_size so that it is"
        );
        assert!(message(&PartitionRule { initial_nodes: Some(0), ..relaxed }).contains("0 nodes"));
        assert!(
            message(&PartitionRule { initial_nodes: Some(6), ..relaxed }).contains("relaxed"),
            "the initial nodes do not fit either"
        );
    }

    #[test]
    fn absurd_sizes_are_refused_before_memory_is_taken() {
        let absurd = [
            PartitionRule { batch_size: usize::MAX, ..rule(5, 1, 1, 1) },
            PartitionRule { canonical_nodes: u64::MAX, ..rule(5, 1, 1, 1) },
            PartitionRule { samples: u64::MAX, ..rule(5, 1, 1, 1) },
        ];
        for rule in absurd {
            let error = Partition::new(&rule).unwrap_err();
            assert!(matches!(error, Error::OrderTooLong { .. } | Error::EpochTooLong { .. }));
        }
        assert_eq!(
            message(&PartitionRule { batch_size: 0, ..rule(5, 1, 1, 1) }),
            Error::BatchSize.to_string()
        );
        assert_eq!(
            message(&PartitionRule { canonical_nodes: 0, ..rule(5, 1, 1, 1) }),
            "num_canonical_nodes is 0; use at least 1, or leave it out"
        );
    }
}
