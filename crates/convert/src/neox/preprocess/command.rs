//! The program `preprocess-data`: its flags, and what it says while it runs.

use std::io::{IsTerminal, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};

use super::super::chats::{ChatEncoder, Learned, Rewards};
use super::super::documents::{Cut, input_files};
use super::super::ftfy::Ftfy;
use super::super::tokenizers::{NeoxTokenizer, TokenizerFiles, TokenizerType};
use super::{Encoder, Preprocess, Progress, TextEncoder, Written};
use crate::cli;
use crate::error::{Error, Result};
use crate::indexed::{Element, Layout};
use crate::ordered::MOST_WORKERS;

const EXAMPLES: &str = "\
Examples:
  JSON lines with the key text to GPT-2's ids: mine_text_document.bin and .idx
    preprocess-data --input corpus.jsonl --tokenizer-type HFGPT2Tokenizer \\
        --append-eod --output-prefix data/mine --workers 8

  A folder of archives with the tokenizer of GPT-NeoX-20B, two keys: mine_title_document.* too
    preprocess-data --input crawl/ --tokenizer-type HFTokenizer --vocab-file 20B_tokenizer.json \\
        --append-eod --jsonl-keys text title --output-prefix data/mine --workers 8

  Answers alone are to be learned: -100 up to the tokens of a delimiter, in mine_label_document.*
    preprocess-data --input chat.jsonl.zst --tokenizer-type HFGPT2Tokenizer --append-eod \\
        --mask-before-token 33706,25 --output-prefix data/mine

  Chats of several turns, written by the model's chat template, to train on the model's turns alone:
  mine_conversation_document.* and mine_conversation_label_document.*
    preprocess-data --input chats.jsonl --tokenizer-path llama-3-8b-instruct/ \\
        --output-prefix data/mine

  A model of SentencePiece, or an encoding of tiktoken
    preprocess-data --input crawl/ --tokenizer-type SPMTokenizer --vocab-file tokenizer.model \\
        --append-eod --output-prefix data/mine
    preprocess-data --input crawl/ --tokenizer-type TiktokenTokenizer --vocab-file cl100k_base \\
        --append-eod --output-prefix data/mine

  Text that a wrong encoding has spoilt, repaired by ftfy in a virtual environment
    python3 -m venv venv && . venv/bin/activate && pip install ftfy
    preprocess-data --input crawl/ --tokenizer-type HFGPT2Tokenizer --ftfy --append-eod \\
        --output-prefix data/mine --workers 8

  A dump of Wikipedia, which is one document otherwise
    preprocess-data --input enwik8.zip --split-documents articles --append-eod \\
        --tokenizer-type GPT2BPETokenizer --vocab-file vocab.json --merge-file merges.txt \\
        --output-prefix data/enwik8

Documents keep their order, whatever the number of workers. A document that cannot be read ends the
program with its file and line; after that, Ctrl-C or a full disk there is no dataset.";

/// Texts to indexed datasets of tokens, as GPT-NeoX and Megatron read them.
#[derive(Parser, Debug)]
#[command(name = "preprocess-data", version, after_help = EXAMPLES, max_term_width = 100)]
struct Args {
    /// Files or folders, or addresses of them such as s3://bucket/crawl, with commas between them
    ///
    /// By their names: .jsonl (plain, .zst or .gz), .jsonl.zst.tar, .json.gz, .json.zst;
    /// .txt (one document); .zip, .tar.gz, .tar.xz (one for each member); .gz (one for each
    /// line); .dat.zst. Of a folder those that have such names.
    #[arg(long, value_name = "PATHS|ADDRESSES", verbatim_doc_comment)]
    input: String,

    /// Keys of JSON lines; each gives a dataset. Files of plain text have the key text alone [default: text;
    /// conversation with --tokenizer-path]
    #[arg(long, value_name = "KEY", num_args = 1..)]
    jsonl_keys: Vec<String>,

    /// How many documents there are, for the lines that say how far it is
    #[arg(long, value_name = "N")]
    num_docs: Option<u64>,

    #[command(flatten)]
    tokenizer: TokenizerArgs,

    /// End each document with the tokenizer's end-of-text token
    #[arg(long, conflicts_with = "tokenizer_path")]
    append_eod: bool,

    /// Repair each text with ftfy before it is tokenised, by the python3 of PATH; install it with pip install ftfy
    #[arg(long, conflicts_with = "tokenizer_path")]
    ftfy: bool,

    /// Write labels too: -100 up to the first occurrence of these token ids, and with it
    #[arg(long, value_name = "IDS", conflicts_with = "tokenizer_path")]
    mask_before_token: Option<String>,

    /// What becomes of texts that are one document by their kind of file (.txt, .zip, .tar.*)
    #[arg(long, value_name = "HOW", default_value = "whole")]
    split_documents: Cut,

    /// Path without _KEY_document.bin and .idx; its folder exists
    #[arg(long, value_name = "PREFIX")]
    output_prefix: PathBuf,

    /// How the .idx file is laid out
    #[arg(long, value_name = "IMPL", default_value = "mmap")]
    dataset_impl: DatasetImpl,

    /// Threads that run the tokenizer, each with a process of ftfy where that is asked for
    #[arg(long, value_name = "N", default_value_t = 1)]
    workers: usize,

    /// Say how far it is every N documents, but not more than once a second
    #[arg(long, value_name = "N", default_value_t = 100)]
    log_interval: u64,

    #[command(flatten)]
    chats: ChatArgs,
}

#[derive(clap::Args, Debug)]
struct TokenizerArgs {
    /// What makes ids of texts
    #[arg(long, value_name = "TYPE", required_unless_present = "tokenizer_path")]
    tokenizer_type: Option<TokenizerType>,

    /// tokenizer.json of HFTokenizer, vocab.json of GPT2BPETokenizer, .model of SPMTokenizer, or the name of
    /// a tiktoken encoding
    #[arg(long, alias = "vocab", value_name = "FILE|NAME")]
    vocab_file: Option<String>,

    /// merges.txt of GPT2BPETokenizer
    #[arg(long, value_name = "FILE")]
    merge_file: Option<PathBuf>,
}

impl TokenizerArgs {
    fn load(self) -> Result<NeoxTokenizer> {
        let Self { tokenizer_type, vocab_file: vocab, merge_file: merges } = self;
        let absent =
            || Error::invalid("--tokenizer-type is missing", "give one, such as HFGPT2Tokenizer");
        tokenizer_type.ok_or_else(absent)?.load(&TokenizerFiles { vocab, merges })
    }
}

/// As in GPT-NeoX's preprocess_data_with_chat_template.py.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Chats: lists of messages, each with a role and a content")]
struct ChatArgs {
    /// Chats are under the keys, not texts: folder of the tokenizer whose chat template writes them. Labels are written too,
    /// as PREFIX_KEY_label_document: -100 but for the model's turns
    #[arg(long, value_name = "FOLDER|NAME", conflicts_with_all = ["tokenizer_type", "vocab_file", "merge_file"])]
    tokenizer_path: Option<String>,

    /// The role of the model's turns [default: assistant]
    #[arg(long, value_name = "ROLE")]
    generation_role: Option<String>,

    /// Only the last turn is to be learned
    #[arg(long, conflicts_with_all = ["for_rm", "no_mask"])]
    only_last: bool,

    /// Only the end-of-text token is to be learned, for reward models
    #[arg(long, conflicts_with = "no_mask")]
    for_rm: bool,

    /// Write no labels: all is to be learned
    #[arg(long)]
    no_mask: bool,

    /// Write what each chat is worth, from this key, as PREFIX_reward_document: a number, of type float32. Its
    /// type code is GPT-NeoX's, 6, which is float64 to Megatron-core
    #[arg(long, value_name = "KEY")]
    reward_key: Option<String>,

    /// Write whether that is true: 1 or -1, of type int32
    #[arg(long, requires = "reward_key")]
    binary_reward: bool,
}

impl ChatArgs {
    /// A flag that is of no use to texts, if one is given.
    fn alone(&self) -> Option<&'static str> {
        let given = [
            ("--generation-role", self.generation_role.is_some()),
            ("--only-last", self.only_last),
            ("--for-rm", self.for_rm),
            ("--no-mask", self.no_mask),
            ("--reward-key", self.reward_key.is_some()),
        ];
        given.into_iter().find(|(_, is_given)| *is_given).map(|(flag, _)| flag)
    }

    fn encoder(self, path: &str) -> Result<ChatEncoder> {
        let learned = match self {
            Self { no_mask: true, .. } => Learned::All,
            Self { for_rm: true, .. } => Learned::End,
            Self { only_last: true, .. } => Learned::LastTurn,
            _ => Learned::Turns,
        };
        let role = self.generation_role.unwrap_or_else(|| "assistant".to_owned());
        let encoder = ChatEncoder::load(path, role, learned)?;
        Ok(match self.reward_key {
            Some(key) if self.binary_reward => encoder.with_rewards(key, Rewards::Binary),
            Some(key) => encoder.with_rewards(key, Rewards::Numbers),
            None => encoder,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DatasetImpl {
    /// To be mapped into memory
    Mmap,
    /// The older layout, TNTIDX, with tokens of type int32
    Lazy,
    /// The same: the two differ in how GPT-NeoX reads them
    Cached,
}

impl DatasetImpl {
    fn layout(self) -> Layout {
        match self {
            Self::Mmap => Layout::Mapped,
            Self::Lazy | Self::Cached => Layout::Legacy,
        }
    }
}

/// The program `preprocess-data`.
pub fn main() -> ExitCode {
    let args = Args::try_parse().unwrap_or_else(|error| cli::refuse(&error));
    cli::run_program("preprocess-data", |cancel| {
        let log = Log { num_docs: args.num_docs, every: args.log_interval };
        run_and_report(checked(args)?, log, cancel).map(drop)
    })
}

fn checked(args: Args) -> Result<Preprocess> {
    let keys = match (args.jsonl_keys, &args.chats.tokenizer_path) {
        (keys, _) if !keys.is_empty() => keys,
        (_, Some(_)) => vec!["conversation".to_owned()],
        (_, None) => vec!["text".to_owned()],
    };
    let mask_before = args.mask_before_token.as_deref().map(ids).transpose()?.unwrap_or_default();
    let inputs = input_files(&args.input)?;
    if let (None, Some(flag)) = (&args.chats.tokenizer_path, args.chats.alone()) {
        return Err(Error::invalid(
            format!("{flag} has no effect on texts"),
            "leave it out, or give --tokenizer-path in place of --tokenizer-type if there are chats",
        ));
    }
    let encoder = match args.chats.tokenizer_path.clone() {
        Some(path) => Encoder::Chats(Box::new(args.chats.encoder(&path)?)),
        None => Encoder::Texts(TextEncoder {
            tokenizer: args.tokenizer.load()?,
            ftfy: args.ftfy.then(|| Ftfy::start(args.workers.min(MOST_WORKERS))).transpose()?,
            append_eod: args.append_eod,
            mask_before,
        }),
    };
    Ok(Preprocess {
        inputs,
        keys,
        encoder,
        cut: args.split_documents,
        output_prefix: args.output_prefix,
        layout: args.dataset_impl.layout(),
        workers: args.workers,
    })
}

fn ids(list: &str) -> Result<Vec<u32>> {
    let id = |part: &str| {
        part.trim().parse().map_err(|_| {
            Error::invalid(
                format!("--mask-before-token {list:?}: {part:?} is not a token id"),
                "write ids with commas between them, such as 33706,25",
            )
        })
    };
    list.split(',').map(id).collect()
}

fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// When to say how far it is.
pub(in crate::neox) struct Log {
    pub(in crate::neox) num_docs: Option<u64>,
    pub(in crate::neox) every: u64,
}

/// Runs `job`; says on standard error how far it is, and on standard output what was written.
pub(in crate::neox) fn run_and_report(
    job: Preprocess,
    log: Log,
    cancel: &Arc<AtomicBool>,
) -> Result<Vec<Written>> {
    println!("Vocab size: {}", job.encoder.vocab_size());
    if let Some(version) = job.encoder.ftfy_version() {
        println!("ftfy: {version}");
    }
    println!("Output prefix: {}", job.output_prefix.display());
    let mut lines = Lines::new(log);
    let result = job.run(&mut |progress| lines.show(progress), cancel);
    lines.finish(result.is_ok());
    let written = result?;
    for set in &written {
        let noun = if set.element == Element::Float32 { "number" } else { "token" };
        let (documents, tokens) = (counted(set.documents, "document"), counted(set.tokens, noun));
        println!("{}: {documents}, {tokens}, {}", set.prefix.display(), set.element);
        if set.left_out > 0 {
            let texts = counted(set.left_out, "text");
            println!("{}: {texts} without a token left out", set.prefix.display());
        }
    }
    Ok(written)
}

const LEAST_BETWEEN_LINES: Duration = Duration::from_secs(1);

/// Lines that say how far it is; on a terminal one that changes.
struct Lines {
    log: Log,
    is_terminal: bool,
    started: Instant,
    shown: Option<Instant>,
    last: Progress,
}

impl Lines {
    fn new(log: Log) -> Self {
        let (started, last) = (Instant::now(), Progress::default());
        Self { log, is_terminal: std::io::stderr().is_terminal(), started, shown: None, last }
    }

    fn show(&mut self, progress: Progress) {
        self.last = progress;
        let is_due = progress.documents.is_multiple_of(self.log.every.max(1))
            && self.shown.is_none_or(|shown| shown.elapsed() >= LEAST_BETWEEN_LINES);
        if is_due {
            self.shown = Some(Instant::now());
            self.print();
        }
    }

    /// The last line says all of it; a failure has its own.
    fn finish(&self, is_done: bool) {
        if is_done {
            self.print();
        }
        if self.is_terminal && (is_done || self.shown.is_some()) {
            eprintln!("");
        }
    }

    fn print(&self) {
        let line = line(self.last, self.log.num_docs, self.started.elapsed());
        if self.is_terminal {
            eprint!("\r{line}\x1b[K");
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{line}");
        }
    }
}

fn line(progress: Progress, num_docs: Option<u64>, took: Duration) -> String {
    let seconds = took.as_secs_f64().max(1e-9);
    let of = num_docs.map(|all| format!("/{all}")).unwrap_or_default();
    let noun = if num_docs.unwrap_or(progress.documents) == 1 { "document" } else { "documents" };
    format!(
        "Processed {}{of} {noun} ({:.2} docs/s, {:.2} MB/s).",
        progress.documents,
        progress.documents as f64 / seconds,
        progress.bytes as f64 / seconds / 1024.0 / 1024.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn flags_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn lines_have_the_words_of_gpt_neox() {
        let progress = Progress { documents: 300, bytes: 3 << 20 };
        let two_seconds = Duration::from_secs(2);
        assert_eq!(
            line(progress, None, two_seconds),
            "Processed 300 documents (150.00 docs/s, 1.50 MB/s)."
        );
        assert_eq!(
            line(progress, Some(1000), two_seconds),
            "Processed 300/1000 documents (150.00 docs/s, 1.50 MB/s)."
        );
        let one = Progress { documents: 1, bytes: 1 << 20 };
        assert_eq!(line(one, None, two_seconds), "Processed 1 document (0.50 docs/s, 0.50 MB/s).");
        assert_eq!(
            line(one, Some(1), two_seconds),
            "Processed 1/1 document (0.50 docs/s, 0.50 MB/s)."
        );
        assert_eq!(
            line(one, Some(1000), two_seconds),
            "Processed 1/1000 documents (0.50 docs/s, 0.50 MB/s)."
        );
    }

    #[test]
    fn ids_are_read_from_a_list() {
        assert_eq!(ids("0,1, 1270").unwrap(), [0, 1, 1270]);
        assert_eq!(
            ids("0,x").unwrap_err().to_string(),
            "--mask-before-token \"0,x\": \"x\" is not a token id; write ids with commas between them, \
             such as 33706,25"
        );
    }
}
