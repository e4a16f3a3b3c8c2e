"""`chainpump run` as a family of processes: what the tests share that signal it, kill it, and look at what is left."""
import os
import pathlib
import select
import shutil
import subprocess
import tempfile
import time

from program import program

PATIENCE_S = 30


def stat_of(pid):
    """Fields of /proc/pid/stat after the name, or None for a process that is gone or only to be reaped."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else fields


def identity(pid):
    """A process, told from a later one with its number."""
    fields = stat_of(pid)
    return fields and (pid, fields[19])


def fragile_graph(test):
    """A file of a graph as the demo's, whose first death is its end."""
    handle, path = tempfile.mkstemp(suffix=".yaml")
    with os.fdopen(handle, "w") as out:
        out.write("version: 1\nname: demo\nstages: 3\nfailover: {restarts: 0}\n")
    test.addCleanup(os.unlink, path)
    return path


def ranks_of(parent):
    """{stage number: identity} of the ranks that `parent` has started."""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        fields = stat_of(int(entry.name))
        if not fields or int(fields[1]) != parent:
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if arguments[1:2] == [b"rank"]:
            found[int(arguments[2].rsplit(b"-", 1)[1])] = identity(int(entry.name))
    return found


def wait_until(condition, what, patience_s=PATIENCE_S):
    deadline = time.monotonic() + patience_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {patience_s} s: {what}")
        time.sleep(0.005)
    return value


class Run:
    """`chainpump run` with a folder of its own for temporary files, and what it leaves."""

    def __init__(self, arguments, stdin=subprocess.DEVNULL, graph="demo"):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.shared_before = set(os.listdir("/dev/shm"))
        environment = dict(os.environ, TMPDIR=str(self.folder), XDG_RUNTIME_DIR=str(self.folder))
        self.process = subprocess.Popen(
            [program(), "run", graph, *arguments], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment, start_new_session=True)
        self.ranks = {}

    def wait_ranks(self, count=3):
        wait_until(lambda: len(ranks_of(self.process.pid)) == count, f"{count} ranks")
        self.ranks = ranks_of(self.process.pid)

    def wait_text(self, num_bytes=20, ranks=3):
        """Returns once so much text has been generated: every stage is at work."""
        deadline = time.monotonic() + PATIENCE_S
        while num_bytes > 0:
            ready, _, _ = select.select([self.process.stdout], [], [], deadline - time.monotonic())
            text = ready and os.read(self.process.stdout.fileno(), 4096)
            assert text, f"no text: {self.process.stderr.read() if ready else ''}"
            num_bytes -= len(text)
        self.wait_ranks(ranks)

    def wait_end(self, patience_s=PATIENCE_S):
        """(exit status, standard error, seconds that it took)"""
        began = time.monotonic()
        _, errors = self.process.communicate(timeout=patience_s)
        return self.process.returncode, errors.decode(errors="replace"), time.monotonic() - began

    def processes(self):
        """Ids of the processes of this run that live, however they came to be: its folder is in their environment."""
        found = []
        mark = os.fsencode(self.folder)
        for entry in pathlib.Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes() and stat_of(entry.name):
                    found.append(int(entry.name))
            except (PermissionError, FileNotFoundError, ProcessLookupError):
                continue
        return found

    def check_nothing_left(self):
        wait_until(lambda: not self.processes(), "the end of every process", 5)
        # Other tests may use shared memory meanwhile; theirs goes with them.
        wait_until(lambda: set(os.listdir("/dev/shm")) <= self.shared_before, "an empty /dev/shm")
        left = [str(path) for path in self.folder.rglob("*")]
        assert not left, f"files left: {left}"

    def close(self):
        self.process.kill()
        self.process.wait(PATIENCE_S)
        for stream in (self.process.stdout, self.process.stderr):
            stream.close()
        shutil.rmtree(self.folder)
