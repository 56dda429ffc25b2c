#!/usr/bin/env python3
"""Train models with SentencePiece, and compare its ids with those of preprocess-data.

    sentencepiece_ids.py PREPROCESS_DATA WORK FILE.json.gz...

The texts of the files, each alone and all in one, and random strings of all of Unicode are encoded under models of each
kind, with the tables of normalisation that SentencePiece has.
"""

import gzip
import io
import json
import pathlib
import random
import subprocess
import sys

import numpy
import sentencepiece

BYTES = dict(byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False)
MODELS = {
    "unigram_nmt_nfkc": dict(model_type="unigram", normalization_rule_name="nmt_nfkc"),
    "unigram_nfkc_bytes": dict(model_type="unigram", normalization_rule_name="nfkc", byte_fallback=True),
    "unigram_bytes": dict(model_type="unigram", user_defined_symbols=["<|endoftext|>", "the "], **BYTES),
    "unigram_suffix": dict(model_type="unigram", treat_whitespace_as_suffix=True),
    "bpe_nmt_nfkc_cf": dict(model_type="bpe", normalization_rule_name="nmt_nfkc_cf"),
    "bpe_nfkc_bytes": dict(model_type="bpe", normalization_rule_name="nfkc", byte_fallback=True),
    "bpe_llama": dict(model_type="bpe", split_digits=True, allow_whitespace_only_pieces=True, **BYTES),
    "bpe_symbols": dict(model_type="bpe", add_dummy_prefix=False, user_defined_symbols=["<|endoftext|>", "  "], **BYTES),
    "word": dict(model_type="word"),
    "char": dict(model_type="char"),
}
# Of a string most characters are of the same few blocks.
BLOCKS = [
    (0x00, 0x20), (0x20, 0x7F), (0xA0, 0x250), (0x300, 0x370), (0x370, 0x530), (0x590, 0x700), (0x900, 0xE80), (0x1100, 0x1200),
    (0x1E00, 0x2100), (0x2100, 0x2C00), (0x3000, 0x3100), (0x4E00, 0x5000), (0xAC00, 0xAD00), (0xF900, 0xFE70), (0xFF00, 0xFFF0),
    (0x1D400, 0x1D800), (0x1F300, 0x1FB00), (0x20000, 0x20100), (0xE0000, 0xE01F0), (0x10FFF0, 0x110000),
]
BETWEEN = [" ", "  ", "\n", "\t", "\u2581", "<s>", "</s>", "<unk>", "<0x41>", "<|endoftext|>", "\u200d", "\ufe0f", "\u0301", "the "]


def random_texts(count):
    generator = random.Random(11)
    for _ in range(count):
        blocks = generator.sample(BLOCKS, 3)
        text = ""
        for _ in range(generator.randrange(1, 80)):
            text += chr(generator.randrange(*generator.choice(blocks)))
            if generator.random() < 0.15:
                text += generator.choice(BETWEEN)
        yield text


def trained(texts, options):
    sentences = (line for text in texts for line in text.split("\n") if line.strip() and "\0" not in line)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=sentences, model_writer=model, vocab_size=2000, hard_vocab_limit=False, character_coverage=0.98,
        minloglevel=2, **options
    )
    return model.getvalue()


def documents(prefix):
    """The ids of each document of an indexed dataset of 16-bit tokens."""
    index = pathlib.Path(f"{prefix}.idx").read_bytes()
    count = int.from_bytes(index[18:26], "little")
    assert index[:9] == b"MMIDIDX\0\0" and index[17] == 8, index[:18]
    sizes = numpy.frombuffer(index, "<i4", count, 34)
    tokens = numpy.fromfile(f"{prefix}.bin", "<u2")
    return [part.tolist() for part in numpy.split(tokens, numpy.cumsum(sizes)[:-1])]


def main():
    program, work, *files = sys.argv[1:]
    work = pathlib.Path(work)
    work.mkdir(parents=True)
    real = [json.loads(line)["text"] for file in files for line in gzip.open(file, "rt")]
    texts = real + ["\n".join(real)] + list(random_texts(2000))
    (work / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    for name, options in MODELS.items():
        model = trained(real + list(random_texts(500)), options)
        (work / f"{name}.model").write_bytes(model)
        arguments = ["--tokenizer-type", "SPMTokenizer", "--vocab-file", work / f"{name}.model", "--workers", "2"]
        arguments += ["--input", work / "texts.jsonl", "--output-prefix", work / name]
        subprocess.run([program, *arguments], check=True, capture_output=True)
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        # A text without a token is left out.
        expected = [ids for ids in map(processor.encode_as_ids, texts) if ids]
        found = documents(work / f"{name}_text_document")
        assert len(found) == len(expected), f"{name}: {len(found)} documents, {len(expected)} of SentencePiece"
        different = sum(ours != theirs for ours, theirs in zip(found, expected))
        assert not different, f"{name}: {different} of {len(expected)} texts differ"
        print(f"{name}: {len(expected)} texts, {sum(map(len, expected))} ids")


if __name__ == "__main__":
    main()
