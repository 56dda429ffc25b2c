//! Room for shards: what a limit allows, which shards go, and who waits.
//!
//! Room is taken before a shard is fetched: its temporary files are made under the room lock, and
//! their names say how many bytes they will have. So whoever looks at the folder, in whatever
//! process, sees what is there and what is on its way, and what a killed process had reserved goes
//! with its temporary files.
//!
//! A shard that is needed at once may go beyond the limit by its own size, and by that of the
//! compressed file that is there until it is unpacked, if the cache is within the limit before;
//! otherwise it waits until a shard is no longer in use. A shard that is fetched ahead never goes
//! beyond the limit, and lets go of its room if one that is needed at once has to wait.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::lock::FileLock;
use super::place::{Place, RawFiles};
use super::publish::{PartFile, remove_abandoned, reserved_bytes};
use super::{ShardCache, Slot, lock_limit, nanoseconds, relock};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{FileInfo, ShardFile};
use crate::regular;
use crate::shard::Shard;
use crate::storage::Stop;

/// How often a wait for room looks again.
const PAUSE: Duration = Duration::from_millis(10);

/// When a shard is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Somebody waits for it.
    Now,
    /// Some time later.
    Ahead,
}

/// Keeps a shard in the cache until this is dropped, or until another shard needs the room at once.
#[derive(Debug, Clone)]
pub(crate) struct Pin(#[expect(dead_code, reason = "held")] Arc<Pinned>);

#[derive(Debug)]
pub(super) struct Pinned(Mutex<Option<Arc<Shard>>>);

/// The temporary files of a shard, in the order of its files: the raw one, and the compressed one
/// that it is unpacked from.
pub(super) type Parts = Vec<(PartFile, Option<PartFile>)>;

/// What lies in the caches of a dataset and is on its way there.
#[derive(Default)]
struct Usage {
    shards: Vec<Candidate>,
    reserved: u64,
}

/// A cached shard that could go.
#[derive(Clone, Copy, PartialEq, Eq)]
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
        let needs = |slot: &Slot| self.bytes_when_cached(slot).max(self.bytes_meanwhile(slot));
        let largest = self.slots.iter().max_by_key(|slot| needs(slot));
        let Some(largest) = largest.filter(|slot| needs(slot) > limit) else { return Ok(()) };
        Err(Error::invalid(
            format!("cache_limit is {limit} bytes, but this shard alone needs {}", needs(largest)),
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

    /// Keeps a shard from being evicted.
    pub(super) fn pin(&self, shard: Arc<Shard>) -> Pin {
        let pinned = Arc::new(Pinned(Mutex::new(Some(shard))));
        let mut pins = relock(&self.pins);
        pins.retain(|pin| pin.strong_count() > 0);
        pins.push(Arc::downgrade(&pinned));
        Pin(pinned)
    }

    /// Lets go of all shards that were fetched ahead.
    fn unpin(&self) {
        for pinned in relock(&self.pins).drain(..).filter_map(|pin: Weak<Pinned>| pin.upgrade()) {
            *relock(&pinned.0) = None;
        }
    }

    /// The temporary files for a shard, once there is room for them; `None` if there is none for one
    /// that is fetched ahead.
    ///
    /// # Errors
    /// [`Timeout`](ErrorKind::Timeout) if nothing in the cache changes for too long.
    pub(super) fn take_room(
        &self,
        shard: usize,
        files: &RawFiles,
        need: Need,
        stop: &Stop,
    ) -> Result<Option<Parts>> {
        let Some(limit) = self.options.limit else { return self.parts(shard, files).map(Some) };
        let (mut before, mut since) = (Vec::new(), Instant::now());
        loop {
            stop.check()?;
            let in_use = {
                let _one_thread = relock(&self.making_room);
                let _one_process = self.room_lock(files, stop)?;
                match self.make_room(shard, need, limit)? {
                    None => return self.parts(shard, files).map(Some),
                    Some(_) if need == Need::Ahead => return Ok(None),
                    Some(in_use) => in_use,
                }
            };
            self.unpin();
            let shards: Vec<usize> =
                in_use.shards.iter().map(|candidate| candidate.shard).collect();
            if shards != before {
                (before, since) = (shards, Instant::now());
            }
            if since.elapsed() > lock_limit(&self.options) {
                return Err(self.no_room(shard, limit, before.len()));
            }
            thread::sleep(PAUSE);
        }
    }

    fn parts(&self, shard: usize, files: &RawFiles) -> Result<Parts> {
        let slot = &self.slots[shard];
        let place = &self.places[slot.place];
        let part = |(file, path): (ShardFile<'_>, &Path)| {
            let raw = PartFile::create(path, file.raw.bytes)?;
            let Some(zip) = file.zip else { return Ok((raw, None)) };
            // In the place of a damaged one it takes up no more room than that.
            let zip = place.zip_path(zip)?.map(|path| {
                let bytes = if path.exists() { 0 } else { zip.bytes };
                PartFile::create(&path, bytes)
            });
            Ok((raw, zip.transpose()?))
        };
        slot.info.files().zip(files.paths()).map(part).collect()
    }

    fn no_room(&self, shard: usize, limit: u64, in_use: usize) -> Error {
        Error::new(
            ErrorKind::Timeout,
            format!(
                "waited {:?} for room in the cache: all of its {in_use} shards are in use, which \
                 take up the {limit} bytes of cache_limit",
                lock_limit(&self.options)
            ),
            "raise cache_limit, or keep no samples of so many shards at a time",
        )
        .in_shard(&self.info(shard).raw_data.basename)
        .in_dataset(self.shown(shard))
    }

    /// The lock between processes that take room in the same cache.
    fn room_lock(&self, files: &RawFiles, stop: &Stop) -> Result<FileLock> {
        // All streams share the limit, so the first cache of the dataset has the lock for all.
        let mut folders = self.places.iter().flat_map(Place::cache_folders);
        let first = folders.next().map(|(root, _)| root);
        let folder = first.or_else(|| files.data.parent().map(Path::to_path_buf));
        let lock = folder.unwrap_or_default().join(".room.lock");
        FileLock::acquire(&lock, lock_limit(&self.options), stop)
    }

    /// Evicts until the shard fits in the limit, or may go beyond it. Else returns what is left.
    fn make_room(&self, shard: usize, need: Need, limit: u64) -> Result<Option<Usage>> {
        let slot = &self.slots[shard];
        let meanwhile = self.bytes_meanwhile(slot);
        let incoming = self.bytes_when_cached(slot).saturating_add(meanwhile);
        let mut usage = self.usage()?;
        usage.shards.sort_by_key(|candidate| candidate.last_used);
        let mut bytes = usage.bytes();
        let mut left = Vec::with_capacity(usage.shards.len());
        for candidate in usage.shards {
            let fits = bytes.saturating_add(incoming) <= limit;
            if !fits && candidate.shard != shard && self.evict(candidate)? {
                bytes -= candidate.bytes;
            } else {
                left.push(candidate);
            }
        }
        // By what stays: what is there only meanwhile has to fit.
        let may_exceed = need == Need::Now && bytes.saturating_add(meanwhile) <= limit;
        if may_exceed || bytes.saturating_add(incoming) <= limit {
            return Ok(None);
        }
        Ok(Some(Usage { shards: left, ..usage }))
    }

    /// Looks at the folders of all caches: what is there counts, whoever brought it.
    fn usage(&self) -> Result<Usage> {
        let mut usage = Usage::default();
        let mut shards: HashMap<usize, Candidate> = HashMap::new();
        for (place, number) in self.places.iter().zip(0..) {
            for (root, folder) in place.cache_folders() {
                let folder_path = root.join(folder);
                let unreadable = |e| Error::io(e, format!("cannot list {}", folder_path.display()));
                let entries = match fs::read_dir(&folder_path) {
                    Ok(entries) => entries,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                    Err(e) => return Err(unreadable(e)),
                };
                for entry in entries {
                    let entry = entry.map_err(unreadable)?;
                    let Ok(name) = entry.file_name().into_string() else { continue };
                    if let Some(bytes) = reserved_bytes(&name) {
                        // Room that a killed process took is free.
                        if !remove_abandoned(&entry.path()) {
                            usage.reserved += bytes;
                        }
                        continue;
                    }
                    let Some(&shard) = self.names().get(&(number, folder.join(&name))) else {
                        continue;
                    };
                    // Evicted meanwhile.
                    let Ok(metadata) = entry.metadata() else { continue };
                    let used = self.slots[shard].last_used.load(Ordering::Relaxed);
                    let candidate = shards.entry(shard).or_insert(Candidate {
                        shard,
                        bytes: 0,
                        last_used: used,
                    });
                    candidate.bytes += metadata.len();
                    let touched = metadata.modified().map_or(0, nanoseconds);
                    candidate.last_used = candidate.last_used.max(touched);
                }
            }
        }
        usage.shards = shards.into_values().collect();
        Ok(usage)
    }

    /// Which shard each file of a cache belongs to, by its place and its path there.
    fn names(&self) -> &HashMap<(usize, PathBuf), usize> {
        self.names.get_or_init(|| {
            let of_slot = |(shard, slot): (usize, &Slot)| {
                let paths = slot.info.files().flat_map(|file| [Some(file.raw), file.zip]).flatten();
                let path = |file: &FileInfo| file.basename.join_to(Path::new(""));
                let entries = paths.map(|file| ((slot.place, path(file)), shard));
                entries.collect::<Vec<_>>()
            };
            self.slots.iter().enumerate().flat_map(of_slot).collect()
        })
    }

    /// Unlinks a shard's files unless this process or another one uses it.
    fn evict(&self, candidate: Candidate) -> Result<bool> {
        let slot = &self.slots[candidate.shard];
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
            match fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io(e, format!("cannot remove {}", path.display())));
                }
                _ => tracing::debug!(file = %path.display(), "evicted"),
            }
        }
        state.verified = None;
        self.counters.evicted(candidate.bytes);
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

    /// The bytes of compressed files that are there only until they are unpacked.
    fn bytes_meanwhile(&self, slot: &Slot) -> u64 {
        let is_kept = self.options.keep_zip || !self.places[slot.place].is_cache();
        slot.info.compression.filter(|_| !is_kept).map_or(0, |_| slot.info.stored_bytes())
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

impl Usage {
    fn bytes(&self) -> u64 {
        self.reserved + self.shards.iter().map(|candidate| candidate.bytes).sum::<u64>()
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
fn is_shared(kept: Option<&Arc<Shard>>, strong: usize) -> bool {
    strong > usize::from(kept.is_some())
}
