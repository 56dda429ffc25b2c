//! Indexed datasets, the format of GPT-NeoX and Megatron: tokens in `.bin`, where each document lies in
//! `.idx`, and which tokens make each training sample.
//!
//! # Layout
//! * [`mod@format`] is the `.idx` file, bytes only; `legacy` is the older one.
//! * [`reader`] maps a dataset into memory; [`writer`] writes and merges datasets.
//! * [`split`] says which documents are for training, validation and tests.
//! * [`sample_index`] makes samples of documents, and [`cache`] keeps them in files.
//! * [`random_state`] is numpy's legacy shuffle, on which the samples rest; `npy` is numpy's file format.
//! * `mapped` opens files.
//!
//! # Example
//! ```
//! use convert::indexed::{Dtype, IndexedDataset, IndexedWriter, Part, SampleCache, Sampling, Split};
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
//! let sampling = Sampling { sequences, sequence_length: 3, num_samples: 10, seed: 1234 };
//! let cache = SampleCache::new(&prefix, Part::Train.name(), &sampling);
//! let samples = cache.build(dataset.sizes(), &sampling)?;
//! assert_eq!(samples.tokens(&dataset, 0)?.len(), 4); // three inputs and their labels
//! # Ok(())
//! # }
//! ```

pub mod cache;
pub mod format;
mod legacy;
mod mapped;
mod npy;
pub mod random_state;
pub mod reader;
pub mod sample_index;
pub mod split;
pub mod writer;

pub use cache::SampleCache;
pub use format::{Dtype, Element, Layout, Malformed, Sizes};
pub use random_state::RandomState;
pub use reader::{IndexedDataset, Tokens};
pub use sample_index::{Piece, SampleIndex, Sampling};
pub use split::{Part, Split};
pub use writer::{IndexedWriter, merge};
