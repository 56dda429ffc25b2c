//! What each batch of an epoch holds, once the streams' orders and their shares are fixed.
//!
//! `random` takes its batches straight from one partition of all samples. The other methods compose
//! global batches from lists, one for each stream, and deal them to the ranks in turn.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::epoch::Layout;
use super::partition::Partition;
use super::shuffle::{SampleOrder, SampleReader, SharedSegments};

/// How batches are composed.
#[derive(Debug)]
pub(super) enum Mixing {
    /// Every rank has its batches of the samples of all streams.
    Random { partition: Partition, samples: SampleOrder },
    /// The ranks take batches in turn from a list of `len` ids, from `skipped` on.
    Dealt { list: Dealt, streams: Vec<StreamList>, skipped: u64, len: u64 },
}

/// A list of ids in the order of serving: (batch, worker, node, rank, position).
#[derive(Debug)]
pub(super) enum Dealt {
    /// Every global batch holds `parts[s]` samples of each stream `s`, one stream after the other.
    Stratified { parts: Vec<usize> },
    /// Every global batch is the next one of a stream.
    PerStream { origins: Origins },
    /// Nodes in turn give a batch, the next one of a stream in the node's `per_node` canonical nodes.
    DevicePerStream { nodes: Vec<Origins>, per_node: usize },
}

/// The samples of a stream in the order of serving.
#[derive(Debug)]
pub(super) struct StreamList {
    pub(super) partition: Partition,
    pub(super) samples: SampleOrder,
}

/// From which stream each batch comes, and which of that stream's batches it is.
#[derive(Debug)]
pub(super) struct Origins(Vec<(u32, u32)>);

impl Origins {
    /// Numbers the batches of each stream.
    pub(super) fn new(streams: &[u32]) -> Self {
        let mut taken = Vec::new();
        let number = |&stream: &u32| {
            let index = stream as usize;
            taken.resize(taken.len().max(index + 1), 0);
            taken[index] += 1;
            (stream, taken[index] - 1)
        };
        Self(streams.iter().map(number).collect())
    }

    fn get(&self, batch: u64) -> Option<(usize, u64)> {
        let (stream, number) = self.0.get(usize::try_from(batch).ok()?)?;
        Some((*stream as usize, u64::from(*number)))
    }
}

/// A reader for each stream.
#[derive(Debug, Default)]
pub(super) struct Readers(Vec<SampleReader>);

impl Readers {
    fn of(&mut self, stream: usize) -> &mut SampleReader {
        if self.0.len() <= stream {
            self.0.resize_with(stream + 1, SampleReader::default);
        }
        &mut self.0[stream]
    }

    /// Takes segments over that were computed for all readers.
    pub(super) fn share(&mut self, segments: &SharedSegments) {
        self.of(0).share(segments.clone());
    }
}

impl Mixing {
    /// Writes the ids of batch `batch` of a rank, which is `(node, rank of the node)`. What is left
    /// over keeps its padding.
    pub(super) fn fill(
        &self,
        layout: &Layout,
        (node, rank): (usize, usize),
        batch: usize,
        readers: &mut Readers,
        ids: &mut [i64],
    ) {
        match self {
            Self::Random { partition, samples } => {
                let reader = readers.of(0);
                let run = partition.batch_run(node, rank, batch);
                if run.is_some_and(|run| reader.fill_run(samples, run, ids)) {
                    return;
                }
                partition.batch(node, rank, batch, |at, position| {
                    ids[at] = reader.id(samples, position) as i64;
                });
            }
            Self::Dealt { list, streams, skipped, len } => {
                let world = layout.world;
                let number = (batch * world.nodes + node) * world.ranks_per_node + rank;
                let first = skipped + (number * layout.batch_size) as u64;
                if first < *len {
                    list.fill(layout, streams, first, readers, ids);
                }
            }
        }
    }

    /// Computes the segments for some steps that threads share out, one thread for each of `readers`,
    /// unless a segment is among `before`.
    pub(super) fn compute_shared(
        &self,
        layout: &Layout,
        steps: Range<usize>,
        readers: &mut [Readers],
        before: &SharedSegments,
    ) -> SharedSegments {
        let Self::Random { partition, samples } = self else { return SharedSegments::default() };
        let ids = layout.global_batch() * steps.start..layout.global_batch() * steps.end;
        let mut shared = SharedSegments::default();
        let mut missing = Vec::new();
        for positions in partition.positions_of(ids.start as u64..ids.end as u64) {
            samples.segments_of(positions, before, &mut shared, &mut missing);
        }
        let (next, shared) = (AtomicUsize::new(0), Mutex::new(shared));
        let (missing, claimed, found) = (&missing, &next, &shared);
        thread::scope(|scope| {
            for readers in readers.iter_mut().take(missing.len()) {
                let reader = readers.of(0);
                scope.spawn(move || {
                    while let Some(places) = missing.get(claimed.fetch_add(1, Ordering::Relaxed)) {
                        let segment = reader.segment(samples, places.clone());
                        found.lock().unwrap_or_else(|e| e.into_inner()).insert(segment);
                    }
                });
            }
        });
        shared.into_inner().unwrap_or_else(|e| e.into_inner())
    }
}

impl Dealt {
    /// Writes the ids of a batch that begins at place `first` of the list.
    fn fill(
        &self,
        layout: &Layout,
        streams: &[StreamList],
        first: u64,
        readers: &mut Readers,
        ids: &mut [i64],
    ) {
        let (size, global) = (layout.batch_size as u64, layout.global_batch() as u64);
        match self {
            Self::Stratified { parts } => {
                let (batch, offset) = (first / global, (first % global) as usize);
                let mut start = 0;
                for (stream, &part) in parts.iter().enumerate() {
                    let here = start.max(offset)..(start + part).min(offset + ids.len());
                    if here.start < here.end {
                        let place = batch * part as u64 + (here.start - start) as u64;
                        let ids = &mut ids[here.start - offset..here.end - offset];
                        streams[stream].fill(0..1, place, readers.of(stream), ids);
                    }
                    start += part;
                }
            }
            Self::PerStream { origins } => {
                if let Some((stream, number)) = origins.get(first / global) {
                    let place = number * global + first % global;
                    // Not the run's nodes, if a resumption deals the batches of other nodes out again.
                    let nodes = streams[stream].partition.nodes();
                    streams[stream].fill(nodes, place, readers.of(stream), ids);
                }
            }
            Self::DevicePerStream { nodes, per_node } => {
                let (batch, node) = (first / size, (first / size) as usize % nodes.len());
                if let Some((stream, number)) = nodes[node].get(batch / nodes.len() as u64) {
                    let rows = node * per_node..(node + 1) * per_node;
                    streams[stream].fill(rows, number * size, readers.of(stream), ids);
                }
            }
        }
    }
}

impl StreamList {
    /// Writes the ids of some nodes from place `first` on.
    fn fill(&self, nodes: Range<usize>, first: u64, reader: &mut SampleReader, ids: &mut [i64]) {
        self.partition.served(nodes, first, ids.len(), |at, position| {
            ids[at] = reader.id(&self.samples, position) as i64;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_numbered_by_stream() {
        let origins = Origins::new(&[2, 0, 2, 2, 0]);
        let all: Vec<_> = (0..6).map(|batch| origins.get(batch)).collect();
        let some = [(2, 0), (0, 0), (2, 1), (2, 2), (0, 1)].map(Some);
        assert_eq!(all, [&some[..], &[None]].concat());
    }
}
