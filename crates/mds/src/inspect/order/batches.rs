//! The order of an epoch, one global batch after the other.

use mds::order::{EpochOrder, World};

/// The ids of all ranks, step by step: `[node][rank][position]`, flat; -1 is padding.
pub(super) fn global_batches(order: &EpochOrder) -> impl Iterator<Item = Vec<i64>> {
    let World { nodes, ranks_per_node, .. } = order.world();
    let length = order.world().ranks() * order.batch_size();
    let places = (0..nodes).flat_map(|node| (0..ranks_per_node).map(move |rank| (node, rank)));
    let mut ranks: Vec<_> = places.map(|(node, rank)| order.rank_batches(node, rank)).collect();
    std::iter::from_fn(move || {
        let mut ids = Vec::with_capacity(length);
        for rank in &mut ranks {
            ids.extend(rank.next()?.iter());
        }
        Some(ids)
    })
}
