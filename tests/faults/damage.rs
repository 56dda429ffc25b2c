//! Files that are cut short or have a bit flipped: noticed, fetched again once, and an error that
//! names the shard where the remote is damaged too.

use std::collections::BTreeMap;
use std::path::Path;

use mds::format::{Index, ShardTable};
use mds::{DatasetOptions, ErrorKind};

use crate::scene::{
    LIMIT, Random, Scene, Shape, open, options, read_epoch, scratch, shards_and_index, soak, text,
    write,
};
use crate::support::{files, within};

/// Four shards.
const FEW: Shape = Shape { samples: 30, shard_bytes: 4000, compression: None, hashed: true };

/// A dataset in a folder, which is its own remote: nothing of this needs a server.
struct Copy {
    dir: tempfile::TempDir,
    index: Index,
    source: BTreeMap<String, Vec<u8>>,
    shape: Shape,
    options: DatasetOptions,
}

impl Copy {
    fn new(shape: Shape) -> Self {
        let dir = scratch();
        let index = write(&dir.path().join("remote"), shape);
        let source = files(&dir.path().join("remote"));
        let copy = Self { dir, index, source, shape, options: options() };
        copy.read().unwrap();
        copy
    }

    fn remote(&self) -> std::path::PathBuf {
        self.dir.path().join("remote")
    }

    fn cache(&self) -> std::path::PathBuf {
        self.dir.path().join("cache")
    }

    /// Reads everything in order, one sample after the other.
    fn read(&self) -> mds::Result<()> {
        let remote = self.remote();
        let dataset = open(remote.to_str().unwrap(), &self.cache(), self.options.clone())?;
        for id in 0..self.shape.samples {
            let sample = dataset.sample(id)?;
            // Whoever reads without hashes may be given another text, but never breaks.
            if self.shape.hashed {
                assert_eq!(sample.str("text")?, text(id), "sample {id}");
                assert_eq!(sample.value("id")?, mds::format::Value::Int(id as i64));
            } else if sample.str("text")? != text(id)
                || sample.value("id")? != mds::format::Value::Int(id as i64)
            {
                return Err(mds::Error::new(ErrorKind::Caller, "another text", "see"));
            }
        }
        Ok(())
    }

    /// The cache is what it was when it was new.
    #[track_caller]
    fn assert_mended(&self, context: &str) {
        for (name, bytes) in shards_and_index(&self.cache()) {
            if let Some(expected) = self.source.get(&name) {
                assert!(bytes == *expected, "{context}: {name} is still damaged");
            }
        }
        crate::scene::assert_no_leftovers(&self.cache());
    }

    fn restore(&self, folder: &Path, name: &str) {
        std::fs::write(folder.join(name), &self.source[name]).unwrap();
    }

    fn forget(&self) {
        if self.cache().exists() {
            std::fs::remove_dir_all(self.cache()).unwrap();
        }
    }

    /// The names of the stored files of all shards.
    fn stored(&self) -> Vec<String> {
        self.index.shards.iter().map(|shard| shard.stored().basename.to_string()).collect()
    }
}

fn flip(bytes: &[u8], bit: u64) -> Vec<u8> {
    let mut flipped = bytes.to_vec();
    flipped[(bit / 8) as usize] ^= 1 << (bit % 8);
    flipped
}

#[track_caller]
fn assert_names_shard(error: &mds::Error, name: &str, context: &str) {
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{context}: {error}");
    assert!(error.to_string().contains(name), "{context}: {error}");
}

#[test]
fn torn_shard_at_every_percent() {
    for (compression, hashed) in
        [(None, true), (None, false), (Some("zstd"), true), (Some("zstd"), false)]
    {
        let copy = Copy::new(Shape { compression, hashed, ..FEW });
        let raw = copy.index.shards[1].raw_data.basename.to_string();
        let stored = copy.stored()[1].clone();
        let whole = std::fs::read(copy.cache().join(&raw)).unwrap();
        for percent in 0..100 {
            let context = format!("{compression:?}, hashed: {hashed}, {percent} %");
            std::fs::write(copy.cache().join(&raw), &whole[..whole.len() * percent / 100]).unwrap();
            copy.read().unwrap_or_else(|error| panic!("{context}: {error}"));
            assert!(std::fs::read(copy.cache().join(&raw)).unwrap() == whole, "{context}");
        }
        for percent in 0..100 {
            let context = format!("remote, {compression:?}, hashed: {hashed}, {percent} %");
            copy.forget();
            let bytes = &copy.source[&stored];
            std::fs::write(copy.remote().join(&stored), &bytes[..bytes.len() * percent / 100])
                .unwrap();
            assert_names_shard(&copy.read().unwrap_err(), &stored, &context);
            crate::scene::assert_no_leftovers(&copy.cache());
            assert!(!copy.cache().join(&raw).exists(), "{context}: a torn file was kept");
        }
        copy.restore(&copy.remote(), &stored);
        copy.read().unwrap();
    }
}

/// A file of the right length whose end was never written, as after a power cut.
#[test]
fn a_shard_that_ends_in_zeros_is_fetched_again() {
    let copy = Copy::new(FEW);
    let name = copy.stored()[1].clone();
    for percent in (0..100).step_by(10) {
        let mut bytes = copy.source[&name].clone();
        let from = bytes.len() * percent / 100;
        bytes[from..].fill(0);
        std::fs::write(copy.cache().join(&name), bytes).unwrap();
        copy.read().unwrap();
        copy.assert_mended(&format!("{percent} %"));
    }
}

#[test]
fn bit_flips_in_cached_shards_are_mended() {
    let copy = Copy::new(FEW);
    let names = copy.stored();
    let mut random = Random(1);
    for turn in 0..2000 * soak() {
        let name = &names[random.below(names.len() as u64) as usize];
        let bytes = &copy.source[name];
        let bit = random.below(8 * bytes.len() as u64);
        std::fs::write(copy.cache().join(name), flip(bytes, bit)).unwrap();
        let context = format!("flip {turn}: bit {bit} of {name}");
        copy.read().unwrap_or_else(|error| panic!("{context}: {error}"));
        copy.assert_mended(&context);
    }
}

#[test]
fn bit_flips_at_the_remote_are_errors_that_name_the_shard() {
    for compression in [None, Some("zstd")] {
        let copy = Copy::new(Shape { compression, ..FEW });
        let names = copy.stored();
        let mut random = Random(2);
        for turn in 0..1000 * soak() {
            let name = &names[random.below(names.len() as u64) as usize];
            let bytes = &copy.source[name];
            let bit = random.below(8 * bytes.len() as u64);
            std::fs::write(copy.remote().join(name), flip(bytes, bit)).unwrap();
            copy.forget();
            let context = format!("flip {turn}: bit {bit} of {name}");
            assert_names_shard(&copy.read().unwrap_err(), name, &context);
            crate::scene::assert_no_leftovers(&copy.cache());
            copy.restore(&copy.remote(), name);
            // The damaged download is not kept: the next attempt, with the remote mended, is fine.
            if turn % 20 == 0 {
                copy.read().unwrap();
                copy.assert_mended(&context);
            }
        }
    }
}

/// Over HTTP, where requests can be counted: the second download is the last.
#[test]
fn a_damaged_shard_is_fetched_twice_and_no_more() {
    let scene = Scene::new(FEW);
    let name = scene.index.shards[1].stored().basename.to_string();
    let whole = std::fs::read(scene.root.join(&name)).unwrap();
    std::fs::write(scene.root.join(&name), flip(&whole, 8 * 700)).unwrap();
    let dataset = open(&scene.url(), &scene.cache, options()).unwrap();
    let number = scene.index.shards[0].samples;
    let error = within(LIMIT, move || dataset.sample(number)).unwrap_err();
    assert_names_shard(&error, &name, "remote");
    assert_eq!(scene.server.requests_for(&name), 2);
    assert_names_shard(&scene.epoch(options()).unwrap_err(), &name, "an epoch");
    std::fs::write(scene.root.join(&name), &whole).unwrap();
    scene.epoch(options()).unwrap();
    // In the cache: one request mends it.
    std::fs::write(scene.cache.join(&name), flip(&whole, 8 * 900)).unwrap();
    scene.server.reset_requests();
    scene.epoch(options()).unwrap();
    assert_eq!(scene.server.requests_for("shard."), 1);
    scene.assert_nothing_left();
    scene.assert_cache_is_true();
}

#[test]
fn bit_flips_in_kept_compressed_shards_are_mended() {
    let mut copy = Copy::new(Shape { compression: Some("zstd"), ..FEW });
    copy.forget();
    copy.options.keep_zip = true;
    copy.read().unwrap();
    let mut random = Random(3);
    for turn in 0..500 * soak() {
        let shard = &copy.index.shards[random.below(copy.index.shards.len() as u64) as usize];
        let (zip, raw) = (shard.stored().basename.as_str(), shard.raw_data.basename.as_str());
        let bytes = &copy.source[zip];
        let bit = random.below(8 * bytes.len() as u64);
        std::fs::write(copy.cache().join(zip), flip(bytes, bit)).unwrap();
        std::fs::remove_file(copy.cache().join(raw)).unwrap();
        let context = format!("flip {turn}: bit {bit} of {zip}");
        copy.read().unwrap_or_else(|error| panic!("{context}: {error}"));
        copy.assert_mended(&context);
    }
}

/// An index has no hash of its own. What a flipped bit changes is refused by name, or changes
/// nothing that is read.
#[test]
fn bit_flips_in_the_index_are_refused_or_harmless() {
    let copy = Copy::new(FEW);
    let bytes = &copy.source["index.json"];
    let mut random = Random(4);
    let (mut refused, mut harmless) = (BTreeMap::new(), 0);
    for turn in 0..500 * soak() {
        let bit = random.below(8 * bytes.len() as u64);
        let at_remote = turn % 2 == 0;
        let context = format!("flip {turn}: bit {bit}, at the remote: {at_remote}");
        if at_remote {
            copy.forget();
            std::fs::write(copy.remote().join("index.json"), flip(bytes, bit)).unwrap();
        } else {
            std::fs::write(copy.cache().join("index.json"), flip(bytes, bit)).unwrap();
        }
        match copy.read() {
            Ok(()) => harmless += 1,
            Err(error) => *refused.entry(format!("{:?}", error.kind())).or_insert(0) += 1,
        }
        crate::scene::assert_no_leftovers(&copy.cache());
        copy.restore(&copy.remote(), "index.json");
        if !at_remote {
            // A cached index that is damaged is replaced, or refused until it is removed by hand.
            copy.restore(&copy.cache(), "index.json");
            copy.read().unwrap_or_else(|error| panic!("{context}: {error}"));
        } else {
            copy.forget();
            copy.read().unwrap();
        }
    }
    eprintln!("{harmless} flips changed nothing that is read; refused: {refused:?}");
    let known = ["Corrupt", "Unsupported", "NotFound", "InvalidArgument", "AlreadyExists"];
    assert!(refused.keys().all(|kind| known.contains(&kind.as_str())), "{refused:?}");
}

/// Without hashes: whatever is not the bytes of a value is noticed; the share of the rest is told.
#[test]
fn without_hashes_only_flips_of_values_go_unnoticed() {
    let copy = Copy::new(Shape { hashed: false, ..FEW });
    let names = copy.stored();
    let mut random = Random(5);
    let (mut unnoticed, mut unread, mut total) = (0, 0, 0);
    for turn in 0..1000 * soak() {
        let shard = random.below(names.len() as u64) as usize;
        let bytes = &copy.source[&names[shard]];
        let table = ShardTable::parse(bytes, copy.index.shards[shard].samples).unwrap();
        let bit = random.below(8 * bytes.len() as u64);
        let byte = (bit / 8) as usize;
        let inside = (0..table.len()).map(|i| table.range(i)).find(|range| range.contains(&byte));
        // A sample begins with the length of its text; the number and the text follow.
        let is_value = inside.is_some_and(|range| byte >= range.start + 4);
        // Between the table and the samples stands a copy of the schema, which nobody reads.
        let is_unread = byte >= 4 * (table.len() + 2) && byte < table.range(0).start;
        std::fs::write(copy.cache().join(&names[shard]), flip(bytes, bit)).unwrap();
        total += 1;
        match copy.read() {
            Ok(()) if is_unread => unread += 1,
            Ok(()) => copy.assert_mended("noticed and fetched again"),
            Err(error) if error.kind() == ErrorKind::Caller => {
                unnoticed += 1;
                assert!(is_value, "flip {turn}: bit {bit} of {} went unnoticed", names[shard]);
            }
            Err(error) => assert_names_shard(&error, &names[shard], "noticed"),
        }
        copy.restore(&copy.cache(), &names[shard]);
    }
    let share = 100.0 * f64::from(unnoticed) / f64::from(total);
    eprintln!(
        "{share:.1} % of {total} flips went unnoticed, all in values; {unread} changed nothing"
    );
    read_epoch(copy.remote().to_str().unwrap(), &copy.cache(), options(), FEW.samples).unwrap();
}

/// The hash of the raw file is compared once it is unpacked, not only when the next process finds it.
#[test]
fn what_is_unpacked_is_compared_too() {
    let dir = scratch();
    let (remote, cache) = (dir.path().join("remote"), dir.path().join("cache"));
    let index = write(&remote, Shape { compression: Some("zstd"), ..FEW });
    let good = &index.shards[0].raw_data.hashes["xxh64"];
    let path = remote.join("index.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace(good, &"0".repeat(16))).unwrap();
    let dataset = open(remote.to_str().unwrap(), &cache, options()).unwrap();
    let error = dataset.sample(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let remote = remote.display();
    assert_eq!(
        error.to_string(),
        format!(
            "dataset {remote}, shard shard.00000.mds: {remote}/shard.00000.mds is damaged: the xxh64 \
             of the file is {good}, but the index declares 0000000000000000; copy the dataset to its \
             remote again or write it again"
        )
    );
    assert!(!cache.join("shard.00000.mds").exists());
    dataset.sample(29).unwrap();
}
