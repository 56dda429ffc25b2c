"""Lets mosaicml-streaming read what convert-c4 wrote, and compares it with the source, sample for sample.

usage: reference_reads.py text   DATASET C4_JSON_GZ...
       reference_reads.py tokens DATASET C4_JSON_GZ... --tokenizer FILE --seq_len N --eos TEXT
"""

import argparse
import gzip
import json
import tempfile

import numpy as np
from streaming import StreamingDataset


def documents(paths):
    for path in paths:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)


def stream(path):
    """Every sample, through a fresh local cache, each hash that the index names checked on the way."""
    index = json.load(open(f"{path}/index.json"))
    hashes = index["shards"][0]["hashes"]
    with tempfile.TemporaryDirectory() as local:
        dataset = StreamingDataset(
            remote=path, local=local + "/cache", shuffle=False, batch_size=1, validate_hash=hashes[0] if hashes else None
        )
        yield from (dataset[i] for i in range(dataset.size))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["text", "tokens"])
    parser.add_argument("dataset")
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--tokenizer")
    parser.add_argument("--seq_len", type=int)
    parser.add_argument("--eos")
    args = parser.parse_args()

    count = 0
    if args.what == "text":
        expected = list(documents(args.sources))
        for got, want in zip(stream(args.dataset), expected, strict=True):
            want = {k: want[k] for k in ("text", "timestamp", "url")}
            assert got == want, f"sample {count}: {got!r} != {want!r}"
            count += 1
    else:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(args.tokenizer)
        encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
        buffer = []
        for doc in documents(args.sources):
            buffer += encode(doc["text"]) + encode(args.eos)
        n = args.seq_len
        expected = [buffer[i : i + n] for i in range(0, len(buffer) - n + 1, n)]
        for got, want in zip(stream(args.dataset), expected, strict=True):
            assert got["tokens"].dtype == np.int32, got["tokens"].dtype
            assert got["tokens"].tolist() == want, f"sample {count} differs"
            count += 1
    assert count > 0, "no samples"
    print(f"reference read {args.dataset}: {count} samples equal")


main()
