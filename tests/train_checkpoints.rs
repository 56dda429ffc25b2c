//! What a run takes from a checkpoint, and which checkpoints it refuses: `load_path`, `load_weights_only`,
//! `load_strict_model_weights`, `load_ignore_keys`, `save_weights_only`, `autoresume`; other versions, worlds and datasets. And a save folder that goes away.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use trainer::checkpoint::{Place, SaveFolder, Snapshot, State};
use trainer::config::Config;
use trainer::model::Gpt;
use trainer::optim::Optimizer;
use trainer::time::Timestamp;

#[path = "support/training.rs"]
mod training;
use training::{failure, records, said, small_dataset, succeed, train, workshop};

/// A run of four steps, saved after two and at its end, and what begins with it.
struct Scene {
    folder: tempfile::TempDir,
    recipe: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let (folder, recipe) = workshop();
        succeed(&mut train(&recipe, &["max_duration=4ba", "save_interval=2ba"]));
        Self { folder, recipe }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn checkpoint(&self, name: &str) -> PathBuf {
        self.path("checkpoints").join(name)
    }

    /// Another run, `name`, that begins with the checkpoint of step 4 and comes to step `steps`.
    fn load(&self, name: &str, steps: u64, overrides: &[&str]) -> std::process::Command {
        let mut command = train(&self.recipe, &[]);
        command
            .arg(format!("load_path={}", self.checkpoint("ep0-ba4").display()))
            .arg(format!("save_folder={}", self.path(name).join("checkpoints").display()))
            .arg(format!("run_folder={}", self.path(name).join("run").display()))
            .arg(format!("max_duration={steps}ba"))
            .args(["scheduler.t_max=40ba", "save_interval=1ba"])
            .args(overrides);
        command
    }

    /// Changes `state.json` of the checkpoint of step 4.
    fn change_state(&self, change: impl FnOnce(&mut Value)) {
        let path = self.checkpoint("ep0-ba4/state.json");
        let mut state: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut state);
        std::fs::write(&path, state.to_string()).unwrap();
    }

    fn state(&self, checkpoint: &str) -> Value {
        let path = self.path(checkpoint).join("state.json");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }
}

/// The tensors of a file of a checkpoint.
fn tensors(checkpoint: &Path, file: &str) -> BTreeMap<String, Vec<u8>> {
    let bytes = std::fs::read(checkpoint.join(file)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.iter().map(|(name, view)| (name.to_owned(), view.data().to_vec())).collect()
}

/// The losses of a run.
fn losses(folder: &Path) -> Vec<f64> {
    records(folder).iter().filter_map(|record| record["loss/train/total"].as_f64()).collect()
}

#[test]
fn without_ignored_keys_all_is_taken() {
    let scene = Scene::new();
    let text = said(&mut scene.load("next", 5, &["load_ignore_keys=[]"]));
    assert!(text.contains("/checkpoints/ep0-ba4 (batch 4)\n"), "{text}");
    succeed(&mut train(&scene.recipe, &["max_duration=5ba", "scheduler.t_max=40ba"]));
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let there = tensors(&scene.path("next/checkpoints/ep0-ba5"), file);
        assert!(there == tensors(&scene.checkpoint("ep0-ba5"), file), "{file}");
    }
}

#[test]
fn an_optimizer_that_is_ignored_is_new_and_may_be_another() {
    let scene = Scene::new();
    let ignore = "load_ignore_keys=[state/optimizers/*]";
    let text = said(&mut scene.load("next", 5, &[ignore]));
    assert!(
        text.contains(
            "\nnote: load_ignore_keys: without state/optimizers/DecoupledAdamW/state/h.0."
        ),
        "{text}"
    );
    assert!(text.contains(" and 51 more\n"), "{text}");
    let next = scene.state("next/checkpoints/ep0-ba5");
    assert_eq!((&next["optimizer_steps"], &next["timestamp"]["batch"]), (&json!(1), &json!(5)));
    let lion = ["optimizer.name=decoupled_lionw", "optimizer.lr=1e-3"];
    let lion = [&lion[..], &["load_ignore_keys=state/optimizers"]].concat();
    succeed(&mut scene.load("lion", 5, &lion));
    // Nothing but the moments: data and losses are the same.
    assert_eq!(losses(&scene.path("lion")), losses(&scene.path("next")));
    assert_eq!(scene.state("lion/checkpoints/ep0-ba5")["data"], next["data"]);
}

#[test]
fn position_and_data_can_be_ignored_one_without_the_other() {
    let scene = Scene::new();
    let saved = scene.state("checkpoints/ep0-ba4");
    said(&mut scene.load("time", 1, &["load_ignore_keys=[state/timestamp]"]));
    let state = scene.state("time/checkpoints/ep0-ba1");
    // One step after the beginning, and yet one after the data of four.
    assert_eq!(state["timestamp"]["sample"], 6);
    assert_ne!(state["data"], scene.state("checkpoints/ep0-ba2")["data"]);
    assert_eq!(state["optimizer_steps"], 5);

    said(&mut scene.load("data", 6, &["load_ignore_keys=[state/dataset_state/*]"]));
    let state = scene.state("data/checkpoints/ep0-ba6");
    assert_eq!(state["timestamp"]["sample"], 36);
    assert_eq!(
        state["data"],
        scene.state("checkpoints/ep0-ba2")["data"],
        "two steps from the start"
    );
    assert_ne!(state["data"], saved["data"]);
}

#[test]
fn parameters_that_are_ignored_are_new_and_may_have_another_shape() {
    let scene = Scene::new();
    let ignore = "load_ignore_keys=[state/model/w?e.weight, 'state/optimizers/*/w?e.weight/*']";
    let still = ["optimizer.lr=0", "optimizer.weight_decay=0"];
    succeed(&mut scene.load("next", 5, &[&still[..], &[ignore]].concat()));
    let before = tensors(&scene.checkpoint("ep0-ba4"), "model.safetensors");
    let after = tensors(&scene.path("next/checkpoints/ep0-ba5"), "model.safetensors");
    let changed: Vec<_> = before.keys().filter(|name| before[*name] != after[*name]).collect();
    assert_eq!(changed, ["wpe.weight", "wte.weight"]);

    let larger = ["model.vocab_size=4100", ignore];
    succeed(&mut scene.load("larger", 5, &larger));
    let after = tensors(&scene.path("larger/checkpoints/ep0-ba5"), "model.safetensors");
    assert_eq!(after["wte.weight"].len(), 4100 * 32 * 4);
    // The moments alone do not fit.
    let forgotten = ["model.vocab_size=4100", "load_ignore_keys=[state/model/wte.weight]"];
    assert_eq!(
        failure(&mut scene.load("forgotten", 5, &forgotten)),
        format!(
            "error: the checkpoint `{}`: tensor wte.weight has shape [4096, 32], the configured model needs [4100, \
             32]; give another load_path",
            scene.checkpoint("ep0-ba4").display()
        )
    );
}

#[test]
fn a_pattern_that_matches_nothing_is_refused_with_what_there_is() {
    let scene = Scene::new();
    let ignore = |pattern: &str| {
        failure(&mut scene.load("next", 5, &[&format!("load_ignore_keys=[{pattern}]")]))
    };
    assert_eq!(
        ignore("state/optimisers/*"),
        format!(
            "error: `load_ignore_keys` has `state/optimisers/*`, but nothing in the checkpoint `{}` is called so; there \
             is state/callbacks, state/dataset_state, state/model/h.0.attn.c_attn.bias, \
             state/optimizers/DecoupledAdamW/state/h.0.attn.c_attn.bias/exp_avg, \
             state/optimizers/DecoupledAdamW/state/h.0.attn.c_attn.bias/exp_avg_sq, state/timestamp",
            scene.checkpoint("ep0-ba4").display()
        )
    );
    assert_eq!(
        ignore("'state/[model'"),
        "error: `load_ignore_keys` has `state/[model`, which is no pattern: invalid range pattern; write for example \
         state/optimizers/*"
    );
    assert!(!scene.path("next").exists());
}

/// Both keys are for the start of a run, and not for each of its continuations.
#[test]
fn a_run_that_began_with_weights_continues_its_own_checkpoint_whole() {
    let scene = Scene::new();
    let weights = ["load_weights_only=true", "load_ignore_keys=[state/callbacks]"];
    let text = said(&mut scene.load("next", 2, &weights));
    assert!(text.contains("\nweights from "), "{text}");
    let text = said(&mut scene.load("next", 4, &weights));
    let own = scene.path("next/checkpoints/ep0-ba2");
    assert!(text.contains(&format!("\ncontinuing from {} (batch 2)\n", own.display())), "{text}");
    assert_eq!(scene.state("next/checkpoints/ep0-ba4")["optimizer_steps"], 4);

    succeed(&mut scene.load("whole", 4, &weights));
    assert_eq!(losses(&scene.path("next")), losses(&scene.path("whole")));
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let of = |name: &str| tensors(&scene.path(name).join("checkpoints/ep0-ba4"), file);
        assert!(of("next") == of("whole"), "{file}");
    }
}

#[test]
fn what_is_loaded_from_elsewhere_needs_no_save_folder_to_be_refused() {
    let scene = Scene::new();
    let none = ["save_folder=null", "autoresume=false"];
    let place = scene.checkpoint("ep0-ba4");
    let place = place.display();
    assert_eq!(
        failure(&mut scene.load("next", 5, &[&none[..], &["model.n_heads=4"]].concat())),
        format!(
            "error: the checkpoint `{place}` is of another model: model.n_heads is 2 there and 4 here; set \
             model.n_heads=2, or give another load_path"
        )
    );
    let lion = ["optimizer.name=decoupled_lionw", "optimizer.lr=1e-3"];
    assert_eq!(
        failure(&mut scene.load("next", 5, &[&none[..], &lion].concat())),
        format!(
            "error: the checkpoint `{place}` has the moments of decoupled_adamw, and optimizer.name is decoupled_lionw \
             here; set optimizer.name=decoupled_adamw, or take only its weights with load_weights_only=true"
        )
    );
    succeed(&mut scene.load("next", 1, &[&none[..], &lion, &["load_weights_only=true"]].concat()));
}

#[test]
fn a_checkpoint_of_another_dataset_is_refused() {
    let scene = Scene::new();
    // The same text, written anew in other shards.
    let other = tempfile::tempdir().unwrap();
    let dataset = small_dataset(other.path());
    std::fs::remove_dir_all(dataset.join("train")).unwrap();
    let schema = mds::format::Schema::new([("text", mds::format::Encoding::Str)]).unwrap();
    let options = mds::WriterOptions::default();
    let mut writer = mds::Writer::create(dataset.join("train"), schema, options).unwrap();
    (0..50).for_each(|_| writer.write(&[mds::format::Value::from("Another text.")]).unwrap());
    writer.finish().unwrap();
    let remote = format!("data_remote={}", dataset.display());
    let local = format!("data_local={}", other.path().join("cache").display());
    let saved = scene.state("checkpoints/ep0-ba4");
    let fingerprint = saved["data"]["position"]["index_fingerprint"].as_str().unwrap();
    let message = failure(&mut train(&scene.recipe, &[&remote, &local, "max_duration=6ba"]));
    let (begin, here) = message.split_once(" there, ").unwrap();
    assert_eq!(
        begin,
        format!(
            "error: the checkpoint was made with another dataset than {}/train (index {fingerprint}",
            dataset.display()
        )
    );
    let (_, remedy) = here.split_once(" here); ").unwrap();
    assert_eq!(
        remedy,
        "train on that dataset, or take only its weights with load_path, load_weights_only=true and another \
         save_folder"
    );
    let message = failure(&mut scene.load("next", 5, &[&remote, &local]));
    assert!(
        message.ends_with(
            "; train on that dataset, or take only its weights with load_weights_only=true"
        ),
        "{message}"
    );
    // As it says.
    succeed(&mut scene.load("next", 1, &[&remote, &local, "load_weights_only=true"]));
    let ignore = "load_ignore_keys=[state/dataset_state]";
    succeed(&mut scene.load("other", 5, &[&remote, &local, ignore]));
}

/// A newer one is not damaged: it is neither passed over nor removed.
#[test]
fn a_checkpoint_of_another_version_is_refused_and_kept() {
    let scene = Scene::new();
    let more = ["max_duration=6ba", "save_interval=2ba"];
    let place = scene.checkpoint("ep0-ba4");
    scene.change_state(|state| state["format"] = json!(2));
    let refusal = format!(
        "error: the checkpoint `{}` has format 2, this program reads format 1; continue it with the version that \
         wrote it",
        place.display()
    );
    assert_eq!(failure(&mut train(&scene.recipe, &more)), refusal);
    assert_eq!(failure(&mut scene.load("next", 5, &[])), refusal);

    scene.change_state(|state| {
        state["format"] = json!(1);
        state["data"]["position"]["version"] = json!(2);
    });
    assert_eq!(
        failure(&mut train(&scene.recipe, &more)),
        format!(
            "error: the position in the data of the checkpoint `{}` cannot be read: the state has version 2, and this \
             library knows version 1; resume with the version of the library that wrote the state, or start afresh",
            place.display()
        )
    );
    assert!(place.join("model.safetensors").exists());

    scene.change_state(|state| state["data"]["position"]["version"] = json!(1));
    succeed(&mut train(&scene.recipe, &more));
}

#[test]
fn a_checkpoint_of_another_number_of_devices_is_refused() {
    let scene = Scene::new();
    scene.change_state(|state| state["world_size"] = json!(8));
    let place = scene.checkpoint("ep0-ba4");
    let refusal = |remedy: &str| {
        format!(
            "error: the checkpoint `{}` was saved by a run on 8 devices, and this one has 1: the position in the data is \
             that of one of them; continue it on as many, or take only its weights with {remedy}",
            place.display()
        )
    };
    assert_eq!(
        failure(&mut train(&scene.recipe, &["max_duration=6ba"])),
        refusal("load_path, load_weights_only=true and another save_folder")
    );
    assert_eq!(failure(&mut scene.load("next", 5, &[])), refusal("load_weights_only=true"));
    succeed(&mut scene.load("next", 1, &["load_weights_only=true"]));
}

#[test]
#[cfg(unix)]
fn a_checkpoint_that_cannot_be_read_now_is_not_passed_over() {
    let scene = Scene::new();
    // A folder in the place of a file: nobody can read it, whatever his rights.
    let file = scene.checkpoint("ep0-ba4/model.safetensors");
    std::fs::rename(&file, file.with_extension("aside")).unwrap();
    std::fs::create_dir(&file).unwrap();
    let message = failure(&mut train(&scene.recipe, &["max_duration=6ba"]));
    assert_eq!(
        message,
        format!("error: cannot read `{}`: Is a directory (os error 21)", file.display())
    );
}

#[test]
fn weights_that_are_saved_alone_are_taken_and_not_continued() {
    let scene = Scene::new();
    let load = |name: &str, overrides: &[&str]| {
        scene.load(name, 5, &[&["save_weights_only=true"], overrides].concat())
    };
    let text = said(&mut load("alone", &[]));
    let note = "\nnote: save_weights_only: this run cannot be continued from its checkpoints, only their weights can be \
                taken\n";
    assert!(text.contains(note), "{text}");
    succeed(&mut scene.load("whole", 5, &[]));
    let [alone, whole] =
        ["alone", "whole"].map(|name| scene.path(name).join("checkpoints/ep0-ba5"));
    assert!(tensors(&alone, "model.safetensors") == tensors(&whole, "model.safetensors"));
    assert!(tensors(&alone, "optimizer.safetensors").is_empty());

    let refusal = |remedy: &str| {
        format!(
            "error: the checkpoint `{}` was saved with save_weights_only: it has no moments to continue with; take only \
             its weights with {remedy}",
            alone.display()
        )
    };
    assert_eq!(
        failure(&mut load("alone", &["autoresume=true"])),
        refusal("load_path, load_weights_only=true and another save_folder")
    );
    let path = format!("load_path={}", alone.display());
    assert_eq!(failure(&mut scene.load("next", 6, &[&path])), refusal("load_weights_only=true"));
    // The first step is taken at learning rate 0.
    succeed(&mut scene.load("next", 1, &[&path, "load_weights_only=true"]));
    let next = scene.path("next/checkpoints/ep0-ba1");
    assert!(tensors(&next, "model.safetensors") == tensors(&whole, "model.safetensors"));
}

#[test]
fn weights_that_do_not_fit_are_listed_and_new() {
    let scene = Scene::new();
    let lax = ["load_weights_only=true", "load_strict_model_weights=false"];
    let load =
        |name: &str, model: &'static str| scene.load(name, 1, &[&lax[..], &[model]].concat());
    let saved = tensors(&scene.checkpoint("ep0-ba4"), "model.safetensors");
    for (name, model, notes) in [
        (
            "more",
            "model.n_layers=3",
            [
                "not in the checkpoint, so as a new model has them: h.2.ln_1.weight, h.2.ln_1.bias, \
                 h.2.attn.c_attn.weight, h.2.attn.c_attn.bias, h.2.attn.c_proj.weight and 7 more",
                "model.n_layers was 2 in the checkpoint and is 3",
            ],
        ),
        (
            "fewer",
            "model.n_layers=1",
            [
                "in the checkpoint, but not in the model: h.1.attn.c_attn.bias, h.1.attn.c_attn.weight, \
                 h.1.attn.c_proj.bias, h.1.attn.c_proj.weight, h.1.ln_1.bias and 7 more",
                "model.n_layers was 2 in the checkpoint and is 1",
            ],
        ),
    ] {
        let text = said(&mut load(name, model));
        let [first, second] = notes;
        let notes = format!("\nnote: load_strict_model_weights: {first}\nnote: {second}\n");
        assert!(text.contains(&notes), "{notes:?} is not in {text}");
        // The first step is taken at learning rate 0.
        let loaded = tensors(&scene.path(name).join("checkpoints/ep0-ba1"), "model.safetensors");
        let new = format!("new-{name}");
        succeed(&mut scene.load(&new, 1, &[model, "load_path=null"]));
        let new = tensors(&scene.path(&new).join("checkpoints/ep0-ba1"), "model.safetensors");
        assert!(loaded.keys().eq(new.keys()));
        for (parameter, values) in &loaded {
            let expected = saved.get(parameter).unwrap_or_else(|| &new[parameter]);
            assert!(values == expected, "{parameter}");
        }
    }

    let checkpoint = scene.checkpoint("ep0-ba4").display().to_string();
    let refusal = |model| failure(&mut load("refused", model)).replace(&checkpoint, "C");
    assert_eq!(
        refusal("model.d_model=64"),
        "error: the checkpoint `C`: tensor wte.weight has shape [4096, 32], the configured model needs [4096, 64]; give \
         another load_path"
    );
    assert_eq!(
        refusal("model.attn_config.qk_ln=true"),
        "error: the checkpoint `C` has not one parameter of the configured model, for example no transformer.wte.weight, \
         but h.0.attn.c_attn.bias, h.0.attn.c_attn.weight, h.0.attn.c_proj.bias, h.0.attn.c_proj.weight, h.0.ln_1.bias \
         and 23 more; give another load_path"
    );
    let strict = ["load_weights_only=true", "model.n_layers=1"];
    assert_eq!(
        failure(&mut scene.load("refused", 1, &strict)).replace(&checkpoint, "C"),
        "error: the checkpoint `C` is of another model: model.n_layers is 2 there and 1 here; set model.n_layers=2, or \
         give another load_path"
    );
}

/// What is logged while `work` is done, and what it returns.
fn logged<T>(work: impl FnOnce() -> T) -> (String, T) {
    let path = tempfile::NamedTempFile::new().unwrap();
    let file = path.reopen().unwrap();
    let subscriber = tracing_subscriber::fmt()
        .with_target(false)
        .without_time()
        .with_ansi(false)
        .with_writer(std::sync::Mutex::new(file))
        .finish();
    let value = tracing::subscriber::with_default(subscriber, work);
    (std::fs::read_to_string(path).unwrap(), value)
}

/// Gone with what was in it, or moved: what comes then is saved all the same, and the run has its lock on the new one.
#[test]
fn a_save_folder_that_is_removed_during_the_run_is_made_again() {
    let (folder, recipe) = workshop();
    let config = Config::load(&recipe, &[]).unwrap();
    let model = Gpt::init(&config.model, 1, &Device::flex());
    let optimizer = Optimizer::new(config.optimizer.clone(), &model, &Device::flex());
    let snapshot = |batch| {
        let at = Timestamp { batch, ..Timestamp::default() };
        Snapshot::take(State::new(&config, at), &model, &optimizer)
    };
    let path = folder.path().join("checkpoints");
    let place = Place::Folder(path.clone());
    let open = || SaveFolder::open(&place, Some(2), false, None);
    let names = || {
        let entries = std::fs::read_dir(&path).unwrap().flatten();
        let mut names: Vec<_> = entries.map(|e| e.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let mut saving = open().unwrap();
    saving.save(snapshot(1)).unwrap();
    let warning = format!(
        " WARN save_folder `{}` was removed or moved during the run, with the checkpoints in it; it is made again for \
         those from here on\n",
        path.display()
    );
    std::fs::remove_dir_all(&path).unwrap();
    assert_eq!(logged(|| saving.save(snapshot(2)).map(drop).unwrap()).0, warning);
    assert_eq!(names(), ["ep0-ba2", "latest"]);
    assert_eq!(std::fs::read_to_string(path.join("latest")).unwrap(), "ep0-ba2\n");
    assert_eq!(logged(|| saving.save(snapshot(3)).map(drop).unwrap()).0, "");

    // A copy in place of what was moved: its checkpoints are those of this run still.
    let moved = folder.path().join("moved");
    std::fs::rename(&path, &moved).unwrap();
    succeed(std::process::Command::new("cp").arg("-r").args([&moved, &path]));
    assert_eq!(logged(|| saving.save(snapshot(4)).map(drop).unwrap()).0, warning);
    assert_eq!(names(), ["ep0-ba3", "ep0-ba4", "latest"]);

    let in_use = format!(
        "save_folder `{}` is in use by another run; wait for its end, or use another save_folder",
        path.display()
    );
    assert_eq!(open().unwrap_err().to_string(), in_use);
    // Another run has begun there.
    std::fs::remove_dir_all(&path).unwrap();
    let mut other = open().unwrap();
    assert_eq!(saving.save(snapshot(5)).unwrap_err().to_string(), in_use);
    other.save(snapshot(6)).unwrap();
    drop(other);
    assert_eq!(
        saving.save(snapshot(5)).unwrap_err().to_string(),
        format!(
            "save_folder already holds the checkpoint `{}/ep0-ba6`; set autoresume=true to continue it, \
             save_overwrite=true to replace it, or another save_folder",
            path.display()
        )
    );
    assert_eq!(names(), ["ep0-ba6", "latest"]);
}

#[test]
fn the_metrics_say_how_long_a_save_took_and_held_the_training_up() {
    let (folder, recipe) = workshop();
    let text = said(&mut train(&recipe, &["max_duration=12ba", "save_interval=4ba"]));
    let saved: Vec<&str> = text.lines().filter(|line| line.starts_with("saved ")).collect();
    assert_eq!(saved.len(), 3, "{text}");
    let records = records(folder.path());
    let with = |key: &str| -> Vec<(u64, f64)> {
        let value = |record: &Value| Some((record["batch"].as_u64()?, record[key].as_f64()?));
        records.iter().filter_map(value).collect()
    };
    let stalls = with("checkpoint/stall_seconds");
    // The last one comes after the last record.
    assert_eq!(stalls.iter().map(|(batch, _)| *batch).collect::<Vec<_>>(), [5, 9]);
    let took = with("checkpoint/save_seconds");
    assert!(!took.is_empty() && took.iter().all(|(_, seconds)| *seconds > 0.0), "{took:?}");
    // That of step 8 waited for that of step 4 if need be, and else both were but handed over.
    let longest = took.iter().map(|(_, seconds)| *seconds).fold(0.0, f64::max);
    assert!(stalls.iter().all(|(_, stall)| *stall < longest + 0.1), "{stalls:?} {took:?}");
}
