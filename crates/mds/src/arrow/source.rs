//! Access to the values of an Arrow array by row, without a detour through their type each time.

use std::borrow::Cow;
use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, Float16Type, Float32Type,
    Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow_array::{
    Array, BinaryArray, BinaryViewArray, BooleanArray, FixedSizeBinaryArray, LargeBinaryArray,
    LargeStringArray, StringArray, StringViewArray,
};
use arrow_buffer::NullBuffer;
use arrow_schema::DataType;

use crate::format::{DType, Decimal, NdArray, Scalar};
use crate::{Error, Result};

/// The values of one column of a batch. Rows are below the length of the array, and not null.
pub(super) enum Source<'b> {
    Text(Texts<'b>),
    Binary(Binaries<'b>),
    Numbers(Numbers<'b>),
    Booleans(&'b BooleanArray),
    Decimals(&'b dyn Array),
    Lists(Lists<'b>),
    /// What only JSON can hold.
    Nested(&'b dyn Array),
    /// Each row names one of the values.
    Dictionary(Numbers<'b>, Box<Self>),
}

impl<'b> Source<'b> {
    pub(super) fn of(array: &'b dyn Array) -> Self {
        if let DataType::Dictionary(..) = array.data_type() {
            let dictionary = array.as_any_dictionary();
            if let Some(keys) = Numbers::of(dictionary.keys()) {
                return Self::Dictionary(keys, Box::new(Self::of(dictionary.values().as_ref())));
            }
        }
        match array.data_type() {
            DataType::Utf8 => Self::Text(Texts::Small(array.as_string())),
            DataType::LargeUtf8 => Self::Text(Texts::Large(array.as_string())),
            DataType::Utf8View => Self::Text(Texts::View(array.as_string_view())),
            DataType::Binary => Self::Binary(Binaries::Small(array.as_binary())),
            DataType::LargeBinary => Self::Binary(Binaries::Large(array.as_binary())),
            DataType::BinaryView => Self::Binary(Binaries::View(array.as_binary_view())),
            DataType::FixedSizeBinary(_) => {
                Self::Binary(Binaries::Fixed(array.as_fixed_size_binary()))
            }
            DataType::Boolean => Self::Booleans(array.as_boolean()),
            DataType::Decimal32(..)
            | DataType::Decimal64(..)
            | DataType::Decimal128(..)
            | DataType::Decimal256(..) => Self::Decimals(array),
            _ => Numbers::of(array)
                .map(Self::Numbers)
                .or_else(|| Lists::of(array).map(Self::Lists))
                .unwrap_or(Self::Nested(array)),
        }
    }
}

/// Texts of any layout.
pub(super) enum Texts<'b> {
    Small(&'b StringArray),
    Large(&'b LargeStringArray),
    View(&'b StringViewArray),
}

impl<'b> Texts<'b> {
    pub(super) fn get(&self, row: usize) -> &'b str {
        match self {
            Self::Small(array) => array.value(row),
            Self::Large(array) => array.value(row),
            Self::View(array) => array.value(row),
        }
    }
}

/// Bytes of any layout.
pub(super) enum Binaries<'b> {
    Small(&'b BinaryArray),
    Large(&'b LargeBinaryArray),
    View(&'b BinaryViewArray),
    Fixed(&'b FixedSizeBinaryArray),
}

impl<'b> Binaries<'b> {
    pub(super) fn get(&self, row: usize) -> &'b [u8] {
        match self {
            Self::Small(array) => array.value(row),
            Self::Large(array) => array.value(row),
            Self::View(array) => array.value(row),
            Self::Fixed(array) => array.value(row),
        }
    }
}

/// Numbers of one type, as Arrow has them: in the byte order of the machine.
#[derive(Clone, Copy)]
pub(super) struct Numbers<'b> {
    pub(super) dtype: DType,
    bytes: &'b [u8],
}

impl<'b> Numbers<'b> {
    /// `None` if the array is not of plain numbers.
    pub(super) fn of(array: &'b dyn Array) -> Option<Self> {
        macro_rules! numbers {
            ($($arrow:ident, $type:ty, $dtype:ident;)*) => {
                match array.data_type() {
                    $(DataType::$arrow => {
                        (DType::$dtype, array.as_primitive::<$type>().values().inner().as_slice())
                    })*
                    _ => return None,
                }
            };
        }
        let (dtype, bytes) = numbers! {
            Int8, Int8Type, I8; Int16, Int16Type, I16; Int32, Int32Type, I32; Int64, Int64Type, I64;
            UInt8, UInt8Type, U8; UInt16, UInt16Type, U16; UInt32, UInt32Type, U32;
            UInt64, UInt64Type, U64; Float16, Float16Type, F16; Float32, Float32Type, F32;
            Float64, Float64Type, F64;
        };
        Some(Self { dtype, bytes })
    }

    pub(super) fn get(&self, row: usize) -> Option<Scalar> {
        Scalar::read_le(self.dtype, &self.little_endian(row..row + 1)?)
    }

    /// The number as the place of something else.
    pub(super) fn position(&self, row: usize) -> Option<usize> {
        usize::try_from(self.get(row)?.to_i64()?).ok()
    }

    fn little_endian(&self, rows: Range<usize>) -> Option<Cow<'b, [u8]>> {
        let size = self.dtype.size();
        let bytes = self.bytes.get(rows.start.checked_mul(size)?..rows.end.checked_mul(size)?)?;
        Some(if cfg!(target_endian = "little") {
            Cow::Borrowed(bytes)
        } else {
            Cow::Owned(bytes.chunks(size).flat_map(|number| number.iter().rev().copied()).collect())
        })
    }
}

/// Lists of numbers.
pub(super) struct Lists<'b> {
    ranges: Ranges<'b>,
    numbers: Numbers<'b>,
    nulls: Option<&'b NullBuffer>,
}

/// Where each list begins and ends.
enum Ranges<'b> {
    Small(&'b [i32]),
    Large(&'b [i64]),
    Fixed(usize),
}

impl<'b> Lists<'b> {
    /// `None` if the array is not of lists of numbers.
    fn of(array: &'b dyn Array) -> Option<Self> {
        let (ranges, values) = match array.data_type() {
            DataType::List(_) => {
                let lists = array.as_list::<i32>();
                (Ranges::Small(lists.value_offsets()), lists.values())
            }
            DataType::LargeList(_) => {
                let lists = array.as_list::<i64>();
                (Ranges::Large(lists.value_offsets()), lists.values())
            }
            DataType::FixedSizeList(_, size) => {
                let lists = array.as_fixed_size_list();
                (Ranges::Fixed(usize::try_from(*size).ok()?), lists.values())
            }
            _ => return None,
        };
        let nulls = values.nulls().filter(|nulls| nulls.null_count() > 0);
        Some(Self { ranges, numbers: Numbers::of(values.as_ref())?, nulls })
    }

    fn range(&self, row: usize) -> Option<Range<usize>> {
        match self.ranges {
            Ranges::Small(offsets) => Some(
                usize::try_from(*offsets.get(row)?).ok()?
                    ..usize::try_from(*offsets.get(row + 1)?).ok()?,
            ),
            Ranges::Large(offsets) => Some(
                usize::try_from(*offsets.get(row)?).ok()?
                    ..usize::try_from(*offsets.get(row + 1)?).ok()?,
            ),
            Ranges::Fixed(size) => Some(row.checked_mul(size)?..(row + 1).checked_mul(size)?),
        }
    }

    /// The list at `row` as an array of `dtype`, by default of its own type. It is given `shape` if
    /// it has that many numbers, else one dimension.
    ///
    /// # Errors
    /// `InvalidArgument` if a number is null or would change with the type.
    pub(super) fn get(
        &self,
        row: usize,
        dtype: Option<DType>,
        shape: Option<&[u64]>,
    ) -> Result<NdArray<'b>> {
        let range = self.range(row).unwrap_or_default();
        let null = |nulls: &&NullBuffer| range.clone().position(|item| nulls.is_null(item));
        if let Some(item) = self.nulls.as_ref().and_then(null) {
            return Err(Error::invalid(
                format!("item {item} of the list is null"),
                "fill the nulls of the list with a number, or drop them",
            ));
        }
        let length = range.len() as u64;
        let product = |shape: &&[u64]| shape.iter().try_fold(1u64, |n, &dim| n.checked_mul(dim));
        let shape = match shape.filter(|shape| product(shape) == Some(length)) {
            Some(shape) => shape.to_vec(),
            None => vec![length],
        };
        let dtype = dtype.unwrap_or(self.numbers.dtype);
        if dtype == self.numbers.dtype {
            let data = self.numbers.little_endian(range).unwrap_or_default();
            return NdArray::new(dtype, shape, data);
        }
        let mut data = Vec::with_capacity(range.len().saturating_mul(dtype.size()));
        for item in range.clone() {
            let Some(number) = self.numbers.get(item) else { continue };
            let cast = exact(number, dtype).map_err(|error| {
                error.within(format_args!("item {} of the list", item - range.start))
            })?;
            cast.write_le(&mut data);
        }
        NdArray::new(dtype, shape, data)
    }
}

/// The number as another type.
///
/// # Errors
/// `InvalidArgument` unless it is the same number there.
pub(super) fn exact(number: Scalar, dtype: DType) -> Result<Scalar> {
    number.cast(dtype).filter(|&cast| same(number, cast)).ok_or_else(|| {
        let from = number.dtype();
        let text = match number {
            Scalar::U64(number) => number.to_string(),
            number => {
                number.to_i64().map_or_else(|| number.to_f64().to_string(), |n| n.to_string())
            }
        };
        Error::invalid(
            format!("the {from} {text} is no {dtype}"),
            format!("declare the column with {from}, or round its numbers before"),
        )
    })
}

/// Whether casting lost nothing.
fn same(number: Scalar, cast: Scalar) -> bool {
    if number.dtype().is_float() {
        let (number, cast) = (number.to_f64(), cast.to_f64());
        return number == cast || number.is_nan() && cast.is_nan();
    }
    if !cast.dtype().is_float() {
        return true; // between integers it is exact or refused
    }
    let integer = match number {
        Scalar::U64(number) => i128::from(number),
        number => i128::from(number.to_i64().unwrap_or_default()),
    };
    // No integer of 64 bits is beyond an i128; an infinity becomes its largest number.
    cast.to_f64() as i128 == integer
}

/// The decimal number at `row` as Python prints it.
pub(super) fn decimal(array: &dyn Array, row: usize) -> Result<Decimal<'static>> {
    let (digits, scale) = match array.data_type() {
        DataType::Decimal32(_, scale) => {
            (array.as_primitive::<Decimal32Type>().value(row).to_string(), *scale)
        }
        DataType::Decimal64(_, scale) => {
            (array.as_primitive::<Decimal64Type>().value(row).to_string(), *scale)
        }
        DataType::Decimal128(_, scale) => {
            (array.as_primitive::<Decimal128Type>().value(row).to_string(), *scale)
        }
        DataType::Decimal256(_, scale) => {
            (array.as_primitive::<Decimal256Type>().value(row).to_string(), *scale)
        }
        other => {
            return Err(Error::invalid(format!("{other} is no decimal type"), "cast the column"));
        }
    };
    let text = format!("{digits}e{}", -i16::from(scale));
    let number = Decimal::parse(&text).map_err(|error| {
        Error::invalid(format!("{text:?} is not a decimal number: {error}"), "cast the column")
    })?;
    Ok(number.into_owned())
}
