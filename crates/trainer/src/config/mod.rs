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
//! * `read.rs` the tree to [`Config`], with defaults; `read_model.rs` its section `model`, `read_data.rs` its loaders
//! * `model.rs` [`ModelConfig`], and what follows from it: counts of parameters and operations
//! * `optimization.rs` and `callbacks.rs` the sections of these names, and how they are read
//! * `address.rs` paths and addresses, which may hold keys
//! * `origin.rs` where in the recipe a section stands, for messages
//! * `batch.rs` how a global batch is split over ranks and microbatches
//! * `icl.rs` lists of in-context tasks, which may have files of their own
//! * `memory.rs` what a step takes from the memory of its device
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
mod callbacks;
mod icl;
mod memory;
mod model;
mod optimization;
mod origin;
mod read;
mod read_data;
mod read_model;
mod schema;
mod section;
mod yaml;

pub use address::Address;
pub use batch::BatchPlan;
pub use callbacks::{
    Callbacks, DataloaderLabel, EarlyStopperConfig, KillLossSpikeConfig, OptimizerMonitorConfig,
    SpeedMonitorConfig, Switch,
};
pub use icl::{IclGeneration, IclTask, IclTaskType};
pub use memory::{Engine, Step, StepMemory};
pub use model::{
    Activation, AttentionConfig, FanMode, FfnConfig, FfnType, GeluKind, InitConfig, InitScheme,
    ModelConfig, ModelName, Nonlinearity, NormType, ResidualDivisor, RopeScaling, Separator,
};
pub use optimization::{
    Algorithms, ClippingType, GradientClipping, InverseSqrtConfig, OptimizerConfig, OptimizerName,
    SchedulerConfig, SchedulerName,
};
pub use origin::Origin;

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
    /// Where training rows come from. A list of loaders is one loader of their datasets, mixed as `streams` are: by the
    /// `proportion` that each has, else by their sizes.
    pub train_loader: LoaderConfig,
    /// Where evaluation rows come from: `eval_loader`, one or a list; without any nothing is evaluated.
    #[serde(rename = "eval_loader", serialize_with = "one_or_many")]
    pub eval_loaders: Vec<LoaderConfig>,
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
    /// What else the model is asked at each evaluation: `icl_tasks`, a list or the path of a file with one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub icl_tasks: Vec<IclTask>,
    /// How many batches of each task, in `device_eval_batch_size` rows; `None` takes as many as of the evaluation splits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icl_subset_num_batches: Option<u64>,
    /// The longest sequence of tokens in a task that does not say; `None` is `max_seq_len`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icl_seq_len: Option<usize>,
    /// Rows per optimizer step, over all ranks.
    pub global_train_batch_size: usize,
    /// Rows per forward and backward pass.
    pub device_train_microbatch_size: Microbatch,
    /// Rows per evaluation batch.
    pub device_eval_batch_size: usize,
    /// What is done beside the optimizer's step.
    pub algorithms: Algorithms,
    /// Weigh microbatches by their tokens with a label, as by default, not by their rows (the two differ only
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
    /// Save the weights without the optimizer's moments: a third of the bytes, from which no run can be continued.
    pub save_weights_only: bool,
    /// The checkpoint to start from, or the `save_folder` that holds it, here or at a remote.
    pub load_path: Option<Address>,
    /// Take only the weights from `load_path`: not the optimizer, the schedule or the data order.
    pub load_weights_only: bool,
    /// Whether the weights of `load_path` must be those of the model, each of them. Otherwise those that the model has and
    /// the checkpoint has not are as in a new model, and those that the model has not are left.
    pub load_strict_model_weights: bool,
    /// What of `load_path` is not taken: patterns, see `checkpoint/start.rs`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub load_ignore_keys: Vec<String>,
    /// Continue from the newest checkpoint in `save_folder` where there is one, with all that is in it.
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
    /// Where it stands: `train_loader`, or `eval_loader.1` in a list. A list of training loaders stands where they all do.
    #[serde(skip)]
    pub origin: Origin,
    /// `text` (or its older name `c4`).
    pub name: String,
    /// What one of several evaluations is called: its metrics are `metrics/eval/LABEL/...`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// How many batches an evaluation with this loader takes, where the top level does not say it; `None` takes all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_subset_num_batches: Option<u64>,
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
    /// Where it stands: `train_loader.dataset.streams.NAME`, or `train_loader.1.dataset` for the loader of a list.
    #[serde(skip)]
    pub origin: Origin,
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

/// Where metrics go beside the console and `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Loggers {
    /// TensorBoard event files in `run_folder/tensorboard`.
    pub tensorboard: bool,
    /// The picture `run_folder/loss_curve.svg`.
    pub loss_curve: bool,
    /// A server of MLflow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mlflow: Option<MlflowConfig>,
    /// Metrics for Prometheus to fetch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<PrometheusConfig>,
}

/// `loggers.mlflow`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MlflowConfig {
    /// The server's address; the environment's MLFLOW_TRACKING_URI where it is not given.
    pub tracking_uri: Option<Address>,
    /// The experiment that the run is part of; it is made if need be.
    pub experiment_name: String,
    /// The run's name there; `run_name` where it is not given.
    pub run_name: Option<String>,
    /// Tags of the run.
    #[serde(serialize_with = "as_map")]
    pub tags: Vec<(String, String)>,
}

/// `loggers.prometheus`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PrometheusConfig {
    /// Where `GET /metrics` is answered: an address and a port of this machine.
    pub address: String,
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

fn one_or_many<T: Serialize, S: serde::Serializer>(
    values: &[T],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match values {
        [] => serializer.serialize_none(),
        [one] => one.serialize(serializer),
        many => many.serialize(serializer),
    }
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
