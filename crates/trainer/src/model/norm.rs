//! LayerNorm and RMSNorm behind one module, with and without bias.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::module::layer_norm;
use burn::tensor::{Device, FloatDType, Tensor};

use super::init::constant;
use crate::config::{ModelConfig, NormType};
use crate::cpu;

/// A normalisation over the last dimension.
#[derive(Module, Debug)]
pub(super) struct Norm {
    /// `[width]`
    weight: Param<Tensor<1>>,
    /// `[width]`; RMSNorm has none.
    bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    kind: NormType,
    #[module(skip)]
    eps: f64,
}

impl Norm {
    /// Weight 1, bias 0.
    pub(super) fn init(config: &ModelConfig, width: usize, device: &Device) -> Self {
        let has_bias = config.norm_type == NormType::LayerNorm && !config.no_bias;
        Self {
            weight: constant(1.0, width, device),
            bias: has_bias.then(|| constant(0.0, width, device)),
            kind: config.norm_type,
            eps: config.norm_eps,
        }
    }

    /// # Shapes
    ///
    /// - x: `[..., width]`
    /// - output: `[..., width]`, of the same type; computed in f32
    pub(super) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let dtype = FloatDType::from(x.dtype());
        let (x, weight) = (x.cast(FloatDType::F32), self.weight.val());
        let bias = self.bias.as_ref().map(Param::val);
        let normal = match self.kind {
            kind if cpu::computes(&x) => cpu::norm(kind, self.eps, x, weight, bias),
            NormType::LayerNorm => layer_norm(x, weight, bias, self.eps),
            NormType::RmsNorm => {
                let mean_square = x.clone().square().mean_dim(D - 1); // [..., 1]
                x / (mean_square + self.eps).sqrt() * weight.unsqueeze()
            }
        };
        normal.cast(dtype)
    }

    /// The norm and a linear layer of its output at once, on the CPU.
    ///
    /// # Shapes
    ///
    /// - x: `[tokens, width]`
    /// - output: `[tokens, d_out]`
    pub(super) fn with_linear(&self, x: Tensor<2>, layer: &Linear) -> Tensor<2> {
        let of_norm = (self.weight.val(), self.bias.as_ref().map(Param::val));
        let of_layer = (layer.weight.val(), layer.bias.as_ref().map(Param::val));
        cpu::norm_linear((self.kind, self.eps), x, of_norm, of_layer)
    }
}
