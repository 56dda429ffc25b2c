//! Compression of whole shards.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::{Error, Result};

/// How the files of a shard are compressed. Written `CODE` or `CODE:LEVEL`, as in `index.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// Zstandard, one frame that records its size. The level is 1 to 22, 3 if absent; absence is
    /// kept apart because the index repeats what was asked for.
    Zstd(Option<i32>),
}

const ZSTD_LEVELS: RangeInclusive<i32> = 1..=22;
const ZSTD_DEFAULT_LEVEL: i32 = 3;

/// Codes of the reference that this version knows by name only.
const KNOWN_UNSUPPORTED: [&str; 4] = ["br", "bz2", "gz", "snappy"];

/// Offsets in a shard have 32 bits, so no shard is larger than this.
pub(crate) const MAX_SHARD_BYTES: u64 = u32::MAX as u64;

impl Compression {
    /// What follows the name of the raw file and a dot.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Zstd(_) => "zstd",
        }
    }

    /// The compressed form of a whole file.
    ///
    /// # Errors
    /// `Io` if the compressor runs out of memory.
    pub fn compress(self, raw: &[u8]) -> Result<Vec<u8>> {
        let Self::Zstd(level) = self;
        let level = level.unwrap_or(ZSTD_DEFAULT_LEVEL);
        zstd::bulk::compress(raw, level).map_err(|error| {
            Error::io(error, format!("cannot compress {} bytes with {self}", raw.len()))
        })
    }

    /// The raw form of a compressed file that holds exactly `declared` bytes. Never writes more
    /// than that, whatever the file says.
    ///
    /// # Errors
    /// `Corrupt` if the file is damaged or does not hold `declared` bytes, `Io` if there is no
    /// memory for them.
    pub fn decompress(self, zip: &[u8], declared: u64) -> Result<Vec<u8>> {
        let Self::Zstd(_) = self;
        let mut raw = Vec::new();
        let capacity = usize::try_from(declared).ok().filter(|_| declared <= MAX_SHARD_BYTES);
        let Some(capacity) = capacity else {
            return Err(corrupt(format!(
                "the index declares a raw size of {declared} bytes, more than any shard can have"
            )));
        };
        // Reserves address space only: pages that are not written take no memory, so that a wrong
        // declared size costs nothing.
        raw.try_reserve_exact(capacity).map_err(|error| {
            Error::io(
                std::io::Error::new(std::io::ErrorKind::OutOfMemory, error),
                format!("there is no memory for a shard of {declared} bytes"),
            )
        })?;
        let written = zstd::bulk::Decompressor::new()
            .and_then(|mut decompressor| decompressor.decompress_to_buffer(zip, &mut raw));
        match written {
            Ok(_) if raw.len() == capacity => Ok(raw),
            Ok(_) if raw.len() < capacity => Err(corrupt(format!(
                "the compressed file holds {} bytes, but the index declares {declared}",
                raw.len()
            ))),
            Ok(_) => Err(holds_more(declared)),
            Err(error) if error.to_string().contains("too small") => Err(holds_more(declared)),
            Err(error) => {
                Err(corrupt(format!("the compressed file is not valid {}", self.extension()))
                    .with_source(error))
            }
        }
    }
}

fn holds_more(declared: u64) -> Error {
    corrupt(format!(
        "the compressed file holds more than the {declared} bytes that the index declares"
    ))
}

fn corrupt(what: impl Into<String>) -> Error {
    Error::corrupt(what, "fetch the shard again, or write it again from its source")
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Zstd(level) = self;
        f.write_str("zstd")?;
        level.map_or(Ok(()), |level| write!(f, ":{level}"))
    }
}

impl FromStr for Compression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (code, level) = match text.split_once(':') {
            Some((code, level)) => (code, Some(level)),
            None => (text, None),
        };
        if KNOWN_UNSUPPORTED.contains(&code) {
            return Err(Error::unsupported(
                format!("the compression {text:?} cannot be read or written by this version"),
                "use zstd, or no compression",
            ));
        }
        if code != "zstd" {
            return Err(Error::unsupported(
                format!("there is no compression {text:?}"),
                "use zstd, zstd:1 to zstd:22, or no compression",
            ));
        }
        let Some(level) = level else { return Ok(Self::Zstd(None)) };
        let parsed = level.parse().ok().filter(|parsed: &i32| {
            // The name has one spelling: "zstd:07" and "zstd:+7" are not levels.
            ZSTD_LEVELS.contains(parsed) && parsed.to_string() == level
        });
        parsed.map(|level| Self::Zstd(Some(level))).ok_or_else(|| {
            Error::invalid(
                format!("the compression {text:?} has no such level"),
                "use zstd:1 to zstd:22",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    const REMEDY: &str = "fetch the shard again, or write it again from its source";

    #[test]
    fn names_round_trip() {
        for name in ["zstd", "zstd:1", "zstd:22"] {
            let compression: Compression = name.parse().unwrap();
            assert_eq!(compression.to_string(), name);
            assert_eq!(compression.extension(), "zstd");
        }
    }

    #[test]
    fn other_names_are_refused() {
        let message = |name: &str| name.parse::<Compression>().unwrap_err().to_string();
        for name in ["br", "br:11", "bz2", "gz:5", "snappy"] {
            assert_eq!(
                message(name),
                format!(
                    "the compression {name:?} cannot be read or written by this version; use \
                     zstd, or no compression"
                )
            );
        }
        assert_eq!(
            message("lz4"),
            "there is no compression \"lz4\"; use zstd, zstd:1 to zstd:22, or no compression"
        );
        for name in ["zstd:", "zstd:0", "zstd:23", "zstd:07", "zstd:+7", "zstd:-1", "zstd:x"] {
            assert_eq!(
                message(name),
                format!("the compression {name:?} has no such level; use zstd:1 to zstd:22")
            );
        }
    }

    #[test]
    fn files_round_trip_in_one_frame_with_its_size() {
        let raw: Vec<u8> = (0..10_000u32).flat_map(|i| (i % 251).to_le_bytes()).collect();
        for level in [None, Some(1), Some(22)] {
            let zip = Compression::Zstd(level).compress(&raw).unwrap();
            assert!(zip.len() < raw.len());
            let size = zstd::zstd_safe::get_frame_content_size(&zip).unwrap();
            assert_eq!(size, Some(raw.len() as u64));
            assert_eq!(zstd::zstd_safe::find_frame_compressed_size(&zip).unwrap(), zip.len());
            let back = Compression::Zstd(level).decompress(&zip, raw.len() as u64).unwrap();
            assert_eq!(back, raw);
        }
    }

    /// Frames without a size, and several of them, are legal input.
    #[test]
    fn other_writers_frames_are_read() {
        let frame = |bytes: &[u8]| zstd::stream::encode_all(bytes, 1).unwrap();
        let zip = [frame(b"one, "), frame(b"two")].concat();
        assert_eq!(Compression::Zstd(None).decompress(&zip, 8).unwrap(), b"one, two");
    }

    #[test]
    fn wrong_sizes_and_damage_are_corrupt() {
        let zstd = Compression::Zstd(None);
        let zip = zstd.compress(&[7; 1000]).unwrap();
        let message = |zip: &[u8], declared| {
            let error = zstd.decompress(zip, declared).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            error.to_string()
        };
        assert_eq!(
            message(&zip, 1001),
            format!("the compressed file holds 1000 bytes, but the index declares 1001; {REMEDY}")
        );
        for declared in [0, 1, 999] {
            assert_eq!(
                message(&zip, declared),
                format!(
                    "the compressed file holds more than the {declared} bytes that the index \
                     declares; {REMEDY}"
                )
            );
        }
        assert_eq!(
            message(&zip, u64::MAX),
            format!(
                "the index declares a raw size of 18446744073709551615 bytes, more than any shard \
                 can have; {REMEDY}"
            )
        );
        for damaged in [&zip[..zip.len() - 1], &zip[1..], b"not zstd at all"] {
            assert_eq!(
                message(damaged, 1000),
                format!("the compressed file is not valid zstd; {REMEDY}")
            );
        }
    }

    /// Some kilobytes that expand to 128 MiB stop at the declared size.
    #[test]
    fn bombs_stop_at_the_declared_size() {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        for _ in 0..128 {
            std::io::Write::write_all(&mut encoder, &[0; 1 << 20]).unwrap();
        }
        let bomb = encoder.finish().unwrap();
        assert!(bomb.len() < 100_000);
        let error = Compression::Zstd(None).decompress(&bomb, 1000).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "the compressed file holds more than the 1000 bytes that the index declares; \
                 {REMEDY}"
            )
        );
    }
}
