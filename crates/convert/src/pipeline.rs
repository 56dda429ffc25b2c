//! Source files to parsed chunks, on many threads, in order.
//!
//! ```text
//! planner (one thread)                               the parts of files
//!   -> readers (one thread each, a few parts ahead)  decompress, cut into chunks of documents
//!   -> sequencer                                     parts in order, chunks in order
//!   -> workers (any order)                           parse, tokenise
//!   -> Parsed::next                                  the sequencer's order again
//! ```
//!
//! Every queue is bounded, so memory does not grow with the source, and the result does not depend
//! on the number of threads. Dropping [`ParsedChunks`] ends the threads: each stops at its next
//! send.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::manifest::Position;
use crate::progress::{Meter, Stage};
use crate::source::chunk::Chunk;
use crate::source::{Part, SourceFile};

/// Decompressed chunks that wait in the reader of each part: as a rule 2 MiB.
const CHUNKS_AHEAD: usize = 8;

/// Parts that wait to be read. Those of a remote Parquet file are on this machine.
const PARTS_AHEAD: usize = 2;

/// How long who waits takes to notice that it shall stop.
pub(crate) const POLL: Duration = Duration::from_millis(50);

/// What a worker makes of one chunk; the arguments are the file's name and the chunk.
pub(crate) type Parse<T> = dyn Fn(&str, &Chunk) -> Result<T> + Send + Sync;

/// The parsed chunks of all files, in order.
pub(crate) struct ParsedChunks<T> {
    order: Receiver<Slot<T>>,
    cancel: Arc<AtomicBool>,
    /// The number of the file that failed.
    failed_in: Option<usize>,
}

/// A place in the order.
enum Slot<T> {
    /// The result of a chunk, now or later, and where the chunk ends.
    Chunk(Receiver<Result<T>>, Position),
    /// The source failed here, in the file of this number.
    Failed(Error, Option<usize>),
    /// Every file was read to its end. Without this mark a dead thread would look like an end.
    End,
}

struct Work<T> {
    file: Arc<str>,
    chunk: Chunk,
    reply: SyncSender<Result<T>>,
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
        let threads = threads.max(1);
        let (work, todo) = sync_channel::<Work<T>>(2 * threads);
        let (slots, order) = sync_channel(4 * threads);
        let todo = Arc::new(Mutex::new(todo));
        for _ in 0..threads {
            let (todo, parse) = (Arc::clone(&todo), Arc::clone(&parse));
            thread::spawn(move || run_worker(&todo, &*parse));
        }
        // Half of the threads' worth of parts are unpacked at a time: as a rule gunzip and JSON
        // take less than the tokenizer does.
        let open_parts = threads.div_ceil(2);
        let meter = Arc::clone(meter);
        thread::spawn(move || run_sequencer(files, from, open_parts, &meter, &work, &slots));
        Self { order, cancel: Arc::clone(cancel), failed_in: None }
    }

    /// The next chunk's result, and where the chunk ends; `None` after the last.
    ///
    /// # Errors
    /// The first failure in the order of the source, whatever the threads met first;
    /// [`crate::ErrorKind::Interrupted`] once the cancel flag is set.
    pub(crate) fn next(&mut self) -> Result<Option<(T, Position)>> {
        match self.wait(&self.order)? {
            Slot::Chunk(reply, end) => match self.wait(&reply)? {
                Ok(parsed) => Ok(Some((parsed, end))),
                Err(error) => {
                    self.failed_in = Some(end.file);
                    Err(error)
                }
            },
            Slot::Failed(error, file) => {
                self.failed_in = file;
                Err(error)
            }
            Slot::End => Ok(None),
        }
    }

    /// The number of the file in which [`next`](Self::next) failed, if it is a file's fault.
    pub(crate) fn failed_in(&self) -> Option<usize> {
        self.failed_in
    }

    fn wait<V>(&self, queue: &Receiver<V>) -> Result<V> {
        loop {
            if self.cancel.load(Ordering::Relaxed) {
                return Err(Error::interrupted());
            }
            match queue.recv_timeout(POLL) {
                Ok(value) => return Ok(value),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::internal("a conversion thread died"));
                }
            }
        }
    }
}

fn run_worker<T>(todo: &Mutex<Receiver<Work<T>>>, parse: &Parse<T>) {
    loop {
        let next = todo.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Work { file, chunk, reply }) = next else { return };
        // A consumer that is gone needs no answer.
        let _ = reply.send(parse(&file, &chunk));
    }
}

/// Hands out the chunks of all files in order, `open_parts` parts of them being read at a time.
fn run_sequencer<T>(
    files: Vec<SourceFile>,
    from: Position,
    open_parts: usize,
    meter: &Arc<Meter>,
    work: &SyncSender<Work<T>>,
    slots: &SyncSender<Slot<T>>,
) {
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
                Ok(Ok(Some((file, part)))) => open.push_back(Ok((file, start_reader(part, meter)))),
                Ok(Ok(None)) => open.push_back(Err(Slot::End)),
                Ok(Err((file, error))) => {
                    open.push_back(Err(Slot::Failed(error, Some(file))));
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) if open.is_empty() => {
                    let error = Error::internal("the planning thread died");
                    open.push_back(Err(Slot::Failed(error, None)));
                }
                Err(TryRecvError::Disconnected) => break,
            }
        }
        let (file, (name, chunks)) = match open.pop_front() {
            Some(Ok(reader)) => reader,
            Some(Err(last)) => {
                let _ = slots.send(last);
                return;
            }
            None => continue,
        };
        loop {
            match chunks.recv() {
                Ok(Ok(Some((chunk, end)))) => {
                    let (reply, result) = sync_channel(1);
                    let job = Work { file: Arc::clone(&name), chunk, reply };
                    if slots.send(Slot::Chunk(result, end)).is_err() || work.send(job).is_err() {
                        return;
                    }
                }
                Ok(Ok(None)) => break,
                Ok(Err(error)) => {
                    let _ = slots.send(Slot::Failed(error, Some(file)));
                    return;
                }
                Err(_) => {
                    let error = Error::internal("a reading thread died");
                    let _ = slots.send(Slot::Failed(error, None));
                    return;
                }
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
fn start_reader(part: Part, meter: &Arc<Meter>) -> (Arc<str>, OpenPart) {
    let (send, receive) = sync_channel(CHUNKS_AHEAD);
    let name = Arc::clone(&part.name);
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
    (name, receive)
}
