//! A trained model with all that it takes to use it, from a checkpoint or from a folder of `transformers`.

use burn::tensor::Device;
use convert::tokenizer::Tokenizer;
use mds::storage::RemoteOptions;

use crate::checkpoint::Place;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::hf;
use crate::model::Gpt;

/// A model to generate with and to evaluate.
#[derive(Debug)]
pub struct Pretrained {
    /// The model, on a device without autodiff.
    pub model: Gpt,
    /// What makes its tokens.
    pub tokenizer: Tokenizer,
    /// The recipe of its run, where it was trained here.
    pub recipe: Option<Config>,
    /// Where it was found, for messages.
    pub place: String,
}

impl Pretrained {
    /// Loads what lies at `address`, a path or as in [`mds::storage::Remote::open`]: a checkpoint, a save folder, whose
    /// newest is taken, or a GPT-2 that `transformers` saved. `tokenizer` replaces the one that the model was trained with.
    ///
    /// # Errors
    /// When there is no model, it is damaged, or its tokenizer cannot be loaded.
    pub fn load(address: &str, tokenizer: Option<&str>, device: &Device) -> Result<Self> {
        let place = Place::open(address, RemoteOptions::default())?;
        if hf::is_model(&place)? {
            let (config, tensors) = hf::import(&place)?;
            let model = Gpt::init(&config, 0, device).with_named_tensors(tensors);
            let model =
                model.map_err(|e| Error::Checkpoint(format!("the model `{place}`: {e}")))?;
            let tokenizer = Tokenizer::load(tokenizer.unwrap_or(address))?;
            check_vocabulary(&model, &tokenizer)?;
            return Ok(Self { model, tokenizer, recipe: None, place: place.to_string() });
        }
        let found = place.load()?;
        let recipe = Config::from_checkpoint(&found.checkpoint.state.config, &found.place)?;
        let place = found.place.to_string();
        let model = Gpt::init(&recipe.model, 0, device).with_named_tensors(found.checkpoint.model);
        let model =
            model.map_err(|e| Error::Checkpoint(format!("the checkpoint `{place}`: {e}")))?;
        let tokenizer = Tokenizer::load(tokenizer.unwrap_or(&recipe.tokenizer_name))?;
        check_vocabulary(&model, &tokenizer)?;
        Ok(Self { model, tokenizer, recipe: Some(recipe), place })
    }
}

/// An id that the model has no row for would be looked up all the same.
fn check_vocabulary(model: &Gpt, tokenizer: &Tokenizer) -> Result<()> {
    let (known, ids) = (model.config().vocab_size, tokenizer.vocab_size());
    if ids <= known {
        return Ok(());
    }
    Err(Error::Config(format!(
        "the tokenizer `{}` has ids up to {}, but the model knows {known}; use the one that the model was trained with",
        tokenizer.name(),
        ids - 1
    )))
}
