//! Shards as Arrow record batches and back, for the programs that speak Arrow.
//!
//! [`Shard::to_record_batch`](crate::Shard::to_record_batch) decodes a shard column by column,
//! [`Writer::write_batch`](crate::Writer::write_batch) writes the rows of a batch as samples.
//! [`Schema::to_arrow`](crate::format::Schema::to_arrow) and
//! [`Schema::from_arrow`](crate::format::Schema::from_arrow) convert the columns alone, and
//! [`BatchRows`] gives the rows of a batch as the [`Value`](crate::format::Value)s to write.
//!
//! # From MDS to Arrow
//! No field holds nulls. Each carries the metadata [`mds.encoding`](ENCODING_KEY), the name of its
//! encoding, from which the way back restores it.
//!
//! | encoding | Arrow type | what it holds |
//! | --- | --- | --- |
//! | `bytes` | `LargeBinary` | the bytes |
//! | `str` | `LargeUtf8` | the text |
//! | `int` | `Int64` | the number; in text formats one beyond 64 bits is an error |
//! | `uint8` … `float64` | the type of that name | the number |
//! | `float` (text formats) | `Float64` | the number |
//! | `str_int`, `str_decimal` | `LargeUtf8` | the stored text |
//! | `str_float` | `Float64` | the number that the text stands for |
//! | `json` | `LargeUtf8`, extension `arrow.json` | the stored text; `NaN` in it is not JSON proper |
//! | `ndarray:<type>:<shape>` | `FixedSizeList`, extension `arrow.fixed_shape_tensor` if of several dimensions | the numbers in C order |
//! | `ndarray:<type>` | `LargeList` | the numbers; an array of several dimensions is an error |
//! | `ndarray` | `LargeBinary` | the stored form: type, shape, numbers |
//! | `pil`, `jpeg`, `png`, `jpeg_array`, `list[…]` | `LargeBinary` | the stored form |
//! | `pkl` | `LargeBinary` | the stored form, if the index was read with `pickle_bytes` |
//!
//! A shape of more than 2147483647 numbers, which no `FixedSizeList` can have, is `LargeBinary` in
//! stored form. What is written back is the same bytes, provided that the dataset holds the texts
//! and array headers that this crate and the reference write: a `str_float` of `1.50` comes back
//! as `1.5`.
//!
//! # From Arrow to MDS
//! The encoding is the one that the metadata names, if it takes values of the type. Otherwise it
//! follows from the type:
//!
//! | Arrow type | encoding |
//! | --- | --- |
//! | `Utf8`, `LargeUtf8`, `Utf8View` | `str`; `json` with the extension `arrow.json` |
//! | `Binary`, `LargeBinary`, `BinaryView`, `FixedSizeBinary` | `bytes` |
//! | `Int64` | `int` |
//! | other integers, floats | the number type of that name |
//! | `Boolean` | `uint8`, 0 or 1 |
//! | `List`, `LargeList` of numbers | `ndarray:<type>` |
//! | `FixedSizeList` of numbers | `ndarray:<type>:<shape>`, the shape from the extension if there is one |
//! | `Decimal32` … `Decimal256` | `str_decimal` |
//! | `Struct`, `Map`, other lists | `json` |
//! | `Dictionary` | as its values |
//! | dates, times, durations, `Null` and all others | refused |
//!
//! A declared column takes whatever can become its values without loss: a number of another type
//! if it is the same number there, text as UTF-8 bytes, integers in `str_int`. Nulls are refused,
//! except inside of `json`.

mod json;
mod read;
mod rows;
mod schema;
mod source;
#[cfg(test)]
mod tests;
mod write;

pub use rows::BatchRows;
pub use schema::ENCODING_KEY;
