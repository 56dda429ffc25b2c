//! The text to write: records of two texts, each after its length as uint32 (little-endian).

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use crate::Result;

/// A document.
#[derive(Default)]
pub(crate) struct Document {
    pub(crate) text: String,
    pub(crate) url: String,
}

/// Reads documents one by one, each into the memory of the last.
pub(crate) struct Documents(BufReader<File>);

impl Documents {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Ok(Self(BufReader::with_capacity(1 << 20, File::open(path)?)))
    }

    /// Reads the next document. Returns whether there was one.
    pub(crate) fn next_into(&mut self, document: &mut Document) -> Result<bool> {
        let mut length = [0; 4];
        match self.0.read_exact(&mut length) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            other => other?,
        }
        self.read_text(length, &mut document.text)?;
        self.0.read_exact(&mut length)?;
        self.read_text(length, &mut document.url)?;
        Ok(true)
    }

    fn read_text(&mut self, length: [u8; 4], text: &mut String) -> Result<()> {
        text.clear();
        let length = u64::from(u32::from_le_bytes(length));
        self.0.by_ref().take(length).read_to_string(text)?;
        Ok(())
    }

    /// All documents.
    pub(crate) fn read_all(mut self) -> Result<Vec<Document>> {
        let mut all = Vec::new();
        let mut document = Document::default();
        while self.next_into(&mut document)? {
            all.push(std::mem::take(&mut document));
        }
        Ok(all)
    }
}
