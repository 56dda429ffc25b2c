//! Where each of many shuffles begins in a generator's numbers, found without shuffling.
//!
//! A shuffle rejects draws, so that nobody knows how many numbers it takes without drawing them. But
//! with the generator as it is before a shuffle, that shuffle can be made by itself at any time; and
//! one pass that draws and moves nothing finds all these states.
//!
//! # On several threads
//! The next shuffle begins where the last one ended, so that the pass itself is sequential. The
//! numbers are not: PCG64 jumps. One thread walks over a row of numbers while the others make the
//! next one, and it helps them when it is done. Most of the walk is done 32 draws at a time, as nearly
//! always each of them is taken or rejected whatever becomes of the 31 others; so that making the
//! numbers takes most of the time, and the more threads there are the shorter it is.

use std::{mem, slice};

use rayon::prelude::*;

use super::rng::Generator;

/// Words that a thread makes at a time.
const BLOCK_WORDS: usize = 1 << 15;

/// Words that are made while as many others are walked over: a millisecond or so, and 4 MiB.
const ROW_WORDS: usize = 16 * BLOCK_WORDS;

/// Samples whose shuffles are worth more threads than one: about five milliseconds.
const WORTH_THREADS: u64 = 1 << 22;

/// The generator as it is before each of some shuffles of `lens` items, one after the other. Leaves
/// `rng` behind the last one. The result does not depend on the number of threads.
pub(super) fn shuffle_starts(rng: &mut Generator, lens: &[u64]) -> Vec<Generator> {
    let are_short = lens.iter().all(|len| *len <= u64::from(u32::MAX));
    let samples = lens.iter().fold(0_u64, |sum, len| sum.saturating_add(*len));
    if are_short && samples >= WORTH_THREADS && rayon::current_num_threads() > 1 {
        walk_behind(rng, lens, ROW_WORDS)
    } else {
        walk_alone(rng, lens)
    }
}

fn walk_alone(rng: &mut Generator, lens: &[u64]) -> Vec<Generator> {
    let mut start = |&len: &u64| {
        let start = rng.clone();
        rng.skip_shuffle(len);
        start
    };
    lens.iter().map(&mut start).collect()
}

/// Walks through shuffles of fewer than 2^32 items each, over rows of numbers that others make.
fn walk_behind(rng: &mut Generator, lens: &[u64], row_words: usize) -> Vec<Generator> {
    let mut walk = Walk::new(rng, lens);
    let mut ahead = rng.clone();
    let (mut row, mut next) = (vec![[0; 2]; row_words], vec![[0; 2]; row_words]);
    rayon::scope(|_| {
        make_row(&mut ahead, &mut row);
        while !rayon::join(|| walk.over(row.as_flattened()), || make_row(&mut ahead, &mut next)).0 {
            mem::swap(&mut row, &mut next);
        }
    });
    *rng = walk.generator;
    walk.starts
}

/// Fills a row with the halves of words, in the order in which they are drawn.
fn make_row(rng: &mut Generator, row: &mut [[u32; 2]]) {
    row.par_chunks_mut(BLOCK_WORDS).enumerate().for_each(|(number, block)| {
        let mut rng = rng.clone();
        rng.advance((number * BLOCK_WORDS) as u64);
        rng.fill_halves(block);
    });
    rng.advance(row.len() as u64);
}

/// A walk over rows of numbers.
struct Walk<'a> {
    /// The shuffles to come.
    lens: slice::Iter<'a, u64>,
    starts: Vec<Generator>,
    /// The step of the shuffle under way, which goes down to 0.
    step: u32,
    /// As it was `taken` draws ago.
    generator: Generator,
    taken: u64,
    /// The half word that was left over before the first row.
    half: Option<u32>,
}

impl<'a> Walk<'a> {
    fn new(rng: &Generator, lens: &'a [u64]) -> Self {
        let starts = Vec::with_capacity(lens.len());
        let (generator, half) = (rng.clone(), rng.buffered_half());
        Self { lens: lens.iter(), starts, step: 0, generator, taken: 0, half }
    }

    /// Walks on over the next row; true if that was the end of the list.
    fn over(&mut self, row: &[u32]) -> bool {
        let mut at = 0;
        loop {
            if self.step > 0
                && let Some(half) = self.half.take()
            {
                self.taken += 1;
                self.step -= u32::from(half & mask(self.step) <= self.step);
            }
            while self.step > 0 {
                if at == row.len() {
                    return false;
                }
                let (step, used) = descend(self.step, &row[at..]);
                self.step = step;
                at += used;
                self.taken += used as u64;
            }
            self.catch_up(row, at);
            let Some(&len) = self.lens.next() else { return true };
            self.starts.push(self.generator.clone());
            self.step = len.saturating_sub(1) as u32;
        }
    }

    /// Brings the generator to where the walk is: before draw `at` of a row.
    fn catch_up(&mut self, row: &[u32], at: usize) {
        if self.taken == 0 {
            return;
        }
        // A start between two halves leaves the upper one over, which is the next draw.
        let odd = self.generator.buffered_half().is_some();
        let halves = self.taken + u64::from(odd);
        let words = if odd { halves.div_ceil(2) - 1 } else { halves.div_ceil(2) };
        self.generator.advance(words);
        self.generator.set_half((!halves.is_multiple_of(2)).then(|| row[at]));
        self.taken = 0;
    }
}

/// The smallest `2^k - 1` that covers `max`, which is not 0.
const fn mask(max: u32) -> u32 {
    u32::MAX >> max.leading_zeros()
}

/// Goes down the steps `max`, `max - 1`, ... of a shuffle that share a mask, as far as `draws` last.
/// Returns the next step, and how many draws were used.
fn descend(mut max: u32, draws: &[u32]) -> (u32, usize) {
    /// Draws that are counted together.
    const GROUP: u32 = 32;
    /// Masks under which too many groups hold a draw that depends on the others.
    const SMALL_MASK: u32 = 1 << 10;
    let mask = mask(max);
    let below = mask >> 1;
    let (groups, rest) = draws.as_chunks::<{ GROUP as usize }>();
    let mut used = 0;
    if mask >= SMALL_MASK {
        for group in groups {
            if max - below <= GROUP {
                break;
            }
            // Draws up to the step after 32 more are taken in any case, those beyond this one never.
            let taken = count_up_to(max - GROUP, mask, group);
            if taken == count_up_to(max, mask, group) {
                max -= taken;
            } else {
                max = group.iter().fold(max, |max, draw| max - u32::from(draw & mask <= max));
            }
            used += group.len();
        }
    }
    debug_assert!(used <= draws.len() - rest.len());
    for draw in &draws[used..] {
        if max <= below {
            break;
        }
        max -= u32::from(draw & mask <= max);
        used += 1;
    }
    (max, used)
}

#[inline]
fn count_up_to<const N: usize>(bound: u32, mask: u32, draws: &[u32; N]) -> u32 {
    draws.iter().map(|draw| u32::from(draw & mask <= bound)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_by_one(rng: &mut Generator, lens: &[u64]) -> Vec<Generator> {
        let mut start = |len: &u64| {
            let start = rng.clone();
            rng.shuffle(&mut vec![(); *len as usize]);
            start
        };
        lens.iter().map(&mut start).collect()
    }

    #[test]
    fn the_starts_are_where_shuffles_begin() {
        let lens = [5, 0, 1, 700, 64, 2];
        let (mut rng, mut shuffled) = (Generator::new(1), Generator::new(1));
        let starts = shuffle_starts(&mut rng, &lens);
        assert_eq!(starts, one_by_one(&mut shuffled, &lens));
        assert_eq!(rng, shuffled);
    }

    #[test]
    fn a_walk_behind_others_finds_the_same() {
        let lens: Vec<u64> = (0..400).map(|i| [1, 7, 0, 2, 300, 1030, 5000][i % 7]).collect();
        for half in [false, true] {
            let mut before = Generator::new(2);
            if half {
                before.next_u32();
            }
            let mut end = before.clone();
            let expected = one_by_one(&mut end, &lens);
            for row_words in [1, 50, BLOCK_WORDS + 1, 3 * BLOCK_WORDS] {
                let mut rng = before.clone();
                let starts = walk_behind(&mut rng, &lens, row_words);
                assert!(starts == expected && rng == end, "rows of {row_words}, half {half}");
            }
            let mut rng = before.clone();
            assert!(walk_alone(&mut rng, &lens) == expected && rng == end, "half {half}");
        }
    }

    #[test]
    fn long_lists_are_walked_on_several_threads_with_the_same_result() {
        let lens = vec![20_000; 220];
        assert!(lens.iter().sum::<u64>() >= WORTH_THREADS);
        let (mut rng, mut shuffled) = (Generator::new(3), Generator::new(3));
        let starts = shuffle_starts(&mut rng, &lens);
        assert!(starts == one_by_one(&mut shuffled, &lens));
        assert_eq!(rng, shuffled);
    }
}
