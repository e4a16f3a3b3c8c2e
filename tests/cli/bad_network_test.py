"""A deployment over two machines with a bad network in between (tests/net/relay.py), control and data alike: what it delays, loses,
doubles, damages and cuts changes no token, and who was cut off and replaced gets nothing in.
"""
import os
import pathlib
import signal
import sys
import unittest

import program
from cluster_world import PATIENCE_S, ClusterTest
from processes import ranks_of, wait_until

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "net"))
import relay  # noqa: E402


class RelayedMachines:
    """`a` and `b`, with a relay between them."""
    names = ["a", "b"]

    def __init__(self, seed):
        self.relay = relay.Relay(seed)

    def __enter__(self):
        self.relay.__enter__()
        return self

    def __exit__(self, *_):
        self.relay.__exit__()

    def address(self, name):
        return relay.ADDRESSES[self.names.index(name)]

    def command(self, name, *arguments):
        return self.relay.inside(self.names.index(name), [program.program(), *map(str, arguments)])


@unittest.skipIf(relay.why_not(), f"no relay here: {relay.why_not()}")
class BadNetwork(ClusterTest):
    data_network = relay.DEVICE
    failover = "{restarts: 1000, window: 1s}"  # faults come in any number

    def make_machines(self):
        return RelayedMachines(seed=5)

    def set(self, **settings):
        return self.machines.relay.set(**settings)

    def calm(self):
        return self.machines.relay.calm()

    def ask_through(self, **settings):
        """Requests over a network that is like that from when they are under way to their end."""
        running, check = self.ask_all()
        self.wait_under_way(running)
        self.set(**settings)
        check()
        return self.calm()

    def test_late_lost_doubled_and_out_of_order(self):
        serve, nodes = self.begin("[{nodes: [a]}, {nodes: [b]}, {nodes: [a]}]")
        done = self.ask_through(delay_ms=1, jitter_ms=3, loss=0.005, double=0.05)
        self.assertGreater(min(done["lost"], done["doubled"]), 0)
        self.end(serve, nodes)

    def test_damage_that_tcp_does_not_see(self):
        """Control is refused by TLS, frames by their CRC; what hits the library's own headers may end a rank."""
        serve, nodes = self.begin("[{nodes: [a]}, {nodes: [b]}, {nodes: [a]}]")
        done = self.ask_through(damage=0.003)
        self.assertGreater(done["damaged"], 2)
        _, check = self.ask_all()  # and all is well afterwards
        check()
        self.end(serve, nodes)

    def cut_off(self, to_b, to_a):
        """The standby on the other side takes over; healed, its machine is a node again, and what was replaced stays out."""
        serve, nodes = self.begin("[{nodes: [a]}, {nodes: [b, a], standbys: 1}]")
        self.assertEqual(self.places(), ["a", "b"])
        running, check = self.ask_all()
        self.wait_under_way(running)
        self.set(cut=[to_b, to_a])
        wait_until(lambda: self.places() == ["a", "a"], "the standby in its place", 15)
        check()
        nodes["b"].errors.wait_for("was lost")
        nodes["b"].errors.text = b""
        running, check = self.ask_all()
        self.wait_under_way(running)
        self.calm()  # amid requests that do without it
        nodes["b"].errors.wait_for("joined")
        check()
        self.assertEqual(self.places(), ["a", "a"])
        nodes["b"].send_signal(signal.SIGTERM)  # with the rank that was replaced
        wait_until(lambda: nodes["b"].poll() is not None and not ranks_of(nodes["b"].pid), "the end of b", 10)
        self.end(serve, nodes)

    def test_nothing_gets_to_the_other_side(self):
        self.cut_off(True, False)

    def test_nothing_comes_from_the_other_side(self):
        self.cut_off(False, True)

    def test_partition(self):
        self.cut_off(True, True)


if __name__ == "__main__":
    unittest.main()
