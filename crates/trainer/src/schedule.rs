//! The learning-rate schedule: a multiplier of `optimizer.lr` as a function of training time.
//!
//! | `scheduler.name` | after the linear warm-up from 0 to 1 over `t_warmup` |
//! |---|---|
//! | `cosine_with_warmup` | `α_f + (1 - α_f) (1 + cos πτ) / 2` |
//! | `linear_decay_with_warmup` | `1 + (α_f - 1) τ` |
//! | `constant_with_warmup` | 1 |
//! | `inv_sqrt_with_warmup` | `α_d + (1 - α_d) / √((t - t_warmup + t_scale) / t_scale)` until `t_c` |
//! | from `t_c` on | `α(t_c) + (α_c - α(t_c)) min(1, (t - t_c) / t_cooldown)` |
//!
//! with `τ = min(1, (t - t_warmup) / (t_max - t_warmup))`, `t` in the unit of `t_warmup`, `α_d` = `alpha_f_decay`,
//! `α_c` = `alpha_f_cooldown` and `t_c = max(t_warmup, t_max - t_cooldown)`.
//!
//! The schedule lags by one step, as it does in Composer, which recomputes the learning rate
//! before it counts the batch: the 0-based step `k` runs at `α(max(k - 1, 0))`. With a warm-up the
//! first two steps therefore have a learning rate of 0, and published loss curves show it.
//!
//! ```
//! use trainer::config::SchedulerConfig;
//! use trainer::schedule::Schedule;
//! use trainer::time::{Time, Timestamp};
//!
//! let config = SchedulerConfig::cosine_with_warmup("100ba".parse()?, 0.1);
//! let schedule = Schedule::from_config(&config, "4800ba".parse()?, None)?;
//! assert_eq!(schedule.for_batch(0), 0.0);
//! assert_eq!(schedule.for_batch(1), 0.0);
//! assert_eq!(schedule.for_batch(2), 0.01);
//! assert_eq!(schedule.for_batch(101), 1.0);
//! # Ok::<(), trainer::Error>(())
//! ```

use std::f64::consts::PI;

use crate::config::{SchedulerConfig, SchedulerName};
use crate::error::{Error, Result};
use crate::time::{Time, Timestamp, Unit};

/// A learning-rate schedule with every duration resolved to one unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    unit: Unit,
    t_warmup: f64,
    t_max: f64,
    decay: Decay,
}

/// What follows the warm-up.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Decay {
    Cosine { alpha_f: f64 },
    Linear { alpha_f: f64 },
    Constant,
    InverseSqrt { t_scale: f64, t_cooldown: f64, alpha_f_decay: f64, alpha_f_cooldown: f64 },
}

impl Schedule {
    /// Resolves the configured durations against `max_duration`.
    ///
    /// Epochs become batches where `batches_per_epoch` is known, so that `t_warmup: 100ba` goes
    /// with `max_duration: 2ep`.
    ///
    /// # Errors
    /// When `t_warmup` and `t_max` count different things. (A warm-up longer than the run is
    /// allowed, as in a two-step trial of a long recipe: the run ends while warming up.)
    pub fn from_config(
        config: &SchedulerConfig,
        max_duration: Time,
        batches_per_epoch: Option<u64>,
    ) -> Result<Self> {
        let in_batches = |time: Time| match (time.unit, batches_per_epoch) {
            (Unit::Epoch, Some(batches)) => Time::new(time.value * batches as f64, Unit::Batch),
            _ => time,
        };
        let max_duration = in_batches(max_duration);
        let t_warmup = in_batches(config.t_warmup.resolve(max_duration)?);
        let t_max = in_batches(config.t_max.resolve(max_duration)?);
        let in_its_unit = |key: &str, time: Time| match time.unit == t_warmup.unit {
            true => Ok(time.value),
            false => Err(Error::Config(format!(
                "scheduler.t_warmup is {t_warmup}, but {key} {time}, and {} cannot be compared with {}; give both in \
                 one unit{}",
                t_warmup.unit.plural(),
                time.unit.plural(),
                if config.inv_sqrt.is_none() { ", or t_warmup in dur" } else { "" }
            ))),
        };
        let alpha_f = config.alpha_f;
        let decay = match config.name {
            SchedulerName::CosineWithWarmup => Decay::Cosine { alpha_f },
            SchedulerName::LinearDecayWithWarmup => Decay::Linear { alpha_f },
            SchedulerName::ConstantWithWarmup => Decay::Constant,
            SchedulerName::InvSqrtWithWarmup => {
                let decay = config.inv_sqrt.ok_or_else(|| {
                    let what = "scheduler.t_scale and t_cooldown are missing; set them, for example to 1000ba";
                    Error::Config(what.into())
                })?;
                Decay::InverseSqrt {
                    t_scale: in_its_unit("scheduler.t_scale is", in_batches(decay.t_scale))?,
                    t_cooldown: in_its_unit(
                        "scheduler.t_cooldown is",
                        in_batches(decay.t_cooldown),
                    )?,
                    alpha_f_decay: decay.alpha_f_decay,
                    alpha_f_cooldown: decay.alpha_f_cooldown,
                }
            }
        };
        let t_max = match decay {
            Decay::Constant => t_max.value,
            _ => in_its_unit("the schedule ends at", t_max)?,
        };
        Ok(Self { unit: t_warmup.unit, t_warmup: t_warmup.value, t_max, decay })
    }

    /// The multiplier `α(t)` at the time `at`, without the lag.
    pub fn alpha(&self, at: &Timestamp) -> f64 {
        self.alpha_at(at.get(self.unit) as f64)
    }

    /// The multiplier for the step about to run, given when the step before it started (`None`
    /// for the first step of a run): the schedule lags by one step.
    pub fn multiplier(&self, previous_start: Option<&Timestamp>) -> f64 {
        previous_start.map_or_else(|| self.alpha_at(0.0), |at| self.alpha(at))
    }

    /// The multiplier of the 0-based step `k` of a schedule that counts batches: `α(max(k - 1, 0))`.
    pub fn for_batch(&self, k: u64) -> f64 {
        self.alpha_at(k.saturating_sub(1) as f64)
    }

    fn alpha_at(&self, t: f64) -> f64 {
        if t < self.t_warmup {
            return t / self.t_warmup;
        }
        let span = self.t_max - self.t_warmup;
        let tau = if span > 0.0 { ((t - self.t_warmup) / span).min(1.0) } else { 1.0 };
        match self.decay {
            Decay::Cosine { alpha_f } => alpha_f + (1.0 - alpha_f) * 0.5 * (1.0 + (PI * tau).cos()),
            Decay::Linear { alpha_f } => 1.0 + (alpha_f - 1.0) * tau,
            Decay::Constant => 1.0,
            Decay::InverseSqrt { t_scale, t_cooldown, alpha_f_decay, alpha_f_cooldown } => {
                let t_c = (self.t_max - t_cooldown).max(self.t_warmup);
                let elapsed = (t.min(t_c) - self.t_warmup + t_scale) / t_scale;
                let decayed = alpha_f_decay + (1.0 - alpha_f_decay) / elapsed.sqrt();
                let cooled =
                    if t_cooldown > 0.0 { ((t - t_c) / t_cooldown).clamp(0.0, 1.0) } else { 0.0 };
                decayed + (alpha_f_cooldown - decayed) * cooled
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::InverseSqrtConfig;

    fn schedule(config: SchedulerConfig, max: &str) -> Result<Schedule> {
        Schedule::from_config(&config, max.parse().unwrap(), None)
    }

    fn cosine(warmup: &str, alpha_f: f64) -> SchedulerConfig {
        SchedulerConfig::cosine_with_warmup(warmup.parse().unwrap(), alpha_f)
    }

    #[test]
    fn the_125m_cosine_has_the_published_shape() {
        let s = schedule(cosine("100ba", 0.1), "4800ba").unwrap();
        // The first two steps run at 0, and the logged rate of batch n is α(n - 1).
        assert_eq!([0, 1, 2, 3, 51, 101].map(|k| s.for_batch(k)), [0.0, 0.0, 0.01, 0.02, 0.5, 1.0]);
        // Half-way between the end of the warm-up and the end: (1 + α_f) / 2.
        assert!((s.for_batch(2451) - 0.55).abs() < 1e-12);
        assert!((s.for_batch(4801) - 0.1).abs() < 1e-12);
        // Past the end the rate stays at α_f.
        assert!((s.for_batch(9000) - 0.1).abs() < 1e-12);
    }

    #[test]
    fn the_decay_is_measured_from_the_end_of_the_warmup() {
        // The docstring's formula, t / t_max, would give cos(π/4) here.
        let s = schedule(cosine("50ba", 0.0), "100ba").unwrap();
        let quarter = 0.5 * (1.0 + (PI * 0.25).cos());
        assert_eq!(s.for_batch(1 + 50 + 12).to_bits(), s.alpha_at(62.0).to_bits());
        assert!((s.alpha_at(62.5) - quarter).abs() < 1e-15);
    }

    #[test]
    fn constant_and_linear_follow_the_same_warmup() {
        let constant =
            SchedulerConfig { name: SchedulerName::ConstantWithWarmup, ..cosine("4ba", 0.0) };
        let s = schedule(constant, "8ba").unwrap();
        assert_eq!([0, 1, 2, 4, 5, 80].map(|k| s.for_batch(k)), [0.0, 0.0, 0.25, 0.75, 1.0, 1.0]);
        let linear =
            SchedulerConfig { name: SchedulerName::LinearDecayWithWarmup, ..cosine("4ba", 0.5) };
        let s = schedule(linear, "8ba").unwrap();
        assert_eq!([5, 7, 9, 10].map(|k| s.for_batch(k)), [1.0, 0.75, 0.5, 0.5]);
    }

    #[test]
    fn time_is_read_in_the_unit_of_the_warmup() {
        let s = schedule(cosine("1000tok", 0.0), "3000tok").unwrap();
        let mut at = Timestamp::default();
        assert_eq!(s.multiplier(None), 0.0);
        at.advance(4, 500);
        assert_eq!(s.multiplier(Some(&at)), 0.5);
        at.advance(4, 1500);
        assert!((s.multiplier(Some(&at)) - 0.5).abs() < 1e-15);

        let fraction = schedule(cosine("0.25dur", 0.0), "400ba").unwrap();
        assert_eq!(fraction.for_batch(51), 0.5);
        let epochs =
            Schedule::from_config(&cosine("10ba", 0.0), "2ep".parse().unwrap(), Some(30)).unwrap();
        assert!((epochs.alpha_at(35.0) - 0.5).abs() < 1e-15);
    }

    #[test]
    fn no_warmup_starts_at_one() {
        let s = schedule(cosine("0ba", 0.1), "10ba").unwrap();
        assert_eq!(s.for_batch(0), 1.0);
        assert_eq!(s.for_batch(1), 1.0);
        assert!(s.for_batch(2) < 1.0);
    }

    fn inv_sqrt(cooldown: &str) -> SchedulerConfig {
        SchedulerConfig {
            name: SchedulerName::InvSqrtWithWarmup,
            inv_sqrt: Some(InverseSqrtConfig {
                t_scale: "10ba".parse().unwrap(),
                t_cooldown: cooldown.parse().unwrap(),
                alpha_f_decay: 0.2,
                alpha_f_cooldown: 0.1,
            }),
            ..cosine("4ba", 0.0)
        }
    }

    #[test]
    fn the_inverse_square_root_decays_by_its_scale_and_then_cools_down() {
        let s = schedule(inv_sqrt("20ba"), "100ba").unwrap();
        let near = |t: f64, expected: f64| {
            assert!((s.alpha_at(t) - expected).abs() < 1e-12, "{t}: {}", s.alpha_at(t));
        };
        assert_eq!([0, 1, 2, 4, 5].map(|k| s.for_batch(k)), [0.0, 0.0, 0.25, 0.75, 1.0]);
        // Three scales after the warm-up √τ is 2, so half of the way from 1 to 0.2 is done.
        near(34.0, 0.6);
        let decayed = 0.2 + 0.8 / (86.0f64 / 10.0).sqrt();
        near(80.0, decayed);
        near(85.0, decayed - (decayed - 0.1) / 4.0);
        near(100.0, 0.1);
        near(500.0, 0.1);

        // Without a cool-down it stays where it is; one that is longer than the run begins after the warm-up and is
        // not shortened.
        let s = schedule(inv_sqrt("0ba"), "100ba").unwrap();
        assert_eq!(s.alpha_at(200.0), s.alpha_at(100.0));
        let s = schedule(inv_sqrt("192ba"), "100ba").unwrap();
        assert!((s.alpha_at(100.0) - 0.55).abs() < 1e-12);
    }

    #[test]
    fn units_that_do_not_compare_are_refused() {
        assert_eq!(
            schedule(cosine("100ba", 0.1), "1000tok").unwrap_err().to_string(),
            "scheduler.t_warmup is 100ba, but the schedule ends at 1000tok, and batches cannot be \
             compared with tokens; give both in one unit, or t_warmup in dur"
        );
        assert_eq!(
            schedule(inv_sqrt("20tok"), "100ba").unwrap_err().to_string(),
            "scheduler.t_warmup is 4ba, but scheduler.t_cooldown is 20tok, and batches cannot be \
             compared with tokens; give both in one unit"
        );
        // A short trial of a long recipe is not an error.
        assert_eq!(schedule(cosine("100ba", 0.1), "2ba").unwrap().for_batch(2), 0.01);
    }
}
