//! `prepare-data`: a corpus by name to an indexed dataset, as GPT-NeoX's `prepare_data.py` makes it.

use std::process::ExitCode;

fn main() -> ExitCode {
    convert::neox::prepare::main()
}
