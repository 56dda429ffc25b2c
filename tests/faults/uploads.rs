//! Writing to servers that fail: what is there in the end is the whole dataset, or there is no index
//! and an error that says why. An index never names a shard that is not there.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use mds::format::{Encoding, HashAlgorithm, Index, Schema};
use mds::storage::RemoteOptions;
use mds::{DatasetOptions, ErrorKind, Output, Stream, StreamingDataset, Writer, WriterOptions};

use crate::faultd::{Fault, Faultd};
use crate::scene::{LIMIT, Random, Scene, finish, scratch, soak, text};
use crate::support::{files, within};

/// Ten shards of about 4 KB.
const SAMPLES: u64 = 80;

fn schema() -> Schema {
    Schema::new([("id", Encoding::Int), ("text", Encoding::Str)]).unwrap()
}

fn options(timeout: Duration, attempts: u32) -> WriterOptions {
    WriterOptions {
        hashes: vec![HashAlgorithm::Xxh64],
        size_limit: Some(4000),
        threads: Some(2),
        remote: RemoteOptions { timeout, attempts },
        ..WriterOptions::default()
    }
}

fn write(out: impl Into<Output>, samples: u64, options: WriterOptions) -> mds::Result<Index> {
    let mut writer = Writer::create(out, schema(), options)?;
    for id in 0..samples {
        writer.write(&[(id as i64).into(), text(id).as_str().into()])?;
    }
    writer.finish()
}

/// A server for the folder `served`, and what a writer should have put there.
struct Place {
    dir: tempfile::TempDir,
    server: Faultd,
}

impl Place {
    fn new() -> Self {
        let dir = scratch();
        let server = Faultd::start(&dir.path().join("served"));
        Self { dir, server }
    }

    /// The folder `out` on a plain web server, and as a bucket.
    fn addresses(&self) -> [String; 2] {
        let end = self.server.url("");
        let end = end.trim_end_matches('/');
        let keys = "access_key_id=AKIATEST&secret_access_key=secret&region=us-east-1";
        [self.server.url("web/out"), format!("s3://bucket/out?endpoint={end}&{keys}")]
    }

    /// What a folder of this machine gets, and what the server got at the place of an address.
    #[track_caller]
    fn check(&self, at: &str, samples: u64, options: WriterOptions, is_whole: bool) {
        let stored = self.dir.path().join("served").join(at).join("out");
        if !is_whole {
            assert!(!stored.join("index.json").exists(), "an index of a part of the dataset");
        }
        check_index(&stored);
        if is_whole {
            let expected = self.dir.path().join("expected");
            if !expected.exists() {
                write(expected.clone(), samples, options).unwrap();
            }
            assert!(files(&stored) == files(&expected), "{at}: not what was written");
        }
    }
}

/// All shards that an index names are there, whole.
#[track_caller]
fn check_index(folder: &Path) {
    let Ok(text) = std::fs::read(folder.join("index.json")) else { return };
    for shard in Index::parse(&text).unwrap().shards {
        let file = shard.stored();
        let bytes = std::fs::read(folder.join(file.basename.as_str())).unwrap();
        file.verify(&bytes).unwrap();
    }
}

/// Writes to both kinds of server under a storm that fails three of ten requests, and tries so often
/// that the storm passes.
#[track_caller]
fn survives_a_storm(faults: &[Fault], timeout: Duration) {
    for seed in 0..soak() as u64 {
        let place = Place::new();
        for (at, address) in ["web", "bucket"].into_iter().zip(place.addresses()) {
            place.server.storm("out/", faults, 5 + seed);
            let options = options(timeout, 10);
            let written = {
                let options = options.clone();
                within(LIMIT, move || write(address, SAMPLES, options))
            };
            let index = written.unwrap();
            place.check(at, SAMPLES, options, true);
            // One for each file, and the question whether there is an index already.
            let needed = index.shards.len() + 2;
            let requests = place.server.requests_for(&format!("{at}/out/"));
            let is_failure = !matches!(faults, [Fault::Slow(_)]);
            assert!(requests > needed || !is_failure, "{requests} requests: nothing failed");
        }
    }
}

#[test]
fn statuses_of_overload_are_survived() {
    survives_a_storm(&Fault::OVERLOAD, Duration::from_secs(5));
}

#[test]
fn requests_that_break_off_are_survived() {
    let faults = [Fault::Reset, Fault::ResetInBody, Fault::Truncated, Fault::LostAnswer];
    survives_a_storm(&faults, Duration::from_secs(5));
}

#[test]
fn silent_servers_are_survived() {
    survives_a_storm(&[Fault::Stall, Fault::Silence], Duration::from_millis(500));
}

#[test]
fn a_slow_server_is_waited_for() {
    // A shard takes a second.
    survives_a_storm(&[Fault::Slow(4000)], Duration::from_secs(5));
}

/// Faults that never end, of a shard in the middle and of the index.
#[test]
fn faults_without_an_end_are_errors_in_time() {
    let cases = [
        (Fault::Status(500), ErrorKind::Upload),
        (Fault::Refusal(503, "SlowDown"), ErrorKind::Upload),
        (Fault::Status(400), ErrorKind::Upload),
        (Fault::Refusal(403, "AccessDenied"), ErrorKind::PermissionDenied),
        (Fault::Status(401), ErrorKind::PermissionDenied),
        (Fault::Reset, ErrorKind::Upload),
        (Fault::ResetInBody, ErrorKind::Upload),
        (Fault::Truncated, ErrorKind::Upload),
        (Fault::Silence, ErrorKind::Upload),
        (Fault::Stall, ErrorKind::Upload),
        (Fault::Slow(100), ErrorKind::Upload),
    ];
    let failures: Vec<String> = std::thread::scope(|scope| {
        let runs = cases.map(|(fault, kind)| {
            scope.spawn(move || {
                let mut failures = vec![];
                for object in ["out/shard.00004.mds", "out/index.json"] {
                    let place = Place::new();
                    for (at, address) in ["web", "bucket"].into_iter().zip(place.addresses()) {
                        place.server.always_uploads(object, fault);
                        let options = options(Duration::from_millis(400), 2);
                        let started = Instant::now();
                        let written = {
                            let options = options.clone();
                            within(LIMIT, move || write(address, SAMPLES, options))
                        };
                        let took = started.elapsed();
                        let Err(error) = written else {
                            failures.push(format!("{fault:?} {at} {object}: no error"));
                            continue;
                        };
                        let text = error.to_string();
                        if error.kind() != kind || !text.contains(object) {
                            failures.push(format!("{fault:?} {at}: {:?} {text}", error.kind()));
                        }
                        if took > Duration::from_secs(20) {
                            failures.push(format!("{fault:?} {at}: {took:?}: {text}"));
                        }
                        place.check(at, SAMPLES, options, false);
                    }
                }
                failures
            })
        });
        runs.into_iter().flat_map(|run| run.join().unwrap()).collect()
    });
    assert!(failures.is_empty(), "{failures:#?}");
}

/// The last answer is lost for good: nobody can tell whether the index is there. It is, and so are
/// its shards.
#[test]
fn an_index_whose_answer_is_lost_is_that_of_a_whole_dataset() {
    for number in [0, 1] {
        let place = Place::new();
        let (at, address) = (["web", "bucket"][number], place.addresses()[number].clone());
        let local = place.dir.path().join("local");
        let both = || Output::Both { local: local.clone(), remote: address.clone() };
        place.server.always_uploads("out/index.json", Fault::LostAnswer);
        let options = options(Duration::from_secs(5), 2);
        let written = {
            let (out, options) = (both(), options.clone());
            within(LIMIT, move || write(out, SAMPLES, options))
        };
        let error = written.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Upload, "{error}");
        assert!(error.to_string().contains(" has all shards and perhaps the index, "), "{error}");
        place.check(at, SAMPLES, options.clone(), true);

        place.server.well();
        let mut writer = Writer::resume(both(), schema(), options.clone()).unwrap();
        assert_eq!(writer.samples(), SAMPLES);
        writer.write(&[0.into(), "one more".into()]).unwrap();
        drop(writer);
        Writer::resume(both(), schema(), options).unwrap().finish().unwrap();
        assert!(files(&local) == files(&place.dir.path().join("expected")));
    }
}

/// Two shards of 18 MiB, which go up to a bucket in parts.
#[test]
fn large_shards_survive_a_storm() {
    let samples = 4;
    let write = move |out: Output, options| {
        let schema = Schema::new([("x", Encoding::Bytes)])?;
        let mut writer = Writer::create(out, schema, options)?;
        for id in 0..samples {
            let sample: Vec<u8> = (0..9 << 20).map(|i: u32| (i % 251) as u8 ^ id as u8).collect();
            writer.write(&[sample.as_slice().into()])?;
        }
        writer.finish()
    };
    let faults = [
        Fault::ResetInBody,
        Fault::Refusal(503, "SlowDown"),
        Fault::Truncated,
        Fault::LostAnswer,
        Fault::Status(500),
    ];
    let options = WriterOptions { size_limit: Some(20 << 20), ..options(LIMIT, 10) };
    let place = Place::new();
    let expected = place.dir.path().join("expected");
    write(Output::Local(expected.clone()), options.clone()).unwrap();
    for (at, address) in ["web", "bucket"].into_iter().zip(place.addresses()) {
        place.server.storm("out/", &faults, 3);
        let options = options.clone();
        within(LIMIT, move || write(Output::Remote(address), options)).unwrap();
        let stored = place.dir.path().join("served").join(at).join("out");
        assert!(files(&stored) == files(&expected), "{at}");
    }
    let taken = place.server.taken();
    assert!(taken.iter().any(|taken| taken.query.contains("partNumber=3")), "no parts");

    // One part that never arrives: no object, and what was sent is taken back.
    let [_, address] = place.addresses();
    place.server.always_uploads("again/shard.00001.mds", Fault::Status(500));
    let options = WriterOptions { size_limit: Some(20 << 20), ..options_of_one_attempt() };
    let error =
        within(LIMIT, move || write(Output::Remote(address.replace("/out", "/again")), options));
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Upload, "{error}");
    let again = place.dir.path().join("served/bucket/again");
    // Of the other shard all may have come, or nothing.
    assert!(!again.join("shard.00001.mds").exists());
    assert!(!again.join("index.json").exists());
}

/// What a bucket got of an upload that does not end well is taken back.
#[test]
fn parts_do_not_stay_in_a_bucket() {
    const GOOD: Fault = Fault::Slow(1 << 30);
    let place = Place::new();
    let [_, address] = place.addresses();
    let are_taken_back = |object: &str| {
        let is_abort = |taken: &crate::faultd::Taken| {
            taken.method == "DELETE"
                && taken.path.ends_with(object)
                && taken.query.contains("uploadId=")
        };
        place.server.taken().iter().filter(|taken| is_abort(taken)).count() == 1
    };

    // The request that begins the upload, three parts, and the one that makes an object of them.
    let bad = Fault::Status(400);
    let file = place.dir.path().join("file");
    std::fs::write(&file, vec![7; 17 << 20]).unwrap();
    for (name, faults) in
        [("part", vec![GOOD, GOOD, bad, GOOD]), ("end", vec![GOOD, GOOD, GOOD, GOOD, bad])]
    {
        place.server.next("out/", &faults);
        let options = RemoteOptions { timeout: LIMIT, attempts: 1 };
        let remote = mds::storage::Remote::open(&address, options).unwrap();
        let file = file.clone();
        let error = within(LIMIT, move || remote.put_file(name, &file)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Upload, "{error}");
        assert!(are_taken_back(name), "{name}: {:?}", place.server.taken());
    }

    // A writer that is dropped, or stopped, while parts are on their way.
    for is_dropped in [true, false] {
        let name = if is_dropped { "dropped" } else { "stopped" };
        let object = format!("{name}/shard.00000.mds");
        let stalled = [GOOD, Fault::Silence, Fault::Silence, Fault::Silence];
        place.server.next("shard.00000.mds", &stalled);
        let schema = Schema::new([("x", Encoding::Bytes)]).unwrap();
        let options = WriterOptions { size_limit: Some(20 << 20), ..options(LIMIT, 1) };
        let to = address.replace("/out", &format!("/{name}"));
        let mut writer = Writer::create(to, schema, options).unwrap();
        let sample = vec![7; 9 << 20];
        (0..3).for_each(|_| writer.write(&[sample.as_slice().into()]).unwrap());
        let begun = Instant::now();
        while place.server.requests_for(&object) < 4 {
            assert!(begun.elapsed() < LIMIT, "no parts");
            std::thread::sleep(Duration::from_millis(5));
        }
        let stop = writer.stopper();
        let begun = Instant::now();
        within(LIMIT, move || {
            if !is_dropped {
                stop();
                let error = writer.finish().unwrap_err().to_string();
                let end = ": the work was given up because its loader or writer was stopped; \
                           start a new one";
                assert!(error.ends_with(end), "{error}");
            }
        });
        assert!(begun.elapsed() < Duration::from_secs(5), "{name}: {:?}", begun.elapsed());
        assert!(are_taken_back(&object), "{name}: {:?}", place.server.taken());
    }
}

/// Two writers at one address, one burst of the one after one of the other. Returns what each got.
fn write_in_turns(
    address: &str,
    samples: [&dyn Fn(u64) -> String; 2],
    options: &WriterOptions,
    random: &mut Random,
) -> [mds::Result<Index>; 2] {
    let out = || Output::Remote(address.to_owned());
    let begin = || Writer::create(out(), schema(), options.clone()).unwrap();
    let mut writers = [Some(begin()), Some(begin())];
    let mut written = [None, None];
    while written.iter().any(Option::is_none) {
        let who = random.below(2) as usize;
        for _ in 0..random.below(SAMPLES) + 1 {
            let Some(mut writer) = writers[who].take() else { break };
            let id = writer.samples();
            if id == SAMPLES {
                written[who] = Some(writer.finish());
                break;
            }
            match writer.write(&[(id as i64).into(), samples[who](id).as_str().into()]) {
                Ok(()) => writers[who] = Some(writer),
                Err(error) => written[who] = Some(Err(error)),
            }
        }
    }
    written.map(Option::unwrap)
}

/// What has an index in the end is the whole dataset of the one that was told so.
#[test]
fn of_two_writers_at_one_address_one_at_most_succeeds() {
    let samples: [&dyn Fn(u64) -> String; 2] = [&text, &|id| text(id + 1000)];
    let options = WriterOptions { threads: Some(1), ..options(Duration::from_secs(5), 2) };
    let mut whole = BTreeMap::<_, usize>::new();
    for seed in 0..25 * soak() as u64 {
        let place = Place::new();
        let served = place.dir.path().join("served");
        let folder = served.join("folder/out").to_str().unwrap().to_owned();
        let [_, bucket] = place.addresses();
        for (at, address) in [("bucket", bucket), ("folder", folder)] {
            let written = write_in_turns(&address, samples, &options, &mut Random(seed));
            let stored = served.join(at).join("out");
            let succeeded = written.iter().filter(|written| written.is_ok()).count();
            assert!(succeeded <= 1, "{at}, {seed}: both");
            assert_eq!(stored.join("index.json").exists(), succeeded == 1, "{at}, {seed}");
            *whole.entry((at, succeeded)).or_default() += 1;
            for (who, result) in written.into_iter().enumerate() {
                match result {
                    Ok(index) => check_samples(&stored, &index, samples[who]),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{at}, {seed}: {error}");
                    }
                }
            }
        }
    }
    assert!(whole.len() == 4 && whole.values().all(|times| *times > 2), "{whole:?}");
}

/// The samples of a dataset are those of its writer.
#[track_caller]
fn check_samples(folder: &Path, index: &Index, expected: impl Fn(u64) -> String) {
    check_index(folder);
    let stored = Index::parse(&std::fs::read(folder.join("index.json")).unwrap()).unwrap();
    assert_eq!(stored.to_json(), index.to_json());
    let stream = Stream { local: Some(folder.to_path_buf()), ..Stream::default() };
    let dataset = StreamingDataset::open(vec![stream], DatasetOptions::default()).unwrap();
    assert_eq!(dataset.num_samples(), SAMPLES);
    for id in 0..SAMPLES {
        assert_eq!(dataset.sample(id).unwrap().str("text").unwrap(), expected(id), "{id}");
    }
}

/// The index of another writer ends an upload before its next shard, and what another one wrote over
/// is told by its size.
#[test]
fn a_writer_says_what_another_one_did() {
    let options = WriterOptions { threads: Some(1), ..options(Duration::from_secs(5), 2) };
    for finishes in [true, false] {
        let place = Place::new();
        let [_, address] = place.addresses();
        let mut writer = Writer::create(address.as_str(), schema(), options.clone()).unwrap();
        let row = |id: u64| [(id as i64).into(), text(id).into()];
        (0..40).for_each(|id| writer.write(&row(id)).unwrap());
        let mut other = Writer::create(address.as_str(), schema(), options.clone()).unwrap();
        (100..120).for_each(|id| other.write(&row(id)).unwrap());
        if finishes {
            other.finish().unwrap();
            let before = place.server.taken().len();
            let result = (40..SAMPLES).try_for_each(|id| writer.write(&row(id)));
            assert_eq!(place.server.taken().len(), before, "an upload over a dataset");
            assert_eq!(
                result.unwrap_err().to_string(),
                "dataset s3://bucket/out, shard shard.00004.mds: the remote s3://bucket/out holds a \
                 dataset; choose another one, or delete it first if its data may go"
            );
        } else {
            (40..SAMPLES).for_each(|id| writer.write(&row(id)).unwrap());
            assert_eq!(
                writer.finish().unwrap_err().to_string(),
                "dataset s3://bucket/out, shard shard.00000.mds: the remote s3://bucket/out has 3961 \
                 bytes where 3846 bytes were uploaded; another program has written there too: write \
                 to another address"
            );
        }
    }
}

/// A store that does not know the request for what must not be there is asked first, and an answer
/// that was lost is asked for again.
#[test]
fn what_is_not_there_is_put_whatever_the_store_answers() {
    let faults = [
        (Fault::Refusal(501, "NotImplemented"), 1),
        (Fault::Refusal(400, "InvalidArgument"), 1),
        (Fault::Refusal(503, "SlowDown"), 2),
        (Fault::LostAnswer, 2),
    ];
    for (fault, attempts) in faults {
        let place = Place::new();
        let [_, address] = place.addresses();
        let options = RemoteOptions { timeout: Duration::from_secs(5), attempts };
        let remote = mds::storage::Remote::open(&address, options).unwrap();
        let put = |bytes: &'static str| {
            place.server.next("out/a", &[fault]);
            let remote = remote.clone();
            within(LIMIT, move || remote.put_new("a", bytes)).unwrap()
        };
        assert!(put("one") && put("one"), "{fault:?}");
        assert!(!put("two"), "{fault:?}");
        assert_eq!(remote.get("a", 9).unwrap(), b"one");
    }
}

/// What takes longer than the time limit because it is large is waited for, whole and in parts, and
/// what is as large and takes too long is not.
#[test]
fn a_large_shard_has_the_time_to_arrive() {
    let place = Place::new();
    let [web, bucket] = place.addresses();
    let file = place.dir.path().join("file");
    let options = RemoteOptions { timeout: Duration::from_secs(1), attempts: 1 };
    let put = |address: &str, size: usize, options: &RemoteOptions| {
        std::fs::write(&file, vec![7; size]).unwrap();
        let remote = mds::storage::Remote::open(address, options.clone()).unwrap();
        let (file, started) = (file.clone(), Instant::now());
        (within(LIMIT, move || remote.put_file("a", &file)), started.elapsed())
    };
    for (address, size, pace) in
        [(&web, 300_000, 200_000), (&bucket, 300_000, 200_000), (&bucket, 17 << 20, 6 << 20)]
    {
        place.server.always_uploads("out/a", Fault::Slow(pace));
        let (done, took) = put(address, size, &options);
        done.unwrap();
        assert!(took > Duration::from_millis(1200), "{took:?}: nothing was slow");
    }
    let options = RemoteOptions { timeout: Duration::from_millis(300), ..options };
    for (address, fault) in [(&web, Fault::Silence), (&bucket, Fault::Slow(20_000))] {
        place.server.always_uploads("out/a", fault);
        let (error, took) = put(address, 150_000, &options);
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Upload);
        assert!((1800..10_000).contains(&took.as_millis()), "{fault:?}: {took:?}");
    }
}

fn options_of_one_attempt() -> WriterOptions {
    options(Duration::from_secs(5), 1)
}

/// In a process of its own, which has `S3_CANNED_ACL`.
pub(crate) fn upload_both_ways(remote: &str) {
    write(remote, SAMPLES, options(Duration::from_secs(5), 2)).unwrap();
    let remote = mds::storage::Remote::open(remote, RemoteOptions::default()).unwrap();
    let large = tempfile::NamedTempFile::new().unwrap();
    large.as_file().set_len(17 << 20).unwrap();
    remote.put_file("large", large.path()).unwrap();
    assert_eq!(remote.size("large").unwrap(), Some(17 << 20));
}

/// The reference's variable: a header of the requests that make objects, signed, and of no other.
#[test]
fn new_objects_get_the_acl_of_the_environment() {
    let place = Place::new();
    let [_, address] = place.addresses();
    for acl in [Some("bucket-owner-full-control"), None] {
        let scene = Scene::new(crate::scene::Shape { samples: 8, ..crate::scene::SMALL });
        let before = place.server.taken().len();
        let to = address.replace("/out", if acl.is_some() { "/with" } else { "/without" });
        let mut command = scene.child_at("upload", &to, &scene.cache);
        command.env_remove("S3_CANNED_ACL").envs(acl.map(|acl| ("S3_CANNED_ACL", acl)));
        finish(command.spawn().unwrap(), LIMIT);
        let taken = place.server.taken().split_off(before);
        assert!(taken.len() > 14, "{taken:?}");
        for request in taken {
            // A part and the end of an upload belong to the request that began it.
            let makes = request.query.is_empty() || request.query.starts_with("uploads");
            let expected = acl.filter(|_| makes);
            let found = request.headers.get("x-amz-acl").map(String::as_str);
            assert_eq!(found, expected, "{} {}", request.method, request.query);
            assert_eq!(request.signs("x-amz-acl"), expected.is_some(), "{request:?}");
        }
    }
}
