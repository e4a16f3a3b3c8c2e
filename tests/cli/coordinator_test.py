"""The coordinator of a service is killed again and again while requests stream: they end with the tokens of a calm run,
no other process ends, and new requests are served. What dies together with it is repaired by the next one.
"""
import os
import signal
import threading
import time
import unittest

from processes import identity, ranks_of, wait_until
from services import MODEL, PATIENCE_S, RAW, USING, Case, children

NUM_TOKENS = 300
ASK = [*MODEL, "--raw", "--ignore-eos", "-n", str(NUM_TOKENS)]
PROMPTS = [("The three primary colours are", []), ("Once upon a time", ["--temperature", "0.9", "--seed", "7"])]
SERVED_WITHIN_S = 2  # a new request, from the kill to its end


class Streams:
    """Requests under way, read as they come."""

    def __init__(self, service, graph):
        self.processes = [service.start("run", graph, *ASK, *more, "--prompt", prompt) for prompt, more in PROMPTS]
        self.texts = [b"" for _ in PROMPTS]
        self.times = [[] for _ in PROMPTS]  # of each piece of text
        self.threads = [threading.Thread(target=self.read, args=(i,)) for i in range(len(PROMPTS))]
        for thread in self.threads:
            thread.start()

    def read(self, i):
        while piece := os.read(self.processes[i].stdout.fileno(), 65536):
            self.times[i].append(time.monotonic())
            self.texts[i] += piece

    def wait_text(self, num_bytes):
        wait_until(lambda: all(len(text) >= num_bytes for text in self.texts) or self.ended(), "some text", PATIENCE_S)

    def ended(self):
        return all(process.poll() is not None for process in self.processes)

    def finish(self):
        for thread in self.threads:
            thread.join(PATIENCE_S)
        statuses = [process.wait(PATIENCE_S) for process in self.processes]
        errors = b"".join(process.stderr.read() for process in self.processes)
        for process in self.processes:
            process.stdout.close()
            process.stderr.close()
        assert statuses == [0] * len(statuses), errors
        return self.texts

    def largest_gap_ms(self):
        return max(1e3 * (b - a) for times in self.times for a, b in zip(times, times[1:]))


class Base(Case):
    def begin(self, restarts=50, stages="{}, {standbys: 1}, {}"):
        path = self.folder.parent / f"{self.folder.name}-coordinator.yaml"
        path.write_text(f"name: demo\nthreads: 1\nkv: {{context: 512}}\nstages: [{stages}]\nfailover: {{restarts: {restarts}}}\n")
        self.addCleanup(path.unlink)
        self.graph = str(path)
        self.service = self.serve(graph=self.graph)
        self.service.wait_ready()

    def coordinator(self):
        try:
            found = children(self.service.process.pid)
        except (FileNotFoundError, ProcessLookupError):  # one that ends meanwhile
            return None
        return next((pid for pid, verb in found.items() if verb == [b"coordinator"]), None)

    def kill_coordinator(self):
        before = wait_until(self.coordinator, "a coordinator")
        os.kill(before, signal.SIGKILL)
        return before

    def wait_another(self, before):
        wait_until(lambda: self.coordinator() not in (None, before), "another coordinator")

    def others(self):
        found = {pid: identity(pid) for pid in (self.service.gateway, self.service.agent)}
        return found, ranks_of(self.service.agent)

    def calm(self):
        streams = Streams(self.service, self.graph)
        texts = streams.finish()
        return texts, streams.largest_gap_ms()


class Coordinator(Base):
    def test_streams_do_not_notice_and_new_requests_are_served(self):
        self.begin()
        texts, calm_gap_ms = self.calm()
        before = self.others()
        streams = Streams(self.service, self.graph)
        num_kills = 0
        served_s = []
        for num_bytes in (20, 150, 300, 450, 600):
            streams.wait_text(num_bytes)
            if streams.ended():
                break
            killed = self.kill_coordinator()
            num_kills += 1
            if num_kills in (2, 4):
                began = time.monotonic()
                done = self.service.call(["run", self.graph, *RAW, "-n", "2"])
                served_s.append(time.monotonic() - began)
                self.assertEqual((done.returncode, USING in done.stderr), (0, True), done.stderr)
            else:
                self.assertEqual(len(self.service.status()["stages"]), 3)
            self.wait_another(killed)
        self.assertEqual(streams.finish(), texts)
        self.assertEqual(num_kills, 5)
        self.assertEqual(self.others(), before)
        self.assertLess(max(served_s), SERVED_WITHIN_S)
        print(f"largest gap: {calm_gap_ms:.0f} ms in the calm, {streams.largest_gap_ms():.0f} ms with {num_kills} kills; "
              f"new requests in {', '.join(f'{1e3 * s:.0f}' for s in served_s)} ms", flush=True)
        # What is watched is as it was: a rank that dies now is replaced.
        victim = ranks_of(self.service.agent)[0]
        os.kill(victim[0], signal.SIGKILL)
        self.assertEqual(self.calm()[0], texts)
        status, errors = self.service.end()
        self.assertEqual(status, 0, errors)
        self.assertIn("the coordinator died: killed by SIGKILL (Killed); it is started anew", errors)
        self.service.check_nothing_left()

    def check_with_rank(self, *victims, again=False):
        """The coordinator and these ranks at once; again: its successor, too, in the middle of the repair."""
        self.begin()
        texts, _ = self.calm()
        streams = Streams(self.service, self.graph)
        streams.wait_text(100)
        self.assertFalse(streams.ended())
        ranks = ranks_of(self.service.agent)
        killed = self.kill_coordinator()
        for victim in victims:
            os.kill(ranks[victim][0], signal.SIGKILL)
        for _ in range(3 if again else 0):
            self.wait_another(killed)
            killed = self.kill_coordinator()
        self.assertEqual(streams.finish(), texts)
        left = ranks_of(self.service.agent)
        for number, rank in ranks.items():
            self.assertEqual(left.get(number) == rank, number not in victims, number)
        wait_until(lambda: len(ranks_of(self.service.agent)) == 4, "all ranks")
        self.assertEqual(self.calm()[0], texts)
        self.assertEqual(self.service.end()[0], 0)

    def test_with_a_rank_that_has_a_standby(self):
        self.check_with_rank(1)

    def test_with_the_first_rank(self):
        self.check_with_rank(0, again=True)

    def test_with_a_neighbour_and_the_standby(self):
        self.check_with_rank(2, 3)

    def test_one_death_too_many_ends_the_service_and_is_said(self):
        self.begin(restarts=2)
        for _ in range(2):
            self.wait_another(self.kill_coordinator())
        self.kill_coordinator()
        _, errors = self.service.process.communicate(timeout=PATIENCE_S)
        self.assertEqual(self.service.process.returncode, 5)
        self.assertIn("the coordinator died: killed by SIGKILL (Killed), after 2 new starts within 60 s", errors.decode())
        self.service.check_nothing_left()

    def test_while_it_loads(self):
        path = self.folder.parent / f"{self.folder.name}-loading.yaml"
        path.write_text("name: demo\nthreads: 1\nstages: 2\nfailover: {restarts: 50}\n")
        self.addCleanup(path.unlink)
        self.graph = str(path)
        self.service = self.serve(graph=self.graph)
        for _ in range(4):
            killed = wait_until(self.coordinator, "a coordinator")
            os.kill(killed, signal.SIGKILL)
            self.wait_another(killed)
        self.service.wait_ready()
        done = self.service.call(["run", self.graph, *RAW, "-n", "2"])
        self.assertEqual((done.returncode, USING in done.stderr), (0, True), done.stderr)
        self.assertEqual(self.service.end()[0], 0)


if __name__ == "__main__":
    unittest.main()
