//! What the tests of the order share.

#![allow(dead_code, reason = "each test file uses its own part")]

use mds::order::{EpochOrder, ShuffleAlgo};

/// No shuffle, and all there are.
pub(crate) fn shuffles() -> impl Iterator<Item = Option<ShuffleAlgo>> + Clone {
    [None].into_iter().chain(ShuffleAlgo::ALL.iter().copied().map(Some))
}

/// The batches that a rank of the order is served: without padding, and without those that are all
/// padding.
pub(crate) fn served(order: &EpochOrder, rank: usize) -> Vec<Vec<u64>> {
    let place = order.world().place(rank).unwrap();
    order
        .rank_batches(place.node, place.rank)
        .map(|ids| ids.into_iter().filter_map(|id| u64::try_from(id).ok()).collect())
        .filter(|ids: &Vec<u64>| !ids.is_empty())
        .collect()
}
