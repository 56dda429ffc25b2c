//! The one error type of the crate: what kind of failure, where in the data, what went wrong and
//! what to do about it.
//!
//! [`ErrorKind`] is sorted by what a caller can do, not by which module failed. [`Position`] says
//! where in a dataset; code that knows only a column or a byte leaves the rest empty, and callers
//! further out fill in the shard and the dataset with [`Error::in_shard`] and friends.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use crate::format::{Damage, is_hostile_to_terminals};

/// The result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A file, object, column or sample is not there: check the name.
    NotFound,
    /// The target exists already: choose another one or remove it.
    AlreadyExists,
    /// The operating system or the remote refuses access: check rights and credentials.
    PermissionDenied,
    /// The caller passed a value that cannot work: pass another one.
    InvalidArgument,
    /// The data is well formed but uses something that this version does not handle.
    Unsupported,
    /// The data breaks the rules of its format: fetch or write it again.
    Corrupt,
    /// The local file system failed: free space, check the disk, try again.
    Io,
    /// A remote failed for good, after all attempts: check it and try again.
    Download,
    /// A remote refused or lost an upload, after all attempts: check it and try again.
    Upload,
    /// Something did not happen in its time limit: try again or raise the limit.
    Timeout,
    /// The caller's own code failed, such as the map function of a loader.
    Caller,
}

/// Where in a dataset an error lies. Empty fields are unknown or do not apply.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Position {
    /// The directory or URI of the dataset.
    pub dataset: Option<String>,
    /// The name of the shard file, as in `index.json`.
    pub shard: Option<String>,
    /// The number of the sample: within the shard if a shard is named, else within the dataset.
    pub sample: Option<u64>,
    /// The offset in bytes: within the sample if a sample is named, else within the file.
    pub byte: Option<u64>,
    /// The name of the column.
    pub column: Option<String>,
    /// The number of the row within the Arrow batch that was given. The text of an error has it
    /// behind the other fields: `row 3 of the batch: `.
    pub row: Option<u64>,
}

impl fmt::Display for Position {
    /// Writes `dataset D, shard S, sample 3, byte 17, column C`, leaving out what is not known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        let mut part = |label: &str, value: Option<&dyn fmt::Display>| {
            let Some(value) = value else { return Ok(()) };
            write!(f, "{separator}{label} {value}")?;
            separator = ", ";
            Ok(())
        };
        part("dataset", self.dataset.as_ref().map(|v| v as _))?;
        part("shard", self.shard.as_ref().map(|v| v as _))?;
        part("sample", self.sample.as_ref().map(|v| v as _))?;
        part("byte", self.byte.as_ref().map(|v| v as _))?;
        part("column", self.column.as_ref().map(|v| v as _))
    }
}

/// Why an operation of this crate failed.
///
/// The text reads `POSITION: WHAT; REMEDY`. The underlying error, if any, is not repeated in the
/// text; it is the [`source`](StdError::source).
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<Details>);

/// Boxed, so that a `Result<T, Error>` is one word larger than `T` at most.
#[derive(Debug, thiserror::Error)]
#[error("{}{what}; {remedy}", prefix(position))]
struct Details {
    kind: ErrorKind,
    position: Position,
    what: String,
    remedy: String,
    damage: Option<Damage>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

fn prefix(position: &Position) -> String {
    let mut text = position.to_string();
    if !text.is_empty() {
        text.push_str(": ");
    }
    if let Some(row) = position.row {
        text.push_str(&format!("row {row} of the batch: "));
    }
    text
}

/// Texts from strangers are part of messages, and may be as long as a whole index.
const MAX_TEXT_BYTES: usize = 4096;

fn shortened(mut text: String) -> String {
    let bytes = text.len();
    if bytes > MAX_TEXT_BYTES {
        text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
        text.push_str(&format!("... ({bytes} bytes)"));
    }
    text
}

/// A name from a stranger as it may go to a terminal.
pub(crate) fn shown(name: impl fmt::Display) -> String {
    let name = shortened(name.to_string());
    if !name.contains(is_hostile_to_terminals) {
        return name;
    }
    let escaped = name.chars().map(|c| match is_hostile_to_terminals(c) {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    });
    escaped.collect()
}

impl Error {
    /// An error that says what is wrong and what the reader of the message can do about it. Both
    /// are clauses without a capital letter or a full stop.
    pub fn new(kind: ErrorKind, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        let (what, remedy) = (shortened(what.into()), shortened(remedy.into()));
        let position = Position::default();
        Self(Box::new(Details { kind, position, what, remedy, damage: None, source: None }))
    }

    /// A failure of the local file system. The kind and the remedy follow from `source`.
    pub fn io(source: io::Error, what: impl Into<String>) -> Self {
        if let Some(found) = source.get_ref().and_then(|inner| inner.downcast_ref::<Damage>()) {
            let error = Self::from(found.clone());
            let what = format!("{}: {found}", what.into());
            return Self::new(ErrorKind::Corrupt, what, error.remedy()).with_damage(found.clone());
        }
        let (kind, remedy) = match source.kind() {
            io::ErrorKind::NotFound => (ErrorKind::NotFound, "check the path"),
            io::ErrorKind::PermissionDenied => {
                (ErrorKind::PermissionDenied, "check the permissions")
            }
            io::ErrorKind::AlreadyExists => {
                (ErrorKind::AlreadyExists, "remove it or choose another")
            }
            // A file in the place of a folder, or the other way round.
            io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
                (ErrorKind::InvalidArgument, "check the path")
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                (ErrorKind::Io, "free some space and try again")
            }
            _ => (ErrorKind::Io, "check the disk and try again"),
        };
        Self::new(kind, what, remedy).with_source(source)
    }

    pub(crate) fn corrupt(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, what, remedy)
    }

    pub(crate) fn invalid(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, what, remedy)
    }

    pub(crate) fn unsupported(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, what, remedy)
    }

    /// Records what is wrong with the data, for programs.
    #[must_use]
    pub(crate) fn with_damage(mut self, damage: Damage) -> Self {
        self.0.damage = Some(damage);
        self
    }

    /// Records the error below this one.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Says of which part of the caller's data the error speaks, before what is wrong with it.
    #[must_use]
    pub(crate) fn within(mut self, part: impl fmt::Display) -> Self {
        self.0.what = format!("{part}: {}", self.0.what);
        self
    }

    /// Says in which dataset, unless that is known already.
    #[must_use]
    pub fn in_dataset(mut self, dataset: impl fmt::Display) -> Self {
        self.0.position.dataset.get_or_insert_with(|| shown(dataset));
        self
    }

    /// Says in which shard, unless that is known already.
    #[must_use]
    pub fn in_shard(mut self, shard: impl fmt::Display) -> Self {
        self.0.position.shard.get_or_insert_with(|| shown(shard));
        self
    }

    /// Says at which sample, unless that is known already.
    #[must_use]
    pub fn at_sample(mut self, sample: u64) -> Self {
        self.0.position.sample.get_or_insert(sample);
        self
    }

    /// Says at which byte, unless that is known already.
    #[must_use]
    pub fn at_byte(mut self, byte: u64) -> Self {
        self.0.position.byte.get_or_insert(byte);
        self
    }

    /// Says in which column, unless that is known already.
    #[must_use]
    pub fn in_column(mut self, column: impl fmt::Display) -> Self {
        self.0.position.column.get_or_insert_with(|| shown(column));
        self
    }

    /// Says in which row of an Arrow batch, unless that is known already.
    #[must_use]
    pub(crate) fn at_row(mut self, row: u64) -> Self {
        self.0.position.row.get_or_insert(row);
        self
    }

    /// The same error at another place, for a program that knows better where its user looks.
    #[must_use]
    pub fn with_position(mut self, position: Position) -> Self {
        self.0.position = position;
        self
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Where in the dataset.
    pub fn position(&self) -> &Position {
        &self.0.position
    }

    /// What exactly is wrong with the data, if that is the reason ([`ErrorKind::Corrupt`]).
    pub fn damage(&self) -> Option<&Damage> {
        self.0.damage.as_ref()
    }

    /// What went wrong, without position and remedy.
    pub(crate) fn what(&self) -> &str {
        &self.0.what
    }

    /// What to do about it, as it stands at the end of the text.
    pub fn remedy(&self) -> &str {
        &self.0.remedy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_position_what_remedy() {
        let error = Error::corrupt("the value is cut short", "fetch the shard again")
            .in_column("tokens")
            .at_byte(17)
            .at_sample(3)
            .in_shard("shard.00002.mds")
            .in_dataset("./c4/val");
        assert_eq!(
            error.to_string(),
            "dataset ./c4/val, shard shard.00002.mds, sample 3, byte 17, column tokens: \
             the value is cut short; fetch the shard again"
        );
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(error.remedy(), "fetch the shard again");
    }

    #[test]
    fn text_without_position_has_no_prefix() {
        let error = Error::invalid("no columns", "give at least one");
        assert_eq!(error.to_string(), "no columns; give at least one");
    }

    #[test]
    fn the_innermost_position_stays() {
        let error = Error::corrupt("a", "b").in_shard("inner").in_shard("outer");
        assert_eq!(error.position().shard.as_deref(), Some("inner"));
    }

    #[test]
    fn io_errors_keep_their_source_and_choose_kind_and_remedy() {
        let cases = [
            (io::ErrorKind::NotFound, ErrorKind::NotFound, "check the path"),
            (io::ErrorKind::PermissionDenied, ErrorKind::PermissionDenied, "check the permissions"),
            (io::ErrorKind::AlreadyExists, ErrorKind::AlreadyExists, "remove it or choose another"),
            (io::ErrorKind::NotADirectory, ErrorKind::InvalidArgument, "check the path"),
            (io::ErrorKind::IsADirectory, ErrorKind::InvalidArgument, "check the path"),
            (io::ErrorKind::StorageFull, ErrorKind::Io, "free some space and try again"),
            (io::ErrorKind::Other, ErrorKind::Io, "check the disk and try again"),
        ];
        for (from, kind, remedy) in cases {
            let error = Error::io(io::Error::new(from, "below"), "cannot write x");
            assert_eq!(error.kind(), kind);
            assert_eq!(error.to_string(), format!("cannot write x; {remedy}"));
            assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("below"));
        }
    }

    #[test]
    fn texts_from_strangers_are_short_and_harmless() {
        let error = Error::invalid("x".repeat(5000), "y")
            .in_shard("a\x1b[2J\u{202e}ü")
            .in_column("z".repeat(4097));
        let (x, z) = ("x".repeat(4096), "z".repeat(4096));
        assert_eq!(
            error.to_string(),
            format!(
                "shard a\\u{{1b}}[2J\\u{{202e}}ü, column {z}... (4097 bytes): {x}... (5000 bytes); y"
            )
        );
    }

    #[test]
    fn errors_cross_threads() {
        fn assert_send_sync<T: Send + Sync + 'static>() {}
        assert_send_sync::<Error>();
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
