//! Checking every byte of a dataset that can be checked.

use std::io::Write;
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
use mds::Shard;
use mds::format::{ShardFile, ShardInfo};
use mds::storage::Remote;

use super::{Failure, Source, fail, is_watched, sentence, show};

pub(super) fn run(source: &Source, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let shards = &source.index.shards;
    let stored: u64 = shards.iter().map(ShardInfo::stored_bytes).fold(0, u64::saturating_add);
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
                    show::count(shard.stored_bytes(), "byte")
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
        bar.inc(shard.stored_bytes());
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
    let data = read(remote, shard, shard.data())?;
    let meta = shard.meta().map(|file| read(remote, shard, file)).transpose()?;
    for sample in Shard::from_bytes(data, meta, shard)?.samples()? {
        sample.decode()?;
    }
    Ok(())
}

/// A file of the shard, raw, with every size and hash checked.
fn read(remote: &Remote, shard: &ShardInfo, file: ShardFile<'_>) -> mds::Result<Vec<u8>> {
    let stored = remote.get(file.stored().basename.as_str(), file.stored().bytes)?;
    file.stored().verify(&stored)?;
    let (Some(_), Some(compression)) = (file.zip, shard.compression) else { return Ok(stored) };
    let raw = compression.decompress(&stored, file.raw.bytes)?;
    file.raw.verify(&raw)?;
    Ok(raw)
}

fn progress(bytes: u64) -> ProgressBar {
    if !is_watched() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left");
    ProgressBar::new(bytes).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
