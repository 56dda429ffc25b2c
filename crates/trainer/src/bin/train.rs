//! `train CONFIG.yaml [key.sub=value ...]`: trains the GPT that a YAML recipe describes.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use trainer::config::Config;
use trainer::interrupt::{EXIT_CODE, Interrupt};

/// Keeps freed blocks: glibc hands the large ones back to the system and faults them in again at every step, which
/// costs a CPU run 20 to 35 % of its speed.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Train a GPT on an MDS dataset.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Args {
    /// The recipe, a YAML file.
    #[arg(required_unless_present = "devices")]
    config: Option<PathBuf>,
    /// Overrides of single keys: `max_duration=100ba model.n_layers=2`.
    overrides: Vec<String>,
    /// Print which devices this build supports and this machine has, and exit.
    #[arg(long)]
    devices: bool,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    match run(&Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> trainer::Result<ExitCode> {
    let Some(path) = args.config.as_ref().filter(|_| !args.devices) else {
        print!("{}", trainer::device::report());
        return Ok(ExitCode::SUCCESS);
    };
    let config = Config::load(path, &args.overrides)?;
    let interrupt = Interrupt::listen()?;
    let outcome = trainer::train(&config, &interrupt)?;
    if outcome.interrupted {
        eprintln!("stopped at batch {}; autoresume=true continues", outcome.timestamp.batch);
        return Ok(ExitCode::from(EXIT_CODE as u8));
    }
    Ok(ExitCode::SUCCESS)
}
