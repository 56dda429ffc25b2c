//! Texts to indexed datasets.
//!
//! `command` is the program `preprocess-data` around this.

mod command;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::documents::{self, Cut, Document, InputFile};
use super::texts;
use super::tokenizers::NeoxTokenizer;
use crate::error::{Error, ErrorKind, Result};
use crate::indexed::{Dtype, IndexedWriter, Layout};
use crate::ordered::{Ordered, Put};
pub use command::main;
pub(super) use command::{Log, run_and_report};

/// The label of a token that is not to be learned.
const IGNORED: i64 = -100;

/// The name of the set of labels, in the place of a key.
const LABEL: &str = "label";

/// A batch that goes to a worker ends with this many documents or bytes.
const BATCH_DOCUMENTS: usize = 64;
const BATCH_BYTES: usize = 256 << 10;

/// What is made of what. All that is in a dataset depends on this, but for `workers`.
#[derive(Debug, Clone)]
pub struct Preprocess {
    /// Where documents come from, in this order.
    pub inputs: Vec<InputFile>,
    /// The keys of JSON objects; each gives a dataset.
    pub keys: Vec<String>,
    /// What makes ids of texts.
    pub tokenizer: NeoxTokenizer,
    /// Whether each document ends with a token that says so.
    pub append_eod: bool,
    /// Where this is not empty, labels are written too; up to the first occurrence of these ids and with
    /// it they are -100.
    pub mask_before: Vec<u32>,
    /// What becomes of texts that are one document by their kind of file.
    pub cut: Cut,
    /// `PREFIX_KEY_document.bin` and `.idx` are written, in a folder that exists.
    pub output_prefix: PathBuf,
    /// Of the indexes.
    pub layout: Layout,
    /// Threads that run the tokenizer.
    pub workers: usize,
}

/// How far it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Documents with a text so far.
    pub documents: u64,
    /// Bytes of their texts.
    pub bytes: u64,
}

/// A dataset that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// What comes before `.bin` and `.idx`.
    pub prefix: PathBuf,
    /// How many documents it has, each of one sequence.
    pub documents: u64,
    /// How many tokens.
    pub tokens: u64,
    /// Of what type they are.
    pub dtype: Dtype,
    /// Texts that were left out, since they are empty or have no token.
    pub left_out: u64,
}

impl Preprocess {
    /// Writes a dataset for each key, and one of labels if there is a mask; `watch` is told how far it is.
    /// All of them get their names at the end, or none.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if the parts of this do not go together, [`ErrorKind::AlreadyExists`]
    /// if there is such a dataset, [`ErrorKind::Empty`] if a key has no text; [`ErrorKind::Corrupt`] with
    /// the place of a document that cannot be read; failures of the disk; [`ErrorKind::Interrupted`] once
    /// the flag is set.
    pub fn run(
        self,
        watch: &mut dyn FnMut(Progress),
        cancel: &Arc<AtomicBool>,
    ) -> Result<Vec<Written>> {
        self.check()?;
        let mut sets = self.create_sets()?;
        let inputs: Vec<_> =
            self.inputs.iter().map(|file| file.path().display().to_string()).collect();
        let encoder = Encoder {
            end: self.append_eod.then(|| self.tokenizer.end_of_document()).transpose()?,
            tokenizer: self.tokenizer,
            keys: self.keys,
        };
        let (files, cut, flag) = (self.inputs, self.cut, Arc::clone(cancel));
        let produce = move |put: &mut Put<'_, Vec<Document>>| {
            let mut batches = Batches { put, batch: Vec::new(), bytes: 0 };
            let mut read =
                |file| documents::read(file, cut, &flag, &mut |document| batches.add(document));
            let all = files.iter().try_for_each(&mut read).and_then(|()| batches.flush());
            all.err().map(Err)
        };
        let work = move |batch: Vec<Document>| {
            batch.iter().map(|document| encoder.encode(document)).collect::<Result<Vec<_>>>()
        };
        let mut progress = Progress::default();
        let mut batches = Ordered::start(produce, work, self.workers, cancel);
        while let Some(batch) = batches.next()?.transpose()? {
            for encoded in batch {
                sets.write(&encoded, &self.mask_before)?;
                if encoded.bytes > 0 {
                    progress.documents += 1;
                    progress.bytes += encoded.bytes;
                    watch(progress);
                }
            }
        }
        sets.finish(&inputs)
    }

    fn check(&self) -> Result<()> {
        for (i, key) in self.keys.iter().enumerate() {
            if key.is_empty() || key.contains('/') {
                return Err(Error::invalid(
                    format!("--jsonl-keys {key:?} cannot be part of the name of a file"),
                    "rename the key in the documents",
                ));
            }
            if self.keys[..i].contains(key) {
                let what = format!("--jsonl-keys has {key:?} twice");
                return Err(Error::invalid(what, "name each key once"));
            }
        }
        if self.keys.is_empty() {
            return Err(Error::invalid("--jsonl-keys names no key", "name one, such as text"));
        }
        let is_labelled_twice = self.keys.len() > 1 || self.keys[0] == LABEL;
        if !self.mask_before.is_empty() && is_labelled_twice {
            return Err(Error::invalid(
                "--mask-before-token writes the labels of one key, as PREFIX_label_document",
                "give --jsonl-keys one key, which is not label",
            ));
        }
        if self.cut != Cut::Whole && !self.inputs.iter().any(InputFile::can_be_cut) {
            return Err(Error::invalid(
                "--split-documents has no effect: the documents of all input files are cut already",
                "leave it out, or give files of whole texts such as .txt and .zip",
            ));
        }
        Ok(())
    }

    fn create_sets(&self) -> Result<Sets> {
        let is_masked = !self.mask_before.is_empty();
        // Labels and texts are of one type, which has to hold -100. GPT-NeoX's older layout is of this type always.
        let dtype = if is_masked || self.layout == Layout::Legacy {
            Dtype::I32
        } else {
            Dtype::for_vocab_size(self.tokenizer.vocab_size() as u64)
        };
        let set = |name: &str| Set::create(&self.output_prefix, name, dtype, self.layout);
        Ok(Sets {
            of_keys: self.keys.iter().map(|key| set(key)).collect::<Result<_>>()?,
            labels: is_masked.then(|| set(LABEL)).transpose()?,
        })
    }
}

/// Documents on their way to the workers.
struct Batches<'a, 'b> {
    put: &'a mut Put<'b, Vec<Document>>,
    batch: Vec<Document>,
    bytes: usize,
}

impl Batches<'_, '_> {
    fn add(&mut self, document: Document) -> Result<()> {
        self.bytes += document.bytes();
        self.batch.push(document);
        if self.batch.len() < BATCH_DOCUMENTS && self.bytes < BATCH_BYTES {
            return Ok(());
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        let (batch, bytes) = (std::mem::take(&mut self.batch), std::mem::take(&mut self.bytes));
        if batch.is_empty() { Ok(()) } else { (self.put)(batch, bytes) }
    }
}

/// What the workers do.
struct Encoder {
    tokenizer: NeoxTokenizer,
    keys: Vec<String>,
    /// What each document ends with, if anything.
    end: Option<u32>,
}

/// One document as ids.
struct Encoded {
    /// Bytes of its texts.
    bytes: u64,
    /// The ids under each key; none for a text that is to be left out.
    ids: Vec<Vec<u32>>,
}

impl Encoder {
    fn encode(&self, document: &Document) -> Result<Encoded> {
        let texts = texts::of(document, &self.keys)?;
        let bytes = texts.iter().map(|text| text.len() as u64).sum();
        let ids = texts.iter().map(|text| {
            let mut ids = self.tokenizer.encode(text)?;
            if !ids.is_empty() {
                ids.extend(self.end);
            }
            Ok(ids)
        });
        Ok(Encoded { bytes, ids: ids.collect::<Result<_>>()? })
    }
}

/// The datasets that are written.
struct Sets {
    of_keys: Vec<Set>,
    labels: Option<Set>,
}

/// One of them.
struct Set {
    /// The key, or `label`.
    name: String,
    writer: IndexedWriter,
    written: Written,
}

impl Set {
    fn create(output_prefix: &Path, name: &str, dtype: Dtype, layout: Layout) -> Result<Self> {
        let prefix = prefix_of(output_prefix, name);
        let writer = IndexedWriter::create(&prefix, dtype)?.with_layout(layout);
        let written = Written { prefix, documents: 0, tokens: 0, dtype, left_out: 0 };
        Ok(Self { name: name.to_owned(), writer, written })
    }

    fn write<T: Copy + Into<i64>>(&mut self, ids: &[T]) -> Result<()> {
        if ids.is_empty() {
            self.written.left_out += 1;
            return Ok(());
        }
        self.writer.write_document(ids)?;
        self.written.documents += 1;
        self.written.tokens += ids.len() as u64;
        Ok(())
    }
}

/// What comes before `.bin` and `.idx` in the names of a key's dataset.
pub(super) fn prefix_of(output_prefix: &Path, key: &str) -> PathBuf {
    let mut prefix = output_prefix.as_os_str().to_owned();
    prefix.push(format!("_{key}_document"));
    prefix.into()
}

impl Sets {
    fn write(&mut self, encoded: &Encoded, mask_before: &[u32]) -> Result<()> {
        for (set, ids) in self.of_keys.iter_mut().zip(&encoded.ids) {
            set.write(ids)?;
            if let Some(labels) = &mut self.labels {
                labels.write(&labels_of(ids, mask_before))?;
            }
        }
        Ok(())
    }

    /// Gives the datasets their names when all of them are complete.
    fn finish(self, inputs: &[String]) -> Result<Vec<Written>> {
        if let Some(empty) = self.of_keys.iter().find(|set| set.written.documents == 0) {
            return Err(Error::new(
                ErrorKind::Empty,
                format!(
                    "no document of {} has a text under the key {:?}",
                    inputs.join(","),
                    empty.name
                ),
                "nothing was written; check the input and --jsonl-keys",
            ));
        }
        let (mut sealed, mut written) = (Vec::new(), Vec::new());
        for set in self.of_keys.into_iter().chain(self.labels) {
            sealed.push(set.writer.seal()?);
            written.push(set.written);
        }
        for dataset in sealed {
            dataset.publish()?;
        }
        Ok(written)
    }
}

/// The ids, with -100 up to the end of the first occurrence of `pattern`, if there is one.
fn labels_of(ids: &[u32], pattern: &[u32]) -> Vec<i64> {
    let found = ids.windows(pattern.len().max(1)).position(|window| window == pattern);
    let masked = found.map_or(0, |begin| begin + pattern.len());
    let labels = ids.iter().enumerate();
    labels.map(|(i, &id)| if i < masked { IGNORED } else { id.into() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_masked_up_to_the_first_occurrence() {
        assert_eq!(labels_of(&[7, 1, 2, 9, 1, 2, 8], &[1, 2]), [-100, -100, -100, 9, 1, 2, 8]);
        assert_eq!(labels_of(&[1, 1, 2, 9], &[1, 2]), [-100, -100, -100, 9]);
        assert_eq!(labels_of(&[7, 1], &[1]), [-100, -100]);
        assert_eq!(labels_of(&[7, 1], &[1, 2]), [7, 1]);
        assert_eq!(labels_of(&[7], &[1, 2]), [7]);
        assert_eq!(labels_of(&[], &[1]), [0; 0]);
    }
}
