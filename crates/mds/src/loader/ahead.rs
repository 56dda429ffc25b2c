//! Fetching shards before the workers need them, and keeping them from being evicted until then.

use std::collections::HashMap;
use std::sync::Arc;

use super::queue::{Epoch, Queue, Shared};
use crate::shard::Shard;

/// How far the fetching of an epoch has come.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// The next position in the epoch's ids to look at.
    cursor: usize,
    /// Shards that batches not delivered yet need, as far as looked at.
    wanted: HashMap<usize, Wanted>,
}

#[derive(Debug)]
struct Wanted {
    /// The last batch, as far as looked at, that needs the shard.
    last_batch: usize,
    /// Keeps the shard in the cache once it is there.
    pin: Option<Arc<Shard>>,
}

impl Ahead {
    /// Looks on, up to position `end`, for a shard that nobody fetches yet.
    fn next_shard(
        &mut self,
        epoch: &Epoch,
        end: usize,
        shard_of: impl Fn(u64) -> Option<usize>,
    ) -> Option<usize> {
        while self.cursor < epoch.ids.len().min(end) {
            let position = self.cursor;
            self.cursor += 1;
            let id = u64::try_from(epoch.ids[position]).ok();
            let Some(shard) = id.and_then(&shard_of) else { continue };
            let last_batch = position / epoch.batch_size;
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

impl<T> Shared<T> {
    /// Fetches shards ahead until the loader goes away. Failures are left to the workers, which
    /// try again and report them in the order of the batches.
    pub(super) fn fetch_ahead(&self) {
        let mut queue = self.lock();
        while !self.stop.is_raised() {
            let Some(shard) = self.next_wanted(&mut queue) else {
                queue = self.wait_for_work(queue);
                continue;
            };
            loop {
                drop(queue);
                let fetched = self.dataset.open_ahead(shard, &self.stop);
                queue = self.lock();
                let Some(wanted) = queue.ahead.wanted.get_mut(&shard) else { break };
                match fetched {
                    Ok(None) if !self.stop.is_raised() => queue = self.wait_for_work(queue),
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

    fn next_wanted(&self, queue: &mut Queue<T>) -> Option<usize> {
        let epoch = Arc::clone(queue.epoch.as_ref()?);
        let delivered = queue.delivered.saturating_mul(epoch.batch_size);
        let end = delivered.saturating_add(self.dataset.predownload());
        queue.ahead.next_shard(&epoch, end, |id| self.dataset.shard_of(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shard_is_wanted_once_and_until_its_last_batch() {
        let epoch = Epoch { ids: vec![0, 10, 1, 20, -1, 11, 30, 31], batch_size: 2 };
        let shard_of = |id: u64| Some((id / 10) as usize);
        let mut ahead = Ahead::default();
        assert_eq!(ahead.next_shard(&epoch, 6, shard_of), Some(0));
        assert_eq!(ahead.next_shard(&epoch, 6, shard_of), Some(1));
        assert_eq!(ahead.next_shard(&epoch, 6, shard_of), Some(2));
        assert_eq!(ahead.next_shard(&epoch, 6, shard_of), None, "beyond the window");
        ahead.release(2);
        let mut wanted: Vec<_> = ahead.wanted.keys().copied().collect();
        wanted.sort_unstable();
        assert_eq!(wanted, [1], "shard 1 is needed by batch 2 again");
        assert_eq!(ahead.next_shard(&epoch, 99, shard_of), Some(3));
        assert_eq!(ahead.next_shard(&epoch, 99, shard_of), None);
    }
}
