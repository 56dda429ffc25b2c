//! The MDS format: bytes in, values out.
//!
//! No module below does I/O or knows where bytes come from; see [`crate::writer`] for files.
//! A dataset is a list of shards in an [`Index`]; a shard is a file of samples behind a
//! [`ShardTable`] of offsets; a sample holds one [`Value`] for each [`Column`] of a [`Schema`].
//!
//! Reading allocates nothing but what it returns:
//!
//! ```
//! use mds::format::{Encoding, Schema, ShardBuilder, ShardConfig, ShardTable};
//!
//! # fn main() -> mds::Result<()> {
//! let schema = Schema::new([("text", Encoding::Str)])?;
//! let mut builder = ShardBuilder::new(&schema, ShardConfig::default());
//! let mut sample = Vec::new();
//! for text in ["one", "two"] {
//!     schema.encode_sample(&[text.into()], &mut sample)?;
//!     builder.push(&sample)?;
//! }
//! let shard = builder.finish().expect("two samples were added");
//!
//! let table = ShardTable::parse(&shard.bytes, 2)?; // checks every offset once
//! let second: &[u8] = table.sample(&shard.bytes, 1)?; // a slice of the shard
//! assert_eq!(schema.column_bytes(second, 0)?, b"two");
//! # Ok(())
//! # }
//! ```

mod codec;
mod compression;
mod config;
mod damage;
mod dtype;
mod encoding;
mod hash;
pub mod image;
mod index;
mod json;
mod name;
mod ndarray;
pub mod python;
mod schema;
mod shard;
mod size;
mod table;
mod text;
mod value;

pub(crate) use codec::{decode, utf8};
pub use compression::Compression;
pub use config::ShardConfig;
pub use damage::{Damage, NameFault};
pub use dtype::{DType, Scalar};
pub use encoding::{Encoding, ImageEncoding};
pub use hash::HashAlgorithm;
pub use image::{Image, ImageFile};
pub use index::{FileInfo, Index, IndexOptions, ShardFile, ShardInfo};
pub use name::ShardName;
pub(crate) use name::is_hostile_to_terminals;
pub use python::{Decimal, Integer, Json};
pub use schema::{Column, Schema};
pub use shard::{RawShard, ShardBuilder};
pub use size::parse_size;
pub use table::ShardTable;
pub use text::Format;
pub use value::{NdArray, Value};
