//! Exact size of a model: parameters and the FLOPs of one token, without allocating anything.

use super::GptConfig;

/// Parameter count and FLOPs of a [`GptConfig`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelSize {
    /// Trainable parameters; the tied embedding counts once.
    pub parameters: u64,
    /// FLOPs of forward and backward per token at the full `max_seq_len`.
    pub train_flops_per_token: u64,
}

impl ModelSize {
    /// The size of the model that `config` describes.
    pub fn of(config: &GptConfig) -> Self {
        let [d, layers, vocab, seq] =
            [config.d_model, config.n_layers, config.vocab_size, config.max_seq_len]
                .map(|n| n as u64);
        let hidden = config.hidden_size() as u64;
        // With the usual mlp_ratio of 4 this is 12d² + 13d.
        let attention = d * 3 * d + 3 * d + d * d + d;
        let mlp = d * hidden + hidden + hidden * d + d;
        let norms = 4 * d;
        let parameters = layers * (attention + mlp + norms) + 2 * d + vocab * d + seq * d;
        // Forward 2 FLOPs per parameter and token, plus q·kᵀ and weights·v: 2·2·d·S per token and layer, counted
        // in full although the mask halves it (the convention of the MFU tables). Backward is twice the forward.
        let train_flops_per_token = 6 * parameters + 12 * layers * d * seq;
        Self { parameters, train_flops_per_token }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(d_model: usize, n_heads: usize, n_layers: usize, vocab_size: usize) -> ModelSize {
        ModelSize::of(&GptConfig {
            vocab_size,
            max_seq_len: 2048,
            d_model,
            n_heads,
            n_layers,
            ..GptConfig::default()
        })
    }

    #[test]
    fn the_published_parameter_counts_are_exact() {
        let table = [
            (768, 12, 12, 50257, 125_226_240),
            (768, 12, 12, 50368, 125_311_488),
            (1024, 16, 24, 50257, 355_871_744),
            (1536, 12, 24, 50257, 760_300_032),
            (2048, 16, 24, 50257, 1_315_723_264),
            (2560, 20, 32, 50257, 2_651_553_280),
            (4096, 32, 32, 50257, 6_658_404_352),
            (5120, 40, 40, 50257, 12_853_386_240),
            (7168, 56, 48, 50257, 29_974_418_432),
            (8192, 64, 80, 50257, 64_861_528_064),
        ];
        for (d, heads, layers, vocab, parameters) in table {
            assert_eq!(family(d, heads, layers, vocab).parameters, parameters, "d_model {d}");
        }
    }

    #[test]
    fn the_published_flops_per_token_are_met() {
        // 0.978 GFLOP for the 125M model, 2.739 for 350M.
        assert_eq!(family(768, 12, 12, 50257).train_flops_per_token / 1_000_000, 977);
        assert_eq!(family(1024, 16, 24, 50257).train_flops_per_token / 1_000_000, 2739);
    }
}
