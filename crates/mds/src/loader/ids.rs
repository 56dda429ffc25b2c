//! The batches of one rank in one epoch, as lists of sample numbers: asked for one after the other,
//! and kept no longer than until they are delivered.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use crate::order::{EpochOrder, Place};

/// The ids of batch after batch of a rank, in the order of serving; -1 is padding.
type Batches = Box<dyn Iterator<Item = Vec<i64>> + Send>;

/// An epoch as far as it was looked at: the batches from the first that is not delivered to the
/// last that anybody asked for. Batches of nothing but padding are left out.
pub(super) struct Epoch {
    /// `None` once it has ended.
    source: Option<Batches>,
    window: VecDeque<Arc<[u64]>>,
    delivered: usize,
    samples_delivered: u64,
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Epoch")
            .field("delivered", &self.delivered)
            .field("window", &self.window.len())
            .finish_non_exhaustive()
    }
}

impl Epoch {
    pub(super) fn new(order: EpochOrder, place: Place) -> Self {
        Self::from_batches(Box::new(order.rank_batches(place.node, place.rank)))
    }

    pub(super) fn from_batches(source: Batches) -> Self {
        Self { source: Some(source), window: VecDeque::new(), delivered: 0, samples_delivered: 0 }
    }

    /// The numbers of the samples of batch `number`, without padding; `None` beyond the end of the
    /// epoch, and for batches that are delivered.
    pub(super) fn batch(&mut self, number: usize) -> Option<&Arc<[u64]>> {
        let position = number.checked_sub(self.delivered)?;
        while self.window.len() <= position {
            let Some(ids) = self.source.as_mut()?.next() else {
                self.source = None;
                return None;
            };
            let samples: Arc<[u64]> =
                ids.into_iter().filter_map(|id| u64::try_from(id).ok()).collect();
            if !samples.is_empty() {
                self.window.push_back(samples);
            }
        }
        self.window.get(position)
    }

    /// Whether every batch is delivered.
    pub(super) fn is_over(&mut self) -> bool {
        self.batch(self.delivered).is_none()
    }

    /// Batches delivered.
    pub(super) fn delivered(&self) -> usize {
        self.delivered
    }

    /// Samples in the batches delivered.
    pub(super) fn samples_delivered(&self) -> u64 {
        self.samples_delivered
    }

    /// Counts the next batch as delivered.
    pub(super) fn deliver(&mut self) {
        if let Some(samples) = self.window.pop_front() {
            self.delivered += 1;
            self.samples_delivered += samples.len() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_batches_between_delivered_and_asked_for_are_kept() {
        let batches = vec![vec![4, 5], vec![-1, -1], vec![6, -1], vec![-1, 7], vec![-1, -1]];
        let mut epoch = Epoch::from_batches(Box::new(batches.into_iter()));
        assert_eq!(epoch.batch(1).unwrap().as_ref(), [6], "padding alone is no batch");
        assert_eq!(epoch.window.len(), 2);
        assert_eq!(epoch.batch(0).unwrap().as_ref(), [4, 5]);
        epoch.deliver();
        assert_eq!((epoch.delivered(), epoch.samples_delivered()), (1, 2));
        assert_eq!(epoch.window.len(), 1);
        assert!(epoch.batch(0).is_none(), "delivered");
        assert!(!epoch.is_over());
        assert_eq!(epoch.batch(2).unwrap().as_ref(), [7]);
        assert!(epoch.batch(3).is_none(), "padding at the end is no batch either");
        epoch.deliver();
        assert!(!epoch.is_over());
        epoch.deliver();
        assert!(epoch.is_over());
        assert_eq!((epoch.delivered(), epoch.samples_delivered()), (3, 4));
        epoch.deliver();
        assert_eq!(epoch.delivered(), 3, "there was nothing left to deliver");
    }
}
