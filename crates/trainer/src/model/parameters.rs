//! A model's parameters by name and in one fixed order: what the optimizer, gradient clipping and checkpoints see.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor, TensorData};

use super::Gpt;
use crate::config::ModelConfig;

/// Name and shape of one parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterSpec {
    /// Hugging Face's name of it: see [`crate::model`].
    pub name: String,
    /// Rows and columns, or one length.
    pub shape: Vec<usize>,
}

/// One parameter (or one of its moments) with its values on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// The parameter's name.
    pub name: String,
    /// The parameter's shape.
    pub shape: Vec<usize>,
    /// Values, row by row.
    pub values: Vec<f32>,
}

/// Why a set of tensors is not this model's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// A parameter of the model is not among the tensors.
    #[error("tensor {0} is missing")]
    Missing(String),
    /// A tensor's shape is not that of the model's parameter.
    #[error("tensor {name} has shape {found:?}, the configured model needs {expected:?}")]
    Shape {
        /// The parameter.
        name: String,
        /// The tensor's shape.
        found: Vec<usize>,
        /// The parameter's shape.
        expected: Vec<usize>,
    },
    /// A tensor belongs to no parameter of the model.
    #[error("tensor {0} belongs to no parameter of the configured model")]
    Unknown(String),
}

impl ParameterSpec {
    /// Whether this is a matrix `[V, C]` or `[S, C]`, with a row for each token or position: an embedding or the head.
    pub(crate) fn is_table(&self) -> bool {
        matches!(self.name.rsplit('.').nth(1), Some("wte" | "wpe" | "embed_tokens" | "lm_head"))
    }

    /// A flat tensor of this parameter's size, copied to the host under its name.
    pub(crate) fn with_values(&self, flat: Tensor<1>) -> NamedTensor {
        NamedTensor {
            name: self.name.clone(),
            shape: self.shape.clone(),
            values: host_values(flat),
        }
    }
}

impl Gpt {
    /// Every parameter's name and shape, in the one order used everywhere: `wte`, `wpe`, the blocks with `ln_1`,
    /// `attn`, `ln_2`, `mlp`, then `ln_f` and `lm_head`; weight before bias.
    pub fn parameters(&self) -> Vec<ParameterSpec> {
        let mut specs = Vec::new();
        self.visit(&mut Walk::new(self.config(), |name, tensor: AnyTensor| {
            specs.push(ParameterSpec { name, shape: tensor.shape })
        }));
        specs
    }

    /// Every parameter with its values copied to the host, in the order of [`parameters`](Self::parameters).
    pub fn to_named_tensors(&self) -> Vec<NamedTensor> {
        let mut tensors = Vec::new();
        self.visit(&mut Walk::new(self.config(), |name, tensor: AnyTensor| {
            tensors.push(NamedTensor {
                name,
                shape: tensor.shape,
                values: host_values(tensor.flat),
            });
        }));
        tensors
    }

    /// The model with every parameter replaced by the tensor of its name.
    ///
    /// # Errors
    ///
    /// A [`ParameterError`] when the tensors are not exactly this model's parameters; nothing is replaced then.
    pub fn with_named_tensors(self, tensors: Vec<NamedTensor>) -> Result<Self, ParameterError> {
        let ordered = in_parameter_order(&self.parameters(), tensors)?;
        let mut values = ordered.into_iter().map(|tensor| tensor.values);
        Ok(map_parameters(self, |_, old| match values.next() {
            Some(values) => Tensor::from_data(TensorData::new(values, old.shape()), &old.device()),
            None => old,
        }))
    }
}

/// The given tensors by the names of `specs`. Those of a Llama may have MPT's names, which older checkpoints have for it.
pub(crate) fn by_name(
    specs: &[ParameterSpec],
    tensors: Vec<NamedTensor>,
) -> BTreeMap<String, NamedTensor> {
    let is_llama = specs.first().is_some_and(|spec| spec.name.starts_with(LLAMA_PREFIX));
    let named = |tensor: NamedTensor| {
        let name = if is_llama { llama_name(&tensor.name) } else { tensor.name };
        (name.clone(), NamedTensor { name, ..tensor })
    };
    tensors.into_iter().map(named).collect()
}

/// The given tensors in the order of `specs`, each checked against its shape, under their names or [older ones](by_name).
pub(crate) fn in_parameter_order(
    specs: &[ParameterSpec],
    tensors: Vec<NamedTensor>,
) -> Result<Vec<NamedTensor>, ParameterError> {
    let mut by_name = by_name(specs, tensors);
    let mut ordered = Vec::with_capacity(specs.len());
    for spec in specs {
        let tensor =
            by_name.remove(&spec.name).ok_or_else(|| ParameterError::Missing(spec.name.clone()))?;
        if tensor.shape != spec.shape {
            let name = spec.name.clone();
            return Err(ParameterError::Shape {
                name,
                found: tensor.shape,
                expected: spec.shape.clone(),
            });
        }
        ordered.push(tensor);
    }
    match by_name.into_keys().next() {
        Some(name) => Err(ParameterError::Unknown(name)),
        None => Ok(ordered),
    }
}

/// The values of a flat tensor, copied to the host.
fn host_values(flat: Tensor<1>) -> Vec<f32> {
    flat.into_data()
        .try_to_vec()
        .expect("parameters and moments are f32 on every device this crate selects")
}

/// Each parameter flattened and off the graph, in parameter order.
pub(crate) fn flat_parameters(model: &Gpt) -> Vec<Tensor<1>> {
    let mut flat = Vec::new();
    model.visit(&mut Walk::new(model.config(), |_, tensor: AnyTensor| flat.push(tensor.flat)));
    flat
}

/// Each parameter's gradient flattened, in the order of a model's or a part's parameters; zeros for one that the loss does
/// not depend on.
pub(crate) fn collect_gradients(module: &impl Module, gradients: &mut Gradients) -> Vec<Tensor<1>> {
    struct Collect<'a> {
        gradients: &'a mut Gradients,
        flat: Vec<Tensor<1>>,
    }
    impl ModuleVisitor for Collect<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let tensor = param.val();
            let gradient = tensor.grad_remove(self.gradients);
            self.flat.push(match gradient {
                Some(gradient) => flatten(gradient),
                None => flatten(tensor.inner().zeros_like()),
            });
        }
    }
    let mut collect = Collect { gradients, flat: Vec::new() };
    module.visit(&mut collect);
    collect.flat
}

/// The model with each parameter replaced by `update(index, parameter)`, both flat and off the graph.
pub(crate) fn map_parameters(model: Gpt, update: impl FnMut(usize, Tensor<1>) -> Tensor<1>) -> Gpt {
    struct Update<F> {
        update: F,
        index: usize,
    }
    impl<F: FnMut(usize, Tensor<1>) -> Tensor<1>> ModuleMapper for Update<F> {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let index = self.index;
            self.index += 1;
            param.map(|old| {
                let (shape, trainable) = (old.shape(), old.is_require_grad());
                let new = (self.update)(index, flatten(old.inner())).reshape(shape);
                if trainable { Tensor::from_inner(new).require_grad() } else { new }
            })
        }
    }
    model.map(&mut Update { update, index: 0 })
}

pub(super) fn flatten<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    let elements = tensor.shape().num_elements();
    tensor.reshape([elements])
}

/// A parameter with its rank erased.
struct AnyTensor {
    shape: Vec<usize>,
    flat: Tensor<1>,
}

/// The name that Hugging Face's MPT gives to a parameter of ours.
fn mpt_name(path: &[String]) -> String {
    let in_attention = path.iter().any(|part| part == "attn");
    let part = |part: &String| {
        match part.as_str() {
            "h" => "blocks",
            "ln_1" => "norm_1",
            "ln_2" => "norm_2",
            "ln_f" => "norm_f",
            "c_attn" => "Wqkv",
            "mlp" => "ffn",
            "c_fc" => "up_proj",
            "c_gate" => "gate_proj",
            "c_proj" if in_attention => "out_proj",
            "c_proj" => "down_proj",
            same => same,
        }
        .to_owned()
    };
    let prefix =
        (path.first().is_some_and(|first| first != "lm_head")).then(|| "transformer".to_owned());
    prefix.into_iter().chain(path.iter().map(part)).collect::<Vec<_>>().join(".")
}

/// What all names in a Llama begin with, but for that of the head.
const LLAMA_PREFIX: &str = "model.";

/// The name that Hugging Face's Llama gives to what MPT calls `mpt`; `qkv_proj` is three there. A name of a Llama stays.
fn llama_name(mpt: &str) -> String {
    const PARTS: &[(&str, &str)] = &[
        ("transformer.", LLAMA_PREFIX),
        (".wte.", ".embed_tokens."),
        (".blocks.", ".layers."),
        (".norm_1.", ".input_layernorm."),
        (".norm_2.", ".post_attention_layernorm."),
        (".norm_f.", ".norm."),
        (".attn.Wqkv.", ".self_attn.qkv_proj."),
        (".attn.out_proj.", ".self_attn.o_proj."),
        (".ffn.", ".mlp."),
    ];
    PARTS.iter().fold(mpt.to_owned(), |name, (mpt, llama)| name.replace(mpt, llama))
}

/// Whose names parameters have.
enum Names {
    Gpt2,
    Llama,
    Mpt,
}

impl Names {
    fn of(config: &ModelConfig) -> Self {
        match (config.has_gpt2_parameters(), config.has_llama_parameters()) {
            (true, _) => Self::Gpt2,
            (_, true) => Self::Llama,
            _ => Self::Mpt,
        }
    }

    fn name(&self, path: &[String]) -> String {
        match self {
            Self::Gpt2 => path.join("."),
            Self::Llama => llama_name(&mpt_name(path)),
            Self::Mpt => mpt_name(path),
        }
    }
}

/// Visits the parameters in order with their dotted names.
struct Walk<F> {
    path: Vec<String>,
    names: Names,
    on_parameter: F,
}

impl<F: FnMut(String, AnyTensor)> Walk<F> {
    fn new(config: &ModelConfig, on_parameter: F) -> Self {
        Self { path: Vec::new(), names: Names::of(config), on_parameter }
    }
}

impl<F: FnMut(String, AnyTensor)> ModuleVisitor for Walk<F> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val().inner();
        let shape = tensor.dims().to_vec();
        let name = self.names.name(&self.path);
        (self.on_parameter)(name, AnyTensor { shape, flat: flatten(tensor) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{FfnType, NormType};
    use crate::model::tiny_config as tiny;
    use burn::tensor::Device;

    #[test]
    fn names_shapes_and_order_are_those_of_gpt2() {
        let specs = Gpt::init(&tiny(), 1, &Device::flex()).parameters();
        let listing: Vec<String> =
            specs.iter().map(|spec| format!("{} {:?}", spec.name, spec.shape)).collect();
        assert_eq!(
            listing[..16],
            [
                "wte.weight [11, 8]",
                "wpe.weight [5, 8]",
                "h.0.ln_1.weight [8]",
                "h.0.ln_1.bias [8]",
                "h.0.attn.c_attn.weight [8, 24]",
                "h.0.attn.c_attn.bias [24]",
                "h.0.attn.c_proj.weight [8, 8]",
                "h.0.attn.c_proj.bias [8]",
                "h.0.ln_2.weight [8]",
                "h.0.ln_2.bias [8]",
                "h.0.mlp.c_fc.weight [8, 32]",
                "h.0.mlp.c_fc.bias [32]",
                "h.0.mlp.c_proj.weight [32, 8]",
                "h.0.mlp.c_proj.bias [8]",
                "h.1.ln_1.weight [8]",
                "h.1.ln_1.bias [8]",
            ]
        );
        assert_eq!(listing[26..], ["ln_f.weight [8]", "ln_f.bias [8]"]);
        let elements: usize = specs.iter().map(|spec| spec.shape.iter().product::<usize>()).sum();
        assert_eq!(elements as u64, tiny().n_params());
    }

    #[test]
    fn names_of_other_models_are_those_of_mpt() {
        let mut config = ModelConfig {
            learned_pos_emb: false,
            no_bias: true,
            tie_word_embeddings: false,
            norm_type: NormType::RmsNorm,
            ..tiny()
        };
        config.attn_config.kv_n_heads = 1;
        config.attn_config.qk_ln = true;
        config.ffn_config.ffn_type = FfnType::Glu;
        config.ffn_config.ffn_hidden_size = Some(12);
        let specs = Gpt::init(&config, 1, &Device::flex()).parameters();
        let listing: Vec<String> =
            specs.iter().map(|spec| format!("{} {:?}", spec.name, spec.shape)).collect();
        assert_eq!(
            listing[..10],
            [
                "transformer.wte.weight [11, 8]",
                "transformer.blocks.0.norm_1.weight [8]",
                "transformer.blocks.0.attn.Wqkv.weight [8, 16]",
                "transformer.blocks.0.attn.q_ln.weight [8]",
                "transformer.blocks.0.attn.k_ln.weight [4]",
                "transformer.blocks.0.attn.out_proj.weight [8, 8]",
                "transformer.blocks.0.norm_2.weight [8]",
                "transformer.blocks.0.ffn.up_proj.weight [8, 12]",
                "transformer.blocks.0.ffn.gate_proj.weight [8, 12]",
                "transformer.blocks.0.ffn.down_proj.weight [12, 8]",
            ]
        );
        assert_eq!(listing[19..], ["transformer.norm_f.weight [8]", "lm_head.weight [11, 8]"]);
        let elements: usize = specs.iter().map(|spec| spec.shape.iter().product::<usize>()).sum();
        assert_eq!(elements as u64, config.n_params());
    }

    /// Under Llama's names, but for the fused projection; checkpoints from before that have MPT's.
    #[test]
    fn names_of_a_llama_are_its_own_and_older_ones_are_read() {
        let mut config = ModelConfig {
            learned_pos_emb: false,
            no_bias: true,
            tie_word_embeddings: false,
            norm_type: NormType::RmsNorm,
            ..tiny()
        };
        config.attn_config.rope = true;
        config.ffn_config.ffn_type = FfnType::Glu;
        let model = Gpt::init(&config, 1, &Device::flex());
        let tensors = model.to_named_tensors();
        let listing: Vec<&str> = tensors.iter().map(|tensor| &*tensor.name).collect();
        assert_eq!(
            listing[..8],
            [
                "model.embed_tokens.weight",
                "model.layers.0.input_layernorm.weight",
                "model.layers.0.self_attn.qkv_proj.weight",
                "model.layers.0.self_attn.o_proj.weight",
                "model.layers.0.post_attention_layernorm.weight",
                "model.layers.0.mlp.up_proj.weight",
                "model.layers.0.mlp.gate_proj.weight",
                "model.layers.0.mlp.down_proj.weight",
            ]
        );
        assert_eq!(listing[15..], ["model.norm.weight", "lm_head.weight"]);
        assert!(model.parameters().iter().all(|spec| spec.is_table()
            == ["model.embed_tokens.weight", "lm_head.weight"].contains(&&*spec.name)));

        let older = |tensor: &NamedTensor| {
            let names = [
                ("model.", "transformer."),
                (".embed_tokens.", ".wte."),
                (".layers.", ".blocks."),
                (".input_layernorm.", ".norm_1."),
                (".post_attention_layernorm.", ".norm_2."),
                (".norm.", ".norm_f."),
                (".self_attn.qkv_proj.", ".attn.Wqkv."),
                (".self_attn.o_proj.", ".attn.out_proj."),
                (".mlp.", ".ffn."),
            ];
            let replaced = |name: String, (new, old): (&str, &str)| name.replace(new, old);
            let name = names.into_iter().fold(tensor.name.clone(), replaced);
            assert!(!name.contains("model") && !name.contains("self"), "{name}");
            NamedTensor { name, ..tensor.clone() }
        };
        let other = Gpt::init(&config, 2, &Device::flex());
        let older = tensors.iter().map(older).collect();
        assert_eq!(other.with_named_tensors(older).unwrap().to_named_tensors(), tensors);
    }

    #[test]
    fn the_initial_values_follow_the_scheme() {
        let config = ModelConfig { vocab_size: 500, d_model: 64, ..tiny() };
        for tensor in Gpt::init(&config, 17, &Device::flex()).to_named_tensors() {
            let n = tensor.values.len() as f64;
            let std = (tensor.values.iter().map(|&x| (x as f64).powi(2)).sum::<f64>() / n).sqrt();
            let expected = match tensor.name.as_str() {
                name if name.ends_with("bias") => 0.0,
                name if name.contains("ln_") => 1.0,
                name if name.ends_with("c_proj.weight") => 0.02 / 2.0, // 2·n_layers = 4
                _ => 0.02,
            };
            let tolerance = if tensor.shape.len() == 2 { 0.1 * expected } else { 0.0 };
            assert!(
                (std - expected).abs() <= tolerance,
                "{}: std {std}, expected {expected}",
                tensor.name
            );
        }
    }

    #[test]
    fn a_seed_gives_the_same_model_with_and_without_autodiff() {
        let plain = Gpt::init(&tiny(), 5, &Device::flex()).to_named_tensors();
        assert_eq!(plain, Gpt::init(&tiny(), 5, &Device::flex().autodiff()).to_named_tensors());
        assert_ne!(plain, Gpt::init(&tiny(), 6, &Device::flex()).to_named_tensors());
    }

    #[test]
    fn tensors_of_another_model_are_refused_by_name() {
        let device = Device::flex();
        let load = |tensors| {
            Gpt::init(&tiny(), 2, &device)
                .with_named_tensors(tensors)
                .map(|_| ())
                .unwrap_err()
                .to_string()
        };
        let tensors = Gpt::init(&tiny(), 1, &device).to_named_tensors();

        let mut wider = tensors.clone();
        wider[1].shape = vec![6, 8];
        assert_eq!(
            load(wider),
            "tensor wpe.weight has shape [6, 8], the configured model needs [5, 8]"
        );
        assert_eq!(load(tensors[1..].to_vec()), "tensor wte.weight is missing");
        let mut more = tensors.clone();
        more.push(NamedTensor { name: "lm_head.weight".into(), ..tensors[0].clone() });
        assert_eq!(
            load(more),
            "tensor lm_head.weight belongs to no parameter of the configured model"
        );

        let loaded = Gpt::init(&tiny(), 2, &device).with_named_tensors(tensors.clone()).unwrap();
        assert_eq!(loaded.to_named_tensors(), tensors);
    }
}
