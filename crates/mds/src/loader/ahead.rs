//! Fetching shards before the workers need them, and keeping them from being evicted until then.

use std::collections::HashMap;

use super::ids::Epoch;
use super::queue::{Queue, Shared};
use crate::cache::Pin;

/// How far the fetching of an epoch has come.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// The batch to look at, and the position in it.
    batch: usize,
    position: usize,
    /// Samples of the epoch before that position.
    samples: u64,
    /// Shards that batches not delivered yet need, as far as looked at.
    wanted: HashMap<usize, Wanted>,
}

#[derive(Debug)]
struct Wanted {
    /// The last batch, as far as looked at, that needs the shard.
    last_batch: usize,
    /// Keeps the shard in the cache once it is there.
    pin: Option<Pin>,
}

impl Ahead {
    /// Looks on, up to sample `end` of the epoch, for a shard that nobody fetches yet.
    fn next_shard(
        &mut self,
        epoch: &mut Epoch,
        end: u64,
        shard_of: impl Fn(u64) -> Option<usize>,
    ) -> Option<usize> {
        if self.batch < epoch.delivered() {
            (self.batch, self.position) = (epoch.delivered(), 0);
            self.samples = epoch.samples_delivered();
        }
        while self.samples < end {
            let ids = epoch.batch(self.batch)?;
            let Some(&id) = ids.get(self.position) else {
                (self.batch, self.position) = (self.batch + 1, 0);
                continue;
            };
            self.position += 1;
            self.samples += 1;
            let Some(shard) = shard_of(id) else { continue };
            let last_batch = self.batch;
            if let Some(wanted) = self.wanted.get_mut(&shard) {
                wanted.last_batch = last_batch;
                continue;
            }
            self.wanted.insert(shard, Wanted { last_batch, pin: None });
            return Some(shard);
        }
        None
    }

    /// Lets go of shards that only the first `delivered` batches needed.
    pub(super) fn release(&mut self, delivered: usize) {
        self.wanted.retain(|_, wanted| wanted.last_batch >= delivered);
    }
}

impl<B> Shared<B> {
    /// Fetches shards ahead until the loader goes away. Failures are left to the workers, which
    /// try again and report them in the order of the batches.
    pub(super) fn fetch_ahead(&self) {
        let mut queue = self.lock();
        while !self.stop.is_raised() {
            let Some(shard) = self.next_wanted(&mut queue) else {
                queue = self.wait_to_fetch(queue);
                continue;
            };
            loop {
                drop(queue);
                let fetched = self.dataset.open_ahead(shard, &self.stop);
                queue = self.lock();
                let Some(wanted) = queue.ahead.wanted.get_mut(&shard) else { break };
                match fetched {
                    Ok(None) if !self.stop.is_raised() => queue = self.wait_to_fetch(queue),
                    Ok(pin) => {
                        wanted.pin = pin;
                        break;
                    }
                    Err(error) => {
                        tracing::debug!(%error, "a shard could not be fetched ahead");
                        break;
                    }
                }
            }
        }
    }

    fn next_wanted(&self, queue: &mut Queue<B>) -> Option<usize> {
        let Queue { epoch, ahead, .. } = queue;
        let epoch = epoch.as_mut()?;
        let end = epoch.samples_delivered().saturating_add(self.dataset.predownload() as u64);
        ahead.next_shard(epoch, end, |id| self.dataset.shard_of(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shard_is_wanted_once_and_until_its_last_batch() {
        let batches = vec![vec![0, 10], vec![1, 20], vec![-1, 11], vec![30, 31]];
        let mut epoch = Epoch::from_batches(Box::new(batches.into_iter()));
        let shard_of = |id: u64| Some((id / 10) as usize);
        let mut ahead = Ahead::default();
        assert_eq!(ahead.next_shard(&mut epoch, 5, shard_of), Some(0));
        assert_eq!(ahead.next_shard(&mut epoch, 5, shard_of), Some(1));
        assert_eq!(ahead.next_shard(&mut epoch, 5, shard_of), Some(2));
        assert_eq!(ahead.next_shard(&mut epoch, 5, shard_of), None, "beyond the window");
        ahead.release(2);
        let mut wanted: Vec<_> = ahead.wanted.keys().copied().collect();
        wanted.sort_unstable();
        assert_eq!(wanted, [1], "shard 1 is needed by batch 2 again");
        assert_eq!(ahead.next_shard(&mut epoch, 99, shard_of), Some(3));
        assert_eq!(ahead.next_shard(&mut epoch, 99, shard_of), None);
    }

    #[test]
    fn what_was_delivered_meanwhile_is_passed_over() {
        let batches = vec![vec![0, 1], vec![10, 11], vec![20, 21]];
        let mut epoch = Epoch::from_batches(Box::new(batches.into_iter()));
        let shard_of = |id: u64| Some((id / 10) as usize);
        let mut ahead = Ahead::default();
        assert_eq!(ahead.next_shard(&mut epoch, 1, shard_of), Some(0));
        for batch in 0..2 {
            assert!(epoch.batch(batch).is_some());
            epoch.deliver();
        }
        assert_eq!(ahead.next_shard(&mut epoch, 4, shard_of), None);
        assert_eq!(ahead.next_shard(&mut epoch, 5, shard_of), Some(2));
    }
}
