//! `naive`: one permutation of everything. Each of its draws may move any sample, so that none is
//! known before all are made: the only order that is held in memory, 4 bytes a sample as long as ids
//! fit into them.

use std::ops::Range;

use super::{Scratch, Segments, ShuffleRule};
use crate::huge_pages::ask_for_huge_pages;
use crate::order::error::{Error, Result};
use crate::order::sampling::Samples;

/// Places that are handed out together.
const SEGMENT: u64 = 1 << 16;

#[derive(Debug)]
pub(super) struct Naive(Ids);

#[derive(Debug)]
enum Ids {
    Narrow(Vec<u32>),
    Wide(Vec<u64>),
}

impl Naive {
    pub(super) fn new(samples: &Samples, rule: &ShuffleRule) -> Result<Self> {
        if samples.len() > u64::from(u32::MAX) {
            return Err(Error::NaiveTooLong { samples: samples.len() });
        }
        let mut rng = rule.epoch_rng();
        if samples.max_id() > u64::from(u32::MAX) {
            let mut ids = Vec::with_capacity(samples.len() as usize);
            ask_for_huge_pages(&mut ids);
            samples.extend(0..samples.len(), &mut ids);
            rng.shuffle(&mut ids);
            return Ok(Self(Ids::Wide(ids)));
        }
        let mut ids = Vec::with_capacity(samples.len() as usize);
        ask_for_huge_pages(&mut ids);
        let mut part = Vec::new();
        while (ids.len() as u64) < samples.len() {
            part.clear();
            samples.extend(samples.piece(ids.len() as u64), &mut part);
            ids.extend(part.iter().map(|&id| id as u32));
        }
        rng.shuffle(&mut ids);
        Ok(Self(Ids::Narrow(ids)))
    }

    const fn len(&self) -> usize {
        match &self.0 {
            Ids::Narrow(ids) => ids.len(),
            Ids::Wide(ids) => ids.len(),
        }
    }
}

impl Segments for Naive {
    fn around(&self, place: u64, _: &Samples) -> Range<u64> {
        let start = place - place % SEGMENT;
        start..(start + SEGMENT).min(self.len() as u64)
    }

    fn compute(&self, places: Range<u64>, _: &Samples, _: &mut Scratch) -> Vec<u64> {
        let places = places.start as usize..places.end as usize;
        match &self.0 {
            Ids::Narrow(ids) => ids[places].iter().map(|&id| id.into()).collect(),
            Ids::Wide(ids) => ids[places].to_vec(),
        }
    }
}
