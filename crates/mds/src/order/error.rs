//! Why an order could not be computed: one variant for each thing that a caller can change.
//!
//! Every text reads `WHAT; REMEDY`, with a single semicolon, as the crate's own error does.

use super::options::ShuffleAlgo;

/// Result of the order stages.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A set-up from which no sample order can be computed. Every message names the value that is
/// wrong and what to change.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name of an algorithm or method is not one of the reference's.
    #[error("unknown {option} {given:?}; use one of {expected}")]
    UnknownName {
        /// The option that was being read.
        option: &'static str,
        /// What was given.
        given: String,
        /// The names that are accepted, separated by commas.
        expected: &'static str,
    },
    /// An epoch size is not a number with an optional `k`, `m`, `b` or `t`.
    #[error(
        "epoch_size {given:?} is not a sample count; write a whole number, \
         or a number followed by k, m, b or t (thousands, millions, ...)"
    )]
    EpochSize {
        /// What was given.
        given: String,
    },
    /// A world without nodes, ranks or workers.
    #[error(
        "a world of {nodes} nodes x {ranks_per_node} ranks x {workers_per_rank} workers \
         serves no samples; each of the three must be at least 1"
    )]
    EmptyWorld {
        /// Number of nodes.
        nodes: usize,
        /// Ranks on each node.
        ranks_per_node: usize,
        /// Workers of each rank.
        workers_per_rank: usize,
    },
    /// More ranks or workers than can be numbered.
    #[error(
        "a world of {nodes} nodes x {ranks_per_node} ranks x {workers_per_rank} workers \
         is too large; give the real numbers, whose product must be less than 4294967296 (2^32)"
    )]
    WorldTooLarge {
        /// Number of nodes.
        nodes: usize,
        /// Ranks on each node.
        ranks_per_node: usize,
        /// Workers of each rank.
        workers_per_rank: usize,
    },
    /// The world size is not a multiple of the ranks on a node.
    #[error(
        "{ranks} ranks cannot be spread over nodes of {ranks_per_node} ranks; \
         start the same number of ranks on every node (WORLD_SIZE must be a multiple of LOCAL_WORLD_SIZE)"
    )]
    UnevenWorld {
        /// Ranks in the whole world.
        ranks: usize,
        /// Ranks on each node.
        ranks_per_node: usize,
    },
    /// A launcher's environment variable does not hold a number.
    #[error(
        "environment variable {name} is {given:?}, not a number; unset it or let the launcher set it"
    )]
    EnvironmentVariable {
        /// Name of the variable.
        name: &'static str,
        /// Its value.
        given: String,
    },
    /// A rank number outside of the world.
    #[error("rank {rank} does not exist in a world of {ranks} ranks; ranks are numbered from 0")]
    RankOutOfRange {
        /// The rank asked for.
        rank: usize,
        /// Ranks in the whole world.
        ranks: usize,
    },
    /// Replication does not divide the world.
    #[error(
        "replication {replication} does not divide the world of {ranks} ranks; \
         choose a divisor of {ranks}"
    )]
    Replication {
        /// Consecutive ranks that were to share their samples.
        replication: usize,
        /// Ranks in the whole world.
        ranks: usize,
    },
    /// There is nothing to order.
    #[error("no streams were given; name at least one stream with at least one sample")]
    NoStreams,
    /// A stream has no samples.
    #[error("stream {stream} contains no samples; remove it or write samples to it")]
    EmptyStream {
        /// Position of the stream in the list.
        stream: usize,
    },
    /// A weight is negative or not a number.
    #[error("stream {stream} has {weight} {value}; use a finite number of at least 0")]
    InvalidWeight {
        /// Position of the stream in the list.
        stream: usize,
        /// `proportion` or `repeat`.
        weight: &'static str,
        /// What was given.
        value: f64,
    },
    /// The sum of the proportions is not a number.
    #[error(
        "the streams' proportions are too large to be added; divide all of them by the largest"
    )]
    WeightsTooLarge,
    /// Some streams have a proportion, others have not.
    #[error(
        "stream {stream} has no proportion while others have one; \
         give every stream a proportion, or none"
    )]
    MixedWeights {
        /// Position of the first stream that differs.
        stream: usize,
    },
    /// An epoch size was given although the weights already fix it.
    #[error(
        "epoch_size {epoch_size} was given, but stream {stream} sets repeat or choose, which fix the size; \
         remove epoch_size, or give proportions instead"
    )]
    EpochSizeIsFixed {
        /// What was given.
        epoch_size: u64,
        /// Position of the first stream with an absolute weight.
        stream: usize,
    },
    /// The weights choose no samples at all.
    #[error("the stream weights choose no samples; give at least one stream a weight above 0")]
    EmptyEpoch,
    /// More samples than the shuffles' arithmetic in float64 holds.
    #[error(
        "an epoch of {samples} samples is too long to be ordered; \
         set epoch_size to at most 4503599627370496 (2^52) samples"
    )]
    EpochTooLong {
        /// Samples of the epoch.
        samples: u64,
    },
    /// `naive` needs the whole order in memory.
    #[error(
        "naive would shuffle all {samples} samples in memory at once; use py1e, or another \
         shuffle_algo that works in parts, or set epoch_size to less than 4294967296 (2^32) samples"
    )]
    NaiveTooLong {
        /// Samples of the epoch.
        samples: u64,
    },
    /// Repeats and padding make the order too long to be counted.
    #[error(
        "repeats and padding make an order of {ids} ids, more than can be counted; \
         lower batch_size, num_canonical_nodes or the number of workers"
    )]
    OrderTooLong {
        /// Ids that the order would have.
        ids: u128,
    },
    /// One batch of every rank is more than anybody can hold.
    #[error(
        "a global batch of {ids} samples is too large; \
         lower batch_size or the ranks, so that their product is at most {most}"
    )]
    GlobalBatchTooLarge {
        /// Samples per batch times ranks.
        ids: u128,
        /// The most that there may be.
        most: u128,
    },
    /// More canonical nodes than can be kept apart.
    #[error("num_canonical_nodes {canonical} is too large; use at most {most}")]
    TooManyCanonicalNodes {
        /// Canonical nodes.
        canonical: u64,
        /// The most that there may be.
        most: u64,
    },
    /// A stream that is not taken whole has too many samples to choose among one by one.
    #[error(
        "{picks} picks of {granularity} samples are too many to choose among; \
         raise sampling_granularity to at least {}",
        .picks.saturating_mul(*.granularity) / u64::from(u32::MAX) + 1
    )]
    TooManyPicks {
        /// Picks of the stream.
        picks: u64,
        /// Samples of a pick.
        granularity: u64,
    },
    /// Shards are taken so often that they make too many parts.
    #[error(
        "the epoch takes {parts} parts of shards, more than {most}, which can be kept in memory; \
         lower repeat, choose or epoch_size"
    )]
    TooManyParts {
        /// Parts that the epoch takes.
        parts: u64,
        /// The most that there may be.
        most: u64,
    },
    /// A sampling granularity of zero.
    #[error("sampling_granularity is 0; take at least 1 sample at a time")]
    SamplingGranularity,
    /// The batch size is missing or zero.
    #[error(
        "batch_size is not set; set it to the samples per device and step, at least 1, to iterate"
    )]
    BatchSize,
    /// No canonical nodes.
    #[error("num_canonical_nodes is 0; use at least 1, or leave it out")]
    NoCanonicalNodes,
    /// Neither of the canonical and the physical node counts divides the other.
    #[error(
        "num_canonical_nodes {canonical} and the {nodes} physical nodes do not divide one another; \
         make one a multiple of the other{}",
        if *.resumed {
            " (the relaxed partition takes any number, when the checkpoint holds initial_physical_nodes)"
        } else {
            ""
        }
    )]
    NodesDoNotDivide {
        /// Canonical nodes.
        canonical: u64,
        /// Physical nodes, after replication.
        nodes: usize,
        /// Whether it continues a run that was started on another number of nodes.
        resumed: bool,
    },
    /// The relaxed partition cannot regroup the global batch.
    #[error(
        "the global batch of {global_batch} samples is not a multiple of the {ranks} ranks \
         that the run was started with; change batch_size so that it is"
    )]
    GlobalBatchDoesNotDivide {
        /// Samples of a global batch in the new world.
        global_batch: u64,
        /// Nodes of the first run times ranks per node.
        ranks: u64,
    },
    /// The resumption offset lies beyond the epoch's end.
    #[error(
        "cannot resume at sample {sample_in_epoch} of an epoch that serves {served}; \
         the checkpoint belongs to another dataset or to other weights"
    )]
    OffsetBeyondEpoch {
        /// Samples already seen.
        sample_in_epoch: u64,
        /// Samples that the epoch serves, repeats included.
        served: u64,
    },
    /// Too few samples to fill the physical nodes from fewer canonical nodes.
    #[error(
        "{samples} samples in {canonical} canonical nodes are too few to fill {nodes} physical nodes; \
         use fewer nodes, or set num_canonical_nodes to a multiple of {nodes}"
    )]
    TooFewSamples {
        /// Samples to partition.
        samples: u64,
        /// Canonical nodes.
        canonical: u64,
        /// Physical nodes, after replication.
        nodes: usize,
    },
    /// The shuffle block is too small for the algorithm.
    #[error(
        "shuffle_block_size {block} is too small for {algo}; use at least {least}{}",
        match .stream {
            Some(stream) => format!(
                " (this is the part of stream {stream}: raise the whole block or the stream's proportion)"
            ),
            None => String::new(),
        }
    )]
    ShuffleBlock {
        /// The algorithm.
        algo: ShuffleAlgo,
        /// The block size that it was given, in samples.
        block: u64,
        /// The smallest block size that it takes.
        least: u64,
        /// The stream whose part of the block this is, if each stream is shuffled by itself.
        stream: Option<usize>,
    },
    /// `py1e` has a canonical node without samples.
    #[error(
        "py1e cannot shuffle {samples} samples in {canonical} canonical nodes, one of which stays empty; \
         set num_canonical_nodes to at most {samples}, or use py1s"
    )]
    EmptyCanonicalNode {
        /// Samples to shuffle.
        samples: u64,
        /// Canonical nodes.
        canonical: u64,
    },
    /// A stream has no sample in a stratified batch.
    #[error(
        "stream {stream} has no sample in a global batch of {global_batch} (its proportion is {proportion}); \
         raise batch_size, raise the stream's proportion or remove the stream"
    )]
    StreamShare {
        /// Position of the stream in the list.
        stream: usize,
        /// Its part of the epoch, from 0 to 1.
        proportion: f64,
        /// Samples of a global batch.
        global_batch: u64,
    },
    /// A stream does not fill a single batch.
    #[error(
        "stream {stream} has too few samples to fill one batch of {batch}; \
         lower batch_size, choose more of the stream or remove it"
    )]
    StreamTooSmall {
        /// Position of the stream in the list.
        stream: usize,
        /// Samples of the batch that was to be filled.
        batch: u64,
    },
    /// `device_per_stream` deals whole canonical nodes to physical nodes.
    #[error(
        "batching_method device_per_stream needs num_canonical_nodes ({canonical}) to be a multiple \
         of the {nodes} physical nodes; change num_canonical_nodes"
    )]
    DeviceCanonicalNodes {
        /// Canonical nodes.
        canonical: u64,
        /// Physical nodes, after replication.
        nodes: usize,
    },
}

impl From<Error> for crate::Error {
    /// The same text as an invalid argument.
    fn from(error: Error) -> Self {
        let text = error.to_string();
        let (what, remedy) = text.split_once("; ").unwrap_or((&text, "check the options"));
        Self::new(crate::ErrorKind::InvalidArgument, what, remedy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crate_s_error_says_the_same() {
        let error = Error::BatchSize;
        let text = error.to_string();
        let error = crate::Error::from(error);
        assert_eq!(error.kind(), crate::ErrorKind::InvalidArgument);
        assert_eq!(error.to_string(), text);
        assert_eq!(
            error.remedy(),
            "set it to the samples per device and step, at least 1, to iterate"
        );
    }

    #[test]
    fn parts_of_a_shuffle_block_name_their_stream() {
        let error =
            Error::ShuffleBlock { algo: ShuffleAlgo::Py1e, block: 0, least: 1, stream: Some(2) };
        assert_eq!(
            error.to_string(),
            "shuffle_block_size 0 is too small for py1e; use at least 1 \
             (this is the part of stream 2: raise the whole block or the stream's proportion)"
        );
    }
}
