//! Random values of every encoding, each with what another reader must find.

use std::collections::HashMap;

use base64::prelude::{BASE64_STANDARD, Engine};
use mds::format::image::{Image, ImageFile, ImageFormat, ImageMode};
use mds::format::{
    DType, Decimal, Encoding, Format, HashAlgorithm, ImageEncoding, Integer, Json, NdArray, Scalar,
    Value,
};
use serde_json::{Value as Entry, json};

/// The columns of an MDS dataset: every encoding, some under names that try sorting and escapes.
pub(crate) fn mds_columns() -> Vec<(String, Encoding)> {
    let plain = "bytes str int str_int str_float str_decimal json pil jpeg png jpeg_array \
                 jpegarray list[pil] list[jpeg] list[png] ndarray ndarray:";
    let mut columns: Vec<(String, Encoding)> =
        plain.split_whitespace().map(|name| (name.to_owned(), name.parse().unwrap())).collect();
    columns.push(("pkl".to_owned(), Encoding::Pickle));
    for (dtype, shape) in DType::ALL.into_iter().zip(FIXED_SHAPES) {
        columns.push((format!("one {dtype}"), Encoding::Scalar(dtype)));
        columns.push((format!("array of {dtype}"), format!("ndarray:{dtype}").parse().unwrap()));
        let fixed = Encoding::NdArray { dtype: Some(dtype), shape: Some(shape.to_vec()) };
        columns.push((format!("fixed {dtype}"), fixed));
    }
    for name in ["Z", "é", "\u{e000}", "😀", "quote \" and \\", "line\nend\x7f\0"] {
        columns.push((name.to_owned(), Encoding::Int));
    }
    columns
}

const FIXED_SHAPES: [&[u64]; 11] = [
    &[1],
    &[3],
    &[2, 3],
    &[1, 1, 1],
    &[2, 1, 2],
    &[1; 63],
    &[4],
    &[2, 2],
    &[5, 1],
    &[3, 2, 1],
    &[1, 7],
];

/// The columns of a dataset of text. JSON takes any name.
pub(crate) fn text_columns(any_name: bool) -> Vec<(String, Encoding)> {
    let plain = [
        ("s", Encoding::Str),
        ("i", Encoding::Int),
        ("f", Encoding::Float),
        ("t", Encoding::Str),
        ("A number", Encoding::Int),
        ("é", Encoding::Float),
        ("😀", Encoding::Str),
    ];
    let odd = [
        ("quote \" and \\", Encoding::Str),
        ("line\nend\x7f\0", Encoding::Int),
        ("", Encoding::Str),
    ];
    let odd = odd.into_iter().filter(|_| any_name);
    plain.into_iter().chain(odd).map(|(name, encoding)| (name.to_owned(), encoding)).collect()
}

const TEXTS: &[&str] = &[
    "",
    "\0",
    "\u{feff}mark",
    "\r\n\t\x7f\u{85}\u{2028}\u{2029}",
    "naïve",
    "e\u{301} ß ſ İ",
    "中文 עברית",
    "😀🏳\u{fe0f}\u{200d}🌈 \u{10ffff}",
    "\u{d7ff}\u{e000}\u{fffe}\u{ffff}",
    "\"\\/\u{8}\u{c}",
    "NaN",
    "null",
    "\\ud83d",
];
const FLOATS: &[f64] = &[
    0.0,
    -0.0,
    1.0,
    -1.5,
    0.1,
    1e16,
    1e15,
    9999999999999998.0,
    1e-4,
    1e-5,
    1e22,
    1e23,
    5e-324,
    -5e-324,
    2.225073858507201e-308,
    f64::MIN_POSITIVE,
    f64::MAX,
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
];
/// Texts that Python's `Decimal` takes.
const DECIMALS: &[&str] = &[
    "0",
    "-0",
    "0.10",
    "1E-7",
    "0.000001",
    "0.0000001",
    "1e+40",
    "-1.50E-100",
    "NaN",
    "-NaN",
    "sNaN",
    "NaN123",
    "-sNaN0077",
    "inf",
    "-Infinity",
    "0E-10",
    "-0E+5",
    "1E+999999999999999999",
    "00100.00",
    ".5",
    "5.",
    "1_000.5",
];
/// Pickles with what Python's `repr` gives of their values.
const PICKLES: &[(&[u8], &str)] = &[
    (b"N.", "None"),
    (b"I42\n.", "42"),
    (b"\x80\x04\x88.", "True"),
    (b"\x80\x04]\x94(K\x01K\x02e.", "[1, 2]"),
    (b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00\x8c\x01x\x94.", "'x'"),
];

/// Draws values: of each kind by turns an odd one, in order, and a random one.
pub(crate) struct Values {
    state: u64,
    turns: HashMap<String, usize>,
}

impl Values {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed, turns: HashMap::new() }
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }

    fn count(&mut self, kind: &str) -> usize {
        let turn = self.turns.entry(kind.to_owned()).or_default();
        *turn += 1;
        *turn - 1
    }

    /// The choices one after another.
    pub(crate) fn turn<T: Clone>(&mut self, kind: &str, choices: &[T]) -> T {
        choices[self.count(kind) % choices.len()].clone()
    }

    /// Every other time the next odd one.
    fn odd<T: Clone>(&mut self, kind: &str, choices: &[T]) -> Option<T> {
        let turn = self.count(kind);
        turn.is_multiple_of(2).then(|| choices[turn / 2 % choices.len()].clone())
    }

    fn text(&mut self) -> String {
        if let Some(text) = self.odd("text", TEXTS) {
            return text.to_owned();
        }
        let ranges = [(0x20, 0x7e), (0, 0x1ff), (0x370, 0xffff), (0x10000, 0x10ffff)];
        let count = self.between(0, 30);
        let char = |values: &mut Self| {
            let (low, high) = ranges[values.between(0, 3) as usize];
            char::from_u32(values.between(low, high) as u32).unwrap_or('x')
        };
        (0..count).map(|_| char(self)).collect()
    }

    fn float(&mut self) -> f64 {
        self.odd("float", FLOATS).unwrap_or_else(|| match self.between(0, 2) {
            0 => f64::from_bits(self.next()),
            1 => self.between(0, 1 << 53) as f64 / (1u64 << 53) as f64,
            _ => (self.between(0, 2_000_000) as f64 - 1e6) / 100.0,
        })
    }

    fn small_int(&mut self) -> i64 {
        let odd = [0, -1, 1, 1 << 53 | 1, i64::MAX, i64::MIN];
        self.odd("int", &odd).unwrap_or_else(|| self.next() as i64)
    }

    /// The digits of an integer of any size.
    fn huge_int(&mut self) -> String {
        let nines = "9".repeat(4300);
        let odd =
            ["0", "9223372036854775808", "-9223372036854775809", "18446744073709551616", &nines];
        if let Some(text) = self.odd("huge", &odd) {
            return text.to_owned();
        }
        let digits: String =
            (0..self.between(1, 60)).map(|_| char::from(b'1' + (self.next() % 9) as u8)).collect();
        if self.next().is_multiple_of(2) { format!("-{digits}") } else { digits }
    }

    fn decimal(&mut self) -> String {
        if let Some(text) = self.odd("decimal", DECIMALS) {
            return text.to_owned();
        }
        let exponent = self.between(0, 120) as i64 - 60;
        format!("{}E{exponent}", self.huge_int())
    }

    /// A value, and the same as a tree of tags that any reader can build.
    fn json(&mut self, depth: u32) -> (Json, Entry) {
        match self.between(0, if depth > 0 { 8 } else { 4 }) {
            0 => (Json::Null, json!(["null"])),
            1 => (Json::Bool(true), json!(["bool", true])),
            2 => {
                let text = self.huge_int();
                (Json::Int(Integer::parse(&text).unwrap().into_owned()), json!(["int", text]))
            }
            3 => {
                let value = self.float();
                (Json::Float(value), json!(["float", float_bits(value)]))
            }
            4 => {
                let text = self.text();
                (Json::Str(text.as_str().into()), json!(["str", text]))
            }
            5 | 6 => {
                let items: Vec<_> = (0..self.between(0, 4)).map(|_| self.json(depth - 1)).collect();
                let (values, entries): (Vec<_>, Vec<_>) = items.into_iter().unzip();
                (Json::List(values), json!(["list", entries]))
            }
            _ => {
                let (mut values, mut entries) = (Vec::new(), Vec::new());
                for number in 0..self.between(0, 4) {
                    let key = format!("{}{number}", self.text());
                    let (value, entry) = self.json(depth - 1);
                    values.push((key.as_str().into(), value));
                    entries.push(json!([key, entry]));
                }
                (Json::Object(values), json!(["dict", entries]))
            }
        }
    }

    /// A value of a column of MDS and its entry in `expected.jsonl`.
    pub(crate) fn mds(&mut self, encoding: &Encoding) -> (Value<'static>, Entry) {
        match encoding {
            Encoding::Bytes => {
                let count = self.turn("bytes", &[0, 1, 300, 17]);
                let bytes = self.bytes(count);
                let entry = json!({"b64": BASE64_STANDARD.encode(&bytes)});
                (Value::from(bytes), entry)
            }
            Encoding::Str => {
                let text = self.text();
                (text.clone().into(), json!({"str": text}))
            }
            Encoding::Int => {
                let value = self.small_int();
                (value.into(), json!({"int": value.to_string()}))
            }
            Encoding::StrInt => {
                let text = self.huge_int();
                let value = Integer::parse(&text).unwrap().into_owned();
                (value.into(), json!({"int": text}))
            }
            Encoding::StrFloat => {
                let value = self.float();
                (value.into(), json!({"f64_bits": float_bits(value)}))
            }
            Encoding::StrDecimal => {
                let text = self.decimal();
                let value = Decimal::parse(&text).unwrap().into_owned();
                (value.into(), json!({"decimal_of": text}))
            }
            Encoding::Json => {
                let (value, entry) = self.json(3);
                (value.into(), json!({"tree": entry}))
            }
            Encoding::Scalar(dtype) => self.scalar(*dtype),
            Encoding::NdArray { dtype, shape } => {
                let dtype = dtype.unwrap_or_else(|| self.turn("dtype", &DType::ALL));
                let shape = shape.clone().unwrap_or_else(|| self.shape());
                self.array(dtype, shape)
            }
            Encoding::NdArrayColon => {
                let (dtype, shape) = (self.turn("dtype", &DType::ALL), self.shape());
                self.array(dtype, shape)
            }
            Encoding::Image(ImageEncoding::Pil) => self.pil(),
            Encoding::Image(image) => self.image_file(*image),
            Encoding::JpegArray | Encoding::Jpegarray => {
                self.images(1, |values| values.image_file(ImageEncoding::Jpeg))
            }
            Encoding::ImageList(ImageEncoding::Pil) => self.images(0, Self::pil),
            Encoding::ImageList(image) => self.images(0, |values| values.image_file(*image)),
            Encoding::Pickle => {
                let (bytes, repr) = self.turn("pickle", PICKLES);
                (bytes.into(), json!({"repr": repr}))
            }
            other => panic!("no values of {other}"),
        }
    }

    /// A value of a column of text.
    pub(crate) fn text_format(
        &mut self,
        encoding: &Encoding,
        format: &Format,
    ) -> (Value<'static>, Entry) {
        match encoding {
            Encoding::Int => {
                let text = self.huge_int();
                let value = Integer::parse(&text).unwrap().into_owned();
                (value.into(), json!({"int": text}))
            }
            Encoding::Float => {
                let value = self.float();
                (value.into(), json!({"f64_bits": float_bits(value)}))
            }
            _ => {
                let mut text = self.text();
                // Such texts are refused, having no quotes: as are those that end with the first
                // half of the separator.
                for part in [format.separator(), format.newline()].into_iter().flatten() {
                    while format.separator().is_some()
                        && (text.clone() + part).find(part) != Some(text.len())
                    {
                        text.pop();
                    }
                }
                (text.clone().into(), json!({"str": text}))
            }
        }
    }

    fn scalar(&mut self, dtype: DType) -> (Value<'static>, Entry) {
        let bytes = match self.odd(dtype.as_str(), &[0, 1, 2, 3]) {
            // Zero, all bits, the highest one (-0.0 or the least), the lowest (1 or a subnormal).
            Some(0) => vec![0; dtype.size()],
            Some(1) => vec![0xff; dtype.size()],
            Some(2) => [vec![0; dtype.size() - 1], vec![0x80]].concat(),
            Some(_) => [vec![1], vec![0; dtype.size() - 1]].concat(),
            None => self.bytes(dtype.size()),
        };
        let entry = if dtype.is_float() {
            json!({"float_bits": hex::encode(&bytes), "dtype": dtype.as_str()})
        } else {
            let mut wide = [if dtype.as_str().starts_with('i') && bytes[bytes.len() - 1] > 127 {
                0xff
            } else {
                0
            }; 16];
            wide[..bytes.len()].copy_from_slice(&bytes);
            json!({"int": i128::from_le_bytes(wide).to_string(), "dtype": dtype.as_str()})
        };
        (Scalar::read_le(dtype, &bytes).unwrap().into(), entry)
    }

    fn shape(&mut self) -> Vec<u64> {
        let odd = [
            vec![1],
            vec![255],
            vec![256],
            vec![1, 1, 1],
            vec![300, 2],
            vec![1; 63],
            [vec![2], vec![1; 40], vec![3]].concat(),
            vec![5, 4, 3, 2],
        ];
        self.odd("shape", &odd)
            .unwrap_or_else(|| (0..self.between(1, 5)).map(|_| self.between(1, 5)).collect())
    }

    fn array(&mut self, dtype: DType, shape: Vec<u64>) -> (Value<'static>, Entry) {
        let data = self.bytes(shape.iter().product::<u64>() as usize * dtype.size());
        let entry = json!({
            "dtype": dtype.as_str(),
            "shape": shape,
            "b64": BASE64_STANDARD.encode(&data),
        });
        (NdArray::new(dtype, shape, data).unwrap().into(), entry)
    }

    fn image(&mut self, mode: ImageMode) -> Image<'static> {
        let sides = [1, 2, 3, 5, 8, 9, 16, 17];
        let (width, height) =
            (sides[self.between(0, 7) as usize], sides[self.between(0, 7) as usize]);
        let row = mode.row_bytes(width) as usize;
        let mut pixels = self.bytes(row * height as usize);
        if mode == ImageMode::Bilevel && !width.is_multiple_of(8) {
            // The unused bits of each row are 0.
            pixels.chunks_mut(row).for_each(|row| row[row.len() - 1] &= 0xff << (8 - width % 8));
        }
        Image::new(width, height, mode, pixels).unwrap()
    }

    fn pil(&mut self) -> (Value<'static>, Entry) {
        let mode = self.turn("pil", &ImageMode::ALL);
        let image = if self.between(0, 19) == 0 {
            Image::new(0, 3, mode, Vec::new()).unwrap()
        } else {
            self.image(mode)
        };
        let entry = image_entry(&image);
        (image.into(), entry)
    }

    /// A file made before, or pixels of which the writer makes one.
    fn image_file(&mut self, encoding: ImageEncoding) -> (Value<'static>, Entry) {
        use ImageMode::{Bilevel, Cmyk, I16, L, La, P, Rgb, Rgba, Rgbx, YCbCr};
        let (format, mode) = match encoding {
            ImageEncoding::Png => {
                (ImageFormat::Png, self.turn("png", &[Bilevel, L, P, Rgb, Rgba, La, I16]))
            }
            _ => (ImageFormat::Jpeg, self.turn("jpeg", &[L, Rgb, Cmyk, YCbCr, Bilevel, Rgbx])),
        };
        let image = self.image(mode);
        // PNG keeps pixels; of JPEG our decoder says what Pillow's must find.
        let file = ImageFile::from_image(&image, format).unwrap();
        let pixels = match encoding {
            ImageEncoding::Png => image.clone(),
            _ => file.decode().unwrap(),
        };
        let mut entry = image_entry(&pixels);
        if self.between(0, 1) == 0 {
            entry["file_b64"] = BASE64_STANDARD.encode(file.bytes()).into();
            return (file.into(), entry);
        }
        (image.into(), entry)
    }

    fn images(
        &mut self,
        least: u64,
        make: impl Fn(&mut Self) -> (Value<'static>, Entry),
    ) -> (Value<'static>, Entry) {
        let count = self.between(least, 3);
        let (values, entries): (Vec<_>, Vec<_>) = (0..count).map(|_| make(self)).unzip();
        (Value::List(values), json!({"images": entries}))
    }
}

/// The bits as little-endian bytes; those of a NaN do not survive texts.
fn float_bits(value: f64) -> String {
    if value.is_nan() { "nan".to_owned() } else { hex::encode(value.to_le_bytes()) }
}

fn image_entry(image: &Image<'_>) -> Entry {
    json!({
        "mode": image.mode().name(),
        "size": [image.width(), image.height()],
        "pixels_sha256": HashAlgorithm::Sha256.hex(image.pixels()),
    })
}
