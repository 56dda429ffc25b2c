"""Files of C4's shape to token samples, end to end: `convert` and what llm-foundry does, in turns.

Called by `BENCH=convert scripts/bench-peers` with the built programs; prints the table and writes it with every result to
`benches/runs/<date>-convert/`.
"""

import argparse
import gzip
import json
import os
import shutil
import statistics
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from run import REPOSITORY, aligned, new_folder

COPIES = 4
LENGTH = "2048"
WORKERS = 2
TOKENIZER = REPOSITORY / "data/tokenizers/gpt2/tokenizer.json"


def source(documentation, work):
    """The kernel's documentation several times, a quarter of a second being too short to measure; and its bytes of text."""
    folder = work / "convert-source"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    text = 0
    for path in sorted(documentation.glob("*.json.gz")):
        for copy in range(COPIES):
            shutil.copy(path, folder / f"{copy}-{path.name}")
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            text += COPIES * sum(len(json.loads(line)["text"].encode()) for line in lines)
    return folder, text


def ours(program, folder, out):
    command = [
        program, "json", "--path", folder, "--out_root", out.parent, "--split", out.name, "--compression", "none",
        "--concat_tokens", LENGTH, "--tokenizer", "gpt2", "--eos_text", "<|endoftext|>",
        "--num_workers", str(WORKERS), "--profile",
    ]
    done = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
    stages = {}
    for line in done.stdout.splitlines():
        words = line.removeprefix("train: ").split()
        if line.endswith(" %"):
            stages[" ".join(words[:-4])] = float(words[-4])
        if line.startswith("peak memory"):
            peak = " ".join(words[2:])
    seconds = float(done.stdout.splitlines()[-2].split()[-2])
    samples = int(done.stdout.split()[1].replace(",", ""))
    return {"side": "ours", "seconds": seconds, "samples": samples, "stages": stages, "peak": peak}


def theirs(folder, out):
    peer = Path(__file__).with_name("peer_convert.py")
    command = [sys.executable, peer, folder, out, TOKENIZER, LENGTH, str(WORKERS)]
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True, env=environment)
    return {"side": "llm-foundry's path", **json.loads(done.stdout.splitlines()[-1])}


def measure(arguments, folder):
    out = Path("/dev/shm/mds-bench-convert/train")
    raw = []
    for number in range(arguments.rounds):
        for side in [lambda: ours(arguments.program, folder, out), lambda: theirs(folder, out)]:
            shutil.rmtree(out.parent, ignore_errors=True)
            out.parent.mkdir()
            result = side()
            raw.append({"round": number, **result})
            print(f"round {number + 1}, {result['side']}: {result['seconds']:.2f} s", flush=True)
    shutil.rmtree(out.parent)
    return raw


def verdict(met):
    return "pass" if met else "FAIL"


def table(raw, text, reading):
    seconds = lambda side: statistics.median(row["seconds"] for row in raw if row["side"] == side)
    mine, peer = seconds("ours"), seconds("llm-foundry's path")
    rate = text / mine / 1e6
    rows = [["what", "ours", "beside", "ratio", "target", ""]]
    rows.append([
        "text to token samples, end to end", f"{rate:.0f} MB/s", f"{text / peer / 1e6:.1f} MB/s", f"{peer / mine:.1f}x",
        ">= 20x", verdict(peer >= 20 * mine),
    ])
    rows.append(["the same, alone", f"{rate:.0f} MB/s", "", "", ">= 100 MB/s", verdict(rate >= 100)])
    for kind, times in reading.items():
        share = times["alone"] / times["ours"]
        rows.append([
            f"reading {kind}, one thread", f"{times['ours'] * 1e3:.0f} ms", f"decompressor {times['alone'] * 1e3:.0f} ms",
            f"{100 * share:.0f} %", ">= 70 %", verdict(share >= 0.7),
        ])
    return rows


def profile(raw):
    """The shares of the stages in the median of our runs."""
    runs = sorted((row for row in raw if row["side"] == "ours"), key=lambda row: row["seconds"])
    run = runs[len(runs) // 2]
    total = sum(run["stages"].values())
    shares = [f"{stage} {100 * took / total:.0f} %" for stage, took in run["stages"].items()]
    return f"Of the work of all threads: {', '.join(shares)}. Peak memory {run['peak']}."


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program", help="the program `convert`")
    parser.add_argument("reading", help="the example `reading`")
    parser.add_argument("--documentation", type=Path, required=True, help="the folder that scripts/fetch-kernel-docs made")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    folder, text = source(arguments.documentation, arguments.work)
    files = arguments.work / "convert-reading"
    shutil.rmtree(files, ignore_errors=True)
    files.mkdir()
    reading = [arguments.reading, files, *sorted(arguments.documentation.glob("*.json.gz"))]
    done = subprocess.run([str(part) for part in reading], check=True, capture_output=True, text=True)
    reading = json.loads(done.stdout)
    raw = measure(arguments, folder)
    summary = (
        f"Medians of {arguments.rounds} rounds, {text / 1e6:.0f} MB of text, {WORKERS} threads or worker processes:\n\n"
        f"{aligned(table(raw, text, reading))}\n{profile(raw)}\n"
    )
    out = new_folder("-convert")
    out.mkdir(parents=True)
    (out / "raw.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*raw, {"reading": reading}]))
    (out / "summary.txt").write_text(summary)
    processor = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "?"
    )
    versions = "".join(f"| {name} | {metadata.version(name)} |\n" for name in ["mosaicml-streaming", "tokenizers", "transformers", "torch"])
    (out / "README.md").write_text(
        "# Text to token samples, beside llm-foundry's way\n\nMade by `BENCH=convert scripts/bench-peers`; "
        "`benches/peers/README.md` says what is measured. `summary.txt` is the table,\n`raw.jsonl` every result.\n\n"
        f"| | |\n|---|---|\n| processor | {os.cpu_count()} cores, {processor} |\n{versions}"
    )
    print(summary)
    print(f"Written to {out.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
