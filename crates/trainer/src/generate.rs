//! Text that the model writes on from a prompt.

use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};
use convert::tokenizer::Tokenizer;
use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64;

use crate::config::GenerateConfig;
use crate::error::Result;
use crate::model::{Dropout, Gpt};

/// The continuation of `prompt` by `model`, drawn with a generator seeded by `seed`.
/// Ends early at the end-of-text token.
///
/// Each token runs the whole context again (there is no key-value cache), so this is for looking at a model, not for
/// serving one.
///
/// # Errors
/// When the tokenizer fails.
pub fn generate(
    model: &Gpt,
    tokenizer: &Tokenizer,
    prompt: &str,
    config: &GenerateConfig,
    seed: u64,
) -> Result<String> {
    let model = model.valid();
    let mut ids = tokenizer.encode_bare(prompt)?;
    if ids.is_empty() {
        ids.push(tokenizer.eos_id().unwrap_or(0));
    }
    let prompt_len = ids.len();
    let mut generator = Pcg64::seed_from_u64(seed);
    for _ in 0..config.max_new_tokens {
        let context = &ids[ids.len().saturating_sub(model.config().max_seq_len)..];
        let mut logits = next_logits(&model, context);
        // A table of embeddings may have more rows than the tokenizer has ids.
        logits.truncate(tokenizer.vocab_size());
        let id = sample(&logits, config, &mut generator);
        if Some(id) == tokenizer.eos_id() {
            break;
        }
        ids.push(id);
    }
    Ok(tokenizer.decode(&ids[prompt_len..])?)
}

/// The scores of the token after `context`.
fn next_logits(model: &Gpt, context: &[u32]) -> Vec<f32> {
    let ids: Vec<i32> = context.iter().map(|&id| id as i32).collect();
    let device = model.wte.weight.device();
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, context.len()]), &device); // [1, T]
    let hidden = model.hidden(tokens, &mut Dropout::off()); // [1, T, C]
    let last = hidden.narrow(1, context.len() - 1, 1); // [1, 1, C]
    let logits = model.logits(last); // [1, 1, V]
    logits.into_data().try_to_vec().expect("logits are f32 on every device this crate selects")
}

/// Draws from softmax(logits / temperature) among the `top_k` likeliest; temperature 0 takes the likeliest.
fn sample(logits: &[f32], config: &GenerateConfig, generator: &mut Pcg64) -> u32 {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    // Equal scores in the order of ids, so that a draw is reproducible.
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    order.truncate(config.top_k.unwrap_or(usize::MAX).max(1));
    if config.temperature == 0.0 {
        return order[0] as u32;
    }
    let largest = f64::from(logits[order[0]]);
    let weight = |id: usize| ((f64::from(logits[id]) - largest) / config.temperature).exp();
    let total: f64 = order.iter().map(|&id| weight(id)).sum();
    let mut left = (generator.next_u64() >> 11) as f64 / (1u64 << 53) as f64 * total;
    for &id in &order {
        left -= weight(id);
        if left < 0.0 {
            return id as u32;
        }
    }
    order[0] as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tiny_config;
    use burn::tensor::Device;

    fn config(temperature: f64, top_k: Option<usize>) -> GenerateConfig {
        GenerateConfig { prompt: None, max_new_tokens: 8, temperature, top_k }
    }

    #[test]
    fn draws_follow_the_distribution() {
        let logits = [0.0, 3f32.ln(), f32::NEG_INFINITY];
        let mut generator = Pcg64::seed_from_u64(1);
        let mut counts = [0; 3];
        for _ in 0..10_000 {
            counts[sample(&logits, &config(1.0, None), &mut generator) as usize] += 1;
        }
        assert!((7300..7700).contains(&counts[1]) && counts[2] == 0, "{counts:?}");
    }

    #[test]
    fn temperature_zero_and_top_one_take_the_likeliest() {
        let mut generator = Pcg64::seed_from_u64(1);
        for config in [config(0.0, None), config(1.0, Some(1))] {
            assert_eq!(sample(&[0.1, 0.3, 0.2], &config, &mut generator), 1);
        }
    }

    #[test]
    fn a_seed_names_a_text_and_long_prompts_are_cropped() {
        let tokenizer = Tokenizer::load("gpt2").unwrap();
        let model_config = crate::config::ModelConfig { vocab_size: 50257, ..tiny_config() };
        let model = Gpt::init(&model_config, 1, &Device::flex());
        let prompt = "To be, or not to be, that is the question";
        let write = |seed| generate(&model, &tokenizer, prompt, &config(1.0, None), seed).unwrap();
        assert_eq!(write(1), write(1));
        assert_ne!(write(1), write(2));
    }
}
