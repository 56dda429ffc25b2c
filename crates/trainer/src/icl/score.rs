//! The probabilities that a model gives to continuations.
//!
//! A row of a batch is what the model reads: a sequence without its last token. Rows are padded on the right, where
//! attention, being causal, does not look. One row serves all the sequences of a question that begin alike: questions
//! whose candidates are single tokens are read once.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor, TensorData};

use super::prompt::Sequence;
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::model::{Dropout, Gpt};

/// Tokens whose logits exist at the same time.
const CHUNK_TOKENS: usize = 256;

/// What a model makes of a continuation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Score {
    /// Mean of the logarithms of its tokens' probabilities, in nats: comparable between lengths.
    pub(super) mean_log_prob: f64,
    /// Whether each of its tokens is the likeliest one after those before.
    pub(super) greedy: bool,
}

/// The scores of every question's sequences, `rows` rows at a time; `None` if `interrupt` was asked before the end.
///
/// # Errors
/// When the model's logits are not numbers.
pub(super) fn score(
    model: &Gpt,
    questions: &[Vec<Sequence>],
    rows: usize,
    interrupt: &Interrupt,
) -> Result<Option<Vec<Vec<Score>>>> {
    let mut all: Vec<Row<'_>> = questions.iter().enumerate().flat_map(rows_of).collect();
    // Rows of about the same length together: less padding.
    all.sort_by_key(|row| row.tokens.len());
    let mut sums: Vec<Vec<Sum>> =
        questions.iter().map(|sequences| vec![Sum::default(); sequences.len()]).collect();
    for batch in all.chunks(rows) {
        if interrupt.is_asked() {
            return Ok(None);
        }
        for (target, found) in batch.iter().flat_map(|row| &row.targets).zip(read(model, batch)) {
            let sum = &mut sums[target.question][target.sequence];
            sum.log_prob += f64::from(found.log_prob);
            sum.tokens += 1;
            sum.missed |= !found.likeliest;
        }
    }
    let scores: Vec<Vec<Score>> =
        sums.iter().map(|sums| sums.iter().map(Sum::score).collect()).collect();
    if scores.iter().flatten().any(|score| score.mean_log_prob.is_nan()) {
        return Err(Error::Training(
            "the model gives scores that are not numbers; take an older checkpoint".into(),
        ));
    }
    Ok(Some(scores))
}

/// What the model reads at once, and what it is asked about it.
struct Row<'a> {
    tokens: &'a [i32],
    targets: Vec<Target>,
}

/// A token of a continuation.
struct Target {
    /// Where in its row the token before it is.
    position: usize,
    token: i32,
    question: usize,
    sequence: usize,
}

/// The rows of a question's sequences: those that are the beginning of another are read with it.
fn rows_of((question, sequences): (usize, &Vec<Sequence>)) -> Vec<Row<'_>> {
    let mut rows: Vec<Row<'_>> = Vec::new();
    for (index, sequence) in sequences.iter().enumerate() {
        let Sequence { tokens, continuation } = sequence;
        let input = &tokens[..tokens.len() - 1];
        let row =
            rows.iter().position(|r| r.tokens.starts_with(input) || input.starts_with(r.tokens));
        let row = row.unwrap_or_else(|| {
            rows.push(Row { tokens: input, targets: Vec::new() });
            rows.len() - 1
        });
        let row = &mut rows[row];
        if input.len() > row.tokens.len() {
            row.tokens = input;
        }
        row.targets.extend((tokens.len() - continuation..tokens.len()).map(|at| Target {
            position: at - 1,
            token: tokens[at],
            question,
            sequence: index,
        }));
    }
    rows
}

/// What the model makes of one target.
struct Found {
    log_prob: f32,
    likeliest: bool,
}

/// The targets of a batch, in their order.
fn read(model: &Gpt, batch: &[Row<'_>]) -> Vec<Found> {
    let seq = batch.iter().map(|row| row.tokens.len()).max().unwrap_or(0);
    let mut ids = Vec::with_capacity(batch.len() * seq);
    let (mut positions, mut labels) = (Vec::new(), Vec::new());
    for (i, row) in batch.iter().enumerate() {
        ids.extend_from_slice(row.tokens);
        ids.resize((i + 1) * seq, 0);
        positions.extend(row.targets.iter().map(|target| (i * seq + target.position) as i32));
        labels.extend(row.targets.iter().map(|target| target.token));
    }
    let device = model.wte.weight.device();
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(ids, [batch.len(), seq]), &device); // [B, T]
    let hidden = model.hidden(tokens, &mut Dropout::off()); // [B, T, C]
    let d_model = hidden.dims()[2];
    let hidden = hidden.reshape([batch.len() * seq, d_model]); // [B·T, C]

    let mut found = Vec::with_capacity(labels.len());
    for (positions, labels) in positions.chunks(CHUNK_TOKENS).zip(labels.chunks(CHUNK_TOKENS)) {
        let count = positions.len();
        let positions =
            Tensor::<1, Int>::from_data(TensorData::new(positions.to_vec(), [count]), &device); // [N]
        let hidden = hidden.clone().select(0, positions).reshape([1, count, d_model]); // [1, N, C]
        let logits = model.logits(hidden); // [1, N, V]
        let vocab_size = logits.dims()[2];
        let logits = logits.reshape([count, vocab_size]); // [N, V]
        let targets =
            Tensor::<2, Int>::from_data(TensorData::new(labels.to_vec(), [count, 1]), &device); // [N, 1]
        let likeliest = logits.clone().argmax(1).into_data(); // [N, 1]
        let log_probs = log_softmax(logits, 1).gather(1, targets).into_data(); // [N, 1]
        let of_label = log_probs.iter::<f32>().zip(likeliest.iter::<i64>()).zip(labels);
        found.extend(of_label.map(|((log_prob, likeliest), &label)| Found {
            log_prob,
            likeliest: likeliest == i64::from(label),
        }));
    }
    found
}

/// The tokens of a continuation so far.
#[derive(Clone, Default)]
struct Sum {
    log_prob: f64,
    tokens: u32,
    missed: bool,
}

impl Sum {
    fn score(&self) -> Score {
        Score { mean_log_prob: self.log_prob / f64::from(self.tokens), greedy: !self.missed }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::config::ModelConfig;
    use crate::model::{NamedTensor, tiny_config};

    fn sequence(tokens: &[i32], continuation: usize) -> Sequence {
        Sequence { tokens: tokens.to_vec(), continuation }
    }

    fn scores(model: &Gpt, questions: &[Vec<Sequence>], rows: usize) -> Vec<Vec<Score>> {
        score(model, questions, rows, &Interrupt::default()).unwrap().unwrap()
    }

    /// A model of 4 tokens whose blocks add nothing: after token 0 the logits are (0, 2, 0, −2), after token 1 their
    /// opposites, after all others they are 0.
    fn bigrams() -> Gpt {
        let config = ModelConfig {
            init_std: 0.0,
            tie_word_embeddings: false,
            learned_pos_emb: false,
            ..ModelConfig::mosaic_gpt(2, 1, 1, 8, 4)
        };
        let model = Gpt::init(&config, 1, &Device::flex());
        let named = |tensor: NamedTensor| {
            // The last norm makes (c, −c) of the first two embeddings, with c = 1 but for its epsilon, and 0 of the rest.
            let values = match &*tensor.name {
                "transformer.wte.weight" => vec![9.0, -9.0, -9.0, 9.0, 0.0, 0.0, 0.0, 0.0],
                "lm_head.weight" => vec![0.0, 0.0, 1.0, -1.0, 0.0, 0.0, -1.0, 1.0],
                _ => tensor.values,
            };
            NamedTensor { values, ..tensor }
        };
        let tensors: Vec<_> = model.to_named_tensors().into_iter().map(named).collect();
        assert_eq!(tensors.iter().filter(|t| t.values.contains(&9.0)).count(), 1);
        model.with_named_tensors(tensors).unwrap()
    }

    #[test]
    fn a_score_is_the_mean_logarithm_of_the_probabilities() {
        let model = bigrams();
        let e = std::f64::consts::E;
        let all = e.powi(2) + 2.0 + e.powi(-2);
        // After 0: ln p(1) = 2 − ln all, ln p(0) = ln p(2) = −ln all, ln p(3) = −2 − ln all; after 2: −ln 4 each.
        let after_0 = |logit: f64| logit - all.ln();
        let questions = [
            vec![
                sequence(&[2, 0, 1], 1),
                sequence(&[2, 0, 2], 1),
                sequence(&[2, 0, 3], 1),
                sequence(&[2, 0, 1, 3], 2),
                sequence(&[2, 0, 2, 0, 1], 3),
            ],
            vec![sequence(&[1, 3], 1)],
        ];
        let expected = [
            vec![
                (after_0(2.0), true),
                (after_0(0.0), false),
                (after_0(-2.0), false),
                // After 1, token 3 has the logit 2.
                (after_0(2.0), true),
                // The likeliest after 2, where all are equal, is the first: 0. But 2 is not the likeliest after 0.
                ((after_0(0.0) - 4f64.ln() + after_0(2.0)) / 3.0, false),
            ],
            vec![(after_0(2.0), true)],
        ];
        for rows in [1, 2, 10] {
            let found = scores(&model, &questions, rows);
            for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
                assert!((found.mean_log_prob - expected.0).abs() < 1e-5, "{found:?} {expected:?}");
                assert_eq!(found.greedy, expected.1, "{found:?} {expected:?}");
            }
        }
    }

    #[test]
    fn sequences_that_begin_alike_are_read_once() {
        let sequences = [
            sequence(&[5, 6, 1], 1),
            sequence(&[5, 6, 2], 1),
            sequence(&[5, 6, 2, 3], 2),
            sequence(&[5, 7, 1], 1),
        ];
        let sequences = sequences.to_vec();
        let rows = rows_of((0, &sequences));
        let read: Vec<_> = rows.iter().map(|row| (row.tokens, row.targets.len())).collect();
        assert_eq!(read, [(&[5, 6, 2][..], 4), (&[5, 7][..], 1)]);
    }

    /// In batches of any size, beside longer ones, and read with others, a sequence has the score that it has alone.
    #[test]
    fn scores_do_not_depend_on_what_is_read_beside() {
        let config = ModelConfig { init_std: 0.5, max_seq_len: 8, ..tiny_config() };
        let model = Gpt::init(&config, 3, &Device::flex());
        let questions: Vec<Vec<Sequence>> = (0..7)
            .map(|q| {
                let tokens: Vec<i32> = (0..=2 + q % 6).map(|i| (3 * i + q) % 11).collect();
                let mut other = tokens.clone();
                *other.last_mut().unwrap() = 1;
                vec![sequence(&tokens, 1 + q as usize % 2), sequence(&other, 1)]
            })
            .collect();
        let alone = |s: &Sequence| scores(&model, &[vec![s.clone()]], 1)[0][0];
        for rows in [1, 3, 100] {
            for (sequences, found) in questions.iter().zip(scores(&model, &questions, rows)) {
                for (sequence, found) in sequences.iter().zip(found) {
                    let expected = alone(sequence);
                    assert!((found.mean_log_prob - expected.mean_log_prob).abs() < 1e-5);
                    assert_eq!(found.greedy, expected.greedy);
                }
            }
        }
    }

    #[test]
    fn logits_that_are_not_numbers_are_an_error() {
        let model = bigrams();
        let broken = |tensor: NamedTensor| {
            let values = vec![f32::NAN; tensor.values.len()];
            NamedTensor { values, ..tensor }
        };
        let tensors = model.to_named_tensors().into_iter().map(broken).collect();
        let model = model.with_named_tensors(tensors).unwrap();
        let error = score(&model, &[vec![sequence(&[0, 1], 1)]], 1, &Interrupt::default());
        assert_eq!(
            error.unwrap_err().to_string(),
            "the model gives scores that are not numbers; take an older checkpoint"
        );
    }
}
