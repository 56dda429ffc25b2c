//! What sources are cut into for the threads: some documents at a time, as they are stored.

use std::fmt;

use arrow_array::BinaryArray;
use memchr::memchr_iter;
use serde::{Deserialize, Serialize};

/// What a source counts, so that a message can say which one is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Of a file of lines.
    Line,
    /// Of a table.
    Row,
    /// Of a streaming dataset.
    Sample,
    /// Of an indexed dataset.
    Document,
    /// A file that is one document.
    File,
}

impl Unit {
    /// What it is called.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Line => "line",
            Self::Row => "row",
            Self::Sample => "sample",
            Self::Document => "document",
            Self::File => "file",
        }
    }
}

/// A document that cannot be read, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadDocument {
    /// The file's name.
    pub file: String,
    /// What is counted.
    pub unit: Unit,
    /// Its number in the uncompressed file: from 1 of lines, else from 0.
    pub number: u64,
    /// What is wrong with it.
    pub problem: String,
}

impl fmt::Display for BadDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, unit, number, problem } = self;
        match unit {
            Unit::File => write!(f, "{file}: {problem}"),
            unit => write!(f, "{file}, {} {number}: {problem}", unit.noun()),
        }
    }
}

/// One document as a source stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Raw<'a> {
    /// A JSON object.
    Json(&'a [u8]),
    /// Text, perhaps not in UTF-8.
    Bytes(&'a [u8]),
    /// Token ids.
    Ids(&'a [u32]),
    /// Nothing, where there should be text.
    Null,
    /// A line or file that is longer than any document may be, and was passed over.
    TooLong,
    /// A file that is damaged, or packed in a way that is not unpacked.
    Unreadable {
        /// What is wrong with it.
        problem: &'a str,
        /// What to do about it.
        remedy: &'a str,
    },
}

/// Documents of one file that follow one another.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// Units of the file before these.
    before: u64,
    documents: Documents,
}

#[derive(Debug)]
enum Documents {
    /// Whole lines.
    Lines(Vec<u8>),
    /// One line that is not here.
    LongLine,
    /// All of a file.
    File(Vec<u8>),
    /// A file that is not here.
    LongFile,
    /// A file, what is wrong with it, and what to do about it.
    BadFile(String, String),
    /// Of a table.
    Rows(BinaryArray),
    /// Of a streaming dataset.
    Texts(Joined<u8>),
    Ids(Unit, Joined<u32>),
}

/// Lists back to back.
#[derive(Debug, Default)]
pub(crate) struct Joined<T> {
    items: Vec<T>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl<T> Joined<T> {
    pub(crate) fn push(&mut self, items: impl IntoIterator<Item = T>) {
        self.items.extend(items);
        self.ends.push(self.items.len());
    }

    /// How many items all lists have.
    pub(crate) fn items(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[T]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.items[start..end])
    }
}

impl Chunk {
    /// Whole lines after the first `before` ones of their file.
    pub(crate) fn lines(before: u64, bytes: Vec<u8>) -> Self {
        Self { before, documents: Documents::Lines(bytes) }
    }

    /// A line after the first `before` ones that is too long.
    pub(crate) fn long_line(before: u64) -> Self {
        Self { before, documents: Documents::LongLine }
    }

    /// A file that is one document.
    pub(crate) fn file(bytes: Vec<u8>) -> Self {
        Self { before: 0, documents: Documents::File(bytes) }
    }

    /// A file that would be one document, but is too long.
    pub(crate) fn long_file() -> Self {
        Self { before: 0, documents: Documents::LongFile }
    }

    /// A file that would be one document, but for a problem, which has a remedy.
    pub(crate) fn bad_file(problem: String, remedy: String) -> Self {
        Self { before: 0, documents: Documents::BadFile(problem, remedy) }
    }

    /// Texts after the first `before` rows of a table.
    pub(crate) fn rows(before: u64, texts: BinaryArray) -> Self {
        Self { before, documents: Documents::Rows(texts) }
    }

    /// Texts after the first `before` samples of a shard.
    pub(crate) fn samples(before: u64, texts: Joined<u8>) -> Self {
        Self { before, documents: Documents::Texts(texts) }
    }

    /// Lists of ids after the first `before` units.
    pub(crate) fn ids(unit: Unit, before: u64, ids: Joined<u32>) -> Self {
        Self { before, documents: Documents::Ids(unit, ids) }
    }

    /// Of its texts or ids.
    pub(crate) fn bytes(&self) -> usize {
        match &self.documents {
            Documents::Lines(bytes) | Documents::File(bytes) => bytes.len(),
            Documents::LongLine | Documents::LongFile | Documents::BadFile(..) => 0,
            Documents::Rows(texts) => texts.value_data().len(),
            Documents::Texts(texts) => texts.items(),
            Documents::Ids(_, ids) => size_of::<u32>() * ids.items(),
        }
    }

    /// What is counted.
    pub(crate) fn unit(&self) -> Unit {
        match self.documents {
            Documents::Lines(_) | Documents::LongLine => Unit::Line,
            Documents::File(_) | Documents::LongFile | Documents::BadFile(..) => Unit::File,
            Documents::Rows(_) => Unit::Row,
            Documents::Texts(_) => Unit::Sample,
            Documents::Ids(unit, _) => unit,
        }
    }

    /// The documents with their numbers; lines that are blank are left out.
    pub(crate) fn documents(&self) -> Box<dyn Iterator<Item = (u64, Raw<'_>)> + '_> {
        let before = self.before;
        match &self.documents {
            Documents::LongLine => Box::new(std::iter::once((before + 1, Raw::TooLong))),
            Documents::LongFile => Box::new(std::iter::once((before, Raw::TooLong))),
            Documents::BadFile(problem, remedy) => {
                Box::new(std::iter::once((before, Raw::Unreadable { problem, remedy })))
            }
            Documents::Lines(bytes) => {
                let numbered = (before + 1..).zip(lines(without_mark(before, bytes)));
                let trimmed = numbered.map(|(n, line)| (n, line.trim_ascii()));
                Box::new(trimmed.filter(|(_, l)| !l.is_empty()).map(|(n, l)| (n, Raw::Json(l))))
            }
            Documents::File(bytes) => {
                Box::new(std::iter::once((before, Raw::Bytes(without_mark(before, bytes)))))
            }
            Documents::Rows(texts) => {
                let text = |text: Option<_>| text.map_or(Raw::Null, Raw::Bytes);
                Box::new((before..).zip(texts.iter().map(text)))
            }
            Documents::Texts(texts) => Box::new((before..).zip(texts.iter().map(Raw::Bytes))),
            Documents::Ids(_, ids) => Box::new((before..).zip(ids.iter().map(Raw::Ids))),
        }
    }
}

/// The bytes without the mark that some programs begin files of UTF-8 with.
fn without_mark(before: u64, bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").filter(|_| before == 0).unwrap_or(bytes)
}

/// What lies between line ends.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = memchr_iter(b'\n', bytes).chain([bytes.len()]);
    ends.scan(0, |start, end| {
        let line = &bytes[*start..end];
        *start = end + 1;
        Some(line)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_have_the_numbers_of_their_file() {
        let of = |chunk: &Chunk| chunk.documents().map(|(n, _)| n).collect::<Vec<_>>();
        assert_eq!(of(&Chunk::lines(4, b"a\n\n b\nc".to_vec())), [5, 7, 8]);
        assert_eq!(of(&Chunk::long_line(4)), [5]);
        let marked = Chunk::lines(0, b"\xef\xbb\xbfa\n".to_vec());
        assert_eq!(marked.documents().collect::<Vec<_>>(), [(1, Raw::Json(b"a"))]);
        let texts = BinaryArray::from_iter([Some("a"), None, Some("caf\u{e9}")]);
        let chunk = Chunk::rows(10, texts);
        let expected =
            [(10, Raw::Bytes(b"a")), (11, Raw::Null), (12, Raw::Bytes("caf\u{e9}".as_bytes()))];
        assert_eq!(chunk.documents().collect::<Vec<_>>(), expected);
        let mut ids = Joined::default();
        [&[1, 2][..], &[], &[3]].into_iter().for_each(|list| ids.push(list.iter().copied()));
        assert_eq!(ids.items(), 3);
        let chunk = Chunk::ids(Unit::Document, 0, ids);
        let expected = [(0, Raw::Ids(&[1, 2])), (1, Raw::Ids(&[])), (2, Raw::Ids(&[3]))];
        assert_eq!(chunk.documents().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_bad_document_is_called_by_its_place() {
        let bad = |unit| {
            let (file, problem) = ("x".to_owned(), "empty".to_owned());
            BadDocument { file, unit, number: 7, problem }.to_string()
        };
        assert_eq!(bad(Unit::Line), "x, line 7: empty");
        assert_eq!(bad(Unit::Row), "x, row 7: empty");
        assert_eq!(bad(Unit::Sample), "x, sample 7: empty");
        assert_eq!(bad(Unit::Document), "x, document 7: empty");
        assert_eq!(bad(Unit::File), "x: empty");
    }
}
