"""Ranks of a service are killed or stopped, one after the other, the first of the lane among them, while several
requests run: each ends with the tokens of a calm run, and no other process ends.
"""
import json
import os
import signal
import threading
import unittest

import program
from processes import ranks_of, wait_until
from services import MODEL, PATIENCE_S, Case

ASK = [*MODEL, "--raw", "--ignore-eos", "-n", "300", "-o", "json", "--prompt"]
PROMPTS = [("The three primary colours are", []), ("Once upon a time", ["--temperature", "0.9", "--seed", "7"]),
           ("A list of rivers:", ["--temperature", "0.7", "--top-p", "0.9", "--seed", "8"]), ("The sea", [])]


class Failover(Case):
    def graph(self, stages):
        path = self.folder.parent / f"{self.folder.name}-failover.yaml"
        path.write_text(f"name: demo\nthreads: 1\nkv: {{context: 512}}\nstages: [{stages}]\nfailover: {{restarts: 50}}\n")
        self.addCleanup(path.unlink)
        return str(path)

    def check(self, stages, number=signal.SIGKILL):
        graph = self.graph(stages)
        service = self.serve(graph=graph)
        service.wait_ready()
        expected = []
        for prompt, more in PROMPTS:
            alone = service.call(["run", "demo", "--service", "none", "--stages", "1", *ASK, prompt, *more])
            expected.append(json.loads(alone.stdout)["token_ids"])
        agent = service.agent
        gateway = service.gateway
        running = [service.start("run", graph, *ASK, prompt, *more) for prompt, more in PROMPTS]
        outputs = [None] * len(running)

        def collect(i):
            outputs[i] = running[i].communicate(timeout=PATIENCE_S)

        threads = [threading.Thread(target=collect, args=(i,)) for i in range(len(running))]
        for thread in threads:
            thread.start()
        num_killed = 0
        for victim in (1, 2, 0):
            ranks = ranks_of(agent)
            if all(each.poll() is not None for each in running) or len(ranks) <= victim:
                break
            os.kill(ranks[victim][0], number)
            num_killed += 1
            wait_until(lambda: ranks_of(agent).get(victim) not in (None, ranks[victim]), f"another process {victim}")
        for thread in threads:
            thread.join()
        self.assertEqual(num_killed, 3)
        for each, (out, errors), tokens in zip(running, outputs, expected):
            self.assertEqual(each.returncode, 0, errors)
            self.assertEqual(json.loads(out)["token_ids"], tokens)
        self.assertEqual((service.agent, service.gateway), (agent, gateway))
        self.assertEqual(service.end()[0], 0)

    def test_each_rank_once(self):
        self.check("{}, {}, {}")

    def test_with_standbys(self):
        self.check("{standbys: 1}, {standbys: 1}, {standbys: 1}")


    def test_ranks_that_hang(self):
        self.check("{standbys: 1}, {standbys: 1}, {standbys: 1}", signal.SIGSTOP)


if __name__ == "__main__":
    unittest.main()
