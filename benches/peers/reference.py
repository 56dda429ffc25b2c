"""The reference's side of `make bench-peers`: mosaicml-streaming at its best documented settings.

One process serves the whole run, so that its imports and the preparation of its input are outside of
every measurement. Reading is measured in each documented way (`LocalDataset`, the `MDSReader`s of its shards,
`StreamingDataset`); run.py takes the fastest.
"""

import functools
import os
import shutil
import time
import warnings
from pathlib import Path

import numpy as np
from streaming import LocalDataset, MDSWriter, StreamingDataLoader, StreamingDataset

from protocol import serve

COLUMNS = {"id": "int", "text": "str", "url": "str"}


@functools.cache
def documents(path):
    """The samples to write, as dictionaries; read once."""
    data = Path(path).read_bytes()
    made, at = [], 0

    def text():
        nonlocal at
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        value = data[at + 4 : end].decode()
        at = end
        return value

    while at < len(data):
        made.append({"id": len(made), "text": text(), "url": text()})
    return made


def write(input, out, compression=None, hashes=None, fsync=False, times=2):
    """Writes so many times, the last time by the clock: the machine has the memory at hand then."""
    for _ in range(times - 1):
        write_once(documents(input), out, compression, hashes, fsync)
        shutil.rmtree(out)
        os.sync()
    return write_once(documents(input), out, compression, hashes, fsync)


def write_once(samples, out, compression, hashes, fsync):
    start = time.perf_counter()
    with MDSWriter(columns=COLUMNS, out=out, compression=compression, hashes=hashes) as writer:
        for sample in samples:
            writer.write(sample)
    if fsync:  # not a thing that the reference does: for a fair look at the disk
        for path in Path(out).iterdir():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
    return {"seconds": time.perf_counter() - start, "samples": len(samples)}


def write_tokens(out, samples, length, seed):
    """Makes the token data: random ids of GPT-2's vocabulary."""
    random = np.random.default_rng(seed)
    with MDSWriter(columns={"tokens": "ndarray:int32"}, out=out) as writer:
        for _ in range(samples):
            writer.write({"tokens": random.integers(0, 50257, length, dtype=np.int32)})
    return {"samples": samples}


@functools.cache
def opened(way, data):
    """The samples of a dataset by their number, and the same in order."""
    if way == "StreamingDataset":
        dataset = StreamingDataset(local=data, shuffle=False, batch_size=1)
        return dataset, lambda: iter(dataset)
    dataset = LocalDataset(data)
    if way == "LocalDataset":
        return dataset, lambda: map(dataset.__getitem__, range(len(dataset)))
    if way == "MDSReader":
        return _Shards(dataset.shards), lambda: (s for shard in dataset.shards for s in shard)
    raise ValueError(way)


class _Shards:
    """Samples by number from the readers of the shards, found as quickly as Python can."""

    def __init__(self, shards):
        self.find = [(shard, i) for shard in shards for i in range(len(shard))]

    def __getitem__(self, sample):
        shard, position = self.find[sample]
        return shard.get_item(position)


def decode(way, data):
    _, samples = opened(way, data)
    count = total = 0
    start = time.perf_counter()
    for sample in samples():
        total += sample["id"]
        count += 1
    return {"seconds": time.perf_counter() - start, "samples": count, "sum": total}


def byte_sum(tokens):
    # The quickest sum of bytes that numpy has: 32 bits cannot overflow, and 64 take longer.
    return int(np.add.reduce(tokens.view(np.uint8), dtype=np.uint32))


def random(way, data, order):
    samples, _ = opened(way, data)
    order = np.fromfile(order, "<u4").tolist()
    size = total = 0
    start = time.perf_counter()
    for number in order:
        tokens = samples[number]["tokens"]
        total += byte_sum(tokens)
        size += tokens.nbytes
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "samples": len(order), "bytes": size, "sum": total}


def iterate(way, data):
    _, samples = opened(way, data)
    count = size = total = 0
    start = time.perf_counter()
    for sample in samples():
        tokens = sample["tokens"]
        total += byte_sum(tokens)
        size += tokens.nbytes
        count += 1
    return {"seconds": time.perf_counter() - start, "samples": count, "bytes": size, "sum": total}


@functools.cache
def shuffled(way, data, batch):
    """What one shuffled epoch iterates over: single samples, or batches by so many workers."""
    dataset = StreamingDataset(local=data, shuffle=True, shuffle_algo="py1e", batch_size=batch)
    if way == "StreamingDataset":
        return dataset
    workers = int(way.rpartition(" ")[2])
    return StreamingDataLoader(
        dataset, batch_size=batch, num_workers=workers, persistent_workers=workers > 0
    )


def epoch(way, data, column, batch):
    """One shuffled epoch; call it once before, so that workers run."""
    samples = size = total = 0
    batches = shuffled(way, data, batch)
    start = time.perf_counter()
    for values in batches:
        values = values[column]
        if column == "tokens":
            # A single sample, or the batch that PyTorch's default made of several.
            values = values if way == "StreamingDataset" else values.numpy()
            samples += 1 if values.ndim == 1 else len(values)
            # 32 bits hold 40 samples of 2,048 ids below 50,257, and 64 take longer.
            total += int(np.add.reduce(values.reshape(-1).view(np.uint32), dtype=np.uint32))
            size += values.nbytes
        else:
            for text in [values] if way == "StreamingDataset" else values:
                text = np.frombuffer(text.encode(), np.uint8)
                samples += 1
                total += byte_sum(text)
                size += text.nbytes
    return {"seconds": time.perf_counter() - start, "samples": samples, "bytes": size, "sum": total}


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    serve({f.__name__: f for f in (write, write_tokens, decode, random, iterate, epoch)})
