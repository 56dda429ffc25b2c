//! The model itself: its modules and their forwards.

use burn::module::{Module, Param};
use burn::nn::{Embedding, LayerNorm, LayerNormConfig, Linear};
use burn::tensor::activation::gelu;
use burn::tensor::{Device, Int, Tensor};

use super::init::{Normals, zeros};
use super::{AttentionRoute, Dropout, causal_attention};
use crate::config::ModelConfig;

/// A decoder-only transformer.
#[derive(Module, Debug)]
pub struct Gpt {
    /// Token embedding `[V, C]`; also the output projection.
    pub(crate) wte: Embedding,
    /// Position embedding `[S, C]`.
    wpe: Embedding,
    h: Vec<Block>,
    ln_f: LayerNorm,
    #[module(skip)]
    config: ModelConfig,
}

impl Gpt {
    /// A model with fresh parameters from `seed`; trainable where `device` has autodiff.
    pub fn init(config: &ModelConfig, seed: u64, device: &Device) -> Self {
        let mut normals = Normals::new(seed);
        let std = config.init_std;
        // The order of these draws is what a seed means: see init.rs.
        Self {
            wte: Embedding {
                weight: normals.matrix([config.vocab_size, config.d_model], std, device),
            },
            wpe: Embedding {
                weight: normals.matrix([config.max_seq_len, config.d_model], std, device),
            },
            h: (0..config.n_layers).map(|_| Block::init(config, &mut normals, device)).collect(),
            ln_f: layer_norm(config, device),
            config: config.clone(),
        }
    }

    /// The configuration the model was made from.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The activations that the head reads: embeddings, blocks, final norm.
    ///
    /// # Shapes
    ///
    /// - tokens: `[batch, seq]`, seq at most `max_seq_len`, ids below `vocab_size`
    /// - output: `[batch, seq, d_model]`
    pub fn hidden(&self, tokens: Tensor<2, Int>, dropout: &mut Dropout) -> Tensor<3> {
        let [_, seq] = tokens.dims();
        let [max_seq_len, d_model] = self.wpe.weight.dims();
        let positions = self.wpe.weight.val(); // [S, C]
        let positions = if seq == max_seq_len { positions } else { positions.narrow(0, 0, seq) }; // [T, C]
        let positions = positions.reshape([1, seq, d_model]); // [1, T, C]
        let x = self.wte.forward(tokens) + positions; // [B, T, C]
        let x = shrink_gradient(x, self.config.embedding_fraction);
        let x = dropout.apply(x, self.config.emb_pdrop);
        let x = self.h.iter().fold(x, |x, block| block.forward(x, &self.config, dropout)); // [B, T, C]
        self.ln_f.forward(x)
    }

    /// The scores of every vocabulary entry: `hidden · wteᵀ`. Training goes through
    /// [`loss`](crate::loss) instead, which never holds the logits of a whole batch.
    ///
    /// # Shapes
    ///
    /// - hidden: `[batch, seq, d_model]`
    /// - output: `[batch, seq, vocab_size]`
    pub fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        let [batch, seq, d_model] = hidden.dims();
        let logits =
            hidden.reshape([batch * seq, d_model]).matmul(self.wte.weight.val().transpose()); // [B·T, V]
        logits.reshape([batch, seq, self.config.vocab_size]) // [B, T, V]
    }
}

/// The value of `x`, with `fraction` of its gradient: x·f + stopgrad(x)·(1 − f).
fn shrink_gradient(x: Tensor<3>, fraction: f64) -> Tensor<3> {
    if fraction >= 1.0 {
        return x;
    }
    x.clone().mul_scalar(fraction) + x.detach().mul_scalar(1.0 - fraction)
}

/// One transformer block: x += attention(norm(x)); x += mlp(norm(x)).
#[derive(Module, Debug)]
struct Block {
    ln_1: LayerNorm,
    attn: Attention,
    ln_2: LayerNorm,
    mlp: Mlp,
}

impl Block {
    fn init(config: &ModelConfig, normals: &mut Normals, device: &Device) -> Self {
        Self {
            ln_1: layer_norm(config, device),
            attn: Attention::init(config, normals, device),
            ln_2: layer_norm(config, device),
            mlp: Mlp::init(config, normals, device),
        }
    }

    /// # Shapes
    ///
    /// - x: `[batch, seq, d_model]`
    /// - output: `[batch, seq, d_model]`
    fn forward(&self, x: Tensor<3>, config: &ModelConfig, dropout: &mut Dropout) -> Tensor<3> {
        let attended = self.attn.forward(self.ln_1.forward(x.clone()), config, dropout);
        let x = x + dropout.apply(attended, config.resid_pdrop);
        let transformed = self.mlp.forward(self.ln_2.forward(x.clone()));
        x + dropout.apply(transformed, config.resid_pdrop)
    }
}

/// Causal multi-head self-attention with one fused query-key-value projection.
#[derive(Module, Debug)]
struct Attention {
    c_attn: Linear,
    c_proj: Linear,
}

impl Attention {
    fn init(config: &ModelConfig, normals: &mut Normals, device: &Device) -> Self {
        let d = config.d_model;
        Self {
            c_attn: linear([d, 3 * d], config.init_std, normals, device),
            c_proj: linear([d, d], residual_std(config), normals, device),
        }
    }

    /// # Shapes
    ///
    /// - x: `[batch, seq, d_model]`
    /// - output: `[batch, seq, d_model]`
    fn forward(&self, x: Tensor<3>, config: &ModelConfig, dropout: &mut Dropout) -> Tensor<3> {
        let [batch, seq, d_model] = x.dims();
        let head_dim = d_model / config.n_heads;
        let qkv = self.c_attn.forward(x); // [B, T, 3·C]
        let [q, k, v] = [0, 1, 2].map(|part| {
            let part = qkv.clone().narrow(2, part * d_model, d_model); // [B, T, C]
            part.reshape([batch, seq, config.n_heads, head_dim]).swap_dims(1, 2) // [B, H, T, D]
        });
        let route = AttentionRoute::of(config);
        let attended = causal_attention(q, k, v, route, config.attn_pdrop, dropout); // [B, H, T, D]
        let attended = attended.swap_dims(1, 2).reshape([batch, seq, d_model]); // [B, T, C]
        self.c_proj.forward(attended)
    }
}

/// Two linear layers around the exact (erf) GELU.
#[derive(Module, Debug)]
struct Mlp {
    c_fc: Linear,
    c_proj: Linear,
}

impl Mlp {
    fn init(config: &ModelConfig, normals: &mut Normals, device: &Device) -> Self {
        let (d, hidden) = (config.d_model, config.mlp_ratio * config.d_model);
        Self {
            c_fc: linear([d, hidden], config.init_std, normals, device),
            c_proj: linear([hidden, d], residual_std(config), normals, device),
        }
    }

    /// # Shapes
    ///
    /// - x: `[batch, seq, d_model]`
    /// - output: `[batch, seq, d_model]`
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = gelu(self.c_fc.forward(x)); // [B, T, mlp_ratio·C]
        self.c_proj.forward(x) // [B, T, C]
    }
}

/// Standard deviation of the weights whose output joins the residual stream: 2·L of them add up there.
fn residual_std(config: &ModelConfig) -> f64 {
    config.init_std / (2.0 * config.n_layers as f64).sqrt()
}

/// `[in, out]` weights from N(0, std²), zero bias.
fn linear([d_in, d_out]: [usize; 2], std: f64, normals: &mut Normals, device: &Device) -> Linear {
    let weight: Param<Tensor<2>> = normals.matrix([d_in, d_out], std, device);
    Linear { weight, bias: Some(zeros(d_out, device)) }
}

fn layer_norm(config: &ModelConfig, device: &Device) -> LayerNorm {
    LayerNormConfig::new(config.d_model).with_epsilon(1e-5).init(device)
}
