//! The files of a source: which of them are read, and whether they are still those that were.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use convert::indexed::{Dtype, IndexedWriter};
use serde_json::json;

#[path = "support/faultd.rs"]
mod faultd;
#[path = "support/listing.rs"]
mod listing;
#[path = "support/shards.rs"]
mod shards;
#[path = "support/workshop.rs"]
mod workshop;

use faultd::Faultd;
use workshop::{Workshop, stderr, stdout};

fn lines(texts: &[&str]) -> String {
    texts.iter().map(|text| json!({ "text": text }).to_string() + "\n").collect()
}

fn set_modified(path: &Path, time: SystemTime) {
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

/// A conversion that is complete, and is so still while nothing has changed.
struct Complete<'a> {
    shop: &'a Workshop,
    args: Vec<&'a str>,
}

impl<'a> Complete<'a> {
    fn of(shop: &'a Workshop, args: &[&'a str]) -> Self {
        let complete = Self { shop, args: args.to_vec() };
        shop.converted(&complete.args);
        complete.assert();
        complete
    }

    fn assert(&self) {
        let said = stdout(&self.shop.converted(&self.args));
        assert!(said.ends_with(" is complete, of the same input and settings\n"), "{said}");
    }

    /// Where it is, and which file has changed.
    fn assert_changed(&self, out: &str, file: &str) {
        assert_eq!(
            self.shop.refused(&self.args),
            format!(
                "{out}/train exists already, made with {file} as it was before it changed; make it \
                 again with --reprocess, or write to another place"
            )
        );
    }
}

#[test]
fn another_dataset_of_the_same_sizes_is_another_input() {
    let shop = Workshop::new();
    let write = |text: &str| {
        shop.write("a.jsonl", lines(&[text]));
        let plain = ["--compression", "none", "--reprocess"];
        for (out, hashes) in [("og", "none"), ("hashed", "xxh64")] {
            let args = ["json", "--path", "a.jsonl", "--out_root", out, "--hashes", hashes];
            shop.converted(&[&args[..], &plain].concat());
        }
    };
    write("one");
    let copy = |source, out| Complete::of(&shop, &["mds", "--path", source, "--out_root", out]);
    let by_time = copy("og/train", "by_time");
    let by_hash = copy("hashed/train", "by_hash");
    let time = |folder: &str| {
        fs::metadata(shop.path(folder).join("shard.00000.mds")).unwrap().modified().unwrap()
    };
    let times = ["og/train", "hashed/train"].map(time);
    write("two");
    set_modified(&shop.path("og/train/shard.00000.mds"), times[0] + Duration::from_secs(1));
    by_time.assert_changed("by_time", "og/train/shard.00000.mds");
    set_modified(&shop.path("og/train/shard.00000.mds"), times[0]);
    by_time.assert();
    set_modified(&shop.path("hashed/train/shard.00000.mds"), times[1]);
    by_hash.assert_changed("by_hash", "hashed/train/shard.00000.mds");
}

#[test]
fn both_files_of_an_indexed_dataset_are_its_input() {
    let shop = Workshop::new();
    let mut writer = IndexedWriter::create(shop.path("ids"), Dtype::U16).unwrap();
    writer.write_document(&[1_u16, 2, 3]).unwrap();
    writer.finish().unwrap();
    let complete = Complete::of(&shop, &["indexed", "--path", "ids", "--out_root", "out"]);
    for ending in ["bin", "idx"] {
        let path = shop.path("ids").with_extension(ending);
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        set_modified(&path, time + Duration::from_secs(1));
        complete.assert_changed("out", "ids.bin");
        set_modified(&path, time);
        complete.assert();
    }
}

#[test]
fn objects_of_other_tags_are_other_input() {
    let shop = Workshop::new();
    let write = |text: &str| {
        shop.write("a.jsonl", lines(&[text]));
        let args = ["json", "--path", "a.jsonl", "--out_root", "served/bucket", "--reprocess"];
        shop.converted(&[&args[..], &["--compression", "none", "--size_limit", "1kb"]].concat());
        for place in ["bucket", "web"] {
            shop.write(&format!("served/{place}/in/a.jsonl"), lines(&[text]));
        }
        // What exists is not written over.
        let made = tempfile::tempdir().unwrap();
        let prefix = made.path().join("ids");
        let mut writer = IndexedWriter::create(&prefix, Dtype::U16).unwrap();
        let ids: Vec<u16> = text.bytes().map(u16::from).collect();
        writer.write_document(&ids).unwrap();
        writer.finish().unwrap();
        for ending in ["bin", "idx"] {
            let bytes = fs::read(prefix.with_extension(ending)).unwrap();
            for place in ["bucket", "web"] {
                shop.write(&format!("served/{place}/ids.{ending}"), &bytes);
            }
        }
    };
    write("one");
    let server = Faultd::start(&shop.path("served"));
    let web = server.url("web/in/a.jsonl");
    let web_ids = server.url("web/ids.bin");
    let (listed, shards) = (server.in_bucket("in"), server.in_bucket("train"));
    let listed_ids = server.in_bucket("ids*");
    let cases = [
        ("json", &web, "web", &*web),
        ("json", &listed, "listed", "s3://bucket/in/a.jsonl"),
        ("mds", &shards, "shards", "s3://bucket/train/shard.00000.mds"),
        ("indexed", &web_ids, "web_ids", &*web_ids),
        ("indexed", &listed_ids, "listed_ids", "s3://bucket/ids.bin"),
    ];
    let made = cases.map(|(source, path, out, _)| {
        Complete::of(&shop, &[source, "--path", path, "--out_root", out])
    });
    write("two");
    for (complete, (_, _, out, file)) in made.iter().zip(cases) {
        complete.assert_changed(out, file);
    }
    // Of an indexed dataset the index alone may be another.
    write("one");
    made.iter().for_each(Complete::assert);
    for place in ["bucket", "web"] {
        let path = shop.path(&format!("served/{place}/ids.idx"));
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    made[3].assert_changed("web_ids", cases[3].3);
    made[4].assert_changed("listed_ids", cases[4].3);
    // What can be listed is, and no shard is asked for by itself.
    server.reset_requests();
    made[2].assert();
    assert_eq!(server.requests_for("shard."), 0, "{:?}", server.requests());
}

/// An object at fault may change behind what was read of it, and nothing else may.
#[test]
fn a_fault_in_an_object_that_is_mended_is_gone_on_from() {
    let shop = Workshop::new();
    let texts: Vec<String> = (0..2_000).map(|n| format!("{n} is a number. ").repeat(20)).collect();
    let good = lines(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    let cut = good.len() - 10;
    shop.write("served/web/a.jsonl", &good);
    let server = Faultd::start(&shop.path("served"));
    let source = server.url("web/a.jsonl");
    let convert = |out| ["json", "--path", &*source, "--out_root", out, "--size_limit", "50kb"];
    shop.converted(&convert("whole"));
    shop.write("served/web/a.jsonl", format!("{}\n{}", &good[..cut], &good[cut + 1..]));
    assert!(shop.refused(&convert("out")).starts_with(&format!("{source}, line 2000: ")));

    shop.write("served/web/a.jsonl", good.replacen("0 is a", "0 is b", 1));
    assert_eq!(
        shop.refused(&convert("out")),
        format!(
            "out/.train.part was begun with {source} as it was before it changed; use the same again \
             to go on with it, or --restart to begin anew"
        )
    );
    shop.write("served/web/a.jsonl", &good);
    shop.converted(&convert("out"));
    let strings = |out: &str| shards::read_strings(&shop.path(out).join("train"));
    assert!(strings("out") == strings("whole"));
}

/// What is listed is read, or named.
#[test]
#[cfg(unix)]
fn a_listed_file_that_cannot_be_opened_is_named() {
    let shop = Workshop::new();
    shop.write("pile/p0.jsonl", lines(&["zero"]));
    let link = |name: &str| std::os::unix::fs::symlink("nowhere", shop.path(name)).unwrap();
    // No name of a file that is read.
    link("pile/notes.md");
    let convert = |path, out| ["json", "--path", path, "--out_root", out];
    shop.converted(&convert("pile", "good"));
    link("pile/p9.jsonl");
    for path in ["pile", "pile/*", "pile/*.jsonl"] {
        assert_eq!(
            shop.refused(&convert(path, "out")),
            "pile/p9.jsonl is a link to nowhere, which is not there; mend it, or take it out"
        );
    }
    fs::remove_file(shop.path("pile/p9.jsonl")).unwrap();
    let pipe = shop.path("pile/p1.jsonl");
    assert!(Command::new("mkfifo").arg(pipe).status().unwrap().success());
    assert_eq!(
        shop.refused(&convert("pile", "out")),
        "pile/p1.jsonl is neither a file nor a folder; take it out, or name the files that are meant"
    );
}

/// Links may lead to folders above or twice to the same, and hidden files are no documents.
#[test]
#[cfg(unix)]
fn each_folder_of_texts_is_read_once_and_what_is_hidden_is_not() {
    let shop = Workshop::new();
    let link = |to: &str, name: &str| {
        std::os::unix::fs::symlink(shop.path(to), shop.path(name)).unwrap();
    };
    shop.write("books/b.txt", "b");
    shop.write("books/sub/c.txt", "c");
    for hidden in [".git/x.txt", "sub/.ipynb_checkpoints/c.txt", "._b.txt", "sub/.txt"] {
        shop.write(&format!("books/{hidden}"), "hidden");
    }
    shop.write("more/d.txt", "d");
    link("books", "books/a-loop");
    link("books/sub", "books/again");
    link("more", "books/more");
    link("books", "more/back");
    let texts = |args: &[&str], out: &str| {
        shop.converted(&[&["text", "--output_folder", out, "--input_folder"], args].concat());
        shards::read_strings(&shop.path(out)).concat()
    };
    assert_eq!(texts(&["books"], "out"), ["b", "d", "c"]);
    assert_eq!(texts(&["books/*"], "glob"), ["b"]);
    assert_eq!(texts(&["books/._*"], "named"), ["hidden"]);
    shop.write("served/bucket/books/sub/c.txt", "c");
    for hidden in [".git/x.txt", "sub/._c.txt"] {
        shop.write(&format!("served/bucket/books/{hidden}"), "hidden");
    }
    let server = Faultd::start(&shop.path("served"));
    assert_eq!(texts(&[&server.in_bucket("books")], "there"), ["c"]);
    let help = stdout(&shop.converted(&["text", "--help"]));
    assert!(help.contains("hidden ones: names that begin with a dot."), "{help}");
}

#[test]
fn json_lines_are_read_for_their_text_alone() {
    let shop = Workshop::new();
    let others = r#"{"text":"hello","timestamp":1556195574,"url":["a"],"url":["b"]}"#;
    shop.write("a.jsonl", format!("{others}\n{}", r#"{"text":"no","text":"last"}"#));
    shop.converted(&["json", "--path", "a.jsonl", "--out_root", "out"]);
    assert_eq!(shards::read_strings(&shop.path("out/train")), [["hello"], ["last"]]);
    assert_eq!(
        shop.refused(&["c4", "--source", "a.jsonl", "--out_root", "c4", "--splits", "train"]),
        "a.jsonl, line 1: not a JSON object with text keys: invalid type: integer `1556195574`, \
         expected a string at column 38; correct the line, or leave such lines out with \
         --on_bad_line skip"
    );
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_text_that_cannot_be_read_is_left_out_where_that_is_asked_for() {
    let shop = Workshop::new();
    let noise: Vec<u8> = (0..10_000_u64).flat_map(|n| (n * n * n).to_le_bytes()).collect();
    let packed = gz(&noise);
    let long = zstd::encode_all(io::repeat(b'x').take((256 << 20) + 1), 1).unwrap();
    let half = packed.len() / 2;
    let or_skip = "or leave such files out with --on_bad_line skip";
    let cases = [
        (
            "books/b.txt.gz",
            packed[..half].to_vec(),
            format!("cannot read after byte {half}: incomplete deflate stream"),
            "the file is damaged or cut short: fetch or write it again",
        ),
        (
            "books/c.txt.zst",
            b"no zstd".to_vec(),
            "cannot read after byte 7: Unknown frame descriptor".to_owned(),
            "the file is damaged or cut short: fetch or write it again",
        ),
        (
            "books/d.txt.zst",
            long,
            "longer than 256 MiB, which no document may be".to_owned(),
            "cut it into several files",
        ),
        (
            "books/e.txt",
            b"caf\xe9".to_vec(),
            "not UTF-8 text after byte 3".to_owned(),
            "correct the file",
        ),
    ];
    shop.write("books/a.txt", "first");
    shop.write("books/z.txt", "last");
    let args = ["text", "--input_folder", "books", "--output_folder", "out"];
    let mut listed = String::new();
    for (name, bytes, problem, remedy) in &cases {
        shop.write(name, bytes);
        assert_eq!(shop.refused(&args), format!("{name}: {problem}; {remedy}, {or_skip}"));
        fs::remove_file(shop.path(name)).unwrap();
        listed += &format!("  {name}: {problem}\n");
    }
    cases.iter().for_each(|(name, bytes, ..)| drop(shop.write(name, bytes)));
    let said = stderr(&shop.converted(&[&args[..], &["--on_bad_line", "skip"]].concat()));
    assert!(said.ends_with(&format!("out: 4 unreadable documents skipped:\n{listed}")), "{said}");
    assert_eq!(shards::read_strings(&shop.path("out")), [["first"], ["last"]]);
}

/// Of zeros, with the window of `zstd --long=LOG`.
fn zst_with_window(log: u32, bytes: u64) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(log).unwrap();
    encoder.write_all(b"{\"text\":\"wide\"}\n").unwrap();
    io::copy(&mut io::repeat(b' ').take(bytes), &mut encoder).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_zstd_window_that_is_too_large_is_named_with_a_remedy() {
    let shop = Workshop::new();
    shop.write("a.jsonl.zst", zst_with_window(27, 1 << 20));
    shop.converted(&["json", "--path", "a.jsonl.zst", "--out_root", "good"]);
    assert_eq!(shards::read_strings(&shop.path("good/train")), [["wide"]]);
    let wide = zst_with_window(28, 1 << 20);
    let problem = "its zstd window is larger than 128 MiB, the largest that is unpacked";
    let refused = |name: &str| {
        shop.write(name, &wide);
        format!("{name}: {problem}; ")
    };
    let remedy = "pack it again with a smaller one: zstd -dc --long=31 FILE | zstd -o NEW_FILE";
    let message = refused("b.jsonl.zst") + remedy;
    assert_eq!(shop.refused(&["json", "--path", "b.jsonl.zst", "--out_root", "out"]), message);
    let message =
        refused("texts/b.txt.zst") + remedy + ", or leave such files out with --on_bad_line skip";
    assert_eq!(shop.refused(&["text", "--input_folder", "texts", "--output_folder", "t"]), message);
}

#[test]
fn a_folder_of_the_pile_may_be_called_like_a_pattern() {
    let shop = Workshop::new();
    let line = |text: &str| json!({"text": text, "meta": {"pile_set_name": "X"}}).to_string();
    for folder in ["pile [copy]", "pile *", "pile [1", "pile.jsonl"] {
        shop.write(&format!("{folder}/train/00.jsonl"), line("train"));
        shop.write(&format!("{folder}/val.jsonl"), line("val"));
        let args = ["pile", "--path", folder, "--out_root", "out", "--reprocess", "--splits"];
        shop.converted(&[&args[..], &["train", "val"]].concat());
        for split in ["train", "val"] {
            assert_eq!(shards::read_strings(&shop.path("out").join(split)), [["X", split]]);
        }
        assert_eq!(
            shop.refused(&[&args[..], &["test"]].concat()),
            format!(
                "{folder} has neither a folder test/ nor a file test.*; name one split, such as \
                 --splits test, and convert each from its own files"
            )
        );
    }
}

/// The same files in other words are the same input, as far as the words tell.
#[test]
fn a_path_may_be_spelled_otherwise() {
    let shop = Workshop::new();
    shop.write("pile/p0.jsonl", lines(&["zero"]));
    let mut complete = Complete::of(&shop, &["json", "--out_root", "out", "--path", "pile"]);
    for path in ["./pile", "pile/", ".//pile/.", "./pile/*.jsonl", "./pile/p0.jsonl"] {
        complete.args[4] = path;
        complete.assert();
    }
    complete.args[4] = "pile/../pile";
    assert_eq!(
        shop.refused(&complete.args),
        "out/train exists already, made with the file pile/p0.jsonl, not pile/../pile/p0.jsonl; make \
         it again with --reprocess, or write to another place"
    );
    let mut shards = Complete::of(&shop, &["mds", "--out_root", "copy", "--path", "./out/train/"]);
    shards.args[4] = "out/train";
    shards.assert();
}
