//! The beginning that all shuffles but `naive` share: units in an order that is fixed for the run,
//! cut into canonical nodes.

use std::ops::Range;

use super::ShuffleRule;
use crate::order::rng::Generator;
use crate::order::sampling::Samples;

/// A run of consecutive positions, `[start, end)`.
pub(super) type Span = (u64, u64);

/// The units in their order for this epoch, canonical node by node.
pub(super) struct CanonicalNodes {
    pub(super) spans: Spans,
    /// The spans of each canonical node.
    pub(super) nodes: Vec<Range<usize>>,
    /// The epoch's generator, after it has shuffled the spans.
    pub(super) rng: Generator,
}

impl CanonicalNodes {
    pub(super) fn new(units: &[u64], rule: &ShuffleRule) -> Self {
        let mut whole = spans_of(units);
        rule.run_rng().shuffle(&mut whole);
        let (mut spans, nodes) = cut(&whole, rule.canonical_nodes);
        drop(whole);
        let mut rng = rule.epoch_rng();
        for node in &nodes {
            rng.shuffle(&mut spans[node.clone()]);
        }
        Self { spans: Spans::new(spans), nodes, rng }
    }

    /// The places of a canonical node.
    pub(super) fn places(&self, node: &Range<usize>) -> Range<u64> {
        self.spans.places[node.start]..self.spans.places[node.end]
    }
}

/// Spans one after the other.
#[derive(Debug)]
pub(super) struct Spans {
    pub(super) spans: Vec<Span>,
    /// The place of the first sample of each span, and at the end the number of samples.
    places: Vec<u64>,
}

impl Spans {
    pub(super) fn new(spans: Vec<Span>) -> Self {
        let mut end = 0;
        let mut places = Vec::with_capacity(spans.len() + 1);
        places.push(0);
        for (start, stop) in &spans {
            end += stop - start;
            places.push(end);
        }
        Self { spans, places }
    }

    /// The number of the span at a place, which is none of the empty ones.
    pub(super) fn at(&self, place: u64) -> usize {
        self.places.partition_point(|start| *start <= place) - 1
    }

    /// The places of a span.
    pub(super) fn places(&self, span: usize) -> Range<u64> {
        self.places[span]..self.places[span + 1]
    }

    pub(super) fn lens(&self) -> Vec<u64> {
        self.spans.iter().map(|span| span.1 - span.0).collect()
    }

    /// Appends the ids of the samples at `places` as they are before anything moves.
    pub(super) fn extend(&self, places: Range<u64>, samples: &Samples, ids: &mut Vec<u64>) {
        let mut at = places.start;
        let mut span = self.at(at);
        while at < places.end {
            let here = self.places(span);
            let first = self.spans[span].0;
            let end = here.end.min(places.end);
            samples.extend(first + (at - here.start)..first + (end - here.start), ids);
            at = end;
            span += 1;
        }
    }
}

/// The units as spans of positions, in order.
pub(super) fn spans_of(units: &[u64]) -> Vec<Span> {
    let mut end = 0;
    let span = |&unit| {
        let start = end;
        end += unit;
        (start, end)
    };
    units.iter().map(span).collect()
}

/// Cuts the list of spans into canonical nodes of equal size (`n * c / nodes` is where node `c`
/// begins), splitting a span that crosses a cut. Returns the spans, and which each node has.
pub(super) fn cut(whole: &[Span], nodes: u64) -> (Vec<Span>, Vec<Range<usize>>) {
    let samples = whole.iter().map(|span| span.1 - span.0).sum();
    let mut spans = Vec::with_capacity(whole.len() + nodes as usize);
    let mut ranges = Vec::with_capacity(nodes as usize);
    let mut whole = whole.iter().copied().peekable();
    let mut so_far = 0;
    for node in 1..=nodes {
        let first = spans.len();
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
        ranges.push(first..spans.len());
    }
    (spans, ranges)
}

/// Where canonical node `node` of `nodes` begins.
pub(super) fn node_start(samples: u64, node: u64, nodes: u64) -> u64 {
    (u128::from(samples) * u128::from(node) / u128::from(nodes)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_that_crosses_cuts_is_split_and_others_stay_whole() {
        let (spans, nodes) = cut(&[(4, 6), (0, 4), (6, 6), (6, 12)], 4);
        assert_eq!(spans, [(4, 6), (0, 1), (1, 4), (6, 6), (6, 9), (9, 12)]);
        assert_eq!(nodes, [0..2, 2..4, 4..5, 5..6]);
        // One span over several cuts, and nodes that stay empty.
        assert_eq!(cut(&[(0, 2)], 4), (vec![(0, 1), (1, 2)], vec![0..0, 0..1, 1..1, 1..2]));
    }

    #[test]
    fn places_skip_empty_spans() {
        let spans = Spans::new(vec![(5, 5), (7, 9), (1, 1), (0, 3)]);
        assert_eq!((0..5).map(|place| spans.at(place)).collect::<Vec<_>>(), [1, 1, 3, 3, 3]);
        assert_eq!(spans.places(3), 2..5);
        let mut ids = Vec::new();
        let samples = crate::order::sampling::Draw::whole(vec![9], 100).samples;
        spans.extend(1..4, &samples, &mut ids);
        assert_eq!(ids, [108, 100, 101]);
    }
}
