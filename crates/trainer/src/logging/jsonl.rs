//! `metrics.jsonl`: one JSON object per step or evaluation, one line each.
//!
//! ```json
//! {"epoch":0,"batch":8,"sample":2048,"token":4194304,"loss/train/total":9.7484}
//! ```
//!
//! `batch` counts the steps done. A line is written in one piece, so a killed run leaves at most
//! its last line incomplete; a resumed run first takes back every line after its checkpoint.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json};

use super::{Metric, Value};
use crate::error::{Error, Result};
use crate::time::Timestamp;

/// The file, opened with the first record: a run that ends before has not replaced an earlier one's.
#[derive(Debug)]
pub(super) struct JsonLines {
    file: Option<File>,
    path: PathBuf,
    /// What the file begins with: the lines that are kept of it.
    begin: Vec<u8>,
}

impl JsonLines {
    /// Will write to `path`, and returns the records that it keeps: with `resume_at` those
    /// up to that position, without it none.
    pub(super) fn open(path: PathBuf, resume_at: Option<&Timestamp>) -> Result<(Self, Vec<Json>)> {
        let kept = match resume_at {
            None => (Vec::new(), Vec::new()),
            Some(at) => kept_lines(&path, at.batch)?,
        };
        let (begin, kept) = kept;
        Ok((Self { file: None, path, begin }, kept))
    }

    pub(super) fn log<'a>(
        &mut self,
        at: &Timestamp,
        metrics: impl Iterator<Item = &'a Metric<'a>>,
    ) -> Result<()> {
        let mut line = record(at, metrics).to_string();
        line.push('\n');
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                mds::durable::replace(&self.path, &self.begin)
                    .map_err(Error::io("write", &self.path))?;
                let file = OpenOptions::new().append(true).open(&self.path);
                none.insert(file.map_err(Error::io("open", &self.path))?)
            }
        };
        file.write_all(line.as_bytes()).map_err(Error::io("write", &self.path))
    }

    /// The file, to be [synced](sync) where that holds nobody up; `None` before the first record.
    pub(super) fn to_sync(&self) -> Result<Option<(File, PathBuf)>> {
        let Some(file) = &self.file else { return Ok(None) };
        let file = file.try_clone().map_err(Error::io("write", &self.path))?;
        Ok(Some((file, self.path.clone())))
    }
}

/// Waits until everything logged is on the disk.
pub(super) fn sync(file: &File, path: &Path) -> Result<()> {
    file.sync_data().map_err(Error::io("write", path))
}

/// The complete records of the file at `path` that belong to the first `batches` steps, as they
/// stand there (a number that is parsed and written again may lose its last bit) and parsed. A
/// missing file has none.
fn kept_lines(path: &Path, batches: u64) -> Result<(Vec<u8>, Vec<Json>)> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    let (mut text, mut records) = (Vec::new(), Vec::new());
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let Ok(record) = serde_json::from_slice::<Json>(line) else { continue };
        let batch = record.get("batch").and_then(Json::as_u64);
        if line.ends_with(b"\n") && batch.is_some_and(|batch| batch <= batches) {
            text.extend_from_slice(line);
            records.push(record);
        }
    }
    Ok((text, records))
}

fn record<'a>(at: &Timestamp, metrics: impl Iterator<Item = &'a Metric<'a>>) -> Json {
    let mut map = Map::new();
    let position =
        [("epoch", at.epoch), ("batch", at.batch), ("sample", at.sample), ("token", at.token)];
    for (name, count) in position {
        map.insert(name.to_owned(), count.into());
    }
    for (name, value) in metrics {
        map.insert((*name).to_owned(), value.into());
    }
    Json::Object(map)
}

/// JSON has no number for infinity or "not a number": they are written as text, not lost.
impl From<&Value> for Json {
    fn from(value: &Value) -> Self {
        match value {
            Value::Float(number) if number.is_finite() => Self::from(*number),
            Value::Float(number) => Self::from(number.to_string()),
            Value::Int(number) => Self::from(*number),
            Value::Text(text) => Self::from(text.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(batch: u64) -> Timestamp {
        Timestamp { epoch: 0, batch, batch_in_epoch: batch, sample: 2 * batch, token: 20 * batch }
    }

    fn log(lines: &mut JsonLines, batch: u64, loss: f64) {
        lines.log(&at(batch), [("loss", loss.into())].iter()).unwrap();
    }

    #[test]
    fn a_resumed_run_logs_every_step_once_and_to_the_last_bit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let loss = |batch: u64| f64::from((10.0_f32 / (batch + 3) as f32).sqrt());

        let (mut whole, _) = JsonLines::open(path.clone(), None).unwrap();
        (1..=6).for_each(|batch| log(&mut whole, batch, loss(batch)));
        let uninterrupted = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            uninterrupted.lines().next().unwrap(),
            format!("{{\"epoch\":0,\"batch\":1,\"sample\":2,\"token\":20,\"loss\":{}}}", loss(1))
        );

        let (mut first, _) = JsonLines::open(path.clone(), None).unwrap();
        (1..=5).for_each(|batch| log(&mut first, batch, loss(batch)));
        // Killed in the middle of a line, two steps after the checkpoint at step 3.
        first.file.as_mut().unwrap().write_all(b"{\"epoch\":0,\"bat").unwrap();
        drop(first);
        let (mut second, kept) = JsonLines::open(path.clone(), Some(&at(3))).unwrap();
        assert_eq!(kept.len(), 3);
        (4..=6).for_each(|batch| log(&mut second, batch, loss(batch)));
        let (file, path) = second.to_sync().unwrap().unwrap();
        sync(&file, &path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), uninterrupted);
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
    }

    #[test]
    fn a_fresh_run_starts_a_fresh_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        std::fs::write(&path, "{\"batch\":1}\n").unwrap();
        let (mut lines, kept) = JsonLines::open(path.clone(), None).unwrap();
        assert!(kept.is_empty());
        // What is there is replaced with the first record, not before.
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"batch\":1}\n");
        log(&mut lines, 1, 0.5);
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("{\"epoch\":0,\"batch\":1,"));
        // Resuming without the file, as after moving a checkpoint to another machine.
        std::fs::remove_file(&path).unwrap();
        assert!(JsonLines::open(path, Some(&at(3))).unwrap().1.is_empty());
    }

    #[test]
    fn what_json_has_no_number_for_is_kept_as_text() {
        let metrics = [("a", f64::NAN.into()), ("b", f64::INFINITY.into()), ("c", 7_u64.into())];
        assert_eq!(
            record(&at(0), metrics.iter()).to_string(),
            "{\"epoch\":0,\"batch\":0,\"sample\":0,\"token\":0,\"a\":\"NaN\",\"b\":\"inf\",\"c\":7}"
        );
    }
}
