//! Every variant of the model against PyTorch in float64: logits, loss and all gradients, through the fixtures that
//! `tests/fixtures/make_gpt_variants.py` makes; and every scheme of initial parameters against the moments that
//! `tests/fixtures/make_gpt_init.py` finds. PyTorch is not needed to run this.

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

fn agrees(name: &str, case: &Value, dropout: &Dropout, attn_impl: &str) {
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
    let logits = model.logits(model.hidden(tokens, &mut dropout.clone()));
    let elements = logits.shape().num_elements();
    assert_logits(&what, &host(logits.reshape([elements])), fixture.values("logits"));

    let model = load(&Device::flex().autodiff());
    let (loss, gradients) =
        loss_and_gradients(&model, &batch, 1.0, &mut dropout.clone(), Activations::Kept);
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

/// The cases of a file below `tests/fixtures`.
fn cases(file: &Value) -> &serde_json::Map<String, Value> {
    file["cases"].as_object().unwrap()
}

fn json(path: &str) -> Value {
    serde_json::from_slice(&fixture::read(path)).unwrap()
}

fn every_variant_agrees(attn_impl: &str) {
    let file = json("gpt_variants/cases.json");
    assert_eq!(cases(&file).len(), 27);
    let [seed, batch, microbatch] =
        ["seed", "batch", "microbatch"].map(|key| file["dropout"][key].as_u64().unwrap());
    // Draws nothing where a model has no dropout.
    let dropout = Dropout::training(seed, batch, microbatch);
    cases(&file).iter().for_each(|(name, case)| agrees(name, case, &dropout, attn_impl));
}

#[test]
fn every_variant_agrees_with_fused_attention() {
    every_variant_agrees("flash");
}

#[test]
fn every_variant_agrees_with_composed_attention() {
    every_variant_agrees("torch");
}

/// The variants make a difference: each loss is another one.
#[test]
fn no_variant_is_ignored() {
    let fixture = Tensors::read("gpt_variants/softmax_scale.safetensors");
    let file = json("gpt_variants/cases.json");
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
        alike.iter().map(|name| loss(&model_of(&cases(&file)[*name], "flash"))).collect();
    losses.sort_by(f64::total_cmp);
    for pair in losses.windows(2) {
        assert!(pair[1] - pair[0] > 1e-5 * pair[1], "{losses:?}");
    }
}

/// Number, mean, standard deviation and kurtosis, as in the fixture.
fn moments(values: &[f32]) -> [f64; 4] {
    let n = values.len() as f64;
    let values = values.iter().map(|&x| f64::from(x));
    let mean = values.clone().sum::<f64>() / n;
    let power = |k| values.clone().map(|x| (x - mean).powi(k)).sum::<f64>() / n;
    let variance = power(2);
    [n, mean, variance.sqrt(), if variance > 0.0 { power(4) / variance.powi(2) } else { 0.0 }]
}

/// Two samples of one law differ in a moment by its standard error times sqrt(2) on average; here by 5 times that at
/// most. The errors are those of a normal law, which are the largest here.
#[test]
fn initial_parameters_are_distributed_as_those_of_pytorch() {
    let file = json("gpt_init.json");
    assert_eq!(cases(&file).len(), 15);
    for (name, case) in cases(&file) {
        let model = Gpt::init(&model_of(case, "flash"), 17, &Device::flex());
        let tensors = model.to_named_tensors();
        assert_eq!(tensors.len(), case["parameters"].as_object().unwrap().len());
        for tensor in tensors {
            let expected = &case["parameters"][&tensor.name];
            let expected: Vec<f64> =
                expected.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
            let got = moments(&tensor.values);
            let (n, std) = (expected[0], expected[2]);
            let errors = [0.0, std / n.sqrt(), std / (2.0 * n).sqrt(), (24.0 / n).sqrt()];
            for ((got, expected), error) in got.iter().zip(&expected).zip(errors) {
                // The fixture has five digits.
                let tolerance = 5.0 * 2f64.sqrt() * error + 1e-5 * expected.abs();
                let within = (got - expected).abs() <= tolerance;
                assert!(within, "{name}: {} has {got}, not {expected}", tensor.name);
            }
        }
    }
}
