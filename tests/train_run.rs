//! The `train` binary as a user meets it: what a run leaves behind, Ctrl-C, continuing, and refusals.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use convert::conversion::{Content, TokenEncoding, TokenOptions};
use convert::tokenizer::Tokenizer;
use safetensors::SafeTensors;

#[path = "support/training.rs"]
mod training;
use training::{convert_sample, failure, logged, records, repository, succeed, train, workshop};

fn checkpoints(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join("checkpoints")).unwrap().flatten();
    let mut names: Vec<String> = entries.map(|e| e.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Each split under its own label, whatever the others hold.
#[test]
fn several_evaluation_splits_are_told_apart_by_their_labels() {
    let (folder, recipe) = workshop();
    let loaders = "eval_loader=[{label: whole, dataset: {split: val}}, \
                   {label: two, dataset: {split: val}, eval_subset_num_batches: 2}]";
    let overrides =
        ["max_duration=2ba", "eval_interval=1ba", "eval_subset_num_batches=null", loaders];
    let output = succeed(&mut train(&recipe, &overrides));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("held-out documents of whole ("), "{text}");
    assert!(text.contains("held-out documents of two ("), "{text}");
    let losses = |label: &str| -> Vec<f64> {
        let name = format!("metrics/eval/{label}/LanguageCrossEntropy");
        records(folder.path()).iter().filter_map(|record| record.get(&name)?.as_f64()).collect()
    };
    let (whole, two) = (losses("whole"), losses("two"));
    assert_eq!((whole.len(), two.len()), (2, 2));
    assert!(whole[0] != two[0] && (whole[0] - two[0]).abs() < 0.5, "{whole:?} {two:?}");

    let unnamed = "eval_loader=[{dataset: {split: val}}, {label: b, dataset: {split: val}}]";
    assert_eq!(
        failure(&mut train(&recipe, &[unnamed])),
        "error: `eval_loader.0.label` is missing; set it, for example `label: c4`"
    );
    let twice =
        "eval_loader=[{label: b, dataset: {split: val}}, {label: b, dataset: {split: val}}]";
    assert_eq!(
        failure(&mut train(&recipe, &[twice])),
        "error: `eval_loader.1.label` is `b`, as that of a loader before; give each its own"
    );
    let mistyped = "eval_loader=[{lable: b, dataset: {split: val}}]";
    assert_eq!(
        failure(&mut train(&recipe, &[mistyped])),
        "error: unknown key `eval_loader.0.lable`; did you mean `eval_loader.0.label`?"
    );
}

#[test]
fn a_run_leaves_metrics_events_a_picture_a_checkpoint_and_says_what_it_learned() {
    let (folder, recipe) = workshop();
    let output = succeed(&mut train(&recipe, &["console_log_interval=1ba"]));
    let text = String::from_utf8_lossy(&output.stderr);

    for expected in [
        "n_params=1.58e+05 (157568)",
        "device: cpu (flex, ",
        "[batch=7/40]: loss/train/total: ",
        "held-out documents (",
        "  unigram entropy (training counts) ",
        "  loss of the model ",
        " bits/byte",
        // Forty steps are too few.
        " nats/token above the unigram entropy",
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
    // The samples came through the cache.
    for split in ["train", "val"] {
        let shard = format!("{split}/shard.00000.mds");
        let read = |root: &str| std::fs::read(folder.path().join(root).join(&shard)).unwrap();
        assert!(read("cache") == read("c4"), "{shard}");
    }
    let last = records.iter().rfind(|r| r.get("data/fetched_shards").is_some()).unwrap();
    assert_eq!(last["data/fetched_shards"], 1);
    let bytes = std::fs::metadata(folder.path().join("c4/train/shard.00000.mds")).unwrap().len();
    assert_eq!(last["data/downloaded_bytes"], bytes);
    for key in ["evicted_shards", "evicted_bytes", "early_samples"] {
        assert_eq!(last[&format!("data/{key}")], 0, "{key}");
    }
    assert_eq!(last["data/cache_hit_rate"], 0.0);
    // Nothing comes any more once all is there.
    let paces: Vec<f64> =
        records.iter().filter_map(|r| r["data/download_bytes_per_second"].as_f64()).collect();
    assert!(paces[0] > 0.0 && paces[39] == 0.0, "{paces:?}");
    let latest = std::fs::read_to_string(folder.path().join("checkpoints/latest")).unwrap();
    assert_eq!(latest, "ep0-ba40\n");
}

/// On two cores, which compute: the quickstart's steps find their batches ready.
#[test]
fn steps_of_the_quickstart_do_not_wait_for_data() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let tokenizer = repository().join("data/tokenizers/quickstart");
    let tokens = || {
        Content::Tokens(TokenOptions {
            tokenizer: Some(Tokenizer::load(tokenizer.to_str().unwrap()).unwrap()),
            length: Some(128),
            bos_text: String::new(),
            eos_text: "<|endoftext|>".into(),
            wrap: true,
            encoding: TokenEncoding::Int32,
            sequence_id: false,
            source_settings: Vec::new(),
        })
    };
    convert_sample(&folder.path().join("tokens"), tokens);
    let overrides = [
        format!("data_remote={}", at("tokens")),
        format!("data_local={}", at("cache")),
        format!("run_folder={}", at("run")),
        "save_folder=null".to_owned(),
        "max_duration=20ba".to_owned(),
        "generate.prompt=null".to_owned(),
        "eval_subset_num_batches=1".to_owned(),
        "device=cpu".to_owned(),
    ];
    let overrides: Vec<&str> = overrides.iter().map(String::as_str).collect();
    let output = succeed(&mut train(&repository().join("yamls/quickstart.yaml"), &overrides));
    let records = records(folder.path());
    let shares: Vec<f64> = records.iter().filter_map(|r| r["data/wait_share"].as_f64()).collect();
    assert!(shares.len() == 20 && shares[19] > 0.0 && shares[19] < 0.01, "{shares:?}");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains(&format!(" {:.1} % of it waiting for data", 100.0 * shares[19])),
        "{text}"
    );
}

#[test]
fn ctrl_c_saves_and_exits_and_the_next_run_continues() {
    let (folder, recipe) = workshop();
    let long = ["max_duration=100000ba", "eval_interval=0ba", "save_interval=1dur"];
    let text = interrupted(&mut train(&recipe, &long), folder.path(), 3, "INT");
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

/// Evaluations may take hours; what Ctrl-C breaks off is made good for, so that the metrics lack nothing.
#[test]
fn ctrl_c_breaks_an_evaluation_off_and_the_next_run_does_it() {
    let (whole, recipe) = workshop();
    let overrides = ["max_duration=2ba", "eval_interval=1ba", "eval_subset_num_batches=-1"];
    succeed(&mut train(&recipe, &overrides));

    let (folder, recipe) = workshop();
    let text = interrupted(&mut train(&recipe, &overrides), folder.path(), 1, "INT");
    assert_eq!(records(folder.path()).len(), 1, "the evaluation was not broken off: {text}");
    assert_eq!(checkpoints(folder.path()), ["ep0-ba1", "latest"]);

    succeed(&mut train(&recipe, &overrides));
    assert_eq!(logged(folder.path()), logged(whole.path()));
    // Nor is it done a second time.
    succeed(&mut train(&recipe, &overrides));
    assert_eq!(logged(folder.path()), logged(whole.path()));
}

#[test]
fn two_runs_do_not_share_a_save_folder() {
    let (folder, recipe) = workshop();
    let mut first = train(&recipe, &["max_duration=100000ba", "save_interval=1dur"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for_records(folder.path(), 1);
    let elsewhere = format!("run_folder={}/other", folder.path().display());
    let message = failure(&mut train(&recipe, &[&elsewhere]));
    first.kill().unwrap();
    first.wait().unwrap();
    assert_eq!(
        message,
        format!(
            "error: save_folder `{}/checkpoints` is in use by another run; wait for its end, or use another \
             save_folder",
            folder.path().display()
        )
    );
}

/// Also where it is the save folder, which has a lock of its own.
#[test]
fn two_runs_do_not_share_a_run_folder() {
    let (folder, recipe) = workshop();
    let both = format!("save_folder={}/run", folder.path().display());
    let endless = ["max_duration=100000ba", "eval_interval=0ba", "save_interval=1000ba", &both];
    let mut first = train(&recipe, &endless).stderr(Stdio::null()).spawn().unwrap();
    wait_for_records(folder.path(), 1);
    let alone = ["max_duration=3ba", "save_folder=null", "autoresume=false"];
    let message = failure(&mut train(&recipe, &alone));
    assert_eq!(
        message,
        format!(
            "error: run_folder `{}/run` is in use by another run; wait for its end, or use another run_folder",
            folder.path().display()
        )
    );
    wait_for_records(folder.path(), records(folder.path()).len() + 1);
    first.kill().unwrap();
    first.wait().unwrap();
    let batches: Vec<_> = records(folder.path()).iter().map(|it| it["batch"].as_u64()).collect();
    assert_eq!(batches, (1..=batches.len() as u64).map(Some).collect::<Vec<_>>());

    // One that died is in nobody's way.
    succeed(&mut train(&recipe, &alone));
}

#[test]
fn a_run_that_fails_at_once_leaves_the_metrics_of_the_one_before() {
    let (folder, recipe) = workshop();
    succeed(&mut train(&recipe, &["max_duration=3ba", "save_folder=null", "autoresume=false"]));
    let before = records(folder.path());
    let broken =
        ["optimizer.lr=1e30", "model.init_std=1e30", "save_folder=null", "autoresume=false"];
    failure(&mut train(&recipe, &broken));
    assert_eq!(records(folder.path()), before);
}

#[test]
fn a_continued_run_says_what_has_changed() {
    let (_folder, recipe) = workshop();
    succeed(&mut train(&recipe, &["max_duration=2ba"]));
    let changed = ["max_duration=3ba", "optimizer.lr=0.02", "train_loader.dataset.shuffle_seed=3"];
    let output = succeed(&mut train(&recipe, &changed));
    let text = String::from_utf8_lossy(&output.stderr);
    for note in [
        "note: optimizer.lr was 0.01 in the checkpoint and is 0.02\n",
        "note: train_loader.dataset.shuffle_seed was 9176 in the checkpoint and is 3, without effect: the saved \
         order goes on\n",
    ] {
        assert!(text.contains(note), "{note} is not in {text}");
    }
    assert_eq!(text.matches(" in the checkpoint and is ").count(), 2, "{text}");
}

#[test]
fn ctrl_c_without_a_save_folder_says_that_nothing_was_saved() {
    let (folder, recipe) = workshop();
    let long = ["max_duration=100000ba", "save_folder=null", "autoresume=false"];
    let text = interrupted(&mut train(&recipe, &long), folder.path(), 3, "TERM");
    let last = text.lines().last().unwrap();
    assert!(last.ends_with("; nothing was saved, because the recipe has no save_folder"), "{text}");
    assert!(!folder.path().join("checkpoints").exists());
}

/// The lines of one step, in the order of the source document: half under the number of steps done before it, half
/// under the next.
#[test]
fn a_step_is_printed_as_the_source_document_shows_it() {
    let (_folder, recipe) = workshop();
    let overrides = ["max_duration=9ba", "console_log_interval=1ba", "callbacks={lr_monitor: {}}"];
    let output = succeed(&mut train(&recipe, &overrides));
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().collect();
    let begin = lines.iter().position(|line| line.starts_with("[batch=7/9]: trainer/grad_accum"));
    let expected = [
        "[batch=7/9]: trainer/grad_accum: 2",
        "[batch=7/9]: loss/train/total: ",
        "[batch=7/9]: metrics/train/LanguageCrossEntropy: ",
        "[batch=7/9]: metrics/train/Perplexity: ",
        "[batch=8/9]: wall_clock/train: ",
        "[batch=8/9]: wall_clock/val: 0.0000",
        "[batch=8/9]: wall_clock/total: ",
        "[batch=8/9]: lr-DecoupledAdamW/group0: ",
        "[batch=8/9]: trainer/global_step: 8",
        "[batch=8/9]: trainer/batch_idx: 8",
    ];
    for (line, expected) in lines[begin.unwrap()..].iter().zip(expected) {
        assert!(line.starts_with(expected), "{line:?} is not {expected:?}");
    }
}

#[test]
fn the_learning_rate_lags_one_step_behind_its_schedule() {
    let (folder, recipe) = workshop();
    let every = ["max_duration=4ba", "save_interval=1ba", "callbacks={lr_monitor: {}}"];
    succeed(&mut train(&recipe, &every));
    let model = |batch: u64| {
        let file = format!("checkpoints/ep0-ba{batch}/model.safetensors");
        std::fs::read(folder.path().join(file)).unwrap()
    };
    // The first two steps are taken at multiplier 0, the third at 1/5, for a warm-up of 5 steps.
    assert!(model(1) == model(2), "the second step moved the model");
    assert!(model(2) != model(3), "the third step did not move the model");
    let rates: Vec<f64> = records(folder.path())
        .iter()
        .filter_map(|record| record["lr-DecoupledAdamW/group0"].as_f64())
        .collect();
    assert_eq!(rates.len(), 4);
    for (rate, expected) in rates.iter().zip([0.0, 0.2e-2, 0.4e-2, 0.6e-2]) {
        assert!((rate - expected).abs() < 1e-9, "{rates:?}");
    }
}

#[test]
fn intervals_may_be_parts_of_the_run() {
    let (folder, recipe) = workshop();
    succeed(&mut train(&recipe, &["eval_interval=0.25dur", "save_interval=0.5dur"]));
    let evaluated: Vec<u64> = records(folder.path())
        .iter()
        .filter(|record| record.get("metrics/eval/LanguageCrossEntropy").is_some())
        .filter_map(|record| record["batch"].as_u64())
        .collect();
    assert_eq!(evaluated, [10, 20, 30, 40]);
    assert_eq!(checkpoints(folder.path()), ["ep0-ba20", "ep0-ba40", "latest"]);
}

#[test]
fn with_a_known_peak_the_pace_is_given_as_mfu() {
    let (_folder, recipe) = workshop();
    let peak = "callbacks={speed_monitor: {gpu_flops_available: 1.0e+12}}";
    let output = succeed(&mut train(&recipe, &["max_duration=3ba", peak]));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.lines().any(|line| line.contains(" tokens/s, MFU ")), "{text}");
}

/// Sends the signal once the run in `folder` has logged `count` records; what it then prints, exiting with 130.
fn interrupted(run: &mut Command, folder: &Path, count: usize, signal: &str) -> String {
    let child = run.stderr(Stdio::piped()).spawn().unwrap();
    wait_for_records(folder, count);
    let kill = format!("kill -{signal} {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(130), "{text}");
    text
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
    // The last of them has nothing in the checkpoint where the recipe has a number.
    for (change, key, saved, here) in [
        ("model.n_heads=4", "model.n_heads", "2", "4"),
        ("model.attn_config.alibi=true", "model.attn_config.alibi", "false", "true"),
        ("model.logit_scale=0.5", "model.logit_scale", "null", "0.5"),
    ] {
        assert_eq!(
            failure(&mut train(&recipe, &[change])),
            format!(
                "error: the checkpoint `{}` is of another model: {key} is {saved} there and {here} here; set \
                 {key}={saved}, or use another save_folder",
                path.display()
            )
        );
    }
}

#[test]
fn a_checkpoint_of_another_optimizer_is_refused_in_one_sentence() {
    let (folder, recipe) = workshop();
    let two_steps = "max_duration=2ba";
    succeed(&mut train(&recipe, &[two_steps]));
    let path = folder.path().join("checkpoints/ep0-ba2");
    let lion = ["optimizer.name=decoupled_lionw", "optimizer.lr=1e-3", "max_duration=4ba"];
    assert_eq!(
        failure(&mut train(&recipe, &lion)),
        format!(
            "error: the checkpoint `{}` has the moments of decoupled_adamw, and optimizer.name is decoupled_lionw \
             here; set optimizer.name=decoupled_adamw, or take only its weights with load_path, \
             load_weights_only=true and another save_folder",
            path.display()
        )
    );
    // As it says. What comes of it has one moment, and goes on.
    let load = format!("load_path={}", path.display());
    let elsewhere = format!("save_folder={}/lion", folder.path().display());
    let monitor = "callbacks={lr_monitor: {}}";
    let weights = [&load, "load_weights_only=true", &elsewhere, monitor, two_steps];
    succeed(train(&recipe, &lion).args(weights));
    let moments = std::fs::read(folder.path().join("lion/ep0-ba2/optimizer.safetensors")).unwrap();
    let moments = SafeTensors::deserialize(&moments).unwrap();
    assert!(moments.names().iter().all(|name| name.starts_with("first.")), "{:?}", moments.names());
    succeed(train(&recipe, &lion).args([&elsewhere, monitor]));
    let rates: Vec<f64> = records(folder.path())
        .iter()
        .filter_map(|record| record["lr-DecoupledLionW/group0"].as_f64())
        .collect();
    assert_eq!(rates.len(), 4, "{rates:?}");
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
    assert!(text.contains(&format!("note: passed over: {refusal}")), "{text}");
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
            "error: there is no checkpoint `{}`; give a folder like ep0-ba100, or the save_folder \
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
         `--features cuda`, or choose the device cpu"
    );
}

#[test]
fn a_diverging_run_stops_with_the_reason() {
    let (_folder, recipe) = workshop();
    let message = failure(&mut train(
        &recipe,
        &["optimizer.lr=1e30", "grad_clip_norm=1.0e30", "save_interval=1dur"],
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

/// What a refused run must not leave behind.
fn refused(folder: &Path, recipe: &Path, overrides: &[&str]) -> String {
    let message = failure(&mut train(recipe, overrides));
    assert!(!folder.join("run").exists(), "a run folder was made");
    assert!(!folder.join("checkpoints").exists(), "a save folder was made");
    message
}

#[test]
fn a_config_with_a_typo_is_one_clear_sentence() {
    let (folder, recipe) = workshop();
    assert_eq!(
        refused(folder.path(), &recipe, &["optimizer.weight_decya=1"]),
        "error: unknown key `optimizer.weight_decya`; did you mean `optimizer.weight_decay`?"
    );
    assert_eq!(
        refused(folder.path(), &recipe, &["optimizer.learning_rat=1"]),
        "error: unknown key `optimizer.learning_rat`; `optimizer` takes name, lr, betas, eps, weight_decay"
    );
}

#[test]
fn a_missing_config_is_one_clear_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = folder.path().join("none.yaml");
    assert_eq!(
        refused(folder.path(), &recipe, &[]),
        format!(
            "error: there is no configuration file `{}`; start from one of the files in yamls/",
            recipe.display()
        )
    );
}

#[test]
fn a_tokenizer_that_is_not_there_is_one_clear_sentence() {
    let (folder, recipe) = workshop();
    assert_eq!(
        refused(folder.path(), &recipe, &["tokenizer_name=/no/such/tokenizer"]),
        "error: tokenizer \"/no/such/tokenizer\" not found: it is not built in (gpt2 is), and there is no \
         /no/such/tokenizer; give the path of a tokenizer.json or of the folder that holds one"
    );
}

#[test]
fn a_split_that_is_not_there_is_one_clear_sentence() {
    let (folder, recipe) = workshop();
    assert_eq!(
        refused(folder.path(), &recipe, &["train_loader.dataset.split=test"]),
        format!(
            "error: there is no dataset in {}/c4/test: it has no index.json; the folder does not exist, so check \
             the path and the split (in the recipe: data_remote, train_loader.dataset.split; there is train, val)",
            folder.path().display()
        )
    );
}

/// The keys that name it are those of its own loader or stream.
#[test]
fn a_split_that_is_not_there_is_named_in_a_list() {
    let (folder, recipe) = workshop();
    let data = folder.path().join("c4").display().to_string();
    let message = |keys: &str| {
        format!(
            "error: there is no dataset in {data}/test: it has no index.json; the folder does not exist, so check the \
             path and the split (in the recipe: {keys}; there is train, val)"
        )
    };
    let dataset =
        |split: &str| format!("dataset: {{remote: {data}, split: {split}, group_method: concat}}");
    let (train, val, test) = (dataset("train"), dataset("val"), dataset("test"));
    assert_eq!(
        refused(
            folder.path(),
            &recipe,
            &[&format!("train_loader=[{{{train}}}, {{{test}}}, {{{val}}}]")]
        ),
        message("train_loader.1.dataset.remote, train_loader.1.dataset.split")
    );
    let streams = format!("a: {{remote: {data}, split: val}}, b: {{remote: {data}, split: test}}");
    let streams = format!("train_loader.dataset={{group_method: concat, streams: {{{streams}}}}}");
    assert_eq!(
        refused(folder.path(), &recipe, &[&streams]),
        message("train_loader.dataset.streams.b.remote, train_loader.dataset.streams.b.split")
    );
    let loaders = format!("eval_loader=[{{label: a, {val}}}, {{label: b, {test}}}]");
    assert_eq!(
        refused(folder.path(), &recipe, &[&loaders]),
        message("data_remote, eval_loader.1.dataset.split")
    );
}

/// Documents of one token leave nothing to predict.
#[test]
fn an_evaluation_split_without_a_target_is_named() {
    let (folder, recipe) = workshop();
    let short = folder.path().join("c4/short");
    let schema = mds::format::Schema::new([("text", mds::format::Encoding::Str)]).unwrap();
    let mut writer = mds::Writer::create(&*short, schema, mds::WriterOptions::default()).unwrap();
    (0..5).for_each(|_| writer.write(&["a".into()]).unwrap());
    writer.finish().unwrap();
    let loaders =
        "eval_loader=[{label: a, dataset: {split: val}}, {label: b, dataset: {split: short}}]";
    assert_eq!(
        failure(&mut train(&recipe, &[loaders, "eval_first=true"])),
        format!(
            "error: the evaluation split {} has not one token to predict; give eval_loader.1 a split with more text, or \
             set eval_loader.1.drop_last=false",
            short.display()
        )
    );
}

#[test]
fn an_empty_split_is_one_clear_sentence() {
    let (folder, recipe) = workshop();
    let empty = folder.path().join("c4/empty");
    let schema = mds::format::Schema::new([("text", mds::format::Encoding::Str)]).unwrap();
    mds::Writer::create(&empty, schema, mds::WriterOptions::default()).unwrap().finish().unwrap();
    assert_eq!(
        refused(folder.path(), &recipe, &["train_loader.dataset.split=empty"]),
        format!(
            "error: the dataset {} has no samples; write samples to it or choose another split",
            empty.display()
        )
    );
}

#[test]
fn a_truncated_shard_is_one_clear_sentence() {
    let (folder, recipe) = workshop();
    let shard = folder.path().join("c4/train/shard.00000.mds");
    std::fs::File::options().write(true).open(&shard).unwrap().set_len(1000).unwrap();
    assert_eq!(
        failure(&mut train(&recipe, &[])),
        format!(
            "error: dataset {0}/c4/train, shard shard.00000.mds: {0}/c4/train/shard.00000.mds is damaged: the \
             file has 1000 bytes, but the index declares 333420; copy the dataset to its remote again or write it again",
            folder.path().display()
        )
    );
    assert!(!folder.path().join("checkpoints/latest").exists());
}

#[test]
fn a_wrong_index_version_is_one_clear_sentence() {
    let (folder, recipe) = workshop();
    let index = folder.path().join("c4/train/index.json");
    let text = std::fs::read_to_string(&index).unwrap();
    std::fs::write(&index, text.replace("\"version\": 2", "\"version\": 3")).unwrap();
    assert_eq!(
        refused(folder.path(), &recipe, &[]),
        format!(
            "error: dataset {}/c4/train: the index has version 3, but only version 2 is supported; write the \
             dataset with a writer of MDS version 2",
            folder.path().display()
        )
    );
}

#[test]
fn a_global_batch_that_does_not_divide_is_one_clear_sentence() {
    let (folder, recipe) = workshop();
    let message = |world_size: &str| {
        let mut command = train(&recipe, &[]);
        command.env("WORLD_SIZE", world_size);
        failure(&mut command)
    };
    assert_eq!(
        message("4"),
        "error: global_train_batch_size 6 does not divide by the 4 devices of this run; set it to a multiple of \
         4, for example 4"
    );
    assert_eq!(
        message("2"),
        "error: WORLD_SIZE is 2, but a run has one process and one device so far; unset WORLD_SIZE"
    );
    assert!(!folder.path().join("run").exists());
}

/// A limit of the shell on the size of files is an error like that of a full disk, not the end by a signal.
#[cfg(unix)]
#[test]
fn a_limit_on_file_sizes_is_one_sentence() {
    let (folder, recipe) = workshop();
    let train = env!("CARGO_BIN_EXE_train");
    let line = format!("ulimit -f 1200; exec {train} {} max_duration=20ba", recipe.display());
    let mut command = std::process::Command::new("sh");
    let output = command.args(["-c", &line]).current_dir(repository()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let last = said.lines().last().unwrap();
    assert!(last.starts_with("error: ") && last.contains("File too large"), "{last}");
    assert!(!folder.path().join("checkpoints/ep0-ba20").exists());
}
