//! What strangers can do with a dataset, and what comes of it: `attacks/README.md` lists these tests
//! by their numbers, with the decision behind each.
//!
//! What is measured in memory runs in a process of its own: this program, started again for the
//! test `child` with `MDS_ATTACK` set.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use mds::format::image::{ImageFault, ImageFile, ImageFormat};
use mds::format::{Compression, Damage, Index, Value};
use mds::{DatasetOptions, Error, ErrorKind, Shard, ShardOptions, Stream, StreamingDataset};
use serde_json::{Value as Json, json};
use support::{HASHED, PLAIN, ZIPPED, within, write};

const INDEX_REMEDY: &str = "fetch index.json again, or write the dataset again";
const SHARD_REMEDY: &str = "fetch the shard again, or write it again from its source";
const LIMIT: Duration = Duration::from_secs(20);

/// A folder with a dataset, a cache, and something beside them that nobody may touch.
struct Sandbox {
    dir: tempfile::TempDir,
    before: Vec<(PathBuf, SystemTime, Vec<u8>)>,
}

impl Sandbox {
    fn new(kind: &support::Kind) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        write(&dir.path().join("data"), 30, kind);
        std::fs::write(outside.join("victim.txt"), "secret").unwrap();
        std::fs::copy(dir.path().join("data/index.json"), outside.join("index.json")).unwrap();
        std::fs::copy(first_file(&dir.path().join("data")), outside.join("shard.00000.mds"))
            .unwrap();
        let before = snapshot(&outside);
        Self { dir, before }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn data(&self) -> PathBuf {
        self.at("data")
    }

    /// Rewrites `index.json`.
    fn edit(&self, change: impl FnOnce(&mut Json)) {
        let path = self.at("data/index.json");
        let mut index = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut index);
        std::fs::write(path, index.to_string()).unwrap();
    }

    /// Rewrites the entry of the first shard.
    fn edit_first(&self, change: impl FnOnce(&mut Json)) {
        self.edit(|index| change(&mut index["shards"][0]));
    }

    /// Reads everything: in place, and through a cache.
    fn read(&self) -> [Result<(), Error>; 2] {
        let local = Stream::local(self.data());
        let cached = Stream::cached(self.data().to_str().unwrap(), self.at("cache"));
        [local, cached].map(|stream| within(LIMIT, move || read_stream(stream)))
    }

    /// Both ways must fail, with these words somewhere in the error.
    #[track_caller]
    fn refused(&self, words: &str) {
        for (outcome, way) in self.read().into_iter().zip(["in place", "cached"]) {
            let text = outcome.expect_err(way).to_string();
            assert!(text.contains(words), "{way}: {text}");
        }
        self.untouched();
    }

    #[track_caller]
    fn untouched(&self) {
        assert_eq!(snapshot(&self.at("outside")), self.before);
        let mut names: Vec<_> = std::fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "cache")
            .collect();
        names.sort();
        assert_eq!(names, ["data", "outside"]);
    }
}

fn snapshot(dir: &Path) -> Vec<(PathBuf, SystemTime, Vec<u8>)> {
    let mut found: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let touched = path.metadata().unwrap().modified().unwrap();
            let bytes = std::fs::read(&path).unwrap();
            (path, touched, bytes)
        })
        .collect();
    found.sort();
    found
}

fn index_of(dir: &Path) -> Index {
    Index::parse(&std::fs::read(dir.join("index.json")).unwrap()).unwrap()
}

/// The first file that the dataset stores.
fn first_file(dir: &Path) -> PathBuf {
    index_of(dir).shards[0].stored().basename.join_to(dir)
}

fn read_stream(stream: Stream) -> Result<(), Error> {
    let dataset = StreamingDataset::open(vec![stream], DatasetOptions::default())?;
    for id in 0..dataset.num_samples() {
        dataset.sample(id)?.values()?;
    }
    Ok(())
}

/// Every value by the names of the columns, as text.
fn read_shards(dir: &Path, options: ShardOptions) -> Result<(Vec<String>, Vec<String>), Error> {
    let index = Index::parse(&std::fs::read(dir.join("index.json")).unwrap())?;
    let (mut names, mut values) = (Vec::new(), Vec::new());
    for info in &index.shards {
        names.extend(info.schema().columns().iter().map(|column| column.name.clone()));
        let shard = Shard::open(dir, info, options)?;
        for sample in shard.samples()? {
            values.extend(sample.decode()?.iter().map(|value| format!("{value:?}")));
        }
    }
    Ok((names, values))
}

#[test]
fn a01_names_that_lead_out_are_refused() {
    let long = "a".repeat(300);
    let refused = [
        ("../outside/victim.txt", "has an empty, `.` or `..` segment"),
        ("a/../../outside/victim.txt", "has an empty, `.` or `..` segment"),
        ("./shard.00000.mds", "has an empty, `.` or `..` segment"),
        ("..", "has an empty, `.` or `..` segment"),
        ("/etc/passwd", "is an absolute path"),
        ("//server/share", "is an absolute path"),
        ("C:\\Windows\\x", "begins with a drive letter"),
        ("C:x", "begins with a drive letter"),
        ("\\\\?\\C:\\x", "contains a backslash"),
        ("..\\outside\\victim.txt", "contains a backslash"),
        ("a\0.mds", "contains a control character"),
        ("a\n.mds", "contains a control character"),
        ("\u{1b}[2J", "contains a control character"),
        ("sdm.\u{202e}00000.drahs", "contains a control character"),
        ("\u{200f}a", "contains a control character"),
        (&long, "is too long"),
        ("", "is empty"),
        ("index.json", "is that of an index"),
        (".index.seal", "is that of a hidden file"),
        (".room.lock", "is that of a hidden file"),
        ("a/.shard.00000.mds.lock", "is that of a hidden file"),
    ];
    for field in ["raw_data", "zip_data", "raw_meta", "zip_meta"] {
        for (name, fault) in refused {
            let sandbox = Sandbox::new(&ZIPPED);
            sandbox.edit_first(|entry| {
                if field.ends_with("meta") {
                    make_csv(entry);
                }
                entry[field]["basename"] = name.into();
            });
            let words = format!(
                "the shard name {name:?} {fault}; do not use this dataset unless you trust it; \
                 correct its index.json"
            );
            sandbox.refused(&words);
            let error = Index::parse(&std::fs::read(sandbox.at("data/index.json")).unwrap());
            let error = error.unwrap_err();
            assert!(matches!(error.damage(), Some(Damage::Name { .. })), "{error:?}");
            assert!(!error.to_string().contains(['\0', '\u{1b}', '\u{202e}']), "{error}");
        }
    }
    // Signs that only look like dots and slashes are plain names, which stay where they are.
    for name in ["．．", "‥", "a∕b", "%2e%2e%2fx"] {
        let sandbox = Sandbox::new(&PLAIN);
        let from = first_file(&sandbox.data());
        std::fs::rename(from, sandbox.data().join(name)).unwrap();
        sandbox.edit_first(|entry| entry["raw_data"]["basename"] = name.into());
        for outcome in sandbox.read() {
            outcome.unwrap();
        }
        assert!(sandbox.at("cache").join(name).is_file());
        sandbox.untouched();
    }
}

/// Turns the entry of an MDS shard into one of a format with a file of offsets.
fn make_csv(entry: &mut Json) {
    entry["format"] = "csv".into();
    entry["newline"] = "\n".into();
    entry.as_object_mut().unwrap().remove("column_sizes");
    entry["column_encodings"] = json!(["int", "str", "str"]);
    let file = |name: &str| json!({"basename": name, "bytes": 1000, "hashes": {}});
    entry["raw_meta"] = file("m");
    entry["zip_meta"] = file("m.zstd");
}

#[test]
fn a02_splits_stay_below_their_root() {
    let sandbox = Sandbox::new(&PLAIN);
    for split in ["..", "../outside", "a/../../outside", "/etc", "C:x", "a\\..\\b", "a\0b", "a//b"]
    {
        for stream in [
            Stream::local(sandbox.data()).split(split),
            Stream::cached(sandbox.data().to_str().unwrap(), sandbox.at("cache")).split(split),
        ] {
            let error = read_stream(stream).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "the split {split:?} is not a plain folder name; name a folder below the root \
                     of the dataset, such as \"val\""
                )
            );
        }
    }
    assert!(!sandbox.at("cache").exists());
    sandbox.untouched();
}

#[test]
fn a03_symbolic_links_do_not_lead_out() {
    // A file of the dataset.
    let sandbox = Sandbox::new(&PLAIN);
    let first = first_file(&sandbox.data());
    std::fs::remove_file(&first).unwrap();
    symlink(sandbox.at("outside/shard.00000.mds"), &first).unwrap();
    let shown = sandbox.data().display().to_string();
    sandbox.refused(&format!(
        "{shown}/shard.00000.mds is a symbolic link that leads out of {shown}; copy what it points \
         to into the dataset, or do not use this dataset"
    ));
    // Its index.
    let sandbox = Sandbox::new(&PLAIN);
    std::fs::remove_file(sandbox.at("data/index.json")).unwrap();
    symlink(sandbox.at("outside/index.json"), sandbox.at("data/index.json")).unwrap();
    sandbox.refused("/data/index.json is a symbolic link that leads out of ");
    // A folder of it.
    let sandbox = Sandbox::new(&PLAIN);
    symlink(sandbox.at("outside"), sandbox.at("data/sub")).unwrap();
    sandbox.edit_first(|entry| entry["raw_data"]["basename"] = "sub/shard.00000.mds".into());
    sandbox.refused("/data/sub/shard.00000.mds is a symbolic link that leads out of ");
    // A link inside the dataset is fine.
    let sandbox = Sandbox::new(&PLAIN);
    let first = first_file(&sandbox.data());
    std::fs::rename(&first, sandbox.at("data/elsewhere")).unwrap();
    symlink("elsewhere", &first).unwrap();
    for outcome in sandbox.read() {
        outcome.unwrap();
    }
    // In a cache: a file, a folder, a link to nowhere, the lock file.
    for (link, to) in [
        ("shard.00000.mds", "outside/victim.txt"),
        ("sub", "outside"),
        ("shard.00000.mds", "outside/new"),
        (".shard.00000.mds.lock", "outside/new"),
        (".shard.00000.mds.lock", "outside/victim.txt"),
        (".index.json.lock", "outside/new"),
        (".x.part", "outside/victim.txt"),
    ] {
        let sandbox = Sandbox::new(&PLAIN);
        if link == "sub" {
            std::fs::create_dir(sandbox.at("data/sub")).unwrap();
            let first = first_file(&sandbox.data());
            std::fs::rename(first, sandbox.at("data/sub/shard.00000.mds")).unwrap();
            sandbox.edit_first(|e| e["raw_data"]["basename"] = "sub/shard.00000.mds".into());
        }
        std::fs::create_dir(sandbox.at("cache")).unwrap();
        symlink(sandbox.at(to), sandbox.at("cache").join(link)).unwrap();
        let [_, cached] = sandbox.read();
        sandbox.untouched();
        match cached {
            Err(error) => {
                // Or, through a link to a folder, a shard is there already.
                let kinds = [ErrorKind::Corrupt, ErrorKind::Io, ErrorKind::AlreadyExists];
                assert!(kinds.contains(&error.kind()), "{error:?}")
            }
            // What came from the remote has taken the place of the link.
            Ok(()) => assert!(!sandbox.at("cache/shard.00000.mds").is_symlink()),
        }
    }
}

const BOMB_DECLARED: u64 = 64 << 10;
const BOMB_BYTES: usize = 96 << 20;

/// Writes a dataset whose one compressed shard unpacks to 96 MiB where 64 KiB are declared, or, if
/// it is honest, to what it declares.
fn write_bomb(dir: &Path, code: &str, honest: bool) {
    let compression: Compression = code.parse().unwrap();
    let declared = BOMB_DECLARED as usize;
    let mut raw = vec![0; declared];
    raw[..12].copy_from_slice(&[1, 0, 0, 0, 12, 0, 0, 0, 0, 0, 1, 0]);
    raw[12..16].copy_from_slice(&(declared as u32 - 16).to_le_bytes());
    if !honest {
        raw.resize(BOMB_BYTES, 0);
    }
    let zip = compression.compress(&raw).unwrap();
    assert!(honest || zip.len() < BOMB_BYTES / 20, "{code}: {}", zip.len());
    let entry = json!({
        "column_encodings": ["bytes"], "column_names": ["x"], "column_sizes": [null],
        "compression": code, "format": "mds", "hashes": [],
        "raw_data": {"basename": "s.mds", "bytes": declared, "hashes": {}},
        "samples": 1, "size_limit": null, "version": 2,
        "zip_data": {"basename": "s.mds.z", "bytes": zip.len(), "hashes": {}},
    });
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join("s.mds.z"), &zip).unwrap();
    let index = json!({"shards": [entry], "version": 2});
    std::fs::write(dir.join("index.json"), index.to_string()).unwrap();
}

#[test]
fn a04_compressed_bombs_stop_at_the_declared_size() {
    for code in ["zstd", "gz", "bz2", "br:5", "snappy"] {
        let dir = tempfile::tempdir().unwrap();
        let (bomb, honest) = (dir.path().join("bomb"), dir.path().join("honest"));
        write_bomb(&bomb, code, false);
        write_bomb(&honest, code, true);
        // Snappy says its size up front, so it is refused before a byte is unpacked.
        let words = format!(
            "the compressed file holds more than the {BOMB_DECLARED} bytes that the index \
             declares; {SHARD_REMEDY}"
        );
        let zip = std::fs::metadata(bomb.join("s.mds.z")).unwrap().len();
        for way in ["open", "stream"] {
            let child = run_child(way, &bomb);
            assert!(child.outcome.contains(&words), "{code} {way}: {}", child.outcome);
            let allowed = BOMB_DECLARED + zip + (8 << 20);
            assert!(child.grown <= allowed, "{code} {way}: {} of {allowed} bytes", child.grown);
            assert_eq!(names(&bomb), ["index.json", "s.mds.z"]);
            println!("{code} {way}: grown by {} KiB for a file of {zip} bytes", child.grown >> 10);
        }
        let (bad, good) = (run_child("verify", &bomb), run_child("verify", &honest));
        assert!(bad.outcome.contains("holds more than the 65536 bytes"), "{}", bad.outcome);
        assert!(good.outcome.contains("all good"), "{}", good.outcome);
        let allowed = good.grown + zip + (8 << 20);
        assert!(bad.grown <= allowed, "{code} verify: {} of {allowed} bytes", bad.grown);
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

struct Child {
    /// How many bytes the resident memory grew; for `verify` all that the program took.
    grown: u64,
    outcome: String,
}

/// Runs this program again for one way of reading `path`.
fn run_child(way: &str, path: &Path) -> Child {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env("MDS_ATTACK", way)
        .env("MDS_ATTACK_PATH", path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{way}: {text}{}", String::from_utf8_lossy(&output.stderr));
    let line = |name: &str| {
        let lines = text.lines().filter_map(|line| line.split_once(name));
        lines.map(|(_, rest)| rest.to_owned()).next().unwrap_or_else(|| panic!("{way}: {text}"))
    };
    Child { grown: line("GROWN ").parse().unwrap(), outcome: line("OUTCOME ") }
}

/// Does nothing unless [`run_child`] started this program.
#[test]
fn child() {
    let Ok(way) = std::env::var("MDS_ATTACK") else { return };
    let path = PathBuf::from(std::env::var_os("MDS_ATTACK_PATH").unwrap());
    if way == "verify" {
        let output =
            Command::new(env!("CARGO_BIN_EXE_mds-inspect")).arg("verify").arg(&path).output();
        let output = output.unwrap();
        let text = [output.stdout, output.stderr].concat();
        println!("\nGROWN {}", peak_of_children());
        println!("OUTCOME {}", String::from_utf8_lossy(&text).replace('\n', " "));
        return;
    }
    let input = if way == "index" { std::fs::read(&path).unwrap() } else { Vec::new() };
    // The highest mark begins anew.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS:");
    let outcome = match way.as_str() {
        "index" => Index::parse(&input).map(drop),
        "open" => read_shards(&path, ShardOptions::default()).map(drop),
        "stream" => {
            let cache = path.with_extension("cache");
            read_stream(Stream::cached(path.to_str().unwrap(), cache))
        }
        other => panic!("{other}"),
    };
    println!("\nGROWN {}", status("VmHWM:").saturating_sub(before));
    println!("OUTCOME {}", outcome.map_or_else(|e| e.to_string(), |()| "read".to_owned()));
}

/// A number of `/proc/self/status`, in bytes.
fn status(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// The highest resident memory of any child of this process.
fn peak_of_children() -> u64 {
    // SAFETY: all bits zero is a valid value, and the call fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage), 0);
        usage
    };
    (usage.ru_maxrss as u64) << 10
}

#[test]
fn a05_a_torn_shard_is_noticed_at_every_length() {
    for kind in [&PLAIN, &ZIPPED] {
        let sandbox = Sandbox::new(kind);
        let path = first_file(&sandbox.data());
        let whole = std::fs::read(&path).unwrap();
        let info = &index_of(&sandbox.data()).shards[0];
        for percent in 0..100 {
            let cut = whole.len() * percent / 100;
            std::fs::write(&path, &whole[..cut]).unwrap();
            let error = Shard::open(sandbox.data(), info, ShardOptions::default().without_hashes());
            let error = error.unwrap_err();
            let declared = whole.len() as u64;
            assert_eq!(error.damage(), Some(&Damage::FileSize { found: cut as u64, declared }));
            if percent % 20 == 0 {
                let words = format!("the file has {cut} bytes, but the index declares {declared}");
                let shown = if percent == 0 { "" } else { words.as_str() };
                sandbox.refused(shown);
            }
        }
    }
}

/// What became of one flipped bit.
#[derive(Debug, PartialEq)]
enum Flip {
    Refused,
    SameValues,
    Renamed,
    OtherValues,
}

fn flip(
    (dir, path): (&Path, &Path),
    (at, bit): (usize, u32),
    expected: &(Vec<String>, Vec<String>),
) -> Flip {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1 << bit;
    std::fs::write(path, &bytes).unwrap();
    let found = read_shards(dir, ShardOptions::default());
    bytes[at] ^= 1 << bit;
    std::fs::write(path, &bytes).unwrap();
    match found {
        Err(_) => Flip::Refused,
        Ok(found) if found == *expected => Flip::SameValues,
        Ok(found) if found.1 == expected.1 => Flip::Renamed,
        Ok(_) => Flip::OtherValues,
    }
}

#[test]
fn a06_flipped_bits_are_noticed() {
    let mut random = 1_u64;
    let mut next = move |below: usize| {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    let unhashed = support::Kind { compression: Some("zstd"), hashed: false };
    for (kind, hashed, name) in [
        (&HASHED, true, "shard, hashes"),
        (&ZIPPED, true, "zip, hashes"),
        (&PLAIN, false, "shard, no hashes"),
        (&unhashed, false, "zip, no hashes"),
    ] {
        let sandbox = Sandbox::new(kind);
        let (dir, shard) = (sandbox.data(), first_file(&sandbox.data()));
        let expected = read_shards(&dir, ShardOptions::default()).unwrap();
        let size = std::fs::metadata(&shard).unwrap().len() as usize;
        let payload =
            u32::from_le_bytes(std::fs::read(&shard).unwrap()[4..8].try_into().unwrap()) as usize;
        let mut counts = [0; 4];
        for _ in 0..1750 {
            let (at, bit) = (next(size), next(8) as u32);
            let outcome = flip((&dir, &shard), (at, bit), &expected);
            if hashed {
                assert_eq!(outcome, Flip::Refused, "{name}: byte {at}, bit {bit}");
            } else if kind.compression.is_none() && outcome == Flip::OtherValues {
                assert!(at >= payload, "{name}: byte {at} of the head changes values");
            }
            assert_ne!(outcome, Flip::Renamed);
            counts[outcome as usize] += 1;
        }
        println!("{name}: refused, same values, renamed, other values: {counts:?} of 1750");
        // The index has no hash of its own; what it says is compared with the shards.
        let index = dir.join("index.json");
        let size = std::fs::metadata(&index).unwrap().len() as usize;
        let mut counts = [0; 4];
        for _ in 0..750 {
            let (at, bit) = (next(size), next(8) as u32);
            let outcome = flip((&dir, &index), (at, bit), &expected);
            assert_ne!(outcome, Flip::OtherValues, "{name}, index: byte {at}, bit {bit}");
            counts[outcome as usize] += 1;
        }
        println!("{name}, index: refused, same values, renamed, other: {counts:?} of 750");
        sandbox.untouched();
    }
}

#[test]
fn a07_structural_lies_of_an_index_are_refused() {
    let one = |change: fn(&mut Json), words: &str| {
        let sandbox = Sandbox::new(&PLAIN);
        sandbox.edit(change);
        sandbox.refused(words);
    };
    let first = "shard shard.00000.mds: ";
    one(|i| i["version"] = 3.into(), "the index has version 3, but only version 2 is supported");
    one(
        |i| i["shards"][0]["version"] = 1.into(),
        "the entry of the shard has version 1, but only version 2 is supported",
    );
    one(
        |i| i["shards"][1] = i["shards"][0].clone(),
        "the index lists the file shard.00000.mds twice; fetch index.json again",
    );
    one(
        |i| i["shards"][0]["samples"] = 4_294_967_295_u32.into(),
        &format!("{first}a file of 999 bytes cannot hold 4294967295 samples; {INDEX_REMEDY}")
            .replace("999", &first_size().to_string()),
    );
    one(
        |i| i["shards"][0]["samples"] = 4_294_967_296_u64.into(),
        &format!("{first}the shard cannot hold 4294967296 samples; {INDEX_REMEDY}"),
    );
    one(
        |i| i["shards"][0]["raw_data"]["bytes"] = u64::MAX.into(),
        &format!(
            "{first}the index declares a raw size of 18446744073709551615 bytes, more than any \
             shard can have"
        ),
    );
    one(
        |i| i["shards"][0]["samples"] = 3.into(),
        &format!("the shard holds {} samples, but the index declares 3", first_count()),
    );
    one(
        |i| i["shards"][0]["column_sizes"][0] = u32::MAX.into(),
        "the index declares the size 4294967295, but the encoding int has 8",
    );
    one(
        |i| i["shards"][0]["column_sizes"][0] = (1_u64 << 32).into(),
        "the index is empty or damaged: invalid value: integer `4294967296`, expected u32 at line",
    );
    one(
        |i| i["shards"][0]["column_encodings"][2] = "ndarray:int32:4294967295,4294967295".into(),
        "makes values of 4 GiB or more",
    );
    for length in [0, 1, 100] {
        let sandbox = Sandbox::new(&PLAIN);
        let path = sandbox.at("data/index.json");
        let text = std::fs::read(&path).unwrap();
        std::fs::write(&path, &text[..length]).unwrap();
        sandbox.refused("the index is empty or damaged: EOF while parsing");
    }
}

fn first_size() -> u64 {
    index_of(&Sandbox::new(&PLAIN).data()).shards[0].raw_data.bytes
}

fn first_count() -> u64 {
    index_of(&Sandbox::new(&PLAIN).data()).shards[0].samples
}

/// A change to the head of the first shard, and what reading it then says.
fn structural(change: fn(&mut [u8]), words: &str) {
    let sandbox = Sandbox::new(&PLAIN);
    let path = first_file(&sandbox.data());
    let mut bytes = std::fs::read(&path).unwrap();
    change(&mut bytes);
    std::fs::write(&path, &bytes).unwrap();
    sandbox.refused(words);
    let child = run_child("open", &sandbox.data());
    let allowed = bytes.len() as u64 + (16 << 20);
    assert!(child.grown <= allowed, "{words}: {} bytes", child.grown);
}

#[test]
fn a08_structural_lies_of_a_shard_are_refused_without_memory() {
    fn put(bytes: &mut [u8], at: usize, number: u32) {
        bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
    }
    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }
    structural(
        |b| put(b, 0, u32::MAX),
        "byte 0: the shard holds 4294967295 samples, but the index declares ",
    );
    structural(|b| put(b, 4, 3), "byte 4: the first sample begins at byte 3, inside the table");
    structural(|b| put(b, 8, word(b, 4) - 1), "sample 0, byte 8: the sample ends at byte ");
    structural(|b| put(b, 12, u32::MAX), "sample 2, byte 16: the sample ends at byte ");
    structural(
        |b| put(b, 4 * (word(b, 0) as usize + 1), u32::MAX),
        "the samples end at byte 4294967295, but the shard has ",
    );
    structural(
        |b| put(b, word(b, 4) as usize, u32::MAX),
        "sample 0, byte 16, column text: the value takes 4294967295 bytes, but only ",
    );
    // The array is the last value of the first sample: shape (2^62, 2^62) of eight-byte dimensions.
    structural(
        |b| {
            let end = word(b, 8) as usize;
            b[end - 18] = 2 << 2 | 3;
            b[end - 17..end - 1].copy_from_slice(&[0x40; 16]);
        },
        "column tokens: a int32 array of shape [4629771061636907072, 4629771061636907072] has 1 \
         bytes of data",
    );
}

#[test]
fn a09_pickles_are_refused_before_any_shard_is_looked_for() {
    let sandbox = Sandbox::new(&PLAIN);
    sandbox.edit_first(|entry| entry["column_encodings"][1] = "pkl".into());
    for name in names(&sandbox.data()).iter().filter(|name| *name != "index.json") {
        std::fs::remove_file(sandbox.data().join(name)).unwrap();
    }
    sandbox.refused(
        "the encoding \"pkl\" is refused: loading a Python pickle can run any code; store such \
         values in a `bytes` column",
    );
    let [local, _] = sandbox.read();
    assert_eq!(local.unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn a10_bombs_of_json_take_bounded_time_and_memory() {
    let dir = tempfile::tempdir().unwrap();
    let entry = |name: String| {
        let text = serde_json::to_string(&name).unwrap();
        format!(
            r#"{{"shards": [{{"column_encodings": ["int"], "column_names": ["x"], "column_sizes": [8], "compression": null, "format": "mds", "hashes": [], "raw_data": {{"basename": {text}, "bytes": 100, "hashes": {{}}}}, "samples": 1, "size_limit": null, "version": 2, "zip_data": null}}], "version": 2}}"#
        )
    };
    let wide = |columns: usize| {
        let list =
            |item: &dyn Fn(usize) -> String| (0..columns).map(item).collect::<Vec<_>>().join(", ");
        entry("shard.00000.mds".to_owned())
            .replace(r#"["int"]"#, &format!("[{}]", list(&|_| r#""int""#.to_owned())))
            .replace(r#"["x"]"#, &format!("[{}]", list(&|i| format!("\"{i}\""))))
            .replace("[8]", &format!("[{}]", list(&|_| "8".to_owned())))
    };
    // The text, what comes of it, and the bytes that may be taken for each of its own.
    let cases = [
        (entry("x".repeat(100 << 20)), " is too long; do not use", 5),
        (format!("{{\"shards\": {:?}}}", "x".repeat(100 << 20)), "expected a sequence at line", 5),
        (
            format!("{{\"version\": {}", "[".repeat(100_000)),
            "the index is empty or damaged: EOF while parsing a list at line 1 column 100012",
            8,
        ),
        (format!("{{\"any\": {}", "[".repeat(10_000_000)), "the index is empty or damaged: ", 8),
        (
            format!("{{\"version\": 2, \"shards\": [{}{{}}]}}", "{},".repeat(10_000_000)),
            "shard 0: the entry of the shard has version null, but only version 2",
            1,
        ),
        (wide(1_000_000), "read", 25),
        (
            wide(10_000_000),
            "shard 0: the shard has 10000000 columns, more than the 1048576 that there may be",
            2,
        ),
    ];
    for (number, (text, words, factor)) in cases.into_iter().enumerate() {
        let path = dir.path().join("bomb.json");
        std::fs::write(&path, &text).unwrap();
        let began = Instant::now();
        let child = run_child("index", &path);
        println!(
            "bomb {number}: {} bytes, grown by {} bytes, {:?}",
            text.len(),
            child.grown,
            began.elapsed()
        );
        let outcome = &child.outcome;
        assert!(outcome.contains(words), "{number}: {:.300}", outcome);
        assert!(outcome.len() < 20_000, "{number}: a message of {} bytes", outcome.len());
        assert!(began.elapsed() < LIMIT, "{number}: {:?}", began.elapsed());
        let allowed = factor * text.len() as u64 + (8 << 20);
        assert!(child.grown <= allowed, "{number}: {} of {allowed} bytes", child.grown);
    }
}

#[test]
fn a11_separators_that_divide_nothing_are_refused() {
    let long = "x".repeat(1 << 20);
    for (separator, newline) in
        [("", "\n"), ("::", ""), ("\n", "\n"), ("a\nb", "\n"), (",", "\r,\n"), ("", "")]
    {
        let sandbox = Sandbox::new(&PLAIN);
        sandbox.edit_first(|entry| {
            make_csv(entry);
            entry["format"] = "xsv".into();
            entry["separator"] = separator.into();
            entry["newline"] = newline.into();
            entry["zip_meta"] = Json::Null;
        });
        sandbox.refused(&format!(
            "the separator {separator:?} and the line end {newline:?} cannot divide a text; \
             {INDEX_REMEDY}"
        ));
    }
    // A long one is fine, and its message is short.
    let sandbox = Sandbox::new(&PLAIN);
    sandbox.edit_first(|entry| {
        make_csv(entry);
        entry["newline"] = long.into();
        entry["zip_meta"] = Json::Null;
    });
    for outcome in sandbox.read() {
        assert!(outcome.unwrap_err().to_string().len() < 10_000);
    }
    sandbox.untouched();
}

#[test]
fn a12_images_that_declare_too_much_are_refused() {
    let mut png =
        b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\x7f\xff\xff\xff\x7f\xff\xff\xff\x08\x06\0\0\0".to_vec();
    png.extend_from_slice(&[0x40, 0xe4, 0xbc, 0x2f, 0, 0, 0, 0]);
    png.extend_from_slice(b"IDAT\x35\xaf\x06\x1e\0\0\0\0IEND\xaeB`\x82");
    let fault = ImageFile::new(ImageFormat::Png, png).unwrap().decode().unwrap_err();
    assert!(matches!(fault, ImageFault::TooLarge { .. } | ImageFault::Decode { .. }), "{fault}");
    let head = b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03\x01\x11\0\x02\x11\0\x03\x11\0";
    let scan = b"\xff\xda\0\x0c\x03\x01\0\x02\0\x03\0\0\x3f\0";
    let jpeg = [&head[..], scan].concat();
    let fault = ImageFile::new(ImageFormat::Jpeg, jpeg).unwrap().decode().unwrap_err();
    assert_eq!(
        fault.to_string(),
        "decoding 65535 x 65535 pixels takes 12884508675 bytes, more than the limit of 1073741824"
    );
    // Each scan goes over all pixels, for fourteen bytes.
    let small = b"\xff\xd8\xff\xc2\0\x11\x08\x20\0\x20\0\x03\x01\x11\0\x02\x11\0\x03\x11\0";
    let jpeg = [&small[..], &scan.repeat(501)].concat();
    let fault = ImageFile::new(ImageFormat::Jpeg, jpeg).unwrap().decode().unwrap_err();
    assert_eq!(fault.to_string(), "the JPEG file has 501 scans, more than the limit of 500");
}

#[test]
fn a13_pipes_and_folders_are_no_shards() {
    for (way, name) in [("pipe", None), ("folder", None), ("pipe", Some("index.json"))] {
        let sandbox = Sandbox::new(&PLAIN);
        let path = name.map_or(first_file(&sandbox.data()), |name| sandbox.data().join(name));
        std::fs::remove_file(&path).unwrap();
        put_special(way, &path);
        let words = format!(
            "{}: it is not a regular file; remove it, or put the file there that belongs there",
            path.display()
        );
        sandbox.refused(&words);
        if name.is_none() {
            let info = index_of(&sandbox.at("outside")).shards[0].clone();
            for options in [ShardOptions::default(), ShardOptions::default().copied()] {
                let dir = sandbox.data();
                let info = info.clone();
                let error = within(LIMIT, move || Shard::open(dir, &info, options)).unwrap_err();
                assert_eq!(
                    error.to_string(),
                    format!("shard shard.00000.mds: cannot read {words}")
                );
                assert_eq!(error.damage(), Some(&Damage::NotAFile));
            }
        }
        let verify = Command::new("timeout")
            .args(["20", env!("CARGO_BIN_EXE_mds-inspect"), "verify"])
            .arg(sandbox.data())
            .output();
        assert_eq!(verify.unwrap().status.code(), Some(1), "{way}");
    }
    // In a cache a pipe gives way to the file, at every name that a reader opens.
    for name in ["shard.00000.mds", ".x.part", ".x.lock", "index.json"] {
        let sandbox = Sandbox::new(&HASHED);
        std::fs::create_dir(sandbox.at("cache")).unwrap();
        put_special("pipe", &sandbox.at("cache").join(name));
        let [_, cached] = sandbox.read();
        match name {
            "index.json" => assert_eq!(cached.unwrap_err().kind(), ErrorKind::Corrupt),
            _ => cached.unwrap(),
        }
    }
    // A compressed file too.
    let sandbox = Sandbox::new(&ZIPPED);
    let path = first_file(&sandbox.data());
    std::fs::remove_file(&path).unwrap();
    put_special("pipe", &path);
    sandbox.refused(": it is not a regular file; ");
}

fn put_special(way: &str, path: &Path) {
    let command = if way == "pipe" { "mkfifo" } else { "mkdir" };
    assert!(Command::new(command).arg(path).status().unwrap().success());
}

#[test]
fn a14_chains_of_empty_members_take_bounded_time() {
    let some = Compression::Bz2(None).compress(b"").unwrap().repeat(900);
    assert_eq!(Compression::Bz2(None).decompress(&some, 0).unwrap(), b"");
    for (code, count) in [("gz", 1_000_000), ("bz2", 100_000), ("zstd", 1_000_000)] {
        let compression: Compression = code.parse().unwrap();
        let empty = compression.compress(b"").unwrap();
        let zip = empty.repeat(count);
        let began = Instant::now();
        let error = within(LIMIT, move || compression.decompress(&zip, 5)).unwrap_err();
        println!("{count} empty members of {code}: {:?}", began.elapsed());
        let damage = match code {
            "bz2" => Damage::NotValidZip { compression: "bz2" },
            _ => Damage::ZipHoldsLess { found: 0, declared: 5 },
        };
        assert_eq!(error.damage(), Some(&damage));
        assert!(began.elapsed() < Duration::from_secs(10), "{code}: {:?}", began.elapsed());
    }
}

#[test]
fn a15_unknown_hashes_are_refused_in_the_list_and_passed_over_at_a_file() {
    let sandbox = Sandbox::new(&HASHED);
    sandbox.edit_first(|entry| entry["hashes"] = json!(["crc99"]));
    sandbox.refused("there is no hash \"crc99\"; use one of blake2b, ");
    // A file may have more digests than are known; those that are known still count.
    let sandbox = Sandbox::new(&HASHED);
    sandbox.edit_first(|entry| entry["raw_data"]["hashes"]["crc99"] = "00".into());
    for outcome in sandbox.read() {
        outcome.unwrap();
    }
    std::fs::remove_dir_all(sandbox.at("cache")).unwrap();
    let path = first_file(&sandbox.data());
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    sandbox.refused("the xxh64 of the file is ");
}

#[test]
fn a16_numbers_of_values_that_are_all_pairs_of_keys_take_no_days() {
    use mds::format::{Encoding, Format, Schema};
    let names: Vec<String> = (0..30_000).map(|i| format!("c{i}")).collect();
    let schema = Schema::new(names.iter().map(|name| (name.clone(), Encoding::Int))).unwrap();
    let values: Vec<Value<'_>> = (0..30_000).map(Value::Int).collect();
    let mut line = Vec::new();
    Format::JSON.encode_sample(&schema, &values, &mut line).unwrap();
    let began = Instant::now();
    assert_eq!(Format::JSON.decode_sample(&schema, &line).unwrap(), values);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}
