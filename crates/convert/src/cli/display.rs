//! What a conversion shows: a progress bar or plain lines while it runs, and a summary.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::conversion::{Conversion, Summary};
use crate::progress::{Meter, Stage};
use crate::source::Split;
use crate::statistics::JSON_NAME;

/// Shows how far a conversion is, from a thread of its own: a bar on a terminal, else a line now
/// and then, so that a log stays readable.
pub(super) struct Display {
    pub(super) meter: Arc<Meter>,
    done: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// How many documents that were skipped are shown.
const QUOTED: usize = 10;

const REDRAW: Duration = Duration::from_millis(100);
const PLAIN_LINE_EVERY: Duration = Duration::from_secs(5);

impl Display {
    pub(super) fn start(conversion: &Conversion) -> Self {
        let meter: Arc<Meter> = Arc::default();
        let done: Arc<AtomicBool> = Arc::default();
        let total = conversion.files.iter().map(|file| file.bytes()).sum();
        let split = conversion.split.clone();
        let files = conversion.files.len();
        let thread = {
            let (meter, done) = (Arc::clone(&meter), Arc::clone(&done));
            thread::spawn(move || {
                if std::io::stderr().is_terminal() {
                    draw_bar(&split, total, &meter, &done, ProgressDrawTarget::stderr());
                } else {
                    let plural = if files == 1 { "" } else { "s" };
                    eprintln!("{split}: reading {files} file{plural}, {}", HumanBytes(total));
                    print_lines(&split, total, &meter, &done);
                }
            })
        };
        Self { meter, done, thread }
    }

    /// Ends what is shown; the counters stay.
    pub(super) fn finish(self) -> Arc<Meter> {
        self.done.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        let _ = self.thread.join();
        self.meter
    }
}

/// The bar's length is that of the stored files, the only total known beforehand.
fn draw_bar(
    split: &Split,
    total: u64,
    meter: &Meter,
    done: &AtomicBool,
    target: ProgressDrawTarget,
) {
    let bar = ProgressBar::with_draw_target(Some(total), target);
    let template = "{prefix} [{bar:30}] {percent:>3}% {bytes}/{total_bytes}, {msg}, eta {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(split.to_string());
    let started = Instant::now();
    while !done.load(Ordering::Relaxed) {
        bar.set_position(meter.bytes_read());
        let rate = meter.documents() as f64 / started.elapsed().as_secs_f64().max(1e-3);
        let documents = HumanCount(meter.documents());
        bar.set_message(format!("{documents} documents, {}/s", HumanCount(rate as u64)));
        thread::park_timeout(REDRAW);
    }
    bar.finish_and_clear();
}

fn print_lines(split: &Split, total: u64, meter: &Meter, done: &AtomicBool) {
    let started = Instant::now();
    let mut printed = started;
    while !done.load(Ordering::Relaxed) {
        thread::park_timeout(REDRAW);
        if printed.elapsed() < PLAIN_LINE_EVERY {
            continue;
        }
        printed = Instant::now();
        let seconds = started.elapsed().as_secs_f64();
        let read = meter.bytes_read();
        let eta = total.saturating_sub(read) as f64 * seconds / (read as f64).max(1.0);
        eprintln!(
            "{split}: {:.0}% of {}, {} documents, {:.0}/s, eta {eta:.0} s",
            100.0 * read as f64 / (total as f64).max(1.0),
            HumanBytes(total),
            HumanCount(meter.documents()),
            meter.documents() as f64 / seconds,
        );
    }
}

/// A number of things.
pub(super) fn plural(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", HumanCount(count), if count == 1 { "" } else { "s" })
}

/// The summary of a finished split.
pub(super) fn report(split: &Split, files: usize, took: Duration, summary: &Summary) {
    if summary.skipped > 0 {
        eprintln!("{split}: {} skipped:", plural(summary.skipped, "unreadable document"));
        for bad in summary.bad.iter().take(QUOTED) {
            eprintln!("  {bad}");
        }
        if summary.skipped > QUOTED as u64 {
            let listed = HumanCount(summary.bad.len() as u64);
            eprintln!("  ... ({listed} of them are listed in {}/{JSON_NAME})", summary.address);
        }
    }
    for subset in &summary.missing_subsets {
        eprintln!("{split}: note: no document is of the subset {subset:?}");
    }
    println!(
        "{split}: {} in {}, {}, from {} in {}, in {:.1} s -> {}",
        plural(summary.samples, "sample"),
        plural(summary.shards as u64, "shard"),
        HumanBytes(summary.bytes),
        plural(summary.documents, "document"),
        plural(files as u64, "file"),
        took.as_secs_f64(),
        summary.address
    );
    if summary.dropped_tokens > 0 {
        let tokens = plural(summary.dropped_tokens as u64, "token");
        let were = if summary.dropped_tokens == 1 { "was" } else { "were" };
        println!("{split}: {tokens} at the end did not fill a sample and {were} dropped");
    }
}

/// The most memory that this program has had, where the system tells.
pub(super) fn report_memory() {
    if let Some(bytes) = peak_memory() {
        println!("peak memory {}", HumanBytes(bytes));
    }
}

/// In bytes.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// What the time of a conversion was spent on.
pub(super) fn report_profile(split: &Split, meter: &Meter, took: Duration) {
    let all: Duration = Stage::ALL.iter().map(|&stage| meter.stage(stage)).sum();
    for stage in Stage::ALL {
        let spent = meter.stage(stage).as_secs_f64();
        let share = 100.0 * spent / all.as_secs_f64().max(1e-9);
        println!("{split}: {:<20} {spent:>9.2} s {share:>5.1} %", stage.name());
    }
    let (all, took) = (all.as_secs_f64(), took.as_secs_f64());
    println!("{split}: all threads together {all:.2} s of work in {took:.2} s");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Counted;
    use crate::source::NamedSplit;
    use indicatif::InMemoryTerm;
    use std::io::Read;

    #[test]
    fn a_terminal_shows_a_bar_with_rate_and_time_left() {
        let screen = InMemoryTerm::new(5, 120);
        let meter: Arc<Meter> = Arc::default();
        let half_a_kilobyte = std::io::repeat(b'x').take(500);
        let mut source =
            Counted { inner: half_a_kilobyte, meter: Arc::clone(&meter), count: Arc::default() };
        source.read_to_end(&mut Vec::new()).unwrap();
        meter.set_documents(20);
        let done = AtomicBool::new(false);
        let seen = thread::scope(|scope| {
            let target = ProgressDrawTarget::term_like(Box::new(screen.clone()));
            scope.spawn(|| draw_bar(&NamedSplit::Val.into(), 2000, &meter, &done, target));
            let mut seen = String::new();
            while !seen.contains("documents") {
                thread::sleep(REDRAW / 10);
                seen = screen.contents();
            }
            done.store(true, Ordering::Relaxed);
            seen
        });
        assert!(seen.starts_with("val [=======>"), "{seen}");
        assert!(seen.contains("]  25% 500 B/1.95 KiB, 20 documents, "), "{seen}");
        assert!(seen.contains("/s, eta "), "{seen}");
        // Nothing of it is left when the split is done.
        assert_eq!(screen.contents(), "");
    }
}
