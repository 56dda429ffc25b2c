//! Operations on the CPU, fused and on all cores, where Burn's own are neither.
//!
//! Burn's CPU backend multiplies matrices well; around the products it makes one pass over memory, mostly on one core,
//! for every arithmetic step, and differentiates attention through its stored scores. What takes most of a step is
//! therefore written here as single operations with a backward of their own:
//!
//! | file | operation |
//! |---|---|
//! | `function.rs` | [`Function`](function::Function): how an operation with its own backward joins Burn's graph |
//! | `matrix.rs` | matrix products into memory that is there already |
//! | `vector.rs` | passes over rows in the widest instructions of the processor: exponentials, sums |
//! | `linear.rs` | a linear layer, with the activation function before it |
//! | `norm.rs` | LayerNorm and RMSNorm |
//! | `norm_linear.rs` | a linear layer with the norm before it |
//! | `attention.rs` | causal attention, a block of queries at a time |
//! | `cross_entropy.rs` | the loss over the vocabulary, its gradient in the place of the logits |
//! | `adamw.rs` | an optimizer step in place, and norms of gradients |
//!
//! Each is asked for where the composed form of Burn's operations stands, if [`computes`] says so: on the CPU in fp32. The
//! tests compare both. Work is cut into the same pieces on any number of cores, so that results do not depend on it.

mod adamw;
mod attention;
mod cross_entropy;
mod function;
mod linear;
mod matrix;
mod norm;
mod norm_linear;
mod vector;

pub(crate) use adamw::{AdamWStep, adamw_step, scale, sum_of_squares};
pub(crate) use attention::{Attention, attention, packed_attention};
pub(crate) use cross_entropy::{loss_and_gradients, summed_loss};
pub(crate) use linear::linear;
pub(crate) use norm::norm;
pub(crate) use norm_linear::norm_linear;

use burn::tensor::{DType, Tensor};

use crate::device::is_cpu;

/// Whether operations on `x` can be computed here.
pub(crate) fn computes<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && is_cpu(&x.device().inner())
}

#[cfg(test)]
mod tests {
    use burn::tensor::activation::{gelu, gelu_approximate, relu, silu};
    use burn::tensor::module::layer_norm;
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::config::{Activation, GeluKind, NormType};

    /// Numbers around 0, the same for the same seed.
    fn noise<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<D> {
        let mut state = seed;
        let values: Vec<f32> = (0..shape.iter().product::<usize>())
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 40) as f32 / (1u64 << 22) as f32 - 2.0
            })
            .collect();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex().autodiff()).require_grad()
    }

    fn assert_close<const D: usize>(a: Tensor<D>, b: Tensor<D>, what: &str) {
        assert_eq!(a.dims(), b.dims(), "{what}");
        let size = b.clone().abs().max().into_scalar::<f32>();
        let worst = (a - b).abs().max().into_scalar::<f32>();
        assert!(worst <= 3e-6 * size.max(1.0), "{what}: {worst} of {size}");
    }

    /// Values and gradients of both, of inputs that are long enough for several threads.
    fn assert_equal(
        inputs: (Tensor<2>, Tensor<2>, Option<Tensor<1>>),
        fused: impl Fn(Tensor<2>, Tensor<2>, Option<Tensor<1>>) -> Tensor<2>,
        composed: impl Fn(Tensor<2>, Tensor<2>, Option<Tensor<1>>) -> Tensor<2>,
        what: &str,
    ) {
        let (x, weight, bias) = inputs;
        let of = |f: &dyn Fn(Tensor<2>, Tensor<2>, Option<Tensor<1>>) -> Tensor<2>| {
            let y = f(x.clone(), weight.clone(), bias.clone());
            let mut graph = (y.clone() * noise(y.dims(), 9).detach()).sum().backward();
            let bias = bias.as_ref().map(|bias| bias.grad_remove(&mut graph).unwrap());
            let (x, weight) = (x.grad_remove(&mut graph), weight.grad_remove(&mut graph));
            (y.inner(), x.unwrap(), weight.unwrap(), bias)
        };
        let (a, b) = (of(&fused), of(&composed));
        assert_close(a.0, b.0, &format!("{what}: value"));
        assert_close(a.1, b.1, &format!("{what}: gradient at x"));
        assert_close(a.2, b.2, &format!("{what}: gradient at the weight"));
        if let (Some(a), Some(b)) = (a.3, b.3) {
            assert_close(a, b, &format!("{what}: gradient at the bias"));
        }
    }

    #[test]
    fn a_linear_layer_with_each_activation_is_the_composed_one() {
        let gelu_of = |approximate| Activation::Gelu { approximate };
        type Function = fn(Tensor<2>) -> Tensor<2>;
        let functions: [(Option<Activation>, Function); 5] = [
            (None, |x| x),
            (Some(gelu_of(GeluKind::None)), gelu),
            (Some(gelu_of(GeluKind::Tanh)), gelu_approximate),
            (Some(Activation::Silu), silu),
            (Some(Activation::Relu), relu),
        ];
        for (activation, function) in functions {
            for bias in [Some(noise([65], 3)), None] {
                let inputs = (noise([700, 97], 1), noise([97, 65], 2), bias);
                assert_equal(
                    inputs,
                    |x, weight, bias| linear(activation, x, weight, bias),
                    |x, weight, bias| {
                        let y = function(x).matmul(weight);
                        match bias {
                            Some(bias) => y + bias.unsqueeze(),
                            None => y,
                        }
                    },
                    &format!("{activation:?}"),
                );
            }
        }
    }

    #[test]
    fn norms_are_the_composed_ones() {
        let flat = |weight: Tensor<2>| weight.reshape([97]);
        for bias in [Some(noise([97], 3)), None] {
            assert_equal(
                (noise([700, 97], 1), noise([1, 97], 2), bias),
                |x, weight, bias| norm(NormType::LayerNorm, 1e-5, x, flat(weight), bias),
                |x, weight, bias| layer_norm(x, flat(weight), bias, 1e-5),
                "LayerNorm",
            );
        }
        assert_equal(
            (noise([700, 97], 1), noise([1, 97], 2), None),
            |x, weight, _| norm(NormType::RmsNorm, 1e-5, x, flat(weight), None),
            |x, weight, _| x.clone() / (x.square().mean_dim(1) + 1e-5).sqrt() * weight,
            "RMSNorm",
        );
    }

    #[test]
    fn a_norm_before_a_linear_layer_is_the_two_one_after_the_other() {
        let (x, weight) = (noise([700, 97], 1), noise([97, 65], 2));
        let norm_weight = noise([97], 4);
        for (kind, norm_bias) in [
            (NormType::LayerNorm, Some(noise([97], 5))),
            (NormType::LayerNorm, None),
            (NormType::RmsNorm, None),
        ] {
            for bias in [Some(noise([65], 3)), None] {
                let inputs = (x.clone(), weight.clone(), bias);
                let of_norms = |fused: bool| {
                    let (x, weight, bias) = inputs.clone();
                    let of_norm = (norm_weight.clone(), norm_bias.clone());
                    let y = if fused {
                        norm_linear((kind, 1e-5), x, of_norm, (weight, bias))
                    } else {
                        linear(None, norm(kind, 1e-5, x, of_norm.0, of_norm.1), weight, bias)
                    };
                    let mut graph = (y.clone() * noise(y.dims(), 9).detach()).sum().backward();
                    let of_norm_bias =
                        norm_bias.as_ref().map(|b| b.grad_remove(&mut graph).unwrap());
                    let of_bias = inputs.2.as_ref().map(|b| b.grad_remove(&mut graph).unwrap());
                    let flat = [
                        Some(y.inner().reshape([700 * 65])),
                        inputs.0.grad_remove(&mut graph).map(|x| x.reshape([700 * 97])),
                        inputs.1.grad_remove(&mut graph).map(|x| x.reshape([97 * 65])),
                        norm_weight.grad_remove(&mut graph),
                        of_norm_bias,
                        of_bias,
                    ];
                    flat.into_iter().flatten().collect::<Vec<_>>()
                };
                let (fused, apart) = (of_norms(true), of_norms(false));
                let both = usize::from(norm_bias.is_some()) + usize::from(inputs.2.is_some());
                assert_eq!((fused.len(), apart.len()), (4 + both, 4 + both));
                for (index, (a, b)) in fused.into_iter().zip(apart).enumerate() {
                    assert_close(a, b, &format!("{kind:?}: tensor {index}"));
                }
            }
        }
    }

    /// With one projection of all three and from tensors apart: 3 blocks of queries, the last not full, 4 heads of
    /// queries for each of keys.
    #[test]
    fn both_forms_of_attention_agree() {
        let (batch, seq, head_dim) = (2, 150, 16);
        let attention_of = Attention { heads: 8, kv_heads: 2, head_dim, scale: 0.3 };
        let qkv = noise([batch, seq, 12 * head_dim], 1);
        let heads = |first: usize, count: usize| {
            let part = qkv.clone().narrow(2, first * head_dim, count * head_dim);
            part.reshape([batch, seq, count, head_dim]).swap_dims(1, 2) // [B, heads, T, D]
        };
        let apart = attention(attention_of, heads(0, 8), heads(8, 2), heads(10, 2));
        let apart = apart.swap_dims(1, 2).reshape([batch, seq, 8 * head_dim]);
        let packed = packed_attention(attention_of, qkv.clone());
        let gradient = |y: Tensor<3>| {
            let weighted = (y * noise([batch, seq, 8 * head_dim], 5).detach()).sum();
            qkv.grad_remove(&mut weighted.backward()).unwrap()
        };
        assert_close(packed.clone().inner(), apart.clone().inner(), "value");
        assert_close(gradient(packed), gradient(apart), "gradient");
    }

    /// Else a run would not notice that its numbers are none.
    #[test]
    fn activations_keep_what_is_no_number() {
        for activation in [
            Activation::Relu,
            Activation::Silu,
            Activation::Gelu { approximate: GeluKind::None },
            Activation::Gelu { approximate: GeluKind::Tanh },
        ] {
            let device = Device::flex().autodiff();
            let x = Tensor::<2>::from_floats([[f32::NAN]], &device).require_grad();
            let y = linear(Some(activation), x.clone(), noise([1, 1], 1), None);
            let gradient = x.grad_remove(&mut y.clone().sum().backward()).unwrap();
            assert!(y.into_scalar::<f32>().is_nan(), "{activation:?}");
            let is_passed_on = !gradient.is_nan().into_scalar::<bool>();
            assert!(is_passed_on == (activation == Activation::Relu), "{activation:?}");
        }
    }

    #[test]
    fn a_constant_may_be_among_the_inputs() {
        let weight = noise([7, 3], 2);
        let y = linear(None, noise([5, 7], 1).detach(), weight.clone(), None);
        assert!(weight.grad_remove(&mut y.sum().backward()).is_some());
        let y = linear(None, Tensor::from_inner(noise([5, 7], 1).inner()), weight.clone(), None);
        assert!(weight.grad_remove(&mut y.sum().backward()).is_some());
    }

    #[test]
    fn off_the_graph_values_are_the_same() {
        let (x, weight) = (noise([5, 7], 1), noise([7, 3], 2));
        let tracked = linear(None, x.clone(), weight.clone(), None);
        let plain = linear(None, x.inner(), weight.inner(), None);
        assert_close(plain, tracked.inner(), "value");
    }

    #[test]
    fn norms_and_scales_of_long_tensors() {
        let x = noise([70_001], 1).inner();
        let expected: f64 = x.to_data().iter::<f64>().map(|x| x * x).sum();
        let got = sum_of_squares(x.clone());
        assert!((got - expected).abs() < 1e-6 * expected, "{got} {expected}");
        assert_close(scale(x.clone(), 0.3), x.clone().mul_scalar(0.3), "scaled");
        // What others use is not written to.
        assert_close(x, noise([70_001], 1).inner(), "unchanged");
    }

    #[test]
    fn an_optimizer_step_is_the_formula_and_leaves_shared_memory_alone() {
        let step = AdamWStep {
            kept: 0.9,
            betas: [0.9, 0.95],
            taken: [0.1, 0.05],
            eps: 0.3,
            step_size: 0.5,
            second_correction: 0.7,
        };
        let [p, m, v, g] = [1, 2, 3, 4].map(|seed| noise([70_001], seed).inner());
        let v = v.abs();
        let before = p.clone();
        let [new_p, new_m, new_v] = adamw_step(step, [p, m.clone(), v.clone()], g.clone());
        let m = m.mul_scalar(0.9) + g.clone().mul_scalar(0.1);
        let v = v.mul_scalar(0.95) + g.square().mul_scalar(0.05);
        let update = m.clone() / (v.clone().sqrt().div_scalar(0.7) + 0.3);
        assert_close(new_p, before.clone().mul_scalar(0.9) - update.mul_scalar(0.5), "parameter");
        assert_close(new_m, m, "first moment");
        assert_close(new_v, v, "second moment");
        assert_close(before, noise([70_001], 1).inner(), "unchanged");
    }
}
