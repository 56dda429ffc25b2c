//! How many samples each stream gives to an epoch.

use super::error::{Error, Result};
use super::rng::Generator;

/// How much of a stream an epoch takes. If one stream has a proportion, all must have one.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Weight {
    /// Every sample once, or a part in proportion to its size if an epoch size is given.
    #[default]
    Natural,
    /// A part of the epoch in proportion to the streams' numbers, which need not sum to 1.
    Proportion(f64),
    /// Every sample so many times.
    Repeat(f64),
    /// So many samples.
    Choose(u64),
}

/// What the order needs to know of a stream.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StreamShape {
    /// Samples in each shard, in the order of the index.
    pub shard_sizes: Vec<u64>,
    /// How much of it an epoch takes.
    pub weight: Weight,
}

/// The epoch as the weights divide it.
#[derive(Debug, Clone, PartialEq)]
pub struct Shares {
    /// Samples per epoch, over all streams.
    pub epoch_size: u64,
    /// Samples that each stream gives.
    pub choose: Vec<u64>,
    /// The part of the epoch that each stream gives, from 0 to 1.
    pub proportion: Vec<f64>,
}

/// Divides an epoch among streams. Source: the reference's `Stream.apply_weights`.
///
/// With proportions, or with an `epoch_size` and no weights at all, each stream gets
/// `int(epoch_size * proportion)` samples, and streams drawn with `seed` get the missing ones.
/// Otherwise the weights are absolute and fix the epoch's size. An `epoch_size` of 0 counts as
/// none, as in the reference.
///
/// # Errors
/// [`Error::NoStreams`], [`Error::EmptyStream`], [`Error::InvalidWeight`],
/// [`Error::WeightsTooLarge`], [`Error::MixedWeights`], [`Error::EpochSizeIsFixed`], [`Error::EmptyEpoch`] or
/// [`Error::EpochTooLong`].
pub fn divide(streams: &[StreamShape], epoch_size: Option<u64>, seed: u64) -> Result<Shares> {
    let epoch_size = epoch_size.filter(|&size| size > 0);
    let sizes = stream_sizes(streams)?;
    let total = sizes
        .iter()
        .try_fold(0_u64, |sum, &size| sum.checked_add(size))
        .ok_or(Error::EpochTooLong { samples: u64::MAX })?;
    check_samples(total)?;
    if let Some(weights) = relative_weights(streams, &sizes, epoch_size)? {
        return relative_shares(&weights, epoch_size.unwrap_or(total), seed);
    }
    if let Some(epoch_size) = epoch_size {
        let absolute = |stream: &StreamShape| stream.weight != Weight::Natural;
        let stream = streams.iter().position(absolute).unwrap_or(0);
        return Err(Error::EpochSizeIsFixed { epoch_size, stream });
    }
    absolute_shares(streams, &sizes)
}

/// Float64, in which shares and the distances of `py1e` are computed, holds so many exactly.
pub(super) fn check_samples(samples: u64) -> Result<()> {
    const MOST: u64 = 1 << 52;
    if samples > MOST { Err(Error::EpochTooLong { samples }) } else { Ok(()) }
}

/// Samples of each stream.
fn stream_sizes(streams: &[StreamShape]) -> Result<Vec<u64>> {
    if streams.is_empty() {
        return Err(Error::NoStreams);
    }
    let size = |(index, stream): (usize, &StreamShape)| {
        let sizes = &stream.shard_sizes;
        match sizes.iter().try_fold(0_u64, |sum, &size| sum.checked_add(size)) {
            None => Err(Error::EpochTooLong { samples: u64::MAX }),
            Some(0) => Err(Error::EmptyStream { stream: index }),
            Some(size) => Ok(size),
        }
    };
    streams.iter().enumerate().map(size).collect()
}

/// The weights that divide an epoch of a given size; `None` if they are absolute.
fn relative_weights(
    streams: &[StreamShape],
    sizes: &[u64],
    epoch_size: Option<u64>,
) -> Result<Option<Vec<f64>>> {
    for (stream, shape) in streams.iter().enumerate() {
        let (weight, value) = match shape.weight {
            Weight::Proportion(value) => ("proportion", value),
            Weight::Repeat(value) => ("repeat", value),
            Weight::Natural | Weight::Choose(_) => continue,
        };
        if !(value.is_finite() && value >= 0.0) {
            return Err(Error::InvalidWeight { stream, weight, value });
        }
    }
    let proportion = |stream: &StreamShape| match stream.weight {
        Weight::Proportion(value) => Some(value),
        _ => None,
    };
    if streams.iter().any(|stream| proportion(stream).is_some()) {
        let weights: Option<Vec<f64>> = streams.iter().map(proportion).collect();
        return match weights {
            Some(weights) => Ok(Some(weights)),
            None => {
                let lacking = streams.iter().position(|stream| proportion(stream).is_none());
                Err(Error::MixedWeights { stream: lacking.unwrap_or(0) })
            }
        };
    }
    let unweighted = streams.iter().all(|stream| stream.weight == Weight::Natural);
    if unweighted && epoch_size.is_some() {
        return Ok(Some(sizes.iter().map(|&size| size as f64).collect()));
    }
    Ok(None)
}

fn relative_shares(weights: &[f64], epoch_size: u64, seed: u64) -> Result<Shares> {
    let sum = pairwise_sum(weights);
    if sum == 0.0 {
        return Err(Error::EmptyEpoch);
    }
    if !sum.is_finite() {
        return Err(Error::WeightsTooLarge);
    }
    check_samples(epoch_size)?;
    let proportion: Vec<f64> = weights.iter().map(|weight| weight / sum).collect();
    let mut choose: Vec<u64> =
        proportion.iter().map(|part| (epoch_size as f64 * part) as u64).collect();
    // Rounding may make the parts of very many samples more than the whole, or too few for one more
    // sample of each stream to fill it up.
    let shortfall = epoch_size
        .checked_sub(choose.iter().sum())
        .filter(|missing| *missing <= choose.len() as u64)
        .ok_or(Error::EpochTooLong { samples: epoch_size })?;
    for stream in Generator::new(seed.into()).choice(choose.len() as u64, shortfall) {
        choose[stream as usize] += 1;
    }
    Ok(Shares { epoch_size, choose, proportion })
}

fn absolute_shares(streams: &[StreamShape], sizes: &[u64]) -> Result<Shares> {
    let share = |(stream, &size): (&StreamShape, &u64)| match stream.weight {
        Weight::Repeat(times) => (times * size as f64) as u64,
        Weight::Choose(samples) => samples,
        Weight::Natural | Weight::Proportion(_) => size,
    };
    let choose: Vec<u64> = streams.iter().zip(sizes).map(share).collect();
    let epoch_size = choose
        .iter()
        .try_fold(0_u64, |sum, &samples| sum.checked_add(samples))
        .ok_or(Error::EpochTooLong { samples: u64::MAX })?;
    if epoch_size == 0 {
        return Err(Error::EmptyEpoch);
    }
    check_samples(epoch_size)?;
    let proportion = choose.iter().map(|&samples| samples as f64 / epoch_size as f64).collect();
    Ok(Shares { epoch_size, choose, proportion })
}

/// The sum of float64 values in the order in which numpy adds them, which decides the last bits.
/// Source: `pairwise_sum` in numpy's `loops_utils.h`: fewer than 8 values from the left, up to
/// 128 in eight columns, more in two halves.
fn pairwise_sum(values: &[f64]) -> f64 {
    if values.len() > 128 {
        let half = values.len() / 2;
        let (left, right) = values.split_at(half - half % 8);
        return pairwise_sum(left) + pairwise_sum(right);
    }
    let mut rows = values.chunks_exact(8);
    let Some(first) = rows.next() else {
        return values.iter().fold(0.0, |sum, value| sum + value);
    };
    let mut columns: [f64; 8] = std::array::from_fn(|i| first[i]);
    for row in rows.by_ref() {
        for (column, value) in columns.iter_mut().zip(row) {
            *column += value;
        }
    }
    let [a, b, c, d, e, f, g, h] = columns;
    let sum = ((a + b) + (c + d)) + ((e + f) + (g + h));
    rows.remainder().iter().fold(sum, |sum, value| sum + value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streams(weights: &[Weight]) -> Vec<StreamShape> {
        weights.iter().map(|&weight| StreamShape { shard_sizes: vec![60, 0, 40], weight }).collect()
    }

    fn message(weights: &[Weight], epoch_size: Option<u64>) -> String {
        divide(&streams(weights), epoch_size, 0).unwrap_err().to_string()
    }

    #[test]
    fn absolute_weights_fix_the_epoch() {
        let weights = [Weight::Natural, Weight::Repeat(1.29), Weight::Choose(7)];
        let shares = divide(&streams(&weights), None, 0).unwrap();
        assert_eq!((shares.epoch_size, &shares.choose[..]), (236, &[100, 129, 7][..]));
        assert_eq!(shares.proportion[2], 7.0 / 236.0);
    }

    #[test]
    fn the_shortfall_goes_to_drawn_streams() {
        let weights = [Weight::Proportion(1.0); 3];
        let shares = divide(&streams(&weights), Some(11), 9176).unwrap();
        assert_eq!(shares.choose.iter().sum::<u64>(), 11);
        assert!(shares.choose.iter().all(|c| (3..=4).contains(c)));
        let drawn = Generator::new(9176).choice(3, 2);
        assert!(drawn.iter().all(|&stream| shares.choose[stream as usize] == 4));
    }

    #[test]
    fn an_epoch_size_of_zero_counts_as_none() {
        let natural = streams(&[Weight::Natural]);
        assert_eq!(divide(&natural, Some(0), 0), divide(&natural, None, 0));
    }

    #[test]
    fn eight_and_more_values_are_summed_in_columns() {
        // Values whose plain sum differs from numpy's in the last bit.
        let tenth = [0.1_f64; 9];
        let columns = ((0.1 + 0.1) + (0.1 + 0.1)) + ((0.1 + 0.1) + (0.1 + 0.1)) + 0.1;
        assert_eq!(pairwise_sum(&tenth), columns);
        assert_ne!(pairwise_sum(&tenth), tenth.iter().sum::<f64>());
        assert_eq!(pairwise_sum(&tenth[..7]), tenth[..7].iter().fold(0.0, |s, v| s + v));
    }

    #[test]
    fn more_than_128_values_are_split_at_a_multiple_of_eight() {
        let values: Vec<f64> = (0..135).map(|i| 1.0 / f64::from(i + 1)).collect();
        let halves = pairwise_sum(&values[..64]) + pairwise_sum(&values[64..]);
        assert_eq!(pairwise_sum(&values), halves);
        assert_ne!(halves, values.iter().fold(0.0, |sum, value| sum + value));
    }

    #[test]
    fn bad_weights_are_named() {
        assert_eq!(
            message(&[Weight::Natural, Weight::Repeat(-1.0)], None),
            "stream 1 has repeat -1; use a finite number of at least 0"
        );
        assert_eq!(
            message(&[Weight::Proportion(f64::NAN)], None),
            "stream 0 has proportion NaN; use a finite number of at least 0"
        );
        assert_eq!(
            message(&[Weight::Proportion(1.0), Weight::Natural], None),
            "stream 1 has no proportion while others have one; give every stream a proportion, or none"
        );
        assert_eq!(
            message(&[Weight::Natural, Weight::Choose(4)], Some(5)),
            "epoch_size 5 was given, but stream 1 sets repeat or choose, which fix the size; \
             remove epoch_size, or give proportions instead"
        );
        let nothing =
            "the stream weights choose no samples; give at least one stream a weight above 0";
        assert_eq!(message(&[Weight::Proportion(0.0)], None), nothing);
        assert_eq!(message(&[Weight::Choose(0)], None), nothing);
        assert_eq!(
            divide(&[], None, 0).unwrap_err().to_string(),
            "no streams were given; name at least one stream with at least one sample"
        );
        let empty = StreamShape { shard_sizes: vec![0], weight: Weight::Natural };
        assert_eq!(
            divide(&[empty], None, 0).unwrap_err().to_string(),
            "stream 0 contains no samples; remove it or write samples to it"
        );
        let huge = StreamShape { shard_sizes: vec![u64::MAX, 1], weight: Weight::Natural };
        assert!(matches!(divide(&[huge], None, 0), Err(Error::EpochTooLong { .. })));
    }
}
