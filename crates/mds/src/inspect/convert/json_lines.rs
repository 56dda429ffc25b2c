//! Plain JSON lines: the columns that all lines together make, and their rows as record batches.
//!
//! A column is of the narrowest type that holds all of its values as they are; what no type but JSON
//! holds so, such as objects, or texts beside numbers, is a column of JSON.

use std::collections::HashMap;
use std::io::{BufRead, Read};
use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{
    BooleanBuilder, Float64Builder, Int64Builder, LargeStringBuilder, ListBuilder, StringBuilder,
};
use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use mds::format::Encoding;
use mds::format::python::{Json, JsonText};

use super::files::Fault;
use super::text::{Inferred, LONGEST_LINE, Rounded, is_inexact_integer, open, rows_at_once};

/// What is known of the values of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nulls alone.
    Null,
    Bool,
    Int,
    Float,
    Text,
    /// Lists without items.
    Empty,
    Ints,
    Floats,
    /// Anything else.
    Json,
}

impl Kind {
    fn of(value: &Json) -> Self {
        match value {
            Json::Null => Self::Null,
            Json::Bool(_) => Self::Bool,
            Json::Int(number) if number.to_i64().is_some() => Self::Int,
            Json::Int(_) | Json::Float(_) => Self::Float,
            Json::Str(text) if text.as_str().is_some() => Self::Text,
            Json::Str(_) | Json::Object(_) => Self::Json,
            Json::List(items) => {
                // No array has nulls in it.
                if items.contains(&Json::Null) {
                    return Self::Json;
                }
                match items.iter().map(Self::of).reduce(Self::joined) {
                    None => Self::Empty,
                    Some(Self::Int) => Self::Ints,
                    Some(Self::Float) => Self::Floats,
                    Some(_) => Self::Json,
                }
            }
        }
    }

    /// The kind that holds the values of both.
    fn joined(self, other: Self) -> Self {
        match (self, other) {
            (a, b) if a == b => a,
            (Self::Null, kind) | (kind, Self::Null) => kind,
            (Self::Int, Self::Float) | (Self::Float, Self::Int) => Self::Float,
            (Self::Empty, kind @ (Self::Ints | Self::Floats))
            | (kind @ (Self::Ints | Self::Floats), Self::Empty) => kind,
            (Self::Ints, Self::Floats) | (Self::Floats, Self::Ints) => Self::Floats,
            _ => Self::Json,
        }
    }

    fn field(self, name: &str) -> Field {
        let list = |item| DataType::List(Arc::new(Field::new_list_field(item, true)));
        let data_type = match self {
            Self::Bool => DataType::Boolean,
            Self::Int => DataType::Int64,
            Self::Float => DataType::Float64,
            Self::Text => DataType::Utf8,
            Self::Ints => list(DataType::Int64),
            Self::Floats => list(DataType::Float64),
            Self::Null | Self::Empty | Self::Json => DataType::LargeUtf8,
        };
        let field = Field::new(name, data_type, true);
        match field.data_type() {
            DataType::LargeUtf8 => {
                let encoding = (mds::arrow::ENCODING_KEY.to_owned(), Encoding::Json.to_string());
                field.with_metadata(HashMap::from([encoding]))
            }
            _ => field,
        }
    }
}

/// A column as far as the lines were read.
struct Column {
    name: String,
    kind: Kind,
    /// The first integer that no float64 is equal to, with its line. Whether the column becomes one
    /// of floats is known at the end.
    inexact: Option<(u64, String)>,
}

impl Column {
    fn add(&mut self, value: &Json, line: u64) {
        self.kind = self.kind.joined(Kind::of(value));
        if self.inexact.is_none() && self.kind != Kind::Json {
            let found = first_inexact(value);
            self.inexact = found.map(|integer| (line, integer.to_owned()));
        }
    }
}

fn first_inexact(value: &Json) -> Option<&str> {
    match value {
        Json::Int(integer) => Some(integer.as_str()).filter(|text| is_inexact_integer(text)),
        Json::List(items) => items.iter().find_map(first_inexact),
        _ => None,
    }
}

/// Reads all lines once.
pub(super) fn infer(path: &Path) -> Result<Inferred, Fault> {
    let mut lines = Lines::new(open(path)?);
    let mut columns: Vec<Column> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut rows = 0;
    while let Some(members) = lines.next()? {
        rows += 1;
        for (name, value) in members {
            let name = lines.name(name)?;
            let place = *places.entry(name).or_insert_with_key(|name| {
                columns.push(Column { name: name.clone(), kind: Kind::Null, inexact: None });
                columns.len() - 1
            });
            columns[place].add(&value, lines.number);
        }
    }
    let fields: Vec<_> = columns.iter().map(|column| column.kind.field(&column.name)).collect();
    let are_floats = |column: &Column| matches!(column.kind, Kind::Float | Kind::Floats);
    let rounded = columns.into_iter().filter(are_floats).filter_map(|column| {
        let (line, integer) = column.inexact?;
        Some(Rounded { column: column.name, place: format!("line {line}"), integer })
    });
    let rounded = rounded.collect();
    let batch = rows_at_once(lines.longest);
    Ok(Inferred { schema: Schema::new(fields), rows, batch, rounded })
}

/// The rows of a file under a part of the columns that were inferred from it.
pub(super) fn batches(
    path: &Path,
    schema: &SchemaRef,
    batch: usize,
) -> Result<impl Iterator<Item = Result<RecordBatch, Fault>> + use<>, Fault> {
    let mut lines = Lines::new(open(path)?);
    let schema = Arc::clone(schema);
    let places: HashMap<String, usize> = {
        let names = schema.fields().iter().map(|field| field.name().clone());
        names.zip(0..).collect()
    };
    Ok(std::iter::from_fn(move || {
        let mut values: Vec<Values> = schema.fields().iter().map(|f| Values::of(f)).collect();
        let mut rows = 0;
        while rows < batch {
            let members = match lines.next() {
                Ok(Some(members)) => members,
                Ok(None) => break,
                Err(fault) => return Some(Err(fault)),
            };
            for (name, value) in members {
                let place = name.as_str().and_then(|name| places.get(name));
                if let Some(values) = place.and_then(|&place| values.get_mut(place)) {
                    values.push(value);
                }
            }
            rows += 1;
            values.iter_mut().for_each(|values| values.fill(rows));
        }
        let arrays = values.into_iter().map(Values::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), arrays, &options);
        (rows > 0).then(|| batch.map_err(Fault::from))
    }))
}

/// The values of one column of a batch.
enum Values {
    Bools(BooleanBuilder),
    Ints(Int64Builder),
    Floats(Float64Builder),
    Texts(StringBuilder),
    IntLists(ListBuilder<Int64Builder>),
    FloatLists(ListBuilder<Float64Builder>),
    Jsons(LargeStringBuilder),
}

impl Values {
    fn of(field: &Field) -> Self {
        match field.data_type() {
            DataType::Boolean => Self::Bools(BooleanBuilder::new()),
            DataType::Int64 => Self::Ints(Int64Builder::new()),
            DataType::Float64 => Self::Floats(Float64Builder::new()),
            DataType::Utf8 => Self::Texts(StringBuilder::new()),
            DataType::List(item) if *item.data_type() == DataType::Int64 => {
                Self::IntLists(ListBuilder::new(Int64Builder::new()))
            }
            DataType::List(_) => Self::FloatLists(ListBuilder::new(Float64Builder::new())),
            _ => Self::Jsons(LargeStringBuilder::new()),
        }
    }

    /// What is not of the kind that was inferred, in a file that somebody writes to, becomes a null,
    /// which is refused.
    fn push(&mut self, value: Json) {
        match (self, value) {
            (Self::Bools(values), Json::Bool(value)) => values.append_value(value),
            (Self::Bools(values), _) => values.append_null(),
            (Self::Ints(values), value) => values.append_option(value.as_i64()),
            (Self::Floats(values), value) => values.append_option(value.as_f64()),
            (Self::Texts(values), value) => values.append_option(value.as_str()),
            (Self::IntLists(values), Json::List(items)) => {
                values.append_value(items.iter().map(Json::as_i64));
            }
            (Self::IntLists(values), _) => values.append_null(),
            (Self::FloatLists(values), Json::List(items)) => {
                values.append_value(items.iter().map(Json::as_f64));
            }
            (Self::FloatLists(values), _) => values.append_null(),
            (Self::Jsons(values), value) => values.append_value(value.dumps()),
        }
    }

    /// A null for a row without this key.
    fn fill(&mut self, rows: usize) {
        use arrow_array::builder::ArrayBuilder;
        macro_rules! fill {
            ($($kind:ident),*) => {
                match self {
                    $(Self::$kind(values) => if values.len() < rows { values.append_null() })*
                }
            };
        }
        fill!(Bools, Ints, Floats, Texts, IntLists, FloatLists, Jsons);
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Bools(mut values) => Arc::new(values.finish()),
            Self::Ints(mut values) => Arc::new(values.finish()),
            Self::Floats(mut values) => Arc::new(values.finish()),
            Self::Texts(mut values) => Arc::new(values.finish()),
            Self::IntLists(mut values) => Arc::new(values.finish()),
            Self::FloatLists(mut values) => Arc::new(values.finish()),
            Self::Jsons(mut values) => Arc::new(values.finish()),
        }
    }
}

struct Lines<R> {
    text: R,
    line: Vec<u8>,
    /// Of the line at hand, from 1.
    number: u64,
    /// Bytes of the longest one.
    longest: u64,
}

impl<R: BufRead> Lines<R> {
    fn new(text: R) -> Self {
        Self { text, line: Vec::new(), number: 0, longest: 0 }
    }

    /// The object of the next line that is not blank; `None` at the end.
    fn next(&mut self) -> Result<Option<Vec<(JsonText, Json)>>, Fault> {
        loop {
            self.line.clear();
            let mut text = Read::by_ref(&mut self.text).take(LONGEST_LINE + 1);
            let bytes = text.read_until(b'\n', &mut self.line)? as u64;
            if bytes == 0 {
                return Ok(None);
            }
            self.number += 1;
            self.longest = self.longest.max(bytes);
            if bytes > LONGEST_LINE {
                return Err(Fault::LongLine(self.number));
            }
            let line = self.line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            let text =
                str::from_utf8(line).map_err(|e| self.fault(format!("is not UTF-8: {e}")))?;
            return match Json::parse(text) {
                Ok(Json::Object(members)) => Ok(Some(members)),
                Ok(_) => Err(self.fault("is not an object".to_owned())),
                Err(error) => Err(self.fault(format!("is not JSON: {error}"))),
            };
        }
    }

    /// The name of a column.
    fn name(&self, key: JsonText) -> Result<String, Fault> {
        key.into_string().map_err(|key| {
            let key = key.to_string_lossy().into_owned();
            self.fault(format!("has the key {key:?} with half of a surrogate pair"))
        })
    }

    fn fault(&self, what: String) -> Fault {
        Fault::Line(format!("line {} {what}", self.number))
    }
}
