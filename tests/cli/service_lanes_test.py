"""A service of several lanes, whether their stages have ranks of their own or share them, gives the answers of one
lane, and says of its ranks which lanes they serve.
"""
import json
import os
import signal
import subprocess
import unittest

import program
from services import LONG, MODEL, PATIENCE_S, RAW, USING, Case, read_some


class Lanes(Case):
    """Replicas make lanes that share the requests; stages with fewer of them share their ranks. No token
    depends on it."""

    def graph(self, *replicas, failover=""):
        path = self.folder.parent / f"{self.folder.name}-{'-'.join(map(str, replicas))}.yaml"
        stages = ", ".join(f"{{replicas: {count}}}" for count in replicas)
        path.write_text(f"name: demo\nthreads: 1\nkv: {{context: 512}}\nstages: [{stages}]\n{failover}")
        self.addCleanup(path.unlink)
        return str(path)

    def check_lanes(self, replicas, places):
        graph = self.graph(*replicas)
        service = self.serve(graph=graph)
        service.wait_ready()
        self.assertEqual(len(service.ranks), sum(replicas))
        ask = ["run", graph, *RAW, "-n", "24", "-o", "json"]
        if not hasattr(self, "expected"):
            alone = service.call(["run", "demo", "--service", "none", "--stages", "1", *ask[2:]])
            self.expected = json.loads(alone.stdout)["token_ids"]
        running = [service.start(*ask) for _ in range(2 * max(replicas))]
        for each in running:
            out, errors = each.communicate(timeout=PATIENCE_S)
            self.assertEqual((each.returncode, USING in errors), (0, True), errors)
            self.assertEqual(json.loads(out)["token_ids"], self.expected)
        found = service.wait_idle()
        self.assertEqual(found["lanes"], max(replicas))
        self.assertEqual([(stage["lanes"], stage["stage"]) for stage in found["stages"]], places)
        self.assertEqual(sorted((link["lane"], link["edge"]) for link in found["links"]),
                         [(lane, edge) for lane in range(max(replicas)) for edge in range(len(replicas))])
        whole = {"running": 0, "waiting": 0, "kv_blocks": found["kv"]["blocks"] // max(replicas),
                 "kv_blocks_free": found["kv"]["blocks"] // max(replicas)}
        self.assertEqual(found["queues"], [{"lane": lane, **whole} for lane in range(max(replicas))])
        for part in found["stages"]:
            self.assertGreater(part["tokens"], 0)
        for part in found["links"]:
            self.assertGreater(part["frames"], 0)
        return service, graph

    def end(self, service):
        self.assertEqual(service.end()[0], 0)
        service.check_nothing_left()

    def test_replicas_share_the_requests_and_change_no_token(self):
        service, graph = self.check_lanes([2, 2], [([0], 0), ([0], 1), ([1], 0), ([1], 1)])
        plan = service.call(["plan", graph, *MODEL, "-o", "json"])
        self.assertEqual([lane["ranks"] for lane in json.loads(plan.stdout)["lanes"]], [[0, 1], [2, 3]], plan.stderr)
        self.assertIn(b"2 lanes", service.call(["plan", graph, *MODEL]).stdout)
        self.end(service)

    def test_a_shared_first_middle_and_last_rank_change_no_token(self):
        self.end(self.check_lanes([1, 2], [([0, 1], 0), ([0], 1), ([1], 1)])[0])
        self.end(self.check_lanes([2, 1, 2], [([0], 0), ([0, 1], 1), ([0], 2), ([1], 0), ([1], 2)])[0])
        service, graph = self.check_lanes([2, 1], [([0], 0), ([0, 1], 1), ([1], 0)])
        table = service.call(["status", "demo"]).stdout.decode()
        self.assertIn("0+1.1 ", table)
        self.assertIn("1.0 -> 1.1", table)
        plan = service.call(["plan", graph, *MODEL]).stdout.decode()
        self.assertIn("1 rank: lanes 0 and 1", plan)
        lanes = json.loads(service.call(["plan", graph, *MODEL, "-o", "json"]).stdout)["lanes"]
        self.assertEqual([lane["ranks"] for lane in lanes], [[0, 1], [2, 1]])
        trace = self.folder.parent / (self.folder.name + ".trace.json")
        self.addCleanup(trace.unlink)
        running = [service.start("run", graph, *RAW, "-n", "200", "--ignore-eos") for _ in range(2)]
        done = service.call(["trace", "demo", "-d", "500ms", "-o", str(trace)])
        self.assertEqual(done.returncode, 0, done.stderr)
        for each in running:
            each.communicate(timeout=PATIENCE_S)
        names = [event["args"]["name"] for event in json.loads(trace.read_text())["traceEvents"]
                 if event["name"] == "process_name"]
        self.assertEqual([name.split(":")[0] for name in names],
                         ["lane 0 stage 0", "lanes 0 and 1 stage 1", "lane 1 stage 0"])
        self.end(service)

    def test_a_dead_shared_rank_is_named_with_all_its_lanes(self):
        graph = self.graph(1, 2, failover="failover: {restarts: 0}\n")
        service = self.serve(graph=graph)
        for rank, words in ((0, "stage .* of lanes 0 and 1 died"), (2, "stage .* of lane 1 died")):
            service.wait_ready()
            running = [service.start("run", graph, *LONG[:-1], "400") for _ in range(2)]
            for each in running:
                read_some(each)
            os.kill(service.ranks[rank][0], signal.SIGKILL)
            for each in running:
                _, errors = each.communicate(timeout=PATIENCE_S)
                self.assertEqual(each.returncode, 5, errors)
                self.assertRegex(errors.decode(), words)
        service.wait_ready()
        self.end(service)

    def test_counts_that_share_no_lanes_are_refused_with_those_that_would(self):
        done = subprocess.run([program.program(), "plan", self.graph(4, 6), *MODEL], capture_output=True,
                              timeout=program.TIMEOUT_S)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn(b"replicas: 4 cannot share the 6 lanes", done.stderr)
        self.assertIn(b"3 or 6 can", done.stderr)


if __name__ == "__main__":
    unittest.main()
