//! Documents to an indexed dataset, which appears complete or not at all.

use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use mds::durable::{Draft, Sealed};

use super::format::{self, Dtype, Element, Layout};
use super::legacy;
use super::reader::{IndexedDataset, bin_path, idx_path};
use crate::error::{Error, ErrorKind, Result};

/// Bytes that go to the disk in one call.
const BUFFER: usize = 1 << 20;

/// Writes one indexed dataset. Both files have temporary names until [`finish`](Self::finish) gives
/// them theirs, `.idx` last; dropped before that, they are removed.
///
/// Sizes and documents are kept in memory until then, 12 bytes for each document.
#[derive(Debug)]
pub struct IndexedWriter {
    prefix: PathBuf,
    element: Element,
    layout: Layout,
    bin: BufWriter<Draft>,
    /// The bytes of one sequence.
    encoded: Vec<u8>,
    sizes: Vec<u32>,
    boundaries: Vec<u64>,
}

impl IndexedWriter {
    /// Begins `prefix.idx` and `prefix.bin`, in a folder that exists, of tokens of a [`Dtype`] or of other
    /// elements.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] if there is such an index; failures of the disk. Tokens without an
    /// index are what a program left that ended too early, and are replaced.
    pub fn create(prefix: impl Into<PathBuf>, element: impl Into<Element>) -> Result<Self> {
        let prefix = prefix.into();
        let idx = idx_path(&prefix);
        if idx.exists() {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("{} exists already", idx.display()),
                "choose another prefix, or remove it with its .bin file",
            ));
        }
        let bin = draft(bin_path(&prefix))?;
        let (encoded, sizes, boundaries) = (Vec::new(), Vec::new(), vec![0]);
        let (element, layout) = (element.into(), Layout::default());
        Ok(Self { prefix, element, layout, bin, encoded, sizes, boundaries })
    }

    /// The same with an index of another layout.
    #[must_use]
    pub fn with_layout(self, layout: Layout) -> Self {
        Self { layout, ..self }
    }

    /// Adds a document of one sequence, as GPT-NeoX has them.
    ///
    /// # Errors
    /// As [`write_sequence`](Self::write_sequence).
    pub fn write_document<T: Copy + Into<i64>>(&mut self, tokens: &[T]) -> Result<()> {
        self.write_sequence(tokens)?;
        self.end_document();
        Ok(())
    }

    /// Adds a sequence to the document that was not ended yet.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if the type cannot hold a token, or there are 2^31 of them, or the dataset is not
    /// one of tokens; then nothing was added. Failures of the disk, after which the writer is of no more use.
    pub fn write_sequence<T: Copy + Into<i64>>(&mut self, tokens: &[T]) -> Result<()> {
        let size = self.checked_size(tokens.len())?;
        let Element::Token(dtype) = self.element else { return Err(self.holds_no("tokens")) };
        self.encoded.clear();
        for (position, &token) in tokens.iter().enumerate() {
            let token = token.into();
            if !dtype.range().contains(&token) {
                return Err(self.does_not_fit(position, token, dtype));
            }
            // The lower bytes are those of the narrower type, since the token is in its range.
            self.encoded.extend_from_slice(&token.to_le_bytes()[..dtype.size()]);
        }
        self.add_encoded(size)
    }

    /// Adds a document of one sequence of [`Element::Float32`].
    ///
    /// # Errors
    /// As [`write_sequence`](Self::write_sequence), where the dataset is not one of these.
    pub fn write_floats(&mut self, numbers: &[f32]) -> Result<()> {
        let size = self.checked_size(numbers.len())?;
        let Element::Float32 = self.element else { return Err(self.holds_no("float32")) };
        self.encoded.clear();
        numbers.iter().for_each(|number| self.encoded.extend_from_slice(&number.to_le_bytes()));
        self.add_encoded(size)?;
        self.end_document();
        Ok(())
    }

    fn add_encoded(&mut self, size: u32) -> Result<()> {
        self.bin.write_all(&self.encoded).map_err(|e| self.cannot_write(e))?;
        self.sizes.push(size);
        Ok(())
    }

    /// Ends a document; one without a sequence is a document, too.
    pub fn end_document(&mut self) {
        self.boundaries.push(self.sizes.len() as u64);
    }

    /// How many documents were ended.
    pub fn num_documents(&self) -> usize {
        self.boundaries.len() - 1
    }

    /// Makes both files last and gives them their names. A document that was not ended ends here.
    ///
    /// # Errors
    /// Failures of the disk; then there is no index, and so no dataset.
    pub fn finish(self) -> Result<()> {
        self.seal()?.publish()
    }

    /// The first half of [`finish`](Self::finish): whoever writes several datasets names them when all
    /// are complete.
    pub(crate) fn seal(mut self) -> Result<SealedDataset> {
        if self.boundaries.last() != Some(&(self.sizes.len() as u64)) {
            self.end_document();
        }
        let (bin_path, idx_path) = (bin_path(&self.prefix), idx_path(&self.prefix));
        let bin = seal(self.bin, &bin_path)?;
        let mut idx = draft(idx_path.clone())?;
        let (sizes, boundaries) = (&self.sizes, &self.boundaries);
        match self.layout {
            Layout::Mapped => format::write_index(self.element, sizes, boundaries, &mut idx),
            Layout::Legacy => legacy::write_index(self.element, sizes, boundaries, &mut idx),
        }
        .map_err(|e| Error::io(e, "write", &idx_path))?;
        let idx = seal(idx, &idx_path)?;
        Ok(SealedDataset { bin: (bin, bin_path), idx: (idx, idx_path) })
    }

    /// Adds all sequences and documents of another dataset.
    fn append(&mut self, dataset: &IndexedDataset) -> Result<()> {
        let before = self.sizes.len() as u64;
        self.bin.write_all(dataset.tokens().bytes()).map_err(|e| self.cannot_write(e))?;
        self.sizes.extend(dataset.sizes().iter());
        let ends = (0..dataset.num_documents()).filter_map(|i| dataset.index().sequences_of(i));
        self.boundaries.extend(ends.map(|sequences| before + sequences.end as u64));
        Ok(())
    }

    fn checked_size(&self, tokens: usize) -> Result<u32> {
        let size = i32::try_from(tokens).ok().and_then(|size| u32::try_from(size).ok());
        size.ok_or_else(|| {
            Error::invalid(
                format!(
                    "document {} of {} has {tokens} tokens, and a sequence at most {}",
                    self.num_documents(),
                    self.prefix.display(),
                    i32::MAX
                ),
                "split the document",
            )
        })
    }

    fn holds_no(&self, others: &str) -> Error {
        Error::invalid(
            format!("{} holds {}, and no {others}", self.prefix.display(), self.element),
            "write them to a dataset of their own",
        )
    }

    fn does_not_fit(&self, position: usize, token: i64, dtype: Dtype) -> Error {
        let range = dtype.range();
        Error::invalid(
            format!(
                "document {} of {}: token {token} at position {position} does not fit {dtype}, which \
                 holds {} to {}",
                self.num_documents(),
                self.prefix.display(),
                range.start(),
                range.end()
            ),
            "choose a wider type, or the tokenizer that the vocabulary size is of",
        )
    }

    fn cannot_write(&self, error: std::io::Error) -> Error {
        Error::io(error, "write", &bin_path(&self.prefix))
    }
}

/// A complete dataset whose files still have temporary names. They are removed when this is dropped.
#[derive(Debug)]
pub(crate) struct SealedDataset {
    bin: (Sealed, PathBuf),
    idx: (Sealed, PathBuf),
}

impl SealedDataset {
    /// Gives both files their names, the index last.
    pub(crate) fn publish(self) -> Result<()> {
        for (file, path) in [self.bin, self.idx] {
            file.publish().map_err(|e| Error::io(e, "write", &path))?;
        }
        Ok(())
    }
}

/// Writes the dataset `out` with the documents of all of `prefixes`, in this order.
///
/// GPT-NeoX's own merge leaves the documents out, which its training does not read; here they are
/// right.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] if there is nothing to merge, the types of the tokens differ or a
/// dataset has modes; those of [`IndexedDataset::open`], [`IndexedWriter::create`] and
/// [`IndexedWriter::finish`].
pub fn merge(prefixes: &[impl AsRef<Path>], out: impl Into<PathBuf>) -> Result<()> {
    let open = |prefix: &_| IndexedDataset::open(AsRef::<Path>::as_ref(prefix));
    let datasets = prefixes.iter().map(open).collect::<Result<Vec<_>>>()?;
    let Some(first) = datasets.first() else {
        return Err(Error::invalid("there is no dataset to merge", "name one at least"));
    };
    for dataset in &datasets {
        if dataset.dtype() != first.dtype() {
            return Err(Error::invalid(
                format!(
                    "{} has tokens of type {}, and {} of type {}",
                    first.prefix().display(),
                    first.dtype(),
                    dataset.prefix().display(),
                    dataset.dtype()
                ),
                "write one of them again, with the tokenizer of the other",
            ));
        }
        if dataset.has_modes() {
            return Err(Error::invalid(
                format!(
                    "{} has a mode for each sequence, which merging would lose",
                    dataset.prefix().display()
                ),
                "merge it with Megatron-core",
            ));
        }
    }
    let mut writer = IndexedWriter::create(out, first.dtype())?;
    datasets.iter().try_for_each(|dataset| writer.append(dataset))?;
    writer.finish()
}

/// Begins the file that shall be called `path`.
pub(super) fn draft(path: PathBuf) -> Result<BufWriter<Draft>> {
    let draft = Draft::create(&path).map_err(|e| Error::io(e, "write", &path))?;
    Ok(BufWriter::with_capacity(BUFFER, draft))
}

/// Ends it, under its temporary name.
pub(super) fn seal(draft: BufWriter<Draft>, path: &Path) -> Result<Sealed> {
    let draft = draft.into_inner().map_err(std::io::IntoInnerError::into_error);
    draft.and_then(Draft::seal).map_err(|e| Error::io(e, "write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn write(prefix: &Path, dtype: Dtype, documents: &[&[i64]]) {
        let mut writer = IndexedWriter::create(prefix, dtype).unwrap();
        documents.iter().for_each(|document| writer.write_document(document).unwrap());
        writer.finish().unwrap();
    }

    #[test]
    fn tokens_and_other_numbers_are_not_mixed() {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().join("a");
        let mut tokens = IndexedWriter::create(&prefix, Dtype::U16).unwrap();
        let refused = tokens.write_floats(&[0.5]).unwrap_err().to_string();
        let holds = |what: &str| {
            format!("{} holds {what}; write them to a dataset of their own", prefix.display())
        };
        assert_eq!(refused, holds("uint16, and no float32"));
        let mut floats = IndexedWriter::create(&prefix, Element::Float32).unwrap();
        let refused = floats.write_document(&[1_u32]).unwrap_err().to_string();
        assert_eq!(refused, holds("float32, and no tokens"));
        assert_eq!((tokens.num_documents(), floats.num_documents()), (0, 0));
    }

    #[test]
    fn the_golden_files_are_written_byte_for_byte() {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().join("a.b_text_document");
        write(&prefix, Dtype::for_vocab_size(50_257), &[&[1, 2, 3], &[4], &[5, 6]]);
        assert_eq!(names(folder.path()), ["a.b_text_document.bin", "a.b_text_document.idx"]);
        assert_eq!(hex(&std::fs::read(bin_path(&prefix)).unwrap()), "010002000300040005000600");
        assert_eq!(
            hex(&std::fs::read(idx_path(&prefix)).unwrap()),
            "4d4d494449445800000100000000000000080300000000000000040000000000000003000000010000000200\
             0000000000000000000006000000000000000800000000000000000000000000000001000000000000000200\
             0000000000000300000000000000"
        );
    }

    #[test]
    fn nothing_has_its_name_before_the_end_and_nothing_is_left_of_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().join("set");
        let mut writer = IndexedWriter::create(&prefix, Dtype::U16).unwrap();
        writer.write_document(&[1_u32.into()] as &[i64]).unwrap();
        assert!(names(folder.path()).iter().all(|name| name.starts_with('.')));
        drop(writer);
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn a_token_that_does_not_fit_is_named_and_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().join("set");
        let mut writer = IndexedWriter::create(&prefix, Dtype::U16).unwrap();
        writer.write_document(&[7_u32]).unwrap();
        let error = writer.write_document(&[1_u32, 65_535, 65_536]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert_eq!(
            error.to_string(),
            format!(
                "document 1 of {}: token 65536 at position 2 does not fit uint16, which holds 0 to \
                 65535; choose a wider type, or the tokenizer that the vocabulary size is of",
                prefix.display()
            )
        );
        let error = writer.write_document(&[-100_i64]).unwrap_err();
        assert!(error.to_string().contains("token -100 at position 0 does not fit uint16"));
        writer.finish().unwrap();
        let dataset = IndexedDataset::open(prefix).unwrap();
        assert_eq!((dataset.num_documents(), dataset.num_tokens()), (1, 1));
    }

    #[test]
    fn a_sequence_has_less_than_two_to_the_31_tokens() {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().join("set");
        let writer = IndexedWriter::create(&prefix, Dtype::U16).unwrap();
        assert_eq!(writer.checked_size(i32::MAX as usize).unwrap(), i32::MAX as u32);
        assert_eq!(
            writer.checked_size(1 << 31).unwrap_err().to_string(),
            format!(
                "document 0 of {} has 2147483648 tokens, and a sequence at most 2147483647; split the \
                 document",
                prefix.display()
            )
        );
    }

    #[test]
    fn a_dataset_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().join("set");
        // Left of a program that ended between the two names.
        std::fs::write(bin_path(&prefix), b"old").unwrap();
        write(&prefix, Dtype::U16, &[&[1]]);
        let error = IndexedWriter::create(&prefix, Dtype::U16).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(
            error.to_string(),
            format!(
                "{}.idx exists already; choose another prefix, or remove it with its .bin file",
                prefix.display()
            )
        );
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().join("none").join("set");
        let error = IndexedWriter::create(&prefix, Dtype::U16).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains(&format!("cannot write {}.bin: ", prefix.display())));
    }

    #[test]
    fn merged_datasets_have_all_documents() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b, c, out] = ["a", "b", "c", "out"].map(|name| folder.path().join(name));
        write(&a, Dtype::U16, &[&[1, 2], &[3]]);
        // Two sequences are one document, and an empty one follows.
        let mut writer = IndexedWriter::create(&b, Dtype::U16).unwrap();
        writer.write_sequence(&[4_u16]).unwrap();
        writer.write_sequence(&[5_u16, 6]).unwrap();
        writer.end_document();
        writer.end_document();
        writer.finish().unwrap();
        // Merged by GPT-NeoX: it has no documents.
        std::fs::write(bin_path(&c), [7, 0, 8, 0]).unwrap();
        let mut index = Vec::new();
        format::write_index(Dtype::U16, &[1, 1], &[0], &mut index).unwrap();
        std::fs::write(idx_path(&c), index).unwrap();

        merge(&[&a, &b, &c], &out).unwrap();
        let merged = IndexedDataset::open(&out).unwrap();
        assert!(merged.sizes().iter().eq([2, 1, 1, 2, 1, 1]));
        let documents: Vec<_> = merged.documents().map(|document| document.to_vec()).collect();
        assert_eq!(documents, [vec![1, 2], vec![3], vec![4, 5, 6], vec![], vec![7], vec![8]]);

        let error = merge(&[&a, &out], &out).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    }

    #[test]
    fn datasets_that_do_not_go_together_are_not_merged() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b, c, out] = ["a", "b", "c", "out"].map(|name| folder.path().join(name));
        write(&a, Dtype::U16, &[&[1]]);
        write(&b, Dtype::I32, &[&[1]]);
        assert_eq!(
            merge(&[&a, &b], &out).unwrap_err().to_string(),
            format!(
                "{} has tokens of type uint16, and {} of type int32; write one of them again, with the \
                 tokenizer of the other",
                a.display(),
                b.display()
            )
        );
        write(&c, Dtype::U16, &[&[1]]);
        let index = std::fs::read(idx_path(&c)).unwrap();
        std::fs::write(idx_path(&c), [index, vec![1]].concat()).unwrap();
        assert_eq!(
            merge(&[&a, &c], &out).unwrap_err().to_string(),
            format!(
                "{} has a mode for each sequence, which merging would lose; merge it with \
                 Megatron-core",
                c.display()
            )
        );
        let none: [&Path; 0] = [];
        assert_eq!(
            merge(&none, &out).unwrap_err().to_string(),
            "there is no dataset to merge; name one at least"
        );
        assert_eq!(names(folder.path()), ["a.bin", "a.idx", "b.bin", "b.idx", "c.bin", "c.idx"]);
    }
}
