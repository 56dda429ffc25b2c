//! LayerNorm and RMSNorm: one pass forward, one backward.

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::function::{CpuTensor, Function, apply, contiguous, tensor};
use super::vector::{rows_of_a_piece, sum, sum_of_pairs, sum_of_parts, vectorized};
use crate::config::NormType;

/// `(x − mean) / √(variance + eps) · weight + bias`, or for RMSNorm `x / √(mean of x² + eps) · weight`.
///
/// # Shapes
///
/// - x: `[..., width]`
/// - weight, bias: `[width]`
/// - output: `[..., width]`
pub(crate) fn norm<const D: usize>(
    kind: NormType,
    eps: f64,
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    let norm = Norm::new(kind, eps);
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    match bias {
        Some(bias) => apply(norm, [x, weight, bias.into_dispatch()]),
        None => apply(norm, [x, weight]),
    }
}

/// x, weight, and possibly a bias.
#[derive(Clone, Debug)]
pub(super) struct Norm {
    kind: NormType,
    eps: f32,
}

/// What is taken off each number of a row, and what it is multiplied by then.
type Moments = [f32; 2];

impl Norm {
    pub(super) fn new(kind: NormType, eps: f64) -> Self {
        Self { kind, eps: eps as f32 }
    }

    #[inline(always)]
    fn moments(&self, row: &[f32]) -> Moments {
        let width = row.len() as f32;
        let mean = match self.kind {
            NormType::LayerNorm => sum(row, |x| x) / width,
            NormType::RmsNorm => 0.0,
        };
        let variance = sum(row, |x| (x - mean) * (x - mean)) / width;
        [mean, 1.0 / (variance + self.eps).sqrt()]
    }
}

impl<const N: usize> Function<N> for Norm {
    /// x, weight, and the moments of each row.
    type Saved = (CpuTensor, CpuTensor, Vec<Moments>);

    fn forward(&self, inputs: [CpuTensor; N]) -> (CpuTensor, Self::Saved) {
        let mut inputs = inputs.into_iter().map(contiguous);
        let (Some(x), Some(weight)) = (inputs.next(), inputs.next()) else {
            unreachable!("a norm has an input and a weight")
        };
        let bias = inputs.next();
        let of_weight = weight.storage::<f32>();
        let of_bias = bias.as_ref().map(CpuTensor::storage::<f32>);
        let (numbers, width) = (x.storage::<f32>(), of_weight.len());
        let mut output = vec![0.0; numbers.len()];
        let mut moments = vec![[0.0; 2]; numbers.len() / width];
        let rows = rows_of_a_piece(width);
        let pieces = output.par_chunks_mut(rows * width).zip(numbers.par_chunks(rows * width));
        pieces.zip(moments.par_chunks_mut(rows)).for_each(|((output, numbers), moments)| {
            vectorized(|| {
                let rows = output.chunks_exact_mut(width).zip(numbers.chunks_exact(width));
                for ((output, row), moments) in rows.zip(moments) {
                    *moments = self.moments(row);
                    let [mean, scale] = *moments;
                    for ((output, x), weight) in output.iter_mut().zip(row).zip(of_weight) {
                        *output = (x - mean) * scale * weight;
                    }
                    if let Some(bias) = of_bias {
                        super::vector::add(output, bias);
                    }
                }
            });
        });
        let shape = x.layout().shape().to_vec();
        (tensor(output, shape), (x, weight, moments))
    }

    /// With x̂ the normalised row and ĝ = g · weight, the gradient at x is `scale · (ĝ − mean(ĝ) − x̂ · mean(ĝ·x̂))`, for
    /// RMSNorm without the first mean; at the weight it is the sum of g · x̂, at the bias that of g.
    fn backward(
        &self,
        (x, weight, moments): Self::Saved,
        gradient: CpuTensor,
        _: [bool; N],
    ) -> [Option<CpuTensor>; N] {
        let (weight, numbers) = (weight.storage::<f32>(), x.storage::<f32>());
        let width = weight.len();
        let mut of_x = vec![0.0; numbers.len()];
        let rows = rows_of_a_piece(width).max(16);
        let pieces = of_x.par_chunks_mut(rows * width).zip(numbers.par_chunks(rows * width));
        let pieces = pieces.zip(gradient.storage::<f32>().par_chunks(rows * width));
        let of_parameters =
            pieces.zip(moments.par_chunks(rows)).map(|(((of_x, x), g), moments)| {
                let (mut of_weight, mut of_bias) = (vec![0.0; width], vec![0.0; width]);
                vectorized(|| {
                    let rows = x.chunks_exact(width).zip(g.chunks_exact(width));
                    let rows = of_x.chunks_exact_mut(width).zip(rows).zip(moments);
                    for ((of_x, (x, g)), &[mean, scale]) in rows {
                        // ĝ in the place of the result.
                        for ((of_x, g), weight) in of_x.iter_mut().zip(g).zip(weight) {
                            *of_x = g * weight;
                        }
                        let share = scale / width as f32;
                        let with_x = share * sum_of_pairs(of_x, x, |g, x| g * ((x - mean) * scale));
                        let alone = match self.kind {
                            NormType::LayerNorm => share * sum(of_x, |g| g),
                            NormType::RmsNorm => 0.0,
                        };
                        let of_row = of_x.iter_mut().zip(x).zip(g);
                        for (((of_x, x), g), of_weight) in of_row.zip(&mut of_weight) {
                            let normal = (x - mean) * scale;
                            *of_weight += g * normal;
                            *of_x = scale * *of_x - alone - normal * with_x;
                        }
                        super::vector::add(&mut of_bias, g);
                    }
                });
                (of_weight, of_bias)
            });
        let (of_weight, of_bias): (Vec<_>, Vec<_>) = of_parameters.collect();
        let mut gradients = [const { None }; N];
        gradients[0] = Some(tensor(of_x, x.layout().shape().to_vec()));
        gradients[1] = Some(tensor(sum_of_parts(of_weight, width), [width]));
        if let Some(bias) = gradients.get_mut(2) {
            *bias = Some(tensor(sum_of_parts(of_bias, width), [width]));
        }
        gradients
    }
}
