//! An AdamW step in place: each parameter with its moments and gradient in one pass over memory. And what is computed of
//! gradients before: norms, and their clipping.

use burn::backend::Flex;
use burn::tensor::Tensor;
use rayon::prelude::*;

use super::function::{CpuTensor, contiguous, off_graph};
use super::vector::{PIECE, sum, vectorized};

/// The numbers of a step; `optim/adamw.rs` says where they come from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdamWStep {
    /// What the decay leaves of a weight.
    pub(crate) kept: f32,
    pub(crate) betas: [f32; 2],
    /// Of a gradient, into each moment.
    pub(crate) taken: [f32; 2],
    pub(crate) eps: f32,
    pub(crate) step_size: f32,
    /// What the root of the second moment is divided by.
    pub(crate) second_correction: f32,
}

/// The next parameter and moments, all `[elements]`. Memory that nobody else uses is used again.
pub(crate) fn adamw_step(
    numbers: AdamWStep,
    [parameter, first, second]: [Tensor<1>; 3],
    gradient: Tensor<1>,
) -> [Tensor<1>; 3] {
    let gradient = contiguous(off_graph(gradient.into_dispatch()));
    let [mut parameter, mut first, mut second] =
        [parameter, first, second].map(|x| contiguous(off_graph(x.into_dispatch())));
    let pieces = parameter.storage_mut::<f32>().par_chunks_mut(PIECE);
    let pieces = pieces.zip(first.storage_mut::<f32>().par_chunks_mut(PIECE));
    let pieces = pieces.zip(second.storage_mut::<f32>().par_chunks_mut(PIECE));
    let pieces = pieces.zip(gradient.storage::<f32>().par_chunks(PIECE));
    pieces.for_each(|(((parameter, first), second), gradient)| {
        vectorized(|| {
            for (((p, m), v), g) in parameter.iter_mut().zip(first).zip(second).zip(gradient) {
                *m = *m * numbers.betas[0] + g * numbers.taken[0];
                *v = *v * numbers.betas[1] + g * g * numbers.taken[1];
                let root = v.sqrt() / numbers.second_correction + numbers.eps;
                *p = *p * numbers.kept - *m / root * numbers.step_size;
            }
        });
    });
    [parameter, first, second].map(Tensor::from_primitive::<Flex>)
}

/// `Σ xᵢ²`
pub(crate) fn sum_of_squares(x: Tensor<1>) -> f64 {
    let x = contiguous(off_graph(x.into_dispatch()));
    let pieces = x.storage::<f32>().par_chunks(PIECE);
    let sums = pieces.map(|piece| vectorized(|| f64::from(sum(piece, |x| x * x))));
    sums.collect::<Vec<_>>().into_iter().sum()
}

/// `x · factor`
pub(crate) fn scale(x: Tensor<1>, factor: f64) -> Tensor<1> {
    let mut x: CpuTensor = contiguous(off_graph(x.into_dispatch()));
    x.storage_mut::<f32>().par_chunks_mut(PIECE).for_each(|piece| {
        vectorized(|| piece.iter_mut().for_each(|x| *x *= factor as f32));
    });
    Tensor::from_primitive::<Flex>(x)
}
