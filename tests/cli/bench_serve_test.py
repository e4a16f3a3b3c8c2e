"""`chainpump bench serve`: a small load to its end, alone and as a client of a service."""
import json
import pathlib
import shutil
import tempfile
import unittest

import program
from service_test import Service

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
        service.end()

    def test_refusals(self):
        for flags, word in ((["--mix", "x"], b"--mix"), (["--mix", "1:8000/8000"], b"8192"), (["--rate", 0], b"--rate"),
                            (["--requests", 0], b"--requests"), (["--slo-ttft", -1], b"--slo-ttft")):
            done = program.call(["bench", "serve", "demo", *MODEL, *flags])
            self.assertEqual((done.returncode, done.stdout), (2, b""), done.stderr)
            self.assertIn(word, done.stderr)


if __name__ == "__main__":
    unittest.main()
