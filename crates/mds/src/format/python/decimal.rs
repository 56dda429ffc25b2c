//! Decimal numbers as `str(Decimal(text))` prints them.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::str::FromStr;

use super::{TextError, trim};

/// The largest power of ten of a first digit, `decimal.MAX_EMAX`.
const MAX_EXPONENT: i64 = 999_999_999_999_999_999;

/// The smallest power of ten of a last digit, `decimal.MIN_ETINY`.
const MIN_EXPONENT: i64 = -1_999_999_999_999_999_997;

/// The plain form shows at most six zeros before the first digit.
const MIN_PLAIN: i64 = -6;

/// A decimal number, held as the text that Python's `str(Decimal)` prints.
///
/// It keeps trailing zeros and the exponent: `0.10`, `1E-7`, `0E+3`, `-0`. There are also
/// `Infinity`, `NaN` and `sNaN`, with a sign and, for the last two, digits behind.
///
/// Equality is that of the texts: unlike in Python, `0.10` is not `0.1`, and `NaN` is itself.
///
/// ```
/// use mds::format::python::Decimal;
///
/// # fn main() -> Result<(), mds::format::python::TextError> {
/// assert_eq!(Decimal::parse("0.10")?.as_str(), "0.10");
/// assert_eq!(Decimal::parse(" +1_000e37 ")?.as_str(), "1.000E+40");
/// assert_eq!(Decimal::parse("12.50")?.to_f64(), 12.5);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Decimal<'a>(Cow<'a, str>);

impl<'a> Decimal<'a> {
    /// Reads what Python's `Decimal(text)` reads: ASCII digits with a sign, a point and an exponent,
    /// or a special value in any case; underscores anywhere and whitespace around. Borrows the text
    /// where Python would print the same.
    ///
    /// # Errors
    ///
    /// [`TextError`] if the text is not a decimal number, or if its exponent is beyond what Python
    /// holds: the first digit counts at most 10^999999999999999999, the last one at least
    /// 10^-1999999999999999997.
    pub fn parse(text: &'a str) -> Result<Self, TextError> {
        let (start, number) = trim(text, is_space);
        // Unlike `int` and `float`, `Decimal` drops every underscore.
        let dense = if number.contains('_') {
            Cow::Owned(number.replace('_', ""))
        } else {
            Cow::Borrowed(number)
        };
        let parts = Parts::parse(&dense).map_err(|error| {
            let mut kept = number.bytes().enumerate().filter(|&(_, byte)| byte != b'_');
            let at = kept.nth(error.byte).map_or(number.len(), |(at, _)| at);
            TextError::new(error.what, start + at)
        })?;
        if parts.is_written_as(number) {
            return Ok(Self(Cow::Borrowed(number)));
        }
        Ok(Self(Cow::Owned(parts.to_string())))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The nearest float, as Python's `float(Decimal)`: infinite if too large. Where Python raises
    /// an error, for `sNaN`, this is NaN.
    pub fn to_f64(&self) -> f64 {
        // Only NaNs with digits or the `s` are unknown to Rust.
        self.0.parse().unwrap_or(f64::NAN)
    }

    /// The same number with its own text.
    pub fn into_owned(self) -> Decimal<'static> {
        Decimal(Cow::Owned(self.0.into_owned()))
    }
}

/// What Python's `str.isspace` holds: Unicode's whitespace and the four ASCII separators.
fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// A decimal number taken apart; its `Display` is Python's text.
struct Parts<'a> {
    negative: bool,
    magnitude: Magnitude<'a>,
}

enum Magnitude<'a> {
    /// A name and the digits behind it.
    Special(&'static str, &'a str),
    /// `digits * 10^exponent`. The digits are in two parts, as a point may stand between them; their
    /// first one is zero only if it is the only one.
    Finite { digits: [&'a str; 2], exponent: i64 },
}

impl<'a> Parts<'a> {
    fn parse(text: &'a str) -> Result<Self, TextError> {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let negative = text.starts_with('-');
        let magnitude = match parse_special(unsigned) {
            Some(special) => special,
            None => parse_finite(unsigned, text.len() - unsigned.len())?,
        };
        Ok(Self { negative, magnitude })
    }

    fn is_written_as(&self, text: &str) -> bool {
        let mut rest = Expected(text);
        write!(rest, "{self}").is_ok() && rest.0.is_empty()
    }
}

/// `Infinity`, `NaN` or `sNaN` in any case, the last two with digits.
fn parse_special(text: &str) -> Option<Magnitude<'_>> {
    let strip = |prefix: &str| {
        let (head, tail) = text.split_at_checked(prefix.len())?;
        head.eq_ignore_ascii_case(prefix).then_some(tail)
    };
    if ["inf", "infinity"].iter().any(|name| text.eq_ignore_ascii_case(name)) {
        return Some(Magnitude::Special("Infinity", ""));
    }
    let (name, payload) =
        strip("nan").map(|tail| ("NaN", tail)).or_else(|| Some(("sNaN", strip("snan")?)))?;
    let digits = payload.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| Magnitude::Special(name, payload.trim_start_matches('0')))
}

/// Digits with at most one point between, before or behind them, and perhaps an exponent.
fn parse_finite(text: &str, start: usize) -> Result<Magnitude<'_>, TextError> {
    let digits_at = |at: usize| {
        let tail = text.get(at..).unwrap_or_default();
        let rest = tail.trim_start_matches(|c: char| c.is_ascii_digit());
        (&tail[..tail.len() - rest.len()], rest)
    };
    let (whole, mut rest) = digits_at(0);
    let mut fraction = "";
    if rest.starts_with('.') {
        (fraction, rest) = digits_at(whole.len() + 1);
    }
    let at = |rest: &str| start + text.len() - rest.len();
    if whole.is_empty() && fraction.is_empty() {
        return Err(TextError::new("expected a decimal number", at(rest)));
    }
    let mut exponent = 0;
    if let Some(tail) = rest.strip_prefix(['e', 'E']) {
        let unsigned = tail.strip_prefix(['+', '-']).unwrap_or(tail);
        let size;
        (size, rest) = digits_at(text.len() - unsigned.len());
        if size.is_empty() {
            return Err(TextError::new("expected a digit", at(rest)));
        }
        // Sizes beyond the range stay beyond it whatever is added or subtracted below.
        let size = size.parse().unwrap_or(i64::MAX).min(i64::MAX / 2);
        exponent = if tail.starts_with('-') { -size } else { size };
    }
    if !rest.is_empty() {
        return Err(TextError::new("expected the end of the number", at(rest)));
    }
    exponent -= fraction.len() as i64;
    let mut digits = [whole.trim_start_matches('0'), fraction];
    if digits[0].is_empty() {
        digits[1] = fraction.trim_start_matches('0');
        if digits[1].is_empty() {
            digits[0] = "0";
        }
    }
    let first = exponent + (digits[0].len() + digits[1].len()) as i64 - 1;
    if first > MAX_EXPONENT || exponent < MIN_EXPONENT {
        return Err(TextError::new(
            "an exponent beyond what Python's Decimal holds, in the number",
            start,
        ));
    }
    Ok(Magnitude::Finite { digits, exponent })
}

impl fmt::Display for Parts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.negative {
            f.write_char('-')?;
        }
        let (digits, exponent) = match self.magnitude {
            Magnitude::Special(name, payload) => {
                f.write_str(name)?;
                return f.write_str(payload);
            }
            Magnitude::Finite { digits, exponent } => (digits, exponent),
        };
        let count = (digits[0].len() + digits[1].len()) as i64;
        let first = exponent + count - 1;
        if exponent > 0 || first < MIN_PLAIN {
            write_digits(f, digits, 1)?;
            return write!(f, "E{first:+}");
        }
        if first < 0 {
            f.write_str("0.")?;
            for _ in first..-1 {
                f.write_char('0')?;
            }
        }
        write_digits(f, digits, first + 1)
    }
}

/// Writes digits with a point before the one at `point`, if that is one beyond the first.
fn write_digits(f: &mut fmt::Formatter<'_>, digits: [&str; 2], point: i64) -> fmt::Result {
    for (at, digit) in digits.iter().flat_map(|part| part.chars()).enumerate() {
        if at > 0 && at as i64 == point {
            f.write_char('.')?;
        }
        f.write_char(digit)?;
    }
    Ok(())
}

/// A sink that takes one text only, and is an error for any other.
struct Expected<'a>(&'a str);

impl Write for Expected<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = self.0.strip_prefix(text).ok_or(fmt::Error)?;
        Ok(())
    }
}

impl fmt::Display for Decimal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Decimal<'static> {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        Decimal::parse(text).map(Decimal::into_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected texts printed by Python 3.11.
    #[test]
    fn texts_are_those_of_python() {
        let cases = [
            ("0.10", "0.10"),
            ("1E-7", "1E-7"),
            ("1e+40", "1E+40"),
            ("-0", "-0"),
            ("0e3", "0E+3"),
            ("1_000.5_0", "1000.50"),
            ("_1__0_", "10"),
            ("1._5", "1.5"),
            ("1.e5", "1E+5"),
            ("1_e_5_0", "1E+50"),
            (".5", "0.5"),
            ("5.", "5"),
            ("+1", "1"),
            ("\u{1c} 1\u{a0}", "1"),
            ("0000012.50", "12.50"),
            ("000", "0"),
            ("00.00", "0.00"),
            (".0", "0.0"),
            ("-.0e-10", "-0E-11"),
            ("100E-2", "1.00"),
            ("123456E-10", "0.0000123456"),
            ("1E-6", "0.000001"),
            ("10E-7", "0.0000010"),
            ("0E-6", "0.000000"),
            ("0E-7", "0E-7"),
            ("0.0000000", "0E-7"),
            ("123E3", "1.23E+5"),
            ("1.5E3", "1.5E+3"),
            ("1.5E1", "15"),
            ("15E0", "15"),
            ("0E1", "0E+1"),
            ("1e000000000000000000000000000000000000000000005", "1E+5"),
        ];
        for (text, printed) in cases {
            assert_eq!(Decimal::parse(text).unwrap().as_str(), printed, "{text:?}");
            assert_eq!(text.parse::<Decimal<'_>>().unwrap().to_string(), printed, "{text:?}");
        }
    }

    #[test]
    fn special_values() {
        let cases = [
            ("nan", "NaN"),
            ("-nan", "-NaN"),
            ("NaN000", "NaN"),
            ("nan0012", "NaN12"),
            ("nan_1", "NaN1"),
            ("+snan", "sNaN"),
            ("-sNAN123", "-sNaN123"),
            ("inf", "Infinity"),
            ("-i_n_f", "-Infinity"),
            ("INFINITY", "Infinity"),
        ];
        for (text, printed) in cases {
            assert_eq!(Decimal::parse(text).unwrap().as_str(), printed, "{text:?}");
        }
    }

    #[test]
    fn what_python_prints_is_borrowed() {
        for text in ["0.10", "-1E-7", "1.5E+40", "NaN12", "-Infinity", " 0E+3 ", "-0", "15"] {
            assert!(matches!(Decimal::parse(text).unwrap().0, Cow::Borrowed(_)), "{text:?}");
        }
    }

    #[test]
    fn exponents_end_where_those_of_python_do() {
        for (text, printed) in [
            ("1E+999999999999999999", "1E+999999999999999999"),
            ("9.99E+999999999999999999", "9.99E+999999999999999999"),
            ("12345E+999999999999999995", "1.2345E+999999999999999999"),
            ("0.001E+1000000000000000002", "1E+999999999999999999"),
            ("0.0E+1000000000000000000", "0E+999999999999999999"),
            ("1E-1999999999999999997", "1E-1999999999999999997"),
        ] {
            assert_eq!(Decimal::parse(text).unwrap().as_str(), printed);
        }
        for text in [
            "1E+1000000000000000000",
            "0E+1000000000000000000",
            "12345E+999999999999999996",
            "1E+999999999999999999999",
            "1E-1999999999999999998",
            "0E-1999999999999999998",
            "10E-1999999999999999998",
            "0.00E-1999999999999999997",
            "0.1E-99999999999999999999999999999999999999999",
        ] {
            assert_eq!(
                Decimal::parse(text).unwrap_err().to_string(),
                "an exponent beyond what Python's Decimal holds, in the number at byte 0"
            );
        }
    }

    #[test]
    fn what_python_refuses_is_refused_with_the_byte() {
        let cases = [
            ("", "expected a decimal number at byte 0"),
            (".", "expected a decimal number at byte 1"),
            ("_", "expected a decimal number at byte 1"),
            (" e5", "expected a decimal number at byte 1"),
            ("- 1", "expected a decimal number at byte 1"),
            ("+-1", "expected a decimal number at byte 1"),
            ("infinit", "expected a decimal number at byte 0"),
            ("nan1x", "expected a decimal number at byte 0"),
            ("1e", "expected a digit at byte 2"),
            ("1_e_+", "expected a digit at byte 5"),
            ("1e+-5", "expected a digit at byte 3"),
            ("1e.5", "expected a digit at byte 2"),
            ("1 2", "expected the end of the number at byte 1"),
            ("_1_.0_.1", "expected the end of the number at byte 6"),
            ("1\0", "expected the end of the number at byte 1"),
            ("1١", "expected the end of the number at byte 1"),
        ];
        for (text, message) in cases {
            assert_eq!(Decimal::parse(text).unwrap_err().to_string(), message, "{text:?}");
        }
    }

    #[test]
    fn floats_are_the_nearest() {
        let cases = [("0.10", 0.1), ("1E+40", 1e40), ("1E+400", f64::INFINITY), ("-1E-999", -0.0)];
        for (text, value) in cases {
            assert_eq!(Decimal::parse(text).unwrap().to_f64().to_bits(), f64::to_bits(value));
        }
        assert_eq!(Decimal::parse("-inf").unwrap().to_f64(), f64::NEG_INFINITY);
        for text in ["NaN", "NaN12", "sNaN"] {
            assert!(Decimal::parse(text).unwrap().to_f64().is_nan());
        }
    }
}
