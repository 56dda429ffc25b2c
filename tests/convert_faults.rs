//! `convert-c4 --out_root` at servers that fail: the whole split, or no index and an error in time.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/faultd.rs"]
mod faultd;
#[path = "support/listing.rs"]
mod listing;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use convert::conversion::{Content, Conversion, Earlier, OnBadLine};
use convert::error::ErrorKind;
use convert::out_root::OutRoot;
use convert::source::{NamedSplit, files_of_split};
use faultd::{Fault, Faultd};
use mds::WriterOptions;
use mds::format::HashAlgorithm;
use mds::storage::RemoteOptions;

/// The validation split of the C4 sample, in shards of about 20 KB.
fn conversion(out_root: impl Into<OsString>, timeout: Duration, attempts: u32) -> Conversion {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/c4-sample");
    Conversion {
        split: NamedSplit::Val.into(),
        files: files_of_split(source.to_str(), NamedSplit::Val, true).unwrap(),
        out_root: OutRoot::parse(out_root.into()).unwrap(),
        content: Content::Records,
        subsets: None,
        writer: WriterOptions {
            hashes: vec![HashAlgorithm::Xxh64],
            size_limit: Some(20_000),
            threads: Some(2),
            remote: RemoteOptions { timeout, attempts },
            ..WriterOptions::default()
        },
        on_bad_line: OnBadLine::Fail,
        threads: 2,
        earlier: Earlier::GoOn,
    }
}

fn files(folder: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let Ok(entries) = fs::read_dir(folder) else { return BTreeMap::new() };
    let entries = entries.map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap())).collect()
}

/// A plain web server and a bucket, at one address each.
fn addresses(server: &Faultd) -> [(&'static str, String); 2] {
    let end = server.url("");
    let keys = "access_key_id=AKIATEST&secret_access_key=TopSecret&region=us-east-1";
    let bucket = format!("s3://bucket/out?endpoint={}&{keys}", end.trim_end_matches('/'));
    [("web", server.url("web/out")), ("bucket", bucket)]
}

#[test]
fn a_storm_is_survived() {
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path().join("here");
    let options = (Duration::from_millis(800), 10);
    conversion(&here, options.0, options.1).run(&Arc::default(), &Arc::default()).unwrap();
    let expected = files(&here.join("val"));
    assert!(expected.len() > 5, "{:?}", expected.keys());
    let storms: [&[Fault]; 3] = [
        &[Fault::Status(500), Fault::Refusal(503, "SlowDown"), Fault::Status(429)],
        &[Fault::Reset, Fault::ResetInBody, Fault::Truncated, Fault::LostAnswer],
        &[Fault::Stall, Fault::Silence, Fault::Slow(100_000)],
    ];
    std::thread::scope(|scope| {
        for (number, faults) in storms.into_iter().enumerate() {
            let (served, expected) = (dir.path().join(number.to_string()), &expected);
            scope.spawn(move || {
                let server = Faultd::start(&served);
                for (at, address) in addresses(&server) {
                    server.storm("out/val/shard.", faults, 7);
                    let conversion = conversion(address, options.0, options.1);
                    let summary = conversion.run(&Arc::default(), &Arc::default()).unwrap();
                    // Beside them are the index and two files of statistics.
                    assert_eq!(summary.shards, expected.len() - 3);
                    assert!(
                        files(&served.join(at).join("out/val")) == *expected,
                        "{at} {faults:?}"
                    );
                    let requests = server.requests_for(&format!("{at}/out/val/shard."));
                    assert!(requests > summary.shards, "{requests} requests: nothing failed");
                }
            });
        }
    });
}

#[test]
fn faults_without_an_end_are_errors_in_time_and_leave_no_index() {
    let cases = [
        Fault::Status(500),
        Fault::Refusal(403, "AccessDenied"),
        Fault::Reset,
        Fault::Truncated,
        Fault::Silence,
        Fault::Slow(100),
    ];
    std::thread::scope(|scope| {
        for fault in cases {
            scope.spawn(move || {
                let dir = tempfile::tempdir().unwrap();
                let server = Faultd::start(dir.path());
                for object in ["out/val/shard.00002", "out/val/index.json"] {
                    for (at, address) in addresses(&server) {
                        server.always_uploads(object, fault);
                        let conversion = conversion(address, Duration::from_millis(400), 2);
                        let started = Instant::now();
                        let run = conversion.run(&Arc::default(), &Arc::default());
                        let (took, error) = (started.elapsed(), run.unwrap_err());
                        assert_eq!(error.kind(), ErrorKind::Write, "{error}");
                        let text = error.to_string();
                        assert!(text.contains(object) && !text.contains("TopSecret"), "{text}");
                        assert!(took < Duration::from_secs(20), "{fault:?} {took:?}: {text}");
                        let stored = files(&dir.path().join(at).join("out/val"));
                        assert!(!stored.contains_key(OsStr::new("index.json")), "{fault:?} {at}");
                    }
                }
            });
        }
    });
}

/// Ctrl-C ends a conversion whose upload gets no answer: of a shard while the source is read, and of the
/// index.
#[test]
fn a_conversion_that_waits_for_an_upload_can_be_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let here = conversion(dir.path().join("here"), Duration::from_secs(5), 1);
    let shards = here.run(&Arc::default(), &Arc::default()).unwrap().shards;
    for object in ["out/val/shard.00000", "out/val/index.json"] {
        let server = Faultd::start(dir.path());
        for (at, address) in addresses(&server) {
            server.always_uploads(object, Fault::Silence);
            let cancel = Arc::new(AtomicBool::new(false));
            let run = {
                let cancel = Arc::clone(&cancel);
                let conversion = conversion(address, Duration::from_secs(300), 1);
                std::thread::spawn(move || conversion.run(&Arc::default(), &cancel))
            };
            let is_waiting = || match object {
                // It is looked for at the start twice, before each shard, and on the web before its end.
                "out/val/index.json" => {
                    let looks = 2 + shards + usize::from(at == "web");
                    server.requests_for(&format!("{at}/{object}")) > looks
                }
                shard => server.requests_for(&format!("{at}/{shard}")) > 0,
            };
            let begun = Instant::now();
            while !is_waiting() {
                assert!(begun.elapsed() < Duration::from_secs(60), "{at} {object}: no request");
                std::thread::sleep(Duration::from_millis(5));
            }
            cancel.store(true, Ordering::SeqCst);
            let begun = Instant::now();
            let error = run.join().unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Interrupted, "{at} {object}: {error}");
            assert_eq!(error.to_string(), "stopped before the end; run the command again");
            assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
            let stored = dir.path().join(at).join("out/val");
            assert!(!stored.join("index.json").exists());
            let _ = fs::remove_dir_all(stored);
        }
    }
}

/// S3 denies the look at an object that is not there to who may not list.
#[test]
fn a_denied_look_for_an_index_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let server = Faultd::start(dir.path());
    for (at, address) in addresses(&server) {
        // That of the command and that of the writer.
        server.next("out/val/index.json", &[Fault::Status(403), Fault::Status(403)]);
        let conversion = conversion(address, Duration::from_secs(5), 1);
        conversion.run(&Arc::default(), &Arc::default()).unwrap();
        assert!(dir.path().join(at).join("out/val/index.json").is_file());
    }
}
