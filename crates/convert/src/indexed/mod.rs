//! Indexed datasets, the format of GPT-NeoX and Megatron: tokens in `.bin`, and where each document lies in
//! `.idx`.
//!
//! # Layout
//! * [`mod@format`] is the `.idx` file, bytes only.
//! * [`reader`] maps a dataset into memory; [`writer`] writes and merges datasets.
//! * [`split`] says which documents are for training, validation and tests.
//! * `mapped` opens files.
//!
//! # Example
//! ```
//! use convert::indexed::{Dtype, IndexedDataset, IndexedWriter, Part, Split};
//!
//! # fn main() -> convert::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! let prefix = folder.path().join("corpus_text_document");
//! let mut writer = IndexedWriter::create(&prefix, Dtype::for_vocab_size(50_257))?;
//! for document in [vec![15496, 11, 995, 50256], vec![40, 1101, 3772, 50256]] {
//!     writer.write_document::<u32>(&document)?;
//! }
//! writer.finish()?; // without this there is no dataset
//!
//! let dataset = IndexedDataset::open(&prefix)?;
//! assert_eq!(dataset.document_ids(0)?, [15496, 11, 995, 50256]);
//!
//! let split: Split = "1,0,0".parse()?;
//! let sequences = split.sequences(Part::Train, dataset.num_sequences());
//! assert_eq!(sequences, 0..2);
//! # Ok(())
//! # }
//! ```

pub mod format;
mod mapped;
pub mod reader;
pub mod split;
pub mod writer;

pub use format::{Dtype, Malformed, Sizes};
pub use reader::{IndexedDataset, Tokens};
pub use split::{Part, Split};
pub use writer::{IndexedWriter, merge};
