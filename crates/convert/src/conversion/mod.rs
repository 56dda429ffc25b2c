//! One split: the files of a source to a folder of MDS shards.

mod content;
mod output;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;

use mds::WriterOptions;

use self::content::parser;
use self::output::Output;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Journal, Manifest, NUM_TASKS, Position, Progress, TASK_ID};
use crate::ordered::POLL;
use crate::out_root::{Left, OutRoot, Records};
use crate::pipeline::ParsedChunks;
use crate::progress::{Meter, Stage};
use crate::source::{BadDocument, SourceFile, Split};
use crate::statistics::{Statistics, Tally};

pub use content::{Content, SubsetFilter, TokenEncoding, TokenOptions};

/// How many unreadable documents a [`Summary`] lists at most; a source in which everything is wrong must not fill the memory.
pub const LISTED: usize = 1_000;

/// The setting that says which tokenizer made the ids.
pub(crate) const TOKENIZER: &str = "--tokenizer";
/// The setting that says how long the samples are that documents were cut to.
pub(crate) const LENGTH: &str = "--concat_tokens";

/// One split to convert.
#[derive(Debug, Clone)]
pub struct Conversion {
    /// The split, which names the output folder.
    pub split: Split,
    /// Its files, in order.
    pub files: Vec<SourceFile>,
    /// What holds the split's folder.
    pub out_root: OutRoot,
    /// What a sample holds.
    pub content: Content,
    /// Of the Pile, whose lines name subsets: which are wanted.
    pub subsets: Option<SubsetFilter>,
    /// How shards are compressed, hashed and cut.
    pub writer: WriterOptions,
    /// What happens at a line, row or file that is not a document.
    pub on_bad_line: OnBadLine,
    /// Threads that parse and tokenise; the output does not depend on their number.
    pub threads: usize,
    /// What is done about earlier runs.
    pub earlier: Earlier,
}

/// What is done about what earlier runs have left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Earlier {
    /// An unfinished split is gone on with; a complete one stays.
    #[default]
    GoOn,
    /// An unfinished split is begun anew.
    Restart,
    /// A complete split of a folder, too, is made again; it stays until the new one is complete. An unfinished one is gone on
    /// with if it was begun with the same.
    Replace,
}

/// What happens at a line, row or file that is not a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBadLine {
    /// The conversion fails.
    Fail,
    /// It is counted and left out.
    Skip,
}

/// How far a split is before its conversion runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// There is nothing of it.
    New,
    /// An earlier run has left so many complete shards.
    Unfinished(usize),
    /// An earlier run with the same input and settings has completed it, and skipped so many documents.
    Complete(u64),
}

/// What a conversion did.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Where the split was written, without any password.
    pub address: String,
    /// Documents read.
    pub documents: u64,
    /// Samples written.
    pub samples: u64,
    /// Shards written.
    pub shards: usize,
    /// The size of all shards, uncompressed.
    pub bytes: u64,
    /// Tokens at the end of the source that did not fill a sample.
    pub dropped_tokens: usize,
    /// Documents left out because they could not be read.
    pub skipped: u64,
    /// The first [`LISTED`] of them.
    pub bad: Vec<BadDocument>,
    /// Subsets that were asked for, or asked to be left out, and of which there was no document.
    pub missing_subsets: Vec<String>,
}

impl Conversion {
    /// Converts the split, keeping `meter` up to date, until it is done or `cancel` is set.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] if the split is there, [`ErrorKind::Corrupt`] with the name of a bad
    /// line or file, [`ErrorKind::Empty`] if the source of all holds no document,
    /// [`ErrorKind::Interrupted`] if `cancel` is set, and failures of disk, hub and writer. After
    /// any of them the complete shards are kept aside, and the same conversion goes on from
    /// there; [`ErrorKind::InvalidArgument`], with the difference, if it is not the same.
    pub fn run(self, meter: &Arc<Meter>, cancel: &Arc<AtomicBool>) -> Result<Summary> {
        self.out_root.refuse_input(&self.split, &self.files)?;
        match self.earlier {
            Earlier::Replace => self.out_root.refuse_to_replace(&self.split)?,
            Earlier::GoOn | Earlier::Restart => self.out_root.refuse_existing(&self.split)?,
        }
        let goes_on = self.earlier == Earlier::GoOn || self.left()?.is_some();
        let replace = self.earlier == Earlier::Replace;
        let place = self.out_root.begin(&self.split, goes_on, replace)?;
        let records = place.records();
        let manifest = self.manifest();
        // At a remote it is written with the first record, since shards without one are not gone on with.
        if manifest.is_at(records, &self.files)? || !records.is_remote() {
            manifest.write(records)?;
        }
        let mut journal = Journal::open(records, self.writer.size_limit, self.writer.threads())?;
        let shards = journal.shards()?;
        let mut output = Output::open(&place, &self.content, self.writer.clone(), shards)?;
        let stop = output.writer.stopper();
        let split = self.split.to_string();
        let summary = thread::scope(|scope| {
            let (running, ended) = mpsc::channel();
            scope.spawn(move || stop_if_cancelled(cancel, &ended, stop));
            let written = match self.write(&mut output, &mut journal, records, meter, cancel) {
                Ok(written) => {
                    let (summary, statistics) = written.summarise(manifest, &journal);
                    let described = place.data().write_statistics(&statistics, &split);
                    described.and_then(|()| summary.complete(output, meter))
                }
                Err(error) => {
                    // What is in work is kept as well; what fails now has no news.
                    let _ = output.abandon(&mut journal, records);
                    Err(error)
                }
            };
            drop(running);
            written
        });
        let summary = match summary {
            Err(_) if cancel.load(Ordering::Relaxed) => return Err(Error::interrupted()),
            summary => summary?,
        };
        place.publish()?;
        Ok(summary)
    }

    /// How far the split is.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`], with the difference, if an unfinished split was begun with another conversion;
    /// [`ErrorKind::AlreadyExists`] if the split is there, but of another input or other settings; as the file system
    /// or the remote fails. [`ErrorKind::InvalidArgument`], too, if the split is to be written where its input lies.
    pub fn state(&self) -> Result<State> {
        self.out_root.refuse_input(&self.split, &self.files)?;
        if self.earlier == Earlier::Replace {
            self.refuse_merged()?;
            self.out_root.refuse_to_replace(&self.split)?;
            return Ok(self.left()?.map_or(State::New, |left| State::Unfinished(left.shards)));
        }
        let manifest = self.manifest();
        if let Some(statistics) = self.out_root.statistics(&self.split)? {
            let Some(difference) = manifest.difference(&statistics.manifest) else {
                return Ok(State::Complete(statistics.skipped));
            };
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!(
                    "{} exists already, made with {difference}",
                    self.out_root.shown(&self.split)
                ),
                match self.out_root {
                    OutRoot::Folder(_) => {
                        "make it again with --reprocess, or write to another place"
                    }
                    OutRoot::Remote(_) => "delete it first, or write to another place",
                },
            ));
        }
        self.out_root.refuse_existing(&self.split)?;
        self.refuse_merged()?;
        match self.left()? {
            Some(left) => {
                manifest.is_at(&left.records, &self.files).map(|_| State::Unfinished(left.shards))
            }
            None => Ok(State::New),
        }
    }

    /// What an earlier run has left that is gone on with. A split that is made again is begun anew unless that run was of the
    /// same, for where it was not, nobody asks for what it has left.
    fn left(&self) -> Result<Option<Left>> {
        let left = self.out_root.unfinished(&self.split)?;
        let is_same = |left: &Left| self.manifest().is_at(&left.records, &self.files);
        Ok(match self.earlier {
            Earlier::GoOn => left,
            Earlier::Restart => None,
            Earlier::Replace => left.filter(|left| is_same(left).unwrap_or(false)),
        })
    }

    /// Makes sure that the part of a task is not written where all parts were joined without it.
    fn refuse_merged(&self) -> Result<()> {
        self.split.task().map_or(Ok(()), |_| self.out_root.refuse_merged())
    }

    /// What the output depends on.
    fn manifest(&self) -> Manifest {
        let shares = self.split.task().map(|task| task.shares.clone());
        Manifest::new(self.settings(), shares, &self.files)
    }

    /// What the output depends on, apart from the files: flags and their values.
    fn settings(&self) -> BTreeMap<String, String> {
        let Self { content, writer, .. } = self;
        let mut settings = BTreeMap::new();
        let mut set = |flag: &str, value: String| {
            settings.insert(flag.to_owned(), value);
        };
        match content {
            Content::Records => set("columns", "text, timestamp, url".to_owned()),
            Content::PileRecords => set("columns", "pile_set_name, text".to_owned()),
            Content::Text => set("columns", "text".to_owned()),
            Content::Tokens(tokens) => {
                set("columns", "tokens".to_owned());
                for (flag, value) in &tokens.source_settings {
                    set(flag, value.clone());
                }
                if let Some(tokenizer) = &tokens.tokenizer {
                    set(TOKENIZER, tokenizer.described());
                    set("--bos_text", format!("{:?}", tokens.bos_text));
                    set("--eos_text", format!("{:?}", tokens.eos_text));
                }
                if let Some(length) = tokens.length {
                    set(LENGTH, length.to_string());
                }
                if !tokens.wrap {
                    set("--no_wrap", String::new());
                }
                if tokens.encoding != TokenEncoding::Int32 {
                    set("--token_encoding", tokens.encoding.as_str().to_owned());
                }
                if tokens.sequence_id {
                    set("--sequence_id", String::new());
                }
            }
        }
        let listed = |names: &BTreeSet<String>| {
            names.iter().map(String::as_str).collect::<Vec<_>>().join(",")
        };
        for filter in self.subsets.iter() {
            if !filter.only.is_empty() {
                set("--subsets", listed(&filter.only));
            }
            if !filter.except.is_empty() {
                set("--exclude_subsets", listed(&filter.except));
            }
        }
        if let Some(compression) = &writer.compression {
            set("--compression", compression.to_string());
        }
        if !writer.hashes.is_empty() {
            let hashes: Vec<String> = writer.hashes.iter().map(ToString::to_string).collect();
            set("--hashes", hashes.join(","));
        }
        if let Some(task) = self.split.task() {
            set(NUM_TASKS, task.of.to_string());
            set(TASK_ID, task.id.to_string());
        }
        set("--size_limit", writer.size_limit.unwrap_or(0).to_string());
        settings
    }

    /// Everything from the source to the last sample.
    fn write(
        self,
        output: &mut Output,
        journal: &mut Journal,
        records: &Records,
        meter: &Arc<Meter>,
        cancel: &Arc<AtomicBool>,
    ) -> Result<Written> {
        let parse =
            parser(&self.content, self.subsets.as_ref(), self.on_bad_line, Arc::clone(meter));
        let newest = journal.newest(output.writer.samples(), output.writer.bytes());
        let Progress { position: from, samples, mut tally, mut skipped, mut bad, pending } = newest;
        output.resume(samples, pending);
        meter.set_documents(tally.total.documents);
        output.most = self.split.most_samples;
        let manifest = self.manifest();
        let mut file = from.file;
        // There may be very many files that are documents.
        let tells_files = !self.files.iter().any(SourceFile::is_document);
        let mut chunks = ParsedChunks::start(self.files, from, parse, self.threads, meter, cancel);
        let mut last = from;
        while !output.is_full() {
            let (parsed, end) = match chunks.next() {
                Ok(Some(next)) => next,
                Ok(None) => break,
                Err(error) => {
                    if let Some(file) = chunks.failed_in() {
                        let begin = Position { file, ..Position::default() };
                        journal.set_fault(last.max(begin));
                    }
                    return Err(error);
                }
            };
            last = end;
            if end.file > file && tells_files {
                journal.end_file(file, std::mem::take(&mut tally.file));
                file = end.file;
            }
            skipped += parsed.bad.len() as u64;
            bad.extend(parsed.bad.iter().take(LISTED - bad.len()).cloned());
            meter.time(Stage::Encode, || output.write(&parsed, &mut tally))?;
            meter.set_documents(tally.total.documents);
            meter.set_samples(output.samples());
            if journal.is_due(output.writer.bytes()) {
                let progress = Progress {
                    position: end,
                    samples: output.samples(),
                    tally: tally.clone(),
                    skipped,
                    bad: bad.clone(),
                    pending: output.pending(),
                };
                if !journal.has_records() {
                    manifest.write(records)?;
                }
                journal.record(progress, &mut output.writer, records)?;
            }
        }
        if tells_files {
            journal.end_file(file, tally.file);
        }
        let summary = Summary {
            address: self.out_root.shown(&self.split),
            documents: tally.total.documents,
            samples: output.samples(),
            shards: 0,
            bytes: 0,
            dropped_tokens: if output.is_full() { 0 } else { output.pending().ids.len() },
            skipped,
            bad,
            missing_subsets: self.subsets.iter().flat_map(|filter| tally.missing(filter)).collect(),
        };
        // The files of other tasks may hold some.
        if summary.samples == 0 && self.split.task().is_none() {
            return Err(no_sample(&self.split, &self.content, &summary, &tally));
        }
        Ok(Written { summary, tally })
    }
}

/// Samples that are all with the writer.
struct Written {
    summary: Summary,
    tally: Tally,
}

impl Written {
    fn summarise(self, manifest: Manifest, journal: &Journal) -> (Summary, Statistics) {
        let Self { summary, tally } = self;
        let mut statistics = Statistics::new(manifest, tally, journal.files());
        statistics.samples = summary.samples;
        statistics.skipped = summary.skipped;
        statistics.skipped_documents = summary.bad.iter().map(ToString::to_string).collect();
        statistics.dropped_tokens = summary.dropped_tokens as u64;
        (summary, statistics)
    }
}

impl Summary {
    /// Adds the index, and what it says.
    fn complete(mut self, output: Output, meter: &Meter) -> Result<Self> {
        let timings = output.writer.timings();
        let index = output.finish()?;
        meter.add_timings(&timings);
        self.shards = index.shards.len();
        self.bytes = index.shards.iter().map(|shard| shard.raw_data.bytes).sum();
        Ok(self)
    }
}

/// Calls `stop` once `cancel` is set, unless the run ends before: then the sender of `ended` is gone.
fn stop_if_cancelled(cancel: &AtomicBool, ended: &Receiver<()>, stop: impl Fn()) {
    while ended.recv_timeout(POLL) == Err(RecvTimeoutError::Timeout) {
        if cancel.load(Ordering::Relaxed) {
            return stop();
        }
    }
}

fn no_sample(split: &Split, content: &Content, summary: &Summary, tally: &Tally) -> Error {
    let skipped = match summary.skipped {
        0 => String::new(),
        1 => " (1 unreadable document was skipped)".to_owned(),
        n => format!(" ({n} unreadable documents were skipped)"),
    };
    let (what, remedy) = match content {
        Content::Tokens(TokenOptions { length: Some(length), .. }) if summary.documents > 0 => (
            format!(
                "split {split}: {} too few tokens for one sample of {length}{skipped}",
                match summary.documents {
                    1 => "1 document holds".to_owned(),
                    n => format!("{n} documents hold"),
                }
            ),
            "use more text or a smaller --concat_tokens",
        ),
        _ if tally.left_out().next().is_some() => {
            let names: Vec<&str> = tally.left_out().collect();
            return Error::new(
                ErrorKind::Empty,
                format!(
                    "split {split}: no document is of a subset that is wanted{skipped}: there are {}",
                    names.join(", ")
                ),
                "correct --subsets or --exclude_subsets",
            );
        }
        _ => (
            format!("split {split}: the source holds no documents{skipped}"),
            "check that it is the right source",
        ),
    };
    Error::new(ErrorKind::Empty, what, remedy)
}
