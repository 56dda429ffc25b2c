//! The encodings of tiktoken, by their names.
//!
//! Those whose ids are GPT-2's are computed by its built-in tokenizer, which is faster; the others by
//! `tiktoken-rs`, which has their vocabularies in it. Numbers of ids and ends of texts are those of tiktoken's
//! `openai_public.py`.

use std::collections::HashSet;
use std::fmt;

use tiktoken_rs::CoreBPE;

use crate::error::{Error, ErrorKind, Result};

/// Encodings whose ids are those of GPT-2.
pub(super) const OF_GPT2: [&str; 2] = ["gpt2", "r50k_base"];

/// An encoding.
#[derive(Clone, Copy)]
pub(super) struct Encoding {
    name: &'static str,
    load: fn() -> &'static CoreBPE,
    /// How many ids there are, with those that stand for nothing.
    pub(super) vocab_size: usize,
    pub(super) end_of_text: u32,
}

const ENCODINGS: [Encoding; 5] = [
    Encoding {
        name: "p50k_base",
        load: tiktoken_rs::p50k_base_singleton,
        vocab_size: 50_281,
        end_of_text: 50_256,
    },
    Encoding {
        name: "p50k_edit",
        load: tiktoken_rs::p50k_edit_singleton,
        vocab_size: 50_284,
        end_of_text: 50_256,
    },
    Encoding {
        name: "cl100k_base",
        load: tiktoken_rs::cl100k_base_singleton,
        vocab_size: 100_277,
        end_of_text: 100_257,
    },
    Encoding {
        name: "o200k_base",
        load: tiktoken_rs::o200k_base_singleton,
        vocab_size: 200_019,
        end_of_text: 199_999,
    },
    Encoding {
        name: "o200k_harmony",
        load: tiktoken_rs::o200k_harmony_singleton,
        vocab_size: 201_088,
        end_of_text: 199_999,
    },
];

impl Encoding {
    /// The encoding that is called `name`, unless its ids are GPT-2's.
    pub(super) fn named(name: &str) -> Option<Self> {
        ENCODINGS.into_iter().find(|encoding| encoding.name == name)
    }

    /// The names of all encodings, for the reader of a message.
    pub(super) fn names() -> String {
        let names: Vec<_> =
            OF_GPT2.into_iter().chain(ENCODINGS.map(|encoding| encoding.name)).collect();
        names.join(", ")
    }

    /// The ids of a text, in which special tokens are text. The first call reads the vocabulary.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if the pattern that splits texts gives up, as tiktoken's does too: that of
    /// `o200k_base` on a million blanks.
    pub(super) fn encode(self, text: &str) -> Result<Vec<u32>> {
        let encoded = (self.load)().encode(text, &HashSet::new());
        encoded.map(|(ids, _)| ids).map_err(|e| {
            Error::new(
                ErrorKind::Corrupt,
                format!("{} of tiktoken cannot split a text: {e}", self.name),
                "shorten its runs of blanks and newlines",
            )
        })
    }
}

impl fmt::Debug for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Encoding").field(&self.name).finish()
    }
}

#[cfg(test)]
impl Encoding {
    /// All but those of GPT-2.
    pub(super) fn all() -> [Self; 5] {
        ENCODINGS
    }

    pub(super) fn name(self) -> &'static str {
        self.name
    }

    /// What the token `id` stands for.
    pub(super) fn token(self, id: u32) -> Option<Vec<u8>> {
        (self.load)().decode_bytes(&[id]).ok()
    }
}
