//! What a source stores to a document: lines of JSON with the keys of C4 or of the Pile, or text as it is.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::source::chunk::Raw;

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

/// What an object has under keys; it may have others, whatever they hold. Strings without escapes are borrowed from the line.
struct TextsUnder<const N: usize>([&'static str; N]);

impl<'de, const N: usize> DeserializeSeed<'de> for &TextsUnder<N> {
    type Value = [Text<'de>; N];

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for &TextsUnder<N> {
    type Value = [Text<'de>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut found = [const { Text::Missing }; N];
        while let Some(Text::Is(key)) = object.next_key()? {
            match self.0.iter().position(|wanted| *wanted == key) {
                // Of a key that is there twice the last counts, as in Python.
                Some(i) => found[i] = object.next_value()?,
                None => {
                    object.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

/// What an object has under a key.
#[derive(Default)]
enum Text<'a> {
    #[default]
    Missing,
    Null,
    Is(Cow<'a, str>),
}

impl<'a> Text<'a> {
    fn under(self, key: &str) -> Result<Cow<'a, str>, String> {
        match self {
            Self::Missing => Err(format!("the key {key:?} is missing")),
            Self::Null => Err(format!("the key {key:?} is null")),
            Self::Is(text) => Ok(text),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Text::Null)
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Text::Is(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Text::Is(Cow::Owned(text.to_owned())))
    }
}

impl Record {
    /// Parses a line with all three keys.
    ///
    /// # Errors
    /// What is wrong with the line, as a clause.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        const KEYS: [&str; 3] = ["text", "timestamp", "url"];
        let [text, timestamp, url] = parse_object(line, &TextsUnder(KEYS))?;
        Ok(Self {
            text: text.under(KEYS[0])?.into_owned(),
            timestamp: timestamp.under(KEYS[1])?.into_owned(),
            url: url.under(KEYS[2])?.into_owned(),
        })
    }
}

/// A line of the Pile names the subset that it is of: `{"text": ..., "meta": {"pile_set_name": ...}}`.
#[derive(Deserialize)]
struct PileLine<'a> {
    #[serde(borrow, default)]
    text: Text<'a>,
    #[serde(borrow)]
    meta: Option<PileMeta<'a>>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object under the key \"meta\"")]
struct PileMeta<'a> {
    #[serde(borrow, default)]
    pile_set_name: Text<'a>,
}

/// A document of the Pile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PileRecord<'a> {
    /// The document.
    pub text: Cow<'a, str>,
    /// The subset that it is of, such as `Wikipedia (en)`.
    pub subset: Cow<'a, str>,
}

impl<'a> PileRecord<'a> {
    /// Parses a line with the keys `text` and `meta.pile_set_name`.
    ///
    /// # Errors
    /// What is wrong with the line, as a clause.
    pub fn parse(line: &'a [u8]) -> Result<Self, String> {
        let line = parse_object(line, PhantomData::<PileLine<'a>>)?;
        let subset = line.meta.map_or(Text::Missing, |meta| meta.pile_set_name);
        let subset = subset.under("meta.pile_set_name")?;
        Ok(Self { text: line.text.under("text")?, subset })
    }
}

/// The text of a document, whatever else is stored with it.
///
/// # Errors
/// What is wrong with it, as a clause.
pub(crate) fn text_of(raw: Raw<'_>) -> Result<Cow<'_, str>, String> {
    match raw {
        Raw::Json(line) => {
            const KEY: &str = "text";
            let [text] = parse_object(line, &TextsUnder([KEY]))?;
            text.under(KEY)
        }
        Raw::Bytes(bytes) => std::str::from_utf8(bytes)
            .map(Cow::Borrowed)
            .map_err(|e| format!("not UTF-8 text after byte {}", e.valid_up_to())),
        Raw::Null => Err("the text is missing (null)".to_owned()),
        Raw::TooLong => Err("longer than 256 MiB, which no document may be".to_owned()),
        Raw::Unreadable { problem, .. } => Err(problem.to_owned()),
        Raw::Ids(_) => Err("it holds token ids and no text".to_owned()),
    }
}

/// What to do about a file whose first line this is, if its JSON seems not to be one object a line.
pub(crate) fn remedy_for_other_json(line: &[u8]) -> Option<&'static str> {
    match line.trim_ascii() {
        [b'[', ..] => Some(
            "one JSON object per line is expected, and this looks like an array: `jq -c '.[]' FILE` writes its elements so",
        ),
        b"{" => Some(
            "one JSON object per line is expected, and this looks like one over several lines: `jq -c . FILE` writes it so",
        ),
        _ => None,
    }
}

fn parse_object<'a, T: DeserializeSeed<'a>>(line: &'a [u8], seed: T) -> Result<T::Value, String> {
    // serde would take ["a", "b", "c"] for the three keys in order.
    if line.trim_ascii_start().first() != Some(&b'{') {
        return Err("not a JSON object".to_owned());
    }
    // The position within the line is kept; serde's "line 1" would be taken for the file's.
    let mut json = serde_json::Deserializer::from_slice(line);
    let parsed = seed.deserialize(&mut json).and_then(|object| json.end().map(|()| object));
    parsed.map_err(|error| {
        let whole = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let what = whole.strip_suffix(&place).unwrap_or(&whole);
        format!("not a JSON object with text keys: {what} at column {}", error.column())
    })
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
        let alone = text_of(Raw::Json(br#"{"id": 3, "text": "alone"}"#)).unwrap();
        assert!(matches!(alone, Cow::Borrowed("alone")), "{alone:?}");
    }

    #[test]
    fn what_other_keys_hold_is_nobodys_concern() {
        let text = |line: &'static str| text_of(Raw::Json(line.as_bytes()));
        for line in [
            r#"{"text":"a","timestamp":1556195574}"#,
            r#"{"url":["b"],"text":"a","url":{"text":1e400}}"#,
            r#"{"text":"first","text":"a","url":null}"#,
            r#"{"te\u0078t":"a","x":"\ud800"}"#,
        ] {
            assert_eq!(text(line).unwrap(), "a", "{line}");
        }
        assert_eq!(text(r#"{"text":"a","text":null}"#).unwrap_err(), r#"the key "text" is null"#);
        assert_eq!(
            text(r#"{"text":"a","timestamp":}"#).unwrap_err(),
            "not a JSON object with text keys: expected value at column 25"
        );
        let twice = Record::parse(br#"{"text":"a","url":"b","timestamp":"c","url":"d"}"#).unwrap();
        assert_eq!(twice.url, "d");
        assert_eq!(
            Record::parse(br#"{"text":"a","timestamp":1556195574,"url":"b"}"#).unwrap_err(),
            "not a JSON object with text keys: invalid type: integer `1556195574`, expected a string \
             at column 34"
        );
    }

    #[test]
    fn a_line_of_the_pile_names_its_subset() {
        let line = br#"{"text": "a", "meta": {"pile_set_name": "Pile-CC", "n": 1}}"#;
        let record = PileRecord::parse(line).unwrap();
        assert_eq!(record, PileRecord { text: "a".into(), subset: "Pile-CC".into() });
        let problem = |line: &[u8]| PileRecord::parse(line).unwrap_err();
        let no_subset = r#"the key "meta.pile_set_name" is missing"#;
        assert_eq!(problem(br#"{"text": "a", "meta": {}}"#), no_subset);
        assert_eq!(problem(br#"{"text": "a"}"#), no_subset);
        let no_text = r#"the key "text" is missing"#;
        assert_eq!(problem(br#"{"meta": {"pile_set_name": "x"}}"#), no_text);
        assert_eq!(
            problem(br#"{"text": "a", "meta": {"pile_set_name": null}}"#),
            r#"the key "meta.pile_set_name" is null"#
        );
        assert_eq!(
            problem(br#"{"text": "a", "meta": "Pile-CC"}"#),
            "not a JSON object with text keys: invalid type: string \"Pile-CC\", expected an object \
             under the key \"meta\" at column 31"
        );
    }

    #[test]
    fn text_that_is_none_is_said_to_be() {
        assert_eq!(text_of(Raw::Bytes(b"caf\xc3\xa9")).unwrap(), "caf\u{e9}");
        let problem = |raw| text_of(raw).unwrap_err();
        assert_eq!(problem(Raw::Bytes(b"caf\xe9")), "not UTF-8 text after byte 3");
        assert_eq!(problem(Raw::Null), "the text is missing (null)");
        assert_eq!(problem(Raw::Ids(&[1])), "it holds token ids and no text");
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
        assert_eq!(
            problem(br#"{"text":null,"timestamp":"","url":""}"#),
            r#"the key "text" is null"#
        );
        assert_eq!(
            problem(br#"{"text":{"en":"a"}}"#),
            "not a JSON object with text keys: invalid type: map, expected a string at column 9"
        );
    }
}
