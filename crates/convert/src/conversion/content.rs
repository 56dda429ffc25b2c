//! What a sample holds, and what the worker threads make of a chunk of documents.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::OnBadLine;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::Parse;
use crate::progress::{Meter, Stage};
use crate::record::{PileRecord, Record, remedy_for_other_json, text_of};
use crate::source::chunk::{Chunk, Raw};
use crate::source::{BadDocument, Unit};
use crate::tokenizer::Tokenizer;

/// What a sample holds.
#[derive(Debug, Clone)]
pub enum Content {
    /// One document of C4: the columns `text`, `timestamp` and `url`, all `str`.
    Records,
    /// One document of the Pile: the columns `text` and `pile_set_name`, both `str`.
    PileRecords,
    /// One document: the column `text`, `str`.
    Text,
    /// Token ids: the column `tokens`.
    Tokens(TokenOptions),
}

/// How documents become samples of token ids.
#[derive(Debug, Clone)]
pub struct TokenOptions {
    /// What makes ids of text; `None` if the source has ids, and no text is set around documents.
    pub tokenizer: Option<Tokenizer>,
    /// Tokens per sample; `None`: a sample is a document.
    pub length: Option<usize>,
    /// Text whose ids go before each document; may be empty.
    pub bos_text: String,
    /// Text whose ids go after each document; may be empty.
    pub eos_text: String,
    /// Whether a document that does not fit goes on in the next sample.
    pub wrap: bool,
    /// How the ids are stored.
    pub encoding: TokenEncoding,
    /// Whether the column `sequence_id` (`ndarray:int32`) says which tokens are of the same document: 0 for those of the
    /// first one in the sample, and so on.
    pub sequence_id: bool,
    /// Settings by which the ids of the source were made, if they are known: they hold for those that are made of it, unless
    /// they are set anew.
    pub source_settings: Vec<(&'static str, String)>,
}

/// How token ids are stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum TokenEncoding {
    /// `ndarray:int32`.
    #[default]
    Int32,
    /// `ndarray:uint16`, for vocabularies of up to 65,536.
    Uint16,
    /// `bytes`: 64-bit numbers, little-endian, as llm-foundry wrote them at first.
    Bytes,
}

impl TokenEncoding {
    /// As the flag calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Int32 => "int32",
            Self::Uint16 => "uint16",
            Self::Bytes => "bytes",
        }
    }

    /// The greatest id that it can hold.
    pub(super) fn greatest(self) -> u32 {
        match self {
            Self::Int32 => i32::MAX as u32,
            Self::Uint16 => u16::MAX.into(),
            Self::Bytes => u32::MAX,
        }
    }
}

impl TokenOptions {
    /// What is worth a second look before a long conversion: text for a mark that is not one
    /// token, marks that the tokenizer already sets. `holds_ids` says that documents are token ids already.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if nothing would stand between two documents, samples
    /// have no length, or ids do not fit the encoding; the tokenizer's own errors.
    pub fn check(&self, holds_ids: bool) -> Result<Vec<String>> {
        if self.length == Some(0) {
            return Err(Error::invalid(
                "--concat_tokens is 0",
                "give a number of tokens, e.g. 2048",
            ));
        }
        let Some(tokenizer) = &self.tokenizer else { return Ok(Vec::new()) };
        let largest = tokenizer.vocab_size().saturating_sub(1);
        if largest > self.encoding.greatest() as usize {
            return Err(Error::invalid(
                format!(
                    "--token_encoding {} cannot hold the ids of tokenizer {}, which go up to {largest}",
                    self.encoding.as_str(),
                    tokenizer.name()
                ),
                "use --token_encoding int32",
            ));
        }
        let mut warnings = Vec::new();
        for (flag, text) in [("--bos_text", &self.bos_text), ("--eos_text", &self.eos_text)] {
            let ids = tokenizer.encode_bare(text)?;
            if ids.is_empty() && !text.is_empty() {
                return Err(Error::invalid(
                    format!("tokenizer {} makes no token of {flag} {text:?}", tokenizer.name()),
                    "give a text that it knows, such as its end-of-text token",
                ));
            }
            if ids.len() > 1 {
                warnings
                    .push(format!("{flag} {text:?} is not one token but {}: {ids:?}", ids.len()));
            }
        }
        if holds_ids || self.length.is_none() {
            return Ok(warnings);
        }
        let given = !self.bos_text.is_empty() || !self.eos_text.is_empty();
        let adds = tokenizer.adds_special_tokens();
        if given && adds {
            warnings.push(format!(
                "tokenizer {} sets marks around each text by itself; those of --bos_text and \
                 --eos_text come on top",
                tokenizer.name()
            ));
        } else if !given && !adds {
            return Err(Error::invalid(
                format!(
                    "tokenizer {} puts nothing between two documents: they would run into one another",
                    tokenizer.name()
                ),
                "give a mark, e.g. --eos_text '<|endoftext|>', or use another tokenizer",
            ));
        }
        Ok(warnings)
    }

    /// Refuses a document that cannot be stored: ids of a source may be too large, and arrays have at least one element.
    fn check_document(&self, ids: &[u32]) -> Result<(), String> {
        let encoding = self.encoding.as_str();
        if let Some(id) = ids.iter().find(|&&id| id > self.encoding.greatest()) {
            return Err(format!("its token id {id} is beyond --token_encoding {encoding}"));
        }
        if ids.is_empty() && self.length.is_none() && self.encoding != TokenEncoding::Bytes {
            return Err("it has no tokens, which --token_encoding bytes alone can hold".to_owned());
        }
        Ok(())
    }
}

/// Which subsets of the Pile are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubsetFilter {
    /// These alone, if there are any.
    pub only: BTreeSet<String>,
    /// All but these.
    pub except: BTreeSet<String>,
}

impl SubsetFilter {
    fn wants(&self, subset: &str) -> bool {
        (self.only.is_empty() || self.only.contains(subset)) && !self.except.contains(subset)
    }
}

/// What the workers make of a chunk.
#[derive(Default)]
pub(super) struct Parsed {
    /// Of each document, in order.
    pub(super) documents: Vec<Document>,
    /// The names that [`Document::subset`] counts.
    pub(super) subsets: Vec<String>,
    /// Documents of subsets that are not wanted.
    pub(super) left_out: Vec<(String, u64)>,
    pub(super) bad: Vec<BadDocument>,
    pub(super) columns: Columns,
}

/// One document of a chunk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Document {
    /// Of its text.
    pub(super) bytes: u64,
    /// Where its ids end.
    pub(super) end: usize,
    /// The number of its subset, if it has one.
    pub(super) subset: Option<usize>,
}

/// What samples are made of, of all documents of a chunk.
pub(super) enum Columns {
    /// Columns of text in the order of their names, for each document.
    Text(Vec<[String; 3]>),
    /// The ids of all documents.
    Ids(Vec<u32>),
}

impl Default for Columns {
    fn default() -> Self {
        Self::Text(Vec::new())
    }
}

impl Parsed {
    /// The number of `subset` among the names.
    fn number_of(&mut self, subset: &str) -> usize {
        let known = self.subsets.iter().position(|name| name == subset);
        known.unwrap_or_else(|| {
            self.subsets.push(subset.to_owned());
            self.subsets.len() - 1
        })
    }

    fn leave_out(&mut self, subset: &str) {
        match self.left_out.iter_mut().find(|(name, _)| name == subset) {
            Some((_, count)) => *count += 1,
            None => self.left_out.push((subset.to_owned(), 1)),
        }
    }

    fn push_text(&mut self, columns: [String; 3], bytes: usize, subset: Option<usize>) {
        if let Columns::Text(texts) = &mut self.columns {
            texts.push(columns);
            self.documents.push(Document { bytes: bytes as u64, end: 0, subset });
        }
    }

    fn push_ids(&mut self, ids: &[u32], bytes: usize, subset: Option<usize>) {
        if let Columns::Ids(all) = &mut self.columns {
            all.extend_from_slice(ids);
            self.documents.push(Document { bytes: bytes as u64, end: all.len(), subset });
        }
    }
}

/// What makes samples of chunks. With `subsets` each line names one.
pub(super) fn parser(
    content: &Content,
    subsets: Option<&SubsetFilter>,
    on_bad_line: OnBadLine,
    meter: Arc<Meter>,
) -> Arc<Parse<Parsed>> {
    let parser = Parser { content: content.clone(), subsets: subsets.cloned(), meter };
    Arc::new(move |file, chunk| parser.parse(file, chunk, on_bad_line))
}

struct Parser {
    content: Content,
    subsets: Option<SubsetFilter>,
    meter: Arc<Meter>,
}

impl Parser {
    /// Parses each document, collecting those that fail, or failing at the first of them.
    fn parse(&self, file: &str, chunk: &Chunk, on_bad_line: OnBadLine) -> Result<Parsed> {
        let mut parsed = Parsed::default();
        if let Content::Tokens(_) = self.content {
            parsed.columns = Columns::Ids(Vec::new());
        }
        for (number, raw) in chunk.documents() {
            if let Err(problem) = self.add(raw, &mut parsed) {
                let (file, unit) = (file.to_owned(), chunk.unit());
                let bad = BadDocument { file, unit, number, problem };
                if on_bad_line == OnBadLine::Fail {
                    let remedy = remedy(&bad, raw);
                    return Err(Error::new(ErrorKind::Corrupt, bad.to_string(), remedy));
                }
                parsed.bad.push(bad);
            }
        }
        Ok(parsed)
    }

    fn add(&self, raw: Raw<'_>, parsed: &mut Parsed) -> Result<(), String> {
        if let (Raw::Json(line), Content::Records) = (raw, &self.content) {
            let Record { text, timestamp, url } =
                self.meter.time(Stage::Parse, || Record::parse(line))?;
            let bytes = text.len();
            parsed.push_text([text, timestamp, url], bytes, None);
            return Ok(());
        }
        if let (Raw::Ids(ids), Content::Tokens(options)) = (raw, &self.content) {
            options.check_document(ids)?;
            parsed.push_ids(ids, 0, None);
            return Ok(());
        }
        let (text, subset) = match (raw, &self.subsets) {
            (Raw::Json(line), Some(filter)) => {
                let PileRecord { text, subset } =
                    self.meter.time(Stage::Parse, || PileRecord::parse(line))?;
                if !filter.wants(&subset) {
                    parsed.leave_out(&subset);
                    return Ok(());
                }
                (text, Some(parsed.number_of(&subset)))
            }
            _ => (self.meter.time(Stage::Parse, || text_of(raw))?, None),
        };
        match &self.content {
            Content::Tokens(options) => {
                let tokenizer = options.tokenizer.as_ref().ok_or("it is text, not token ids")?;
                let ids = self.meter.time(Stage::Tokenise, || tokenizer.encode(&text));
                let ids = ids.map_err(|e| e.to_string())?;
                options.check_document(&ids)?;
                parsed.push_ids(&ids, text.len(), subset);
            }
            Content::PileRecords => {
                let name = subset.map_or_else(String::new, |n| parsed.subsets[n].clone());
                let bytes = text.len();
                parsed.push_text([name, text.into_owned(), String::new()], bytes, subset);
            }
            Content::Records | Content::Text => {
                let bytes = text.len();
                parsed.push_text([text.into_owned(), String::new(), String::new()], bytes, subset);
            }
        }
        Ok(())
    }
}

/// What to do about a document that cannot be read.
fn remedy(bad: &BadDocument, raw: Raw<'_>) -> String {
    let noun = bad.unit.noun();
    let mend = match raw {
        Raw::Json(line) if bad.number == 1 => match remedy_for_other_json(line) {
            Some(remedy) => return remedy.to_owned(),
            None => "correct the line",
        },
        Raw::TooLong if bad.unit == Unit::File => "cut it into several files",
        Raw::Unreadable { remedy, .. } => remedy,
        _ => {
            return format!(
                "correct the {noun}, or leave such {noun}s out with --on_bad_line skip"
            );
        }
    };
    format!("{mend}, or leave such {noun}s out with --on_bad_line skip")
}
