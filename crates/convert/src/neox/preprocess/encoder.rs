//! One document to ids and labels, under each key.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, Result};
use crate::neox::chats::{ChatEncoder, Rewards};
use crate::neox::documents::{Content, Document};
use crate::neox::ftfy::Ftfy;
use crate::neox::texts;
use crate::neox::tokenizers::NeoxTokenizer;

/// The label of a token that is not to be learned.
pub(in crate::neox) const IGNORED: i64 = -100;

/// What there is under the keys, and what is made of it.
#[derive(Debug)]
pub enum Encoder {
    /// Texts.
    Texts(TextEncoder),
    /// Chats: lists of messages.
    Chats(Box<ChatEncoder>),
}

/// What makes ids of texts.
#[derive(Debug)]
pub struct TextEncoder {
    /// What makes ids of a text.
    pub tokenizer: NeoxTokenizer,
    /// What repairs each text before that.
    pub ftfy: Option<Ftfy>,
    /// Whether each document ends with a token that says so.
    pub append_eod: bool,
    /// Where this is not empty, labels are written too; up to the first occurrence of these ids and with
    /// it they are -100.
    pub mask_before: Vec<u32>,
}

/// One document as ids.
pub(super) struct Encoded {
    /// Bytes of its texts, or of its JSON if it holds chats.
    pub(super) bytes: u64,
    /// What is under each key.
    pub(super) rows: Vec<Row>,
    /// What a chat is worth, if that is written.
    pub(super) reward: Option<Reward>,
}

/// What a chat is worth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Reward {
    /// 1 or -1.
    Binary(i64),
    Number(f32),
}

/// What is under one key.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::neox) struct Row {
    /// None if it is to be left out.
    pub(in crate::neox) ids: Vec<u32>,
    /// As many as there are ids, or none where no labels are written.
    pub(in crate::neox) labels: Vec<i64>,
}

impl Encoder {
    /// One more than the largest id.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.tokenizer.vocab_size(),
            Self::Chats(chats) => chats.vocab_size(),
        }
    }

    /// The version of ftfy, if texts are repaired.
    pub(super) fn ftfy_version(&self) -> Option<&str> {
        match self {
            Self::Texts(texts) => texts.ftfy.as_ref().map(Ftfy::version),
            Self::Chats(_) => None,
        }
    }

    /// What stands in the place of a key in the name of its labels, if there are labels.
    pub(super) fn name_of_labels(&self, key: &str) -> Option<String> {
        match self {
            Self::Texts(texts) => (!texts.mask_before.is_empty()).then(|| "label".to_owned()),
            Self::Chats(chats) => chats.has_labels().then(|| format!("{key}_label")),
        }
    }

    /// What is written of rewards, if they are.
    pub(super) fn rewards(&self) -> Option<Rewards> {
        match self {
            Self::Texts(_) => None,
            Self::Chats(chats) => chats.rewards().map(|(_, rewards)| rewards),
        }
    }

    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if a document is to end with a token that the vocabulary does not have.
    pub(super) fn check(&self) -> Result<()> {
        match self {
            Self::Texts(texts) => texts.end().map(drop),
            Self::Chats(_) => Ok(()),
        }
    }

    /// # Errors
    /// [`ErrorKind::Corrupt`] with the place of a document that cannot be read.
    pub(super) fn encode(&self, document: &Document, keys: &[String]) -> Result<Encoded> {
        match self {
            Self::Texts(texts) => texts.encode(document, keys),
            Self::Chats(chats) => encode_chats(chats, document, keys),
        }
    }
}

impl TextEncoder {
    /// What each document ends with, if anything.
    fn end(&self) -> Result<Option<u32>> {
        self.append_eod.then(|| self.tokenizer.end_of_document()).transpose()
    }

    fn encode(&self, document: &Document, keys: &[String]) -> Result<Encoded> {
        let mut texts = texts::of(document, keys)?;
        if let Some(ftfy) = &self.ftfy {
            for text in &mut texts {
                *text = Cow::Owned(ftfy.fix_text(text).map_err(|e| e.at(&document.place))?);
            }
        }
        let bytes = texts.iter().map(|text| text.len() as u64).sum();
        let rows = texts.iter().map(|text| {
            let mut ids = self.tokenizer.encode(text).map_err(|e| e.at(&document.place))?;
            if !ids.is_empty() {
                ids.extend(self.end()?);
            }
            let labels = match &*self.mask_before {
                [] => Vec::new(),
                pattern => labels_of(&ids, pattern),
            };
            Ok(Row { ids, labels })
        });
        Ok(Encoded { bytes, rows: rows.collect::<Result<_>>()?, reward: None })
    }
}

fn encode_chats(chats: &ChatEncoder, document: &Document, keys: &[String]) -> Result<Encoded> {
    let wrong = |problem: String| {
        let what = format!("{}: {problem}", document.place);
        Error::new(ErrorKind::Corrupt, what, "correct it, or take it out")
    };
    let Content::Json(json) = &document.content else {
        return Err(wrong("plain text is no chat".to_owned()));
    };
    let object: Map<String, Value> = serde_json::from_slice(json.trim_ascii_end())
        .map_err(|e| wrong(format!("not a JSON object: {}", texts::in_words(&e))))?;
    let under =
        |key: &str| object.get(key).ok_or_else(|| wrong(format!("the key {key:?} is missing")));
    let rows = keys.iter().map(|key| {
        chats.encode(under(key)?).map_err(|fault| {
            let what = format!("{}: the chat under {key:?} {}", document.place, fault.what);
            Error::new(ErrorKind::Corrupt, what, fault.remedy)
        })
    });
    let rows = rows.collect::<Result<_>>()?;
    let reward = chats.rewards().map(|(key, rewards)| match rewards {
        Rewards::Binary => Ok(Reward::Binary(if is_true(under(key)?) { 1 } else { -1 })),
        Rewards::Numbers => number(under(key)?).map(Reward::Number).map_err(|(problem, remedy)| {
            let what = format!("{}: the reward under {key:?} is {problem}", document.place);
            Error::new(ErrorKind::Corrupt, what, remedy)
        }),
    });
    Ok(Encoded { bytes: json.len() as u64, rows, reward: reward.transpose()? })
}

/// A reward as `float32`, or what it is instead and what can be done.
fn number(value: &Value) -> Result<f32, (String, &'static str)> {
    let kind = match value {
        Value::Number(number) => {
            // As numpy rounds it.
            return match number.as_f64().map(|number| number as f32) {
                Some(rounded) if rounded.is_finite() => Ok(rounded),
                _ => Err((
                    format!("{number}, which is too large for float32"),
                    "scale the rewards, or take it out",
                )),
            };
        }
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    Err((
        format!("{kind}, not a number"),
        "correct it, or give --binary-reward, which writes whether it is true",
    ))
}

/// As Python takes it.
fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(entries) => !entries.is_empty(),
    }
}

/// The ids, with -100 up to the end of the first occurrence of `pattern`, if there is one.
fn labels_of(ids: &[u32], pattern: &[u32]) -> Vec<i64> {
    let found = ids.windows(pattern.len()).position(|window| window == pattern);
    let masked = found.map_or(0, |begin| begin + pattern.len());
    let labels = ids.iter().enumerate();
    labels.map(|(i, &id)| if i < masked { IGNORED } else { id.into() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_masked_up_to_the_first_occurrence() {
        assert_eq!(labels_of(&[7, 1, 2, 9, 1, 2, 8], &[1, 2]), [-100, -100, -100, 9, 1, 2, 8]);
        assert_eq!(labels_of(&[1, 1, 2, 9], &[1, 2]), [-100, -100, -100, 9]);
        assert_eq!(labels_of(&[7, 1], &[1]), [-100, -100]);
        assert_eq!(labels_of(&[7, 1], &[1, 2]), [7, 1]);
        assert_eq!(labels_of(&[7], &[1, 2]), [7]);
        assert_eq!(labels_of(&[], &[1]), [0; 0]);
    }

    #[test]
    fn rewards_that_are_numbers_are_rounded_to_float32() {
        let read = |json: &str| number(&serde_json::from_str(json).unwrap());
        assert_eq!(read("0.1"), Ok(0.1_f32));
        assert_eq!(read("-3"), Ok(-3.0));
        // Half way between two of them: to the even one.
        assert_eq!(read("16777217"), Ok(16_777_216.0));
        assert_eq!(read("3.4028235e38"), Ok(f32::MAX));
        let (problem, remedy) = read("-1e39").unwrap_err();
        assert_eq!(problem, "-1e+39, which is too large for float32");
        assert_eq!(remedy, "scale the rewards, or take it out");
    }

    #[test]
    fn rewards_are_true_as_in_python() {
        let judged = |json: &str| is_true(&serde_json::from_str(json).unwrap());
        assert!(["true", "1", "-0.5", "\"no\"", "[0]", "{\"a\": 0}"].into_iter().all(judged));
        assert!(!["false", "null", "0", "0.0", "\"\"", "[]", "{}"].into_iter().any(judged));
    }
}
