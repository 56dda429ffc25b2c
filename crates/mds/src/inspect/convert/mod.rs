//! Writing a dataset again: in another format, with another compression, other hashes, fewer
//! columns.
//!
//! An [`Input`] gives shards or record batches, read ahead by a thread of its own; a [`Sink`] takes
//! them. What keeps its columns and its format is copied sample by sample without being decoded.

mod columns;
mod fetched;
mod files;
mod input;
mod json_lines;
mod options;
mod parts;
mod position;
mod sink;
mod stop;
mod text;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use clap::ValueEnum;
use mds::format::{Compression, HashAlgorithm, parse_size};
use mds::storage::{Remote, RemoteOptions, is_address};
use mds::{Error, ErrorKind};

use super::{Common, Failure, is_watched, progress, show};
use files::{Files, Place};
use input::{Input, Piece};
use options::OrNone;
use sink::Sink;
use stop::StopSignal;

pub(super) const EXAMPLES: &str = "\
Examples:
  mds-inspect convert ./c4 ./c4-zstd --compression zstd:7 --hashes sha1,xxh64
                                          the val split of ./c4, compressed and hashed
  mds-inspect convert ./c4 ./c4-train --split train --size_limit 128mb
  mds-inspect convert s3://bucket/c4 ./c4-json --to json --columns text,url
  mds-inspect convert ./c4 ./c4-parquet --to parquet
  mds-inspect convert s3://bucket/c4 s3://bucket/c4-parquet --to parquet
  mds-inspect convert ./c4-parquet s3://bucket/c4 --compression zstd
  mds-inspect convert crawl.jsonl.gz ./crawl

SOURCE is a dataset (mds, json, csv, tsv or xsv; a path or a URL), a .parquet file, a folder of
them, or a plain text file: .jsonl, .ndjson, .json (an object in each line), .csv, .tsv (with a
line of names; quotes are understood), as it is or as .gz or .zst. Files at a URL are brought into
a temporary folder. The types of a text file are inferred from all of it. In CSV a column with an
empty field is text, and so are dates; a column of digits alone is of integers, and 007 becomes 7,
as +7 and \"7\" do. In JSON lines, objects, texts beside numbers and whatever else is not of one kind
become a column json, unchanged; lists of numbers are arrays. true and false become 1 and 0 of
uint8 in both. Nulls are refused, but in json. A column of integers and floats, or of integers
beyond 64 bits in a plain JSON file, is one of float64; an integer that no float64 is equal to is
refused there. A line may have 256 MiB.

What is not given stays as it is in a dataset: format, compression, hashes, size limit. With all
columns and the same format, samples are copied as they are, byte for byte. Other sources become
mds, not compressed, without hashes, in shards of 64mb. `none` switches a thing off.

Columns, from mds to json, csv, tsv and xsv, which hold texts, integers and floats alone:
  str, json, str_decimal                                 the text
  int, int8 ... uint64, str_int                          the integer
  float16, float32, float64, str_float                   the float
  bytes, arrays, images, pickles                         refused: leave them out with --columns
From those formats to mds: str, int (64 bits) and float64. Separated values have no quotes: a text
that contains the separator or the line end is refused.

Parquet keeps the exact encoding and the values of each column, so that the way back gives equal
values: the same samples, if their texts of numbers were as a writer makes them (1.5, not 1.50).
Compression, hashes and size limit of the shards are not recorded: give them again on the way back
for the same shards. Arrays of several dimensions in a column ndarray:<type>, without a shape,
cannot be written to Parquet, nor can pickles. OUT becomes a folder of part-00000.parquet and so on:
one for each shard or file of SOURCE, or of about --size_limit bytes before compression. Its
compressions are zstd (the default), snappy, gz, br and none. At a URL the parts appear when all are
complete, the first one last: without part-00000.parquet an upload was cut off. Until then they
take as much room in the folder for temporary files.

OUT must not exist or be empty, nor be in the folder of SOURCE, if that is a dataset. It gets its
index, or its parts their names, the first one last, when all is written. An error or Ctrl-C
removes what is unfinished; at a URL the shards of a dataset that were uploaded stay, without an
index. A file without rows becomes a dataset without samples, or one Parquet file without rows; a
dataset without samples has no columns, and becomes a dataset alone.";

#[derive(Debug, clap::Args)]
pub(super) struct Flags {
    /// What to convert: a dataset, or a file or folder of another kind
    source: String,

    /// Where to: a folder or a URL
    out: String,

    /// The format to write [default: that of SOURCE if it is a dataset, else mds]
    #[arg(long, value_enum)]
    to: Option<Target>,

    /// br, bz2, gz, snappy, zstd or none, with a level as in zstd:7 [default: as SOURCE]
    #[arg(long, value_name = "CODE", value_parser = OrNone::<()>::parse::<Compression>)]
    compression: Option<OrNone<Compression>>,

    /// Hashes to record of every file, such as sha1,xxh64, or none [default: as SOURCE]
    #[arg(
        long,
        value_name = "HASH",
        value_delimiter = ',',
        value_parser = OrNone::<()>::parse::<HashAlgorithm>
    )]
    hashes: Vec<OrNone<HashAlgorithm>>,

    /// Begin a new shard before this size, such as 64mb; 0 for no limit [default: as SOURCE]
    #[arg(
        long = "size_limit",
        alias = "size-limit",
        value_name = "SIZE",
        value_parser = parse_size
    )]
    size_limit: Option<u64>,

    /// Keep these columns only
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    columns: Vec<String>,

    /// What stands between two values of xsv
    #[arg(long, value_name = "TEXT", value_parser = options::text)]
    separator: Option<String>,

    /// What ends a line of the text formats; \n, \r, \t and \\ are understood [default: \n]
    #[arg(long, value_name = "TEXT", value_parser = options::text)]
    newline: Option<String>,

    /// Threads that compress and hash; what is written does not depend on it [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Target {
    Mds,
    Json,
    Csv,
    Tsv,
    Xsv,
    Parquet,
}

pub(super) fn run(flags: &Flags, common: &Common, out: &mut dyn Write) -> Result<(), Failure> {
    let stop = StopSignal::install()?;
    let options = options::Options::check(flags)?;
    let mut input = Input::find(&flags.source, common.split.as_deref(), &options.columns, &stop)?;
    if let Input::Dataset(source) = &mut input {
        source.pickle_bytes = common.pickle_bytes;
    }
    refuse_empty(&input)?;
    refuse_inside(&flags.out, &input)?;
    refuse_around(&flags.out, &input)?;
    let started = Instant::now();
    let converted = stop.while_converting(|| {
        let sink = Sink::create(&flags.out, &input, &options, &stop)?;
        convert(&input, sink, &stop, out)
    });
    let totals = converted.map_err(|failure| match failure {
        Failure::Interrupted(_) if is_address(&flags.out) && flags.to != Some(Target::Parquet) => {
            Failure::Interrupted(format!(
                "interrupted; {} has no index, and shards that were uploaded stay there",
                mds::redacted(&flags.out)
            ))
        }
        other => other,
    })?;
    let seconds = started.elapsed().as_secs_f64();
    let per_second = |n: u64| n as f64 / seconds.max(1e-9);
    writeln!(
        out,
        "converted {} from {} ({}) to {} ({}) in {seconds:.2} s: {:.0} samples/s, {:.1} MB/s",
        show::count(totals.samples, "sample"),
        show::count(input.units(), input.noun()),
        show::size(totals.bytes_in),
        show::count(totals.units_out, totals.noun_out),
        show::size(totals.bytes_out),
        per_second(totals.samples),
        per_second(totals.bytes_in) / 1e6,
    )?;
    Ok(())
}

/// What columns a text file has is known from its rows alone. Others say it themselves.
fn refuse_empty(input: &Input) -> mds::Result<()> {
    if input.samples() > 0 || !input.files().is_some_and(Files::are_text) {
        return Ok(());
    }
    let (what, remedy) = ("there are no samples to convert", "give a source that has some");
    Err(Error::new(ErrorKind::InvalidArgument, what, remedy).in_dataset(input.shown()))
}

/// A dataset in the folder of another one would be taken for a part of it.
fn refuse_inside(out: &str, input: &Input) -> mds::Result<()> {
    let path = out.strip_prefix("file://").unwrap_or(out);
    let Some(folder) = input.folder().and_then(resolved) else { return Ok(()) };
    if is_address(path) || !resolved(path.as_ref()).is_some_and(|p| p.starts_with(&folder)) {
        return Ok(());
    }
    let (out, dataset) = (mds::redacted(out), input.shown());
    let what = format!("the output {out} would be in the folder of the dataset {dataset}");
    Err(Error::new(ErrorKind::InvalidArgument, what, "give a folder outside of it"))
}

/// Files in the folder of a dataset would be taken for its own, and go when it is removed.
fn refuse_around(out: &str, input: &Input) -> mds::Result<()> {
    let path = out.strip_prefix("file://").unwrap_or(out);
    let lies_there: Box<dyn Fn(&Place) -> bool> = match input {
        Input::Dataset(_) => return Ok(()),
        Input::Files(_) => {
            // In what is not there yet nothing lies.
            let Ok(folder) = Path::new(path).canonicalize() else { return Ok(()) };
            Box::new(move |file| {
                let is_there =
                    |path: &Path| resolved(path).is_some_and(|path| path.starts_with(&folder));
                // A link lies where it is, and where it leads to.
                let path = std::path::absolute(&file.path);
                is_there(&file.path) || path.is_ok_and(|path| path.parent().is_some_and(is_there))
            })
        }
        Input::Fetched { .. } => {
            let remote = Remote::open(out, RemoteOptions::default())?;
            let folder = format!("{}/", remote.address().trim_end_matches('/'));
            Box::new(move |file| file.shown.starts_with(&folder))
        }
    };
    let mut files = input.files().into_iter().flat_map(Files::places);
    let Some(file) = files.find(|file| lies_there(file)) else { return Ok(()) };
    let (out, file) = (mds::redacted(out), &file.shown);
    let what = format!("{out} is to be written, but the input {file} lies there");
    Err(Error::new(ErrorKind::InvalidArgument, what, "write to another place"))
}

/// The path without links, as far as it exists.
fn resolved(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    path.ancestors()
        .find_map(|known| Some(known.canonicalize().ok()?.join(path.strip_prefix(known).ok()?)))
}

/// What a conversion read and wrote.
struct Totals {
    samples: u64,
    /// As they are stored.
    bytes_in: u64,
    /// Shards or files.
    units_out: u64,
    noun_out: &'static str,
    /// As they are stored.
    bytes_out: u64,
}

fn convert(
    input: &Input,
    sink: Sink,
    stop: &StopSignal,
    out: &mut dyn Write,
) -> Result<Totals, Failure> {
    thread::scope(|scope| {
        // Without a queue: one piece is written while the next one is read.
        let (sender, pieces) = mpsc::sync_channel(0);
        scope.spawn(move || input.read(&sender));
        // When this returns early the receiver is dropped, and the reader ends.
        write(input, pieces, sink, stop, out)
    })
}

fn write(
    input: &Input,
    pieces: mpsc::Receiver<mds::Result<Piece>>,
    mut sink: Sink,
    stop: &StopSignal,
    out: &mut dyn Write,
) -> Result<Totals, Failure> {
    let bar = progress::samples(input.samples());
    let watched = is_watched();
    let (mut samples, mut bytes_in) = (0, 0);
    // Of the file at hand.
    let mut rows = 0;
    let mut unread = input.units();
    for piece in pieces {
        stop.check()?;
        match piece? {
            Piece::Shard(shard) => {
                sink.write_shard(&shard, || {
                    bar.inc(1);
                    stop.check()
                })
                .map_err(|failure| input.located(failure))?;
            }
            Piece::Batch(file, batch) => {
                sink.write_batch(&batch, rows).map_err(|error| error.in_dataset(&file))?;
                rows += batch.num_rows() as u64;
                bar.inc(batch.num_rows() as u64);
            }
            Piece::End(unit) => {
                sink.end_unit()?;
                rows = 0;
                unread -= 1;
                samples += unit.samples;
                bytes_in += unit.bytes;
                bar.set_message(format!("{} read  ", show::size(bytes_in)));
                if !watched {
                    writeln!(
                        out,
                        "read {}  {}, {}",
                        show::printable(&unit.name),
                        show::count(unit.samples, "sample"),
                        show::count(unit.bytes, "byte")
                    )?;
                }
            }
        }
    }
    stop.check()?;
    // A reader that panicked sends no more either.
    if unread > 0 {
        let what =
            format!("{} of {} were not read", show::count(unread, input.noun()), input.shown());
        return Err(Error::new(ErrorKind::Corrupt, what, "report it").into());
    }
    let (units_out, noun_out, bytes_out) = sink.finish(stop)?;
    bar.finish_and_clear();
    Ok(Totals { samples, bytes_in, units_out, noun_out, bytes_out })
}
