//! The loss over the vocabulary, and its gradient in the place of the logits.

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::function::{contiguous, off_graph, tensor};
use super::matrix::{Cores, Into, Matrix, MatrixMut};
use super::vector::{exp, max, vectorized};
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
    let (hidden, weight) = (hidden.storage::<f32>(), Matrix::new(weight.storage(), vocab, d_model));
    let logit_scale = logit_scale as f32;
    let mut of_hidden = vec![0.0; tokens * d_model];
    let mut of_weight = vec![0.0; vocab * d_model];
    let mut logits = vec![0.0; CHUNK_TOKENS.min(tokens) * vocab];
    let mut loss = 0.0;
    let chunks = hidden.chunks(CHUNK_TOKENS * d_model).zip(labels.chunks(CHUNK_TOKENS));
    for ((hidden, labels), of_hidden) in chunks.zip(of_hidden.chunks_mut(CHUNK_TOKENS * d_model)) {
        let tokens = labels.len();
        let hidden = Matrix::new(hidden, tokens, d_model);
        let logits = &mut logits[..tokens * vocab];
        MatrixMut::new(logits, tokens, vocab).set(hidden, weight.t(), Into::Place, Cores::All);
        let losses = logits.par_chunks_mut(vocab).zip(labels).map(|(row, &label)| {
            // Below 0 there is no target.
            let Ok(label) = usize::try_from(label) else {
                row.fill(0.0);
                return 0.0;
            };
            vectorized(|| loss_and_gradient_of_row(row, label, logit_scale, scale as f32))
        });
        loss += losses.collect::<Vec<f64>>().into_iter().sum::<f64>() * scale;

        let of_logits = Matrix::new(logits, tokens, vocab);
        MatrixMut::new(of_hidden, tokens, d_model).set(of_logits, weight, Into::Place, Cores::All);
        MatrixMut::new(&mut of_weight, vocab, d_model).set(
            of_logits.t(),
            hidden,
            Into::Sum,
            Cores::All,
        );
    }
    (
        Tensor::from_floats([loss as f32], &device),
        Tensor::from_primitive::<burn::backend::Flex>(tensor(of_hidden, [tokens, d_model])),
        Tensor::from_primitive::<burn::backend::Flex>(tensor(of_weight, [vocab, d_model])),
    )
}

/// The loss of one token, whose logits become their gradients times `scale`.
#[inline(always)]
fn loss_and_gradient_of_row(row: &mut [f32], label: usize, logit_scale: f32, scale: f32) -> f64 {
    let largest = max(row) * logit_scale;
    let of_label = row[label] * logit_scale;
    let sum = exponentials(row, logit_scale, largest);
    let factor = scale * logit_scale / sum;
    row.iter_mut().for_each(|x| *x *= factor);
    row[label] -= scale * logit_scale;
    f64::from(largest - of_label) + f64::from(sum).ln()
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
    let ([tokens, d_model], [vocab, _]) = (hidden.dims(), weight.dims());
    let [hidden, weight] = [hidden, weight].map(|x| contiguous(off_graph(x.into_dispatch())));
    let (hidden, weight) = (hidden.storage::<f32>(), Matrix::new(weight.storage(), vocab, d_model));
    let mut logits = vec![0.0; CHUNK_TOKENS.min(tokens) * vocab];
    let mut loss = 0.0;
    for (hidden, labels) in hidden.chunks(CHUNK_TOKENS * d_model).zip(labels.chunks(CHUNK_TOKENS)) {
        let tokens = labels.len();
        let hidden = Matrix::new(hidden, tokens, d_model);
        let logits = &mut logits[..tokens * vocab];
        MatrixMut::new(logits, tokens, vocab).set(hidden, weight.t(), Into::Place, Cores::All);
        let losses = logits.par_chunks_mut(vocab).zip(labels).map(|(row, &label)| {
            let Ok(label) = usize::try_from(label) else { return 0.0 };
            let scale = logit_scale as f32;
            let (largest, of_label) = (max(row) * scale, row[label] * scale);
            let sum = vectorized(|| exponentials(row, scale, largest));
            f64::from(largest - of_label) + f64::from(sum).ln()
        });
        loss += losses.collect::<Vec<f64>>().into_iter().sum::<f64>();
    }
    loss
}

/// Replaces every logit by e to the power of what it is below the largest; returns their sum.
#[inline(always)]
fn exponentials(row: &mut [f32], logit_scale: f32, largest: f32) -> f32 {
    row.iter_mut().for_each(|x| *x = exp(*x * logit_scale - largest));
    super::vector::sum(row, |x| x)
}
