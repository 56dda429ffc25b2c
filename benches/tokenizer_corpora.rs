//! How fast text becomes ids, on corpora that `scripts/bench-tokenizer` fetches:
//!
//!     cargo bench -p convert --bench tokenizer_corpora -- TOKENIZER FILE...
//!
//! A FILE holds documents as JSON lines with a `text`. Each is tokenised by one thread and by two in
//! turns, ROUNDS times; medians are printed. Speed is told by the processor time of the threads, which
//! other programs on the machine change little, and by the clock, which they change much. The
//! efficiency of two threads is the processor time of one over that of both together: what they cost one
//! another in caches and memory. Time that a thread waits for a lock shows by the clock alone. Each round
//! has its own quotient, of which the median is printed: from round to round the machine itself is up to a
//! half faster or slower. It is that of as many passes over the documents as 100 MB take: at first each
//! thread has the words to learn that it keeps the ids of, which a tenth of a second does not make up for
//! and a conversion does.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use convert::tokenizer::Tokenizer;

const ROUNDS: usize = 15;
const MIB: usize = 1 << 20;
/// Of text, for the efficiency of two threads.
const LONG: f64 = 100.0;

/// Seconds by the clock, and seconds of processor time of all threads.
struct Took {
    clock: f64,
    processor: f64,
}

fn main() {
    // `cargo bench` adds a flag of its own.
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let Some(name) = arguments.next() else {
        println!(
            "tokenizer_corpora: no tokenizer and no files given; scripts/bench-tokenizer does"
        );
        return;
    };
    println!(
        "{:<28} {:>8} {:>9} {:>9} {:>9} {:>10}",
        "", "MB", "ids", "MB/s cpu", "MB/s", "2 threads"
    );
    for file in arguments {
        corpus(&name, &file);
    }
    for (text, what) in [("a", "letter"), (" ", "space"), ("\n", "newline"), ("🙂", "emoji")] {
        let [once, four_times] = [1, 4].map(|times| {
            let text = text.repeat(times * MIB / text.len());
            hostile(&name, &text) * 1e3
        });
        println!("1 and 4 MiB of one {what}: {once:.0} and {four_times:.0} ms of processor time");
    }
}

/// Seconds of processor time for `text`, the median of three.
fn hostile(name: &str, text: &str) -> f64 {
    let seconds = (0..3).map(|_| {
        let tokenizer = load(name);
        let start = thread_seconds();
        tokenizer.encode(text).expect("it is text");
        thread_seconds() - start
    });
    median(seconds)
}

fn corpus(tokenizer: &str, file: &str) {
    let lines = std::fs::read_to_string(file).expect("the further arguments are files");
    let documents: Vec<String> = lines
        .lines()
        .map(|line| {
            let row: serde_json::Value = serde_json::from_str(line).expect("lines of JSON");
            row["text"].as_str().expect("documents have a text").to_owned()
        })
        .collect();
    let megabytes = documents.iter().map(String::len).sum::<usize>() as f64 / 1e6;
    let passes = (LONG / megabytes).ceil() as usize;
    let mut ids = 0;
    let [mut once, mut one, mut two] = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        let (took, count) = tokenize(tokenizer, &documents, 1, 1);
        ids = count;
        once.push(took);
        one.push(tokenize(tokenizer, &documents, 1, passes).0);
        two.push(tokenize(tokenizer, &documents, 2, passes).0);
    }
    let rounds = || one.iter().zip(&two);
    let efficiency = median(rounds().map(|(one, two)| one.processor / two.processor));
    let clock = median(rounds().map(|(one, two)| one.clock / two.clock / 2.0));
    let name = std::path::Path::new(file).file_stem().expect("a file").to_string_lossy();
    println!(
        "{name:<28} {megabytes:>8.1} {ids:>9} {:>9.1} {:>9.1} {:>5.0} % cpu, {:.0} % by the clock",
        megabytes / median(once.iter().map(|took| took.processor)),
        megabytes / median(once.iter().map(|took| took.clock)),
        efficiency * 100.0,
        clock * 100.0,
    );
}

/// As the workers of a conversion do: each takes the next document.
fn tokenize(tokenizer: &str, documents: &[String], threads: usize, passes: usize) -> (Took, usize) {
    let tokenizer = load(tokenizer);
    let (next, ids) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        let start = thread_seconds();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= passes * documents.len() {
                break;
            }
            let text = &documents[number % documents.len()];
            let count = tokenizer.encode(text).expect("it is text").len();
            ids.fetch_add(count, Ordering::Relaxed);
        }
        thread_seconds() - start
    };
    let start = Instant::now();
    let processor = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).sum()
    });
    (Took { clock: start.elapsed().as_secs_f64(), processor }, ids.into_inner())
}

fn load(name: &str) -> Tokenizer {
    Tokenizer::load(name).expect("the first argument is a tokenizer")
}

/// Processor time of this thread, which Linux counts in steps of a few milliseconds.
fn thread_seconds() -> f64 {
    let counted = std::fs::read_to_string("/proc/thread-self/schedstat").expect("this is Linux");
    let nanoseconds = counted.split(' ').next().expect("three numbers");
    nanoseconds.parse::<f64>().expect("a number") / 1e9
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
