//! `preprocess-data`: texts to indexed datasets of tokens, with the flags of GPT-NeoX's `preprocess_data.py`.

use std::process::ExitCode;

fn main() -> ExitCode {
    convert::neox::preprocess::main()
}
