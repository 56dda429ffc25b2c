//! Vectors that the reference wrote: where they lie, how they are read, and how all cases of a part
//! are run.
//!
//! The vectors are read from `$MDS_GOLDEN_DIR` if it is set, else from `tests/golden`. Whatever
//! cases are there are run, each failing one is named, and a missing part is skipped with a notice;
//! no cases at all is a failure.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::any::Any;
use std::fmt::Debug;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use mds::order::{EpochOrder, World};
use serde_json::Value;

pub(crate) type Check = Result<(), String>;

/// The folder of the vectors.
pub(crate) fn golden_dir() -> PathBuf {
    // A test runs in its crate's folder; who sets a relative path means it from the workspace's root.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.join(std::env::var_os("MDS_GOLDEN_DIR").unwrap_or("tests/golden".into()))
}

/// Written past the capture of the test harness, so that a passing run says what it skipped.
pub(crate) fn notice(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}: {text}", env!("CARGO_CRATE_NAME"));
}

/// A folder may hold any of the parts, and each test runs its own; but none at all is a mistake.
pub(crate) fn assert_some_vectors() {
    let some = golden_dir().join("mds").exists()
        || ["numpy_rng", "primitives/", "order/", "e2e/"]
            .iter()
            .any(|part| !names(part).is_empty());
    assert!(some, "there are no golden vectors in {}", golden_dir().display());
}

/// The vector files whose names, seen from the golden folder, begin with `part`.
fn names(part: &str) -> Vec<String> {
    let folder = part.rsplit_once('/').map_or("", |(folder, _)| folder);
    let Ok(entries) = std::fs::read_dir(golden_dir().join(folder)) else { return Vec::new() };
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = Path::new(folder).join(entry.unwrap().file_name());
        path.into_os_string().into_string().unwrap()
    };
    let mut names: Vec<String> = entries.map(name).collect();
    names.retain(|name| name.starts_with(part) && name.ends_with(".json"));
    names.sort();
    names
}

/// As [`names`], with a notice if there are none.
pub(crate) fn files(part: &str) -> Vec<String> {
    let names = names(part);
    if names.is_empty() {
        notice(&format!("SKIPPED: there is no {part}*.json in {}", golden_dir().display()));
    }
    names
}

pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?").to_owned()
}

/// What a vector file holds.
pub(crate) fn vectors(name: &str) -> Value {
    let path = golden_dir().join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Runs all cases of all files of a part, which are lists.
pub(crate) fn run_files(part: &str, check: impl Fn(&Value) -> Check) {
    for name in files(part) {
        run(&name, listed(&vectors(&name)), &check);
    }
}

/// Runs all cases and names every one that fails.
pub(crate) fn run<T>(
    part: &str,
    cases: impl IntoIterator<Item = (String, T)>,
    check: impl Fn(&T) -> Check,
) {
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
pub(crate) fn listed(cases: &Value) -> Vec<(String, Value)> {
    array(cases).iter().enumerate().map(|(i, case)| (format!("#{i}"), case.clone())).collect()
}

pub(crate) fn array(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("not a list: {value}"))
}

pub(crate) fn int(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("not an integer: {value}"))
}

pub(crate) fn uint(value: &Value) -> u64 {
    // Numbers that do not fit a double are written as strings.
    let number = value.as_u64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
    number.unwrap_or_else(|| panic!("not a natural number: {value}"))
}

pub(crate) fn size(value: &Value) -> usize {
    uint(value) as usize
}

pub(crate) fn uints(value: &Value) -> Vec<u64> {
    array(value).iter().map(uint).collect()
}

pub(crate) fn units(value: &Value) -> Vec<u32> {
    uints(value).into_iter().map(|unit| u32::try_from(unit).unwrap()).collect()
}

pub(crate) fn ints(value: &Value) -> Vec<i64> {
    array(value).iter().map(int).collect()
}

/// A number that is written as a string.
pub(crate) fn quoted<T: std::str::FromStr<Err: Debug>>(value: &Value) -> T {
    value.as_str().unwrap_or_else(|| panic!("not a string: {value}")).parse().unwrap()
}

/// Doubles as the hexadecimal digits of their bytes.
pub(crate) fn doubles(value: &Value) -> Vec<f64> {
    let double = |value: &Value| {
        let bytes = hex::decode(value.as_str().unwrap()).unwrap();
        f64::from_le_bytes(bytes.try_into().unwrap())
    };
    array(value).iter().map(double).collect()
}

pub(crate) fn equal<T: PartialEq + Debug>(what: &str, ours: T, theirs: T) -> Check {
    if ours == theirs {
        return Ok(());
    }
    let short = |value: &T| format!("{value:?}").chars().take(160).collect::<String>();
    Err(format!("{what} is {}, expected {}", short(&ours), short(&theirs)))
}

/// What we computed; `None` if the reference raises an exception and we refuse as well.
pub(crate) fn accepted<T>(case: &Value, ours: mds::order::Result<T>) -> Result<Option<T>, String> {
    match (ours, case["error"].as_str()) {
        (Ok(ours), None) => Ok(Some(ours)),
        (Err(_), Some(_)) => Ok(None),
        (Ok(_), Some(error)) => Err(format!("accepted, expected {error}")),
        (Err(error), None) => Err(error.to_string()),
    }
}

/// Nodes, ranks, workers, batches of a worker, samples of a batch.
pub(crate) fn shape(order: &EpochOrder) -> Vec<usize> {
    let World { nodes, ranks_per_node, workers_per_rank } = order.world();
    vec![nodes, ranks_per_node, workers_per_rank, order.batches_per_worker(), order.batch_size()]
}

/// All ids, worker by worker.
pub(crate) fn flat(order: &EpochOrder) -> Vec<i64> {
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

pub(crate) fn world_of(value: &Value) -> World {
    World {
        nodes: size(&value["nodes"]),
        ranks_per_node: size(&value["ranks_per_node"]),
        workers_per_rank: size(&value["workers_per_rank"]),
    }
}
