//! Text that the model writes on from a prompt.

use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData};
use convert::tokenizer::Tokenizer;
use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64;

use crate::config::GenerateConfig;
use crate::error::Result;
use crate::model::{Cache, Gpt};

/// The continuation of `prompt` by `model`, drawn with a generator seeded by `seed`.
/// Ends early at the end-of-text token.
///
/// The model reads each token once, as long as prompt and text are no longer than its `max_seq_len`; of longer ones it
/// reads the last `max_seq_len` tokens again for each new one. `on_text` is given each piece of text as soon as its
/// characters are whole.
///
/// # Errors
/// When the tokenizer fails.
pub fn generate(
    model: &Gpt,
    tokenizer: &Tokenizer,
    prompt: &str,
    config: &GenerateConfig,
    seed: u64,
    mut on_text: impl FnMut(&str),
) -> Result<String> {
    let model = model.valid();
    let mut ids = tokenizer.encode_bare(prompt)?;
    if ids.is_empty() {
        ids.push(tokenizer.eos_id().unwrap_or(0));
    }
    let prompt_len = ids.len();
    let mut generator = Pcg64::seed_from_u64(seed);
    let (mut cache, mut shown) = (Cache::default(), 0);
    let mut text = String::new();
    for _ in 0..config.max_new_tokens {
        let start = ids.len().saturating_sub(model.config().max_seq_len);
        if start > 0 {
            // Every position is another one now.
            cache = Cache::default();
        }
        let mut logits = next_logits(&model, &ids[start..], &mut cache);
        // A table of embeddings may have more rows than the tokenizer has ids.
        logits.truncate(tokenizer.vocab_size());
        let id = sample(logits, &ids, config, &mut generator);
        if Some(id) == tokenizer.eos_id() {
            break;
        }
        ids.push(id);
        text = tokenizer.decode(&ids[prompt_len..])?;
        // A character that is not whole yet is shown as this one.
        if !text.ends_with('\u{fffd}') && text.is_char_boundary(shown) {
            on_text(&text[shown..]);
            shown = text.len();
        }
    }
    on_text(text.get(shown..).unwrap_or_default());
    Ok(text)
}

/// The likeliest continuation of `prompt`, at most `max_new_tokens` tokens, which the model has positions for. Ends before the
/// end-of-text token, or after the token where `is_over` says so of those that are new.
///
/// # Errors
/// Those of `is_over`.
pub(crate) fn likeliest(
    model: &Gpt,
    tokenizer: &Tokenizer,
    prompt: &[u32],
    max_new_tokens: usize,
    mut is_over: impl FnMut(&[u32]) -> Result<bool>,
) -> Result<Vec<u32>> {
    let mut ids = prompt.to_vec();
    let mut cache = Cache::default();
    for _ in 0..max_new_tokens {
        let mut logits = next_logits(model, &ids, &mut cache);
        logits.truncate(tokenizer.vocab_size());
        let best =
            (1..logits.len()).fold(0, |best, id| if logits[id] > logits[best] { id } else { best });
        let id = best as u32;
        if Some(id) == tokenizer.eos_id() {
            break;
        }
        ids.push(id);
        if is_over(&ids[prompt.len()..])? {
            break;
        }
    }
    Ok(ids.split_off(prompt.len()))
}

/// The scores of the token after `context`, whose beginning `cache` has seen.
fn next_logits(model: &Gpt, context: &[u32], cache: &mut Cache) -> Vec<f32> {
    let ids: Vec<i32> = context.iter().map(|&id| id as i32).collect();
    let device = model.wte.weight.device();
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, context.len()]), &device); // [1, S]
    let hidden = model.hidden_of_new(tokens, cache); // [1, T, C]
    let [_, new, _] = hidden.dims();
    let logits = model.logits(hidden.narrow(1, new - 1, 1)); // [1, 1, V]
    logits.into_data().try_to_vec().expect("logits are f32 on every device this crate selects")
}

/// Draws a token: scores of those in `seen` are lowered by `repetition_penalty` (Keskar et al. 2019), all are divided by
/// `temperature`, and of the `top_k` likeliest the fewest are taken whose probabilities sum to `top_p` (Holtzman et al.
/// 2020). Temperature 0 takes the likeliest.
fn sample(
    mut logits: Vec<f32>,
    seen: &[u32],
    config: &GenerateConfig,
    generator: &mut Pcg64,
) -> u32 {
    penalise(&mut logits, seen, config.repetition_penalty as f32);
    let mut order: Vec<usize> = (0..logits.len()).collect();
    // Equal scores in the order of ids, so that a draw is reproducible.
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    order.truncate(config.top_k.unwrap_or(usize::MAX).max(1));
    if config.temperature == 0.0 {
        return order[0] as u32;
    }
    let largest = f64::from(logits[order[0]]);
    let weight = |id: usize| ((f64::from(logits[id]) - largest) / config.temperature).exp();
    let mut weights: Vec<f64> = order.iter().map(|&id| weight(id)).collect();
    weights.truncate(nucleus(&weights, config.top_p));
    let total: f64 = weights.iter().sum();
    let mut left = (generator.next_u64() >> 11) as f64 / (1u64 << 53) as f64 * total;
    for (&id, weight) in order.iter().zip(&weights) {
        left -= weight;
        if left < 0.0 {
            return id as u32;
        }
    }
    order[0] as u32
}

/// Divides what speaks for a token that was seen by `penalty`, and multiplies what speaks against it.
fn penalise(logits: &mut [f32], seen: &[u32], penalty: f32) {
    if penalty == 1.0 {
        return;
    }
    let mut seen: Vec<usize> = seen.iter().map(|&id| id as usize).collect();
    seen.sort_unstable();
    seen.dedup();
    for id in seen {
        if let Some(logit) = logits.get_mut(id) {
            *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
        }
    }
}

/// How many of these, the largest first, make up the part `top_p` of their sum; at least one.
fn nucleus(weights: &[f64], top_p: Option<f64>) -> usize {
    let Some(top_p) = top_p.filter(|&p| p < 1.0) else { return weights.len() };
    let wanted = top_p * weights.iter().sum::<f64>();
    let mut sum = 0.0;
    let reaches = |weight: &f64| {
        sum += weight;
        sum >= wanted
    };
    weights.iter().position(reaches).map_or(weights.len(), |last| last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelConfig;
    use crate::model::{Dropout, tiny_config};
    use burn::tensor::Device;

    fn config(temperature: f64, top_k: Option<usize>) -> GenerateConfig {
        GenerateConfig {
            prompt: None,
            max_new_tokens: 8,
            temperature,
            top_k,
            top_p: None,
            repetition_penalty: 1.0,
        }
    }

    fn counts(logits: &[f32], seen: &[u32], config: &GenerateConfig) -> Vec<usize> {
        let mut generator = Pcg64::seed_from_u64(1);
        let mut counts = vec![0; logits.len()];
        for _ in 0..10_000 {
            counts[sample(logits.to_vec(), seen, config, &mut generator) as usize] += 1;
        }
        counts
    }

    #[test]
    fn draws_follow_the_distribution() {
        let counts = counts(&[0.0, 3f32.ln(), f32::NEG_INFINITY], &[], &config(1.0, None));
        assert!((7300..7700).contains(&counts[1]) && counts[2] == 0, "{counts:?}");
    }

    #[test]
    fn temperature_zero_and_top_one_take_the_likeliest() {
        for config in [config(0.0, None), config(1.0, Some(1))] {
            assert_eq!(counts(&[0.1, 0.3, 0.2], &[], &config), [0, 10_000, 0]);
        }
    }

    #[test]
    fn top_p_takes_the_fewest_that_reach_it() {
        // Probabilities 0.5, 0.3 and 0.2.
        let logits = [0.3f32.ln(), 0.5f32.ln(), 0.2f32.ln()];
        let with = |top_p| GenerateConfig { top_p: Some(top_p), ..config(1.0, None) };
        assert_eq!(counts(&logits, &[], &with(0.4)), [0, 10_000, 0]);
        let two = counts(&logits, &[], &with(0.7));
        assert!((3550..3950).contains(&two[0]) && two[2] == 0, "{two:?}");
        assert!(counts(&logits, &[], &with(0.9)).iter().all(|&n| n > 0));
    }

    #[test]
    fn a_penalty_lowers_what_was_seen_on_both_sides_of_zero() {
        let mut logits = [2.0, -2.0, 1.0];
        penalise(&mut logits, &[0, 1, 1, 0], 2.0);
        assert_eq!(logits, [1.0, -4.0, 1.0]);
    }

    #[test]
    fn a_seed_names_a_text_that_comes_in_pieces_and_long_prompts_are_cropped() {
        let tokenizer = Tokenizer::load("gpt2").unwrap();
        let model_config = ModelConfig { vocab_size: 50257, ..tiny_config() };
        let model = Gpt::init(&model_config, 1, &Device::flex());
        let prompt = "To be, or not to be, that is the question";
        let write = |seed| {
            let mut pieces = String::new();
            let on_text = |piece: &str| pieces.push_str(piece);
            let text =
                generate(&model, &tokenizer, prompt, &config(1.0, None), seed, on_text).unwrap();
            assert_eq!(pieces, text);
            text
        };
        assert_eq!(write(1), write(1));
        assert_ne!(write(1), write(2));
    }

    #[test]
    fn a_cache_gives_what_reading_everything_again_does() {
        let device = Device::flex();
        let rope = {
            let mut config = ModelConfig { d_model: 8, init_std: 0.5, ..tiny_config() };
            config.learned_pos_emb = false;
            config.attn_config.rope = true;
            config.attn_config.kv_n_heads = 1;
            config
        };
        let alibi = {
            let mut config = ModelConfig { init_std: 0.5, ..tiny_config() };
            config.attn_config.alibi = true;
            config.attn_config.sliding_window_size = Some(1);
            config
        };
        for config in [ModelConfig { init_std: 0.5, ..tiny_config() }, rope, alibi] {
            let model = Gpt::init(&config, 3, &device);
            let context = [3, 1, 4, 1, 5];
            let mut cache = Cache::default();
            for end in [2, 3, 5] {
                let cached = next_logits(&model, &context[..end], &mut cache);
                let ids: Vec<i32> = context[..end].iter().map(|&id| id as i32).collect();
                let tokens = Tensor::from_data(TensorData::new(ids, [1, end]), &device);
                let hidden = model.hidden(tokens, &mut Dropout::off()).narrow(1, end - 1, 1);
                let whole: Vec<f32> = model.logits(hidden).into_data().try_to_vec().unwrap();
                for (a, b) in cached.iter().zip(&whole) {
                    assert!((a - b).abs() < 1e-5, "{cached:?} {whole:?}");
                }
            }
        }
    }
}
