//! Progress bars on standard error, for whoever watches.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::is_watched;

const SAMPLES: &str = "{bar:30} {pos}/{len} samples  {msg}{per_sec}  {eta} left";
const BYTES: &str = "{bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left";

/// Counts samples. A message, if there is one, ends with two spaces.
pub(super) fn samples(total: u64) -> ProgressBar {
    bar(total, SAMPLES, target())
}

/// Counts bytes.
pub(super) fn bytes(total: u64) -> ProgressBar {
    bar(total, BYTES, target())
}

/// Shows that something goes on whose length is unknown.
pub(super) fn spinner(message: &'static str) -> ProgressBar {
    let spinner = ProgressBar::with_draw_target(None, target())
        .with_style(ProgressStyle::default_spinner())
        .with_message(message);
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

fn target() -> ProgressDrawTarget {
    if is_watched() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() }
}

fn bar(total: u64, template: &str, target: ProgressDrawTarget) -> ProgressBar {
    let style = ProgressStyle::with_template(template);
    ProgressBar::with_draw_target(Some(total), target)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests {
    use indicatif::InMemoryTerm;

    use super::*;

    /// What a terminal shows of a bar.
    fn shown(template: &str, show: impl FnOnce(&ProgressBar)) -> (String, String) {
        let screen = InMemoryTerm::new(5, 120);
        let target = ProgressDrawTarget::term_like(Box::new(screen.clone()));
        let bar = bar(2000, template, target);
        show(&bar);
        bar.tick();
        let during = screen.contents();
        bar.finish_and_clear();
        (during, screen.contents())
    }

    #[test]
    fn samples_are_counted_with_rate_and_time_left() {
        let (during, after) = shown(SAMPLES, |bar| {
            bar.set_message("1.0 MB written  ");
            bar.inc(500);
        });
        assert!(during.contains(" 500/2000 samples  1.0 MB written  "), "{during}");
        assert!(during.contains("/s  ") && during.ends_with(" left"), "{during}");
        assert_eq!(during.matches('█').count(), 7, "a quarter of 30: {during}");
        assert_eq!(after, "", "nothing is left of it");
    }

    #[test]
    fn bytes_are_counted_with_rate_and_time_left() {
        let (during, after) = shown(BYTES, |bar| bar.inc(1024));
        assert!(during.contains(" 1.00 KiB/1.95 KiB  "), "{during}");
        assert!(during.contains("/s  ") && during.ends_with(" left"), "{during}");
        assert_eq!(after, "");
    }
}
