//! Describing a dataset from its index alone.

use std::collections::BTreeSet;
use std::io::Write;

use mds::format::ShardInfo;

use super::{Failure, Source, show};

/// Shards that are listed unless all are asked for.
const LISTED: usize = 20;

pub(super) fn run(source: &Source, full: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let shards = &source.index.shards;
    let raw: u64 = shards.iter().map(ShardInfo::raw_bytes).fold(0, u64::saturating_add);
    let stored: u64 = shards.iter().map(ShardInfo::stored_bytes).fold(0, u64::saturating_add);
    let largest = shards.iter().map(ShardInfo::raw_bytes).max().unwrap_or(0);
    let all = |name: &dyn Fn(&ShardInfo) -> Vec<String>| -> String {
        let names: BTreeSet<String> = shards.iter().flat_map(name).collect();
        if names.is_empty() { "none".to_owned() } else { Vec::from_iter(names).join(", ") }
    };
    writeln!(out, "dataset      {}", source.remote.address())?;
    writeln!(out, "samples      {}", source.index.samples())?;
    writeln!(out, "shards       {}, the largest of {}", shards.len(), show::size(largest))?;
    let formats = all(&|shard| vec![shard.format.to_string()]);
    writeln!(out, "format       {formats}")?;
    writeln!(out, "raw          {raw} bytes ({})", show::size(raw))?;
    writeln!(out, "stored       {stored} bytes ({})", show::size(stored))?;
    let compression = all(&|shard| shard.compression.iter().map(ToString::to_string).collect());
    writeln!(out, "compression  {compression}")?;
    let hashes = all(&|shard| shard.hashes.iter().map(ToString::to_string).collect());
    writeln!(out, "hashes       {hashes}")?;
    writeln!(out, "fingerprint  {}", source.index.fingerprint())?;
    print_columns(shards, out)?;
    print_shards(shards, full, out)
}

fn print_columns(shards: &[ShardInfo], out: &mut dyn Write) -> Result<(), Failure> {
    let Some(first) = shards.first() else { return Ok(()) };
    writeln!(out, "columns")?;
    for column in first.schema().columns() {
        writeln!(out, "  {:<12} {}", show::printable(&column.name), column.encoding)?;
    }
    if let Some(other) = shards.iter().find(|shard| shard.schema() != first.schema()) {
        writeln!(out, "  (other columns from {} on)", other.raw_data.basename)?;
    }
    Ok(())
}

fn print_shards(shards: &[ShardInfo], full: bool, out: &mut dyn Write) -> Result<(), Failure> {
    if shards.is_empty() {
        return Ok(());
    }
    writeln!(out, "shards")?;
    let shown = if full { shards.len() } else { shards.len().min(LISTED) };
    for shard in &shards[..shown] {
        let stored = shard.stored();
        writeln!(
            out,
            "  {}  {}, {}",
            stored.basename,
            show::count(shard.samples, "sample"),
            show::count(shard.stored_bytes(), "byte")
        )?;
    }
    if shown < shards.len() {
        writeln!(out, "  ... ({} more; --full prints them)", shards.len() - shown)?;
    }
    Ok(())
}
