//! The first samples of shards that are still on their way.

use std::time::{Duration, Instant};

use mds::{DatasetOptions, Loader, LoaderOptions, Sample};

use crate::faultd::Fault;
use crate::scene::{LIMIT, Scene, Shape, check_epoch, open, options, text};
use crate::support::within;

/// Three shards of about 4.5 MB without hashes.
const PLAIN: Shape =
    Shape { samples: 32_000, shard_bytes: 4_500_000, compression: None, hashed: false };
/// In bytes a second: a shard takes three seconds, a sample no time.
const PACE: u64 = 1_500_000;

fn shuffled() -> DatasetOptions {
    let mut options = options();
    options.order.shuffle = true;
    options
}

/// Reads the first batches and returns how long they took, and how many samples came early.
fn first_batches(scene: &Scene, options: DatasetOptions, batches: usize) -> (Duration, u64) {
    let (url, cache) = (scene.url(), scene.cache.clone());
    within(LIMIT, move || {
        let started = Instant::now();
        let dataset = open(&url, &cache, options).unwrap();
        let map = |sample: Sample| {
            let id = u64::try_from(sample.value("id").unwrap().as_i64().unwrap()).unwrap();
            assert_eq!(id, sample.id());
            assert_eq!(sample.str("text")?, text(id));
            Ok(())
        };
        let workers = LoaderOptions { num_workers: 2, prefetch_batches: 2 };
        let mut loader = Loader::new(dataset.clone(), workers, map);
        for _ in 0..batches {
            loader.next_batch().unwrap().unwrap();
        }
        (started.elapsed(), dataset.stats().early_samples)
    })
}

#[test]
fn the_first_batch_does_not_wait_for_its_shards() {
    let scene = Scene::new(PLAIN);
    assert_eq!(scene.shards(), 3);
    // A shard takes twelve seconds.
    scene.server.set_pace(Some(PACE / 4));
    let (time, early) = first_batches(&scene, shuffled(), 1);
    assert!(time < Duration::from_secs(6), "{time:?}");
    assert!(early >= 4, "{early}");
    scene.assert_nothing_left();
}

#[test]
fn an_epoch_that_begins_early_is_complete() {
    let scene = Scene::new(PLAIN);
    scene.server.set_pace(Some(4 * PACE));
    let dataset = open(&scene.url(), &scene.cache, options()).unwrap();
    within(LIMIT, {
        let dataset = dataset.clone();
        move || check_epoch(dataset, PLAIN.samples)
    })
    .unwrap();
    let stats = dataset.stats();
    assert!((1..=3 * 64).contains(&stats.early_samples), "{stats:?}");
    assert_eq!(stats.fetched_shards, 3);
    drop(dataset);
    scene.assert_nothing_left();
    scene.assert_cache_is_true();
}

/// What a hash was asked to vouch for is not served before it has been compared.
#[test]
fn hashes_that_are_checked_are_waited_for() {
    let scene = Scene::new(Shape { hashed: true, ..PLAIN });
    scene.server.set_pace(Some(4 * PACE));
    assert_eq!(first_batches(&scene, shuffled(), 1).1, 0);
    let scene = Scene::new(Shape { hashed: true, ..PLAIN });
    scene.server.set_pace(Some(4 * PACE));
    let unchecked = DatasetOptions { validate_hash: false, ..shuffled() };
    assert!(first_batches(&scene, unchecked, 1).1 > 0);
}

/// Nothing comes early where shards are compressed, small, in the cache, or may have to go from it.
#[test]
fn other_shards_are_waited_for() {
    for shape in
        [Shape { compression: Some("zstd"), ..PLAIN }, Shape { shard_bytes: 500_000, ..PLAIN }]
    {
        let scene = Scene::new(shape);
        assert_eq!(first_batches(&scene, shuffled(), 1).1, 0);
    }
    let scene = Scene::new(PLAIN);
    let limited = DatasetOptions { cache_limit: Some(60_000_000), ..shuffled() };
    assert_eq!(first_batches(&scene, limited, 1).1, 0);
    scene.epoch(options()).unwrap();
    assert_eq!(first_batches(&scene, shuffled(), 1).1, 0, "the shards are in the cache");
}

/// What goes wrong with a part of a shard is left to the whole of it.
#[test]
fn parts_that_fail_are_left_to_the_shard() {
    for fault in [
        Fault::Status(503),
        Fault::Refusal(403, "AccessDenied"),
        Fault::Truncated,
        Fault::ShortLength,
        Fault::ErrorPage,
        Fault::ResetInBody,
        Fault::ChangedTag,
    ] {
        let scene = Scene::new(PLAIN);
        scene.server.set_pace(Some(20 * PACE));
        scene.server.next_parts(100_000, &[fault; 40]);
        scene.epoch(options()).unwrap();
        scene.assert_nothing_left();
        scene.assert_cache_is_true();
    }
}

/// A program that has other things to do first finds its shards when it comes back.
#[test]
fn a_loader_that_is_started_fetches_before_it_is_asked() {
    let scene = Scene::new(PLAIN);
    let dataset = open(&scene.url(), &scene.cache, shuffled()).unwrap();
    let mut loader = Loader::new(dataset.clone(), LoaderOptions::default(), |_| Ok(()));
    assert_eq!(dataset.stats().downloaded_bytes, 0);
    loader.start().unwrap();
    let started = Instant::now();
    while dataset.stats().fetched_shards < 3 {
        assert!(started.elapsed() < LIMIT);
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Requests have connections, and those are few where files are: a large batch waits for its shards.
#[test]
fn large_batches_wait_for_their_shards() {
    let scene = Scene::new(PLAIN);
    let mut options = shuffled();
    options.order.batch_size = Some(500);
    assert_eq!(first_batches(&scene, options, 2).1, 0);
    assert!(scene.server.requests_for("shard.") <= 6, "{:?}", scene.server.requests());
}
