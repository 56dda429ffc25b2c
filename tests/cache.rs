//! The cache that processes share: how often the remote is asked, how much room it takes, where it
//! lies, and what the tools do with it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;
#[path = "support/inspect.rs"]
mod tool;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use mds::{DatasetOptions, ErrorKind, Loader, LoaderOptions, Sample, Stream, StreamingDataset};
use support::{HASHED, Mood, PLAIN, Server, ZIPPED, files, text, write};
use tool::{inspect, path};

fn options(batch_size: usize) -> DatasetOptions {
    let mut options =
        DatasetOptions { download_timeout: Duration::from_secs(5), ..Default::default() };
    options.order.batch_size = Some(batch_size);
    options
}

fn open(remote: &str, cache: &Path, options: DatasetOptions) -> mds::Result<Arc<StreamingDataset>> {
    StreamingDataset::open(vec![Stream::cached(remote, cache)], options)
}

/// The bytes of the shards in a folder, those that are half there included.
fn bytes_in(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let shards = entries.flatten().filter(|entry| {
        let name = entry.file_name().into_string().unwrap();
        name.contains("shard.") && !name.ends_with(".lock")
    });
    shards.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

#[test]
fn a_thousand_ranks_fetch_the_index_once() {
    let dir = tempfile::tempdir().unwrap();
    let (root, cache) = (dir.path().join("remote"), dir.path().join("cache"));
    write(&root, 200, &HASHED);
    let server = Server::start(&root);
    let start = Barrier::new(100);
    let opened: Vec<_> = thread::scope(|scope| {
        let rank = |_| {
            scope.spawn(|| {
                start.wait();
                let open = || {
                    let started = Instant::now();
                    (open(&server.url(""), &cache, options(4)).unwrap(), started.elapsed())
                };
                (0..10).map(|_| open()).collect::<Vec<_>>()
            })
        };
        let threads: Vec<_> = (0..100).map(rank).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let slowest = opened.iter().map(|(_, took)| *took).max().unwrap();
    assert_eq!(opened.len(), 1000);
    assert_eq!(server.gets()["index.json"], 1);
    // nextest runs this test alone (.config/nextest.toml); elsewhere others take of the processors.
    let bar = if std::env::var_os("MDS_SOAK").is_some() { 5 } else { 20 };
    assert!(slowest < Duration::from_secs(bar), "{slowest:?}");

    // What they read is fetched once as well.
    thread::scope(|scope| {
        for (dataset, _) in &opened[..16] {
            scope.spawn(|| (0..200).for_each(|id| drop(dataset.sample(id).unwrap())));
        }
    });
    assert!(server.shard_gets().values().all(|gets| *gets == 1), "{:?}", server.gets());
    drop(opened);
    assert_eq!(files(&cache), files(&root));

    // Nobody uses it any more, so it is looked at again.
    open(&server.url(""), &cache, options(4)).unwrap();
    assert_eq!(server.gets()["index.json"], 2);
}

#[test]
fn a_dataset_that_changed_is_noticed_and_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (root, cache) = (dir.path().join("remote"), dir.path().join("cache"));
    let old = write(&root, 30, &HASHED);
    let server = Server::start(&root);
    let first = open(&server.url(""), &cache, options(4)).unwrap();
    first.sample(0).unwrap();
    std::fs::remove_dir_all(&root).unwrap();
    let new = write(&root, 31, &HASHED);

    // Who comes while the old one is read reads the old one: what is there of it.
    let second = open(&server.url(""), &cache, options(4)).unwrap();
    assert_eq!(second.index_fingerprint(), old.fingerprint());
    assert_eq!(second.sample(0).unwrap().str("text").unwrap(), text(0));

    let refused = || {
        let error = open(&server.url(""), &cache, options(4)).unwrap_err();
        // tests/streaming.rs has the message word for word.
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert!(error.to_string().contains(&new.fingerprint()), "{error}");
    };
    // Who comes later looks again, and reads nothing while the others go on.
    let entries = std::fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path());
    let mut uses = entries.filter(|path| path.to_str().unwrap().contains("/.used-"));
    let in_use = std::fs::File::open(uses.next().unwrap()).unwrap();
    in_use.set_modified(std::time::SystemTime::now() - Duration::from_secs(61)).unwrap();
    refused();
    assert_eq!(first.sample(0).unwrap().str("text").unwrap(), text(0));
    drop((first, second));
    refused();
}

/// Flips one bit of a cached index so that it is still one.
fn flip(cache: &Path) {
    let path = cache.join("index.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let damaged = text.replacen("\"samples\": 12", "\"samples\": 13", 1);
    assert_ne!(text, damaged);
    mds::format::Index::parse(damaged.as_bytes()).unwrap();
    std::fs::write(&path, damaged).unwrap();
}

#[test]
fn a_damaged_cached_index_is_not_another_dataset() {
    let dir = tempfile::tempdir().unwrap();
    let (root, cache) = (dir.path().join("remote"), dir.path().join("cache"));
    let old = write(&root, 30, &HASHED);
    let mut server = Server::start(&root);
    let address = server.url("");
    let first = open(&address, &cache, options(4)).unwrap();
    first.sample(0).unwrap();
    let sound = std::fs::read(cache.join("index.json")).unwrap();

    // While somebody reads it, and when nobody does.
    flip(&cache);
    let second = open(&address, &cache, options(4)).unwrap();
    assert_eq!(second.index_fingerprint(), old.fingerprint());
    assert_eq!(std::fs::read(cache.join("index.json")).unwrap(), sound);
    drop((first, second));
    for damage in
        [flip as fn(&Path), |cache| std::fs::write(cache.join("index.json"), "{").unwrap()]
    {
        damage(&cache);
        let third = open(&address, &cache, options(4)).unwrap();
        assert_eq!(third.index_fingerprint(), old.fingerprint());
        assert_eq!(third.sample(0).unwrap().str("text").unwrap(), text(0));
        assert_eq!(std::fs::read(cache.join("index.json")).unwrap(), sound);
    }

    // A damaged seal alone does no harm, and neither does one that is not there.
    std::fs::write(cache.join(".index.seal"), "x").unwrap();
    open(&address, &cache, options(4)).unwrap();
    let seal = std::fs::read_to_string(cache.join(".index.seal")).unwrap();
    assert!(seal.starts_with(&format!("{} ", old.fingerprint())), "{seal}");
    std::fs::write(cache.join(".index.seal"), "0".repeat(32) + " " + &"0".repeat(32)).unwrap();
    open(&address, &cache, options(4)).unwrap();
    assert_eq!(std::fs::read_to_string(cache.join(".index.seal")).unwrap(), seal);

    // Damaged, and the remote has changed: the shards here are of the old dataset.
    flip(&cache);
    std::fs::remove_dir_all(&root).unwrap();
    let new = write(&root, 31, &HASHED);
    let error = open(&address, &cache, options(4)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(
        error.to_string(),
        format!(
            "the cache {} holds another dataset (index {}) than {} (index {}); remove that folder \
             or choose another local one",
            cache.display(),
            old.fingerprint(),
            address,
            new.fingerprint()
        )
    );

    // And nobody to ask.
    server.stop();
    let error = open(&address, &cache, options(4)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Download);
    let what = format!(
        "the cached index {} is damaged: cannot download {}",
        cache.join("index.json").display(),
        address
    );
    assert!(error.to_string().starts_with(&what), "{error}");
}

#[test]
fn readers_share_a_cache_with_room_for_three_shards() {
    let dir = tempfile::tempdir().unwrap();
    for (name, kind) in [("plain", PLAIN), ("zipped", ZIPPED)] {
        let (root, cache) = (dir.path().join(name), dir.path().join(format!("{name}-cache")));
        let index = write(&root, 200, &kind);
        assert!(index.shards.len() > 16);
        let largest = index.shards.iter().map(|shard| shard.raw_bytes()).max().unwrap();
        let limit = 3 * largest;
        let server = Server::start(&root);
        server.set_mood(Mood::Slow);
        let (done, most) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    most.fetch_max(bytes_in(&cache) as usize, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(1));
                }
            });
            // Two datasets, as if of two processes: they know of one another by files alone.
            let datasets = [(); 2].map(|()| {
                let options = DatasetOptions { cache_limit: Some(limit), ..options(4) };
                open(&server.url(""), &cache, options).unwrap()
            });
            let reader = |number: u64| {
                let dataset = Arc::clone(&datasets[number as usize % 2]);
                scope.spawn(move || {
                    for step in 0..12 {
                        let id = (number * 61 + step * 37) % 200;
                        let sample = dataset.sample(id).unwrap();
                        assert_eq!(sample.str("text").unwrap(), text(id));
                    }
                })
            };
            let readers: Vec<_> = (0..16).map(reader).collect();
            readers.into_iter().for_each(|reader| reader.join().unwrap());
            done.store(true, Ordering::Relaxed);
            let evicted: u64 = datasets.iter().map(|d| d.stats().evicted_shards).sum();
            assert!(evicted > 10, "{evicted} evicted");
        });
        let most = most.into_inner() as u64;
        assert!(most > largest && most <= limit + largest, "{most} of {limit} + {largest} bytes");
        assert!(
            files(&cache).keys().all(|name| !name.starts_with('.')),
            "{:?}",
            files(&cache).keys()
        );
    }
}

#[test]
fn samples_that_are_kept_do_not_fill_a_limited_cache() {
    let dir = tempfile::tempdir().unwrap();
    let (root, cache) = (dir.path().join("remote"), dir.path().join("cache"));
    let index = write(&root, 100, &HASHED);
    let options = DatasetOptions { cache_limit: Some(3000), ..options(5) };
    let dataset = open(root.to_str().unwrap(), &cache, options).unwrap();
    let kept: Vec<Sample> = (0..100).map(|id| dataset.sample(id).unwrap()).collect();
    let mut loader = Loader::new(Arc::clone(&dataset), LoaderOptions::default(), Ok);
    let mut batches = Vec::new();
    while let Some(batch) = loader.next_batch().unwrap() {
        batches.extend(batch.items);
    }
    assert!(bytes_in(&cache) <= 4000);
    drop(loader);
    for (id, sample) in kept.iter().enumerate() {
        assert_eq!(sample.str("text").unwrap(), text(id as u64));
        assert_eq!((sample.id(), sample.schema().columns().len()), (id as u64, 3));
    }
    assert_eq!(batches.len(), 100);
    let stats = dataset.stats();
    assert!(stats.fetched_shards as usize >= 2 * index.shards.len(), "{stats:?}");
    assert!(stats.evicted_shards > 0 && stats.evicted_bytes > 0, "{stats:?}");
    assert!(stats.downloaded_bytes > index.shards.iter().map(|s| s.raw_bytes()).sum());
    assert!(stats.wait > Duration::ZERO);
}

#[test]
fn the_caches_of_a_user_are_listed_checked_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (root, caches) = (dir.path().join("remote"), dir.path().join("caches"));
    let index = write(&root.join("val"), 50, &HASHED);
    let server = Server::start(&root);
    let of_user = |args: &[&str]| inspect(args).env("MDS_CACHE_DIR", path(&caches));
    let folder = caches.display().to_string();
    assert_eq!(of_user(&["cache", "list"]).succeeds(), format!("0 caches in {folder}, 0 bytes\n"));

    of_user(&[&server.url("")]).succeeds();
    assert_eq!(caches.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let listed = of_user(&["cache", "list"]).succeeds();
    let name = listed.split("  ").next().unwrap().to_owned();
    assert!(name.starts_with("http-127.0.0.1-") && name.contains("-val-"), "{name}");
    let shards = index.shards.len();
    assert!(listed.contains(&format!("  {shards} of {shards} shards, ")), "{listed}");
    assert!(listed.contains(", last used ") && listed.contains("\n1 cache in "), "{listed}");
    assert_eq!(files(&caches.join(&name)), files(&root.join("val")));
    let sound = of_user(&["cache", "verify"]).succeeds();
    assert!(sound.starts_with(&format!("ok   {name}  {shards} shards, ")), "{sound}");

    let shard = caches.join(&name).join("shard.00001.mds");
    let mut bytes = std::fs::read(&shard).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&shard, bytes).unwrap();
    let verdict = of_user(&["cache", "verify", &name]).output();
    assert!(
        verdict.out.starts_with(&format!("BAD  {name}  shard shard.00001.mds: ")),
        "{}",
        verdict.out
    );
    assert_eq!(
        (verdict.code, verdict.err.as_str()),
        (1, "mds-inspect: 1 damaged file; what is damaged is fetched again when it is needed\n")
    );
    let mended = of_user(&[&server.url("")]).output();
    assert!(
        mended.err.starts_with(" WARN mds::cache: fetching the shard again "),
        "{}",
        mended.err
    );
    of_user(&["cache", "verify"]).succeeds();
    assert_eq!(server.gets()["val/shard.00001.mds"], 2);

    // In use: here by this process.
    let remote = format!("{}val", server.url(""));
    let in_use = open(&remote, &caches.join(&name), options(4)).unwrap();
    assert!(of_user(&["cache", "list"]).succeeds().contains(", in use\n"));
    let kept = of_user(&["cache", "clean", "--all"]).output();
    assert_eq!(
        (kept.code, kept.out.as_str(), kept.err),
        (
            1,
            "0 bytes freed\n",
            format!(
                "mds-inspect: in use and not removed: {name}; end the processes that read them first\n"
            )
        )
    );
    drop(in_use);
    std::fs::write(caches.join(&name).join("notes.txt"), "mine").unwrap();
    let cleaned = of_user(&["cache", "clean", &name]).succeeds();
    assert!(cleaned.starts_with(&format!("removed {name}, ")), "{cleaned}");
    let left = files(&caches);
    assert_eq!(left.keys().collect::<Vec<_>>(), [&format!("{name}/notes.txt")]);
    assert_eq!(
        of_user(&["cache", "clean", &name]).fails(),
        format!(
            "mds-inspect: there is no cache {name} in {folder}; see mds-inspect cache list for the names"
        )
    );
}

/// Datasets `a` and `b` at a server, both read into the caches of a user; their folder is the last.
fn two_caches(dir: &Path) -> (Server, PathBuf, PathBuf) {
    let (root, caches) = (dir.join("remote"), dir.join("caches"));
    write(&root.join("a"), 20, &HASHED);
    write(&root.join("b"), 20, &HASHED);
    let server = Server::start(&root);
    for split in ["a", "b"] {
        inspect(&[&server.url(split)]).env("MDS_CACHE_DIR", path(&caches)).succeeds();
    }
    (server, root, caches)
}

#[test]
fn a_cache_that_cannot_be_removed_does_not_keep_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, _, caches) = two_caches(dir.path());
    let of_user = |args: &[&str]| inspect(args).env("MDS_CACHE_DIR", path(&caches));
    let listed = of_user(&["cache", "list"]).succeeds();
    let first = listed.split("  ").next().unwrap();
    // A folder is not removed like a file, whoever tries.
    let shard = caches.join(first).join("shard.00000.mds");
    std::fs::remove_file(&shard).unwrap();
    std::fs::create_dir(&shard).unwrap();
    let cleaned = of_user(&["cache", "clean", "--all"]).output();
    let begin = format!("BAD  {first}  cannot remove {}", shard.display());
    assert!(cleaned.out.starts_with(&begin), "{}", cleaned.out);
    assert_eq!((cleaned.code, cleaned.err.as_str()), (1, "mds-inspect: 1 cache not removed\n"));
    let listed = of_user(&["cache", "list"]).succeeds();
    assert!(listed.starts_with(first) && listed.contains("\n1 cache in "), "{listed}");
    std::fs::remove_dir(&shard).unwrap();

    // What a process left that was killed before it had the index goes as well, and nothing else.
    let unfinished = caches.join("http-127.0.0.1-x-0123456789abcdef");
    for folder in [&unfinished, &caches.join("notes")] {
        std::fs::create_dir(folder).unwrap();
        std::fs::write(folder.join(".index.json.lock"), "").unwrap();
    }
    of_user(&["cache", "clean", "--all"]).succeeds();
    assert!(!unfinished.exists());
    assert_eq!(files(&caches).keys().collect::<Vec<_>>(), ["notes/.index.json.lock"]);
}

#[test]
fn kept_compressed_shards_are_checked_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let (root, caches) = (dir.path().join("remote"), dir.path().join("caches"));
    write(&root, 20, &ZIPPED);
    let server = Server::start(&root);
    let of_user = |args: &[&str]| inspect(args).env("MDS_CACHE_DIR", path(&caches));
    of_user(&[&server.url("")]).succeeds();
    let name = of_user(&["cache", "list"]).succeeds();
    let name = name.split("  ").next().unwrap();
    let cache = caches.join(name);
    let zip = cache.join("shard.00000.mds.zstd");
    assert!(!zip.exists());
    std::fs::remove_file(cache.join("shard.00000.mds")).unwrap();
    let kept = DatasetOptions { keep_zip: true, ..options(4) };
    open(&server.url(""), &cache, kept).unwrap().sample(0).unwrap();
    of_user(&["cache", "verify"]).succeeds();
    let mut bytes = std::fs::read(&zip).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&zip, bytes).unwrap();
    let verdict = of_user(&["cache", "verify"]).output();
    let begin = format!("BAD  {name}  shard shard.00000.mds.zstd: ");
    assert!(verdict.code == 1 && verdict.out.starts_with(&begin), "{}", verdict.out);
}

#[test]
fn a_damaged_cache_of_a_user_is_listed_and_removed_beside_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let (server, root, caches) = two_caches(dir.path());
    let of_user = |args: &[&str]| inspect(args).env("MDS_CACHE_DIR", path(&caches));
    // What no cache is called is none, whatever lies in it.
    std::fs::create_dir(caches.join("notes")).unwrap();
    std::fs::write(caches.join("notes/index.json"), "mine").unwrap();
    let listed = of_user(&["cache", "list"]).succeeds();
    let names: Vec<_> = listed.lines().map(|line| line.split("  ").next().unwrap()).collect();
    let [bad, sound, _] = names[..] else { panic!("{listed}") };
    std::fs::write(caches.join(bad).join("index.json"), "{\"version\": 2").unwrap();

    let listed = of_user(&["cache", "list"]).succeeds();
    assert!(listed.starts_with(&format!("{bad}  damaged index, ")), "{listed}");
    assert!(listed.contains(&format!("\n{sound}  ")), "{listed}");
    assert!(listed.contains("\n2 caches in "), "{listed}");
    let verdict = of_user(&["cache", "verify"]).output();
    let index = caches.join(bad).join("index.json");
    let begin = format!(
        "BAD  {bad}  dataset {}: the cached index {} is damaged: ",
        caches.join(bad).display(),
        index.display()
    );
    assert!(verdict.out.starts_with(&begin), "{}", verdict.out);
    assert!(verdict.out.contains(&format!("\nok   {sound}  ")), "{}", verdict.out);
    assert_eq!(
        (verdict.code, verdict.err.as_str()),
        (
            1,
            "mds-inspect: 1 damaged index or file; what is damaged is fetched again when it is needed\n"
        )
    );
    of_user(&["cache", "clean", bad]).succeeds();
    assert!(!caches.join(bad).exists());
    of_user(&["cache", "verify"]).succeeds();

    // The remote holds another dataset now.
    let split = if sound.contains("-a-") { "a" } else { "b" };
    std::fs::remove_dir_all(root.join(split)).unwrap();
    write(&root.join(split), 21, &HASHED);
    let refused = of_user(&[&server.url(split)]).fails();
    assert!(
        refused
            .ends_with(&format!("; run mds-inspect cache clean {sound}, or choose a local folder")),
        "{refused}"
    );
    of_user(&["cache", "clean", "--all"]).succeeds();
    assert_eq!(files(&caches).keys().collect::<Vec<_>>(), ["notes/index.json"]);
    assert_eq!(
        of_user(&["cache", "clean", "s3://b/c4?secret_access_key=TopSecret"]).fails(),
        format!(
            "mds-inspect: there is no cache s3://b/c4 in {}; see mds-inspect cache list for the \
             names",
            caches.display()
        )
    );
}

#[test]
fn a_cache_folder_that_others_can_reach_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("remote"), 10, &PLAIN);
    let server = Server::start(&dir.path().join("remote"));
    let caches = dir.path().join("caches");
    std::fs::create_dir(&caches).unwrap();
    std::fs::set_permissions(&caches, std::fs::Permissions::from_mode(0o755)).unwrap();
    let refused =
        |caches: &Path| inspect(&[&server.url("")]).env("MDS_CACHE_DIR", path(caches)).fails();
    let shown = caches.display();
    assert_eq!(
        refused(&caches),
        format!(
            "mds-inspect: the cache folder {shown} is open to other users; run chmod 700 {shown}"
        )
    );
    std::fs::set_permissions(&caches, std::fs::Permissions::from_mode(0o700)).unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&caches, &link).unwrap();
    assert_eq!(
        refused(&link),
        format!(
            "mds-inspect: the cache folder {} is a symbolic link; \
             remove it, or set MDS_CACHE_DIR to the folder itself",
            link.display()
        )
    );
    assert_eq!(files(&caches).len(), 0);
}

#[test]
fn a_folder_of_shards_without_an_index_is_no_cache() {
    let dir = tempfile::tempdir().unwrap();
    let (root, other) = (dir.path().join("root"), dir.path().join("other"));
    write(&root, 5, &PLAIN);
    write(&other, 9, &PLAIN);
    std::fs::remove_file(other.join("index.json")).unwrap();
    let before = files(&other);

    let server = Server::start(&root);
    // With the seal of another dataset, or an index that cannot be read, it is none either.
    for left in [
        None,
        Some((".index.seal", format!("{0} {0}", "0".repeat(32)))),
        Some(("index.json", "{".to_owned())),
    ] {
        if let Some((name, text)) = &left {
            std::fs::write(other.join(name), text).unwrap();
        }
        let error = open(&server.url(""), &other, options(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(
            error.to_string(),
            format!(
                "the folder {} holds a file shard.00000.mds, but no index that says of which dataset, \
                 so it cannot be the cache of {}; choose another local folder, or remove that one \
                 if nothing in it is needed",
                other.display(),
                server.url("")
            )
        );
        if let Some((name, text)) = &left {
            assert_eq!(&std::fs::read_to_string(other.join(name)).unwrap(), text);
            std::fs::remove_file(other.join(name)).unwrap();
        }
        assert_eq!(files(&other), before);
    }
    // Files of other names do no harm.
    let mixed = dir.path().join("mixed");
    std::fs::create_dir(&mixed).unwrap();
    std::fs::write(mixed.join("notes.txt"), "mine").unwrap();
    open(&server.url(""), &mixed, options(1)).unwrap().sample(4).unwrap();
}
