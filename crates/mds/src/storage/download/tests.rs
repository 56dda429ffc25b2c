//! Downloads from a loopback server that does what a test tells it to.

use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Response, StatusCode};

use super::super::Remote;
use super::*;
use crate::error::ErrorKind;

const MIB: u64 = 1 << 20;

fn contents(size: u64) -> Vec<u8> {
    (0..size).map(|i| (i * i % 251) as u8).collect()
}

/// A server of 127.0.0.1, with the headers of all requests it got. Its thread ends with the test.
struct Server {
    address: std::net::SocketAddr,
    seen: Arc<Mutex<Vec<HeaderMap>>>,
}

type Answer = dyn Fn(&HeaderMap, usize) -> Response<Body> + Send + Sync;

impl Server {
    /// Answers the n-th request, counted from 0, with what `answer` makes of its headers.
    fn start(answer: impl Fn(&HeaderMap, usize) -> Response<Body> + Send + Sync + 'static) -> Self {
        let answer: Arc<Answer> = Arc::new(answer);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let handler = move |request: Request| {
            let n = {
                let mut log = log.lock().unwrap();
                let mut headers = request.headers().clone();
                headers.insert("x-path", request.uri().path().parse().unwrap());
                log.push(headers);
                log.len() - 1
            };
            let response = answer(request.headers(), n);
            async move { response }
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                axum::serve(listener, Router::new().fallback(handler)).await.unwrap();
            });
        });
        Self { address, seen }
    }

    fn remote(&self, timeout: Duration) -> Remote {
        let options = RemoteOptions { timeout, attempts: 2 };
        Remote::open(&format!("http://{}/c4", self.address), options).unwrap()
    }

    fn patient(&self) -> Remote {
        self.remote(Duration::from_secs(10))
    }

    fn requests(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// The values of a header so far; empty where there was none.
    fn values(&self, name: &str) -> Vec<String> {
        let value = |headers: &HeaderMap| {
            headers.get(name).map_or(String::new(), |v| v.to_str().unwrap().to_owned())
        };
        self.seen.lock().unwrap().iter().map(value).collect()
    }

    /// The `Range` headers so far, without `bytes=`; empty for whole objects.
    fn ranges(&self) -> Vec<String> {
        let plain = |range: String| range.trim_start_matches("bytes=").to_owned();
        self.values("range").into_iter().map(plain).collect()
    }
}

fn status(code: StatusCode) -> Response<Body> {
    Response::builder().status(code).body(Body::empty()).unwrap()
}

/// What a good server answers: the object or a part of it, under its ETag.
fn good(headers: &HeaderMap, bytes: &[u8], etag: &str) -> Response<Body> {
    if headers.get("if-match").is_some_and(|wanted| wanted != etag) {
        return status(StatusCode::PRECONDITION_FAILED);
    }
    let Some(range) = range_of(headers, bytes) else {
        let whole = Body::from(bytes.to_vec());
        return Response::builder().header("etag", etag).body(whole).unwrap();
    };
    if range.is_empty() {
        return status(StatusCode::RANGE_NOT_SATISFIABLE);
    }
    partial(&range, bytes, etag).body(Body::from(bytes[range].to_vec())).unwrap()
}

fn range_of(headers: &HeaderMap, bytes: &[u8]) -> Option<Range<usize>> {
    let range = headers.get("range")?.to_str().unwrap().strip_prefix("bytes=").unwrap();
    let (start, end) = range.split_once('-').unwrap();
    let end = end.parse().map_or(bytes.len(), |end: usize| bytes.len().min(end + 1));
    Some(start.parse().unwrap()..end)
}

fn partial(range: &Range<usize>, bytes: &[u8], etag: &str) -> axum::http::response::Builder {
    let (end, size) = (range.end - 1, bytes.len());
    Response::builder()
        .status(StatusCode::PARTIAL_CONTENT)
        .header("etag", etag)
        .header("content-length", range.len())
        .header("content-range", format!("bytes {}-{end}/{size}", range.start))
}

/// A body that breaks off after some of its bytes, once they are on their way.
fn torn(bytes: &[u8]) -> Body {
    let pieces = [Ok(bytes.to_vec()), Err(io::Error::other("broken off"))];
    Body::from_stream(futures::stream::iter(pieces).then(|piece| async {
        if piece.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        piece
    }))
}

fn download(remote: &Remote, size: u64) -> crate::Result<Vec<u8>> {
    let mut file = tempfile::tempfile().unwrap();
    // What an earlier attempt left.
    file.write_all_at(b"old", size + 5).unwrap();
    let length = remote.download("a", &file, Path::new("f"), size, &crate::storage::Stop::new())?;
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut file, &mut bytes).unwrap();
    assert_eq!(length, bytes.len() as u64);
    Ok(bytes)
}

#[test]
fn large_objects_come_in_parts_of_one_version() {
    let bytes = contents(40 * MIB + 7);
    let served = bytes.clone();
    let server = Server::start(move |headers, _| good(headers, &served, "\"v1\""));
    assert!(download(&server.patient(), bytes.len() as u64).unwrap() == bytes);
    let mut ranges = server.ranges();
    assert_eq!(ranges[0], "0-8388607");
    ranges.sort();
    let expected = [
        "0-8388607",
        "16777216-25165823",
        "25165824-33554431",
        "33554432-41943039",
        "41943040-41943046",
        "8388608-16777215",
    ];
    assert_eq!(ranges, expected);
    let pinned = |headers: &&HeaderMap| headers.get("if-match").is_some_and(|tag| tag == "\"v1\"");
    assert_eq!(server.seen.lock().unwrap().iter().filter(pinned).count(), 5);

    // A reader that does not know the size finds it in the first answer.
    assert!(server.patient().get("a", 1 << 30).unwrap() == bytes);
    assert_eq!(server.requests(), 6 + 1 + 6);
    assert_eq!(server.ranges()[6], "");
    let error = server.patient().get("a", 40 * MIB).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(download(&server.patient(), 39 * MIB).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn small_objects_come_in_one_request() {
    for size in [0, 1, MIB, 16 * MIB] {
        let bytes = contents(size);
        let served = bytes.clone();
        let server = Server::start(move |headers, _| good(headers, &served, "\"v1\""));
        assert!(download(&server.patient(), size).unwrap() == bytes);
        assert!(server.patient().get("a", 1 << 30).unwrap() == bytes);
        assert_eq!(server.ranges(), ["", ""]);
        // Though it was expected to be large.
        assert!(download(&server.patient(), 99 * MIB).unwrap() == bytes);
    }
}

#[test]
fn a_server_without_ranges_or_versions_sends_one_stream() {
    let bytes = contents(20 * MIB);
    let served = bytes.clone();
    let server = Server::start(move |_, _| good(&HeaderMap::new(), &served, "\"v1\""));
    let remote = server.patient();
    for _ in 0..2 {
        assert!(download(&remote, 20 * MIB).unwrap() == bytes);
    }
    // The one question is asked once.
    assert_eq!(server.ranges(), ["0-8388607", "", ""]);
    assert_eq!(remote.get_range("a", 1..3).unwrap(), None);
    assert_eq!(server.requests(), 3);
    assert_eq!(server.patient().get_range("a", 1..3).unwrap(), None);

    let served = bytes.clone();
    let server = Server::start(move |headers, _| {
        let mut response = good(headers, &served, "");
        response.headers_mut().remove("etag");
        response
    });
    assert!(download(&server.patient(), 20 * MIB).unwrap() == bytes);
    assert_eq!(server.ranges(), ["0-8388607", ""]);
}

#[test]
fn a_broken_part_is_asked_for_alone() {
    let bytes = contents(40 * MIB);
    let served = bytes.clone();
    // Ten of the part's bytes, then nothing; once, as there are two attempts.
    let tears = AtomicUsize::new(0);
    let server = Server::start(move |headers, _| {
        let range = range_of(headers, &served);
        match range.filter(|range| range.start / (8 << 20) == 2) {
            Some(range) if tears.fetch_add(1, Ordering::SeqCst) < 1 => {
                let few = torn(&served[range.start..range.start + 10]);
                partial(&range, &served, "\"v1\"").body(few).unwrap()
            }
            _ => good(headers, &served, "\"v1\""),
        }
    });
    assert!(download(&server.patient(), 40 * MIB).unwrap() == bytes);
    let ranges = server.ranges();
    assert_eq!(ranges.len(), 5 + 1, "{ranges:?}");
    let part: Vec<_> = ranges.iter().filter(|range| range.ends_with("-25165823")).collect();
    // The second goes on where the first ended.
    let starts = ["16777216", "16777226"];
    assert_eq!(part.iter().map(|r| r.split('-').next().unwrap()).collect::<Vec<_>>(), starts);
}

#[test]
fn an_object_that_changes_midway_is_never_mixed() {
    let (old, new) = (contents(20 * MIB), vec![7; 20 << 20]);
    let expected = new.clone();
    // The first answer is of one version, all others of the next.
    let server = Server::start(move |headers, n| match n {
        0 => good(headers, &old, "\"old\""),
        _ => good(headers, &new, "\"new\""),
    });
    assert!(download(&server.patient(), 20 * MIB).unwrap() == expected);

    for checks in [true, false] {
        let bytes = contents(20 * MIB);
        let server = Server::start(move |headers, n| {
            let mut headers = headers.clone();
            if !checks {
                headers.remove("if-match");
            }
            good(&headers, &bytes, &format!("\"v{n}\""))
        });
        let error = download(&server.patient(), 20 * MIB).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Download);
        assert_eq!(
            error.to_string(),
            format!(
                "http://{}/c4/a changed while it was read; do not write over a dataset that is in \
                 use; try again when it is complete",
                server.address
            )
        );
    }
}

#[test]
fn a_weak_etag_is_compared_and_not_demanded() {
    let bytes = contents(20 * MIB);
    let served = bytes.clone();
    let server = Server::start(move |headers, _| {
        // By the book, no weak ETag matches.
        match headers.contains_key("if-match") {
            true => status(StatusCode::PRECONDITION_FAILED),
            false => good(headers, &served, "W/\"v1\""),
        }
    });
    assert!(download(&server.patient(), 20 * MIB).unwrap() == bytes);
    assert_eq!(server.requests(), 3);
}

#[test]
fn refusals_are_not_repeated_and_overload_is() {
    for (code, kind, asked) in [
        (StatusCode::BAD_REQUEST, ErrorKind::Download, 1),
        (StatusCode::UNAUTHORIZED, ErrorKind::PermissionDenied, 1),
        (StatusCode::FORBIDDEN, ErrorKind::PermissionDenied, 1),
        (StatusCode::NOT_FOUND, ErrorKind::NotFound, 1),
        (StatusCode::SERVICE_UNAVAILABLE, ErrorKind::Download, 2),
    ] {
        for size in [MIB, 20 * MIB] {
            let server = Server::start(move |_, _| status(code));
            assert_eq!(download(&server.patient(), size).unwrap_err().kind(), kind, "{code}");
            assert_eq!(server.requests(), asked, "{code}");
        }
    }
}

#[test]
fn a_body_that_trickles_has_stalled() {
    // 1 KiB every 100 ms: always something, never enough.
    let server = Server::start(|_, _| {
        let pieces = futures::stream::repeat(vec![1u8; 1 << 10]).then(|piece| async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok::<_, io::Error>(piece)
        });
        let body = Body::from_stream(pieces.take(4096));
        Response::builder().header("content-length", 4 << 20).body(body).unwrap()
    });
    let began = Instant::now();
    let error = server.remote(Duration::from_secs(1)).get("a", MIB * 5).unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(
        error.to_string(),
        format!(
            "cannot download http://{}/c4/a in 2 attempt(s) (Generic remote error: fewer than \
             65536 bytes came in 1s); check the network and the remote, or raise download_timeout \
             and download_retry",
            server.address
        )
    );
    assert_eq!(server.requests(), 2);
}

#[test]
fn a_slow_body_that_ends_is_good() {
    let server = Server::start(|_, _| {
        let pieces = futures::stream::iter([1u8, 2, 3]).then(|piece| async move {
            tokio::time::sleep(Duration::from_millis(400)).await;
            Ok::<_, io::Error>(vec![piece])
        });
        Response::builder().header("content-length", 3).body(Body::from_stream(pieces)).unwrap()
    });
    assert_eq!(server.remote(Duration::from_secs(1)).get("a", 9).unwrap(), [1, 2, 3]);
}

#[test]
fn a_torn_body_is_read_again_after_a_pause() {
    let bytes = contents(MIB);
    let served = bytes.clone();
    let server = Server::start(move |_, n| {
        let body = if n == 0 { torn(&served[..1000]) } else { Body::from(served.clone()) };
        Response::builder().header("content-length", served.len()).body(body).unwrap()
    });
    let began = Instant::now();
    assert!(download(&server.patient(), MIB).unwrap() == bytes);
    assert!(began.elapsed() >= FIRST_PAUSE / 2, "{:?}", began.elapsed());
    assert_eq!(server.requests(), 2);

    let server = Server::start(move |_, _| {
        Response::builder().header("content-length", 2000).body(torn(&[1; 1000])).unwrap()
    });
    let error = server.patient().get("a", 2000).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Download);
    assert_eq!(server.requests(), 2);
}

#[test]
fn parts_of_objects_come_alone() {
    let bytes = contents(MIB);
    let served = bytes.clone();
    let server = Server::start(move |headers, _| good(headers, &served, "\"v1\""));
    let remote = server.patient();
    assert_eq!(remote.get_range("a", 5..5).unwrap(), Some(vec![]));
    assert_eq!(server.requests(), 0);
    let part = remote.get_range("a", 1000..300_000).unwrap().unwrap();
    assert!(part == bytes[1000..300_000]);
    assert_eq!(server.ranges(), ["1000-299999"]);
    let past = remote.get_range("a", MIB - 1..MIB + 1).unwrap_err();
    assert_eq!(past.kind(), ErrorKind::Download);

    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a"), &bytes).unwrap();
    let folder = Remote::open(dir.path().to_str().unwrap(), RemoteOptions::default()).unwrap();
    assert!(folder.get_range("a", 7..MIB).unwrap().unwrap() == bytes[7..]);
    assert_eq!(folder.get_range("a", MIB - 1..MIB + 1).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(folder.get_range("a", 0..u64::MAX).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(folder.get_range("b", 0..1).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn pauses_grow_and_differ() {
    for _ in 0..100 {
        let (first, third, late) = (pause_after(1), pause_after(3), pause_after(99));
        assert!((FIRST_PAUSE / 2..=FIRST_PAUSE).contains(&first), "{first:?}");
        assert!((FIRST_PAUSE * 2..=FIRST_PAUSE * 4).contains(&third), "{third:?}");
        assert!((LONGEST_PAUSE / 2..=LONGEST_PAUSE).contains(&late), "{late:?}");
    }
    assert!((0..9).any(|_| pause_after(1) != pause_after(1)));
}

#[test]
fn a_dataset_of_the_hub_is_read_through_redirects_and_not_written() {
    let bytes = contents(20 * MIB);
    let served = bytes.clone();
    let storage = Server::start(move |headers, _| good(headers, &served, "\"v1\""));
    let target = format!("http://{}/blob?sig=signed", storage.address);
    let hub = Server::start(move |_, _| {
        Response::builder().status(302).header("location", &target).body(Body::empty()).unwrap()
    });
    let address = format!(
        "hf://datasets/org/name@v1.0/c4?endpoint=http://{}&token=hf_topsecret",
        hub.address
    );
    let remote = Remote::open(&address, RemoteOptions::default()).unwrap();
    assert!(download(&remote.below("val").unwrap(), 20 * MIB).unwrap() == bytes);
    assert_eq!(hub.values("x-path"), vec!["/datasets/org/name/resolve/v1.0/c4/val/a"; 3]);
    assert_eq!(hub.values("authorization"), vec!["Bearer hf_topsecret"; 3]);
    // The storage behind it belongs to others.
    assert_eq!(storage.values("authorization"), vec![""; 3]);
    // Its ETags are not the hub's, so they are compared and not demanded.
    assert_eq!(storage.values("if-match"), vec![""; 3]);

    let error = remote.put("a", "x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(
        error.to_string(),
        "hf://datasets/org/name@v1.0/c4 is a dataset of the hub, which is read and not written; \
         write to a folder or a bucket, and bring it to the hub with: hf upload"
    );
    let error = remote.folders_with("a").unwrap_err();
    assert_eq!(
        error.to_string(),
        "hf://datasets/org/name@v1.0/c4 cannot list its folders; name the folders, or work on the \
         storage behind the web server"
    );
    assert!(!format!("{remote:?}").contains("topsecret"));
}

#[test]
fn a_user_name_and_a_password_reach_the_server() {
    let server = Server::start(|headers, _| good(headers, b"abc", "\"v1\""));
    let address = format!("http://me:p%40ss+@{}/c4", server.address);
    let remote = Remote::open(&address, RemoteOptions::default()).unwrap();
    assert_eq!(remote.get("a", 9).unwrap(), b"abc");
    // me:p@ss+
    assert_eq!(server.values("authorization"), ["Basic bWU6cEBzcys="]);
    assert_eq!(server.values("host"), [server.address.to_string()]);
}
