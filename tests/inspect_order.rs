//! `mds-inspect order` as a user runs it, against a brute force that keeps everything.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/inspect.rs"]
mod program;
mod support;

use std::collections::{BTreeMap, BTreeSet};

use mds::order::{EpochOrder, OrderOptions, Plan, ShuffleAlgo, StreamShape, Weight, World};
use program::{Output, inspect, path};
use serde_json::Value as Json;
use support::{ZIPPED, write};

/// Shards of 7 to 13 samples; the largest weighs 1300 bytes, so that a sample weighs 100.
const SIZES: &str = "13x9,7,10x12,9";

fn sizes() -> Vec<u64> {
    [vec![13; 9], vec![7], vec![10; 12], vec![9]].concat()
}

fn shard_of(sample: u64) -> usize {
    let mut end = 0;
    sizes()
        .iter()
        .position(|size| {
            end += size;
            sample < end
        })
        .unwrap()
}

fn raw(shard: usize) -> u64 {
    100 * sizes()[shard]
}

/// The object that `--format json` prints.
#[track_caller]
fn json(args: &[&str]) -> Json {
    let out = inspect(&[&["order", "--format", "json"], args].concat()).succeeds();
    serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}\n{out}"))
}

fn number(json: &Json, pointer: &str) -> u64 {
    json.pointer(pointer).and_then(Json::as_u64).unwrap_or_else(|| panic!("no {pointer} in {json}"))
}

fn float(json: &Json, pointer: &str) -> f64 {
    json.pointer(pointer).and_then(Json::as_f64).unwrap_or_else(|| panic!("no {pointer} in {json}"))
}

/// The samples of each step, node and rank, without padding.
type Reads = Vec<Vec<Vec<Vec<u64>>>>;

fn reads(order: &EpochOrder) -> Reads {
    let World { nodes, ranks_per_node, workers_per_rank } = order.world();
    let steps = order.batches_per_worker() * workers_per_rank;
    let mut reads = vec![vec![Vec::new(); nodes]; steps];
    let places = (0..nodes).flat_map(|node| (0..ranks_per_node).map(move |rank| (node, rank)));
    for (node, rank) in places {
        for (step, batch) in order.rank_batches(node, rank).enumerate() {
            let samples = batch.iter().filter(|id| **id >= 0).map(|id| *id as u64);
            reads[step][node].push(samples.collect());
        }
    }
    while reads.last().is_some_and(|step| step.iter().flatten().all(Vec::is_empty)) {
        reads.pop();
    }
    reads
}

/// The different shards of a node's batch, in the order in which they occur.
fn shards_of(ranks: &[Vec<u64>]) -> Vec<usize> {
    let mut shards = Vec::new();
    for shard in ranks.iter().flatten().map(|sample| shard_of(*sample)) {
        if !shards.contains(&shard) {
            shards.push(shard);
        }
    }
    shards
}

/// One node with a cache of `limit` bytes, by the letter: the shards downloaded at each step.
struct BruteForce {
    downloads: Vec<Vec<usize>>,
    steps_over_limit: usize,
}

fn brute_force(batches: &[Vec<usize>], ahead: usize, limit: u64) -> BruteForce {
    let mut cache: BTreeSet<usize> = BTreeSet::new();
    let mut result = BruteForce { downloads: Vec::new(), steps_over_limit: 0 };
    for step in 0..batches.len() {
        let (mut downloads, mut is_over) = (Vec::new(), false);
        let last = (step + ahead - 1).min(batches.len() - 1);
        // All but the last one of them have come in before, except at the first step.
        for newest in if step == 0 { 0 } else { last }..=last {
            for &shard in &batches[newest] {
                if cache.contains(&shard) {
                    continue;
                }
                let held = |cache: &BTreeSet<usize>| cache.iter().map(|s| raw(*s)).sum::<u64>();
                while held(&cache) + raw(shard) > limit {
                    let wanted: BTreeSet<usize> =
                        batches[step..=newest].iter().flatten().copied().collect();
                    // When each was last needed: the batch, and the place in it.
                    let need = |shard: usize| {
                        let before = batches[..step].iter().enumerate().rev();
                        before.clone().find_map(|(batch, shards)| {
                            shards.iter().position(|s| *s == shard).map(|place| (batch, place))
                        })
                    };
                    let idle = cache.difference(&wanted).copied().min_by_key(|s| need(*s));
                    let Some(oldest) = idle else {
                        is_over = true;
                        break;
                    };
                    cache.remove(&oldest);
                }
                cache.insert(shard);
                downloads.push(shard);
            }
        }
        result.downloads.push(downloads);
        result.steps_over_limit += usize::from(is_over);
    }
    result
}

impl BruteForce {
    fn bytes(&self) -> u64 {
        self.downloads.iter().flatten().map(|shard| raw(*shard)).sum()
    }

    fn again(&self) -> usize {
        let all: Vec<_> = self.downloads.iter().flatten().collect();
        all.len() - all.iter().collect::<BTreeSet<_>>().len()
    }
}

/// The most bytes between first download and last use at once, and at each step.
fn needed(batches: &[Vec<usize>], ahead: usize) -> Vec<u64> {
    let uses = |shard: usize| (0..batches.len()).filter(move |b| batches[*b].contains(&shard));
    let at = |step: usize| {
        let is_needed = |shard: &usize| {
            let first = uses(*shard).next().map(|batch| (batch + 1).saturating_sub(ahead));
            first.is_some_and(|first| first <= step) && uses(*shard).next_back() >= Some(step)
        };
        (0..sizes().len()).filter(is_needed).map(raw).sum()
    };
    (0..batches.len()).map(at).collect()
}

/// The entropy of the distances between neighbours, in bits.
fn entropy(numbers: &[u64]) -> f64 {
    let mut counts: BTreeMap<u64, f64> = BTreeMap::new();
    for pair in numbers.windows(2) {
        *counts.entry(pair[0].abs_diff(pair[1])).or_default() += 1.0;
    }
    let all = (numbers.len() - 1) as f64;
    counts.values().map(|count| -count / all * (count / all).log2()).sum()
}

/// A run and the flags that ask for it.
struct Case {
    options: OrderOptions,
    world: World,
    ahead: usize,
    flags: Vec<&'static str>,
}

fn cases() -> Vec<Case> {
    let options = OrderOptions { batch_size: Some(3), shuffle: true, ..OrderOptions::default() };
    let world =
        |nodes, ranks_per_node, workers_per_rank| World { nodes, ranks_per_node, workers_per_rank };
    vec![
        Case {
            options: OrderOptions { shuffle_block_size: Some(30), ..options.clone() },
            world: world(2, 2, 2),
            ahead: 2,
            flags: vec![
                "--nodes=2",
                "--ranks_per_node=2",
                "--workers_per_rank=2",
                "--batch_size=3",
                "--shuffle_block_size=30",
                "--predownload=4",
            ],
        },
        Case {
            options: OrderOptions { shuffle_algo: ShuffleAlgo::Py1s, ..options.clone() },
            world: world(1, 2, 1),
            ahead: 8,
            flags: vec!["--ranks_per_node=2", "--batch_size=3", "--shuffle_algo=py1s"],
        },
        Case {
            options: OrderOptions {
                shuffle_algo: ShuffleAlgo::Naive,
                shuffle_seed: 3,
                ..options.clone()
            },
            world: world(1, 1, 1),
            ahead: 1,
            flags: vec![
                "--batch_size=3",
                "--shuffle_algo=naive",
                "--shuffle_seed=3",
                "--predownload=0",
            ],
        },
        Case {
            options: OrderOptions { shuffle: false, ..options },
            world: world(1, 3, 1),
            ahead: 8,
            flags: vec!["--ranks_per_node=3", "--batch_size=3", "--no_shuffle"],
        },
    ]
}

fn of_sizes<'a>(flags: &[&'a str]) -> Vec<&'a str> {
    [&["--shard_sizes", SIZES, "--shard_bytes", "1300"], flags].concat()
}

#[test]
fn all_numbers_are_those_of_a_brute_force() {
    let mut cramped = 0;
    for Case { options, world, ahead, flags } in cases() {
        let stream = StreamShape { shard_sizes: sizes(), weight: Weight::Natural };
        let plan = Plan::new(&[stream], options, world).unwrap();
        let reads = reads(&plan.epoch(0, 0, None).unwrap());
        let report = json(&of_sizes(&flags));

        let served: Vec<u64> = reads.iter().flatten().flatten().flatten().copied().collect();
        let unique = served.iter().collect::<BTreeSet<_>>().len() as u64;
        let places = (3 * world.ranks()) as u64;
        let padding = reads.len() as u64 * places - served.len() as u64;
        for (name, value) in [
            ("epoch_size", 253),
            ("steps", reads.len() as u64),
            ("global_batch_size", places),
            ("batches_per_rank_max", reads.len() as u64),
            ("served", served.len() as u64),
            ("unique", unique),
            ("repeated", served.len() as u64 - unique),
            ("never_served", 253 - unique),
            ("padding", padding),
        ] {
            assert_eq!(number(&report, &format!("/epoch/{name}")), value, "{name} {flags:?}");
        }

        let shards: Vec<u64> = served.iter().map(|sample| shard_of(*sample) as u64).collect();
        let (hs, hp) = (entropy(&served), entropy(&shards));
        for (name, value) in [
            ("sample_entropy_bits", hs),
            ("shard_entropy_bits", hp),
            ("entropy_bits", 2.0 * hs * hp / (hs + hp)),
        ] {
            let found = float(&report, &format!("/quality/{name}"));
            assert!((found - value).abs() < 1e-9, "{name} {found} {value} {flags:?}");
        }
        let mut distances: Vec<u64> = served.windows(2).map(|p| p[0].abs_diff(p[1])).collect();
        distances.sort_unstable();
        let tenth = distances[distances.len().div_ceil(10) - 1];
        assert_eq!(number(&report, "/quality/distance/p10"), tenth);
        assert_eq!(number(&report, "/quality/distance/max"), *distances.last().unwrap());
        let mean = distances.iter().sum::<u64>() as f64 / distances.len() as f64;
        assert!((float(&report, "/quality/distance/mean") - mean).abs() < 1e-9);
        let mixture: Vec<u64> =
            reads.iter().map(|step| shards_of(&step.concat()).len() as u64).collect();
        let spread = |name: &str| float(&report, &format!("/shards_per_global_batch/{name}"));
        assert_eq!(spread("max"), *mixture.iter().max().unwrap() as f64);
        assert_eq!(spread("min"), *mixture.iter().min().unwrap() as f64);
        assert!(
            (spread("mean") * mixture.len() as f64 - mixture.iter().sum::<u64>() as f64).abs()
                < 1e-6
        );

        for node in 0..world.nodes {
            let at = |name: &str| number(&report, &format!("/nodes/{node}/{name}"));
            let batches: Vec<Vec<usize>> =
                reads.iter().map(|step| shards_of(&step[node])).collect();
            let unlimited = brute_force(&batches, ahead, u64::MAX);
            assert_eq!(at("download/bytes"), unlimited.bytes(), "{flags:?}");
            assert_eq!((at("download/again_shards"), unlimited.again()), (0, 0));
            let of = |shards: &[usize]| shards.iter().map(|shard| raw(*shard)).sum::<u64>();
            assert_eq!(at("download/first_batch_bytes"), of(&batches[0]));
            assert_eq!(at("download/first_step_bytes"), of(&unlimited.downloads[0]));
            let later = unlimited.downloads[1..].iter().map(|shards| of(shards)).max().unwrap();
            assert_eq!(at("download/largest_later_step_bytes"), later);
            let needed = needed(&batches, ahead);
            assert_eq!(at("cache/needed_bytes"), *needed.iter().max().unwrap(), "{flags:?}");

            // As few steps have a point each.
            let timeline = report.pointer(&format!("/nodes/{node}/timeline")).unwrap();
            assert_eq!(timeline.as_array().unwrap().len(), reads.len());
            let mut cumulative = 0;
            for (step, point) in timeline.as_array().unwrap().iter().enumerate() {
                cumulative += of(&unlimited.downloads[step]);
                assert_eq!(number(point, "/first_step"), step as u64);
                assert_eq!(number(point, "/downloaded_bytes"), of(&unlimited.downloads[step]));
                assert_eq!(number(point, "/cumulative_bytes"), cumulative);
                assert_eq!(number(point, "/needed_bytes"), needed[step]);
            }

            // The smallest limit is enough, and one byte less is not.
            let smallest = at("cache/no_redownload_limit");
            let enough = brute_force(&batches, ahead, smallest);
            assert_eq!((enough.again(), enough.steps_over_limit), (0, 0), "{flags:?}");
            let less = brute_force(&batches, ahead, smallest - 1);
            assert!(less.again() + less.steps_over_limit > 0, "{flags:?}");
            assert!(smallest >= at("cache/needed_bytes"));

            for limit in [smallest - 1, smallest / 2, smallest / 5, 1] {
                let expected = brute_force(&batches, ahead, limit);
                let text = limit.to_string();
                let report = json(&[of_sizes(&flags), vec!["--cache_limit", &text]].concat());
                let at = |name: &str| number(&report, &format!("/nodes/{node}/{name}"));
                assert_eq!(at("download/again_shards"), expected.again() as u64);
                assert_eq!(at("download/bytes"), expected.bytes(), "{limit} {flags:?}");
                assert_eq!(at("cache/steps_over_limit"), expected.steps_over_limit as u64);
                cramped += expected.again();
            }
        }
    }
    assert!(cramped > 100, "limits must matter: {cramped}");
}

#[test]
fn listed_reads_are_those_of_the_plan() {
    let Case { options, world, flags, .. } = cases().remove(0);
    let stream = StreamShape { shard_sizes: sizes(), weight: Weight::Natural };
    let plan = Plan::new(&[stream], options, world).unwrap();
    let expected = reads(&plan.epoch(2, 24, None).unwrap());
    let position = ["--full", "--epoch", "2", "--sample_in_epoch", "24"];
    let report = json(&[of_sizes(&flags), position.to_vec()].concat());
    let listed = report["reads"].as_array().unwrap();
    assert_eq!(listed.len(), expected.len() * 4);
    for (index, read) in listed.iter().enumerate() {
        let (step, rank) = (index / 4, index % 4);
        assert_eq!(number(read, "/step"), step as u64);
        assert_eq!(read["ranks"], serde_json::json!([rank]));
        assert_eq!(read["nodes"], serde_json::json!([rank / 2]));
        let runs: Vec<[u64; 2]> = serde_json::from_value(read["samples"].clone()).unwrap();
        let samples: Vec<u64> = runs.iter().flat_map(|[first, last]| *first..=*last).collect();
        assert_eq!(samples, expected[step][rank / 2][rank % 2]);
        let shards: Vec<usize> = serde_json::from_value(read["shards"].clone()).unwrap();
        assert_eq!(shards, shards_of(&[samples]));
    }
    let some = json(&[of_sizes(&flags), vec!["--steps", "3..5"]].concat());
    let steps: Vec<u64> =
        some["reads"].as_array().unwrap().iter().map(|read| number(read, "/step")).collect();
    assert_eq!(steps, [3, 3, 3, 3, 4, 4, 4, 4]);
}

/// The constants are what the reference prints: `get_entropy_shuffle_quality` over
/// `get_partition_shard_info(4950, canonical_nodes, ...)` with shards of 100 samples.
#[test]
fn the_quality_is_the_reference_simulators() {
    let cases: [(&[&str], [f64; 3]); 3] = [
        (
            &[
                "--nodes=2",
                "--ranks_per_node=2",
                "--workers_per_rank=3",
                "--batch_size=7",
                "--shuffle_block_size=1000",
            ],
            [7.034605853584738, 11.068277924434069, 5.155690006962277],
        ),
        (
            &[
                "--ranks_per_node=4",
                "--batch_size=8",
                "--shuffle_algo=py1br",
                "--shuffle_seed=7",
                "--shuffle_block_size=500",
            ],
            [6.606970847073854, 10.761881494155338, 4.766670784061245],
        ),
        (
            &["--batch_size=8", "--shuffle_algo=naive"],
            [7.272856783625427, 11.256171515246344, 5.371868974857295],
        ),
    ];
    for (flags, expected) in cases {
        let report = json(&[&["--shard_sizes", "100x49,50"], flags].concat());
        let names = ["entropy_bits", "sample_entropy_bits", "shard_entropy_bits"];
        for (name, expected) in names.into_iter().zip(expected) {
            let found = float(&report, &format!("/quality/{name}"));
            assert!((found - expected).abs() < 1e-9, "{name}: {found}, not {expected}");
        }
    }
}

#[test]
fn datasets_are_told_from_their_indexes() {
    let dir = tempfile::tempdir().unwrap();
    let index = write(&dir.path().join("val"), 100, &ZIPPED);
    for shard in &index.shards {
        // No shard is read.
        std::fs::remove_file(dir.path().join("val").join(shard.stored().basename.as_str()))
            .unwrap();
    }
    let report = json(&[path(dir.path()), "--batch_size", "4", "--split", "val"]);
    let sum = |bytes: &dyn Fn(&mds::format::ShardInfo) -> u64| index.shards.iter().map(bytes).sum();
    let (raw, stored): (u64, u64) = (sum(&|s| s.raw_bytes()), sum(&|s| s.stored_bytes()));
    assert_ne!(raw, stored);
    assert_eq!(number(&report, "/dataset/raw_bytes"), raw);
    assert_eq!(number(&report, "/dataset/stored_bytes"), stored);
    assert_eq!(number(&report, "/nodes/0/download/bytes"), stored, "compressed on the way");
    assert_eq!(number(&report, "/nodes/0/cache/needed_bytes"), raw, "raw in the cache");
    let before = inspect(&[path(dir.path()), "order", "--batch_size", "4"]).succeeds();
    let after = inspect(&["order", path(dir.path()), "--batch_size", "4"]).succeeds();
    assert_eq!(before, after);
}

#[test]
fn streams_are_mixed_by_their_weights() {
    let report = json(&[
        "--stream",
        "sizes=50x10,proportion=0.75",
        "--stream",
        "sizes=10x7,bytes=1kb,proportion=0.25",
        "--epoch_size=400",
        "--batch_size=8",
        "--batching_method=stratified",
    ]);
    let streams = report.pointer("/dataset/streams").unwrap();
    assert_eq!(streams[1]["choose"], 100);
    assert_eq!((number(streams, "/1/first_sample"), number(streams, "/1/first_shard")), (500, 10));
    assert_eq!(number(&report, "/dataset/raw_bytes"), 10 * (64 << 20) + 7 * 1024);
    assert_eq!(number(&report, "/epoch/epoch_size"), 400);
    // 100 of the second stream's 70 samples, and 300 of the first one's 500.
    assert_eq!(number(&report, "/epoch/unique"), 370);
    assert_eq!(number(&report, "/epoch/never_served"), 200);
    for read in report["reads"].as_array().unwrap() {
        let runs: Vec<[u64; 2]> = serde_json::from_value(read["samples"].clone()).unwrap();
        let second = runs.iter().flat_map(|[a, b]| *a..=*b).filter(|id| *id >= 500).count();
        assert_eq!(second, 2, "a quarter of 8");
    }
}

#[test]
fn ranks_that_share_their_samples_are_listed_together() {
    // Four times two ranks of two nodes become one node of four.
    let report = json(&[
        "--shard_sizes=10x20",
        "--nodes=2",
        "--ranks_per_node=3",
        "--replication=2",
        "--batch_size=4",
        "--steps=0",
    ]);
    let reads = report["reads"].as_array().unwrap();
    let ranks: Vec<&Json> = reads.iter().map(|read| &read["ranks"]).collect();
    assert_eq!(
        ranks,
        [&serde_json::json!([0, 1]), &serde_json::json!([2, 3]), &serde_json::json!([4, 5])]
    );
    assert_eq!(reads[1]["nodes"], serde_json::json!([0, 1]), "ranks 2 and 3 are on two nodes");
    assert_eq!(report["nodes"].as_array().unwrap().len(), 2);
}

#[test]
fn the_object_has_these_fields() {
    let report = json(&["--shard_sizes=10x3", "--batch_size=5", "--cache_limit=1gb"]);
    let keys = |pointer: &str| {
        let object = report.pointer(pointer).and_then(Json::as_object).unwrap();
        object.keys().cloned().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(keys(""), "reads dataset options epoch quality shards_per_global_batch nodes");
    assert_eq!(keys("/reads/0"), "step ranks nodes samples shards");
    assert_eq!(keys("/dataset"), "samples shards raw_bytes stored_bytes streams");
    assert_eq!(
        keys("/dataset/streams/0"),
        "name samples shards first_sample first_shard choose proportion"
    );
    assert_eq!(
        keys("/options"),
        "nodes ranks_per_node workers_per_rank replication batch_size shuffle shuffle_algo \
         shuffle_seed shuffle_block_size num_canonical_nodes partition_algo batching_method \
         sampling_method sampling_granularity predownload cache_limit"
    );
    assert_eq!(
        keys("/epoch"),
        "epoch sample_in_epoch epoch_size steps global_batch_size batches_per_rank_min \
         batches_per_rank_max served unique repeated never_served padding"
    );
    assert_eq!(
        keys("/quality"),
        "measured_samples entropy_bits sample_entropy_bits shard_entropy_bits \
         sample_entropy_most_bits shard_entropy_most_bits distance"
    );
    assert_eq!(keys("/quality/distance"), "mean p10 p50 p90 max");
    assert_eq!(keys("/shards_per_global_batch"), "mean min max");
    assert_eq!(keys("/nodes/0"), "node download cache steps_per_point timeline");
    assert_eq!(
        keys("/nodes/0/download"),
        "bytes shards again_bytes again_shards first_batch_bytes first_step_bytes \
         largest_later_step_bytes"
    );
    assert_eq!(
        keys("/nodes/0/cache"),
        "needed_bytes no_redownload_limit largest_window_bytes held_bytes_max steps_over_limit"
    );
    assert_eq!(
        keys("/nodes/0/timeline/0"),
        "first_step downloaded_bytes cumulative_bytes largest_step_bytes needed_bytes"
    );
}

#[test]
fn text_says_it_all_in_one_page() {
    let out = inspect(&[
        "order",
        "--shard_sizes=10x3,4",
        "--shard_bytes=1000",
        "--batch_size=5",
        "--no_shuffle",
        "--predownload=5",
        "--cache_limit=1000",
    ])
    .succeeds();
    assert_eq!(
        out,
        "\
stream       sizes=10x3,4: 34 samples in 4 shards
bytes        3.4 kB to download, 3.4 kB in a cache
world        1 node x 1 rank x 1 worker, batches of 5 per rank
shuffle      none
order        1 canonical node, relaxed partition, random batching, balanced sampling

step 0
  rank 0  samples 0-4  shards 0
step 1
  rank 0  samples 5-9  shards 0
... (7 steps in all; --steps A..B lists others)

epoch        0: 34 samples
steps        7 of 5 samples; 7 batches per rank
served       34: 34 different, 0 again; 0 of the dataset never
padding      1 empty place in the batches

quality      0.000 bits: samples 0.000 of at most 5.044, shards 0.439 of at most 2.000
distance     between samples served one after the other: mean 1, 10 % up to 1, 50 % up to 1, \
90 % up to 1, all up to 1
mixture      1.0 different shards in a global batch on average, 1 to 1

downloads    5 samples ahead for each rank
  node 0     3.4 kB in 4 shards; 1.0 kB for the first batch, 1.0 kB before it is served, then at \
most 1.0 kB in a step
    cache    1.0 kB needed; the smallest limit without downloading twice is 1.0 kB (1000 bytes)
    limit    1.0 kB: 0 shards downloaded again (0 bytes), 1.0 kB held at most

over time, per node: downloaded so far, needed in the cache
      after step                  node 0
               0          1.0 kB, 1.0 kB
               1          1.0 kB, 1.0 kB
               2          2.0 kB, 1.0 kB
               3          2.0 kB, 1.0 kB
               4          3.0 kB, 1.0 kB
               5          3.0 kB, 1.0 kB
               6       3.4 kB, 400 bytes
"
    );
    let over = inspect(&[
        "order",
        "--shard_sizes=10x3",
        "--shard_bytes=1000",
        "--cache_limit=1500",
        "--batch_size=4",
        "--ranks_per_node=12",
    ]);
    let out = over.succeeds();
    for line in [
        "  ... (4 more ranks; --full prints them)\n",
        "    warning  the limit is exceeded in 1 step: 3.0 kB are wanted at once\n",
    ] {
        assert!(out.contains(line), "{line:?} is not in\n{out}");
    }
    let none = inspect(&["order", "--shard_sizes=10", "--steps=9.."]).succeeds();
    assert!(none.contains("\nno step is listed: the epoch has 1 step\n"), "{none}");
}

#[test]
fn the_picture_is_well_formed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("order.svg");
    let svg = |flags: &[&str]| {
        inspect(&[&["order", "--svg", path(&file)], flags].concat()).succeeds();
        let svg = std::fs::read_to_string(&file).unwrap();
        assert_well_formed(&svg);
        svg
    };
    let large =
        svg(&["--shard_sizes=1000x300", "--nodes=12", "--cache_limit=1gb", "--batch_size=16"]);
    for text in [
        "Epoch 0: 300000 samples from 300 shards, 12 nodes x 1 rank, batches of 16",
        "downloaded so far, per node",
        "needed in the cache, per node",
        "shard numbers read by node 3 at each step (darker: more samples)",
        "(4 more nodes)",
        "cache_limit 1.1 GB",
    ] {
        assert!(large.contains(text), "{text:?}");
    }
    assert!(!large.contains("read by node 4"), "the first four only");
    assert!(large.len() < 6_000_000, "{}", large.len());
    let small = svg(&["--shard_sizes=1"]);
    assert!(small.contains("shard numbers read at each step (darker: more samples)"));
    let names = std::fs::read_dir(&dir).unwrap().count();
    assert_eq!(names, 1, "nothing is left beside it");
}

/// Tags close in order and no text holds a bare `&`.
#[track_caller]
fn assert_well_formed(svg: &str) {
    let mut open = Vec::new();
    let mut rest = svg;
    while let Some(start) = rest.find('<') {
        let (text, tag) = rest.split_at(start);
        for entity in text.split('&').skip(1) {
            assert!(
                ["amp;", "lt;", "gt;", "quot;"].iter().any(|e| entity.starts_with(e)),
                "{text}"
            );
        }
        let end = tag.find('>').unwrap();
        let inner = &tag[1..end];
        assert_eq!(inner.matches('"').count() % 2, 0, "{inner}");
        if let Some(name) = inner.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name));
        } else if !inner.ends_with('/') && !inner.starts_with(['?', '!']) {
            open.push(inner.split_whitespace().next().unwrap().to_owned());
        }
        rest = &tag[end + 1..];
    }
    assert!(open.is_empty(), "{open:?}");
    assert!(svg.trim_end().ends_with("</svg>"));
}

#[test]
fn what_cannot_be_is_refused() {
    #[track_caller]
    fn refused(args: &[&str], expected_code: i32, expected: &str) {
        let Output { code, out, err } = inspect(&[&["order"], args].concat()).output();
        assert_eq!(code, expected_code, "{err}");
        assert_eq!(out, "");
        let first = err.lines().next().unwrap_or_default();
        assert_eq!(first, expected, "{err}");
    }
    let sizes = "--shard_sizes=10x3";
    refused(
        &["--shard_sizes=1000000000000"],
        1,
        "mds-inspect: the streams have 1000000000000 samples, more than can be followed; give \
         streams of at most 34359738368 samples",
    );
    refused(
        &[sizes, "--shard_bytes=18446744073709551615"],
        1,
        "mds-inspect: the shards have 110680464442257309690 bytes, more than can be added up; lower \
         shard_bytes, so that all shards have at most 1152921504606846976",
    );
    refused(&[], 2, "error: order needs a dataset: give its REMOTE, --stream or --shard_sizes");
    refused(
        &["--shard_sizes=3y"],
        2,
        "error: invalid value '3y' for '--shard_sizes <SIZES>': \"3y\" is not SAMPLES or \
         SAMPLESxSHARDS, such as 8892 or 20000x18243",
    );
    refused(
        &["--stream=./a,repeat=1,choose=2"],
        2,
        "error: invalid value './a,repeat=1,choose=2' for '--stream <STREAM>': a stream takes one \
         of proportion, repeat and choose",
    );
    refused(
        &[sizes, "--steps=5..5"],
        2,
        "error: invalid value '5..5' for '--steps <STEPS>': \"5..5\" is not A..B (without B), \
         A.., ..B or A, such as 0..10",
    );
    refused(
        &[sizes, "--shuffle_algo=py3e"],
        2,
        "error: invalid value 'py3e' for '--shuffle_algo <ALGO>': unknown shuffle_algo \"py3e\"; \
         use one of naive, py1b, py1br, py1e, py1s, py2s",
    );
    refused(
        &["./a", sizes],
        2,
        "error: the argument '[REMOTE]' cannot be used with '--shard_sizes <SIZES>'",
    );
    refused(
        &["./a", "--shard_bytes=1mb"],
        2,
        "error: the argument '[REMOTE]' cannot be used with '--shard_bytes <SIZE>'",
    );
    refused(
        &[sizes, "--batch_size=0"],
        1,
        "mds-inspect: batch_size is not set; set it to the samples per device and step, at least \
         1, to iterate",
    );
    refused(
        &[sizes, "--nodes=2", "--replication=3"],
        1,
        "mds-inspect: replication 3 does not divide the world of 2 ranks; choose a divisor of 2",
    );
    refused(
        &[sizes, "--sample_in_epoch=99"],
        1,
        "mds-inspect: cannot resume at sample 99 of an epoch that serves 31; the checkpoint \
         belongs to another dataset or to other weights",
    );
    refused(
        &["--shard_sizes=0x4"],
        1,
        "mds-inspect: stream 0 contains no samples; remove it or write samples to it",
    );
    let Output { code, err, .. } = inspect(&["./a", "order", sizes]).output();
    let first = err.lines().next().unwrap_or_default();
    assert_eq!((code, first), (2, "error: give a REMOTE or --shard_sizes, not both"));

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("missing").join("order.svg");
    let Output { code, err, .. } = inspect(&["order", sizes, "--svg", path(&file)]).output();
    assert_eq!(code, 1);
    let start = format!("mds-inspect: cannot write the picture {}: ", file.display());
    assert!(err.starts_with(&start), "{err}");
    let end = "; choose a file in a folder that exists and can be written to\n";
    assert!(err.ends_with(end), "{err}");
    refused(
        &[path(dir.path())],
        1,
        &format!(
            "mds-inspect: there is no dataset: neither {0}/index.json nor {0}/val/index.json \
             exists; check the address, and the split if there is one",
            dir.path().display()
        ),
    );
}

#[test]
fn help_teaches() {
    let help = inspect(&["order", "--help"]).succeeds();
    for text in ["Examples:", "--shard_sizes 20000x18243,8892", "JSON (--format json), one object:"]
    {
        assert!(help.contains(text), "{text:?} is not in\n{help}");
    }
}
