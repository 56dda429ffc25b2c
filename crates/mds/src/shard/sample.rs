//! One sample, as a slice of its shard or with a share in it.

use std::fmt;
use std::sync::Arc;

use super::Shard;
use super::field::{Field, FieldType, Fields};
use crate::error::{Error, ErrorKind, Result, shown};
use crate::format::{Encoding, Format, Schema, ShardTable, Value};

/// A sample that borrows from its shard. Copying it copies two words.
#[derive(Clone, Copy)]
pub struct SampleRef<'a> {
    shard: &'a Shard,
    position: usize,
    bytes: &'a [u8],
}

impl fmt::Debug for SampleRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SampleRef")
            .field("shard", &self.shard.name())
            .field("position", &self.position)
            .finish()
    }
}

impl<'a> SampleRef<'a> {
    pub(super) fn new(shard: &'a Shard, position: usize, bytes: &'a [u8]) -> Self {
        Self { shard, position, bytes }
    }

    /// The number of the sample in its shard.
    pub fn position(&self) -> usize {
        self.position
    }

    /// The columns of the sample.
    pub fn schema(&self) -> &'a Schema {
        &self.shard.schema
    }

    /// The sample as it stands in its shard, all columns together.
    pub fn encoded(&self) -> &'a [u8] {
        self.bytes
    }

    /// The value of a column known by a [`Field`].
    ///
    /// # Errors
    /// `Corrupt` if the stored bytes are no such value, and `InvalidArgument` if the field was made
    /// for other columns. `Unsupported` for JSON lines, whose values lie under escapes.
    pub fn get<T: FieldType + ?Sized>(&self, field: Field<T>) -> Result<T::Ref<'a>> {
        let column = field.column();
        let bytes = self.column_bytes(column)?;
        field.read(&self.shard.schema, &self.shard.format, bytes).map_err(|e| self.located(e))
    }

    /// The value of a column, borrowing from the shard wherever the stored bytes are the value.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such column, and
    /// [`Corrupt`](ErrorKind::Corrupt) if its value cannot be decoded.
    pub fn value(&self, column: &str) -> Result<Value<'a>> {
        let position = self.column(column)?;
        match self.shard.format {
            Format::Mds => self
                .schema()
                .decode_column(self.bytes, position)
                .map_err(|error| self.located(error)),
            _ => Ok(self.decode()?.swap_remove(position)),
        }
    }

    /// The text of a `str` column, or the stored text of a `json`, `str_int`, `str_float` or
    /// `str_decimal` one.
    ///
    /// # Errors
    /// As [`value`](Self::value), and [`InvalidArgument`](ErrorKind::InvalidArgument) if the
    /// column is not of text.
    pub fn str(&self, column: &str) -> Result<&'a str> {
        let position = self.column(column)?;
        let field = Field::<str>::at(position);
        let encoding = &self.schema().columns()[position].encoding;
        if !<str as FieldType>::reads(encoding) {
            let error = Error::invalid(
                format!("the column holds {encoding}, not str"),
                "read it with value()",
            );
            return Err(self.located(error.in_column(column)));
        }
        self.get(field)
    }

    /// The bytes of a column as they are stored, whatever its encoding.
    ///
    /// # Errors
    /// As [`value`](Self::value).
    pub fn bytes(&self, column: &str) -> Result<&'a [u8]> {
        self.column_bytes(self.column(column)?)
    }

    /// All columns and their values.
    ///
    /// # Errors
    /// As [`value`](Self::value).
    pub fn values(&self) -> Result<Vec<(&'a str, Value<'a>)>> {
        let names = self.schema().columns().iter().map(|column| column.name.as_str());
        Ok(names.zip(self.decode()?).collect())
    }

    /// The values of all columns, in their order.
    ///
    /// # Errors
    /// As [`value`](Self::value).
    pub fn decode(&self) -> Result<Vec<Value<'a>>> {
        let values = self.shard.format.decode_sample(self.schema(), self.bytes);
        values.map_err(|error| self.located(error))
    }

    /// The stored bytes of the column number `position`.
    pub(crate) fn column_bytes(&self, position: usize) -> Result<&'a [u8]> {
        let bytes = self.shard.format.column_bytes(self.schema(), self.bytes, position);
        bytes.map_err(|error| self.located(error))
    }

    fn column(&self, name: &str) -> Result<usize> {
        self.schema().position(name).ok_or_else(|| {
            let known: Vec<_> = self.schema().columns().iter().map(|c| shown(&c.name)).collect();
            self.located(Error::new(
                ErrorKind::NotFound,
                format!("there is no column {name:?}"),
                format!("the columns are {}", known.join(", ")),
            ))
        })
    }

    /// Adds to an error where this sample is. Damage ([`Corrupt`](ErrorKind::Corrupt)) also gets its
    /// byte, unless it has one: that at which the value of its column begins, or the sample's first.
    pub fn located(&self, error: Error) -> Error {
        let error = match error.kind() {
            ErrorKind::Corrupt => {
                let byte = self.start_of(error.position().column.as_deref());
                error.at_byte(byte)
            }
            _ => error,
        };
        self.shard.located(error.at_sample(self.position as u64))
    }

    /// The byte of the sample at which the value of a column begins; 0 where there is none.
    fn start_of(&self, column: Option<&str>) -> u64 {
        let position = column.and_then(|name| self.schema().position(name));
        let column_bytes =
            |position| self.shard.format.column_bytes(self.schema(), self.bytes, position).ok();
        let Some(value) = position.and_then(column_bytes) else { return 0 };
        // A value is a slice of its sample.
        (value.as_ptr().addr() - self.bytes.as_ptr().addr()) as u64
    }
}

/// All samples of a shard, in order.
#[derive(Debug, Clone)]
pub struct Samples<'a> {
    shard: &'a Shard,
    table: &'a ShardTable,
    next: usize,
}

impl<'a> Samples<'a> {
    pub(super) fn new(shard: &'a Shard, table: &'a ShardTable) -> Self {
        Self { shard, table, next: 0 }
    }
}

impl<'a> Iterator for Samples<'a> {
    type Item = SampleRef<'a>;

    fn next(&mut self) -> Option<SampleRef<'a>> {
        if self.next >= self.table.len() {
            return None;
        }
        // The table was checked against this very file, so the range lies inside of it.
        let bytes = self.shard.data.get(self.table.range(self.next))?;
        self.next += 1;
        Some(SampleRef::new(self.shard, self.next - 1, bytes))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.table.len() - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Samples<'_> {}

/// A sample with a share in its shard: cheap to clone and to send. The shard stays in memory, and
/// in its cache, as long as any sample of it lives. With a
/// [`cache_limit`](crate::DatasetOptions::cache_limit) it is a copy instead, so that samples that
/// are kept do not fill the cache.
#[derive(Clone)]
pub struct Sample {
    shard: Arc<Shard>,
    position: usize,
    id: u64,
    /// The bytes of a sample whose shard is here for its columns and names only.
    copied: Option<Arc<[u8]>>,
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
    pub(crate) fn new(shard: Arc<Shard>, position: usize, id: u64) -> Self {
        Self { shard, position, id, copied: None }
    }

    /// A sample whose bytes came without those of its shard.
    pub(crate) fn apart(shard: Arc<Shard>, position: usize, id: u64, bytes: Arc<[u8]>) -> Self {
        Self { shard, position, id, copied: Some(bytes) }
    }

    /// The same sample without a share in the file of its shard.
    pub(crate) fn copied(self) -> Result<Self> {
        let bytes = self.borrow()?.encoded().into();
        Ok(Self { shard: self.shard.without_data(), copied: Some(bytes), ..self })
    }

    /// The number of the sample in the dataset; in its shard if it was taken from there.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Starts a list of columns to read by their type, from this sample and others like it.
    pub fn fields(&self) -> Fields<'_> {
        self.shard.fields()
    }

    /// The columns of the sample.
    pub fn schema(&self) -> &Schema {
        self.shard.schema()
    }

    /// The sample as a slice of its shard.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt) if the shard has fewer samples than its index says.
    pub fn borrow(&self) -> Result<SampleRef<'_>> {
        match &self.copied {
            Some(bytes) => Ok(SampleRef::new(&self.shard, self.position, bytes)),
            None => self.shard.sample(self.position),
        }
    }

    /// The sample as it stands in its shard, all columns together.
    ///
    /// # Errors
    /// As [`borrow`](Self::borrow).
    pub fn encoded(&self) -> Result<&[u8]> {
        Ok(self.borrow()?.encoded())
    }

    /// The value of a column.
    ///
    /// # Errors
    /// As [`SampleRef::value`].
    pub fn value(&self, column: &str) -> Result<Value<'_>> {
        self.borrow()?.value(column)
    }

    /// The text of a column.
    ///
    /// # Errors
    /// As [`SampleRef::str`].
    pub fn str(&self, column: &str) -> Result<&str> {
        self.borrow()?.str(column)
    }

    /// The bytes of a column as they are stored, whatever its encoding.
    ///
    /// # Errors
    /// As [`SampleRef::bytes`].
    pub fn bytes(&self, column: &str) -> Result<&[u8]> {
        self.borrow()?.bytes(column)
    }

    /// All columns and their values.
    ///
    /// # Errors
    /// As [`SampleRef::values`].
    pub fn values(&self) -> Result<Vec<(&str, Value<'_>)>> {
        self.borrow()?.values()
    }
}

/// Whether a column holds text as it is stored.
pub(super) fn is_text(encoding: &Encoding) -> bool {
    matches!(
        encoding,
        Encoding::Str
            | Encoding::Json
            | Encoding::StrInt
            | Encoding::StrFloat
            | Encoding::StrDecimal
    )
}
