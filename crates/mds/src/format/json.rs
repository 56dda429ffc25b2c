//! JSON text exactly as Python's `json.dumps` writes it.
//!
//! Its default style: `", "` between items, `": "` after keys, ASCII only. Sorting the keys is up to
//! the serialized type: declare fields alphabetically and use `BTreeMap`.

use serde::Serialize;

use super::python::Json;

/// The text of `value` in Python's style.
pub(super) fn to_python_json(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).expect("the types serialized here have string keys");
    Json::from(&value).dumps()
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
