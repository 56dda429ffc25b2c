//! Nested Arrow values as JSON.

use std::collections::HashSet;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;

use super::source::Numbers;
use crate::format::{Integer, Json, JsonText};
use crate::{Error, Result};

/// How deep types may stand in each other: each level is a call below.
const MAX_DEPTH: usize = 64;

/// The most memory that one value may take, in bytes. A small batch can stand for a huge value, by
/// naming the same text again and again or by a list of a billion nulls.
const MAX_MEMORY: usize = 1 << 30;

/// The memory of a key, without its text, and a value.
const MEMBER: usize = size_of::<(JsonText, Json)>();

/// Whether JSON can hold the values of a type.
pub(super) fn holds(data_type: &DataType) -> bool {
    holds_below(data_type, MAX_DEPTH)
}

fn holds_below(data_type: &DataType, levels: usize) -> bool {
    let Some(levels) = levels.checked_sub(1) else { return false };
    match data_type {
        DataType::Null
        | DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64
        | DataType::Float16
        | DataType::Float32
        | DataType::Float64
        | DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View => true,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            holds_below(item.data_type(), levels)
        }
        DataType::Dictionary(_, values) => holds_below(values, levels),
        DataType::Struct(fields) => {
            let mut names = HashSet::new();
            fields.iter().all(|f| names.insert(f.name()) && holds_below(f.data_type(), levels))
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) => match fields.as_ref() {
                [key, value] => is_text(key.data_type()) && holds_below(value.data_type(), levels),
                _ => false,
            },
            _ => false,
        },
        _ => false,
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// The value at `row`, which the array must have.
///
/// # Errors
/// `InvalidArgument` if a map has a key twice or the value is too large. `Unsupported` if the type
/// is not one that [`holds`].
pub(super) fn value(array: &dyn Array, row: usize) -> Result<Json> {
    let mut left = MAX_MEMORY;
    value_within(array, row, &mut left)
}

/// Takes from `left` what the value will hold, before it is made.
fn charge(left: &mut usize, count: usize, size: usize) -> Result<()> {
    let rest = count.checked_mul(size).and_then(|bytes| left.checked_sub(bytes));
    *left = rest.ok_or_else(|| {
        Error::invalid(
            format!("the value takes more than {MAX_MEMORY} bytes of memory as JSON"),
            "split it over several rows or columns",
        )
    })?;
    Ok(())
}

fn text(text: &str, left: &mut usize) -> Result<Json> {
    charge(left, text.len(), 1)?;
    Ok(Json::Str(text.into()))
}

fn value_within(array: &dyn Array, row: usize, left: &mut usize) -> Result<Json> {
    if array.is_null(row) {
        return Ok(Json::Null);
    }
    /// The integer at `row`.
    macro_rules! integer {
        ($type:ty) => {
            Json::Int(Integer::from(i64::from(array.as_primitive::<$type>().value(row))))
        };
    }
    Ok(match array.data_type() {
        DataType::Null => Json::Null,
        DataType::Boolean => Json::Bool(array.as_boolean().value(row)),
        DataType::Int8 => integer!(Int8Type),
        DataType::Int16 => integer!(Int16Type),
        DataType::Int32 => integer!(Int32Type),
        DataType::Int64 => integer!(Int64Type),
        DataType::UInt8 => integer!(UInt8Type),
        DataType::UInt16 => integer!(UInt16Type),
        DataType::UInt32 => integer!(UInt32Type),
        DataType::UInt64 => Json::Int(Integer::from(array.as_primitive::<UInt64Type>().value(row))),
        DataType::Float16 => Json::Float(array.as_primitive::<Float16Type>().value(row).into()),
        DataType::Float32 => Json::Float(array.as_primitive::<Float32Type>().value(row).into()),
        DataType::Float64 => Json::Float(array.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8 => text(array.as_string::<i32>().value(row), left)?,
        DataType::LargeUtf8 => text(array.as_string::<i64>().value(row), left)?,
        DataType::Utf8View => text(array.as_string_view().value(row), left)?,
        DataType::List(_) => list(&array.as_list::<i32>().value(row), left)?,
        DataType::LargeList(_) => list(&array.as_list::<i64>().value(row), left)?,
        DataType::FixedSizeList(..) => list(&array.as_fixed_size_list().value(row), left)?,
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            match Numbers::of(dictionary.keys()).and_then(|keys| keys.position(row)) {
                Some(key) => value_within(dictionary.values().as_ref(), key, left)?,
                None => Json::Null,
            }
        }
        DataType::Struct(fields) => {
            charge(left, fields.len(), MEMBER)?;
            let columns = array.as_struct().columns().iter();
            let members = fields.iter().zip(columns).map(|(field, column)| {
                Ok((field.name().as_str().into(), value_within(column.as_ref(), row, left)?))
            });
            Json::Object(members.collect::<Result<_>>()?)
        }
        DataType::Map(..) => map(array, row, left)?,
        other => {
            return Err(Error::unsupported(
                format!("json does not hold the Arrow type {other}"),
                "cast it to numbers or text",
            ));
        }
    })
}

fn list(items: &ArrayRef, left: &mut usize) -> Result<Json> {
    charge(left, items.len(), size_of::<Json>())?;
    let values = (0..items.len()).map(|row| value_within(items.as_ref(), row, left));
    values.collect::<Result<_>>().map(Json::List)
}

fn map(array: &dyn Array, row: usize, left: &mut usize) -> Result<Json> {
    let entries = array.as_map().value(row);
    charge(left, entries.len(), MEMBER)?;
    let mut seen = HashSet::new();
    let mut members = Vec::with_capacity(entries.len());
    let [keys, values] = entries.columns() else { return Ok(Json::Object(members)) };
    for entry in 0..entries.len() {
        // Keys are texts, and a map has no null key.
        let Json::Str(key) = value_within(keys.as_ref(), entry, left)? else { continue };
        if !seen.insert(key.clone()) {
            return Err(Error::invalid(
                format!("the map has the key {:?} twice", key.to_string_lossy()),
                "keep one value for each key",
            ));
        }
        members.push((key, value_within(values.as_ref(), entry, left)?));
    }
    Ok(Json::Object(members))
}

#[cfg(test)]
mod tests {
    use arrow_array::types::Int8Type;
    use arrow_array::{DictionaryArray, Int8Array, ListArray, StringArray};
    use arrow_buffer::OffsetBuffer;
    use arrow_schema::Field;

    use super::*;

    #[test]
    fn a_text_counts_each_time_it_is_named() {
        let values = StringArray::from(vec!["x".repeat(1000)]);
        let keys = Int8Array::from(vec![0; 5]);
        let texts = DictionaryArray::<Int8Type>::new(keys, std::sync::Arc::new(values));
        let field = Field::new("item", texts.data_type().clone(), true).into();
        let offsets = OffsetBuffer::from_lengths([5]);
        let list = ListArray::new(field, offsets, std::sync::Arc::new(texts), None);
        let takes = 5 * (size_of::<Json>() + 1000);
        assert!(value_within(&list, 0, &mut takes.clone()).is_ok());
        assert!(value_within(&list, 0, &mut (takes - 1)).is_err());
    }
}
