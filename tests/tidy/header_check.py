"""Compiles each header on its own with -fsyntax-only. A header is checked again only when it, one of
the project headers it reaches, or the way of compiling changed: the results are kept by content."""
import concurrent.futures
import hashlib
import os
import pathlib
import re
import shlex
import subprocess


class Cache:
    """A set of content hashes that passed, one empty file each, so that two runs cannot spoil it."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def _path(self, parts):
        digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        return self.folder / digest

    def has(self, *parts):
        return self._path(parts).exists()

    def add(self, *parts):
        self._path(parts).touch()


def closure(start, includes):
    """`start` and every project file it includes, directly or not, in a fixed order."""
    seen, todo = set(), [start]
    while todo:
        path = todo.pop()
        if path in seen or path not in includes:
            continue
        seen.add(path)
        todo += [pathlib.Path(name) for name in includes[path]]
    return sorted(seen)


def flags_for(path, text):
    """A header of a vector variant is only ever included where its instruction set is switched on."""
    if "avx512" in path.name:
        return ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni", "-mavx512bf16", "-mfma", "-mf16c"]
    if "avx2" in path.name:
        return ["-mavx2", "-mfma", "-mf16c"]
    return []


def failures(root, includes, texts):
    """Yields (header, first error) for each header that does not compile alone."""
    build = root / os.environ.get("CHAINPUMP_TIDY_BUILD", "build/release")
    command = [os.environ.get("CXX", "g++"), "-std=c++20", "-fsyntax-only", "-x", "c++", "-Wall", "-Wextra",
               "-Wno-pragma-once-outside-header", "-DBOOST_TEST_DYN_LINK", f"-I{root}", f"-I{build}", *pkg_config()]
    cache = Cache(root / ".cache/tidy/headers")

    def check(path):
        flags = flags_for(path, texts[path])
        key = [str(path), *command[:7], *flags, *(texts[part] for part in closure(path, includes))]
        if cache.has(*key):
            return None
        done = subprocess.run([*command, *flags, path], cwd=root, capture_output=True, text=True)
        if done.returncode == 0:
            cache.add(*key)
            return None
        error = re.search(r"^.*error: .*$", done.stderr, re.M)
        return path, error.group(0) if error else done.stderr[-300:]

    headers = [path for path in includes if path.suffix == ".h"]
    with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        yield from (found for found in pool.map(check, headers) if found)


def pkg_config():
    done = subprocess.run(["pkg-config", "--cflags", "ucx", "libfyaml", "capnp-rpc"], capture_output=True, text=True)
    return shlex.split(done.stdout)
