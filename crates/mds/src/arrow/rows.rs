//! The rows of a batch as values to write.

use std::collections::{HashMap, HashSet};

use arrow_array::{Array, ArrayRef, RecordBatch};

use super::json;
use super::schema::takes;
use super::source::{Source, decimal, exact};
use crate::error::shown;
use crate::format::{Column, DType, Decimal, Encoding, Scalar, Schema, Value, utf8};
use crate::{Error, Result};

/// A batch whose columns fit those of a dataset, to be read row by row.
///
/// ```
/// use std::sync::Arc;
///
/// use arrow_array::{Int32Array, RecordBatch, StringArray};
/// use mds::arrow::BatchRows;
/// use mds::format::{Schema, Value};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let batch = RecordBatch::try_from_iter([
///     ("text", Arc::new(StringArray::from(vec!["one", "two"])) as _),
///     ("id", Arc::new(Int32Array::from(vec![1, 2])) as _),
/// ])?;
/// let schema = Schema::from_arrow(&batch.schema())?;
/// let rows = BatchRows::new(&schema, &batch)?;
/// let mut values = Vec::new();
/// rows.read(1, &mut values)?; // in the order of the names
/// assert_eq!(values[0].as_i64(), Some(2));
/// assert_eq!(values[1], Value::from("two"));
/// # Ok(())
/// # }
/// ```
pub struct BatchRows<'b> {
    columns: Vec<BatchColumn<'b>>,
    rows: usize,
}

struct BatchColumn<'b> {
    column: Column,
    source: Source<'b>,
}

impl std::fmt::Debug for BatchRows<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns: Vec<_> = self.columns.iter().map(|column| &column.column).collect();
        f.debug_struct("BatchRows").field("columns", &columns).field("rows", &self.rows).finish()
    }
}

impl<'b> BatchRows<'b> {
    /// Finds the columns of `schema` in `batch` by their names.
    ///
    /// # Errors
    /// `InvalidArgument` if columns are missing, left over or there twice, if one has a type that
    /// its encoding cannot hold, or a null; the column is named, and the row counted from 0.
    pub fn new(schema: &Schema, batch: &'b RecordBatch) -> Result<Self> {
        check_names(schema, batch)?;
        let mut columns = Vec::with_capacity(schema.columns().len());
        let batch_schema = batch.schema_ref();
        let names = batch_schema.fields().iter().map(|field| field.name().as_str());
        let arrays: HashMap<&str, &'b ArrayRef> = names.zip(batch.columns()).collect();
        for column in schema.columns() {
            // Every name was found.
            let Some(&array) = arrays.get(column.name.as_str()) else { continue };
            check_column(column, array.as_ref()).map_err(|error| error.in_column(&column.name))?;
            let source = match column.encoding {
                Encoding::Json if !holds_text(array.as_ref()) => Source::Nested(array.as_ref()),
                _ => Source::of(array.as_ref()),
            };
            columns.push(BatchColumn { column: column.clone(), source });
        }
        Ok(Self { columns, rows: batch.num_rows() })
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Replaces `values` by those of a row, in the order of
    /// [`Schema::columns`](crate::format::Schema::columns), borrowing from the batch wherever
    /// Arrow has the value.
    ///
    /// # Errors
    /// `InvalidArgument`, naming the column and the row, if the column cannot hold the value.
    pub fn read<'r>(&'r self, row: usize, values: &mut Vec<Value<'r>>) -> Result<()> {
        values.clear();
        if row >= self.rows {
            return Err(Error::invalid(
                format!("there is no row {row}"),
                format!("the batch has {} rows, counted from 0", self.rows),
            ));
        }
        for BatchColumn { column, source } in &self.columns {
            let value = value(&column.encoding, source, row)
                .map_err(|error| error.at_row(row as u64).in_column(&column.name))?;
            values.push(value);
        }
        Ok(())
    }
}

fn check_names(schema: &Schema, batch: &RecordBatch) -> Result<()> {
    let batch_schema = batch.schema();
    let found = || batch_schema.fields().iter().map(|field| field.name().as_str());
    let declared = || schema.columns().iter().map(|column| column.name.as_str());
    // Both may have a million.
    let all_found: HashSet<&str> = found().collect();
    let all_declared: HashSet<&str> = declared().collect();
    let missing = declared().filter(|name| !all_found.contains(name));
    let mut faults: Vec<_> = missing.map(|name| format!("has no column {name:?}")).collect();
    let mut seen = HashSet::new();
    for name in found() {
        if !all_declared.contains(name) {
            faults.push(format!("has the column {name:?}, which the dataset has not"));
        } else if !seen.insert(name) {
            faults.push(format!("has the column {name:?} twice"));
        }
    }
    if faults.is_empty() {
        return Ok(());
    }
    Err(Error::invalid(
        format!("the batch {}", faults.join(", and ")),
        format!(
            "give the columns {}, each once",
            declared().map(shown).collect::<Vec<_>>().join(", ")
        ),
    ))
}

fn check_column(column: &Column, array: &dyn Array) -> Result<()> {
    let Column { encoding, .. } = column;
    if !takes(encoding, array.data_type()) {
        let natural = super::schema::Layout::of(encoding).data_type();
        return Err(Error::invalid(
            format!("the encoding {encoding} does not take the Arrow type {}", array.data_type()),
            format!("cast the column to {natural}, or declare another encoding"),
        ));
    }
    // A dictionary may name a value that is null.
    let nulls = array.logical_nulls().filter(|nulls| nulls.null_count() > 0);
    if let Some(row) = nulls.and_then(|nulls| nulls.iter().position(|valid| !valid)) {
        let error = Error::invalid(
            "the value is null, and MDS has no nulls",
            "fill the nulls with a value, or drop the rows, before writing",
        );
        return Err(error.at_row(row as u64));
    }
    Ok(())
}

/// Whether the values are the very text of a JSON column.
fn holds_text(array: &dyn Array) -> bool {
    use super::schema::{Kind, value_type};
    matches!(Kind::of(value_type(array.data_type())), Kind::Text | Kind::Binary)
}

/// The value at `row` for an encoding that takes its type.
fn value<'r>(encoding: &Encoding, source: &'r Source<'_>, row: usize) -> Result<Value<'r>> {
    Ok(match (source, encoding) {
        (Source::Dictionary(keys, values), _) => {
            let row = keys.position(row).ok_or_else(|| mismatch(encoding))?;
            value(encoding, values, row)?
        }
        (Source::Text(texts), _) => texts.get(row).into(),
        (
            Source::Binary(bytes),
            Encoding::Str
            | Encoding::StrInt
            | Encoding::StrFloat
            | Encoding::StrDecimal
            | Encoding::Json,
        ) => {
            let text = utf8(bytes.get(row)).map_err(|error| {
                Error::invalid(error.what(), "give text in UTF-8, or declare the column as bytes")
            })?;
            text.into()
        }
        (Source::Binary(bytes), _) => bytes.get(row).into(),
        (Source::Numbers(numbers), _) => {
            let number = numbers.get(row).ok_or_else(|| mismatch(encoding))?;
            number_value(encoding, number)?
        }
        (Source::Booleans(values), _) => {
            number_value(encoding, Scalar::U8(values.value(row).into()))?
        }
        (Source::Decimals(array), _) => Value::Decimal(decimal(*array, row)?),
        (Source::Lists(lists), Encoding::NdArray { dtype, shape }) => {
            Value::NdArray(lists.get(row, *dtype, shape.as_deref())?)
        }
        (Source::Lists(lists), Encoding::NdArrayColon) => {
            Value::NdArray(lists.get(row, None, None)?)
        }
        (Source::Nested(array), Encoding::Json) => Value::Json(json::value(*array, row)?),
        (Source::Lists(_) | Source::Nested(_), _) => return Err(mismatch(encoding)),
    })
}

fn number_value(encoding: &Encoding, number: Scalar) -> Result<Value<'static>> {
    Ok(match encoding {
        Encoding::Scalar(dtype) => Value::Scalar(exact(number, *dtype)?),
        Encoding::StrFloat | Encoding::Float => Value::Scalar(exact(number, DType::F64)?),
        Encoding::StrDecimal if number.to_i64().is_none() => {
            let Scalar::U64(number) = number else { return Err(mismatch(encoding)) };
            let text = number.to_string();
            let decimal = Decimal::parse(&text).map_err(|_| mismatch(encoding))?;
            Value::Decimal(decimal.into_owned())
        }
        // A number beyond is for the encoding to judge: `int` of a text format takes it.
        _ => number.to_i64().map_or(Value::Scalar(number), Value::Int),
    })
}

/// The type was checked, so this does not happen.
fn mismatch(encoding: &Encoding) -> Error {
    Error::invalid(
        format!("the encoding {encoding} does not take the value"),
        "declare another encoding, or cast the column",
    )
}
