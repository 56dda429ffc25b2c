use std::io::Write as _;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::error::{ErrorKind, Result};

/// A folder with one file, and how the file's documents are read.
fn read_as(name: &str, bytes: &[u8], cut: Cut) -> Result<Vec<(String, String)>, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let file = InputFile::new(&path).unwrap();
    let mut found = Vec::new();
    let result = read(&file, cut, &Arc::new(AtomicBool::new(false)), &mut |document| {
        let place = document.place.to_string();
        let (Content::Text(text) | Content::Json(text)) = document.content;
        let place = place.strip_prefix(path.to_str().unwrap()).unwrap().to_owned();
        found.push((place, String::from_utf8(text).unwrap()));
        Ok(())
    });
    let shown = format!("{}/", folder.path().display());
    result.map(|()| found).map_err(|e| e.to_string().replace(&shown, ""))
}

fn texts(name: &str, bytes: &[u8], cut: Cut) -> Vec<String> {
    read_as(name, bytes, cut).unwrap().into_iter().map(|(_, text)| text).collect()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 1).unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn names_tell_the_kind() {
    for (name, kind) in [
        ("a.jsonl", Some(Kind::JsonLines(Packing::Plain))),
        ("a.jsonl.zst", Some(Kind::JsonLines(Packing::Zstd))),
        ("a.jsonl.gz", Some(Kind::JsonLines(Packing::Gzip))),
        ("c4-train.00000-of-01024.json.gz", Some(Kind::JsonLines(Packing::Gzip))),
        ("a.jsonl.zst.tar", Some(Kind::JsonLinesTar)),
        ("a.json.zst", Some(Kind::JsonList)),
        ("a.dat.zst", Some(Kind::Records)),
        ("a.txt", Some(Kind::Text)),
        ("enwik8.zip", Some(Kind::Zip)),
        ("a.tar.gz", Some(Kind::TarGz)),
        ("openwebtext.tar.xz", Some(Kind::TarXz)),
        ("urlsf_subset00-1_data.xz", Some(Kind::TarXz)),
        ("a.gz", Some(Kind::GzipLines)),
        ("a.txt.gz", Some(Kind::GzipLines)),
        ("a.json", None),
        ("a.zst", None),
        ("a.tar", None),
        ("a.xz", None),
        ("a.md", None),
    ] {
        assert_eq!(Kind::of(name), kind, "{name}");
    }
}

/// As `convert` leaves it out; in a text it stays, as in GPT-NeoX.
#[test]
fn json_may_begin_with_a_byte_order_mark() {
    let line = "{\"text\": \"\u{feff}a\"}";
    let marked = format!("\u{feff}{line}\n\u{feff}{line}");
    let expected = [format!("{line}\n"), format!("\u{feff}{line}")];
    assert_eq!(texts("a.jsonl", marked.as_bytes(), Cut::Whole), expected);
    assert_eq!(texts("a.jsonl.gz", &gzip(marked.as_bytes()), Cut::Whole), expected);
    assert_eq!(texts("a.json.zst", &zstd(marked.as_bytes()), Cut::Whole), expected);
    let list = format!("\u{feff}[{line}]");
    assert_eq!(texts("a.json.zst", &zstd(list.as_bytes()), Cut::Whole), [line]);
    let mut archive = tar::Builder::new(Vec::new());
    let packed = zstd(marked.as_bytes());
    let mut header = tar::Header::new_gnu();
    header.set_size(packed.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    archive.append_data(&mut header, "b.jsonl.zst", &packed[..]).unwrap();
    let archive = archive.into_inner().unwrap();
    assert_eq!(texts("a.jsonl.zst.tar", &archive, Cut::Whole), expected);
    for short in ["", "1", "{}", "\u{feff}"] {
        let found = texts("a.jsonl", short.as_bytes(), Cut::Whole);
        assert_eq!(found.concat(), short.trim_start_matches('\u{feff}'));
    }
    assert_eq!(texts("a.txt", "\u{feff}a".as_bytes(), Cut::Whole), ["\u{feff}a"]);
}

#[test]
#[cfg(unix)]
fn a_listed_link_to_nothing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.jsonl"), "").unwrap();
    std::os::unix::fs::symlink("nowhere", folder.path().join("b.jsonl")).unwrap();
    std::os::unix::fs::symlink("nowhere", folder.path().join("notes.md")).unwrap();
    let shown = folder.path().to_str().unwrap();
    assert_eq!(
        input_files(shown).unwrap_err().to_string(),
        format!(
            "{shown}/b.jsonl is a link to nowhere, which is not there; mend it, or take it out"
        )
    );
}

#[test]
fn inputs_are_files_and_folders_in_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("in")).unwrap();
    for name in ["z.txt", "in/b.jsonl", "in/a.zip", "in/B.txt", "in/notes.md"] {
        std::fs::write(path(name), "").unwrap();
    }
    std::fs::create_dir(path("in/c.txt")).unwrap();
    std::fs::create_dir(path("empty")).unwrap();
    let shown = folder.path().to_str().unwrap();
    let names = |input: &str| {
        let files = input_files(&input.replace('@', shown)).map_err(|e| e.to_string())?;
        let name = |file: &InputFile| file.name().rsplit('/').next().unwrap().to_owned();
        Ok::<_, String>(files.iter().map(name).collect::<Vec<_>>())
    };
    assert_eq!(names("@/z.txt,@/in").unwrap(), ["z.txt", "B.txt", "a.zip", "b.jsonl"]);
    assert_eq!(names("@/in/b.jsonl,,@/z.txt").unwrap(), ["b.jsonl", "z.txt"]);
    assert_eq!(
        names("@/none.txt").unwrap_err(),
        format!("--input {shown}/none.txt not found; check the path")
    );
    assert_eq!(
        names("@/in/notes.md").unwrap_err(),
        format!(
            "{shown}/in/notes.md is not a kind of file that can be read; give it a name that ends in \
             .jsonl, .jsonl.zst, .jsonl.gz, .jsonl.zst.tar, .json.gz, .json.zst, .txt, .zip, .tar.gz, \
             .tar.xz, _data.xz, .dat.zst or .gz"
        )
    );
    assert!(
        names("@/empty").unwrap_err().starts_with(&format!("folder {shown}/empty holds no file"))
    );
    assert_eq!(
        names(",").unwrap_err(),
        "--input names no file; give a file, a folder or a list of them"
    );
}

#[test]
fn lines_keep_their_numbers() {
    let lines = b"\n{\"text\":1}\r\n \n\"x\"";
    let expected = [(", line 2", "{\"text\":1}\r\n"), (", line 4", "\"x\"")];
    let expected = expected.map(|(place, text)| (place.to_owned(), text.to_owned()));
    assert_eq!(read_as("a.jsonl", lines, Cut::Whole).unwrap(), expected);
    assert_eq!(read_as("a.jsonl.zst", &zstd(lines), Cut::Whole).unwrap(), expected);
    assert_eq!(read_as("a.json.gz", &gzip(lines), Cut::Whole).unwrap(), expected);
    // Lines of a .gz are text, whatever they are.
    assert_eq!(texts("a.gz", &gzip(b"a\n\nb"), Cut::Whole), ["a\n", "\n", "b"]);
    // Archives that were joined are one.
    let joined = [gzip(b"a\n"), gzip(b"b\n")].concat();
    assert_eq!(texts("a.gz", &joined, Cut::Whole), ["a\n", "b\n"]);
    let joined = [zstd(b"\"a\"\n"), zstd(b"\"b\"\n")].concat();
    assert_eq!(texts("a.jsonl.zst", &joined, Cut::Whole), ["\"a\"\n", "\"b\"\n"]);
}

#[test]
fn elements_of_a_list_are_found_whatever_is_in_them() {
    let list = |json: &str| texts("a.json.zst", &zstd(json.as_bytes()), Cut::Whole);
    assert_eq!(
        list(r#" ["a,]", {"text": ["b", "]\\"]}, "\"" ] "#),
        [r#""a,]""#, r#" {"text": ["b", "]\\"]}"#, r#" "\"" "#]
    );
    assert!(list("[]").is_empty());
    assert!(list(" [ \n ] ").is_empty());
    assert!(list("").is_empty());
    assert_eq!(list("\n{\"text\": 1}\n{}"), ["{\"text\": 1}\n", "{}"]);
    let long = format!("[{}\"end\"]", "\"0123456789\", ".repeat(30_000));
    assert_eq!(list(&long).len(), 30_001);

    let refused =
        |json: &str| read_as("a.json.zst", &zstd(json.as_bytes()), Cut::Whole).unwrap_err();
    assert_eq!(
        refused("[1] x"),
        "a.json.zst: something follows the list; write one list, or one object in each line"
    );
    let text = refused("[\"a\", \"b");
    assert!(
        text.ends_with("; the file is damaged or cut short: fetch or write it again"),
        "{text}"
    );
    // An element that is none is found where it is parsed.
    assert_eq!(list("[1,]"), ["1", ""]);
    assert_eq!(list("[1, ]"), ["1", " "]);
}

#[test]
fn texts_are_whole_or_cut() {
    let dump =
        "<mediawiki>\n  <page>\n one\n  </page>\n  <page>\n two\n\n  </page>\n</mediawiki>\n";
    assert_eq!(texts("a.txt", dump.as_bytes(), Cut::Whole), [dump]);
    let articles = read_as("a.txt", dump.as_bytes(), Cut::Articles).unwrap();
    assert_eq!(articles.iter().map(|(_, text)| text.as_str()).collect::<String>(), dump);
    let begins: Vec<_> = articles.iter().map(|(place, _)| place.as_str()).collect();
    assert_eq!(begins, [", line 1", ", line 2", ", line 5"]);
    assert_eq!(articles[1].1, "  <page>\n one\n  </page>\n");
    assert_eq!(texts("a.txt", b"a\r\n\n \nb\n c ", Cut::Lines), ["a", "b", " c "]);
    assert!(texts("a.txt", b"", Cut::Whole).is_empty());
    assert!(texts("a.txt", b"", Cut::Articles).is_empty());
}

#[test]
fn line_ends_of_text_files_are_as_python_reads_them() {
    assert_eq!(texts("a.txt", b"a\r\nb\rc\n\r\n\r", Cut::Whole), ["a\nb\nc\n\n\n"]);
    assert_eq!(texts("a.gz", &gzip(b"a\r\n"), Cut::Whole), ["a\r\n"]);
}

#[test]
fn records_are_as_long_as_they_say() {
    let records = zstd("0000000000000003abc00000000000000000000000000000002é".as_bytes());
    let found = read_as("a.dat.zst", &records, Cut::Whole).unwrap();
    let place = |n: u32| format!(", document {n}");
    assert_eq!(found, [(place(1), "abc".to_owned()), (place(3), "é".to_owned())]);

    let refused =
        |text: &str| read_as("a.dat.zst", &zstd(text.as_bytes()), Cut::Whole).unwrap_err();
    assert_eq!(
        refused("0000000000000001a00000000000000x1a"),
        "a.dat.zst, document 2: \"00000000000000x1\" is not a length of 16 digits; fetch or write the \
         file again"
    );
    let cut = "the file is damaged or cut short: fetch or write it again";
    assert!(refused("0000000000000003ab").ends_with(cut));
    assert!(refused("00000000").ends_with(cut));
    assert_eq!(
        refused("0000000268435457a"),
        "a.dat.zst, document 1: a document is longer than 256 MiB; cut it into several documents"
    );
}

#[test]
fn a_set_flag_ends_the_reading() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    std::fs::write(&path, "1\n".repeat(1_000_000)).unwrap();
    let file = InputFile::new(&path).unwrap();
    let cancel = Arc::new(AtomicBool::new(false));
    let mut seen = 0;
    let result = read(&file, Cut::Whole, &Arc::clone(&cancel), &mut |_| {
        seen += 1;
        cancel.store(true, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    });
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Interrupted);
    assert!(seen < 200_000, "{seen}");
}
