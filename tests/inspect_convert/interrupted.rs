//! Conversions that are stopped, killed, disturbed by another one, or fed what is damaged.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::program::{inspect, path};
use super::support::{self, PLAIN, Server, write};
use super::{convert, index, names, refused};

/// A conversion that takes long, caught when some of its output is there.
struct Caught {
    child: Child,
    out: PathBuf,
    _server: Server,
    dir: tempfile::TempDir,
}

impl Caught {
    fn in_the_middle(to: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("val"), 2000, &PLAIN);
        let out = dir.path().join("deep/out");
        let server = Server::start(dir.path());
        // 50 ms for each of 200 shards.
        server.set_mood(support::Mood::Slow);
        let url = server.url("val");
        let child = Command::new(env!("CARGO_BIN_EXE_mds-inspect"))
            .args(["convert", &url, path(&out), "--to", to, "--size_limit", "1000"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .env_remove("http_proxy")
            .env_remove("HTTP_PROXY")
            .spawn()
            .unwrap();
        let caught = Self { child, out, _server: server, dir };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !caught.out.exists() || names(&caught.out).len() < 5 {
            assert!(Instant::now() < deadline, "not within a minute: {:?}", caught.out);
            sleep(Duration::from_millis(5));
        }
        caught
    }

    /// What another conversion into the same folder says.
    fn refused_too(&self, to: &str) -> String {
        let other = self.dir.path().join("val");
        refused(&[path(&other), path(&self.out), "--to", to])
    }

    fn signal(&mut self, name: &str) -> (Option<i32>, String) {
        let kill = format!("kill {name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        let deadline = Instant::now() + Duration::from_secs(30);
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "still running after {name}");
            sleep(Duration::from_millis(10));
        };
        let mut error = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
        (status.code(), error)
    }
}

impl Drop for Caught {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_killed_conversion_leaves_no_index_and_no_part() {
    let mut caught = Caught::in_the_middle("mds");
    caught.signal("-KILL");
    assert!(!caught.out.join("index.json").exists());
    let mut caught = Caught::in_the_middle("parquet");
    caught.signal("-KILL");
    let names = names(&caught.out);
    assert!(names.len() >= 5 && names.iter().all(|name| name.starts_with('.')), "{names:?}");
    assert_eq!(
        caught.refused_too("parquet"),
        format!(
            "mds-inspect: the directory {} holds hidden files that a killed program left; choose \
             another one, or delete it first if its data may go",
            caught.out.display()
        )
    );
}

#[test]
fn a_second_conversion_into_the_same_folder_is_refused() {
    for to in ["mds", "parquet"] {
        let caught = Caught::in_the_middle(to);
        for second in ["mds", "parquet"] {
            assert_eq!(
                caught.refused_too(second),
                format!(
                    "mds-inspect: another program is writing to the directory {}; wait for it, or \
                     choose another one",
                    caught.out.display()
                )
            );
        }
        let before = names(&caught.out).len();
        assert!(before >= 5, "what the first wrote is there");
    }
}

#[test]
fn parts_without_the_first_are_not_taken_for_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    write(&at("ids"), 2000, &PLAIN);
    let is_named = |out: &Path| {
        let entries = fs::read_dir(out).into_iter().flatten();
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("part-"))
    };
    // Each of some 2,000 names is synced; one that is killed has given them to a few.
    let mut child = Command::new(env!("CARGO_BIN_EXE_mds-inspect"))
        .args(["convert", path(&at("ids")), path(&at("out")), "--to", "parquet"])
        .args(["--size_limit", "100"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_named(&at("out")) {
        assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none());
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!at("out/part-00000.parquet").exists());
    assert_eq!(
        refused(&[path(&at("out")), path(&at("again"))]),
        format!(
            "mds-inspect: {} has parts, but no part-00000.parquet; write them again: what wrote \
             them was cut off",
            at("out").display()
        )
    );
}

/// Of every byte, since its reader panics at some of them.
#[test]
fn parquet_that_is_damaged_anywhere_becomes_a_whole_dataset_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let rows: String = (0..50).map(|n| format!("x{n}\n")).collect();
    fs::write(at("rows.csv"), format!("a\n{rows}")).unwrap();
    convert(path(&at("rows.csv")), &at("sound"), &["--to", "parquet"]);
    let sound = fs::read(at("sound/part-00000.parquet")).unwrap();
    let second = at("sound/part-00001.parquet");
    let mut refused = 0;
    for byte in 0..sound.len() {
        let mut damaged = sound.clone();
        damaged[byte] ^= 1;
        fs::write(&second, damaged).unwrap();
        let run = inspect(&["convert", path(&at("sound")), path(&at("out"))]).output();
        if run.code == 0 {
            assert_eq!(index(&at("out")).samples(), 100, "byte {byte}");
            fs::remove_dir_all(at("out")).unwrap();
        } else {
            assert_eq!(run.code, 1, "byte {byte}: {}", run.err);
            assert!(run.err.contains(path(&second)), "byte {byte}: {}", run.err);
            assert!(!at("out").exists(), "byte {byte}");
            refused += 1;
        }
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn ctrl_c_removes_what_is_unfinished_and_exits_130() {
    for (to, signal) in [("mds", "-INT"), ("parquet", "-INT"), ("mds", "-TERM")] {
        let mut caught = Caught::in_the_middle(to);
        let (code, error) = caught.signal(signal);
        assert_eq!(code, Some(130), "{to}");
        assert_eq!(
            error,
            "mds-inspect: stopping after the shards at hand; a second time stops at once\n\
             mds-inspect: interrupted; nothing unfinished was left behind\n"
        );
        assert!(!caught.out.parent().unwrap().exists(), "{to}");
    }
}
