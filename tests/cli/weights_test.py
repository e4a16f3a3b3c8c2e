"""Weights of nodes that lack the model file: each rank fetches its share, and no more, from those that have it, checks it, and
goes on where it was when either side dies. The machines are network namespaces with mounts of their own. Waits for
conditions, each with a deadline.
"""
import os
import pathlib
import re
import shutil
import signal
import subprocess
import unittest

import program
from cluster_world import ClusterTest
from machines import Machines, why_not
from processes import wait_until

FILE = pathlib.Path(program.model()).resolve()
FETCHED = re.compile(rb"([0-9.]+) MB of weights were fetched")


class LackingMachines(Machines):
    """As they are; but on those of `lacking` the folder of the model file is empty, and each has its own cache."""

    def __init__(self, names, caches):
        super().__init__(names)
        self.lacking = set(self.names[1:])
        self.caches = caches
        self.cache_bytes = {}

    def command(self, name, *arguments):
        cache = self.caches / name
        cache.mkdir(mode=0o700, exist_ok=True)
        script = f'export XDG_CACHE_HOME="{cache}"'
        if name in self.lacking:
            script += f' && mount -t tmpfs none "{FILE.parent}"'
        if name in self.cache_bytes:
            script += f' && mount -t tmpfs -o mode=700,size={self.cache_bytes[name]} none "{cache}"'
        whole = super().command(name, *arguments)
        at = whole.index(program.program())
        return [*whole[:at], "sh", "-c", f'{script} && exec "$@"', "sh", *whole[at:]]

    def slow_down(self, name, rate):
        subprocess.run(["ip", "netns", "exec", self.space(name), "tc", "qdisc", "replace", "dev", "data", "root", "tbf", "rate", rate,
                        "burst", "64kb", "latency", "50ms"], check=True, capture_output=True)


@unittest.skipIf(why_not(), f"no machines here: {why_not()}")
class Weights(ClusterTest):
    def make_machines(self):
        caches = self.folder / "caches"
        caches.mkdir()
        return LackingMachines("abc", caches)

    def kept(self, name):
        """Bytes of weights in a node's cache."""
        return sum(entry.stat().st_blocks * 512 for entry in (self.folder / "caches" / name).glob("chainpump/weights/*.gguf"))

    def fetched_mb(self, node):
        return sum(float(mb) for mb in FETCHED.findall(node.errors.text))

    def read_on(self, *nodes):
        """Takes what they have said."""
        for node in nodes:
            try:
                node.errors.wait_for("nothing of the kind", 0.2)
            except AssertionError:
                pass

    def test_each_rank_fetches_its_share_once(self):
        serve, nodes = self.begin("[{nodes: [a], layers: 0-9}, {nodes: [b], layers: 10-19}, {nodes: [c], layers: 20-29}]")
        _, check = self.ask_all()
        check()
        self.read_on(*nodes.values())
        whole = FILE.stat().st_size
        for name, node in nodes.items():
            self.assertLess(self.kept(name), 0.6 * whole, name)
            self.assertGreater(self.fetched_mb(node) * 1e6, 0.1 * whole, node.errors.text)
            self.assertLess(self.fetched_mb(node) * 1e6, self.kept(name) + 1e6)
        self.assertEqual(self.kept("a"), 0)
        nodes["c"].kill()
        nodes["c"].communicate()
        nodes["c"] = self.node("c")
        wait_until(lambda: self.status().get("ready"), "c's rank again")
        _, check = self.ask_all()
        check()
        self.read_on(nodes["c"])
        self.assertEqual(self.fetched_mb(nodes["c"]), 0, nodes["c"].errors.text)
        self.end(serve, nodes)

    def test_a_source_dies_and_another_goes_on(self):
        self.machines.lacking = {"c"}
        self.machines.slow_down("a", "80mbit")
        self.machines.slow_down("b", "80mbit")
        serve = self.serve("[{nodes: [a]}, {nodes: [c]}]", "--nodes", "2")
        serve.errors.wait_for("nodes may join")
        nodes = {"b": self.node("b", "--models", FILE.parent), "c": self.node("c")}
        wait_until(lambda: self.kept("c") > 8 << 20, "a part of the weights on c")
        wait_until(lambda: re.search(rb"loading 2 stages: [0-9.]+ of [0-9.]+ MB, [0-9]+ MB/s, [0-9]+ s left",
                                     self.call("a", "status", "demo").stdout), "how far it is in status", 5)
        nodes["b"].kill()
        serve.output.wait_for("ready: ")
        _, check = self.ask_all()
        check()
        self.end(serve, {"c": nodes["c"]})

    def test_serve_dies_and_what_was_fetched_is_kept(self):
        self.machines.slow_down("a", "80mbit")
        stages = "[{nodes: [a]}, {nodes: [b]}]"
        serve = self.serve(stages)
        serve.errors.wait_for("nodes may join")
        nodes = {"b": self.node("b")}
        wait_until(lambda: self.kept("b") > 16 << 20, "a part of the weights on b")
        serve.kill()
        serve.communicate()
        nodes["b"].errors.wait_for("was lost")
        kept_bytes = self.kept("b")
        self.machines.slow_down("a", "500mbit")
        nodes["b"].errors.text = b""
        serve = self.serve(stages)
        serve.output.wait_for("ready: ")
        self.read_on(nodes["b"])
        share_bytes = self.kept("b")
        # What came within the last moments before the death may have to come again.
        self.assertLess(self.fetched_mb(nodes["b"]) * 1e6, share_bytes - 0.5 * kept_bytes, nodes["b"].errors.text)
        _, check = self.ask_all()
        check()
        self.end(serve, nodes)

    def test_a_damaged_copy_is_refused(self):
        damaged = self.folder / "damaged"
        damaged.mkdir()
        shutil.copy(FILE, damaged / "model.gguf")
        with open(damaged / "model.gguf", "r+b") as file:
            for place in range(FILE.stat().st_size // 3, FILE.stat().st_size, 1 << 20):
                file.seek(place)
                byte = file.read(1)
                file.seek(place)
                file.write(bytes([byte[0] ^ 1]))
        serve = self.serve("[{nodes: [a]}, {nodes: [c]}]", "--nodes", "2")
        serve.errors.wait_for("nodes may join")
        nodes = {"b": self.node("b", "--models", damaged), "c": self.node("c")}
        serve.output.wait_for("ready: ")
        nodes["c"].errors.wait_for("b sent a damaged piece")
        _, check = self.ask_all()
        check()
        self.end(serve, nodes)

    def test_a_full_disk_says_so(self):
        self.machines.cache_bytes = {"b": "8m"}
        serve = self.serve("[{nodes: [a]}, {nodes: [b]}]")
        serve.errors.wait_for("nodes may join")
        node = self.node("b")
        wait_until(lambda: serve.poll() is not None, "the end of serve")
        serve.errors.wait_for("bytes of weights are to be fetched, and the disk has")
        self.assertEqual(serve.returncode, 4, serve.errors.text)
        node.send_signal(signal.SIGTERM)
        wait_until(lambda: node.poll() is not None, "the end of the node", 10)


if __name__ == "__main__":
    unittest.main()
