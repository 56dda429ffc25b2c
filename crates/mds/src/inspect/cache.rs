//! The caches of this user: what is there, whether it is sound, and making room.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use mds::{CachedDataset, ErrorKind, UserCache};

use super::{Failure, fail, sentence, show};

pub(super) const EXAMPLES: &str = "\
Examples:
  mds-inspect cache list                  names, shards, sizes, last use
  mds-inspect cache verify                check every shard that is there, packed ones too
  mds-inspect cache clean NAME            remove one; it is fetched again when it is needed
  mds-inspect cache clean --all           remove all that no process uses

A remote that is read without a local folder has its cache below $MDS_CACHE_DIR, or mds/datasets in
the user's cache folder ($XDG_CACHE_HOME or ~/.cache). Folders that you name yourself are not listed
here and never removed.

Exit codes: 0 all is well; 1 a shard is damaged, or a cache is not there, in use or cannot be removed;
2 wrong usage.";

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Names, shards, sizes and last use
    List,
    /// Remove caches that no process uses
    Clean {
        /// As `list` prints them
        #[arg(value_name = "NAME", required_unless_present = "all", conflicts_with = "all")]
        names: Vec<String>,

        /// All of them
        #[arg(long)]
        all: bool,
    },
    /// Check the sizes, hashes and offsets of the shards that are there
    Verify {
        /// As `list` prints them [default: all]
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
}

pub(super) fn run(command: &Command, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let cache = UserCache::open()?;
    match command {
        Command::List => list(&cache, out),
        Command::Clean { names, .. } => clean(&cache, names, out),
        Command::Verify { names } => verify(&cache, names, out),
    }
}

fn list(cache: &UserCache, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let datasets = cache.datasets()?;
    let total: u64 = datasets.iter().map(CachedDataset::bytes).sum();
    for dataset in &datasets {
        let shards = match dataset.index() {
            Some(index) => {
                let all = show::count(index.shards.len() as u64, "shard");
                format!("{} of {all}", dataset.num_shards())
            }
            None => "damaged index".to_owned(),
        };
        writeln!(
            out,
            "{}  {shards}, {}, {}",
            show::printable(dataset.name()),
            show::size(dataset.bytes()),
            if dataset.is_used()? { "in use".to_owned() } else { last_use(dataset) }
        )?;
    }
    let caches = show::count(datasets.len() as u64, "cache");
    writeln!(out, "{caches} in {}, {}", cache.folder().display(), show::size(total))?;
    Ok(ExitCode::SUCCESS)
}

fn last_use(dataset: &CachedDataset) -> String {
    let Some(time) = dataset.last_used() else { return "never used".to_owned() };
    let ago = SystemTime::now().duration_since(time).unwrap_or_default();
    format!("last used {} ago", about(ago))
}

/// A time in its largest unit.
fn about(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => show::count(seconds, "second"),
        60..3_600 => show::count(seconds / 60, "minute"),
        3_600..86_400 => show::count(seconds / 3_600, "hour"),
        _ => show::count(seconds / 86_400, "day"),
    }
}

fn clean(cache: &UserCache, names: &[String], out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let (mut in_use, mut failed) = (Vec::new(), 0);
    let mut freed = 0;
    for dataset in chosen(cache, names)? {
        let name = dataset.name().to_owned();
        match dataset.remove() {
            Ok(bytes) => {
                freed += bytes;
                writeln!(out, "removed {}, {}", show::printable(&name), show::size(bytes))?;
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => in_use.push(name),
            Err(error) => {
                failed += 1;
                writeln!(out, "BAD  {}  {}", show::printable(&name), sentence(&error))?;
            }
        }
    }
    if names.is_empty() {
        cache.remove_unfinished()?;
    }
    writeln!(out, "{} freed", show::size(freed))?;
    out.flush()?;
    if failed > 0 {
        return Ok(fail(&format!("{} not removed", show::count(failed, "cache"))));
    }
    if in_use.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    Ok(fail(&format!(
        "in use and not removed: {}; end the processes that read them first",
        in_use.join(", ")
    )))
}

fn verify(cache: &UserCache, names: &[String], out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let (mut damaged, mut noun) = (0, "damaged file");
    for dataset in chosen(cache, names)? {
        let errors = dataset.verify();
        damaged += errors.len();
        if dataset.index().is_none() {
            noun = "damaged index or file";
        }
        let name = show::printable(dataset.name());
        if errors.is_empty() {
            let shards = show::count(dataset.num_shards() as u64, "shard");
            writeln!(out, "ok   {name}  {shards}, {}", show::size(dataset.bytes()))?;
        }
        for error in errors {
            writeln!(out, "BAD  {name}  {}", sentence(&error))?;
        }
    }
    if damaged == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    out.flush()?;
    let damaged = show::count(damaged as u64, noun);
    Ok(fail(&format!("{damaged}; what is damaged is fetched again when it is needed")))
}

/// The caches of these names, or all.
fn chosen(cache: &UserCache, names: &[String]) -> Result<Vec<CachedDataset>, Failure> {
    let mut datasets = cache.datasets()?;
    if names.is_empty() {
        return Ok(datasets);
    }
    if let Some(name) = names.iter().find(|name| datasets.iter().all(|d| d.name() != *name)) {
        return Err(Failure::Dataset(mds::Error::new(
            ErrorKind::NotFound,
            // Somebody may give the address that was read, with its keys.
            format!("there is no cache {} in {}", mds::redacted(name), cache.folder().display()),
            "see mds-inspect cache list for the names",
        )));
    }
    datasets.retain(|dataset| names.iter().any(|name| name == dataset.name()));
    Ok(datasets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_their_largest_unit() {
        let shown = [5, 60, 7_300, 200_000].map(|seconds| about(Duration::from_secs(seconds)));
        assert_eq!(shown, ["5 seconds", "1 minute", "2 hours", "2 days"]);
    }
}
