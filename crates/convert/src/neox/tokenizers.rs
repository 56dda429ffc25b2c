//! The tokenizers that GPT-NeoX knows, by the names that it knows them by.
//!
//! | `--tokenizer-type` | `--vocab-file` | end of a document |
//! | --- | --- | --- |
//! | `HFGPT2Tokenizer` | nothing, or `gpt2`: it is built in | `<\|endoftext\|>` |
//! | `HFTokenizer` | a `tokenizer.json` | `<\|endoftext\|>` |
//! | `GPT2BPETokenizer` | `vocab.json`, and `merges.txt` as `--merge-file` | `<\|endoftext\|>` |
//! | `CharLevelTokenizer` | nothing: the bytes of UTF-8 | 0 |
//! | `TiktokenTokenizer` | `gpt2`, `r50k_base`, `p50k_base`, `p50k_edit`, `cl100k_base`, `o200k_base`, `o200k_harmony` | `<\|endoftext\|>` |
//! | `SPMTokenizer` | a `.model` of SentencePiece | `<\|endoftext\|>` if it is a piece, or the model's own end, `</s>` |
//!
//! `<|endoftext|>` in a text is a token to the first two, as it is to the library that they stand for, and
//! text like any other to `GPT2BPETokenizer` and `TiktokenTokenizer`. To `SPMTokenizer` it is a token if the
//! model has it as a user-defined symbol. GPT-NeoX ends documents with the unknown token where a model has no
//! piece `<|endoftext|>`.

mod sentence_piece;
mod tiktoken;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ValueEnum;
use serde_json::{Map, Value, json};

use self::sentence_piece::SentencePiece;
use self::tiktoken::{Encoding, OF_GPT2};
use crate::error::{Error, ErrorKind, Result};
use crate::tokenizer::Tokenizer;

const END_OF_TEXT: &str = "<|endoftext|>";

/// The vocabulary of bytes has room for more than there are.
const BYTES_VOCABULARY: usize = 512;

/// A kind of tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TokenizerType {
    /// GPT-2, which is built in
    #[value(name = "HFGPT2Tokenizer")]
    HfGpt2,
    /// A tokenizer.json
    #[value(name = "HFTokenizer")]
    Hf,
    /// A vocab.json and a merges.txt
    #[value(name = "GPT2BPETokenizer")]
    Gpt2Bpe,
    /// The bytes of UTF-8
    #[value(name = "CharLevelTokenizer")]
    CharLevel,
    /// An encoding of tiktoken, by name, such as cl100k_base
    #[value(name = "TiktokenTokenizer")]
    Tiktoken,
    /// A .model of SentencePiece
    #[value(name = "SPMTokenizer")]
    Spm,
}

impl TokenizerType {
    /// GPT-NeoX's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HfGpt2 => "HFGPT2Tokenizer",
            Self::Hf => "HFTokenizer",
            Self::Gpt2Bpe => "GPT2BPETokenizer",
            Self::CharLevel => "CharLevelTokenizer",
            Self::Tiktoken => "TiktokenTokenizer",
            Self::Spm => "SPMTokenizer",
        }
    }
}

/// What `--vocab-file` and `--merge-file` give.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenizerFiles {
    /// A path, or a name where the type takes one.
    pub vocab: Option<String>,
    /// The merges of `GPT2BPETokenizer`.
    pub merges: Option<PathBuf>,
}

/// A tokenizer. Clones share one vocabulary.
#[derive(Debug, Clone)]
pub struct NeoxTokenizer {
    encoder: Encoder,
    vocab_size: usize,
    end: Option<u32>,
}

#[derive(Debug, Clone)]
enum Encoder {
    Bytes,
    Pairs(Tokenizer),
    Tiktoken(Encoding),
    SentencePiece(Arc<SentencePiece>),
}

impl TokenizerType {
    /// Loads the tokenizer of this type.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if a file is not given that the type needs, or the type cannot be had;
    /// those of [`Tokenizer::load`].
    pub fn load(self, files: &TokenizerFiles) -> Result<NeoxTokenizer> {
        let is_wanted = |files: &TokenizerFiles| files.merges.is_some() && self != Self::Gpt2Bpe;
        if is_wanted(files) {
            return Err(Error::invalid(
                format!("--merge-file has no effect on {}", self.name()),
                "leave it out",
            ));
        }
        let vocab = files.vocab.as_deref();
        match self {
            Self::HfGpt2 => NeoxTokenizer::of_pairs(Tokenizer::load(vocab.unwrap_or("gpt2"))?),
            Self::Hf => NeoxTokenizer::of_pairs(Tokenizer::load(
                vocab.ok_or_else(|| self.lacks("--vocab-file", "a tokenizer.json"))?,
            )?),
            Self::Gpt2Bpe => {
                let vocab = vocab.ok_or_else(|| self.lacks("--vocab-file", "a vocab.json"))?;
                let merges = files.merges.as_deref();
                let merges = merges.ok_or_else(|| self.lacks("--merge-file", "a merges.txt"))?;
                NeoxTokenizer::of_vocab_and_merges(Path::new(vocab), merges)
            }
            Self::CharLevel if vocab.is_some() => {
                let what = format!("--vocab-file has no effect on {}", self.name());
                Err(Error::invalid(what, "leave it out"))
            }
            Self::CharLevel => {
                let encoder = Encoder::Bytes;
                Ok(NeoxTokenizer { encoder, vocab_size: BYTES_VOCABULARY, end: Some(0) })
            }
            Self::Tiktoken => {
                let name =
                    vocab.ok_or_else(|| self.lacks("--vocab-file", "an encoding such as gpt2"))?;
                if OF_GPT2.contains(&name) {
                    return NeoxTokenizer::without_special_tokens(Tokenizer::load("gpt2")?.json());
                }
                let encoding = Encoding::named(name).ok_or_else(|| {
                    Error::invalid(
                        format!("{}: tiktoken has no encoding {name:?}", self.name()),
                        format!("use one of {}", Encoding::names()),
                    )
                })?;
                let (vocab_size, end) = (encoding.vocab_size, Some(encoding.end_of_text));
                Ok(NeoxTokenizer { encoder: Encoder::Tiktoken(encoding), vocab_size, end })
            }
            Self::Spm => {
                let lacks = || self.lacks("--vocab-file", "a .model of SentencePiece");
                let model = SentencePiece::open(Path::new(vocab.ok_or_else(lacks)?))?;
                let (vocab_size, end) = (model.vocab_size(), model.end_of_document());
                Ok(NeoxTokenizer {
                    encoder: Encoder::SentencePiece(Arc::new(model)),
                    vocab_size,
                    end,
                })
            }
        }
    }

    fn lacks(self, flag: &str, what: &str) -> Error {
        Error::invalid(format!("{} needs {flag}", self.name()), format!("give {what}"))
    }
}

impl NeoxTokenizer {
    fn of_pairs(tokenizer: Tokenizer) -> Result<Self> {
        let vocab_size = tokenizer.vocab_size();
        let end = end_of_text(tokenizer.json());
        Ok(Self { encoder: Encoder::Pairs(tokenizer), vocab_size, end })
    }

    /// GPT-2's algorithm with another vocabulary, or its own.
    fn of_vocab_and_merges(vocab: &Path, merges: &Path) -> Result<Self> {
        let read =
            |path: &Path| std::fs::read_to_string(path).map_err(|e| Error::io(e, "read", path));
        let corrupt = |problem: String| {
            Error::new(
                ErrorKind::Corrupt,
                problem,
                "give the two files that belong to a model of GPT-2",
            )
        };
        let ids: Map<String, Value> = serde_json::from_str(&read(vocab)?).map_err(|e| {
            corrupt(format!("{}: not a vocabulary of tokens and ids: {e}", vocab.display()))
        })?;
        let mut pairs = Vec::new();
        for (number, line) in (1..).zip(read(merges)?.lines()) {
            if line.is_empty() || (number == 1 && line.starts_with("#version")) {
                continue;
            }
            match line.split_once(' ') {
                Some((left, right)) if !right.contains(' ') => pairs.push(json!([left, right])),
                _ => {
                    let file = merges.display();
                    return Err(corrupt(format!("{file}, line {number}: not a pair of tokens")));
                }
            }
        }
        let mut json = gpt2()?;
        json["model"]["vocab"] = Value::Object(ids);
        json["model"]["merges"] = Value::Array(pairs);
        json["added_tokens"] = json!([]);
        let name = vocab.display().to_string();
        let origin = format!("{name} and {}", merges.display());
        Self::of_pairs(Tokenizer::from_json(&json.to_string(), None, &name, &origin)?)
    }

    fn without_special_tokens(json: &str) -> Result<Self> {
        let mut json: Value = parsed(json)?;
        json["added_tokens"] = json!([]);
        Self::of_pairs(Tokenizer::from_json(
            &json.to_string(),
            None,
            "gpt2",
            "the built-in tokenizer",
        )?)
    }

    /// The ids of a text.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        match &self.encoder {
            Encoder::Bytes => Ok(text.bytes().map(u32::from).collect()),
            Encoder::Pairs(tokenizer) => tokenizer.encode(text),
            Encoder::Tiktoken(encoding) => encoding.encode(text),
            Encoder::SentencePiece(model) => model.encode(text),
        }
    }

    /// How many ids there are, before any padding.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// What ends a document.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if the vocabulary has no such token.
    pub fn end_of_document(&self) -> Result<u32> {
        self.end.ok_or_else(|| {
            Error::invalid(
                format!(
                    "--append-eod needs the token {END_OF_TEXT}, which the vocabulary does not have"
                ),
                "leave --append-eod out, or add the token to the tokenizer",
            )
        })
    }
}

fn gpt2() -> Result<Value> {
    parsed(Tokenizer::load("gpt2")?.json())
}

/// The text of a tokenizer that was loaded.
fn parsed(json: &str) -> Result<Value> {
    let broken = |e| Error::internal(&format!("a tokenizer that was loaded cannot be parsed: {e}"));
    serde_json::from_str(json).map_err(broken)
}

fn end_of_text(json: &str) -> Option<u32> {
    let json: Value = serde_json::from_str(json).ok()?;
    let added = json.get("added_tokens").and_then(Value::as_array).into_iter().flatten();
    let added =
        added.filter(|token| token.get("content").and_then(Value::as_str) == Some(END_OF_TEXT));
    let id = added.filter_map(|token| token.get("id")).next();
    let id = id.or_else(|| json.get("model")?.get("vocab")?.get(END_OF_TEXT));
    u32::try_from(id?.as_u64()?).ok()
}

/// GPT-2's `vocab.json` and `merges.txt`, byte for byte as OpenAI published them.
///
/// # Errors
/// [`ErrorKind::Internal`] alone.
pub fn gpt2_vocab_and_merges() -> Result<(String, String)> {
    let json = gpt2()?;
    let broken = || Error::internal("the built-in tokenizer has no vocabulary");
    let vocab = json.pointer("/model/vocab").and_then(Value::as_object).ok_or_else(broken)?;
    let entry = |(token, id): (&String, &Value)| format!("{}: {id}", ascii_json(token));
    let vocab = format!("{{{}}}", vocab.iter().map(entry).collect::<Vec<_>>().join(", "));
    let pairs = json.pointer("/model/merges").and_then(Value::as_array).ok_or_else(broken)?;
    let mut merges = "#version: 0.2\n".to_owned();
    for pair in pairs {
        let [left, right] = [0, 1].map(|i| pair.get(i).and_then(Value::as_str));
        let (left, right) = left.zip(right).ok_or_else(broken)?;
        merges.push_str(&format!("{left} {right}\n"));
    }
    Ok((vocab, merges))
}

/// A text in quotes as Python writes it: what is not ASCII is escaped.
fn ascii_json(text: &str) -> String {
    let mut escaped = String::new();
    for unit in Value::from(text).to_string().encode_utf16() {
        match u8::try_from(unit).ok().filter(u8::is_ascii) {
            Some(byte) => escaped.push(byte.into()),
            // Writing to a string cannot fail.
            None => _ = write!(escaped, "\\u{unit:04x}"),
        }
    }
    escaped
}

#[cfg(test)]
mod tests;
