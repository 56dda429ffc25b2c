//! Raw images: the `pil` encoding.

use std::borrow::Cow;
use std::fmt;

use super::ImageFault;

/// Width, height and the length of the mode, each a little-endian uint32.
const HEADER_BYTES: usize = 12;

/// How the pixels of an image are laid out: the modes of Pillow, named as there.
///
/// Samples are bytes unless said otherwise; those of a pixel lie side by side, and rows follow one
/// another from the top without padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImageMode {
    /// `1`: black or white, eight pixels in a byte, the first in the highest bit. Rows begin at
    /// bytes; unused bits of the last byte are 0.
    Bilevel,
    /// `L`: grey.
    L,
    /// `P`: indices into a palette, which is not part of the image.
    P,
    /// `RGB`.
    Rgb,
    /// `CMYK`: 0 is no ink.
    Cmyk,
    /// `YCbCr`: the full-range colours of JFIF.
    YCbCr,
    /// `LAB`: CIE L*a*b*.
    Lab,
    /// `HSV`.
    Hsv,
    /// `I`: int32 in the byte order of the writing machine, little-endian on all usual ones.
    I,
    /// `F`: float32, byte order as in `I`.
    F,
    /// `LA`: grey and alpha.
    La,
    /// `PA`: palette index and alpha.
    Pa,
    /// `RGBX`: RGB and a byte of padding.
    Rgbx,
    /// `RGBA`.
    Rgba,
    /// `La`: grey multiplied by alpha, and alpha.
    LaPremultiplied,
    /// `RGBa`: RGB multiplied by alpha, and alpha.
    RgbaPremultiplied,
    /// `I;16`: little-endian uint16.
    I16,
    /// `I;16L`: the same as `I;16`.
    I16L,
    /// `I;16B`: big-endian uint16.
    I16B,
    /// `I;16N`: uint16 in the byte order of the writing machine.
    I16N,
}

impl ImageMode {
    /// All modes.
    pub const ALL: [Self; 20] = [
        Self::Bilevel,
        Self::L,
        Self::P,
        Self::Rgb,
        Self::Cmyk,
        Self::YCbCr,
        Self::Lab,
        Self::Hsv,
        Self::I,
        Self::F,
        Self::La,
        Self::Pa,
        Self::Rgbx,
        Self::Rgba,
        Self::LaPremultiplied,
        Self::RgbaPremultiplied,
        Self::I16,
        Self::I16L,
        Self::I16B,
        Self::I16N,
    ];

    /// Pillow's name of the mode.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bilevel => "1",
            Self::L => "L",
            Self::P => "P",
            Self::Rgb => "RGB",
            Self::Cmyk => "CMYK",
            Self::YCbCr => "YCbCr",
            Self::Lab => "LAB",
            Self::Hsv => "HSV",
            Self::I => "I",
            Self::F => "F",
            Self::La => "LA",
            Self::Pa => "PA",
            Self::Rgbx => "RGBX",
            Self::Rgba => "RGBA",
            Self::LaPremultiplied => "La",
            Self::RgbaPremultiplied => "RGBa",
            Self::I16 => "I;16",
            Self::I16L => "I;16L",
            Self::I16B => "I;16B",
            Self::I16N => "I;16N",
        }
    }

    /// The mode with Pillow's `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// The bytes that a row of `width` pixels takes.
    pub fn row_bytes(self, width: u32) -> u64 {
        let width = u64::from(width);
        match self {
            Self::Bilevel => width.div_ceil(8),
            Self::L | Self::P => width,
            Self::La | Self::Pa | Self::LaPremultiplied => 2 * width,
            Self::I16 | Self::I16L | Self::I16B | Self::I16N => 2 * width,
            Self::Rgb | Self::YCbCr | Self::Lab | Self::Hsv => 3 * width,
            Self::Cmyk | Self::I | Self::F | Self::Rgbx | Self::Rgba | Self::RgbaPremultiplied => {
                4 * width
            }
        }
    }
}

impl fmt::Display for ImageMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The names of all modes, for error texts.
pub(super) fn mode_names() -> String {
    ImageMode::ALL.map(ImageMode::name).join(" ")
}

/// Pixels with their size and mode.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Image<'a> {
    width: u32,
    height: u32,
    mode: ImageMode,
    pixels: Cow<'a, [u8]>,
}

impl<'a> Image<'a> {
    /// An image of `pixels`, which are laid out as [`ImageMode`] says.
    ///
    /// # Errors
    ///
    /// [`ImageFault::PixelBytes`] unless the pixels fill the size exactly.
    pub fn new(
        width: u32,
        height: u32,
        mode: ImageMode,
        pixels: impl Into<Cow<'a, [u8]>>,
    ) -> Result<Self, ImageFault> {
        let mut pixels = pixels.into();
        let expected = mode
            .row_bytes(width)
            .checked_mul(u64::from(height))
            .and_then(|bytes| usize::try_from(bytes).ok())
            .ok_or(ImageFault::SizeOverflow { width, height, mode })?;
        let found = pixels.len();
        if found != expected {
            return Err(ImageFault::PixelBytes { width, height, mode, expected, found });
        }
        if mode == ImageMode::Bilevel {
            clear_padding(width, &mut pixels);
        }
        Ok(Self { width, height, mode, pixels })
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// How the pixels are laid out.
    pub fn mode(&self) -> ImageMode {
        self.mode
    }

    /// The pixels, row by row from the top: what Pillow's `tobytes()` gives.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The same image, owning its pixels.
    pub fn into_owned(self) -> Image<'static> {
        let Self { width, height, mode, pixels } = self;
        Image { width, height, mode, pixels: Cow::Owned(pixels.into_owned()) }
    }

    /// The pixels without the size, borrowed if the image borrows them.
    pub fn into_pixels(self) -> Cow<'a, [u8]> {
        self.pixels
    }

    /// Appends the `pil` encoding of this image to `out`: the uint32 width, height and length of
    /// the mode's name, the name and the pixels.
    pub fn encode_pil(&self, out: &mut Vec<u8>) {
        let name = self.mode.name();
        out.reserve(HEADER_BYTES + name.len() + self.pixels.len());
        // Lossless: no name is longer than 5 bytes.
        for number in [self.width, self.height, name.len() as u32] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(&self.pixels);
    }

    /// Decodes the `pil` encoding. The pixels stay borrowed from `bytes`.
    ///
    /// # Errors
    ///
    /// [`ImageFault`] unless `bytes` are one image of a known mode and nothing else. (Pillow
    /// ignores bytes after the pixels.)
    pub fn decode_pil(bytes: &'a [u8]) -> Result<Self, ImageFault> {
        let header = || ImageFault::PilHeader { found: bytes.len() };
        let (width, rest) = split_u32(bytes).ok_or_else(header)?;
        let (height, rest) = split_u32(rest).ok_or_else(header)?;
        let (declared, rest) = split_u32(rest).ok_or_else(header)?;
        let (name, pixels) = usize::try_from(declared)
            .ok()
            .and_then(|len| rest.split_at_checked(len))
            .ok_or(ImageFault::PilMode { declared, found: rest.len() })?;
        let mode = ImageMode::ALL.into_iter().find(|mode| mode.name().as_bytes() == name);
        let mode = mode.ok_or_else(|| ImageFault::UnknownMode { name: excerpt(name) })?;
        Self::new(width, height, mode, pixels)
    }
}

/// Splits the little-endian uint32 off the front of `bytes`.
pub(super) fn split_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*number), rest))
}

/// The start of `name` for an error text: a stranger's name may fill the file.
fn excerpt(name: &[u8]) -> String {
    const SHOWN: usize = 16;
    String::from_utf8_lossy(name.get(..SHOWN).unwrap_or(name)).into_owned()
}

/// Zeroes the unused bits at the end of each row, as Pillow does when it reads such pixels.
/// Pixels are copied only if such a bit is set.
fn clear_padding(width: u32, pixels: &mut Cow<'_, [u8]>) {
    let used = width % 8;
    if used == 0 {
        return;
    }
    let row = width.div_ceil(8) as usize;
    let padding = 0xff_u8 >> used;
    let dirty = |row: &[u8]| row.last().is_some_and(|last| last & padding != 0);
    if pixels.chunks_exact(row).any(dirty) {
        for last in pixels.to_mut().chunks_exact_mut(row).filter_map(|row| row.last_mut()) {
            *last &= !padding;
        }
    }
}
