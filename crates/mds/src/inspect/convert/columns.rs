//! Which columns are written, under which encodings, and with which values.

use std::collections::{HashMap, HashSet};

use mds::arrow::BatchRows;
use mds::format::python::{Integer, parse_float};
use mds::format::{Column, DType, Encoding, Format, Scalar, Schema, Value};
use mds::{Error, ErrorKind, Result, SampleRef, Shard};

use super::show;

/// The columns of the dataset to write.
pub(super) struct Columns {
    /// Under the encodings to write.
    pub(super) target: Schema,
    /// As they are read, in the order of `target`.
    source: Schema,
    format: Format,
    /// Whether columns are left out.
    subset: bool,
}

impl Columns {
    /// Chooses encodings for `format`, for the `wanted` columns of `source`, or all.
    pub(super) fn new(source: &Schema, wanted: &[String], format: &Format) -> Result<Self> {
        let names: Vec<&str> = source.columns().iter().map(|column| column.name.as_str()).collect();
        let chosen = match wanted {
            // With their order, which a dataset from elsewhere may have its own.
            [] => source.clone(),
            wanted => {
                let positions = positions(&names, wanted)?;
                let columns = positions.iter().map(|&position| &source.columns()[position]);
                Schema::new(columns.map(|c| (c.name.clone(), c.encoding.clone())))?
            }
        };
        let encoding = |encoding: &Encoding| match format {
            Format::Mds => Some(to_mds(encoding)),
            _ => to_text(encoding),
        };
        let mut target = Vec::new();
        for column in chosen.columns() {
            let encoding = encoding(&column.encoding);
            let encoding =
                encoding.ok_or_else(|| not_text(&column.name, &column.encoding, format))?;
            target.push((column.name.clone(), encoding));
        }
        let same = chosen.columns().iter().zip(&target).all(|(a, (_, b))| a.encoding == *b);
        let target = if same { chosen.clone() } else { Schema::new(target)? };
        // In the order of the target.
        let source = if same {
            chosen
        } else {
            Schema::new(chosen.columns().iter().map(|c| (c.name.clone(), c.encoding.clone())))?
        };
        Ok(Self { target, source, format: format.clone(), subset: !wanted.is_empty() })
    }

    /// The columns as they are read.
    pub(super) fn source(&self) -> &Schema {
        &self.source
    }

    /// Refuses a shard with other columns than the first, as a merged dataset may have.
    pub(super) fn check(&self, shard: &Shard) -> Result<()> {
        let found: HashSet<&Column> = shard.schema().columns().iter().collect();
        if self.source.columns().iter().all(|column| found.contains(column))
            && (self.subset || found.len() == self.source.columns().len())
        {
            return Ok(());
        }
        let what = "the shard has other columns than the first one";
        let remedy = "convert the datasets that were merged one by one";
        Err(Error::new(ErrorKind::InvalidArgument, what, remedy).in_shard(shard.name()))
    }

    /// Whether samples of these columns and this format can be copied as they are.
    pub(super) fn copies(&self, schema: &Schema, format: &Format) -> bool {
        *schema == self.target && *format == self.format
    }

    /// Replaces `values` by what to write of a sample.
    pub(super) fn of_sample<'a>(
        &self,
        sample: SampleRef<'a>,
        format: &Format,
        values: &mut Vec<Value<'a>>,
    ) -> Result<()> {
        values.clear();
        // All columns of a line are decoded together.
        let mut line = if *format == Format::Mds { Vec::new() } else { sample.decode()? };
        for (source, target) in self.source.columns().iter().zip(self.target.columns()) {
            let name = source.name.as_str();
            let value = match (format, &self.format, &source.encoding) {
                // The encoding is the same, and stored bytes are taken as they are.
                (Format::Mds, Format::Mds, _) => Value::Bytes(sample.bytes(name)?.into()),
                // The text as it stands, which decoding and writing it again might change.
                (Format::Mds, _, Encoding::Json | Encoding::StrDecimal) => sample.str(name)?.into(),
                (Format::Mds, ..) => sample.value(name)?,
                _ => {
                    let decoded = sample.schema().position(name).and_then(|at| line.get_mut(at));
                    match decoded {
                        Some(value) => std::mem::replace(value, Value::Int(0)),
                        None => sample.value(name)?,
                    }
                }
            };
            values.push(to_value(&target.encoding, value));
        }
        Ok(())
    }

    /// The rows of a batch, to be read under the encodings of the source.
    pub(super) fn rows<'b>(&self, batch: &'b arrow_array::RecordBatch) -> Result<BatchRows<'b>> {
        BatchRows::new(&self.source, batch)
    }

    /// What to write of values that were read under the encodings of the source.
    pub(super) fn convert(&self, values: &mut [Value<'_>]) {
        for (column, value) in self.target.columns().iter().zip(values) {
            let taken = std::mem::replace(value, Value::Int(0));
            *value = to_value(&column.encoding, taken);
        }
    }
}

/// The places of the wanted names.
pub(super) fn positions(names: &[&str], wanted: &[String]) -> Result<Vec<usize>> {
    let places: HashMap<&str, usize> = names.iter().copied().zip(0..).collect();
    let position = |name: &String| {
        places.get(name.as_str()).copied().ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("there is no column {name:?}"),
                format!("the columns are {}", show::printable(&names.join(", "))),
            )
        })
    };
    wanted.iter().map(position).collect()
}

/// MDS says how many bits a float has.
fn to_mds(encoding: &Encoding) -> Encoding {
    match encoding {
        Encoding::Float => Encoding::Scalar(DType::F64),
        other => other.clone(),
    }
}

/// The encoding of a text format that holds the same values, if there is one.
fn to_text(encoding: &Encoding) -> Option<Encoding> {
    match encoding {
        Encoding::Str | Encoding::Json | Encoding::StrDecimal => Some(Encoding::Str),
        Encoding::Int | Encoding::StrInt => Some(Encoding::Int),
        Encoding::Float | Encoding::StrFloat => Some(Encoding::Float),
        Encoding::Scalar(dtype) if dtype.is_float() => Some(Encoding::Float),
        Encoding::Scalar(_) => Some(Encoding::Int),
        _ => None,
    }
}

fn not_text(column: &str, encoding: &Encoding, format: &Format) -> Error {
    let what = format!("the format {format} cannot hold {encoding}");
    let remedy = "leave the column out: name the others with --columns; or write mds or parquet";
    Error::new(ErrorKind::InvalidArgument, what, remedy).in_column(column)
}

/// A value in the form that the encoding takes. What has none is left for the writer to refuse.
fn to_value<'a>(encoding: &Encoding, value: Value<'a>) -> Value<'a> {
    match (encoding, value) {
        (Encoding::Str, Value::Decimal(number)) => number.as_str().to_owned().into(),
        (Encoding::Str, Value::Json(json)) => json.dumps().into(),
        (Encoding::Int, Value::Str(text)) => match Integer::parse(&text) {
            Ok(number) => Value::Integer(number.into_owned()),
            Err(_) => Value::Str(text),
        },
        (Encoding::Int, Value::Integer(number)) => {
            number.to_i64().map_or(Value::Integer(number), Value::Int)
        }
        (Encoding::Float, Value::Str(text)) => match parse_float(&text) {
            Some(number) => Value::Scalar(Scalar::F64(number)),
            None => Value::Str(text),
        },
        (Encoding::Float, Value::Scalar(number)) => Value::Scalar(Scalar::F64(number.to_f64())),
        (_, value) => value,
    }
}
