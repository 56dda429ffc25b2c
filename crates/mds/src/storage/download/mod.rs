//! Bringing objects here.
//!
//! Small objects come in one request. Large ones come in parts, several at a time, all of them
//! pinned to one version of the object by its ETag, and are written in place by position. At most
//! [`PIECES`] pieces of what the network hands out wait in memory.
//!
//! What breaks is repeated where it broke: by `object_store` a request before its body, and the rest
//! of a body that breaks if the object has an ETag; by this module all other bodies that break, stall
//! or are too short, the one part alone. The pauses between attempts grow and are random. What a
//! server refuses is not asked again.
//!
//! An error page with status 200 looks like any other object here: whoever knows what the object
//! should be (the cache, `mds-inspect verify`) compares size and hash with the index, which are
//! wrong then, and names the object.

#[cfg(test)]
mod tests;

use std::fs::{File, Metadata};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path as ObjectPath;
use object_store::{GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::RemoteOptions;
use super::connect::{FIRST_PAUSE, LONGEST_PAUSE, request_limit};
use crate::error::Error;

/// Objects up to this size, in bytes, come in one request.
pub(super) const WHOLE: u64 = 16 << 20;
/// The size of a part, in bytes.
const PART: u64 = 8 << 20;
/// How many parts of one object are on their way at a time.
const PARTS_AT_A_TIME: usize = 4;
/// How many pieces may wait for the disk. A piece is what one read of a connection gives, some
/// hundred KiB at most.
pub(super) const PIECES: usize = 16;
/// A body that brings fewer bytes in the time limit has stalled.
const LEAST: u64 = 64 << 10;

/// What comes from the network.
pub(super) enum Event {
    /// An object of so many bytes follows; what came before is void.
    Begin(u64),
    /// The version of the object that a part is of.
    Of(Version),
    /// Bytes at a position.
    Piece(u64, Bytes),
    /// Nothing more: the length of the object, or why it is not complete.
    End(Result<u64, Failure>),
}

/// Why an object did not come.
#[derive(Debug)]
pub(super) enum Failure {
    /// The store's answer, after all attempts.
    Store(object_store::Error),
    /// It is longer than the caller allows.
    TooLong,
    /// It was replaced while it was read, twice.
    Changed,
    /// The store does not give parts of objects.
    NoRanges,
    /// Nobody waits for it any more.
    GivenUp,
    /// The answer is complete and another one may be better: it is asked for again. Never leaves
    /// this module.
    Broken(object_store::Error),
}

/// Where bytes go, by position.
pub(super) trait Sink {
    /// Takes everything back that was written; so many bytes are to come.
    fn begin(&mut self, bytes: u64) -> io::Result<()>;
    fn put_at(&mut self, position: u64, bytes: &[u8]) -> io::Result<()>;
    /// The version of the object that a part is of; whole objects do without.
    fn of(&mut self, _version: Version) {}
    /// Says what could not be written.
    fn unwritable(&self, error: io::Error) -> Error {
        Error::io(error, "cannot hold what was downloaded in memory")
    }
}

/// A file, and what messages call it.
pub(super) struct FileAt<'a> {
    pub(super) file: &'a File,
    pub(super) path: &'a Path,
}

impl Sink for FileAt<'_> {
    fn begin(&mut self, _bytes: u64) -> io::Result<()> {
        self.file.set_len(0)
    }

    fn put_at(&mut self, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, position)
    }

    fn unwritable(&self, error: io::Error) -> Error {
        Error::io(error, format!("cannot write {}", self.path.display()))
    }
}

impl Sink for Vec<u8> {
    fn begin(&mut self, bytes: u64) -> io::Result<()> {
        self.clear();
        let bytes = usize::try_from(bytes).map_err(io::Error::other)?;
        self.try_reserve_exact(bytes).map_err(io::Error::other)
    }

    fn put_at(&mut self, position: u64, bytes: &[u8]) -> io::Result<()> {
        let start = usize::try_from(position).map_err(io::Error::other)?;
        let end = start.checked_add(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        if start == self.len() {
            self.extend_from_slice(bytes);
            return Ok(());
        }
        if self.len() < end {
            self.resize(end, 0);
        }
        self[start..end].copy_from_slice(bytes);
        Ok(())
    }
}

/// The bytes of an object from a position on.
pub(super) struct PartOfObject {
    start: u64,
    pub(super) bytes: Vec<u8>,
    pub(super) version: Option<Version>,
}

impl PartOfObject {
    pub(super) fn from(start: u64) -> Self {
        Self { start, bytes: Vec::new(), version: None }
    }
}

impl Sink for PartOfObject {
    fn begin(&mut self, bytes: u64) -> io::Result<()> {
        self.bytes.begin(bytes)
    }

    fn put_at(&mut self, position: u64, bytes: &[u8]) -> io::Result<()> {
        let position = position.checked_sub(self.start).ok_or(io::ErrorKind::InvalidInput)?;
        self.bytes.put_at(position, bytes)
    }

    fn of(&mut self, version: Version) {
        self.version = Some(version);
    }
}

/// One object to bring.
pub(super) struct Download {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) path: ObjectPath,
    /// How messages call it.
    pub(super) object: String,
    pub(super) options: RemoteOptions,
    /// Whether the store is believed to give parts of objects; kept by all clones of a remote.
    pub(super) ranges: Arc<AtomicBool>,
    /// Whether the store may be asked for one version alone.
    pub(super) conditions: bool,
    pub(super) events: mpsc::Sender<Event>,
}

/// One version of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    /// In bytes.
    pub(crate) size: u64,
    etag: Option<String>,
    /// Seconds since 1970; 0 if the server does not say.
    modified: i64,
}

impl Version {
    fn of(meta: &ObjectMeta) -> Self {
        let modified = meta.last_modified.timestamp();
        Self { size: meta.size, etag: meta.e_tag.clone(), modified }
    }

    pub(super) fn of_file(metadata: &Metadata) -> Self {
        Self { size: metadata.len(), etag: None, modified: metadata.mtime() }
    }

    /// Whether two versions can be told apart.
    pub(crate) fn is_known(&self) -> bool {
        self.etag.is_some() || self.modified != 0
    }

    /// The ETag for `If-Match`, which must be a strong one.
    fn strong_etag(&self) -> Option<String> {
        self.etag.clone().filter(|etag| !etag.starts_with("W/"))
    }
}

impl Download {
    /// Brings the whole object, of at most `max_bytes`. One that is known to be `large` is asked
    /// for in parts from the start.
    pub(super) async fn whole(self, max_bytes: u64, large: bool) {
        let mut begun_again = false;
        let result = loop {
            let result = match large && self.gives_ranges() {
                true => self.parts_from_the_start(max_bytes).await,
                false => self.one_stream(max_bytes).await,
            };
            match result {
                Err(Failure::NoRanges) if self.gives_ranges() => {
                    self.ranges.store(false, Ordering::Relaxed);
                }
                Err(Failure::Changed) if !begun_again => {
                    tracing::warn!(object = self.object, "it changed while it was read");
                    begun_again = true;
                }
                result => break result,
            }
        };
        let _ = self.events.send(Event::End(result)).await;
    }

    /// Brings a part of the object: of this version, if one is given.
    pub(super) async fn range(self, range: Range<u64>, version: Option<Version>) {
        let result = match self.gives_ranges() {
            true => self.range_of(range, version).await,
            false => Err(Failure::NoRanges),
        };
        if let Err(Failure::NoRanges) = result {
            self.ranges.store(false, Ordering::Relaxed);
        }
        let _ = self.events.send(Event::End(result)).await;
    }

    async fn range_of(&self, range: Range<u64>, version: Option<Version>) -> Result<u64, Failure> {
        let first = self.ask(self.options_for(range.clone(), version.as_ref())).await?;
        let found = Version::of(&first.meta);
        self.send(Event::Of(found.clone())).await?;
        let version = version.unwrap_or(found);
        self.part(range.clone(), Some(&version).filter(|v| v.is_known()), Some(first)).await?;
        Ok(range.end - range.start)
    }

    fn options_for(&self, range: Range<u64>, version: Option<&Version>) -> GetOptions {
        let etag = version.and_then(Version::strong_etag).filter(|_| self.conditions);
        GetOptions::new().with_range(Some(range)).with_if_match(etag)
    }

    fn gives_ranges(&self) -> bool {
        self.ranges.load(Ordering::Relaxed)
    }

    async fn parts_from_the_start(&self, max_bytes: u64) -> Result<u64, Failure> {
        let first = match self.ask(GetOptions::new().with_range(Some(0..PART))).await {
            // An object without bytes has no parts.
            Err(Failure::Store(error)) if is_out_of_range(&error) => {
                return self.one_stream(max_bytes).await;
            }
            first => first?,
        };
        let version = Version::of(&first.meta);
        if version.size > max_bytes {
            return Err(Failure::TooLong);
        }
        if !version.is_known() {
            return Err(Failure::NoRanges);
        }
        self.parts(version, Some(first)).await
    }

    /// Brings all parts of one version of the object.
    async fn parts(&self, version: Version, first: Option<GetResult>) -> Result<u64, Failure> {
        self.send(Event::Begin(version.size)).await?;
        let starts = (0..version.size).step_by(PART as usize);
        let mut first = first;
        let parts = futures::stream::iter(starts).map(|start| {
            let range = start..version.size.min(start + PART);
            self.part(range, Some(&version), first.take())
        });
        parts.buffer_unordered(PARTS_AT_A_TIME).try_for_each(|()| async { Ok(()) }).await?;
        Ok(version.size)
    }

    /// Brings one part, of the given version if there is one, starting with an answer that is
    /// there already.
    async fn part(
        &self,
        range: Range<u64>,
        version: Option<&Version>,
        mut answer: Option<GetResult>,
    ) -> Result<(), Failure> {
        let mut position = range.start;
        let mut attempt = 1;
        loop {
            let found = match answer.take() {
                Some(found) => found,
                None => self.ask(self.options_for(position..range.end, version)).await?,
            };
            if version.is_some_and(|version| *version != Version::of(&found.meta)) {
                return Err(Failure::Changed);
            }
            let failure = match self.body(found, &mut position, range.end).await {
                Err(Failure::Broken(error)) if attempt < self.options.attempts => error,
                result => return result,
            };
            self.pause(attempt, &failure).await;
            attempt += 1;
            if version.is_none() {
                position = range.start;
            }
        }
    }

    /// Brings the object in one request, or in parts if it turns out to be large.
    async fn one_stream(&self, max_bytes: u64) -> Result<u64, Failure> {
        let mut attempt = 1;
        loop {
            let found = self.ask(GetOptions::new()).await?;
            let version = Version::of(&found.meta);
            if version.size > max_bytes {
                return Err(Failure::TooLong);
            }
            if version.size > WHOLE && version.is_known() && self.gives_ranges() {
                drop(found);
                return self.parts(version, None).await;
            }
            self.send(Event::Begin(version.size)).await?;
            let failure = match self.body(found, &mut 0, version.size).await {
                Err(Failure::Broken(error)) if attempt < self.options.attempts => error,
                result => return result.map(|()| version.size),
            };
            self.pause(attempt, &failure).await;
            attempt += 1;
        }
    }

    /// Sends a request, which `object_store` repeats if need be, and waits for its answer.
    async fn ask(&self, options: GetOptions) -> Result<GetResult, Failure> {
        let is_range = matches!(options.range, Some(GetRange::Bounded(_)));
        let limit = request_limit(&self.options);
        let answer = timeout(limit, self.store.get_opts(&self.path, options)).await;
        match answer.unwrap_or_else(|_| Err(late(format!("nothing came for {limit:?}")))) {
            Ok(found) => Ok(found),
            Err(object_store::Error::Precondition { .. }) => Err(Failure::Changed),
            Err(error) if is_range && is_no_range(&error) => Err(Failure::NoRanges),
            Err(error) => Err(Failure::Store(error)),
        }
    }

    /// Sends on the bytes of an answer, from `position`, which moves with them, to `end`.
    async fn body(&self, found: GetResult, position: &mut u64, end: u64) -> Result<(), Failure> {
        let limit = request_limit(&self.options);
        let version = Version::of(&found.meta);
        let mut pace = Pace::new(self.options.timeout);
        let mut body = found.into_stream();
        loop {
            let asked = Instant::now();
            let piece = match timeout(limit, body.next()).await {
                Ok(Some(Ok(piece))) => piece,
                Ok(Some(Err(error))) => return Err(self.broken(error, version).await),
                Ok(None) if *position == end => return Ok(()),
                Ok(None) => {
                    let missing = end - *position;
                    return Err(Failure::Broken(late(format!("{missing} bytes are missing"))));
                }
                Err(_) => return Err(Failure::Broken(late(format!("nothing came for {limit:?}")))),
            };
            let bytes = piece.len() as u64;
            if bytes > end - *position {
                return Err(Failure::Broken(late("more came than was announced".to_owned())));
            }
            self.send(Event::Piece(*position, piece)).await?;
            *position += bytes;
            if *position < end && pace.is_stalled(asked.elapsed(), bytes) {
                let limit = self.options.timeout;
                let text = format!("fewer than {LEAST} bytes came in {limit:?}");
                return Err(Failure::Broken(late(text)));
            }
        }
    }

    /// What follows from a body that broke off. Where the object has an ETag, `object_store` has asked
    /// for the rest as often as it may, unless it saw another ETag, which it does not tell.
    async fn broken(&self, error: object_store::Error, version: Version) -> Failure {
        if version.etag.is_none() {
            return Failure::Broken(error);
        }
        let head = GetOptions::new().with_head(true);
        match timeout(self.options.timeout, self.store.get_opts(&self.path, head)).await {
            Ok(Ok(now)) if Version::of(&now.meta) != version => Failure::Changed,
            _ => Failure::Store(error),
        }
    }

    async fn send(&self, event: Event) -> Result<(), Failure> {
        self.events.send(event).await.map_err(|_| Failure::GivenUp)
    }

    async fn pause(&self, attempt: u32, error: &object_store::Error) {
        let pause = pause_after(attempt);
        let reason = super::reason(error, &Default::default());
        tracing::warn!(object = self.object, attempt, reason, ?pause, "a download broke off");
        tokio::time::sleep(pause).await;
    }
}

/// Whether a body is too slow to go on with: `LEAST` bytes in each time limit.
struct Pace {
    limit: Duration,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    fn new(limit: Duration) -> Self {
        Self { limit, waited: Duration::ZERO, bytes: 0 }
    }

    /// Counts bytes that came after `waited`. Waiting for the disk does not count.
    fn is_stalled(&mut self, waited: Duration, bytes: u64) -> bool {
        self.waited += waited;
        self.bytes += bytes;
        if self.waited < self.limit {
            return false;
        }
        let stalled = self.bytes < LEAST;
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        stalled
    }
}

/// Between half of and all of a time that doubles with each attempt, up to a limit.
pub(super) fn pause_after(attempt: u32) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(2u32.saturating_pow(attempt.saturating_sub(1)));
    let longest = doubled.min(LONGEST_PAUSE);
    // The standard library's keys for hash maps are random, and that is random enough.
    let random = RandomState::new().hash_one(attempt) as u32;
    longest / 2 + (longest / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

fn late(text: String) -> object_store::Error {
    object_store::Error::Generic { store: "remote", source: text.into() }
}

/// Whether a server answered with the whole object where a part was asked for. `object_store` has
/// a kind for it in one of its clients only.
fn is_no_range(error: &object_store::Error) -> bool {
    match error {
        object_store::Error::NotSupported { .. } => true,
        object_store::Error::Generic { source, .. } => {
            source.to_string().contains("non-partial response")
        }
        _ => false,
    }
}

fn is_out_of_range(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::Generic { source, .. }
        if source.to_string().contains("416 Range Not Satisfiable"))
}
