"""`chainpump chaos` on the demo: ranks and coordinators killed under load, cut short by Ctrl-C and gone on with; what it refuses; and
that nothing of it is left.
"""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import unittest

import program
from processes import stat_of, wait_until

PATIENCE_S = 150
FAULTS = ["coordinator", "kill", "kill", "kill", "coordinator", "kill"]  # of the seed
KEYS = ["requests", "faults", "lost", "duplicated", "differing", "failed", "gap_p50_ms", "gap_p99_ms", "leaked_bytes", "leaked_fds",
        "met_min", "points", "recomputed", "recomputed_after", "changed_pids", "foreign_pids", "refused_frames", "stale_frames",
        "findings", "each"]
COUNTS = ("lost", "duplicated", "differing", "failed")
MODEL = ["--model", program.model()]


class Chaos(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)

    def start(self, *arguments):
        environment = dict(os.environ, TMPDIR=str(self.folder))
        process = subprocess.Popen([program.program(), "chaos", *map(str, arguments)], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, env=environment, start_new_session=True)
        self.addCleanup(self.end, process)
        return process

    @staticmethod
    def end(process):
        process.kill()
        process.communicate()

    def left(self):
        """Processes and files of this test's folder."""
        found = [str(path) for path in self.folder.rglob("*")]
        for entry in pathlib.Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and os.fsencode(self.folder) in (entry / "environ").read_bytes() and stat_of(entry.name):
                    found.append(entry.name)
            except (PermissionError, FileNotFoundError, ProcessLookupError):
                continue
        return found

    def test_thirty_kills(self):
        run = self.start("demo", *MODEL, "--kills", 30, "--seed", 5, "--positions", 100, "-o", "json")
        out, errors = run.communicate(timeout=PATIENCE_S)
        self.assertEqual(run.returncode, 0, errors)
        report = json.loads(out)
        self.assertEqual(report["faults"], 30)
        self.assertEqual([report[count] for count in COUNTS], [0] * 4, report["findings"])
        self.assertEqual((report["foreign_pids"], report["leaked_fds"], report["stale_frames"]), (0, 0, 0), report["findings"])
        self.assertGreaterEqual(report["met_min"], 4)
        for each in report["each"]:
            if each["victim"] != "stage 'stage0'":
                self.assertIn(each["recomputed_after"], (None, 0), each)
        self.assertGreater(sum(report["recomputed"]), 0)
        # Where a point is not passed in time the rank is killed all the same.
        tried = sum(point["tried"] for point in report["points"].values())
        self.assertEqual(tried, sum(each["point"] is not None for each in report["each"]))
        self.assertGreater(tried, 7, report["points"])
        self.assertGreater(sum(point["hit"] for point in report["points"].values()), tried * 0.6, report["points"])
        self.assertEqual(self.left(), [])

    def chaos_report(self, faults, kills):
        run = self.start("demo", *MODEL, "--kills", kills, "--seed", 11, "--positions", 100, "--faults", faults, "-o", "json")
        out, errors = run.communicate(timeout=PATIENCE_S)
        self.assertEqual(run.returncode, 0, errors)
        report = json.loads(out)
        self.assertEqual([report[count] for count in COUNTS], [0] * 4, report["findings"])
        self.assertEqual((report["foreign_pids"], report["stale_frames"]), (0, 0), report["findings"])
        self.assertEqual(self.left(), [])
        return report

    def test_faults_of_links_and_pairs(self):
        report = self.chaos_report("slow,partition,kill+next,kill+standby,coordinator+kill", 8)
        self.assertGreaterEqual(len({each["what"] for each in report["each"]}), 4, report["each"])
        for each in report["each"]:
            if each["what"] == "kill+next" and each["second_pid"]:
                self.assertEqual(len(set(each["changed_pids"]) & {each["pid"], each["second_pid"]}), 2, each)

    def test_damaged_frames_are_refused(self):
        report = self.chaos_report("corrupt", 3)
        self.assertGreaterEqual(report["refused_frames"], sum(each["hit"] for each in report["each"]))
        self.assertGreater(report["refused_frames"], 0)

    def test_kills(self):
        state = self.folder.parent / f"{self.folder.name}-state"
        self.addCleanup(state.unlink)
        command = ["demo", *MODEL, "--kills", len(FAULTS), "--seed", 3, "--faults", "kill,coordinator", "--positions", 400, "--state", state, "-o", "json"]
        first = self.start(*command)
        # Its first line is the run's name; the second comes when all requests that met the first kill have ended.
        wait_until(lambda: first.poll() is not None or state.exists() and len(state.read_text().splitlines()) >= 2,
                   "the first fault's end", PATIENCE_S)
        first.send_signal(signal.SIGINT)
        out, errors = first.communicate(timeout=PATIENCE_S)
        self.assertEqual(first.returncode, 130, errors)
        so_far = json.loads(out)
        self.assertGreaterEqual(so_far["faults"], 1)
        self.assertEqual([so_far[count] for count in COUNTS], [0] * 4, so_far)
        self.assertEqual(self.left(), [])

        second = self.start(*command)
        out, errors = second.communicate(timeout=PATIENCE_S)
        self.assertEqual(second.returncode, 0, errors)
        report = json.loads(out)
        self.assertEqual(list(report), KEYS)
        self.assertEqual(report["faults"], len(FAULTS))
        self.assertEqual([report[count] for count in COUNTS], [0] * 4, report)
        self.assertEqual([(each["number"], each["what"]) for each in report["each"]], list(enumerate(FAULTS)))
        self.assertEqual(report["each"][:so_far["faults"]], so_far["each"])
        for each in report["each"]:
            self.assertGreaterEqual(each["unfinished"], 4)
        self.assertGreater(report["requests"], 10)
        self.assertGreater(report["gap_p50_ms"], 0)
        self.assertEqual(self.left(), [])
        # All is done: nothing is started, and it is said again.
        self.assertEqual(json.loads(program.succeed(["chaos", *command])), report)
        command[command.index("--seed") + 1] = 4
        other = program.call(["chaos", *command])
        self.assertEqual((other.returncode, other.stdout), (3, b""))
        self.assertIn(b"of another run", other.stderr)

    def test_a_graph_whose_bound_is_passed(self):
        graph = self.folder / "graph.yaml"
        graph.write_text("name: mine\nstages: 2\nthreads: 1\nfailover: {restarts: 1}\n")
        process = self.start(graph, *MODEL, "--kills", 3, "--positions", 100, "-o", "json")
        out, errors = process.communicate(timeout=PATIENCE_S)
        self.assertEqual(process.returncode, 5, errors)
        self.assertIn(b"[past 1 ends of ranks within 60 s, the graph's failover.restarts, the service lets its requests fail", errors)
        self.assertIn(b"2nd end of a rank", errors)
        report = json.loads(out)
        self.assertEqual(report["faults"], 3)
        self.assertGreaterEqual(report["failed"], 4)
        self.assertEqual([report[count] for count in COUNTS[:3]], [0] * 3, report)
        self.assertTrue(any("2nd end of a rank" in finding for finding in report["findings"]), report["findings"])
        graph.unlink()
        self.assertEqual(self.left(), [])

    def test_refusals(self):
        graph = self.folder / "graph.yaml"
        graph.write_text("stages: 2\nfailover: {restarts: 0}\n")
        for arguments, status, words in ((["demo", "--faults", "kil"], 2, b"did you mean 'kill'"),
                                         (["demo", "--faults", "kill,kill+nxt"], 2, b"did you mean 'kill+next'"),
                                         (["demo", "--kills", "0"], 2, b"--kills"),
                                         (["demo", "--kils", "1"], 2, b"did you mean '--kills'"),
                                         (["demo", "--duration", "-1"], 2, b"--duration"),
                                         (["demo", "--seed", "-1"], 2, b"--seed"),
                                         (["demo", "--context", "400"], 2, b"700 tokens"),
                                         (["demo", "--positions", "701"], 2, b"--positions"),
                                         ([graph], 2, b"failover.restarts"),
                                         ([self.folder / "none.yaml"], 3, b"none.yaml")):
            done = program.call(["chaos", *arguments, *MODEL])
            self.assertEqual((done.returncode, done.stdout), (status, b""), (arguments, done.stderr))
            self.assertIn(words, done.stderr)

    def test_interrupted_before_it_begins(self):
        process = self.start("demo", *MODEL, "--kills", 1000)
        wait_until(lambda: any(self.folder.iterdir()), "its folder")
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 143, errors)
        self.assertIn(b"0 requests, 0 faults", out)
        self.assertEqual(self.left(), [])


if __name__ == "__main__":
    unittest.main()
