"""Three machines for a test: network namespaces on a bridge, each link of a limited rate. Needs root, as containers of
continuous integration have it; why_not() says what is missing.
"""
import functools
import os
import subprocess

import program

RATE = "500mbit"


def ip(*arguments, check=True):
    return subprocess.run(["ip", *arguments], check=check, capture_output=True, text=True)


class Machines:
    """Namespaces `PREFIX-a`, `PREFIX-b`, ... with addresses 10.77.0.1, .2, ... on their interfaces `data`."""

    def __init__(self, names, prefix=f"cp{os.getpid() % 100000}"):
        self.prefix = prefix
        self.names = list(names)
        self.bridge = f"{prefix}br"
        self.made = []

    def __enter__(self):
        try:
            self.home = f"{self.prefix}-net"  # the bridge is in none of the machines, and not in the test's own
            self.add(self.home)
            ip("-n", self.home, "link", "add", self.bridge, "type", "bridge")
            ip("-n", self.home, "link", "set", self.bridge, "up")
            for i, name in enumerate(self.names):
                space, port = self.space(name), self.port(name)
                self.add(space)
                ip("-n", self.home, "link", "add", port, "type", "veth", "peer", "name", "data", "netns", space)
                ip("-n", self.home, "link", "set", port, "master", self.bridge, "up")
                ip("-n", space, "address", "add", f"{self.address(name)}/24", "dev", "data")
                ip("-n", space, "link", "set", "data", "up")
                ip("-n", space, "link", "set", "lo", "up")
                subprocess.run(["ip", "netns", "exec", space, "tc", "qdisc", "add", "dev", "data", "root", "tbf", "rate", RATE,
                                "burst", "256kb", "latency", "50ms"], check=True, capture_output=True)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for space in reversed(self.made):
            ip("netns", "delete", space, check=False)

    def add(self, space):
        ip("netns", "add", space)
        self.made.append(space)

    def space(self, name):
        return f"{self.prefix}-{name}"

    def port(self, name):
        return f"{self.prefix}p{name}"

    def address(self, name):
        return f"10.77.0.{self.names.index(name) + 1}"

    def command(self, name, *arguments):
        return ["ip", "netns", "exec", self.space(name), program.program(), *map(str, arguments)]

    def cut(self, name):
        ip("-n", self.home, "link", "set", self.port(name), "down")

    def heal(self, name):
        ip("-n", self.home, "link", "set", self.port(name), "up")


@functools.cache
def why_not():
    """Why there can be no machines here, or nothing."""
    try:
        with Machines("x"):
            return None
    except FileNotFoundError as missing:
        return f"no {missing.filename} command"
    except subprocess.CalledProcessError as error:
        return f"'{' '.join(error.cmd)}' failed: {error.stderr.strip()}"
