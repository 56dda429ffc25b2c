//! What a run would be, before anything is allocated, read or asked of a network: `train --dry_run`.

use std::fmt::Write as _;

use indicatif::DecimalBytes;

use crate::config::{BatchPlan, Config, DeviceChoice, Engine, Precision};
use crate::device;
use crate::error::Result;
use crate::host;
use crate::recompute::Activations;
use crate::schedule::Schedule;
use crate::time::Unit;
use crate::train::scientific;

/// The resolved recipe as YAML, and below it as comments what it comes to: parameters, operations, batches, steps, and
/// the memory of one device. So the whole text is a recipe again.
///
/// `device: cuda` is planned for whether or not there is such a device here; `auto` is what it would be here.
///
/// # Errors
/// What [`train`](crate::train()) would refuse of the recipe alone; too little memory is noted, not refused.
pub fn dry_run(config: &Config) -> Result<String> {
    check_schedule(config)?;
    let engine = engine(config)?;
    let mut plan = config.batch_plan(1)?;
    let available = host::available_memory().filter(|_| engine == Engine::Cpu);
    let refusal = match available.map(|bytes| config.plan_within(plan.clone(), engine, bytes)) {
        Some(Ok(fitting)) => {
            plan = fitting;
            None
        }
        Some(Err(refusal)) => Some(format!("note: train refuses this here: {refusal}")),
        None => None,
    };
    let mut report = config.to_yaml();
    let notes = config.notices.iter().chain(&plan.notice).map(|notice| format!("note: {notice}"));
    let figures = [parameters(config), operations(config), batches(config, &plan), run(config)];
    let memory = memory(config, &plan, engine);
    let available = available.map(|n| format!("available here: {n} bytes, {}", DecimalBytes(n)));
    for line in notes.chain(figures).chain(memory).chain(available).chain(refusal) {
        // Writing to a String cannot fail.
        let _ = writeln!(report, "# {line}");
    }
    Ok(report)
}

/// Durations that cannot be compared are an error; with epochs they wait for the data.
fn check_schedule(config: &Config) -> Result<()> {
    let times = [config.max_duration, config.scheduler.t_warmup, config.scheduler.t_max];
    if times.iter().all(|time| time.unit != Unit::Epoch) {
        Schedule::from_config(&config.scheduler, config.max_duration, None)?;
    }
    Ok(())
}

/// What would compute the run.
fn engine(config: &Config) -> Result<Engine> {
    Ok(match config.device {
        DeviceChoice::Cpu => Engine::Cpu,
        DeviceChoice::Cuda => Engine::Cuda,
        DeviceChoice::Auto if device::is_cpu(&device::select(config.device)?) => Engine::Cpu,
        DeviceChoice::Auto => Engine::Cuda,
    })
}

fn parameters(config: &Config) -> String {
    let n_params = config.model.n_params();
    format!("n_params={} ({n_params})", scientific(n_params as f64))
}

fn operations(config: &Config) -> String {
    let flops = flops_per_token(config);
    format!("flops_per_token={} ({flops:.0}), forward and backward", scientific(flops))
}

fn flops_per_token(config: &Config) -> f64 {
    config.model.train_flops_per_sequence(config.max_seq_len) / config.max_seq_len as f64
}

fn batches(config: &Config, plan: &BatchPlan) -> String {
    let BatchPlan { device_batch, microbatch, grad_accum, .. } = plan;
    let tokens = config.tokens_per_step();
    format!(
        "world size 1: device batch {device_batch} rows, microbatch {microbatch}, grad_accum {grad_accum}; \
         {tokens} tokens per step"
    )
}

fn run(config: &Config) -> String {
    let max = config.max_duration;
    let Some(steps) = config.steps(None) else {
        return format!(
            "{max}: how many steps that is depends on the data, which is not read here"
        );
    };
    let tokens = steps.saturating_mul(config.tokens_per_step());
    let per_parameter = tokens as f64 / config.model.n_params() as f64;
    let flops = tokens as f64 * flops_per_token(config);
    format!(
        "{max}: {steps} steps, {tokens} tokens ({per_parameter:.1} per parameter), {} FLOPs",
        scientific(flops)
    )
}

fn memory(config: &Config, plan: &BatchPlan, engine: Engine) -> Vec<String> {
    let memory = config.step_memory(plan, engine);
    let computed = match engine {
        Engine::Cpu => "cpu, fp32",
        Engine::Cuda if config.precision == Precision::Fp32 => "cuda, fp32",
        Engine::Cuda => "cuda, matrix products in bf16",
    };
    let of_gradients = match plan.grad_accum {
        1 => "",
        _ => ": of a microbatch, and the sum of those before it",
    };
    let is_recomputed = config.activations() == Activations::Recomputed;
    let (if_kept, if_recomputed) = match is_recomputed {
        true => (" without activation_checkpointing", ""),
        false => ("", " with activation_checkpointing"),
    };
    let mut lines = vec![format!("memory of a step on one device ({computed}):")];
    for (bytes, what, more) in [
        (memory.weights, "weights", ""),
        (memory.gradients, "gradients", of_gradients),
        (memory.moments, "moments", ""),
        (memory.kept, "activations of a microbatch", if_kept),
        (memory.recomputed, "activations of a microbatch", if_recomputed),
        (memory.working, "beside them: logits, or the largest gradient in a block", ""),
        (memory.peak, "the most at one time", ""),
    ] {
        let readable = DecimalBytes(bytes).to_string();
        lines.push(format!("  {bytes:>16} bytes {readable:>10}  {what}{more}"));
    }
    lines
}
