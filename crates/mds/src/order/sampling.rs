//! Which samples of each shard an epoch takes, and in which units they are shuffled.
//!
//! A stream gives the same number of samples to every epoch (see [`weights`](super::weights)).
//! If that is a multiple of its size, every sample is taken equally often; otherwise the rest is
//! drawn, shard by shard.

use super::error::{Error, Result};
use super::rng::Generator;

/// The samples that an epoch takes, in dataset order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draw {
    /// Lengths of the runs of samples that a shuffle keeps together: a shard, or what is taken
    /// of it. They sum to the number of samples taken.
    pub units: Vec<u32>,
    /// Which sample is taken `k`-th.
    pub samples: Samples,
}

/// The id of the `k`-th sample that is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Samples {
    /// Every sample once: the `k`-th has the id `first + k`.
    Whole {
        /// The first id.
        first: i64,
    },
    /// A list of ids.
    Listed(Vec<i64>),
}

impl Samples {
    /// The id of the sample that is taken `k`-th.
    #[inline]
    pub fn id(&self, k: u32) -> i64 {
        match self {
            Self::Whole { first } => first + i64::from(k),
            Self::Listed(ids) => ids[k as usize],
        }
    }
}

/// How many samples to take of each shard so that they sum to `choose`.
/// Source: the reference's `get_sampling`.
///
/// Every shard gives all its samples as often as `choose` holds the stream's size. The rest comes
/// in picks of `granularity` samples of one shard, in an order that is drawn with `seed`.
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
    let (repeats, mut left) = (choose / total, choose % total);
    let mut taken: Vec<u64> = shard_sizes.iter().map(|size| size * repeats).collect();
    if left == 0 {
        return Ok(taken);
    }
    let picks = picks(shard_sizes, granularity)?;
    for pick in Generator::new(seed).permutation(picks.len() as u32) {
        let (shard, samples) = picks[pick as usize];
        let samples = samples.min(left);
        taken[shard as usize] += samples;
        left -= samples;
        if left == 0 {
            break;
        }
    }
    Ok(taken)
}

/// All picks as (shard, samples), in shard order.
fn picks(shard_sizes: &[u64], granularity: u64) -> Result<Vec<(u32, u64)>> {
    let count: u64 = shard_sizes.iter().map(|size| size.div_ceil(granularity)).sum();
    if count > u64::from(u32::MAX) {
        return Err(Error::EpochTooLong { samples: shard_sizes.iter().sum() });
    }
    let mut picks = Vec::with_capacity(count as usize);
    for (shard, &size) in shard_sizes.iter().enumerate() {
        let full =
            std::iter::repeat_n((shard as u32, granularity), size.div_ceil(granularity) as usize);
        picks.extend(full);
    }
    // The last pick of a shard has the rest. The reference finds it by its index, which for an
    // empty shard is the pick before (the very last one, if there is none before): that pick is
    // then made a full one.
    let mut end = 0;
    for &size in shard_sizes {
        let count = size.div_ceil(granularity);
        end += count as usize;
        let last = end.checked_sub(1).unwrap_or(picks.len() - 1);
        picks[last].1 = if count == 0 { granularity } else { size - (count - 1) * granularity };
    }
    Ok(picks)
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
/// [`Error::SamplingGranularity`] or [`Error::EpochTooLong`].
pub fn draw(streams: &[StreamDraw<'_>], rule: DrawRule) -> Result<Draw> {
    let mut rng = Generator::new(rule.sample_seed);
    let total: u64 = streams.iter().fold(0, |sum, stream| stream.choose.saturating_add(sum));
    if total > u64::from(u32::MAX) {
        return Err(Error::EpochTooLong { samples: total });
    }
    let mut units = Vec::new();
    let mut ids = IdList::new(total as usize);
    for stream in streams {
        let taken = samples_per_shard(
            stream.shard_sizes,
            stream.choose,
            rule.granularity,
            rule.shard_seed,
        )?;
        let mut offset = stream.first_id;
        for (&size, taken) in stream.shard_sizes.iter().zip(taken) {
            if size > 0 {
                draw_shard(offset, size, taken, &mut rng, &mut units, &mut ids);
            }
            offset += size;
        }
    }
    Ok(Draw { units, samples: ids.finish() })
}

/// Takes `taken` of the `size` samples from `offset` on: whole shards, then a sorted choice.
fn draw_shard(
    offset: u64,
    size: u64,
    taken: u64,
    rng: &mut Generator,
    units: &mut Vec<u32>,
    ids: &mut IdList,
) {
    let (repeats, rest) = (taken / size, taken % size);
    for _ in 0..repeats {
        units.push(size as u32);
        ids.push_range(offset as i64, size);
    }
    if rest > 0 {
        units.push(rest as u32);
        let mut chosen = rng.choice(size, rest);
        chosen.sort_unstable();
        ids.extend(chosen.into_iter().map(|sample| (offset + sample) as i64));
    }
}

/// Ids that are only listed once they stop being consecutive.
struct IdList {
    samples: Samples,
    /// Ids so far, and how many there will be.
    len: usize,
    total: usize,
}

impl IdList {
    const fn new(total: usize) -> Self {
        Self { samples: Samples::Whole { first: 0 }, len: 0, total }
    }

    fn push_range(&mut self, start: i64, count: u64) {
        if let Samples::Whole { first } = &mut self.samples {
            if self.len == 0 {
                *first = start;
            }
            if *first + self.len as i64 == start {
                self.len += count as usize;
                return;
            }
        }
        self.extend(start..start + count as i64);
    }

    fn extend(&mut self, more: impl Iterator<Item = i64>) {
        let (len, total) = (self.len, self.total);
        if let Samples::Whole { first } = self.samples {
            let mut ids = Vec::with_capacity(total);
            ids.extend(first..first + len as i64);
            self.samples = Samples::Listed(ids);
        }
        if let Samples::Listed(ids) = &mut self.samples {
            ids.extend(more);
            self.len = ids.len();
        }
    }

    fn finish(self) -> Samples {
        self.samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: DrawRule = DrawRule { granularity: 1, shard_seed: 9176, sample_seed: 9176 };

    fn stream(shard_sizes: &[u64], first_id: u64, choose: u64) -> StreamDraw<'_> {
        StreamDraw { shard_sizes, first_id, choose }
    }

    #[test]
    fn whole_streams_need_no_list() {
        let draw = draw(&[stream(&[3, 0, 2], 0, 5), stream(&[4], 5, 4)], RULE).unwrap();
        assert_eq!(draw.units, [3, 2, 4]);
        assert_eq!(draw.samples, Samples::Whole { first: 0 });
    }

    #[test]
    fn a_later_stream_alone_starts_at_its_own_id() {
        let draw = draw(&[stream(&[4, 4], 5, 8)], RULE).unwrap();
        assert_eq!(draw.samples, Samples::Whole { first: 5 });
        assert_eq!(draw.samples.id(3), 8);
    }

    #[test]
    fn repeats_are_listed_shard_by_shard_with_a_sorted_rest() {
        let draw = draw(&[stream(&[2], 10, 5)], RULE).unwrap();
        assert_eq!(draw.units, [2, 2, 1]);
        let Samples::Listed(ids) = draw.samples else { panic!("not listed") };
        assert_eq!(ids[..4], [10, 11, 10, 11]);
        assert!([10, 11].contains(&ids[4]));
    }

    #[test]
    fn a_skipped_stream_leaves_a_gap() {
        let draw =
            draw(&[stream(&[2], 0, 2), stream(&[9], 2, 0), stream(&[2], 11, 2)], RULE).unwrap();
        assert_eq!(draw.samples, Samples::Listed(vec![0, 1, 11, 12]));
    }

    #[test]
    fn an_empty_shard_fills_the_pick_before_it() {
        assert_eq!(picks(&[7, 0, 5], 3), Ok(vec![(0, 3), (0, 3), (0, 3), (2, 3), (2, 2)]));
        assert_eq!(picks(&[7, 5], 3), Ok(vec![(0, 3), (0, 3), (0, 1), (1, 3), (1, 2)]));
        // With none before, it is the very last pick, which the last shard sets right again.
        assert_eq!(picks(&[0, 4], 3), Ok(vec![(1, 3), (1, 1)]));
        assert_eq!(picks(&[0, 4, 0], 3), Ok(vec![(1, 3), (1, 3)]));
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
