"""Runs every ```sh block of README.md, CONTRIBUTING.md and docs/*.md, as it stands, in the repository's root.

Each block is one script under `bash -euo pipefail`; build/release comes first on PATH, so a block may
say `chainpump`. A block that cannot be run by a test says why in its own opening line:
```sh no-test: needs two machines
"""
import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[2]
LIMIT_S = 120


def blocks(path):
    """Yields (line number, words after sh, script) of each ```sh block."""
    lines = path.read_text(encoding="utf-8").splitlines()
    start = None
    for number, line in enumerate(lines, 1):
        opening = re.match(r"```(\w*)\s*(.*)$", line)
        if start is None and opening:
            start, language, words = number, opening.group(1), opening.group(2)
        elif start is not None and line.startswith("```"):
            if language in ("sh", "bash", "shell", "console"):
                yield start, language, words, "\n".join(lines[start:number - 1])
            start = None
    if start is not None:
        raise SystemExit(f"{path}:{start}: the block has no end")


def run(script):
    with tempfile.TemporaryDirectory() as run_dir:  # services of a block's own
        environment = os.environ | {"PATH": f"{ROOT / 'build/release'}:{os.environ['PATH']}", "CHAINPUMP_RUN_DIR": run_dir}
        return subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=ROOT, env=environment, timeout=LIMIT_S,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True)


def problem(language, words, script):
    """None if the block passes or is excused, else what is wrong."""
    if language != "sh":
        return f"write ```sh instead of ```{language}, so that it is run"
    if words:
        excuse = re.fullmatch(r"no-test: (\S.{8,})", words)
        return None if excuse else "after sh only `no-test: a reason` may follow"
    try:
        done = run(script)
    except subprocess.TimeoutExpired:
        return f"did not end within {LIMIT_S} s"
    if done.returncode:
        return f"exit status {done.returncode}\n{script}\n--- output\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", type=pathlib.Path)
    pages = parser.parse_args().pages or [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    failed = run_count = 0
    for page in pages:
        for line, language, words, script in blocks(page):
            run_count += not words
            found = problem(language, words, script)
            name = page.relative_to(ROOT) if page.is_relative_to(ROOT) else page
            print(f"{name}:{line}: {found or ('skipped: ' + words if words else 'ok')}", flush=True)
            failed += found is not None
    print(f"{run_count} blocks run, {failed} problems")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
