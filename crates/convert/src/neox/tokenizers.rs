//! The tokenizers that GPT-NeoX knows, by the names that it knows them by.
//!
//! | `--tokenizer-type` | `--vocab-file` | end of a document |
//! | --- | --- | --- |
//! | `HFGPT2Tokenizer` | nothing, or `gpt2`: it is built in | `<\|endoftext\|>` |
//! | `HFTokenizer` | a `tokenizer.json` | `<\|endoftext\|>` |
//! | `GPT2BPETokenizer` | `vocab.json`, and `merges.txt` as `--merge-file` | `<\|endoftext\|>` |
//! | `CharLevelTokenizer` | nothing: the bytes of UTF-8 | 0 |
//! | `TiktokenTokenizer` | `gpt2` or `r50k_base`, whose vocabulary is GPT-2's | `<\|endoftext\|>` |
//!
//! `<|endoftext|>` in a text is a token to the first two, as it is to the library that they stand for, and
//! text like any other to `GPT2BPETokenizer` and `TiktokenTokenizer`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::{Map, Value, json};

use crate::error::{Error, ErrorKind, Result};
use crate::tokenizer::Tokenizer;

const END_OF_TEXT: &str = "<|endoftext|>";

/// The vocabulary of bytes has room for more than there are.
const BYTES_VOCABULARY: usize = 512;

/// Encodings of tiktoken whose ids are those of GPT-2.
const TIKTOKEN_OF_GPT2: [&str; 2] = ["gpt2", "r50k_base"];

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
    /// An encoding of tiktoken, by name: gpt2 or r50k_base
    #[value(name = "TiktokenTokenizer")]
    Tiktoken,
    /// Not supported
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
                if !TIKTOKEN_OF_GPT2.contains(&name) {
                    return Err(Error::invalid(
                        format!("{}: the vocabulary of {name:?} is not built in", self.name()),
                        "use gpt2 or r50k_base, or HFTokenizer with a tokenizer.json of that vocabulary",
                    ));
                }
                NeoxTokenizer::without_special_tokens(Tokenizer::load("gpt2")?.json())
            }
            Self::Spm => Err(Error::invalid(
                "SPMTokenizer: models of SentencePiece cannot be read",
                "convert it to a tokenizer.json, as transformers does when it saves it, and use \
                 HFTokenizer",
            )),
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
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    const TEXT: &str = "Hello world, it's 1234 \u{e9}\u{1f600}\n\n  déjà   vu\t!";

    fn files(vocab: &str) -> TokenizerFiles {
        TokenizerFiles { vocab: Some(vocab.to_owned()), merges: None }
    }

    fn sha256(text: &str) -> String {
        Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The two files in `folder`, changed.
    fn gpt2_files(
        folder: &Path,
        change: impl Fn(String, String) -> (String, String),
    ) -> TokenizerFiles {
        let (vocab, merges) = gpt2_vocab_and_merges().unwrap();
        let (vocab, merges) = change(vocab, merges);
        let [vocab_file, merge_file] = ["vocab.json", "merges.txt"].map(|name| folder.join(name));
        std::fs::write(&vocab_file, vocab).unwrap();
        std::fs::write(&merge_file, merges).unwrap();
        TokenizerFiles { vocab: vocab_file.to_str().map(str::to_owned), merges: Some(merge_file) }
    }

    #[test]
    fn the_files_of_gpt2_are_those_that_were_published() {
        let (vocab, merges) = gpt2_vocab_and_merges().unwrap();
        assert_eq!(
            sha256(&vocab),
            "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"
        );
        assert_eq!(
            sha256(&merges),
            "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
        );
    }

    #[test]
    fn every_way_to_gpt2_gives_its_ids() {
        let folder = tempfile::tempdir().unwrap();
        let two_files = gpt2_files(folder.path(), |vocab, merges| (vocab, merges));
        let expected = Tokenizer::load("gpt2").unwrap().encode(TEXT).unwrap();
        for (kind, files) in [
            (TokenizerType::HfGpt2, TokenizerFiles::default()),
            (TokenizerType::HfGpt2, files("gpt2")),
            (TokenizerType::Hf, files("gpt2")),
            (TokenizerType::Gpt2Bpe, two_files),
            (TokenizerType::Tiktoken, files("gpt2")),
            (TokenizerType::Tiktoken, files("r50k_base")),
        ] {
            let tokenizer = kind.load(&files).unwrap();
            assert_eq!(tokenizer.encode(TEXT).unwrap(), expected, "{kind:?}");
            assert_eq!(tokenizer.vocab_size(), 50_257);
            assert_eq!(tokenizer.end_of_document().unwrap(), 50_256);
            // What ends a document is a token in a text to some.
            let in_text = tokenizer.encode("a<|endoftext|>").unwrap();
            let is_token = in_text.contains(&50_256);
            let takes_tokens = matches!(kind, TokenizerType::HfGpt2 | TokenizerType::Hf);
            assert_eq!(is_token, takes_tokens, "{kind:?}: {in_text:?}");
        }
    }

    #[test]
    fn bytes_are_their_own_ids() {
        let bytes = TokenizerType::CharLevel.load(&TokenizerFiles::default()).unwrap();
        assert_eq!(bytes.encode("a\u{e9}\u{1}").unwrap(), [97, 0xc3, 0xa9, 1]);
        assert_eq!((bytes.vocab_size(), bytes.end_of_document().unwrap()), (512, 0));
    }

    #[test]
    fn what_is_missing_or_of_no_use_is_named() {
        let refused =
            |kind: TokenizerType, files: &TokenizerFiles| kind.load(files).unwrap_err().to_string();
        let none = TokenizerFiles::default();
        assert_eq!(
            refused(TokenizerType::Hf, &none),
            "HFTokenizer needs --vocab-file; give a tokenizer.json"
        );
        assert_eq!(
            refused(TokenizerType::Gpt2Bpe, &none),
            "GPT2BPETokenizer needs --vocab-file; give a vocab.json"
        );
        assert_eq!(
            refused(TokenizerType::Gpt2Bpe, &files("vocab.json")),
            "GPT2BPETokenizer needs --merge-file; give a merges.txt"
        );
        assert_eq!(
            refused(TokenizerType::CharLevel, &files("x")),
            "--vocab-file has no effect on CharLevelTokenizer; leave it out"
        );
        let merges = TokenizerFiles { merges: Some("merges.txt".into()), ..none.clone() };
        assert_eq!(
            refused(TokenizerType::HfGpt2, &merges),
            "--merge-file has no effect on HFGPT2Tokenizer; leave it out"
        );
        assert_eq!(
            refused(TokenizerType::Tiktoken, &none),
            "TiktokenTokenizer needs --vocab-file; give an encoding such as gpt2"
        );
        assert_eq!(
            refused(TokenizerType::Tiktoken, &files("cl100k_base")),
            "TiktokenTokenizer: the vocabulary of \"cl100k_base\" is not built in; use gpt2 or r50k_base, \
             or HFTokenizer with a tokenizer.json of that vocabulary"
        );
        assert_eq!(
            refused(TokenizerType::Spm, &files("x.model")),
            "SPMTokenizer: models of SentencePiece cannot be read; convert it to a tokenizer.json, as \
             transformers does when it saves it, and use HFTokenizer"
        );
    }

    #[test]
    fn files_that_do_not_belong_together_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let end = "give the two files that belong to a model of GPT-2";
        let refused = |change: fn(String, String) -> (String, String)| {
            let files = gpt2_files(folder.path(), change);
            TokenizerType::Gpt2Bpe.load(&files).unwrap_err().to_string()
        };
        let text = refused(|_, merges| ("[1]".into(), merges));
        assert!(
            text.starts_with(&format!(
                "{}: not a vocabulary of tokens and ids: ",
                at("vocab.json")
            )),
            "{text}"
        );
        assert!(text.ends_with(end), "{text}");
        assert_eq!(
            refused(|vocab, merges| (vocab, merges.replace("\u{120} a\n", "\u{120}a\n"))),
            format!("{}, line 3: not a pair of tokens; {end}", at("merges.txt"))
        );
        let text = refused(|_, merges| (r#"{"a": 0}"#.into(), merges));
        let both =
            format!("{} and {}: not a usable tokenizer: ", at("vocab.json"), at("merges.txt"));
        assert!(text.starts_with(&both), "{text}");
    }

    #[test]
    fn a_vocabulary_without_an_end_of_text_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let files = gpt2_files(folder.path(), |vocab, merges| {
            (vocab.replace("<|endoftext|>", "<|other|>"), merges)
        });
        let tokenizer = TokenizerType::Gpt2Bpe.load(&files).unwrap();
        assert_eq!(
            tokenizer.end_of_document().unwrap_err().to_string(),
            "--append-eod needs the token <|endoftext|>, which the vocabulary does not have; leave \
             --append-eod out, or add the token to the tokenizer"
        );
    }
}
