//! `generate CHECKPOINT --prompt TEXT`: text from a trained model.

use std::io::Write;
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

The text goes to stdout as it comes, the pace to stderr.

Exit codes: 0 done; 1 an error, in one sentence; 2 wrong usage.";

/// Let a trained model write on from a prompt.
#[derive(Debug, Parser)]
#[command(name = "generate", version, about, rename_all = "snake_case", after_long_help = EXAMPLES)]
struct Args {
    /// A checkpoint, the save_folder that holds it, or a GPT-2 of transformers: a path or an address
    model: String,
    /// What the model continues; several are continued one after the other
    #[arg(long, required = true, num_args = 1..)]
    prompt: Vec<String>,
    /// Tokens to generate, if no end of text comes before
    #[arg(long, alias = "max-new-tokens", default_value_t = 100)]
    max_new_tokens: usize,
    /// Divides the scores: below 1 likelier, above 1 bolder; 0 always takes the likeliest token
    #[arg(long, default_value_t = 1.0)]
    temperature: f64,
    /// Draw among the likeliest N tokens only
    #[arg(long, alias = "top-k", value_name = "N")]
    top_k: Option<usize>,
    /// Draw among the fewest tokens whose probabilities sum to P
    #[arg(long, alias = "top-p", value_name = "P")]
    top_p: Option<f64>,
    /// Divides the scores of tokens that are there already; 1 does nothing
    #[arg(long, alias = "repetition-penalty", default_value_t = 1.0)]
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
        top_k: args.top_k,
        top_p: args.top_p,
        repetition_penalty: args.repetition_penalty,
    };
    for prompt in &args.prompt {
        // Whoever closed the pipe wants no more.
        let mut out = std::io::stdout().lock();
        let mut show = |text: &str| {
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        };
        show(prompt);
        let began = std::time::Instant::now();
        let text = generate(&model, &tokenizer, prompt, &config, args.seed, &mut show)?;
        show("\n");
        let (tokens, seconds) =
            (tokenizer.encode_bare(&text)?.len(), began.elapsed().as_secs_f64());
        eprintln!("{tokens} tokens in {seconds:.1} s: {:.1} tokens/s", tokens as f64 / seconds);
    }
    Ok(())
}
