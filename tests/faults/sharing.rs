//! Several jobs and one cache: they share it or are refused, and room for three shards is enough
//! for sixteen readers.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mds::{DatasetOptions, ErrorKind};

use crate::scene::{
    LIMIT, Random, SMALL, Scene, Shape, finish, open, options, read_epoch, soak, text, write,
};
use crate::support::within;

#[test]
fn two_jobs_share_a_cache_and_fetch_each_shard_once() {
    for compression in [None, Some("zstd")] {
        let scene = Scene::new(Shape { samples: 120, compression, ..SMALL });
        scene.server.set_pace(Some(30_000));
        let jobs = [(); 2].map(|()| scene.child("epoch").spawn().unwrap());
        for job in jobs {
            finish(job, LIMIT);
        }
        assert_eq!(scene.server.requests_for("shard."), scene.shards());
        scene.assert_nothing_left();
        scene.assert_cache_is_true();
    }
}

/// Two datasets whose shards have the same names, and one folder: one job gets it, at whichever
/// moment the other comes.
#[test]
fn jobs_with_other_remotes_are_refused_and_nothing_is_mixed() {
    for round in 0..6 * soak() as u64 {
        let scene = Scene::new(Shape { samples: 60, ..SMALL });
        let other = Shape { samples: 40, shard_bytes: 5000, ..SMALL };
        let other_root = scene.dir.path().join("served").join("other");
        write(&other_root, other);
        scene.server.set_pace(Some(60_000));
        let results = std::thread::scope(|scope| {
            let jobs = [("bucket", scene.shape.samples, 0), ("other", other.samples, round * 10)];
            let jobs = jobs.map(|(name, samples, pause)| {
                let (remote, cache) = (scene.server.url(name), scene.cache.clone());
                scope.spawn(move || {
                    std::thread::sleep(Duration::from_millis(pause));
                    within(LIMIT, move || read_epoch(&remote, &cache, options(), samples))
                })
            });
            jobs.map(|job| job.join().unwrap())
        });
        let refused: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
        let [refused] = refused[..] else { panic!("{refused:?}") };
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists, "{refused}");
        let text = refused.to_string();
        assert!(text.contains("holds another dataset"), "{text}");
        assert!(text.contains(&scene.cache.display().to_string()), "{text}");
        let owner = if results[0].is_ok() { &scene.root } else { &other_root };
        assert_eq!(
            crate::support::files(&scene.cache),
            crate::support::files(owner),
            "the cache holds one dataset and nothing of the other"
        );
    }
}

/// The bytes of the shards in a cache, and of those on their way there.
fn usage(cache: &Path) -> (u64, u64) {
    let Ok(entries) = std::fs::read_dir(cache) else { return (0, 0) };
    let (mut shards, mut parts) = (0, 0);
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let bytes = entry.metadata().map_or(0, |metadata| metadata.len());
        if name.starts_with("shard.") {
            shards += bytes;
        } else if name.ends_with(".part") {
            parts += bytes;
        }
    }
    (shards, parts)
}

/// Readers that each take one sample at a time, at random, for a while. Every one must get on.
pub(crate) fn race(
    remote: &str,
    local: &Path,
    time: Duration,
    limit: u64,
    readers: u64,
    samples: u64,
) {
    let options = DatasetOptions { cache_limit: Some(limit), ..options() };
    let dataset = open(remote, local, options).unwrap();
    let deadline = Instant::now() + time;
    let total = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for reader in 0..readers {
            let (dataset, total) = (&dataset, &total);
            scope.spawn(move || {
                let mut random = Random(reader * 7919 + u64::from(std::process::id()));
                let (mut reads, mut longest) = (0, Duration::ZERO);
                while Instant::now() < deadline || reads == 0 {
                    let id = random.below(samples);
                    let started = Instant::now();
                    let sample = dataset.sample(id).unwrap();
                    assert_eq!(sample.str("text").unwrap(), text(id));
                    longest = longest.max(started.elapsed());
                    reads += 1;
                }
                assert!(reads > 4, "reader {reader} starves: {reads} samples");
                assert!(longest < Duration::from_secs(10), "reader {reader}: {longest:?}");
                total.fetch_add(reads, Ordering::Relaxed);
            });
        }
    });
    eprintln!("{total:?} samples");
}

fn room_for_three(processes: u64, compression: Option<&'static str>) {
    let scene = Scene::new(Shape { samples: 96, compression, ..SMALL });
    let largest = scene.index.shards.iter().map(|shard| shard.raw_data.bytes).max().unwrap();
    let limit = 3 * largest;
    // The normal run is short; the long one is ten minutes.
    let time = Duration::from_secs(if soak() > 1 { 60 * soak() as u64 } else { 3 });
    let done = AtomicBool::new(false);
    let most = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = (0, 0);
            while !done.load(Ordering::Relaxed) {
                // Twice: a shard that goes and one that comes while the folder is listed may
                // both count.
                let (one, two) = (usage(&scene.cache), usage(&scene.cache));
                most.0 = most.0.max(one.0.min(two.0));
                most.1 = most.1.max((one.0 + one.1).min(two.0 + two.1));
                std::thread::sleep(Duration::from_micros(200));
            }
            most
        });
        if processes == 1 {
            let (remote, cache) = (scene.url(), scene.cache.clone());
            let samples = scene.shape.samples;
            within(time + LIMIT, move || race(&remote, &cache, time, limit, 16, samples));
        } else {
            let task = format!("race {} {limit} {}", time.as_secs(), 16 / processes);
            let children: Vec<_> =
                (0..processes).map(|_| scene.child(&task).spawn().unwrap()).collect();
            for child in children {
                finish(child, time + LIMIT);
            }
        }
        done.store(true, Ordering::Relaxed);
        watch.join().unwrap()
    });
    let (shards, with_parts) = most;
    let what = format!(
        "{shards} bytes of shards, {with_parts} with those on their way; the limit is {limit}, the \
         largest shard {largest}"
    );
    eprintln!("at most {what}");
    scene.assert_nothing_left();
    scene.assert_cache_is_true();
    assert!(shards <= limit + largest, "{what}");
    assert!(with_parts <= limit + largest, "{what}");
}

#[test]
fn cache_limit_race_of_threads() {
    room_for_three(1, None);
}

#[test]
fn cache_limit_race_of_processes() {
    room_for_three(2, None);
}

/// What a shard is unpacked from takes up room as well.
#[test]
fn cache_limit_race_of_threads_that_unpack() {
    room_for_three(1, Some("zstd"));
}

#[test]
fn cache_limit_race_of_processes_that_unpack() {
    room_for_three(2, Some("zstd"));
}
