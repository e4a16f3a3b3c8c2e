"""Figures of this tree side by side with its peers on this machine: medians of interleaved runs, both
sides in one job, the same model file, the same number of threads. Prints; never judges a build.

  bench.py [--rounds N] [decode] [types] [batch] [perplexity] [pair] [hop] [link] [cores] [tokenizer] [context] [kernels]
           [pipeline] [split] [rpc] [serve] [sequencer] [prefix] [overload] [recovery] [change]

No section named: all. The second line is the engine's (engine.py), with what deaths and changes cost (recovery.py).
"""
import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import gguf

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "oracle"))
import bounds  # noqa: E402
import engine  # noqa: E402
import other_types  # noqa: E402
import programs  # noqa: E402
import recovery  # noqa: E402
import tokenizer_peers  # noqa: E402
import tokenizer_texts  # noqa: E402
from measure import NotMeasured, Side, interleave, ratio_row  # noqa: E402


THREADS = (1, 2)


def machine():
    model = next((line.split(":")[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), "unknown CPU")
    flags = pathlib.Path("/proc/cpuinfo").read_text()
    wanted = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16") if flag in flags]
    load = pathlib.Path("/proc/loadavg").read_text().split()[0]
    commit = subprocess.run(["git", "describe", "--always", "--dirty", "--exclude=*"], cwd=programs.ROOT,
                            capture_output=True, text=True).stdout.strip() or "unknown"
    cores = len(os.sched_getaffinity(0))
    return [f"machine   {cores} cores of {model} ({' '.join(wanted)}), load {load}",
            f"commit    {commit}; {programs.call([programs.PROGRAM, '--version']).strip()}",
            f"model     {programs.MODEL.resolve().name}"]


def header(title, theirs):
    print(f"\n{title}\n  {'':34} {'chainpump median (spread)':28} {theirs + ' median (spread)':28} ratio")


def decode(rounds):
    header("One process, tokens per second", "llama.cpp")
    for threads in THREADS:
        sides = [Side("chainpump", lambda: programs.ours(1, threads)), Side("llama.cpp", lambda: programs.llama(threads))]
        results = interleave(sides, rounds, f"{threads} thread(s)")
        for metric, label in (("decode", "decode"), ("prefill", f"prefill {programs.PREFILL_TOKENS}")):
            print(ratio_row(f"{label}, {threads} thread(s)", results["chainpump"][metric], results["llama.cpp"][metric]))


# Ratios that decode and prefill should reach, with 1 thread and with 2.
TYPE_GOALS = {"Q4_1": ((2.8, 2.0), (7.0, 6.5)), "Q4_0": ((1.4, 1.25), (2.3, 2.2)), "Q4_K_M": ((2.0, 1.5), (3.0, 3.0)),
              "Q8_0": ((1.3, 1.15), (3.0, 3.0)), "BF16": ((1.0, 1.0), (1.2, 1.2))}
READ_SHARE = 0.90  # of the machine's bandwidth: a decode that reaches it has reached its goal, too


def other_type(name):
    try:
        return programs.MODEL if name == "Q4_1" else other_types.path_of(programs.PROGRAM, programs.MODEL, name)
    except other_types.NotMade as error:
        raise NotMeasured(str(error)) from error


def types(rounds):
    header("Weight types, one process, tokens per second", "llama.cpp")
    for name, (decode_goals, prefill_goals) in TYPE_GOALS.items():
        model = other_type(name)
        step_bytes = bounds.Model(model).weight_bytes
        for threads in THREADS:
            sides = [Side("chainpump", lambda: programs.ours(1, threads, model=model)),
                     Side("read", lambda: programs.machine_rates(threads)),
                     Side("llama.cpp", lambda: programs.llama(threads, model=model))]
            results = interleave(sides, rounds, f"{name}, {threads} thread(s)")
            ours, theirs = results["chainpump"], results["llama.cpp"]
            read = statistics.median(results["read"]["read"])
            bound = READ_SHARE * read * 1e9 / step_bytes
            goal = min(decode_goals[threads - 1], bound / statistics.median(theirs["decode"]))
            print(ratio_row(f"{name} decode, {threads} thread(s)", ours["decode"], theirs["decode"], goal) +
                  f"  read {read:.1f} GB/s, {READ_SHARE:.2f} of it: {bound:.0f}")
            print(ratio_row(f"{name} prefill {programs.PREFILL_TOKENS}, {threads} thread(s)", ours["prefill"], theirs["prefill"],
                            prefill_goals[threads - 1]))


def batch(rounds):
    """16 sequences decoded at once. Ours is the executor alone: no command runs several requests yet."""
    header("16 sequences at once, 2 threads, tokens per second of all", "llama-batched-bench")
    shape = dict(threads=2, prefill=8, decode=64, sequences=16)
    sides = [Side("chainpump", lambda: programs.executor(**shape)), Side("llama.cpp", lambda: programs.llama_batch(**shape))]
    results = interleave(sides, rounds, "batch")
    print(ratio_row("decode", results["chainpump"]["decode"], results["llama.cpp"]["decode"], 4.5))


PERPLEXITY_CONTEXT = 512
PERPLEXITY_TYPES = ("Q4_1", "Q4_0", "Q5_0", "Q5_1", "Q4_K_M", "Q6_K", "Q8_0", "BF16")
PERPLEXITY_PROSE = 24000  # characters; of the oracle's texts alone the difference has a standard error of 0.3 %


def perplexity_text():
    """The oracle's texts, then the language's manual."""
    from pydoc_data.topics import topics
    texts = [path.read_text(encoding="utf-8") for path in sorted((programs.ROOT / "tests/oracle/texts").glob("*.txt"))]
    return "".join(texts) + "\n".join(topics.values())[:PERPLEXITY_PROSE]


def perplexity(rounds):
    """Of a fixed text, with the same file on both sides; not a measurement of time, so once."""
    del rounds
    text = perplexity_text()
    ids = tokenizer_peers.hf_encoder(tokenizer_peers.read_vocabulary(programs.MODEL))(text)
    half = PERPLEXITY_CONTEXT // 2
    pieces = [ids[start:start + PERPLEXITY_CONTEXT] for start in range(0, len(ids) - PERPLEXITY_CONTEXT + 1, PERPLEXITY_CONTEXT)]
    print(f"\nPerplexity of a fixed text of {len(ids)} tokens, same file (within 0.5 %)")
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        for name in PERPLEXITY_TYPES:
            model = other_type(name)
            ours = programs.perplexity(model, pieces, half)
            theirs = programs.llama_perplexity(model, file.name, PERPLEXITY_CONTEXT)
            off = 100 * (ours / theirs - 1)
            print(f"  {name:8} chainpump {ours:9.4f}  llama.cpp {theirs:9.4f}  {off:+.3f} %  ({'ok' if abs(off) <= 0.5 else 'above'})",
                  flush=True)


def pair(rounds):
    header("Two stage processes of one core each, tokens per second", "2 RPC servers")
    results = interleave([Side("chainpump", lambda: programs.ours(2, 1)), Side("llama.cpp", programs.llama_rpc_pair)], rounds, "pair")
    print(ratio_row("decode, one request", results["chainpump"]["decode"], results["llama.cpp"]["decode"]))
    print(ratio_row(f"prefill {programs.PREFILL_TOKENS}", results["chainpump"]["prefill"], results["llama.cpp"]["prefill"]))


def hop(rounds):
    """A token through two stages crosses one link and returns by another; what that adds to its time."""
    payload = 4 * gguf.GGUFReader(programs.MODEL).fields["llama.embedding_length"].contents()
    sides = [Side("one", lambda: programs.ours(1, 1, prefill=0)),
             Side("sleep", lambda: programs.ours(2, 1, "--spin", "never", prefill=0)),
             Side("spin", lambda: programs.ours(2, 1, "--spin", "always", prefill=0)),
             Side("ucx sleep", lambda: {"us": programs.ucx_latency_us(payload, "sleep")}),
             Side("ucx poll", lambda: {"us": programs.ucx_latency_us(payload, "poll")})]
    results = interleave(sides, rounds, "hop")
    one = results["one"]["token_ms"]
    print("\nAdded time per hop: two stages against one, one thread each; a token crosses two links, the hop and the way back")
    print(f"  one stage: {statistics.median(one):.3f} ms per token; activations of {payload} bytes")
    for name, peer, allowed in (("sleep", "ucx sleep", 80), ("spin", "ucx poll", 15)):
        two = results[name]["token_ms"]
        latency = statistics.median(results[peer]["us"])
        # Within a round, so that what the machine does in the meantime falls on both.
        added = statistics.median(1e3 * (with_hop - without) for with_hop, without in zip(two, one))
        print(f"  two stages, {name:5}: {statistics.median(two):.3f} ms, added {added:4.0f} us, {added / 2:4.0f} us a crossing; "
              f"ucx_perftest one way {latency:5.1f} us  (<= {latency + allowed:.0f}: {'ok' if added / 2 <= latency + allowed else 'above'})")


def link(rounds):
    del rounds  # the command interleaves by itself
    print("\nLink against ucx_perftest (chainpump bench link)")
    for line in programs.call([programs.PROGRAM, "bench", "link"]).splitlines():
        print("  " + line)


def cores(rounds):
    del rounds  # the program takes medians by itself
    print("\nThe scheduler's parts on their own (prefix look-up: at most 10 ns per matched token)")
    for line in programs.call([programs.CORES]).splitlines():
        print("  " + line)


def tokenizer(rounds):
    """Encoding on one thread: the same vocabulary and merges on all sides, texts of about 2 MiB each."""
    with tempfile.TemporaryDirectory() as folder:
        texts = tokenizer_texts.make(folder)
        sides = [Side("chainpump", lambda: programs.tokenizer_rates(texts)),
                 Side("tiktoken", lambda: programs.tokenizer_peer_rates("tiktoken", texts)),
                 Side("tokenizers", lambda: programs.tokenizer_peer_rates("tokenizers", texts))]
        results = interleave(sides, rounds, "tokenizer")
    ours = results["chainpump"]
    for peer, wanted in (("tiktoken", 1.0), ("tokenizers", 10.0)):
        header("Encoding text on one thread, MB per second", peer)
        for kind in texts:
            if ours[kind + " tokens"] != results[peer][kind + " tokens"]:
                raise NotMeasured(f"{kind}: {ours[kind + ' tokens'][0]} tokens here, {results[peer][kind + ' tokens'][0]} with {peer}")
            print(ratio_row(f"encode {kind}", ours[kind], results[peer][kind], wanted))
    print("  alone: " + ", ".join(f"decode {kind} {statistics.median(ours[kind + ' decode']):.0f} MB/s" for kind in texts)
          + f"; load {statistics.median(ours['load_ms']):.1f} ms")


def kept(figures, metric):
    """What of the rate after a short context is left after a long one."""
    short, long = (statistics.median(figures[f"{metric} {length}"]) for length in programs.CONTEXTS[metric])
    return long / short


def context(rounds):
    """What a long context costs: rates at 512 and 8,000 tokens of prompt, and of decoding after 128 and 8,000; beside what
    the machine allows a model of this size: the cache's bytes and the attention's products grow with the context."""
    rounds = min(rounds, 3)  # a long prompt takes a minute a side
    model = bounds.Model(programs.MODEL)
    for threads in THREADS:
        sides = [Side(kv, lambda kv=kv: programs.ours_in_context(threads, kv)) for kv in programs.KV_TYPES]
        sides.append(Side("rates", lambda: programs.machine_rates(threads)))
        sides.append(Side("llama.cpp", lambda: programs.llama_in_context(threads)))
        results = interleave(sides, rounds, f"context, {threads} thread(s)")
        rates = {name: statistics.median(values) for name, values in results["rates"].items()}
        header(f"Long contexts, tokens per second, {threads} thread(s); theirs with its f16 cache", "llama.cpp")
        for kv in programs.KV_TYPES:
            for metric, wanted in (("prefill", 0.5), ("decode", 0.8)):
                for length in programs.CONTEXTS[metric]:
                    print(ratio_row(f"kv {kv}: {metric} at {length}", results[kv][f"{metric} {length}"],
                                    results["llama.cpp"][f"{metric} {length}"]))
                short, long = (model.seconds(metric, kv, length, rates) for length in programs.CONTEXTS[metric])
                ours, bound = kept(results[kv], metric), short / long
                print(f"  kv {kv}: {metric} kept at {programs.CONTEXTS[metric][1]}: {ours:.2f} (wanted {wanted:.1f}; the machine allows "
                      f"{bound:.2f}: {ours / bound:.2f} of it); theirs {kept(results['llama.cpp'], metric):.2f}", flush=True)


KERNEL_TYPES = ("q4_1", "q4_0", "q8_0", "q4_k", "bf16", "f32")
TORCH_TYPES = ("bf16", "f32")


def peers_of(products, threads):
    """[(name, Gop/s of each product, None where that peer has none)]; each program repeats by itself."""
    found = []
    if threads == programs.LLAMA_PRODUCT_THREADS:
        found.append(("llama.cpp", programs.llama_products(products)))
    theirs = programs.torch_products(threads, [product for product in products if product[0] in TORCH_TYPES])
    if theirs:
        figures = iter(theirs)
        found.append(("torch", [next(figures) if product[0] in TORCH_TYPES else None for product in products]))
    return [(name, figures) for name, figures in found if figures]


def kernels(rounds):
    """Products beside llama.cpp's own bench of operations, where it runs with as many threads, and PyTorch's, which has none of
    quantised weights."""
    del rounds
    for threads in THREADS:
        rows = [row for row in programs.kernel_rows(threads, KERNEL_TYPES) if " x " in row["shape"] and row["tokens"] in (1, 512)]
        products = [[row["type"], *map(int, row["shape"].split(" x ")), row["tokens"]] for row in rows]
        peers = peers_of(products, threads)
        print(f"\nProducts, {threads} thread(s), Gop/s; achieved of the bound, and the peers'")
        for i, (row, (kind, height, width, tokens)) in enumerate(zip(rows, products)):
            ours = row["gops"]
            theirs = "  ".join(f"{name} {figures[i]:7.1f} {ours / figures[i]:5.2f}" for name, figures in peers if figures[i])
            print(f"  {row['model']:24} {row['operation']:9} {kind:4} {height:>6} x {width:<6} {tokens:>4} tokens {ours:7.1f} "
                  f"({row['ratio']:.2f} of the bound)  {theirs or 'no peer here'}", flush=True)


SECTIONS = {"decode": decode, "types": types, "batch": batch, "perplexity": perplexity, "pair": pair, "hop": hop, "link": link,
            "cores": cores, "tokenizer": tokenizer, "context": context, "kernels": kernels} | engine.SECTIONS | recovery.SECTIONS


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("sections", nargs="*", metavar="|".join(SECTIONS))
    options = parser.parse_args()
    unknown = set(options.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    try:
        print("\n".join(machine()))
        print(f"peer      llama.cpp built natively ({' '.join(programs.llama_features())})")
    except (NotMeasured, OSError) as error:
        sys.exit(f"cannot measure: {error}")
    failed = 0
    for name in options.sections or SECTIONS:
        try:
            SECTIONS[name](options.rounds)
        except NotMeasured as error:
            failed += 1
            print(f"\n{name}: not measured: {error}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
