//! One batch again, without training: `train CONFIG --replay_step N`.
//!
//! The data goes on from the newest checkpoint before batch N, or from the start of the run, past the batches in
//! between, to those very rows; the model is that of the checkpoint. Where the checkpoint is of batch N - 1, loss and
//! gradient norm are the run's own to the last bit, dropout included.
//!
//! What is found goes to `run_folder/replay-baN.jsonl`: first the batch,
//!
//! ```json
//! {"batch":7,"model":"./runs/small/checkpoints/ep0-ba4","model_batch":4,"loss/train/total":8.1,"l2_norm/grad/global":1.3,"samples":[12,5]}
//! ```
//!
//! then each of its rows by itself, without dropout, so that the one to blame stands out:
//!
//! ```json
//! {"row":0,"samples":[12],"loss":8.2,"l2_norm/grad/global":1.5,"tokens":[46,9],"text":" the"}
//! ```
//!
//! Where there is no token to predict, the loss is null.

use std::fmt::Write as _;

use convert::tokenizer::Tokenizer;
use mds::storage::{Remote, join};
use serde_json::{Value as Json, json};

use crate::checkpoint::{SaveFolder, Start, State};
use crate::config::Config;
use crate::data::{Replica, TokenBatch, TrainData};
use crate::device;
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::logging::Value;
use crate::loss::loss_and_gradients;
use crate::model::{Dropout, Gpt};
use crate::recompute::Activations;
use crate::step::{Measured, Passes, accumulate};
use crate::time::Timestamp;
use crate::train::place;

/// A batch that was computed again.
#[derive(Clone, Debug, PartialEq)]
pub struct Replay {
    /// Its number, from 1, as in the metrics.
    pub batch: u64,
    /// The checkpoint that the model is from and the batches it has seen; `None`: the model is new.
    pub model: Option<(String, u64)>,
    /// The samples that it was taken from, by their numbers in the dataset.
    pub samples: Vec<u64>,
    /// The loss that the run would log, in nats; `None` where the batch has not one token to predict.
    pub loss: Option<f64>,
    /// The global norm of its gradients, before any clipping.
    pub gradient_norm: f64,
    /// Its rows.
    pub rows: Vec<Row>,
    /// Where all this was written to.
    pub written_to: String,
}

/// One row of a batch by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The samples that it was taken from.
    pub samples: Vec<u64>,
    /// Its mean loss in nats, without dropout; `None` where it has no token to predict.
    pub loss: Option<f64>,
    /// The norm of its gradients.
    pub gradient_norm: f64,
    /// Its token ids.
    pub tokens: Vec<i32>,
    /// The text that they spell.
    pub text: String,
}

/// Computes batch `batch` of the run that `config` describes, counted from 1, without training. `None` if `interrupt`
/// was asked before that batch came.
///
/// # Errors
/// When the configuration, data, tokenizer, device or checkpoint does not allow the run, it has no such batch, or the
/// findings cannot be written.
pub fn replay(config: &Config, batch: u64, interrupt: &Interrupt) -> Result<Option<Replay>> {
    // What there is.
    let device = device::select(config.device)?;
    let tokenizer = Tokenizer::load(&config.tokenizer_name)?;
    let plan = config.batch_plan(1)?;
    let mut data = TrainData::open(config, &tokenizer, Replica::single())?;
    if let Some(steps) = config.steps(data.batches_per_epoch()).filter(|&steps| batch > steps) {
        return Err(Error::Config(format!(
            "batch {batch} is past the end of the run, which has {steps} batches (max_duration is {}); give one of \
             those, or raise max_duration",
            config.max_duration
        )));
    }

    // The model of the checkpoint, and the data from there on.
    let mut model = Gpt::init(&config.model, config.seed, &device.clone().autodiff())
        .computing_in(device::arithmetic(config.precision, &device));
    let mut state = State::new(config, Timestamp::default());
    let mut origin = None;
    if let Some(mut from) = find_start(config, batch)? {
        from.restore(config, &mut state, &mut data)?;
        model = from.load_model(model)?;
        let saved_at = from.found.checkpoint.state.timestamp;
        origin = Some((from.found.place.to_string(), saved_at.batch));
    }

    // Past what comes before it.
    let mut rows = None;
    for _ in state.timestamp.batch..batch {
        rows = data.next_batch_unless(|| interrupt.is_asked())?;
        if rows.is_none() {
            return Ok(None);
        }
    }
    let Some(rows) = rows else { return Ok(None) };

    let passed = Passes::new(config, plan, state.microbatch).run(
        |plan| accumulate(&model, &rows, config, plan, batch - 1)?.reading.read(),
        || device.memory_cleanup(),
    )?;
    let Measured { loss, norm } = passed.value;
    let mut replay = Replay {
        batch,
        model: origin,
        samples: rows.sample_ids(),
        loss: (rows.labelled() > 0).then_some(loss.total),
        gradient_norm: norm,
        rows: each_row(&model, &rows, &tokenizer, config.activations())?,
        written_to: String::new(),
    };
    let name = format!("replay-ba{batch}.jsonl");
    Remote::open(&config.run_folder, config.remote_options())?
        .put(&name, replay.to_json_lines())?;
    replay.written_to = mds::redacted(&join(&config.run_folder, &name));
    Ok(Some(replay))
}

/// The newest of the run's own checkpoints before `batch`, else what the run itself began with, if anything.
fn find_start(config: &Config, batch: u64) -> Result<Option<Start>> {
    if let Some(save_place) = place(config, config.save_folder.as_ref())?
        && let Some(found) = SaveFolder::newest_before(&save_place, batch)?
    {
        return Ok(Some(Start::own(found)));
    }
    let Some(from) = Start::loaded(config)? else { return Ok(None) };
    let at = from.found.checkpoint.state.timestamp.batch;
    if from.resumes() && at >= batch {
        return Err(Error::Checkpoint(format!(
            "the checkpoint `{}` is of batch {at}, and batch {batch} came before it; give load_path an older one, or \
             load_path=null to begin with the run",
            from.found.place
        )));
    }
    Ok(Some(from))
}

fn each_row(
    model: &Gpt,
    batch: &TokenBatch,
    tokenizer: &Tokenizer,
    activations: Activations,
) -> Result<Vec<Row>> {
    let row = |index: usize| {
        let row = batch.slice(index..index + 1);
        let (loss, gradients) =
            loss_and_gradients(model, &row, 1.0, &mut Dropout::off(), activations);
        let ids: Vec<u32> = row.tokens.iter().filter_map(|id| u32::try_from(*id).ok()).collect();
        Ok(Row {
            samples: row.samples.concat(),
            loss: (row.labelled() > 0).then(|| f64::from(loss.into_scalar::<f32>())),
            gradient_norm: gradients.global_norm(),
            text: tokenizer.decode(&ids)?,
            tokens: row.tokens,
        })
    };
    (0..batch.rows).map(row).collect()
}

impl Replay {
    /// What is printed of it.
    pub fn summary(&self) -> String {
        let mut text = match &self.model {
            Some((place, batch)) => format!("the model of {place} (batch {batch})"),
            None => "the model as it is made".to_owned(),
        };
        _ = write!(
            text,
            "\nbatch {}: {}, gradient norm {:.4}, samples {}",
            self.batch,
            shown(self.loss),
            self.gradient_norm,
            listed(&self.samples)
        );
        for (number, row) in self.rows.iter().enumerate() {
            let Row { samples, loss, gradient_norm, .. } = row;
            let (loss, samples) = (shown(*loss), listed(samples));
            _ = write!(
                text,
                "\n  row {number}: {loss}, gradient norm {gradient_norm:.4}, samples {samples}"
            );
        }
        _ = write!(text, "\nwritten to {}", self.written_to);
        text
    }

    fn to_json_lines(&self) -> String {
        let number = |value: f64| Json::from(&Value::from(value));
        let (place, at) = self.model.clone().unzip();
        let batch = json!({
            "batch": self.batch,
            "model": place,
            "model_batch": at,
            "loss/train/total": self.loss.map(number),
            "l2_norm/grad/global": number(self.gradient_norm),
            "samples": self.samples,
        });
        let rows = self.rows.iter().enumerate().map(|(index, row)| {
            json!({
                "row": index,
                "samples": row.samples,
                "loss": row.loss.map(number),
                "l2_norm/grad/global": number(row.gradient_norm),
                "tokens": row.tokens,
                "text": row.text,
            })
        });
        std::iter::once(batch).chain(rows).map(|line| format!("{line}\n")).collect()
    }
}

/// A loss, or that there is none.
fn shown(loss: Option<f64>) -> String {
    loss.map_or_else(
        || "no loss (no token to predict)".to_owned(),
        |loss| format!("loss {loss:.4}"),
    )
}

/// `12, 5, 88`
pub(crate) fn listed(samples: &[u64]) -> String {
    samples.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}
