//! From gradients to the next parameters: global-norm clipping and decoupled AdamW.

mod adamw;
mod gradients;

pub use adamw::{DecoupledAdamW, Moments};
pub use gradients::Gradients;
