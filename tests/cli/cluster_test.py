"""A deployment over three machines, which are network namespaces: its answers are those of one process, whoever of
them dies or is cut off, and nobody without a certificate of the cluster gets in. Waits for conditions, each with a
deadline.
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
from machines import Machines, why_not
from processes import ranks_of, stat_of, wait_until

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


@unittest.skipIf(why_not(), f"no machines here: {why_not()}")
class Cluster(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.folder.chmod(0o700)
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.machines = Machines("abc")
        self.machines.__enter__()
        self.addCleanup(self.machines.__exit__)
        self.running = []
        self.addCleanup(self.end_all)
        self.environment = dict(os.environ, CHAINPUMP_RUN_DIR=str(self.folder / "run"))
        self.authority = self.folder / "ca"
        self.must("cert", "init", self.authority)
        self.must("cert", "issue", self.authority, "a", "--role", "coordinator")
        for name in "bc":
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
            f"name: demo\nthreads: 1\nkv: {{context: 512}}\nstages: {stages}\nfailover: {{restarts: 20}}\n")
        serve = self.start("a", "serve", self.graph, *MODEL, "--listen", f"{self.machines.address('a')}:7300", "--certificates",
                           self.authority / "a", "--data-network", "data", *more)
        serve.errors = Reader(serve.stderr)
        serve.output = Reader(serve.stdout)
        return serve

    def begin(self, stages, *more):
        serve = self.serve(stages, *more)
        serve.errors.wait_for("nodes may join")
        nodes = {name: self.node(name) for name in "bc"}
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

    def test_a_chain_over_three_machines(self):
        serve, nodes = self.begin("[{nodes: [a]}, {nodes: [b]}, {nodes: [c]}]")
        self.assertEqual(self.places(), ["a", "b", "c"])
        again = self.node("b")
        again.errors.wait_for("there is a node 'b' already")
        again.send_signal(signal.SIGTERM)
        wait_until(lambda: again.poll() == 0, "the end of another b", 10)
        self.assertIn(b"@b", self.call("a", "status", "demo").stdout)
        _, check = self.ask_all()
        check()
        self.end(serve, nodes)

    def test_ranks_and_nodes_die(self):
        """A rank of another machine; then the machine itself, whose stage another one takes over; then it comes back."""
        serve, nodes = self.begin("[{nodes: [b]}, {nodes: [a]}, {nodes: [c, b]}]")
        self.assertEqual(self.places(), ["b", "a", "c"])
        running, check = self.ask_all()
        self.wait_under_way(running)
        for name in "bc":
            (rank,) = ranks_of(nodes[name].pid).values()
            os.kill(rank[0], signal.SIGKILL)
            wait_until(lambda: list(ranks_of(nodes[name].pid).values()) not in ([], [rank]), f"another rank on {name}")
        check()
        running, check = self.ask_all()
        self.wait_under_way(running)
        nodes["c"].kill()
        wait_until(lambda: len(ranks_of(nodes["b"].pid)) == 2, "both on b")
        check()
        self.assertEqual(self.places(), ["b", "a", "b"])
        nodes["c"].communicate()
        nodes["c"] = self.node("c")
        nodes["c"].errors.wait_for("joined")
        os.kill(ranks_of(nodes["b"].pid)[2][0], signal.SIGKILL)
        wait_until(lambda: len(ranks_of(nodes["c"].pid)) == 1, "a rank on c again")
        running, check = self.ask_all()
        check()
        self.end(serve, nodes)

    def test_a_machine_is_cut_off(self):
        """Its stage's standby takes its place. Healed, it is a node again, whose rank from before is ended when another is
        started there: as the machine of the standby dies.
        """
        serve, nodes = self.begin("[{nodes: [a]}, {nodes: [c, b], standbys: 1}]")
        self.assertEqual(self.places(), ["a", "c"])
        (cut_off,) = ranks_of(nodes["c"].pid).values()
        running, check = self.ask_all()
        self.wait_under_way(running)
        self.machines.cut("c")
        wait_until(lambda: self.places() == ["a", "b"], "the standby in its place", 15)
        check()
        nodes["c"].errors.wait_for("was lost")
        nodes["c"].errors.text = b""
        self.machines.heal("c")
        nodes["c"].errors.wait_for("joined")
        self.assertEqual(list(ranks_of(nodes["c"].pid).values()), [cut_off])
        running, check = self.ask_all()
        self.wait_under_way(running)
        nodes["b"].kill()
        wait_until(lambda: self.places() == ["a", "c"], "a rank on c again", 30)
        self.assertNotIn(cut_off, ranks_of(nodes["c"].pid).values())
        check()
        self.end(serve, nodes)

    def test_serve_is_started_anew(self):
        serve, nodes = self.begin("2", "--nodes", "2")
        serve.kill()
        serve.communicate()
        for node in nodes.values():
            node.errors.wait_for("was lost")
        serve = self.serve("[{nodes: [b]}, {nodes: [c]}]")
        serve.output.wait_for("ready: ")
        self.assertEqual(self.places(), ["b", "c"])
        _, check = self.ask_all()
        check()
        self.end(serve, nodes)

    def test_refusals(self):
        address = f"{self.machines.address('a')}:7300"
        other = self.folder / "other"
        self.must("cert", "init", other)
        for name, role in (("b", "node"), ("a", "coordinator")):
            self.must("cert", "issue", other, name, "--role", role)
        graph = self.folder / "graph.yaml"
        graph.write_text("name: demo\nthreads: 1\nstages: [{nodes: [a]}, {nodes: [b]}]\n")
        serving = ["serve", graph, *MODEL, "--listen", address]
        certified = [*serving, "--certificates", self.authority / "a"]
        for status, words, arguments in (
                (2, "needs --certificates", serving),
                (2, "needs one with --role coordinator", [*serving, "--certificates", self.authority / "b"]),
                (3, "No such file", [*serving, "--certificates", self.folder / "nowhere"]),
                (3, "has no address there", [*certified, "--data-network", "eth9"]),
                (5, "no node named or labelled b has joined within 1 s", [*certified, "--wait-nodes", "1"]),
                (2, "`nodes` are those that have joined", ["run", graph, *MODEL, "--service", "none", "--prompt", "a"]),
                (2, "`nodes` are those that have joined", ["plan", graph, *MODEL]),
                (2, "of coordinator/a, not of a node", ["node", "--join", address, "--certificates", self.authority / "a"]),
                (2, "10.9.9.9:0: cannot listen", ["node", "--join", address, "--certificates", self.authority / "b",
                                                  "--listen", "10.9.9.9"])):
            done = self.call("a", *arguments)
            self.assertEqual(done.returncode, status, (arguments, done.stderr))
            self.assertIn(words, done.stderr.decode())
        serve = self.serve("[{nodes: [a]}, {nodes: [b]}]")
        serve.errors.wait_for("nodes may join")
        for words, folder, more in (("is refused here", other / "b", []), ("has labels that are none", self.authority / "b",
                                                                           ["--labels", "x=y"])):
            done = self.call("b", "node", "--join", address, "--certificates", folder, *more)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(words, done.stderr.decode())
        # Links have no way there: none is guessed.
        node = self.start("b", "node", "--join", address, "--certificates", self.authority / "b")
        wait_until(lambda: serve.poll() is not None, "the end of serve")
        self.assertEqual(serve.returncode, 2)
        serve.errors.wait_for("node 'b' names no network that is trusted")
        node.send_signal(signal.SIGTERM)
        node.communicate(timeout=PATIENCE_S)
        self.assertEqual(node.returncode, 0)


if __name__ == "__main__":
    unittest.main()
