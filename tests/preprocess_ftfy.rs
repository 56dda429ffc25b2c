//! `preprocess-data --ftfy` with a `python3` of the test's own. `make conformance` runs it with ftfy.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use convert::indexed::IndexedDataset;

#[path = "support/workshop.rs"]
mod workshop;

use workshop::{Workshop, entries, stderr, stdout};

/// Says that it is ftfy 1.2, and leaves its process id as the name of a file.
const HELLO: &str =
    "PATH=/usr/bin:/bin; touch pids/$$; printf '=\\003\\000\\000\\000\\000\\000\\000\\0001.2'\n";

/// Makes capitals of texts of less than 256 bytes, without X: a text can become empty.
const CAPITALS: &str = "\
bytes() { dd bs=1 count=$1 2>/dev/null; }
while length=$(bytes 1 | od -An -tu1) && [ -n \"$length\" ]; do
  bytes 7 >/dev/null
  text=$(bytes $length | tr a-z A-Z | tr -d X)
  printf \"=\\\\$(printf %03o ${#text})\\\\000\\\\000\\\\000\\\\000\\\\000\\\\000\\\\000%s\" \"$text\"
done
";

/// Gives one text of three bytes back as it is.
const ONCE: &str = "printf =; dd bs=1 count=11 2>/dev/null\n";

/// A workshop in which `python3` is this shell script, if there is one, and nothing else is in `PATH`.
fn shop(python: Option<&str>) -> Workshop {
    let shop = Workshop::of(env!("CARGO_BIN_EXE_preprocess-data"));
    for folder in ["out", "bin", "pids"] {
        fs::create_dir(shop.path(folder)).unwrap();
    }
    if let Some(script) = python {
        let path = shop.write("bin/python3", format!("#!/bin/sh\n{script}"));
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    shop
}

/// The program, with the bytes of texts as their ids.
fn command(shop: &Workshop, input: &str, more: &[&str]) -> Command {
    let args = [
        "--input",
        input,
        "--output-prefix",
        "out/set",
        "--tokenizer-type",
        "CharLevelTokenizer",
        "--ftfy",
    ];
    let mut command = shop.command(&[&args[..], more].concat());
    command.env("PATH", shop.path("bin"));
    command
}

/// The texts of a dataset.
fn texts(shop: &Workshop, key: &str) -> Vec<String> {
    let dataset = IndexedDataset::open(shop.path(&format!("out/set_{key}_document"))).unwrap();
    let text = |ids: Vec<i64>| {
        String::from_utf8(ids.into_iter().map(|id| u8::try_from(id).unwrap()).collect()).unwrap()
    };
    dataset.documents().map(|tokens| text(tokens.to_vec())).collect()
}

/// What a run says that must fail; it leaves nothing, no process either.
fn refused(python: Option<&str>, lines: &str) -> String {
    let shop = shop(python);
    shop.write("a.jsonl", lines);
    let output = command(&shop, "a.jsonl", &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_eq!(entries(&shop.path("out")), [""; 0]);
    assert_none_is_left(&shop);
    error(&output)
}

fn error(output: &Output) -> String {
    let said = stderr(output);
    let error = said.lines().find_map(|line| line.strip_prefix("preprocess-data: error: "));
    error.unwrap_or_else(|| panic!("no error line: {said}")).to_owned()
}

/// All that were started end within a moment.
fn assert_none_is_left(shop: &Workshop) {
    for pid in entries(&shop.path("pids")) {
        let state = || {
            let output = Command::new("ps").args(["-o", "stat=", "-p", &pid]).output();
            stdout(&output.unwrap()).trim().to_owned()
        };
        // What has ended without a parent stays as a zombie until init comes by.
        wait_until(|| state().is_empty() || state().starts_with('Z'));
    }
}

fn wait_until(is_done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_done() {
        assert!(Instant::now() < deadline, "not within 60 s");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn each_text_is_repaired_before_it_is_tokenised() {
    let lines = [
        r#"{"text": "one", "title": "t"}"#,
        r#"{"text": "xx", "title": "lists"}"#,
        r#"{"text": ["ax", "b"], "title": ""}"#,
    ];
    for workers in ["1", "3"] {
        let shop = shop(Some(&[HELLO, CAPITALS].concat()));
        shop.write("in/a.jsonl", lines.join("\n"));
        let more = ["--jsonl-keys", "text", "title", "--workers", workers];
        let output = command(&shop, "in", &more).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(texts(&shop, "text"), ["ONE", "A\n\nB"]);
        assert_eq!(texts(&shop, "title"), ["T", "LISTS"]);
        assert_eq!(
            stdout(&output),
            "Vocab size: 512\nftfy: 1.2\nOutput prefix: out/set\n\
             out/set_text_document: 2 documents, 7 tokens, uint16\n\
             out/set_text_document: 1 text without a token left out\n\
             out/set_title_document: 2 documents, 6 tokens, uint16\n\
             out/set_title_document: 1 text without a token left out\n"
        );
        assert_eq!(entries(&shop.path("pids")).len().to_string(), workers);
        assert_none_is_left(&shop);
    }
    // Files of text are texts, too.
    let shop = shop(Some(&[HELLO, CAPITALS].concat()));
    shop.write("a.txt", "one\r\ntwo");
    assert!(command(&shop, "a.txt", &[]).status().unwrap().success());
    assert_eq!(texts(&shop, "text"), ["ONE\nTWO"]);
}

#[test]
fn a_python_without_ftfy_is_refused() {
    let line = "{\"text\": \"one\"}\n";
    assert_eq!(
        refused(None, line),
        "--ftfy needs python3, which cannot be started: No such file or directory (os error 2); put one into \
         PATH that has ftfy (pip install ftfy), or leave the flag out"
    );
    let words = "No module named 'ftfy' (/opt/python3)";
    let length = format!("\\{:03o}\\000\\000\\000\\000\\000\\000\\000", words.len());
    assert_eq!(
        refused(Some(&format!("printf \"!{length}{words}\"\n")), line),
        "--ftfy: the python3 of PATH has no ftfy: No module named 'ftfy' (/opt/python3); run python3 -m pip \
         install ftfy, or leave the flag out"
    );
    let remedy = "; make python3 -c \"import ftfy\" work, or leave the flag out";
    assert_eq!(
        refused(Some("exit 127\n"), line),
        format!(
            "--ftfy: the python3 of PATH ended (exit status: 127) before it named the version of ftfy{remedy}"
        )
    );
    assert_eq!(
        refused(Some("echo '\u{221e} Python'\n"), line),
        format!(
            "--ftfy: the python3 of PATH wrote what is no answer before it named the version of ftfy{remedy}"
        )
    );
}

#[test]
fn a_python_that_fails_in_the_middle_is_named_with_the_document() {
    let lines = "{\"text\": \"one\"}\n{\"text\": \"two\"}\n";
    let remedy = "run the command again, and take the document out if that ends here too";
    let failing = |then: &str| refused(Some(&[HELLO, ONCE, then].concat()), lines);
    assert_eq!(
        failing("exit 3\n"),
        format!(
            "a.jsonl, line 2: the python3 that runs ftfy ended (exit status: 3) in place of repairing it; {remedy}"
        )
    );
    assert_eq!(
        failing("kill -KILL $$\n"),
        format!(
            "a.jsonl, line 2: the python3 that runs ftfy ended (signal: 9 (SIGKILL)) in place of repairing it; \
             {remedy}"
        )
    );
    let nonsense = format!(
        "a.jsonl, line 2: the python3 that runs ftfy wrote what is no answer in place of repairing it; {remedy}"
    );
    assert_eq!(failing("echo two; cat >/dev/null\n"), nonsense);
    // A text that is not UTF-8.
    let not_utf_8 = "printf '=\\001\\000\\000\\000\\000\\000\\000\\000\\377'; cat >/dev/null\n";
    assert_eq!(failing(not_utf_8), nonsense);
    // One that ends before it is there; memory is not taken for all of it.
    let cut = "printf '=\\377\\377\\377\\377\\377\\377\\377\\177two'; exit 0\n";
    assert_eq!(
        failing(cut),
        format!(
            "a.jsonl, line 2: the python3 that runs ftfy ended (exit status: 0) in place of repairing it; {remedy}"
        )
    );
    assert_eq!(
        failing("printf '!\\006\\000\\000\\000\\000\\000\\000\\000E: why'; cat >/dev/null\n"),
        "a.jsonl, line 2: ftfy fails on it: E: why; correct it, or take it out"
    );
}

#[test]
fn no_process_is_left_of_a_run_that_is_interrupted_or_killed() {
    for signal in ["-INT", "-KILL"] {
        // A run waits for lines of a pipe, with the terminal's signals in a group of its own.
        let traceback = "trap 'echo Traceback >&2; exit 1' INT\n";
        let shop = shop(Some(&[HELLO, traceback, CAPITALS].concat()));
        let pipe = shop.path("pipe.jsonl");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let mut command = command(&shop, "pipe.jsonl", &["--workers", "2"]);
        let child = command.process_group(0).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let child = child.unwrap();
        let mut lines = fs::File::options().write(true).open(pipe).unwrap();
        lines.write_all("{\"text\": \"one\"}\n".repeat(1000).as_bytes()).unwrap();
        wait_until(|| !entries(&shop.path("out")).is_empty());
        assert_eq!(entries(&shop.path("pids")).len(), 2);
        let group = format!("-{}", child.id());
        let kill = Command::new("kill").args([signal, "--", &group]).status();
        assert!(kill.unwrap().success());
        let output = child.wait_with_output().unwrap();
        drop(lines);
        assert_none_is_left(&shop);
        assert!(!stderr(&output).contains("Traceback"), "{}", stderr(&output));
        let code = if signal == "-INT" { Some(130) } else { None };
        assert_eq!(output.status.code(), code, "{}", stderr(&output));
    }
}

#[test]
fn chats_are_not_repaired() {
    let shop = shop(None);
    shop.write("a.jsonl", "");
    let args =
        ["--input", "a.jsonl", "--output-prefix", "out/set", "--tokenizer-path", "x", "--ftfy"];
    let output = shop.run(&args);
    assert_eq!(output.status.code(), Some(2));
    let said = stderr(&output);
    let expected = "the argument '--tokenizer-path <FOLDER|NAME>' cannot be used with '--ftfy'";
    assert!(said.contains(expected), "{said}");
}
