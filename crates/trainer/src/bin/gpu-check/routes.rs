//! Whether values and gradients on a device are right.
//!
//! Each route of attention and a whole model (embeddings, norms, linear layers, the loss in chunks, every gradient,
//! optimizer steps) are compared in each type with `reference.rs`, which is float64.

use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use serde_json::json;
use trainer::config::{ModelConfig, OptimizerConfig, OptimizerName};
use trainer::data::TokenBatch;
use trainer::loss::loss_and_gradients;
use trainer::model::{AttentionRoute, Dropout, Gpt, Pass, causal_attention};
use trainer::optim::Optimizer;
use trainer::recompute::Activations;

use crate::reference::{self, Reference, decoupled_adamw, host};

#[derive(Debug, clap::Args)]
#[command(rename_all = "snake_case")]
pub(super) struct Args {
    /// Tokens of a row
    #[arg(long, default_value_t = 1024)]
    seq_len: usize,
    /// Entries of the vocabulary
    #[arg(long, default_value_t = 50_257)]
    vocab_size: usize,
}

/// Rounding of fp32 over sums of a thousand, and of bf16, which has 8 bits. The largest differences on a CPU are 3e-5 (of
/// steps, which fp32 parameters show to some bits only; 1e-6 of all else) and 9e-3.
const TOLERANCES: [(FloatDType, f64); 2] = [(FloatDType::F32, 1e-4), (FloatDType::BF16, 3e-2)];

/// Whether all differences are within tolerance; each is printed.
pub(super) fn check(args: &Args, device: &Device) -> bool {
    let mut is_right = true;
    for (dtype, tolerance) in TOLERANCES {
        let mut report = |name: &str, difference: f64| {
            let within = difference <= tolerance; // not if it is NaN
            is_right &= within;
            println!(
                "{}",
                json!({
                    "check": "routes", "name": name, "dtype": format!("{dtype:?}"), "difference": difference,
                    "tolerance": tolerance, "pass": within,
                })
            );
        };
        for (route, name) in
            [(AttentionRoute::Fused, "fused"), (AttentionRoute::Composed, "composed")]
        {
            let differences = attention(args, route, dtype, device);
            for (what, difference) in ["output", "dq", "dk", "dv"].iter().zip(differences) {
                report(&format!("attention {name}: {what}"), difference);
            }
        }
        model(args, dtype, device, &mut report);
    }
    is_right
}

/// Numbers between -1 and 1.
fn noise(elements: usize, mut state: u64) -> Vec<f32> {
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..elements).map(|_| next()).collect()
}

/// The root of the sum of squared differences, as a share of that of what is `expected`.
fn difference(got: &[f64], expected: &[f64]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let differences = norm(&mut got.iter().zip(expected).map(|(a, b)| a - b));
    differences / norm(&mut expected.iter().copied()).max(f64::MIN_POSITIVE)
}

/// Differences of the output and of the three gradients.
fn attention(args: &Args, route: AttentionRoute, dtype: FloatDType, device: &Device) -> [f64; 4] {
    let config = ModelConfig::mosaic_gpt(256, 4, 1, args.seq_len, 16);
    let shape = [2, 4, args.seq_len, 64];
    let numbers = [1, 2, 3, 4].map(|seed| noise(shape.iter().product(), seed));
    let run = |device: &Device, dtype: FloatDType, attend: &dyn Fn([Tensor<4>; 3]) -> Tensor<4>| {
        let device = device.clone().autodiff();
        let load = |values: &Vec<f32>| {
            let tensor = Tensor::<4>::from_data(TensorData::new(values.clone(), shape), &device);
            // Rounded to bf16 in each case, so that only the computation differs.
            tensor.cast(FloatDType::BF16).cast(dtype)
        };
        let [q, k, v] = [0, 1, 2].map(|i| load(&numbers[i]).require_grad());
        let output = attend([q.clone(), k.clone(), v.clone()]);
        let mut graph = (output.clone() * load(&numbers[3])).sum().backward();
        let gradients = [q, k, v].map(|x| x.grad_remove(&mut graph));
        let [dq, dk, dv] = gradients.map(|gradient| gradient.map(host).unwrap_or_default());
        [host(output.inner()), dq, dk, dv]
    };
    let pass = |device: &Device| {
        let tokens = Tensor::<2, Int>::zeros([2, args.seq_len], device);
        Pass::of(&config, dtype, &tokens, 0)
    };
    let pass = pass(&device.clone().autodiff());
    let got = run(device, dtype, &|[q, k, v]| {
        causal_attention(q, k, v, &pass, route, &mut Dropout::off())
    });
    let expected = run(&Device::flex(), FloatDType::F64, &reference::attention);
    [0, 1, 2, 3].map(|i| difference(&got[i], &expected[i]))
}

/// Loss, gradients and what two optimizer steps change of a model of two blocks.
fn model(args: &Args, dtype: FloatDType, device: &Device, report: &mut impl FnMut(&str, f64)) {
    let seq_len = args.seq_len.min(512);
    let config = ModelConfig::mosaic_gpt(256, 4, 2, seq_len, args.vocab_size);
    let hyperparameters = OptimizerConfig {
        name: OptimizerName::DecoupledAdamW,
        lr: 1e-3,
        betas: [0.9, 0.95],
        // Large, so that the step shows the size of a gradient and not only its sign.
        eps: Some(1e-2),
        weight_decay: 1e-3,
    };
    // Of the gradient in each step, and its learning rate.
    const STEPS: [(f64, f64); 2] = [(1.0, 1e-3), (-0.5, 4e-4)];
    let mut batch = TokenBatch::new(seq_len);
    for row in 0..2 {
        let tokens = noise(seq_len, row + 5).into_iter();
        let largest = (args.vocab_size - 1) as f32;
        batch.push(&tokens.map(|x| (x.abs() * largest) as i32).collect::<Vec<_>>(), 0);
    }

    let model = Gpt::init(&config, 17, &device.clone().autodiff()).computing_in(dtype);
    let before = model.to_named_tensors();
    let (expected_loss, expected) = Reference::of(&model).loss_and_gradients(&batch);
    let (loss, gradients) =
        loss_and_gradients(&model, &batch, 1.0, &mut Dropout::off(), Activations::Kept);
    report("model: loss", difference(&[loss.into_scalar::<f32>().into()], &[expected_loss]));
    let got: Vec<Vec<f64>> = gradients.clone().into_flat().into_iter().map(host).collect();
    for ((got, expected), before) in got.iter().zip(&expected).zip(&before) {
        report(&format!("model: gradient of {}", before.name), difference(got, expected));
    }

    let mut optimizer = Optimizer::new(hyperparameters.clone(), &model, device);
    let model = STEPS.into_iter().fold(model, |model, (factor, lr)| {
        optimizer.step(model, gradients.clone().scaled(factor), lr)
    });
    for ((before, after), gradient) in before.iter().zip(model.to_named_tensors()).zip(&expected) {
        let change = after.values.iter().zip(&before.values);
        let change: Vec<f64> = change.map(|(a, b)| f64::from(*a) - f64::from(*b)).collect();
        let expected = decoupled_adamw(&hyperparameters, &STEPS, &before.values, gradient);
        report(&format!("model: steps of {}", before.name), difference(&change, &expected));
    }
}
