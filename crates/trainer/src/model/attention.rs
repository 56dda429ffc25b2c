//! Causal self-attention behind one function, so that the way it is computed is a choice made in one place.

use burn::tensor::activation::softmax;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, Tensor};

use super::Dropout;
use crate::config::ModelConfig;

/// How [`causal_attention`] is computed. Both routes give the same values up to rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionRoute {
    /// Burn's fused attention: flash attention where the device has it, no mask tensor, no stored scores.
    Fused,
    /// Scores, mask, softmax and product as separate operations: the reference, and the only route with dropout
    /// on the attention weights.
    Composed,
}

impl AttentionRoute {
    /// The route that `model.attn_impl` names.
    pub fn of(config: &ModelConfig) -> Self {
        if config.attn_impl == "torch" { Self::Composed } else { Self::Fused }
    }
}

/// Softmax(q·kᵀ/√D) · v over the keys at or before each query.
///
/// `pdrop` is the dropout probability of the attention weights; above 0 and with an active `dropout` the composed
/// route is taken, since the fused one never holds the weights.
///
/// # Shapes
///
/// - `q`, `k`, `v`: `[batch, heads, seq, head_dim]`
/// - output: `[batch, heads, seq, head_dim]`
pub fn causal_attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    route: AttentionRoute,
    pdrop: f64,
    dropout: &mut Dropout,
) -> Tensor<4> {
    let weights_are_dropped = pdrop > 0.0 && dropout.is_active();
    match route {
        AttentionRoute::Fused if !weights_are_dropped => {
            let causal = AttentionModuleOptions { is_causal: true, ..Default::default() };
            burn::tensor::module::attention(q, k, v, None, None, causal)
        }
        _ => composed(q, k, v, pdrop, dropout),
    }
}

fn composed(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    pdrop: f64,
    dropout: &mut Dropout,
) -> Tensor<4> {
    let [_, _, t, head_dim] = q.dims();
    let scale = 1.0 / (head_dim as f64).sqrt();
    // Scaling q costs T·D products, scaling the scores T·T.
    let scores = q.mul_scalar(scale).matmul(k.swap_dims(2, 3)); // [B, H, T, T]
    // True where the key lies after the query.
    let future = Tensor::<2, Bool>::tril_mask([t, t], 0, &scores.device()).reshape([1, 1, t, t]); // [1, 1, T, T]
    let scores = scores.mask_fill(future, f32::NEG_INFINITY);
    let weights = dropout.apply(softmax(scores, 3), pdrop); // [B, H, T, T]
    weights.matmul(v) // [B, H, T, D]
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    fn noise(shape: [usize; 4], mut state: u64) -> TensorData {
        let values: Vec<f32> = (0..shape.iter().product::<usize>())
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
            })
            .collect();
        TensorData::new(values, shape)
    }

    fn output_and_gradients(route: AttentionRoute, device: &Device) -> [Vec<f32>; 4] {
        let shape = [2, 3, 70, 8];
        let [q, k, v] =
            [1, 2, 3].map(|seed| Tensor::<4>::from_data(noise(shape, seed), device).require_grad());
        let out =
            causal_attention(q.clone(), k.clone(), v.clone(), route, 0.0, &mut Dropout::off());
        let weight = Tensor::<4>::from_data(noise(shape, 4), device);
        let mut grads = (out.clone() * weight).sum().backward();
        let [dq, dk, dv] = [q, k, v]
            .map(|x| x.grad_remove(&mut grads).unwrap().into_data().try_to_vec::<f32>().unwrap());
        [out.into_data().try_to_vec::<f32>().unwrap(), dq, dk, dv]
    }

    fn assert_close(a: &[f32], b: &[f32], what: &str) {
        let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 2e-6, "{what}: largest difference {worst}");
    }

    #[test]
    fn both_routes_agree_in_value_and_gradient() {
        let device = Device::flex().autodiff();
        let fused = output_and_gradients(AttentionRoute::Fused, &device);
        let composed = output_and_gradients(AttentionRoute::Composed, &device);
        for (name, (fused, composed)) in
            ["output", "dq", "dk", "dv"].iter().zip(fused.iter().zip(&composed))
        {
            assert_close(fused, composed, name);
        }
    }

    #[test]
    fn both_routes_agree_without_autodiff() {
        let device = Device::flex();
        let [q, k, v] =
            [1, 2, 3].map(|seed| Tensor::<4>::from_data(noise([2, 3, 70, 8], seed), &device));
        let [fused, composed] = [AttentionRoute::Fused, AttentionRoute::Composed].map(|route| {
            causal_attention(q.clone(), k.clone(), v.clone(), route, 0.0, &mut Dropout::off())
                .into_data()
                .try_to_vec::<f32>()
                .unwrap()
        });
        assert_close(&fused, &composed, "output");
    }

    #[test]
    fn no_output_depends_on_a_later_token() {
        let device = Device::flex();
        let shape = [1, 1, 6, 4];
        for route in [AttentionRoute::Fused, AttentionRoute::Composed] {
            let run = |last: f32| {
                let mut data = noise(shape, 5).try_to_vec::<f32>().unwrap();
                data[20..].fill(last);
                let x = Tensor::<4>::from_data(TensorData::new(data, shape), &device);
                causal_attention(x.clone(), x.clone(), x, route, 0.0, &mut Dropout::off())
                    .into_data()
                    .try_to_vec::<f32>()
                    .unwrap()
            };
            assert_eq!(run(1.0)[..20], run(-3.0)[..20], "{route:?}");
            assert_ne!(run(1.0)[20..], run(-3.0)[20..], "{route:?}");
        }
    }
}
