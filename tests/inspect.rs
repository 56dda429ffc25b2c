//! `mds-inspect` as a user runs it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/inspect.rs"]
mod program;
mod support;

use std::path::{Path, PathBuf};

use mds::format::image::{Image, ImageFile, ImageFormat, ImageMode};
use mds::format::{Encoding, Format, HashAlgorithm, Schema, ShardFile, ShardInfo, Value};
use mds::{Shard, ShardOptions, Writer, WriterOptions};
use program::{inspect, path};
use support::{HASHED, Kind, PLAIN, Server, ZIPPED, files, text, write};

#[test]
fn a_root_and_a_split_are_streamed_alike() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("c4");
    let index = write(&root.join("val"), 50, &PLAIN);
    write(&root.join("train"), 7, &PLAIN);
    let before = files(&root);

    let from_root = inspect(&[path(&root)]).succeeds();
    let from_split = inspect(&[path(&root.join("val"))]).succeeds();
    let without_rate = |out: &str| {
        let (head, rate) = out.split_once("\nread ").unwrap();
        assert!(rate.starts_with("50 samples in 25 batches ("), "{rate}");
        assert!(rate.contains(" samples/s, ") && rate.ends_with(" MB/s\n"), "{rate}");
        head.to_owned()
    };
    assert_eq!(without_rate(&from_root), without_rate(&from_split));
    let shards = index.shards.len();
    let head = format!("{}/val: 50 samples in {shards} shards\n\nBatch 0\n", root.display());
    assert!(from_root.starts_with(&head), "{from_root}");
    for expected in [
        "  id           [2]          int64\n",
        "  text         [2]          str\n",
        "  tokens       [2, 4]       int32\n",
        "  ---- sample 1 ----\n  id: 1\n  text: This is sample number 1.\n  tokens: [1, 2, 3, 4]\n",
        "\nBatch 4\n",
    ] {
        assert!(from_root.contains(expected), "{expected:?} is not in\n{from_root}");
    }
    assert!(!from_root.contains("Batch 5"), "five batches are printed, the others counted");
    let train = inspect(&[path(&root), "--split", "train"]).succeeds();
    assert!(train.contains("read 7 samples in 4 batches"), "{train}");
    assert_eq!(files(&root), before, "read in place");
}

#[test]
fn flags_bound_and_shuffle_the_stream() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 50, &PLAIN);
    let few = ["--batch_size", "3", "--num_batches", "2", "--print_batches", "1", "--shuffle"];
    let out = inspect(&[&[path(dir.path())], &few[..]].concat()).succeeds();
    assert!(out.contains("  tokens       [3, 4]       int32\n"), "{out}");
    assert!(out.contains("read 6 samples in 2 batches"), "{out}");
    assert!(!out.contains("Batch 1") && !out.contains("-- sample 1 --"), "in order:\n{out}");
    let hyphens: Vec<String> = few.iter().map(|flag| flag.replace('_', "-")).collect();
    let mut args = vec![path(dir.path())];
    args.extend(hyphens.iter().map(String::as_str));
    let again = inspect(&args).succeeds();
    let head = |out: &str| out.split("\nread ").next().unwrap().to_owned();
    assert_eq!(head(&again), head(&out), "hyphens work too, and the shuffle is the same");
}

#[test]
fn a_local_folder_becomes_a_copy() {
    let dir = tempfile::tempdir().unwrap();
    let (root, local) = (dir.path().join("c4"), dir.path().join("copy"));
    write(&root.join("val"), 50, &HASHED);
    inspect(&[path(&root), path(&local)]).succeeds();
    assert_eq!(files(&local), files(&root));
    // The split's own folder goes to the folder itself; equal folders are read in place.
    let split = dir.path().join("split");
    inspect(&[path(&root.join("val")), path(&split)]).succeeds();
    assert_eq!(files(&split), files(&root.join("val")));
    inspect(&[path(&root), path(&root)]).succeeds();
    assert_eq!(files(&local), files(&root));
}

#[test]
fn remotes_are_streamed_over_http_and_s3() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("bucket/c4/val"), 30, &ZIPPED);
    let server = Server::start(dir.path());
    let caches = dir.path().join("caches");
    let of_user = |args: &[&str]| inspect(args).env("MDS_CACHE_DIR", path(&caches));
    let http = of_user(&[&server.url("bucket/c4")]).succeeds();
    assert!(http.contains("read 30 samples in 15 batches"), "{http}");
    assert!(http.contains(", found 0 in the cache, evicted 0; waited "), "{http}");
    let again = of_user(&[&server.url("bucket/c4")]).succeeds();
    assert!(!again.contains("fetched"), "nothing is fetched twice: {again}");

    let local = dir.path().join("cache");
    let s3 = |args: &[&str]| {
        inspect(args)
            .env("AWS_ENDPOINT_URL", server.url("").trim_end_matches('/'))
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_ACCESS_KEY_ID", "name")
            .env("AWS_SECRET_ACCESS_KEY", "topsecret")
            .env("AWS_REGION", "us-east-1")
    };
    let out = s3(&["s3://bucket/c4", path(&local)]).succeeds();
    assert!(out.starts_with("s3://bucket/c4/val: 30 samples"), "{out}");
    assert!(local.join("val/shard.00000.mds").exists());
    let error = s3(&["s3://bucket/none"]).fails();
    assert_eq!(
        error,
        "mds-inspect: there is no dataset: neither s3://bucket/none/index.json nor \
         s3://bucket/none/val/index.json exists; check the address, and the split if there is one"
    );
    let traced = s3(&["s3://bucket/none"]).env("RUST_LOG", "trace").output();
    assert!(!traced.err.contains("topsecret"), "{}", traced.err);
}

#[test]
fn info_describes_a_dataset_in_either_order_of_words() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("c4");
    let index = write(&root.join("val"), 50, &ZIPPED);
    let out = inspect(&["info", path(&root)]).succeeds();
    let raw: u64 = index.shards.iter().map(|shard| shard.raw_data.bytes).sum();
    for expected in [
        format!("dataset      {}/val\n", root.display()),
        "samples      50\n".to_owned(),
        format!("shards       {}, the largest of ", index.shards.len()),
        format!("raw          {raw} bytes ("),
        "compression  zstd\n".to_owned(),
        "hashes       sha1, xxh64\n".to_owned(),
        format!("fingerprint  {}\n", index.fingerprint()),
        "columns\n  id           int\n  text         str\n  tokens       ndarray:int32\n"
            .to_owned(),
        format!(
            "  shard.00000.mds.zstd  {} samples, {} bytes\n",
            index.shards[0].samples,
            index.shards[0].stored().bytes
        ),
    ] {
        assert!(out.contains(&expected), "{expected:?} is not in\n{out}");
    }
    assert_eq!(inspect(&[path(&root), "info"]).succeeds(), out);
    assert_eq!(inspect(&["info", path(&root.join("val"))]).succeeds(), out);
}

#[test]
fn a_dataset_called_like_a_subcommand_is_reached_as_a_path() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("info"), 4, &PLAIN);
    let mut run = inspect(&["./info"]);
    run.0.current_dir(dir.path());
    assert!(run.succeeds().contains("read 4 samples in 2 batches"));
    let mut run = inspect(&["info"]);
    run.0.current_dir(dir.path());
    let output = run.output();
    assert_eq!(output.code, 2);
    assert!(output.err.contains("info needs a dataset: give its REMOTE"), "{}", output.err);
}

#[test]
fn sample_prints_all_columns_and_cuts_long_ones() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 50, &PLAIN);
    let out = inspect(&["sample", path(dir.path()), "17"]).succeeds();
    assert_eq!(
        out,
        format!(
            "sample 17 of 50 ({} bytes)\nid (int): 17\ntext (str, 25 characters): {}\n\
             tokens (ndarray:int32, shape [4]): [17, 2, 3, 4]\n",
            8 + 4 + 25 + 4 + 2 + 16,
            text(17)
        )
    );
    assert_eq!(inspect(&["sample", "17", path(dir.path())]).succeeds(), out);
    assert_eq!(inspect(&[path(dir.path()), "sample", "17"]).succeeds(), out);
    assert_eq!(
        inspect(&["sample", path(dir.path()), "50"]).fails(),
        format!(
            "mds-inspect: dataset {}: there is no sample 50; \
             the dataset has 50 samples, numbered from 0",
            dir.path().display()
        )
    );
    assert_eq!(
        inspect(&["sample", path(dir.path()), "99999999999999999999"]).fails(),
        format!(
            "mds-inspect: dataset {}: there is no sample 99999999999999999999; \
             the dataset has 50 samples, numbered from 0",
            dir.path().display()
        )
    );
    let none = inspect(&["sample", path(dir.path()), "-1"]).output();
    assert_eq!(none.code, 2, "{}", none.err);

    let long = tempfile::tempdir().unwrap();
    let dir = long.path().join("long");
    let schema = Schema::new([("text", Encoding::Str)]).unwrap();
    let mut writer = Writer::create(&dir, schema, WriterOptions::default()).unwrap();
    let words = "word ".repeat(1000);
    writer.write(&[words.as_str().into()]).unwrap();
    writer.finish().unwrap();
    let cut = inspect(&["sample", path(&dir), "0"]).succeeds();
    assert!(cut.ends_with("word ... (4600 characters more; --full prints them)\n"), "{cut}");
    let full = inspect(&["sample", path(&dir), "0", "--full"]).succeeds();
    assert!(full.ends_with(&format!("characters): {words}\n")), "{full}");
}

#[test]
fn verify_names_every_bad_shard() {
    let dir = tempfile::tempdir().unwrap();
    for (name, kind) in [("plain", PLAIN), ("hashed", HASHED), ("zipped", ZIPPED)] {
        let root = dir.path().join(name);
        let index = write(&root, 60, &kind);
        let shards = index.shards.len();
        let out = inspect(&["verify", path(&root)]).succeeds();
        assert_eq!(out.lines().filter(|line| line.starts_with("ok   shard.")).count(), shards);
        assert!(out.contains(&format!("verified {shards} shards, 60 samples, ")), "{out}");
        assert_eq!(out.contains("no hashes"), !kind.hashed, "{out}");

        let file = |shard: usize| root.join(index.shards[shard].stored().basename.as_str());
        let mut bytes = std::fs::read(file(0)).unwrap();
        bytes.truncate(bytes.len() - 9);
        std::fs::write(file(0), &bytes).unwrap();
        std::fs::remove_file(file(2)).unwrap();
        let output = inspect(&[path(&root), "verify"]).output();
        assert_eq!(output.code, 1);
        assert_eq!(output.out.lines().filter(|line| line.starts_with("BAD  ")).count(), 2);
        assert_eq!(output.out.lines().filter(|line| line.starts_with("ok ")).count(), shards - 2);
        assert_eq!(
            output.err,
            format!(
                "mds-inspect: dataset {}: 2 of {shards} shards damaged, missing or unreadable: {}, {}; \
                 the lines above say what to do\n",
                root.display(),
                index.shards[0].stored().basename,
                index.shards[2].stored().basename
            )
        );
    }
}

#[cfg(unix)]
#[test]
fn a_file_in_the_place_of_a_folder_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let dataset = dir.path().join("dataset");
    write(&dataset, 3, &PLAIN);
    let index = dataset.join("index.json");
    let not_a_folder = "check the path (Not a directory (os error 20))\n";
    let output = inspect(&["info", path(&index)]).output();
    assert_eq!(output.code, 1);
    let inside = index.join("index.json");
    assert_eq!(
        output.err,
        format!("mds-inspect: cannot read {}; {not_a_folder}", inside.display())
    );
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let output = inspect(&["convert", path(&dataset), path(&file)]).output();
    assert_eq!(output.code, 1);
    assert!(output.err.ends_with(not_a_folder), "{}", output.err);
}

#[test]
fn verify_decodes_images() {
    let dir = tempfile::tempdir().unwrap();
    let write_png = |name: &str, value: Value<'_>| {
        let schema = Schema::new([("x", "png".parse().unwrap())]).unwrap();
        let mut writer =
            Writer::create(dir.path().join(name), schema, WriterOptions::default()).unwrap();
        writer.write(&[value]).unwrap();
        let index = writer.finish().unwrap();
        Shard::open(dir.path().join(name), &index.shards[0], ShardOptions::default()).unwrap()
    };
    let pixels: Vec<u8> = (0..=255).collect();
    let image = Image::new(16, 16, ImageMode::L, pixels).unwrap();
    let shard = write_png("whole", Value::Image(image));
    let out = inspect(&["verify", path(&dir.path().join("whole"))]).succeeds();
    assert!(out.contains("all good"), "{out}");

    let png = shard.sample(0).unwrap().bytes("x").unwrap();
    let cut = ImageFile::new(ImageFormat::Png, &png[..50]).unwrap();
    write_png("cut", Value::ImageFile(cut));
    let output = inspect(&["verify", path(&dir.path().join("cut"))]).output();
    assert_eq!(output.code, 1);
    let expected = "BAD  shard shard.00000.mds, sample 0, byte 4, column x: the PNG file is truncated: its \
                    image goes on after its 50 bytes; fetch the shard again, or write it again from \
                    its source\n";
    assert!(output.out.contains(expected), "{}", output.out);
}

/// Of a compressed dataset a cache keeps the raw files.
#[test]
fn the_cache_of_a_compressed_dataset_is_verified_and_converted() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let index = write(&at("zipped"), 30, &ZIPPED);
    inspect(&[path(&at("zipped")), path(&at("cache"))]).succeeds();
    let shard = &index.shards[0];
    assert!(!shard.stored().basename.join_to(&at("cache")).exists());
    assert!(inspect(&["verify", path(&at("cache"))]).succeeds().contains("all good"));
    inspect(&["convert", path(&at("cache")), path(&at("again"))]).succeeds();
    assert_eq!(files(&at("again")), files(&at("zipped")));
    Shard::open(at("cache"), shard, ShardOptions::default()).unwrap();

    let raw = shard.raw_data.basename.join_to(&at("cache"));
    let mut bytes = std::fs::read(&raw).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&raw, bytes).unwrap();
    let output = inspect(&["verify", path(&at("cache"))]).output();
    assert!(output.out.starts_with("BAD  shard shard.00000.mds"), "{}", output.out);
    assert!(output.out.contains("of the file is"), "{}", output.out);
    std::fs::remove_file(&raw).unwrap();
    let error = Shard::open(at("cache"), shard, ShardOptions::default()).unwrap_err();
    assert_eq!(error.kind(), mds::ErrorKind::NotFound);
    assert!(error.to_string().contains("shard.00000.mds.zstd"), "{error}");
}

/// Puts a raw file beside the compressed one that it is unpacked from, as `keep_zip` of the reference
/// does, and returns its path.
fn unpack(dir: &Path, info: &ShardInfo, file: ShardFile<'_>) -> PathBuf {
    let zip = std::fs::read(file.stored().basename.join_to(dir)).unwrap();
    let raw = info.compression.unwrap().decompress(&zip, file.raw.bytes).unwrap();
    let path = file.raw.basename.join_to(dir);
    std::fs::write(&path, raw).unwrap();
    path
}

/// Another text of the same length in sample 1, so that sizes and offsets stay right.
fn change_sample_1(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let text = text(1).into_bytes();
    let at = bytes.windows(text.len()).position(|window| window == text).unwrap();
    bytes[at..at + 4].copy_from_slice(b"That");
    std::fs::write(file, bytes).unwrap();
}

const CHANGED: &str = "That is sample number 1.";

#[test]
fn a_raw_file_beside_its_compressed_one_is_what_all_commands_read() {
    let dir = tempfile::tempdir().unwrap();
    let (root, out) = (dir.path().join("data"), dir.path().join("out"));
    let index = write(&root, 30, &Kind { compression: Some("zstd"), hashed: false });
    let (first, zip) = (&index.shards[0], root.join("shard.00000.mds.zstd"));
    let raw = unpack(&root, first, first.data());
    assert!(inspect(&["verify", path(&root)]).succeeds().contains("all good"));

    change_sample_1(&raw);
    assert!(inspect(&["sample", path(&root), "1"]).succeeds().contains(CHANGED));
    assert!(inspect(&[path(&root)]).succeeds().contains(CHANGED));
    inspect(&["convert", path(&root), path(&out)]).succeeds();
    assert!(inspect(&["sample", path(&out), "1"]).succeeds().contains(CHANGED));
    let shard = Shard::open(&root, first, ShardOptions::default()).unwrap();
    assert_eq!(shard.sample(1).unwrap().str("text").unwrap(), CHANGED);
    let output = inspect(&["verify", path(&root)]).output();
    assert_eq!(output.code, 1);
    let expected = format!(
        "BAD  shard shard.00000.mds: {} is what is read, but it is not what {} unpacks to; remove the \
         one that is wrong or write the dataset again\n",
        raw.display(),
        zip.display()
    );
    assert!(output.out.starts_with(&expected), "{}", output.out);

    // What lies unread beside a good file is told, too.
    unpack(&root, first, first.data());
    let bytes = std::fs::read(&zip).unwrap();
    std::fs::write(&zip, &bytes[..bytes.len() - 1]).unwrap();
    assert!(inspect(&["sample", path(&root), "1"]).succeeds().contains(&text(1)));
    let output = inspect(&["verify", path(&root)]).output();
    assert_eq!(output.code, 1);
    let expected = format!(
        "BAD  shard shard.00000.mds.zstd: the file has {} bytes, but the index declares {}; fetch the \
         shard again, or write it again from its source\n",
        bytes.len() - 1,
        bytes.len()
    );
    assert!(output.out.starts_with(&expected), "{}", output.out);
}

#[test]
fn a_damaged_raw_file_beside_a_good_compressed_one_is_refused_by_all_commands() {
    let dir = tempfile::tempdir().unwrap();
    let (root, out) = (dir.path().join("data"), dir.path().join("out"));
    let index = write(&root, 30, &ZIPPED);
    let first = &index.shards[0];
    let raw = unpack(&root, first, first.data());
    let good = std::fs::read(&raw).unwrap();
    let declared = &first.raw_data;
    let refused = |verified: &str, sampled: &str| {
        let output = inspect(&["verify", path(&root)]).output();
        assert_eq!(output.code, 1);
        let line = output.out.lines().next().unwrap();
        assert_eq!(line, format!("BAD  {verified}"));
        let at = format!("mds-inspect: dataset {}, shard shard.00000.mds: ", root.display());
        let sampled = format!(
            "{at}{} is damaged: {sampled}; remove the file, so that it is fetched again, or write the \
             dataset again",
            raw.display()
        );
        assert_eq!(inspect(&["sample", path(&root), "1"]).fails(), sampled);
        let output = inspect(&[path(&root)]).output();
        assert_eq!((output.code, output.err.trim_end()), (1, sampled.as_str()));
        let output = inspect(&["convert", path(&root), path(&out)]).output();
        assert_eq!(output.code, 1);
        let (_, what) = verified.split_once(": ").unwrap();
        assert_eq!(output.err.trim_end(), format!("{at}{what}"));
    };
    const REMEDY: &str = "fetch the shard again, or write it again from its source";

    change_sample_1(&raw);
    let bytes = std::fs::read(&raw).unwrap();
    let differs = |hash: HashAlgorithm| {
        let (name, found) = (hash.to_string(), hash.hex(&bytes));
        let declared = &declared.hashes[&name];
        format!("the {name} of the file is {found}, but the index declares {declared}")
    };
    refused(
        &format!("shard shard.00000.mds: {}; {REMEDY}", differs(HashAlgorithm::Sha1)),
        &differs(HashAlgorithm::Xxh64),
    );

    let differs = |found: usize| {
        format!("the file has {found} bytes, but the index declares {}", declared.bytes)
    };
    std::fs::write(&raw, &good[..good.len() - 1]).unwrap();
    let shorter = differs(good.len() - 1);
    refused(&format!("shard shard.00000.mds: {shorter}; {REMEDY}"), &shorter);

    std::fs::write(&raw, [good.as_slice(), b"+"].concat()).unwrap();
    refused(
        &format!(
            "shard shard.00000.mds: {} is longer than the {} bytes it may have; check that the remote \
             holds the dataset that its index.json describes",
            raw.display(),
            declared.bytes
        ),
        &differs(good.len() + 1),
    );
}

/// Each file of a shard with two is looked for on its own.
#[test]
fn one_raw_and_one_compressed_file_of_a_shard_are_read_together() {
    for is_data_raw in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let (root, out) = (dir.path().join("data"), dir.path().join("out"));
        let options = WriterOptions {
            format: Format::CSV,
            compression: Some("gz".parse().unwrap()),
            hashes: vec![HashAlgorithm::Xxh64],
            ..WriterOptions::default()
        };
        let schema = Schema::new([("text", Encoding::Str)]).unwrap();
        let mut writer = Writer::create(&root, schema, options).unwrap();
        (0..5).for_each(|id| writer.write(&[text(id).as_str().into()]).unwrap());
        let index = writer.finish().unwrap();
        let info = &index.shards[0];
        let file = if is_data_raw { info.data() } else { info.meta().unwrap() };
        let raw = unpack(&root, info, file);
        std::fs::remove_file(file.stored().basename.join_to(&root)).unwrap();
        let before = files(&root);

        assert!(inspect(&["verify", path(&root)]).succeeds().contains("all good"));
        assert!(inspect(&["sample", path(&root), "1"]).succeeds().contains(&text(1)));
        assert!(inspect(&[path(&root)]).succeeds().contains(&text(1)));
        inspect(&["convert", path(&root), path(&out)]).succeeds();
        assert!(inspect(&["sample", path(&out), "1"]).succeeds().contains(&text(1)));
        assert_eq!(files(&root), before, "nothing was written or removed");

        let bytes = std::fs::read(&raw).unwrap();
        std::fs::write(&raw, &bytes[1..]).unwrap();
        assert_eq!(
            inspect(&["sample", path(&root), "1"]).fails(),
            format!(
                "mds-inspect: dataset {}, shard {}: {} is damaged: the file has {} bytes, but the \
                 index declares {}; remove the file, so that it is fetched again, or write the dataset \
                 again",
                root.display(),
                file.raw.basename,
                raw.display(),
                bytes.len() - 1,
                bytes.len()
            )
        );
        assert!(raw.exists(), "a dataset's own file is left as it is");
        std::fs::remove_file(&raw).unwrap();
        let message = inspect(&["sample", path(&root), "1"]).fails();
        assert_eq!(
            message,
            format!(
                "mds-inspect: dataset {}, shard {}: {} does not exist, although index.json lists it; \
                 copy the file there or write the dataset again",
                root.display(),
                info.raw_data.basename,
                file.stored().basename.join_to(&root).display()
            )
        );
    }
}

#[test]
fn verify_finds_a_changed_bit_and_a_wrong_offset() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("hashed"), 30, &HASHED);
    write(&dir.path().join("plain"), 30, &PLAIN);
    let change = |name: &str, byte: usize| {
        let file = dir.path().join(name).join("shard.00001.mds");
        let mut bytes = std::fs::read(&file).unwrap();
        let at = if byte == usize::MAX { bytes.len() - 1 } else { byte };
        bytes[at] ^= 0x40;
        std::fs::write(&file, bytes).unwrap();
    };
    change("hashed", usize::MAX);
    let output = inspect(&["verify", path(&dir.path().join("hashed"))]).output();
    assert_eq!(output.code, 1);
    assert!(output.out.contains("BAD  shard shard.00001.mds: the sha1 of"), "{}", output.out);
    // Byte 8 is in the offset of the second sample.
    change("plain", 9);
    let output = inspect(&["verify", path(&dir.path().join("plain"))]).output();
    assert_eq!(output.code, 1);
    assert!(output.out.contains("BAD  shard shard.00001.mds, "), "{}", output.out);
}

#[test]
fn a_local_folder_that_is_none_or_holds_the_dataset_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let split = dir.path().join("c4/val");
    write(&split, 5, &PLAIN);
    let root = split.parent().unwrap();
    assert_eq!(
        inspect(&[path(&split), path(root)]).fails(),
        format!(
            "mds-inspect: the local folder {} holds the dataset {} itself; give a folder outside of it, or none \
             to read it in place",
            root.display(),
            split.display()
        )
    );
    assert!(!root.join("index.json").exists());
    assert_eq!(
        inspect(&[path(&split), "http://me:pw@host/x?key=y"]).fails(),
        "mds-inspect: the local folder http://host/x is a URL; give a folder of this machine; the remote comes first"
    );
}

#[test]
fn a_wrong_command_line_is_refused_without_its_keys() {
    let address = "s3://bucket/c4?secret_access_key=TopSecret";
    for args in
        [&["info", "./c4", address][..], &["order", "--stream", &format!("{address},repeat=x")]]
    {
        let run = inspect(args).output();
        assert_eq!(run.code, 2, "{}", run.err);
        assert!(run.err.contains("'s3://bucket/c4' "), "{}", run.err);
        assert!(!run.err.contains("TopSecret"), "{}", run.err);
    }
    // A whole file of keys has quotes and lines.
    let key = "gs://b/c4?service_account_key={\"type\": \"x\",\n \"private_key\": \"TopSecret\"}";
    let run = inspect(&["info", "./c4", key]).output();
    assert!(run.err.contains("'gs://b/c4' "), "{}", run.err);
    assert!(!run.err.contains("TopSecret") && !run.err.contains("private_key"), "{}", run.err);
    assert_eq!(
        inspect(&["info", "s3:/bucket/c4?secret_access_key=TopSecret"]).fails(),
        "mds-inspect: the remote s3:/bucket/c4 has too few slashes for an address; write \
         s3://bucket/c4, or ./s3:... for a folder of this name"
    );
}

#[test]
fn a_truncated_shard_is_one_clear_sentence() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 50, &PLAIN);
    let shard = dir.path().join("shard.00002.mds");
    let size = std::fs::metadata(&shard).unwrap().len();
    std::fs::File::options().write(true).open(&shard).unwrap().set_len(size / 2).unwrap();
    assert_eq!(
        inspect(&[path(dir.path())]).fails(),
        format!(
            "mds-inspect: dataset {}, shard shard.00002.mds: {} is damaged: the file has {} bytes, \
             but the index declares {size}; remove the file, so that it is fetched again, or write the \
             dataset again",
            dir.path().display(),
            shard.display(),
            size / 2
        )
    );
}

#[test]
fn a_wrong_version_is_one_clear_sentence() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 10, &PLAIN);
    let index = dir.path().join("index.json");
    let text = std::fs::read_to_string(&index).unwrap();
    std::fs::write(&index, text.replace("\"version\": 2", "\"version\": 3")).unwrap();
    let error = inspect(&[path(dir.path())]).fails();
    let dataset = format!("mds-inspect: dataset {}", dir.path().display());
    assert_eq!(
        error,
        format!(
            "{dataset}: the index has version 3, but only version 2 is supported; write the dataset \
             with a writer of MDS version 2"
        )
    );
    std::fs::write(&index, "{\"shards\": [").unwrap();
    let error = inspect(&["info", path(dir.path())]).fails();
    assert!(error.starts_with(&dataset), "{error}");
}

#[test]
fn missing_and_empty_datasets_are_one_clear_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("none");
    assert_eq!(
        inspect(&[path(&missing)]).fails(),
        format!(
            "mds-inspect: there is no dataset: neither {0}/index.json nor {0}/val/index.json \
             exists; check the address, and the split if there is one",
            missing.display()
        )
    );
    write(&dir.path().join("c4/train"), 3, &PLAIN);
    let root = dir.path().join("c4");
    assert_eq!(
        inspect(&[path(&root), "--split", "validation"]).fails(),
        format!(
            "mds-inspect: there is no dataset: {}/validation/index.json does not exist; \
             choose a split that is there with --split: train",
            root.display()
        )
    );
    let empty = dir.path().join("empty/val");
    let schema = Schema::new([("text", Encoding::Str)]).unwrap();
    Writer::create(&empty, schema, WriterOptions::default()).unwrap().finish().unwrap();
    let expected = format!(
        "mds-inspect: the dataset {} has no samples; write samples to it or choose another split",
        empty.display()
    );
    assert_eq!(inspect(&[path(empty.parent().unwrap())]).fails(), expected);
    let local = dir.path().join("local");
    assert_eq!(inspect(&[path(&empty), path(&local)]).fails(), expected);
    assert!(inspect(&["info", path(&empty)]).succeeds().contains("samples      0\n"));
}

#[test]
fn wrong_values_of_flags_are_wrong_usage() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 5, &PLAIN);
    for (flag, value, expected) in [
        ("--batch_size", "0", "invalid value '0' for '--batch_size <N>': give 1 or more"),
        ("--batch_size", "x", "invalid value 'x' for '--batch_size <N>': invalid digit"),
        (
            "--cache_limit",
            "1zz",
            "invalid value '1zz' for '--cache_limit <SIZE>': \"1zz\" is not a size in bytes; write",
        ),
    ] {
        let output = inspect(&[path(dir.path()), flag, value]).output();
        assert_eq!((output.code, output.out.as_str()), (2, ""), "{flag} {value}");
        assert!(output.err.contains(expected), "{}", output.err);
    }
}

#[test]
fn names_of_columns_do_not_reach_the_terminal_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let schema = Schema::new([("\x1b[31mred", Encoding::Int), ("n\nl", Encoding::Str)]).unwrap();
    let out = dir.path().join("x");
    let mut writer = Writer::create(&out, schema, WriterOptions::default()).unwrap();
    writer.write(&[1.into(), "a".into()]).unwrap();
    writer.finish().unwrap();
    let sample = inspect(&["sample", path(&out), "0"]).succeeds();
    let expected = "\n\\u{1b}[31mred (int): 1\nn\\nl (str, 1 character): a\n";
    assert!(sample.ends_with(expected), "{sample}");
    let info = inspect(&["info", path(&out)]).succeeds();
    assert!(info.contains("  \\u{1b}[31mred int\n  n\\nl         str\n"), "{info}");
    let streamed = inspect(&[path(&out)]).succeeds();
    assert!(streamed.contains("  \\u{1b}[31mred [1]          int64\n  n\\nl  "), "{streamed}");
    assert!(streamed.contains("\n  \\u{1b}[31mred: 1\n  n\\nl: a\n"), "{streamed}");
    let json = dir.path().join("json");
    let converted = inspect(&["convert", path(&out), path(&json), "--to", "json"]).succeeds();
    std::fs::write(json.join("shard.00000.json"), "{\"n\\nl\": \"a\"}\n").unwrap();
    let verified = inspect(&["verify", path(&json)]).output();
    let unknown = inspect(&["convert", path(&out), path(&json), "--columns", "x"]).fails();
    assert!(unknown.ends_with("the columns are \\u{1b}[31mred, n\\nl"), "{unknown}");
    for shown in [&info, &streamed, &sample, &converted, &verified.out, &verified.err, &unknown] {
        assert!(!shown.contains('\x1b'), "{shown}");
    }
    assert_eq!(verified.code, 1);
}

#[test]
fn pickles_are_named_and_shown_as_bytes_to_who_asks_for_them() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    // A dataset of bytes, which the index then calls pickles. This one is of a list.
    let schema = Schema::new([("n", Encoding::Int), ("p", Encoding::Bytes)]);
    let mut writer = Writer::create(at("x"), schema.unwrap(), WriterOptions::default()).unwrap();
    writer.write(&[7.into(), b"\x80\x04]\x94.".as_slice().into()]).unwrap();
    writer.finish().unwrap();
    let index = std::fs::read_to_string(at("x/index.json")).unwrap();
    assert!(index.contains("[\"int\", \"bytes\"]"), "{index}");
    let index = index.replace("[\"int\", \"bytes\"]", "[\"int\", \"pkl\"]");
    std::fs::write(at("x/index.json"), index).unwrap();
    let start = format!("mds-inspect: dataset {}, column p: ", at("x").display());
    for args in [
        &["sample", path(&at("x")), "0"][..],
        &[path(&at("x"))],
        &["verify", path(&at("x"))],
        &["convert", path(&at("x")), path(&at("out"))],
        &["convert", path(&at("x")), path(&at("out")), "--columns", "p"],
    ] {
        assert_eq!(
            inspect(args).fails(),
            format!(
                "{start}the column holds Python pickles, and loading one can run any code; give \
                 --pickle_bytes to read their bytes, which are never decoded; or write a dataset \
                 without it: mds-inspect convert, and name the others with --columns"
            )
        );
    }
    assert!(!at("out").exists());
    // An index alone tells what is there.
    let info = inspect(&["info", path(&at("x"))]).succeeds();
    assert!(info.contains("  p            pkl\n"), "{info}");
    inspect(&["order", path(&at("x"))]).succeeds();
    let refused = inspect(&["convert", path(&at("x")), path(&at("out")), "--to", "parquet"]);
    assert_eq!(
        refused.fails(),
        format!(
            "{start}pickles are not written to Parquet; leave the column out: name the others \
             with --columns"
        )
    );
    assert!(!at("out").exists());

    // Their bytes are given to who asks for them, and the other columns to everybody.
    let asked = |args: &[&str]| inspect(&[args, &["--pickle_bytes"]].concat()).succeeds();
    let sample = asked(&["sample", path(&at("x")), "0"]);
    assert!(sample.ends_with("\nn (int): 7\np (pkl, 5 bytes): 80045d942e\n"), "{sample}");
    assert!(asked(&[path(&at("x"))]).contains("\n  n: 7\n  p: 80045d942e\n"));
    assert!(asked(&["verify", path(&at("x"))]).contains("1 sample, "));
    asked(&["convert", path(&at("x")), path(&at("copy")), "--compression", "zstd"]);
    assert_eq!(asked(&["sample", path(&at("copy")), "0"]), sample);
    let error =
        inspect(&["convert", path(&at("x")), path(&at("out")), "--pickle_bytes", "--to", "csv"]);
    let expected =
        "column p: the format csv cannot hold pkl; leave the column out: name the others";
    assert!(error.fails().contains(expected));
    inspect(&["convert", path(&at("x")), path(&at("n")), "--columns", "n"]).succeeds();
    assert!(inspect(&["sample", path(&at("n")), "0"]).succeeds().ends_with("\nn (int): 7\n"));
}

#[test]
fn help_teaches_by_example() {
    let help = inspect(&["--help"]).succeeds();
    for expected in ["Examples:", "mds-inspect verify", "Exit codes:", "--batch_size <N>"] {
        assert!(help.contains(expected), "{expected:?} is not in\n{help}");
    }
    let output = inspect(&[]).output();
    assert_eq!(output.code, 2);
    assert!(output.err.contains("<REMOTE>"), "{}", output.err);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 500, &PLAIN);
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_mds-inspect"))
        .args([path(dir.path()), "--print_batches", "250"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success());
}

#[cfg(unix)]
#[test]
fn a_closed_pipe_changes_no_verdict() {
    let dir = tempfile::tempdir().unwrap();
    let index = write(dir.path(), 60, &PLAIN);
    assert!(index.shards.len() > 3);
    let last = index.shards.last().unwrap().stored().basename.to_string();
    std::fs::write(dir.path().join(&last), "damaged").unwrap();
    let output = inspect(&["verify", path(dir.path())]).closed();
    assert_eq!(output.code, 1, "{}", output.err);
    let shards = index.shards.len();
    let expected = format!("1 of {shards} shards damaged, missing or unreadable: {last}; ");
    assert!(output.err.contains(&expected), "{}", output.err);
}
