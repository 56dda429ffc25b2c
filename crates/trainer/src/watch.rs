//! Callbacks that watch how the run goes and may end it before its time.
//!
//! `early_stopper` ends a run whose metric no longer gets better, as if `max_duration` were reached: with an evaluation
//! and a checkpoint. A value is better where it is lower than the best by more than `min_delta`; all metrics there are
//! get better by falling. The run ends when the last value seen is more than `patience` past the best. Values of the
//! `eval` loader are seen at evaluations, those of the `train` loader at every step, or at the end of every epoch where
//! `patience` counts epochs.
//!
//! `kill_loss_spike` notes, and unless `log_only` ends the run with an error, when
//!
//! * the loss of more than `patience` batches in a row is at least `outlier_multiplier` times the mean of the
//!   `window_size` batches before each (a spike), or else
//! * at least half of those are above `loss_cap`, from batch `2 · window_size` on (persistently high).
//!
//! What both remember is saved with a checkpoint, so that a run which is continued is the one that never stopped.

use serde::{Deserialize, Serialize};

use crate::config::{Callbacks, DataloaderLabel, EarlyStopperConfig, KillLossSpikeConfig};
use crate::error::Error;
use crate::logging::{Metric, Value};
use crate::time::{Timestamp, Unit};

/// The callbacks of a run.
#[derive(Clone, Debug)]
pub struct Watch {
    early_stopper: Option<EarlyStopperConfig>,
    kill_loss_spike: Option<KillLossSpikeConfig>,
}

/// What the callbacks have seen. Numbers are f32, which go through JSON without loss.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// The metric of `early_stopper`.
    progress: Option<Progress>,
    /// The losses of the last batches, `window_size` at most.
    losses: Vec<f32>,
    /// How many batches in a row were outliers.
    outliers: u64,
    /// Whether the losses are persistently high, which is noted once.
    high: bool,
}

/// How a metric has developed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Progress {
    best: f32,
    /// When it was seen.
    best_at: Timestamp,
    /// When a value was seen last.
    seen_at: Timestamp,
}

/// A loss that ought not to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// Under which name it is logged, as in the reference.
    pub key: &'static str,
    /// What is the matter, in one sentence that names the batch and its loss.
    pub note: String,
    /// Whether it ends the run.
    pub kills: bool,
}

impl Watch {
    /// What `callbacks` ask for.
    pub fn new(callbacks: &Callbacks) -> Self {
        let Callbacks { early_stopper, kill_loss_spike, .. } = callbacks.clone();
        Self { early_stopper, kill_loss_spike }
    }

    /// Takes in the metrics of a step or an evaluation that brought the run from `before` to `at`.
    pub fn see(
        &self,
        memory: &mut Memory,
        label: DataloaderLabel,
        before: &Timestamp,
        at: &Timestamp,
        metrics: &[Metric<'_>],
    ) {
        let stopper = self.early_stopper.as_ref().filter(|s| s.dataloader_label == label);
        let Some(stopper) = stopper else { return };
        let by_epoch = label == DataloaderLabel::Train && stopper.patience.unit == Unit::Epoch;
        if by_epoch && before.epoch == at.epoch {
            return;
        }
        let key = stopper.key();
        let value = metrics.iter().find_map(|(name, value)| match value {
            Value::Float(value) if *name == key => Some(*value as f32),
            _ => None,
        });
        let Some(value) = value else { return };
        let is_better = memory
            .progress
            .as_ref()
            .is_none_or(|progress| f64::from(progress.best) - f64::from(value) > stopper.min_delta);
        // JSON has no infinity, and what is no number is never the best.
        memory.progress = match &memory.progress {
            _ if is_better && value.is_finite() => {
                Some(Progress { best: value, best_at: *at, seen_at: *at })
            }
            progress => progress.map(|progress| Progress { seen_at: *at, ..progress }),
        };
    }

    /// Whether the run is to end for want of progress.
    pub fn is_over(&self, memory: &Memory) -> bool {
        self.overdue(memory).is_some()
    }

    /// Why the run is to end for want of progress, if it is.
    pub fn reason(&self, memory: &Memory) -> Option<String> {
        let (stopper, progress) = self.overdue(memory)?;
        let unit = stopper.patience.unit;
        Some(format!(
            "early_stopper: {} was best at batch {}, where it was {:.4}, and {}{} went by since then without one that is \
             lower by more than {}; the run ends here",
            stopper.key(),
            progress.best_at.batch,
            progress.best,
            progress.seen_at.get(unit) - progress.best_at.get(unit),
            unit.suffix(),
            stopper.min_delta
        ))
    }

    fn overdue<'a>(&'a self, memory: &'a Memory) -> Option<(&'a EarlyStopperConfig, &'a Progress)> {
        let (stopper, progress) = (self.early_stopper.as_ref()?, memory.progress.as_ref()?);
        let unit = stopper.patience.unit;
        let since = progress.seen_at.get(unit).saturating_sub(progress.best_at.get(unit));
        (since as f64 > stopper.patience.value).then_some((stopper, progress))
    }

    /// Takes in the loss of the batch that brought the run to `at`.
    pub fn see_loss(&self, memory: &mut Memory, at: &Timestamp, loss: f64) -> Option<Alarm> {
        let spike = self.kill_loss_spike.as_ref()?;
        let alarm = memory.alarm(spike, at.batch, loss);
        memory.losses.push(loss as f32);
        let surplus = memory.losses.len().saturating_sub(spike.window_size);
        memory.losses.drain(..surplus);
        let (key, note) = alarm?;
        Some(Alarm { key, note, kills: !spike.log_only })
    }
}

impl Memory {
    /// The name and the text of what is to be said of `loss`, given the window before it.
    fn alarm(
        &mut self,
        spike: &KillLossSpikeConfig,
        batch: u64,
        loss: f64,
    ) -> Option<(&'static str, String)> {
        let KillLossSpikeConfig { patience, outlier_multiplier, window_size, loss_cap, .. } =
            *spike;
        if self.losses.len() < window_size {
            return None;
        }
        let mean = self.losses.iter().copied().map(f64::from).sum::<f64>() / window_size as f64;
        let is_outlier = f64::from(loss as f32) >= mean * outlier_multiplier;
        self.outliers = if is_outlier { self.outliers + 1 } else { 0 };
        if self.outliers > patience {
            // Said once per spike.
            return (self.outliers == patience + 1).then(|| {
                let note = format!(
                    "batch {batch}: the loss is {loss:.4}, at least {outlier_multiplier} times the mean of the \
                     {window_size} batches before, {mean:.4}, and number {} in a row to be so",
                    self.outliers
                );
                ("loss_spike", note)
            });
        }
        let above = self.losses.iter().filter(|loss| f64::from(**loss) > loss_cap).count();
        let was_high = self.high;
        self.high = batch >= 2 * window_size as u64 && 2 * above >= window_size;
        (self.high && !was_high).then(|| {
            let note = format!(
                "batch {batch}: the loss is {loss:.4}; {above} of the {window_size} batches before it were above {loss_cap}"
            );
            ("high_loss", note)
        })
    }
}

impl Alarm {
    /// The error that ends the run.
    pub fn to_error(&self) -> Error {
        Error::Training(format!(
            "{}; callbacks.kill_loss_spike ends the run: continue from an older checkpoint with a lower optimizer.lr, or \
             go on regardless with callbacks.kill_loss_spike.log_only=true",
            self.note
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Time;

    fn at(batch: u64) -> Timestamp {
        Timestamp {
            epoch: batch / 4,
            batch,
            batch_in_epoch: batch % 4,
            sample: 2 * batch,
            token: 20 * batch,
        }
    }

    fn stopper(patience: &str, min_delta: f64) -> Watch {
        let early_stopper = EarlyStopperConfig {
            monitor: "LanguageCrossEntropy".into(),
            dataloader_label: DataloaderLabel::Train,
            patience: patience.parse::<Time>().unwrap(),
            min_delta,
        };
        let callbacks = Callbacks { early_stopper: Some(early_stopper), ..Callbacks::default() };
        Watch::new(&callbacks)
    }

    /// As it comes back from a checkpoint.
    fn stored(memory: &Memory) -> Memory {
        serde_json::from_str(&serde_json::to_string(memory).unwrap()).unwrap()
    }

    /// The batch after which the run ends, given the values of the steps.
    fn ends_after(watch: Watch, values: &[f64]) -> Option<u64> {
        let mut memory = Memory::default();
        for (batch, value) in (1..).zip(values) {
            let metrics = [
                ("metrics/eval/LanguageCrossEntropy", 0.0.into()),
                ("metrics/train/LanguageCrossEntropy", (*value).into()),
            ];
            for label in [DataloaderLabel::Eval, DataloaderLabel::Train] {
                watch.see(&mut memory, label, &at(batch - 1), &at(batch), &metrics);
            }
            memory = stored(&memory);
            if watch.is_over(&memory) {
                return Some(batch);
            }
        }
        None
    }

    #[test]
    fn a_run_ends_once_more_than_patience_has_gone_by_since_its_best() {
        let falling = [5.0, 4.0, 4.5, 3.0, 3.1, 3.2, 3.05, 2.9];
        assert_eq!(ends_after(stopper("2ba", 0.0), &falling), Some(7));
        assert_eq!(ends_after(stopper("3ba", 0.0), &falling), None);
        // Each is better than the one before, but by too little to count.
        let slow = [5.0, 4.0, 3.8, 3.6, 3.4];
        assert_eq!(ends_after(stopper("2ba", 1.5), &slow), Some(4));
        assert_eq!(ends_after(stopper("40tok", 0.3), &slow), None);
        // Equal is not better, and what is no number never is.
        assert_eq!(ends_after(stopper("1ba", 0.0), &[3.0, 3.0, 3.0]), Some(3));
        assert_eq!(ends_after(stopper("1ba", 0.0), &[f64::NAN, 3.0, f64::NAN, f64::NAN]), Some(4));
    }

    #[test]
    fn epochs_are_compared_by_their_last_values() {
        // Epochs of 4 batches; the values in between are not looked at.
        let values = [9.0, 1.0, 1.0, 5.0, 1.0, 1.0, 1.0, 6.0, 1.0, 1.0, 1.0, 7.0, 0.0];
        assert_eq!(ends_after(stopper("1ep", 0.0), &values), Some(12));
        assert_eq!(ends_after(stopper("2ep", 0.0), &values), None);
    }

    #[test]
    fn the_end_is_explained() {
        let (watch, mut memory) = (stopper("1ba", 0.25), Memory::default());
        for batch in 1..=3 {
            let metrics = [("metrics/train/LanguageCrossEntropy", 4.0.into())];
            let (before, at) = (at(batch - 1), at(batch));
            watch.see(&mut memory, DataloaderLabel::Train, &before, &at, &metrics);
        }
        assert_eq!(
            watch.reason(&memory).unwrap(),
            "early_stopper: metrics/train/LanguageCrossEntropy was best at batch 1, where it was 4.0000, and 2ba went by \
             since then without one that is lower by more than 0.25; the run ends here"
        );
    }

    fn spikes(patience: u64, log_only: bool) -> Watch {
        let config = KillLossSpikeConfig {
            log_only,
            patience,
            outlier_multiplier: 2.0,
            window_size: 4,
            loss_cap: 10.0,
        };
        let callbacks = Callbacks { kill_loss_spike: Some(config), ..Callbacks::default() };
        Watch::new(&callbacks)
    }

    /// The alarms, by batch.
    fn alarms(watch: Watch, losses: &[f64]) -> Vec<(u64, Alarm)> {
        let mut memory = Memory::default();
        (1..)
            .zip(losses)
            .filter_map(|(batch, loss)| {
                let alarm = watch.see_loss(&mut memory, &at(batch), *loss);
                memory = stored(&memory);
                Some((batch, alarm?))
            })
            .collect()
    }

    #[test]
    fn losses_far_above_the_mean_are_a_spike_if_they_last() {
        // Before the window is full anything goes. Of the outliers at 7, and 9 and 10, the latter last.
        let losses = [9.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 1.0, 2.5, 4.0, 8.0, 1.0];
        let found = alarms(spikes(1, false), &losses);
        assert_eq!(found.iter().map(|(batch, _)| *batch).collect::<Vec<_>>(), [10]);
        let alarm = &found[0].1;
        assert!(alarm.kills);
        assert_eq!(alarm.key, "loss_spike");
        assert_eq!(
            alarm.to_error().to_string(),
            "batch 10: the loss is 4.0000, at least 2 times the mean of the 4 batches before, 1.6250, and number 2 in a \
             row to be so; callbacks.kill_loss_spike ends the run: continue from an older checkpoint with a lower \
             optimizer.lr, or go on regardless with callbacks.kill_loss_spike.log_only=true"
        );
        assert_eq!(alarms(spikes(2, false), &losses)[0].0, 11);
        assert!(alarms(spikes(3, false), &losses).is_empty());
    }

    #[test]
    fn losses_above_the_cap_are_noted_once_if_they_persist() {
        let losses =
            [11.0, 11.0, 11.0, 11.0, 9.0, 9.0, 11.0, 11.0, 11.0, 9.0, 9.0, 9.0, 11.0, 11.0, 9.0];
        let found = alarms(spikes(4, true), &losses);
        // From batch 8 on, twice the window; half of the window again before batch 15.
        assert_eq!(found.iter().map(|(batch, _)| *batch).collect::<Vec<_>>(), [8, 15]);
        assert_eq!(found[0].1.key, "high_loss");
        assert!(!found[0].1.kills);
        assert_eq!(
            found[0].1.note,
            "batch 8: the loss is 11.0000; 2 of the 4 batches before it were above 10"
        );
    }
}
