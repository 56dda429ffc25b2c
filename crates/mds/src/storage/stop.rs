//! A flag that ends waits: whoever raises it has every download, lock wait and back-off that was
//! handed the flag return soon.

use tokio::sync::watch;

use crate::error::{Error, ErrorKind, Result};

/// Raised once, by the owner of background threads that it wants to join. Clones share the flag.
#[derive(Debug, Clone)]
pub(crate) struct Stop(watch::Sender<bool>);

impl Stop {
    /// A flag that is not raised yet.
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Ends all waits on this flag, now and later.
    pub(crate) fn raise(&self) {
        self.0.send_replace(true);
    }

    /// Whether the flag is up.
    pub(crate) fn is_raised(&self) -> bool {
        *self.0.borrow()
    }

    /// An error of kind [`Timeout`](ErrorKind::Timeout) once the flag is up.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_raised() { Err(Self::error()) } else { Ok(()) }
    }

    /// Completes when the flag goes up; needs no particular async runtime.
    pub(crate) async fn raised(&self) {
        // The sender lives in `self`, so waiting can only end with the flag up.
        let _ = self.0.subscribe().wait_for(|raised| *raised).await;
    }

    /// What an interrupted wait returns. Nobody sees it but who stopped a loader or a writer.
    pub(crate) fn error() -> Error {
        Error::new(
            ErrorKind::Timeout,
            "the work was given up because its loader or writer was stopped",
            "start a new one",
        )
    }
}
