//! One split as sequences of token ids: opening it, and what the loader's threads do to a sample.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use convert::tokenizer::Tokenizer;
use mds::format::{Encoding, Schema, Value};
use mds::order::{OrderOptions, Weight, World};
use mds::{DatasetOptions, ErrorKind, Loader, LoaderOptions, Sample, Stream, StreamingDataset};

use super::rows::{Piece, RowBuilder};
use super::{AskedBy, Replica};
use crate::config::{Address, DatasetConfig, GroupMethod, LoaderConfig, TokenEncoding};
use crate::error::{Error, Result};

/// Where and how a split is read.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) dataset: Arc<StreamingDataset>,
    /// Rows per batch.
    pub(super) rows: usize,
    pub(super) config: LoaderConfig,
    pub(super) asked_by: AskedBy,
    /// [`GroupMethod::Truncate`] for ready tokens, whose samples are rows already.
    method: GroupMethod,
    pad: i32,
    reading: Arc<Reading>,
}

/// What turns a sample into token ids.
#[derive(Debug)]
struct Reading {
    column: Column,
    /// The split's address, for messages.
    address: String,
    max_seq_len: usize,
    vocab_size: usize,
    asked_by: AskedBy,
    /// Whether it was said that samples are cut.
    warned_of_cut: AtomicBool,
}

#[derive(Debug)]
enum Column {
    /// Text to tokenise, and the ids put around each.
    Text { tokenizer: Tokenizer, bos: Vec<u32>, eos: Vec<u32> },
    /// `ndarray` of integers.
    Integers,
    /// Integers of this type as bytes.
    Bytes(TokenEncoding),
}

impl Source {
    /// Opens the split; `rows` is the size of this rank's batches.
    pub(super) fn open(
        asked_by: AskedBy,
        config: &LoaderConfig,
        tokenizer: &Tokenizer,
        vocab_size: usize,
        rows: usize,
        replica: Replica,
    ) -> Result<Self> {
        let dataset_config = &config.dataset;
        let dataset = StreamingDataset::open(
            streams(dataset_config),
            dataset_options(asked_by, config, rows, replica)?,
        )
        .map_err(|error| match (error.kind(), asked_by) {
            (ErrorKind::NotFound, AskedBy::Recipe) => {
                Error::Data(format!("{error} (in the recipe: {})", place_in_recipe(config)))
            }
            (ErrorKind::NotFound, AskedBy::Flags) => {
                let beside = splits_beside(&dataset_config.remote, &dataset_config.local);
                Error::Data(format!("{error} (--data, --split{beside})"))
            }
            _ => Error::from(error),
        })?;
        let address = address(dataset_config);
        let column = find_column(&dataset, dataset_config, tokenizer)?;
        if asked_by == AskedBy::Recipe {
            check_separator(config, &column)?;
        }
        let method = match &column {
            Column::Text { .. } => dataset_config.group_method,
            Column::Integers | Column::Bytes(_) => GroupMethod::Truncate,
        };
        if tokenizer.vocab_size() > vocab_size {
            return Err(Error::Config(format!(
                "the tokenizer `{}` has ids up to {}, but model.vocab_size is {vocab_size}; set \
                 it to at least {}",
                tokenizer.name(),
                tokenizer.vocab_size() - 1,
                tokenizer.vocab_size()
            )));
        }
        // Padding is never a label, so where there is no end-of-text token any id will do.
        let pad = tokenizer.eos_id().filter(|id| (*id as usize) < vocab_size).unwrap_or(0);
        let max_seq_len = dataset_config.max_seq_len;
        Ok(Self {
            dataset,
            rows,
            config: config.clone(),
            asked_by,
            method,
            pad: i32::try_from(pad).unwrap_or(0),
            reading: Arc::new(Reading {
                column,
                address,
                max_seq_len,
                vocab_size,
                asked_by,
                warned_of_cut: AtomicBool::new(false),
            }),
        })
    }

    pub(super) fn seq_len(&self) -> usize {
        self.config.dataset.max_seq_len
    }

    pub(super) fn address(&self) -> &str {
        &self.reading.address
    }

    /// Whether documents are joined, so that rows are not samples.
    pub(super) fn joins_documents(&self) -> bool {
        self.method == GroupMethod::Concat
    }

    /// Cuts the sequences of this source into rows, going on with `buffer`, which is of `pieces`.
    pub(super) fn row_builder(&self, buffer: Vec<i32>, pieces: Vec<Piece>) -> RowBuilder {
        RowBuilder::new(self.method, self.seq_len(), self.pad, buffer, pieces)
    }

    /// The sequences in order, from the start or from `checkpoint`.
    pub(super) fn loader(&self, checkpoint: Option<mds::Checkpoint>) -> Result<Loader<Vec<i32>>> {
        let options = LoaderOptions {
            num_workers: self.config.num_workers,
            prefetch_batches: self.config.num_workers * self.config.prefetch_factor,
        };
        let reading = Arc::clone(&self.reading);
        let read = move |sample: Sample| reading.token_ids(&sample);
        let dataset = Arc::clone(&self.dataset);
        Ok(match checkpoint {
            None => Loader::new(dataset, options, read),
            Some(checkpoint) => Loader::resume(dataset, options, checkpoint, read)?,
        })
    }
}

/// The datasets that are mixed, or the only one.
fn streams(config: &DatasetConfig) -> Vec<Stream> {
    let stream =
        |remote: &Option<Address>, local: &Option<Address>, split: &Option<String>| Stream {
            remote: remote.as_deref().map(str::to_owned),
            local: local.as_deref().map(Into::into),
            split: split.clone(),
            weight: Weight::Natural,
        };
    if config.streams.is_empty() {
        return vec![stream(&config.remote, &config.local, &config.split)];
    }
    let mixed = config.streams.iter().map(|(_, mixed)| Stream {
        weight: match (mixed.proportion, mixed.repeat, mixed.choose) {
            (Some(proportion), _, _) => Weight::Proportion(proportion),
            (_, Some(repeat), _) => Weight::Repeat(repeat),
            (_, _, Some(choose)) => Weight::Choose(choose),
            _ => Weight::Natural,
        },
        ..stream(&mixed.remote, &mixed.local, &mixed.split)
    });
    mixed.collect()
}

/// `./c4/val`, or several of them: how the data is called in messages.
fn address(config: &DatasetConfig) -> String {
    addresses(config).collect::<Vec<_>>().join(" and ")
}

/// Of each stream.
fn addresses(config: &DatasetConfig) -> impl Iterator<Item = String> {
    let shown = |stream: Stream| {
        let local = stream.local.map(|local| local.display().to_string());
        let root = stream.remote.or(local).unwrap_or_default();
        match &stream.split {
            Some(split) => mds::redacted(&mds::storage::join(&root, split)),
            None => mds::redacted(&root),
        }
    };
    streams(config).into_iter().map(shown)
}

/// `data_remote, train_loader.dataset.split; there is val`: the keys that name the dataset which is not there.
fn place_in_recipe(LoaderConfig { origin, dataset, .. }: &LoaderConfig) -> String {
    let is_missing = |stream: &Stream| {
        let opened = StreamingDataset::open(vec![stream.clone()], DatasetOptions::default());
        opened.is_err_and(|error| error.kind() == ErrorKind::NotFound)
    };
    let mixed = streams(dataset).iter().position(is_missing).and_then(|i| dataset.streams.get(i));
    match mixed {
        Some((_, stream)) => {
            let keys = ["remote", "split"].map(|key| stream.origin.key(key));
            format!("{}{}", keys.join(", "), splits_beside(&stream.remote, &stream.local))
        }
        None => {
            let beside = splits_beside(&dataset.remote, &dataset.local);
            format!("data_remote, {origin}.dataset.split{beside}")
        }
    }
}

/// `; there is val`: the splits beside the missing one, where they can be listed.
fn splits_beside(remote: &Option<Address>, local: &Option<Address>) -> String {
    let root = remote.as_deref().or(local.as_deref()).unwrap_or_default();
    let Ok(entries) = std::fs::read_dir(root) else { return String::new() };
    let mut splits: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().join("index.json").exists())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    splits.sort();
    if splits.is_empty() { String::new() } else { format!("; there is {}", splits.join(", ")) }
}

fn dataset_options(
    asked_by: AskedBy,
    LoaderConfig { origin, dataset: config, .. }: &LoaderConfig,
    rows: usize,
    replica: Replica,
) -> Result<DatasetOptions> {
    let section = match asked_by {
        AskedBy::Recipe => format!("{origin}.dataset."),
        AskedBy::Flags => String::new(),
    };
    let unknown = |key: &'static str| {
        let section = &section;
        move |e: mds::order::Error| Error::Config(format!("`{section}{key}`: {e}"))
    };
    let order = OrderOptions {
        epoch_size: config.epoch_size,
        sampling_method: config.sampling_method.parse().map_err(unknown("sampling_method"))?,
        sampling_granularity: config.sampling_granularity,
        partition_algo: config.partition_algo.parse().map_err(unknown("partition_algo"))?,
        batching_method: config.batching_method.parse().map_err(unknown("batching_method"))?,
        batch_size: Some(rows),
        shuffle: config.shuffle,
        shuffle_algo: config.shuffle_algo.parse().map_err(unknown("shuffle_algo"))?,
        shuffle_seed: config.shuffle_seed,
        shuffle_block_size: config.shuffle_block_size,
        num_canonical_nodes: config.num_canonical_nodes,
        ..OrderOptions::default()
    };
    Ok(DatasetOptions {
        order,
        // One worker in the layout of the order, whatever the number of threads is: the order
        // must not depend on that.
        world: World { nodes: 1, ranks_per_node: replica.world_size, workers_per_rank: 1 },
        rank: replica.rank,
        predownload: config.predownload.and_then(|n| usize::try_from(n).ok()),
        cache_limit: config.cache_limit,
        validate_hash: config.validate_hash,
        keep_zip: config.keep_zip,
        download_timeout: Duration::try_from_secs_f64(config.download_timeout)
            .unwrap_or(Duration::from_secs(60)),
        download_retry: config.download_retry,
        ..DatasetOptions::default()
    })
}

/// The column that all streams have alike.
fn find_column(
    dataset: &StreamingDataset,
    config: &DatasetConfig,
    tokenizer: &Tokenizer,
) -> Result<Column> {
    let mut streams = dataset.schemas().zip(addresses(config));
    // A dataset has at least one stream.
    let (schema, first) = streams.next().unwrap_or_else(|| (dataset.schema(), String::new()));
    let column = column_of(schema, config, &first, tokenizer)?;
    for (schema, address) in streams {
        let other = column_of(schema, config, &address, tokenizer)?;
        if std::mem::discriminant(&column) != std::mem::discriminant(&other) {
            return Err(Error::Data(format!(
                "{first} and {address} cannot be mixed: one has {column}, the other {other}; convert one of them as the \
                 other was"
            )));
        }
    }
    Ok(column)
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text { .. } => "text",
            Self::Integers => "tokens in arrays",
            Self::Bytes(_) => "tokens in bytes",
        })
    }
}

fn column_of(
    schema: &Schema,
    config: &DatasetConfig,
    address: &str,
    tokenizer: &Tokenizer,
) -> Result<Column> {
    let columns = schema.columns();
    let encoding = |name| schema.position(name).map(|i| &columns[i].encoding);
    match (encoding("tokens"), encoding("text")) {
        (Some(Encoding::NdArray { .. }), _) => Ok(Column::Integers),
        (Some(Encoding::Bytes), _) => Ok(Column::Bytes(config.token_encoding_type)),
        (Some(other), _) => Err(Error::Data(format!(
            "the column `tokens` of {address} holds {other}, not an array of integers; convert \
             the text again with convert-c4 --concat_tokens N --tokenizer PATH"
        ))),
        (None, Some(Encoding::Str)) => Ok(Column::Text {
            bos: tokenizer.encode_bare(&config.bos_text)?,
            eos: tokenizer.encode_bare(&config.eos_text)?,
            tokenizer: tokenizer.clone(),
        }),
        (None, _) => {
            let names: Vec<_> =
                columns.iter().map(|c| format!("{} ({})", c.name, c.encoding)).collect();
            Err(Error::Data(format!(
                "{address} has neither a `tokens` column nor a `text` column of str (its columns \
                 are {}); write one of the two, as convert-c4 does",
                names.join(", ")
            )))
        }
    }
}

/// Where texts are joined, what tells them apart must be put between them.
fn check_separator(
    LoaderConfig { origin, dataset: config, .. }: &LoaderConfig,
    column: &Column,
) -> Result<()> {
    let Column::Text { bos, eos, .. } = column else { return Ok(()) };
    if config.group_method != GroupMethod::Concat {
        return Ok(());
    }
    for (key, id, text, ids) in [
        ("eos_token_id", config.eos_token_id, "eos_text", eos),
        ("bos_token_id", config.bos_token_id, "bos_text", bos),
    ] {
        if let Some(id) = id.filter(|id| !ids.contains(&id.unsigned_abs())) {
            return Err(Error::Config(format!(
                "`{origin}.dataset.{key}` is {id}, but `{origin}.dataset.{text}` does not put that token between \
                 documents; set it to the text of the token, for example <|endoftext|>"
            )));
        }
    }
    Ok(())
}

impl Reading {
    /// The token ids of a sample, all of them in the model's vocabulary.
    fn token_ids(&self, sample: &Sample) -> mds::Result<Vec<i32>> {
        let unreadable = |error: mds::Error| error.in_dataset(&self.address);
        match &self.column {
            Column::Text { tokenizer, bos, eos } => {
                let text = sample.str("text").map_err(unreadable)?;
                let ids = tokenizer.encode(text).map_err(|error| {
                    self.refuse(
                        sample,
                        format!("the text cannot be tokenised: {error}"),
                        "correct it",
                    )
                })?;
                let ids = bos.iter().chain(&ids).chain(eos).map(|id| i64::from(*id));
                self.checked(sample, ids)
            }
            Column::Integers => match sample.value("tokens").map_err(unreadable)? {
                Value::NdArray(array) => self.row(sample, &array.to_vec_i64().map_err(unreadable)?),
                _ => self.row(sample, &[]),
            },
            Column::Bytes(encoding) => {
                let bytes = sample.bytes("tokens").map_err(unreadable)?;
                let ids = integers(bytes, *encoding);
                if *encoding == TokenEncoding::Int32 && is_every_second_zero(&ids) {
                    let what = "every second token is 0: its integers have 64 bits, not 32";
                    return Err(self.refuse(sample, what.into(), "set token_encoding_type: int64"));
                }
                self.row(sample, &ids)
            }
        }
    }

    /// A sample of ready tokens as a row: longer ones are cut, shorter ones are an error.
    fn row(&self, sample: &Sample, ids: &[i64]) -> mds::Result<Vec<i32>> {
        let used = self.max_seq_len;
        if ids.len() > used && !self.warned_of_cut.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "the samples of {} have {} tokens, of which only the first {used} are used; raise \
                 max_seq_len, or convert the text with --concat_tokens {used}",
                self.address,
                ids.len()
            );
        }
        let Some(ids) = ids.get(..self.max_seq_len) else {
            return Err(self.refuse(
                sample,
                format!("{} tokens are too few for a row of {}", ids.len(), self.max_seq_len),
                &format!(
                    "convert the text with --concat_tokens {} or set {}={}",
                    self.max_seq_len,
                    match self.asked_by {
                        AskedBy::Recipe => "max_seq_len",
                        AskedBy::Flags => "--max_seq_len",
                    },
                    ids.len()
                ),
            ));
        };
        self.checked(sample, ids.iter().copied())
    }

    fn checked(&self, sample: &Sample, ids: impl Iterator<Item = i64>) -> mds::Result<Vec<i32>> {
        ids.map(|id| match i32::try_from(id) {
            Ok(small) if small >= 0 && (small as usize) < self.vocab_size => Ok(small),
            _ => Err(self.refuse(
                sample,
                format!("token id {id} is not in the model's vocabulary of {}", self.vocab_size),
                match (&self.column, self.asked_by) {
                    // No tokenizer has such an id.
                    (Column::Bytes(_), _) if id < 0 => {
                        "set token_encoding_type to the type that they were written with, or convert the text again"
                    }
                    _ if id < 0 => "convert the text again",
                    (_, AskedBy::Recipe) => {
                        "raise model.vocab_size, or use the tokenizer that the dataset was made with"
                    }
                    (_, AskedBy::Flags) => {
                        "give a dataset that was made with the model's tokenizer"
                    }
                },
            )),
        })
        .collect()
    }

    fn refuse(&self, sample: &Sample, what: String, remedy: &str) -> mds::Error {
        mds::Error::new(ErrorKind::Caller, what, remedy)
            .at_sample(sample.id())
            .in_dataset(&self.address)
    }
}

/// Little-endian integers; bytes that do not fill the last one are left out.
fn integers(bytes: &[u8], encoding: TokenEncoding) -> Vec<i64> {
    fn each<const N: usize>(bytes: &[u8], read: fn([u8; N]) -> i64) -> Vec<i64> {
        bytes.as_chunks::<N>().0.iter().map(|chunk| read(*chunk)).collect()
    }
    match encoding {
        TokenEncoding::Int64 => each(bytes, i64::from_le_bytes),
        TokenEncoding::Int32 => each(bytes, |b| i64::from(i32::from_le_bytes(b))),
        TokenEncoding::Uint32 => each(bytes, |b| i64::from(u32::from_le_bytes(b))),
        TokenEncoding::Uint16 => each(bytes, |b| i64::from(u16::from_le_bytes(b))),
    }
}

/// As integers of twice the width look.
fn is_every_second_zero(ids: &[i64]) -> bool {
    let (pairs, _) = ids.as_chunks::<2>();
    pairs.len() > 8
        && pairs.iter().all(|[_, high]| *high == 0)
        && pairs.iter().any(|[low, _]| *low != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_as_little_endian_integers() {
        let bytes = [1, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255];
        assert_eq!(integers(&bytes, TokenEncoding::Int64), [1, -1]);
        assert_eq!(integers(&bytes, TokenEncoding::Int32), [1, 0, -1, -1]);
        assert_eq!(integers(&bytes[8..], TokenEncoding::Uint32), [4_294_967_295; 2]);
        assert_eq!(integers(&bytes[6..11], TokenEncoding::Uint16), [0, 65_535]);
    }

    #[test]
    fn integers_of_twice_the_width_are_known_by_their_zeros() {
        let bytes: Vec<u8> = (1..=20_i64).flat_map(i64::to_le_bytes).collect();
        assert!(is_every_second_zero(&integers(&bytes, TokenEncoding::Int32)));
        assert!(!is_every_second_zero(&integers(&bytes, TokenEncoding::Int64)));
        assert!(!is_every_second_zero(&[0; 40]));
        assert!(!is_every_second_zero(&[7, 0]));
    }
}
