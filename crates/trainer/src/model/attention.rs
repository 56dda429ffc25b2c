//! Causal self-attention behind one function, so that the way it is computed is a choice made in one place.

use burn::tensor::activation::softmax;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, FloatDType, Tensor};

use super::{Dropout, Pass};
use crate::config::ModelConfig;
use crate::cpu;

/// How [`causal_attention`] is computed. Both routes give the same values up to rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionRoute {
    /// Flash attention: no mask tensor, no stored scores. Burn's where the device has it, our own on the CPU. With ALiBi,
    /// a window, documents apart or dropout on the weights, which neither knows, the composed route is taken.
    Fused,
    /// Scores, masks, softmax and product as separate operations: the reference.
    Composed,
}

impl AttentionRoute {
    /// The route that `model.attn_impl` names.
    pub fn of(config: &ModelConfig) -> Self {
        if config.attn_impl == "torch" { Self::Composed } else { Self::Fused }
    }
}

/// Softmax(q·kᵀ·scale) · v over the keys at or before each query, with what the model's `attn_config` adds to that.
/// Each head of keys and values serves `heads / kv_heads` neighbouring heads of queries.
///
/// # Shapes
///
/// - `q`: `[batch, heads, seq, head_dim]`
/// - `k`, `v`: `[batch, kv_heads, keys, head_dim]`; the last of them belongs to the last query
/// - output: `[batch, heads, seq, head_dim]`
pub fn causal_attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    pass: &Pass<'_>,
    route: AttentionRoute,
    dropout: &mut Dropout,
) -> Tensor<4> {
    let config = pass.config;
    match route {
        AttentionRoute::Fused
            if q.dims()[2] == k.dims()[2] && computes_on_cpu(&q, pass, dropout) =>
        {
            cpu::attention(cpu::Attention::of(config), q, k, v)
        }
        AttentionRoute::Fused if is_plain(pass, dropout) => {
            let options = AttentionModuleOptions {
                scale: config.attn_config.softmax_scale,
                softcap: config.attn_config.attn_logit_softcapping,
                is_causal: true,
                ..Default::default()
            };
            burn::tensor::module::attention(q, k, v, None, None, options)
        }
        _ => composed(q, k, v, pass, dropout),
    }
}

/// Whether every token sees all that lies before it, as it is.
fn is_plain(pass: &Pass<'_>, dropout: &Dropout) -> bool {
    pass.is_plain() && !(pass.config.attn_pdrop > 0.0 && dropout.is_active())
}

/// Whether attention over all the tokens of `x` takes the fused route on the CPU.
pub(super) fn computes_on_cpu<const D: usize>(
    x: &Tensor<D>,
    pass: &Pass<'_>,
    dropout: &Dropout,
) -> bool {
    let config = pass.config;
    let attention = &config.attn_config;
    // What is not capped, and whose largest score can be found before it is scaled.
    let is_monotone = attention.attn_logit_softcapping.is_none()
        && attention.softmax_scale.is_none_or(|scale| scale > 0.0);
    let is_fused = AttentionRoute::of(config) == AttentionRoute::Fused;
    is_fused && is_plain(pass, dropout) && is_monotone && cpu::computes(x)
}

impl cpu::Attention {
    pub(super) fn of(config: &ModelConfig) -> Self {
        let (attention, head_dim) = (&config.attn_config, config.head_dim());
        Self {
            heads: config.n_heads,
            kv_heads: attention.kv_n_heads,
            head_dim,
            scale: attention.softmax_scale.unwrap_or(1.0 / (head_dim as f64).sqrt()),
        }
    }
}

fn composed(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    pass: &Pass<'_>,
    dropout: &mut Dropout,
) -> Tensor<4> {
    let config = pass.config;
    let ([_, heads, t, head_dim], [_, _, s, _]) = (q.dims(), k.dims());
    let (k, v) = (for_heads(k, heads), for_heads(v, heads)); // [B, H, S, D]
    let attention = &config.attn_config;
    let scale = attention.softmax_scale.unwrap_or(1.0 / (head_dim as f64).sqrt());
    // Scaling q costs T·D products, scaling the scores T·T.
    let scores = q.mul_scalar(scale).matmul(k.swap_dims(2, 3)).cast(FloatDType::F32); // [B, H, T, S]
    let scores = match attention.attn_logit_softcapping {
        Some(cap) => scores.div_scalar(cap).tanh().mul_scalar(cap),
        None => scores,
    };
    let scores = match pass.bias() {
        Some(bias) => scores + bias,
        None => scores,
    };
    // True where the key lies after the query.
    let future = Tensor::<2, Bool>::tril_mask([t, s], (s - t) as i64, &scores.device());
    let future = future.reshape([1, 1, t, s]); // [1, 1, T, S]
    let unseen = match &pass.apart {
        Some(apart) => apart.clone().bool_or(future), // [B or 1, 1, T, S]
        None => future,
    };
    let scores = scores.mask_fill(unseen, f32::NEG_INFINITY);
    let weights = dropout.apply(softmax(scores, 3), config.attn_pdrop); // [B, H, T, S]
    weights.cast(pass.dtype).matmul(v) // [B, H, T, D]
}

/// Heads of keys or values, each as often as it serves a head of queries: `[B, heads, S, D]`.
fn for_heads(x: Tensor<4>, heads: usize) -> Tensor<4> {
    let [batch, kv_heads, keys, head_dim] = x.dims();
    if kv_heads == heads {
        return x;
    }
    let shared = heads / kv_heads;
    x.reshape([batch, kv_heads, 1, keys, head_dim])
        .expand([batch, kv_heads, shared, keys, head_dim]) // [B, K/D, H·D/K, S, D]
        .reshape([batch, heads, keys, head_dim]) // [B, H, S, D]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AttentionConfig, Separator};
    use crate::model::tiny_config;
    use burn::tensor::{Device, Int, TensorData};

    fn noise(shape: [usize; 4], mut state: u64) -> TensorData {
        let values: Vec<f32> = (0..shape.iter().product::<usize>())
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
            })
            .collect();
        TensorData::new(values, shape)
    }

    /// Three heads of 8.
    fn config() -> ModelConfig {
        let config = ModelConfig { d_model: 24, n_heads: 3, ..tiny_config() };
        ModelConfig { attn_config: AttentionConfig::multi_head(3), ..config }
    }

    /// What the routes must agree on: plain, one head of keys for all, another scale and soft-capped scores, a scale below 0.
    fn configs() -> [ModelConfig; 4] {
        let [plain, mut shared, mut capped, mut negative] = [(); 4].map(|()| config());
        negative.attn_config.softmax_scale = Some(-0.7);
        shared.attn_config.kv_n_heads = 1;
        capped.attn_config.softmax_scale = Some(0.7);
        capped.attn_config.attn_logit_softcapping = Some(0.5);
        [plain, shared, capped, negative]
    }

    fn attend([q, k, v]: [Tensor<4>; 3], config: &ModelConfig, route: AttentionRoute) -> Tensor<4> {
        let [batch, _, seq, _] = q.dims();
        let tokens = Tensor::<2, Int>::zeros([batch, seq], &q.device());
        let pass = Pass::of(config, FloatDType::F32, &tokens, 0);
        causal_attention(q, k, v, &pass, route, &mut Dropout::off())
    }

    fn inputs(config: &ModelConfig, device: &Device) -> [Tensor<4>; 3] {
        let kv_heads = config.attn_config.kv_n_heads;
        [(1, 3), (2, kv_heads), (3, kv_heads)]
            .map(|(seed, heads)| Tensor::from_data(noise([2, heads, 70, 8], seed), device))
    }

    fn host(tensor: Tensor<4>) -> Vec<f32> {
        tensor.into_data().try_to_vec().unwrap()
    }

    fn output_and_gradients(route: AttentionRoute, config: &ModelConfig) -> [Vec<f32>; 4] {
        let device = Device::flex().autodiff();
        let [q, k, v] = inputs(config, &device).map(Tensor::require_grad);
        let out = attend([q.clone(), k.clone(), v.clone()], config, route);
        let weight = Tensor::<4>::from_data(noise([2, 3, 70, 8], 4), &device);
        let mut grads = (out.clone() * weight).sum().backward();
        let [dq, dk, dv] = [q, k, v].map(|x| host(x.grad_remove(&mut grads).unwrap()));
        [host(out), dq, dk, dv]
    }

    fn assert_close(a: &[f32], b: &[f32], what: &str) {
        let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 4e-6, "{what}: largest difference {worst}");
    }

    #[test]
    fn both_routes_agree_in_value_and_gradient() {
        for config in configs() {
            let fused = output_and_gradients(AttentionRoute::Fused, &config);
            let composed = output_and_gradients(AttentionRoute::Composed, &config);
            for (name, (fused, composed)) in
                ["output", "dq", "dk", "dv"].iter().zip(fused.iter().zip(&composed))
            {
                assert_close(fused, composed, name);
            }
        }
    }

    #[test]
    fn both_routes_agree_without_autodiff() {
        let device = Device::flex();
        for config in configs() {
            let [fused, composed] = [AttentionRoute::Fused, AttentionRoute::Composed]
                .map(|route| host(attend(inputs(&config, &device), &config, route)));
            assert_close(&fused, &composed, "output");
        }
    }

    #[test]
    fn no_output_depends_on_a_later_token() {
        let device = Device::flex();
        let shape = [1, 1, 6, 4];
        let config = ModelConfig { d_model: 4, n_heads: 1, ..tiny_config() };
        let config = ModelConfig { attn_config: AttentionConfig::multi_head(1), ..config };
        for route in [AttentionRoute::Fused, AttentionRoute::Composed] {
            let run = |last: f32| {
                let mut data = noise(shape, 5).try_to_vec::<f32>().unwrap();
                data[20..].fill(last);
                let x = Tensor::<4>::from_data(TensorData::new(data, shape), &device);
                host(attend([x.clone(), x.clone(), x], &config, route))
            };
            assert_eq!(run(1.0)[..20], run(-3.0)[..20], "{route:?}");
            assert_ne!(run(1.0)[20..], run(-3.0)[20..], "{route:?}");
        }
    }

    /// Token by token, which of the tokens before it moves the output.
    fn seen(config: &ModelConfig, tokens: [i32; 6]) -> Vec<String> {
        let device = Device::flex().autodiff();
        let shape = [1, 1, 6, 4];
        let tokens = Tensor::<2, Int>::from_data([tokens], &device);
        let pass = Pass::of(config, FloatDType::F32, &tokens, 0);
        let [q, k] = [1, 2].map(|seed| Tensor::<4>::from_data(noise(shape, seed), &device));
        let rows = (0..6).map(|row| {
            let v = Tensor::<4>::from_data(noise(shape, 3), &device).require_grad();
            let route = AttentionRoute::of(config);
            let (q, k) = (q.clone(), k.clone());
            let out = causal_attention(q, k, v.clone(), &pass, route, &mut Dropout::off());
            let mut grads = out.narrow(2, row, 1).sum().backward();
            let of_key = host(v.grad_remove(&mut grads).unwrap());
            of_key.chunks(4).map(|key| if key[0] > 0.0 { 'x' } else { '.' }).collect()
        });
        rows.collect()
    }

    #[test]
    fn a_window_and_the_ends_of_documents_hide_what_lies_before() {
        let config = ModelConfig { d_model: 4, n_heads: 1, ..tiny_config() };
        let plain = ModelConfig { attn_config: AttentionConfig::multi_head(1), ..config };
        let mut window = plain.clone();
        window.attn_config.sliding_window_size = Some(2);
        let expected = ["x.....", "xx....", "xxx...", ".xxx..", "..xxx.", "...xxx"];
        assert_eq!(seen(&window, [0; 6]), expected);

        let mut documents = plain;
        documents.attn_config.attn_uses_sequence_id = true;
        documents.attn_config.separator = Some(Separator::Eos(9));
        let expected = ["x.....", "xx....", "xxx...", "...x..", "...xx.", "....xx"];
        assert_eq!(seen(&documents, [1, 1, 9, 1, 1, 1])[..4], expected[..4]);
        assert_eq!(seen(&documents, [1, 1, 9, 1, 1, 1])[5], "...xxx");

        documents.attn_config.sliding_window_size = Some(1);
        let expected = ["x.....", "xx....", ".xx...", "...x..", "...xx.", "....xx"];
        assert_eq!(seen(&documents, [1, 1, 9, 1, 1, 1]), expected);
    }
}
