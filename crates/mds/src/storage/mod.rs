//! Reading and writing objects wherever a dataset lies.
//!
//! An address is a plain path or `file://` URL (used directly), or an `s3://`, `gs://`, `az://`,
//! `http://` or `https://` URL (used by `object_store`, with credentials and end points from the
//! environment variables that the cloud's own tools use). [`Remote`] is a folder there; it hands
//! out whole objects, never more bytes than the caller allows, and takes whole objects.
//!
//! Every wait ends: connecting, the first byte and each pause between two bytes have a time limit,
//! and failed requests are repeated a bounded number of times with growing, random pauses.
//! Refusals (not found, access denied) are not repeated. No message contains a password, a token
//! or a query string.
//!
//! The calls block. Network remotes share one small async runtime per process, which the first of
//! them starts; the calls may come from any thread, inside another runtime too.

mod connect;
mod list;
mod location;
mod stop;
mod upload;

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::{Either, select};
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::error::{Error, ErrorKind, Result};
use crate::regular;
use crate::shard::not_out_of;
pub(crate) use location::{Location, check_split, redact};
pub(crate) use stop::Stop;

/// How long and how often to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteOptions {
    /// Time limit for connecting, for the first byte and for each pause between two bytes.
    pub timeout: Duration,
    /// Attempts in total, at least one.
    pub attempts: u32,
}

impl Default for RemoteOptions {
    /// The limits of the reference: 60 s, 2 attempts.
    fn default() -> Self {
        Self { timeout: Duration::from_secs(60), attempts: 2 }
    }
}

/// A folder of objects, on this machine or behind a URL.
#[derive(Debug, Clone)]
pub struct Remote {
    root: Root,
    location: Location,
    shown: String,
    options: RemoteOptions,
}

#[derive(Debug, Clone)]
enum Root {
    Folder(PathBuf),
    Store { store: Arc<dyn ObjectStore>, prefix: ObjectPath },
}

/// What comes from the network, in order: pieces of the body, or why there are no more.
type Piece = Result<Bytes, Failure>;

#[derive(Debug)]
struct Failure {
    error: object_store::Error,
    /// The request had been answered, so `object_store`'s own attempts are not used up.
    in_body: bool,
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
            Location::Url(url) => {
                let (store, prefix) = connect::connect(url, &options)?;
                Root::Store { store, prefix }
            }
        };
        Ok(Self { root, shown: location.shown(), location, options })
    }

    /// The address, without any password.
    pub fn address(&self) -> &str {
        &self.shown
    }

    /// The folder, if the remote lies on this machine.
    pub fn folder(&self) -> Option<&Path> {
        match &self.root {
            Root::Folder(folder) => Some(folder),
            Root::Store { .. } => None,
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
        self.get_until(name, max_bytes, &Stop::new())
    }

    /// [`get`](Self::get) that gives up when `stop` goes up.
    pub(crate) fn get_until(&self, name: &str, max_bytes: u64, stop: &Stop) -> Result<Vec<u8>> {
        let mut bytes = io::Cursor::new(Vec::new());
        self.copy(name, &mut bytes, max_bytes, stop)?;
        Ok(bytes.into_inner())
    }

    /// Writes the object `name` to `file`, from its start, and returns its length in bytes.
    ///
    /// # Errors
    /// As [`get`](Self::get), and [`Io`](ErrorKind::Io) if the file cannot be written.
    pub(crate) fn download(
        &self,
        name: &str,
        file: &mut File,
        max_bytes: u64,
        stop: &Stop,
    ) -> Result<u64> {
        self.copy(name, file, max_bytes, stop)
    }

    fn copy(&self, name: &str, sink: &mut impl Sink, max_bytes: u64, stop: &Stop) -> Result<u64> {
        stop.check()?;
        match &self.root {
            Root::Folder(folder) => {
                let path = not_out_of(folder, folder.join(name))?;
                self.copy_file(&path, sink, max_bytes, stop)
            }
            Root::Store { store, prefix } => {
                let path = prefix.parts().chain(ObjectPath::from(name).parts()).collect();
                self.copy_object(store, &path, name, sink, max_bytes, stop)
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
            total += n as u64;
            if total > max_bytes {
                return Err(self.too_long(&path.display().to_string(), max_bytes));
            }
            sink.write_all(&buffer[..n]).map_err(unwritable)?;
        }
    }

    fn copy_object(
        &self,
        store: &Arc<dyn ObjectStore>,
        path: &ObjectPath,
        name: &str,
        sink: &mut impl Sink,
        max_bytes: u64,
        stop: &Stop,
    ) -> Result<u64> {
        let object = format!("{}/{name}", self.shown.trim_end_matches('/'));
        let mut attempt = 1;
        loop {
            sink.restart().map_err(unwritable)?;
            let failure = match self.receive(store, path, sink, max_bytes, stop)? {
                Received::All(total) => return Ok(total),
                Received::TooLong => return Err(self.too_long(&object, max_bytes)),
                Received::Broken(failure) => failure,
            };
            if !failure.in_body || attempt >= self.options.attempts {
                return Err(self.failed(&object, &failure.error));
            }
            tracing::warn!(object, attempt, "a download broke off; starting it again");
            attempt += 1;
        }
    }

    /// Runs one request on the runtime and moves the pieces of its body to `sink` on this thread.
    fn receive(
        &self,
        store: &Arc<dyn ObjectStore>,
        path: &ObjectPath,
        sink: &mut impl Sink,
        max_bytes: u64,
        stop: &Stop,
    ) -> Result<Received> {
        let (sender, mut pieces) = mpsc::channel(8);
        let limit = connect::request_limit(&self.options);
        let task = runtime()?.spawn(stream(Arc::clone(store), path.clone(), limit, sender));
        let _aborted_on_return = AbortOnDrop(task.abort_handle());
        let mut total = 0u64;
        loop {
            let next = std::pin::pin!(pieces.recv());
            let stopped = std::pin::pin!(stop.raised());
            match futures::executor::block_on(select(next, stopped)) {
                Either::Left((Some(Ok(piece)), _)) => {
                    total += piece.len() as u64;
                    if total > max_bytes {
                        return Ok(Received::TooLong);
                    }
                    sink.write_all(&piece).map_err(unwritable)?;
                }
                Either::Left((Some(Err(failure)), _)) => return Ok(Received::Broken(failure)),
                Either::Left((None, _)) => return Ok(Received::All(total)),
                Either::Right(_) => return Err(Stop::error()),
            }
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
        use object_store::Error as E;
        let (kind, what, remedy) = match error {
            E::NotFound { .. } => {
                let what = format!("{object} does not exist");
                return Error::new(ErrorKind::NotFound, what, "check the address and the split");
            }
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => (
                ErrorKind::PermissionDenied,
                format!("access to {object} is denied"),
                "check the credentials in the environment",
            ),
            _ => (
                ErrorKind::Download,
                format!(
                    "cannot download {object} in {} attempt(s) ({})",
                    self.options.attempts,
                    reason(error)
                ),
                "check the network and the remote, or raise download_timeout and download_retry",
            ),
        };
        Error::new(kind, what, remedy)
    }
}

enum Received {
    All(u64),
    TooLong,
    Broken(Failure),
}

/// Where bytes go; unlike a plain writer it can start afresh.
trait Sink: Write {
    fn restart(&mut self) -> io::Result<()>;
}

impl Sink for File {
    fn restart(&mut self) -> io::Result<()> {
        self.rewind()?;
        self.set_len(0)
    }
}

impl Sink for io::Cursor<Vec<u8>> {
    fn restart(&mut self) -> io::Result<()> {
        self.set_position(0);
        self.get_mut().clear();
        Ok(())
    }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Sends the object's pieces until its end or the first failure, waiting at most `limit` for each.
async fn stream(
    store: Arc<dyn ObjectStore>,
    path: ObjectPath,
    limit: Duration,
    sender: mpsc::Sender<Piece>,
) {
    let late = |_| object_store::Error::Generic {
        store: "remote",
        source: format!("nothing came for {limit:?}").into(),
    };
    let answer = timeout(limit, store.get(&path)).await.map_err(late).and_then(|r| r);
    let mut body = match answer {
        Ok(found) => found.into_stream(),
        Err(error) => {
            let _ = sender.send(Err(Failure { error, in_body: false })).await;
            return;
        }
    };
    loop {
        let piece = match timeout(limit, body.next()).await {
            Ok(None) => return,
            Ok(Some(Ok(bytes))) => Ok(bytes),
            Ok(Some(Err(error))) => Err(Failure { error, in_body: true }),
            Err(elapsed) => Err(Failure { error: late(elapsed), in_body: true }),
        };
        let last = piece.is_err();
        // A closed channel means that the receiver has given up: so does this task.
        if sender.send(piece).await.is_err() || last {
            return;
        }
    }
}

fn unwritable(error: io::Error) -> Error {
    Error::io(error, "cannot write a downloaded file")
}

/// The reason of an error in one line, from the chain of its causes, without credentials.
fn reason(error: &object_store::Error) -> String {
    let mut text = redact(&error.to_string());
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = redact(&error.to_string());
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The runtime of all network remotes of this process. Its two threads sleep while idle.
fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<io::Result<Runtime>> = OnceLock::new();
    let started = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("mds-download")
            .enable_all()
            .build()
    });
    started.as_ref().map_err(|e| {
        Error::new(
            ErrorKind::Io,
            format!("cannot start the download threads ({e})"),
            "raise the limit on threads",
        )
    })
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
    fn a_raised_stop_ends_a_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), b"1").unwrap();
        let remote = Remote::open(dir.path().to_str().unwrap(), RemoteOptions::default()).unwrap();
        let stop = Stop::new();
        stop.raise();
        assert!(remote.get_until("a", 9, &stop).is_err());
    }
}
