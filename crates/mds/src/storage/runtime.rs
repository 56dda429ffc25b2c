//! The threads that all network remotes of a process share.

use std::io;
use std::sync::{Mutex, OnceLock, PoisonError};

use tokio::runtime::Runtime;

use crate::error::{Error, ErrorKind, Result};

/// The runtime of all network remotes of this process. Its two threads sleep while idle.
pub(super) fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: Once<Runtime> = Once::new();
    let started = RUNTIME.get_or_start(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("mds-download")
            .enable_all()
            .build()
    });
    started.map_err(|e| {
        Error::new(
            ErrorKind::Io,
            format!("cannot start the download threads ({e})"),
            "raise the limit on threads",
        )
    })
}

/// What is started once. A start that fails is tried again by whoever comes next: what was short
/// then may be free now.
struct Once<T> {
    started: OnceLock<T>,
    /// Held by whoever starts it.
    starting: Mutex<()>,
}

impl<T> Once<T> {
    const fn new() -> Self {
        Self { started: OnceLock::new(), starting: Mutex::new(()) }
    }

    fn get_or_start(&self, start: impl FnOnce() -> io::Result<T>) -> io::Result<&T> {
        if let Some(started) = self.started.get() {
            return Ok(started);
        }
        let _alone = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        match self.started.get() {
            Some(started) => Ok(started),
            None => {
                let new = start()?;
                Ok(self.started.get_or_init(|| new))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_that_failed_is_tried_again_and_one_that_did_not_is_kept() {
        let once = Once::new();
        let failed = once.get_or_start(|| Err(io::ErrorKind::WouldBlock.into())).unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(*once.get_or_start(|| Ok(1)).unwrap(), 1);
        assert_eq!(*once.get_or_start(|| Ok(2)).unwrap(), 1);
    }
}
