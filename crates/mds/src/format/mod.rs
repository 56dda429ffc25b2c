//! The MDS format: bytes in, values out.
//!
//! No module below does I/O or knows where bytes come from; see [`crate::shard`] for files that are
//! read and [`crate::writer`] for files that are written. What follows is the whole format, from
//! the outside in; each section names the type that stands for it.
//!
//! # A dataset is a folder with an index
//!
//! ```text
//! c4/val/index.json                                  the list of shards: Index
//! c4/val/shard.00000.mds                             not compressed
//! c4/val/shard.00001.mds.zstd                        or compressed: only this file is stored
//! c4/val/shard.00002.csv, shard.00002.csv.meta       the text formats have two files per shard
//! ```
//!
//! [`Index`] is JSON, byte for byte what Python's `json.dumps(index, sort_keys=True)` writes. For
//! each shard, a [`ShardInfo`] repeats the columns and says how many samples there are, how large
//! each file is ([`FileInfo`]), raw and compressed, and what its hashes are. Names are
//! [`ShardName`]s: relative paths that cannot lead out of the folder. In a merged index they begin
//! with the folders of the parts.
//!
//! # A shard is a table of offsets and samples
//!
//! | part | bytes | |
//! | --- | --- | --- |
//! | count | `uint32` | the number *n* of samples; 0 is legal |
//! | offsets | `uint32` × (*n* + 1) | sample *i* is at `off[i]..off[i + 1]`, counted from the start of the file |
//! | config | JSON | what is repeated in the index; readers skip it |
//! | samples | | back to back to the end of the file |
//!
//! All numbers are little-endian. [`ShardTable`] is the checked table; [`ShardBuilder`] lays out
//! shards from samples, with the [`ShardConfig`] that the config text repeats. Offsets have 32
//! bits, so no shard reaches 4 GiB. A sample that would take a shard beyond the size limit closes it
//! first, even if it is empty: a shard may have exactly the limit's size, and a sample that is larger
//! than the limit gets a shard of its own.
//!
//! # A sample is lengths and values
//!
//! The [`Schema`] holds the [`Column`]s, sorted by the code points of their names. A sample begins
//! with a `uint32` for each column of variable size, the length of its value; then come the values
//! of all columns, back to back, without padding. So nothing is aligned, and a reader finds a column
//! by adding up the lengths before it.
//!
//! # A value is bytes under an encoding
//!
//! [`Encoding`] lists them all, with the [`Value`] that each decodes to: bytes and texts, numbers
//! ([`Scalar`] of a [`DType`]), arrays ([`NdArray`]), Python's texts of numbers and JSON
//! ([`python`]), images ([`image`]).
//!
//! # Text formats
//!
//! JSON lines and separated values hold the samples as lines, for other programs to read; see
//! [`Format`].
//!
//! # Compression and hashes
//!
//! [`Compression`] is applied to whole files, [`HashAlgorithm`]s to files before and after it. The
//! raw size in the index is a cap: a file that unpacks to more is refused at the first byte beyond.
//!
//! # Nothing that is read is trusted
//!
//! Every way in which bytes can be wrong is a variant of [`Damage`], inside an
//! [`Error`](crate::Error) that says where. What is well formed but not handled, such as another
//! version or a Python pickle, is `Unsupported`.
//!
//! # Example
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

pub(crate) use codec::{decode, encode, utf8};
pub use compression::Compression;
pub use config::ShardConfig;
pub use damage::{Damage, NameFault};
pub use dtype::{DType, Scalar};
pub use encoding::{Encoding, ImageEncoding};
pub use hash::HashAlgorithm;
pub use image::{Image, ImageFile};
pub use index::{FileInfo, Index, IndexOptions, ShardFile, ShardInfo};
pub use name::{ShardName, is_hostile_to_terminals};
pub use python::{Decimal, Integer, Json, JsonText};
pub use schema::{Column, Schema};
pub use shard::{RawShard, ShardBuilder};
pub use size::parse_size;
pub use table::ShardTable;
pub use text::Format;
pub use value::{NdArray, Value};
