//! Initial parameters, drawn from our own generator.
//!
//! | parameter | initial value |
//! |---|---|
//! | `wte`, `wpe`, `c_attn`, `c_fc` weights | N(0, init_std²) |
//! | `attn.c_proj`, `mlp.c_proj` weights (what each block adds to the residual stream) | N(0, init_std² / (2·n_layers)) |
//! | every bias | 0 |
//! | LayerNorm weight, bias | 1, 0 |
//!
//! The generator is PCG64 and the parameters are drawn one after another in the order of the table in
//! [`Gpt::parameters`](super::Gpt::parameters), so a seed means the same model on every device and in every version
//! of the tensor library.

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64;

/// Normal draws from a PCG64 stream.
pub(super) struct Normals {
    generator: Pcg64,
    /// Box-Muller makes two draws at a time; this is the one not handed out yet.
    spare: Option<f64>,
}

impl Normals {
    pub(super) fn new(seed: u64) -> Self {
        Self { generator: Pcg64::seed_from_u64(seed), spare: None }
    }

    /// One draw from N(0, 1).
    fn next(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        // (0, 1] for the logarithm, [0, 1) for the angle, 53 bits each.
        let unit = 1.0 / (1u64 << 53) as f64;
        let u = ((self.generator.next_u64() >> 11) + 1) as f64 * unit;
        let v = (self.generator.next_u64() >> 11) as f64 * unit;
        let radius = (-2.0 * u.ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * v).sin_cos();
        self.spare = Some(radius * sin);
        radius * cos
    }

    /// A trainable matrix of draws from N(0, std²), filled row by row.
    pub(super) fn matrix(
        &mut self,
        shape: [usize; 2],
        std: f64,
        device: &Device,
    ) -> Param<Tensor<2>> {
        let values: Vec<f32> =
            (0..shape[0] * shape[1]).map(|_| (self.next() * std) as f32).collect();
        Param::from_data(TensorData::new(values, shape), device)
    }
}

/// A trainable vector of zeros.
pub(super) fn zeros(len: usize, device: &Device) -> Param<Tensor<1>> {
    Param::from_data(TensorData::new(vec![0.0f32; len], [len]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_standard_normal() {
        let mut normals = Normals::new(17);
        let draws: Vec<f64> = (0..200_000).map(|_| normals.next()).collect();
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
            let mut normals = Normals::new(seed);
            (0..8).map(|_| normals.next()).collect::<Vec<_>>()
        };
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }
}
