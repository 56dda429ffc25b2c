//! `py1e`, which moves every sample by a random distance.
//!
//! Spans are shuffled in themselves, every sample gets a key near its place, and a canonical node is
//! sorted by key. A segment holds the samples whose keys lie in a window: they all come from the
//! spans that reach into it. How many samples are in front of a window follows from the spans near
//! its start alone, since those before are in front as a whole; keys are drawn without rejection, so
//! that they take no counting either.

use std::ops::Range;
use std::sync::OnceLock;

use super::canonical::{CanonicalNodes, Spans};
use super::{Scratch, Segments, block_range};
use crate::huge_pages::ask_for_huge_pages;
use crate::order::counting::shuffle_starts;
use crate::order::error::{Error, Result};
use crate::order::rng::Generator;
use crate::order::sampling::Samples;

#[derive(Debug)]
pub(super) struct Py1e {
    spans: Spans,
    /// The generator before each span's shuffle, and before its keys.
    starts: Vec<Generator>,
    key_starts: Vec<Generator>,
    nodes: Vec<Node>,
    /// The smallest block, and the largest (exclusive).
    block: (u64, u64),
    /// The width of a window of keys.
    window: u64,
}

/// A canonical node.
#[derive(Debug)]
struct Node {
    places: Range<u64>,
    spans: Range<usize>,
    /// How many samples are in front of each window but the first, once somebody asked.
    fronts: Vec<OnceLock<u64>>,
}

/// The place to which a sample moves, as a fraction, and the sample.
type Keyed = (f64, u64);

/// The width of a bucket of keys. Keys are about one for each place, so that a bucket fits into the
/// processor's nearest cache, as do the ends of all buckets that a span reaches.
const BUCKET: usize = 512;

/// Memory for sorting, used again for every segment.
#[derive(Debug, Default)]
pub(super) struct KeySort {
    /// Where each bucket begins, then where its next sample goes.
    next: Vec<u32>,
    keys: Vec<f64>,
    bucketed: Vec<Keyed>,
    /// The ids of one span, and the samples of one bucket.
    span: Vec<u64>,
    bucket: Vec<Keyed>,
}

impl Py1e {
    pub(super) fn new(nodes: CanonicalNodes, block: u64) -> Result<Self> {
        let places: Vec<Range<u64>> = nodes.nodes.iter().map(|node| nodes.places(node)).collect();
        let CanonicalNodes { spans, nodes, mut rng } = nodes;
        if places.iter().any(Range::is_empty) {
            let samples = places.last().map_or(0, |last| last.end);
            return Err(Error::EmptyCanonicalNode { samples, canonical: nodes.len() as u64 });
        }
        let lens = spans.lens();
        let range = block_range(block);
        let mut starts = Vec::with_capacity(lens.len());
        let mut key_starts = Vec::with_capacity(lens.len());
        for node in &nodes {
            starts.append(&mut shuffle_starts(&mut rng, &lens[node.clone()]));
            for &len in &lens[node.clone()] {
                key_starts.push(rng.clone());
                rng.integers(range.0, range.1);
                rng.advance(len);
            }
        }
        let longest = lens.iter().copied().max().unwrap_or(0);
        let window = window(block, longest, nodes.len() as u64);
        let nodes = places.into_iter().zip(nodes).map(|(places, spans)| {
            let windows = (places.end - places.start).div_ceil(window);
            let fronts = (1..windows).map(|_| OnceLock::new()).collect();
            Node { places, spans, fronts }
        });
        Ok(Self { nodes: nodes.collect(), spans, starts, key_starts, block: range, window })
    }

    fn node(&self, place: u64) -> &Node {
        &self.nodes[self.nodes.partition_point(|node| node.places.start <= place) - 1]
    }

    /// How many samples of a canonical node are in front of a window.
    fn front(&self, node: &Node, window: u64) -> u64 {
        let Some(before) = window.checked_sub(1) else { return 0 };
        match node.fronts.get(before as usize) {
            Some(front) => *front.get_or_init(|| self.count_below(node, window * self.window)),
            None => node.places.end - node.places.start,
        }
    }

    /// How many samples of a canonical node have keys below `bound`.
    fn count_below(&self, node: &Node, bound: u64) -> u64 {
        let spans = self.spans_near(node, bound, bound);
        let mut below = self.spans.places(spans.start).start - node.places.start;
        let mut keys = Vec::new();
        for span in spans {
            keys.clear();
            self.extend_keys(node, span, &mut keys);
            below += keys.iter().filter(|key| **key < bound as f64).count() as u64;
        }
        below
    }

    /// The window that holds a place, counted from the start of its canonical node.
    fn window_at(&self, node: &Node, place: u64) -> u64 {
        let local = place - node.places.start;
        // Keys are near places, so this is the window or one beside it.
        let mut window = local / self.window;
        while self.front(node, window) > local {
            window -= 1;
        }
        while self.front(node, window + 1) <= local {
            window += 1;
        }
        window
    }

    /// The spans with keys that may lie in `low..high`: all before have smaller keys, all behind
    /// larger ones. At least one span, or none behind the canonical node's last.
    fn spans_near(&self, node: &Node, low: u64, high: u64) -> Range<usize> {
        let reach = self.block.1 / 2 + 1;
        let first = node.spans.clone();
        let near = |bound: u64, shift: u64| {
            let place = (node.places.start + bound.saturating_sub(shift)).min(node.places.end);
            if place == node.places.end { first.end } else { self.spans.at(place) }
        };
        let last = node.places.start.saturating_add(high).saturating_add(reach);
        let end = if last >= node.places.end { first.end } else { self.spans.at(last) + 1 };
        near(low, reach).max(first.start)..end
    }

    /// Appends the keys of a span's samples, in the order after its shuffle.
    ///
    /// A span moves within a block of a random size around it, but not beyond the canonical node.
    fn extend_keys(&self, node: &Node, span: usize, keys: &mut Vec<f64>) {
        let mut rng = self.key_starts[span].clone();
        let block = rng.integers(self.block.0, self.block.1);
        let places = self.spans.places(span);
        let size = (places.end - places.start) as f64;
        let reach = (0.5 * (block as f64 - size)).max(0.0);
        let offset = places.start - node.places.start;
        let len = (node.places.end - node.places.start) as f64;
        let down = (-reach).max(-(offset as f64));
        let up = reach.min(len - offset as f64 - size);
        let first = keys.len();
        keys.resize(first + (places.end - places.start) as usize, 0.0);
        rng.fill_uniform(down, up, &mut keys[first..]);
        for (at, shift) in (offset..).zip(&mut keys[first..]) {
            *shift += at as i64 as f64;
        }
    }
}

/// The width of the windows of keys. Every span is computed for each window that it reaches, in
/// blocks of `block` around it, so that four blocks are wide enough; no wider, as a reader
/// holds two windows of each canonical node (8 bytes a sample); and wide enough for spans of any length.
fn window(block: u64, longest: u64, nodes: u64) -> u64 {
    const MOST: u64 = 1 << 22;
    let memory = ((1 << 24) / nodes).min(MOST);
    block.saturating_mul(4).min(memory).max(block).max(longest.saturating_mul(2))
}

impl Segments for Py1e {
    fn around(&self, place: u64, _: &Samples) -> Range<u64> {
        let node = self.node(place);
        let window = self.window_at(node, place);
        let start = node.places.start;
        start + self.front(node, window)..start + self.front(node, window + 1)
    }

    fn compute(&self, places: Range<u64>, samples: &Samples, scratch: &mut Scratch) -> Vec<u64> {
        let node = self.node(places.start);
        let window = self.window_at(node, places.start);
        let low = window * self.window;
        let high = match places.end == node.places.end {
            true => u64::MAX,
            false => low + self.window,
        };
        let spans = self.spans_near(node, low, high);
        let bounds = low as f64..high as f64;
        let len = (places.end - places.start) as usize;
        let KeySort { next, keys, bucketed, span: ids, bucket } = &mut scratch.key_sort;

        let width = self.window.min(node.places.end - node.places.start - low) as usize;
        let buckets = width.div_ceil(BUCKET) + 1;
        let bucket_of = |key: f64| (whole(key - bounds.start) / BUCKET).min(buckets - 1);
        next.clear();
        next.resize(buckets + 1, 0);
        keys.clear();
        let all = self.spans.places(spans.end - 1).end - self.spans.places(spans.start).start;
        if keys.capacity() < all as usize {
            *keys = Vec::with_capacity(all as usize);
            ask_for_huge_pages(keys);
        }
        spans.clone().for_each(|span| self.extend_keys(node, span, keys));
        for key in keys.iter().filter(|key| bounds.contains(key)) {
            next[bucket_of(*key) + 1] += 1;
        }
        for i in 1..next.len() {
            next[i] += next[i - 1];
        }
        if bucketed.len() < len {
            *bucketed = Vec::with_capacity(len + len / 32);
            ask_for_huge_pages(bucketed);
            bucketed.resize(bucketed.capacity(), (0.0, 0));
        }
        let mut keys = keys.iter();
        for span in spans {
            ids.clear();
            let (first, last) = self.spans.spans[span];
            samples.extend(first..last, ids);
            self.starts[span].clone().shuffle(ids);
            for (&id, &key) in ids.iter().zip(&mut keys) {
                if bounds.contains(&key) {
                    let place = &mut next[bucket_of(key)];
                    bucketed[*place as usize] = (key, id);
                    *place += 1;
                }
            }
        }
        // Now `next` holds where each bucket ends.
        let mut sorted = Vec::with_capacity(len);
        ask_for_huge_pages(&mut sorted);
        let mut start = 0;
        for (number, &end) in next[..buckets].iter().enumerate() {
            let low = bounds.start + (number * BUCKET) as f64;
            sort_bucket(&bucketed[start..end as usize], low, bucket);
            sorted.extend(bucket.iter().map(|keyed| keyed.1));
            start = end as usize;
        }
        sorted
    }
}

/// The nearest integer of a number from 0 to 2^51, by its bits: much faster than a cast, which would
/// check for more. Like the integer part it never falls as the number grows, all that sorting needs.
#[inline]
fn whole(number: f64) -> usize {
    const ONES: f64 = (1_u64 << 52) as f64;
    ((number + ONES).to_bits() & ((1 << 52) - 1)) as usize
}

/// Sorts keys from `low` on into `sorted`, stably: first by the nearest quarter.
fn sort_bucket(keyed: &[Keyed], low: f64, sorted: &mut Vec<Keyed>) {
    // Keys were rounded to their bucket, so that some are a little below it.
    let quarter = |key: f64| whole(4.0 * (key - low).max(0.0)).min(4 * BUCKET);
    let mut next = [0_u32; 4 * BUCKET + 2];
    for (key, _) in keyed {
        next[quarter(*key) + 1] += 1;
    }
    let mut end = 0;
    for next in &mut next {
        end += *next;
        *next = end;
    }
    if sorted.len() < keyed.len() {
        sorted.resize(keyed.len(), (0.0, 0));
    }
    sorted.truncate(keyed.len());
    for keyed in keyed {
        let place = &mut next[quarter(keyed.0)];
        sorted[*place as usize] = *keyed;
        *place += 1;
    }
    // What is left to move stands one or two places off, and that is rare.
    for i in 1..sorted.len() {
        let moving = sorted[i];
        if sorted[i - 1].0 <= moving.0 {
            continue;
        }
        let mut at = i;
        while at > 0 && sorted[at - 1].0 > moving.0 {
            sorted[at] = sorted[at - 1];
            at -= 1;
        }
        sorted[at] = moving;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::ShuffleAlgo;
    use crate::order::sampling::Draw;
    use crate::order::shuffle::{SampleOrder, ShuffleRule};

    #[test]
    fn buckets_are_sorted_stably() {
        let keyed = [(7.5, 1), (7.2, 2), (8.5, 3), (8.5, 4), (8.2, 5), (7.0 + BUCKET as f64, 6)];
        let mut sorted = vec![(0.0, 9)];
        sort_bucket(&keyed, 7.0, &mut sorted);
        assert_eq!(sorted.iter().map(|keyed| keyed.1).collect::<Vec<_>>(), [2, 1, 5, 3, 4, 6]);
        sort_bucket(&[], 7.0, &mut sorted);
        assert!(sorted.is_empty());
    }

    #[test]
    fn windows_are_bounded_by_blocks_spans_and_memory() {
        assert_eq!(window(1 << 18, 20_000, 1), 1 << 20);
        assert_eq!(window(4_000_000, 20_000, 1), 1 << 22);
        assert_eq!(window(1 << 18, 20_000, 128), 1 << 18);
        assert_eq!(window(1 << 18, 1 << 20, 1), 1 << 21);
    }

    #[test]
    fn no_sample_moves_farther_than_its_block() {
        let rule = ShuffleRule {
            algo: ShuffleAlgo::Py1e,
            canonical_nodes: 1,
            seed: 9176,
            epoch: 1,
            block: 80,
        };
        let units = vec![50; 40];
        let order = SampleOrder::shuffled(Draw::whole(units.clone(), 0), &rule).unwrap().to_vec();
        let before = CanonicalNodes::new(&units, &rule);
        let mut place = vec![0; order.len()];
        for (at, &position) in order.iter().enumerate() {
            place[position as usize] = at;
        }
        for (number, &(start, end)) in before.spans.spans.iter().enumerate() {
            for position in start..end {
                // Half the largest block, the span itself and what others shift it by.
                assert!(place[position as usize].abs_diff(50 * number) <= 50 + 50 + 25);
            }
        }
    }
}
