//! The machines of a run: nodes, ranks and workers, and ranks that share their samples.

use super::error::{Error, Result};

/// The shape of a run: `nodes` hosts with `ranks_per_node` device processes each, every one of
/// which loads with `workers_per_rank` workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct World {
    /// Hosts.
    pub nodes: usize,
    /// Device processes on each host.
    pub ranks_per_node: usize,
    /// Loader workers of each rank.
    pub workers_per_rank: usize,
}

/// Where a rank stands in a [`World`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// Number of the node.
    pub node: usize,
    /// Number of the rank on its node.
    pub rank: usize,
}

impl Default for World {
    /// One process with one worker.
    fn default() -> Self {
        Self { nodes: 1, ranks_per_node: 1, workers_per_rank: 1 }
    }
}

impl World {
    /// The world that a launcher such as `torchrun` describes, and this process's global rank.
    ///
    /// `variable` looks an environment variable up: `WORLD_SIZE`, `LOCAL_WORLD_SIZE` and `RANK`,
    /// which default to 1, 1 and 0.
    ///
    /// # Errors
    /// [`Error::EnvironmentVariable`], [`Error::EmptyWorld`], [`Error::WorldTooLarge`],
    /// [`Error::UnevenWorld`] or [`Error::RankOutOfRange`].
    pub fn from_launcher(
        variable: impl Fn(&str) -> Option<String>,
        workers_per_rank: usize,
    ) -> Result<(Self, usize)> {
        let number = |name: &'static str, default: usize| match variable(name) {
            None => Ok(default),
            Some(given) => {
                given.trim().parse().map_err(|_| Error::EnvironmentVariable { name, given })
            }
        };
        let ranks = number("WORLD_SIZE", 1)?;
        let ranks_per_node = number("LOCAL_WORLD_SIZE", 1)?;
        let rank = number("RANK", 0)?;
        if ranks_per_node != 0 && !ranks.is_multiple_of(ranks_per_node) {
            return Err(Error::UnevenWorld { ranks, ranks_per_node });
        }
        let nodes = ranks.checked_div(ranks_per_node).unwrap_or(0);
        let world = Self { nodes, ranks_per_node, workers_per_rank }.validated()?;
        world.place(rank)?;
        Ok((world, rank))
    }

    /// The same world, if it has at least one node, rank and worker, and not absurdly many.
    ///
    /// # Errors
    /// [`Error::EmptyWorld`] or [`Error::WorldTooLarge`].
    pub fn validated(self) -> Result<Self> {
        if self.nodes == 0 || self.ranks_per_node == 0 || self.workers_per_rank == 0 {
            return Err(Error::EmptyWorld {
                nodes: self.nodes,
                ranks_per_node: self.ranks_per_node,
                workers_per_rank: self.workers_per_rank,
            });
        }
        let workers = (self.nodes as u64)
            .checked_mul(self.ranks_per_node as u64)
            .and_then(|ranks| ranks.checked_mul(self.workers_per_rank as u64));
        if workers.is_none_or(|workers| workers > u64::from(u32::MAX)) {
            return Err(Error::WorldTooLarge {
                nodes: self.nodes,
                ranks_per_node: self.ranks_per_node,
                workers_per_rank: self.workers_per_rank,
            });
        }
        Ok(self)
    }

    /// Ranks in the whole world.
    pub const fn ranks(&self) -> usize {
        self.nodes * self.ranks_per_node
    }

    /// Where global rank `rank` stands; ranks are numbered node by node.
    ///
    /// # Errors
    /// [`Error::RankOutOfRange`].
    pub fn place(&self, rank: usize) -> Result<Place> {
        if rank >= self.ranks() {
            return Err(Error::RankOutOfRange { rank, ranks: self.ranks() });
        }
        Ok(Place { node: rank / self.ranks_per_node, rank: rank % self.ranks_per_node })
    }

    /// The world as the order sees it when `replication` consecutive ranks share their samples:
    /// rank `r` becomes `r / replication`. If the remaining ranks no longer fill nodes of the
    /// old size, they count as one node.
    ///
    /// # Errors
    /// [`Error::Replication`] unless `replication` divides the number of ranks.
    pub fn replicate(&self, replication: usize) -> Result<Self> {
        let ranks = self.ranks();
        if replication == 0 || !ranks.is_multiple_of(replication) {
            return Err(Error::Replication { replication, ranks });
        }
        let ranks = ranks / replication;
        let nodes =
            if ranks.is_multiple_of(self.ranks_per_node) { ranks / self.ranks_per_node } else { 1 };
        Ok(Self { nodes, ranks_per_node: ranks / nodes, workers_per_rank: self.workers_per_rank })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORLD: World = World { nodes: 3, ranks_per_node: 4, workers_per_rank: 2 };

    #[test]
    fn replication_keeps_nodes_only_if_they_stay_full() {
        let shape = |k| WORLD.replicate(k).map(|w| (w.nodes, w.ranks_per_node));
        assert_eq!(shape(1), Ok((3, 4)));
        assert_eq!(shape(2), Ok((1, 6)));
        assert_eq!(shape(3), Ok((1, 4)));
        assert_eq!(
            WORLD.replicate(5).unwrap_err().to_string(),
            "replication 5 does not divide the world of 12 ranks; choose a divisor of 12"
        );
        assert!(WORLD.replicate(0).is_err());
    }

    #[test]
    fn absurd_worlds_are_refused() {
        let world = World { nodes: usize::MAX, ..WORLD };
        assert!(matches!(world.validated(), Err(Error::WorldTooLarge { .. })));
        assert_eq!(
            World { workers_per_rank: 0, ..WORLD }.validated().unwrap_err().to_string(),
            "a world of 3 nodes x 4 ranks x 0 workers serves no samples; \
             each of the three must be at least 1"
        );
    }

    #[test]
    fn launchers_number_ranks_node_by_node() {
        let variable = |name: &str| match name {
            "WORLD_SIZE" => Some("8".to_owned()),
            "LOCAL_WORLD_SIZE" => Some("4".to_owned()),
            "RANK" => Some("6".to_owned()),
            _ => None,
        };
        let (world, rank) = World::from_launcher(variable, 3).unwrap();
        assert_eq!(world, World { nodes: 2, ranks_per_node: 4, workers_per_rank: 3 });
        assert_eq!(world.place(rank), Ok(Place { node: 1, rank: 2 }));
        assert_eq!(World::from_launcher(|_| None, 1), Ok((World::default(), 0)));
    }

    #[test]
    fn bad_launcher_variables_are_named() {
        let only = |name: &'static str, value: &'static str| {
            move |asked: &str| (asked == name).then(|| value.to_owned())
        };
        assert_eq!(
            World::from_launcher(only("RANK", "x"), 1).unwrap_err().to_string(),
            "environment variable RANK is \"x\", not a number; unset it or let the launcher set it"
        );
        assert_eq!(
            World::from_launcher(only("RANK", "1"), 1).unwrap_err().to_string(),
            "rank 1 does not exist in a world of 1 ranks; ranks are numbered from 0"
        );
        assert!(World::from_launcher(only("LOCAL_WORLD_SIZE", "2"), 1).is_err());
        assert!(World::from_launcher(only("LOCAL_WORLD_SIZE", "0"), 1).is_err());
        assert!(World::from_launcher(only("WORLD_SIZE", "0"), 1).is_err());
    }
}
