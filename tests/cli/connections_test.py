"""Connections between the processes of a service break while both their ends live, one after the other, under load: each
request ends with the tokens of a calm run, and the service is ready again.
"""
import ctypes
import json
import os
import pathlib
import socket
import subprocess
import time
import unittest

import program
from processes import wait_until
from services import MODEL, Case, collect

PIDFD_GETFD = 438
ASK = [*MODEL, "--raw", "--ignore-eos", "-n", "250", "-o", "json", "--prompt"]
PROMPTS = [("The three primary colours are", []), ("Once upon a time", ["--temperature", "0.9", "--seed", "7"])]
GRAPH = "name: demo\nthreads: 1\nkv: {context: 512}\nstages: [{name: front}, {name: back}]\nfailover: {restarts: 50}\n"


def connections(pid):
    """(number, socket) of each stream between processes that another process has open; the socket is shared with it."""
    libc = ctypes.CDLL(None, use_errno=True)
    process = os.pidfd_open(pid)
    try:
        for entry in sorted(pathlib.Path(f"/proc/{pid}/fd").iterdir(), key=lambda entry: int(entry.name)):
            try:
                if not os.readlink(entry).startswith("socket:"):
                    continue
            except OSError:
                continue  # closed meanwhile
            copy = libc.syscall(PIDFD_GETFD, process, int(entry.name), 0)
            if copy < 0:
                continue
            found = socket.socket(fileno=copy)
            if found.family == socket.AF_UNIX and found.type == socket.SOCK_STREAM and not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                yield int(entry.name), found
            else:
                found.close()
    finally:
        os.close(process)


class Connections(Case):
    def setUp(self):
        super().setUp()
        path = self.folder.parent / f"{self.folder.name}-connections.yaml"
        path.write_text(GRAPH)
        self.addCleanup(path.unlink)
        self.graph = str(path)
        run = [program.program(), "run", self.graph, "--service", "none", *ASK]
        self.calm = [json.loads(subprocess.run([*run, prompt, *more], capture_output=True, check=True).stdout)["token_ids"]
                     for prompt, more in PROMPTS]

    def break_each(self, role, is_wanted):
        """Those of this process; while each breaks requests run. Says to whom they were."""
        service = self.serve(graph=self.graph)
        service.wait_ready()
        broken = []
        while True:
            pid = service.child(role) if role else service.process.pid
            name = None
            running = [service.start("run", self.graph, *ASK, prompt, *more) for prompt, more in PROMPTS]
            said = collect(running)
            wait_until(lambda: service.status()["sequences"] == len(running), "the requests under way")
            for _, each in connections(pid):
                with each:
                    peer = pathlib.Path(os.fsdecode(each.getpeername() or b"")).name
                    if name is None and is_wanted(peer) and peer not in broken:
                        name = peer
                        each.shutdown(socket.SHUT_RDWR)
            for process, (out, errors), tokens in zip(running, said(), self.calm):
                self.assertEqual(process.returncode, 0, (name, errors))
                self.assertEqual(json.loads(out)["token_ids"], tokens, name)
            begin = time.monotonic()
            wait_until(lambda: service.status()["ready"], f"the service to be ready after the connection to {name} broke", 10)
            print(f"{(role or b'serve').decode()} to {name or 'nobody more'}: ready {time.monotonic() - begin:.2f} s after the last token")
            if name is None:
                break
            broken.append(name)
        status, errors = service.end()
        self.assertEqual(status, 0, errors)
        return broken, errors

    def test_of_the_gateway(self):
        broken, errors = self.break_each(b"gateway", lambda peer: peer.startswith(("rank-", "coordinator")))
        self.assertEqual(sorted(broken), ["coordinator.sock", "rank-0.sock"])
        self.assertNotIn("repaired", errors)

    def test_of_the_coordinator(self):
        broken, errors = self.break_each(b"coordinator", lambda peer: peer.startswith(("rank-", "agent")))
        self.assertEqual(sorted(broken), ["agent.sock", "rank-0.sock", "rank-1.sock"])
        self.assertIn("the coordinator's connection to the node agent broke", errors)

    def test_of_serve(self):
        broken, errors = self.break_each(None, lambda peer: peer.startswith(("coordinator", "agent")))
        self.assertEqual(sorted(broken), ["agent.sock", "coordinator.sock"], errors)


if __name__ == "__main__":
    unittest.main()
