//! `gpu-check`, the program behind `scripts/gpu/check`, on the CPU: the same code runs on a GPU.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use serde_json::Value;
use std::process::Command;

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
    // Two routes in two types with four figures each, and three of the model in fp32.
    assert_eq!(lines.len(), 2 * 2 * 4 + 3);
    for line in &lines {
        assert_eq!(line["pass"], true, "{line}");
        let difference = line["difference"].as_f64().unwrap();
        let is_model = line["name"].as_str().unwrap().starts_with("model");
        // The model is compared with itself here.
        assert!(if is_model { difference == 0.0 } else { difference > 0.0 }, "{line}");
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
