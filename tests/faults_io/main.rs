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

use interpose::{Action, Call, arm};
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
        // In memory where the machine has such a folder: nobody waits for the disk to sync.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
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
    fn check_names(&self) -> Check {
        for folder in [self.out(), self.remote()] {
            if !folder.exists() {
                continue;
            }
            let found = files(&folder);
            for (name, bytes) in found.iter().filter(|(name, _)| !name.starts_with('.')) {
                match self.expected.get(name) {
                    Some(expected) => check(bytes == expected, format!("{name} is damaged"))?,
                    // The raw form of a shard that the source has compressed: reading checks it.
                    None => check(self.reads(), format!("{name} is not of the dataset"))?,
                }
            }
            if found.contains_key("index.json") && !self.reads() {
                let missing: Vec<_> =
                    self.expected.keys().filter(|name| !found.contains_key(*name)).collect();
                check(missing.is_empty(), format!("an index without {missing:?}"))?;
            }
        }
        Ok(())
    }

    fn check_nothing_left(&self) -> Check {
        for folder in [self.out(), self.remote()] {
            if folder.exists() {
                let mut left: Vec<_> = files(&folder).into_keys().collect();
                left.retain(|name| name.ends_with(".part") || name.ends_with(".lock"));
                check(left.is_empty(), format!("left behind: {left:?}"))?;
            }
        }
        Ok(())
    }

    /// The same work again without a fault: the same bytes, nothing left, no step by hand.
    fn check_next_run(&self) -> Check {
        if self.reads() {
            self.run_here(true).map_err(|error| format!("the next run: {error}"))?;
            return self.check_names();
        }
        if !self.out().join("index.json").exists() {
            // Resumed where shards are there, begun where there are none.
            match self.run_here(true) {
                Ok(()) => {}
                // The remote was complete when the local index failed: it is never overwritten.
                Err(error)
                    if error.kind() == ErrorKind::AlreadyExists
                        && self.remote().join("index.json").exists() =>
                {
                    return self.check_names();
                }
                Err(error) => return Err(format!("the next run: {error}")),
            }
        }
        let complete = |folder: &Path| {
            let mut found = files(folder);
            // A killed upload to a folder leaves its temporary file there, as on any remote.
            found.retain(|name, _| folder == self.out() || !name.ends_with(".part"));
            check(found == self.expected, format!("{} has {:?}", folder.display(), found.keys()))
        };
        complete(&self.out())?;
        if self.work == Work::WriteBoth { complete(&self.remote()) } else { Ok(()) }
    }

    fn reads(&self) -> bool {
        matches!(self.work, Work::Read { .. })
    }
}

/// What is wrong.
type Check = Result<(), String>;

fn check(right: bool, otherwise: String) -> Check {
    if right { Ok(()) } else { Err(otherwise) }
}

/// What a test has found, each thing once.
#[derive(Default)]
struct Report {
    said: BTreeSet<String>,
    wrong: Vec<String>,
}

impl Drop for Report {
    fn drop(&mut self) {
        self.said.iter().for_each(|text| eprintln!("{text}"));
        if !std::thread::panicking() {
            assert!(self.wrong.is_empty(), "{:#?}", self.wrong);
        }
    }
}

/// Every one of `calls` fails once, the first to the last.
fn fail_each(work: Work, call: Call, number: i32, report: &mut Report) {
    for nth in 1.. {
        let place = Place::new(work);
        let armed = arm(place.dir.path(), &[call], nth, Action::Fail(number));
        let result = place.run_here(false);
        if !armed.disarm() {
            result.unwrap_or_else(|error| panic!("without a fault: {error}"));
            eprintln!("{work:?}: {call:?} failed {} times with {number}", nth - 1);
            return;
        }
        if let Err(wrong) = check_after(&place, call, result, &mut report.said) {
            report.wrong.push(format!("{work:?}, {call:?} number {nth}, error {number}: {wrong}"));
        }
    }
}

fn check_after(
    place: &Place,
    call: Call,
    result: mds::Result<()>,
    said: &mut BTreeSet<String>,
) -> Check {
    if let Err(error) = &result {
        if call == Call::Write {
            let shown = format!("cannot write {}", place.dir.path().display());
            check(error.to_string().contains(&shown), format!("no path in {error}"))?;
        }
        let source = std::error::Error::source(error).map(ToString::to_string);
        let shown = error.to_string().replace(place.dir.path().to_str().unwrap(), "D");
        let shown: String = shown.chars().filter(|c| !c.is_ascii_digit()).collect();
        let (kind, source) = (error.kind(), source.unwrap_or_default());
        said.insert(format!("{call:?}: {kind:?}: {shown} ({source})"));
        // A lock that cannot be had says that the file system has none.
        let fits = kind == ErrorKind::Io || call == Call::Lock && kind == ErrorKind::Unsupported;
        check(fits, format!("{kind:?}: {error}"))?;
    }
    place.check_names()?;
    // What cannot be removed stays until the next run, and so does a lock file that could not be
    // locked: it may be another process's.
    let stays = matches!(call, Call::Unlink | Call::Lock);
    let tidy = if stays { Ok(()) } else { place.check_nothing_left() };
    place.check_next_run()?;
    tidy?;
    if place.reads() || call != Call::Unlink { place.check_nothing_left() } else { Ok(()) }
}

const ERRORS: [i32; 3] = [libc::ENOSPC, libc::EIO, libc::EMFILE];

fn fail_all(works: &[Work], cases: &[(Call, &[i32])]) {
    let mut report = Report::default();
    for (call, errors) in cases {
        for number in *errors {
            for work in works {
                fail_each(*work, *call, *number, &mut report);
            }
        }
    }
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
    let _armed = if after == "true" {
        arm(dir, &[Call::Sync], number, Action::KillAfter)
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
        arm(dir, &all, number, Action::KillBefore)
    };
    Place::run(work, dir, false).unwrap();
}

/// Kills the work before each of its calls or, since renames come right after it, after each sync
/// of a file: so after a temporary file is written, before its sync, before and after the rename,
/// and before the index.
fn kill_at_each_call(work: Work, after_sync: bool, report: &mut Report) {
    for number in 1.. {
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
        let checked = check(status.signal() == Some(libc::SIGKILL), status.to_string())
            .and_then(|()| place.check_names())
            .and_then(|()| place.check_next_run())
            .and_then(|()| if place.reads() { place.check_nothing_left() } else { Ok(()) });
        if let Err(wrong) = checked {
            let when = if after_sync { "after sync" } else { "before call" };
            report.wrong.push(format!("{work:?}, killed {when} {number}: {wrong}"));
        }
    }
}

fn kill_all(works: [Work; 2]) {
    let mut report = Report::default();
    for work in works {
        kill_at_each_call(work, false, &mut report);
        kill_at_each_call(work, true, &mut report);
    }
}

#[test]
fn kill_points_of_a_reader() {
    kill_all([READS[0], READS[3]]);
}

#[test]
fn kill_points_of_a_writer() {
    kill_all([WRITES[1], WRITES[2]]);
}

/// With room for few open files: every number of them gives the epoch or an error, and no number a
/// hang.
#[test]
fn few_open_files() {
    for work in READS {
        let mut results = BTreeSet::new();
        for files in (3..24).chain([64]) {
            let place = Place::new(work);
            let dir = place.dir.path().display();
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "in_a_child_with_few_files", "--nocapture", "--test-threads=1"])
                .env("MDS_FAULTS_IO_FILES", format!("{work:?}\t{dir}\t{files}"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let status = within(LIMIT, move || child.wait()).unwrap();
            let code = status.code();
            assert!(matches!(code, Some(READ | REFUSED)), "{work:?}, {files} files: {status}");
            results.insert((code == Some(READ), files));
            place.check_names().and_then(|()| place.check_next_run()).unwrap();
            place.check_nothing_left().unwrap();
        }
        let enough = results.iter().find(|(read, _)| *read).unwrap().1;
        eprintln!("{work:?}: {enough} files are enough");
        assert!(enough <= 64 && results.iter().any(|(read, _)| !read), "{results:?}");
    }
}

/// How the child of [`few_open_files`] ends.
const READ: i32 = 0;
const REFUSED: i32 = 3;

/// Does nothing unless another test starts it.
#[test]
fn in_a_child_with_few_files() {
    let Ok(task) = std::env::var("MDS_FAULTS_IO_FILES") else { return };
    let words: Vec<&str> = task.split('\t').collect();
    let [work, dir, files] = words[..] else { panic!("{task}") };
    let work = READS.into_iter().find(|known| format!("{known:?}") == work).unwrap();
    let files = files.parse().unwrap();
    let limit = libc::rlimit { rlim_cur: files, rlim_max: files };
    // SAFETY: the limit lives until the call has returned.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
    let Err(error) = Place::run(work, Path::new(dir), false) else { return };
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    std::process::exit(REFUSED);
}
