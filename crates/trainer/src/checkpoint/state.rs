//! `state.json`: where the run stands, and what the files beside it must be.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::{MODEL_FILE, OPTIMIZER_FILE, Place, STATE_FILE, Start, damaged};
use crate::config::{Config, ModelConfig, OptimizerName};
use crate::data::DataState;
use crate::error::{Error, Result};
use crate::time::Timestamp;
use crate::watch;

/// The layout that this version writes and reads.
const FORMAT: u32 = 1;
/// The version of the position in the data that this version reads, if it has one.
const POSITION_VERSION: u64 = 1;
/// The devices of a run; there is one so far.
const WORLD_SIZE: usize = 1;
/// How much of a file is hashed at a time.
const PIECE: usize = 1 << 20;

/// The keys of `model` that decide which function the parameters are of.
const DECIDE_THE_MODEL: &[&str] = &[
    "name",
    "d_model",
    "n_heads",
    "n_layers",
    "mlp_ratio",
    "max_seq_len",
    "vocab_size",
    // Before what follows from it: with ALiBi there are no learned positions.
    "attn_config",
    "learned_pos_emb",
    "no_bias",
    "tie_word_embeddings",
    "norm_type",
    "norm_eps",
    "logit_scale",
    "final_logit_softcapping",
    "ffn_config",
];

/// Everything in a checkpoint that is not a tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Version of the layout.
    format: u32,
    /// Versions of the programs that wrote it.
    versions: BTreeMap<String, String>,
    /// What the optimizer steps so far have consumed.
    pub timestamp: Timestamp,
    /// Where the last step started: the schedule lags by one step.
    pub previous_start: Option<Timestamp>,
    /// Steps that the optimizer's moments have seen.
    pub optimizer_steps: u64,
    /// Whether the evaluation that belongs here is still to be done: Ctrl-C came before or during it.
    #[serde(default)]
    pub evaluation_due: bool,
    /// The rows of a pass, where `device_train_microbatch_size` is auto and they had to be found.
    #[serde(default)]
    pub microbatch: Option<usize>,
    /// Seconds spent training.
    pub train_seconds: f64,
    /// Seconds spent evaluating.
    pub eval_seconds: f64,
    /// The position in the training data, with the fingerprint of the dataset.
    pub data: DataState,
    /// What the callbacks that watch the run have seen.
    #[serde(default)]
    pub watch: watch::Memory,
    /// The generator's seed. Initial weights and dropout are functions of it and of the position, so there is no
    /// further generator state.
    pub seed: u64,
    /// The resolved configuration of the run.
    pub config: Json,
    /// The devices of the run.
    #[serde(default = "one_device")]
    world_size: usize,
    /// Size and hash of each file of tensors.
    #[serde(default)]
    pub(super) files: BTreeMap<String, FileRecord>,
}

/// What a file must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileRecord {
    bytes: u64,
    xxh3_128: String,
}

impl State {
    /// The state of a run with `config` that has come to `timestamp`; the rest is at its start.
    pub fn new(config: &Config, timestamp: Timestamp) -> Self {
        let versions = [("trainer", env!("CARGO_PKG_VERSION")), ("burn", "0.23.0-pre.1")];
        Self {
            format: FORMAT,
            versions: versions.map(|(name, version)| (name.to_owned(), version.to_owned())).into(),
            timestamp,
            previous_start: None,
            optimizer_steps: 0,
            evaluation_due: false,
            microbatch: None,
            train_seconds: 0.0,
            eval_seconds: 0.0,
            data: DataState::default(),
            watch: watch::Memory::default(),
            seed: config.seed,
            config: portable(config),
            world_size: WORLD_SIZE,
            files: BTreeMap::new(),
        }
    }

    /// Takes over the position of `saved`; configuration and versions stay those of this run.
    pub fn continue_from(&mut self, saved: &Self) {
        self.timestamp = saved.timestamp;
        self.previous_start = saved.previous_start;
        self.optimizer_steps = saved.optimizer_steps;
        self.evaluation_due = saved.evaluation_due;
        self.microbatch = saved.microbatch;
        self.train_seconds = saved.train_seconds;
        self.eval_seconds = saved.eval_seconds;
        self.data = saved.data.clone();
        self.watch = saved.watch.clone();
    }

    /// The keys that decide what is computed and have another value in `config` than in the checkpoint, each with both
    /// values.
    pub fn changes(&self, config: &Config) -> Vec<String> {
        const SEED_OF_ORDER: &str = "train_loader.dataset.shuffle_seed";
        let here = serde_json::to_value(config).unwrap_or_default();
        let mut changes = Vec::new();
        for section in ["seed", "max_seq_len", "model", "train_loader", "scheduler", "optimizer"]
            .into_iter()
            .chain(["global_train_batch_size", "algorithms", "precision"])
        {
            differences(section, &self.config[section], &here[section], &mut changes);
        }
        changes
            .into_iter()
            .map(|(key, saved, here)| {
                let effect = if key == SEED_OF_ORDER {
                    ", without effect: the saved order goes on"
                } else {
                    ""
                };
                format!("{key} was {saved} in the checkpoint and is {here}{effect}")
            })
            .collect()
    }

    /// Checks that the checkpoint holds a model of the configured shape. Where only weights are taken, one without learned
    /// positions may be for sequences of another length; what is left out may have another shape. With
    /// `load_strict_model_weights: false` the tensors alone decide.
    ///
    /// # Errors
    /// The first key that differs, with both values.
    pub(super) fn check_model(&self, start: &Start, model: &ModelConfig) -> Result<()> {
        if !start.is_strict {
            return Ok(());
        }
        let here = serde_json::to_value(model).unwrap_or_default();
        let mut found = Vec::new();
        for key in DECIDE_THE_MODEL {
            differences(
                &format!("model.{key}"),
                &self.config["model"][key],
                &here[key],
                &mut found,
            );
        }
        // A model that learns no positions may be trained on at another length, with its rotations stretched.
        let longer = start.weights_only && !model.learned_pos_emb;
        let may_differ = |key: &str| match key {
            "model.max_seq_len" => longer || start.leaves_out_parameter("wpe.weight"),
            "model.vocab_size" => start.leaves_out_parameter("wte.weight"),
            key if key.starts_with("model.attn_config.rope_") => longer || !model.attn_config.rope,
            _ => false,
        };
        // A checkpoint of before there were variants says nothing of them.
        let knows_variants = !self.config["model"]["attn_config"].is_null();
        let mut found = found
            .into_iter()
            .filter(|(key, saved, _)| (knows_variants || !saved.is_null()) && !may_differ(key));
        match found.next() {
            None => Ok(()),
            Some((key, saved, here)) => Err(Error::Checkpoint(format!(
                "the checkpoint `{}` is of another model: {key} is {saved} there and {here} here; set {key}={saved}, \
                 or {}",
                start.place(),
                start.without_it()
            ))),
        }
    }

    /// Checks that the moments are those of the configured optimizer.
    ///
    /// # Errors
    /// When they are another's.
    pub(super) fn check_optimizer(&self, start: &Start, name: OptimizerName) -> Result<()> {
        let (saved, here) = (self.config["optimizer"]["name"].as_str(), name.as_str());
        let Some(saved) = saved.filter(|saved| *saved != here) else { return Ok(()) };
        Err(Error::Checkpoint(format!(
            "the checkpoint `{}` has the moments of {saved}, and optimizer.name is {here} here; set \
             optimizer.name={saved}, or {}",
            start.place(),
            start.for_its_weights()
        )))
    }

    /// Whether the run saves its weights without moments.
    pub(super) fn is_of_weights_only(&self) -> bool {
        self.config["save_weights_only"] == true
    }

    /// Checks that there is more than weights to go on with.
    ///
    /// # Errors
    /// When there is not.
    pub(super) fn check_is_whole(&self, start: &Start) -> Result<()> {
        if !self.is_of_weights_only() {
            return Ok(());
        }
        Err(Error::Checkpoint(format!(
            "the checkpoint `{}` was saved with save_weights_only: it has no moments to continue with; {}",
            start.place(),
            start.for_its_weights()
        )))
    }

    /// Checks that the run had as many devices as this one: each has tokens of its own that have not filled a row yet.
    ///
    /// # Errors
    /// When it had another number.
    pub(super) fn check_world_size(&self, start: &Start) -> Result<()> {
        if self.world_size == WORLD_SIZE {
            return Ok(());
        }
        Err(Error::Checkpoint(format!(
            "the checkpoint `{}` was saved by a run on {} devices, and this one has {WORLD_SIZE}: the position in the \
             data is that of one of them; continue it on as many, or {}",
            start.place(),
            self.world_size,
            start.for_its_weights()
        )))
    }

    /// The reference's name of the optimizer, whose moments there are.
    pub(super) fn optimizer_class(&self) -> Option<&'static str> {
        let saved = self.config["optimizer"]["name"].as_str()?;
        OptimizerName::ALL.into_iter().find(|name| name.as_str() == saved).map(OptimizerName::class)
    }

    /// Forgets how far the run has come.
    pub(super) fn begin_anew(&mut self) {
        self.timestamp = Timestamp::default();
        self.previous_start = None;
        self.evaluation_due = false;
        (self.train_seconds, self.eval_seconds) = (0.0, 0.0);
    }

    pub(super) fn read(place: &Place) -> Result<Self> {
        let unreadable = |e| damaged(place, STATE_FILE, &format!("cannot be read ({e})"));
        let Some(bytes) = place.read(STATE_FILE)? else {
            if place.has(MODEL_FILE)? || place.has(OPTIMIZER_FILE)? {
                return Err(damaged(place, STATE_FILE, &"is missing"));
            }
            return Err(Error::Checkpoint(format!(
                "there is no checkpoint `{place}`; give a folder like ep0-ba100, or the save_folder \
                 that holds it"
            )));
        };
        let json: Json = serde_json::from_slice(&bytes).map_err(unreadable)?;
        let format = json["format"].as_u64();
        if format != Some(u64::from(FORMAT)) {
            return Err(Error::CheckpointVersion(format!(
                "the checkpoint `{place}` has format {}, this program reads format {FORMAT}; \
                 continue it with the version that wrote it",
                format.map_or("unknown".to_owned(), |f| f.to_string())
            )));
        }
        serde_json::from_slice(&bytes).map_err(|error| {
            let position = &json["data"]["position"];
            match serde_json::from_value::<mds::Checkpoint>(position.clone()) {
                Err(unknown) if position["version"].as_u64() > Some(POSITION_VERSION) => {
                    Error::CheckpointVersion(format!(
                        "the position in the data of the checkpoint `{place}` cannot be read: {unknown}"
                    ))
                }
                _ => unreadable(error),
            }
        })
    }

    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(STATE_FILE);
        let mut json = serde_json::to_vec_pretty(self)
            .map_err(|e| Error::Checkpoint(format!("cannot write `{}`: {e}", path.display())))?;
        json.push(b'\n');
        mds::durable::replace(&path, &json).map_err(Error::io("write", &path))
    }

    /// Notes what `file` is now.
    pub(super) fn record_file(&mut self, folder: &Path, file: &str) -> Result<()> {
        let path = folder.join(file);
        let record = FileRecord::of_file(&path).map_err(Error::io("read", &path))?;
        self.files.insert(file.to_owned(), record);
        Ok(())
    }

    /// The contents of `file`, which must be what was recorded.
    pub(super) fn read_verified(&self, place: &Place, file: &str) -> Result<Vec<u8>> {
        let Some(bytes) = place.read(file)? else {
            return Err(damaged(place, file, &"is missing"));
        };
        let Some(expected) = self.files.get(file) else {
            return Err(damaged(place, STATE_FILE, &format!("does not list {file}")));
        };
        let found = FileRecord::of(&bytes);
        if found.bytes != expected.bytes {
            let problem = format!("has {} bytes, {} were saved", found.bytes, expected.bytes);
            return Err(damaged(place, file, &problem));
        }
        if found != *expected {
            return Err(damaged(place, file, &"is not what was saved (its hash differs)"));
        }
        Ok(bytes)
    }
}

/// Checkpoints of before they said it are of one device.
fn one_device() -> usize {
    WORLD_SIZE
}

/// The configuration, with what `generate`, `evaluate` and `export-hf` need of it to be found from any folder.
fn portable(config: &Config) -> Json {
    let mut json = serde_json::to_value(config).unwrap_or_default();
    let tokenizer = Path::new(&*config.tokenizer_name);
    if tokenizer.exists()
        && let Ok(path) = std::path::absolute(tokenizer)
    {
        json["tokenizer_name"] = path.to_string_lossy().into();
    }
    json
}

/// Adds the leaves below `key` that differ.
fn differences(key: &str, saved: &Json, here: &Json, found: &mut Vec<(String, Json, Json)>) {
    match (saved, here) {
        (Json::Object(saved), Json::Object(here)) => {
            for (name, here) in here {
                let saved = saved.get(name).unwrap_or(&Json::Null);
                differences(&format!("{key}.{name}"), saved, here, found);
            }
        }
        _ if saved == here => {}
        _ => found.push((key.to_owned(), saved.clone(), here.clone())),
    }
}

impl FileRecord {
    fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.len() as u64, xxh3_128: format!("{:032x}", xxh3_128(bytes)) }
    }

    /// That of the file at `path`, which may be larger than what is to be in memory at a time.
    fn of_file(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let (mut hash, mut bytes) = (Xxh3::new(), 0);
        let mut piece = vec![0; PIECE];
        loop {
            let length = match file.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            hash.update(&piece[..length]);
            bytes += length as u64;
        }
        Ok(Self { bytes, xxh3_128: format!("{:032x}", hash.digest128()) })
    }
}
