//! The older layout of `.idx`, `TNTIDX`, which GPT-NeoX calls `lazy` and `cached`: it reads the tokens of one
//! document at a time, or all at once. `.bin` is that of the newer one; see [`super::format`] for the names.
//!
//! | byte | type | meaning |
//! | --- | --- | --- |
//! | 0 | 8 bytes | `TNTIDX` and two zero bytes |
//! | 8 | u64 | version, always 1 |
//! | 16 | u64 | [`Dtype`](super::format::Dtype) of the tokens |
//! | 24 | u64 | bytes per token |
//! | 32 | u64 | N |
//! | 40 | u64 | the dimensions of all sequences: N, since each is a list |
//! | 48 | u64 | D |
//! | 56 | i64 × (N + 1) | the dimensions of all sequences before each, and of all |
//! | 64 + 8N | i64 × (N + 1) | the tokens of all sequences before each, and of all |
//! | 72 + 16N | i64 × N | the tokens of each sequence |
//! | 72 + 24N | i64 × D | the sequence at which each document begins; the last is N |

use std::io::{self, Write};

use super::format::{self, Element, Malformed};

const MAGIC: [u8; 8] = *b"TNTIDX\0\0";
const VERSION: u64 = 1;
/// After the magic.
const HEADER_NUMBERS: usize = 6;

/// Whether an `.idx` file is of this layout.
pub(super) fn is_legacy(file: &[u8]) -> bool {
    file.starts_with(&MAGIC)
}

/// Writes an `.idx` file, of the same as [`format::write_index`].
///
/// # Errors
/// As `out` fails.
pub(super) fn write_index(
    element: impl Into<Element>,
    sizes: &[u32],
    boundaries: &[u64],
    out: &mut impl Write,
) -> io::Result<()> {
    let (sequences, documents) = (sizes.len() as u64, boundaries.len() as u64);
    let element = element.into();
    let (code, size) = (element.code().into(), element.size() as u64);
    let header: [_; HEADER_NUMBERS] = [VERSION, code, size, sequences, sequences, documents];
    let sizes = sizes.iter().map(|&size| u64::from(size));
    let ends = sizes.clone().scan(0, |end, size| {
        *end += size;
        Some(*end)
    });
    let arrays = (0..=sequences).chain([0]).chain(ends).chain(sizes);
    out.write_all(&MAGIC)?;
    header
        .into_iter()
        .chain(arrays)
        .chain(boundaries.iter().copied())
        .try_for_each(|number| out.write_all(&number.to_le_bytes()))
}

/// The same index in the layout of [`super::format`]. All of it is checked, against itself and the size of `.bin`.
///
/// # Errors
/// The first malformation.
pub(super) fn in_newer_layout(file: &[u8], bin_bytes: u64) -> Result<Vec<u8>, Malformed> {
    let (numbers, _) = file[MAGIC.len()..].as_chunks();
    let at = |position: usize| MAGIC.len() + 8 * position;
    let Some((&header, arrays)) = numbers.split_first_chunk::<HEADER_NUMBERS>() else {
        let what = format!("the file ends within its header of {} bytes", at(HEADER_NUMBERS));
        return Err(Malformed::new(file.len(), what));
    };
    let [_, code, _, sequences, _, documents] = header.map(u64::from_le_bytes);
    let dtype = format::dtype_of_code(u8::try_from(code).unwrap_or(u8::MAX), at(1))?;
    let needed = HEADER_NUMBERS as u128 + 3 * u128::from(sequences) + 2 + u128::from(documents);
    let needed = MAGIC.len() as u128 + 8 * needed;
    if file.len() as u128 != needed {
        let what = format!(
            "the file ends here, where {sequences} sequences and {documents} document boundaries \
             need {needed} bytes"
        );
        return Err(Malformed::new(file.len(), what));
    }
    // It is less than the length of a slice, as was just found.
    let count = sequences as usize;
    let (lengths, boundaries) = arrays[2 * (count + 1)..].split_at(count);
    // What is no size of a sequence becomes another number, which is found below.
    let size = |&bytes: &[u8; 8]| (u64::from_le_bytes(bytes) & i32::MAX as u64) as u32;
    let sizes: Vec<u32> = lengths.iter().map(size).collect();
    let boundaries: Vec<u64> = boundaries.iter().copied().map(u64::from_le_bytes).collect();

    let (mut right, mut newer) = (Vec::with_capacity(file.len()), Vec::new());
    // Nothing fails that is written to memory.
    let _ = write_index(dtype, &sizes, &boundaries, &mut right);
    let pairs = numbers.iter().zip(right[MAGIC.len()..].as_chunks().0);
    if let Some((i, (is, should))) = pairs.enumerate().find(|(_, (is, should))| is != should) {
        let [is, should] = [*is, *should].map(i64::from_le_bytes);
        let what = format!("the number is {is}, which by the type and the sizes would be {should}");
        return Err(Malformed::new(at(i), what));
    }
    let tokens: u64 = sizes.iter().map(|&size| u64::from(size)).sum();
    if tokens * dtype.size() as u64 != bin_bytes {
        let what =
            format!("there are {tokens} tokens of type {dtype}, and {bin_bytes} bytes in .bin");
        return Err(Malformed::new(at(HEADER_NUMBERS + 2 * count + 1), what));
    }
    let is_whole = boundaries.last() == Some(&sequences) || boundaries.len() == 1;
    if boundaries.first() != Some(&0) || !boundaries.is_sorted() || !is_whole {
        let what = format!("the document boundaries do not go from 0 to {sequences}");
        return Err(Malformed::new(at(HEADER_NUMBERS + 3 * count + 2), what));
    }
    let _ = format::write_index(dtype, &sizes, &boundaries, &mut newer);
    Ok(newer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::indexed::Dtype;

    /// Of the documents [1, 2, 3], [4] and [5, 6].
    fn golden() -> Vec<u8> {
        let numbers: [&[u64]; 5] =
            [&[1, 4, 4, 3, 3, 4], &[0, 1, 2, 3], &[0, 3, 4, 6], &[3, 1, 2], &[0, 1, 2, 3]];
        let numbers = numbers.concat().into_iter().flat_map(u64::to_le_bytes);
        b"TNTIDX\0\0".iter().copied().chain(numbers).collect()
    }

    #[test]
    fn an_index_is_written_byte_for_byte_and_read() {
        let (sizes, boundaries) = ([3, 1, 2], [0, 1, 2, 3]);
        let mut file = Vec::new();
        write_index(Dtype::I32, &sizes, &boundaries, &mut file).unwrap();
        assert_eq!(file, golden());
        let mut newer = Vec::new();
        format::write_index(Dtype::I32, &sizes, &boundaries, &mut newer).unwrap();
        assert_eq!(in_newer_layout(&file, 24).unwrap(), newer);

        let mut empty = Vec::new();
        write_index(Dtype::U16, &[], &[0], &mut empty).unwrap();
        assert!(in_newer_layout(&empty, 0).is_ok());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_byte() {
        let refusal = |file: &[u8], bin_bytes| {
            let error = in_newer_layout(file, bin_bytes).unwrap_err().to_string();
            error.strip_suffix("; copy or write the dataset again").unwrap().to_owned()
        };
        let with = |at: usize, number: i64| {
            let mut file = golden();
            file[at..at + 8].copy_from_slice(&number.to_le_bytes());
            refusal(&file, 24)
        };
        let other = |byte: usize, is: i64, should: i64| {
            let what = format!("which by the type and the sizes would be {should}");
            assert_eq!(with(byte, is), format!("byte {byte}: the number is {is}, {what}"));
        };
        other(8, 2, 1);
        other(24, 8, 4);
        other(40, 6, 3);
        other(64, 2, 1);
        other(96, 2, 3);
        other(112, 7, 6);
        assert!(with(16, 300).starts_with("byte 16: dtype code 255 is unknown; "));
        assert_eq!(
            with(48, -1),
            "byte 176: the file ends here, where 3 sequences and 18446744073709551615 document \
             boundaries need 147573952589676413064 bytes"
        );
        // The offset that follows from it is compared first.
        assert!(with(120, -1).starts_with("byte 96: the number is 3, "));
        assert_eq!(with(168, 2), "byte 144: the document boundaries do not go from 0 to 3");
        assert_eq!(
            refusal(&golden(), 20),
            "byte 112: there are 6 tokens of type int32, and 20 bytes in .bin"
        );
        let cut = &golden()[..40];
        assert_eq!(refusal(cut, 24), "byte 40: the file ends within its header of 56 bytes");
        assert_eq!(
            refusal(&golden()[..175], 24),
            "byte 175: the file ends here, where 3 sequences and 4 document boundaries need 176 bytes"
        );
    }
}
