"""What tests of a deployment over several machines have in common: a cluster's certificates, its processes, and requests whose
answers are known. Waits for conditions, each with a deadline.
"""
import functools
import json
import os
import pathlib
import select
import shutil
import signal
import subprocess
import tempfile
import unittest

import program
from processes import ranks_of, wait_until

PATIENCE_S = 60
MODEL = ["--model", program.model()]
ASK = [*MODEL, "--raw", "--ignore-eos", "-n", "200", "-o", "json", "--prompt"]
PROMPTS = [("The three primary colours are", []), ("Once upon a time", ["--temperature", "0.9", "--seed", "7"]),
           ("A list of rivers:", ["--temperature", "0.7", "--top-p", "0.9", "--seed", "8"])]


@functools.cache
def calm():
    """What is to come of each request, by the one law: of one process on one machine."""
    runs = [[program.program(), "run", "demo", "--service", "none", "--stages", "1", *ASK, prompt, *more] for prompt, more in PROMPTS]
    return [json.loads(subprocess.run(run, capture_output=True, check=True).stdout)["token_ids"] for run in runs]


class Reader:
    """What a process says on a pipe, line by line, with a deadline."""

    def __init__(self, stream):
        self.stream = stream
        self.text = b""

    def wait_for(self, words, patience_s=PATIENCE_S):
        def found():
            ready, _, _ = select.select([self.stream], [], [], 0.05)
            if ready:
                self.text += os.read(self.stream.fileno(), 65536)
            return words.encode() in self.text
        wait_until(found, f"'{words}' in {self.text!r}", patience_s)
        return self.text.decode()


class ClusterTest(unittest.TestCase):
    """Machines `a`, where the coordinator is, `b`, ... at 10.77.0.1, .2, ... on the interface `data_network`."""
    data_network = "data"
    failover = "{restarts: 20}"

    def make_machines(self):
        raise NotImplementedError

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.folder.chmod(0o700)
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.machines = self.make_machines()
        self.machines.__enter__()
        self.addCleanup(self.machines.__exit__)
        self.running = []
        self.addCleanup(self.end_all)
        self.environment = dict(os.environ, CHAINPUMP_RUN_DIR=str(self.folder / "run"))
        self.authority = self.folder / "ca"
        self.must("cert", "init", self.authority)
        self.must("cert", "issue", self.authority, "a", "--role", "coordinator")
        for name in self.machines.names[1:]:
            self.must("cert", "issue", self.authority, name)

    def end_all(self):
        for process in self.running:
            if process.poll() is None:
                process.kill()
            process.communicate()

    def must(self, *arguments):
        done = program.call(arguments)
        self.assertEqual(done.returncode, 0, done.stderr)

    def start(self, machine, *arguments):
        process = subprocess.Popen(self.machines.command(machine, *arguments), stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.environment,
                                   start_new_session=True)
        self.running.append(process)
        return process

    def call(self, machine, *arguments):
        return subprocess.run(self.machines.command(machine, *arguments), stdin=subprocess.DEVNULL, capture_output=True,
                              env=self.environment, timeout=PATIENCE_S)

    def node(self, name, *more):
        """A node process; its errors can be waited for."""
        node = self.start(name, "node", "--join", f"{self.machines.address('a')}:7300", "--certificates",
                          self.authority / name, "--data-network", "10.77.0.0/24", *more)
        node.errors = Reader(node.stderr)
        return node

    def serve(self, stages, *more):
        self.graph = str(self.folder / "graph.yaml")
        pathlib.Path(self.graph).write_text(
            f"name: demo\nthreads: 1\nkv: {{context: 512}}\nstages: {stages}\nfailover: {self.failover}\n")
        serve = self.start("a", "serve", self.graph, *MODEL, "--listen", f"{self.machines.address('a')}:7300", "--certificates",
                           self.authority / "a", "--data-network", self.data_network, *more)
        serve.errors = Reader(serve.stderr)
        serve.output = Reader(serve.stdout)
        return serve

    def begin(self, stages, *more):
        serve = self.serve(stages, *more)
        serve.errors.wait_for("nodes may join")
        nodes = {name: self.node(name) for name in self.machines.names[1:]}
        serve.output.wait_for("ready: ")
        return serve, nodes

    def ask_all(self):
        """Requests that run, and how to check that they end as they should."""
        expected = calm()
        running = [self.start("a", "run", self.graph, *ASK, prompt, *more) for prompt, more in PROMPTS]

        def check():
            for process, tokens in zip(running, expected):
                out, errors = process.communicate(timeout=PATIENCE_S)
                self.assertEqual(process.returncode, 0, errors)
                self.assertIn(b"using the service", errors)
                self.assertEqual(json.loads(out)["token_ids"], tokens)
        return running, check

    def status(self):
        done = self.call("a", "status", "demo", "-o", "json")
        return json.loads(done.stdout)["services"][0] if done.returncode == 0 else {"requests": -1}

    def wait_under_way(self, running):
        wait_until(lambda: self.status()["requests"] == len(running), "all requests under way")

    def places(self):
        return [stage.get("node") for stage in self.status().get("stages", [])]

    def end(self, serve, nodes):
        serve.send_signal(signal.SIGTERM)
        wait_until(lambda: serve.poll() is not None, "the end of serve", 30)
        self.assertEqual(serve.returncode, 0, serve.errors.text)
        for name, node in nodes.items():
            if node.poll() is None:
                wait_until(lambda: not ranks_of(node.pid), f"no rank on {name}", 10)
                node.send_signal(signal.SIGTERM)
                wait_until(lambda: node.poll() is not None, f"the end of node {name}", 10)
                self.assertEqual(node.returncode, 0, node.errors.text)
