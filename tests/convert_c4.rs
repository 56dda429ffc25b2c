//! `convert-c4` as a user runs it, on local files.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use axum::http::StatusCode;
use convert::tokenizer::Tokenizer;

#[path = "support/shards.rs"]
mod shards;
#[path = "support/store.rs"]
mod store;
#[path = "support/workshop.rs"]
mod workshop;

use workshop::{Workshop, entries, stderr, stdout};

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data")
}

fn line(text: &str, n: usize) -> String {
    format!("{{\"text\":{text:?},\"timestamp\":\"t{n}\",\"url\":\"http://x/{n}\"}}\n")
}

fn gz(content: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(content.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// The lines of gzip files, one after the other, as `[text, timestamp, url]`.
fn source_samples(files: &[&str]) -> Vec<Vec<String>> {
    let mut samples = Vec::new();
    for file in files {
        let file = File::open(data().join("c4-sample/en").join(file)).unwrap();
        #[expect(clippy::disallowed_types, reason = "the committed sample is small")]
        let text = std::io::read_to_string(flate2::read::MultiGzDecoder::new(file)).unwrap();
        for line in text.lines() {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            let column = |key: &str| value[key].as_str().unwrap().to_owned();
            samples.push(["text", "timestamp", "url"].map(column).to_vec());
        }
    }
    samples
}

const TRAIN: [&str; 2] = ["c4-train.00000-of-00002.json.gz", "c4-train.00001-of-00002.json.gz"];
const VALIDATION: [&str; 1] = ["c4-validation.00000-of-00001.json.gz"];

#[test]
fn splits_take_their_own_files_and_keep_file_and_line_order() {
    let shop = Workshop::new();
    let source = data().join("c4-sample");
    let out = shop.succeed(&["--source", source.to_str().unwrap(), "--out_root", "c4"]);
    assert_eq!(shards::read_strings(&shop.path("c4/train")), source_samples(&TRAIN));
    assert_eq!(shards::read_strings(&shop.path("c4/val")), source_samples(&VALIDATION));
    assert_eq!(entries(&shop.path("c4")), ["train", "val"]);
    let names = ["index.json", "shard.00000.mds", "statistics.html", "statistics.json"];
    assert_eq!(entries(&shop.path("c4/val")), names);

    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(shop.path("c4/val/index.json")).unwrap()).unwrap();
    let shard = &index["shards"][0];
    assert_eq!(shard["column_names"], serde_json::json!(["text", "timestamp", "url"]));
    assert_eq!(shard["column_encodings"], serde_json::json!(["str", "str", "str"]));
    assert_eq!(shard["compression"], serde_json::Value::Null);
    assert_eq!(shard["hashes"], serde_json::json!([]));
    assert_eq!(shard["size_limit"], 1 << 26);

    // Piped, so plain lines: one when a split begins, one when it is done.
    assert_eq!(stderr(&out), "train: reading 2 files, 1.58 MiB\nval: reading 1 file, 131.95 KiB\n");
    let out = stdout(&out);
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("train: 1,070 samples in 1 shard, "), "{out}");
    assert!(
        lines[1].starts_with(
            "val: 93 samples in 1 shard, 325.61 KiB, from 93 documents in 1 file, in "
        ),
        "{out}"
    );
    assert!(lines[1].ends_with(" s -> c4/val"), "{out}");
}

#[test]
fn small_splits_are_the_first_samples_of_whole_ones() {
    let shop = Workshop::new();
    shop.write("c4-train.0.json", line("not of val", 0));
    shop.write("c4-validation.0.json", (0..2_000).map(|n| line("zero", n)).collect::<String>());
    shop.write("c4-validation.1.json", (2_000..4_000).map(|n| line("one", n)).collect::<String>());
    let splits = "val,val_xsmall,val_xxsmall";
    let common = ["--source", ".", "--out_root"];
    shop.succeed(&[&common[..], &["out", "--splits", splits, "--size_limit", "20kb"]].concat());
    let samples = |split: &str| shards::read_strings(&shop.path(&format!("out/{split}")));
    let whole = samples("val");
    assert_eq!(whole.len(), 4_000);
    assert!(samples("val_xsmall") == whole[..3_000]);
    assert!(samples("val_xxsmall") == whole[..100]);

    // The first samples, not documents.
    let tokens = ["--concat_tokens", "2", "--tokenizer", "gpt2", "--eos_text", "<|endoftext|>"];
    let splits = ["--splits", "val_xsmall"];
    let out = shop.succeed(&[&common[..], &["tokens"], &splits, &tokens].concat());
    assert!(stdout(&out).starts_with("val_xsmall: 3,000 samples in 1 shard, "), "{}", stdout(&out));

    // What has one name only is no two wholes, but parts of one.
    let one = ["--source", "c4-validation.0.json", "--out_root"];
    shop.succeed(&[&one[..], &["one", "--splits", "val_xxsmall,val"]].concat());
    let names = |splits| shop.fail(&[&one[..], &["two", "--splits", splits]].concat());
    assert!(names("val_small,train_small").contains("holds no file of split train_small"));
}

#[test]
fn the_general_program_takes_c4_as_a_source() {
    let shop = Workshop::new();
    let source = data().join("c4-sample");
    shop.succeed(&["--source", source.to_str().unwrap(), "--out_root", "short", "--splits", "val"]);
    let convert = |out: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_convert"));
        command.args(["c4", "--splits", "val", "--out_root", out, "--source"]).arg(&source);
        command.output().unwrap()
    };
    let general = shop.path("general");
    assert!(convert(general.to_str().unwrap()).status.success());
    for file in ["index.json", "shard.00000.mds"] {
        let read = |root: &str| fs::read(shop.path(&format!("{root}/val/{file}"))).unwrap();
        assert!(read("short") == read("general"), "{file}");
    }
    let again = convert(general.to_str().unwrap());
    let there = shop.path("general/val");
    let expected =
        format!("val: {} is complete, of the same input and settings\n", there.display());
    assert_eq!((stdout(&again), again.status.code()), (expected, Some(0)));
}

#[test]
fn json_lines_need_no_more_than_text() {
    let shop = Workshop::new();
    shop.write("crawl/a.jsonl", "{\"text\": \"first\", \"n\": 1}\n{\"text\": \"second\"}\n");
    shop.write("crawl/b.json.gz", gz("{\"id\": 3, \"text\": \"third\"}"));
    let convert = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_convert"));
        command.arg("json").args(args).current_dir(shop.path("."));
        command.output().unwrap()
    };
    let out = convert(&["--path", "crawl", "--out_root", "out"]);
    assert!(out.status.success(), "{}", stderr(&out));
    assert!(shop.path("out/train/shard.00000.mds.zstd").exists(), "zstd, as in llm-foundry");
    assert!(stdout(&out).starts_with("train: 3 samples in 1 shard, "), "{}", stdout(&out));
    let samples = shards::read_strings(&shop.path("out/train"));
    assert_eq!(samples, [["first"], ["second"], ["third"]]);

    let tokens = ["--concat_tokens", "2", "--tokenizer", "gpt2", "--eos_text", "<|endoftext|>"];
    let places = [
        "--path",
        "crawl/a.jsonl",
        "--out_root",
        "tokens",
        "--split",
        "mine",
        "--compression",
        "none",
    ];
    let out = convert(&[&places[..], &tokens].concat());
    assert!(stdout(&out).starts_with("mine: 2 samples in 1 shard, "), "{}", stderr(&out));

    let failure = |args: &[&str]| stderr(&convert(&[args, &["--out_root", "x"]].concat()));
    assert_eq!(
        failure(&["--path", "crawl", "--split", "../up"]),
        "convert json: error: --split \"../up\" cannot be the name of a folder; give a plain name, such as train\n"
    );
    shop.write("bad/a.jsonl", "{\"texts\": \"first\"}\n");
    assert_eq!(
        failure(&["--path", "bad"]).lines().last().unwrap(),
        "convert json: error: bad/a.jsonl, line 1: the key \"text\" is missing; correct the line, or leave such lines \
         out with --on_bad_line skip"
    );
    let last_line = |text: &str| {
        shop.write("bad/a.jsonl", text);
        failure(&["--path", "bad"]).lines().last().unwrap().to_owned()
    };
    assert_eq!(
        last_line("{\"text\": null}\n"),
        "convert json: error: bad/a.jsonl, line 1: the key \"text\" is null; correct the line, or leave such lines out \
         with --on_bad_line skip"
    );
    assert_eq!(
        last_line("[{\"text\": \"a\"}, {\"text\": \"b\"}]"),
        "convert json: error: bad/a.jsonl, line 1: not a JSON object; one JSON object per line is expected, and this \
         looks like an array: `jq -c '.[]' FILE` writes its elements so"
    );
    assert_eq!(
        last_line("{\n  \"text\": \"a\"\n}\n"),
        "convert json: error: bad/a.jsonl, line 1: not a JSON object with text keys: EOF while parsing an object at \
         column 1; one JSON object per line is expected, and this looks like one over several lines: `jq -c . FILE` \
         writes it so"
    );
}

#[test]
fn a_web_server_that_takes_no_files_is_refused_before_anything_is_read() {
    let shop = Workshop::new();
    // Not read so far that it is found to be none.
    shop.write("bad.jsonl", "{\"text\"");
    for status in [StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_IMPLEMENTED] {
        let store = store::Store::start();
        store.refuse(Some(("", status)));
        let args = ["--source", "bad.jsonl", "--splits", "val", "--out_root", &store.url];
        assert_eq!(
            shop.fail(&args),
            format!(
                "cannot upload {}/val/.probe: the server takes no files; give a folder, a bucket, or a web \
                 server that takes what is PUT there",
                store.url
            )
        );
    }
}

#[test]
fn a_remote_gets_the_shards_of_a_folder_and_the_index_last() {
    let shop = Workshop::new();
    let source = data().join("c4-sample");
    let store = store::Store::start();
    let args = |out_root: &str| {
        let source = source.to_str().unwrap();
        let args = ["--source", source, "--splits", "val", "--size_limit", "100kb", "--out_root"];
        args.into_iter().chain([out_root]).map(str::to_owned).collect::<Vec<_>>()
    };
    let convert = |out_root: &str| {
        let args = args(out_root);
        shop.run(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    assert!(convert("here").status.success());
    let out = convert(&store.url);
    assert!(out.status.success(), "{}", stderr(&out));
    assert!(stdout(&out).contains(&format!(" -> {}/val\n", store.url)), "{}", stdout(&out));
    let objects = store.objects();
    assert!(objects.len() > 3);
    for (name, bytes) in &objects {
        assert!(fs::read(shop.path("here").join(name)).unwrap() == *bytes, "{name}");
    }
    assert_eq!(objects.len(), entries(&shop.path("here/val")).len());
    assert_eq!(store.take_puts().last().unwrap(), "val/index.json");
    assert_eq!(entries(&shop.path("")), ["here"], "nothing is left on this machine");

    let again = convert(&store.url);
    let complete = format!("val: {}/val is complete, of the same input and settings\n", store.url);
    assert_eq!((stdout(&again), again.status.code()), (complete, Some(0)));
    let other = args(&store.url);
    let other: Vec<&str> =
        other.iter().map(String::as_str).chain(["--compression", "zstd"]).collect();
    let again = shop.run(&other);
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(
        stderr(&again).lines().last().unwrap(),
        format!(
            "convert-c4: error: {}/val exists already, made with no --compression, not --compression \
             zstd; delete it first, or write to another place",
            store.url
        )
    );
    let reprocess: Vec<&str> =
        other[..other.len() - 2].iter().copied().chain(["--reprocess"]).collect();
    assert_eq!(
        shop.fail(&reprocess),
        format!(
            "--reprocess cannot replace {}/val at a remote; delete it first, or write to another place",
            store.url
        )
    );
    // Its own shards are no place for what is made of them.
    let dataset = format!("{}/val", store.url);
    let shard = format!("{dataset}/shard.00000.mds");
    assert_eq!(
        shop.refused(&["mds", "--path", &dataset, "--out_root", &store.url, "--split", "val"]),
        format!(
            "{dataset} is to be written, but the input {shard} lies there; write to another place"
        )
    );
    assert!(store.take_puts().is_empty());
}

#[test]
fn a_folder_for_the_output_must_be_one() {
    let shop = Workshop::new();
    let source = data().join("c4-sample");
    let convert = |out: &str| {
        let args = ["--source", source.to_str().unwrap(), "--splits", "val", "--out_root", out];
        shop.fail(&args)
    };
    assert_eq!(
        convert("dbfs:/c4"),
        "the remote dbfs:/c4 is of a kind that is not read or written; on Databricks give the \
         mounted path, /dbfs/... or /Volumes/...; elsewhere the s3://, gs:// or abfss:// address \
         of the storage below it"
    );
    assert_eq!(
        convert("s3:/bucket/c4?secret_access_key=TopSecret"),
        "the remote s3:/bucket/c4 has too few slashes for an address; write s3://bucket/c4, or \
         ./s3:... for a folder of this name"
    );
    fs::write(shop.path("file"), "").unwrap();
    assert_eq!(
        convert("file"),
        "--out_root file is a file; give a folder, or a name that is not taken yet"
    );
    assert_eq!(entries(&shop.path("")), ["file"]);
    let defaults = ["--compression", "none", "--hashes", "none", "--num_workers", "1"];
    let args = ["--source", source.to_str().unwrap(), "--splits", "val", "--out_root", "c4"];
    shop.succeed(&[&args[..], &defaults].concat());
}

#[test]
fn the_output_does_not_depend_on_the_number_of_threads() {
    let shop = Workshop::new();
    let source = data().join("c4-sample");
    let source = source.to_str().unwrap();
    let tokenizer = data().join("tokenizers/quickstart");
    let tokens = [
        "--concat_tokens",
        "64",
        "--tokenizer",
        tokenizer.to_str().unwrap(),
        "--bos_text",
        "<|endoftext|>",
    ];
    for (name, more) in [("text", &[][..]), ("tokens", &tokens[..])] {
        let mut outputs = Vec::new();
        for threads in ["1", "2", "7"] {
            let root = format!("{name}{threads}");
            let mut args = vec!["--source", source, "--out_root", &root, "--splits", "train"];
            args.extend(["--num_workers", threads, "--size_limit", "100kb", "--hashes", "xxh64"]);
            args.extend(more);
            shop.succeed(&args);
            let folder = shop.path(&format!("{root}/train"));
            let files = entries(&folder);
            assert!(files.len() > 20, "{files:?}");
            outputs.push(
                files
                    .into_iter()
                    .map(|f| (fs::read(folder.join(&f)).unwrap(), f))
                    .collect::<Vec<_>>(),
            );
        }
        assert!(outputs.iter().all(|output| *output == outputs[0]), "{name}");
    }
}

#[test]
fn flags_may_be_spelled_with_hyphens() {
    let shop = Workshop::new();
    shop.write("x.jsonl", [line("a b c d e f", 0), "\n".into(), "x\n".into()].concat());
    let underscores = [
        "--source",
        "x.jsonl",
        "--splits",
        "val",
        "--out_root",
        "o1",
        "--concat_tokens",
        "2",
        "--tokenizer",
        "gpt2",
        "--bos_text",
        "<|endoftext|>",
        "--eos_text",
        "!",
        "--no_wrap",
        "--size_limit",
        "1kb",
        "--on_bad_line",
        "skip",
        "--num_workers",
        "1",
    ];
    let hyphens = underscores.map(|arg| {
        let flag = arg.starts_with("--");
        if flag { arg.replace('_', "-") } else { arg.replace("o1", "o2") }
    });
    shop.succeed(&underscores);
    shop.succeed(&hyphens.each_ref().map(String::as_str));
    assert_eq!(shards::read_ids(&shop.path("o1/val")), [[50256, 64]]);
    for file in ["index.json", "shard.00000.mds"] {
        let read = |root: &str| fs::read(shop.path(root).join("val").join(file)).unwrap();
        assert_eq!(read("o1"), read("o2"));
    }
}

/// Documents joined and cut as the reference does it, written here a second time and naively.
fn joined(
    documents: &[Vec<u32>],
    length: usize,
    bos: &[u32],
    eos: &[u32],
    wrap: bool,
) -> Vec<Vec<i64>> {
    let (mut buffer, mut samples) = (Vec::new(), Vec::new());
    for document in documents {
        buffer = [&buffer, bos, document, eos].concat();
        while buffer.len() >= length {
            samples.push(buffer[..length].iter().map(|&id| i64::from(id)).collect());
            buffer = if wrap { buffer[length..].to_vec() } else { Vec::new() };
        }
    }
    samples
}

#[test]
fn tokens_are_joined_with_marks_and_cut() {
    let shop = Workshop::new();
    let source = data().join("c4-sample");
    let gpt2 = Tokenizer::load("gpt2").unwrap();
    let documents: Vec<Vec<u32>> =
        source_samples(&VALIDATION).iter().map(|sample| gpt2.encode(&sample[0]).unwrap()).collect();
    let mark = "<|endoftext|>";
    for (root, more, bos, eos, wrap) in [
        ("eos", &["--eos_text", mark][..], &[][..], &[50256][..], true),
        ("both", &["--bos_text", mark, "--eos_text", "\n"], &[50256], &[198], true),
        ("cut", &["--bos_text", mark, "--no_wrap"], &[50256], &[], false),
    ] {
        let mut args = vec!["--source", source.to_str().unwrap(), "--out_root", root];
        args.extend(["--splits", "val", "--concat_tokens", "512", "--tokenizer", "gpt2"]);
        args.extend(["--compression", "zstd:5"]);
        args.extend(more);
        let out = shop.succeed(&args);
        let expected = joined(&documents, 512, bos, eos, wrap);
        assert!(expected.len() > 50);
        assert_eq!(shards::read_ids(&shop.path(root).join("val")), expected, "{root}");
        let index = fs::read_to_string(shop.path(root).join("val/index.json")).unwrap();
        assert!(
            index.contains(r#""column_encodings": ["ndarray:int32"], "column_names": ["tokens"]"#)
        );
        assert!(index.contains(r#""compression": "zstd:5""#));
        assert!(stdout(&out).contains("at the end did not fill a sample and were dropped"));
    }
}

#[test]
fn every_kind_of_file_is_read() {
    let shop = Workshop::new();
    let text = |range: std::ops::Range<usize>| -> String {
        range.map(|n| line(&format!("document {n}"), n)).collect()
    };
    shop.write("in/a.json", text(0..2));
    shop.write("in/b.jsonl", text(2..4).trim_end());
    // Two gzip members and two zstd frames in one file, as parallel compressors write them.
    shop.write("in/c.json.gz", [gz(&text(4..5)), gz(&text(5..6))].concat());
    shop.write("in/d.jsonl.gz", gz(&text(6..8)));
    let frame = |range| zstd::encode_all(text(range).as_bytes(), 3).unwrap();
    shop.write("in/e.jsonl.zst", [frame(8..9), frame(9..10)].concat());
    shop.write("in/README.txt", "not data");
    let texts = |root: &str| -> Vec<String> {
        shards::read_strings(&shop.path(root)).into_iter().map(|s| s[0].clone()).collect()
    };
    let documents = |range: std::ops::Range<usize>| -> Vec<String> {
        range.map(|n| format!("document {n}")).collect()
    };
    shop.succeed(&["--source", "in", "--out_root", "all", "--splits", "val"]);
    assert_eq!(texts("all/val"), documents(0..10));
    shop.succeed(&["--source", "in/*.json*", "--out_root", "glob", "--splits", "train"]);
    assert_eq!(texts("glob/train"), documents(0..10));
    shop.succeed(&["--source", "in/[bd].jsonl*", "--out_root", "two", "--splits", "train"]);
    assert_eq!(texts("two/train"), [documents(2..4), documents(6..8)].concat());
    shop.succeed(&["--source", "in/e.jsonl.zst", "--out_root", "one", "--splits", "train"]);
    assert_eq!(texts("one/train"), documents(8..10));
}

#[test]
fn an_existing_split_is_refused_before_any_work() {
    let shop = Workshop::new();
    shop.write("c4/val/precious", "x");
    let source = data().join("c4-sample");
    let source = source.to_str().unwrap();
    assert_eq!(
        shop.fail(&["--source", source, "--out_root", "c4", "--splits", "train", "val"]),
        "c4/val exists already; remove it, or write to another place"
    );
    assert_eq!(entries(&shop.path("c4")), ["val"]);
    assert_eq!(entries(&shop.path("c4/val")), ["precious"]);
    shop.succeed(&["--source", source, "--out_root", "c4", "--splits", "train"]);
    assert_eq!(entries(&shop.path("c4")), ["train", "val"]);
}

#[test]
fn a_bad_line_stops_the_run_or_is_skipped_and_counted() {
    let shop = Workshop::new();
    let lines = [
        line("one", 1),
        "{\"text\": \"cut\n".into(),
        line("three", 3),
        "{\"text\":\"no url\",\"timestamp\":\"t\"}\n".into(),
        "\n".into(),
        line("six", 6),
    ];
    shop.write("bad.jsonl", lines.concat());
    let args = ["--source", "bad.jsonl", "--out_root", "out", "--splits", "val"];
    let message = shop.fail(&args);
    let plain = "bad.jsonl, line 2: not a JSON object with text keys: EOF while parsing a string at column 13";
    assert_eq!(
        message,
        format!("{plain}; correct the line, or leave such lines out with --on_bad_line skip")
    );
    shop.assert_nothing_written("out");

    let out = shop.succeed(&[&args[..], &["--on_bad_line", "skip"]].concat());
    let texts: Vec<String> =
        shards::read_strings(&shop.path("out/val")).into_iter().map(|s| s[0].clone()).collect();
    assert_eq!(texts, ["one", "three", "six"]);
    let expected = format!(
        "val: 2 unreadable documents skipped:\n  {plain}\n  bad.jsonl, line 4: the key \"url\" is missing\n"
    );
    assert!(stderr(&out).ends_with(&expected), "{}", stderr(&out));
}

#[test]
fn a_bad_line_far_into_a_second_file_is_named_exactly() {
    let shop = Workshop::new();
    let mut text: String = (0..30_000).map(|n| line("some words of text", n)).collect();
    shop.write("in/a.jsonl", &text);
    text.push_str("[]\n");
    shop.write("in/b.json.gz", gz(&text));
    for threads in ["1", "4"] {
        let args =
            ["--source", "in", "--out_root", "out", "--splits", "val", "--num_workers", threads];
        assert_eq!(
            shop.fail(&args),
            "in/b.json.gz, line 30001: not a JSON object; correct the line, or leave such lines \
             out with --on_bad_line skip"
        );
        shop.assert_nothing_written("out");
    }
}

#[test]
fn a_damaged_file_is_named_and_nothing_is_left() {
    let shop = Workshop::new();
    let text: String = (0..5_000).map(|n| line(&format!("text {}", n * n * 7919), n)).collect();
    let whole = gz(&text);
    shop.write("cut.json.gz", &whole[..whole.len() / 2]);
    let args = |source| {
        ["--source", source, "--out_root", "out", "--splits", "val", "--on_bad_line", "skip"]
    };
    let message = shop.fail(&args("cut.json.gz"));
    let expected = format!("cut.json.gz: cannot read after byte {}: ", whole.len() / 2);
    assert!(message.starts_with(&expected), "{message}");
    assert!(
        message.ends_with("; the file is damaged or cut short: fetch or write it again"),
        "{message}"
    );
    shop.assert_nothing_written("out");

    let frame = zstd::encode_all(text.as_bytes(), 3).unwrap();
    shop.write("cut.jsonl.zst", &frame[..frame.len() / 2]);
    let message = shop.fail(&args("cut.jsonl.zst"));
    assert!(message.starts_with("cut.jsonl.zst: cannot read after byte "), "{message}");
    shop.write("no.json.gz", "plain text");
    assert!(shop.fail(&args("no.json.gz")).starts_with("no.json.gz: cannot read after byte 10: "));
    shop.assert_nothing_written("out");
}

#[test]
fn a_source_without_documents_is_an_error() {
    let shop = Workshop::new();
    shop.write("empty.jsonl", "\n \n");
    shop.write("bad.jsonl", "x\ny\n");
    shop.write("short.jsonl", line("too short", 0));
    assert_eq!(
        shop.fail(&["--source", "empty.jsonl", "--out_root", "out", "--splits", "val"]),
        "split val: the source holds no documents; check that it is the right source"
    );
    assert_eq!(
        shop.fail(&[
            "--source",
            "bad.jsonl",
            "--out_root",
            "out",
            "--splits",
            "val",
            "--on_bad_line",
            "skip"
        ]),
        "split val: the source holds no documents (2 unreadable documents were skipped); check that \
         it is the right source"
    );
    assert_eq!(
        shop.fail(&[
            "--source",
            "short.jsonl",
            "--out_root",
            "out",
            "--splits",
            "val",
            "--concat_tokens",
            "100",
            "--tokenizer",
            "gpt2",
            "--eos_text",
            "<|endoftext|>",
        ]),
        "split val: 1 document holds too few tokens for one sample of 100; use more text or a \
         smaller --concat_tokens"
    );
    shop.assert_nothing_written("out");
}

#[test]
fn sources_that_cannot_work_are_named_with_a_remedy() {
    let shop = Workshop::new();
    shop.write("x.jsonl", line("a", 0));
    assert_eq!(
        shop.fail(&["--source", "nowhere", "--out_root", "out", "--splits", "val"]),
        "source nowhere not found; check the path"
    );
    assert_eq!(
        shop.fail(&["--source", "x.jsonl", "--out_root", "out"]),
        "nothing in the file names of x.jsonl tells one split from another; name one split, such \
         as --splits train, and convert each from its own files"
    );
    shop.assert_nothing_written("out");
}

#[test]
fn token_flags_are_checked_before_any_work() {
    let shop = Workshop::new();
    shop.write("x.jsonl", line("a", 0));
    let fail = |more: &[&str]| {
        let args = ["--source", "x.jsonl", "--out_root", "out", "--splits", "val"];
        let message = shop.fail(&[&args[..], more].concat());
        shop.assert_nothing_written("out");
        message
    };
    assert_eq!(
        fail(&["--concat_tokens", "8"]),
        "--concat_tokens needs a tokenizer; add --tokenizer gpt2, or the path of a tokenizer.json"
    );
    assert_eq!(
        fail(&["--tokenizer", "gpt2", "--eos_text", "x"]),
        "--eos_text has no effect on samples that are documents; add --concat_tokens N, or leave --eos_text \
         out"
    );
    assert_eq!(
        fail(&["--tokenizer_kwargs", "{}"]),
        "--tokenizer_kwargs has no effect on text samples; add --concat_tokens N, or leave \
         --tokenizer_kwargs out"
    );
    assert_eq!(
        fail(&["--concat_tokens", "8", "--tokenizer", "gpt2"]),
        "tokenizer gpt2 puts nothing between two documents: they would run into one another; give \
         a mark, e.g. --eos_text '<|endoftext|>', or use another tokenizer"
    );
    assert_eq!(
        fail(&["--concat_tokens", "0", "--tokenizer", "gpt2", "--eos_text", "!"]),
        "--concat_tokens is 0; give a number of tokens, e.g. 2048"
    );
    assert_eq!(
        fail(&["--concat_tokens", "8", "--tokenizer", "./tok"]),
        "tokenizer \"./tok\" not found: it is not built in (gpt2 is), and there is no ./tok; give \
         the path of a tokenizer.json or of the folder that holds one"
    );
    assert!(fail(&["--size_limit", "64 megs"]).contains("is not a size in bytes"));
    assert!(fail(&["--compression", "zip"]).contains("zip"));
    assert!(fail(&["--hashes", "md4"]).contains("md4"));
}

#[test]
fn a_mark_of_several_tokens_is_a_warning() {
    let shop = Workshop::new();
    shop.write("x.jsonl", line("a b c d e f g h", 0));
    let out = shop.succeed(&[
        "--source",
        "x.jsonl",
        "--out_root",
        "out",
        "--splits",
        "val",
        "--concat_tokens",
        "4",
        "--tokenizer",
        "gpt2",
        "--eos_text",
        "The end.",
    ]);
    assert!(
        stderr(&out).contains(
            "convert-c4: warning: --eos_text \"The end.\" is not one token but 3: [464, 886, 13]\n"
        ),
        "{}",
        stderr(&out)
    );
}

#[test]
fn a_wrong_command_line_is_refused_without_its_keys() {
    let shop = Workshop::new();
    let out = shop.run(&["--out_root", "x", "s3://bucket/c4?secret_access_key=TopSecret"]);
    assert_eq!(out.status.code(), Some(2));
    let error = stderr(&out);
    assert!(error.contains("'s3://bucket/c4' ") && !error.contains("TopSecret"), "{error}");
}

#[test]
fn the_help_teaches_by_example() {
    let help = stdout(&Workshop::new().succeed(&["--help"]));
    for part in [
        "--out_root <FOLDER>",
        "Examples:",
        "convert-c4 --out_root ./c4 --splits val",
        "HF_TOKEN",
        "--on_bad_line",
    ] {
        assert!(help.contains(part), "{part}: {help}");
    }
}
