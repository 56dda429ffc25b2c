//! `export-hf CHECKPOINT OUT`: a checkpoint as a model of Hugging Face's `transformers`.

use std::process::ExitCode;

use clap::Parser;

const EXAMPLES: &str = "\
Examples:
  The newest checkpoint of a run:
    export-hf runs/gpt-125m/checkpoints gpt-125m-hf

  One of them, from a bucket to a bucket:
    export-hf s3://bucket/run/ep0-ba4800 s3://bucket/gpt-125m-hf

Then, in Python:
    AutoModelForCausalLM.from_pretrained('gpt-125m-hf')
    AutoTokenizer.from_pretrained('gpt-125m-hf')

A model becomes a GPT-2 (learned positions), an MPT (ALiBi) or a Llama (rotary positions), whichever computes the
same; one that none of them computes is refused, with the key that they do not know. Of these, `generate` and
`evaluate` read a GPT-2; for the others give them the checkpoint.

Exit codes: 0 done; 1 an error, in one sentence; 2 wrong usage.";

/// Write a checkpoint as a folder that Hugging Face's transformers load: config, weights, tokenizer.
#[derive(Debug, Parser)]
#[command(name = "export-hf", version, after_long_help = EXAMPLES)]
struct Args {
    /// A checkpoint like ep0-ba100, or the save_folder that holds it: a path or an address
    checkpoint: String,
    /// The folder to make, or its address
    out: String,
    /// A tokenizer in place of the run's own: gpt2, a tokenizer.json or its folder, or a hub name
    #[arg(long)]
    tokenizer: Option<String>,
}

fn main() -> ExitCode {
    let Args { checkpoint, out, tokenizer } = Args::parse();
    match trainer::hf::export(&checkpoint, &out, tokenizer.as_deref()) {
        Ok(()) => {
            eprintln!("wrote {}", mds::redacted(&out));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
