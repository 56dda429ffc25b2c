//! The configuration of a run: the YAML schema of LLM training recipes, read strictly.
//!
//! [`Config::load`] reads a YAML file (anchors and merge keys included), lays `key.sub=value`
//! overrides over it, resolves `${key.sub}` references (so that an override of `max_seq_len`
//! reaches every place that refers to it), and then reads every value with its type. A key that
//! does not exist is an error that names the nearest one that does; an option that would change the
//! result but is not supported is refused by name; one that has no effect here is accepted with a
//! notice ([`Config::notices`]).
//!
//! * `yaml.rs` text to a tree of values: overrides and references
//! * `schema.rs` every key there is, and what becomes of it
//! * `read.rs` the tree to [`Config`], with defaults; `read_model.rs` its section `model`
//! * `model.rs` [`ModelConfig`], and what follows from it: counts of parameters and operations
//! * `address.rs` paths and addresses, which may hold keys
//! * `batch.rs` how a global batch is split over ranks and microbatches
//!
//! ```
//! use trainer::config::Config;
//!
//! let yaml = "
//! max_seq_len: 128
//! data_remote: ./c4
//! tokenizer_name: gpt2
//! model: {name: mosaic_gpt, d_model: 64, n_heads: 4, n_layers: 2, vocab_size: 50257,
//!         max_seq_len: '${max_seq_len}'}
//! train_loader: {name: text, dataset: {split: train, max_seq_len: '${max_seq_len}'}}
//! optimizer: {name: decoupled_adamw, lr: 6.0e-4}
//! scheduler: {name: cosine_with_warmup, t_warmup: 10ba, alpha_f: 0.1}
//! max_duration: 100ba
//! global_train_batch_size: 48
//! device_train_microbatch_size: 11
//! ";
//! let config = Config::from_yaml_str(yaml, &["max_seq_len=64".into()])?;
//! assert_eq!(config.model.max_seq_len, 64);
//! let plan = config.batch_plan(1)?;
//! assert_eq!(plan.microbatches(48), [11, 11, 11, 11, 4]);
//! # Ok::<(), trainer::Error>(())
//! ```

use std::fmt;
use std::time::Duration;

use mds::storage::RemoteOptions;
use serde::Serialize;

use crate::recompute::Activations;
use crate::time::Time;

mod address;
mod batch;
mod model;
mod read;
mod read_model;
mod schema;
mod section;
mod yaml;

pub use address::Address;
pub use batch::BatchPlan;
pub use model::{
    Activation, AttentionConfig, FanMode, FfnConfig, FfnType, GeluKind, InitConfig, InitScheme,
    ModelConfig, ModelName, Nonlinearity, NormType, ResidualDivisor, RopeScaling, Separator,
};

/// A fully resolved configuration: every reference replaced, every default filled in.
///
/// It serialises to YAML that loads to the same configuration ([`Config::to_yaml`]), but for options in
/// addresses, which may hold keys and are left out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// Names the run in its folder and in the logs.
    pub run_name: String,
    /// The seed of weight initialisation and dropout (the data order has its own `shuffle_seed`).
    pub seed: u64,
    /// Tokens per training row.
    pub max_seq_len: usize,
    /// The folder or URI that holds the splits.
    pub data_remote: Option<Address>,
    /// Where shards are cached; the same as `data_remote` means no copying.
    pub data_local: Option<Address>,
    /// A built-in name (`gpt2`), the path or address of a `tokenizer.json`, or a name on the hub.
    pub tokenizer_name: Address,
    /// The transformer.
    pub model: ModelConfig,
    /// Where training rows come from.
    pub train_loader: LoaderConfig,
    /// Where evaluation rows come from; without it nothing is evaluated.
    pub eval_loader: Option<LoaderConfig>,
    /// The learning-rate schedule.
    pub scheduler: SchedulerConfig,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// When to stop.
    pub max_duration: Time,
    /// How often to evaluate; zero: only at the end.
    pub eval_interval: Time,
    /// Whether to evaluate before the first step.
    pub eval_first: bool,
    /// How many batches one evaluation takes; `None` (-1 in YAML) takes all.
    #[serde(serialize_with = "minus_one_for_none")]
    pub eval_subset_num_batches: Option<u64>,
    /// Rows per optimizer step, over all ranks.
    pub global_train_batch_size: usize,
    /// Rows per forward and backward pass.
    pub device_train_microbatch_size: Microbatch,
    /// Rows per evaluation batch.
    pub device_eval_batch_size: usize,
    /// What is done beside the optimizer's step.
    pub algorithms: Algorithms,
    /// Weigh microbatches by their tokens with a label, not by their rows (the two differ only
    /// where rows are padded).
    pub accumulate_train_batch_on_tokens: bool,
    /// The arithmetic of the forward and backward pass.
    pub precision: Precision,
    /// What of the reference's sharding has a meaning on one device.
    pub fsdp_config: FsdpConfig,
    /// Which device to train on.
    pub device: DeviceChoice,
    /// Show a progress bar (on a terminal only).
    pub progress_bar: bool,
    /// Print the `[batch=7/5000]: ...` lines.
    pub log_to_console: bool,
    /// How often to print them.
    pub console_log_interval: Time,
    /// What is measured beside the loss.
    pub callbacks: Callbacks,
    /// Where metrics go beside the console and `metrics.jsonl`.
    pub loggers: Loggers,
    /// The folder for checkpoints, here or in a bucket; without it none are saved. `{run_name}` and
    /// `{rank}` (here 0) have been replaced.
    pub save_folder: Option<Address>,
    /// How often to save a checkpoint.
    pub save_interval: Time,
    /// How many checkpoints to keep; -1 keeps all.
    pub save_num_checkpoints_to_keep: i64,
    /// Whether a checkpoint of the same name may be replaced.
    pub save_overwrite: bool,
    /// The checkpoint to start from, or the `save_folder` that holds it, here or at a remote.
    pub load_path: Option<Address>,
    /// Take only the weights from `load_path`: not the optimizer, the schedule or the data order.
    pub load_weights_only: bool,
    /// Continue from the newest checkpoint in `save_folder` where there is one.
    pub autoresume: bool,
    /// The folder for metrics, event files and the loss curve, here or in a bucket.
    pub run_folder: Address,
    /// The text generated at the end of the run.
    pub generate: GenerateConfig,
    /// What the user should know: options without effect, values that were adjusted.
    #[serde(skip)]
    pub notices: Vec<String>,
}

/// One loader: a dataset and how it is batched.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LoaderConfig {
    /// `text` (or its older name `c4`).
    pub name: String,
    /// The dataset.
    pub dataset: DatasetConfig,
    /// Drop a last batch that is not full.
    pub drop_last: bool,
    /// Threads that read and tokenise.
    pub num_workers: usize,
    /// Batches that each of them keeps ready.
    pub prefetch_factor: usize,
}

/// One split of an MDS dataset or several mixed, and how samples become rows of `max_seq_len` tokens.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DatasetConfig {
    /// The folder or URI that holds the split; `None` where it is all in `local`.
    pub remote: Option<Address>,
    /// The cache folder; `None`: the remote itself where that is a folder.
    pub local: Option<Address>,
    /// The split: a folder under both.
    pub split: Option<String>,
    /// Several datasets in place of the one above, by names that are only for the reader.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "as_map")]
    pub streams: Vec<(String, StreamConfig)>,
    /// Samples in an epoch; by default as many as there are, or as `streams` ask for.
    pub epoch_size: Option<u64>,
    /// How batches are made of streams: `random`, `stratified`, `per_stream` or `device_per_stream`.
    pub batching_method: String,
    /// How an epoch chooses among a stream's samples: `balanced` or `fixed`.
    pub sampling_method: String,
    /// How many neighbouring samples are chosen together.
    pub sampling_granularity: u64,
    /// How samples are split over nodes and ranks: `relaxed` or `orig`.
    pub partition_algo: String,
    /// Shuffle samples.
    pub shuffle: bool,
    /// The shuffling algorithm's name: `py1e` and its like.
    pub shuffle_algo: String,
    /// The seed of the shuffle and of sampling.
    pub shuffle_seed: u64,
    /// Samples per block of a block-wise shuffle.
    pub shuffle_block_size: Option<u64>,
    /// Canonical nodes: what the global order is laid out for.
    pub num_canonical_nodes: Option<u64>,
    /// Samples to download ahead of the one being read.
    pub predownload: Option<u64>,
    /// The largest size of the local cache, in bytes.
    pub cache_limit: Option<u64>,
    /// Check the hashes of every shard.
    pub validate_hash: bool,
    /// Keep compressed shards beside the decompressed ones.
    pub keep_zip: bool,
    /// How often a failed download is tried again.
    pub download_retry: u32,
    /// How long one download may take, in seconds.
    pub download_timeout: f64,
    /// Tokens per row.
    pub max_seq_len: usize,
    /// How texts become rows.
    pub group_method: GroupMethod,
    /// Text put in front of every document, where its tokens are wanted.
    pub bos_text: String,
    /// Text put after every document, where its tokens are wanted.
    pub eos_text: String,
    /// The last token of each document, where attention keeps to documents.
    pub eos_token_id: Option<i32>,
    /// The first token of each document, where attention keeps to documents.
    pub bos_token_id: Option<i32>,
    /// The integers of a `tokens` column of bytes.
    pub token_encoding_type: TokenEncoding,
}

/// One of the datasets that are mixed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StreamConfig {
    /// The folder or URI that holds the split; `None` where it is all in `local`.
    pub remote: Option<Address>,
    /// The cache folder; `None`: the remote itself where that is a folder.
    pub local: Option<Address>,
    /// The split: a folder under both.
    pub split: Option<String>,
    /// The part of an epoch that it gives, relative to the other streams' `proportion`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proportion: Option<f64>,
    /// How often an epoch has each of its samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeat: Option<f64>,
    /// How many of its samples an epoch has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub choose: Option<u64>,
}

/// How texts become rows of `max_seq_len` tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupMethod {
    /// One document is one row: cut at `max_seq_len`, or padded to it.
    Truncate,
    /// Documents are joined end to end and cut every `max_seq_len` tokens.
    Concat,
}

/// The integer type inside a `tokens` column that was written as bytes (little-endian).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenEncoding {
    /// 8 bytes, signed: what older converters wrote.
    Int64,
    /// 4 bytes, signed.
    Int32,
    /// 4 bytes, unsigned.
    Uint32,
    /// 2 bytes, unsigned.
    Uint16,
}

/// The learning-rate schedule; see [`crate::schedule`] for the formulas.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SchedulerConfig {
    /// Which formula.
    pub name: SchedulerName,
    /// The length of the linear warm-up.
    pub t_warmup: Time,
    /// When the decay ends.
    pub t_max: Time,
    /// The multiplier at the end of the decay.
    pub alpha_f: f64,
    /// What only `inv_sqrt_with_warmup` has.
    #[serde(flatten)]
    pub inv_sqrt: Option<InverseSqrtConfig>,
}

/// A decay by the inverse square root of time, and the way down at the end of the run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct InverseSqrtConfig {
    /// The time scale of the decay: three times this after the warm-up half of it is done.
    pub t_scale: Time,
    /// The length of the cool-down at the end.
    pub t_cooldown: Time,
    /// The multiplier that the decay tends to.
    pub alpha_f_decay: f64,
    /// The multiplier at the end of the cool-down.
    pub alpha_f_cooldown: f64,
}

impl SchedulerConfig {
    /// The schedule of the reference recipes, over the whole run.
    pub fn cosine_with_warmup(t_warmup: Time, alpha_f: f64) -> Self {
        let t_max = Time::new(1.0, crate::time::Unit::Duration);
        Self { name: SchedulerName::CosineWithWarmup, t_warmup, t_max, alpha_f, inv_sqrt: None }
    }
}

/// The formulas of [`crate::schedule`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SchedulerName {
    /// Half a cosine, from 1 to `alpha_f`.
    CosineWithWarmup,
    /// A straight line, from 1 to `alpha_f`.
    LinearDecayWithWarmup,
    /// No decay.
    ConstantWithWarmup,
    /// The inverse square root of time, then a straight line.
    InvSqrtWithWarmup,
}

/// The optimizer; see [`crate::optim`] for the formulas.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OptimizerConfig {
    /// Which one.
    pub name: OptimizerName,
    /// The learning rate that the schedule multiplies.
    pub lr: f64,
    /// The decay rates of the moments; Lion uses the first for its step and the second for its moment.
    pub betas: [f64; 2],
    /// Added to the root of the second moment; Lion has neither.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eps: Option<f64>,
    /// The fraction of every weight taken away per step at the full learning rate; of plain AdamW: that times the
    /// learning rate.
    pub weight_decay: f64,
}

/// The update rules of [`crate::optim`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptimizerName {
    /// AdamW whose decay follows the schedule's shape and not the learning rate.
    DecoupledAdamW,
    /// Lion with such a decay.
    DecoupledLionW,
    /// AdamW as PyTorch has it.
    AdamW,
}

impl Serialize for OptimizerName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl OptimizerName {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::DecoupledAdamW, Self::DecoupledLionW, Self::AdamW];

    /// The name in a recipe.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DecoupledAdamW => "decoupled_adamw",
            Self::DecoupledLionW => "decoupled_lionw",
            Self::AdamW => "adamw",
        }
    }

    /// The key under which the learning rate is logged.
    pub fn lr_key(self) -> &'static str {
        match self {
            Self::DecoupledAdamW => "lr-DecoupledAdamW/group0",
            Self::DecoupledLionW => "lr-DecoupledLionW/group0",
            Self::AdamW => "lr-AdamW/group0",
        }
    }

    /// Moments that it keeps of every parameter.
    pub fn moments(self) -> usize {
        match self {
            Self::DecoupledAdamW | Self::AdamW => 2,
            Self::DecoupledLionW => 1,
        }
    }
}

/// What is done beside the optimizer's step; an absent one is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Algorithms {
    /// How gradients are kept from being too large; `grad_clip_norm: 1.0` in older recipes.
    pub gradient_clipping: Option<GradientClipping>,
}

/// A limit on gradients; see [`crate::optim`] for the formulas.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct GradientClipping {
    /// What is limited.
    pub clipping_type: ClippingType,
    /// The limit.
    pub clipping_threshold: f64,
}

/// What a threshold limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClippingType {
    /// The norm over all gradients together.
    Norm,
    /// Every element.
    Value,
    /// The norm of each unit's gradient, as a multiple of the norm of its weights.
    Adaptive,
}

/// `device_train_microbatch_size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Microbatch {
    /// As large as the device's memory allows.
    Auto,
    /// This many rows.
    Rows(usize),
}

impl Serialize for Microbatch {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Rows(rows) => rows.serialize(serializer),
        }
    }
}

/// The arithmetic of the forward and backward pass; weights and optimizer state are always fp32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floats throughout.
    Fp32,
    /// Matrix products in bfloat16, with fp32 weights (`bf16` in older recipes).
    AmpBf16,
    /// Matrix products in float16, with fp32 weights (`amp` or `fp16` in older recipes).
    AmpFp16,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fp32 => "fp32",
            Self::AmpBf16 => "amp_bf16",
            Self::AmpFp16 => "amp_fp16",
        })
    }
}

/// `fsdp_config`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FsdpConfig {
    /// Keep the inputs of blocks alone, and compute the rest again in the backward.
    pub activation_checkpointing: bool,
}

/// `device`: what to train on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceChoice {
    /// CUDA where there is such a device and this build supports it, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The first CUDA device; an error where there is none.
    Cuda,
}

/// Which measurements are taken beside the loss; an absent one is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Callbacks {
    /// `throughput/*`: speed and MFU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed_monitor: Option<SpeedMonitorConfig>,
    /// `lr-DecoupledAdamW/group0`, or by the name of another optimizer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr_monitor: Option<Switch>,
    /// `memory/*`: resident memory of the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_monitor: Option<Switch>,
    /// `time/remaining_estimate`, in hours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_estimator: Option<Switch>,
    /// `l2_norm/*` of every parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimizer_monitor: Option<OptimizerMonitorConfig>,
    /// Ends a run that makes no progress any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_stopper: Option<EarlyStopperConfig>,
    /// Notes, or ends, a run whose loss goes up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kill_loss_spike: Option<KillLossSpikeConfig>,
}

/// What is logged of every parameter under `l2_norm/{grad,moment,param,update}/NAME`: its gradient before any clipping,
/// its first moment, itself and what the step changed of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct OptimizerMonitorConfig {
    /// How often.
    pub interval: Time,
    /// Whether more than the gradients is measured.
    pub log_optimizer_metrics: bool,
}

/// When to end a run that makes no progress; see [`crate::watch`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EarlyStopperConfig {
    /// The metric: `LanguageCrossEntropy` or its like.
    pub monitor: String,
    /// Of which loader.
    pub dataloader_label: DataloaderLabel,
    /// How long it may be no better than its best.
    pub patience: Time,
    /// By how much it must fall to count as better.
    pub min_delta: f64,
}

impl EarlyStopperConfig {
    /// The name under which the metric is logged.
    pub fn key(&self) -> String {
        format!("metrics/{}/{}", self.dataloader_label.as_str(), self.monitor)
    }
}

/// Which loader a metric is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DataloaderLabel {
    /// `train_loader`
    Train,
    /// `eval_loader`
    Eval,
}

impl DataloaderLabel {
    /// As in the names of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Eval => "eval",
        }
    }
}

/// Which losses are too high; see [`crate::watch`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct KillLossSpikeConfig {
    /// Whether the run goes on all the same.
    pub log_only: bool,
    /// How many outliers in a row are borne.
    pub patience: u64,
    /// How many times the mean an outlier is at least.
    pub outlier_multiplier: f64,
    /// Of how many batches the mean is taken.
    pub window_size: usize,
    /// What half of them must not be above.
    pub loss_cap: f64,
}

/// An option that is turned on by being there: `lr_monitor: {}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Switch {}

/// The speed monitor.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SpeedMonitorConfig {
    /// Batches over which speed is averaged.
    pub window_size: usize,
    /// The device's peak, in floating-point operations per second, where it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_flops_available: Option<f64>,
}

/// Where metrics go beside the console and `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Loggers {
    /// TensorBoard event files in `run_folder/tensorboard`.
    pub tensorboard: bool,
    /// The picture `run_folder/loss_curve.svg`.
    pub loss_curve: bool,
}

/// The text generated at the end of the run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GenerateConfig {
    /// What the model continues; without it nothing is generated.
    pub prompt: Option<String>,
    /// Tokens to generate.
    pub max_new_tokens: usize,
    /// Divides the logits; 0 always takes the likeliest token.
    pub temperature: f64,
    /// Sample among the likeliest `top_k` tokens only.
    pub top_k: Option<usize>,
    /// Sample among the fewest tokens whose probabilities sum to this.
    pub top_p: Option<f64>,
    /// Lowers the scores of tokens that are in the text already; 1 does nothing.
    pub repetition_penalty: f64,
}

fn as_map<T: Serialize, S: serde::Serializer>(
    entries: &[(String, T)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(entries.iter().map(|(name, value)| (name, value)))
}

fn minus_one_for_none<S: serde::Serializer>(
    value: &Option<u64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        None => serializer.serialize_i64(-1),
        Some(n) => serializer.serialize_u64(*n),
    }
}

impl Config {
    /// What becomes of activations until the backward.
    pub fn activations(&self) -> Activations {
        match self.fsdp_config.activation_checkpointing {
            true => Activations::Recomputed,
            false => Activations::Kept,
        }
    }
}

/// A run ends when a checkpoint does not arrive, so that is tried more often than a download.
const ATTEMPTS_TO_SAVE: u32 = 5;

impl Config {
    /// How patient the run is with the remotes of its checkpoints and metrics: as with those of the training data, but
    /// with at least 5 attempts.
    pub fn remote_options(&self) -> RemoteOptions {
        let data = &self.train_loader.dataset;
        RemoteOptions {
            timeout: Duration::try_from_secs_f64(data.download_timeout)
                .unwrap_or(Duration::from_secs(60)),
            attempts: data.download_retry.max(ATTEMPTS_TO_SAVE),
        }
    }
}
