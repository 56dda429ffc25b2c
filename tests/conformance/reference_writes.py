"""Lets mosaicml-streaming write datasets, in the layout of tests/golden/mds, for our reader.

usage: reference_writes.py OUT_DIR C4_JSON_GZ...

Each case folder holds `data/` as the reference wrote it, `expected.jsonl` (every column's value and
raw bytes) and `case.json`; `cargo test --test golden_mds` with MDS_GOLDEN_DIR=OUT_DIR then checks
that we read, and rebuild, exactly that.
"""

import base64
import gzip
import hashlib
import json
import pathlib
import random
import struct
import sys

import numpy as np
from streaming import MDSWriter
from streaming.base.compression import decompress, is_compression
from streaming.base.format.mds.encodings import mds_encode

DTYPES = "uint8 int8 uint16 int16 float16 uint32 int32 float32 uint64 int64 float64".split()


def b64(data):
    return base64.b64encode(data).decode()


def expected(encoding, value):
    """One column of expected.jsonl."""
    raw = mds_encode(encoding, value)
    entry = {"raw_len": len(raw), "raw_b64": b64(raw)}
    if encoding == "str":
        return {"str": value, **entry}
    if encoding == "bytes":
        return {"b64": b64(value), **entry}
    if encoding.startswith("ndarray"):
        return {"dtype": value.dtype.name, "shape": list(value.shape), "b64": b64(np.ascontiguousarray(value).tobytes()), **entry}
    if encoding.startswith("float"):
        bits = value.tobytes()
        return {"float_bits": bits.hex(), "bytes": len(bits), "repr": repr(float(value)), **entry}
    return {"int": str(int(value)), **entry}


def write_case(out, name, columns, samples, **options):
    case = out / "mds" / name
    data = case / "data"
    case.mkdir(parents=True)
    with MDSWriter(out=str(data), columns=columns, **options) as writer:
        for sample in samples:
            writer.write(sample)
    index = json.loads((data / "index.json").read_text())
    compression = options.get("compression")
    sums, sizes = {}, []
    for shard in index["shards"]:
        file = (shard["zip_data"] or shard["raw_data"])["basename"]
        raw = (data / file).read_bytes()
        if compression:
            assert is_compression(compression)
            raw = decompress(compression, raw)
        sums[shard["raw_data"]["basename"]] = hashlib.sha256(raw).hexdigest()
        sizes.append(shard["samples"])
    where = [(s, i) for s, n in enumerate(sizes) for i in range(n)]
    with open(case / "expected.jsonl", "w") as lines:
        for i, sample in enumerate(samples):
            row = {k: expected(columns[k], sample[k]) for k in columns}
            lines.write(json.dumps({"i": i, "shard": where[i][0], "in_shard": where[i][1], "columns": row}) + "\n")
    args = {**options, "columns": columns}
    json.dump(
        {"name": name, "format": "mds", "writer_args": args, "num_samples": len(samples), "num_shards": len(sizes),
         "shard_samples": sizes, "raw_file_sha256": sums},
        open(case / "case.json", "w"),
    )
    print(f"reference wrote {name}: {len(samples)} samples, {len(sizes)} shards")


def documents(paths):
    for path in paths:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)


def main():
    out, sources = pathlib.Path(sys.argv[1]), sys.argv[2:]
    rng, nprng = random.Random(17), np.random.default_rng(17)
    docs = list(documents(sources))[:400]
    text = {"text": "str", "timestamp": "str", "url": "str"}
    rows = [{k: d[k] for k in text} for d in docs]
    write_case(out, "text_none", text, rows, size_limit=1 << 16)
    write_case(out, "text_zstd", text, rows, size_limit="64kb", compression="zstd:7", hashes=["sha1", "xxh64"])
    mixed = [
        {"b": rng.randbytes(rng.randrange(60)), "i": rng.randrange(-(2**63), 2**63), "s": d["text"][: rng.randrange(90)]}
        for d in docs
    ]
    write_case(out, "mixed_zstd", {"b": "bytes", "i": "int", "s": "str"}, mixed, size_limit=4096, compression="zstd", hashes=["blake2b", "md5"])
    scalars = []
    for _ in range(64):
        row = {}
        for name in DTYPES:
            row[name] = nprng.bytes(8)[: np.dtype(name).itemsize]
            row[name] = np.frombuffer(row[name], name)[0]
            if name.startswith("float"):
                row[name] = np.dtype(name).type(nprng.normal())
        scalars.append(row)
    write_case(out, "scalars_none", {n: n for n in DTYPES}, scalars, size_limit=1024, hashes=["xxh3_64"])
    arrays = []
    for i in range(48):
        shape = [int(nprng.integers(1, 5)) for _ in range(int(nprng.integers(1, 5)))]
        dtype = DTYPES[i % len(DTYPES)]
        arrays.append({
            "any": nprng.integers(0, 100, shape).astype(dtype),
            "tokens": nprng.integers(0, 50257, int(nprng.integers(1, 400))).astype("int32"),
            "fixed": nprng.integers(0, 50257, (2, 64)).astype("uint16"),
        })
    columns = {"any": "ndarray", "tokens": "ndarray:int32", "fixed": "ndarray:uint16:2,64"}
    write_case(out, "arrays_none", columns, arrays, size_limit=8192)
    write_case(out, "arrays_zstd", columns, arrays, size_limit=8192, compression="zstd:19", hashes=["sha256"])


main()
