//! Steps that were taken, and whose losses may still be on the device.
//!
//! A loss can be read only when all before it is computed, and a GPU that is waited for has nothing to do next. So there
//! losses and norms are read at every log interval, before evaluations and before checkpoints, those of all steps in
//! between together. A step without a finite loss changes nothing, since the device itself looks before it is taken, and ends the
//! run when it is read.
//!
//! They are read at once where something hangs on each: on a CPU, which has computed a step when it returns from it; where
//! a callback may end the run after it; and where a step that does not fit the memory is to be taken again
//! (`device_train_microbatch_size: auto`), because a GPU says so only when it is read.

use crate::config::{Callbacks, Config, DataloaderLabel, Microbatch};
use crate::error::Result;
use crate::logging::Metric;
use crate::step::{Measured, Passes, Reading};
use crate::time::Timestamp;

/// How far the host may be ahead of the device, however long the log interval.
const MOST: usize = 100;

/// What is known of a step when it is taken.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) start: Timestamp,
    pub(crate) end: Timestamp,
    /// Passes that the batch was computed in.
    pub(crate) grad_accum: usize,
    pub(crate) lr: f64,
    /// The learning rate of the step after it.
    pub(crate) next_lr: f64,
    pub(crate) samples: Vec<u64>,
    /// Whether there was a token to predict; else there is no loss.
    pub(crate) has_targets: bool,
    /// Seconds from the one before it.
    pub(crate) seconds: f64,
    /// Seconds of them in which it waited for its batch.
    pub(crate) waited: f64,
    /// What else is to be logged of it.
    pub(crate) metrics: Vec<Metric<'static>>,
    pub(crate) norms: Vec<(String, f64)>,
}

/// When losses are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadBack {
    AtOnce,
    /// At every `console_log_interval`.
    Together,
}

/// Steps in the order in which they were taken.
#[derive(Debug)]
pub(crate) struct Unread {
    when: ReadBack,
    steps: Vec<(Taken, Reading)>,
}

impl ReadBack {
    /// What suits the run of `config` on a device of a kind.
    pub(crate) fn of(config: &Config, is_cpu: bool) -> Self {
        let Callbacks { early_stopper, kill_loss_spike, .. } = &config.callbacks;
        let sees_each = |label| label == DataloaderLabel::Train;
        let is_watched = kill_loss_spike.is_some()
            || early_stopper.as_ref().is_some_and(|stopper| sees_each(stopper.dataloader_label));
        let is_auto = config.device_train_microbatch_size == Microbatch::Auto;
        if is_cpu || is_watched || is_auto { Self::AtOnce } else { Self::Together }
    }
}

impl Unread {
    /// No steps.
    pub(crate) fn new(when: ReadBack) -> Self {
        Self { when, steps: Vec::new() }
    }

    /// Takes in the newest step.
    pub(crate) fn push(&mut self, taken: Taken, reading: Reading) {
        self.steps.push((taken, reading));
    }

    /// Whether the steps are to be read now, apart from what else may be due.
    pub(crate) fn is_due(&self, config: &Config) -> bool {
        let is_logged = |(taken, _): &(Taken, Reading)| {
            config.console_log_interval.is_due(&taken.start, &taken.end)
        };
        self.when == ReadBack::AtOnce
            || self.steps.len() >= MOST
            || self.steps.last().is_some_and(is_logged)
    }

    /// Waits for all steps and forgets them. The time that it takes is divided among them.
    ///
    /// # Errors
    /// When the device has failed.
    pub(crate) fn read(&mut self, passes: &Passes) -> Result<Vec<(Taken, Measured)>> {
        let began = std::time::Instant::now();
        let readings = self.steps.iter().map(|(_, reading)| reading);
        let measured = passes.finish(|| Reading::read_all(readings))?;
        let mut steps: Vec<_> =
            self.steps.drain(..).map(|(taken, _)| taken).zip(measured).collect();
        let seconds: f64 = steps.iter().map(|(taken, _)| taken.seconds).sum();
        let each = (seconds + began.elapsed().as_secs_f64()) / steps.len().max(1) as f64;
        steps.iter_mut().for_each(|(taken, _)| taken.seconds = each);
        Ok(steps)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};

    use burn::tensor::Device;
    use mds::format::{Encoding, Schema};
    use mds::{Writer, WriterOptions};
    use serde_json::Value;

    use super::*;
    use crate::interrupt::Interrupt;
    use crate::train::train_on;

    fn write_data(folder: &Path) {
        for split in ["train", "val"] {
            let schema = Schema::new([("text", Encoding::Str)]).unwrap();
            let data = folder.join("data").join(split);
            let mut writer = Writer::create(data, schema, WriterOptions::default()).unwrap();
            for row in 0..40 {
                let text =
                    format!("{row} bottles of beer on the wall, {} bottles of beer", row + 1);
                writer.write(&[text.repeat(3).as_str().into()]).unwrap();
            }
            writer.finish().unwrap();
        }
    }

    /// A recipe with dropout, clipping, evaluations and checkpoints.
    fn config(folder: &Path, overrides: &[&str]) -> Config {
        let yaml = format!(
            "{{data_local: {folder}/data, max_seq_len: 16, run_folder: {folder}/run, save_folder: {folder}/checkpoints, \
             tokenizer_name: {tokenizer}, model: {{d_model: 8, n_heads: 2, n_layers: 1, vocab_size: 4096, \
             resid_pdrop: 0.1}}, global_train_batch_size: 4, device_train_microbatch_size: 3, optimizer: {{lr: 0.01}}, \
             train_loader: {{dataset: {{split: train, shuffle: true}}}}, grad_clip_norm: 0.1, max_duration: 17ba, \
             eval_loader: {{dataset: {{split: val}}}}, eval_interval: 6ba, save_interval: 8ba, device: cpu, \
             console_log_interval: 5ba, callbacks: {{optimizer_monitor: {{interval: 7ba}}}}, \
             scheduler: {{name: constant_with_warmup, t_warmup: 2ba}}}}",
            folder = folder.display(),
            tokenizer = concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/tokenizers/quickstart"),
        );
        let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
        Config::from_yaml_str(&yaml, &overrides).unwrap()
    }

    /// How a run ends, what it logs but for times and memory, and the tensors of its checkpoints.
    fn run(
        when: ReadBack,
        overrides: &[&str],
    ) -> (Result<()>, Vec<Value>, BTreeMap<String, Vec<u8>>) {
        let folder = tempfile::tempdir().unwrap();
        write_data(folder.path());
        let config = config(folder.path(), overrides);
        let outcome = train_on(&Device::flex(), when, &config, &Interrupt::default());
        let lines = std::fs::read_to_string(folder.path().join("run/metrics.jsonl")).unwrap();
        let is_timeless = |name: &str| {
            ["loss/", "metrics/", "l2_norm/", "trainer/", "batch"]
                .iter()
                .any(|s| name.starts_with(s))
        };
        let records = lines.lines().map(|line| {
            let mut record: serde_json::Map<String, Value> = serde_json::from_str(line).unwrap();
            record.retain(|name, _| is_timeless(name));
            Value::from(record)
        });
        let records = records.collect();
        let mut files = BTreeMap::new();
        for entry in files_below(&folder.path().join("checkpoints")) {
            let name = entry.strip_prefix(folder.path()).unwrap().display().to_string();
            if name.ends_with(".safetensors") {
                files.insert(name, std::fs::read(entry).unwrap());
            }
        }
        (outcome.map(|_| ()), records, files)
    }

    fn files_below(folder: &Path) -> Vec<PathBuf> {
        let entries =
            std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
        entries
            .flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] })
            .collect()
    }

    #[test]
    fn a_run_is_the_same_whenever_its_losses_are_read() {
        let (ended, records, files) = run(ReadBack::AtOnce, &[]);
        ended.unwrap();
        assert_eq!((records.len() >= 17, files.is_empty()), (true, false));
        let (ended, records_together, files_together) = run(ReadBack::Together, &[]);
        ended.unwrap();
        assert_eq!(records_together, records);
        assert!(files_together == files);
    }

    #[test]
    fn a_loss_that_is_no_number_is_found_before_anything_is_kept_of_it() {
        let broken = ["optimizer.lr=1e30", "grad_clip_norm=1e30", "save_interval=1ba"];
        let (ended, records, files) = run(ReadBack::AtOnce, &broken);
        let at_interval = ["optimizer.lr=1e30", "grad_clip_norm=1e30", "save_interval=8ba"];
        let (ended_later, records_together, kept) = run(ReadBack::Together, &at_interval);
        let message = ended_later.unwrap_err().to_string();
        assert!(message.contains("nothing of this batch is kept"), "{message}");
        assert_eq!(ended.unwrap_err().to_string(), message);
        assert_eq!(records_together, records);
        assert!(!files.is_empty());
        assert!(kept.is_empty());
    }

    #[test]
    fn a_cpu_and_whatever_hangs_on_each_loss_reads_at_once() {
        let config = |changes: &[&str]| config(Path::new("/nowhere"), changes);
        let on_gpu = |changes: &[&str]| ReadBack::of(&config(changes), false);
        assert_eq!(ReadBack::of(&config(&[]), true), ReadBack::AtOnce);
        assert_eq!(on_gpu(&[]), ReadBack::Together);
        assert_eq!(on_gpu(&["device_train_microbatch_size=auto"]), ReadBack::AtOnce);
        assert_eq!(on_gpu(&["callbacks={kill_loss_spike: {}}"]), ReadBack::AtOnce);
        let stopper = |label: &str| {
            let stopper = "{monitor: LanguageCrossEntropy, patience: 3ba, dataloader_label";
            on_gpu(&[&format!("callbacks={{early_stopper: {stopper}: {label}}}}}")])
        };
        assert_eq!([stopper("train"), stopper("eval")], [ReadBack::AtOnce, ReadBack::Together]);
    }
}
