//! The one error type of the crate: what kind of failure, what went wrong and what to do about it.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::Path;

use crate::source::Unit;

/// What zstd says of a frame whose window is larger than 128 MiB. As much memory would be needed for each file that is open.
const WINDOW_TOO_LARGE: &str = "Frame requires too much memory for decoding";

/// The result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A source, file, tokenizer or program that is needed is not there: check the name.
    NotFound,
    /// The output exists already: choose another place or remove it.
    AlreadyExists,
    /// The caller passed a value that cannot work: pass another one.
    InvalidArgument,
    /// A line, file or tokenizer breaks the rules of its format: correct it or fetch it again.
    Corrupt,
    /// The source holds no document: nothing was written.
    Empty,
    /// The local file system or another process failed: free space, check the disk, try again.
    Io,
    /// The hub or another remote refused or failed for good, after all attempts: check it and try
    /// again.
    Hub,
    /// The caller asked to stop: what is complete was kept for the next run, where there was a place to keep it.
    Interrupted,
    /// The shards could not be written; the source is the [`mds::Error`].
    Write,
    /// A defect of this program.
    Internal,
}

/// Why a conversion failed. The text reads `WHAT; REMEDY`.
#[derive(Debug)]
pub struct Error(Box<Details>);

/// Boxed, so that a `Result<T, Error>` is one word larger than `T` at most.
#[derive(Debug)]
struct Details {
    kind: ErrorKind,
    what: String,
    remedy: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error that says what is wrong and what the reader of the message can do about it. Both
    /// are clauses without a full stop.
    pub fn new(kind: ErrorKind, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self(Box::new(Details { kind, what: what.into(), remedy: remedy.into(), source: None }))
    }

    /// A failure of the local file system while doing `action` ("open", "read", ...) to `path`.
    pub(crate) fn io(source: io::Error, action: &str, path: &Path) -> Self {
        let (kind, remedy) = match source.kind() {
            io::ErrorKind::NotFound => (ErrorKind::NotFound, "check the path"),
            io::ErrorKind::PermissionDenied => (ErrorKind::Io, "check the permissions"),
            // A file in the place of a folder, or the other way round.
            io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
                (ErrorKind::InvalidArgument, "check the path")
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                (ErrorKind::Io, "free some space and try again")
            }
            _ => (ErrorKind::Io, "check the disk and try again"),
        };
        // The name of a temporary file says nothing: nobody chose it.
        let cause = source.to_string();
        let cause = cause.split(" at path ").next().unwrap_or_default();
        Self::new(kind, format!("cannot {action} {}: {cause}", path.display()), remedy)
            .with_source(source)
    }

    pub(crate) fn invalid(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, what, remedy)
    }

    pub(crate) fn interrupted() -> Self {
        Self::new(ErrorKind::Interrupted, "stopped before the end", "run the command again")
    }

    pub(crate) fn internal(what: &str) -> Self {
        Self::new(ErrorKind::Internal, what, "this is a defect of the program: please report it")
    }

    /// Says after how many lines or so of a file it came, if there were any.
    #[must_use]
    pub(crate) fn after(mut self, unit: Unit, count: u64) -> Self {
        if self.kind() == ErrorKind::Corrupt && count > 0 {
            self.0.what = format!("{} (behind {} {count})", self.0.what, unit.noun());
        }
        self
    }

    /// Says where it came.
    #[must_use]
    pub(crate) fn at(mut self, place: impl fmt::Display) -> Self {
        self.0.what = format!("{place}: {}", self.0.what);
        self
    }

    /// Records the error below this one; its text must already be part of this one's.
    #[must_use]
    pub(crate) fn with_source(
        mut self,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What is wrong with the file `name`, with which the text begins, and what to do about it.
    pub(crate) fn about(&self, name: &str) -> (&str, &str) {
        let what = self.0.what.strip_prefix(name).and_then(|rest| rest.strip_prefix(": "));
        (what.unwrap_or(&self.0.what), &self.0.remedy)
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)?;
        // A malformation ends with its own remedy.
        if self.0.remedy.is_empty() { Ok(()) } else { write!(f, "; {}", self.0.remedy) }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|e| e as _)
    }
}

impl From<mds::Error> for Error {
    fn from(source: mds::Error) -> Self {
        Self::of_dataset_library(ErrorKind::Write, source)
    }
}

impl From<Error> for io::Error {
    /// Lets a reader report a failure through [`io::Read`]; `from_read` is the way back.
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}

impl Error {
    /// A remote that sources are read from failed.
    pub(crate) fn of_remote(source: mds::Error) -> Self {
        Self::of_dataset_library(ErrorKind::Hub, source)
    }

    fn of_dataset_library(kind: ErrorKind, source: mds::Error) -> Self {
        let (text, remedy) = (source.to_string(), source.remedy());
        let mut what = text.strip_suffix(&format!("; {remedy}")).unwrap_or(&text).to_owned();
        if let Some(cause) = source.source() {
            what = format!("{what} ({cause})");
        }
        // The limits on time and attempts are options of the library, which these programs do not have.
        let remedy = match remedy.split_once(", or raise ") {
            Some((check, _)) => format!("{check}, and run the command again"),
            None => remedy.to_owned(),
        };
        Self::new(kind, what, remedy).with_source(source)
    }

    /// The error behind a failed read of the source `name`: the reader's own if it was one of this
    /// crate or of the dataset library, else a damaged or unreadable file.
    pub(crate) fn from_read(error: io::Error, name: &str, bytes_read: u64) -> Self {
        let error = match error.downcast::<mds::Error>() {
            Ok(remote) => return Self::of_remote(remote),
            Err(error) => error,
        };
        let error = match error.downcast::<Self>() {
            Ok(own) => return own,
            Err(error) => error,
        };
        if error.to_string() == WINDOW_TOO_LARGE {
            return Self::invalid(
                format!(
                    "{name}: its zstd window is larger than 128 MiB, the largest that is unpacked"
                ),
                "pack it again with a smaller one: zstd -dc --long=31 FILE | zstd -o NEW_FILE",
            );
        }
        let damaged = matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData
        ) || error.raw_os_error().is_none();
        let (kind, remedy) = if damaged {
            (ErrorKind::Corrupt, "the file is damaged or cut short: fetch or write it again")
        } else {
            (ErrorKind::Io, "check the disk and try again")
        };
        Self::new(kind, format!("{name}: cannot read after byte {bytes_read}: {error}"), remedy)
            .with_source(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_errors_name_the_action_the_path_and_a_remedy() {
        let error = Error::io(io::Error::from_raw_os_error(2), "open", Path::new("/data/x.jsonl"));
        assert_eq!(
            error.to_string(),
            "cannot open /data/x.jsonl: No such file or directory (os error 2); check the path"
        );
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_fault_behind_no_line_is_at_the_beginning() {
        let after = |count| {
            let fault = Error::new(ErrorKind::Corrupt, "a.gz: damaged", "fetch it again");
            fault.after(Unit::Line, count).to_string()
        };
        assert_eq!(after(0), "a.gz: damaged; fetch it again");
        assert_eq!(after(3), "a.gz: damaged (behind line 3); fetch it again");
    }

    #[test]
    fn names_of_temporary_files_are_left_out() {
        let error = tempfile::tempdir_in("/nowhere").unwrap_err();
        assert!(error.to_string().contains(" at path \"/nowhere/"), "{error}");
        let error = Error::io(error, "write", Path::new("a.bin"));
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(
            error.to_string(),
            "cannot write a.bin: No such file or directory (os error 2); check the path"
        );
    }

    #[test]
    fn an_error_survives_the_way_through_a_reader() {
        let error = Error::from_read(Error::interrupted().into(), "x", 3);
        assert_eq!(error.kind(), ErrorKind::Interrupted);
    }

    #[test]
    fn remedies_of_the_dataset_library_name_no_options_of_its_own() {
        let remedy =
            "check the network and the remote, or raise download_timeout and download_retry";
        let stalled = mds::Error::new(mds::ErrorKind::Download, "cannot download x", remedy);
        assert_eq!(
            Error::of_remote(stalled.with_source(io::Error::other("stalled"))).to_string(),
            "cannot download x (stalled); check the network and the remote, and run the command again"
        );
        let missing = mds::Error::new(mds::ErrorKind::NotFound, "x is not there", "check the path");
        assert_eq!(Error::of_remote(missing).to_string(), "x is not there; check the path");
    }

    #[test]
    fn a_cut_file_is_reported_with_its_position() {
        let cut = io::Error::new(io::ErrorKind::UnexpectedEof, "unexpected end of file");
        assert_eq!(
            Error::from_read(cut, "x.json.gz", 1234).to_string(),
            "x.json.gz: cannot read after byte 1234: unexpected end of file; \
             the file is damaged or cut short: fetch or write it again"
        );
    }
}
