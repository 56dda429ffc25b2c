//! The gradients of one optimizer step: accumulated over microbatches, measured.

use burn::tensor::Tensor;

use super::norms::{norms, sum_of_squares};
use crate::cpu;

/// One gradient per parameter, flattened, in the order of [`Gpt::parameters`](crate::model::Gpt::parameters).
#[derive(Clone, Debug)]
pub struct Gradients {
    flat: Vec<Tensor<1>>,
}

impl Gradients {
    pub(crate) fn new(flat: Vec<Tensor<1>>) -> Self {
        Self { flat }
    }

    /// The flat gradients, in parameter order.
    pub fn into_flat(self) -> Vec<Tensor<1>> {
        self.flat
    }

    /// The sum of two contributions, parameter by parameter.
    pub fn accumulate(self, other: Self) -> Self {
        Self { flat: self.flat.into_iter().zip(other.flat).map(|(a, b)| a + b).collect() }
    }

    /// All gradients times `factor`.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        self.map(|g| if cpu::computes(&g) { cpu::scale(g, factor) } else { g.mul_scalar(factor) })
    }

    /// The L2 norm over all gradients together. Waits for them to be computed.
    pub fn global_norm(&self) -> f64 {
        self.norm_on_device().map_or(0.0, |norm| norm.into_scalar::<f32>().into())
    }

    /// The same, `[1]`, still on the device; none of no gradients.
    pub fn norm_on_device(&self) -> Option<Tensor<1>> {
        let squares = self.squares();
        (!squares.is_empty()).then(|| Tensor::cat(squares, 0).sum().sqrt())
    }

    /// The L2 norm of each gradient, in parameter order. Waits for them to be computed.
    pub fn norms(&self) -> Vec<f64> {
        norms(self.squares())
    }

    fn squares(&self) -> Vec<Tensor<1>> {
        self.flat.iter().map(|gradient| sum_of_squares(gradient.clone())).collect()
    }

    /// Every gradient replaced by what `change` makes of it.
    pub(super) fn map(self, change: impl FnMut(Tensor<1>) -> Tensor<1>) -> Self {
        Self { flat: self.flat.into_iter().map(change).collect() }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use burn::tensor::Device;

    pub(in crate::optim) fn gradients() -> Gradients {
        let device = Device::flex();
        Gradients::new(vec![
            Tensor::from_floats([3.0, 0.0], &device),
            Tensor::from_floats([0.0, -4.0, 0.0], &device),
        ])
    }

    pub(in crate::optim) fn values(gradients: Gradients) -> Vec<Vec<f32>> {
        gradients.into_flat().into_iter().map(|g| g.into_data().try_to_vec().unwrap()).collect()
    }

    #[test]
    fn the_norm_is_over_all_parameters_together() {
        assert_eq!(gradients().global_norm(), 5.0);
        assert_eq!(gradients().norms(), [3.0, 4.0]);
    }

    #[test]
    fn contributions_add_up() {
        let sum = gradients().accumulate(gradients());
        assert_eq!(values(sum), [vec![6.0, 0.0], vec![0.0, -8.0, 0.0]]);
    }
}
