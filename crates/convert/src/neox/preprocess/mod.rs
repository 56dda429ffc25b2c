//! Texts to indexed datasets.
//!
//! `command` is the program `preprocess-data` around this.

mod command;
mod encoder;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::documents::{self, Cut, Document, InputFile};
use crate::error::{Error, ErrorKind, Result};
use crate::indexed::{Dtype, Element, IndexedWriter, Layout};
use crate::neox::chats::Rewards;
use crate::ordered::{Ordered, Put};
pub use command::main;
pub(super) use command::{Log, run_and_report};
use encoder::{Encoded, Reward};
pub use encoder::{Encoder, TextEncoder};
pub(super) use encoder::{IGNORED, Row};

/// The name of the set of rewards, in the place of a key.
const REWARD: &str = "reward";

/// A batch that goes to a worker ends with this many documents or bytes.
const BATCH_DOCUMENTS: usize = 64;
const BATCH_BYTES: usize = 256 << 10;

/// What is made of what. All that is in a dataset depends on this, but for `workers`.
#[derive(Debug)]
pub struct Preprocess {
    /// Where documents come from, in this order.
    pub inputs: Vec<InputFile>,
    /// The keys of JSON objects; each gives a dataset.
    pub keys: Vec<String>,
    /// What is under the keys, and what makes ids of it.
    pub encoder: Encoder,
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
    pub element: Element,
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
    /// the place of a document that cannot be read; failures of the disk or of ftfy; [`ErrorKind::Interrupted`] once
    /// the flag is set.
    pub fn run(
        self,
        watch: &mut dyn FnMut(Progress),
        cancel: &Arc<AtomicBool>,
    ) -> Result<Vec<Written>> {
        self.check()?;
        let mut sets = self.create_sets()?;
        let inputs: Vec<_> = self.inputs.iter().map(|file| file.name().to_owned()).collect();
        let (encoder, keys) = (self.encoder, self.keys);
        let (files, cut, flag) = (self.inputs, self.cut, Arc::clone(cancel));
        let produce = move |put: &mut Put<'_, Vec<Document>>| {
            let mut batches = Batches { put, batch: Vec::new(), bytes: 0 };
            let mut read =
                |file| documents::read(file, cut, &flag, &mut |document| batches.add(document));
            let all = files.iter().try_for_each(&mut read).and_then(|()| batches.flush());
            all.err().map(Err)
        };
        let work = move |batch: Vec<Document>| {
            batch.iter().map(|document| encoder.encode(document, &keys)).collect::<Result<Vec<_>>>()
        };
        let mut progress = Progress::default();
        let mut batches = Ordered::start(produce, work, self.workers, cancel);
        while let Some(batch) = batches.next()?.transpose()? {
            for encoded in batch {
                sets.write(&encoded)?;
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
        if let Encoder::Texts(TextEncoder { mask_before, .. }) = &self.encoder
            && !mask_before.is_empty()
            && self.names().len() > 2
        {
            return Err(Error::invalid(
                "--mask-before-token writes the labels of one key, as PREFIX_label_document",
                "give --jsonl-keys one key, which is not label",
            ));
        }
        let mut names = self.names();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::invalid(
                format!("two datasets would be called PREFIX_{}_document", twice[0]),
                "rename the key in the documents",
            ));
        }
        self.encoder.check()?;
        if self.layout == Layout::Legacy && self.encoder.rewards() == Some(Rewards::Numbers) {
            return Err(Error::invalid(
                "rewards that are numbers are float32, and GPT-NeoX's older layout has int32 alone",
                "leave --dataset-impl out, or give --binary-reward",
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

    /// What stands in the place of a key in the names of all datasets.
    fn names(&self) -> Vec<String> {
        let labels = self.keys.iter().filter_map(|key| self.encoder.name_of_labels(key));
        let reward = self.encoder.rewards().map(|_| REWARD.to_owned());
        self.keys.iter().cloned().chain(labels).chain(reward).collect()
    }

    fn create_sets(&self) -> Result<Sets> {
        // Labels are of the type of the ids, and have to hold -100. GPT-NeoX's older layout is of this type always.
        let dtype = match &self.encoder {
            Encoder::Texts(texts)
                if texts.mask_before.is_empty() && self.layout != Layout::Legacy =>
            {
                Dtype::for_vocab_size(texts.tokenizer.vocab_size() as u64)
            }
            _ => Dtype::I32,
        };
        let set =
            |name: &str, element| Set::create(&self.output_prefix, name, element, self.layout);
        let of_tokens = |name: &str| set(name, dtype.into());
        let of_key = |key: &String| {
            let labels = self.encoder.name_of_labels(key);
            Ok((of_tokens(key)?, labels.map(|name| of_tokens(&name)).transpose()?))
        };
        let of_rewards = |rewards| match rewards {
            Rewards::Binary => of_tokens(REWARD),
            Rewards::Numbers => set(REWARD, Element::Float32),
        };
        Ok(Sets {
            of_keys: self.keys.iter().map(of_key).collect::<Result<_>>()?,
            rewards: self.encoder.rewards().map(of_rewards).transpose()?,
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

/// The datasets that are written.
struct Sets {
    /// The ids of each key, and their labels.
    of_keys: Vec<(Set, Option<Set>)>,
    rewards: Option<Set>,
}

/// One of them.
struct Set {
    /// The key, or what stands in its place.
    name: String,
    writer: IndexedWriter,
    written: Written,
}

impl Set {
    fn create(output_prefix: &Path, name: &str, element: Element, layout: Layout) -> Result<Self> {
        let prefix = prefix_of(output_prefix, name);
        let writer = IndexedWriter::create(&prefix, element)?.with_layout(layout);
        let written = Written { prefix, documents: 0, tokens: 0, element, left_out: 0 };
        Ok(Self { name: name.to_owned(), writer, written })
    }

    fn write<T: Copy + Into<i64>>(&mut self, ids: &[T]) -> Result<()> {
        if ids.is_empty() {
            self.written.left_out += 1;
            return Ok(());
        }
        self.writer.write_document(ids)?;
        self.count(ids.len());
        Ok(())
    }

    fn write_reward(&mut self, reward: Reward) -> Result<()> {
        match reward {
            Reward::Binary(sign) => self.writer.write_document(&[sign]),
            Reward::Number(number) => self.writer.write_floats(&[number]),
        }?;
        self.count(1);
        Ok(())
    }

    fn count(&mut self, tokens: usize) {
        self.written.documents += 1;
        self.written.tokens += tokens as u64;
    }
}

/// What comes before `.bin` and `.idx` in the names of a key's dataset.
pub(super) fn prefix_of(output_prefix: &Path, key: &str) -> PathBuf {
    let mut prefix = output_prefix.as_os_str().to_owned();
    prefix.push(format!("_{key}_document"));
    prefix.into()
}

impl Sets {
    fn write(&mut self, encoded: &Encoded) -> Result<()> {
        for ((ids, labels), row) in self.of_keys.iter_mut().zip(&encoded.rows) {
            ids.write(&row.ids)?;
            if let Some(labels) = labels {
                labels.write(&row.labels)?;
            }
        }
        match (&mut self.rewards, encoded.reward) {
            (Some(rewards), Some(reward)) => rewards.write_reward(reward),
            _ => Ok(()),
        }
    }

    /// Gives the datasets their names when all of them are complete.
    fn finish(self, inputs: &[String]) -> Result<Vec<Written>> {
        let mut of_keys = self.of_keys.iter().map(|(ids, _)| ids);
        if let Some(empty) = of_keys.find(|set| set.written.documents == 0) {
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
        let of_keys =
            self.of_keys.into_iter().flat_map(|(ids, labels)| std::iter::once(ids).chain(labels));
        for set in of_keys.chain(self.rewards) {
            sealed.push(set.writer.seal()?);
            written.push(set.written);
        }
        for dataset in sealed {
            dataset.publish()?;
        }
        Ok(written)
    }
}
