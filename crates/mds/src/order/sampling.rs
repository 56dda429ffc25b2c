//! Which samples of each shard an epoch takes, and in which units they are shuffled.
//!
//! A stream gives the same number of samples to every epoch (see [`weights`](super::weights)).
//! If that is a multiple of its size, every sample is taken equally often; otherwise the rest is
//! drawn, shard by shard.

use std::ops::Range;

use super::error::{Error, Result};
use super::rng::Generator;
use crate::huge_pages::ask_for_huge_pages;

/// The samples that an epoch takes, in dataset order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draw {
    /// Lengths of the runs of samples that a shuffle keeps together: a shard, or what is taken
    /// of it. They sum to the number of samples taken.
    pub units: Vec<u64>,
    /// Which sample is taken `k`-th.
    pub samples: Samples,
}

impl Draw {
    /// Every sample of shards of these sizes once, with ids from `first` on.
    pub fn whole(units: Vec<u64>, first: u64) -> Self {
        let mut samples = Samples::default();
        samples.take_whole(first, units.iter().sum());
        Self { units, samples }
    }
}

/// The ids of the samples that are taken, in dataset order. Choices among the samples of a shard are
/// kept as the generator that makes them, not as lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Samples {
    parts: Vec<Part>,
    len: u64,
}

/// Samples that were taken together.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    /// Samples taken before these.
    start: u64,
    /// The first id that could be taken.
    first: u64,
    taken: Taken,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Taken {
    /// Every id from the first one on.
    All,
    /// A sorted choice among this many ids, by a generator that is at its beginning.
    Choice { among: u64, rng: Generator },
}

impl Samples {
    fn take_whole(&mut self, first: u64, count: u64) {
        if count == 0 {
            return;
        }
        let follows =
            |last: &Part| last.taken == Taken::All && last.first + (self.len - last.start) == first;
        if !self.parts.last().is_some_and(follows) {
            self.parts.push(Part { start: self.len, first, taken: Taken::All });
        }
        self.len += count;
    }

    fn take_choice(&mut self, first: u64, among: u64, count: u64, rng: Generator) {
        let taken = Taken::Choice { among, rng };
        self.parts.push(Part { start: self.len, first, taken });
        self.len += count;
    }

    /// How many samples are taken.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether none is taken.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends the ids of the samples that are taken `range.start`-th to before `range.end`-th.
    ///
    /// # Panics
    /// If the range ends behind the last sample, as slices do.
    pub fn extend(&self, range: Range<u64>, ids: &mut Vec<u64>) {
        assert!(range.end <= self.len, "{range:?} is not within {} samples", self.len);
        let mut part = self.parts.partition_point(|part| part.start <= range.start);
        let mut at = range.start;
        while at < range.end {
            let end = self.parts.get(part).map_or(self.len, |next| next.start);
            // `at` is not before the first part, which starts at 0.
            self.parts[part - 1].extend(at..end.min(range.end), end, ids);
            at = end;
            part += 1;
        }
    }

    /// A range around the sample that is taken `k`-th which is made in one go: a choice as a whole, or
    /// some of those that follow one another.
    pub(super) fn piece(&self, k: u64) -> Range<u64> {
        const PIECE: u64 = 1 << 16;
        let part = self.parts.partition_point(|part| part.start <= k);
        let end = self.parts.get(part).map_or(self.len, |next| next.start);
        let start = self.parts[part - 1].start;
        match self.parts[part - 1].taken {
            Taken::Choice { .. } => start..end,
            Taken::All => {
                let first = k - (k - start) % PIECE;
                first..(first + PIECE).min(end)
            }
        }
    }

    /// The largest id that may be among them.
    pub(super) fn max_id(&self) -> u64 {
        let mut end = self.len;
        let mut max = 0;
        for part in self.parts.iter().rev() {
            let among = match part.taken {
                Taken::All => end - part.start,
                Taken::Choice { among, .. } => among,
            };
            max = max.max(part.first + among.saturating_sub(1));
            end = part.start;
        }
        max
    }
}

impl Part {
    /// Appends the ids of a range of this part, which ends at `end`.
    fn extend(&self, range: Range<u64>, end: u64, ids: &mut Vec<u64>) {
        let local = range.start - self.start..range.end - self.start;
        match &self.taken {
            Taken::All => ids.extend(self.first + local.start..self.first + local.end),
            Taken::Choice { among, rng } => {
                let mut chosen = rng.clone().choice(*among, end - self.start);
                chosen.sort_unstable();
                let chosen = &chosen[local.start as usize..local.end as usize];
                ids.extend(chosen.iter().map(|sample| self.first + sample));
            }
        }
    }
}

/// How many samples to take of each shard so that they sum to `choose`.
/// Source: the reference's `get_sampling`.
///
/// Every shard gives all its samples as often as `choose` holds the stream's size. The rest comes
/// in picks of `granularity` samples of one shard, in an order that is drawn with `seed`. That
/// order is a single shuffle of all picks, which cannot be had without making it, with a random
/// access for each pick: of 2 bytes (4 from 65,536 shards on) if picks are single samples, else of 8.
///
/// # Errors
/// [`Error::SamplingGranularity`] or [`Error::TooManyPicks`].
pub fn samples_per_shard(
    shard_sizes: &[u64],
    choose: u64,
    granularity: u64,
    seed: u128,
) -> Result<Vec<u64>> {
    if granularity == 0 {
        return Err(Error::SamplingGranularity);
    }
    let total: u64 = shard_sizes.iter().sum();
    if total == 0 {
        return Ok(vec![0; shard_sizes.len()]);
    }
    let (repeats, left) = (choose / total, choose % total);
    let mut taken: Vec<u64> = shard_sizes.iter().map(|size| size * repeats).collect();
    if left > 0 {
        let count: u64 = shard_sizes.iter().map(|size| size.div_ceil(granularity)).sum();
        if count > u64::from(u32::MAX) {
            return Err(Error::TooManyPicks { picks: count, granularity });
        }
        let rng = Generator::new(seed);
        match (granularity, u16::try_from(shard_sizes.len())) {
            (1, Ok(_)) => take_singly(shard_sizes, left, rng, |shard| shard as u16, &mut taken),
            (1, Err(_)) => take_singly(shard_sizes, left, rng, |shard| shard as u32, &mut taken),
            _ => take_picks(shard_sizes, granularity, left, rng, &mut taken),
        }
    }
    Ok(taken)
}

/// Picks of one sample each: it only matters how many picks of each shard come among the first
/// `left`, which is settled once the others are.
fn take_singly<T: Copy + Into<u64>>(
    shard_sizes: &[u64],
    left: u64,
    rng: Generator,
    number: impl Fn(usize) -> T,
    taken: &mut [u64],
) {
    let mut picks = Vec::with_capacity(shard_sizes.iter().sum::<u64>() as usize);
    ask_for_huge_pages(&mut picks);
    for (shard, &size) in shard_sizes.iter().enumerate() {
        picks.extend(std::iter::repeat_n(number(shard), size as usize));
    }
    rng.shuffle_tail(left as usize, &mut picks);
    for &shard in &picks[..left as usize] {
        taken[shard.into() as usize] += 1;
    }
}

/// Picks of several samples each, of which the last one of a shard may be smaller.
fn take_picks(
    shard_sizes: &[u64],
    granularity: u64,
    mut left: u64,
    mut rng: Generator,
    taken: &mut [u64],
) {
    let mut picks = picks(shard_sizes, granularity);
    rng.shuffle(&mut picks);
    for Pick { shard, is_rest } in picks {
        let samples = match is_rest {
            true => rest(shard_sizes[shard as usize], granularity),
            false => granularity,
        };
        let samples = samples.min(left);
        taken[shard as usize] += samples;
        left -= samples;
        if left == 0 {
            break;
        }
    }
}

/// Samples of one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pick {
    shard: u32,
    /// Whether it has what other picks leave of the shard.
    is_rest: bool,
}

/// What picks of `granularity` samples leave of a shard for the last one.
const fn rest(size: u64, granularity: u64) -> u64 {
    size - (size.div_ceil(granularity) - 1) * granularity
}

/// All picks in shard order.
fn picks(shard_sizes: &[u64], granularity: u64) -> Vec<Pick> {
    let count = |size: &u64| size.div_ceil(granularity) as usize;
    let mut picks = Vec::with_capacity(shard_sizes.iter().map(count).sum());
    for (shard, size) in (0..).zip(shard_sizes) {
        picks.extend(std::iter::repeat_n(Pick { shard, is_rest: false }, count(size)));
    }
    // The last pick of a shard has the rest. The reference finds it by its index, which for an
    // empty shard is the pick before (the very last one, if there is none before): that pick is
    // then made a full one.
    let mut end = 0;
    for size in shard_sizes {
        end += count(size);
        let last = end.checked_sub(1).unwrap_or(picks.len() - 1);
        picks[last].is_rest = count(size) > 0;
    }
    picks
}

/// A stream's part of an epoch.
#[derive(Debug, Clone, Copy)]
pub struct StreamDraw<'a> {
    /// Samples in each shard.
    pub shard_sizes: &'a [u64],
    /// The id of the stream's first sample.
    pub first_id: u64,
    /// Samples that the stream gives.
    pub choose: u64,
}

/// The seeds and the granularity of a draw.
#[derive(Debug, Clone, Copy)]
pub struct DrawRule {
    /// Samples taken at a time from a shard.
    pub granularity: u64,
    /// Seed of the choice among shards.
    pub shard_seed: u128,
    /// Seed of the choice among a shard's samples.
    pub sample_seed: u128,
}

/// Draws the samples of `streams`, one after the other from one generator.
/// Source: the reference's `StreamingDataset.resample_streams`.
///
/// # Errors
/// [`Error::SamplingGranularity`], [`Error::TooManyPicks`] or [`Error::TooManyParts`].
pub fn draw(streams: &[StreamDraw<'_>], rule: DrawRule) -> Result<Draw> {
    let mut rng = Generator::new(rule.sample_seed);
    let mut draw = Draw { units: Vec::new(), samples: Samples::default() };
    for stream in streams {
        let taken = samples_per_shard(
            stream.shard_sizes,
            stream.choose,
            rule.granularity,
            rule.shard_seed,
        )?;
        check_parts(draw.units.len(), stream.shard_sizes, &taken)?;
        let mut offset = stream.first_id;
        for (&size, taken) in stream.shard_sizes.iter().zip(taken) {
            if size > 0 {
                draw.take(offset, size, taken, &mut rng);
            }
            offset += size;
        }
    }
    Ok(draw)
}

/// A stream may be repeated so often that its shards make too many parts to be held.
fn check_parts(before: usize, shard_sizes: &[u64], taken: &[u64]) -> Result<()> {
    const MOST: u64 = 1 << 28;
    let sizes = shard_sizes.iter().zip(taken).filter(|(size, _)| **size > 0);
    let parts =
        sizes.fold(before as u64, |sum, (size, taken)| sum.saturating_add(taken.div_ceil(*size)));
    if parts > MOST { Err(Error::TooManyParts { parts, most: MOST }) } else { Ok(()) }
}

impl Draw {
    /// Takes `taken` of the `size` samples from `offset` on: whole shards, then a sorted choice.
    fn take(&mut self, offset: u64, size: u64, taken: u64, rng: &mut Generator) {
        let (repeats, rest) = (taken / size, taken % size);
        for _ in 0..repeats {
            self.units.push(size);
            self.samples.take_whole(offset, size);
        }
        if rest > 0 {
            self.units.push(rest);
            self.samples.take_choice(offset, size, rest, rng.clone());
            rng.skip_choice(size, rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: DrawRule = DrawRule { granularity: 1, shard_seed: 9176, sample_seed: 9176 };

    fn stream(shard_sizes: &[u64], first_id: u64, choose: u64) -> StreamDraw<'_> {
        StreamDraw { shard_sizes, first_id, choose }
    }

    fn ids(draw: &Draw, range: Range<u64>) -> Vec<u64> {
        let mut ids = Vec::new();
        draw.samples.extend(range, &mut ids);
        ids
    }

    #[test]
    fn any_range_of_choices_is_a_part_of_the_whole() {
        let draw = draw(&[stream(&[30, 0, 50, 7], 3, 60)], RULE).unwrap();
        assert_eq!(draw.units.iter().sum::<u64>(), 60);
        let all = ids(&draw, 0..60);
        assert!(all.is_sorted() && all.iter().all(|id| (3..90).contains(id)));
        let mut at = 0;
        while at < 60 {
            let piece = draw.samples.piece(at);
            assert!(piece.contains(&at) && piece == draw.samples.piece(piece.end - 1));
            at = piece.end;
        }
        for start in 0..=60 {
            for end in start..=60 {
                assert_eq!(ids(&draw, start..end), all[start as usize..end as usize]);
            }
        }
    }

    #[test]
    fn single_samples_are_picked_as_a_full_shuffle_picks_them() {
        let sizes = [5, 0, 20, 9];
        for left in 1..34 {
            let mut expected = vec![0; 4];
            let mut picks = picks(&sizes, 1);
            Generator::new(3).shuffle(&mut picks);
            picks[..left].iter().for_each(|pick| expected[pick.shard as usize] += 1);
            assert_eq!(samples_per_shard(&sizes, left as u64, 1, 3), Ok(expected.clone()));
            let mut wide = vec![0; 4];
            take_singly(&sizes, left as u64, Generator::new(3), |s| s as u32, &mut wide);
            assert_eq!(wide, expected);
        }
    }

    #[test]
    fn absurd_draws_are_refused_before_memory_is_taken() {
        let error = |sizes: &[u64], choose| draw(&[stream(sizes, 0, choose)], RULE).unwrap_err();
        assert_eq!(
            error(&[2], 1 << 40).to_string(),
            "the epoch takes 549755813888 parts of shards, more than 268435456, which can be kept \
             in memory; lower repeat, choose or epoch_size"
        );
        assert_eq!(
            error(&[1 << 33], 5).to_string(),
            "8589934592 picks of 1 samples are too many to choose among; \
             raise sampling_granularity to at least 3"
        );
    }

    #[test]
    fn whole_streams_need_no_list() {
        let draw = draw(&[stream(&[3, 0, 2], 0, 5), stream(&[4], 5, 4)], RULE).unwrap();
        assert_eq!(draw.units, [3, 2, 4]);
        assert_eq!(draw, Draw::whole(vec![3, 2, 4], 0));
        assert_eq!(draw.samples.parts.len(), 1);
    }

    #[test]
    fn a_later_stream_alone_starts_at_its_own_id() {
        let draw = draw(&[stream(&[4, 4], 5, 8)], RULE).unwrap();
        assert_eq!(draw, Draw::whole(vec![4, 4], 5));
        assert_eq!(ids(&draw, 3..5), [8, 9]);
    }

    #[test]
    fn repeats_are_listed_shard_by_shard_with_a_sorted_rest() {
        let draw = draw(&[stream(&[2], 10, 5)], RULE).unwrap();
        assert_eq!(draw.units, [2, 2, 1]);
        let all = ids(&draw, 0..5);
        assert_eq!(all[..4], [10, 11, 10, 11]);
        assert!([10, 11].contains(&all[4]));
        assert_eq!(draw.samples.max_id(), 11);
    }

    #[test]
    fn a_skipped_stream_leaves_a_gap() {
        let draw =
            draw(&[stream(&[2], 0, 2), stream(&[9], 2, 0), stream(&[2], 11, 2)], RULE).unwrap();
        assert_eq!(ids(&draw, 0..4), [0, 1, 11, 12]);
        assert_eq!(draw.samples.max_id(), 12);
    }

    #[test]
    fn an_empty_shard_fills_the_pick_before_it() {
        let sizes = |shards: &[u64]| -> Vec<(u32, u64)> {
            let size = |pick: Pick| match pick.is_rest {
                true => rest(shards[pick.shard as usize], 3),
                false => 3,
            };
            picks(shards, 3).into_iter().map(|pick| (pick.shard, size(pick))).collect()
        };
        assert_eq!(sizes(&[7, 0, 5]), [(0, 3), (0, 3), (0, 3), (2, 3), (2, 2)]);
        assert_eq!(sizes(&[7, 5]), [(0, 3), (0, 3), (0, 1), (1, 3), (1, 2)]);
        // With none before, it is the very last pick, which the last shard sets right again.
        assert_eq!(sizes(&[0, 4]), [(1, 3), (1, 1)]);
        assert_eq!(sizes(&[0, 4, 0]), [(1, 3), (1, 3)]);
    }

    #[test]
    fn an_empty_stream_gives_nothing() {
        assert_eq!(samples_per_shard(&[0, 0], 5, 1, 0), Ok(vec![0, 0]));
        assert_eq!(
            samples_per_shard(&[3], 1, 0, 0).unwrap_err().to_string(),
            "sampling_granularity is 0; take at least 1 sample at a time"
        );
    }
}
