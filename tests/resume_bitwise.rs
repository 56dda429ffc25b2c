//! A killed run that is resumed is the run that was never killed, to the last bit: parameters, moments and every
//! logged loss, at ten random instants, one of them while a checkpoint is being written.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, UNIX_EPOCH};

use serde_json::Value;

#[path = "support/training.rs"]
mod training;
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

    for file in ["model.safetensors", "optimizer.safetensors"] {
        let read = |run: &Path| std::fs::read(run.join("checkpoints/ep0-ba40").join(file)).unwrap();
        assert!(
            read(broken) == read(unbroken),
            "{file} differs after resuming {}",
            broken.display()
        );
    }
    let position = |run: &Path| {
        let json = std::fs::read(run.join("checkpoints/ep0-ba40/state.json")).unwrap();
        let state: Value = serde_json::from_slice(&json).unwrap();
        (state["timestamp"].clone(), state["data"].clone())
    };
    assert_eq!(position(broken), position(unbroken));
    assert_eq!(logged(broken), logged(unbroken), "metrics of {}", broken.display());
    let left: Vec<_> = std::fs::read_dir(broken.join("checkpoints")).unwrap().flatten().collect();
    assert!(left.iter().all(|e| !e.file_name().to_string_lossy().starts_with('.')), "{left:?}");
}
