//! The tree of values to [`Config`]: types, defaults, older names, and what must fit together.

use std::path::Path;
use std::str::FromStr;

use mds::storage::Remote;
use serde_json::Value;

use super::callbacks::read_callbacks;
use super::icl::read_icl_tasks;
use super::optimization::{read_clipping, read_optimizer, read_scheduler};
use super::read_data::{DataDefaults, read_eval_loaders, read_train_loader};
use super::section::Section;
use super::{
    Address, Algorithms, Config, DataloaderLabel, DeviceChoice, FsdpConfig, GenerateConfig,
    GroupMethod, LoaderConfig, Loggers, Microbatch, MlflowConfig, Precision, PrometheusConfig,
    Separator,
    read_model::{one_of, read_model},
    schema, yaml,
};
use crate::checkpoint::Place;
use crate::error::{Error, Result};
use crate::time::{Time, Unit};

impl Config {
    /// Reads the YAML file at `path`, which may be an address, and lays `overrides` (`key.sub=value`) over it.
    ///
    /// # Errors
    /// One sentence that names the file or key, what is wrong with it, and the remedy.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self> {
        Self::from_tree(yaml::read(path, yaml::CONFIGURATION)?, overrides)
    }

    /// The same from YAML text.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_yaml_str(text: &str, overrides: &[String]) -> Result<Self> {
        Self::from_tree(yaml::parse(text, "configuration", yaml::CONFIGURATION)?, overrides)
    }

    /// The configuration that the checkpoint at `place` says it was saved with.
    ///
    /// # Errors
    /// As [`Config::load`], where an older version has saved what this one refuses.
    pub(crate) fn from_checkpoint(saved: &Value, place: &Place) -> Result<Self> {
        Self::from_tree(saved.clone(), &[]).map_err(|error| {
            Error::Checkpoint(format!(
                "the checkpoint `{place}` was made by a recipe that is refused: {error}"
            ))
        })
    }

    /// The whole configuration as YAML: what was given and every default. It loads to an equal
    /// configuration.
    pub fn to_yaml(&self) -> String {
        serde_saphyr::to_string(self)
            .expect("the configuration is plain maps, lists and scalars, which YAML can write")
    }

    fn from_tree(mut tree: Value, overrides: &[String]) -> Result<Self> {
        yaml::apply_overrides(&mut tree, overrides)?;
        // Keys are checked before references are resolved, so that a mistyped variable is reported
        // where it is defined; and after it, since a whole section may be a reference.
        schema::check(&tree)?;
        let tree = yaml::interpolate(&tree)?;
        let notices = schema::check(&tree)?;
        let mut config = read_config(&Section::root(&tree), notices)?;
        config.check()?;
        config.notices.extend(config.without_effect());
        Ok(config)
    }

    /// What must fit together across sections.
    fn check(&self) -> Result<()> {
        self.model.check_size()?;
        let model = &self.model;
        for LoaderConfig { origin, dataset, .. } in
            std::iter::once(&self.train_loader).chain(&self.eval_loaders)
        {
            if dataset.max_seq_len > model.max_seq_len {
                return Err(Error::Config(format!(
                    "{origin}.dataset.max_seq_len {} is longer than the {} positions of the model; \
                     raise model.max_seq_len or shorten the rows",
                    dataset.max_seq_len, model.max_seq_len
                )));
            }
            if dataset.streams.is_empty() && dataset.remote.is_none() && dataset.local.is_none() {
                return Err(Error::Config(format!(
                    "{origin}.dataset has neither a remote nor a local; set data_remote to the \
                     folder or URI that holds the splits"
                )));
            }
        }
        if let Some(Separator::Eos(id) | Separator::Bos(id)) = model.attn_config.separator
            && id as usize >= model.vocab_size
        {
            return Err(Error::Config(format!(
                "train_loader.dataset tells documents apart by the token {id}, but model.vocab_size is {}; give the \
                 tokenizer's own eos_token_id or bos_token_id",
                model.vocab_size
            )));
        }
        if let Some(length) = self.icl_seq_len.filter(|length| *length > model.max_seq_len)
            && model.learned_pos_emb
        {
            return Err(Error::Config(format!(
                "icl_seq_len {length} is longer than the {} positions of the model; set it to at most that",
                model.max_seq_len
            )));
        }
        let stopper = self.callbacks.early_stopper.as_ref();
        if stopper.is_some_and(|stopper| stopper.dataloader_label == DataloaderLabel::Eval)
            && (self.eval_loaders.is_empty() || self.eval_interval.is_zero())
        {
            return Err(Error::Config(
                "callbacks.early_stopper watches evaluations, but the run has none before its end; set eval_loader and \
                 eval_interval, or callbacks.early_stopper.dataloader_label=train"
                    .into(),
            ));
        }
        if stopper.is_some_and(|stopper| stopper.dataloader_label == DataloaderLabel::Eval)
            && self.eval_loaders.len() > 1
        {
            return Err(Error::Config(
                "callbacks.early_stopper watches evaluations, but eval_loader is a list of several; give one, or set \
                 callbacks.early_stopper.dataloader_label=train"
                    .into(),
            ));
        }
        if self.load_path.is_some() && !self.load_strict_model_weights && !self.load_weights_only {
            return Err(Error::Config(
                "load_strict_model_weights is false, but the moments of a checkpoint's optimizer are those of exactly its \
                 parameters; set load_weights_only=true, too"
                    .into(),
            ));
        }
        self.check_folders()?;
        self.check_epochs()?;
        self.max_duration.resolve(self.max_duration)?;
        self.check_countable()?;
        if self.autoresume && self.save_folder.is_none() {
            return Err(Error::Config(
                "autoresume is true but there is no save_folder to resume from; set save_folder, \
                 for example ./runs/{run_name}/checkpoints"
                    .into(),
            ));
        }
        Ok(())
    }

    /// Rows and tokens of the run are counted, too.
    fn check_countable(&self) -> Result<()> {
        let tokens = self.steps(None).map(|steps| steps.checked_mul(self.tokens_per_step()));
        if tokens != Some(None) && self.tokens_per_step() < u64::MAX {
            return Ok(());
        }
        Err(Error::Config(format!(
            "`max_duration` is {} in batches of {} rows, which is more tokens than can be counted; lower one of the two",
            self.max_duration, self.global_train_batch_size
        )))
    }

    /// Says which keys are about something that the recipe does not ask for.
    fn without_effect(&self) -> Vec<String> {
        let no_tasks = (self.icl_tasks.is_empty(), "there are no icl_tasks");
        let no_path = (self.load_path.is_none(), "there is no load_path");
        let given = [
            ("load_ignore_keys", !self.load_ignore_keys.is_empty(), no_path),
            ("load_strict_model_weights", !self.load_strict_model_weights, no_path),
            ("icl_subset_num_batches", self.icl_subset_num_batches.is_some(), no_tasks),
            ("icl_seq_len", self.icl_seq_len.is_some(), no_tasks),
        ];
        let idle = given.into_iter().filter(|(_, is_given, (is_idle, _))| *is_given && *is_idle);
        idle.map(|(key, _, (_, why))| format!("`{key}` has no effect here: {why}")).collect()
    }

    /// A run that could not keep its checkpoints or metrics is refused before it starts.
    fn check_folders(&self) -> Result<()> {
        let open = |key: &str, address: &Address| {
            Remote::open(address, self.remote_options())
                .map_err(|error| Error::Config(format!("`{key}`: {error}")))
        };
        if let Some(address) = &self.load_path {
            open("load_path", address)?;
        }
        let kept =
            [("run_folder", Some(&self.run_folder)), ("save_folder", self.save_folder.as_ref())];
        for (key, address) in kept {
            let Some(address) = address else { continue };
            if !open(key, address)?.can_list() {
                return Err(Error::Config(format!(
                    "`{key}` is `{address}`, but what a run keeps must be listed to be found again, which web \
                     servers and the Hugging Face hub do not offer; give a folder, or a bucket by s3://, gs:// or \
                     az://"
                )));
            }
        }
        Ok(())
    }

    /// Joined documents have no end, so nothing can be counted in their epochs.
    fn check_epochs(&self) -> Result<()> {
        if self.train_loader.dataset.group_method != GroupMethod::Concat {
            return Ok(());
        }
        let times = [
            ("max_duration", self.max_duration),
            ("eval_interval", self.eval_interval),
            ("save_interval", self.save_interval),
            ("console_log_interval", self.console_log_interval),
            ("scheduler.t_warmup", self.scheduler.t_warmup),
            ("scheduler.t_max", self.scheduler.t_max),
        ];
        let stopper = self.callbacks.early_stopper.as_ref();
        let stopper = stopper.map(|stopper| ("callbacks.early_stopper.patience", stopper.patience));
        let inv_sqrt = self.scheduler.inv_sqrt.iter().flat_map(|decay| {
            [("scheduler.t_scale", decay.t_scale), ("scheduler.t_cooldown", decay.t_cooldown)]
        });
        match times
            .into_iter()
            .chain(inv_sqrt)
            .chain(stopper)
            .find(|(_, time)| time.unit == Unit::Epoch)
        {
            None => Ok(()),
            Some((key, time)) => Err(Error::Config(format!(
                "`{key}` is {time}, but a train_loader with group_method concat has no epochs; \
                 count batches, samples or tokens, for example 1000ba"
            ))),
        }
    }
}

fn read_config(root: &Section<'_>, mut notices: Vec<String>) -> Result<Config> {
    let run_name = read_run_name(root)?;
    let address = |key: &str, text: String| with_run_name(key, &text, &run_name);
    let max_seq_len = read_max_seq_len(root)?;
    let data_remote = root.text("data_remote")?.map(Address::from);
    let data_local = root.text("data_local")?.map(Address::from);
    let defaults = DataDefaults { remote: &data_remote, local: &data_local, max_seq_len };
    let train_loader = read_train_loader(root, &defaults)?;
    let eval_loaders = read_eval_loaders(root, &defaults)?;
    let separator = read_separator(&train_loader, &eval_loaders)?;
    let model = read_model(&root.section("model")?, max_seq_len, separator, &mut notices)?;
    let microbatch = root.size_or_auto("device_train_microbatch_size")?;
    let microbatch = microbatch.map_or(Microbatch::Auto, Microbatch::Rows);
    let eval_batch = match (root.size("device_eval_batch_size", 1)?, microbatch) {
        (Some(rows), _) | (None, Microbatch::Rows(rows)) => rows,
        (None, Microbatch::Auto) => 1,
    };
    let run_folder = root.text("run_folder")?.unwrap_or_else(|| "./runs/{run_name}".to_owned());
    let max_duration = root.time("max_duration")?;
    let max_duration = required(root, "max_duration", "max_duration: 4800ba", max_duration)?;
    let interval = |key: &str, default: u64| -> Result<Time> {
        let interval = root.time(key)?.unwrap_or(Time::batches(default));
        // As in the reference, where 0 has no evaluations but that at the end; of the others it makes nothing.
        if interval.is_zero() && key == "eval_interval" {
            return Ok(Time::batches(0));
        }
        if interval.is_zero() {
            return Err(Error::Config(format!(
                "`{key}` is {interval}, which is never; give it a length in ba, sp, tok, ep or dur, for example \
                 {default}ba, or 1dur for the end of the run only"
            )));
        }
        let resolved = interval.resolve(max_duration)?;
        // A part of a short run that is less than one step is one step, not never.
        Ok(if resolved.is_zero() { Time { value: 1.0, ..resolved } } else { resolved })
    };
    let save_weights_only = root.flag("save_weights_only")?.unwrap_or(false);
    if save_weights_only {
        notices.push(
            "save_weights_only: this run cannot be continued from its checkpoints, only their weights can be taken".into(),
        );
    }
    Ok(Config {
        seed: read_seed(root)?,
        max_seq_len,
        tokenizer_name: read_tokenizer_name(root)?.into(),
        model,
        train_loader,
        eval_loaders,
        scheduler: read_scheduler(&root.section("scheduler")?)?,
        optimizer: read_optimizer(&root.section("optimizer")?, &mut notices)?,
        max_duration,
        eval_interval: interval("eval_interval", 0)?,
        eval_first: root.flag("eval_first")?.unwrap_or(false),
        eval_subset_num_batches: read_subset(root, "eval_subset_num_batches")?,
        icl_tasks: read_icl_tasks(root)?,
        icl_subset_num_batches: read_subset(root, "icl_subset_num_batches")?,
        icl_seq_len: root.size("icl_seq_len", 2)?,
        global_train_batch_size: required(
            root,
            "global_train_batch_size",
            "global_train_batch_size: 256",
            root.size("global_train_batch_size", 1)?,
        )?,
        device_train_microbatch_size: microbatch,
        device_eval_batch_size: eval_batch,
        algorithms: Algorithms { gradient_clipping: read_clipping(root)? },
        accumulate_train_batch_on_tokens: root
            .flag("accumulate_train_batch_on_tokens")?
            .unwrap_or(true),
        precision: read_precision(root)?,
        fsdp_config: FsdpConfig {
            activation_checkpointing: root
                .section("fsdp_config")?
                .flag("activation_checkpointing")?
                .unwrap_or(false),
        },
        device: root.choice("device", DEVICES)?.unwrap_or(DeviceChoice::Auto),
        progress_bar: root.flag("progress_bar")?.unwrap_or(true),
        log_to_console: root.flag("log_to_console")?.unwrap_or(true),
        console_log_interval: interval("console_log_interval", 10)?,
        callbacks: read_callbacks(&root.section("callbacks")?, max_duration, &mut notices)?,
        loggers: read_loggers(&root.section("loggers")?)?,
        save_folder: root
            .text("save_folder")?
            .map(|text| address("save_folder", text))
            .transpose()?,
        save_interval: interval("save_interval", 1000)?,
        save_num_checkpoints_to_keep: read_checkpoints_to_keep(root)?,
        save_overwrite: root.flag("save_overwrite")?.unwrap_or(false),
        save_weights_only,
        load_path: root.text("load_path")?.map(|text| address("load_path", text)).transpose()?,
        load_weights_only: root.flag("load_weights_only")?.unwrap_or(false),
        load_strict_model_weights: root.flag("load_strict_model_weights")?.unwrap_or(true),
        load_ignore_keys: root.texts("load_ignore_keys")?.unwrap_or_default(),
        autoresume: root.flag("autoresume")?.unwrap_or(false),
        run_folder: address("run_folder", run_folder)?,
        generate: read_generate(&root.section("generate")?)?,
        run_name,
        data_remote,
        data_local,
        notices,
    })
}

const DEVICES: &[(&str, DeviceChoice)] = &[
    ("auto", DeviceChoice::Auto),
    ("cpu", DeviceChoice::Cpu),
    ("cuda", DeviceChoice::Cuda),
    ("gpu", DeviceChoice::Cuda),
];

/// The value of a key that must be there.
pub(super) fn required<T>(
    section: &Section<'_>,
    key: &str,
    example: &str,
    value: Option<T>,
) -> Result<T> {
    value.ok_or_else(|| section.missing(key, example))
}

/// The key, else the environment's, else the reference's.
fn read_run_name(root: &Section<'_>) -> Result<String> {
    let environment = || std::env::var("COMPOSER_RUN_NAME").unwrap_or_else(|_| "llm".to_owned());
    Ok(root.text("run_name")?.unwrap_or_else(environment))
}

/// An address with its placeholders replaced.
fn with_run_name(key: &str, text: &str, run_name: &str) -> Result<Address> {
    let rest = text.replace("{run_name}", "").replace("{rank}", "");
    if let Some((_, unknown)) = rest.split_once('{') {
        let unknown = unknown.split_once('}').map_or(unknown, |(name, _)| name);
        return Err(Error::Config(format!(
            "`{key}` holds {{{unknown}}}, which stands for nothing; only {{run_name}} and {{rank}} are replaced"
        )));
    }
    Ok(Address::from(text.replace("{run_name}", run_name).replace("{rank}", "0")))
}

fn read_seed(root: &Section<'_>) -> Result<u64> {
    let seed = one_of(
        (root, "seed", root.whole("seed", 0)?),
        (root, "global_seed", root.whole("global_seed", 0)?),
    )?
    .unwrap_or(17);
    if seed > u64::from(u32::MAX) {
        return Err(Error::Config(format!(
            "`seed` is {seed}; it must be below 4294967296, for example 17"
        )));
    }
    Ok(seed)
}

/// The variable at the top, or the model's own.
fn read_max_seq_len(root: &Section<'_>) -> Result<usize> {
    match root.size("max_seq_len", 2)? {
        Some(length) => Ok(length),
        None => root
            .section("model")?
            .size("max_seq_len", 2)?
            .ok_or_else(|| root.missing("max_seq_len", "max_seq_len: 2048")),
    }
}

/// One tokenizer per run: the several places that may name it must agree.
fn read_tokenizer_name(root: &Section<'_>) -> Result<String> {
    let tokenizer = root.section("tokenizer")?;
    let args = tokenizer.section("args")?;
    let loaders = [root.sections("train_loader")?, root.sections("eval_loader")?].concat();
    let datasets =
        loaders.iter().map(|loader| loader.section("dataset")).collect::<Result<Vec<_>>>()?;
    let places = [(root, "tokenizer_name"), (&tokenizer, "name"), (&args, "tokenizer_name")];
    let of_datasets = datasets.iter().map(|dataset| (dataset, "tokenizer_name"));
    let places = places.into_iter().chain(of_datasets);
    let mut found: Option<(String, String)> = None;
    for (section, key) in places {
        let Some(name) = section.text(key)? else { continue };
        let place = section.path(key);
        match &found {
            None => found = Some((place, name)),
            Some((first, other)) if *other != name => {
                return Err(Error::Config(format!(
                    "`{first}` is `{}`, but `{place}` is `{}`; a run has one tokenizer: set both to \
                     ${{tokenizer_name}}",
                    mds::redacted(other),
                    mds::redacted(&name)
                )));
            }
            Some(_) => {}
        }
    }
    found
        .map(|(_, name)| name)
        .ok_or_else(|| root.missing("tokenizer_name", "tokenizer_name: gpt2"))
}

/// What tells the documents of the training data apart; the evaluation's must be the same.
fn read_separator(train: &LoaderConfig, eval: &[LoaderConfig]) -> Result<Option<Separator>> {
    let given = |LoaderConfig { origin, dataset, .. }: &LoaderConfig| match (
        dataset.eos_token_id,
        dataset.bos_token_id,
    ) {
        (Some(_), Some(_)) => Err(Error::Config(format!(
            "`{origin}.dataset.eos_token_id` and `{origin}.dataset.bos_token_id` are both given; documents are told \
             apart by one of them: remove the other"
        ))),
        (Some(eos), None) => Ok(Some(Separator::Eos(eos))),
        (None, bos) => Ok(bos.map(Separator::Bos)),
    };
    let separator = given(train)?;
    for loader in eval {
        if given(loader)?.is_some_and(|other| Some(other) != separator) {
            return Err(Error::Config(format!(
                "`{}.dataset` tells documents apart by another token than `{}.dataset`; give both the same \
                 eos_token_id or bos_token_id",
                loader.origin, train.origin
            )));
        }
    }
    Ok(separator)
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = DEVICES.iter().find(|(known, _)| *known == name);
        known.map(|(_, choice)| *choice).ok_or_else(|| "it must be auto, cpu or cuda".to_owned())
    }
}

fn read_precision(root: &Section<'_>) -> Result<Precision> {
    let names = [
        ("fp32", Precision::Fp32),
        ("amp_bf16", Precision::AmpBf16),
        ("amp_fp16", Precision::AmpFp16),
        ("bf16", Precision::AmpBf16),
        ("amp", Precision::AmpFp16),
        ("fp16", Precision::AmpFp16),
    ];
    Ok(root.choice("precision", &names)?.unwrap_or(Precision::Fp32))
}

/// -1 is all.
pub(super) fn read_subset(section: &Section<'_>, key: &str) -> Result<Option<u64>> {
    match section.integer(key)? {
        None | Some(-1) => Ok(None),
        Some(value) => u64::try_from(value).ok().filter(|n| *n > 0).map(Some).ok_or_else(|| {
            Error::Config(format!(
                "`{}` is {value}; it must be a number of batches, or -1 for all",
                section.path(key)
            ))
        }),
    }
}

fn read_checkpoints_to_keep(root: &Section<'_>) -> Result<i64> {
    match root.integer("save_num_checkpoints_to_keep")?.unwrap_or(-1) {
        keep if keep == -1 || keep > 0 => Ok(keep),
        keep => Err(Error::Config(format!(
            "`save_num_checkpoints_to_keep` is {keep}; it must be at least 1, or -1 to keep all"
        ))),
    }
}

fn read_loggers(loggers: &Section<'_>) -> Result<Loggers> {
    Ok(Loggers {
        tensorboard: loggers.switch("tensorboard")?.unwrap_or(true),
        loss_curve: loggers.switch("loss_curve")?.unwrap_or(true),
        mlflow: loggers.has("mlflow").then(|| read_mlflow(loggers)).transpose()?,
        prometheus: loggers.has("prometheus").then(|| read_prometheus(loggers)).transpose()?,
    })
}

fn read_mlflow(loggers: &Section<'_>) -> Result<MlflowConfig> {
    let mlflow = loggers.section("mlflow")?;
    let tags = mlflow.section("tags")?;
    let tag = |key: &str| Ok((key.to_owned(), tags.text(key)?.unwrap_or_default()));
    Ok(MlflowConfig {
        tracking_uri: mlflow.text("tracking_uri")?.map(Address::from),
        experiment_name: mlflow.text("experiment_name")?.unwrap_or_else(|| "Default".to_owned()),
        run_name: mlflow.text("run_name")?,
        tags: tags.keys().map(tag).collect::<Result<_>>()?,
    })
}

fn read_prometheus(loggers: &Section<'_>) -> Result<PrometheusConfig> {
    let address = loggers.section("prometheus")?.text("address")?;
    Ok(PrometheusConfig { address: address.unwrap_or_else(|| "127.0.0.1:9400".to_owned()) })
}

fn read_generate(generate: &Section<'_>) -> Result<GenerateConfig> {
    let least = "a number of at least 0, for example 0.8";
    Ok(GenerateConfig {
        prompt: generate.text("prompt")?,
        max_new_tokens: generate.size("max_new_tokens", 1)?.unwrap_or(100),
        temperature: generate.number("temperature", 0.0.., least)?.unwrap_or(1.0),
        top_k: generate.size("top_k", 1)?,
        top_p: generate.number(
            "top_p",
            f64::MIN_POSITIVE..=1.0,
            "a number above 0 and at most 1, for example 0.9",
        )?,
        repetition_penalty: generate
            .number("repetition_penalty", f64::MIN_POSITIVE.., "a number above 0, for example 1.1")?
            .unwrap_or(1.0),
    })
}
