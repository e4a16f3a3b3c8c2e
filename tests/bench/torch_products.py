"""The peer of `chainpump bench kernels`: products of PyTorch on the CPU. Reads [[type, rows, cols, tokens], ...]
as JSON, prints the Gop/s of each (two per multiply-add). Usage: torch_products.py THREADS"""
import json
import statistics
import sys
import time

import torch

COLD_BYTES = 64 << 20  # few tokens read weights from memory: matrices side by side exceed the caches
ROWS_MAX_FOR_MANY = 2048
TYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def rate(type_name, rows, cols, tokens):
    dtype = TYPES[type_name]
    row_bytes = cols * dtype.itemsize
    few = tokens <= 64
    rows = min(rows, max(16, COLD_BYTES // row_bytes) if few else ROWS_MAX_FOR_MANY)
    copies = [torch.randn(rows, cols).to(dtype) for _ in range(-(-COLD_BYTES // (rows * row_bytes)) if few else 1)]
    x = torch.randn(tokens, cols).to(dtype)
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        for weights in copies:
            torch.nn.functional.linear(x, weights)
        seconds.append((time.perf_counter() - start) / len(copies))
    return 2e-9 * rows * cols * tokens / statistics.median(seconds[1:])


torch.set_num_threads(int(sys.argv[1]))
with torch.inference_mode():
    print(json.dumps([rate(*product) for product in json.load(sys.stdin)]))
