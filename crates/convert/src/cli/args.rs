//! The flags of each source.

use std::ffi::OsString;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::conversion::TokenEncoding;
use crate::source::NamedSplit;

const C4_EXAMPLES: &str = "\
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

  One of 8 tasks, which may run on machines of their own (see scripts/slurm/):
    convert-c4 --out_root ./c4 --splits train --num_tasks 8 --task_id 3

Each split becomes the folder OUT_ROOT/SPLIT: look into it with mds-inspect OUT_ROOT/SPLIT.
Flags may be spelled with hyphens too (--out-root). After Ctrl-C, a crash or a full disk the same
command goes on after the last complete shard, and the result is the same to the byte. What it was
made of is in statistics.html beside the shards, and for programs in statistics.json.";

/// Convert C4, or text in C4's shape, to a streaming dataset of MDS shards.
#[derive(Parser, Debug)]
#[command(name = "convert-c4", version, rename_all = "snake_case", after_help = C4_EXAMPLES, max_term_width = 100)]
pub(super) struct C4Args {
    /// Splits to convert, one after the other
    #[arg(long, num_args = 1.., value_delimiter = ',', default_values = ["train", "val"])]
    pub(super) splits: Vec<NamedSplit>,

    /// File, folder or quoted glob of JSON lines (.json, .jsonl, plain, .gz or .zst), or its address
    ///
    /// Where files have the hub's names (c4-train.*, c4-validation.*), in the folder or in its
    /// en/, each split takes its own; else one split takes all. Without this flag, allenai/c4
    /// `en` is read from the Hugging Face hub; HF_ENDPOINT names another hub, and HF_TOKEN a
    /// token, which only that hub ever sees.
    #[arg(long, value_name = "PATH|ADDRESS", verbatim_doc_comment)]
    pub(super) source: Option<String>,

    #[command(flatten)]
    pub(super) place: PlaceArgs,

    #[command(flatten)]
    pub(super) output: OutputArgs,
}

const HF_EXAMPLES: &str = "\
Examples:
  As llm-foundry's convert_dataset_hf does it, for a 125m model:
    convert hf --dataset allenai/c4 --data_subset en --out_root ./my-copy-c4 \\
        --splits train_small val_small --concat_tokens 2048 --tokenizer gpt2 \\
        --eos_text '<|endoftext|>'

The Pile is no longer on the hub: convert pile reads a copy of your own.";

/// Convert a dataset of the Hugging Face hub: the column text, or token ids.
#[derive(Parser, Debug)]
#[command(rename_all = "snake_case", after_help = HF_EXAMPLES, max_term_width = 100)]
pub(super) struct HfArgs {
    /// The dataset: allenai/c4 is known
    #[arg(long, value_name = "NAME")]
    pub(super) dataset: String,

    /// The part of it, which is a folder of its repository, e.g. en or realnewslike
    #[arg(long, alias = "data-subset", value_name = "NAME", default_value = "en")]
    pub(super) data_subset: String,

    /// Splits to convert, one after the other
    #[arg(long, num_args = 1.., value_delimiter = ',', default_values = ["train", "train_small", "val", "val_small", "val_xsmall"])]
    pub(super) splits: Vec<NamedSplit>,

    #[command(flatten)]
    pub(super) place: PlaceArgs,

    #[command(flatten)]
    pub(super) output: OutputArgs,
}

const PILE_EXAMPLES: &str = "\
Examples:
  All splits of a copy with train/00.jsonl.zst to 29.jsonl.zst, val.jsonl.zst and test.jsonl.zst:
    convert pile --path /data/pile --out_root ./pile --compression zstd

  Two subsets alone, as token ids:
    convert pile --path s3://bucket/pile --out_root ./pile-wiki --splits train \\
        --subsets 'Wikipedia (en),StackExchange' --concat_tokens 2048 --tokenizer gpt2 \\
        --eos_text '<|endoftext|>'

Each line names its subset in meta.pile_set_name. How many documents, bytes and tokens each subset
has is in statistics.html and statistics.json beside the shards.";

/// Convert the Pile: the columns pile_set_name and text, or token ids.
#[derive(Parser, Debug)]
#[command(rename_all = "snake_case", after_help = PILE_EXAMPLES, max_term_width = 100)]
pub(super) struct PileArgs {
    /// Folder with train/ and val.jsonl.zst and the like, or the file, folder or quoted glob of one split, or its address
    #[arg(long, value_name = "PATH|ADDRESS")]
    pub(super) path: String,

    /// Splits to convert, one after the other
    #[arg(long, num_args = 1.., value_delimiter = ',', default_values = ["train", "val", "test"])]
    pub(super) splits: Vec<NamedSplit>,

    /// Take these subsets alone, e.g. 'Pile-CC,Wikipedia (en)' [default: all]
    #[arg(long, num_args = 1.., value_delimiter = ',', value_name = "NAME")]
    pub(super) subsets: Vec<String>,

    /// Take all subsets but these
    #[arg(long, alias = "exclude-subsets", num_args = 1.., value_delimiter = ',', value_name = "NAME")]
    pub(super) exclude_subsets: Vec<String>,

    #[command(flatten)]
    pub(super) place: PlaceArgs,

    #[command(flatten)]
    pub(super) output: OutputArgs,
}

const JSON_EXAMPLES: &str = "\
Examples:
  A folder of your own JSON lines, with the key text:
    convert json --path crawl/ --out_root ./mine

  Samples of 2048 token ids, of a bucket's files, as the split val:
    convert json --path 's3://bucket/crawl/*.jsonl.gz' --out_root ./mine --split val \\
        --concat_tokens 2048 --tokenizer gpt2 --eos_text '<|endoftext|>'

The dataset becomes the folder OUT_ROOT/SPLIT: look into it with mds-inspect OUT_ROOT/SPLIT.
Shards are compressed with zstd unless another --compression, or none, is given.";

/// Convert JSON lines with the key text: the column text, or token ids.
#[derive(Parser, Debug)]
#[command(rename_all = "snake_case", after_help = JSON_EXAMPLES, max_term_width = 100)]
pub(super) struct JsonArgs {
    /// File, folder or quoted glob of JSON lines (.json, .jsonl, plain, .gz or .zst), or its address
    #[arg(long, value_name = "PATH|ADDRESS")]
    pub(super) path: String,

    #[command(flatten)]
    pub(super) split: SplitArgs,

    #[command(flatten)]
    pub(super) place: PlaceArgs,

    #[command(flatten)]
    pub(super) output: OutputArgs,
}

const TEXT_EXAMPLES: &str = "\
Examples:
  As llm-foundry's convert_text_to_mds does it:
    convert text --input_folder ./books --output_folder ./books-tokens --concat_tokens 2048 \\
        --tokenizer gpt2 --use_tokenizer_eos

Every .txt file (plain, .gz or .zst) in the folder and in those below is one document, but for
hidden ones: names that begin with a dot. A folder that several links lead to is read once. Where
the same files were converted with the same settings before, there is nothing to do, unless
--reprocess is given. Shards are compressed with zstd unless another --compression, or none, is
given.";

/// Convert a folder of text files, each of which is a document: the column text, or token ids.
#[derive(Parser, Debug)]
#[command(rename_all = "snake_case", after_help = TEXT_EXAMPLES, max_term_width = 100)]
pub(super) struct TextArgs {
    /// Folder, file or quoted glob of text files, or its address
    #[arg(long, alias = "input-folder", alias = "path", value_name = "PATH|ADDRESS")]
    pub(super) input_folder: String,

    /// Folder or remote that becomes the dataset
    #[arg(long, alias = "output-folder", value_name = "PATH|ADDRESS")]
    pub(super) output_folder: OsString,

    /// Taken for the sake of llm-foundry's commands: no code of a tokenizer is ever run
    #[arg(long, alias = "trust-remote-code")]
    pub(super) trust_remote_code: bool,

    /// What is logged to stderr; RUST_LOG goes before it
    #[arg(long, alias = "logging-level", value_enum, ignore_case = true, default_value = "warn")]
    pub(super) logging_level: LogLevel,

    #[command(flatten)]
    pub(super) output: OutputArgs,
}

const PARQUET_EXAMPLES: &str = "\
Examples:
  All files of a folder, of which only the column content is read:
    convert parquet --path ./code --column content --out_root ./code-mds

Row groups are read at the same time, and written in order.";

/// Convert a column of Parquet files: the column text, or token ids.
#[derive(Parser, Debug)]
#[command(rename_all = "snake_case", after_help = PARQUET_EXAMPLES, max_term_width = 100)]
pub(super) struct ParquetArgs {
    /// File, folder or quoted glob of .parquet files, or its address
    #[arg(long, value_name = "PATH|ADDRESS")]
    pub(super) path: String,

    /// The column with the text
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub(super) column: String,

    #[command(flatten)]
    pub(super) split: SplitArgs,

    #[command(flatten)]
    pub(super) place: PlaceArgs,

    #[command(flatten)]
    pub(super) output: OutputArgs,
}

const INDEXED_EXAMPLES: &str = "\
Examples:
  Documents of GPT-NeoX as samples of 2048 tokens:
    convert indexed --path data/enwik8/enwik8_text_document --out_root ./enwik8 \\
        --concat_tokens 2048

  Each document as one sample of its own length:
    convert indexed --path data/enwik8/enwik8_text_document --out_root ./enwik8

The way back is convert to_indexed; text becomes an indexed dataset with preprocess-data.";

/// Convert indexed datasets of GPT-NeoX or Megatron (.bin and .idx), which hold token ids.
#[derive(Parser, Debug)]
#[command(rename_all = "snake_case", after_help = INDEXED_EXAMPLES, max_term_width = 100)]
pub(super) struct IndexedArgs {
    /// What comes before .bin and .idx; or a folder or quoted glob of .bin files, or its address
    #[arg(long, value_name = "PATH|ADDRESS")]
    pub(super) path: String,

    #[command(flatten)]
    pub(super) split: SplitArgs,

    #[command(flatten)]
    pub(super) place: PlaceArgs,

    #[command(flatten)]
    pub(super) output: OutputArgs,
}

const MDS_EXAMPLES: &str = "\
Examples:
  Tokenise a dataset of text:
    convert mds --path s3://bucket/c4/val --out_root ./c4-tokens --split val \\
        --concat_tokens 2048 --tokenizer gpt2 --eos_text '<|endoftext|>'

  Cut samples of 2048 tokens anew, to 4096:
    convert mds --path ./c4-tokens/val --out_root ./c4-4096 --split val --concat_tokens 4096

  Cut documents that were tokenised before, on many machines perhaps:
    convert mds --path ./c4-ids/train --out_root ./c4-2048 --concat_tokens 2048 \\
        --tokenizer gpt2 --eos_text '<|endoftext|>'

Other compressions of the same samples: mds-inspect convert.";

/// Convert a streaming dataset of text or of token ids.
#[derive(Parser, Debug)]
#[command(rename_all = "snake_case", after_help = MDS_EXAMPLES, max_term_width = 100)]
pub(super) struct MdsArgs {
    /// Folder with an index.json, or its address
    #[arg(long, value_name = "PATH|ADDRESS")]
    pub(super) path: String,

    /// The column with the text or the tokens [default: text, or else tokens]
    #[arg(long, value_name = "NAME")]
    pub(super) column: Option<String>,

    #[command(flatten)]
    pub(super) split: SplitArgs,

    #[command(flatten)]
    pub(super) place: PlaceArgs,

    #[command(flatten)]
    pub(super) output: OutputArgs,
}

const TO_INDEXED_EXAMPLES: &str = "\
Examples:
  Tokens for GPT-NeoX:
    convert to_indexed --path ./c4-tokens/val --output_prefix neox/c4_val

  Text for GPT-NeoX, each document ended by <|endoftext|>:
    convert to_indexed --path ./c4/val --output_prefix neox/c4_val --tokenizer gpt2 --append_eod

Each sample becomes one document. Ids are stored as uint16 where all of them may fit, else int32.";

/// Convert a streaming dataset to an indexed dataset of GPT-NeoX and Megatron (.bin and .idx).
#[derive(Parser, Debug)]
#[command(rename_all = "snake_case", after_help = TO_INDEXED_EXAMPLES, max_term_width = 100)]
pub(super) struct ToIndexedArgs {
    /// Folder with an index.json, or its address
    #[arg(long, value_name = "PATH|ADDRESS")]
    pub(super) path: String,

    /// The column with the text or the tokens [default: text, or else tokens]
    #[arg(long, value_name = "NAME")]
    pub(super) column: Option<String>,

    /// What comes before .bin and .idx
    #[arg(long, alias = "output-prefix", value_name = "PATH")]
    pub(super) output_prefix: std::path::PathBuf,

    /// Tokenizer for a column of text, as in the other sources
    #[arg(long, value_name = "NAME|PATH")]
    pub(super) tokenizer: Option<String>,

    /// Put the tokenizer's end-of-text token after each document
    #[arg(long, alias = "append-eod", requires = "tokenizer")]
    pub(super) append_eod: bool,

    /// Store ids of tokens as uint16; without it int32 for columns of tokens
    #[arg(long)]
    pub(super) uint16: bool,

    /// Threads that tokenise; the output does not depend on it [default: one per CPU]
    #[arg(long, alias = "num-workers", value_name = "N")]
    pub(super) num_workers: Option<usize>,
}

/// Where a dataset goes that is called by its split.
#[derive(Args, Debug)]
#[command(rename_all = "snake_case")]
pub(super) struct PlaceArgs {
    /// Folder or remote for the dataset; each split becomes a folder in it
    #[arg(long, alias = "out-root", value_name = "FOLDER")]
    pub(super) out_root: OsString,
}

/// What a dataset is called that has no splits of its own.
#[derive(Args, Debug)]
pub(super) struct SplitArgs {
    /// The folder of the dataset in OUT_ROOT
    #[arg(long, value_name = "NAME", default_value = "train")]
    pub(super) split: String,
}

/// What all sources have in common.
#[derive(Args, Debug)]
#[command(rename_all = "snake_case")]
pub(super) struct OutputArgs {
    /// Write samples of N token ids (column tokens) instead of text
    ///
    /// Documents are joined and cut every N tokens; a last part that is too short is dropped.
    #[arg(long, alias = "concat-tokens", value_name = "N", verbatim_doc_comment)]
    pub(super) concat_tokens: Option<usize>,

    /// Tokenizer: gpt2 (built in), the path or address of a tokenizer.json or its folder, or a hub name
    ///
    /// Without --concat_tokens each document becomes one sample, of its ids; documents without any need
    /// --token_encoding bytes.
    #[arg(long, value_name = "NAME|PATH", verbatim_doc_comment)]
    pub(super) tokenizer: Option<String>,

    /// Settings of llm-foundry's tokenizer, as JSON; those that change no ids are taken
    #[arg(long, alias = "tokenizer-kwargs", value_name = "JSON")]
    pub(super) tokenizer_kwargs: Option<String>,

    /// Text put before each document, as its own token, e.g. '<|endoftext|>'
    #[arg(long, alias = "bos-text", value_name = "TEXT")]
    pub(super) bos_text: Option<String>,

    /// Text put after each document, as its own token, e.g. '<|endoftext|>'
    #[arg(long, alias = "eos-text", value_name = "TEXT")]
    pub(super) eos_text: Option<String>,

    /// Put the tokenizer's own end-of-text token after each document
    #[arg(long, alias = "use-tokenizer-eos", conflicts_with = "eos_text")]
    pub(super) use_tokenizer_eos: bool,

    /// Begin every sample with a document: throw away what does not fit the sample before
    #[arg(long, alias = "no-wrap")]
    pub(super) no_wrap: bool,

    /// How token ids are stored: ndarray:int32, ndarray:uint16 where the vocabulary fits, or bytes, which
    /// are int64 as in old datasets
    #[arg(long, alias = "token-encoding", value_enum, default_value = "int32")]
    pub(super) token_encoding: TokenEncoding,

    /// Add the column sequence_id: which tokens of a sample are of the same document, from 0; samples of a
    /// dataset of ids are documents
    #[arg(long, alias = "sequence-id")]
    pub(super) sequence_id: bool,

    /// Compress shards: br, bz2, gz, snappy or zstd, with a level as in zstd:7, or none [default: none; zstd
    /// of json and text]
    #[arg(long, value_name = "CODE")]
    pub(super) compression: Option<String>,

    /// Record these hashes of every shard, e.g. sha1,xxh64 [default: none]
    #[arg(long, num_args = 1.., value_delimiter = ',', value_name = "HASH")]
    pub(super) hashes: Vec<String>,

    /// Begin a new shard before this size (uncompressed), e.g. 64mb; 0 for the format's limit of 4 GiB
    #[arg(long, alias = "size-limit", value_name = "SIZE", default_value = "64mb")]
    pub(super) size_limit: String,

    /// What to do at a line, row or file that is not a document: stop, or count it and leave it out
    #[arg(long, alias = "on-bad-line", value_enum, default_value = "fail")]
    pub(super) on_bad_line: BadLineChoice,

    /// Begin anew where an interrupted run has left an unfinished split, and do not go on with it
    #[arg(long)]
    pub(super) restart: bool,

    /// Make a split of a folder again that is complete; the old one stays until the new one is, and
    /// what was interrupted of it is gone on with
    #[arg(long, conflicts_with = "restart")]
    pub(super) reprocess: bool,

    /// Threads that parse and tokenise, 1024 at most; the output does not depend on it [default: one per CPU]
    #[arg(long, alias = "num-workers", alias = "processes", value_name = "N")]
    pub(super) num_workers: Option<usize>,

    /// Convert one of N parts of each split, which other tasks convert the rest of
    /// [default: that of a Slurm job array, of srun or of mpirun, if there is one]
    ///
    /// Task I takes a run of files and writes OUT_ROOT/SPLIT/0000I. When all are done, join
    /// them: convert merge OUT_ROOT/SPLIT
    ///
    /// The result is that of one program, but samples of --concat_tokens end with a task's
    /// files. For those of one program give the tasks --tokenizer alone, and cut what was
    /// joined with convert mds.
    #[arg(long, alias = "num-tasks", value_name = "N", verbatim_doc_comment)]
    pub(super) num_tasks: Option<usize>,

    /// Which of the tasks this is, from 0 [default: as with --num_tasks]
    #[arg(long, alias = "task-id", value_name = "I")]
    pub(super) task_id: Option<usize>,

    /// Print what the time was spent on
    #[arg(long)]
    pub(super) profile: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum LogLevel {
    #[value(alias = "critical")]
    Error,
    #[value(alias = "warning")]
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

const MERGE_EXAMPLES: &str = "\
Examples:
  One dataset of what all tasks have written to ./c4/train/00000 and so on:
    convert merge ./c4/train

Refused until every task is done. No shard is moved, read or changed. mds-inspect merge joins any
datasets, whoever has made them.";

/// Join what the tasks of a conversion have written, with their statistics.
#[derive(Parser, Debug)]
#[command(after_help = MERGE_EXAMPLES, max_term_width = 100)]
pub(super) struct MergeArgs {
    /// The folder of the split, OUT_ROOT/SPLIT, or its address
    #[arg(value_name = "PATH|ADDRESS")]
    pub(super) split: OsString,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum BadLineChoice {
    Fail,
    Skip,
}

/// Text and tokens to streaming datasets of MDS shards.
#[derive(Parser, Debug)]
#[command(version, max_term_width = 100)]
pub(super) struct Convert {
    #[command(subcommand)]
    pub(super) source: Source,
}

#[derive(Subcommand, Debug)]
#[command(rename_all = "snake_case")]
pub(super) enum Source {
    /// C4, or text in C4's shape; the same as the program convert-c4
    C4(Box<C4Args>),
    /// A dataset of the Hugging Face hub, with the flags of llm-foundry's convert_dataset_hf
    Hf(Box<HfArgs>),
    /// The Pile, whose lines name the subset that they are of
    Pile(Box<PileArgs>),
    /// JSON lines with the key text
    Json(Box<JsonArgs>),
    /// A folder of text files, each of which is a document
    Text(Box<TextArgs>),
    /// A column of Parquet files
    Parquet(Box<ParquetArgs>),
    /// Indexed datasets of GPT-NeoX or Megatron (.bin and .idx), which hold token ids
    Indexed(Box<IndexedArgs>),
    /// A streaming dataset of text or of token ids
    Mds(Box<MdsArgs>),
    /// One dataset of what the tasks of a conversion have written (--num_tasks)
    Merge(Box<MergeArgs>),
    /// The way back: a streaming dataset to an indexed dataset
    #[command(alias = "to-indexed")]
    ToIndexed(Box<ToIndexedArgs>),
}
