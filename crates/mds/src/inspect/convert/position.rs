//! Where in the source a value is that the output cannot hold.

use std::error::Error as _;

use mds::Error;

/// The piece of the source that is written at the moment.
pub(super) struct Place<'a> {
    /// The shard, if the source is a dataset.
    pub(super) shard: Option<&'a str>,
    /// The number of the first sample of the piece, within the shard or the file.
    pub(super) first: u64,
    /// The samples that had been written before the piece.
    pub(super) written: u64,
}

impl Place<'_> {
    /// An error of the writer that names the sample of the source, in place of the one of the
    /// output. What is no fault of a sample stays as it is.
    pub(super) fn of(&self, error: Error) -> Error {
        let position = error.position();
        let text = error.to_string();
        let what = text.strip_prefix(&format!("{position}: ")).unwrap_or(&text);
        let what = what.strip_suffix(&format!("; {}", error.remedy())).unwrap_or(what);
        let (row, what) = row_of_batch(what);
        let row = row.or(position.sample.map(|sample| sample.saturating_sub(self.written)));
        let Some(row) = row else { return error };
        let mut moved = Error::new(error.kind(), what, error.remedy()).at_sample(self.first + row);
        if let Some(shard) = self.shard {
            moved = moved.in_shard(shard);
        }
        if let Some(column) = &position.column {
            moved = moved.in_column(column);
        }
        if let Some(byte) = position.byte {
            moved = moved.at_byte(byte);
        }
        match error.source() {
            Some(cause) => moved.with_source(cause.to_string()),
            None => moved,
        }
    }
}

/// Errors of record batches begin with the row.
fn row_of_batch(what: &str) -> (Option<u64>, &str) {
    let parts = what.strip_prefix("row ").and_then(|rest| rest.split_once(" of the batch: "));
    match parts.and_then(|(row, rest)| Some((row.parse().ok()?, rest))) {
        Some((row, rest)) => (Some(row), rest),
        None => (None, what),
    }
}

#[cfg(test)]
mod tests {
    use mds::ErrorKind;

    use super::*;

    const PLACE: Place<'_> = Place { shard: Some("s"), first: 100, written: 1000 };

    fn error(what: &str) -> Error {
        Error::new(ErrorKind::InvalidArgument, what, "give another").in_column("c")
    }

    #[test]
    fn samples_of_the_output_become_those_of_the_source() {
        let moved = PLACE.of(error("too large; by far").at_sample(1003).in_dataset("out"));
        let expected = "shard s, sample 103, column c: too large; by far; give another";
        assert_eq!(moved.to_string(), expected);
        let moved = PLACE.of(error("row 7 of the batch: the value is null"));
        let expected = "shard s, sample 107, column c: the value is null; give another";
        assert_eq!(moved.to_string(), expected);
    }

    #[test]
    fn failures_of_the_output_stay() {
        let text = "dataset out, column c: the disk is full; give another";
        assert_eq!(PLACE.of(error("the disk is full").in_dataset("out")).to_string(), text);
    }
}
