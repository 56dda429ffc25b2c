//! Text files, each of which is a document.

use std::io::{self, Read};

use super::chunk::Chunk;
use crate::error::{Error, ErrorKind, Result};

/// No document is this long.
const LONGEST: u64 = 256 << 20;

/// All of the file; if it is too long, that it is.
pub(super) fn chunk(reader: impl Read) -> io::Result<Chunk> {
    let mut bytes = Vec::new();
    reader.take(LONGEST + 1).read_to_end(&mut bytes)?;
    let is_too_long = bytes.len() as u64 > LONGEST;
    Ok(if is_too_long { Chunk::long_file() } else { Chunk::file(bytes) })
}

/// What is wrong with the file `name` in place of its text: the next one is read in any case, if this one may be left out.
///
/// # Errors
/// The same if the disk or the remote is at fault.
pub(super) fn unreadable(error: Error, name: &str) -> Result<Chunk> {
    match error.kind() {
        ErrorKind::Corrupt | ErrorKind::InvalidArgument => {
            let (problem, remedy) = error.about(name);
            Ok(Chunk::bad_file(problem.to_owned(), remedy.to_owned()))
        }
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::chunk::Raw;

    #[test]
    fn a_file_is_a_document_unless_it_is_too_long() {
        let chunk = super::chunk(&b"two\nlines\n"[..]).unwrap();
        assert_eq!(chunk.documents().collect::<Vec<_>>(), [(0, Raw::Bytes(b"two\nlines\n"))]);
        let chunk = super::chunk(io::repeat(b'x')).unwrap();
        assert_eq!(chunk.documents().collect::<Vec<_>>(), [(0, Raw::TooLong)]);
    }
}
