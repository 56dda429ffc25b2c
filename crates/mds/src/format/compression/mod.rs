//! Compression of whole shards: the codes and levels of `index.json`, and the compressors. The
//! decoders, which must not trust what they read, are in [`capped`].

mod capped;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::{Error, Result};

/// How the files of a shard are compressed. Written `CODE` or `CODE:LEVEL`, as in `index.json`.
///
/// The absence of a level is kept apart from the default level because the index repeats what was
/// asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// Brotli, one stream with a window of at most 4 MiB. The level, which Brotli calls quality,
    /// is 0 to 11, 11 if absent.
    Br(Option<u32>),
    /// bzip2, one member. The level is 1 to 9, 9 if absent.
    Bz2(Option<u32>),
    /// gzip, one member without a name or a time. The level is 0 to 9, 9 if absent.
    Gz(Option<u32>),
    /// Snappy, one raw block, not the framing format. Without levels.
    Snappy,
    /// Zstandard, one frame that records its size. The level is 1 to 22, 3 if absent.
    Zstd(Option<i32>),
}

/// The levels of a code, and the one used if none is given.
struct Levels {
    range: RangeInclusive<u32>,
    default: u32,
}

const BR_LEVELS: Levels = Levels { range: 0..=11, default: 11 };
const BZ2_LEVELS: Levels = Levels { range: 1..=9, default: 9 };
const GZ_LEVELS: Levels = Levels { range: 0..=9, default: 9 };
const ZSTD_LEVELS: Levels = Levels { range: 1..=22, default: 3 };

/// Base 2 logarithm of the window of the Brotli compressor, the default of Brotli's own tools.
const BR_WINDOW_BITS: i32 = 22;

/// Where the header of gzip holds a hint at the level.
const GZIP_HINT: usize = 8;

/// Offsets in a shard have 32 bits, so no shard is larger than this.
pub(crate) const MAX_SHARD_BYTES: u64 = u32::MAX as u64;

impl Compression {
    /// What follows the name of the raw file and a dot.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Br(_) => "br",
            Self::Bz2(_) => "bz2",
            Self::Gz(_) => "gz",
            Self::Snappy => "snappy",
            Self::Zstd(_) => "zstd",
        }
    }

    /// The compressed form of a whole file. Equal bytes give equal bytes: no time is recorded.
    ///
    /// # Errors
    /// `InvalidArgument` if the code has no such level, `Io` if the compressor runs out of memory
    /// or cannot take so many bytes.
    pub fn compress(self, raw: &[u8]) -> Result<Vec<u8>> {
        let mut zip = Vec::new();
        self.compress_into(raw, &mut zip)?;
        Ok(zip)
    }

    /// [`compress`](Self::compress) that replaces the contents of `zip`, whose memory zstd uses
    /// again.
    ///
    /// # Errors
    /// As [`compress`](Self::compress).
    pub(crate) fn compress_into(self, raw: &[u8], zip: &mut Vec<u8>) -> Result<()> {
        let compressed = match self {
            Self::Br(level) => brotli(raw, self.checked(level, &BR_LEVELS)?),
            Self::Bz2(level) => bzip2(raw, self.checked(level, &BZ2_LEVELS)?),
            Self::Gz(level) => gzip(raw, self.checked(level, &GZ_LEVELS)?),
            Self::Snappy => snap::raw::Encoder::new().compress_vec(raw).map_err(io::Error::from),
            Self::Zstd(level) => {
                // A negative level is as wrong as one that is too high.
                let level = level.map(|level| u32::try_from(level).unwrap_or(u32::MAX));
                let level = self.checked(level, &ZSTD_LEVELS)?;
                zstandard(raw, level.cast_signed(), std::mem::take(zip))
            }
        };
        *zip = compressed.map_err(|error| {
            Error::io(error, format!("cannot compress {} bytes with {self}", raw.len()))
        })?;
        Ok(())
    }

    /// The raw form of a compressed file that holds exactly `declared` bytes. Never writes more
    /// than that, whatever the file says.
    ///
    /// Several members of gzip and bzip2 and several frames of Zstandard are read as one; bytes
    /// that belong to none are damage.
    ///
    /// # Errors
    /// `Corrupt` if the file is damaged or does not hold `declared` bytes, `Io` if there is no
    /// memory for them.
    pub fn decompress(self, zip: &[u8], declared: u64) -> Result<Vec<u8>> {
        capped::decompress(self, zip, declared)
    }

    /// [`decompress`](Self::decompress) that hands the raw form to `take` piece by piece: nothing of
    /// its size is in memory, but for Snappy and for zstd from level 20 on.
    ///
    /// # Errors
    /// As [`decompress`](Self::decompress), which may be known only after most bytes are taken, and
    /// the first error of `take`.
    pub(crate) fn decompress_to(
        self,
        zip: &[u8],
        declared: u64,
        take: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        capped::decompress_to(self, zip, declared, take)
    }

    /// The raw form of a compressed file that a writer of this machine left without an index, and
    /// so without a declared size: at most the 4 GiB of any shard.
    ///
    /// # Errors
    /// As [`decompress`](Self::decompress).
    pub(crate) fn decompress_unsized(self, zip: &[u8]) -> Result<Vec<u8>> {
        capped::decompress_unsized(self, zip)
    }

    /// The level to use: `asked`, or the default.
    fn checked(self, asked: Option<u32>, levels: &Levels) -> Result<u32> {
        let level = asked.unwrap_or(levels.default);
        if levels.range.contains(&level) {
            Ok(level)
        } else {
            Err(no_such_level(&self.to_string(), levels.advice(self.extension())))
        }
    }
}

impl Levels {
    /// What to use instead of a level that does not exist.
    fn advice(&self, code: &str) -> String {
        format!("use {code}:{} to {code}:{}", self.range.start(), self.range.end())
    }
}

fn zstandard(raw: &[u8], level: i32, mut zip: Vec<u8>) -> io::Result<Vec<u8>> {
    zip.clear();
    zip.reserve(zstd::zstd_safe::compress_bound(raw.len()));
    zstd::bulk::Compressor::new(level)?.compress_to_buffer(raw, &mut zip)?;
    Ok(zip)
}

fn brotli(raw: &[u8], level: u32) -> io::Result<Vec<u8>> {
    let params = brotli::enc::BrotliEncoderParams {
        quality: level.cast_signed(),
        lgwin: BR_WINDOW_BITS,
        ..Default::default()
    };
    // The size is that of the buffer between the compressor and the vector.
    let mut encoder = brotli::CompressorWriter::with_params(Vec::new(), 1 << 16, &params);
    encoder.write_all(raw)?;
    Ok(encoder.into_inner())
}

fn bzip2(raw: &[u8], level: u32) -> io::Result<Vec<u8>> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::new(level));
    encoder.write_all(raw)?;
    encoder.finish()
}

fn gzip(raw: &[u8], level: u32) -> io::Result<Vec<u8>> {
    // The header of the builder holds neither a time nor a name nor an operating system.
    let mut encoder = flate2::GzBuilder::new().write(Vec::new(), flate2::Compression::new(level));
    encoder.write_all(raw)?;
    let mut zip = encoder.finish()?;
    if level == 0
        && let Some(hint) = zip.get_mut(GZIP_HINT)
    {
        // The crate calls level 0 the fastest compression, Python none at all.
        *hint = 0;
    }
    Ok(zip)
}

fn no_such_level(text: &str, advice: String) -> Error {
    Error::invalid(format!("the compression {text:?} has no such level"), advice)
}

fn no_such_code(text: &str) -> Error {
    Error::unsupported(
        format!("there is no compression {text:?}"),
        "use br, bz2, gz, snappy or zstd, with a level where there is one (zstd:7), or no \
         compression",
    )
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.extension())?;
        match self {
            Self::Br(Some(level)) | Self::Bz2(Some(level)) | Self::Gz(Some(level)) => {
                write!(f, ":{level}")
            }
            Self::Zstd(Some(level)) => write!(f, ":{level}"),
            Self::Br(None) | Self::Bz2(None) | Self::Gz(None) | Self::Zstd(None) | Self::Snappy => {
                Ok(())
            }
        }
    }
}

impl FromStr for Compression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (code, level) = match text.split_once(':') {
            Some((code, level)) => (code, Some(level)),
            None => (text, None),
        };
        let (levels, with_level): (_, fn(Option<u32>) -> Self) = match code {
            "br" => (BR_LEVELS, Self::Br),
            "bz2" => (BZ2_LEVELS, Self::Bz2),
            "gz" => (GZ_LEVELS, Self::Gz),
            "zstd" => (ZSTD_LEVELS, |level| Self::Zstd(level.map(u32::cast_signed))),
            "snappy" if level.is_none() => return Ok(Self::Snappy),
            "snappy" => return Err(no_such_level(text, "use snappy".to_owned())),
            _ => return Err(no_such_code(text)),
        };
        let Some(level) = level else { return Ok(with_level(None)) };
        let parsed = level.parse().ok().filter(|parsed: &u32| {
            // The name has one spelling: "zstd:07" and "zstd:+7" are not levels.
            levels.range.contains(parsed) && parsed.to_string() == level
        });
        match parsed {
            Some(level) => Ok(with_level(Some(level))),
            None => Err(no_such_level(text, levels.advice(code))),
        }
    }
}
