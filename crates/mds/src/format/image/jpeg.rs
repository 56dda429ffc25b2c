//! JPEG files in and out of pixels, equal to Pillow's libjpeg-turbo bit for bit.
//!
//! The codec is C code that reports errors by unwinding through its own frames, which it is built
//! for. No unwind leaves this module, so it works only where panics unwind: a program built with
//! `panic = "abort"` ends at the first damaged file.

use std::any::Any;
use std::cell::Cell;
use std::io::{self, BufRead, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use mozjpeg::{ColorSpace, Compress, Decompress};

use super::{Image, ImageFault, ImageFormat, ImageMode};

/// Pillow's default.
const QUALITY: f32 = 75.0;
const FORMAT: ImageFormat = ImageFormat::Jpeg;

/// What the segments before the first scan say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) width: u32,
    pub(super) height: u32,
    mode: ImageMode,
    /// The components come in more than one scan, so that the decoder holds the whole image as
    /// coefficients before it gives out the first row.
    several_scans: bool,
}

impl Header {
    /// Reads the segments up to the first scan.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, ImageFault> {
        let mut segments = Segments { bytes, at: FORMAT.signature().len() - 1 };
        let mut frame = None;
        loop {
            let (marker, at, body) = segments.next()?;
            match marker {
                START_OF_SCAN => {
                    let damaged = |what| ImageFault::Header { format: FORMAT, at, what };
                    let mut header: Self = frame.ok_or_else(|| damaged("a scan, but no frame"))?;
                    let scanned = body.first().copied().unwrap_or(0);
                    header.several_scans |= u64::from(scanned) < header.mode.row_bytes(1);
                    return Ok(header);
                }
                0xc0..=0xcf if !matches!(marker, HUFFMAN_TABLES | 0xc8 | ARITHMETIC_TABLES) => {
                    frame = Some(Self::parse_frame(marker, at, body)?);
                }
                _ => {}
            }
        }
    }

    /// `body`: sample bits, uint16 height, uint16 width, number of components; big-endian.
    fn parse_frame(marker: u8, at: usize, body: &[u8]) -> Result<Self, ImageFault> {
        let &[bits, h1, h0, w1, w0, count, ..] = body else {
            return Err(ImageFault::Header { format: FORMAT, at, what: "the frame is too short" });
        };
        if bits != 8 {
            return Err(ImageFault::SampleBits { bits });
        }
        let mode = match count {
            1 => ImageMode::L,
            3 => ImageMode::Rgb,
            4 => ImageMode::Cmyk,
            count => return Err(ImageFault::Components { count }),
        };
        let progressive = matches!(marker, 0xc2 | 0xc6 | 0xca | 0xce);
        Ok(Self {
            width: u32::from(u16::from_be_bytes([w1, w0])),
            height: u32::from(u16::from_be_bytes([h1, h0])),
            mode,
            several_scans: progressive,
        })
    }

    /// The memory that decoding takes, in bytes.
    fn decoded_bytes(&self) -> u64 {
        // Cannot overflow: sides have 16 bits. A coefficient is an int16.
        let pixels = self.mode.row_bytes(self.width) * u64::from(self.height);
        if self.several_scans { 3 * pixels } else { pixels }
    }
}

/// Usual progressive files have about ten scans, and none needs more than 64 for each of four
/// components. The bound keeps a file of some kilobytes from taking hours; libjpeg-turbo's own
/// fuzzers use it.
const MAX_SCANS: usize = 500;

const HUFFMAN_TABLES: u8 = 0xc4;
const ARITHMETIC_TABLES: u8 = 0xcc;
const START_OF_SCAN: u8 = 0xda;

/// The marker segments of a file.
struct Segments<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Segments<'a> {
    /// The next marker, where it begins and the bytes after its length. Steps over bytes between
    /// segments as Pillow does.
    fn next(&mut self) -> Result<(u8, usize, &'a [u8]), ImageFault> {
        loop {
            let at = self.at;
            match self.byte()? {
                0xff => {}
                _ => continue,
            }
            let marker = self.byte()?;
            match marker {
                // Another fill byte: the marker may begin with it.
                0xff => self.at -= 1,
                // Restarts, start and end of image and the like: no length follows.
                0x00 | 0xc8 | 0xd0..=0xd9 | 0xf0..=0xfd => {}
                0x01..=0xbf => {
                    let what = "no such marker";
                    return Err(ImageFault::Header { format: FORMAT, at, what });
                }
                _ => {
                    let length = usize::from(u16::from_be_bytes([self.byte()?, self.byte()?]));
                    let body = length.checked_sub(2).ok_or(ImageFault::Header {
                        format: FORMAT,
                        at,
                        what: "the segment is shorter than its own length",
                    })?;
                    return Ok((marker, at, self.take(body)?));
                }
            }
        }
    }

    fn byte(&mut self) -> Result<u8, ImageFault> {
        self.take(1).map(|bytes| bytes.first().copied().unwrap_or_default())
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], ImageFault> {
        let end = self.at.saturating_add(count);
        let taken = self.bytes.get(self.at..end).ok_or_else(|| truncated(self.bytes))?;
        self.at = end;
        Ok(taken)
    }
}

/// Decodes a file in at most `limit` bytes of memory.
pub(super) fn decode(bytes: &[u8], limit: u64) -> Result<Image<'static>, ImageFault> {
    let header = Header::parse(bytes)?;
    let needed = header.decoded_bytes();
    if needed > limit {
        let Header { width, height, .. } = header;
        return Err(ImageFault::TooLarge { width, height, needed, limit });
    }
    let count = bytes.windows(2).filter(|pair| *pair == [0xff, START_OF_SCAN]).count();
    if count > MAX_SCANS {
        return Err(ImageFault::Scans { count, limit: MAX_SCANS });
    }
    let ended = Cell::new(false);
    let mut pixels = None;
    let outcome = catch_unwind(AssertUnwindSafe(|| -> io::Result<()> {
        let file = WholeFile { rest: bytes, ended: &ended };
        let decoder = Decompress::new_reader(file)?;
        if decoder.size() != (header.width as usize, header.height as usize) {
            return Err(io::Error::other("it has several frames of different sizes"));
        }
        let mut rows = decoder.to_colorspace(color_space(header.mode))?;
        pixels = Some(rows.read_scanlines::<u8>()?);
        rows.finish()
    }));
    let failed = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(payload) => Some(unwound_text(payload)),
    };
    let mut pixels = match (failed, pixels) {
        (None, Some(pixels)) => pixels,
        // All rows are there and only the end marker is not: Pillow takes that for complete.
        (Some(_), Some(pixels)) if ended.get() => pixels,
        (Some(_), None) if ended.get() => return Err(truncated(bytes)),
        (reason, _) => {
            let reason = reason.unwrap_or_default();
            return Err(ImageFault::Decode { format: FORMAT, reason });
        }
    };
    if header.mode == ImageMode::Cmyk {
        invert(&mut pixels);
    }
    Image::new(header.width, header.height, header.mode, pixels)
}

/// Encodes an image as Pillow does by default, byte for byte.
pub(super) fn encode(image: &Image<'_>) -> Result<Vec<u8>, ImageFault> {
    let (space, pixels) = match image.mode() {
        ImageMode::Bilevel => (ColorSpace::JCS_GRAYSCALE, Some(bits_to_bytes(image))),
        ImageMode::L => (ColorSpace::JCS_GRAYSCALE, None),
        ImageMode::Rgb => (ColorSpace::JCS_RGB, None),
        ImageMode::Rgbx => (ColorSpace::JCS_RGB, Some(drop_fourth(image.pixels()))),
        ImageMode::YCbCr => (ColorSpace::JCS_YCbCr, None),
        ImageMode::Cmyk => {
            let mut pixels = image.pixels().to_vec();
            invert(&mut pixels);
            (ColorSpace::JCS_CMYK, Some(pixels))
        }
        mode => {
            let modes = "1, L, RGB, RGBX, CMYK or YCbCr";
            return Err(ImageFault::EncodeMode { mode, format: FORMAT, modes });
        }
    };
    let pixels = pixels.as_deref().unwrap_or(image.pixels());
    let (width, height) = (image.width(), image.height());
    let refused = |reason| ImageFault::Encode { width, height, format: FORMAT, reason };
    let outcome = catch_unwind(AssertUnwindSafe(|| -> io::Result<Vec<u8>> {
        let mut encoder = Compress::new(space);
        encoder.set_size(width as usize, height as usize);
        encoder.set_fastest_defaults(); // libjpeg's own defaults instead of mozjpeg's
        encoder.set_quality(QUALITY);
        let mut rows = encoder.start_compress(Vec::new())?;
        rows.write_scanlines(pixels)?;
        rows.finish()
    }));
    match outcome {
        Ok(encoded) => encoded.map_err(|error| refused(error.to_string())),
        Err(payload) => Err(refused(unwound_text(payload))),
    }
}

fn color_space(mode: ImageMode) -> ColorSpace {
    match mode {
        ImageMode::L => ColorSpace::JCS_GRAYSCALE,
        ImageMode::Cmyk => ColorSpace::JCS_CMYK,
        _ => ColorSpace::JCS_RGB,
    }
}

/// Photoshop stores ink inverted, and Pillow takes every four-component file for its.
fn invert(pixels: &mut [u8]) {
    for sample in pixels {
        *sample = !*sample;
    }
}

/// Black and white as bytes of 0 and 255.
fn bits_to_bytes(image: &Image<'_>) -> Vec<u8> {
    let width = image.width() as usize;
    let mut bytes = Vec::with_capacity(width * image.height() as usize);
    for row in image.pixels().chunks_exact(width.div_ceil(8).max(1)) {
        let bits = row.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
        bytes.extend(bits.take(width).map(|bit| bit * 255));
    }
    bytes
}

fn drop_fourth(pixels: &[u8]) -> Vec<u8> {
    let (pixels, _) = pixels.as_chunks::<4>();
    pixels.iter().flat_map(|&[r, g, b, _]| [r, g, b]).collect()
}

fn truncated(bytes: &[u8]) -> ImageFault {
    ImageFault::Truncated { format: FORMAT, bytes: bytes.len() }
}

/// What the C code said when it gave up.
fn unwound_text(payload: Box<dyn Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(text) => text.trim_start_matches("libjpeg fatal error: ").to_owned(),
        Err(_) => "its decoder failed".to_owned(),
    }
}

/// A file in one piece. To read past its end is an error, where the decoder on its own would make
/// up the missing pixels.
struct WholeFile<'a> {
    rest: &'a [u8],
    ended: &'a Cell<bool>,
}

impl BufRead for WholeFile<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.rest.is_empty() {
            self.ended.set(true);
            return Err(io::Error::other("the file ends"));
        }
        Ok(self.rest)
    }

    fn consume(&mut self, count: usize) {
        self.rest = self.rest.get(count..).unwrap_or_default();
    }
}

impl Read for WholeFile<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.rest.read(buffer)
    }
}
