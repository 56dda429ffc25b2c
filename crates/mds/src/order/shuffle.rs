//! In which order the samples of an epoch are taken.
//!
//! Every algorithm gives a permutation of the positions `0..n` in the epoch's draw. All but
//! `naive` begin alike: the shuffle units (shards, or what is taken of them) are put into an order
//! that is fixed for the run, cut into canonical nodes of equal size, and shuffled anew for each
//! epoch within their canonical node. What follows differs:
//!
//! | algorithm | then |
//! | --- | --- |
//! | `py1s` | shuffles within each unit |
//! | `py2s` | had shuffled each shard before it was cut, and shuffles each part again |
//! | `py1b` | shuffles blocks of a fixed size |
//! | `py1br` | shuffles blocks of random sizes from a random offset on |
//! | `py1e` | moves every sample by a random distance |
//!
//! Source of all: the modules of the reference's `streaming.base.shuffle`. The order of the draws
//! is part of the result.

use super::error::{Error, Result};
use super::options::ShuffleAlgo;
use super::rng::Generator;

/// A run of consecutive positions, `[start, end)`.
type Span = (u32, u32);

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

/// The positions `0..n` in shuffled order, where `n` is the sum of `units`.
///
/// # Errors
/// [`Error::ShuffleBlock`] if the block is too small for the algorithm,
/// [`Error::EmptyCanonicalNode`] if `py1e` has fewer samples than canonical nodes,
/// [`Error::NoCanonicalNodes`] or [`Error::EpochTooLong`].
pub fn shuffle(units: &[u32], rule: &ShuffleRule) -> Result<Vec<u32>> {
    let samples: u64 = units.iter().map(|&unit| u64::from(unit)).sum();
    if samples > u64::from(u32::MAX) {
        return Err(Error::EpochTooLong { samples });
    }
    if rule.canonical_nodes == 0 {
        return Err(Error::NoCanonicalNodes);
    }
    let least = match rule.algo {
        ShuffleAlgo::Py1br => 2,
        ShuffleAlgo::Py1b | ShuffleAlgo::Py1e => 1,
        ShuffleAlgo::Naive | ShuffleAlgo::Py1s | ShuffleAlgo::Py2s => 0,
    };
    if rule.block < least {
        let (block, algo) = (rule.block, rule.algo);
        return Err(Error::ShuffleBlock { block, algo, least, stream: None });
    }
    match rule.algo {
        ShuffleAlgo::Naive => Ok(rule.epoch_rng().permutation(samples as u32)),
        ShuffleAlgo::Py2s => Ok(py2s(units, rule)),
        ShuffleAlgo::Py1s => Ok(py1s(CanonicalNodes::new(units, rule))),
        ShuffleAlgo::Py1b => Ok(py1b(CanonicalNodes::new(units, rule), rule.block)),
        ShuffleAlgo::Py1br => Ok(py1br(CanonicalNodes::new(units, rule), rule.block)),
        ShuffleAlgo::Py1e => py1e(CanonicalNodes::new(units, rule), rule.block),
    }
}

impl ShuffleRule {
    /// The generator that is the same in all epochs of a run.
    fn run_rng(&self) -> Generator {
        Generator::new(self.seed.into())
    }

    fn epoch_rng(&self) -> Generator {
        Generator::new(u128::from(self.seed) + u128::from(self.epoch))
    }
}

/// The common beginning: the units in their order for this epoch, canonical node by node.
struct CanonicalNodes {
    samples: u32,
    /// All spans; those of one canonical node are neighbours.
    spans: Vec<Span>,
    /// Where the spans of each canonical node end.
    ends: Vec<usize>,
    /// The epoch's generator, after it has shuffled the spans.
    rng: Generator,
}

impl CanonicalNodes {
    fn new(units: &[u32], rule: &ShuffleRule) -> Self {
        let mut whole = spans_of(units);
        rule.run_rng().shuffle(&mut whole);
        let samples = whole.iter().map(|span| span.1 - span.0).sum();
        let (mut spans, ends) = cut(&whole, samples, rule.canonical_nodes);
        let mut rng = rule.epoch_rng();
        let mut start = 0;
        for &end in &ends {
            rng.shuffle(&mut spans[start..end]);
            start = end;
        }
        Self { samples, spans, ends, rng }
    }

    /// The spans of each canonical node.
    fn nodes(&self) -> impl Iterator<Item = &[Span]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.spans[start..end])
    }
}

/// The units as spans of positions, in order.
fn spans_of(units: &[u32]) -> Vec<Span> {
    let mut end = 0;
    let span = |&unit| {
        let start = end;
        end += unit;
        (start, end)
    };
    units.iter().map(span).collect()
}

/// Cuts the list of spans into canonical nodes of equal size (`n * c / nodes` is where node `c`
/// begins), splitting a span that crosses a cut. Returns the spans and where each node's end.
fn cut(whole: &[Span], samples: u32, nodes: u64) -> (Vec<Span>, Vec<usize>) {
    let mut spans = Vec::with_capacity(whole.len() + nodes as usize);
    let mut ends = Vec::with_capacity(nodes as usize);
    let mut whole = whole.iter().copied().peekable();
    let mut so_far = 0;
    for node in 1..=nodes {
        let cut = node_start(samples, node, nodes);
        while let Some(span) = whole.peek_mut() {
            let room = cut - so_far;
            if span.1 - span.0 > room {
                if room > 0 {
                    spans.push((span.0, span.0 + room));
                    span.0 += room;
                    so_far = cut;
                }
                break;
            }
            so_far += span.1 - span.0;
            spans.push(*span);
            whole.next();
        }
        ends.push(spans.len());
    }
    (spans, ends)
}

/// Where canonical node `node` of `nodes` begins.
fn node_start(samples: u32, node: u64, nodes: u64) -> u32 {
    (u128::from(samples) * u128::from(node) / u128::from(nodes)) as u32
}

fn py1s(mut nodes: CanonicalNodes) -> Vec<u32> {
    let mut order = Vec::with_capacity(nodes.samples as usize);
    for &(start, end) in &nodes.spans {
        let from = order.len();
        order.extend(start..end);
        nodes.rng.shuffle(&mut order[from..]);
    }
    order
}

fn py2s(units: &[u32], rule: &ShuffleRule) -> Vec<u32> {
    let mut rng = rule.run_rng();
    let mut shards = spans_of(units);
    rng.shuffle(&mut shards);
    let mut positions: Vec<u32> =
        Vec::with_capacity(shards.iter().map(|s| s.1 - s.0).sum::<u32>() as usize);
    // From here on spans are places in `positions`, no longer runs of positions.
    let mut places = Vec::with_capacity(shards.len());
    for (start, end) in shards {
        let from = positions.len();
        positions.extend(start..end);
        rng.shuffle(&mut positions[from..]);
        places.push((from as u32, positions.len() as u32));
    }
    let (mut parts, ends) = cut(&places, positions.len() as u32, rule.canonical_nodes);

    let mut rng = rule.epoch_rng();
    let mut order: Vec<u32> = Vec::with_capacity(positions.len());
    let mut first = 0;
    for last in ends {
        let parts = &mut parts[first..last];
        first = last;
        rng.shuffle(parts);
        for part in parts {
            let from = order.len();
            order.extend_from_slice(&positions[part.0 as usize..part.1 as usize]);
            rng.shuffle(&mut order[from..]);
        }
    }
    order
}

/// Appends the spans' positions and returns where they begin.
fn append(spans: &[Span], order: &mut Vec<u32>) -> usize {
    let from = order.len();
    for &(start, end) in spans {
        order.extend(start..end);
    }
    from
}

fn py1b(nodes: CanonicalNodes, block: u64) -> Vec<u32> {
    let mut rng = nodes.rng.clone();
    let mut order = Vec::with_capacity(nodes.samples as usize);
    let block = usize::try_from(block).unwrap_or(usize::MAX);
    for spans in nodes.nodes() {
        let from = append(spans, &mut order);
        for block in order[from..].chunks_mut(block) {
            rng.shuffle(block);
        }
    }
    order
}

/// The smallest and the largest block (exclusive) around `block`: three and five quarters of it.
fn block_range(block: u64) -> (u64, u64) {
    ((0.75 * block as f64) as u64, (1.25 * block as f64) as u64)
}

fn py1br(nodes: CanonicalNodes, block: u64) -> Vec<u32> {
    let (low, high) = block_range(block);
    let mut rng = nodes.rng.clone();
    let mut order = Vec::with_capacity(nodes.samples as usize);
    let staggers: Vec<u64> = nodes.ends.iter().map(|_| rng.integers(0, low)).collect();
    for (spans, stagger) in nodes.nodes().zip(staggers) {
        let from = append(spans, &mut order);
        let node = &mut order[from..];
        for (start, end) in staggered_blocks(node.len() as u64, stagger, low, high, &mut rng) {
            rng.shuffle(&mut node[start as usize..end as usize]);
        }
    }
    order
}

/// The blocks of `py1br` in a canonical node of `len` samples, all drawn before any is shuffled.
///
/// The count of samples runs `stagger` ahead of the blocks. Hence the second block begins at 0
/// again, over the first, and up to `stagger` samples at the end are in no block.
fn staggered_blocks(
    len: u64,
    stagger: u64,
    low: u64,
    high: u64,
    rng: &mut Generator,
) -> Vec<(u64, u64)> {
    let mut blocks = Vec::new();
    let mut counted = 0;
    while counted < len {
        let size = rng.integers(low, high);
        let start = counted.saturating_sub(stagger);
        let end = (counted + size - stagger).min(len);
        blocks.push((start, end));
        counted += end - start;
    }
    blocks
}

fn py1e(nodes: CanonicalNodes, block: u64) -> Result<Vec<u32>> {
    let mut rng = nodes.rng.clone();
    let mut order: Vec<u32> = Vec::with_capacity(nodes.samples as usize);
    let mut sorter = KeySorter::default();
    for spans in nodes.nodes() {
        let from = order.len();
        for &(start, end) in spans {
            let span = order.len();
            order.extend(start..end);
            rng.shuffle(&mut order[span..]);
        }
        if order.len() == from {
            let canonical = nodes.ends.len() as u64;
            return Err(Error::EmptyCanonicalNode { samples: nodes.samples.into(), canonical });
        }
        draw_keys(spans, order.len() - from, block, &mut rng, &mut sorter.keys);
        sorter.sort(&mut order[from..]);
    }
    Ok(order)
}

/// The places to which `py1e` moves the samples of a canonical node of `len` samples.
///
/// A span moves within a block of a random size around it, but not beyond the canonical node.
fn draw_keys(spans: &[Span], len: usize, block: u64, rng: &mut Generator, keys: &mut Vec<f64>) {
    let (low, high) = block_range(block);
    keys.clear();
    keys.reserve(len);
    for &(start, end) in spans {
        let size = u64::from(end - start);
        let block = rng.integers(low, high);
        let reach = (0.5 * (block as f64 - size as f64)).max(0.0);
        let offset = keys.len();
        let down = (-reach).max(-(offset as f64));
        let up = reach.min(len as f64 - offset as f64 - size as f64);
        keys.extend((offset..offset + size as usize).map(|at| at as f64 + rng.uniform(down, up)));
    }
}

/// Sorts the samples of a canonical node by their keys, stably, in linear time: keys are spread
/// almost evenly over `0..len`, so that a bucket per unit holds one or two.
#[derive(Default)]
struct KeySorter {
    keys: Vec<f64>,
    /// Where each bucket begins, then where its next sample goes.
    next: Vec<u32>,
    sorted: Vec<(f64, u32)>,
}

impl KeySorter {
    fn sort(&mut self, samples: &mut [u32]) {
        let Self { keys, next, sorted } = self;
        // Rounding may lift a key to the very end; a negative one would count as 0.
        let last = samples.len() - 1;
        let bucket = |key: f64| (key as usize).min(last);
        next.clear();
        next.resize(samples.len() + 1, 0);
        for &key in keys.iter() {
            next[bucket(key) + 1] += 1;
        }
        for i in 1..next.len() {
            next[i] += next[i - 1];
        }
        sorted.clear();
        sorted.resize(samples.len(), (0.0, 0));
        for (&key, &sample) in keys.iter().zip(samples.iter()) {
            let place = &mut next[bucket(key)];
            sorted[*place as usize] = (key, sample);
            *place += 1;
        }
        // Now `next` holds where each bucket ends.
        let mut start = 0;
        for &end in &next[..samples.len()] {
            let end = end as usize;
            if end - start > 1 {
                sorted[start..end].sort_by(|a, b| a.0.total_cmp(&b.0));
            }
            start = end;
        }
        for (sample, &(_, moved)) in samples.iter_mut().zip(sorted.iter()) {
            *sample = moved;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [ShuffleAlgo; 6] = [
        ShuffleAlgo::Naive,
        ShuffleAlgo::Py1b,
        ShuffleAlgo::Py1br,
        ShuffleAlgo::Py1e,
        ShuffleAlgo::Py1s,
        ShuffleAlgo::Py2s,
    ];

    fn rule(algo: ShuffleAlgo, canonical_nodes: u64, block: u64) -> ShuffleRule {
        ShuffleRule { algo, canonical_nodes, seed: 9176, epoch: 1, block }
    }

    #[test]
    fn every_algorithm_permutes_and_keeps_canonical_nodes_over_epochs() {
        let units: Vec<u32> = (0..40).map(|i| 1 + i * 7 % 31).collect();
        let samples: u32 = units.iter().sum();
        for algo in ALL {
            let nodes_of = |epoch| {
                let rule = ShuffleRule { epoch, ..rule(algo, 3, 60) };
                let order = shuffle(&units, &rule).unwrap();
                let mut nodes: Vec<Vec<u32>> = (0..3)
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
        for algo in ALL {
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

    #[test]
    fn a_span_that_crosses_cuts_is_split_and_others_stay_whole() {
        let (spans, ends) = cut(&[(4, 6), (0, 4), (6, 6), (6, 12)], 12, 4);
        assert_eq!(spans, [(4, 6), (0, 1), (1, 4), (6, 6), (6, 9), (9, 12)]);
        assert_eq!(ends, [2, 4, 5, 6]);
        // One span over several cuts, and nodes that stay empty.
        assert_eq!(cut(&[(0, 2)], 2, 4), (vec![(0, 1), (1, 2)], vec![0, 1, 1, 2]));
    }

    #[test]
    fn the_stagger_of_py1br_repeats_the_start_and_leaves_the_end() {
        let blocks = |len, stagger| staggered_blocks(len, stagger, 10, 11, &mut Generator::new(0));
        assert_eq!(blocks(30, 0), [(0, 10), (10, 20), (20, 30)]);
        // Sizes are all 10 here. The first block is cut to 10 - 4; the count then stands at 6, so
        // that the second begins at 2; blocks end 4 before the count does.
        assert_eq!(blocks(30, 4), [(0, 6), (2, 12), (12, 22), (22, 30)]);
        assert_eq!(blocks(26, 4), [(0, 6), (2, 12), (12, 22)]);
        // A large stagger shuffles the start many times over.
        assert_eq!(blocks(30, 9), [(0, 1), (0, 2), (0, 4), (0, 8), (6, 16), (16, 26)]);
    }

    #[test]
    fn keys_are_sorted_stably_even_at_the_ends() {
        let mut sorter = KeySorter { keys: vec![3.0, 0.5, 0.5, 2.9, 0.2], ..KeySorter::default() };
        let mut samples = [10, 11, 12, 13, 14];
        sorter.sort(&mut samples);
        assert_eq!(samples, [14, 11, 12, 13, 10]);
        sorter.keys = vec![3.0, 3.0, -0.0];
        let mut samples = [1, 2, 3];
        sorter.sort(&mut samples);
        assert_eq!(samples, [3, 1, 2]);
    }

    #[test]
    fn py1e_moves_no_sample_farther_than_its_block() {
        let units = [50_u32; 40];
        let order = shuffle(&units, &rule(ShuffleAlgo::Py1e, 1, 80)).unwrap();
        let before = CanonicalNodes::new(&units, &rule(ShuffleAlgo::Py1e, 1, 80));
        let mut place = vec![0; order.len()];
        for (at, &position) in order.iter().enumerate() {
            place[position as usize] = at;
        }
        let mut offset = 0;
        for &(start, end) in &before.spans {
            for position in start..end {
                // Half the largest block, the span itself and what others shift it by.
                assert!(place[position as usize].abs_diff(offset) <= 50 + 50 + 25);
            }
            offset += 50;
        }
    }
}
