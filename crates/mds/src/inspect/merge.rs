//! One index over several datasets.

use std::io::Write;

use mds::format::{Index, ShardInfo};
use mds::storage::RemoteOptions;
use mds::{merge_index, merge_parts};

use super::{Failure, progress, show};

pub(super) const EXAMPLES: &str = "\
Examples:
  mds-inspect merge ./parts               all datasets below, in the order of their names
  mds-inspect merge s3://bucket/parts     at a remote that can list its folders
  mds-inspect merge ./parts b a/2         these two only, in this order

No shard is moved, read or changed: ROOT/index.json lists the shards where they are, and ROOT can
be streamed as one dataset. Merging again, after parts were added, writes the index again.
A ROOT that holds shards of its own is refused, and so is a folder with shards that no index.json
lists, which would be left out, unless the parts are named. Links to folders are not followed.
Plain HTTP cannot list its folders.";

/// Folders that are listed unless all are asked for.
const LISTED: usize = 20;

#[derive(Debug, clap::Args)]
pub(super) struct Flags {
    /// The folder above the datasets; a path or a URL
    root: String,

    /// The folders of the datasets below ROOT, in this order [default: all, sorted by name]
    #[arg(value_name = "PART")]
    parts: Vec<String>,
}

pub(super) fn run(flags: &Flags, full: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let options = RemoteOptions::default();
    let spinner = progress::spinner("reading the index of each part");
    let merged = match flags.parts.as_slice() {
        [] => merge_index(&flags.root, options),
        parts => merge_parts(&flags.root, parts, options),
    };
    spinner.finish_and_clear();
    let index = merged?;
    let folders = folders(&index);
    // Parts that were named count even if they hold no shards.
    let merged = if flags.parts.is_empty() { folders.len() } else { flags.parts.len() };
    let shown = if full { folders.len() } else { folders.len().min(LISTED) };
    for (name, shards) in &folders[..shown] {
        let samples = shards.iter().map(|shard| shard.samples).sum();
        writeln!(
            out,
            "{name}  {}, {}",
            show::count(shards.len() as u64, "shard"),
            show::count(samples, "sample")
        )?;
    }
    if shown < folders.len() {
        writeln!(out, "... ({} more; --full prints them)", folders.len() - shown)?;
    }
    writeln!(
        out,
        "merged {}: {}, {}",
        show::count(merged as u64, "folder"),
        show::count(index.shards.len() as u64, "shard"),
        show::count(index.samples(), "sample")
    )?;
    Ok(())
}

/// The shards by the folder that holds them, in the order of the index.
fn folders(index: &Index) -> Vec<(&str, &[ShardInfo])> {
    let groups = index.shards.chunk_by(|a, b| folder(a) == folder(b));
    groups.filter_map(|shards| Some((folder(shards.first()?), shards))).collect()
}

fn folder(shard: &ShardInfo) -> &str {
    let name = shard.raw_data.basename.as_str();
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}
