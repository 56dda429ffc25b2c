//! The local cache of a dataset: from a shard's number to its checked bytes in memory.
//!
//! # What is on the disk
//! A stream with a remote and a local folder mirrors the remote there: `index.json` and the raw
//! shards under their own names (and the compressed ones with `keep_zip`). Files appear whole:
//! they are written under a unique temporary name, checked, synced and renamed, and from then on
//! only ever unlinked. A stream without a remote, or whose remote is its local folder, is read in
//! place: nothing is written or removed there. If such a dataset holds compressed shards only, or
//! a network remote has no local folder, raw shards go to a private folder below the system's
//! temporary one, which is removed with the dataset.
//!
//! # What is trusted
//! A file's size is compared with the index whenever it is mapped, all offsets are checked, and
//! its hash, if the index has one, once. A damaged cached file is removed and fetched again; a
//! download that is damaged twice is an error that names it. A cache whose index is not the
//! remote's is refused, never mixed; if the remote cannot be reached, the cached index is used
//! with a warning.
//!
//! # Who waits for whom
//! Within a process, the first thread that needs a shard brings it and the others wait for it.
//! Between processes, a lock file beside the shard does the same; its holder's death releases it.
//! Every wait has a time limit.
//!
//! # Eviction
//! With a limit, the shards used least recently are unlinked before a new one is published. A
//! shard that any sample or any process still refers to stays. If everything that could go is in
//! use, the limit is exceeded with a warning, since waiting could last for ever.
//!
//! Unix only: `flock`, and files that live on after `unlink`.

mod lock;
mod place;
mod publish;
mod room;

use std::collections::{HashSet, VecDeque};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::error::{Error, ErrorKind, Result};
use crate::format::{Index, IndexOptions, ShardFile, ShardInfo};
use crate::shard::{Shard, ShardOptions, missing};
use crate::storage::{RemoteOptions, Stop};
use lock::FileLock;
use place::RawFiles;
pub(crate) use place::{Addresses, Place};
use publish::PartFile;

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
    /// Shards in the order in which they were mapped, with the time.
    idle: Mutex<VecDeque<(usize, u64)>>,
    /// Held while room is made and filled, so that two threads do not fill the same room.
    publishing: Mutex<()>,
    /// Shards that are about to be opened ahead of their use.
    reserved: Mutex<HashSet<usize>>,
}

#[derive(Debug)]
struct Slot {
    place: usize,
    info: ShardInfo,
    state: Mutex<SlotState>,
    brought: Condvar,
    /// Nanoseconds since 1970; 0 if not used yet.
    last_used: AtomicU64,
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

impl ShardCache {
    /// A cache of the shards of all `streams`, in order.
    pub(crate) fn new(streams: Vec<(Place, Index)>, options: CacheOptions) -> Result<Self> {
        let (mut places, mut slots) = (Vec::new(), Vec::new());
        for (place, index) in streams {
            for info in index.shards {
                slots.push(Slot {
                    place: places.len(),
                    info,
                    state: Mutex::default(),
                    brought: Condvar::new(),
                    last_used: AtomicU64::new(0),
                });
            }
            places.push(place);
        }
        let cache = Self {
            places,
            slots,
            options,
            idle: Mutex::default(),
            publishing: Mutex::default(),
            reserved: Mutex::default(),
        };
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

    /// Whether there is nothing to fetch or decompress for any shard.
    pub(crate) fn is_all_in_place(&self) -> bool {
        self.slots
            .iter()
            .all(|slot| !self.places[slot.place].is_cache() && slot.info.zip_data.is_none())
    }

    /// Whether there is a limit that shards may have to go for.
    pub(crate) fn may_evict(&self) -> bool {
        self.options.limit.is_some() && !self.is_all_in_place()
    }

    /// The shard, mapped; brought into the cache first if need be.
    ///
    /// # Errors
    /// Names the dataset and the shard.
    pub(crate) fn open(&self, shard: usize, stop: &Stop) -> Result<Arc<Shard>> {
        let slot = &self.slots[shard];
        let now = now();
        slot.last_used.store(now, Ordering::Relaxed);
        {
            let mut started = None;
            let mut state = relock(&slot.state);
            loop {
                if let Some(mapped) = state.kept.clone().or_else(|| state.seen.upgrade()) {
                    return Ok(mapped);
                }
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
            .bring(shard, stop)
            .map(|mapped| Arc::new(mapped.of_dataset(self.shown(shard))))
            .map_err(|e| e.in_shard(&slot.info.raw_data.basename).in_dataset(self.shown(shard)))?;
        {
            let mut state = relock(&slot.state);
            state.seen = Arc::downgrade(&mapped);
            state.kept = Some(Arc::clone(&mapped));
        }
        drop(bringing);
        self.bound_idle(shard, now);
        Ok(mapped)
    }

    /// Brings a shard ahead of its use and pins it, unless the cache has no room for more shards
    /// that are in use.
    pub(crate) fn open_ahead(&self, shard: usize, stop: &Stop) -> Result<Option<Arc<Shard>>> {
        match self.reserve_ahead(shard) {
            // Reserved until the shard is open, and so in use.
            Some(_reserved) => self.open(shard, stop).map(Some),
            None => Ok(None),
        }
    }

    fn bring(&self, shard: usize, stop: &Stop) -> Result<Shard> {
        let slot = &self.slots[shard];
        let files = self.places[slot.place].raw_files(&slot.info)?;
        if !files.cached {
            let mapped = self.map(slot, &files)?;
            return mapped.ok_or_else(|| missing(files.first_missing()));
        }
        // More than once only if another process evicts the shard before it is mapped here.
        for _ in 0..3 {
            if let Some(mapped) = self.map_undamaged(slot, &files)? {
                return Ok(mapped);
            }
            if let Some(folder) = files.data.parent() {
                std::fs::create_dir_all(folder)
                    .map_err(|e| Error::io(e, format!("cannot create {}", folder.display())))?;
            }
            let _lock =
                FileLock::acquire(&lock_path(&files.data), lock_limit(&self.options), stop)?;
            // Another process may have brought it while this one waited.
            if let Some(mapped) = self.map_undamaged(slot, &files)? {
                return Ok(mapped);
            }
            self.fetch(shard, &files, stop)?;
            relock(&slot.state).verified = inode(&files.data);
            if let Some(mapped) = self.map(slot, &files)? {
                return Ok(mapped);
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
    fn fetch(&self, shard: usize, files: &RawFiles, stop: &Stop) -> Result<()> {
        match self.fetch_once(shard, files, stop) {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                tracing::warn!(%error, "fetching the shard a second time");
                self.fetch_once(shard, files, stop)
            }
            fetched => fetched,
        }
    }

    fn fetch_once(&self, shard: usize, files: &RawFiles, stop: &Stop) -> Result<()> {
        let slot = &self.slots[shard];
        let mut fetched = Vec::with_capacity(2);
        for (file, path) in slot.info.files().zip(files.paths()) {
            fetched.push(self.fetch_file(slot, file, path, stop)?);
        }
        let room = fetched.iter().map(|file| file.bytes).sum();
        self.publish_in_room(shard, room, || fetched.into_iter().try_for_each(Fetched::publish))
    }

    fn fetch_file(
        &self,
        slot: &Slot,
        file: ShardFile<'_>,
        path: &Path,
        stop: &Stop,
    ) -> Result<Fetched> {
        let place = &self.places[slot.place];
        let (Some(zip), Some(compression)) = (file.zip, slot.info.compression) else {
            let part = place.download_raw(file.raw, path, &self.options, stop)?;
            return Ok(Fetched { bytes: file.raw.bytes, part, kept: None });
        };
        let (zipped, downloaded) = place.read_zip(zip, &self.options, stop)?;
        let bytes = compression.decompress(&zipped, file.raw.bytes)?;
        let kept = place.zip_path(zip)?.filter(|_| downloaded && self.options.keep_zip);
        let room = file.raw.bytes + kept.as_ref().map_or(0, |_| zip.bytes);
        let kept = kept.map(|path| PartFile::holding(&path, &zipped)).transpose()?;
        Ok(Fetched { bytes: room, part: PartFile::holding(path, &bytes)?, kept })
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

/// A file on its way into the cache.
struct Fetched {
    /// What it takes up there.
    bytes: u64,
    part: PartFile,
    /// The compressed file, if that is kept too.
    kept: Option<PartFile>,
}

impl Fetched {
    fn publish(self) -> Result<()> {
        self.kept.map_or(Ok(()), PartFile::publish)?;
        self.part.publish()
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
    options.remote.timeout.saturating_mul(10)
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
