//! Tensors that PyTorch made, and how far ours are from them.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::HashMap;
use std::path::PathBuf;

use burn::tensor::Tensor;
use safetensors::{Dtype, SafeTensors};
use trainer::data::TokenBatch;
use trainer::model::NamedTensor;

pub(crate) const TOLERANCE: f64 = 1e-5;

/// The tensors of one file, each with its shape.
pub(crate) struct Tensors(pub(crate) HashMap<String, (Vec<usize>, Vec<f64>)>);

/// A file below `tests/fixtures`.
pub(crate) fn read(path: &str) -> Vec<u8> {
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    std::fs::read(fixtures.join(path)).unwrap()
}

impl Tensors {
    pub(crate) fn read(path: &str) -> Self {
        let bytes = read(path);
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let tensor = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
            (name.to_owned(), (view.shape().to_vec(), numbers(view.dtype(), view.data())))
        };
        Self(tensors.iter().map(tensor).collect())
    }

    pub(crate) fn values(&self, name: &str) -> &[f64] {
        &self.0.get(name).unwrap_or_else(|| panic!("{name} is not in the fixture")).1
    }

    /// What is called `weight.NAME`.
    pub(crate) fn weights(&self) -> Vec<NamedTensor> {
        let weight = |(name, (shape, values)): (&String, &(Vec<usize>, Vec<f64>))| {
            let name = name.strip_prefix("weight.")?.to_owned();
            let values = values.iter().map(|&x| x as f32).collect();
            Some(NamedTensor { name, shape: shape.clone(), values })
        };
        self.0.iter().filter_map(weight).collect()
    }

    /// The norm of all gradients together.
    pub(crate) fn gradient_norm(&self) -> f64 {
        let gradients = self.0.iter().filter(|(name, _)| name.starts_with("grad."));
        norm(gradients.flat_map(|(_, tensor)| tensor.1.iter().copied()))
    }

    /// The rows of `tokens` from `first` on, as many as are given, as a batch.
    pub(crate) fn batch(&self, first: usize, rows: usize) -> TokenBatch {
        let seq = *self.0["tokens"].0.last().unwrap();
        let mut batch = TokenBatch::new(seq);
        for row in self.values("tokens").chunks(seq).skip(first).take(rows) {
            batch.push(&row.iter().map(|&t| t as i32).collect::<Vec<_>>(), 0);
        }
        batch
    }
}

fn numbers(dtype: Dtype, bytes: &[u8]) -> Vec<f64> {
    match dtype {
        Dtype::F64 => bytes.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b)).collect(),
        Dtype::F32 => {
            bytes.as_chunks().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect()
        }
        Dtype::I32 => {
            bytes.as_chunks().0.iter().map(|&b| f64::from(i32::from_le_bytes(b))).collect()
        }
        other => panic!("unexpected {other:?} in the fixture"),
    }
}

pub(crate) fn host(tensor: Tensor<1>) -> Vec<f64> {
    tensor.into_data().try_to_vec::<f32>().unwrap().into_iter().map(f64::from).collect()
}

pub(crate) fn norm(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().map(|x| x * x).sum::<f64>().sqrt()
}

pub(crate) fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    norm(a.iter().zip(b).map(|(a, b)| a - b))
}

/// Checks each of our logits, and all together.
pub(crate) fn assert_logits(what: &str, ours: &[f64], expected: &[f64]) {
    let largest = expected.iter().fold(0.0f64, |max, x| max.max(x.abs()));
    let worst = ours.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    let relative = distance(ours, expected) / norm(expected.iter().copied());
    println!("{what}: logits differ by {relative:.1e} in norm, {:.1e} at most", worst / largest);
    assert!(worst <= TOLERANCE * largest, "{what}: a logit is off by {worst:.1e} of {largest:.1e}");
    assert!(relative <= TOLERANCE, "{what}: logits are off by {relative:.1e} of their norm");
}

/// Checks one gradient against its own norm, or a thousandth of that of all gradients.
pub(crate) fn assert_gradient(what: &str, ours: &[f64], theirs: &[f64], global: f64) {
    let scale = norm(theirs.iter().copied()).max(1e-3 * global);
    let relative = distance(ours, theirs) / scale;
    println!("{what}: norm {scale:.2e}, off by {relative:.1e}");
    assert!(relative <= TOLERANCE, "{what} is off by {relative:.1e} of its norm");
}
