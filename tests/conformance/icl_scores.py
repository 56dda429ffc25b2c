"""Computes in-context tasks with transformers, one sequence at a time, and compares with what evaluate found.

    icl_scores.py greedy MODEL TASKS                    adds a task of which the model knows every second answer
    icl_scores.py compare MODEL TASKS ANSWERS METRICS

MODEL is a folder of transformers, TASKS the file of tasks, ANSWERS what --icl_answers wrote, METRICS what evaluate
printed. Which solved examples a question has is taken from ANSWERS; prompts, tokens, probabilities and accuracies are
computed here anew.
"""

import collections
import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

# Scores nearer than that may be in either order.
TIE = 1e-4


def rows(path):
    # Not splitlines, which knows more ends of lines than JSON lines have.
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").split("\n") if line]


def load(folder):
    # The sequences are too short for several threads, which would wait for each other.
    torch.set_num_threads(1)
    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


@torch.no_grad()
def greedy(folder, tasks):
    """Beginnings of questions with the word that the model finds likeliest, and with one that comes later."""
    model, tokenizer = load(folder)
    listed = json.loads(Path(tasks).read_text())
    questions = [task for task in listed["icl_tasks"] if task["icl_task_type"] == "multiple_choice"]
    found = []

    def same(text, ids):
        return text.strip() == text and tokenizer(text)["input_ids"] == ids

    for row in (row for task in questions for row in rows(task["dataset_uri"])):
        ids = tokenizer(row["query"], verbose=False)["input_ids"][:100]
        best = model(torch.tensor([ids])).logits[0].topk(50).indices.tolist()
        # The end of the first words that are read again as the same tokens, and after which the likeliest is a word.
        for end in range(4, len(ids)):
            text, words = tokenizer.decode(ids[:end]), list(map(tokenizer.decode, best[end - 1]))
            words = [word for word in words if word[:1] == " " and word[1:].isalpha()]
            if len(words) > 1 and words[0] == tokenizer.decode(best[end - 1][0]) and same(text, ids[:end]):
                found += [{"context": text, "continuation": word} for word in words[:2]]
                break
        if len(found) == 100:
            break
    assert len(found) == 100, f"only {len(found)} texts"
    path = Path(tasks).with_name("greedy.jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    task = {"label": "greedy", "dataset_uri": str(path), "num_fewshot": [0], "icl_task_type": "language_modeling"}
    listed["icl_tasks"].append(task)
    Path(tasks).write_text(json.dumps(listed, indent=1))


def candidates(kind, row):
    """Pairs of context and continuation, and which is right."""
    if kind == "multiple_choice":
        return [(row["query"].strip(), choice) for choice in row["choices"]], row["gold"]
    if kind == "schema":
        return [(context, row["continuation"].strip()) for context in row["context_options"]], row["gold"]
    return [(row["context"].strip(), row["continuation"].strip())], 0


class Task:
    def __init__(self, task, tokenizer, max_seq_len):
        self.kind = task["icl_task_type"]
        self.delimiter = task.get("example_delimiter", "\n")
        self.end = task.get("continuation_delimiter", " ")
        self.rows = rows(task["dataset_uri"])
        self.tokenizer = tokenizer
        self.max_seq_len = max_seq_len

    def ids(self, text):
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    def sequences(self, line, examples):
        """Tokens of context and continuation of each candidate of a line, after the solved lines."""
        solved = []
        for example in examples:
            pairs, gold = candidates(self.kind, self.rows[example - 1])
            solved.append(self.end.join(pairs[gold]))
        preamble = self.delimiter.join(solved)
        preamble_ids = self.ids(preamble)
        pairs, _ = candidates(self.kind, self.rows[line - 1])
        for context, continuation in pairs:
            if self.kind != "schema":
                context = (context + self.end).rstrip()
            elif preamble:
                context += self.end.rstrip()
            if preamble:
                context = self.delimiter + context
            continuation = self.ids(continuation if continuation.startswith(" ") else " " + continuation)
            context = preamble_ids + self.ids(context)
            yield context[max(0, len(context) + len(continuation) - self.max_seq_len) :], continuation

    def metric(self):
        name = "LM" if self.kind == "language_modeling" else "MultipleChoice"
        return f"InContextLearning{name}Accuracy"


@torch.no_grad()
def score(model, context, continuation):
    """The mean log-probability of the continuation, whether it is the greedy one, and whether that is certain."""
    logits = model(torch.tensor([context + continuation])).logits[0, len(context) - 1 : -1].double()
    wanted = torch.tensor(continuation)
    log_probs = torch.log_softmax(logits, -1).gather(1, wanted[:, None])
    # Where two tokens are nearly equal, rounding decides which is the likeliest.
    certain = (logits.topk(2).values.diff().abs() > TIE).all()
    return log_probs.mean().item(), (logits.argmax(-1) == wanted).all().item(), certain.item()


def compare(folder, tasks, answers, metrics):
    model, tokenizer = load(folder)
    max_seq_len = model.config.max_position_embeddings
    tasks = {task["label"]: Task(task, tokenizer, max_seq_len) for task in json.loads(Path(tasks).read_text())["icl_tasks"]}
    printed = dict(line.rsplit(": ", 1) for line in Path(metrics).read_text().splitlines())
    correct = collections.defaultdict(list)
    largest, ties, cut = 0.0, 0, 0
    for ours in rows(answers):
        label, shots = ours["task"].rsplit("/", 1)
        task = tasks[label]
        assert len(ours["examples"]) == int(shots.removesuffix("-shot")) and ours["line"] not in ours["examples"]
        _, gold = candidates(task.kind, task.rows[ours["line"] - 1])
        sequences = list(task.sequences(ours["line"], ours["examples"]))
        theirs = [score(model, *sequence) for sequence in sequences]
        cut += sum(len(context) + len(continuation) == max_seq_len for context, continuation in sequences)
        scores = [mean for mean, _, _ in theirs]
        difference = max(abs(a - b) for a, b in zip(scores, ours["scores"], strict=True))
        largest = max(largest, difference)
        assert difference <= 1e-4, f"scores differ by {difference}: {scores} {ours}"
        if task.kind == "language_modeling":
            _, right, certain = theirs[0]
        else:
            right = scores.index(max(scores)) == gold
            certain = all(abs(scores[gold] - other) > TIE for i, other in enumerate(scores) if i != gold)
        ties += not certain
        assert right == ours["correct"] or not certain, (right, ours)
        correct[ours["task"], task.metric()].append(ours["correct"])
    assert correct, "evaluate answered nothing"
    for (label, metric), of_task in correct.items():
        name, accuracy = f"metrics/{label}/{metric}", sum(of_task) / len(of_task)
        assert abs(float(printed.pop(name)) - accuracy) <= 5.1e-5, f"{name} is {accuracy}"
    assert not printed, f"evaluate printed more: {printed}"
    count, right = sum(map(len, correct.values())), sum(map(sum, correct.values()))
    print(f"{len(correct)} tasks, {count} questions, {right} right: scores differ by {largest:.1e} at most")
    print(f"  {cut} sequences are of full length, {ties} answers were too near to tell")
    assert cut and ties <= count / 20
    known = correct["greedy/0-shot", "InContextLearningLMAccuracy"]
    assert known == [True, False] * (len(known) // 2), f"of its own words the model knows {known}"


if __name__ == "__main__":
    {"greedy": greedy, "compare": compare}[sys.argv[1]](*sys.argv[2:])
