//! Whole optimizer steps of a recipe's model, with random tokens.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

use burn::tensor::{Device, Tensor};
use serde_json::json;
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
    #[arg(long, num_args = 1.., default_values_t = [8, 16, 32, 64].map(|rows| NonZeroUsize::new(rows).unwrap_or(NonZeroUsize::MIN)))]
    rows: Vec<NonZeroUsize>,
    /// Steps that are measured, after two that are not
    #[arg(long, default_value_t = 10)]
    steps: usize,
}

pub(super) fn measure(args: &Args, device: &Device) -> trainer::Result<()> {
    let config = Config::load(&args.recipe, &args.overrides)?;
    let seq_len = config.max_seq_len;
    let flops = config.model.train_flops_per_sequence(seq_len);
    let peak = peak_flops(&device::name(device), config.precision);
    for rows in args.rows.iter().map(|rows| rows.get()) {
        let seconds = seconds_of_a_step(&config, rows, args.steps, device);
        let memory = device.memory_pool_usage().map(|usage| usage.bytes_reserved);
        println!(
            "{}",
            json!({
                "check": "step", "recipe": args.recipe, "rows": rows, "seq_len": seq_len,
                "precision": config.precision.to_string(), "seconds": seconds,
                "tokens_per_second": (rows * seq_len) as f64 / seconds,
                "mfu": peak.map(|peak| rows as f64 * flops / seconds / peak), "bytes": memory,
            })
        );
        device.memory_cleanup();
    }
    Ok(())
}

/// Forward, backward, clipping and optimizer; the losses are read back together, as `train` does at a log interval.
fn seconds_of_a_step(config: &Config, rows: usize, steps: usize, device: &Device) -> f64 {
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
            let _ = device.sync();
            began = Instant::now();
        }
    }
    let _ = Tensor::cat(losses, 0).into_data();
    let _ = device.sync();
    began.elapsed().as_secs_f64() / steps.max(1) as f64
}
