//! `preprocess-data` as a user runs it, on files of every kind.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::io::{Cursor, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use convert::indexed::{Dtype, IndexedDataset};
use convert::tokenizer::Tokenizer;

#[path = "support/workshop.rs"]
mod workshop;

use workshop::{Workshop, entries, stderr, stdout};

const END_OF_TEXT: i64 = 50_256;

const GPT2: [&str; 2] = ["--tokenizer-type", "HFGPT2Tokenizer"];
const BYTES: [&str; 2] = ["--tokenizer-type", "CharLevelTokenizer"];

fn shop() -> Workshop {
    let shop = Workshop::of(env!("CARGO_BIN_EXE_preprocess-data"));
    fs::create_dir(shop.path("out")).unwrap();
    shop
}

/// Arguments that make `out/set` of `input`.
fn args<'a>(input: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["--input", input, "--output-prefix", "out/set"][..], more].concat()
}

/// The documents of a dataset.
fn documents(shop: &Workshop, name: &str) -> Vec<Vec<i64>> {
    let dataset = IndexedDataset::open(shop.path(name)).unwrap();
    assert_eq!(dataset.num_sequences(), dataset.num_documents());
    dataset.documents().map(|tokens| tokens.to_vec()).collect()
}

/// The documents of `out/set` for `input`, which is then gone again.
fn made(shop: &Workshop, input: &str, more: &[&str]) -> Vec<Vec<i64>> {
    shop.succeed(&args(input, more));
    let made = documents(shop, "out/set_text_document");
    clear(shop);
    made
}

fn clear(shop: &Workshop) {
    fs::remove_dir_all(shop.path("out")).unwrap();
    fs::create_dir(shop.path("out")).unwrap();
}

/// What GPT-2's ids of these texts are, each with an end, computed without the program.
fn expected(texts: &[&str]) -> Vec<Vec<i64>> {
    let gpt2 = Tokenizer::load("gpt2").unwrap();
    let ids = |text: &&str| {
        let mut ids: Vec<i64> = gpt2.encode(text).unwrap().into_iter().map(i64::from).collect();
        ids.push(END_OF_TEXT);
        ids
    };
    texts.iter().map(ids).collect()
}

fn json_lines(texts: &[&str]) -> String {
    texts.iter().map(|text| format!("{}\n", serde_json::json!({"text": text}))).collect()
}

fn gzip(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes.as_ref()).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    zstd::stream::encode_all(bytes.as_ref(), 1).unwrap()
}

fn xz(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut packed = Vec::new();
    liblzma::read::XzEncoder::new(bytes.as_ref(), 1).read_to_end(&mut packed).unwrap();
    packed
}

fn tar(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        let kind =
            if name.ends_with('/') { tar::EntryType::Directory } else { tar::EntryType::Regular };
        header.set_entry_type(kind);
        archive.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    archive.into_inner().unwrap()
}

fn zip(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    archive.add_directory("folder", zip::write::SimpleFileOptions::default()).unwrap();
    for (number, (name, bytes)) in members.iter().enumerate() {
        let methods = [zip::CompressionMethod::Stored, zip::CompressionMethod::Deflated];
        let options =
            zip::write::SimpleFileOptions::default().compression_method(methods[number % 2]);
        archive.start_file(*name, options).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_golden_files_are_written_byte_for_byte() {
    let shop = shop();
    shop.write("a.jsonl", json_lines(&["\u{1}\u{2}\u{3}", "\u{4}", "\u{5}\u{6}"]));
    let output = shop.succeed(&args("a.jsonl", &BYTES));
    let read = |end: &str| fs::read(shop.path(&format!("out/set_text_document.{end}"))).unwrap();
    assert_eq!(hex(&read("bin")), "010002000300040005000600");
    assert_eq!(
        hex(&read("idx")),
        "4d4d494449445800000100000000000000080300000000000000040000000000000003000000010000000200\
         0000000000000000000006000000000000000800000000000000000000000000000001000000000000000200\
         0000000000000300000000000000"
    );
    assert_eq!(
        stdout(&output),
        "Vocab size: 512\nOutput prefix: out/set\n\
         out/set_text_document: 3 documents, 6 tokens, uint16\n"
    );
    assert_eq!(entries(&shop.path("out")), ["set_text_document.bin", "set_text_document.idx"]);
}

#[test]
fn the_older_layout_is_written_byte_for_byte_and_read() {
    let shop = shop();
    shop.write("a.jsonl", json_lines(&["\u{1}\u{2}\u{3}", "\u{4}", "\u{5}\u{6}"]));
    for name in ["lazy", "cached"] {
        let prefix = format!("out/{name}");
        let flags = ["--input", "a.jsonl", "--output-prefix", &prefix, "--dataset-impl", name];
        let output = shop.succeed(&[&flags[..], &BYTES].concat());
        let said = format!("{prefix}_text_document: 3 documents, 6 tokens, int32\n");
        assert!(stdout(&output).ends_with(&said), "{}", stdout(&output));
        let read =
            |end: &str| fs::read(shop.path(&format!("{prefix}_text_document.{end}"))).unwrap();
        let tokens: Vec<u8> = (1..=6_i32).flat_map(i32::to_le_bytes).collect();
        assert_eq!(read("bin"), tokens);
        let header = [
            "544e544944580000", // TNTIDX
            "0100000000000000", // the version
            "0400000000000000", // int32
            "0400000000000000", // of four bytes
            "0300000000000000", // sequences
            "0300000000000000", // their dimensions
            "0400000000000000", // document boundaries
        ];
        let numbers =
            [0, 1, 2, 3, 0, 3, 4, 6, 3, 1, 2, 0, 1, 2, 3].map(|n| format!("0{n}00000000000000"));
        assert_eq!(hex(&read("idx")), header.concat() + &numbers.concat());

        let read = documents(&shop, &format!("{prefix}_text_document"));
        assert_eq!(read, [vec![1, 2, 3], vec![4], vec![5, 6]]);
    }
}

#[test]
fn every_kind_of_file_gives_its_documents() {
    let shop = shop();
    let texts = ["Hello world", "two\nlines, and é \u{1f600}", "the last"];
    let (lines, plain) = (json_lines(&texts), texts.map(|text| text.as_bytes().to_vec()));
    let members: Vec<_> = ["x/a.txt", "b", "c.txt"].into_iter().zip(plain.clone()).collect();
    let with_folder = [&[("x/", Vec::new()), ("empty.txt", Vec::new())][..], &members].concat();
    let quoted: Vec<_> = texts.iter().map(|text| serde_json::json!(text)).collect();
    let objects: Vec<_> =
        texts.iter().map(|text| serde_json::json!({"text": text, "n": 1})).collect();
    let records: Vec<u8> = plain
        .iter()
        .flat_map(|text| [format!("{:016}", text.len()).as_bytes(), text].concat())
        .collect();
    let half = |range: std::ops::Range<usize>| zstd(json_lines(&texts[range]));
    let parts = [("a.jsonl.zst", half(0..1)), ("empty", Vec::new()), ("b.jsonl.zst", half(1..3))];
    let subsets =
        [("s/urlsf_subset00-1_data.xz", xz(tar(&members[..1]))), ("other", plain[1].clone())];
    let last = ("s/urlsf_subset01-1_data.xz", xz(tar(&members[2..])));
    let files: [(&str, Vec<u8>); 15] = [
        ("a.jsonl", lines.clone().into_bytes()),
        ("a.jsonl.zst", zstd(&lines)),
        ("a.jsonl.gz", gzip(&lines)),
        ("a.json.gz", gzip(&lines)),
        ("a.jsonl.zst.tar", tar(&parts)),
        ("list.json.zst", zstd(serde_json::Value::from(quoted).to_string())),
        ("objects.json.zst", zstd(serde_json::Value::from(objects).to_string())),
        ("lines.json.zst", zstd(&lines)),
        ("a.zip", zip(&members)),
        ("a.tar.gz", gzip(tar(&with_folder))),
        ("a.tar.xz", xz(tar(&with_folder))),
        ("urlsf_subset00-1_data.xz", xz(tar(&members))),
        ("openwebtext.tar.xz", xz(tar(&[&subsets[..], &[last]].concat()))),
        ("a.dat.zst", zstd(records)),
        (
            "paragraphs.jsonl",
            format!("{{\"text\": [\"Hello world\"]}}\n{}", json_lines(&texts[1..])).into(),
        ),
    ];
    let all = expected(&texts);
    for (name, bytes) in files {
        shop.write(name, bytes);
        for workers in ["1", "3"] {
            let more = [&GPT2[..], &["--append-eod", "--workers", workers]].concat();
            assert_eq!(made(&shop, name, &more), all, "{name}");
        }
    }

    // A file of text is one document, with line ends as Python reads them; a line of a .gz is one, with its
    // own end.
    let more = [&GPT2[..], &["--append-eod"]].concat();
    shop.write("a.txt", "one\r\ntwo\n");
    assert_eq!(made(&shop, "a.txt", &more), expected(&["one\ntwo\n"]));
    shop.write("lines.gz", gzip("one\r\n\ntwo"));
    assert_eq!(made(&shop, "lines.gz", &more), expected(&["one\r\n", "\n", "two"]));
}

#[test]
fn files_folders_and_lists_are_read_in_order() {
    let shop = shop();
    shop.write("in/b.jsonl", json_lines(&["second"]));
    shop.write("in/a.txt", "first");
    shop.write("in/notes.md", "not read");
    shop.write("c.jsonl.gz", gzip(json_lines(&["third", "fourth"])));
    let more = [&GPT2[..], &["--append-eod"]].concat();
    let in_order = expected(&["first", "second", "third", "fourth"]);
    assert_eq!(made(&shop, "in,c.jsonl.gz", &more), in_order);
    let other = expected(&["third", "fourth", "first", "second"]);
    assert_eq!(made(&shop, "c.jsonl.gz,in/", &more), other);
}

#[test]
fn each_key_gets_its_own_text_and_empty_ones_are_left_out() {
    let shop = shop();
    shop.write(
        "a.jsonl",
        "{\"text\": \"one\", \"title\": \"1\"}\n{\"text\": \"\", \"title\": \"2\"}\n\
         {\"title\": \"\", \"text\": [\"three\", \"four\"], \"other\": null}\n",
    );
    let keys = ["--jsonl-keys", "text", "title", "--append-eod", "--num-docs", "9"];
    let output = shop.succeed(&args("a.jsonl", &[&GPT2[..], &keys].concat()));
    assert_eq!(documents(&shop, "out/set_text_document"), expected(&["one", "three\n\nfour"]));
    assert_eq!(documents(&shop, "out/set_title_document"), expected(&["1", "2"]));
    let said = stdout(&output);
    let lines: Vec<_> = said.lines().skip(2).collect();
    assert_eq!(
        lines,
        [
            "out/set_text_document: 2 documents, 7 tokens, uint16",
            "out/set_text_document: 1 text without a token left out",
            "out/set_title_document: 2 documents, 4 tokens, uint16",
            "out/set_title_document: 1 text without a token left out",
        ]
    );
    let progress = stderr(&output);
    assert!(progress.starts_with("Processed 3/9 documents ("), "{progress}");
    assert!(progress.ends_with(" MB/s).\n"), "{progress}");
}

/// A tokenizer that makes nothing of blanks, as some do.
fn write_tokenizer_without_blanks(shop: &Workshop) -> String {
    let mut json: serde_json::Value =
        serde_json::from_str(Tokenizer::load("gpt2").unwrap().json()).unwrap();
    json["normalizer"] =
        serde_json::json!({"type": "Strip", "strip_left": true, "strip_right": true});
    let path = shop.write("tokenizer.json", json.to_string());
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_text_without_a_token_is_left_out_without_an_error() {
    let shop = shop();
    let tokenizer = write_tokenizer_without_blanks(&shop);
    shop.write("a.jsonl", json_lines(&["one", "  \n ", "two"]));
    let more = ["--tokenizer-type", "HFTokenizer", "--vocab", &tokenizer, "--append-eod"];
    let output = shop.succeed(&args("a.jsonl", &more));
    assert_eq!(documents(&shop, "out/set_text_document"), expected(&["one", "two"]));
    assert!(stdout(&output).contains("out/set_text_document: 1 text without a token left out\n"));
}

#[test]
fn large_vocabularies_are_int32_and_small_ones_uint16() {
    let shop = shop();
    let mut json: serde_json::Value =
        serde_json::from_str(Tokenizer::load("gpt2").unwrap().json()).unwrap();
    let token = serde_json::json!({"id": 65_498, "content": "<|far|>", "single_word": false,
        "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    json["added_tokens"].as_array_mut().unwrap().push(token);
    shop.write("a.jsonl", json_lines(&["one<|far|>"]));
    for (id, dtype) in [(65_498, Dtype::U16), (65_499, Dtype::I32), (70_000, Dtype::I32)] {
        json["added_tokens"][1]["id"] = id.into();
        json["model"]["vocab"]["<|far|>"] = id.into();
        shop.write("tokenizer.json", json.to_string());
        let more = ["--tokenizer-type", "HFTokenizer", "--vocab-file", "tokenizer.json"];
        let output = shop.succeed(&args("a.jsonl", &more));
        assert!(stdout(&output).starts_with(&format!("Vocab size: {}\n", id + 1)));
        let dataset = IndexedDataset::open(shop.path("out/set_text_document")).unwrap();
        assert_eq!(dataset.dtype(), dtype, "{id}");
        assert_eq!(dataset.document(0).unwrap().to_vec(), [505, id]);
        clear(&shop);
    }
}

/// Documents of very different sizes, some larger than a batch of them.
fn many() -> String {
    let text = |n: usize| match n % 100 {
        99 => format!("{n} is large. ").repeat(30_000),
        rest => format!("{n} times {rest} is {}. ", n * rest).repeat(rest % 13),
    };
    (0..2_000).map(|n| format!("{}\n", serde_json::json!({"text": text(n)}))).collect()
}

#[test]
fn any_number_of_workers_gives_the_same_bytes() {
    let shop = shop();
    shop.write("a.jsonl.zst", zstd(many()));
    let bytes = |workers: &str| {
        let more = [&GPT2[..], &["--append-eod", "--workers", workers, "--log-interval", "1000"]];
        let output = shop.succeed(&args("a.jsonl.zst", &more.concat()));
        let last = stderr(&output).lines().last().unwrap().to_owned();
        assert!(last.starts_with("Processed 1840 documents ("), "{last}");
        let read =
            |end: &str| fs::read(shop.path(&format!("out/set_text_document.{end}"))).unwrap();
        let bytes = (read("bin"), read("idx"));
        clear(&shop);
        bytes
    };
    let alone = bytes("1");
    assert!(alone.0.len() > 2 << 20, "{}", alone.0.len());
    assert!(bytes("4") == alone);
}

#[test]
fn labels_are_masked_up_to_a_delimiter() {
    let shop = shop();
    let texts = ["question: no. answer: yes", "none", "answer: answer: twice"];
    shop.write("a.jsonl", json_lines(&texts));
    let gpt2 = Tokenizer::load("gpt2").unwrap();
    let pattern = gpt2.encode(" answer:").unwrap();
    let list = pattern.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let more = [&GPT2[..], &["--append-eod", "--mask-before-token", &list]].concat();
    let output = shop.succeed(&args("a.jsonl", &more));
    let (ids, labels) =
        (documents(&shop, "out/set_text_document"), documents(&shop, "out/set_label_document"));
    assert_eq!(ids, expected(&texts));
    // By another way: everything before the last token of the delimiter and with it.
    let masked = [6, 0, 4];
    for ((ids, labels), masked) in ids.iter().zip(&labels).zip(masked) {
        assert_eq!(labels.len(), ids.len());
        assert!(labels[..masked].iter().all(|&label| label == -100), "{labels:?}");
        assert_eq!(labels[masked..], ids[masked..]);
    }
    assert!(stdout(&output).ends_with("out/set_label_document: 3 documents, 16 tokens, int32\n"));
    for name in ["out/set_text_document", "out/set_label_document"] {
        assert_eq!(IndexedDataset::open(shop.path(name)).unwrap().dtype(), Dtype::I32);
    }
}

/// GPT-2's tokenizer with a chat template, in the folder `tokenizer`.
fn write_chat_tokenizer(shop: &Workshop) {
    shop.write("tokenizer/tokenizer.json", Tokenizer::load("gpt2").unwrap().json());
    let template = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}\
                    {% if add_generation_prompt %}assistant:{% endif %}";
    let config = serde_json::json!({"chat_template": template, "eos_token": "<|endoftext|>"});
    shop.write("tokenizer/tokenizer_config.json", config.to_string());
}

const CHATS: [&str; 2] = ["--tokenizer-path", "tokenizer"];

#[test]
fn chats_become_ids_labels_and_rewards() {
    let shop = shop();
    write_chat_tokenizer(&shop);
    let lines = [
        r#"{"good": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}],
            "bad": [{"role": "user", "content": "Hi"}], "liked": true}"#,
        r#"{"good": [{"role": "user", "content": "So"}], "bad": [{"role": "assistant", "content": "No"}], "liked": 0}"#,
    ];
    shop.write("a.jsonl", lines.map(|line| line.replace('\n', " ") + "\n").concat());
    let more = ["--jsonl-keys", "good", "bad", "--reward-key", "liked", "--binary-reward"];
    let output = shop.succeed(&args("a.jsonl", &[&CHATS[..], &more].concat()));
    let read = |name: &str| documents(&shop, &format!("out/set_{name}_document"));
    let good = ["user: Hi\nassistant: Yes\n", "user: So\n"];
    assert_eq!(read("good"), expected(&good));
    assert_eq!(read("bad"), expected(&["user: Hi\n", "assistant: No\n"]));
    // Of the first chat ` Yes`, the line's end and the text's are learned.
    let mut labels = read("good");
    let of_reply = labels[0].len() - 3;
    labels[0][..of_reply].fill(-100);
    labels[1].fill(-100);
    assert_eq!(read("good_label"), labels);
    let bad = read("bad");
    assert_eq!(read("bad_label"), [vec![-100; bad[0].len()], bad[1].clone()]);
    assert_eq!(read("reward"), [[1], [-1]]);
    let said = stdout(&output);
    assert!(said.ends_with("out/set_reward_document: 2 documents, 2 tokens, int32\n"), "{said}");
    clear(&shop);

    let key = ["--jsonl-keys", "good"];
    shop.succeed(&args("a.jsonl", &[&CHATS[..], &key, &["--no-mask"]].concat()));
    assert_eq!(read("good"), expected(&good));
    assert_eq!(entries(&shop.path("out")), ["set_good_document.bin", "set_good_document.idx"]);
}

#[test]
fn rewards_that_are_numbers_are_written_as_gpt_neox_has_them() {
    let shop = shop();
    write_chat_tokenizer(&shop);
    let chat = |reward: &str| {
        format!(
            "{{\"conversation\": [{{\"role\": \"user\", \"content\": \"Hi\"}}], \"score\": {reward}}}\n"
        )
    };
    shop.write("a.jsonl", [chat("1.5"), chat("-2"), chat("0.1")].concat());
    let more = [&CHATS[..], &["--reward-key", "score"]].concat();
    let output = shop.succeed(&args("a.jsonl", &more));
    let said = stdout(&output);
    assert!(said.ends_with("out/set_reward_document: 3 documents, 3 numbers, float32\n"), "{said}");
    let read = |end: &str| fs::read(shop.path(&format!("out/set_reward_document.{end}"))).unwrap();
    assert_eq!(hex(&read("bin")), "0000c03f000000c0cdcccc3d");
    let header = [
        "4d4d49444944580000", // MMIDIDX
        "0100000000000000",   // the version
        "06",                 // float32
        "0300000000000000",   // sequences
        "0400000000000000",   // document boundaries
    ];
    let sizes = "01000000".repeat(3);
    let numbers = [0, 4, 8, 0, 1, 2, 3].map(|n| format!("0{n}00000000000000"));
    assert_eq!(hex(&read("idx")), header.concat() + &sizes + &numbers.concat());
    let refused = IndexedDataset::open(shop.path("out/set_reward_document")).unwrap_err();
    let expected = "byte 17: dtype code 6 is float32 to GPT-NeoX and float64 to Megatron-core, so that the file does not \
                    say what its numbers are; write tokens as integers";
    assert!(refused.to_string().ends_with(expected), "{refused}");
    clear(&shop);

    let refusal = |reward: &str, layout: &str| {
        shop.write("a.jsonl", [chat("1"), chat(reward)].concat());
        self::refused(&shop, &args("a.jsonl", &[&more[..], &["--dataset-impl", layout]].concat()))
    };
    let remedy = "correct it, or give --binary-reward, which writes whether it is true";
    for (reward, kind) in [
        ("true", "true or false"),
        ("null", "null"),
        ("\"1\"", "a text"),
        ("[1]", "a list"),
        ("{}", "an object"),
    ] {
        assert_eq!(
            refusal(reward, "mmap"),
            format!(
                "a.jsonl, line 2: the reward under \"score\" is {kind}, not a number; {remedy}"
            )
        );
    }
    assert_eq!(
        refusal("1e39", "mmap"),
        "a.jsonl, line 2: the reward under \"score\" is 1e+39, which is too large for float32; scale the rewards, or \
         take it out"
    );
    for layout in ["lazy", "cached"] {
        assert_eq!(
            refusal("1", layout),
            "rewards that are numbers are float32, and GPT-NeoX's older layout has int32 alone; leave --dataset-impl \
             out, or give --binary-reward"
        );
    }
}

#[test]
fn a_text_that_tiktoken_cannot_split_is_named_with_its_place() {
    let shop = shop();
    shop.write("a.jsonl", json_lines(&["fine", &" ".repeat(2_000_000)]));
    let o200k = ["--tokenizer-type", "TiktokenTokenizer", "--vocab-file", "o200k_base"];
    let said = stderr(&shop.run(&args("a.jsonl", &o200k)));
    let expected = "error: a.jsonl, line 2: o200k_base of tiktoken cannot split a text: ";
    assert!(said.contains(expected), "{said}");
    assert_eq!(entries(&shop.path("out")), [""; 0]);
}

#[test]
fn what_is_no_chat_is_named() {
    let shop = shop();
    write_chat_tokenizer(&shop);
    let refused = |line: &str, more: &[&str]| {
        shop.write("a.jsonl", format!("{line}\n"));
        let said = stderr(&shop.run(&args("a.jsonl", &[&CHATS[..], more].concat())));
        assert_eq!(entries(&shop.path("out")), [""; 0]);
        said.lines().last().unwrap().trim_start_matches("preprocess-data: error: ").to_owned()
    };
    let end = "; correct it, or take it out";
    assert_eq!(
        refused(r#"{"conversation": [{"role": "user"}, "text"]}"#, &[]),
        format!(
            "a.jsonl, line 1: the chat under \"conversation\" is no list of messages, each with a \"role\" and a \
             \"content\"{end}"
        )
    );
    assert_eq!(
        refused(r#"{"text": []}"#, &[]),
        format!("a.jsonl, line 1: the key \"conversation\" is missing{end}")
    );
    assert_eq!(
        refused(r#"{"conversation": [], "x": 1"#, &[]),
        format!(
            "a.jsonl, line 1: not a JSON object: EOF while parsing an object at column 27{end}"
        )
    );
    assert_eq!(
        refused(r#"{"a": []}"#, &["--jsonl-keys", "a", "a_label"]),
        "two datasets would be called PREFIX_a_label_document; rename the key in the documents"
    );
    let both = [&GPT2[..], &CHATS].concat();
    let said = stderr(&shop.run(&args("a.jsonl", &both)));
    assert!(said.contains("cannot be used with"), "{said}");
    let said = stderr(&shop.run(&args("a.jsonl", &[&GPT2[..], &["--only-last"]].concat())));
    let expected = "preprocess-data: error: --only-last has no effect on texts; leave it out, or give --tokenizer-path in \
                    place of --tokenizer-type if there are chats\n";
    assert!(said.ends_with(expected), "{said}");
}

#[test]
fn texts_are_cut_where_that_is_asked_for() {
    let shop = shop();
    let dump = "<mediawiki>\n  <page>\n one\n  </page>\n  <page>\n two\n  </page>\n</mediawiki>\n";
    shop.write("dump.zip", zip(&[("dump", dump.into())]));
    let cut =
        |how: &str| made(&shop, "dump.zip", &[&BYTES[..], &["--split-documents", how]].concat());
    let bytes = |text: &str| text.bytes().map(i64::from).collect::<Vec<_>>();
    assert_eq!(cut("whole"), [bytes(dump)]);
    let articles = [
        "<mediawiki>\n",
        "  <page>\n one\n  </page>\n",
        "  <page>\n two\n  </page>\n</mediawiki>\n",
    ];
    assert_eq!(cut("articles"), articles.map(bytes));
    let lines: Vec<_> = dump.lines().map(bytes).collect();
    assert_eq!(cut("lines"), lines);
}

/// Runs a command that must fail, and checks that nothing is left of it.
fn refused(shop: &Workshop, args: &[&str]) -> String {
    let message = shop.fail(args);
    assert_eq!(entries(&shop.path("out")), [""; 0], "{message}");
    message
}

#[test]
fn what_cannot_be_read_is_named_and_nothing_is_left() {
    let shop = shop();
    let good = json_lines(&["good"]);
    let end = "; correct it, or take it out";
    let refusal = |name: &str, bytes: &[u8]| {
        shop.write(name, bytes);
        refused(&shop, &args(name, &[&GPT2[..], &["--workers", "2"]].concat()))
    };
    assert_eq!(
        refusal("a.jsonl", format!("{good}{good}not JSON\n{good}").as_bytes()),
        format!("a.jsonl, line 3: not JSON with texts: expected ident at column 2{end}")
    );
    assert_eq!(
        refusal("b.jsonl", format!("{good}{{\"texts\": \"\"}}\n").as_bytes()),
        format!("b.jsonl, line 2: the key \"text\" is missing{end}")
    );
    let message =
        refusal("c.jsonl.gz", &gzip([good.as_bytes(), b"{\"text\": \"\xff\"}\n"].concat()));
    assert_eq!(message, format!("c.jsonl.gz, line 2: byte 10 of it is not UTF-8{end}"));
    let message = refusal("d.zip", &zip(&[("x/a", b"good".to_vec()), ("x/b", b"b\xff".to_vec())]));
    assert_eq!(message, format!("d.zip, member x/b: byte 1 of it is not UTF-8{end}"));
    let message = refusal("e.jsonl.zst.tar", &tar(&[("x.jsonl.zst", zstd(format!("{good}1\n")))]));
    assert_eq!(
        message,
        format!(
            "e.jsonl.zst.tar, member x.jsonl.zst, line 2: not JSON with texts: invalid type: integer `1`, \
             expected an object or a text at column 1{end}"
        )
    );
    let message = refusal("f.json.zst", &zstd("[\"a\", 1e9]"));
    assert_eq!(
        message,
        format!(
            "f.json.zst, document 2: not JSON with texts: invalid type: floating point \
             `1000000000.0`, expected an object or a text at column 4{end}"
        )
    );
    let title = [&GPT2[..], &["--jsonl-keys", "title"]].concat();
    shop.write("g.txt", "text");
    assert_eq!(
        refused(&shop, &args("g.txt", &title)),
        format!("g.txt: plain text has no key \"title\", but \"text\" alone{end}")
    );
    assert_eq!(
        refusal("h.txt", b""),
        "no document of h.txt has a text under the key \"text\"; nothing was written; check the input and \
         --jsonl-keys"
    );
    // Of two keys neither is written if one is empty.
    shop.write("i.jsonl", "{\"text\": \"x\", \"title\": \"\"}\n");
    let both = [&GPT2[..], &["--jsonl-keys", "text", "title"]].concat();
    assert!(refused(&shop, &args("i.jsonl", &both)).contains("under the key \"title\""));
}

#[test]
fn files_that_are_cut_short_are_named() {
    let shop = shop();
    let text: String = (0..50_000_u64).map(|n| format!("\"{n} is {}\"\n", n * n)).collect();
    let members: Vec<_> =
        (0..20_u32).map(|n| (format!("{n}"), text.clone().into_bytes())).collect();
    let members: Vec<_> =
        members.iter().map(|(name, text)| (name.as_str(), text.clone())).collect();
    for (name, bytes) in [
        ("a.jsonl.gz", gzip(&text)),
        ("a.jsonl.zst", zstd(&text)),
        ("a.tar.gz", gzip(tar(&members))),
        ("a.tar.xz", xz(tar(&members))),
        ("a.zip", zip(&members)),
        ("a.jsonl.zst.tar", tar(&[("a.jsonl.zst", zstd(&text))])),
        ("a.dat.zst", zstd(format!("{:016}{text}", text.len()))),
    ] {
        shop.write(name, &bytes[..bytes.len() / 2]);
        let message = refused(&shop, &args(name, &BYTES));
        assert!(message.starts_with(name), "{message}");
        assert!(message.contains(": cannot read after byte "), "{message}");
        let end = "; the file is damaged or cut short: fetch or write it again";
        assert!(message.ends_with(end), "{message}");
    }
    // A byte that is wrong.
    let mut bytes = zip(&members);
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    shop.write("b.zip", bytes);
    let message = refused(&shop, &args("b.zip", &BYTES));
    assert!(message.starts_with("b.zip, member "), "{message}");
}

/// 256 MiB and more are packed into some kilobytes.
#[test]
fn a_document_does_not_fill_the_memory() {
    let shop = shop();
    let block = vec![b'x'; 1 << 20];
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(1));
    (0..257).for_each(|_| encoder.write_all(&block).unwrap());
    shop.write("a.gz", encoder.finish().unwrap());
    assert_eq!(
        refused(&shop, &args("a.gz", &BYTES)),
        "a.gz, line 1: a document is longer than 256 MiB; cut it into several documents"
    );
    let mut packed = zip::ZipWriter::new(Cursor::new(Vec::new()));
    packed.start_file("x", zip::write::SimpleFileOptions::default()).unwrap();
    (0..257).for_each(|_| packed.write_all(&block).unwrap());
    shop.write("a.zip", packed.finish().unwrap().into_inner());
    assert_eq!(
        refused(&shop, &args("a.zip", &BYTES)),
        "a.zip, member x: a document is longer than 256 MiB; cut it with --split-documents"
    );
}

/// The ids are those of `tests/fixtures/neox_tokenizers.json`, which SentencePiece and tiktoken gave.
#[test]
fn models_of_sentencepiece_and_encodings_of_tiktoken_are_used() {
    let shop = shop();
    let fixture =
        |name| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name);
    let recorded = fs::read_to_string(fixture("neox_tokenizers.json")).unwrap();
    let recorded: serde_json::Value = serde_json::from_str(&recorded).unwrap();
    let texts: Vec<&str> =
        recorded["strings"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    shop.write("a.jsonl", json_lines(&texts));
    let model = fixture("sentencepiece/bpe_llama.model").display().to_string();
    for (kind, vocab, expected, dtype) in [
        ("SPMTokenizer", model.as_str(), &recorded["sentencepiece"]["bpe_llama"], Dtype::U16),
        ("TiktokenTokenizer", "cl100k_base", &recorded["tiktoken"]["cl100k_base"], Dtype::I32),
    ] {
        let more = ["--tokenizer-type", kind, "--vocab-file", vocab, "--append-eod"];
        let output = shop.succeed(&args("a.jsonl", &more));
        let size = format!("Vocab size: {}\n", expected["vocab_size"]);
        assert!(stdout(&output).starts_with(&size), "{}", stdout(&output));
        let ids: Vec<Vec<i64>> = serde_json::from_value(expected["ids"].clone()).unwrap();
        let end = expected["end"].as_i64().unwrap();
        let ids: Vec<_> = ids
            .into_iter()
            .filter(|ids| !ids.is_empty())
            .map(|ids| [ids, vec![end]].concat())
            .collect();
        assert_eq!(documents(&shop, "out/set_text_document"), ids, "{kind}");
        let dataset = IndexedDataset::open(shop.path("out/set_text_document")).unwrap();
        assert_eq!(dataset.dtype(), dtype, "{kind}");
        clear(&shop);
    }
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let shop = shop();
    shop.write("a.jsonl", json_lines(&["one"]));
    let refusal = |more: &[&str]| refused(&shop, &args("a.jsonl", more));
    let gpt2 = |more: &[&'static str]| refusal(&[&GPT2[..], more].concat());
    assert_eq!(
        refusal(&["--tokenizer-type", "SPMTokenizer", "--vocab-file", "x.model"]),
        "cannot read x.model: No such file or directory (os error 2); check the path"
    );
    assert_eq!(
        gpt2(&["--split-documents", "lines"]),
        "--split-documents has no effect: the documents of all input files are cut already; leave it out, \
         or give files of whole texts such as .txt and .zip"
    );
    assert_eq!(
        gpt2(&["--mask-before-token", "1", "--jsonl-keys", "text", "title"]),
        "--mask-before-token writes the labels of one key, as PREFIX_label_document; give --jsonl-keys one \
         key, which is not label"
    );
    assert_eq!(
        gpt2(&["--jsonl-keys", "text", "text"]),
        "--jsonl-keys has \"text\" twice; name each key once"
    );
    assert_eq!(
        gpt2(&["--jsonl-keys", "a/b"]),
        "--jsonl-keys \"a/b\" cannot be part of the name of a file; rename the key in the documents"
    );
    assert_eq!(
        refused(&shop, &args("none.jsonl", &GPT2)),
        "--input none.jsonl not found; check the path"
    );
    let elsewhere = ["--input", "a.jsonl", "--output-prefix", "nowhere/set"];
    assert_eq!(
        refused(&shop, &[&elsewhere[..], &GPT2].concat()),
        "cannot write nowhere/set_text_document.bin: No such file or directory (os error 2); check the \
         path"
    );

    shop.succeed(&args("a.jsonl", &GPT2));
    let before = fs::read(shop.path("out/set_text_document.idx")).unwrap();
    assert_eq!(
        shop.fail(&args("a.jsonl", &GPT2)),
        "out/set_text_document.idx exists already; choose another prefix, or remove it with its .bin file"
    );
    assert_eq!(fs::read(shop.path("out/set_text_document.idx")).unwrap(), before);
}

/// A disk that takes no more: the shell limits the sizes of files.
#[test]
fn a_full_disk_leaves_nothing() {
    let shop = shop();
    shop.write("a.jsonl", json_lines(&[&"x".repeat(3 << 20)]));
    let program = env!("CARGO_BIN_EXE_preprocess-data");
    let script = format!("trap '' XFSZ; ulimit -f 64; exec '{program}' \"$@\"");
    let mut command = Command::new("bash");
    command.current_dir(shop.path("")).args(["-c", &script, "sh"]).args(args("a.jsonl", &BYTES));
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert_eq!(
        said.lines().last().unwrap(),
        "preprocess-data: error: cannot write out/set_text_document.bin: File too large (os error 27); \
         check the disk and try again"
    );
    assert_eq!(entries(&shop.path("out")), [""; 0]);
}

/// A run that waits for more lines of a pipe.
fn waiting(shop: &Workshop) -> (Child, fs::File) {
    let pipe = shop.path("pipe.jsonl");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut command =
        shop.command(&args("pipe.jsonl", &[&BYTES[..], &["--workers", "2"]].concat()));
    let child = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut writer = fs::File::options().write(true).open(pipe).unwrap();
    let line = json_lines(&[&"x".repeat(1000)]);
    writer.write_all(line.repeat(1000).as_bytes()).unwrap();
    let out = shop.path("out");
    wait_until(|| !entries(&out).is_empty());
    (child, writer)
}

fn wait_until(is_done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_done() {
        assert!(Instant::now() < deadline, "not within 60 s");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn signal(child: &Child, signal: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
}

fn are_hidden(folder: &Path) -> bool {
    entries(folder).iter().all(|name| name.starts_with('.'))
}

#[test]
fn ctrl_c_leaves_nothing() {
    for name in ["-INT", "-TERM"] {
        let shop = shop();
        let (child, writer) = waiting(&shop);
        assert!(are_hidden(&shop.path("out")));
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        drop(writer);
        assert_eq!(output.status.code(), Some(130));
        assert!(stderr(&output).ends_with("preprocess-data: interrupted\n"), "{}", stderr(&output));
        assert_eq!(entries(&shop.path("out")), [""; 0]);
    }
}

#[test]
fn a_killed_run_leaves_no_dataset_and_the_same_command_makes_it() {
    let shop = shop();
    let (mut child, writer) = waiting(&shop);
    signal(&child, "-KILL");
    child.wait().unwrap();
    drop(writer);
    assert!(are_hidden(&shop.path("out")), "{:?}", entries(&shop.path("out")));
    fs::remove_file(shop.path("pipe.jsonl")).unwrap();
    shop.write("pipe.jsonl", json_lines(&["ab"]));
    shop.succeed(&args("pipe.jsonl", &BYTES));
    assert_eq!(documents(&shop, "out/set_text_document"), [[97, 98]]);
}

#[test]
fn help_teaches() {
    let help = stdout(&shop().succeed(&["--help"]));
    for part in [
        "--jsonl-keys <KEY>...",
        "--mask-before-token 33706,25",
        "preprocess-data --input enwik8.zip --split-documents articles",
        "- HFGPT2Tokenizer:",
        "--generation-role <ROLE>",
        "pip install ftfy",
        "--reward-key <KEY>",
        "--input chats.jsonl --tokenizer-path",
    ] {
        assert!(help.contains(part), "{part}: {help}");
    }
}
