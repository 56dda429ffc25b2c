//! Text files, each of which is a document.

use std::io::{self, Read};

use super::chunk::Chunk;

/// No document is this long.
const LONGEST: u64 = 256 << 20;

/// All of the file.
pub(super) fn chunk(reader: impl Read) -> io::Result<Chunk> {
    let mut bytes = Vec::new();
    reader.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST {
        let problem = "the text is longer than 256 MiB, which no document may be";
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    Ok(Chunk::file(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::chunk::Raw;

    #[test]
    fn a_file_is_a_document_unless_it_is_too_long() {
        let chunk = super::chunk(&b"two\nlines\n"[..]).unwrap();
        assert_eq!(chunk.documents().collect::<Vec<_>>(), [(0, Raw::Bytes(b"two\nlines\n"))]);
        let error = super::chunk(io::repeat(b'x')).unwrap_err();
        assert_eq!(error.to_string(), "the text is longer than 256 MiB, which no document may be");
    }
}
