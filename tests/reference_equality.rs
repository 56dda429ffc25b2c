//! The model, its gradients and the optimizer against PyTorch in float64, through the fixture that
//! `tests/fixtures/make_gpt_tiny.py` makes. PyTorch is not needed to run this.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/fixture.rs"]
mod fixture;

use burn::tensor::{Device, Int, Tensor, TensorData};
use fixture::{TOLERANCE, Tensors, assert_gradient, assert_logits, host};
use trainer::config::{
    ClippingType, GradientClipping, ModelConfig, OptimizerConfig, OptimizerName,
};
use trainer::data::TokenBatch;
use trainer::loss::loss_and_gradients;
use trainer::model::{Dropout, Gpt};
use trainer::optim::Optimizer;
use trainer::recompute::Activations;

struct Fixture {
    tensors: Tensors,
    reference: serde_json::Value,
}

impl Fixture {
    fn load() -> Self {
        Self {
            tensors: Tensors::read("gpt_tiny/tensors.safetensors"),
            reference: serde_json::from_slice(&fixture::read("gpt_tiny/reference.json")).unwrap(),
        }
    }

    fn number(&self, pointer: &str) -> f64 {
        self.reference.pointer(pointer).and_then(|v| v.as_f64()).unwrap()
    }

    fn numbers(&self, key: &str) -> Vec<f64> {
        self.reference[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
    }

    fn model(&self, attn_impl: &str, device: &Device) -> Gpt {
        let size = |key: &str| self.number(&format!("/model/{key}")) as usize;
        let shape = ["d_model", "n_heads", "n_layers", "max_seq_len", "vocab_size"].map(size);
        let [d_model, n_heads, n_layers, max_seq_len, vocab_size] = shape;
        let config = ModelConfig {
            attn_impl: attn_impl.into(),
            ..ModelConfig::mosaic_gpt(d_model, n_heads, n_layers, max_seq_len, vocab_size)
        };
        Gpt::init(&config, 0, device).with_named_tensors(self.tensors.weights()).unwrap()
    }

    /// The batch of step `step`.
    fn batch(&self, step: usize) -> TokenBatch {
        let [_, rows, _] = self.tensors.0["tokens"].0[..] else {
            panic!("tokens are [step, row, position]")
        };
        self.tensors.batch(step * rows, rows)
    }
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

    assert_logits(attn_impl, &logits, fixture.tensors.values("logits"));
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
    let (loss, gradients) =
        loss_and_gradients(&model, &fixture.batch(0), 1.0, &mut Dropout::off(), Activations::Kept);
    let loss = host(loss)[0];
    let expected = fixture.number("/loss");
    println!("{attn_impl}: loss {loss}, expected {expected}");
    assert!((loss - expected).abs() <= TOLERANCE * expected);

    let names = model.parameters().into_iter().map(|spec| spec.name);
    let global = fixture.tensors.gradient_norm();
    let mut compared = 0;
    for (name, gradient) in names.zip(gradients.into_flat()) {
        let ours = parts(&name, &host(gradient));
        let theirs = parts(&name, fixture.tensors.values(&format!("grad.{name}")));
        for ((name, ours), (_, theirs)) in ours.iter().zip(&theirs) {
            assert_gradient(&format!("{attn_impl}: {name}"), ours, theirs, global);
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
        name: OptimizerName::DecoupledAdamW,
        lr: fixture.number("/optimizer/lr"),
        betas: [fixture.number("/optimizer/betas/0"), fixture.number("/optimizer/betas/1")],
        eps: Some(fixture.number("/optimizer/eps")),
        weight_decay: fixture.number("/optimizer/weight_decay"),
    };
    let clipping = GradientClipping {
        clipping_type: ClippingType::Norm,
        clipping_threshold: fixture.number("/grad_clip_norm"),
    };
    let mut optimizer = Optimizer::new(config, &model, &device);
    let learning_rates = fixture.numbers("learning_rates");
    let losses = fixture.numbers("losses");
    assert_eq!(losses.len(), 10);
    for (step, (lr, expected)) in learning_rates.into_iter().zip(losses).enumerate() {
        let (loss, gradients) = loss_and_gradients(
            &model,
            &fixture.batch(step),
            1.0,
            &mut Dropout::off(),
            Activations::Kept,
        );
        let norm = gradients.norm_on_device().unwrap();
        let gradients = gradients.clip(&clipping, &norm, &model);
        model = optimizer.step(model, gradients, lr);
        let loss = host(loss)[0];
        let relative = (loss - expected).abs() / expected;
        println!("step {step}: loss {loss:.6}, gradient norm {norm:.3}, off by {relative:.1e}");
        assert!(relative <= TOLERANCE, "step {step}: loss {loss}, expected {expected}");
    }
}
