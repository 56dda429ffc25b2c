//! The console: `[batch=7/5000]: loss/train/total: 9.8454` lines, and the progress bar.
//!
//! Lines go to standard error, one metric each. The bar shows on a terminal only; where the output
//! is piped and no lines are printed either, a plain line of progress comes now and then.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::{Metric, Value};
use crate::config::Config;
use crate::time::{Time, Timestamp, Unit};

/// How often a plain line of progress is printed where there is neither bar nor metric lines.
const PLAIN_PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// What the console shows.
#[derive(Debug)]
pub(super) struct Console {
    max_duration: Time,
    interval: Time,
    batches_per_epoch: Option<u64>,
    /// Print metric lines.
    lines: bool,
    bar: Option<ProgressBar>,
    /// When the last plain line of progress was printed, where those are wanted.
    plain: Option<Instant>,
    /// Whether nothing was printed yet: the first step always is.
    first: bool,
}

impl Console {
    pub(super) fn new(config: &Config, start: &Timestamp, batches_per_epoch: Option<u64>) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let total = total_in_bar(config.max_duration, batches_per_epoch);
        let bar = (config.progress_bar && terminal).then(|| {
            let position = bar_position(config.max_duration, start);
            progress_bar(
                total,
                position,
                bar_unit(config.max_duration),
                ProgressDrawTarget::stderr(),
            )
        });
        let plain = config.progress_bar && !terminal && !config.log_to_console;
        Self {
            max_duration: config.max_duration,
            interval: config.console_log_interval,
            batches_per_epoch,
            lines: config.log_to_console,
            bar,
            plain: plain.then(Instant::now),
            first: true,
        }
    }

    /// Shows one step, where it is due: the first, the last, and one every interval.
    pub(super) fn log_step(
        &mut self,
        start: &Timestamp,
        end: &Timestamp,
        at_start: &[Metric<'_>],
        at_end: &[Metric<'_>],
    ) {
        let last = self.max_duration.reached(end);
        let due = std::mem::take(&mut self.first) || last || self.interval.is_due(start, end);
        if self.lines && due {
            self.print_metrics(start, at_start);
            self.print_metrics(end, at_end);
        }
        let loss = at_start.iter().find(|(name, _)| name.contains("loss/train"));
        self.show_progress(end, loss, last);
    }

    /// Shows an evaluation, always.
    pub(super) fn log_eval(&self, at: &Timestamp, metrics: &[Metric<'_>]) {
        if self.lines {
            self.print_metrics(at, metrics);
        }
    }

    fn print_metrics(&self, at: &Timestamp, metrics: &[Metric<'_>]) {
        let position = position(at, self.max_duration, self.batches_per_epoch);
        for (name, value) in metrics.iter().filter(|(name, _)| !is_of_one_parameter(name)) {
            self.print(&format!("{position}: {name}: {value}"));
        }
    }

    /// Prints a line; the bar moves down.
    pub(super) fn print(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            // Nobody reads a closed stderr, and that is no reason to end a run.
            None => _ = writeln!(std::io::stderr(), "{line}"),
        }
    }

    fn show_progress(&mut self, at: &Timestamp, loss: Option<&Metric<'_>>, last: bool) {
        let postfix = loss.map_or_else(String::new, |(name, value)| format!(", {name}={value}"));
        if let Some(bar) = &self.bar {
            bar.set_message(postfix);
            bar.set_position(bar_position(self.max_duration, at));
        } else if self.plain.is_some_and(|since| since.elapsed() >= PLAIN_PROGRESS_EVERY || last) {
            self.plain = Some(Instant::now());
            let position = position(at, self.max_duration, self.batches_per_epoch);
            self.print(&format!("train {position}{postfix}"));
        }
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.abandon();
        }
    }
}

/// Hundreds of lines, which are for files.
fn is_of_one_parameter(name: &str) -> bool {
    name.starts_with("l2_norm/") && name != "l2_norm/grad/global"
}

/// `[batch=7/5000]`, or `[epoch=0][batch=7/120]` where the run is measured in epochs.
fn position(at: &Timestamp, max_duration: Time, batches_per_epoch: Option<u64>) -> String {
    match max_duration.unit {
        Unit::Epoch => {
            let total = batches_per_epoch.map_or_else(String::new, |total| format!("/{total}"));
            format!("[epoch={}][batch={}{total}]", at.epoch, at.batch_in_epoch)
        }
        unit => format!("[{}={}/{}]", unit.word(), at.get(unit), max_duration.count()),
    }
}

/// What the bar counts: the unit of `max_duration`, and batches for epochs.
fn bar_position(max_duration: Time, at: &Timestamp) -> u64 {
    match max_duration.unit {
        Unit::Epoch => at.batch,
        unit => at.get(unit),
    }
}

fn total_in_bar(max_duration: Time, batches_per_epoch: Option<u64>) -> Option<u64> {
    match max_duration.unit {
        Unit::Epoch => {
            batches_per_epoch.map(|batches| batches.saturating_mul(max_duration.count()))
        }
        _ => Some(max_duration.count()),
    }
}

/// The unit of [`bar_position`].
fn bar_unit(max_duration: Time) -> &'static str {
    match max_duration.unit {
        Unit::Epoch => Unit::Batch.suffix(),
        unit => unit.suffix(),
    }
}

/// `train        0%|        | 9/5000 [00:18<2:15:12,  1.63s/ba, loss/train/total=9.7484]`
fn progress_bar(
    total: Option<u64>,
    position: u64,
    unit: &'static str,
    target: ProgressDrawTarget,
) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(total, target);
    let template = "{prefix:30}{percent:>3}%|{bar:25}| {pos}/{len} [{so_far}<{to_go}, {pace}{msg}]";
    let style = ProgressStyle::with_template(template)
        .expect("the template above is well-formed, as the tests check")
        .progress_chars("█▉▊▋▌▍▎▏ ")
        .with_key("so_far", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            _ = out.write_str(&clock(state.elapsed()));
        })
        .with_key("to_go", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            _ = out.write_str(&clock(state.eta()));
        })
        .with_key("pace", move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            _ = out.write_str(&pace(state.per_sec(), unit));
        });
    let bar = bar.with_style(style).with_prefix("train").with_position(position);
    bar.reset_eta();
    bar
}

/// `00:18`, or `2:15:12` from an hour on.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let mut text = String::new();
    if hours > 0 {
        _ = write!(text, "{hours}:");
    }
    _ = write!(text, "{minutes:02}:{seconds:02}");
    text
}

/// ` 1.63s/ba` for slow steps, ` 4.20ba/s` for quick ones.
fn pace(per_second: f64, unit: &str) -> String {
    match per_second {
        rate if rate <= 0.0 => format!("    ?{unit}/s"),
        rate if rate < 1.0 => format!("{:5.2}s/{unit}", 1.0 / rate),
        rate => format!("{rate:5.2}{unit}/s"),
    }
}

/// A value as the console shows it: floats with four decimals, text in quotes.
impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Float(value) => write!(f, "{value:.4}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Text(value) => write!(f, "{value:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(batch: u64) -> Timestamp {
        Timestamp {
            epoch: 1,
            batch,
            batch_in_epoch: batch % 100,
            sample: batch * 2,
            token: batch * 64,
        }
    }

    #[test]
    fn lines_have_the_form_of_the_reference() {
        let position = |max: &str| position(&at(107), max.parse().unwrap(), Some(100));
        assert_eq!(position("5000ba"), "[batch=107/5000]");
        assert_eq!(position("64000tok"), "[token=6848/64000]");
        assert_eq!(position("500sp"), "[sample=214/500]");
        assert_eq!(position("3ep"), "[epoch=1][batch=7/100]");
        assert_eq!(Value::from(9.845_41).to_string(), "9.8454");
        assert_eq!(Value::from(18871.543).to_string(), "18871.5430");
        assert_eq!(Value::from(4_u64).to_string(), "4");
        assert_eq!(Value::from("fp32").to_string(), "\"fp32\"");
    }

    #[test]
    fn what_is_of_one_parameter_is_not_printed() {
        assert!(is_of_one_parameter("l2_norm/grad/wte.weight"));
        assert!(!is_of_one_parameter("l2_norm/grad/global"));
        assert!(!is_of_one_parameter("loss/train/total"));
    }

    #[test]
    fn the_bar_speaks_like_tqdm() {
        assert_eq!(clock(Duration::from_secs(18)), "00:18");
        assert_eq!(clock(Duration::from_secs(2 * 3600 + 15 * 60 + 12)), "2:15:12");
        assert_eq!(pace(1.0 / 1.63, "ba"), " 1.63s/ba");
        assert_eq!(pace(4.2, "ba"), " 4.20ba/s");
        assert_eq!(pace(0.0, "ba"), "    ?ba/s");
    }

    #[test]
    fn the_bar_shows_position_time_left_and_pace() {
        let screen = indicatif::InMemoryTerm::new(10, 140);
        let target = ProgressDrawTarget::term_like(Box::new(screen.clone()));
        let bar = progress_bar(Some(5000), 9, "ba", target);
        bar.set_message(", loss/train/total=9.7484");
        std::thread::sleep(Duration::from_millis(20));
        bar.set_position(1250);
        bar.force_draw();
        let shown = screen.contents();
        assert!(shown.starts_with("train "), "{shown}");
        assert!(shown.contains(" 25%|██████"), "{shown}");
        assert!(shown.contains("| 1250/5000 [00:0"), "{shown}");
        assert!(shown.contains("ba/s, loss/train/total=9.7484]"), "{shown}");
    }
}
