"""Writes datasets with mosaicml-streaming in the layout of tests/golden/mds, for our reader.

Each case folder holds `data/` as the reference wrote it, `expected.jsonl` (every column's value as the reference
decodes it, and for MDS its raw bytes) and `case.json`; `cargo test --test golden_mds` with MDS_GOLDEN_DIR set to the
folder above then checks that we read, and rebuild, exactly that.
"""

import base64
import hashlib
import io
import json
import struct
import time

import numpy as np
from streaming import CSVWriter, JSONWriter, MDSWriter, TSVWriter, XSVWriter
from streaming.base.compression import decompress
from streaming.base.format.base import writer as reference_writer
from streaming.base.format.mds.encodings import mds_decode, mds_encode

# Writers look at their finished uploads once a second, which for hundreds of datasets is minutes of sleep.
reference_writer.sleep = lambda seconds: time.sleep(0.002)
WRITERS = {"mds": MDSWriter, "json": JSONWriter, "csv": CSVWriter, "tsv": TSVWriter, "xsv": XSVWriter}


def b64(data):
    return base64.b64encode(data).decode()


def image_entry(image):
    return {"mode": image.mode, "size": list(image.size), "pixels_sha256": hashlib.sha256(image.tobytes()).hexdigest()}


def value_entry(encoding, value, raw=b""):
    """A decoded value in the words of expected.jsonl. `raw` is wanted for what is kept as a file."""
    if encoding == "str":
        return {"str": value}
    if encoding == "bytes":
        return {"b64": b64(value)}
    if encoding == "pkl":
        return {"pickle_b64": b64(raw)}
    if encoding == "json":
        return {"json_text": json.dumps(value, sort_keys=True)}
    if encoding == "str_decimal":
        return {"decimal": str(value)}
    if encoding in ("float", "str_float"):
        return {"f64_bits": struct.pack("<d", value).hex(), "repr": repr(float(value))}
    if encoding.startswith("ndarray"):
        return {"dtype": value.dtype.name, "shape": list(value.shape), "b64": b64(value.tobytes())}
    if encoding.startswith("float"):
        return {"float_bits": value.tobytes().hex(), "bytes": value.nbytes, "repr": repr(float(value))}
    if encoding == "pil":
        return image_entry(value)
    if encoding in ("jpeg", "png"):
        return {"file_b64": b64(raw), **image_entry(value)}
    if encoding.startswith(("list[", "jpeg_array", "jpegarray")):
        return {"images": [image_entry(image) for image in value]}
    return {"int": str(int(value))}


def expected(kind, encoding, value):
    """One column of expected.jsonl."""
    if kind != "mds":
        return value_entry(encoding, value)
    raw = mds_encode(encoding, value)
    entry = value_entry(encoding, mds_decode(encoding, raw), raw)
    return {**entry, "raw_len": len(raw), "raw_b64": b64(raw)}


def raw_files(data, shard):
    """The files of a shard before compression, by name."""
    for part in ("data", "meta"):
        raw, zipped = shard.get(f"raw_{part}"), shard.get(f"zip_{part}")
        if not raw:
            continue
        stored = (data / (zipped or raw)["basename"]).read_bytes()
        if zipped:
            stored = decompress(shard["compression"], stored)
        yield raw["basename"], stored


def write_case(out, name, columns, samples, kind="mds", **options):
    """Writes one dataset and what to expect of it. Returns the number of its shards."""
    case = out / "mds" / name
    data = case / "data"
    case.mkdir(parents=True)
    with WRITERS[kind](out=str(data), columns=columns, **options) as writer:
        for sample in samples:
            writer.write(sample)
    index = json.loads((data / "index.json").read_text())
    sizes = [shard["samples"] for shard in index["shards"]]
    sums = {file: hashlib.sha256(raw).hexdigest() for shard in index["shards"] for file, raw in raw_files(data, shard)}
    write_expected(case, kind, columns, samples, sizes)
    write_json(case / "case.json", {
        "name": name, "format": kind, "writer_args": {**options, "columns": columns}, "num_samples": len(samples),
        "num_shards": len(sizes), "shard_samples": sizes, "raw_file_sha256": sums,
    })
    return len(sizes)


def write_expected(case, kind, columns, samples, sizes):
    where = [(s, i) for s, n in enumerate(sizes) for i in range(n)]
    lines = io.StringIO()
    for i, (sample, (shard, in_shard)) in enumerate(zip(samples, where, strict=True)):
        row = {k: expected(kind, columns[k], sample[k]) for k in columns}
        lines.write(json.dumps({"i": i, "shard": shard, "in_shard": in_shard, "columns": row}) + "\n")
    (case / "expected.jsonl").write_text(lines.getvalue())


def write_json(path, value):
    path.write_text(json.dumps(value))
