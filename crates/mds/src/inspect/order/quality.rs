//! How well an order is shuffled, in numbers.
//!
//! # The reference's number
//! The samples of the epoch are written down in the order of serving (batch, worker, node, rank,
//! position), without padding. `d` are the distances `|x[i+1] - x[i]|` of neighbours, once of their
//! sample numbers and once of the numbers of their shards. Each has an entropy
//! `H = -sum over v of p(v) log2 p(v)`, with `p(v)` the part of the distances that equal `v`, in
//! bits. The quality is the harmonic mean `2 Hs Hp / (Hs + Hp)` of the samples' `Hs` and the
//! shards' `Hp`; 0 if both are 0, as without a shuffle of one shard.
//!
//! Source: `simulation/core/shuffle_quality.py` of mosaicml-streaming 0.13.0, which computes it for
//! epoch 0 of one stream with shards of an average size and takes an epoch of at most 100 million
//! samples. Here it is the real order, and of a longer epoch the first 100 million samples.
//!
//! No entropy exceeds `log2` of the number of distances, nor of the number of different values.

/// Samples that are measured, from the first on.
const MEASURED: usize = 100_000_000;

/// Takes the samples of an epoch in the order of serving.
#[derive(Debug)]
pub(super) struct Meter {
    /// Distances of sample numbers; from 2^32 on they count as equal.
    distances: Vec<u32>,
    /// How many neighbours lie so many shards apart.
    shard_distances: Vec<u64>,
    last: Option<(u64, u32)>,
}

/// What is known at the end.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub(super) struct Quality {
    /// Samples that were measured.
    pub(super) measured_samples: u64,
    /// The reference's number, and the two that it is the mean of, in bits.
    pub(super) entropy_bits: f64,
    pub(super) sample_entropy_bits: f64,
    pub(super) shard_entropy_bits: f64,
    /// What the two cannot exceed.
    pub(super) sample_entropy_most_bits: f64,
    pub(super) shard_entropy_most_bits: f64,
    /// How far apart in the dataset samples are that are served one after the other.
    pub(super) distance: Distance,
}

/// Distances in samples.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize)]
pub(super) struct Distance {
    pub(super) mean: f64,
    pub(super) p10: u32,
    pub(super) p50: u32,
    pub(super) p90: u32,
    pub(super) max: u32,
}

impl Meter {
    /// For shards numbered from 0 to `shards`, and an epoch of about `samples`.
    pub(super) fn new(shards: usize, samples: u64) -> Self {
        let room = usize::try_from(samples).unwrap_or(MEASURED).min(MEASURED);
        Self {
            distances: Vec::with_capacity(room),
            shard_distances: vec![0; shards.max(1)],
            last: None,
        }
    }

    /// The next sample, and its shard.
    pub(super) fn take(&mut self, sample: u64, shard: u32) {
        if self.distances.len() + 1 >= MEASURED {
            return;
        }
        if let Some((last, last_shard)) = self.last {
            let distance = u32::try_from(sample.abs_diff(last)).unwrap_or(u32::MAX);
            self.distances.push(distance);
            self.shard_distances[shard.abs_diff(last_shard) as usize] += 1;
        }
        self.last = Some((sample, shard));
    }

    /// The quality of an order over `samples` samples in the dataset.
    pub(super) fn finish(mut self, samples: u64) -> Quality {
        self.distances.sort_unstable();
        let count = self.distances.len() as u64;
        let runs = self.distances.chunk_by(|a, b| a == b).map(|run| run.len() as u64);
        let sample_entropy_bits = entropy(runs, count);
        let shards = self.shard_distances.len() as u64;
        let shard_entropy_bits = entropy(self.shard_distances.iter().copied(), count);
        let sum = sample_entropy_bits + shard_entropy_bits;
        let most = |values: u64| (count.min(values).max(1) as f64).log2();
        Quality {
            measured_samples: count + u64::from(self.last.is_some()),
            entropy_bits: if sum > 0.0 {
                2.0 * sample_entropy_bits * shard_entropy_bits / sum
            } else {
                0.0
            },
            sample_entropy_bits,
            shard_entropy_bits,
            sample_entropy_most_bits: most(samples),
            shard_entropy_most_bits: most(shards),
            distance: distance(&self.distances),
        }
    }
}

/// The entropy of values that occur so often among `count`, in bits.
fn entropy(occurrences: impl Iterator<Item = u64>, count: u64) -> f64 {
    let count = count as f64;
    let each = occurrences.filter(|n| *n > 0).map(|n| n as f64 / count).map(|p| p * p.log2());
    let sum: f64 = each.sum();
    // A sum of zero has no sign.
    if sum == 0.0 { 0.0 } else { -sum }
}

/// Mean and percentiles (the smallest value that so many do not exceed) of sorted distances.
fn distance(sorted: &[u32]) -> Distance {
    let Some(&max) = sorted.last() else { return Distance::default() };
    let sum: u64 = sorted.iter().map(|d| u64::from(*d)).sum();
    let percentile = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1];
    Distance {
        mean: sum as f64 / sorted.len() as f64,
        p10: percentile(10),
        p50: percentile(50),
        p90: percentile(90),
        max,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quality(samples: &[u64]) -> Quality {
        let mut meter = Meter::new(3, 9);
        for &sample in samples {
            meter.take(sample, (sample / 3) as u32);
        }
        meter.finish(9)
    }

    #[test]
    fn entropies_are_those_of_the_distances() {
        // Distances 3 3 5 3; of shards 1 1 2 1.
        let quality = quality(&[0, 3, 6, 1, 4]);
        let bits = 0.75 * (4.0_f64 / 3.0).log2() + 0.25 * 2.0;
        assert!((quality.sample_entropy_bits - bits).abs() < 1e-12);
        assert!((quality.shard_entropy_bits - bits).abs() < 1e-12);
        assert!((quality.entropy_bits - bits).abs() < 1e-12);
        assert_eq!(quality.measured_samples, 5);
        assert_eq!(quality.sample_entropy_most_bits, 2.0);
        assert_eq!(quality.shard_entropy_most_bits, 3.0_f64.log2());
        let distance = Distance { mean: 3.5, p10: 3, p50: 3, p90: 5, max: 5 };
        assert_eq!(quality.distance, distance);
    }

    #[test]
    fn no_shuffle_and_no_samples_have_no_entropy() {
        assert_eq!(quality(&[0, 1, 2]).entropy_bits, 0.0);
        let nothing = quality(&[]);
        assert_eq!((nothing.measured_samples, nothing.entropy_bits), (0, 0.0));
        assert_eq!(nothing.distance, Distance::default());
        assert_eq!(quality(&[4]).measured_samples, 1);
    }
}
