//! Where each of many shuffles begins in a generator's numbers, found without shuffling.
//!
//! A shuffle rejects draws, so that nobody knows how many numbers it takes without drawing them; but
//! drawing alone costs a nanosecond each, and with the generator as it is before a shuffle, that
//! shuffle can be made by itself at any time.
//!
//! # On several threads
//! The next shuffle begins where the last one ended, yet the pass runs in parallel. A thread starts
//! at a guess of where its shuffles begin (the expected number of draws, to which PCG64 jumps). What
//! it does there is wrong, but not for long: two shuffles of the same length that read the same
//! numbers from places a little apart are in the end at the same step with the same number. Say one
//! is at step `i` and the other at `i + g`. Both reject the same draws but those in between, of
//! which they take one each at a rate that keeps `g / i` the same on average, until `g` is 0; from
//! there on they are the same for ever. So the true walk is continued into each thread's shuffles
//! until its generator is equal to the one that the thread has noted, mostly after one shuffle,
//! and all that the thread noted from there on is right. It is never right by chance: what is
//! compared is the whole state of the generator.

use std::thread;

use super::rng::Generator;

/// Draws that are worth a thread of their own: about a millisecond.
const WORTH_A_THREAD: f64 = 1e6;

/// The generator as it is before each of some shuffles of `lens` items, one after the other. Leaves
/// `rng` behind the last one. The result does not depend on the number of threads.
pub(super) fn shuffle_starts(rng: &mut Generator, lens: &[u64]) -> Vec<Generator> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut starts = Vec::with_capacity(lens.len());
    while starts.len() < lens.len() {
        let rest = &lens[starts.len()..];
        let chunk = chunk_len(rest, threads);
        walk_in_chunks(rng, rest.chunks(chunk).take(threads), &mut starts);
    }
    starts
}

/// Shuffles for each thread at a time, so few that guesses are off by less than a shuffle.
fn chunk_len(lens: &[u64], threads: usize) -> usize {
    let mean = lens.iter().sum::<u64>() as f64 / lens.len() as f64;
    // A shuffle of n takes 1.39 n draws with a variance of 0.61 n. This keeps the standard deviation
    // of all that comes before the last thread's part at a quarter of one shuffle.
    let chunk = (mean / (10 * threads) as f64) as usize;
    if threads < 2 || chunk as f64 * mean < WORTH_A_THREAD {
        return lens.len();
    }
    chunk.min(lens.len().div_ceil(threads))
}

/// Walks through the chunks at the same time.
fn walk_in_chunks<'a>(
    rng: &mut Generator,
    chunks: impl Iterator<Item = &'a [u64]>,
    starts: &mut Vec<Generator>,
) {
    let chunks: Vec<&[u64]> = chunks.collect();
    let Some((first, others)) = chunks.split_first() else { return };
    let mut guess = rng.clone();
    let mut before = *first;
    thread::scope(|scope| {
        let mut guessed = Vec::with_capacity(others.len());
        for &chunk in others {
            guess.advance(expected_words(before));
            before = chunk;
            let mut rng = guess.clone();
            guessed.push(scope.spawn(move || {
                let mut starts = Vec::with_capacity(chunk.len());
                walk(&mut rng, chunk, &mut starts);
                (starts, rng)
            }));
        }
        walk(rng, first, starts);
        for (chunk, guessed) in others.iter().zip(guessed) {
            match guessed.join() {
                Ok((noted, end)) => {
                    join(rng, chunk, &noted, end, starts);
                }
                // A walk cannot panic; if it did, its part would be walked here.
                Err(_) => walk(rng, chunk, starts),
            }
        }
    });
}

fn walk(rng: &mut Generator, lens: &[u64], starts: &mut Vec<Generator>) {
    for &len in lens {
        starts.push(rng.clone());
        rng.skip_shuffle(len);
    }
}

/// Walks on from the true place until the guessed walk has come to the same, and takes over the rest
/// of that. Returns how many shuffles that took.
fn join(
    rng: &mut Generator,
    lens: &[u64],
    noted: &[Generator],
    end: Generator,
    starts: &mut Vec<Generator>,
) -> usize {
    for (walked, (&len, noted_here)) in lens.iter().zip(noted).enumerate() {
        if rng == noted_here {
            starts.extend_from_slice(&noted[walked..]);
            *rng = end;
            return walked;
        }
        starts.push(rng.clone());
        rng.skip_shuffle(len);
    }
    lens.len()
}

/// The 64-bit words that shuffles of `lens` items are expected to take.
fn expected_words(lens: &[u64]) -> u64 {
    let mut words = 0.0;
    // Most lengths come many times in a row.
    let (mut last, mut last_words) = (0, 0.0);
    for &len in lens {
        if len != last {
            (last, last_words) = (len, expected_words_of(len));
        }
        words += last_words;
    }
    words as u64
}

/// Step `i` takes `2^k / (i + 1)` draws, `2^k` being the first power of two above `i`; two draws
/// share a word.
fn expected_words_of(len: u64) -> f64 {
    let mut draws = 0.0;
    let mut low = 1_u64;
    while low < len {
        let high = low.saturating_mul(2);
        // The sum of 1 / (i + 1) over i in low..high, by the midpoint rule.
        let steps = ((high.min(len) as f64 + 0.5) / (low as f64 + 0.5)).ln();
        draws += high as f64 * steps;
        low = high;
    }
    draws / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_starts_are_where_shuffles_begin() {
        let lens = [5, 0, 1, 700, 64, 2];
        let mut rng = Generator::new(1);
        let starts = shuffle_starts(&mut rng, &lens);
        let mut shuffled = Generator::new(1);
        for (&len, start) in lens.iter().zip(&starts) {
            assert_eq!(shuffled, *start);
            shuffled.shuffle(&mut vec![(); len as usize]);
        }
        assert_eq!(rng, shuffled);
    }

    #[test]
    fn chunks_give_the_same_starts_as_one_walk() {
        let lens: Vec<u64> = (0..300).map(|i| 2000 + i % 3).collect();
        let mut whole = Vec::new();
        let mut end = Generator::new(2);
        walk(&mut end, &lens, &mut whole);
        for chunk in [1, 7, 50, 100, 299, 300] {
            let (mut rng, mut starts) = (Generator::new(2), Vec::new());
            walk_in_chunks(&mut rng, lens.chunks(chunk), &mut starts);
            assert!(starts == whole && rng == end, "chunks of {chunk}");
        }
    }

    #[test]
    fn a_walk_from_a_guess_soon_is_the_true_one() {
        let lens = vec![20_000; 40];
        let mut rng = Generator::new(3);
        let mut guess = rng.clone();
        let mut first = Vec::new();
        walk(&mut rng, &lens, &mut first);
        guess.advance(expected_words(&lens));
        assert_ne!(rng, guess);
        let (mut noted, mut starts) = (Vec::new(), Vec::new());
        walk(&mut guess, &lens, &mut noted);
        let walked = join(&mut rng, &lens, &noted, guess, &mut starts);
        assert!((1..4).contains(&walked), "{walked}");
        assert_eq!(starts.len(), lens.len());
    }

    #[test]
    fn the_expected_number_of_words_is_near() {
        for len in [2, 3, 100, 4096, 4097, 20_000, 1_000_000] {
            let runs = (4_000_000 / len).clamp(1, 20_000) as usize;
            let mut rng = Generator::new(5);
            let mut words = Generator::new(5);
            (0..runs).for_each(|_| rng.skip_shuffle(len));
            // Four standard deviations, and the half word.
            let expected = expected_words(&vec![len; runs]);
            let off = 4.0 * (0.61 * (len as usize * runs) as f64).sqrt() / 2.0 + 1.0;
            words.advance(expected.saturating_sub(off as u64));
            let mut rest = 0;
            let end = {
                let mut end = rng.clone();
                end.advance(0);
                end.next_u64()
            };
            let found = (0..=2 * off as u64 + 2).any(|_| {
                rest += 1;
                words.next_u64() == end
            });
            assert!(found, "{len}: not within {off} of {expected}");
        }
    }
}
