//! Conversions to a bucket that end before their time, and the same command again.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

#[path = "support/bucket.rs"]
mod bucket;
#[path = "support/listing.rs"]
mod listing;
#[path = "support/long_source.rs"]
mod long_source;
#[path = "support/workshop.rs"]
mod workshop;

use bucket::{Bucket, Fault, Rule};
use long_source::{args, tokenizer, write_source};
use workshop::{Workshop, entries, stderr};

/// What a conversion that was never interrupted makes, by the keys that it has in the bucket.
fn whole(shop: &Workshop) -> BTreeMap<String, Vec<u8>> {
    shop.succeed(&args("whole", &tokenizer()));
    let folder = shop.path("whole/val");
    let file = |name: String| (format!("run/val/{name}"), fs::read(folder.join(&name)).unwrap());
    entries(&folder).into_iter().map(file).collect()
}

/// The numbers of the shards that were put since the last call, without those that are put twice.
fn shards_put(bucket: &Bucket) -> Vec<usize> {
    let requests = bucket.take_requests();
    let puts = requests.iter().filter_map(|request| request.strip_prefix("PUT run/val/shard."));
    let mut numbers: Vec<usize> = puts.map(|name| name[..5].parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

#[test]
fn a_remote_that_refuses_a_shard_gets_the_rest_later() {
    let (shop, bucket) = (Workshop::new(), Bucket::start());
    write_source(&shop);
    let whole = whole(&shop);
    let last = whole.len() - 4;
    assert!(last > 125, "{last}");
    let address = bucket.address("run");
    let tokenizer = tokenizer();
    let same = args(&address, &tokenizer);

    bucket.fail(Some(Rule {
        method: "PUT",
        key: "shard.00120",
        after: 0,
        fault: Fault::Status(403),
    }));
    let out = shop.run(&same);
    let said = stderr(&out);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("complete shards kept in ") && !said.contains(bucket::SECRET), "{said}");
    assert!(
        bucket.keys().contains(&"run/val/.part/progress.json".to_owned()),
        "{:?}",
        bucket.keys()
    );
    assert!(!bucket.keys().contains(&"run/val/index.json".to_owned()));
    bucket.fail(None);
    shards_put(&bucket);

    // Another conversion is refused before it reads anything.
    let other: Vec<&str> = same.iter().map(|&arg| if arg == "100" { "101" } else { arg }).collect();
    let refusal = shop.fail(&other);
    let start =
        "s3://bucket/run/val/.part was begun with --concat_tokens 100, not --concat_tokens 101; ";
    assert!(refusal.starts_with(start), "{refusal}");

    let said = stderr(&shop.succeed(&same));
    assert!(said.contains("val: going on with the "), "{said}");
    let put = shards_put(&bucket);
    assert!(put[0] > 100 && *put.last().unwrap() == last, "{put:?}");
    assert!(bucket.objects() == whole, "{:?}", bucket.keys());
}

#[test]
fn a_killed_run_is_gone_on_with_at_the_remote() {
    let (shop, bucket) = (Workshop::new(), Bucket::start());
    write_source(&shop);
    let whole = whole(&shop);
    let (address, tokenizer) = (bucket.address("run"), tokenizer());
    let same = args(&address, &tokenizer);
    // It waits for an answer when it is killed.
    bucket.fail(Some(Rule { method: "PUT", key: "shard.00125", after: 0, fault: Fault::Silence }));
    let mut child = shop.command(&same).stderr(Stdio::null()).spawn().unwrap();
    bucket.wait_for_silence();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !bucket.keys().contains(&"run/val/.part/progress.json".to_owned()) {
        assert!(Instant::now() < deadline, "no record");
        sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    bucket.fail(None);
    shards_put(&bucket);

    let said = stderr(&shop.succeed(&same));
    assert!(said.contains("val: going on with the "), "{said}");
    let put = shards_put(&bucket);
    assert!(put[0] > 60, "{put:?}");
    assert!(bucket.objects() == whole, "{:?}", bucket.keys());

    // A shard that has gone since is made again, and those after it.
    bucket.remove("run/val/index.json");
    bucket.remove("run/val/shard.00003.mds");
    shop.succeed(&same);
    assert!(bucket.objects() == whole);
}

#[test]
fn what_is_unfinished_at_a_remote_can_be_begun_anew() {
    let (shop, bucket) = (Workshop::new(), Bucket::start());
    write_source(&shop);
    let (address, tokenizer) = (bucket.address("run"), tokenizer());
    let same = args(&address, &tokenizer);
    bucket.fail(Some(Rule {
        method: "PUT",
        key: "shard.00120",
        after: 0,
        fault: Fault::Status(403),
    }));
    assert_eq!(shop.run(&same).status.code(), Some(1));
    bucket.fail(None);
    shards_put(&bucket);
    let said = stderr(&shop.succeed(&[&same[..], &["--restart"]].concat()));
    assert!(!said.contains("going on"), "{said}");
    assert_eq!(shards_put(&bucket)[0], 0);
    assert!(bucket.objects() == whole(&shop), "{:?}", bucket.keys());
}
