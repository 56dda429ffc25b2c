"""Lets mosaicml-streaming write datasets of real texts, tokens and numbers for our reader.

usage: reference_writes.py OUT_DIR C4_JSON_GZ...

The cases are in the layout of golden_layout.py; matrix_writes.py has every encoding, compression and hash.
"""

import gzip
import json
import pathlib
import random
import sys

import numpy as np
from golden_layout import write_case

DTYPES = "uint8 int8 uint16 int16 float16 uint32 int32 float32 uint64 int64 float64".split()


def write(out, name, columns, samples, **options):
    shards = write_case(out, name, columns, samples, **options)
    print(f"reference wrote {name}: {len(samples)} samples, {shards} shards")


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
    write(out, "text_none", text, rows, size_limit=1 << 16)
    write(out, "text_zstd", text, rows, size_limit="64kb", compression="zstd:7", hashes=["sha1", "xxh64"])
    mixed = [
        {"b": rng.randbytes(rng.randrange(60)), "i": rng.randrange(-(2**63), 2**63), "s": d["text"][: rng.randrange(90)]}
        for d in docs
    ]
    write(out, "mixed_zstd", {"b": "bytes", "i": "int", "s": "str"}, mixed, size_limit=4096, compression="zstd", hashes=["blake2b", "md5"])
    scalars = []
    for _ in range(64):
        row = {}
        for name in DTYPES:
            row[name] = nprng.bytes(8)[: np.dtype(name).itemsize]
            row[name] = np.frombuffer(row[name], name)[0]
            if name.startswith("float"):
                row[name] = np.dtype(name).type(nprng.normal())
        scalars.append(row)
    write(out, "scalars_none", {n: n for n in DTYPES}, scalars, size_limit=1024, hashes=["xxh3_64"])
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
    write(out, "arrays_none", columns, arrays, size_limit=8192)
    write(out, "arrays_zstd", columns, arrays, size_limit=8192, compression="zstd:19", hashes=["sha256"])


main()
