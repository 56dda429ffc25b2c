//! Servers that fail: each fault alone, a storm of them, and the limit on what they may cost.

use std::path::Path;
use std::time::{Duration, Instant};

use mds::{DatasetOptions, ErrorKind};

use crate::faultd::{Credentials, Fault};
use crate::scene::{LIMIT, SMALL, Scene, Shape, check_epoch, finish, open, options};
use crate::support::within;

/// An epoch under a storm that fails three of ten requests for shards.
#[track_caller]
fn survives_a_storm(shape: Shape, faults: &[Fault], options: DatasetOptions, cost: f64) {
    let scene = Scene::new(shape);
    scene.server.storm("shard.", faults, 7);
    scene.epoch(options).unwrap();
    scene.assert_nothing_left();
    scene.assert_cache_is_true();
    let requests = scene.server.requests_for("shard.");
    assert!(requests >= scene.shards(), "{requests}");
    assert!(
        requests as f64 <= cost * scene.shards() as f64,
        "{requests} requests for {} shards under {faults:?}",
        scene.shards()
    );
}

#[test]
fn statuses_of_overload_cost_half_as_much_again() {
    survives_a_storm(SMALL, &Fault::OVERLOAD, options(), 1.5);
}

#[test]
fn resets_are_survived() {
    survives_a_storm(SMALL, &[Fault::Reset, Fault::ResetInBody], options(), 1.5);
}

#[test]
fn truncated_bodies_are_survived() {
    survives_a_storm(SMALL, &[Fault::Truncated], options(), 1.5);
}

/// A body that is declared longer than the object: the rest is asked for, refused, and the whole
/// asked for again.
#[test]
fn lengths_that_are_too_long_are_survived() {
    let shape = Shape { samples: 60, ..SMALL };
    survives_a_storm(shape, &[Fault::LongLength], options(), 2.5);
}

#[test]
fn stalls_end_and_are_survived() {
    let options = DatasetOptions { download_timeout: Duration::from_millis(500), ..options() };
    let shape = Shape { samples: 120, ..SMALL };
    survives_a_storm(shape, &[Fault::Stall, Fault::Silence], options, 1.6);
}

#[test]
fn what_is_slow_yet_comes_is_waited_for() {
    // A shard takes two seconds, which is within the limit of five.
    let shape = Shape { samples: 40, ..SMALL };
    survives_a_storm(shape, &[Fault::Slow(2000)], options(), 1.01);
}

#[test]
fn redirects_are_followed() {
    let scene = Scene::new(Shape { samples: 40, ..SMALL });
    scene.server.storm("bucket/shard.", &[Fault::Redirect], 7);
    scene.epoch(options()).unwrap();
    scene.assert_nothing_left();
    scene.assert_cache_is_true();
}

/// What arrives whole and is wrong is fetched once more, with hashes and without: sizes are enough
/// for all of these.
#[test]
fn wrong_bodies_are_fetched_again_once() {
    for fault in [Fault::ErrorPage, Fault::ShortLength, Fault::ChangedTag] {
        for (compression, hashed) in [(None, true), (None, false), (Some("zstd"), false)] {
            let shape = Shape { samples: 24, compression, hashed, ..SMALL };
            let scene = Scene::new(shape);
            scene.server.next("shard.", &[fault]);
            scene.epoch(options()).unwrap();
            scene.assert_nothing_left();
            scene.assert_cache_is_true();
            let requests = scene.server.requests_for("shard.");
            // A changed object shows when the download is resumed, and is asked what it is now.
            let most = scene.shards() + if fault == Fault::ChangedTag { 3 } else { 1 };
            assert!(requests <= most, "{requests} for {} under {fault:?}", scene.shards());
        }
    }
}

#[test]
fn an_index_that_is_a_page_or_cut_short_is_refused_or_read_again() {
    for fault in [Fault::ErrorPage, Fault::ShortLength, Fault::Truncated, Fault::ResetInBody] {
        let scene = Scene::new(Shape { samples: 24, ..SMALL });
        scene.server.next("index.json", &[fault]);
        match scene.epoch(options()) {
            Ok(()) => scene.assert_cache_is_true(),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                let text = error.to_string();
                assert!(text.contains(&scene.url()), "{text}");
                scene.epoch(options()).unwrap();
            }
        }
        scene.assert_nothing_left();
    }
}

/// Faults that never end: a typed error in time, which names the object and leaves nothing.
#[test]
fn faults_without_an_end_are_errors_that_name_the_object() {
    let patient = options();
    let options = DatasetOptions {
        download_timeout: Duration::from_millis(400),
        download_retry: 3,
        ..patient
    };
    // The kind, and the most requests for one shard. `object_store` resumes a body that breaks off as
    // often as it repeats a request, within each attempt; a wrong file is fetched once more.
    let cases = [
        (Fault::Status(500), ErrorKind::Download, 3),
        (Fault::Refusal(503, "SlowDown"), ErrorKind::Download, 3),
        (Fault::Reset, ErrorKind::Download, 3),
        (Fault::Silence, ErrorKind::Download, 3),
        (Fault::ResetInBody, ErrorKind::Download, 9),
        (Fault::Stall, ErrorKind::Download, 9),
        (Fault::Slow(100), ErrorKind::Download, 9),
        (Fault::Truncated, ErrorKind::Download, 9),
        (Fault::ChangedTag, ErrorKind::Download, 9),
        (Fault::LongLength, ErrorKind::Corrupt, 2),
        (Fault::RedirectLoop, ErrorKind::Download, 36),
        (Fault::ErrorPage, ErrorKind::Corrupt, 2),
        (Fault::ShortLength, ErrorKind::Corrupt, 2),
        (Fault::Status(400), ErrorKind::Download, 1),
        (Fault::Refusal(403, "AccessDenied"), ErrorKind::PermissionDenied, 1),
        (Fault::Status(401), ErrorKind::PermissionDenied, 1),
        (Fault::Refusal(404, "NoSuchKey"), ErrorKind::NotFound, 1),
    ];
    let failures: Vec<String> = std::thread::scope(|scope| {
        let runs = cases.map(|(fault, kind, most)| {
            let options = options.clone();
            scope.spawn(move || {
                let mut failures = vec![];
                let scene = Scene::new(Shape { samples: 24, ..SMALL });
                let dataset = open(&scene.url(), &scene.cache, options).unwrap();
                scene.server.always("shard.00001", fault);
                dataset.sample(0).unwrap();
                let number = scene.index.shards[0].samples;
                let started = Instant::now();
                let read = {
                    let dataset = dataset.clone();
                    move || dataset.sample(number)
                };
                let error = within(LIMIT, read).unwrap_err();
                let took = started.elapsed();
                let text = error.to_string();
                if error.kind() != kind || !text.contains("shard.00001.mds") {
                    failures.push(format!("{fault:?}: {:?} {text}", error.kind()));
                }
                let requests = scene.server.requests_for("shard.00001");
                if requests > most {
                    failures.push(format!("{fault:?}: {requests} requests, not {most}: {text}"));
                }
                if took > Duration::from_secs(20) {
                    failures.push(format!("{fault:?}: {took:?}: {text}"));
                }
                scene.assert_nothing_left();
                scene.assert_cache_is_true();
                scene.server.well();
                within(LIMIT, move || check_epoch(dataset, 24)).unwrap();
                failures
            })
        });
        runs.into_iter().flat_map(|run| run.join().unwrap()).collect()
    });
    assert!(failures.is_empty(), "{failures:#?}");
}

/// `download_retry` is attempts in total, for what breaks in the body, too.
#[test]
fn a_body_that_breaks_off_is_asked_for_as_often_as_was_said() {
    for fault in [Fault::Truncated, Fault::ResetInBody] {
        let scene = Scene::new(Shape { samples: 24, ..SMALL });
        let options = DatasetOptions { download_retry: 3, ..options() };
        let dataset = open(&scene.url(), &scene.cache, options).unwrap();
        scene.server.always("shard.00000", fault);
        let error = within(LIMIT, move || dataset.sample(0)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Download, "{error}");
        // And one that asks whether the object has changed meanwhile.
        assert_eq!(scene.server.requests_for("shard.00000"), 3 + 1, "{fault:?}: {error}");
    }
}

/// Shards that are large enough to come in parts, several at a time.
const LARGE: Shape =
    Shape { samples: 120_000, shard_bytes: 20 << 20, compression: None, hashed: true };

#[test]
fn parts_of_large_shards_survive_a_storm() {
    let scene = Scene::new(LARGE);
    let faults = [
        Fault::ResetInBody,
        Fault::Refusal(503, "SlowDown"),
        Fault::Truncated,
        Fault::Reset,
        Fault::Status(500),
    ];
    scene.server.storm("shard.", &faults, 3);
    scene.epoch(options()).unwrap();
    scene.assert_nothing_left();
    scene.assert_cache_is_true();
}

/// The object changes between two parts: what came of the old one is thrown away.
#[test]
fn a_large_shard_that_changes_midway_is_fetched_anew() {
    let scene = Scene::new(Shape { samples: 45_000, ..LARGE });
    scene.server.next("shard.00000", &[Fault::ChangedTag]);
    scene.epoch(options()).unwrap();
    scene.assert_nothing_left();
    scene.assert_cache_is_true();
}

/// The same server as a bucket, with keys from the agent of the machine that are good for half a
/// second: the epoch outlives them.
#[test]
fn keys_that_expire_are_renewed() {
    let scene = Scene::new(Shape { samples: 120, ..SMALL });
    scene.server.demand(Credentials { life: Duration::from_millis(500) });
    scene.server.set_pace(Some(20_000));
    let token = scene.dir.path().join("token");
    std::fs::write(&token, "token of the agent").unwrap();
    let mut command = scene.child_at("epoch", "s3://bucket", &scene.cache);
    scene.with_s3(&mut command);
    command
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", scene.server.url("credentials"))
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &token);
    let started = Instant::now();
    finish(command.spawn().unwrap(), LIMIT);
    assert!(started.elapsed() > Duration::from_millis(600), "the keys have not expired");
    assert_eq!(scene.server.refused_keys(), 0);
    scene.assert_nothing_left();
    scene.assert_cache_is_true();
}

#[test]
fn keys_that_have_expired_are_an_error_without_a_second_request() {
    let scene = Scene::new(Shape { samples: 24, ..SMALL });
    scene.server.demand(Credentials { life: Duration::from_secs(60) });
    let mut command = scene.child_at("denied", "s3://bucket", &scene.cache);
    scene.with_s3(&mut command);
    command
        .env("AWS_ACCESS_KEY_ID", "AKIATEST")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .env("AWS_SESSION_TOKEN", "of yesterday");
    finish(command.spawn().unwrap(), LIMIT);
    assert_eq!(scene.server.refused_keys(), 1);
    scene.assert_nothing_left();
}

/// In a process of its own.
pub(crate) fn expect_denied(remote: &str, local: &Path) {
    let error = open(remote, local, options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    assert!(error.to_string().contains("s3://bucket/index.json"), "{error}");
}

/// A bucket under the same storm as a plain server.
#[test]
fn a_bucket_survives_a_storm() {
    let scene = Scene::new(SMALL);
    let faults = [Fault::Refusal(503, "SlowDown"), Fault::ResetInBody, Fault::Truncated];
    scene.server.storm("shard.", &faults, 11);
    let mut command = scene.child_at("epoch", "s3://bucket", &scene.cache);
    scene.with_s3(&mut command);
    command.env("AWS_ACCESS_KEY_ID", "AKIATEST").env("AWS_SECRET_ACCESS_KEY", "secret");
    finish(command.spawn().unwrap(), LIMIT);
    scene.assert_nothing_left();
    scene.assert_cache_is_true();
    let requests = scene.server.requests_for("shard.");
    assert!(requests as f64 <= 1.5 * scene.shards() as f64 + 1.0, "{requests}");
}
