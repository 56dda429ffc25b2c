//! `prepare-data` as a user runs it, with servers on loopback that fail as they are told.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/faultd.rs"]
mod faultd;
#[path = "support/listing.rs"]
mod listing;
#[path = "support/workshop.rs"]
mod workshop;

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use convert::indexed::IndexedDataset;
use convert::tokenizer::Tokenizer;
use faultd::{Fault, Faultd};
use sha2::{Digest, Sha256};
use workshop::{Workshop, entries, stderr, stdout};

const TEXTS: [&str; 3] = ["Hello world", "two\nlines", "the last"];

/// A workshop whose folder `served/web/tiny` is at a server.
fn world() -> (Workshop, Faultd) {
    let shop = Workshop::of(env!("CARGO_BIN_EXE_prepare-data"));
    let lines: String = TEXTS.iter().map(|text| format!("{{\"text\": {text:?}}}\n")).collect();
    shop.write(
        "served/web/tiny/a.jsonl.zst",
        zstd::stream::encode_all(lines.as_bytes(), 1).unwrap(),
    );
    shop.write("served/web/tiny/b.txt", "by itself");
    let server = Faultd::start(&shop.path("served"));
    let urls = ["a.jsonl.zst", "b.txt"].map(|file| server.url(&format!("web/tiny/{file}")));
    let registry = serde_json::json!({"tiny": {"urls": urls, "num_docs": 4}});
    shop.write("registry.json", registry.to_string());
    (shop, server)
}

const TINY: [&str; 3] = ["tiny", "--registry", "registry.json"];

fn tiny<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&TINY[..], more].concat()
}

/// GPT-2's ids of these texts, each with an end, computed without the program.
fn expected(texts: &[&str]) -> Vec<Vec<i64>> {
    let gpt2 = Tokenizer::load("gpt2").unwrap();
    let ids = |text: &&str| {
        let ids = gpt2.encode(text).unwrap().into_iter().map(i64::from);
        ids.chain([50_256]).collect()
    };
    texts.iter().map(ids).collect()
}

fn documents(shop: &Workshop, name: &str) -> Vec<Vec<i64>> {
    let dataset = IndexedDataset::open(shop.path(name)).unwrap();
    dataset.documents().map(|tokens| tokens.to_vec()).collect()
}

fn sha256(path: &Path) -> String {
    Sha256::digest(fs::read(path).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn all_texts() -> Vec<&'static str> {
    [&TEXTS[..], &["by itself"]].concat()
}

const DATASET: [&str; 3] =
    ["tiny_text_document.bin", "tiny_text_document.idx", "tiny_text_document.made.json"];

#[test]
fn a_corpus_is_fetched_once_and_made_once() {
    let (shop, server) = world();
    let output = shop.succeed(&tiny(&[]));
    assert_eq!(documents(&shop, "data/tiny/tiny_text_document"), expected(&all_texts()));
    assert_eq!(entries(&shop.path("data")), ["gpt2-merges.txt", "gpt2-vocab.json", "tiny"]);
    assert_eq!(
        entries(&shop.path("data/tiny")),
        [&["a.jsonl.zst", "b.txt"][..], &DATASET].concat()
    );
    let fetched = fs::read(shop.path("data/tiny/a.jsonl.zst")).unwrap();
    assert!(fetched == fs::read(shop.path("served/web/tiny/a.jsonl.zst")).unwrap());
    let said = stderr(&output);
    let url = server.url("web/tiny");
    assert!(said.contains(&format!("./data/tiny/a.jsonl.zst: from {url}/a.jsonl.zst\n")), "{said}");
    assert!(said.contains("Processed 4/4 documents ("), "{said}");
    // Of four documents GPT-NeoX's own split gives the last two parts none.
    assert!(
        said.contains("note: split 969,30,1 gives none of the documents (4) to valid; "),
        "{said}"
    );
    let said = stdout(&output);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(
        lines,
        [
            "Vocab size: 50257",
            "Output prefix: ./data/tiny/tiny",
            "./data/tiny/tiny_text_document: 4 documents, 13 tokens, uint16"
        ]
    );

    // The same command again does nothing, even without the server.
    server.reset_requests();
    let output = shop.succeed(&tiny(&[]));
    assert_eq!(
        stdout(&output),
        "./data/tiny/tiny_text_document: there already, of the same files\n"
    );
    assert_eq!(server.requests_for(""), 0);
    // What is made of something else is not taken for the same.
    assert_eq!(
        shop.fail(&tiny(&["-t", "CharLevelTokenizer"])),
        "./data/tiny/tiny_text_document.idx was made of other files or by another tokenizer; remove it, or \
         give -f, which fetches the files again too"
    );
    // With -f all of it is done again.
    shop.write("served/web/tiny/b.txt", "of another kind");
    shop.succeed(&tiny(&["-f", "-t", "CharLevelTokenizer"]));
    let bytes = |text: &str| text.bytes().map(i64::from).chain([0]).collect::<Vec<_>>();
    let last = documents(&shop, "data/tiny/tiny_text_document").pop().unwrap();
    assert_eq!(last, bytes("of another kind"));
    assert!(server.requests_for("a.jsonl.zst") > 0);
    // Until it is done, and where it fails, what was there stays.
    let before = documents(&shop, "data/tiny/tiny_text_document");
    shop.write("served/web/tiny/b.txt", b"\xff no text");
    shop.fail(&tiny(&["-f", "-t", "CharLevelTokenizer"]));
    assert_eq!(documents(&shop, "data/tiny/tiny_text_document"), before);
    assert!(shop.path("data/tiny/tiny_text_document.made.json").exists());
}

#[test]
fn the_data_folder_and_the_tokenizer_are_a_users_choice() {
    let (shop, _server) = world();
    let mut command = shop.command(&tiny(&["-t", "HFGPT2Tokenizer", "--workers", "2"]));
    let output = command.env("DATA_DIR", "elsewhere").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(documents(&shop, "elsewhere/tiny/tiny_text_document"), expected(&all_texts()));
    assert_eq!(
        entries(&shop.path("elsewhere")),
        ["tiny"],
        "no files of a tokenizer that is built in"
    );

    // GPT-2's files, of which the first run wrote the published ones, give the same.
    shop.succeed(&tiny(&[]));
    let sums =
        ["vocab.json", "merges.txt"].map(|name| sha256(&shop.path(&format!("data/gpt2-{name}"))));
    assert_eq!(
        sums,
        [
            "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
            "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
        ]
    );
    let given = ["-v", "data/gpt2-vocab.json", "-m", "data/gpt2-merges.txt", "-d", "given"];
    shop.succeed(&tiny(&given));
    for end in ["bin", "idx"] {
        let read = |folder: &str| {
            fs::read(shop.path(&format!("{folder}/tiny/tiny_text_document.{end}"))).unwrap()
        };
        assert!(read("elsewhere") == read("data") && read("data") == read("given"), "{end}");
    }
    assert_eq!(
        shop.fail(&tiny(&["-v", "data/gpt2-vocab.json"])),
        "--vocab-file and --merge-file of GPT2BPETokenizer belong together; give both, or none for GPT-2's \
         own"
    );
}

#[test]
fn a_file_that_is_half_there_is_fetched_again() {
    for name in ["-INT", "-KILL"] {
        let (shop, server) = world();
        server.always("b.txt", Fault::Silence);
        let child = shop.command(&tiny(&[])).stderr(Stdio::piped()).spawn().unwrap();
        let begun = Instant::now();
        while server.requests_for("b.txt") == 0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "no request");
            std::thread::sleep(Duration::from_millis(2));
        }
        let pid = child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        let mut left = entries(&shop.path("data/tiny"));
        if name == "-INT" {
            assert_eq!(output.status.code(), Some(130));
            assert!(
                stderr(&output).ends_with("prepare-data: interrupted\n"),
                "{}",
                stderr(&output)
            );
        } else {
            left.retain(|name| !name.starts_with('.'));
        }
        assert_eq!(left, ["a.jsonl.zst"]);

        server.well();
        server.reset_requests();
        shop.succeed(&tiny(&[]));
        assert_eq!(server.requests_for("a.jsonl.zst"), 0, "it was complete");
        assert_eq!(documents(&shop, "data/tiny/tiny_text_document"), expected(&all_texts()));
    }
}

#[test]
fn sums_are_compared() {
    let (shop, _server) = world();
    let wrong = "0".repeat(64);
    let [a, b] =
        ["a.jsonl.zst", "b.txt"].map(|name| sha256(&shop.path(&format!("served/web/tiny/{name}"))));
    let with = |sums: &str| shop.run(&tiny(&["--sha256", sums]));
    let output = with(&format!("{a},{wrong}"));
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    let message = said.lines().last().unwrap();
    let (begin, end) =
        (message.split("http://").next().unwrap(), message.split_once("/web/").unwrap().1);
    assert_eq!(begin, "prepare-data: error: ");
    assert_eq!(
        end,
        format!("tiny/b.txt has the SHA-256 {b}, not {wrong}; name a copy with --mirror URL|PATH")
    );
    assert_eq!(entries(&shop.path("data/tiny")), ["a.jsonl.zst"]);

    // What is there and is not what was asked for is fetched again.
    shop.write("data/tiny/a.jsonl.zst", "half");
    let output = with(&format!("{},{b}", a.to_uppercase()));
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("another SHA-256 than asked for, fetched again"));
    assert_eq!(documents(&shop, "data/tiny/tiny_text_document"), expected(&all_texts()));

    assert_eq!(
        shop.fail(&tiny(&["--sha256", &a])),
        "--sha256 has 1 sums for 2 files; give one for each file, in their order"
    );
    assert_eq!(
        shop.fail(&tiny(&["--sha256", "1,2"])),
        "\"1\" is no SHA-256: that has 64 hexadecimal digits; correct it, or leave it out"
    );
}

#[test]
fn a_storm_is_survived() {
    let (shop, server) = world();
    let long: String = (0..400_000).map(|n| format!("\"{n} is a number\"\n")).collect();
    shop.write("served/web/tiny/a.jsonl", &long);
    server.storm("a.jsonl", &[Fault::Status(503), Fault::ResetInBody, Fault::Truncated], 3);
    let url = server.url("web/tiny/a.jsonl");
    shop.succeed(&tiny(&["--mirror", &url, "-t", "CharLevelTokenizer"]));
    assert!(fs::read_to_string(shop.path("data/tiny/a.jsonl")).unwrap() == long);
}

#[test]
fn what_cannot_be_fetched_is_named_with_what_to_do() {
    let (shop, server) = world();
    let url = server.url("web/tiny");
    let copy = "; or name a copy with --mirror URL|PATH";
    server.always("a.jsonl.zst", Fault::Status(404));
    assert_eq!(
        shop.fail(&tiny(&[])),
        format!("{url}/a.jsonl.zst does not exist; check the address and the split{copy}")
    );
    assert_eq!(entries(&shop.path("data/tiny")), [""; 0]);
    server.always("a.jsonl.zst", Fault::Status(403));
    assert_eq!(
        shop.fail(&tiny(&[])),
        format!(
            "access to {url}/a.jsonl.zst is denied; check the credentials in the environment{copy}"
        )
    );
    let registry = serde_json::json!({"odd": {"urls": [server.url("web/tiny/a.jsonl.zst"), server.url("x.md")]}});
    shop.write("odd.json", registry.to_string());
    server.reset_requests();
    let message = shop.fail(&["odd", "--registry", "odd.json"]);
    assert!(message.starts_with("x.md is not a kind of file that can be read; "), "{message}");
    assert_eq!(server.requests_for(""), 0);
    drop(server);
    let message = shop.fail(&tiny(&[]));
    let begin = format!("cannot download {url}/a.jsonl.zst in 4 attempt(s) (");
    assert!(message.starts_with(&begin) && message.ends_with(copy), "{message}");
    assert_eq!(entries(&shop.path("data/tiny")), [""; 0]);
}

#[test]
fn corpora_that_are_gone_come_from_copies() {
    let (shop, server) = world();
    assert_eq!(
        shop.fail(&["enron"]),
        "enron cannot be had from its source: the host eaidata.bmk.sh is gone since 2023; name a copy of \
         enron_emails.jsonl.zst with --mirror URL|PATH"
    );
    assert_eq!(
        shop.fail(&["pile"]),
        "pile cannot be had from its source: the-eye.eu took the Pile down; name a copy of its 30 \
         files with --mirror URL|PATH"
    );
    assert!(!shop.path("data").exists());

    let file = fs::read(shop.path("served/web/tiny/a.jsonl.zst")).unwrap();
    shop.write("copies/enron_emails.jsonl.zst", &file);
    shop.write("served/web/copies/enron_emails.jsonl.zst", &file);
    let folder = server.url("web/copies");
    let at_server = server.url("web/copies/enron_emails.jsonl.zst");
    for (number, mirror) in
        ["copies", "copies/enron_emails.jsonl.zst", &folder, &at_server].iter().enumerate()
    {
        let data = number.to_string();
        shop.succeed(&["enron", "-d", &data, "--mirror", mirror]);
        let name = format!("{data}/enron/enron_text_document");
        assert_eq!(documents(&shop, &name), expected(&TEXTS), "{mirror}");
        // A file of this machine stays where it is.
        let is_here = shop.path(&format!("{data}/enron/enron_emails.jsonl.zst")).exists();
        assert_eq!(is_here, mirror.starts_with("http"), "{mirror}");
    }

    // Several files are several documents' worth, in this order.
    shop.write("copies/first.txt", "first");
    let mirrors = "copies/first.txt,copies/enron_emails.jsonl.zst";
    shop.succeed(&["enron", "-d", "two", "--mirror", mirrors]);
    let texts = [&["first"][..], &TEXTS].concat();
    assert_eq!(documents(&shop, "two/enron/enron_text_document"), expected(&texts));

    assert_eq!(
        shop.fail(&["enron", "--mirror", "copies/none.txt"]),
        "--mirror copies/none.txt not found; check the path"
    );
    assert_eq!(
        shop.fail(&["github", "--mirror", "copies"]),
        "--mirror copies/github_small.jsonl.zst not found; check the path"
    );
    let twice = "copies/first.txt,served/../copies/first.txt";
    assert_eq!(
        shop.fail(&["enron", "--mirror", twice]),
        "two files of enron are called first.txt; rename one of them"
    );
    assert!(
        shop.fail(&["books3"])
            .starts_with("there is no corpus \"books3\": those known are enwik8, ")
    );
}

#[test]
fn enwik8_is_one_document_unless_it_is_cut() {
    let (shop, server) = world();
    let dump = "<mediawiki>\n  <page>\n one\n  </page>\n  <page>\n two\n  </page>\n</mediawiki>\n";
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    archive.start_file("enwik8", zip::write::SimpleFileOptions::default()).unwrap();
    archive.write_all(dump.as_bytes()).unwrap();
    shop.write("served/web/enwik8.zip", archive.finish().unwrap().into_inner());
    let url = server.url("web/enwik8.zip");
    // The name of the corpus is the default.
    let output = shop.succeed(&["--mirror", &url]);
    assert_eq!(documents(&shop, "data/enwik8/enwik8_text_document"), expected(&[dump]));
    let notes: Vec<_> = stderr(&output)
        .lines()
        .filter_map(|l| l.strip_prefix("prepare-data: note: "))
        .map(str::to_owned)
        .collect();
    let end = "cut the text into more documents, or name a dataset for each part";
    assert_eq!(
        notes,
        [
            format!("split 969,30,1 gives none of the only document (1) to valid; {end}"),
            format!("split 969,30,1 gives none of the only document (1) to test; {end}"),
            "--split-documents articles or lines, with -f, makes more documents of it".to_owned(),
        ]
    );

    shop.succeed(&["enwik8", "-f", "--mirror", &url, "--split-documents", "articles"]);
    let articles = [
        "<mediawiki>\n",
        "  <page>\n one\n  </page>\n",
        "  <page>\n two\n  </page>\n</mediawiki>\n",
    ];
    assert_eq!(documents(&shop, "data/enwik8/enwik8_text_document"), expected(&articles));
}

#[test]
fn the_registry_can_be_seen() {
    let (shop, server) = world();
    let list = stdout(&shop.succeed(&["--list", "--registry", "registry.json"]));
    let line = |name: &str| list.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(line("enwik8").contains(" listed "));
    assert!(line("pile ").contains(" gone ") && line("pile ").contains("took the Pile down"));
    assert!(line("arxiv").contains(" uncertain "));
    assert!(line("tiny").ends_with(&server.url("web/tiny/a.jsonl.zst")));
    assert!(!list.contains("books3"));
    assert!(!shop.path("data").exists());

    let help = stdout(&shop.succeed(&["--help"]));
    assert!(
        help.contains("prepare-data enron --mirror https://my.host/enron_emails.jsonl.zst"),
        "{help}"
    );
}

/// A file whose lines cannot be read stays, and there is no dataset.
#[test]
fn a_corpus_that_cannot_be_read_makes_no_dataset() {
    let (shop, _server) = world();
    shop.write(
        "served/web/tiny/a.jsonl.zst",
        zstd::stream::encode_all(&b"not JSON\n"[..], 1).unwrap(),
    );
    assert_eq!(
        shop.fail(&tiny(&[])),
        "./data/tiny/a.jsonl.zst, line 1: not JSON with texts: expected ident at column 2; correct it, or \
         take it out"
    );
    assert_eq!(entries(&shop.path("data/tiny")), ["a.jsonl.zst", "b.txt"]);
}
