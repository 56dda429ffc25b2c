//! The loop of the `train` binary, step by step: which step moves the model, batches that fail and are looked at again,
//! and callbacks that measure a step or end a run.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;

use burn::tensor::Device;
use convert::tokenizer::Tokenizer;
use safetensors::SafeTensors;
use serde_json::Value;
use trainer::config::Config;
use trainer::data::{Replica, TokenBatch, TrainData};
use trainer::loss::summed_loss;
use trainer::model::{Gpt, NamedTensor};

#[path = "support/training.rs"]
mod training;
use training::{failure, records, said, succeed, train, workshop};

fn config(recipe: &Path, overrides: &[&str]) -> Config {
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    Config::load(recipe, &overrides).unwrap()
}

/// The training batches of a run from its beginning.
fn batches(config: &Config, n: usize) -> Vec<TokenBatch> {
    let tokenizer = Tokenizer::load(&config.tokenizer_name).unwrap();
    let mut data = TrainData::open(config, &tokenizer, Replica::single()).unwrap();
    (0..n).map(|_| data.next_batch().unwrap()).collect()
}

/// The values that were logged under `key`, in the order of the steps.
fn logged(folder: &Path, key: &str) -> Vec<f64> {
    records(folder).iter().filter_map(|record| record[key].as_f64()).collect()
}

/// Published logs of the 125M recipe begin with 10.9736, 10.9724, 10.9745 and then 10.6459: with a warm-up of 100
/// batches the first two steps are taken at learning rate 0, so three batches see the model as it was made.
#[test]
fn the_first_three_losses_are_of_the_unchanged_model_and_the_fourth_is_not() {
    let (folder, recipe) = workshop();
    let overrides = [
        "scheduler.t_warmup=100ba",
        "max_duration=4ba",
        "save_interval=1ba",
        "device_train_microbatch_size=6",
        "model.emb_pdrop=0",
        "model.resid_pdrop=0",
    ];
    succeed(&mut train(&recipe, &overrides));

    let config = config(&recipe, &overrides);
    let initial = Gpt::init(&config.model, config.seed, &Device::flex());
    let parameters = |batch: u64| {
        let file = format!("checkpoints/ep0-ba{batch}/model.safetensors");
        let bytes = std::fs::read(folder.path().join(file)).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let of = |tensor: &NamedTensor| file.tensor(&tensor.name).unwrap().data().to_vec();
        initial.to_named_tensors().iter().map(of).collect::<Vec<_>>()
    };
    let made: Vec<Vec<u8>> = initial
        .to_named_tensors()
        .iter()
        .map(|tensor| tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect())
        .collect();
    assert!(parameters(1) == made, "the first step moved the model");
    assert!(parameters(2) == made, "the second step moved the model");
    assert!(parameters(3) != made, "the third step did not move the model");

    let off: Vec<f64> = logged(folder.path(), "loss/train/total")
        .into_iter()
        .zip(batches(&config, 4))
        .map(|(logged, batch)| {
            let (nats, tokens) = summed_loss(&initial, &batch);
            (logged - nats / tokens as f64).abs()
        })
        .collect();
    assert!(off[..3].iter().all(|off| *off < 1e-5), "{off:?}");
    assert!(off[3] > 1e-3, "{off:?}");
}

/// A dataset `short` of documents, beside those of the recipe, of which some have one token: these leave nothing to predict.
fn short_documents(folder: &Path, is_short: impl Fn(u64) -> bool) {
    let schema = mds::format::Schema::new([("text", mds::format::Encoding::Str)]).unwrap();
    let dataset = folder.join("c4/short");
    let options = mds::WriterOptions::default();
    let mut writer = mds::Writer::create(&*dataset, schema, options).unwrap();
    for sample in 0..18 {
        let text = if is_short(sample) { "a" } else { "The king was here" };
        writer.write(&[text.into()]).unwrap();
    }
    writer.finish().unwrap();
}

/// Of three batches of six the second is made of documents of one token.
#[test]
fn a_batch_without_a_target_is_noted_and_has_no_loss() {
    let (folder, recipe) = workshop();
    short_documents(folder.path(), |sample| (6..12).contains(&sample));
    let overrides = [
        "train_loader.dataset={split: short, shuffle: false, group_method: truncate}",
        "max_duration=3ba",
        "save_interval=1ba",
        // An alarm for any loss, once the window of one batch is full; a loss of 0 would be none.
        "callbacks={kill_loss_spike: {window_size: 1, patience: 0, outlier_multiplier: 1.0e-3}, early_stopper: \
         {monitor: LanguageCrossEntropy, dataloader_label: train, patience: 2ba}}",
    ];
    let text = said(&mut train(&recipe, &overrides));
    let notes: Vec<_> = text.lines().filter(|line| line.contains("not one token")).collect();
    assert_eq!(
        notes,
        [
            "note: batch 2 has not one token to predict: no loss is logged or watched, and its gradient is 0; its samples \
          are 6, 7, 8, 9, 10, 11"
        ]
    );
    let steps: Vec<Value> = records(folder.path())
        .into_iter()
        .filter(|record| record.get("trainer/global_step").is_some())
        .collect();
    for key in
        ["loss/train/total", "metrics/train/LanguageCrossEntropy", "metrics/train/Perplexity"]
    {
        let has: Vec<bool> = steps.iter().map(|step| step.get(key).is_some()).collect();
        assert_eq!(has, [true, false, true], "{key}");
    }
    assert_eq!(steps[1]["l2_norm/grad/global"], 0.0);
    let spikes: Vec<bool> = steps.iter().map(|step| step.get("loss_spike").is_some()).collect();
    assert_eq!(spikes, [false, false, true], "{text}");
    let watched = |checkpoint: &str| -> Value {
        let state = folder.path().join("checkpoints").join(checkpoint).join("state.json");
        serde_json::from_slice::<Value>(&std::fs::read(state).unwrap()).unwrap()["watch"].take()
    };
    assert_eq!(watched("ep0-ba2"), watched("ep0-ba1"));
    assert_ne!(watched("ep1-ba3"), watched("ep0-ba2"));
}

/// The lines of `run/replay-baN.jsonl`: the batch, and its rows.
fn replayed(folder: &Path, batch: u64) -> (Value, Vec<Value>) {
    let path = folder.join(format!("run/replay-ba{batch}.jsonl"));
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    (lines.next().unwrap(), lines.collect())
}

fn whole(list: &Value) -> Vec<i64> {
    list.as_array().unwrap().iter().map(|number| number.as_i64().unwrap()).collect()
}

#[test]
fn a_replayed_step_has_the_rows_the_loss_and_the_norm_of_the_run() {
    let (folder, recipe) = workshop();
    // With dropout, and with a document that the checkpoint cuts in two.
    let overrides = ["max_duration=6ba", "save_interval=2ba"];
    succeed(&mut train(&recipe, &overrides));
    let output = succeed(train(&recipe, &overrides).args(["--replay_step", "5"]));

    let (batch, rows) = replayed(folder.path(), 5);
    assert_eq!(batch["loss/train/total"], logged(folder.path(), "loss/train/total")[4]);
    assert_eq!(batch["l2_norm/grad/global"], logged(folder.path(), "l2_norm/grad/global")[4]);
    assert_eq!(batch["model_batch"], 4);
    let expected = batches(&config(&recipe, &overrides), 5).pop().unwrap();
    let ids: Vec<u64> = whole(&batch["samples"]).into_iter().map(|id| id as u64).collect();
    assert_eq!(ids, expected.sample_ids());
    assert_eq!(rows.len(), 6);
    for (index, row) in rows.iter().enumerate() {
        let expected = expected.slice(index..index + 1);
        let tokens: Vec<i32> = whole(&row["tokens"]).into_iter().map(|id| id as i32).collect();
        assert_eq!(tokens, expected.tokens);
        assert!((row["loss"].as_f64().unwrap() - 8.0).abs() < 1.5, "{row}");
        assert!(row["l2_norm/grad/global"].as_f64().unwrap() > 0.0, "{row}");
        assert!(!row["text"].as_str().unwrap().is_empty());
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    let model = format!("the model of {}/checkpoints/ep0-ba4 (batch 4)\n", folder.path().display());
    assert!(printed.starts_with(&model), "{printed}");
    assert!(printed.contains("\nbatch 5: loss "), "{printed}");
    assert!(printed.contains("\n  row 5: loss "), "{printed}");

    // Nothing was trained: the run goes on as it would have.
    assert_eq!(logged(folder.path(), "loss/train/total").len(), 6);
    succeed(train(&recipe, &overrides).arg("max_duration=7ba"));
    assert_eq!(logged(folder.path(), "loss/train/total").len(), 7);

    // Without a checkpoint the same rows meet the model as it was made.
    let alone = ["save_folder=null", "autoresume=false", "--replay_step=5"];
    succeed(train(&recipe, &overrides).args(alone));
    let (new, again) = replayed(folder.path(), 5);
    assert_eq!((&new["model"], &new["samples"]), (&Value::Null, &batch["samples"]));
    assert!(
        rows.iter().zip(&again).all(|(a, b)| a["tokens"] == b["tokens"] && a["loss"] != b["loss"])
    );
}

#[test]
fn a_replayed_row_without_a_target_has_no_loss() {
    let (folder, recipe) = workshop();
    short_documents(folder.path(), |sample| sample == 1 || sample >= 6);
    let short = "train_loader.dataset={split: short, shuffle: false, group_method: truncate}";
    let overrides = [short, "max_duration=1ep", "save_folder=null", "autoresume=false"];
    let replay = |batch: u64| {
        let output = succeed(train(&recipe, &overrides).arg(format!("--replay_step={batch}")));
        let printed = String::from_utf8(output.stdout).unwrap();
        (replayed(folder.path(), batch), printed)
    };
    let none = ": no loss (no token to predict), gradient norm 0.0000, samples ";
    let ((batch, rows), printed) = replay(1);
    assert!(batch["loss/train/total"].is_f64(), "{batch}");
    let has: Vec<bool> = rows.iter().map(|row| row["loss"].is_f64()).collect();
    assert_eq!(has, [true, false, true, true, true, true], "{rows:?}");
    assert_eq!(rows[1]["loss"], Value::Null);
    assert!(printed.contains(&format!("\n  row 1{none}1\n")), "{printed}");
    assert_eq!(printed.matches("no loss").count(), 1, "{printed}");
    let ((batch, _), printed) = replay(2);
    assert_eq!(batch["loss/train/total"], Value::Null);
    assert!(printed.contains(&format!("\nbatch 2{none}6, 7, 8, 9, 10, 11\n")), "{printed}");
}

#[test]
fn a_batch_past_the_end_of_the_run_is_not_replayed() {
    let (folder, recipe) = workshop();
    short_documents(folder.path(), |_| false);
    let short = "train_loader={drop_last: true, dataset: {split: short, group_method: truncate}}";
    for max in ["1ep", "18sp", "576tok", "3ba"] {
        let mut command = train(&recipe, &[short, &format!("max_duration={max}")]);
        assert_eq!(
            failure(command.arg("--replay_step=4")),
            format!(
                "error: batch 4 is past the end of the run, which has 3 batches (max_duration is {max}); give one of \
                 those, or raise max_duration"
            )
        );
    }
}

#[test]
fn a_batch_that_is_not_finite_names_its_samples_and_can_be_replayed() {
    let (folder, recipe) = workshop();
    // The third step throws the model away, so the fourth batch has no loss.
    let broken =
        ["optimizer.lr=1e30", "grad_clip_norm=1.0e30", "save_interval=1ba", "max_duration=9ba"];
    let output = train(&recipe, &broken).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = stderr.lines().rev().take(2).collect();
    let expected = batches(&config(&recipe, &broken), 4).pop().unwrap().sample_ids();
    let ids: Vec<String> = expected.iter().map(u64::to_string).collect();
    assert_eq!(lines[1], format!("samples of batch 4: {}", ids.join(", ")));
    assert_eq!(
        lines[0],
        "error: batch 4: the loss is NaN and the gradient norm NaN at a learning rate of 4.000e29; nothing of \
         this batch is kept; its samples are listed above. See what is in it with --replay_step 4. Lower optimizer.lr \
         or lengthen scheduler.t_warmup, and continue from the last checkpoint"
    );
    // The step was not applied.
    assert!(!folder.path().join("checkpoints/ep0-ba4").exists());
    assert_eq!(logged(folder.path(), "loss/train/total").len(), 3);

    succeed(train(&recipe, &broken).args(["--replay_step", "4"]));
    let (batch, rows) = replayed(folder.path(), 4);
    assert_eq!((&batch["model_batch"], &batch["loss/train/total"]), (&3.into(), &"NaN".into()));
    assert_eq!(whole(&batch["samples"]), expected.iter().map(|id| *id as i64).collect::<Vec<_>>());
    assert!(rows.iter().all(|row| row["loss"] == "NaN"), "{rows:?}");

    // Under the last model that was whole the same batch is not out of the ordinary.
    std::fs::remove_dir_all(folder.path().join("checkpoints/ep0-ba3")).unwrap();
    succeed(train(&recipe, &broken).args(["--replay_step", "4"]));
    let (batch, _) = replayed(folder.path(), 4);
    assert_eq!(batch["model_batch"], 2);
    assert!((batch["loss/train/total"].as_f64().unwrap() - 8.32).abs() < 0.2, "{batch}");
}

#[test]
fn a_replay_from_a_later_checkpoint_is_refused_in_one_sentence() {
    let (folder, recipe) = workshop();
    succeed(&mut train(&recipe, &["max_duration=2ba"]));
    let path = folder.path().join("checkpoints/ep0-ba2");
    let load = format!("load_path={}", path.display());
    let elsewhere = ["save_folder=null", "autoresume=false", &load, "--replay_step", "2"];
    assert_eq!(
        failure(&mut train(&recipe, &elsewhere)),
        format!(
            "error: the checkpoint `{}` is of batch 2, and batch 2 came before it; give load_path an older one, or \
             load_path=null to begin with the run",
            path.display()
        )
    );
}

#[test]
fn the_optimizer_monitor_logs_norms_that_belong_together() {
    let (folder, recipe) = workshop();
    let monitor = "callbacks={optimizer_monitor: {batch_log_interval: 5}}";
    let text = said(&mut train(&recipe, &["max_duration=11ba", monitor]));
    assert!(text.contains("l2_norm/grad/global"), "{text}");
    assert!(!text.contains("l2_norm/grad/wte.weight"), "{text}");

    let records = records(folder.path());
    let measured = |record: &&Value| record.get("l2_norm/grad/wte.weight").is_some();
    let measured: Vec<&Value> = records.iter().filter(measured).collect();
    assert_eq!(measured.iter().map(|record| &record["batch"]).collect::<Vec<_>>(), [5, 10]);
    for record in measured {
        let of = |kind: &str| -> Vec<f64> {
            let prefix = format!("l2_norm/{kind}/");
            let all = record.as_object().unwrap().iter();
            all.filter(|(key, _)| key.starts_with(&prefix) && !key.ends_with("/global"))
                .map(|(_, norm)| norm.as_f64().unwrap())
                .collect()
        };
        for kind in ["grad", "moment", "param", "update"] {
            assert_eq!(of(kind).len(), 28, "{kind}");
        }
        let together = of("grad").iter().map(|norm| norm * norm).sum::<f64>().sqrt();
        let global = record["l2_norm/grad/global"].as_f64().unwrap();
        assert!((together - global).abs() < 1e-5 * global, "{together} {global}");
        // Adam moves a weight by about the learning rate, which is small beside the weights.
        let (moved, there) = (of("update").iter().sum::<f64>(), of("param").iter().sum::<f64>());
        assert!(0.0 < moved && moved < there, "{moved} {there}");
    }
}

#[test]
fn a_run_that_makes_no_progress_ends_early_also_if_it_was_interrupted() {
    let never_better = [
        "eval_interval=2ba",
        "callbacks={early_stopper: {monitor: LanguageCrossEntropy, dataloader_label: eval, patience: 3ba, \
         min_delta: 100}}",
    ];
    let ended = |text: &str, folder: &Path| {
        let reason =
            "early_stopper: metrics/eval/LanguageCrossEntropy was best at batch 2, where it was ";
        assert!(text.contains(reason), "{text}");
        assert!(text.contains("and 4ba went by since then"), "{text}");
        // As at any end.
        assert!(text.contains("held-out documents ("), "{text}");
        assert!(folder.join("checkpoints/ep0-ba6").exists());
        assert_eq!(logged(folder, "loss/train/total").len(), 6);
    };
    let (folder, recipe) = workshop();
    ended(&said(&mut train(&recipe, &never_better)), folder.path());
    // It does not go on, unless it is asked to.
    ended(&said(&mut train(&recipe, &never_better)), folder.path());
    succeed(&mut train(&recipe, &["callbacks={}", "max_duration=8ba"]));
    assert_eq!(logged(folder.path(), "loss/train/total").len(), 8);

    let (folder, recipe) = workshop();
    succeed(train(&recipe, &never_better).arg("max_duration=5ba"));
    ended(&said(&mut train(&recipe, &never_better)), folder.path());
}

#[test]
fn a_spike_of_the_loss_is_noted_or_ends_the_run() {
    // With half the mean for a limit every loss is an outlier.
    let spike =
        "callbacks={kill_loss_spike: {window_size: 2, patience: 1, outlier_multiplier: 0.5}}";
    let (folder, recipe) = workshop();
    let text = said(&mut train(&recipe, &["max_duration=6ba", spike]));
    assert!(
        text.contains(
            "note: callbacks.kill_loss_spike only notes what it finds, as in the reference; set \
             callbacks.kill_loss_spike.log_only=false to have it end the run\n"
        ),
        "{text}"
    );
    assert_eq!(text.matches("note: batch 4: the loss is 8.").count(), 1, "{text}");
    assert_eq!(logged(folder.path(), "loss/train/total").len(), 6);

    let (folder, recipe) = workshop();
    let kill = ["max_duration=6ba", spike, "callbacks.kill_loss_spike.log_only=false"];
    let message = failure(&mut train(&recipe, &kill));
    assert!(message.starts_with("error: batch 4: the loss is 8."), "{message}");
    assert!(
        message.contains(", at least 0.5 times the mean of the 2 batches before, 8."),
        "{message}"
    );
    let records = records(folder.path());
    let last = records.last().unwrap();
    assert_eq!(last["batch"], 4);
    assert!(last["loss_spike"].as_str().unwrap().starts_with("batch 4: the loss is 8."));
}

#[test]
fn the_speed_monitor_has_the_newer_names_too() {
    let (folder, recipe) = workshop();
    let callbacks = "callbacks={speed_monitor: {window_size: 1}, runtime_estimator: {}}";
    succeed(&mut train(&recipe, &["max_duration=3ba", callbacks]));
    let records = records(folder.path());
    let last = records.iter().rfind(|record| record.get("wall_clock/train").is_some()).unwrap();
    for unit in ["batches", "samples", "tokens", "flops"] {
        let all = &last[&format!("throughput/{unit}_per_sec")];
        assert!(all.as_f64().unwrap() > 0.0);
        assert_eq!(all, &last[&format!("throughput/device/{unit}_per_sec")]);
    }
    for part in ["train", "val", "total"] {
        let seconds = last[&format!("wall_clock/{part}")].as_f64().unwrap();
        let hours = last[&format!("time/{part}")].as_f64().unwrap();
        assert!((hours * 3600.0 - seconds).abs() < 1e-9, "{part}: {hours} {seconds}");
    }
    assert_eq!(last["time/remaining_estimate"], 0.0);
}
