"""The peers' side of `remote.py`: a shuffled epoch from a bucket into an empty cache, and one from the cache.

One process for each measurement, with its imports outside of the clock. Arguments and results are JSON.
"""

import json
import logging
import sys
import time
import warnings

import numpy as np


def mosaicml(remote, local, column, batch, workers):
    from streaming import StreamingDataLoader, StreamingDataset

    start = time.perf_counter()
    dataset = StreamingDataset(
        remote=remote, local=local, shuffle=True, shuffle_algo="py1e", batch_size=batch
    )
    # The client that fetched the index has a connection open. Forked workers would all speak on it, and get parts of
    # each other's answers; so each makes a client of its own.
    for stream in dataset.streams:
        stream._downloader.clean_up()
    loader = StreamingDataLoader(
        dataset, batch_size=batch, num_workers=workers, persistent_workers=workers > 0
    )
    return start, loader, column


def litdata(remote, local, column, batch, workers, length, options):
    from litdata import StreamingDataLoader, StreamingDataset, TokensLoader
    from litdata.streaming import downloader

    # The bucket on loopback has no TLS, and there is no option for that.
    downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True
    start = time.perf_counter()
    dataset = StreamingDataset(
        remote,
        cache_dir=local,
        item_loader=TokensLoader(block_size=length),
        shuffle=True,
        storage_options=options,
    )
    loader = StreamingDataLoader(
        dataset, batch_size=batch, num_workers=workers, persistent_workers=workers > 0
    )
    return start, loader, None


def epoch(batches, column, start):
    samples = size = total = 0
    first = None
    for values in batches:
        if first is None:
            first = time.perf_counter() - start
        values = values if column is None else values[column]
        if column == "text":
            for text in values:
                text = np.frombuffer(text.encode(), np.uint8)
                samples += 1
                # The quickest sum that numpy has: 32 bits cannot overflow, and 64 take longer.
                total += int(np.add.reduce(text, dtype=np.uint32))
                size += text.nbytes
        else:
            tokens = values.numpy()
            samples += len(tokens)
            total += int(np.add.reduce(tokens.reshape(-1).view(np.uint32), dtype=np.uint32))
            size += tokens.nbytes
    return {"first": first, "seconds": time.perf_counter() - start, "samples": samples, "bytes": size, "sum": total}


def main():
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    answers, sys.stdout = sys.stdout, sys.stderr
    arguments = json.loads(sys.argv[1])
    peer = {"mosaicml": mosaicml, "litdata": litdata}[arguments.pop("peer")]
    if peer is mosaicml:
        import streaming  # noqa: F401
    else:
        import litdata as _  # noqa: F401
    start, batches, column = peer(**arguments)
    cold = epoch(batches, column, start)
    warm = epoch(batches, column, time.perf_counter())
    result = {"first_batch_seconds": cold["first"], "cold_seconds": cold["seconds"], "warm_seconds": warm["seconds"]}
    print(json.dumps(result | {key: cold[key] for key in ("samples", "bytes", "sum")}), file=answers, flush=True)


if __name__ == "__main__":
    main()
