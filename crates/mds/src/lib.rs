//! The MDS streaming dataset format, compatible with mosaicml-streaming.
//!
//! # Layout
//!
//! - [`error`]: the one error type, with the position in the data and the remedy
//! - [`mod@format`]: pure bytes: samples, shards, `index.json`, encodings, compression, hashes
//! - [`shard`]: one shard mapped into memory, its samples as slices of it
//! - `storage`, `cache`: shards from a path or a URL into a folder that processes share
//! - [`merge_index`]: one index over the datasets in the folders below
//! - [`dataset`]: any sample by its number
//! - [`loader`]: batches in the exact order, prepared by threads
//! - [`order`]: which worker serves which samples, and when
//! - [`writer`]: samples to shards in a folder, at a remote, or both; resumable
//! - [`arrow`]: shards as Arrow record batches and back
//! - [`durable`]: files that are complete or absent, for whoever writes beside a dataset
//!
//! # Example
//!
//! ```
//! use mds::format::{Encoding, Schema};
//! use mds::{Shard, ShardOptions, Writer, WriterOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let parent = tempfile::tempdir()?;
//! let dir = parent.path().join("train");
//!
//! let schema = Schema::new([("text", Encoding::Str), ("id", Encoding::Int)])?;
//! let mut writer = Writer::create(&dir, schema, WriterOptions::default())?;
//! writer.write(&[0.into(), "The first sample.".into()])?; // columns in the order of their names
//! writer.write(&[1.into(), "The second sample.".into()])?;
//! let index = writer.finish()?; // without this there is no index, and so no dataset
//!
//! let shard = Shard::open(&dir, &index.shards[0], ShardOptions::default())?;
//! for sample in shard.samples()? {
//!     println!("{}: {}", sample.position(), sample.str("text")?); // slices of the mapped file
//! }
//! assert_eq!(shard.sample(1)?.value("id")?, 1.into());
//!
//! let dataset = mds::StreamingDataset::open(vec![mds::Stream::local(&dir)], Default::default())?;
//! assert_eq!(dataset.sample(1)?.str("text")?, "The second sample.");
//! # Ok(())
//! # }
//! ```

pub mod arrow;
mod cache;
pub mod dataset;
pub mod durable;
pub mod error;
pub mod format;
mod huge_pages;
pub mod loader;
mod merge;
pub mod order;
mod regular;
mod scratch;
pub mod shard;
pub mod storage;
pub mod writer;

pub use cache::{CacheStats, CachedDataset, UserCache};
pub use dataset::{DatasetOptions, Stream, StreamingDataset};
pub use error::{Error, ErrorKind, Position, Result};
pub use loader::{Batch, BatchLoader, Checkpoint, Loader, LoaderOptions, Rows};
pub use merge::{merge_index, merge_parts};
pub use scratch::ScratchFolder;
pub use shard::{Sample, SampleRef, Shard, ShardOptions};
pub use storage::redacted;
pub use writer::{Output, Writer, WriterOptions};
