//! Which sample every worker of every rank serves, and when: the reference's order, exactly.
//!
//! Pure arithmetic: no I/O, no clock, no global state. The same streams, options, world and epoch
//! always give the same order, on any machine.
//!
//! # Layout
//! One file per stage, in the order in which an epoch goes through them:
//! - [`world`]: nodes, ranks, workers and replication;
//! - [`weights`]: how many samples each stream gives;
//! - [`sampling`]: which samples of each shard;
//! - [`shuffle`]: in which order;
//! - [`partition`]: to which node, rank and worker;
//! - `batching`: how streams are mixed into batches;
//! - `mixing`: what a single batch holds then;
//! - `epoch`: the finished order, from which batches are taken;
//! - `state`: the position of a run, as checkpoints store it;
//! - [`rng`]: numpy's random numbers, on which all of it rests;
//! - `counting`: where in these numbers each shuffle begins.
//!
//! # Computed, not stored
//! An [`EpochOrder`] holds some 100 bytes for each shard, and computes any batch of any rank where it
//! is asked for: see [`shuffle`]. Its first batch of 365 million samples takes a fraction of a
//! second, and a run resumes in the middle of them as fast.
//!
//! # Example
//! ```
//! use mds::order::{OrderOptions, Plan, StreamShape, Weight, World};
//!
//! # fn main() -> Result<(), mds::order::Error> {
//! let stream = StreamShape { shard_sizes: vec![64, 64, 40], weight: Weight::Natural };
//! let options = OrderOptions { batch_size: Some(4), shuffle: true, ..OrderOptions::default() };
//! let world = World { nodes: 1, ranks_per_node: 2, workers_per_rank: 1 };
//! let plan = Plan::new(&[stream], options, world)?;
//!
//! let epoch = plan.epoch(0, 0, None)?;
//! for batch in epoch.rank_batches(0, 1) {
//!     let samples = batch.iter().filter(|&&id| id >= 0); // -1 pads the last batches
//!     assert!(samples.count() <= 4);
//! }
//! # Ok(())
//! # }
//! ```

mod batching;
mod counting;
mod epoch;
mod error;
mod mixing;
mod options;
pub mod partition;
mod plan;
pub mod rng;
pub mod sampling;
pub mod shuffle;
mod state;
pub mod weights;
pub mod world;

pub use epoch::{Batches, EpochOrder, Stretches};
pub use error::{Error, Result};
pub use options::{
    BatchingMethod, OrderOptions, PartitionAlgo, SamplingMethod, ShuffleAlgo, parse_epoch_size,
};
pub use plan::Plan;
pub use state::State;
pub use weights::{StreamShape, Weight};
pub use world::{Place, World};
