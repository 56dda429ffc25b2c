//! A linear layer of what a norm makes of its input: the norm's output is computed again in the backward, instead of kept
//! until then.

use burn::tensor::Tensor;

use super::function::{CpuTensor, Function, apply, contiguous};
use super::linear::Linear;
use super::norm::Norm;
use crate::config::NormType;

/// `norm(x) · weight + bias`.
///
/// # Shapes
///
/// - x: `[tokens, d_in]`
/// - norm_weight, norm_bias: `[d_in]`
/// - weight: `[d_in, d_out]`
/// - bias: `[d_out]`
/// - output: `[tokens, d_out]`
pub(crate) fn norm_linear(
    (kind, eps): (NormType, f64),
    x: Tensor<2>,
    (norm_weight, norm_bias): (Tensor<1>, Option<Tensor<1>>),
    (weight, bias): (Tensor<2>, Option<Tensor<1>>),
) -> Tensor<2> {
    let layer = NormLinear { norm: Norm::new(kind, eps), has_norm_bias: norm_bias.is_some() };
    let (x, norm_weight, weight) =
        (x.into_dispatch(), norm_weight.into_dispatch(), weight.into_dispatch());
    match (norm_bias.map(Tensor::into_dispatch), bias.map(Tensor::into_dispatch)) {
        (Some(norm_bias), Some(bias)) => apply(layer, [x, norm_weight, norm_bias, weight, bias]),
        (Some(norm_bias), None) => apply(layer, [x, norm_weight, norm_bias, weight]),
        (None, Some(bias)) => apply(layer, [x, norm_weight, weight, bias]),
        (None, None) => apply(layer, [x, norm_weight, weight]),
    }
}

/// x, the norm's weight and possibly bias, the layer's weight and possibly bias.
#[derive(Clone, Debug)]
struct NormLinear {
    norm: Norm,
    has_norm_bias: bool,
}

/// What a norm reads: x, its weight, and possibly its bias.
type NormInputs = (CpuTensor, CpuTensor, Option<CpuTensor>);

impl NormLinear {
    /// The norm's output, and what its backward reads.
    fn normed(&self, (x, weight, bias): NormInputs) -> (CpuTensor, <Norm as Function<2>>::Saved) {
        match bias {
            Some(bias) => self.norm.forward([x, weight, bias]),
            None => self.norm.forward([x, weight]),
        }
    }
}

const LINEAR: Linear = Linear { activation: None };

impl<const N: usize> Function<N> for NormLinear {
    /// What the norm reads, and the layer's weight.
    type Saved = (NormInputs, CpuTensor);

    fn forward(&self, inputs: [CpuTensor; N]) -> (CpuTensor, Self::Saved) {
        let mut inputs = inputs.into_iter().map(contiguous);
        let (Some(x), Some(norm_weight)) = (inputs.next(), inputs.next()) else {
            unreachable!("a norm has an input and a weight")
        };
        let norm_bias = if self.has_norm_bias { inputs.next() } else { None };
        let Some(weight) = inputs.next() else { unreachable!("a linear layer has a weight") };
        let of_norm = (x, norm_weight, norm_bias);
        let (normed, _) = self.normed(of_norm.clone());
        let (output, _) = match inputs.next() {
            Some(bias) => LINEAR.forward([normed, weight.clone(), bias]),
            None => LINEAR.forward([normed, weight.clone()]),
        };
        (output, (of_norm, weight))
    }

    fn backward(
        &self,
        (of_norm, weight): Self::Saved,
        gradient: CpuTensor,
        _: [bool; N],
    ) -> [Option<CpuTensor>; N] {
        let (normed, saved) = self.normed(of_norm);
        let [of_normed, of_weight, of_bias] =
            Function::<3>::backward(&LINEAR, [normed, weight], gradient, [true; 3]);
        let Some(of_normed) = of_normed else { unreachable!("it was asked for") };
        let [of_x, of_norm_weight, of_norm_bias] =
            Function::<3>::backward(&self.norm, saved, of_normed, [true; 3]);
        let of_norm_bias = of_norm_bias.filter(|_| self.has_norm_bias);
        let has_bias = N == 4 + usize::from(self.has_norm_bias);
        // In the order of the inputs, without those that are not there.
        let mut gradients =
            [of_x, of_norm_weight, of_norm_bias, of_weight, of_bias.filter(|_| has_bias)]
                .into_iter()
                .flatten();
        std::array::from_fn(|_| gradients.next())
    }
}
