"""The engine's figures: many requests at once, over sleeping stages and over a real model beside llama.cpp."""
import contextlib
import json
import os
import pathlib
import re
import select
import statistics
import subprocess
import tempfile

import bounds
import llama_server
import load
import programs
from measure import NotMeasured, Side, interleave, ratio_row, shown

READY_S = 120
AT_ONCE = 100000  # requests per second: all there before the first has its first token


def mark(ok):
    return "ok" if ok else "below"


# -- ours -------------------------------------------------------------------------------------------
@contextlib.contextmanager
def graph(stages, threads, **batching):
    """A graph file in a folder of its own, and the environment in which its service can be found. `stages`: how many, or their text."""
    prefix_cache = batching.pop("prefix_cache", True)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "graph.yaml"
        keys = ", ".join(f"{key}: {value}" for key, value in batching.items())
        path.write_text(f"version: 1\nname: bench\nmodel: {programs.MODEL.resolve()}\nstages: {stages}\nthreads: {threads}\n"
                        f"batching: {{{keys}}}\nkv: {{prefix_cache: {str(prefix_cache).lower()}}}\n", encoding="utf-8")
        yield path, os.environ | {"CHAINPUMP_RUN_DIR": folder}


@contextlib.contextmanager
def service(path, environment):
    with subprocess.Popen([programs.PROGRAM, "serve", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        try:
            ready, _, _ = select.select([process.stdout], [], [], READY_S)
            if not ready or not process.stdout.readline().startswith(b"ready: "):
                raise NotMeasured("chainpump serve does not become ready")
            yield
        finally:
            process.terminate()
            process.wait(READY_S)


def bench_serve(path, environment, requests, mix, seed=1, rate=AT_ONCE):
    command = [programs.PROGRAM, "bench", "serve", path, "--rate", rate, "--requests", requests, "--mix", mix, "--seed", seed, "-o", "json"]
    report = json.loads(programs.call(command, env=environment))
    if report["completed"] != requests:
        raise NotMeasured(f"{report['completed']} of {requests} requests were completed")
    return report


def many(stages, threads, requests, mix, **batching):
    """Tokens per second of so many requests that come together."""
    with graph(stages, threads, **batching) as (path, environment):
        report = bench_serve(path, environment, requests, mix)
    return {"tokens": report["output_tokens_per_second"], "report": report}


# -- sections ---------------------------------------------------------------------------------------
def pipeline(rounds):
    """Sleeping stages; the command takes medians itself."""
    print("\nThe engine round stages that sleep, time scale 1 (chainpump bench pipeline)")
    report = json.loads(programs.call([programs.PROGRAM, "bench", "pipeline", "--rounds", rounds, "-o", "json"], programs.LONG_LIMIT_S))
    for row in report["rows"]:
        name = f"  {row['name']}, {row['links']}"
        if "fixed_2048" not in row:
            print(f"{name:40} {row['tokens_per_s']:7.0f} tokens/s, {row['ratio']:.3f} of the ideal (>= 0.97: {mark(row['ratio'] >= 0.97)}); "
                  f"busy {100 * row['busy']:.1f} %, links and sequencer {100 * row['transfer']:.1f} %, "
                  f"no input {100 * row['wait_input']:.1f} %, {row['tokens_per_microbatch']:.1f} tokens a microbatch")
            continue
        wanted = {4: 0.90, 8: 0.85}[row["stages"]]
        print(f"{name:40} {row['seconds']:7.3f} s, strong scaling {row['ratio']:.3f} (>= {wanted:.2f}: {mark(row['ratio'] >= wanted)}; no chunks "
              f"reach more than {row['bound']:.3f}); fitted over fixed 2,048: {row['over_fixed_2048']:.2f} "
              f"(>= 1.05: {mark(row['over_fixed_2048'] >= 1.05)}), over the best fixed, {row['best_fixed_tokens']:,}: {row['over_best_fixed']:.2f}")


def split(rounds):
    """The same work by two stages of one core and by one process of two threads. Nearly all of it is decoding, so a cut that counts each
    layer and the head by its weights is shown beside the automatic one, which is made for prompts four times as long as answers."""
    model = bounds.Model(programs.MODEL)
    head = (model.weights - model.layer_weights) / model.layer_weights * model.layers
    first = round((model.layers + head) / 2)
    by_weights = f"[{{layers: 0-{first - 1}}}, {{layers: {first}-{model.layers - 1}}}]"
    load_mix = "1:16/128"
    print("\nTwo stages of one core against one process of two threads, tokens per second of all requests")
    for requests in (32, 8):
        sides = [Side("cut", lambda: many(by_weights, 1, requests, load_mix)), Side("one", lambda: many(1, 2, requests, load_mix)),
                 Side("auto", lambda: many(2, 1, requests, load_mix)), Side("rates", lambda: programs.machine_rates(2))]
        results = interleave(sides, rounds, f"split, {requests} requests")
        rates = {name: statistics.median(values) for name, values in results["rates"].items()}
        # Each of two microbatches reads all weights for half of the requests; the products are as many.
        read_s = model.weight_bytes / rates["read"] / 1e9
        compute_s = 2 * model.weights * requests / rates["int8"] / 1e9
        bound = max(read_s, compute_s) / max(2 * read_s, compute_s)
        wanted = 0.95 if requests == 32 else 0.95 * bound
        for side, label in (("cut", f"cut at {first}"), ("auto", "cut by itself")):
            print(ratio_row(f"{requests} requests, {label}", results[side]["tokens"], results["one"]["tokens"], wanted)
                  + f"  the machine allows {bound:.2f}", flush=True)


def rpc(rounds):
    sides = [Side("chainpump", lambda: many(2, 1, 8, "1:16/128")), Side("llama.cpp", lambda: programs.llama_rpc_batch(16, 128, 8))]
    results = interleave(sides, rounds, "rpc")
    print("\n8 sequences over two stages of one core, tokens per second; ours with the prompts' time, theirs (2 RPC servers) without")
    print(ratio_row("8 sequences", results["chainpump"]["tokens"], results["llama.cpp"]["tokens"], 5.0))


SERVED = {"requests": 32, "mix": "1:16-96/24-72"}
SLOTS = 16


def serve(rounds):
    """32 requests come together, 16 are served at once, the rest wait: the same lengths on both sides."""
    rounds = min(rounds, 3)
    arrivals = load.make(AT_ONCE, SERVED["requests"], SERVED["mix"], 1, 49152)
    lengths = sum(len(a.prompt) for a in arrivals), sum(a.output_tokens for a in arrivals)

    def ours(stages, threads):
        with graph(stages, threads, max_sequences=SLOTS) as (path, environment), service(path, environment):
            report = bench_serve(path, environment, **SERVED)
        if (report["prompt_tokens"], report["output_tokens"]) != lengths:
            raise NotMeasured("the two loads differ")
        return {"tokens": report["output_tokens_per_second"], "p99_ms": report["inter_token_ms"]["p99"]}
    sides = [Side("one", lambda: ours(1, 2)), Side("two", lambda: ours(2, 1)),
             Side("llama-server", lambda: llama_server.run(arrivals, 2, SLOTS, 256))]
    results = interleave(sides, rounds, "serve")
    theirs = results["llama-server"]
    print(f"\n{SERVED['requests']} requests of {SERVED['mix']} tokens at once, {SLOTS} served together, 2 cores; beside llama-server, 2 threads")
    for side, label in (("one", "one stage of 2 threads"), ("two", "two stages of 1 thread")):
        print(ratio_row(label + ", tokens/s", results[side]["tokens"], theirs["tokens"], 3.5))
        better = statistics.median(results[side]["p99_ms"]) <= statistics.median(theirs["p99_ms"])
        print(f"  {label + ', p99 ms':34} {shown(results[side]['p99_ms']):28} {shown(theirs['p99_ms']):28} (no worse: {mark(better)})")


def sequencer(rounds):
    """The sequencer alone, then what it, the links and the actors take of a real step."""
    print("\nThe sequencer (step <= 20 us + 0.15 us a sequence, 256 <= 60 us; 4,096 to 256 <= 16), and its share of a step")
    for line in programs.call([programs.SEQUENCER]).splitlines():
        print("  " + line)
    for stages, threads in ((1, 2), (2, 1)):
        # So many tokens that the prompts, and that the requests come one after the other, hardly count.
        stage = [many(stages, threads, 16, "1:16/480")["report"]["stages"][0] for _ in range(rounds)]
        share = statistics.median(s["transfer_share"] / (s["transfer_share"] + s["busy_share"]) for s in stage)
        step_ms = statistics.median(s["wall_ms"] * (s["transfer_share"] + s["busy_share"]) / s["steps"] for s in stage)
        print(f"  16 sequences, {stages} stage(s): {100 * share:.2f} % of the first stage's step of {step_ms:.2f} ms (<= 2: {mark(share <= 0.02)})")


PREFIX_TOKENS = 1280
PREFIX_SHARED = 1152  # nine tenths, whole blocks


def prefix(rounds):
    """What the prefix cache costs where nothing is in it, and what it saves."""
    out = programs.call([programs.CORES])
    looks = re.findall(r"look-up +([\d.]+), match and release +([\d.]+), allocate, publish, release +([\d.]+)", out)
    look_ns, publish_ns = max(float(match) for _, match, _ in looks), max(float(publish) for *_, publish in looks)

    def ttft_ms(path, environment, ids):
        command = [programs.PROGRAM, "run", path, "--raw", "--prompt-ids", ",".join(map(str, ids)), "-n", 1, "--temperature", 0, "-o", "json"]
        return json.loads(programs.call(command, env=environment))["ttft_ms"]

    def prompt(number):
        return [(number * 7919 + 104729 * i) % 48000 + 500 for i in range(PREFIX_TOKENS)]
    cold, hit = [], []
    with graph(1, 2) as (path, environment), service(path, environment):
        for number in range(rounds):
            cold.append(ttft_ms(path, environment, prompt(2 * number)))
            changed = prompt(2 * number)[:PREFIX_SHARED] + prompt(2 * number + 1)[PREFIX_SHARED:]
            hit.append(ttft_ms(path, environment, changed))
    token_ns = statistics.median(cold) * 1e6 / PREFIX_TOKENS
    ratio = statistics.median(hit) / statistics.median(cold)
    sides = [Side(str(on), lambda on=on: many(1, 2, 16, "1:256/2", prefix_cache=on)) for on in (True, False)]
    results = interleave(sides, rounds, "prefix")
    print("\nPrefix cache")
    print(f"  look-up {look_ns:.1f} ns per matched token (<= 10: {mark(look_ns <= 10)})")
    print(f"  no hits: {publish_ns:.1f} ns of {token_ns:.0f} ns per prompt token, {100 * publish_ns / token_ns:.4f} % "
          f"(< 0.5 %: {mark(publish_ns < 0.005 * token_ns)})")
    print(ratio_row("no hits, requests with it/without", results["True"]["tokens"], results["False"]["tokens"], 0.995))
    print(f"  nine tenths of {PREFIX_TOKENS} tokens shared: first token after {shown(hit)} ms, cold {shown(cold)} ms, {ratio:.3f} "
          f"(<= 0.15: {mark(ratio <= 0.15)})")


OVERLOAD_S = 60


def overload(rounds):
    """Once: it is long enough by itself."""
    del rounds
    print("\nTen times as many requests as the stages can serve (tests/bench/overload_bench.cc)")
    print(programs.call([programs.OVERLOAD, OVERLOAD_S]), end="")


SECTIONS = {"pipeline": pipeline, "split": split, "rpc": rpc, "serve": serve, "sequencer": sequencer, "prefix": prefix, "overload": overload}
