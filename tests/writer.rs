//! The writer, as a user's program drives it: any number of threads, remotes, failures, and being
//! killed at any moment.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/bucket.rs"]
mod bucket;
#[path = "support/listing.rs"]
mod listing;
#[path = "support/store.rs"]
mod store;
mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use bucket::Bucket;
use mds::format::{Encoding, HashAlgorithm, Schema, ShardTable, Value};
use mds::storage::RemoteOptions;
use mds::{ErrorKind, Output, Writer, WriterOptions};
use store::Store;
use support::{files, within};

const LIMIT: Duration = Duration::from_secs(120);
const SAMPLES: u64 = 300;

fn schema() -> Schema {
    Schema::new([("id", Encoding::Int), ("text", Encoding::Str)]).unwrap()
}

fn options(threads: usize, compression: Option<&str>) -> WriterOptions {
    WriterOptions {
        format: mds::format::Format::Mds,
        compression: compression.map(|text| text.parse().unwrap()),
        hashes: vec![HashAlgorithm::Sha1, HashAlgorithm::Xxh64],
        size_limit: Some(1500),
        threads: Some(threads),
        remote: RemoteOptions { timeout: Duration::from_secs(10), attempts: 1 },
    }
}

fn row(id: u64) -> [Value<'static>; 2] {
    [Value::Int(id as i64), format!("text {id} ").repeat(id as usize * 7 % 11).into()]
}

fn write_rest(writer: &mut Writer) -> mds::Result<()> {
    (writer.samples()..SAMPLES).try_for_each(|id| writer.write(&row(id)))
}

/// The files of the dataset written in one go on one thread.
fn expected(compression: Option<&str>) -> BTreeMap<String, Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(dir.path(), schema(), options(1, compression)).unwrap();
    write_rest(&mut writer).unwrap();
    assert!(writer.finish().unwrap().shards.len() > 8);
    files(dir.path())
}

/// A folder with the first `samples` samples, as a killed writer leaves it.
fn begun(dir: &Path, compression: Option<&str>, samples: u64) {
    let mut writer = Writer::create(dir, schema(), options(2, compression)).unwrap();
    (0..samples).for_each(|id| writer.write(&row(id)).unwrap());
    writer.abandon().unwrap();
    assert!(!dir.join("index.json").exists());
}

#[test]
fn the_bytes_do_not_depend_on_threads_or_on_the_way_in() {
    for compression in [None, Some("zstd"), Some("zstd:1")] {
        for hashes in [vec![], vec![HashAlgorithm::Sha256], HashAlgorithm::ALL.to_vec()] {
            let write = |threads: Option<usize>, add: &dyn Fn(&mut Writer)| {
                let dir = tempfile::tempdir().unwrap();
                let hashes = hashes.clone();
                let options = WriterOptions { threads, hashes, ..options(1, compression) };
                let mut writer = Writer::create(dir.path(), schema(), options).unwrap();
                add(&mut writer);
                let index = writer.finish().unwrap();
                let files = files(dir.path());
                assert_eq!(files["index.json"], index.to_json().into_bytes());
                (files, index.samples())
            };
            let one_by_one = |writer: &mut Writer| write_rest(writer).unwrap();
            let rows: Vec<_> = (0..SAMPLES).map(row).collect();
            let together = |writer: &mut Writer| {
                for part in rows.chunks(119) {
                    writer.write_rows(part).unwrap();
                }
            };
            let encoded = |writer: &mut Writer| {
                let mut sample = Vec::new();
                for row in &rows {
                    writer.schema().encode_sample(row, &mut sample).unwrap();
                    writer.write_encoded(&sample).unwrap();
                }
            };
            let first = write(Some(1), &one_by_one);
            assert_eq!(first.1, SAMPLES);
            for threads in [Some(1), Some(2), Some(4), None] {
                assert!(write(threads, &one_by_one) == first, "{threads:?} {compression:?}");
                assert!(write(threads, &together) == first, "{threads:?} {compression:?}");
                assert!(write(threads, &encoded) == first, "{threads:?} {compression:?}");
            }
        }
    }
}

#[test]
fn a_bad_row_among_many_is_named_and_those_before_it_are_there() {
    for threads in [1, 3] {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::create(dir.path(), schema(), options(threads, None)).unwrap();
        let mut rows: Vec<_> = (0..100).map(row).collect();
        rows[60] = ["no".into(), "number".into()];
        rows[80] = ["no".into(), "number".into()];
        assert_eq!(
            writer.write_rows(&rows).unwrap_err().to_string(),
            format!(
                "dataset {}, sample 60, column id: the encoding int does not take a text; give an \
                 integer from -9223372036854775808 to 9223372036854775807",
                dir.path().display()
            )
        );
        assert_eq!(writer.samples(), 60);
        writer.write_rows(&rows[61..80]).unwrap();
        assert_eq!(writer.finish().unwrap().samples(), 79);
    }
}

#[test]
fn encoded_samples_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(dir.path(), schema(), options(1, None)).unwrap();
    let error = writer.write_encoded(b"\x05\0\0\0\x07\0\0\0\0\0\0\0a.b").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(
        error.to_string(),
        format!(
            "dataset {}, sample 0, byte 12, column text: the value takes 5 bytes, but only 3 are left of \
             the sample's 15; fetch the shard again, or write it again from its source",
            dir.path().display()
        )
    );
    writer.write_encoded(b"\x03\0\0\0\x07\0\0\0\0\0\0\0a.b").unwrap();
    assert_eq!((writer.samples(), writer.bytes()), (1, 15));
}

/// A folder in the place of a shard makes writing it fail.
#[test]
fn a_failure_of_a_thread_surfaces_and_leaves_no_index() {
    for threads in [1, 2, 4] {
        for compression in [None, Some("zstd")] {
            let dir = tempfile::tempdir().unwrap();
            let out = dir.path().join("a");
            let mut writer = Writer::create(&out, schema(), options(threads, compression)).unwrap();
            let name =
                if compression.is_some() { "shard.00003.mds.zstd" } else { "shard.00003.mds" };
            std::fs::create_dir(out.join(name)).unwrap();
            // It shows at the next sample after the thread has failed.
            let deadline = Instant::now() + Duration::from_secs(20);
            let mut written = write_rest(&mut writer);
            while written.is_ok() && Instant::now() < deadline {
                written = writer.write(&row(0));
            }
            let error = written.unwrap_err();
            assert_eq!(error.position().shard.as_deref(), Some(name));
            assert_eq!(
                error.to_string(),
                format!(
                    "dataset {0}, shard {name}: cannot write {0}/{name}; check the path",
                    out.display()
                )
            );
            let lost = writer.write(&row(1)).unwrap_err().to_string();
            assert!(lost.contains("the writer has lost a shard"), "{lost}");
            assert_eq!(writer.finish().unwrap_err().to_string(), lost);
            std::fs::remove_dir(out.join(name)).unwrap();
            assert!(files(dir.path()).is_empty(), "{:?}", files(dir.path()).keys());
        }
    }
}

#[test]
fn a_failure_of_the_last_shards_surfaces_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(dir.path(), schema(), options(2, None)).unwrap();
    writer.write(&row(1)).unwrap();
    std::fs::create_dir(dir.path().join("shard.00000.mds")).unwrap();
    let error = writer.finish().unwrap_err();
    assert_eq!(error.position().shard.as_deref(), Some("shard.00000.mds"));
    assert!(files(dir.path()).is_empty());
}

#[test]
fn dropped_unfinished_it_leaves_nothing_whatever_is_in_work() {
    for samples in [1, 20, 100, 300] {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("a").join("b");
        let mut writer = Writer::create(&out, schema(), options(4, Some("zstd"))).unwrap();
        (0..samples).for_each(|id| writer.write(&row(id)).unwrap());
        drop(writer);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

#[test]
fn an_abandoned_dataset_is_resumed_to_the_same_bytes() {
    for compression in [None, Some("zstd")] {
        let expected = expected(compression);
        for samples in [0, 1, 50, 150, 299, 300] {
            let dir = tempfile::tempdir().unwrap();
            begun(dir.path(), compression, samples);
            let mut writer = Writer::resume(dir.path(), schema(), options(3, compression)).unwrap();
            assert!(writer.samples() <= samples && writer.samples() + 100 > samples);
            write_rest(&mut writer).unwrap();
            writer.finish().unwrap();
            assert!(files(dir.path()) == expected, "{samples} {compression:?}");
        }
        let missing = tempfile::tempdir().unwrap();
        let dir = missing.path().join("a");
        let mut writer = Writer::resume(&dir, schema(), options(2, compression)).unwrap();
        write_rest(&mut writer).unwrap();
        writer.finish().unwrap();
        assert!(files(&dir) == expected);
    }
}

/// The last shard may be one that `finish` closed early: everything but the index is there.
#[test]
fn a_dataset_without_its_index_is_resumed_and_extended() {
    let expected = expected(Some("zstd"));
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(dir.path(), schema(), options(2, Some("zstd"))).unwrap();
    (0..100).for_each(|id| writer.write(&row(id)).unwrap());
    let bytes = writer.bytes();
    writer.finish().unwrap();
    std::fs::remove_file(dir.path().join("index.json")).unwrap();
    let mut writer = Writer::resume(dir.path(), schema(), options(2, Some("zstd"))).unwrap();
    assert_eq!((writer.samples(), writer.bytes()), (100, bytes));
    write_rest(&mut writer).unwrap();
    writer.finish().unwrap();
    assert!(files(dir.path()) == expected);
}

#[test]
fn an_empty_first_shard_and_one_beyond_the_limit_are_resumed() {
    let large = |id: i64| [Value::Int(id), "x".repeat(4000).into()];
    let write = |dir: &Path, ids: std::ops::Range<i64>, resume: bool| {
        let begin = if resume { Writer::resume } else { Writer::create };
        let mut writer = begin(dir, schema(), options(2, None)).unwrap();
        ids.for_each(|id| writer.write(&large(id)).unwrap());
        writer
    };
    let whole = tempfile::tempdir().unwrap();
    write(whole.path(), 0..4, false).finish().unwrap();
    for kept in 1..4 {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 0..kept, false).abandon().unwrap();
        // Shard 0 is empty, and the last sample was not published.
        write(dir.path(), kept - 1..4, true).finish().unwrap();
        assert!(files(dir.path()) == files(whole.path()), "{kept}");
    }
}

type Damage<'a> = (&'a str, &'a dyn Fn(&Path));

#[test]
fn what_cannot_be_used_is_written_again() {
    for compression in [None, Some("zstd")] {
        let expected = expected(compression);
        let suffix = if compression.is_some() { ".zstd" } else { "" };
        let damages: [Damage<'_>; 5] = [
            ("cut", &|path| {
                let bytes = std::fs::read(path).unwrap();
                std::fs::write(path, &bytes[..bytes.len() - 3]).unwrap();
            }),
            ("empty", &|path| std::fs::write(path, "").unwrap()),
            ("noise", &|path| std::fs::write(path, [0x5a; 999]).unwrap()),
            ("gone", &|path| std::fs::remove_file(path).unwrap()),
            ("last gone", &|path| {
                let next = path.with_file_name(format!("shard.00004.mds{suffix}"));
                std::fs::remove_file(next).unwrap();
            }),
        ];
        for (what, damage) in damages {
            let dir = tempfile::tempdir().unwrap();
            begun(dir.path(), compression, 250);
            damage(&dir.path().join(format!("shard.00003.mds{suffix}")));
            std::fs::write(dir.path().join(".tmpX1.part"), "left over").unwrap();
            std::fs::write(dir.path().join("notes.txt"), "mine").unwrap();
            let mut writer = Writer::resume(dir.path(), schema(), options(2, compression)).unwrap();
            let left = files(dir.path());
            assert_eq!(left.len(), if what == "last gone" { 5 } else { 4 }, "{what}");
            write_rest(&mut writer).unwrap();
            writer.finish().unwrap();
            let mut found = files(dir.path());
            assert_eq!(found.remove("notes.txt").unwrap(), b"mine");
            assert!(found == expected, "{what} {compression:?}");
        }
    }
}

#[test]
fn only_what_was_begun_alike_is_resumed() {
    let dir = tempfile::tempdir().unwrap();
    begun(dir.path(), None, 100);
    let before = files(dir.path());
    let refusal = |schema: Schema, options: WriterOptions| {
        let error = Writer::resume(dir.path(), schema, options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        error.to_string()
    };
    let start = format!("dataset {}, shard shard.00000.mds: ", dir.path().display());
    let remedy = "resume with the schema and the options that the dataset was begun with";
    let size_limit = Some(2000);
    assert_eq!(
        refusal(schema(), WriterOptions { size_limit, ..options(1, None) }),
        format!("{start}the shard was written with size_limit 1500, not 2000; {remedy}")
    );
    let other = Schema::new([("id", Encoding::Int), ("text", Encoding::Bytes)]).unwrap();
    assert_eq!(
        refusal(other, options(1, None)),
        format!(
            "{start}the shard was written with column_encodings [\"int\",\"str\"], not \
             [\"int\",\"bytes\"]; {remedy}"
        )
    );
    assert_eq!(
        refusal(schema(), options(1, Some("zstd"))),
        format!(
            "dataset {}: the folder holds shard.00000.mds, but these options write \
             shard.00000.mds.zstd; resume with the options that the dataset was begun with",
            dir.path().display()
        )
        .replace("shard.00000", &first_listed(dir.path()))
    );
    assert_eq!(files(dir.path()), before, "a refusal removes nothing");

    let mut writer = Writer::resume(dir.path(), schema(), options(1, None)).unwrap();
    write_rest(&mut writer).unwrap();
    writer.finish().unwrap();
    let error = Writer::resume(dir.path(), schema(), options(1, None)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(
        error.to_string(),
        format!(
            "the dataset {} is complete; read it, or choose another folder for a new one",
            dir.path().display()
        )
    );
    let error = Writer::resume("http://127.0.0.1:9/x", schema(), options(1, None)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a dataset that goes to a remote alone cannot be resumed without the entries of its shards; \
         keep them (complete_shards) and use resume_after, write to a local folder too, or write the \
         dataset again"
    );
}

/// The stem of the shard that the folder lists first: file systems have orders of their own.
fn first_listed(dir: &Path) -> String {
    let names = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name());
    let name = names.map(|name| name.into_string().unwrap()).find(|n| n.starts_with("shard."));
    name.unwrap().trim_end_matches(".mds").to_owned()
}

#[test]
fn a_resumed_writer_that_is_dropped_keeps_the_earlier_work() {
    let dir = tempfile::tempdir().unwrap();
    begun(dir.path(), None, 100);
    let before = files(dir.path());
    let mut writer = Writer::resume(dir.path(), schema(), options(2, None)).unwrap();
    writer.write(&row(writer.samples())).unwrap();
    drop(writer);
    assert_eq!(files(dir.path()), before);
}

/// What a child process of these tests is to do.
const TASK: &str = "MDS_WRITER_TEST_TASK";

fn child(task: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "in_a_child_process", "--nocapture", "--test-threads=1"])
        .env(TASK, task)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Does nothing unless another test starts it.
#[test]
fn in_a_child_process() {
    let Ok(task) = std::env::var(TASK) else { return };
    let words: Vec<&str> = task.split('\t').collect();
    match words[..] {
        ["write", compression, local, remote] => write_slowly(compression, local, remote),
        ["memory", threads, compression, dir] => write_much(threads, compression, dir),
        _ => panic!("{task}"),
    }
}

fn write_slowly(compression: &str, local: &str, remote: &str) {
    let out = Output::Both { local: local.into(), remote: remote.to_owned() };
    let compression = Some(compression).filter(|code| !code.is_empty());
    let mut writer = Writer::resume(out, schema(), options(2, compression)).unwrap();
    for id in writer.samples()..SAMPLES {
        writer.write(&row(id)).unwrap();
        std::thread::sleep(Duration::from_micros(1500));
    }
    writer.finish().unwrap();
}

#[test]
fn killed_at_any_moment_it_goes_on_to_the_same_bytes() {
    for compression in ["", "zstd"] {
        let expected = expected(Some(compression).filter(|code| !code.is_empty()));
        let dir = tempfile::tempdir().unwrap();
        let (local, remote) = (dir.path().join("local"), dir.path().join("remote"));
        let task = format!("write\t{compression}\t{}\t{}", local.display(), remote.display());
        let mut seed = u64::from(std::process::id()) | 1;
        let mut kills = 0;
        let mut last = 0;
        while kills < 10 {
            // Other moments in each run; the whole takes about 500 ms.
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let pause = Duration::from_micros(3_000 + (seed >> 33) % 90_000);
            let mut writer = child(&task);
            std::thread::sleep(pause);
            writer.kill().unwrap();
            let status = writer.wait().unwrap();
            if status.success() {
                break;
            }
            kills += 1;
            if local.join("index.json").exists() {
                break; // it was about to exit
            }
            let shards = files(&local).keys().filter(|name| name.starts_with("shard.")).count();
            assert!(shards >= last, "work was lost: {shards} shards after {last}");
            last = shards;
        }
        if !local.join("index.json").exists() {
            assert!(within(LIMIT, move || child(&task).wait()).unwrap().success());
        }
        assert!(kills > 1 && last > 0, "{kills} kills, {last} shards");
        assert!(files(&local) == expected, "{:?}", files(&local).keys());
        let mut uploaded = files(&remote);
        uploaded.retain(|name, _| !name.ends_with(".part"));
        assert!(uploaded == expected, "{:?}", uploaded.keys());
    }
}

/// Nine shards of 64 MiB of bytes that do not compress: the worst case for memory.
fn write_much(threads: &str, compression: &str, dir: &str) {
    let options = WriterOptions {
        compression: Some(compression).filter(|c| !c.is_empty()).map(|c| c.parse().unwrap()),
        hashes: vec![HashAlgorithm::Xxh64],
        threads: Some(threads.parse().unwrap()),
        ..WriterOptions::default()
    };
    let schema = Schema::new([("x", Encoding::Bytes)]).unwrap();
    let mut writer = Writer::create(Path::new(dir), schema, options).unwrap();
    let mut sample = vec![0u8; 1 << 16];
    let mut state = 1u64;
    for _ in 0..9 * 1024 {
        for word in sample.as_chunks_mut::<8>().0 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *word = state.to_le_bytes();
        }
        writer.write(&[Value::from(sample.as_slice())]).unwrap();
    }
    writer.finish().unwrap();
    if cfg!(target_os = "linux") {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        let peak: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        let limit = 3 * 64 * 1024 * threads.parse::<u64>().unwrap();
        eprintln!("{threads} threads, {compression:?}: peak {peak} KiB of {limit} KiB");
        assert!(peak <= limit, "{peak} KiB with {threads} threads");
    }
}

#[test]
fn the_memory_is_below_three_shards_for_each_thread() {
    for (threads, compression) in [(1, ""), (1, "zstd"), (2, ""), (2, "zstd"), (4, "zstd")] {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let task = format!("memory\t{threads}\t{compression}\t{}", out.display());
        assert!(within(LIMIT, move || child(&task).wait()).unwrap().success());
    }
}

fn both(local: &Path, remote: &str) -> Output {
    Output::Both { local: local.to_path_buf(), remote: remote.to_owned() }
}

#[test]
fn a_remote_receives_every_file_and_the_index_last() {
    for (threads, compression) in [(1, None), (2, Some("zstd")), (4, None)] {
        let expected = expected(compression);
        let store = Store::start();
        let mut writer =
            Writer::create(store.url.as_str(), schema(), options(threads, compression)).unwrap();
        write_rest(&mut writer).unwrap();
        writer.finish().unwrap();
        assert!(store.objects() == expected);
        let puts = store.take_puts();
        assert_eq!(puts.len(), expected.len(), "each file once");
        assert_eq!(puts.last().unwrap(), "index.json");

        let error =
            Writer::create(store.url.as_str(), schema(), options(1, compression)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(
            error.to_string(),
            format!(
                "the remote {} holds a dataset; choose another one, or delete it first if its \
                 data may go",
                store.url
            )
        );

        let (store, dir) = (Store::start(), tempfile::tempdir().unwrap());
        let out = both(&dir.path().join("a"), &store.url);
        let mut writer = Writer::create(out, schema(), options(threads, compression)).unwrap();
        write_rest(&mut writer).unwrap();
        writer.finish().unwrap();
        assert!(store.objects() == expected);
        assert!(files(&dir.path().join("a")) == expected);
    }
}

#[test]
fn a_folder_may_be_the_remote() {
    let expected = expected(Some("zstd"));
    let dir = tempfile::tempdir().unwrap();
    let remote = dir.path().join("x").join("y");
    let outs = [
        Output::Remote(format!("file://{}", remote.join("1").display())),
        Output::Remote(remote.join("2").display().to_string()),
        both(&dir.path().join("local"), &remote.join("3").display().to_string()),
    ];
    for (number, out) in (1..).zip(outs) {
        let mut writer = Writer::create(out, schema(), options(2, Some("zstd"))).unwrap();
        write_rest(&mut writer).unwrap();
        writer.finish().unwrap();
        assert!(files(&remote.join(number.to_string())) == expected);
    }
    assert!(files(&dir.path().join("local")) == expected);
}

#[test]
fn a_failed_upload_surfaces_and_leaves_no_index() {
    let cases = [
        ("shard.00002", StatusCode::SERVICE_UNAVAILABLE, ErrorKind::Upload),
        ("shard.00002", StatusCode::FORBIDDEN, ErrorKind::PermissionDenied),
    ];
    for (part, code, kind) in cases {
        for threads in [1, 2] {
            let (store, dir) = (Store::start(), tempfile::tempdir().unwrap());
            store.refuse(Some((part, code)));
            let local = dir.path().join("a");
            for out in [both(&local, &store.url), Output::Remote(store.url.clone())] {
                let mut writer = Writer::create(out, schema(), options(threads, None)).unwrap();
                let error = write_rest(&mut writer).and_then(|()| writer.finish()).unwrap_err();
                assert_eq!(error.kind(), kind, "{error}");
                let text = error.to_string();
                assert!(text.contains(part) && text.contains(&store.url), "{text}");
                assert!(!store.objects().contains_key("index.json"));
                assert!(!local.exists(), "the local copy goes too");
            }
        }
    }
}

/// The last step fails, at either place: what took hours stays, and the error says where.
#[test]
fn without_an_index_the_shards_of_two_places_stay() {
    let expected = expected(None);
    for (fails_at_the_remote, there) in
        [(true, "all shards and perhaps the index"), (false, "the whole dataset")]
    {
        let (store, dir) = (Store::start(), tempfile::tempdir().unwrap());
        let local = dir.path().join("a");
        let mut writer =
            Writer::create(both(&local, &store.url), schema(), options(2, None)).unwrap();
        write_rest(&mut writer).unwrap();
        // A folder that has the name of the index: it cannot be written.
        let in_the_way = local.join("index.json");
        match fails_at_the_remote {
            true => store.refuse(Some(("index.json", StatusCode::INTERNAL_SERVER_ERROR))),
            false => std::fs::create_dir(&in_the_way).unwrap(),
        }
        let error = writer.finish().unwrap_err();
        let text = error.to_string();
        let begin = format!(
            "dataset {0}: the remote {1} has {there}, and {0} all shards without an index, from \
             which the writer can be resumed: cannot ",
            local.display(),
            store.url
        );
        assert!(text.starts_with(&begin), "{text}");
        if !fails_at_the_remote {
            std::fs::remove_dir(&in_the_way).unwrap();
            assert!(text.ends_with("index.json; check the path"), "{text}");
        }
        assert_eq!(store.objects().contains_key("index.json"), !fails_at_the_remote);
        assert_eq!(files(&local).len(), expected.len() - 1);

        store.refuse(None);
        let writer = Writer::resume(both(&local, &store.url), schema(), options(2, None)).unwrap();
        assert_eq!(writer.samples(), SAMPLES);
        writer.finish().unwrap();
        assert!(files(&local) == expected && store.objects() == expected);
    }
    // A remote alone leaves nothing here.
    let store = Store::start();
    let mut writer = Writer::create(store.url.as_str(), schema(), options(1, None)).unwrap();
    write_rest(&mut writer).unwrap();
    store.refuse(Some(("index.json", StatusCode::INTERNAL_SERVER_ERROR)));
    let error = writer.finish().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Upload);
    assert!(error.to_string().contains("/index.json in 1 attempt(s)"), "{error}");
}

#[test]
fn who_may_not_list_may_write() {
    let bucket = Bucket::start();
    bucket.forbid_listing();
    let mut writer =
        Writer::create(bucket.address("new"), schema(), options(2, Some("zstd"))).unwrap();
    write_rest(&mut writer).unwrap();
    writer.finish().unwrap();
    let stored = bucket.objects().into_iter();
    let stored = stored.map(|(key, bytes)| (key.strip_prefix("new/").unwrap().to_owned(), bytes));
    assert!(stored.collect::<BTreeMap<_, _>>() == expected(Some("zstd")));
    assert_eq!(bucket.requests("GET "), 1, "it was not asked");

    let dir = tempfile::tempdir().unwrap();
    let (local, address) = (dir.path().join("a"), bucket.address("resumed"));
    let mut writer = Writer::create(both(&local, &address), schema(), options(2, None)).unwrap();
    (0..SAMPLES - 20).for_each(|id| writer.write(&row(id)).unwrap());
    writer.abandon().unwrap();
    let mut writer = Writer::resume(both(&local, &address), schema(), options(2, None)).unwrap();
    write_rest(&mut writer).unwrap();
    writer.finish().unwrap();
    assert!(files(&local) == expected(None));
    assert!(bucket.objects().contains_key("resumed/index.json"));
}

/// Nothing but the files of the dataset is looked at.
#[test]
fn a_folder_as_a_remote_may_hold_deep_folders() {
    let dir = tempfile::tempdir().unwrap();
    let remote = dir.path().join("remote");
    std::fs::create_dir_all(remote.join("d/".repeat(20))).unwrap();
    let to = both(&dir.path().join("a"), remote.to_str().unwrap());
    let mut writer = Writer::create(to, schema(), options(1, None)).unwrap();
    write_rest(&mut writer).unwrap();
    writer.finish().unwrap();
    assert!(remote.join("index.json").is_file());
}

/// The remote has the whole dataset already, when the folder lacks its index: it is completed, and not
/// written over.
#[test]
fn a_dataset_that_is_at_the_remote_is_not_extended() {
    let (bucket, dir) = (Bucket::start(), tempfile::tempdir().unwrap());
    let local = dir.path().join("a");
    let address = bucket.address("new");
    let mut writer = Writer::create(both(&local, &address), schema(), options(1, None)).unwrap();
    (0..SAMPLES - 20).for_each(|id| writer.write(&row(id)).unwrap());
    writer.finish().unwrap();
    let whole = bucket.objects();
    std::fs::remove_file(local.join("index.json")).unwrap();

    let mut writer = Writer::resume(both(&local, &address), schema(), options(1, None)).unwrap();
    let error = write_rest(&mut writer).and_then(|()| writer.finish().map(drop)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert!(error.to_string().contains("the remote s3://bucket/new holds a dataset; "), "{error}");
    assert!(bucket.objects() == whole);
}

#[test]
fn an_unreachable_remote_is_an_error_of_create() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x", listener.local_addr().unwrap());
    drop(listener);
    let dir = tempfile::tempdir().unwrap();
    let out = both(&dir.path().join("a"), &url);
    let error = Writer::create(out, schema(), options(1, None)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Download, "{error}");
    assert!(!dir.path().join("a").exists());
}

#[test]
fn a_resumed_upload_sends_only_what_the_remote_lacks() {
    let expected = expected(None);
    let (store, dir) = (Store::start(), tempfile::tempdir().unwrap());
    let local = dir.path().join("a");
    let mut writer = Writer::create(both(&local, &store.url), schema(), options(2, None)).unwrap();
    (0..250).for_each(|id| writer.write(&row(id)).unwrap());
    writer.abandon().unwrap();
    let complete = files(&local).len();
    assert!(complete > 5);
    store.shared.objects.lock().unwrap().remove("shard.00001.mds");
    store.shared.objects.lock().unwrap().insert("shard.00002.mds".into(), vec![1, 2, 3]);
    store.take_puts();

    let mut writer = Writer::resume(both(&local, &store.url), schema(), options(2, None)).unwrap();
    assert_eq!(store.take_puts(), ["shard.00001.mds", "shard.00002.mds"]);
    write_rest(&mut writer).unwrap();
    writer.finish().unwrap();
    let puts = store.take_puts();
    let last = format!("shard.{:05}.mds", complete - 1);
    assert!(puts.iter().all(|name| *name >= last || name == "index.json"), "{puts:?}");
    assert!(store.objects() == expected);

    // Killed between the two indexes: the remote is complete, the folder is not.
    std::fs::remove_file(local.join("index.json")).unwrap();
    let writer = Writer::resume(both(&local, &store.url), schema(), options(2, None)).unwrap();
    assert_eq!(writer.samples(), SAMPLES);
    writer.finish().unwrap();
    assert!(files(&local) == expected);

    // The remote of another dataset is left alone.
    let other = dir.path().join("other");
    begun(&other, None, 100);
    store.take_puts();
    let error = Writer::resume(both(&other, &store.url), schema(), options(1, None)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.to_string().contains("holds another dataset; choose another one"), "{error}");
    assert!(store.take_puts().is_empty());
}

#[test]
fn a_dataset_with_pickles_is_resumed_between_the_two_indexes() {
    let (store, dir) = (Store::start(), tempfile::tempdir().unwrap());
    let local = dir.path().join("a");
    let schema = || Schema::new([("x", Encoding::Pickle)]).unwrap();
    let out = || both(&local, &store.url);
    let mut writer = Writer::create(out(), schema(), options(1, None)).unwrap();
    writer.write(&[Value::Bytes(b"\x80\x04N.".into())]).unwrap();
    writer.finish().unwrap();
    let whole = files(&local);
    std::fs::remove_file(local.join("index.json")).unwrap();
    let writer = Writer::resume(out(), schema(), options(1, None)).unwrap();
    writer.finish().unwrap();
    assert!(files(&local) == whole);
}

/// Above 16 MiB a file goes up in parts where the remote has them; plain HTTP has none.
#[test]
fn large_shards_are_uploaded_whole() {
    let store = Store::start();
    let schema = Schema::new([("x", Encoding::Bytes)]).unwrap();
    let options = WriterOptions { size_limit: Some(20 << 20), ..options(2, None) };
    let mut writer = Writer::create(store.url.clone(), schema, options).unwrap();
    let sample: Vec<u8> = (0..1 << 20).map(|i: u32| (i % 249) as u8).collect();
    (0..45).for_each(|_| writer.write(&[Value::from(sample.as_slice())]).unwrap());
    let index = writer.finish().unwrap();
    let objects = store.objects();
    assert_eq!(objects["index.json"], index.to_json().into_bytes());
    assert_eq!(index.shards.len(), 3);
    for shard in &index.shards {
        let bytes = &objects[shard.stored().basename.as_str()];
        shard.stored().verify(bytes).unwrap();
        assert_eq!(ShardTable::parse(bytes, shard.samples).unwrap().len() as u64, shard.samples);
    }
}

#[test]
fn paths_and_addresses_are_told_apart() {
    assert_eq!(Output::from("s3://bucket/x"), Output::Remote("s3://bucket/x".into()));
    assert_eq!(Output::from("./c4"), Output::Local(PathBuf::from("./c4")));
    assert_eq!(Output::from(Path::new("/c4")), Output::Local(PathBuf::from("/c4")));
    // What only other tools write is no folder, with however many slashes.
    for address in ["dbfs:/x", "oci:/b/x", "oci:b", "sftp:me:pw@h/x", "sftp:/h/x", "SFTP:h"] {
        let out = Output::from(address);
        assert_eq!(out, Output::Remote(address.into()));
        let error = Writer::create(out, schema(), options(1, None)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let what = " is of a kind that is not read or written; ";
        let shown = address.replace("me:pw@", "");
        assert!(error.to_string().starts_with(&format!("the remote {shown}{what}")), "{error}");
    }
    let dir = tempfile::tempdir().unwrap();
    let plain = format!("{}/dbfs:", dir.path().display());
    assert_eq!(Output::from(plain.as_str()), Output::Local(plain.into()));
}
