//! The order of samples against vectors that the reference wrote (mosaicml-streaming 0.13.0 on
//! numpy 2.1.3): numpy's generator, each stage by itself, whole epochs, and what real processes
//! served.
//!
//! The vectors are read from `$MDS_GOLDEN_DIR` if it is set, else from `tests/golden`. Whatever
//! cases are there are run, each failing one is named, and a missing part is skipped with a notice;
//! no cases at all is a failure.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::any::Any;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use mds::order::partition::{Partition, PartitionRule};
use mds::order::rng::{Generator, SeedSequence};
use mds::order::sampling::{Draw, samples_per_shard};
use mds::order::shuffle::{SampleOrder, ShuffleRule};
use mds::order::{
    EpochOrder, OrderOptions, Plan, State, StreamShape, Weight, World, parse_epoch_size,
};
use serde_json::Value;

type Check = Result<(), String>;

fn golden_dir() -> PathBuf {
    // A test runs in its crate's folder; who sets a relative path means it from the workspace's root.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.join(std::env::var_os("MDS_GOLDEN_DIR").unwrap_or("tests/golden".into()))
}

/// Written past the capture of the test harness, so that a passing run says what it skipped.
fn notice(text: &str) {
    let _ = writeln!(std::io::stderr(), "golden_order: {text}");
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?").to_owned()
}

/// The vectors in a file; `None`, with a notice, if there is no such file.
fn vectors(name: &str) -> Option<Value> {
    let path = golden_dir().join(name);
    if !path.exists() {
        notice(&format!("SKIPPED: {} does not exist", path.display()));
        return None;
    }
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    Some(serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
}

/// Runs all cases and names every one that fails.
fn run<T>(part: &str, cases: impl IntoIterator<Item = (String, T)>, check: impl Fn(&T) -> Check) {
    let (mut total, mut failed) = (0, Vec::new());
    for (name, case) in cases {
        total += 1;
        let outcome = catch_unwind(AssertUnwindSafe(|| check(&case)))
            .unwrap_or_else(|panic| Err(format!("panicked: {}", panic_text(&*panic))));
        if let Err(why) = outcome {
            failed.push(format!("{part} {name}: {why}"));
        }
    }
    assert!(total > 0, "{part} holds no case");
    assert!(failed.is_empty(), "{} of {total} cases fail:\n{}", failed.len(), failed.join("\n"));
    notice(&format!("{part}: {total} cases"));
}

/// Cases of a JSON list, named by their number.
fn listed(cases: &Value) -> Vec<(String, Value)> {
    array(cases).iter().enumerate().map(|(i, case)| (format!("#{i}"), case.clone())).collect()
}

fn array(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("not a list: {value}"))
}

fn int(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("not an integer: {value}"))
}

fn uint(value: &Value) -> u64 {
    // Numbers that do not fit a double are written as strings.
    let number = value.as_u64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
    number.unwrap_or_else(|| panic!("not a natural number: {value}"))
}

fn size(value: &Value) -> usize {
    uint(value) as usize
}

fn uints(value: &Value) -> Vec<u64> {
    array(value).iter().map(uint).collect()
}

fn units(value: &Value) -> Vec<u32> {
    uints(value).into_iter().map(|unit| u32::try_from(unit).unwrap()).collect()
}

fn ints(value: &Value) -> Vec<i64> {
    array(value).iter().map(int).collect()
}

/// A number that is written as a string.
fn quoted<T: std::str::FromStr<Err: std::fmt::Debug>>(value: &Value) -> T {
    value.as_str().unwrap_or_else(|| panic!("not a string: {value}")).parse().unwrap()
}

/// Doubles as the hexadecimal digits of their bytes.
fn doubles(value: &Value) -> Vec<f64> {
    let double = |value: &Value| {
        let bytes = hex::decode(value.as_str().unwrap()).unwrap();
        f64::from_le_bytes(bytes.try_into().unwrap())
    };
    array(value).iter().map(double).collect()
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, ours: T, theirs: T) -> Check {
    if ours == theirs {
        return Ok(());
    }
    let short = |value: &T| format!("{value:?}").chars().take(160).collect::<String>();
    Err(format!("{what} is {}, expected {}", short(&ours), short(&theirs)))
}

/// What we computed; `None` if the reference raises an exception and we refuse as well.
fn accepted<T>(case: &Value, ours: mds::order::Result<T>) -> Result<Option<T>, String> {
    match (ours, case["error"].as_str()) {
        (Ok(ours), None) => Ok(Some(ours)),
        (Err(_), Some(_)) => Ok(None),
        (Ok(_), Some(error)) => Err(format!("accepted, expected {error}")),
        (Err(error), None) => Err(error.to_string()),
    }
}

#[test]
fn some_vectors_are_there() {
    // Datasets alone are cases too: tests/golden_mds.rs runs those.
    let parts = ["numpy_rng.json", "primitives", "order", "e2e/loader.json", "mds"];
    let dir = golden_dir();
    assert!(parts.iter().any(|part| dir.join(part).exists()), "no vectors in {}", dir.display());
}

#[test]
fn numpy_generator() {
    let Some(file) = vectors("numpy_rng.json") else { return };
    let seeds = array(&file["seeds"]);
    let named = seeds.iter().map(|case| (format!("seed {}", case["seed"]), case.clone()));
    run("numpy_rng.json", named, |case| {
        let seed: u128 = quoted(&case["seed"]);
        let sequence = SeedSequence::new(seed);
        equal("pool", sequence.pool().map(u64::from).to_vec(), uints(&case["seedseq_pool"]))?;
        let words = array(&case["seedseq_u64x4"]).iter().map(quoted::<u64>).collect();
        equal("words", sequence.generate::<4>().to_vec(), words)?;

        let rng = || Generator::new(seed);
        let raw: Vec<u64> = array(&case["raw64"]).iter().map(quoted).collect();
        let mut words = rng();
        equal("raw64", raw.iter().map(|_| words.next_u64()).collect(), raw.clone())?;
        let theirs = doubles(&case["random10"]);
        let mut random = rng();
        equal("random", theirs.iter().map(|_| random.next_f64()).collect(), theirs.clone())?;

        let (low, high) = (&case["uniform"]["low"], &case["uniform"]["high"]);
        let (low, high) = (low.as_f64().unwrap(), high.as_f64().unwrap());
        let theirs = doubles(&case["uniform"]["out"]);
        let mut uniform = rng();
        let ours = theirs.iter().map(|_| uniform.uniform(low, high)).collect();
        equal("uniform", ours, theirs.clone())?;

        for (n, theirs) in case["permutation"].as_object().unwrap() {
            equal(
                &format!("permutation({n})"),
                rng().permutation(n.parse().unwrap()),
                units(theirs),
            )?;
        }
        for kind in ["shuffle_array", "shuffle_list"] {
            for (n, theirs) in case[kind].as_object().unwrap() {
                let mut items: Vec<u64> = (0..n.parse().unwrap()).collect();
                rng().shuffle(&mut items);
                equal(&format!("{kind}({n})"), items, uints(theirs))?;
            }
        }
        check_integers(&case["integers"], rng)?;
        check_choice(&case["choice_no_replace"], rng)?;
        check_interleaved(&case["interleaved"], rng())
    });
}

fn check_integers(cases: &Value, rng: impl Fn() -> Generator) -> Check {
    for case in array(cases) {
        let (low, high): (i64, i128) = (int(&case["low"]), quoted(&case["high"]));
        let count = u64::try_from(high - i128::from(low)).unwrap();
        let theirs: Vec<i64> = array(&case["out"]).iter().map(quoted).collect();
        let mut rng = rng();
        let ours = theirs.iter().map(|_| low + rng.integers(0, count) as i64).collect();
        equal(&format!("integers({low}, {high})"), ours, theirs.clone())?;
    }
    Ok(())
}

fn check_choice(cases: &Value, rng: impl Fn() -> Generator) -> Check {
    for case in array(cases) {
        let (n, k) = (uint(&case["pop"]), uint(&case["k"]));
        let ours = rng().choice(n, k);
        equal("number of choices", ours.len() as u64, k)?;
        // Only the beginning of a long choice is listed; the hash is of all of it.
        let theirs = uints(&case["out"]);
        equal(&format!("choice({n}, {k})"), ours[..theirs.len()].to_vec(), theirs)?;
        let bytes: Vec<u8> = ours.iter().flat_map(|chosen| chosen.to_le_bytes()).collect();
        let hash = mds::format::HashAlgorithm::Sha256.hex(&bytes);
        equal(
            &format!("hash of choice({n}, {k})"),
            hash.as_str(),
            case["sha256_le_i64"].as_str().unwrap(),
        )?;
    }
    Ok(())
}

/// Calls of all kinds on one generator, which share its half word.
fn check_interleaved(case: &Value, mut rng: Generator) -> Check {
    for call in array(&case["calls"]) {
        for (name, theirs) in call.as_object().unwrap() {
            match name.as_str() {
                "shuffle_list" | "shuffle_array" => {
                    let mut items: Vec<u64> = (0..array(theirs).len() as u64).collect();
                    rng.shuffle(&mut items);
                    equal(name, items, uints(theirs))?;
                }
                "uniform(0,1,3)" => {
                    let ours = (0..3).map(|_| rng.uniform(0.0, 1.0)).collect();
                    equal(name, ours, doubles(theirs))?;
                }
                "integers(10,100)" => equal(name, rng.integers(10, 100), uint(theirs))?,
                "integers(0,2**40)" => equal(name, rng.integers(0, 1 << 40), uint(theirs))?,
                "choice(20,5)" => equal(name, rng.choice(20, 5), uints(theirs))?,
                _ => return Err(format!("unknown call {name}")),
            }
        }
    }
    let half = (uint(&case["end_has_uint32"]) == 1).then(|| uint(&case["end_uinteger"]));
    equal("half word at the end", rng.buffered_half().map(u64::from), half)
}

#[test]
fn shuffles() {
    let mut found = false;
    for name in ["primitives/shuffle.json", "primitives/shuffle_py1b.json"] {
        let Some(cases) = vectors(name) else { continue };
        found = true;
        run(name, listed(&cases), |case| {
            let rule = ShuffleRule {
                algo: quoted(&case["algo"]),
                canonical_nodes: uint(&case["num_canonical_nodes"]),
                seed: uint(&case["seed"]),
                epoch: uint(&case["epoch"]),
                block: uint(&case["block_size"]),
            };
            let ours = SampleOrder::shuffled(Draw::whole(uints(&case["shard_sizes"]), 0), &rule);
            let Some(ours) = accepted(case, ours)? else { return Ok(()) };
            equal(&rule.algo.to_string(), ours.to_vec(), uints(&case["out"]))
        });
    }
    notice(&format!("shuffles {}", if found { "compared" } else { "skipped" }));
}

#[test]
fn partitions() {
    let Some(cases) = vectors("primitives/partition.json") else { return };
    run("primitives/partition.json", listed(&cases), |case| {
        let world = World {
            nodes: size(&case["physical_nodes"]),
            ranks_per_node: size(&case["ranks_per_node"]),
            workers_per_rank: size(&case["workers_per_rank"]),
        };
        let partition = Partition::new(&PartitionRule {
            algo: quoted(&case["algo"]),
            samples: uint(&case["num_samples"]),
            canonical_nodes: uint(&case["num_canonical_nodes"]),
            world,
            initial_nodes: case["initial_physical_nodes"].as_u64(),
            batch_size: size(&case["batch_size"]),
            drop_first: uint(&case["drop_first"]),
        });
        let Some(partition) = accepted(case, partition)? else { return Ok(()) };
        let order = EpochOrder::of_positions(partition);
        equal("shape", shape(&order), array(&case["shape"]).iter().map(size).collect())?;
        equal("positions", flat(&order), ints(&case["flat"]))
    });
}

/// Nodes, ranks, workers, batches of a worker, samples of a batch.
fn shape(order: &EpochOrder) -> Vec<usize> {
    let World { nodes, ranks_per_node, workers_per_rank } = order.world();
    vec![nodes, ranks_per_node, workers_per_rank, order.batches_per_worker(), order.batch_size()]
}

/// All ids, worker by worker.
fn flat(order: &EpochOrder) -> Vec<i64> {
    let World { nodes, ranks_per_node, workers_per_rank } = order.world();
    let mut ids = Vec::new();
    for node in 0..nodes {
        for rank in 0..ranks_per_node {
            for worker in 0..workers_per_rank {
                ids.extend(order.worker(node, rank, worker));
            }
        }
    }
    ids
}

#[test]
fn samplings() {
    let Some(cases) = vectors("primitives/sampling.json") else { return };
    run("primitives/sampling.json", listed(&cases), |case| {
        let epoch = if case["use_epoch"] == true { uint(&case["epoch"]) } else { 0 };
        let ours = samples_per_shard(
            &uints(&case["shard_sizes"]),
            uint(&case["choose"]),
            uint(&case["granularity"]),
            u128::from(uint(&case["seed"]) + epoch),
        );
        equal("samples per shard", ours.map_err(|e| e.to_string())?, uints(&case["out"]))
    });
}

#[test]
fn worlds() {
    let Some(cases) = vectors("primitives/world.json") else { return };
    run("primitives/world.json", listed(&cases), |case| {
        let replication = size(&case["replication"]);
        let physical = World {
            nodes: size(&case["nodes"]),
            ranks_per_node: size(&case["ranks_per_node"]),
            workers_per_rank: size(&case["workers_per_rank"]),
        };
        let stream = StreamShape { shard_sizes: vec![1], weight: Weight::Natural };
        let options = OrderOptions { replication: Some(replication), ..OrderOptions::default() };
        let plan = Plan::new(&[stream], options, physical).map_err(|e| e.to_string())?;
        let world = plan.world();
        let mut ours = Vec::new();
        for rank in 0..physical.ranks() {
            let place = plan.place(rank).map_err(|e| e.to_string())?;
            for worker in 0..world.workers_per_rank {
                ours.push([place.node, place.rank, worker, world.nodes, world.ranks_per_node]);
            }
        }
        let rows = array(&case["rows_node_rank_worker_nodes_ranks"]);
        let theirs = rows.iter().map(|row| std::array::from_fn(|i| size(&row[i]))).collect();
        equal("rows", ours, theirs)
    });
}

fn world_of(value: &Value) -> World {
    World {
        nodes: size(&value["nodes"]),
        ranks_per_node: size(&value["ranks_per_node"]),
        workers_per_rank: size(&value["workers_per_rank"]),
    }
}

fn stream_of(value: &Value) -> StreamShape {
    let mut weight = Weight::Natural;
    for (key, value) in value.as_object().unwrap() {
        match key.as_str() {
            "shard_sizes" => {}
            "proportion" => weight = Weight::Proportion(value.as_f64().unwrap()),
            "repeat" => weight = Weight::Repeat(value.as_f64().unwrap()),
            "choose" => weight = Weight::Choose(uint(value)),
            _ => panic!("unknown stream argument {key}"),
        }
    }
    StreamShape { shard_sizes: uints(&value["shard_sizes"]), weight }
}

fn options_of(arguments: &Value) -> Result<OrderOptions, String> {
    let mut options = OrderOptions::default();
    for (key, value) in arguments.as_object().unwrap() {
        match key.as_str() {
            "epoch_size" => {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                options.epoch_size = Some(parse_epoch_size(&text).map_err(|e| e.to_string())?);
            }
            "sampling_method" => options.sampling_method = quoted(value),
            "sampling_granularity" => options.sampling_granularity = uint(value),
            "partition_algo" => options.partition_algo = quoted(value),
            "num_canonical_nodes" => options.num_canonical_nodes = Some(uint(value)),
            "shuffle" => options.shuffle = value == true,
            "shuffle_algo" => options.shuffle_algo = quoted(value),
            "shuffle_seed" => options.shuffle_seed = uint(value),
            "shuffle_block_size" => options.shuffle_block_size = Some(uint(value)),
            "batching_method" => options.batching_method = quoted(value),
            _ => return Err(format!("unknown dataset argument {key}")),
        }
    }
    Ok(options)
}

#[test]
fn whole_epochs() {
    let Ok(folder) = std::fs::read_dir(golden_dir().join("order")) else {
        notice(&format!("SKIPPED: {} does not exist", golden_dir().join("order").display()));
        return;
    };
    let mut names: Vec<String> = folder
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".json"))
        .collect();
    names.sort();
    let case = |name: String| {
        let case = vectors(&format!("order/{name}")).unwrap();
        (name, case)
    };
    run("order", names.into_iter().map(case), check_epochs);
}

fn check_epochs(case: &Value) -> Check {
    let streams: Vec<_> = array(&case["streams"]).iter().map(stream_of).collect();
    let options = OrderOptions {
        batch_size: Some(size(&case["batch_size"])),
        replication: case["replication"].as_u64().map(|k| k as usize),
        ..options_of(&case["dataset_args"])?
    };
    let physical = world_of(&case["physical_world"]);
    let plan = Plan::new(&streams, options.clone(), physical).map_err(|e| e.to_string())?;
    check_derived(&plan, &case["derived"])?;

    for (number, run) in array(&case["runs"]).iter().enumerate() {
        let at = |why: String| format!("run {number}: {why}");
        let plan = plan_of_run(&streams, &options, &plan, run).map_err(at)?;
        let state = match run["kind"].as_str() {
            Some("epoch") => None,
            Some("resume") => Some(serde_json::from_value::<State>(run["state"].clone()).unwrap()),
            kind => return Err(at(format!("unknown kind {kind:?}"))),
        };
        let (epoch, sample) = (uint(&run["epoch"]), uint(&run["sample_in_epoch"]));
        let order = plan.epoch(epoch, sample, state.as_ref());
        let Some(order) = accepted(run, order).map_err(at)? else { continue };
        equal("shape", shape(&order), array(&run["shape"]).iter().map(size).collect())
            .map_err(at)?;
        let ids = &run["ids"];
        for (node, ranks) in array(ids).iter().enumerate() {
            for (rank, workers) in array(ranks).iter().enumerate() {
                for (worker, theirs) in array(workers).iter().enumerate() {
                    let ours = order.worker(node, rank, worker);
                    equal(&format!("worker {node}/{rank}/{worker}"), ours, ints(theirs))
                        .map_err(at)?;
                }
            }
        }
    }
    Ok(())
}

/// The case's own plan, or one for the other world in which it is resumed.
fn plan_of_run(
    streams: &[StreamShape],
    options: &OrderOptions,
    plan: &Plan,
    run: &Value,
) -> Result<Plan, String> {
    // The recorded world is the one after replication.
    let (world, batch_size) = (world_of(&run["world"]), size(&run["batch_size"]));
    if plan.world() == world && options.batch_size == Some(batch_size) {
        return Ok(plan.clone());
    }
    let options =
        OrderOptions { batch_size: Some(batch_size), replication: None, ..options.clone() };
    Plan::new(streams, options, world).map_err(|e| e.to_string())
}

fn check_derived(plan: &Plan, derived: &Value) -> Check {
    equal(
        "num_canonical_nodes",
        plan.num_canonical_nodes(),
        uint(&derived["num_canonical_nodes"]),
    )?;
    equal("shuffle_block_size", plan.shuffle_block_size(), uint(&derived["shuffle_block_size"]))?;
    equal("epoch_size", plan.epoch_size(), uint(&derived["epoch_size"]))?;
    equal("num_samples", plan.num_samples(), uint(&derived["num_samples"]))?;
    equal("choose", plan.shares().choose.clone(), uints(&derived["choose_per_stream"]))?;
    let theirs = array(&derived["proportion_per_stream"]).iter().map(hex_float).collect();
    equal("proportion", plan.shares().proportion.clone(), theirs)
}

/// Python's `float.hex()` of a number from 0 to 1: `0x1.7e12b7e12b7e1p-2`.
fn hex_float(value: &Value) -> f64 {
    let text = value.as_str().unwrap();
    let (mantissa, exponent) = text.strip_prefix("0x").unwrap().split_once('p').unwrap();
    let (whole, fraction) = mantissa.split_once('.').unwrap();
    let digits = u64::from_str_radix(&format!("{whole}{fraction}"), 16).unwrap();
    let exponent: i32 = exponent.parse().unwrap();
    digits as f64 * 2_f64.powi(exponent - 4 * fraction.len() as i32)
}

/// What real processes served: batches per rank and epoch, state dicts, and resumed runs.
#[test]
fn real_processes() {
    let Some(file) = vectors("e2e/loader.json") else { return };
    let shard_sizes: Vec<u64> = array(&file["shard_sizes"]).iter().flat_map(uints).collect();
    let streams = [StreamShape { shard_sizes, weight: Weight::Natural }];
    run("e2e/loader.json", listed(&file["runs"]), |run| {
        let batch_size = size(&run["batch_size"]);
        let ranks = size(&run["ranks"]);
        let options =
            OrderOptions { batch_size: Some(batch_size), ..options_of(&file["dataset_args"])? };
        let world = World {
            nodes: 1,
            ranks_per_node: ranks,
            workers_per_rank: size(&run["workers"]).max(1),
        };
        let plan = Plan::new(&streams, options, world).map_err(|e| e.to_string())?;
        if let Some(len) = run["len"].as_u64() {
            equal("len", plan.samples_per_rank(), len)?;
        }
        let state: Option<State> =
            run.get("resumed_from").map(|state| serde_json::from_value(state.clone()).unwrap());
        let (first, offset) = state.map_or((0, 0), |state| (state.epoch, state.sample_in_epoch));
        for (rank, epochs) in array(&run["per_rank_batches"]).iter().enumerate() {
            for (number, theirs) in array(epochs).iter().enumerate() {
                let epoch = first + number as u64;
                let offset = if number == 0 { offset } else { 0 };
                let order = plan.epoch(epoch, offset, state.as_ref()).map_err(|e| e.to_string())?;
                let mut ours = served(&order, rank);
                if run["stop"][0] == epoch {
                    ours.truncate(size(&run["stop"][1]));
                }
                let theirs = array(theirs).iter().map(ints).collect();
                equal(&format!("rank {rank}, epoch {epoch}"), ours, theirs)?;
            }
        }
        check_states(&plan, run, (batch_size * ranks) as u64)
    });
}

/// The batches of a rank without padding; one that is all padding is not served.
fn served(order: &EpochOrder, rank: usize) -> Vec<Vec<i64>> {
    let place = order.world().place(rank).unwrap();
    let batches = order.rank_batches(place.node, place.rank);
    batches
        .map(|batch| batch.iter().copied().filter(|&id| id >= 0).collect::<Vec<_>>())
        .filter(|batch| !batch.is_empty())
        .collect()
}

fn check_states(plan: &Plan, run: &Value, global_batch: u64) -> Check {
    let Some(states) = run.get("state_dict") else { return Ok(()) };
    let (epoch, batches) = (uint(&run["stop"][0]), uint(&run["stop"][1]));
    let ours = serde_json::to_value(plan.state(epoch, batches * global_batch, None)).unwrap();
    array(states).iter().try_for_each(|theirs| equal("state", &ours, theirs))
}
