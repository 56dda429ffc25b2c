//! Source files to parsed chunks, on many threads, in order.
//!
//! ```text
//! file readers (one thread each, a few files ahead)  gunzip, cut into chunks of lines
//!   -> sequencer                                     files in order, chunks in order
//!   -> workers (any order)                           parse, tokenise
//!   -> Parsed::next                                  the sequencer's order again
//! ```
//!
//! Every queue is bounded, so memory does not grow with the source, and the result does not depend
//! on the number of threads. Dropping [`ParsedChunks`] ends the threads: each stops at its next
//! send.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::manifest::Position;
use crate::progress::Meter;
use crate::source::SourceFile;
use crate::source::lines::{Chunk, ChunkReader};

/// Decompressed chunks that wait in each file's reader: 2 MiB a file.
const CHUNKS_AHEAD: usize = 8;

/// How long who waits takes to notice that it shall stop.
pub(crate) const POLL: Duration = Duration::from_millis(50);

/// What a worker makes of one chunk; the arguments are the file's name and the chunk.
pub(crate) type Parse<T> = dyn Fn(&str, &Chunk) -> Result<T> + Send + Sync;

/// The parsed chunks of all files, in order.
pub(crate) struct ParsedChunks<T> {
    order: Receiver<Slot<T>>,
    cancel: Arc<AtomicBool>,
}

/// A place in the order.
enum Slot<T> {
    /// The result of a chunk, now or later, and where the chunk ends.
    Chunk(Receiver<Result<T>>, Position),
    /// The source failed here.
    Failed(Error),
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
        // Half of the threads' worth of files are unpacked at a time: as a rule gunzip and JSON
        // take less than the tokenizer does.
        let open_files = threads.div_ceil(2).min(files.len().max(1));
        let meter = Arc::clone(meter);
        thread::spawn(move || run_sequencer(files, from, open_files, &meter, &work, &slots));
        Self { order, cancel: Arc::clone(cancel) }
    }

    /// The next chunk's result, and where the chunk ends; `None` after the last.
    ///
    /// # Errors
    /// The first failure in the order of the source, whatever the threads met first;
    /// [`crate::ErrorKind::Interrupted`] once the cancel flag is set.
    pub(crate) fn next(&mut self) -> Result<Option<(T, Position)>> {
        match self.wait(&self.order)? {
            Slot::Chunk(reply, end) => self.wait(&reply)?.map(|parsed| Some((parsed, end))),
            Slot::Failed(error) => Err(error),
            Slot::End => Ok(None),
        }
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

/// Hands out the chunks of all files in order, `open_files` files being read at a time.
fn run_sequencer<T>(
    files: Vec<SourceFile>,
    from: Position,
    open_files: usize,
    meter: &Arc<Meter>,
    work: &SyncSender<Work<T>>,
    slots: &SyncSender<Slot<T>>,
) {
    files.iter().take(from.file).for_each(|file| meter.pass_over(file.bytes()));
    let mut waiting = files.into_iter().enumerate().skip(from.file);
    let mut open = VecDeque::new();
    loop {
        while open.len() < open_files
            && let Some((number, file)) = waiting.next()
        {
            let start = Position { file: number, ..Position::default() };
            open.push_back(start_reader(file, start.max(from), meter));
        }
        let Some((name, chunks)) = open.pop_front() else {
            let _ = slots.send(Slot::End);
            return;
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
                    let _ = slots.send(Slot::Failed(error));
                    return;
                }
                Err(_) => {
                    let _ = slots.send(Slot::Failed(Error::internal("a reading thread died")));
                    return;
                }
            }
        }
    }
}

/// Chunks, and where each ends.
type Chunks = Receiver<Result<Option<(Chunk, Position)>>>;

/// Reads one file from `start` on, on a thread of its own; the last message is `Ok(None)` or an error.
fn start_reader(file: SourceFile, start: Position, meter: &Arc<Meter>) -> (Arc<str>, Chunks) {
    let (send, receive) = sync_channel(CHUNKS_AHEAD);
    let name: Arc<str> = file.name().into();
    let meter = Arc::clone(meter);
    thread::spawn(move || {
        let count = Arc::new(AtomicU64::new(0));
        let mut reader = match file.open(&meter, &count) {
            Ok(reader) => ChunkReader::new(reader),
            Err(error) => {
                let _ = send.send(Err(error));
                return;
            }
        };
        let failed = |e| Error::from_read(e, file.name(), count.load(Ordering::Relaxed));
        if let Err(error) = reader.skip(start.offset, start.lines) {
            let _ = send.send(Err(failed(error)));
            return;
        }
        loop {
            let chunk = reader.next().map_err(failed);
            let (offset, lines) = reader.place();
            let end = Position { file: start.file, offset, lines };
            let chunk = chunk.map(|chunk| chunk.map(|chunk| (chunk, end)));
            let last = !matches!(chunk, Ok(Some(_)));
            if send.send(chunk).is_err() || last {
                return;
            }
        }
    });
    (name, receive)
}
