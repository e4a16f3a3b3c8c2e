"""Interleaved measurements: both sides take turns in one job, so that a slow minute of the machine
meets both; medians are compared, and their spread is shown beside them."""
import dataclasses
import statistics
import sys


class NotMeasured(Exception):
    """A side could not be run; the message says why."""


@dataclasses.dataclass(frozen=True)
class Side:
    name: str
    run: object  # () -> {metric: value}


def interleave(sides, rounds, label):
    """{side name: {metric: [value of each round]}}; the side that begins alternates."""
    results = {side.name: {} for side in sides}
    for number in range(rounds):
        for side in (sides if number % 2 == 0 else reversed(sides)):
            progress(f"{label}: round {number + 1} of {rounds}, {side.name}")
            for metric, value in side.run().items():
                results[side.name].setdefault(metric, []).append(value)
    progress("")
    return results


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(f"... {text}", file=sys.stderr, flush=True)


def shown(values):
    return f"{statistics.median(values):8.1f} ({min(values):.1f}..{max(values):.1f})"


def ratio_row(label, ours, theirs, wanted=1.0):
    """One line: what, ours, theirs, ratio of medians, and the figure that was asked for."""
    ratio = statistics.median(ours) / statistics.median(theirs)
    mark = "ok" if ratio >= wanted else "below"
    return f"  {label:34} {shown(ours):28} {shown(theirs):28} {ratio:5.2f}  (>= {wanted:.2f}: {mark})"
