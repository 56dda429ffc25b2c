//! The `.idx` file of an indexed dataset: bytes in, sizes and positions out; no I/O.
//!
//! All numbers are little endian. N is the number of sequences, D that of documents and one more:
//!
//! | byte | type | meaning |
//! | --- | --- | --- |
//! | 0 | 9 bytes | `MMIDIDX` and two zero bytes |
//! | 9 | u64 | version, always 1 |
//! | 17 | u8 | [`Dtype`] of the tokens, or that of another [`Element`] |
//! | 18 | u64 | N |
//! | 26 | u64 | D |
//! | 34 | i32 × N | the tokens of each sequence |
//! | 34 + 4N | i64 × N | the byte of `.bin` at which each sequence begins |
//! | 34 + 12N | i64 × D | the sequence at which each document begins; the last is N |
//! | 34 + 12N + 8D | i8 × N | what each sequence is, written by Megatron-core for images only |
//!
//! `.bin` has the tokens and nothing else, so that each sequence begins where the one before it ends.
//! No array is aligned to its numbers: they are put together from their bytes, never cast.
//!
//! GPT-NeoX writes each document as one sequence and trains on sequences, whatever documents the file
//! says there are. Its merged files have one document boundary, 0; each sequence is then a document.

use std::fmt;
use std::io::{self, Write};
use std::ops::{Range, RangeInclusive};

const MAGIC: [u8; 9] = *b"MMIDIDX\0\0";
const VERSION: u64 = 1;

const VERSION_AT: usize = MAGIC.len();
const DTYPE_AT: usize = VERSION_AT + 8;
const SEQUENCES_AT: usize = DTYPE_AT + 1;
const BOUNDARIES_AT: usize = SEQUENCES_AT + 8;
const SIZES_AT: usize = BOUNDARIES_AT + 8;

/// Vocabularies from this many entries on are written as `int32`. Source: GPT-NeoX, which leaves the
/// last ids of `uint16` unused.
const UINT16_VOCABULARIES_BELOW: u64 = 65_500;

/// The type of a token in `.bin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each variant is the type that it is named after")]
pub enum Dtype {
    U8,
    I8,
    I16,
    I32,
    I64,
    U16,
}

/// What a `.bin` file that is written has in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    /// Tokens.
    Token(Dtype),
    /// Numbers that are no tokens, such as rewards, of type `float32`. Their code is GPT-NeoX's, 6, which Megatron-core
    /// takes for `float64`; so nothing here reads them.
    Float32,
}

/// How an `.idx` file is laid out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Layout {
    /// That of this module, which GPT-NeoX calls `mmap`.
    #[default]
    Mapped,
    /// The older one, TNTIDX, which GPT-NeoX calls `lazy` and `cached`.
    Legacy,
}

impl Dtype {
    const ALL: [Self; 6] = [Self::U8, Self::I8, Self::I16, Self::I32, Self::I64, Self::U16];

    /// The type in which GPT-NeoX writes the ids of a vocabulary: `uint16` where they fit.
    pub const fn for_vocab_size(vocab_size: u64) -> Self {
        if vocab_size < UINT16_VOCABULARIES_BELOW { Self::U16 } else { Self::I32 }
    }

    /// The number in the header.
    pub const fn code(self) -> u8 {
        match self {
            Self::U8 => 1,
            Self::I8 => 2,
            Self::I16 => 3,
            Self::I32 => 4,
            Self::I64 => 5,
            Self::U16 => 8,
        }
    }

    /// numpy's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::U8 => "uint8",
            Self::I8 => "int8",
            Self::I16 => "int16",
            Self::I32 => "int32",
            Self::I64 => "int64",
            Self::U16 => "uint16",
        }
    }

    /// Bytes per token.
    pub const fn size(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::I16 | Self::U16 => 2,
            Self::I32 => 4,
            Self::I64 => 8,
        }
    }

    /// The tokens that the type can hold.
    pub const fn range(self) -> RangeInclusive<i64> {
        match self {
            Self::U8 => 0..=u8::MAX as i64,
            Self::I8 => i8::MIN as i64..=i8::MAX as i64,
            Self::I16 => i16::MIN as i64..=i16::MAX as i64,
            Self::I32 => i32::MIN as i64..=i32::MAX as i64,
            Self::I64 => i64::MIN..=i64::MAX,
            Self::U16 => 0..=u16::MAX as i64,
        }
    }
}

impl From<Dtype> for Element {
    fn from(dtype: Dtype) -> Self {
        Self::Token(dtype)
    }
}

impl Element {
    /// The number in the header.
    pub const fn code(self) -> u8 {
        match self {
            Self::Token(dtype) => dtype.code(),
            Self::Float32 => 6,
        }
    }

    /// Bytes of one.
    pub const fn size(self) -> usize {
        match self {
            Self::Token(dtype) => dtype.size(),
            Self::Float32 => 4,
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(dtype) => dtype.fmt(f),
            Self::Float32 => f.write_str("float32"),
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is wrong with an `.idx` file, and where. The text reads `byte N: WHAT; REMEDY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// The byte of the `.idx` file at which it shows.
    pub byte: u64,
    what: String,
    remedy: &'static str,
}

impl Malformed {
    pub(super) fn new(byte: usize, what: impl Into<String>) -> Self {
        Self { byte: byte as u64, what: what.into(), remedy: "copy or write the dataset again" }
    }

    fn or(self, remedy: &'static str) -> Self {
        Self { remedy, ..self }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}: {}; {}", self.byte, self.what, self.remedy)
    }
}

impl std::error::Error for Malformed {}

/// The tokens of each of a number of sequences, as they lie in an `.idx` file.
#[derive(Debug, Clone, Copy)]
pub struct Sizes<'a>(&'a [[u8; 4]]);

impl<'a> Sizes<'a> {
    /// The sizes in `bytes`, `i32` each; none may be negative.
    pub const fn of_bytes(bytes: &'a [[u8; 4]]) -> Self {
        Self(bytes)
    }

    /// How many sequences there are.
    pub const fn len(self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The tokens of sequence `i`, if there is one.
    #[inline]
    pub fn get(self, i: usize) -> Option<u32> {
        self.0.get(i).map(|&bytes| u32::from_le_bytes(bytes))
    }

    /// The tokens of each sequence, in order.
    pub fn iter(self) -> impl ExactSizeIterator<Item = u32> + use<'a> {
        self.0.iter().map(|&bytes| u32::from_le_bytes(bytes))
    }

    /// Those of `sequences`, as far as they exist.
    pub fn slice(self, sequences: Range<usize>) -> Self {
        Self(self.0.get(sequences).unwrap_or_default())
    }

    /// The bytes of all of them.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0.as_flattened()
    }
}

/// A checked `.idx` file. `B` owns the bytes, which must not change: a mapped file, or a slice.
#[derive(Debug, Clone)]
pub struct IndexFile<B> {
    bytes: B,
    dtype: Dtype,
    sequences: usize,
    /// None where a merged file has no documents but its sequences.
    boundaries: Option<usize>,
    has_modes: bool,
}

impl<B: AsRef<[u8]>> IndexFile<B> {
    /// Checks all of an `.idx` file against itself and the size of its `.bin` file. Nothing is
    /// allocated.
    ///
    /// # Errors
    /// The first malformation.
    pub fn parse(bytes: B, bin_bytes: u64) -> Result<Self, Malformed> {
        let index = Self::parse_header(bytes)?;
        index.check_sequences(bin_bytes)?;
        index.check_documents()
    }

    fn parse_header(bytes: B) -> Result<Self, Malformed> {
        let file = bytes.as_ref();
        let begins = &file[..file.len().min(MAGIC.len())];
        if !MAGIC.starts_with(begins) {
            return Err(Malformed::new(
                0,
                "the file begins neither with MMIDIDX nor with TNTIDX and two zero bytes, as an index does",
            )
            .or("check the path"));
        }
        let Some((header, arrays)) = file.split_first_chunk::<SIZES_AT>() else {
            return Err(Malformed::new(
                file.len(),
                format!("the file ends within its header of {SIZES_AT} bytes"),
            ));
        };
        let number = |at: usize| u64_at(header, at);
        let version = number(VERSION_AT);
        if version != VERSION {
            return Err(Malformed::new(VERSION_AT, format!("the version is {version}, not 1"))
                .or("write the dataset again as version 1"));
        }
        let dtype = dtype_of_code(header[DTYPE_AT], DTYPE_AT)?;
        let (sequences, boundaries) = (number(SEQUENCES_AT), number(BOUNDARIES_AT));
        let counts = || format!("{sequences} sequences and {boundaries} document boundaries");
        let needed = sequences.checked_mul(12).zip(boundaries.checked_mul(8)).and_then(|(a, b)| {
            a.checked_add(b).filter(|&needed| needed <= i64::MAX as u64 - SIZES_AT as u64)
        });
        let Some(needed) = needed else {
            return Err(Malformed::new(
                SEQUENCES_AT,
                format!("{} need more bytes than a file can have", counts()),
            ));
        };
        let Some(rest) = (arrays.len() as u64).checked_sub(needed) else {
            return Err(Malformed::new(
                file.len(),
                format!(
                    "the file ends here, where {} need {} bytes",
                    counts(),
                    needed + SIZES_AT as u64
                ),
            ));
        };
        if rest != 0 && rest != sequences {
            return Err(Malformed::new(
                file.len() - rest as usize,
                format!(
                    "{rest} bytes follow the document boundaries, where nothing or one for each of \
                     the {sequences} sequences may be"
                ),
            ));
        }
        // Both are at most the length of a slice, as was just found.
        let (sequences, boundaries) = (sequences as usize, boundaries as usize);
        if boundaries == 0 {
            return Err(Malformed::new(
                BOUNDARIES_AT,
                "there are 0 document boundaries, where the first is always 0",
            ));
        }
        let has_modes = rest != 0;
        Ok(Self { dtype, sequences, boundaries: Some(boundaries), has_modes, bytes })
    }

    fn check_sequences(&self, bin_bytes: u64) -> Result<(), Malformed> {
        let mut end = 0;
        for (i, (size, pointer)) in self.sizes().iter().zip(self.pointers()).enumerate() {
            let pointer_at = || self.pointers_at() + 8 * i;
            if size > i32::MAX as u32 {
                return Err(Malformed::new(
                    SIZES_AT + 4 * i,
                    format!("sequence {i} has {} tokens", size as i32),
                ));
            }
            let pointer = i64::from_le_bytes(*pointer);
            if u64::try_from(pointer) != Ok(end) {
                return Err(Malformed::new(
                    pointer_at(),
                    format!(
                        "sequence {i} begins at byte {pointer} of .bin, where those before it end \
                         at byte {end}"
                    ),
                ));
            }
            end = end.saturating_add(u64::from(size) * self.dtype.size() as u64);
            if end > bin_bytes {
                return Err(Malformed::new(
                    pointer_at(),
                    format!("sequence {i} ends at byte {end} of .bin, which has {bin_bytes} bytes"),
                ));
            }
        }
        if end < bin_bytes {
            return Err(Malformed::new(
                self.pointers_at(),
                format!(
                    "the {} sequences end at byte {end} of .bin, which has {bin_bytes} bytes",
                    self.sequences
                ),
            ));
        }
        Ok(())
    }

    fn check_documents(self) -> Result<Self, Malformed> {
        let wrong = |i: usize, what| Err(Malformed::new(self.boundaries_at() + 8 * i, what));
        let numbers = self.boundaries().iter().map(|&bytes| i64::from_le_bytes(bytes));
        let mut before = 0;
        for (i, boundary) in numbers.enumerate() {
            if i == 0 && boundary != 0 {
                return wrong(0, format!("document 0 begins at sequence {boundary}, not 0"));
            }
            if boundary < before {
                return wrong(
                    i,
                    format!(
                        "document boundary {i} is sequence {boundary}, before the one before it, \
                         {before}"
                    ),
                );
            }
            before = boundary;
        }
        let (last, sequences) = (self.boundaries().len() - 1, self.sequences);
        if u64::try_from(before) == Ok(sequences as u64) {
            return Ok(self);
        }
        if last == 0 {
            return Ok(Self { boundaries: None, ..self });
        }
        wrong(
            last,
            format!("the last document ends with sequence {before}, and there are {sequences}"),
        )
    }

    /// The type of the tokens.
    pub const fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Whether Megatron-core's modes follow the arrays. Nothing here reads them.
    pub const fn has_modes(&self) -> bool {
        self.has_modes
    }

    /// The tokens of each sequence.
    pub fn sizes(&self) -> Sizes<'_> {
        let bytes = &self.bytes.as_ref()[SIZES_AT..self.pointers_at()];
        Sizes(bytes.as_chunks().0)
    }

    /// How many documents there are.
    pub fn documents(&self) -> usize {
        self.boundaries.map_or(self.sequences, |boundaries| boundaries - 1)
    }

    /// The sequences of document `i`, if there is one.
    pub fn sequences_of(&self, document: usize) -> Option<Range<usize>> {
        if self.boundaries.is_none() {
            return (document < self.sequences).then_some(document..document + 1);
        }
        let pair = self.boundaries().get(document..)?.get(..2)?;
        let [begin, end] = [pair[0], pair[1]].map(|bytes| u64::from_le_bytes(bytes) as usize);
        Some(begin..end)
    }

    /// The bytes of `.bin` that hold `sequences`, if there are all of them. They lie one after the
    /// other, so that a document of many is one range.
    pub fn bytes_of(&self, sequences: Range<usize>) -> Option<Range<usize>> {
        if sequences.is_empty() {
            return (sequences.start <= self.sequences).then_some(0..0);
        }
        let begin = |sequence: usize| {
            self.pointers().get(sequence).map(|&bytes| u64::from_le_bytes(bytes) as usize)
        };
        let last = sequences.end - 1;
        let size = self.sizes().get(last)? as usize;
        Some(begin(sequences.start)?..begin(last)? + size * self.dtype.size())
    }

    const fn pointers_at(&self) -> usize {
        SIZES_AT + 4 * self.sequences
    }

    const fn boundaries_at(&self) -> usize {
        SIZES_AT + 12 * self.sequences
    }

    fn pointers(&self) -> &[[u8; 8]] {
        self.bytes.as_ref()[self.pointers_at()..self.boundaries_at()].as_chunks().0
    }

    fn boundaries(&self) -> &[[u8; 8]] {
        let boundaries = 8 * self.boundaries.unwrap_or(1);
        self.bytes.as_ref()[self.boundaries_at()..][..boundaries].as_chunks().0
    }
}

/// Writes an `.idx` file: of tokens or other elements, sequences of `sizes` of them (below 2^31 each),
/// and documents that begin at the sequences `boundaries`, the number of sequences being the last.
///
/// # Errors
/// As `out` fails.
pub fn write_index(
    element: impl Into<Element>,
    sizes: &[u32],
    boundaries: &[u64],
    out: &mut impl Write,
) -> io::Result<()> {
    let element = element.into();
    out.write_all(&MAGIC)?;
    out.write_all(&VERSION.to_le_bytes())?;
    out.write_all(&[element.code()])?;
    out.write_all(&(sizes.len() as u64).to_le_bytes())?;
    out.write_all(&(boundaries.len() as u64).to_le_bytes())?;
    for size in sizes {
        out.write_all(&size.to_le_bytes())?;
    }
    let mut pointer = 0_u64;
    for &size in sizes {
        out.write_all(&pointer.to_le_bytes())?;
        pointer += u64::from(size) * element.size() as u64;
    }
    for boundary in boundaries {
        out.write_all(&boundary.to_le_bytes())?;
    }
    Ok(())
}

/// The type of the code, which is at `byte`.
pub(super) fn dtype_of_code(code: u8, byte: usize) -> Result<Dtype, Malformed> {
    if let Some(dtype) = Dtype::ALL.into_iter().find(|dtype| dtype.code() == code) {
        return Ok(dtype);
    }
    let (neox, megatron) = match code {
        6 => ("float32", "float64"),
        7 => ("float64", "float32"),
        _ => {
            let known = Dtype::ALL.map(|dtype| format!("{} {dtype}", dtype.code())).join(", ");
            return Err(Malformed::new(
                byte,
                format!("dtype code {code} is unknown; those known are {known}"),
            ));
        }
    };
    Err(Malformed::new(
        byte,
        format!(
            "dtype code {code} is {neox} to GPT-NeoX and {megatron} to Megatron-core, so that the file \
             does not say what its numbers are"
        ),
    )
    .or("write tokens as integers"))
}

/// The number in eight bytes of a header, which has them.
fn u64_at(header: &[u8; SIZES_AT], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| header[at + i]))
}

#[cfg(test)]
mod tests;
