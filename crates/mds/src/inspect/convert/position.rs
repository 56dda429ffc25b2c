//! Where in the source a value is that the output cannot hold.

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
        let mut position = error.position().clone();
        let sample = position.sample.map(|sample| sample.saturating_sub(self.written));
        let Some(row) = position.row.take().or(sample) else { return error };
        position.dataset = None;
        position.shard = self.shard.map(str::to_owned);
        position.sample = Some(self.first + row);
        error.with_position(position)
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
        let mut row = error("the value is null").position().clone();
        row.row = Some(7);
        let moved = PLACE.of(error("the value is null").with_position(row));
        let expected = "shard s, sample 107, column c: the value is null; give another";
        assert_eq!(moved.to_string(), expected);
    }

    #[test]
    fn failures_of_the_output_stay() {
        let text = "dataset out, column c: the disk is full; give another";
        assert_eq!(PLACE.of(error("the disk is full").in_dataset("out")).to_string(), text);
    }
}
