//! Whole epochs against vectors that the reference wrote (mosaicml-streaming 0.13.0 on numpy 2.1.3),
//! fresh and resumed, and what real processes served.
//!
//! tests/support/vectors.rs says where the vectors lie, and what is skipped.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use mds::format::HashAlgorithm;
use mds::order::{
    EpochOrder, OrderOptions, Plan, State, StreamShape, Weight, World, parse_epoch_size,
};
use serde_json::{Value, json};

#[path = "support/orders.rs"]
mod orders;
#[path = "support/vectors.rs"]
mod vectors;
use orders::served;
use vectors::*;

#[test]
fn some_vectors_are_there() {
    assert_some_vectors();
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

/// The options of a case. Unlike an argument that no test knows, a value that ours does not take is
/// an error of ours.
fn options_of(case: &Value) -> mds::order::Result<OrderOptions> {
    let mut options = OrderOptions {
        batch_size: Some(size(&case["batch_size"])),
        replication: case["replication"].as_u64().map(|k| k as usize),
        ..OrderOptions::default()
    };
    for (key, value) in case["dataset_args"].as_object().unwrap() {
        let name = || value.as_str().unwrap();
        match key.as_str() {
            "epoch_size" => {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                options.epoch_size = Some(parse_epoch_size(&text)?);
            }
            "sampling_method" => options.sampling_method = name().parse()?,
            "sampling_granularity" => options.sampling_granularity = uint(value),
            "partition_algo" => options.partition_algo = name().parse()?,
            "num_canonical_nodes" => options.num_canonical_nodes = value.as_u64(),
            "shuffle" => options.shuffle = value == true,
            "shuffle_algo" => options.shuffle_algo = name().parse()?,
            "shuffle_seed" => options.shuffle_seed = uint(value),
            "shuffle_block_size" => options.shuffle_block_size = value.as_u64(),
            "batching_method" => options.batching_method = name().parse()?,
            _ => panic!("unknown dataset argument {key}"),
        }
    }
    Ok(options)
}

/// Epochs that came out equal, and those that both refuse.
#[derive(Default)]
struct Tally {
    equal: usize,
    refused: usize,
}

#[test]
fn whole_epochs() {
    let names = files("order/");
    if names.is_empty() {
        return;
    }
    let tallies = RefCell::new(BTreeMap::<String, Tally>::new());
    let ordered = Cell::new(0);
    let cases = names.into_iter().map(|name| (name.clone(), vectors(&name)));
    run("order", cases, |case| {
        let arguments = &case["dataset_args"];
        let named =
            |key: &str, default: &str| arguments[key].as_str().unwrap_or(default).to_owned();
        let shuffled = arguments["shuffle"] == true;
        let shuffle = if shuffled { named("shuffle_algo", "py1e") } else { "unshuffled".into() };
        let row = format!("{:18}{shuffle}", named("batching_method", "random"));
        let mut tallies = tallies.borrow_mut();
        let tally = tallies.entry(row).or_default();
        let before = tally.equal;
        check_epochs(case, tally).map_err(|why| format!("{why}\n  {}", parameters(case)))?;
        ordered.set(ordered.get() + usize::from(tally.equal > before));
        Ok(())
    });
    notice(&format!("{} set-ups give equal orders, both refuse the others", ordered.get()));
    // Who makes the set-ups knows how many must not be refused.
    let least = std::env::var("MDS_LEAST_ORDERS").map_or(1, |least| least.parse().unwrap());
    assert!(ordered.get() >= least, "fewer than {least} set-ups give an order");
    for (row, Tally { equal, refused }) in tallies.into_inner() {
        notice(&format!("{row:30}{equal:5} epochs equal, {refused:4} refused by both"));
    }
}

/// A case without what the reference made of it.
fn parameters(case: &Value) -> Value {
    let mut case = case.clone();
    for run in case["runs"].as_array_mut().into_iter().flatten() {
        run.as_object_mut().unwrap().retain(|key, _| key != "ids");
    }
    case
}

fn check_epochs(case: &Value, tally: &mut Tally) -> Check {
    let streams: Vec<_> = array(&case["streams"]).iter().map(stream_of).collect();
    let physical = world_of(&case["physical_world"]);
    let runs = case["runs"].as_array().map_or(&[][..], Vec::as_slice);
    // Some set-ups are refused here from the first, there when an epoch begins.
    let each_refused = !runs.is_empty() && runs.iter().all(|run| !run["error"].is_null());
    let refused = !case["error"].is_null() || each_refused;
    let plan = options_of(case).and_then(|options| Plan::new(&streams, options, physical));
    let plan = match plan {
        Ok(_) if !case["error"].is_null() => {
            return Err(format!("accepted, expected {}", case["error"]));
        }
        Ok(plan) => plan,
        Err(_) if refused => {
            tally.refused += 1;
            return Ok(());
        }
        Err(error) => return Err(error.to_string()),
    };
    check_derived(&plan, &case["derived"])?;

    for (number, run) in runs.iter().enumerate() {
        let at = |why: String| format!("run {number}: {why}");
        let plan = plan_of_run(&streams, &plan, run).map_err(at)?;
        let state = match run["kind"].as_str() {
            Some("epoch") => None,
            Some("resume") => Some(serde_json::from_value::<State>(run["state"].clone()).unwrap()),
            kind => return Err(at(format!("unknown kind {kind:?}"))),
        };
        let (epoch, sample) = (uint(&run["epoch"]), uint(&run["sample_in_epoch"]));
        let order = plan.epoch(epoch, sample, state.as_ref());
        match accepted(run, order).map_err(at)? {
            Some(order) => {
                check_order(&order, run).map_err(at)?;
                tally.equal += 1;
            }
            None => tally.refused += 1,
        }
    }
    Ok(())
}

fn check_order(order: &EpochOrder, run: &Value) -> Check {
    equal("shape", shape(order), array(&run["shape"]).iter().map(size).collect())?;
    // Of a long order only the hash is written down.
    if let Some(theirs) = run["sha256_le_i64"].as_str() {
        let bytes: Vec<u8> = flat(order).into_iter().flat_map(i64::to_le_bytes).collect();
        return equal("hash", HashAlgorithm::Sha256.hex(&bytes).as_str(), theirs);
    }
    for (node, ranks) in array(&run["ids"]).iter().enumerate() {
        for (rank, workers) in array(ranks).iter().enumerate() {
            for (worker, theirs) in array(workers).iter().enumerate() {
                let ours = order.worker(node, rank, worker);
                equal(&format!("worker {node}/{rank}/{worker}"), ours, ints(theirs))?;
            }
        }
    }
    Ok(())
}

/// The case's own plan, or one for the other world in which it is resumed.
fn plan_of_run(streams: &[StreamShape], plan: &Plan, run: &Value) -> Result<Plan, String> {
    // The recorded world is the one after replication.
    let (world, batch_size) = (world_of(&run["world"]), size(&run["batch_size"]));
    let options = plan.options();
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
    for name in files("e2e/") {
        let file = vectors(&name);
        let arguments = &file["dataset_args"];
        let shard_sizes = array(&file["shard_sizes"]).iter().flat_map(uints).collect();
        let streams = [StreamShape { shard_sizes, weight: Weight::Natural }];
        run(&name, listed(&file["runs"]), |run| check_processes(&streams, arguments, run));
    }
}

fn check_processes(streams: &[StreamShape], arguments: &Value, run: &Value) -> Check {
    let (batch_size, ranks) = (size(&run["batch_size"]), size(&run["ranks"]));
    let case = json!({ "batch_size": batch_size, "dataset_args": arguments });
    let options = options_of(&case).map_err(|e| e.to_string())?;
    let world =
        World { nodes: 1, ranks_per_node: ranks, workers_per_rank: size(&run["workers"]).max(1) };
    let plan = Plan::new(streams, options, world).map_err(|e| e.to_string())?;
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
            let theirs = array(theirs).iter().map(uints).collect();
            equal(&format!("rank {rank}, epoch {epoch}"), ours, theirs)?;
        }
    }
    check_states(&plan, run, (batch_size * ranks) as u64)
}

fn check_states(plan: &Plan, run: &Value, global_batch: u64) -> Check {
    let Some(states) = run.get("state_dict") else { return Ok(()) };
    let (epoch, batches) = (uint(&run["stop"][0]), uint(&run["stop"][1]));
    let ours = serde_json::to_value(plan.state(epoch, batches * global_batch, None)).unwrap();
    array(states).iter().try_for_each(|theirs| equal("state", &ours, theirs))
}
