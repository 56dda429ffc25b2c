//! Integers of any size as `str` prints them and `int` reads them.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use super::{TextError, is_number_space, trim};

/// The most decimal digits that Python converts to or from an integer, leading zeros included
/// (`sys.int_info.default_max_str_digits`). Longer texts are refused here too.
pub const MAX_DIGITS: usize = 4300;

/// An integer of any size, held as the text that Python's `str(int)` prints.
///
/// ```
/// use mds::format::python::Integer;
///
/// # fn main() -> Result<(), mds::format::python::TextError> {
/// assert_eq!(Integer::parse(" +0_042\n")?.as_str(), "42");
/// let large = Integer::parse("123456789012345678901234567890")?;
/// assert_eq!(large.to_i64(), None);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Integer<'a>(Cow<'a, str>);

impl<'a> Integer<'a> {
    /// Reads what Python's `int(text)` reads: ASCII digits with a sign, leading zeros, underscores
    /// between digits and whitespace around. Borrows the text where Python would print the same.
    ///
    /// # Errors
    ///
    /// [`TextError`] if the text is not an integer or has more than [`MAX_DIGITS`] digits.
    pub fn parse(text: &'a str) -> Result<Self, TextError> {
        let (start, number) = trim(text, is_number_space);
        let unsigned = number.strip_prefix(['+', '-']).unwrap_or(number);
        let first = start + number.len() - unsigned.len();
        let count = count_digits(unsigned, first)?;
        if count > MAX_DIGITS {
            return Err(too_long(count, first));
        }
        let significant = unsigned.trim_start_matches(['0', '_']);
        let negative = number.starts_with('-') && !significant.is_empty();
        Ok(Self(match (negative, significant) {
            (false, "") => Cow::Borrowed("0"),
            (_, text) if text.contains('_') => {
                let sign = if negative { "-" } else { "" };
                Cow::Owned(format!("{sign}{}", text.replace('_', "")))
            }
            (false, text) => Cow::Borrowed(text),
            (true, text) if text.len() == unsigned.len() => Cow::Borrowed(number),
            (true, text) => Cow::Owned(format!("-{text}")),
        }))
    }

    /// Takes digits that JSON's grammar has checked: no `+`, no leading zeros, no underscores.
    pub(super) fn from_json(text: &str, start: usize) -> Result<Integer<'static>, TextError> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        if digits.len() > MAX_DIGITS {
            return Err(too_long(digits.len(), start));
        }
        let text = if digits == "0" { digits } else { text };
        Ok(Integer(Cow::Owned(text.to_owned())))
    }

    /// The text: `-` if negative, then the digits without leading zeros.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The value, if it fits.
    pub fn to_i64(&self) -> Option<i64> {
        self.0.parse().ok()
    }

    /// The value, if it fits.
    pub fn to_u64(&self) -> Option<u64> {
        self.0.parse().ok()
    }

    /// The value, if it fits.
    pub fn to_i128(&self) -> Option<i128> {
        self.0.parse().ok()
    }

    /// The same integer with its own text.
    pub fn into_owned(self) -> Integer<'static> {
        Integer(Cow::Owned(self.0.into_owned()))
    }
}

/// The number of digits of a text that must be digits with single underscores between.
fn count_digits(text: &str, start: usize) -> Result<usize, TextError> {
    let mut after_digit = false;
    let mut count = 0;
    for (at, byte) in text.bytes().enumerate() {
        after_digit = match byte {
            b'0'..=b'9' => true,
            b'_' if after_digit => false,
            _ => return Err(TextError::new("expected a digit", start + at)),
        };
        count += usize::from(after_digit);
    }
    if after_digit {
        Ok(count)
    } else {
        Err(TextError::new("expected a digit", start + text.len()))
    }
}

fn too_long(count: usize, byte: usize) -> TextError {
    let what = format!(
        "an integer of {count} digits, more than the {MAX_DIGITS} that Python converts, starts"
    );
    TextError::new(what, byte)
}

impl From<i64> for Integer<'_> {
    fn from(value: i64) -> Self {
        Self(Cow::Owned(value.to_string()))
    }
}

impl From<u64> for Integer<'_> {
    fn from(value: u64) -> Self {
        Self(Cow::Owned(value.to_string()))
    }
}

impl From<i128> for Integer<'_> {
    fn from(value: i128) -> Self {
        Self(Cow::Owned(value.to_string()))
    }
}

impl fmt::Display for Integer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Integer<'static> {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        Integer::parse(text).map(Integer::into_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected texts printed by Python 3.11.
    #[test]
    fn texts_are_those_of_python() {
        let cases = [
            ("0", "0"),
            ("-0", "0"),
            ("+0", "0"),
            ("00", "0"),
            ("0_0", "0"),
            ("-007", "-7"),
            ("-0_7", "-7"),
            ("1_0", "10"),
            ("-1_0", "-10"),
            (" 1 ", "1"),
            ("\u{b}1", "1"),
            ("\u{85}-1\u{a0}", "-1"),
            ("+123456789012345678901234567890", "123456789012345678901234567890"),
        ];
        for (text, printed) in cases {
            assert_eq!(Integer::parse(text).unwrap().as_str(), printed, "{text:?}");
            assert_eq!(text.parse::<Integer<'_>>().unwrap().to_string(), printed, "{text:?}");
        }
    }

    #[test]
    fn what_python_prints_is_borrowed() {
        for text in ["0", "-7", "42", " -42 ", "+42", "0042"] {
            assert!(matches!(Integer::parse(text).unwrap().0, Cow::Borrowed(_)), "{text:?}");
        }
    }

    #[test]
    fn what_python_refuses_is_refused_with_the_byte() {
        let cases = [
            ("", 0),
            ("  ", 2),
            ("-", 1),
            ("_1", 0),
            ("1_", 2),
            ("1__0", 2),
            ("+ 1", 1),
            ("+-1", 1),
            ("-_1", 1),
            ("1.0", 1),
            ("0x1", 1),
            ("1e5", 1),
            (" 1\0", 2),
            ("\u{1c}1", 0),
            ("1١", 1),
        ];
        for (text, byte) in cases {
            let error = Integer::parse(text).unwrap_err();
            assert_eq!(error.to_string(), format!("expected a digit at byte {byte}"), "{text:?}");
        }
    }

    #[test]
    fn python_converts_4300_digits() {
        for text in ["1".repeat(4300), "0".repeat(4300), format!(" -{}1", "1_".repeat(4299))] {
            assert!(Integer::parse(&text).is_ok());
        }
        for text in ["1".repeat(4301), "0".repeat(4301), format!("{}1", "1_".repeat(4300))] {
            assert_eq!(
                Integer::parse(&text).unwrap_err().to_string(),
                "an integer of 4301 digits, more than the 4300 that Python converts, starts at \
                 byte 0"
            );
        }
    }

    #[test]
    fn values_convert_both_ways() {
        assert_eq!(Integer::from(i64::MIN).to_i64(), Some(i64::MIN));
        assert_eq!(Integer::from(u64::MAX).to_i64(), None);
        assert_eq!(Integer::from(u64::MAX).to_u64(), Some(u64::MAX));
        assert_eq!(Integer::from(i128::MIN).to_i128(), Some(i128::MIN));
        assert_eq!(Integer::parse(&"9".repeat(40)).unwrap().to_i128(), None);
    }
}
