"""Repacked weights kept between starts, as the whole program shows it: what a second start reads, for
another cut too; equal tokens with and without; the switch; and damage, which costs one line.
"""
import os
import pathlib
import tempfile
import unittest

import program

RUN = ["--model", program.model(), "--raw", "--prompt", "The capital of France is", "-n", 8]


class WeightCache(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        before = dict(os.environ)
        self.addCleanup(lambda: (os.environ.clear(), os.environ.update(before)))
        os.environ["XDG_CACHE_HOME"] = folder.name
        self.panels = pathlib.Path(folder.name, "chainpump", "panels")

    def run_once(self, stages, *arguments):
        out = program.run_json(*RUN, "--stages", stages, *arguments)
        return out["token_ids"], sum(s["weight_bytes_read"] for s in out["stages"])

    def test_a_second_start_reads_no_weights_for_any_cut(self):
        tokens, cold = self.run_once(2)
        file_bytes = os.path.getsize(program.model())
        self.assertGreater(cold, 0.9 * file_bytes)
        self.assertLessEqual(cold, 1.02 * file_bytes)
        for stages in (2, 3, 1):
            again, read = self.run_once(stages)
            self.assertEqual(again, tokens)
            # A model file of the last minute is hashed instead of repacked; else vectors alone are read.
            fresh = os.path.getctime(program.model()) > self.panels.stat().st_ctime - 60
            self.assertLess(read, 1.02 * file_bytes if fresh else 0.01 * file_bytes)

    def test_the_switch(self):
        os.environ["CHAINPUMP_WEIGHT_CACHE"] = "off"
        tokens, _ = self.run_once(2)
        self.assertFalse(self.panels.exists())
        os.environ["CHAINPUMP_WEIGHT_CACHE"] = "on"
        self.assertEqual(self.run_once(2)[0], tokens)
        self.assertTrue(any(self.panels.iterdir()))
        os.environ["CHAINPUMP_WEIGHT_CACHE"] = "maybe"
        done = program.call(["run", "demo", *RUN])
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b"CHAINPUMP_WEIGHT_CACHE=maybe: on or off", done.stderr)

    def test_damage_costs_a_line_and_a_repacking(self):
        tokens, _ = self.run_once(1)
        for path in self.panels.iterdir():
            with path.open("r+b") as file:
                file.seek(5000)
                byte = file.read(1)
                file.seek(5000)
                file.write(bytes([byte[0] ^ 1]))
        done = program.call(["run", "demo", *RUN, "--stages", 1, "-o", "json"])
        self.assertEqual(done.returncode, 0)
        self.assertIn(str(tokens).replace(" ", "").encode(), done.stdout.replace(b" ", b""))
        lines = [line for line in done.stderr.decode().splitlines() if "damaged" in line]
        self.assertEqual(len(lines), 1, done.stderr)
        self.assertTrue(lines[0].startswith("chainpump: stage 0: "), lines)
        again = program.call(["run", "demo", *RUN, "--stages", 1, "-o", "json"])
        self.assertNotIn(b"damaged", again.stderr)


if __name__ == "__main__":
    unittest.main()
