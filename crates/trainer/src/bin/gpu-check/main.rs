//! `gpu-check`: what the trainer's operations give on a device, and how fast: the parts of `scripts/gpu/check`.
//!
//! * `matmul.rs` matrix products at a GPT's shapes
//! * `routes.rs` values and gradients against float64
//! * `reference.rs` what those are, by the formulas
//! * `step.rs` whole optimizer steps

mod matmul;
mod reference;
mod routes;
mod step;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde_json::Value;
use trainer::config::{Config, DeviceChoice};
use trainer::device;
use trainer::interrupt::Interrupt;

const EXAMPLES: &str = "\
Examples:
  Are values and gradients right on the GPU?
    gpu-check routes

  Tokens per second of the 125M model in bf16, for several numbers of rows:
    gpu-check step yamls/125m.yaml --rows 8 16 32 64

All of it, beside PyTorch: scripts/gpu/check. Every result is a line of JSON.

Exit codes: 0 done; 1 a value is wrong, or an error in one sentence; 2 wrong usage.";

/// Check what the trainer computes on a device, and measure how fast.
#[derive(Debug, Parser)]
#[command(name = "gpu-check", version, rename_all = "snake_case", after_long_help = EXAMPLES)]
struct Args {
    /// auto, cpu or cuda
    #[arg(long, global = true, default_value = "auto")]
    device: DeviceChoice,
    #[command(subcommand)]
    check: Check,
}

#[derive(Debug, Subcommand)]
enum Check {
    /// Matrix products at the shapes of the 125M model, in TFLOP/s
    Matmul(matmul::Args),
    /// Values and gradients of attention and of a whole model
    Routes(routes::Args),
    /// Whole optimizer steps: tokens per second, MFU, memory
    Step(step::Args),
    /// Train from a recipe, as `train` does
    Train {
        /// The recipe
        recipe: std::path::PathBuf,
        /// Changes of it, key=value
        overrides: Vec<String>,
    },
}

fn main() -> ExitCode {
    device::keep_freed_blocks();
    let args = Args::parse();
    match run(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is right.
fn run(args: Args) -> trainer::Result<bool> {
    let device = device::select(args.device)?;
    match args.check {
        Check::Matmul(args) => matmul::measure(&args, &device)?,
        Check::Routes(args) => return routes::check(&args, &device),
        Check::Step(args) => step::measure(&args, &device)?,
        Check::Train { recipe, overrides } => {
            trainer::train(&Config::load(&recipe, &overrides)?, &Interrupt::default())?;
        }
    }
    Ok(true)
}

/// A result, as a line on standard output.
fn print(result: &Value) -> trainer::Result<()> {
    let mut output = std::io::stdout().lock();
    match writeln!(output, "{result}").and_then(|()| output.flush()) {
        // Whoever closed the pipe wants no more.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        written => written.map_err(trainer::Error::io("write", "standard output")),
    }
}
