"""`make bench-peers`: this library, mosaicml-streaming and litdata side by side, on the same data, in one run.

Makes the data once, measures all sides in turns, and writes `benches/runs/<date>/`: every raw result,
the table of medians, and what it ran on. Exits with 0 whether the targets are met or not; the table says
which are.
"""

import argparse
import datetime
import filecmp
import json
import os
import platform
import random
import resource
import shutil
import statistics
import subprocess
import sys
import time
from array import array
from collections import Counter
from importlib import metadata
from pathlib import Path

import text

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
SHORT = 2  # so many times less of the short text
HASHES = ["sha1", "xxh64"]  # those of the reference's own examples
SHARD = 64 << 20  # the default of both
TOKENS = 2048
TICK = os.sysconf("SC_CLK_TCK")
BATCH = 32
# Shuffled epochs: ours by what is delivered and to how many threads, the others by their documented ways.
LOADERS = ["StreamingDataset", "loader 0", "loader 1", "loader 2"]
EPOCHS = {
    # label: (data, column, other sides, our ways)
    "epoch tokens": ("tokens", "tokens", ["reference", "litdata"], ["rows", "tokens"]),
    "epoch text": ("text-part", "text", ["reference"], ["text"]),
}
WORKERS = [0, 1, 2]
# Iterating a StreamingDataset takes a minute, as each sample waits for a thread: not its best way.
WAYS = {
    "decode": ["LocalDataset", "MDSReader"],
    "random": ["LocalDataset", "StreamingDataset"],
    "random-in-shards": ["MDSReader"],
    "iterate": ["LocalDataset", "MDSReader"],
}


def busy_seconds():
    """Processor time that all processes have taken, over all cores."""
    ticks = [int(t) for t in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / TICK


class Ours:
    """The example `peers`: a new process for each measurement."""

    def __init__(self, program):
        self.program = program

    def processor_seconds(self):
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    def measure(self, name, cores=None, **arguments):
        command = [self.program, name]
        for key, value in arguments.items():
            if value is True:
                command.append(f"--{key}")
            elif value:
                command += [f"--{key}", *map(str, value if isinstance(value, list) else [value])]
        pin = (lambda: os.sched_setaffinity(0, cores)) if cores else None
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, preexec_fn=pin)
        return json.loads(done.stdout)


class Peer:
    """reference.py or peer_litdata.py: one process for the whole run, and the workers that it starts."""

    def __init__(self, script, **environment):
        self.script = script
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / script)],
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def processor_seconds(self):
        return sum(processor_seconds(pid) for pid in descendants(self.process.pid))

    def measure(self, name, **arguments):
        request = {"name": name} | {key: str(v) if isinstance(v, Path) else v for key, v in arguments.items()}
        print(json.dumps(request), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"bench-peers: {self.script} has died; what it said is above")
        return json.loads(answer)

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)


def processor_seconds(pid):
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:  # it has ended meanwhile
        return 0
    return (int(fields[11]) + int(fields[12])) / TICK


def descendants(pid):
    """A process and those that it has started, which may have started others."""
    found = [pid]
    for parent in found:
        try:
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text()
        except FileNotFoundError:
            continue
        found += map(int, children.split())
    return found


class Run:
    """Calls all sides and keeps every result."""

    def __init__(self, ours, reference, litdata, scratch):
        self.sides = {"ours": ours, "reference": reference, "litdata": litdata}
        self.scratch = scratch  # the folders that writes go to, by name of the medium
        self.raw = []
        self.round = 0

    def call(self, side, label, name, **arguments):
        runner = self.sides[side]
        before, own, start = busy_seconds(), runner.processor_seconds(), time.perf_counter()
        result = runner.measure(name, **arguments)
        wall = time.perf_counter() - start
        own = runner.processor_seconds() - own
        others = max(0.0, busy_seconds() - before - own) / wall
        row = {"round": self.round, "side": side, "measure": label, **result}
        row |= {"processor_seconds": round(own, 3), "cores_of_others": round(others, 2)}
        self.raw.append(row)
        return result

    def write(self, side, label, medium, keep=False, **arguments):
        out = self.scratch[medium] / f"{side}-{label.replace(' ', '-')}"
        shutil.rmtree(out, ignore_errors=True)
        os.sync()  # what earlier writes left for the disk is not this one's
        self.call(side, label, arguments.pop("name"), out=out, **arguments)
        if not keep:
            shutil.rmtree(out)
        return out

    def median(self, side, label, of="seconds"):
        return statistics.median(self.values(side, label, of))

    def best(self, side, label, of="seconds"):
        return min(self.values(side, label, of))

    def values(self, side, label, of):
        return [row[of] for row in self.raw if (row["side"], row["measure"]) == (side, label)]


def measure_round(run, data):
    """Every measurement once on each side; which side begins changes from round to round."""
    both = ["ours", "reference"][:: 1 if run.round % 2 == 0 else -1]
    text, short = {"input": data / "text.bin"}, {"input": data / "short.bin"}
    zstd = {"compression": "zstd", "hashes": HASHES}
    quick = {"compression": "zstd", "hashes": ["xxh64"]}
    size = sum(path.stat().st_size for path in (data / "text").glob("*.mds"))

    run.call("ours", "memory", "memory")
    run.write("ours", "files tmpfs", "tmpfs", name="files", bytes=size)
    run.write("ours", "files disk fsync", "disk", name="files", bytes=size, fsync=True)
    written = [
        ("text tmpfs", "tmpfs", text),
        ("text disk", "disk", text),
        ("text zstd", "tmpfs", text | zstd),
        ("text zstd xxh64", "tmpfs", text | quick),
        ("short zstd", "tmpfs", short | zstd),
    ]
    for label, medium, options in written:
        outs = [run.write(s, label, medium, keep=run.round == 0, name="write", **options) for s in both]
        if run.round == 0:
            check_same(*outs)
            for out in outs:
                shutil.rmtree(out)
    run.write("reference", "text disk fsync", "disk", name="write", **text, fsync=True)
    for label, folder in [("plain zstd", "text"), ("plain zstd of short", "short")]:
        run.call("ours", label, "zstd", data=data / folder, level=3, threads=os.cpu_count())

    for label, ways in WAYS.items():
        name = label.partition("-")[0]
        arguments = {"data": data / ("text" if name == "decode" else "tokens")}
        lay_again(arguments["data"])
        arguments |= {"order": data / "order"} if name == "random" else {}
        for side in both:
            if side == "ours":
                shards = {"shards": True} if label == "random-in-shards" else {}
                run.call(side, label, name, **arguments, **shards)
            else:
                for way in ways:
                    run.call(side, f"{label} {way}", name, way=way, **arguments)
    for label in EPOCHS:
        measure_epochs(run, label, data)
    sums = {(what(row["measure"]), row["samples"], row["sum"]) for row in run.raw if "sum" in row}
    if len(sums) != len(WAYS) + len(EPOCHS):
        sys.exit(f"bench-peers: the sides read different data: {sums}")


def lay_again(folder):
    """Writes the shards anew, as a dataset that was just written or fetched: some kernels take the pages of files back that
    were not read for a while, and whoever reads them first would pay for all."""
    for path in folder.glob("*.mds"):
        copy = path.with_suffix(".copy")
        copy.write_bytes(path.read_bytes())
        copy.replace(path)
    os.sync()


def what(measure):
    """What was measured, without the way in which it was."""
    return max((label for label in [*EPOCHS, *WAYS] if measure.startswith(label)), key=len)


def measure_epochs(run, label, data):
    """A shuffled epoch on each side and in each way; after the first round only in the others' two fastest."""
    folder, column, others, ways = EPOCHS[label]
    for way in ways:
        for workers in WORKERS:
            arguments = {"data": data / folder, "way": way, "workers": str(workers), "batch": BATCH}
            run.call("ours", f"{label} {way} {workers}", "epoch", **arguments)
    for side in others:
        peer = run.sides[side]
        if side == "reference":
            arguments = {"data": data / folder, "column": column, "batch": BATCH}
        else:
            arguments = {"data": data / f"{folder}-litdata", "length": TOKENS, "batch": BATCH}
        tried = LOADERS
        if run.round > 0:
            first = {way: run.values(side, f"{label} {way}", "seconds")[0] for way in LOADERS}
            tried = sorted(LOADERS, key=first.get)[:2]
        for way in tried:
            if run.round == 0:  # workers start and files are opened outside of every measurement
                peer.measure("epoch", way=way, **arguments)
            run.call(side, f"{label} {way}", "epoch", way=way, **arguments)


def check_same(one, other):
    """Both sides wrote the same dataset: equal files, or equal raw data where they are compressed."""
    indexes = [json.loads((out / "index.json").read_text()) for out in (one, other)]
    raw = [[(s["samples"], s["raw_data"]) for s in index["shards"]] for index in indexes]
    if raw[0] != raw[1]:
        sys.exit(f"bench-peers: {one} and {other} hold different datasets")
    if indexes[0]["shards"][0]["compression"] is None:
        names = sorted(path.name for path in one.iterdir())
        equal, _, _ = filecmp.cmpfiles(one, other, names, shallow=False)
        if sorted(equal) != names:
            sys.exit(f"bench-peers: the files of {one} and {other} differ: {set(names) - set(equal)}")


def measure_memory(run, data):
    """The writer's peak, with as many threads as it may use cores."""
    cores = sorted(os.sched_getaffinity(0))
    for count in sorted({1, len(cores)}):
        for label, options in [("text", {}), ("zstd", {"compression": "zstd", "hashes": HASHES})]:
            use = {"cores": cores[:count], "input": data / "text.bin", "memory": True}
            run.write("ours", f"peak {label} {count}", "tmpfs", name="write", **use, **options)


def table(run, of):
    """The rows of the table: what, ours, theirs, ratio, target, the machine's limit, verdict.

    `of` picks one figure of all rounds.
    """
    size, copied = of("ours", "files tmpfs", "bytes"), of("ours", "memory", "bytes")
    memory = {w: copied / of("ours", "memory", f"{w}_seconds") / 1e9 for w in ("copy", "sum", "scattered")}
    in_order = f"memcpy {memory['copy']:.1f} GB/s, summing {memory['sum']:.1f} GB/s"
    scattered = f"summing scattered 8 KiB {memory['scattered']:.1f} GB/s"

    def rate(seconds, size=size):
        return f"{seconds:7.3f} s {size / seconds / 1e9:6.2f} GB/s"

    def row(what, ours, theirs, target, limit, size=size):
        ratio = theirs / ours
        verdict = "" if target is None else "pass" if ratio >= target else "FAIL"
        goal = "" if target is None else f">= {target}x"
        return [what, rate(ours, size), rate(theirs, size), f"{ratio:.1f}x", goal, limit, verdict]

    def share(what, ours, figure, part, whole, target, limit):
        verdict = "pass" if part / whole >= target else "FAIL"
        return [what, ours, figure, f"{part / whole:.0%}", f">= {target:.0%}", limit, verdict]

    def fastest(measure):
        return min(of("reference", f"{measure} {way}") for way in WAYS[measure])

    def fastest_epoch(side, label):
        """Samples per second and the way to them: of our ways the one named, of the others' the fastest."""
        rounds = Counter(r["measure"] for r in run.raw if r["side"] == side and r["measure"].startswith(label))
        measures = [measure for measure, count in rounds.items() if count == max(rounds.values())]
        measure = min(measures, key=lambda measure: of(side, measure))
        return of(side, measure, "samples") / of(side, measure), measure.removeprefix(label).strip()

    def epoch(name, label, way, side, target, limit):
        ours, workers = fastest_epoch("ours", f"{label} {way}")
        theirs, by = fastest_epoch(side, label)
        verdict = "pass" if ours / theirs >= target else "FAIL"
        figures = [f"{ours / 1e3:6.0f}k/s, {workers} workers", f"{theirs / 1e3:6.1f}k/s, {by}", f"{ours / theirs:.1f}x"]
        return [name, *figures, f">= {target}x", limit, verdict]

    sample = 4 * TOKENS
    epoch_limit = f"copying {memory['copy'] * 1e6 / sample:.0f}k/s, {scattered}"
    tmpfs, fsync, zstd = of("ours", "text tmpfs"), of("ours", "text disk"), of("ours", "text zstd")
    plain, quick = of("ours", "plain zstd"), of("ours", "text zstd xxh64")
    short, plain_of_short = of("ours", "short zstd"), of("ours", "plain zstd of short")
    short_size = of("ours", "plain zstd of short", "bytes")
    tmpfs_limit = f"plain write {size / of('ours', 'files tmpfs') / 1e9:.2f} GB/s"
    disk_limit = f"plain write + fsync {size / of('ours', 'files disk fsync') / 1e9:.2f} GB/s"
    zstd_limit = f"plain zstd-3, {os.cpu_count()} threads {size / plain / 1e9:.2f} GB/s"
    short_limit = f"plain zstd-3, {os.cpu_count()} threads {short_size / plain_of_short / 1e9:.2f} GB/s"
    tokens = of("ours", "iterate", "bytes")
    iterated = of("ours", "iterate")
    rows = [
        row("write text, tmpfs", tmpfs, of("reference", "text tmpfs"), 4, tmpfs_limit),
        row("write text, disk, ours with fsync", fsync, of("reference", "text disk"), None, disk_limit),
        row("write text, disk, both with fsync", fsync, of("reference", "text disk fsync"), None, disk_limit),
        row("write text, zstd, sha1, xxh64", zstd, of("reference", "text zstd"), 3, zstd_limit),
        share("  of plain zstd-3 on all cores", rate(zstd), rate(plain), plain, zstd, 0.85, zstd_limit),
        row("write text, zstd, xxh64", quick, of("reference", "text zstd xxh64"), 3, zstd_limit),
        share("  of plain zstd-3 on all cores", rate(quick), rate(plain), plain, quick, 0.85, zstd_limit),
        row("write short text, zstd, sha1, xxh64", short, of("reference", "short zstd"), 3, short_limit, short_size),
        share(
            "  of plain zstd-3 on all cores",
            rate(short, short_size), rate(plain_of_short, short_size), plain_of_short, short, 0.85, short_limit,
        ),
        row("decode every column", of("ours", "decode"), fastest("decode"), 20, in_order),
        row("random tokens, by dataset", of("ours", "random"), fastest("random"), 20, scattered, tokens),
        row(
            "random tokens, from open shards",
            of("ours", "random-in-shards"), fastest("random-in-shards"), 20, scattered, tokens,
        ),
        row("zero-copy iteration, summed", iterated, fastest("iterate"), None, in_order, tokens),
        share("  of the copy bandwidth", rate(iterated, tokens), "", tokens / iterated / 1e9, memory["copy"], 0.5, in_order),
    ]
    for name, way in [("one buffer a batch", "rows"), ("zero-copy samples", "tokens")]:
        for side, target in [("litdata", 5), ("reference", 5)]:
            other = "mosaicml-streaming" if side == "reference" else side
            rows.append(epoch(f"epoch, {name}, vs {other}", "epoch tokens", way, side, target, epoch_limit))
    rows.append(epoch("epoch of text, vs mosaicml-streaming", "epoch text", "text", "reference", 30, ""))
    for result in (r for r in run.raw if r["measure"].startswith("peak")):
        peak, threads = result["peak_bytes"], result["threads"]
        allowed = 3 * result["shard_bytes"] * threads
        name = f"peak memory, {result['measure'].split()[1]}, {threads} thread{'s'[: threads > 1]}"
        figures = [f"{peak / 2**20:.0f} MiB", "", f"{peak / result['shard_bytes'] / threads:.2f} shards/thread"]
        rows.append([name, *figures, "<= 3", f"{allowed >> 20} MiB", "pass" if peak <= allowed else "FAIL"])
    return [["what", "ours", "theirs", "ratio", "target", "limit", ""], *rows]


def aligned(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return "\n".join(lines) + "\n"


def make_data(data, size, samples, reference, litdata):
    """The texts, by themselves and as datasets, the first shard as one by itself, the tokens, also as litdata
    keeps them, and the order of random access.

    Datasets to read lie on the disk, where users have them; their pages are in memory by then.
    """
    key = data / f"made-3-{size}-{samples}-{text.SEED}"
    if key.exists():
        return
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    text.make(REPOSITORY, data / "text.bin", size)
    text.make(REPOSITORY, data / "short.bin", size // SHORT, text.SHORT_MEDIAN)
    for name in ("text", "short"):
        reference.measure("write", input=data / f"{name}.bin", out=data / name, times=1)
    reference.measure("write_tokens", out=data / "tokens", samples=samples, length=TOKENS, seed=text.SEED)
    first_shard(data / "text", data / "text-part")
    litdata.measure("convert", data=data / "tokens", out=data / "tokens-litdata", length=TOKENS)
    order = array("I", range(samples))
    random.Random(text.SEED).shuffle(order)
    (data / "order").write_bytes(order.tobytes())
    key.touch()


def first_shard(whole, part):
    """A dataset of the first shard of another: the reference takes its time."""
    index = json.loads((whole / "index.json").read_text())
    index["shards"] = index["shards"][:1]
    part.mkdir()
    (part / "index.json").write_text(json.dumps(index))
    name = index["shards"][0]["raw_data"]["basename"]
    os.link(whole / name, part / name)


def warm(folder):
    """Has every file of the datasets in the page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.read_bytes()


def versions(litdata):
    cpu = [line.partition(":")[2].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    packages = ["mosaicml-streaming", "numpy", "torch", "zstd", "xxhash"]
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True)
    rustc = subprocess.run(["rustc", "--version"], cwd=REPOSITORY, capture_output=True, text=True)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 30
    return {
        "commit": git.stdout.strip(),
        "cpu": f"{cpu[0] if cpu else platform.processor()}, {os.cpu_count()} cores, {memory} GiB",
        "kernel": platform.release(),
        "rustc": rustc.stdout.strip(),
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in packages},
        "litdata": next(d.version for d in metadata.distributions(name="litdata", path=[litdata])),
    }


def report(run, folder, arguments, made_of):
    # On a busy machine the best of each side says more than the median, so both are shown.
    summary = f"Medians of {arguments.rounds} rounds:\n\n{aligned(table(run, run.median))}\n"
    summary += f"The best of {arguments.rounds} rounds, of each side by itself:\n\n{aligned(table(run, run.best))}"
    others = statistics.mean(row["cores_of_others"] for row in run.raw)
    notes = f"Other processes took {others:.2f} of {os.cpu_count()} cores on average.\n"
    if others > 0.15:
        notes += (
            "The machine was busy: no verdict counts. Least of all that on plain zstd, whose threads did not\n"
            "have a core each, so that a writer with one thread seems to reach what it cannot.\n"
        )
    folder.mkdir(parents=True)
    (folder / "raw.jsonl").write_text("".join(json.dumps(row) + "\n" for row in run.raw))
    (folder / "summary.txt").write_text(summary + "\n" + notes)
    lines = [f"| {key} | {value} |" for key, value in made_of.items()]
    (folder / "README.md").write_text(
        "# This library, mosaicml-streaming and litdata side by side\n\n"
        f"Made by `make bench-peers`. {notes}\n"
        "| | |\n|---|---|\n" + "\n".join(lines) + "\n\n"
        "`summary.txt` is the table, `raw.jsonl` every result of every round. What is measured, and how, is in\n"
        "`benches/peers/README.md`.\n"
    )
    print(summary)
    print(notes + f"Written to {folder.relative_to(REPOSITORY)}")


def new_folder(what=""):
    today = REPOSITORY / "benches/runs" / f"{datetime.date.today().isoformat()}{what}"
    names = [today, *(today.with_name(f"{today.name}-{n}") for n in range(2, 1000))]
    return next(folder for folder in names if not folder.exists())


def main():
    parser = argparse.ArgumentParser(description="Compares this library with mosaicml-streaming and litdata.")
    parser.add_argument("program", help="the example `peers`")
    parser.add_argument("--litdata", required=True, help="the folder of Python packages that has litdata")
    parser.add_argument("--work", type=Path, required=True, help="a folder on the disk, for data and writes")
    parser.add_argument("--tmpfs", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--text-bytes", type=int, default=256 << 20)
    parser.add_argument("--token-samples", type=int, default=32768)
    arguments = parser.parse_args()

    # Up to two uncompressed datasets lie there at a time.
    needed = 3 * arguments.text_bytes
    if shutil.disk_usage(arguments.tmpfs).free < needed:
        sys.exit(f"bench-peers: {arguments.tmpfs} has less than {needed >> 20} MiB left")
    data = arguments.work / "data"
    scratch = {"tmpfs": arguments.tmpfs / f"bench-peers-{os.getpid()}", "disk": arguments.work / "written"}
    reference = Peer("reference.py")
    cache = str((arguments.work / "litdata-cache").resolve())  # else it leaves folders in /tmp
    folders = {"DATA_OPTIMIZER_CACHE_FOLDER": cache, "DATA_OPTIMIZER_DATA_CACHE_FOLDER": cache}
    litdata = Peer("peer_litdata.py", PYTHONPATH=arguments.litdata, **folders)
    try:
        for folder in scratch.values():
            folder.mkdir(parents=True, exist_ok=True)
        make_data(data, arguments.text_bytes, arguments.token_samples, reference, litdata)
        warm(data)
        run = Run(Ours(arguments.program), reference, litdata, scratch)
        for run.round in range(arguments.rounds):
            print(f"round {run.round + 1} of {arguments.rounds}", flush=True)
            measure_round(run, data)
        measure_memory(run, data)
    finally:
        reference.close()
        litdata.close()
        for folder in scratch.values():
            shutil.rmtree(folder, ignore_errors=True)
    report(run, new_folder(), arguments, versions(arguments.litdata))


if __name__ == "__main__":
    main()
