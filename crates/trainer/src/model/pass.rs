//! What all blocks share in one forward: the arithmetic, and where the tokens stand (rotations, slopes, masks).

use std::ops::Range;

use burn::tensor::{Bool, Device, FloatDType, Int, Tensor, TensorData};

use crate::config::{ModelConfig, RopeScaling, Separator};

/// One forward pass.
#[derive(Clone, Debug)]
pub struct Pass<'a> {
    /// The model's configuration.
    pub config: &'a ModelConfig,
    /// The type that matrix products are computed in. Norms, softmax and the residual stream are f32 always.
    pub dtype: FloatDType,
    /// Cosine and sine of each position's angles, `[1, 1, T, D]` each.
    rotation: Option<[Tensor<4>; 2]>,
    /// True where a key must not be seen although it lies before the query: `[B or 1, 1, T, S]`.
    pub(super) apart: Option<Tensor<4, Bool>>,
    /// The position of the key less that of the query, `[1, 1, T, S]`, and the slope of each head, `[1, H, 1, 1]`: their
    /// product is added to the scores.
    alibi: Option<[Tensor<4>; 2]>,
}

impl<'a> Pass<'a> {
    /// The pass of all tokens, the first `past` of which are in a cache: there remain `T` of `S`.
    ///
    /// # Shapes
    ///
    /// - tokens: `[batch, past + seq]`
    pub fn of(
        config: &'a ModelConfig,
        dtype: FloatDType,
        tokens: &Tensor<2, Int>,
        past: usize,
    ) -> Self {
        let ([_, seq], device) = (tokens.dims(), tokens.device());
        let attention = &config.attn_config;
        let documents = attention.separator.filter(|_| attention.attn_uses_sequence_id);
        let window = attention.sliding_window_size.filter(|&size| size + 1 < seq);
        let outside_window =
            window.map(|size| distances(past..seq, &device).lower_elem(-(size as i64))); // [1, 1, T, S]
        let across_documents = documents.map(|separator| across(tokens.clone(), separator, past)); // [B, 1, T, S]
        Self {
            config,
            dtype,
            rotation: attention.rope.then(|| rotation(config, past..seq, &device)),
            apart: match (outside_window, across_documents) {
                (Some(outside), Some(across)) => Some(across.bool_or(outside)),
                (outside, across) => outside.or(across),
            },
            alibi: attention.alibi.then(|| {
                let slopes = slopes(config.n_heads, attention.alibi_bias_max);
                let slopes = TensorData::new(slopes, [1, config.n_heads, 1, 1]);
                [distances(past..seq, &device).float(), Tensor::from_data(slopes, &device)]
            }),
        }
    }

    /// Whether every token sees all that lies before it as it is.
    pub(super) fn is_plain(&self) -> bool {
        self.apart.is_none() && self.alibi.is_none()
    }

    /// Queries or keys, turned to their positions: the two halves of a head are the coordinates of `D / 2` points, as
    /// in GPT-NeoX and Llama.
    ///
    /// # Shapes
    ///
    /// - x: `[batch, heads, seq, head_dim]`
    /// - output: `[batch, heads, seq, head_dim]`
    pub(super) fn rotate(&self, x: Tensor<4>) -> Tensor<4> {
        let Some([cos, sin]) = &self.rotation else { return x };
        // Angles of far positions need more bits than a half-precision type has.
        let x = x.cast(FloatDType::F32);
        let half = x.dims()[3] / 2;
        let (first, second) = (x.clone().narrow(3, 0, half), x.clone().narrow(3, half, half)); // [B, H, T, D/2]
        let turned = Tensor::cat(vec![second.neg(), first], 3); // [B, H, T, D]
        (x * cos.clone() + turned * sin.clone()).cast(self.dtype)
    }

    /// What is added to the scores, `[1, H, T, S]`.
    pub(super) fn bias(&self) -> Option<Tensor<4>> {
        self.alibi.as_ref().map(|[distances, slopes]| distances.clone() * slopes.clone())
    }
}

/// The position of the key less that of the query, for queries at these positions: `[1, 1, T, S]`.
fn distances(queries: Range<usize>, device: &Device) -> Tensor<4, Int> {
    let (seq, keys) = (queries.len(), queries.end);
    let positions = |range: Range<usize>| {
        Tensor::<1, Int>::arange(range.start as i64..range.end as i64, device)
    };
    positions(0..keys).reshape([1, 1, 1, keys]) - positions(queries).reshape([1, 1, seq, 1])
}

/// True where query and key are of different documents, for queries from `past` on: `[B, 1, T, S]`.
fn across(tokens: Tensor<2, Int>, separator: Separator, past: usize) -> Tensor<4, Bool> {
    let [batch, seq] = tokens.dims();
    let document = match separator {
        Separator::Bos(id) => tokens.equal_elem(id).int().cumsum(1),
        // The token that ends a document is still of it.
        Separator::Eos(id) => {
            let ends = tokens.equal_elem(id).int();
            ends.clone().cumsum(1) - ends
        }
    }; // [B, T]
    let of_key = document.clone().reshape([batch, 1, 1, seq]);
    let of_query = document.narrow(1, past, seq - past).reshape([batch, 1, seq - past, 1]);
    (of_key - of_query).not_equal_elem(0) // [B, 1, T, S]
}

/// ALiBi's slopes (Press et al. 2022): `2^(-max k / n)` for k = 1 to n, where n is the number of heads; if that is no
/// power of 2, every second one of the next power of 2, then the others, as many as there are heads.
fn slopes(n_heads: usize, bias_max: f64) -> Vec<f32> {
    let n = n_heads.next_power_of_two();
    let slope = |k: usize| (-bias_max * k as f64 / n as f64).exp2() as f32;
    if n == n_heads {
        return (1..=n).map(slope).collect();
    }
    let even = (2..=n).step_by(2);
    even.chain((1..=n).step_by(2)).map(slope).take(n_heads).collect()
}

/// Cosine and sine of `position · frequency`, the frequencies twice, for both halves of a head: `[1, 1, T, D]` each.
fn rotation(config: &ModelConfig, positions: Range<usize>, device: &Device) -> [Tensor<4>; 2] {
    let frequencies = frequencies(config, positions.end);
    let head_dim = 2 * frequencies.len();
    [f64::cos, f64::sin].map(|function| {
        let of_position = |position: usize| {
            let half = frequencies.iter().map(move |frequency| position as f64 * frequency);
            half.clone().chain(half).map(|angle| function(angle) as f32)
        };
        let values: Vec<f32> = positions.clone().flat_map(of_position).collect();
        Tensor::from_data(TensorData::new(values, [1, 1, positions.len(), head_dim]), device)
    })
}

/// The angle between two neighbouring positions in each plane: `theta^(-2k / D)` (Su et al. 2021), stretched as
/// `rope_hf_config` says.
fn frequencies(config: &ModelConfig, seq: usize) -> Vec<f64> {
    let attention = &config.attn_config;
    let dim = config.head_dim() as f64;
    let with_base = |base: f64| {
        (0..config.head_dim() / 2).map(|k| base.powf(-2.0 * k as f64 / dim)).collect::<Vec<f64>>()
    };
    let plain = with_base(attention.rope_theta);
    match attention.rope_hf_config {
        RopeScaling::NoScaling => plain,
        RopeScaling::Linear { factor } => plain.into_iter().map(|f| f / factor).collect(),
        // The base that makes the longest wave `factor` times as long at `factor` times the length.
        RopeScaling::Dynamic { factor } => match seq as f64 / config.max_seq_len as f64 {
            longer if longer > 1.0 => {
                let stretch = factor * longer - (factor - 1.0);
                with_base(attention.rope_theta * stretch.powf(dim / (dim - 2.0)))
            }
            _ => plain,
        },
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => {
            let stretched = |frequency: f64| {
                let waves =
                    original_max_position_embeddings as f64 * frequency / std::f64::consts::TAU;
                // 0 for long wavelengths, 1 for short ones.
                let short = (waves - low_freq_factor) / (high_freq_factor - low_freq_factor);
                let short = short.clamp(0.0, 1.0);
                (1.0 - short) * frequency / factor + short * frequency
            };
            plain.into_iter().map(stretched).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_are_those_of_the_paper() {
        assert_eq!(
            slopes(8, 8.0),
            [0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.00390625]
        );
        // Of 4 heads' slopes 1/4, 1/16, 1/64, 1/256: the second and the fourth, then the first.
        assert_eq!(slopes(3, 8.0), [0.0625, 0.00390625, 0.25]);
    }

    #[test]
    fn documents_end_with_one_token_or_begin_with_another() {
        let tokens = Tensor::<2, Int>::from_data([[5, 9, 5, 5]], &Device::flex());
        let apart = |separator| {
            across(tokens.clone(), separator, 0).into_data().iter::<bool>().collect::<Vec<_>>()
        };
        let (t, f) = (true, false);
        assert_eq!(apart(Separator::Eos(9)), [f, f, t, t, f, f, t, t, t, t, f, f, t, t, f, f]);
        assert_eq!(apart(Separator::Bos(9)), [f, t, t, t, t, f, f, f, t, f, f, f, t, f, f, f]);
    }
}
