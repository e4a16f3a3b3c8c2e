"""The programs under measurement, each as a function that runs it once and returns its figures."""
import contextlib
import ctypes
import json
import math
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time

from measure import NotMeasured

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = pathlib.Path(os.environ.get("CHAINPUMP_TEST_PROGRAM", ROOT / "build/release/chainpump"))
MODEL = pathlib.Path(os.environ.get("CHAINPUMP_TEST_MODEL", ROOT / ".venv/model.gguf"))
EXECUTOR = PROGRAM.parent / "tests/models/executor_bench"
CORES = PROGRAM.parent / "tests/graph/core_bench"
SEQUENCER = PROGRAM.parent / "tests/graph/sequencer_bench"
OVERLOAD = PROGRAM.parent / "tests/gateway/overload_bench"
PEERS = pathlib.Path(os.environ.get("CHAINPUMP_PEERS", ROOT / ".cache/peers/build/bin"))
PEER_PACKAGES = pathlib.Path(os.environ.get("CHAINPUMP_PEER_PACKAGES", ROOT / ".cache/peers/python"))
TORCH_PYTHON = pathlib.Path(os.environ.get("CHAINPUMP_TORCH_PYTHON", ROOT / ".venv-oracle/bin/python"))
PREFILL_TOKENS = 512
DECODE_TOKENS = 128
RUN_LIMIT_S = 180
LONG_LIMIT_S = 900


def call(command, limit_s=RUN_LIMIT_S, **options):
    try:
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": limit_s} | options
        done = subprocess.run([str(part) for part in command], text=True, **options)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotMeasured(str(error)) from error
    if done.returncode:
        raise NotMeasured(f"{' '.join(map(str, command))}: exit status {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}")
    return done.stdout


# -- ours -------------------------------------------------------------------------------------------
def prompt_ids(count):
    """Ordinary ids, no control tokens, always the same: the work does not depend on which they are."""
    return [200 + (7919 * i) % 40000 for i in range(count)]


def ours(stages, threads, *flags, prefill=PREFILL_TOKENS, decode=DECODE_TOKENS, model=MODEL, decode_after=8):
    """Tokens per second of prefill and decode, milliseconds per token. One request alone; `flags` as typed."""
    def run(prompt_tokens, new_tokens):
        command = [PROGRAM, "run", "demo", "--model", model, "--stages", stages, "--threads", threads, "--raw",
                   "--prompt-ids", ",".join(map(str, prompt_ids(prompt_tokens))), "-n", new_tokens,
                   "--temperature", "0", "-o", "json", *flags]
        return json.loads(call(command))
    figures = {}
    if prefill:
        figures["prefill"] = prefill / run(prefill, 1)["ttft_ms"] * 1e3
    if decode:
        result = run(decode_after, decode + 1)
        if len(result["token_ids"]) < decode // 4:
            raise NotMeasured(f"the answer ended after {len(result['token_ids'])} tokens")
        figures["decode"] = 1e3 / result["tpot_ms"]
        figures["token_ms"] = result["tpot_ms"]
    return figures


def executor(threads, prefill, decode, sequences, model=MODEL):
    """The executor alone: the machine's rates in GB/s and Gop/s, and tokens per second of all sequences together."""
    out = call([EXECUTOR, model, threads, prefill, decode, 1, sequences])
    found = re.search(r"read ([\d.]+) GB/s, int8 ([\d.]+) Gop/s, bf16 ([\d.]+) Gop/s, f32 ([\d.]+) Gop/s"
                      r".*prefill (\d+) tokens/s, decode ([\d.]+) tokens/s", out, re.DOTALL)
    if not found:
        raise NotMeasured(f"{EXECUTOR.name} said: {out.strip()[-300:]}")
    return dict(zip(("read", "int8", "bf16", "f32", "prefill", "decode"), map(float, found.groups())))


def machine_rates(threads):
    """What bounds decode and prefill with so many threads: GB/s of reading, Gop/s of multiply-adds on registers."""
    rates = executor(threads, 1, 1, 1)
    return {name: rates[name] for name in ("read", "int8", "bf16", "f32")}


def perplexity(model, pieces, half):
    """Of the tokens of each piece past its first `half` and one, as llama-perplexity counts it."""
    lines = "".join(json.dumps({"prompt_ids": piece[:half + 1], "target_ids": piece[half + 1:]}) + "\n" for piece in pieces)
    out = call([PROGRAM, "score", "demo", "--model", model, "--stages", 1], input=lines)
    values = [value for line in out.splitlines() for value in json.loads(line)["logprobs"]]
    return math.exp(-sum(values) / len(values))


# -- llama.cpp --------------------------------------------------------------------------------------
def llama(threads, rpc=None, model=MODEL):
    command = [PEERS / "llama-bench", "-m", model, "-p", PREFILL_TOKENS, "-n", DECODE_TOKENS, "-t", threads, "-r", 1, "-o", "json"]
    if rpc:
        command += ["--rpc", ",".join(rpc), "-ngl", 99]
    figures = {}
    for test in json.loads(call(command)):
        figures["prefill" if test["n_prompt"] else "decode"] = test["avg_ts"]
    return figures


def llama_batch(threads, prefill, decode, sequences, *flags, model=MODEL):
    """Tokens per second of all sequences together, decoded at once."""
    out = call([PEERS / "llama-batched-bench", "-m", model, "-c", sequences * (prefill + decode) + 512, "-npp", prefill, "-ntg", decode,
                "-npl", sequences, "-t", threads, "-tb", threads, "--output-format", "jsonl", *flags])
    rows = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    if not rows:
        raise NotMeasured(f"llama-batched-bench printed no figures: {out.strip()[-300:]}")
    return {"decode": rows[-1]["speed_tg"]}


def llama_perplexity(model, text_file, context):
    command = [PEERS / "llama-perplexity", "-m", model, "-f", text_file, "-c", context, "-b", context, "-t", 2]
    out = call(command, stderr=subprocess.STDOUT)
    found = re.search(r"Final estimate: PPL = ([\d.]+)", out)
    if not found:
        raise NotMeasured(f"llama-perplexity printed no estimate: {out.strip()[-300:]}")
    return float(found.group(1))


CONTEXTS = {"prefill": (512, 8000), "decode": (128, 8000)}
KV_TYPES = ("f32", "bf16", "f16", "int8")
CONTEXT_DECODE_TOKENS = 48


def ours_in_context(threads, kv):
    figures = {}
    for length in CONTEXTS["prefill"]:
        figures[f"prefill {length}"] = ours(1, threads, "--kv-type", kv, prefill=length, decode=0)["prefill"]
    for length in CONTEXTS["decode"]:
        figures[f"decode {length}"] = ours(1, threads, "--kv-type", kv, prefill=0, decode=CONTEXT_DECODE_TOKENS,
                                           decode_after=length)["decode"]
    return figures


def llama_in_context(threads):
    """llama-bench's depth is the context that is already there. It warms up with a whole run before: minutes on one thread."""
    command = [PEERS / "llama-bench", "-m", MODEL, "-t", threads, "-r", 1, "-o", "json"]
    figures = {}
    for length in CONTEXTS["prefill"]:
        figures[f"prefill {length}"] = json.loads(call([*command, "-p", length, "-n", 0], LONG_LIMIT_S))[0]["avg_ts"]
    for length in CONTEXTS["decode"]:
        test = json.loads(call([*command, "-p", 0, "-n", CONTEXT_DECODE_TOKENS, "-d", length], LONG_LIMIT_S))[0]
        figures[f"decode {length}"] = test["avg_ts"]
    return figures


def llama_features():
    """What llama.cpp's CPU library was built for, of what matters here."""
    library = ctypes.CDLL(str(PEERS / "libggml-cpu.so"))
    return [name for name in ("avx512", "avx512_vnni", "avx512_bf16") if getattr(library, f"ggml_cpu_has_{name}")()]


@contextlib.contextmanager
def background(command, port=None, **options):
    """Runs `command` until the block ends; with `port`, enters the block once it accepts connections."""
    with subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options) as process:
        try:
            if port:
                wait_for_port(process, port)
            yield process
        finally:
            process.kill()


def wait_for_port(process, port):
    deadline = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise NotMeasured(f"{process.args[0]} did not listen on port {port}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def llama_rpc_servers():
    """Two of one thread, one core each."""
    with contextlib.ExitStack() as stack:
        ports = [free_port(), free_port()]
        for core, port in enumerate(ports):
            stack.enter_context(background(["taskset", "-c", core, PEERS / "ggml-rpc-server", "-H", "127.0.0.1", "-p", port, "-t", 1], port))
        yield [f"127.0.0.1:{port}" for port in ports]


def llama_rpc_pair():
    with llama_rpc_servers() as servers:
        return llama(1, servers)


def llama_rpc_batch(prefill, decode, sequences):
    with llama_rpc_servers() as servers:
        return {"tokens": llama_batch(1, prefill, decode, sequences, "--rpc", ",".join(servers), "-ngl", 99)["decode"]}


# -- tokenizers -------------------------------------------------------------------------------------
def tokenizer_rates(texts, rounds=3):
    """MB per second of encoding each text, and what it costs to load and to decode."""
    program = PROGRAM.parent / "tests/models/tokenizer_bench"
    result = json.loads(call([program, MODEL, rounds, *texts.values()]))
    figures = {"load_ms": result["load_ms"]}
    for kind, (encode, decode, tokens) in zip(texts, result["texts"], strict=True):
        figures |= {kind: encode, kind + " decode": decode, kind + " tokens": tokens}
    return figures


def tokenizer_peer_rates(name, texts, rounds=1):
    environment = os.environ | {"PYTHONPATH": str(PEER_PACKAGES)}
    command = [sys.executable, pathlib.Path(__file__).with_name("tokenizer_peers.py"), name, MODEL, rounds, *texts.values()]
    result = json.loads(call(command, env=environment))
    return dict(zip(texts, result["encode"])) | {kind + " tokens": count for kind, count in zip(texts, result["tokens"])}


# -- single operations ------------------------------------------------------------------------------
def kernel_rows(threads, types):
    """The rows of `chainpump bench kernels`."""
    command = [PROGRAM, "bench", "kernels", "--threads", threads, "-o", "json"]
    for name in types:
        command += ["--type", name]
    return json.loads(call(command))["rows"]


def torch_products(threads, products):
    """Gop/s of PyTorch for each [type, rows, cols, tokens]; None without the oracle's environment."""
    if not TORCH_PYTHON.exists():
        return None
    script = pathlib.Path(__file__).with_name("torch_products.py")
    return json.loads(call([TORCH_PYTHON, script, threads], input=json.dumps(products)))


# llama.cpp's bench of single operations takes half of the machine's cores, whatever one says.
LLAMA_PRODUCT_THREADS = max(1, (os.cpu_count() or 1) // 2)
LLAMA_MUL_MAT = 29  # in its list of operations, as of the version in tools/peer_version.sh; its answer names it
LLAMA_TYPES = {"f32": (0, 1, 4), "f16": (1, 1, 2), "q4_0": (2, 32, 18), "q4_1": (3, 32, 20), "q5_0": (6, 32, 22), "q5_1": (7, 32, 24),
               "q8_0": (8, 32, 34), "q4_k": (12, 256, 144), "q5_k": (13, 256, 176), "q6_k": (14, 256, 210),
               "bf16": (30, 1, 2)}  # number of the type, elements and bytes of a block
LLAMA_COLD_BYTES = 64 << 20
LLAMA_ROWS_MAX_FOR_MANY = 2048
# It chooses how often to repeat by the bytes of the operands: a product of many tokens would take minutes. A third
# operand, which products do not look at, makes it take a second.
LLAMA_UNUSED_FLOATS = 64 << 20


def llama_operand(kind, cols, rows):
    number, block_elements, block_bytes = LLAMA_TYPES[kind]
    row_bytes = cols // block_elements * block_bytes
    return f"{number} {cols} {rows} 1 1 {block_bytes} {row_bytes} {row_bytes * rows} {row_bytes * rows}"


def llama_products(products):
    """Gop/s of llama.cpp's test-backend-ops for each [type, rows, cols, tokens]; None where it was not built. It multiplies one
    matrix again and again: for few tokens one of so many rows that it does not stay in the caches."""
    program = PEERS / "test-backend-ops"
    if not program.exists():
        return None
    lines, ops = [], []
    for kind, rows, cols, tokens in products:
        _, block_elements, block_bytes = LLAMA_TYPES[kind]
        few = tokens <= 64
        rows = LLAMA_COLD_BYTES // (cols // block_elements * block_bytes) if few else min(rows, LLAMA_ROWS_MAX_FOR_MANY)
        operands = [llama_operand(kind, cols, rows), llama_operand("f32", cols, tokens)]
        if not few:
            operands.append(llama_operand("f32", LLAMA_UNUSED_FLOATS, 1))
        lines.append(f"{LLAMA_MUL_MAT} 0 {rows} {tokens} 1 1 0 {len(operands)} {' '.join(operands)} -\n")
        ops.append(2 * rows * cols * tokens)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.writelines(lines)
        file.flush()
        out = call([program, "perf", "-b", "CPU", "--output", "sql", "--test-file", file.name], timeout=20 * len(products) + 60)
    found = [dict(zip(names.split(", "), values[1:-1].split("', '")))
             for names, values in re.findall(r"^INSERT INTO test_backend_ops \((.*?)\) VALUES \((.*)\);$", out, re.MULTILINE)]
    if len(found) != len(products) or any(row["op_name"] != "MUL_MAT" for row in found):
        raise NotMeasured(f"{program.name} said: {out.strip()[-300:]}")
    return [count / float(row["time_us"]) / 1e3 for count, row in zip(ops, found)]


# -- UCX --------------------------------------------------------------------------------------------
def ucx_latency_us(payload_bytes, wait_mode, count=20000):
    """Median one-way latency of an active message on loopback TCP, each end on its own core."""
    port = free_port()
    environment = os.environ | {"UCX_TLS": "tcp", "UCX_NET_DEVICES": "lo"}
    test = ["-t", "ucp_am_lat", "-s", payload_bytes, "-n", count, "-w", count // 10, "-E", wait_mode, "-f", "-v"]
    with background(["taskset", "-c", 0, "ucx_perftest", "-p", port], env=environment) as server:
        # The server takes one connection, so it cannot be probed: its listening socket is looked up.
        wait_until_listening(server, port)
        lines = call(["taskset", "-c", 1, "ucx_perftest", "127.0.0.1", "-p", port, *test], env=environment).splitlines()
    values = dict(zip(lines[-2].split(","), lines[-1].split(",")))
    return float(values["50.0_percentile_lat"])


def wait_until_listening(process, port):
    wanted = f":{port:04X} "
    deadline = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < deadline:
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            listening = [line for line in pathlib.Path(table).read_text().splitlines() if " 0A " in line]
            if any(wanted in line.split(" 0A ")[0] for line in listening):
                return
        time.sleep(0.02)
    raise NotMeasured(f"{process.args[0]} did not listen on port {port}")
