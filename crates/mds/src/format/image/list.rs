//! Lists of images: the encodings `list[pil]`, `list[jpeg]`, `list[png]` and `jpeg_array`.
//!
//! ```text
//! list[...]    uint32 0 (reserved), uint32 n, uint32 size[n], n elements
//! jpeg_array                        uint32 n, uint32 size[n], n files
//! ```
//!
//! All numbers are little-endian; sizes are in bytes.

use std::fmt;

use super::ImageFault;
use super::pil::split_u32;

/// Which of the two stored forms a list of images has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ListKind {
    /// `list[pil]`, `list[jpeg]`, `list[png]`: behind a reserved word; may be empty.
    List,
    /// `jpeg_array`, also named `jpegarray`: no reserved word; at least one file.
    JpegArray,
}

impl ListKind {
    /// The bytes before the sizes.
    pub(super) fn header_bytes(self) -> usize {
        match self {
            Self::List => 8,
            Self::JpegArray => 4,
        }
    }
}

impl fmt::Display for ListKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::List => "an image list",
            Self::JpegArray => "a JPEG array",
        })
    }
}

/// Appends the stored form of a list of encoded `elements` to `out`.
///
/// # Errors
///
/// [`ImageFault::EmptyArray`] for a JPEG array of nothing, which no reader takes, and
/// [`ImageFault::ListOverflow`] for 2³² elements or an element of as many bytes. `out` is then
/// unchanged.
pub fn encode_list(
    kind: ListKind,
    elements: &[&[u8]],
    out: &mut Vec<u8>,
) -> Result<(), ImageFault> {
    if kind == ListKind::JpegArray && elements.is_empty() {
        return Err(ImageFault::EmptyArray);
    }
    let start = out.len();
    let mut number = |what, number: usize| {
        let short = u32::try_from(number).map_err(|_| ImageFault::ListOverflow {
            kind,
            what,
            found: number,
        })?;
        out.extend_from_slice(&short.to_le_bytes());
        Ok(())
    };
    let head = || {
        if kind == ListKind::List {
            number("a reserved word", 0)?;
        }
        number("a count", elements.len())?;
        elements.iter().try_for_each(|element| number("an element", element.len()))
    };
    if let Err(fault) = { head }() {
        out.truncate(start);
        return Err(fault);
    }
    for element in elements {
        out.extend_from_slice(element);
    }
    Ok(())
}

/// Splits the stored form of a list into its encoded elements, which stay borrowed.
///
/// # Errors
///
/// [`ImageFault`] unless the sizes fill `bytes` exactly. The reference is laxer: it ignores the
/// reserved word and bytes that are left over, and cuts elements short at the end.
pub fn decode_list(kind: ListKind, bytes: &[u8]) -> Result<Vec<&[u8]>, ImageFault> {
    let (count, rest) = split_count(kind, bytes)?;
    let (sizes, rest) = usize::try_from(4 * u64::from(count))
        .ok()
        .and_then(|needed| rest.split_at_checked(needed))
        .ok_or(ImageFault::ListSizes {
            kind,
            count,
            needed: 4 * u64::from(count),
            found: rest.len(),
        })?;
    let (sizes, _) = sizes.as_chunks::<4>();
    let sizes = sizes.iter().map(|size| u32::from_le_bytes(*size));
    // Cannot overflow: fewer than 2³² numbers below 2³².
    let declared = sizes.clone().map(u64::from).sum();
    let found = rest.len();
    let wrong = || ImageFault::ListElements { kind, count, declared, found };
    if declared != found as u64 {
        return Err(wrong());
    }
    let mut rest = rest;
    let mut elements = Vec::with_capacity(sizes.len());
    for size in sizes {
        let (element, after) = rest.split_at_checked(size as usize).ok_or_else(wrong)?;
        elements.push(element);
        rest = after;
    }
    Ok(elements)
}

/// Splits off what comes before the sizes and returns the number of elements.
fn split_count(kind: ListKind, bytes: &[u8]) -> Result<(u32, &[u8]), ImageFault> {
    let short = || ImageFault::ListHeader { kind, needed: kind.header_bytes(), found: bytes.len() };
    match kind {
        ListKind::List => {
            let (reserved, rest) = split_u32(bytes).ok_or_else(short)?;
            let counted = split_u32(rest).ok_or_else(short)?;
            match reserved {
                0 => Ok(counted),
                found => Err(ImageFault::ListReserved { found }),
            }
        }
        ListKind::JpegArray => match split_u32(bytes).ok_or_else(short)? {
            (0, _) => Err(ImageFault::EmptyArray),
            counted => Ok(counted),
        },
    }
}
