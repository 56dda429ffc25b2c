//! Batches into a dataset.

use arrow_array::RecordBatch;

use super::rows::BatchRows;
use crate::format::Value;
use crate::{Error, ErrorKind, Result, Writer};

impl Writer {
    /// Adds the rows of a batch as samples, in order: the same bytes as [`write`](Self::write) with
    /// the values of each row, encoded on the writer's threads. Columns are found by their names; see the [module](crate::arrow) for
    /// the types that an encoding takes.
    ///
    /// # Errors
    /// `InvalidArgument` if the columns are not those of the dataset, do not fit or hold nulls; then
    /// no row is written. Also if a value does not fit, naming its row and column; then the rows
    /// before it are written, as [`samples`](Self::samples) tells, and the writer can go on. Else as
    /// [`write`](Self::write).
    pub fn write_batch(&mut self, batch: &RecordBatch) -> Result<()> {
        let rows = BatchRows::new(self.schema(), batch)?;
        let mut first = 0;
        while first < rows.len() {
            let (block, refused) = read_block(&rows, first);
            let before = self.samples();
            let written = self.write_rows(&block);
            let row = first + (self.samples() - before) as usize;
            written.map_err(|error| match error.kind() {
                ErrorKind::InvalidArgument => error.at_row(row as u64),
                _ => error,
            })?;
            if let Some(error) = refused {
                return Err(error.at_sample(self.samples()));
            }
            first += block.len();
        }
        Ok(())
    }
}

/// Rows that are read at a time, for the writer's threads to encode.
const BLOCK: usize = 1024;

/// The values of the next rows, up to one that cannot be read, and why it cannot.
fn read_block<'r>(rows: &'r BatchRows<'_>, first: usize) -> (Vec<Vec<Value<'r>>>, Option<Error>) {
    let last = rows.len().min(first + BLOCK);
    let mut block = Vec::with_capacity(last - first);
    for row in first..last {
        let mut values = Vec::new();
        if let Err(error) = rows.read(row, &mut values) {
            return (block, Some(error));
        }
        block.push(values);
    }
    (block, None)
}
