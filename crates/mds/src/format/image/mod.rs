//! The image encodings: `pil`, `jpeg`, `png`, `jpeg_array` and the lists of images.
//!
//! An [`Image`] is pixels with a size and a mode, as Pillow's `Image.tobytes()` gives them; an
//! [`ImageFile`] is a JPEG or PNG file kept byte for byte and decoded only when asked. The lists
//! are split into the bytes of their elements by [`decode_list`].
//!
//! Decoded pixels equal Pillow's bit for bit: JPEG is decoded by a relative of the libjpeg-turbo
//! that Pillow uses, and PNG is lossless. Stored bytes may come from strangers: every length is
//! checked before it is used, and nothing is decoded beyond a limit on the memory it takes.
//!
//! This software is based in part on the work of the Independent JPEG Group.
//!
//! ```
//! use mds::format::image::{Image, ImageFile, ImageFormat, ImageMode};
//!
//! # fn main() -> Result<(), mds::format::image::ImageFault> {
//! let image = Image::new(2, 1, ImageMode::Rgb, &[255, 0, 0, 0, 0, 255][..])?;
//! let file = ImageFile::from_image(&image, ImageFormat::Png)?;
//! assert_eq!(file.dimensions()?, (2, 1));
//! assert_eq!(file.decode()?, image);
//! # Ok(())
//! # }
//! ```

mod file;
mod jpeg;
mod list;
mod pil;
mod png;
#[cfg(test)]
mod tests;

pub use file::{ImageFile, ImageFormat, MAX_DECODED_BYTES};
pub use list::{ListKind, decode_list, encode_list};
pub use pil::{Image, ImageMode};

/// What is wrong with an image, an image file or a list of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageFault {
    /// The bytes end within the three lengths that begin a raw image.
    #[error("a raw image begins with 12 bytes of lengths, but there are only {found} bytes")]
    PilHeader {
        /// How many bytes there are.
        found: usize,
    },
    /// The mode of a raw image ends beyond the bytes.
    #[error("the mode of the raw image takes {declared} bytes, but only {found} follow")]
    PilMode {
        /// The declared length of the mode in bytes.
        declared: u32,
        /// How many bytes follow the lengths.
        found: usize,
    },
    /// Pillow has no such mode.
    #[error("there is no image mode {name:?}; Pillow's modes are {}", pil::mode_names())]
    UnknownMode {
        /// The first bytes of the mode, as text.
        name: String,
    },
    /// The size does not fit the address space.
    #[error("an image of {width} x {height} pixels in mode {mode} does not fit in memory")]
    SizeOverflow {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The mode.
        mode: ImageMode,
    },
    /// The pixels do not fill the size.
    #[error(
        "an image of {width} x {height} pixels in mode {mode} takes {expected} bytes, not {found}"
    )]
    PixelBytes {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The mode.
        mode: ImageMode,
        /// How many bytes the size takes.
        expected: usize,
        /// How many bytes there are.
        found: usize,
    },
    /// The file does not begin with the signature of its format.
    #[error("the bytes are no {format} file: they begin with {found:02x?}, not {expected:02x?}")]
    Signature {
        /// The expected format.
        format: ImageFormat,
        /// The signature of that format.
        expected: &'static [u8],
        /// The first bytes of the file, at most as many as the signature has.
        found: Vec<u8>,
    },
    /// The file ends before its image does.
    #[error("the {format} file is truncated: its image goes on after its {bytes} bytes")]
    Truncated {
        /// The format.
        format: ImageFormat,
        /// The length of the file in bytes.
        bytes: usize,
    },
    /// A segment or chunk of the header is not what the format says.
    #[error("the header of the {format} file is damaged at byte {at}: {what}")]
    Header {
        /// The format.
        format: ImageFormat,
        /// Where, in bytes from the start of the file.
        at: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// Only JPEG files of 8 bits are decoded, as by Pillow.
    #[error("the JPEG file has samples of {bits} bits; only 8 bits are decoded")]
    SampleBits {
        /// The declared sample precision.
        bits: u8,
    },
    /// Only JPEG files of 1, 3 or 4 components are decoded, as by Pillow.
    #[error("the JPEG file has {count} components; only 1, 3 and 4 are decoded")]
    Components {
        /// The declared number of components.
        count: u8,
    },
    /// Decoding would take more memory than is allowed.
    #[error(
        "decoding {width} x {height} pixels takes {needed} bytes, more than the limit of {limit}"
    )]
    TooLarge {
        /// Declared width in pixels.
        width: u32,
        /// Declared height in pixels.
        height: u32,
        /// How many bytes decoding takes.
        needed: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// Each scan of a JPEG file goes over the whole image, and takes a few bytes only.
    #[error("the JPEG file has {count} scans, more than the limit of {limit}")]
    Scans {
        /// How many there are, at most.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// The decoder refuses the file.
    #[error("the {format} file cannot be decoded: {reason}")]
    Decode {
        /// The format.
        format: ImageFormat,
        /// The decoder's own words.
        reason: String,
    },
    /// The format has no way to store this mode.
    #[error("an image in mode {mode} cannot be stored as {format}; convert it to {modes}")]
    EncodeMode {
        /// The mode of the image.
        mode: ImageMode,
        /// The wanted format.
        format: ImageFormat,
        /// The modes that the format stores.
        modes: &'static str,
    },
    /// The encoder refuses the image.
    #[error("an image of {width} x {height} pixels cannot be stored as {format}: {reason}")]
    Encode {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The wanted format.
        format: ImageFormat,
        /// The encoder's own words.
        reason: String,
    },
    /// The bytes end within the head of a list.
    #[error("{kind} begins with {needed} bytes of counts, but there are only {found} bytes")]
    ListHeader {
        /// What kind of list.
        kind: ListKind,
        /// How many bytes the head takes.
        needed: usize,
        /// How many bytes there are.
        found: usize,
    },
    /// The reserved word of a list is set, so a later version of the format wrote it.
    #[error("the reserved word of the image list is {found}, not 0: a later version wrote it")]
    ListReserved {
        /// The reserved word.
        found: u32,
    },
    /// A list of JPEG files is empty, which its encoding forbids.
    #[error("a JPEG array holds at least one file, but this one holds none")]
    EmptyArray,
    /// The sizes of the elements go beyond the bytes.
    #[error("{kind} declares {count} sizes, {needed} bytes of them, but only {found} bytes follow")]
    ListSizes {
        /// What kind of list.
        kind: ListKind,
        /// The declared number of elements.
        count: u32,
        /// How many bytes their sizes take.
        needed: u64,
        /// How many bytes follow the count.
        found: usize,
    },
    /// The elements do not fill the rest of the bytes.
    #[error("the {count} elements of {kind} take {declared} bytes, but {found} bytes follow")]
    ListElements {
        /// What kind of list.
        kind: ListKind,
        /// The number of elements.
        count: u32,
        /// The sum of the declared sizes in bytes.
        declared: u64,
        /// How many bytes follow the sizes.
        found: usize,
    },
    /// A list is too long for its count, or an element for its size.
    #[error("{kind} cannot hold {what} of {found}: the format counts up to 4294967295")]
    ListOverflow {
        /// What kind of list.
        kind: ListKind,
        /// What is too long: `a count` or `an element`.
        what: &'static str,
        /// The number that does not fit.
        found: usize,
    },
}
