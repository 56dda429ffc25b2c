"""An optimizer step on the CPU, ours and PyTorch's, in turns.

Called by `BENCH=train scripts/bench-peers` with the built bench `train_step`; prints the table and writes it with every
result to `benches/runs/<date>-train/`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from run import REPOSITORY, aligned, new_folder

# Name, rows, tokens of a row, steps.
SHAPES = [("125m", 1, 512, 5), ("125m", 4, 512, 2), ("125m", 1, 2048, 2), ("small", 8, 128, 30)]
# What glibc is told, so that it keeps freed blocks; our program says so itself.
KEEP = {"MALLOC_MMAP_THRESHOLD_": str(8 << 30), "MALLOC_TRIM_THRESHOLD_": str(8 << 30)}
PEERS = {
    "eager": ("eager", {}),
    "eager, blocks kept": ("eager", KEEP),
    "compiled": ("compile", {}),
    "compiled, blocks kept": ("compile", KEEP),
}
TARGETS = {"tokens/s": 1.0, "memory": 0.7}


def measure(command, environment):
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
    return json.loads(done.stdout.splitlines()[-1])


def measure_all(program, rounds, shapes):
    peer = Path(__file__).with_name("peer_torch.py")
    raw = []
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", flush=True)
        for name, *sizes in shapes:
            arguments = [name, *map(str, sizes)]
            sides = {"ours": ([program, "--bench", *arguments], {})}
            for side, (mode, environment) in PEERS.items():
                sides[side] = ([sys.executable, str(peer), *arguments, mode], environment)
            for side, (command, environment) in sides.items():
                result = measure(command, environment)
                raw.append({"round": number, "shape": arguments[:3], "side": side, **result})
                print(f"  {' '.join(arguments[:3])} {side}: {result['seconds']:.3f} s", flush=True)
    return raw


def table(raw, shapes):
    """The peer is the quickest of its ways; its memory is that of the way that takes least."""
    rows = [["what", "ours", "PyTorch", "ratio", "target", ""]]
    for name, batch, seq, _ in shapes:
        of = lambda side, key: statistics.median(
            row[key] for row in raw if row["side"] == side and row["shape"] == [name, str(batch), str(seq)]
        )
        parameters = {of(side, "parameters") for side in ["ours", *PEERS]}
        assert len(parameters) == 1, f"not the same model: {parameters}"
        tokens = batch * seq
        seconds, way = min((of(side, "seconds"), side) for side in PEERS)
        speed = seconds / of("ours", "seconds")
        least, thrifty = min((of(side, "peak_bytes"), side) for side in PEERS)
        mine = of("ours", "peak_bytes")
        what = f"{name} {batch}x{seq}"
        verdict = lambda ok: "pass" if ok else "FAIL"
        rows.append([
            f"{what}: tokens/s", f"{tokens / of('ours', 'seconds'):.0f}", f"{tokens / seconds:.0f} ({way})",
            f"{speed:.2f}x", f">= {TARGETS['tokens/s']}x", verdict(speed >= TARGETS["tokens/s"]),
        ])
        rows.append([
            f"{what}: peak memory", f"{mine / 2**30:.2f} GiB", f"{least / 2**30:.2f} GiB ({thrifty})",
            f"{mine / least:.2f}x", f"<= {TARGETS['memory']}x", verdict(mine <= TARGETS["memory"] * least),
        ])
    return rows


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program", help="the bench `train_step`")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shapes", nargs="+", type=int, default=range(len(SHAPES)), help="which of them, from 0")
    arguments = parser.parse_args()
    shapes = [SHAPES[index] for index in arguments.shapes]
    raw = measure_all(arguments.program, arguments.rounds, shapes)
    summary = f"Medians of {arguments.rounds} rounds:\n\n{aligned(table(raw, shapes))}"
    folder = new_folder("-train")
    folder.mkdir(parents=True)
    (folder / "raw.jsonl").write_text("".join(json.dumps(row) + "\n" for row in raw))
    (folder / "summary.txt").write_text(summary)
    processor = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "?"
    )
    (folder / "README.md").write_text(
        "# An optimizer step on the CPU, beside PyTorch\n\nMade by `BENCH=train scripts/bench-peers`; "
        "`benches/peers/README.md` says what is measured. `summary.txt` is the table,\n`raw.jsonl` every result.\n\n"
        f"| | |\n|---|---|\n| processor | {os.cpu_count()} cores, {processor} |\n| PyTorch | {metadata.version('torch')} |\n"
    )
    print(summary)
    print(f"Written to {folder.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
