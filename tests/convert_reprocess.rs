//! What a conversion may write over: a dataset of its own that it was told to make again, and never its input.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::symlink;

#[path = "support/shards.rs"]
mod shards;
#[path = "support/workshop.rs"]
mod workshop;

use workshop::{Workshop, entries};

fn args(out: &str) -> [&str; 6] {
    ["text", "--input_folder", "books", "--output_folder", out, "--reprocess"]
}

#[test]
fn only_a_dataset_of_this_program_is_replaced() {
    let shop = Workshop::new();
    shop.write("books/a.txt", "a book");
    shop.write("precious/thesis.tex", "years of work");
    let refused = |out: &str| {
        let at = format!("{}/", shop.path(".").canonicalize().unwrap().display());
        shop.refused(&args(out)).replace(&at, "")
    };
    let remedy =
        "and --reprocess replaces nothing else; move it elsewhere, or write to another place";
    assert_eq!(
        refused("precious"),
        format!("precious holds thesis.tex, which is of no dataset of this program, {remedy}")
    );
    assert_eq!(entries(&shop.path("precious")), ["thesis.tex"]);
    assert_eq!(refused("precious/thesis.tex"), format!("precious/thesis.tex is a file, {remedy}"));

    // Of another program.
    shop.write("other/index.json", r#"{"shards": [], "version": 2}"#);
    for _ in 0..2 {
        assert_eq!(refused("other"), format!("other is no dataset of this program, {remedy}"));
        shop.write("other/statistics.json", "{}");
    }
    // What lies in a dataset of this one.
    fs::create_dir(shop.path("mine")).unwrap();
    for _ in 0..2 {
        shop.converted(&args("mine"));
    }
    shop.write("mine/notes.md", "remember");
    assert_eq!(
        refused("mine"),
        format!("mine holds notes.md, which is of no dataset of this program, {remedy}")
    );
    shop.write("shards/shard.00000.notes/x", "remember");
    fs::rename(shop.path("shards/shard.00000.notes"), shop.path("mine/a.shard")).unwrap();
    fs::rename(shop.path("mine/notes.md"), shop.path("mine/shard.notes.md")).unwrap();
    fs::rename(shop.path("mine/a.shard"), shop.path("mine/shard.00000.mds")).unwrap();
    for name in ["shard.00000.mds", "shard.notes.md"] {
        assert_eq!(
            refused("mine"),
            format!("mine holds {name}, which is of no dataset of this program, {remedy}")
        );
        fs::rename(shop.path(&format!("mine/{name}")), shop.path(&format!("{name}.away"))).unwrap();
    }
    fs::rename(shop.path("shard.notes.md.away"), shop.path("mine/notes.md")).unwrap();
    assert_eq!(
        entries(&shop.path("mine")),
        ["index.json", "notes.md", "shard.00000.mds.zstd", "statistics.html", "statistics.json"]
    );

    // What tasks have written and what was joined of it is replaced as one.
    for file in ["0", "1"] {
        shop.write(&format!("in/{file}.jsonl"), format!("{{\"text\":\"of file {file}\"}}\n"));
    }
    let json = ["json", "--path", "in", "--out_root", "out"];
    for task in ["0", "1"] {
        shop.converted(&[&json[..], &["--num_tasks", "2", "--task_id", task]].concat());
    }
    shop.converted(&["merge", "out/train"]);
    shop.converted(&[&json[..], &["--reprocess"]].concat());
    assert_eq!(shards::read_strings(&shop.path("out/train")), [["of file 0"], ["of file 1"]]);
    assert!(!shop.path("out/train/00000").exists());
}

/// Whatever the paths are called by which it is named.
#[test]
fn what_is_read_is_never_written_over() {
    let shop = Workshop::new();
    shop.write("books/a.txt", "a book");
    shop.write("books/notes.md", "remember");
    shop.write("crawl/train/a.jsonl", "{\"text\":\"one\"}\n");
    symlink("books", shop.path("link")).unwrap();
    let at = format!("{}/", shop.path(".").canonicalize().unwrap().display());
    for more in [&[][..], &["--reprocess"], &["--restart"]] {
        let refused = |args: &[&str]| shop.refused(&[args, more].concat()).replace(&at, "");
        let said = |place: &str, input: &str| {
            format!(
                "{place} is to be written, but the input {input} lies there; write to another place"
            )
        };
        for (input, out) in [("books", "books"), ("./link", "books/"), ("books", "link")] {
            assert_eq!(
                refused(&["text", "--input_folder", input, "--output_folder", out]),
                said(out.trim_end_matches('/'), &format!("{input}/a.txt")),
            );
        }
        assert_eq!(
            refused(&["json", "--path", "crawl/train/*.jsonl", "--out_root", "books/../crawl"]),
            said("books/../crawl/train", "crawl/train/a.jsonl")
        );
        let task = ["--num_tasks", "2", "--task_id", "1"];
        let json = ["json", "--path", "crawl/train", "--out_root", "crawl"];
        assert_eq!(
            refused(&[&json[..], &task].concat()),
            said("crawl/train", "crawl/train/a.jsonl")
        );
    }
    assert_eq!(entries(&shop.path("books")), ["a.txt", "notes.md"]);
    assert_eq!(entries(&shop.path("crawl")), ["train"]);
    // Where the shards are before they are complete, too.
    shop.write("crawl/.val.part/a.jsonl", "{\"text\":\"one\"}\n");
    assert_eq!(
        shop.refused(&[
            "json",
            "--path",
            "crawl/.val.part",
            "--out_root",
            "crawl",
            "--split",
            "val"
        ]),
        "crawl/val is to be written, but the input crawl/.val.part/a.jsonl lies there; write to another place"
    );
    assert_eq!(entries(&shop.path("crawl/.val.part")), ["a.jsonl"]);

    // A dataset, which --reprocess would replace else.
    shop.converted(&["json", "--path", "crawl/train", "--out_root", "og"]);
    let cut = ["--concat_tokens", "8", "--tokenizer", "gpt2", "--use_tokenizer_eos"];
    for more in [&[][..], &["--reprocess"]] {
        let args = [&["mds", "--path", "og/train", "--out_root", "og"][..], &cut, more].concat();
        assert_eq!(
            shop.refused(&args),
            "og/train is to be written, but the input og/train/shard.00000.mds.zstd lies there; write \
             to another place"
        );
    }
    assert_eq!(shards::read_strings(&shop.path("og/train")), [["one"]]);
    // Beside its input, or below it, a conversion may write.
    shop.converted(&["text", "--input_folder", "books", "--output_folder", "books/mds"]);
    assert_eq!(entries(&shop.path("books")), ["a.txt", "mds", "notes.md"]);
}
