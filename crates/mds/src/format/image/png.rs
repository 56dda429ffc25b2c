//! PNG files in and out of pixels, in the modes that Pillow gives them.

use std::io::{Cursor, ErrorKind};

use png::{BitDepth, ColorType, DecodeOptions, Decoder, DecodingError, Encoder, Limits};

use super::{Image, ImageFault, ImageFormat, ImageMode};

const FORMAT: ImageFormat = ImageFormat::Png;

/// Reads the first chunk: uint32 length 13, `IHDR`, uint32 width and height; big-endian.
pub(super) fn dimensions(bytes: &[u8]) -> Result<(u32, u32), ImageFault> {
    let at = FORMAT.signature().len();
    let truncated = || ImageFault::Truncated { format: FORMAT, bytes: bytes.len() };
    let chunk = bytes.get(at..).ok_or_else(truncated)?;
    let (start, rest) = chunk.split_first_chunk::<8>().ok_or_else(truncated)?;
    if start != b"\0\0\0\x0dIHDR" {
        let what = "the first chunk is not IHDR";
        return Err(ImageFault::Header { format: FORMAT, at, what });
    }
    let (width, rest) = rest.split_first_chunk::<4>().ok_or_else(truncated)?;
    let (height, _) = rest.split_first_chunk::<4>().ok_or_else(truncated)?;
    Ok((u32::from_be_bytes(*width), u32::from_be_bytes(*height)))
}

/// Decodes a file in at most `limit` bytes of memory.
pub(super) fn decode(bytes: &[u8], limit: u64) -> Result<Image<'static>, ImageFault> {
    let refused = |error| fault(error, bytes.len());
    let (width, height) = dimensions(bytes)?;
    let mut options = DecodeOptions::default();
    options.set_ignore_text_chunk(true);
    options.set_ignore_iccp_chunk(true);
    options.set_ignore_adler32(false); // as Pillow
    let mut decoder = Decoder::new_with_options(Cursor::new(bytes), options);
    // The limit is on rows and chunks held at a time; the pixels are counted below.
    decoder.set_limits(Limits { bytes: usize::try_from(limit).unwrap_or(usize::MAX) });
    let mut reader = decoder.read_info().map_err(refused)?;

    let (color, depth) = reader.output_color_type();
    let mode = mode(color, depth);
    let stored = reader.output_buffer_size().map(|bytes| bytes as u64);
    let wanted = mode.row_bytes(width).checked_mul(u64::from(height));
    let both = stored.zip(wanted).and_then(|(stored, wanted)| match depth {
        BitDepth::Eight => Some(stored), // nothing to convert
        _ => stored.checked_add(wanted),
    });
    let needed = both.unwrap_or(u64::MAX);
    let (Some(stored), true) = (stored, needed <= limit) else {
        return Err(ImageFault::TooLarge { width, height, needed, limit });
    };
    let mut pixels = vec![0; stored as usize];
    reader.next_frame(&mut pixels).map_err(refused)?;
    Image::new(width, height, mode, convert(pixels, width, color, depth))
}

/// The mode that Pillow gives an image.
fn mode(color: ColorType, depth: BitDepth) -> ImageMode {
    match (color, depth) {
        (ColorType::Grayscale, BitDepth::One) => ImageMode::Bilevel,
        (ColorType::Grayscale, BitDepth::Sixteen) => ImageMode::I16,
        (ColorType::Grayscale, _) => ImageMode::L,
        (ColorType::Rgb, _) => ImageMode::Rgb,
        (ColorType::Indexed, _) => ImageMode::P,
        // Pillow has no room for 16 bits of grey and alpha, and makes it RGBA.
        (ColorType::GrayscaleAlpha, BitDepth::Sixteen) => ImageMode::Rgba,
        (ColorType::GrayscaleAlpha, _) => ImageMode::La,
        (ColorType::Rgba, _) => ImageMode::Rgba,
    }
}

/// Turns stored samples into those of the mode: fewer than 8 bits become bytes, of which greys
/// fill the range; of 16 bits, colours keep the high byte and greys become little-endian.
fn convert(mut pixels: Vec<u8>, width: u32, color: ColorType, depth: BitDepth) -> Vec<u8> {
    match (color, depth) {
        (ColorType::Grayscale, BitDepth::One) => pixels,
        (ColorType::Grayscale, BitDepth::Two) => unpack(&pixels, width, 2, 0x55),
        (ColorType::Grayscale, BitDepth::Four) => unpack(&pixels, width, 4, 0x11),
        (ColorType::Indexed, BitDepth::One) => unpack(&pixels, width, 1, 1),
        (ColorType::Indexed, BitDepth::Two) => unpack(&pixels, width, 2, 1),
        (ColorType::Indexed, BitDepth::Four) => unpack(&pixels, width, 4, 1),
        (ColorType::Grayscale, BitDepth::Sixteen) => {
            swap_bytes(&mut pixels);
            pixels
        }
        (ColorType::GrayscaleAlpha, BitDepth::Sixteen) => {
            for pixel in pixels.as_chunks_mut::<4>().0 {
                let [grey, _, alpha, _] = *pixel;
                *pixel = [grey, grey, grey, alpha];
            }
            pixels
        }
        (_, BitDepth::Sixteen) => pixels.as_chunks::<2>().0.iter().map(|&[high, _]| high).collect(),
        (_, _) => pixels,
    }
}

/// Samples of `bits` bits, rows beginning at bytes, as bytes multiplied by `scale`.
fn unpack(packed: &[u8], width: u32, bits: usize, scale: u8) -> Vec<u8> {
    let width = width as usize;
    let row_bytes = (width * bits).div_ceil(8).max(1);
    let mask = (1_u8 << bits) - 1;
    let mut samples = Vec::with_capacity(packed.len() / row_bytes * width);
    for row in packed.chunks_exact(row_bytes) {
        let shifts = (0..8).step_by(bits).rev();
        let row = row.iter().flat_map(|byte| shifts.clone().map(move |shift| byte >> shift & mask));
        samples.extend(row.take(width).map(|sample| sample * scale));
    }
    samples
}

fn swap_bytes(pixels: &mut [u8]) {
    for sample in pixels.as_chunks_mut::<2>().0 {
        sample.reverse();
    }
}

/// Encodes an image without loss.
pub(super) fn encode(image: &Image<'_>) -> Result<Vec<u8>, ImageFault> {
    let (color, depth) = match image.mode() {
        ImageMode::Bilevel => (ColorType::Grayscale, BitDepth::One),
        ImageMode::L => (ColorType::Grayscale, BitDepth::Eight),
        ImageMode::P => (ColorType::Indexed, BitDepth::Eight),
        ImageMode::La => (ColorType::GrayscaleAlpha, BitDepth::Eight),
        ImageMode::Rgb => (ColorType::Rgb, BitDepth::Eight),
        ImageMode::Rgba => (ColorType::Rgba, BitDepth::Eight),
        ImageMode::I16 | ImageMode::I16B => (ColorType::Grayscale, BitDepth::Sixteen),
        mode => {
            let modes = "1, L, LA, P, RGB, RGBA, I;16 or I;16B";
            return Err(ImageFault::EncodeMode { mode, format: FORMAT, modes });
        }
    };
    let swapped = (image.mode() == ImageMode::I16).then(|| {
        let mut pixels = image.pixels().to_vec();
        swap_bytes(&mut pixels);
        pixels
    });
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, image.width(), image.height());
    encoder.set_color(color);
    encoder.set_depth(depth);
    if color == ColorType::Indexed {
        encoder.set_palette((0..=u8::MAX).flat_map(|grey| [grey; 3]).collect::<Vec<_>>());
    }
    let written = encoder.write_header().and_then(|mut writer| {
        writer.write_image_data(swapped.as_deref().unwrap_or(image.pixels()))?;
        writer.finish()
    });
    let (width, height) = (image.width(), image.height());
    written.map_err(|error| {
        let reason = error.to_string();
        ImageFault::Encode { width, height, format: FORMAT, reason }
    })?;
    Ok(file)
}

fn fault(error: DecodingError, bytes: usize) -> ImageFault {
    match error {
        DecodingError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            ImageFault::Truncated { format: FORMAT, bytes }
        }
        error => ImageFault::Decode { format: FORMAT, reason: error.to_string() },
    }
}
