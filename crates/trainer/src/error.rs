//! The one error type of this crate: what went wrong, named, and what to do about it.

use std::path::{Path, PathBuf};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a run cannot start or go on. The variants are told apart by what a caller can do.
///
/// Every message is complete: it names the key, file, sample or value concerned and the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration is wrong: edit the YAML file or the overrides.
    #[error("{0}")]
    Config(String),
    /// The dataset does not hold what the configuration asks for: convert it again, or change the
    /// configuration.
    #[error("{0}")]
    Data(String),
    /// The dataset could not be read: its message names the stream, shard and sample. Or another address could not.
    #[error(transparent)]
    Dataset(#[from] mds::Error),
    /// The tokenizer could not be found, loaded or applied.
    #[error(transparent)]
    Tokenizer(#[from] convert::Error),
    /// A checkpoint is missing, damaged, or belongs to another model or dataset.
    #[error("{0}")]
    Checkpoint(String),
    /// A checkpoint is of another version of this program: it is whole, but not for this one.
    #[error("{0}")]
    CheckpointVersion(String),
    /// A checkpoint or the metrics did not arrive at their remote, after all attempts: mend what its message names and
    /// start the run again, which goes on from the copy that is kept.
    #[error("{what} was not saved to {address}: {source}. A copy is kept in `{}`{then}", kept.display())]
    Upload {
        /// What was to be saved: `the checkpoint ep0-ba20`.
        what: String,
        /// The folder at the remote, without options.
        address: String,
        /// Where it lies on this machine.
        kept: PathBuf,
        /// What to do with it: nothing, or a clause.
        then: &'static str,
        /// What the remote answered.
        source: Box<mds::Error>,
    },
    /// The requested device does not exist here.
    #[error("{0}")]
    Device(String),
    /// The run itself went wrong (a loss that is not a number, say).
    #[error("{0}")]
    Training(String),
    /// The operating system refused a file operation.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// What was tried: "read", "write", "create".
        action: &'static str,
        /// The file or folder concerned.
        path: PathBuf,
        /// What the operating system answered.
        source: std::io::Error,
    },
}

impl Error {
    /// For `map_err`: names the file operation that failed.
    ///
    /// ```
    /// use trainer::Error;
    /// let path = std::path::Path::new("/no/such/file");
    /// let error = std::fs::read(path).map_err(Error::io("read", path)).unwrap_err();
    /// assert!(error.to_string().starts_with("cannot read `/no/such/file`: "));
    /// ```
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { action, path, source }
    }
}
