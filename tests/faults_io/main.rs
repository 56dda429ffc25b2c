//! The n-th call of the operating system fails, or is the last one of the process, for every n: of
//! reading through a cache and of writing a dataset.
//!
//! The rule: a typed error or success, never a panic; what lies under a final name is whole; and
//! the next run, without the fault, gives the same bytes and leaves nothing behind.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod interpose;
#[path = "../support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use interpose::{Action, Call, arm, disarm};
use mds::format::{Encoding, HashAlgorithm, Schema};
use mds::{DatasetOptions, ErrorKind, Output, Stream, StreamingDataset, Writer, WriterOptions};
use support::{files, text, within};

const LIMIT: Duration = Duration::from_secs(60);
const SAMPLES: u64 = 40;

/// What is done while calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// Reads an epoch through a cache.
    Read { zipped: bool, limited: bool },
    /// Writes a dataset to a folder.
    Write { zipped: bool },
    /// Writes a dataset to a folder and a remote.
    WriteBoth,
}

const READS: [Work; 4] = [
    Work::Read { zipped: false, limited: false },
    Work::Read { zipped: true, limited: false },
    Work::Read { zipped: false, limited: true },
    Work::Read { zipped: true, limited: true },
];
const WRITES: [Work; 3] =
    [Work::Write { zipped: false }, Work::Write { zipped: true }, Work::WriteBoth];

fn schema() -> Schema {
    Schema::new([("id", Encoding::Int), ("text", Encoding::Str)]).unwrap()
}

fn options(zipped: bool) -> WriterOptions {
    WriterOptions {
        compression: zipped.then(|| "zstd".parse().unwrap()),
        hashes: vec![HashAlgorithm::Xxh64],
        size_limit: Some(500),
        threads: Some(1),
        ..WriterOptions::default()
    }
}

fn write_rest(mut writer: Writer) -> mds::Result<()> {
    for id in writer.samples()..SAMPLES {
        writer.write(&[(id as i64).into(), text(id).as_str().into()])?;
    }
    writer.finish().map(drop)
}

fn read_all(dataset: &StreamingDataset) -> mds::Result<()> {
    assert_eq!(dataset.num_samples(), SAMPLES);
    for id in 0..SAMPLES {
        assert_eq!(dataset.sample(id)?.str("text")?, text(id));
    }
    Ok(())
}

/// A folder with what the work needs.
struct Place {
    dir: tempfile::TempDir,
    work: Work,
    expected: BTreeMap<String, Vec<u8>>,
}

impl Place {
    fn new(work: Work) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let zipped = matches!(work, Work::Read { zipped: true, .. } | Work::Write { zipped: true });
        let source = dir.path().join("source");
        write_rest(Writer::create(&source, schema(), options(zipped)).unwrap()).unwrap();
        let expected = files(&source);
        Self { dir, work, expected }
    }

    /// Where final names must lead to whole files only.
    fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    fn remote(&self) -> PathBuf {
        self.dir.path().join("remote")
    }

    /// The work, in a place that may hold what an earlier, failed attempt left.
    fn run(work: Work, dir: &Path, resume: bool) -> mds::Result<()> {
        let (source, out) = (dir.join("source"), dir.join("out"));
        let begin = if resume { Writer::resume } else { Writer::create };
        match work {
            Work::Read { limited, .. } => {
                let mut options = DatasetOptions { download_retry: 2, ..DatasetOptions::default() };
                options.cache_limit = limited.then_some(1600);
                let stream = Stream::cached(source.to_str().unwrap(), out);
                read_all(&*StreamingDataset::open(vec![stream], options)?)
            }
            Work::Write { zipped } => write_rest(begin(out.into(), schema(), options(zipped))?),
            Work::WriteBoth => {
                let remote = dir.join("remote").to_str().unwrap().to_owned();
                let out = Output::Both { local: out, remote };
                write_rest(begin(out, schema(), options(false))?)
            }
        }
    }

    /// Runs in a thread of its own, since a filter for calls stays with its thread.
    fn run_here(&self, resume: bool) -> mds::Result<()> {
        let (work, dir) = (self.work, self.dir.path().to_path_buf());
        within(LIMIT, move || Self::run(work, &dir, resume))
    }

    /// Whatever has a final name is whole.
    fn check_names(&self, context: &str) {
        for folder in [self.out(), self.remote()] {
            if !folder.exists() {
                continue;
            }
            let found = files(&folder);
            let visible = found.iter().filter(|(name, _)| !name.starts_with('.'));
            for (name, bytes) in visible {
                match self.expected.get(name) {
                    Some(expected) => assert!(bytes == expected, "{context}: {name} is damaged"),
                    // The raw form of a shard that the source has compressed: reading checks it.
                    None => assert!(matches!(self.work, Work::Read { .. }), "{context}: {name}"),
                }
            }
            if found.contains_key("index.json") && !matches!(self.work, Work::Read { .. }) {
                let missing: Vec<_> =
                    self.expected.keys().filter(|name| !found.contains_key(*name)).collect();
                assert!(missing.is_empty(), "{context}: an index without {missing:?}");
            }
        }
    }

    fn check_nothing_left(&self, context: &str) {
        for folder in [self.out(), self.remote()] {
            if folder.exists() {
                let found = files(&folder);
                let left: Vec<_> = found
                    .keys()
                    .filter(|name| name.ends_with(".part") || name.ends_with(".lock"))
                    .collect();
                assert!(left.is_empty(), "{context}: left: {left:?}");
            }
        }
    }

    /// The same work again without a fault: the same bytes, nothing left, no step by hand.
    fn check_next_run(&self, context: &str) {
        let complete = self.out().join("index.json").exists();
        let reads = matches!(self.work, Work::Read { .. });
        if reads || !complete {
            // A dataset is resumed where shards are there, and begun where there are none.
            self.run_here(true).unwrap_or_else(|error| panic!("{context}: the next run: {error}"));
        }
        self.check_names(context);
        if !reads {
            let mut found = files(&self.out());
            assert!(found == self.expected, "{context}: {:?}", found.keys());
            if self.work == Work::WriteBoth {
                found = files(&self.remote());
                // A killed upload to a folder leaves its temporary file there, as on any remote.
                found.retain(|name, _| !name.ends_with(".part"));
                assert!(found == self.expected, "{context}: {:?}", found.keys());
            }
        }
    }
}

/// Every one of `calls` fails once, the first to the last. Returns how many did, and what was said.
fn fail_each(work: Work, call: Call, number: i32, said: &mut BTreeSet<String>) -> usize {
    for nth in 1.. {
        let context = format!("{work:?}, {call:?} number {nth}, error {number}");
        let place = Place::new(work);
        arm(place.dir.path(), &[call], nth, Action::Fail(number));
        let result = place.run_here(false);
        let hit = disarm();
        if !hit {
            result.unwrap_or_else(|error| panic!("{context}: without a fault: {error}"));
            return nth - 1;
        }
        if let Err(error) = &result {
            let source = std::error::Error::source(error).map(ToString::to_string);
            let shown = error.to_string().replace(place.dir.path().to_str().unwrap(), "D");
            said.insert(format!(
                "{call:?}: {:?}: {shown} ({})",
                error.kind(),
                source.unwrap_or_default()
            ));
            // A lock that cannot be had says that the file system has none.
            let kinds = [ErrorKind::Io, ErrorKind::Unsupported];
            let kinds = if call == Call::Lock { &kinds[..] } else { &kinds[..1] };
            assert!(kinds.contains(&error.kind()), "{context}: {:?} {error}", error.kind());
        }
        place.check_names(&context);
        // What cannot be removed stays until the next run.
        if call != Call::Unlink {
            place.check_nothing_left(&context);
        }
        place.check_next_run(&context);
        if call != Call::Unlink || matches!(work, Work::Read { .. }) {
            place.check_nothing_left(&context);
        }
    }
    unreachable!("some run has no n-th call")
}

const ERRORS: [i32; 3] = [libc::ENOSPC, libc::EIO, libc::EMFILE];

fn fail_all(works: &[Work], cases: &[(Call, &[i32])]) {
    let mut said = BTreeSet::new();
    for (call, errors) in cases {
        for number in *errors {
            for work in works {
                let failed = fail_each(*work, *call, *number, &mut said);
                eprintln!("{work:?}: {call:?} failed {failed} times");
            }
        }
    }
    said.iter().for_each(|text| eprintln!("{text}"));
}

#[test]
fn fail_nth_open_of_a_reader() {
    fail_all(&READS, &[(Call::Open, &[libc::EMFILE])]);
}

#[test]
fn fail_nth_write_of_a_reader() {
    let space = &[libc::ENOSPC, libc::EIO][..];
    fail_all(&READS, &[(Call::Write, space), (Call::Sync, space), (Call::Truncate, space)]);
}

#[test]
fn fail_nth_rename_of_a_reader() {
    fail_all(&READS, &[(Call::Rename, &ERRORS)]);
}

#[test]
fn fail_nth_other_call_of_a_reader() {
    let io = &[libc::EIO][..];
    let cases = [
        (Call::Read, io),
        (Call::Map, &[libc::ENOMEM, libc::ENFILE][..]),
        (Call::Unlink, io),
        (Call::MakeFolder, &[libc::ENOSPC][..]),
        (Call::Lock, &[libc::EIO, libc::ENOLCK][..]),
    ];
    fail_all(&READS, &cases);
}

#[test]
fn fail_nth_call_of_a_writer() {
    let space = &[libc::ENOSPC, libc::EIO][..];
    let cases = [
        (Call::Open, &[libc::EMFILE][..]),
        (Call::Write, space),
        (Call::Sync, space),
        (Call::Rename, &ERRORS),
        (Call::Unlink, &[libc::EIO][..]),
        (Call::MakeFolder, &[libc::ENOSPC][..]),
    ];
    fail_all(&WRITES, &cases);
}

/// Does nothing unless another test starts it: one work, killed at its n-th call.
#[test]
fn in_a_child_process() {
    let Ok(task) = std::env::var("MDS_FAULTS_IO_TASK") else { return };
    let words: Vec<&str> = task.split('\t').collect();
    let [work, dir, number, after] = words[..] else { panic!("{task}") };
    let work = READS.into_iter().chain(WRITES).find(|known| format!("{known:?}") == work).unwrap();
    let number = number.parse().unwrap();
    let dir = Path::new(dir);
    if after == "true" {
        arm(dir, &[Call::Sync], number, Action::KillAfter);
    } else {
        let all = [
            Call::Open,
            Call::Write,
            Call::Sync,
            Call::Truncate,
            Call::Unlink,
            Call::MakeFolder,
            Call::Lock,
        ];
        arm(dir, &all, number, Action::KillBefore);
    }
    Place::run(work, dir, false).unwrap();
}

/// Kills the work before each of its calls or, since renames come right after it, after each sync
/// of a file: so after a temporary file is written, before its sync, before and after the rename,
/// and before the index.
fn kill_at_each_call(work: Work, after_sync: bool) {
    for number in 1.. {
        let context = format!("{work:?}, killed at call {number}, after a sync: {after_sync}");
        let place = Place::new(work);
        let dir = place.dir.path().display();
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "in_a_child_process", "--nocapture", "--test-threads=1"])
            .env("MDS_FAULTS_IO_TASK", format!("{work:?}\t{dir}\t{number}\t{after_sync}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        if status.success() {
            eprintln!("{work:?}: {} kills, after a sync: {after_sync}", number - 1);
            return;
        }
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{context}: {status}");
        place.check_names(&context);
        place.check_next_run(&context);
        if matches!(work, Work::Read { .. }) {
            place.check_nothing_left(&context);
        }
    }
}

#[test]
fn kill_points_of_a_reader() {
    for work in [READS[0], READS[3]] {
        kill_at_each_call(work, false);
        kill_at_each_call(work, true);
    }
}

#[test]
fn kill_points_of_a_writer() {
    for work in [WRITES[1], WRITES[2]] {
        kill_at_each_call(work, false);
        kill_at_each_call(work, true);
    }
}
