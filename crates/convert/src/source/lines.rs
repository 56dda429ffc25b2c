//! A stream of bytes to chunks of whole, numbered lines.

use std::io::{self, Read};

/// Enough lines to be worth handing to another thread.
const CHUNK_BYTES: usize = 256 << 10;

/// No document is this long; a file without line ends must not fill the memory.
const LONGEST_LINE: usize = 256 << 20;

/// Whole lines of one file.
#[derive(Debug)]
pub(crate) struct Chunk {
    first_line: u64,
    bytes: Vec<u8>,
}

impl Chunk {
    /// The lines that are not blank, with their numbers in the file, from 1.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let numbered = (self.first_line..).zip(self.bytes.split(|&b| b == b'\n'));
        numbered.map(|(n, line)| (n, line.trim_ascii())).filter(|(_, line)| !line.is_empty())
    }
}

/// Cuts a reader into [`Chunk`]s.
pub(crate) struct ChunkReader<R> {
    reader: R,
    /// The beginning of a line whose end has not been read.
    rest: Vec<u8>,
    next_line: u64,
}

impl<R: Read> ChunkReader<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, rest: Vec::new(), next_line: 1 }
    }

    /// The next lines of the file; `None` at its end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Chunk>> {
        let mut bytes = std::mem::take(&mut self.rest);
        loop {
            let old = bytes.len();
            let read = (&mut self.reader).take(CHUNK_BYTES as u64).read_to_end(&mut bytes)?;
            if read < CHUNK_BYTES {
                // The end of the file ends the last line too.
                return Ok((!bytes.is_empty()).then(|| self.chunk(bytes)));
            }
            if let Some(last) = bytes[old..].iter().rposition(|&b| b == b'\n') {
                self.rest = bytes.split_off(old + last + 1);
                return Ok(Some(self.chunk(bytes)));
            }
            if bytes.len() > LONGEST_LINE {
                let problem = format!("line {} is longer than 256 MiB", self.next_line);
                return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
            }
        }
    }

    fn chunk(&mut self, bytes: Vec<u8>) -> Chunk {
        let first_line = self.next_line;
        self.next_line += bytes.iter().filter(|&&b| b == b'\n').count() as u64;
        Chunk { first_line, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let mut reader = ChunkReader::new(text);
        let mut out = Vec::new();
        while let Some(chunk) = reader.next().unwrap() {
            out.extend(chunk.lines().map(|(n, line)| (n, line.to_vec())));
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
    fn a_line_longer_than_a_chunk_stays_whole() {
        let long = vec![b'x'; 3 * CHUNK_BYTES + 7];
        let text = [b"a\n".as_slice(), &long, b"\nb\n"].concat();
        assert_eq!(read(&text), [(1, b"a".to_vec()), (2, long), (3, b"b".to_vec())]);
    }
}
