//! A stream of bytes to chunks of whole, numbered lines.

use std::io::{self, Read};

use memchr::{memchr, memchr_iter, memrchr};
use xxhash_rust::xxh3::Xxh3;

use super::chunk::Chunk;

/// Enough lines to be worth handing to another thread.
const CHUNK_BYTES: usize = 256 << 10;

/// No document is this long; a file without line ends must not fill the memory.
const LONGEST_LINE: usize = 256 << 20;

/// Cuts a reader into [`Chunk`]s.
pub(crate) struct ChunkReader<R> {
    reader: R,
    /// The beginning of a line whose end has not been read.
    rest: Vec<u8>,
    /// Bytes and lines of the chunks so far.
    offset: u64,
    lines: u64,
    /// Of these bytes.
    hash: Xxh3,
}

impl<R: Read> ChunkReader<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, rest: Vec::new(), offset: 0, lines: 0, hash: Xxh3::new() }
    }

    /// Begins behind the first `offset` bytes, which are `lines` whole lines.
    pub(crate) fn skip(&mut self, offset: u64, lines: u64) -> io::Result<()> {
        let (skipped, hash) = hash_of(&mut self.reader, offset)?;
        self.hash = hash;
        if skipped < offset {
            let problem = format!("it ends after {skipped} bytes, before the place to go on at");
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        (self.offset, self.lines) = (offset, lines);
        Ok(())
    }

    /// Bytes and lines of the chunks so far, and the hash of these bytes.
    pub(crate) fn place(&self) -> (u64, u64, u64) {
        (self.offset, self.lines, self.hash.digest())
    }

    /// The next lines of the file; `None` at its end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Chunk>> {
        let mut bytes = std::mem::take(&mut self.rest);
        loop {
            let old = bytes.len();
            let read = fill(&mut self.reader, &mut bytes, CHUNK_BYTES)?;
            if read < CHUNK_BYTES {
                // The end of the file ends the last line too.
                return Ok((!bytes.is_empty()).then(|| self.chunk(bytes)));
            }
            if let Some(last) = memrchr(b'\n', &bytes[old..]) {
                self.rest = bytes.split_off(old + last + 1);
                return Ok(Some(self.chunk(bytes)));
            }
            if bytes.len() > LONGEST_LINE {
                self.hash.update(&bytes);
                return self.pass_over(bytes.len() as u64).map(Some);
            }
        }
    }

    /// Reads to the end of a line of which `read` bytes were read.
    fn pass_over(&mut self, mut read: u64) -> io::Result<Chunk> {
        let before = self.lines;
        loop {
            let mut bytes = Vec::new();
            let more = fill(&mut self.reader, &mut bytes, CHUNK_BYTES)?;
            let end = memchr(b'\n', &bytes);
            let of_line = end.map_or(more, |end| end + 1);
            self.hash.update(&bytes[..of_line]);
            read += of_line as u64;
            if end.is_some() || more < CHUNK_BYTES {
                self.rest = end.map_or_else(Vec::new, |end| bytes.split_off(end + 1));
                self.lines += 1;
                self.offset += read;
                return Ok(Chunk::long_line(before));
            }
        }
    }

    fn chunk(&mut self, bytes: Vec<u8>) -> Chunk {
        let lines_before = self.lines;
        self.lines += memchr_iter(b'\n', &bytes).count() as u64;
        self.offset += bytes.len() as u64;
        self.hash.update(&bytes);
        Chunk::lines(lines_before, bytes)
    }
}

/// Reads up to `count` bytes, and says how many there were and what their hash is.
pub(crate) fn hash_of(reader: &mut impl Read, count: u64) -> io::Result<(u64, Xxh3)> {
    let (mut hash, mut rest, mut bytes) = (Xxh3::new(), count, Vec::new());
    while rest > 0 {
        bytes.clear();
        let read =
            fill(reader, &mut bytes, CHUNK_BYTES.min(rest.try_into().unwrap_or(CHUNK_BYTES)))?;
        if read == 0 {
            break;
        }
        hash.update(&bytes);
        rest -= read as u64;
    }
    Ok((count - rest, hash))
}

/// Appends up to `count` bytes of `reader`, fewer only at its end, and returns how many.
fn fill(reader: &mut impl Read, bytes: &mut Vec<u8>, count: usize) -> io::Result<usize> {
    let start = bytes.len();
    bytes.resize(start + count, 0);
    let mut end = start;
    while end < bytes.len() {
        match reader.read(&mut bytes[end..]) {
            Ok(0) => break,
            Ok(read) => end += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(end);
    Ok(end - start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::chunk::Raw;

    fn lines_of(chunk: &Chunk) -> Vec<(u64, Vec<u8>)> {
        let line = |(n, raw)| match raw {
            Raw::Json(line) => (n, line.to_vec()),
            other => panic!("{other:?}"),
        };
        chunk.documents().map(line).collect()
    }

    fn read(text: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let mut reader = ChunkReader::new(text);
        let mut out = Vec::new();
        while let Some(chunk) = reader.next().unwrap() {
            out.extend(lines_of(&chunk));
        }
        out
    }

    #[test]
    fn blank_lines_count_but_are_left_out() {
        let lines = read(b"a\n\n b \r\nlast");
        assert_eq!(lines, [(1, b"a".to_vec()), (3, b"b".to_vec()), (4, b"last".to_vec())]);
        assert_eq!(read(b""), []);
        assert_eq!(read(b"\n\n"), []);
    }

    #[test]
    fn lines_keep_their_numbers_across_chunks() {
        let text: String = (1..=200_000).map(|n| format!("line {n}\n")).collect();
        assert!(text.len() > 4 * CHUNK_BYTES);
        let lines = read(text.as_bytes());
        assert_eq!(lines.len(), 200_000);
        for (n, line) in lines {
            assert_eq!(line, format!("line {n}").as_bytes());
        }
    }

    #[test]
    fn a_file_is_read_on_from_any_chunk() {
        let text: String = (1..=100_000).map(|n| format!("line {n}\n")).collect();
        let rest = |reader: &mut ChunkReader<&[u8]>| {
            let chunks = std::iter::from_fn(|| reader.next().unwrap());
            chunks.flat_map(|chunk| lines_of(&chunk)).collect::<Vec<_>>()
        };
        let mut reader = ChunkReader::new(text.as_bytes());
        reader.next().unwrap();
        let (offset, lines, hash) = reader.place();
        let expected = rest(&mut reader);
        assert_eq!(expected.first().unwrap().0, lines + 1);

        let mut again = ChunkReader::new(text.as_bytes());
        again.skip(offset, lines).unwrap();
        assert_eq!(again.place(), (offset, lines, hash));
        assert_eq!(rest(&mut again), expected);
        assert_eq!(again.place(), reader.place());
        let (offset, lines, _) = again.place();
        assert_eq!((offset, lines), (text.len() as u64, 100_000));
        let error = ChunkReader::new(&b"short"[..]).skip(9, 1).unwrap_err();
        assert_eq!(error.to_string(), "it ends after 5 bytes, before the place to go on at");
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over() {
        let long = io::repeat(b'x').take(LONGEST_LINE as u64 + 3 * CHUNK_BYTES as u64 + 5);
        let mut reader = ChunkReader::new(long.chain(&b"\nafter\n"[..]));
        let chunk = reader.next().unwrap().unwrap();
        assert_eq!(chunk.documents().collect::<Vec<_>>(), [(1, Raw::TooLong)]);
        let before = LONGEST_LINE as u64 + 3 * CHUNK_BYTES as u64 + 6;
        let (offset, lines, _) = reader.place();
        assert_eq!((offset, lines), (before, 1));
        let chunk = reader.next().unwrap().unwrap();
        assert_eq!(lines_of(&chunk), [(2, b"after".to_vec())]);
        assert!(reader.next().unwrap().is_none());
    }

    #[test]
    fn a_line_longer_than_a_chunk_stays_whole() {
        let long = vec![b'x'; 3 * CHUNK_BYTES + 7];
        let text = [b"a\n".as_slice(), &long, b"\nb\n"].concat();
        assert_eq!(read(&text), [(1, b"a".to_vec()), (2, long), (3, b"b".to_vec())]);
    }
}
