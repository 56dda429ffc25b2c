//! Loss and gradients of one device batch, in passes that fit the device.
//!
//! With `device_train_microbatch_size: auto` the first pass is the whole batch. Where the device has not enough memory for
//! it, what was computed of the batch is thrown away, the microbatch is halved, and the same batch is tried again; what
//! fitted is kept for the batches to come, and in checkpoints. Order and metrics know nothing of it.
//!
//! A GPU reports that its memory is used up when results are read. A CPU's allocator ends the process instead, so there
//! [`Config::plan_within`] finds the size beforehand.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::tensor::{Bool, Tensor};

use crate::config::{BatchPlan, Config, Microbatch};
use crate::data::TokenBatch;
use crate::device::is_out_of_memory;
use crate::error::{Error, Result};
use crate::loss::loss_and_gradients;
use crate::model::{Dropout, Gpt};
use crate::optim::Gradients;

/// The loss of one device batch, in nats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct BatchLoss {
    /// What is differentiated: the sum of the microbatches' means, weighted.
    pub(crate) total: f64,
    /// The mean over all targets of the batch.
    pub(crate) cross_entropy: f64,
}

/// What is computed of one device batch before the optimizer's step.
#[derive(Debug)]
pub(crate) struct Computed {
    pub(crate) gradients: Gradients,
    /// The L2 norm over all of them, `[1]`, on the device.
    pub(crate) norm: Tensor<1>,
    pub(crate) reading: Reading,
}

/// Loss and norm of one device batch, as numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Measured {
    pub(crate) loss: BatchLoss,
    /// The L2 norm over all gradients.
    pub(crate) norm: f64,
}

/// The same, still on the device until it is read.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    /// The norm, then the weighted loss of each microbatch: `[1 + microbatches]`.
    values: Tensor<1>,
    /// The weight of each microbatch, and its share of the targets.
    shares: Vec<(f64, f64)>,
    measured: Option<Measured>,
}

/// Loss and gradients of one device batch, summed over the microbatches of `plan`. Waits for nothing.
///
/// Each microbatch weighs by its targets, or with `accumulate_train_batch_on_tokens: false` by its rows, as in Composer.
/// The two differ only where rows are padded.
///
/// # Errors
/// When the device fails: in words.
pub(crate) fn accumulate(
    model: &Gpt,
    batch: &TokenBatch,
    config: &Config,
    plan: &BatchPlan,
    step: u64,
) -> Result<Computed, String> {
    let targets = batch.labelled().max(1) as f64;
    let (mut losses, mut shares) = (Vec::new(), Vec::new());
    let mut sum: Option<Gradients> = None;
    let mut start = 0;
    for (index, rows) in plan.microbatches(batch.rows).into_iter().enumerate() {
        let microbatch = batch.slice(start..start + rows);
        start += rows;
        let share_of_targets = microbatch.labelled() as f64 / targets;
        let weight = match config.accumulate_train_batch_on_tokens {
            true => share_of_targets,
            false => rows as f64 / batch.rows as f64,
        };
        let mut dropout = Dropout::training(config.seed, step, index as u64);
        let (loss, gradients) =
            loss_and_gradients(model, &microbatch, weight, &mut dropout, config.activations());
        losses.push(loss);
        shares.push((weight, share_of_targets));
        sum = Some(match sum {
            Some(sum) => sum.accumulate(gradients),
            None => gradients,
        });
    }
    let gradients = sum.unwrap_or_else(|| Gradients::new(Vec::new()));
    let Some(norm) = gradients.norm_on_device() else {
        return Err("a batch without rows was to be computed".to_owned());
    };
    let values = Tensor::cat([vec![norm.clone()], losses].concat(), 0); // [1 + microbatches]
    Ok(Computed { gradients, norm, reading: Reading { values, shares, measured: None } })
}

impl Reading {
    /// Whether a loss or the norm is no finite number, `[1]`, on the device.
    pub(crate) fn is_broken(&self) -> Tensor<1, Bool> {
        self.values.clone().is_finite().bool_not().any() // [1 + microbatches] -> [1]
    }

    /// Waits for the batch to be computed.
    ///
    /// # Errors
    /// What has gone wrong on the device since something was last read: in words.
    pub(crate) fn read(&mut self) -> Result<Measured, String> {
        let measured = Self::read_all([&*self].into_iter())?;
        let [measured] = measured[..] else { return Err("a loss is missing".to_owned()) };
        self.measured = Some(measured);
        Ok(measured)
    }

    /// Waits for several batches, once.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(crate) fn read_all<'a>(
        readings: impl Iterator<Item = &'a Self> + Clone,
    ) -> Result<Vec<Measured>, String> {
        let on_device = readings.clone().filter(|reading| reading.measured.is_none());
        let on_device: Vec<Tensor<1>> = on_device.map(|reading| reading.values.clone()).collect();
        let values = if on_device.is_empty() {
            Vec::new()
        } else {
            let data = Tensor::cat(on_device, 0).try_into_data().map_err(|e| e.to_string())?;
            data.try_to_vec::<f32>().map_err(|e| format!("{e:?}"))?
        };
        let mut values = values.into_iter().map(f64::from);
        let measured = readings.map(|Self { shares, measured, .. }| {
            measured.unwrap_or_else(|| {
                let norm = values.next().unwrap_or(f64::NAN);
                let losses = values.by_ref().take(shares.len());
                Measured { loss: BatchLoss::sum(losses, shares), norm }
            })
        });
        Ok(measured.collect())
    }
}

impl BatchLoss {
    /// Of the weighted losses of microbatches, given the weight and the share of the targets of each.
    fn sum(weighted: impl Iterator<Item = f64>, shares: &[(f64, f64)]) -> Self {
        let mut sum = Self { total: 0.0, cross_entropy: 0.0 };
        let microbatches = weighted.zip(shares);
        for (weighted, (weight, share)) in microbatches.filter(|(_, (weight, _))| *weight > 0.0) {
            sum.total += weighted;
            sum.cross_entropy += weighted / weight * share;
        }
        sum
    }
}

/// In passes of how many rows batches are computed.
#[derive(Clone, Debug)]
pub(crate) struct Passes {
    plan: BatchPlan,
    is_auto: bool,
}

/// What came of a batch.
#[derive(Clone, Debug)]
pub(crate) struct Passed<T> {
    pub(crate) value: T,
    /// What was tried before, for the user to read.
    pub(crate) notes: Vec<String>,
}

impl Passes {
    /// As `plan` says; with `auto` what was `found` before, if that is less.
    pub(crate) fn new(config: &Config, plan: BatchPlan, found: Option<usize>) -> Self {
        let is_auto = config.device_train_microbatch_size == Microbatch::Auto;
        let found = found.filter(|&rows| is_auto && (1..plan.microbatch).contains(&rows));
        Self {
            plan: match found {
                Some(rows) => plan.with_microbatch(rows),
                None => plan,
            },
            is_auto,
        }
    }

    /// How batches are split now.
    pub(crate) fn plan(&self) -> &BatchPlan {
        &self.plan
    }

    /// The rows of a pass, where they had to be found.
    pub(crate) fn found(&self) -> Option<usize> {
        self.is_auto.then_some(self.plan.microbatch)
    }

    /// What is done with a batch that was computed, where the device may fail but there is nothing to try again.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn finish<T>(&self, work: impl FnOnce() -> Result<T, String>) -> Result<T> {
        // After a failure nothing is used that may have been changed.
        let done = catch_unwind(AssertUnwindSafe(work));
        done.unwrap_or_else(|panic| Err(words(&*panic))).map_err(|problem| self.failed(&problem))
    }

    /// The end of a run on a device that fails.
    fn failed(&self, problem: &str) -> Error {
        let (rows, line) = (self.plan.microbatch, first_line(problem));
        let remedy = match (is_out_of_memory(problem), self.is_auto) {
            (false, _) => {
                return Error::Device(format!(
                    "the device failed in the middle of a step: {line}; nothing of this step is kept: continue from the last \
                     checkpoint"
                ));
            }
            (true, true) if rows > 1 => {
                "continue from the last checkpoint with a smaller device_train_microbatch_size"
            }
            (true, true) => {
                "shorten max_seq_len, set fsdp_config.activation_checkpointing=true, or take a smaller model"
            }
            (true, false) => {
                "lower device_train_microbatch_size or set it to auto, or set fsdp_config.activation_checkpointing=true"
            }
        };
        Error::Device(format!(
            "the device has not enough memory for a pass of {rows} row(s): {line}; {remedy}"
        ))
    }

    /// Computes a batch in the passes of the plan that `attempt` is given: smaller ones after each failure for want of
    /// memory, if that is allowed. `free` is called before each further attempt.
    ///
    /// # Errors
    /// When the device fails for another reason, has not even memory for one row, or the size was given.
    pub(crate) fn run<T>(
        &mut self,
        mut attempt: impl FnMut(&BatchPlan) -> Result<T, String>,
        mut free: impl FnMut(),
    ) -> Result<Passed<T>> {
        let mut notes = Vec::new();
        loop {
            let rows = self.plan.microbatch;
            // Some operations of a device panic when it fails. Nothing that outlives the attempt is changed by it.
            let attempted = catch_unwind(AssertUnwindSafe(|| attempt(&self.plan)));
            let problem = match attempted.unwrap_or_else(|panic| Err(words(&*panic))) {
                Ok(value) => return Ok(Passed { value, notes }),
                Err(problem) => problem,
            };
            if !is_out_of_memory(&problem) || !self.is_auto || rows == 1 {
                return Err(self.failed(&problem));
            }
            self.plan = self.plan.clone().with_microbatch(rows.div_ceil(2));
            notes.push(format!(
                "a pass of {rows} rows does not fit the device's memory; device_train_microbatch_size is {} from here on",
                self.plan.microbatch
            ));
            free();
        }
    }
}

/// What a panic says.
fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "it does not say why".to_owned())
}

/// The rest is a backtrace.
fn first_line(problem: &str) -> &str {
    let is_said = |line: &&str| !line.trim().is_empty();
    problem.lines().find(is_said).unwrap_or("it does not say why").trim()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tiny_config;
    use burn::tensor::Device;

    fn config(microbatch: &str) -> Config {
        let yaml = format!(
            "{{data_remote: /nowhere, tokenizer_name: gpt2, max_seq_len: 5, max_duration: 1ba, global_train_batch_size: 7, \
             device_train_microbatch_size: {microbatch}, model: {{d_model: 8, n_heads: 2, n_layers: 2, vocab_size: 11}}, \
             train_loader: {{}}, optimizer: {{lr: 1}}, scheduler: {{name: constant_with_warmup, t_warmup: 0ba}}}}"
        );
        Config::from_yaml_str(&yaml, &[]).unwrap()
    }

    fn passes(config: &Config) -> Passes {
        Passes::new(config, config.batch_plan(1).unwrap(), None)
    }

    const FULL: &str = "An error happened\nCaused by:\n  out of device memory allocating 123 bytes";

    #[test]
    fn auto_halves_until_a_batch_fits_and_keeps_what_did() {
        let config = config("auto");
        let mut passes = passes(&config);
        let (mut tried, mut freed) = (Vec::new(), 0);
        for _ in 0..2 {
            let attempt = |plan: &BatchPlan| {
                tried.push(plan.microbatch);
                if plan.microbatch > 2 { Err(FULL.to_owned()) } else { Ok(plan.grad_accum) }
            };
            assert_eq!(passes.run(attempt, || freed += 1).unwrap().value, 4);
        }
        assert_eq!((tried, freed), (vec![7, 4, 2, 2], 2));
        assert_eq!((passes.plan().grad_accum, passes.found()), (4, Some(2)));
        let plan = config.batch_plan(1).unwrap();
        assert_eq!(Passes::new(&config, plan, Some(2)).plan().grad_accum, 4);
    }

    /// The same batch, whether it fitted at once or not: nothing of a failed attempt is left in it.
    #[test]
    fn a_batch_that_had_to_be_halved_is_the_same_batch() {
        let config = config("auto");
        let model = Gpt::init(&tiny_config(), 3, &Device::flex().autodiff());
        let mut batch = TokenBatch::new(5);
        (0..7).for_each(|row| batch.push(&[row, 1, row + 2, 3, row + 4], 0));
        let mut log = Vec::new();
        let attempt = |plan: &BatchPlan| {
            let computed = accumulate(&model, &batch, &config, plan, 0)?;
            if plan.microbatch > 3 { panic!("out of memory") } else { Ok(computed) }
        };
        let passed = passes(&config).run(attempt, || log.push("freed")).unwrap();
        let Computed { mut reading, gradients, .. } = passed.value;
        let loss = reading.read().unwrap().loss;
        let Computed { reading: mut whole_reading, gradients: whole, .. } =
            accumulate(&model, &batch, &config, &config.batch_plan(1).unwrap(), 0).unwrap();
        let Measured { loss: whole_loss, norm } = whole_reading.read().unwrap();
        assert!((loss.total - whole_loss.total).abs() < 1e-5, "{loss:?} {whole_loss:?}");
        let distance = gradients.accumulate(whole.clone().scaled(-1.0)).global_norm();
        assert!(distance < 1e-5 * norm, "{distance}");
        assert_eq!(norm, whole.global_norm());
        assert_eq!(log, ["freed"; 2]);
        assert_eq!(
            passed.notes,
            [
                "a pass of 7 rows does not fit the device's memory; device_train_microbatch_size is 4 from here on",
                "a pass of 4 rows does not fit the device's memory; device_train_microbatch_size is 2 from here on",
            ]
        );
    }

    /// What a GPU says when it is read is the same sentence, whoever reads it.
    #[test]
    fn a_failure_after_the_passes_has_its_remedy_too() {
        let finish = |config: &Config, work: fn() -> Result<(), String>| {
            passes(config).finish(work).unwrap_err().to_string()
        };
        assert_eq!(
            finish(&config("auto"), || panic!("out of memory")),
            "the device has not enough memory for a pass of 7 row(s): out of memory; continue from the last checkpoint \
             with a smaller device_train_microbatch_size"
        );
        assert_eq!(
            finish(&config("4"), || Err(FULL.to_owned())),
            "the device has not enough memory for a pass of 4 row(s): An error happened; lower \
             device_train_microbatch_size or set it to auto, or set fsdp_config.activation_checkpointing=true"
        );
    }

    #[test]
    fn losses_read_together_are_those_read_one_by_one() {
        let config = config("3");
        let model = Gpt::init(&tiny_config(), 3, &Device::flex().autodiff());
        let plan = config.batch_plan(1).unwrap();
        let mut readings = Vec::new();
        for rows in [7, 2, 4] {
            let mut batch = TokenBatch::new(5);
            (0..rows).for_each(|row| batch.push(&[row, 1, rows, 3, row], 0));
            readings.push(accumulate(&model, &batch, &config, &plan, 0).unwrap().reading);
        }
        let one_by_one: Vec<Measured> =
            readings.clone().iter_mut().map(|reading| reading.read().unwrap()).collect();
        assert_eq!(Reading::read_all(readings.iter()).unwrap(), one_by_one);
        readings[1].read().unwrap();
        assert_eq!(Reading::read_all(readings.iter()).unwrap(), one_by_one);
        assert!(one_by_one[0].loss.total != one_by_one[1].loss.total);
    }

    #[test]
    fn what_cannot_be_mended_is_one_sentence() {
        let fail = |config: &Config, problem: &str| {
            let attempt = |_: &BatchPlan| Err::<(), _>(problem.to_owned());
            passes(config).run(attempt, || {}).unwrap_err().to_string()
        };
        assert_eq!(
            fail(&config("auto"), FULL),
            "the device has not enough memory for a pass of 1 row(s): An error happened; shorten max_seq_len, set \
             fsdp_config.activation_checkpointing=true, or take a smaller model"
        );
        assert_eq!(
            fail(&config("4"), FULL),
            "the device has not enough memory for a pass of 4 row(s): An error happened; lower \
             device_train_microbatch_size or set it to auto, or set fsdp_config.activation_checkpointing=true"
        );
        assert_eq!(
            fail(&config("auto"), "an illegal address"),
            "the device failed in the middle of a step: an illegal address; nothing of this step is kept: continue from \
             the last checkpoint"
        );
    }
}
