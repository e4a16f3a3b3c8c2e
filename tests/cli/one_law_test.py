"""The one law: tokens and log-probabilities depend on the request and the model alone.

Each combination of stages, prefill chunk, threads, transport, KV type and sampling runs the same
request and must give the very ids, and `score` the very log-probabilities, of one stage with one
thread in one process and nothing else in the batch. Results are compared within a KV type: that
type is part of the arithmetic.

  one_law_test.py          combinations that together hold every pair of settings; tiny models
  one_law_test.py --all    the whole grid
"""
import argparse
import dataclasses
import itertools
import math
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "oracle"))
import program  # noqa: E402
import tiny_models  # noqa: E402

NEW_TOKENS = 24
WHOLE = 4096  # a chunk longer than any prompt here
GRID = {
    "stages": [1, 2, 3, 5, 30],
    "chunk": [1, 7, 64, WHOLE],
    "threads": [1, 2],
    "transport": ["loopback", "tcp", "shared_memory"],
    "kv": ["f32", "f16", "bf16", "int8"],
    "sampling": ["greedy", "seeded"],
}
SAMPLING = {
    "greedy": ["--temperature", 0],
    "seeded": ["--temperature", 0.9, "--top-p", 0.95, "--seed", 20261122, "--repetition-penalty", 1.1,
               "--presence-penalty", 0.3, "--frequency-penalty", 0.2],
}
TEXT = """A chain of stations passes each piece of work from hand to hand: the first cuts the planks, the second
planes them, the third drills the holes, and the last one joins what it is given into a chair. No station knows
how many others there are, and yet every chair must come out the same, whether one carpenter does it all or
thirty share the work between them. The foreman therefore wrote down one rule, which was:"""


@dataclasses.dataclass(frozen=True)
class Combination:
    stages: int
    chunk: int
    threads: int
    transport: str
    kv: str
    sampling: str

    def flags(self):
        transport = ["--in-process"] if self.transport == "loopback" else ["--transport", self.transport]
        return ["--stages", self.stages, "--prefill-chunk", self.chunk, "--threads", self.threads,
                "--kv-type", self.kv, *transport]

    def __str__(self):
        chunk = "whole" if self.chunk == WHOLE else self.chunk
        return (f"{self.stages:2} stages  chunk {chunk:<5}  {self.threads} threads  {self.transport:13}  "
                f"kv {self.kv:4}  {self.sampling}")


def pairs(combination):
    values = list(enumerate(dataclasses.astuple(combination)))
    return set(itertools.combinations(values, 2))


def pairwise(grid):
    """A subset of `grid` in which every pair of settings that the grid holds occurs; always the same one."""
    missing = set().union(*map(pairs, grid))
    chosen = []
    while missing:
        best = max(grid, key=lambda combination: len(pairs(combination) & missing))
        chosen.append(best)
        missing -= pairs(best)
    return chosen


def first_difference(got, expected):
    """None, or words that name the first index at which two lists differ."""
    for index, (a, b) in enumerate(zip(got, expected)):
        if a != b:
            return f"differ first at index {index}: {a!r}, expected {b!r}"
    return None if len(got) == len(expected) else f"have {len(got)} entries, expected {len(expected)}"


class Law:
    """One model's reference results, and the comparison of a combination with them."""

    def __init__(self, model, prompt):
        self.model = ["--model", model]
        self.prompt = prompt  # flags
        self.references = {}

    def run(self, combination):
        return program.run_json(*self.model, *combination.flags(), *self.prompt, "-n", NEW_TOKENS, "--ignore-eos",
                                *SAMPLING[combination.sampling])

    def reference(self, kv, sampling):
        """(token ids, prompt ids) of one plain stage."""
        if (kv, sampling) not in self.references:
            out = self.run(Combination(1, WHOLE, 1, "loopback", kv, sampling))
            assert len(out["token_ids"]) == NEW_TOKENS, out
            self.references[kv, sampling] = out["token_ids"], out["prompt_token_ids"]
        return self.references[kv, sampling]

    def score_requests(self, kv):
        tokens, prompt = self.reference(kv, "greedy")
        half = len(prompt) // 2
        return [(prompt, tokens), (prompt[:1], prompt[1:half]), (prompt[:half], prompt[half:] + tokens[:3])]

    def score_reference(self, kv):
        """Each request scored alone: a batch must change nothing."""
        if kv not in self.references:
            flags = Combination(1, WHOLE, 1, "loopback", kv, "greedy").flags()
            self.references[kv] = [program.score([request], *self.model, *flags)[0]
                                   for request in self.score_requests(kv)]
        return self.references[kv]

    def differences(self, combination):
        """What of this combination breaks the law, in words."""
        expected, prompt = self.reference(combination.kv, combination.sampling)
        out = self.run(combination)
        found = [("token ids", first_difference(out["token_ids"], expected)),
                 ("settings", unlike_settings(out, combination, len(prompt)))]
        lines = program.score(self.score_requests(combination.kv), *self.model, *combination.flags())
        for number, (got, wanted) in enumerate(zip(lines, self.score_reference(combination.kv), strict=True), 1):
            for key in ("logprobs", "argmax_ids"):
                found.append((f"{key} of line {number}", first_difference(got[key], wanted[key])))
        return [f"{what} {difference}" for what, difference in found if difference]


def unlike_settings(out, combination, prompt_tokens):
    """None, or which setting did not take effect: a grid whose settings are ignored proves nothing."""
    if len(out["stages"]) != combination.stages:
        return f"ask for {combination.stages} stages, there were {len(out['stages'])}"
    steps = math.ceil(prompt_tokens / combination.chunk) + NEW_TOKENS - 1
    for stage in out["stages"]:
        # One more where the step that frees the sequence's blocks comes before the report.
        if stage["steps"] not in (steps, steps + 1):
            return f"ask for {steps} steps, stage {stage['stage']} made {stage['steps']}"
    processes = {stage["pid"] for stage in out["stages"]}
    if len(processes) != (1 if combination.transport == "loopback" else combination.stages):
        return f"ask for {combination.transport}, there were {len(processes)} processes"
    return None


def check(law, name, combinations):
    """Prints each combination that breaks the law; how many do."""
    started = time.monotonic()
    broken = 0
    for combination in combinations:
        try:
            differences = law.differences(combination)
        except AssertionError as error:
            differences = [str(error)]
        if differences:
            broken += 1
            print(f"FAIL {name}  {combination}\n     " + "\n     ".join(differences), flush=True)
    print(f"{'FAIL' if broken else 'ok  '} {name:20} {len(combinations) - broken} of {len(combinations)} combinations, "
          f"{time.monotonic() - started:.1f} s", flush=True)
    return broken


def check_references(law):
    """Settings that must change results do: else the comparisons would hold for a constant."""
    greedy, _ = law.reference("f32", "greedy")
    seeded, _ = law.reference("f32", "seeded")
    assert greedy != seeded, "sampling gave the greedy tokens"
    first = {kv: law.score_reference(kv)[2]["logprobs"] for kv in GRID["kv"]}
    assert len(set(map(tuple, first.values()))) == len(first), "a KV type changes nothing"


def check_tiny(folder):
    """Every weight type and head layout: one stage a layer."""
    broken = 0
    for name, tiny in tiny_models.MODELS.items():
        path = folder / f"{name}.gguf"
        tiny_models.write(path, name, tiny)
        ids = ",".join(str(3 + index * 37 % 250) for index in range(90))
        broken += check(Law(path, ["--prompt-ids", ids]), name, [
            Combination(tiny.layers, 7, 2, "tcp", "bf16", "seeded")])
    return broken


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="the whole grid")
    options = parser.parse_args()
    grid = [Combination(*values) for values in itertools.product(*GRID.values())]
    law = Law(program.model(), ["--raw", "--prompt", TEXT])
    check_references(law)
    broken = check(law, "real model", grid if options.all else pairwise(grid))
    with tempfile.TemporaryDirectory() as folder:
        broken += check_tiny(pathlib.Path(folder))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
