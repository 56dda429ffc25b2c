//! A conversion when a call of the operating system fails, and the same one again when there is room.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use convert::ErrorKind;
use convert::conversion::{Content, Conversion, Earlier, OnBadLine, State};
use convert::out_root::OutRoot;
use convert::source::{NamedSplit, files_of_split};
use mds::WriterOptions;

#[path = "faults_io/interpose.rs"]
#[allow(dead_code, reason = "some kinds of calls are another test's")]
mod interpose;

use interpose::{Action, Call, arm};

/// The validation split of the C4 sample, in some fifteen shards.
fn conversion(out_root: &Path) -> Conversion {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/c4-sample");
    Conversion {
        split: NamedSplit::Val.into(),
        files: files_of_split(source.to_str(), NamedSplit::Val, true).unwrap(),
        out_root: OutRoot::from(out_root.to_path_buf()),
        content: Content::Records,
        subsets: None,
        writer: WriterOptions {
            size_limit: Some(20_000),
            threads: Some(1),
            ..WriterOptions::default()
        },
        on_bad_line: OnBadLine::Fail,
        threads: 1,
        earlier: Earlier::GoOn,
    }
}

fn run(out_root: &Path) -> convert::Result<()> {
    conversion(out_root).run(&Arc::default(), &Arc::default()).map(drop)
}

fn files(folder: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap())).collect()
}

#[test]
fn after_a_full_disk_the_same_conversion_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    run(&whole).unwrap();
    let whole = files(&whole.join("val"));
    assert!(whole.len() > 12, "{:?}", whole.keys());
    let (mut kept, mut failures) = (0, 0);
    for (call, error) in [
        (Call::Write, libc::ENOSPC),
        (Call::Sync, libc::EIO),
        (Call::Truncate, libc::ENOSPC),
        (Call::MakeFolder, libc::ENOSPC),
    ] {
        for nth in 1.. {
            let out_root = folder.path().join(format!("{call:?}-{nth}"));
            let armed = arm(&out_root, &[call], nth, Action::Fail(error));
            let result = run(&out_root);
            if !armed.disarm() {
                result.unwrap();
                break;
            }
            failures += 1;
            if let Err(failed) = result {
                let text = failed.to_string();
                let cause = std::io::Error::from_raw_os_error(error).to_string();
                assert!(text.contains(&cause), "{call:?} {nth}: {text}");
                assert!(matches!(failed.kind(), ErrorKind::Io | ErrorKind::Write), "{text}");
            }
            // There is room now.
            match conversion(&out_root).state().unwrap() {
                State::New => run(&out_root).unwrap(),
                State::Unfinished(shards) => {
                    kept = kept.max(shards);
                    run(&out_root).unwrap();
                }
                // It had its name already when the folder above could not be synced.
                State::Complete(_) => assert_eq!(call, Call::Sync, "{nth}"),
            }
            assert!(files(&out_root.join("val")) == whole, "{call:?} {nth}");
            fs::remove_dir_all(&out_root).unwrap();
        }
    }
    assert!(kept > 10 && failures > 20, "{kept} shards, {failures} failures");
}
