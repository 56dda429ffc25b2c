//! Which rank reads which samples and shards at a step.

use std::io::Write;
use std::ops::Range;
use std::str::FromStr;

use serde::Serialize;

use super::shards::Shards;
use super::{Failure, Format};

/// Ranks, runs of samples and shards of a step that are listed unless all are asked for.
const LISTED_RANKS: usize = 8;
const LISTED_RUNS: usize = 6;

/// The steps to list: `A..B` (without B), `A..`, `..B` or `A`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Steps(pub(super) Range<u64>);

impl FromStr for Steps {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not A..B (without B), A.., ..B or A, such as 0..10");
        let number = |part: &str, default: u64| match part {
            "" => Ok(default),
            part => part.parse::<u64>().map_err(|_| wrong()),
        };
        let steps = match text.split_once("..") {
            Some((first, end)) => number(first, 0)?..number(end, u64::MAX)?,
            None => {
                let only = text.parse::<u64>().map_err(|_| wrong())?;
                only..only.saturating_add(1)
            }
        };
        if steps.is_empty() { Err(wrong()) } else { Ok(Self(steps)) }
    }
}

/// What one rank (or the ranks that share their samples) reads at a step.
#[derive(Debug, Serialize)]
struct Read<'a> {
    step: u64,
    ranks: Vec<usize>,
    nodes: &'a [usize],
    /// Runs of consecutive numbers, first and last, in the order of serving.
    samples: Vec<[u64; 2]>,
    /// Each once, in the order of serving.
    shards: Vec<u32>,
}

/// Writes the reads of some steps as they come.
#[derive(Debug)]
pub(super) struct Listing<'a> {
    pub(super) steps: Range<u64>,
    pub(super) format: Format,
    /// Nothing is cut.
    pub(super) full: bool,
    pub(super) shards: &'a Shards,
    pub(super) nodes_of: &'a [Vec<usize>],
    pub(super) replication: usize,
    pub(super) batch_size: usize,
    pub(super) is_first: bool,
}

impl Listing<'_> {
    /// Whether this step is one of those, and somebody reads something.
    pub(super) fn has(&self, step: u64, ids: &[i64]) -> bool {
        self.steps.contains(&step) && ids.iter().any(|id| *id >= 0)
    }

    /// Writes one step.
    pub(super) fn step(
        &mut self,
        step: u64,
        ids: &[i64],
        out: &mut dyn Write,
    ) -> Result<(), Failure> {
        let ranks = ids.len() / self.batch_size;
        let listed = match self.format {
            Format::Text if !self.full => ranks.min(LISTED_RANKS),
            _ => ranks,
        };
        if self.format == Format::Text {
            writeln!(out, "step {step}")?;
        }
        for (rank, batch) in ids.chunks(self.batch_size).enumerate().take(listed) {
            let read = self.read(step, rank, batch);
            match self.format {
                Format::Text => self.write_text(&read, out)?,
                Format::Json => {
                    let comma = if self.is_first { "\n" } else { ",\n" };
                    let json = serde_json::to_string(&read).map_err(std::io::Error::from)?;
                    write!(out, "{comma}{json}")?;
                }
            }
            self.is_first = false;
        }
        if listed < ranks {
            writeln!(out, "  ... ({} more ranks; --full prints them)", ranks - listed)?;
        }
        Ok(())
    }

    fn read(&self, step: u64, rank: usize, batch: &[i64]) -> Read<'_> {
        let mut samples: Vec<[u64; 2]> = Vec::new();
        let mut shards = Vec::new();
        for id in batch.iter().filter_map(|id| u64::try_from(*id).ok()) {
            match samples.last_mut() {
                Some(run) if run[1] + 1 == id => run[1] = id,
                _ => samples.push([id, id]),
            }
            let shard = self.shards.of(id);
            if !shards.contains(&shard) {
                shards.push(shard);
            }
        }
        let ranks = (rank * self.replication..(rank + 1) * self.replication).collect();
        Read { step, ranks, nodes: &self.nodes_of[rank], samples, shards }
    }

    fn write_text(&self, read: &Read<'_>, out: &mut dyn Write) -> Result<(), Failure> {
        let several = self.nodes_of.iter().flatten().any(|node| *node > 0);
        if several {
            write!(out, "  node {}", joined(read.nodes, usize::MAX))?;
        }
        let runs: Vec<String> = read.samples.iter().map(run).collect();
        let most = if self.full { usize::MAX } else { LISTED_RUNS };
        let noun = if read.ranks.len() == 1 { "rank" } else { "ranks" };
        writeln!(
            out,
            "  {noun} {}  samples {}  shards {}",
            joined(&read.ranks, usize::MAX),
            if runs.is_empty() { "none".to_owned() } else { joined(&runs, most) },
            if runs.is_empty() { "none".to_owned() } else { joined(&read.shards, most) },
        )?;
        Ok(())
    }
}

fn run(&[first, last]: &[u64; 2]) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

/// The first `most` of them, and how many follow.
fn joined<T: ToString>(list: &[T], most: usize) -> String {
    let shown: Vec<String> = list.iter().take(most).map(ToString::to_string).collect();
    let more = list.len() - shown.len();
    let rest = if more == 0 { String::new() } else { format!(", ... ({more} more)") };
    format!("{}{rest}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_a_range_or_one() {
        let parsed = |text: &str| text.parse::<Steps>().map(|steps| steps.0);
        assert_eq!(parsed("3..5"), Ok(3..5));
        assert_eq!(parsed("3.."), Ok(3..u64::MAX));
        assert_eq!(parsed("..5"), Ok(0..5));
        assert_eq!(parsed("7"), Ok(7..8));
        for wrong in ["", "5..3", "4..4", "a..b", "-1", "1..2..3"] {
            assert_eq!(
                parsed(wrong).unwrap_err(),
                format!("{wrong:?} is not A..B (without B), A.., ..B or A, such as 0..10")
            );
        }
    }

    #[test]
    fn lists_are_cut_with_a_note() {
        assert_eq!(joined(&[1, 2, 3], 3), "1, 2, 3");
        assert_eq!(joined(&[1, 2, 3], 1), "1, ... (2 more)");
        assert_eq!((run(&[4, 4]), run(&[4, 9])), ("4".to_owned(), "4-9".to_owned()));
    }
}
