//! Ctrl-C and SIGTERM: the first asks the run to save and stop, the second stops at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result};

/// Exit code of an interrupted run, as shells give it for Ctrl-C.
pub const EXIT_CODE: i32 = 130;

/// How long it may take until somebody who waits hears of it.
const PAUSE: Duration = Duration::from_millis(100);

/// Whether the run was asked to stop. Clones share the answer.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    asked: Arc<AtomicBool>,
}

impl Interrupt {
    /// Listens for Ctrl-C and SIGTERM from now on; once per process.
    ///
    /// # Errors
    /// When the operating system refuses the handler, or there is one already.
    pub fn listen() -> Result<Self> {
        let interrupt = Self::default();
        let asked = Arc::clone(&interrupt.asked);
        ctrlc::set_handler(move || {
            if asked.swap(true, Ordering::SeqCst) {
                std::process::exit(EXIT_CODE);
            }
            eprintln!("\nstopping after this step; once more to stop at once");
        })
        .map_err(|e| Error::Training(format!("cannot listen for Ctrl-C: {e}")))?;
        Ok(interrupt)
    }

    /// Whether the run was asked to stop.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// Does `work`, and calls `stop` if the run is asked to stop before that has ended: for work that may wait long.
    pub fn stopping<T>(&self, stop: impl Fn() + Send, work: impl FnOnce() -> T) -> T {
        thread::scope(|scope| {
            let (working, ended) = mpsc::channel::<()>();
            scope.spawn(move || {
                while ended.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                    if self.is_asked() {
                        return stop();
                    }
                }
            });
            let result = work();
            drop(working);
            result
        })
    }

    /// Asks the run to stop, as Ctrl-C does.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
    }
}
