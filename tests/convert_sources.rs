//! `convert` with each of its sources, as a user runs it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs::{self};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use convert::indexed::{Dtype, IndexedDataset, IndexedWriter};
use convert::tokenizer::Tokenizer;
use mds::format::{DType, Encoding, HashAlgorithm, NdArray, Schema, Value};
use serde_json::{Value as Json, json};

#[path = "support/faultd.rs"]
mod faultd;
#[path = "support/listing.rs"]
mod listing;
#[path = "support/shards.rs"]
mod shards;
#[path = "support/workshop.rs"]
mod workshop;

use faultd::Faultd;
use workshop::{Workshop, entries, stderr, stdout};

const EOS: &str = "<|endoftext|>";
/// Of GPT-2.
const EOS_ID: i64 = 50_256;

fn zst(text: &str) -> Vec<u8> {
    zstd::encode_all(text.as_bytes(), 3).unwrap()
}

fn gz(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn statistics(folder: &Path) -> Json {
    serde_json::from_slice(&fs::read(folder.join("statistics.json")).unwrap()).unwrap()
}

/// The ids of documents, joined with an end-of-text after each, and cut.
fn joined(texts: &[&str], length: usize) -> Vec<Vec<i64>> {
    let tokenizer = Tokenizer::load("gpt2").unwrap();
    let ids = |text: &&str| {
        let ids = tokenizer.encode(text).unwrap().into_iter().map(i64::from);
        ids.chain([EOS_ID]).collect::<Vec<_>>()
    };
    let all: Vec<i64> = texts.iter().flat_map(ids).collect();
    all.chunks_exact(length).map(<[i64]>::to_vec).collect()
}

const TOKENS: [&str; 6] = ["--concat_tokens", "4", "--tokenizer", "gpt2", "--eos_text", EOS];

fn pile_line(text: &str, subset: &str) -> String {
    json!({ "text": text, "meta": { "pile_set_name": subset } }).to_string() + "\n"
}

fn write_pile(shop: &Workshop) {
    let train = [
        pile_line("one two three", "Pile-CC") + &pile_line("four", "Wikipedia (en)"),
        pile_line("five six", "Pile-CC") + &pile_line("seven", "Enron Emails"),
    ];
    shop.write("pile/train/00.jsonl.zst", zst(&train[0]));
    shop.write("pile/train/01.jsonl.zst", zst(&train[1]));
    shop.write("pile/val.jsonl.zst", zst(&pile_line("eight", "Pile-CC")));
    shop.write("pile/test.jsonl.zst", zst(&pile_line("nine", "Wikipedia (en)")));
}

#[test]
fn the_pile_keeps_its_subsets_and_counts_them() {
    let shop = Workshop::new();
    write_pile(&shop);
    shop.converted(&["pile", "--path", "pile", "--out_root", "out"]);
    let samples = |split: &str| shards::read_strings(&shop.path(&format!("out/{split}")));
    // In the order of the columns' names: pile_set_name, text.
    let train = [
        ["Pile-CC", "one two three"],
        ["Wikipedia (en)", "four"],
        ["Pile-CC", "five six"],
        ["Enron Emails", "seven"],
    ];
    assert_eq!(samples("train"), train);
    assert_eq!(samples("val"), [["Pile-CC", "eight"]]);
    assert_eq!(samples("test"), [["Wikipedia (en)", "nine"]]);

    let made_of = statistics(&shop.path("out/train"));
    assert_eq!(made_of["subsets"]["Pile-CC"], json!({"documents": 2, "bytes": 21, "tokens": 0}));
    assert_eq!(made_of["subsets"]["Enron Emails"]["documents"], 1);
    assert_eq!(made_of["files"]["pile/train/01.jsonl.zst"]["documents"], 2);
    assert_eq!((&made_of["samples"], &made_of["bytes"]), (&json!(4), &json!(30)));
    let page = fs::read_to_string(shop.path("out/train/statistics.html")).unwrap();
    assert!(page.contains("<h2>Subsets</h2>") && page.contains("Wikipedia (en)"), "{page}");
}

#[test]
fn subsets_are_taken_or_left_out_by_name() {
    let shop = Workshop::new();
    write_pile(&shop);
    let convert = |out: &str, filter: &[&str]| {
        let common = ["pile", "--path", "pile", "--splits", "train", "--out_root", out];
        shop.converted(&[&common[..], &TOKENS, filter].concat());
        shards::read_ids(&shop.path(out).join("train"))
    };
    let only = convert("only", &["--subsets", "Pile-CC,Enron Emails"]);
    assert_eq!(only, joined(&["one two three", "five six", "seven"], 4));
    let except = convert("except", &["--exclude_subsets", "Pile-CC"]);
    assert_eq!(except, joined(&["four", "seven"], 4));
    let made_of = statistics(&shop.path("except/train"));
    assert_eq!(made_of["left_out"], json!({"Pile-CC": 2}));
    assert_eq!((&made_of["documents"], &made_of["tokens"]), (&json!(2), &json!(2)));

    shop.write("bad/val.jsonl", "{\"text\": \"a\"}\n");
    let bad = ["pile", "--path", "bad", "--splits", "val", "--out_root", "x"];
    assert_eq!(
        shop.refused(&bad),
        "bad/val.jsonl, line 1: the key \"meta.pile_set_name\" is missing; correct the line, or leave \
         such lines out with --on_bad_line skip"
    );
    // Of another split there is no file to be taken for it.
    fs::remove_file(shop.path("pile/test.jsonl.zst")).unwrap();
    assert_eq!(
        shop.refused(&["pile", "--path", "pile", "--splits", "test", "--out_root", "x"]),
        "pile has neither a folder test/ nor a file test.*; name one split, such as --splits test, and \
         convert each from its own files"
    );
    let wiki = ["pile", "--path", "pile", "--splits", "val", "--out_root", "wiki", "--subsets"];
    assert_eq!(
        shop.refused(&[&wiki[..], &["Wikipedia"]].concat()),
        "split val: no document is of a subset that is wanted: there are Pile-CC; correct --subsets or \
         --exclude_subsets"
    );
    let said = stderr(&shop.converted(&[&wiki[..], &["Pile-CC,Wikipedia"]].concat()));
    assert!(said.ends_with("val: note: no document is of the subset \"Wikipedia\"\n"), "{said}");
    assert_eq!(
        shop.refused(&["pile", "--path", "pile/train", "--out_root", "x"]),
        "pile/train has neither a folder train/ nor a file train.*; name one split, such as --splits \
         train, and convert each from its own files"
    );
}

#[test]
fn a_folder_of_text_files_is_converted_once() {
    let shop = Workshop::new();
    shop.write("books/b.txt", "second book");
    shop.write("books/a/z.txt", "first book\nof two lines\n");
    shop.write("books/c.txt.gz", gz("third"));
    shop.write("books/notes.md", "not text");
    let common = ["text", "--input_folder", "books", "--output_folder", "out/mine"];
    let tokens = ["--concat_tokens", "4", "--tokenizer", "gpt2", "--use_tokenizer_eos"];
    let args = [&common[..], &tokens].concat();
    shop.converted(&args);
    let texts = ["first book\nof two lines\n", "second book", "third"];
    assert_eq!(shards::read_ids(&shop.path("out/mine")), joined(&texts, 4));
    assert!(shop.path("out/mine/shard.00000.mds.zstd").exists(), "zstd, as in llm-foundry");
    let index = fs::metadata(shop.path("out/mine/index.json")).unwrap().modified().unwrap();

    let complete = format!(
        "mine: {} is complete, of the same input and settings\n",
        shop.path("out/mine").canonicalize().unwrap().display()
    );
    assert_eq!(stdout(&shop.converted(&args)), complete);
    let again = fs::metadata(shop.path("out/mine/index.json")).unwrap().modified().unwrap();
    assert_eq!(index, again);
    shop.write("books/d.txt", "fourth");
    let error = shop.refused(&args);
    assert!(
        error.ends_with(
            "/out/mine exists already, made with 3 files, not 4; make it again with --reprocess, or \
             write to another place"
        ),
        "{error}"
    );
    shop.converted(&[&args[..], &["--reprocess"]].concat());
    let texts = [texts[0], texts[1], texts[2], "fourth"];
    assert_eq!(shards::read_ids(&shop.path("out/mine")), joined(&texts, 4));
    assert_eq!(entries(&shop.path("out")), ["mine"]);

    let plain = ["text", "--input_folder", "books", "--output_folder", "plain"];
    shop.converted(&[&plain[..], &["--compression", "none", "--trust_remote_code"]].concat());
    assert_eq!(shards::read_strings(&shop.path("plain")), texts.map(|text| [text]));
}

/// A folder's own files are all taken, whatever some of them are called.
#[test]
fn names_of_the_hub_mean_nothing_to_other_sources() {
    let shop = Workshop::new();
    let line = |text: &str| json!({ "text": text }).to_string() + "\n";
    shop.write("in/c4-train.0.json", line("one"));
    shop.write("in/en/c4-validation.0.json", line("below"));
    shop.write("in/mine.jsonl", "\u{feff}".to_owned() + &line("two"));
    shop.converted(&["json", "--path", "in", "--out_root", "out"]);
    assert_eq!(shards::read_strings(&shop.path("out/train")), [["one"], ["two"]]);
}

#[test]
fn an_interrupted_reprocessing_leaves_the_old_dataset() {
    let shop = Workshop::new();
    shop.write("a.jsonl", json!({ "text": "old" }).to_string());
    let args = ["json", "--path", "a.jsonl", "--out_root", "out", "--reprocess"];
    shop.converted(&args);
    shop.write("a.jsonl", "no JSON");
    assert!(shop.refused(&args).starts_with("a.jsonl, line 1: not a JSON object; "));
    assert_eq!(shards::read_strings(&shop.path("out/train")), [["old"]]);
    assert_eq!(entries(&shop.path("out")), ["train"]);
    // A run that was killed between two names.
    fs::create_dir_all(shop.path("out/.train.part")).unwrap();
    fs::rename(shop.path("out/train"), shop.path("out/.train.part/replaced")).unwrap();
    shop.refused(&args);
    assert_eq!(shards::read_strings(&shop.path("out/train")), [["old"]]);
}

#[test]
fn a_text_that_is_none_is_named_or_skipped() {
    let shop = Workshop::new();
    shop.write("books/a.txt", "good");
    shop.write("books/b.txt", b"caf\xe9 au lait");
    let args = ["text", "--input_folder", "books", "--output_folder", "out"];
    assert_eq!(
        shop.refused(&args),
        "books/b.txt: not UTF-8 text after byte 3; correct the file, or leave such files out with \
         --on_bad_line skip"
    );
    let out = shop.converted(&[&args[..], &["--on_bad_line", "skip"]].concat());
    let said = stderr(&out);
    assert!(
        said.ends_with(
            "out: 1 unreadable document skipped:\n  books/b.txt: not UTF-8 text after byte 3\n"
        ),
        "{said}"
    );
    assert_eq!(shards::read_strings(&shop.path("out")), [["good"]]);
    assert_eq!(statistics(&shop.path("out"))["skipped"], 1);

    shop.write("many.jsonl", "{\"text\": \"good\"}\n".to_owned() + &"{\"text\": 1}\n".repeat(30));
    let args = ["json", "--path", "many.jsonl", "--out_root", "many", "--on_bad_line", "skip"];
    let said = stderr(&shop.converted(&args));
    assert!(
        said.ends_with("\n  ... (30 of them are listed in many/train/statistics.json)\n"),
        "{said}"
    );
    assert_eq!(said.matches("  many.jsonl, line ").count(), 10);
    let made_of = statistics(&shop.path("many/train"));
    let listed = made_of["skipped_documents"].as_array().unwrap();
    assert_eq!(
        (listed.len(), listed[29].as_str().unwrap()),
        (
            30,
            "many.jsonl, line 31: not a JSON object with text keys: invalid type: integer `1`, expected a string at column 10"
        )
    );
}

fn write_indexed(shop: &Workshop, name: &str, documents: &[&[u16]]) {
    let mut writer = IndexedWriter::create(shop.path(name), Dtype::U16).unwrap();
    documents.iter().for_each(|document| writer.write_document(document).unwrap());
    writer.finish().unwrap();
}

#[test]
fn indexed_datasets_go_both_ways() {
    let shop = Workshop::new();
    let documents: [&[u16]; 3] = [&[1, 2, 3], &[4], &[5, 6, 7, 8, 9]];
    write_indexed(&shop, "in_text_document", &documents);
    let common = ["indexed", "--path", "in_text_document", "--out_root"];
    shop.converted(&[&common[..], &["each"]].concat());
    assert_eq!(
        shards::read_ids(&shop.path("each/train")),
        [vec![1, 2, 3], vec![4], vec![5, 6, 7, 8, 9]]
    );
    shop.converted(&[&common[..], &["cut", "--concat_tokens", "4"]].concat());
    assert_eq!(shards::read_ids(&shop.path("cut/train")), [[1, 2, 3, 4], [5, 6, 7, 8]]);
    assert_eq!(statistics(&shop.path("cut/train"))["dropped_tokens"], 1);
    let marked = ["marked", "--concat_tokens", "4", "--tokenizer", "gpt2", "--eos_text", EOS];
    shop.converted(&[&common[..], &marked].concat());
    let ids = shards::read_ids(&shop.path("marked/train"));
    assert_eq!(ids, [[1, 2, 3, EOS_ID], [4, EOS_ID, 5, 6], [7, 8, 9, EOS_ID]]);

    let out = shop.converted(&[
        "to_indexed",
        "--path",
        "each/train",
        "--output_prefix",
        "back",
        "--uint16",
    ]);
    assert!(stdout(&out).starts_with("3 documents, 9 tokens, in "), "{}", stdout(&out));
    for ending in ["bin", "idx"] {
        let read = |name: &str| fs::read(shop.path(&format!("{name}.{ending}"))).unwrap();
        assert!(read("back") == read("in_text_document"), "{ending}");
    }

    assert_eq!(
        shop.refused(&[&common[..], &["x", "--concat_tokens", "4", "--eos_text", EOS]].concat()),
        "--eos_text needs a tokenizer, which makes tokens of it; add --tokenizer, the one that the \
         source was made with"
    );
    write_indexed(&shop, "empty", &[&[1], &[]]);
    assert_eq!(
        shop.refused(&["indexed", "--path", "empty", "--out_root", "x"]),
        "empty.bin, document 1: it has no tokens, which --token_encoding bytes alone can hold; correct the \
         document, or leave such documents out with --on_bad_line skip"
    );
}

#[test]
fn streaming_datasets_are_sources_too() {
    let shop = Workshop::new();
    let texts = ["first document", "second", "", "and the third one"];
    let lines: String =
        texts.iter().map(|text| json!({ "text": text }).to_string() + "\n").collect();
    shop.write("a.jsonl", lines);
    shop.converted(&["json", "--path", "a.jsonl", "--out_root", "text"]);
    let tokens = ["--concat_tokens", "3", "--tokenizer", "gpt2", "--eos_text", EOS];
    let of_text = ["mds", "--path", "text/train", "--out_root", "tokens"];
    shop.converted(&[&of_text[..], &tokens].concat());
    assert_eq!(shards::read_ids(&shop.path("tokens/train")), joined(&texts, 3));
    // Cut anew, from tokens that need no tokenizer.
    shop.converted(&["mds", "--path", "tokens/train", "--out_root", "cut", "--concat_tokens", "2"]);
    let all: Vec<i64> = joined(&texts, 3).concat();
    let pairs: Vec<&[i64]> = all.chunks_exact(2).collect();
    assert_eq!(shards::read_ids(&shop.path("cut/train")), pairs);
    // The same, stored at first as 64-bit numbers in a column of bytes, and from a bucket.
    let bytes = ["--token_encoding", "bytes", "--out_root", "bytes"];
    shop.converted(&[&["mds", "--path", "text/train"], &tokens[..], &bytes].concat());
    for name in entries(&shop.path("bytes/train")) {
        let file = fs::read(shop.path(&format!("bytes/train/{name}"))).unwrap();
        shop.write(&format!("served/bucket/old/{name}"), file);
    }
    let server = Faultd::start(&shop.path("served"));
    let old = server.in_bucket("old");
    shop.converted(&["mds", "--path", &old, "--out_root", "new", "--concat_tokens", "2"]);
    assert_eq!(shards::read_ids(&shop.path("new/train")), pairs);

    let to_indexed = ["to_indexed", "--path", "text/train", "--output_prefix", "neox"];
    let said =
        shop.converted(&[&to_indexed[..], &["--tokenizer", "gpt2", "--append_eod"]].concat());
    assert_eq!(stderr(&said), "1 sample without a token left out\n");
    let indexed = IndexedDataset::open(shop.path("neox")).unwrap();
    // GPT-NeoX leaves out what is empty.
    assert_eq!((indexed.num_documents(), indexed.dtype()), (3, Dtype::U16));
    let ids: Vec<i64> = indexed.documents().flat_map(|document| document.to_vec()).collect();
    assert_eq!(ids, joined(&["first document", "second", "and the third one"], 1).concat());

    assert_eq!(
        shop.refused(&["mds", "--path", "text/train", "--column", "body", "--out_root", "x"]),
        "text/train has no column \"body\", but text; name the column with the text or the tokens \
         with --column"
    );
    let error = shop.refused(&["mds", "--path", "text", "--out_root", "x"]);
    assert_eq!(
        error,
        "there is no dataset: text has no index.json; give the folder of one split, such as ./c4/val"
    );
}

/// What is printed may be read by nobody any more; the conversion goes on.
#[test]
fn a_reader_that_has_gone_stops_nothing() {
    let shop = Workshop::new();
    for split in ["train", "val", "test"] {
        shop.write(
            &format!("pile/{split}/a.jsonl"),
            "{\"text\":\"a\",\"meta\":{\"pile_set_name\":\"B\"}}\n",
        );
    }
    let (stdout, _) = std::io::pipe().map(|(read, write)| (write, drop(read))).unwrap();
    let stderr = stdout.try_clone().unwrap();
    let ended = Command::new(env!("CARGO_BIN_EXE_convert"))
        .args(["pile", "--path", "pile", "--out_root", "out"])
        .current_dir(shop.path("."))
        .stdout(stdout)
        .stderr(stderr)
        .status()
        .unwrap();
    assert!(ended.success(), "{ended}");
    assert_eq!(entries(&shop.path("out")), ["test", "train", "val"]);
}

/// What made a dataset of ids is known from its statistics, so that they are not cut in a way that makes no sense.
#[test]
fn ids_are_cut_with_marks_of_their_own_tokenizer() {
    let shop = Workshop::new();
    shop.write("a.jsonl", "{\"text\":\"one two\"}\n{\"text\":\"three\"}\n");
    shop.converted(&["json", "--path", "a.jsonl", "--out_root", "ids", "--tokenizer", "gpt2"]);
    let cut = |flags: &[&'static str]| -> Vec<&'static str> {
        [&["mds", "--path", "ids/train", "--out_root", "cut", "--concat_tokens", "2"], flags]
            .concat()
    };
    let json = Tokenizer::load("gpt2").unwrap().json().to_owned();
    let gpt2 = format!("gpt2 (xxh64 {})", HashAlgorithm::Xxh64.hex(json.as_bytes()));
    assert_eq!(
        shop.refused(&cut(&[])),
        format!(
            "the source holds ids of documents by tokenizer {gpt2}, and a mark between them is missing; give that \
             --tokenizer, and with it a mark, e.g. --eos_text '<|endoftext|>', unless it sets some by itself"
        )
    );
    assert_eq!(
        shop.refused(&cut(&["--tokenizer", "gpt2"])),
        "tokenizer gpt2 puts nothing between two documents: they would run into one another; give \
         a mark, e.g. --eos_text '<|endoftext|>', or use another tokenizer"
    );
    shop.write("other/tokenizer.json", json.replacen("\"version\"", " \"version\"", 1));
    let refused = shop.refused(&cut(&["--tokenizer", "other", "--eos_text", EOS]));
    assert!(
        refused.starts_with(&format!("the source holds ids by tokenizer {gpt2}, not ")),
        "{refused}"
    );
    assert!(refused.ends_with("; give that --tokenizer"), "{refused}");
    // It may lie elsewhere.
    shop.write("same/tokenizer.json", &json);
    shop.converted(&cut(&["--tokenizer", "same", "--eos_text", EOS, "--sequence_id"]));
    // Those that were cut have their marks, and a copy is known by what made it first.
    let mark = ["--concat_tokens", "3", "--tokenizer", "gpt2", "--eos_text", EOS];
    assert_eq!(
        shop.refused(
            &[&["mds", "--path", "cut/train", "--column", "tokens", "--out_root", "x"], &mark[..]]
                .concat()
        ),
        "--eos_text would stand in the middle of documents, since the samples of the source were cut before; leave it out: \
         what stands between documents is in the samples"
    );
    shop.converted(&[
        "mds",
        "--path",
        "ids/train",
        "--out_root",
        "copy",
        "--token_encoding",
        "bytes",
    ]);
    let refused =
        shop.refused(&["mds", "--path", "copy/train", "--out_root", "x", "--concat_tokens", "2"]);
    assert!(
        refused.starts_with("the source holds ids of documents by tokenizer gpt2 "),
        "{refused}"
    );
    assert_eq!(
        shop.refused(&[
            "mds",
            "--path",
            "cut/train",
            "--column",
            "tokens",
            "--out_root",
            "again",
            "--concat_tokens",
            "3",
            "--sequence_id"
        ]),
        "--sequence_id needs to know where documents begin, which samples that were cut before do not tell; \
         leave it out, or convert the text again"
    );
}

#[test]
fn samples_that_are_no_ids_are_named() {
    let shop = Workshop::new();
    let dataset = |name: &str, arrays: &[NdArray<'_>]| {
        let schema =
            Schema::new([("tokens", Encoding::NdArray { dtype: None, shape: None })]).unwrap();
        let mut writer = mds::Writer::create(shop.path(name), schema, Default::default()).unwrap();
        for array in arrays {
            writer.write(&[Value::NdArray(array.clone())]).unwrap();
        }
        writer.finish().unwrap();
    };
    let refused = |name: &str, flags: &[&str]| {
        shop.refused(&[&["mds", "--path", name, "--out_root", "out"], flags].concat())
    };
    let good = || NdArray::from_i32(&[1, 70_000]);
    dataset("negative", &[good(), NdArray::from_i32(&[-1])]);
    dataset("floats", &[good(), NdArray::new(DType::F32, vec![1], vec![0; 4]).unwrap()]);
    for name in ["negative", "floats"] {
        assert_eq!(
            refused(name, &[]),
            format!(
                "dataset {name}, shard shard.00000.mds, sample 1: it holds numbers that are no token ids, which are \
                 whole ones from 0 to 2^32 - 1; name the column with the tokens with --column"
            )
        );
    }
    dataset("good", &[good()]);
    assert_eq!(
        refused("good", &["--token_encoding", "uint16"]),
        "good/shard.00000.mds, sample 0: its token id 70000 is beyond --token_encoding uint16; correct the sample, \
         or leave such samples out with --on_bad_line skip"
    );
}

#[test]
fn ids_are_stored_as_they_are_asked_for() {
    let shop = Workshop::new();
    let texts = ["one two three four", "five", "six seven"];
    let lines: String =
        texts.iter().map(|text| json!({ "text": text }).to_string() + "\n").collect();
    shop.write("a.jsonl", lines);
    let convert = |out: &str, flags: &[&str]| {
        let common = ["json", "--path", "a.jsonl", "--out_root", out, "--compression", "none"];
        shop.converted(&[&common[..], &TOKENS, flags].concat());
        let index = fs::read(shop.path(out).join("train/index.json")).unwrap();
        let index: Json = serde_json::from_slice(&index).unwrap();
        (index["shards"][0]["column_encodings"].clone(), shop.path(out).join("train"))
    };
    let (encodings, folder) = convert("uint16", &["--token_encoding", "uint16"]);
    assert_eq!(encodings, json!(["ndarray:uint16"]));
    assert_eq!(shards::read_ids(&folder), joined(&texts, 4));
    let (encodings, folder) = convert("sequences", &["--sequence_id"]);
    assert_eq!(encodings, json!(["ndarray:int32", "ndarray:int32"]));
    let dataset = mds::StreamingDataset::open(vec![mds::Stream::local(folder)], Default::default());
    let sample = dataset.unwrap().sample(1).unwrap();
    let ids = |column: &str| match sample.value(column).unwrap() {
        mds::format::Value::NdArray(array) => array.to_vec_i64().unwrap(),
        other => panic!("{other:?}"),
    };
    // The first sample is four tokens of the first document.
    assert_eq!(ids("tokens"), joined(&texts, 4)[1]);
    assert_eq!(ids("sequence_id"), [0, 1, 1, 2]);

    let refused = |flags: &[&str]| {
        shop.refused(&[&["json", "--path", "a.jsonl", "--out_root", "x"], flags].concat())
    };
    assert_eq!(
        refused(&["--token_encoding", "uint16"]),
        "--token_encoding has no effect on text samples; add --concat_tokens N, or leave \
         --token_encoding out"
    );
    let kwargs = |json: &str| refused(&[&TOKENS[..], &["--tokenizer_kwargs", json]].concat());
    assert_eq!(
        kwargs("{\"add_bos_token\": true}"),
        "--tokenizer_kwargs has \"add_bos_token\", which this program does not know; save the tokenizer \
         with that setting and give its tokenizer.json; model_max_length, use_fast, trust_remote_code, \
         legacy are taken"
    );
    assert_eq!(
        kwargs("[]"),
        "--tokenizer_kwargs [] is not a JSON object; write it as '{\"model_max_length\": 2048}'"
    );
    let taken = ["--tokenizer_kwargs", "{\"model_max_length\": 2048}", "--out_root", "kwargs"];
    shop.converted(&[&["json", "--path", "a.jsonl"], &TOKENS[..], &taken].concat());
}

#[test]
fn time_and_memory_are_told() {
    let shop = Workshop::new();
    shop.write("a.jsonl", "{\"text\": \"some words\"}\n".repeat(100));
    let args = ["json", "--path", "a.jsonl", "--out_root", "out", "--profile"];
    let out = stdout(&shop.converted(&[&args[..], &TOKENS].concat()));
    let stages =
        ["read and decompress", "parse", "tokenise", "encode", "compress", "hash", "write"];
    for (line, stage) in out.lines().skip(1).zip(stages) {
        assert!(
            line.starts_with(&format!("train: {stage:<20} ")) && line.ends_with(" %"),
            "{line}"
        );
    }
    assert!(out.lines().last().unwrap().starts_with("peak memory "), "{out}");
}

#[test]
fn other_datasets_of_the_hub_are_refused_by_name() {
    let shop = Workshop::new();
    let refused = |dataset: &str| shop.refused(&["hf", "--dataset", dataset, "--out_root", "x"]);
    assert_eq!(
        refused("the_pile"),
        "--dataset the_pile: the Pile is no longer on the hub; read a copy of your own with convert \
         pile --path"
    );
    assert_eq!(
        refused("roneneldan/TinyStories"),
        "--dataset roneneldan/TinyStories is not known; allenai/c4 is; fetch the files of another one, \
         and read them with convert json or convert parquet"
    );
}
