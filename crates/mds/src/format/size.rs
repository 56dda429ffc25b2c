//! Sizes in bytes as people write them: `64mb`, `1.5kb`, `100b`, `100`.

use crate::{Error, Result};

/// The units, each 1024 times the one before.
const UNITS: [&str; 8] = ["kb", "mb", "gb", "tb", "pb", "eb", "zb", "yb"];

/// The number of bytes of a size such as `"64mb"` (1 kb = 1024 bytes; case does not matter).
///
/// A size with one of the units kb to yb may have a fraction, which is cut after multiplication;
/// a size in `b` or without a unit is a whole number.
///
/// # Errors
/// `InvalidArgument` if the text is not a size or exceeds 64 bits.
///
/// ```
/// assert_eq!(mds::format::parse_size("1.5kb")?, 1536);
/// assert_eq!(mds::format::parse_size("64MB")?, 1 << 26);
/// # Ok::<(), mds::Error>(())
/// ```
pub fn parse_size(text: &str) -> Result<u64> {
    parse(&text.to_ascii_lowercase()).ok_or_else(|| {
        Error::invalid(
            format!("{text:?} is not a size in bytes"),
            "write a whole number, or a number and a unit such as 64mb, 1.5kb or 100b",
        )
    })
}

fn parse(text: &str) -> Option<u64> {
    for (power, unit) in (1..).zip(UNITS) {
        let Some(number) = text.strip_suffix(unit) else { continue };
        let number = number.trim();
        // Rust reads words such as "inf" as floats; a size is digits, a point and an exponent.
        if !number.bytes().all(|b| b.is_ascii_digit() || b".e+-".contains(&b)) {
            return None;
        }
        let bytes = number.parse::<f64>().ok()? * 1024f64.powi(power);
        // 2^64 is a float; every smaller float is below u64::MAX once its fraction is cut.
        return (0.0..18_446_744_073_709_551_616.0).contains(&bytes).then_some(bytes as u64);
    }
    let digits = text.strip_suffix('b').unwrap_or(text);
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_with_and_without_units() {
        let cases = [
            ("0", 0),
            ("100", 100),
            ("100b", 100),
            ("1kb", 1024),
            ("1.5kb", 1536),
            ("1.5 KB", 1536),
            ("0.3kb", 307),
            ("64mb", 1 << 26),
            ("2GB", 2 << 30),
            ("1tb", 1 << 40),
            ("1pb", 1 << 50),
            ("15eb", 15 << 60),
            ("0.001zb", 1_180_591_620_717_411_328),
            ("1e3kb", 1_024_000),
            ("18446744073709551615", u64::MAX),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_is_refused() {
        for text in [
            "",
            "b",
            "kb",
            "-1",
            "-1kb",
            "1.5",
            "1.5b",
            "1 b",
            "infkb",
            "nankb",
            "1xb",
            "16eb",
            "1yb",
            "18446744073709551616",
            "1kbkb",
            "0x10",
        ] {
            assert_eq!(
                parse_size(text).unwrap_err().to_string(),
                format!(
                    "{text:?} is not a size in bytes; write a whole number, or a number and a \
                     unit such as 64mb, 1.5kb or 100b"
                )
            );
        }
    }
}
