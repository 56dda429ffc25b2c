"""Random values of every encoding of mosaicml-streaming, with the odd ones of each taken in turn."""

import io
import itertools
import json
import pickle
from decimal import Decimal

import numpy as np
from PIL import Image, PngImagePlugin

DTYPES = "uint8 int8 uint16 int16 float16 uint32 int32 float32 uint64 int64 float64".split()
MODES = "1 L P RGB CMYK YCbCr LAB HSV I F LA PA RGBX RGBA La RGBa I;16 I;16L I;16B I;16N".split()
JPEG_MODES = ["L", "RGB", "CMYK", "YCbCr", "1", "RGBX"]
PNG_MODES = ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"]

TEXTS = ["", "\0", "\ufeffmark", "\r\n\t\x7f\x85\u2028\u2029", "naïve", "e\u0301 ß ſ İ", "中文 עברית", "😀🏳️‍🌈 \U0010ffff",
         "\ud7ff\ue000\ufffe\uffff", '"\\/\b\f', "NaN", "null", "\\ud83d", "a" * 300]
INTS = [0, -1, 1, 2**31, -(2**31) - 1, 2**53 + 1, 2**63 - 1, -(2**63), True]
HUGE_INTS = [0, 2**63, -(2**63) - 1, 2**64, 10**50, -(10**4299) + 1, 10**4300 - 1]
FLOATS = [0.0, -0.0, 1.0, -1.5, 0.1, 1e16, 1e15, 9999999999999998.0, 1e-4, 1e-5, 1e22, 1e23, 5e-324, -5e-324,
          2.225073858507201e-308, 2.2250738585072014e-308, 1.7976931348623157e308, 2**53 + 2.0, 0.1 + 0.2,
          float("nan"), float("inf"), float("-inf")]
DECIMALS = ["0", "-0", "0.10", "1E-7", "0.000001", "0.0000001", "1E+40", "-1.50E-100", "NaN", "-NaN", "sNaN", "NaN123",
            "-sNaN0077", "Infinity", "-Infinity", "0E-10", "-0E+5", "1E+999999999999999999", "9.99E-999999999999999999",
            "123456789" * 30, "0." + "0" * 6 + "1", "100E2", "1_000.5"]
JSONS = [None, True, False, 0, -0.0, "", [], {}, [[]], [{}], {"": {"": []}}, FLOATS, HUGE_INTS, TEXTS,
         {text: i for i, text in enumerate(TEXTS)}, {"b": 1, "a": {"d": None, "c": [True, 1.0, 1]}}, {1: "one", None: 2.5, False: 3},
         np.arange(6).reshape(2, 3), np.array([0.1, np.nan, np.inf]), "\ud7ff", 10**4300 - 1]
SHAPES = [[1], [7], [255], [256], [1, 1, 1], [2, 1, 3], [300, 2], [1] * 63, [2] + [1] * 40 + [3], [5, 4, 3, 2]]
PICKLES = [None, {"a": [1, 2.5, "x"]}, {1, 2}, 3 + 4j, bytearray(b"bytes"), (1, (2, (3,))), Decimal("1.10"), np.arange(3), "é", 2**100]


def deep(levels):
    value = 1.5
    for level in range(levels):
        value = {"k": value} if level % 2 else [value]
    return value


JSONS.append(deep(200))


class Values:
    """Draws values: of each encoding by turns an odd one, in order, and a random one."""

    def __init__(self, draw, numbers):
        self.draw, self.numbers = draw, numbers
        self.turns = {}

    def of(self, encoding, odd, random):
        turn = self.turns.setdefault(encoding, itertools.count())
        turn = next(turn)
        return odd[turn // 2 % len(odd)] if turn % 2 == 0 else random()

    def turn(self, name, choices):
        """The choices one after another."""
        return choices[next(self.turns.setdefault(name, itertools.count())) % len(choices)]

    def text(self, most=40):
        kinds = [(0x20, 0x7E), (0x20, 0x7E), (0, 0x1FF), (0x370, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x10FFFF)]
        return "".join(chr(self.draw.randint(*self.draw.choice(kinds))) for _ in range(self.draw.randrange(most)))

    def float(self):
        bits = np.uint64(self.draw.getrandbits(64))
        return self.draw.choice([float(bits.view(np.float64)), self.draw.gauss(0, 1), round(self.draw.uniform(-1e6, 1e6), 2)])

    def huge_int(self):
        return self.draw.randint(-(1 << 200), 1 << 200) >> self.draw.randrange(200)

    def decimal(self):
        digits = str(abs(self.huge_int()))
        return f"{self.draw.choice(['', '-'])}{digits}E{self.draw.randint(-60, 60)}"

    def json(self, depth=3):
        scalars = [lambda: None, lambda: self.draw.random() < 0.5, self.huge_int, self.float, self.text]
        nested = [lambda: [self.json(depth - 1) for _ in range(self.draw.randrange(5))],
                  lambda: {self.text(9): self.json(depth - 1) for _ in range(self.draw.randrange(5))}]
        return self.draw.choice(scalars + nested * 2 if depth else scalars)()

    def scalar(self, dtype):
        """What the reference takes for a column of this type: Python's numbers, numpy's, or numbers of another type."""
        kind = np.dtype(dtype)
        if kind.kind == "f":
            info = np.finfo(kind)
            odd = [0.0, -0.0, float("nan"), float("inf"), float("-inf"), info.max, info.min, info.tiny,
                   info.smallest_subnormal, -info.smallest_subnormal, 1 / 3, 2049, 16777217, np.float64(1e5)]
        else:
            info = np.iinfo(kind)
            odd = [0, 1, info.max, info.min, info.max // 2, 3.99, True, np.int64(7)]
        return self.of(dtype, odd, lambda: self.array(dtype, [1])[0])

    def array(self, dtype, shape):
        size = int(np.prod(shape))
        array = np.frombuffer(self.numbers.bytes(size * np.dtype(dtype).itemsize), dtype).reshape(shape)
        layout = self.draw.randrange(3) if len(shape) <= 32 else 0  # numpy copies no others of so many dimensions
        if layout == 1:
            return np.asfortranarray(array)
        if layout == 2:
            return np.repeat(array, 2, axis=0)[::2]  # not contiguous
        return array

    def shape(self):
        random = lambda: [self.draw.randint(1, 6) for _ in range(self.draw.randint(1, 5))]
        return self.of("shape", SHAPES, random)

    def image(self, mode, empty=False):
        sides = [1, 2, 3, 5, 8, 9, 16, 17]
        size = (self.draw.choice(sides), self.draw.choice(sides))
        if empty and self.draw.random() < 0.1:
            size = self.draw.choice([(0, 0), (0, 3), (3, 0)])
        raw = self.numbers.bytes(len(Image.new(mode, size).tobytes()))
        if 0 in size:
            return Image.new(mode, size)
        image = Image.frombytes(mode, size, raw)
        if mode == "P":
            image.putpalette(self.numbers.bytes(self.draw.choice([3, 12, 48, 768])))
        return image

    def jpeg(self):
        """An image, to be written with the defaults, or a file that somebody wrote otherwise."""
        image = self.image(self.turn("jpeg mode", JPEG_MODES))
        if self.draw.random() < 0.4:
            return image
        options = {"quality": self.draw.randint(1, 100), "progressive": self.draw.random() < 0.4, "optimize": self.draw.random() < 0.5}
        if image.mode in ("RGB", "YCbCr", "RGBX"):
            options["subsampling"] = self.draw.choice([0, 1, 2])
        if self.draw.random() < 0.3:
            options["restart_marker_blocks"] = 1
        if self.draw.random() < 0.2:
            options["comment"] = b"a comment"
        return file_of(image, "JPEG", options)

    def png(self):
        image = self.image(self.turn("png mode", PNG_MODES))
        if self.draw.random() < 0.4:
            return image
        options = {"compress_level": self.draw.randint(0, 9), "optimize": self.draw.random() < 0.3}
        if image.mode in ("L", "RGB", "P") and self.draw.random() < 0.5:
            options["transparency"] = (1, 2, 3) if image.mode == "RGB" else 0
        if image.mode == "P" and self.draw.random() < 0.5:
            image = image.point(lambda index: index % 4)
            options["bits"] = self.draw.choice([2, 4, 8])
        if self.draw.random() < 0.2:
            options["pnginfo"] = PngImagePlugin.PngInfo()
            options["pnginfo"].add_text("key", "a text")
        return file_of(image, "PNG", options)

    def jpeg_file(self):
        value = self.jpeg()
        return value if isinstance(value, bytes) else file_of(value, "JPEG", {})

    def images(self, make, least=0):
        return [make() for _ in range(self.draw.randint(least, 3))]

    def image_list(self, make):
        # Elements of lists are images, not files.
        opened = lambda: (lambda value: Image.open(io.BytesIO(value)) if isinstance(value, bytes) else value)(make())
        return self.images(opened)

    def pil(self):
        return self.image(self.turn("pil mode", MODES), empty=True)


def file_of(image, format, options):
    out = io.BytesIO()
    image.save(out, format=format, **options)
    return out.getvalue()


def mds_columns():
    """Every encoding, most of them under names that try the sorting and the escapes of JSON."""
    columns = {name: name for name in
               "bytes str int str_int str_float str_decimal json pil jpeg png jpeg_array jpegarray pkl".split()}
    columns |= {f"list of {name}": f"list[{name}]" for name in ("pil", "jpeg", "png")}
    columns |= {f"one {dtype}": dtype for dtype in DTYPES}
    columns["any array"], columns["any array again"] = "ndarray", "ndarray:"  # two names of one encoding
    columns |= {f"array of {dtype}": f"ndarray:{dtype}" for dtype in DTYPES}
    shapes = ["1", "3", "2,3", "1,1,1", "2,1,2", ",".join(["1"] * 63), "4", "2,2", "5,1", "3,2,1", "1,7"]
    columns |= {f"fixed {dtype}": f"ndarray:{dtype}:{shape}" for dtype, shape in zip(DTYPES, shapes)}
    columns |= {name: "int" for name in ["Z", "é", "\ue000", "😀", 'quote " and \\', "line\nend\x7f\0"]}
    return columns


def mds_value(values, encoding):
    draw = values.draw
    if encoding in DTYPES:
        return values.scalar(encoding)
    if encoding.startswith("ndarray"):
        _, _, tail = encoding.partition(":")
        dtype, _, shape = tail.partition(":")
        shape = [int(dim) for dim in shape.split(",")] if shape else values.shape()
        return values.array(dtype or values.turn("dtype", DTYPES), shape)
    make = {
        "bytes": lambda: values.of("bytes", [b"", b"\0", b"\xff" * 300], lambda: draw.randbytes(draw.randrange(40))),
        "str": lambda: values.of("str", TEXTS, values.text),
        "int": lambda: values.of("int", INTS, lambda: draw.randint(-(2**63), 2**63 - 1)),
        "str_int": lambda: values.of("str_int", HUGE_INTS, values.huge_int),
        "str_float": lambda: values.of("str_float", FLOATS, values.float),
        "str_decimal": lambda: Decimal(values.of("str_decimal", DECIMALS, values.decimal)),
        "json": lambda: values.of("json", JSONS, values.json),
        "pkl": lambda: values.of("pkl", PICKLES, values.json),
        "pil": values.pil,
        "jpeg": values.jpeg,
        "png": values.png,
        "jpeg_array": lambda: values.images(values.jpeg_file, least=1),
        "jpegarray": lambda: values.images(values.jpeg_file, least=1),
        "list[pil]": lambda: values.images(values.pil),
        "list[jpeg]": lambda: values.image_list(values.jpeg),
        "list[png]": lambda: values.image_list(values.png),
    }
    return make[encoding]()


def text_columns(json_names):
    columns = {"s": "str", "i": "int", "f": "float", "t": "str", "A number": "int", "é": "float", "😀": "str"}
    if json_names:
        columns |= {'quote " and \\': "str", "line\nend\x7f\0": "int", "": "str"}
    return columns


def text_value(values, encoding, forbidden):
    """A value of a text format. `forbidden` are the texts that no value may contain."""
    if encoding == "int":
        return values.of("text int", [int(value) for value in INTS] + HUGE_INTS, values.huge_int)
    if encoding == "float":
        return values.of("text float", FLOATS, values.float)
    text = values.of("text str", TEXTS, values.text)
    for part in forbidden:
        # What ends with the first half of a separator is cut too early by the reference's own reader.
        while (text + part).find(part) < len(text):
            text = text.replace(part, "") if part in text else text[:-1]
    return text
