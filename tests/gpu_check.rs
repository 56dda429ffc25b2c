//! `gpu-check`, the program behind `scripts/gpu/check`, on the CPU: the same code runs on a GPU.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/fixture.rs"]
mod fixture;
#[path = "../crates/trainer/src/bin/gpu-check/reference.rs"]
#[allow(dead_code, reason = "the program compares the rest with the trainer")]
mod reference;

use std::process::Command;

use burn::tensor::Device;
use fixture::{Tensors, distance, norm};
use reference::Reference;
use serde_json::Value;
use trainer::config::ModelConfig;
use trainer::model::Gpt;

fn lines(args: &[&str]) -> Vec<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpu-check"));
    let output = command.args(["--device", "cpu"]).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn attention_and_a_model_are_right() {
    let lines = lines(&["routes", "--seq_len", "100", "--vocab_size", "300"]);
    // In two types: two routes and six configurations with four figures each, the loss, and gradient and change of 28
    // parameters.
    assert_eq!(lines.len(), 2 * (2 * 6 * 4 + 1 + 2 * 28));
    for line in &lines {
        assert_eq!(line["pass"], true, "{line}");
        assert!(line["difference"].as_f64().unwrap() > 0.0, "{line}");
    }
}

/// The fixture of `tests/fixtures/make_gpt_tiny.py`, to the last bits of float64.
#[test]
fn the_reference_is_pytorch_in_float64() {
    let fixture = Tensors::read("gpt_tiny/tensors.safetensors");
    let expected: Value =
        serde_json::from_slice(&fixture::read("gpt_tiny/reference.json")).unwrap();
    let size = |key: &str| expected["model"][key].as_u64().unwrap() as usize;
    let shape = ["d_model", "n_heads", "n_layers", "max_seq_len", "vocab_size"].map(size);
    let [d_model, n_heads, n_layers, max_seq_len, vocab_size] = shape;
    let config = ModelConfig::mosaic_gpt(d_model, n_heads, n_layers, max_seq_len, vocab_size);
    let model = Gpt::init(&config, 0, &Device::flex());
    let model = model.with_named_tensors(fixture.weights()).unwrap();

    let (loss, gradients) = Reference::of(&model).loss_and_gradients(&fixture.batch(0, 4));
    let expected = expected["loss"].as_f64().unwrap();
    assert!((loss - expected).abs() < 1e-14 * expected, "{loss} is not {expected}");
    for (spec, gradient) in model.parameters().iter().zip(&gradients) {
        let expected = fixture.values(&format!("grad.{}", spec.name));
        let relative = distance(gradient, expected) / norm(expected.iter().copied());
        assert!(relative < 1e-14, "{} is off by {relative:.1e}", spec.name);
    }
}

#[test]
fn products_and_steps_are_measured() {
    let products = lines(&["matmul", "--tokens", "16", "--seconds", "0.01"]);
    assert_eq!(products.len(), 5);
    assert!(products.iter().all(|line| line["tflops"].as_f64().unwrap() > 0.0));

    let recipe = concat!(env!("CARGO_MANIFEST_DIR"), "/../../yamls/quickstart.yaml");
    let steps = lines(&["step", recipe, "max_seq_len=16", "--rows", "1", "2", "--steps", "1"]);
    let rows: Vec<_> = steps.iter().map(|line| line["rows"].as_u64().unwrap()).collect();
    assert_eq!(rows, [1, 2]);
    assert!(steps.iter().all(|line| line["tokens_per_second"].as_f64().unwrap() > 0.0));
}
