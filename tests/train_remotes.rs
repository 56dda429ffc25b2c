//! Runs that keep their checkpoints and metrics in a bucket: saving, continuing, and every way in which that can fail.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

#[path = "support/bucket.rs"]
mod bucket;
#[path = "support/listing.rs"]
mod listing;
#[path = "support/training.rs"]
mod training;
use bucket::{Bucket, Fault, Rule, SECRET};
use mds::storage::{Remote, RemoteOptions};
use serde_json::Value;
use training::{failure, logged, repository, said, small_dataset, small_recipe, succeed, train};

/// A recipe for four short steps, a bucket, and machines to run on.
struct Scene {
    folder: tempfile::TempDir,
    recipe: PathBuf,
    bucket: Bucket,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dataset = small_dataset(folder.path());
        let recipe = small_recipe(folder.path(), &dataset);
        Self { folder, recipe, bucket: Bucket::start() }
    }

    /// Four steps that save to the bucket after every second one, on `machine`, which has its own caches.
    fn run(&self, machine: &str, overrides: &[&str]) -> Command {
        let save_folder = format!("save_folder={}", self.bucket.address("run"));
        let mut command = self.anywhere(machine, &[&save_folder]);
        command.args(overrides);
        command
    }

    fn anywhere(&self, machine: &str, overrides: &[&str]) -> Command {
        let folder = |name: &str| format!("{}/{machine}-{name}", self.folder.path().display());
        let mut command = train(&self.recipe, &["max_duration=4ba", "save_interval=2ba"]);
        command.arg(format!("run_folder={}", folder("run"))).args(overrides);
        command
            .env("MDS_CACHE_DIR", folder("caches"))
            .env("HOME", folder("home"))
            .env("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")
            .env("AWS_EC2_METADATA_DISABLED", "true");
        command
    }

    /// The same steps, saved to a folder of this machine.
    fn local(&self) -> PathBuf {
        let folder = self.folder.path().join("local");
        let save_folder = format!("save_folder={}/checkpoints", folder.display());
        let run_folder = format!("run_folder={}/run", folder.display());
        succeed(&mut self.anywhere("local", &[&save_folder, &run_folder]));
        folder
    }

    /// Puts the dataset into the bucket's folder `c4`.
    fn upload_data(&self) {
        for split in ["train", "val"] {
            let folder = self.folder.path().join("c4").join(split);
            for file in names_in(&folder) {
                let bytes = std::fs::read(folder.join(&file)).unwrap();
                self.bucket.put(&format!("c4/{split}/{file}"), &bytes);
            }
        }
    }

    /// Where checkpoints lie on `machine` until they have arrived.
    fn outgoing(&self, machine: &str) -> PathBuf {
        let outgoing = self.folder.path().join(format!("{machine}-caches/outgoing"));
        let mut folders = std::fs::read_dir(outgoing).unwrap().flatten();
        let folder =
            folders.find(|f| f.file_name().to_string_lossy().starts_with("s3-bucket-run-"));
        folder.unwrap().path()
    }

    /// The bucket holds the checkpoint `name` as the local run made it.
    #[track_caller]
    fn assert_same(&self, local: &Path, name: &str) {
        let objects = self.bucket.objects();
        let here =
            |file: &str| std::fs::read(local.join("checkpoints").join(name).join(file)).unwrap();
        let there = |file: &str| &objects[&format!("run/{name}/{file}")];
        for file in ["model.safetensors", "optimizer.safetensors"] {
            assert!(here(file) == *there(file), "{name}/{file} differs");
        }
        let position = |json: &[u8]| {
            let state: Value = serde_json::from_slice(json).unwrap();
            (state["timestamp"].clone(), state["data"].clone(), state["files"].clone())
        };
        assert_eq!(position(&here("state.json")), position(there("state.json")));
    }
}

/// The objects of a save folder that holds these checkpoints.
fn checkpoints(names: &[&str]) -> Vec<String> {
    let files = ["model.safetensors", "optimizer.safetensors", "state.json"];
    let of = |name: &&str| files.map(|file| format!("run/{name}/{file}"));
    let mut keys: Vec<String> = names.iter().flat_map(of).collect();
    keys.extend(["run/.run".to_owned(), "run/latest".to_owned()]);
    keys.sort();
    keys
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    let mut names: Vec<String> = entries.map(|e| e.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Requests of this method fail where the key contains the text.
fn refuse(method: &'static str, key: &'static str, code: u16) -> Option<Rule> {
    Some(Rule { method, key, after: 0, fault: Fault::Status(code) })
}

#[test]
fn a_run_saves_to_a_bucket_and_another_machine_continues_it_to_the_same_bits() {
    let scene = Scene::new();
    let local = scene.local();
    let metrics = format!("run_folder={}", scene.bucket.address("metrics"));
    let text = said(&mut scene.run("first", &[&metrics]));
    assert!(text.contains("\nsaved s3://bucket/run/ep0-ba2\n"), "{text}");
    let keys = scene.bucket.keys();
    let (of_metrics, of_run): (Vec<_>, Vec<_>) =
        keys.into_iter().partition(|key| key.starts_with("metrics/"));
    assert_eq!(of_run, checkpoints(&["ep0-ba2", "ep0-ba4"]));
    scene.assert_same(&local, "ep0-ba2");
    scene.assert_same(&local, "ep0-ba4");
    assert_eq!(scene.bucket.objects()["run/latest"], b"ep0-ba4\n");
    // In the order in which they make it complete.
    let requests = scene.bucket.take_requests();
    let saved: Vec<_> = requests.iter().filter(|r| r.starts_with("PUT run/ep0-ba4")).collect();
    assert_eq!(
        saved,
        ["model.safetensors", "optimizer.safetensors", "state.json"]
            .map(|file| format!("PUT run/ep0-ba4/{file}"))
            .iter()
            .collect::<Vec<_>>()
    );
    assert_eq!(names_in(&scene.outgoing("first")), [".run", "latest"]);
    assert_eq!(
        of_metrics[..3],
        ["metrics/.run", "metrics/loss_curve.svg", "metrics/metrics.jsonl"]
    );
    assert!(of_metrics[3].starts_with("metrics/tensorboard/"), "{of_metrics:?}");

    // As if the first machine had been lost after two steps.
    for key in scene.bucket.keys().iter().filter(|key| key.contains("ep0-ba4")) {
        scene.bucket.remove(key);
    }
    let text = said(&mut scene.run("second", &[&metrics]));
    assert!(text.contains("\ncontinuing from s3://bucket/run/ep0-ba2 (batch 2)\n"), "{text}");
    assert!(text.contains("note: run_folder s3://bucket/metrics is written to "), "{text}");
    scene.assert_same(&local, "ep0-ba4");
    let fetched = scene.folder.path().join("fetched");
    std::fs::create_dir_all(fetched.join("run")).unwrap();
    std::fs::write(
        fetched.join("run/metrics.jsonl"),
        &scene.bucket.objects()["metrics/metrics.jsonl"],
    )
    .unwrap();
    assert_eq!(logged(&fetched), logged(&local));
    let events =
        scene.bucket.keys().into_iter().filter(|key| key.contains("/tensorboard/")).count();
    assert_eq!(events, 2, "the event files of both parts");

    // Nothing is left to do.
    let text = said(&mut scene.run("third", &[&metrics]));
    assert!(text.contains("continuing from s3://bucket/run/ep0-ba4 (batch 4)"), "{text}");
    scene.assert_same(&local, "ep0-ba4");
}

#[test]
fn a_checkpoint_in_a_bucket_is_loaded_by_its_own_address_or_its_save_folders() {
    let scene = Scene::new();
    succeed(&mut scene.run("first", &[]));
    let web = scene.bucket.web_address("run");
    let nowhere = "save_folder=null";
    for (path, shown) in [
        (scene.bucket.address("run"), "s3://bucket/run/ep0-ba4 (batch 4)"),
        (scene.bucket.address("run/ep0-ba2"), "s3://bucket/run/ep0-ba2 (batch 2)"),
        (format!("{web}/ep0-ba2"), "/bucket/run/ep0-ba2 (batch 2)"),
        // A web server does not list, but it has the name of the latest.
        (web, "/bucket/run/ep0-ba4 (batch 4)"),
    ] {
        let load = format!("load_path={path}");
        let overrides = [nowhere, "autoresume=false", "max_duration=5ba", &load];
        let text = said(&mut scene.anywhere("second", &overrides));
        let line =
            text.lines().find(|line| line.starts_with("continuing from")).unwrap_or_default();
        assert!(line.ends_with(shown), "{line:?} for {shown}");
    }
    let load = format!("load_path={}", scene.bucket.address("run/ep0-ba3"));
    assert_eq!(
        failure(&mut scene.anywhere("second", &[nowhere, "autoresume=false", &load])),
        "error: there is no checkpoint `s3://bucket/run/ep0-ba3`; give a folder like ep0-ba100, or the \
         save_folder that holds it"
    );
    scene.bucket.remove("run/ep0-ba2/state.json");
    let load = format!("load_path={}", scene.bucket.address("run/ep0-ba2"));
    assert_eq!(
        failure(&mut scene.anywhere("second", &[nowhere, "autoresume=false", &load])),
        "error: the checkpoint `s3://bucket/run/ep0-ba2` is damaged: state.json is missing; remove that folder and \
         continue from an older one"
    );
}

#[test]
fn a_checkpoint_that_does_not_arrive_stops_the_run_and_is_sent_by_the_next() {
    let scene = Scene::new();
    let local = scene.local();
    scene.bucket.fail(refuse("PUT", "run/ep0-ba2/optimizer", 403));
    let message = failure(&mut scene.run("here", &[]));
    let kept = scene.outgoing("here").join("ep0-ba2");
    assert_eq!(
        message,
        format!(
            "error: the checkpoint ep0-ba2 was not saved to s3://bucket/run: writing \
             s3://bucket/run/ep0-ba2/optimizer.safetensors is denied; check the credentials in the environment. A \
             copy is kept in `{}`; on this machine autoresume=true uploads it and continues from it",
            kept.display()
        )
    );
    assert_eq!(names_in(&kept), ["model.safetensors", "optimizer.safetensors", "state.json"]);
    assert_eq!(scene.bucket.keys(), ["run/.run", "run/ep0-ba2/model.safetensors"]);

    // It is still refused: the next run sees so before it trains.
    let message = failure(&mut scene.run("here", &[]));
    assert!(message.starts_with("error: the checkpoint ep0-ba2 was not saved"), "{message}");

    scene.bucket.fail(None);
    let text = said(&mut scene.run("here", &[]));
    let from = format!("\ncontinuing from {} (batch 2)\n", kept.display());
    assert!(text.contains(&from), "{from:?} is not in {text}");
    assert_eq!(scene.bucket.keys(), checkpoints(&["ep0-ba2", "ep0-ba4"]));
    scene.assert_same(&local, "ep0-ba2");
    scene.assert_same(&local, "ep0-ba4");
    assert_eq!(names_in(&scene.outgoing("here")), [".run", "latest"]);
}

#[test]
fn metrics_that_do_not_arrive_stop_the_run_after_its_checkpoint_and_are_not_lost() {
    let scene = Scene::new();
    let local = scene.local();
    let metrics = format!("run_folder={}", scene.bucket.address("run/metrics"));
    let rule = Rule { method: "PUT", key: "metrics.jsonl", after: 1, fault: Fault::Status(403) };
    scene.bucket.fail(Some(rule));
    let message = failure(&mut scene.run("here", &[&metrics, "save_interval=1ba"]));
    let outgoing = scene.folder.path().join("here-caches/outgoing");
    let kept = names_in(&outgoing).into_iter().find(|n| n.starts_with("s3-bucket-run-metrics-"));
    assert_eq!(
        message,
        format!(
            "error: the run folder was not saved to s3://bucket/run/metrics: writing \
             s3://bucket/run/metrics/metrics.jsonl is denied; check the credentials in the environment. A copy is \
             kept in `{}`",
            outgoing.join(kept.unwrap()).display()
        )
    );
    let keys = scene.bucket.keys();
    assert!(keys.contains(&"run/ep0-ba2/state.json".to_owned()), "{keys:?}");
    scene.bucket.fail(None);
    said(&mut scene.run("here", &[&metrics, "save_interval=1ba"]));
    let fetched = scene.folder.path().join("fetched");
    std::fs::create_dir_all(fetched.join("run")).unwrap();
    let objects = scene.bucket.objects();
    std::fs::write(fetched.join("run/metrics.jsonl"), &objects["run/metrics/metrics.jsonl"])
        .unwrap();
    assert_eq!(logged(&fetched), logged(&local));
}

#[test]
fn data_comes_before_the_run_is_ready_for_its_first_step() {
    let scene = Scene::new();
    scene.upload_data();
    // The save folder is opened after the model is made, and here never.
    let rule = Rule { method: "PUT", key: "run/.run", after: 0, fault: Fault::Silence };
    scene.bucket.fail(Some(rule));
    let data = format!("data_remote={}", scene.bucket.address("c4"));
    let mut run = scene.run("here", &[&data]);
    let mut child = run.stderr(Stdio::null()).spawn().unwrap();
    wait_until("a shard", || scene.bucket.requests("GET c4/train/shard.00000.mds") > 0);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// What led to the error is most of all to be seen.
#[test]
fn a_run_that_ends_with_an_error_uploads_its_last_metrics() {
    let scene = Scene::new();
    let metrics = format!("run_folder={}", scene.bucket.address("metrics"));
    let diverges = ["max_duration=20ba", "save_interval=1dur", "optimizer.lr=1e30", &metrics];
    let fails = |machine: &str| {
        let output = scene.run(machine, &diverges).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        let last = text.lines().last().unwrap();
        assert!(last.contains("; nothing of this batch is kept; its samples "), "{text}");
        text
    };
    let text = fails("first");
    assert!(!text.contains("WARN"), "{text}");
    let outgoing = scene.folder.path().join("first-caches/outgoing");
    let folders = names_in(&outgoing);
    let folder = folders.iter().find(|name| name.starts_with("s3-bucket-metrics-")).unwrap();
    let logged = std::fs::read(outgoing.join(folder).join("metrics.jsonl")).unwrap();
    assert!(contains(&logged, "loss/train/total"));
    let objects = scene.bucket.objects();
    assert!(objects["metrics/metrics.jsonl"] == logged);
    assert!(objects.contains_key("metrics/loss_curve.svg"));

    // So is what a replay elsewhere finds, which takes nothing over.
    let mut replay = diverges.to_vec();
    replay.push("--replay_step=3");
    succeed(&mut scene.run("other", &replay));
    let objects = scene.bucket.objects();
    assert!(contains(&objects["metrics/replay-ba3.jsonl"], "\"batch\":3,\"model\":null,"));
    assert!(objects["metrics/metrics.jsonl"] == logged);

    // If that fails, too, it is not what the run ended with.
    scene.bucket.fail(refuse("PUT", "metrics.jsonl", 403));
    let text = fails("second");
    let warning = "WARN the run folder was not saved to s3://bucket/metrics: writing \
                   s3://bucket/metrics/metrics.jsonl is denied; ";
    assert!(text.contains(warning), "{text}");
}

/// The training waits for what is on its way to a bucket with the next checkpoint, and no sooner.
#[test]
fn steps_are_taken_while_a_bucket_is_silent() {
    for key in ["run/ep0-ba20/model", "metrics/metrics.jsonl"] {
        let scene = Scene::new();
        let rule = Rule { method: "PUT", key, after: 0, fault: Fault::Silence };
        scene.bucket.fail(Some(rule));
        let metrics = format!("run_folder={}", scene.bucket.address("metrics"));
        let mut run = scene.run("here", &["max_duration=60ba", "save_interval=20ba", &metrics]);
        let mut child = run.stderr(Stdio::null()).spawn().unwrap();
        scene.bucket.wait_for_silence();
        let outgoing = scene.folder.path().join("here-caches/outgoing");
        let staged =
            names_in(&outgoing).into_iter().find(|name| name.starts_with("s3-bucket-metrics-"));
        let file = outgoing.join(staged.unwrap()).join("metrics.jsonl");
        let steps = || {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            text.lines().filter(|line| line.contains("loss/train/total")).count()
        };
        wait_until("the next checkpoint", || steps() == 40);
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(steps(), 40, "{key}");
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn a_bucket_that_is_down_for_a_moment_stops_no_run() {
    let scene = Scene::new();
    scene.bucket.fail(refuse("PUT", "run/ep0-ba4/optimizer", 503));
    let mut run = scene.run("here", &["train_loader.dataset.download_timeout=5"]);
    let mut child = run.stderr(Stdio::null()).spawn().unwrap();
    wait_until("a refused upload", || {
        scene.bucket.requests("PUT run/ep0-ba4/optimizer.safetensors") >= 2
    });
    scene.bucket.fail(None);
    assert!(child.wait().unwrap().success());
    assert_eq!(scene.bucket.keys(), checkpoints(&["ep0-ba2", "ep0-ba4"]));
}

#[test]
fn a_bucket_that_stays_down_ends_the_run_after_five_attempts() {
    let scene = Scene::new();
    scene.bucket.fail(refuse("PUT", "run/ep0-ba2/model", 503));
    let message = failure(&mut scene.run("here", &[]));
    let begin = "error: the checkpoint ep0-ba2 was not saved to s3://bucket/run: cannot upload \
                 s3://bucket/run/ep0-ba2/model.safetensors in 5 attempt(s) (";
    let kept = scene.outgoing("here").join("ep0-ba2");
    let end = format!(
        "); check the network and the remote, or raise the time limit and the attempts. A copy is kept in `{}`; on \
         this machine autoresume=true uploads it and continues from it",
        kept.display()
    );
    assert!(message.starts_with(begin) && message.ends_with(&end), "{message}");
    assert_eq!(scene.bucket.requests("PUT run/ep0-ba2/model.safetensors"), 5);
}

#[test]
fn a_run_that_is_killed_while_it_uploads_leaves_complete_checkpoints_alone() {
    let scene = Scene::new();
    let local = scene.local();
    let silence = |key| Some(Rule { method: "PUT", key, after: 0, fault: Fault::Silence });
    scene.bucket.fail(silence("run/ep0-ba4/optimizer"));
    let mut child = scene.run("first", &[]).stderr(Stdio::null()).spawn().unwrap();
    scene.bucket.wait_for_silence();
    child.kill().unwrap();
    child.wait().unwrap();
    scene.bucket.fail(None);
    let mut expected = checkpoints(&["ep0-ba2"]);
    expected.insert(4, "run/ep0-ba4/model.safetensors".to_owned());
    assert_eq!(scene.bucket.keys(), expected);

    // Another machine has the one before.
    let text = said(&mut scene.run("second", &["save_num_checkpoints_to_keep=1"]));
    assert!(text.contains("\ncontinuing from s3://bucket/run/ep0-ba2 (batch 2)\n"), "{text}");
    assert_eq!(scene.bucket.keys(), checkpoints(&["ep0-ba4"]));
    scene.assert_same(&local, "ep0-ba4");

    // On the first machine nothing but the upload was lost. That is not so once another has gone on: it has the last word.
    let text = said(&mut scene.run("first", &["max_duration=5ba"]));
    assert!(text.contains("\ncontinuing from s3://bucket/run/ep0-ba4 (batch 4)\n"), "{text}");
    assert!(!scene.outgoing("first").join("ep0-ba4").exists());
}

/// Killed at each request of a save: what looks complete is, and another machine ends with the same bits.
#[test]
fn a_save_to_a_bucket_may_be_killed_anywhere() {
    let mut scene = Scene::new();
    let local = scene.local();
    // The second of each: the first belongs to the checkpoint before.
    for (machine, (method, key, after)) in [
        ("GET", "run/.run", 1),
        ("PUT", "run/ep0-ba4/model", 0),
        ("PUT", "run/ep0-ba4/state", 0),
        ("PUT", "run/latest", 1),
        ("DELETE", "run/ep0-ba2/state", 0),
        ("DELETE", "run/ep0-ba2/model", 0),
    ]
    .into_iter()
    .enumerate()
    {
        scene.bucket = Bucket::start();
        scene.bucket.fail(Some(Rule { method, key, after, fault: Fault::Silence }));
        let [first, second] = ["first", "second"].map(|name| format!("{name}{machine}"));
        let keep = "save_num_checkpoints_to_keep=1";
        let mut child = scene.run(&first, &[keep]).stderr(Stdio::null()).spawn().unwrap();
        scene.bucket.wait_for_silence();
        child.kill().unwrap();
        child.wait().unwrap();
        scene.bucket.fail(None);
        let keys = scene.bucket.keys();
        let complete = keys.iter().filter_map(|key| key.strip_suffix("/state.json"));
        for name in complete.filter_map(|folder| folder.strip_prefix("run/")) {
            scene.assert_same(&local, name);
        }
        succeed(&mut scene.run(&second, &[keep]));
        scene.assert_same(&local, "ep0-ba4");
        assert_eq!(scene.bucket.objects()["run/latest"], b"ep0-ba4\n");
        // The next save removes what is left.
        succeed(&mut scene.run(&second, &[keep, "max_duration=5ba"]));
        assert_eq!(scene.bucket.keys(), checkpoints(&["ep0-ba5"]), "{method} {key}");
    }
}

#[test]
fn only_the_newest_checkpoints_are_kept_in_a_bucket() {
    let scene = Scene::new();
    // What a run left that was killed.
    scene.bucket.put("run/ep0-ba1/model.safetensors", b"half of it");
    scene.bucket.put("run/notes.txt", b"mine");
    succeed(&mut scene.run("here", &["save_interval=1ba", "save_num_checkpoints_to_keep=2"]));
    let mut expected = checkpoints(&["ep0-ba3", "ep0-ba4"]);
    expected.push("run/notes.txt".to_owned());
    assert_eq!(scene.bucket.keys(), expected);
}

#[test]
fn checkpoints_of_an_earlier_run_in_a_bucket_are_not_mixed_with_new_ones() {
    let scene = Scene::new();
    succeed(&mut scene.run("here", &[]));
    let before = scene.bucket.objects();
    let afresh = ["max_duration=2ba", "autoresume=false"];
    assert_eq!(
        failure(&mut scene.run("here", &afresh)),
        "error: save_folder already holds the checkpoint `s3://bucket/run/ep0-ba4`; set autoresume=true to continue \
         it, save_overwrite=true to replace it, or another save_folder"
    );
    assert_eq!(scene.bucket.objects(), before);
    succeed(scene.run("here", &afresh).arg("save_overwrite=true"));
    assert_eq!(scene.bucket.keys(), checkpoints(&["ep0-ba2"]));
}

#[test]
fn a_damaged_checkpoint_in_a_bucket_is_passed_over() {
    let scene = Scene::new();
    succeed(&mut scene.run("here", &[]));
    let whole = &scene.bucket.objects()["run/ep0-ba4/optimizer.safetensors"];
    scene.bucket.put("run/ep0-ba4/optimizer.safetensors", &whole[..1000]);
    let text = said(&mut scene.run("here", &[]));
    let note = format!(
        "note: passed over: the checkpoint `s3://bucket/run/ep0-ba4` is damaged: optimizer.safetensors has 1000 \
         bytes, {} were saved; remove that folder and continue from an older one\n",
        whole.len()
    );
    assert!(text.contains(&note), "{note:?} is not in {text}");
    assert!(text.contains("continuing from s3://bucket/run/ep0-ba2 (batch 2)"), "{text}");
    assert!(scene.bucket.objects()["run/ep0-ba4/optimizer.safetensors"] == *whole);

    // What cannot be read now is not taken for damaged.
    scene.bucket.fail(refuse("GET", "run/ep0-ba4/model", 403));
    assert_eq!(
        failure(&mut scene.run("here", &[])),
        "error: access to s3://bucket/run/ep0-ba4/model.safetensors is denied; check the credentials in the environment"
    );
}

#[test]
fn a_folder_that_cannot_be_written_is_noticed_before_the_run() {
    let scene = Scene::new();
    let run_folder = format!("run_folder={}", scene.bucket.address("metrics"));
    for (method, key, overrides, expected) in [
        (
            "PUT",
            "run/",
            &[][..],
            "save_folder `s3://bucket/run` cannot be saved to: writing s3://bucket/run/.run is denied; check the \
             credentials in the environment",
        ),
        (
            "DELETE",
            "run/",
            &["save_num_checkpoints_to_keep=1"],
            "save_folder `s3://bucket/run` cannot be saved to: deleting s3://bucket/run/.probe is denied; check the \
             credentials in the environment",
        ),
        (
            "GET",
            "",
            &[],
            "access to s3://bucket/run is denied; check the credentials in the environment",
        ),
        (
            "PUT",
            "metrics/",
            &[&run_folder],
            "run_folder `s3://bucket/metrics` cannot be written: writing s3://bucket/metrics/.run is denied; check \
             the credentials in the environment",
        ),
    ] {
        scene.bucket.fail(refuse(method, key, 403));
        assert_eq!(failure(&mut scene.run("here", overrides)), format!("error: {expected}"));
        assert!(!scene.bucket.keys().iter().any(|key| key.contains("ep0")), "{expected}");
    }
}

#[test]
fn of_two_runs_with_one_bucket_the_later_goes_on() {
    let scene = Scene::new();
    let endless = ["max_duration=100000ba", "save_interval=5ba", "eval_interval=0ba"];
    let mut run = scene.run("here", &endless);
    let child = run.stderr(Stdio::piped()).spawn().unwrap();
    wait_until("a checkpoint", || scene.bucket.keys().contains(&"run/latest".to_owned()));
    scene.bucket.put("run/.run", b"of another machine\n");
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let staged = names_in(&scene.outgoing("here"));
    let name = staged.iter().find(|name| name.starts_with("ep0-ba")).unwrap();
    assert!(name.ends_with("-unsent"), "{staged:?}");
    let kept = scene.outgoing("here").join(name);
    let name = name.trim_end_matches("-unsent");
    assert_eq!(
        text.lines().last().unwrap(),
        format!(
            "error: save_folder `s3://bucket/run` was taken over by a run that began later, so this one ends; its \
             checkpoint {name} is kept in `{0}` until you remove it: to go on, give it another save_folder and \
             load_path={0}",
            kept.display()
        )
    );

    // As it says, also after the next run on this machine.
    let position: usize = name.trim_start_matches("ep0-ba").parse().unwrap();
    let next = [format!("max_duration={}ba", position + 1), "save_interval=1ba".to_owned()];
    let next = next.each_ref().map(String::as_str);
    succeed(&mut scene.run("here", &next));
    assert_eq!(names_in(&kept), ["model.safetensors", "optimizer.safetensors", "state.json"]);
    let elsewhere = format!("save_folder={}", scene.bucket.address("elsewhere"));
    let load = format!("load_path={}", kept.display());
    let text = said(scene.anywhere("here", &next).args([&elsewhere, &load]));
    let from = format!("\ncontinuing from {} (batch {position})\n", kept.display());
    assert!(text.contains(&from), "{from:?} is not in {text}");
    scene.bucket.put("run/.run", b"of another machine\n");

    // On one machine the second one is not let in at all.
    let mut first = scene.run("here", &endless).stderr(Stdio::null()).spawn().unwrap();
    wait_until("the run's mark", || scene.bucket.objects()["run/.run"] != b"of another machine\n");
    let message = failure(&mut scene.run("here", &endless));
    first.kill().unwrap();
    first.wait().unwrap();
    assert_eq!(
        message,
        "error: save_folder `s3://bucket/run` is in use by another run; wait for its end, or use another save_folder"
    );
}

/// Neither the folder in the bucket nor the one on this machine has to outlast the run.
#[test]
fn a_bucket_that_is_emptied_during_the_run_is_saved_to_anew() {
    let scene = Scene::new();
    let endless = ["max_duration=100000ba", "save_interval=200ba", "eval_interval=0ba"];
    // Nobody reads what it says before its end.
    let endless = [&endless[..], &["log_to_console=false"]].concat();
    let mut child = scene.run("here", &endless).stderr(Stdio::piped()).spawn().unwrap();
    // The checkpoint that `latest` names is whole, and nothing is on its way.
    let is_saved = || {
        let objects = scene.bucket.objects();
        let Some(newest) = objects.get("run/latest") else { return false };
        let newest = String::from_utf8_lossy(newest).trim().to_owned();
        checkpoints(&[&newest]).iter().all(|key| objects.contains_key(key))
            && names_in(&scene.outgoing("here")) == [".run", "latest"]
    };
    wait_until("a checkpoint", is_saved);
    let mark = scene.bucket.objects()["run/.run"].clone();
    scene.bucket.keys().iter().for_each(|key| scene.bucket.remove(key));
    let outgoing = scene.outgoing("here");
    std::fs::rename(&outgoing, scene.folder.path().join("moved")).unwrap();
    wait_until("the folder on this machine", || outgoing.exists());
    wait_until("a checkpoint after it", is_saved);
    child.kill().unwrap();
    let text = child.wait_with_output().unwrap().stderr;
    let text = String::from_utf8_lossy(&text);
    let warnings: Vec<_> = text.lines().filter(|line| line.starts_with(" WARN")).collect();
    assert_eq!(
        warnings,
        [
            " WARN save_folder `s3://bucket/run` was removed or moved during the run, with the checkpoints in it; it is made \
          again for those from here on"
        ]
    );
    assert!(scene.bucket.objects()["run/.run"] == mark);
    assert!(std::fs::read(outgoing.join(".run")).unwrap() == mark);
}

/// What the later run has in the bucket stays as it is, be save folder and run folder one or two.
#[test]
fn a_run_that_was_taken_over_touches_nothing() {
    for (save, metrics, ends) in [
        (
            "run",
            "run",
            "save_folder `s3://bucket/run` was taken over by a run that began later, so this one ends; its ",
        ),
        (
            "",
            "metrics",
            "run_folder `s3://bucket/metrics` was taken over by a run that began later, so this one ends; to go on, \
             give it another run_folder",
        ),
    ] {
        let scene = Scene::new();
        let local = scene.folder.path().join("checkpoints");
        let save_folder = match save {
            "" => format!("save_folder={}", local.display()),
            save => format!("save_folder={}", scene.bucket.address(save)),
        };
        let run_folder = format!("run_folder={}", scene.bucket.address(metrics));
        // Long enough between two saves that the other run's files are all there before the second.
        let endless = [
            "max_duration=100000ba",
            "save_interval=100ba",
            "eval_interval=0ba",
            "log_to_console=false", // or the pipe fills up, which nobody reads yet
        ];
        let mut run = scene.anywhere("here", &endless);
        let child = run.args([&save_folder, &run_folder]).stderr(Stdio::piped()).spawn().unwrap();
        wait_until("a checkpoint", || {
            local.join("latest").exists() || scene.bucket.keys().contains(&"run/latest".to_owned())
        });
        scene.bucket.put(&format!("{metrics}/.run"), b"of another machine\n");
        scene.bucket.put(&format!("{metrics}/metrics.jsonl"), b"of another machine\n");
        scene.bucket.take_requests();
        let before = scene.bucket.objects();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}");
        let last = text.lines().last().unwrap();
        assert!(last.starts_with(&format!("error: {ends}")), "{last}");
        let changes: Vec<String> = scene.bucket.take_requests();
        let changes: Vec<_> = changes.iter().filter(|r| !r.starts_with("GET")).collect();
        assert_eq!(changes, Vec::<&String>::new());
        assert!(scene.bucket.objects() == before);
        // Not so what is its own.
        let saved = save.is_empty();
        assert_eq!(local.join("ep0-ba200/state.json").exists(), saved, "{text}");
    }
}

/// A message said that it is kept.
#[test]
fn a_checkpoint_that_did_not_arrive_outlives_another_machines_run() {
    let scene = Scene::new();
    scene.bucket.fail(refuse("PUT", "run/ep0-ba2/optimizer", 403));
    failure(&mut scene.run("here", &[]));
    scene.bucket.fail(None);
    succeed(&mut scene.run("there", &[]));
    let text = said(&mut scene.run("here", &["max_duration=5ba"]));
    let aside = scene.outgoing("here").join("ep0-ba2-unsent");
    let warning = format!(
        "the checkpoint ep0-ba2 did not arrive at s3://bucket/run and is not what this run continues from; it is \
         kept in `{}` until you remove it\n",
        aside.display()
    );
    assert!(text.contains(&warning), "{warning:?} is not in {text}");
    assert!(text.contains("continuing from s3://bucket/run/ep0-ba4 (batch 4)"), "{text}");
    assert_eq!(names_in(&aside), ["model.safetensors", "optimizer.safetensors", "state.json"]);
}

#[test]
fn ctrl_c_saves_to_the_bucket_and_uploads_the_metrics() {
    let scene = Scene::new();
    let metrics = format!("run_folder={}", scene.bucket.address("run"));
    let endless = ["max_duration=100000ba", "save_interval=1dur", "eval_interval=0ba", &metrics];
    let mut run = scene.run("here", &endless);
    let child = run.stderr(Stdio::piped()).spawn().unwrap();
    wait_until("the first step", || {
        let outgoing = scene.folder.path().join("here-caches/outgoing");
        outgoing.exists() && scene.outgoing("here").join("metrics.jsonl").exists()
    });
    press_ctrl_c(&child);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{text}");
    let objects = scene.bucket.objects();
    let saved = String::from_utf8_lossy(&objects["run/latest"]).trim().to_owned();
    assert!(objects.contains_key(&format!("run/{saved}/state.json")), "{text}");
    // One folder for both is no trouble.
    let lines = String::from_utf8_lossy(&objects["run/metrics.jsonl"]).lines().count();
    assert_eq!(saved, format!("ep0-ba{lines}"));
    let text = said(&mut scene.run("there", &[&metrics, &format!("max_duration={}ba", lines + 1)]));
    assert!(
        text.contains(&format!("continuing from s3://bucket/run/{saved} (batch {lines})")),
        "{text}"
    );
    let objects = scene.bucket.objects();
    let steps = String::from_utf8_lossy(&objects["run/metrics.jsonl"])
        .lines()
        .filter(|line| line.contains("loss/train/total"))
        .count();
    assert_eq!(steps, lines + 1);
}

/// A run on data in the bucket, none of whose shards below `silent` comes; Ctrl-C; and what it says until then.
fn interrupted_while_waiting_for(scene: &Scene, silent: &'static str, data: &[&str]) -> String {
    let rule = Rule { method: "GET", key: silent, after: 0, fault: Fault::Silence };
    scene.bucket.fail(Some(rule));
    let mut run = scene.run("here", data);
    run.args([
        "train_loader.dataset.download_timeout=30",
        "eval_loader.dataset.download_timeout=30",
    ]);
    let child = run.stderr(Stdio::piped()).spawn().unwrap();
    scene.bucket.wait_for_silence();
    wait_until("the run's mark", || scene.bucket.keys().contains(&"run/.run".to_owned()));
    // The run says nothing of its wait, which comes right after that.
    std::thread::sleep(Duration::from_secs(1));
    let pressed = Instant::now();
    press_ctrl_c(&child);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(130), "{text}");
    assert!(pressed.elapsed() < Duration::from_secs(10), "{:?}: {text}", pressed.elapsed());
    scene.bucket.fail(None);
    text
}

#[test]
fn ctrl_c_does_not_wait_for_data_that_does_not_come() {
    let scene = Scene::new();
    let local = scene.local();
    scene.upload_data();
    // Each machine has a cache of its own.
    let data = &[&*format!("data_remote={}", scene.bucket.address("c4")), "data_local=null"];
    let text = interrupted_while_waiting_for(&scene, "c4/train/shard.", data);
    let stopped = "stopped at batch 0; autoresume=true continues";
    assert_eq!(text.lines().last(), Some(stopped), "{text}");
    assert_eq!(scene.bucket.objects()["run/latest"], b"ep0-ba0\n");

    let text = said(&mut scene.run("there", data));
    assert!(text.contains("\ncontinuing from s3://bucket/run/ep0-ba0 (batch 0)\n"), "{text}");
    scene.assert_same(&local, "ep0-ba4");
}

#[test]
fn ctrl_c_does_not_wait_for_evaluation_data_that_does_not_come() {
    let scene = Scene::new();
    scene.upload_data();
    let remote = scene.bucket.address("c4");
    let data = &[&*format!("data_remote={remote}"), "data_local=null", "eval_interval=3ba"];
    let text = interrupted_while_waiting_for(&scene, "c4/val/shard.", data);
    let stopped = "stopped at batch 3; autoresume=true continues";
    assert_eq!(text.lines().last(), Some(stopped), "{text}");
    // What was broken off is made up for.
    let text = said(&mut scene.run("there", data));
    assert!(text.contains("\ncontinuing from s3://bucket/run/ep0-ba3 (batch 3)\n"), "{text}");
    assert!(text.contains("[batch=3/4]: metrics/eval/LanguageCrossEntropy"), "{text}");
}

/// Recipe, tokenizer, data, checkpoints and metrics in a bucket, whose keys nobody sees again at any level of logging.
#[test]
fn everything_may_lie_in_a_bucket_and_its_keys_are_nowhere() {
    let scene = Scene::new();
    let upload = |key: &str, path: PathBuf| scene.bucket.put(key, &std::fs::read(path).unwrap());
    upload("recipe.yaml", scene.recipe.clone());
    let tokenizer = repository().join("data/tokenizers/quickstart");
    for file in names_in(&tokenizer) {
        upload(&format!("tokenizer/{file}"), tokenizer.join(&file));
    }
    scene.upload_data();
    let overrides = |extra: &[&str]| {
        let keys = [
            ("data_remote", "c4"),
            ("tokenizer_name", "tokenizer"),
            ("save_folder", "run"),
            ("run_folder", "metrics"),
        ];
        let mut all: Vec<String> = keys
            .iter()
            .map(|(key, folder)| format!("{key}={}", scene.bucket.address(folder)))
            .collect();
        all.extend(["data_local=null", "max_duration=3ba", "save_interval=1ba"].map(str::to_owned));
        all.extend(extra.iter().map(|key| (*key).to_owned()));
        all
    };
    let recipe = scene.bucket.address("recipe.yaml");
    let run = |extra: &[&str]| {
        let mut command = train(Path::new(&recipe), &[]);
        command
            .args(overrides(extra))
            .env("MDS_CACHE_DIR", scene.folder.path().join("here-caches"))
            .env("RUST_LOG", "trace")
            .env("AWS_EC2_METADATA_DISABLED", "true");
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    };
    let mut said = Vec::new();
    said.push(run(&[]));
    scene.bucket.fail(refuse("PUT", "ep0-ba4", 403));
    said.push(run(&["max_duration=4ba"]));
    scene.bucket.fail(None);
    said.push(run(&["max_duration=4ba"]));
    scene.bucket.fail(refuse("HEAD", "ep0-ba", 400));
    said.push(run(&["max_duration=4ba"]));
    scene.bucket.fail(None);
    let missing = format!("load_path={}", scene.bucket.address("elsewhere"));
    said.push(run(&["autoresume=false", "save_folder=null", &missing]));
    said.push(run(&[&format!("data_local={}", scene.bucket.address("c4"))]));
    said.push(run(&[&format!("device={}", scene.bucket.address("c4"))]));
    assert_eq!(
        said.iter().map(|(code, _)| code.unwrap()).collect::<Vec<_>>(),
        [0, 1, 0, 1, 1, 1, 1]
    );
    assert!(said[0].1.contains("saved s3://bucket/run/ep0-ba3"), "{}", said[0].1);
    for (_, text) in &said {
        let leak = text.lines().find(|line| line.contains(SECRET));
        assert_eq!(leak, None);
    }
    for (key, bytes) in scene.bucket.objects() {
        assert!(!contains(&bytes, SECRET), "{key}");
    }
    let mut folders = vec![scene.folder.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            assert!(!path.to_string_lossy().contains(SECRET), "{}", path.display());
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    assert!(!contains(&std::fs::read(&path).unwrap(), SECRET), "{}", path.display())
                }
            }
        }
    }
    let outgoing = scene.outgoing("here").parent().unwrap().to_owned();
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(&outgoing).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "{}", outgoing.display());

    assert_eq!(
        failure(&mut train(Path::new(&scene.bucket.address("none.yaml")), &[])),
        "error: there is no configuration file `s3://bucket/none.yaml`; start from one of the files in yamls/"
    );
}

/// An address where none belongs, or one that was cut off, is not shown with its keys.
#[test]
fn mistaken_addresses_are_refused_without_their_keys() {
    let scene = Scene::new();
    let address = scene.bucket.address("run");
    let refusal = |overrides: &[&str]| failure(&mut scene.anywhere("here", overrides));
    for key in ["max_duration", "save_interval"] {
        assert_eq!(
            refusal(&[&format!("{key}={address}")]),
            format!(
                "error: `{key}`: `s3://bucket/run` is not a time; write a number and one of ep, ba, sp, tok, dur, for \
                 example 500ba or 0.1dur"
            )
        );
    }
    assert_eq!(
        refusal(&[&format!("save_folder={address}${{run_name")]),
        "error: `save_folder` has a reference without its closing brace; write ${key.sub}"
    );
    let others = |shown: &str| {
        format!(
            "error: the remote {shown} is of a kind that is not read or written; on Databricks give the mounted path, \
             /dbfs/... or /Volumes/...; elsewhere the s3://, gs:// or abfss:// address of the storage below it"
        )
    };
    assert_eq!(refusal(&["tokenizer_name=dbfs:/tokenizer"]), others("dbfs:/tokenizer"));
    assert_eq!(failure(&mut train(Path::new("dbfs:/a.yaml"), &[])), others("dbfs:/a.yaml"));
    let too_few = |shown: &str| {
        format!(
            "error: the remote s3:/{shown} has too few slashes for an address; write s3://{shown}, or ./s3:... for a \
             folder of this name"
        )
    };
    let cut = |name: &str| scene.bucket.address(name).replace("s3://", "s3:/");
    assert_eq!(
        refusal(&[&format!("tokenizer_name={}", cut("tokenizer"))]),
        too_few("bucket/tokenizer")
    );
    assert_eq!(
        refusal(&[&format!("tokenizer_name={}", cut("tokenizer.json"))]),
        too_few("bucket/tokenizer.json")
    );
    assert_eq!(failure(&mut train(Path::new(&cut("a.yaml")), &[])), too_few("bucket/a.yaml"));
}

/// The same on SeaweedFS, and on Azurite where there is one.
#[test]
#[ignore = "needs real servers: make test-servers"]
fn runs_are_kept_on_real_servers() {
    const AZURE_KEY: &str =
        "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
    let servers = std::env::var("MDS_TEST_SERVERS").unwrap();
    let servers: Value = serde_json::from_str(&servers).unwrap();
    let s3 = servers["s3"].as_str().map(|server| {
        let keys = "region=us-east-1&access_key_id=AKTEST&secret_access_key=SKTEST123456";
        format!("s3://bucket/train?endpoint={server}&{keys}")
    });
    let azure = servers["azure"].as_str().map(|server| {
        let account = format!("account_name=devstoreaccount1&account_key={AZURE_KEY}");
        format!("az://bucket/train?endpoint={server}/devstoreaccount1&{account}")
    });
    let scene = Scene::new();
    let local = scene.local();
    for address in s3.into_iter().chain(azure) {
        let kind = address.split(':').next().unwrap();
        let [first, second] = ["first", "second"].map(|machine| format!("{kind}-{machine}"));
        let folders = [format!("save_folder={address}"), format!("run_folder={address}")];
        let run = |machine: &str, more: &str| {
            let overrides = [&folders[0], &folders[1], "save_num_checkpoints_to_keep=1", more];
            said(&mut scene.anywhere(machine, &overrides))
        };
        let remote = Remote::open(&address, RemoteOptions::default()).unwrap();
        run(&first, "save_interval=3ba");
        assert_eq!(remote.get("latest", 100).unwrap(), b"ep0-ba4\n");
        assert!(remote.objects().unwrap().iter().all(|name| !name.starts_with("ep0-ba3")));
        let checkpoint = local.join("checkpoints/ep0-ba4");
        for file in ["model.safetensors", "optimizer.safetensors"] {
            let there = remote.get(&format!("ep0-ba4/{file}"), 1 << 30).unwrap();
            assert!(there == std::fs::read(checkpoint.join(file)).unwrap(), "{kind} {file}");
        }
        let text = run(&second, "max_duration=5ba");
        let from = format!("continuing from {kind}://bucket/train/ep0-ba4 (batch 4)");
        assert!(text.contains(&from), "{text}");
        let metrics = remote.get("metrics.jsonl", 1 << 30).unwrap();
        let steps = String::from_utf8_lossy(&metrics);
        assert_eq!(steps.lines().filter(|line| line.contains("loss/train/total")).count(), 5);
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

fn press_ctrl_c(child: &Child) {
    let kill = format!("kill -INT {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
}

#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}
