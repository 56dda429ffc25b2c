//! The GPT: a pre-norm decoder, by default with learned positions, exact GELU and a head tied to the token embedding.
//!
//! | file | what it holds |
//! |---|---|
//! | `gpt.rs` | [`Gpt`]: embeddings, blocks, head |
//! | `block.rs` | a block: attention and feed-forward in all their variants |
//! | `attention.rs` | [`causal_attention`]: one function, two routes ([`AttentionRoute`]) |
//! | `pass.rs` | [`Pass`]: what all blocks share: arithmetic, rotary positions, ALiBi, windows, documents |
//! | `norm.rs` | LayerNorm and RMSNorm |
//! | `init.rs` | the initial parameters, drawn from our own seeded PCG64 |
//! | `dropout.rs` | [`Dropout`]: masks from our own generator, reproducible on every device |
//! | `parameters.rs` | the parameters by name and in order: what the optimizer and checkpoints see |
//!
//! A GPT-2's parameters carry the names of Hugging Face's GPT-2 (`wte.weight`, `h.0.attn.c_attn.weight`, ...), a Llama's
//! those of its Llama (`model.layers.0.self_attn.o_proj.weight`, ...), and those of all other models the names of its MPT
//! (`transformer.blocks.0.attn.Wqkv.weight`, ...). Queries, keys and values are one matrix also in a Llama, and stored as
//! one: `self_attn.qkv_proj`. Weight matrices are `[in, out]`, as in GPT-2; MPT and Llama have them the other way round.
//!
//! In shapes, `B` is rows of the batch, `T` tokens of a row, `C` = `d_model`, `H` heads, `D` = `C / H`.

mod attention;
mod block;
mod dropout;
mod gpt;
mod init;
mod norm;
mod parameters;
mod pass;

pub use attention::{AttentionRoute, causal_attention};
pub(crate) use block::Block;
pub use dropout::Dropout;
pub(crate) use gpt::{Backward, Head, TENSOR_CORE_ROWS};
pub use gpt::{Cache, Gpt};
pub use parameters::{NamedTensor, ParameterError, ParameterSpec};
pub(crate) use parameters::{
    by_name, collect_gradients, flat_parameters, in_parameter_order, map_parameters,
};
pub use pass::Pass;

/// A model small enough for unit tests.
#[cfg(test)]
pub(crate) fn tiny_config() -> crate::config::ModelConfig {
    crate::config::ModelConfig::mosaic_gpt(8, 2, 2, 5, 11)
}
