//! The command line of `mds-inspect`, written against the public interface of the library.
//!
//! One file per thing that it does; `show` turns values into lines of text.

mod cache;
mod convert;
mod info;
mod merge;
mod order;
mod output;
mod progress;
mod sample;
mod show;
mod source;
mod stream;
mod verify;

use std::error::Error as _;
use std::io::{self, ErrorKind as IoKind, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use output::Unstoppable;
use source::Source;

const EXAMPLES: &str = "\
Examples:
  mds-inspect ./c4                        stream the val split of ./c4, read in place
  mds-inspect ./c4 --split train --num_batches 5
  mds-inspect s3://bucket/c4 /tmp/c4      stream into /tmp/c4/val, which mirrors the remote
  mds-inspect ./c4/val                    a split's own folder works too
  mds-inspect info ./c4                   columns, shards, sizes, compression, hashes
  mds-inspect sample ./c4 7               all columns of sample 7
  mds-inspect verify https://host/c4      read everything, check every hash and offset
  mds-inspect order ./c4 --ranks_per_node 8
                                          which rank reads what when, downloads, cache, quality
  mds-inspect merge ./parts               one index over the datasets in the folders below
  mds-inspect convert ./c4 ./c4-parquet --to parquet
                                          write it again: other formats, compression, hashes
  mds-inspect cache list                  what was kept of remotes that were read without LOCAL

order, merge, convert and cache say more in their own --help.

A REMOTE that is called like a subcommand is written as a path: mds-inspect ./info

Remotes: a path, file://, s3://, gs://, az://, abfss://, hf://datasets/, http://, https://.
Credentials and end points come from the environment variables of the clouds' own tools (AWS_*,
GOOGLE_*, AZURE_*, HF_TOKEN), the AWS profile files, or options in the address, which win:
  's3://bucket/c4?endpoint=http://127.0.0.1:9000&access_key_id=...&secret_access_key=...'

Exit codes: 0 all is well; 1 the dataset is missing, damaged or cannot be read or written; 2 wrong
usage; 130 Ctrl-C ended a conversion.";

/// As shells report a program that Ctrl-C ended.
const EXIT_INTERRUPTED: u8 = 130;

/// Streams an MDS dataset as a training run would, and prints what comes out.
///
/// Opens the dataset at REMOTE, streams it into LOCAL (reads it in place if LOCAL is the same
/// folder or is left out), prints the shapes, types and text of the first batches and, at the
/// end, the rate.
#[derive(Debug, Parser)]
#[command(name = "mds-inspect", version, after_long_help = EXAMPLES)]
#[command(subcommand_precedence_over_arg = true, subcommand_negates_reqs = true)]
struct Cli {
    /// The dataset: a root with splits below it, or the folder of one split; a path or a URL
    #[arg(required = true)]
    remote: Option<String>,

    /// A folder that keeps the shards, as the cache of a training run does
    local: Option<PathBuf>,

    #[command(flatten)]
    streaming: stream::Flags,

    #[command(flatten)]
    common: Common,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Args)]
struct Common {
    /// The split below REMOTE or SOURCE [default: none if there is an index.json, else val]
    #[arg(long, global = true)]
    split: Option<String>,

    /// Print values, and lists of shards and folders, whole, however long they are
    #[arg(long, global = true)]
    full: bool,

    /// Take columns of Python pickles (pkl), as bytes that are never decoded [default: refused]
    ///
    /// What reads indexes alone takes them in any case: info, order and merge.
    #[arg(long = "pickle_bytes", alias = "pickle-bytes", global = true)]
    pickle_bytes: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Describe a dataset: columns, samples, shards, sizes, compression, hashes
    Info {
        /// The dataset, as for streaming
        remote: Option<String>,
    },
    /// Print all columns of one sample
    #[command(override_usage = "mds-inspect sample [OPTIONS] REMOTE N")]
    Sample {
        /// The dataset and the number of the sample, from 0
        #[arg(value_names = ["REMOTE", "N"], num_args = 1..=2, required = true)]
        remote_and_number: Vec<String>,
    },
    /// Read every shard and check its size, hashes, offsets and values
    Verify {
        /// The dataset, as for streaming
        remote: Option<String>,
    },
    /// Tell what a run would read: which rank what when, downloads, cache size, shuffle quality
    #[command(after_long_help = order::EXAMPLES)]
    Order(Box<order::Flags>),
    /// List, check or remove the caches of remotes that were read without a folder for them
    #[command(subcommand, after_long_help = cache::EXAMPLES)]
    Cache(cache::Command),
    /// Write one index over the datasets in the folders below a root
    #[command(after_long_help = merge::EXAMPLES)]
    Merge(merge::Flags),
    /// Write a dataset again: MDS, JSON lines, CSV, Parquet; another compression, other hashes
    #[command(after_long_help = convert::EXAMPLES)]
    Convert(Box<convert::Flags>),
}

/// Why the program ends early.
enum Failure {
    Dataset(mds::Error),
    Output(io::Error),
    Usage(String),
    Interrupted(String),
}

impl From<mds::Error> for Failure {
    fn from(error: mds::Error) -> Self {
        Self::Dataset(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

pub(crate) fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .without_time()
        .with_ansi(is_watched())
        .with_writer(io::stderr)
        .init();
    let cli = Cli::try_parse().unwrap_or_else(|error| refuse(&error));
    let mut out = io::stdout().lock();
    let ended = run(cli, &mut out).and_then(|code| match out.flush() {
        // The verdict counts even where nobody reads it.
        Err(e) if e.kind() != IoKind::BrokenPipe => Err(e.into()),
        _ => Ok(code),
    });
    match ended {
        Ok(code) => code,
        // A reader such as `head` has seen enough.
        Err(Failure::Output(e)) if e.kind() == IoKind::BrokenPipe => ExitCode::SUCCESS,
        Err(Failure::Output(e)) => fail(&format!("cannot write the output: {e}")),
        Err(Failure::Dataset(e)) => fail(&sentence(&e)),
        Err(Failure::Interrupted(what)) => {
            fail(&what);
            ExitCode::from(EXIT_INTERRUPTED)
        }
        Err(Failure::Usage(what)) => {
            Cli::command().error(clap::error::ErrorKind::MissingRequiredArgument, what).exit()
        }
    }
}

fn run(cli: Cli, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let common = &cli.common;
    let dataset = |own: Option<String>, what: &str| {
        let remote = own.or_else(|| cli.remote.clone());
        let remote = remote
            .ok_or_else(|| Failure::Usage(format!("{what} needs a dataset: give its REMOTE")))?;
        let mut source = Source::find(remote, common.split.as_deref())?;
        source.pickle_bytes = common.pickle_bytes;
        Ok::<_, Failure>(source)
    };
    match cli.command {
        None => {
            let source = dataset(None, "mds-inspect")?;
            stream::run(&source, cli.local.clone(), &cli.streaming, common.full, out)?;
        }
        Some(Command::Info { remote }) => {
            info::run(&dataset(remote, "info")?, common.full, out)?;
        }
        Some(Command::Sample { remote_and_number }) => {
            let (remote, number) = remote_and_sample(remote_and_number)?;
            sample::run(&dataset(remote, "sample")?, &number, common.full, out)?;
        }
        Some(Command::Verify { remote }) => {
            let source = dataset(remote, "verify")?;
            return to_the_end(out, |out| verify::run(&source, out));
        }
        Some(Command::Order(flags)) => {
            order::run(&flags, cli.remote.clone(), common.split.as_deref(), common.full, out)?;
        }
        Some(Command::Cache(command)) => {
            refuse_remote_before(&cli.remote, "cache list|clean|verify")?;
            return to_the_end(out, |out| cache::run(&command, out));
        }
        Some(Command::Merge(flags)) => {
            refuse_remote_before(&cli.remote, "merge ROOT [PART]...")?;
            if common.split.is_some() {
                let what = "merge takes no --split: name the folders behind ROOT";
                return Err(Failure::Usage(what.to_owned()));
            }
            to_the_end(out, |out| merge::run(&flags, common.full, out))?;
        }
        Some(Command::Convert(flags)) => {
            refuse_remote_before(&cli.remote, "convert SOURCE OUT")?;
            to_the_end(out, |out| convert::run(&flags, common, out))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs what must finish and keep its verdict, whatever happens to the output.
fn to_the_end<T>(
    out: &mut dyn Write,
    work: impl FnOnce(&mut dyn Write) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut out = Unstoppable::new(out);
    let result = work(&mut out)?;
    out.finish()?;
    Ok(result)
}

/// What has two addresses takes both after its name.
fn refuse_remote_before(remote: &Option<String>, usage: &str) -> Result<(), Failure> {
    match remote {
        None => Ok(()),
        Some(_) => Err(Failure::Usage(format!("write mds-inspect {usage}, in this order"))),
    }
}

/// `REMOTE N` or `N REMOTE`, or `N` alone if the dataset came before the subcommand.
fn remote_and_sample(mut given: Vec<String>) -> Result<(Option<String>, String), Failure> {
    // However large: what the dataset has is told later.
    let is_number = |text: &String| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let Some(number) = given.iter().rposition(is_number) else {
        return Err(Failure::Usage("sample needs the number of a sample, from 0".to_owned()));
    };
    let number = given.remove(number);
    Ok((given.pop(), number))
}

/// Says what is wrong with the command line, without the keys that an address in it may carry.
fn refuse(error: &clap::Error) -> ! {
    let text = error.render().to_string();
    let given = std::env::args_os().skip(1).map(|given| given.to_string_lossy().into_owned());
    let shown = mds::storage::redacted_about(&text, given);
    if !error.use_stderr() || shown == text {
        error.exit()
    }
    // If standard error is gone there is nobody to tell.
    let _ = write!(io::stderr(), "{shown}");
    std::process::exit(error.exit_code())
}

fn fail(what: &str) -> ExitCode {
    // If standard error is gone there is nobody to tell.
    let _ = writeln!(io::stderr(), "mds-inspect: {}", show::printable(what));
    ExitCode::from(1)
}

/// The error and its causes in one line.
fn sentence(error: &mds::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text} ({error})");
        cause = error.source();
    }
    // Errors of other libraries repeat names as they are.
    show::printable(&text)
}

/// Whether somebody watches the progress.
fn is_watched() -> bool {
    io::stderr().is_terminal()
}
