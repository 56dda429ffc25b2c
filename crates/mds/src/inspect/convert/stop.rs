//! Ctrl-C and SIGTERM.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Failure;
use crate::inspect::EXIT_INTERRUPTED;

/// While a conversion runs the first signal asks it to end and clean up; at any other time, and the
/// second time, the program ends at once.
pub(super) struct StopSignal {
    raised: Arc<AtomicBool>,
    converting: Arc<AtomicBool>,
}

impl StopSignal {
    pub(super) fn install() -> Result<Self, Failure> {
        let signal = Self { raised: Arc::default(), converting: Arc::default() };
        let (raised, converting) = (Arc::clone(&signal.raised), Arc::clone(&signal.converting));
        let handler = move || {
            let again = raised.swap(true, Ordering::SeqCst);
            if again || !converting.load(Ordering::SeqCst) {
                std::process::exit(EXIT_INTERRUPTED.into());
            }
        };
        ctrlc::set_handler(handler).map_err(|error| {
            Failure::Output(std::io::Error::other(format!("cannot catch Ctrl-C: {error}")))
        })?;
        Ok(signal)
    }

    pub(super) fn while_converting<T>(&self, work: impl FnOnce() -> T) -> T {
        self.converting.store(true, Ordering::SeqCst);
        let result = work();
        self.converting.store(false, Ordering::SeqCst);
        result
    }

    /// Ends the conversion if a signal came.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if !self.raised.load(Ordering::Relaxed) {
            return Ok(());
        }
        let what = "interrupted; nothing unfinished was left behind";
        Err(Failure::Interrupted(what.to_owned()))
    }
}
