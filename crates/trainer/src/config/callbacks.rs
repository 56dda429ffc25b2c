//! `callbacks`: what is measured beside the loss, and what may end a run.

use serde::Serialize;

use super::read::required;
use super::section::Section;
use crate::error::{Error, Result};
use crate::time::{Time, Unit};

/// Which measurements are taken beside the loss; an absent one is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Callbacks {
    /// `throughput/*`: speed and MFU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed_monitor: Option<SpeedMonitorConfig>,
    /// `lr-DecoupledAdamW/group0`, or by the name of another optimizer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr_monitor: Option<Switch>,
    /// `memory/*`: resident memory of the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_monitor: Option<Switch>,
    /// `time/remaining_estimate`, in hours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_estimator: Option<Switch>,
    /// `l2_norm/*` of every parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimizer_monitor: Option<OptimizerMonitorConfig>,
    /// Ends a run that makes no progress any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_stopper: Option<EarlyStopperConfig>,
    /// Notes, or ends, a run whose loss goes up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kill_loss_spike: Option<KillLossSpikeConfig>,
}

/// What is logged of every parameter under `l2_norm/{grad,moment,param,update}/NAME`: its gradient before any clipping,
/// its first moment, itself and what the step changed of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct OptimizerMonitorConfig {
    /// How often.
    pub interval: Time,
    /// Whether more than the gradients is measured.
    pub log_optimizer_metrics: bool,
}

/// When to end a run that makes no progress; see [`crate::watch`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EarlyStopperConfig {
    /// The metric: `LanguageCrossEntropy` or its like.
    pub monitor: String,
    /// Of which loader.
    pub dataloader_label: DataloaderLabel,
    /// How long it may be no better than its best.
    pub patience: Time,
    /// By how much it must fall to count as better.
    pub min_delta: f64,
}

impl EarlyStopperConfig {
    /// The name under which the metric is logged.
    pub fn key(&self) -> String {
        format!("metrics/{}/{}", self.dataloader_label.as_str(), self.monitor)
    }
}

/// Which loader a metric is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DataloaderLabel {
    /// `train_loader`
    Train,
    /// `eval_loader`
    Eval,
}

impl DataloaderLabel {
    /// As in the names of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Eval => "eval",
        }
    }
}

/// Which losses are too high; see [`crate::watch`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct KillLossSpikeConfig {
    /// Whether the run goes on all the same.
    pub log_only: bool,
    /// How many outliers in a row are borne.
    pub patience: u64,
    /// How many times the mean an outlier is at least.
    pub outlier_multiplier: f64,
    /// Of how many batches the mean is taken.
    pub window_size: usize,
    /// What half of them must not be above.
    pub loss_cap: f64,
}

/// An option that is turned on by being there: `lr_monitor: {}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Switch {}

/// The speed monitor.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SpeedMonitorConfig {
    /// Batches over which speed is averaged.
    pub window_size: usize,
    /// The device's peak, in floating-point operations per second, where it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_flops_available: Option<f64>,
}

/// Reads `callbacks`; what the user should know of it goes to `notices`.
pub(super) fn read_callbacks(
    callbacks: &Section<'_>,
    max_duration: Time,
    notices: &mut Vec<String>,
) -> Result<Callbacks> {
    let switch = |key| Ok::<_, Error>(callbacks.switch(key)?.filter(|on| *on).map(|_| Switch {}));
    let speed_monitor = match callbacks.has("speed_monitor") {
        false => None,
        true => {
            let speed = callbacks.section("speed_monitor")?;
            let flops = "a number of operations per second, for example 989.5e12";
            Some(SpeedMonitorConfig {
                window_size: speed.size("window_size", 1)?.unwrap_or(1),
                gpu_flops_available: speed.number(
                    "gpu_flops_available",
                    f64::MIN_POSITIVE..,
                    flops,
                )?,
            })
        }
    };
    Ok(Callbacks {
        speed_monitor,
        lr_monitor: switch("lr_monitor")?,
        memory_monitor: switch("memory_monitor")?,
        runtime_estimator: switch("runtime_estimator")?,
        optimizer_monitor: read_optimizer_monitor(callbacks, max_duration)?,
        early_stopper: read_early_stopper(callbacks, max_duration)?,
        kill_loss_spike: read_kill_loss_spike(callbacks, notices)?,
    })
}

fn read_optimizer_monitor(
    callbacks: &Section<'_>,
    max_duration: Time,
) -> Result<Option<OptimizerMonitorConfig>> {
    if !callbacks.has("optimizer_monitor") {
        return Ok(None);
    }
    let monitor = callbacks.section("optimizer_monitor")?;
    let interval = match monitor.time("interval")? {
        Some(interval) => interval.resolve(max_duration)?,
        None => Time::batches(monitor.whole("batch_log_interval", 1)?.unwrap_or(10)),
    };
    if interval.is_zero() {
        return Err(Error::Config(format!(
            "`{}` is {interval}, which is never; give it a length, for example 10ba, or remove the callback",
            monitor.path("interval")
        )));
    }
    let log_optimizer_metrics = monitor.flag("log_optimizer_metrics")?.unwrap_or(true);
    Ok(Some(OptimizerMonitorConfig { interval, log_optimizer_metrics }))
}

fn read_early_stopper(
    callbacks: &Section<'_>,
    max_duration: Time,
) -> Result<Option<EarlyStopperConfig>> {
    if !callbacks.has("early_stopper") {
        return Ok(None);
    }
    let stopper = callbacks.section("early_stopper")?;
    let labels = [("train", DataloaderLabel::Train), ("eval", DataloaderLabel::Eval)];
    let label = stopper.choice("dataloader_label", &labels)?;
    let label = required(&stopper, "dataloader_label", "dataloader_label: eval", label)?;
    let metrics: &[(&str, &str)] = match label {
        DataloaderLabel::Train => {
            &[("LanguageCrossEntropy", "LanguageCrossEntropy"), ("Perplexity", "Perplexity")]
        }
        DataloaderLabel::Eval => &[
            ("LanguageCrossEntropy", "LanguageCrossEntropy"),
            ("LanguagePerplexity", "LanguagePerplexity"),
            ("BitsPerByte", "BitsPerByte"),
        ],
    };
    let monitor = stopper.choice("monitor", metrics)?;
    let monitor = required(&stopper, "monitor", "monitor: LanguageCrossEntropy", monitor)?;
    let least = "a number of at least 0, for example 0.01";
    Ok(Some(EarlyStopperConfig {
        monitor: monitor.to_owned(),
        dataloader_label: label,
        patience: stopper
            .time("patience")?
            .unwrap_or(Time::new(1.0, Unit::Epoch))
            .resolve(max_duration)?,
        min_delta: stopper.number("min_delta", 0.0.., least)?.unwrap_or(0.0),
    }))
}

fn read_kill_loss_spike(
    callbacks: &Section<'_>,
    notices: &mut Vec<String>,
) -> Result<Option<KillLossSpikeConfig>> {
    if !callbacks.has("kill_loss_spike") {
        return Ok(None);
    }
    let spike = callbacks.section("kill_loss_spike")?;
    let positive =
        |key| spike.number(key, f64::MIN_POSITIVE.., "a number above 0, for example 2.0");
    let log_only = spike.flag("log_only")?;
    if log_only.is_none() {
        notices.push(
            "callbacks.kill_loss_spike only notes what it finds, as in the reference; set \
             callbacks.kill_loss_spike.log_only=false to have it end the run"
                .into(),
        );
    }
    Ok(Some(KillLossSpikeConfig {
        log_only: log_only.unwrap_or(true),
        patience: spike.whole("patience", 0)?.unwrap_or(4),
        outlier_multiplier: positive("outlier_multiplier")?.unwrap_or(2.0),
        window_size: spike.size("window_size", 1)?.unwrap_or(100),
        loss_cap: positive("loss_cap")?.unwrap_or(10.0),
    }))
}
