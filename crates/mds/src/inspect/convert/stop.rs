//! Ctrl-C and SIGTERM.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tempfile::TempDir;

use super::Failure;
use crate::inspect::EXIT_INTERRUPTED;

/// While a conversion runs the first signal asks it to end and clean up; at any other time, and the
/// second time, the program ends at once.
pub(super) struct StopSignal {
    raised: Arc<AtomicBool>,
    converting: Arc<AtomicBool>,
    /// Removed if the program ends at once.
    temporary: Arc<Mutex<Vec<PathBuf>>>,
}

impl StopSignal {
    pub(super) fn install() -> Result<Self, Failure> {
        let signal =
            Self { raised: Arc::default(), converting: Arc::default(), temporary: Arc::default() };
        let (raised, converting) = (Arc::clone(&signal.raised), Arc::clone(&signal.converting));
        let temporary = Arc::clone(&signal.temporary);
        let handler = move || {
            let again = raised.swap(true, Ordering::SeqCst);
            if again || !converting.load(Ordering::SeqCst) {
                for folder in &*temporary.lock().unwrap_or_else(PoisonError::into_inner) {
                    let _ = fs::remove_dir_all(folder);
                }
                std::process::exit(EXIT_INTERRUPTED.into());
            }
            // Compressing a shard may take minutes, and nothing can end it but the program's end.
            let _ = writeln!(
                std::io::stderr(),
                "mds-inspect: stopping after the shards at hand; a second time stops at once"
            );
        };
        ctrlc::set_handler(handler).map_err(|error| {
            Failure::Output(std::io::Error::other(format!("cannot catch Ctrl-C: {error}")))
        })?;
        Ok(signal)
    }

    /// A folder that does not stay, however the program ends: but for a signal that nobody can catch.
    pub(super) fn temporary_folder(&self) -> mds::Result<TempDir> {
        let mut temporary = self.temporary.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::Builder::new().prefix("mds-inspect-").tempdir();
        let folder = folder.map_err(|e| mds::Error::io(e, "cannot create a temporary folder"))?;
        temporary.push(folder.path().to_path_buf());
        Ok(folder)
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
