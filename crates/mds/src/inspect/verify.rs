//! Checking every byte of a dataset that can be checked.

use std::io::Write;
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
use mds::format::{ShardInfo, ShardTable};
use mds::storage::Remote;

use super::{Failure, Source, fail, is_watched, sentence, show};

pub(super) fn run(source: &Source, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let shards = &source.index.shards;
    let stored: u64 = shards.iter().map(|s| s.stored().bytes).fold(0, u64::saturating_add);
    let (bar, watched) = (progress(stored), is_watched());
    let mut bad = Vec::new();
    for shard in shards {
        let file = shard.stored();
        let line = match check(&source.remote, shard) {
            Ok(()) => (!watched).then(|| {
                format!(
                    "ok   {}  {}, {}",
                    file.basename,
                    show::count(shard.samples, "sample"),
                    show::count(file.bytes, "byte")
                )
            }),
            Err(error) => {
                bad.push(file.basename.to_string());
                Some(format!("BAD  {}", sentence(&error.in_shard(&file.basename))))
            }
        };
        if let Some(line) = line {
            bar.suspend(|| writeln!(out, "{line}"))?;
        }
        bar.inc(file.bytes);
    }
    bar.finish_and_clear();
    if !bad.is_empty() {
        out.flush()?;
        return Ok(fail(&format!(
            "dataset {}: {} of {} damaged or missing: {}; copy them again or write the dataset again",
            source.remote.address(),
            bad.len(),
            show::count(shards.len() as u64, "shard"),
            bad.join(", ")
        )));
    }
    let hashes = if shards.iter().any(|shard| shard.stored().hashes.is_empty()) {
        " (index.json has no hashes for all shards: where there is none, only sizes, offsets and values were checked)"
    } else {
        ""
    };
    writeln!(
        out,
        "verified {}, {}, {}: all good{hashes}",
        show::count(shards.len() as u64, "shard"),
        show::count(source.index.samples(), "sample"),
        show::size(stored)
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Reads a shard and checks its sizes, hashes and offsets, and that every value can be decoded.
fn check(remote: &Remote, shard: &ShardInfo) -> mds::Result<()> {
    let file = shard.stored();
    let stored = remote.get(file.basename.as_str(), file.bytes)?;
    file.verify(&stored)?;
    let raw = match (&shard.zip_data, shard.compression) {
        (Some(_), Some(compression)) => {
            let raw = compression.decompress(&stored, shard.raw_data.bytes)?;
            shard.raw_data.verify(&raw)?;
            raw
        }
        _ => stored,
    };
    let table = ShardTable::parse(&raw, shard.samples)?;
    for position in 0..table.len() {
        let sample = table.sample(&raw, position)?;
        shard.schema().decode_sample(sample).map_err(|e| e.at_sample(position as u64))?;
    }
    Ok(())
}

fn progress(bytes: u64) -> ProgressBar {
    if !is_watched() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left");
    ProgressBar::new(bytes).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
