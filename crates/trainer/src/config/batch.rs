//! How a global batch is split: over ranks, then into microbatches; and how many of them a run has.

use super::{Config, Microbatch};
use crate::error::{Error, Result};
use crate::time::Unit;

/// The share of one device in an optimizer step, and the passes it is done in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchPlan {
    /// Rows per optimizer step on this device.
    pub device_batch: usize,
    /// Rows per forward and backward pass; the last pass may have fewer.
    pub microbatch: usize,
    /// Passes per optimizer step.
    pub grad_accum: usize,
    /// What was adjusted, for the user to read.
    pub notice: Option<String>,
}

impl BatchPlan {
    /// The same batch in passes of `rows` rows.
    #[must_use]
    pub fn with_microbatch(self, rows: usize) -> Self {
        Self { microbatch: rows, grad_accum: self.device_batch.div_ceil(rows), ..self }
    }

    /// The rows of each pass over a device batch of `rows` rows: 48 by 11 gives 11, 11, 11, 11, 4.
    pub fn microbatches(&self, rows: usize) -> Vec<usize> {
        (0..rows).step_by(self.microbatch).map(|start| self.microbatch.min(rows - start)).collect()
    }
}

impl Config {
    /// Splits the global batch over `world_size` devices and into microbatches.
    ///
    /// # Errors
    /// When the global batch does not divide by the number of devices.
    pub fn batch_plan(&self, world_size: usize) -> Result<BatchPlan> {
        let global = self.global_train_batch_size;
        if world_size == 0 || !global.is_multiple_of(world_size) {
            let below = global - global.checked_rem(world_size).unwrap_or(0);
            return Err(Error::Config(format!(
                "global_train_batch_size {global} does not divide by the {world_size} devices of \
                 this run; set it to a multiple of {world_size}, for example {}",
                below.max(world_size)
            )));
        }
        let device_batch = global / world_size;
        let asked = match self.device_train_microbatch_size {
            Microbatch::Auto => device_batch,
            Microbatch::Rows(rows) => rows,
        };
        let microbatch = asked.min(device_batch);
        let notice = match self.device_train_microbatch_size {
            Microbatch::Auto => None,
            Microbatch::Rows(_) if asked > device_batch => Some(format!(
                "device_train_microbatch_size {asked} is larger than the device's batch of \
                 {device_batch} rows; {device_batch} is used"
            )),
            Microbatch::Rows(_) => None,
        };
        let plan = BatchPlan { device_batch, microbatch: device_batch, grad_accum: 1, notice };
        Ok(plan.with_microbatch(microbatch))
    }

    /// Tokens of a full global batch.
    pub fn tokens_per_step(&self) -> u64 {
        (self.global_train_batch_size as u64).saturating_mul(self.max_seq_len as u64)
    }

    /// The batches that `max_duration` comes to; `batches_per_epoch` is that of the training data, where it has epochs.
    /// `None` where it depends on data that is not known, or on how many rows the last batches of epochs have.
    pub fn steps(&self, batches_per_epoch: Option<u64>) -> Option<u64> {
        let count = self.max_duration.count();
        let is_full = batches_per_epoch.is_none() || self.train_loader.drop_last;
        match self.max_duration.unit {
            Unit::Batch => Some(count),
            Unit::Sample if is_full => Some(count.div_ceil(self.global_train_batch_size as u64)),
            Unit::Token if is_full => Some(count.div_ceil(self.tokens_per_step())),
            Unit::Epoch => Some(batches_per_epoch?.saturating_mul(count)),
            Unit::Sample | Unit::Token | Unit::Duration => None,
        }
    }
}
