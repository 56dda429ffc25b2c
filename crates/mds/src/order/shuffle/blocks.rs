//! `py1b` and `py1br`, which shuffle blocks that reach over several spans.

use std::ops::Range;

use super::canonical::{CanonicalNodes, Spans};
use super::{Scratch, Segments, block_range};
use crate::order::counting::shuffle_starts;
use crate::order::rng::Generator;
use crate::order::sampling::Samples;

/// Blocks of places that are shuffled one after the other, within their canonical node.
#[derive(Debug)]
pub(super) struct Blocks {
    spans: Spans,
    blocks: Vec<Range<u64>>,
    /// The generator before each block's shuffle.
    starts: Vec<Generator>,
    segments: Vec<Segment>,
}

/// Blocks that overlap, or places that are in none.
#[derive(Debug)]
struct Segment {
    places: Range<u64>,
    blocks: Range<usize>,
}

/// Blocks of a fixed size.
pub(super) fn py1b(nodes: CanonicalNodes, block: u64) -> Blocks {
    let mut blocks = Vec::new();
    for node in &nodes.nodes {
        let places = nodes.places(node);
        let starts = places.clone().step_by(usize::try_from(block).unwrap_or(usize::MAX));
        blocks.extend(starts.map(|start| start..start.saturating_add(block).min(places.end)));
    }
    let starts = shuffle_starts(&mut nodes.rng.clone(), &lens(&blocks));
    Blocks::new(nodes, blocks, starts)
}

/// Blocks of random sizes around `block`, from a random offset on.
pub(super) fn py1br(nodes: CanonicalNodes, block: u64) -> Blocks {
    let (low, high) = block_range(block);
    let mut rng = nodes.rng.clone();
    let (mut blocks, mut starts) = (Vec::new(), Vec::new());
    let staggers: Vec<u64> = nodes.nodes.iter().map(|_| rng.integers(0, low)).collect();
    for (node, stagger) in nodes.nodes.iter().zip(staggers) {
        let places = nodes.places(node);
        let mut of_node = staggered_blocks(places.end - places.start, stagger, low, high, &mut rng);
        for block in &mut of_node {
            *block = places.start + block.start..places.start + block.end;
        }
        starts.append(&mut shuffle_starts(&mut rng, &lens(&of_node)));
        blocks.append(&mut of_node);
    }
    Blocks::new(nodes, blocks, starts)
}

fn lens(blocks: &[Range<u64>]) -> Vec<u64> {
    blocks.iter().map(|block| block.end - block.start).collect()
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
) -> Vec<Range<u64>> {
    let mut blocks = Vec::new();
    let mut counted = 0;
    while counted < len {
        let size = rng.integers(low, high);
        let start = counted.saturating_sub(stagger);
        let end = (counted + size - stagger).min(len);
        blocks.push(start..end);
        counted += end - start;
    }
    blocks
}

impl Blocks {
    fn new(nodes: CanonicalNodes, blocks: Vec<Range<u64>>, starts: Vec<Generator>) -> Self {
        let mut segments: Vec<Segment> = Vec::with_capacity(blocks.len());
        let mut push = |places: Range<u64>, blocks: Range<usize>| match segments.last_mut() {
            Some(last) if places.start < last.places.end => {
                last.places.end = last.places.end.max(places.end);
                last.blocks.end = blocks.end;
            }
            _ => segments.push(Segment { places, blocks }),
        };
        for node in &nodes.nodes {
            let places = nodes.places(node);
            let first = blocks.partition_point(|block| block.start < places.start);
            let mut end = places.start;
            for (number, block) in blocks.iter().enumerate().skip(first) {
                if block.start >= places.end {
                    break;
                }
                push(block.clone(), number..number + 1);
                end = end.max(block.end);
            }
            if end < places.end {
                push(end..places.end, 0..0);
            }
        }
        Self { spans: nodes.spans, blocks, starts, segments }
    }

    fn segment(&self, place: u64) -> &Segment {
        &self.segments[self.segments.partition_point(|s| s.places.start <= place) - 1]
    }
}

impl Segments for Blocks {
    fn around(&self, place: u64, _: &Samples) -> Range<u64> {
        self.segment(place).places.clone()
    }

    fn compute(&self, places: Range<u64>, samples: &Samples, _: &mut Scratch) -> Vec<u64> {
        let mut ids = Vec::with_capacity((places.end - places.start) as usize);
        self.spans.extend(places.clone(), samples, &mut ids);
        for number in self.segment(places.start).blocks.clone() {
            let Range { start, end } = self.blocks[number];
            let block = (start - places.start) as usize..(end - places.start) as usize;
            self.starts[number].clone().shuffle(&mut ids[block]);
        }
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stagger_of_py1br_repeats_the_start_and_leaves_the_end() {
        let blocks = |len, stagger| staggered_blocks(len, stagger, 10, 11, &mut Generator::new(0));
        assert_eq!(blocks(30, 0), [0..10, 10..20, 20..30]);
        // Sizes are all 10 here. The first block is cut to 10 - 4; the count then stands at 6, so
        // that the second begins at 2; blocks end 4 before the count does.
        assert_eq!(blocks(30, 4), [0..6, 2..12, 12..22, 22..30]);
        assert_eq!(blocks(26, 4), [0..6, 2..12, 12..22]);
        // A large stagger shuffles the start many times over.
        assert_eq!(blocks(30, 9), [0..1, 0..2, 0..4, 0..8, 6..16, 16..26]);
    }
}
