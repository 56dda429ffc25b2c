"""Writes order vectors for random configurations, computed by mosaicml-streaming, in the layout of tests/golden.

usage: order_vectors.py OUT [--seed N] [--primitives N] [--epochs N]

Set-ups that the reference refuses are kept, with the name of its exception: ours must refuse them too.
"""

import argparse
import atexit
import contextlib
import fcntl
import hashlib
import json
import logging
import os
import random
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
METHODS = ["random", "random", "stratified", "per_stream", "device_per_stream"]


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


def stream_weights(draw, count, most):
    """Weights of all kinds; those that cannot stand together among them."""
    proportion = lambda: {"proportion": draw.choice([0.0, 1.0]) if draw.random() < 0.03 else round(draw.random() + 0.05, 4)}
    repeat = lambda: {"repeat": 0.0 if draw.random() < 0.03 else round(draw.uniform(0.3, 2.5), 2)}
    choose = lambda: {"choose": 0 if draw.random() < 0.03 else draw.randint(20, most)}
    kind = draw.choice(["plain"] * 3 + ["proportion"] * 3 + ["absolute"] * 3 + ["anything"])
    if kind == "plain":
        return [{} for _ in range(count)]
    if kind == "proportion":
        return [proportion() for _ in range(count)]
    kinds = [repeat, choose, dict] + [proportion] * (kind == "anything")
    return [draw.choice(kinds)() for _ in range(count)]


def random_world(draw):
    nodes = draw.choice([1, 1, 1, 2, 2, 3, 4, draw.choice([5, 6, 8])])
    return {"nodes": nodes, "ranks_per_node": draw.choice([1, 1, 2, 3, draw.choice([4, 8])]), "workers_per_rank": draw.randint(1, 4)}


def small_case(draw):
    """A few hundred samples, with every argument at random."""
    count = draw.choice([1, 1, 2, 3, 4, 5, 9, 14])
    most = draw.choice([5, 40, 200])
    streams = stream_weights(draw, count, 300)
    for stream in streams:
        sizes = [draw.choice([0, draw.randint(1, most), draw.randint(10, 60)]) for _ in range(draw.randint(0, 12))]
        sizes.insert(draw.randint(0, len(sizes)), draw.choice([draw.randint(1, 9), draw.randint(20, 60), draw.randint(20, 60)]))
        stream["shard_sizes"] = sizes
    world = random_world(draw)
    nodes = world["nodes"]
    arguments = {
        "shuffle": draw.random() < 0.85,
        "shuffle_algo": draw.choice(SHUFFLES),
        "shuffle_seed": draw.randrange(1 << draw.choice([4, 32, 63])),
        "batching_method": draw.choice(METHODS),
        "sampling_method": draw.choice(["balanced", "balanced", "fixed"]),
        "sampling_granularity": draw.choice([1, 1, 3, 16, 1000, 0] if draw.random() < 0.1 else [1, 1, 3, 16]),
        "partition_algo": draw.choice(["relaxed", "relaxed", "orig"]),
        "num_canonical_nodes": draw.choice([None, None, nodes, nodes, nodes, nodes * draw.randint(1, 8), nodes * draw.randint(1, 3),
                                            max(1, nodes // 2), draw.randint(1, 12)]),
        "shuffle_block_size": draw.choice([None, draw.randint(1, 40), draw.randint(40, 400), draw.randint(40, 400), 100_000]),
    }
    ranks = nodes * world["ranks_per_node"]
    replication = draw.choice([None, None, 1, draw.choice([k for k in (1, 2, 3, 4) if ranks % k == 0])])
    if draw.random() < 0.03:
        replication = draw.choice([0, 2, 3])
    if draw.random() < (0.05 if any("repeat" in stream or "choose" in stream for stream in streams) else 0.5):
        arguments["epoch_size"] = draw.choice([draw.randint(1, 60), draw.randint(30, 1500), str(draw.randint(30, 900)), "0.5k", "1x"]
                                              if draw.random() < 0.2 else [draw.randint(30, 1500)])
    return {"streams": streams, "physical_world": world, "replication": replication,
            "batch_size": draw.choice([1, 2, 2, 3, 4, 5, draw.choice([8, 16])]), "dataset_args": arguments}


def large_case(draw, samples, shard, block):
    """So many samples that a shuffle is computed in many parts, most of them begun in the middle.

    `shard` and `block` bound the sizes of shards and shuffle blocks.
    """
    count = draw.choice([1, 1, 2, 3])
    streams = [{} for _ in range(count)]
    if draw.random() < 0.5:
        streams = [draw.choice([dict, lambda: {"repeat": round(draw.uniform(0.6, 1.8), 2)}])() for _ in range(count)]
    total = draw.randint(*samples)
    for stream in streams:
        sizes, least = [], draw.choice([1, shard[0]])
        while sum(sizes) < total // count:
            sizes.append(0 if draw.random() < 0.02 else draw.randint(least, shard[1]) if draw.random() < 0.5 else shard[1])
        stream["shard_sizes"] = sizes
    nodes = draw.choice([1, 1, 2, 4])
    arguments = {
        "shuffle": True,
        "shuffle_algo": draw.choice(SHUFFLES),
        "shuffle_seed": draw.randrange(1 << 40),
        "batching_method": draw.choice(METHODS),
        "sampling_granularity": draw.choice([64, 1000]),
        "partition_algo": draw.choice(["relaxed", "orig"]),
        "num_canonical_nodes": nodes * draw.choice([1, 1, 2, 4, 16]),
        "shuffle_block_size": draw.randint(*block),
    }
    world = {"nodes": nodes, "ranks_per_node": draw.choice([1, 2, 4]), "workers_per_rank": draw.choice([1, 2])}
    return {"streams": streams, "physical_world": world, "replication": None, "batch_size": draw.choice([8, 50, 512]),
            "dataset_args": arguments}


def random_epoch_case(draw, number):
    # Few shuffles are so long that threads share the pass over their random numbers.
    if number % 200 == 199:
        return large_case(draw, (1_500_000, 2_500_000), (6_000, 9_000), (20_000, 400_000))
    if number % 20 == 19:
        return large_case(draw, (100_000, 200_000), (200, draw.choice([400, 3_000, 20_000])), (300, draw.choice([2_000, 30_000])))
    return small_case(draw)


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
    return world if replication is None else world.replicate(replication)


def shape_of(world):
    return {"nodes": world.num_nodes, "ranks_per_node": world.ranks_per_node, "workers_per_rank": world.workers_per_rank}


def ambiguous(dataset, world):
    """Whether streams tie for a place in a stratified batch: from four on, the reference's answer depends on the CPU."""
    global_batch = world.num_nodes * world.ranks_per_node * dataset.batch_size
    if not dataset.epoch_size:
        return False
    exact = [stream.proportion * global_batch for stream in dataset.streams]
    remainders = sorted((part - int(part) for part in exact), reverse=True)
    missing = global_batch - sum(map(int, exact))
    return len(exact) > 3 and 0 < missing < len(exact) and remainders[missing - 1] == remainders[missing]


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
    if ids.size > 20_000:
        return case | {"shape": list(ids.shape), "sha256_le_i64": hashlib.sha256(ids.astype("<i8").tobytes()).hexdigest()}
    flat = ids.reshape(*ids.shape[:3], -1)
    return case | {"shape": list(ids.shape), "ids": flat.tolist()}


def new_dataset(case, root):
    streams = []
    for number, stream in enumerate(case["streams"]):
        write_index(f"{root}/{number}", stream["shard_sizes"])
        weights = {key: value for key, value in stream.items() if key != "shard_sizes"}
        streams.append(Stream(local=f"{root}/{number}", **weights))
    return StreamingDataset(streams=streams, batch_size=case["batch_size"], **case["dataset_args"])


def whole_epochs(draw, number, root, lock):
    case = random_epoch_case(draw, number)
    physical, arguments = case["physical_world"], case["dataset_args"]
    world, error = result_of(lambda: world_of(physical, case["replication"]))
    if not error:
        # The names of a dataset's shared memory are those that are free.
        with locked(lock):
            dataset, error = result_of(lambda: new_dataset(case, root))
    if error:
        return case | {"error": error}
    dataset._resume(world, 0)
    case["derived"] = {
        "num_canonical_nodes": dataset.num_canonical_nodes,
        "shuffle_block_size": dataset.shuffle_block_size,
        "epoch_size": int(dataset.epoch_size),
        "num_samples": int(dataset.num_samples),
        "choose_per_stream": [int(stream.choose) for stream in dataset.streams],
        "proportion_per_stream": [float(stream.proportion).hex() for stream in dataset.streams],
    }
    method = arguments["batching_method"]
    case["runs"] = runs = []

    def add_run(world, *position):
        if method != "stratified" or not ambiguous(dataset, world):
            runs.append(run(dataset, method, world, *position))

    for epoch in (0, draw.randint(1, 9)):
        add_run(world, "epoch", epoch, 0)

    # Resumed on another world with the same global batch, where one can be made, and another seed.
    global_batch = world.num_nodes * world.ranks_per_node * case["batch_size"]
    other = {"nodes": draw.choice([1, 2, 3, 4, 6]), "ranks_per_node": world.ranks_per_node, "workers_per_rank": draw.randint(1, 3)}
    dataset.batch_size = max(1, global_batch // (other["nodes"] * other["ranks_per_node"]))
    most = case["derived"]["epoch_size"]
    state = {"epoch": draw.randint(0, 4),
             "sample_in_epoch": draw.choice([global_batch, 3 * global_batch, draw.randint(0, 200), draw.randint(0, most + most // 8 + 9),
                                             draw.randint(0, most // global_batch) * global_batch]),
             "num_canonical_nodes": draw.choice([dataset.num_canonical_nodes] * 4 + [draw.randint(1, 12)]),
             "shuffle_seed": draw.randrange(1 << 32)}
    # Old checkpoints do not say on how many nodes the run began.
    if draw.random() < 0.8:
        state["initial_physical_nodes"] = world.num_nodes
    dataset.shuffle_block_size = arguments["shuffle_block_size"]
    dataset.load_state_dict(state)
    other = world_of(other)
    epoch, sample = dataset._resume(other, state["epoch"])
    add_run(other, "resume", epoch, sample, state)
    return case


@contextlib.contextmanager
def locked(path):
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_epochs(out, seed, numbers):
    """Writes some cases in a process of their own, since each dataset keeps the descriptors of all before it."""
    if child := os.fork():
        return child
    with tempfile.TemporaryDirectory(dir=out) as tempfile.tempdir:
        lock = f"{out}/lock"
        for number in numbers:
            name = f"{seed}/{number}"
            draw = random.Random(name)
            case = {"name": name} | whole_epochs(draw, number, f"{tempfile.tempdir}/{number}", lock)
            with open(f"{out}/order/{number:04}_random.json", "w") as file:
                json.dump(case, file)
        # Held until the process has ended, and given its shared memory back.
        fcntl.flock(open(lock, "w"), fcntl.LOCK_EX)  # noqa: SIM115
        atexit._run_exitfuncs()
    os._exit(0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--primitives", type=int, default=300, help="cases of each single stage")
    parser.add_argument("--epochs", type=int, default=3000, help="set-ups of whole epochs, a quarter of which is refused")
    arguments = parser.parse_args()
    out, seed = arguments.out, arguments.seed

    draw = random.Random(seed)
    for folder in ("primitives", "order"):
        os.makedirs(f"{out}/{folder}", exist_ok=True)
    for name, make in {"partition": partition, "shuffle": shuffle, "sampling": sampling}.items():
        with open(f"{out}/primitives/{name}.json", "w") as file:
            json.dump([make(draw) for _ in range(arguments.primitives)], file)

    processes = 0
    for first in range(0, arguments.epochs, 20):
        if processes == (os.cpu_count() or 1):
            processes -= join_one()
        write_epochs(out, seed, range(first, min(first + 20, arguments.epochs)))
        processes += 1
    while processes:
        processes -= join_one()
    os.remove(f"{out}/lock")


def join_one():
    _, status = os.wait()
    if status:
        sys.exit("a process that computes orders failed")
    return 1


main()
