//! How an operation with a backward of its own joins Burn's graph.

use std::fmt::Debug;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::{Autodiff, BackendTensor, BackendTypes, DispatchKindConversion};
use burn::backend::{DispatchTensor, Flex, TensorMetadata as _};
use burn::tensor::{Tensor, TensorData};

/// A tensor on the CPU, off any graph.
pub(super) type CpuTensor = <Flex as BackendTypes>::FloatTensorPrimitive;

/// An operation on `N` tensors.
pub(super) trait Function<const N: usize>: Clone + Debug + Send + 'static {
    /// What the forward leaves for the backward.
    type Saved: Clone + Debug + Send + 'static;

    /// The result.
    fn forward(&self, inputs: [CpuTensor; N]) -> (CpuTensor, Self::Saved);

    /// The gradients at the inputs, of that at the result; those not `wanted` may be left out.
    fn backward(
        &self,
        saved: Self::Saved,
        gradient: CpuTensor,
        wanted: [bool; N],
    ) -> [Option<CpuTensor>; N];
}

/// The result of `function`, on the graph if the inputs are on one.
pub(super) fn apply<const N: usize, const D: usize, F: Function<N>>(
    function: F,
    inputs: [DispatchTensor; N],
) -> Tensor<D> {
    let is_tracked =
        inputs.iter().any(|input| primitive::<Autodiff<Flex>>(input.clone()).is_some());
    if !is_tracked {
        let (output, _) = function.forward(inputs.map(off_graph));
        return Tensor::from_primitive::<Flex>(output);
    }
    let inputs = inputs.map(|input| match primitive::<Autodiff<Flex>>(input.clone()) {
        Some(tracked) => tracked,
        // A constant among the inputs.
        None => <Autodiff<Flex> as burn::backend::AutodiffBackend>::from_inner(off_graph(input)),
    });
    let nodes = inputs.each_ref().map(|input| input.node());
    let (output, saved) = function.forward(inputs.map(|input| input.into_primitive()));
    let step = Step(function).prepare::<NoCheckpointing>(nodes).compute_bound().stateful();
    Tensor::from_primitive::<Autodiff<Flex>>(match step {
        OpsKind::Tracked(step) => step.finish(saved, output),
        OpsKind::UnTracked(step) => step.finish(output),
    })
}

/// The numbers of a tensor off any graph, of which this is the only user if the caller was.
pub(super) fn off_graph(tensor: DispatchTensor) -> CpuTensor {
    primitive::<Flex>(tensor)
        .expect("callers ask `computes` first, so this is a CPU tensor in fp32")
}

/// A tensor `shape` of these numbers.
pub(super) fn tensor(values: Vec<f32>, shape: impl Into<Vec<usize>>) -> CpuTensor {
    CpuTensor::from_data(TensorData::new(values, shape.into()))
}

/// The same tensor with its numbers one after the other, in order, from the beginning of its memory.
pub(super) fn contiguous(tensor: CpuTensor) -> CpuTensor {
    let is_whole = tensor.is_contiguous()
        && tensor.layout().start_offset() == 0
        && tensor.storage::<f32>().len() == tensor.shape().num_elements();
    if is_whole { tensor } else { tensor.to_contiguous() }
}

fn primitive<B>(tensor: DispatchTensor) -> Option<B::FloatTensorPrimitive>
where
    B: burn::backend::Backend,
    DispatchTensor: DispatchKindConversion<B>,
{
    match <DispatchTensor as DispatchKindConversion<B>>::try_into_backend(tensor) {
        Ok(BackendTensor::Float(tensor)) => Some(tensor),
        _ => None,
    }
}

/// A function's place in the graph.
#[derive(Debug)]
struct Step<F>(F);

impl<const N: usize, F: Function<N>> Backward<Flex, N> for Step<F> {
    type State = F::Saved;

    fn backward(self, ops: Ops<F::Saved, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = contiguous(gradients.consume::<Flex>(&ops.node));
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let of_inputs = self.0.backward(ops.state, gradient, wanted);
        for (parent, gradient) in ops.parents.into_iter().zip(of_inputs) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                gradients.register::<Flex>(parent.id, gradient);
            }
        }
    }
}
