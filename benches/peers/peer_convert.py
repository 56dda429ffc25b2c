"""Files of C4's shape to token samples, as llm-foundry's convert_dataset_hf does it: worker processes of a DataLoader read,
tokenise and concatenate, and the main process writes.

    peer_convert.py SOURCE OUT TOKENIZER_JSON LENGTH WORKERS

Prints one line of JSON: the seconds from the first file to the complete index, and the samples.
"""

import gzip
import json
import sys
import time
from pathlib import Path

import numpy as np
from streaming import MDSWriter
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from transformers import PreTrainedTokenizerFast

EOS = "<|endoftext|>"
BATCH = 512


class ConcatTokens(IterableDataset):
    """Samples of `length` tokens; each worker takes every n-th file."""

    def __init__(self, files, tokenizer, length):
        self.files, self.tokenizer, self.length = files, tokenizer, length
        self.eos = tokenizer(EOS, truncation=False, padding=False, add_special_tokens=False)["input_ids"]

    def __iter__(self):
        worker = get_worker_info()
        files = self.files if worker is None else self.files[worker.id :: worker.num_workers]
        buffer = []
        for file in files:
            with gzip.open(file, "rt", encoding="utf-8") as lines:
                for line in lines:
                    ids = self.tokenizer(json.loads(line)["text"], truncation=False, padding=False)["input_ids"]
                    buffer += ids + self.eos
                    while len(buffer) >= self.length:
                        sample, buffer = buffer[: self.length], buffer[self.length :]
                        yield {"tokens": np.asarray(sample, dtype=np.int32)}


def main():
    source, out, tokenizer, length, workers = sys.argv[1:]
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=tokenizer)
    # It would warn at each document that is longer than a model's context.
    tokenizer.model_max_length = int(1e30)
    files = sorted(Path(source).glob("*.json.gz"))
    started = time.perf_counter()
    dataset = ConcatTokens(files, tokenizer, int(length))
    workers = int(workers)
    loader = DataLoader(
        dataset, batch_size=BATCH, num_workers=workers, prefetch_factor=max(1, 2 * BATCH // workers) if workers else None
    )
    samples = 0
    with MDSWriter(columns={"tokens": "ndarray:int32"}, out=out) as writer:
        for batch in loader:
            for tokens in batch["tokens"]:
                writer.write({"tokens": tokens.numpy()})
                samples += 1
    print(json.dumps({"seconds": time.perf_counter() - started, "samples": samples}))


if __name__ == "__main__":
    main()
