//! What the flags of a source ask for, checked: one conversion for each split.

use std::env;
use std::thread;

use mds::WriterOptions;
use mds::format::{Compression, HashAlgorithm, parse_size};

use super::args::{BadLineChoice, OutputArgs};
use super::tasks;
use super::tokens::tokens;
use crate::conversion::{Content, Conversion, Earlier, OnBadLine, SubsetFilter};
use crate::error::{Error, Result};
use crate::out_root::OutRoot;
use crate::source::{SourceFile, Split, Task};
use crate::statistics::Statistics;

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
    /// What a dataset was made of that is the source, if one of these programs has made it.
    pub(super) made_of: Option<Statistics>,
}

impl SourceOptions {
    pub(super) fn new(text: Content, compression: Option<&'static str>) -> Self {
        Self { text, compression, subsets: None, holds_ids: false, made_of: None }
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
        let content = tokens(program, &args, &source)?.map_or(source.text, Content::Tokens);
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
                "convert it with one program: --num_tasks 1 and no --task_id",
            ));
        }
        let all = conversion.files.len();
        let (task, mine) = task.slice(conversion.files);
        conversion.files = mine;
        conversion.out_root = self.out_root.below(split.as_str());
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
