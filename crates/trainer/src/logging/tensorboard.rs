//! TensorBoard event files, written directly.
//!
//! A file is a sequence of TFRecord frames: the length (u64), a masked CRC-32C of it, the payload,
//! a masked CRC-32C of that, all little-endian. A payload is an `Event` message:
//!
//! | field | | |
//! |---|---|---|
//! | 1 | `wall_time` | double, seconds since 1970 |
//! | 2 | `step` | varint |
//! | 3 | `file_version` | text, `brain.Event:2`, in the first event only |
//! | 5 | `summary` | repeated value 1: tag (1, text), simple_value (2, float) |
//! | 7 | `session_log` | status (1, varint): 1 = START |
//!
//! Every process starts a file of its own. Its START event makes TensorBoard drop what earlier
//! files of the folder hold from that step on, so that a resumed run shows no step twice.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Metric, Value};
use crate::error::{Error, Result};

const FILE_VERSION: &str = "brain.Event:2";
/// Of the names of event files.
const PREFIX: &str = "events.out.tfevents.";
const SESSION_START: u64 = 1;

/// Removes the event files of an earlier run from `folder`, if there are any.
pub(super) fn clear(folder: &Path) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            std::fs::remove_file(entry.path()).map_err(Error::io("remove", entry.path()))?;
        }
    }
    Ok(())
}

/// The event file of this process.
#[derive(Debug)]
pub(super) struct EventFile {
    file: File,
    path: PathBuf,
}

impl EventFile {
    /// Creates a new event file in `folder` for a process whose first event is at `first_step`.
    pub(super) fn create(folder: &Path, first_step: u64) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let (file, path) = create_new(folder)?;
        let mut events = Self { file, path };
        let mut version = Message::event(now(), 0);
        version.bytes(3, FILE_VERSION.as_bytes());
        let mut session = Message::default();
        session.varint(1, SESSION_START);
        let mut start = Message::event(now(), first_step);
        start.bytes(7, &session.0);
        events.append(&[frame(&version.0), frame(&start.0)].concat())?;
        Ok(events)
    }

    /// Logs the numbers among `metrics` as one event at `step`.
    pub(super) fn log<'a>(
        &mut self,
        step: u64,
        metrics: impl Iterator<Item = &'a Metric<'a>>,
    ) -> Result<()> {
        let mut summary = Message::default();
        for (tag, value) in metrics {
            let number = match value {
                Value::Float(number) => *number as f32,
                Value::Int(number) => *number as f32,
                Value::Text(_) => continue,
            };
            let mut entry = Message::default();
            entry.bytes(1, tag.as_bytes());
            entry.float(2, number);
            summary.bytes(1, &entry.0);
        }
        let mut event = Message::event(now(), step);
        event.bytes(5, &summary.0);
        self.append(&frame(&event.0))
    }

    /// One write per event, so that a killed process leaves at most its last frame incomplete.
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::io("write", &self.path))
    }
}

/// `events.out.tfevents.SECONDS.HOST.PROCESS.NUMBER`, a name that is not taken yet.
fn create_new(folder: &Path) -> Result<(File, PathBuf)> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = match host.trim() {
        "" => "localhost",
        host => host,
    };
    let (seconds, process) = (now() as u64, std::process::id());
    let mut number = 0;
    loop {
        let path = folder.join(format!("{PREFIX}{seconds:010}.{host}.{process}.{number}"));
        match OpenOptions::new().append(true).create_new(true).open(&path) {
            Ok(file) => return Ok((file, path)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(Error::io("create", path)(error)),
        }
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// A protocol-buffers message under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn event(wall_time: f64, step: u64) -> Self {
        let mut event = Self::default();
        event.key(1, 1);
        event.0.extend(wall_time.to_le_bytes());
        // A zero is the default and not written, as in every protocol-buffers library.
        if step != 0 {
            event.varint(2, step);
        }
        event
    }

    fn key(&mut self, field: u64, wire_type: u64) {
        self.raw_varint(field << 3 | wire_type);
    }

    fn raw_varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn varint(&mut self, field: u64, value: u64) {
        self.key(field, 0);
        self.raw_varint(value);
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.key(field, 2);
        self.raw_varint(value.len() as u64);
        self.0.extend(value);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
    }
}

/// One TFRecord frame.
fn frame(payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u64).to_le_bytes();
    [&length[..], &masked_crc(&length).to_le_bytes(), payload, &masked_crc(payload).to_le_bytes()]
        .concat()
}

/// The CRC, rotated and shifted, so that a CRC over data that holds CRCs stays meaningful.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_frame_is_the_one_every_event_file_starts_with() {
        // Length 24 and its checksum, as in any file that TensorFlow wrote.
        let mut version = Message::event(0.0, 0);
        version.bytes(3, FILE_VERSION.as_bytes());
        assert_eq!(frame(&version.0)[..13], *b"\x18\0\0\0\0\0\0\0\xa3\x7fK\"\t");
        // The check value of CRC-32C, masked by hand.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(masked_crc(b"123456789"), 0xc78a_b0e5);
    }

    #[test]
    fn two_processes_never_share_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<_> =
            (0..3).map(|_| EventFile::create(dir.path(), 0).unwrap().path).collect();
        assert!(names[0] != names[1] && names[1] != names[2] && names[0] != names[2]);
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 3);
    }
}
