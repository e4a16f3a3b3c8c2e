"""What a death costs, what it costs to be ready for one, and what a planned change does."""
import json
import os
import pathlib
import signal
import statistics
import subprocess
import tempfile
import threading
import time

import engine
import programs
from measure import Side, interleave, ratio_row

KILLS = 40
POSITIONS = 64  # of the longest request: what the figure is about
STANDBYS = "[{standbys: 1}, {standbys: 1}, {standbys: 1}]"
NOTICE_S, REPAIR_S, REBUILD = 0.3, 0.25, 1.3  # what a gap may take: notice + repair + rebuild * positions / prefill rate


def chaos(stages, positions, seed):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "graph.yaml"
        path.write_text(f"version: 1\nname: recovery\nmodel: {programs.MODEL.resolve()}\nstages: {stages}\nthreads: 1\nkv: {{context: 1024}}\n"
                        "failover: {restarts: 1000}\n", encoding="utf-8")
        command = [programs.PROGRAM, "chaos", path, "--kills", KILLS, "--seed", seed, "--positions", positions, "-o", "json"]
        return json.loads(programs.call(command, programs.LONG_LIMIT_S))


def gaps(rounds):
    rate = statistics.median(programs.ours(1, 1)["prefill"] for _ in range(min(rounds, 3)))
    print(f"\nGaps between tokens across a kill of a random rank, {KILLS} kills each, three stages of one thread on two cores (chainpump chaos)")
    for label, stages in (("a standby each", STANDBYS), ("no standby", "[{}, {}, {}]")):
        for positions in (POSITIONS, 700):
            report = chaos(stages, positions, 1)
            wrong = {key: report[key] for key in ("lost", "duplicated", "differing", "failed")}
            # Of three stages one is rebuilt, at three times the rate of all of them.
            within = [fault["gap_ms"] / 1e3 <= NOTICE_S + REPAIR_S + REBUILD * fault["positions"] / (3 * rate)
                      for fault in report["each"] if not fault["in_recovery"] and fault["gap_ms"]]
            bound = f"; p99 <= 1 s: {engine.mark(report['gap_p99_ms'] <= 1000)}" if positions == POSITIONS and stages == STANDBYS else ""
            print(f"  {label + f', requests of up to {positions}':44} p50 {report['gap_p50_ms']:5.0f} ms, p99 {report['gap_p99_ms']:5.0f} ms{bound}; "
                  f"{sum(within)} of {len(within)} within {NOTICE_S} + {REPAIR_S} s + {REBUILD} x rebuilding; "
                  + ("every token right" if not any(wrong.values()) else f"WRONG: {wrong}"), flush=True)


def cold_start_s():
    """From nothing to the first token of a prompt."""
    began = time.monotonic()
    with engine.graph("[{}, {}, {}]", 1) as (path, environment), engine.service(path, environment):
        programs.call([programs.PROGRAM, "run", path, "--raw", "--prompt", "The sea", "-n", 1], env=environment)
        return time.monotonic() - began


def ready(on):
    """Tokens per second of 16 requests over two stages, with or without what a repair needs: replay log, checksums, hangs looked for."""
    extra = "" if on else "failover: {restarts: 0}\nreplay_log: 0\nlinks: {checksum: off}\n"
    with engine.graph(2, 1) as (path, environment):
        path.write_text(path.read_text(encoding="utf-8") + extra, encoding="utf-8")
        return {"tokens": engine.bench_serve(path, environment, 16, "1:64/128")["output_tokens_per_second"]}


class Streams:
    """Two requests, one for each of two lanes, and when text of each came."""

    def __init__(self, path, environment):
        command = [programs.PROGRAM, "run", path, "--raw", "--ignore-eos", "-n", 900, "--prompt"]
        self.runs = [subprocess.Popen([str(word) for word in [*command, prompt]], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
                     for prompt in ("The sea", "A list of rivers:")]
        self.times = [[], []]
        self.threads = [threading.Thread(target=self.read, args=(i,)) for i in range(2)]
        for thread in self.threads:
            thread.start()

    def read(self, i):
        while os.read(self.runs[i].stdout.fileno(), 4096):
            self.times[i].append(time.monotonic())

    def between(self, i, begin, end):
        """Times between two tokens, ms, of those that came in this time."""
        return [1e3 * (b - a) for a, b in zip(self.times[i], self.times[i][1:]) if begin <= a and b <= end]

    def end(self):
        for run in self.runs:
            run.terminate()
            run.wait(programs.RUN_LIMIT_S)
        for thread in self.threads:
            thread.join()
        for run in self.runs:
            run.stdout.close()


UNTOUCHED_KILLS = 30
WATCHED_S = 1  # before and after each kill


def untouched():
    """What a lane notices of the death, the repair and the recomputation of another one: its rank has a core of its own."""
    calm, after = [], []
    with engine.graph("[{replicas: 2}]", 1) as (path, environment):
        path.write_text(path.read_text(encoding="utf-8") + "failover: {restarts: 1000}\n", encoding="utf-8")
        with engine.service(path, environment):
            for _ in range(UNTOUCHED_KILLS):
                streams = Streams(path, environment)
                try:
                    time.sleep(WATCHED_S + 0.3)  # the first tokens
                    status = json.loads(programs.call([programs.PROGRAM, "status", "bench", "-o", "json"], env=environment))
                    ranks = status["services"][0]["stages"]
                    kill = time.monotonic()
                    os.kill(ranks[0]["pid"], signal.SIGKILL)
                    time.sleep(WATCHED_S)
                finally:
                    streams.end()
                widest = [max(streams.between(i, kill - 0.1, kill + WATCHED_S), default=1e9) for i in range(2)]
                other = widest.index(min(widest))
                calm += streams.between(other, kill - WATCHED_S, kill)
                after += streams.between(other, kill, kill + WATCHED_S)
    p99 = [statistics.quantiles(times, n=100)[98] for times in (calm, after)]
    print(f"  between two tokens of a request on the other of two lanes, p99 of the second after each of {UNTOUCHED_KILLS} kills: {p99[1]:.2f} ms, "
          f"of the second before {p99[0]:.2f} ms ({statistics.median(after):.2f} and {statistics.median(calm):.2f} at the median); "
          f"{p99[1] / p99[0]:.2f} (<= 1.1: {engine.mark(p99[1] <= 1.1 * p99[0])})", flush=True)


def recovery(rounds):
    gaps(rounds)
    untouched()
    cold = [cold_start_s() for _ in range(min(rounds, 5))]
    print(f"  a service from nothing to its first token: {statistics.median(cold):.2f} s ({min(cold):.2f}..{max(cold):.2f})")
    results = interleave([Side("ready", lambda: ready(True)), Side("bare", lambda: ready(False))], max(rounds, 5), "ready for a death")
    print("\nReady for a death, against replay log, checksums and restarts off; tokens per second of 16 requests over two stages")
    print(ratio_row("ready / bare", results["ready"]["tokens"], results["bare"]["tokens"], 0.98))


class Reader:
    """When text of a request came."""

    def __init__(self, command, environment):
        self.process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
        self.times = []
        self.thread = threading.Thread(target=self.read)
        self.thread.start()

    def read(self):
        while os.read(self.process.stdout.fileno(), 4096):
            self.times.append(time.monotonic())

    def gaps(self, begin, end):
        return [1e3 * (b - a) for a, b in zip(self.times, self.times[1:]) if b > begin and a < end]

    def end(self):
        self.process.kill()
        self.thread.join()
        self.process.wait()
        self.process.stdout.close()


CHANGES = {  # there and back
    "a new cut": ("[{layers: 0-14}, {layers: 15-29}]", "[{layers: 0-19}, {layers: 20-29}]"),
    "one stage more": ("[{layers: 0-14}, {layers: 15-29}]", "[{layers: 0-9}, {layers: 10-19}, {layers: 20-29}]"),
    "one replica more": ("[{}, {}]", "[{}, {replicas: 2}]"),
}


def change(rounds):
    """Gaps between two tokens of eight requests, in the calm and while the service changes to another graph and back."""
    print("\nGaps between tokens while a service changes, eight requests under way, stages of one thread on two cores (chainpump apply)")
    for name, graphs in CHANGES.items():
        with engine.graph(graphs[0], 1) as (path, environment), engine.service(path, environment):
            text = path.read_text(encoding="utf-8")
            command = [programs.PROGRAM, "run", path, "--raw", "--ignore-eos", "-n", 4000, "--prompt"]
            readers = [Reader([*command, f"Chapter {i}."], environment) for i in range(8)]
            calm, during, took = [], [], []
            for turn in range(2 * max(rounds, 4)):
                calm_from = time.monotonic()
                time.sleep(1)
                path.write_text(text.replace(graphs[0], graphs[1 - turn % 2]), encoding="utf-8")
                begin = time.monotonic()
                programs.call([programs.PROGRAM, "apply", path], env=environment)
                took.append(time.monotonic() - begin)
                for reader in readers:
                    calm += reader.gaps(calm_from, begin)
                    during += reader.gaps(begin, begin + took[-1])
            for reader in readers:
                reader.end()
            p99 = [statistics.quantiles(gaps, n=100)[98] for gaps in (calm, during)]
            print(f"  {name:18} p99 {p99[0]:4.0f} ms in the calm, {p99[1]:4.0f} ms during {len(took)} changes of {statistics.median(took):.2f} s: "
                  f"x{p99[1] / p99[0]:.1f} (<= 2: {engine.mark(p99[1] <= 2 * p99[0])}); largest {max(during):.0f} ms", flush=True)


SECTIONS = {"recovery": recovery, "change": change}
