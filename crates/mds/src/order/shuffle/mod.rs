//! In which order the samples of an epoch are taken: computed where it is looked at, not stored.
//!
//! Every algorithm gives a permutation of the samples that the epoch draws. All but `naive` begin
//! alike: the shuffle units (shards, or what is taken of them) are put into an order that is fixed
//! for the run, cut into canonical nodes of equal size, and shuffled anew for each epoch within
//! their canonical node. What follows differs:
//!
//! | algorithm | then | a segment is |
//! | --- | --- | --- |
//! | `py1s` | shuffles within each unit | a unit |
//! | `py2s` | had shuffled each shard before it was cut, and shuffles each part again | a part |
//! | `py1b` | shuffles blocks of a fixed size | a block |
//! | `py1br` | shuffles blocks of random sizes from a random offset on | blocks that overlap |
//! | `py1e` | moves every sample by a random distance | a window of the places moved to |
//! | `naive` | is one permutation of all samples | nothing less than all |
//!
//! Segments are what can be computed by itself: making a [`SampleOrder`] finds the state of the
//! generator at the beginning of each, in one pass over the random numbers that moves no sample (see
//! `counting`); a [`SampleReader`] then computes the segments that are looked at, and holds two for
//! each canonical node. So the first samples of an epoch, or those in the middle where a run is
//! resumed, cost one pass over the numbers and the segments around them.
//!
//! Source of all: the modules of the reference's `streaming.base.shuffle`. The order of the draws
//! is part of the result.

mod blocks;
mod canonical;
mod naive;
mod py1e;
mod spans;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::error::{Error, Result};
use super::options::ShuffleAlgo;
use super::partition::Run;
use super::rng::Generator;
use super::sampling::{Draw, Samples};
use super::weights::check_samples;
use canonical::CanonicalNodes;

/// What a shuffle depends on beside the samples.
#[derive(Debug, Clone, Copy)]
pub struct ShuffleRule {
    /// The algorithm.
    pub algo: ShuffleAlgo,
    /// Buckets of equal size that keep their samples.
    pub canonical_nodes: u64,
    /// Seed of the run.
    pub seed: u64,
    /// The epoch, which is added to the seed.
    pub epoch: u64,
    /// Samples over which the block algorithms mix.
    pub block: u64,
}

impl ShuffleRule {
    /// The generator that is the same in all epochs of a run.
    fn run_rng(&self) -> Generator {
        Generator::new(self.seed.into())
    }

    fn epoch_rng(&self) -> Generator {
        Generator::new(u128::from(self.seed) + u128::from(self.epoch))
    }

    /// The smallest block that the algorithm takes.
    const fn least_block(&self) -> u64 {
        match self.algo {
            ShuffleAlgo::Py1br => 2,
            ShuffleAlgo::Py1b | ShuffleAlgo::Py1e => 1,
            ShuffleAlgo::Naive | ShuffleAlgo::Py1s | ShuffleAlgo::Py2s => 0,
        }
    }
}

/// Which sample stands at each place of an epoch. Cheap to share among threads.
#[derive(Debug)]
pub struct SampleOrder {
    samples: Samples,
    canonical_nodes: u64,
    segments: Box<dyn Segments>,
}

/// A way to compute the order piece by piece.
trait Segments: fmt::Debug + Send + Sync {
    /// The places that are computed together with `place`, which is one that exists.
    fn around(&self, place: u64, samples: &Samples) -> Range<u64>;

    /// The ids at the places of a segment, as [`around`](Self::around) gave them.
    fn compute(&self, places: Range<u64>, samples: &Samples, scratch: &mut Scratch) -> Vec<u64>;
}

/// Memory that is used again for every segment.
#[derive(Debug, Default)]
struct Scratch {
    key_sort: py1e::KeySort,
}

/// The smallest and the largest block (exclusive) around `block`: three and five quarters of it.
fn block_range(block: u64) -> (u64, u64) {
    ((0.75 * block as f64) as u64, (1.25 * block as f64) as u64)
}

impl SampleOrder {
    /// The samples as they are drawn.
    pub fn in_order(draw: Draw, canonical_nodes: u64) -> Self {
        let canonical_nodes = canonical_nodes.max(1);
        Self { samples: draw.samples, canonical_nodes, segments: Box::new(InOrder) }
    }

    /// The samples in shuffled order.
    ///
    /// # Errors
    /// [`Error::ShuffleBlock`] if the block is too small for the algorithm,
    /// [`Error::EmptyCanonicalNode`] if `py1e` has fewer samples than canonical nodes,
    /// [`Error::NoCanonicalNodes`], [`Error::TooManyCanonicalNodes`], [`Error::NaiveTooLong`] or
    /// [`Error::EpochTooLong`].
    pub fn shuffled(draw: Draw, rule: &ShuffleRule) -> Result<Self> {
        let Draw { units, samples } = draw;
        check_samples(samples.len())?;
        check_canonical_nodes(rule.canonical_nodes)?;
        let (algo, block, least) = (rule.algo, rule.block, rule.least_block());
        if block < least {
            return Err(Error::ShuffleBlock { block, algo, least, stream: None });
        }
        // Blocks beyond every sample are all alike; this keeps their arithmetic in bounds.
        let block = block.min(1 << 52);
        let canonical = || CanonicalNodes::new(&units, rule);
        let segments: Box<dyn Segments> = match algo {
            ShuffleAlgo::Naive => Box::new(naive::Naive::new(&samples, rule)?),
            ShuffleAlgo::Py1s => Box::new(spans::Py1s::new(canonical())),
            ShuffleAlgo::Py2s => Box::new(spans::Py2s::new(&units, rule)),
            ShuffleAlgo::Py1b => Box::new(blocks::py1b(canonical(), block)),
            ShuffleAlgo::Py1br => Box::new(blocks::py1br(canonical(), block)),
            ShuffleAlgo::Py1e => Box::new(py1e::Py1e::new(canonical(), block)?),
        };
        Ok(Self { samples, canonical_nodes: rule.canonical_nodes, segments })
    }

    /// Places of the epoch, one for each sample that is drawn.
    pub const fn len(&self) -> u64 {
        self.samples.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// The ids at all places.
    pub fn to_vec(&self) -> Vec<u64> {
        let mut reader = SampleReader::default();
        (0..self.len()).map(|place| reader.id(self, place)).collect()
    }

    /// The canonical node of a place: the one that begins at or before it.
    fn canonical_node(&self, place: u64) -> usize {
        if self.canonical_nodes == 1 {
            return 0;
        }
        let (nodes, samples) = (u128::from(self.canonical_nodes), u128::from(self.len()));
        (((u128::from(place) + 1) * nodes - 1) / samples) as usize
    }

    /// The segments that cover some places: those that are among `before` go into `shared`, the
    /// others into `missing`, none of them twice.
    pub(super) fn segments_of(
        &self,
        places: Range<u64>,
        before: &SharedSegments,
        shared: &mut SharedSegments,
        missing: &mut Vec<Range<u64>>,
    ) {
        let mut at = places.start;
        while at < places.end {
            let segment = self.segments.around(at, &self.samples);
            at = segment.end;
            match before.0.get(&segment.start) {
                Some(held) => shared.insert(Arc::clone(held)),
                None if missing.last() != Some(&segment) => missing.push(segment),
                None => {}
            }
        }
    }
}

/// More could not be held: a few words are kept of each.
pub(super) fn check_canonical_nodes(canonical: u64) -> Result<()> {
    const MOST: u64 = 1 << 24;
    match canonical {
        0 => Err(Error::NoCanonicalNodes),
        1..=MOST => Ok(()),
        _ => Err(Error::TooManyCanonicalNodes { canonical, most: MOST }),
    }
}

/// Samples that are not shuffled.
#[derive(Debug)]
struct InOrder;

impl Segments for InOrder {
    fn around(&self, place: u64, samples: &Samples) -> Range<u64> {
        samples.piece(place)
    }

    fn compute(&self, places: Range<u64>, samples: &Samples, _: &mut Scratch) -> Vec<u64> {
        let mut ids = Vec::with_capacity((places.end - places.start) as usize);
        samples.extend(places, &mut ids);
        ids
    }
}

/// A piece of the order that has been computed.
#[derive(Debug, Default)]
pub(super) struct Segment {
    places: Range<u64>,
    ids: Vec<u64>,
}

/// Segments that are held for several readers, by their first place.
#[derive(Debug, Clone, Default)]
pub(super) struct SharedSegments(BTreeMap<u64, Arc<Segment>>);

impl SharedSegments {
    pub(super) fn insert(&mut self, segment: Arc<Segment>) {
        self.0.insert(segment.places.start, segment);
    }
}

/// The segments of a canonical node that were read last: where one ends and the next begins, the
/// ranks of a batch go back and forth between the two.
#[derive(Debug, Default)]
struct Held {
    last: Arc<Segment>,
    before: Arc<Segment>,
}

/// Looks places up in a [`SampleOrder`] (always the same one), and holds the segments that it was
/// last at: two for each canonical node, since a rank reads these in turns.
#[derive(Debug, Default)]
pub struct SampleReader {
    held: Vec<Held>,
    /// The canonical node of the last place.
    node: usize,
    shared: SharedSegments,
    scratch: Scratch,
}

impl SampleReader {
    /// The id of the sample at a place.
    ///
    /// # Panics
    /// If there is no such place, as slices do.
    #[inline]
    pub fn id(&mut self, order: &SampleOrder, place: u64) -> u64 {
        let near = self.held.get(self.node).map(|held| &*held.last);
        let segment = match near.filter(|segment| segment.places.contains(&place)) {
            Some(segment) => segment,
            None => self.turn_to(order, place),
        };
        segment.ids[(place - segment.places.start) as usize]
    }

    /// Computes a segment, which [`SampleOrder::segments_of`] gave.
    pub(super) fn segment(&mut self, order: &SampleOrder, places: Range<u64>) -> Arc<Segment> {
        let ids = order.segments.compute(places.clone(), &order.samples, &mut self.scratch);
        debug_assert_eq!(ids.len() as u64, places.end - places.start);
        Arc::new(Segment { places, ids })
    }

    /// Looks into these segments before it computes any.
    pub(super) fn share(&mut self, segments: SharedSegments) {
        self.shared = segments;
    }

    /// Writes the ids at places of equal distances, if one segment holds them all. Returns whether it
    /// does.
    pub(super) fn fill_run(&mut self, order: &SampleOrder, run: Run, ids: &mut [i64]) -> bool {
        let Run { first, step } = run;
        self.id(order, first);
        let segment = &self.held[self.node].last;
        let last = first + (ids.len() as u64 - 1) * step;
        if last >= segment.places.end {
            return false;
        }
        let held = &segment.ids[(first - segment.places.start) as usize..];
        for (slot, id) in ids.iter_mut().zip(held.iter().step_by(step as usize)) {
            *slot = *id as i64;
        }
        true
    }

    #[inline(never)]
    fn turn_to(&mut self, order: &SampleOrder, place: u64) -> &Segment {
        assert!(place < order.len(), "there is no place {place} among {}", order.len());
        self.node = order.canonical_node(place);
        if self.held.len() <= self.node {
            self.held.resize_with(self.node + 1, Held::default);
        }
        if !self.held[self.node].last.places.contains(&place) {
            let held = &mut self.held[self.node];
            std::mem::swap(&mut held.last, &mut held.before);
            if !held.last.places.contains(&place) {
                held.last = Arc::default();
                let places = order.segments.around(place, &order.samples);
                let segment = match self.shared.0.get(&places.start) {
                    Some(segment) => Arc::clone(segment),
                    None => self.segment(order, places),
                };
                self.held[self.node].last = segment;
            }
        }
        &self.held[self.node].last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canonical::node_start;

    fn shuffle(units: &[u64], rule: &ShuffleRule) -> Result<Vec<u64>> {
        Ok(SampleOrder::shuffled(Draw::whole(units.to_vec(), 0), rule)?.to_vec())
    }

    fn rule(algo: ShuffleAlgo, canonical_nodes: u64, block: u64) -> ShuffleRule {
        ShuffleRule { algo, canonical_nodes, seed: 9176, epoch: 1, block }
    }

    #[test]
    fn every_algorithm_permutes_and_keeps_canonical_nodes_over_epochs() {
        let units: Vec<u64> = (0..40).map(|i| 1 + i * 7 % 31).collect();
        let samples: u64 = units.iter().sum();
        for &algo in ShuffleAlgo::ALL {
            let nodes_of = |epoch| {
                let rule = ShuffleRule { epoch, ..rule(algo, 3, 60) };
                let order = shuffle(&units, &rule).unwrap();
                let mut nodes: Vec<Vec<u64>> = (0..3)
                    .map(|c| (node_start(samples, c, 3), node_start(samples, c + 1, 3)))
                    .map(|(start, end)| order[start as usize..end as usize].to_vec())
                    .collect();
                nodes.iter_mut().for_each(|node| node.sort_unstable());
                (order, nodes)
            };
            let ((first, first_nodes), (second, second_nodes)) = (nodes_of(0), nodes_of(1));
            let mut all = first.clone();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..samples), "{algo}");
            assert_ne!(first, second, "{algo}");
            // `naive` knows no canonical nodes.
            assert_eq!(first_nodes == second_nodes, algo != ShuffleAlgo::Naive, "{algo}");
        }
    }

    #[test]
    fn nothing_and_one_sample_are_shuffled() {
        for &algo in ShuffleAlgo::ALL {
            assert_eq!(shuffle(&[1], &rule(algo, 1, 10)), Ok(vec![0]), "{algo}");
            if algo != ShuffleAlgo::Py1e {
                assert_eq!(shuffle(&[], &rule(algo, 2, 10)), Ok(vec![]), "{algo}");
                assert_eq!(shuffle(&[0, 1], &rule(algo, 4, 10)), Ok(vec![0]), "{algo}");
            }
        }
    }

    #[test]
    fn py1e_refuses_an_empty_canonical_node() {
        assert_eq!(
            shuffle(&[2, 1], &rule(ShuffleAlgo::Py1e, 4, 10)).unwrap_err().to_string(),
            "py1e cannot shuffle 3 samples in 4 canonical nodes, one of which stays empty; \
             set num_canonical_nodes to at most 3, or use py1s"
        );
    }

    #[test]
    fn blocks_too_small_are_refused() {
        for (algo, least) in
            [(ShuffleAlgo::Py1br, 2), (ShuffleAlgo::Py1e, 1), (ShuffleAlgo::Py1b, 1)]
        {
            assert!(shuffle(&[9], &rule(algo, 1, least)).is_ok());
            assert_eq!(
                shuffle(&[9], &rule(algo, 1, least - 1)).unwrap_err().to_string(),
                format!(
                    "shuffle_block_size {} is too small for {algo}; use at least {least}",
                    least - 1
                )
            );
        }
        assert!(shuffle(&[9], &rule(ShuffleAlgo::Py1s, 1, 0)).is_ok());
    }
}
