//! The families of `transformers` that our models belong to, and their `config.json`.

use serde_json::{Map, Value, json};

use crate::config::{Activation, FfnType, GeluKind, ModelConfig, NormType, RopeScaling};
use crate::error::{Error, Result};

/// An architecture of `transformers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// `GPT2LMHeadModel`: learned positions, LayerNorm and biases.
    Gpt2,
    /// `MptForCausalLM`: ALiBi and no biases.
    Mpt,
    /// `LlamaForCausalLM`: rotary positions, RMSNorm, a gated feed-forward, shared keys and values.
    Llama,
}

/// What keeps a model from being of a family.
struct Obstacle {
    /// In words that go on from the family's name.
    what: String,
    is_there: bool,
}

/// A variant that the model has and the family not, by the key that asks for it.
fn unknown(key: &str, is_there: bool) -> Obstacle {
    Obstacle { what: format!("does not know its `model.{key}`"), is_there }
}

/// A setting that the family always has.
fn needed(setting: &str, is_there: bool) -> Obstacle {
    Obstacle { what: format!("needs `model.{setting}`"), is_there }
}

/// The family that computes what `model` computes.
///
/// # Errors
/// The nearest family, and the key that it does not know.
pub(super) fn of(model: &ModelConfig) -> Result<Family> {
    let family = match (model.attn_config.rope, model.attn_config.alibi) {
        (true, _) => Family::Llama,
        (_, true) => Family::Mpt,
        _ => Family::Gpt2,
    };
    let attention = &model.attn_config;
    let gelu = model.ffn_config.ffn_act_fn == (Activation::Gelu { approximate: GeluKind::None });
    // What no family knows.
    let mut obstacles = vec![
        unknown("attn_config.qk_ln", attention.qk_ln),
        unknown("attn_config.qk_gn", attention.qk_gn),
        unknown("attn_config.attn_logit_softcapping", attention.attn_logit_softcapping.is_some()),
        unknown("attn_config.sliding_window_size", attention.sliding_window_size.is_some()),
        unknown("logit_scale", model.logit_scale.is_some()),
        unknown("final_logit_softcapping", model.final_logit_softcapping.is_some()),
    ];
    let is_glu = model.ffn_config.ffn_type == FfnType::Glu;
    let is_rms = model.norm_type == NormType::RmsNorm;
    let shares_keys = attention.kv_n_heads != model.n_heads;
    obstacles.extend(match family {
        Family::Gpt2 => vec![
            needed("learned_pos_emb: true", !model.learned_pos_emb),
            needed("no_bias: false", model.no_bias),
            needed("norm_type: layernorm", is_rms),
            unknown("ffn_config.ffn_type", is_glu),
            unknown("attn_config.kv_n_heads", shares_keys),
            unknown("attn_config.clip_qkv", attention.clip_qkv.is_some()),
            unknown("attn_config.softmax_scale", attention.softmax_scale.is_some()),
        ],
        Family::Mpt => vec![
            needed("no_bias: true", !model.no_bias),
            needed("norm_type: layernorm", is_rms),
            unknown("ffn_config.ffn_type", is_glu),
            unknown("ffn_config.ffn_act_fn", !gelu),
            needed("mlp_ratio: 4", model.ffn_dim() != 4 * model.d_model),
            unknown("attn_config.kv_n_heads", shares_keys),
        ],
        Family::Llama => vec![
            needed("norm_type: rmsnorm", !is_rms),
            needed("ffn_config.ffn_type: mptglu", !is_glu),
            unknown("attn_config.clip_qkv", attention.clip_qkv.is_some()),
            unknown("attn_config.softmax_scale", attention.softmax_scale.is_some()),
        ],
    });
    match obstacles.into_iter().find(|obstacle| obstacle.is_there) {
        None => Ok(family),
        Some(Obstacle { what, .. }) => Err(Error::Config(format!(
            "the model cannot be exported: the nearest architecture of transformers is {}, which {what}; models of \
             GPT-2's, MPT's and Llama's kind can",
            family.name()
        ))),
    }
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Self::Gpt2 => "GPT-2",
            Self::Mpt => "MPT",
            Self::Llama => "Llama",
        }
    }
}

/// The file `config.json` of a model of `family`.
pub(super) fn config_json(family: Family, model: &ModelConfig, eos: Option<u32>) -> Value {
    let (architecture, specific) = match family {
        Family::Gpt2 => ("GPT2LMHeadModel", gpt2(model)),
        Family::Mpt => ("MptForCausalLM", mpt(model)),
        Family::Llama => ("LlamaForCausalLM", llama(model)),
    };
    let mut config = json!({
        "architectures": [architecture],
        "vocab_size": model.vocab_size,
        "bos_token_id": eos,
        "eos_token_id": eos,
        "tie_word_embeddings": model.tie_word_embeddings,
        "torch_dtype": "float32",
    });
    if let (Value::Object(config), Value::Object(specific)) = (&mut config, specific) {
        config.extend(specific);
    }
    config
}

fn gpt2(model: &ModelConfig) -> Value {
    json!({
        "model_type": "gpt2",
        "n_embd": model.d_model,
        "n_head": model.n_heads,
        "n_layer": model.n_layers,
        "n_positions": model.max_seq_len,
        "n_inner": model.ffn_dim(),
        "activation_function": activation_name(model.ffn_config.ffn_act_fn),
        "layer_norm_epsilon": model.norm_eps,
        "initializer_range": model.init_std,
        "attn_pdrop": model.attn_pdrop,
        "resid_pdrop": model.resid_pdrop,
        "embd_pdrop": model.emb_pdrop,
    })
}

fn mpt(model: &ModelConfig) -> Value {
    json!({
        "model_type": "mpt",
        "d_model": model.d_model,
        "n_heads": model.n_heads,
        "n_layers": model.n_layers,
        "max_seq_len": model.max_seq_len,
        "expansion_ratio": model.mlp_ratio,
        "layer_norm_epsilon": model.norm_eps,
        "learned_pos_emb": false,
        "no_bias": true,
        "resid_pdrop": model.resid_pdrop,
        "emb_pdrop": model.emb_pdrop,
        "attn_config": {
            "attn_type": "multihead_attention",
            "attn_pdrop": model.attn_pdrop,
            "attn_impl": "torch",
            "clip_qkv": model.attn_config.clip_qkv,
            "softmax_scale": model.attn_config.softmax_scale,
            "alibi": true,
            "alibi_bias_max": model.attn_config.alibi_bias_max,
        },
    })
}

fn llama(model: &ModelConfig) -> Value {
    let attention = &model.attn_config;
    json!({
        "model_type": "llama",
        "hidden_size": model.d_model,
        "intermediate_size": model.ffn_dim(),
        "num_hidden_layers": model.n_layers,
        "num_attention_heads": model.n_heads,
        "num_key_value_heads": attention.kv_n_heads,
        "head_dim": model.head_dim(),
        "max_position_embeddings": model.max_seq_len,
        "hidden_act": activation_name(model.ffn_config.ffn_act_fn),
        "rms_norm_eps": model.norm_eps,
        "initializer_range": model.init_std,
        "attention_bias": !model.no_bias,
        "mlp_bias": !model.no_bias,
        "attention_dropout": model.attn_pdrop,
        "rope_theta": attention.rope_theta,
        "rope_scaling": rope_scaling(attention.rope_hf_config),
    })
}

fn rope_scaling(scaling: RopeScaling) -> Value {
    match scaling {
        RopeScaling::NoScaling => Value::Null,
        RopeScaling::Linear { factor } => json!({ "rope_type": "linear", "factor": factor }),
        RopeScaling::Dynamic { factor } => json!({ "rope_type": "dynamic", "factor": factor }),
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor,
            "original_max_position_embeddings": original_max_position_embeddings,
        }),
    }
}

/// The functions by the names of `transformers`.
const ACTIVATIONS: &[(&str, Activation)] = &[
    ("gelu", Activation::Gelu { approximate: GeluKind::None }),
    ("gelu_new", Activation::Gelu { approximate: GeluKind::Tanh }),
    ("gelu_pytorch_tanh", Activation::Gelu { approximate: GeluKind::Tanh }),
    ("silu", Activation::Silu),
    ("relu", Activation::Relu),
];

fn activation_name(activation: Activation) -> Option<&'static str> {
    ACTIVATIONS.iter().find(|(_, known)| *known == activation).map(|(name, _)| *name)
}

/// Our configuration of the GPT-2 that a `config.json` describes.
///
/// # Errors
/// What in it is no GPT-2 of ours.
pub(super) fn gpt2_from_json(config: &Value) -> Result<ModelConfig, String> {
    let Value::Object(config) = config else { return Err("is not an object".to_owned()) };
    let kind = config.get("model_type").and_then(Value::as_str).unwrap_or("nothing");
    if kind != "gpt2" {
        return Err(format!("says model_type {kind}, not gpt2"));
    }
    for (key, usual) in [
        ("scale_attn_weights", true),
        ("tie_word_embeddings", true),
        ("scale_attn_by_inverse_layer_idx", false),
        ("add_cross_attention", false),
    ] {
        if config.get(key).and_then(Value::as_bool).is_some_and(|value| value != usual) {
            return Err(format!("says {key} {}, which is not known here", !usual));
        }
    }
    let size = |key: &str| size_in(config, key);
    let d_model = size("n_embd")?;
    let mut model = ModelConfig::mosaic_gpt(
        d_model,
        size("n_head")?,
        size("n_layer")?,
        size("n_positions")?,
        size("vocab_size")?,
    );
    model.ffn_config.ffn_hidden_size = size("n_inner").ok().filter(|&inner| inner != 4 * d_model);
    let number = |key: &str| config.get(key).and_then(Value::as_f64);
    model.norm_eps = number("layer_norm_epsilon").unwrap_or(model.norm_eps);
    model.init_std = number("initializer_range").unwrap_or(model.init_std);
    let name = config.get("activation_function").and_then(Value::as_str).unwrap_or("gelu_new");
    let known = ACTIVATIONS.iter().find(|(known, _)| *known == name);
    let Some((_, activation)) = known else {
        return Err(format!("says activation_function {name}, which is not known here"));
    };
    model.ffn_config.ffn_act_fn = *activation;
    Ok(model)
}

fn size_in(config: &Map<String, Value>, key: &str) -> Result<usize, String> {
    let size = config.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
    size.filter(|&n| n > 0).ok_or_else(|| format!("has no {key}"))
}
