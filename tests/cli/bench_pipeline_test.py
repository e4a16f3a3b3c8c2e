"""`chainpump bench pipeline` ends at once when it is told to, whatever it is at, and leaves no rank behind; also where whoever
started it has set the signals to be ignored, as a shell does for what runs in the background.
"""
import os
import select
import signal
import subprocess
import time
import unittest

import program
from processes import ranks_of, stat_of, wait_until

PATIENCE_S = 60
END_S = 1.0


class BenchPipeline(unittest.TestCase):
    def start(self, ignored=()):
        def ignore():
            for number in ignored:
                signal.signal(number, signal.SIG_IGN)
        process = subprocess.Popen([program.program(), "bench", "pipeline", "--rounds", "1"], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=ignore)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def wait_case(self, process, wanted):
        """Until the case is begun whose name ends so."""
        seen, deadline = b"", time.monotonic() + PATIENCE_S
        while wanted not in seen:
            ready, _, _ = select.select([process.stderr], [], [], deadline - time.monotonic())
            text = ready and os.read(process.stderr.fileno(), 4096)
            self.assertTrue(text, f"no case {wanted}: {seen}")
            seen += text

    def check_ends(self, process, number):
        ranks = ranks_of(process.pid)
        process.send_signal(number)
        told = time.monotonic()
        self.assertEqual(process.wait(PATIENCE_S), 128 + number)
        self.assertLess(time.monotonic() - told, END_S)
        wait_until(lambda: not any(stat_of(pid) for pid, _ in ranks.values()), "the ranks' ends")

    def test_threads(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            for ignored in ((), (signal.SIGINT, signal.SIGTERM)):
                with self.subTest(number=number, ignored=bool(ignored)):
                    process = self.start(ignored)
                    self.wait_case(process, b"loopback")
                    self.check_ends(process, number)

    def test_processes(self):
        process = self.start()
        self.wait_case(process, b"4 stages, tcp")
        wait_until(lambda: len(ranks_of(process.pid)) == 4, "ranks")
        self.check_ends(process, signal.SIGTERM)


if __name__ == "__main__":
    unittest.main()
