//! The decoders of shards, which stop at the size that the index declares. A compressed file of
//! some kilobytes can expand to gigabytes; what it says about itself is never believed.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this is the place that caps what decoders write: reserve() allocates no more than \
              the declared size, and every decoder stops there"
)]

use std::cmp::Ordering;
use std::io::{self, Read};

use brotli::{BrotliResult, BrotliState, HeapAlloc, HuffmanCode};

use super::{Compression, MAX_SHARD_BYTES};
use crate::format::Damage;
use crate::{Error, Result};

/// No element of a Snappy block writes more bytes than this for each of its own: the best is a copy
/// of 64 bytes in 3.
const SNAPPY_MAX_RATIO: usize = 22;

/// More members of bzip2 than this are taken only if each holds a kilobyte.
const MANY_MEMBERS: u64 = 1000;

/// How much is decoded at a time, in bytes: it stays in the processor's cache until it is taken.
const PIECE: usize = 256 << 10;

/// Base 2 logarithm of the largest window that a decoder of zstd may keep: 8 MiB.
const WINDOW_LOG: u32 = 23;

/// See [`Compression::decompress`].
pub(super) fn decompress(compression: Compression, zip: &[u8], declared: u64) -> Result<Vec<u8>> {
    let mut raw = reserve(declared)?;
    let held = match compression {
        Compression::Br(_) => fill(BrotliReader::new(zip), declared, &mut raw),
        Compression::Bz2(_) => {
            bzip2_reader(zip, declared).and_then(|reader| fill(reader, declared, &mut raw))
        }
        Compression::Gz(_) => fill(flate2::bufread::MultiGzDecoder::new(zip), declared, &mut raw),
        Compression::Snappy => fill_snappy(zip, declared, &mut raw),
        Compression::Zstd(_) => fill_zstd(zip, &mut raw),
    };
    match held {
        Ok(held) => check_held(held, declared).map(|()| raw),
        Err(error) => Err(not_valid(compression, error)),
    }
}

fn check_held(held: u64, declared: u64) -> Result<()> {
    match held.cmp(&declared) {
        Ordering::Equal => Ok(()),
        Ordering::Less => Err(Damage::ZipHoldsLess { found: held, declared }.into()),
        Ordering::Greater => Err(Damage::ZipHoldsMore { declared }.into()),
    }
}

/// What kept a compressed file from being copied out: it is damaged, or its bytes were not taken.
enum Failure {
    Read(io::Error),
    Taken(Error),
}

/// See [`Compression::decompress_to`].
pub(super) fn decompress_to(
    compression: Compression,
    zip: &[u8],
    declared: u64,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let copied = match compression {
        Compression::Br(_) => copy(BrotliReader::new(zip), declared, &mut take),
        Compression::Bz2(_) => bzip2_reader(zip, declared)
            .map_err(Failure::Read)
            .and_then(|reader| copy(reader, declared, &mut take)),
        Compression::Gz(_) => copy(flate2::bufread::MultiGzDecoder::new(zip), declared, &mut take),
        // One block, each of whose parts may repeat any part before it.
        Compression::Snappy => return take(&decompress(compression, zip, declared)?),
        Compression::Zstd(_) => {
            let mut taken = 0;
            let copied = zstd_reader(zip).map_err(Failure::Read).and_then(|reader| {
                copy(reader, declared, |bytes| {
                    taken += bytes.len();
                    take(bytes)
                })
            });
            match copied {
                Err(Failure::Read(error)) if error.to_string().contains("too much memory") => {
                    return take(decompress(compression, zip, declared)?.split_at(taken).1);
                }
                copied => copied,
            }
        }
    };
    match copied {
        Ok(held) => check_held(held, declared),
        Err(Failure::Read(error)) => Err(not_valid(compression, error)),
        Err(Failure::Taken(error)) => Err(error),
    }
}

/// See [`Compression::decompress_unsized`].
pub(super) fn decompress_unsized(compression: Compression, zip: &[u8]) -> Result<Vec<u8>> {
    let not_valid = |error| not_valid(compression, error);
    let declared = match compression {
        // These say how much they hold, and are believed only as far as they can fill it.
        Compression::Snappy => snap::raw::decompress_len(zip).map_err(|e| not_valid(e.into()))?,
        Compression::Zstd(_) => {
            let size = zstd::zstd_safe::get_frame_content_size(zip).ok().flatten();
            usize::try_from(size.ok_or_else(|| not_valid(io::ErrorKind::InvalidData.into()))?)
                .unwrap_or(usize::MAX)
        }
        // The others are read to their end.
        _ => {
            let (mut raw, limit) = (Vec::new(), MAX_SHARD_BYTES);
            let held = match compression {
                Compression::Br(_) => fill(BrotliReader::new(zip), limit, &mut raw),
                Compression::Bz2(_) => {
                    fill(bzip2::bufread::MultiBzDecoder::new(zip), limit, &mut raw)
                }
                _ => fill(flate2::bufread::MultiGzDecoder::new(zip), limit, &mut raw),
            };
            return match held.map_err(not_valid)? {
                held if held <= limit => Ok(raw),
                _ => Err(Damage::ZipHoldsMore { declared: limit }.into()),
            };
        }
    };
    decompress(compression, zip, declared as u64)
}

/// An empty vector with room for exactly the declared bytes.
fn reserve(declared: u64) -> Result<Vec<u8>> {
    let capacity = usize::try_from(declared).ok().filter(|_| declared <= MAX_SHARD_BYTES);
    let capacity = capacity.ok_or(Damage::RawSize { declared })?;
    let mut raw = Vec::new();
    // Reserves address space only: pages that are not written take no memory, so that a wrong
    // declared size costs nothing.
    raw.try_reserve_exact(capacity).map_err(|error| {
        Error::io(
            io::Error::new(io::ErrorKind::OutOfMemory, error),
            format!("there is no memory for a shard of {declared} bytes"),
        )
    })?;
    Ok(raw)
}

/// Reads up to `declared` bytes into `raw`, which has room for them. Returns how many bytes the
/// file holds, or more than `declared` if it goes on after them.
fn fill(mut decoder: impl Read, declared: u64, raw: &mut Vec<u8>) -> io::Result<u64> {
    let held = decoder.by_ref().take(declared).read_to_end(raw)? as u64;
    // At the end, this is also what makes the decoder check sums and look for trailing bytes.
    let beyond = decoder.read(&mut [0])? as u64;
    Ok(held + beyond)
}

/// As [`fill`], but hands on the bytes piece by piece.
fn copy(
    mut decoder: impl Read,
    declared: u64,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<u64, Failure> {
    let mut buffer = vec![0; PIECE];
    let mut held = 0;
    while held < declared {
        let room = usize::try_from(declared - held).unwrap_or(PIECE).min(PIECE);
        match decoder.read(&mut buffer[..room]) {
            Ok(0) => break,
            Ok(read) => {
                take(&buffer[..read]).map_err(Failure::Taken)?;
                held += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::Read(error)),
        }
    }
    let beyond = decoder.read(&mut [0]).map_err(Failure::Read)? as u64;
    Ok(held + beyond)
}

/// Each member costs its decoder some megabytes of fresh memory, however little it
/// holds: a file of many tiny ones, which no compressor writes, would take hours.
fn bzip2_reader(zip: &[u8], declared: u64) -> io::Result<impl Read> {
    const BLOCK: &[u8] = b"1AY&SY";
    const END: &[u8] = b"\x17rE8P\x90";
    let begins_member = |bytes: &&[u8]| {
        bytes.starts_with(b"BZh") && bytes.get(4..).is_some_and(|b| b == BLOCK || b == END)
    };
    let members = zip.windows(10).filter(begins_member).count() as u64;
    if members > MANY_MEMBERS + declared / 1024 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "too many members"));
    }
    Ok(bzip2::bufread::MultiBzDecoder::new(zip))
}

/// As [`fill`]. A block says up front how large it is.
fn fill_snappy(zip: &[u8], declared: u64, raw: &mut Vec<u8>) -> io::Result<u64> {
    let held = snap::raw::decompress_len(zip)?;
    if held as u64 != declared {
        return Ok(held as u64);
    }
    // The decoder wants memory that is written already. What the file cannot fill is not touched.
    if held > zip.len().saturating_mul(SNAPPY_MAX_RATIO) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    raw.resize(held, 0);
    let held = snap::raw::Decoder::new().decompress(zip, raw)?;
    Ok(held as u64)
}

/// As [`fill`]. The decoder writes into the vector, no further than its capacity, and needs no
/// window of its own.
fn fill_zstd(zip: &[u8], raw: &mut Vec<u8>) -> io::Result<u64> {
    match zstd::bulk::Decompressor::new()?.decompress_to_buffer(zip, raw) {
        Ok(held) => Ok(held as u64),
        Err(error) if error.to_string().contains("too small") => Ok(u64::MAX),
        Err(error) => Err(error),
    }
}

/// Decodes piece by piece, with a window in memory. A frame that wants a larger one than shards of
/// levels up to 19 is an error that speaks of "too much memory".
fn zstd_reader(zip: &[u8]) -> io::Result<impl Read> {
    let mut reader = zstd::stream::read::Decoder::with_buffer(zip)?;
    reader.window_log_max(WINDOW_LOG)?;
    Ok(reader)
}

/// One Brotli stream that fills the whole slice. The crate's own reader would accept the
/// extension of large windows, which makes the decoder allocate up to 1 GiB.
struct BrotliReader<'a> {
    zip: &'a [u8],
    /// How many bytes of `zip` are decoded.
    position: usize,
    state: BrotliState<HeapAlloc<u8>, HeapAlloc<u32>, HeapAlloc<HuffmanCode>>,
    ended: bool,
}

impl<'a> BrotliReader<'a> {
    fn new(zip: &'a [u8]) -> Self {
        let code = HeapAlloc::new(HuffmanCode::default());
        let state = BrotliState::new_strict(HeapAlloc::new(0), HeapAlloc::new(0), code);
        Self { zip, position: 0, state, ended: false }
    }
}

impl Read for BrotliReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ended || buffer.is_empty() {
            return Ok(0);
        }
        let mut unread = self.zip.len() - self.position;
        let (mut room, mut written, mut total) = (buffer.len(), 0, 0);
        let result = brotli::BrotliDecompressStream(
            &mut unread,
            &mut self.position,
            self.zip,
            &mut room,
            &mut written,
            buffer,
            &mut total,
            &mut self.state,
        );
        match result {
            BrotliResult::ResultSuccess if unread > 0 => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "bytes follow the stream"))
            }
            BrotliResult::ResultSuccess => {
                self.ended = true;
                Ok(written)
            }
            BrotliResult::NeedsMoreInput if written == 0 => {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => Ok(written),
            BrotliResult::ResultFailure => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "the stream is damaged"))
            }
        }
    }
}

fn not_valid(compression: Compression, source: io::Error) -> Error {
    Error::from(Damage::NotValidZip { compression: compression.extension() }).with_source(source)
}
