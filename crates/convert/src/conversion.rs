//! One split: its source files to a folder of MDS shards.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;

use mds::format::{DType, Encoding, HashAlgorithm, NdArray, Schema, Value};
use mds::{Writer, WriterOptions};

use crate::concat::Concatenator;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Journal, Manifest, Position, Progress};
use crate::out_root::{OutRoot, Unfinished};
use crate::pipeline::{POLL, Parse, ParsedChunks};
use crate::progress::Meter;
use crate::record::{BadLine, Record, parse_text};
use crate::source::lines::Chunk;
use crate::source::{SourceFile, Split};
use crate::tokenizer::Tokenizer;

/// How many unreadable lines a [`Summary`] quotes.
const QUOTED_BAD_LINES: usize = 10;

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
    /// How shards are compressed, hashed and cut.
    pub writer: WriterOptions,
    /// What happens at a line that is not a document.
    pub on_bad_line: OnBadLine,
    /// Threads that parse and tokenise; the output does not depend on their number.
    pub threads: usize,
    /// Whether what an interrupted run has left is thrown away, and not gone on with.
    pub restart: bool,
}

/// What a sample holds.
#[derive(Debug, Clone)]
pub enum Content {
    /// One document of C4: the columns `text`, `timestamp` and `url`, all `str`.
    Records,
    /// One document: the column `text`, `str`.
    Text,
    /// A fixed number of token ids: the column `tokens`, `ndarray:int32`.
    Tokens(TokenOptions),
}

/// How documents become samples of token ids.
#[derive(Debug, Clone)]
pub struct TokenOptions {
    /// What makes ids of text.
    pub tokenizer: Tokenizer,
    /// Tokens per sample.
    pub length: usize,
    /// Text whose ids go before each document; may be empty.
    pub bos_text: String,
    /// Text whose ids go after each document; may be empty.
    pub eos_text: String,
    /// Whether a document that does not fit goes on in the next sample.
    pub wrap: bool,
}

impl TokenOptions {
    /// What is worth a second look before a long conversion: text for a mark that is not one
    /// token, marks that the tokenizer already sets.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if nothing would stand between two documents, or samples
    /// have no length; the tokenizer's own errors.
    pub fn check(&self) -> Result<Vec<String>> {
        if self.length == 0 {
            return Err(Error::invalid(
                "--concat_tokens is 0",
                "give a number of tokens, e.g. 2048",
            ));
        }
        let mut warnings = Vec::new();
        for (flag, text) in [("--bos_text", &self.bos_text), ("--eos_text", &self.eos_text)] {
            let ids = self.tokenizer.encode_bare(text)?;
            if ids.len() > 1 {
                warnings
                    .push(format!("{flag} {text:?} is not one token but {}: {ids:?}", ids.len()));
            }
        }
        let given = !self.bos_text.is_empty() || !self.eos_text.is_empty();
        let adds = self.tokenizer.adds_special_tokens();
        if given && adds {
            warnings.push(format!(
                "tokenizer {} sets marks around each text by itself; those of --bos_text and \
                 --eos_text come on top",
                self.tokenizer.name()
            ));
        } else if !given && !adds {
            return Err(Error::invalid(
                format!(
                    "tokenizer {} puts nothing between two documents: they would run into one another",
                    self.tokenizer.name()
                ),
                "give a mark, e.g. --eos_text '<|endoftext|>', or use another tokenizer",
            ));
        }
        Ok(warnings)
    }
}

/// What happens at a line that is not a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBadLine {
    /// The conversion fails.
    Fail,
    /// The line is counted and left out.
    Skip,
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
    /// Lines left out.
    pub skipped: u64,
    /// The first of them.
    pub bad_lines: Vec<BadLine>,
}

impl Conversion {
    /// Converts the split, keeping `meter` up to date, until it is done or `cancel` is set.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] if the output exists, [`ErrorKind::Corrupt`] at an unreadable
    /// line or file, [`ErrorKind::Empty`] if the source holds no document,
    /// [`ErrorKind::Interrupted`] if `cancel` is set, and failures of disk, hub and writer. After
    /// any of them the complete shards are kept [aside](OutRoot::unfinished), and the same conversion goes on from
    /// there; [`ErrorKind::InvalidArgument`], with the difference, if it is not the same. At a remote, shards that were
    /// uploaded stay, without an index, and the next run begins anew.
    pub fn run(self, meter: &Arc<Meter>, cancel: &Arc<AtomicBool>) -> Result<Summary> {
        self.out_root.refuse_existing(&self.split)?;
        let place = self.out_root.begin(&self.split, self.restart)?;
        place.records().map_or(Ok(()), |folder| self.manifest().agree(folder))?;
        let mut output = Output::open(&place, &self.content, self.writer.clone())?;
        let stop = output.writer.stopper();
        let summary = thread::scope(|scope| {
            let (running, ended) = mpsc::channel();
            scope.spawn(move || stop_if_cancelled(cancel, &ended, stop));
            let written = match self.write(&mut output, place.records(), meter, cancel) {
                Ok(summary) => summary.complete(output),
                Err(error) => {
                    if place.records().is_some() {
                        // What is in work is kept as well; what fails now has no news.
                        let _ = output.writer.abandon();
                    }
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

    /// How many complete shards an earlier run has left that this one goes on with.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`], with the difference, if that run was not the same conversion; as the file system
    /// fails.
    pub fn unfinished(&self) -> Result<usize> {
        match self.out_root.unfinished(&self.split).filter(|_| !self.restart) {
            Some((folder, shards)) => self.manifest().is_at(&folder).map(|_| shards),
            None => Ok(0),
        }
    }

    /// What the output depends on.
    fn manifest(&self) -> Manifest {
        Manifest::new(self.settings(), &self.files)
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
            Content::Text => set("columns", "text".to_owned()),
            Content::Tokens(tokens) => {
                let of_json = HashAlgorithm::Xxh64.hex(tokens.tokenizer.json().as_bytes());
                set("columns", "tokens".to_owned());
                set("--concat_tokens", tokens.length.to_string());
                set("--tokenizer", format!("{} (xxh64 {of_json})", tokens.tokenizer.name()));
                set("--bos_text", format!("{:?}", tokens.bos_text));
                set("--eos_text", format!("{:?}", tokens.eos_text));
                if !tokens.wrap {
                    set("--no_wrap", String::new());
                }
            }
        }
        if let Some(compression) = &writer.compression {
            set("--compression", compression.to_string());
        }
        if !writer.hashes.is_empty() {
            let hashes: Vec<String> = writer.hashes.iter().map(ToString::to_string).collect();
            set("--hashes", hashes.join(","));
        }
        set("--size_limit", writer.size_limit.unwrap_or(0).to_string());
        settings
    }

    /// Everything from the source to the last sample.
    fn write(
        self,
        output: &mut Output,
        records: Option<&Path>,
        meter: &Arc<Meter>,
        cancel: &Arc<AtomicBool>,
    ) -> Result<Summary> {
        let mut summary = Summary {
            address: self.out_root.shown(&self.split),
            documents: 0,
            samples: 0,
            shards: 0,
            bytes: 0,
            dropped_tokens: 0,
            skipped: 0,
            bad_lines: Vec::new(),
        };

        let parse = parser(&self.content, self.on_bad_line);
        let mut journal = Journal::new(self.writer.size_limit, self.writer.threads());
        let mut from = Position::default();
        if let Some(folder) = records {
            let (samples, bytes) = (output.writer.samples(), output.writer.bytes());
            let progress = journal.resume(folder, samples, bytes)?;
            from = progress.position;
            summary.documents = progress.documents;
            summary.skipped = progress.skipped;
            summary.bad_lines = progress.bad_lines;
            output.resume(progress.samples, progress.pending);
            meter.add_documents(summary.documents);
        }
        output.most = self.split.most_samples;
        let mut chunks = ParsedChunks::start(self.files, from, parse, self.threads, meter, cancel);
        while !output.is_full()
            && let Some((parsed, end)) = chunks.next()?
        {
            summary.documents += parsed.documents;
            summary.skipped += parsed.bad_lines.len() as u64;
            let room = QUOTED_BAD_LINES - summary.bad_lines.len();
            summary.bad_lines.extend(parsed.bad_lines.into_iter().take(room));
            output.write(&parsed.content)?;
            meter.add_documents(parsed.documents);
            meter.set_samples(output.samples());
            let bytes = output.writer.bytes();
            if let Some(folder) = records.filter(|_| journal.is_due(bytes)) {
                let progress = Progress {
                    position: end,
                    samples: output.samples(),
                    documents: summary.documents,
                    skipped: summary.skipped,
                    bad_lines: summary.bad_lines.clone(),
                    pending: output.pending().to_vec(),
                };
                journal.record(progress, bytes, folder)?;
            }
        }
        summary.samples = output.samples();
        if !output.is_full() {
            summary.dropped_tokens = output.pending().len();
        }
        if summary.samples == 0 {
            return Err(no_sample(&self.split, &self.content, &summary));
        }
        Ok(summary)
    }
}

impl Summary {
    /// Adds the index, and what it says.
    fn complete(mut self, output: Output) -> Result<Self> {
        let index = output.writer.finish()?;
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

fn no_sample(split: &Split, content: &Content, summary: &Summary) -> Error {
    let skipped = match summary.skipped {
        0 => String::new(),
        n => format!(" ({n} unreadable lines were skipped)"),
    };
    let (what, remedy) = match content {
        Content::Tokens(options) if summary.documents > 0 => (
            format!(
                "split {split}: {} documents hold too few tokens for one sample of {}{skipped}",
                summary.documents, options.length
            ),
            "use more text or a smaller --concat_tokens",
        ),
        _ => (
            format!("split {split}: the source holds no documents{skipped}"),
            "check that --source names files with text",
        ),
    };
    Error::new(ErrorKind::Empty, what, remedy)
}

/// What the workers make of a chunk.
struct Parsed {
    documents: u64,
    content: ParsedContent,
    bad_lines: Vec<BadLine>,
}

enum ParsedContent {
    Records(Vec<Record>),
    Texts(Vec<String>),
    /// The ids of all documents, and where each ends.
    Tokens {
        ids: Vec<u32>,
        ends: Vec<usize>,
    },
}

fn parser(content: &Content, on_bad_line: OnBadLine) -> Arc<Parse<Parsed>> {
    match content {
        Content::Text => Arc::new(move |file, chunk| {
            let mut texts = Vec::new();
            let bad_lines = for_each_line(file, chunk, on_bad_line, |line| {
                texts.push(parse_text(line)?.into_owned());
                Ok(())
            })?;
            let documents = texts.len() as u64;
            Ok(Parsed { documents, content: ParsedContent::Texts(texts), bad_lines })
        }),
        Content::Records => Arc::new(move |file, chunk| {
            let mut records = Vec::new();
            let bad_lines = for_each_line(file, chunk, on_bad_line, |line| {
                records.push(Record::parse(line)?);
                Ok(())
            })?;
            let documents = records.len() as u64;
            Ok(Parsed { documents, content: ParsedContent::Records(records), bad_lines })
        }),
        Content::Tokens(options) => {
            let tokenizer = options.tokenizer.clone();
            Arc::new(move |file, chunk| {
                let (mut ids, mut ends) = (Vec::new(), Vec::new());
                let bad_lines = for_each_line(file, chunk, on_bad_line, |line| {
                    let text = parse_text(line)?;
                    ids.extend(tokenizer.encode(&text).map_err(|e| e.to_string())?);
                    ends.push(ids.len());
                    Ok(())
                })?;
                let documents = ends.len() as u64;
                Ok(Parsed { documents, content: ParsedContent::Tokens { ids, ends }, bad_lines })
            })
        }
    }
}

/// Parses each line, collecting those that fail, or failing at the first of them.
fn for_each_line(
    file: &str,
    chunk: &Chunk,
    on_bad_line: OnBadLine,
    mut parse: impl FnMut(&[u8]) -> Result<(), String>,
) -> Result<Vec<BadLine>> {
    let mut bad_lines = Vec::new();
    for (number, line) in chunk.lines() {
        if let Err(problem) = parse(line) {
            let bad = BadLine { file: file.to_owned(), line: number, problem };
            if on_bad_line == OnBadLine::Fail {
                let remedy = "correct the line, or leave such lines out with --on_bad_line skip";
                return Err(Error::new(ErrorKind::Corrupt, bad.to_string(), remedy));
            }
            bad_lines.push(bad);
        }
    }
    Ok(bad_lines)
}

/// The shards of a split being written.
struct Output {
    writer: Writer,
    concat: Option<Concatenator>,
    /// Samples that come again, and are in the shards already.
    again: u64,
    /// How many samples are taken, if not all.
    most: Option<u64>,
}

impl Output {
    /// Begins the shards, or goes on after those that are there.
    fn open(place: &Unfinished, content: &Content, options: WriterOptions) -> Result<Self> {
        let (schema, concat) = match content {
            Content::Text => (Schema::new([("text", Encoding::Str)])?, None),
            Content::Records => {
                (Schema::new(["text", "timestamp", "url"].map(|c| (c, Encoding::Str)))?, None)
            }
            Content::Tokens(tokens) => {
                let encoding = Encoding::NdArray { dtype: Some(DType::I32), shape: None };
                let bos = tokens.tokenizer.encode_bare(&tokens.bos_text)?;
                let eos = tokens.tokenizer.encode_bare(&tokens.eos_text)?;
                let concat = Concatenator::new(tokens.length, bos, eos, tokens.wrap);
                (Schema::new([("tokens", encoding)])?, Some(concat))
            }
        };
        let writer = match place.records() {
            Some(_) => Writer::resume(place.output(), schema, options)?,
            None => Writer::create(place.output(), schema, options)?,
        };
        Ok(Self { writer, concat, again: 0, most: None })
    }

    /// Takes the samples after the first `samples`, and `pending` tokens before them.
    fn resume(&mut self, samples: u64, pending: Vec<u32>) {
        self.again = self.writer.samples() - samples;
        if let Some(concat) = &mut self.concat {
            concat.resume(pending);
        }
    }

    /// How many samples there have been.
    fn samples(&self) -> u64 {
        self.writer.samples() - self.again
    }

    /// Whether no more samples are taken.
    fn is_full(&self) -> bool {
        self.most.is_some_and(|most| self.samples() >= most)
    }

    /// Tokens that wait to become a sample.
    fn pending(&self) -> &[u32] {
        self.concat.as_ref().map_or(&[], Concatenator::pending)
    }

    fn write(&mut self, content: &ParsedContent) -> Result<()> {
        match content {
            ParsedContent::Records(records) => {
                for record in records {
                    // In the order of the schema's columns, which is that of their names.
                    let values = [&record.text, &record.timestamp, &record.url];
                    self.write_sample(&values.map(|v| Value::from(v.as_str())))?;
                }
                Ok(())
            }
            ParsedContent::Texts(texts) => {
                texts.iter().try_for_each(|text| self.write_sample(&[Value::from(text.as_str())]))
            }
            ParsedContent::Tokens { ids, ends } => self.write_tokens(ids, ends),
        }
    }

    fn write_tokens(&mut self, ids: &[u32], ends: &[usize]) -> Result<()> {
        let Some(mut concat) = self.concat.take() else { return Ok(()) };
        let mut start = 0;
        let mut result = Ok(());
        for &end in ends {
            concat.push(&ids[start..end], |sample| {
                if result.is_ok() {
                    result = self.write_ids(sample);
                }
            });
            start = end;
        }
        self.concat = Some(concat);
        result
    }

    fn write_ids(&mut self, sample: &[u32]) -> Result<()> {
        let ids: Result<Vec<i32>, _> = sample.iter().map(|&id| i32::try_from(id)).collect();
        let ids = ids.map_err(|_| {
            let what = "the tokenizer has ids above 2^31, which int32 cannot hold";
            Error::invalid(what, "use another")
        })?;
        self.write_sample(&[Value::NdArray(NdArray::from_i32(&ids))])
    }

    fn write_sample(&mut self, values: &[Value<'_>]) -> Result<()> {
        if self.is_full() {
            return Ok(());
        }
        match self.again.checked_sub(1) {
            Some(rest) => self.again = rest,
            None => self.writer.write(values)?,
        }
        Ok(())
    }
}
