//! Source files to parsed chunks, on many threads, in order.
//!
//! ```text
//! planner (one thread)                                 the parts of files
//!   -> readers (parts in turn)                         decompress, cut into chunks of documents
//!   -> sequencer                                       parts in order, chunks in order
//!   -> workers (any order)                             parse, tokenise
//!   -> ParsedChunks::next                              the sequencer's order again
//! ```
//!
//! Every queue is bounded, so memory does not grow with the source, and the result does not depend on the number of
//! threads. The last two steps are [`Ordered`]. Dropping [`ParsedChunks`] ends the threads: each stops at its next send.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use crate::error::{Error, ErrorKind, Result};
use crate::manifest::Position;
use crate::ordered::{MOST_WORKERS, Ordered, Put, Room};
use crate::progress::{Meter, Stage};
use crate::source::chunk::Chunk;
use crate::source::{Part, SourceFile};

/// Decompressed chunks that wait with each reader, and their bytes: as a rule there are 2 MiB.
const CHUNKS_AHEAD: usize = 8;
const BYTES_AHEAD: usize = 16 << 20;

/// Parts that wait for each reader. Those of a remote Parquet file are on this machine.
const PARTS_AHEAD: usize = 1;

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
        let readers = threads.clamp(1, MOST_WORKERS).div_ceil(2);
        let meter = Arc::clone(meter);
        let produce = move |put: &mut Put<'_, Work>| {
            sequence(files, from, readers, &meter, put).err().map(Err)
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

/// Puts the chunks of all files in order. The parts are dealt to `readers` threads in turn, which go on to their next one
/// when a part ends; so they are read at the same time, and very many small ones without a pause.
fn sequence(
    files: Vec<SourceFile>,
    from: Position,
    readers: usize,
    meter: &Arc<Meter>,
    put: &mut Put<'_, Work>,
) -> Result<(), Failed> {
    files.iter().take(from.file).for_each(|file| meter.pass_over(file.bytes()));
    let (dealt, readers): (Vec<_>, Vec<_>) = (0..readers).map(|_| Reader::start(meter)).unzip();
    thread::spawn(move || plan(files, from, &dealt));
    for reader in readers.iter().cycle() {
        loop {
            let next = reader.read.recv();
            match next.map_err(|_| (Error::internal("a reading thread died"), None))? {
                Read::Chunk(work) => {
                    let bytes = work.chunk.bytes();
                    put(work, bytes).map_err(|e| (e, None))?;
                    reader.room.give_back(bytes);
                }
                Read::EndOfPart => break,
                Read::End(end) => return end,
            }
        }
    }
    Err((Error::internal("nobody reads"), None))
}

/// What a reader gets to do.
enum Deal {
    /// A part of the file of this number.
    Part(usize, Part),
    /// There are no more, and why if that is not the end of the source.
    End(Result<(), Failed>),
}

/// What a reader has read.
enum Read {
    Chunk(Work),
    EndOfPart,
    /// The last message of the source.
    End(Result<(), Failed>),
}

/// Finds the parts of all files, on a thread of its own, since those of a remote Parquet file are known when it is here.
fn plan(files: Vec<SourceFile>, from: Position, readers: &[SyncSender<Deal>]) {
    let mut turns = readers.iter().cycle();
    // Who is gone wants no more.
    let mut deal = |deal| turns.next().is_some_and(|reader| reader.send(deal).is_ok());
    for (number, file) in files.into_iter().enumerate().skip(from.file) {
        let start = Position { file: number, ..Position::default() };
        let parts = match file.parts(start.max(from)) {
            Ok(parts) => parts,
            Err(error) => {
                deal(Deal::End(Err((error, Some(number)))));
                return;
            }
        };
        for part in parts {
            if !deal(Deal::Part(number, part)) {
                return;
            }
        }
    }
    deal(Deal::End(Ok(())));
}

/// A thread that reads the parts that are dealt to it, one after the other.
struct Reader {
    read: Receiver<Read>,
    room: Arc<Room>,
}

impl Reader {
    fn start(meter: &Arc<Meter>) -> (SyncSender<Deal>, Self) {
        let (deal, dealt) = sync_channel(PARTS_AHEAD);
        let (send, read) = sync_channel(CHUNKS_AHEAD);
        let room = Arc::new(Room::of(BYTES_AHEAD));
        let (meter, own_room) = (Arc::clone(meter), Arc::clone(&room));
        thread::spawn(move || {
            for deal in dealt {
                let end = match deal {
                    Deal::End(end) => Read::End(end),
                    Deal::Part(number, part) => match unpanicked(&part.name.clone(), || {
                        read_part(part, &meter, &own_room, &send)
                    }) {
                        Ok(()) => Read::EndOfPart,
                        Err(error) => Read::End(Err((error, Some(number)))),
                    },
                };
                if send.send(end).is_err() {
                    return;
                }
            }
        });
        (deal, Self { read, room })
    }
}

/// Ends the thread's wait for room.
impl Drop for Reader {
    fn drop(&mut self) {
        self.room.close();
    }
}

/// What a reader finds wrong with a file. That of Parquet panics at some damage instead of saying so.
fn unpanicked(file: &str, read: impl FnOnce() -> Result<()>) -> Result<()> {
    // Whatever state the reader was left in: nobody reads on after an error.
    panic::catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
        Err(Error::new(
            ErrorKind::Corrupt,
            format!("{file}: its reader gave up in the middle"),
            "the file is damaged or cut short: fetch or write it again",
        ))
    })
}

fn read_part(part: Part, meter: &Arc<Meter>, room: &Room, send: &SyncSender<Read>) -> Result<()> {
    let name = Arc::clone(&part.name);
    let mut chunks = part.chunks(meter)?;
    while let Some((chunk, end)) = meter.time(Stage::Read, || chunks.next()).transpose()? {
        room.take(chunk.bytes())?;
        let work = Work { file: Arc::clone(&name), chunk, end };
        send.send(Read::Chunk(work)).map_err(|_| Error::interrupted())?;
    }
    Ok(())
}
