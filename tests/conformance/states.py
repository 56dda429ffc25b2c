"""The reference goes on from a state of ours exactly as from its own.

usage: states.py

Ours are its five fields and two more, which tests/loader.rs compares word for word with states that it saved; here
it reads a state with and without the two.
"""

import logging
import sys
import tempfile
import warnings

from streaming import MDSWriter, StreamingDataLoader, StreamingDataset

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
OURS = {"version": 1, "index_fingerprint": "0123456789abcdef" * 4}


def loader(folder, state=None):
    dataset = StreamingDataset(local=folder, shuffle=True, shuffle_seed=77, num_canonical_nodes=2, batch_size=4)
    made = StreamingDataLoader(dataset, batch_size=4)
    if state:
        made.load_state_dict(state)
    return made


def epoch(batches):
    return [batch["id"].tolist() for batch in batches]


def main():
    with tempfile.TemporaryDirectory() as folder:
        with MDSWriter(columns={"id": "int"}, out=folder, size_limit=400) as writer:
            for number in range(200):
                writer.write({"id": number})
        first = loader(folder)
        whole = []
        for batch in first:
            whole.append(batch["id"].tolist())
            if len(whole) == 7:
                state = first.state_dict()
        theirs, ours = epoch(loader(folder, state)), epoch(loader(folder, state | OURS))
        again, saved = loader(folder, state | OURS), None
        for _ in again:  # to the end: the threads of a reader that is left go on reading
            saved = saved or again.state_dict()
    if not (theirs == ours == whole[7:]):
        sys.exit(f"states: from {state | OURS} the reference serves {ours}, not {whole[7:]}")
    if saved != state | {"sample_in_epoch": 32}:
        sys.exit(f"states: resumed from {state | OURS} the reference saves {saved}")


main()
