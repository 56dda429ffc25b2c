//! Evaluation records no graph: memory stays flat over a hundred batches.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use burn::tensor::Device;
use convert::tokenizer::Tokenizer;
use trainer::config::Config;
use trainer::data::EvalData;
use trainer::eval::evaluate;
use trainer::generate::generate;
use trainer::interrupt::Interrupt;
use trainer::logging::monitor::Memory;
use trainer::model::Gpt;

#[path = "support/training.rs"]
mod training;
use training::{small_dataset, small_recipe};

fn resident_mb() -> f64 {
    Memory::of_this_process().unwrap().current_gb * 1e3
}

#[test]
fn a_hundred_evaluation_batches_leave_memory_flat() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = small_recipe(folder.path(), &small_dataset(folder.path()));
    // A batch of 8 rows of 64 tokens keeps about 10 MB of graph if one is recorded.
    let load = |batches: u32| {
        let overrides =
            ["max_seq_len=64", "device_eval_batch_size=8", "model.d_model=64", "model.n_layers=4"];
        let mut overrides: Vec<String> = overrides.map(str::to_owned).into();
        overrides.push(format!("eval_subset_num_batches={batches}"));
        Config::load(&recipe, &overrides).unwrap()
    };
    let config = load(100);
    let tokenizer = Tokenizer::load(&config.tokenizer_name).unwrap();
    // The model of a training run: on a device with autodiff.
    let model = Gpt::init(&config.model, 17, &Device::flex().autodiff());

    let few = EvalData::open(&load(10), &tokenizer).unwrap().remove(0);
    let interrupt = Interrupt::default();
    evaluate(&model, &few, &tokenizer, &interrupt).unwrap();
    let before = resident_mb();
    let hundred = EvalData::open(&config, &tokenizer).unwrap().remove(0);
    let evaluation = evaluate(&model, &hundred, &tokenizer, &interrupt).unwrap().unwrap();
    let after = resident_mb();
    println!("resident: {before:.0} MB before, {after:.0} MB after {} tokens", evaluation.tokens);
    assert_eq!(evaluation.tokens, 100 * 8 * 63);
    assert!(after - before < 50.0, "grew from {before:.0} to {after:.0} MB");
}

#[test]
fn generation_leaves_memory_flat() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = small_recipe(folder.path(), &small_dataset(folder.path()));
    let overrides =
        ["max_seq_len=64", "model.d_model=64", "model.n_layers=4", "generate.max_new_tokens=300"];
    let config = Config::load(&recipe, &overrides.map(str::to_owned)).unwrap();
    let tokenizer = Tokenizer::load(&config.tokenizer_name).unwrap();
    let model = Gpt::init(&config.model, 17, &Device::flex().autodiff());
    let write = |seed| generate(&model, &tokenizer, "The", &config.generate, seed, |_| {}).unwrap();
    write(1);
    let before = resident_mb();
    let text: String = (2..5).map(write).collect();
    let after = resident_mb();
    println!("resident: {before:.0} MB before, {after:.0} MB after {} bytes of text", text.len());
    // 900 forwards of 64 tokens keep more than 1 MB of graph each if one is recorded.
    assert!(text.len() > 300 && after - before < 50.0, "grew from {before:.0} to {after:.0} MB");
}
