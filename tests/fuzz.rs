//! The targets of `fuzz/` on stable Rust: every seed of the corpus, then inputs mutated from them.
//!
//! An input depends on nothing but the target, the seed and the number of the iteration, which a
//! failure prints. `MDS_FUZZ_ITERATIONS` is the number for each target, `MDS_FUZZ_SEED` another
//! start, `MDS_FUZZ_TARGET` runs one target alone. An allocator that counts fails a target that
//! takes more memory than its input justifies; it does not see what C libraries take.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../fuzz/targets.rs"]
mod targets;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use targets::{TARGETS, Target};

/// Inputs do not grow beyond this.
const MAX_INPUT_BYTES: usize = 1 << 16;

/// What a target may allocate for each byte of its input: a JSON value takes 56 bytes for two of
/// text, and a vector of them up to three times that while it grows.
const PER_BYTE: usize = 128;

/// What it may allocate whatever the input: the window of Brotli is 16 MiB.
const ALWAYS: usize = 16 << 20;

/// No input may take longer: the slowest that is known takes some milliseconds.
const MAX_TIME: Duration = Duration::from_secs(5);

#[test]
fn strange_bytes_are_read_or_refused() {
    let iterations = number("MDS_FUZZ_ITERATIONS").unwrap_or(20_000);
    let start = number("MDS_FUZZ_SEED").unwrap_or(1);
    let only = std::env::var("MDS_FUZZ_TARGET").ok();
    let chosen = TARGETS.iter().filter(|target| only.as_ref().is_none_or(|o| o == target.name));
    let began = Instant::now();
    let (mut ran, mut slowest) = (0, (Duration::ZERO, ""));
    for target in chosen {
        let corpus = corpus(target.name);
        assert!(!corpus.is_empty(), "{} has no seeds", target.name);
        for (name, seed) in &corpus {
            run(target, seed, || format!("the seed fuzz/corpus/{}/{name}", target.name));
        }
        let began = Instant::now();
        for iteration in 0..iterations {
            let mut random = Random::new(target.name, start, iteration);
            let input = mutated(&corpus, &mut random);
            let took = run(target, &input, || {
                format!(
                    "MDS_FUZZ_TARGET={} MDS_FUZZ_SEED={start} iteration {iteration}: {}",
                    target.name,
                    hex(&input)
                )
            });
            slowest = slowest.max((took, target.name));
            ran += 1;
        }
        eprintln!("{:24} {} seeds, {:?}", target.name, corpus.len(), began.elapsed());
    }
    assert!(ran > 0 || iterations == 0, "there is no such target");
    eprintln!("{ran} inputs in {:?}; the slowest took {slowest:?}", began.elapsed());
}

/// Every target has its program for libFuzzer and every seed folder its target.
#[test]
fn targets_programs_and_seeds_agree() {
    let names = |folder: &str| {
        let mut names: Vec<String> = std::fs::read_dir(fuzz().join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    };
    let mut targets: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    targets.sort_unstable();
    assert_eq!(names("corpus"), targets);
    assert_eq!(names("fuzz_targets"), targets);
    let manifest = std::fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for target in targets {
        assert!(manifest.contains(&format!("name = \"{target}\"\n")), "{target}");
        let program = std::fs::read_to_string(fuzz().join(format!("fuzz_targets/{target}.rs")));
        assert!(program.unwrap().contains(&format!("targets::{target}(data)")), "{target}");
    }
}

fn fuzz() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz"))
}

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let Ok(entries) = std::fs::read_dir(fuzz().join("corpus").join(target)) else {
        return Vec::new();
    };
    let mut seeds: Vec<_> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap())
        })
        .collect();
    seeds.sort();
    seeds
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

/// Runs one input and holds it to its memory and its time.
fn run(target: &Target, input: &[u8], describe: impl Fn() -> String) -> Duration {
    let began = Instant::now();
    let outcome = measured(|| catch_unwind(AssertUnwindSafe(|| (target.run)(input))));
    let took = began.elapsed();
    let (peak, outcome) = outcome;
    if let Err(panic) = outcome {
        eprintln!("failed on {}", describe());
        std::panic::resume_unwind(panic);
    }
    let allowed = PER_BYTE * input.len() + target.allowance + ALWAYS;
    assert!(peak <= allowed, "{peak} bytes at a time, {allowed} are allowed: {}", describe());
    assert!(took <= MAX_TIME, "{took:?}: {}", describe());
    took
}

/// One to five changes to a seed.
fn mutated(corpus: &[(String, Vec<u8>)], random: &mut Random) -> Vec<u8> {
    const BYTES: [u8; 12] = [0, 1, 4, 0x20, 0x22, 0x2e, 0x5c, 0x7f, 0x80, 0xc0, 0xfe, 0xff];
    const WORDS: [u32; 14] = [
        0,
        1,
        2,
        3,
        4,
        8,
        12,
        0xff,
        0x100,
        0xffff,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_fffe,
        u32::MAX,
    ];
    let seed = |random: &mut Random| corpus[random.below(corpus.len())].1.clone();
    let mut data = seed(random);
    for _ in 0..=random.below(5) {
        let at = random.below(data.len() + 1);
        match random.below(10) {
            0 | 1 => {
                if let Some(byte) = data.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
            2 => {
                if let Some(byte) = data.get_mut(at) {
                    *byte = BYTES[random.below(BYTES.len())];
                }
            }
            3 => {
                // A number, or the one that is there a little larger or smaller, either way round.
                if let Some(word) = data.get_mut(at..).and_then(|tail| tail.first_chunk_mut::<4>())
                {
                    let near = u32::from_le_bytes(*word)
                        .wrapping_add(random.below(5) as u32)
                        .wrapping_sub(2);
                    let other = WORDS[random.below(WORDS.len())];
                    let number = if random.below(2) == 0 { near } else { other };
                    *word = if random.below(4) == 0 {
                        number.to_be_bytes()
                    } else {
                        number.to_le_bytes()
                    };
                }
            }
            4 => data.truncate(at),
            5 => {
                let more = 1 + random.below(16);
                data.extend((0..more).map(|_| random.below(256) as u8));
            }
            6 => {
                // The head of this one and the tail of another.
                let other = seed(random);
                let from = random.below(other.len() + 1);
                data.truncate(at);
                data.extend_from_slice(&other[from..]);
            }
            7 => {
                let end = at + random.below((data.len() - at).min(64) + 1);
                let block = data[at..end].to_vec();
                let times = 1 + random.below(8);
                let to = random.below(data.len() + 1);
                data.splice(to..to, block.repeat(times));
            }
            8 => {
                let end = at + random.below((data.len() - at).min(64) + 1);
                data.drain(at..end);
            }
            _ => {
                // A block moves, so that lengths and offsets point elsewhere.
                let end = at + random.below((data.len() - at).min(32) + 1);
                let block: Vec<u8> = data.drain(at..end).collect();
                let to = random.below(data.len() + 1);
                data.splice(to..to, block);
            }
        }
    }
    data.truncate(MAX_INPUT_BYTES);
    data
}

/// Steele and Vigna's SplitMix64, seeded by what names an input.
struct Random(u64);

impl Random {
    fn new(target: &str, start: u64, iteration: u64) -> Self {
        let name = target.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut random = Self(name ^ start.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        random.0 = random.next().wrapping_add(iteration);
        random.0 = random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(2000).map(|byte| format!("{byte:02x}")).collect()
}

/// Counts what each thread holds while it is measured.
struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn add(bytes: usize) {
    let _ = HELD.try_with(|held| {
        let now = held.get().saturating_add(bytes);
        held.set(now);
        PEAK.with(|peak| peak.set(peak.get().max(now)));
    });
}

fn remove(bytes: usize) {
    let _ = HELD.try_with(|held| held.set(held.get().saturating_sub(bytes)));
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches plain cells only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        remove(layout.size());
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // While a block moves there may be both.
        add(size);
        remove(layout.size());
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(block, layout, size) }
    }
}

/// The most bytes that `work` held at a time on this thread, and its result.
fn measured<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = HELD.get();
    PEAK.set(before);
    let result = work();
    (PEAK.get().saturating_sub(before), result)
}

#[test]
fn the_allocator_counts() {
    let (peak, _) = measured(|| {
        let block = std::hint::black_box(vec![1_u8; 1 << 20]);
        drop(block);
        std::hint::black_box(vec![0_u8; 1 << 10]).len()
    });
    assert!((1 << 20..(1 << 20) + (1 << 12)).contains(&peak), "{peak}");
}
