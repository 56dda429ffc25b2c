//! A corpus by name to an indexed dataset: the program `prepare-data`.
//!
//! The corpus comes into `DATA_DIR/NAME`, the dataset beside it is called `NAME_text_document`. What it
//! was made of is in a file of the same name that ends in `.made.json`, so that the same command does
//! nothing again, and another one does not take it for its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::UNIX_EPOCH;

use clap::{Parser, ValueEnum};
use serde::{Deserialize, Serialize};

use super::corpora::{Corpus, find, registry, table};
use super::documents::{Cut, InputFile};
use super::fetch::Source;
use super::preprocess::{
    Encoder, Log, Preprocess, TextEncoder, Written, prefix_of, run_and_report,
};
use super::tokenizers::{TokenizerFiles, TokenizerType, gpt2_vocab_and_merges};
use crate::cli;
use crate::error::{Error, ErrorKind, Result};
use crate::indexed::{Layout, Split};

/// The key of the documents of all corpora.
const KEY: &str = "text";

/// GPT-NeoX's own split, where a configuration has none.
const DEFAULT_SPLIT: &str = "969,30,1";

const EXAMPLES: &str = "\
Examples:
  The first 100 MB of Wikipedia, an article in each document: data/enwik8/enwik8_text_document.*
    prepare-data enwik8 -d ./data --split-documents articles

  What is known, and what became of it
    prepare-data --list

  A corpus whose source is gone, from a copy, which may be one at s3://, gs://, az:// or
  hf://datasets/OWNER/NAME/FILE as well
    prepare-data enron --mirror https://my.host/enron_emails.jsonl.zst --sha256 2e1f...

  Corpora of your own, with the tokenizer of GPT-NeoX-20B
    prepare-data mine --registry corpora.json -t HFTokenizer -v 20B_tokenizer.json

A registry is a file of JSON, in which sha256 and num_docs may be left out:
  {\"mine\": {\"urls\": [\"https://...\"], \"sha256\": [\"...\"], \"num_docs\": 1}}
Files that are complete are not fetched again, without -f. After Ctrl-C or a failure the same
command goes on with the file that is missing.";

/// Fetch a corpus and make an indexed dataset of it, as GPT-NeoX and Megatron read them.
#[derive(Parser, Debug)]
#[command(name = "prepare-data", version, after_help = EXAMPLES, max_term_width = 100)]
struct Args {
    /// The name of the corpus; --list says which there are
    #[arg(value_name = "CORPUS", default_value = "enwik8")]
    dataset: String,

    /// What makes ids of texts
    #[arg(short, long, value_name = "TYPE", default_value = "GPT2BPETokenizer")]
    tokenizer: TokenizerType,

    /// Where corpora come to be; each has a folder in it
    #[arg(short, long, value_name = "FOLDER", env = "DATA_DIR", default_value = "./data")]
    data_dir: PathBuf,

    /// tokenizer.json, vocab.json or name, as for preprocess-data [default: GPT-2's, written to the data folder]
    #[arg(short, long, value_name = "FILE|NAME")]
    vocab_file: Option<String>,

    /// merges.txt of GPT2BPETokenizer [default: GPT-2's, written to the data folder]
    #[arg(short, long, value_name = "FILE")]
    merge_file: Option<PathBuf>,

    /// Fetch again what is there already, and make the dataset again
    #[arg(short, long)]
    force_redownload: bool,

    /// A copy to take the files from: a file, or a folder with files of the same names
    #[arg(long, value_name = "URL|PATH", value_delimiter = ',')]
    mirror: Vec<String>,

    /// What the files must have, in their order
    #[arg(long, value_name = "SUM", value_delimiter = ',')]
    sha256: Vec<String>,

    /// A file of JSON with corpora of your own
    #[arg(long, value_name = "FILE")]
    registry: Option<PathBuf>,

    /// What becomes of texts that are one document by their kind of file, as that of enwik8 is
    #[arg(long, value_name = "HOW", default_value = "whole")]
    split_documents: Cut,

    /// Threads that run the tokenizer [default: one for each processor]
    #[arg(long, value_name = "N")]
    workers: Option<usize>,

    /// Print the names of all corpora, with their sources, and end
    #[arg(long)]
    list: bool,
}

/// The program `prepare-data`.
pub fn main() -> ExitCode {
    let args = Args::try_parse().unwrap_or_else(|error| cli::refuse(&error));
    cli::run_program("prepare-data", |cancel| {
        let corpora = registry(args.registry.as_deref())?;
        if args.list {
            print!("{}", table(&corpora));
            return Ok(());
        }
        let corpus = find(corpora, &args.dataset)?;
        prepare(&corpus, &args, cancel)
    })
}

fn prepare(corpus: &Corpus, args: &Args, cancel: &Arc<AtomicBool>) -> Result<()> {
    let sources = Source::of_corpus(corpus, &args.mirror, &args.sha256)?;
    // Before anything is fetched.
    sources.iter().try_for_each(|source| InputFile::new(source.name()).map(drop))?;
    let folder = args.data_dir.join(&corpus.folder);
    fs::create_dir_all(&folder).map_err(|e| Error::io(e, "create", &folder))?;
    let files = tokenizer_files(args)?;
    // Before the first hour of work.
    let tokenizer = args.tokenizer.load(&files)?;
    let bring = |source: &Source| source.bring(&folder, args.force_redownload, cancel);
    let paths = sources.iter().map(bring).collect::<Result<Vec<_>>>()?;

    let output_prefix = folder.join(&corpus.folder);
    let dataset = prefix_of(&output_prefix, KEY);
    let made = Made::of(args, &files, &paths)?;
    let old = Aside::restored(&dataset)?;
    if args.force_redownload {
        old.put_aside()?;
    } else if made.is_there(&dataset)? {
        println!("{}: there already, of the same files", dataset.display());
        return Ok(());
    }
    made.write(&dataset)?;
    let job = Preprocess {
        inputs: paths.into_iter().map(InputFile::new).collect::<Result<_>>()?,
        keys: vec![KEY.to_owned()],
        encoder: Encoder::Texts(TextEncoder {
            tokenizer,
            // No corpus of GPT-NeoX's registry asks for it.
            ftfy: None,
            append_eod: true,
            mask_before: Vec::new(),
        }),
        cut: args.split_documents,
        output_prefix,
        layout: Layout::Mapped,
        workers: args.workers.or_else(processors).unwrap_or(1),
    };
    // The number is that of whole documents.
    let num_docs = corpus.num_docs.filter(|_| args.split_documents == Cut::Whole);
    let written = run_and_report(job, Log { num_docs, every: 100 }, cancel).inspect_err(|_| {
        // Of nothing any more; what cannot be removed misleads nobody.
        let _ = fs::remove_file(Made::path(&dataset));
    })?;
    old.remove()?;
    written.iter().try_for_each(|written| warn_of_empty_parts(written, args.split_documents))
}

fn processors() -> Option<usize> {
    thread::available_parallelism().ok().map(usize::from)
}

/// What the tokenizer is made of: GPT-2's files are written where none are given, since configurations
/// of GPT-NeoX name them.
fn tokenizer_files(args: &Args) -> Result<TokenizerFiles> {
    let (vocab, merges) = (args.vocab_file.clone(), args.merge_file.clone());
    if args.tokenizer != TokenizerType::Gpt2Bpe {
        return Ok(TokenizerFiles { vocab, merges });
    }
    if vocab.is_some() != merges.is_some() {
        return Err(Error::invalid(
            "--vocab-file and --merge-file of GPT2BPETokenizer belong together",
            "give both, or none for GPT-2's own",
        ));
    }
    if vocab.is_some() {
        return Ok(TokenizerFiles { vocab, merges });
    }
    let [vocab, merges] =
        ["gpt2-vocab.json", "gpt2-merges.txt"].map(|name| args.data_dir.join(name));
    let (vocab_text, merges_text) = gpt2_vocab_and_merges()?;
    for (path, text) in [(&vocab, vocab_text), (&merges, merges_text)] {
        if !path.exists() {
            mds::durable::replace(path, text.as_bytes())
                .map_err(|e| Error::io(e, "write", path))?;
        }
    }
    let vocab = vocab.into_os_string().into_string().map_err(|path| {
        let what = format!("the data folder {} is not UTF-8", path.display());
        Error::invalid(what, "choose another --data-dir")
    })?;
    Ok(TokenizerFiles { vocab: Some(vocab), merges: Some(merges) })
}

/// Says which parts of GPT-NeoX's own split get no document.
fn warn_of_empty_parts(written: &Written, cut: Cut) -> Result<()> {
    let split: Split = DEFAULT_SPLIT.parse()?;
    let documents = usize::try_from(written.documents).unwrap_or(usize::MAX);
    for notice in split.notices(documents) {
        eprintln!("prepare-data: note: {notice}");
    }
    if documents == 1 && cut == Cut::Whole {
        eprintln!(
            "prepare-data: note: --split-documents articles or lines, with -f, makes more documents of it"
        );
    }
    Ok(())
}

/// A dataset that is to be made again: its files have other names until the new one is complete, and theirs again if it
/// fails. A run that was killed leaves them for the next one.
struct Aside {
    /// The name of each file, and its name until then.
    files: Vec<[PathBuf; 2]>,
}

impl Aside {
    /// Gives the files their names again that a run has left which was killed.
    fn restored(dataset: &Path) -> Result<Self> {
        let named = |ending: &str| {
            let mut path = dataset.as_os_str().to_owned();
            path.push(ending);
            PathBuf::from(path)
        };
        let files = [".bin", ".idx", ".made.json"];
        let files = files.map(|ending| [named(ending), named(&format!("{ending}.old"))]);
        let aside = Self { files: files.to_vec() };
        aside.restore();
        Ok(aside)
    }

    fn put_aside(&self) -> Result<()> {
        for [path, aside] in self.files.iter().filter(|[path, _]| path.exists()) {
            fs::rename(path, aside).map_err(|e| Error::io(e, "rename", path))?;
        }
        Ok(())
    }

    fn restore(&self) {
        // The index makes a dataset of the tokens.
        let is_new = self.files[1][0].exists();
        for [path, aside] in self.files.iter().filter(|[_, aside]| aside.exists() && !is_new) {
            // What cannot be renamed stays for the next run.
            let _ = fs::rename(aside, path);
        }
    }

    /// Removes what the new dataset has replaced.
    fn remove(&self) -> Result<()> {
        for [_, aside] in self.files.iter().filter(|[_, aside]| aside.exists()) {
            fs::remove_file(aside).map_err(|e| Error::io(e, "remove", aside))?;
        }
        Ok(())
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        self.restore();
    }
}

/// What a dataset was made of.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Made {
    tokenizer_type: String,
    vocab_file: Option<String>,
    merge_file: Option<PathBuf>,
    split_documents: String,
    /// Names, sizes in bytes and times of the last change in nanoseconds since 1970.
    files: Vec<(String, u64, Option<u128>)>,
}

impl Made {
    fn of(args: &Args, files: &TokenizerFiles, paths: &[PathBuf]) -> Result<Self> {
        let described = paths.iter().map(|path| {
            let metadata = fs::metadata(path).map_err(|e| Error::io(e, "open", path))?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let since = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            Ok((name, metadata.len(), since.map(|since| since.as_nanos())))
        });
        let cut = args.split_documents.to_possible_value();
        Ok(Self {
            tokenizer_type: args.tokenizer.name().to_owned(),
            vocab_file: files.vocab.clone(),
            merge_file: files.merges.clone(),
            split_documents: cut.map(|cut| cut.get_name().to_owned()).unwrap_or_default(),
            files: described.collect::<Result<_>>()?,
        })
    }

    fn path(dataset: &Path) -> PathBuf {
        let mut path = dataset.as_os_str().to_owned();
        path.push(".made.json");
        path.into()
    }

    /// Whether the dataset is there and was made of this.
    fn is_there(&self, dataset: &Path) -> Result<bool> {
        let mut index = dataset.as_os_str().to_owned();
        index.push(".idx");
        let index = PathBuf::from(index);
        if !index.exists() {
            return Ok(false);
        }
        let text = fs::read_to_string(Self::path(dataset)).ok();
        let found = text.and_then(|text| serde_json::from_str::<Self>(&text).ok());
        if found.as_ref() == Some(self) {
            return Ok(true);
        }
        Err(Error::new(
            ErrorKind::AlreadyExists,
            format!("{} was made of other files or by another tokenizer", index.display()),
            "remove it, or give -f, which fetches the files again too",
        ))
    }

    fn write(&self, dataset: &Path) -> Result<()> {
        let path = Self::path(dataset);
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| Error::internal(&format!("cannot describe a dataset: {e}")))?;
        mds::durable::replace(&path, text.as_bytes()).map_err(|e| Error::io(e, "write", &path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn flags_are_consistent() {
        Args::command().debug_assert();
    }
}
