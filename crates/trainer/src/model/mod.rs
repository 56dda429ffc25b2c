//! The GPT: a pre-LN decoder with learned positions, exact GELU and a head tied to the token embedding.
//!
//! | file | what it holds |
//! |---|---|
//! | `gpt.rs` | [`Gpt`], its blocks and their forwards |
//! | `attention.rs` | [`causal_attention`]: one function, two routes ([`AttentionRoute`]) |
//! | `init.rs` | the initial parameters, drawn from our own seeded PCG64 |
//! | `dropout.rs` | [`Dropout`]: masks from our own generator, reproducible on every device |
//! | `parameters.rs` | the parameters by name and in order: what the optimizer and checkpoints see |
//!
//! Parameters carry the names of Hugging Face's GPT-2 (`wte.weight`, `h.0.attn.c_attn.weight`, ...), and weight
//! matrices are `[in, out]` as there, so a checkpoint's tensors can be read by name in either world.
//!
//! In shapes, `B` is rows of the batch, `T` tokens of a row, `C` = `d_model`, `H` heads, `D` = `C / H`.

mod attention;
mod dropout;
mod gpt;
mod init;
mod parameters;

pub use attention::{AttentionRoute, causal_attention};
pub use dropout::Dropout;
pub use gpt::Gpt;
pub use parameters::{NamedTensor, ParameterError, ParameterSpec};
pub(crate) use parameters::{collect_gradients, in_parameter_order, map_parameters};

/// A model small enough for unit tests.
#[cfg(test)]
pub(crate) fn tiny_config() -> crate::config::ModelConfig {
    crate::config::ModelConfig {
        name: "mosaic_gpt".into(),
        d_model: 8,
        n_heads: 2,
        n_layers: 2,
        mlp_ratio: 4,
        max_seq_len: 5,
        vocab_size: 11,
        init_std: 0.02,
        attn_pdrop: 0.0,
        resid_pdrop: 0.0,
        emb_pdrop: 0.0,
        attn_impl: "flash".into(),
        embedding_fraction: 1.0,
    }
}
