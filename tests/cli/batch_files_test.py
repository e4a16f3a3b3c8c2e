"""`chainpump batch`: each line of the input gets one answer, whatever becomes of the process that makes
them, and the same answer. Waits for conditions, each with a deadline.
"""
import json
import os
import pathlib
import pty
import resource
import shutil
import signal
import subprocess
import tempfile
import unittest

import program
from processes import fragile_graph, wait_until
from services import Service

MODEL = ["--model", program.model()]
PATIENCE_S = 60


def line(custom_id, body, url="/v1/completions"):
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body})


def chat(text, **more):
    return {"messages": [{"role": "user", "content": text}], **more}


def many(count, max_tokens=2):
    """Short requests that draw: equal answers mean equal seeds."""
    return [line(f"r{i}", {"prompt": f"{i} is a number", "max_tokens": max_tokens, "n": 1 + (i % 9 == 0)}) for i in range(count)]


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.folder.chmod(0o700)
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.source = self.folder / "in.jsonl"
        self.target = self.folder / "out.jsonl"

    def write(self, lines):
        self.source.write_text("\n".join(lines) + "\n")

    def command(self, *flags, target=None, graph="demo"):
        return [program.program(), "batch", graph, str(self.source), str(target or self.target), *MODEL, *map(str, flags)]

    def batch(self, *flags, status=0, target=None, graph="demo", **options):
        done = subprocess.run(self.command(*flags, target=target, graph=graph), stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=program.TIMEOUT_S, **options)
        self.assertEqual((done.returncode, done.stdout), (status, b""), done.stderr)
        return done.stderr.decode()

    def start(self, *flags, graph="demo", **options):
        return subprocess.Popen(self.command(*flags, graph=graph), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
                                **options)

    def answers(self, target=None):
        """{custom_id: entry}; each is there once, and whole."""
        text = (target or self.target).read_text()
        self.assertTrue(text.endswith("\n"))
        entries = [json.loads(entry) for entry in text.splitlines()]
        found = {entry["custom_id"]: entry for entry in entries}
        self.assertEqual(len(found), len(entries))
        return found

    def contents(self, target=None):
        """What must be equal however often the batch was cut short."""
        return {key: (entry["id"], entry["response"]["body"]["choices"], entry["response"]["body"]["usage"])
                for key, entry in self.answers(target).items()}

    def entries_there(self):
        return self.target.read_bytes().count(b"\n") if self.target.exists() else 0


class Answers(Case):
    def test_answers_are_those_of_run(self):
        self.write([
            line("chat", chat("Name three rivers.", temperature=0, max_tokens=12), "/v1/chat/completions"),
            line("drawn", chat("Name three rivers.", temperature=1.3, seed=7, max_tokens=12, model="demo"), "/v1/chat/completions"),
            line("text", {"prompt": "The three primary colours are", "temperature": 0, "max_tokens": 12, "logprobs": 2}),
            line("stop", {"prompt": "The three primary colours are", "temperature": 0, "max_tokens": 40, "stop": ["blue"]}),
            line("n", {"prompt": [1, 2, 3], "n": 3, "max_tokens": 3}),
        ])
        errors = self.batch()
        self.assertIn("all 5 lines are done: 5 in this run,", errors)
        found = self.answers()
        for key, flags in (("chat", ["--prompt", "Name three rivers.", "-n", 12]),
                           ("drawn", ["--prompt", "Name three rivers.", "-n", 12, "--temperature", 1.3, "--seed", 7]),
                           ("text", ["--raw", "--prompt", "The three primary colours are", "-n", 12]),
                           ("stop", ["--raw", "--prompt", "The three primary colours are", "-n", 40, "--stop", "blue"])):
            alone = program.run_json(*MODEL, *flags)
            response = found[key]["response"]
            body = response["body"]
            choice, = body["choices"]
            text = choice["message"]["content"] if key in ("chat", "drawn") else choice["text"]
            self.assertEqual((text, choice["finish_reason"]), (alone["text"], alone["finish_reason"]), key)
            self.assertEqual(body["usage"], {"prompt_tokens": len(alone["prompt_token_ids"]), "completion_tokens": len(alone["token_ids"]),
                                             "total_tokens": len(alone["prompt_token_ids"]) + len(alone["token_ids"])})
            self.assertEqual(body["system_fingerprint"], alone["system_fingerprint"])
            self.assertEqual((response["status_code"], found[key]["error"]), (200, None))
        logprobs = found["text"]["response"]["body"]["choices"][0]["logprobs"]
        self.assertEqual("".join(logprobs["tokens"]), found["text"]["response"]["body"]["choices"][0]["text"])
        self.assertEqual([len(top) for top in logprobs["top_logprobs"]], [2] * 12)
        choices = found["n"]["response"]["body"]["choices"]
        self.assertEqual([choice["index"] for choice in choices], [0, 1, 2])

    def test_a_bad_line_has_its_error_and_the_batch_goes_on(self):
        good = {"prompt": "a", "max_tokens": 2}
        self.write(["nope", "", line("url", good, "/v1/embeddings"), line("field", good | {"tools": [{}]}),
                    line("typo", good | {"max_tokns": 1}), line("value", good | {"temperature": -3}),
                    line("long", {"prompt": "a " * 9000}), line("none", {"prompt": ""}),
                    line("token", {"prompt": [49152]}), line("good", good)])
        errors = self.batch()
        self.assertIn("all 9 lines are done: 9 in this run (8 with an error)", errors)
        found = self.answers()
        self.assertEqual((found[None]["error"]["line"], found["url"]["error"]["line"]), (1, 3))
        self.assertIn("line 1: not JSON", found[None]["error"]["message"])
        self.assertEqual((found[None]["response"], found["url"]["response"]), (None, None))
        for key, param, word in (("field", "tools", "tools"), ("typo", "max_tokns", "did you mean 'max_tokens'"),
                                 ("value", None, "temperature"), ("long", None, "8192"), ("none", None, "empty"),
                                 ("token", None, "49152")):
            error = found[key]["response"]["body"]["error"]
            self.assertEqual((found[key]["response"]["status_code"], error["param"]), (400, param), error)
            self.assertIn(word, error["message"])
        self.assertEqual(found["good"]["response"]["status_code"], 200)
        self.assertIn("all 9 lines were done before", self.batch())

    def test_progress_on_a_terminal(self):
        self.write(many(40))
        ours, theirs = pty.openpty()
        with subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stderr=theirs) as process:
            os.close(theirs)
            shown = b""
            while True:
                try:
                    piece = os.read(ours, 4096)
                except OSError:  # the terminal's other end has closed
                    break
                shown += piece
            self.assertEqual(process.wait(PATIENCE_S), 0)
        os.close(ours)
        self.assertRegex(shown.decode(), r"\r\x1b\[Kbatch: \d+ of 40 lines, [\d.]+ lines/s, \d+ tokens/s")


class GoesOn(Case):
    def test_a_batch_that_is_killed_again_and_again(self):
        self.write(many(150))
        whole = self.folder / "whole.jsonl"
        self.batch(target=whole)
        expected = self.contents(whole)
        self.assertEqual(len(expected), 150)
        for goal, torn in ((1, b""), (40, b"x" * 7), (90, b""), (100, b"")):
            process = self.start()
            wait_until(lambda: self.entries_there() >= goal or process.poll() is not None, f"{goal} entries", PATIENCE_S)
            process.kill()
            process.communicate(timeout=PATIENCE_S)
            self.assertEqual(process.returncode, -9, "it ended before it was killed")
            if torn:  # as if the kill had come within a write
                with open(self.target, "ab") as file:
                    file.write(whole.read_bytes()[:60])
        self.batch()
        self.assertEqual(self.contents(), expected)

    def test_ctrl_c(self):
        self.write(many(150))
        process = self.start()
        wait_until(lambda: self.entries_there() >= 5, "entries", PATIENCE_S)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_S)
        self.assertEqual(process.returncode, 130, errors)
        self.assertIn(b"the same command goes on from here", errors)
        there = len(self.answers())
        self.assertLess(there, 150)
        self.assertIn(f"all 150 lines are done: {150 - there} in this run", self.batch())
        self.assertEqual(len(self.answers()), 150)

    def test_a_service_that_goes(self):
        graph = fragile_graph(self)
        service = Service(self.folder / "run", graph=graph)
        self.addCleanup(service.close)
        service.wait_ready()
        self.write(many(200))
        process = self.start(graph=graph, env=service.environment)
        wait_until(lambda: self.entries_there() >= 5, "entries", PATIENCE_S)
        os.kill(service.ranks[1][0], signal.SIGKILL)
        _, errors = process.communicate(timeout=PATIENCE_S)
        self.assertEqual(process.returncode, 5, errors)
        self.assertIn(b"[using the service 'demo']", errors)
        there = len(self.answers())
        self.assertLess(there, 200)
        service.end()
        self.batch(graph=graph, env=service.environment)
        self.assertEqual(len(self.answers()), 200)
        self.assertTrue(all(entry["response"]["status_code"] == 200 for entry in self.answers().values()))

    def test_a_full_disk(self):
        """A limit on the file's size stands for the disk's."""
        service = Service(self.folder / "run")
        self.addCleanup(service.close)
        service.wait_ready()
        self.write(many(100))
        errors = self.batch(status=5, env=service.environment,
                            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10000, resource.RLIM_INFINITY)))
        self.assertIn("out.jsonl: write: File too large", errors)
        there = len(self.answers())
        self.assertTrue(0 < there < 100, there)
        self.batch(env=service.environment)
        self.assertEqual(len(self.answers()), 100)
        service.end()


class Refusals(Case):
    def refused(self, status, *words, target=None):
        errors = self.batch(status=status, target=target)
        for word in words:
            self.assertIn(word, errors)

    def test_files(self):
        self.refused(3, "in.jsonl")
        self.source.write_text("")
        self.refused(3, "in.jsonl")
        self.write([line("a", {"prompt": "a"}), line("b", {"prompt": "a"}), line("a", {"prompt": "b"})])
        self.refused(3, "in.jsonl:3: custom_id 'a' is that of line 1")
        self.write([line("a", {"prompt": "a"})])
        self.refused(3, "cannot be written", target=self.folder / "no/out.jsonl")
        self.refused(3, "not a regular file", target="/dev/null")
        self.refused(3, "not an entry of this input", target=self.source)
        self.assertEqual(self.source.read_text(), line("a", {"prompt": "a"}) + "\n")
        self.target.write_text("my notes")
        self.refused(3, "no batch of this input")
        self.assertEqual(self.target.read_text(), "my notes")

    def test_the_output_of_another_input_or_model(self):
        self.write([line("a", {"prompt": "a", "max_tokens": 1})])
        self.batch()
        before = self.target.read_bytes()
        self.write([line("a", {"prompt": "b", "max_tokens": 1})])
        self.refused(3, "out.jsonl:1: not an entry of this input")
        self.assertEqual(self.target.read_bytes(), before)
        self.write([line("a", {"prompt": "a", "max_tokens": 1}), "nope", line("b", {"prompt": "b", "max_tokens": 1})])
        self.target.unlink()
        self.batch()
        answered = next(entry for entry in self.target.read_text().splitlines() if "system_fingerprint" in entry)
        self.target.write_text(answered.replace('"cpu-', '"gpu-') + "\n")
        self.refused(2, "would not belong together")

    def test_one_at_a_time(self):
        self.write(many(100))
        process = self.start()
        wait_until(lambda: self.entries_there() >= 1, "an entry", PATIENCE_S)
        self.refused(5, "another batch is writing it")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)

    def test_usage(self):
        for arguments in (["batch"], ["batch", "demo"], ["batch", "demo", "in"]):
            self.assertEqual(program.call(arguments).returncode, 2)
        self.write([line("a", {"prompt": "a"})])
        for flags, word in ((["--tenant", "a b"], "tenant"), (["--priority", 101], "--priority")):
            self.assertIn(word, self.batch(*flags, status=2))
        self.assertFalse(self.target.exists())


if __name__ == "__main__":
    unittest.main()
