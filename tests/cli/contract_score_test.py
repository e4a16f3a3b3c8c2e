"""The command contract of `score`: JSON lines in, JSON lines out, --full, and errors that name the line."""
import json
import math
import os
import pathlib
import signal
import subprocess
import tempfile
import unittest

import numpy as np

import program

MODEL = ["--model", program.model()]
REQUESTS = [([504, 2365, 6392], [8109, 359, 2729, 11, 4445]),
            ([1, 9690, 198], [2683]),
            (list(range(100, 160)), list(range(200, 240))),
            ([17], [18, 19])]


class Score(unittest.TestCase):
    def refused(self, status, text, *words, flags=()):
        done = program.call(["score", "demo", *MODEL, *flags], text)
        error = done.stderr.decode(errors="replace")
        self.assertEqual((done.returncode, done.stdout), (status, b""), f"{text[:200]}\n{error}")
        self.assertTrue(error.startswith("chainpump: "), error)
        for word in words:
            self.assertIn(word, error)

    def test_lines_match_requests_whatever_the_stages(self):
        one = program.score(REQUESTS, *MODEL, "--stages", 1)
        self.assertEqual(len(one), len(REQUESTS))
        for (_, targets), line in zip(REQUESTS, one):
            self.assertLessEqual({"logprobs", "argmax_ids"}, set(line))
            self.assertEqual(len(line["logprobs"]), len(targets))
            self.assertEqual(len(line["argmax_ids"]), len(targets))
            self.assertTrue(all(value <= 0 and math.isfinite(value) for value in line["logprobs"]))
        self.assertEqual(program.score(REQUESTS, *MODEL, "--stages", 3), one)
        self.assertEqual(program.score(REQUESTS[::-1], *MODEL, "--stages", 3)[::-1], one)
        exact = program.score(REQUESTS, *MODEL, "--stages", 3, "--activations", "f32")
        self.assertNotEqual(exact, one, "--activations f32 changed nothing")
        self.assertEqual(program.score(REQUESTS, *MODEL, "--stages", 1, "--activations", "f32"), exact)

    def test_scores_what_run_generates(self):
        out = program.run_json(*MODEL, "--raw", "--prompt", "The three primary colours are", "-n", 12)
        line, = program.score([(out["prompt_token_ids"], out["token_ids"])], *MODEL)
        self.assertEqual(line["argmax_ids"], out["token_ids"])

    def test_full(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "full.npy"
            lines = program.score(REQUESTS, *MODEL, "--full", path)
            self.assertEqual(sorted(file.name for file in pathlib.Path(folder).iterdir()), ["full.npy"])
            table = np.load(path)
        self.assertEqual(lines, program.score(REQUESTS, *MODEL))
        targets = [target for _, targets in REQUESTS for target in targets]
        self.assertEqual(table.dtype, np.float32)
        self.assertEqual(table.shape, (len(targets), 49152))
        picked = table[np.arange(len(targets)), targets]
        self.assertEqual([float(value) for value in picked], [value for line in lines for value in line["logprobs"]])
        self.assertEqual(table.argmax(axis=1).tolist(), [value for line in lines for value in line["argmax_ids"]])
        np.testing.assert_allclose(np.exp(table.astype(np.float64)).sum(axis=1), 1, atol=1e-4)

    def test_no_lines(self):
        for text in ("", "\n \n"):
            self.assertEqual(program.succeed(["score", "demo", *MODEL], text), b"")

    def test_bad_lines_are_named_and_nothing_is_scored(self):
        good = json.dumps({"prompt_ids": [1, 2], "target_ids": [3]})
        for bad in ("nope", "[1]", "{}", '{"prompt_ids": [1]}', '{"prompt_ids": [1], "target_ids": []}',
                    '{"prompt_ids": [], "target_ids": [1]}', '{"prompt_ids": [1], "target_ids": [1.5]}',
                    '{"prompt_ids": [1], "target_ids": [-1]}', '{"prompt_ids": "1", "target_ids": [1]}',
                    '{"prompt_ids": [1], "target_ids": [99999999999999999999]}', "[" * 100_000,
                    '{"prompt_ids": [1], "target_ids": [2], "prompt_ids": [3]}',
                    '{"prompt_ids": [1], "target_ids": [49152]}', '{"prompt_ids": [49152], "target_ids": [1]}'):
            # A blank line counts as a line.
            self.refused(2, f"{good}\n\n{bad}\n{good}\n", "line 3")

    def test_room(self):
        def line(num_targets):
            return json.dumps({"prompt_ids": [1, 2], "target_ids": [3] * num_targets}) + "\n"
        flags = ["--context", 64]
        self.assertEqual(len(json.loads(program.succeed(["score", "demo", *MODEL, *flags], line(62)))["logprobs"]), 62)
        self.refused(2, line(5) + line(63), "line 2", "64", "65", flags=flags)

    def test_input_that_never_ends_and_input_that_cannot_be_read(self):
        for path, status, words in (("/dev/zero", 2, b"line 1: longer than"), ("/", 3, b"standard input cannot be read")):
            source = os.open(path, os.O_RDONLY)
            done = subprocess.run([program.program(), "score", "demo", *MODEL], stdin=source, capture_output=True,
                                  timeout=program.TIMEOUT_S)
            os.close(source)
            self.assertEqual((done.returncode, done.stdout), (status, b""), done.stderr)
            self.assertIn(words, done.stderr)

    def test_a_signal_leaves_no_part_of_a_file(self):
        line = json.dumps({"prompt_ids": [1, 2], "target_ids": [3] * 200}) + "\n"
        for number in (signal.SIGINT, signal.SIGTERM):
            with tempfile.TemporaryDirectory() as folder:
                command = [program.program(), "score", "demo", *MODEL, "--full", f"{folder}/full.npy"]
                with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
                    process.stdin.write(line.encode() * 100)
                    process.stdin.close()
                    process.stdout.readline()  # the second line is under way, and has 99 to follow
                    process.send_signal(number)
                    self.assertEqual(process.wait(program.TIMEOUT_S), 128 + number)
                self.assertEqual([file.name for file in pathlib.Path(folder).iterdir()], ["full.npy"])

    def test_files(self):
        line = json.dumps({"prompt_ids": [1, 2], "target_ids": [3]}) + "\n"
        self.refused(3, line, "/no/folder/full.npy", flags=["--full", "/no/folder/full.npy"])
        with open("/dev/full", "wb") as full:
            done = subprocess.run([program.program(), "score", "demo", *MODEL], input=line.encode(), stdout=full,
                                  stderr=subprocess.PIPE, timeout=program.TIMEOUT_S)
        self.assertEqual(done.returncode, 5, done.stderr)


if __name__ == "__main__":
    unittest.main()
