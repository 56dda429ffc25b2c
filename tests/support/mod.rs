//! What the tests of the reading side share: small datasets and a loopback server for them.

#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod values;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode};
use mds::format::{Encoding, HashAlgorithm, Index, NdArray, Schema};
use mds::{Writer, WriterOptions};

/// The text of sample `id`.
pub(crate) fn text(id: u64) -> String {
    format!("This is sample number {id}.")
}

/// How a test dataset is stored.
#[derive(Default)]
pub(crate) struct Kind {
    pub(crate) compression: Option<&'static str>,
    pub(crate) hashed: bool,
}

pub(crate) const PLAIN: Kind = Kind { compression: None, hashed: false };
pub(crate) const HASHED: Kind = Kind { compression: None, hashed: true };
pub(crate) const ZIPPED: Kind = Kind { compression: Some("zstd"), hashed: true };

/// Writes `samples` samples with columns `id`, `text` and `tokens`, about 9 to a shard.
pub(crate) fn write(dir: &Path, samples: u64, kind: &Kind) -> Index {
    let schema = Schema::new([
        ("id", Encoding::Int),
        ("text", Encoding::Str),
        ("tokens", "ndarray:int32".parse().unwrap()),
    ])
    .unwrap();
    let options = WriterOptions {
        compression: kind.compression.map(|code| code.parse().unwrap()),
        hashes: if kind.hashed { vec![HashAlgorithm::Sha1, HashAlgorithm::Xxh64] } else { vec![] },
        size_limit: Some(1000),
        ..WriterOptions::default()
    };
    let mut writer = Writer::create(dir, schema, options).unwrap();
    for id in 0..samples {
        let tokens = NdArray::from_i32(&[id as i32, 2, 3, 4]);
        writer.write(&[(id as i64).into(), text(id).as_str().into(), tokens.into()]).unwrap();
    }
    writer.finish().unwrap()
}

/// All files below `dir` by their relative paths, but for what a cache notes of its index: a cache
/// is to hold what the remote does.
pub(crate) fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(root: &Path, dir: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, found);
            } else if path.ends_with(".index.seal") {
                continue;
            } else if let Ok(bytes) = std::fs::read(&path) {
                let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
                found.insert(name, bytes);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(dir, dir, &mut found);
    found
}

/// What a [`Server`] does with the next requests.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mood {
    /// Serves files.
    Well = 0,
    /// Answers 503.
    Overloaded = 1,
    /// Takes the request and never answers.
    Stalled = 2,
    /// Answers 403.
    Forbidding = 3,
    /// Sends half of the file, then breaks the connection off.
    Torn = 4,
    /// Takes 50 ms for each file.
    Slow = 5,
}

/// A file server on a free port of 127.0.0.1, stopped when dropped.
pub(crate) struct Server {
    address: std::net::SocketAddr,
    shared: Arc<Shared>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Shared {
    root: PathBuf,
    mood: AtomicU8,
    gets: Mutex<BTreeMap<String, usize>>,
}

impl Server {
    pub(crate) fn start(root: &Path) -> Self {
        let shared = Arc::new(Shared {
            root: root.to_path_buf(),
            mood: AtomicU8::new(Mood::Well as u8),
            gets: Mutex::default(),
        });
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let serve = axum::serve(listener, Router::new().fallback(answer).with_state(state));
                tokio::select! {
                    _ = serve => {}
                    _ = stopped => {}
                }
            });
            // Open connections are torn down with the runtime.
            runtime.shutdown_timeout(Duration::from_millis(10));
        });
        Self { address, shared, stop: Some(stop), thread: Some(thread) }
    }

    /// The URL of a folder below the served root.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    pub(crate) fn set_mood(&self, mood: Mood) {
        self.shared.mood.store(mood as u8, Ordering::SeqCst);
    }

    /// GETs per path since the start, the path without its leading slash.
    pub(crate) fn gets(&self) -> BTreeMap<String, usize> {
        self.shared.gets.lock().unwrap().clone()
    }

    /// GETs of shards, per path.
    pub(crate) fn shard_gets(&self) -> BTreeMap<String, usize> {
        self.gets().into_iter().filter(|(path, _)| path.contains("shard.")).collect()
    }

    /// Stops serving: from now on connections are refused.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let path = request.uri().path().trim_start_matches('/').to_owned();
    *shared.gets.lock().unwrap().entry(path.clone()).or_default() += 1;
    let status = |code: StatusCode| Response::builder().status(code).body(Body::empty()).unwrap();
    let mood = shared.mood.load(Ordering::SeqCst);
    if mood == Mood::Overloaded as u8 {
        return status(StatusCode::SERVICE_UNAVAILABLE);
    }
    if mood == Mood::Forbidding as u8 {
        return status(StatusCode::FORBIDDEN);
    }
    if mood == Mood::Stalled as u8 {
        std::future::pending::<()>().await;
    }
    if mood == Mood::Slow as u8 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let Ok(bytes) = std::fs::read(shared.root.join(&path)) else {
        return status(StatusCode::NOT_FOUND);
    };
    let length = bytes.len();
    let body = if mood == Mood::Torn as u8 && path.contains("shard.") {
        let half = bytes[..length / 2].to_vec();
        let broken = Err(std::io::Error::other("broken off"));
        Body::from_stream(futures::stream::iter([Ok(half), broken]))
    } else {
        Body::from(bytes)
    };
    Response::builder().header("content-length", length).body(body).unwrap()
}

/// Fails the test if `work` takes longer than `limit`; a hang becomes a failure.
pub(crate) fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let _ = sender.send(work());
    });
    match receiver.recv_timeout(limit) {
        Ok(value) => {
            thread.join().unwrap();
            value
        }
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("still running after {limit:?}"),
        Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(thread.join().unwrap_err())
        }
    }
}
