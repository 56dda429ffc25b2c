//! Training time: durations such as `4800ba`, and the position that a run has reached.
//!
//! A duration is a number and a unit: `ep` (epochs), `ba` (batches), `sp` (samples), `tok`
//! (tokens) or `dur` (a fraction of `max_duration`). A [`Timestamp`] counts all of the first four.
//!
//! ```
//! use trainer::time::{Time, Timestamp, Unit};
//!
//! let max: Time = "4800ba".parse()?;
//! let warmup: Time = "0.05dur".parse()?;
//! assert_eq!(warmup.resolve(max)?, Time::new(240.0, Unit::Batch));
//!
//! let mut now = Timestamp::default();
//! now.advance(256, 256 * 2048);
//! assert_eq!(now.get(Unit::Token), 524_288);
//! assert!(!max.reached(&now));
//! # Ok::<(), trainer::Error>(())
//! ```

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// The largest number up to which every whole one is a float of its own.
pub(crate) const MOST: f64 = (1_u64 << f64::MANTISSA_DIGITS) as f64;

/// What a duration counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// `ep`: passes over the dataset.
    Epoch,
    /// `ba`: optimizer steps.
    Batch,
    /// `sp`: samples, that is rows of a batch.
    Sample,
    /// `tok`: tokens.
    Token,
    /// `dur`: a fraction of the run's `max_duration`.
    Duration,
}

impl Unit {
    /// The suffix in a time string: `ep`, `ba`, `sp`, `tok`, `dur`.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Epoch => "ep",
            Self::Batch => "ba",
            Self::Sample => "sp",
            Self::Token => "tok",
            Self::Duration => "dur",
        }
    }

    /// The word used in console lines: `epoch`, `batch`, `sample`, `token`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Epoch => "epoch",
            Self::Batch => "batch",
            Self::Sample => "sample",
            Self::Token => "token",
            Self::Duration => "duration",
        }
    }

    /// The word for several: `epochs`, `batches`, `samples`, `tokens`.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Epoch => "epochs",
            Self::Batch => "batches",
            Self::Sample => "samples",
            Self::Token => "tokens",
            Self::Duration => "durations",
        }
    }
}

/// A duration: a number of units. Only `dur` takes a fraction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Time {
    /// How many units; a whole number unless the unit is [`Unit::Duration`].
    pub value: f64,
    /// What is counted.
    pub unit: Unit,
}

impl Time {
    /// `value` units.
    pub const fn new(value: f64, unit: Unit) -> Self {
        Self { value, unit }
    }

    /// `n` optimizer steps.
    pub const fn batches(n: u64) -> Self {
        Self::new(n as f64, Unit::Batch)
    }

    /// The whole number of units.
    pub fn count(self) -> u64 {
        self.value as u64
    }

    /// Whether this is no time at all; as an interval, "never".
    pub fn is_zero(self) -> bool {
        self.value == 0.0
    }

    /// This time with `dur` replaced by the fraction of `max_duration`, in that one's unit.
    ///
    /// # Errors
    /// When `max_duration` itself is given in `dur`.
    pub fn resolve(self, max_duration: Self) -> Result<Self> {
        match (self.unit, max_duration.unit) {
            (Unit::Duration, Unit::Duration) => Err(Error::Config(format!(
                "max_duration is `{max_duration}`, a fraction of itself; \
                 give it in ep, ba, sp or tok, for example 4800ba"
            ))),
            (Unit::Duration, unit) => {
                Ok(Self::new((self.value * max_duration.value).floor(), unit))
            }
            _ => Ok(self),
        }
    }

    /// Whether `now` is at or past this time. `dur` must have been resolved.
    pub fn reached(self, now: &Timestamp) -> bool {
        now.get(self.unit) as f64 >= self.value
    }

    /// Whether an event that happens every `self` falls into the step from `before` to `after`.
    ///
    /// With batches this is "every n-th batch"; with tokens or samples, the step in which a
    /// multiple of the interval was crossed. An interval of zero never comes due.
    pub fn is_due(self, before: &Timestamp, after: &Timestamp) -> bool {
        let every = self.count();
        every > 0 && before.get(self.unit) / every < after.get(self.unit) / every
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.value, self.unit.suffix())
    }
}

impl FromStr for Time {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::Config(format!(
                "`{}` is not a time; write a number and one of ep, ba, sp, tok, dur, \
                 for example 500ba or 0.1dur",
                mds::redacted(text)
            ))
        };
        let lower = text.trim().to_ascii_lowercase();
        let (number, unit) = [Unit::Epoch, Unit::Batch, Unit::Sample, Unit::Token, Unit::Duration]
            .into_iter()
            .find_map(|unit| lower.strip_suffix(unit.suffix()).map(|number| (number, unit)))
            .ok_or_else(wrong)?;
        let value: f64 = number.trim().replace('_', "").parse().map_err(|_| wrong())?;
        if !value.is_finite() || value < 0.0 {
            return Err(wrong());
        }
        if unit != Unit::Duration && value > MOST {
            return Err(Error::Config(format!(
                "`{}` is more {} than can be counted; give at most {MOST}{}",
                mds::redacted(text),
                unit.plural(),
                unit.suffix()
            )));
        }
        if unit != Unit::Duration && value.fract() != 0.0 {
            return Err(Error::Config(format!(
                "`{}` is not a whole number of {}; only dur takes a fraction",
                mds::redacted(text),
                unit.plural()
            )));
        }
        Ok(Self::new(value, unit))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// How far a run has come: what the optimizer steps so far have consumed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timestamp {
    /// Completed passes over the dataset.
    pub epoch: u64,
    /// Completed optimizer steps.
    pub batch: u64,
    /// Completed optimizer steps of the current epoch.
    pub batch_in_epoch: u64,
    /// Samples (rows) trained on, over all ranks.
    pub sample: u64,
    /// Tokens trained on, over all ranks.
    pub token: u64,
}

impl Timestamp {
    /// Counts one optimizer step over `samples` rows with `tokens` tokens in all.
    pub fn advance(&mut self, samples: u64, tokens: u64) {
        self.batch += 1;
        self.batch_in_epoch += 1;
        self.sample += samples;
        self.token += tokens;
    }

    /// Counts the end of an epoch.
    pub fn end_epoch(&mut self) {
        self.epoch += 1;
        self.batch_in_epoch = 0;
    }

    /// The count in `unit`; zero for [`Unit::Duration`], which counts nothing by itself.
    pub fn get(&self, unit: Unit) -> u64 {
        match unit {
            Unit::Epoch => self.epoch,
            Unit::Batch => self.batch,
            Unit::Sample => self.sample,
            Unit::Token => self.token,
            Unit::Duration => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Time {
        text.parse().unwrap()
    }

    #[test]
    fn time_strings_are_case_insensitive_and_take_exponents() {
        assert_eq!(time("4800ba"), Time::batches(4800));
        assert_eq!(time("1EP"), Time::new(1.0, Unit::Epoch));
        assert_eq!(time(" 2.5e9tok "), Time::new(2.5e9, Unit::Token));
        assert_eq!(time("1_000sp"), Time::new(1000.0, Unit::Sample));
        assert_eq!(time("0.1dur"), Time::new(0.1, Unit::Duration));
        assert_eq!(time("4800ba").to_string(), "4800ba");
        assert_eq!(time("0.25dur").to_string(), "0.25dur");
        assert_eq!(time("1e12tok").to_string(), "1000000000000tok");
    }

    #[test]
    fn what_is_no_time_is_refused_with_an_example() {
        for bad in ["500", "ba", "tenba", "-1ba", "1s", "", "infba", "nandur"] {
            assert_eq!(
                bad.parse::<Time>().unwrap_err().to_string(),
                format!(
                    "`{bad}` is not a time; write a number and one of ep, ba, sp, tok, dur, \
                     for example 500ba or 0.1dur"
                )
            );
        }
        assert_eq!(
            "1.5ba".parse::<Time>().unwrap_err().to_string(),
            "`1.5ba` is not a whole number of batches; only dur takes a fraction"
        );
        assert_eq!(
            "1e300tok".parse::<Time>().unwrap_err().to_string(),
            "`1e300tok` is more tokens than can be counted; give at most 9007199254740992tok"
        );
    }

    #[test]
    fn dur_is_a_fraction_of_max_duration_in_its_unit() {
        assert_eq!(time("0.5dur").resolve(time("9ba")).unwrap(), time("4ba"));
        assert_eq!(time("1dur").resolve(time("2ep")).unwrap(), time("2ep"));
        assert_eq!(time("7sp").resolve(time("2ep")).unwrap(), time("7sp"));
        assert!(time("1dur").resolve(time("1dur")).is_err());
    }

    #[test]
    fn an_interval_comes_due_once_per_multiple() {
        let mut now = Timestamp::default();
        let (mut batches, mut tokens, mut never) = (vec![], vec![], 0);
        for _ in 0..10 {
            let before = now;
            now.advance(2, 30);
            if time("4ba").is_due(&before, &now) {
                batches.push(now.batch);
            }
            if time("100tok").is_due(&before, &now) {
                tokens.push(now.token);
            }
            never += u32::from(time("0ba").is_due(&before, &now));
        }
        assert_eq!(batches, [4, 8]);
        assert_eq!(tokens, [120, 210, 300]);
        assert_eq!(never, 0);
        assert!(time("10ba").reached(&now) && !time("11ba").reached(&now));
    }
}
