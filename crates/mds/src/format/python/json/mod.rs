//! JSON as `json.dumps` writes it and `json.loads` reads it.

#[cfg(test)]
mod tests;
mod text;

use std::borrow::Cow;
use std::mem;

pub use text::JsonText;

use super::{Integer, TextError, write_float_repr};

/// How deep lists and objects may stand in each other.
///
/// Python has no fixed limit: `json.loads` fails where the stack of the calling code plus the depth
/// of the text pass the recursion limit of 1000. So this reads all that a default Python reads.
pub const MAX_DEPTH: usize = 1000;

/// A value of Python's `json` module.
///
/// Besides JSON proper there are integers of any size and the floats `NaN` and `Infinity`.
///
/// ```
/// use mds::format::python::Json;
///
/// # fn main() -> Result<(), mds::format::python::TextError> {
/// let value = Json::parse(r#"{"b": [1e5, "é"], "a": null}"#)?;
/// assert_eq!(value.dumps(), r#"{"b": [100000.0, "\u00e9"], "a": null}"#);
/// assert_eq!(value.dumps_sorted(), r#"{"a": null, "b": [100000.0, "\u00e9"]}"#);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// `null`, Python's `None`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number without fraction and exponent.
    Int(Integer<'static>),
    /// A number with a fraction or an exponent, `NaN`, `Infinity` or `-Infinity`.
    Float(f64),
    /// A text.
    Str(JsonText),
    /// A list.
    List(Vec<Self>),
    /// The keys and values of a `dict`, in its order. Parsing leaves no key twice.
    Object(Vec<(JsonText, Self)>),
}

impl Json {
    /// Reads what Python's `json.loads` reads. Where a key stands twice, its last value counts, at
    /// the place of the first.
    ///
    /// # Errors
    ///
    /// [`TextError`] if the text is not JSON, and for two texts that are: integers of more than
    /// [`MAX_DIGITS`](super::MAX_DIGITS) digits, which Python refuses too, and what is deeper than
    /// [`MAX_DEPTH`].
    pub fn parse(text: &str) -> Result<Self, TextError> {
        let mut parser = Parser { text, at: 0 };
        if text.starts_with('\u{feff}') {
            return Err(parser.error("expected a value but there is a byte order mark"));
        }
        let value = parser.value()?;
        parser.skip_space();
        if parser.at < text.len() {
            return Err(parser.error("expected the end of the text"));
        }
        Ok(value)
    }

    /// The text of Python's `json.dumps(value)`: ASCII only, `", "` between items, `": "` after keys.
    pub fn dumps(&self) -> String {
        let mut out = Vec::new();
        self.write_dumps(&mut out);
        String::from_utf8(out).expect("only ASCII was written")
    }

    /// Appends the text of [`Json::dumps`].
    pub fn write_dumps(&self, out: &mut Vec<u8>) {
        self.write(out, false);
    }

    /// The text of Python's `json.dumps(value, sort_keys=True)`, sorted by code points.
    pub fn dumps_sorted(&self) -> String {
        let mut out = Vec::new();
        self.write(&mut out, true);
        String::from_utf8(out).expect("only ASCII was written")
    }

    /// The value of a key, if this is an object that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(items) => items.iter().find(|(k, _)| k == key).map(|(_, v)| v),
            _ => None,
        }
    }

    /// The text, if this is one that UTF-8 can hold.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => text.as_str(),
            _ => None,
        }
    }

    /// The number as a float, if this is one. An integer is rounded; `None` if it is too large.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Float(value) => Some(*value),
            Self::Int(value) => value.as_str().parse().ok().filter(|value: &f64| value.is_finite()),
            _ => None,
        }
    }

    /// The integer, if this is one that fits.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Int(value) => value.to_i64(),
            _ => None,
        }
    }

    /// The same value for `serde_json`, or `None` if it cannot hold it: `NaN`, infinities, integers
    /// beyond 64 bits and halves of surrogate pairs.
    pub fn to_serde(&self) -> Option<serde_json::Value> {
        use serde_json::{Number, Value};
        Some(match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => match (value.to_i64(), value.to_u64()) {
                (Some(value), _) => value.into(),
                (None, value) => value?.into(),
            },
            Self::Float(value) => Value::Number(Number::from_f64(*value)?),
            Self::Str(text) => Value::String(text.as_str()?.to_owned()),
            Self::List(items) => {
                let mut array = Vec::with_capacity(items.len());
                for item in items {
                    array.push(item.to_serde()?);
                }
                Value::Array(array)
            }
            Self::Object(items) => {
                let mut values = Vec::with_capacity(items.len());
                for (_, value) in items {
                    values.push(value.to_serde()?);
                }
                serde_object(items, values)?
            }
        })
    }

    fn write(&self, out: &mut Vec<u8>, sorted: bool) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(true) => out.extend_from_slice(b"true"),
            Self::Bool(false) => out.extend_from_slice(b"false"),
            Self::Int(value) => out.extend_from_slice(value.as_str().as_bytes()),
            Self::Float(value) if value.is_nan() => out.extend_from_slice(b"NaN"),
            Self::Float(f64::INFINITY) => out.extend_from_slice(b"Infinity"),
            Self::Float(f64::NEG_INFINITY) => out.extend_from_slice(b"-Infinity"),
            Self::Float(value) => write_float_repr(*value, out),
            Self::Str(text) => write_string(text, out),
            Self::List(items) => {
                out.push(b'[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.extend_from_slice(b", ");
                    }
                    item.write(out, sorted);
                }
                out.push(b']');
            }
            Self::Object(items) if sorted => {
                let mut items: Vec<_> = items.iter().collect();
                items.sort_by(|a, b| a.0.cmp(&b.0));
                write_object(items.into_iter(), out, sorted);
            }
            Self::Object(items) => write_object(items.iter(), out, sorted),
        }
    }
}

fn write_object<'a>(
    items: impl Iterator<Item = &'a (JsonText, Json)>,
    out: &mut Vec<u8>,
    sorted: bool,
) {
    out.push(b'{');
    for (i, (key, value)) in items.enumerate() {
        if i > 0 {
            out.extend_from_slice(b", ");
        }
        write_string(key, out);
        out.extend_from_slice(b": ");
        value.write(out, sorted);
    }
    out.push(b'}');
}

/// Writes a string in quotes: printable ASCII as it is, all else escaped.
fn write_string(text: &JsonText, out: &mut Vec<u8>) {
    out.push(b'"');
    match text.as_str() {
        Some(text) => write_text(text, out),
        None => text.chars().for_each(|c| match c {
            Ok(c) => write_text(c.encode_utf8(&mut [0; 4]), out),
            Err(half) => write_unit(half, out),
        }),
    }
    out.push(b'"');
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(at) =
        rest.bytes().position(|b| !matches!(b, b' '..=b'~') || b == b'"' || b == b'\\')
    {
        let (plain, tail) = rest.split_at(at); // after ASCII only: a border between characters
        out.extend_from_slice(plain.as_bytes());
        let mut chars = tail.chars();
        match chars.next() {
            Some(c @ ('"' | '\\')) => out.extend_from_slice(&[b'\\', c as u8]),
            Some('\n') => out.extend_from_slice(b"\\n"),
            Some('\r') => out.extend_from_slice(b"\\r"),
            Some('\t') => out.extend_from_slice(b"\\t"),
            Some('\u{8}') => out.extend_from_slice(b"\\b"),
            Some('\u{c}') => out.extend_from_slice(b"\\f"),
            Some(c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write_unit(*unit, out);
                }
            }
            None => {}
        }
        rest = chars.as_str();
    }
    out.extend_from_slice(rest.as_bytes());
}

/// Writes `\uXXXX`.
fn write_unit(unit: u16, out: &mut Vec<u8>) {
    const HEX: [u8; 16] = *b"0123456789abcdef";
    let digit = |shift: u32| HEX[usize::from(unit >> shift & 15)];
    out.extend_from_slice(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
}

/// Not inlined: the map's many temporaries would make every level of the recursion larger.
#[inline(never)]
fn serde_object(
    items: &[(JsonText, Json)],
    values: Vec<serde_json::Value>,
) -> Option<serde_json::Value> {
    let keys = items.iter().map(|(key, _)| key.as_str());
    keys.zip(values).map(|(key, value)| Some((key?, value))).collect()
}

impl From<&serde_json::Value> for Json {
    fn from(value: &serde_json::Value) -> Self {
        use serde_json::Value;
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(value), _) => Self::Int(value.into()),
                (None, Some(value)) => Self::Int(value.into()),
                (None, None) => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => Self::Str(text.as_str().into()),
            Value::Array(items) => Self::List(items.iter().map(Self::from).collect()),
            Value::Object(items) => Self::Object(
                items.iter().map(|(key, value)| (key.as_str().into(), Self::from(value))).collect(),
            ),
        }
    }
}

/// Reads one text from the front. `at` is always a border between characters: it moves over ASCII
/// bytes and over whole stretches that end before one.
struct Parser<'a> {
    text: &'a str,
    at: usize,
}

/// A list or an object of which the end has not been read.
enum Open {
    List(Vec<Json>),
    /// The items before, and the key of the value that comes next.
    Object(Vec<(JsonText, Json)>, JsonText),
}

impl<'a> Parser<'a> {
    /// Reads one value. What is open is kept in a list and not on the stack, so that no depth of
    /// the text needs more of it.
    fn value(&mut self) -> Result<Json, TextError> {
        let mut open = Vec::new();
        loop {
            self.skip_space();
            let mut value = match self.peek() {
                Some(bracket @ (b'[' | b'{')) => {
                    if open.len() == MAX_DEPTH {
                        let what = format!("the value is more than {MAX_DEPTH} levels deep");
                        return Err(self.error(what));
                    }
                    self.at += 1;
                    self.skip_space();
                    match bracket {
                        b'[' if self.take(b']') => Json::List(Vec::new()),
                        b'[' => {
                            open.push(Open::List(Vec::new()));
                            continue;
                        }
                        _ if self.take(b'}') => Json::Object(Vec::new()),
                        _ => {
                            open.push(Open::Object(Vec::new(), self.key()?));
                            continue;
                        }
                    }
                }
                Some(b'"') => Json::Str(self.string()?),
                Some(b'-' | b'0'..=b'9') if !self.rest().starts_with("-I") => self.number()?,
                _ => self.word()?,
            };
            // The value is complete, and may be the last one of what is open around it.
            loop {
                match open.last_mut() {
                    None => return Ok(value),
                    Some(Open::List(items)) => {
                        items.push(value);
                        if !self.item_ends(b']', "expected ',' or ']'")? {
                            break;
                        }
                        value = Json::List(mem::take(items));
                    }
                    Some(Open::Object(items, key)) => {
                        items.push((mem::take(key), value));
                        if !self.item_ends(b'}', "expected ',' or '}'")? {
                            *key = self.key()?;
                            break;
                        }
                        value = Json::Object(unique_keys(mem::take(items)));
                    }
                }
                open.pop();
            }
        }
    }

    /// Reads a key and the colon behind it.
    fn key(&mut self) -> Result<JsonText, TextError> {
        self.skip_space();
        if self.peek() != Some(b'"') {
            return Err(self.error("expected a key in double quotes"));
        }
        let key = self.string()?;
        self.skip_space();
        if !self.take(b':') {
            return Err(self.error("expected ':'"));
        }
        Ok(key)
    }

    fn word(&mut self) -> Result<Json, TextError> {
        let words = [
            ("null", Json::Null),
            ("true", Json::Bool(true)),
            ("false", Json::Bool(false)),
            ("NaN", Json::Float(f64::NAN)),
            ("Infinity", Json::Float(f64::INFINITY)),
            ("-Infinity", Json::Float(f64::NEG_INFINITY)),
        ];
        for (word, value) in words {
            if self.rest().starts_with(word) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(self.error("expected a value"))
    }

    /// As in Python, a number ends where its grammar does: what is left of `01` or `1.e5` is not
    /// its part, and so an error of whatever comes next.
    fn number(&mut self) -> Result<Json, TextError> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') && self.skip_digits() == 0 {
            self.at = start;
            return Err(self.error("expected a value"));
        }
        let whole = self.at;
        if self.take(b'.') && self.skip_digits() == 0 {
            self.at = whole;
        }
        let end = self.at;
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'-') || self.take(b'+');
            if self.skip_digits() == 0 {
                self.at = end;
            }
        }
        let text = &self.text[start..self.at];
        if self.at == whole {
            return Ok(Json::Int(Integer::from_json(text, start)?));
        }
        let value = text.parse().expect("this grammar is a part of Rust's");
        Ok(Json::Float(value))
    }

    /// Reads what stands after an item: `true` for the end of the list or object.
    fn item_ends(&mut self, end: u8, expected: &'static str) -> Result<bool, TextError> {
        self.skip_space();
        if self.take(b',') {
            Ok(false)
        } else if self.take(end) {
            Ok(true)
        } else {
            Err(self.error(expected))
        }
    }

    /// Reads a string from its opening quote on.
    fn string(&mut self) -> Result<JsonText, TextError> {
        let start = self.at;
        self.at += 1;
        let plain = self.plain();
        if self.take(b'"') {
            return Ok(plain.into());
        }
        let mut value = JsonText::from(plain);
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(value);
                }
                Some(b'\\') => value.push(self.escape()?),
                Some(_) => return Err(self.error("a control character stands in a string")),
                None => {
                    self.at = start;
                    return Err(self.error("a string without an end starts"));
                }
            }
            value.push_str(self.plain());
        }
    }

    /// Skips the stretch up to the next quote, backslash or control character.
    fn plain(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest.bytes().position(|b| b < b' ' || b == b'"' || b == b'\\');
        let end = end.unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// Reads an escape from its backslash on: a character, or half of a surrogate pair that stands
    /// alone.
    fn escape(&mut self) -> Result<Result<char, u16>, TextError> {
        let start = self.at;
        self.at += 1;
        let c = match self.peek() {
            Some(b'u') => return self.unicode_escape(),
            Some(c @ (b'"' | b'\\' | b'/')) => c as char,
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            _ => {
                self.at = start;
                return Err(self.error("there is no such escape"));
            }
        };
        self.at += 1;
        Ok(Ok(c))
    }

    /// Reads one or, for a surrogate pair, two escapes of four digits, from the first `u` on.
    fn unicode_escape(&mut self) -> Result<Result<char, u16>, TextError> {
        let first = self.unit()?;
        if let Some(c) = char::from_u32(first.into()) {
            return Ok(Ok(c));
        }
        let after_first = self.at;
        if self.rest().starts_with("\\u") {
            self.at += 1;
            let second = self.unit()?;
            if let Some(Ok(c)) = char::decode_utf16([first, second]).next() {
                return Ok(Ok(c));
            }
        }
        self.at = after_first;
        Ok(Err(first))
    }

    /// Reads `uXXXX`.
    fn unit(&mut self) -> Result<u16, TextError> {
        let digits = self.text.get(self.at + 1..self.at + 5).unwrap_or_default();
        let hex = digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        match u16::from_str_radix(digits, 16) {
            Ok(unit) if hex => {
                self.at += 5;
                Ok(unit)
            }
            _ => Err(self.error("expected four hexadecimal digits after the 'u'")),
        }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Skips one ASCII byte if it is next.
    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn skip_digits(&mut self) -> usize {
        self.skip(|b| b.is_ascii_digit())
    }

    fn skip_space(&mut self) {
        self.skip(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r'));
    }

    fn skip(&mut self, class: fn(u8) -> bool) -> usize {
        let start = self.at;
        while self.peek().is_some_and(class) {
            self.at += 1;
        }
        self.at - start
    }

    fn error(&self, what: impl Into<Cow<'static, str>>) -> TextError {
        TextError::new(what, self.at)
    }
}

/// Leaves of equal keys the first place and the last value, as a Python `dict` does.
fn unique_keys(mut items: Vec<(JsonText, Json)>) -> Vec<(JsonText, Json)> {
    /// Up to here, comparing all pairs is quicker than sorting.
    const FEW: usize = 12;

    let is_unique = |items: &[(JsonText, Json)]| {
        items.iter().enumerate().all(|(i, (key, _))| items.iter().take(i).all(|(k, _)| k != key))
    };
    if items.len() <= FEW && is_unique(&items) {
        return items;
    }
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by(|&a, &b| items[a].0.cmp(&items[b].0)); // stable: equal keys stay in order
    let mut repeated = vec![false; items.len()];
    let mut any = false;
    let mut first = 0; // the place in the object of the first of equal keys
    for (i, &place) in order.iter().enumerate() {
        if i > 0 && items[place].0 == items[first].0 {
            let value = mem::replace(&mut items[place].1, Json::Null);
            items[first].1 = value;
            repeated[place] = true;
            any = true;
        } else {
            first = place;
        }
    }
    if any {
        let mut repeated = repeated.into_iter();
        items.retain(|_| repeated.next() != Some(true));
    }
    items
}
