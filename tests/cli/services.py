"""A service under test, in a folder of its own, and its clients. Waits for conditions, each with a deadline."""
import json
import os
import pathlib
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import unittest

import program
from processes import identity, ranks_of, stat_of, wait_until

PATIENCE_S = 60
MODEL = ["--model", program.model()]
RAW = [*MODEL, "--raw", "--prompt", "The three primary colours are"]
LONG = [*MODEL, "--prompt", "Tell me a story.", "--ignore-eos", "-n", "4000"]
USING = b"[using the service 'demo']"


def children(pid):
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := stat_of(int(entry.name))) and int(fields[1]) == pid:
            found[int(entry.name)] = (entry / "cmdline").read_bytes().split(b"\0")[1:2]
    return found


class Service:
    def __init__(self, folder, *arguments, graph="demo", model=program.model()):
        self.folder = folder
        self.environment = dict(os.environ, CHAINPUMP_RUN_DIR=str(folder))
        self.process = subprocess.Popen([program.program(), "serve", graph, "--model", model, *arguments], stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, env=self.environment, start_new_session=True)

    def wait_ready(self):
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE_S)
        line = self.process.stdout.readline().decode() if ready else ""
        assert line.startswith("ready: "), (line, self.process.poll(), self.process.stderr.read() if not line else "")
        self.gateway = self.child(b"gateway")
        self.agent = self.child(b"agent")
        self.ranks = ranks_of(self.agent)
        return line

    def child(self, verb):
        return next(pid for pid, found in children(self.process.pid).items() if found == [verb])

    def call(self, arguments, text=""):
        return subprocess.run([program.program(), *map(str, arguments)], input=text.encode(), capture_output=True,
                              env=self.environment, timeout=program.TIMEOUT_S)

    def start(self, *arguments):
        return subprocess.Popen([program.program(), *map(str, arguments)], stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.environment,
                                start_new_session=True)

    def status(self):
        done = self.call(["status", "demo", "-o", "json"])
        found = json.loads(done.stdout)["services"][0]
        assert done.returncode == (0 if found["ready"] else 5), done.stderr
        return found

    def wait_idle(self):
        return wait_until(lambda: (found := self.status())["requests"] == found["sequences"] == 0 and found,
                          "an idle service", 10)

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, errors.decode()

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE_S)
        for stream in (self.process.stdout, self.process.stderr):
            stream.close()

    def check_nothing_left(self):
        for rank in self.ranks.values():
            wait_until(lambda: identity(rank[0]) != rank, f"the end of rank process {rank[0]}", 5)
        left = [str(path) for path in self.folder.rglob("*")]
        assert not left, f"files left: {left}"


def collect(processes):
    """Reads what all of them say while they run; what it returns waits for their ends and gives (output, errors) of each."""
    outputs = [None] * len(processes)

    def read(i):
        outputs[i] = processes[i].communicate(timeout=PATIENCE_S)

    threads = [threading.Thread(target=read, args=(i,)) for i in range(len(processes))]
    for thread in threads:
        thread.start()

    def all_said():
        for thread in threads:
            thread.join()
        return outputs

    return all_said


def read_some(process, num_bytes=20):
    """Until so much text has come."""
    deadline = time.monotonic() + PATIENCE_S
    while num_bytes > 0:
        ready, _, _ = select.select([process.stdout], [], [], deadline - time.monotonic())
        text = ready and os.read(process.stdout.fileno(), 4096)
        assert text, f"no text: {process.stderr.read() if ready else ''}"
        num_bytes -= len(text)


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.folder.chmod(0o700)
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def serve(self, *arguments, **options):
        service = Service(self.folder, *arguments, **options)
        self.addCleanup(service.close)
        return service
