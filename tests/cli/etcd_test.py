"""Two coordinators that share a store of three members: one leads, and whoever of them dies, stops or is taken down, the
other goes on with the same ranks, whose streams notice nothing. Nobody writes in a term that is over. Waits for
conditions, each with a deadline.
"""
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
import unittest

import etcd_members
import program
from cluster_world import ASK, MODEL, PATIENCE_S, PROMPTS, Reader, calm
from etcd_members import Members, free_ports
from processes import ranks_of, wait_until
from services import children

PREFIX = "/chainpump-test"
KEYS = f"{PREFIX}/demo/"
TAKEOVER_S = 3
HEADS = ("x", "y")


class Base(unittest.TestCase):
    tls = False

    def setUp(self):
        if etcd_members.why_not():
            self.skipTest(f"no store here: {etcd_members.why_not()}")
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.folder.chmod(0o700)
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.members = Members(self.tls)
        self.members.__enter__()
        self.addCleanup(self.members.__exit__)
        self.running = []
        self.addCleanup(self.end_all)
        self.authority = self.folder / "ca"
        self.must("cert", "init", self.authority)
        for name in HEADS:
            self.must("cert", "issue", self.authority, name, "--role", "coordinator")
        for name in "bc":
            self.must("cert", "issue", self.authority, name)
        self.ports = dict(zip(HEADS, free_ports(len(HEADS))))
        self.graph = str(self.folder / "graph.yaml")
        pathlib.Path(self.graph).write_text("name: demo\nthreads: 1\nkv: {context: 512}\n"
                                            "stages: [{nodes: [b]}, {nodes: [c]}]\nfailover: {restarts: 20}\n")
        self.takeovers_s = []

    def end_all(self):
        for process in self.running:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.communicate()

    def must(self, *arguments):
        done = program.call(arguments)
        self.assertEqual(done.returncode, 0, done.stderr)

    def environment(self, head):
        return dict(os.environ, CHAINPUMP_RUN_DIR=str(self.folder / f"run-{head}"))

    def call(self, head, *arguments):
        return subprocess.run([program.program(), *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True,
                              env=self.environment(head), timeout=PATIENCE_S)

    def start(self, head, *arguments):
        process = subprocess.Popen([program.program(), *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, env=self.environment(head), start_new_session=True)
        self.running.append(process)
        return process

    def serving(self, head, authority="authority", client="client", store=None):
        """The arguments of its `serve`."""
        files = self.members.folder
        secure = ["--store-ca", files / f"{authority}.pem", "--store-cert", files / f"{client}.pem", "--store-key",
                  files / f"{client}.key"] if self.tls else []
        return ["serve", self.graph, *MODEL, "--listen", f"127.0.0.1:{self.ports[head]}", "--certificates", self.authority / head,
                "--store", store or f"etcd://{','.join(self.members.addresses)}{PREFIX}", *secure]

    def serve(self, head):
        serve = self.start(head, *self.serving(head))
        serve.errors = Reader(serve.stderr)
        serve.output = Reader(serve.stdout)
        return serve

    def node(self, name):
        join = ",".join(f"127.0.0.1:{port}" for port in self.ports.values())
        return self.start(HEADS[0], "node", "--join", join, "--certificates", self.authority / name)

    def begin(self):
        self.nodes = {name: self.node(name) for name in "bc"}
        self.serves = {head: self.serve(head) for head in HEADS}
        for serve in self.serves.values():
            serve.output.wait_for("ready: ")
        self.ranks = self.all_ranks()
        self.assertEqual(len(self.ranks), 2)

    def all_ranks(self):
        return {rank for node in self.nodes.values() for rank in ranks_of(node.pid).values()}

    # ------------------------------------------------------------------------------- who leads
    def leader(self):
        """(head, pid, term), once it has noted down the lanes; or None."""
        keys = self.members.get(KEYS) or {}
        leader, lanes = keys.get(f"{KEYS}leader"), keys.get(f"{KEYS}lanes")
        if not leader or not lanes or lanes[2] < leader[1]:
            return None
        who = json.loads(leader[0])
        return who["name"], who["pid"], leader[1]

    def wait_leader(self, after=0, patience_s=PATIENCE_S):
        return wait_until(lambda: (found := self.leader()) and found[2] > after and found, "a leader", patience_s)

    def strike(self, number):
        """The leader's process; how long until another leads."""
        def hit():
            head, pid, term = self.wait_leader()
            began = time.monotonic()
            try:
                os.kill(pid, number)
            except ProcessLookupError:  # it has stepped down, and nobody has written over its name yet
                return None
            return head, pid, term, began

        head, pid, term, began = wait_until(hit, "a leader that lives", PATIENCE_S)
        after = self.wait_leader(term, 10)
        self.takeovers_s.append(time.monotonic() - began)
        return head, pid, after

    def coordinator_of(self, head):
        return next((pid for pid, verb in children(self.serves[head].pid).items() if verb == [b"coordinator"]), None)

    # -------------------------------------------------------------------------------- requests
    def ask_all(self, heads=HEADS):
        """Requests of each head's gateway that run, and how to check that they end as they should."""
        running = [(self.start(head, "run", self.graph, *ASK, prompt, *more), expected)
                   for head in heads for (prompt, more), expected in zip(PROMPTS, calm())]

        def check():
            for process, tokens in running:
                out, errors = process.communicate(timeout=PATIENCE_S)
                self.assertEqual(process.returncode, 0, errors)
                self.assertIn(b"using the service", errors)
                self.assertEqual(json.loads(out)["token_ids"], tokens)
        return check

    def status(self, head):
        done = self.call(head, "status", "demo", "-o", "json")
        services = json.loads(done.stdout)["services"] if done.stdout else []
        return services[0] if services else {"requests": -1, "stages": []}

    def wait_under_way(self, number, heads=HEADS):
        wait_until(lambda: sum(self.status(head)["requests"] for head in heads) >= number, "requests under way")

    # -------------------------------------------------------------------------------- the history
    def check_history(self):
        """Of every change that the store has seen: one leader at a time, with greater terms, and every write within its own."""
        marker = f"{KEYS}zz-marker"
        self.members.call("/kv/put", {"key": etcd_members.encode(marker), "value": ""})
        term, last, num_writes, terms = None, 0, 0, []
        for revision, key, value in self.members.history(KEYS, marker):
            if key == f"{KEYS}leader":
                if value is None:
                    self.assertIsNotNone(term)
                    term = None
                else:
                    self.assertIsNone(term, "two leaders at once")
                    self.assertGreater(revision, last)
                    term = last = revision
                    terms.append((revision, json.loads(value)))
            elif key in (f"{KEYS}record", f"{KEYS}lanes") and value is not None:
                self.assertIsNotNone(term, f"{key} was written when nobody led")
                if key == f"{KEYS}record":
                    self.assertEqual(json.loads(value)["term"], term)
                    num_writes += 1
        self.assertGreater(num_writes, 0)
        return terms

    def end(self):
        """Both are told at once: the ranks end, and nothing is left in the store."""
        for serve in self.serves.values():
            if serve.poll() is None:
                serve.send_signal(signal.SIGTERM)
        for head, serve in self.serves.items():
            wait_until(lambda: serve.poll() is not None, f"the end of serve {head}", 30)
            if serve.returncode != -signal.SIGKILL:
                self.assertEqual(serve.returncode, 0, serve.errors.text)
        wait_until(lambda: not self.all_ranks(), "no rank", 10)
        keys = self.members.get(KEYS)
        self.assertFalse({key for key in keys if key.rsplit("/", 1)[1] in ("record", "lanes", "plan", "leader")}, keys)


class Etcd(Base):
    def test_the_leader_dies_and_stops(self):
        self.begin()
        first = self.wait_leader()
        for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGKILL, signal.SIGSTOP, signal.SIGKILL):
            check = self.ask_all()
            self.wait_under_way(2)
            if number == signal.SIGSTOP:
                self.stop_and_wake_the_leader()
                check()
                continue
            head, pid, _ = self.strike(number)
            wait_until(lambda: self.coordinator_of(head) not in (None, pid), "another coordinator")
            check()
            self.assertEqual(self.all_ranks(), self.ranks)
        print(f"takeover: median {statistics.median(self.takeovers_s):.2f} s, max {max(self.takeovers_s):.2f} s", flush=True)
        self.assertLess(max(self.takeovers_s), TAKEOVER_S)
        # What is watched is as it was: a rank that dies now is replaced.
        (victim,) = ranks_of(self.nodes["c"].pid).values()
        check = self.ask_all()
        self.wait_under_way(2)
        os.kill(victim[0], signal.SIGKILL)
        check()
        self.assertEqual(len(self.all_ranks() & self.ranks), 1)
        terms = self.check_history()
        self.assertGreaterEqual(len(terms), 6)
        self.assertEqual(terms[0][1]["name"], first[0])
        self.end()

    def stop_and_wake_the_leader(self):
        """Its `serve` is stopped first, which would end it within a second: so it wakes, when another leads, and ends itself."""
        head, pid, _ = self.wait_leader()
        serve = self.serves[head]
        serve.send_signal(signal.SIGSTOP)
        self.strike(signal.SIGSTOP)
        os.kill(pid, signal.SIGCONT)
        serve.errors.wait_for("this coordinator steps down")
        serve.errors.text = b""
        serve.send_signal(signal.SIGCONT)
        wait_until(lambda: self.coordinator_of(head) not in (None, pid), "another coordinator")
        self.assertEqual(self.all_ranks(), self.ranks)

    def test_a_whole_serve_dies_and_comes_back(self):
        self.begin()
        head, pid, term = self.wait_leader()
        (other,) = set(HEADS) - {head}
        check = self.ask_all([other])
        self.wait_under_way(1, [other])
        began = time.monotonic()
        self.serves[head].kill()
        self.assertEqual(self.wait_leader(term)[0], other)
        self.assertLess(time.monotonic() - began, TAKEOVER_S)
        check()
        self.assertEqual(self.all_ranks(), self.ranks)
        self.serves[head].communicate()
        self.serves[head] = self.serve(head)
        self.serves[head].output.wait_for("ready: ")
        self.serves[head].errors.wait_for(f"{other} leads")
        self.assertIn(f"{other} leads", self.status(head)["stages_missing"])
        self.assertEqual(len(self.status(other)["stages"]), 2)
        # Taken down in order, one leaves it to the other.
        check = self.ask_all([head])
        self.wait_under_way(1, [head])
        self.serves[other].send_signal(signal.SIGTERM)
        wait_until(lambda: self.serves[other].poll() is not None, "the end of serve", 30)
        self.assertEqual(self.serves[other].returncode, 0, self.serves[other].errors.text)
        self.assertEqual(self.wait_leader(term)[0], head)
        check()
        self.assertEqual(self.all_ranks(), self.ranks)
        self.check_history()
        self.end()

    def test_members_of_the_store_die_and_stop(self):
        self.begin()
        check = self.ask_all()
        self.wait_under_way(2)
        self.members.kill(0)
        self.strike(signal.SIGKILL)
        self.members.restart(0)
        wait_until(lambda: self.members.call("/maintenance/status", {}), "the member again")
        self.members.stop(1)
        self.strike(signal.SIGKILL)
        check()
        # Without a majority nobody leads for long, and nobody notices but who repairs.
        self.members.stop(2)
        check = self.ask_all()
        check()
        wait_until(lambda: any(b"steps down" in self.read_errors(head) for head in HEADS), "one to step down", 10)
        self.members.go_on(2)
        self.members.go_on(1)
        self.wait_leader()
        check = self.ask_all()
        check()
        self.assertEqual(self.all_ranks(), self.ranks)
        self.check_history()
        self.end()

    def read_errors(self, head):
        reader = self.serves[head].errors
        try:
            reader.wait_for("steps down", 0.2)
        except AssertionError:
            pass
        return reader.text

    def test_refusals(self):
        for words, store in (("a store is etcd://HOST:PORT", "http://127.0.0.1:1/a"), ("a store is etcd://HOST:PORT", "etcd://127.0.0.1:1"),
                             ("10.0.0.1:1 is not on this machine: it needs TLS", "etcd://10.0.0.1:1/a")):
            done = self.call("x", *self.serving("x", store=store))
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(words, done.stderr.decode())
        done = self.call("x", "serve", self.graph, *MODEL, "--store", "etcd://127.0.0.1:1/a")
        self.assertEqual(done.returncode, 2, done.stderr)


class Tls(Base):
    tls = True

    def test_a_store_over_tls(self):
        strangers = [({"authority": "stranger"}, "certificate"), ({"client": "stranger"}, "")]
        refused = [(self.start("x", *self.serving("x", **what)), words) for what, words in strangers[:1]]
        refused += [(self.start("y", *self.serving("y", **what)), words) for what, words in strangers[1:]]
        for process, words in refused:
            _, errors = process.communicate(timeout=PATIENCE_S)
            self.assertEqual(process.returncode, 5, errors)
            self.assertIn(words, errors.decode())
        self.begin()
        check = self.ask_all()
        self.wait_under_way(2)
        self.strike(signal.SIGKILL)
        check()
        self.check_history()
        self.end()


if __name__ == "__main__":
    unittest.main()
