"""Repairs texts that come on standard input. How they come and go is said in ftfy.rs, which runs this."""

import sys

# No module is meant that lies in the folder where the program happens to run.
sys.path[:] = [folder for folder in sys.path if folder]

import os
import select
import threading

requests = sys.stdin.buffer
answers = os.fdopen(os.dup(1), "wb")
# What a module prints is no answer.
os.dup2(2, 1)


def end_with_the_requests():
    """Ends the process when standard input is closed, within a text too."""
    input = select.poll()
    input.register(0, 0)  # which leaves the end
    input.poll()
    os._exit(0)


def answer(mark, text):
    answers.write(mark + len(text).to_bytes(8, "little") + text)
    answers.flush()


def refuse(words):
    answer(b"!", " ".join(words.split()).encode(errors="backslashreplace"))


def main():
    threading.Thread(target=end_with_the_requests, daemon=True).start()
    try:
        import ftfy

        version = ftfy.__version__.encode()
    except Exception as error:
        return refuse(f"{error} ({sys.executable})")
    answer(b"=", version)
    while True:
        length = requests.read(8)
        if len(length) < 8:
            return
        text = requests.read(int.from_bytes(length, "little")).decode()
        try:
            fixed = ftfy.fix_text(text).encode()
        except Exception as error:
            refuse(f"{type(error).__name__}: {error}")
        else:
            answer(b"=", fixed)


try:
    main()
except OSError:
    os._exit(1)  # nobody reads the answers
