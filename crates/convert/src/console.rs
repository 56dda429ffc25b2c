//! `println!`, `print!`, `eprintln!` and `eprint!` of this crate, which go before those of the standard library.
//!
//! Theirs panic when nobody reads any more, as in `convert c4 ... | head -1`. A conversion goes on without being watched.

use std::fmt::Arguments;
use std::io::Write;

macro_rules! println {
    ($($line:tt)*) => { $crate::console::write(std::io::stdout(), format_args!($($line)*), "\n") };
}
macro_rules! print {
    ($($text:tt)*) => { $crate::console::write(std::io::stdout(), format_args!($($text)*), "") };
}
macro_rules! eprintln {
    ($($line:tt)*) => { $crate::console::write(std::io::stderr(), format_args!($($line)*), "\n") };
}
macro_rules! eprint {
    ($($text:tt)*) => { $crate::console::write(std::io::stderr(), format_args!($($text)*), "") };
}

/// Writes the text and what ends it at once, if somebody reads it.
pub(crate) fn write(mut to: impl Write, text: Arguments<'_>, end: &str) {
    let _ = to.write_all(format!("{text}{end}").as_bytes());
}
