//! `evaluate CHECKPOINT --data ADDRESS`: the perplexity of a trained model.

use std::process::ExitCode;

use clap::Parser;
use trainer::config::{Config, DeviceChoice, LoaderConfig};
use trainer::data::EvalData;
use trainer::device;
use trainer::eval::evaluate;
use trainer::interrupt::{EXIT_CODE, Interrupt};
use trainer::pretrained::Pretrained;

const EXAMPLES: &str = "\
Examples:
  The newest checkpoint of a run on its own evaluation split:
    evaluate runs/gpt-125m/checkpoints

  On another dataset, of text or of tokens:
    evaluate runs/gpt-125m/checkpoints --data ./pile --split val

  A GPT-2 that transformers saved with save_pretrained, on a dataset in a bucket:
    evaluate ./gpt2 --data s3://bucket/c4 --split val --batches 100

Each line of the result is NAME: VALUE, as in metrics.jsonl. Loss is in nats per token.

Exit codes: 0 done; 1 an error, in one sentence; 2 wrong usage; 130 stopped by Ctrl-C or SIGTERM.";

/// Measure the loss of a trained model on a dataset.
#[derive(Debug, Parser)]
#[command(name = "evaluate", version, about, rename_all = "snake_case", after_long_help = EXAMPLES)]
struct Args {
    /// A checkpoint, the save_folder that holds it, or a GPT-2 of transformers: a path or an address
    model: String,
    /// The dataset, or the folder of its splits [default: that of the run's eval_loader]
    #[arg(long, value_name = "ADDRESS")]
    data: Option<String>,
    /// A split below it
    #[arg(long)]
    split: Option<String>,
    /// Rows that are computed together [default: as in the run, else 4]
    #[arg(long, alias = "batch-size", value_name = "N")]
    batch_size: Option<usize>,
    /// Tokens per row [default: as the model was trained]
    #[arg(long, alias = "max-seq-len", value_name = "N")]
    max_seq_len: Option<usize>,
    /// Stop after so many batches [default: as in the run on its own split, else all]
    #[arg(long, value_name = "N")]
    batches: Option<u64>,
    /// A tokenizer in place of the model's own: gpt2, a tokenizer.json or its folder, or a hub name
    #[arg(long)]
    tokenizer: Option<String>,
    /// auto, cpu or cuda
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
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
    let interrupt = Interrupt::listen()?;
    let device = device::select(args.device)?;
    let found = Pretrained::load(&args.model, args.tokenizer.as_deref(), &device)?;
    let model = found.model.config();
    let loader = loader(args, found.recipe.as_ref(), model.max_seq_len)?;
    let rows = found.recipe.as_ref().map(|recipe| recipe.device_eval_batch_size);
    let rows = args.batch_size.or(rows).unwrap_or(4);
    let own_split = found.recipe.as_ref().filter(|_| args.data.is_none());
    let limit = args.batches.or(own_split
        .and_then(|recipe| recipe.eval_subset_num_batches.or(loader.eval_subset_num_batches)));
    let data = EvalData::of(&loader, rows, limit, model.vocab_size, &found.tokenizer)?;
    eprintln!("{}: {} parameters on {}", found.place, model.n_params(), device::name(&device));
    let Some(evaluation) = evaluate(&found.model, &data, &found.tokenizer, &interrupt)? else {
        return Ok(ExitCode::from(EXIT_CODE as u8));
    };
    for (name, value) in evaluation.metrics(None) {
        println!("{name}: {value}");
    }
    println!("tokens: {}", evaluation.tokens);
    Ok(ExitCode::SUCCESS)
}

/// What the flags say, else the run's own evaluation split.
fn loader(args: &Args, recipe: Option<&Config>, model_len: usize) -> trainer::Result<LoaderConfig> {
    let own = recipe.and_then(|recipe| recipe.eval_loaders.first().cloned());
    let mut loader = match (&args.data, own) {
        (Some(data), _) => {
            let trained = recipe.map_or(model_len, |recipe| recipe.max_seq_len);
            LoaderConfig::for_evaluation(data, args.split.as_deref(), trained)?
        }
        (None, Some(mut own)) => {
            own.dataset.split = args.split.clone().or(own.dataset.split);
            own
        }
        (None, None) => {
            return Err(trainer::Error::Config(
                "the model comes without an evaluation split; name a dataset with --data"
                    .to_owned(),
            ));
        }
    };
    loader.dataset.max_seq_len = args.max_seq_len.unwrap_or(loader.dataset.max_seq_len);
    Ok(loader)
}
