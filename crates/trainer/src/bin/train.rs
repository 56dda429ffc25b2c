//! `train CONFIG.yaml [key.sub=value ...]`: trains the GPT that a YAML recipe describes.

use std::io::{ErrorKind, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use trainer::config::Config;
use trainer::interrupt::{EXIT_CODE, Interrupt};

const EXAMPLES: &str = "\
Examples:
  The small run of `make quickstart`, shorter:
    train yamls/quickstart.yaml max_duration=100ba save_overwrite=true

  125 M parameters on C4, after `convert-c4 --out_root ./c4 --splits train val`:
    train yamls/125m.yaml data_remote=./c4

  With the validation split only, in small steps that a CPU can take:
    train yamls/125m.yaml data_remote=./c4 train_loader.dataset.split=val max_seq_len=128 \\
        global_train_batch_size=8 device_train_microbatch_size=4 max_duration=100ba

  What is in batch 213, at which a run stopped, and how its rows do:
    train yamls/125m.yaml data_remote=./c4 --replay_step 213

  What a run would be, without data, tokenizer, network or the memory it takes; on any machine for a GPU:
    train --dry_run yamls/70b.yaml device=cuda

  From a bucket through a cache on this machine:
    train yamls/125m.yaml data_remote=s3://bucket/c4 data_local=/tmp/c4

  All in a bucket, so that any machine can go on where another was lost:
    train s3://bucket/125m.yaml data_remote=s3://bucket/c4 save_folder=s3://bucket/run \\
        run_folder=s3://bucket/run autoresume=true

Output: the resolved recipe, `[batch=7/5000]: ...` lines and a progress bar on stderr; in run_folder
metrics.jsonl, TensorBoard event files (tensorboard --logdir RUN_FOLDER) and loss_curve.svg; in
save_folder checkpoints.

Where things lie: paths, s3://, gs://, az:// for everything; hf:// and http(s):// to read, that is for the
recipe, data_remote, tokenizer_name and load_path (a checkpoint, or a save_folder). What options an
address carries (?endpoint=...&access_key_id=...) is printed and stored nowhere. data_local is a
folder of this machine.

Checkpoints are written while the run goes on; the next one waits for the one before. If one cannot be
saved, the run ends with its next step. autoresume=true goes on from the newest in save_folder, else
from load_path; load_weights_only=true takes only the weights from there, and load_ignore_keys leaves out
what it names: [state/optimizers/*], state/timestamp, state/dataset_state, state/callbacks,
state/model/wte.weight.

A save_folder in a bucket: each checkpoint is written below the user's cache folder (MDS_CACHE_DIR),
uploaded, and removed there. If it does not arrive after all attempts (download_retry, at least 5),
the run ends with an error that says where it is kept; with autoresume=true the next run on this
machine uploads it and goes on from it. One that is not gone on from is kept as NAME-unsent. A run_folder
in a bucket is uploaded with each checkpoint and at the end, also after an error. While a run lives,
another on this machine may not have its save_folder or run_folder. Of two runs on two machines with one
save_folder or run_folder in a bucket the one that began later goes on, and the other uploads nothing
more and ends.

Ctrl-C finishes the step, saves to save_folder and stops; a second one stops at once.

Exit codes: 0 the run came to its end; 1 an error, in one sentence; 2 wrong usage; 130 stopped by
Ctrl-C or SIGTERM.";

/// Train a GPT on an MDS dataset, as a YAML recipe says.
///
/// A recipe names the data (data_remote), the tokenizer, the model, the batch sizes, the optimizer,
/// the schedule and what to log and save: see yamls/125m.yaml and yamls/quickstart.yaml. Durations are 100ba
/// (steps), 5000sp (rows), 2e6tok (tokens), 1ep (epochs) or 0.1dur (a part of the run).
#[derive(Debug, Parser)]
#[command(name = "train", version, after_long_help = EXAMPLES)]
struct Args {
    /// The recipe, a YAML file or its address.
    #[arg(required_unless_present = "devices")]
    config: Option<PathBuf>,
    /// Single keys of the recipe, set anew: max_duration=100ba model.n_layers=2.
    ///
    /// Values are YAML. What refers to a key by ${key} follows it; a key that no recipe has is an
    /// error that names the nearest one.
    #[arg(value_name = "KEY.SUB=VALUE")]
    overrides: Vec<String>,
    /// Compute batch N of the run again, without training, and write what is in it to run_folder.
    ///
    /// It is computed with the newest checkpoint before it, or from the start of the run: the loss and the gradient
    /// norm of the batch and of each of its rows, their tokens and text, and the numbers of their samples, as lines of
    /// JSON in replay-baN.jsonl. N is the number that an error names, and `batch` in metrics.jsonl.
    #[arg(long = "replay_step", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    replay_step: Option<u64>,
    /// Print what the run would be, and exit: nothing is read but the recipe.
    ///
    /// On standard output: the resolved recipe as YAML, and as comments below it the exact number of
    /// parameters, operations per token, the batch and its microbatches, steps and tokens of the run, and
    /// the bytes that a step takes from one device: weights, gradients, moments, activations (also if each
    /// block were computed again in the backward), and the most at one time. What it prints is a recipe
    /// again. device=cuda is planned for on any machine; with the CPU it also says what memory there is.
    #[arg(long = "dry_run", visible_alias = "dry-run", conflicts_with_all = ["devices", "replay_step"])]
    dry_run: bool,
    /// Print which devices this build supports and this machine has, and exit.
    #[arg(long)]
    devices: bool,
}

fn main() -> ExitCode {
    trainer::device::keep_freed_blocks();
    trainer::host::outlive_file_size_limit();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()),
        )
        .with_target(false)
        .without_time()
        .with_ansi(std::io::stderr().is_terminal())
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
    if args.dry_run {
        print(&trainer::dry_run(&config)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let interrupt = Interrupt::listen()?;
    if let Some(batch) = args.replay_step {
        return Ok(match trainer::replay(&config, batch, &interrupt)? {
            Some(replay) => {
                println!("{}", replay.summary());
                ExitCode::SUCCESS
            }
            None => ExitCode::from(EXIT_CODE as u8),
        });
    }
    let outcome = trainer::train(&config, &interrupt)?;
    if outcome.interrupted {
        let then = match outcome.saved {
            true => "autoresume=true continues",
            false => "nothing was saved, because the recipe has no save_folder",
        };
        eprintln!("stopped at batch {}; {then}", outcome.timestamp.batch);
        return Ok(ExitCode::from(EXIT_CODE as u8));
    }
    Ok(ExitCode::SUCCESS)
}

/// To standard output; who reads it may stop when it has seen enough.
fn print(text: &str) -> trainer::Result<()> {
    let mut output = std::io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(trainer::Error::io("write", "standard output")(error))
        }
        _ => Ok(()),
    }
}
