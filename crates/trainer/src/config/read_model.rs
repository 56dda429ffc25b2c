//! The section `model`: its several spellings over the years, its defaults, and what must fit together in it.

use std::fmt::Display;

use super::section::Section;
use super::{
    Activation, AttentionConfig, FanMode, FfnConfig, FfnType, GeluKind, InitConfig, InitScheme,
    ModelConfig, ModelName, Nonlinearity, NormType, ResidualDivisor, RopeScaling, Separator,
};
use crate::error::{Error, Result};

const ABOVE_ZERO: &str = "a number above 0";
const LEAST_ZERO: &str = "a number of at least 0, for example 0.02";

/// Reads `model`; what was adjusted is added to `notices`.
pub(super) fn read_model(
    model: &Section<'_>,
    max_seq_len: usize,
    separator: Option<Separator>,
    notices: &mut Vec<String>,
) -> Result<ModelConfig> {
    let names = [("mosaic_gpt", ModelName::MosaicGpt), ("mpt_causal_lm", ModelName::MptCausalLm)];
    let name = model.choice("name", &names)?.unwrap_or(ModelName::MosaicGpt);
    let attention = model.section("attn_config")?;
    let probability = |section: &Section<'_>, key| {
        section.number(key, 0.0..1.0, "a probability from 0 up to 1, for example 0.1")
    };
    let kernels = [("flash", "flash"), ("torch", "torch"), ("triton", "triton")];
    let kernel = one_of(
        (model, "attn_impl", model.choice("attn_impl", &kernels)?),
        (&attention, "attn_impl", attention.choice("attn_impl", &kernels)?),
    )?;
    if kernel == Some("triton") {
        notices.push(
            "attn_impl triton is deprecated, as in llm-foundry: the fused attention is used, as with flash".to_owned(),
        );
    }
    let dropout = one_of(
        (model, "attn_pdrop", probability(model, "attn_pdrop")?),
        (&attention, "attn_pdrop", probability(&attention, "attn_pdrop")?),
    )?;
    let fraction = "a number above 0 and at most 1";
    let fraction = model.number("embedding_fraction", f64::MIN_POSITIVE..=1.0, fraction)?;
    let size = |key, example| model.size(key, 1)?.ok_or_else(|| model.missing(key, example));
    let (d_model, n_heads) = (size("d_model", "d_model: 768")?, size("n_heads", "n_heads: 12")?);
    if !d_model.is_multiple_of(n_heads) {
        return Err(Error::Config(format!(
            "model.d_model {d_model} does not divide into {n_heads} heads; make it a multiple of model.n_heads"
        )));
    }
    let (mlp_ratio, ffn_config) = read_ffn(model, d_model)?;
    let attn_config = read_attention(model, &attention, n_heads, d_model / n_heads, separator)?;
    let (init_std, init_config) = read_init(model, name)?;
    Ok(ModelConfig {
        name,
        d_model,
        n_heads,
        n_layers: size("n_layers", "n_layers: 12")?,
        mlp_ratio,
        max_seq_len: model.size("max_seq_len", 2)?.unwrap_or(max_seq_len),
        vocab_size: size("vocab_size", "vocab_size: 50257")?,
        init_std,
        attn_pdrop: dropout.unwrap_or(0.0),
        resid_pdrop: probability(model, "resid_pdrop")?.unwrap_or(0.0),
        emb_pdrop: probability(model, "emb_pdrop")?.unwrap_or(0.0),
        attn_impl: kernel.unwrap_or("flash").to_owned(),
        embedding_fraction: fraction.unwrap_or(1.0),
        learned_pos_emb: read_learned_positions(model, &attn_config, notices)?,
        no_bias: model.flag("no_bias")?.unwrap_or(false),
        tie_word_embeddings: model.flag("tie_word_embeddings")?.unwrap_or(true),
        norm_type: model.choice("norm_type", NORMS)?.unwrap_or(NormType::LayerNorm),
        norm_eps: model.number("norm_eps", f64::MIN_POSITIVE.., ABOVE_ZERO)?.unwrap_or(1e-5),
        logit_scale: read_logit_scale(model, d_model)?,
        final_logit_softcapping: model.number(
            "final_logit_softcapping",
            f64::MIN_POSITIVE..,
            ABOVE_ZERO,
        )?,
        attn_config,
        ffn_config,
        init_config,
    })
}

/// Norms are always computed in fp32, so that the low-precision ones are the same.
const NORMS: &[(&str, NormType)] = &[
    ("layernorm", NormType::LayerNorm),
    ("low_precision_layernorm", NormType::LayerNorm),
    ("rmsnorm", NormType::RmsNorm),
    ("low_precision_rmsnorm", NormType::RmsNorm),
    ("triton_rmsnorm", NormType::RmsNorm),
];

/// The value of a key that has had two names, or places, over the years: where both are given they must agree.
pub(super) fn one_of<T: PartialEq + Display>(
    (section, key, value): (&Section<'_>, &str, Option<T>),
    (older_section, older_key, older): (&Section<'_>, &str, Option<T>),
) -> Result<Option<T>> {
    match (value, older) {
        (Some(value), Some(older)) if value != older => Err(Error::Config(format!(
            "`{}` is {value}, but `{}` is {older}; keep one of the two",
            section.path(key),
            older_section.path(older_key)
        ))),
        (value, older) => Ok(value.or(older)),
    }
}

/// Two keys that cannot both be.
fn clash(section: &Section<'_>, key: &str, value: &str, other: &str, remedy: &str) -> Error {
    Error::Config(format!("`{}` is {value}, but {other}; {remedy}", section.path(key)))
}

fn read_attention(
    model: &Section<'_>,
    attention: &Section<'_>,
    n_heads: usize,
    head_dim: usize,
    separator: Option<Separator>,
) -> Result<AttentionConfig> {
    // Some keys lay in `model` itself before there was an `attn_config`.
    let flag = |newer, older| -> Result<bool> {
        let given =
            one_of((attention, newer, attention.flag(newer)?), (model, older, model.flag(older)?))?;
        Ok(given.unwrap_or(false))
    };
    let number = |newer, older| -> Result<Option<f64>> {
        let read =
            |section: &Section<'_>, key| section.number(key, f64::MIN_POSITIVE.., ABOVE_ZERO);
        one_of((attention, newer, read(attention, newer)?), (model, older, read(model, older)?))
    };
    let config = AttentionConfig {
        kv_n_heads: read_kv_heads(attention, n_heads)?,
        qk_ln: flag("qk_ln", "attn_qk_ln")?,
        qk_gn: attention.flag("qk_gn")?.unwrap_or(false),
        clip_qkv: number("clip_qkv", "attn_clip_qkv")?,
        softmax_scale: number("softmax_scale", "softmax_scale")?,
        attn_logit_softcapping: attention.number(
            "attn_logit_softcapping",
            f64::MIN_POSITIVE..,
            ABOVE_ZERO,
        )?,
        sliding_window_size: read_window(attention)?,
        attn_uses_sequence_id: flag("attn_uses_sequence_id", "attn_uses_sequence_id")?,
        alibi: flag("alibi", "alibi")?,
        alibi_bias_max: number("alibi_bias_max", "alibi_bias_max")?.unwrap_or(8.0),
        rope: attention.flag("rope")?.unwrap_or(false),
        rope_theta: attention
            .number("rope_theta", 1.0.., "a number of at least 1, for example 10000")?
            .unwrap_or(1e4),
        rope_hf_config: read_rope_scaling(attention)?,
        separator,
    };
    let scaling = attention.section("rope_hf_config")?;
    for (section, key, is_given, switch, is_on) in [
        (attention, "alibi_bias_max", config.alibi_bias_max != 8.0, "alibi", config.alibi),
        (attention, "rope_theta", config.rope_theta != 1e4, "rope", config.rope),
        (&scaling, "type", config.rope_hf_config != RopeScaling::NoScaling, "rope", config.rope),
    ] {
        if is_given && !is_on {
            let (value, switch) = (section.text(key)?, attention.path(switch));
            let other = format!("`{switch}` is false");
            let remedy = format!("set `{switch}` to true, or remove the key");
            return Err(clash(section, key, &value.unwrap_or_default(), &other, &remedy));
        }
    }
    if config.alibi && config.rope {
        let remedy = "keep one of the two";
        return Err(clash(
            attention,
            "rope",
            "true",
            "`model.attn_config.alibi` is true, too",
            remedy,
        ));
    }
    if config.qk_ln && config.qk_gn {
        let other = "`model.attn_config.qk_ln` is true, too";
        return Err(clash(attention, "qk_gn", "true", other, "keep one of the two"));
    }
    if config.rope && !head_dim.is_multiple_of(2) {
        let other = format!("`model.d_model` over `model.n_heads` is {head_dim}");
        let remedy = "rotations need an even number: choose another number of heads";
        return Err(clash(attention, "rope", "true", &other, remedy));
    }
    if config.attn_uses_sequence_id && separator.is_none() {
        let other = "`train_loader.dataset` has neither eos_token_id nor bos_token_id to tell documents apart by";
        let remedy = "set one, for example eos_token_id: 50256";
        return Err(clash(attention, "attn_uses_sequence_id", "true", other, remedy));
    }
    Ok(config)
}

/// `attn_type` and `kv_n_heads`, which must agree.
fn read_kv_heads(attention: &Section<'_>, n_heads: usize) -> Result<usize> {
    let types = [
        ("multihead_attention", "multihead_attention"),
        ("multiquery_attention", "multiquery_attention"),
        ("grouped_query_attention", "grouped_query_attention"),
    ];
    let kind = attention.choice("attn_type", &types)?;
    let given = attention.size("kv_n_heads", 1)?;
    let heads = match (kind, given) {
        (Some("multiquery_attention"), None) => 1,
        (Some("grouped_query_attention"), None) => {
            return Err(
                attention.missing("kv_n_heads", &format!("kv_n_heads: {}", n_heads.div_ceil(4)))
            );
        }
        (_, None) => n_heads,
        (_, Some(heads)) => heads,
    };
    let needed = match kind {
        Some("multihead_attention") => n_heads,
        Some("multiquery_attention") => 1,
        _ => heads,
    };
    if heads != needed {
        let other = format!("`model.attn_config.attn_type` is {}", kind.unwrap_or_default());
        let remedy = format!("set it to {needed}, or attn_type to grouped_query_attention");
        return Err(clash(attention, "kv_n_heads", &heads.to_string(), &other, &remedy));
    }
    if !n_heads.is_multiple_of(heads) {
        let other = format!("`model.n_heads` is {n_heads}");
        return Err(clash(
            attention,
            "kv_n_heads",
            &heads.to_string(),
            &other,
            "it must divide that number",
        ));
    }
    Ok(heads)
}

/// -1 is no window.
fn read_window(attention: &Section<'_>) -> Result<Option<usize>> {
    match attention.integer("sliding_window_size")? {
        None | Some(-1) => Ok(None),
        Some(size) => usize::try_from(size).map(Some).map_err(|_| {
            Error::Config(format!(
                "`{}` is {size}; it must be a number of tokens, or -1 for no window",
                attention.path("sliding_window_size")
            ))
        }),
    }
}

fn read_rope_scaling(attention: &Section<'_>) -> Result<RopeScaling> {
    let dail = attention.section("rope_dail_config")?;
    dail.choice("type", &[("original", ())])?;
    let scaling = attention.section("rope_hf_config")?;
    let types = [("no_scaling", 0), ("linear", 1), ("dynamic", 2), ("llama3", 3)];
    let factor =
        scaling.number("factor", 1.0.., "a number of at least 1, for example 2.0")?.unwrap_or(1.0);
    let number = |key, default| -> Result<f64> {
        Ok(scaling.number(key, f64::MIN_POSITIVE.., ABOVE_ZERO)?.unwrap_or(default))
    };
    let kind = scaling.choice("type", &types)?.unwrap_or(0);
    let of_llama3 = ["low_freq_factor", "high_freq_factor", "original_max_position_embeddings"];
    let foreign = of_llama3.into_iter().find(|key| kind != 3 && scaling.has(key));
    if let Some(key) = foreign.or((kind == 0 && factor != 1.0).then_some("factor")) {
        let value = scaling.text(key)?.unwrap_or_default();
        let other = format!("`{}` is {}", scaling.path("type"), types[kind].0);
        let remedy = if key == "factor" { "linear, dynamic or llama3" } else { "llama3" };
        let remedy = format!("set the type to {remedy}, or remove the key");
        return Err(clash(&scaling, key, &value, &other, &remedy));
    }
    Ok(match kind {
        0 => RopeScaling::NoScaling,
        1 => RopeScaling::Linear { factor },
        2 => RopeScaling::Dynamic { factor },
        _ => {
            let low_freq_factor = number("low_freq_factor", 1.0)?;
            let high_freq_factor = number("high_freq_factor", 4.0)?;
            if low_freq_factor >= high_freq_factor {
                let other = format!("`{}` is {high_freq_factor}", scaling.path("high_freq_factor"));
                let value = low_freq_factor.to_string();
                return Err(clash(
                    &scaling,
                    "low_freq_factor",
                    &value,
                    &other,
                    "it must be less than that",
                ));
            }
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings: scaling
                    .size("original_max_position_embeddings", 1)?
                    .unwrap_or(8192),
            }
        }
    })
}

/// Positions are learned unless attention itself knows them, as in the reference.
fn read_learned_positions(
    model: &Section<'_>,
    attention: &AttentionConfig,
    notices: &mut Vec<String>,
) -> Result<bool> {
    let given = model.flag("learned_pos_emb")?;
    let known = match (attention.alibi, attention.rope) {
        (true, _) => Some("alibi"),
        (_, true) => Some("rope"),
        _ => None,
    };
    match (known, given) {
        (Some(key), Some(true)) => {
            notices.push(format!(
                "`model.learned_pos_emb` is true, but with `model.attn_config.{key}` there are no learned positions"
            ));
            Ok(false)
        }
        (Some(_), _) => Ok(false),
        (None, Some(false)) => {
            notices.push(
                "the model is told nothing of positions: `model.learned_pos_emb` is false, and neither alibi nor rope \
                 is on"
                    .to_owned(),
            );
            Ok(false)
        }
        (None, _) => Ok(true),
    }
}

/// A number, or `inv_sqrt_d_model`.
fn read_logit_scale(model: &Section<'_>, d_model: usize) -> Result<Option<f64>> {
    match model.text("logit_scale") {
        Ok(Some(text)) if text == "inv_sqrt_d_model" => Ok(Some(1.0 / (d_model as f64).sqrt())),
        _ => model.number(
            "logit_scale",
            f64::MIN_POSITIVE..,
            "a number above 0, or inv_sqrt_d_model",
        ),
    }
}

/// `mlp_ratio` and what `ffn_config` says beside it.
fn read_ffn(model: &Section<'_>, d_model: usize) -> Result<(usize, FfnConfig)> {
    let ffn = model.section("ffn_config")?;
    let expansion = model.number("expansion_ratio", f64::MIN_POSITIVE.., ABOVE_ZERO)?;
    let ratio = one_of(
        (model, "mlp_ratio", model.size("mlp_ratio", 1)?.map(|ratio| ratio as f64)),
        (model, "expansion_ratio", expansion),
    )?
    .unwrap_or(4.0);
    let mut hidden = ffn.size("ffn_hidden_size", 1)?;
    if ratio.fract() != 0.0 && hidden.is_none() {
        let width = ratio * d_model as f64;
        if width.fract() != 0.0 {
            let other = format!("`model.d_model` is {d_model}");
            let remedy = "their product must be a whole number: set model.ffn_config.ffn_hidden_size instead";
            return Err(clash(model, "expansion_ratio", &ratio.to_string(), &other, remedy));
        }
        hidden = Some(width as usize);
    }
    let types = [("mptmlp", FfnType::Mlp), ("mptglu", FfnType::Glu)];
    let activation = ffn.section("ffn_act_fn")?;
    let approximate = [("none", GeluKind::None), ("tanh", GeluKind::Tanh)];
    let approximate = activation.choice("approximate", &approximate)?.unwrap_or(GeluKind::None);
    let gelu = Activation::Gelu { approximate };
    let functions = [("gelu", gelu), ("silu", Activation::Silu), ("relu", Activation::Relu)];
    let config = FfnConfig {
        ffn_type: ffn.choice("ffn_type", &types)?.unwrap_or(FfnType::Mlp),
        ffn_hidden_size: hidden,
        ffn_act_fn: activation.choice("name", &functions)?.unwrap_or(gelu),
    };
    // A ratio that is not whole is in `ffn_hidden_size` now.
    Ok((if ratio.fract() == 0.0 { ratio as usize } else { 4 }, config))
}

const SCHEMES: &[(&str, InitScheme)] = &[
    ("baseline_", InitScheme::Baseline),
    ("small_init_", InitScheme::Small),
    ("neox_init_", InitScheme::Neox),
    ("kaiming_normal_", InitScheme::KaimingNormal),
    ("kaiming_uniform_", InitScheme::KaimingUniform),
    ("xavier_normal_", InitScheme::XavierNormal),
    ("xavier_uniform_", InitScheme::XavierUniform),
    ("default_", InitScheme::Default),
];

/// `init_std`, and the rest.
fn read_init(model: &Section<'_>, name: ModelName) -> Result<(f64, InitConfig)> {
    let init = model.section("init_config")?;
    // By name, which is what a message shows.
    let names: Vec<_> = SCHEMES.iter().map(|(name, _)| (*name, *name)).collect();
    one_of(
        (&init, "name", init.choice("name", &names)?),
        (model, "param_init_fn", model.choice("param_init_fn", &names)?),
    )?;
    let older = model.choice("param_init_fn", SCHEMES)?;
    let default = match name {
        ModelName::MosaicGpt => InitScheme::Baseline,
        ModelName::MptCausalLm => InitScheme::KaimingNormal,
    };
    let scheme = init.choice("name", SCHEMES)?.or(older).unwrap_or(default);
    let std = one_of(
        (&init, "init_std", init.number("init_std", 0.0.., LEAST_ZERO)?),
        (model, "init_std", model.number("init_std", 0.0.., LEAST_ZERO)?),
    )?;
    if scheme == InitScheme::Baseline && std.is_none() && name == ModelName::MptCausalLm {
        return Err(init.missing("init_std", "init_std: 0.02"));
    }
    let fans = [("fan_in", FanMode::FanIn), ("fan_out", FanMode::FanOut)];
    let nonlinearities = [
        ("relu", Nonlinearity::Relu),
        ("leaky_relu", Nonlinearity::LeakyRelu),
        ("linear", Nonlinearity::Linear),
        ("tanh", Nonlinearity::Tanh),
    ];
    let config = InitConfig {
        init_div_is_residual: read_residual_divisor(&init)?,
        emb_init_std: init.number("emb_init_std", 0.0.., LEAST_ZERO)?,
        emb_init_uniform_lim: init.interval("emb_init_uniform_lim")?,
        init_gain: init
            .number("init_gain", 0.0.., "a number of at least 0, for example 1.0")?
            .unwrap_or(0.0),
        fan_mode: init.choice("fan_mode", &fans)?.unwrap_or(FanMode::FanIn),
        init_nonlinearity: init
            .choice("init_nonlinearity", &nonlinearities)?
            .unwrap_or(Nonlinearity::Relu),
        name: scheme,
    };
    check_init_keys(&init, model, std, &config)?;
    if config.emb_init_std.is_some() && config.emb_init_uniform_lim.is_some() {
        let other = "`model.init_config.emb_init_std` is given, too";
        return Err(clash(&init, "emb_init_uniform_lim", "given", other, "keep one of the two"));
    }
    let xavier = matches!(scheme, InitScheme::XavierNormal | InitScheme::XavierUniform);
    if xavier && config.init_gain == 0.0 {
        let other = "`model.init_config.init_gain` is 0, which makes every weight 0";
        return Err(clash(
            &init,
            "name",
            "a Xavier scheme",
            other,
            "set init_gain, for example to 1.0",
        ));
    }
    Ok((std.unwrap_or(0.02), config))
}

/// What the scheme does not read must not be asked for; the defaults, which a resolved recipe has, ask for nothing.
fn check_init_keys(
    init: &Section<'_>,
    model: &Section<'_>,
    std: Option<f64>,
    config: &InitConfig,
) -> Result<()> {
    use InitScheme::{Baseline, KaimingNormal, KaimingUniform, XavierNormal, XavierUniform};
    let scheme =
        SCHEMES.iter().find(|(_, scheme)| *scheme == config.name).map_or("", |(name, _)| name);
    let is_kaiming = matches!(config.name, KaimingNormal | KaimingUniform);
    let is_xavier = matches!(config.name, XavierNormal | XavierUniform);
    let std_in = if init.has("init_std") { init } else { model };
    for (section, key, is_given, is_read) in [
        (std_in, "init_std", std.is_some_and(|std| std != 0.02), config.name == Baseline),
        (init, "init_gain", config.init_gain != 0.0, is_kaiming || is_xavier),
        (init, "fan_mode", config.fan_mode != FanMode::FanIn, is_kaiming),
        (init, "init_nonlinearity", config.init_nonlinearity != Nonlinearity::Relu, is_kaiming),
    ] {
        if is_given && !is_read {
            let value = section.text(key)?.unwrap_or_default();
            let other = format!("`{}` is {scheme}, which does not read it", init.path("name"));
            return Err(clash(
                section,
                key,
                &value,
                &other,
                "change the scheme, or remove the key",
            ));
        }
    }
    Ok(())
}

/// `true`, `false` or a number.
fn read_residual_divisor(init: &Section<'_>) -> Result<ResidualDivisor> {
    const KEY: &str = "init_div_is_residual";
    match init.flag(KEY) {
        Ok(None | Some(true)) => Ok(ResidualDivisor::ByDepth),
        Ok(Some(false)) => Ok(ResidualDivisor::Number(1.0)),
        Err(_) => {
            let divisor =
                init.number(KEY, f64::MIN_POSITIVE.., "true, false or a number above 0")?;
            Ok(divisor.map_or(ResidualDivisor::ByDepth, ResidualDivisor::Number))
        }
    }
}
