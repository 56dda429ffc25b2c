//! The reading side of `mds`, as a user's program drives it: a remote streamed through a shared
//! cache, samples by number, batches in the plan's order, resumption, and everything that breaks.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/orders.rs"]
mod orders;
mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mds::order::{State, World};
use mds::{
    Checkpoint, DatasetOptions, ErrorKind, Loader, LoaderOptions, Sample, Stream, StreamingDataset,
};
use orders::served;
use support::{HASHED, Mood, PLAIN, Server, ZIPPED, files, text, within, write};

/// Long enough for a loaded machine, short enough to notice a hang.
const LIMIT: Duration = Duration::from_secs(60);

fn options() -> DatasetOptions {
    let mut options = DatasetOptions::default();
    options.order.batch_size = Some(4);
    options.download_timeout = Duration::from_secs(5);
    options.download_retry = 2;
    options
}

fn shuffled() -> DatasetOptions {
    let mut options = options();
    options.order.shuffle = true;
    options
}

fn open(remote: &str, local: &Path, options: DatasetOptions) -> Arc<StreamingDataset> {
    StreamingDataset::open(vec![Stream::cached(remote, local)], options).unwrap()
}

fn workers(num_workers: usize) -> LoaderOptions {
    LoaderOptions { num_workers, prefetch_batches: 3 }
}

fn id_and_text(sample: Sample) -> mds::Result<(u64, String)> {
    Ok((sample.id(), sample.str("text")?.to_owned()))
}

/// The ids of one epoch, checked against their texts.
fn epoch(loader: &mut Loader<(u64, String)>) -> mds::Result<Vec<Vec<u64>>> {
    let mut batches = Vec::new();
    while let Some(batch) = loader.next_batch()? {
        for ((id, found), expected) in batch.items.iter().zip(&batch.ids) {
            assert_eq!((id, found), (expected, &text(*expected)));
        }
        batches.push(batch.ids);
    }
    Ok(batches)
}

fn all_ids(dataset: &Arc<StreamingDataset>) -> Vec<u64> {
    let mut loader = Loader::new(Arc::clone(dataset), workers(2), id_and_text);
    let mut ids = epoch(&mut loader).unwrap().concat();
    ids.sort_unstable();
    ids
}

#[test]
fn a_remote_behind_http_is_mirrored_once() {
    let dir = tempfile::tempdir().unwrap();
    let (root, cache) = (dir.path().join("remote"), dir.path().join("cache"));
    let index = write(&root.join("val"), 50, &HASHED);
    assert!(index.shards.len() > 4);
    let server = Server::start(&root);
    let stream = || vec![Stream::cached(server.url(""), &cache).split("val")];

    let dataset = StreamingDataset::open(stream(), shuffled()).unwrap();
    assert_eq!(dataset.num_samples(), 50);
    assert_eq!(dataset.index_fingerprint(), index.fingerprint());
    assert!(server.shard_gets().is_empty(), "opening fetches no shard");
    assert_eq!(all_ids(&dataset), (0..50).collect::<Vec<_>>());
    drop(dataset);
    assert_eq!(files(&cache), files(&root), "the cache mirrors the remote and holds nothing else");
    assert!(server.shard_gets().values().all(|&gets| gets == 1), "{:?}", server.gets());

    let again = StreamingDataset::open(stream(), shuffled()).unwrap();
    assert_eq!(all_ids(&again).len(), 50);
    assert!(server.shard_gets().values().all(|&gets| gets == 1), "{:?}", server.gets());
}

#[test]
fn a_folder_is_read_in_place_or_copied() {
    let dir = tempfile::tempdir().unwrap();
    let (root, cache) = (dir.path().join("remote"), dir.path().join("cache"));
    write(&root, 30, &PLAIN);
    let before = files(&root);
    let address = root.to_str().unwrap();
    let in_place = [
        Stream::local(&root),
        Stream { remote: Some(address.to_owned()), ..Stream::default() },
        Stream::cached(address, root.join("../remote")),
        Stream::cached(format!("file://{address}"), &root),
    ];
    for stream in in_place {
        // A limit that is far too small for the dataset must not matter here.
        let options = DatasetOptions { cache_limit: Some(1), ..options() };
        let dataset = StreamingDataset::open(vec![stream], options).unwrap();
        assert_eq!(all_ids(&dataset).len(), 30);
    }
    assert_eq!(files(&root), before, "nothing was written or removed");

    assert_eq!(all_ids(&open(address, &cache, options())).len(), 30);
    assert_eq!(files(&cache), before);
}

#[test]
fn compressed_shards_are_decompressed_into_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let (root, cache) = (dir.path().join("remote"), dir.path().join("cache"));
    write(&root, 30, &ZIPPED);
    let server = Server::start(&root);
    assert_eq!(all_ids(&open(&server.url(""), &cache, options())).len(), 30);
    assert!(files(&cache).keys().all(|name| !name.ends_with(".zstd")), "no zip is kept");

    let kept = dir.path().join("kept");
    let options_kept = DatasetOptions { keep_zip: true, ..options() };
    assert_eq!(all_ids(&open(&server.url(""), &kept, options_kept)).len(), 30);
    let (kept, remote) = (files(&kept), files(&root));
    assert!(remote.iter().all(|(name, bytes)| kept.get(name) == Some(bytes)));
    assert_eq!(kept.len(), 2 * remote.len() - 1, "each shard twice, one index");

    // In place there is only the compressed form, and it stays the only one.
    let dataset = StreamingDataset::open(vec![Stream::local(&root)], options()).unwrap();
    assert_eq!(all_ids(&dataset).len(), 30);
    assert_eq!(files(&root), remote);
}

#[test]
fn a_damaged_cached_shard_is_fetched_again() {
    let dir = tempfile::tempdir().unwrap();
    let (root, cache) = (dir.path().join("remote"), dir.path().join("cache"));
    write(&root, 50, &HASHED);
    let server = Server::start(&root);
    assert_eq!(all_ids(&open(&server.url(""), &cache, options())).len(), 50);

    let damage = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = std::fs::read(cache.join(name)).unwrap();
        change(&mut bytes);
        std::fs::write(cache.join(name), bytes).unwrap();
    };
    damage("shard.00000.mds", &|bytes| bytes.truncate(100));
    damage("shard.00001.mds", &|bytes| *bytes.last_mut().unwrap() ^= 1);
    damage("shard.00002.mds", &|bytes| bytes.clear());
    std::fs::remove_file(cache.join("shard.00003.mds")).unwrap();
    assert_eq!(all_ids(&open(&server.url(""), &cache, options())).len(), 50);
    assert_eq!(files(&cache), files(&root));
    for (path, gets) in server.shard_gets() {
        let damaged = (0..4).any(|i| path == format!("shard.0000{i}.mds"));
        assert_eq!(gets, if damaged { 2 } else { 1 }, "{path}");
    }
}

#[test]
fn a_remote_that_is_damaged_is_an_error_that_names_the_shard() {
    for kind in [HASHED, ZIPPED] {
        let dir = tempfile::tempdir().unwrap();
        let (root, cache) = (dir.path().join("remote"), dir.path().join("cache"));
        let index = write(&root, 30, &kind);
        let stored = index.shards[1].stored();
        let name = stored.basename.as_str();
        let mut bytes = std::fs::read(root.join(name)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        let found = mds::format::HashAlgorithm::Xxh64.hex(&bytes);
        std::fs::write(root.join(name), bytes).unwrap();
        let server = Server::start(&root);
        let dataset = open(&server.url(""), &cache, options());
        let error = dataset.sample(index.shards[0].samples).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let (address, raw) = (server.url(""), index.shards[1].raw_data.basename.as_str());
        let address = address.trim_end_matches('/');
        assert_eq!(
            error.to_string(),
            format!(
                "dataset {address}/, shard {raw}: {address}/{name} is damaged: the xxh64 of the \
                 file is {found}, but the index declares {}; \
                 copy the dataset to its remote again or write it again",
                stored.hashes["xxh64"]
            )
        );
        assert_eq!(server.gets()[name], 2, "fetched again once");
        assert!(!cache.join(raw).exists() && !cache.join(name).exists());
        assert!(files(&cache).keys().all(|name| !name.ends_with(".part")), "nothing half-written");
        // The other shards are not touched by it.
        dataset.sample(0).unwrap();
    }
}

#[test]
fn a_damaged_dataset_read_in_place_is_an_error_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 30, &PLAIN);
    let path = dir.path().join("shard.00001.mds");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 7]).unwrap();
    let dataset = StreamingDataset::open(vec![Stream::local(dir.path())], options()).unwrap();
    let error = dataset.sample(12).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(
        error.to_string(),
        format!(
            "dataset {}, shard shard.00001.mds: {} is damaged: the file has {} bytes, but the \
             index declares {}; remove the file, so that it is fetched again, or write the dataset again",
            dir.path().display(),
            path.display(),
            bytes.len() - 7,
            bytes.len()
        )
    );
    assert!(path.exists());
}

#[test]
fn threads_and_processes_that_share_a_cache_fetch_each_shard_once() {
    let dir = tempfile::tempdir().unwrap();
    let (root, cache) = (dir.path().join("remote"), dir.path().join("cache"));
    let index = write(&root, 100, &ZIPPED);
    let server = Server::start(&root);
    server.set_mood(Mood::Slow);
    let mut children: Vec<_> = (0..2)
        .map(|_| {
            Command::new(env!("CARGO_BIN_EXE_mds-inspect"))
                .args([server.url(""), cache.display().to_string()])
                .args(["--print_batches", "0"])
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    // Datasets of their own share nothing in the process: they meet at the lock files.
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let dataset = open(&server.url(""), &cache, shuffled());
                assert_eq!(all_ids(&dataset).len(), 100);
            });
        }
    });
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    let gets = server.shard_gets();
    assert_eq!(gets.len(), index.shards.len());
    assert!(gets.values().all(|&gets| gets == 1), "{gets:?}");
    let left: Vec<_> = files(&cache).into_keys().filter(|name| name.starts_with('.')).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_killed_process_leaves_a_cache_that_the_next_one_uses() {
    let dir = tempfile::tempdir().unwrap();
    let (root, cache) = (dir.path().join("remote"), dir.path().join("cache"));
    write(&root, 150, &ZIPPED);
    let server = Server::start(&root);
    server.set_mood(Mood::Slow);
    std::fs::create_dir(&cache).unwrap();
    for round in 0..8 {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mds-inspect"))
            .args([server.url(""), cache.display().to_string()])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(30 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        for (name, bytes) in files(&cache).iter().filter(|(name, _)| name.starts_with("shard.")) {
            mds::format::ShardTable::parse(bytes, u64::from(bytes[0])).expect(name);
        }
    }
    server.set_mood(Mood::Well);
    assert_eq!(all_ids(&open(&server.url(""), &cache, options())).len(), 150);
    let left: Vec<_> = files(&cache).into_keys().filter(|name| name.starts_with('.')).collect();
    assert!(left.is_empty(), "{left:?}");
}

fn usage(cache: &Path) -> u64 {
    let shards = files(cache).into_iter().filter(|(name, _)| name.starts_with("shard."));
    shards.map(|(_, bytes)| bytes.len() as u64).sum()
}

#[test]
fn a_cache_limit_evicts_what_was_used_least_recently() {
    let dir = tempfile::tempdir().unwrap();
    let (root, cache) = (dir.path().join("remote"), dir.path().join("cache"));
    let index = write(&root, 120, &HASHED);
    let server = Server::start(&root);
    let options = DatasetOptions { cache_limit: Some(3000), ..options() };
    let dataset = open(&server.url(""), &cache, options);
    let first_of = |n: usize| index.shards[..n].iter().map(|shard| shard.samples).sum();
    let has = |shard: usize| cache.join(format!("shard.0000{shard}.mds")).exists();

    for shard in [0, 1, 2, 0] {
        dataset.sample(first_of(shard)).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(has(0) && has(1) && has(2));
    dataset.sample(first_of(3)).unwrap();
    assert!(has(0) && !has(1) && has(2) && has(3), "shard 1 was used least recently");

    // A sample that is kept does not keep its shard.
    let kept = dataset.sample(first_of(0)).unwrap();
    for shard in [1, 2, 3, 4, 5] {
        dataset.sample(first_of(shard)).unwrap();
        assert!(has(shard));
        assert!(usage(&cache) <= 3000, "{}", usage(&cache));
    }
    assert!(!has(0));
    assert_eq!(kept.str("text").unwrap(), text(kept.id()));
    assert_eq!(server.shard_gets()["shard.00001.mds"], 2, "evicted, so fetched again");
}

#[test]
fn a_limit_that_a_shard_does_not_fit_in_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (root, cache) = (dir.path().join("remote"), dir.path().join("cache"));
    let index = write(&root, 30, &PLAIN);
    let largest = index.shards.iter().max_by_key(|shard| shard.raw_data.bytes).unwrap();
    let options = DatasetOptions { cache_limit: Some(500), ..options() };
    let stream = Stream::cached(root.to_str().unwrap(), &cache);
    let error = StreamingDataset::open(vec![stream], options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let text = error.to_string();
    let expected = format!(
        "cache_limit is 500 bytes, but this shard alone needs {}; \
         raise cache_limit, best to several times the largest shard",
        largest.raw_data.bytes
    );
    assert!(text.ends_with(&expected), "{text}");
}

#[test]
fn reading_ahead_works_within_a_cache_limit() {
    let dir = tempfile::tempdir().unwrap();
    let (root, cache) = (dir.path().join("remote"), dir.path().join("cache"));
    write(&root, 200, &HASHED);
    let server = Server::start(&root);
    for shuffle in [false, true] {
        let mut options = DatasetOptions { cache_limit: Some(4000), ..options() };
        options.order.shuffle = shuffle;
        let dataset = open(&server.url(""), &cache, options);
        let seen = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let most = Arc::clone(&seen);
        let folder = cache.clone();
        let map = move |sample: Sample| {
            // Twice, as a shard that goes and one that comes while the folder is listed may both count.
            most.fetch_max(usage(&folder).min(usage(&folder)), Ordering::Relaxed);
            id_and_text(sample)
        };
        let ids = within(LIMIT, move || {
            let mut loader = Loader::new(dataset, workers(2), map);
            epoch(&mut loader).unwrap().concat()
        });
        assert_eq!(ids.into_iter().collect::<BTreeSet<_>>().len(), 200);
        assert!(seen.load(Ordering::Relaxed) <= 4000, "{seen:?} bytes in the cache");
    }
    // Read in order, no shard was evicted before it was used up.
    let gets: usize = server.shard_gets().values().sum();
    assert!(gets > 0);
}

#[test]
fn batches_come_in_the_order_of_the_plan() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 103, &PLAIN);
    for (num_workers, rank) in [(0, 0), (1, 1), (4, 3)] {
        let mut options = shuffled();
        options.world = World { nodes: 2, ranks_per_node: 2, workers_per_rank: 2 };
        options.rank = rank;
        let dataset = StreamingDataset::open(vec![Stream::local(dir.path())], options).unwrap();
        let mut loader = Loader::new(Arc::clone(&dataset), workers(num_workers), id_and_text);
        for number in 0..2 {
            let order = dataset.plan().epoch(number, 0, None).unwrap();
            let expected = served(&order, rank);
            assert!(!expected.is_empty());
            assert_eq!(epoch(&mut loader).unwrap(), expected);
        }
    }
}

#[test]
fn a_resumed_loader_delivers_exactly_what_was_left() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 50, &PLAIN);
    let open = || StreamingDataset::open(vec![Stream::local(dir.path())], shuffled()).unwrap();
    // Two epochs in one go: each batch, or None at the end of an epoch, with the state after it.
    let mut loader = Loader::new(open(), workers(2), id_and_text);
    let mut whole: Vec<(Option<Vec<u64>>, Checkpoint)> = vec![];
    while whole.iter().filter(|(batch, _)| batch.is_none()).count() < 2 {
        let batch = loader.next_batch().unwrap().map(|batch| batch.ids);
        whole.push((batch, loader.checkpoint()));
    }
    assert!(whole.len() > 25);
    for stop in 0..whole.len() - 1 {
        let saved = serde_json::to_string(&whole[stop].1).unwrap();
        let saved: Checkpoint = serde_json::from_str(&saved).unwrap();
        assert_eq!(saved, whole[stop].1);
        let num_workers = [0, 1, 3][stop % 3];
        let mut loader =
            Loader::resume(open(), workers(num_workers), saved.clone(), id_and_text).unwrap();
        assert_eq!(loader.checkpoint(), whole[stop].1, "before the first batch");
        // The end of an epoch is the start of the next one, so its `None` does not come again.
        let left = whole[stop + 1..].iter();
        for (batch, after) in left.skip_while(|(batch, after)| batch.is_none() && *after == saved) {
            let found = loader.next_batch().unwrap().map(|batch| batch.ids);
            assert_eq!(&found, batch, "resumed after {stop} with {num_workers} workers");
            assert_eq!(&loader.checkpoint(), after);
        }
    }
}

#[test]
fn what_was_prepared_ahead_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 50, &PLAIN);
    let dataset = StreamingDataset::open(vec![Stream::local(dir.path())], options()).unwrap();
    let mut loader = Loader::new(dataset, workers(3), id_and_text);
    let position = |loader: &Loader<_>| (loader.state().epoch, loader.state().sample_in_epoch);
    assert_eq!(position(&loader), (0, 0));
    loader.next_batch().unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(position(&loader), (0, 4));
    while loader.next_batch().unwrap().is_some() {}
    assert_eq!(position(&loader), (1, 0));
}

#[test]
fn a_checkpoint_of_another_dataset_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 30, &PLAIN);
    let dataset = StreamingDataset::open(vec![Stream::local(dir.path())], options()).unwrap();
    let state = State {
        epoch: 0,
        sample_in_epoch: 8,
        num_canonical_nodes: 1,
        shuffle_seed: 9176,
        initial_physical_nodes: Some(1),
    };
    let foreign =
        Checkpoint { state, version: Some(1), index_fingerprint: Some("0123".to_owned()) };
    let error = Loader::resume(Arc::clone(&dataset), workers(1), foreign, id_and_text).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "the checkpoint was made with another dataset (index 0123) than this one (index {}); \
             resume with the dataset of the checkpoint or start afresh",
            dataset.index_fingerprint()
        )
    );
    // The reference's states name no dataset.
    let mut loader = Loader::resume(dataset, workers(1), state, id_and_text).unwrap();
    assert_eq!(loader.next_batch().unwrap().unwrap().ids, [8, 9, 10, 11]);
}

#[test]
fn a_remote_that_goes_away_is_an_error_not_a_hang() {
    let dir = tempfile::tempdir().unwrap();
    let (root, cache) = (dir.path().join("remote"), dir.path().join("cache"));
    write(&root, 200, &PLAIN);
    let mut server = Server::start(&root);
    let mut options = options();
    options.predownload = Some(8);
    let url = server.url("").replace("http://", "http://me:secret@");
    let dataset = open(&url, &cache, options);
    let mut loader = Loader::new(dataset, workers(2), id_and_text);
    assert_eq!(loader.next_batch().unwrap().unwrap().ids, [0, 1, 2, 3]);
    server.stop();
    let (error, again) = within(LIMIT, move || {
        let error = loop {
            if let Err(error) = loader.next_batch() {
                break error;
            }
        };
        (error, loader.next_batch().unwrap_err())
    });
    assert_eq!(error.kind(), ErrorKind::Download);
    let text = error.to_string();
    assert!(text.contains("/shard.000") && text.contains("in 2 attempt(s)"), "{text}");
    assert!(text.ends_with(
        "check the network and the remote, or raise download_timeout and download_retry"
    ));
    assert!(!format!("{text} {error:?} {again:?}").contains("secret"));
    assert_eq!(
        again.to_string(),
        "the loader has stopped after an error; make a new one with Loader::resume"
    );
}

#[test]
fn refusals_are_not_repeated_and_failures_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let (root, cache) = (dir.path().join("remote"), dir.path().join("cache"));
    write(&root, 30, &PLAIN);
    let server = Server::start(&root);
    let options = DatasetOptions {
        download_timeout: Duration::from_millis(300),
        download_retry: 3,
        ..options()
    };
    let dataset = open(&server.url(""), &cache, options);
    let gets = |server: &Server| server.shard_gets().values().sum::<usize>();
    for (mood, kind, requests) in [
        (Mood::Forbidding, ErrorKind::PermissionDenied, 1..=1),
        (Mood::Overloaded, ErrorKind::Download, 2..=3),
        (Mood::Stalled, ErrorKind::Download, 1..=3),
        (Mood::Torn, ErrorKind::Download, 2..=3),
    ] {
        server.set_mood(mood);
        let before = gets(&server);
        let dataset = Arc::clone(&dataset);
        let error = within(LIMIT, move || dataset.sample(0).unwrap_err());
        assert_eq!(error.kind(), kind, "{error}");
        let made = gets(&server) - before;
        assert!(requests.contains(&made), "{made} requests for {error}");
        let mut names: Vec<String> = files(&cache).into_keys().collect();
        names.retain(|name| !name.starts_with(".used-"));
        assert_eq!(names, ["index.json"], "nothing half-written");
    }
    server.set_mood(Mood::Well);
    dataset.sample(0).unwrap();
}

#[test]
fn dropping_a_loader_ends_its_threads_promptly() {
    let dir = tempfile::tempdir().unwrap();
    let (root, cache) = (dir.path().join("remote"), dir.path().join("cache"));
    write(&root, 200, &PLAIN);
    let server = Server::start(&root);
    let options = DatasetOptions { download_timeout: Duration::from_secs(30), ..options() };
    let dataset = open(&server.url(""), &cache, options);
    let mut loader = Loader::new(Arc::clone(&dataset), workers(2), id_and_text);
    loader.next_batch().unwrap();
    server.set_mood(Mood::Stalled);
    while dataset.sample(0).is_ok() && loader_is_ahead(&server) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let started = Instant::now();
    within(LIMIT, move || drop(loader));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!(Arc::strong_count(&dataset), 1, "no thread holds the dataset any more");
}

/// Whether the downloads have not reached the stall yet.
fn loader_is_ahead(server: &Server) -> bool {
    let before = server.gets();
    std::thread::sleep(Duration::from_millis(100));
    server.gets() != before
}

#[test]
fn errors_and_panics_of_the_map_function_are_returned_in_order() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 50, &PLAIN);
    for panics in [false, true] {
        let dataset = StreamingDataset::open(vec![Stream::local(dir.path())], options()).unwrap();
        let map = move |sample: Sample| {
            if sample.id() == 9 && panics {
                panic!("nine!");
            }
            if sample.id() == 9 {
                return Err(mds::Error::new(ErrorKind::Caller, "no nine", "count differently"));
            }
            id_and_text(sample)
        };
        let error = within(LIMIT, move || {
            let mut loader = Loader::new(dataset, workers(3), map);
            assert_eq!(loader.next_batch().unwrap().unwrap().ids, [0, 1, 2, 3]);
            assert_eq!(loader.next_batch().unwrap().unwrap().ids, [4, 5, 6, 7]);
            let error = loader.next_batch().unwrap_err();
            assert_eq!(loader.state().sample_in_epoch, 8, "before the failed batch");
            error
        });
        assert_eq!(error.kind(), ErrorKind::Caller);
        let expected = if panics {
            "sample 9: the map function of the loader panicked: nine!; \
             mend the function or leave the sample out"
        } else {
            "sample 9: no nine; count differently"
        };
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_cache_belongs_to_one_dataset() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let (first, second) = (write(&one, 30, &PLAIN), write(&two, 31, &PLAIN));
    open(one.to_str().unwrap(), &cache, options()).sample(0).unwrap();
    let before = files(&cache);
    let stream = Stream::cached(two.to_str().unwrap(), &cache);
    let error = StreamingDataset::open(vec![stream], options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(
        error.to_string(),
        format!(
            "the cache {} holds another dataset (index {}) than {} (index {}); \
             remove that folder or choose another local one",
            cache.display(),
            first.fingerprint(),
            two.display(),
            second.fingerprint()
        )
    );
    assert_eq!(files(&cache), before);
}

#[test]
fn a_complete_cache_is_enough_when_the_remote_cannot_be_reached() {
    let dir = tempfile::tempdir().unwrap();
    let (root, cache) = (dir.path().join("remote"), dir.path().join("cache"));
    write(&root, 30, &PLAIN);
    let mut server = Server::start(&root);
    let address = server.url("");
    assert_eq!(all_ids(&open(&address, &cache, options())).len(), 30);
    server.stop();
    assert_eq!(all_ids(&open(&address, &cache, options())).len(), 30);
    let stream = Stream::cached(&address, dir.path().join("empty"));
    let error = StreamingDataset::open(vec![stream], options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Download);
}

#[test]
fn samples_are_handles_that_outlive_their_dataset() {
    let dir = tempfile::tempdir().unwrap();
    let (root, cache) = (dir.path().join("remote"), dir.path().join("cache"));
    write(&root, 30, &PLAIN);
    let dataset = open(root.to_str().unwrap(), &cache, options());
    let sample = dataset.sample(17).unwrap();
    assert_eq!(
        dataset.sample(30).unwrap_err().to_string(),
        "there is no sample 30; the dataset has 30 samples, numbered from 0"
    );
    drop(dataset);
    std::fs::remove_dir_all(&cache).unwrap();
    let read = move || {
        assert_eq!(sample.value("id").unwrap(), mds::format::Value::Int(17));
        assert_eq!(sample.str("text").unwrap(), text(17));
        assert_eq!(sample.bytes("text").unwrap(), text(17).as_bytes());
        assert_eq!(sample.values().unwrap().len(), 3);
        let error = sample.str("txt").unwrap_err().to_string();
        assert!(
            error.ends_with("there is no column \"txt\"; the columns are id, text, tokens"),
            "{error}"
        );
        let error = sample.str("id").unwrap_err().to_string();
        assert!(error.ends_with("the column holds int, not str; read it with value()"), "{error}");
    };
    std::thread::spawn(read).join().unwrap();
}

#[test]
fn streams_are_joined_and_weighted() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    write(&one, 20, &PLAIN);
    write(&two, 20, &ZIPPED);
    let mut second = Stream::local(&two);
    second.weight = mds::order::Weight::Repeat(2.0);
    let dataset = StreamingDataset::open(vec![Stream::local(&one), second], options()).unwrap();
    assert_eq!((dataset.num_samples(), dataset.len()), (40, 60));
    assert_eq!(dataset.sample(20).unwrap().str("text").unwrap(), text(0));
    let mut loader = Loader::new(dataset, workers(2), |sample: Sample| Ok(sample.id()));
    let mut counts = [0; 40];
    while let Some(batch) = loader.next_batch().unwrap() {
        batch.items.iter().for_each(|id| counts[*id as usize] += 1);
    }
    assert_eq!(counts[..20], [1; 20]);
    assert_eq!(counts[20..], [2; 20]);
}

#[test]
fn what_cannot_work_is_said_at_once() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("train"), 10, &PLAIN);
    let message = |stream: Stream, options: DatasetOptions| {
        StreamingDataset::open(vec![stream], options).unwrap_err().to_string()
    };
    let root = dir.path().display();
    assert_eq!(
        message(Stream::local(dir.path()), options()),
        format!(
            "there is no dataset in {root}: it has no index.json; choose one of its splits: train"
        )
    );
    assert_eq!(
        message(Stream::local(dir.path()).split("val"), options()),
        format!(
            "there is no dataset in {root}/val: it has no index.json; \
             the folder does not exist, so check the path and the split"
        )
    );
    assert_eq!(
        message(Stream::default(), options()),
        "a stream has neither a remote nor a local folder; give one"
    );
    let train = || Stream::local(dir.path()).split("train");
    let no_rank = DatasetOptions { rank: 1, ..options() };
    assert_eq!(
        message(train(), no_rank),
        "rank 1 does not exist in a world of 1 ranks; ranks are numbered from 0"
    );
    let mut no_batch = options();
    no_batch.order.batch_size = None;
    let dataset = StreamingDataset::open(vec![train()], no_batch).unwrap();
    let mut loader = Loader::new(dataset, workers(1), id_and_text);
    assert_eq!(loader.next_batch().unwrap_err().kind(), ErrorKind::InvalidArgument);
    let stopped = AtomicBool::new(loader.next_batch().is_err());
    assert!(stopped.into_inner());
}
