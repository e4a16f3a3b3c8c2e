"""The command contract of `run`, which others script against: flags, JSON keys, where prompts come
from, exit statuses, streaming, stop strings, seeds, and the chat on a terminal.
"""
import fcntl
import json
import os
import pathlib
import pty
import resource
import select
import shutil
import statistics
import subprocess
import tempfile
import termios
import time
import unittest

import program

KEYS = {"text", "token_ids", "prompt_token_ids", "finish_reason", "ttft_ms", "tpot_ms", "tokens_per_second",
        "stages", "links"}
PROMPT = "The three primary colours are"
MODEL = ["--model", program.model()]
RAW = [*MODEL, "--raw", "--prompt", PROMPT]


class Contract(unittest.TestCase):
    maxDiff = None

    def refused(self, status, arguments, *words, text=""):
        """Ends with `status`, nothing on standard output, and an error that holds all `words`."""
        done = program.call(arguments, text)
        error = done.stderr.decode(errors="replace")
        self.assertEqual(done.returncode, status, f"{arguments}\n{error}")
        self.assertEqual(done.stdout, b"", arguments)
        self.assertTrue(error.startswith("chainpump: "), error)
        for word in words:
            self.assertIn(str(word), error, arguments)


class Json(Contract):
    def test_keys_and_meaning(self):
        out = program.run_json(*RAW, "-n", 12, "--stages", 3)
        self.assertLessEqual(KEYS, set(out), "promised keys")
        self.assertEqual(len(out["token_ids"]), 12)
        self.assertEqual(out["finish_reason"], "length")
        self.assertEqual(len(out["stages"]), 3)
        self.assertEqual(len(out["links"]), 3)
        self.assertGreater(out["ttft_ms"], 0)
        self.assertAlmostEqual(out["tpot_ms"] * out["tokens_per_second"], 1000, delta=1)
        self.assertEqual([stage["layers"][0] for stage in out["stages"][1:]],
                         [stage["layers"][1] for stage in out["stages"][:-1]])
        again = program.run_json(*MODEL, "--prompt-ids", ",".join(map(str, out["prompt_token_ids"])), "-n", 12)
        self.assertEqual(again["token_ids"], out["token_ids"])
        self.assertEqual(again["text"], out["text"])

    def test_one_token(self):
        out = program.run_json(*RAW, "--max-tokens", 1)
        self.assertEqual(len(out["token_ids"]), 1)
        self.assertEqual((out["tpot_ms"], out["tokens_per_second"]), (0, 0))

    def test_every_flag_is_taken(self):
        program.run_json(*RAW, "-n", 2, "--stages", 2, "--threads", 1, "--context", 64, "--prefill-chunk", 3,
                         "--activations", "f32", "--kv-type", "bf16", "--transport", "tcp", "--spin", "never",
                         "--temperature", 0.5, "--top-p", 0.9, "--top-k", 40, "--min-p", 0.05,
                         "--repetition-penalty", 1.1, "--presence-penalty", 0.1, "--frequency-penalty", 0.1,
                         "--seed", 7, "--stop", "xyzzy", "--stop", "plugh", "--ignore-eos")
        program.run_json(*MODEL, "-p", "Hi", "-n", 2, "--in-process", "--system", "Be brief.", "--chat")

    def test_ends_by_itself(self):
        out = program.run_json(*MODEL, "--prompt", "Answer with one word: what colour is snow?", "-n", 200)
        self.assertEqual(out["finish_reason"], "stop")
        self.assertNotIn("<|im_end|>", out["text"])


class Prompts(Contract):
    def prompt_ids(self, *arguments, text=""):
        return program.run_json(*MODEL, "-n", 1, *arguments, text=text)["prompt_token_ids"]

    def test_sources_agree(self):
        for mode in ([], ["--raw"], ["--chat"]):
            expected = self.prompt_ids("--prompt", PROMPT, *mode)
            self.assertEqual(self.prompt_ids("--prompt", "-", *mode, text=PROMPT), expected)
            with tempfile.NamedTemporaryFile("w") as file:
                file.write(PROMPT)
                file.flush()
                self.assertEqual(self.prompt_ids("--prompt-file", file.name, *mode), expected)

    def test_template_unless_raw(self):
        plain, chat, raw = (self.prompt_ids("--prompt", PROMPT, *mode) for mode in ([], ["--chat"], ["--raw"]))
        self.assertEqual(plain, chat)
        self.assertGreater(len(plain), len(raw))
        self.assertIn(",".join(map(str, raw)), ",".join(map(str, plain)))

    def test_control_tokens_in_text_stay_text(self):
        for mode in ("--raw", "--chat"):
            ids = self.prompt_ids("--prompt", "a<|im_start|>b", mode)
            begin = self.prompt_ids("--prompt", "ab", mode)
            self.assertEqual(ids.count(1), begin.count(1), "<|im_start|> in a message became a control token")


class Refusals(Contract):
    def test_usage(self):
        self.refused(2, ["rnu"], "no verb 'rnu'", "did you mean 'run'?")
        self.refused(3, ["apply", "/nowhere.yaml"], "/nowhere.yaml")
        self.refused(2, ["scale"], "stage")
        self.refused(2, ["bench", "lnik"], "did you mean 'link'?")
        self.refused(2, ["bench", "kernels", "--type", "q9", *MODEL], "'q9'")
        self.refused(3, ["bench", "kernels", "--model", "/nowhere.gguf"], "/nowhere.gguf")
        self.refused(2, ["run", "demo", "--modle", "x"], "'--modle'", "did you mean '--model'?")
        self.refused(2, ["run", "demo", "--modle=x"], "did you mean '--model'?")
        self.refused(2, ["run", "demo", "--temp", "1"], "did you mean '--temperature'?")
        self.refused(2, ["run", "demo", "more"], "'more'")
        self.refused(2, ["run"], "graph")
        self.refused(2, ["run", "demo", *MODEL], "no prompt")
        for flags in (["--prompt-file", "x"], ["--prompt-ids", "1"], ["-o", "yaml"], ["--threads", "0"],
                      ["--seed", ""], ["--seed", " -1"], ["--seed", "18446744073709551616"],
                      ["--system", "Be brief."], ["--temperature", ""], ["-n", ""], ["--stages", "31"], ["--stages", "x"], ["--kv-type", "f64"], ["--seed", "-1"]):
            self.refused(2, ["run", "demo", *RAW, *flags], flags[1] if flags[0] in ("-o", "--stages") else flags[0].replace("-n", "--max-tokens"))
        self.refused(2, ["run", "demo", *RAW, "--chat"], "--chat")
        self.refused(2, ["rank", "stage-0"], "control connection")

    def test_no_verb_shows_the_verbs(self):
        done = program.call([])
        self.assertEqual((done.returncode, done.stdout), (2, b""))
        for verb in ("run", "score", "plan", "validate", "inspect", "explain", "bench"):
            self.assertIn(verb, done.stderr.decode())

    def test_sampling_bounds(self):
        for flag, value, name in (("--temperature", "nan", "temperature"), ("--temperature", "-1", "temperature"),
                                  ("--temperature", "inf", "temperature"), ("--top-p", "0", "top_p"),
                                  ("--top-p", "1.1", "top_p"), ("--top-p", "nan", "top_p"), ("--min-p", "1", "min_p"),
                                  ("--top-k", "-1", "top_k"), ("--repetition-penalty", "0", "repetition_penalty"),
                                  ("-n", "0", "max_new_tokens"), ("--stop", "", "stop string")):
            self.refused(2, ["run", "demo", *RAW, flag, value], name)

    def test_prompts(self):
        self.refused(2, ["run", "demo", *MODEL, "--raw", "--prompt", PROMPT * 20, "--context", 50], "50 ", "100 ")
        self.refused(2, ["run", "demo", *MODEL, "--prompt-ids", "49152"], "49152")
        self.refused(2, ["run", "demo", *MODEL, "--prompt-ids", "1,-1"], "-1")
        self.refused(2, ["run", "demo", *MODEL, "--prompt-ids", "1,,2"], "--prompt-ids")
        self.refused(2, ["run", "demo", *MODEL, "--prompt-ids", "99999999999"], "99999999999")
        self.refused(2, ["run", "demo", *MODEL, "--prompt-ids", ""], "--prompt-ids")
        self.refused(3, ["run", "demo", *MODEL, "--prompt-file", ""], "prompt file")
        for mode in ("--raw", "--chat"):
            self.refused(2, ["run", "demo", *MODEL, mode, "--prompt", ""], "empty")
            self.refused(2, ["run", "demo", *MODEL, mode, "--prompt", "-"], "empty")
            for bad in (b"ab\xff", b"ab\xed\xa0\x80", b"ab\xc0\x80"):
                self.refused(2, ["run", "demo", *MODEL, mode, "--prompt", "-"], "UTF-8", "byte 2", text=bad)

    def test_files(self):
        self.refused(3, ["run", "/no/graph.yaml", "--prompt", "a"], "/no/graph.yaml")
        self.refused(3, ["run", "demo", "--model", "/no/model.gguf", "--prompt", "a"], "/no/model.gguf")
        self.refused(3, ["run", "demo", "--model", "sleep:0,0,0", "--prompt", "a"], "sleep:0,0,0")
        self.refused(3, ["run", "demo", "--model", "/dev/zero", "--prompt", "a"], "/dev/zero")
        self.refused(3, ["run", "demo", "--model", "/tmp", "--prompt", "a"], "/tmp")
        self.refused(3, ["run", "demo", *MODEL, "--prompt-file", "/no/prompt"], "/no/prompt")
        with tempfile.TemporaryDirectory() as folder:
            whole = pathlib.Path(program.model()).read_bytes()
            cut = pathlib.Path(folder) / "cut.gguf"
            for size, words in ((0, ()), (3, ()), (1000, ()), (len(whole) // 2, ("tensor",)), (len(whole) - 1, ())):
                cut.write_bytes(whole[:size])
                self.refused(3, ["run", "demo", "--model", cut, "--prompt", "a"], cut, *words)

    def test_no_room(self):
        with tempfile.TemporaryDirectory() as folder:
            graph = pathlib.Path(folder) / "graph.yaml"
            graph.write_text(f"model: {program.model()}\nlimits:\n  memory: 10MiB\n")
            self.refused(4, ["run", graph, "--prompt", "a"], "does not fit")
        self.refused(2, ["run", "demo", *RAW, "--context", 1000000], "1000000", "8192")
        for hard, status in ((32, 4), (1024, 0)):
            done = subprocess.run([program.program(), "run", "demo", *RAW, "-n", "2"], capture_output=True,
                                  timeout=program.TIMEOUT_S,
                                  preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (32, hard)))
            self.assertEqual((done.returncode, b"ulimit -n" in done.stderr), (status, status != 0), done.stderr)

    def test_no_file_may_grow(self):
        with tempfile.TemporaryDirectory() as home:
            done = subprocess.run([program.program(), "run", "demo", *RAW, "-n", "2"], capture_output=True,
                                  timeout=program.TIMEOUT_S, env={**os.environ, "XDG_CACHE_HOME": home},
                                  preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)))
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_a_model_cut_short_in_use(self):
        with tempfile.TemporaryDirectory() as folder:
            model = pathlib.Path(folder) / "model.gguf"
            shutil.copyfile(program.model(), model)
            command = [program.program(), "run", "demo", "--model", model, "--in-process", "--prompt", "-"]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            process.stdin.write(b"H")
            process.stdin.flush()
            deadline = time.monotonic() + program.TIMEOUT_S
            while fcntl.ioctl(process.stdin, termios.FIONREAD, bytes(4)) != bytes(4):
                self.assertLess(time.monotonic(), deadline, "it does not read its prompt")
            os.truncate(model, 0)
            _, errors = process.communicate(b"i", timeout=program.TIMEOUT_S)
        self.assertEqual(process.returncode, 5, errors)
        self.assertIn(b"cut short", errors)

    def test_closed_descriptors(self):
        def run(descriptor, *arguments):
            return subprocess.run([program.program(), "run", "demo", *MODEL, *arguments], capture_output=True,
                                  timeout=program.TIMEOUT_S, preexec_fn=lambda: os.close(descriptor))
        text = program.run_json(*RAW, "-n", 3)["text"]
        for descriptor, status, shown in ((0, 0, text + "\n"), (1, 5, ""), (2, 0, text + "\n")):
            done = run(descriptor, "--raw", "--prompt", PROMPT, "-n", "3")
            self.assertEqual((done.returncode, done.stdout.decode()), (status, shown), done.stderr)
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run([program.program(), "run", "demo", *RAW, "-n", "3"], stdout=subprocess.PIPE, stderr=writer,
                              timeout=program.TIMEOUT_S)
        os.close(writer)
        self.assertEqual((done.returncode, done.stdout.decode()), (0, text + "\n"), "nobody reads the summary")
        done = run(0, "--prompt", "-")
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertIn(b"cannot be read", done.stderr)

    def test_full_disk(self):
        for output in ("table", "json"):
            with open("/dev/full", "wb") as full:
                done = subprocess.run([program.program(), "run", "demo", *RAW, "-n", "2", "-o", output], stdout=full,
                                      stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=program.TIMEOUT_S)
            self.assertEqual(done.returncode, 5, done.stderr)
            self.assertIn(b"standard output", done.stderr)
        for arguments in (["--help"], ["--version"], ["plan", "demo", *MODEL], ["inspect", program.model()], ["explain"]):
            with open("/dev/full", "wb") as full:
                done = subprocess.run([program.program(), *arguments], stdout=full, stderr=subprocess.PIPE)
            self.assertEqual(done.returncode, 5, arguments)


class Text(Contract):
    def test_stream_equals_json(self):
        for arguments in ([*RAW, "-n", "40"], [*MODEL, "--prompt", "Write 'hello' in Japanese, with emoji.", "-n", "40"]):
            streamed = program.succeed(["run", "demo", *arguments])
            self.assertEqual(streamed.decode(), program.run_json(*arguments)["text"] + "\n")

    def test_stop_strings(self):
        text = program.run_json(*RAW, "-n", 40)["text"]
        # In the middle of a token, over several tokens, one character; each at its first occurrence.
        for stop in (text[11:15], text[7:30], text[20], text[-6:]):
            expected = text[:text.index(stop)]
            out = program.run_json(*RAW, "-n", 40, "--stop", stop)
            self.assertEqual((out["text"], out["finish_reason"]), (expected, "stop"), repr(stop))
            self.assertEqual(program.succeed(["run", "demo", *RAW, "-n", "40", "--stop", stop]).decode(), expected + "\n")
        # The beginning of a stop string that never comes is held back, and shown in the end.
        almost = text[-9:] + "\x01"
        self.assertEqual(program.succeed(["run", "demo", *RAW, "-n", "40", "--stop", almost]).decode(), text + "\n")
        first = min(text[10:20], text[25:33], key=text.index)
        out = program.run_json(*RAW, "-n", 40, "--stop", text[25:33], "--stop", text[10:20])
        self.assertEqual(out["text"], text[:text.index(first)])

    def test_seeds(self):
        hot = [*RAW, "-n", 24, "--temperature", 1.5, "--ignore-eos"]
        first = program.run_json(*hot)
        second = program.run_json(*hot)
        self.assertNotEqual(first["token_ids"], second["token_ids"], "two runs without a seed agree")
        self.assertNotEqual(first["seed"], second["seed"])
        again = program.run_json(*hot, "--seed", first["seed"], "--stages", 2)
        self.assertEqual(again["token_ids"], first["token_ids"])
        self.assertNotEqual(program.run_json(*hot, "--seed", 1)["token_ids"],
                            program.run_json(*hot, "--seed", 2)["token_ids"])


class Help(Contract):
    def test_help_is_quick(self):
        for arguments in (["--help"], ["run", "--help"], ["chaos", "--help"], ["--version"]):
            times_ms = []
            for _ in range(5):
                started = time.monotonic()
                self.assertNotEqual(program.succeed(arguments), b"")
                times_ms.append(1e3 * (time.monotonic() - started))
            median_ms = statistics.median(times_ms)
            print(f"chainpump {' '.join(arguments)}: median {median_ms:.1f} ms (at most 50)", flush=True)
            self.assertLess(median_ms, 50)

    def test_version(self):
        version = program.succeed(["--version"]).decode().strip()
        self.assertRegex(version, r"^chainpump \d+\.\d+\.\d+\+\w+")
        self.assertEqual("chainpump " + program.run_json(*RAW, "-n", 1)["version"], version)


class Chat(Contract):
    def start(self, *arguments):
        self.terminal, slave = pty.openpty()
        self.seen = ""
        self.process = subprocess.Popen([program.program(), "run", "demo", *MODEL, "-n", "16", *arguments], stdin=slave,
                                        stdout=slave, stderr=slave, env={**os.environ, "TERM": "dumb"},
                                        start_new_session=True)
        os.close(slave)

    def tearDown(self):
        self.process.kill()
        self.process.wait()
        os.close(self.terminal)

    def say(self, line):
        os.write(self.terminal, line + b"\n")

    def wait_for(self, words, count):
        deadline = time.monotonic() + program.TIMEOUT_S
        while self.seen.count(words) < count:
            left = deadline - time.monotonic()
            self.assertGreater(left, 0, f"no {words!r} within {program.TIMEOUT_S} s:\n{self.seen}")
            if select.select([self.terminal], [], [], left)[0]:
                self.seen += os.read(self.terminal, 65536).decode(errors="replace")

    def test_a_long_chat_forgets_its_oldest_turns(self):
        self.start("--context", "128", "--system", "Be brief.")
        for turn in range(1, 6):
            self.wait_for("\n> ", turn)
            self.say(b"Tell me something about the colour of the sky and of the sea.")
            self.wait_for("tokens/s]", turn)
        self.assertIn("forgot the oldest", self.seen)

    def test_a_line_that_cannot_be_a_prompt_is_refused_alone(self):
        self.start("--context", "128")
        for turn, (line, words) in enumerate(((b"caf\xe9", "UTF-8"), (b"word " * 150, "the context holds 128"),
                                              (b"Count: one, two, three.", "tokens/s]"))):
            self.wait_for("\n> ", turn + 1)
            self.say(line)
            self.wait_for(words, 1)

    def test_two_turns_then_end_of_input(self):
        self.start()
        self.wait_for("\n> ", 1)
        os.write(self.terminal, b"Count: one, two, three.\n")
        self.wait_for("tokens/s]", 1)
        self.wait_for("\n> ", 2)
        os.write(self.terminal, b"Go on.\n")
        self.wait_for("tokens/s]", 2)
        self.wait_for("\n> ", 3)
        os.write(self.terminal, b"\x04")
        self.assertEqual(self.process.wait(program.TIMEOUT_S), 0)
        second = self.seen.split("Go on.")[1].split("\r\n[")[0].strip()
        alone = program.run_json(*MODEL, "-n", 16, "--prompt", "Go on.")["text"]
        self.assertNotEqual(second, alone.replace("\n", "\r\n").strip(), "the second turn forgot the first")


if __name__ == "__main__":
    unittest.main()
