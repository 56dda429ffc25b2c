//! Metrics, and where they go: the console, `metrics.jsonl`, TensorBoard and the loss curve.

use std::fmt;

use crate::config::Config;
use crate::error::Result;
use crate::time::Timestamp;

pub mod monitor;

/// The value of a metric.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A measurement.
    Float(f64),
    /// A count.
    Int(i64),
    /// A word or a sentence; TensorBoard and the loss curve leave it out.
    Text(String),
}

/// Named values: `("loss/train/total", 9.8454.into())`.
pub type Metric<'a> = (&'a str, Value);

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Int(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float(value) => write!(f, "{value:.4}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Text(value) => write!(f, "{value:?}"),
        }
    }
}

/// Hands every metric of a run to all of its destinations.
#[derive(Debug)]
pub struct MetricLogger {}

impl MetricLogger {
    /// Opens the destinations that `config` asks for, in its run folder.
    ///
    /// With `resume_at`, the position of the checkpoint that the run continues from, everything
    /// logged after it is taken back, so that no step is logged twice; without it, the metrics of
    /// an earlier run in the same folder are replaced.
    ///
    /// # Errors
    /// When a file in the run folder cannot be read or written.
    pub fn open(_config: &Config, _resume_at: Option<&Timestamp>) -> Result<Self> {
        Ok(Self {})
    }

    /// Logs one optimizer step: `at_start` is printed under the batch number before the step (the
    /// loss and its like), `at_end` under the one after it (wall clock, learning rate), as the
    /// reference does. Both make one record.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn log_step(
        &mut self,
        _start: &Timestamp,
        _end: &Timestamp,
        _at_start: &[Metric<'_>],
        _at_end: &[Metric<'_>],
    ) -> Result<()> {
        Ok(())
    }

    /// Logs an evaluation done at `at`. An evaluation and a checkpoint due at the same step must
    /// come in this order, or a resumed run would miss the evaluation.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn log_eval(&mut self, _at: &Timestamp, _metrics: &[Metric<'_>]) -> Result<()> {
        Ok(())
    }

    /// Prints a line without tearing the progress bar.
    pub fn print(&self, line: &str) {
        eprintln!("{line}");
    }

    /// Makes everything logged so far durable; to be called before a checkpoint is published.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    /// Ends the progress bar and writes the last picture.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn finish(self) -> Result<()> {
        Ok(())
    }
}
