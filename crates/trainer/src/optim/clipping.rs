//! Keeping gradients from being too large, in one of three ways (`algorithms.gradient_clipping`):
//!
//! | `clipping_type` | what is limited by the threshold λ |
//! |---|---|
//! | `norm` | the L2 norm over all gradients together: `g ← g · min(1, λ / (‖g‖ + 1e-6))`, as in PyTorch |
//! | `value` | every element: `g ← max(−λ, min(λ, g))` |
//! | `adaptive` | the norm of each unit's gradient, against that of its weights |
//!
//! Adaptive clipping is that of Brock et al. 2021, "High-Performance Large-Scale Image Recognition Without
//! Normalization", section 4. For every unit i of a parameter with weights W and gradient G,
//!
//! ```text
//! Gᵢ ← Gᵢ · min(1, λ · max(‖Wᵢ‖, 1e-3) / ‖Gᵢ‖)
//! ```
//!
//! A unit is what computes one output: a column of a matrix (they are `[in, out]`), a row of an embedding or of an untied
//! head (`[V, C]`), the whole of a bias or of a norm's scale. Composer has the same formula without the `max`: there a unit whose weights are all 0, as
//! every bias begins, is never moved.

use burn::tensor::Tensor;

use super::Gradients;
use crate::config::{ClippingType, GradientClipping};
use crate::cpu;
use crate::model::{Gpt, ParameterSpec, flat_parameters};

/// Weights smaller than this count as this large in adaptive clipping.
const SMALLEST_UNIT: f64 = 1e-3;

impl Gradients {
    /// Limits gradients whose [global norm](Self::norm_on_device) is `norm`, `[1]`, those of `model`. On a GPU nothing is
    /// waited for.
    pub fn clip(self, clipping: &GradientClipping, norm: &Tensor<1>, model: &Gpt) -> Self {
        let threshold = clipping.clipping_threshold;
        match clipping.clipping_type {
            ClippingType::Norm if cpu::computes(norm) => {
                let norm = f64::from(norm.clone().into_scalar::<f32>());
                match threshold / (norm + 1e-6) {
                    coefficient if coefficient < 1.0 => self.scaled(coefficient),
                    // They need not be touched.
                    _ => self,
                }
            }
            ClippingType::Norm => self.clip_on_device(threshold, norm),
            ClippingType::Value => self.map(|g| g.clamp(-threshold, threshold)),
            ClippingType::Adaptive => {
                let units = model.parameters().into_iter().zip(flat_parameters(model));
                let mut units = units.map(|(spec, weights)| (Units::of(&spec), weights));
                self.map(|g| match units.next() {
                    Some((units, weights)) => units.clip(g, weights, threshold),
                    None => g,
                })
            }
        }
    }

    /// Where the coefficient is not known to the host.
    fn clip_on_device(self, threshold: f64, norm: &Tensor<1>) -> Self {
        let coefficient = norm.clone().add_scalar(1e-6).recip().mul_scalar(threshold); // [1]
        let coefficient = coefficient.clamp_max(1.0);
        self.map(|g| g * coefficient.clone()) // [elements] · [1]
    }
}

/// How the elements of a parameter belong to units.
enum Units {
    /// All to one.
    Whole,
    /// Each row of `[rows, columns]` is one.
    Rows([usize; 2]),
    /// Each column is one.
    Columns([usize; 2]),
}

impl Units {
    fn of(spec: &ParameterSpec) -> Self {
        match spec.shape[..] {
            [rows, columns] if spec.is_table() => Self::Rows([rows, columns]),
            [rows, columns] => Self::Columns([rows, columns]),
            _ => Self::Whole,
        }
    }

    /// # Shapes
    ///
    /// - gradient, weights: the flat parameter `[elements]`
    /// - output: `[elements]`
    fn clip(&self, gradient: Tensor<1>, weights: Tensor<1>, threshold: f64) -> Tensor<1> {
        let [elements] = gradient.dims();
        // Seen as a matrix whose units lie along `dim`.
        let (shape, dim) = match *self {
            Self::Whole => ([1, elements], 1),
            Self::Rows(shape) => (shape, 1),
            Self::Columns(shape) => (shape, 0),
        };
        let gradient = gradient.reshape(shape); // [R, C]
        let norm = |x: Tensor<2>| x.square().sum_dim(dim).sqrt(); // [R, 1] or [1, C]
        let largest = norm(weights.reshape(shape)).clamp_min(SMALLEST_UNIT).mul_scalar(threshold);
        // Where the gradient is 0 this is infinite, and then 1.
        let coefficient = (largest / norm(gradient.clone())).clamp_max(1.0);
        (gradient * coefficient).reshape([elements])
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::super::gradients::tests::{gradients, values};
    use super::*;
    use crate::config::ModelConfig;
    use crate::model::tiny_config;

    fn clip(clipping_type: ClippingType, clipping_threshold: f64) -> Vec<Vec<f32>> {
        let model = Gpt::init(&tiny_config(), 1, &Device::flex());
        let clipping = GradientClipping { clipping_type, clipping_threshold };
        values(gradients().clip(&clipping, &gradients().norm_on_device().unwrap(), &model))
    }

    #[test]
    fn the_norm_is_over_all_parameters_together() {
        let coefficient = 1.0 / (5.0 + 1e-6);
        assert_eq!(
            clip(ClippingType::Norm, 1.0),
            [vec![(3.0 * coefficient) as f32, 0.0], vec![0.0, (-4.0 * coefficient) as f32, 0.0]]
        );
    }

    #[test]
    fn the_norm_need_not_be_known_to_the_host() {
        let clip = |threshold: f64| {
            let norm = gradients().norm_on_device().unwrap();
            values(gradients().clip_on_device(threshold, &norm))
        };
        for (clipped, expected) in clip(1.0).concat().iter().zip([0.6f32, 0.0, 0.0, -0.8, 0.0]) {
            assert!((clipped - expected).abs() < 1e-6, "{clipped} {expected}");
        }
        assert_eq!(clip(5.1), values(gradients()));
    }

    #[test]
    fn gradients_within_the_limit_are_untouched() {
        assert_eq!(clip(ClippingType::Norm, 5.1), values(gradients()));
        assert_eq!(clip(ClippingType::Value, 4.0), values(gradients()));
    }

    #[test]
    fn values_are_limited_one_by_one() {
        assert_eq!(clip(ClippingType::Value, 3.5), [vec![3.0, 0.0], vec![0.0, -3.5, 0.0]]);
    }

    #[test]
    fn a_unit_is_limited_by_the_size_of_its_weights() {
        let device = Device::flex();
        let clip = |units: Units, weights: [f32; 4]| -> Vec<f32> {
            let gradient = Tensor::from_floats([3.0, 0.0, 4.0, 0.0], &device);
            let weights = Tensor::from_floats(weights, &device);
            units.clip(gradient, weights, 0.5).into_data().try_to_vec().unwrap()
        };
        // Norms of the weights 2 and 0, of the gradients 3 and 4: both are too large.
        assert_eq!(clip(Units::Rows([2, 2]), [0.0, 2.0, 0.0, 0.0]), [1.0, 0.0, 5e-4, 0.0]);
        // Of the columns 4 and 0, and 5 and 0.
        assert_eq!(clip(Units::Columns([2, 2]), [0.0, 0.0, 4.0, 0.0]), [1.2, 0.0, 1.6, 0.0]);
        // Of all 20 and 5.
        assert_eq!(clip(Units::Whole, [0.0, 20.0, 0.0, 0.0]), [3.0, 0.0, 4.0, 0.0]);
    }

    #[test]
    fn only_embeddings_and_the_head_have_rows_for_units() {
        let rows = |config: &ModelConfig| -> Vec<String> {
            let specs = Gpt::init(config, 1, &Device::flex()).parameters().into_iter();
            let rows = specs.filter(|spec| matches!(Units::of(spec), Units::Rows(_)));
            rows.map(|spec| spec.name).collect()
        };
        assert_eq!(rows(&tiny_config()), ["wte.weight", "wpe.weight"]);
        let untied = ModelConfig { tie_word_embeddings: false, ..tiny_config() };
        assert_eq!(
            rows(&untied),
            ["transformer.wte.weight", "transformer.wpe.weight", "lm_head.weight"]
        );
    }
}
