//! What the tests of the `train` binary share: a small real dataset, a small recipe, a run's files.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use convert::conversion::{Content, Conversion, Earlier, OnBadLine};
use convert::source::{NamedSplit, files_of_split};
use serde_json::Value;

/// The folder of the repository.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Converts the sample's validation text to `folder/c4/train` and `folder/c4/val`, as text: 93 documents, 0.3 MB.
pub(crate) fn small_dataset(folder: &Path) -> PathBuf {
    let out_root = folder.join("c4");
    convert_sample(&out_root, || Content::Records);
    out_root
}

/// Converts the sample's validation text to `out_root/train` and `out_root/val`.
pub(crate) fn convert_sample(out_root: &Path, content: impl Fn() -> Content) {
    let source = repository().join("data/c4-sample/en/c4-validation.00000-of-00001.json.gz");
    for split in [NamedSplit::Train, NamedSplit::Val] {
        let conversion = Conversion {
            split: split.into(),
            files: files_of_split(source.to_str(), split, true).unwrap(),
            out_root: out_root.to_owned().into(),
            content: content(),
            subsets: None,
            writer: mds::WriterOptions::default(),
            on_bad_line: OnBadLine::Fail,
            threads: 1,
            earlier: Earlier::GoOn,
        };
        conversion.run(&Arc::default(), &Arc::default()).unwrap();
    }
}

/// A model of 0.2 million parameters on joined documents of `dataset`, with dropout, so that a step takes
/// milliseconds and every kind of state is in play.
pub(crate) fn small_recipe(folder: &Path, dataset: &Path) -> PathBuf {
    let tokenizer = repository().join("data/tokenizers/quickstart");
    let yaml = format!(
        "data_remote: {dataset}
data_local: {folder}/cache
max_seq_len: 32
tokenizer_name: {tokenizer}
run_name: small
run_folder: {folder}/run
save_folder: {folder}/checkpoints
model: {{name: mosaic_gpt, d_model: 32, n_heads: 2, n_layers: 2, vocab_size: 4096, emb_pdrop: 0.1, resid_pdrop: 0.1}}
train_loader:
  name: text
  dataset: {{split: train, shuffle: true, group_method: concat}}
  num_workers: 2
eval_loader:
  name: text
  dataset: {{split: val, shuffle: false, group_method: concat}}
  num_workers: 1
eval_subset_num_batches: 2
eval_interval: 15ba
scheduler: {{name: cosine_with_warmup, t_warmup: 5ba, alpha_f: 0.1}}
optimizer: {{name: decoupled_adamw, lr: 1.0e-2, weight_decay: 1.0e-4}}
grad_clip_norm: 1.0
max_duration: 40ba
global_train_batch_size: 6
device_train_microbatch_size: 4
save_interval: 20ba
autoresume: true
device: cpu
progress_bar: false
generate: {{prompt: The, max_new_tokens: 4}}
",
        dataset = dataset.display(),
        tokenizer = tokenizer.display(),
        folder = folder.display(),
    );
    let recipe = folder.join("recipe.yaml");
    std::fs::write(&recipe, yaml).unwrap();
    recipe
}

/// A dataset, a recipe, and the folder that they and the run's output are in.
pub(crate) fn workshop() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let dataset = small_dataset(folder.path());
    let recipe = small_recipe(folder.path(), &dataset);
    (folder, recipe)
}

/// `train RECIPE OVERRIDES`, run from the root of the repository.
pub(crate) fn train(recipe: &Path, overrides: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_train"));
    command.arg(recipe).args(overrides).current_dir(repository()).stdin(Stdio::null());
    command
}

/// The command's output; fails with what it printed unless it succeeds.
pub(crate) fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{:?}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// What it prints on standard error.
pub(crate) fn said(command: &mut Command) -> String {
    String::from_utf8_lossy(&succeed(command).stderr).into_owned()
}

/// The last line that a failing command prints.
pub(crate) fn failure(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    stderr.lines().last().unwrap_or_default().to_owned()
}

/// The records of `metrics.jsonl`.
pub(crate) fn records(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("run/metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Every record, without what measures the clock.
pub(crate) fn logged(run: &Path) -> Vec<Value> {
    let mut records = records(run);
    for record in &mut records {
        let object = record.as_object_mut().unwrap();
        object.retain(|key, _| {
            !["wall_clock", "throughput", "time", "memory", "data", "checkpoint"]
                .iter()
                .any(|clock| key.starts_with(clock))
        });
    }
    records
}
