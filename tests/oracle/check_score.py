"""Compares `chainpump score` with the numpy oracle, position by position over the whole vocabulary.

  check_score.py --program build/release/chainpump [--model FILE [--types TYPE ...] | --tiny]
                 [--activations f32|int8] [--kv-type f32|f16|bf16|int8] [--stages N] [--positions N]

The bounds: with int8 activations a mean divergence of at most 0.005 nats, and the same first choice
on 99.8 % of the positions where the oracle's leads by more than 0.3 nats; with float32 activations
1e-5 nats, and the same first choice on 99.9 % of all positions. The oracle keeps K and V in float32:
with another --kv-type the bounds are what that type may cost.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

# Before numpy is loaded: its threads wait by spinning, which costs more than they bring beside other tests.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import gguf  # noqa: E402
import numpy as np  # noqa: E402
import tokenizers  # noqa: E402

import llama_numpy  # noqa: E402
import other_types  # noqa: E402
import tiny_models  # noqa: E402

TEXTS = pathlib.Path(__file__).parent / "texts"
BOUNDS = {"int8": dict(divergence=0.005, agreement=0.998, lead=0.3),
          "f32": dict(divergence=1e-5, agreement=0.999, lead=0.0)}
# By KV type, with float32 activations.
KV_BOUNDS = {"f32": BOUNDS["f32"],
             "f16": dict(divergence=1e-5, agreement=0.999, lead=0.01),
             "bf16": dict(divergence=2e-4, agreement=0.998, lead=0.1),
             "int8": dict(divergence=3e-3, agreement=0.995, lead=0.2)}
PIECE_TOKENS = 256


def sequences(reader, num_positions):
    """Token ids of the sample texts in pieces of at most PIECE_TOKENS, `num_positions` targets or a few more."""
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(pair.split(" ")) for pair in reader.fields["tokenizer.ggml.merges"].contents()]
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.add_special_tokens([token for token in tokens if token.startswith("<|") and token.endswith("|>")])
    pieces, positions = [], 0
    for text in sorted(TEXTS.glob("*.txt")):
        ids = bpe.encode(text.read_text(encoding="utf-8")).ids
        for start in range(0, len(ids), PIECE_TOKENS):
            pieces.append(ids[start:start + PIECE_TOKENS])
    # Long and short prompts alternate, so that targets follow both; no text is left out.
    requests = []
    for index, piece in enumerate(piece for piece in pieces if len(piece) > 40):
        prompt = 1 if index % 2 == 0 else 33
        requests.append({"prompt_ids": piece[:prompt], "target_ids": piece[prompt:]})
        positions += len(piece) - prompt
        if num_positions and positions >= num_positions:
            break
    return requests, positions


def bounds_of(options):
    return KV_BOUNDS[options.kv_type] if options.activations == "f32" else BOUNDS[options.activations]


def score(options, model, requests, full):
    command = [options.program, "score", "demo", "--model", str(model), "--full", str(full), "--kv-type", options.kv_type]
    if options.activations == "f32":
        command += ["--activations", "f32"]
    if options.stages:
        command += ["--stages", str(options.stages)]
    text = "".join(json.dumps(request) + "\n" for request in requests)
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=options.timeout)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\nexit status {done.returncode}\n{done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def compare(options, model, oracle, requests):
    """The figures of one model; asserts that the JSON lines agree with the full table."""
    with tempfile.TemporaryDirectory() as folder:
        full = pathlib.Path(folder) / "full.npy"
        lines = score(options, model, requests, full)
        table = np.load(full, mmap_mode="r")
        assert len(lines) == len(requests), f"{len(lines)} lines for {len(requests)} requests"
        assert table.dtype == np.float32, table.dtype
        divergence, agree, ahead, row = 0.0, 0, 0, 0
        for request, line in zip(requests, lines):
            prompt, targets = request["prompt_ids"], request["target_ids"]
            ours = np.asarray(table[row:row + len(targets)], np.float64)
            row += len(targets)
            truth = oracle.log_probabilities(prompt + targets[:-1], first=len(prompt) - 1).astype(np.float64)
            assert ours.shape == truth.shape, (ours.shape, truth.shape)
            assert np.allclose(np.exp(ours).sum(axis=1), 1.0, atol=1e-4), "the rows are not log-probabilities"
            # Both were rounded to float32; without this their sums' distance from 1 counts as divergence.
            exact_ours, truth = (rows - np.log(np.exp(rows).sum(axis=1, keepdims=True)) for rows in (ours, truth))
            picked = ours[np.arange(len(targets)), targets]
            assert np.allclose(picked, line["logprobs"], atol=1e-4), "logprobs differ from the full table"
            assert list(ours.argmax(axis=1)) == line["argmax_ids"], "argmax_ids differ from the full table"
            divergence += (np.exp(truth) * (truth - exact_ours)).sum()
            rows, choice = np.arange(len(targets)), truth.argmax(axis=1)
            best = truth[rows, choice]
            truth[rows, choice] = -np.inf
            leads = best - truth.max(axis=1) > bounds_of(options)["lead"]
            ahead += leads.sum()
            agree += (leads & (ours.argmax(axis=1) == choice)).sum()
        assert row == len(table), f"{len(table)} rows for {row} positions"
    return divergence / row, agree / max(ahead, 1), ahead


def check(options, model, num_positions):
    started = time.monotonic()
    reader = gguf.GGUFReader(model)  # seconds of parsing for a real vocabulary: once
    requests, positions = sequences(reader, num_positions)
    divergence, agreement, ahead = compare(options, model, llama_numpy.Llama(reader), requests)
    bounds = bounds_of(options)
    good = divergence <= bounds["divergence"] and agreement >= bounds["agreement"]
    print(f"{'ok  ' if good else 'FAIL'} {pathlib.Path(model).name:40} {options.activations:4} kv {options.kv_type:4} {positions:5} positions  "
          f"mean divergence {divergence:.2e} nats (<= {bounds['divergence']:g})  "
          f"arg-max {100 * agreement:.2f} % of {ahead} (>= {100 * bounds['agreement']:g})  "
          f"{time.monotonic() - started:.1f} s", flush=True)
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", required=True)
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--model", type=pathlib.Path)
    chosen.add_argument("--tiny", action="store_true", help="every model of tiny_models.py")
    parser.add_argument("--types", nargs="*", choices=other_types.TYPES, metavar="TYPE",
                        help="the model in these weight types, made by `chainpump quantize`; none named: in all")
    parser.add_argument("--activations", choices=BOUNDS, default="int8")
    parser.add_argument("--kv-type", choices=KV_BOUNDS, default="f32")
    parser.add_argument("--stages", type=int)
    parser.add_argument("--positions", type=int, default=0, help="stop after so many; 0: all texts")
    parser.add_argument("--timeout", type=float, default=240, help="seconds for one run of the program")
    options = parser.parse_args()
    if not options.tiny:
        if not options.model.exists():
            sys.exit(f"{options.model} does not exist; run make setup")
        models = [options.model]
        if options.types is not None:
            models = [other_types.path_of(options.program, options.model, name) for name in options.types or other_types.TYPES]
        return 0 if all([check(options, model, options.positions) for model in models]) else 1
    good = True
    with tempfile.TemporaryDirectory() as folder:
        for name, tiny in tiny_models.MODELS.items():
            path = pathlib.Path(folder) / f"{name}.gguf"
            tiny_models.write(path, name, tiny)
            good &= check(options, path, options.positions)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
