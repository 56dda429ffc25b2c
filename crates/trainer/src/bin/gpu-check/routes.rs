//! Whether values and gradients on a device are right.
//!
//! Attention is compared with itself in float64 on the CPU, for each route and type; a whole model (embeddings, norms,
//! linear layers, the loss in chunks, an optimizer step) with the CPU in fp32, which tests hold to PyTorch in float64.

use burn::tensor::activation::softmax;
use burn::tensor::{Bool, Device, FloatDType, Int, Tensor, TensorData};
use serde_json::json;
use trainer::config::{ModelConfig, OptimizerConfig, OptimizerName};
use trainer::data::TokenBatch;
use trainer::device;
use trainer::loss::loss_and_gradients;
use trainer::model::{AttentionRoute, Dropout, Gpt, Pass, causal_attention};
use trainer::optim::Optimizer;
use trainer::recompute::Activations;

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

/// Rounding of fp32 over sums of a thousand, and of bf16, which has 8 bits.
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
        if dtype == FloatDType::F32 || !device::is_cpu(device) {
            model(args, dtype, device, &mut report);
        }
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
    let expected = run(&Device::flex(), FloatDType::F64, &|[q, k, v]| {
        let [_, _, seq, head_dim] = q.dims();
        let scores = q.matmul(k.swap_dims(2, 3)).div_scalar((head_dim as f64).sqrt()); // [B, H, T, T]
        let future = Tensor::<2, Bool>::tril_mask([seq, seq], 0, &scores.device());
        let future = future.reshape([1, 1, seq, seq]); // [1, 1, T, T]
        softmax(scores.mask_fill(future, f64::NEG_INFINITY), 3).matmul(v) // [B, H, T, D]
    });
    [0, 1, 2, 3].map(|i| difference(&got[i], &expected[i]))
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.cast(FloatDType::F64).into_data().iter::<f64>().collect()
}

/// Loss, gradients and the parameters after a step of a model of two blocks.
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
    let mut batch = TokenBatch::new(seq_len);
    for row in 0..2 {
        let tokens = noise(seq_len, row + 5).into_iter();
        let largest = (args.vocab_size - 1) as f32;
        batch.push(&tokens.map(|x| (x.abs() * largest) as i32).collect::<Vec<_>>(), 0);
    }
    let run = |device: &Device, dtype: FloatDType| {
        let model = Gpt::init(&config, 17, &device.clone().autodiff()).computing_in(dtype);
        let mut dropout = Dropout::off();
        let (loss, gradients) =
            loss_and_gradients(&model, &batch, 1.0, &mut dropout, Activations::Kept);
        let values = gradients.clone().into_flat().into_iter().flat_map(host).collect::<Vec<_>>();
        let mut optimizer = Optimizer::new(hyperparameters.clone(), &model, device);
        let before = parameters(&model);
        let after = parameters(&optimizer.step(model, gradients, 1e-3));
        let change: Vec<f64> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
        ([f64::from(loss.into_scalar::<f32>())], values, change)
    };
    let (got, expected) = (run(device, dtype), run(&Device::flex(), FloatDType::F32));
    report("model: loss", difference(&got.0, &expected.0));
    report("model: gradients", difference(&got.1, &expected.1));
    report("model: optimizer step", difference(&got.2, &expected.2));
}

fn parameters(model: &Gpt) -> Vec<f64> {
    let tensors = model.to_named_tensors().into_iter();
    tensors.flat_map(|tensor| tensor.values.into_iter().map(f64::from)).collect()
}
