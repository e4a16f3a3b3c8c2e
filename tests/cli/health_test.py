"""What `chainpump status` says of a service whose ranks are killed or stopped, within how long, and that idle ones stay
ready.
"""
import json
import os
import signal
import time
import unittest

from processes import ranks_of, stat_of, wait_until
from services import Case

SOON_S = 1  # of what is to be seen within it


class Health(Case):
    def begin(self, stages):
        path = self.folder.parent / f"{self.folder.name}-health.yaml"
        path.write_text(f"name: demo\nthreads: 1\nkv: {{context: 512}}\nstages: [{stages}]\nfailover: {{restarts: 50}}\n")
        self.addCleanup(path.unlink)
        service = self.serve(graph=str(path))
        service.wait_ready()
        return service

    def until(self, service, condition, what, seconds=SOON_S):
        return wait_until(lambda: (found := service.status()) and condition(found) and found, what, seconds)

    def test_the_only_lane_is_lost_and_comes_back(self):
        service = self.begin("{}, {name: middle}, {}")
        self.assertTrue(service.status()["ready"])
        for victim, number, words in ((1, signal.SIGKILL, ("middle", "killed by SIGKILL")),
                                      (0, signal.SIGKILL, ("stage0", "killed by SIGKILL")),
                                      (2, signal.SIGSTOP, ("stage2", "hangs"))):
            os.kill(ranks_of(service.agent)[victim][0], number)
            # A hang is told within a second, and then it has to be killed.
            seconds = SOON_S if number == signal.SIGKILL else SOON_S + 0.5
            found = self.until(service, lambda found: not found["ready"], "not ready", seconds)
            lane = found["health"][0]
            self.assertEqual((lane["lane"], lane["ready"], lane["crossed_ago_s"]), (0, False, None))
            # It may be repaired, but for the crossing, by the time that somebody looks.
            state, how = ("away", "it is being repaired") if lane["state"] == "away" else ("serving", "it is repaired, but")
            self.assertEqual(lane["state"], state)
            self.assertLess(lane["away_s"] or 0, SOON_S)
            for word in ("lane 0: ", *words, how):
                self.assertIn(word, found["not_ready_because"])
            found = self.until(service, lambda found: found["health"][0]["state"] == "serving", "a lane that serves", 20)
            if not found["ready"]:
                found = self.until(service, lambda found: found["ready"], "ready")
            self.assertEqual((found["not_ready_because"], found["coordinator_away"]), ("", ""))
            self.assertLess(found["health"][0]["crossed_ago_s"], SOON_S)
            self.until(service, lambda found: len(found["stages"]) == 3, "word of every stage", 20)
        self.assertEqual(service.end()[0], 0)

    @staticmethod
    def look_while_it_dies(service, rank):
        """Side by side: one that asks a rank in the moment of its death waits for it longer than the repair takes."""
        os.kill(rank[0], signal.SIGKILL)
        asked = []
        for _ in range(8):
            asked.append(service.start("status", "demo", "-o", "json"))
            time.sleep(0.03)
        return [json.loads(each.communicate(timeout=10)[0])["services"][0] for each in asked]

    def test_one_of_two_lanes_is_enough(self):
        service = self.begin("{replicas: 2}, {replicas: 2}")
        for _ in range(4):  # a repair may be over before anybody has looked
            self.until(service, lambda found: all(lane["ready"] for lane in found["health"]), "two lanes", 20)
            answers = self.look_while_it_dies(service, ranks_of(service.agent)[3])
            found = next((found for found in answers if found["stages_missing"] == "lane 1 is away"), None)
            if found:
                break
        self.assertIsNotNone(found)
        self.assertTrue(found["ready"])
        for word in ("stage1", "killed by SIGKILL"):
            self.assertIn(word, found["health"][1]["why"])
        self.assertEqual((found["health"][0]["ready"], found["health"][1]["state"]), (True, "away"))
        self.assertIn(b"ready: yes", service.call(["status", "demo"]).stdout)
        self.until(service, lambda found: all(lane["ready"] for lane in found["health"]), "both lanes", 20)
        self.assertEqual(service.end()[0], 0)

    def test_an_idle_service_stays_ready_and_counts_nothing(self):
        service = self.begin("{}, {}")
        until = time.monotonic() + 16
        oldest = 0
        while time.monotonic() < until:
            found = service.status()
            self.assertTrue(found["ready"], found["not_ready_because"])
            self.assertEqual((found["completed"], found["tokens"], [part["tokens"] for part in found["stages"]]), (0, 0, [0, 0]))
            self.assertEqual(found["queues"][0]["running"], 0)
            oldest = max(oldest, found["health"][0]["crossed_ago_s"])
            time.sleep(0.1)  # the service is to be idle meanwhile
        self.assertGreater(oldest, 4)  # a canary comes after five seconds, no sooner
        self.assertLess(oldest, 7)
        self.assertEqual(service.end()[0], 0)

    def test_status_answers_while_the_coordinator_hangs(self):
        service = self.begin("{}, {}")
        hung = service.child(b"coordinator")
        os.kill(hung, signal.SIGSTOP)
        began = time.monotonic()
        found = service.status()
        self.assertLess(time.monotonic() - began, 1)
        self.assertTrue(found["ready"])
        # It may be another one that answers: a coordinator that hangs is killed within a second.
        self.assertIn((len(found["stages"]), found["stages_missing"][-22:]), ((2, ""), (0, "did not report in time")))
        wait_until(lambda: stat_of(hung) is None, "its end", 2)
        self.until(service, lambda found: len(found["stages"]) == 2 and not found["coordinator_away"], "another one", 5)
        self.assertEqual(service.end()[0], 0)


if __name__ == "__main__":
    unittest.main()
