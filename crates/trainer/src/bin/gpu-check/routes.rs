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
/// steps, which fp32 parameters show to some bits only; 1e-6 of all else) and 1e-2.
const TOLERANCES: [(FloatDType, f64); 2] = [(FloatDType::F32, 1e-4), (FloatDType::BF16, 3e-2)];

/// Whether all differences are within tolerance; each is printed.
pub(super) fn check(args: &Args, device: &Device) -> trainer::Result<bool> {
    let mut is_right = true;
    for (dtype, tolerance) in TOLERANCES {
        let mut report = |name: &str, difference: f64| {
            let within = difference <= tolerance; // not if it is NaN
            is_right &= within;
            crate::print(&json!({
                "check": "routes", "name": name, "dtype": format!("{dtype:?}"), "difference": difference,
                "tolerance": tolerance, "pass": within,
            }))
        };
        for (route, name) in
            [(AttentionRoute::Fused, "fused"), (AttentionRoute::Composed, "composed")]
        {
            for (variant, config) in attention_configs(args.seq_len) {
                let differences = attention(&config, route, dtype, device);
                for (what, difference) in ["output", "dq", "dk", "dv"].iter().zip(differences) {
                    report(&format!("attention {name}, {variant}: {what}"), difference)?;
                }
            }
        }
        model(args, dtype, device, &mut report)?;
    }
    Ok(is_right)
}

/// What the fused route of a GPU computes, each alone and all together: heads of keys and values that several heads of
/// queries share, another scale, capped scores. Scores are about as large as the cap.
fn attention_configs(seq_len: usize) -> [(&'static str, ModelConfig); 6] {
    [
        ("plain", 4, None, None),
        ("kv_n_heads 2", 2, None, None),
        ("kv_n_heads 1", 1, None, None),
        ("softmax_scale 0.3", 4, Some(0.3), None),
        ("softcap 0.5", 4, None, Some(0.5)),
        ("kv_n_heads 2, softmax_scale 0.3, softcap 0.5", 2, Some(0.3), Some(0.5)),
    ]
    .map(|(name, kv_n_heads, softmax_scale, softcap)| {
        let mut config = ModelConfig::mosaic_gpt(256, 4, 1, seq_len, 16);
        config.attn_config.kv_n_heads = kv_n_heads;
        config.attn_config.softmax_scale = softmax_scale;
        config.attn_config.attn_logit_softcapping = softcap;
        (name, config)
    })
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
fn attention(
    config: &ModelConfig,
    route: AttentionRoute,
    dtype: FloatDType,
    device: &Device,
) -> [f64; 4] {
    let (rows, seq_len) = (2, config.max_seq_len);
    let (heads, kv_heads) = (config.n_heads, config.attn_config.kv_n_heads);
    let numbers = [(1, heads), (2, kv_heads), (3, kv_heads), (4, heads)].map(|(seed, heads)| {
        let shape = [rows, heads, seq_len, config.head_dim()];
        TensorData::new(noise(shape.iter().product(), seed), shape)
    });
    let run = |device: &Device, dtype: FloatDType, attend: &dyn Fn([Tensor<4>; 3]) -> Tensor<4>| {
        let device = device.clone().autodiff();
        let load = |values: &TensorData| {
            let tensor = Tensor::<4>::from_data(values.clone(), &device);
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
        let tokens = Tensor::<2, Int>::zeros([rows, seq_len], device);
        Pass::of(config, dtype, &tokens, 0)
    };
    let pass = pass(&device.clone().autodiff());
    let got = run(device, dtype, &|[q, k, v]| {
        causal_attention(q, k, v, &pass, route, &mut Dropout::off())
    });
    let expected = run(&Device::flex(), FloatDType::F64, &|qkv| reference::attention(config, qkv));
    [0, 1, 2, 3].map(|i| difference(&got[i], &expected[i]))
}

/// Loss, gradients and what two optimizer steps change of a model of two blocks.
fn model(
    args: &Args,
    dtype: FloatDType,
    device: &Device,
    report: &mut impl FnMut(&str, f64) -> trainer::Result<()>,
) -> trainer::Result<()> {
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
    report("model: loss", difference(&[loss.into_scalar::<f32>().into()], &[expected_loss]))?;
    let got: Vec<Vec<f64>> = gradients.clone().into_flat().into_iter().map(host).collect();
    for ((got, expected), before) in got.iter().zip(&expected).zip(&before) {
        report(&format!("model: gradient of {}", before.name), difference(got, expected))?;
    }

    let mut optimizer = Optimizer::new(hyperparameters.clone(), &model, device);
    let model = STEPS.into_iter().fold(model, |model, (factor, lr)| {
        optimizer.step(model, gradients.clone().scaled(factor), lr)
    });
    for ((before, after), gradient) in before.iter().zip(model.to_named_tensors()).zip(&expected) {
        let change = after.values.iter().zip(&before.values);
        let change: Vec<f64> = change.map(|(a, b)| f64::from(*a) - f64::from(*b)).collect();
        let expected = decoupled_adamw(&hyperparameters, &STEPS, &before.values, gradient);
        report(&format!("model: steps of {}", before.name), difference(&change, &expected))?;
    }
    Ok(())
}
