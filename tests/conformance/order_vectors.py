"""Writes order vectors for random configurations, computed by mosaicml-streaming, in the layout of tests/golden.

usage: order_vectors.py OUT [--seed N] [--count N]

Set-ups that the reference refuses are kept, with the name of its exception: ours must refuse them too.
"""

import argparse
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import warnings

import numpy as np
from streaming import Stream, StreamingDataset
from streaming.base.dataset import generate_work
from streaming.base.partition import get_partitions
from streaming.base.sampling import get_sampling
from streaming.base.shuffle import get_shuffle
from streaming.base.world import World

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
SHUFFLES = ["naive", "py1br", "py1e", "py1s", "py2s"]


def result_of(compute):
    """What compute() returns, or the name of the exception that it raises."""
    try:
        return compute(), None
    except Exception as error:  # noqa: BLE001 - every refusal of the reference counts
        return None, type(error).__name__


def partition(draw):
    nodes = draw.choice([1, 1, 2, 3, 4, 6, 8, 16])
    case = {
        "algo": draw.choice(["orig", "relaxed"]),
        "num_samples": draw.choice([1, 2, 5, draw.randint(1, 40), draw.randint(1, 900)]),
        "num_canonical_nodes": draw.choice([nodes, nodes * draw.randint(1, 5), draw.randint(1, 12), max(1, nodes // 2)]),
        "physical_nodes": nodes,
        "initial_physical_nodes": draw.choice([None, None, nodes, draw.randint(1, 8)]),
        "ranks_per_node": draw.randint(1, 9),
        "workers_per_rank": draw.randint(1, 4),
        "batch_size": draw.choice([1, 2, 3, 4, 6, 12]),
        "drop_first": draw.choice([0, 0, draw.randint(0, 60)]),
    }
    order = ["algo", "num_samples", "num_canonical_nodes", "physical_nodes", "ranks_per_node", "workers_per_rank",
             "batch_size", "drop_first", "initial_physical_nodes"]
    ids, error = result_of(lambda: get_partitions(*[case[key] for key in order]))
    case |= {"error": error} if error else {"shape": list(ids.shape), "flat": ids.flatten().tolist()}
    return case


def shuffle(draw):
    most = draw.choice([2, 20, 90])
    case = {
        "algo": draw.choice(SHUFFLES),
        "shard_sizes": [draw.randint(1, most) for _ in range(draw.randint(1, 25))],
        "num_canonical_nodes": draw.randint(1, 9),
        "seed": draw.randrange(1 << 40),
        "epoch": draw.randint(0, 5),
        "block_size": draw.choice([0, 1, 2, 3, 5, draw.randint(4, 400)]),
    }
    units = np.array(case["shard_sizes"])
    order = ["num_canonical_nodes", "seed", "epoch", "block_size"]
    ids, error = result_of(lambda: get_shuffle(case["algo"], units, *[case[key] for key in order]))
    case |= {"error": error} if error else {"out": [int(id) for id in ids]}
    return case


def sampling(draw):
    sizes = [draw.choice([0, 1, draw.randint(0, 60)]) for _ in range(draw.randint(1, 12))] + [draw.randint(1, 9)]
    draw.shuffle(sizes)
    case = {
        "shard_sizes": sizes,
        "choose": draw.randint(0, 3 * sum(sizes)),
        "granularity": draw.choice([1, 1, 2, 3, 7, 100]),
        "seed": draw.randrange(1 << 40),
        "epoch": draw.randint(0, 5),
        "use_epoch": draw.random() < 0.5,
    }
    order = ["choose", "granularity", "seed", "epoch", "use_epoch"]
    case["out"] = get_sampling(np.array(sizes), *[case[key] for key in order]).tolist()
    return case


def stream_weights(draw, count):
    kind = draw.choice(["plain", "proportion", "absolute"])
    if kind == "plain":
        return [{} for _ in range(count)]
    if kind == "proportion":
        # All different: the reference's own stratified order depends on the processor if four streams are alike.
        return [{"proportion": round(draw.random() + 0.05, 4)} for _ in range(count)]
    absolute = [lambda: {"repeat": round(draw.uniform(0.3, 2.5), 2)}, lambda: {"choose": draw.randint(20, 300)}, dict]
    return [draw.choice(absolute)() for _ in range(count)]


def random_epoch_case(draw, name):
    count = draw.choice([1, 1, 2, 3, 5, 9, 14])
    streams = stream_weights(draw, count)
    for stream in streams:
        sizes = [draw.choice([0, draw.randint(1, 40), draw.randint(10, 60)]) for _ in range(draw.randint(0, 6))]
        stream["shard_sizes"] = sizes + [draw.randint(20, 60)]
    nodes = draw.choice([1, 1, 2, 3, 4])
    arguments = {
        "shuffle": draw.random() < 0.85,
        "shuffle_algo": draw.choice(SHUFFLES),
        "shuffle_seed": draw.randrange(1 << draw.choice([4, 32, 63])),
        "batching_method": draw.choice(["random", "random", "stratified", "per_stream", "device_per_stream"]),
        "sampling_method": draw.choice(["balanced", "balanced", "fixed"]),
        "sampling_granularity": draw.choice([1, 1, 3, 16]),
        "partition_algo": draw.choice(["relaxed", "relaxed", "orig"]),
        "num_canonical_nodes": draw.choice([nodes, nodes * draw.randint(1, 4), max(1, nodes // 2)]),
        "shuffle_block_size": draw.choice([draw.randint(1, 40), draw.randint(40, 400), 100_000]),
    }
    if draw.random() < 0.4 and not any("repeat" in stream or "choose" in stream for stream in streams):
        arguments["epoch_size"] = draw.randint(30, 1500)
    world = {"nodes": nodes, "ranks_per_node": draw.randint(1, 4), "workers_per_rank": draw.randint(1, 3)}
    return {"name": name, "streams": streams, "physical_world": world, "replication": draw.choice([None, None, 2]),
            "batch_size": draw.choice([1, 2, 4, 5, 8, 16]), "dataset_args": arguments}


def write_index(folder, sizes):
    """An index without shards, which is all that an order needs."""
    info = {"basename": "none.mds", "bytes": 1, "hashes": {}}
    shard = {"column_encodings": ["int"], "column_names": ["x"], "column_sizes": [8], "compression": None,
             "format": "mds", "hashes": [], "raw_data": info, "size_limit": None, "version": 2, "zip_data": None}
    shards = [shard | {"samples": size, "raw_data": info | {"basename": f"{i}.mds"}} for i, size in enumerate(sizes)]
    os.makedirs(folder)
    with open(f"{folder}/index.json", "w") as file:
        json.dump({"version": 2, "shards": shards}, file)


def world_of(shape, replication=None):
    world = World(shape["nodes"], shape["ranks_per_node"], shape["workers_per_rank"], 0)
    return world.replicate(replication) if replication else world


def shape_of(world):
    return {"nodes": world.num_nodes, "ranks_per_node": world.ranks_per_node, "workers_per_rank": world.workers_per_rank}


def run(dataset, method, world, kind, epoch, sample, state=None):
    ids, error = result_of(lambda: generate_work(method, dataset, world, epoch, sample))
    # Where a stream cannot fill its part of one stratified batch, the reference serves an epoch of nothing, over and
    # over; ours refuses, as both do for the other methods.
    if not error and method == "stratified" and generate_work(method, dataset, world, epoch, 0).size == 0:
        error = "empty epoch"
    case = {"kind": kind, "epoch": epoch, "sample_in_epoch": sample, "world": shape_of(world),
            "batch_size": dataset.batch_size}
    if state:
        case["state"] = state
    if error:
        return case | {"error": error}
    flat = ids.reshape(*ids.shape[:3], -1)
    return case | {"shape": list(ids.shape), "ids": flat.tolist()}


def whole_epochs(seed):
    draw = random.Random(seed)
    case = random_epoch_case(draw, seed)
    arguments, streams = case["dataset_args"], []
    with tempfile.TemporaryDirectory() as root:
        for number, stream in enumerate(case["streams"]):
            write_index(f"{root}/{number}", stream["shard_sizes"])
            weights = {key: value for key, value in stream.items() if key != "shard_sizes"}
            streams.append(Stream(local=f"{root}/{number}", **weights))
        dataset = StreamingDataset(streams=streams, batch_size=case["batch_size"], **arguments)
    physical = case["physical_world"]
    if physical["nodes"] * physical["ranks_per_node"] % 2:
        case["replication"] = None
    world = world_of(physical, case["replication"])
    dataset.initial_physical_nodes = world.num_nodes
    case["derived"] = {
        "num_canonical_nodes": dataset.num_canonical_nodes,
        "shuffle_block_size": dataset.shuffle_block_size,
        "epoch_size": int(dataset.epoch_size),
        "num_samples": int(dataset.num_samples),
        "choose_per_stream": [int(stream.choose) for stream in dataset.streams],
        "proportion_per_stream": [float(stream.proportion).hex() for stream in dataset.streams],
    }
    method = arguments["batching_method"]
    runs = [run(dataset, method, world, "epoch", epoch, 0) for epoch in (0, draw.randint(1, 9))]

    # Resumed on another world with the same global batch, where one can be made, and another seed.
    global_batch = world.num_nodes * world.ranks_per_node * case["batch_size"]
    other = {"nodes": draw.choice([1, 2, 3, 4, 6]), "ranks_per_node": world.ranks_per_node, "workers_per_rank": draw.randint(1, 3)}
    dataset.batch_size = max(1, global_batch // (other["nodes"] * other["ranks_per_node"]))
    dataset.shuffle_seed = draw.randrange(1 << 32)
    state = {"epoch": draw.randint(0, 4), "sample_in_epoch": draw.choice([global_batch, 3 * global_batch, draw.randint(0, 200)]),
             "num_canonical_nodes": dataset.num_canonical_nodes, "shuffle_seed": dataset.shuffle_seed,
             "initial_physical_nodes": world.num_nodes}
    runs.append(run(dataset, method, world_of(other), "resume", state["epoch"], state["sample_in_epoch"], state))
    return case | {"runs": runs}


def write_epochs(out, seed, numbers):
    for number in numbers:
        case = whole_epochs(f"{seed}/{number}")
        with open(f"{out}/order/{number:04}_random.json", "w") as file:
            json.dump(case, file)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--first", type=int, help="write only epochs, from this number on")
    arguments = parser.parse_args()
    out, seed, count = arguments.out, arguments.seed, arguments.count
    if arguments.first is not None:
        return write_epochs(out, seed, range(arguments.first, arguments.first + count))

    draw = random.Random(seed)
    for folder in ("primitives", "order"):
        os.makedirs(f"{out}/{folder}", exist_ok=True)
    for name, make in {"partition": partition, "shuffle": shuffle, "sampling": sampling}.items():
        with open(f"{out}/primitives/{name}.json", "w") as file:
            json.dump([make(draw) for _ in range(count)], file)
    # A process for every few cases, because each dataset keeps the descriptors of all before it.
    for first in range(0, count, 40):
        part = ["--seed", str(seed), "--first", str(first), "--count", str(min(40, count - first))]
        subprocess.run([sys.executable, __file__, out, *part], check=True)


main()
