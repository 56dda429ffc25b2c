//! Initial parameters, drawn from our own generator.
//!
//! | scheme | weights of linear layers and embeddings |
//! |---|---|
//! | `baseline_` | N(0, init_std²) |
//! | `small_init_` | N(0, 2 / (5 d_model)) (Nguyen and Salazar 2019) |
//! | `neox_init_` | the same, with the divisor `n_layers / sqrt(10)` (Black et al. 2022) |
//! | `kaiming_normal_`, `kaiming_uniform_` | standard deviation `gain / sqrt(fan)` (He et al. 2015) |
//! | `xavier_normal_`, `xavier_uniform_` | standard deviation `gain sqrt(2 / (fan_in + fan_out))` (Glorot and Bengio 2010) |
//! | `default_` | PyTorch's: linear layers with their biases U(±1 / sqrt(fan_in)), embeddings N(0, 1), no divisor |
//!
//! The fans of the fused query-key-value projection are those of its three parts; those of an embedding its width (in)
//! and its rows (out). What writes to the residual stream (`attn.c_proj`, `mlp.c_proj`) is divided by
//! `init_div_is_residual`, by default `sqrt(2 n_layers)`. `emb_init_std` and `emb_init_uniform_lim` go before the scheme.
//! Biases are 0 (but under `default_`), the weights of norms 1.
//!
//! The generator is PCG64 and the parameters are drawn one after another in the order of
//! [`Gpt::parameters`](super::Gpt::parameters), so a seed means the same model on every device and in every version
//! of the tensor library.

use burn::module::Param;
use burn::nn::{Embedding, Linear};
use burn::tensor::{Device, Tensor, TensorData};
use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64;

use crate::config::{FanMode, InitScheme, ModelConfig, Nonlinearity, ResidualDivisor};

/// How one weight is distributed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Law {
    /// Mean 0 and this standard deviation.
    Normal(f64),
    /// From the first to the second.
    Uniform(f64, f64),
}

impl Law {
    fn divided_by(self, divisor: f64) -> Self {
        match self {
            Self::Normal(std) => Self::Normal(std / divisor),
            Self::Uniform(low, high) => Self::Uniform(low / divisor, high / divisor),
        }
    }
}

/// Makes the parameters of one model.
pub(super) struct Initializer<'a> {
    config: &'a ModelConfig,
    draws: Draws,
    device: &'a Device,
}

impl<'a> Initializer<'a> {
    pub(super) fn new(config: &'a ModelConfig, seed: u64, device: &'a Device) -> Self {
        Self { config, draws: Draws::new(seed), device }
    }

    /// A table `[rows, d_model]`.
    pub(super) fn embedding(&mut self, rows: usize) -> Embedding {
        let init = &self.config.init_config;
        let law = match (init.emb_init_std, init.emb_init_uniform_lim, init.name) {
            (Some(std), _, _) => Law::Normal(std),
            (None, Some([low, high]), _) => Law::Uniform(low, high),
            (None, None, InitScheme::Default) => Law::Normal(1.0),
            (None, None, _) => self.law(self.config.d_model, rows),
        };
        let d_model = self.config.d_model;
        Embedding { weight: self.matrix(rows, &[(d_model, law)]) }
    }

    /// The output projection `[vocab, d_model]` of a model whose head is not tied.
    pub(super) fn head(&mut self) -> Embedding {
        let (d_model, vocab_size) = (self.config.d_model, self.config.vocab_size);
        let law = self.law(d_model, vocab_size);
        Embedding { weight: self.matrix(vocab_size, &[(d_model, law)]) }
    }

    /// A layer `[d_in, sum of parts]`, whose parts are drawn as layers of their own.
    pub(super) fn linear(&mut self, d_in: usize, parts: &[usize]) -> Linear {
        let laws: Vec<_> = parts.iter().map(|&d_out| (d_out, self.law(d_in, d_out))).collect();
        self.linear_of(d_in, &laws)
    }

    /// A layer `[d_in, d_out]` that writes to the residual stream.
    pub(super) fn residual_linear(&mut self, d_in: usize, d_out: usize) -> Linear {
        let law = self.law(d_in, d_out).divided_by(self.residual_divisor());
        self.linear_of(d_in, &[(d_out, law)])
    }

    fn linear_of(&mut self, d_in: usize, laws: &[(usize, Law)]) -> Linear {
        let weight = self.matrix(d_in, laws);
        let d_out = laws.iter().map(|(columns, _)| columns).sum();
        let bias = (!self.config.no_bias).then(|| match self.config.init_config.name {
            InitScheme::Default => {
                let law = self.law(d_in, d_out);
                let values = (0..d_out).map(|_| self.draws.next(law) as f32).collect();
                Param::from_data(TensorData::new::<f32, _>(values, [d_out]), self.device)
            }
            _ => constant(0.0, d_out, self.device),
        });
        Linear { weight, bias }
    }

    /// The scheme's distribution for a layer of so many inputs and outputs.
    fn law(&self, fan_in: usize, fan_out: usize) -> Law {
        let init = &self.config.init_config;
        let (fan_in, fan_out) = (fan_in as f64, fan_out as f64);
        let fan = if init.fan_mode == FanMode::FanIn { fan_in } else { fan_out };
        let kaiming = || self.kaiming_gain() / fan.sqrt();
        let xavier = || init.init_gain * (2.0 / (fan_in + fan_out)).sqrt();
        // A uniform distribution has the standard deviation of its bound over sqrt(3).
        let uniform = |std: f64| Law::Uniform(-std * 3f64.sqrt(), std * 3f64.sqrt());
        match init.name {
            InitScheme::Baseline => Law::Normal(self.config.init_std),
            InitScheme::Small | InitScheme::Neox => {
                Law::Normal((2.0 / (5.0 * self.config.d_model as f64)).sqrt())
            }
            InitScheme::KaimingNormal => Law::Normal(kaiming()),
            InitScheme::KaimingUniform => uniform(kaiming()),
            InitScheme::XavierNormal => Law::Normal(xavier()),
            InitScheme::XavierUniform => uniform(xavier()),
            InitScheme::Default => Law::Uniform(-1.0 / fan_in.sqrt(), 1.0 / fan_in.sqrt()),
        }
    }

    fn kaiming_gain(&self) -> f64 {
        let init = &self.config.init_config;
        match init.init_nonlinearity {
            Nonlinearity::Relu => 2f64.sqrt(),
            Nonlinearity::LeakyRelu => (2.0 / (1.0 + init.init_gain.powi(2))).sqrt(),
            Nonlinearity::Linear => 1.0,
            Nonlinearity::Tanh => 5.0 / 3.0,
        }
    }

    fn residual_divisor(&self) -> f64 {
        let (init, layers) = (&self.config.init_config, self.config.n_layers as f64);
        match (init.name, init.init_div_is_residual) {
            (InitScheme::Default, _) => 1.0,
            (InitScheme::Neox, _) => layers / 10f64.sqrt(),
            (_, ResidualDivisor::ByDepth) => (2.0 * layers).sqrt(),
            (_, ResidualDivisor::Number(divisor)) => divisor,
        }
    }

    /// A trainable matrix, filled row by row; each group of columns follows its own law.
    fn matrix(&mut self, rows: usize, columns: &[(usize, Law)]) -> Param<Tensor<2>> {
        let width = columns.iter().map(|(columns, _)| columns).sum::<usize>();
        let mut values = Vec::with_capacity(rows * width);
        for _ in 0..rows {
            for &(columns, law) in columns {
                values.extend((0..columns).map(|_| self.draws.next(law) as f32));
            }
        }
        Param::from_data(TensorData::new(values, [rows, width]), self.device)
    }
}

/// Draws from a PCG64 stream.
struct Draws {
    generator: Pcg64,
    /// Box-Muller makes two normal draws at a time; this is the one not handed out yet.
    spare: Option<f64>,
}

impl Draws {
    fn new(seed: u64) -> Self {
        Self { generator: Pcg64::seed_from_u64(seed), spare: None }
    }

    fn next(&mut self, law: Law) -> f64 {
        match law {
            Law::Normal(std) => self.normal() * std,
            Law::Uniform(low, high) => low + (high - low) * self.uniform(),
        }
    }

    /// One draw from [0, 1), 53 bits.
    fn uniform(&mut self) -> f64 {
        (self.generator.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// One draw from N(0, 1).
    fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        // (0, 1] for the logarithm, [0, 1) for the angle.
        let u = self.uniform() + 1.0 / (1u64 << 53) as f64;
        let v = self.uniform();
        let radius = (-2.0 * u.ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * v).sin_cos();
        self.spare = Some(radius * sin);
        radius * cos
    }
}

/// A trainable vector of one value.
pub(super) fn constant(value: f32, len: usize, device: &Device) -> Param<Tensor<1>> {
    Param::from_data(TensorData::new(vec![value; len], [len]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_standard_normal() {
        let mut draws = Draws::new(17);
        let draws: Vec<f64> = (0..200_000).map(|_| draws.normal()).collect();
        let n = draws.len() as f64;
        let mean = draws.iter().sum::<f64>() / n;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        let beyond_two = draws.iter().filter(|x| x.abs() > 2.0).count() as f64 / n;
        assert!(mean.abs() < 0.01, "mean {mean}");
        assert!((variance - 1.0).abs() < 0.01, "variance {variance}");
        assert!((beyond_two - 0.0455).abs() < 0.002, "share beyond two sigma {beyond_two}");
    }

    #[test]
    fn a_seed_names_one_stream() {
        let draw = |seed| {
            let mut draws = Draws::new(seed);
            (0..8).map(|_| draws.normal()).collect::<Vec<_>>()
        };
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }
}
