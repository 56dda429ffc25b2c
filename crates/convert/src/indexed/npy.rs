//! Arrays of integers in numpy's file format, as GPT-NeoX keeps them: version 1.0, C order, and a
//! header of 128 bytes.
//!
//! The header is as numpy writes it, to the byte, so that a file is one that is expected if its header
//! is the one that would be written, and nothing needs to be parsed.

use std::io::{self, Write};
use std::path::Path;

use memmap2::Mmap;

use super::mapped;
use super::writer::{draft, seal};
use crate::error::{Error, ErrorKind, Result};

/// numpy leaves room for the first dimension to grow and fills up to a multiple of 64.
const HEADER: usize = 128;
/// The magic, the version, and the length of what follows them.
const PREAMBLE: [u8; 10] = *b"\x93NUMPY\x01\x00\x76\x00";

/// The type of the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is the type that it is named after")]
pub(super) enum NpyType {
    I32,
    U32,
    I64,
}

impl NpyType {
    const fn descr(self) -> &'static str {
        match self {
            Self::I32 => "<i4",
            Self::U32 => "<u4",
            Self::I64 => "<i8",
        }
    }

    const fn size(self) -> usize {
        match self {
            Self::I32 | Self::U32 => 4,
            Self::I64 => 8,
        }
    }
}

/// How an array is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) dtype: NpyType,
    pub(super) rows: usize,
    /// One is an array of one dimension.
    pub(super) columns: usize,
}

impl Layout {
    fn header(self) -> [u8; HEADER] {
        let Self { dtype, rows, columns } = self;
        let shape =
            if columns == 1 { format!("({rows},)") } else { format!("({rows}, {columns})") };
        let text =
            format!("{{'descr': '{}', 'fortran_order': False, 'shape': {shape}, }}", dtype.descr());
        let mut header = [b' '; HEADER];
        header[..PREAMBLE.len()].copy_from_slice(&PREAMBLE);
        // The shape is two numbers of 20 digits at most: the text has less than 100 bytes.
        header[PREAMBLE.len()..][..text.len()].copy_from_slice(text.as_bytes());
        header[HEADER - 1] = b'\n';
        header
    }

    fn file_bytes(self) -> Option<usize> {
        let numbers = self.rows.checked_mul(self.columns)?;
        numbers.checked_mul(self.dtype.size())?.checked_add(HEADER)
    }
}

/// An array of integers, in memory or mapped.
#[derive(Debug)]
pub(super) struct Array {
    numbers: Numbers,
    columns: usize,
}

#[derive(Debug)]
enum Numbers {
    I32(Vec<i32>),
    U32(Vec<u32>),
    I64(Vec<i64>),
    Mapped(Mmap, NpyType),
}

impl From<Vec<i32>> for Array {
    fn from(numbers: Vec<i32>) -> Self {
        Self { numbers: Numbers::I32(numbers), columns: 1 }
    }
}

impl From<Vec<u32>> for Array {
    fn from(numbers: Vec<u32>) -> Self {
        Self { numbers: Numbers::U32(numbers), columns: 1 }
    }
}

impl From<Vec<i64>> for Array {
    fn from(numbers: Vec<i64>) -> Self {
        Self { numbers: Numbers::I64(numbers), columns: 1 }
    }
}

impl Array {
    /// The same numbers in rows of two.
    pub(super) fn in_pairs(self) -> Self {
        Self { columns: 2, ..self }
    }

    pub(super) fn layout(&self) -> Layout {
        let (dtype, numbers) = match &self.numbers {
            Numbers::I32(numbers) => (NpyType::I32, numbers.len()),
            Numbers::U32(numbers) => (NpyType::U32, numbers.len()),
            Numbers::I64(numbers) => (NpyType::I64, numbers.len()),
            Numbers::Mapped(map, dtype) => (*dtype, (map.len() - HEADER) / dtype.size()),
        };
        Layout { dtype, rows: numbers / self.columns, columns: self.columns }
    }

    /// The number at `position`, counted through all rows. A mapped file may hold any.
    #[inline]
    pub(super) fn get(&self, position: usize) -> Option<i64> {
        match &self.numbers {
            Numbers::I32(numbers) => numbers.get(position).map(|&number| number.into()),
            Numbers::U32(numbers) => numbers.get(position).map(|&number| number.into()),
            Numbers::I64(numbers) => numbers.get(position).copied(),
            Numbers::Mapped(map, dtype) => {
                let bytes = &map[HEADER..];
                match dtype {
                    NpyType::I32 => at(bytes, position).map(|&b| i32::from_le_bytes(b).into()),
                    NpyType::U32 => at(bytes, position).map(|&b| u32::from_le_bytes(b).into()),
                    NpyType::I64 => at(bytes, position).map(|&b| i64::from_le_bytes(b)),
                }
            }
        }
    }

    /// The file that numpy would save.
    pub(super) fn encode(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&self.layout().header())?;
        match &self.numbers {
            Numbers::I32(numbers) => {
                numbers.iter().try_for_each(|n| out.write_all(&n.to_le_bytes()))
            }
            Numbers::U32(numbers) => {
                numbers.iter().try_for_each(|n| out.write_all(&n.to_le_bytes()))
            }
            Numbers::I64(numbers) => {
                numbers.iter().try_for_each(|n| out.write_all(&n.to_le_bytes()))
            }
            Numbers::Mapped(map, _) => out.write_all(&map[HEADER..]),
        }
    }

    /// Writes the file `path`, which appears complete or not at all.
    pub(super) fn save(&self, path: &Path) -> Result<()> {
        let failed = |e| Error::io(e, "write", path);
        let mut file = draft(path.to_owned())?;
        self.encode(&mut file).map_err(failed)?;
        seal(file, path)?.publish().map_err(failed)
    }

    /// Maps the file `path`; `None` if there is none, or it is laid out otherwise.
    pub(super) fn open(path: &Path, layout: Layout) -> Result<Option<Self>> {
        let map = match mapped::open(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            map => map?,
        };
        let is_expected =
            layout.file_bytes() == Some(map.len()) && map.starts_with(&layout.header());
        let Layout { dtype, columns, .. } = layout;
        Ok(is_expected.then(|| Self { numbers: Numbers::Mapped(map, dtype), columns }))
    }
}

fn at<const SIZE: usize>(bytes: &[u8], position: usize) -> Option<&[u8; SIZE]> {
    bytes.as_chunks().0.get(position)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(array: &Array) -> Vec<u8> {
        let mut bytes = Vec::new();
        array.encode(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn headers_are_numpys() {
        let array = Array::from(vec![1_i32, -2, 3, 4]).in_pairs();
        let text = "{'descr': '<i4', 'fortran_order': False, 'shape': (2, 2), }";
        let header = format!("{text}{}\n", " ".repeat(117 - text.len()));
        let numbers: Vec<u8> = [1_i32, -2, 3, 4].into_iter().flat_map(i32::to_le_bytes).collect();
        assert_eq!(
            bytes(&array),
            [&b"\x93NUMPY\x01\x00v\x00"[..], header.as_bytes(), &numbers].concat()
        );
        let layout = Layout { dtype: NpyType::I64, rows: usize::MAX, columns: usize::MAX };
        assert_eq!(layout.header().len(), HEADER);
        assert_eq!(layout.file_bytes(), None);
    }

    #[test]
    fn what_was_saved_is_mapped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        let arrays = [
            Array::from(vec![i32::MIN, 5, i32::MAX]),
            Array::from(vec![0, u32::MAX]),
            Array::from(vec![i64::MIN, 5, 6, i64::MAX]).in_pairs(),
            Array::from(Vec::<i32>::new()),
        ];
        for array in arrays {
            array.save(&path).unwrap();
            let mapped = Array::open(&path, array.layout()).unwrap().unwrap();
            assert_eq!(mapped.layout(), array.layout());
            for position in 0..=array.layout().rows * array.columns {
                assert_eq!(mapped.get(position), array.get(position));
            }
            assert_eq!(bytes(&mapped), bytes(&array));
        }
    }

    #[test]
    fn files_that_are_laid_out_otherwise_are_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        let array = Array::from(vec![1_i32, 2]);
        let layout = array.layout();
        assert!(Array::open(&path, layout).unwrap().is_none());
        array.save(&path).unwrap();
        assert!(Array::open(&path, Layout { rows: 3, ..layout }).unwrap().is_none());
        assert!(Array::open(&path, Layout { dtype: NpyType::U32, ..layout }).unwrap().is_none());
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(Array::open(&path, layout).unwrap().is_none());
        std::fs::write(&path, b"").unwrap();
        assert!(Array::open(&path, layout).unwrap().is_none());
    }
}
