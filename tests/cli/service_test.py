"""`chainpump serve` and its clients: the same answers as alone, and whatever happens to a client, to the
service or to its gateway, nobody waits for ever and nothing is left behind. Waits for conditions,
each with a deadline.
"""
import json
import os
import signal
import socket
import subprocess
import time
import unittest

import program
from processes import fragile_graph, ranks_of, stat_of, wait_until
from services import LONG, MODEL, PATIENCE_S, RAW, USING, Case, children, read_some


class Clients(Case):
    """One service for all of these: none of them harms it."""

    def setUp(self):
        super().setUp()
        self.service = self.serve()
        self.line = self.service.wait_ready()

    def answer(self, *arguments):
        done = self.service.call(["run", "demo", *arguments, "-o", "json"])
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout), USING in done.stderr

    def test_clients(self):
        self.check_same_answers_as_alone()
        self.check_conflicts()
        self.check_refusals()
        self.check_clients_that_leave()
        self.check_second_service()
        self.check_status()
        status, errors = self.service.end()
        self.assertEqual(status, 0, errors)
        self.assertIn("draining", errors)
        self.service.check_nothing_left()
        done = self.service.call(["status"])
        self.assertEqual((done.returncode, b"no service runs" in done.stdout), (0, True))
        self.assertEqual(self.service.call(["status", "demo"]).returncode, 3)

    def check_same_answers_as_alone(self):
        for arguments in ([*RAW, "-n", 20], [*RAW, "-n", 20, "--temperature", 1.3, "--seed", 7],
                          [*MODEL, "--prompt", "Name three rivers.", "-n", 20, "--stop", "Nile"]):
            there, used = self.answer(*arguments)
            self.assertTrue(used)
            here, used = self.answer(*arguments, "--service", "none")
            self.assertFalse(used)
            for key in ("token_ids", "text", "finish_reason", "prompt_token_ids", "version", "system_fingerprint"):
                self.assertEqual(there[key], here[key], (key, arguments))
            self.assertEqual(set(there), set(here))
            self.assertEqual(len(there["stages"]), 3)
            self.assertGreater(there["ttft_ms"], 0)
        streamed = self.service.call(["run", "demo", *RAW, "-n", 20])
        self.assertEqual(streamed.stdout.decode(), self.answer(*RAW, "-n", 20)[0]["text"] + "\n")
        line = json.dumps({"prompt_ids": [1, 2, 3], "target_ids": [4, 5, 6, 7]}) + "\n"
        there, here = (self.service.call(["score", "demo", *MODEL, *more], line * 40)
                       for more in ([], ["--service", "none"]))
        self.assertEqual(there.stdout, here.stdout)
        self.assertEqual((USING in there.stderr, USING in here.stderr), (True, False))

    def check_conflicts(self):
        for flags, words in ((["--stages", 2], b"--stages"), (["--kv-type", "int8"], b"--kv-type"),
                             (["--context", 512], b"--context")):
            done = self.service.call(["run", "demo", *RAW, "-n", 1, *flags])
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(b"[not using the service 'demo'", done.stderr)
            self.assertIn(words, done.stderr)
        self.assertTrue(self.answer(*RAW, "-n", 1, "--stages", 3)[1])
        self.assertFalse(self.answer(*RAW, "-n", 1, "--in-process")[1])

    def check_refusals(self):
        for status, flags, word in ((2, ["--prompt-ids", "49152"], b"49152"), (2, ["--raw", "--prompt", "a " * 9000], b"8192"),
                                    (2, ["--prompt", "a", "--temperature", "-1"], b"temperature"),
                                    (2, ["--raw", "--prompt", ""], b"empty")):
            done = self.service.call(["run", "demo", *MODEL, *flags])
            self.assertEqual((done.returncode, done.stdout), (status, b""), done.stderr)
            self.assertIn(word, done.stderr)
        self.assertEqual(self.service.status()["requests"], 0)

    def check_clients_that_leave(self):
        before = self.service.wait_idle()["cancelled"]
        both = [self.service.start("run", "demo", *LONG) for _ in range(2)]
        for process in both:
            read_some(process)
        self.assertEqual(self.service.status()["requests"], 2)
        for process, number, status in zip(both, (signal.SIGKILL, signal.SIGINT), (-9, 130)):
            process.send_signal(number)
            process.communicate(timeout=PATIENCE_S)
            self.assertEqual(process.returncode, status)
        self.assertEqual(self.service.wait_idle()["cancelled"], before + 2)
        slow = self.service.start("run", "demo", *LONG)  # nobody reads what it says
        read_some(slow)
        self.assertTrue(self.answer(*RAW, "-n", 5)[1])
        slow.kill()
        slow.communicate(timeout=PATIENCE_S)
        self.service.wait_idle()
        self.assertEqual(ranks_of(self.service.agent), self.service.ranks)

    def check_second_service(self):
        second = self.serve()
        _, errors = second.process.communicate(timeout=PATIENCE_S)
        self.assertEqual(second.process.returncode, 5)
        self.assertIn(f"process {self.service.process.pid}", errors.decode())
        self.assertTrue(self.answer(*RAW, "-n", 1)[1])

    def check_status(self):
        found = self.service.status()
        self.assertEqual((found["phase"], found["name"], found["pid"]), ("ready", "demo", self.service.gateway))
        self.assertEqual([stage["pid"] for stage in found["stages"]], [rank[0] for _, rank in sorted(self.service.ranks.items())])
        self.assertGreater(found["completed"], 0)
        self.assertIn(found["socket"], self.line)
        table, yaml = (self.service.call(["status", "-o", output]).stdout.decode() for output in ("table", "yaml"))
        self.assertIn("demo: ready", table)
        self.assertIn("phase: \"ready\"", yaml)
        for path, mode in ((self.folder / "demo", 0o700), (self.folder / "demo/gateway.sock", 0o600)):
            self.assertEqual(path.stat().st_mode & 0o777, mode)


class Ends(Case):
    def test_a_drain_lets_requests_end_and_takes_no_more(self):
        service = self.serve()
        service.wait_ready()
        running = service.start("run", "demo", *MODEL, "--prompt", "Tell me a story.", "--ignore-eos", "-n", "150")
        read_some(running)
        service.process.send_signal(signal.SIGTERM)
        wait_until(lambda: service.status()["phase"] == "draining", "draining", 5)
        refused = service.call(["run", "demo", *RAW, "-n", 1])
        self.assertEqual(refused.returncode, 5, refused.stderr)
        self.assertIn(b"about to end", refused.stderr)
        text, errors = running.communicate(timeout=PATIENCE_S)
        self.assertEqual(running.returncode, 0, errors)
        service.process.communicate(timeout=PATIENCE_S)
        self.assertEqual(service.process.returncode, 0)
        service.check_nothing_left()

    def test_a_bound_and_a_second_signal_cut_the_drain_short(self):
        for arguments, second, status, patience_s in ((["--drain", "1"], False, 0, 5), ([], True, 130, 2)):
            service = self.serve(*arguments)
            service.wait_ready()
            running = service.start("run", "demo", *LONG)
            read_some(running)
            service.process.send_signal(signal.SIGINT)
            if second:
                wait_until(lambda: service.status()["phase"] == "draining", "draining", 5)
                service.process.send_signal(signal.SIGINT)
            began = time.monotonic()
            service.process.communicate(timeout=PATIENCE_S)
            self.assertLess(time.monotonic() - began, patience_s)
            self.assertEqual(service.process.returncode, status)
            _, errors = running.communicate(timeout=PATIENCE_S)
            self.assertEqual(running.returncode, 5, errors)
            service.check_nothing_left()

    def test_a_killed_gateway_is_started_anew_and_its_clients_go_on(self):
        service = self.serve()
        service.wait_ready()
        before = service.ranks
        running = service.start("run", "demo", *LONG)
        read_some(running)
        os.kill(service.gateway, signal.SIGKILL)
        service.wait_ready()
        self.assertEqual(service.ranks, before)  # the stages are as they were
        os.read(running.stdout.fileno(), 1 << 20)
        read_some(running, 500)
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=PATIENCE_S)
        self.assertEqual(running.returncode, 130, errors)
        status, errors = service.end()
        self.assertEqual(status, 0)
        self.assertIn("started anew", errors)
        service.check_nothing_left()

    def test_clients_of_a_service_that_is_gone_for_good_are_told(self):
        service = self.serve()
        service.wait_ready()
        running = service.start("run", "demo", *LONG)
        read_some(running)
        service.process.kill()
        _, errors = running.communicate(timeout=PATIENCE_S)
        self.assertEqual(running.returncode, 5, errors)
        self.assertIn(b"the service has gone", errors)

    def test_a_dead_rank_is_named_and_its_deployment_comes_back(self):
        graph = fragile_graph(self)
        service = self.serve(graph=graph)
        service.wait_ready()
        running = service.start("run", graph, *LONG)
        read_some(running)
        os.kill(service.ranks[1][0], signal.SIGKILL)
        _, errors = running.communicate(timeout=PATIENCE_S)
        self.assertEqual(running.returncode, 5)
        self.assertRegex(errors.decode(), "stage .*1.* died: killed by SIGKILL")
        service.wait_ready()
        self.assertEqual(service.end()[0], 0)

    def test_the_death_of_the_agent_is_named_and_the_service_comes_back(self):
        """Where nothing is to be repaired; else its ranks are started anew and requests go on (failover_test.py)."""
        graph = fragile_graph(self)
        service = self.serve(graph=graph)
        service.wait_ready()
        for _ in range(2):
            running = service.start("run", graph, *LONG)
            read_some(running)
            began = time.monotonic()
            os.kill(service.child(b"agent"), signal.SIGKILL)
            _, errors = running.communicate(timeout=PATIENCE_S)
            self.assertLess(time.monotonic() - began, 2)
            self.assertEqual(running.returncode, 5)
            self.assertIn("node agent died", errors.decode())
            service.wait_ready()
            done = service.call(["run", graph, *RAW, "-n", 2])
            self.assertEqual((done.returncode, USING in done.stderr), (0, True), done.stderr)
        status, errors = service.end()
        self.assertEqual(status, 0, errors)
        self.assertIn("the node agent died: killed by SIGKILL", errors)
        service.check_nothing_left()

    def test_what_a_killed_service_leaves_is_taken_over(self):
        service = self.serve()
        service.wait_ready()
        service.process.kill()
        service.process.wait(PATIENCE_S)
        wait_until(lambda: stat_of(service.gateway) is None, "the gateway's end", 5)
        self.assertTrue((self.folder / "demo/gateway.sock").exists())
        alone = service.call(["run", "demo", *RAW, "-n", 1])
        self.assertEqual((alone.returncode, USING in alone.stderr), (0, False), alone.stderr)
        service = self.serve()
        service.wait_ready()
        self.assertEqual(service.end()[0], 0)
        service.check_nothing_left()

    def test_signals_while_it_loads(self):
        service = self.serve()
        wait_until(lambda: any(verb == [b"gateway"] for verb in children(service.process.pid).values()), "the gateway")
        status, errors = service.end()
        self.assertEqual(status, 0, errors)
        service.ranks = {}
        service.check_nothing_left()


class Refusals(Case):
    def refused(self, status, service, word):
        out, errors = service.process.communicate(timeout=PATIENCE_S)
        self.assertEqual((service.process.returncode, out), (status, b""), errors)
        self.assertIn(word, errors.decode())

    def test_a_folder_of_others_is_refused(self):
        self.folder.chmod(0o755)
        self.refused(2, self.serve(), "0700")

    def test_a_path_too_long_for_a_socket_is_refused(self):
        deep = self.folder / ("x" * 100)
        deep.mkdir(0o700)
        self.folder = deep
        self.refused(2, self.serve(), "107")

    def test_what_cannot_be_deployed_is_said_and_not_tried_again(self):
        self.refused(3, self.serve(model="/no/model.gguf"), "/no/model.gguf")
        self.refused(3, self.serve(graph="/no/graph.yaml"), "/no/graph.yaml")
        self.refused(2, self.serve("--context", "1000000"), "1000000")
        self.assertEqual(list(self.folder.rglob("*")), [])

    def test_a_service_that_hangs_is_not_waited_for(self):
        (self.folder / "demo").mkdir(0o700)
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(str(self.folder / "demo/gateway.sock"))
        listener.listen()
        environment = dict(os.environ, CHAINPUMP_RUN_DIR=str(self.folder))
        done = subprocess.run([program.program(), "run", "demo", *RAW, "-n", "1"], capture_output=True,
                              env=environment, timeout=PATIENCE_S)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(b"[not using the service 'demo': the service did not answer", done.stderr)


if __name__ == "__main__":
    unittest.main()
