//! The transformer's configuration: its shape, its variants, and what follows from them alone.
//!
//! Two names are known. `mosaic_gpt` is a GPT-2: learned positions, LayerNorm, exact GELU, a tied head. `mpt_causal_lm`
//! starts from the same and takes every variant below. The keys are those of the reference's recipes.

use std::fmt;

use serde::Serialize;

/// A decoder-only transformer with pre-norm blocks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelConfig {
    /// `mosaic_gpt` or `mpt_causal_lm`: decides defaults, and how parameters are called.
    pub name: ModelName,
    /// The width of the residual stream.
    pub d_model: usize,
    /// Attention heads of the queries; each is `d_model / n_heads` wide.
    pub n_heads: usize,
    /// Transformer blocks.
    pub n_layers: usize,
    /// The width of the feed-forward's hidden layer as a multiple of `d_model`, unless `ffn_config` says it.
    pub mlp_ratio: usize,
    /// The longest sequence; the rows of the position table where there is one.
    pub max_seq_len: usize,
    /// Rows of the token embedding: the highest token id plus one, or more.
    pub vocab_size: usize,
    /// The standard deviation of initial weights under `baseline_`.
    pub init_std: f64,
    /// Dropout probability on attention weights.
    pub attn_pdrop: f64,
    /// Dropout probability on both residual branches.
    pub resid_pdrop: f64,
    /// Dropout probability on the summed embeddings.
    pub emb_pdrop: f64,
    /// `flash` or `torch`: which attention kernel; the result is the same.
    pub attn_impl: String,
    /// The fraction of the gradient that reaches the embeddings, in (0, 1].
    pub embedding_fraction: f64,
    /// Adds a learned vector for each position.
    pub learned_pos_emb: bool,
    /// Leaves out every bias: of linear layers and of norms.
    pub no_bias: bool,
    /// Uses the token embedding as output projection; else that is a matrix of its own.
    pub tie_word_embeddings: bool,
    /// What normalises before attention, feed-forward and head.
    pub norm_type: NormType,
    /// Added to the variance (to the mean square under `rmsnorm`).
    pub norm_eps: f64,
    /// Multiplies the logits.
    pub logit_scale: Option<f64>,
    /// Squashes logits into (-c, c): `c tanh(logit / c)`.
    pub final_logit_softcapping: Option<f64>,
    /// Attention.
    pub attn_config: AttentionConfig,
    /// The feed-forward.
    pub ffn_config: FfnConfig,
    /// Initial weights.
    pub init_config: InitConfig,
}

/// `model.name`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelName {
    /// GPT-2.
    MosaicGpt,
    /// MPT: every variant.
    MptCausalLm,
}

/// Attention's variants.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AttentionConfig {
    /// Heads of the keys and values: `n_heads` (multi-head), 1 (multi-query) or a divisor between (grouped-query).
    pub kv_n_heads: usize,
    /// Normalises all queries, and all keys, of a token before they are split into heads.
    pub qk_ln: bool,
    /// Normalises queries and keys in each head.
    pub qk_gn: bool,
    /// Clamps queries, keys and values to [-c, c].
    pub clip_qkv: Option<f64>,
    /// Multiplies the scores; `1 / sqrt(head width)` where it is not given.
    pub softmax_scale: Option<f64>,
    /// Squashes scores into (-c, c): `c tanh(score / c)`.
    pub attn_logit_softcapping: Option<f64>,
    /// A token attends to itself and this many before it.
    #[serde(serialize_with = "minus_one_for_none")]
    pub sliding_window_size: Option<usize>,
    /// Tokens attend within their own document only.
    pub attn_uses_sequence_id: bool,
    /// Lowers scores in proportion to the distance, in each head with another slope.
    pub alibi: bool,
    /// The slopes are powers of 2 down to 2^-this.
    pub alibi_bias_max: f64,
    /// Rotates queries and keys by their position.
    pub rope: bool,
    /// The base of the rotations' wavelengths.
    pub rope_theta: f64,
    /// How rotations are stretched for long sequences.
    pub rope_hf_config: RopeScaling,
    /// What ends or begins a document: `eos_token_id` and `bos_token_id` of the training data.
    #[serde(skip)]
    pub separator: Option<Separator>,
}

/// The token between two joined documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Separator {
    /// The last token of each document.
    Eos(i32),
    /// The first token of each document.
    Bos(i32),
}

/// `rope_hf_config`: how rotary positions reach beyond the lengths that a model was trained on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RopeScaling {
    /// Not at all.
    NoScaling,
    /// All positions are divided by `factor`.
    Linear {
        /// How much longer sequences become.
        factor: f64,
    },
    /// The base grows with the sequence once that is longer than `max_seq_len`.
    Dynamic {
        /// How fast.
        factor: f64,
    },
    /// Long wavelengths are stretched by `factor`, short ones not, those between in part.
    Llama3 {
        /// The stretch of long wavelengths.
        factor: f64,
        /// Wavelengths above the original length divided by this are long.
        low_freq_factor: f64,
        /// Wavelengths below the original length divided by this are short.
        high_freq_factor: f64,
        /// The length that the model was trained on first.
        original_max_position_embeddings: usize,
    },
}

/// The feed-forward's variants.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FfnConfig {
    /// With a gate or without.
    pub ffn_type: FfnType,
    /// The width of the hidden layer; `mlp_ratio * d_model` where it is not given.
    pub ffn_hidden_size: Option<usize>,
    /// The function between the layers.
    pub ffn_act_fn: Activation,
}

/// `ffn_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum FfnType {
    /// `down(act(up(x)))`.
    #[serde(rename = "mptmlp")]
    Mlp,
    /// A gated linear unit: `down(act(gate(x)) * up(x))`.
    #[serde(rename = "mptglu")]
    Glu,
}

/// `ffn_act_fn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum Activation {
    /// `x Φ(x)`, by the error function or by its approximation with a tanh.
    Gelu {
        /// Which of the two.
        approximate: GeluKind,
    },
    /// `x sigmoid(x)`.
    Silu,
    /// `max(x, 0)`.
    Relu,
}

/// `ffn_act_fn.approximate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GeluKind {
    /// The error function.
    None,
    /// The approximation by a tanh.
    Tanh,
}

/// `norm_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NormType {
    /// Mean 0, variance 1, then weight and bias.
    LayerNorm,
    /// Mean square 1, then weight.
    RmsNorm,
}

/// `init_config`: see [`crate::model`] for the formulas.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InitConfig {
    /// The scheme.
    pub name: InitScheme,
    /// What the weights that write to the residual stream are divided by.
    pub init_div_is_residual: ResidualDivisor,
    /// The standard deviation of embeddings, which else follow the scheme.
    pub emb_init_std: Option<f64>,
    /// The interval that embeddings are drawn from uniformly, which else follow the scheme.
    pub emb_init_uniform_lim: Option<[f64; 2]>,
    /// The gain of the Xavier schemes; the negative slope of the Kaiming schemes with `leaky_relu`.
    pub init_gain: f64,
    /// Whether the Kaiming schemes count a layer's inputs or outputs.
    pub fan_mode: FanMode,
    /// What the gain of the Kaiming schemes is for.
    pub init_nonlinearity: Nonlinearity,
}

/// `init_config.name`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum InitScheme {
    /// N(0, `init_std`²).
    #[serde(rename = "baseline_")]
    Baseline,
    /// N(0, 2 / (5 `d_model`)).
    #[serde(rename = "small_init_")]
    Small,
    /// As `small_init_`, and what writes to the residual stream divided by `n_layers / sqrt(10)`.
    #[serde(rename = "neox_init_")]
    Neox,
    /// N(0, gain² / fan).
    #[serde(rename = "kaiming_normal_")]
    KaimingNormal,
    /// U(±gain sqrt(3 / fan)).
    #[serde(rename = "kaiming_uniform_")]
    KaimingUniform,
    /// N(0, 2 gain² / (fan_in + fan_out)).
    #[serde(rename = "xavier_normal_")]
    XavierNormal,
    /// U(±gain sqrt(6 / (fan_in + fan_out))).
    #[serde(rename = "xavier_uniform_")]
    XavierUniform,
    /// PyTorch's own: linear layers and their biases U(±1 / sqrt(fan_in)), embeddings N(0, 1).
    #[serde(rename = "default_")]
    Default,
}

/// `init_config.init_div_is_residual`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ResidualDivisor {
    /// `true`: `sqrt(2 n_layers)`, since so many branches add up.
    ByDepth,
    /// `false` is 1.
    Number(f64),
}

impl Serialize for ResidualDivisor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::ByDepth => serializer.serialize_bool(true),
            Self::Number(number) => serializer.serialize_f64(*number),
        }
    }
}

/// `init_config.fan_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FanMode {
    /// Inputs of the layer.
    FanIn,
    /// Its outputs.
    FanOut,
}

/// `init_config.init_nonlinearity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Nonlinearity {
    /// Gain `sqrt(2)`.
    Relu,
    /// Gain `sqrt(2 / (1 + slope²))`.
    LeakyRelu,
    /// Gain 1.
    Linear,
    /// Gain 5/3.
    Tanh,
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MosaicGpt => "mosaic_gpt",
            Self::MptCausalLm => "mpt_causal_lm",
        })
    }
}

impl ModelConfig {
    /// A GPT-2 of this shape, initialised with N(0, 0.02²): the base that variants are made from.
    pub fn mosaic_gpt(
        d_model: usize,
        n_heads: usize,
        n_layers: usize,
        max_seq_len: usize,
        vocab_size: usize,
    ) -> Self {
        Self {
            name: ModelName::MosaicGpt,
            d_model,
            n_heads,
            n_layers,
            mlp_ratio: 4,
            max_seq_len,
            vocab_size,
            init_std: 0.02,
            attn_pdrop: 0.0,
            resid_pdrop: 0.0,
            emb_pdrop: 0.0,
            attn_impl: "flash".into(),
            embedding_fraction: 1.0,
            learned_pos_emb: true,
            no_bias: false,
            tie_word_embeddings: true,
            norm_type: NormType::LayerNorm,
            norm_eps: 1e-5,
            logit_scale: None,
            final_logit_softcapping: None,
            attn_config: AttentionConfig::multi_head(n_heads),
            ffn_config: FfnConfig::gelu(),
            init_config: InitConfig::of(InitScheme::Baseline),
        }
    }

    /// Whether the parameters are those of a GPT-2, whatever is computed with them.
    pub fn has_gpt2_parameters(&self) -> bool {
        let attention = &self.attn_config;
        self.name == ModelName::MosaicGpt
            && self.learned_pos_emb
            && !self.no_bias
            && self.tie_word_embeddings
            && self.norm_type == NormType::LayerNorm
            && attention.kv_n_heads == self.n_heads
            && !attention.qk_ln
            && !attention.qk_gn
            && self.ffn_config.ffn_type == FfnType::Mlp
    }

    /// Whether the parameters are those of a Llama, whatever is computed with them.
    pub fn has_llama_parameters(&self) -> bool {
        let attention = &self.attn_config;
        attention.rope
            && self.norm_type == NormType::RmsNorm
            && self.ffn_config.ffn_type == FfnType::Glu
            && !attention.qk_ln
            && !attention.qk_gn
    }

    /// The width of one head.
    pub fn head_dim(&self) -> usize {
        self.d_model / self.n_heads
    }

    /// The width of all keys of a token, and of all values.
    pub fn kv_dim(&self) -> usize {
        self.attn_config.kv_n_heads * self.head_dim()
    }

    /// The width of the feed-forward's hidden layer.
    pub fn ffn_dim(&self) -> usize {
        self.ffn_config.ffn_hidden_size.unwrap_or(self.mlp_ratio * self.d_model)
    }

    /// The number of parameters, a tied embedding counted once: `L (12 d² + 13 d) + 2 d + V d + S d` for a GPT-2 with an
    /// `mlp_ratio` of 4.
    pub fn n_params(&self) -> u64 {
        let [d, kv, ffn, head_dim, vocab, positions, layers] = [
            self.d_model,
            self.kv_dim(),
            self.ffn_dim(),
            self.head_dim(),
            self.vocab_size,
            self.max_seq_len,
            self.n_layers,
        ]
        .map(|n| n as u64);
        let bias = u64::from(!self.no_bias);
        let linear = |d_in: u64, d_out: u64| d_in * d_out + bias * d_out;
        let norm_bias = bias * u64::from(self.norm_type == NormType::LayerNorm);
        let norm = |width: u64| width + norm_bias * width;

        let qk_norms = u64::from(self.attn_config.qk_ln) * (norm(d) + norm(kv))
            + u64::from(self.attn_config.qk_gn) * 2 * norm(head_dim);
        let attention = linear(d, d + 2 * kv) + qk_norms + linear(d, d);
        let into_ffn = if self.ffn_config.ffn_type == FfnType::Glu { 2 } else { 1 };
        let feed_forward = into_ffn * linear(d, ffn) + linear(ffn, d);
        let block = 2 * norm(d) + attention + feed_forward;

        let matrices = if self.tie_word_embeddings { 1 } else { 2 };
        let positions = u64::from(self.learned_pos_emb) * positions;
        matrices * vocab * d + positions * d + layers * block + norm(d)
    }

    /// Floating-point operations of one training step (forward and backward) on one sequence of
    /// `seq_len` tokens: `3 (2 N S + 4 L d S²)`, the attention matrix counted in full.
    pub fn train_flops_per_sequence(&self, seq_len: usize) -> f64 {
        let [params, layers, d, s] =
            [self.n_params() as f64, self.n_layers as f64, self.d_model as f64, seq_len as f64];
        3.0 * (2.0 * params * s + layers * 4.0 * d * s * s)
    }
}

impl AttentionConfig {
    /// Plain attention with as many heads of keys and values as of queries.
    pub fn multi_head(n_heads: usize) -> Self {
        Self {
            kv_n_heads: n_heads,
            qk_ln: false,
            qk_gn: false,
            clip_qkv: None,
            softmax_scale: None,
            attn_logit_softcapping: None,
            sliding_window_size: None,
            attn_uses_sequence_id: false,
            alibi: false,
            alibi_bias_max: 8.0,
            rope: false,
            rope_theta: 10_000.0,
            rope_hf_config: RopeScaling::NoScaling,
            separator: None,
        }
    }
}

impl FfnConfig {
    /// Two layers around the exact GELU.
    pub fn gelu() -> Self {
        let ffn_act_fn = Activation::Gelu { approximate: GeluKind::None };
        Self { ffn_type: FfnType::Mlp, ffn_hidden_size: None, ffn_act_fn }
    }
}

impl InitConfig {
    /// `name` with the reference's other settings.
    pub fn of(name: InitScheme) -> Self {
        Self {
            name,
            init_div_is_residual: ResidualDivisor::ByDepth,
            emb_init_std: None,
            emb_init_uniform_lim: None,
            init_gain: 0.0,
            fan_mode: FanMode::FanIn,
            init_nonlinearity: Nonlinearity::Relu,
        }
    }
}

fn minus_one_for_none<S: serde::Serializer>(
    value: &Option<usize>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        None => serializer.serialize_i64(-1),
        Some(n) => serializer.serialize_u64(*n as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(d_model: usize, n_heads: usize, n_layers: usize, vocab_size: usize) -> ModelConfig {
        ModelConfig::mosaic_gpt(d_model, n_heads, n_layers, 2048, vocab_size)
    }

    #[test]
    fn parameter_counts_are_the_published_ones() {
        for (d, heads, layers, params) in [
            (768, 12, 12, 125_226_240),
            (1024, 16, 24, 355_871_744),
            (1536, 12, 24, 760_300_032),
            (2048, 16, 24, 1_315_723_264),
            (2560, 20, 32, 2_651_553_280),
            (4096, 32, 32, 6_658_404_352),
            (8192, 64, 80, 64_861_528_064),
        ] {
            assert_eq!(model(d, heads, layers, 50_257).n_params(), params);
        }
        assert_eq!(model(768, 12, 12, 50_368).n_params(), 125_311_488);
    }

    #[test]
    fn the_variants_of_llama_3_8b_make_its_parameter_count() {
        let mut llama = ModelConfig {
            name: ModelName::MptCausalLm,
            learned_pos_emb: false,
            no_bias: true,
            tie_word_embeddings: false,
            norm_type: NormType::RmsNorm,
            ..ModelConfig::mosaic_gpt(4096, 32, 32, 8192, 128_256)
        };
        llama.attn_config.kv_n_heads = 8;
        llama.ffn_config.ffn_type = FfnType::Glu;
        llama.ffn_config.ffn_hidden_size = Some(14_336);
        assert_eq!(llama.n_params(), 8_030_261_248);
    }

    #[test]
    fn training_flops_per_token_are_the_published_ones() {
        for (d, heads, layers, giga) in
            [(768, 12, 12, 0.978), (1024, 16, 24, 2.739), (4096, 32, 32, 43.17)]
        {
            let per_token = model(d, heads, layers, 50_257).train_flops_per_sequence(2048) / 2048.0;
            assert!((per_token / 1e9 / giga - 1.0).abs() < 1e-3, "{d}: {per_token}");
        }
    }
}
