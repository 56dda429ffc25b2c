//! Checkpoints: a run's whole state in a folder that is either complete or not there.
//!
//! ```text
//! save_folder/
//!   ep0-ba20/
//!     model.safetensors      the parameters, by the names of [`crate::model`]
//!     optimizer.safetensors  `first.NAME` and `second.NAME`: the moments of each parameter; Lion has only the first,
//!                            and with `save_weights_only` there are none
//!     state.json             position, data position, seed, resolved configuration (whose moments they are, too),
//!                            sizes and hashes of the above
//!   latest                   the name of the newest checkpoint
//! ```
//!
//! A checkpoint is written into a hidden folder beside its final place; every file and the folder are synced, the
//! folder is renamed, the parent synced, and only then `latest` is replaced. A process that dies at any instant
//! leaves the old checkpoints as they were and at most a hidden folder, which the next save removes. All this is done
//! while the run goes on.
//!
//! At a remote the layout is the same. A checkpoint is first written on this machine as above, then uploaded file by
//! file: `state.json` comes last and makes it complete, then `latest` is replaced, and the copy here is removed. A
//! process that dies at any instant leaves at most a folder without `state.json`, which the next save removes, and the
//! copy here, which is uploaded when the run is continued on this machine. A copy that is not continued is renamed
//! (`ep0-ba20-unsent`) and left to the user.
//!
//! * `state.rs` what `state.json` holds
//! * `tensors.rs` parameters and moments as safetensors
//! * `start.rs` what a run takes over from a checkpoint
//! * `snapshot.rs` parameters and moments of a run at one instant
//! * `background.rs` saving on a thread of its own
//! * `place.rs` where checkpoints are read from: folders here and at remotes
//! * `folder.rs` publishing and discarding checkpoints in a folder of this machine
//! * `remote.rs` the same at a remote
//! * `mark.rs` whose a folder at a remote is

mod background;
mod folder;
mod mark;
mod place;
mod remote;
mod snapshot;
mod start;
mod state;
mod tensors;

pub use background::{Done, Saver};
pub(crate) use mark::Mark;
pub use place::{Found, Place};
pub use snapshot::Snapshot;
pub(crate) use start::Start;
pub use state::State;
pub(crate) use tensors::{decode as decode_tensors, write as write_tensors};

use std::path::Path;

use folder::CheckpointFolder;
use remote::RemoteFolder;

use crate::error::{Error, Result};
use crate::model::NamedTensor;
use crate::optim::Moments;

const MODEL_FILE: &str = "model.safetensors";
const OPTIMIZER_FILE: &str = "optimizer.safetensors";
const STATE_FILE: &str = "state.json";
/// Holds the name of the newest checkpoint.
const LATEST: &str = "latest";

/// Everything that a run needs to go on as if it had never stopped.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Position, data position, configuration.
    pub state: State,
    /// The parameters.
    pub model: Vec<NamedTensor>,
    /// The optimizer's moments.
    pub moments: Moments,
}

impl Checkpoint {
    /// Reads and verifies the checkpoint in `place`.
    ///
    /// # Errors
    /// When a file is missing, cut off or altered; the message names the checkpoint and the file.
    pub fn load(place: &Place) -> Result<Self> {
        let state = State::read(place)?;
        let read = |file: &str| state.read_verified(place, file);
        let model =
            tensors::decode(&read(MODEL_FILE)?).map_err(|e| damaged(place, MODEL_FILE, &e))?;
        let moments = tensors::decode(&read(OPTIMIZER_FILE)?)
            .and_then(|all| tensors::split_moments(all, state.optimizer_steps))
            .map_err(|e| damaged(place, OPTIMIZER_FILE, &e))?;
        Ok(Self { state, model, moments })
    }
}

impl Snapshot {
    /// Writes the files into `folder`, which must exist, and syncs each of them.
    fn write_files(self, folder: &Path) -> Result<()> {
        let Self { mut state, model, moments } = self;
        // First all tensors, each file's given back at once: from then on the run has its own to itself again.
        for (file, tensors) in [(MODEL_FILE, model), (OPTIMIZER_FILE, moments)] {
            let named = tensors.iter().map(|tensor| (&tensor.name, tensor));
            tensors::write(&folder.join(file), named)?;
        }
        state.files.clear();
        for file in [MODEL_FILE, OPTIMIZER_FILE] {
            tensors::sync(&folder.join(file))?;
            state.record_file(folder, file)?;
        }
        state.write(folder)
    }
}

/// A run's `save_folder`, open to be saved to.
#[derive(Debug)]
pub struct SaveFolder(Kind);

#[derive(Debug)]
enum Kind {
    Folder(CheckpointFolder),
    Remote(Box<RemoteFolder>),
}

impl SaveFolder {
    /// Opens `place`, which is made where it does not exist, for a run that starts, or goes on from its checkpoint
    /// `continues`. Of the checkpoints that it saves the newest `keep` are kept; `None` keeps all.
    ///
    /// Checkpoints that are not this run's past are discarded as soon as it has saved one of its own, if `overwrite`.
    ///
    /// # Errors
    /// When nothing can be written there, another run uses it, or it holds checkpoints that are not this run's past and
    /// `overwrite` is not set.
    pub fn open(
        place: &Place,
        keep: Option<usize>,
        overwrite: bool,
        continues: Option<&Found>,
    ) -> Result<Self> {
        Ok(Self(match place {
            Place::Folder(path) => {
                let past = continues.and_then(|found| found.place.position());
                Kind::Folder(CheckpointFolder::open(path, keep, overwrite, past)?)
            }
            Place::Remote(remote) => {
                Kind::Remote(Box::new(RemoteFolder::open(remote, keep, overwrite, continues)?))
            }
        }))
    }

    /// The newest complete checkpoint that lies in `place` or is on its way there from this machine; `None` where there
    /// is none at all.
    ///
    /// # Errors
    /// When there are checkpoints and all of them are damaged, or a remote fails.
    pub fn newest(place: &Place) -> Result<Option<Found>> {
        place::newest_of(Self::list(place)?)
    }

    /// The newest of those that have seen fewer than `batch` batches.
    ///
    /// # Errors
    /// As [`newest`](Self::newest).
    pub fn newest_before(place: &Place, batch: u64) -> Result<Option<Found>> {
        let mut places = Self::list(place)?;
        places.retain(|place| place.position().is_some_and(|(at, _)| at < batch));
        place::newest_of(places)
    }

    /// The complete checkpoints of `place`, oldest first, with those on their way.
    fn list(place: &Place) -> Result<Vec<Place>> {
        match place {
            Place::Folder(_) => place.checkpoints(),
            Place::Remote(remote) => remote::with_unsent(remote),
        }
    }

    /// Publishes `snapshot` and discards what is no longer to be kept. Returns where it lies, for messages. A folder that
    /// was removed since it was opened is made again.
    ///
    /// # Errors
    /// When a file cannot be written or [does not arrive](Error::Upload); the checkpoints that were there remain.
    pub fn save(&mut self, snapshot: Snapshot) -> Result<String> {
        match &mut self.0 {
            Kind::Folder(folder) => {
                let at = snapshot.state.timestamp;
                folder.make_again((at.batch, at.epoch))?;
                Ok(folder.save(snapshot)?.display().to_string())
            }
            Kind::Remote(folder) => folder.save(snapshot),
        }
    }
}

/// The refusal of a folder with checkpoints that are not this run's past.
fn occupied(newest: &dyn std::fmt::Display) -> Error {
    Error::Checkpoint(format!(
        "save_folder already holds the checkpoint `{newest}`; set autoresume=true to continue it, \
         save_overwrite=true to replace it, or another save_folder"
    ))
}

/// The refusal of a checkpoint that is not what was saved.
fn damaged(place: &Place, file: &str, problem: &dyn std::fmt::Display) -> Error {
    Error::Checkpoint(format!(
        "the checkpoint `{place}` is damaged: {file} {problem}; remove that folder and continue from an older one"
    ))
}
