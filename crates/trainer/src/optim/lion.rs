//! The update of Lion (Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms"), decay left out, in this order:
//!
//! ```text
//! update = lr_t · sign(β1·m + (1 − β1)·g)        sign(0) = 0
//! m ← β2·m + (1 − β2)·g
//! ```
//!
//! It has one moment and no eps. Every element moves by the learning rate, so that is to be several times smaller than
//! AdamW's.

use burn::tensor::Tensor;

use super::optimizer::Average;
use crate::config::OptimizerConfig;

/// What is the same for all parameters of one step.
pub(super) struct Lion {
    betas: [f64; 2],
    lr: f64,
}

impl Lion {
    /// For a step with learning rate `lr`.
    pub(super) fn new(config: &OptimizerConfig, lr: f64) -> Self {
        Self { betas: config.betas, lr }
    }

    /// Moves the moment of one parameter and returns what is to be taken off it.
    pub(super) fn update(&self, moment: &mut Average, gradient: Tensor<1>) -> Tensor<1> {
        let [beta1, beta2] = self.betas;
        let mixed = moment.value().mul_scalar(beta1) + gradient.clone().mul_scalar(1.0 - beta1);
        moment.take_in(gradient, beta2);
        mixed.sign().mul_scalar(self.lr)
    }
}
