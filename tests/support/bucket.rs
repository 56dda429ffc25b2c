//! A bucket of S3 in memory on loopback, as far as `object_store` speaks to it, that fails as it is told.
//!
//! It speaks HTTP/1.1 by hand, with a thread for each connection, so that it needs no crate. Signatures are not checked.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::listing::{decoded, listing, tag};

/// The name of the bucket.
pub(crate) const NAME: &str = "bucket";
/// The secret in [`Bucket::address`], which nobody may see again.
pub(crate) const SECRET: &str = "sEcRetOfTheBucket";

/// What is done to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// An error of S3 with this status.
    Status(u16),
    /// No answer for as long as the server lives.
    Silence,
}

/// Which requests fail: those of this method whose key contains the text, after so many of them went well.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    pub(crate) method: &'static str,
    pub(crate) key: &'static str,
    pub(crate) after: usize,
    pub(crate) fault: Fault,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Vec<u8>>,
    /// `PUT run/ep0-ba2/state.json`, in the order in which they came.
    requests: Vec<String>,
    rule: Option<Rule>,
    /// Whether it neither lists its objects nor says which are not there.
    is_private: bool,
    silenced: usize,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// The server; its thread ends with the test's process.
pub(crate) struct Bucket {
    at: SocketAddr,
    shared: Arc<Shared>,
}

impl Bucket {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let state = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&state);
                std::thread::spawn(move || connection(stream, &shared));
            }
        });
        Self { at, shared }
    }

    /// `s3://bucket/FOLDER`, with all that a client needs, a secret among it.
    pub(crate) fn address(&self, folder: &str) -> String {
        format!(
            "s3://{NAME}/{folder}?endpoint=http://{}&region=us-east-1&access_key_id=AKTEST\
             &secret_access_key={SECRET}",
            self.at
        )
    }

    /// The address of a folder as a web server's.
    pub(crate) fn web_address(&self, folder: &str) -> String {
        format!("http://{}/{NAME}/{folder}", self.at)
    }

    pub(crate) fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        self.shared.state.lock().unwrap().objects.clone()
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.objects().into_keys().collect()
    }

    pub(crate) fn put(&self, key: &str, bytes: &[u8]) {
        self.shared.state.lock().unwrap().objects.insert(key.to_owned(), bytes.to_vec());
    }

    pub(crate) fn remove(&self, key: &str) {
        self.shared.state.lock().unwrap().objects.remove(key);
    }

    /// How many requests like `PUT run/latest` came so far.
    pub(crate) fn requests(&self, request: &str) -> usize {
        let state = self.shared.state.lock().unwrap();
        state.requests.iter().filter(|came| *came == request).count()
    }

    pub(crate) fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.state.lock().unwrap().requests)
    }

    /// From now on requests fail as `rule` says, or not.
    pub(crate) fn fail(&self, rule: Option<Rule>) {
        self.shared.state.lock().unwrap().rule = rule;
    }

    /// From now on answers as S3 does to who may not list.
    pub(crate) fn forbid_listing(&self) {
        self.shared.state.lock().unwrap().is_private = true;
    }

    /// Waits until a request got no answer.
    pub(crate) fn wait_for_silence(&self) {
        let state = self.shared.state.lock().unwrap();
        let limit = Duration::from_secs(60);
        let (state, _) = self
            .shared
            .changed
            .wait_timeout_while(state, limit, |state| state.silenced == 0)
            .unwrap();
        assert!(state.silenced > 0, "no request came that is not answered");
    }
}

struct Request {
    method: String,
    key: String,
    query: String,
    /// Whether it is refused where there is an object.
    is_new: bool,
    body: Vec<u8>,
}

fn connection(stream: TcpStream, shared: &Shared) {
    let _ = stream.set_nodelay(true);
    let Ok(mut writer) = stream.try_clone() else { return };
    let mut reader = BufReader::new(stream);
    while let Ok(Some(request)) = read_request(&mut reader) {
        if answer(&mut writer, &request, shared).is_err() {
            return;
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut first = line.split(' ');
    let method = first.next().unwrap_or_default().to_owned();
    let target = first.next().unwrap_or_default().to_owned();
    let (mut length, mut is_new) = (0, false);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap_or(0);
        }
        is_new |= name.eq_ignore_ascii_case("if-none-match");
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let key = path.trim_start_matches('/').trim_start_matches(NAME).trim_start_matches('/');
    Ok(Some(Request { method, key: decoded(key), query: query.to_owned(), is_new, body }))
}

fn answer(stream: &mut TcpStream, request: &Request, shared: &Shared) -> io::Result<()> {
    let mut state = shared.state.lock().unwrap();
    state.requests.push(format!("{} {}", request.method, request.key));
    let fault = state.rule.as_mut().and_then(|rule| {
        if request.method != rule.method || !request.key.contains(rule.key) {
            return None;
        }
        let fails = rule.after == 0;
        rule.after = rule.after.saturating_sub(1);
        fails.then_some(rule.fault)
    });
    match fault {
        Some(Fault::Status(code)) => return refuse(stream, request, code, "AsTheTestWants"),
        Some(Fault::Silence) => {
            state.silenced += 1;
            shared.changed.notify_all();
            drop(state);
            std::thread::sleep(Duration::from_secs(600));
            return Err(io::ErrorKind::TimedOut.into());
        }
        None => {}
    }
    match (request.method.as_str(), request.key.as_str()) {
        ("GET", "") if state.is_private => refuse(stream, request, 403, "AccessDenied"),
        ("GET", "") => {
            let list = listing(&state.objects, &request.query);
            respond(stream, 200, "", list.as_bytes(), true)
        }
        ("PUT", key) if request.is_new && state.objects.contains_key(key) => {
            refuse(stream, request, 412, "PreconditionFailed")
        }
        ("PUT", key) => {
            state.objects.insert(key.to_owned(), request.body.clone());
            respond(stream, 200, "etag: \"put\"\r\n", b"", true)
        }
        ("DELETE", key) => {
            state.objects.remove(key);
            respond(stream, 204, "", b"", true)
        }
        ("GET" | "HEAD", key) => match state.objects.get(key) {
            Some(bytes) => {
                let tag = tag(bytes);
                let extra =
                    format!("etag: {tag}\r\nlast-modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n");
                respond(stream, 200, &extra, bytes, request.method != "HEAD")
            }
            None if state.is_private => refuse(stream, request, 403, "AccessDenied"),
            None => refuse(stream, request, 404, "NoSuchKey"),
        },
        _ => refuse(stream, request, 405, "MethodNotAllowed"),
    }
}

fn refuse(stream: &mut TcpStream, request: &Request, code: u16, name: &str) -> io::Result<()> {
    let body =
        format!("<Error><Code>{name}</Code><Message>As the test wants it.</Message></Error>");
    respond(stream, code, "", body.as_bytes(), request.method != "HEAD")
}

fn respond(
    stream: &mut TcpStream,
    code: u16,
    extra: &str,
    body: &[u8],
    with_body: bool,
) -> io::Result<()> {
    let length =
        if code == 204 { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    let head = format!("HTTP/1.1 {code} Said So\r\n{length}{extra}\r\n");
    stream.write_all(head.as_bytes())?;
    if with_body { stream.write_all(body) } else { Ok(()) }
}
