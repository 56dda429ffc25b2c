//! Image files, kept as they are and decoded when asked: the `jpeg` and `png` encodings.

use std::borrow::Cow;
use std::fmt;

use super::{Image, ImageFault, jpeg, png};

/// How much memory [`ImageFile::decode`] may take: 1 GiB.
pub const MAX_DECODED_BYTES: u64 = 1 << 30;

/// The format of an image file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImageFormat {
    /// JPEG: lossy; modes `L`, `RGB` and `CMYK`.
    Jpeg,
    /// PNG: lossless; grey, RGB and palette images, with alpha or without.
    Png,
}

impl ImageFormat {
    /// The bytes that every file of the format begins with. Those of JPEG are the start of the
    /// image and of the first marker, as Pillow checks them.
    pub fn signature(self) -> &'static [u8] {
        match self {
            Self::Jpeg => b"\xff\xd8\xff",
            Self::Png => b"\x89PNG\r\n\x1a\n",
        }
    }
}

impl fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
        })
    }
}

/// A JPEG or PNG file in memory, as it was read.
///
/// Only its signature is checked, as Pillow does when it opens a file: damage further on shows
/// when it is decoded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageFile<'a> {
    format: ImageFormat,
    bytes: Cow<'a, [u8]>,
}

impl<'a> ImageFile<'a> {
    /// A file of `format`.
    ///
    /// # Errors
    ///
    /// [`ImageFault::Signature`] if the bytes do not begin as such a file does.
    pub fn new(format: ImageFormat, bytes: impl Into<Cow<'a, [u8]>>) -> Result<Self, ImageFault> {
        let bytes = bytes.into();
        let expected = format.signature();
        if !bytes.starts_with(expected) {
            let found = bytes.iter().copied().take(expected.len()).collect();
            return Err(ImageFault::Signature { format, expected, found });
        }
        Ok(Self { format, bytes })
    }

    /// Encodes an image with Pillow's defaults.
    ///
    /// JPEG has quality 75 and, for colours, chroma at half the width and height; its bytes equal
    /// Pillow's. It takes the modes `1`, `L`, `RGB`, `RGBX`, `CMYK` and `YCbCr`, and drops the X.
    /// PNG is lossless and takes `1`, `L`, `P`, `RGB`, `RGBA`, `LA`, `I;16` and `I;16B`, which
    /// comes back as `I;16`; the palette of a `P` image, which its pixels do not have, is written
    /// as 256 greys.
    ///
    /// # Errors
    ///
    /// [`ImageFault::EncodeMode`] for other modes; [`ImageFault::Encode`] if the format has no
    /// room for the size: both need at least one pixel, and JPEG takes 65500 in each direction.
    pub fn from_image(
        image: &Image<'_>,
        format: ImageFormat,
    ) -> Result<ImageFile<'static>, ImageFault> {
        let bytes = match format {
            ImageFormat::Jpeg => jpeg::encode(image)?,
            ImageFormat::Png => png::encode(image)?,
        };
        Ok(ImageFile { format, bytes: Cow::Owned(bytes) })
    }

    /// The format.
    pub fn format(&self) -> ImageFormat {
        self.format
    }

    /// The file, byte for byte.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The file, byte for byte; borrowed if this file is.
    pub fn into_bytes(self) -> Cow<'a, [u8]> {
        self.bytes
    }

    /// The same file, owning its bytes.
    pub fn into_owned(self) -> ImageFile<'static> {
        let Self { format, bytes } = self;
        ImageFile { format, bytes: Cow::Owned(bytes.into_owned()) }
    }

    /// The declared width and height in pixels. Only the header is read.
    ///
    /// # Errors
    ///
    /// [`ImageFault`] if the header is damaged or of a kind that is not decoded.
    pub fn dimensions(&self) -> Result<(u32, u32), ImageFault> {
        match self.format {
            ImageFormat::Jpeg => {
                jpeg::Header::parse(&self.bytes).map(|header| (header.width, header.height))
            }
            ImageFormat::Png => png::dimensions(&self.bytes),
        }
    }

    /// Decodes the file into the mode, size and pixels that Pillow gives it, in at most
    /// [`MAX_DECODED_BYTES`] of memory.
    ///
    /// # Errors
    ///
    /// As [`ImageFile::decode_within`].
    pub fn decode(&self) -> Result<Image<'static>, ImageFault> {
        self.decode_within(MAX_DECODED_BYTES)
    }

    /// As [`ImageFile::decode`], in at most `limit` bytes of memory.
    ///
    /// # Errors
    ///
    /// [`ImageFault::TooLarge`] if the declared size needs more than `limit`, before memory is
    /// taken; [`ImageFault::Truncated`] if the file ends too early; other faults if it is damaged.
    /// Like Pillow, this passes over damage within the data of a JPEG image that its decoder can
    /// step over.
    pub fn decode_within(&self, limit: u64) -> Result<Image<'static>, ImageFault> {
        match self.format {
            ImageFormat::Jpeg => jpeg::decode(&self.bytes, limit),
            ImageFormat::Png => png::decode(&self.bytes, limit),
        }
    }
}
