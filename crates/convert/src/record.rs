//! One line of a source file to one document.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// A document in C4's shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The document.
    pub text: String,
    /// When it was crawled, as the source writes it.
    pub timestamp: String,
    /// Where it was found.
    pub url: String,
}

/// A line that is not a document, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadLine {
    /// The file's name.
    pub file: String,
    /// The line's number in the uncompressed file, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub problem: String,
}

impl std::fmt::Display for BadLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, line {}: {}", self.file, self.line, self.problem)
    }
}

/// The keys of interest; a line may hold others. Strings without escapes are borrowed from the line.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow)]
    timestamp: Option<Cow<'a, str>>,
    #[serde(borrow)]
    url: Option<Cow<'a, str>>,
}

impl Record {
    /// Parses a line with all three keys.
    ///
    /// # Errors
    /// What is wrong with the line, as a clause.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        let line = Line::parse(line)?;
        let missing = |key: &str| format!("the key {key:?} is missing");
        Ok(Self {
            text: line.text.ok_or_else(|| missing("text"))?.into_owned(),
            timestamp: line.timestamp.ok_or_else(|| missing("timestamp"))?.into_owned(),
            url: line.url.ok_or_else(|| missing("url"))?.into_owned(),
        })
    }
}

/// The `text` of a line, whatever else it holds.
///
/// # Errors
/// What is wrong with the line, as a clause.
pub(crate) fn parse_text(line: &[u8]) -> Result<Cow<'_, str>, String> {
    Line::parse(line)?.text.ok_or_else(|| "the key \"text\" is missing".to_owned())
}

impl<'a> Line<'a> {
    fn parse(line: &'a [u8]) -> Result<Self, String> {
        // serde would take ["a", "b", "c"] for the three keys in order.
        if line.trim_ascii_start().first() != Some(&b'{') {
            return Err("not a JSON object".to_owned());
        }
        // The position within the line is kept; serde's "line 1" would be taken for the file's.
        serde_json::from_slice(line).map_err(|error| {
            let whole = error.to_string();
            let place = format!(" at line {} column {}", error.line(), error.column());
            let what = whole.strip_suffix(&place).unwrap_or(&whole);
            format!("not a JSON object with text keys: {what} at column {}", error.column())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_c4_is_a_record() {
        let line = br#"{"text":"a \"b\"\n\u00e9","timestamp":"2019-04-25T12:57:54Z","url":"https://x/","n":[1,{"a":null}]}"#;
        assert_eq!(
            Record::parse(line).unwrap(),
            Record {
                text: "a \"b\"\n\u{e9}".into(),
                timestamp: "2019-04-25T12:57:54Z".into(),
                url: "https://x/".into()
            }
        );
        assert_eq!(parse_text(br#"{"id": 3, "text": "alone"}"#).unwrap(), "alone");
    }

    #[test]
    fn problems_are_named_with_their_column() {
        let problem = |line: &[u8]| Record::parse(line).unwrap_err();
        assert_eq!(problem(br#"{"text":"a","timestamp":"b"}"#), r#"the key "url" is missing"#);
        assert_eq!(
            problem(br#"{"text":"a"#),
            "not a JSON object with text keys: EOF while parsing a string at column 10"
        );
        assert_eq!(
            problem(br#"{"text":7}"#),
            "not a JSON object with text keys: invalid type: integer `7`, expected a string at column 9"
        );
        for line in [
            &br#"["a","b","c"]"#[..],
            b"null",
            b"",
            b"x",
            b"{\"text\":\"\xff\"}",
            br#"{"text":"\ud800"}"#,
            br#"{"text":"a"} x"#,
        ] {
            assert!(Record::parse(line).is_err(), "{:?}", String::from_utf8_lossy(line));
        }
        assert!(
            problem(br#"{"text":null,"timestamp":"","url":""}"#).contains("\"text\" is missing")
        );
    }
}
