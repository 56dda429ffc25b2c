//! `convert-c4`: C4, or text in C4's shape, to a streaming dataset of MDS shards.

use std::process::ExitCode;

fn main() -> ExitCode {
    convert::cli::convert_c4()
}
