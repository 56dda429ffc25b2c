"""One optimizer step of a GPT in PyTorch on the CPU, timed: the peer of benches/train_step.rs.

    python peer_torch.py NAME ROWS SEQ_LEN STEPS eager|compile

Prints one JSON object. The model is that of `yamls/125m.yaml`: pre-norm, learned positions, exact GELU, a head tied to
the embedding, fp32. What PyTorch's documentation recommends is used: `scaled_dot_product_attention`, the fused AdamW,
gradients set to None; with `compile` also `torch.compile`. The allocator's settings come by the environment.
"""

import json
import resource
import statistics
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

SIZES = {"125m": (768, 12, 12, 50257), "small": (128, 4, 4, 4096)}


class Block(nn.Module):
    def __init__(self, d_model, n_heads):
        super().__init__()
        self.n_heads = n_heads
        self.ln_1 = nn.LayerNorm(d_model)
        self.c_attn = nn.Linear(d_model, 3 * d_model)
        self.c_proj = nn.Linear(d_model, d_model)
        self.ln_2 = nn.LayerNorm(d_model)
        self.up = nn.Linear(d_model, 4 * d_model)
        self.down = nn.Linear(4 * d_model, d_model)

    def forward(self, x):
        b, t, c = x.shape
        heads = lambda y: y.view(b, t, self.n_heads, c // self.n_heads).transpose(1, 2)
        q, k, v = map(heads, self.c_attn(self.ln_1(x)).split(c, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(y.transpose(1, 2).reshape(b, t, c))
        return x + self.down(F.gelu(self.up(self.ln_2(x))))


class Gpt(nn.Module):
    def __init__(self, d_model, n_heads, n_layers, vocab_size, seq_len):
        super().__init__()
        self.wte = nn.Embedding(vocab_size, d_model)
        self.wpe = nn.Embedding(seq_len, d_model)
        self.blocks = nn.ModuleList(Block(d_model, n_heads) for _ in range(n_layers))
        self.ln_f = nn.LayerNorm(d_model)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                residual = name.endswith(("c_proj.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / (2 * n_layers) ** 0.5 if residual else 0.02)
            elif "bias" in name:
                nn.init.zeros_(parameter)

    def forward(self, tokens, labels):
        x = self.wte(tokens) + self.wpe.weight
        for block in self.blocks:
            x = block(x)
        logits = self.ln_f(x) @ self.wte.weight.T
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)


def main():
    name, rows, seq_len, steps, mode = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]
    torch.manual_seed(17)
    d_model, n_heads, n_layers, vocab_size = SIZES[name]
    model = Gpt(d_model, n_heads, n_layers, vocab_size, seq_len)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    tokens = torch.randint(vocab_size, (rows, seq_len))
    labels = torch.cat([tokens[:, 1:], torch.full((rows, 1), -100)], dim=1)
    loss_of = torch.compile(model) if mode == "compile" else model

    walls, processor = [], []
    for step in range(steps + 2):  # the first two make room, and compile
        began, busy = time.perf_counter(), time.process_time()
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(tokens, labels)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        value = loss.item()
        if step == 0:
            first_loss = value
        if step >= 2:
            walls.append(time.perf_counter() - began)
            processor.append(time.process_time() - busy)
    print(json.dumps({
        "parameters": sum(p.numel() for p in model.parameters()),
        "first_loss": first_loss,
        "seconds": statistics.median(walls),
        "processor_seconds": statistics.median(processor),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }))


if __name__ == "__main__":
    main()
