//! Models as folders of Hugging Face's `transformers`: [`export`] writes one from a checkpoint, [`import`] reads a GPT-2.
//!
//! ```text
//! OUT/
//!   config.json             the architecture, of the family that computes the same
//!   model.safetensors       the parameters, by that family's names and layout
//!   generation_config.json  the ids of the special tokens
//!   tokenizer.json          the run's tokenizer
//!   tokenizer_config.json
//! ```
//!
//! * `family.rs` which of the families a model is one of, and its `config.json`; refusals by key
//! * `weights.rs` our parameters to theirs and back

mod family;
mod weights;

use convert::tokenizer::Tokenizer;
use mds::storage::{Remote, RemoteOptions};
use serde_json::{Value, json};

use crate::checkpoint::{Place, write_tensors};
use crate::config::{Config, ModelConfig};
use crate::error::{Error, Result};
use crate::model::NamedTensor;

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const GENERATION: &str = "generation_config.json";
const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// Writes the model of `checkpoint` (a checkpoint or a save folder, whose newest is taken) to `out`, a folder that is made.
/// Both may be addresses. `tokenizer` replaces the run's own.
///
/// # Errors
/// When the checkpoint cannot be read, no family of `transformers` computes the same as its model, the tokenizer cannot
/// be loaded, or `out` holds a file of one of the names above already or cannot be written.
pub fn export(checkpoint: &str, out: &str, tokenizer: Option<&str>) -> Result<()> {
    let place = Place::open(checkpoint, RemoteOptions::default())?;
    let found = place.load()?;
    let checkpoint = found.checkpoint;
    let config = Config::from_checkpoint(&checkpoint.state.config, &found.place)?;
    let family = family::of(&config.model)?;
    let tokenizer = Tokenizer::load(tokenizer.unwrap_or(&config.tokenizer_name))?;
    let tensors = weights::to_family(checkpoint.model, family, &config.model);

    let remote = Remote::open(out, config.remote_options())?;
    for name in [CONFIG, WEIGHTS, GENERATION, TOKENIZER, TOKENIZER_CONFIG] {
        let exists = match remote.folder() {
            Some(folder) => folder.join(name).exists(),
            None => remote.known_size(name)?.is_some(),
        };
        if exists {
            return Err(Error::Checkpoint(format!(
                "`{}` holds a {name} already; give another folder, or remove that file",
                remote.address()
            )));
        }
    }
    let staging =
        tempfile::tempdir().map_err(Error::io("create a folder in", std::env::temp_dir()))?;
    let named = tensors.iter().map(|tensor| (&tensor.name, tensor));
    write_tensors(&staging.path().join(WEIGHTS), named)?;
    remote.put_file(WEIGHTS, &staging.path().join(WEIGHTS))?;
    for (name, text) in tokenizer_files(&tokenizer, &config.model) {
        remote.put(name, text)?;
    }
    let eos = tokenizer.eos_id();
    let generation = json!({ "bos_token_id": eos, "eos_token_id": eos });
    remote.put(GENERATION, pretty(&generation))?;
    // Last: what has a config.json is complete.
    remote.put(CONFIG, pretty(&family::config_json(family, &config.model, eos)))?;
    Ok(())
}

/// The model in a folder (or at an address) that `transformers` wrote, as ours.
///
/// # Errors
/// When it is no GPT-2, or its files are damaged.
pub fn import(place: &Place) -> Result<(ModelConfig, Vec<NamedTensor>)> {
    let config = place.file(CONFIG)?;
    let config: Value = serde_json::from_slice(&config).map_err(|e| unusable(place, CONFIG, &e))?;
    if let Some(kind @ ("llama" | "mpt")) = config["model_type"].as_str() {
        return Err(Error::Checkpoint(format!(
            "the model `{place}` is of the family {kind}, which is written by export-hf, but not read again; give the \
             checkpoint that it was exported from"
        )));
    }
    let config = family::gpt2_from_json(&config).map_err(|e| unusable(place, CONFIG, &e))?;
    check_weights(place)?;
    let tensors = crate::checkpoint::decode_tensors(&place.file(WEIGHTS)?);
    let tensors = weights::from_gpt2(tensors.map_err(|e| unusable(place, WEIGHTS, &e))?);
    // Before a model is made, for which there might be no memory.
    let held = tensors.iter().map(|tensor| tensor.values.len() as u64).sum::<u64>();
    let described = config.check_size().map(|()| config.n_params());
    if !described.as_ref().is_ok_and(|&described| described <= held) {
        let described = described.map_or_else(|_| "more".to_owned(), |n| n.to_string());
        let problem = format!("describes {described} parameters, but {WEIGHTS} holds {held}");
        return Err(unusable(place, CONFIG, &problem));
    }
    Ok((config, tensors))
}

/// Weights in another form than one safetensors file are named, with what makes one of them.
fn check_weights(place: &Place) -> Result<()> {
    if place.has(WEIGHTS)? {
        return Ok(());
    }
    for (other, what) in [
        ("pytorch_model.bin", "which is Python's pickle and not read"),
        ("pytorch_model.bin.index.json", "which are Python's pickle and not read"),
        ("model.safetensors.index.json", "which names several files"),
    ] {
        if place.has(other)? {
            return Err(Error::Checkpoint(format!(
                "the model `{place}` has its weights in {other}, {what}; load it in transformers, and save it with \
                 save_pretrained(.., safe_serialization=True, max_shard_size='100GB')"
            )));
        }
    }
    Ok(())
}

/// Whether `place` holds a model of `transformers`.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn is_model(place: &Place) -> Result<bool> {
    place.has(CONFIG)
}

fn unusable(place: &Place, file: &str, problem: &dyn std::fmt::Display) -> Error {
    Error::Checkpoint(format!(
        "the model `{place}`: {file} {problem}; give a GPT-2 that transformers saved with save_pretrained"
    ))
}

/// The files that make `AutoTokenizer` load the run's tokenizer.
fn tokenizer_files(tokenizer: &Tokenizer, model: &ModelConfig) -> [(&'static str, String); 2] {
    let config = tokenizer.config_json().map(str::to_owned).unwrap_or_else(|| {
        let eos = tokenizer.eos_id().and_then(|id| tokenizer.decode(&[id]).ok());
        let config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": eos, "eos_token": eos, "unk_token": eos,
            "model_max_length": model.max_seq_len,
            "clean_up_tokenization_spaces": false,
            // Without it some models are given token types, which they refuse.
            "model_input_names": ["input_ids", "attention_mask"],
        });
        pretty(&config)
    });
    [(TOKENIZER, tokenizer.json().to_owned()), (TOKENIZER_CONFIG, config)]
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}
