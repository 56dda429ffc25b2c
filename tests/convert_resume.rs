//! Conversions that end before their time, and the same command again.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

#[path = "support/long_source.rs"]
mod long_source;
#[path = "support/workshop.rs"]
mod workshop;

use long_source::{SHARDS, args, tokenizer, write_source};
use workshop::{Workshop, entries, stderr};

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    entries(folder)
        .into_iter()
        .map(|name| (name.clone(), fs::read(folder.join(name)).unwrap()))
        .collect()
}

/// A run that goes on.
struct Running {
    child: Child,
    data: PathBuf,
}

impl Running {
    fn start(shop: &Workshop, args: &[&str], out: &str) -> Self {
        let child = shop.command(args).stderr(Stdio::piped()).spawn().unwrap();
        Self { child, data: shop.path(out).join(".val.part/data") }
    }

    fn shards(&self) -> usize {
        let names = fs::read_dir(&self.data).into_iter().flatten().flatten();
        names.filter(|entry| entry.file_name().to_string_lossy().starts_with("shard.")).count()
    }

    fn wait_for_shards(&mut self, least: usize) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.shards() < least {
            assert!(self.child.try_wait().unwrap().is_none(), "it ended before {least} shards");
            assert!(Instant::now() < deadline, "not within 60 s: {least} shards");
            sleep(Duration::from_millis(2));
        }
    }

    /// Its exit code after `signal`, and what it said.
    fn end(mut self, signal: &str) -> (Option<i32>, String) {
        let pid = self.child.id().to_string();
        let killed = std::process::Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(killed.success());
        let deadline = Instant::now() + Duration::from_secs(20);
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "still running after {signal}");
            sleep(Duration::from_millis(5));
        };
        let mut said = String::new();
        let pipe = self.child.stderr.take().unwrap();
        std::io::Read::read_to_string(&mut { pipe }, &mut said).unwrap();
        (status.code(), said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_run_killed_again_and_again_ends_with_the_same_bytes() {
    let (shop, tokenizer) = (Workshop::new(), tokenizer());
    write_source(&shop);
    shop.succeed(&args("whole", &tokenizer));
    let whole = files(&shop.path("whole/val"));
    assert!(whole.len() > 100, "{} files", whole.len());

    let (mut kept, mut signals) = (0, ["-KILL", "-INT", "-KILL", "-TERM", "-KILL"].into_iter());
    for signal in signals.by_ref() {
        let mut run = Running::start(&shop, &args("out", &tokenizer), "out");
        run.wait_for_shards(kept + 20);
        let data = run.data.clone();
        let (code, said) = run.end(signal);
        assert!(!shop.path("out/val").exists());
        kept = entries(&data).iter().filter(|name| name.starts_with("shard.")).count();
        if signal != "-KILL" {
            let note = format!(
                "val: {kept} complete shards kept in out/.val.part; the same command goes on from there\n"
            );
            assert_eq!((code, said.contains(&note)), (Some(130), true), "{said}");
        }
    }
    let out = shop.succeed(&args("out", &tokenizer));
    let note = format!("val: going on with the {kept} complete shards of an earlier run\n");
    assert!(stderr(&out).starts_with(&note), "{}", stderr(&out));
    assert!(files(&shop.path("out/val")) == whole);
    assert_eq!(entries(&shop.path("out")), ["val"]);
}

/// Beside the complete split, which stays until the new one is.
#[test]
fn a_split_that_is_made_again_is_gone_on_with() {
    let (shop, tokenizer) = (Workshop::new(), tokenizer());
    write_source(&shop);
    let same = args("out", &tokenizer);
    let again = [&same[..], &["--reprocess"]].concat();
    let stop = |least| {
        let mut run = Running::start(&shop, &again, "out");
        run.wait_for_shards(least);
        let data = run.data.clone();
        run.end("-KILL");
        entries(&data).iter().filter(|name| name.starts_with("shard.")).count()
    };
    shop.succeed(&same);
    let whole = files(&shop.path("out/val"));

    let kept = stop(20);
    assert_eq!(entries(&shop.path("out")), [".val.part", "val"]);
    let note = format!(
        "val: note: {kept} complete shards of a --reprocess that did not end in out/.val.part; the same with \
         --reprocess goes on from there\n"
    );
    assert_eq!(stderr(&shop.succeed(&same)), note);
    assert!(files(&shop.path("out/val")) == whole);
    let out = shop.succeed(&again);
    let going_on = format!("val: going on with the {kept} complete shards of an earlier run\n");
    assert!(stderr(&out).starts_with(&going_on), "{}", stderr(&out));
    assert!(files(&shop.path("out/val")) == whole);
    assert_eq!(entries(&shop.path("out")), ["val"]);

    // What was begun with something else is thrown away: the command says that the split is to be made again.
    stop(3);
    let other: Vec<&str> =
        again.iter().map(|arg| if *arg == "xxh64" { "sha1" } else { *arg }).collect();
    let out = shop.succeed(&other);
    assert!(!stderr(&out).contains("going on"), "{}", stderr(&out));
    let fresh: Vec<&str> = other[..other.len() - 1]
        .iter()
        .map(|arg| if *arg == "out" { "fresh" } else { *arg })
        .collect();
    shop.succeed(&fresh);
    assert!(
        fs::read(shop.path("fresh/val/index.json")).unwrap()
            == fs::read(shop.path("out/val/index.json")).unwrap()
    );
    assert_eq!(entries(&shop.path("out")), ["val"]);
}

#[test]
fn what_lies_before_the_newest_record_is_not_read_again() {
    let (shop, tokenizer) = (Workshop::new(), tokenizer());
    write_source(&shop);
    shop.succeed(&args("whole", &tokenizer));
    let whole = files(&shop.path("whole/val"));

    let mut run = Running::start(&shop, &args("out", &tokenizer), "out");
    run.wait_for_shards(whole.len() - 20);
    run.end("-KILL");
    // The first file is another one now, which nobody can see from outside.
    let path = shop.path("source/a.jsonl");
    let metadata = fs::metadata(&path).unwrap();
    fs::write(&path, vec![b'x'; metadata.len() as usize]).unwrap();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(metadata.modified().unwrap())
        .unwrap();
    shop.succeed(&args("out", &tokenizer));
    assert!(files(&shop.path("out/val")) == whole);
}

/// What was read of a file must be what it begins with, whatever its size and its time say.
#[test]
fn a_file_that_begins_otherwise_is_refused() {
    let (shop, tokenizer) = (Workshop::new(), tokenizer());
    write_source(&shop);
    shop.succeed(&args("whole", &tokenizer));
    let mut run = Running::start(&shop, &args("out", &tokenizer), "out");
    // The first record is made after 8 MiB of samples, in the middle of the first file.
    run.wait_for_shards(40);
    run.end("-KILL");
    let path = shop.path("source/a.jsonl");
    let (text, time) = (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().modified().unwrap());
    let write = |text: &[u8]| {
        fs::write(&path, text).unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    };
    let mut other = text.clone();
    other[9] = b'9';
    assert_ne!(other, text);
    write(&other);
    for _ in 0..2 {
        let refused = shop.fail(&args("out", &tokenizer));
        let lines = refused.strip_prefix("source/a.jsonl does not begin with the ").unwrap();
        let (lines, rest) = lines.split_once(' ').unwrap();
        assert!((1..12_000).contains(&lines.parse().unwrap()), "{refused}");
        assert_eq!(
            rest,
            "lines that were converted of it; put the old file back to go on with it, or begin anew \
             with --restart"
        );
    }
    write(&text);
    let said = stderr(&shop.succeed(&args("out", &tokenizer)));
    assert!(said.starts_with("val: going on with the "), "{said}");
    assert!(files(&shop.path("out/val")) == files(&shop.path("whole/val")));
}

/// What another version of the program has left is not gone on with.
#[test]
fn records_of_another_version_are_named() {
    let shop = Workshop::new();
    write_source(&shop);
    let same = [&["--source", "source", "--out_root", "out"][..], &SHARDS].concat();
    interrupted(&shop, &same);
    let manifest = fs::read_to_string(shop.path("out/.val.part/manifest.json")).unwrap();
    shop.write(
        "out/.val.part/manifest.json",
        manifest.replacen("\"version\":3", "\"version\":2", 1),
    );
    assert_eq!(
        shop.fail(&same),
        "out/.val.part was begun with another version of this program (its records are of version \
         2, not 3); use the same again to go on with it, or --restart to begin anew"
    );
}

/// A run that has left some shards.
fn interrupted(shop: &Workshop, args: &[&str]) {
    let mut run = Running::start(shop, args, "out");
    run.wait_for_shards(3);
    run.end("-KILL");
}

#[test]
fn another_input_or_another_setting_is_refused_by_name() {
    let (shop, tokenizer) = (Workshop::new(), tokenizer());
    write_source(&shop);
    let same = args("out", &tokenizer);
    interrupted(&shop, &same);
    let refusal = |difference: &str| {
        format!(
            "out/.val.part was begun with {difference}; use the same again to go on with it, or --restart to begin anew"
        )
    };
    let replaced = |old: &str, new: &str| -> String {
        let args: Vec<&str> = same.iter().map(|arg| if *arg == old { new } else { *arg }).collect();
        shop.fail(&args)
    };
    assert_eq!(replaced("300kb", "200kb"), refusal("--size_limit 307200, not --size_limit 204800"));
    assert_eq!(replaced("100", "101"), refusal("--concat_tokens 100, not --concat_tokens 101"));
    assert_eq!(replaced("xxh64", "none"), refusal("--hashes xxh64, not no --hashes"));
    assert_eq!(
        replaced("<|endoftext|>", "x"),
        refusal(r#"--eos_text "<|endoftext|>", not --eos_text "x""#)
    );
    assert_eq!(
        shop.fail(&[&same[..], &["--compression", "zstd"]].concat()),
        refusal("no --compression, not --compression zstd")
    );
    assert_eq!(replaced("source", "source/a.jsonl"), refusal("2 files, not 1"));
    assert_eq!(
        replaced("source", "source/b.jsonl.gz"),
        refusal("the file source/a.jsonl, not source/b.jsonl.gz")
    );

    let text = [&["--source", "source", "--out_root", "out"][..], &SHARDS].concat();
    assert_eq!(shop.fail(&text), refusal("columns tokens, not columns text, timestamp, url"));
    // Nothing is said of going on, and nothing is written.
    let refused = stderr(&shop.run(&text));
    assert!(refused.starts_with("convert-c4: error: out/.val.part was begun with "), "{refused}");

    let path = shop.path("source/a.jsonl");
    let bytes = fs::metadata(&path).unwrap().len();
    let touched = File::options().append(true).open(&path).unwrap();
    touched.set_modified(std::time::SystemTime::now() + Duration::from_secs(5)).unwrap();
    assert_eq!(shop.fail(&same), refusal("source/a.jsonl as it was before it changed"));
    { touched }.write_all(b"\n").unwrap();
    assert_eq!(
        shop.fail(&same),
        refusal(&format!("source/a.jsonl of {bytes} bytes, not {}", bytes + 1))
    );

    // What is there is thrown away when that is asked for, and only then.
    let out = shop.succeed(&[&same[..], &["--restart"]].concat());
    assert!(!stderr(&out).contains("going on"), "{}", stderr(&out));
    shop.succeed(&args("whole", &tokenizer));
    assert!(files(&shop.path("out/val")) == files(&shop.path("whole/val")));
    assert_eq!(entries(&shop.path("out")), ["val"]);
}

#[test]
fn records_that_are_damaged_are_named() {
    let (shop, tokenizer) = (Workshop::new(), tokenizer());
    write_source(&shop);
    let same = args("out", &tokenizer);
    interrupted(&shop, &same);
    shop.write("out/.val.part/progress.json", "{");
    assert_eq!(
        shop.fail(&same),
        "out/.val.part/progress.json is damaged: EOF while parsing an object at line 1 column 1; begin anew with --restart"
    );
}

#[test]
fn a_bad_line_keeps_what_came_before_it() {
    let shop = Workshop::new();
    write_source(&shop);
    let good = fs::read(shop.path("source/a.jsonl")).unwrap();
    shop.write("source/a.jsonl", [&good[..], b"{\"text\":\n", &good].concat());
    let args = [&["--source", "source", "--out_root", "out"][..], &SHARDS].concat();
    let said = stderr(&shop.command(&args).output().unwrap());
    let (kept, error) = (said.lines().rev().nth(1).unwrap(), said.lines().next_back().unwrap());
    assert!(
        kept.ends_with(" kept in out/.val.part; the same command goes on from there"),
        "{said}"
    );
    assert!(error.contains("source/a.jsonl, line 12001: not a JSON object"), "{said}");

    let skip = ["--on_bad_line", "skip"];
    let out = shop.succeed(&[&args[..], &skip].concat());
    assert!(stderr(&out).contains("val: going on with the "), "{}", stderr(&out));
    assert!(stderr(&out).contains("val: 1 unreadable document skipped:\n"), "{}", stderr(&out));
    let whole = ["--source", "source", "--out_root", "whole"];
    shop.succeed(&[&whole[..], &SHARDS, &skip].concat());
    assert!(files(&shop.path("out/val")) == files(&shop.path("whole/val")));
}

/// The file at fault may change behind what was read of it, and nothing else may.
#[test]
fn a_fault_that_is_mended_is_gone_on_from() {
    let shop = Workshop::new();
    write_source(&shop);
    let good = fs::read(shop.path("source/a.jsonl")).unwrap();
    let packed = fs::read(shop.path("source/b.jsonl.gz")).unwrap();
    let args = [&["--source", "source", "--out_root", "out"][..], &SHARDS].concat();
    shop.succeed(&[&["--source", "source", "--out_root", "whole"][..], &SHARDS].concat());
    let without_statistics = |folder: &str| {
        let mut files = files(&shop.path(folder));
        files.retain(|name, _| !name.starts_with("statistics."));
        files
    };

    // A line that is none, far behind the first shards.
    let cut = good.len() - 1000;
    shop.write("source/a.jsonl", [&good[..cut], b"\n", &good[cut..]].concat());
    assert!(shop.fail(&args).contains("source/a.jsonl, line "));
    let other = [b"{\"text\":\"\",\"timestamp\":\"\",\"url\":\"\"}\n", &good[..]].concat();
    shop.write("source/a.jsonl", other);
    assert!(shop.fail(&args).starts_with("out/.val.part was begun with source/a.jsonl of "));
    shop.write("source/a.jsonl", &good);

    // A file behind it may have changed as well; this one is cut short now.
    shop.write("source/b.jsonl.gz", &packed[..packed.len() - 2000]);
    let cut = shop.fail(&args);
    assert!(
        cut.starts_with("source/b.jsonl.gz: cannot read after byte ")
            && cut.contains(" (behind line "),
        "{cut}"
    );
    // But not one before.
    let touched = File::options().append(true).open(shop.path("source/a.jsonl")).unwrap();
    let before = touched.metadata().unwrap().modified().unwrap();
    touched.set_modified(before + std::time::Duration::from_secs(1)).unwrap();
    let refused = shop.fail(&args);
    assert!(refused.contains("source/a.jsonl as it was before it changed"), "{refused}");
    touched.set_modified(before).unwrap();
    shop.write("source/b.jsonl.gz", &packed);
    let said = stderr(&shop.succeed(&args));
    assert!(said.contains("val: going on with the "), "{said}");
    assert!(without_statistics("out/val") == without_statistics("whole/val"));
}

#[test]
fn what_a_living_run_writes_is_left_alone() {
    let (shop, tokenizer) = (Workshop::new(), tokenizer());
    write_source(&shop);
    let same = args("out", &tokenizer);
    let mut run = Running::start(&shop, &same, "out");
    run.wait_for_shards(3);
    assert_eq!(
        shop.fail(&[&same[..], &["--restart"]].concat()),
        "another run is writing out/.val.part; wait for it, or choose another --out_root"
    );
    assert!(run.child.wait().unwrap().success());
    assert_eq!(entries(&shop.path("out")), ["val"]);
}

/// What a run left that was killed before its first shard hinders no other.
#[test]
fn without_a_complete_shard_another_command_may_begin() {
    let shop = Workshop::new();
    write_source(&shop);
    shop.write("out/.val.part/manifest.json", r#"{"version":1,"settings":{"--x":"1"},"files":[]}"#);
    shop.write("out/.val.part/data/.tmp.part", "half");
    let args = [&["--source", "source", "--out_root", "out"][..], &SHARDS].concat();
    let out = shop.succeed(&args);
    assert!(!stderr(&out).contains("going on"), "{}", stderr(&out));
    assert_eq!(entries(&shop.path("out")), ["val"]);
}

/// Without a complete shard there is nothing to go on with, and nothing is left.
#[test]
fn an_early_end_leaves_nothing() {
    for signal in ["-INT", "-TERM"] {
        let shop = Workshop::new();
        let pipe = shop.path("pipe.jsonl");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let args = ["--source", "pipe.jsonl", "--out_root", "out", "--splits", "val"];
        let run = Running::start(&shop, &args, "out");
        // Opening blocks until the reader is there.
        let _pipe = File::options().write(true).open(&pipe).unwrap();
        assert_eq!(run.end(signal), (Some(130), "val: reading 1 file, 0 B\n\nstopping; once more to stop at once\nconvert-c4: interrupted\n".to_owned()));
        shop.assert_nothing_written("out");
    }
}
