//! The update of AdamW, decay left out. For step t (from 1), in this order:
//!
//! ```text
//! m ← β1·m + (1 − β1)·g
//! v ← β2·v + (1 − β2)·g²
//! update = lr_t / (1 − β1ᵗ) · m / (√v / √(1 − β2ᵗ) + eps)
//! ```

use burn::tensor::Tensor;

use super::optimizer::Average;
use crate::config::OptimizerConfig;
use crate::cpu;

/// What is the same for all parameters of one step.
pub(super) struct AdamW {
    betas: [f64; 2],
    eps: f64,
    /// `lr_t / (1 − β1ᵗ)`
    step_size: f64,
    /// `√(1 − β2ᵗ)`
    second_correction: f64,
}

impl AdamW {
    /// For step `step`, counted from 1, with learning rate `lr`.
    pub(super) fn new(config: &OptimizerConfig, step: u64, lr: f64) -> Self {
        let [beta1, beta2] = config.betas;
        let t = step.min(i32::MAX as u64) as i32;
        Self {
            betas: config.betas,
            eps: config.eps.unwrap_or(0.0),
            step_size: lr / (1.0 - beta1.powi(t)),
            second_correction: (1.0 - beta2.powi(t)).sqrt(),
        }
    }

    /// Moves the moments of one parameter and returns what is to be taken off it.
    pub(super) fn update(
        &self,
        first: &mut Average,
        second: &mut Average,
        gradient: Tensor<1>,
    ) -> Tensor<1> {
        let [beta1, beta2] = self.betas;
        let squared = gradient.clone().square();
        first.take_in(gradient, beta1);
        second.take_in(squared, beta2);
        let root = second.value().sqrt().div_scalar(self.second_correction);
        first.value().div(root.add_scalar(self.eps)).mul_scalar(self.step_size)
    }

    /// The same at once on the CPU, with the decay before it: the next parameter, of which `kept` is kept.
    pub(super) fn step(
        &self,
        kept: f64,
        parameter: Tensor<1>,
        first: &mut Average,
        second: &mut Average,
        gradient: Tensor<1>,
    ) -> Tensor<1> {
        let step = cpu::AdamWStep {
            kept: kept as f32,
            betas: self.betas.map(|beta| beta as f32),
            taken: self.betas.map(|beta| (1.0 - beta) as f32),
            eps: self.eps as f32,
            step_size: self.step_size as f32,
            second_correction: self.second_correction as f32,
        };
        let [parameter, m, v] =
            cpu::adamw_step(step, [parameter, first.take(), second.take()], gradient);
        first.put(m);
        second.put(v);
        parameter
    }
}
