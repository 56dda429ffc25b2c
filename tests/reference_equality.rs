//! The model, its gradients and the optimizer against PyTorch in float64, through the fixture that
//! `tests/fixtures/make_gpt_tiny.py` makes. PyTorch is not needed to run this.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::path::PathBuf;

use burn::tensor::{Device, Int, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors};
use trainer::config::{ModelConfig, OptimizerConfig};
use trainer::data::TokenBatch;
use trainer::loss::loss_and_gradients;
use trainer::model::{Dropout, Gpt, NamedTensor};
use trainer::optim::DecoupledAdamW;

const TOLERANCE: f64 = 1e-5;

struct Fixture {
    tensors: HashMap<String, (Vec<usize>, Vec<f64>)>,
    reference: serde_json::Value,
}

impl Fixture {
    fn load() -> Self {
        let folder =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/gpt_tiny");
        let bytes = std::fs::read(folder.join("tensors.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes)
            .unwrap()
            .iter()
            .map(|(name, view)| {
                (name.to_owned(), (view.shape().to_vec(), numbers(view.dtype(), view.data())))
            })
            .collect();
        let json = std::fs::read(folder.join("reference.json")).unwrap();
        Self { tensors, reference: serde_json::from_slice(&json).unwrap() }
    }

    fn values(&self, name: &str) -> &[f64] {
        &self.tensors.get(name).unwrap_or_else(|| panic!("{name} is not in the fixture")).1
    }

    fn number(&self, pointer: &str) -> f64 {
        self.reference.pointer(pointer).and_then(|v| v.as_f64()).unwrap()
    }

    fn numbers(&self, key: &str) -> Vec<f64> {
        self.reference[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
    }

    fn model(&self, attn_impl: &str, device: &Device) -> Gpt {
        let size = |key: &str| self.number(&format!("/model/{key}")) as usize;
        let config = ModelConfig {
            name: "mosaic_gpt".into(),
            d_model: size("d_model"),
            n_heads: size("n_heads"),
            n_layers: size("n_layers"),
            mlp_ratio: 4,
            max_seq_len: size("max_seq_len"),
            vocab_size: size("vocab_size"),
            init_std: 0.02,
            attn_pdrop: 0.0,
            resid_pdrop: 0.0,
            emb_pdrop: 0.0,
            attn_impl: attn_impl.into(),
            embedding_fraction: 1.0,
        };
        let weights = self.tensors.iter().filter_map(|(name, (shape, values))| {
            let name = name.strip_prefix("weight.")?.to_owned();
            let values = values.iter().map(|&x| x as f32).collect();
            Some(NamedTensor { name, shape: shape.clone(), values })
        });
        Gpt::init(&config, 0, device).with_named_tensors(weights.collect()).unwrap()
    }

    /// The batch of step `step`.
    fn batch(&self, step: usize) -> TokenBatch {
        let [_, rows, seq] = self.tensors["tokens"].0[..] else {
            panic!("tokens are [step, row, position]")
        };
        let mut batch = TokenBatch::new(seq);
        for row in self.values("tokens").chunks(seq).skip(step * rows).take(rows) {
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

fn host(tensor: Tensor<1>) -> Vec<f64> {
    tensor.into_data().try_to_vec::<f32>().unwrap().into_iter().map(f64::from).collect()
}

fn norm(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    norm(a.iter().zip(b).map(|(a, b)| a - b))
}

fn logits_agree(attn_impl: &str) {
    let fixture = Fixture::load();
    let device = Device::flex();
    let model = fixture.model(attn_impl, &device);
    let batch = fixture.batch(0);
    let tokens = TensorData::new(batch.tokens.clone(), [batch.rows, batch.seq_len]);
    let tokens = Tensor::<2, Int>::from_data(tokens, &device);
    let logits = model.logits(model.hidden(tokens, &mut Dropout::off()));
    let elements = logits.shape().num_elements();
    let logits = host(logits.reshape([elements]));

    let expected = fixture.values("logits");
    let largest = expected.iter().fold(0.0f64, |max, x| max.max(x.abs()));
    let worst = logits.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    let relative = distance(&logits, expected) / norm(expected.iter().copied());
    println!(
        "{attn_impl}: logits differ by {relative:.1e} in norm, {:.1e} at most",
        worst / largest
    );
    assert!(worst <= TOLERANCE * largest);
    assert!(relative <= TOLERANCE);
}

#[test]
fn logits_agree_with_fused_attention() {
    logits_agree("flash");
}

#[test]
fn logits_agree_with_composed_attention() {
    logits_agree("torch");
}

/// The parts of a parameter that are compared on their own: q, k and v of the fused projection.
fn parts(name: &str, values: &[f64]) -> Vec<(String, Vec<f64>)> {
    if !name.contains("c_attn") {
        return vec![(name.to_owned(), values.to_vec())];
    }
    // Both the bias [3·C] and the rows of the weight [C, 3·C] hold q, then k, then v.
    let columns =
        if name.ends_with("bias") { values.len() } else { 3 * (values.len() / 3).isqrt() };
    let width = columns / 3;
    let part = |i: usize| {
        let of_row = move |row: &[f64]| row[i * width..(i + 1) * width].to_vec();
        values.chunks(columns).flat_map(of_row).collect()
    };
    ["q", "k", "v"].iter().enumerate().map(|(i, p)| (format!("{name}[{p}]"), part(i))).collect()
}

fn loss_and_gradients_agree(attn_impl: &str) {
    let fixture = Fixture::load();
    let model = fixture.model(attn_impl, &Device::flex().autodiff());
    let (loss, gradients) = loss_and_gradients(&model, &fixture.batch(0), 1.0, &mut Dropout::off());
    let loss = host(loss)[0];
    let expected = fixture.number("/loss");
    println!("{attn_impl}: loss {loss}, expected {expected}");
    assert!((loss - expected).abs() <= TOLERANCE * expected);

    let names = model.parameters().into_iter().map(|spec| spec.name);
    let global = norm(
        fixture
            .tensors
            .iter()
            .filter(|(n, _)| n.starts_with("grad."))
            .flat_map(|(_, t)| t.1.iter().copied()),
    );
    let mut compared = 0;
    for (name, gradient) in names.zip(gradients.into_flat()) {
        let ours = parts(&name, &host(gradient));
        let theirs = parts(&name, fixture.values(&format!("grad.{name}")));
        for ((name, ours), (_, theirs)) in ours.iter().zip(&theirs) {
            let scale = norm(theirs.iter().copied()).max(1e-3 * global);
            let relative = distance(ours, theirs) / scale;
            println!("{attn_impl}: {name}: norm {scale:.2e}, off by {relative:.1e}");
            assert!(relative <= TOLERANCE, "{name} is off by {relative:.1e} of its norm");
            compared += 1;
        }
    }
    // 2 embeddings, 2 blocks of 12 tensors (two of them in three parts), the final norm.
    assert_eq!(compared, 2 + 2 * (12 + 4) + 2);
}

#[test]
fn loss_and_every_gradient_agree_with_fused_attention() {
    loss_and_gradients_agree("flash");
}

#[test]
fn loss_and_every_gradient_agree_with_composed_attention() {
    loss_and_gradients_agree("torch");
}

#[test]
fn ten_optimizer_steps_give_the_same_losses() {
    let fixture = Fixture::load();
    let device = Device::flex();
    let mut model = fixture.model("flash", &device.clone().autodiff());
    let config = OptimizerConfig {
        name: "decoupled_adamw".into(),
        lr: fixture.number("/optimizer/lr"),
        betas: [fixture.number("/optimizer/betas/0"), fixture.number("/optimizer/betas/1")],
        eps: fixture.number("/optimizer/eps"),
        weight_decay: fixture.number("/optimizer/weight_decay"),
    };
    let clip = fixture.number("/grad_clip_norm");
    let mut optimizer = DecoupledAdamW::new(config, &model, &device);
    let learning_rates = fixture.numbers("learning_rates");
    let losses = fixture.numbers("losses");
    assert_eq!(losses.len(), 10);
    for (step, (lr, expected)) in learning_rates.into_iter().zip(losses).enumerate() {
        let (loss, gradients) =
            loss_and_gradients(&model, &fixture.batch(step), 1.0, &mut Dropout::off());
        let (gradients, norm) = gradients.clip(clip);
        model = optimizer.step(model, gradients, lr);
        let loss = host(loss)[0];
        let relative = (loss - expected).abs() / expected;
        println!("step {step}: loss {loss:.6}, gradient norm {norm:.3}, off by {relative:.1e}");
        assert!(relative <= TOLERANCE, "step {step}: loss {loss}, expected {expected}");
    }
}
