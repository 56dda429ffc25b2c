//! A GPT trainer on Burn, fed by MDS datasets.
//!
//! # Layout
//!
//! * [`config`] a recipe in YAML, with overrides, references and strict keys
//! * [`time`] durations (`4800ba`) and the position that a run has reached
//! * [`schedule`] the learning rate over time
//! * [`data`] an MDS dataset of text or tokens to rows of token ids
//! * [`mod@dry_run`] what a run would be, from its recipe alone
//! * [`device`] the CPU or a GPU, chosen from what there is
//! * [`host`] the memory that this machine has left
//! * [`model`] the GPT
//! * `cpu` what takes most of a step on the CPU, as fused operations
//! * [`loss`] cross-entropy over the vocabulary and its gradient
//! * [`recompute`] the backward block by block, which keeps fewer activations
//! * [`optim`] gradient clipping and the optimizers
//! * `step` one batch in passes that fit the device
//! * [`mod@train`] the run itself: the loop, read from top to bottom
//! * [`mod@replay`] one batch of a run again, without training
//! * [`eval`] the loss on held-out documents, and the unigram entropy beside it
//! * [`icl`] in-context tasks: which answers a model finds likeliest
//! * [`generate`] text from a model
//! * [`hf`] models as folders of Hugging Face's `transformers`, both ways
//! * [`pretrained`] a trained model with its tokenizer, from either
//! * [`checkpoint`] a run's whole state, complete or not there
//! * `unread` steps whose losses are still on the device
//! * [`watch`] callbacks that may end a run before its time
//! * [`interrupt`] Ctrl-C saves, then stops
//! * [`logging`] metrics to the console, `metrics.jsonl`, TensorBoard and the loss curve
//! * [`error`] what can go wrong
//!
//! # Example
//!
//! What a run will do, before it starts:
//!
//! ```
//! use trainer::config::Config;
//! use trainer::schedule::Schedule;
//!
//! # fn main() -> trainer::Result<()> {
//! let yaml = "
//! max_seq_len: 128
//! data_remote: ./c4
//! tokenizer_name: gpt2
//! model: {name: mosaic_gpt, d_model: 64, n_heads: 4, n_layers: 2, vocab_size: 50257}
//! train_loader: {name: text, dataset: {split: train, group_method: concat}}
//! optimizer: {name: decoupled_adamw, lr: 1.0e-3}
//! scheduler: {name: cosine_with_warmup, t_warmup: 0.1dur, alpha_f: 0.1}
//! max_duration: 100ba
//! global_train_batch_size: 16
//! device_train_microbatch_size: 4
//! ";
//! let config = Config::from_yaml_str(yaml, &["max_duration=200ba".to_owned()])?;
//! let plan = config.batch_plan(1)?;
//! assert_eq!((plan.device_batch, plan.grad_accum), (16, 4));
//!
//! let schedule = Schedule::from_config(&config.scheduler, config.max_duration, None)?;
//! assert_eq!(config.optimizer.lr * schedule.for_batch(21), 1.0e-3);
//! # Ok(())
//! # }
//! ```

pub mod checkpoint;
pub mod config;
mod cpu;
pub mod data;
pub mod device;
pub mod dry_run;
pub mod error;
pub mod eval;
pub mod generate;
pub mod hf;
pub mod host;
pub mod icl;
pub mod interrupt;
pub mod logging;
pub mod loss;
pub mod model;
pub mod optim;
pub mod pretrained;
pub mod recompute;
pub mod replay;
pub mod schedule;
mod step;
pub mod time;
pub mod train;
mod unread;
pub mod watch;

pub use dry_run::dry_run;
pub use error::{Error, Result};
pub use replay::replay;
pub use train::train;
