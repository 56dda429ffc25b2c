//! Room for shards: what a limit allows, and which shards go.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::lock::FileLock;
use super::{ShardCache, Slot, lock_limit, nanoseconds, relock};
use crate::error::{Error, Result};
use crate::regular;
use crate::storage::Stop;

/// A cached shard that could go.
struct Candidate {
    shard: usize,
    bytes: u64,
    /// Nanoseconds since 1970, by this process or another.
    last_used: u64,
}

impl ShardCache {
    /// Refuses a limit that some shard does not fit in.
    pub(super) fn check_limit(&self) -> Result<()> {
        let Some(limit) = self.options.limit else { return Ok(()) };
        let largest = self.slots.iter().max_by_key(|slot| self.bytes_when_cached(slot));
        let Some(largest) = largest.filter(|slot| self.bytes_when_cached(slot) > limit) else {
            return Ok(());
        };
        Err(Error::invalid(
            format!(
                "cache_limit is {limit} bytes, but this shard alone needs {}",
                self.bytes_when_cached(largest)
            ),
            "raise cache_limit, best to several times the largest shard",
        )
        .in_shard(&largest.info.raw_data.basename)
        .in_dataset(self.places[largest.place].shown()))
    }

    /// Reserves room to fetch the shard ahead of its use, if that leaves room for two more of the
    /// largest: what is in use cannot go, and readers must be able to go on.
    pub(super) fn reserve_ahead(&self, shard: usize) -> Option<Reserved<'_>> {
        let mut reserved = relock(&self.reserved);
        if let Some(limit) = self.options.limit {
            let bytes = |i: usize| self.bytes_when_cached(&self.slots[i]);
            let is_pinned = |i: &usize| reserved.contains(i) || in_use(&self.slots[*i]);
            let pinned: u64 =
                (0..self.slots.len()).filter(|i| *i != shard && is_pinned(i)).map(bytes).sum();
            let largest = (0..self.slots.len()).map(bytes).max().unwrap_or(0);
            if pinned.saturating_add(bytes(shard)).saturating_add(2 * largest) > limit {
                return None;
            }
        }
        reserved.insert(shard);
        Some(Reserved { cache: self, shard })
    }

    /// Evicts until `incoming` more bytes fit in the limit, then publishes them.
    pub(super) fn publish_in_room(
        &self,
        shard: usize,
        incoming: u64,
        publish: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let Some(limit) = self.options.limit else { return publish() };
        let _one_thread = relock(&self.publishing);
        let _one_process = self.room_lock(shard)?;
        self.make_room(shard, incoming, limit)?;
        publish()
    }

    /// The lock between processes that make room in the same cache.
    fn room_lock(&self, shard: usize) -> Result<Option<FileLock>> {
        let slot = &self.slots[shard];
        let files = self.places[slot.place].raw_files(&slot.info)?;
        if !files.cached {
            return Ok(None);
        }
        let lock = files.data.with_file_name(".room.lock");
        FileLock::acquire(&lock, lock_limit(&self.options), &Stop::new()).map(Some)
    }

    fn make_room(&self, shard: usize, incoming: u64, limit: u64) -> Result<()> {
        let mut cached = Vec::new();
        for (other, slot) in self.slots.iter().enumerate() {
            if let Some(candidate) = self.candidate(other, slot)? {
                cached.push(candidate);
            }
        }
        let mut usage = incoming + cached.iter().map(|c| c.bytes).sum::<u64>();
        cached.sort_by_key(|c| c.last_used);
        for candidate in cached {
            if usage <= limit {
                return Ok(());
            }
            if candidate.shard != shard && self.evict(candidate.shard)? {
                usage -= candidate.bytes;
            }
        }
        if usage > limit {
            tracing::warn!(
                usage,
                limit,
                "every cached shard is in use, so the cache exceeds cache_limit for a while"
            );
        }
        Ok(())
    }

    fn candidate(&self, shard: usize, slot: &Slot) -> Result<Option<Candidate>> {
        let Some(paths) = self.cached_paths(slot)? else { return Ok(None) };
        let mut candidate =
            Candidate { shard, bytes: 0, last_used: slot.last_used.load(Ordering::Relaxed) };
        for path in paths {
            let Ok(metadata) = path.metadata() else { continue };
            candidate.bytes += metadata.len();
            let touched = metadata.modified().map_or(0, nanoseconds);
            candidate.last_used = candidate.last_used.max(touched);
        }
        Ok((candidate.bytes > 0).then_some(candidate))
    }

    /// Unlinks a shard's files unless this process or another one uses it.
    fn evict(&self, shard: usize) -> Result<bool> {
        let slot = &self.slots[shard];
        let Some(paths) = self.cached_paths(slot)? else { return Ok(false) };
        // Held until the file is gone, so that no thread maps it meanwhile.
        let mut state = relock(&slot.state);
        if state.busy || is_shared(state.kept.as_ref(), state.seen.strong_count()) {
            return Ok(false);
        }
        state.kept = None;
        // Kept open until the end: closing it releases the lock.
        let file = regular::open(&paths[0]);
        if file.as_ref().is_ok_and(|file| file.try_lock().is_err()) {
            return Ok(false);
        }
        for path in &paths {
            match std::fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io(e, format!("cannot remove {}", path.display())));
                }
                _ => tracing::debug!(file = %path.display(), "evicted"),
            }
        }
        state.verified = None;
        Ok(true)
    }

    /// All files that the shard may have in a cache, the raw data first; `None` if it is read in
    /// place.
    fn cached_paths(&self, slot: &Slot) -> Result<Option<Vec<PathBuf>>> {
        let place = &self.places[slot.place];
        let files = place.raw_files(&slot.info)?;
        if !files.cached {
            return Ok(None);
        }
        let mut paths: Vec<_> = files.paths().map(Path::to_path_buf).collect();
        for zip in slot.info.files().filter_map(|file| file.zip) {
            paths.extend(place.zip_path(zip)?);
        }
        Ok(Some(paths))
    }

    /// The most bytes that the shard takes up in a cache; 0 if it is read in place.
    fn bytes_when_cached(&self, slot: &Slot) -> u64 {
        let raw = slot.info.raw_bytes();
        let zip = slot.info.compression.map(|_| slot.info.stored_bytes());
        match (self.places[slot.place].is_cache(), zip) {
            (false, None) => 0,
            (false, Some(_)) => raw,
            (true, zip) => raw.saturating_add(zip.filter(|_| self.options.keep_zip).unwrap_or(0)),
        }
    }
}

/// Room for a shard that is about to be fetched.
pub(super) struct Reserved<'a> {
    cache: &'a ShardCache,
    shard: usize,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        relock(&self.cache.reserved).remove(&self.shard);
    }
}

fn in_use(slot: &Slot) -> bool {
    let state = relock(&slot.state);
    state.busy || is_shared(state.kept.as_ref(), state.seen.strong_count())
}

/// Whether anything but the cache itself refers to the shard.
fn is_shared(kept: Option<&Arc<super::Shard>>, strong: usize) -> bool {
    strong > usize::from(kept.is_some())
}
