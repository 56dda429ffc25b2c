//! The loss over the vocabulary, and its gradient in the place of the logits.

use burn::backend::Flex;
use burn::tensor::Tensor;
use rayon::prelude::*;

use super::function::{contiguous, off_graph, tensor};
use super::matrix::{Cores, Matrix, MatrixMut, Store};
use super::vector::{exp, max, sum, vectorized};
use crate::loss::CHUNK_TOKENS;

/// The scaled sum of the losses, and its gradients: at the hidden states `[tokens, d_model]`, and at the head's weight
/// `[vocab_size, d_model]`.
///
/// # Shapes
///
/// - hidden: `[tokens, d_model]`
/// - weight: `[vocab_size, d_model]`
/// - labels: `[tokens]`
pub(crate) fn loss_and_gradients(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    labels: &[i32],
    logit_scale: f64,
    scale: f64,
) -> (Tensor<1>, Tensor<2>, Tensor<2>) {
    let device = hidden.device();
    let ([tokens, d_model], [vocab, _]) = (hidden.dims(), weight.dims());
    let [hidden, weight] = [hidden, weight].map(|x| contiguous(off_graph(x.into_dispatch())));
    let weight = Matrix::new(weight.storage(), vocab, d_model);
    let mut of_hidden = vec![0.0; tokens * d_model];
    let mut of_weight = vec![0.0; vocab * d_model];
    let mut chunks_of_hidden = of_hidden.chunks_mut(CHUNK_TOKENS * d_model);
    let of_row = |row: &mut [f32], label: Option<usize>| match label {
        Some(label) => loss_and_gradient_of_row(row, label, logit_scale as f32, scale as f32),
        None => {
            row.fill(0.0);
            0.0
        }
    };
    let loss = sum_over_tokens(hidden.storage(), weight, labels, of_row, |hidden, of_logits| {
        let Some(of_hidden) = chunks_of_hidden.next() else { return };
        let tokens = of_hidden.len() / d_model;
        MatrixMut::new(of_hidden, tokens, d_model).set(of_logits, weight, Store::Set, Cores::All);
        let mut of_weight = MatrixMut::new(&mut of_weight, vocab, d_model);
        of_weight.set(of_logits.t(), hidden, Store::Add, Cores::All);
    });
    (
        Tensor::from_floats([(loss * scale) as f32], &device),
        Tensor::from_primitive::<Flex>(tensor(of_hidden, [tokens, d_model])),
        Tensor::from_primitive::<Flex>(tensor(of_weight, [vocab, d_model])),
    )
}

/// The loss of one token, whose logits become their gradients times `scale`.
#[inline(always)]
fn loss_and_gradient_of_row(row: &mut [f32], label: usize, logit_scale: f32, scale: f32) -> f64 {
    let (loss, sum) = loss_and_sum_of_row(row, label, logit_scale);
    let factor = scale * logit_scale / sum;
    row.iter_mut().for_each(|x| *x *= factor);
    row[label] -= scale * logit_scale;
    loss
}

/// Unscaled sum of the losses.
///
/// # Shapes
///
/// As in [`loss_and_gradients`].
pub(crate) fn summed_loss(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    labels: &[i32],
    logit_scale: f64,
) -> f64 {
    let [vocab, d_model] = weight.dims();
    let [hidden, weight] = [hidden, weight].map(|x| contiguous(off_graph(x.into_dispatch())));
    let weight = Matrix::new(weight.storage(), vocab, d_model);
    let of_row = |row: &mut [f32], label: Option<usize>| match label {
        Some(label) => loss_and_sum_of_row(row, label, logit_scale as f32).0,
        None => 0.0,
    };
    sum_over_tokens(hidden.storage(), weight, labels, of_row, |_, _| {})
}

/// The sum of what `of_row` gives for the logits and the label of each token, if it has one. `of_chunk` is then shown the
/// hidden states of a chunk, `[chunk, d_model]`, and what became of their logits, `[chunk, vocab_size]`.
fn sum_over_tokens(
    hidden: &[f32],
    weight: Matrix<'_>,
    labels: &[i32],
    of_row: impl Fn(&mut [f32], Option<usize>) -> f64 + Sync,
    mut of_chunk: impl FnMut(Matrix<'_>, Matrix<'_>),
) -> f64 {
    let [vocab, d_model] = weight.shape();
    let mut logits = vec![0.0; CHUNK_TOKENS.min(labels.len()) * vocab];
    let mut sum = 0.0;
    for (hidden, labels) in hidden.chunks(CHUNK_TOKENS * d_model).zip(labels.chunks(CHUNK_TOKENS)) {
        let tokens = labels.len();
        let hidden = Matrix::new(hidden, tokens, d_model);
        let logits = &mut logits[..tokens * vocab];
        MatrixMut::new(logits, tokens, vocab).set(hidden, weight.t(), Store::Set, Cores::All);
        // Below 0 there is no label.
        let rows = logits.par_chunks_mut(vocab).zip(labels);
        let losses = rows.map(|(row, &label)| vectorized(|| of_row(row, label.try_into().ok())));
        sum += losses.collect::<Vec<f64>>().into_iter().sum::<f64>();
        of_chunk(hidden, Matrix::new(logits, tokens, vocab));
    }
    sum
}

/// The loss of one token, whose logits become e to the power of what they are below the largest, and the sum of these.
#[inline(always)]
fn loss_and_sum_of_row(row: &mut [f32], label: usize, logit_scale: f32) -> (f64, f32) {
    let (largest, of_label) = (max(row) * logit_scale, row[label] * logit_scale);
    row.iter_mut().for_each(|x| *x = exp(*x * logit_scale - largest));
    let sum = sum(row, |x| x);
    (f64::from(largest - of_label) + f64::from(sum).ln(), sum)
}
