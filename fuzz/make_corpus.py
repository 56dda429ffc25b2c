#!/usr/bin/env python3
"""Writes the seeds in fuzz/corpus/: pieces of the golden datasets and edge cases made by hand.

Needs the packages of the conformance tests (Pillow, Brotli, zstd, python-snappy, cramjam) and runs
from anywhere:  python fuzz/make_corpus.py

The seeds are committed; run this after adding one here.
"""

import bz2
import gzip
import io
import json
import shutil
import struct
import zlib
from pathlib import Path

import brotli
import cramjam
import snappy
import zstd
from PIL import Image

HERE = Path(__file__).resolve().parent
GOLDEN = HERE.parent / "tests" / "golden" / "mds"
CORPUS = HERE / "corpus"
MAX_SEED = 8192
written = 0


def seed(target: str, name: str, data: bytes | str) -> None:
    global written
    data = data.encode() if isinstance(data, str) else data
    if len(data) > MAX_SEED:
        return
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    written += len(data)


def u32(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}I", *numbers)


def indexes() -> None:
    kinds = ["text", "hashes_all_raw", "comp_gz_5", "json_values", "ndarray_dtype", "no_samples",
             "merged_index", "tokens_u16", "comp_zstd_9", "exact_fit"]
    for kind in kinds:
        for path in sorted((GOLDEN / kind / "data").rglob("index.json"))[:1]:
            seed("index", kind, path.read_bytes())
    file = {"basename": "shard.00000.csv", "bytes": 40, "hashes": {}}
    meta = {"basename": "shard.00000.csv.meta", "bytes": 60, "hashes": {"sha1": "00"}}
    entry = {"column_encodings": ["str", "int"], "column_names": ["a", "b"], "compression": None,
             "format": "csv", "hashes": [], "newline": "\n", "raw_data": file, "raw_meta": meta,
             "samples": 2, "size_limit": 1024, "version": 2, "zip_data": None, "zip_meta": None}
    seed("index", "csv", json.dumps({"shards": [entry], "version": 2}))
    xsv = dict(entry, format="xsv", separator="::")
    seed("index", "xsv", json.dumps({"shards": [xsv], "version": 2}))
    lines = {k: v for k, v in entry.items() if not k.startswith("column_")}
    lines |= {"format": "json", "columns": {"a": "str", "b": "float"}}
    seed("index", "json_lines", json.dumps({"shards": [lines], "version": 2}))
    zipped = dict(entry, compression="gz:3", zip_data=dict(file, basename="s.csv.gz"),
                  zip_meta=dict(meta, basename="s.csv.meta.gz"))
    seed("index", "csv_gz", json.dumps({"shards": [zipped], "version": 2}))
    for text in ["", "{", "null", "[]", '{"version": 2}', '{"shards": [], "version": 2}',
                 '{"shards": [{}], "version": 1}', '{"version": [[[[]]]], "shards": {}}']:
        seed("index", f"hand_{zlib.crc32(text.encode()):08x}", text)


def shards() -> None:
    for kind in ["text", "ndarray_dtype", "no_samples", "one_sample", "tokens_u16", "text_empty"]:
        for path in sorted((GOLDEN / kind / "data").rglob("*.mds"))[:1]:
            data = path.read_bytes()
            seed("shard_table", kind, data[:MAX_SEED])
    text = "a text".encode()
    tokens = bytes([1 << 2, 3]) + struct.pack("<3i", 1, -2, 3)
    sample = u32(len(text), len(tokens)) + struct.pack("<q", 7) + text + tokens
    other = u32(0, 6) + struct.pack("<q", -1) + bytes([1 << 2, 1]) + struct.pack("<i", 5)
    for name, samples in [("none", []), ("one", [sample]), ("three", [sample, other, sample])]:
        offsets = [4 * (len(samples) + 2)]
        for one in samples:
            offsets.append(offsets[-1] + len(one))
        shard = u32(len(samples), *offsets) + b"".join(samples)
        seed("shard", name, shard)
        seed("shard_table", name, shard)
        seed("meta_table", name, u32(offsets[-1]) + u32(len(samples), *offsets) + b"{}")
    seed("shard_table", "huge_count", u32(0xFFFFFFFF, 8))
    seed("shard_table", "descending", u32(1, 12, 11) + b"xx")
    seed("shard_table", "in_table", u32(1, 3, 12))
    seed("meta_table", "cut", u32(3, 1, 0))
    seed("sample", "text", b"\0" + sample)
    seed("sample", "numbers", b"\1" + bytes(range(1 + 2 + 8 + 8)))
    parts = [b"\xff\0", b'{"a": [1, 2.5, null]}', b"123456789012345678901234567890", b"1e-05",
             b"0.10"]
    seed("sample", "texts", b"\2" + u32(*map(len, parts)) + b"".join(parts))
    parts = [pil(2, 1, b"L", b"ab"), jpeg("L"), png("L"), image_list([png("1")]),
             u32(1, len(jpeg("L"))) + jpeg("L")]
    seed("sample", "images", b"\3" + u32(*map(len, parts)) + b"".join(parts))
    seed("line", "json", b'\0{"a": "one", "b": 12, "c": 1.5}\n')
    seed("line", "json_big", b'\0{"a": "\\ud83d\\ude00", "b": 123456789012345678901, "c": NaN}\n')
    seed("line", "csv", b"\1one,12,1.5\n")
    seed("line", "tsv", b"\2one\t-1\tinf\n")
    seed("line", "xsv", b"\3one::7::1e300\r\n")


def names() -> None:
    texts = """bytes str int float uint8 float16 int64 str_int str_float str_decimal json ndarray
        ndarray: ndarray:int32 ndarray:uint16:2,3 ndarray:float64:18446744073709551615,2 pil jpeg
        png jpeg_array jpegarray list[pil] list[png] pkl zstd:7 zstd gz:0 br:11 bz2:9 snappy sha1
        xxh3_64 blake2b shard.00000.mds a/b.mds ../x /etc/passwd C:x a//b 64mb 1.5kb 100b
        99999999999999999999yb 1e400kb -1kb""".split()
    for number, text in enumerate(texts):
        seed("names", f"{number:02}", text)


def values() -> None:
    seed("encoding_bytes", "a", b"\0\xff")
    seed("encoding_str", "a", "hé\0😀")
    seed("encoding_str", "not_utf8", b"ab\xff")
    seed("encoding_str", "surrogate", b"\xed\xa0\x80")
    seed("encoding_int", "a", struct.pack("<q", -2))
    seed("encoding_int", "short", b"\1\2\3")
    for number, size in enumerate([1, 1, 2, 2, 4, 4, 8, 8, 2, 4, 8]):
        seed("encoding_scalar", f"{number:02}", bytes([number]) + bytes(range(1, size + 1)))
    seed("encoding_scalar", "nan", b"\x0a" + struct.pack("<d", float("nan")))
    seed("encoding_scalar", "snan16", b"\x08\x01\x7c")
    seed("encoding_scalar", "snan32", b"\x09\x01\x00\x80\x7f")
    integers = ["0", "-7", "+0_042", "9" * 40, " 12\n", "-0", "", "1__2", "9" * 4301, "١"]
    floats = ["1.5", "1e16", "-0.0", "nan", "inf", "5e-324", "1_0.5", " 1 ", "1e400", "infinityx",
              "0." + "0" * 330 + "1"]
    decimals = ["0.10", "1E-7", "0E+3", "-0", "sNaN12", "Infinity", "1_000e37", "1e999999999999999999",
                "1e-2000000000000000000", ".5", "5.", "." * 3, "0." + "0" * 50 + "1"]
    jsons = ["null", '{"a": [1, 2.5, "x"], "b": {}}', '"\\ud83d\\ude00\\n\\u00e9"', "-Infinity",
             "[NaN, 1e5, 01]", "[" * 1001, "[" * 900 + "]" * 900, '{"a": 1, "a": 2}', '"\\ud800"',
             "\ufeff1", "123456789012345678901234567890", "{\"a\":", " [ ] "]
    for number, text in enumerate(integers):
        seed("integer", f"{number:02}", text)
        seed("encoding_str_int", f"{number:02}", text)
    for number, text in enumerate(floats):
        seed("float", f"{number:02}", text)
        seed("encoding_str_float", f"{number:02}", text)
    for number, text in enumerate(decimals):
        seed("decimal", f"{number:02}", text)
        seed("encoding_str_decimal", f"{number:02}", text)
    for number, text in enumerate(jsons):
        seed("json", f"{number:02}", text)
        seed("encoding_json", f"{number:02}", text)
    arrays = {
        "u8": bytes([8, 1 << 2, 3, 1, 2, 3]),
        "i32_2d": bytes([33, 2 << 2, 2, 1]) + struct.pack("<2i", 1, -1),
        "wide": bytes([8, 1 << 2 | 3]) + struct.pack("<Q", 2) + b"ab",
        "overflow": bytes([64, 2 << 2 | 3]) + b"\xff" * 16,
        "no_dims": bytes([8, 0]),
        "zero": bytes([8, 1 << 2, 0]),
        "63_dims": bytes([8, 63 << 2]) + b"\1" * 63 + b"x",
        "code": bytes([7, 1 << 2, 1, 0]),
    }
    for name, data in arrays.items():
        seed("encoding_ndarray", name, data)
        seed("encoding_ndarray_type", name, data[1:])
    seed("encoding_ndarray_shape", "a", bytes(range(12)))
    seed("encoding_ndarray_shape", "short", bytes(range(11)))
    seed("encoding_pkl", "a", b"\x80\x04K\x01.")
    seed("encoding_pkl", "system", b"cposix\nsystem\n(S'true'\ntR.")


def pil(width: int, height: int, mode: bytes, pixels: bytes) -> bytes:
    return u32(width, height, len(mode)) + mode + pixels


def drawing(mode: str, size: tuple[int, int] = (9, 5)) -> Image.Image:
    image = Image.linear_gradient("L").resize(size)
    return image.convert("RGB").convert(mode)


def jpeg(mode: str, **options: object) -> bytes:
    out = io.BytesIO()
    drawing(mode).save(out, "jpeg", **options)
    return out.getvalue()


def png(mode: str, **options: object) -> bytes:
    out = io.BytesIO()
    image = drawing("L").convert(mode) if mode in ("1", "LA", "I;16") else drawing(mode)
    image.save(out, "png", **options)
    return out.getvalue()


def image_list(elements: list[bytes]) -> bytes:
    return u32(0, len(elements), *map(len, elements)) + b"".join(elements)


def images() -> None:
    for mode in ["L", "RGB", "CMYK"]:
        seed("image_jpeg", mode, jpeg(mode))
        seed("image_jpeg", f"{mode}_progressive", jpeg(mode, progressive=True))
    seed("image_jpeg", "restarts", jpeg("RGB", restart_marker_blocks=1))
    huge = jpeg("L").replace(b"\xff\xc0\x00\x0b\x08\x00\x05\x00\x09", b"\xff\xc0\x00\x0b\x08\xff\xff\xff\xff")
    seed("image_jpeg", "huge", huge)
    seed("encoding_jpeg", "a", jpeg("L"))
    for mode in ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"]:
        seed("image_png", mode.replace(";", "_"), png(mode))
    seed("image_png", "huge", png("L").replace(u32(0)[:3] + b"\x09", b"\x7f\xff\xff\xff", 1))
    seed("encoding_png", "a", png("L"))
    raw = {"L": (2, 2, 4), "1": (9, 2, 4), "RGB": (1, 2, 6), "I;16": (2, 1, 4), "F": (1, 1, 4)}
    for mode, (width, height, size) in raw.items():
        seed("encoding_pil", mode.replace(";", "_"), pil(width, height, mode.encode(), bytes(size)))
    seed("encoding_pil", "no_pixels", pil(0, 5, b"L", b""))
    seed("encoding_pil", "overflow", pil(0xFFFFFFFF, 0xFFFFFFFF, b"CMYK", b""))
    seed("encoding_pil", "mode", pil(1, 1, b"XYZ", b"1"))
    seed("encoding_pil", "long_mode", u32(1, 1, 0xFFFFFFFF) + b"L")
    seed("encoding_jpeg_array", "a", u32(2, len(jpeg("L")), len(jpeg("L"))) + jpeg("L") * 2)
    seed("encoding_jpeg_array", "none", u32(0))
    for kind, one in [("pil", pil(1, 1, b"L", b"x")), ("jpeg", jpeg("L")), ("png", png("1"))]:
        seed(f"encoding_list_{kind}", "two", image_list([one, one]))
        seed(f"encoding_list_{kind}", "none", image_list([]))
        seed(f"encoding_list_{kind}", "sizes", u32(0, 0xFFFFFFFF, 1, 2))
        seed(f"encoding_list_{kind}", "sum", u32(0, 2, 0xFFFFFFFF, 1) + one)
        seed(f"encoding_list_{kind}", "reserved", u32(1, 0))


def files() -> None:
    raw = b"The same words, the same words, and then some others. " * 9 + bytes(range(64))
    zeros = bytes(100_000)
    codes = {
        "br": lambda data: brotli.compress(data, quality=5),
        "bz2": bz2.compress,
        "gz": lambda data: gzip.compress(data, mtime=0),
        "snappy": snappy.compress,
        "zstd": zstd.compress,
    }
    for code, compress in codes.items():
        target = f"decompress_{code}"
        seed(target, "text", u32(len(raw)) + compress(raw))
        seed(target, "empty", u32(0) + compress(b""))
        seed(target, "zeros", u32(len(zeros)) + compress(zeros))
        seed(target, "more", u32(10) + compress(zeros))
        seed(target, "less", u32(200_000) + compress(zeros))
        seed(target, "trailing", u32(len(raw)) + compress(raw) + b"\0\1")
        if code != "snappy":
            seed(target, "two", u32(2 * len(raw)) + compress(raw) * 2)
    stored = gzip.compress(raw, compresslevel=0, mtime=0)
    seed("decompress_gz", "stored", u32(len(raw)) + stored)
    named = io.BytesIO()
    with gzip.GzipFile("name", "wb", fileobj=named, mtime=1) as out:
        out.write(raw)
    seed("decompress_gz", "named", u32(len(raw)) + named.getvalue())
    seed("decompress_br", "window24", u32(len(raw)) + brotli.compress(raw, quality=1, lgwin=24))
    seed("decompress_snappy", "length", u32(9) + b"\xff\xff\xff\xff\x0f\0")
    seed("decompress_zstd", "no_size", u32(len(raw)) + bytes(cramjam.zstd.compress(raw, 19)))
    seed("decompress_zstd", "skippable", u32(len(raw)) + struct.pack("<2I", 0x184D2A50, 4) + b"skip"
         + zstd.compress(raw))


if __name__ == "__main__":
    shutil.rmtree(CORPUS, ignore_errors=True)
    for part in [indexes, shards, names, values, images, files]:
        part()
    print(f"{sum(1 for p in CORPUS.rglob('*') if p.is_file())} seeds, {written} bytes")
