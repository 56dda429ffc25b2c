//! `generate CHECKPOINT --prompt TEXT`: text from a trained model.

use std::io::{ErrorKind, Write};
use std::num::NonZeroUsize;
use std::process::ExitCode;

use clap::Parser;
use trainer::config::{DeviceChoice, GenerateConfig};
use trainer::device;
use trainer::generate::generate;
use trainer::pretrained::Pretrained;

const EXAMPLES: &str = "\
Examples:
  The newest checkpoint of a run goes on from a prompt:
    generate runs/gpt-125m/checkpoints --prompt 'The kernel'

  The likeliest text, always the same:
    generate runs/gpt-125m/checkpoints --prompt 'The kernel' --temperature 0

  A GPT-2 that transformers saved with save_pretrained, with its tokenizer beside it:
    generate ./gpt2 --prompt 'To be' --top_p 0.9 --repetition_penalty 1.1 --seed 42

The text goes to stdout as it comes, the time that it took to stderr.

Exit codes: 0 done; 1 an error, in one sentence; 2 wrong usage.";

/// Let a trained model write on from a prompt.
#[derive(Debug, Parser)]
#[command(name = "generate", version, rename_all = "snake_case", after_long_help = EXAMPLES)]
struct Args {
    /// A checkpoint, the save_folder that holds it, or a GPT-2 of transformers: a path or an address
    model: String,
    /// What the model continues; given several times, one after the other
    #[arg(long, required = true)]
    prompt: Vec<String>,
    /// Tokens to generate, if no end of text comes before
    #[arg(long, alias = "max-new-tokens", default_value_t = 100)]
    max_new_tokens: usize,
    /// Divides the scores: below 1 likelier, above 1 bolder; 0 always takes the likeliest token
    #[arg(long, default_value_t = 1.0, value_parser = at_least_zero, allow_negative_numbers = true)]
    temperature: f64,
    /// Draw among the likeliest N tokens only [default: among all]
    #[arg(long, alias = "top-k", value_name = "N", value_parser = at_least_one)]
    top_k: Option<NonZeroUsize>,
    /// Draw among the fewest tokens whose probabilities sum to P
    #[arg(long, alias = "top-p", value_name = "P", value_parser = probability)]
    top_p: Option<f64>,
    /// Divides the scores of tokens that are there already; 1 does nothing
    #[arg(long, alias = "repetition-penalty", default_value_t = 1.0, value_parser = above_zero)]
    repetition_penalty: f64,
    /// The same seed draws the same text
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// A tokenizer in place of the model's own: gpt2, a tokenizer.json or its folder, or a hub name
    #[arg(long)]
    tokenizer: Option<String>,
    /// auto, cpu or cuda
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
}

fn at_least_one(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "it must be a whole number of at least 1, for example 50".to_owned())
}

fn number(text: &str, is_good: impl Fn(f64) -> bool, must: &str) -> Result<f64, String> {
    text.parse().ok().filter(|&n: &f64| n.is_finite() && is_good(n)).ok_or_else(|| must.to_owned())
}

fn at_least_zero(text: &str) -> Result<f64, String> {
    number(text, |n| n >= 0.0, "it must be a number of at least 0, for example 0.8")
}

fn above_zero(text: &str) -> Result<f64, String> {
    number(text, |n| n > 0.0, "it must be a number above 0, for example 1.1")
}

fn probability(text: &str) -> Result<f64, String> {
    number(
        text,
        |n| n > 0.0 && n <= 1.0,
        "it must be a number above 0 and at most 1, for example 0.9",
    )
}

fn main() -> ExitCode {
    device::keep_freed_blocks();
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> trainer::Result<()> {
    let device = device::select(args.device)?;
    let Pretrained { model, tokenizer, place, .. } =
        Pretrained::load(&args.model, args.tokenizer.as_deref(), &device)?;
    eprintln!("{place}: {} parameters on {}", model.config().n_params(), device::name(&device));
    let config = GenerateConfig {
        prompt: None,
        max_new_tokens: args.max_new_tokens,
        temperature: args.temperature,
        top_k: args.top_k.map(NonZeroUsize::get),
        top_p: args.top_p,
        repetition_penalty: args.repetition_penalty,
    };
    for prompt in &args.prompt {
        let mut out = std::io::stdout().lock();
        let mut show = |text: &str| match out.write_all(text.as_bytes()).and_then(|()| out.flush())
        {
            Ok(()) => {}
            // Whoever closed the pipe wants no more.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
            Err(error) => {
                eprintln!("error: the text cannot be written: {error}");
                std::process::exit(1)
            }
        };
        show(prompt);
        let began = std::time::Instant::now();
        generate(&model, &tokenizer, prompt, &config, args.seed, &mut show)?;
        show("\n");
        eprintln!("{:.1} s", began.elapsed().as_secs_f64());
    }
    Ok(())
}
