//! The local cache of a dataset: from a shard's number to its checked bytes in memory.
//!
//! # What is on the disk
//! A stream with a remote and a local folder mirrors the remote there: `index.json` and the raw
//! shards under their own names (and the compressed ones with `keep_zip`). Files appear whole:
//! they are written under a unique temporary name, checked, synced and renamed, and from then on
//! only ever unlinked. A stream without a remote, or whose remote is its local folder, is read in
//! place: nothing is written or removed there. If a raw file of a shard is missing in such a dataset,
//! raw shards go to a private folder below the system's temporary one, which is removed with the
//! dataset.
//! A network remote without a local folder has one below the user's cache folder: [`UserCache`].
//!
//! # What is trusted
//! A file's size is compared with the index whenever it is mapped, all offsets are checked, and
//! its hash, if the index has one, once. A damaged cached file is removed and fetched again; a
//! download that is damaged twice is an error that names it. A cache whose index is not the
//! remote's is refused, never mixed; if the remote cannot be reached, the cached index is used
//! with a warning. The first process that uses a cache compares the indexes; those that come within a
//! minute of it take the cached one, and later ones compare again.
//!
//! # What comes first
//! The indexes of all streams are fetched at once, and then the first shards: which ones these are
//! follows from the sizes in the indexes. A compressed shard is unpacked from its file piece by piece,
//! so that it is not in memory as a whole (but for Snappy, and for zstd from level 20 on). No more are
//! unpacked at a time than there are processors, while the disk writes the others. Of a large shard
//! that is neither compressed nor has a hash to be checked, the first samples are read by ranges
//! before it arrives, for batches of up to 64 and where there is no limit to the cache.
//!
//! # Who waits for whom
//! Within a process, the first thread that needs a shard brings it and the others wait for it.
//! Between processes, a lock file beside the shard does the same; its holder's death releases it.
//! Every wait has a time limit.
//!
//! # Eviction
//! With a limit, the shards used least recently are unlinked before a new one is fetched. A shard
//! that any sample or any process still refers to stays. Shards that are on their way count as well,
//! and no more than one shard goes beyond the limit: who needs another one waits until one is no
//! longer in use. With a limit no shard stays mapped that nobody refers to, so that other processes
//! may evict it.
//!
//! Unix only: `flock`, and files that live on after `unlink`.

mod counters;
mod early;
mod index;
mod lock;
mod place;
mod publish;
mod room;
mod turns;
mod user;

use std::collections::{HashMap, HashSet, VecDeque};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::error::{Error, ErrorKind, Result};
use crate::format::{Index, IndexOptions, ShardFile, ShardInfo};
use crate::shard::{Shard, ShardOptions, missing};
use crate::storage::{RemoteOptions, Stop};
pub use counters::CacheStats;
use counters::Counters;
pub(crate) use early::SampleAt;
use early::{Early, Gate};
use lock::FileLock;
pub(crate) use lock::is_still_at;
use place::RawFiles;
pub(crate) use place::{Addresses, Place};
use publish::PartFile;
pub(crate) use room::Pin;
use room::{Need, Pinned};
use turns::Turns;
pub use user::{CachedDataset, UserCache};

/// Shards that stay mapped although no sample refers to them.
const MAX_IDLE_MAPPED: usize = 256;

/// What the cache is allowed to do.
#[derive(Debug, Clone)]
pub(crate) struct CacheOptions {
    /// Bytes of shards, over all streams.
    pub(crate) limit: Option<u64>,
    pub(crate) validate_hash: bool,
    pub(crate) keep_zip: bool,
    /// Read files into memory instead of mapping them.
    pub(crate) copy: bool,
    /// What the indexes may hold.
    pub(crate) index: IndexOptions,
    pub(crate) remote: RemoteOptions,
}

/// All shards of a dataset, numbered through its streams.
#[derive(Debug)]
pub(crate) struct ShardCache {
    places: Vec<Place>,
    slots: Vec<Slot>,
    options: CacheOptions,
    may_evict: bool,
    /// Shards in the order in which they were mapped, with the time.
    idle: Mutex<VecDeque<(usize, u64)>>,
    /// Held while room is made and taken, so that two threads do not take the same room.
    making_room: Mutex<()>,
    /// Shards that are about to be opened ahead of their use, and those that were.
    reserved: Mutex<HashSet<usize>>,
    pins: Mutex<Vec<Weak<Pinned>>>,
    /// Made when first needed.
    names: OnceLock<HashMap<(usize, PathBuf), usize>>,
    counters: Counters,
    /// Shards of which samples may still be read before they arrive.
    early_shards: AtomicUsize,
    first_early: Gate,
    /// Held while samples are read early.
    early_turn: Mutex<()>,
    unpacking: Turns,
}

#[derive(Debug)]
struct Slot {
    place: usize,
    info: ShardInfo,
    state: Mutex<SlotState>,
    brought: Condvar,
    /// Nanoseconds since 1970; 0 if not used yet.
    last_used: AtomicU64,
    early: Early,
}

#[derive(Debug, Default)]
struct SlotState {
    /// Keeps an idle shard mapped.
    kept: Option<Arc<Shard>>,
    /// Finds a shard that samples still refer to.
    seen: Weak<Shard>,
    /// A thread is bringing the shard.
    busy: bool,
    /// The file whose hash was checked, by its inode.
    verified: Option<u64>,
}

impl SlotState {
    fn mapped(&self) -> Option<Arc<Shard>> {
        self.kept.clone().or_else(|| self.seen.upgrade())
    }
}

impl ShardCache {
    /// A cache of the shards of all `streams`, in order.
    pub(crate) fn new(streams: Vec<(Place, Index)>, options: CacheOptions) -> Result<Self> {
        let (mut places, mut slots) = (Vec::new(), Vec::new());
        for (place, index) in streams {
            for info in index.shards {
                slots.push(Slot {
                    place: places.len(),
                    early: Early::of(&info, options.validate_hash),
                    info,
                    state: Mutex::default(),
                    brought: Condvar::new(),
                    last_used: AtomicU64::new(0),
                });
            }
            places.push(place);
        }
        let early = slots.iter().filter(|slot: &&Slot| !slot.early.is_over()).count();
        let mut cache = Self {
            early_shards: AtomicUsize::new(early),
            first_early: Gate::default(),
            early_turn: Mutex::default(),
            unpacking: Turns::one_for_each_processor(),
            places,
            slots,
            options,
            may_evict: false,
            idle: Mutex::default(),
            making_room: Mutex::default(),
            reserved: Mutex::default(),
            pins: Mutex::default(),
            names: OnceLock::new(),
            counters: Counters::default(),
        };
        cache.may_evict = cache.options.limit.is_some() && !cache.is_all_in_place();
        cache.check_limit()?;
        Ok(cache)
    }

    /// What the index says of shard `shard`.
    pub(crate) fn info(&self, shard: usize) -> &ShardInfo {
        &self.slots[shard].info
    }

    /// How messages call the dataset that the shard belongs to.
    pub(crate) fn shown(&self, shard: usize) -> &str {
        self.places[self.slots[shard].place].shown()
    }

    /// What has been fetched so far, and how long it was waited for.
    pub(crate) fn stats(&self) -> CacheStats {
        self.counters.stats()
    }

    /// Whether there is nothing to fetch or decompress for any shard.
    pub(crate) fn is_all_in_place(&self) -> bool {
        self.slots
            .iter()
            .all(|slot| !self.places[slot.place].is_cache() && slot.info.zip_data.is_none())
    }

    /// Whether there is a limit that shards may have to go for.
    pub(crate) fn may_evict(&self) -> bool {
        self.may_evict
    }

    /// The shard, mapped; brought into the cache first if need be.
    ///
    /// # Errors
    /// Names the dataset and the shard.
    pub(crate) fn open(&self, shard: usize, stop: &Stop) -> Result<Arc<Shard>> {
        let opened = self.open_for(shard, Need::Now, stop)?;
        opened.ok_or_else(|| missing(Path::new(self.info(shard).raw_data.basename.as_str())))
    }

    /// Brings a shard ahead of its use and pins it, unless the cache has no room for it now.
    pub(crate) fn open_ahead(&self, shard: usize, stop: &Stop) -> Result<Option<Pin>> {
        // Reserved until the shard is open, and so in use.
        let Some(_reserved) = self.reserve_ahead(shard) else { return Ok(None) };
        self.let_early_pass();
        Ok(self.open_for(shard, Need::Ahead, stop)?.map(|opened| self.pin(opened)))
    }

    fn open_for(&self, shard: usize, need: Need, stop: &Stop) -> Result<Option<Arc<Shard>>> {
        let slot = &self.slots[shard];
        let now = now();
        slot.last_used.store(now, Ordering::Relaxed);
        let mut waiting = None;
        {
            let mut started = None;
            let mut state = relock(&slot.state);
            loop {
                if let Some(mapped) = state.mapped() {
                    return Ok(Some(mapped));
                }
                waiting = waiting.or_else(|| self.counters.wait(need));
                if !state.busy {
                    state.busy = true;
                    break;
                }
                stop.check()?;
                if started.get_or_insert_with(Instant::now).elapsed() > lock_limit(&self.options) {
                    return Err(self.waited_for_a_thread(shard));
                }
                let pause = Duration::from_millis(20);
                state =
                    slot.brought.wait_timeout(state, pause).unwrap_or_else(|e| e.into_inner()).0;
            }
        }
        // Ends `busy` whatever happens, so that no other thread waits for one that is gone.
        let bringing = Bringing(slot);
        let mapped = self
            .bring(shard, need, stop)
            .map_err(|e| e.in_shard(&slot.info.raw_data.basename).in_dataset(self.shown(shard)))?;
        let Some(mapped) = mapped else { return Ok(None) };
        let mapped = Arc::new(mapped.of_dataset(self.shown(shard)));
        {
            let mut state = relock(&slot.state);
            state.seen = Arc::downgrade(&mapped);
            // Where shards may have to go, none stays mapped that nobody uses.
            state.kept = (!self.may_evict).then(|| Arc::clone(&mapped));
        }
        drop((bringing, waiting));
        if !self.may_evict {
            self.bound_idle(shard, now);
        }
        Ok(Some(mapped))
    }

    /// The shard's file, fetched if need be; `None` if there is no room for one that is not needed yet.
    fn bring(&self, shard: usize, need: Need, stop: &Stop) -> Result<Option<Shard>> {
        let slot = &self.slots[shard];
        let files = self.places[slot.place].raw_files(&slot.info)?;
        if !files.cached {
            let mapped = self.map(slot, &files)?;
            return mapped.ok_or_else(|| missing(files.first_missing())).map(Some);
        }
        // More than once only if another process evicts the shard before it is mapped here.
        for _ in 0..3 {
            if let Some(mapped) = self.map_undamaged(slot, &files)? {
                self.counters.found();
                return Ok(Some(mapped));
            }
            if let Some(folder) = files.data.parent() {
                std::fs::create_dir_all(folder)
                    .map_err(|e| Error::io(e, format!("cannot create {}", folder.display())))?;
            }
            let _lock =
                FileLock::acquire(&lock_path(&files.data), lock_limit(&self.options), stop)?;
            // Another process may have brought it while this one waited.
            if let Some(mapped) = self.map_undamaged(slot, &files)? {
                self.counters.found();
                return Ok(Some(mapped));
            }
            if !self.fetch(shard, &files, need, stop)? {
                return Ok(None);
            }
            relock(&slot.state).verified = inode(&files.data);
            if let Some(mapped) = self.map(slot, &files)? {
                return Ok(Some(mapped));
            }
        }
        Err(Error::new(
            ErrorKind::Io,
            format!("{} is evicted by another process before it can be read", files.data.display()),
            "raise cache_limit in all processes that share the cache",
        ))
    }

    /// The cached shard; `None` if it is not there or was damaged and is now removed.
    fn map_undamaged(&self, slot: &Slot, files: &RawFiles) -> Result<Option<Shard>> {
        match self.map(slot, files) {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                tracing::warn!(%error, "fetching the shard again");
                for path in files.paths() {
                    match std::fs::remove_file(path) {
                        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                            return Err(Error::io(e, format!("cannot remove {}", path.display())));
                        }
                        _ => {}
                    }
                }
                Ok(None)
            }
            mapped => mapped,
        }
    }

    fn map(&self, slot: &Slot, files: &RawFiles) -> Result<Option<Shard>> {
        let inode = inode(&files.data);
        let verified = inode.is_some() && relock(&slot.state).verified == inode;
        let mut options = ShardOptions::default();
        options.validate_hash = self.options.validate_hash && !verified;
        options.copy = self.options.copy;
        let meta = files.meta.as_deref();
        let mapped = Shard::open_raw(&files.data, meta, &slot.info, options, files.cached)?;
        if mapped.is_some() {
            relock(&slot.state).verified = inode;
            if files.cached {
                // The time of last use, for processes that share the cache.
                let file = crate::regular::open(&files.data);
                let _ = file.and_then(|file| file.set_modified(SystemTime::now()));
            }
        }
        Ok(mapped)
    }

    /// Puts the shard's raw files into place, downloading a second time if the first is damaged.
    /// False if there is no room for a shard that is not needed yet.
    fn fetch(&self, shard: usize, files: &RawFiles, need: Need, stop: &Stop) -> Result<bool> {
        // What is read in place stays as it is, so a second look finds the same damage.
        let may_differ = self.places[self.slots[shard].place].is_cache();
        match self.fetch_once(shard, files, need, stop) {
            Err(error) if error.kind() == ErrorKind::Corrupt && may_differ => {
                tracing::warn!(%error, "fetching the shard a second time");
                self.fetch_once(shard, files, need, stop)
            }
            fetched => fetched,
        }
    }

    fn fetch_once(&self, shard: usize, files: &RawFiles, need: Need, stop: &Stop) -> Result<bool> {
        let slot = &self.slots[shard];
        let Some(mut parts) = self.take_room(shard, files, need, stop)? else { return Ok(false) };
        for (file, part) in slot.info.files().zip(&mut parts) {
            self.fetch_file(slot, file, part, stop)?;
        }
        for (raw, zip) in parts {
            let kept = zip.filter(|_| self.options.keep_zip);
            kept.map_or(Ok(()), PartFile::publish)?;
            raw.publish()?;
        }
        self.counters.fetched();
        Ok(true)
    }

    fn fetch_file(
        &self,
        slot: &Slot,
        file: ShardFile<'_>,
        (raw, part): &mut (PartFile, Option<PartFile>),
        stop: &Stop,
    ) -> Result<()> {
        let place = &self.places[slot.place];
        // Copied beside the unpacked one, because what lies in a private folder may be removed.
        if let Some(bytes) = place.open_served_raw(file, &self.options)? {
            raw.append(&bytes)?;
            return place.check_raw(file.raw, raw, &self.options);
        }
        let (Some(zip), Some(compression)) = (file.zip, slot.info.compression) else {
            place.download_raw(file.raw, raw, &self.options, stop)?;
            self.counters.downloaded(file.raw.bytes);
            return Ok(());
        };
        let (zipped, downloaded) = place.open_zip(zip, part.as_mut(), &self.options, stop)?;
        if downloaded {
            self.counters.downloaded(zip.bytes);
        } else {
            *part = None;
        }
        let _turn = self.unpacking.wait(stop)?;
        compression.decompress_to(&zipped, file.raw.bytes, |piece| raw.append(piece))?;
        place.check_raw(file.raw, raw, &self.options)
    }

    /// Unmaps shards that have been idle longest, beyond the number that may stay mapped.
    fn bound_idle(&self, shard: usize, now: u64) {
        let mut idle = relock(&self.idle);
        idle.push_back((shard, now));
        let mut looks = idle.len();
        while idle.len() > MAX_IDLE_MAPPED && looks > 0 {
            looks -= 1;
            let Some((oldest, since)) = idle.pop_front() else { return };
            let used = self.slots[oldest].last_used.load(Ordering::Relaxed);
            if used > since && looks > 0 {
                idle.push_back((oldest, used));
            } else {
                relock(&self.slots[oldest].state).kept = None;
            }
        }
    }

    fn waited_for_a_thread(&self, shard: usize) -> Error {
        Error::new(
            ErrorKind::Timeout,
            format!(
                "waited {:?} for another thread of this process to bring the shard",
                lock_limit(&self.options)
            ),
            "check the network and the disk, or raise download_timeout",
        )
        .in_shard(&self.info(shard).raw_data.basename)
        .in_dataset(self.shown(shard))
    }
}

struct Bringing<'a>(&'a Slot);

impl Drop for Bringing<'_> {
    fn drop(&mut self) {
        relock(&self.0.state).busy = false;
        self.0.brought.notify_all();
    }
}

/// Every state behind these mutexes is complete at each unlock, so a panic elsewhere spoils none.
pub(crate) fn relock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Another holder may be downloading at a crawl, yet not for ever.
fn lock_limit(options: &CacheOptions) -> Duration {
    lock_limit_of(&options.remote)
}

fn lock_limit_of(options: &RemoteOptions) -> Duration {
    options.timeout.saturating_mul(10)
}

/// The lock file of a file: `.NAME.lock` beside it.
fn lock_path(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.lock"))
}

fn inode(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|m| m.ino())
}

fn now() -> u64 {
    nanoseconds(SystemTime::now())
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
