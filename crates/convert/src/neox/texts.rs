//! The texts of one document, under the keys that are asked for.

use std::borrow::Cow;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::documents::{Content, Document};
use crate::error::{Error, ErrorKind, Result};

/// The key of a document that is no JSON object.
const PLAIN: &str = "text";

/// What stands between the texts of a list.
const BETWEEN_PARAGRAPHS: &str = "\n\n";

/// The text of `document` under each of `keys`.
///
/// # Errors
/// [`ErrorKind::Corrupt`], with the place in the file, if the document is not UTF-8, not JSON, or has no
/// text under a key.
pub(super) fn of<'a>(document: &'a Document, keys: &[String]) -> Result<Vec<Cow<'a, str>>> {
    let wrong = |problem: String| {
        Error::new(
            ErrorKind::Corrupt,
            format!("{}: {problem}", document.place),
            "correct it, or take it out",
        )
    };
    let bytes = match &document.content {
        Content::Json(bytes) | Content::Text(bytes) => bytes,
    };
    let text = std::str::from_utf8(bytes)
        .map_err(|e| wrong(format!("byte {} of it is not UTF-8", e.valid_up_to())))?;
    let found = match &document.content {
        Content::Text(_) => plain(keys, Cow::Borrowed(text)),
        Content::Json(_) => under_keys(text.trim_ascii_end(), keys)
            .map_err(|e| wrong(format!("not JSON with texts: {}", in_words(&e))))?,
    };
    let missing = |key: &String| match &document.content {
        Content::Text(_) => wrong(format!("plain text has no key {key:?}, but {PLAIN:?} alone")),
        Content::Json(_) => wrong(format!("the key {key:?} is missing")),
    };
    let text_of = |(key, text): (&String, Option<Cow<'a, str>>)| text.ok_or_else(|| missing(key));
    keys.iter().zip(found).map(text_of).collect()
}

/// serde's words, with the column alone: the line is that of the file.
pub(super) fn in_words(error: &serde_json::Error) -> String {
    let whole = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let what = whole.strip_suffix(&place).unwrap_or(&whole);
    format!("{what} at column {}", error.column())
}

fn under_keys<'a>(
    json: &'a str,
    keys: &[String],
) -> Result<Vec<Option<Cow<'a, str>>>, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let found = deserializer.deserialize_any(Keys(keys))?;
    deserializer.end()?;
    Ok(found)
}

fn plain<'a>(keys: &[String], text: Cow<'a, str>) -> Vec<Option<Cow<'a, str>>> {
    keys.iter().map(|key| (key == PLAIN).then(|| text.clone())).collect()
}

/// Reads a JSON object, or a string that stands for its text.
struct Keys<'k>(&'k [String]);

impl<'de> Visitor<'de> for Keys<'_> {
    type Value = Vec<Option<Cow<'de, str>>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a text")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(plain(self.0, Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(plain(self.0, Cow::Owned(text.to_owned())))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut found = vec![None; self.0.len()];
        while let Some(wanted) = object.next_key_seed(Position(self.0))? {
            match wanted {
                // Of a key that is there twice the last counts, as in Python.
                Some(i) => found[i] = Some(object.next_value_seed(TextUnder(&self.0[i]))?),
                None => {
                    object.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

/// Which of the keys a key is.
struct Position<'k>(&'k [String]);

impl<'de> DeserializeSeed<'de> for Position<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Position<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|wanted| wanted == key))
    }
}

/// Reads a text, or a list of texts, which are joined.
struct TextUnder<'k>(&'k str);

impl<'de> DeserializeSeed<'de> for TextUnder<'_> {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for TextUnder<'_> {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a text or a list of texts under the key {:?}", self.0)
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut joined = String::new();
        let mut is_first = true;
        while let Some(paragraph) = list.next_element::<serde_json::Value>()? {
            let Some(paragraph) = paragraph.as_str() else {
                let key = self.0;
                return Err(A::Error::custom(format!(
                    "the list under {key:?} holds not texts alone"
                )));
            };
            if !is_first {
                joined.push_str(BETWEEN_PARAGRAPHS);
            }
            joined.push_str(paragraph);
            is_first = false;
        }
        Ok(Cow::Owned(joined))
    }
}

#[cfg(test)]
mod tests {
    use super::super::documents::Place;
    use super::*;

    fn json(line: &str) -> Document {
        Document { place: Place::line("a.jsonl", 3), content: Content::Json(line.into()) }
    }

    fn keys(keys: &[&str]) -> Vec<String> {
        keys.iter().map(|&key| key.to_owned()).collect()
    }

    fn read(line: &str, wanted: &[&str]) -> Result<Vec<String>, String> {
        let document = json(line);
        let found = of(&document, &keys(wanted)).map_err(|e| e.to_string())?;
        Ok(found.into_iter().map(Cow::into_owned).collect())
    }

    #[test]
    fn each_key_gives_its_own_text() {
        let line = r#"{"title": "T", "text": "a\nb", "meta": {"text": [1, null]}, "n": 1e400}"#;
        assert_eq!(read(line, &["text"]).unwrap(), ["a\nb"]);
        assert_eq!(read(line, &["text", "title"]).unwrap(), ["a\nb", "T"]);
        assert_eq!(read(r#"{"text": "first", "text": "last"}"#, &["text"]).unwrap(), ["last"]);
    }

    #[test]
    fn lists_are_joined_with_blank_lines_and_texts_stand_for_themselves() {
        assert_eq!(read(r#"{"text": ["a", "b", ""]}"#, &["text"]).unwrap(), ["a\n\nb\n\n"]);
        assert_eq!(read(r#"{"text": []}"#, &["text"]).unwrap(), [""]);
        assert_eq!(read(r#""alone""#, &["text"]).unwrap(), ["alone"]);
        assert_eq!(read(r#""al\u006fne""#, &["text"]).unwrap(), ["alone"]);
    }

    #[test]
    fn what_has_no_text_is_named_with_its_place() {
        let refused = |line: &str, keys: &[&str]| read(line, keys).unwrap_err();
        let end = "; correct it, or take it out";
        assert_eq!(
            refused(r#"{"text": "a"}"#, &["text", "title"]),
            format!("a.jsonl, line 3: the key \"title\" is missing{end}")
        );
        assert_eq!(
            refused(r#""alone""#, &["title"]),
            format!("a.jsonl, line 3: the key \"title\" is missing{end}")
        );
        assert_eq!(
            refused(r#"{"text": null}"#, &["text"]),
            format!(
                "a.jsonl, line 3: not JSON with texts: invalid type: null, expected a text or a list of \
                 texts under the key \"text\" at column 13{end}"
            )
        );
        assert_eq!(
            refused(r#"{"text": ["a", 1]}"#, &["text"]),
            format!(
                "a.jsonl, line 3: not JSON with texts: the list under \"text\" holds not texts alone at \
                 column 17{end}"
            )
        );
        assert_eq!(
            refused("[1]", &["text"]),
            format!(
                "a.jsonl, line 3: not JSON with texts: invalid type: sequence, expected an object or a \
                 text at column 1{end}"
            )
        );
        assert!(refused(r#"{"text": "a"} x"#, &["text"]).contains("trailing characters at column"));
        assert!(refused(r#"{"text": "a"#, &["text"]).contains("EOF while parsing a string"));
    }

    #[test]
    fn what_is_not_utf_8_is_refused() {
        let place = Place::file("a.txt");
        let text = Document { place: place.clone(), content: Content::Text(b"abc\xff".to_vec()) };
        assert_eq!(
            of(&text, &keys(&["text"])).unwrap_err().to_string(),
            "a.txt: byte 3 of it is not UTF-8; correct it, or take it out"
        );
        let text = Document { place, content: Content::Text(b"abc".to_vec()) };
        assert_eq!(
            of(&text, &keys(&["title"])).unwrap_err().to_string(),
            "a.txt: plain text has no key \"title\", but \"text\" alone; correct it, or take it out"
        );
    }
}
