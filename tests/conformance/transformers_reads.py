"""Compares our models with those of Hugging Face's transformers, both ways.

    transformers_reads.py exported FOLDER LOGITS TEXT   what export-hf wrote: its logits are LOGITS, and it greedily writes TEXT
    transformers_reads.py make TOKENIZER FOLDER LENGTH  a GPT-2 of random weights, as save_pretrained leaves it
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

PROMPT = "The king"


def exported(folder, logits, text):
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    ours = json.loads(Path(logits).read_text())
    with torch.no_grad():
        theirs = model(torch.tensor(ours["tokens"])).logits
    difference = (torch.tensor(ours["logits"]) - theirs).abs().max().item()
    print(f"{type(model).__name__}: logits up to {theirs.abs().max():.3f} differ by {difference:.1e} at most")
    assert difference <= 1e-4, "logits differ"

    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(PROMPT, return_tensors="pt")
    written = model.generate(**ids, do_sample=False, max_new_tokens=12, pad_token_id=0)
    written = tokenizer.decode(written[0], skip_special_tokens=True)
    assert written == Path(text).read_text().removesuffix("\n"), (written, Path(text).read_text())
    print(f"  greedy: {written!r}")


def make(tokenizer, folder, length):
    torch.manual_seed(17)
    config = GPT2Config(vocab_size=4096, n_positions=int(length), n_embd=48, n_layer=2, n_head=3, initializer_range=0.2)
    GPT2LMHeadModel(config).save_pretrained(folder)
    for file in Path(tokenizer).iterdir():
        (Path(folder) / file.name).write_bytes(file.read_bytes())


if __name__ == "__main__":
    {"exported": exported, "make": make}[sys.argv[1]](*sys.argv[2:])
