"""Makes the text of `make bench-peers` from the repository's sample.

Every copy of the sample gets its sentences in a new order and its documents names of their own, so that
the compressor sees no repeats but those of the language. The sentences stay in their third of the
sample: the same one comes again after two thirds of it (2.8 MB) or more, which is beyond the 2 MiB that
zstd looks back at level 3.
"""

import gzip
import json
import random
import re
from pathlib import Path

SEED = 20260101
THIRDS = 3


def sample(repository):
    """Texts and urls of the sample, in the order of its files."""
    documents = []
    for path in sorted(Path(repository, "data/c4-sample/en").glob("*.json.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            documents += [(row["text"], row["url"]) for row in map(json.loads, lines)]
    return documents


def copies(documents, size):
    """Documents of shuffled sentences, as long as the originals, until they are `size` bytes."""
    rng = random.Random(SEED)
    step = -(-len(documents) // THIRDS)
    parts = [documents[at : at + step] for at in range(0, len(documents), step)]
    sentences = [[s for text, _ in part for s in re.split(r"(?<=[.!?;:]\s)", text + "\n")] for part in parts]
    made = copy = 0
    while True:
        for part, pool in zip(parts, sentences):
            rng.shuffle(pool)
            rest = iter(pool)
            for text, url in part:
                chosen, length = [], 0
                while length < len(text):
                    sentence = next(rest, None)
                    if sentence is None:
                        break
                    chosen.append(sentence)
                    length += len(sentence)
                if not chosen:
                    continue
                document = "".join(chosen)
                made += len(document.encode())
                yield document, f"{url}-{copy:03}"
                if made >= size:
                    return
        copy += 1


def make(repository, path, size):
    """Writes the records that the two sides read: each text after its length as uint32."""
    with open(path, "wb") as file:
        for texts in copies(sample(repository), size):
            for text in texts:
                data = text.encode()
                file.write(len(data).to_bytes(4, "little"))
                file.write(data)
