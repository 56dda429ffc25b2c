//! Saving beside the training: one checkpoint at a time, on a thread of its own.
//!
//! The training thread is held up only while it hands the state over, and while a checkpoint before it is still being
//! saved. How long that was, and how long a checkpoint takes, are metrics.

use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::{SaveFolder, Snapshot};
use crate::error::{Error, Result};
use crate::logging::Metric;

/// Saves checkpoints while the run goes on. Dropped, it waits for the one that it is saving.
#[derive(Debug)]
pub struct Saver {
    /// Where to; `None` where there is no save folder, and while a thread has it.
    folder: Option<SaveFolder>,
    has_folder: bool,
    saving: Option<JoinHandle<Work>>,
    /// How long the training thread was held up, and how long saving took, since both were last logged.
    stall: Option<Duration>,
    took: Option<Duration>,
}

/// What a thread gives back.
#[derive(Debug)]
struct Work {
    folder: Option<SaveFolder>,
    first: Result<()>,
    saved: Result<Option<String>>,
    took: Duration,
}

/// What became of a checkpoint.
#[derive(Debug)]
pub struct Done {
    /// Where it lies, for messages; `None` where there is no save folder.
    pub saved: Option<String>,
    /// What became of the work before it.
    pub first: Result<()>,
}

impl Saver {
    /// One that saves to `folder`, if to any.
    pub fn new(folder: Option<SaveFolder>) -> Self {
        let has_folder = folder.is_some();
        Self { folder, has_folder, saving: None, stall: None, took: None }
    }

    /// Whether there is a save folder.
    pub fn has_folder(&self) -> bool {
        self.has_folder
    }

    /// Begins to do the work `first`, and then, whatever came of that, to save what `snapshot` takes. The one before must
    /// have been [waited for](Self::wait).
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn begin(
        &mut self,
        first: impl FnOnce() -> Result<()> + Send + 'static,
        snapshot: impl FnOnce() -> Snapshot,
    ) -> Result<()> {
        let snapshot = self.has_folder.then(snapshot);
        let mut folder = self.folder.take();
        let work = move || {
            let began = Instant::now();
            let first = first();
            let saved = folder.as_mut().zip(snapshot);
            let saved = saved.map(|(folder, snapshot)| folder.save(snapshot)).transpose();
            Work { folder, first, saved, took: began.elapsed() }
        };
        let thread = Builder::new().name("checkpoint".to_owned()).spawn(work);
        self.saving = Some(thread.map_err(Error::io("start a thread for", "the checkpoint"))?);
        Ok(())
    }

    /// What became of the checkpoint that is being saved, if that is decided; does not wait.
    ///
    /// # Errors
    /// When it was not saved.
    pub fn poll(&mut self) -> Result<Option<Done>> {
        match &self.saving {
            Some(saving) if saving.is_finished() => self.wait(),
            _ => Ok(None),
        }
    }

    /// Waits for the checkpoint that is being saved, if there is one.
    ///
    /// # Errors
    /// When it was not saved.
    pub fn wait(&mut self) -> Result<Option<Done>> {
        let Some(saving) = self.saving.take() else { return Ok(None) };
        // A panic is a defect, and ends the run as it would without a thread.
        let work = saving.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        self.folder = work.folder;
        self.took = Some(work.took);
        Ok(Some(Done { saved: work.saved?, first: work.first }))
    }

    /// Notes that the training thread was held up for so long.
    pub fn held_up(&mut self, time: Duration) {
        *self.stall.get_or_insert_default() += time;
    }

    /// The seconds for which the training thread was held up, and those that saving took, where either is new.
    pub fn metrics(&mut self) -> Vec<Metric<'static>> {
        let [stall, took] = [&mut self.stall, &mut self.took].map(Option::take);
        let seconds =
            |key, time: Option<Duration>| time.map(|time| (key, time.as_secs_f64().into()));
        let stall = seconds("checkpoint/stall_seconds", stall);
        stall.into_iter().chain(seconds("checkpoint/save_seconds", took)).collect()
    }
}

impl Drop for Saver {
    fn drop(&mut self) {
        let Some(saving) = self.saving.take() else { return };
        // The run ends with another error, or a panic, which was reported.
        let Ok(work) = saving.join() else { return };
        for error in [work.saved.err(), work.first.err()].into_iter().flatten() {
            tracing::warn!("{error}");
        }
    }
}
