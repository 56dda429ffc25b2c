//! What a user can choose about the order, under the reference's names and with its defaults.

use std::fmt;
use std::str::FromStr;

use super::error::{Error, Result};

/// Declares an enum whose values have the reference's names.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident, $option:literal, $expected:literal,
     { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// Every one that there is.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The reference's name.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(given: &str) -> Result<Self> {
                match given {
                    $($text => Ok(Self::$variant),)*
                    _ => Err(Error::UnknownName {
                        option: $option,
                        given: given.to_owned(),
                        expected: $expected,
                    }),
                }
            }
        }
    };
}

named! {
    /// How samples are shuffled within an epoch. All but [`Naive`](Self::Naive) keep the samples
    /// of a shard close together, so that few shards are needed at a time.
    ShuffleAlgo, "shuffle_algo", "naive, py1b, py1br, py1e, py1s, py2s", {
        /// One permutation of everything: best quality, needs all shards at once.
        Naive = "naive",
        /// Whole shards, then blocks of a fixed size (removed from the reference in 0.11).
        Py1b = "py1b",
        /// Whole shards, then blocks of a random size at random offsets.
        Py1br = "py1br",
        /// Whole shards, then every sample moves by a random distance.
        #[default]
        Py1e = "py1e",
        /// Whole shards, then within each part of a shard.
        Py1s = "py1s",
        /// As `py1s`, with the shards' samples shuffled before they are divided.
        Py2s = "py2s",
    }
}

named! {
    /// How samples are divided among nodes, ranks and workers.
    PartitionAlgo, "partition_algo", "orig, relaxed", {
        /// Canonical and physical node counts divide one another.
        Orig = "orig",
        /// As `orig`, but a resumed run may use any number of nodes.
        #[default]
        Relaxed = "relaxed",
    }
}

named! {
    /// Whether a stream that is not taken whole is drawn anew for each epoch.
    SamplingMethod, "sampling_method", "balanced, fixed", {
        /// Another draw for each epoch.
        #[default]
        Balanced = "balanced",
        /// The same draw for every epoch.
        Fixed = "fixed",
    }
}

named! {
    /// How streams are mixed into batches.
    BatchingMethod, "batching_method", "random, stratified, per_stream, device_per_stream", {
        /// All streams are shuffled together.
        #[default]
        Random = "random",
        /// Every global batch holds the streams in their proportions.
        Stratified = "stratified",
        /// A global batch comes from one stream.
        PerStream = "per_stream",
        /// A device batch comes from one stream.
        DevicePerStream = "device_per_stream",
    }
}

/// Everything that, beside the dataset and the world, decides the order of samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderOptions {
    /// Samples per epoch; `None` (or 0, as in the reference) takes what the weights say.
    pub epoch_size: Option<u64>,
    /// Whether every epoch draws its samples anew.
    pub sampling_method: SamplingMethod,
    /// Samples taken at a time from a shard of a stream that is not taken whole.
    pub sampling_granularity: u64,
    /// How samples are divided among nodes.
    pub partition_algo: PartitionAlgo,
    /// Buckets of the sample space that fix the order whatever the node count is. `None`: 64 per
    /// node for `py1s` and `py2s`, else one per node.
    pub num_canonical_nodes: Option<u64>,
    /// Samples per device and step. Needed to iterate, not to look samples up.
    pub batch_size: Option<usize>,
    /// Whether to shuffle at all.
    pub shuffle: bool,
    /// How to shuffle.
    pub shuffle_algo: ShuffleAlgo,
    /// Seed of every draw. The reference takes any natural number; a run whose seed does not fit into
    /// 64 bits cannot be continued here.
    pub shuffle_seed: u64,
    /// Samples over which the block algorithms mix. `None`: 4,000,000 per canonical node count,
    /// at least 262,144.
    pub shuffle_block_size: Option<u64>,
    /// How streams are mixed into batches.
    pub batching_method: BatchingMethod,
    /// Consecutive ranks that get the same samples (tensor or sequence parallelism).
    pub replication: Option<usize>,
}

impl Default for OrderOptions {
    fn default() -> Self {
        Self {
            epoch_size: None,
            sampling_method: SamplingMethod::default(),
            sampling_granularity: 1,
            partition_algo: PartitionAlgo::default(),
            num_canonical_nodes: None,
            batch_size: None,
            shuffle: false,
            shuffle_algo: ShuffleAlgo::default(),
            shuffle_seed: 9176,
            shuffle_block_size: None,
            batching_method: BatchingMethod::default(),
            replication: None,
        }
    }
}

impl OrderOptions {
    /// The number of canonical nodes where the user gave none.
    pub(super) fn default_canonical_nodes(&self, nodes: usize) -> u64 {
        match self.shuffle_algo {
            ShuffleAlgo::Py1s | ShuffleAlgo::Py2s => 64 * nodes as u64,
            _ => nodes as u64,
        }
    }

    /// The shuffle block size in samples, which depends on the canonical nodes in use.
    pub(super) fn block_size(&self, canonical_nodes: u64) -> u64 {
        self.shuffle_block_size.unwrap_or_else(|| (4_000_000 / canonical_nodes).max(1 << 18))
    }
}

/// Reads an epoch size as the reference writes it: `"1000"`, `"1k"`, `"1.5m"`. The suffixes
/// `k m b t` are decimal (10^3, 10^6, 10^9, 10^12) and take fractions; a bare number does not.
///
/// # Errors
/// [`Error::EpochSize`] for anything else.
pub fn parse_epoch_size(given: &str) -> Result<u64> {
    let error = || Error::EpochSize { given: given.to_owned() };
    let text = given.trim().to_ascii_lowercase();
    let unit: u64 = match text.chars().last() {
        Some('k') => 1_000,
        Some('m') => 1_000_000,
        Some('b') => 1_000_000_000,
        Some('t') => 1_000_000_000_000,
        Some(_) => return text.parse().map_err(|_| error()),
        None => return Err(error()),
    };
    let number: f64 = text[..text.len() - 1].parse().map_err(|_| error())?;
    let size = number * unit as f64;
    if !(0.0..u64::MAX as f64).contains(&size) {
        return Err(error());
    }
    Ok(size as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written_as_the_reference_spells_them() {
        for name in ["naive", "py1b", "py1br", "py1e", "py1s", "py2s"] {
            assert_eq!(name.parse::<ShuffleAlgo>().unwrap().to_string(), name);
        }
        for name in ["random", "stratified", "per_stream", "device_per_stream"] {
            assert_eq!(name.parse::<BatchingMethod>().unwrap().to_string(), name);
        }
        for name in ["orig", "relaxed"] {
            assert_eq!(name.parse::<PartitionAlgo>().unwrap().to_string(), name);
        }
        for name in ["balanced", "fixed"] {
            assert_eq!(name.parse::<SamplingMethod>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn unknown_names_list_the_known_ones() {
        assert_eq!(
            "py3e".parse::<ShuffleAlgo>().unwrap_err().to_string(),
            "unknown shuffle_algo \"py3e\"; use one of naive, py1b, py1br, py1e, py1s, py2s"
        );
    }

    #[test]
    fn epoch_sizes_are_decimal() {
        assert_eq!(parse_epoch_size("12"), Ok(12));
        assert_eq!(parse_epoch_size("1k"), Ok(1_000));
        assert_eq!(parse_epoch_size("1.5M"), Ok(1_500_000));
        assert_eq!(parse_epoch_size("2b"), Ok(2_000_000_000));
        for bad in ["", "k", "1.5", "-1", "-1k", "1kb", "nank", "1e30t", "é"] {
            assert!(parse_epoch_size(bad).is_err(), "{bad}");
        }
        assert_eq!(
            parse_epoch_size("1kb").unwrap_err().to_string(),
            "epoch_size \"1kb\" is not a sample count; write a whole number, \
             or a number followed by k, m, b or t (thousands, millions, ...)"
        );
    }

    #[test]
    fn defaults_follow_the_canonical_nodes() {
        let py1e = OrderOptions::default();
        assert_eq!(py1e.default_canonical_nodes(3), 3);
        assert_eq!((py1e.block_size(1), py1e.block_size(64)), (4_000_000, 262_144));
        let py2s = OrderOptions { shuffle_algo: ShuffleAlgo::Py2s, ..OrderOptions::default() };
        assert_eq!(py2s.default_canonical_nodes(3), 192);
    }
}
