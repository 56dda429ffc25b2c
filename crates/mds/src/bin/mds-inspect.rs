//! Looks into MDS datasets: streams them, describes them, shows samples, verifies every byte.

#[path = "../inspect/mod.rs"]
mod inspect;

use std::process::ExitCode;

fn main() -> ExitCode {
    inspect::main()
}
