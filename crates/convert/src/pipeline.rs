//! Source files to parsed chunks, on many threads, in order.
//!
//! ```text
//! planner (one thread)                               the parts of files
//!   -> readers (one thread each, a few parts ahead)  decompress, cut into chunks of documents
//!   -> sequencer                                     parts in order, chunks in order
//!   -> workers (any order)                           parse, tokenise
//!   -> ParsedChunks::next                            the sequencer's order again
//! ```
//!
//! Every queue is bounded, so memory does not grow with the source, and the result does not depend on the number of
//! threads. The last two steps are [`Ordered`]. Dropping [`ParsedChunks`] ends the threads: each stops at its next send.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;

use crate::error::{Error, Result};
use crate::manifest::Position;
use crate::ordered::{Ordered, Put};
use crate::progress::{Meter, Stage};
use crate::source::chunk::Chunk;
use crate::source::{Part, SourceFile};

/// Decompressed chunks that wait in the reader of each part: as a rule 2 MiB.
const CHUNKS_AHEAD: usize = 8;

/// Parts that wait to be read. Those of a remote Parquet file are on this machine.
const PARTS_AHEAD: usize = 2;

/// What a worker makes of one chunk; the arguments are the file's name and the chunk.
pub(crate) type Parse<T> = dyn Fn(&str, &Chunk) -> Result<T> + Send + Sync;

/// The parsed chunks of all files, in order.
pub(crate) struct ParsedChunks<T> {
    results: Ordered<Result<(T, Position), Failed>>,
    /// The number of the file that failed.
    failed_in: Option<usize>,
}

/// Why there are no more chunks, and the number of the file whose fault it is, if it is a file's.
type Failed = (Error, Option<usize>);

/// What the sequencer hands out next.
enum Open {
    /// The part of the file of this number, which is being read.
    Part(usize, Arc<str>, OpenPart),
    End(Result<(), Failed>),
}

/// What a worker gets.
struct Work {
    file: Arc<str>,
    chunk: Chunk,
    end: Position,
}

impl<T: Send + 'static> ParsedChunks<T> {
    /// Starts reading `files` at `from` and parsing their lines on `threads` threads.
    pub(crate) fn start(
        files: Vec<SourceFile>,
        from: Position,
        parse: Arc<Parse<T>>,
        threads: usize,
        meter: &Arc<Meter>,
        cancel: &Arc<AtomicBool>,
    ) -> Self {
        // Half of the threads' worth of parts are unpacked at a time: as a rule gunzip and JSON
        // take less than the tokenizer does.
        let open_parts = threads.div_ceil(2).max(1);
        let meter = Arc::clone(meter);
        let produce = move |put: &mut Put<'_, Work>| {
            sequence(files, from, open_parts, &meter, put).err().map(Err)
        };
        let work = move |Work { file, chunk, end }: Work| match parse(&file, &chunk) {
            Ok(parsed) => Ok((parsed, end)),
            Err(error) => Err((error, Some(end.file))),
        };
        Self { results: Ordered::start(produce, work, threads, cancel), failed_in: None }
    }

    /// The next chunk's result, and where the chunk ends; `None` after the last.
    ///
    /// # Errors
    /// The first failure in the order of the source, whatever the threads met first;
    /// [`crate::ErrorKind::Interrupted`] once the cancel flag is set.
    pub(crate) fn next(&mut self) -> Result<Option<(T, Position)>> {
        self.results.next()?.transpose().map_err(|(error, file)| {
            self.failed_in = file;
            error
        })
    }

    /// The number of the file in which [`next`](Self::next) failed, if it is a file's fault.
    pub(crate) fn failed_in(&self) -> Option<usize> {
        self.failed_in
    }
}

/// Puts the chunks of all files in order, `open_parts` parts of them being read at a time.
fn sequence(
    files: Vec<SourceFile>,
    from: Position,
    open_parts: usize,
    meter: &Arc<Meter>,
    put: &mut Put<'_, Work>,
) -> Result<(), Failed> {
    files.iter().take(from.file).for_each(|file| meter.pass_over(file.bytes()));
    let parts = start_planner(files, from);
    let mut open = VecDeque::new();
    loop {
        while open.len() < open_parts {
            // Only where there is nothing else to do is a part waited for.
            let planned = match open.is_empty() {
                true => parts.recv().map_err(|_| TryRecvError::Disconnected),
                false => parts.try_recv(),
            };
            match planned {
                Ok(Ok(Some((file, part)))) => {
                    let name = Arc::clone(&part.name);
                    open.push_back(Open::Part(file, name, start_reader(part, meter)));
                }
                Ok(Ok(None)) => open.push_back(Open::End(Ok(()))),
                Ok(Err((file, error))) => open.push_back(Open::End(Err((error, Some(file))))),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) if open.is_empty() => {
                    return Err((Error::internal("the planning thread died"), None));
                }
                Err(TryRecvError::Disconnected) => break,
            }
        }
        let (file, name, chunks) = match open.pop_front() {
            Some(Open::Part(file, name, chunks)) => (file, name, chunks),
            Some(Open::End(end)) => return end,
            None => continue,
        };
        loop {
            match chunks.recv() {
                Ok(Ok(Some((chunk, end)))) => {
                    let bytes = chunk.bytes();
                    let work = Work { file: Arc::clone(&name), chunk, end };
                    put(work, bytes).map_err(|e| (e, None))?;
                }
                Ok(Ok(None)) => break,
                Ok(Err(error)) => return Err((error, Some(file))),
                Err(_) => return Err((Error::internal("a reading thread died"), None)),
            }
        }
    }
}

/// A part, or why there are no more, each with the number of its file.
type Planned = Result<Option<(usize, Part)>, (usize, Error)>;

/// Finds the parts of all files, on a thread of its own, since those of a remote Parquet file are known when it is here.
/// The last message is `Ok(None)` or an error.
fn start_planner(files: Vec<SourceFile>, from: Position) -> Receiver<Planned> {
    let (send, receive) = sync_channel(PARTS_AHEAD);
    thread::spawn(move || {
        for (number, file) in files.into_iter().enumerate().skip(from.file) {
            let start = Position { file: number, ..Position::default() };
            let parts = match file.parts(start.max(from)) {
                Ok(parts) => parts,
                Err(error) => {
                    let _ = send.send(Err((number, error)));
                    return;
                }
            };
            for part in parts {
                if send.send(Ok(Some((number, part)))).is_err() {
                    return;
                }
            }
        }
        let _ = send.send(Ok(None));
    });
    receive
}

/// Chunks, and where each ends.
type OpenPart = Receiver<Result<Option<(Chunk, Position)>>>;

/// Reads a part on a thread of its own; the last message is `Ok(None)` or an error.
fn start_reader(part: Part, meter: &Arc<Meter>) -> OpenPart {
    let (send, receive) = sync_channel(CHUNKS_AHEAD);
    let meter = Arc::clone(meter);
    thread::spawn(move || {
        let mut chunks = match part.chunks(&meter) {
            Ok(chunks) => chunks,
            Err(error) => {
                let _ = send.send(Err(error));
                return;
            }
        };
        loop {
            let chunk = meter.time(Stage::Read, || chunks.next()).transpose();
            let last = !matches!(chunk, Ok(Some(_)));
            if send.send(chunk).is_err() || last {
                return;
            }
        }
    });
    receive
}
