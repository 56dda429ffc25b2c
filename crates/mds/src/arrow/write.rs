//! Batches into a dataset.

use arrow_array::RecordBatch;

use super::rows::{BatchRows, at_row};
use crate::{ErrorKind, Result, Writer};

impl Writer {
    /// Adds the rows of a batch as samples, in order: the same bytes as [`write`](Self::write) with
    /// the values of each row. Columns are found by their names; see the [module](crate::arrow) for
    /// the types that an encoding takes.
    ///
    /// # Errors
    /// `InvalidArgument` if the columns are not those of the dataset, do not fit or hold nulls; then
    /// no row is written. Also if a value does not fit, naming its row and column; then the rows
    /// before it are written, as [`samples`](Self::samples) tells, and the writer can go on. Else as
    /// [`write`](Self::write).
    pub fn write_batch(&mut self, batch: &RecordBatch) -> Result<()> {
        let rows = BatchRows::new(self.schema(), batch)?;
        let mut values = Vec::with_capacity(self.schema().columns().len());
        for row in 0..rows.len() {
            rows.read(row, &mut values).map_err(|error| error.at_sample(self.samples()))?;
            self.write(&values).map_err(|error| match error.kind() {
                ErrorKind::InvalidArgument => at_row(error, row),
                _ => error,
            })?;
        }
        Ok(())
    }
}
