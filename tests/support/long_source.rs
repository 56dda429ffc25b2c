//! A source whose conversion can be interrupted between many shards, and the command of it.

use std::io::Write;
use std::path::Path;

use crate::workshop::Workshop;

/// Shards that are small against the source, so that a run can be caught between many of them.
pub(crate) const SHARDS: [&str; 6] =
    ["--splits", "val", "--size_limit", "300kb", "--hashes", "xxh64"];

pub(crate) fn tokenizer() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/tokenizers/quickstart");
    path.to_str().unwrap().to_owned()
}

/// Two files, plain and gzip, of 12,000 documents each, no two the same: 13 MB of text, 40 MB of tokens.
pub(crate) fn write_source(shop: &Workshop) {
    let document = |n: usize| {
        let text = format!("{n} times {} is {}. ", n + 1, n * (n + 1)).repeat(20 + n % 17);
        format!("{{\"text\":{text:?},\"timestamp\":\"t\",\"url\":\"u\"}}\n")
    };
    let file = |numbers: std::ops::Range<usize>| numbers.map(document).collect::<String>();
    shop.write("source/a.jsonl", file(0..12_000));
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(file(12_000..24_000).as_bytes()).unwrap();
    shop.write("source/b.jsonl.gz", packed.finish().unwrap());
}

pub(crate) fn args<'a>(out: &'a str, tokenizer: &'a str) -> Vec<&'a str> {
    let tokens =
        ["--concat_tokens", "100", "--tokenizer", tokenizer, "--eos_text", "<|endoftext|>"];
    let places = ["--source", "source", "--out_root", out];
    [&places[..], &SHARDS, &tokens].concat()
}
