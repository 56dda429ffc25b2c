//! `py1s` and `py2s`, which shuffle within each part of a shard.

use std::ops::Range;

use super::canonical::{CanonicalNodes, Span, Spans, cut, spans_of};
use super::{Scratch, Segments, ShuffleRule};
use crate::order::counting::shuffle_starts;
use crate::order::rng::Generator;
use crate::order::sampling::Samples;

/// Every span is shuffled in itself.
#[derive(Debug)]
pub(super) struct Py1s {
    spans: Spans,
    /// The generator before each span's shuffle.
    starts: Vec<Generator>,
}

impl Py1s {
    pub(super) fn new(nodes: CanonicalNodes) -> Self {
        let CanonicalNodes { spans, mut rng, .. } = nodes;
        let starts = shuffle_starts(&mut rng, &spans.lens());
        Self { spans, starts }
    }
}

impl Segments for Py1s {
    fn around(&self, place: u64, _: &Samples) -> Range<u64> {
        self.spans.places(self.spans.at(place))
    }

    fn compute(&self, places: Range<u64>, samples: &Samples, _: &mut Scratch) -> Vec<u64> {
        let span = self.spans.at(places.start);
        let mut ids = Vec::with_capacity((places.end - places.start) as usize);
        self.spans.extend(places, samples, &mut ids);
        self.starts[span].clone().shuffle(&mut ids);
        ids
    }
}

/// Every shard was shuffled in itself before it was cut; every part is shuffled again.
#[derive(Debug)]
pub(super) struct Py2s {
    /// The shards in the run's order, as spans of positions.
    shards: Spans,
    /// The run's generator before each shard's shuffle.
    shard_starts: Vec<Generator>,
    /// Parts of shards, as spans of places in `shards`, in the epoch's order.
    parts: Spans,
    /// The epoch's generator before each part's shuffle.
    part_starts: Vec<Generator>,
}

impl Py2s {
    pub(super) fn new(units: &[u64], rule: &ShuffleRule) -> Self {
        let mut rng = rule.run_rng();
        let mut shards = spans_of(units);
        rng.shuffle(&mut shards);
        let shards = Spans::new(shards);
        let shard_starts = shuffle_starts(&mut rng, &shards.lens());

        let places: Vec<Span> = (0..shards.spans.len())
            .map(|shard| shards.places(shard))
            .map(|places| (places.start, places.end))
            .collect();
        let (mut parts, nodes) = cut(&places, rule.canonical_nodes);
        let mut rng = rule.epoch_rng();
        let mut part_starts = Vec::with_capacity(parts.len());
        for node in nodes {
            let parts = &mut parts[node];
            rng.shuffle(parts);
            let lens: Vec<u64> = parts.iter().map(|part| part.1 - part.0).collect();
            part_starts.append(&mut shuffle_starts(&mut rng, &lens));
        }
        Self { shards, shard_starts, parts: Spans::new(parts), part_starts }
    }
}

impl Segments for Py2s {
    fn around(&self, place: u64, _: &Samples) -> Range<u64> {
        self.parts.places(self.parts.at(place))
    }

    fn compute(&self, places: Range<u64>, samples: &Samples, _: &mut Scratch) -> Vec<u64> {
        let part = self.parts.at(places.start);
        let (start, end) = self.parts.spans[part];
        let shard = self.shards.at(start);
        let whole = self.shards.places(shard);
        let mut ids = Vec::with_capacity((whole.end - whole.start) as usize);
        self.shards.extend(whole.clone(), samples, &mut ids);
        self.shard_starts[shard].clone().shuffle(&mut ids);
        ids.truncate((end - whole.start) as usize);
        ids.drain(..(start - whole.start) as usize);
        self.part_starts[part].clone().shuffle(&mut ids);
        ids
    }
}
