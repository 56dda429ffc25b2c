//! GPT-NeoX's data tools: files of text to indexed datasets, and known corpora by name.
//!
//! `preprocess-data` makes of the texts of files what [`indexed`](crate::indexed) reads; it takes the
//! flags of GPT-NeoX's `preprocess_data.py` and writes the same bytes. `prepare-data` fetches a corpus
//! first, as `prepare_data.py` does.
//!
//! # Layout
//! * [`documents`] finds the documents of a file, whatever kind of archive it is.
//! * `texts` takes the texts under the keys asked for out of a document.
//! * [`ftfy`] has them repaired by the user's own ftfy.
//! * [`tokenizers`] makes ids of them, by the names that `--tokenizer-type` has.
//! * [`chats`] makes ids and labels of chats, by the templates of `chat_template`.
//! * [`preprocess`] puts it together, and is the program `preprocess-data`.
//! * [`corpora`] is the registry of corpora, [`fetch`] brings their files, and [`prepare`] is the program
//!   `prepare-data`.
//!
//! # What differs from GPT-NeoX
//! Each key of `--jsonl-keys` gets its own text, a text without a token is left out even where each is to
//! end with a token, a line that cannot be read is an error, and a file that is half there is fetched
//! again. Datasets appear complete or not at all.
//!
//! # Example
//! ```
//! use std::sync::Arc;
//! use convert::indexed::{IndexedDataset, Layout};
//! use convert::neox::documents::{Cut, input_files};
//! use convert::neox::preprocess::{Encoder, Preprocess, TextEncoder};
//! use convert::neox::tokenizers::{TokenizerFiles, TokenizerType};
//!
//! # fn main() -> convert::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! let corpus = folder.path().join("corpus.jsonl");
//! std::fs::write(&corpus, "{\"text\": \"Hello world\"}\n{\"text\": \"\"}\n").unwrap();
//!
//! let job = Preprocess {
//!     inputs: input_files(corpus.to_str().unwrap())?,
//!     keys: vec!["text".to_owned()],
//!     encoder: Encoder::Texts(TextEncoder {
//!         tokenizer: TokenizerType::HfGpt2.load(&TokenizerFiles::default())?,
//!         ftfy: None,
//!         append_eod: true,
//!         mask_before: Vec::new(),
//!     }),
//!     cut: Cut::Whole,
//!     output_prefix: folder.path().join("corpus"),
//!     layout: Layout::Mapped,
//!     workers: 2,
//! };
//! job.run(&mut |_| {}, &Arc::default())?;
//!
//! let dataset = IndexedDataset::open(folder.path().join("corpus_text_document"))?;
//! assert_eq!(dataset.num_documents(), 1);
//! assert_eq!(dataset.document_ids(0)?, [15496, 995, 50256]);
//! # Ok(())
//! # }
//! ```

mod chat_template;
pub mod chats;
pub mod corpora;
pub mod documents;
pub mod fetch;
pub mod ftfy;
pub mod prepare;
pub mod preprocess;
mod texts;
pub mod tokenizers;
