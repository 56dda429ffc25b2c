"""Makes the text of `make bench-peers` from the repository's sample.

Every copy of the sample gets its sentences in a new order, cut into documents as long as those of C4, with
names of their own, so that the compressor sees no repeats but those of the language. The sentences stay in their third of the
sample: the same one comes again after two thirds of it (2.8 MB) or more, which is beyond the 2 MiB that
zstd looks back at level 3.
"""

import gzip
import json
import math
import random
import re
from pathlib import Path

SEED = 20260103
THIRDS = 3
# Documents of C4's English part have 2.2 kB of text on average (807 GiB in 365 million rows, which also hold
# an address and a time: the TensorFlow Datasets catalogue). Most are shorter: a log-normal with half below 1.2 kB.
MEDIAN, SIGMA = 1200, 1.1
# Paragraphs: 0.55 kB on average. Python spends its time on each of them, whatever its length.
SHORT_MEDIAN = 300


def sample(repository):
    """Texts and urls of the sample, in the order of its files."""
    documents = []
    for path in sorted(Path(repository, "data/c4-sample/en").glob("*.json.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            documents += [(row["text"], row["url"]) for row in map(json.loads, lines)]
    return documents


def copies(documents, size, median=MEDIAN):
    """Documents of shuffled sentences, as long as C4's, until they are `size` bytes."""
    rng = random.Random(SEED)
    step = -(-len(documents) // THIRDS)
    parts = [documents[at : at + step] for at in range(0, len(documents), step)]
    sentences = [[s for text, _ in part for s in re.split(r"(?<=[.!?;:]\s)", text + "\n")] for part in parts]
    made = number = 0
    while True:
        for part, pool in zip(parts, sentences):
            rng.shuffle(pool)
            rest = iter(pool)
            while chosen := first(rest, rng.lognormvariate(math.log(median), SIGMA)):
                document = "".join(chosen)
                made += len(document.encode())
                yield document, f"{part[number % len(part)][1]}-{number:06}"
                number += 1
                if made >= size:
                    return


def first(sentences, length):
    """The next sentences, until they have `length` characters."""
    chosen = []
    for sentence in sentences:
        chosen.append(sentence)
        length -= len(sentence)
        if length <= 0:
            break
    return chosen


def make(repository, path, size, median=MEDIAN):
    """Writes the records that the two sides read: each text after its length as uint32."""
    with open(path, "wb") as file:
        for texts in copies(sample(repository), size, median):
            for text in texts:
                data = text.encode()
                file.write(len(data).to_bytes(4, "little"))
                file.write(data)
