"""Epochs from a bucket: this library, mosaicml-streaming and litdata from the same SeaweedFS, in one run.

Called by `BENCH=remote scripts/bench-peers`, inside of tests/servers/run. Every measurement is a process of its own with an empty
cache: a cold epoch, from making the dataset on, and a warm one after it. Imports are outside of the clock. Writes
`benches/runs/<date>-remote/`: every raw result, the table of medians, and what it ran on.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import boto3
from run import BATCH, HASHES, REPOSITORY, TOKENS, aligned, busy_seconds, descendants, new_folder, versions

HERE = Path(__file__).resolve().parent
BUCKET = "bucket"
KEYS = {"aws_access_key_id": "AKTEST", "aws_secret_access_key": "SKTEST123456", "region_name": "us-east-1"}
WORKERS = [0, 1, 2]
SHARDS = 4
LIMIT = 300  # seconds for one measurement
# data: (column, our ways, other sides)
DATASETS = {
    "text": ("text", ["text"], ["mosaicml"]),
    "tokens": ("tokens", ["rows", "tokens"], ["mosaicml", "litdata"]),
}
TARGETS = {
    # (data, figure): at least so many times as fast, or at most such a part
    ("text", "cold_seconds"): 4,
    ("tokens", "cold_seconds"): 5,
    ("text", "warm_seconds"): 30,
    ("tokens", "warm_seconds"): 100,
    ("text", "first_batch_seconds"): 4,
    ("tokens", "first_batch_seconds"): 4,
    ("text", "anonymous_bytes"): 4,
    ("tokens", "anonymous_bytes"): 4,
}
NAMES = {
    "cold_seconds": "cold epoch",
    "warm_seconds": "warm epoch",
    "first_batch_seconds": "time to first batch",
    "anonymous_bytes": "peak anonymous memory",
    "mapped_bytes": "  peak of mapped pages",
}


class Watch(threading.Thread):
    """The peak memory of a process and all that it starts: anonymous pages, and pages of mapped files."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.anonymous, self.mapped, self.over = pid, 0, 0, threading.Event()
        self.start()

    def run(self):
        while not self.over.wait(0.02):
            anonymous = mapped = 0
            for pid in descendants(self.pid):
                try:
                    status = Path(f"/proc/{pid}/status").read_text()
                except OSError:  # it has ended meanwhile
                    continue
                fields = dict(line.split(":", 1) for line in status.splitlines())
                anonymous += int(fields.get("RssAnon", "0").split()[0])
                mapped += sum(int(fields.get(name, "0").split()[0]) for name in ("RssFile", "RssShmem"))
            self.anonymous, self.mapped = max(self.anonymous, anonymous), max(self.mapped, mapped)


def measured(command, environment):
    """The result of a process, which prints one line of JSON, and its peak memory."""
    start, busy = time.perf_counter(), busy_seconds()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    watch = Watch(process.pid)
    # A peer whose thread has failed waits for ever.
    late = threading.Timer(LIMIT, lambda: [os.kill(pid, signal.SIGKILL) for pid in descendants(process.pid)])
    late.start()
    out = process.stdout.read()
    late.cancel()
    watch.over.set()
    if process.wait() != 0:
        sys.exit(f"bench-peers: {command} has failed")
    wall = time.perf_counter() - start
    return json.loads(out) | {
        "anonymous_bytes": watch.anonymous * 1024,
        "mapped_bytes": watch.mapped * 1024,
        "cores_busy": round((busy_seconds() - busy) / wall, 2),
    }


class Bench:
    def __init__(self, arguments):
        self.arguments = arguments
        self.raw = []
        self.endpoint = json.loads(os.environ["MDS_TEST_SERVERS"])["s3"]
        names = {"AWS_ACCESS_KEY_ID": "aws_access_key_id", "AWS_SECRET_ACCESS_KEY": "aws_secret_access_key"}
        self.environment = os.environ | {name: KEYS[key] for name, key in names.items()} | {
            "AWS_DEFAULT_REGION": KEYS["region_name"],
            "AWS_REGION": KEYS["region_name"],
            "S3_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
        }
        self.s3 = boto3.client("s3", endpoint_url=self.endpoint, **KEYS)
        self.scratch = arguments.work / "remote-cache"

    def ours(self, name, **options):
        command = [self.arguments.program, name]
        for key, value in options.items():
            command += [f"--{key}", str(value)]
        return measured(command, self.environment)

    def peer(self, **options):
        environment = self.environment
        if options["peer"] == "litdata":
            cache = str((self.arguments.work / "litdata-cache").resolve())
            environment = environment | {
                "PYTHONPATH": self.arguments.litdata,
                "DATA_OPTIMIZER_CACHE_FOLDER": cache,
                "DATA_OPTIMIZER_DATA_CACHE_FOLDER": cache,
            }
        return measured([sys.executable, str(HERE / "peer_remote.py"), json.dumps(options)], environment)

    def upload(self, folder, prefix):
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.s3.upload_file(str(path), BUCKET, f"{prefix}/{path.relative_to(folder)}")

    def keep(self, side, data, way, workers, result):
        self.raw.append({"round": self.number, "side": side, "data": data, "way": way, "workers": workers, **result})

    def round(self, number):
        self.number = number
        for data in self.arguments.data:
            column, ways, others = DATASETS[data]
            for way in ways:
                for workers in self.chosen("ours", data, number):
                    local = self.empty()
                    address = f"s3://{BUCKET}/{data}"
                    options = {"remote": address, "local": local, "way": way, "batch": BATCH}
                    self.keep("ours", data, way, workers, self.ours("remote", workers=workers, **options))
            for side in others:
                for workers in self.chosen(side, data, number):
                    local = self.empty()
                    options = {"peer": side, "local": str(local), "column": column, "batch": BATCH}
                    if side == "litdata":
                        local.mkdir()
                        storage = {"endpoint_url": self.endpoint, **KEYS}
                        options |= {"remote": f"s3://{BUCKET}/tokens-litdata/", "length": TOKENS, "options": storage}
                    else:
                        options |= {"remote": f"s3://{BUCKET}/{data}"}
                    self.keep(side, data, "loader", workers, self.peer(workers=workers, **options))
            of_data = {(row["samples"], row["sum"]) for row in self.raw if row["data"] == data and row["side"] != "limit"}
            if len(of_data) != 1:
                sys.exit(f"bench-peers: the sides read different {data}: {of_data}")
            threads = os.cpu_count()
            self.raw.append({"side": "limit", "data": data, **self.ours("download", remote=f"s3://{BUCKET}/{data}", threads=threads)})
        unzipped = self.ours("unzip", data=self.arguments.work / "data/text-zstd-remote", threads=os.cpu_count())
        self.raw.append({"side": "limit", "data": "unzip", **unzipped})

    def chosen(self, side, data, number):
        """After the first round only the numbers of workers that were best at something."""
        rows = [row for row in self.raw if (row["side"], row["data"]) == (side, data)]
        if number == 0 or not rows:
            return WORKERS
        first = [row for row in rows if row["round"] == 0]
        figures = ["cold_seconds", "warm_seconds", "first_batch_seconds"]
        return sorted({min(first, key=lambda row: row[figure])["workers"] for figure in figures})

    def empty(self):
        shutil.rmtree(self.scratch, ignore_errors=True)
        return self.scratch

    def best(self, side, data, figure):
        """The median of the way, and the number of workers, that is best at this."""
        medians = {}
        for row in self.raw:
            if (row["side"], row["data"]) == (side, data):
                medians.setdefault((row["way"], row["workers"]), []).append(row[figure])
        return min((statistics.median(values), way) for way, values in medians.items())

    def limit(self, data):
        rows = [row for row in self.raw if (row["side"], row["data"]) == ("limit", data)]
        return statistics.median(row["bytes"] / row["seconds"] for row in rows) / 1e9

    def table(self):
        rows = []
        for data in self.arguments.data:
            others = DATASETS[data][2]
            for figure, name in NAMES.items():
                for side in others:
                    mine, my_way = self.best("ours", data, figure)
                    theirs, their_way = self.best(side, data, figure)
                    ratio = theirs / mine
                    target = TARGETS.get((data, figure)) if side == "mosaicml" else None
                    verdict = "" if target is None else "pass" if ratio >= target else "FAIL"
                    show = (lambda v: f"{v / 2**20:.0f} MiB") if figure.endswith("bytes") else (lambda v: f"{v:.2f} s")
                    limit = ""
                    if figure == "cold_seconds":
                        limit = f"download {self.limit(data):.2f} GB/s"
                        if data == "text":
                            limit += f", zstd {self.limit('unzip'):.2f} GB/s raw"
                    rows.append([
                        f"{data}: {name} vs {side}", f"{show(mine)} ({my_way[0]} {my_way[1]})",
                        f"{show(theirs)} ({their_way[0]} {their_way[1]})", f"{ratio:.1f}x",
                        "" if target is None else f">= {target}x", limit, verdict,
                    ])
        return [["what", "ours (way, workers)", "theirs", "ratio", "target", "limit", ""], *rows]


def first_shards(whole, part):
    """A dataset of the first shards of another, about as long as that of tokens: the peers take their time."""
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    index = json.loads((whole / "index.json").read_text())
    index["shards"] = index["shards"][:SHARDS]
    (part / "index.json").write_text(json.dumps(index))
    for shard in index["shards"]:
        name = shard["zip_data"]["basename"]
        os.link(whole / name, part / name)
    return part


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program", help="the example `peers`")
    parser.add_argument("--litdata", required=True, help="the folder of Python packages that has litdata")
    parser.add_argument("--work", type=Path, required=True, help="the folder that has the data of run.py")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", nargs="+", choices=DATASETS, default=list(DATASETS))
    arguments = parser.parse_args()
    data = arguments.work / "data"
    zipped = data / "text-zstd"
    if not zipped.exists():
        command = [arguments.program, "write", "--input", data / "text.bin", "--out", zipped]
        subprocess.run([*command, "--compression", "zstd", "--hashes", *HASHES], check=True, stdout=subprocess.DEVNULL)
    few = first_shards(zipped, data / "text-zstd-remote")
    bench = Bench(arguments)
    bench.upload(few, "text")
    bench.upload(data / "tokens", "tokens")
    bench.upload(data / "tokens-litdata", "tokens-litdata")
    try:
        for number in range(arguments.rounds):
            print(f"round {number + 1} of {arguments.rounds}", flush=True)
            bench.round(number)
    finally:
        bench.empty()
    summary = f"Medians of {arguments.rounds} rounds, each side in its best way:\n\n{aligned(bench.table())}"
    folder = new_folder("-remote")
    folder.mkdir(parents=True)
    (folder / "raw.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bench.raw))
    (folder / "summary.txt").write_text(summary)
    lines = [f"| {key} | {value} |" for key, value in versions(arguments.litdata).items()]
    (folder / "README.md").write_text(
        "# Epochs from a bucket, side by side\n\nMade by `BENCH=remote scripts/bench-peers`; `benches/peers/README.md` says what is measured. SeaweedFS 4.48 on\n"
        "the same two cores. `summary.txt` is the table, `raw.jsonl` every result.\n\n| | |\n|---|---|\n" + "\n".join(lines) + "\n"
    )
    print(summary)
    print(f"Written to {folder.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
