//! An indexed dataset on the disk, mapped into memory.

use std::ffi::OsString;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::format::{Dtype, IndexFile, Sizes};
use super::{legacy, mapped};
use crate::error::{Error, ErrorKind, Result};

/// The path of the index of the dataset `prefix`, whose own dots are no extensions.
pub(super) fn idx_path(prefix: &Path) -> PathBuf {
    with_suffix(prefix, ".idx")
}

/// The path of the tokens of the dataset `prefix`.
pub(super) fn bin_path(prefix: &Path) -> PathBuf {
    with_suffix(prefix, ".bin")
}

pub(super) fn with_suffix(prefix: &Path, suffix: &str) -> PathBuf {
    let mut path = OsString::from(prefix);
    path.push(suffix);
    path.into()
}

/// An index in the layout of [`super::format`].
#[derive(Debug)]
pub(super) enum IndexBytes {
    Mapped(Mmap),
    /// Of a file of the older layout.
    Own(Vec<u8>),
}

impl AsRef<[u8]> for IndexBytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Mapped(bytes) => bytes,
            Self::Own(bytes) => bytes,
        }
    }
}

/// The two files of an indexed dataset, mapped and checked. Processes share the memory of the maps.
///
/// Neither file may be changed or cut short by another program while this lives; to replace a file
/// by renaming another is fine.
#[derive(Debug)]
pub struct IndexedDataset {
    prefix: PathBuf,
    index: IndexFile<IndexBytes>,
    bin: Mmap,
}

impl IndexedDataset {
    /// Opens `prefix.idx` and `prefix.bin`, and reads all of the former once, to check it. One of the older layout is
    /// kept in memory, 20 bytes for each document.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if the index is not one, or not that of `prefix.bin`; failures of the
    /// disk.
    pub fn open(prefix: impl Into<PathBuf>) -> Result<Self> {
        let prefix = prefix.into();
        let idx_path = idx_path(&prefix);
        let idx = mapped::open(&idx_path)?;
        let bin = mapped::open(&bin_path(&prefix))?;
        let bin_bytes = bin.len() as u64;
        let index = if legacy::is_legacy(&idx) {
            legacy::in_newer_layout(&idx, bin_bytes).map(IndexBytes::Own)
        } else {
            Ok(IndexBytes::Mapped(idx))
        };
        let index = index.and_then(|index| IndexFile::parse(index, bin_bytes));
        let index = index.map_err(|malformed| {
            let what = format!("{}: {malformed}", idx_path.display());
            // A malformation ends with its own remedy.
            Error::new(ErrorKind::Corrupt, what, "").with_source(malformed)
        })?;
        Ok(Self { prefix, index, bin })
    }

    /// What comes before `.idx` and `.bin`.
    pub fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// The type of the tokens.
    pub const fn dtype(&self) -> Dtype {
        self.index.dtype()
    }

    /// The tokens of each sequence.
    pub fn sizes(&self) -> Sizes<'_> {
        self.index.sizes()
    }

    /// How many sequences there are.
    pub fn num_sequences(&self) -> usize {
        self.sizes().len()
    }

    /// How many documents there are. GPT-NeoX writes documents of one sequence each.
    pub fn num_documents(&self) -> usize {
        self.index.documents()
    }

    /// How many tokens there are.
    pub fn num_tokens(&self) -> u64 {
        (self.bin.len() / self.dtype().size()) as u64
    }

    /// Whether each sequence has a mode, as Megatron-core writes them for images. They are not read.
    pub const fn has_modes(&self) -> bool {
        self.index.has_modes()
    }

    /// All tokens, sequence after sequence.
    pub fn tokens(&self) -> Tokens<'_> {
        Tokens { bytes: &self.bin, dtype: self.dtype() }
    }

    /// The tokens of sequence `i`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if there are fewer sequences.
    pub fn sequence(&self, i: usize) -> Result<Tokens<'_>> {
        let one = (i < self.num_sequences()).then(|| i..i + 1);
        one.and_then(|sequences| self.tokens_of(sequences))
            .ok_or_else(|| self.missing("sequence", i, self.num_sequences()))
    }

    /// The tokens of document `i`: those of all its sequences.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if there are fewer documents.
    pub fn document(&self, i: usize) -> Result<Tokens<'_>> {
        self.index
            .sequences_of(i)
            .and_then(|sequences| self.tokens_of(sequences))
            .ok_or_else(|| self.missing("document", i, self.num_documents()))
    }

    /// The tokens of each document, in order.
    pub fn documents(&self) -> impl Iterator<Item = Tokens<'_>> {
        let sequences = (0..self.num_documents()).filter_map(|i| self.index.sequences_of(i));
        sequences.filter_map(|sequences| self.tokens_of(sequences))
    }

    /// The ids of sequence `i`.
    ///
    /// # Errors
    /// As [`sequence`](Self::sequence), and [`ErrorKind::InvalidArgument`] if a token is no id, such
    /// as the -100 of a label that is left out.
    pub fn sequence_ids(&self, i: usize) -> Result<Vec<u32>> {
        let name = || format!("sequence {i} of {}", self.prefix.display());
        self.sequence(i)?.ids(name)
    }

    /// The ids of document `i`.
    ///
    /// # Errors
    /// As [`document`](Self::document) and [`sequence_ids`](Self::sequence_ids).
    pub fn document_ids(&self, i: usize) -> Result<Vec<u32>> {
        let name = || format!("document {i} of {}", self.prefix.display());
        self.document(i)?.ids(name)
    }

    pub(super) const fn index(&self) -> &IndexFile<IndexBytes> {
        &self.index
    }

    fn tokens_of(&self, sequences: Range<usize>) -> Option<Tokens<'_>> {
        let bytes = self.bin.get(self.index.bytes_of(sequences)?)?;
        Some(Tokens { bytes, dtype: self.dtype() })
    }

    fn missing(&self, what: &str, i: usize, count: usize) -> Error {
        Error::invalid(
            format!("{} has no {what} {i}: it has {count}", self.prefix.display()),
            "count from 0",
        )
    }
}

/// Tokens that lie one after the other in a mapped file.
#[derive(Debug, Clone, Copy)]
pub struct Tokens<'a> {
    bytes: &'a [u8],
    dtype: Dtype,
}

impl<'a> Tokens<'a> {
    /// The tokens as they are stored, little endian and not aligned.
    pub const fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// How many there are.
    pub const fn len(self) -> usize {
        self.bytes.len() / self.dtype.size()
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.bytes.is_empty()
    }

    /// Those at `positions`, if there are all of them.
    pub fn get(self, positions: Range<usize>) -> Option<Self> {
        let size = self.dtype.size();
        let bytes = positions.start.checked_mul(size)?..positions.end.checked_mul(size)?;
        Some(Self { bytes: self.bytes.get(bytes)?, ..self })
    }

    /// Copies of the tokens.
    pub fn to_vec(self) -> Vec<i64> {
        let mut tokens = Vec::with_capacity(self.len());
        self.append_to(&mut tokens);
        tokens
    }

    /// Appends copies of the tokens.
    pub fn append_to(self, tokens: &mut Vec<i64>) {
        self.for_each(|token| tokens.push(token));
    }

    /// Hands each token to `each`, in order. The type is looked at once.
    fn for_each(self, mut each: impl FnMut(i64)) {
        match self.dtype {
            Dtype::U8 => self.bytes.iter().for_each(|&token| each(token.into())),
            Dtype::I8 => self.numbers(|token| each(i8::from_le_bytes(token).into())),
            Dtype::I16 => self.numbers(|token| each(i16::from_le_bytes(token).into())),
            Dtype::I32 => self.numbers(|token| each(i32::from_le_bytes(token).into())),
            Dtype::I64 => self.numbers(|token| each(i64::from_le_bytes(token))),
            Dtype::U16 => self.numbers(|token| each(u16::from_le_bytes(token).into())),
        }
    }

    fn numbers<const SIZE: usize>(self, each: impl FnMut([u8; SIZE])) {
        self.bytes.as_chunks().0.iter().copied().for_each(each);
    }

    /// The tokens as ids, or an error about what is called `name`.
    fn ids(self, name: impl Fn() -> String) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(self.len());
        let mut wrong = None;
        self.for_each(|token| match u32::try_from(token) {
            Ok(id) => ids.push(id),
            Err(_) => wrong = wrong.or(Some(token)),
        });
        let Some(token) = wrong else { return Ok(ids) };
        Err(Error::invalid(
            format!(
                "{} has the token {token}, which is no id: those are 0 to {}",
                name(),
                u32::MAX
            ),
            "read labels as numbers with a sign",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::indexed::IndexedWriter;

    fn dataset(folder: &Path, dtype: Dtype, documents: &[&[i64]]) -> IndexedDataset {
        let prefix = folder.join(format!("set.{dtype}"));
        let mut writer = IndexedWriter::create(&prefix, dtype).unwrap();
        for document in documents {
            writer.write_document(document).unwrap();
        }
        writer.finish().unwrap();
        IndexedDataset::open(prefix).unwrap()
    }

    #[test]
    fn what_was_written_is_read_in_every_type() {
        let folder = tempfile::tempdir().unwrap();
        for dtype in [Dtype::U8, Dtype::I8, Dtype::I16, Dtype::I32, Dtype::I64, Dtype::U16] {
            let (low, high) = (*dtype.range().start(), *dtype.range().end());
            let documents: [&[i64]; 3] = [&[0, high, low], &[], &[1]];
            let dataset = dataset(folder.path(), dtype, &documents);
            assert_eq!(dataset.dtype(), dtype);
            assert_eq!((dataset.num_sequences(), dataset.num_documents()), (3, 3));
            assert_eq!(dataset.num_tokens(), 4);
            assert!(dataset.sizes().iter().eq([3, 0, 1]));
            let read: Vec<_> = dataset.documents().map(Tokens::to_vec).collect();
            assert_eq!(read, documents);
            assert_eq!(dataset.sequence(0).unwrap().bytes().len(), 3 * dtype.size());
            assert_eq!(dataset.sequence(2).unwrap().to_vec(), [1]);
            assert!(dataset.sequence(1).unwrap().is_empty());
            assert_eq!(dataset.tokens().get(1..4).unwrap().to_vec(), [high, low, 1]);
            assert!(dataset.tokens().get(1..5).is_none());
            assert!(dataset.tokens().get(0..usize::MAX).is_none());
        }
    }

    #[test]
    fn documents_of_several_sequences_are_joined() {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().join("set");
        let mut writer = IndexedWriter::create(&prefix, Dtype::U16).unwrap();
        writer.write_sequence(&[1_u16, 2]).unwrap();
        writer.write_sequence(&[3_u16]).unwrap();
        writer.end_document();
        writer.end_document();
        writer.write_document(&[4_u16]).unwrap();
        writer.finish().unwrap();
        let dataset = IndexedDataset::open(prefix).unwrap();
        assert_eq!((dataset.num_sequences(), dataset.num_documents()), (3, 3));
        let read: Vec<_> = dataset.documents().map(Tokens::to_vec).collect();
        assert_eq!(read, [vec![1, 2, 3], vec![], vec![4]]);
        assert_eq!(dataset.document_ids(0).unwrap(), [1, 2, 3]);
        assert_eq!(dataset.sequence_ids(1).unwrap(), [3]);
    }

    #[test]
    fn labels_are_no_ids() {
        let folder = tempfile::tempdir().unwrap();
        let dataset = dataset(folder.path(), Dtype::I32, &[&[5], &[-100, 7]]);
        assert_eq!(dataset.sequence_ids(0).unwrap(), [5]);
        let error = dataset.document_ids(1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert_eq!(
            error.to_string(),
            format!(
                "document 1 of {} has the token -100, which is no id: those are 0 to 4294967295; \
                 read labels as numbers with a sign",
                dataset.prefix().display()
            )
        );
    }

    #[test]
    fn what_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let dataset = dataset(folder.path(), Dtype::U16, &[&[5], &[6]]);
        let prefix = dataset.prefix().display();
        assert_eq!(
            dataset.sequence(2).unwrap_err().to_string(),
            format!("{prefix} has no sequence 2: it has 2; count from 0")
        );
        assert_eq!(
            dataset.document(usize::MAX).unwrap_err().to_string(),
            format!("{prefix} has no document {}: it has 2; count from 0", usize::MAX)
        );
        let missing = folder.path().join("none");
        assert_eq!(
            IndexedDataset::open(&missing).unwrap_err().to_string(),
            format!(
                "cannot open {}.idx: No such file or directory (os error 2); check the path",
                missing.display()
            )
        );
        std::fs::create_dir(folder.path().join("folder.idx")).unwrap();
        let error = IndexedDataset::open(folder.path().join("folder")).unwrap_err();
        let path = folder.path().join("folder.idx");
        assert_eq!(error.to_string(), format!("{} is not a file; check the path", path.display()));
    }

    #[test]
    fn damage_is_reported_with_file_and_byte() {
        let folder = tempfile::tempdir().unwrap();
        let dataset = dataset(folder.path(), Dtype::U16, &[&[5, 6], &[7]]);
        let prefix = dataset.prefix().to_owned();
        let bin = std::fs::read(bin_path(&prefix)).unwrap();
        drop(dataset);
        std::fs::write(bin_path(&prefix), &bin[..5]).unwrap();
        let error = IndexedDataset::open(&prefix).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(
            error.to_string(),
            format!(
                "{}.idx: byte 50: sequence 1 ends at byte 6 of .bin, which has 5 bytes; copy or write \
                 the dataset again",
                prefix.display()
            )
        );
    }

    #[test]
    fn a_dataset_of_nothing_can_be_opened() {
        let folder = tempfile::tempdir().unwrap();
        let dataset = dataset(folder.path(), Dtype::I32, &[]);
        assert_eq!((dataset.num_sequences(), dataset.num_documents()), (0, 0));
        assert_eq!(dataset.num_tokens(), 0);
        assert_eq!(dataset.documents().count(), 0);
    }
}
