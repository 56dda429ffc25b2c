//! What the model has learned: its loss on held-out documents, and what knowing only word counts would give.

use std::ops::ControlFlow;
use std::time::Instant;

use burn::module::Module;
use convert::tokenizer::Tokenizer;

use crate::checkpoint::State;
use crate::config::Config;
use crate::data::{AskedBy, EvalData, EvalPass, IGNORED, TokenBatch};
use crate::error::{Error, Result};
use crate::icl::{Tasks, accuracies};
use crate::interrupt::Interrupt;
use crate::logging::{Metric, MetricLogger, Value};
use crate::loss::summed_loss;
use crate::model::Gpt;

/// Tokens of the training split that are counted for the unigram baseline.
const COUNTED_TOKENS: u64 = 20_000_000;

/// A loss over held-out tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evaluation {
    /// Sum over all predicted tokens, in nats.
    pub nats: f64,
    /// Predicted tokens.
    pub tokens: u64,
    /// Bytes of the text that the predicted tokens spell.
    pub bytes: u64,
}

impl Evaluation {
    /// Mean loss of a token, in nats.
    pub fn nats_per_token(&self) -> f64 {
        self.nats / self.tokens as f64
    }

    /// Loss per byte of text, in bits: comparable between tokenizers.
    pub fn bits_per_byte(&self) -> f64 {
        self.nats / std::f64::consts::LN_2 / self.bytes as f64
    }

    /// Under the names of the reference, bits per byte beside them: `metrics/eval/LanguageCrossEntropy`, or with a label
    /// `metrics/eval/LABEL/LanguageCrossEntropy`.
    pub fn metrics(&self, label: Option<&str>) -> Vec<(String, Value)> {
        let named = |name: &str, value: f64| (metric_name(label, name), value.into());
        vec![
            named("LanguageCrossEntropy", self.nats_per_token()),
            named("LanguagePerplexity", self.nats_per_token().exp()),
            named("BitsPerByte", self.bits_per_byte()),
        ]
    }
}

/// `metrics/eval/NAME`, or `metrics/eval/LABEL/NAME`.
fn metric_name(label: Option<&str>, name: &str) -> String {
    let label = label.map_or(String::new(), |label| format!("{label}/"));
    format!("metrics/eval/{label}{name}")
}

/// What an examination of the model found.
#[derive(Clone, Debug)]
pub(crate) struct Findings {
    splits: Vec<OfSplit>,
    /// Of in-context tasks, by name.
    accuracies: Vec<(String, f64)>,
}

/// What it found on one split.
#[derive(Clone, Debug)]
struct OfSplit {
    label: Option<String>,
    model: Evaluation,
    /// What knowing only the counts of the training split would give; at the end of the run only.
    unigram: Option<Evaluation>,
}

impl Findings {
    /// All that is logged.
    pub(crate) fn metrics(&self) -> Vec<(String, Value)> {
        let accuracies =
            self.accuracies.iter().map(|(name, value)| (name.clone(), (*value).into()));
        self.splits.iter().flat_map(OfSplit::metrics).chain(accuracies).collect()
    }
}

impl OfSplit {
    fn metrics(&self) -> Vec<(String, Value)> {
        let label = self.label.as_deref();
        let mut metrics = self.model.metrics(label);
        let nats = self.unigram.map(|unigram| unigram.nats_per_token());
        let name = metric_name(label, "UnigramCrossEntropy");
        metrics.extend(nats.map(|nats| (name, nats.into())));
        metrics
    }
}

/// Metrics whose names are lent.
pub(crate) fn lent(metrics: &[(String, Value)]) -> Vec<Metric<'_>> {
    metrics.iter().map(|(name, value)| (name.as_str(), value.clone())).collect()
}

/// Evaluates the model of a run when that is due, and reports at its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Examiner<'a> {
    pub(crate) config: &'a Config,
    /// Without any, and without tasks, nothing is ever due.
    pub(crate) data: &'a [EvalData],
    pub(crate) tasks: &'a Tasks,
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) interrupt: &'a Interrupt,
}

impl Examiner<'_> {
    /// Evaluates the model and logs what is found, if that is due. What Ctrl-C breaks off stays due. `at_end`: the run
    /// ends here, and the unigram entropy belongs to it.
    pub(crate) fn run_due(
        &self,
        model: &Gpt,
        state: &mut State,
        logger: &mut MetricLogger,
        at_end: bool,
    ) -> Result<Option<Findings>> {
        let is_nothing = self.data.is_empty() && self.tasks.is_empty();
        if is_nothing || !state.evaluation_due {
            state.evaluation_due = false;
            return Ok(None);
        }
        let began = Instant::now();
        let findings = self.examine(model, at_end)?;
        state.eval_seconds += began.elapsed().as_secs_f64();
        if let Some(findings) = &findings {
            logger.log_eval(&state.timestamp, &lent(&findings.metrics()))?;
            state.evaluation_due = false;
        }
        Ok(findings)
    }

    /// Prints what the run came to: the loss beside the unigram entropy; returns the first split's. `findings` are those of
    /// the end; a run that had come to its end before has them on record, and they are made again.
    pub(crate) fn report(
        &self,
        model: &Gpt,
        findings: Option<Findings>,
        logger: &MetricLogger,
    ) -> Result<Option<Evaluation>> {
        if self.data.is_empty() {
            return Ok(None);
        }
        // A run that its last evaluation ended lacks the unigram entropy.
        let whole = |splits: &Vec<OfSplit>| splits.iter().all(|found| found.unigram.is_some());
        let splits = match findings.map(|findings| findings.splits).filter(whole) {
            Some(splits) => Some(splits),
            None => self.examine_splits(model, true)?,
        };
        let Some(splits) = splits else { return Ok(None) };
        for (data, found) in self.data.iter().zip(&splits) {
            self.report_split(data, found, logger);
        }
        Ok(splits.first().map(|found| found.model))
    }

    fn report_split(&self, data: &EvalData, found: &OfSplit, logger: &MetricLogger) {
        let OfSplit { label, model, unigram: Some(unigram) } = found else { return };
        let line = |what: &str, e: &Evaluation| {
            let (nats, bits) = (e.nats_per_token(), e.bits_per_byte());
            logger.print(&format!("{what:<34} {nats:.4} nats/token  {bits:.4} bits/byte"));
        };
        let (split, training) = (&data.loader().dataset, &self.config.train_loader.dataset);
        let same = (&split.remote, &split.local, &split.split, &split.streams)
            == (&training.remote, &training.local, &training.split, &training.streams);
        let documents = if same { "documents that were trained on" } else { "held-out documents" };
        let of = label.as_ref().map_or(String::new(), |label| format!(" of {label}"));
        let Evaluation { tokens, bytes, .. } = unigram;
        logger.print(&format!("{documents}{of} ({tokens} tokens, {bytes} bytes):"));
        line("  unigram entropy (training counts)", unigram);
        line("  loss of the model", model);
        let below = unigram.nats_per_token() - model.nats_per_token();
        let side = if below >= 0.0 { "below" } else { "above" };
        logger.print(&format!(
            "  the model is {:.4} nats/token {side} the unigram entropy",
            below.abs()
        ));
    }

    /// What is found on each split and task; `None` if it was interrupted.
    fn examine(&self, model: &Gpt, at_end: bool) -> Result<Option<Findings>> {
        let Some(splits) = self.examine_splits(model, at_end)? else { return Ok(None) };
        let results = self.tasks.evaluate(model, self.interrupt, |_| {})?;
        Ok(results.map(|results| Findings { splits, accuracies: accuracies(&results) }))
    }

    fn examine_splits(&self, model: &Gpt, at_end: bool) -> Result<Option<Vec<OfSplit>>> {
        let (tokenizer, interrupt) = (self.tokenizer, self.interrupt);
        let mut findings = Vec::new();
        for data in self.data {
            let Some(model) = evaluate(model, data, tokenizer, interrupt)? else { return Ok(None) };
            findings.push(OfSplit { label: data.loader().label.clone(), model, unigram: None });
        }
        if !at_end || self.data.is_empty() {
            return Ok(Some(findings));
        }
        let Some(unigram) = Unigram::of_training_split(self.config, tokenizer, interrupt)? else {
            return Ok(None);
        };
        for (data, found) in self.data.iter().zip(&mut findings) {
            found.unigram = unigram.evaluate(data, tokenizer, interrupt)?;
            if found.unigram.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(findings))
    }
}

/// The loss of `model` over one pass of `data`, computed without a graph: a forward on an autodiff device that is never
/// taken backward would keep its graph. `None` if `interrupt` was asked before the end.
///
/// # Errors
/// When the data cannot be read, or has not a single token to predict.
pub fn evaluate(
    model: &Gpt,
    data: &EvalData,
    tokenizer: &Tokenizer,
    interrupt: &Interrupt,
) -> Result<Option<Evaluation>> {
    let model = model.valid();
    let mut sum = Evaluation::default();
    let whole = for_each_batch(data.pass()?, interrupt, |batch| {
        let (nats, tokens) = summed_loss(&model, &batch);
        sum.nats += nats;
        sum.tokens += tokens;
        sum.bytes += target_bytes(&batch, tokenizer)?;
        Ok(ControlFlow::Continue(()))
    })?;
    if whole { not_empty(sum, data).map(Some) } else { Ok(None) }
}

/// Does `each` with the batches of `pass` until it breaks off. `false` if `interrupt` was asked before, also while a
/// batch is waited for: that may come from a server which is silent.
fn for_each_batch(
    pass: EvalPass,
    interrupt: &Interrupt,
    mut each: impl FnMut(TokenBatch) -> Result<ControlFlow<()>>,
) -> Result<bool> {
    interrupt.stopping(pass.stopper(), || {
        for batch in pass {
            // Then a failure is that of the batch that nobody waits for any more.
            if interrupt.is_asked() {
                return Ok(false);
            }
            if each(batch?)?.is_break() {
                break;
            }
        }
        Ok(true)
    })
}

/// The token distribution of the training split, regardless of order.
#[derive(Clone, Debug)]
pub struct Unigram {
    counts: Vec<u64>,
    total: u64,
}

impl Unigram {
    /// Counts the tokens of the training split: one pass in its own order, at most 20 million tokens of it. `None` if
    /// `interrupt` was asked before the end.
    ///
    /// # Errors
    /// When the data cannot be read.
    pub fn of_training_split(
        config: &Config,
        tokenizer: &Tokenizer,
        interrupt: &Interrupt,
    ) -> Result<Option<Self>> {
        let mut loader = config.train_loader.clone();
        loader.dataset.shuffle = false;
        loader.drop_last = false;
        let (rows, vocab_size) = (config.device_eval_batch_size, config.model.vocab_size);
        let data = EvalData::of(&loader, AskedBy::Recipe, rows, None, vocab_size, tokenizer)?;
        let mut unigram = Self { counts: vec![0; vocab_size], total: 0 };
        let whole = for_each_batch(data.pass()?, interrupt, |batch| {
            unigram.count(&batch);
            Ok(match unigram.total >= COUNTED_TOKENS {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            })
        })?;
        Ok(whole.then_some(unigram))
    }

    fn count(&mut self, batch: &TokenBatch) {
        for &label in batch.labels.iter().filter(|&&label| label != IGNORED) {
            if let Some(count) = usize::try_from(label).ok().and_then(|id| self.counts.get_mut(id))
            {
                *count += 1;
                self.total += 1;
            }
        }
    }

    /// −ln of the probability of `id`, with one added to every count so that unseen tokens are possible.
    fn nats(&self, id: i32) -> f64 {
        let count =
            usize::try_from(id).ok().and_then(|id| self.counts.get(id)).copied().unwrap_or(0);
        ((self.total + self.counts.len() as u64) as f64 / (count + 1) as f64).ln()
    }

    /// The cross-entropy of one pass of `data` under these counts: the unigram entropy that a model which has learned
    /// anything about context stays below.
    ///
    /// # Errors
    /// As [`evaluate`], and `None` as there.
    pub fn evaluate(
        &self,
        data: &EvalData,
        tokenizer: &Tokenizer,
        interrupt: &Interrupt,
    ) -> Result<Option<Evaluation>> {
        let mut sum = Evaluation::default();
        let whole = for_each_batch(data.pass()?, interrupt, |batch| {
            let targets = batch.labels.iter().filter(|&&label| label != IGNORED);
            sum.nats += targets.map(|&label| self.nats(label)).sum::<f64>();
            sum.tokens += batch.labelled() as u64;
            sum.bytes += target_bytes(&batch, tokenizer)?;
            Ok(ControlFlow::Continue(()))
        })?;
        if whole { not_empty(sum, data).map(Some) } else { Ok(None) }
    }
}

/// Whether joined rows can be counted in bytes depends on nothing but the tokenizer: each row's targets are decoded.
/// Where a row ends inside a character, that character counts as one of 3 bytes. End-of-text tokens spell nothing.
fn target_bytes(batch: &TokenBatch, tokenizer: &Tokenizer) -> Result<u64> {
    let mut bytes = 0;
    for row in batch.labels.chunks(batch.seq_len) {
        let ids = row.iter().filter_map(|&label| u32::try_from(label).ok());
        let ids: Vec<u32> = ids.filter(|&id| Some(id) != tokenizer.eos_id()).collect();
        let text = tokenizer.decode(&ids)?;
        bytes += text.len() as u64;
    }
    Ok(bytes)
}

fn not_empty(sum: Evaluation, data: &EvalData) -> Result<Evaluation> {
    if sum.tokens > 0 {
        return Ok(sum);
    }
    let origin = &data.loader().origin;
    let remedy = match data.asked_by() {
        AskedBy::Recipe => {
            format!("give {origin} a split with more text, or set {origin}.drop_last=false")
        }
        AskedBy::Flags => {
            "give --data and --split that have more text, or a lower --batch_size".to_owned()
        }
    };
    Err(Error::Data(format!(
        "the evaluation split {} has not one token to predict; {remedy}",
        data.address()
    )))
}
