//! One sample, as a handle on the shard that holds it.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::cache::MappedShard;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Schema, Value};

/// A sample: cheap to clone and to send. Its values borrow from the mapped shard, which stays
/// mapped, and in its cache, as long as any sample of it lives.
#[derive(Clone)]
pub struct Sample {
    shard: Arc<MappedShard>,
    position: usize,
    id: u64,
}

impl fmt::Debug for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sample")
            .field("id", &self.id)
            .field("shard", &self.shard.name())
            .field("position", &self.position)
            .finish()
    }
}

impl Sample {
    pub(crate) fn new(shard: Arc<MappedShard>, position: usize, id: u64) -> Self {
        Self { shard, position, id }
    }

    /// The number of the sample in the dataset.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The columns of the sample.
    pub fn schema(&self) -> &Schema {
        self.shard.schema()
    }

    /// The sample as it stands in its shard, all columns together.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt) if the shard has fewer samples than its index says.
    pub fn encoded(&self) -> Result<&[u8]> {
        self.shard.sample(self.position).map_err(|e| self.located(e))
    }

    /// The value of a column.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such column, and
    /// [`Corrupt`](ErrorKind::Corrupt) or [`Unsupported`](ErrorKind::Unsupported) if its value
    /// cannot be decoded.
    pub fn value(&self, column: &str) -> Result<Value<'_>> {
        let position = self.column(column)?;
        self.decode(position)
    }

    /// The text of a `str` column.
    ///
    /// # Errors
    /// As [`value`](Self::value), and [`InvalidArgument`](ErrorKind::InvalidArgument) if the
    /// column is not of text.
    pub fn str(&self, column: &str) -> Result<&str> {
        match self.value(column)? {
            Value::Str(Cow::Borrowed(text)) => Ok(text),
            _ => {
                let position = self.column(column)?;
                let encoding = &self.schema().columns()[position].encoding;
                Err(self.located(
                    Error::invalid(
                        format!("the column holds {encoding}, not str"),
                        "read it with value()",
                    )
                    .in_column(column),
                ))
            }
        }
    }

    /// The bytes of a column as they are stored, whatever its encoding.
    ///
    /// # Errors
    /// As [`value`](Self::value).
    pub fn bytes(&self, column: &str) -> Result<&[u8]> {
        let position = self.column(column)?;
        self.schema().column_bytes(self.encoded()?, position).map_err(|e| self.located(e))
    }

    /// All columns and their values.
    ///
    /// # Errors
    /// As [`value`](Self::value).
    pub fn values(&self) -> Result<Vec<(&str, Value<'_>)>> {
        let names = self.schema().columns().iter().map(|column| column.name.as_str());
        names.enumerate().map(|(i, name)| Ok((name, self.decode(i)?))).collect()
    }

    fn decode(&self, position: usize) -> Result<Value<'_>> {
        self.schema().decode_column(self.encoded()?, position).map_err(|e| self.located(e))
    }

    fn column(&self, name: &str) -> Result<usize> {
        self.schema().position(name).ok_or_else(|| {
            let known: Vec<_> = self.schema().columns().iter().map(|c| c.name.as_str()).collect();
            self.located(Error::new(
                ErrorKind::NotFound,
                format!("there is no column {name:?}"),
                format!("the columns are {}", known.join(", ")),
            ))
        })
    }

    fn located(&self, error: Error) -> Error {
        error.at_sample(self.position as u64).in_shard(self.shard.name())
    }
}
