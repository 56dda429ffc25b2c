//! The backward, from what the forward kept or block by block: activation checkpointing.
//!
//! Burn keeps what each operation of the forward needs for its backward; its own checkpointing recomputes single
//! element-wise operations. With [`Activations::Recomputed`] only the input of each block is kept: the forward runs
//! without a graph, and the backward, from the last block to the first, runs each block once more on a graph of its own.
//! That costs a second forward, and the activations of one block take the place of those of all.

use burn::module::Module;
use burn::tensor::{Gradients as Graph, Int, Tensor};

use crate::model::{Backward, Block, Dropout, Gpt, Pass, collect_gradients};

/// What becomes of the forward's intermediate values until the backward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activations {
    /// They are kept.
    Kept,
    /// The inputs of blocks are kept, and the rest is computed again.
    Recomputed,
}

/// The backward with what the forward kept, where `head` gives the gradient at the hidden states `[batch, seq, d_model]`
/// that it is given.
///
/// # Shapes
///
/// - tokens: `[batch, seq]`
pub(crate) fn kept_backward(
    model: &Gpt,
    tokens: Tensor<2, Int>,
    dropout: &mut Dropout,
    head: impl FnOnce(Tensor<3>) -> Tensor<3>,
) -> Backward {
    let looked_up = model.looked_up(tokens.clone()); // [B, T, C]
    let hidden = model.hidden_from(looked_up.clone(), &tokens, dropout); // [B, T, C]
    let gradient = head(hidden.clone().inner());
    let mut graph = backward_from(hidden, gradient);
    Backward {
        at_tables: gradient_at(&looked_up, &mut graph),
        of_blocks: collect_of_blocks(model.blocks(), &mut graph),
        of_norm: model.collect_of_norm(&mut graph),
    }
}

/// The same, block by block.
pub(crate) fn recomputed_backward(
    model: &Gpt,
    tokens: Tensor<2, Int>,
    dropout: &mut Dropout,
    head: impl FnOnce(Tensor<3>) -> Tensor<3>,
) -> Backward {
    let plain = model.valid();
    let looked_up = model.looked_up(tokens.clone()); // [B, T, C]
    let embedded = model.embedded(looked_up.clone(), dropout); // [B, T, C]

    // Forward, without a graph.
    let pass = Pass::of(model.config(), model.dtype(), &tokens.clone().inner(), 0);
    let mut x = embedded.clone().inner(); // [B, T, C]
    let mut inputs = Vec::with_capacity(model.blocks().len());
    for block in plain.blocks() {
        // The masks of the second time must be those of the first.
        inputs.push((x.clone(), dropout.clone()));
        x = block.forward(x, &pass, None, dropout);
    }

    // Backward, from the end to the beginning.
    let last = Tensor::from_inner(x).require_grad();
    let hidden = model.normed(last.clone()); // [B, T, C]
    let hidden_grad = head(hidden.clone().inner());
    let mut graph = backward_from(hidden, hidden_grad);
    let mut gradient = gradient_at(&last, &mut graph); // [B, T, C]
    let of_norm = model.collect_of_norm(&mut graph);

    let pass = Pass::of(model.config(), model.dtype(), &tokens, 0);
    let mut of_blocks = Vec::with_capacity(inputs.len());
    for (block, (input, mut dropout)) in model.blocks().iter().zip(inputs).rev() {
        let input = Tensor::from_inner(input).require_grad();
        let output = block.forward(input.clone(), &pass, None, &mut dropout);
        let mut graph = backward_from(output, gradient);
        gradient = gradient_at(&input, &mut graph);
        of_blocks.push(collect_gradients(block, &mut graph));
    }
    Backward {
        at_tables: gradient_at(&looked_up, &mut backward_from(embedded, gradient)),
        of_blocks: of_blocks.into_iter().rev().flatten().collect(),
        of_norm,
    }
}

fn collect_of_blocks(blocks: &[Block], graph: &mut Graph) -> Vec<Tensor<1>> {
    blocks.iter().flat_map(|block| collect_gradients(block, graph)).collect()
}

/// Goes backward from `output`, whose gradient is known: it is the gradient of the sum of `output · gradient`.
pub(crate) fn backward_from(output: Tensor<3>, gradient: Tensor<3>) -> Graph {
    (output * Tensor::from_inner(gradient)).sum().backward()
}

fn gradient_at(input: &Tensor<3>, graph: &mut Graph) -> Tensor<3> {
    let gradient = input.grad_remove(graph);
    gradient.unwrap_or_else(|| input.clone().inner().zeros_like())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelConfig;
    use crate::data::TokenBatch;
    use crate::loss::loss_and_gradients;
    use crate::model::tiny_config;
    use burn::tensor::Device;

    fn values(config: &ModelConfig, activations: Activations) -> (f32, Vec<Vec<f32>>) {
        let model = Gpt::init(config, 3, &Device::flex().autodiff());
        let mut batch = TokenBatch::new(5);
        batch.push(&[1, 2, 3, 4, 5], 0);
        batch.push(&[6, 7, 8, 9, 10], 0);
        let mut dropout = Dropout::training(17, 1, 0);
        let (loss, gradients) = loss_and_gradients(&model, &batch, 1.0, &mut dropout, activations);
        let gradients = gradients.into_flat().into_iter();
        let gradients = gradients.map(|g| g.into_data().try_to_vec().unwrap()).collect();
        (loss.into_scalar(), gradients)
    }

    #[test]
    fn what_is_computed_again_is_the_same() {
        let dropped =
            ModelConfig { emb_pdrop: 0.2, resid_pdrop: 0.3, attn_pdrop: 0.1, ..tiny_config() };
        let mut rope = ModelConfig {
            learned_pos_emb: false,
            tie_word_embeddings: false,
            embedding_fraction: 0.5,
            ..dropped.clone()
        };
        rope.attn_config.rope = true;
        for config in [tiny_config(), dropped, rope] {
            let (loss, kept) = values(&config, Activations::Kept);
            let (recomputed_loss, recomputed) = values(&config, Activations::Recomputed);
            assert!((loss - recomputed_loss).abs() < 1e-6, "{recomputed_loss} is not {loss}");
            // Up to rounding: without a graph attention is another kernel, and sums come in another order.
            for (index, (a, b)) in kept.iter().zip(&recomputed).enumerate() {
                let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst < 1e-6, "parameter {index}: largest difference {worst}");
                assert!(a.iter().any(|g| *g != 0.0), "parameter {index} has no gradient");
            }
            assert_eq!(kept.len(), recomputed.len());
        }
    }
}
