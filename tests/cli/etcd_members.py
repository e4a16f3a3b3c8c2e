"""A store of three etcd members on the loopback for a test, and what can be done to them. why_not() says what is missing."""
import base64
import json
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import urllib.error
import urllib.request

from processes import wait_until

NUM_MEMBERS = 3
CALL_S = 1.5


def why_not():
    """Why there can be no store here, or nothing."""
    return None if shutil.which("etcd") else "no etcd (Debian's etcd-server)"


def free_ports(number):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def encode(text):
    return base64.b64encode(text.encode()).decode()


def make_certificates(folder):
    """An authority, and what it has signed for a server on the loopback and for a client: NAME.pem and NAME.key."""
    def make(name, *more):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                        "-subj", f"/CN={name}", "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem", *more],
                       check=True, capture_output=True)
    signed = ["-CA", folder / "authority.pem", "-CAkey", folder / "authority.key", "-addext", "basicConstraints=critical,CA:FALSE"]
    make("authority")
    make("server", *signed, "-addext", "subjectAltName=IP:127.0.0.1")
    make("client", *signed)
    make("stranger")


class Members:
    def __init__(self, tls=False):
        self.tls = tls

    def __enter__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.scheme, self.context, self.secure = "http", None, []
        if self.tls:
            make_certificates(self.folder)
            self.scheme = "https"
            self.context = ssl.create_default_context(cafile=self.folder / "authority.pem")
            self.context.load_cert_chain(self.folder / "client.pem", self.folder / "client.key")
            self.secure = ["--cert-file", self.folder / "server.pem", "--key-file", self.folder / "server.key", "--client-cert-auth",
                           "--trusted-ca-file", self.folder / "authority.pem"]
        ports = free_ports(2 * NUM_MEMBERS)
        self.addresses = [f"127.0.0.1:{port}" for port in ports[:NUM_MEMBERS]]
        self.peers = [f"http://127.0.0.1:{port}" for port in ports[NUM_MEMBERS:]]
        self.members = [self.start(i) for i in range(NUM_MEMBERS)]
        wait_until(lambda: self.get("/x") is not None, "a store", 30)
        return self

    def __exit__(self, *_):
        for member in self.members:
            member.send_signal(signal.SIGCONT)
            member.kill()
            member.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, i):
        cluster = ",".join(f"m{k}={peer}" for k, peer in enumerate(self.peers))
        client = f"{self.scheme}://{self.addresses[i]}"
        with open(self.folder / f"log-{i}", "ab") as log:
            return subprocess.Popen(
                ["etcd", "--name", f"m{i}", "--data-dir", self.folder / f"m{i}", "--listen-client-urls", client,
                 "--advertise-client-urls", client, "--listen-peer-urls", self.peers[i], "--initial-advertise-peer-urls",
                 self.peers[i], "--initial-cluster", cluster, "--heartbeat-interval", "50", "--election-timeout", "500",
                 "--unsafe-no-fsync", "--log-level", "error", *self.secure], stdout=log, stderr=log)

    def kill(self, i):
        self.members[i].kill()
        self.members[i].wait()

    def restart(self, i):
        self.members[i] = self.start(i)

    def stop(self, i):
        self.members[i].send_signal(signal.SIGSTOP)

    def go_on(self, i):
        self.members[i].send_signal(signal.SIGCONT)

    def call(self, path, body):
        """Of whoever answers; None if nobody does."""
        for address in self.addresses:
            request = urllib.request.Request(f"{self.scheme}://{address}/v3{path}", data=json.dumps(body).encode(), method="POST")
            try:
                with urllib.request.urlopen(request, timeout=CALL_S, context=self.context) as answer:
                    return json.load(answer)
            except (OSError, urllib.error.URLError):
                continue
        return None

    def get(self, begins):
        """{key: (value, create_revision, mod_revision)}, or None."""
        end = begins[:-1] + chr(ord(begins[-1]) + 1)
        answer = self.call("/kv/range", {"key": encode(begins), "range_end": encode(end)})
        if answer is None:
            return None
        return {base64.b64decode(kv["key"]).decode(): (base64.b64decode(kv.get("value", "")), int(kv["create_revision"]),
                                                       int(kv["mod_revision"])) for kv in answer.get("kvs", [])}

    def history(self, begins, until):
        """Every change so far, in order, up to that of the key `until`: (revision, key, value or None)."""
        end = begins[:-1] + chr(ord(begins[-1]) + 1)
        body = {"create_request": {"key": encode(begins), "range_end": encode(end), "start_revision": "1"}}
        request = urllib.request.Request(f"{self.scheme}://{self.addresses[0]}/v3/watch", data=json.dumps(body).encode(), method="POST")
        changes = []
        with urllib.request.urlopen(request, timeout=10, context=self.context) as answer:
            for line in answer:
                for event in json.loads(line)["result"].get("events", []):
                    kv = event["kv"]
                    value = None if event.get("type") == "DELETE" else base64.b64decode(kv.get("value", ""))
                    changes.append((int(kv["mod_revision"]), base64.b64decode(kv["key"]).decode(), value))
                    if changes[-1][1] == until:
                        return changes
        raise AssertionError("the history has no end")
