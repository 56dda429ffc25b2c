//! Whole optimizer steps of a recipe's model, with random tokens.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Instant;

use burn::tensor::{Device, Tensor};
use serde_json::{Value, json};
use trainer::config::Config;
use trainer::data::TokenBatch;
use trainer::device;
use trainer::logging::monitor::peak_flops;
use trainer::loss::loss_and_gradients;
use trainer::model::{Dropout, Gpt};
use trainer::optim::Optimizer;

#[derive(Debug, clap::Args)]
#[command(rename_all = "snake_case")]
pub(super) struct Args {
    /// The recipe
    recipe: PathBuf,
    /// Changes of it, key=value
    overrides: Vec<String>,
    /// Rows of a microbatch, one after the other, until one does not fit
    #[arg(long, num_args = 1.., default_values_t = [8, 16, 32, 64], value_parser = at_least_one)]
    rows: Vec<usize>,
    /// Steps that are measured, after two that are not
    #[arg(long, default_value_t = 10)]
    steps: usize,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    let must = "it must be a whole number of at least 1, for example 16";
    text.parse().ok().filter(|&n| n > 0).ok_or_else(|| must.to_owned())
}

pub(super) fn measure(args: &Args, device: &Device) -> trainer::Result<()> {
    let config = Config::load(&args.recipe, &args.overrides)?;
    let seq_len = config.max_seq_len;
    let flops = config.model.train_flops_per_sequence(seq_len);
    let peak = peak_flops(&device::name(device), config.precision);
    let attempt = |rows| {
        let seconds = seconds_of_a_step(&config, rows, args.steps, device)?;
        let memory = device.memory_pool_usage().map(|usage| usage.bytes_reserved);
        device.memory_cleanup();
        Ok(json!({
            "check": "step", "recipe": args.recipe, "rows": rows, "seq_len": seq_len,
            "precision": config.precision.to_string(), "seconds": seconds,
            "tokens_per_second": (rows * seq_len) as f64 / seconds,
            "mfu": peak.map(|peak| rows as f64 * flops / seconds / peak), "bytes": memory,
        }))
    };
    until_one_does_not_fit(&args.rows, seq_len, attempt, crate::print)
}

/// Prints what each size gives. One that does not fit in the device's memory is said to be so, and is the last.
///
/// # Errors
/// When a size fails for another reason.
fn until_one_does_not_fit(
    sizes: &[usize],
    seq_len: usize,
    attempt: impl Fn(usize) -> Result<Value, String>,
    mut print: impl FnMut(&Value) -> trainer::Result<()>,
) -> trainer::Result<()> {
    for &rows in sizes {
        // Some operations of a device panic when it fails. What an attempt has made is dropped with it, and the device is
        // not used again after one that failed.
        let attempted = catch_unwind(AssertUnwindSafe(|| attempt(rows)));
        match attempted.unwrap_or_else(|panic| Err(words(&*panic))) {
            Ok(result) => print(&result)?,
            Err(problem) if device::is_out_of_memory(&problem) => {
                return print(&json!({
                    "check": "step", "rows": rows, "seq_len": seq_len, "out_of_memory": true,
                }));
            }
            Err(problem) => {
                return Err(trainer::Error::Device(format!(
                    "a step of {rows} row(s) failed: {}",
                    problem.trim()
                )));
            }
        }
    }
    Ok(())
}

/// What a panic says.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "it does not say why".to_owned())
}

/// Forward, backward, clipping and optimizer; the losses are read back together, as `train` does at a log interval.
///
/// # Errors
/// What has gone wrong on the device, in words, where it does not panic.
fn seconds_of_a_step(
    config: &Config,
    rows: usize,
    steps: usize,
    device: &Device,
) -> Result<f64, String> {
    let dtype = device::arithmetic(config.precision, device);
    let mut model = Gpt::init(&config.model, 17, &device.clone().autodiff()).computing_in(dtype);
    let mut optimizer = Optimizer::new(config.optimizer.clone(), &model, device);
    let mut batch = TokenBatch::new(config.max_seq_len);
    for row in 0..rows {
        let token = |i: usize| ((row * 7919 + i * i * 31) % config.model.vocab_size) as i32;
        batch.push(&(0..config.max_seq_len).map(token).collect::<Vec<_>>(), 0);
    }
    let (mut began, mut losses) = (Instant::now(), Vec::new());
    for step in 0..steps + 2 {
        let mut dropout = Dropout::training(config.seed, step as u64, 0);
        let (loss, gradients) =
            loss_and_gradients(&model, &batch, 1.0, &mut dropout, config.activations());
        let norm = gradients.norm_on_device();
        let gradients = match (&config.algorithms.gradient_clipping, &norm) {
            (Some(clipping), Some(norm)) => gradients.clip(clipping, norm, &model),
            _ => gradients,
        };
        model = optimizer.step(model, gradients, config.optimizer.lr);
        losses.push(loss);
        if step == 1 {
            device.sync().map_err(|problem| problem.to_string())?;
            began = Instant::now();
        }
    }
    Tensor::cat(losses, 0).try_into_data().map_err(|problem| problem.to_string())?;
    device.sync().map_err(|problem| problem.to_string())?;
    Ok(began.elapsed().as_secs_f64() / steps.max(1) as f64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;

    /// What is printed, and how it ends, where 16 rows fail.
    fn sizes(fail: impl Fn() -> Result<Value, String>) -> (Vec<Value>, trainer::Result<()>) {
        let mut printed = Vec::new();
        let attempt = |rows| if rows < 16 { Ok(json!({ "rows": rows })) } else { fail() };
        let ended = until_one_does_not_fit(&[4, 8, 16, 32], 128, attempt, |result| {
            printed.push(result.clone());
            Ok(())
        });
        (printed, ended)
    }

    #[test]
    fn a_size_that_does_not_fit_is_said_and_is_the_last() {
        let returned = || Err("An error happened\n  out of device memory".to_owned());
        let panicked = || panic!("called `unwrap` on an error: OutOfMemory");
        for (printed, ended) in [sizes(returned), sizes(panicked)] {
            ended.unwrap();
            let last =
                json!({ "check": "step", "rows": 16, "seq_len": 128, "out_of_memory": true });
            assert_eq!(printed, [json!({ "rows": 4 }), json!({ "rows": 8 }), last]);
        }
    }

    #[test]
    fn any_other_failure_ends_the_check() {
        let returned = || Err("the launch failed\n".to_owned());
        let panicked = || panic!("the launch failed");
        for (printed, ended) in [sizes(returned), sizes(panicked)] {
            let said = ended.unwrap_err().to_string();
            assert_eq!(said, "a step of 16 row(s) failed: the launch failed");
            assert_eq!(printed.len(), 2);
        }
    }

    #[test]
    fn no_rows_are_refused_in_a_sentence() {
        assert_eq!(at_least_one("16"), Ok(16));
        for text in ["0", "-1", "1.5", "x", ""] {
            let refused = at_least_one(text).unwrap_err();
            assert_eq!(refused, "it must be a whole number of at least 1, for example 16");
        }
    }
}
