//! numpy's random numbers: the generator behind `numpy.random.default_rng(seed)`, bit for bit.
//!
//! numpy draws bounded integers in two ways, and the order depends on using the right one:
//!
//! | call | method |
//! | --- | --- |
//! | [`shuffle`](Generator::shuffle), [`permutation`](Generator::permutation) | masked rejection |
//! | [`integers`](Generator::integers), [`choice`](Generator::choice) | Lemire's multiplication |
//!
//! The sequences were the same in numpy 1.26, 2.1 and 2.4.

use std::collections::HashSet;

use rand_core::Rng as _;
use rand_pcg::Pcg64;

/// Words of a `SeedSequence` pool.
const POOL: usize = 4;

/// Words that a shuffle draws ahead of its swaps.
const WORDS_AHEAD: usize = 64;

/// numpy's `SeedSequence` entropy pool: any integer seed, spread over 128 well mixed bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeedSequence {
    pool: [u32; POOL],
}

impl SeedSequence {
    /// Mixes `seed`, split into 32-bit words with the least significant first.
    /// Source: `SeedSequence.mix_entropy` of numpy, which follows O'Neill's `seed_seq_fe`.
    pub fn new(seed: u128) -> Self {
        let mut multiplier = 0x43B0_D7E5_u32;
        let mut hash = |word: u32| {
            let mixed = word ^ multiplier;
            multiplier = multiplier.wrapping_mul(0x931E_8875);
            let mixed = mixed.wrapping_mul(multiplier);
            mixed ^ (mixed >> 16)
        };
        let mix = |x: u32, y: u32| {
            let mixed = x.wrapping_mul(0xCA01_F9DD).wrapping_sub(y.wrapping_mul(0x4973_F715));
            mixed ^ (mixed >> 16)
        };
        // A 128-bit seed never has more words than the pool, so numpy's loop over the rest of
        // the words has nothing to do here.
        let mut pool: [u32; POOL] = std::array::from_fn(|i| hash((seed >> (32 * i)) as u32));
        for source in 0..POOL {
            for target in 0..POOL {
                if source != target {
                    pool[target] = mix(pool[target], hash(pool[source]));
                }
            }
        }
        Self { pool }
    }

    /// The mixed pool.
    pub const fn pool(&self) -> [u32; POOL] {
        self.pool
    }

    /// The first `N` 64-bit words of output. Source: `SeedSequence.generate_state` of numpy.
    pub fn generate<const N: usize>(&self) -> [u64; N] {
        let mut multiplier = 0x8B51_F9DD_u32;
        let mut words = self.pool.iter().cycle().map(|&word| {
            let mixed = word ^ multiplier;
            multiplier = multiplier.wrapping_mul(0x58F3_8DED);
            let mixed = mixed.wrapping_mul(multiplier);
            u64::from(mixed ^ (mixed >> 16))
        });
        let mut next = || words.next().unwrap_or_default();
        std::array::from_fn(|_| {
            let low = next();
            low | (next() << 32)
        })
    }
}

/// numpy's `Generator(PCG64(seed))`.
///
/// ```
/// use mds::order::rng::Generator;
///
/// let mut rng = Generator::new(9176);
/// let order = rng.permutation(5);
/// assert_eq!(order.len(), 5);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generator {
    pcg: Pcg64,
    /// The unused upper half of the last 64-bit output that was drawn for 32 bits. It outlives
    /// the call that left it, and 64-bit draws in between do not touch it.
    half: Option<u32>,
}

impl Generator {
    /// `numpy.random.default_rng(seed)`.
    pub fn new(seed: u128) -> Self {
        let [state_high, state_low, stream_high, stream_low] = SeedSequence::new(seed).generate();
        let join = |high: u64, low: u64| (u128::from(high) << 64) | u128::from(low);
        let pcg = Pcg64::new(join(state_high, state_low), join(stream_high, stream_low));
        Self { pcg, half: None }
    }

    /// 64 random bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.pcg.next_u64()
    }

    /// 32 random bits: the lower half of an output first, its upper half at the next call.
    #[inline]
    pub fn next_u32(&mut self) -> u32 {
        if let Some(half) = self.half.take() {
            return half;
        }
        let word = self.pcg.next_u64();
        self.half = Some((word >> 32) as u32);
        word as u32
    }

    /// The half word that the next 32-bit draw will return.
    pub const fn buffered_half(&self) -> Option<u32> {
        self.half
    }

    /// Sets the half word that the next 32-bit draw will return.
    pub(super) const fn set_half(&mut self, half: Option<u32>) {
        self.half = half;
    }

    /// Draws whole words, and writes the halves of each in the order in which 32-bit draws return
    /// them. The half word stays.
    pub(super) fn fill_halves(&mut self, halves: &mut [[u32; 2]]) {
        self.fill(halves, |word| [word as u32, (word >> 32) as u32]);
    }

    /// numpy's `Generator.uniform(low, high, len)`.
    pub(super) fn fill_uniform(&mut self, low: f64, high: f64, numbers: &mut [f64]) {
        self.fill(numbers, |word| scaled(word, low, high));
    }

    /// Fills a row with one word each. A word waits for the one before it: so the row is filled from
    /// several places, where others are made while one waits.
    fn fill<T>(&mut self, row: &mut [T], of_word: impl Fn(u64) -> T) {
        const PLACES: usize = 4;
        let len = row.len() / PLACES;
        let mut places: [_; PLACES] = std::array::from_fn(|place| {
            let mut pcg = self.pcg.clone();
            pcg.advance((place * len) as u128);
            pcg
        });
        let (a, rest) = row.split_at_mut(len);
        let (b, rest) = rest.split_at_mut(len);
        let (c, rest) = rest.split_at_mut(len);
        let (d, rest) = rest.split_at_mut(len);
        for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
            for (word, place) in [a, b, c, d].into_iter().zip(&mut places) {
                *word = of_word(place.next_u64());
            }
        }
        let [.., mut last] = places;
        for word in rest {
            *word = of_word(last.next_u64());
        }
        self.pcg = last;
    }

    /// A number in [0, 1) with 53 random bits.
    #[inline]
    pub fn next_f64(&mut self) -> f64 {
        fraction(self.next_u64())
    }

    /// Uniform on `0..=max` by rejection under the smallest mask that covers `max`.
    /// Source: numpy's legacy `random_interval`, which its shuffles still use.
    #[inline]
    fn masked(&mut self, max: u64) -> u64 {
        if max == 0 {
            return 0;
        }
        let mask = u64::MAX >> max.leading_zeros();
        loop {
            let drawn = if max <= u64::from(u32::MAX) {
                u64::from(self.next_u32()) & mask
            } else {
                self.next_u64() & mask
            };
            if drawn <= max {
                return drawn;
            }
        }
    }

    /// Uniform on `0..=max` by Lemire's multiplication with rejection.
    /// Source: numpy's `random_bounded_uint64` (Lemire 2019, "Fast random integer generation in
    /// an interval").
    fn lemire(&mut self, max: u64) -> u64 {
        const WORD: u64 = u32::MAX as u64;
        match max {
            0 => 0,
            WORD => u64::from(self.next_u32()),
            u64::MAX => self.next_u64(),
            1..WORD => {
                let count = max + 1;
                let mut product = u64::from(self.next_u32()) * count;
                if (product & WORD) < count {
                    let threshold = (WORD - max) % count;
                    while (product & WORD) < threshold {
                        product = u64::from(self.next_u32()) * count;
                    }
                }
                product >> 32
            }
            _ => {
                let count = max + 1;
                let mut product = u128::from(self.next_u64()) * u128::from(count);
                if (product as u64) < count {
                    let threshold = (u64::MAX - max) % count;
                    while (product as u64) < threshold {
                        product = u128::from(self.next_u64()) * u128::from(count);
                    }
                }
                (product >> 64) as u64
            }
        }
    }

    /// Leaves out `words` draws of 64 bits, in a time that grows with the logarithm of `words`.
    /// The half word stays.
    pub fn advance(&mut self, words: u64) {
        self.pcg.advance(words.into());
    }

    /// numpy's `Generator.shuffle`, of a list and of an array alike.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        self.shuffle_down_to(1, items);
    }

    /// The steps of a shuffle that settle `items[stop..]`, and with it which items are in front.
    /// Beyond them it may have drawn anything, so that the generator is of no more use.
    pub(super) fn shuffle_tail<T>(mut self, stop: usize, items: &mut [T]) {
        self.shuffle_down_to(stop.max(1), items);
    }

    /// Draws are a chain of their own, without a branch that depends on them; swaps follow in
    /// batches. That is more than twice as fast as one after the other.
    fn shuffle_down_to<T>(&mut self, stop: usize, items: &mut [T]) {
        let mut next = items.len();
        while next > stop && next - 1 > u32::MAX as usize {
            next -= 1;
            let j = self.masked(next as u64) as usize;
            items.swap(next, j);
        }
        let mut drawn = [0; 2 * WORDS_AHEAD + 1];
        while next > stop {
            let mut count = 0;
            let left = self.draw_steps((next - 1) as u32, WORDS_AHEAD, |j, taken| {
                drawn[count] = j;
                count += usize::from(taken);
            });
            for (i, &j) in (stop..next).rev().zip(&drawn[..count]) {
                items.swap(i, j as usize);
            }
            next = left as usize + 1;
        }
    }

    /// Draws what [`shuffle`](Self::shuffle) of `len` items draws, without items.
    pub fn skip_shuffle(&mut self, len: u64) {
        let mut max = len.saturating_sub(1);
        while max > u64::from(u32::MAX) {
            self.masked(max);
            max -= 1;
        }
        let mut max = max as u32;
        while max > 0 {
            max = self.draw_steps(max, usize::MAX, |_, _| ());
        }
    }

    /// Draws for the steps `max`, `max - 1`, ... of a shuffle, as long as they share a mask and for
    /// at most `words` words beside the half that is left over. `each` gets every number that is
    /// drawn, and whether it is taken or rejected. Returns the step that comes next.
    ///
    /// Ends as soon as a step is the last of its mask, so never draws beyond what a shuffle draws.
    #[inline(always)]
    fn draw_steps(&mut self, mut max: u32, words: usize, mut each: impl FnMut(u32, bool)) -> u32 {
        let mask = u32::MAX >> max.leading_zeros();
        let below = mask >> 1;
        let mut step = |half: u32, max: &mut u32| {
            let drawn = half & mask;
            let taken = drawn <= *max;
            each(drawn, taken);
            *max -= u32::from(taken);
            *max > below
        };
        if let Some(half) = self.half.take()
            && !step(half, &mut max)
        {
            return max;
        }
        for _ in 0..words {
            let word = self.pcg.next_u64();
            if !step(word as u32, &mut max) {
                self.half = Some((word >> 32) as u32);
                break;
            }
            if !step((word >> 32) as u32, &mut max) {
                break;
            }
        }
        max
    }

    /// numpy's `Generator.permutation(n)`.
    pub fn permutation(&mut self, n: u32) -> Vec<u32> {
        let mut items: Vec<u32> = (0..n).collect();
        self.shuffle(&mut items);
        items
    }

    /// numpy's `Generator.integers(low, high)`: uniform on `low..high`. An empty range, which
    /// numpy refuses, gives `low`.
    pub fn integers(&mut self, low: u64, high: u64) -> u64 {
        low + self.lemire(high.saturating_sub(low).saturating_sub(1))
    }

    /// numpy's `Generator.uniform(low, high)`.
    #[inline]
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        scaled(self.next_u64(), low, high)
    }

    /// numpy's `Generator.choice(n, k, replace=False)`: `k` different numbers below `n`, in
    /// random order. At most `n` are drawn.
    pub fn choice(&mut self, n: u64, k: u64) -> Vec<u64> {
        let k = k.min(n);
        if is_chosen_by_tail(n, k) { self.choice_by_tail(n, k) } else { self.choice_by_floyd(n, k) }
    }

    /// Draws what [`choice`](Self::choice) of `k` among `n` draws.
    pub(super) fn skip_choice(&mut self, n: u64, k: u64) {
        let k = k.min(n);
        if is_chosen_by_tail(n, k) {
            ((n - k).max(1)..n).rev().for_each(|i| _ = self.lemire(i));
        } else {
            (n - k..n).for_each(|last| _ = self.lemire(last));
            (1..k).rev().for_each(|i| _ = self.lemire(i));
        }
    }

    fn choice_by_tail(&mut self, n: u64, k: u64) -> Vec<u64> {
        let mut all: Vec<u64> = (0..n).collect();
        for i in ((n - k).max(1)..n).rev() {
            let j = self.lemire(i);
            all.swap(i as usize, j as usize);
        }
        all.split_off((n - k) as usize)
    }

    fn choice_by_floyd(&mut self, n: u64, k: u64) -> Vec<u64> {
        let mut taken = HashSet::with_capacity(k as usize);
        let mut chosen = Vec::with_capacity(k as usize);
        for last in n - k..n {
            let drawn = self.lemire(last);
            let number = if taken.insert(drawn) { drawn } else { last };
            taken.insert(number);
            chosen.push(number);
        }
        for i in (1..chosen.len()).rev() {
            let j = self.lemire(i as u64) as usize;
            chosen.swap(i, j);
        }
        chosen
    }
}

/// A number in [0, 1) from 53 bits of a word.
#[inline]
fn fraction(word: u64) -> f64 {
    // 53 bits are as many with a sign, which takes the processor a single instruction.
    (word >> 11) as i64 as f64 * (1.0 / (1_u64 << 53) as f64)
}

/// A number in [low, high) from a word. Product and sum are rounded apart: a fused multiply-add would
/// give other numbers.
#[inline]
fn scaled(word: u64, low: f64, high: f64) -> f64 {
    let product = (high - low) * fraction(word);
    low + product
}

/// Of more than 10,000 numbers, from one in fifty on, the tail of the whole range is shuffled; else
/// Floyd's algorithm draws a set, which is shuffled afterwards.
const fn is_chosen_by_tail(n: u64, k: u64) -> bool {
    n > 10_000 && k > n / 50
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipping_draws_as_much_as_doing() {
        for len in [0, 1, 2, 3, 4, 5, 64, 65, 1000, 4097, 70_000] {
            let (mut doing, mut skipping) = (Generator::new(4), Generator::new(4));
            for _ in 0..3 {
                let mut items: Vec<u64> = (0..len).collect();
                doing.shuffle(&mut items);
                skipping.skip_shuffle(len);
                assert_eq!(doing, skipping, "shuffle of {len}");
                for k in [0, 1, len / 60, len / 2, len] {
                    doing.choice(len, k);
                    skipping.skip_choice(len, k);
                    assert_eq!(doing, skipping, "choice of {k} among {len}");
                }
            }
        }
    }

    #[test]
    fn a_shuffle_of_the_tail_has_the_same_items_in_front() {
        for (len, stop) in [(1, 0), (10, 1), (1000, 300), (1000, 999), (1000, 1000), (5000, 4096)] {
            let whole = Generator::new(8).permutation(len);
            let mut tail: Vec<u32> = (0..len).collect();
            Generator::new(8).shuffle_tail(stop, &mut tail);
            assert_eq!(tail[stop..], whole[stop..]);
        }
    }

    #[test]
    fn rows_are_filled_in_the_order_of_draws() {
        for len in [0, 1, 2, 3, 13, 14] {
            let (mut fill, mut draw) = (Generator::new(9), Generator::new(9));
            let mut halves = vec![[0; 2]; len];
            fill.fill_halves(&mut halves);
            assert_eq!(halves.concat(), (0..2 * len).map(|_| draw.next_u32()).collect::<Vec<_>>());
            let mut numbers = vec![0.0; len];
            fill.fill_uniform(-3.0, 5.5, &mut numbers);
            let drawn: Vec<f64> = (0..len).map(|_| draw.uniform(-3.0, 5.5)).collect();
            assert_eq!((numbers, fill), (drawn, draw));
        }
    }

    #[test]
    fn words_are_left_out_in_one_go() {
        let (mut jump, mut step) = (Generator::new(6), Generator::new(6));
        assert_eq!(jump.next_u32(), step.next_u32());
        jump.advance(1000);
        (0..1000).for_each(|_| _ = step.next_u64());
        assert_eq!(jump, step);
    }

    #[test]
    fn the_upper_half_outlives_calls_and_64_bit_draws() {
        let mut halves = Generator::new(42);
        let mut words = Generator::new(42);
        let (first, second) = (words.next_u64(), words.next_u64());
        assert_eq!(halves.next_u32(), first as u32);
        assert_eq!(halves.next_u64(), second);
        assert_eq!(halves.buffered_half(), Some((first >> 32) as u32));
        assert_eq!(halves.next_u32(), (first >> 32) as u32);
        assert_eq!(halves.buffered_half(), None);
    }

    #[test]
    fn a_shuffle_starts_from_the_half_word_left_by_the_last_one() {
        // Two items need one 32-bit draw, so the second shuffle takes the stored half.
        let mut rng = Generator::new(7);
        let word = Generator::new(7).next_u64();
        rng.shuffle(&mut [0, 1]);
        assert_eq!(rng.buffered_half(), Some((word >> 32) as u32));
        let mut items = [0, 1];
        rng.shuffle(&mut items);
        let stays = (word >> 32) & 1 == 1;
        assert_eq!(items, if stays { [0, 1] } else { [1, 0] });
    }

    #[test]
    fn ranges_of_one_draw_nothing() {
        let mut rng = Generator::new(1);
        assert_eq!(rng.integers(3, 4), 3);
        rng.shuffle(&mut [1]);
        assert_eq!(rng.permutation(0), Vec::<u32>::new());
        assert_eq!(rng.choice(1, 1), [0]);
        assert_eq!(rng.choice(9, 0), Vec::<u64>::new());
        assert_eq!(rng.next_u64(), Generator::new(1).next_u64());
    }

    /// The number of 32-bit words that a choice of one seed has drawn.
    fn words_drawn(n: u64, k: u64) -> usize {
        let mut rng = Generator::new(5);
        let chosen = rng.choice(n, k);
        let distinct: HashSet<_> = chosen.iter().collect();
        assert_eq!((chosen.len() as u64, distinct.len() as u64), (k, k));
        let mut words = Generator::new(5);
        let end = rng.next_u64();
        (0..10 * n as usize).find(|_| words.next_u64() == end).map_or(usize::MAX, |w| 2 * w)
    }

    #[test]
    fn choice_changes_its_algorithm_above_ten_thousand_and_one_in_fifty() {
        // Floyd draws about 2k words (a set, then its order), the tail shuffle about k.
        let near = |words: usize, expected: usize| words.abs_diff(expected) <= 4;
        assert!(near(words_drawn(10_000, 201), 401));
        assert!(near(words_drawn(10_001, 200), 399));
        assert!(near(words_drawn(10_001, 201), 201));
        assert!(near(words_drawn(20_000, 400), 799));
        assert!(near(words_drawn(20_000, 401), 401));
    }

    #[test]
    fn the_whole_range_can_be_chosen() {
        for n in [1, 2, 100, 10_001] {
            let mut chosen = Generator::new(3).choice(n, n + 5);
            chosen.sort_unstable();
            assert!(chosen.into_iter().eq(0..n));
        }
    }

    #[test]
    fn wide_ranges_take_whole_words() {
        let mut rng = Generator::new(11);
        let word = Generator::new(11).next_u64();
        assert_eq!(rng.integers(0, u64::MAX), {
            let product = u128::from(word) * u128::from(u64::MAX);
            (product >> 64) as u64
        });
        assert_eq!(rng.buffered_half(), None);
        assert_eq!(Generator::new(11).integers(0, 1 << 32), word & 0xFFFF_FFFF);
    }
}
