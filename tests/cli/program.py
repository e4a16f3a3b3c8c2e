"""Runs the program under test: what the scripts of this folder share. The program is
CHAINPUMP_TEST_PROGRAM, the model CHAINPUMP_TEST_MODEL; a missing one fails the test.
"""
import json
import os
import pathlib
import subprocess
import sys

TIMEOUT_S = 120  # of one run of the program: a hang, not a slow machine


def required(variable):
    path = os.environ.get(variable)
    if not path or not pathlib.Path(path).exists():
        sys.exit(f"{variable} names no file ({path}): run make setup and make build")
    return path


def program():
    return required("CHAINPUMP_TEST_PROGRAM")


def model():
    return required("CHAINPUMP_TEST_MODEL")


def call(arguments, text="", timeout_s=TIMEOUT_S):
    """The finished process, with bytes of standard output and error. `text` is standard input, str or bytes."""
    command = [program(), *map(str, arguments)]
    given = text.encode() if isinstance(text, str) else text
    try:
        return subprocess.run(command, input=given, capture_output=True, timeout=timeout_s)
    except subprocess.TimeoutExpired as expired:
        raise AssertionError(f"{' '.join(command)[:600]}\nno end within {timeout_s} s\n"
                             f"{(expired.stderr or b'').decode(errors='replace')}") from None


def succeed(arguments, text=""):
    """Standard output of a run that must end with status 0."""
    done = call(arguments, text)
    assert done.returncode == 0, (f"chainpump {' '.join(map(str, arguments))[:600]}\nexit status {done.returncode}\n"
                                  f"{done.stderr.decode(errors='replace')}")
    return done.stdout


def run_json(*arguments, text=""):
    return json.loads(succeed(["run", "demo", *arguments, "-o", "json"], text))


def score(requests, *arguments):
    """One dict of logprobs and argmax_ids for each request, a (prompt ids, target ids) pair."""
    lines = "".join(json.dumps({"prompt_ids": prompt, "target_ids": targets}) + "\n" for prompt, targets in requests)
    return [json.loads(line) for line in succeed(["score", "demo", *arguments], lines).splitlines()]
