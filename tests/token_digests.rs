//! Ids equal those of the stable line of Hugging Face `tokenizers`, on hostile and on real text.
//!
//! What that line gives is recorded by `tests/fixtures/make_token_digests.py`, which says how a line
//! of the file reads; it is no dependency, since its features would have Burn built again for the
//! tests. `make conformance` has more than 100 MB of text recorded, also for GPT-NeoX-20B.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use convert::tokenizer::Tokenizer;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// A hostile text of 1 MiB takes some milliseconds; time that grows with the square of its length
/// would be hours.
const LONGEST: Duration = Duration::from_secs(20);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The documents that a line of the file stands for.
fn documents(line: &Value) -> Vec<String> {
    if let Some(text) = line["text"].as_str() {
        return vec![text.to_owned()];
    }
    if let Some(parts) = line["parts"].as_array() {
        let part =
            |part: &Value| part[0].as_str().unwrap().repeat(part[1].as_u64().unwrap() as usize);
        return vec![parts.iter().map(part).collect()];
    }
    if let Some(range) = line["scalars"].as_array() {
        let [first, end] = [0, 1].map(|at| range[at].as_u64().unwrap() as u32);
        let all: Vec<String> = (first..end).filter_map(char::from_u32).map(String::from).collect();
        return vec![all.join(line["between"].as_str().unwrap_or(""))];
    }
    let path = root().join("data/c4-sample/en").join(line["file"].as_str().unwrap());
    #[expect(clippy::disallowed_types, reason = "the committed sample is small")]
    let rows = BufReader::new(flate2::read::MultiGzDecoder::new(File::open(path).unwrap())).lines();
    let text =
        |row: &str| serde_json::from_str::<Value>(row).unwrap()["text"].as_str().map(str::to_owned);
    rows.map(|row| text(&row.unwrap()).unwrap()).collect()
}

/// As the script makes it, and how long the slowest document took.
fn digest(tokenizer: &Tokenizer, documents: &[String]) -> (String, Duration) {
    let (mut digest, mut slowest) = (Sha256::new(), Duration::ZERO);
    for document in documents {
        let start = Instant::now();
        let ids = tokenizer.encode(document).unwrap();
        slowest = slowest.max(start.elapsed());
        let bytes = ids.into_iter().chain([u32::MAX]).flat_map(u32::to_le_bytes);
        digest.update(bytes.collect::<Vec<u8>>());
    }
    let hex: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    (hex[..16].to_owned(), slowest)
}

/// The tokenizers of the file's first line: GPT-2 as it is or with a patch, or a file beside it.
fn tokenizers(head: &Value, folder: &Path) -> Vec<(String, Tokenizer)> {
    let temporary = tempfile::tempdir().unwrap();
    let names = head["names"].as_array().unwrap();
    let load = |name: &Value| {
        let name = name.as_str().unwrap();
        let beside = folder.join(name).with_extension("json");
        let path = match head["patches"].get(name) {
            Some(patch) => {
                let gpt2 =
                    std::fs::read(root().join("data/tokenizers/gpt2/tokenizer.json")).unwrap();
                let mut file: Value = serde_json::from_slice(&gpt2).unwrap();
                file["normalizer"] = patch["normalizer"].clone();
                let added = patch["added_tokens"].as_array().unwrap();
                file["added_tokens"].as_array_mut().unwrap().extend_from_slice(added);
                let path = temporary.path().join(name);
                std::fs::write(&path, file.to_string()).unwrap();
                path.to_str().unwrap().to_owned()
            }
            None if beside.exists() => beside.to_str().unwrap().to_owned(),
            None => name.to_owned(),
        };
        (name.to_owned(), Tokenizer::load(&path).unwrap())
    };
    names.iter().map(load).collect()
}

/// Compares every line of `FOLDER/token_digests.jsonl`, on two threads; returns how many ids were
/// compared, in texts, how many were not, and the bytes of the texts. Those that were not are of
/// tokenizers with NFC, for marks that Unicode got after the stable line's tables were made.
fn compare(folder: &Path) -> (usize, usize, usize) {
    let path = folder.join("token_digests.jsonl");
    let mut lines = BufReader::new(File::open(&path).unwrap()).lines().map(Result::unwrap);
    let head: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
    assert_eq!(head["tokenizers"], "0.23.2");
    let lines: Vec<String> = lines.collect();
    let tokenizers = tokenizers(&head, folder);
    let (next, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (compared, left_out) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        let mut differing = Vec::new();
        while let Some(line) = lines.get(next.fetch_add(1, Ordering::Relaxed)) {
            let line: Value = serde_json::from_str(line).unwrap();
            let documents = documents(&line);
            bytes.fetch_add(documents.iter().map(String::len).sum(), Ordering::Relaxed);
            for (name, tokenizer) in &tokenizers {
                let Some(recorded) = line[name].as_str() else {
                    left_out.fetch_add(1, Ordering::Relaxed);
                    continue;
                };
                let (digest, slowest) = digest(tokenizer, &documents);
                let beginning: String = line.to_string().chars().take(300).collect();
                assert!(slowest < LONGEST, "{name}: {slowest:?} for {beginning}");
                compared.fetch_add(1, Ordering::Relaxed);
                if digest != recorded {
                    differing.push(format!("{name}: {digest} for {beginning}"));
                }
            }
        }
        differing
    };
    let differing: Vec<String> = std::thread::scope(|scope| {
        let threads = [scope.spawn(work), scope.spawn(work)];
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let few: Vec<&String> = differing.iter().take(20).collect();
    assert!(differing.is_empty(), "{} differ, the first of them: {few:#?}", differing.len());
    (compared.into_inner(), left_out.into_inner(), bytes.into_inner())
}

#[test]
fn ids_equal_those_of_the_stable_line() {
    let (compared, left_out, bytes) = compare(&root().join("tests/fixtures"));
    // All of Unicode in one row is what is left out.
    assert_eq!(left_out, 1);
    assert!(compared >= 67 && bytes > 37_000_000, "{compared} compared, {bytes} bytes");
}

#[test]
#[ignore = "needs the folder that make conformance records"]
fn ids_equal_those_of_the_stable_line_on_100_mb() {
    let folder = std::env::var("MDS_TOKEN_DIGESTS").unwrap();
    let (compared, left_out, bytes) = compare(Path::new(&folder));
    assert!(left_out <= 10, "{left_out} left out");
    assert!(compared > 50_000 && bytes > 130_000_000, "{compared} compared, {bytes} bytes");
    let megabytes = bytes as f64 / 1e6;
    println!("{compared} lists of ids of {megabytes:.1} MB are equal, {left_out} were left out");
}
