//! Text and tokens to MDS shards: the files of a source become a streaming dataset of documents or of
//! fixed-length token sequences.
//!
//! # Layout
//! * [`source`] names the files of a split and reads them: JSON lines, text, Parquet, indexed and
//!   streaming datasets; here, at remotes or on the hub.
//! * [`hub`] is the client of the Hugging Face hub, and decides who may see its token.
//! * [`record`] makes a document of a line.
//! * [`tokenizer`] makes ids of text and text of ids.
//! * [`mod@concat`] joins documents and cuts samples of equal length.
//! * `pipeline` reads and parses files on many threads; `ordered` puts the results back in order, in bounded memory.
//! * [`conversion`] writes one split, whole or not at all.
//! * `manifest` is what an interrupted conversion goes on from.
//! * [`statistics`] is what a dataset was made of.
//! * [`out_root`] is where splits go: a folder or a remote.
//! * [`indexed`] is the format of GPT-NeoX and Megatron, with its index of training samples.
//! * [`neox`] is GPT-NeoX's data tools: the programs `preprocess-data` and `prepare-data`.
//! * [`progress`] counts.
//! * [`cli`] is the command line around all this: the programs `convert` and `convert-c4`.
//!
//! # Example
//! ```
//! use std::sync::Arc;
//! use convert::conversion::{Content, Conversion, Earlier, OnBadLine};
//! use convert::source::{NamedSplit, files_of_split};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let source = folder.path().join("documents.jsonl");
//! std::fs::write(&source, r#"{"text": "Hello.", "timestamp": "2026-01-01T00:00:00Z", "url": "x"}"#)?;
//!
//! let conversion = Conversion {
//!     split: NamedSplit::Val.into(),
//!     files: files_of_split(source.to_str(), NamedSplit::Val, true)?,
//!     out_root: folder.path().join("dataset").into(),
//!     content: Content::Records,
//!     subsets: None,
//!     writer: mds::WriterOptions::default(),
//!     on_bad_line: OnBadLine::Fail,
//!     threads: 2,
//!     earlier: Earlier::GoOn,
//! };
//! let summary = conversion.run(&Arc::default(), &Arc::default())?;
//! assert_eq!(summary.samples, 1);
//! assert!(folder.path().join("dataset/val/index.json").exists());
//! # Ok(())
//! # }
//! ```

#[macro_use]
mod console;

pub mod cli;
pub mod concat;
pub mod conversion;
pub mod error;
pub mod hub;
pub mod indexed;
mod manifest;
pub mod neox;
mod ordered;
pub mod out_root;
mod pipeline;
pub mod progress;
pub mod record;
pub mod source;
pub mod statistics;
pub mod tokenizer;

pub use error::{Error, ErrorKind, Result};
