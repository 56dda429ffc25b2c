//! The `train` binary as a user meets it: what a run leaves behind, Ctrl-C, continuing, and refusals.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[path = "support/training.rs"]
mod training;
use training::{failure, records, small_dataset, small_recipe, succeed, train};

/// A dataset, a recipe, and the folder that they and the run's output are in.
fn workshop() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let dataset = small_dataset(folder.path());
    let recipe = small_recipe(folder.path(), &dataset);
    (folder, recipe)
}

fn checkpoints(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join("checkpoints")).unwrap().flatten();
    let mut names: Vec<String> = entries.map(|e| e.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_run_leaves_metrics_events_a_picture_a_checkpoint_and_says_what_it_learned() {
    let (folder, recipe) = workshop();
    let output = succeed(&mut train(&recipe, &["console_log_interval=1ba"]));
    let text = String::from_utf8_lossy(&output.stderr);

    for expected in [
        "n_params=1.58e5 (157568)",
        "device: cpu (flex, ",
        "[batch=7/40]: loss/train/total: ",
        "held-out documents (",
        "  unigram entropy (training counts) ",
        "  loss of the model ",
        " nats/token below the unigram entropy",
        "generated: The",
        " tokens/s, ",
        " model GFLOP/s",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in {text}");
    }
    let records = records(folder.path());
    let losses: Vec<f64> = records.iter().filter_map(|r| r["loss/train/total"].as_f64()).collect();
    assert_eq!(losses.len(), 40);
    // ln 4096 = 8.32 at the start; forty steps on real text are well below.
    assert!((losses[0] - 8.32).abs() < 0.1 && losses[39] < 7.3, "{losses:?}");
    let evaluated: Vec<u64> = records
        .iter()
        .filter(|r| r.get("metrics/eval/LanguageCrossEntropy").is_some())
        .filter_map(|r| r["batch"].as_u64())
        .collect();
    assert_eq!(evaluated, [15, 30, 40]);

    let events = std::fs::read_dir(folder.path().join("run/tensorboard")).unwrap().flatten();
    assert!(events.map(|e| e.metadata().unwrap().len()).sum::<u64>() > 1000);
    let picture = std::fs::read_to_string(folder.path().join("run/loss_curve.svg")).unwrap();
    assert!(picture.contains("<svg"));
    assert_eq!(checkpoints(folder.path()), ["ep0-ba20", "ep0-ba40", "latest"]);
    let latest = std::fs::read_to_string(folder.path().join("checkpoints/latest")).unwrap();
    assert_eq!(latest, "ep0-ba40\n");
}

#[test]
fn ctrl_c_saves_and_exits_and_the_next_run_continues() {
    let (folder, recipe) = workshop();
    let long = ["max_duration=100000ba", "eval_interval=0ba", "save_interval=0ba"];
    let child = train(&recipe, &long).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_records(folder.path(), 3);
    assert!(
        Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success()
    );
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{text}");
    assert!(text.contains("stopping after this step"), "{text}");
    let stopped_at = records(folder.path()).len();
    assert!(
        text.contains(&format!("stopped at batch {stopped_at}; autoresume=true continues")),
        "{text}"
    );
    let saved = format!("ep0-ba{stopped_at}");
    assert_eq!(checkpoints(folder.path()), [saved.as_str(), "latest"]);

    let more = format!("max_duration={}ba", stopped_at + 5);
    let output = succeed(&mut train(&recipe, &[&more, "eval_interval=0ba"]));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains(&format!("/{saved} (batch {stopped_at})")), "{text}");
    let steps =
        records(folder.path()).iter().filter(|r| r.get("loss/train/total").is_some()).count();
    assert_eq!(steps, stopped_at + 5);
}

fn wait_for_records(folder: &Path, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let metrics = folder.join("run/metrics.jsonl");
    while std::fs::read_to_string(&metrics).unwrap_or_default().lines().count() < count {
        assert!(Instant::now() < deadline, "the run does not get going");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn only_the_newest_checkpoints_are_kept() {
    let (folder, recipe) = workshop();
    succeed(&mut train(&recipe, &["save_interval=10ba", "save_num_checkpoints_to_keep=2"]));
    assert_eq!(checkpoints(folder.path()), ["ep0-ba30", "ep0-ba40", "latest"]);
}

#[test]
fn a_checkpoint_of_another_model_is_refused_in_one_sentence() {
    let (folder, recipe) = workshop();
    succeed(&mut train(&recipe, &["max_duration=2ba"]));
    let path = folder.path().join("checkpoints/ep0-ba2");
    assert_eq!(
        failure(&mut train(&recipe, &["model.n_heads=4"])),
        format!(
            "error: the checkpoint `{}` is of another model: model.n_heads is 2 there and 4 here; \
             set model.n_heads=2, or use another save_folder",
            path.display()
        )
    );
}

#[test]
fn a_torn_checkpoint_is_refused_by_name_and_passed_over_by_autoresume() {
    let (folder, recipe) = workshop();
    succeed(&mut train(&recipe, &["max_duration=4ba", "save_interval=2ba"]));
    let torn = folder.path().join("checkpoints/ep0-ba4");
    let file =
        std::fs::OpenOptions::new().write(true).open(torn.join("optimizer.safetensors")).unwrap();
    let whole = file.metadata().unwrap().len();
    file.set_len(1000).unwrap();
    let refusal = format!(
        "the checkpoint `{}` is damaged: optimizer.safetensors has 1000 bytes, {whole} were saved; \
         remove that folder and continue from an older one",
        torn.display()
    );

    let elsewhere = format!("save_folder={}/other", folder.path().display());
    let load = format!("load_path={}", torn.display());
    assert_eq!(failure(&mut train(&recipe, &[&elsewhere, &load])), format!("error: {refusal}"));

    let output = succeed(&mut train(&recipe, &["max_duration=4ba", "save_interval=2ba"]));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains(&format!("note: {refusal}")), "{text}");
    assert!(text.contains("/ep0-ba2 (batch 2)"), "{text}");
    succeed(&mut train(&recipe, &[&elsewhere, &load, "max_duration=4ba"]));
}

#[test]
fn a_flipped_bit_in_a_checkpoint_is_found() {
    let (folder, recipe) = workshop();
    succeed(&mut train(&recipe, &["max_duration=2ba"]));
    let path = folder.path().join("checkpoints/ep0-ba2");
    let model = path.join("model.safetensors");
    let mut bytes = std::fs::read(&model).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&model, bytes).unwrap();
    assert_eq!(
        failure(&mut train(&recipe, &["max_duration=3ba"])),
        format!(
            "error: the checkpoint `{}` is damaged: model.safetensors is not what was saved (its hash \
             differs); remove that folder and continue from an older one",
            path.display()
        )
    );
}

#[test]
fn checkpoints_of_an_earlier_run_are_not_mixed_with_new_ones() {
    let (folder, recipe) = workshop();
    succeed(&mut train(&recipe, &["max_duration=4ba"]));
    let afresh = ["max_duration=2ba", "autoresume=false"];
    assert_eq!(
        failure(&mut train(&recipe, &afresh)),
        format!(
            "error: save_folder already holds the checkpoint `{}/checkpoints/ep0-ba4`; set autoresume=true \
             to continue it, save_overwrite=true to replace it, or another save_folder",
            folder.path().display()
        )
    );
    succeed(train(&recipe, &afresh).arg("save_overwrite=true"));
    assert_eq!(checkpoints(folder.path()), ["ep0-ba2", "latest"]);
}

#[test]
fn a_load_path_that_is_not_there_is_named() {
    let (folder, recipe) = workshop();
    let missing = folder.path().join("nowhere/ep0-ba7");
    assert_eq!(
        failure(&mut train(&recipe, &[&format!("load_path={}", missing.display())])),
        format!(
            "error: there is no checkpoint `{}`; give load_path a folder like ep0-ba100, or the save_folder \
             that holds it",
            missing.display()
        )
    );
}

#[test]
fn a_device_that_is_not_compiled_in_is_one_clear_sentence() {
    if cfg!(feature = "cuda") {
        return;
    }
    let (_folder, recipe) = workshop();
    assert_eq!(
        failure(&mut train(&recipe, &["device=cuda"])),
        "error: device: cuda was asked for, but this build has no CUDA support; build with \
         `--features cuda`, or set device=cpu"
    );
}

#[test]
fn a_diverging_run_stops_with_the_reason() {
    let (_folder, recipe) = workshop();
    let message = failure(&mut train(
        &recipe,
        &["optimizer.lr=1e30", "grad_clip_norm=1.0e30", "save_interval=0ba"],
    ));
    assert!(message.starts_with("error: batch "), "{message}");
    assert!(message.contains("Lower optimizer.lr or lengthen scheduler.t_warmup"), "{message}");
}

#[test]
fn devices_are_reported() {
    let output = succeed(Command::new(env!("CARGO_BIN_EXE_train")).arg("--devices"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("cpu: compiled in (flex), "), "{text}");
    assert!(text.contains("\ncuda: "), "{text}");
    assert!(text.contains("\ndevice: auto means "), "{text}");
}
