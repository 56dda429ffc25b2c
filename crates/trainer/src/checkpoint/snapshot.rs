//! A run's whole state at one instant, on its way into files.
//!
//! On the CPU its tensors are the run's own, which costs the training thread nothing: the optimizer finds them shared and
//! puts new ones in their place. So while a checkpoint is written, parameters and moments exist twice from the next step of
//! the optimizer on. Tensors on another device are copied to this machine's memory first, since that device may have no
//! room for a second set.

use std::borrow::Cow;

use burn::tensor::{Device, Tensor};
use safetensors::Dtype;
use safetensors::tensor::View;

use super::State;
use super::tensors::{FIRST, SECOND};
use crate::device::is_cpu;
use crate::model::{Gpt, ParameterSpec, flat_parameters};
use crate::optim::Optimizer;

// Files have little-endian numbers, and so has this machine's memory.
const _: () =
    assert!(cfg!(target_endian = "little"), "checkpoints are written as they lie in memory");

/// What a checkpoint is made of.
#[derive(Debug)]
pub struct Snapshot {
    /// Position, data position, configuration.
    pub(super) state: State,
    /// The parameters, by their names.
    pub(super) model: Vec<SharedTensor>,
    /// Their moments, by the names that they have in a file; none with `save_weights_only`.
    pub(super) moments: Vec<SharedTensor>,
}

/// A tensor that is read when it is written to a file.
#[derive(Debug)]
pub(super) struct SharedTensor {
    pub(super) name: String,
    shape: Vec<usize>,
    /// In this machine's memory.
    flat: Tensor<1>,
}

impl Snapshot {
    /// The run at `state`.
    pub fn take(state: State, model: &Gpt, optimizer: &Optimizer) -> Self {
        let specs = model.parameters();
        let mut moments = Vec::new();
        if !state.is_of_weights_only() {
            let [first, second] = optimizer.flat_moments();
            moments = shared(FIRST, &specs, first);
            moments.extend(shared(SECOND, &specs, second));
        }
        Self { state, model: shared("", &specs, flat_parameters(model)), moments }
    }
}

/// `flat` under the names of `specs`, with `prefix` before each.
fn shared(prefix: &str, specs: &[ParameterSpec], flat: Vec<Tensor<1>>) -> Vec<SharedTensor> {
    let tensors = specs.iter().zip(flat);
    tensors
        .map(|(spec, flat)| SharedTensor {
            name: format!("{prefix}{}", spec.name),
            shape: spec.shape.clone(),
            flat: on_host(flat),
        })
        .collect()
}

fn on_host(flat: Tensor<1>) -> Tensor<1> {
    match is_cpu(&flat.device()) {
        true => flat,
        false => Tensor::from_data(flat.into_data(), &Device::flex()),
    }
}

impl View for &SharedTensor {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.flat.to_data().as_bytes().to_vec())
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * size_of::<f32>()
    }
}
