//! What a run leaves in its folder: metrics.jsonl, TensorBoard event files and the loss curve, also
//! when it was killed and resumed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use trainer::config::Config;
use trainer::logging::MetricLogger;
use trainer::time::Timestamp;

fn config(folder: &Path, more: &str) -> Config {
    let yaml = format!(
        "
max_seq_len: 16
data_remote: ./c4
tokenizer_name: gpt2
run_name: a run
run_folder: {}
model: {{name: mosaic_gpt, d_model: 8, n_heads: 1, n_layers: 1, vocab_size: 4096}}
train_loader: {{name: text, dataset: {{split: train, group_method: concat}}}}
scheduler: {{name: constant_with_warmup, t_warmup: 0ba}}
optimizer: {{name: decoupled_adamw, lr: 0.1}}
max_duration: 40ba
global_train_batch_size: 4
log_to_console: false
{more}
",
        folder.display()
    );
    Config::from_yaml_str(&yaml, &[]).unwrap()
}

/// A loss that takes all bits of an f32, as a real one does.
fn loss(batch: u64) -> f64 {
    f64::from(8.0_f32 / (batch as f32 + 1.0).sqrt())
}

/// Logs the steps from `at` up to `last` done, with an evaluation every ten.
fn run(logger: &mut MetricLogger, at: &mut Timestamp, last: u64) {
    while at.batch < last {
        let start = *at;
        at.advance(4, 64);
        let at_start =
            [("trainer/grad_accum", 1_u64.into()), ("loss/train/total", loss(at.batch).into())];
        let at_end = [("trainer/global_step", at.batch.into()), ("state", "fine".into())];
        logger.log_step(&start, at, &at_start, &at_end).unwrap();
        if at.batch.is_multiple_of(10) {
            let metrics = [("metrics/eval/LanguageCrossEntropy", (loss(at.batch) + 0.5).into())];
            logger.log_eval(at, &metrics).unwrap();
        }
    }
}

fn open(config: &Config, resume_at: Option<&Timestamp>) -> MetricLogger {
    MetricLogger::open(config, resume_at, None).unwrap()
}

fn event_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The CRC-32C of the definition, bit by bit, then masked.
fn masked_crc(bytes: &[u8]) -> u32 {
    let crc = !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 }
        })
    });
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The payloads of the frames of an event file; every length and checksum must be right.
fn frames(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    fn take<'a>(bytes: &mut &'a [u8], n: usize) -> &'a [u8] {
        let (head, tail) = bytes.split_at(n);
        *bytes = tail;
        head
    }
    fn crc(bytes: &mut &[u8]) -> u32 {
        u32::from_le_bytes(take(bytes, 4).try_into().unwrap())
    }
    let mut payloads = Vec::new();
    while !bytes.is_empty() {
        let length = take(&mut bytes, 8);
        assert_eq!(crc(&mut bytes), masked_crc(length));
        let payload = take(&mut bytes, u64::from_le_bytes(length.try_into().unwrap()) as usize);
        assert_eq!(crc(&mut bytes), masked_crc(payload));
        payloads.push(payload.to_vec());
    }
    payloads
}

#[derive(Debug, PartialEq)]
enum Field {
    Number(u64),
    Bytes(Vec<u8>),
}

/// The fields of a protocol-buffers message.
fn fields(bytes: &[u8]) -> Vec<(u64, Field)> {
    fn varint(bytes: &[u8], at: &mut usize) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = bytes[*at];
            *at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }
    let (mut at, mut fields) = (0, Vec::new());
    while at < bytes.len() {
        let key = varint(bytes, &mut at);
        let length = match key & 7 {
            0 => {
                fields.push((key >> 3, Field::Number(varint(bytes, &mut at))));
                continue;
            }
            1 => 8,
            2 => varint(bytes, &mut at) as usize,
            5 => 4,
            other => panic!("wire type {other}"),
        };
        fields.push((key >> 3, Field::Bytes(bytes[at..at + length].to_vec())));
        at += length;
    }
    fields
}

fn bytes(fields: &[(u64, Field)], number: u64) -> Option<Vec<u8>> {
    fields.iter().find_map(|field| match field {
        (n, Field::Bytes(bytes)) if *n == number => Some(bytes.clone()),
        _ => None,
    })
}

/// `(step, tag, value)` of every scalar in an event file, and the step of its session start.
fn scalars(path: &Path) -> (Vec<(u64, String, f32)>, u64) {
    let mut found = Vec::new();
    let mut session = None;
    for (i, payload) in frames(&std::fs::read(path).unwrap()).iter().enumerate() {
        let event = fields(payload);
        let step = event.iter().find_map(|field| match field {
            (2, Field::Number(step)) => Some(*step),
            _ => None,
        });
        let step = step.unwrap_or(0);
        let wall_time = f64::from_le_bytes(bytes(&event, 1).unwrap().try_into().unwrap());
        assert!(wall_time > 1.7e9, "{wall_time}");
        assert_eq!(bytes(&event, 3), (i == 0).then(|| b"brain.Event:2".to_vec()));
        if let Some(log) = bytes(&event, 7) {
            assert_eq!(fields(&log), [(1, Field::Number(1))]);
            assert_eq!(session.replace(step), None);
        }
        for (_, value) in bytes(&event, 5).map(|summary| fields(&summary)).unwrap_or_default() {
            let Field::Bytes(value) = value else { panic!("a summary holds messages") };
            let value = fields(&value);
            let number = f32::from_le_bytes(bytes(&value, 2).unwrap().try_into().unwrap());
            found.push((step, String::from_utf8(bytes(&value, 1).unwrap()).unwrap(), number));
        }
    }
    (found, session.unwrap())
}

#[test]
fn event_files_are_frames_with_right_checksums_and_hold_every_number() {
    let dir = tempfile::tempdir().unwrap();
    let mut logger = open(&config(dir.path(), ""), None);
    run(&mut logger, &mut Timestamp::default(), 12);
    logger.finish().unwrap();
    let files = event_files(&dir.path().join("tensorboard"));
    assert_eq!(files.len(), 1);
    let name = files[0].file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("events.out.tfevents."), "{name}");
    let (scalars, session) = scalars(&files[0]);
    assert_eq!(session, 0);
    // Three numbers per step (text has no place in a chart) and one evaluation.
    assert_eq!(scalars.len(), 12 * 3 + 1);
    assert_eq!(scalars[1], (1, "loss/train/total".to_owned(), loss(1) as f32));
    assert_eq!(scalars[2], (1, "trainer/global_step".to_owned(), 1.0));
    assert!(scalars.contains(&(
        10,
        "metrics/eval/LanguageCrossEntropy".to_owned(),
        (loss(10) + 0.5) as f32
    )));
}

#[test]
fn a_killed_and_resumed_run_leaves_what_an_uninterrupted_one_does() {
    let whole = tempfile::tempdir().unwrap();
    let mut logger = open(&config(whole.path(), ""), None);
    run(&mut logger, &mut Timestamp::default(), 40);
    logger.finish().unwrap();

    let killed = tempfile::tempdir().unwrap();
    let config = config(killed.path(), "");
    let mut at = Timestamp::default();
    let mut logger = open(&config, None);
    run(&mut logger, &mut at, 20);
    logger.flush().unwrap().run().unwrap();
    let checkpoint = at;
    run(&mut logger, &mut at, 27);
    drop(logger);
    // Cut off in the middle of the last line.
    let metrics = killed.path().join("metrics.jsonl");
    let text = std::fs::read_to_string(&metrics).unwrap();
    std::fs::write(&metrics, &text[..text.len() - 9]).unwrap();

    let mut at = checkpoint;
    let mut logger = open(&config, Some(&at));
    run(&mut logger, &mut at, 40);
    logger.finish().unwrap();

    let lines = |dir: &Path| std::fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
    assert!(lines(killed.path()) == lines(whole.path()), "{}", lines(killed.path()));
    let records: Vec<Json> =
        lines(killed.path()).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), 40 + 4);
    for (record, line) in records.iter().zip(lines(killed.path()).lines()) {
        let batch = record["batch"].as_u64().unwrap();
        assert_eq!(record["token"], batch * 64);
        if record.get("loss/train/total").is_some() {
            // The shortest text that stands for exactly this number.
            assert!(line.contains(&format!("\"loss/train/total\":{:?},", loss(batch))), "{line}");
        }
    }

    let files = event_files(&killed.path().join("tensorboard"));
    assert_eq!(files.len(), 2, "one per process");
    let sessions: Vec<u64> = files.iter().map(|file| scalars(file).1).collect();
    assert_eq!(sessions, [0, 21], "the second takes back what the first logged from step 21 on");

    // The picture is drawn from all steps, those before the resumption included.
    let picture = |dir: &Path| std::fs::read_to_string(dir.join("loss_curve.svg")).unwrap();
    assert_eq!(picture(killed.path()), picture(whole.path()));
}

#[test]
fn destinations_can_be_turned_off() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), "loggers: {tensorboard: false, loss_curve: false}");
    let mut logger = open(&config, None);
    run(&mut logger, &mut Timestamp::default(), 3);
    logger.finish().unwrap();
    let names: Vec<_> = event_files(dir.path());
    assert_eq!(names, [".lock", "metrics.jsonl"].map(|name| dir.path().join(name)));
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = MetricLogger::open(&config(&file.join("run"), ""), None, None).unwrap_err();
    let start = format!("cannot create `{}`: ", file.join("run").display());
    assert!(error.to_string().starts_with(&start), "{error}");
}
