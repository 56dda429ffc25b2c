//! A file server on loopback that fails as it is told: a queue of faults for the next requests, a
//! storm that fails a share of them, or one fault for all.
//!
//! It speaks HTTP/1.1 by hand, since a library would not send a wrong `Content-Length` or break off
//! in the middle of a body. `GET` and `HEAD` of `/FOLDER/NAME` serve the file of that name below
//! the served folder, with `ETag`, `Range` and `If-Match`; that is also a read from a bucket called
//! `FOLDER` for a client of S3 that puts the bucket into the path, and which it lists. `/credentials`
//! hands out keys that expire, as the agent of a cloud does on each machine. What it takes is in
//! `uploads`.

#![allow(dead_code, reason = "each test file uses its own part")]

mod uploads;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

pub(crate) use uploads::Taken;
use uploads::Uploads;

use crate::listing::{listing, tag};

/// What is done to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A status without a body.
    Status(u16),
    /// A status with the body of an S3 error of this code.
    Refusal(u16, &'static str),
    /// The connection is reset before the answer.
    Reset,
    /// The connection is reset after half of the body.
    ResetInBody,
    /// Half of the body, then nothing for ten minutes.
    Stall,
    /// No answer at all for ten minutes.
    Silence,
    /// The body comes at this many bytes in a second.
    Slow(u64),
    /// Half of the body, then an orderly end of the connection.
    Truncated,
    /// `Content-Length` is 100 bytes short, and so is the body.
    ShortLength,
    /// `Content-Length` is 100 bytes more than there are.
    LongLength,
    /// Half of the body; then the object has another `ETag`.
    ChangedTag,
    /// Neither an `ETag` nor a time of the last change.
    Unversioned,
    /// Status 200 and an error page.
    ErrorPage,
    /// Sends the client elsewhere, where the object is.
    Redirect,
    /// Sends the client in circles.
    RedirectLoop,
    /// An upload is taken and the connection reset before the answer. Of an upload, half of a body is
    /// half of what the client sends, and slow is how it is taken.
    LostAnswer,
}

impl Fault {
    /// What servers answer that have too much to do.
    pub(crate) const OVERLOAD: [Self; 6] = [
        Self::Status(500),
        Self::Status(503),
        Self::Refusal(503, "SlowDown"),
        Self::Refusal(500, "InternalError"),
        Self::Status(429),
        Self::Status(502),
    ];
}

/// Which requests of all fail.
#[derive(Debug, Default)]
struct Plan {
    /// Only paths that contain this.
    only: &'static str,
    /// Only requests that change something.
    only_uploads: bool,
    queue: VecDeque<Fault>,
    always: Option<Fault>,
    storm: Option<Storm>,
    by_path: Vec<(&'static str, Fault)>,
    /// Only requests for a part of an object of at most so many bytes.
    parts_up_to: Option<usize>,
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Object,
    /// So many bytes of an object.
    Part(usize),
    Upload,
}

impl Plan {
    fn choose(&mut self, path: &str, asked: Asked) -> Option<Fault> {
        let is_meant = match (self.only_uploads, self.parts_up_to) {
            (true, _) => asked == Asked::Upload,
            (_, Some(most)) => matches!(asked, Asked::Part(bytes) if bytes <= most),
            (false, None) => true,
        };
        if !path.contains(self.only) || !is_meant {
            return None;
        }
        let of_path = self.by_path.iter().find(|(part, _)| path.contains(part));
        let queued = of_path.map(|(_, fault)| *fault).or_else(|| self.queue.pop_front());
        queued.or(self.always).or_else(|| self.storm.as_mut().and_then(Storm::choose))
    }
}

/// Three of ten requests fail, in an order that a seed gives: a share without luck in it.
#[derive(Debug)]
struct Storm {
    faults: Vec<Fault>,
    state: u64,
    block: Vec<bool>,
    next: usize,
}

impl Storm {
    fn random(&mut self, below: usize) -> usize {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.state >> 33) as usize % below
    }

    fn choose(&mut self) -> Option<Fault> {
        if self.block.is_empty() {
            self.block = (0..10).map(|i| i < 3).collect();
            for i in (1..10).rev() {
                let other = self.random(i + 1);
                self.block.swap(i, other);
            }
        }
        self.block.pop().filter(|fails| *fails).map(|_| {
            self.next += 1;
            self.faults[self.next % self.faults.len()]
        })
    }
}

/// Keys that expire.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Credentials {
    /// How long each is good for.
    pub(crate) life: Duration,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    address: SocketAddr,
    plan: Mutex<Plan>,
    pace: Mutex<Option<u64>>,
    credentials: Mutex<Option<Credentials>>,
    started: Instant,
    /// Requests by path, and how many objects were sent to their end.
    requests: Mutex<BTreeMap<String, usize>>,
    /// How often the object of a path has changed.
    versions: Mutex<BTreeMap<String, u64>>,
    refused_keys: Mutex<usize>,
    uploads: Mutex<Uploads>,
}

/// The server; stopped when dropped.
pub(crate) struct Faultd {
    shared: Arc<Shared>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

impl Faultd {
    pub(crate) fn start(root: &Path) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let shared = Arc::new(Shared {
            root: root.to_path_buf(),
            address: listener.local_addr().unwrap(),
            plan: Mutex::default(),
            pace: Mutex::default(),
            credentials: Mutex::default(),
            started: Instant::now(),
            requests: Mutex::default(),
            versions: Mutex::default(),
            refused_keys: Mutex::default(),
            uploads: Mutex::default(),
        });
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let state = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                loop {
                    tokio::select! {
                        accepted = listener.accept() => {
                            if let Ok((stream, _)) = accepted {
                                tokio::spawn(connection(stream, Arc::clone(&state)));
                            }
                        }
                        _ = &mut stopped => return,
                    }
                }
            });
            // Open connections are torn down with the runtime.
            runtime.shutdown_timeout(Duration::from_millis(10));
        });
        Self { shared, stop: Some(stop), thread: Some(thread) }
    }

    /// The address of a folder below the served one.
    pub(crate) fn url(&self, folder: &str) -> String {
        format!("http://{}/{folder}", self.shared.address)
    }

    /// The address of `key` in the bucket `bucket`, which is the folder of that name, with keys that are no secret.
    pub(crate) fn in_bucket(&self, key: &str) -> String {
        let end = self.url("");
        let keys = "access_key_id=AKIATEST&secret_access_key=TopSecret&region=us-east-1";
        format!("s3://bucket/{key}?endpoint={}&{keys}", end.trim_end_matches('/'))
    }

    /// Serves everything well from now on.
    pub(crate) fn well(&self) {
        *locked(&self.shared.plan) = Plan::default();
    }

    /// Fails the next requests whose path contains `only`, one after the other.
    pub(crate) fn next(&self, only: &'static str, faults: &[Fault]) {
        let queue = faults.iter().copied().collect();
        *locked(&self.shared.plan) = Plan { only, queue, ..Plan::default() };
    }

    /// Fails all requests whose path contains `only`.
    pub(crate) fn always(&self, only: &'static str, fault: Fault) {
        *locked(&self.shared.plan) = Plan { only, always: Some(fault), ..Plan::default() };
    }

    /// Fails all uploads of paths that contain `only`.
    pub(crate) fn always_uploads(&self, only: &'static str, fault: Fault) {
        let always = Some(fault);
        *locked(&self.shared.plan) = Plan { only, only_uploads: true, always, ..Plan::default() };
    }

    /// Fails 30 % of the requests whose path contains `only`.
    pub(crate) fn storm(&self, only: &'static str, faults: &[Fault], seed: u64) {
        let storm = Storm { faults: faults.to_vec(), state: seed, block: vec![], next: 0 };
        *locked(&self.shared.plan) = Plan { only, storm: Some(storm), ..Plan::default() };
    }

    /// Fails all requests for paths that contain the first of a pair as the second says.
    pub(crate) fn by_path(&self, faults: &[(&'static str, Fault)]) {
        *locked(&self.shared.plan) = Plan { by_path: faults.to_vec(), ..Plan::default() };
    }

    /// Does these to the next requests for parts of up to so many bytes.
    pub(crate) fn next_parts(&self, up_to: usize, faults: &[Fault]) {
        let queue = faults.iter().copied().collect();
        let plan = Plan { queue, parts_up_to: Some(up_to), ..Plan::default() };
        *locked(&self.shared.plan) = plan;
    }

    /// Sends every body at this many bytes in a second.
    pub(crate) fn set_pace(&self, bytes_per_second: Option<u64>) {
        *locked(&self.shared.pace) = bytes_per_second;
    }

    /// Demands the keys that `/credentials` hands out from now on.
    pub(crate) fn demand(&self, credentials: Credentials) {
        *locked(&self.shared.credentials) = Some(credentials);
    }

    /// Requests that came with keys that had expired.
    pub(crate) fn refused_keys(&self) -> usize {
        *locked(&self.shared.refused_keys)
    }

    /// Requests per path since the start, the path without its leading slash.
    pub(crate) fn requests(&self) -> BTreeMap<String, usize> {
        locked(&self.shared.requests).clone()
    }

    /// Requests for paths that contain `part`.
    pub(crate) fn requests_for(&self, part: &str) -> usize {
        self.requests().iter().filter(|(path, _)| path.contains(part)).map(|(_, n)| n).sum()
    }

    /// The requests since the start that changed something, in their order.
    pub(crate) fn taken(&self) -> Vec<Taken> {
        locked(&self.shared.uploads).taken.clone()
    }

    /// Forgets the requests so far.
    pub(crate) fn reset_requests(&self) {
        locked(&self.shared.requests).clear();
    }
}

impl Drop for Faultd {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// A request, as far as it matters here.
struct Request {
    method: String,
    path: String,
    query: String,
    headers: BTreeMap<String, String>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

async fn connection(mut stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let mut pending = Vec::new();
    while let Ok(Some(request)) = read_request(&mut stream, &mut pending).await {
        let served = match request.method.as_str() {
            "GET" | "HEAD" => answer(&mut stream, &request, &shared).await,
            _ => uploads::take(&mut stream, &mut pending, &request, &shared).await,
        };
        // An error ends the connection: the client has gone or is to see it end.
        if served.is_err() {
            return;
        }
    }
}

async fn read_request(
    stream: &mut TcpStream,
    pending: &mut Vec<u8>,
) -> io::Result<Option<Request>> {
    let end = loop {
        if let Some(end) = pending.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(pending).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&pending[..end]).into_owned();
    pending.drain(..end + 4);
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let method = first.next().unwrap_or_default().to_owned();
    let target = first.next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (path, query) = (path.trim_start_matches('/').to_owned(), query.to_owned());
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Ok(Some(Request { method, path, query, headers }))
}

/// The end of a connection after an answer that was cut off on purpose.
fn cut() -> io::Error {
    io::Error::other("cut off on purpose")
}

async fn answer(stream: &mut TcpStream, request: &Request, shared: &Shared) -> io::Result<()> {
    if request.path == "credentials" {
        return hand_out(stream, shared).await;
    }
    *locked(&shared.requests).entry(request.path.clone()).or_default() += 1;
    if !knows(request, shared) {
        *locked(&shared.refused_keys) += 1;
        return refuse(stream, 403, "ExpiredToken").await;
    }
    let part = request.header("range").and_then(|header| range(header, usize::MAX));
    let asked = part.map_or(Asked::Object, |(first, last)| Asked::Part(last - first + 1));
    let fault = locked(&shared.plan).choose(&request.path, asked);
    match fault {
        Some(Fault::Status(code)) => status(stream, code, "").await,
        Some(Fault::Refusal(code, text)) => refuse(stream, code, text).await,
        Some(Fault::Reset) => {
            stream.set_zero_linger()?;
            Err(cut())
        }
        Some(Fault::Silence) => {
            sleep(Duration::from_secs(600)).await;
            Err(cut())
        }
        Some(Fault::ErrorPage) => {
            let page = "<html><body>Please log in to continue.</body></html>";
            status(stream, 200, page).await
        }
        Some(Fault::Redirect) => redirect(stream, &format!("/elsewhere/{}", request.path)).await,
        Some(Fault::RedirectLoop) => redirect(stream, &format!("/{}", request.path)).await,
        fault => object(stream, request, shared, fault).await,
    }
}

async fn status(stream: &mut TcpStream, code: u16, body: &str) -> io::Result<()> {
    status_with(stream, code, "", body).await
}

/// An answer with more headers, each with its line end.
async fn status_with(stream: &mut TcpStream, code: u16, extra: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    let head = format!("HTTP/1.1 {code} Said So\r\ncontent-length: {length}\r\n{extra}\r\n{body}");
    stream.write_all(head.as_bytes()).await
}

async fn refuse(stream: &mut TcpStream, code: u16, text: &str) -> io::Result<()> {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{text}</Code>\
         <Message>As the test wants it.</Message></Error>"
    );
    status(stream, code, &body).await
}

async fn redirect(stream: &mut TcpStream, to: &str) -> io::Result<()> {
    let head = format!("HTTP/1.1 307 Elsewhere\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(head.as_bytes()).await
}

/// Milliseconds since the server was started.
fn clock(shared: &Shared) -> u128 {
    shared.started.elapsed().as_millis()
}

/// Whether the request carries a key that has not expired, if one is demanded.
fn knows(request: &Request, shared: &Shared) -> bool {
    let Some(credentials) = *locked(&shared.credentials) else { return true };
    let token = request.header("x-amz-security-token").unwrap_or_default();
    let made: Option<u128> = token.strip_prefix("token-").and_then(|at| at.parse().ok());
    made.is_some_and(|made| clock(shared) <= made + credentials.life.as_millis())
}

async fn hand_out(stream: &mut TcpStream, shared: &Shared) -> io::Result<()> {
    // The time of expiry is given in whole seconds and lies before that of the client's margin, so
    // the client asks again for each request that comes a moment later.
    let body = format!(
        "{{\"AccessKeyId\":\"AKIATEST\",\"SecretAccessKey\":\"secret-of-the-agent\",\
         \"Token\":\"token-{}\",\"Expiration\":\"{}\"}}",
        clock(shared),
        expiry(),
    );
    status(stream, 200, &body).await
}

/// One minute from now, as clouds write it.
fn expiry() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seconds = now.as_secs() + 60;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days since 1970 to a date, after H. Hinnant's algorithm.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The first and the last byte that a `Range` header asks for.
fn range(header: &str, length: usize) -> Option<(usize, usize)> {
    let (first, last) = header.strip_prefix("bytes=")?.split_once('-')?;
    let last_of_all = length.checked_sub(1)?;
    if first.is_empty() {
        let suffix: usize = last.parse().ok()?;
        return Some((length.saturating_sub(suffix), last_of_all));
    }
    let first: usize = first.parse().ok()?;
    let last = if last.is_empty() { last_of_all } else { last.parse().ok()? };
    (first <= last_of_all && first <= last).then_some((first, last.min(last_of_all)))
}

async fn object(
    stream: &mut TcpStream,
    request: &Request,
    shared: &Shared,
    fault: Option<Fault>,
) -> io::Result<()> {
    let path = request.path.strip_prefix("elsewhere/").unwrap_or(&request.path);
    if request.query.contains("list-type=2") {
        let mut objects = BTreeMap::new();
        collect(&shared.root.join(path), "", &mut objects);
        return status(stream, 200, &listing(&objects, &request.query)).await;
    }
    let Ok(bytes) = std::fs::read(shared.root.join(path)) else {
        return refuse(stream, 404, "NoSuchKey").await;
    };
    let version = locked(&shared.versions).get(path).copied().unwrap_or(0);
    let tag = match version {
        0 => tag(&bytes),
        version => format!("\"{}-{version}\"", bytes.len()),
    };
    if request.header("if-match").is_some_and(|wanted| wanted != tag) {
        return refuse(stream, 412, "PreconditionFailed").await;
    }
    let (code, extra, body) = match request.header("range") {
        None => (200, String::new(), &bytes[..]),
        Some(header) => match range(header, bytes.len()) {
            None => return refuse(stream, 416, "InvalidRange").await,
            Some((first, last)) => {
                let extra = format!("content-range: bytes {first}-{last}/{}\r\n", bytes.len());
                (206, extra, &bytes[first..=last])
            }
        },
    };
    let (declared, sent) = match fault {
        Some(Fault::ShortLength) => {
            let short = body.len().saturating_sub(100);
            (short, &body[..short])
        }
        Some(Fault::LongLength) => (body.len() + 100, body),
        Some(Fault::ResetInBody | Fault::Stall | Fault::Truncated | Fault::ChangedTag) => {
            (body.len(), &body[..body.len() / 2])
        }
        _ => (body.len(), body),
    };
    let versions = match fault {
        Some(Fault::Unversioned) => String::new(),
        _ => format!("etag: {tag}\r\nlast-modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n"),
    };
    let head = format!(
        "HTTP/1.1 {code} OK\r\ncontent-length: {declared}\r\n{versions}{extra}\
         accept-ranges: bytes\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    if request.method == "HEAD" {
        return Ok(());
    }
    let pace = match fault {
        Some(Fault::Slow(pace)) => Some(pace),
        _ => *locked(&shared.pace),
    };
    send(stream, sent, pace).await?;
    match fault {
        Some(Fault::ResetInBody) => {
            // Long enough for what was sent to arrive: a reset throws away what has not.
            sleep(Duration::from_millis(20)).await;
            stream.set_zero_linger()?;
            Err(cut())
        }
        Some(Fault::Stall) => {
            sleep(Duration::from_secs(600)).await;
            Err(cut())
        }
        Some(Fault::ChangedTag) => {
            *locked(&shared.versions).entry(path.to_owned()).or_default() += 1;
            Err(cut())
        }
        Some(Fault::Truncated | Fault::LongLength) => Err(cut()),
        _ => Ok(()),
    }
}

/// The objects of a bucket.
fn collect(folder: &Path, prefix: &str, objects: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let entry = entry.unwrap();
        let key = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), &format!("{key}/"), objects);
        } else {
            objects.insert(key, std::fs::read(entry.path()).unwrap());
        }
    }
}

/// Sends a body, in twenty pieces a second if there is a pace.
async fn send(stream: &mut TcpStream, body: &[u8], pace: Option<u64>) -> io::Result<()> {
    let Some(pace) = pace else { return stream.write_all(body).await };
    let piece = usize::try_from(pace / 20).unwrap().max(1);
    for part in body.chunks(piece) {
        stream.write_all(part).await?;
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
