//! Putting objects in place.
//!
//! An object appears whole or not at all. Large files go up in parts, several at a time, where the
//! remote can take them so; elsewhere (plain HTTP) in one request. `object_store` repeats a failed
//! request a bounded number of times, each part on its own.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use object_store::client::HttpError;
use object_store::path::Path as ObjectPath;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutMode};
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::download::pause_after;
use super::runtime::runtime;
use super::{
    AbortOnDrop, Connection, Remote, RemoteOptions, Root, Service, Stop, causes, connect,
    has_status, is_denied, is_missing, path_in,
};
use crate::durable;
use crate::error::{Error, ErrorKind, Result};

/// Files up to this size, in bytes, go up in one request.
const WHOLE: u64 = 16 << 20;
/// The size of a part, in bytes. Stores allow 10,000 parts, so this is enough for any shard.
const PART: usize = 8 << 20;
/// How many parts of one file are on their way at a time.
const PARTS_AT_A_TIME: usize = 4;
/// How long the request may take that takes back the parts of an upload.
const ABORT: Duration = Duration::from_secs(5);

impl Remote {
    /// Stores `bytes` as the object `name` (a relative path with `/`), replacing what is there.
    ///
    /// # Errors
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) at once,
    /// [`Upload`](ErrorKind::Upload) after the last attempt, and as the file system fails if the
    /// remote is a folder of this machine. The object is then as it was.
    pub fn put(&self, name: &str, bytes: impl Into<Bytes>) -> Result<()> {
        self.put_until(name, bytes.into(), &Stop::new())
    }

    fn put_until(&self, name: &str, bytes: Bytes, stop: &Stop) -> Result<()> {
        match &self.root {
            Root::Folder(folder) => {
                in_folder(&path_in(folder, name), |path| durable::replace(path, &bytes))
            }
            Root::Store(connection) => {
                self.refuse_hub(connection)?;
                let (store, path) = (Arc::clone(&connection.store), connection.path(name));
                let options = self.options.clone();
                let mode = PutMode::Overwrite;
                let work = async move { put_whole(&store, &path, bytes, mode, &options).await };
                self.wait(work, stop)?.map_err(|e| self.refused(name, &e))
            }
        }
    }

    /// Stores `bytes` as the object `name` unless there is one. Returns whether they are there now:
    /// an object that holds the same is as good.
    ///
    /// Of several programs that put different bytes at one time, one alone is told that its bytes are
    /// there. Only where the store has no such request (plain HTTP) it is asked first what is there,
    /// and two may come between the question and the answer.
    ///
    /// # Errors
    /// As [`put`](Self::put) and [`get`](Self::get).
    pub fn put_new(&self, name: &str, bytes: impl Into<Bytes>) -> Result<bool> {
        self.put_new_until(name, bytes.into(), &Stop::new())
    }

    /// [`put_new`](Self::put_new) that gives up when `stop` goes up.
    pub(crate) fn put_new_until(&self, name: &str, bytes: Bytes, stop: &Stop) -> Result<bool> {
        stop.check()?;
        if self.put_if_none(name, &bytes, stop)? {
            return Ok(true);
        }
        // What was asked for twice, since the first answer was lost, is in its own way.
        match self.get(name, bytes.len() as u64) {
            Ok(there) => Ok(there == bytes),
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Returns whether there was none.
    fn put_if_none(&self, name: &str, bytes: &Bytes, stop: &Stop) -> Result<bool> {
        match &self.root {
            Root::Folder(folder) => {
                let put = |path: &Path| durable::create(path, bytes);
                match in_folder(&path_in(folder, name), put) {
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
                    done => done.map(|()| true),
                }
            }
            Root::Store(connection) => {
                self.refuse_hub(connection)?;
                let (store, path) = (Arc::clone(&connection.store), connection.path(name));
                let (options, new) = (self.options.clone(), bytes.clone());
                let work = async move { create(&store, &path, new, &options).await };
                match self.wait(work, stop)? {
                    Ok(()) => Ok(true),
                    Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
                    Err(error) if has_no_condition(&error) => match self.size_until(name, stop)? {
                        Some(_) => Ok(false),
                        None => self.put_until(name, bytes.clone(), stop).map(|()| true),
                    },
                    Err(error) => Err(self.refused(name, &error)),
                }
            }
        }
    }

    /// Stores the contents of the file at `path` as the object `name`, replacing what is there.
    /// Holds at most 48 MiB of it in memory, or all of it if the remote is a plain HTTP server.
    ///
    /// A large file goes to a bucket in parts. Those of an upload that fails are taken back; a process
    /// that is killed leaves them, unseen and paid for, until a rule of the bucket (S3:
    /// `AbortIncompleteMultipartUpload`) removes them.
    ///
    /// # Errors
    /// As [`put`](Self::put), and as the file system fails if the file cannot be read.
    pub fn put_file(&self, name: &str, path: &Path) -> Result<()> {
        self.put_file_until(name, path, &Stop::new())
    }

    /// [`put_file`](Self::put_file) that gives up when `stop` goes up.
    pub(crate) fn put_file_until(&self, name: &str, path: &Path, stop: &Stop) -> Result<()> {
        stop.check()?;
        match &self.root {
            Root::Folder(folder) => in_folder(&path_in(folder, name), |to| durable::copy(path, to)),
            Root::Store(connection) => {
                self.refuse_hub(connection)?;
                let (store, to) = (Arc::clone(&connection.store), connection.path(name));
                let (options, file) = (self.options.clone(), path.to_path_buf());
                let stop = stop.clone();
                let work = async move { put_contents(&store, &to, &file, &options, &stop).await };
                // The work itself heeds `stop`: it has something to take back.
                self.wait(work, &Stop::new())?.map_err(|failure| match failure {
                    Failure::Stopped => Stop::error(),
                    Failure::Remote(error) => self.refused(name, &error),
                    Failure::File(error) => {
                        Error::io(error, format!("cannot read {}", path.display()))
                    }
                })
            }
        }
    }

    /// The size of the object `name` in bytes, `None` if there is no such object.
    ///
    /// # Errors
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) at once (some clouds answer so for an
    /// object that is not there, if the credentials do not allow to list the folder),
    /// [`Download`](ErrorKind::Download) after the last attempt.
    pub fn size(&self, name: &str) -> Result<Option<u64>> {
        self.size_until(name, &Stop::new())
    }

    /// [`size`](Self::size) for who is about to write: `None` also if the remote denies the answer, as
    /// S3 does for an object that is not there to who may not list.
    ///
    /// # Errors
    /// [`Download`](ErrorKind::Download) after the last attempt.
    pub fn known_size(&self, name: &str) -> Result<Option<u64>> {
        self.known_size_until(name, &Stop::new())
    }

    /// [`known_size`](Self::known_size) that gives up when `stop` goes up.
    pub(crate) fn known_size_until(&self, name: &str, stop: &Stop) -> Result<Option<u64>> {
        match self.size_until(name, stop) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(None),
            size => size,
        }
    }

    fn size_until(&self, name: &str, stop: &Stop) -> Result<Option<u64>> {
        Ok(self.stat_until(name, stop)?.map(|stat| stat.bytes))
    }

    pub(super) fn refuse_hub(&self, connection: &Connection) -> Result<()> {
        match connection.service {
            Service::Cloud | Service::Web => Ok(()),
            Service::Hub => Err(Error::unsupported(
                format!("{} is a dataset of the hub, which is read and not written", self.shown),
                "write to a folder or a bucket, and bring it to the hub with: hf upload",
            )),
        }
    }

    /// Runs `work` on the runtime and waits for it, or until `stop` goes up.
    pub(super) fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
        stop: &Stop,
    ) -> Result<T> {
        let task = runtime()?.spawn(work);
        let _aborted_on_return = AbortOnDrop(task.abort_handle());
        let stopped = std::pin::pin!(stop.raised());
        match futures::executor::block_on(select(task, stopped)) {
            Either::Left((Ok(result), _)) => Ok(result),
            Either::Left((Err(error), _)) => Err(Error::new(
                ErrorKind::Upload,
                format!("a request to {} was given up ({error})", self.shown),
                "try again",
            )),
            Either::Right(_) => Err(Stop::error()),
        }
    }

    /// One sentence of one line for a failed upload.
    fn refused(&self, name: &str, error: &object_store::Error) -> Error {
        if is_missing(error) {
            return Error::new(
                ErrorKind::Upload,
                format!("cannot upload {}: there is no such bucket or folder", self.object(name)),
                "check the address, or make the bucket first",
            );
        }
        if has_status(error, &["405", "501"]) {
            return Error::new(
                ErrorKind::Upload,
                format!("cannot upload {}: the server takes no files", self.object(name)),
                "give a folder, a bucket, or a web server that takes what is PUT there",
            );
        }
        self.not_changed("writing", "upload", name, error)
    }

    /// One sentence of one line for an object that could not be written or removed: `doing` that
    /// is denied, or cannot be done, which is called `to_do`.
    pub(super) fn not_changed(
        &self,
        doing: &str,
        to_do: &str,
        name: &str,
        error: &object_store::Error,
    ) -> Error {
        let object = self.object(name);
        if is_denied(error) {
            return Error::new(
                ErrorKind::PermissionDenied,
                format!("{doing} {object} is denied"),
                "check the credentials in the environment",
            );
        }
        let (attempts, reason) = (self.options.attempts, self.reason(error));
        Error::new(
            ErrorKind::Upload,
            format!("cannot {to_do} {object} in {attempts} attempt(s) ({reason})"),
            "check the network and the remote, or raise the time limit and the attempts",
        )
    }
}

/// Why a file did not arrive.
enum Failure {
    /// The file could not be read.
    File(io::Error),
    /// The remote did not take it.
    Remote(object_store::Error),
    /// The upload was stopped.
    Stopped,
}

impl From<object_store::Error> for Failure {
    fn from(error: object_store::Error) -> Self {
        Self::Remote(error)
    }
}

/// Puts a file into a folder of this machine, which is created if need be.
fn in_folder(path: &Path, put: impl FnOnce(&Path) -> io::Result<()>) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    durable::create_directory(folder)
        .and_then(|created| {
            put(path)?;
            created.map_or(Ok(()), |created| durable::sync_created(folder, &created))
        })
        .map_err(|error| Error::io(error, format!("cannot write {}", path.display())))
}

async fn put_whole(
    store: &Arc<dyn ObjectStore>,
    path: &ObjectPath,
    bytes: Bytes,
    mode: PutMode,
    options: &RemoteOptions,
) -> object_store::Result<()> {
    let limit = connect::upload_limit(options, bytes.len() as u64);
    timely(limit, store.put_opts(path, bytes.into(), mode.into())).await.map(drop)
}

/// Puts an object where there is none. `object_store` does not repeat such a request when its answer
/// is lost, since it may have been heard.
async fn create(
    store: &Arc<dyn ObjectStore>,
    path: &ObjectPath,
    bytes: Bytes,
    options: &RemoteOptions,
) -> object_store::Result<()> {
    let mut attempt = 1;
    loop {
        match put_whole(store, path, bytes.clone(), PutMode::Create, options).await {
            Err(error) if attempt < options.attempts && is_lost(&error) => {
                tokio::time::sleep(pause_after(attempt)).await;
            }
            done => return done,
        }
        attempt += 1;
    }
}

/// Whether a request ended without an answer.
fn is_lost(error: &object_store::Error) -> bool {
    causes(error).any(|error| error.is::<HttpError>())
}

/// Whether a store may not know the request for an object that must not be there.
fn has_no_condition(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotImplemented { .. })
        || has_status(error, &["400", "501"])
}

/// Puts a file. When `stop` goes up, takes back the parts that it sent and ends.
async fn put_contents(
    store: &Arc<dyn ObjectStore>,
    path: &ObjectPath,
    file: &Path,
    options: &RemoteOptions,
    stop: &Stop,
) -> Result<(), Failure> {
    let mut source = tokio::fs::File::open(file).await.map_err(Failure::File)?;
    let size = source.metadata().await.map_err(Failure::File)?.len();
    if size > WHOLE {
        let limit = connect::request_limit(options);
        match unless_raised(stop, timely(limit, store.put_multipart(path))).await? {
            Ok(upload) => return put_parts(upload, &mut source, options, stop).await,
            // Plain HTTP has no parts.
            Err(object_store::Error::NotImplemented { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut bytes = Vec::new();
    source.read_to_end(&mut bytes).await.map_err(Failure::File)?;
    let put = put_whole(store, path, bytes.into(), PutMode::Overwrite, options);
    Ok(unless_raised(stop, put).await??)
}

/// Puts a file in parts. What was sent of an upload that fails or is stopped is taken back, if it can
/// be: else it would stay in the bucket, unseen and paid for.
async fn put_parts(
    mut upload: Box<dyn MultipartUpload>,
    source: &mut tokio::fs::File,
    options: &RemoteOptions,
    stop: &Stop,
) -> Result<(), Failure> {
    let limit = connect::upload_limit(options, PART as u64);
    let mut parts = JoinSet::new();
    let sending = send_parts(upload.as_mut(), &mut parts, source, limit);
    let sent = unless_raised(stop, sending).await.flatten();
    if sent.is_err() {
        let take_back = async {
            // A part that arrives later would stay.
            parts.shutdown().await;
            upload.abort().await
        };
        let _ = timely(ABORT, take_back).await;
    }
    sent
}

/// Sends the parts of a file, then the request that makes the object of them; the next of them to be
/// done takes `limit` at most.
async fn send_parts(
    upload: &mut dyn MultipartUpload,
    parts: &mut JoinSet<object_store::Result<()>>,
    source: &mut tokio::fs::File,
    limit: Duration,
) -> Result<(), Failure> {
    loop {
        let mut part = Vec::with_capacity(PART);
        let length = source.take(PART as u64).read_to_end(&mut part).await;
        if length.map_err(Failure::File)? == 0 {
            break;
        }
        parts.spawn(upload.put_part(part.into()));
        while parts.len() >= PARTS_AT_A_TIME {
            timely(limit, one_arrived(parts)).await?;
        }
    }
    while !parts.is_empty() {
        timely(limit, one_arrived(parts)).await?;
    }
    timely(limit, upload.complete()).await?;
    Ok(())
}

async fn one_arrived(parts: &mut JoinSet<object_store::Result<()>>) -> object_store::Result<()> {
    parts.join_next().await.transpose()?.unwrap_or(Ok(()))
}

/// Does `work`, or gives it up when `stop` goes up.
async fn unless_raised<T>(stop: &Stop, work: impl Future<Output = T>) -> Result<T, Failure> {
    match select(pin!(work), pin!(stop.raised())).await {
        Either::Left((done, _)) => Ok(done),
        Either::Right(_) => Err(Failure::Stopped),
    }
}

/// Ends a wait that `object_store` itself would not end.
pub(super) async fn timely<T>(
    limit: Duration,
    work: impl Future<Output = object_store::Result<T>>,
) -> object_store::Result<T> {
    timeout(limit, work).await.unwrap_or_else(|_| {
        Err(object_store::Error::Generic {
            store: "remote",
            source: format!("nothing came for {limit:?}").into(),
        })
    })
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    fn in_memory() -> (Remote, Arc<InMemory>) {
        let store = Arc::new(InMemory::new());
        let address = "http://u:secret@h/a/b/";
        let mut remote = Remote::open(address, RemoteOptions::default()).unwrap();
        remote.root = Root::Store(Connection {
            store: Arc::clone(&store) as _,
            prefix: ObjectPath::from("a/b"),
            service: Service::Cloud,
        });
        (remote, store)
    }

    #[test]
    fn objects_come_back_as_they_went() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("x").join("y");
        let on_disk = Remote::open(folder.to_str().unwrap(), RemoteOptions::default()).unwrap();
        let file = dir.path().join("file");
        for remote in [on_disk, in_memory().0] {
            assert_eq!(remote.size("c/d").unwrap(), None);
            for bytes in [&b"one"[..], b"", b"three"] {
                remote.put("c/d", bytes).unwrap();
                assert_eq!(remote.get("c/d", 9).unwrap(), bytes);
                assert_eq!(remote.size("c/d").unwrap(), Some(bytes.len() as u64));
                assert_eq!(
                    remote.stats().unwrap().get("c/d"),
                    remote.stat("c/d").unwrap().as_ref()
                );
            }
            for size in [0, 1, WHOLE as usize, WHOLE as usize + 1, 3 * PART, 5 * PART + 7] {
                let bytes: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
                std::fs::write(&file, &bytes).unwrap();
                remote.put_file("large", &file).unwrap();
                assert!(remote.get("large", 1 << 30).unwrap() == bytes, "{size}");
            }
            assert_eq!(remote.objects().unwrap(), ["c/d", "large"]);
            for _ in 0..2 {
                remote.delete("c/d").unwrap();
                assert_eq!(remote.objects().unwrap(), ["large"]);
            }
        }
    }

    #[test]
    fn what_is_there_is_not_put_over() {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().join("x").join("y");
        let on_disk = Remote::open(here.to_str().unwrap(), RemoteOptions::default()).unwrap();
        for remote in [on_disk, in_memory().0] {
            assert!(remote.put_new("a", "one").unwrap());
            assert!(remote.put_new("a", "one").unwrap(), "the same");
            for other in ["two", "", "longer"] {
                assert!(!remote.put_new("a", other).unwrap(), "{other}");
            }
            assert_eq!(remote.get("a", 9).unwrap(), b"one");
            assert_eq!(remote.objects().unwrap(), ["a"]);
        }
    }

    #[test]
    fn an_object_may_be_the_address_itself() {
        let dir = tempfile::tempdir().unwrap();
        let (here, copy) = (dir.path().join("x"), dir.path().join("copy"));
        let on_disk = Remote::open(here.to_str().unwrap(), RemoteOptions::default()).unwrap();
        for remote in [on_disk, in_memory().0] {
            assert_eq!(remote.size("").unwrap(), None);
            remote.put("", "one").unwrap();
            assert_eq!(remote.size("").unwrap(), Some(3));
            assert_eq!(remote.get_file("", &copy).unwrap(), 3);
            assert_eq!(std::fs::read(&copy).unwrap(), b"one");
            remote.delete("").unwrap();
            let error = remote.get_file("", &copy).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound);
            assert!(!copy.exists());
            let shown = remote.address().trim_end_matches('/');
            assert!(!error.to_string().contains(&format!("{shown}/;")), "{error}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("none");
        let error = in_memory().0.put_file("a", &file).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(error.to_string(), format!("cannot read {}; check the path", file.display()));
    }

    #[test]
    fn a_raised_stop_ends_an_upload() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        std::fs::write(&file, b"1").unwrap();
        let stop = Stop::new();
        stop.raise();
        let (remote, _) = in_memory();
        assert!(remote.put_file_until("a", &file, &stop).is_err());
        assert_eq!(remote.size("a").unwrap(), None);
    }

    #[test]
    fn refusals_say_what_and_hold_no_credentials() {
        let (remote, _) = in_memory();
        let source = || "no: http://u:secret@h/a?sig=x".into();
        let denied = object_store::Error::PermissionDenied { path: "a".into(), source: source() };
        let error = remote.refused("s.mds", &denied);
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert_eq!(
            error.to_string(),
            "writing http://h/a/b/s.mds is denied; check the credentials in the environment"
        );
        let missing = object_store::Error::NotFound { path: "a".into(), source: source() };
        let error = remote.refused("s.mds", &missing);
        assert_eq!(error.kind(), ErrorKind::Upload);
        assert_eq!(
            error.to_string(),
            "cannot upload http://h/a/b/s.mds: there is no such bucket or folder; check the \
             address, or make the bucket first"
        );
        // So a listing of a bucket that is not there fails.
        let status = "Server returned non-2xx status code: 404 Not Found: ";
        let missing = object_store::Error::Generic { store: "S3", source: status.into() };
        assert_eq!(
            remote.failed("http://h/a/b", &missing).to_string(),
            "http://h/a/b does not exist; check the address and the split"
        );
        let lost = object_store::Error::Generic { store: "HTTP", source: source() };
        let error = remote.refused("s.mds", &lost);
        assert_eq!(error.kind(), ErrorKind::Upload);
        assert_eq!(
            error.to_string(),
            "cannot upload http://h/a/b/s.mds in 2 attempt(s) (Generic HTTP error: no: \
             http://h/a); check the network and the remote, or raise the time limit and the \
             attempts"
        );
    }
}
