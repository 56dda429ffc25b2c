//! Parameters by the names and in the layout of `transformers`.
//!
//! Our matrices are `[in, out]`, as in GPT-2; those of MPT and Llama are `[out, in]`. Llama has queries, keys and values
//! apart, which are one matrix here; else the names are the same.

use super::family::Family;
use crate::config::ModelConfig;
use crate::model::NamedTensor;

/// What all names in a GPT-2 begin with there, and not here.
const GPT2_PREFIX: &str = "transformer.";

/// The parameters of `model` as those of its `family`.
pub(super) fn to_family(
    tensors: Vec<NamedTensor>,
    family: Family,
    model: &ModelConfig,
) -> Vec<NamedTensor> {
    let to = |tensor: NamedTensor| match family {
        Family::Gpt2 => vec![renamed(tensor, gpt2_name)],
        Family::Mpt => vec![transposed(tensor)],
        Family::Llama => llama(tensor, model),
    };
    tensors.into_iter().flat_map(to).collect()
}

/// The parameters of a GPT-2 of `transformers` as ours. Buffers that are no parameters are left out, and so is the head,
/// which is the embedding.
pub(super) fn from_gpt2(tensors: Vec<NamedTensor>) -> Vec<NamedTensor> {
    let is_parameter = |tensor: &NamedTensor| {
        let name = &tensor.name;
        name != "lm_head.weight"
            && !name.ends_with(".attn.bias")
            && !name.ends_with(".attn.masked_bias")
    };
    let ours =
        |tensor| renamed(tensor, |name| name.strip_prefix(GPT2_PREFIX).unwrap_or(name).to_owned());
    tensors.into_iter().filter(is_parameter).map(ours).collect()
}

fn renamed(tensor: NamedTensor, name: impl FnOnce(&str) -> String) -> NamedTensor {
    NamedTensor { name: name(&tensor.name), ..tensor }
}

/// `[out, in]` where it was `[in, out]`; embeddings, the head and vectors as they are.
fn transposed(tensor: NamedTensor) -> NamedTensor {
    let is_table =
        ["wte.", "wpe.", "embed_tokens.", "lm_head."].iter().any(|part| tensor.name.contains(part));
    let &[rows, columns] = tensor.shape.as_slice() else { return tensor };
    if is_table {
        return tensor;
    }
    let values = (0..columns).flat_map(|c| (0..rows).map(move |r| (r, c)));
    let values = values.map(|(r, c)| tensor.values[r * columns + c]).collect();
    NamedTensor { shape: vec![columns, rows], values, ..tensor }
}

/// One of our tensors as Llama's: the fused projection is three.
fn llama(tensor: NamedTensor, model: &ModelConfig) -> Vec<NamedTensor> {
    if !tensor.name.contains("self_attn.qkv_proj") {
        return vec![transposed(tensor)];
    }
    let widths = [model.d_model, model.kv_dim(), model.kv_dim()];
    let mut start = 0;
    let mut parts = Vec::new();
    for (part, width) in ["q_proj", "k_proj", "v_proj"].into_iter().zip(widths) {
        let columns = columns(&tensor, start..start + width);
        start += width;
        parts.push(renamed(transposed(columns), |name| name.replace("qkv_proj", part)));
    }
    parts
}

/// Some columns of a matrix, or some values of a vector.
fn columns(tensor: &NamedTensor, range: std::ops::Range<usize>) -> NamedTensor {
    let mut shape = tensor.shape.clone();
    let Some(width) = shape.last_mut() else { return tensor.clone() };
    let rows = tensor.values.chunks(*width);
    let values = rows.flat_map(|row| row[range.clone()].to_vec()).collect();
    *width = range.len();
    NamedTensor { name: tensor.name.clone(), shape, values }
}

/// The name in a GPT-2 of transformers, also of what computes the same and has MPT's names here.
fn gpt2_name(ours: &str) -> String {
    if ours == "lm_head.weight" {
        return ours.to_owned();
    }
    const PARTS: &[(&str, &str)] = &[
        ("blocks.", "h."),
        (".norm_1.", ".ln_1."),
        (".norm_2.", ".ln_2."),
        ("norm_f.", "ln_f."),
        (".attn.Wqkv.", ".attn.c_attn."),
        (".attn.out_proj.", ".attn.c_proj."),
        (".ffn.up_proj.", ".mlp.c_fc."),
        (".ffn.down_proj.", ".mlp.c_proj."),
    ];
    let bare = ours.strip_prefix(GPT2_PREFIX).unwrap_or(ours).to_owned();
    let name = PARTS.iter().fold(bare, |name, (ours, theirs)| name.replace(ours, theirs));
    format!("{GPT2_PREFIX}{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, shape: &[usize]) -> NamedTensor {
        let values = (0..shape.iter().product::<usize>()).map(|n| n as f32).collect();
        NamedTensor { name: name.to_owned(), shape: shape.to_vec(), values }
    }

    #[test]
    fn llama_has_queries_keys_and_values_apart_and_transposed() {
        let mut model = ModelConfig::mosaic_gpt(2, 2, 1, 8, 16);
        model.attn_config.kv_n_heads = 1;
        let fused = tensor("model.layers.0.self_attn.qkv_proj.weight", &[2, 4]);
        let parts = to_family(vec![fused], Family::Llama, &model);
        let listing: Vec<_> =
            parts.iter().map(|t| (t.name.as_str(), t.shape.clone(), t.values.clone())).collect();
        let name = |part| format!("model.layers.0.self_attn.{part}.weight");
        assert_eq!(
            listing,
            [
                (name("q_proj").as_str(), vec![2, 2], vec![0.0, 4.0, 1.0, 5.0]),
                (name("k_proj").as_str(), vec![1, 2], vec![2.0, 6.0]),
                (name("v_proj").as_str(), vec![1, 2], vec![3.0, 7.0]),
            ]
        );
        let bias = tensor("model.layers.0.self_attn.qkv_proj.bias", &[4]);
        let parts = to_family(vec![bias], Family::Llama, &model);
        assert_eq!(parts[1].values, [2.0]);
        assert_eq!(parts[1].shape, [1]);
    }

    /// Whatever our names are, transformers finds each parameter of a GPT-2 under its own.
    #[test]
    fn what_computes_as_gpt2_gets_its_names() {
        use burn::tensor::Device;
        let names = |config: &ModelConfig| -> Vec<String> {
            let tensors = crate::model::Gpt::init(config, 1, &Device::flex()).to_named_tensors();
            let exported = to_family(tensors, Family::Gpt2, config);
            exported.into_iter().map(|tensor| tensor.name).collect()
        };
        let gpt2 = ModelConfig::mosaic_gpt(8, 2, 1, 5, 11);
        let expected = names(&gpt2);
        assert_eq!(expected[2], "transformer.h.0.ln_1.weight");
        let mpt = ModelConfig { name: crate::config::ModelName::MptCausalLm, ..gpt2.clone() };
        assert_eq!(names(&mpt), expected);
        let untied = ModelConfig { tie_word_embeddings: false, ..gpt2 };
        let (head, rest) = (names(&untied), expected);
        assert_eq!(head.split_last(), Some((&"lm_head.weight".to_owned(), &rest[..])));
    }

    #[test]
    fn a_gpt2_comes_back_without_its_buffers() {
        let ours = vec![tensor("wte.weight", &[3, 2]), tensor("h.0.attn.c_attn.bias", &[6])];
        let model = ModelConfig::mosaic_gpt(2, 1, 1, 8, 3);
        let mut theirs = to_family(ours.clone(), Family::Gpt2, &model);
        assert_eq!(theirs[1].name, "transformer.h.0.attn.c_attn.bias");
        theirs.push(tensor("transformer.h.0.attn.bias", &[1, 1, 8, 8]));
        theirs.push(tensor("lm_head.weight", &[3, 2]));
        assert_eq!(from_gpt2(theirs), ours);
    }
}
