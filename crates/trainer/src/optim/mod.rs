//! From gradients to the next parameters: clipping, and three optimizers behind one seam.
//!
//! * `gradients.rs` the gradients of a step, summed over its microbatches
//! * `clipping.rs` keeping them from being too large
//! * `optimizer.rs` [`Optimizer`]: what all have in common, and their state
//! * `norms.rs` what a step does to every parameter, measured
//! * `adamw.rs` the update of AdamW, `lion.rs` that of Lion
//!
//! An optimizer takes a step in this order, for every parameter p with gradient g (norms, biases and embeddings
//! included):
//!
//! ```text
//! p ← p · (1 − decay)                    only if wd ≠ 0; before the update
//! p ← p − update(g)                      which also moves the moments
//! ```
//!
//! | `optimizer.name` | decay | update |
//! |---|---|---|
//! | `decoupled_adamw` | `lr_t / lr_initial · wd` | AdamW |
//! | `adamw` | `lr_t · wd` | AdamW |
//! | `decoupled_lionw` | `lr_t / lr_initial · wd` | Lion |
//!
//! A decoupled decay follows the shape of the schedule and not the size of the learning rate, so `wd` is the share of a
//! weight lost per step at the peak: values above 1e-3 are far stronger there than in plain AdamW.

mod adamw;
mod clipping;
mod gradients;
mod lion;
mod norms;
mod optimizer;

pub use gradients::Gradients;
pub use norms::StepNorms;
pub use optimizer::{Moments, Optimizer};
