"""What PyTorch reaches on this GPU, beside scripts/gpu/check's own figures, as JSON lines.

    peer_torch.py SEQ_LEN

Matrix products in bf16 and fp32 at the shapes of the 125M model (cuBLASLt, where PyTorch can be told so), then its
optimizer step with rows of SEQ_LEN tokens: torch.compile, flash attention, bf16 autocast, the fused AdamW, the vocabulary
padded to 50304. Without PyTorch or a GPU it says so and ends with 3: there is no figure then.
"""

import json
import sys
import time
from pathlib import Path

NOT_RUN = 3  # as in scripts/gpu/check

try:
    import torch
except ImportError:
    print("not run: python3 has no torch", file=sys.stderr)
    sys.exit(NOT_RUN)
if not torch.cuda.is_available():
    print("not run: torch finds no GPU", file=sys.stderr)
    sys.exit(NOT_RUN)

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benches/peers"))
from peer_torch import Gpt  # noqa: E402

TOKENS, SEQ_LEN, STEPS = 16_384, int(sys.argv[1]), 10
SHAPES = {"c_attn": (2304, 768), "attn.c_proj": (768, 768), "c_fc": (3072, 768), "mlp.c_proj": (768, 3072), "head": (50_304, 768)}


def matmul():
    for dtype in [torch.bfloat16, torch.float32]:
        for name, (n, k) in SHAPES.items():
            a, b = (torch.ones(shape, device="cuda", dtype=dtype) for shape in [(TOKENS, k), (k, n)])
            for _ in range(10):
                a @ b
            torch.cuda.synchronize()
            began, times = time.perf_counter(), 100
            for _ in range(times):
                a @ b
            torch.cuda.synchronize()
            seconds = (time.perf_counter() - began) / times
            print(json.dumps({
                "check": "matmul", "name": name, "m": TOKENS, "n": n, "k": k, "dtype": str(dtype).split(".")[1],
                "seconds": seconds, "tflops": 2 * TOKENS * n * k / seconds / 1e12,
            }), flush=True)


def step(rows):
    # Without this the second size would be compiled for sizes of any kind.
    torch._dynamo.reset()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    torch.manual_seed(17)
    model = Gpt(768, 12, 12, 50_304, SEQ_LEN).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), fused=True)
    tokens = torch.randint(50_257, (rows, SEQ_LEN), device="cuda")
    labels = torch.cat([tokens[:, 1:], torch.full((rows, 1), -100, device="cuda")], dim=1)
    compiled = torch.compile(model, dynamic=False)
    for number in range(STEPS + 3):
        if number == 3:
            torch.cuda.synchronize()
            began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = compiled(tokens, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - began) / STEPS
    print(json.dumps({
        "check": "step", "rows": rows, "seq_len": SEQ_LEN, "precision": "amp_bf16", "seconds": seconds,
        "tokens_per_second": rows * SEQ_LEN / seconds,
        "bytes": torch.cuda.max_memory_reserved(),  # as our own: of the pool
    }), flush=True)


torch.backends.cuda.matmul.allow_tf32 = True
if hasattr(torch.backends.cuda, "preferred_blas_library"):
    usual = torch.backends.cuda.preferred_blas_library()
    torch.backends.cuda.preferred_blas_library("cublaslt")
    matmul()
    torch.backends.cuda.preferred_blas_library(usual)
else:
    matmul()
for rows in [8, 16, 32, 64]:
    try:
        step(rows)
    except torch.cuda.OutOfMemoryError:
        print(json.dumps({"check": "step", "rows": rows, "seq_len": SEQ_LEN, "out_of_memory": True}), flush=True)
        break
