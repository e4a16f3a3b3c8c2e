"""Processes of a service are killed or stopped, one after the other, the first of the lane among them, while several
requests run: each ends with the tokens of a calm run, and no other process ends.
"""
import functools
import json
import os
import signal
import subprocess
import time
import unittest

import program
from processes import ranks_of, stat_of, wait_until
from services import MODEL, PATIENCE_S, Case, children, collect

ASK = [*MODEL, "--raw", "--ignore-eos", "-n", "300", "-o", "json", "--prompt"]
PROMPTS = [("The three primary colours are", []), ("Once upon a time", ["--temperature", "0.9", "--seed", "7"]),
           ("A list of rivers:", ["--temperature", "0.7", "--top-p", "0.9", "--seed", "8"]), ("The sea", [])]


@functools.cache
def calm():
    """What is to come of each request, by the one law: of one process that nobody disturbs."""
    runs = [[program.program(), "run", "demo", "--service", "none", "--stages", "1", *ASK, prompt, *more] for prompt, more in PROMPTS]
    return [json.loads(subprocess.run(run, capture_output=True, check=True).stdout)["token_ids"] for run in runs]


class Failover(Case):
    def graph(self, stages):
        path = self.folder.parent / f"{self.folder.name}-failover.yaml"
        path.write_text(f"name: demo\nthreads: 1\nkv: {{context: 512}}\nstages: [{stages}]\nfailover: {{restarts: 50}}\n")
        self.addCleanup(path.unlink)
        return str(path)

    def begin(self, stages):
        """A service, its requests, which run, and what is to come of them."""
        graph = self.graph(stages)
        service = self.serve(graph=graph)
        service.wait_ready()
        expected = calm()
        running = [service.start("run", graph, *ASK, prompt, *more) for prompt, more in PROMPTS]
        all_said = collect(running)

        def check():
            for each, (out, errors), tokens in zip(running, all_said(), expected):
                self.assertEqual(each.returncode, 0, errors)
                self.assertEqual(json.loads(out)["token_ids"], tokens)
            status, errors = service.end()
            self.assertEqual(status, 0, errors)
            self.assertNotIn("times as long as they did", errors)  # nobody is slow who is only disturbed
            return errors

        return service, running, check

    def check(self, stages, number=signal.SIGKILL):
        service, running, check = self.begin(stages)
        for victim in (1, 2, 0):
            ranks = ranks_of(service.agent)
            self.assertTrue(any(each.poll() is None for each in running))
            os.kill(ranks[victim][0], number)
            wait_until(lambda: ranks_of(service.agent).get(victim) not in (None, ranks[victim]),
                       f"another process {victim}")
        self.assertEqual([service.child(verb) for verb in (b"agent", b"gateway")], [service.agent, service.gateway])
        check()

    def test_the_gateway(self):
        service, running, check = self.begin("{}, {}, {}")
        before = service.ranks
        for _ in range(2):
            wait_until(lambda: service.status()["requests"] == len(running), "all requests under way")
            gateway = service.child(b"gateway")
            os.kill(gateway, signal.SIGKILL)
            service.wait_ready()
            self.assertNotEqual(service.gateway, gateway)
        self.assertTrue(all(each.poll() is None for each in running))
        check()
        self.assertEqual(service.ranks, before)

    def test_the_node_agent_with_all_its_ranks(self):
        service, running, check = self.begin("{}, {standbys: 1}, {}")
        for _ in range(2):
            wait_until(lambda: service.status()["requests"] == len(running), "all requests under way")
            before = ranks_of(service.agent)
            os.kill(service.agent, signal.SIGKILL)
            wait_until(lambda: (there := children(service.process.pid)).get(service.agent) is None and
                       [b"agent"] in there.values(), "another agent")
            service.agent = service.child(b"agent")
            wait_until(lambda: len(ranks_of(service.agent)) == len(before), "its ranks")
        self.assertTrue(all(each.poll() is None for each in running))
        self.assertEqual(service.child(b"gateway"), service.gateway)
        check()

    def find_hung(self, service, verb):
        """Stops it, waits until it has been killed for that, and for another one."""
        hung = service.child(verb)
        began = time.monotonic()
        os.kill(hung, signal.SIGSTOP)
        wait_until(lambda: stat_of(hung) is None, f"the end of a stopped {verb.decode()}", 2)
        found_s = time.monotonic() - began
        wait_until(lambda: [verb] in children(service.process.pid).values(), f"another {verb.decode()}")
        return found_s

    def test_processes_beside_the_ranks_that_hang(self):
        service, running, check = self.begin("{}, {standbys: 1}, {}")
        for _ in range(3):  # stalls that are none
            for verb in (b"coordinator", b"agent", b"gateway"):
                stalled = service.child(verb)
                os.kill(stalled, signal.SIGSTOP)
                time.sleep(0.2)  # that is the stall
                os.kill(stalled, signal.SIGCONT)
                self.assertEqual(service.child(verb), stalled)
        ranks, agent = ranks_of(service.agent), service.agent
        found_s = {}
        for verb in (b"coordinator", b"gateway", b"agent"):
            wait_until(lambda: service.status()["requests"] == len(running), "all requests under way")
            found_s[verb.decode()] = self.find_hung(service, verb)
            if verb == b"coordinator":
                self.assertEqual((service.child(b"agent"), service.child(b"gateway")), (agent, service.gateway))
            if verb == b"gateway":
                service.wait_ready()
            if verb != b"agent":
                self.assertEqual(ranks_of(agent), ranks)
        service.agent = service.child(b"agent")
        wait_until(lambda: len(ranks_of(service.agent)) == len(ranks), "its ranks")
        print("killed after a SIGSTOP: " + ", ".join(f"{verb} {1e3 * s:.0f} ms" for verb, s in found_s.items()), flush=True)
        errors = check()
        for words in ("the coordinator hung: it had not answered for 0.", "the node agent hung: it had not answered for 0.",
                      "the gateway hangs: it has done nothing for 0."):
            self.assertEqual(errors.count(words), 1, errors)

    def test_the_gateway_and_the_first_rank_at_once(self):
        service, running, check = self.begin("{}, {}")
        wait_until(lambda: service.status()["requests"] == len(running), "all requests under way")
        os.kill(service.ranks[0][0], signal.SIGKILL)
        os.kill(service.gateway, signal.SIGKILL)
        check()

    def test_each_rank_once(self):
        self.check("{}, {}, {}")

    def test_with_standbys(self):
        self.check("{standbys: 1}, {standbys: 1}, {standbys: 1}")


    def test_ranks_that_hang(self):
        self.check("{standbys: 1}, {standbys: 1}, {standbys: 1}", signal.SIGSTOP)


if __name__ == "__main__":
    unittest.main()
