//! Training data from real shards: rows are the documents joined in the dataset's order, whatever
//! the number of threads; a restored position goes on with the very next token; and a dataset that
//! does not fit is refused in one sentence.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[path = "support/bucket.rs"]
mod bucket;
#[path = "support/listing.rs"]
mod listing;
use bucket::{Bucket, Fault, Rule};
use convert::tokenizer::Tokenizer;
use mds::format::{DType, Encoding, NdArray, Schema, Value};
use mds::{Writer, WriterOptions};
use trainer::config::Config;
use trainer::data::{DataState, EvalData, IGNORED, Replica, TokenBatch, TrainData};

const DOCUMENTS: usize = 53;

fn tokenizer() -> Tokenizer {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/tokenizers/quickstart");
    Tokenizer::load(path.to_str().unwrap()).unwrap()
}

/// Documents of very different lengths, one of them empty.
fn document(i: usize) -> String {
    (0..(i * 7) % 40).map(|word| format!("word{i} number{word} ")).collect()
}

fn write(
    dir: &Path,
    columns: &[(&str, Encoding)],
    samples: impl Iterator<Item = Vec<Value<'static>>>,
) {
    let schema = Schema::new(columns.iter().cloned()).unwrap();
    let options = WriterOptions { size_limit: Some(1 << 12), ..WriterOptions::default() };
    let mut writer = Writer::create(dir, schema, options).unwrap();
    for sample in samples {
        writer.write(&sample).unwrap();
    }
    writer.finish().unwrap();
}

fn text_dataset(root: &Path, split: &str) {
    let samples = (0..DOCUMENTS).map(|i| vec![Value::from(document(i).as_str()).into_owned()]);
    write(&root.join(split), &[("text", Encoding::Str)], samples);
}

fn config(root: &Path, overrides: &[&str]) -> Config {
    let yaml = format!(
        "
max_seq_len: 16
data_remote: {}
tokenizer_name: quickstart
model: {{name: mosaic_gpt, d_model: 8, n_heads: 1, n_layers: 1, vocab_size: 4096}}
train_loader:
  name: text
  dataset: {{split: train, shuffle: true, group_method: concat}}
eval_loader:
  name: text
  dataset: {{split: train, group_method: concat}}
  drop_last: false
scheduler: {{name: constant_with_warmup, t_warmup: 0ba}}
optimizer: {{name: decoupled_adamw, lr: 0.1}}
max_duration: 1ba
global_train_batch_size: 4
device_train_microbatch_size: 4
",
        root.display()
    );
    let overrides: Vec<_> = overrides.iter().map(ToString::to_string).collect();
    Config::from_yaml_str(&yaml, &overrides).unwrap()
}

fn open(config: &Config) -> TrainData {
    TrainData::open(config, &tokenizer(), Replica::single()).unwrap()
}

fn tokens(batches: &[TokenBatch]) -> Vec<i32> {
    batches.iter().flat_map(|batch| batch.tokens.iter().copied()).collect()
}

fn take(data: &mut TrainData, n: usize) -> Vec<TokenBatch> {
    (0..n).map(|_| data.next_batch().unwrap()).collect()
}

fn ids(text: &str) -> Vec<i32> {
    tokenizer().encode(text).unwrap().into_iter().map(|id| id as i32).collect()
}

#[test]
fn joined_documents_are_the_unshuffled_text_in_order_epoch_after_epoch() {
    let dir = tempfile::tempdir().unwrap();
    text_dataset(dir.path(), "train");
    let config = config(dir.path(), &["train_loader.dataset.shuffle=false"]);
    let epoch: Vec<i32> = (0..DOCUMENTS).flat_map(|i| ids(&document(i))).collect();
    // Well into the third epoch; nothing is inserted, lost or repeated at its edges.
    let batches = epoch.len() * 5 / 2 / (4 * 16);
    let rows = take(&mut open(&config), batches);
    let expected: Vec<i32> = epoch.iter().copied().cycle().take(batches * 4 * 16).collect();
    assert_eq!(tokens(&rows), expected);
    for batch in &rows {
        assert_eq!((batch.rows, batch.seq_len), (4, 16));
        for (row, labels) in batch.tokens.chunks(16).zip(batch.labels.chunks(16)) {
            assert_eq!(labels[..15], row[1..]);
            assert_eq!(labels[15], IGNORED);
        }
    }
}

#[test]
fn a_row_names_the_samples_that_its_tokens_are_of() {
    let dir = tempfile::tempdir().unwrap();
    text_dataset(dir.path(), "train");
    for method in ["concat", "truncate"] {
        let method = format!("train_loader.dataset.group_method={method}");
        for batch in take(&mut open(&config(dir.path(), &[&method])), 30) {
            for (row, samples) in batch.tokens.chunks(16).zip(&batch.samples) {
                let documents: Vec<Vec<i32>> =
                    samples.iter().map(|id| ids(&document(*id as usize))).collect();
                let joined = documents.concat();
                if joined.len() < 16 {
                    assert_eq!(row[..joined.len()], joined, "{method} {samples:?}"); // padded
                    continue;
                }
                // It begins in the first and ends in the last of them.
                let last = joined.len() - documents[documents.len() - 1].len();
                let found = (0..documents[0].len())
                    .any(|start| joined[start..].starts_with(row) && start + 16 > last);
                assert!(found, "{method} {samples:?}");
            }
        }
    }
}

#[test]
fn texts_around_documents_are_inserted_where_configured() {
    let dir = tempfile::tempdir().unwrap();
    text_dataset(dir.path(), "train");
    let config = config(
        dir.path(),
        &["train_loader.dataset.shuffle=false", "train_loader.dataset.eos_text=<|endoftext|>"],
    );
    let expected: Vec<i32> = (0..DOCUMENTS)
        .flat_map(|i| ids(&document(i)).into_iter().chain([0]))
        .take(5 * 64)
        .collect();
    assert_eq!(tokens(&take(&mut open(&config), 5)), expected);
}

/// Two datasets whose rows tell them apart, mixed as `streams` say; how many rows of an epoch come from each.
fn mixed(streams: &str, batching: &str) -> Vec<[usize; 2]> {
    let dir = tempfile::tempdir().unwrap();
    let tokens = Encoding::NdArray { dtype: Some(DType::I32), shape: None };
    for (name, id, rows) in [("a", 1, 40), ("b", 2, 8)] {
        let row = vec![Value::NdArray(NdArray::from_i32(&[id; 16])).into_owned()];
        write(
            &dir.path().join(name),
            &[("tokens", tokens.clone())],
            std::iter::repeat_n(row, rows),
        );
    }
    let streams = streams.replace("ROOT", dir.path().to_str().unwrap());
    let config = config(
        dir.path(),
        &[
            "train_loader.dataset.split=null",
            &format!("train_loader.dataset.streams={streams}"),
            &format!("train_loader.dataset.batching_method={batching}"),
        ],
    );
    let mut data = open(&config);
    let batches = data.batches_per_epoch().unwrap() as usize;
    let of =
        |batch: &TokenBatch, id: i32| batch.tokens.chunks(16).filter(|row| row[0] == id).count();
    take(&mut data, batches).iter().map(|batch| [of(batch, 1), of(batch, 2)]).collect()
}

#[test]
fn streams_are_mixed_by_proportion_repetition_or_choice() {
    let rows = |streams: &str| {
        let batches = mixed(streams, "random");
        let sum = |i: usize| batches.iter().map(|batch| batch[i]).sum::<usize>();
        [sum(0), sum(1)]
    };
    assert_eq!(rows("{a: {remote: ROOT/a}, b: {remote: ROOT, split: b}}"), [40, 8]);
    assert_eq!(
        rows("{a: {remote: ROOT/a, repeat: 0.5}, b: {remote: ROOT/b, repeat: 2}}"),
        [20, 16]
    );
    assert_eq!(rows("{a: {remote: ROOT/a, choose: 4}, b: {remote: ROOT/b, choose: 12}}"), [4, 12]);
    let half = rows("{a: {remote: ROOT/a, proportion: 1}, b: {remote: ROOT/b, proportion: 1}}");
    assert_eq!((half[0] + half[1], half[0].abs_diff(half[1]) <= 2), (48, true), "{half:?}");
}

/// Loaders of a list have the very rows of streams.
#[test]
fn loaders_of_a_list_are_mixed_as_streams_are() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        text_dataset(dir.path(), name);
    }
    let rows = |train_loader: &str| {
        let train_loader = train_loader.replace("ROOT", dir.path().to_str().unwrap());
        take(&mut open(&config(dir.path(), &[&format!("train_loader={train_loader}")])), 9)
    };
    let list = "[{proportion: 2, dataset: {remote: ROOT/a}}, {proportion: 1, dataset: {remote: ROOT, split: b}}]";
    let streams = "{dataset: {streams: {a: {remote: ROOT/a, proportion: 2}, b: {remote: ROOT/b, proportion: 1}}}}";
    assert_eq!(tokens(&rows(list)), tokens(&rows(streams)));
}

#[test]
fn batches_may_be_made_of_streams_in_turn() {
    let streams = "{a: {remote: ROOT/a, choose: 12}, b: {remote: ROOT/b, choose: 4}}";
    assert_eq!(mixed(streams, "stratified"), [[3, 1]; 4]);
    let of_one = mixed(streams, "per_stream");
    assert!(of_one.iter().all(|batch| batch[0] == 0 || batch[1] == 0), "{of_one:?}");
}

#[test]
fn rows_do_not_depend_on_the_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    text_dataset(dir.path(), "train");
    let rows = |workers: &str| {
        take(&mut open(&config(dir.path(), &[&format!("train_loader.num_workers={workers}")])), 60)
            .into_iter()
            .map(|batch| batch.tokens)
            .collect::<Vec<_>>()
    };
    let alone = rows("0");
    assert_eq!(alone, rows("1"));
    assert_eq!(alone, rows("5"));
}

#[test]
fn a_position_saved_after_any_batch_goes_on_with_the_next() {
    let dir = tempfile::tempdir().unwrap();
    text_dataset(dir.path(), "train");
    for method in ["concat", "truncate"] {
        let method = format!("train_loader.dataset.group_method={method}");
        let config = config(dir.path(), &[&method]);
        let mut whole = open(&config);
        let mut states = vec![whole.state()];
        let mut rows = Vec::new();
        for _ in 0..30 {
            let batch = whole.next_batch().unwrap();
            rows.push((batch.tokens, batch.samples));
            // As a checkpoint stores it.
            let json = serde_json::to_string(&whole.state()).unwrap();
            states.push(serde_json::from_str::<DataState>(&json).unwrap());
        }
        for (done, state) in states.into_iter().enumerate().step_by(3) {
            let mut resumed = open(&config);
            resumed.restore(state.clone()).unwrap();
            assert_eq!(resumed.state(), state);
            for expected in rows.iter().skip(done).take(8) {
                let batch = resumed.next_batch().unwrap();
                assert_eq!(&(batch.tokens, batch.samples), expected, "{method} {done}");
            }
        }
    }
}

#[test]
fn data_that_is_started_comes_before_it_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    text_dataset(dir.path(), "train");
    let expected = tokens(&take(&mut open(&config(dir.path(), &[])), 5));
    let cache = dir.path().join("cache");
    let mut data = open(&config(dir.path(), &[&format!("data_local={}", cache.display())]));
    assert!(!cache.join("train/shard.00000.mds").exists());
    data.start().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while data.cache_metrics().is_empty() {
        assert!(Instant::now() < deadline, "no shard came");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(data.state(), DataState::default());
    data.start().unwrap();
    assert_eq!(tokens(&take(&mut data, 5)), expected);
}

/// A run that fails before its first step does not wait for a server that is silent.
#[test]
fn data_that_is_given_up_ends_at_once_though_its_download_hangs() {
    let dir = tempfile::tempdir().unwrap();
    text_dataset(dir.path(), "train");
    for workers in [0, 2] {
        let bucket = Bucket::start();
        for entry in std::fs::read_dir(dir.path().join("train")).unwrap().flatten() {
            let key = format!("c4/train/{}", entry.file_name().into_string().unwrap());
            bucket.put(&key, &std::fs::read(entry.path()).unwrap());
        }
        let silence = Rule { method: "GET", key: "shard.", after: 0, fault: Fault::Silence };
        bucket.fail(Some(silence));
        let overrides = [
            format!("data_remote={}", bucket.address("c4")),
            format!("data_local={}/cache{workers}", dir.path().display()),
            format!("train_loader.num_workers={workers}"),
            "train_loader.dataset.download_timeout=20".to_owned(),
        ];
        let mut data = open(&config(dir.path(), &overrides.each_ref().map(String::as_str)));
        data.start().unwrap();
        bucket.wait_for_silence();
        let given_up = Instant::now();
        assert!(data.next_batch_unless(|| true).unwrap().is_none());
        assert_eq!(data.state(), DataState::default());
        drop(data);
        assert!(given_up.elapsed() < Duration::from_secs(10), "{:?}", given_up.elapsed());
    }
}

#[test]
fn restoring_in_mid_run_forgets_what_was_made_ready() {
    let dir = tempfile::tempdir().unwrap();
    text_dataset(dir.path(), "train");
    let mut data = open(&config(dir.path(), &[]));
    take(&mut data, 3);
    let state = data.state();
    let ahead = tokens(&take(&mut data, 4));
    data.restore(state).unwrap();
    assert_eq!(tokens(&take(&mut data, 4)), ahead);
}

#[test]
fn a_truncated_document_is_a_row_and_an_epoch_has_its_batches() {
    let dir = tempfile::tempdir().unwrap();
    text_dataset(dir.path(), "train");
    for (drop_last, batches, last_rows) in [("true", 13, 4), ("false", 14, 1)] {
        let config = config(
            dir.path(),
            &[
                "train_loader.dataset.group_method=truncate",
                "train_loader.dataset.shuffle=false",
                &format!("train_loader.drop_last={drop_last}"),
            ],
        );
        let mut data = open(&config);
        assert_eq!(data.batches_per_epoch(), Some(batches));
        let epoch = take(&mut data, batches as usize);
        assert_eq!(epoch.last().unwrap().rows, last_rows);
        let again = take(&mut data, batches as usize);
        assert_eq!(tokens(&again), tokens(&epoch));

        // Document 1 has 7 x 2 words, more than a row; document 0 none at all.
        assert_eq!(epoch[0].tokens[16..32], ids(&document(1))[..16]);
        assert_eq!(epoch[0].labels[..16], [IGNORED; 16]);
        assert_eq!(epoch[0].tokens[..16], [0; 16]);
    }
}

#[test]
fn evaluation_is_every_sample_once_as_often_as_asked() {
    let dir = tempfile::tempdir().unwrap();
    text_dataset(dir.path(), "train");
    let all: Vec<i32> = (0..DOCUMENTS).flat_map(|i| ids(&document(i))).collect();
    let concat = config(dir.path(), &[]);
    let eval = EvalData::open(&concat, &tokenizer()).unwrap().remove(0);
    for _ in 0..2 {
        let rows: Vec<_> = eval.pass().unwrap().map(Result::unwrap).collect();
        // The last row that is not full is left out, the last batch that is not full is not.
        assert_eq!(tokens(&rows), all[..all.len() / 16 * 16]);
    }
    let truncate = config(dir.path(), &["eval_loader.dataset.group_method=truncate"]);
    let eval = EvalData::open(&truncate, &tokenizer()).unwrap().remove(0);
    assert_eq!(eval.batches(), Some(14));
    let rows: Vec<_> = eval.pass().unwrap().map(Result::unwrap).collect();
    assert_eq!(rows.iter().map(|batch| batch.rows).sum::<usize>(), DOCUMENTS);
    assert_eq!(rows.len(), 14);

    let subset = config(dir.path(), &["eval_subset_num_batches=3"]);
    let eval = EvalData::open(&subset, &tokenizer()).unwrap().remove(0);
    assert_eq!(eval.pass().unwrap().count(), 3);
    assert_eq!(eval.batches(), Some(3));
    let none = config(dir.path(), &["eval_loader=null"]);
    assert!(EvalData::open(&none, &tokenizer()).unwrap().is_empty());
}

fn ramp(i: usize, len: usize) -> Vec<i32> {
    (0..len).map(|k| ((i * 100 + k) % 4096) as i32).collect()
}

fn bytes_of<const N: usize>(ids: &[i32], encode: fn(i32) -> [u8; N]) -> Vec<u8> {
    ids.iter().flat_map(|id| encode(*id)).collect()
}

/// How a sample of ids is stored: the column's encoding, its bytes, and the dtype of an array.
type Stored = (Encoding, fn(&[i32]) -> Vec<u8>, Option<DType>);

#[test]
fn ready_tokens_are_read_in_every_integer_type() {
    let array = |dtype| Encoding::NdArray { dtype: Some(dtype), shape: None };
    let fixed = Encoding::NdArray { dtype: Some(DType::U16), shape: Some(vec![16]) };
    let dynamic = Encoding::NdArray { dtype: None, shape: None };
    let cases: [(&str, Stored); 5] = [
        ("int64", (array(DType::I32), |ids| bytes_of(ids, i32::to_le_bytes), Some(DType::I32))),
        ("int64", (fixed, |ids| bytes_of(ids, |id| (id as u16).to_le_bytes()), Some(DType::U16))),
        (
            "int64",
            (dynamic, |ids| bytes_of(ids, |id| i64::from(id).to_le_bytes()), Some(DType::I64)),
        ),
        ("int64", (Encoding::Bytes, |ids| bytes_of(ids, |id| i64::from(id).to_le_bytes()), None)),
        ("uint16", (Encoding::Bytes, |ids| bytes_of(ids, |id| (id as u16).to_le_bytes()), None)),
    ];
    for (encoding_type, (encoding, encode, dtype)) in cases {
        let dir = tempfile::tempdir().unwrap();
        let sample = |i: usize| {
            let data = encode(&ramp(i, 16));
            vec![match dtype {
                None => Value::Bytes(data.into()),
                Some(dtype) => {
                    Value::NdArray(NdArray { dtype, shape: vec![16], data: data.into() })
                }
            }]
        };
        let columns = [("tokens", encoding.clone())];
        write(&dir.path().join("train"), &columns, (0..8).map(sample));
        let encoding_type = format!("train_loader.dataset.token_encoding_type={encoding_type}");
        // Ready tokens are rows already, whatever the group method says.
        for method in ["concat", "truncate"] {
            let config = config(
                dir.path(),
                &[
                    "train_loader.dataset.shuffle=false",
                    &format!("train_loader.dataset.group_method={method}"),
                    &encoding_type,
                ],
            );
            let rows = take(&mut open(&config), 2);
            let expected: Vec<_> = (0..8).flat_map(|i| ramp(i, 16)).collect();
            assert_eq!(tokens(&rows), expected, "{encoding}");
        }
    }
}

/// A dataset of `tokens` samples of `len` ids, one of them from `first` on, and the first error it gives. They are arrays,
/// or bytes where `overrides` say of what.
fn token_error(
    len: usize,
    first: i32,
    overrides: &[&str],
) -> (PathBuf, trainer::Result<TokenBatch>) {
    let dir = tempfile::tempdir().unwrap();
    let is_bytes = overrides.iter().any(|it| it.contains("token_encoding_type"));
    let encoding = match is_bytes {
        true => Encoding::Bytes,
        false => Encoding::NdArray { dtype: Some(DType::I32), shape: None },
    };
    let sample = |i: usize| {
        let ids: Vec<i32> = (0..len as i32).map(|k| if i == 2 { first + k } else { k }).collect();
        vec![match is_bytes {
            true => Value::Bytes(bytes_of(&ids, i32::to_le_bytes).into()),
            false => Value::NdArray(NdArray::from_i32(&ids)).into_owned(),
        }]
    };
    write(&dir.path().join("train"), &[("tokens", encoding)], (0..8).map(sample));
    let overrides: Vec<_> =
        overrides.iter().copied().chain(["train_loader.dataset.shuffle=false"]).collect();
    let outcome = open(&config(dir.path(), &overrides)).next_batch();
    (dir.path().join("train"), outcome)
}

#[test]
fn samples_that_are_longer_are_cut_and_shorter_ones_refused() {
    let (_, batch) = token_error(20, 0, &[]);
    assert_eq!(batch.unwrap().tokens[16..32], (0..16).collect::<Vec<_>>());
    let (path, error) = token_error(15, 0, &[]);
    assert_eq!(
        error.unwrap_err().to_string(),
        format!(
            "dataset {}, sample 0: 15 tokens are too few for a row of 16; convert the text with \
             --concat_tokens 16 or set max_seq_len=15",
            path.display()
        )
    );
}

#[test]
fn a_token_id_outside_the_vocabulary_is_named() {
    let bytes = ["train_loader.dataset.token_encoding_type=int32"];
    for (first, overrides, id, remedy) in [
        (
            4090,
            &[][..],
            4096,
            "raise model.vocab_size, or use the tokenizer that the dataset was made with",
        ),
        (-1, &[], -1, "convert the text again"),
        (
            -1,
            &bytes,
            -1,
            "set token_encoding_type to the type that they were written with, or convert the text again",
        ),
    ] {
        let (path, error) = token_error(16, first, overrides);
        assert_eq!(
            error.unwrap_err().to_string(),
            format!(
                "dataset {}, sample 2: token id {id} is not in the model's vocabulary of 4096; {remedy}",
                path.display()
            )
        );
    }
}

#[test]
fn datasets_that_do_not_fit_are_refused_when_they_are_opened() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |overrides: &[&str]| {
        TrainData::open(&config(dir.path(), overrides), &tokenizer(), Replica::single())
            .unwrap_err()
            .to_string()
            .replace(&dir.path().display().to_string(), "ROOT")
    };
    text_dataset(dir.path(), "train");
    assert_eq!(
        refused(&["model.vocab_size=4000"]),
        format!(
            "the tokenizer `{}` has ids up to 4095, but model.vocab_size is 4000; set it to at \
             least 4096",
            tokenizer().name()
        )
    );
    assert_eq!(
        refused(&["train_loader.dataset.group_method=truncate", "global_train_batch_size=60"]),
        "ROOT/train has 53 samples, fewer than one batch of 60, and train_loader.drop_last leaves \
         out a batch that is not full; lower global_train_batch_size or set \
         train_loader.drop_last=false"
    );
    assert_eq!(
        refused(&["train_loader.dataset.eos_token_id=7"]),
        "`train_loader.dataset.eos_token_id` is 7, but `train_loader.dataset.eos_text` does not put that token between \
         documents; set it to the text of the token, for example <|endoftext|>"
    );
    let tokens = Encoding::NdArray { dtype: Some(DType::I32), shape: None };
    let row = vec![Value::NdArray(NdArray::from_i32(&[1; 16])).into_owned()];
    write(&dir.path().join("tokens"), &[("tokens", tokens)], std::iter::repeat_n(row, 8));
    let streams =
        "train_loader.dataset={streams: {a: {remote: ROOT/train}, b: {remote: ROOT/tokens}}}"
            .replace("ROOT", dir.path().to_str().unwrap());
    assert_eq!(
        refused(&[&streams]),
        "ROOT/train and ROOT/tokens cannot be mixed: one has text, the other tokens in arrays; convert one of them as \
         the other was"
    );
    let columns = [("label", Encoding::Int), ("url", Encoding::Str)];
    let sample = || vec![Value::from(1_i64), Value::from("a").into_owned()];
    write(&dir.path().join("other"), &columns, (0..3).map(|_| sample()));
    assert_eq!(
        refused(&["train_loader.dataset.split=other"]),
        "ROOT/other has neither a `tokens` column nor a `text` column of str (its columns are \
         label (int), url (str)); write one of the two, as convert-c4 does"
    );
    let missing = refused(&["train_loader.dataset.split=nowhere"]);
    assert!(missing.contains("ROOT/nowhere") && !missing.contains('\n'), "{missing}");
}

#[test]
fn text_without_a_single_token_is_an_error_and_not_a_search_without_end() {
    let dir = tempfile::tempdir().unwrap();
    let samples = (0..5).map(|_| vec![Value::from("").into_owned()]);
    write(&dir.path().join("train"), &[("text", Encoding::Str)], samples);
    let error = open(&config(dir.path(), &[])).next_batch().unwrap_err().to_string();
    assert_eq!(
        error.replace(&dir.path().display().to_string(), "ROOT"),
        "ROOT/train has no tokens at all; convert a source that has text"
    );
}

#[test]
fn a_position_in_another_dataset_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    text_dataset(dir.path(), "train");
    let other = tempfile::tempdir().unwrap();
    let samples = (0..9).map(|_| vec![Value::from("another text").into_owned()]);
    write(&other.path().join("train"), &[("text", Encoding::Str)], samples);
    let mut there = open(&config(other.path(), &[]));
    there.next_batch().unwrap();
    let mut here = open(&config(dir.path(), &[]));
    let error = here.restore(there.state()).unwrap_err().to_string();
    let start = format!(
        "the checkpoint was made with another dataset than {}/train (index ",
        dir.path().display()
    );
    assert!(error.starts_with(&start), "{error}");
    assert!(error.ends_with(" here); train on that dataset"), "{error}");
}
