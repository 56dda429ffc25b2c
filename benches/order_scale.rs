//! What the order of very long epochs costs: seconds and peak memory, each in a process of its own.
//!
//! `cargo bench --bench order_scale` prints the table; `-- NAME` measures one row in this process.

use std::env;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use mds::order::{OrderOptions, Plan, ShuffleAlgo, StreamShape, Weight, World};

/// C4's `train`: 364,868,892 samples in shards of 20,000.
const C4: u64 = 364_868_892;
const TEN_BILLION: u64 = 10_000_000_000;

type Failed = Box<dyn std::error::Error>;

struct Row {
    name: &'static str,
    /// The most seconds and MB that it may take.
    target: &'static str,
    measure: fn() -> Result<(Duration, String), Failed>,
}

const ROWS: &[Row] = &[
    Row {
        name: "c4-first-batch",
        target: "2 s, 1 GB",
        measure: || window(c4(ShuffleAlgo::Py1e)?, 0),
    },
    Row {
        name: "c4-resume-at-300M",
        target: "2 s, 1 GB",
        measure: || window(c4(ShuffleAlgo::Py1e)?, 300_000_000 / (8 * 16) * (8 * 16)),
    },
    Row {
        name: "c4-all-ranks",
        target: "10 s, 4 GB",
        measure: || computed(c4(ShuffleAlgo::Py1e)?),
    },
    Row { name: "c4-all-ranks-stored", target: "", measure: || stored(c4(ShuffleAlgo::Py1e)?) },
    Row { name: "10M-all-ranks", target: "0.2 s", measure: || computed(ten_million()?) },
    Row { name: "10M-all-ranks-stored", target: "", measure: || stored(ten_million()?) },
    Row { name: "c4-first-batch-py1s", target: "", measure: || window(c4(ShuffleAlgo::Py1s)?, 0) },
    Row { name: "c4-first-batch-py2s", target: "", measure: || window(c4(ShuffleAlgo::Py2s)?, 0) },
    Row {
        name: "c4-first-batch-py1br",
        target: "",
        measure: || window(c4(ShuffleAlgo::Py1br)?, 0),
    },
    Row {
        name: "c4-first-batch-naive",
        target: "",
        measure: || window(c4(ShuffleAlgo::Naive)?, 0),
    },
    Row { name: "c4-half-first-batch", target: "", measure: || window(c4_half()?, 0) },
    Row { name: "10B-first-batch", target: "", measure: || window(ten_billion()?, 0) },
    Row { name: "10B-each-rank-s-first", target: "", measure: || every_rank(ten_billion()?) },
];

fn main() -> Result<(), Failed> {
    if let Some(row) = env::args().skip(1).find_map(|arg| ROWS.iter().find(|row| row.name == arg)) {
        let before = status_kib("VmRSS")?;
        let (time, what) = (row.measure)()?;
        let seconds = time.as_secs_f64();
        let peak = status_kib("VmHWM")?.saturating_sub(before) as f64 / 1e6 * 1024.0 / 1000.0;
        println!("{:24} {seconds:7.3} s {peak:7.3} GB  {:11} {what}", row.name, row.target);
        return Ok(());
    }
    for row in ROWS {
        let status = Command::new(env::current_exe()?).arg(row.name).status()?;
        if !status.success() {
            return Err(format!("{} has failed: {status}", row.name).into());
        }
    }
    Ok(())
}

fn shards(samples: u64) -> Vec<u64> {
    let full = std::iter::repeat_n(20_000, (samples / 20_000) as usize);
    full.chain(Some(samples % 20_000).filter(|rest| *rest > 0)).collect()
}

fn plan(sizes: Vec<u64>, weight: Weight, algo: ShuffleAlgo, world: World) -> Result<Plan, Failed> {
    let options = OrderOptions {
        batch_size: Some(16),
        shuffle: true,
        shuffle_algo: algo,
        shuffle_block_size: Some(262_144),
        ..OrderOptions::default()
    };
    Ok(Plan::new(&[StreamShape { shard_sizes: sizes, weight }], options, world)?)
}

const ONE_NODE: World = World { nodes: 1, ranks_per_node: 8, workers_per_rank: 2 };

fn c4(algo: ShuffleAlgo) -> Result<Plan, Failed> {
    plan(shards(C4), Weight::Natural, algo, ONE_NODE)
}

fn c4_half() -> Result<Plan, Failed> {
    plan(shards(C4), Weight::Repeat(0.5), ShuffleAlgo::Py1e, ONE_NODE)
}

fn ten_million() -> Result<Plan, Failed> {
    plan(shards(10_000_000), Weight::Natural, ShuffleAlgo::Py1e, ONE_NODE)
}

fn ten_billion() -> Result<Plan, Failed> {
    let world = World { nodes: 128, ..ONE_NODE };
    plan(shards(TEN_BILLION), Weight::Natural, ShuffleAlgo::Py1e, world)
}

/// The last rank's first batch from `sample` on.
fn window(plan: Plan, sample: u64) -> Result<(Duration, String), Failed> {
    let start = Instant::now();
    let order = plan.epoch(0, sample, None)?;
    let World { nodes, ranks_per_node, .. } = order.world();
    let batch = order.rank_batches(nodes - 1, ranks_per_node - 1).next();
    let time = start.elapsed();
    Ok((time, format!("begins with {:?}", batch.as_deref().map(|ids| &ids[..3]))))
}

/// All ranks' ids, piece by piece.
fn computed(plan: Plan) -> Result<(Duration, String), Failed> {
    let start = Instant::now();
    let order = plan.epoch(0, 0, None)?;
    let (mut stretches, mut sum) = (order.stretches(), Checksum::default());
    let mut summing = Duration::ZERO;
    while let Some(ids) = stretches.next_stretch() {
        let start = Instant::now();
        sum.add(ids);
        summing += start.elapsed();
    }
    Ok((start.elapsed() - summing, sum.shown()))
}

/// All ranks' ids at once.
fn stored(plan: Plan) -> Result<(Duration, String), Failed> {
    let start = Instant::now();
    let ids = plan.epoch(0, 0, None)?.to_vec();
    let time = start.elapsed();
    let mut sum = Checksum::default();
    sum.add(&ids);
    Ok((time, sum.shown()))
}

/// The first batch of every rank, all from one pass over the random numbers.
fn every_rank(plan: Plan) -> Result<(Duration, String), Failed> {
    let start = Instant::now();
    let order = plan.epoch(0, 0, None)?;
    let World { nodes, ranks_per_node, .. } = order.world();
    let mut ids = 0;
    for node in 0..nodes {
        for rank in 0..ranks_per_node {
            ids += order.rank_batches(node, rank).next().map_or(0, |batch| batch.len());
        }
    }
    Ok((start.elapsed(), format!("{ids} ids of {} ranks", nodes * ranks_per_node)))
}

/// The same as benches/peers/order.py has for the reference's ids.
#[derive(Default)]
struct Checksum {
    place: u64,
    sum: u64,
}

impl Checksum {
    fn add(&mut self, ids: &[i64]) {
        for &id in ids {
            self.place += 1;
            self.sum = self.sum.wrapping_add((id as u64).wrapping_mul(self.place));
        }
    }

    fn shown(&self) -> String {
        format!("{} ids, checksum {}", self.place, self.sum)
    }
}

/// A field of this process's `/proc/self/status`, in KiB.
fn status_kib(field: &str) -> Result<u64, Failed> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or("there is no such field in /proc/self/status")?.parse()?)
}
