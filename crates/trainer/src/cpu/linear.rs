//! A linear layer, with the activation function before it.
//!
//! The function's input is kept for the backward, its output computed a second time there: for a feed-forward that is a
//! third of what automatic differentiation keeps, for one more pass.

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::function::{CpuTensor, Function, apply, contiguous, tensor};
use super::matrix::{Cores, Matrix, MatrixMut, Store, product};
use super::vector::{PIECE, column_sums, exp, normal_cdf, vectorized};
use crate::config::{Activation, GeluKind};

/// `activation(x) · weight + bias`.
///
/// # Shapes
///
/// - x: `[tokens, d_in]`
/// - weight: `[d_in, d_out]`
/// - bias: `[d_out]`
/// - output: `[tokens, d_out]`
pub(crate) fn linear(
    activation: Option<Activation>,
    x: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<2> {
    let linear = Linear { activation };
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    match bias {
        Some(bias) => apply(linear, [x, weight, bias.into_dispatch()]),
        None => apply(linear, [x, weight]),
    }
}

/// x, weight, and possibly a bias.
#[derive(Clone, Debug)]
pub(super) struct Linear {
    pub(super) activation: Option<Activation>,
}

impl<const N: usize> Function<N> for Linear {
    /// x and weight.
    type Saved = [CpuTensor; 2];

    fn forward(&self, inputs: [CpuTensor; N]) -> (CpuTensor, Self::Saved) {
        let mut inputs = inputs.into_iter().map(contiguous);
        let (Some(x), Some(weight)) = (inputs.next(), inputs.next()) else {
            unreachable!("a linear layer has an input and a weight")
        };
        let [tokens, d_in, d_out] = shape(&x, &weight);
        let activated = self.activation.map(|function| map(x.storage(), |x| value(function, x)));
        let a = Matrix::new(activated.as_deref().unwrap_or(x.storage()), tokens, d_in);
        let b = Matrix::new(weight.storage(), d_in, d_out);
        let output = match inputs.next() {
            Some(bias) => {
                let mut output = bias.storage::<f32>().repeat(tokens);
                MatrixMut::new(&mut output, tokens, d_out).set(a, b, Store::Add, Cores::All);
                output
            }
            None => product(a, b),
        };
        (tensor(output, [tokens, d_out]), [x, weight])
    }

    fn backward(
        &self,
        [x, weight]: Self::Saved,
        gradient: CpuTensor,
        wanted: [bool; N],
    ) -> [Option<CpuTensor>; N] {
        let [tokens, d_in, d_out] = shape(&x, &weight);
        let of_output = Matrix::new(gradient.storage(), tokens, d_out);
        let mut gradients = [const { None }; N];
        if wanted[1] {
            let activated =
                self.activation.map(|function| map(x.storage(), |x| value(function, x)));
            let x = Matrix::new(activated.as_deref().unwrap_or(x.storage()), tokens, d_in);
            gradients[1] = Some(tensor(product(x.t(), of_output), [d_in, d_out]));
        }
        if wanted[0] {
            let weight = Matrix::new(weight.storage(), d_in, d_out);
            let mut of_x = product(of_output, weight.t()); // [tokens, d_in]
            if let Some(function) = self.activation {
                times_slope(&mut of_x, x.storage(), |x| slope(function, x));
            }
            gradients[0] = Some(tensor(of_x, [tokens, d_in]));
        }
        if let (Some(true), Some(bias)) = (wanted.get(2), gradients.get_mut(2)) {
            *bias = Some(tensor(column_sums(gradient.storage(), d_out), [d_out]));
        }
        gradients
    }
}

/// tokens, d_in, d_out
fn shape(x: &CpuTensor, weight: &CpuTensor) -> [usize; 3] {
    let (x, weight) = (x.layout().shape(), weight.layout().shape());
    [x[0], x[1], weight[1]]
}

/// The function at x.
#[inline(always)]
fn value(function: Activation, x: f32) -> f32 {
    match function {
        Activation::Gelu { approximate: GeluKind::None } => x * normal_cdf(x)[0],
        Activation::Gelu { approximate: GeluKind::Tanh } => x * sigmoid(2.0 * inner(x)),
        Activation::Silu => x * sigmoid(x),
        // What is no number stays none.
        Activation::Relu => {
            if x < 0.0 {
                0.0
            } else {
                x
            }
        }
    }
}

/// Its derivative there.
#[inline(always)]
fn slope(function: Activation, x: f32) -> f32 {
    match function {
        Activation::Gelu { approximate: GeluKind::None } => {
            const DENSITY_AT_0: f32 = 0.398_942_3; // 1/√(2π)
            let [below, bell] = normal_cdf(x);
            below + x * DENSITY_AT_0 * bell
        }
        // x·σ(2u), of which the derivative is σ + 2x·σ·(1 − σ)·u′.
        Activation::Gelu { approximate: GeluKind::Tanh } => {
            let sigmoid = sigmoid(2.0 * inner(x));
            let of_inner = SQRT_2_OVER_PI * (1.0 + 3.0 * CUBIC * x * x);
            sigmoid + 2.0 * x * sigmoid * (1.0 - sigmoid) * of_inner
        }
        Activation::Silu => {
            let sigmoid = sigmoid(x);
            sigmoid + x * sigmoid * (1.0 - sigmoid)
        }
        Activation::Relu => {
            if x <= 0.0 {
                0.0
            } else {
                1.0
            }
        }
    }
}

const SQRT_2_OVER_PI: f32 = 0.797_884_6;
const CUBIC: f32 = 0.044_715;

/// What the approximation of GELU takes the tanh of; `(1 + tanh u) / 2 = σ(2u)`.
#[inline(always)]
fn inner(x: f32) -> f32 {
    SQRT_2_OVER_PI * (x + CUBIC * x * x * x)
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `f(x)` for each x.
fn map(x: &[f32], f: impl Fn(f32) -> f32 + Sync) -> Vec<f32> {
    let mut y = vec![0.0; x.len()];
    y.par_chunks_mut(PIECE).zip(x.par_chunks(PIECE)).for_each(|(y, x)| {
        vectorized(|| y.iter_mut().zip(x).for_each(|(y, x)| *y = f(*x)));
    });
    y
}

/// `gradient *= f(x)` for each x.
fn times_slope(gradient: &mut [f32], x: &[f32], f: impl Fn(f32) -> f32 + Sync) {
    gradient.par_chunks_mut(PIECE).zip(x.par_chunks(PIECE)).for_each(|(gradient, x)| {
        vectorized(|| gradient.iter_mut().zip(x).for_each(|(gradient, x)| *gradient *= f(*x)));
    });
}
