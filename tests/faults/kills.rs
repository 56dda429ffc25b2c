//! Readers that are killed at any moment, alone and beside others.

use std::time::{Duration, Instant};

use crate::scene::{LIMIT, Random, SMALL, Scene, Shape, finish, soak};

/// Other moments in each run.
fn moments() -> Random {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = now.as_nanos() as u64;
    eprintln!("seed {seed}");
    Random(seed)
}

/// Kills `kills` readers of a cold cache, one after the other; the last one is let live.
fn killed_in_a_download(shape: Shape, kills: usize) {
    let scene = Scene::new(shape);
    // The epoch takes about half a second.
    scene.server.set_pace(Some(60_000));
    let mut random = moments();
    let mut killed = 0;
    while killed < kills {
        let mut child = scene.child("epoch").spawn().unwrap();
        let pause = Duration::from_millis(random.below(250));
        let deadline = Instant::now() + pause;
        while Instant::now() < deadline && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        match child.try_wait().unwrap() {
            Some(status) => {
                assert!(status.success(), "{status}");
                scene.assert_nothing_left();
                std::fs::remove_dir_all(&scene.cache).unwrap();
            }
            None => {
                child.kill().unwrap();
                child.wait().unwrap();
                killed += 1;
            }
        }
        scene.assert_cache_is_true();
    }
    finish(scene.child("epoch").spawn().unwrap(), LIMIT);
    scene.assert_nothing_left();
    scene.assert_cache_is_true();
}

#[test]
fn kill9_mid_download() {
    killed_in_a_download(SMALL, 14 * soak());
}

#[test]
fn kill9_mid_download_of_compressed_shards() {
    killed_in_a_download(Shape { compression: Some("zstd"), ..SMALL }, 6 * soak());
}

/// Six processes share a cache; one is killed, the others go on.
#[test]
fn kill9_one_of_n_ranks() {
    let mut random = moments();
    for _ in 0..(if soak() > 1 { 5 * soak() } else { 3 }) {
        let scene = Scene::new(Shape { samples: 120, ..SMALL });
        scene.server.set_pace(Some(30_000));
        let mut ranks: Vec<_> = (0..6).map(|_| scene.child("epoch").spawn().unwrap()).collect();
        std::thread::sleep(Duration::from_millis(30 + random.below(300)));
        let mut victim = ranks.swap_remove(random.below(6) as usize);
        victim.kill().unwrap();
        victim.wait().unwrap();
        let started = Instant::now();
        for rank in ranks {
            finish(rank, Duration::from_secs(20));
        }
        // A survivor waits for the victim's shard no longer than it takes to fetch it.
        eprintln!("the survivors were done after {:?}", started.elapsed());
        scene.assert_cache_is_true();
        let requests = scene.server.requests_for("shard.");
        // Each shard once, and once more what the victim was fetching with its threads.
        assert!(requests <= scene.shards() + 8, "{requests}");
        // The survivors had looked for leftovers before there were any: the next reader does.
        finish(scene.child("epoch").spawn().unwrap(), LIMIT);
        scene.assert_nothing_left();
    }
}
