"""Links between two network namespaces over a network that delays, reorders, doubles, loses, damages and cuts (tests/net/relay.py): no
frame is taken that is not what was sent, in order; a link that breaks is made anew, as a coordinator would have it done; an end that is
not told of that gets nothing in. Damage to UCX's own headers may end the process: then there is another.

    relay_test.py [--frames N]   needs CHAINPUMP_TEST_NET_PEER, the program net_peer
"""
import argparse
import os
import queue
import subprocess
import sys
import threading
import time
import unittest

import relay

PATIENCE_S = 60
FRAMES_A_SECOND = 50  # at least: where every fiftieth packet is lost and they overtake each other, TCP makes 130 of it
SILENT_S = 2  # what the coordinator finds sooner: damage may leave an end waiting for bytes that never come
FRAMES = 300  # a case, unless --frames says otherwise


class Peer:
    """One end, which is started again when it dies."""

    def __init__(self, test, network, side, *arguments):
        self.test, self.command = test, network.inside(side, [os.environ["CHAINPUMP_TEST_NET_PEER"], *arguments])
        self.num_deaths = 0
        self.start()

    def start(self):
        # What a library prints of its own end is no news.
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.said = queue.Queue()
        threading.Thread(target=self.listen, args=(self.process, self.said), daemon=True).start()
        self.test.addCleanup(self.end, self.process)

    @staticmethod
    def listen(process, said):
        for line in process.stdout:
            said.put(line.split())
        said.put(["died"])

    @staticmethod
    def end(process):
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            try:
                pipe.close()
            except BrokenPipeError:
                pass  # what it was told last

    def hear(self, deadline):
        """Its next words; nothing if none come until then."""
        try:
            words = self.said.get(timeout=max(0.001, deadline - time.monotonic()))
        except queue.Empty:
            return None
        if words == ["died"]:
            self.num_deaths += 1
            self.process.wait()
            self.start()
        return words

    def tell(self, text):
        try:
            self.process.stdin.write(text + "\n")
            self.process.stdin.flush()
        except (BrokenPipeError, ValueError):
            pass  # its death is heard of


class Links:
    """Both ends, linked anew whenever a link ends: what a coordinator does."""

    def __init__(self, test, network):
        self.receiver = Peer(test, network, 1, "receive", relay.DEVICE, relay.ADDRESSES[1])
        self.sender = Peer(test, network, 0, "send", relay.DEVICE, relay.ADDRESSES[1])
        self.incarnation = self.frames = self.wrong = self.refused = self.present = 0
        self.port, self.why, self.came = None, [], time.monotonic()

    def link(self):
        self.incarnation += 1
        self.frames += self.present
        self.present, self.came = 0, time.monotonic()
        while self.port is None:
            words = self.receiver.hear(time.monotonic() + PATIENCE_S)
            assert words is not None, "the receiver says no port"
            if words[0] == "port":
                self.port = words[1]
        self.receiver.tell(f"link {self.incarnation}")
        self.sender.tell(f"link {self.incarnation} {self.port}")

    def look(self, seconds=0.05):
        """What both say for so long; a link that ended is followed by another."""
        until, ended = time.monotonic() + seconds, False
        for peer in (self.receiver, self.sender):
            while (words := peer.hear(until)) is not None:
                if words[0] == "died":
                    ended = True
                    if peer is self.receiver:
                        self.port = None
                elif words[0] == "port":
                    self.port = words[1]
                elif words[0] in ("now", "ended") and int(words[1]) == self.incarnation:
                    if peer is self.receiver and int(words[2]) > self.present:
                        self.present, self.came = int(words[2]), time.monotonic()
                    if words[0] == "ended":
                        ended = True
                        self.why.append(" ".join(words[5:]))
                        if peer is self.receiver:
                            self.wrong += int(words[3])
                            self.refused += int(words[4])
            until = max(until, time.monotonic() + 0.01)
        if not ended and time.monotonic() - self.came > SILENT_S:
            ended = True
            self.why.append("silent")
        if ended:
            self.link()

    def total(self):
        return self.frames + self.present

    def run(self, frames):
        deadline, goal = time.monotonic() + PATIENCE_S + frames / FRAMES_A_SECOND, self.total() + frames
        while self.total() < goal:
            assert time.monotonic() < deadline, f"{self.total()} of {goal} frames have come; {self.why[-3:]}"
            self.look()


@unittest.skipIf(relay.why_not(), f"no relay here: {relay.why_not()}")
class BadNetwork(unittest.TestCase):
    def setUp(self):
        self.network = relay.Relay(seed=7)
        self.network.__enter__()
        self.addCleanup(self.network.__exit__)
        self.links = Links(self, self.network)
        self.links.link()
        self.links.run(50)

    def finish(self):
        """All is well afterwards, and what was taken was right."""
        done = self.network.calm()
        self.links.run(50)
        self.assertEqual(self.links.wrong, 0, self.links.why)
        print(f"{self.id().split('.')[-1]}: {self.links.total()} frames, {self.links.incarnation} links, {self.links.refused} refused, "
              f"{self.links.sender.num_deaths} + {self.links.receiver.num_deaths} processes died; {done}", flush=True)
        return done

    def test_late_lost_doubled_and_out_of_order(self):
        self.network.set(delay_ms=2, jitter_ms=10, loss=0.02, double=0.05)
        self.links.run(FRAMES)
        done = self.finish()
        self.assertGreater(min(done["lost"], done["doubled"]), 0)
        self.assertEqual(self.links.incarnation, 1, self.links.why)  # TCP made up for it
        self.assertEqual(self.links.refused, 0)

    def test_damage_that_tcp_does_not_see(self):
        self.network.set(damage=0.002)
        deadline = time.monotonic() + PATIENCE_S
        while self.links.refused < max(2, FRAMES // 100) and time.monotonic() < deadline:
            self.links.look()
        done = self.finish()
        self.assertGreater(done["damaged"], 0)
        self.assertGreater(self.links.refused, 0, self.links.why)
        self.assertTrue(any("crc" in why for why in self.links.why), self.links.why)

    def test_cuts_that_heal(self):
        for cut in ([True, False], [False, True], [True, True]):
            self.network.set(cut=cut)
            self.links.look(0.3)
            before = self.links.total()
            self.links.look(0.5)
            self.assertLessEqual(self.links.total() - before, 8)  # what was on its way, and its credits
            self.network.calm()
            self.links.run(FRAMES // 3)
        self.finish()
        self.assertEqual(self.links.incarnation, 1)

    def test_who_was_cut_off_and_replaced_gets_nothing_in(self):
        """The old sender is not told; it is reachable again when the next one is at work."""
        old = self.links.sender
        self.network.set(cut=[True, True])
        time.sleep(0.2)
        self.links.sender = Peer(self, self.network, 0, "send", relay.DEVICE, relay.ADDRESSES[1])
        self.network.calm()
        self.links.link()  # of which the old one does not hear
        self.links.run(FRAMES)
        self.assertEqual(self.links.wrong, 0)
        ends = []
        while (words := old.hear(time.monotonic() + 3)) is not None and not ends:
            ends += [words] if words[0] in ("ended", "died") else []
        self.assertTrue(ends, "the old sender believes that it is linked")
        self.finish()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=FRAMES)
    options, rest = parser.parse_known_args()
    FRAMES = options.frames
    unittest.main(argv=[sys.argv[0], *rest])
