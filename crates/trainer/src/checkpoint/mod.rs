//! Checkpoints: a run's whole state in a folder that is either complete or not there.
//!
//! ```text
//! save_folder/
//!   ep0-ba20/
//!     model.safetensors      the parameters, by Hugging Face's GPT-2 names
//!     optimizer.safetensors  `first.NAME` and `second.NAME`: the moments of each parameter
//!     state.json             position, data position, seed, resolved configuration, sizes and hashes of the above
//!   latest                   the name of the newest checkpoint
//! ```
//!
//! A checkpoint is written into a hidden folder beside its final place; every file and the folder are synced, the
//! folder is renamed, the parent synced, and only then `latest` is replaced. A process that dies at any instant
//! leaves the old checkpoints as they were and at most a hidden folder, which the next save removes.
//!
//! * `state.rs` what `state.json` holds
//! * `tensors.rs` parameters and moments as safetensors
//! * `folder.rs` publishing, finding and discarding checkpoints

mod folder;
mod state;
mod tensors;

pub use folder::{CheckpointFolder, Found};
pub use state::State;

use std::path::Path;

use crate::error::{Error, Result};
use crate::model::NamedTensor;
use crate::optim::Moments;

const MODEL_FILE: &str = "model.safetensors";
const OPTIMIZER_FILE: &str = "optimizer.safetensors";
const STATE_FILE: &str = "state.json";

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
    /// Reads and verifies the checkpoint in `folder`.
    ///
    /// # Errors
    /// When a file is missing, cut off or altered; the message names the checkpoint and the file.
    pub fn load(folder: &Path) -> Result<Self> {
        let state = State::read(folder)?;
        let read = |file: &str| state.read_verified(folder, file);
        let model =
            tensors::decode(&read(MODEL_FILE)?).map_err(|e| damaged(folder, MODEL_FILE, &e))?;
        let moments = tensors::decode(&read(OPTIMIZER_FILE)?)
            .and_then(|all| tensors::split_moments(all, state.optimizer_steps))
            .map_err(|e| damaged(folder, OPTIMIZER_FILE, &e))?;
        Ok(Self { state, model, moments })
    }

    /// Writes the files into `folder`, which must exist, and syncs each of them.
    fn write_files(&self, folder: &Path) -> Result<()> {
        let mut state = self.state.clone();
        tensors::write(&folder.join(MODEL_FILE), &self.model)?;
        tensors::write(&folder.join(OPTIMIZER_FILE), &tensors::join_moments(&self.moments))?;
        state.files.clear();
        for file in [MODEL_FILE, OPTIMIZER_FILE] {
            state.record_file(folder, file)?;
        }
        state.write(folder)
    }
}

/// The refusal of a checkpoint that is not what was saved.
fn damaged(folder: &Path, file: &str, problem: &dyn std::fmt::Display) -> Error {
    Error::Checkpoint(format!(
        "the checkpoint `{}` is damaged: {file} {problem}; remove that folder and continue from an older one",
        folder.display()
    ))
}
