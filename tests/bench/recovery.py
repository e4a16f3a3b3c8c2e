"""What a death costs, and what it costs to be ready for one."""
import json
import pathlib
import statistics
import tempfile
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


def recovery(rounds):
    gaps(rounds)
    cold = [cold_start_s() for _ in range(min(rounds, 5))]
    print(f"  a service from nothing to its first token: {statistics.median(cold):.2f} s ({min(cold):.2f}..{max(cold):.2f})")
    results = interleave([Side("ready", lambda: ready(True)), Side("bare", lambda: ready(False))], max(rounds, 5), "ready for a death")
    print("\nReady for a death, against replay log, checksums and restarts off; tokens per second of 16 requests over two stages")
    print(ratio_row("ready / bare", results["ready"]["tokens"], results["bare"]["tokens"], 0.98))


SECTIONS = {"recovery": recovery}
