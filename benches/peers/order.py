"""The order of a whole epoch by mosaicml-streaming: seconds, peak memory and a checksum of all ids.

usage: order.py c4|10M

The set-ups are those of benches/order_scale.rs, whose checksum is the same: the sum of
(place + 1) * id over all ids in the order of serving, [step][node][rank][position], modulo 2^64.

py1e sorts with numpy's argsort, which does not keep equal keys in their order but in one that depends on
the processor. Among hundreds of millions of keys a few are equal; so the ids are compared with those of a
second run, whose argsort is stable, and the places where the two runs differ are counted.
"""

import functools
import resource
import sys
import time

import numpy as np
from streaming.base.partition import get_partitions
from streaming.base.shuffle import get_shuffle

SAMPLES = {"c4": 364_868_892, "10M": 10_000_000}
SHARD, RANKS, WORKERS, BATCH, BLOCK, SEED = 20_000, 8, 2, 16, 262_144, 9176


def epoch(samples):
    """Ids as StreamingDataset computes them, [node][rank][worker][batch][position]."""
    sizes = np.full(-(-samples // SHARD), SHARD, np.int64)
    sizes[-1] -= -samples % SHARD
    places = get_partitions("relaxed", samples, 1, 1, RANKS, WORKERS, BATCH, 0, 1)
    shuffled = get_shuffle("py1e", sizes, 1, SEED, 0, BLOCK)
    return np.where(places != -1, shuffled[places], -1)


def checksum(ids):
    """In pieces, so that no second array of all ids is needed."""
    served = ids.transpose(3, 2, 0, 1, 4)
    total, place = np.uint64(0), 1
    with np.errstate(over="ignore"):
        for step in range(0, len(served), 1 << 12):
            piece = np.ascontiguousarray(served[step : step + (1 << 12)]).reshape(-1).view(np.uint64)
            weights = np.arange(place, place + len(piece), dtype=np.uint64)
            total += (piece * weights).sum(dtype=np.uint64)
            place += len(piece)
    return int(total)


def measured(samples):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    ids = epoch(samples)
    seconds = time.perf_counter() - start
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / 1e9
    return ids, seconds, peak


def main():
    name = sys.argv[1]
    ids, seconds, peak = measured(SAMPLES[name])
    print(f"{name + '-all-ranks (reference)':26} {seconds:7.3f} s {peak:7.3f} GB  {ids.size} ids", flush=True)
    np.argsort = functools.partial(np.argsort, kind="stable")
    stable, _, _ = measured(SAMPLES[name])
    print(f"{name}-all-ranks (reference, stable): {(ids != stable).sum()} ids differ, checksum {checksum(stable)}")


main()
