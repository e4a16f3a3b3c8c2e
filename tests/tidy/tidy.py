"""Checks the tree against the rules that a compiler cannot: walls, include direction, sizes, names,
leftovers, formatting, self-contained headers. Prints each finding as file:line: rule: what to do.

  tidy.py [--headers] [ROOT]     --headers also compiles each header on its own (cached by content)

An exception is named in exceptions.py with its reason; one that is no longer needed is a finding.
"""
import argparse
import ast
import pathlib
import re
import subprocess
import sys

import cpp_text
import exceptions
import header_check
import walls

SKIP = {"build", ".git", ".venv", ".venv-oracle", ".cache", "__pycache__"}
TEXT = {".h", ".cc", ".cu", ".cuh", ".py", ".sh", ".capnp", ".cmake", ".txt", ".md", ".yaml", ".yml", ".json", ""}
CODE = {".h", ".cc", ".cu", ".cuh"}
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70


class Tidy:
    def __init__(self, root, allowed):
        self.root = root
        self.allowed = allowed  # {(file, rule): why}
        self.findings = []  # (path, line, rule, advice)
        self.files = sorted(self._walk(root))

    def _walk(self, folder):
        for entry in folder.iterdir():
            if entry.name in SKIP or entry.is_symlink():
                continue
            if entry.is_dir():
                # Fuzz inputs and sample texts are data, not text of ours.
                if entry.name not in ("corpus", "texts"):
                    yield from self._walk(entry)
            elif entry.suffix in TEXT:
                yield entry.relative_to(self.root)

    def report(self, path, line, rule, advice):
        if (str(path), rule) in self.allowed:
            self.used.add((str(path), rule))
        else:
            self.findings.append((str(path), line, rule, advice))

    def run(self, headers):
        self.used = set()
        self.text = {}
        for path in self.files:
            try:
                self.text[path] = (self.root / path).read_text(encoding="utf-8")
            except UnicodeDecodeError:
                self.report(path, 1, "encoding", "make the file UTF-8")
        for path, text in self.text.items():
            self.check_leftovers(path, text)
            self.check_length(path, text)
            if path.suffix in CODE:
                self.check_includes(path, text)
                self.check_functions(path, cpp_text.functions(text))
            if path.suffix == ".py":
                self.check_functions(path, python_functions(text))
            if path.suffix == ".h":
                self.check_header(path, text)
            if path.suffix in CODE | {".py", ".sh"} and not re.fullmatch(r"[a-z0-9_]+", path.stem):
                self.report(path, 1, "name", "name files in snake_case")
        self.check_one_file_libraries()
        self.check_in_build()
        self.check_format()
        if headers:
            includes = {path: project_includes(text) for path, text in self.text.items() if path.suffix in CODE}
            for path, message in header_check.failures(self.root, includes, self.text):
                self.report(path, 1, "self-contained", f"include what it uses: {message}")
        self.check_exceptions()

    # -- one file ---------------------------------------------------------------------------------
    def check_length(self, path, text):
        lines = text.count("\n")
        if path.suffix in CODE | {".py", ".sh", ".capnp", ".cmake"} and lines > FILE_LINES_MAX:
            self.report(path, lines, "file-length", f"{lines} lines; split by meaning below {FILE_LINES_MAX}")

    def check_functions(self, path, functions):
        for first, last, name in functions:
            if last - first + 1 > FUNCTION_LINES_MAX:
                self.report(path, first, "function-length",
                            f"{name} has {last - first + 1} lines; split below {FUNCTION_LINES_MAX}")

    def check_leftovers(self, path, text):
        # Spelled in halves, or this file would find itself.
        words = r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b"
        places = r"(?<![\w.$}])/(wo" r"rk|home|ro" r"ot|Users|tm" r"p)/"
        hosts = r"\b(py" r"pi\.org|python" r"hosted\.org|npm" r"js\.org)"
        if path.name == "LICENSE":
            return
        for number, line in enumerate(text.splitlines(), 1):
            if re.search(words, line):
                self.report(path, number, "leftover", "do it, or file an issue and delete the note")
            if re.search(places, line):
                self.report(path, number, "machine-path", "no absolute path of one machine; take it from the environment")
            if re.search(hosts, line):
                self.report(path, number, "registry", "no registry host; the client's configuration names it")
            if "\r" in line or (line != line.rstrip() and path.suffix != ".md"):
                self.report(path, number, "whitespace", "no trailing blanks or carriage returns")

    def check_header(self, path, text):
        if not text.startswith("//"):
            self.report(path, 1, "header-comment", "open with a comment: what it is, why, thread rule")
        if "#pragma once" not in text:
            self.report(path, 1, "pragma-once", "add #pragma once")
        for number, line in enumerate(cpp_text.blank(text).splitlines(), 1):
            if re.match(r"\s*using namespace\b", line):
                self.report(path, number, "using-namespace", "no using-directive in a header")

    # -- walls ------------------------------------------------------------------------------------
    def check_includes(self, path, text):
        home = path.parts[0]
        mirrored = path.parts[1] if home == "tests" and len(path.parts) > 2 else None
        for number, name, quoted in includes(text):
            folder = name.split("/")[0]
            if folder in walls.FOLDERS and "/" in name:
                self.check_direction(path, number, name, folder, home, mirrored)
            elif quoted and "/" not in name:
                self.report(path, number, "include-path", f'write the path from the root, not "{name}"')
            elif folder == "tests" and home != "tests":
                self.report(path, number, "include-direction", "the program never includes tests")
            self.check_libraries(path, number, name, mirrored)

    def check_direction(self, path, number, name, folder, home, mirrored):
        if home == "tests" and (mirrored is None or mirrored in walls.TEST_ONLY_FOLDERS):
            return
        allowed = walls.FOLDERS.get(mirrored or home)
        if allowed is not None and folder not in allowed:
            self.report(path, number, "include-direction",
                        f"{mirrored or home}/ may not include {name}; it may include {', '.join(sorted(allowed))}")

    def check_libraries(self, path, number, name, mirrored):
        library = library_of(name)
        if library is None:
            return
        _, allowed, why = walls.LIBRARIES[library]
        place = str(path)
        mirror = place.removeprefix("tests/")
        near = any(place.startswith(entry) or mirror.startswith(entry) or
                   (mirrored and entry.startswith(mirrored + "/")) for entry in allowed)
        if not near:
            self.report(path, number, "wall", f"{library} only in {', '.join(allowed)}: {why}")

    def check_one_file_libraries(self):
        for library in walls.ONE_FILE:
            users = [(path, number) for path, text in self.text.items() if path.suffix in CODE
                     for number, name, _ in includes(text) if library_of(name) == library]
            for path, number in users:
                if path == users[0][0]:
                    continue
                self.report(path, number, "wall", f"{library} only in one file, which is {users[0][0]}")

    # -- the tree ---------------------------------------------------------------------------------
    def check_in_build(self):
        """Every source file is named in some CMakeLists.txt of its top folder."""
        lists = {}
        for path, text in self.text.items():
            if path.name == "CMakeLists.txt":
                lists[path.parts[0]] = lists.get(path.parts[0], "") + text
        for path in self.text:
            if path.suffix not in {".cc", ".cu"} and not path.name.endswith("_test.py"):
                continue
            named = re.search(rf"(?<![\w.-]){re.escape(path.name)}(?![\w.-])", lists.get(path.parts[0], ""))
            if not named:
                self.report(path, 1, "not-built", "name it in the CMakeLists.txt of its folder")

    def check_format(self):
        program = self.root / ".venv/bin/clang-format"
        code = [path for path in self.text if path.suffix in CODE]
        if not program.exists() or not code:
            return
        cache = header_check.Cache(self.root / ".cache/tidy/format")
        style = self.text.get(pathlib.Path(".clang-format"), "")
        dirty = [path for path in code if not cache.has(style, self.text[path])]
        for path in dirty:
            done = subprocess.run([program, "--dry-run", "--Werror", "--style=file", path], cwd=self.root,
                                  capture_output=True, text=True)
            if done.returncode:
                where = re.search(r":(\d+):\d+:", done.stderr)
                self.report(path, int(where.group(1)) if where else 1, "format", "run make format")
            else:
                cache.add(style, self.text[path])

    def check_exceptions(self):
        for path, rule in sorted(set(self.allowed) - self.used):
            if rule != "self-contained":
                self.findings.append((path, 1, "exception", f"the exception from {rule} is not needed any more"))


def includes(text):
    """Yields (line, included name, whether quoted)."""
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
        if match:
            yield number, match.group(2), match.group(1) == '"'


def project_includes(text):
    return [name for _, name, _ in includes(text)]


def library_of(name):
    if re.fullmatch(r"schemas/.*\.capnp\.h", name):
        return "kj and capnp"
    for library, (prefixes, _, _) in walls.LIBRARIES.items():
        if name.startswith(prefixes):
            return library
    return None


def python_functions(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.lineno, node.end_lineno, node.name


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", nargs="?", default=pathlib.Path(__file__).parents[2], type=pathlib.Path)
    parser.add_argument("--headers", action="store_true", help="compile each header on its own")
    options = parser.parse_args()
    tidy = Tidy(options.root.resolve(), exceptions.ALLOWED)
    tidy.run(options.headers)
    for path, line, rule, advice in sorted(tidy.findings):
        print(f"{path}:{line}: {rule}: {advice}")
    print(f"tidy: {len(tidy.files)} files, {len(tidy.findings)} findings")
    return 1 if tidy.findings else 0


if __name__ == "__main__":
    sys.exit(main())
