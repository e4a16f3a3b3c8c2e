"""Ranks of a service move to other processes, one after the other, the first of the lane among them, while requests run: each ends
with the tokens of a calm run, no stage computes a position again, and no other process ends. What cannot be is said.
"""
import json
import os
import subprocess
import threading
import time
import unittest

import program
from processes import identity, wait_until
from services import MODEL, PATIENCE_S, Case, collect

ASK = [*MODEL, "--raw", "--ignore-eos", "-n", "250", "-o", "json", "--prompt"]
PROMPTS = [("The three primary colours are", []), ("Once upon a time", ["--temperature", "0.9", "--seed", "7"]),
           ("A list of rivers:", ["--temperature", "0.7", "--top-p", "0.9", "--seed", "8"]), ("The sea", ["--repetition-penalty", "1.2"])] * 2


class Gaps:
    """When text of a request came, read as it comes."""

    def __init__(self, process):
        self.process = process
        self.times = []
        self.thread = threading.Thread(target=self.read)
        self.thread.start()

    def read(self):
        while os.read(self.process.stdout.fileno(), 4096):
            self.times.append(time.monotonic())

    def largest(self, begin, end):
        """Of those that lie in this time, or reach into it, in ms."""
        pairs = zip(self.times, self.times[1:])
        return max((1000 * (b - a) for a, b in pairs if b > begin and a < end), default=0)


class Drain(Case):
    def graph(self, *names, more=""):
        self.names = names
        stages = ", ".join(f"{{name: {name}{more if name == 'back' else ''}}}" for name in names)
        path = self.folder.parent / f"{self.folder.name}-drain.yaml"
        path.write_text(f"name: demo\nthreads: 1\nkv: {{context: 512}}\nstages: [{stages}]\n")
        self.addCleanup(path.unlink)
        return str(path)

    def stages(self, service):
        """The process of each stage, and how many positions it has computed again."""
        found = wait_until(lambda: service.status()["stages"], "word of the stages")
        return {self.names[stage["stage"]]: (stage["pid"], stage["tokens_again"]) for stage in found}

    def drain(self, service, rank):
        done = service.call(["drain", rank])
        self.assertEqual((done.returncode, done.stdout), (0, b""), done.stderr)

    def test_each_rank_under_load(self):
        graph = self.graph("front", "middle", "back")
        runs = [[program.program(), "run", graph, "--service", "none", "--stages", "1", *ASK, prompt, *more]
                for prompt, more in PROMPTS[:4]]
        calm = [json.loads(subprocess.run(run, capture_output=True, check=True).stdout)["token_ids"] for run in runs] * 2
        service = self.serve(graph=graph)
        service.wait_ready()
        running = [service.start("run", graph, *ASK, prompt, *more) for prompt, more in PROMPTS]
        all_said = collect(running)
        shown = service.start("run", graph, *MODEL, "--raw", "--ignore-eos", "-n", "400", "--prompt", "Once")
        self.addCleanup(shown.stderr.close)
        self.addCleanup(shown.stdout.close)
        gaps = Gaps(shown)
        wait_until(lambda: service.status()["sequences"] == len(running) + 1, "all requests under way")
        calm_from = time.monotonic()
        time.sleep(0.5)  # of which the gaps are compared
        told = []
        before = self.stages(service)
        for name, rank in (("middle", "middle"), ("back", 2), ("front", 0)):
            begin = time.monotonic()
            self.drain(service, rank)
            told.append((name, begin, time.monotonic()))
            after = self.stages(service)
            self.assertEqual([stage for stage in after if after[stage][0] != before[stage][0]], [name])
            wait_until(lambda: identity(before[name][0]) is None, "the end of the process that it was", 5)
            before = after
        self.assertTrue(any(each.poll() is None for each in running), "there was no load any more")
        said = all_said()
        self.assertEqual(shown.wait(PATIENCE_S), 0)
        gaps.thread.join()
        print(f"largest gap in the calm {gaps.largest(calm_from, told[0][1]):.0f} ms;",
              ", ".join(f"while {name} moved {gaps.largest(begin, end):.0f} ms of {1000 * (end - begin):.0f}" for name, begin, end in told))
        for each, (out, errors), tokens in zip(running, said, calm):
            self.assertEqual(each.returncode, 0, errors)
            self.assertEqual(json.loads(out)["token_ids"], tokens)
        last = self.stages(service)
        status, errors = service.end()
        self.assertEqual(status, 0)
        self.assertNotIn("is being repaired", errors)  # on a machine that is far too busy, too
        self.assertEqual({name: again for name, (_, again) in last.items()}, {"front": 0, "middle": 0, "back": 0})

    def test_to_a_standby_and_with_nothing_to_do(self):
        service = self.serve(graph=self.graph("front", "back", more=", standbys: 1"))
        service.wait_ready()
        for rank in ("back", "front", "front"):
            before = self.stages(service)
            # What has made room takes a moment to be there again.
            wait_until(lambda: service.call(["drain", rank]).returncode == 0, f"the move of {rank}")
            self.assertNotEqual(self.stages(service)[rank], before[rank])
        self.assertEqual(service.call(["run", "demo", *MODEL, "--prompt", "Hi", "-n", "4"]).returncode, 0)
        self.assertEqual(service.end()[0], 0)

    def test_what_cannot_be_is_said(self):
        none = subprocess.run([program.program(), "drain", "0"], capture_output=True, env=dict(CHAINPUMP_RUN_DIR=str(self.folder)))
        self.assertEqual(none.returncode, 3, none.stderr)
        service = self.serve(graph=self.graph("front", "back"))
        service.wait_ready()
        for rank, status, text in (("2", 3, b"there is no rank 2: they are 0 to 1"), ("frond", 3, b"did you mean 'front'?"),
                                   ("-1", 3, b"there is no stage")):
            done = service.call(["drain", rank])
            self.assertEqual(done.returncode, status, done.stderr)
            self.assertIn(text, done.stderr)
        self.assertEqual(service.end()[0], 0)


if __name__ == "__main__":
    unittest.main()
