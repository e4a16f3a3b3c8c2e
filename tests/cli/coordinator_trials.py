"""Many deaths of a service's coordinator, at random moments from a seed, alone and with a rank: every stream has the tokens
of a calm run, no other process ends, and the largest gap between two pieces of text is put beside the calm one.
"""
import argparse
import os
import random
import signal
import sys
import time
import unittest

import coordinator_test
from coordinator_test import Streams
from processes import ranks_of, wait_until


class Trials(coordinator_test.Base):
    seed, kills, pairs = 1, 60, 12

    def streams_until(self, done, texts):
        """Streams, one set after the other, until `done` says so; the largest gap in ms."""
        gaps = []
        while not done():
            streams = Streams(self.service, self.graph)
            self.assertEqual(streams.finish(), texts)
            gaps.append(streams.largest_gap_ms())
        return max(gaps)

    def test_coordinators_alone(self):
        self.begin(restarts=1000)
        rng = random.Random(self.seed)
        texts, _ = self.calm()
        before = self.others()
        calm_ms = max(self.calm()[1] for _ in range(8))
        killer = Killer(self, rng, self.kills)
        killer.start()
        gap_ms = self.streams_until(lambda: not killer.is_alive(), texts)
        killer.join()
        self.assertEqual(killer.num_kills, self.kills)
        self.assertEqual(self.others(), before)
        print(f"{self.kills} kills: largest gap {gap_ms:.0f} ms, in the calm {calm_ms:.0f} ms", flush=True)
        self.assertEqual(self.service.end()[0], 0)

    def test_with_a_rank(self):
        self.begin(restarts=1000)
        rng = random.Random(self.seed)
        texts, _ = self.calm()
        for trial in range(self.pairs):
            wait_until(lambda: len(ranks_of(self.service.agent)) == 4, "all ranks")
            victim, before_s, after_s = rng.randrange(4), rng.uniform(0.05, 0.6), rng.choice((0, rng.uniform(0, 0.4)))
            coordinator_first, again = rng.random() < 0.5, rng.random() < 0.5
            streams = Streams(self.service, self.graph)
            streams.wait_text(10)
            time.sleep(before_s)
            ranks = ranks_of(self.service.agent)
            if coordinator_first:
                killed = self.kill_coordinator()
                time.sleep(after_s)
                os.kill(ranks[victim][0], signal.SIGKILL)
            else:
                os.kill(ranks[victim][0], signal.SIGKILL)
                time.sleep(after_s)
                killed = self.kill_coordinator()
            if again:
                self.wait_another(killed)
                time.sleep(after_s)
                self.kill_coordinator()
            self.assertEqual(streams.finish(), texts, (self.seed, trial))
            left = ranks_of(self.service.agent)
            for number, rank in ranks.items():
                self.assertEqual(left.get(number) == rank, number != victim, (self.seed, trial, number))
        print(f"{self.pairs} pairs", flush=True)
        self.assertEqual(self.service.end()[0], 0)


class Killer(coordinator_test.threading.Thread):
    def __init__(self, case, rng, num):
        super().__init__()
        self.case, self.rng, self.num, self.num_kills = case, rng, num, 0

    def run(self):
        for _ in range(self.num):
            time.sleep(self.rng.uniform(0, 0.3))
            self.case.wait_another(self.case.kill_coordinator())
            self.num_kills += 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("seed", "kills", "pairs"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Trials, name))
    options, rest = parser.parse_known_args()
    for name, value in vars(options).items():
        setattr(Trials, name, value)
    unittest.main(argv=[sys.argv[0], *rest])
