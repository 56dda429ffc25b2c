"""How run.py talks to the Python sides: one JSON object per line, {"name": ..., arguments}, and one line back."""

import json
import logging
import sys


def serve(measures):
    """Answers requests with the functions `measures` until stdin ends."""
    logging.disable(logging.WARNING)
    # Answers have the original stdout for themselves.
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        request = json.loads(line)
        result = measures[request.pop("name")](**request)
        print(json.dumps(result), file=answers, flush=True)
