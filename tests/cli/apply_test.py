"""A service is changed to other graphs while requests run: limits, cuts, threads, more replicas and fewer. Each request ends with
the tokens of a calm run, and where no lane goes nothing is computed again. What cannot be is said, and what fails leaves all as it was.
"""
import json
import os
import signal
import subprocess
import threading
import time
import unittest

import program
from processes import identity, ranks_of, wait_until
from services import MODEL, PATIENCE_S, Case, children, read_some

ASK = [*MODEL, "--raw", "--ignore-eos", "-o", "json"]
PROMPTS = [("The three primary colours are", []), ("Once upon a time", ["--temperature", "0.9", "--seed", "7"]),
           ("A list of rivers:", ["--temperature", "0.7", "--top-p", "0.9", "--seed", "8"]), ("The sea", ["--repetition-penalty", "1.2"])]
HEAD = "name: demo\nthreads: 1\nkv: {context: 640, blocks: 400}\nbatching: {max_sequences: 24}\n"
FRONT_BACK = HEAD + "stages: [{name: front, layers: 0-14}, {name: back, layers: 15-29}]\n"


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0


class Load:
    """Requests under way: some whose tokens are compared, one whose text is read as it comes."""

    def __init__(self, case, service, graph, num_tokens, copies=2):
        asks = [[*ASK, "-n", str(num_tokens), "--prompt", prompt, *more] for prompt, more in PROMPTS]
        runs = [[program.program(), "run", graph, "--service", "none", *ask] for ask in asks]
        calm = [json.loads(subprocess.run(run, capture_output=True, check=True).stdout)["token_ids"] for run in runs]
        self.case, self.calm = case, calm * copies
        self.running = [service.start("run", graph, *ask) for ask in asks * copies]
        self.shown = service.start("run", graph, *MODEL, "--raw", "--ignore-eos", "-n", str(num_tokens + 60), "--prompt", "Once")
        self.outputs = [None] * len(self.running)
        self.times = []
        self.threads = [threading.Thread(target=self.collect, args=(i,)) for i in range(len(self.running))]
        self.threads.append(threading.Thread(target=self.read))
        for thread in self.threads:
            thread.start()
        for stream in (self.shown.stdout, self.shown.stderr):
            case.addCleanup(stream.close)
        wait_until(lambda: service.status()["sequences"] == len(self.running) + 1, "all requests under way")

    def collect(self, i):
        self.outputs[i] = self.running[i].communicate(timeout=PATIENCE_S)

    def read(self):
        while os.read(self.shown.stdout.fileno(), 4096):
            self.times.append(time.monotonic())

    def gaps(self, begin, end):
        return [1000 * (b - a) for a, b in zip(self.times, self.times[1:]) if b > begin and a < end]

    def is_on(self):
        return all(each.poll() is None for each in self.running)

    def finish(self):
        for thread in self.threads:
            thread.join()
        self.case.assertEqual(self.shown.wait(PATIENCE_S), 0)
        for each, (out, errors), tokens in zip(self.running, self.outputs, self.calm):
            self.case.assertEqual(each.returncode, 0, errors)
            self.case.assertEqual(json.loads(out)["token_ids"], tokens)


class Apply(Case):
    def begin(self, text):
        self.path = self.folder.parent / f"{self.folder.name}-apply.yaml"
        self.write(text)
        self.addCleanup(self.path.unlink)
        self.service = self.serve(graph=str(self.path))
        self.service.wait_ready()
        return self.service

    def write(self, text):
        self.path.write_text(text)

    def apply(self, text=None, status=0):
        if text is not None:
            self.write(text)
        done = self.service.call(["apply", self.path])
        self.assertEqual((done.returncode, done.stdout), (status, b""), done.stderr)
        return done.stderr.decode()

    def diff(self, text, status=0):
        self.write(text)
        done = self.service.call(["diff", self.path, "-o", "json"])
        self.assertEqual(done.returncode, status, done.stderr)
        return json.loads(done.stdout)

    def stages(self):
        return wait_until(lambda: self.service.status()["stages"], "word of the stages")

    def pids(self):
        return [stage["pid"] for stage in self.stages()]

    def ranks(self):
        return ranks_of(self.service.agent)

    def wait_count(self, count):
        wait_until(lambda: len(self.ranks()) == count, f"{count} ranks", 10)

    def again(self):
        return sum(stage["tokens_again"] for stage in self.stages())

    def test_changes_under_load(self):
        service = self.begin(FRONT_BACK)
        load = Load(self, service, str(self.path), 420)
        calm_from = time.monotonic()
        time.sleep(0.7)  # of which the gaps are compared
        before = self.pids()
        changes = [
            ("limits in place", FRONT_BACK + "failover: {window: 30s, slow: evict}\n", 2, True),
            ("a new cut", FRONT_BACK.replace("0-14", "0-19").replace("15-29", "20-29"), 2, False),
            ("a third stage", HEAD + "stages: [{name: front, layers: 0-9}, {name: middle, layers: 10-19}, {name: back, layers: 20-29}]\n", 3, False),
            ("one stage", HEAD + "stages: [{name: all}]\nreplay_log: 1MiB\n", 1, False),
        ]
        told = []
        for name, text, count, in_place in changes:
            found = self.diff(text)
            self.assertTrue(found["possible"], found)
            self.assertEqual((found["in_place"], len(found["ranks"])), (in_place, 0 if in_place else count), found)
            begin = time.monotonic()
            errors = self.apply()
            told.append((name, begin, time.monotonic()))
            self.assertIn("in place" if in_place else f"{count} new ranks", errors)
            after = self.pids()
            self.assertEqual(len(after), count)
            self.assertEqual(set(after) & set(before), set(before) if in_place else set(), name)
            self.wait_count(count)
            self.assertEqual(self.again(), 0, name)
            before = after
        self.assertTrue(load.is_on(), "there was no load any more")
        load.finish()
        calm = load.gaps(calm_from, told[0][1])
        during = [gap for _, begin, end in told for gap in load.gaps(begin, end)]
        print(f"gaps: p99 {percentile(calm, 0.99):.0f} ms in the calm, {percentile(during, 0.99):.0f} ms while it changed; the largest:",
              ", ".join(f"{name} {max(load.gaps(begin, end), default=0):.0f} ms of {1000 * (end - begin):.0f}" for name, begin, end in told))
        self.assertEqual(self.again(), 0)
        self.assertEqual(service.call(["run", self.path, *MODEL, "--prompt", "Hi", "-n", "4"]).returncode, 0)
        status, errors = service.end()
        self.assertEqual(status, 0)
        self.assertNotIn("is being repaired", errors)

    def test_more_replicas_and_fewer(self):
        service = self.begin(FRONT_BACK)
        load = Load(self, service, str(self.path), 300)
        done = service.call(["scale", "back=2"])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(len(self.pids()), 3)
        self.assertEqual(self.again(), 0)
        # The file is what it was, so whoever names it is served; requests go to both lanes.
        more = [service.start("run", self.path, *ASK, "-n", "200", "--prompt", "The sea", "--repetition-penalty", "1.2") for _ in range(3)]
        wait_until(lambda: all(lane["running"] > 0 for lane in service.status()["queues"]), "requests in both lanes")
        done = service.call(["scale", "back=1"])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.wait_count(2)
        self.assertTrue(load.is_on(), "there was no load any more")
        load.finish()
        for each in more:
            out, errors = each.communicate(timeout=PATIENCE_S)
            self.assertEqual(each.returncode, 0, errors)
            self.assertEqual(json.loads(out)["token_ids"], load.calm[3][:200])
        self.assertEqual(service.status()["lanes"], 1)
        status, errors = service.end()
        self.assertEqual(status, 0)
        self.assertNotIn("is being repaired", errors)

    def test_what_cannot_be_is_said(self):
        self.path = self.folder / "none.yaml"
        self.write(FRONT_BACK)
        none = subprocess.run([program.program(), "apply", str(self.path)], capture_output=True, env=dict(os.environ, CHAINPUMP_RUN_DIR=str(self.folder)))
        self.assertEqual(none.returncode, 3, none.stderr)
        self.assertIn(b"there is no service 'demo'", none.stderr)
        self.path.unlink()
        service = self.begin(FRONT_BACK)
        before = self.ranks()
        for text, status, why in (
            (FRONT_BACK.replace("blocks: 400", "blocks: 400, type: int8"), 2, "kv.type cannot be changed while the service runs: end it"),
            (FRONT_BACK + "activations: f32\n", 2, "activations cannot be changed"),
            (FRONT_BACK.replace("640", "320"), 2, "kv.context would be 320, less than the 640"),
            (FRONT_BACK.replace("blocks: 400", "blocks: 40"), 2, "kv.blocks"),
            (FRONT_BACK + "failover: {restarts: 0}\n", 2, "failover.restarts cannot be changed from or to 0"),
            (FRONT_BACK.replace("blocks: 400", "blocks: 100000000"), 3, "kv.blocks"),
        ):
            self.assertIn(why, self.apply(text, status), text)
            if status != 3:
                found = self.diff(text, status)
                self.assertIn(why, found["why_not"])
                self.assertFalse(found["possible"])
        for arguments, status, why in ((["scale", "bock=2"], 3, b"did you mean 'back'?"), (["scale", "back"], 2, b"must be STAGE=N"),
                                       (["scale", "back=0"], 2, b"must be STAGE=N"), (["scale", "back=x"], 2, b"must be STAGE=N")):
            done = service.call(arguments)
            self.assertEqual(done.returncode, status, done.stderr)
            self.assertIn(why, done.stderr)
        self.assertEqual(self.ranks(), before)
        self.assertEqual(service.end()[0], 0)

    def coordinator(self):
        return next((pid for pid, verb in children(self.service.process.pid).items() if verb == [b"coordinator"]), None)

    def test_what_fails_leaves_all_as_it_was(self):
        service = self.begin(FRONT_BACK)
        load = Load(self, service, str(self.path), 420, copies=1)
        before = self.ranks()
        wanted = FRONT_BACK.replace("0-14", "0-9").replace("15-29", "10-29")
        for victim in ("a new rank", "the coordinator", "an old rank"):
            self.write(wanted)
            applying = service.start("apply", self.path)
            new = wait_until(lambda: {n: rank for n, rank in self.ranks().items() if n not in before} or applying.poll() is not None,
                             "new ranks")
            self.assertIsInstance(new, dict, "it was over before anything could go wrong")
            pid = {"a new rank": lambda: list(new.values())[0][0], "the coordinator": self.coordinator,
                   "an old rank": lambda: list(before.values())[1][0]}[victim]()
            os.kill(pid, signal.SIGKILL)
            _, errors = applying.communicate(timeout=PATIENCE_S)
            self.assertEqual(applying.returncode, 5, (victim, errors))
            wait_until(lambda: set(self.ranks()) == set(before), f"what there was, after {victim} died", 10)
            if victim != "an old rank":
                self.assertEqual(self.ranks(), before)
            wait_until(lambda: service.status()["ready"], "a ready service")
            before = self.ranks()
        self.apply(wanted)  # nothing of it is in the way of the next one
        self.wait_count(2)
        coordinator = self.coordinator()
        os.kill(coordinator, signal.SIGKILL)
        wait_until(lambda: self.coordinator() not in (None, coordinator), "another coordinator")
        load.finish()
        found = self.stages()
        self.assertEqual([stage["layers"] for stage in found], [[0, 10], [10, 30]])
        self.assertEqual(service.call(["run", self.path, *MODEL, "--prompt", "Hi", "-n", "4"]).returncode, 0)
        # A gateway that comes later knows of it, too.
        os.kill(service.gateway, signal.SIGKILL)
        wait_until(lambda: service.call(["status", "demo"]).returncode == 0, "another gateway")
        self.assertIn(b"[using the service 'demo']", service.call(["run", self.path, *MODEL, "--prompt", "Hi", "-n", "4"]).stderr)
        self.assertEqual(service.end()[0], 0)


if __name__ == "__main__":
    unittest.main()
