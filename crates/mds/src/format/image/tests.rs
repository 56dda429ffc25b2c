//! What the reference and Pillow make of the same bytes, every fault, and damaged files.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::*;

/// Written by `tests/fixtures/make_images.py`.
const CASES: &str = include_str!("../../../../../tests/fixtures/images.jsonl");

fn cases(kind: &str) -> Vec<Value> {
    let cases = CASES.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let cases: Vec<_> = cases.filter(|case| case["kind"] == kind).collect();
    assert!(!cases.is_empty(), "no case of kind {kind}");
    cases
}

fn bytes(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap()).unwrap()
}

fn number(value: &Value) -> u32 {
    value.as_u64().unwrap().try_into().unwrap()
}

/// The image that a case describes.
fn image(case: &Value) -> Image<'static> {
    let mode = ImageMode::from_name(case["mode"].as_str().unwrap()).unwrap();
    let (width, height) = (number(&case["width"]), number(&case["height"]));
    Image::new(width, height, mode, bytes(&case["pixels"])).unwrap()
}

fn file(case: &Value) -> ImageFile<'static> {
    let format = match case["format"].as_str().unwrap() {
        "jpeg" => ImageFormat::Jpeg,
        _ => ImageFormat::Png,
    };
    ImageFile::new(format, bytes(&case["file"])).unwrap()
}

/// The file of the case with this name.
fn named(name: &str) -> ImageFile<'static> {
    file(cases("file").iter().find(|case| case["name"] == name).unwrap())
}

fn noise(count: usize) -> Vec<u8> {
    (0..count).map(|i| (i.wrapping_mul(2_654_435_761) >> 7) as u8).collect()
}

#[track_caller]
fn assert_fault<T: std::fmt::Debug>(result: Result<T, ImageFault>, text: &str) {
    assert_eq!(result.unwrap_err().to_string(), text);
}

#[test]
fn files_decode_to_the_pixels_of_pillow() {
    for case in cases("file") {
        let file = file(&case);
        let size = (number(&case["width"]), number(&case["height"]));
        assert_eq!(file.dimensions().unwrap(), size, "{}", case["name"]);
        let image = file.decode().unwrap();
        assert_eq!((image.width(), image.height()), size, "{}", case["name"]);
        assert_eq!(image.mode().name(), case["mode"], "{}", case["name"]);
        assert_eq!(hex::encode(Sha256::digest(image.pixels())), case["sha256"], "{}", case["name"]);
    }
}

#[test]
fn files_are_kept_byte_for_byte() {
    for case in cases("file") {
        assert_eq!(file(&case).bytes(), bytes(&case["file"]), "{}", case["name"]);
    }
    let stored = bytes(&cases("file")[0]["file"]);
    let file = ImageFile::new(ImageFormat::Jpeg, stored.as_slice()).unwrap();
    assert_eq!(file.format(), ImageFormat::Jpeg);
    assert!(matches!(file.into_bytes(), Cow::Borrowed(_)));
}

#[test]
fn jpeg_files_are_written_byte_for_byte_as_by_pillow() {
    for case in cases("encode") {
        let file = ImageFile::from_image(&image(&case), ImageFormat::Jpeg).unwrap();
        assert!(file.bytes() == bytes(&case["file"]), "{} {}", case["mode"], case["width"]);
    }
}

#[test]
fn png_files_are_written_without_loss() {
    for mode in ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"] {
        let mode = ImageMode::from_name(mode).unwrap();
        let pixels = noise(mode.row_bytes(19) as usize * 7);
        let image = Image::new(19, 7, mode, pixels).unwrap();
        let file = ImageFile::from_image(&image, ImageFormat::Png).unwrap();
        assert_eq!(file.decode().unwrap(), image);
    }
    let big_endian = Image::new(1, 1, ImageMode::I16B, &[1, 2][..]).unwrap();
    let decoded = ImageFile::from_image(&big_endian, ImageFormat::Png).unwrap().decode().unwrap();
    assert_eq!(decoded, Image::new(1, 1, ImageMode::I16, &[2, 1][..]).unwrap());
}

#[test]
fn pil_is_stored_as_by_the_reference() {
    let cases = cases("pil");
    let names: Vec<_> = cases.iter().map(|case| case["mode"].as_str().unwrap()).collect();
    assert_eq!(names, ImageMode::ALL.map(ImageMode::name));
    for case in &cases {
        let (image, stored) = (image(case), bytes(&case["stored"]));
        let mut out = b"before".to_vec();
        image.encode_pil(&mut out);
        assert_eq!(out, [b"before", &stored[..]].concat(), "{}", case["mode"]);
        let decoded = Image::decode_pil(&stored).unwrap();
        assert_eq!(decoded, image);
        assert!(matches!(decoded.into_pixels(), Cow::Borrowed(_)), "{}", case["mode"]);
    }
}

#[test]
fn empty_images_are_stored_too() {
    for (width, height) in [(0, 3), (3, 0), (0, 0), (u32::MAX, 0)] {
        let image = Image::new(width, height, ImageMode::Rgba, Vec::new()).unwrap();
        let mut stored = Vec::new();
        image.encode_pil(&mut stored);
        assert_eq!(Image::decode_pil(&stored).unwrap(), image);
    }
}

#[test]
fn padding_bits_of_black_and_white_are_cleared() {
    let clean = Image::new(3, 2, ImageMode::Bilevel, &[0xe0, 0x40][..]).unwrap();
    let dirty = Image::new(3, 2, ImageMode::Bilevel, &[0xff, 0x40][..]).unwrap();
    assert_eq!(dirty, clean);
    assert_eq!(dirty.pixels(), [0xe0, 0x40]);
    let whole = Image::new(8, 1, ImageMode::Bilevel, &[0xff][..]).unwrap();
    assert_eq!(whole.pixels(), [0xff]);
}

#[test]
fn lists_are_stored_as_by_the_reference() {
    for case in cases("list") {
        let kind = match case["encoding"].as_str().unwrap() {
            "jpeg_array" => ListKind::JpegArray,
            _ => ListKind::List,
        };
        let stored = bytes(&case["stored"]);
        let elements: Vec<_> = case["elements"].as_array().unwrap().iter().map(bytes).collect();
        let elements: Vec<_> = elements.iter().map(Vec::as_slice).collect();
        assert_eq!(decode_list(kind, &stored).unwrap(), elements, "{}", case["encoding"]);
        let mut out = b"before".to_vec();
        encode_list(kind, &elements, &mut out).unwrap();
        assert_eq!(out, [b"before", &stored[..]].concat(), "{}", case["encoding"]);
    }
}

#[test]
fn faults_of_raw_images() {
    assert_fault(
        Image::decode_pil(&[0; 11]),
        "a raw image begins with 12 bytes of lengths, but there are only 11 bytes",
    );
    assert_fault(
        Image::decode_pil(b"\x01\0\0\0\x01\0\0\0\xff\xff\xff\xffL"),
        "the mode of the raw image takes 4294967295 bytes, but only 1 follow",
    );
    assert_fault(
        Image::decode_pil(b"\x01\0\0\0\x01\0\0\0\x03\0\0\0B\xffR"),
        "there is no image mode \"B\u{fffd}R\"; Pillow's modes are 1 L P RGB CMYK YCbCr LAB HSV I \
         F LA PA RGBX RGBA La RGBa I;16 I;16L I;16B I;16N",
    );
    let mut long = b"\x01\0\0\0\x01\0\0\0\x00\x10\0\0".to_vec();
    long.resize(12 + 4096, b'x');
    let text = Image::decode_pil(&long).unwrap_err().to_string();
    assert!(text.starts_with("there is no image mode \"xxxxxxxxxxxxxxxx\"; "), "{text}");
    assert_fault(
        Image::decode_pil(b"\x02\0\0\0\x02\0\0\0\x01\0\0\0Labc"),
        "an image of 2 x 2 pixels in mode L takes 4 bytes, not 3",
    );
    assert_fault(
        Image::decode_pil(b"\x02\0\0\0\x02\0\0\0\x01\0\0\0Labcde"),
        "an image of 2 x 2 pixels in mode L takes 4 bytes, not 5",
    );
    assert_fault(
        Image::new(u32::MAX, u32::MAX, ImageMode::Rgba, Vec::new()),
        "an image of 4294967295 x 4294967295 pixels in mode RGBA does not fit in memory",
    );
}

#[test]
fn faults_of_files() {
    assert_fault(
        ImageFile::new(ImageFormat::Jpeg, &b"\x89PNG"[..]),
        "the bytes are no JPEG file: they begin with [89, 50, 4e], not [ff, d8, ff]",
    );
    assert_fault(
        ImageFile::new(ImageFormat::Png, &b"\xff\xd8"[..]),
        "the bytes are no PNG file: they begin with [ff, d8], not [89, 50, 4e, 47, 0d, 0a, 1a, 0a]",
    );
    let jpeg = |bytes: &[u8]| ImageFile::new(ImageFormat::Jpeg, bytes.to_vec()).unwrap();
    let png = |bytes: &[u8]| ImageFile::new(ImageFormat::Png, bytes.to_vec()).unwrap();
    let frame = |bits, count| {
        [b"\xff\xd8\xff\xc0\0\x08", &[bits, 0, 1, 0, 1, count][..], b"\xff\xda\0\x03\x01"].concat()
    };
    assert_fault(
        jpeg(&frame(12, 1)).decode(),
        "the JPEG file has samples of 12 bits; only 8 bits are decoded",
    );
    assert_fault(
        jpeg(&frame(8, 2)).dimensions(),
        "the JPEG file has 2 components; only 1, 3 and 4 are decoded",
    );
    assert_fault(
        jpeg(b"\xff\xd8\xff\xda\0\x03\x01").decode(),
        "the header of the JPEG file is damaged at byte 2: a scan, but no frame",
    );
    assert_fault(
        jpeg(b"\xff\xd8\xff\xc0\0\x04\x08\0").decode(),
        "the header of the JPEG file is damaged at byte 2: the frame is too short",
    );
    assert_fault(
        jpeg(b"\xff\xd8\xff\xe0\0\x01").decode(),
        "the header of the JPEG file is damaged at byte 2: the segment is shorter than its own \
         length",
    );
    assert_fault(
        jpeg(b"\xff\xd8\xff\x02\0\x02").decode(),
        "the header of the JPEG file is damaged at byte 2: no such marker",
    );
    assert_fault(
        png(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIDAT").dimensions(),
        "the header of the PNG file is damaged at byte 8: the first chunk is not IHDR",
    );
    let text = "the PNG file is truncated: its image goes on after its 23 bytes";
    assert_fault(png(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x01\0\0\0").dimensions(), text);
    let mut broken = named("grey of 8 bits, interlaced=0").into_bytes().into_owned();
    broken[8 + 8 + 8] = 3; // the bit depth, which the checksum covers
    let text = "the PNG file cannot be decoded: CRC error: expected 0x";
    let found = png(&broken).decode().unwrap_err().to_string();
    assert!(found.starts_with(text), "{found}");
    let mut frames = named("L 17x9").into_bytes().into_owned();
    let frame = frames.windows(2).position(|marker| marker == b"\xff\xc0").unwrap();
    frames.splice(frame..frame, frames[frame..frame + 13].to_vec());
    assert_fault(
        jpeg(&frames).decode(),
        "the JPEG file cannot be decoded: Invalid JPEG file structure: two SOF markers",
    );
}

#[test]
fn a_limit_is_kept_before_memory_is_taken() {
    let within = |name, limit| named(name).decode_within(limit);
    let file = "4:2:0 33x19 progressive=False";
    assert!(within(file, 33 * 19 * 3).is_ok());
    let text = "decoding 33 x 19 pixels takes 1881 bytes, more than the limit of 1880";
    assert_fault(within(file, 33 * 19 * 3 - 1), text);
    let text = "decoding 33 x 19 pixels takes 5643 bytes, more than the limit of 5642";
    assert_fault(within("4:2:0 33x19 progressive=True", 3 * 33 * 19 * 3 - 1), text);
    let text = "decoding 11 x 5 pixels takes 495 bytes, more than the limit of 494";
    assert_fault(within("RGB of 16 bits, interlaced=0", 11 * 5 * (6 + 3) - 1), text);

    let mut huge = named("L 17x9").into_bytes().into_owned();
    let frame = huge.windows(2).position(|marker| marker == b"\xff\xc0").unwrap();
    huge[frame + 5..frame + 9].fill(0xff);
    let huge = ImageFile::new(ImageFormat::Jpeg, huge).unwrap();
    let text =
        "decoding 65535 x 65535 pixels takes 4294836225 bytes, more than the limit of 1073741824";
    assert_fault(huge.decode(), text);
}

#[test]
fn faults_of_encoding() {
    let image = |width, mode: ImageMode| {
        Image::new(width, 1, mode, noise(mode.row_bytes(width) as usize)).unwrap()
    };
    assert_fault(
        ImageFile::from_image(&image(1, ImageMode::Rgba), ImageFormat::Jpeg),
        "an image in mode RGBA cannot be stored as JPEG; convert it to 1, L, RGB, RGBX, CMYK or \
         YCbCr",
    );
    assert_fault(
        ImageFile::from_image(&image(1, ImageMode::Cmyk), ImageFormat::Png),
        "an image in mode CMYK cannot be stored as PNG; convert it to 1, L, LA, P, RGB, RGBA, I;16 \
         or I;16B",
    );
    assert_fault(
        ImageFile::from_image(&image(0, ImageMode::L), ImageFormat::Jpeg),
        "an image of 0 x 1 pixels cannot be stored as JPEG: Empty JPEG image (DNL not supported)",
    );
    assert_fault(
        ImageFile::from_image(&image(65501, ImageMode::L), ImageFormat::Jpeg),
        "an image of 65501 x 1 pixels cannot be stored as JPEG: Maximum supported image dimension \
         is 65500 pixels",
    );
    assert_fault(
        ImageFile::from_image(&image(0, ImageMode::L), ImageFormat::Png),
        "an image of 0 x 1 pixels cannot be stored as PNG: Zero width not allowed",
    );
}

#[test]
fn faults_of_lists() {
    use ListKind::{JpegArray, List};
    let words =
        |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    assert_fault(
        decode_list(List, &[0; 7]),
        "an image list begins with 8 bytes of counts, but there are only 7 bytes",
    );
    assert_fault(
        decode_list(JpegArray, &[0; 3]),
        "a JPEG array begins with 4 bytes of counts, but there are only 3 bytes",
    );
    assert_fault(
        decode_list(List, &words(&[1, 0])),
        "the reserved word of the image list is 1, not 0: a later version wrote it",
    );
    let empty = "a JPEG array holds at least one file, but this one holds none";
    assert_fault(decode_list(JpegArray, &words(&[0])), empty);
    assert_fault(encode_list(JpegArray, &[], &mut Vec::new()), empty);
    assert_fault(
        decode_list(List, &words(&[0, u32::MAX, 1])),
        "an image list declares 4294967295 sizes, 17179869180 bytes of them, but only 4 bytes \
         follow",
    );
    assert_fault(
        decode_list(JpegArray, &words(&[2, 1, 4, 0])),
        "the 2 elements of a JPEG array take 5 bytes, but 4 bytes follow",
    );
    assert_fault(
        decode_list(List, &words(&[0, 2, u32::MAX, u32::MAX, 0])),
        "the 2 elements of an image list take 8589934590 bytes, but 4 bytes follow",
    );
    assert_fault(
        decode_list(List, &words(&[0, 0, 7])),
        "the 0 elements of an image list take 0 bytes, but 4 bytes follow",
    );
    let fault =
        ImageFault::ListOverflow { kind: List, what: "an element", found: u32::MAX as usize + 1 };
    assert_eq!(
        fault.to_string(),
        "an image list cannot hold an element of 4294967296: the format counts up to 4294967295"
    );
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    for case in cases("file") {
        let whole = file(&case);
        // Pillow too needs neither the end marker of a JPEG file nor what comes after it; the
        // last chunk of a PNG file ends in a checksum of a constant.
        let spared = match case["name"].as_str().unwrap() {
            "bytes after the end" => 2 + b"left over".len(),
            _ if whole.format() == ImageFormat::Jpeg => 2,
            _ => 4,
        };
        for cut in whole.format().signature().len()..whole.bytes().len() {
            let cut_file = ImageFile::new(whole.format(), &whole.bytes()[..cut]).unwrap();
            let decoded = cut_file.decode();
            if cut + spared < whole.bytes().len() {
                let name = &case["name"];
                let fault = decoded.expect_err(&format!("{name}, cut to {cut} bytes"));
                let text = format!(
                    "the {} file is truncated: its image goes on after its {cut} bytes",
                    whole.format()
                );
                assert_eq!(fault.to_string(), text, "{name}");
            }
        }
    }
}

#[test]
fn flipped_bits_give_an_image_or_an_error() {
    const LIMIT: u64 = 1 << 20;
    for case in cases("file") {
        let whole = file(&case);
        let mut bytes = whole.bytes().to_vec();
        // Every bit of the small files, and one bit of every byte of the others.
        let step = if bytes.len() < 400 { 1 } else { 8 };
        for bit in (64..bytes.len() * 8).step_by(step).map(|bit| bit + bit / 8 % step) {
            bytes[bit / 8] ^= 1 << (bit % 8);
            let damaged = ImageFile::new(whole.format(), bytes.as_slice()).unwrap();
            if let Ok(image) = damaged.decode_within(LIMIT) {
                assert!(image.pixels().len() as u64 <= LIMIT);
                assert_eq!(damaged.dimensions().unwrap(), (image.width(), image.height()));
            }
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn damaged_raw_images_and_lists_are_errors() {
    for case in cases("pil") {
        let stored = bytes(&case["stored"]);
        for cut in 0..stored.len() {
            Image::decode_pil(&stored[..cut]).unwrap_err();
        }
        for bit in 0..8 * 8 {
            let mut stored = stored.clone();
            stored[bit / 8] ^= 1 << (bit % 8);
            let decoded = Image::decode_pil(&stored);
            // Black and white of 5 pixels takes as many bytes as of other widths up to 8.
            assert!(decoded.is_err() || case["mode"] == "1", "bit {bit} of {}", case["mode"]);
        }
    }
    for case in cases("list") {
        let kind = match case["encoding"].as_str().unwrap() {
            "jpeg_array" => ListKind::JpegArray,
            _ => ListKind::List,
        };
        let stored = bytes(&case["stored"]);
        let head = kind.header_bytes() + 4 * case["elements"].as_array().unwrap().len();
        for cut in 0..stored.len() {
            decode_list(kind, &stored[..cut]).unwrap_err();
        }
        for bit in 0..head * 8 {
            let mut stored = stored.clone();
            stored[bit / 8] ^= 1 << (bit % 8);
            decode_list(kind, &stored).unwrap_err();
        }
    }
}
