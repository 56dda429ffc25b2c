//! Floats as `repr` prints them and `float` reads them.

use super::{is_number_space, trim, without_underscores};

/// The text of Python's `repr`: the shortest that reads back as the same float.
///
/// ```
/// use mds::format::python::float_repr;
///
/// assert_eq!(float_repr(0.1), "0.1");
/// assert_eq!(float_repr(1e16), "1e+16");
/// assert_eq!(float_repr(f64::NEG_INFINITY), "-inf");
/// ```
pub fn float_repr(value: f64) -> String {
    let mut text = Vec::with_capacity(24);
    write_float_repr(value, &mut text);
    String::from_utf8(text).expect("only ASCII was written")
}

/// Appends the text of [`float_repr`], at most 24 bytes.
pub fn write_float_repr(value: f64, out: &mut Vec<u8>) {
    if value.is_nan() {
        return out.extend_from_slice(b"nan"); // Python prints no sign
    }
    if value.is_sign_negative() {
        out.push(b'-');
    }
    if value.is_infinite() {
        return out.extend_from_slice(b"inf");
    }
    let mut buffer = zmij::Buffer::new();
    let mut digits = Digits::default();
    let exponent = digits.read(buffer.format_finite(value.abs()));
    digits.write(exponent, out);
}

/// The significant digits of a float.
#[derive(Default)]
struct Digits {
    digits: [u8; Self::MAX],
    len: usize,
}

impl Digits {
    /// The most digits that a shortest text has.
    const MAX: usize = 17;

    /// Takes the digits from a text in any style, and returns the power of ten of the first one.
    fn read(&mut self, text: &str) -> i32 {
        let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
        let exponent: i32 = exponent.parse().expect("the formatter writes small exponents");
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let zeros = |text: &str| text.bytes().take_while(|&b| b == b'0').count() as i32;
        let first = match whole.len() as i32 - zeros(whole) {
            0 => -1 - zeros(fraction),
            whole_digits => whole_digits - 1,
        };
        let digits = whole.bytes().chain(fraction.bytes()).skip_while(|&b| b == b'0');
        // Zeros beyond the array are those of a large number written in full.
        for (place, digit) in self.digits.iter_mut().zip(digits) {
            *place = digit;
            self.len += 1;
        }
        while self.len > 1 && self.digits[..self.len].ends_with(b"0") {
            self.len -= 1;
        }
        if self.len == 0 {
            (self.digits[0], self.len) = (b'0', 1);
            return 0;
        }
        first + exponent
    }

    /// Writes the digits in Python's layout; `exponent` is the power of ten of the first one.
    fn write(&self, exponent: i32, out: &mut Vec<u8>) {
        const ZEROS: [u8; 16] = [b'0'; 16];
        let digits = &self.digits[..self.len];
        match exponent {
            -4..=-1 => {
                out.extend_from_slice(b"0.");
                out.extend_from_slice(&ZEROS[..(-1 - exponent) as usize]);
                out.extend_from_slice(digits);
            }
            0..=15 => {
                let point = exponent as usize + 1;
                let (whole, fraction) = digits.split_at(point.min(digits.len()));
                out.extend_from_slice(whole);
                out.extend_from_slice(&ZEROS[..point - whole.len()]);
                out.push(b'.');
                out.extend_from_slice(if fraction.is_empty() { b"0" } else { fraction });
            }
            _ => {
                out.push(digits[0]);
                if digits.len() > 1 {
                    out.push(b'.');
                    out.extend_from_slice(&digits[1..]);
                }
                out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
                let size = exponent.unsigned_abs() as u16;
                if size >= 100 {
                    out.push(b'0' + (size / 100) as u8);
                }
                out.extend([b'0' + (size / 10 % 10) as u8, b'0' + (size % 10) as u8]);
            }
        }
    }
}

/// The float that Python's `float(text)` makes of ASCII digits, or `None` where it raises.
///
/// Whitespace around the number, a sign, underscores between digits, and `inf`, `infinity` and `nan`
/// in any case are accepted. What is too large becomes infinite, as in Python. Python also takes the
/// digits of other scripts; they are refused here.
///
/// ```
/// use mds::format::python::parse_float;
///
/// assert_eq!(parse_float(" 1_000.5\n"), Some(1000.5));
/// assert_eq!(parse_float("-Infinity"), Some(f64::NEG_INFINITY));
/// assert_eq!(parse_float("0x10"), None);
/// ```
pub fn parse_float(text: &str) -> Option<f64> {
    let (_, number) = trim(text, is_number_space);
    // Rust's grammar is Python's, but for the underscores.
    without_underscores(number)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected texts printed by Python 3.11.
    #[test]
    fn texts_are_those_of_repr() {
        let cases = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (-123.456, "-123.456"),
            (1e-4, "0.0001"),
            (1.5e-4, "0.00015"),
            (1e-5, "1e-05"),
            (1.25e-5, "1.25e-05"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (9_999_999_999_999_998.0, "9999999999999998.0"),
            (12_345_678_901_234_568.0, "1.2345678901234568e+16"),
            (1e22, "1e+22"),
            (1e100, "1e+100"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
            (5e-324, "5e-324"),
            (1.0 / 3.0, "0.3333333333333333"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
            (-f64::NAN, "nan"),
        ];
        for (value, text) in cases {
            assert_eq!(float_repr(value), text);
        }
    }

    #[test]
    fn the_writer_appends() {
        let mut out = b"x".to_vec();
        write_float_repr(-1.5, &mut out);
        assert_eq!(out, b"x-1.5");
    }

    #[test]
    fn what_python_reads_is_read() {
        let cases = [
            ("1", 1.0),
            ("1_0.5_0", 10.5),
            ("1e1_0", 1e10),
            ("inf", f64::INFINITY),
            ("-INF", f64::NEG_INFINITY),
            ("+iNfinity", f64::INFINITY),
            (".5", 0.5),
            ("5.", 5.0),
            ("  1 ", 1.0),
            ("\u{b}1\u{85}\u{2003}", 1.0),
            ("1e999", f64::INFINITY),
            ("-1e999", f64::NEG_INFINITY),
            ("1e-999", 0.0),
            ("1E5", 1e5),
        ];
        for (text, value) in cases {
            assert_eq!(parse_float(text), Some(value), "{text:?}");
        }
        assert!(parse_float("-NaN").is_some_and(|nan| nan.is_nan() && nan.is_sign_negative()));
    }

    #[test]
    fn what_python_refuses_is_refused() {
        for text in [
            "",
            "  ",
            "1_",
            "_1",
            "1__0",
            "1_.5",
            "1._5",
            "1e_1",
            "1_e1",
            "infinit",
            "nan1",
            "i_nf",
            ".",
            "1e",
            "1e+",
            "e5",
            "\u{1c}1",
            "0x10",
            "- 1",
            "+-1",
            "1\0",
            "1d5",
            "1f",
            "1 2",
            "1\u{200b}",
        ] {
            assert_eq!(parse_float(text), None, "{text:?}");
        }
    }

    /// Python reads these too; a text of ours never holds them.
    #[test]
    fn digits_are_ascii() {
        assert_eq!(parse_float("١"), None);
    }
}
