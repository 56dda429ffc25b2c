//! The stored form of arrays: an optional header (type code, shape) and the numbers.
//!
//! ```text
//! [1 byte type code]              only if the encoding does not fix the type
//! [1 byte (ndim << 2) | w]        only if the encoding does not fix the shape
//! [ndim dims of 2^w bytes each]   idem; w is the smallest that holds the largest dimension
//! [numbers, C order]
//! ```
//! All little-endian. Arrays have 1 to 63 dimensions and at least one element.

use std::borrow::Cow;

use super::damage::Damage;
use super::dtype::DType;
use super::encoding::MAX_NDIM;
use super::value::NdArray;
use crate::{Error, Result};

/// Appends the stored form of `array` under an encoding that fixes `dtype` and `shape`, if given.
pub(super) fn encode(
    array: &NdArray<'_>,
    dtype: Option<DType>,
    shape: Option<&[u64]>,
    out: &mut Vec<u8>,
) -> Result<()> {
    array.check()?;
    match dtype {
        None => out.push(array.dtype.code()),
        Some(dtype) if dtype == array.dtype => {}
        Some(dtype) => {
            return Err(Error::invalid(
                format!("the encoding takes {dtype} arrays, but the value is {}", array.dtype),
                "convert the array, or declare the column with its type",
            ));
        }
    }
    match shape {
        None => encode_shape(&array.shape, out)?,
        Some(shape) if shape == array.shape => {}
        Some(shape) => {
            return Err(Error::invalid(
                format!(
                    "the encoding takes arrays of shape {shape:?}, but the value has {:?}",
                    array.shape
                ),
                "reshape the array, or declare the column without a shape",
            ));
        }
    }
    out.extend_from_slice(&array.data);
    Ok(())
}

fn encode_shape(shape: &[u64], out: &mut Vec<u8>) -> Result<()> {
    if shape.is_empty() || shape.len() > MAX_NDIM || shape.contains(&0) {
        return Err(Error::invalid(
            format!("the array has the shape {shape:?}"),
            "give arrays of 1 to 63 dimensions and at least one element",
        ));
    }
    let largest = shape.iter().copied().max().unwrap_or(0);
    let width_log2 = match largest {
        0..0x100 => 0u8,
        0x100..0x1_0000 => 1,
        0x1_0000..0x1_0000_0000 => 2,
        _ => 3,
    };
    out.push((shape.len() as u8) << 2 | width_log2);
    for dim in shape {
        out.extend_from_slice(&dim.to_le_bytes()[..1 << width_log2]);
    }
    Ok(())
}

/// Reads the stored form under an encoding that fixes `dtype` and `shape`, if given. The numbers
/// are borrowed.
pub(super) fn decode<'a>(
    bytes: &'a [u8],
    dtype: Option<DType>,
    shape: Option<&[u64]>,
) -> Result<NdArray<'a>> {
    let mut rest = bytes;
    let dtype = match dtype {
        Some(dtype) => dtype,
        None => {
            let code = take(&mut rest, 1)?[0];
            DType::from_code(code).ok_or(Damage::ArrayType { code })?
        }
    };
    let shape = match shape {
        Some(shape) => shape.to_vec(),
        None => decode_shape(&mut rest)?,
    };
    let expected =
        NdArray::elements(&shape).and_then(|elements| elements.checked_mul(dtype.size() as u64));
    if expected != Some(rest.len() as u64) {
        let (dtype, bytes) = (dtype.as_str(), rest.len());
        return Err(Damage::ArrayData { dtype, shape, bytes }.into());
    }
    Ok(NdArray { dtype, shape, data: Cow::Borrowed(rest) })
}

fn decode_shape(rest: &mut &[u8]) -> Result<Vec<u64>> {
    let head = take(rest, 1)?[0];
    let (ndim, width) = (usize::from(head >> 2), 1 << (head & 3));
    let dims = take(rest, ndim * width)?;
    let shape: Vec<u64> = dims
        .chunks_exact(width)
        .map(|dim| {
            let mut wide = [0; 8];
            wide[..width].copy_from_slice(dim);
            u64::from_le_bytes(wide)
        })
        .collect();
    if shape.is_empty() || shape.contains(&0) {
        return Err(Damage::ArrayShape { shape }.into());
    }
    Ok(shape)
}

/// Splits off the first `n` bytes.
fn take<'a>(rest: &mut &'a [u8], n: usize) -> Result<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(n).ok_or(Damage::ArrayCutShort)?;
    *rest = tail;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REMEDY: &str = "fetch the shard again, or write it again from its source";

    fn encoded(array: &NdArray<'_>) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        encode(array, None, None, &mut out)?;
        Ok(out)
    }

    #[test]
    fn header_holds_type_and_narrowest_dimensions() {
        let small = NdArray::new(DType::U8, vec![2, 1], vec![7, 8]).unwrap();
        assert_eq!(encoded(&small).unwrap(), [8, 2 << 2, 2, 1, 7, 8]);
        for (dim, head) in [(255usize, vec![255]), (256, vec![0, 1]), (65_536, vec![0, 0, 1, 0])] {
            let array = NdArray::new(DType::I8, vec![dim as u64], vec![0; dim]).unwrap();
            let bytes = encoded(&array).unwrap();
            let width_log2 = head.len().ilog2() as u8;
            assert_eq!(bytes[..2], [9, 1 << 2 | width_log2]);
            assert_eq!(bytes[2..2 + head.len()], head);
            assert_eq!(decode(&bytes, None, None).unwrap(), array);
        }
    }

    #[test]
    fn what_the_encoding_fixes_is_not_stored() {
        let array = NdArray::from_i32(&[1, 2]);
        let mut out = Vec::new();
        encode(&array, Some(DType::I32), Some(&[2]), &mut out).unwrap();
        assert_eq!(out, *array.data);
        assert_eq!(decode(&out, Some(DType::I32), Some(&[2])).unwrap(), array);
        out.clear();
        encode(&array, Some(DType::I32), None, &mut out).unwrap();
        assert_eq!(out[..2], [1 << 2, 2]);
        assert_eq!(decode(&out, Some(DType::I32), None).unwrap(), array);
    }

    #[test]
    fn mismatches_and_empty_arrays_are_refused() {
        let array = NdArray::from_i32(&[1, 2]);
        let message = |dtype, shape: Option<&[u64]>| {
            encode(&array, dtype, shape, &mut Vec::new()).unwrap_err().to_string()
        };
        assert_eq!(
            message(Some(DType::U16), None),
            "the encoding takes uint16 arrays, but the value is int32; convert the array, or \
             declare the column with its type"
        );
        assert_eq!(
            message(Some(DType::I32), Some(&[3])),
            "the encoding takes arrays of shape [3], but the value has [2]; reshape the array, or \
             declare the column without a shape"
        );
        for shape in [vec![], vec![0], vec![1; 64]] {
            let size = shape.iter().product::<u64>() as usize;
            let array = NdArray::new(DType::U8, shape.clone(), vec![0; size]).unwrap();
            assert_eq!(
                encoded(&array).unwrap_err().to_string(),
                format!(
                    "the array has the shape {shape:?}; give arrays of 1 to 63 dimensions and at \
                     least one element"
                )
            );
        }
    }

    #[test]
    fn damaged_headers_are_corrupt() {
        let message = |bytes: &[u8]| decode(bytes, None, None).unwrap_err().to_string();
        assert_eq!(message(&[]), format!("the array header is cut short; {REMEDY}"));
        assert_eq!(message(&[8]), format!("the array header is cut short; {REMEDY}"));
        assert_eq!(message(&[8, 1 << 2]), format!("the array header is cut short; {REMEDY}"));
        assert_eq!(message(&[7]), format!("the array has the unknown type code 7; {REMEDY}"));
        assert_eq!(message(&[8, 0]), format!("the array has the shape []; {REMEDY}"));
        assert_eq!(message(&[8, 1 << 2, 0]), format!("the array has the shape [0]; {REMEDY}"));
        assert_eq!(
            message(&[33, 1 << 2, 2, 0, 0, 0]),
            format!("a int32 array of shape [2] has 3 bytes of data; {REMEDY}")
        );
        let overflow = [&[64, 2 << 2 | 3][..], &[0xff; 16]].concat();
        assert!(message(&overflow).starts_with("a uint64 array of shape [18446744073709551615,"));
    }
}
