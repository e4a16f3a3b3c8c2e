"""A deployment over three machines, which are network namespaces: its answers are those of one process, whoever of
them dies or is cut off, and nobody without a certificate of the cluster gets in. Waits for conditions, each with a
deadline.
"""
import json
import os
import signal
import unittest

from cluster_world import MODEL, PATIENCE_S, ClusterTest
from machines import Machines, why_not
from processes import ranks_of, wait_until


@unittest.skipIf(why_not(), f"no machines here: {why_not()}")
class Cluster(ClusterTest):
    def make_machines(self):
        return Machines("abc")

    def test_a_chain_over_three_machines(self):
        serve, nodes = self.begin("[{nodes: [a]}, {nodes: [b]}, {nodes: [c]}]")
        self.assertEqual(self.places(), ["a", "b", "c"])
        again = self.node("b")
        again.errors.wait_for("there is a node 'b' already")
        again.send_signal(signal.SIGTERM)
        wait_until(lambda: again.poll() == 0, "the end of another b", 10)
        self.assertIn(b"@b", self.call("a", "status", "demo").stdout)
        planned = self.call("a", "plan", self.graph, *MODEL, "-o", "json")
        self.assertEqual(planned.returncode, 0, planned.stderr)
        plan = json.loads(planned.stdout)
        self.assertEqual(plan["over"], "over the nodes of the service 'demo'")
        self.assertEqual([stage["nodes"] for stage in plan["stages"]], [["a"], ["b"], ["c"]])
        running, check = self.ask_all()
        self.wait_under_way(running)
        self.check_trace()
        check()
        self.end(serve, nodes)

    def check_trace(self):
        """Every rank's steps, by one clock: a microbatch has left one stage when it comes to the next."""
        path = self.folder / "trace.json"
        done = self.call("a", "trace", "demo", "-d", "500ms", "-o", path)
        self.assertEqual(done.returncode, 0, done.stderr)
        events = json.loads(path.read_text())["traceEvents"]
        names = [event["args"]["name"] for event in events if event["name"] == "process_name"]
        for name in "abc":
            self.assertTrue(any(f"@{name}" in each for each in names), names)
        self.assertEqual(len({event["pid"] for event in events if event.get("ph") == "X"}), 3)
        begins = {event["id"]: event["ts"] for event in events if event["ph"] == "s"}
        ways = sorted(event["ts"] - begins[event["id"]] for event in events if event["ph"] == "f" and event["id"] in begins)
        self.assertGreater(ways[len(ways) // 2], -5000, "us from one stage to the next, clocks aligned")

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
        """Its stage's standby takes its place. Healed, it is a node again, and its rank from before is ended; another is
        started there when the machine of the standby dies.
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
        wait_until(lambda: cut_off not in ranks_of(nodes["c"].pid).values(), "the end of what was cut off", 2)
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
        alone = self.call("a", "plan", graph, *MODEL)
        self.assertEqual(alone.returncode, 0, alone.stderr)
        self.assertIn(b"no service 'demo' runs here: a, b are taken to be machines like this one", alone.stdout)
        serving = ["serve", graph, *MODEL, "--listen", address]
        certified = [*serving, "--certificates", self.authority / "a"]
        for status, words, arguments in (
                (2, "needs --certificates", serving),
                (2, "needs one with --role coordinator", [*serving, "--certificates", self.authority / "b"]),
                (3, "No such file", [*serving, "--certificates", self.folder / "nowhere"]),
                (3, "has no address there", [*certified, "--data-network", "eth9"]),
                (5, "no node named or labelled b has joined within 1 s", [*certified, "--wait-nodes", "1"]),
                (2, "`nodes` are those that have joined", ["run", graph, *MODEL, "--service", "none", "--prompt", "a"]),
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
