//! Numbers and JSON in the exact texts of Python, both ways.
//!
//! The columns `str_int`, `str_float`, `str_decimal` and `json` hold what Python's `str`, `repr` and
//! `json.dumps` print, and Python reads them back with `int`, `float`, `Decimal` and `json.loads`.
//! Here the same texts are written byte for byte and the same texts are accepted, with these
//! exceptions:
//!
//! - digits are ASCII digits: Python also takes those of other scripts, as in `int("١")`
//! - JSON is at most [`MAX_DEPTH`] levels deep, whatever the depth of the calling code

mod decimal;
mod float;
mod integer;
mod json;
#[cfg(test)]
mod oracle_test;

use std::borrow::Cow;

pub use decimal::Decimal;
pub use float::{float_repr, parse_float, write_float_repr};
pub use integer::{Integer, MAX_DIGITS};
pub use json::{Json, JsonText, MAX_DEPTH};

/// Why a text is not a value, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {byte}")]
pub struct TextError {
    /// What was expected or is wrong, such as `expected a value`.
    pub what: Cow<'static, str>,
    /// The offset in the text, in bytes.
    pub byte: usize,
}

impl TextError {
    fn new(what: impl Into<Cow<'static, str>>, byte: usize) -> Self {
        Self { what: what.into(), byte }
    }
}

/// Splits the whitespace off both ends of a number: how many bytes are before it, and its text.
fn trim(text: &str, is_space: fn(char) -> bool) -> (usize, &str) {
    let rest = text.trim_start_matches(is_space);
    (text.len() - rest.len(), rest.trim_end_matches(is_space))
}

/// What `int` and `float` take for whitespace. Unlike `str.strip` and `Decimal`, they do not count
/// the four ASCII separators 0x1c to 0x1f.
fn is_number_space(c: char) -> bool {
    c.is_whitespace()
}

/// The text without its underscores, or `None` if one is not between two digits.
fn without_underscores(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('_') {
        return Some(Cow::Borrowed(text));
    }
    let mut plain = String::with_capacity(text.len());
    let mut parts = text.split('_').peekable();
    while let Some(part) = parts.next() {
        let ends_in_digit = part.ends_with(|c: char| c.is_ascii_digit());
        let next_starts_with_digit = |next: &&str| next.starts_with(|c: char| c.is_ascii_digit());
        if parts.peek().is_some_and(|next| !ends_in_digit || !next_starts_with_digit(next)) {
            return None;
        }
        plain.push_str(part);
    }
    Some(Cow::Owned(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_byte() {
        let error = TextError::new("expected a value", 17);
        assert_eq!(error.to_string(), "expected a value at byte 17");
    }

    #[test]
    fn underscores_stand_between_digits() {
        let cases = [
            ("10", Some("10")),
            ("1_0.5_0", Some("10.50")),
            ("1e1_0", Some("1e10")),
            ("_1", None),
            ("1_", None),
            ("1__0", None),
            ("1_.5", None),
            ("1e_1", None),
            ("_", None),
        ];
        for (text, plain) in cases {
            assert_eq!(without_underscores(text).as_deref(), plain, "{text}");
        }
    }

    /// No parser may panic, and what they accept must be a fixed point of parsing and writing.
    #[test]
    fn random_texts_never_panic() {
        let pieces = [
            "0",
            "1",
            "9",
            "12345678901234567890",
            "_",
            ".",
            "e",
            "E",
            "+",
            "-",
            " ",
            "\t",
            "\n",
            "\u{1c}",
            "\u{a0}",
            "\u{2003}",
            "\0",
            "\u{7f}",
            "é",
            "😀",
            "١",
            "nan",
            "NaN",
            "sNaN",
            "inf",
            "Infinity",
            "null",
            "true",
            "false",
            "[",
            "]",
            "{",
            "}",
            ",",
            ":",
            "\"",
            "\\",
            "\\u",
            "\\ud83d",
            "\\ude00",
            "\\n",
            "a",
            "\"a\":",
            "[]",
            "{}",
            "e+",
            "e-999999999999",
        ];
        let mut state = 1_u64;
        let mut random = move |below: usize| {
            // The generator of Knuth's MMIX.
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let mut accepted = [0; 4];
        for round in 0..200_000 {
            let bytes: Vec<u8>;
            let text = if round % 4 == 0 {
                bytes = (0..random(12)).map(|_| random(256) as u8).collect();
                String::from_utf8_lossy(&bytes).into_owned()
            } else {
                (0..random(9)).map(|_| pieces[random(pieces.len())]).collect()
            };
            if let Some(value) = parse_float(&text) {
                let again = parse_float(&float_repr(value)).unwrap();
                assert!(again == value || value.is_nan() && again.is_nan(), "{text:?}");
                accepted[0] += 1;
            }
            match Integer::parse(&text) {
                Ok(value) => {
                    assert_eq!(Integer::parse(value.as_str()).unwrap(), value);
                    accepted[1] += 1;
                }
                Err(error) => assert!(error.byte <= text.len(), "{text:?}: {error}"),
            }
            match Decimal::parse(&text) {
                Ok(value) => {
                    assert_eq!(Decimal::parse(value.as_str()).unwrap(), value, "{text:?}");
                    accepted[2] += 1;
                }
                Err(error) => assert!(error.byte <= text.len(), "{text:?}: {error}"),
            }
            match Json::parse(&text) {
                Ok(value) => {
                    let dumped = value.dumps();
                    assert_eq!(Json::parse(&dumped).unwrap().dumps(), dumped, "{text:?}");
                    accepted[3] += 1;
                }
                Err(error) => assert!(error.byte <= text.len(), "{text:?}: {error}"),
            }
        }
        assert!(accepted.iter().all(|&count| count > 500), "the texts are too wild: {accepted:?}");
    }
}
