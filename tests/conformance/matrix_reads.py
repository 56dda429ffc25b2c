"""Lets mosaicml-streaming read the datasets of tests/cross_write.rs, and compares every value.

usage: matrix_reads.py CROSS_DIR MDS_INSPECT

Each dataset goes through a Stream with one of its hashes validated; those without compression are read in place by
LocalDataset too, and one of each format and compression by StreamingDataset. Sizes and hashes of every file, before
compression and after, are computed again by Python's own libraries, and every index is what json.dumps makes of it.
At last MDS_INSPECT, our program, merges a dozen of them, and so does the reference.
"""

import argparse
import collections
import hashlib
import json
import logging
import pathlib
import shutil
import struct
import subprocess
import tempfile
import warnings
from decimal import Decimal

import numpy as np
import xxhash
from golden_layout import raw_files, value_entry
from streaming import LocalDataset, Stream, StreamingDataset
from streaming.base.util import merge_index
from streaming.base.world import World

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)


def float_bits(value):
    return "nan" if value != value else struct.pack("<d", value).hex()


def tree(value):
    """A JSON value as the tree of tags that cross_write.rs makes of it."""
    if value is None:
        return ["null"]
    if isinstance(value, bool):
        return ["bool", value]
    if isinstance(value, int):
        return ["int", str(value)]
    if isinstance(value, float):
        return ["float", float_bits(value)]
    if isinstance(value, str):
        return ["str", value]
    if isinstance(value, list):
        return ["list", [tree(item) for item in value]]
    return ["dict", [[key, tree(item)] for key, item in value.items()]]


def found_entry(encoding, value, wanted):
    """What the reference decoded, in the words of expected.jsonl."""
    if "tree" in wanted:
        return {"tree": tree(value)}
    if "repr" in wanted:
        return {"repr": repr(value)}
    if "decimal_of" in wanted:
        assert isinstance(value, Decimal), type(value)
        return {"decimal_of": str(value)}
    found = value_entry(encoding, value)
    if "f64_bits" in wanted:
        assert isinstance(value, float), type(value)
        found["f64_bits"] = float_bits(value)
    if isinstance(value, np.generic):
        found["dtype"] = value.dtype.name
    return found


def check_value(encoding, value, wanted):
    found = found_entry(encoding, value, wanted)
    if "decimal_of" in wanted:
        wanted = {"decimal_of": str(Decimal(wanted["decimal_of"]))}
    if "images" in wanted:
        pairs = zip(found["images"], wanted["images"], strict=True)
    else:
        pairs = [(found, wanted)]
    for found, wanted in pairs:
        # The bytes of image files are those of the shard, which hashes and pixels check.
        wanted = {key: entry for key, entry in wanted.items() if key != "file_b64"}
        assert {key: found[key] for key in wanted} == wanted, f"{found} instead of {wanted}"


def check_samples(samples, columns, expected, how):
    values = 0
    for i, (sample, wanted) in enumerate(zip(samples, expected, strict=True)):
        assert sample.keys() == columns.keys(), f"sample {i}: columns {list(sample)}"
        for name, encoding in columns.items():
            try:
                check_value(encoding, sample[name], wanted[name])
            except Exception as error:
                raise AssertionError(f"{how}, sample {i}, column {name!r} ({encoding}): {error}") from error
            values += 1
    return values


def digest(algorithm, data):
    library = xxhash if algorithm.startswith("xxh") else hashlib
    return getattr(library, algorithm)(data).hexdigest()


def check_files(data, case):
    """The index and each file that it lists. Returns the number of digests compared."""
    text = (data / "index.json").read_text()
    index = json.loads(text)
    assert text == json.dumps(index, sort_keys=True), "index.json is not as json.dumps writes it"
    digests, stored = 0, {"index.json"}
    for shard in index["shards"]:
        for key, value in case.items():
            if key in shard:
                assert shard[key] == value, f"{key} {shard[key]!r} instead of {value!r}"
        files = [(shard[f"raw_{part}"], raw) for part, raw in zip(("data", "meta"), dict(raw_files(data, shard)).values())]
        for part in ("zip_data", "zip_meta"):
            if shard.get(part):
                files.append((shard[part], (data / shard[part]["basename"]).read_bytes()))
        for info, content in files:
            assert info["bytes"] == len(content), f"{info['basename']} has {len(content)} bytes"
            assert list(info["hashes"]) == case["hashes"], info["hashes"]
            for algorithm, hexadecimal in info["hashes"].items():
                assert digest(algorithm, content) == hexadecimal, f"{algorithm} of {info['basename']}"
                digests += 1
        stored |= {(shard[f"zip_{part}"] or shard[f"raw_{part}"])["basename"] for part in ("data", "meta") if f"raw_{part}" in shard}
    assert {path.name for path in data.iterdir()} == stored, "other files than the index lists"
    return digests


def stream_samples(data, local, validate_hash):
    stream = Stream(remote=str(data), local=local, download_retry=1, download_timeout=60, validate_hash=validate_hash, keep_zip=False)
    for shard in stream.get_shards(World(1, 1, 1, 0), allow_unsafe_types=True):
        stream.prepare_shard(shard)
        yield from (shard[i] for i in range(shard.samples))


def streaming_samples(data, local, validate_hash):
    dataset = StreamingDataset(remote=str(data), local=local, shuffle=False, batch_size=1, validate_hash=validate_hash, allow_unsafe_types=True)
    yield from (dataset[i] for i in range(dataset.size))


class Checks:
    def __init__(self):
        self.counts = collections.Counter()
        self.streamed = set()

    def check(self, folder):
        data = folder / "data"
        case = json.loads((folder / "case.json").read_text())
        expected = [json.loads(line) for line in open(folder / "expected.jsonl")]
        columns, hashes = case["columns"], case["hashes"]
        self.counts["digests"] += check_files(data, case)
        # Another one for each dataset that has them all.
        validated = hashes[self.counts["datasets"] % len(hashes)] if hashes else None
        readings = {"Stream": lambda local: stream_samples(data, local, validated)}
        if not case["compression"]:
            readings["LocalDataset"] = lambda local: (lambda dataset: (dataset[i] for i in range(len(dataset))))(LocalDataset(str(data)))
        kind = (case["format"], (case["compression"] or "").partition(":")[0])
        if hashes and kind not in self.streamed:
            self.streamed.add(kind)
            readings["StreamingDataset"] = lambda local: streaming_samples(data, local, validated)
        for how, read in readings.items():
            with tempfile.TemporaryDirectory() as local:
                self.counts["values"] += check_samples(read(local + "/cache"), columns, expected, how)
            self.counts[f"through {how}"] += 1
        self.counts["datasets"] += 1
        self.counts["samples"] += len(expected)


def check_merged(cross_dir, mds_inspect, checks):
    """Datasets of all compressions as the parts of one: our merged index is the reference's, and it reads them."""
    whole = sorted(path for path in cross_dir.iterdir() if path.name.startswith("mds_"))
    with tempfile.TemporaryDirectory() as scratch:
        ours, theirs = pathlib.Path(scratch, "ours"), pathlib.Path(scratch, "theirs")
        parts = whole[:: max(1, len(whole) // 12)]
        for root in (ours, theirs):
            for number, part in enumerate(parts):
                shutil.copytree(part / "data", root / f"{number:05}")
        subprocess.run([mds_inspect, "merge", ours], check=True, stdout=subprocess.DEVNULL)
        merge_index([str(theirs / f"{number:05}" / "index.json") for number in range(len(parts))], str(theirs))
        assert (ours / "index.json").read_bytes() == (theirs / "index.json").read_bytes(), "the merged indexes differ"
        expected = [json.loads(line) for part in parts for line in open(part / "expected.jsonl")]
        columns = json.loads((parts[0] / "case.json").read_text())["columns"]
        samples = stream_samples(ours, scratch + "/cache", None)
        checks.counts["values"] += check_samples(samples, columns, expected, "merged")
        checks.counts["merged parts"] += len(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cross_dir", type=pathlib.Path)
    parser.add_argument("mds_inspect", help="our program, for the merged index")
    arguments = parser.parse_args()
    checks, failed = Checks(), []
    for folder in sorted(path for path in arguments.cross_dir.iterdir() if path.is_dir()):
        try:
            checks.check(folder)
        except Exception as error:  # noqa: BLE001 - every failure is reported, then the run fails
            failed.append(f"{folder.name}: {type(error).__name__}: {str(error)[:600]}")
    check_merged(arguments.cross_dir, arguments.mds_inspect, checks)
    print("reference read " + ", ".join(f"{count} {what}" for what, count in checks.counts.items()))
    assert not failed, f"{len(failed)} datasets failed:\n" + "\n".join(failed)
    assert checks.counts["values"], "no values"


main()
