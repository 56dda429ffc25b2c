"""Lets mosaicml-streaming write every encoding, compression and hash in all its formats, for our reader.

usage: matrix_writes.py OUT_DIR [--seed N]

Small datasets of random values in the layout of golden_layout.py: each format under each compression (all levels in
turn) with each hash alone, all hashes and none. Then datasets merged by the reference, each part of another kind.
"""

import argparse
import itertools
import json
import logging
import pathlib
import random
import warnings

import numpy as np
from golden_layout import write_case, write_expected, write_json, WRITERS
from matrix_values import Values, mds_columns, mds_value, text_columns, text_value
from streaming.base.compression import get_compressions
from streaming.base.hashing import get_hashes
from streaming.base.util import merge_index

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
CODES = [None, "br", "bz2", "gz", "snappy", "zstd"]
SEPARATORS = ["::", "|", ";", "\t\t", "→", "<sep>"]
NEWLINES = ["\n", "\r\n", "\n\n", "\r", "\u2028"]
JSON_NEWLINES = ["\n", "\r\n", "\n\n", "\r", " \t"]  # others the reference writes, but cannot read


def hash_lists():
    names = sorted(get_hashes())
    return [[], *([name] for name in names), names]


def levels(code):
    """All the ways to ask for a compression, without a level first."""
    if code is None:
        return [None]
    return [code] + [name for name in sorted(get_compressions()) if name.startswith(code + ":")]


class Matrix:
    """Makes datasets; asks for each separator, line end and level in turn."""

    def __init__(self, seed):
        self.values = Values(random.Random(seed), np.random.default_rng(seed))
        self.columns = mds_columns()

    def dataset(self, kind):
        """Columns, samples and what the format wants to know besides."""
        values, options = self.values, {}
        if kind == "mds":
            count = values.draw.randint(3, 6)
            samples = [{k: mds_value(values, v) for k, v in self.columns.items()} for _ in range(count)]
            return self.columns, samples, {"size_limit": values.draw.choice([20_000, 40_000, "32kb"])}
        newlines = JSON_NEWLINES if kind == "json" else NEWLINES
        newline = values.turn("newline " + kind, newlines)
        if values.draw.random() < 0.8 or newline != "\n":
            options["newline"] = newline
        separator = {"json": None, "csv": ",", "tsv": "\t"}.get(kind, values.turn("separator", SEPARATORS))
        if kind == "xsv":
            options["separator"] = separator
        forbidden = [] if kind == "json" else [separator, newline]
        columns = text_columns(kind == "json")
        samples = [{k: text_value(values, v, forbidden) for k, v in columns.items()} for _ in range(values.draw.randint(3, 12))]
        return columns, samples, {**options, "size_limit": values.draw.choice([1000, 2500])}

    def write(self, out, name, kind, code, hashes):
        columns, samples, options = self.dataset(kind)
        compression = self.values.turn(f"level {code}", levels(code))
        options |= {key: value for key, value in [("compression", compression), ("hashes", hashes)] if value}
        shards = write_case(out, name, columns, samples, kind=kind, **options)
        return len(samples), len(samples) * len(columns), shards

    def write_merged(self, out, number):
        """A dataset of parts in several folders, under one index that the reference merged."""
        case = out / "mds" / f"merged_{number}"
        kind = self.values.turn("merged", list(WRITERS))
        all_samples, sizes, indexes = [], [], []
        for part in range(3):
            columns, samples, options = self.dataset(kind)
            options |= {"compression": self.values.draw.choice([None, "zstd:3", "gz", "br:1"]), "hashes": ["sha1"]}
            folder = case / "data" / f"{part:05}"
            with WRITERS[kind](out=str(folder), columns=columns, **options) as writer:
                for sample in samples:
                    writer.write(sample)
            indexes.append(str(folder / "index.json"))
            index = json.loads(pathlib.Path(indexes[-1]).read_text())
            sizes += [shard["samples"] for shard in index["shards"]]
            all_samples += samples
        # Given a folder alone, it takes the shards of JSON lines for indexes.
        merge_index(*([indexes] if kind == "json" else []), str(case / "data"), keep_local=True)
        write_expected(case, kind, columns, all_samples, sizes)
        write_json(case / "case.json", {"name": case.name, "format": kind, "num_samples": len(all_samples)})
        return len(all_samples), len(all_samples) * len(columns), len(sizes)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    matrix, counts = Matrix(arguments.seed), []
    for kind, code, hashes in itertools.product(WRITERS, CODES, hash_lists()):
        which = hashes[0] if len(hashes) == 1 else "every" if hashes else "no"
        name = f"{kind}_{code or 'none'}_{which}"
        counts.append(matrix.write(arguments.out, name, kind, code, hashes))
    merged = [matrix.write_merged(arguments.out, number) for number in range(10)]
    samples, values, shards = map(sum, zip(*counts, *merged))
    print(f"reference wrote {len(counts)} datasets and merged {len(merged)}: {shards} shards, {samples} samples, {values} values")


main()
