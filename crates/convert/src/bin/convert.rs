//! `convert SOURCE`: text of any supported source to a streaming dataset of MDS shards.

use std::process::ExitCode;

fn main() -> ExitCode {
    convert::cli::convert()
}
