//! A GPT-2 and its optimizer in float64 on the CPU, from the formulas: what `routes.rs` compares a device with.
//!
//! Nothing here is the trainer's: the parameters are read from a model, and every operation is one of Burn's (or plain
//! arithmetic) with Burn's derivative of it. `tests/gpu_check.rs` holds it to what PyTorch computes in float64.

use std::collections::BTreeMap;
use std::f64::consts::FRAC_1_SQRT_2;

use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Bool, Device, FloatDType, Int, Tensor, TensorData};
use trainer::config::{ModelConfig, OptimizerConfig};
use trainer::data::{IGNORED, TokenBatch};
use trainer::model::{Gpt, NamedTensor};

/// The parameters of a GPT-2.
pub(super) struct Reference {
    config: ModelConfig,
    /// In the model's order.
    parameters: Vec<NamedTensor>,
}

impl Reference {
    /// With the parameters of `model`, which is a `mosaic_gpt` without variants.
    pub(super) fn of(model: &Gpt) -> Self {
        Self { config: model.config().clone(), parameters: model.to_named_tensors() }
    }

    /// The mean loss of the targets in nats, and its gradient at each parameter, in the model's order.
    pub(super) fn loss_and_gradients(&self, batch: &TokenBatch) -> (f64, Vec<Vec<f64>>) {
        let device = Device::flex().autodiff();
        let parameters = self.parameters.iter().map(|tensor| {
            let columns = tensor.shape.last().copied().unwrap_or(1);
            let shape = [tensor.values.len() / columns, columns]; // a vector is one row
            let values = TensorData::new(tensor.values.clone(), shape);
            let values = Tensor::<2>::from_data(values, &device).cast(FloatDType::F64);
            (&*tensor.name, values.require_grad())
        });
        let pass = Pass { config: &self.config, parameters: parameters.collect(), batch };
        let loss = pass.loss(&device);
        let mut graph = loss.backward();
        let mut gradient = |tensor: &NamedTensor| {
            pass.parameters[&*tensor.name].grad_remove(&mut graph).map(host).unwrap_or_default()
        };
        let gradients = self.parameters.iter().map(&mut gradient).collect();
        (loss.into_scalar::<f64>(), gradients)
    }
}

/// One forward. In shapes, `N` is all tokens of the batch, `B` its rows, `T` the tokens of a row, `C` the width.
struct Pass<'a> {
    config: &'a ModelConfig,
    parameters: BTreeMap<&'a str, Tensor<2>>,
    batch: &'a TokenBatch,
}

impl Pass<'_> {
    /// −log softmax(logits)\[label\], the mean over the labels, `[1]`.
    fn loss(&self, device: &Device) -> Tensor<1> {
        let ids = |values: Vec<i32>| {
            let shape = [values.len()];
            Tensor::<1, Int>::from_data(TensorData::new(values, shape), device) // [N]
        };
        let positions = (0..self.batch.rows).flat_map(|_| 0..self.batch.seq_len as i32).collect();
        let wte = self.parameter("wte.weight"); // [V, C]
        let mut x = wte.clone().select(0, ids(self.batch.tokens.clone()))
            + self.parameter("wpe.weight").select(0, ids(positions)); // [N, C]
        for block in 0..self.config.n_layers {
            x = self.block(&format!("h.{block}"), x);
        }
        let logits = self.norm("ln_f", x).matmul(wte.transpose()); // [N, V]
        let labels = (0i32..).zip(self.batch.labels.iter().copied());
        let (rows, labels) = labels.filter(|(_, label)| *label != IGNORED).unzip();
        let of_label = log_softmax(logits, 1).select(0, ids(rows)); // [labels, V]
        of_label.gather(1, ids(labels).unsqueeze_dim(1)).mean().neg()
    }

    /// x + attention(norm(x)), then that + mlp(norm(that)), `[N, C]`.
    fn block(&self, name: &str, x: Tensor<2>) -> Tensor<2> {
        let [tokens, width] = x.dims();
        let (heads, rows) = (self.config.n_heads, self.batch.rows);
        let normed = self.norm(&format!("{name}.ln_1"), x.clone());
        let qkv = self.linear(&format!("{name}.attn.c_attn"), normed); // [N, 3·C]
        let [q, k, v] = [0, 1, 2].map(|part| {
            let part = qkv.clone().narrow(1, part * width, width); // [N, C]
            part.reshape([rows, tokens / rows, heads, width / heads]).swap_dims(1, 2) // [B, H, T, D]
        });
        let attended = attention(self.config, [q, k, v]).swap_dims(1, 2).reshape([tokens, width]); // [N, C]
        let x = x + self.linear(&format!("{name}.attn.c_proj"), attended);
        let normed = self.norm(&format!("{name}.ln_2"), x.clone());
        let hidden = gelu(self.linear(&format!("{name}.mlp.c_fc"), normed)); // [N, 4·C]
        x + self.linear(&format!("{name}.mlp.c_proj"), hidden)
    }

    /// x·W + b
    fn linear(&self, name: &str, x: Tensor<2>) -> Tensor<2> {
        let weight = self.parameter(&format!("{name}.weight"));
        x.matmul(weight) + self.parameter(&format!("{name}.bias"))
    }

    /// (x − mean) / √(variance + eps) · weight + bias, of each row of `[N, C]`.
    fn norm(&self, name: &str, x: Tensor<2>) -> Tensor<2> {
        let x = x.clone() - x.mean_dim(1);
        let variance = x.clone().square().mean_dim(1); // [N, 1]
        let normal = x / (variance + self.config.norm_eps).sqrt();
        let weight = self.parameter(&format!("{name}.weight"));
        normal * weight + self.parameter(&format!("{name}.bias"))
    }

    fn parameter(&self, name: &str) -> Tensor<2> {
        self.parameters[name].clone()
    }
}

/// Causal attention: softmax(scores) · v over the keys at or before each query, where scores = q·kᵀ · scale, by default
/// q·kᵀ / √D, or with a cap, cap · tanh(scores / cap).
///
/// `q` is `[B, H, T, D]` and so is the output; `k` and `v` are `[B, K, T, D]`: head `h` of the queries has head
/// `⌊h · K / H⌋` of them.
pub(super) fn attention(config: &ModelConfig, [q, k, v]: [Tensor<4>; 3]) -> Tensor<4> {
    let [_, heads, seq, head_dim] = q.dims();
    let [k, v] = [k, v].map(|x| {
        let kv_heads = x.dims()[1];
        let of_query = |head: usize| x.clone().narrow(1, head * kv_heads / heads, 1); // [B, 1, T, D]
        Tensor::cat((0..heads).map(of_query).collect(), 1) // [B, H, T, D]
    });
    let config = &config.attn_config;
    // Products only: Burn's derivative of a division by a scalar is rounded to f32.
    let scale = config.softmax_scale.unwrap_or(1.0 / (head_dim as f64).sqrt());
    let scores = q.matmul(k.swap_dims(2, 3)).mul_scalar(scale); // [B, H, T, T]
    let scores = match config.attn_logit_softcapping {
        Some(cap) => scores.mul_scalar(1.0 / cap).tanh().mul_scalar(cap),
        None => scores,
    };
    let future = Tensor::<2, Bool>::tril_mask([seq, seq], 0, &scores.device());
    let future = future.reshape([1, 1, seq, seq]); // [1, 1, T, T]
    softmax(scores.mask_fill(future, f64::NEG_INFINITY), 3).matmul(v)
}

/// x/2 · (1 + erf(x / √2))
fn gelu(x: Tensor<2>) -> Tensor<2> {
    let erf = x.clone().mul_scalar(FRAC_1_SQRT_2).erf();
    x.mul_scalar(0.5) * (erf + 1.0)
}

/// What DecoupledAdamW changes of a parameter in some steps: each has a multiple of the gradient, and a learning rate.
pub(super) fn decoupled_adamw(
    config: &OptimizerConfig,
    steps: &[(f64, f64)],
    parameter: &[f32],
    gradient: &[f64],
) -> Vec<f64> {
    let ([beta1, beta2], eps) = (config.betas, config.eps.unwrap_or(0.0));
    let change = |(&before, &gradient): (&f32, &f64)| {
        let before = f64::from(before);
        let (mut p, mut m, mut v) = (before, 0.0, 0.0);
        for (t, &(factor, lr)) in (1..).zip(steps) {
            let g = factor * gradient;
            p *= 1.0 - lr / config.lr * config.weight_decay;
            m = beta1 * m + (1.0 - beta1) * g;
            v = beta2 * v + (1.0 - beta2) * g * g;
            let (m, v) = (m / (1.0 - beta1.powi(t)), v / (1.0 - beta2.powi(t)));
            p -= lr * m / (v.sqrt() + eps);
        }
        p - before
    };
    parameter.iter().zip(gradient).map(change).collect()
}

/// The values of a tensor of any type.
pub(super) fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.cast(FloatDType::F64).into_data().iter::<f64>().collect()
}
