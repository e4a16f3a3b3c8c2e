"""A bad network between two network namespaces: two TUN devices, and in between a program that delays, loses, doubles, reorders and
damages what goes through, all from one seed. Damage is done to what TCP carries, and checksums are made right again: so it reaches
whoever reads the stream, as a bit that turned in a machine's memory would.

    with Relay(seed) as relay:                  # 10.77.0.1 in relay.names[0], 10.77.0.2 in relay.names[1]; both on a device `relay`
        relay.set(loss=0.02, cut=[True, False])  # from the first to the second nothing gets through

Needs root, `ip netns` and /dev/net/tun; why_not() says what is missing.
"""
import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import time

DEVICE = "relay"
ADDRESSES = ("10.77.0.1", "10.77.0.2")
MTU = 9000
TUNSETIFF, IFF_TUN, IFF_NO_PI, CLONE_NEWNET = 0x400454CA, 1, 0x1000, 0x40000000
CALM = {"delay_ms": 0, "jitter_ms": 0, "loss": 0, "double": 0, "damage": 0, "cut": [False, False]}


def why_not():
    """Why there can be no relay here, or nothing."""
    if os.geteuid() != 0:
        return "not root"
    if not os.path.exists("/dev/net/tun"):
        return "no /dev/net/tun"
    name = f"chainpump-try-{os.getpid()}"
    try:
        made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    except FileNotFoundError:
        return "no ip command"
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return f"no network namespaces: {made.stderr.strip()}" if made.returncode else None


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def damaged(packet, dice):
    """One bit of what the packet's TCP segment carries, turned, under a right checksum; nothing if it carries nothing."""
    header = (packet[0] & 15) * 4
    if packet[0] >> 4 != 4 or packet[9] != 6:
        return None
    body = header + (packet[header + 12] >> 4) * 4
    if len(packet) <= body:
        return None
    out = bytearray(packet)
    out[dice.randrange(body, len(out))] ^= 1 << dice.randrange(8)
    out[header + 16:header + 18] = b"\0\0"
    pseudo = bytes(out[12:20]) + struct.pack("!BBH", 0, 6, len(out) - header)
    out[header + 16:header + 18] = struct.pack("!H", checksum(pseudo + bytes(out[header:])))
    return bytes(out)


def open_tun(namespace):
    """A descriptor of the namespace's device."""
    libc = ctypes.CDLL(None, use_errno=True)
    own = os.open("/proc/self/ns/net", os.O_RDONLY)
    other = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        if libc.setns(other, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22s", DEVICE.encode(), IFF_TUN | IFF_NO_PI, b""))
        return tun
    finally:
        libc.setns(own, CLONE_NEWNET)
        os.close(own)
        os.close(other)


def carry(namespaces, seed):
    """Until standard input ends, on which settings come, a line of JSON each; answered by a line with what was done so far."""
    tuns = [open_tun(name) for name in namespaces]
    print("ready", flush=True)
    dice, now_set, waiting, count = random.Random(seed), dict(CALM), [], 0
    done = {"carried": 0, "lost": 0, "doubled": 0, "damaged": 0, "cut": 0}
    while True:
        wait = max(0, waiting[0][0] - time.monotonic()) if waiting else None
        for ready in select.select([0, *tuns], [], [], wait)[0]:
            if ready == 0:
                line = sys.stdin.readline()
                if not line:
                    return
                now_set.update(json.loads(line))
                print(json.dumps(done), flush=True)
                continue
            packet, side = os.read(ready, 65536), tuns.index(ready)
            if now_set["cut"][side]:
                done["cut"] += 1
                continue
            if dice.random() < now_set["loss"]:
                done["lost"] += 1
                continue
            if dice.random() < now_set["damage"]:
                hurt = damaged(packet, dice)
                done["damaged"] += hurt is not None
                packet = hurt or packet
            copies = 1 + (dice.random() < now_set["double"])
            done["doubled"] += copies - 1
            for _ in range(copies):
                due = time.monotonic() + (now_set["delay_ms"] + dice.random() * now_set["jitter_ms"]) / 1000
                count += 1
                heapq.heappush(waiting, (due, count, 1 - side, packet))
        while waiting and waiting[0][0] <= time.monotonic():
            _, _, side, packet = heapq.heappop(waiting)
            done["carried"] += 1
            try:
                os.write(tuns[side], packet)
            except (BlockingIOError, OSError):
                pass  # as a full queue of a router


class Relay:
    def __init__(self, seed):
        self.seed = seed
        self.names = [f"chainpump-{os.getpid()}-{side}" for side in "ab"]

    def __enter__(self):
        try:
            for name in self.names:
                self.ip("netns", "add", name)
            self.process = subprocess.Popen([sys.executable, __file__, *self.names, str(self.seed)], stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE, text=True)
            if self.process.stdout.readline() != "ready\n":
                raise RuntimeError("the relay did not start")
            for name, address in zip(self.names, ADDRESSES):
                self.ip("-n", name, "link", "set", "lo", "up")
                self.ip("-n", name, "addr", "add", f"{address}/24", "dev", DEVICE)
                self.ip("-n", name, "link", "set", DEVICE, "mtu", str(MTU), "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if hasattr(self, "process"):
            self.process.kill()
            self.process.communicate()
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

    @staticmethod
    def ip(*arguments):
        subprocess.run(["ip", *arguments], check=True)

    def set(self, **settings):
        """From now on; what is not named stays. Returns what was done so far."""
        self.process.stdin.write(json.dumps(settings) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def calm(self):
        return self.set(**CALM)

    def inside(self, side, command):
        """The command, to run in that namespace."""
        return ["ip", "netns", "exec", self.names[side], *command]


if __name__ == "__main__":
    carry(sys.argv[1:3], int(sys.argv[3]))
