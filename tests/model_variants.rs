//! Every variant of the model against PyTorch in float64: logits, loss and all gradients, through the fixtures that
//! `tests/fixtures/make_gpt_variants.py` makes. PyTorch is not needed to run this.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/fixture.rs"]
mod fixture;

use burn::tensor::{Device, Int, Tensor, TensorData};
use fixture::{TOLERANCE, Tensors, assert_gradient, assert_logits, host};
use serde_json::{Value, json};
use trainer::config::{Config, ModelConfig};
use trainer::loss::loss_and_gradients;
use trainer::model::{Dropout, Gpt};
use trainer::recompute::Activations;

/// The recipe of a case, whose model is read as any recipe's.
fn model_of(case: &Value, attn_impl: &str) -> ModelConfig {
    let recipe = json!({
        "data_remote": "/nowhere",
        "tokenizer_name": "gpt2",
        "model": case["model"],
        "train_loader": {"dataset": {"eos_token_id": case["eos_token_id"]}},
        "optimizer": {"lr": 1e-3},
        "scheduler": {"name": "constant_with_warmup", "t_warmup": "0ba"},
        "max_duration": "1ba",
        "global_train_batch_size": 3,
    });
    let overrides = [format!("model.attn_config.attn_impl={attn_impl}")];
    Config::from_yaml_str(&recipe.to_string(), &overrides).unwrap().model
}

fn agrees(name: &str, case: &Value, attn_impl: &str) {
    let what = format!("{name} ({attn_impl})");
    let fixture = Tensors::read(&format!("gpt_variants/{name}.safetensors"));
    let config = model_of(case, attn_impl);
    let load = |device: &Device| {
        Gpt::init(&config, 0, device).with_named_tensors(fixture.weights()).unwrap()
    };
    let batch = fixture.batch(0, usize::MAX);

    let device = Device::flex();
    let tokens = TensorData::new(batch.tokens.clone(), [batch.rows, batch.seq_len]);
    let model = load(&device);
    let tokens = Tensor::<2, Int>::from_data(tokens, &device);
    let logits = model.logits(model.hidden(tokens, &mut Dropout::off()));
    let elements = logits.shape().num_elements();
    assert_logits(&what, &host(logits.reshape([elements])), fixture.values("logits"));

    let model = load(&Device::flex().autodiff());
    let (loss, gradients) =
        loss_and_gradients(&model, &batch, 1.0, &mut Dropout::off(), Activations::Kept);
    let (loss, expected) = (host(loss)[0], case["loss"].as_f64().unwrap());
    assert!((loss - expected).abs() <= TOLERANCE * expected, "{what}: {loss} is not {expected}");
    let global = fixture.gradient_norm();
    let specs = model.parameters();
    assert_eq!(specs.len(), fixture.weights().len());
    for (spec, gradient) in specs.iter().zip(gradients.into_flat()) {
        let expected = fixture.values(&format!("grad.{}", spec.name));
        assert_gradient(&format!("{what}: {}", spec.name), &host(gradient), expected, global);
    }
}

fn cases() -> serde_json::Map<String, Value> {
    let mut file: Value =
        serde_json::from_slice(&fixture::read("gpt_variants/cases.json")).unwrap();
    match file["cases"].take() {
        Value::Object(cases) => cases,
        other => panic!("{other}"),
    }
}

#[test]
fn every_variant_agrees_with_fused_attention() {
    let cases = cases();
    assert_eq!(cases.len(), 24);
    cases.iter().for_each(|(name, case)| agrees(name, case, "flash"));
}

#[test]
fn every_variant_agrees_with_composed_attention() {
    cases().iter().for_each(|(name, case)| agrees(name, case, "torch"));
}

/// The variants make a difference: each loss is another one.
#[test]
fn no_variant_is_ignored() {
    let fixture = Tensors::read("gpt_variants/softmax_scale.safetensors");
    let cases = cases();
    let loss = |config: &ModelConfig| {
        let model = Gpt::init(config, 0, &Device::flex().autodiff());
        let model = model.with_named_tensors(fixture.weights()).unwrap();
        let batch = fixture.batch(0, usize::MAX);
        host(loss_and_gradients(&model, &batch, 1.0, &mut Dropout::off(), Activations::Kept).0)[0]
    };
    // Those whose parameters are the same.
    let alike = [
        "softmax_scale",
        "clip_qkv",
        "sliding_window",
        "softcapping",
        "logit_scale",
        "gelu_tanh",
        "relu",
        "documents",
    ];
    let mut losses: Vec<f64> =
        alike.iter().map(|name| loss(&model_of(&cases[*name], "flash"))).collect();
    losses.sort_by(f64::total_cmp);
    for pair in losses.windows(2) {
        assert!(pair[1] - pair[0] > 1e-5 * pair[1], "{losses:?}");
    }
}
