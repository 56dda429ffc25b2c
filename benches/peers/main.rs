//! Our side of `make bench-peers`: one measurement per call, printed as one line of JSON.
//!
//! `run.py` makes the data, calls this program and the reference in turns, and compares. Every
//! measurement runs in a process of its own, so mapped pages and allocated memory are cold.

mod epoch;
mod input;
mod limits;
mod reading;
mod remote;
mod writing;

use std::error::Error;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use epoch::Way;
use mds::format::{Compression, HashAlgorithm};
use serde_json::Value;

/// Any failure ends the measurement.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// One measurement of the MDS library, printed as JSON.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    measure: Measure,
}

#[derive(Subcommand)]
enum Measure {
    /// Copy and sum 256 MiB of memory, in order and in scattered blocks.
    Memory,
    /// Write files of 64 MiB with nothing but write(2), and fsync each if asked to.
    Files {
        /// A new folder.
        #[arg(long)]
        out: PathBuf,
        /// Bytes in total.
        #[arg(long)]
        bytes: u64,
        #[arg(long)]
        fsync: bool,
    },
    /// Compress the raw shards of a folder with plain zstd.
    Zstd {
        #[arg(long)]
        data: PathBuf,
        #[arg(long)]
        level: i32,
        #[arg(long)]
        threads: usize,
    },
    /// Write the text as a dataset.
    Write {
        #[arg(long)]
        input: PathBuf,
        /// A new folder.
        #[arg(long)]
        out: PathBuf,
        #[arg(long)]
        compression: Option<Compression>,
        #[arg(long, num_args = 1..)]
        hashes: Vec<HashAlgorithm>,
        /// Read the text piece by piece, and report how much memory the writer took.
        #[arg(long)]
        memory: bool,
    },
    /// Decode every column of every sample.
    Decode {
        #[arg(long)]
        data: PathBuf,
    },
    /// Read the tokens of samples in a given order and sum their bytes.
    Random {
        #[arg(long)]
        data: PathBuf,
        /// A file of sample numbers, uint32 little-endian.
        #[arg(long)]
        order: PathBuf,
        /// From open shards, not by the number in the dataset.
        #[arg(long)]
        shards: bool,
    },
    /// Read the tokens of all samples in order, without a copy, and sum their bytes.
    Iterate {
        #[arg(long)]
        data: PathBuf,
    },
    /// The second of two shuffled epochs through the loader, summed.
    Epoch {
        #[arg(long)]
        data: PathBuf,
        #[arg(long)]
        way: Way,
        #[arg(long, default_value_t = 0)]
        workers: usize,
        #[arg(long)]
        batch: usize,
        /// Tokens of a sample.
        #[arg(long, default_value_t = 2048)]
        width: usize,
    },
    /// A shuffled epoch from a remote into an empty cache, and one from the cache, summed.
    Remote {
        #[arg(long)]
        remote: String,
        /// A new folder.
        #[arg(long)]
        local: PathBuf,
        #[arg(long)]
        way: Way,
        #[arg(long, default_value_t = 0)]
        workers: usize,
        #[arg(long)]
        batch: usize,
        /// Tokens of a sample.
        #[arg(long, default_value_t = 2048)]
        width: usize,
    },
    /// Fetch all shards of a remote into memory.
    Download {
        #[arg(long)]
        remote: String,
        #[arg(long)]
        threads: usize,
    },
    /// Decompress all shards of a folder.
    Unzip {
        #[arg(long)]
        data: PathBuf,
        #[arg(long)]
        threads: usize,
    },
}

fn main() -> Result<()> {
    let result = match Arguments::parse().measure {
        Measure::Memory => limits::memory(),
        Measure::Files { out, bytes, fsync } => limits::files(&out, bytes, fsync)?,
        Measure::Zstd { data, level, threads } => limits::zstd(&data, level, threads)?,
        Measure::Write { input, out, compression, hashes, memory } => {
            writing::write(&input, &out, compression, hashes, memory)?
        }
        Measure::Decode { data } => reading::decode(&data)?,
        Measure::Random { data, order, shards: false } => reading::random(data, &order)?,
        Measure::Random { data, order, shards: true } => reading::random_in_shards(&data, &order)?,
        Measure::Iterate { data } => reading::iterate(&data)?,
        Measure::Epoch { data, way, workers, batch, width } => {
            epoch::epoch(data, way, workers, batch, width)?
        }
        Measure::Remote { remote, local, way, workers, batch, width } => {
            remote::epochs(remote, local, way, workers, batch, width)?
        }
        Measure::Download { remote, threads } => remote::download(&remote, threads)?,
        Measure::Unzip { data, threads } => remote::unzip(&data, threads)?,
    };
    println!("{}", Value::Object(result));
    Ok(())
}
