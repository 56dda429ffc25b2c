//! A dataset, its options and a world, checked once: the plan from which every epoch's order
//! follows.

use super::batching::{self, Run};
use super::epoch::EpochOrder;
use super::error::{Error, Result};
use super::options::OrderOptions;
use super::partition::check_global_batch;
use super::state::State;
use super::weights::{self, Shares, StreamShape};
use super::world::{Place, World};

/// What stays fixed over a run: the streams, their shares of an epoch, the options and the world.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Samples in each shard of each stream.
    shards: Vec<Vec<u64>>,
    shares: Shares,
    options: OrderOptions,
    /// The world as it is.
    physical: World,
    /// The world after replication, which the order is computed for.
    world: World,
}

impl Plan {
    /// Checks and fixes a run's set-up. `world` is the world as it is, before replication.
    ///
    /// # Errors
    /// Any [`Error`] about weights, world, replication or options. A missing batch size only
    /// shows in [`epoch`](Self::epoch), because looking samples up needs none.
    pub fn new(streams: &[StreamShape], options: OrderOptions, world: World) -> Result<Self> {
        let physical = world.validated()?;
        let world = physical.replicate(options.replication.unwrap_or(1))?;
        if options.sampling_granularity == 0 {
            return Err(Error::SamplingGranularity);
        }
        if options.num_canonical_nodes == Some(0) {
            return Err(Error::NoCanonicalNodes);
        }
        let shares = weights::divide(streams, options.epoch_size, options.shuffle_seed)?;
        let shards = streams.iter().map(|stream| stream.shard_sizes.clone()).collect();
        Ok(Self { shards, shares, options, physical, world })
    }

    /// The order of what is left of epoch `epoch` after `sample_in_epoch` samples.
    ///
    /// `resume` is the state that the run was resumed from, or `None` for a run that began here:
    /// its canonical nodes, seed and initial nodes hold for this and all later epochs. (Its epoch
    /// and offset are not read; pass them, or the later position.)
    ///
    /// # Errors
    /// [`Error::BatchSize`] if there is none, or any [`Error`] about partition, shuffle or
    /// batching.
    pub fn epoch(
        &self,
        epoch: u64,
        sample_in_epoch: u64,
        resume: Option<&State>,
    ) -> Result<EpochOrder> {
        let state = self.state(epoch, sample_in_epoch, resume);
        if state.num_canonical_nodes == 0 {
            return Err(Error::NoCanonicalNodes);
        }
        let batch_size =
            self.options.batch_size.filter(|&size| size > 0).ok_or(Error::BatchSize)?;
        check_global_batch(&self.world, batch_size)?;
        batching::order(&Run {
            shards: &self.shards,
            shares: &self.shares,
            options: &self.options,
            world: self.world,
            batch_size,
            state,
        })
    }

    /// The state of a run that stands at `sample_in_epoch` of `epoch`. `resume` is the state that
    /// the run was resumed from, if it was.
    pub fn state(&self, epoch: u64, sample_in_epoch: u64, resume: Option<&State>) -> State {
        match resume {
            Some(resumed) => State { epoch, sample_in_epoch, ..*resumed },
            None => State {
                epoch,
                sample_in_epoch,
                num_canonical_nodes: self.num_canonical_nodes(),
                shuffle_seed: self.options.shuffle_seed,
                initial_physical_nodes: Some(self.world.nodes as u64),
            },
        }
    }

    /// Where global rank `rank` of the real world finds its samples in an [`EpochOrder`]:
    /// `replication` consecutive ranks share a place.
    ///
    /// # Errors
    /// [`Error::RankOutOfRange`].
    pub fn place(&self, rank: usize) -> Result<Place> {
        self.physical.place(rank)?;
        self.world.place(rank / self.options.replication.unwrap_or(1))
    }

    /// The options as they were given.
    pub const fn options(&self) -> &OrderOptions {
        &self.options
    }

    /// The world after replication.
    pub const fn world(&self) -> World {
        self.world
    }

    /// Samples per epoch over all ranks, not counting the repeats and padding that make ranks
    /// equal.
    pub const fn epoch_size(&self) -> u64 {
        self.shares.epoch_size
    }

    /// Samples per epoch and rank: `ceil(epoch_size / ranks)` after replication.
    pub const fn samples_per_rank(&self) -> u64 {
        self.shares.epoch_size.div_ceil(self.world.ranks() as u64)
    }

    /// Samples in the dataset, each counted once.
    pub fn num_samples(&self) -> u64 {
        self.shards.iter().flatten().sum()
    }

    /// How the epoch is divided among the streams.
    pub const fn shares(&self) -> &Shares {
        &self.shares
    }

    /// Canonical nodes of a run that begins here.
    pub fn num_canonical_nodes(&self) -> u64 {
        let default = || self.options.default_canonical_nodes(self.world.nodes);
        self.options.num_canonical_nodes.unwrap_or_else(default)
    }

    /// Shuffle block of a run that begins here, in samples.
    pub fn shuffle_block_size(&self) -> u64 {
        self.options.block_size(self.num_canonical_nodes())
    }
}
