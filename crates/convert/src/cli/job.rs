//! What the flags of a source ask for, checked: one conversion for each split.

use std::env;
use std::thread;

use mds::WriterOptions;
use mds::format::{Compression, HashAlgorithm, parse_size};
use serde_json::Value as Json;

use super::args::{BadLineChoice, OutputArgs};
use super::tasks;
use crate::conversion::{
    Content, Conversion, Earlier, OnBadLine, SubsetFilter, TokenEncoding, TokenOptions,
};
use crate::error::{Error, Result};
use crate::out_root::OutRoot;
use crate::source::{SourceFile, Split, Task};
use crate::tokenizer::Tokenizer;

/// Settings of llm-foundry's tokenizers that change no ids.
const IDLE_KWARGS: [&str; 4] = ["model_max_length", "use_fast", "trust_remote_code", "legacy"];

/// What a source has of its own.
pub(super) struct SourceOptions {
    /// What a sample holds unless token ids are asked for.
    pub(super) text: Content,
    /// How shards are compressed unless it is said.
    pub(super) compression: Option<&'static str>,
    /// Of the Pile.
    pub(super) subsets: Option<SubsetFilter>,
    /// Whether the source holds token ids, which need no tokenizer.
    pub(super) holds_ids: bool,
}

impl SourceOptions {
    pub(super) fn new(text: Content, compression: Option<&'static str>) -> Self {
        Self { text, compression, subsets: None, holds_ids: false }
    }
}

/// What the flags ask for.
pub(super) struct Job {
    program: &'static str,
    pub(super) out_root: OutRoot,
    content: Content,
    subsets: Option<SubsetFilter>,
    writer: WriterOptions,
    on_bad_line: OnBadLine,
    threads: usize,
    earlier: Earlier,
    task: Option<Task>,
}

impl Job {
    pub(super) fn check(
        program: &'static str,
        out_root: OutRoot,
        args: OutputArgs,
        source: SourceOptions,
    ) -> Result<Self> {
        let content =
            tokens(program, &args, source.holds_ids)?.map_or(source.text, Content::Tokens);
        // The defaults may be written out.
        let compression = args.compression.as_deref().or(source.compression);
        let compression = compression.filter(|code| *code != "none");
        let mut hashes = Vec::new();
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
        let task = tasks::task(args.num_tasks, args.task_id, |name| env::var(name).ok())?;
        if let Some((task, said_by)) = &task {
            eprintln!("{program}: task {} of {} ({said_by})", task.id, task.of);
        }
        let threads = args.num_workers.filter(|&n| n > 0);
        let threads = threads.or_else(|| thread::available_parallelism().ok().map(usize::from));
        Ok(Self {
            program,
            out_root,
            content,
            subsets: source.subsets,
            writer,
            on_bad_line: match args.on_bad_line {
                BadLineChoice::Fail => OnBadLine::Fail,
                BadLineChoice::Skip => OnBadLine::Skip,
            },
            threads: threads.unwrap_or(1),
            earlier: match (args.restart, args.reprocess) {
                (_, true) => Earlier::Replace,
                (true, false) => Earlier::Restart,
                (false, false) => Earlier::GoOn,
            },
            task: task.map(|(task, _)| task),
        })
    }

    /// The conversion of `split`; `None` if this is a task that has no files.
    pub(super) fn plan(&self, split: Split, files: Vec<SourceFile>) -> Result<Option<Conversion>> {
        let mut conversion = Conversion {
            split,
            files,
            out_root: self.out_root.clone(),
            content: self.content.clone(),
            subsets: self.subsets.clone(),
            writer: self.writer.clone(),
            on_bad_line: self.on_bad_line,
            threads: self.threads,
            earlier: self.earlier,
        };
        let Some(task) = self.task.clone() else { return Ok(Some(conversion)) };
        let split = &conversion.split;
        if split.most_samples.is_some() {
            return Err(Error::invalid(
                format!("{split} is the first samples of a split, which several tasks cannot make"),
                "convert it with one program: --num_tasks 1",
            ));
        }
        let all = conversion.files.len();
        let (task, mine) = task.slice(conversion.files);
        conversion.files = mine;
        conversion.out_root = self.out_root.below(split.as_str());
        conversion.out_root.refuse_merged()?;
        if conversion.files.is_empty() {
            let (program, Task { id, of, .. }) = (self.program, task);
            let plural = if all == 1 { "" } else { "s" };
            eprintln!("{program}: {split}: {all} file{plural}, none of them for task {id} of {of}");
            return Ok(None);
        }
        conversion.split = split.of_task(task);
        Ok(Some(conversion))
    }
}

/// What `--concat_tokens`, `--tokenizer` and their like ask for.
fn tokens(program: &str, args: &OutputArgs, holds_ids: bool) -> Result<Option<TokenOptions>> {
    let marks = [
        ("--bos_text", args.bos_text.is_some()),
        ("--eos_text", args.eos_text.is_some()),
        ("--use_tokenizer_eos", args.use_tokenizer_eos),
    ];
    let given = |flags: &[(&'static str, bool)]| {
        flags.iter().find(|(_, given)| *given).map(|(flag, _)| *flag)
    };
    if args.concat_tokens.is_none() {
        let makes_ids = args.tokenizer.is_some() && !holds_ids;
        let others = [
            ("--tokenizer", args.tokenizer.is_some() && holds_ids),
            ("--tokenizer_kwargs", args.tokenizer_kwargs.is_some() && !makes_ids),
            ("--no_wrap", args.no_wrap),
            ("--sequence_id", args.sequence_id),
            (
                "--token_encoding",
                args.token_encoding != TokenEncoding::Int32 && !makes_ids && !holds_ids,
            ),
        ];
        if let Some(flag) = given(&marks).or_else(|| given(&others)) {
            let samples =
                if makes_ids || holds_ids { "samples that are documents" } else { "text samples" };
            return Err(Error::invalid(
                format!("{flag} has no effect on {samples}"),
                format!("add --concat_tokens N, or leave {flag} out"),
            ));
        }
        if !makes_ids && !holds_ids {
            return Ok(None);
        }
    }
    check_kwargs(args.tokenizer_kwargs.as_deref())?;
    let tokenizer = match &args.tokenizer {
        Some(name) => Some(Tokenizer::load(name)?),
        None if !holds_ids => {
            return Err(Error::invalid(
                "--concat_tokens needs a tokenizer",
                "add --tokenizer gpt2, or the path of a tokenizer.json",
            ));
        }
        None => None,
    };
    if tokenizer.is_none()
        && let Some(flag) = given(&marks)
    {
        return Err(Error::invalid(
            format!("{flag} needs a tokenizer, which makes tokens of it"),
            "add --tokenizer, the one that the source was made with",
        ));
    }
    let mut eos_text = args.eos_text.clone().unwrap_or_default();
    if let Some(tokenizer) = tokenizer.as_ref().filter(|_| args.use_tokenizer_eos) {
        eos_text = tokenizer.eos_text()?.ok_or_else(|| {
            Error::invalid(
                format!("tokenizer {} has no end-of-text token", tokenizer.name()),
                "name one with --eos_text instead of --use_tokenizer_eos",
            )
        })?;
    }
    let options = TokenOptions {
        tokenizer,
        length: args.concat_tokens,
        bos_text: args.bos_text.clone().unwrap_or_default(),
        eos_text,
        wrap: !args.no_wrap,
        encoding: args.token_encoding,
        sequence_id: args.sequence_id,
    };
    for warning in options.check(holds_ids)? {
        eprintln!("{program}: warning: {warning}");
    }
    Ok(Some(options))
}

fn check_kwargs(given: Option<&str>) -> Result<()> {
    let Some(text) = given else { return Ok(()) };
    let Ok(Json::Object(settings)) = serde_json::from_str(text) else {
        return Err(Error::invalid(
            format!("--tokenizer_kwargs {text} is not a JSON object"),
            "write it as '{\"model_max_length\": 2048}'",
        ));
    };
    match settings.keys().find(|key| !IDLE_KWARGS.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(Error::invalid(
            format!("--tokenizer_kwargs has {key:?}, which this program does not know"),
            format!(
                "save the tokenizer with that setting and give its tokenizer.json; {} are taken",
                IDLE_KWARGS.join(", ")
            ),
        )),
    }
}
