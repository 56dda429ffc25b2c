//! Optimizers and clipping against PyTorch in float64, through the fixture that
//! `tests/fixtures/make_gpt_tiny_training.py` makes. PyTorch is not needed to run this.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/fixture.rs"]
mod fixture;

use burn::tensor::Device;
use fixture::{TOLERANCE, Tensors, host, norm};
use serde_json::Value;
use trainer::config::{
    ClippingType, GradientClipping, ModelConfig, OptimizerConfig, OptimizerName,
};
use trainer::data::TokenBatch;
use trainer::loss::loss_and_gradients;
use trainer::model::{Dropout, Gpt};
use trainer::optim::{Gradients, Optimizer};
use trainer::recompute::Activations;

/// The model and tokens that the reference was made with.
struct Fixture {
    tensors: Tensors,
    model: Value,
    /// The learning rates of the ten steps, as shares of the peak.
    schedule: Vec<f64>,
    reference: Value,
}

impl Fixture {
    fn load() -> Self {
        let json = |name: &str| -> Value {
            serde_json::from_slice(&fixture::read(&format!("gpt_tiny/{name}"))).unwrap()
        };
        let base = json("reference.json");
        let peak = base["optimizer"]["lr"].as_f64().unwrap();
        Self {
            tensors: Tensors::read("gpt_tiny/tensors.safetensors"),
            model: base["model"].clone(),
            schedule: numbers(&base["learning_rates"]).iter().map(|lr| lr / peak).collect(),
            reference: json("training.json"),
        }
    }

    fn model(&self) -> Gpt {
        let size = |key: &str| self.model[key].as_u64().unwrap() as usize;
        let shape = ["d_model", "n_heads", "n_layers", "max_seq_len", "vocab_size"].map(size);
        let [d_model, n_heads, n_layers, max_seq_len, vocab_size] = shape;
        let config = ModelConfig::mosaic_gpt(d_model, n_heads, n_layers, max_seq_len, vocab_size);
        let mut weights = self.tensors.weights();
        // As the script does.
        let bias = weights.iter_mut().find(|tensor| tensor.name == "h.0.mlp.c_fc.bias");
        bias.unwrap().values.fill(0.0);
        let device = Device::flex().autodiff();
        Gpt::init(&config, 0, &device).with_named_tensors(weights).unwrap()
    }

    /// The batch of step `step`.
    fn batch(&self, step: usize) -> TokenBatch {
        let [_, rows, _] = self.tensors.0["tokens"].0[..] else {
            panic!("tokens are [step, row, position]")
        };
        self.tensors.batch(step * rows, rows)
    }
}

fn numbers(list: &Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn gradients_of(model: &Gpt, batch: &TokenBatch) -> (f64, Gradients) {
    let (loss, gradients) =
        loss_and_gradients(model, batch, 1.0, &mut Dropout::off(), Activations::Kept);
    (f64::from(loss.into_scalar::<f32>()), gradients)
}

fn ten_steps_agree(name: OptimizerName, tolerance: f64) {
    let fixture = Fixture::load();
    let reference = &fixture.reference["optimizers"][name.as_str()];
    let betas = numbers(&reference["betas"]);
    let config = OptimizerConfig {
        name,
        lr: reference["lr"].as_f64().unwrap(),
        betas: [betas[0], betas[1]],
        eps: reference["eps"].as_f64(),
        weight_decay: reference["weight_decay"].as_f64().unwrap(),
    };
    let clipping = GradientClipping { clipping_type: ClippingType::Norm, clipping_threshold: 1.0 };
    let mut model = fixture.model();
    let mut optimizer = Optimizer::new(config.clone(), &model, &Device::flex());
    let losses = numbers(&reference["losses"]);
    assert_eq!(losses.len(), 10);
    for (step, (share, expected)) in fixture.schedule.iter().zip(losses).enumerate() {
        let (loss, gradients) = gradients_of(&model, &fixture.batch(step));
        let norm = gradients.norm_on_device().unwrap();
        let gradients = gradients.clip(&clipping, &norm, &model);
        model = optimizer.step(model, gradients, config.lr * share);
        let relative = (loss - expected).abs() / expected;
        println!("{} step {step}: loss {loss:.6}, off by {relative:.1e}", name.as_str());
        assert!(relative <= tolerance, "step {step}: loss {loss}, expected {expected}");
    }
}

#[test]
fn ten_steps_of_plain_adamw_are_pytorchs() {
    ten_steps_agree(OptimizerName::AdamW, TOLERANCE);
}

#[test]
fn ten_steps_of_lion_give_the_same_losses() {
    ten_steps_agree(OptimizerName::DecoupledLionW, TOLERANCE);
}

fn clipped_gradients_agree(clipping_type: ClippingType, name: &str) {
    let fixture = Fixture::load();
    let reference = &fixture.reference["clipping"][name];
    let clipping_threshold = reference["threshold"].as_f64().unwrap();
    let model = fixture.model();
    let (_, gradients) = gradients_of(&model, &fixture.batch(0));
    let before = gradients.norm_on_device().unwrap();
    let clipping = GradientClipping { clipping_type, clipping_threshold };
    let clipped = gradients.clip(&clipping, &before, &model).into_flat();
    for (spec, gradient) in model.parameters().iter().zip(clipped) {
        let (ours, theirs) =
            (norm(host(gradient)), reference["norms"][&spec.name].as_f64().unwrap());
        let relative = (ours - theirs).abs() / theirs;
        println!("{name}: {} has norm {ours:.6}, off by {relative:.1e}", spec.name);
        assert!(relative <= TOLERANCE, "{}: {ours}, expected {theirs}", spec.name);
    }
}

#[test]
fn gradients_clipped_by_norm_are_pytorchs() {
    clipped_gradients_agree(ClippingType::Norm, "norm");
}

#[test]
fn gradients_clipped_by_value_are_pytorchs() {
    clipped_gradients_agree(ClippingType::Value, "value");
}

#[test]
fn adaptively_clipped_gradients_agree_to_a_bias_that_starts_at_zero() {
    clipped_gradients_agree(ClippingType::Adaptive, "adaptive");
}
