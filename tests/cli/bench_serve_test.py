"""`chainpump bench serve`: a small load to its end, alone and as a client of a service."""
import json
import pathlib
import shutil
import tempfile
import unittest

import program
from services import Service

MODEL = ["--model", program.model()]
SMALL = ["--rate", 40, "--requests", 30, "--mix", "2:4-8/3,1:20/2-5", "--seed", 5]


class BenchServe(unittest.TestCase):
    def check(self, report):
        self.assertEqual((report["requests"], report["completed"], report["refused"], report["failed"]), (30, 30, 0, {}))
        self.assertGreater(report["duration_s"], 0.3)
        for figure in ("ttft_ms", "tpot_ms", "inter_token_ms", "end_to_end_ms"):
            spread = report[figure]
            self.assertTrue(0 <= spread["p50"] <= spread["p90"] <= spread["p99"] <= spread["max"], (figure, spread))
        self.assertGreater(report["ttft_ms"]["p50"], 0)
        self.assertLess(report["ttft_ms"]["max"], report["end_to_end_ms"]["max"] + 1e-6)
        self.assertEqual((report["slo"]["ttft_ms"], report["slo"]["tpot_ms"]), (60000, None))
        self.assertEqual(report["slo"]["good"], 30)
        self.assertEqual(len(report["stages"]), 3)
        self.assertGreater(report["stages"][0]["tokens"], 0)

    def test_a_load(self):
        folder = pathlib.Path(tempfile.mkdtemp())
        folder.chmod(0o700)
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        arguments = ["bench", "serve", "demo", *MODEL, *SMALL, "--slo-ttft", 60000, "-o", "json"]
        alone = json.loads(program.succeed(arguments))
        self.check(alone)
        service = Service(folder)
        self.addCleanup(service.close)
        service.wait_ready()
        done = service.call(arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(b"[using the service 'demo']", done.stderr)
        there = json.loads(done.stdout)
        self.check(there)
        for key in ("load", "prompt_tokens", "output_tokens", "system_fingerprint"):
            self.assertEqual(alone[key], there[key])
        table = service.call(arguments[:-2])
        self.assertEqual(table.returncode, 0, table.stderr)
        self.assertIn(b"30 requests in", table.stdout)
        self.assertIn(b"between tokens", table.stdout)
        views = service.call(["top", "-n", 2, "--interval", 0.1])
        self.assertEqual((views.returncode, views.stderr), (0, b""))
        self.assertEqual(views.stdout.count(b"demo: ready"), 2)
        self.assertIn(b"tokens/s", views.stdout)
        self.assertEqual(service.call(["top", "other"]).returncode, 3)
        self.check_trace(service, folder)
        service.end()
        gone = service.call(["top"])
        self.assertEqual((gone.returncode, gone.stdout), (3, b""))
        self.assertIn(b"no service runs", gone.stderr)

    def check_trace(self, service, folder):
        path = folder / "trace.json"
        load = service.start("bench", "serve", "demo", *MODEL, "--rate", 20, "--requests", 60, "--mix", "1:4/20")
        done = service.call(["trace", "-d", "1s", "-o", path])
        self.assertEqual((done.returncode, done.stdout), (0, b""), done.stderr)
        load.communicate(timeout=60)
        events = json.loads(path.read_text())["traceEvents"]
        names = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
        self.assertEqual(sorted(names), [0, 1, 2])
        self.assertIn("stage 1: layers ", names[1])
        for stage in range(3):
            steps = [event for event in events if event.get("cat") == "compute" and event["pid"] == stage]
            self.assertGreater(len(steps), 10)
            ends = [event["ts"] + event["dur"] for event in steps]
            # One at a time, in order, within the second that was asked for and what was under way then.
            self.assertTrue(all(end <= step["ts"] + 0.01 for end, step in zip(ends, steps[1:])))
            self.assertTrue(all(0 <= step["ts"] < 10e6 and step["dur"] > 0 for step in steps))
        for flags, status, word in ((["-d", "x"], 2, b"duration"), (["-d", "301s"], 2, b"duration"), (["other"], 3, b"'other'"),
                                    (["-d", "1ms", "-o", folder / "no/x"], 3, b"no/x")):
            done = service.call(["trace", *flags])
            self.assertEqual(done.returncode, status, done.stderr)
            self.assertIn(word, done.stderr)

    def test_refusals(self):
        for flags, word in ((["--mix", "x"], b"--mix"), (["--mix", "1:8000/8000"], b"8192"), (["--rate", 0], b"--rate"),
                            (["--requests", 0], b"--requests"), (["--slo-ttft", -1], b"--slo-ttft")):
            done = program.call(["bench", "serve", "demo", *MODEL, *flags])
            self.assertEqual((done.returncode, done.stdout), (2, b""), done.stderr)
            self.assertIn(word, done.stderr)


if __name__ == "__main__":
    unittest.main()
