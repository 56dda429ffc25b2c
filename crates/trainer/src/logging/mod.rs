//! Metrics, and where they go: the console, `metrics.jsonl`, TensorBoard, the loss curve, MLflow and Prometheus.
//!
//! A run's folder holds
//!
//! | file | what it is |
//! |---|---|
//! | `metrics.jsonl` | one JSON object per step and per evaluation, see `jsonl.rs` |
//! | `tensorboard/` | event files, one per process, see `tensorboard.rs` |
//! | `loss_curve.svg` | training and evaluation loss over tokens, and the speed, drawn anew now and then |
//! | `.lock` | empty, and locked as long as the run lives |
//!
//! One at a remote is written on this machine first, and uploaded with each checkpoint and at the end,
//! also after an error, see `folder.rs`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::error::Result;
use crate::time::Timestamp;

mod console;
mod curve;
mod folder;
mod jsonl;
mod mlflow;
pub mod monitor;
mod prometheus;
mod tensorboard;

use console::Console;
use curve::LossCurve;
use folder::RunFolder;
use jsonl::JsonLines;
use mlflow::Mlflow;
use prometheus::Endpoint;
use tensorboard::EventFile;

/// How often the loss curve is drawn anew while the run goes on.
const CURVE_EVERY: Duration = Duration::from_secs(30);

/// The value of a metric. On the console a float has four decimals.
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

/// Hands every metric of a run to all of its destinations.
#[derive(Debug)]
pub struct MetricLogger {
    console: Console,
    lines: JsonLines,
    events: Option<Events>,
    curve: Option<Curve>,
    mlflow: Option<Mlflow>,
    prometheus: Option<Endpoint>,
    folder: Arc<RunFolder>,
    /// Whether anything was logged that [`flush`](Self::flush) has not seen.
    unflushed: bool,
}

/// The event file of this process, made with the first record.
#[derive(Debug)]
struct Events {
    folder: PathBuf,
    /// `None` where the run begins anew: what an earlier one left is then replaced.
    resume_at: Option<u64>,
    file: Option<EventFile>,
}

/// The loss curve's file, and when it was last drawn.
#[derive(Debug)]
struct Curve {
    points: LossCurve,
    path: PathBuf,
    title: String,
    drawn: Instant,
}

impl Events {
    fn file(&mut self) -> Result<&mut EventFile> {
        match &mut self.file {
            Some(file) => Ok(file),
            none => {
                if self.resume_at.is_none() {
                    tensorboard::clear(&self.folder)?;
                }
                let first_step = self.resume_at.map_or(0, |batch| batch + 1);
                Ok(none.insert(EventFile::create(&self.folder, first_step)?))
            }
        }
    }
}

impl MetricLogger {
    /// Opens the destinations that `config` asks for, in its run folder, which is made if need be.
    ///
    /// With `resume_at`, the position of the checkpoint that the run continues from, everything
    /// logged after it is taken back, so that no step is logged twice; without it, the metrics of
    /// an earlier run in the same folder are replaced. Neither happens before the first record.
    /// `batches_per_epoch` is shown where the run is measured in epochs.
    ///
    /// # Errors
    /// When a file in the run folder cannot be read or written, or its remote cannot; a server for metrics that the
    /// recipe asks for cannot be used.
    pub fn open(
        config: &Config,
        resume_at: Option<&Timestamp>,
        batches_per_epoch: Option<u64>,
    ) -> Result<Self> {
        let run_folder = RunFolder::open(config)?;
        let folder = run_folder.path();
        let (lines, kept) = JsonLines::open(folder.join(folder::METRICS), resume_at)?;
        let events = match config.loggers.tensorboard {
            true => Some(Events {
                folder: folder.join(folder::EVENTS),
                resume_at: resume_at.map(|at| at.batch),
                file: None,
            }),
            false => None,
        };
        let curve = config.loggers.loss_curve.then(|| Curve {
            points: LossCurve::from_records(&kept),
            path: folder.join(folder::CURVE),
            title: format!("{}: loss", config.run_name),
            drawn: Instant::now(),
        });
        let loggers = &config.loggers;
        let mlflow = loggers.mlflow.as_ref();
        let mlflow = mlflow.map(|given| Mlflow::open(given, config, folder, resume_at.is_some()));
        let prometheus = loggers.prometheus.as_ref();
        let prometheus = prometheus.map(|given| Endpoint::open(given, &config.run_name));
        let start = resume_at.copied().unwrap_or_default();
        let console = Console::new(config, &start, batches_per_epoch);
        Ok(Self {
            console,
            lines,
            events,
            curve,
            mlflow: mlflow.transpose()?,
            prometheus: prometheus.transpose()?,
            folder: Arc::new(run_folder),
            unflushed: false,
        })
    }

    /// Logs one optimizer step: `at_start` is printed under the batch number before the step (the
    /// loss and its like), `at_end` under the one after it (wall clock, learning rate), as the
    /// reference does. Both make one record.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn log_step(
        &mut self,
        start: &Timestamp,
        end: &Timestamp,
        at_start: &[Metric<'_>],
        at_end: &[Metric<'_>],
    ) -> Result<()> {
        self.console.log_step(start, end, at_start, at_end);
        self.record(end, &[at_start, at_end])?;
        match &mut self.curve {
            Some(curve) if curve.drawn.elapsed() >= CURVE_EVERY => curve.draw(),
            _ => Ok(()),
        }
    }

    /// Logs an evaluation done at `at`. Where an evaluation and a checkpoint are due at the same
    /// step, the evaluation must come first, or a resumed run would lack it.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn log_eval(&mut self, at: &Timestamp, metrics: &[Metric<'_>]) -> Result<()> {
        self.console.log_eval(at, metrics);
        self.record(at, &[metrics])
    }

    fn record(&mut self, at: &Timestamp, metrics: &[&[Metric<'_>]]) -> Result<()> {
        self.unflushed = true;
        let all = || metrics.iter().copied().flatten();
        self.lines.log(at, all())?;
        if let Some(events) = &mut self.events {
            events.file()?.log(at.batch, all())?;
        }
        if let Some(mlflow) = &self.mlflow {
            mlflow.log(at, all());
        }
        if let Some(endpoint) = &self.prometheus {
            endpoint.log(at, all());
        }
        if let Some(curve) = &mut self.curve {
            for (name, value) in all() {
                if let Value::Float(value) = value {
                    curve.points.add(at.token, name, *value);
                }
            }
        }
        Ok(())
    }

    /// Prints a line to standard error without tearing the progress bar.
    pub fn print(&self, line: &str) {
        self.console.print(line);
    }

    /// Where the files of a run folder at a remote are until they are uploaded: the address and the folder.
    pub fn on_its_way(&self) -> Option<(&str, &Path)> {
        Some((self.folder.remote()?, self.folder.path()))
    }

    /// What makes everything logged so far durable, at its remote too; to be done before a checkpoint is published, on
    /// any thread.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn flush(&mut self) -> Result<Flush> {
        self.unflushed = false;
        let lines = self.lines.to_sync()?;
        if self.folder.remote().is_none() || lines.is_none() {
            return Ok(Flush { lines, folder: None });
        }
        self.curve.as_mut().map_or(Ok(()), Curve::draw)?;
        Ok(Flush { lines, folder: Some(Arc::clone(&self.folder)) })
    }

    /// Draws the loss curve as far as it has come, for a run that ends here.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn draw_curve(&mut self) -> Result<()> {
        self.curve.as_mut().map_or(Ok(()), Curve::draw)
    }

    /// Ends the progress bar, draws the last picture, and uploads to a remote.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn finish(mut self) -> Result<()> {
        self.console.finish();
        self.unflushed = false;
        if let Some(lines) = self.lines.to_sync()? {
            self.curve.as_mut().map_or(Ok(()), Curve::draw)?;
            Flush { lines: Some(lines), folder: Some(Arc::clone(&self.folder)) }.run()?;
        }
        if let Some(mlflow) = self.mlflow.take() {
            mlflow.finish();
        }
        Ok(())
    }
}

/// What is still to be done for metrics that were logged.
#[derive(Debug)]
#[must_use]
pub struct Flush {
    /// To be synced.
    lines: Option<(File, PathBuf)>,
    /// To be uploaded.
    folder: Option<Arc<RunFolder>>,
}

impl Flush {
    /// Does it. More may be logged meanwhile.
    ///
    /// # Errors
    /// When a file cannot be written, or [does not arrive](crate::Error::Upload).
    pub fn run(self) -> Result<()> {
        if let Some((file, path)) = &self.lines {
            jsonl::sync(file, path)?;
        }
        self.folder.map_or(Ok(()), |folder| folder.upload())
    }
}

impl Drop for MetricLogger {
    /// A run that ends with an error does not [`finish`](Self::finish), and its last metrics say most
    /// about it.
    fn drop(&mut self) {
        if self.unflushed
            && let Err(error) = self.flush().and_then(Flush::run)
        {
            // That other error is what the run ended with.
            tracing::warn!("{error}");
        }
    }
}

impl Curve {
    fn draw(&mut self) -> Result<()> {
        self.drawn = Instant::now();
        self.points.write(&self.path, &self.title)
    }
}
