//! The command lines of `convert` and `convert-c4`.
//!
//! Low-level flags become a checked `Job`; each split is one [`Conversion`], watched by
//! a `Display`.

mod display;
mod stop;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use clap::{Args, Parser, Subcommand, ValueEnum};
use mds::WriterOptions;
use mds::format::{Compression, HashAlgorithm, parse_size};

use crate::conversion::{Content, Conversion, OnBadLine, TokenOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::out_root::OutRoot;
use crate::source::{C4Split, SourceFile, Split, files_of, files_of_split};
use crate::tokenizer::Tokenizer;
use display::{Display, report};
use stop::StopSignal;

/// As shells report a program that Ctrl-C ended.
const EXIT_INTERRUPTED: u8 = 130;

const EXAMPLES: &str = "\
Examples:
  The validation split of C4 (364,608 documents, about 0.5 GB) from the Hugging Face hub:
    convert-c4 --out_root ./c4 --splits val

  Both splits of a local copy, or of the sample in this repository:
    convert-c4 --out_root ./c4 --source data/c4-sample

  A copy in a bucket, read while it is converted:
    convert-c4 --out_root ./c4 --source s3://bucket/c4/en

  Your own JSON lines, with the keys text, timestamp and url, compressed and hashed:
    convert-c4 --out_root ./mine --splits train --source 'crawl/*.jsonl.zst' \\
        --compression zstd --hashes sha1,xxh64

  Into a bucket; keys come from the environment (AWS_*), or from options behind the address:
    convert-c4 --out_root s3://bucket/c4 --splits val --compression zstd --hashes xxh64

  Samples of 2048 GPT-2 token ids instead of text:
    convert-c4 --out_root ./c4-tokens --splits val --concat_tokens 2048 \\
        --tokenizer gpt2 --eos_text '<|endoftext|>'

Each split becomes the folder OUT_ROOT/SPLIT: look into it with mds-inspect OUT_ROOT/SPLIT.
Flags may be spelled with hyphens too (--out-root). After Ctrl-C, a crash or a full disk the same
command goes on after the last complete shard, and the result is the same to the byte; at a remote
it begins anew, and shards without an index.json are no dataset.";

/// Convert C4, or text in C4's shape, to a streaming dataset of MDS shards.
#[derive(Parser, Debug)]
#[command(name = "convert-c4", version, rename_all = "snake_case", after_help = EXAMPLES, max_term_width = 100)]
struct C4Args {
    /// Splits to convert, one after the other; none of them may exist yet
    #[arg(long, num_args = 1.., value_delimiter = ',', default_values = ["train", "val"])]
    splits: Vec<SplitName>,

    /// File, folder or quoted glob of JSON lines (.json, .jsonl, plain, .gz or .zst), or its address
    ///
    /// Where files have the hub's names (c4-train.*, c4-validation.*), in the folder or in its
    /// en/, each split takes its own; else one split takes all. Without this flag, allenai/c4
    /// `en` is read from the Hugging Face hub; HF_ENDPOINT names another hub, and HF_TOKEN a
    /// token, which only that hub ever sees.
    #[arg(long, value_name = "PATH|ADDRESS", verbatim_doc_comment)]
    source: Option<String>,

    #[command(flatten)]
    output: OutputArgs,
}

const JSON_EXAMPLES: &str = "\
Examples:
  A folder of your own JSON lines, with the key text, compressed:
    convert json --path crawl/ --out_root ./mine --compression zstd

  Samples of 2048 token ids, of a bucket's files, as the split val:
    convert json --path 's3://bucket/crawl/*.jsonl.gz' --out_root ./mine --split val \\
        --concat_tokens 2048 --tokenizer gpt2 --eos_text '<|endoftext|>'

The dataset becomes the folder OUT_ROOT/SPLIT: look into it with mds-inspect OUT_ROOT/SPLIT.";

/// Convert JSON lines with the key text to a streaming dataset: the column text, or token ids.
#[derive(Parser, Debug)]
#[command(rename_all = "snake_case", after_help = JSON_EXAMPLES, max_term_width = 100)]
struct JsonArgs {
    /// File, folder or quoted glob of JSON lines (.json, .jsonl, plain, .gz or .zst), or its address
    #[arg(long, value_name = "PATH|ADDRESS")]
    path: String,

    /// The folder of the dataset in OUT_ROOT
    #[arg(long, value_name = "NAME", default_value = "train")]
    split: String,

    #[command(flatten)]
    output: OutputArgs,
}

/// What all sources have in common.
#[derive(Args, Debug)]
#[command(rename_all = "snake_case")]
struct OutputArgs {
    /// Folder or remote for the dataset; each split becomes a folder in it
    #[arg(long, alias = "out-root", value_name = "FOLDER")]
    out_root: OsString,

    /// Write samples of N token ids (column tokens, ndarray:int32) instead of text
    ///
    /// Documents are joined and cut every N tokens; a last part that is too short is dropped.
    #[arg(long, alias = "concat-tokens", value_name = "N", verbatim_doc_comment)]
    concat_tokens: Option<usize>,

    /// Tokenizer for --concat_tokens: gpt2 (built in), the path or address of a tokenizer.json or its
    /// folder, or a hub name
    #[arg(long, value_name = "NAME|PATH")]
    tokenizer: Option<String>,

    /// Text put before each document, as its own token, e.g. '<|endoftext|>'
    #[arg(long, alias = "bos-text", value_name = "TEXT")]
    bos_text: Option<String>,

    /// Text put after each document, as its own token, e.g. '<|endoftext|>'
    #[arg(long, alias = "eos-text", value_name = "TEXT")]
    eos_text: Option<String>,

    /// Begin every sample with a document: throw away what does not fit the sample before
    #[arg(long, alias = "no-wrap")]
    no_wrap: bool,

    /// Compress shards: br, bz2, gz, snappy or zstd, with a level as in zstd:7 [default: none]
    #[arg(long, value_name = "CODE")]
    compression: Option<String>,

    /// Record these hashes of every shard, e.g. sha1,xxh64 [default: none]
    #[arg(long, num_args = 1.., value_delimiter = ',', value_name = "HASH")]
    hashes: Vec<String>,

    /// Begin a new shard before this size (uncompressed), e.g. 64mb
    #[arg(long, alias = "size-limit", value_name = "SIZE", default_value = "64mb")]
    size_limit: String,

    /// What to do at a line that is not a document: stop, or count it and leave it out
    #[arg(long, alias = "on-bad-line", value_enum, default_value = "fail")]
    on_bad_line: BadLineChoice,

    /// Begin anew where an interrupted run has left an unfinished split, and do not go on with it
    #[arg(long)]
    restart: bool,

    /// Threads that parse and tokenise; the output does not depend on it [default: one per CPU]
    #[arg(long, alias = "num-workers", value_name = "N")]
    num_workers: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum SplitName {
    Train,
    /// The first 100,000 samples of train
    TrainSmall,
    Val,
    /// The first 10,000 samples of val
    ValSmall,
    /// The first 3,000
    ValXsmall,
    /// The first 100
    ValXxsmall,
}

impl From<SplitName> for C4Split {
    fn from(name: SplitName) -> Self {
        match name {
            SplitName::Train => Self::Train,
            SplitName::TrainSmall => Self::TrainSmall,
            SplitName::Val => Self::Val,
            SplitName::ValSmall => Self::ValSmall,
            SplitName::ValXsmall => Self::ValXsmall,
            SplitName::ValXxsmall => Self::ValXxsmall,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum BadLineChoice {
    Fail,
    Skip,
}

/// Text to streaming datasets of MDS shards.
#[derive(Parser, Debug)]
#[command(version, max_term_width = 100)]
struct Convert {
    #[command(subcommand)]
    source: Source,
}

#[derive(Subcommand, Debug)]
enum Source {
    /// C4, or text in C4's shape; the same as the program convert-c4
    C4(Box<C4Args>),
    /// JSON lines with the key text
    Json(Box<JsonArgs>),
}

/// The program `convert`: a source, then its flags.
pub fn convert() -> ExitCode {
    match Convert::try_parse().unwrap_or_else(|error| refuse(&error)).source {
        Source::C4(args) => exit_code("convert c4", |program| c4(*args, program)),
        Source::Json(args) => exit_code("convert json", |program| json(*args, program)),
    }
}

/// The program `convert-c4`.
pub fn convert_c4() -> ExitCode {
    let args = C4Args::try_parse().unwrap_or_else(|error| refuse(&error));
    exit_code("convert-c4", |program| c4(args, program))
}

/// Says what is wrong with the command line, without the keys that an address in it may carry.
fn refuse(error: &clap::Error) -> ! {
    let text = error.render().to_string();
    let given = std::env::args_os().skip(1).map(|given| given.to_string_lossy().into_owned());
    let shown = mds::storage::redacted_about(&text, given);
    if !error.use_stderr() || shown == text {
        error.exit()
    }
    eprint!("{shown}");
    std::process::exit(error.exit_code())
}

/// The conversions that `plan` makes of a command line, one after the other.
fn exit_code(
    program: &'static str,
    plan: impl FnOnce(&'static str) -> Result<Vec<Conversion>>,
) -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false)
        .without_time()
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()),
        )
        .init();
    match StopSignal::install().and_then(|stop| run(plan(program)?, &stop)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == ErrorKind::Interrupted => {
            eprintln!("{program}: interrupted");
            ExitCode::from(EXIT_INTERRUPTED)
        }
        Err(error) => {
            eprintln!("{program}: error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn c4(args: C4Args, program: &str) -> Result<Vec<Conversion>> {
    let mut splits: Vec<C4Split> = Vec::new();
    for split in args.splits.into_iter().map(C4Split::from) {
        if !splits.contains(&split) {
            splits.push(split);
        }
    }
    let job = Job::check(program, args.output, Content::Records)?;
    // All of this before the first hour of work, so that the last split cannot fail on its name.
    for &split in &splits {
        job.out_root.refuse_existing(&split.into())?;
    }
    let alone = splits.iter().all(|split| split.whole() == splits[0].whole());
    let source = args.source.as_deref();
    let plan = |&split: &C4Split| Ok(job.plan(split.into(), files_of_split(source, split, alone)?));
    splits.iter().map(plan).collect()
}

fn json(args: JsonArgs, program: &str) -> Result<Vec<Conversion>> {
    let split = Split::new(args.split)?;
    let job = Job::check(program, args.output, Content::Text)?;
    job.out_root.refuse_existing(&split)?;
    Ok(vec![job.plan(split, files_of(&args.path)?)])
}

fn run(conversions: Vec<Conversion>, stop: &StopSignal) -> Result<()> {
    // Of all, before the first hour of work.
    let left = conversions.iter().map(Conversion::unfinished).collect::<Result<Vec<_>>>()?;
    for (conversion, left) in conversions.into_iter().zip(left) {
        let (split, out_root) = (conversion.split.clone(), conversion.out_root.clone());
        if left > 0 {
            eprintln!("{split}: going on with the {} of an earlier run", counted(left));
        }
        let display = Display::start(&conversion);
        let started = Instant::now();
        let files = conversion.files.len();
        let result = stop.while_converting(|cancel| conversion.run(&display.meter, cancel));
        display.finish();
        // What exists already is another run's.
        if let (Err(error), Some((folder, shards))) = (&result, out_root.unfinished(&split))
            && error.kind() != ErrorKind::AlreadyExists
        {
            let (shards, folder) = (counted(shards), folder.display());
            eprintln!("{split}: {shards} kept in {folder}; the same command goes on from there");
        }
        report(&split, files, started.elapsed(), &result?);
    }
    Ok(())
}

fn counted(shards: usize) -> String {
    format!("{shards} complete shard{}", if shards == 1 { "" } else { "s" })
}

/// What the flags ask for, checked.
struct Job {
    out_root: OutRoot,
    content: Content,
    writer: WriterOptions,
    on_bad_line: OnBadLine,
    threads: usize,
    restart: bool,
}

impl Job {
    /// A sample holds `text` unless token ids are asked for.
    fn check(program: &str, args: OutputArgs, text: Content) -> Result<Self> {
        let out_root = OutRoot::parse(args.out_root.clone())?;
        let content = tokens(program, &args)?.map_or(text, Content::Tokens);
        let mut hashes = Vec::new();
        // The defaults may be written out.
        let compression = args.compression.filter(|code| code != "none");
        for hash in args.hashes.iter().filter(|hash| *hash != "none") {
            hashes.push(hash.parse::<HashAlgorithm>()?);
        }
        hashes.sort_by_key(ToString::to_string);
        hashes.dedup();
        let writer = WriterOptions {
            compression: compression.map(|c| c.parse::<Compression>()).transpose()?,
            hashes,
            size_limit: Some(parse_size(&args.size_limit)?),
            ..WriterOptions::default()
        };
        let threads = args.num_workers.filter(|&n| n > 0);
        let threads = threads.or_else(|| thread::available_parallelism().ok().map(usize::from));
        Ok(Self {
            out_root,
            content,
            writer,
            on_bad_line: match args.on_bad_line {
                BadLineChoice::Fail => OnBadLine::Fail,
                BadLineChoice::Skip => OnBadLine::Skip,
            },
            threads: threads.unwrap_or(1),
            restart: args.restart,
        })
    }

    fn plan(&self, split: Split, files: Vec<SourceFile>) -> Conversion {
        Conversion {
            split,
            files,
            out_root: self.out_root.clone(),
            content: self.content.clone(),
            writer: self.writer.clone(),
            on_bad_line: self.on_bad_line,
            threads: self.threads,
            restart: self.restart,
        }
    }
}

/// What `--concat_tokens` and its like ask for.
fn tokens(program: &str, args: &OutputArgs) -> Result<Option<TokenOptions>> {
    let Some(length) = args.concat_tokens else {
        let given = [
            ("--tokenizer", args.tokenizer.is_some()),
            ("--bos_text", args.bos_text.is_some()),
            ("--eos_text", args.eos_text.is_some()),
            ("--no_wrap", args.no_wrap),
        ];
        return match given.iter().find(|(_, given)| *given) {
            None => Ok(None),
            Some((flag, _)) => Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("{flag} has no effect on text samples"),
                format!("add --concat_tokens N, or leave {flag} out"),
            )),
        };
    };
    let Some(name) = &args.tokenizer else {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            "--concat_tokens needs a tokenizer",
            "add --tokenizer gpt2, or the path of a tokenizer.json",
        ));
    };
    let options = TokenOptions {
        tokenizer: Tokenizer::load(name)?,
        length,
        bos_text: args.bos_text.clone().unwrap_or_default(),
        eos_text: args.eos_text.clone().unwrap_or_default(),
        wrap: !args.no_wrap,
    };
    for warning in options.check()? {
        eprintln!("{program}: warning: {warning}");
    }
    Ok(Some(options))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn flags_are_consistent() {
        C4Args::command().debug_assert();
        Convert::command().debug_assert();
    }

    /// Each flag with an underscore has an alias with hyphens.
    #[test]
    fn every_underscore_flag_has_a_hyphen_spelling() {
        let (c4, json) = (C4Args::command(), JsonArgs::command());
        for arg in c4.get_arguments().chain(json.get_arguments()) {
            let Some(long) = arg.get_long() else { continue };
            if long.contains('_') {
                let hyphens = long.replace('_', "-");
                assert!(
                    arg.get_all_aliases().unwrap_or_default().contains(&hyphens.as_str()),
                    "{long}"
                );
            }
        }
    }
}
