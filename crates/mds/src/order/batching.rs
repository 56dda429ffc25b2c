//! How streams are mixed into batches.

use super::epoch::EpochOrder;
use super::error::Result;
use super::options::OrderOptions;
use super::state::State;
use super::weights::Shares;
use super::world::World;

/// Everything that decides the order of one epoch.
#[derive(Debug)]
pub(super) struct Run<'a> {
    /// Samples in each shard of each stream.
    pub(super) shards: &'a [Vec<u64>],
    pub(super) shares: &'a Shares,
    pub(super) options: &'a OrderOptions,
    /// The world after replication.
    pub(super) world: World,
    /// Samples per batch of a rank.
    pub(super) batch_size: usize,
    /// Where the epoch is entered.
    pub(super) state: State,
}

pub(super) fn order(run: &Run<'_>) -> Result<EpochOrder> {
    Ok(EpochOrder::deal(&[], run.world, run.batch_size))
}
