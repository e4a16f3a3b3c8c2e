"""Ends of `chainpump run`, wanted and unwanted: whatever happens to the command or to one of its
ranks, the person who typed it is told why within a second, and nothing is left behind: no process,
no socket file, no shared memory. Waits for conditions, each with a deadline.
"""
import os
import pathlib
import pty
import select
import shutil
import signal
import sys
import tempfile
import time
import unittest

from processes import PATIENCE_S, Run, fragile_graph, identity, ranks_of, stat_of, wait_until
from program import model

DEATH_NEWS_S = 1.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
LONG_RUN = ["--prompt", "Tell me a story.", "--ignore-eos", "-n", "4000"]


def cpu_seconds(pid):
    fields = stat_of(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


class Ends(unittest.TestCase):
    def start(self, arguments, **options):
        run = Run(["--model", model(), *arguments], **options)
        self.addCleanup(run.close)
        return run

    def test_a_finished_run_leaves_nothing(self):
        run = self.start(["--prompt", "Hi", "-n", "3"])
        run.wait_ranks()
        self.assertEqual(run.wait_end()[0], 0)
        run.check_nothing_left()

    def test_signals_in_mid_generation(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(number):
                run = self.start(LONG_RUN)
                run.wait_text()
                run.process.send_signal(number)
                status, _, seconds = run.wait_end()
                self.assertEqual(status, 128 + number)
                self.assertLess(seconds, 2.0)
                run.check_nothing_left()

    def test_a_signal_ends_a_run_whose_rank_hangs(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(number):
                run = self.start(LONG_RUN)
                run.wait_text()
                os.kill(run.ranks[1][0], signal.SIGSTOP)
                run.process.send_signal(number)
                status, errors, _ = run.wait_end(10)
                self.assertEqual((status, errors), (128 + number, ""))
                run.check_nothing_left()

    def test_a_run_ends_when_its_reader_leaves(self):
        for ranks, flags in ((3, []), (0, ["--in-process"])):
            run = self.start([*LONG_RUN, *flags])
            run.wait_text(ranks=ranks)
            run.process.stdout.close()
            status = run.process.wait(PATIENCE_S)
            errors = run.process.stderr.read().decode()
            self.assertEqual((status, errors), (5, "chainpump: standard output cannot be written\n"), flags)
            run.check_nothing_left()

    def test_signals_at_any_moment_of_the_start(self):
        for step in range(8):
            with self.subTest(step):
                run = self.start(LONG_RUN)
                if step % 2:
                    wait_until(lambda: len(ranks_of(run.process.pid)) >= 1 + step // 3, "ranks")
                run.ranks = ranks_of(run.process.pid)
                run.process.send_signal(signal.SIGTERM)
                status, errors, _ = run.wait_end()
                self.assertIn(status, (128 + signal.SIGTERM, -signal.SIGTERM), errors)
                run.check_nothing_left()

    def test_a_killed_command_takes_its_ranks_with_it(self):
        for text in (True, False):
            run = self.start(LONG_RUN)
            run.wait_text() if text else run.wait_ranks()
            run.process.kill()
            run.wait_end()
            run.check_nothing_left()

    def wait_line(self, run, word):
        lines = []
        while not any(word in line for line in lines):
            ready, _, _ = select.select([run.process.stderr], [], [], PATIENCE_S)
            line = ready and run.process.stderr.readline().decode()
            self.assertTrue(line, f"nothing said of '{word}': {lines}")
            lines.append(line)
        return lines[-1]

    def kill(self, run, stage, number=signal.SIGKILL, word="died: killed by SIGKILL"):
        os.kill(run.ranks[stage][0], number)
        killed = time.monotonic()
        line = self.wait_line(run, word)
        seconds = time.monotonic() - killed
        self.assertRegex(line, rf"stage .*{stage}.*{word}")
        print(f"stage {stage} got {number.name}: told after {seconds * 1000:.0f} ms", file=sys.stderr)
        self.assertLess(seconds, DEATH_NEWS_S)

    def test_a_killed_rank_is_named_within_a_second(self):
        graph = fragile_graph(self)
        for stage in (0, 1, 2):
            with self.subTest(stage):
                run = self.start(LONG_RUN, graph=graph)
                run.wait_text()
                self.kill(run, stage)
                self.assertEqual(run.wait_end()[0], 5)
                run.check_nothing_left()

    def test_a_killed_rank_is_replaced_and_the_run_goes_on(self):
        run = self.start(LONG_RUN)
        for stage in (0, 1, 2):
            run.wait_text()
            self.kill(run, stage)
            self.assertRegex(self.wait_line(run, "again"), r"lane 0 serves again after [0-9.]+ s")
        run.wait_text()
        run.process.send_signal(signal.SIGTERM)
        status, errors, _ = run.wait_end()
        self.assertEqual((status, errors), (128 + signal.SIGTERM, ""))
        run.check_nothing_left()

    def test_a_stopped_rank_is_noticed_within_a_second_and_replaced(self):
        run = self.start(LONG_RUN)
        for stage in (0, 1, 2):
            run.wait_text()
            stopped = run.ranks[stage]
            self.kill(run, stage, signal.SIGSTOP, "it hangs")
            wait_until(lambda: identity(stopped[0]) != stopped, "the end of the stopped rank")
            self.assertRegex(self.wait_line(run, "again"), r"lane 0 serves again after [0-9.]+ s")
        run.wait_text()
        run.process.send_signal(signal.SIGTERM)
        self.assertEqual(run.wait_end()[0], 128 + signal.SIGTERM)
        run.check_nothing_left()

    def test_a_run_that_was_stopped_as_a_whole_goes_on_as_if_nothing_had_been(self):
        run = self.start(LONG_RUN)
        run.wait_text()
        os.killpg(run.process.pid, signal.SIGSTOP)
        time.sleep(2)  # what it is about
        os.killpg(run.process.pid, signal.SIGCONT)
        before = dict(run.ranks)
        run.wait_text(2000)
        self.assertEqual(run.ranks, before)
        run.process.send_signal(signal.SIGTERM)
        status, errors, _ = run.wait_end()
        self.assertEqual((status, errors), (128 + signal.SIGTERM, ""))

    def test_a_rank_killed_while_it_starts(self):
        for stage in (0, 1, 2):
            with self.subTest(stage):
                run = self.start(LONG_RUN)
                wait_until(lambda: stage in ranks_of(run.process.pid), "the rank")
                run.ranks = ranks_of(run.process.pid)
                os.kill(run.ranks[stage][0], signal.SIGKILL)
                status, errors, seconds = run.wait_end()
                self.assertEqual(status, 5, errors)
                self.assertIn("died: killed by SIGKILL", errors)
                self.assertLess(seconds, 3.0)
                run.check_nothing_left()

    def start_chat(self, graph="demo"):
        ours, theirs = pty.openpty()
        self.addCleanup(os.close, ours)
        run = self.start([], stdin=theirs, graph=graph)
        os.close(theirs)
        deadline = time.monotonic() + PATIENCE_S
        said = b""
        while b"> " not in said:
            ready, _, _ = select.select([run.process.stderr], [], [], deadline - time.monotonic())
            self.assertTrue(ready, f"no prompt of the chat: {said}")
            said += os.read(run.process.stderr.fileno(), 4096)
        run.wait_ranks()
        return run

    def test_a_rank_killed_while_a_chat_waits_is_named_within_a_second(self):
        run = self.start_chat(fragile_graph(self))
        os.kill(run.ranks[1][0], signal.SIGKILL)
        status, errors, seconds = run.wait_end()
        self.assertEqual(status, 5, errors)
        self.assertRegex(errors, r"stage .*1.* died: killed by SIGKILL")
        self.assertLess(seconds, DEATH_NEWS_S)
        run.check_nothing_left()

    def test_idle_ranks_sleep(self):
        run = self.start_chat()
        before = {stage: cpu_seconds(pid) for stage, (pid, _) in run.ranks.items()}
        began = time.monotonic()
        time.sleep(2)  # what is measured
        wall = time.monotonic() - began
        for stage, (pid, _) in run.ranks.items():
            self.assertLess((cpu_seconds(pid) - before[stage]) / wall, 0.01, f"stage {stage}")
        run.process.send_signal(signal.SIGINT)
        status, _, seconds = run.wait_end()
        self.assertEqual(status, 128 + signal.SIGINT)
        self.assertLess(seconds, 2.0)
        run.check_nothing_left()


class Refusals(unittest.TestCase):
    def refused(self, arguments, graph="demo"):
        run = Run(arguments, graph=graph)
        self.addCleanup(run.close)
        status, errors, _ = run.wait_end()
        run.check_nothing_left()
        return status, errors

    def test_a_damaged_model_is_named(self):
        folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        whole = pathlib.Path(model()).read_bytes()
        for num_bytes in (0, 3, 100, len(whole) // 2, len(whole) - 1):
            cut = folder / "cut.gguf"
            cut.write_bytes(whole[:num_bytes])
            status, errors = self.refused(["--model", cut, "--prompt", "Hi"])
            self.assertEqual(status, 3, errors)
            self.assertIn("cut.gguf", errors)
        status, errors = self.refused(["--model", folder / "missing.gguf", "--prompt", "Hi"])
        self.assertEqual(status, 3, errors)
        self.assertIn("missing.gguf", errors)

    def test_too_little_room_is_said_before_anything_is_loaded(self):
        folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        graph = folder / "small.yaml"
        graph.write_text("version: 1\nname: small\nstages: 3\nlimits: {memory: 40 MiB}\n")
        status, errors = self.refused(["--model", model(), "--prompt", "Hi"], graph)
        self.assertEqual(status, 4, errors)
        self.assertRegex(errors, r"MiB|MB|GiB|GB|bytes")


if __name__ == "__main__":
    unittest.main()
