//! Where each of many shuffles begins in a generator's numbers, found without shuffling.
//!
//! A shuffle rejects draws, so that nobody knows how many numbers it takes without drawing them. But
//! with the generator as it is before a shuffle, that shuffle can be made by itself at any time; and
//! one pass that draws and moves nothing finds all these states.
//!
//! # On several threads
//! The next shuffle begins where the last one ended, so that the pass itself is sequential. The
//! numbers are not: PCG64 jumps. One thread walks, over blocks of numbers that the others make ahead
//! of it. Most of the walk is done 32 draws at a time, as nearly always each of them is taken or
//! rejected whatever becomes of the 31 others; so the numbers are what takes time, and the more
//! threads make them the shorter it is.

use std::io;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;

use super::rng::Generator;

/// Words that are made at a time: a block of them stays in the processor's cache.
const BLOCK_WORDS: usize = 1 << 15;

/// Blocks that a thread may be ahead: with fewer both sides sleep, and wake one another, too often.
const BLOCKS_AHEAD: usize = 16;

/// How often the walk looks for a block before it sleeps: for as long as it takes to make one or two.
const LOOKS: usize = 1_000;

/// The halves of some words, in the order in which they are drawn.
type Block = Vec<[u32; 2]>;

/// Samples whose shuffles are worth more threads than one: about five milliseconds.
const WORTH_THREADS: u64 = 1 << 22;

/// Beyond so many threads the walk takes longer than the numbers.
const MOST_MAKERS: usize = 6;

/// The generator as it is before each of some shuffles of `lens` items, one after the other. Leaves
/// `rng` behind the last one. The result does not depend on the number of threads.
pub(super) fn shuffle_starts(rng: &mut Generator, lens: &[u64]) -> Vec<Generator> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let are_short = lens.iter().all(|len| *len <= u64::from(u32::MAX));
    let samples = lens.iter().fold(0_u64, |sum, len| sum.saturating_add(*len));
    if threads > 1 && are_short && samples >= WORTH_THREADS {
        let makers = (threads - 1).min(MOST_MAKERS);
        if let Ok(starts) = walk_behind(rng, lens, makers) {
            return starts;
        }
        // The system starts no more threads, so that this one does all.
    }
    let mut starts = Vec::with_capacity(lens.len());
    for &len in lens {
        starts.push(rng.clone());
        rng.skip_shuffle(len);
    }
    starts
}

/// Walks behind `makers` threads that make the numbers.
///
/// # Errors
/// If a thread cannot be started; `rng` then is where it was.
fn walk_behind(rng: &mut Generator, lens: &[u64], makers: usize) -> io::Result<Vec<Generator>> {
    thread::scope(|scope| {
        let makers: io::Result<Vec<Maker>> = (0..makers)
            .map(|number| {
                let (made, receive) = mpsc::sync_channel(BLOCKS_AHEAD);
                let (give_back, used) = mpsc::sync_channel(BLOCKS_AHEAD);
                let mut rng = rng.clone();
                rng.advance((number * BLOCK_WORDS) as u64);
                let others = ((makers - 1) * BLOCK_WORDS) as u64;
                let make = move || make_numbers(rng, others, &made, &used);
                thread::Builder::new().spawn_scoped(scope, make)?;
                Ok(Maker { made: receive, used: give_back })
            })
            .collect();
        // The threads end when the walk drops its ends of the channels.
        let mut walk = Walk::new(rng.clone(), makers?);
        let mut starts = Vec::with_capacity(lens.len());
        for &len in lens {
            starts.push(walk.generator().clone());
            walk.skip_shuffle(len as u32);
        }
        *rng = walk.generator().clone();
        Ok(starts)
    })
}

/// Makes every so many blocks, leaving out those of the `others`, until nobody wants more.
fn make_numbers(mut rng: Generator, others: u64, made: &SyncSender<Block>, used: &Receiver<Block>) {
    loop {
        let mut block = used.try_recv().unwrap_or_else(|_| vec![[0; 2]; BLOCK_WORDS]);
        rng.fill_halves(&mut block);
        rng.advance(others);
        if made.send(block).is_err() {
            return;
        }
    }
}

/// The channels to a thread that makes numbers.
struct Maker {
    made: Receiver<Block>,
    used: SyncSender<Block>,
}

/// A walk through numbers that others make.
struct Walk {
    makers: Vec<Maker>,
    /// Whose block comes next.
    turn: usize,
    /// Draws of 32 bits, and how many of them are taken.
    block: Block,
    at: usize,
    /// The generator as it was at the last start, and the draws taken since then.
    start: Generator,
    taken: u64,
    /// The half word that was left over before the first block.
    half: Option<u32>,
}

impl Walk {
    fn new(start: Generator, makers: Vec<Maker>) -> Self {
        let half = start.buffered_half();
        Self { makers, turn: 0, block: Vec::new(), at: 0, start, taken: 0, half }
    }

    /// The generator as it is here.
    fn generator(&mut self) -> &Generator {
        if self.taken > 0 {
            // A start between two halves leaves the upper one over, which is the next draw.
            let odd = self.start.buffered_half().is_some();
            let halves = self.taken + u64::from(odd);
            let words = if odd { halves.div_ceil(2) - 1 } else { halves.div_ceil(2) };
            let half = (!halves.is_multiple_of(2)).then(|| self.block.as_flattened()[self.at]);
            self.start.advance(words);
            self.start.set_half(half);
            self.taken = 0;
        }
        &self.start
    }

    /// Draws what a shuffle of `len` items draws.
    fn skip_shuffle(&mut self, len: u32) {
        let mut max = len.saturating_sub(1);
        if max > 0
            && let Some(half) = self.half.take()
        {
            self.taken += 1;
            max -= u32::from(half & mask(max) <= max);
        }
        while max > 0 {
            if self.at == self.block.as_flattened().len() {
                self.next_block();
            }
            let (left, used) = descend(max, &self.block.as_flattened()[self.at..]);
            max = left;
            self.at += used;
            self.taken += used as u64;
        }
    }

    fn next_block(&mut self) {
        let maker = &self.makers[self.turn];
        self.turn = (self.turn + 1) % self.makers.len();
        // It does not sleep at once: the system would wake it on the maker's processor, and leave both
        // there.
        let ready = (0..LOOKS).find_map(|_| {
            thread::yield_now();
            maker.made.try_recv().ok()
        });
        let next = ready
            .map_or_else(|| maker.made.recv(), Ok)
            .expect("makers go on for as long as the walk has their channels");
        let used = std::mem::replace(&mut self.block, next);
        // Before the first block there is none to give back; if the maker has enough, this one goes.
        if !used.is_empty() {
            let _ = maker.used.try_send(used);
        }
        self.at = 0;
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
        assert_eq!(shuffle_starts(&mut rng, &lens), one_by_one(&mut shuffled, &lens));
        assert_eq!(rng, shuffled);
    }

    #[test]
    fn any_number_of_threads_finds_the_same() {
        let lens: Vec<u64> = (0..400).map(|i| [1, 7, 0, 2, 300, 1030, 5000][i % 7]).collect();
        for half in [false, true] {
            let mut before = Generator::new(2);
            if half {
                before.next_u32();
            }
            let mut end = before.clone();
            let expected = one_by_one(&mut end, &lens);
            for makers in [1, 2, 5] {
                let mut rng = before.clone();
                let starts = walk_behind(&mut rng, &lens, makers).unwrap();
                assert!(starts == expected && rng == end, "{makers} makers, half {half}");
            }
        }
    }

    #[test]
    fn long_lists_are_walked_on_several_threads_with_the_same_result() {
        let lens = vec![20_000; 220];
        assert!(lens.iter().sum::<u64>() >= WORTH_THREADS);
        let (mut rng, mut shuffled) = (Generator::new(3), Generator::new(3));
        assert!(shuffle_starts(&mut rng, &lens) == one_by_one(&mut shuffled, &lens));
        assert_eq!(rng, shuffled);
    }
}
