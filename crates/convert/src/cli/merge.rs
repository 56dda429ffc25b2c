//! `convert merge`: one dataset of what the tasks of a conversion have written.

use mds::storage::{Remote, RemoteOptions};

use super::args::MergeArgs;
use super::display::plural;
use crate::error::{Error, ErrorKind, Result};
use crate::out_root::OutRoot;
use crate::source::Split;
use crate::statistics::{JSON_NAME, Statistics};

pub(super) fn run(args: &MergeArgs) -> Result<()> {
    let root = OutRoot::parse(args.split.clone())?;
    let address = root.address();
    let shown = mds::redacted(&address);
    let remote = Remote::open(&address, RemoteOptions::default())?;
    let names = remote.folders_with(JSON_NAME)?;
    let mut parts = Vec::new();
    // What is hidden is not meant.
    for name in names.iter().filter(|name| !name.contains('/') && !name.starts_with('.')) {
        let Some(part) = root.statistics(&Split::new(name.as_str())?)? else { continue };
        let Some((task, _)) = part.task() else { continue };
        let own = Split::folder_of_task(task);
        if *name != own {
            return Err(Error::invalid(
                format!("{shown}/{name} is a part of task {task}, whose place is {shown}/{own}"),
                "move it elsewhere",
            ));
        }
        parts.push((task, name, part));
    }
    parts.sort_by_key(|(task, ..)| *task);
    let first = parts.first().and_then(|(.., part)| part.task());
    let Some((_, shares)) = first else {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("{shown} has no complete part that a task has written"),
            "give the folder of a split, OUT_ROOT/SPLIT",
        ));
    };
    let missing =
        shares.tasks.iter().filter(|&task| !parts.iter().any(|(found, ..)| found == task));
    let missing: Vec<String> = missing.map(usize::to_string).collect();
    if !missing.is_empty() {
        let (which, them) = match &missing[..] {
            [one] => (format!("task {one} is"), "it"),
            more => (format!("tasks {} are", more.join(", ")), "them"),
        };
        return Err(Error::invalid(
            format!("not all parts of {shown} are complete: {which} missing"),
            format!("run {them}, and join the parts then"),
        ));
    }
    let names: Vec<&String> = parts.iter().map(|(_, name, _)| *name).collect();
    let statistics = Statistics::join(parts.into_iter().map(|(.., part)| part).collect())?;
    if statistics.samples == 0 {
        return Err(Error::new(
            ErrorKind::Empty,
            format!("the parts of {shown} hold no sample, all together"),
            "check that it is the right source, or correct --subsets, --exclude_subsets or --concat_tokens",
        ));
    }
    let index = mds::merge_parts(&address, &names, RemoteOptions::default())?;
    root.write_statistics(&statistics, &shown)?;
    println!(
        "{}, {}, {} -> {shown}",
        plural(names.len() as u64, "part"),
        plural(index.shards.len() as u64, "shard"),
        plural(index.samples(), "sample")
    );
    Ok(())
}
