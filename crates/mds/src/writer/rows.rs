//! Encoding many samples on several threads.

use std::thread;

use crate::format::{Format, Schema, Value};
use crate::{Error, Result};

/// What one thread should encode before its samples are added, in bytes: enough to be worth a
/// thread, little enough to stay in its cache.
const BLOCK: usize = 1 << 20;

/// The samples that one thread encoded, back to back, up to the first that does not fit.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// Why the sample after these was refused.
    pub(super) refused: Option<Error>,
    /// The sample at hand.
    sample: Vec<u8>,
}

impl Encoded {
    /// The samples in order.
    pub(super) fn samples(&self) -> impl Iterator<Item = &[u8]> {
        let starts = [0].into_iter().chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.bytes[start..end])
    }

    fn fill<'v>(&mut self, format: &Format, schema: &Schema, rows: &[impl AsRef<[Value<'v>]>]) {
        self.bytes.clear();
        self.ends.clear();
        self.refused = None;
        for row in rows {
            if let Err(error) = format.encode_sample(schema, row.as_ref(), &mut self.sample) {
                self.refused = Some(error);
                return;
            }
            self.bytes.extend_from_slice(&self.sample);
            self.ends.push(self.bytes.len());
        }
    }
}

/// Encodes `rows` on up to `threads` threads and gives `add` what they encoded, in order, until it
/// fails. The buffers hold about [`BLOCK`] bytes for each thread, or one sample if it is larger.
pub(super) fn encode<'v>(
    format: &Format,
    schema: &Schema,
    mut rows: &[impl AsRef<[Value<'v>]> + Sync],
    threads: usize,
    mut add: impl FnMut(&mut Encoded) -> Result<()>,
) -> Result<()> {
    let mut buffers: Vec<Encoded> = (0..threads.max(1)).map(|_| Encoded::default()).collect();
    // Nothing is known of the first samples: they may be large.
    let mut rows_each = 1;
    while !rows.is_empty() {
        let (round, rest) = rows.split_at((rows_each * buffers.len()).min(rows.len()));
        rows = rest;
        let mut parts = buffers.iter_mut().zip(round.chunks(rows_each));
        thread::scope(|scope| {
            let first = parts.next();
            for (buffer, part) in parts {
                scope.spawn(move || buffer.fill(format, schema, part));
            }
            if let Some((buffer, part)) = first {
                buffer.fill(format, schema, part);
            }
        });
        let used = round.len().div_ceil(rows_each);
        let largest = buffers.iter().take(used).map(|buffer| buffer.bytes.len()).max();
        for buffer in buffers.iter_mut().take(used) {
            add(buffer)?;
        }
        rows_each = next_count(rows_each, largest.unwrap_or(0));
    }
    Ok(())
}

/// How many rows to give each thread after `rows` of them made `bytes` bytes.
fn next_count(rows: usize, bytes: usize) -> usize {
    let fitting = (rows as u64 * BLOCK as u64 / bytes.max(1) as u64).min(rows as u64 * 8);
    (fitting as usize).clamp(1, 1 << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_grow_towards_a_block_and_shrink_at_once() {
        assert_eq!(next_count(1, 100), 8);
        assert_eq!(next_count(8, 8 * 1000), 64);
        assert_eq!(next_count(512, 512 << 10), 1024);
        assert_eq!(next_count(512, 512 << 20), 1);
        assert_eq!(next_count(1, 10 << 20), 1);
        assert_eq!(next_count(1 << 16, 0), 1 << 16);
    }
}
