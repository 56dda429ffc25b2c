//! `evaluate CHECKPOINT`: the perplexity of a trained model, and its answers to in-context tasks.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use trainer::config::{Config, DeviceChoice, IclTask, LoaderConfig, ModelConfig};
use trainer::data::{AskedBy, EvalData};
use trainer::device;
use trainer::eval::evaluate;
use trainer::icl::{Answer, IclLimit, IclOptions, IclProgress, TaskResult, Tasks, accuracies};
use trainer::interrupt::{EXIT_CODE, Interrupt};
use trainer::logging::Value;
use trainer::pretrained::Pretrained;

/// How often a line of progress is printed where there is no terminal for a bar.
const PLAIN_PROGRESS_EVERY: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "\
Examples:
  The newest checkpoint of a run on its own evaluation split:
    evaluate runs/gpt-125m/checkpoints

  On another dataset, of text or of tokens:
    evaluate runs/gpt-125m/checkpoints --data ./pile --split val

  A GPT-2 that transformers saved with save_pretrained, on a dataset in a bucket:
    evaluate ./gpt2 --data s3://bucket/c4 --split val --batches 100

  In-context tasks, listed under icl_tasks in llm-foundry's format:
    evaluate runs/gpt-125m/checkpoints --icl_tasks tasks.yaml

Each line of the result is NAME: VALUE, as in metrics.jsonl. Loss is in nats per token, accuracies go from 0 to 1.

Exit codes: 0 done; 1 an error, in one sentence; 2 wrong usage; 130 stopped by Ctrl-C or SIGTERM.";

/// Measure the loss of a trained model on a dataset, and its accuracy on in-context tasks.
#[derive(Debug, Parser)]
#[command(name = "evaluate", version, rename_all = "snake_case", after_long_help = EXAMPLES)]
struct Args {
    /// A checkpoint, the save_folder that holds it, or a GPT-2 of transformers: a path or an address
    model: String,
    /// The dataset, or the folder of its splits [default: that of the run's eval_loader; none with --icl_tasks]
    #[arg(long, value_name = "ADDRESS")]
    data: Option<String>,
    /// A split below it
    #[arg(long)]
    split: Option<String>,
    /// Rows that are computed together [default: as in the run, else 4]
    #[arg(long, alias = "batch-size", value_name = "N", value_parser = at_least_one::<NonZeroUsize>)]
    batch_size: Option<NonZeroUsize>,
    /// Tokens per row [default: as the model was trained]; more where it learns no positions
    #[arg(long, alias = "max-seq-len", value_name = "N")]
    max_seq_len: Option<usize>,
    /// Stop after so many batches [default: as in the run on its own split, else all]
    #[arg(long, value_name = "N", value_parser = at_least_one::<NonZeroU64>)]
    batches: Option<NonZeroU64>,
    /// A tokenizer in place of the model's own: gpt2, a tokenizer.json or its folder, or a hub name
    #[arg(long)]
    tokenizer: Option<String>,
    /// In-context tasks to evaluate: a YAML file with a list icl_tasks, a path or an address
    #[arg(long, alias = "icl-tasks", value_name = "FILE")]
    icl_tasks: Option<PathBuf>,
    /// Ask only the first so many questions of each task
    #[arg(long, alias = "icl-limit", value_name = "N", value_parser = at_least_one::<NonZeroUsize>, requires = "icl_tasks")]
    icl_limit: Option<NonZeroUsize>,
    /// Write each question's scores, or what the model wrote, there, as JSON lines
    #[arg(long, alias = "icl-answers", value_name = "FILE", requires = "icl_tasks")]
    icl_answers: Option<PathBuf>,
    /// auto, cpu or cuda
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
}

/// A number that its type keeps from being 0.
fn at_least_one<N: FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| "it must be a whole number of at least 1, for example 8".to_owned())
}

fn main() -> ExitCode {
    device::keep_freed_blocks();
    match run(&Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> trainer::Result<ExitCode> {
    let tasks = args.icl_tasks.as_deref().map(IclTask::load_all).transpose()?;
    let interrupt = Interrupt::listen()?;
    let device = device::select(args.device)?;
    let found = Pretrained::load(&args.model, args.tokenizer.as_deref(), &device)?;
    let n_params = found.model.config().n_params();
    eprintln!("{}: {n_params} parameters on {}", found.place, device::name(&device));
    longer_rows(args, found.model.config()).iter().for_each(|note| eprintln!("note: {note}"));
    let mut whole = true;
    if tasks.is_none() || args.data.is_some() {
        whole = print_loss(args, &found, &interrupt)?;
    }
    if let Some(tasks) = tasks.filter(|_| whole) {
        whole = print_accuracies(args, &tasks, &found, &interrupt)?;
    }
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::from(EXIT_CODE as u8) })
}

/// Rows that are computed together.
fn rows(args: &Args, found: &Pretrained) -> usize {
    let own = found.recipe.as_ref().map(|recipe| recipe.device_eval_batch_size);
    args.batch_size.map(NonZeroUsize::get).or(own).unwrap_or(4)
}

/// `false` if it was interrupted.
fn print_loss(args: &Args, found: &Pretrained, interrupt: &Interrupt) -> trainer::Result<bool> {
    let model = found.model.config();
    let own_split = found.recipe.as_ref().filter(|_| args.data.is_none());
    for loader in loaders(args, found.recipe.as_ref(), model)? {
        let own = own_split
            .and_then(|recipe| recipe.eval_subset_num_batches.or(loader.eval_subset_num_batches));
        let limit = args.batches.map(NonZeroU64::get).or(own);
        let rows = rows(args, found);
        let (asked_by, vocab_size) = (AskedBy::Flags, model.vocab_size);
        let data = EvalData::of(&loader, asked_by, rows, limit, vocab_size, &found.tokenizer)?;
        let Some(evaluation) = evaluate(&found.model, &data, &found.tokenizer, interrupt)? else {
            return Ok(false);
        };
        let label = loader.label.as_deref();
        for (name, value) in evaluation.metrics(label) {
            println!("{name}: {value}");
        }
        let of = label.map_or(String::new(), |label| format!(" of {label}"));
        println!("tokens{of}: {}", evaluation.tokens);
    }
    Ok(true)
}

/// `false` if it was interrupted.
fn print_accuracies(
    args: &Args,
    tasks: &[IclTask],
    found: &Pretrained,
    interrupt: &Interrupt,
) -> trainer::Result<bool> {
    let max_seq_len = args.max_seq_len.unwrap_or(found.model.config().max_seq_len);
    let options = IclOptions {
        rows: rows(args, found),
        max_seq_len,
        limit: args.icl_limit.map_or(IclLimit::None, |limit| IclLimit::Questions(limit.get())),
    };
    let tasks = Tasks::open(tasks, found.model.config(), &found.tokenizer, options)?;
    tasks.notes().iter().for_each(|note| eprintln!("note: {note}"));
    let mut shown = Shown::new();
    let results = tasks.evaluate(&found.model, interrupt, |progress| shown.show(progress))?;
    shown.bar.finish_and_clear();
    let Some(results) = results else { return Ok(false) };
    for (name, accuracy) in accuracies(&results) {
        println!("{name}: {}", Value::from(accuracy));
    }
    if let Some(path) = &args.icl_answers {
        std::fs::write(path, answers(&results)).map_err(trainer::Error::io("write", path))?;
    }
    Ok(true)
}

/// A line of the file of answers.
#[derive(Serialize)]
struct AnswerLine<'a> {
    task: &'a str,
    #[serde(flatten)]
    answer: &'a Answer,
}

/// One line for each question.
fn answers(results: &[TaskResult]) -> String {
    let mut lines = String::new();
    for result in results {
        let task = result.label();
        for answer in &result.answers {
            let line = serde_json::json!(AnswerLine { task: &task, answer });
            _ = writeln!(lines, "{line}");
        }
    }
    lines
}

/// What is shown of the progress: a bar, or a line now and then where there is no terminal.
struct Shown {
    bar: ProgressBar,
    terminal: bool,
    last: Instant,
}

impl Shown {
    fn new() -> Self {
        let style =
            ProgressStyle::with_template("{msg:30} {percent:>3}%|{bar:25}| {pos}/{len} questions")
                .expect("the template above is well-formed")
                .progress_chars("█▉▊▋▌▍▎▏ ");
        // On stderr, and hidden where that is no terminal.
        let bar = ProgressBar::new(0).with_style(style);
        Self { bar, terminal: std::io::stderr().is_terminal(), last: Instant::now() }
    }

    fn show(&mut self, IclProgress { label, done, total }: IclProgress<'_>) {
        if self.terminal {
            self.bar.set_message(label.to_owned());
            self.bar.set_length(total as u64);
            self.bar.set_position(done as u64);
        } else if self.last.elapsed() >= PLAIN_PROGRESS_EVERY {
            self.last = Instant::now();
            eprintln!("{label}: {done}/{total} questions");
        }
    }
}

/// What the flags say, else the run's own evaluation splits.
fn loaders(
    args: &Args,
    recipe: Option<&Config>,
    model: &ModelConfig,
) -> trainer::Result<Vec<LoaderConfig>> {
    let own = recipe.map_or(&[][..], |recipe| &recipe.eval_loaders);
    let mut loaders = match &args.data {
        Some(data) => {
            let trained = recipe.map_or(model.max_seq_len, |recipe| recipe.max_seq_len);
            vec![LoaderConfig::for_evaluation(data, args.split.as_deref(), trained)?]
        }
        None => own.to_vec(),
    };
    if loaders.is_empty() {
        return Err(trainer::Error::Config(
            "the model comes without an evaluation split; name a dataset with --data".to_owned(),
        ));
    }
    for loader in &mut loaders {
        if let (None, Some(split)) = (&args.data, &args.split) {
            loader.dataset.split = Some(split.clone());
        }
        // Whether documents are joined, and what stands around them, is as the model has learned it.
        if let (Some(_), Some(own)) = (&args.data, own.first()) {
            loader.dataset.group_method = own.dataset.group_method;
            loader.dataset.bos_text.clone_from(&own.dataset.bos_text);
            loader.dataset.eos_text.clone_from(&own.dataset.eos_text);
            loader.dataset.token_encoding_type = own.dataset.token_encoding_type;
        }
        let length = args.max_seq_len.unwrap_or(loader.dataset.max_seq_len);
        check_length(length, model)?;
        loader.dataset.max_seq_len = length;
    }
    Ok(loaders)
}

/// What is to be said of rows that the model was not trained on, but has positions for.
fn longer_rows(args: &Args, model: &ModelConfig) -> Option<String> {
    let (trained, learned) = (model.max_seq_len, model.learned_pos_emb);
    let length = args.max_seq_len.filter(|&length| length > trained && !learned)?;
    Some(format!(
        "rows of {length} tokens are longer than the {trained} that the model was trained on"
    ))
}

/// Refuses rows of `length` tokens where `model` has no positions for them.
fn check_length(length: usize, model: &ModelConfig) -> trainer::Result<()> {
    let trained = model.max_seq_len;
    let has = match model.learned_pos_emb {
        true if length < 2 || length > trained => format!("from 2 to {trained} tokens"),
        false if length < 2 => "at least 2 tokens".to_owned(),
        _ => return Ok(()),
    };
    Err(trainer::Error::Config(format!("--max_seq_len is {length}; rows of this model have {has}")))
}
