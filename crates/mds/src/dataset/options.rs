//! What a user says about a dataset. Names and defaults are the reference's, but for hashes, which
//! are checked unless that is switched off.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::Result;
use crate::order::{OrderOptions, Weight, World};
use crate::storage::redacted;

/// One directory of shards, and how much of it an epoch takes.
///
/// `Debug` shows the remote without its options.
#[derive(Clone, Default, PartialEq)]
pub struct Stream {
    /// Where the dataset is kept: a path or an address as in [`storage`](crate::storage).
    pub remote: Option<String>,
    /// The cache on this machine, or the dataset itself if there is no remote.
    pub local: Option<PathBuf>,
    /// A folder below both, such as `train`.
    pub split: Option<String>,
    /// How much of it an epoch takes.
    pub weight: Weight,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("remote", &self.remote.as_deref().map(redacted))
            .field("local", &self.local)
            .field("split", &self.split)
            .field("weight", &self.weight)
            .finish()
    }
}

impl Stream {
    /// The dataset in a folder of this machine, read in place.
    pub fn local(local: impl Into<PathBuf>) -> Self {
        Self { local: Some(local.into()), ..Self::default() }
    }

    /// The dataset at an address, cached in a folder of this machine.
    pub fn cached(remote: impl Into<String>, local: impl Into<PathBuf>) -> Self {
        Self { remote: Some(remote.into()), local: Some(local.into()), ..Self::default() }
    }

    /// The same stream below a folder of both its addresses.
    #[must_use]
    pub fn split(mut self, split: impl Into<String>) -> Self {
        self.split = Some(split.into());
        self
    }
}

/// How a dataset is read.
#[derive(Debug, Clone, PartialEq)]
pub struct DatasetOptions {
    /// What decides the order of samples; its `batch_size` is needed to iterate.
    pub order: OrderOptions,
    /// All processes of the run.
    pub world: World,
    /// The number of this process among them.
    pub rank: usize,
    /// Samples whose shards are fetched ahead of use. `None`: 8 batches.
    pub predownload: Option<usize>,
    /// Bytes of shards that caches may hold, over all streams. `None`: no limit.
    pub cache_limit: Option<u64>,
    /// Compare files with the hashes in the index, where it has any. Of large shards without
    /// compression whose hash is not checked, the first samples come before the whole shard.
    pub validate_hash: bool,
    /// Read the files of shards into memory instead of mapping them: for a dataset that is read in
    /// place while others may change its files.
    pub copy: bool,
    /// Take datasets with `pkl` columns, and give the bytes of the pickles; they are never decoded.
    pub pickle_bytes: bool,
    /// Keep compressed shards in the cache beside the raw ones.
    pub keep_zip: bool,
    /// Time limit for a connection, for the first byte and for each pause between two bytes.
    pub download_timeout: Duration,
    /// Attempts to download a file, in total.
    pub download_retry: u32,
}

impl Default for DatasetOptions {
    fn default() -> Self {
        Self {
            order: OrderOptions::default(),
            world: World::default(),
            rank: 0,
            predownload: None,
            cache_limit: None,
            validate_hash: true,
            copy: false,
            pickle_bytes: false,
            keep_zip: false,
            download_timeout: Duration::from_secs(60),
            download_retry: 2,
        }
    }
}

impl DatasetOptions {
    /// The same options for the world and the rank that a launcher such as `torchrun` gives in
    /// `WORLD_SIZE`, `LOCAL_WORLD_SIZE` and `RANK`; without them, one process.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) names the variable at fault.
    pub fn placed_by_launcher(mut self) -> Result<Self> {
        let workers = self.world.workers_per_rank;
        (self.world, self.rank) = World::from_launcher(|name| std::env::var(name).ok(), workers)?;
        Ok(self)
    }
}
