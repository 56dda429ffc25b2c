//! Texts of JSON, which may hold what UTF-8 cannot.

use std::borrow::Cow;
use std::cmp::Ordering;

/// A text of JSON: what a Python `str` holds after `json.loads`.
///
/// An escape may be half of a surrogate pair, as in `"\ud83d"`. Python reads and prints such texts,
/// which are common where programs cut texts of UTF-16; no UTF-8 text can hold them.
///
/// ```
/// use mds::format::python::{Json, JsonText};
///
/// # fn main() -> Result<(), mds::format::python::TextError> {
/// assert_eq!(JsonText::from("é").as_str(), Some("é"));
/// let Json::Str(half) = Json::parse(r#""cut \ud83d""#)? else { panic!("this is a text") };
/// assert_eq!(half.as_str(), None);
/// assert_eq!(half.to_string_lossy(), "cut \u{fffd}");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JsonText(Units);

/// Equal texts are of the same variant: `Utf16` holds at least one half pair.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Units {
    Utf8(String),
    Utf16(Vec<u16>),
}

impl JsonText {
    /// The text of UTF-16, in which surrogates may stand alone.
    pub fn from_utf16(units: &[u16]) -> Self {
        Self(match String::from_utf16(units) {
            Ok(text) => Units::Utf8(text),
            Err(_) => Units::Utf16(units.to_vec()),
        })
    }

    /// The text, if UTF-8 can hold it.
    pub fn as_str(&self) -> Option<&str> {
        match &self.0 {
            Units::Utf8(text) => Some(text),
            Units::Utf16(_) => None,
        }
    }

    /// The text, with `U+FFFD` in the place of each half of a pair.
    pub fn to_string_lossy(&self) -> Cow<'_, str> {
        match &self.0 {
            Units::Utf8(text) => Cow::Borrowed(text),
            Units::Utf16(units) => Cow::Owned(String::from_utf16_lossy(units)),
        }
    }

    /// The text, or itself if UTF-8 cannot hold it.
    ///
    /// # Errors
    ///
    /// The text itself.
    pub fn into_string(self) -> Result<String, Self> {
        match self.0 {
            Units::Utf8(text) => Ok(text),
            units @ Units::Utf16(_) => Err(Self(units)),
        }
    }

    /// Appends a text.
    pub(super) fn push_str(&mut self, text: &str) {
        match &mut self.0 {
            Units::Utf8(whole) => whole.push_str(text),
            Units::Utf16(units) => units.extend(text.encode_utf16()),
        }
    }

    /// Appends a character, or half of a pair whose other half is not next to it.
    pub(super) fn push(&mut self, c: Result<char, u16>) {
        match (c, &mut self.0) {
            (Ok(c), _) => self.push_str(c.encode_utf8(&mut [0; 4])),
            (Err(half), Units::Utf16(units)) => units.push(half),
            (Err(half), Units::Utf8(text)) => {
                self.0 = Units::Utf16(text.encode_utf16().chain([half]).collect());
            }
        }
    }

    /// The characters and the halves of pairs.
    pub(super) fn chars(&self) -> impl Iterator<Item = Result<char, u16>> {
        let (text, units) = match &self.0 {
            Units::Utf8(text) => (text.as_str(), [].as_slice()),
            Units::Utf16(units) => ("", units.as_slice()),
        };
        let units = char::decode_utf16(units.iter().copied());
        text.chars().map(Ok).chain(units.map(|c| c.map_err(|half| half.unpaired_surrogate())))
    }
}

/// As Python compares: by code points, of which each half of a pair is one.
impl Ord for JsonText {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            (Units::Utf8(a), Units::Utf8(b)) => a.cmp(b), // UTF-8 sorts as its code points do
            _ => {
                let code_point = |c: Result<char, u16>| c.map_or_else(u32::from, u32::from);
                self.chars().map(code_point).cmp(other.chars().map(code_point))
            }
        }
    }
}

impl PartialOrd for JsonText {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq<str> for JsonText {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == Some(other)
    }
}

impl Default for JsonText {
    fn default() -> Self {
        Self(Units::Utf8(String::new()))
    }
}

impl From<String> for JsonText {
    fn from(text: String) -> Self {
        Self(Units::Utf8(text))
    }
}

impl From<&str> for JsonText {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_that_are_whole_are_utf8() {
        assert_eq!(JsonText::from_utf16(&[0xd83d, 0xde00]), JsonText::from("😀"));
        let half = JsonText::from_utf16(&[0x41, 0xde00, 0xd83d]);
        assert_eq!(half.as_str(), None);
        assert_eq!(half.to_string_lossy(), "A\u{fffd}\u{fffd}");
        let mut pushed = JsonText::from("A");
        pushed.push(Err(0xde00));
        pushed.push(Err(0xd83d));
        assert_eq!(pushed, half);
        pushed.push_str("é");
        assert_eq!(pushed.clone().into_string(), Err(pushed));
    }

    #[test]
    fn order_is_that_of_code_points() {
        let sorted = [
            JsonText::from("A"),
            JsonText::from_utf16(&[0xd83d]),
            JsonText::from_utf16(&[0xd83d, 0x41]),
            JsonText::from_utf16(&[0xde00]),
            JsonText::from("\u{e000}"),
            JsonText::from("😀"),
            JsonText::from_utf16(&[0xd83d, 0xde00, 0xd83d]),
        ];
        assert!(sorted.is_sorted_by(|a, b| a < b));
    }
}
