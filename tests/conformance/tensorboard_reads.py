"""Lets the real TensorBoard read a run's event files and compares them with its metrics.jsonl.

usage: tensorboard_reads.py RUN_DIR METRIC
"""

import json
import pathlib
import struct
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def float32(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


def main():
    run, metric = pathlib.Path(sys.argv[1]), sys.argv[2]
    events = next(run.rglob("events.out.tfevents.*")).parent
    accumulator = EventAccumulator(str(events), size_guidance={"scalars": 0})
    accumulator.Reload()
    scalars = {e.step: e.value for e in accumulator.Scalars(metric)}
    logged = {}
    for line in open(next(run.rglob("metrics.jsonl"))):
        row = json.loads(line)
        if metric in row:
            logged[row["batch"]] = float32(row[metric])
    assert logged, f"metrics.jsonl has no {metric}"
    assert scalars == logged, f"{metric}: TensorBoard reads {len(scalars)} points, metrics.jsonl has {len(logged)}, and they differ"
    print(f"TensorBoard read {events}: {len(scalars)} points of {metric} equal")


main()
