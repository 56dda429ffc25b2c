//! One transformer block: attention and feed-forward, each behind a norm and beside the residual stream.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::activation::{gelu, gelu_approximate, relu, silu};
use burn::tensor::module::linear;
use burn::tensor::{Device, FloatDType, Tensor};

use super::attention::computes_on_cpu;
use super::init::Initializer;
use super::norm::Norm;
use super::{AttentionRoute, Dropout, Pass, causal_attention};
use crate::config::{Activation, FfnType, GeluKind, ModelConfig};
use crate::cpu;

/// x += attention(norm(x)); x += feed_forward(norm(x)).
#[derive(Module, Debug)]
pub(crate) struct Block {
    ln_1: Norm,
    attn: Attention,
    ln_2: Norm,
    mlp: FeedForward,
}

impl Block {
    pub(super) fn init(config: &ModelConfig, init: &mut Initializer<'_>, device: &Device) -> Self {
        Self {
            ln_1: Norm::init(config, config.d_model, device),
            attn: Attention::init(config, init, device),
            ln_2: Norm::init(config, config.d_model, device),
            mlp: FeedForward::init(config, init),
        }
    }

    /// # Shapes
    ///
    /// - x: `[batch, seq, d_model]`
    /// - output: `[batch, seq, d_model]`
    pub(crate) fn forward(
        &self,
        x: Tensor<3>,
        pass: &Pass<'_>,
        cache: Option<&mut KeysAndValues>,
        dropout: &mut Dropout,
    ) -> Tensor<3> {
        let pdrop = pass.config.resid_pdrop;
        let attended = self.attn.forward(&self.ln_1, x.clone(), pass, cache, dropout);
        let x = x + dropout.apply(attended.cast(FloatDType::F32), pdrop);
        let transformed = self.mlp.forward(&self.ln_2, x.clone(), pass);
        x + dropout.apply(transformed.cast(FloatDType::F32), pdrop)
    }
}

/// Causal self-attention with one fused query-key-value projection. With `K` = `kv_n_heads · D`, that is
/// `[C, C + 2·K]`: queries, then keys, then values.
#[derive(Module, Debug)]
struct Attention {
    c_attn: Linear,
    /// Over all heads (`qk_ln`) or each head (`qk_gn`).
    q_ln: Option<Norm>,
    k_ln: Option<Norm>,
    c_proj: Linear,
}

impl Attention {
    fn init(config: &ModelConfig, init: &mut Initializer<'_>, device: &Device) -> Self {
        let (d, kv) = (config.d_model, config.kv_dim());
        let norm_widths = match (config.attn_config.qk_ln, config.attn_config.qk_gn) {
            (true, _) => Some((d, kv)),
            (false, true) => Some((config.head_dim(), config.head_dim())),
            (false, false) => None,
        };
        Self {
            c_attn: init.linear(d, &[d, kv, kv]),
            q_ln: norm_widths.map(|(width, _)| Norm::init(config, width, device)),
            k_ln: norm_widths.map(|(_, width)| Norm::init(config, width, device)),
            c_proj: init.residual_linear(d, d),
        }
    }

    /// # Shapes
    ///
    /// - x: `[batch, seq, d_model]`, f32, before the `norm`
    /// - output: `[batch, seq, d_model]`, in the type of the pass
    fn forward(
        &self,
        norm: &Norm,
        x: Tensor<3>,
        pass: &Pass<'_>,
        cache: Option<&mut KeysAndValues>,
        dropout: &mut Dropout,
    ) -> Tensor<3> {
        let config = pass.config;
        let ([batch, seq, d_model], kv_dim) = (x.dims(), config.kv_dim());
        let qkv = project_normed(norm, &self.c_attn, x, pass); // [B, T, C + 2·K]
        let qkv = match config.attn_config.clip_qkv {
            Some(limit) => qkv.clamp(-limit, limit),
            None => qkv,
        };
        let are_used_as_they_are =
            self.q_ln.is_none() && !config.attn_config.rope && cache.is_none();
        if are_used_as_they_are && computes_on_cpu(&qkv, pass, dropout) {
            let attended = cpu::packed_attention(cpu::Attention::of(config), qkv); // [B, T, C]
            return project(&self.c_proj, None, attended, pass); // [B, T, C]
        }
        let q = qkv.clone().narrow(2, 0, d_model); // [B, T, C]
        let k = qkv.clone().narrow(2, d_model, kv_dim); // [B, T, K]
        let v = qkv.narrow(2, d_model + kv_dim, kv_dim); // [B, T, K]

        let q = pass.rotate(in_heads(q, self.q_ln.as_ref(), config)); // [B, H, T, D]
        let k = pass.rotate(in_heads(k, self.k_ln.as_ref(), config)); // [B, K/D, T, D]
        let v = in_heads(v, None, config); // [B, K/D, T, D]
        let [k, v] = match cache {
            Some(cache) => cache.extend([k, v]), // [B, K/D, S, D]
            None => [k, v],
        };
        let attended = causal_attention(q, k, v, pass, AttentionRoute::of(config), dropout); // [B, H, T, D]
        let attended = attended.swap_dims(1, 2).reshape([batch, seq, d_model]); // [B, T, C]
        project(&self.c_proj, None, attended, pass) // [B, T, C]
    }
}

/// The keys and values of one block for the tokens so far, `[B, K/D, S, D]` each.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeysAndValues(Option<[Tensor<4>; 2]>);

impl KeysAndValues {
    /// Those so far and these.
    fn extend(&mut self, new: [Tensor<4>; 2]) -> [Tensor<4>; 2] {
        let all = match self.0.take() {
            None => new,
            Some([k, v]) => {
                let [new_k, new_v] = new;
                [Tensor::cat(vec![k, new_k], 2), Tensor::cat(vec![v, new_v], 2)]
            }
        };
        self.0 = Some(all.clone());
        all
    }
}

/// Split into heads, normalised before (`qk_ln`) or after (`qk_gn`).
///
/// # Shapes
///
/// - x: `[batch, seq, heads · head_dim]`
/// - output: `[batch, heads, seq, head_dim]`
fn in_heads(x: Tensor<3>, norm: Option<&Norm>, config: &ModelConfig) -> Tensor<4> {
    let ([batch, seq, width], head_dim) = (x.dims(), config.head_dim());
    let per_head = config.attn_config.qk_gn;
    let x = match norm.filter(|_| !per_head) {
        Some(norm) => norm.forward(x),
        None => x,
    };
    let x = x.reshape([batch, seq, width / head_dim, head_dim]); // [B, T, heads, D]
    let x = match norm.filter(|_| per_head) {
        Some(norm) => norm.forward(x),
        None => x,
    };
    x.swap_dims(1, 2) // [B, heads, T, D]
}

/// A linear layer of what `activation` makes of x, computed in the type of the pass from f32 parameters.
///
/// # Shapes
///
/// - x: `[batch, seq, d_in]`
/// - output: `[batch, seq, d_out]`
fn project(
    layer: &Linear,
    activation: Option<Activation>,
    x: Tensor<3>,
    pass: &Pass<'_>,
) -> Tensor<3> {
    let [batch, seq, d_in] = x.dims();
    let bias = layer.bias.as_ref().map(|bias| bias.val().cast(pass.dtype));
    let weight = layer.weight.val().cast(pass.dtype); // [d_in, d_out]
    let [_, d_out] = weight.dims();
    // As one matrix: the rows of a batch would each make a gradient of the weight, and these be summed.
    let x = x.cast(pass.dtype).reshape([batch * seq, d_in]); // [B·T, d_in]
    let output = if cpu::computes(&x) {
        cpu::linear(activation, x, weight, bias) // [B·T, d_out]
    } else {
        let x = match activation {
            Some(function) => activate(function, x),
            None => x,
        };
        linear(x, weight, bias) // [B·T, d_out]
    };
    output.reshape([batch, seq, d_out])
}

/// A linear layer of what `norm` makes of x, which is kept for nobody else.
///
/// # Shapes
///
/// - x: `[batch, seq, d_in]`
/// - output: `[batch, seq, d_out]`
fn project_normed(norm: &Norm, layer: &Linear, x: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
    let [batch, seq, d_in] = x.dims();
    if pass.dtype != FloatDType::F32 || !cpu::computes(&x) {
        return project(layer, None, norm.forward(x), pass);
    }
    let output = norm.with_linear(x.reshape([batch * seq, d_in]), layer); // [B·T, d_out]
    let [_, d_out] = output.dims();
    output.reshape([batch, seq, d_out])
}

fn activate<const D: usize>(function: Activation, x: Tensor<D>) -> Tensor<D> {
    match function {
        Activation::Gelu { approximate: GeluKind::None } => gelu(x),
        Activation::Gelu { approximate: GeluKind::Tanh } => gelu_approximate(x),
        Activation::Silu => silu(x),
        Activation::Relu => relu(x),
    }
}

/// Two linear layers around a function, or three with a gate. `F` is the width between them.
#[derive(Module, Debug)]
struct FeedForward {
    c_fc: Linear,
    c_gate: Option<Linear>,
    c_proj: Linear,
}

impl FeedForward {
    fn init(config: &ModelConfig, init: &mut Initializer<'_>) -> Self {
        let (d, hidden) = (config.d_model, config.ffn_dim());
        Self {
            c_fc: init.linear(d, &[hidden]),
            c_gate: match config.ffn_config.ffn_type {
                FfnType::Mlp => None,
                FfnType::Glu => Some(init.linear(d, &[hidden])),
            },
            c_proj: init.residual_linear(hidden, d),
        }
    }

    /// # Shapes
    ///
    /// - x: `[batch, seq, d_model]`, f32, before the `norm`
    /// - output: `[batch, seq, d_model]`, in the type of the pass
    fn forward(&self, norm: &Norm, x: Tensor<3>, pass: &Pass<'_>) -> Tensor<3> {
        let function = pass.config.ffn_config.ffn_act_fn;
        match &self.c_gate {
            Some(gate) => {
                let x = norm.forward(x);
                let up = project(&self.c_fc, None, x.clone(), pass); // [B, T, F]
                let hidden = activate(function, project(gate, None, x, pass)) * up; // [B, T, F]
                project(&self.c_proj, None, hidden, pass) // [B, T, C]
            }
            None => {
                let up = project_normed(norm, &self.c_fc, x, pass); // [B, T, F]
                project(&self.c_proj, Some(function), up, pass) // [B, T, C]
            }
        }
    }
}
