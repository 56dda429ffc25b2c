//! The sections `train_loader` and `eval_loader`: one loader or several, and their datasets.

use serde_json::{Value, json};

use super::read::read_subset;
use super::read_model::one_of;
use super::section::Section;
use super::{
    Address, DatasetConfig, GroupMethod, LoaderConfig, Origin, StreamConfig, TokenEncoding,
};
use crate::error::{Error, Result};

impl LoaderConfig {
    /// Evaluation rows of at most `max_seq_len` tokens of the dataset at `remote`, with the defaults of an `eval_loader`.
    pub fn for_evaluation(remote: &str, split: Option<&str>, max_seq_len: usize) -> Result<Self> {
        let dataset = json!({ "remote": remote, "split": split });
        let defaults = DataDefaults { remote: &None, local: &None, max_seq_len };
        read_loader(&Section::root(&json!({ "dataset": dataset })), &defaults, false)
    }
}

/// What a dataset section falls back to.
pub(super) struct DataDefaults<'a> {
    pub(super) remote: &'a Option<Address>,
    pub(super) local: &'a Option<Address>,
    pub(super) max_seq_len: usize,
}

/// `train_loader`: one, or a list whose datasets are mixed as `streams` are.
pub(super) fn read_train_loader(
    root: &Section<'_>,
    defaults: &DataDefaults<'_>,
) -> Result<LoaderConfig> {
    let sections = root.sections("train_loader")?;
    match sections.as_slice() {
        [] => {
            let example = "train_loader: {name: text, dataset: {split: train}}";
            Err(match root.has("train_loader") {
                false => root.missing("train_loader", example),
                true => Error::Config(format!(
                    "`train_loader` is an empty list; give it a loader, for example `{example}`"
                )),
            })
        }
        [one] => {
            refuse_proportion(one)?;
            read_loader(one, defaults, true)
        }
        many => mix_loaders(many, defaults),
    }
}

/// A loader that is not in a list of training loaders has nothing to share an epoch with.
fn refuse_proportion(loader: &Section<'_>) -> Result<()> {
    match loader.has("proportion") {
        false => Ok(()),
        true => Err(Error::Config(format!(
            "`{}` is given, but only the loaders of a list `train_loader` are mixed by proportion; remove it",
            loader.path("proportion")
        ))),
    }
}

/// One loader of the datasets of all, which agree in everything else.
fn mix_loaders(sections: &[Section<'_>], defaults: &DataDefaults<'_>) -> Result<LoaderConfig> {
    let mut mixed: Option<LoaderConfig> = None;
    let mut streams: Vec<(String, StreamConfig)> = Vec::new();
    for (index, section) in sections.iter().enumerate() {
        let mut loader = read_loader(section, defaults, true)?;
        let dataset = &mut loader.dataset;
        if !dataset.streams.is_empty() {
            return Err(Error::Config(format!(
                "`{}` is given, but each loader of a list is a stream already; list it with the others",
                section.path("dataset.streams")
            )));
        }
        // Whoever has a remote of its own is not cached where the default one is.
        let own = section.section("dataset")?;
        if own.has("remote") && !own.has("local") {
            dataset.local = None;
        }
        let share = "a number of at least 0, for example 0.5";
        let stream = StreamConfig {
            origin: Origin::new(section.path("dataset")),
            remote: dataset.remote.take(),
            local: dataset.local.take(),
            split: dataset.split.take(),
            proportion: section.number("proportion", 0.0.., share)?,
            repeat: None,
            choose: None,
        };
        if stream.remote.is_none() && stream.local.is_none() {
            return Err(section.missing("dataset.remote", "remote: s3://bucket/c4"));
        }
        let name = section.text("label")?.unwrap_or_else(|| index.to_string());
        if streams.iter().any(|(other, _)| *other == name) {
            return Err(same_label(section, &name));
        }
        streams.push((name, stream));
        if let Some(key) =
            mixed.as_ref().and_then(|first| difference(&json!(first), &json!(loader)))
        {
            return Err(Error::Config(format!(
                "`{}` is not that of the first loader, but the loaders of a list are mixed into one; they may differ in \
                 label, proportion, dataset.remote, dataset.local and dataset.split: make the rest alike",
                section.path(&key)
            )));
        }
        mixed.get_or_insert(loader);
    }
    let mut mixed = mixed.ok_or_else(|| Error::Config("`train_loader` is empty".into()))?;
    mixed.dataset.streams = streams;
    mixed.origin = Origin::new("train_loader");
    Ok(mixed)
}

/// The dotted path of the first value that two sections of the same keys differ in.
fn difference(one: &Value, other: &Value) -> Option<String> {
    let (Value::Object(one), Value::Object(other)) = (one, other) else { return None };
    one.iter()
        .zip(other)
        .filter(|((_, one), (_, other))| one != other)
        .map(|((key, one), (_, other))| {
            difference(one, other).map_or_else(|| key.clone(), |rest| format!("{key}.{rest}"))
        })
        .next()
}

fn same_label(section: &Section<'_>, label: &str) -> Error {
    Error::Config(format!(
        "`{}` is `{label}`, as that of a loader before; give each its own",
        section.path("label")
    ))
}

/// `eval_loader`: one, or a list of loaders with labels.
pub(super) fn read_eval_loaders(
    root: &Section<'_>,
    defaults: &DataDefaults<'_>,
) -> Result<Vec<LoaderConfig>> {
    let sections = root.sections("eval_loader")?;
    let mut loaders: Vec<LoaderConfig> = Vec::new();
    for section in &sections {
        refuse_proportion(section)?;
        let mut loader = read_loader(section, defaults, false)?;
        loader.eval_subset_num_batches = read_subset(section, "eval_subset_num_batches")?;
        loader.label = section.text("label")?.filter(|_| sections.len() > 1);
        if let Some(label) =
            loader.label.as_ref().filter(|label| label.is_empty() || label.contains('/'))
        {
            return Err(Error::Config(format!(
                "`{}` is `{label}`, but it is a part of the names of metrics; give it a word without `/`",
                section.path("label")
            )));
        }
        if sections.len() > 1 {
            let Some(label) = &loader.label else {
                return Err(section.missing("label", "label: c4"));
            };
            if loaders.iter().any(|other| other.label.as_ref() == Some(label)) {
                return Err(same_label(section, label));
            }
        }
        loaders.push(loader);
    }
    Ok(loaders)
}

fn read_loader(
    loader: &Section<'_>,
    defaults: &DataDefaults<'_>,
    training: bool,
) -> Result<LoaderConfig> {
    let name = loader.choice("name", &[("text", "text"), ("c4", "c4")])?.unwrap_or("text");
    Ok(LoaderConfig {
        origin: Origin::new(loader.own_path()),
        name: name.to_owned(),
        label: None,
        eval_subset_num_batches: None,
        dataset: read_dataset(&loader.section("dataset")?, defaults, training)?,
        drop_last: loader.flag("drop_last")?.unwrap_or(training),
        num_workers: loader.size("num_workers", 0)?.unwrap_or(2),
        prefetch_factor: loader.size("prefetch_factor", 1)?.unwrap_or(2),
    })
}

fn read_dataset(
    dataset: &Section<'_>,
    defaults: &DataDefaults<'_>,
    training: bool,
) -> Result<DatasetConfig> {
    let methods = [("truncate", GroupMethod::Truncate), ("concat", GroupMethod::Concat)];
    let encodings = [
        ("int64", TokenEncoding::Int64),
        ("int32", TokenEncoding::Int32),
        ("uint32", TokenEncoding::Uint32),
        ("uint16", TokenEncoding::Uint16),
    ];
    // `a` is today's name of the option, `b` its name in older recipes.
    let either =
        |a, b| one_of((dataset, a, dataset.whole(a, 0)?), (dataset, b, dataset.whole(b, 0)?));
    let name = |key, default: &str| {
        Ok::<_, Error>(dataset.text(key)?.unwrap_or_else(|| default.to_owned()))
    };
    let streams = read_streams(dataset)?;
    // What is said of all datasets is meant for one alone.
    let default = |address: &Option<Address>| address.clone().filter(|_| streams.is_empty());
    let token = |key| Ok::<_, Error>(dataset.whole(key, 0)?.and_then(|id| i32::try_from(id).ok()));
    let seconds = |key| dataset.number(key, 0.0.., "a number of seconds, for example 60");
    Ok(DatasetConfig {
        remote: dataset.text("remote")?.map(Address::from).or_else(|| default(defaults.remote)),
        local: dataset.text("local")?.map(Address::from).or_else(|| default(defaults.local)),
        split: dataset.text("split")?,
        epoch_size: dataset.whole("epoch_size", 1)?,
        batching_method: name("batching_method", "random")?,
        sampling_method: name("sampling_method", "balanced")?,
        sampling_granularity: dataset.whole("sampling_granularity", 1)?.unwrap_or(1),
        partition_algo: name("partition_algo", "relaxed")?,
        shuffle: dataset.flag("shuffle")?.unwrap_or(training),
        shuffle_algo: dataset.text("shuffle_algo")?.unwrap_or_else(|| "py1e".to_owned()),
        shuffle_seed: dataset.whole("shuffle_seed", 0)?.unwrap_or(9176),
        shuffle_block_size: dataset.whole("shuffle_block_size", 1)?,
        num_canonical_nodes: dataset.whole("num_canonical_nodes", 1)?,
        predownload: either("predownload", "prefetch")?,
        cache_limit: dataset.bytes("cache_limit")?,
        validate_hash: dataset.flag("validate_hash")?.unwrap_or(true),
        keep_zip: dataset.flag("keep_zip")?.unwrap_or(false),
        download_retry: either("download_retry", "retry")?.map_or(2, |n| n.min(1000) as u32),
        download_timeout: one_of(
            (dataset, "download_timeout", seconds("download_timeout")?),
            (dataset, "timeout", seconds("timeout")?),
        )?
        .unwrap_or(60.0),
        max_seq_len: dataset.size("max_seq_len", 2)?.unwrap_or(defaults.max_seq_len),
        group_method: dataset.choice("group_method", &methods)?.unwrap_or(GroupMethod::Truncate),
        bos_text: dataset.text("bos_text")?.unwrap_or_default(),
        eos_text: dataset.text("eos_text")?.unwrap_or_default(),
        eos_token_id: token("eos_token_id")?,
        bos_token_id: token("bos_token_id")?,
        token_encoding_type: dataset
            .choice("token_encoding_type", &encodings)?
            .unwrap_or(TokenEncoding::Int64),
        streams,
    })
}

/// The section `streams`, in its order, which decides the numbers of samples.
fn read_streams(dataset: &Section<'_>) -> Result<Vec<(String, StreamConfig)>> {
    let section = dataset.section("streams")?;
    let split = dataset.text("split")?;
    let mut streams = Vec::new();
    for name in section.keys() {
        let stream = section.section(name)?;
        let number = |key| stream.number(key, 0.0.., "a number of at least 0, for example 0.5");
        let config = StreamConfig {
            origin: Origin::new(section.path(name)),
            remote: stream.text("remote")?.map(Address::from),
            local: stream.text("local")?.map(Address::from),
            split: stream.text("split")?.or_else(|| split.clone()),
            proportion: number("proportion")?,
            repeat: number("repeat")?,
            choose: stream.whole("choose", 0)?,
        };
        let weights = [
            ("proportion", config.proportion.is_some()),
            ("repeat", config.repeat.is_some()),
            ("choose", config.choose.is_some()),
        ];
        let mut given = weights.iter().filter(|(_, given)| *given);
        if let (Some((first, _)), Some((second, _))) = (given.next(), given.next()) {
            return Err(Error::Config(format!(
                "`{}` and `{}` are both given; keep one of the two",
                stream.path(first),
                stream.path(second)
            )));
        }
        if config.remote.is_none() && config.local.is_none() {
            return Err(stream.missing("remote", "remote: s3://bucket/c4"));
        }
        streams.push((name.to_owned(), config));
    }
    let own = ["remote", "local"].into_iter().find(|key| dataset.has(key));
    match own.filter(|_| !streams.is_empty()) {
        None => Ok(streams),
        Some(key) => Err(Error::Config(format!(
            "`{}` is given, but `{}` name their own; remove one of the two",
            dataset.path(key),
            dataset.path("streams")
        ))),
    }
}
