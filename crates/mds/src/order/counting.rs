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
use std::sync::mpsc::{self, Receiver, Sender, SyncSender, TryRecvError};
use std::thread;

use super::rng::Generator;

/// Words that are made at a time: a block of them stays in the processor's cache.
const BLOCK_WORDS: usize = 1 << 15;

/// Blocks that a thread may be ahead: with fewer both sides sleep, and wake one another, too often.
const BLOCKS_AHEAD: usize = 16;

/// How often the walk looks for a block before it sleeps: for as long as it takes to make one or two.
const LOOKS: usize = 1_000;

/// Samples whose shuffles are worth more threads than one: about five milliseconds.
const WORTH_THREADS: u64 = 1 << 22;

/// Beyond so many threads the walk takes longer than the numbers.
const MOST_MAKERS: usize = 6;

/// The halves of some words, in the order in which they are drawn.
type Halves = Vec<[u32; 2]>;

/// Finds starts of shuffles, with the same threads for list after list: the system takes a while to
/// give new ones a processor of their own.
#[derive(Default)]
pub(super) struct Counter {
    /// `None` until a list is long enough.
    makers: Option<Vec<Maker>>,
    /// The number of the last list that was walked behind the makers.
    list: u64,
}

impl Counter {
    /// The generator as it is before each of some shuffles of `lens` items, one after the other. Leaves
    /// `rng` behind the last one. The result does not depend on the number of threads.
    pub(super) fn shuffle_starts(&mut self, rng: &mut Generator, lens: &[u64]) -> Vec<Generator> {
        let are_short = lens.iter().all(|len| *len <= u64::from(u32::MAX));
        let samples = lens.iter().fold(0_u64, |sum, len| sum.saturating_add(*len));
        if are_short && samples >= WORTH_THREADS && self.makers.is_none() {
            let threads = thread::available_parallelism().map_or(1, usize::from);
            // If the system starts no more threads, this one does all.
            let makers = start_makers((threads - 1).min(MOST_MAKERS));
            self.makers = Some(makers.unwrap_or_default());
        }
        match self.makers.as_deref() {
            Some(makers @ [_, ..]) if are_short && samples >= WORTH_THREADS => {
                self.list += 1;
                walk_behind(makers, self.list, rng, lens)
            }
            _ => walk_alone(rng, lens),
        }
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

/// Walks through list number `list`, of shuffles of fewer than 2^32 items.
fn walk_behind(makers: &[Maker], list: u64, rng: &mut Generator, lens: &[u64]) -> Vec<Generator> {
    let mut walk = Walk::new(rng.clone(), makers, list);
    let mut start = |&len: &u64| {
        let start = walk.generator().clone();
        walk.skip_shuffle(len as u32);
        start
    };
    let starts = lens.iter().map(&mut start).collect();
    *rng = walk.generator().clone();
    starts
}

/// A thread that makes numbers. It ends when this is dropped.
struct Maker {
    /// From where on to make them, and for which list.
    tasks: Sender<(u64, Generator)>,
    made: Receiver<Block>,
    used: SyncSender<Halves>,
}

/// Numbers for a list.
struct Block {
    list: u64,
    halves: Halves,
}

fn start_makers(count: usize) -> io::Result<Vec<Maker>> {
    let start = |_| {
        let (tasks, task) = mpsc::channel();
        let (made, receive) = mpsc::sync_channel(BLOCKS_AHEAD);
        let (used, give_back) = mpsc::sync_channel(BLOCKS_AHEAD);
        let others = ((count - 1) * BLOCK_WORDS) as u64;
        let name = "mds-numbers".to_owned();
        let make = move || make_numbers(others, &task, &made, &give_back);
        thread::Builder::new().name(name).spawn(make)?;
        Ok(Maker { tasks, made: receive, used })
    };
    (0..count).map(start).collect()
}

/// Makes every so many blocks, leaving out those of the `others`, of one list after the other.
fn make_numbers(
    others: u64,
    tasks: &Receiver<(u64, Generator)>,
    made: &SyncSender<Block>,
    used: &Receiver<Halves>,
) {
    let Ok((mut list, mut rng)) = tasks.recv() else { return };
    loop {
        let mut halves = used.try_recv().unwrap_or_else(|_| vec![[0; 2]; BLOCK_WORDS]);
        rng.fill_halves(&mut halves);
        rng.advance(others);
        if made.send(Block { list, halves }).is_err() {
            return;
        }
        match tasks.try_recv() {
            Ok(task) => (list, rng) = task,
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return,
        }
    }
}

/// A walk through numbers that others make.
struct Walk<'a> {
    makers: &'a [Maker],
    list: u64,
    /// Whose block comes next.
    turn: usize,
    /// Draws of 32 bits, and how many of them are taken.
    block: Halves,
    at: usize,
    /// The generator as it was at the last start, and the draws taken since then.
    start: Generator,
    taken: u64,
    /// The half word that was left over before the first block.
    half: Option<u32>,
}

impl<'a> Walk<'a> {
    /// Sets the makers to work for list number `list`, which begins at `start`.
    fn new(start: Generator, makers: &'a [Maker], list: u64) -> Self {
        let mut first = start.clone();
        for maker in makers {
            maker.tasks.send((list, first.clone())).expect(MAKERS_STAY);
            first.advance(BLOCK_WORDS as u64);
        }
        let half = start.buffered_half();
        Self { makers, list, turn: 0, block: Vec::new(), at: 0, start, taken: 0, half }
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
        let next = loop {
            let Block { list, halves } = maker.next();
            if list == self.list {
                break halves;
            }
            // Made ahead for the list before.
            maker.give_back(halves);
        };
        let used = std::mem::replace(&mut self.block, next);
        if !used.is_empty() {
            maker.give_back(used);
        }
        self.at = 0;
    }
}

/// Why a channel to a maker is never closed before the walk ends.
const MAKERS_STAY: &str = "a maker goes on for as long as its channels are open";

impl Maker {
    fn next(&self) -> Block {
        // It does not sleep at once: the system would wake it on the maker's processor, and leave both
        // there.
        let ready = (0..LOOKS).find_map(|_| {
            thread::yield_now();
            self.made.try_recv().ok()
        });
        ready.map_or_else(|| self.made.recv(), Ok).expect(MAKERS_STAY)
    }

    fn give_back(&self, halves: Halves) {
        // If the maker has enough, this memory goes.
        let _ = self.used.try_send(halves);
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
        let starts = Counter::default().shuffle_starts(&mut rng, &lens);
        assert_eq!(starts, one_by_one(&mut shuffled, &lens));
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
            for count in [1, 2, 5] {
                let makers = start_makers(count).unwrap();
                // Several lists, so that blocks made for one are left over for the next.
                for list in 1..4 {
                    let mut rng = before.clone();
                    let starts = walk_behind(&makers, list, &mut rng, &lens);
                    assert!(starts == expected && rng == end, "{count} makers, half {half}");
                }
            }
        }
    }

    #[test]
    fn long_lists_are_walked_on_several_threads_with_the_same_result() {
        let lens = vec![20_000; 220];
        assert!(lens.iter().sum::<u64>() >= WORTH_THREADS);
        let (mut rng, mut shuffled) = (Generator::new(3), Generator::new(3));
        let starts = Counter::default().shuffle_starts(&mut rng, &lens);
        assert!(starts == one_by_one(&mut shuffled, &lens));
        assert_eq!(rng, shuffled);
    }
}
