//! Reading and writing objects wherever a dataset lies.
//!
//! # Addresses
//!
//! | address | what it is |
//! |---|---|
//! | `/data/c4`, `c4`, `file:///data/c4` | a folder of this machine, used directly |
//! | `s3://bucket/c4` | S3 and all that speak it: MinIO, R2, Ceph, OCI |
//! | `gs://bucket/c4` | Google Cloud Storage; with HMAC keys, its S3 interface |
//! | `az://container/c4`, `azure://container/c4`, `azure://account-host/container/c4`, `abfss://container@account-host/c4` | Azure |
//! | `hf://datasets/org/name[@revision]/c4` | a dataset of the Hugging Face hub, to read |
//! | `http://host/c4`, `https://host/c4` | a web server; to write, one that takes `PUT` |
//!
//! Credentials, regions and end points come from the environment variables that each cloud's own
//! tools use, for S3 from the profile files of the AWS tools too, and from options in the address,
//! which win: `s3://bucket/c4?endpoint=http://127.0.0.1:9000&access_key_id=A&secret_access_key=S`.
//! The names are those of `object_store` ([S3], [GCS], [Azure]), with or without `aws_`, `google_`
//! or `azure_`; `hf://` has `token` and `endpoint`. Of the reference's own variables,
//! `S3_CANNED_ACL` gives new objects of `s3://` that access control list. `&` and `%` in a value are
//! written `%26` and `%25`. No message, no `Debug` and no log has an option's value; [`redacted`] gives
//! an address without them for whatever is stored.
//!
//! [S3]: object_store::aws::AmazonS3ConfigKey
//! [GCS]: object_store::gcp::GoogleConfigKey
//! [Azure]: object_store::azure::AzureConfigKey
//!
//! # Waits
//!
//! [`Remote`] hands out whole objects and parts of them, never more bytes than the caller allows,
//! streams them ([`ObjectReader`]), and takes, lists and deletes whole objects. Every wait ends:
//! connecting, the first byte, each pause between two bytes and a body that only trickles have a time
//! limit, and failed requests are repeated a bounded number of times with growing, random pauses.
//! Refusals (not found, access denied) are not repeated.
//!
//! The calls block. Network remotes share one small async runtime per process, which the first of
//! them starts; the calls may come from any thread, inside another runtime too.

pub mod access;
mod connect;
mod delete;
mod download;
mod list;
mod location;
mod options;
mod part;
mod reader;
mod runtime;
mod stat;
mod stop;
mod upload;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures::future::{Either, select};
use tokio::sync::mpsc;

use crate::error::{Error, ErrorKind, Result};
use crate::regular;
use crate::shard::not_out_of;
use connect::{Connection, RefusedRedirect, Service};
pub(crate) use download::Version;
use download::{Download, Event, Failure, FileAt, Sink};
pub(crate) use location::{Location, check_split, redact};
pub use location::{is_address, join, redacted, redacted_about, split};
use options::AddressOptions;
pub(crate) use part::PartOnItsWay;
pub use reader::ObjectReader;
use runtime::runtime;
pub use stat::ObjectStat;
pub(crate) use stop::Stop;

/// How long and how often to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteOptions {
    /// Time limit for connecting, for the first byte, for each pause between two bytes, and for
    /// each 64 KiB of a body: one that brings less in this time has stalled, so that a server of
    /// 1 KB/s does not hold a run for hours. A request that uploads has one second more for each
    /// 100 kB that it sends.
    pub timeout: Duration,
    /// Attempts in total, at least one, for each request and for each part of a large object.
    pub attempts: u32,
}

impl Default for RemoteOptions {
    /// The limits of the reference: 60 s, 2 attempts.
    fn default() -> Self {
        Self { timeout: Duration::from_secs(60), attempts: 2 }
    }
}

/// A folder of objects, on this machine or behind a URL. An object without a name is the one that
/// the address itself names.
///
/// `Debug` shows its address without options and password.
#[derive(Clone)]
pub struct Remote {
    root: Root,
    location: Location,
    shown: String,
    options: RemoteOptions,
    /// Whether the store is believed to give parts of objects.
    ranges: Arc<AtomicBool>,
}

#[derive(Clone)]
enum Root {
    Folder(PathBuf),
    Store(Connection),
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Stores show more of their settings than should be seen.
        f.debug_struct("Remote")
            .field("address", &self.shown)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Remote {
    /// Connects to nothing yet; fails if the address cannot be understood.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) names the address (without any password).
    pub fn open(address: &str, options: RemoteOptions) -> Result<Self> {
        Self::at(Location::parse(address)?, options)
    }

    pub(crate) fn at(location: Location, options: RemoteOptions) -> Result<Self> {
        if options.attempts == 0 || options.timeout.is_zero() {
            return Err(Error::invalid(
                "a download needs at least one attempt and a time limit above zero",
                "raise download_retry or download_timeout",
            ));
        }
        let root = match &location {
            Location::Folder(folder) => Root::Folder(folder.clone()),
            Location::Url(address) => Root::Store(connect::connect(address, &options)?),
        };
        let ranges = Arc::new(AtomicBool::new(true));
        Ok(Self { root, shown: location.shown(), location, options, ranges })
    }

    /// The address, without options and without any password.
    pub fn address(&self) -> &str {
        &self.shown
    }

    /// The address with what else says which folder is meant, but not who reads it: two remotes of
    /// the same identity hold the same. It has no credentials.
    pub fn identity(&self) -> String {
        match &self.location {
            Location::Folder(_) => self.shown.clone(),
            Location::Url(address) => format!("{}{}", self.shown, address.server()),
        }
    }

    /// The folder, if the remote lies on this machine.
    pub fn folder(&self) -> Option<&Path> {
        match &self.root {
            Root::Folder(folder) => Some(folder),
            Root::Store(_) => None,
        }
    }

    /// The folder `split` below this one.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) if `split` is not a plain folder name.
    pub fn below(&self, split: &str) -> Result<Self> {
        check_split(split)?;
        Self::at(self.location.clone().join(Some(split)), self.options.clone())
    }

    /// The folders directly below this one that hold a dataset, in order. Only folders of this
    /// machine are listed; for others there are none.
    pub fn splits(&self) -> Vec<String> {
        let entries = self.folder().and_then(|folder| std::fs::read_dir(folder).ok());
        let found = entries.into_iter().flatten().flatten();
        let mut splits: Vec<_> = found
            .filter(|entry| entry.path().join("index.json").is_file())
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        splits.sort();
        splits
    }

    /// The bytes of the object `name` (a relative path with `/`).
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) and [`PermissionDenied`](ErrorKind::PermissionDenied) at
    /// once, [`Download`](ErrorKind::Download) after the last attempt, and
    /// [`Corrupt`](ErrorKind::Corrupt) if the object is longer than `max_bytes`.
    pub fn get(&self, name: &str, max_bytes: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // A reader of an index gives a limit, not a size: most are small.
        self.copy(name, &mut bytes, max_bytes, false, &Stop::new())?;
        Ok(bytes)
    }

    /// Writes the object `name` into a new file at `path`, or over an old one, and returns its
    /// length in bytes.
    ///
    /// # Errors
    /// As [`get`](Self::get), and [`Io`](ErrorKind::Io) if the file cannot be written. There is
    /// then none at `path`.
    pub fn get_file(&self, name: &str, path: &Path) -> Result<u64> {
        let unwritable = |e| Error::io(e, format!("cannot write {}", path.display()));
        let file = File::create(path).map_err(unwritable)?;
        // One of unknown size comes in parts.
        let mut sink = FileAt { file: &file, path };
        let received = self.copy(name, &mut sink, u64::MAX, true, &Stop::new());
        received.inspect_err(|_| {
            let _ = std::fs::remove_file(path);
        })
    }

    /// Writes the object `name` to `file`, from its start, and returns its length in bytes. Messages
    /// call the file `path`. The object is taken to be about `max_bytes` long.
    ///
    /// # Errors
    /// As [`get`](Self::get), and [`Io`](ErrorKind::Io) if the file cannot be written.
    pub(crate) fn download(
        &self,
        name: &str,
        file: &File,
        path: &Path,
        max_bytes: u64,
        stop: &Stop,
    ) -> Result<u64> {
        let mut sink = FileAt { file, path };
        self.copy(name, &mut sink, max_bytes, max_bytes > download::WHOLE, stop)
    }

    fn copy(
        &self,
        name: &str,
        sink: &mut impl Sink,
        max_bytes: u64,
        large: bool,
        stop: &Stop,
    ) -> Result<u64> {
        stop.check()?;
        match &self.root {
            Root::Folder(folder) => {
                let path = not_out_of(folder, path_in(folder, name))?;
                self.copy_file(&path, sink, max_bytes, stop)
            }
            Root::Store(connection) => {
                let received = self.receive(connection, name, sink, stop, |download| {
                    download.whole(max_bytes, large)
                })?;
                received
                    .map_err(|failure| self.not_received(&self.object(name), max_bytes, &failure))
            }
        }
    }

    fn copy_file(
        &self,
        path: &Path,
        sink: &mut impl Sink,
        max_bytes: u64,
        stop: &Stop,
    ) -> Result<u64> {
        let unreadable = |e| Error::io(e, format!("cannot read {}", path.display()));
        let mut file = regular::open(path).map_err(unreadable)?;
        let size = file.metadata().map_err(unreadable)?.len();
        if size > max_bytes {
            return Err(self.too_long(&path.display().to_string(), max_bytes));
        }
        sink.begin(size).map_err(|e| sink.unwritable(e))?;
        let mut buffer = vec![0; 1 << 20];
        let mut total = 0u64;
        loop {
            stop.check()?;
            let n = match file.read(&mut buffer) {
                Ok(0) => return Ok(total),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(unreadable(e)),
            };
            if total + n as u64 > max_bytes {
                return Err(self.too_long(&path.display().to_string(), max_bytes));
            }
            sink.put_at(total, &buffer[..n]).map_err(|e| sink.unwritable(e))?;
            total += n as u64;
        }
    }

    /// Runs a download on the runtime and moves its bytes to `sink` on this thread. The outer
    /// error is this machine's or a raised `stop`, the inner one the remote's.
    fn receive<W: Future<Output = ()> + Send + 'static>(
        &self,
        connection: &Connection,
        name: &str,
        sink: &mut impl Sink,
        stop: &Stop,
        work: impl FnOnce(Download) -> W,
    ) -> Result<Result<u64, Failure>> {
        self.start(connection, name, work)?.drain(sink, stop)
    }

    fn start<W: Future<Output = ()> + Send + 'static>(
        &self,
        connection: &Connection,
        name: &str,
        work: impl FnOnce(Download) -> W,
    ) -> Result<Running> {
        let (sender, events) = mpsc::channel(download::PIECES);
        let task = runtime()?.spawn(work(Download {
            store: Arc::clone(&connection.store),
            path: connection.path(name),
            object: self.object(name),
            options: self.options.clone(),
            ranges: Arc::clone(&self.ranges),
            conditions: connection.service != Service::Hub,
            events: sender,
        }));
        Ok(Running { events, _aborted_on_drop: AbortOnDrop(task.abort_handle()) })
    }

    /// The address of an object, for messages.
    fn object(&self, name: &str) -> String {
        let folder = self.shown.trim_end_matches('/');
        if name.is_empty() { folder.to_owned() } else { format!("{folder}/{name}") }
    }

    fn not_received(&self, object: &str, max_bytes: u64, failure: &Failure) -> Error {
        match failure {
            Failure::TooLong => self.too_long(object, max_bytes),
            Failure::Store(error) | Failure::Broken(error) => self.failed(object, error),
            Failure::Changed => Error::new(
                ErrorKind::Download,
                format!("{object} changed while it was read"),
                "do not write over a dataset that is in use; try again when it is complete",
            ),
            Failure::NoRanges | Failure::GivenUp => Error::new(
                ErrorKind::Download,
                format!("the download of {object} was given up"),
                "try again",
            ),
        }
    }

    fn too_long(&self, object: &str, max_bytes: u64) -> Error {
        Error::corrupt(
            format!("{object} is longer than the {max_bytes} bytes it may have"),
            "check that the remote holds the dataset that its index.json describes",
        )
    }

    /// One sentence of one line for a failure of `object_store`.
    fn failed(&self, object: &str, error: &object_store::Error) -> Error {
        if let Some(refused) = RefusedRedirect::cause(error) {
            return Error::new(
                ErrorKind::Download,
                format!("{object} was not downloaded: {refused}"),
                "check HF_ENDPOINT: what begins with https does not go on without it, and nothing \
                 leads from elsewhere into this machine",
            );
        }
        let (kind, what, remedy) = match error {
            error if is_missing(error) => {
                let what = format!("{object} does not exist");
                return Error::new(ErrorKind::NotFound, what, "check the address and the split");
            }
            error if is_denied(error) => (
                ErrorKind::PermissionDenied,
                format!("access to {object} is denied"),
                "check the credentials in the environment",
            ),
            _ => (
                ErrorKind::Download,
                format!(
                    "cannot download {object} in {} attempt(s) ({})",
                    self.options.attempts,
                    self.reason(error)
                ),
                "check the network and the remote, or raise download_timeout and download_retry",
            ),
        };
        Error::new(kind, what, remedy)
    }

    /// Why a request failed, in one line and without credentials.
    fn reason(&self, error: &object_store::Error) -> String {
        match &self.location {
            Location::Url(address) => reason(error, &address.options),
            Location::Folder(_) => reason(error, &AddressOptions::default()),
        }
    }
}

/// A download that is on its way.
struct Running {
    events: mpsc::Receiver<Event>,
    _aborted_on_drop: AbortOnDrop,
}

impl Running {
    fn drain(mut self, sink: &mut impl Sink, stop: &Stop) -> Result<Result<u64, Failure>> {
        loop {
            let next = std::pin::pin!(self.events.recv());
            let stopped = std::pin::pin!(stop.raised());
            match futures::executor::block_on(select(next, stopped)) {
                Either::Left((Some(Event::Begin(size)), _)) => {
                    sink.begin(size).map_err(|e| sink.unwritable(e))?;
                }
                Either::Left((Some(Event::Of(version)), _)) => sink.of(version),
                Either::Left((Some(Event::Piece(position, bytes)), _)) => {
                    sink.put_at(position, &bytes).map_err(|e| sink.unwritable(e))?;
                }
                Either::Left((Some(Event::End(result)), _)) => return Ok(result),
                Either::Left((None, _)) => return Ok(Err(Failure::GivenUp)),
                Either::Right(_) => return Err(Stop::error()),
            }
        }
    }
}

/// The file `name` in a folder, or what the folder itself names.
fn path_in(folder: &Path, name: &str) -> PathBuf {
    if name.is_empty() { folder.to_path_buf() } else { folder.join(name) }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Whether a server refuses whoever is asking.
fn is_denied(error: &object_store::Error) -> bool {
    use object_store::Error as E;
    matches!(error, E::PermissionDenied { .. } | E::Unauthenticated { .. })
        || has_status(error, &["401", "403"])
}

/// Whether there is no such object, or no such bucket.
fn is_missing(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotFound { .. }) || has_status(error, &["404"])
}

/// Whether a server answered so. Of a refused listing `object_store` tells the status alone, in
/// words.
fn has_status(error: &object_store::Error, statuses: &[&str]) -> bool {
    matches!(error, object_store::Error::Generic { .. })
        && causes(error).skip(1).map(ToString::to_string).any(|text| {
            statuses.iter().any(|status| text.contains(&format!("status code: {status} ")))
        })
}

/// An error and those below it.
fn causes(error: &object_store::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    let error: &(dyn std::error::Error + 'static) = error;
    std::iter::successors(Some(error), |error| error.source())
}

/// The reason of an error in one line, from the chain of its causes, without credentials.
fn reason(error: &object_store::Error, options: &AddressOptions) -> String {
    let mut text = redact(&error.to_string());
    for error in causes(error).skip(1) {
        let more = redact(&error.to_string());
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
    }
    options.scrub(without_page(&text).split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The text before the page of HTML that a web server sends with a refusal.
fn without_page(text: &str) -> &str {
    let lower = text.to_ascii_lowercase();
    let page = ["<!doctype html", "<html"].iter().filter_map(|tag| lower.find(tag)).min();
    page.map_or(text, |page| text[..page].trim_end().trim_end_matches(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_with_a_cap() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a b#1"), b"12345").unwrap();
        let remote = Remote::open(dir.path().to_str().unwrap(), RemoteOptions::default()).unwrap();
        assert_eq!(remote.get("a b#1", 5).unwrap(), b"12345");
        assert_eq!(remote.get("a b#1", 4).unwrap_err().kind(), ErrorKind::Corrupt);
        let missing = remote.get("none", 4).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        assert_eq!(
            missing.to_string(),
            format!("cannot read {}; check the path", dir.path().join("none").display())
        );
    }

    #[test]
    fn options_that_cannot_work_are_refused() {
        let options = RemoteOptions { attempts: 0, ..RemoteOptions::default() };
        assert_eq!(
            Remote::open("/x", options).unwrap_err().to_string(),
            "a download needs at least one attempt and a time limit above zero; \
             raise download_retry or download_timeout"
        );
    }

    #[test]
    fn pages_of_web_servers_are_left_out() {
        let page = "501 Not Implemented: <!DOCTYPE HTML>\n<html>\n<p>no</p></html>";
        assert_eq!(without_page(page), "501 Not Implemented");
        assert_eq!(without_page("502 Bad Gateway: <HTML>no"), "502 Bad Gateway");
        let xml = "403 Forbidden: <Error><Code>AccessDenied</Code></Error>";
        assert_eq!(without_page(xml), xml);
    }

    #[test]
    fn a_raised_stop_ends_a_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), b"1").unwrap();
        let remote = Remote::open(dir.path().to_str().unwrap(), RemoteOptions::default()).unwrap();
        let stop = Stop::new();
        stop.raise();
        let file = tempfile::tempfile().unwrap();
        assert!(remote.download("a", &file, Path::new("f"), 9, &stop).is_err());
    }
}
