//! Speed of one optimizer step on the CPU, with random tokens: wall clock, and processor time, which a busy machine
//! disturbs less. The last line is the same as JSON, for benches/peers/train.py.
//!
//!     cargo bench -p trainer --bench train_step -- [small|125m] [rows] [seq_len] [steps] [flash|torch] [kept|recomputed]

use std::time::Instant;

use burn::tensor::Device;
use trainer::config::{
    ClippingType, GradientClipping, ModelConfig, OptimizerConfig, OptimizerName,
};
use trainer::data::TokenBatch;
use trainer::loss::loss_and_gradients;
use trainer::model::{Dropout, Gpt};
use trainer::optim::Optimizer;
use trainer::recompute::Activations;

fn main() {
    trainer::device::keep_freed_blocks();
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let arg = |i: usize, default: &str| args.get(i).map_or(default.to_owned(), Clone::clone);
    let number = |i: usize, default: &str| arg(i, default).parse::<usize>().expect("a number");
    let (name, rows, seq_len, steps) =
        (arg(0, "small"), number(1, "8"), number(2, "128"), number(3, "10"));
    let (d_model, n_heads, n_layers, vocab_size) = match name.as_str() {
        "125m" => (768, 12, 12, 50257),
        _ => (128, 4, 4, 4096),
    };
    let config = ModelConfig {
        attn_impl: arg(4, "flash"),
        ..ModelConfig::mosaic_gpt(d_model, n_heads, n_layers, seq_len, vocab_size)
    };
    let hyperparameters = OptimizerConfig {
        name: OptimizerName::DecoupledAdamW,
        lr: 1e-3,
        betas: [0.9, 0.95],
        eps: Some(1e-8),
        weight_decay: 0.0,
    };
    let activations = match arg(5, "kept").as_str() {
        "recomputed" => Activations::Recomputed,
        _ => Activations::Kept,
    };
    let clipping = GradientClipping { clipping_type: ClippingType::Norm, clipping_threshold: 1.0 };
    let device = Device::flex();
    let mut model = Gpt::init(&config, 17, &device.clone().autodiff());
    let mut optimizer = Optimizer::new(hyperparameters, &model, &device);
    let batch = random_batch(rows, seq_len, vocab_size);

    let (mut timings, mut first_loss) = (Vec::new(), 0.0);
    for step in 0..=steps {
        let (began, cpu) = (Instant::now(), processor_seconds());
        let (loss, gradients) =
            loss_and_gradients(&model, &batch, 1.0, &mut Dropout::off(), activations);
        let forward_backward = began.elapsed().as_secs_f64();
        let norm = gradients.norm_on_device().expect("a model has gradients");
        let gradients = gradients.clip(&clipping, &norm, &model);
        model = optimizer.step(model, gradients, 1e-3);
        let loss = loss.into_scalar::<f32>();
        let wall = began.elapsed().as_secs_f64();
        if step == 0 {
            println!("{} parameters, first loss {loss:.4}", config.n_params());
            first_loss = loss;
        } else {
            timings.push((wall, forward_backward, processor_seconds() - cpu));
        }
    }
    let median = |of: fn(&(f64, f64, f64)) -> f64| {
        let mut values: Vec<f64> = timings.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let (wall, forward_backward, cpu) = (median(|t| t.0), median(|t| t.1), median(|t| t.2));
    let tokens = (rows * seq_len) as f64;
    println!(
        "{name} {rows}x{seq_len}: {wall:.3} s/step ({forward_backward:.3} forward and backward), {:.0} tokens/s; \
         processor time {cpu:.3} s/step, {:.0} tokens per processor second",
        tokens / wall,
        tokens / cpu
    );
    let peak = peak_memory();
    println!("peak memory {:.2} GiB", peak as f64 / f64::from(1 << 30));
    println!(
        "{{\"parameters\": {}, \"first_loss\": {first_loss}, \"seconds\": {wall}, \"processor_seconds\": {cpu}, \
         \"peak_bytes\": {peak}}}",
        config.n_params()
    );
}

/// The most memory that this process has had at a time, in bytes.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|kib| kib.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn random_batch(rows: usize, seq_len: usize, vocab_size: usize) -> TokenBatch {
    let mut state = 12345u64;
    let mut batch = TokenBatch::new(seq_len);
    for _ in 0..rows {
        let row: Vec<i32> = (0..seq_len)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                ((state >> 33) % vocab_size as u64) as i32
            })
            .collect();
        batch.push(&row, 0);
    }
    batch
}

/// User and system time of this process.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let field = |i: usize| after_name.split_whitespace().nth(i).and_then(|t| t.parse::<f64>().ok());
    (field(11).unwrap_or(0.0) + field(12).unwrap_or(0.0)) / 100.0
}
