"""litdata's side of `make bench-peers`: the same tokens, converted by its own `optimize`, in a shuffled epoch.

Like reference.py one process for the whole run, with imports, opening and a first epoch outside of every
measurement. It imports litdata from a folder of its own (scripts/bench-peers), and PyTorch from the reference's.
"""

import functools
import time

import numpy as np
import torch
from litdata import StreamingDataLoader, StreamingDataset, TokensLoader, optimize
from streaming import LocalDataset

from protocol import serve

# Samples that one call of `rows` gives: few calls, yet enough for a progress bar.
STEP = 256


def rows(span, data):
    """The tokens of some samples of the MDS dataset `data`."""
    dataset = LocalDataset(data)
    for number in range(*span):
        yield torch.from_numpy(dataset[number]["tokens"].copy())


def convert(data, out, length):
    samples = len(LocalDataset(data))
    spans = [(at, min(at + STEP, samples)) for at in range(0, samples, STEP)]
    optimize(
        fn=functools.partial(rows, data=data),
        inputs=spans,
        output_dir=out,
        chunk_bytes="64MB",
        num_workers=1,
        item_loader=TokensLoader(block_size=length),
    )
    return {"samples": samples}


@functools.cache
def opened(way, data, length, batch):
    """What one epoch iterates over: single samples, or batches by so many workers."""
    dataset = StreamingDataset(data, item_loader=TokensLoader(block_size=length), shuffle=True)
    if way == "StreamingDataset":
        return dataset
    workers = int(way.rpartition(" ")[2])
    return StreamingDataLoader(
        dataset, batch_size=batch, num_workers=workers, persistent_workers=workers > 0
    )


def epoch(way, data, length, batch):
    """One epoch; call it once before, so that workers run and chunks are open."""
    batches = opened(way, data, length, batch)
    samples = size = total = 0
    start = time.perf_counter()
    for tokens in batches:
        tokens = tokens.numpy()
        samples += tokens.size // length
        total += token_sum(tokens)
        size += tokens.nbytes
    return {"seconds": time.perf_counter() - start, "samples": samples, "bytes": size, "sum": total}


def token_sum(tokens):
    # The quickest sum that numpy has: 32 bits hold 40 samples of 2,048 ids below 50,257, and 64 take longer.
    return int(np.add.reduce(tokens.reshape(-1).view(np.uint32), dtype=np.uint32))


if __name__ == "__main__":
    serve({f.__name__: f for f in (convert, epoch)})
