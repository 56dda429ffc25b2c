//! One behaviour on every kind of remote: a folder and, by `make test-servers`, real servers of
//! S3, GCS and Azure on 127.0.0.1.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/backends.rs"]
mod backends;
#[path = "support/inspect.rs"]
mod program;
mod support;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use backends::Backend;
use mds::format::{Encoding, HashAlgorithm, Index, Schema};
use mds::storage::{Remote, RemoteOptions};
use mds::{
    DatasetOptions, ErrorKind, Output, Stream, StreamingDataset, Writer, WriterOptions, merge_index,
};
use program::inspect;
use support::{Mood, Server, files};

const MIB: usize = 1 << 20;

/// One behaviour on one backend as a test of its own.
macro_rules! case {
    (here $backend:ident $behaviour:ident) => {
        #[test]
        fn $behaviour() {
            let test = concat!(stringify!($backend), "-", stringify!($behaviour));
            super::$behaviour(&super::Backend::$backend(test));
        }
    };
    (there $backend:ident $behaviour:ident) => {
        #[test]
        #[ignore = "needs real servers: make test-servers"]
        fn $behaviour() {
            let test = concat!(stringify!($backend), "-", stringify!($behaviour));
            super::$behaviour(&super::Backend::$backend(test));
        }
    };
}

macro_rules! suite {
    ($($place:ident $backend:ident: $($behaviour:ident)*;)*) => {
        $(mod $backend {
            $(case! { $place $backend $behaviour })*
        })*
    };
}

suite! {
    here folder: large_shards_come_back_as_they_went every_compression_is_read
        a_writer_goes_on_where_it_stopped names_may_be_in_any_script
        folders_are_found_over_many_pages_and_merged what_is_not_there_is_typed
        the_last_write_counts one_of_many_puts_what_is_not_there
        objects_are_listed_and_deleted parts_of_large_objects_are_equal
        programs_take_the_address;
    there s3: large_shards_come_back_as_they_went every_compression_is_read
        a_writer_goes_on_where_it_stopped names_may_be_in_any_script
        folders_are_found_over_many_pages_and_merged what_is_not_there_is_typed
        the_last_write_counts one_of_many_puts_what_is_not_there
        objects_are_listed_and_deleted parts_of_large_objects_are_equal
        programs_take_the_address;
    there gcs_hmac: large_shards_come_back_as_they_went a_writer_goes_on_where_it_stopped
        names_may_be_in_any_script what_is_not_there_is_typed
        one_of_many_puts_what_is_not_there objects_are_listed_and_deleted programs_take_the_address;
    there gcs_translated: large_shards_come_back_as_they_went every_compression_is_read
        a_writer_goes_on_where_it_stopped names_may_be_in_any_script
        folders_are_found_over_many_pages_and_merged what_is_not_there_is_typed
        the_last_write_counts one_of_many_puts_what_is_not_there
        objects_are_listed_and_deleted parts_of_large_objects_are_equal
        programs_take_the_address;
    there gcs: large_shards_come_back_as_they_went every_compression_is_read
        names_may_be_in_any_script folders_are_found_over_many_pages_and_merged
        what_is_not_there_is_typed parts_of_large_objects_are_equal programs_take_the_address;
    there azure: large_shards_come_back_as_they_went every_compression_is_read
        a_writer_goes_on_where_it_stopped names_may_be_in_any_script
        folders_are_found_over_many_pages_and_merged what_is_not_there_is_typed
        the_last_write_counts one_of_many_puts_what_is_not_there
        objects_are_listed_and_deleted parts_of_large_objects_are_equal
        programs_take_the_address;
}

/// Bytes that no compression makes shorter, different for each seed.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}

fn schema() -> Schema {
    Schema::new([("id", Encoding::Int), ("bytes", Encoding::Bytes)]).unwrap()
}

fn options(compression: Option<&str>, size_limit: usize) -> WriterOptions {
    WriterOptions {
        compression: compression.map(|code| code.parse().unwrap()),
        hashes: vec![HashAlgorithm::Xxh64],
        size_limit: Some(size_limit as u64),
        ..WriterOptions::default()
    }
}

fn add(writer: &mut Writer, ids: std::ops::Range<u64>, bytes: usize) {
    for id in ids {
        writer.write(&[noise(id, bytes).into(), (id as i64).into()]).unwrap();
    }
}

/// Writes a dataset to `path` at the backend, through a writer if it takes one.
fn write(backend: &Backend, path: &str, samples: u64, bytes: usize, options: WriterOptions) {
    if backend.takes_writers() {
        let out = Output::from(backend.address(path));
        let mut writer = Writer::create(out, schema(), options).unwrap();
        add(&mut writer, 0..samples, bytes);
        writer.finish().unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(folder.path(), schema(), options).unwrap();
    add(&mut writer, 0..samples, bytes);
    writer.finish().unwrap();
    for (name, file) in files(folder.path()) {
        backend.put(&format!("{path}/{name}"), &file);
    }
}

/// Reads every sample through a cache, cold and warm.
fn read(stream: impl Fn() -> Stream, samples: u64, bytes: usize) {
    for _ in ["cold", "warm"] {
        let dataset = StreamingDataset::open(vec![stream()], DatasetOptions::default()).unwrap();
        assert_eq!(dataset.num_samples(), samples);
        for id in 0..samples {
            let sample = dataset.sample(id).unwrap();
            assert_eq!(sample.value("id").unwrap(), (id as i64).into());
            assert!(sample.value("bytes").unwrap() == noise(id, bytes).as_slice().into(), "{id}");
        }
    }
}

fn large_shards_come_back_as_they_went(backend: &Backend) {
    // Shards of 20 MiB go up in parts and come down in parts.
    write(backend, "c4/val", 18, 5 * MIB / 2, options(None, 20 * MIB));
    let text = backend.remote("c4/val").get("index.json", 1 << 20).unwrap();
    let sizes: Vec<_> =
        Index::parse(&text).unwrap().shards.iter().map(|shard| shard.raw_data.bytes).collect();
    assert_eq!(sizes.len(), 3);
    assert!(sizes[0] > 16 << 20, "{sizes:?}");
    let cache = tempfile::tempdir().unwrap();
    let stream = || Stream::cached(backend.address("c4"), cache.path()).split("val");
    read(stream, 18, 5 * MIB / 2);
    for (name, bytes) in files(&cache.path().join("val")) {
        assert!(backend.remote("c4/val").get(&name, 1 << 30).unwrap() == bytes, "{name}");
    }
    // Nothing is left of it at the local end, and without a local folder it works as well.
    let remote = Some(backend.address("c4/val"));
    read(|| Stream { remote: remote.clone(), ..Stream::default() }, 18, 5 * MIB / 2);
}

fn every_compression_is_read(backend: &Backend) {
    for code in ["zstd", "br", "gz", "bz2", "snappy"] {
        write(backend, code, 30, 1000, options(Some(code), 10_000));
        let cache = tempfile::tempdir().unwrap();
        read(|| Stream::cached(backend.address(code), cache.path()), 30, 1000);
    }
}

fn a_writer_goes_on_where_it_stopped(backend: &Backend) {
    let dir = tempfile::tempdir().unwrap();
    let out = || Output::Both { local: dir.path().join("c4"), remote: backend.address("c4") };
    // One thread: what it has written is at the remote.
    let options = || WriterOptions { threads: Some(1), ..options(Some("zstd"), 10_000) };
    let mut writer = Writer::create(out(), schema(), options()).unwrap();
    add(&mut writer, 0..25, 1000);
    writer.abandon().unwrap();
    assert_eq!(backend.remote("c4").size("index.json").unwrap(), None);
    let mut writer = Writer::resume(out(), schema(), options()).unwrap();
    let begun = writer.samples();
    assert!((9..=25).contains(&begun), "{begun}");
    add(&mut writer, begun..40, 1000);
    writer.finish().unwrap();
    for (name, bytes) in files(&dir.path().join("c4")) {
        let size = backend.remote("c4").size(&name).unwrap();
        assert_eq!(size, Some(bytes.len() as u64), "{name}");
        assert!(backend.remote("c4").get(&name, 1 << 20).unwrap() == bytes, "{name}");
    }
    let cache = tempfile::tempdir().unwrap();
    read(|| Stream::cached(backend.address("c4"), cache.path()), 40, 1000);
    // A complete dataset is not written over.
    let out = Output::from(backend.address("c4"));
    let error = Writer::create(out, schema(), options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.to_string().contains(&backend.shown("c4")), "{error}");
}

fn names_may_be_in_any_script(backend: &Backend) {
    for folder in ["daß größte/数据 集", "a+b & c=d;e,f", "o'neil (1)~!$*"] {
        write(backend, &format!("n/{folder}/val"), 5, 100, options(None, 10_000));
        let cache = tempfile::tempdir().unwrap();
        let address = backend.address(&format!("n/{folder}"));
        read(|| Stream::cached(&address, cache.path()).split("val"), 5, 100);
        let found = backend.remote("n").folders_with("index.json").unwrap();
        assert!(found.contains(&format!("{folder}/val")), "{found:?}");
    }
}

fn folders_are_found_over_many_pages_and_merged(backend: &Backend) {
    // The servers list a thousand at a time, Azurite five thousand: other objects fill pages too.
    const FOLDERS: usize = 1005;
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= FOLDERS {
                        return;
                    }
                    backend.put(&format!("many/{n:04}/index.json"), b"{}");
                }
            });
        }
    });
    let found = backend.remote("many").folders_with("index.json").unwrap();
    let expected: Vec<_> = (0..FOLDERS).map(|n| format!("{n:04}")).collect();
    assert_eq!(found, expected);

    for part in ["parts/b", "parts/a/1", "parts/a/0"] {
        write(backend, part, 7, 100, options(None, 10_000));
    }
    let parts = backend.remote("parts").folders_with("index.json").unwrap();
    assert_eq!(parts, ["a/0", "a/1", "b"]);
    if !backend.takes_writers() {
        return;
    }
    let index = merge_index(&backend.address("parts"), RemoteOptions::default()).unwrap();
    assert_eq!(index.samples(), 21);
    let cache = tempfile::tempdir().unwrap();
    let stream = Stream::cached(backend.address("parts"), cache.path());
    let dataset = StreamingDataset::open(vec![stream], DatasetOptions::default()).unwrap();
    for id in 0..21 {
        let bytes = noise(id % 7, 100);
        assert!(dataset.sample(id).unwrap().value("bytes").unwrap() == bytes.as_slice().into());
    }
}

fn what_is_not_there_is_typed(backend: &Backend) {
    backend.put("c4/a", b"abc");
    let remote = backend.remote("c4");
    assert_eq!(remote.size("a").unwrap(), Some(3));
    assert_eq!(remote.size("b").unwrap(), None);
    assert_eq!(remote.get("a", 2).unwrap_err().kind(), ErrorKind::Corrupt);
    let missing = remote.get("b", 9).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    if !backend.is_folder() {
        assert_eq!(
            missing.to_string(),
            format!("{}/b does not exist; check the address and the split", backend.shown("c4"))
        );
    }
    let cache = tempfile::tempdir().unwrap();
    let stream = Stream::cached(backend.address("none"), cache.path());
    let error = StreamingDataset::open(vec![stream], DatasetOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");

    for stranger in &backend.strangers {
        let address = backend.address_with("c4", stranger);
        let remote = Remote::open(&address, RemoteOptions::default()).unwrap();
        for error in [
            remote.get("a", 9).unwrap_err(),
            remote.size("a").unwrap_err(),
            remote.put("a", "x").unwrap_err(),
            remote.folders_with("a").unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{stranger}: {error}");
            let all = format!("{error} {error:?} {remote:?}");
            assert!(!all.contains("wrong") && !all.contains("d3Jvbmc="), "{all}");
        }
    }
    assert_eq!(backend.remote("c4").get("a", 9).unwrap(), b"abc");
}

fn the_last_write_counts(backend: &Backend) {
    let remote = backend.remote("c4");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    for (seed, size) in [(1, 10), (2, 0), (3, 17 * MIB + 3), (4, 1), (5, 33 * MIB)] {
        let bytes = noise(seed, size);
        std::fs::write(&file, &bytes).unwrap();
        remote.put_file("a", &file).unwrap();
        assert!(remote.get("a", 1 << 30).unwrap() == bytes, "{size}");
        assert_eq!(remote.size("a").unwrap(), Some(size as u64));
    }
}

/// Of eight programs that put an object at once, one has put it.
fn one_of_many_puts_what_is_not_there(backend: &Backend) {
    for round in 0..4 {
        let name = format!("new/{round}");
        let put: Vec<bool> = std::thread::scope(|scope| {
            let puts = [0, 1, 2, 3, 4, 5, 6, 7].map(|number| {
                let (remote, name) = (backend.remote("c4"), name.clone());
                scope.spawn(move || remote.put_new(&name, vec![number; 1000]).unwrap())
            });
            puts.into_iter().map(|put| put.join().unwrap()).collect()
        });
        assert_eq!(put.iter().filter(|put| **put).count(), 1, "{put:?}");
        let first = put.iter().position(|put| *put).unwrap() as u8;
        let remote = backend.remote("c4");
        assert_eq!(remote.get(&name, 1000).unwrap(), vec![first; 1000]);
        assert!(remote.put_new(&name, vec![first; 1000]).unwrap(), "the same");
        assert!(!remote.put_new(&name, "").unwrap());
    }
}

fn objects_are_listed_and_deleted(backend: &Backend) {
    let remote = backend.remote("run");
    assert_eq!(remote.objects().unwrap(), [""; 0]);
    assert!(remote.can_list());
    let names = ["a", "a b/ü#1", "b/c/d", "b/c/e", "b/f"];
    for name in names {
        remote.put(name, name.as_bytes().to_vec()).unwrap();
    }
    // Beside it, with a name that begins alike.
    backend.put("run2/x", b"x");
    assert_eq!(remote.objects().unwrap(), names);
    assert_eq!(backend.remote("run/b").objects().unwrap(), ["c/d", "c/e", "f"]);
    for name in ["a b/ü#1", "b/c/e", "b/c/none"] {
        remote.delete(name).unwrap();
    }
    remote.delete("b/c/e").unwrap();
    assert_eq!(remote.objects().unwrap(), ["a", "b/c/d", "b/f"]);
}

fn parts_of_large_objects_are_equal(backend: &Backend) {
    let bytes = noise(9, 40 * MIB + 5);
    backend.put("large", &bytes);
    let remote = backend.remote("");
    assert!(remote.get("large", 1 << 30).unwrap() == bytes);
    for range in [0..1, 7..20 * MIB, 40 * MIB..40 * MIB + 5] {
        let wanted = range.start as u64..range.end as u64;
        let part = remote.get_range("large", wanted).unwrap();
        assert!(part.unwrap() == bytes[range.clone()], "{range:?}");
    }
    let past = remote.get_range("large", 41 * MIB as u64..42 * MIB as u64);
    assert!(past.is_err());
}

fn programs_take_the_address(backend: &Backend) {
    write(backend, "c4/val", 20, 1000, options(Some("zstd"), 10_000));
    let (address, split) = (backend.address("c4"), backend.address("c4/val"));
    let shown = backend.shown("c4/val");
    let dir = tempfile::tempdir().unwrap();
    let local = dir.path().join("cache");
    let converted = dir.path().join("parquet");
    let (local, converted) = (local.to_str().unwrap(), converted.to_str().unwrap());
    let runs: &[(&[&str], &str)] = &[
        (&["info", &address], &shown),
        (&["verify", &split], "20 samples"),
        (&["sample", &address, "7"], "id (int): 7"),
        (&[&address, local], "read 20 samples"),
        (&["convert", &split, converted, "--to", "parquet"], ""),
        (&["info", &backend.address("none")], "there is no dataset"),
    ];
    for (args, expected) in runs {
        let run = inspect(args).env("RUST_LOG", "trace").output();
        let all = run.out + &run.err;
        assert!(all.contains(expected), "{args:?}: {all}");
        assert_eq!(run.code, i32::from(*expected == "there is no dataset"), "{args:?}: {all}");
        assert_hides(backend, &all);
    }
    assert!(!files(Path::new(converted)).is_empty());
    if backend.takes_writers() {
        let copy = backend.address("copy");
        let run = inspect(&["convert", &split, &copy, "--to", "mds", "--compression", "gz"]);
        let run = run.env("RUST_LOG", "trace").output();
        assert_eq!(run.code, 0, "{}{}", run.out, run.err);
        assert_hides(backend, &(run.out + &run.err));
        read(|| Stream::cached(&copy, dir.path().join("copy")), 20, 1000);
        // Parquet there and back, and one file of it.
        let (parquet, mds) = (backend.address("parquet"), dir.path().join("back"));
        let one = backend.address("parquet/part-00000.parquet");
        let back = mds.to_str().unwrap();
        let one_back = dir.path().join("one");
        let picture = backend.address("parquet-order.svg");
        let runs: &[&[&str]] = &[
            &["convert", &split, &parquet, "--to", "parquet"],
            &["convert", &parquet, back],
            &["convert", &one, one_back.to_str().unwrap()],
            &["order", &split, "--svg", &picture],
        ];
        for args in runs {
            let run = inspect(args).env("RUST_LOG", "trace").output();
            assert_eq!(run.code, 0, "{args:?}: {}{}", run.out, run.err);
            assert_hides(backend, &(run.out + &run.err));
        }
        read(|| Stream::local(&mds), 20, 1000);
        let here = files(Path::new(converted)).into_keys().collect::<Vec<_>>();
        let there = backend.remote("parquet");
        assert_eq!(there.objects().unwrap(), here);
        assert!(here.len() > 1);
        for name in here.iter().chain([&here[0]]) {
            there.delete(name).unwrap();
            let left = there.objects().unwrap_or_default();
            if !left.is_empty() && parquet.contains("://") {
                // What a killed upload leaves is not taken for the whole.
                let run = inspect(&["convert", &parquet, dir.path().join("no").to_str().unwrap()]);
                let run = run.output();
                assert!(run.err.contains("has parts, but no part-00000.parquet"), "{}", run.err);
            }
        }
        assert!(there.objects().unwrap_or_default().is_empty());
        assert!(backend.remote("").size("parquet-order.svg").unwrap().is_some_and(|n| n > 1000));
    }
    for stranger in &backend.strangers {
        let run = inspect(&["info", &backend.address_with("c4", stranger)]).output();
        assert_eq!(run.code, 1);
        assert!(run.err.contains("denied"), "{}", run.err);
        assert!(!run.err.contains("wrongsecret"), "{}", run.err);
    }
    let remote = backend.remote("c4");
    assert_hides(backend, &format!("{remote:?} {} {}", remote.address(), mds::redacted(&address)));
    // What is kept beside the data may be shown to others.
    for (name, bytes) in files(dir.path()) {
        assert_hides(backend, &format!("{name} {}", String::from_utf8_lossy(&bytes)));
    }
}

fn assert_hides(backend: &Backend, text: &str) {
    for secret in &backend.secrets {
        let at = text.find(secret);
        let around = at.map(|at| text[..at].lines().next_back());
        assert!(at.is_none(), "a secret follows {around:?}");
    }
}

#[test]
fn what_is_in_an_address_is_in_no_error_and_no_log() {
    let dir = tempfile::tempdir().unwrap();
    support::write(&dir.path().join("bucket/c4"), 5, &support::PLAIN);
    let server = Server::start(dir.path());
    let end = server.url("").trim_end_matches('/').to_owned();
    let host = end.trim_start_matches("http://").to_owned();
    let addresses = [
        format!("s3://bucket/c4?endpoint={end}&access_key_id=AK&secret_access_key=TopSecret/1%2B+"),
        format!(
            "s3://bucket/c4?endpoint={end}&access_key_id=AK&secret_access_key=TopSecret&token=TopSecretToken"
        ),
        format!("gs://bucket/c4?endpoint={end}&access_key_id=AK&secret_access_key=TopSecret"),
        format!("gs://bucket/c4?base_url={end}&bearer_token=TopSecret"),
        format!("az://bucket/c4?endpoint={end}&account_name=a&account_key=VG9wU2VjcmV0"),
        format!(
            "az://bucket/c4?endpoint={end}&account_name=a&sas_token=sv%3D1%26sig%3DTopSecret%252B"
        ),
        format!("az://bucket/c4?endpoint={end}&account_name=a&bearer_token=TopSecret"),
        format!("hf://datasets/o/n/c4?endpoint={end}&token=TopSecret"),
        format!("http://me:TopSecret@{host}/bucket/c4"),
        // What cannot be used at all.
        "s3://bucket/c4?TopSecret".to_owned(),
        "s3://bucket/c4?key=TopSecret".to_owned(),
        "s3://AK:TopSecret@bucket/c4".to_owned(),
        "s3://AK:Top/TopSecret@bucket/c4".to_owned(),
        "az://bucket/c4?account_name=a&account_key=TopSecret%21".to_owned(),
        "gs://bucket/c4?service_account_key={TopSecret}".to_owned(),
        "gs://bucket/c4?service_account=/TopSecret/no.json".to_owned(),
        "sftp://me:TopSecret@h/c4".to_owned(),
        "http://h/c4?sig=TopSecret".to_owned(),
    ];
    for mood in [Mood::Well, Mood::Forbidding, Mood::Overloaded] {
        server.set_mood(mood);
        for address in &addresses {
            let run = inspect(&["info", address]).env("RUST_LOG", "trace").output();
            let all = run.out + &run.err;
            for secret in ["TopSecret", "VG9wU2VjcmV0"] {
                assert!(!all.contains(secret), "{address}: {all}");
            }
            let shown = mds::redacted(address);
            assert!(!shown.contains("TopSecret"), "{shown}");
            let stream = Stream::cached(address, dir.path().join("none"));
            let out = Output::from(address.as_str());
            let remote = Remote::open(address, RemoteOptions::default());
            let error = remote.as_ref().err().map(|error| format!("{error} {error:?}"));
            let all = format!("{stream:?} {out:?} {:?} {error:?}", remote.ok());
            assert!(!all.contains("TopSecret"), "{all}");
        }
    }
}
