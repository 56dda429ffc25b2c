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

use super::epoch::Layout;
use super::error::{Error, Result};
use super::options::PartitionAlgo;
use super::shuffle::check_canonical_nodes;
use super::weights::check_samples;
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
    /// [`Error::GlobalBatchDoesNotDivide`], [`Error::GlobalBatchTooLarge`], [`Error::EpochTooLong`],
    /// [`Error::BatchSize`], [`Error::NoCanonicalNodes`],
    /// [`Error::TooManyCanonicalNodes`], [`Error::OrderTooLong`] or an error about the world.
    pub fn new(rule: &PartitionRule) -> Result<Self> {
        let world = rule.world.validated()?;
        if rule.batch_size == 0 {
            return Err(Error::BatchSize);
        }
        check_global_batch(&world, rule.batch_size)?;
        check_samples(rule.samples)?;
        check_canonical_nodes(rule.canonical_nodes)?;
        // By the world that is, even if the positions are divided as for another one at first.
        check_offset(rule)?;
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
        let world = rule.world;
        let nodes = usize::try_from(initial_nodes).unwrap_or(usize::MAX);
        let initial = World { nodes, ..world }.validated()?;
        let global_batch = world.ranks() as u64 * rule.batch_size as u64;
        let ranks = initial.ranks() as u64;
        if !global_batch.is_multiple_of(ranks) {
            return Err(Error::GlobalBatchDoesNotDivide { global_batch, ranks });
        }
        let batch_size = (global_batch / ranks) as usize;
        let first = Self::orig(&PartitionRule { world: initial, batch_size, ..*rule })?;
        Ok(Self { regroup: Some((world, rule.batch_size)), ..first })
    }

    /// The dimensions in which the positions are dealt at the end.
    pub(super) fn layout(&self) -> Layout {
        let Some((world, batch_size)) = self.regroup else { return self.layout };
        let round = world.ranks() * world.workers_per_rank * batch_size;
        Layout { world, batch_size, batches: self.layout.len() / round }
    }

    /// Gives the positions of batch `batch` of a rank, in the order of serving, to `put` with their
    /// places in the batch; what is left over is padding.
    pub(super) fn batch(
        &self,
        node: usize,
        rank: usize,
        batch: usize,
        mut put: impl FnMut(usize, u64),
    ) {
        if let Some((world, batch_size)) = self.regroup {
            let number = (batch * world.nodes + node) * world.ranks_per_node + rank;
            let first = (number * batch_size) as u64;
            self.served(self.nodes(), first, batch_size, put);
            return;
        }
        let size = self.layout.batch_size;
        let positions = self.grid.rank(node as u64, rank as u64, (batch * size) as u64);
        positions.take(size).enumerate().for_each(|(at, position)| put(at, position));
    }

    /// The positions of a whole batch of a rank, if they are at equal distances: as nearly always where
    /// a rank has its samples from one canonical node.
    pub(super) fn batch_run(&self, node: usize, rank: usize, batch: usize) -> Option<Run> {
        if self.regroup.is_some() {
            return None;
        }
        let len = self.layout.batch_size;
        self.grid.rank(node as u64, rank as u64, (batch * len) as u64).run(len as u64)
    }

    /// Gives `count` positions of some nodes, from `first` on in the order in which they are served
    /// (batch, worker, node, rank, position), to `put` with their places in that list.
    pub(super) fn served(
        &self,
        nodes: Range<usize>,
        first: u64,
        count: usize,
        mut put: impl FnMut(usize, u64),
    ) {
        let Layout { batch_size, world, .. } = self.layout;
        let (size, per_node) = (batch_size as u64, world.ranks_per_node as u64);
        let ranks = nodes.len() as u64 * per_node;
        let mut done = 0;
        while done < count {
            let at = first + done as u64;
            let (number, offset) = (at / size, at % size);
            let (batch, rank) = (number / ranks, number % ranks);
            let node = nodes.start as u64 + rank / per_node;
            let len = (batch_size - offset as usize).min(count - done);
            let positions = self.grid.rank(node, rank % per_node, batch * size + offset);
            positions.take(len).enumerate().for_each(|(at, position)| put(done + at, position));
            done += len;
        }
    }

    /// The nodes that the positions are divided among at first, which are not those of the last
    /// layout in a relaxed resumption.
    pub(super) const fn nodes(&self) -> Range<usize> {
        0..self.layout.world.nodes
    }

    /// The positions that are divided.
    pub(super) fn positions(&self) -> u64 {
        match &self.grid.rows {
            Rows::Split { starts, .. } => starts.last().copied().unwrap_or(0),
            Rows::Cyclic { samples, .. } => *samples,
        }
    }

    /// The ranges of positions that come `ids.start`-th to before `ids.end`-th when all ranks are
    /// served. Only if these are few: not if samples are fewer than canonical nodes, and repeated.
    pub(super) fn positions_of(&self, ids: Range<u64>) -> Vec<Range<u64>> {
        let Grid { rows: Rows::Split { starts, .. }, canonical, drop, .. } = &self.grid else {
            return Vec::new();
        };
        let columns = (drop + ids.start) / canonical..(drop + ids.end).div_ceil(*canonical);
        let of_row = |row: &[u64]| {
            let at = |column: u64| row[0].saturating_add(column).min(row[1]);
            at(columns.start)..at(columns.end)
        };
        starts.windows(2).map(of_row).collect()
    }

    /// Positions of some nodes in the order of serving, without the padding at the end. Only with
    /// batches of one there is none elsewhere.
    pub(super) fn served_len(&self, nodes: &Range<usize>) -> u64 {
        nodes.len() as u64 * self.layout.world.ranks_per_node as u64 * self.grid.per_rank()
    }

    /// Global batches at the beginning that hold no padding.
    pub(super) fn full_batches(&self) -> u64 {
        self.grid.per_rank() / self.layout.batch_size as u64
    }
}

/// A batch of every rank must fit into memory.
pub(super) fn check_global_batch(world: &World, batch_size: usize) -> Result<()> {
    const MOST: u128 = 1 << 28;
    let ids = world.ranks() as u128 * batch_size as u128;
    if ids > MOST { Err(Error::GlobalBatchTooLarge { ids, most: MOST }) } else { Ok(()) }
}

const fn divide_one_another(a: u64, b: u64) -> bool {
    a.is_multiple_of(b) || b.is_multiple_of(a)
}

fn check_offset(rule: &PartitionRule) -> Result<()> {
    let ranks = rule.world.ranks() as u64;
    let served = rule.samples.saturating_add(ranks - rule.samples % ranks);
    if served < rule.drop_first {
        return Err(Error::OffsetBeyondEpoch { sample_in_epoch: rule.drop_first, served });
    }
    Ok(())
}

/// Far more than anybody can serve, and far less than overflows.
const MOST_IDS: u128 = 1 << 56;

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
        let PartitionRule { samples, canonical_nodes: canonical, world, .. } = *rule;
        let nodes = world.nodes as u64;
        if !divide_one_another(canonical, nodes) {
            // A run that begins here has these nodes as its initial ones.
            let resumed = rule.initial_nodes.is_some_and(|initial| initial != nodes);
            return Err(Error::NodesDoNotDivide { canonical, nodes: world.nodes, resumed });
        }
        let len = samples.div_ceil(canonical);
        let sharing = if canonical < nodes { nodes / canonical } else { 1 };
        let pad = len.next_multiple_of(sharing) - len;
        let width = len + pad;
        let places = u128::from(canonical) * u128::from(width);
        if places > MOST_IDS {
            return Err(Error::OrderTooLong { ids: places });
        }

        let rows = if samples > canonical || (samples == canonical && canonical >= nodes) {
            // The columns to repeat must exist.
            let back = pad + sharing - 1;
            if pad > 0 && back > len {
                return Err(Error::TooFewSamples { samples, canonical, nodes: world.nodes });
            }
            let start = |row| u128::from(row) * u128::from(samples) / u128::from(canonical);
            let starts = (0..=canonical).map(|row| start(row) as u64).collect();
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
    fn position(&self, row: u64, column: u64) -> u64 {
        match &self.rows {
            Rows::Split { starts, len, back } => {
                let column = if column < *len { column } else { column - back };
                let row = row as usize;
                (starts[row] + column).min(starts[row + 1] - 1)
            }
            Rows::Cyclic { samples, width } => (row * width + column) % samples,
        }
    }

    /// The position at a place of the column-wise reading of one node.
    fn node_position(&self, node: u64, place: u64) -> u64 {
        let at = self.drop + node + place * self.nodes;
        self.position(at % self.canonical, at / self.canonical)
    }

    /// The positions of a rank but for the first `skipped`.
    #[inline]
    fn rank(&self, node: u64, rank: u64, skipped: u64) -> RankPositions<'_> {
        let step = self.nodes * self.ranks;
        let at = self.drop + node + rank * self.nodes + skipped * step;
        let regular = self.per_node.saturating_sub(rank).div_ceil(self.ranks);
        let repeated = u64::from(self.extra > 0 && rank >= self.ranks - self.extra);
        RankPositions {
            grid: self,
            node,
            rank,
            regular: regular.saturating_sub(skipped),
            repeated: repeated.saturating_sub(skipped.saturating_sub(regular)),
            row: at % self.canonical,
            column: at / self.canonical,
            row_step: step % self.canonical,
            column_step: step / self.canonical,
        }
    }
}

/// Positions at equal distances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: u64,
    pub(super) step: u64,
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
    /// The next `len` positions, if they are at equal distances in one row, and none is a repetition.
    fn run(&self, len: u64) -> Option<Run> {
        let Rows::Split { starts, .. } = &self.grid.rows else { return None };
        let (first, step) = (starts[self.row as usize] + self.column, self.column_step);
        let last = first + (len - 1) * step;
        let is_run =
            self.row_step == 0 && len <= self.regular && last < starts[self.row as usize + 1];
        is_run.then_some(Run { first, step })
    }

    /// The one that makes this rank equal to the others: the end of the node's places is
    /// repeated, from just behind what the last full round of ranks began with.
    fn repeated(&self) -> u64 {
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
    type Item = u64;

    #[inline]
    fn next(&mut self) -> Option<u64> {
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
    use crate::order::EpochOrder;

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
        let order = EpochOrder::of_positions(Partition::new(rule).unwrap());
        let World { nodes, ranks_per_node, .. } = order.world();
        let places = (0..nodes).flat_map(|node| (0..ranks_per_node).map(move |rank| (node, rank)));
        places.map(|(node, rank)| order.rank_batches(node, rank).flatten().collect()).collect()
    }

    fn message(rule: &PartitionRule) -> String {
        Partition::new(rule).unwrap_err().to_string()
    }

    #[test]
    fn runs_are_the_positions_of_their_batches() {
        let mut runs = 0;
        for (samples, canonical, nodes, ranks) in
            [(53, 1, 1, 3), (54, 2, 2, 3), (60, 4, 2, 2), (61, 3, 1, 2), (9, 1, 4, 1), (2, 4, 1, 2)]
        {
            let partition = Partition::new(&rule(samples, canonical, nodes, ranks)).unwrap();
            for batch in 0..partition.layout().batches {
                for (node, rank) in (0..nodes).flat_map(|n| (0..ranks).map(move |r| (n, r))) {
                    let mut positions = Vec::new();
                    partition.batch(node, rank, batch, |_, position| positions.push(position));
                    if let Some(Run { first, step }) = partition.batch_run(node, rank, batch) {
                        assert_eq!(positions, [first, first + step]);
                        runs += 1;
                    }
                }
            }
        }
        assert!(runs > 20, "{runs}");
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
    fn how_much_is_dropped_depends_on_the_new_world() {
        // 39 samples are 42 for the 3 ranks of one node, and 48 for the 12 of four.
        let rule = |drop_first| PartitionRule {
            algo: PartitionAlgo::Relaxed,
            initial_nodes: Some(1),
            batch_size: 4,
            drop_first,
            ..rule(39, 11, 4, 3)
        };
        assert!(ranks(&rule(48)).concat().is_empty());
        assert!(
            message(&rule(49)).starts_with("cannot resume at sample 49 of an epoch that serves 48")
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
        let message_of = |algo, initial| {
            message(&PartitionRule { algo, initial_nodes: Some(initial), ..relaxed })
        };
        let does_not_help = "num_canonical_nodes 4 and the 6 physical nodes do not divide one \
                             another; make one a multiple of the other";
        assert_eq!(message_of(PartitionAlgo::Relaxed, 6), does_not_help);
        assert_eq!(message_of(PartitionAlgo::Orig, 6), does_not_help);
        assert_eq!(
            message_of(PartitionAlgo::Orig, 4),
            format!(
                "{does_not_help} (the relaxed partition takes any number, \
                 when the checkpoint holds initial_physical_nodes)"
            )
        );
    }

    #[test]
    fn absurd_sizes_are_refused_before_memory_is_taken() {
        for (nodes, ranks) in [(1, 1), (4, 2)] {
            let rule = rule(5, 1, nodes, ranks);
            assert_eq!(
                message(&PartitionRule { samples: u64::MAX, ..rule }),
                "an epoch of 18446744073709551615 samples is too long to be ordered; \
                 set epoch_size to at most 4503599627370496 (2^52) samples"
            );
            let ids = (nodes * ranks) as u128 * usize::MAX as u128;
            assert_eq!(
                message(&PartitionRule { batch_size: usize::MAX, ..rule }),
                format!(
                    "a global batch of {ids} samples is too large; \
                     lower batch_size or the ranks, so that their product is at most 268435456"
                )
            );
        }
        let workers = World { nodes: 1, ranks_per_node: 1, workers_per_rank: u32::MAX as usize };
        let rule_of = |batch_size| PartitionRule { world: workers, batch_size, ..rule(5, 1, 1, 1) };
        assert!(matches!(Partition::new(&rule_of(1 << 28)), Err(Error::OrderTooLong { .. })));
        assert_eq!(
            message(&PartitionRule { canonical_nodes: u64::MAX, ..rule(5, 1, 1, 1) }),
            "num_canonical_nodes 18446744073709551615 is too large; use at most 16777216"
        );
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
