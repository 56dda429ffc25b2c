//! A run that is killed, or stopped, and resumed is the run that never was, to the last bit: parameters, moments, position,
//! seed and every logged loss. At ten random instants, one of them while a checkpoint is being written; at every step;
//! and killed a hundred times while it saves after every step.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, UNIX_EPOCH};

use serde_json::Value;

#[path = "support/training.rs"]
mod training;
use trainer::checkpoint::{Place, SaveFolder};
use training::{logged, records, small_dataset, small_recipe, succeed, train};

const PATIENCE: Duration = Duration::from_secs(120);

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % limit
    }
}

#[test]
fn a_killed_run_resumes_to_the_same_bits() {
    let root = tempfile::tempdir().unwrap();
    let dataset = small_dataset(root.path());
    let unbroken = folder(root.path(), "unbroken");
    succeed(&mut train(&small_recipe(&unbroken, &dataset), &[]));
    assert_eq!(
        records(&unbroken).iter().filter(|r| r.get("loss/train/total").is_some()).count(),
        40
    );

    let seed = std::env::var("RESUME_SEED").map_or_else(|_| now(), |seed| seed.parse().unwrap());
    println!("RESUME_SEED={seed} repeats these instants");
    let mut random = Random(seed);
    for instant in 0..9 {
        let broken = folder(root.path(), &format!("killed-{instant}"));
        let recipe = small_recipe(&broken, &dataset);
        kill_beyond_step(
            &recipe,
            &broken,
            20 + 2 + random.below(16),
            Duration::from_micros(random.below(8000)),
        );
        assert_resumes_to(&recipe, &broken, &unbroken, &["ep0-ba20"]);
    }

    let broken = folder(root.path(), "killed-while-saving");
    let recipe = small_recipe(&broken, &dataset);
    kill_while_saving(&recipe, &broken);
    assert_resumes_to(&recipe, &broken, &unbroken, &["ep0-ba20", "ep0-ba30"]);
}

/// How often a run is killed while it saves.
const KILLS: usize = 100;

/// One run that saves after every step, keeps one checkpoint, and is killed at random instants, again and again.
#[test]
fn killed_in_mid_checkpoint_again_and_again_a_run_never_loses_its_only_good_one() {
    let root = tempfile::tempdir().unwrap();
    let dataset = small_dataset(root.path());
    let seed = std::env::var("RESUME_SEED").map_or_else(|_| now(), |seed| seed.parse().unwrap());
    println!("RESUME_SEED={seed} repeats these instants");
    let mut random = Random(seed);
    let broken = folder(root.path(), "broken");
    let recipe = small_recipe(&broken, &dataset);
    let lasting = ["scheduler.t_max=1000ba", "eval_loader=null", "generate.prompt=null"];
    let endless = [
        &lasting[..],
        &["save_interval=1ba", "save_num_checkpoints_to_keep=1", "max_duration=100000ba"],
    ]
    .concat();
    let place = Place::Folder(broken.join("checkpoints"));
    let newest = || {
        // What looks like a checkpoint is one, and all of it: nothing is passed over.
        let found = SaveFolder::newest(&place).unwrap();
        found.map_or(0, |found| {
            assert!(found.notices.is_empty(), "{:?}", found.notices);
            found.checkpoint.state.timestamp.batch
        })
    };
    let (mut in_mid_save, mut before) = (0, 0);
    for kill in 0..KILLS {
        let mut child = spawn(&recipe, &endless);
        let deadline = Instant::now() + PATIENCE;
        // It has got beyond what was saved, and saves.
        let step = before + 1 + random.below(4);
        let line = format!("\"batch\":{step},");
        let metrics = broken.join("run/metrics.jsonl");
        while !std::fs::read_to_string(&metrics).unwrap_or_default().contains(&line) {
            assert!(Instant::now() < deadline, "step {step} was not reached");
            assert!(child.try_wait().unwrap().is_none(), "the run ended");
            sleep(Duration::from_micros(500));
        }
        sleep(Duration::from_micros(random.below(20_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        let names = std::fs::read_dir(broken.join("checkpoints")).unwrap().flatten();
        let hidden =
            names.filter(|name| name.file_name().to_string_lossy().starts_with(".writing"));
        in_mid_save += usize::from(hidden.count() > 0);
        let now = newest();
        assert!(now >= before, "kill {kill}: from {before} back to {now}");
        before = now;
    }
    println!("{KILLS} kills, {in_mid_save} of them in the middle of writing");
    assert!(in_mid_save > 0);

    let end = format!("max_duration={}ba", before + 2);
    succeed(&mut train(&recipe, &[&lasting[..], &[&end]].concat()));
    let unbroken = folder(root.path(), "unbroken");
    let recipe = small_recipe(&unbroken, &dataset);
    succeed(&mut train(&recipe, &[&lasting[..], &[&end]].concat()));
    assert_same_end(&broken, &unbroken, before + 2);
}

/// From the checkpoint of each step to the end, and stopped after each step; with joined and with padded documents.
#[test]
fn a_run_can_be_resumed_at_every_step() {
    const STEPS: u64 = 10;
    let root = tempfile::tempdir().unwrap();
    let dataset = small_dataset(root.path());
    for method in ["concat", "truncate"] {
        let method_key = format!("train_loader.dataset.group_method={method}");
        let lasting = [
            &method_key,
            "scheduler.t_max=10ba",
            "eval_loader=null",
            "generate.prompt=null",
            "callbacks={kill_loss_spike: {window_size: 3}}",
        ];
        let run = |name: &str, steps: u64, interval: &str| {
            let run = root.path().join(format!("{method}-{name}"));
            std::fs::create_dir_all(&run).unwrap();
            let (end, interval) =
                (format!("max_duration={steps}ba"), format!("save_interval={interval}"));
            let recipe = small_recipe(&run, &dataset);
            succeed(&mut train(&recipe, &[&lasting[..], &[&end, &interval]].concat()));
            run
        };
        let whole = run("whole", STEPS, "1ba");
        for step in 1..STEPS {
            let name = format!("from-{step}");
            let from = root.path().join(format!("{method}-{name}"));
            let checkpoint = format!("checkpoints/{}", saved_as(&whole, step));
            copy(&whole.join(&checkpoint), &from.join(&checkpoint));
            copy(&whole.join("run"), &from.join("run"));
            let resumed = run(&name, STEPS, "1dur");
            assert_same_end(&resumed, &whole, STEPS);
        }
        let mut stopped = PathBuf::new();
        for steps in 1..=STEPS {
            stopped = run("stopped", steps, "1dur");
        }
        assert_same_end(&stopped, &whole, STEPS);
    }
}

/// Another number of microbatches adds the same numbers in another order.
#[test]
fn a_run_resumed_with_another_microbatch_is_the_same_but_for_rounding() {
    let root = tempfile::tempdir().unwrap();
    let dataset = small_dataset(root.path());
    // Dropout is drawn for each microbatch.
    let lasting = ["max_duration=20ba", "model.emb_pdrop=0", "model.resid_pdrop=0"];
    let losses = |run: &Path| -> Vec<f64> {
        records(run).iter().filter_map(|record| record["loss/train/total"].as_f64()).collect()
    };
    let whole = folder(root.path(), "whole");
    let recipe = small_recipe(&whole, &dataset);
    succeed(&mut train(&recipe, &[&lasting[..], &["save_interval=10ba"]].concat()));
    for rows in [1, 2, 3, 6] {
        let resumed = folder(root.path(), &format!("rows-{rows}"));
        copy(&whole.join("checkpoints/ep0-ba10"), &resumed.join("checkpoints/ep0-ba10"));
        copy(&whole.join("run"), &resumed.join("run"));
        let rows = format!("device_train_microbatch_size={rows}");
        let recipe = small_recipe(&resumed, &dataset);
        succeed(&mut train(&recipe, &[&lasting[..], &[&rows]].concat()));
        let (resumed, whole) = (losses(&resumed), losses(&whole));
        assert_eq!((resumed.len(), &resumed[..10]), (20, &whole[..10]));
        let off = resumed.iter().zip(&whole).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        println!("{rows}: losses differ by {off:e} at most");
        assert!(off < 1e-5, "{rows}: {off:e}");
    }
}

/// Copies the files below `from` to `to`.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let to = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to),
            false => _ = std::fs::copy(entry.path(), to).unwrap(),
        }
    }
}

/// The name of the checkpoint of step `step`, which may be in any epoch.
fn saved_as(run: &Path, step: u64) -> String {
    let names = std::fs::read_dir(run.join("checkpoints")).unwrap().flatten();
    let mut names = names.map(|entry| entry.file_name().into_string().unwrap());
    names.find(|name| name.ends_with(&format!("-ba{step}"))).unwrap()
}

/// Both came to step `step` with the same bits in everything that is saved, and with the same losses on the way.
fn assert_same_end(run: &Path, other: &Path, step: u64) {
    let name = saved_as(other, step);
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let read =
            |run: &Path| std::fs::read(run.join("checkpoints").join(&name).join(file)).unwrap();
        assert!(read(run) == read(other), "{file} differs after resuming {}", run.display());
    }
    assert_eq!(state(run, &name), state(other, &name), "{}", run.display());
    assert_eq!(logged(run), logged(other), "metrics of {}", run.display());
}

/// `state.json`, without the clock and without the recipe, in which folders differ.
fn state(run: &Path, checkpoint: &str) -> Value {
    let json = std::fs::read(run.join("checkpoints").join(checkpoint).join("state.json")).unwrap();
    let mut state: Value = serde_json::from_slice(&json).unwrap();
    let fields = state.as_object_mut().unwrap();
    for clock in ["train_seconds", "eval_seconds", "config"] {
        assert!(fields.remove(clock).is_some());
    }
    assert!(fields["seed"].is_u64() && fields["optimizer_steps"].is_u64());
    state
}

fn now() -> u64 {
    UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64
}

fn folder(root: &Path, name: &str) -> PathBuf {
    let folder = root.join(name);
    std::fs::create_dir(&folder).unwrap();
    folder
}

fn spawn(recipe: &Path, overrides: &[&str]) -> Child {
    train(recipe, overrides).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Runs until step `step` was logged and `delay` has gone by, then kills with SIGKILL.
fn kill_beyond_step(recipe: &Path, run: &Path, step: u64, delay: Duration) {
    let metrics = run.join("run/metrics.jsonl");
    for attempt in 1.. {
        clear(run);
        let mut child = spawn(recipe, &[]);
        let deadline = Instant::now() + PATIENCE;
        // The checkpoint is written while the steps after it are taken.
        let saved = run.join("checkpoints/ep0-ba20");
        let reached = || {
            let text = std::fs::read_to_string(&metrics).unwrap_or_default();
            let steps = text.lines().filter(|line| line.contains("loss/train/total")).count();
            steps as u64 >= step && saved.exists()
        };
        while !reached() && child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "step {step} was not reached");
            sleep(Duration::from_micros(500));
        }
        sleep(delay);
        child.kill().unwrap();
        child.wait().unwrap();
        let finished = run.join("checkpoints/ep0-ba40").exists();
        println!("{}: killed {delay:?} after step {step}, attempt {attempt}", run.display());
        if !finished {
            return;
        }
        assert!(attempt < 20, "the run always came to its end before it could be killed");
    }
}

/// Kills the run in the middle of a save beyond step 20: the half-written folder is still there afterwards.
fn kill_while_saving(recipe: &Path, run: &Path) {
    let writing = run.join("checkpoints/.writing-ep0-ba30");
    for attempt in 1.. {
        clear(run);
        let mut child = spawn(recipe, &["save_interval=10ba"]);
        let deadline = Instant::now() + PATIENCE;
        while !writing.exists() && child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "no save was seen");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        if writing.exists() {
            println!("killed while saving, attempt {attempt}");
            return;
        }
        assert!(attempt < 50, "no kill came in time for a save");
    }
}

fn clear(run: &Path) {
    for name in ["run", "checkpoints"] {
        match std::fs::remove_dir_all(run.join(name)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => panic!("{e}"),
            _ => {}
        }
    }
}

fn assert_resumes_to(recipe: &Path, broken: &Path, unbroken: &Path, from: &[&str]) {
    let output = succeed(&mut train(recipe, &[]));
    let stderr = String::from_utf8_lossy(&output.stderr);
    let line = stderr.lines().find(|line| line.starts_with("continuing from")).unwrap_or_default();
    assert!(from.iter().any(|name| line.contains(name)), "{line:?} in {stderr}");

    assert_same_end(broken, unbroken, 40);
    let left: Vec<_> = std::fs::read_dir(broken.join("checkpoints")).unwrap().flatten().collect();
    assert!(left.iter().all(|e| !e.file_name().to_string_lossy().starts_with('.')), "{left:?}");
}
