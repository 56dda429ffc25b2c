//! The L2 norms of what one step does to every parameter: what `optimizer_monitor` logs.

use burn::tensor::Tensor;

use crate::cpu;

/// Sums of squares, on the device until they are read, in parameter order.
#[derive(Debug, Default)]
pub struct StepNorms {
    /// Of the first moments after the step.
    moment: Vec<Tensor<1>>,
    /// Of the parameters after the step.
    param: Vec<Tensor<1>>,
    /// Of what the step changed, decay included.
    update: Vec<Tensor<1>>,
}

impl StepNorms {
    /// Takes in the next parameter, `before` and `after` the step, and its first moment.
    pub(super) fn take_in(&mut self, before: Tensor<1>, after: &Tensor<1>, moment: Tensor<1>) {
        self.moment.push(sum_of_squares(moment));
        self.update.push(sum_of_squares(after.clone() - before));
        self.param.push(sum_of_squares(after.clone()));
    }

    /// The norms under the words of their keys, in parameter order. Waits for them to be computed.
    pub fn read(self) -> [(&'static str, Vec<f64>); 3] {
        let parameters = self.param.len();
        let norms = norms([self.moment, self.param, self.update].concat());
        let of = |part: usize| norms[part * parameters..(part + 1) * parameters].to_vec();
        [("moment", of(0)), ("param", of(1)), ("update", of(2))]
    }
}

pub(super) fn sum_of_squares(flat: Tensor<1>) -> Tensor<1> {
    if cpu::computes(&flat) {
        let device = flat.device();
        return Tensor::from_floats([cpu::sum_of_squares(flat) as f32], &device);
    }
    flat.square().sum()
}

/// The roots of sums of squares, read in one go.
pub(super) fn norms(sums: Vec<Tensor<1>>) -> Vec<f64> {
    if sums.is_empty() {
        return Vec::new();
    }
    let norms = Tensor::cat(sums, 0).sqrt().into_data();
    norms
        .try_to_vec::<f32>()
        .expect("parameters and moments are f32 on every device this crate selects")
        .into_iter()
        .map(f64::from)
        .collect()
}
