//! The documents of a file, as `lm_dataformat` reads them: GPT-NeoX's own reader.
//!
//! | the name ends in | a document is |
//! | --- | --- |
//! | `.jsonl`, `.jsonl.zst`, `.jsonl.gz`, `.json.gz` | a line: a JSON object, or a text in quotes |
//! | `.jsonl.zst.tar` | a line of a member, each of which is such a `.jsonl.zst` |
//! | `.json.zst` | an element of a JSON list; or a line, if it begins with none |
//! | `.txt` | the file, whose line ends become `\n` |
//! | `.zip`, `.tar.gz` | a member |
//! | `.tar.xz`, `_data.xz` | a member; of one that is a `.xz` archive itself, as in OpenWebText, each of its own |
//! | `.dat.zst` | so many bytes as the 16 digits before it say |
//! | `.gz` | a line, with its end |
//!
//! Blank lines of JSON are passed over. What is one document by this table can be cut ([`Cut`]).
//! Files are read as streams; a document has at most 256 MiB, and so much memory at most a reader takes.

mod input;
mod reading;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use clap::ValueEnum;

pub use input::{InputFile, input_files};
pub(super) use reading::read;

/// Bytes of the largest document: what is longer is none, or is to be cut.
const LONGEST: u64 = 256 << 20;

const KINDS: &str = ".jsonl, .jsonl.zst, .jsonl.gz, .jsonl.zst.tar, .json.gz, .json.zst, .txt, .zip, \
                     .tar.gz, .tar.xz, _data.xz, .dat.zst or .gz";

/// What becomes of a text that is one document by its kind of file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Cut {
    /// One document, as GPT-NeoX has it
    #[default]
    Whole,
    /// A document for each line that is not blank, without its end
    Lines,
    /// A document for each `<page>` of a dump of Wikipedia, and one for what is before the first
    Articles,
}

/// How a file's documents lie in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    JsonLines(Packing),
    JsonLinesTar,
    JsonList,
    Text,
    Zip,
    TarGz,
    TarXz,
    Records,
    GzipLines,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Plain,
    Gzip,
    Zstd,
}

impl Kind {
    fn of(name: &str) -> Option<Self> {
        // The longer endings before those that they end in.
        let endings = [
            (".jsonl.zst.tar", Self::JsonLinesTar),
            (".jsonl", Self::JsonLines(Packing::Plain)),
            (".jsonl.zst", Self::JsonLines(Packing::Zstd)),
            (".jsonl.gz", Self::JsonLines(Packing::Gzip)),
            (".json.gz", Self::JsonLines(Packing::Gzip)),
            (".json.zst", Self::JsonList),
            (".dat.zst", Self::Records),
            (".txt", Self::Text),
            (".zip", Self::Zip),
            (".tar.gz", Self::TarGz),
            (".tar.xz", Self::TarXz),
            ("_data.xz", Self::TarXz),
            (".gz", Self::GzipLines),
        ];
        endings.into_iter().find(|(ending, _)| name.ends_with(ending)).map(|(_, kind)| kind)
    }

    /// Whether its documents are whole texts, which can be cut.
    fn is_of_texts(self) -> bool {
        matches!(self, Self::Text | Self::Zip | Self::TarGz | Self::TarXz)
    }
}

/// Whether the documents of a file of this name can be read.
pub(super) fn is_known_kind(name: &str) -> bool {
    Kind::of(name).is_some()
}

/// One document, as its bytes lie in the file.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) place: Place,
    pub(super) content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    Text(Vec<u8>),
    Json(Vec<u8>),
}

impl Document {
    pub(super) fn bytes(&self) -> usize {
        match &self.content {
            Content::Text(bytes) | Content::Json(bytes) => bytes.len(),
        }
    }
}

/// Where a document begins, for messages: `corpus.zip, member a.txt, line 7`.
#[derive(Debug, Clone)]
pub(super) struct Place {
    file: Arc<str>,
    member: Option<Arc<str>>,
    at: At,
}

#[derive(Debug, Clone, Copy)]
enum At {
    Start,
    Line(u64),
    /// The number of a document, from 1.
    Document(u64),
}

#[cfg(test)]
impl Place {
    pub(super) fn file(file: &str) -> Self {
        Self { file: file.into(), member: None, at: At::Start }
    }

    pub(super) fn line(file: &str, line: u64) -> Self {
        Self { at: At::Line(line), ..Self::file(file) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(member) = &self.member {
            write!(f, ", member {member}")?;
        }
        match self.at {
            At::Start => Ok(()),
            At::Line(line) => write!(f, ", line {line}"),
            At::Document(number) => write!(f, ", document {number}"),
        }
    }
}
