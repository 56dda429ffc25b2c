//! JSON text exactly as Python's `json.dumps` writes it.
//!
//! Its default style: `", "` between items, `": "` after keys, ASCII only. Sorting the keys is up to
//! the serialized type: declare fields alphabetically and use `BTreeMap`.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

/// The text of `value` in Python's style.
pub(super) fn to_python_json(value: &impl Serialize) -> String {
    let mut text = Vec::new();
    value
        .serialize(&mut Serializer::with_formatter(&mut text, PythonStyle))
        .expect("writing to memory cannot fail, and the types serialized here have string keys");
    String::from_utf8(text).expect("the formatter writes ASCII only")
}

struct PythonStyle;

impl PythonStyle {
    fn separate<W: ?Sized + Write>(writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }
}

impl Formatter for PythonStyle {
    fn begin_array_value<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        Self::separate(writer, first)
    }

    fn begin_object_key<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        Self::separate(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }

    /// Called with the stretches between the characters that JSON itself requires to be escaped;
    /// those serde_json escapes as Python does.
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(|c: char| !matches!(c, ' '..='~')) {
            let (plain, tail) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let mut chars = tail.chars();
            for unit in chars.next().map(|c| c.encode_utf16(&mut [0; 2]).to_vec()).iter().flatten()
            {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected texts printed by Python 3.11.
    #[test]
    fn strings_are_escaped_as_in_python() {
        let cases = [
            ("plain /", r#""plain /""#),
            ("\"\\", r#""\"\\""#),
            ("\u{8}\t\n\u{c}\r", r#""\b\t\n\f\r""#),
            ("\0\u{1f}\u{7f}", r#""\u0000\u001f\u007f""#),
            ("é€", r#""\u00e9\u20ac""#),
            ("a😀b", r#""a\ud83d\ude00b""#),
        ];
        for (text, json) in cases {
            assert_eq!(to_python_json(&text), json);
        }
    }

    #[test]
    fn separators_are_those_of_python() {
        let value: serde_json::Value = serde_json::from_str(r#"{"a":[],"b":[1,null,{}]}"#).unwrap();
        assert_eq!(to_python_json(&value), r#"{"a": [], "b": [1, null, {}]}"#);
    }
}
