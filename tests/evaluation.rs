//! What an evaluation reports, against numbers worked out by hand.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;

use burn::tensor::Device;
use convert::tokenizer::Tokenizer;
use mds::format::{DType, Encoding, NdArray, Schema, Value};
use mds::{Writer, WriterOptions};
use trainer::config::Config;
use trainer::data::EvalData;
use trainer::eval::{Evaluation, Unigram, evaluate};
use trainer::interrupt::Interrupt;
use trainer::logging::Value as Metric;
use trainer::model::Gpt;

const VOCAB_SIZE: f64 = 4096.0;

fn tokenizer() -> Tokenizer {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/tokenizers/quickstart");
    Tokenizer::load(path.to_str().unwrap()).unwrap()
}

/// The id of a text that is one token.
fn id(text: &str) -> i32 {
    let ids = tokenizer().encode_bare(text).unwrap();
    assert_eq!(ids.len(), 1, "{text:?} is {ids:?}");
    ids[0] as i32
}

fn write(folder: &Path, rows: &[[i32; 4]]) {
    let encoding = Encoding::NdArray { dtype: Some(DType::I32), shape: None };
    let schema = Schema::new([("tokens", encoding)]).unwrap();
    let mut writer = Writer::create(folder, schema, WriterOptions::default()).unwrap();
    for row in rows {
        writer.write(&[Value::from(NdArray::from_i32(row))]).unwrap();
    }
    writer.finish().unwrap();
}

/// `the` and `,` in training, and something else besides in evaluation.
fn config(root: &Path, overrides: &[&str]) -> Config {
    let (the, comma, king, end) = (id(" the"), id(","), id(" king"), 0);
    if !root.join("train").exists() {
        write(&root.join("train"), &[[the, the, comma, the], [king, the, the, the]]);
        write(&root.join("val"), &[[king, the, comma, king], [the, end, the, the], [the; 4]]);
    }
    let yaml = format!(
        "
max_seq_len: 4
data_remote: {}
tokenizer_name: quickstart
model: {{name: mosaic_gpt, d_model: 8, n_heads: 1, n_layers: 1, vocab_size: 4096}}
train_loader: {{name: text, dataset: {{split: train}}}}
eval_loader: {{name: text, dataset: {{split: val}}, drop_last: false}}
scheduler: {{name: constant_with_warmup, t_warmup: 0ba}}
optimizer: {{name: decoupled_adamw, lr: 0.1}}
max_duration: 1ba
global_train_batch_size: 2
device_train_microbatch_size: 2
device_eval_batch_size: 2
",
        root.display()
    );
    let overrides: Vec<_> = overrides.iter().map(ToString::to_string).collect();
    Config::from_yaml_str(&yaml, &overrides).unwrap()
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-4 * b.abs()
}

#[test]
fn the_unigram_entropy_is_that_of_the_training_counts() {
    let root = tempfile::tempdir().unwrap();
    let config = config(root.path(), &[]);
    let tokenizer = tokenizer();
    let data = EvalData::open(&config, &tokenizer).unwrap().remove(0);
    let unigram = Unigram::of_training_split(&config, &tokenizer, &Interrupt::default());
    let unigram = unigram.unwrap().unwrap();
    let evaluation = unigram.evaluate(&data, &tokenizer, &Interrupt::default());
    let evaluation = evaluation.unwrap().unwrap();

    // Targets in training: the , the | the the the. One is added to the count of each of 4,096 entries.
    let total = 6.0 + VOCAB_SIZE;
    let (the, comma, unseen) = ((total / 6.0).ln(), (total / 2.0).ln(), total.ln());
    // Targets in evaluation: the , king | end the the | the the the.
    let nats = 6.0 * the + comma + 2.0 * unseen;
    assert!(close(evaluation.nats, nats), "{} is not {nats}", evaluation.nats);
    assert_eq!(evaluation.tokens, 9);
    // The end of a text spells nothing.
    assert_eq!(evaluation.bytes, 6 * " the".len() as u64 + 1 + " king".len() as u64);
    assert!(close(evaluation.nats_per_token(), nats / 9.0));
    assert!(close(evaluation.bits_per_byte(), nats / 2f64.ln() / 30.0));
}

#[test]
fn a_model_that_knows_nothing_is_at_the_logarithm_of_its_vocabulary() {
    let root = tempfile::tempdir().unwrap();
    let config = config(root.path(), &["model.init_std=0"]);
    let data = EvalData::open(&config, &tokenizer()).unwrap().remove(0);
    let model = Gpt::init(&config.model, 1, &Device::flex());
    let evaluation = evaluate(&model, &data, &tokenizer(), &Interrupt::default()).unwrap().unwrap();
    assert!(close(evaluation.nats, 9.0 * VOCAB_SIZE.ln()), "{evaluation:?}");
    assert_eq!((evaluation.tokens, evaluation.bytes), (9, 30));
    let metrics = evaluation.metrics(None);
    assert_eq!(metrics[1].0, "metrics/eval/LanguagePerplexity");
    let Metric::Float(perplexity) = metrics[1].1 else { panic!("{metrics:?}") };
    assert!(close(perplexity, VOCAB_SIZE), "{perplexity}");
}

/// Three rows in batches of two and one: a mean of the batches' means would weigh the last row double.
#[test]
fn every_token_weighs_the_same_however_rows_are_batched() {
    let root = tempfile::tempdir().unwrap();
    let with_batch = |rows: &str| -> Evaluation {
        let batch = format!("device_eval_batch_size={rows}");
        let config = config(root.path(), &["model.init_std=1", &batch]);
        let data = EvalData::open(&config, &tokenizer()).unwrap().remove(0);
        let model = Gpt::init(&config.model, 1, &Device::flex());
        evaluate(&model, &data, &tokenizer(), &Interrupt::default()).unwrap().unwrap()
    };
    let [one, two, three] = ["1", "2", "3"].map(with_batch);
    assert!(!close(one.nats_per_token(), VOCAB_SIZE.ln()), "{one:?}");
    for other in [two, three] {
        assert!(close(other.nats, one.nats), "{other:?} {one:?}");
        assert_eq!((other.tokens, other.bytes), (one.tokens, one.bytes));
    }
}
