//! The command lines of `convert` and `convert-c4`.
//!
//! The flags of a source (`args`) become a checked `Job`; each split is one [`Conversion`], watched by
//! a `Display`.

mod args;
mod display;
mod job;
mod merge;
mod stop;
mod tasks;
mod to_indexed;
mod tokens;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use clap::Parser;

use self::args::{
    C4Args, Convert, HfArgs, IndexedArgs, JsonArgs, MdsArgs, OutputArgs, ParquetArgs, PileArgs,
    PlaceArgs, Source, SplitArgs, TextArgs,
};
use self::display::{Display, plural, report, report_memory, report_profile};
use self::job::{Job, SourceOptions};
use self::stop::StopSignal;
use crate::conversion::{Content, Conversion, Earlier, State, SubsetFilter};
use crate::error::{Error, ErrorKind, Result};
use crate::out_root::OutRoot;
use crate::source::{
    Format, HUB_DATASET, NamedSplit, SourceFile, Split, files_of, files_of_pile, files_of_split,
    files_on_hub, shards_of, statistics_of,
};

/// As shells report a program that Ctrl-C ended.
const EXIT_INTERRUPTED: u8 = 130;

/// The program `convert`: a source, then its flags.
pub fn convert() -> ExitCode {
    match Convert::try_parse().unwrap_or_else(|error| refuse(&error)).source {
        Source::C4(args) => run_source("convert c4", |program| c4(*args, program)),
        Source::Hf(args) => run_source("convert hf", |program| hf(*args, program)),
        Source::Pile(args) => run_source("convert pile", |program| pile(*args, program)),
        Source::Json(args) => run_source("convert json", |program| json(*args, program)),
        Source::Text(args) => {
            start_log(args.logging_level.as_str());
            exit_code("convert text", |stop, program| convert_all(text(*args, program)?, stop))
        }
        Source::Parquet(args) => run_source("convert parquet", |program| parquet(*args, program)),
        Source::Indexed(args) => run_source("convert indexed", |program| indexed(*args, program)),
        Source::Mds(args) => run_source("convert mds", |program| mds(*args, program)),
        Source::Merge(args) => {
            start_log(QUIET);
            exit_code("convert merge", |_, _| merge::run(&args))
        }
        Source::ToIndexed(args) => {
            start_log(QUIET);
            exit_code("convert to_indexed", |stop, _| to_indexed::run(&args, stop))
        }
    }
}

/// The program `convert-c4`.
pub fn convert_c4() -> ExitCode {
    let args = C4Args::try_parse().unwrap_or_else(|error| refuse(&error));
    run_source("convert-c4", |program| c4(args, program))
}

/// Says what is wrong with the command line, without the keys that an address in it may carry.
pub(crate) fn refuse(error: &clap::Error) -> ! {
    let text = error.render().to_string();
    let given = std::env::args_os().skip(1).map(|given| given.to_string_lossy().into_owned());
    let shown = mds::storage::redacted_about(&text, given);
    if !error.use_stderr() || shown == text {
        error.exit()
    }
    eprint!("{shown}");
    std::process::exit(error.exit_code())
}

/// What is logged unless it is asked for.
const QUIET: &str = "warn";

fn start_log(level: &str) {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false)
        .without_time()
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| level.to_lowercase().into()),
        )
        .init();
}

/// Runs the conversions that `plan` makes of a command line, one after the other.
fn run_source(program: &'static str, plan: impl FnOnce(&'static str) -> Result<Plan>) -> ExitCode {
    start_log(QUIET);
    exit_code(program, |stop, program| convert_all(plan(program)?, stop))
}

/// A program of its own: `work` ends in order when the flag is set.
pub(crate) fn run_program(
    program: &'static str,
    work: impl FnOnce(&Arc<AtomicBool>) -> Result<()>,
) -> ExitCode {
    start_log(QUIET);
    exit_code(program, |stop, _| stop.while_converting(work))
}

fn exit_code(
    program: &'static str,
    work: impl FnOnce(&StopSignal, &'static str) -> Result<()>,
) -> ExitCode {
    match StopSignal::install().and_then(|stop| work(&stop, program)) {
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

/// What a command line asks for.
struct Plan {
    conversions: Vec<Conversion>,
    profile: bool,
}

fn c4(args: C4Args, program: &'static str) -> Result<Plan> {
    let source = SourceOptions::new(Content::Records, None);
    let job = JobArgs { place: args.place, output: args.output, source };
    let path = args.source.as_deref();
    job.of_named_splits(program, args.splits, |split, alone| files_of_split(path, split, alone))
}

fn hf(args: HfArgs, program: &'static str) -> Result<Plan> {
    match args.dataset.as_str() {
        "c4" | HUB_DATASET => {}
        "the_pile" | "pile" | "EleutherAI/pile" => {
            return Err(Error::invalid(
                format!("--dataset {}: the Pile is no longer on the hub", args.dataset),
                "read a copy of your own with convert pile --path",
            ));
        }
        other => {
            return Err(Error::invalid(
                format!("--dataset {other} is not known"),
                format!(
                    "{HUB_DATASET} is; fetch the files of another one, and read them with convert \
                     json or convert parquet"
                ),
            ));
        }
    }
    let source = SourceOptions::new(Content::Text, None);
    let job = JobArgs { place: args.place, output: args.output, source };
    let subset = &args.data_subset;
    job.of_named_splits(program, args.splits, |split, _| files_on_hub(split, subset))
}

fn pile(args: PileArgs, program: &'static str) -> Result<Plan> {
    let subsets = SubsetFilter {
        only: args.subsets.into_iter().collect(),
        except: args.exclude_subsets.into_iter().collect(),
    };
    let mut source = SourceOptions::new(Content::PileRecords, None);
    source.subsets = Some(subsets);
    let job = JobArgs { place: args.place, output: args.output, source };
    job.of_named_splits(program, args.splits, |split, alone| {
        files_of_pile(&args.path, split, alone)
    })
}

fn json(args: JsonArgs, program: &'static str) -> Result<Plan> {
    let source = SourceOptions::new(Content::Text, Some("zstd"));
    let job = JobArgs { place: args.place, output: args.output, source };
    job.of_split(program, args.split, || files_of(&args.path, &Format::JsonLines))
}

fn text(args: TextArgs, program: &'static str) -> Result<Plan> {
    let (out_root, name) = parent_of(&args.output_folder)?;
    let source = SourceOptions::new(Content::Text, Some("zstd"));
    let job = JobArgs { place: PlaceArgs { out_root }, output: args.output, source };
    job.of_split(program, SplitArgs { split: name }, || files_of(&args.input_folder, &Format::Text))
}

fn parquet(args: ParquetArgs, program: &'static str) -> Result<Plan> {
    let source = SourceOptions::new(Content::Text, None);
    let job = JobArgs { place: args.place, output: args.output, source };
    let format = Format::Parquet { column: args.column };
    job.of_split(program, args.split, || files_of(&args.path, &format))
}

fn indexed(args: IndexedArgs, program: &'static str) -> Result<Plan> {
    let mut source = SourceOptions::new(Content::Text, None);
    source.holds_ids = true;
    let job = JobArgs { place: args.place, output: args.output, source };
    job.of_split(program, args.split, || files_of(&args.path, &Format::Indexed))
}

fn mds(args: MdsArgs, program: &'static str) -> Result<Plan> {
    let files = shards_of(&args.path, args.column.as_deref())?;
    let mut source = SourceOptions::new(Content::Text, None);
    source.holds_ids = files.iter().any(SourceFile::holds_ids);
    source.made_of = statistics_of(&args.path)?;
    let job = JobArgs { place: args.place, output: args.output, source };
    job.of_split(program, args.split, || Ok(files))
}

/// The folder that holds `folder`, and the name of that in it.
fn parent_of(folder: &OsString) -> Result<(OsString, String)> {
    let text = folder.to_string_lossy();
    let refused = |why: &str| {
        Error::invalid(
            format!("--output_folder {} cannot become a dataset{why}", mds::redacted(&text)),
            "give a folder that can be made, such as ./books-mds",
        )
    };
    let (parent, name) = if mds::storage::is_address(&text) {
        let (parent, name) = mds::storage::split(&text)?;
        (parent.into(), name)
    } else {
        let path =
            std::path::absolute(folder).map_err(|e| Error::io(e, "find", folder.as_ref()))?;
        match (path.parent(), path.file_name().and_then(|name| name.to_str())) {
            (Some(parent), Some(name)) => (parent.into(), name.to_owned()),
            _ => return Err(refused("")),
        }
    };
    if name.starts_with('.') {
        return Err(refused(": its name begins with a dot"));
    }
    Ok((parent, name))
}

/// What a job is made of, whatever its splits are.
struct JobArgs {
    place: PlaceArgs,
    output: OutputArgs,
    source: SourceOptions,
}

impl JobArgs {
    fn check(self, program: &'static str) -> Result<(Job, bool)> {
        let profile = self.output.profile;
        let out_root = OutRoot::parse(self.place.out_root)?;
        Ok((Job::check(program, out_root, self.output, self.source)?, profile))
    }

    fn of_split(
        self,
        program: &'static str,
        split: SplitArgs,
        files: impl FnOnce() -> Result<Vec<SourceFile>>,
    ) -> Result<Plan> {
        let split = Split::new(split.split)?;
        let (job, profile) = self.check(program)?;
        Ok(Plan { conversions: job.plan(split, files()?)?.into_iter().collect(), profile })
    }

    /// The flag of `files` says that all splits are parts of the same.
    fn of_named_splits(
        self,
        program: &'static str,
        splits: Vec<NamedSplit>,
        files: impl Fn(NamedSplit, bool) -> Result<Vec<SourceFile>>,
    ) -> Result<Plan> {
        let mut named: Vec<NamedSplit> = Vec::new();
        for split in splits {
            if !named.contains(&split) {
                named.push(split);
            }
        }
        let (job, profile) = self.check(program)?;
        let alone = named.iter().all(|split| split.whole() == named[0].whole());
        let mut conversions = Vec::new();
        for split in named {
            conversions.extend(job.plan(split.into(), files(split, alone)?)?);
        }
        Ok(Plan { conversions, profile })
    }
}

fn convert_all(plan: Plan, stop: &StopSignal) -> Result<()> {
    let Plan { conversions, profile } = plan;
    // Of all, before the first hour of work.
    let states = conversions.iter().map(Conversion::state).collect::<Result<Vec<_>>>()?;
    let mut is_new = false;
    for (conversion, state) in conversions.into_iter().zip(states) {
        let (split, out_root) = (conversion.split.clone(), conversion.out_root.clone());
        match state {
            State::New => {}
            State::Unfinished(shards) => {
                eprintln!("{split}: going on with the {} of an earlier run", counted(shards));
            }
            State::Complete(skipped) => {
                let there = out_root.shown(&split);
                let but = match skipped {
                    0 => String::new(),
                    1 => ", but for 1 document that was skipped".to_owned(),
                    n => format!(", but for {n} documents that were skipped"),
                };
                println!("{split}: {there} is complete, of the same input and settings{but}");
                if let (OutRoot::Folder(_), Some(left)) = (&out_root, out_root.unfinished(&split)?)
                {
                    let (shards, place) = (counted(left.shards), left.shown);
                    eprintln!(
                        "{split}: note: {shards} of a --reprocess that did not end in {place}; the same \
                         with --reprocess goes on from there"
                    );
                }
                continue;
            }
        }
        let display = Display::start(&conversion);
        let started = Instant::now();
        let (files, earlier) = (conversion.files.len(), conversion.earlier);
        let result = stop.while_converting(|cancel| conversion.run(&display.meter, cancel));
        let meter = display.finish();
        // What exists already is another run's.
        if let Err(error) = &result
            && error.kind() != ErrorKind::AlreadyExists
            && let Ok(Some(left)) = out_root.unfinished(&split)
        {
            let (shards, place) = (counted(left.shards), left.shown);
            let without = if earlier == Earlier::Restart { " without --restart" } else { "" };
            eprintln!(
                "{split}: {shards} kept in {place}; the same command{without} goes on from there"
            );
        }
        let summary = result?;
        if summary.samples == 0 {
            eprintln!(
                "{split}: note: no sample is made of its files; the part is complete without"
            );
        }
        report(&split, files, started.elapsed(), &summary);
        if profile {
            report_profile(&split, &meter, started.elapsed());
        }
        is_new = true;
    }
    if is_new {
        report_memory();
    }
    Ok(())
}

fn counted(shards: usize) -> String {
    plural(shards as u64, "complete shard")
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
        let commands = Convert::command();
        for arg in commands.get_subcommands().flat_map(clap::Command::get_arguments) {
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

    /// Lines that are shown as they are written must not be broken once more.
    #[test]
    fn help_of_several_lines_fits_the_width() {
        let commands = Convert::command();
        let all = commands.get_subcommands().flat_map(clap::Command::get_arguments);
        let tasks = all.filter(|arg| arg.get_long() == Some("num_tasks"));
        let helps: Vec<String> =
            tasks.filter_map(|arg| arg.get_long_help()).map(ToString::to_string).collect();
        assert_eq!(helps.len(), 8);
        for line in helps.iter().flat_map(|help| help.lines()) {
            // Of 100, of which 10 are the margin.
            assert!(line.len() <= 90, "{line}");
        }
    }

    #[test]
    fn an_output_folder_is_a_split_of_its_parent() {
        let parts = |folder: &str| parent_of(&folder.into()).map_err(|e| e.to_string());
        assert_eq!(parts("/a/b/").unwrap(), ("/a".into(), "b".to_owned()));
        let address = parts("s3://bucket/a/b").unwrap();
        assert_eq!((address.0.to_str().unwrap(), &*address.1), ("s3://bucket/a", "b"));
        assert_eq!(
            parts("/").unwrap_err(),
            "--output_folder / cannot become a dataset; give a folder that can be made, such as \
             ./books-mds"
        );
        for hidden in ["./.hidden", "s3://bucket/.hidden"] {
            assert_eq!(
                parts(hidden).unwrap_err(),
                format!(
                    "--output_folder {hidden} cannot become a dataset: its name begins with a dot; \
                     give a folder that can be made, such as ./books-mds"
                )
            );
        }
    }
}
