//! The columns of a dataset as Arrow fields and back.

use std::collections::HashMap;

use arrow_schema::extension::{EXTENSION_TYPE_METADATA_KEY, EXTENSION_TYPE_NAME_KEY};
use arrow_schema::{DataType, Field, Schema as ArrowSchema};

use super::json;
use crate::format::{Column, DType, Encoding, Schema};
use crate::{Error, Result};

/// The key of the metadata of an Arrow field that holds the name of its encoding.
pub const ENCODING_KEY: &str = "mds.encoding";

const JSON_EXTENSION: &str = "arrow.json";
const TENSOR_EXTENSION: &str = "arrow.fixed_shape_tensor";

impl Schema {
    /// The columns as Arrow fields, in their order; see the [module](crate::arrow) for the types.
    pub fn to_arrow(&self) -> ArrowSchema {
        ArrowSchema::new(self.columns().iter().map(to_field).collect::<Vec<_>>())
    }

    /// The columns for the rows of a batch; see the [module](crate::arrow) for the encodings. They
    /// are sorted by name, as in every new dataset.
    ///
    /// # Errors
    /// `Unsupported`, naming the column, if no encoding holds its type or the metadata names an
    /// unknown one. `InvalidArgument` if there is no column or a name occurs twice.
    pub fn from_arrow(schema: &ArrowSchema) -> Result<Self> {
        let columns = schema.fields().iter().map(|field| {
            let encoding = encoding_of(field).map_err(|error| error.in_column(field.name()))?;
            Ok((field.name().as_str(), encoding))
        });
        Self::new(columns.collect::<Result<Vec<_>>>()?)
    }
}

/// How the values of an encoding lie in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// The stored bytes.
    Binary,
    /// The stored text.
    Text,
    /// The stored number.
    Numbers(DType),
    /// The float that the stored text stands for.
    ParsedFloat,
    /// Numbers, as many as each value has.
    Lists(DType),
    /// Numbers, as many as the encoding says.
    FixedLists(DType, i32),
}

impl Layout {
    pub(super) fn of(encoding: &Encoding) -> Self {
        match encoding {
            Encoding::Str | Encoding::StrInt | Encoding::StrDecimal | Encoding::Json => Self::Text,
            Encoding::Int => Self::Numbers(DType::I64),
            Encoding::Float => Self::Numbers(DType::F64),
            Encoding::Scalar(dtype) => Self::Numbers(*dtype),
            Encoding::StrFloat => Self::ParsedFloat,
            Encoding::NdArray { dtype: Some(dtype), shape: None } => Self::Lists(*dtype),
            Encoding::NdArray { dtype: Some(dtype), shape: Some(shape) } => {
                match encoding.size().and_then(|_| list_size(shape)) {
                    Some(size) => Self::FixedLists(*dtype, size),
                    None => Self::Binary,
                }
            }
            Encoding::Bytes
            | Encoding::NdArray { dtype: None, .. }
            | Encoding::NdArrayColon
            | Encoding::Image(_)
            | Encoding::JpegArray
            | Encoding::Jpegarray
            | Encoding::ImageList(_)
            | Encoding::Pickle => Self::Binary,
        }
    }

    /// The Arrow type.
    pub(super) fn data_type(self) -> DataType {
        match self {
            Self::Binary => DataType::LargeBinary,
            Self::Text => DataType::LargeUtf8,
            Self::Numbers(dtype) => to_arrow_type(dtype),
            Self::ParsedFloat => DataType::Float64,
            Self::Lists(dtype) => DataType::LargeList(item_field(dtype).into()),
            Self::FixedLists(dtype, size) => {
                DataType::FixedSizeList(item_field(dtype).into(), size)
            }
        }
    }
}

/// The field of the numbers in a list.
pub(super) fn item_field(dtype: DType) -> Field {
    Field::new("item", to_arrow_type(dtype), false)
}

/// The product of the dimensions, if a list of that many numbers can be.
fn list_size(shape: &[u64]) -> Option<i32> {
    let size = shape.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim))?;
    i32::try_from(size).ok().filter(|&size| size > 0)
}

fn to_field(column: &Column) -> Field {
    let mut metadata = HashMap::from([(ENCODING_KEY.to_owned(), column.encoding.to_string())]);
    let mut extension = |name: &str, parameters: String| {
        metadata.insert(EXTENSION_TYPE_NAME_KEY.to_owned(), name.to_owned());
        metadata.insert(EXTENSION_TYPE_METADATA_KEY.to_owned(), parameters);
    };
    let layout = Layout::of(&column.encoding);
    match (&column.encoding, layout) {
        (Encoding::Json, _) => extension(JSON_EXTENSION, String::new()),
        (Encoding::NdArray { shape: Some(shape), .. }, Layout::FixedLists(..))
            if shape.len() > 1 =>
        {
            extension(TENSOR_EXTENSION, serde_json::json!({ "shape": shape }).to_string());
        }
        _ => {}
    }
    Field::new(&column.name, layout.data_type(), false).with_metadata(metadata)
}

fn to_arrow_type(dtype: DType) -> DataType {
    match dtype {
        DType::U8 => DataType::UInt8,
        DType::I8 => DataType::Int8,
        DType::U16 => DataType::UInt16,
        DType::I16 => DataType::Int16,
        DType::F16 => DataType::Float16,
        DType::U32 => DataType::UInt32,
        DType::I32 => DataType::Int32,
        DType::F32 => DataType::Float32,
        DType::U64 => DataType::UInt64,
        DType::I64 => DataType::Int64,
        DType::F64 => DataType::Float64,
    }
}

/// What an Arrow type holds, as far as encodings care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Binary,
    Number(DType),
    Boolean,
    Decimal,
    /// A list of numbers, with its length if the type fixes it.
    Numbers(DType, Option<i32>),
    /// What only JSON can hold.
    Nested,
    Other,
}

impl Kind {
    pub(super) fn of(data_type: &DataType) -> Self {
        match data_type {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::Text,
            DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
            | DataType::FixedSizeBinary(_) => Self::Binary,
            DataType::Boolean => Self::Boolean,
            DataType::Decimal32(..)
            | DataType::Decimal64(..)
            | DataType::Decimal128(..)
            | DataType::Decimal256(..) => Self::Decimal,
            DataType::List(item) | DataType::LargeList(item) => match number(item.data_type()) {
                Some(dtype) => Self::Numbers(dtype, None),
                None => Self::Nested,
            },
            DataType::FixedSizeList(item, size) => match number(item.data_type()) {
                Some(dtype) => Self::Numbers(dtype, Some(*size)),
                None => Self::Nested,
            },
            DataType::Struct(_) | DataType::Map(..) => Self::Nested,
            other => number(other).map_or(Self::Other, Self::Number),
        }
    }
}

/// The type of plain numbers.
fn number(data_type: &DataType) -> Option<DType> {
    DType::ALL.into_iter().find(|dtype| to_arrow_type(*dtype) == *data_type)
}

/// The type of the values, which for a dictionary is not that of its keys.
pub(super) fn value_type(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Dictionary(_, values) => values,
        other => other,
    }
}

/// Whether the values of an Arrow type can become values of an encoding.
pub(super) fn takes(encoding: &Encoding, data_type: &DataType) -> bool {
    let kind = Kind::of(value_type(data_type));
    // A float has a fraction to lose.
    let holds = |to: DType, from: DType| to.is_float() || !from.is_float();
    match (encoding, kind) {
        (Encoding::Json, Kind::Text | Kind::Binary) => true,
        (Encoding::Json, _) => json::holds(value_type(data_type)),
        (_, Kind::Other | Kind::Nested) => false,
        (Encoding::Str, kind) => matches!(kind, Kind::Text | Kind::Binary),
        (
            Encoding::StrInt | Encoding::StrFloat | Encoding::StrDecimal,
            Kind::Text | Kind::Binary,
        ) => true,
        (Encoding::StrDecimal, Kind::Decimal) => true,
        (Encoding::StrInt | Encoding::StrDecimal, Kind::Number(from)) => !from.is_float(),
        (Encoding::StrFloat | Encoding::Float, Kind::Number(from)) => from.is_float(),
        (Encoding::Int, Kind::Number(from)) => !from.is_float(),
        (Encoding::Scalar(to), Kind::Number(from)) => holds(*to, from),
        (Encoding::Int | Encoding::Scalar(_), Kind::Boolean) => true,
        (Encoding::NdArray { dtype: Some(to), shape }, Kind::Numbers(from, size)) => {
            let sizes = size.zip(shape.as_deref().and_then(list_size));
            holds(*to, from) && sizes.is_none_or(|(size, declared)| size == declared)
        }
        (Encoding::NdArray { dtype: None, .. } | Encoding::NdArrayColon, Kind::Numbers(..)) => true,
        (encoding, Kind::Binary) => Layout::of(encoding) == Layout::Binary,
        _ => false,
    }
}

fn encoding_of(field: &Field) -> Result<Encoding> {
    let Some(name) = field.metadata().get(ENCODING_KEY) else { return by_type(field) };
    if name == "pkl" {
        return Err(Error::unsupported(
            "the field is marked as a Python pickle, and loading one can run any code",
            "declare the column as bytes, or, if its readers may trust it, as Encoding::Pickle \
             in a schema of your own",
        ));
    }
    let encoding: Encoding = name.parse()?;
    if takes(&encoding, field.data_type()) { Ok(encoding) } else { by_type(field) }
}

fn by_type(field: &Field) -> Result<Encoding> {
    let data_type = value_type(field.data_type());
    let refuse = |remedy: &str| {
        Err(Error::unsupported(format!("no encoding holds the Arrow type {data_type}"), remedy))
    };
    Ok(match Kind::of(data_type) {
        Kind::Text if extension(field) == Some(JSON_EXTENSION) => Encoding::Json,
        Kind::Text => Encoding::Str,
        Kind::Binary => Encoding::Bytes,
        Kind::Number(DType::I64) => Encoding::Int,
        Kind::Number(dtype) => Encoding::Scalar(dtype),
        Kind::Boolean => Encoding::Scalar(DType::U8),
        Kind::Decimal => Encoding::StrDecimal,
        Kind::Numbers(dtype, None) => Encoding::NdArray { dtype: Some(dtype), shape: None },
        Kind::Numbers(dtype, Some(size)) => match tensor_shape(field, size) {
            Some(shape) => {
                // By its name, which is what an index can say.
                Encoding::NdArray { dtype: Some(dtype), shape: Some(shape) }.to_string().parse()?
            }
            None => return refuse("leave the column out: its lists are empty"),
        },
        Kind::Nested if json::holds(data_type) => Encoding::Json,
        Kind::Nested => {
            return refuse(
                "cast what it holds to numbers, texts and booleans, which json can hold, nested \
                 at most 64 deep and under distinct names",
            );
        }
        Kind::Other => match data_type {
            DataType::Timestamp(..)
            | DataType::Date32
            | DataType::Date64
            | DataType::Time32(_)
            | DataType::Time64(_)
            | DataType::Duration(_)
            | DataType::Interval(_) => {
                return refuse("cast the column to int64, or to text, and note the unit");
            }
            DataType::Null => return refuse("leave the column out, or give it a type and values"),
            _ => return refuse("cast the column to numbers, text, binary, a list or a struct"),
        },
    })
}

fn extension(field: &Field) -> Option<&str> {
    field.metadata().get(EXTENSION_TYPE_NAME_KEY).map(String::as_str)
}

/// The shape of a list of fixed length: that of the tensor extension if it fits, else the length.
/// `None` if the list is empty.
fn tensor_shape(field: &Field, size: i32) -> Option<Vec<u64>> {
    let length = u64::try_from(size).ok().filter(|&size| size > 0)?;
    let parameters = || -> Option<Vec<u64>> {
        let text = field.metadata().get(EXTENSION_TYPE_METADATA_KEY)?;
        let parameters: serde_json::Value = serde_json::from_str(text).ok()?;
        // A permutation says that the dimensions are meant in another order.
        if parameters.get("permutation").is_some() {
            return None;
        }
        parameters.get("shape")?.as_array()?.iter().map(serde_json::Value::as_u64).collect()
    };
    let tensor = (extension(field) == Some(TENSOR_EXTENSION)).then(parameters).flatten();
    let shape = tensor.filter(|shape| !shape.is_empty() && list_size(shape) == Some(size));
    Some(shape.unwrap_or_else(|| vec![length]))
}
