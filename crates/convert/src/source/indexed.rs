//! Indexed datasets of GPT-NeoX and Megatron: documents that are token ids already.

use std::path::PathBuf;
use std::sync::Arc;

use super::chunk::{Chunk, Joined, Unit};
use super::{Chunks, Part};
use crate::error::Result;
use crate::indexed::IndexedDataset;
use crate::manifest::Position;
use crate::progress::Meter;

/// As many ids as are worth handing to another thread.
const CHUNK_IDS: usize = 64 << 10;

/// The whole dataset `prefix` from `from` on. `held` is what removes its files, if they are copies.
pub(super) fn part(
    name: Arc<str>,
    prefix: PathBuf,
    held: Option<Arc<mds::ScratchFolder>>,
    from: Position,
) -> Part {
    Part::new(name, move |meter| {
        let dataset = IndexedDataset::open(prefix)?;
        let held = held;
        let (mut place, meter) = (from, Arc::clone(meter));
        meter.pass_over(bytes_before(&dataset, place.units));
        Ok(Box::new(std::iter::from_fn(move || {
            let _ = &held;
            next(&dataset, &mut place, &meter).transpose()
        })) as Chunks)
    })
}

fn next(
    dataset: &IndexedDataset,
    place: &mut Position,
    meter: &Meter,
) -> Result<Option<(Chunk, Position)>> {
    let before = place.units;
    let mut ids = Joined::default();
    while (place.units as usize) < dataset.num_documents() && ids.items() < CHUNK_IDS {
        ids.push(dataset.document_ids(place.units as usize)?);
        place.units += 1;
    }
    meter.pass_over((ids.items() * dataset.dtype().size()) as u64);
    let more = place.units > before;
    Ok(more.then(|| (Chunk::ids(Unit::Document, before, ids), *place)))
}

fn bytes_before(dataset: &IndexedDataset, documents: u64) -> u64 {
    let tokens = dataset.documents().take(documents as usize).map(|tokens| tokens.len() as u64);
    tokens.sum::<u64>() * dataset.dtype().size() as u64
}
