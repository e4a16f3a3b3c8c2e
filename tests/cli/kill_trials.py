"""Blows at random instants: `chainpump run` on a tiny model, and then SIGKILL to a rank or to the command
itself, SIGINT or SIGTERM, while the chain starts or while it generates. Each time the command must end at
once, with the right status and one line that says why or none, and leave nothing: no process, no shared
memory, no file.

  kill_trials.py [--trials N] [--seed S]      N trials over each transport; prints the seed, and a line of figures
  kill_trials.py --seed S --only TRANSPORT:I  one of them again
"""
import argparse
import collections
import dataclasses
import os
import pathlib
import random
import re
import secrets
import signal
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "oracle"))
import tiny_models  # noqa: E402
from processes import Run, ranks_of, wait_until  # noqa: E402

TRANSPORTS = ("tcp", "shared_memory")
END_MAX_S = 1.0  # from the blow until the command and all its ranks are gone
START_S = 0.15  # how long after a process appears a blow at the start may come
FLOW_S = 0.3  # ... and after the first text, a blow in full flow
SETTLE_S = 5  # how long leftovers are given to go
NUM_TOKENS = 6000  # takes longer than any blow
LAYERS = 4
SIGNALS = {"interrupt": signal.SIGINT, "terminate": signal.SIGTERM}
BLOWS = ["kill_rank"] * 4 + ["kill_command"] * 2 + ["interrupt", "interrupt", "terminate", "terminate"]


@dataclasses.dataclass(frozen=True)
class Trial:
    transport: str
    index: int
    stages: int
    blow: str
    victim: int  # the rank
    flowing: bool
    delay_s: float

    def __str__(self):
        where = f" of stage {self.victim}" if self.blow == "kill_rank" else ""
        return (f"{self.transport}:{self.index} {self.stages} stages, {self.blow}{where} {self.delay_s * 1000:.1f} ms "
                f"after {'the first text' if self.flowing else 'it began'}")


def draw(seed, transport, index):
    """The same trial for the same three, whatever else runs."""
    rng = random.Random(f"{seed}/{transport}/{index}")
    stages = rng.randint(1, LAYERS)
    flowing = rng.random() < 0.4
    return Trial(transport, index, stages, rng.choice(BLOWS), rng.randrange(stages), flowing,
                 rng.random() * (FLOW_S if flowing else START_S))


def wait_rank(run, stage):
    """The rank's process id as soon as it is there, or None if the command has ended."""
    found = {}

    def there():
        found.update(ranks_of(run.process.pid))
        return stage in found or run.process.poll() is not None
    wait_until(there, f"the rank of stage {stage}")
    return found[stage][0] if stage in found else None


def strike(run, trial):
    """Waits for the instant and deals the blow."""
    if trial.flowing:
        run.wait_text(1, trial.stages)
    target = run.process.pid
    if trial.blow == "kill_rank":
        target = wait_rank(run, trial.victim)
        assert target, "the command ended by itself"
    time.sleep(trial.delay_s)  # the random instant
    assert run.process.poll() is None, "the command ended by itself"
    os.kill(target, SIGNALS.get(trial.blow, signal.SIGKILL))


def wrong_end(trial, status, errors):
    """What is wrong with how the command ended, or nothing."""
    if trial.blow == "kill_command":
        return "" if status == -signal.SIGKILL else f"status {status}"
    if trial.blow == "kill_rank":
        line = rf"chainpump: stage '[^']*{trial.victim}' died: killed by SIGKILL \(Killed\)\n"
        return "" if status == 5 and re.fullmatch(line, errors) else f"status {status}, said {errors!r}"
    number = SIGNALS[trial.blow]
    # Before it has its handlers, a signal ends it as it ends any program.
    return "" if status in (128 + number, -number) and not errors else f"status {status}, said {errors!r}"


def wait_gone(run):
    """Waits until no process of the run is left; the seconds that took."""
    began = time.monotonic()
    wait_until(lambda: not run.processes(), "the end of every process", SETTLE_S)
    return time.monotonic() - began


def hold(trial, model, graph):
    """Runs the trial, whose graph has no rank replaced. The seconds from the blow to the end of all; AssertionError with what is wrong."""
    run = Run(["--model", model, "--prompt", "Tell me a story.", "--raw", "--ignore-eos", "-n", str(NUM_TOKENS),
               "--stages", str(trial.stages), "--transport", trial.transport], graph=graph)
    try:
        strike(run, trial)
        status, errors, seconds = run.wait_end()
        seconds += wait_gone(run)
        wrong = wrong_end(trial, status, errors)
        assert not wrong, f"{wrong} after {seconds:.2f} s"
        assert seconds <= END_MAX_S, f"the end took {seconds:.2f} s"
        run.check_nothing_left()
        return seconds
    finally:
        run.close()


def report(transport, times, blows, failed):
    kinds = ", ".join(f"{count} {blow}" for blow, count in sorted(blows.items()))
    times = sorted(times) or [0.0]
    print(f"{transport}: {sum(blows.values())} trials ({kinds}); all gone after {times[len(times) // 2] * 1000:.0f} ms "
          f"(median), {times[-1] * 1000:.0f} ms (worst); {failed} failed", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    parser.add_argument("--only", metavar="TRANSPORT:I")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    wanted = [(transport, range(given.trials)) for transport in TRANSPORTS]
    if given.only:
        transport, index = given.only.split(":")
        wanted = [(transport, [int(index)])]
    num_failed = 0
    with tempfile.TemporaryDirectory() as folder:
        model = pathlib.Path(folder, "tiny.gguf")
        tiny_models.CONTEXT = 2 * NUM_TOKENS
        tiny_models.write(model, "kill", dataclasses.replace(tiny_models.MODELS["q4_0"], layers=LAYERS))
        graph = pathlib.Path(folder, "graph.yaml")
        graph.write_text("name: trial\nfailover: {restarts: 0}\n")
        for transport, indices in wanted:
            times, blows, failed = [], collections.Counter(), 0
            for index in indices:
                trial = draw(given.seed, transport, index)
                blows[trial.blow] += 1
                try:
                    times.append(hold(trial, model, graph))
                except AssertionError as wrong:
                    failed += 1
                    print(f"FAILED {trial}: {wrong}", flush=True)
            report(transport, times, blows, failed)
            num_failed += failed
    sys.exit(1 if num_failed else 0)


if __name__ == "__main__":
    main()
