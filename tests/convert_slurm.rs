//! `scripts/slurm/convert.sbatch` on a real Slurm cluster of two nodes, which `tests/servers/slurm` starts.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

#[path = "support/shards.rs"]
mod shards;
#[path = "support/workshop.rs"]
mod workshop;

use workshop::{Workshop, entries};

/// For each thing that is waited for; the longest seen is 10 s.
const DEADLINE: Duration = Duration::from_secs(100);

fn run(program: &str, args: &[&str], folder: &Path) -> String {
    let output = Command::new(program).args(args).current_dir(folder).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        sleep(Duration::from_millis(20));
    }
}

/// Eight files, of which each task of four has two and takes some seconds.
fn write_files(shop: &Workshop) {
    for file in 0..8 {
        let line = |n: usize| {
            let text = format!("{n} of file {file} is {}. ", n * (n + file)).repeat(12 + n % 9);
            format!("{{\"text\":{text:?}}}\n")
        };
        shop.write(&format!("in/{file}.jsonl"), (0..40_000).map(line).collect::<String>());
    }
}

struct Cluster {
    shop: Workshop,
    script: PathBuf,
}

impl Cluster {
    /// Submits an array of tasks and returns its number.
    fn submit(&self, array: &str, args: &[&str]) -> String {
        let export = format!("--export=ALL,NUM_TASKS=4,CONVERT={}", env!("CARGO_BIN_EXE_convert"));
        let array = format!("--array={array}");
        let script = self.script.to_str().unwrap();
        let slurm = ["--parsable", &array, "--cpus-per-task=1", &export, script];
        run("sbatch", &[&slurm[..], args].concat(), &self.shop.path("."))
    }

    /// Whether the task is not running, nor ending.
    fn is_pending(&self, task: &str) -> bool {
        run("squeue", &["-h", "-j", task, "-o", "%T"], &self.shop.path(".")) == "PENDING"
    }

    fn wait_for_end(&self, job: &str) {
        wait_until("the end of the job", || {
            let over = Command::new("squeue").args(["-h", "-j", job]).output().unwrap();
            let errors = String::from_utf8_lossy(&over.stderr);
            // A job that is over for some time is not known any more.
            (over.status.success() && over.stdout.is_empty()) || errors.contains("Invalid job id")
        });
    }

    fn log(&self, job: &str, task: &str) -> String {
        fs::read_to_string(self.shop.path(&format!("convert-{job}_{task}.log"))).unwrap()
    }

    /// Waits until `task` has so many complete shards, of about 75.
    fn wait_for_shards(&self, out: &str, task: &str, least: usize) {
        let data = self.shop.path(&format!("{out}/train/.{task}.part/data"));
        wait_until("complete shards", || {
            entries(&data).iter().filter(|name| name.starts_with("shard.")).count() >= least
        });
    }
}

#[test]
#[ignore = "needs a Slurm cluster: make test-servers"]
fn an_array_whose_tasks_are_killed_makes_what_one_machine_makes() {
    let shop = Workshop::new();
    write_files(&shop);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/slurm/convert.sbatch");
    let cluster = Cluster { shop, script };
    let shop = &cluster.shop;
    let args = ["json", "--path", "in", "--size_limit", "500kb", "--compression", "zstd:19"];

    let job = cluster.submit("0-3", &[&args[..], &["--out_root", "out"]].concat());
    let requeued = format!("{job}_1");
    scope(|tasks| {
        // One task is requeued by Slurm, as when its node is needed for something else.
        tasks.spawn(|| {
            cluster.wait_for_shards("out", "00001", 3);
            run("scontrol", &["requeue", &requeued], &shop.path("."));
        });
        // Another one is killed at once, and does not come back by itself.
        tasks.spawn(|| {
            cluster.wait_for_shards("out", "00002", 3);
            run("scancel", &["--signal=KILL", "--full", &format!("{job}_2")], &shop.path("."));
        });
    });
    wait_until("the requeued task waits", || cluster.is_pending(&requeued));
    // It would wait for two minutes, which Slurm sets once more when the last of the old run is gone. In the second in
    // which the old run ended a node refuses the new one ("Job credential revoked"), and the task fails.
    sleep(Duration::from_secs(3));
    wait_until("the requeued task starts", || {
        let now = ["update", &format!("JobId={requeued}"), "StartTime=now"];
        Command::new("scontrol").args(now).output().unwrap();
        sleep(Duration::from_millis(500));
        !cluster.is_pending(&requeued)
    });
    cluster.wait_for_end(&job);

    assert!(
        cluster.log(&job, "1").contains("train/00001: going on with the "),
        "{}",
        cluster.log(&job, "1")
    );
    assert_eq!(entries(&shop.path("out/train")), [".00002.part", "00000", "00001", "00003"]);
    let again = cluster.submit("2", &[&args[..], &["--out_root", "out"]].concat());
    cluster.wait_for_end(&again);
    assert!(
        cluster.log(&again, "2").contains("train/00002: going on with the "),
        "{}",
        cluster.log(&again, "2")
    );
    assert_eq!(entries(&shop.path("out/train")), ["00000", "00001", "00002", "00003"]);

    shop.converted(&["merge", "out/train"]);
    shop.converted(&["json", "--path", "in", "--out_root", "whole"]);
    let whole = shards::read_strings(&shop.path("whole/train"));
    assert_eq!(whole.len(), 320_000);
    assert!(shards::read_strings(&shop.path("out/train")) == whole);

    // Token samples run on from the files of one task to those of the next: one program cuts them.
    let ids = ["json", "--path", "in", "--tokenizer", "gpt2", "--out_root", "ids"];
    let job = cluster.submit("0-3", &ids);
    cluster.wait_for_end(&job);
    shop.converted(&["merge", "ids/train"]);
    let cut = ["--concat_tokens", "2048", "--tokenizer", "gpt2", "--eos_text", "<|endoftext|>"];
    shop.converted(&[&["mds", "--path", "ids/train", "--out_root", "cut"][..], &cut].concat());
    shop.converted(&[&["json", "--path", "in", "--out_root", "tokens"][..], &cut].concat());
    let tokens = shards::read_ids(&shop.path("tokens/train"));
    assert!(tokens.len() > 10_000, "{}", tokens.len());
    assert!(shards::read_ids(&shop.path("cut/train")) == tokens);
}
