//! The cache of one node: what it downloads, what it holds, what it must hold.
//!
//! # The model
//! A node has one cache for all its ranks, empty at the start. At step `t` every rank has delivered
//! `t` batches, and the loader sees to it that the shards of the next `predownload` samples of each
//! rank (whole batches, rounded up, at least the one at hand) are there: the node's *window*. A
//! shard is downloaded when it comes into the window and is not in the cache. A shard in the window
//! stays. With a limit, the shards whose last need lies furthest back go first to make room; where
//! the window itself is larger than the limit, the limit is exceeded, as the library's cache does.
//!
//! # What a node must hold
//! - *needed*: the most bytes of shards between their first download and their last use at once:
//!   the reference simulator's "minimum cache limit", enough for who knows the future.
//! - *without re-downloads*: the smallest limit with which this cache downloads nothing twice. For
//!   a shard that comes back, all shards that were needed since its last need must fit beside it.

use super::recency::Recency;
use super::timeline::Timeline;

/// No step.
const NEVER: u64 = u64::MAX;

/// Sums over the downloads of a node.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Downloads {
    pub(super) shards: u64,
    pub(super) bytes: u64,
    /// Those of them that had been there before.
    pub(super) again_shards: u64,
    pub(super) again_bytes: u64,
    /// For the first batch alone, and before it is served (with what is fetched ahead).
    pub(super) first_batch_bytes: u64,
    pub(super) first_step_bytes: u64,
    /// The most in one of the steps after the first.
    pub(super) largest_later_step_bytes: u64,
}

/// What is asked of all nodes alike: the bytes of each shard and the limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes<'a> {
    /// Bytes in the cache and to download.
    pub(super) raw: &'a [u64],
    pub(super) stored: &'a [u64],
    /// Bytes that the cache may hold.
    pub(super) limit: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Node<'a> {
    sizes: Sizes<'a>,
    /// Batches in the window that need each shard.
    wanted: Vec<u32>,
    /// When each shard was first downloaded and last used.
    first: Vec<u64>,
    last: Vec<u64>,
    /// Bytes of the shards in the window.
    window_bytes: u64,
    /// A cache without a limit: shards that were needed and are not in the window.
    unlimited: Recency,
    limited: Option<Limited>,
    pub(super) downloads: Downloads,
    pub(super) timeline: Timeline,
    /// Bytes downloaded in the current step.
    step_bytes: u64,
    /// The largest window, and the limit without re-downloads so far.
    pub(super) largest_window_bytes: u64,
    no_redownload_bytes: u64,
}

/// A cache with a limit.
#[derive(Debug)]
struct Limited {
    limit: u64,
    present: Vec<bool>,
    /// Shards that are there and are not in the window.
    idle: Recency,
    bytes: u64,
    largest_bytes: u64,
    exceeded: bool,
    steps_exceeded: u64,
}

impl<'a> Node<'a> {
    pub(super) fn new(sizes: Sizes<'a>, timeline: Timeline) -> Self {
        let shards = sizes.raw.len();
        Self {
            sizes,
            wanted: vec![0; shards],
            first: vec![NEVER; shards],
            last: vec![NEVER; shards],
            window_bytes: 0,
            unlimited: Recency::new(shards),
            limited: sizes.limit.map(|limit| Limited::new(limit, shards)),
            downloads: Downloads::default(),
            timeline,
            step_bytes: 0,
            largest_window_bytes: 0,
            no_redownload_bytes: 0,
        }
    }

    /// A batch comes into the window at `step`. `shards` are those that it needs, each once.
    pub(super) fn enter(&mut self, step: u64, shards: &[u32]) {
        // Those that are there are kept before room is made for the others.
        let mut oldest = None;
        for &shard in shards.iter().filter(|shard| self.wanted[**shard as usize] == 0) {
            if let Some(slot) = self.unlimited.slot(shard) {
                oldest = Some(oldest.map_or(slot, |oldest: u32| oldest.min(slot)));
            }
            if let Some(limited) = &mut self.limited {
                limited.idle.remove(shard);
            }
        }
        if let Some(slot) = oldest {
            let since = self.window_bytes + self.unlimited.bytes_from(slot);
            self.no_redownload_bytes = self.no_redownload_bytes.max(since);
        }
        for &shard in shards {
            self.wanted[shard as usize] += 1;
            if self.wanted[shard as usize] == 1 {
                self.want(step, shard);
            }
        }
        self.largest_window_bytes = self.largest_window_bytes.max(self.window_bytes);
    }

    /// A shard comes into the window.
    fn want(&mut self, step: u64, shard: u32) {
        let index = shard as usize;
        let bytes = self.sizes.raw[index];
        self.window_bytes += bytes;
        self.unlimited.remove(shard);
        let before = self.first[index] != NEVER;
        if !before {
            self.first[index] = step;
        }
        let download = match &mut self.limited {
            Some(limited) => limited.bring(shard, self.sizes.raw),
            None => !before,
        };
        if download {
            let stored = self.sizes.stored[index];
            self.step_bytes += stored;
            self.downloads.shards += 1;
            self.downloads.bytes += stored;
            if before {
                self.downloads.again_shards += 1;
                self.downloads.again_bytes += stored;
            }
        }
    }

    /// The batch that [`enter`](Self::enter)ed at step 0 first is what the first step waits for.
    pub(super) fn mark_first_batch(&mut self) {
        self.downloads.first_batch_bytes = self.step_bytes;
    }

    /// The oldest batch in the window is served at `step`, which ends with it.
    pub(super) fn leave(&mut self, step: u64, shards: &[u32]) {
        for &shard in shards {
            let index = shard as usize;
            self.last[index] = step;
            self.wanted[index] -= 1;
            if self.wanted[index] == 0 {
                self.window_bytes -= self.sizes.raw[index];
                self.unlimited.push(shard, self.sizes.raw[index]);
                if let Some(limited) = &mut self.limited {
                    limited.idle.push(shard, self.sizes.raw[index]);
                }
            }
        }
        if let Some(limited) = &mut self.limited {
            limited.steps_exceeded += u64::from(std::mem::take(&mut limited.exceeded));
        }
        if step == 0 {
            self.downloads.first_step_bytes = self.step_bytes;
        } else {
            let largest = &mut self.downloads.largest_later_step_bytes;
            *largest = (*largest).max(self.step_bytes);
        }
        self.timeline.downloaded(step, std::mem::take(&mut self.step_bytes));
    }

    /// The smallest limit of this cache with which nothing is downloaded twice.
    pub(super) fn no_redownload_bytes(&self) -> u64 {
        self.no_redownload_bytes.max(self.largest_window_bytes)
    }

    /// The most that the cache held, and the steps in which a download went beyond the limit.
    pub(super) fn under_the_limit(&self) -> Option<(u64, u64)> {
        self.limited.as_ref().map(|limited| (limited.largest_bytes, limited.steps_exceeded))
    }

    /// Completes the timeline with the bytes needed in each step. Returns the most of them.
    pub(super) fn finish(&mut self) -> u64 {
        let mut changes: Vec<(u64, bool, u64)> = Vec::new();
        for ((&first, &last), &raw) in self.first.iter().zip(&self.last).zip(self.sizes.raw) {
            if first != NEVER {
                changes.extend([(first, true, raw), (last + 1, false, raw)]);
            }
        }
        // What ends with one step makes room before the next one's begin.
        changes.sort_unstable();
        let (mut needed, mut most) = (0, 0);
        let mut since = 0;
        for (step, begins, raw) in changes {
            if step > since {
                self.timeline.needed(since..step, needed);
                since = step;
            }
            needed = if begins { needed + raw } else { needed - raw };
            most = most.max(needed);
        }
        most
    }
}

impl Limited {
    fn new(limit: u64, shards: usize) -> Self {
        Self {
            limit,
            present: vec![false; shards],
            idle: Recency::new(shards),
            bytes: 0,
            largest_bytes: 0,
            exceeded: false,
            steps_exceeded: 0,
        }
    }

    /// Sees to it that a shard is there. Returns whether it had to be downloaded.
    fn bring(&mut self, shard: u32, raw: &[u64]) -> bool {
        if self.present[shard as usize] {
            return false;
        }
        let bytes = raw[shard as usize];
        while self.bytes.saturating_add(bytes) > self.limit {
            let Some(oldest) = self.idle.pop_oldest() else {
                self.exceeded = true;
                break;
            };
            self.present[oldest as usize] = false;
            self.bytes -= raw[oldest as usize];
        }
        self.present[shard as usize] = true;
        self.bytes += bytes;
        self.largest_bytes = self.largest_bytes.max(self.bytes);
        true
    }
}
