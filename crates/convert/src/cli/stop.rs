//! Ctrl-C and its kin.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::EXIT_INTERRUPTED;
use crate::error::{Error, ErrorKind, Result};

/// Ctrl-C, SIGTERM and SIGHUP. During a conversion the first asks it to stop in order; at any
/// other time, and the second time, the program ends at once.
pub(super) struct StopSignal {
    cancel: Arc<AtomicBool>,
    converting: Arc<AtomicBool>,
}

impl StopSignal {
    pub(super) fn install() -> Result<Self> {
        let signal = Self { cancel: Arc::default(), converting: Arc::default() };
        let (cancel, converting) = (Arc::clone(&signal.cancel), Arc::clone(&signal.converting));
        ctrlc::set_handler(move || {
            let again = cancel.swap(true, Ordering::SeqCst);
            if again || !converting.load(Ordering::SeqCst) {
                std::process::exit(EXIT_INTERRUPTED.into());
            }
            eprintln!("\nstopping; once more to stop at once");
        })
        .map_err(|e| {
            Error::new(ErrorKind::Internal, format!("cannot catch Ctrl-C: {e}"), "report it")
        })?;
        Ok(signal)
    }

    pub(super) fn while_converting<T>(&self, work: impl FnOnce(&Arc<AtomicBool>) -> T) -> T {
        self.converting.store(true, Ordering::SeqCst);
        let result = work(&self.cancel);
        self.converting.store(false, Ordering::SeqCst);
        result
    }
}
