//! Everything that can be wrong with the bytes of a dataset: one variant for each way.
//!
//! The text of a variant is the middle part of the message of the [`Error`] that it becomes; where
//! it happened and what to do about it stand around it.

use super::image::ImageFault;
use crate::{Error, ErrorKind};

/// What is wrong with an index, a file of a shard, a sample or a value. See
/// [`Error::damage`](crate::Error::damage).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// `index.json` is not JSON, or not of the shape of an index.
    #[error("the index is empty or damaged: {reason}")]
    NotAnIndex {
        /// What the JSON parser says, with line and column.
        reason: String,
    },
    /// The lists that describe the columns have different lengths.
    #[error("the shard has {names} column names, {encodings} encodings and {sizes} sizes")]
    ColumnCounts {
        /// Length of `column_names`.
        names: usize,
        /// Length of `column_encodings`.
        encodings: usize,
        /// Length of `column_sizes`.
        sizes: usize,
    },
    /// A shard without columns, or with two of the same name.
    #[error("{reason}")]
    Columns {
        /// Which of the two.
        reason: String,
    },
    /// More columns than any dataset has.
    #[error("the shard has {columns} columns, more than the {limit} that there may be")]
    TooManyColumns {
        /// The number in the index.
        columns: u64,
        /// The most that is read.
        limit: u64,
    },
    /// The declared size of a column is not that of its encoding.
    #[error(
        "the index declares the size {}, but the encoding {encoding} has {}",
        size_text(declared),
        size_text(expected)
    )]
    ColumnSize {
        /// The size in the index, in bytes.
        declared: Option<u32>,
        /// The name of the encoding.
        encoding: String,
        /// The size of the encoding, in bytes.
        expected: Option<u32>,
    },
    /// The entry names a compression, or a compressed file, but not both.
    #[error("the entry of the shard has {has}, but not {lacks}")]
    HalfCompressed {
        /// What is there.
        has: &'static str,
        /// What is not.
        lacks: &'static str,
    },
    /// More samples than a file can count.
    #[error("the shard cannot hold {samples} samples")]
    TooManySamples {
        /// The declared number.
        samples: u64,
    },
    /// More samples than the file of the declared size has offsets for.
    #[error("a file of {bytes} bytes cannot hold {samples} samples")]
    SamplesBeyondSize {
        /// The declared number.
        samples: u64,
        /// The declared size of the file that holds the offsets.
        bytes: u64,
    },
    /// Two entries name the same file.
    #[error("the index lists the file {name} twice")]
    DuplicateFile {
        /// The name of the file.
        name: String,
    },
    /// The entry of a format with two files names only one of them, or the other way round.
    #[error("the format {format} {has} a file of offsets, but the entry of the shard {says}")]
    MetaFile {
        /// The name of the format.
        format: String,
        /// `has` or `has not`, by the format.
        has: &'static str,
        /// What the entry says.
        says: &'static str,
    },
    /// The separator or the line end of a text format is empty, or they contain each other.
    #[error("the separator {separator:?} and the line end {newline:?} cannot divide a text")]
    Separators {
        /// What stands between the columns; empty for JSON lines.
        separator: String,
        /// What stands at the end of each line.
        newline: String,
    },
    /// The name of a file would lead out of the dataset, or cannot be a file's.
    #[error("the shard name {name:?} {fault}")]
    Name {
        /// The name as it stands in the index.
        name: String,
        /// The rule that it breaks.
        fault: NameFault,
    },
    /// A symbolic link leads out of the dataset.
    #[error("{path} is a symbolic link that leads out of {root}")]
    LinkOut {
        /// Where the link is.
        path: String,
        /// The folder that it leads out of.
        root: String,
    },
    /// What stands at the name of a file is a folder, a pipe, a socket or a device.
    #[error("it is not a regular file")]
    NotAFile,
    /// The size of a file is not the declared one.
    #[error("the file has {found} bytes, but the index declares {declared}")]
    FileSize {
        /// The size found, in bytes.
        found: u64,
        /// The size in the index, in bytes.
        declared: u64,
    },
    /// The digest of a file is not the declared one.
    #[error("the {hash} of the file is {found}, but the index declares {declared}")]
    FileHash {
        /// The name of the hash.
        hash: String,
        /// The digest found, in hexadecimal.
        found: String,
        /// The digest in the index.
        declared: String,
    },
    /// The declared size of a raw file is beyond what offsets of 32 bits can address.
    #[error("the index declares a raw size of {declared} bytes, more than any shard can have")]
    RawSize {
        /// The size in the index, in bytes.
        declared: u64,
    },
    /// A compressed file ends before the declared raw size.
    #[error("the compressed file holds {found} bytes, but the index declares {declared}")]
    ZipHoldsLess {
        /// The size found, in bytes.
        found: u64,
        /// The size in the index, in bytes.
        declared: u64,
    },
    /// A compressed file goes on after the declared raw size; what follows was not unpacked.
    #[error("the compressed file holds more than the {declared} bytes that the index declares")]
    ZipHoldsMore {
        /// The size in the index, in bytes.
        declared: u64,
    },
    /// A compressed file breaks the rules of its compression.
    #[error("the compressed file is not valid {compression}")]
    NotValidZip {
        /// The code of the compression.
        compression: &'static str,
    },
    /// A shard ends within its table of offsets, or was cut after it was checked.
    #[error("the shard is cut short: it has {bytes} bytes")]
    CutShort {
        /// The size of the file, in bytes.
        bytes: u64,
    },
    /// The shard counts other samples than its index.
    #[error("the shard holds {found} samples, but the index declares {declared}")]
    SampleCount {
        /// The number in the shard.
        found: u64,
        /// The number in the index.
        declared: u64,
    },
    /// The first sample would lie in the table of offsets.
    #[error("the first sample begins at byte {offset}, inside the table of offsets")]
    FirstOffset {
        /// The first offset.
        offset: u32,
    },
    /// Offsets go backwards.
    #[error("the sample ends at byte {end}, before its beginning at byte {begin}")]
    OffsetsDescend {
        /// Where the sample begins.
        begin: u32,
        /// Where it ends.
        end: u32,
    },
    /// The last offset is not the size of the file.
    #[error("the samples end at byte {end}, but the shard has {bytes} bytes")]
    SamplesEnd {
        /// The last offset.
        end: u32,
        /// The size of the file, in bytes.
        bytes: u64,
    },
    /// A sample is shorter than the lengths of its columns.
    #[error("the sample has {bytes} bytes, but the lengths of its columns alone take {head}")]
    SampleTooShort {
        /// The size of the sample, in bytes.
        bytes: usize,
        /// The size of the lengths, in bytes.
        head: usize,
    },
    /// A value is longer than what is left of its sample.
    #[error("the value takes {size} bytes, but only {left} are left of the sample's {bytes}")]
    ValueTooLong {
        /// The size of the value, in bytes.
        size: u32,
        /// What is left, in bytes.
        left: usize,
        /// The size of the sample, in bytes.
        bytes: usize,
    },
    /// A sample goes on after its last value.
    #[error("{left} bytes are left over of the sample's {bytes}")]
    LeftOver {
        /// What is left, in bytes.
        left: usize,
        /// The size of the sample, in bytes.
        bytes: usize,
    },
    /// A value does not have the fixed size of its encoding.
    #[error("the value has {bytes} bytes, but the encoding takes another size")]
    ValueSize {
        /// The size of the value, in bytes.
        bytes: usize,
    },
    /// A text is not UTF-8.
    #[error("the text is not UTF-8 from its byte {at} on")]
    NotUtf8 {
        /// The first byte that is not, counted within the text.
        at: usize,
    },
    /// A text is not of the form that its encoding promises: an integer, a float, a decimal
    /// number or JSON.
    #[error("the text is not {expected}: {reason}")]
    NotTheText {
        /// What it should be.
        expected: &'static str,
        /// Why it is not.
        reason: String,
    },
    /// An array is of no known type.
    #[error("the array has the unknown type code {code}")]
    ArrayType {
        /// The code found.
        code: u8,
    },
    /// An array ends within its header.
    #[error("the array header is cut short")]
    ArrayCutShort,
    /// An array has no dimension, or an empty one.
    #[error("the array has the shape {shape:?}")]
    ArrayShape {
        /// The dimensions.
        shape: Vec<u64>,
    },
    /// The numbers of an array do not fill its shape.
    #[error("a {dtype} array of shape {shape:?} has {bytes} bytes of data")]
    ArrayData {
        /// The name of the type.
        dtype: &'static str,
        /// The dimensions; their product may be beyond all bounds.
        shape: Vec<u64>,
        /// The size of the numbers, in bytes.
        bytes: usize,
    },
    /// An image, or a list of them, breaks the rules of its encoding.
    #[error("{0}")]
    Image(ImageFault),
    /// A line of a text format does not end with the declared line end.
    #[error("the line does not end with {newline:?}")]
    NoNewline {
        /// The declared line end.
        newline: String,
    },
    /// A line of a separated format goes on after the line end, where the next one should begin.
    #[error("the line contains the line end {newline:?}")]
    NewlineInside {
        /// The declared line end.
        newline: String,
    },
    /// A line of a separated format has other columns than declared.
    #[error("the line has {found} columns, but the index declares {declared}")]
    LineColumns {
        /// The number found.
        found: usize,
        /// The number declared.
        declared: usize,
    },
    /// The first line of a separated file does not hold the names of the columns.
    #[error("the first line does not hold the names of the columns")]
    HeaderLine,
    /// A line of JSON is not an object.
    #[error("the line is not a JSON object")]
    NotAnObject,
    /// A JSON object lacks a column.
    #[error("the JSON object has no such key")]
    MissingKey,
    /// A JSON object has a key that is not a column.
    #[error("the JSON object has the key {key:?}, which is not a column")]
    UnknownKey {
        /// The key.
        key: String,
    },
    /// A value of a JSON object is of another type than its column.
    #[error("the value is not of the type {expected}")]
    JsonType {
        /// The encoding of the column.
        expected: String,
    },
}

/// The rule that the name of a file breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum NameFault {
    /// There is no name.
    #[error("is empty")]
    Empty,
    /// It begins with `/`.
    #[error("is an absolute path")]
    Absolute,
    /// It begins like `C:`.
    #[error("begins with a drive letter")]
    DriveLetter,
    /// It contains `\`, which separates folders elsewhere.
    #[error("contains a backslash")]
    Backslash,
    /// It contains NUL, a line end, a mark of writing direction or another control character.
    #[error("contains a control character")]
    ControlCharacter,
    /// It leads up or nowhere.
    #[error("has an empty, `.` or `..` segment")]
    DotSegment,
    /// It is longer than file systems take.
    #[error("is too long")]
    TooLong,
    /// It is `index.json`.
    #[error("is that of an index")]
    Index,
    /// The file's own name begins with a dot, as those that a cache keeps beside its shards.
    #[error("is that of a hidden file")]
    Hidden,
}

fn size_text(size: &Option<u32>) -> String {
    size.map_or_else(|| "null".to_owned(), |size| size.to_string())
}

impl Damage {
    /// What to do about it: an index, a name and the files of a shard have remedies of their own.
    fn remedy(&self) -> &'static str {
        match self {
            Self::NotAnIndex { .. }
            | Self::ColumnCounts { .. }
            | Self::Columns { .. }
            | Self::TooManyColumns { .. }
            | Self::ColumnSize { .. }
            | Self::HalfCompressed { .. }
            | Self::TooManySamples { .. }
            | Self::SamplesBeyondSize { .. }
            | Self::DuplicateFile { .. }
            | Self::RawSize { .. }
            | Self::MetaFile { .. }
            | Self::Separators { .. } => "fetch index.json again, or write the dataset again",
            Self::LinkOut { .. } => {
                "copy what it points to into the dataset, or do not use this dataset"
            }
            Self::NotAFile => "remove it, or put the file there that belongs there",
            Self::Name { .. } => {
                "do not use this dataset unless you trust it; correct its index.json"
            }
            _ => "fetch the shard again, or write it again from its source",
        }
    }
}

impl From<Damage> for Error {
    fn from(damage: Damage) -> Self {
        Self::new(ErrorKind::Corrupt, damage.to_string(), damage.remedy()).with_damage(damage)
    }
}
