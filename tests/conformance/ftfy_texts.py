#!/usr/bin/env python3
"""Compare the texts that preprocess-data --ftfy tokenises with those of ftfy, document for document.

    ftfy_texts.py PREPROCESS_DATA WORK FILE.json.gz...

Run by a Python that has ftfy, whose folder is put first in PATH. The texts of the files are spoilt in the ways that ftfy
knows: decoded by wrong encodings, with entities of HTML, ligatures, full-width letters, escapes of terminals, control
characters. The tokenizer is that of bytes, whose ids are the text. Then the processes are looked at: none may be left of a
run that is interrupted or killed in the middle of a text.
"""

import gzip
import html
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
import unicodedata

import ftfy
import ftfy.bad_codecs  # noqa: F401, the sloppy encodings, which have a character for each byte
import numpy

WRONG = ["sloppy-windows-1252", "sloppy-windows-1251", "sloppy-windows-1257", "macroman", "latin-1"]
OTHER_LANGUAGES = [
    "Zażółć gęślą jaźń: „pięć” – cena 30 €…",
    "Où est l’hôtel ? « À côté, bien sûr ! » Ça coûte 12 £.",
    "Größe, Übermut und ‚Fußgänger‘ – 20 °C",
    "Šiandien ąžuolas žydi, ėjo čia ūkininkas į Šiaulius",
    "Съешь ещё этих мягких французских булок — «да» № 5",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία",
    "Þetta er íslenska, með ð og æ",
    "İstanbul’da çığ düştü, şaşırdık",
    "日本語の文字化けは大変です。한국어도 마찬가지",
    "naïve café \U0001f600\U0001f44d\U0001f3fd ™ © ½ × ÷",
]
LETTERS = {"a": "äáàâãåāą", "e": "éèêëėę", "o": "öóòôõøő", "u": "üúùûůū", "c": "çčć", "s": "šśß", "n": "ñń", "'": "’‘", '"': "“”„", "-": "–—"}
SOME = random.Random(17)


def typeset(text):
    """The text with letters and quotation marks that are not ASCII here and there."""
    return "".join(SOME.choice(LETTERS[c]) if c in LETTERS and SOME.random() < 0.05 else c for c in text)


def wrong(text, encoding):
    return text.encode().decode(encoding)


def sprinkled(text, pieces, often=0.02):
    return "".join(c + SOME.choice(pieces) if SOME.random() < often else c for c in text)


def full_width(text):
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" and SOME.random() < 0.5 else c for c in text)


def entities(text):
    named = "".join(f"&{html.entities.codepoint2name[ord(c)]};" if ord(c) in html.entities.codepoint2name else c for c in text)
    return sprinkled(named, ["&#8217;", "&#x2026;", "&eacute;", "&EACUTE;", "&amp;lt;", "&nbsp;", "&notit;", "&#55357;", "&#128;"])


def ligatures(text):
    for plain, joined in [("ffi", "ﬃ"), ("fi", "ﬁ"), ("fl", "ﬂ"), ("st", "ﬆ"), ("ij", "ĳ"), ("dz", "ǆ")]:
        text = text.replace(plain, joined)
    return text


CONTROL = [chr(c) for c in [*range(9), *range(0x0B, 0x20), *range(0x7F, 0xA0), 0xAD, 0x200B, 0x206A, 0xFEFF, 0xFFF9, 0xFFFD, 0xFFFE]]
WAYS = {
    **{encoding: lambda text, encoding=encoding: wrong(typeset(text), encoding) for encoding in WRONG},
    "twice": lambda text: wrong(wrong(typeset(text), SOME.choice(WRONG)), SOME.choice(WRONG)),
    "lossy": lambda text: wrong(typeset(text), "sloppy-windows-1252").replace("\xa0", " ").replace("\x9d", "\ufffd"),
    "partly": lambda text: "\n".join(wrong(line, WRONG[0]) if SOME.random() < 0.5 else line for line in typeset(text).split("\n")),
    "entities": lambda text: entities(typeset(text)),
    # Where there are tags, entities stay, and the rest is repaired.
    "tags": lambda text: wrong(f"<p class='x'>{entities(typeset(text))}</p>", WRONG[0]),
    "ligatures": ligatures,
    "full_width": full_width,
    "quotes": lambda text: sprinkled(text.replace("'", "’").replace('"', "“"), ["‘", "”", "„", "‛", "′"]),
    "terminal": lambda text: sprinkled(text, ["\x1b[1m", "\x1b[36;44m", "\x1b[0m", "\x1b[K", "\x1b]0;", "\x1b"]),
    "control": lambda text: sprinkled(text, CONTROL),
    "line_ends": lambda text: sprinkled(text.replace("\n", "\r\n"), ["\r", "\x85", "\u2028", "\u2029", "\x0b", "\x0c"]),
    "decomposed": lambda text: unicodedata.normalize("NFD", typeset(text)),
}


def random_text():
    """Characters of all of Unicode but surrogates."""
    points = [SOME.choice([SOME.randrange(0x250), SOME.randrange(0xD800), SOME.randrange(0xE000, 0x110000)]) for _ in range(60)]
    return "".join(map(chr, points))


def spoilt(real):
    kinds = {name: [way(text) for text in [*SOME.sample(real, 60), *OTHER_LANGUAGES]] for name, way in WAYS.items()}
    kinds["long_lines"] = [wrong(typeset(" ".join(real[:300]).replace("\n", " ")), encoding) for encoding in WRONG[:2]]
    kinds["random"] = [random_text() for _ in range(500)] + [wrong(random_text(), WRONG[0]) for _ in range(500)]
    kinds["nothing"] = ["\x1b[0m", "\x00\x01", "\ufeff", ""]
    return kinds


def documents(prefix):
    """The bytes of each document of an indexed dataset whose tokens are bytes in 16 bits."""
    index = pathlib.Path(f"{prefix}.idx").read_bytes()
    count = int.from_bytes(index[18:26], "little")
    assert index[:9] == b"MMIDIDX\0\0" and index[17] == 8, index[:18]
    sizes = numpy.frombuffer(index, "<i4", count, 34)
    tokens = numpy.fromfile(f"{prefix}.bin", "<u2").astype("u1")
    return [part.tobytes() for part in numpy.split(tokens, numpy.cumsum(sizes)[:-1])]


class Runs:
    def __init__(self, program, work):
        self.work = work
        self.arguments = [program, "--tokenizer-type", "CharLevelTokenizer", "--ftfy"]
        self.environment = {**os.environ, "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"}
        # That of the folder in which the program runs is not meant.
        (work / "ftfy.py").write_text("raise SystemExit(9)\n")

    def start(self, input, prefix, *more, environment=None):
        arguments = [*self.arguments, "--input", input, "--output-prefix", prefix, *more]
        return subprocess.Popen(
            arguments, cwd=self.work, env=environment or self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def compare(self, kinds):
        texts = [text for kind in kinds.values() for text in kind]
        (self.work / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        for workers in "13":
            run = self.start("texts.jsonl", workers, "--workers", workers)
            said, errors = run.communicate()
            assert run.returncode == 0, errors
            assert f"\nftfy: {ftfy.__version__}\n" in said, said
        for ending in ["bin", "idx"]:
            one, three = [(self.work / f"{workers}_text_document.{ending}").read_bytes() for workers in "13"]
            assert one == three, f"the .{ending} files of 1 and of 3 workers differ"
        found = iter(documents(self.work / "1_text_document"))
        for name, kind in kinds.items():
            fixed = [ftfy.fix_text(text) for text in kind]
            # A text that becomes empty is left out.
            different = sum(next(found, None) != text.encode() for text in fixed if text)
            assert not different, f"{name}: {different} of {len(kind)} texts differ"
            repaired = sum(text != before for text, before in zip(fixed, kind))
            assert repaired > len(kind) // 4, f"{name}: ftfy has repaired {repaired} of {len(kind)} texts only"
            print(f"{name}: {len(kind)} texts, {repaired} of them repaired")
        assert next(found, None) is None, "there are more documents than texts"

    def refuse(self):
        environment = {name: value for name, value in self.environment.items() if name != "PYTHONPATH"}
        run = self.start("texts.jsonl", "none", environment=environment)
        _, errors = run.communicate()
        assert run.returncode == 1 and "has no ftfy: No module named 'ftfy' (/" in errors, errors

    def interrupt(self, text):
        """Ends runs whose ftfy is busy for minutes."""
        (self.work / "long.jsonl").write_text(json.dumps({"text": text}) + "\n")
        for number, expected in [(signal.SIGINT, 130), (signal.SIGKILL, -9)]:
            run = self.start("long.jsonl", f"long-{number}")
            while not (children := children_of(run.pid)):
                time.sleep(0.01)
            time.sleep(2)
            begun = time.monotonic()
            run.send_signal(number)
            _, errors = run.communicate()
            assert run.returncode == expected and "Traceback" not in errors, errors
            while any(is_running(child) for child in children):
                assert time.monotonic() - begun < 20, f"{children} go on after signal {number}"
                time.sleep(0.05)
        print("no process of ftfy is left of what was interrupted or killed")


def children_of(pid):
    return [int(child) for child in subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split()]


def is_running(pid):
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return state != "" and not state.startswith("Z")


def main():
    program, work, *files = sys.argv[1:]
    work = pathlib.Path(work)
    work.mkdir(parents=True)
    real = [json.loads(line)["text"] for file in files for line in gzip.open(file, "rt")]
    runs = Runs(os.path.abspath(program), work)
    runs.compare(spoilt(real))
    runs.refuse()
    runs.interrupt(wrong(typeset("\n".join(real)), WRONG[0]) * 20)


if __name__ == "__main__":
    main()
