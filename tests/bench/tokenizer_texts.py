"""Texts for the tokenizer's figures, about 2 MiB of each kind, from what every machine with Python and
Debian has: real prose, code, translations and records, none of it ours to commit."""
import ast
import json
import pathlib
import random
import struct
import sysconfig
import unicodedata

SIZE = 2 << 20
STDLIB = pathlib.Path(sysconfig.get_path("stdlib"))
EMOJI = [chr(point) for point in (*range(0x1F300, 0x1F650), *range(0x1F680, 0x1F6C6), *range(0x1F900, 0x1FA00))]


def modules():
    return sorted(STDLIB.glob("*.py")) + sorted(STDLIB.glob("*/*.py"))


def prose():
    """Licences, the language's manual pages, then the docstrings of its library."""
    for path in sorted(pathlib.Path("/usr/share/common-licenses").glob("*")):
        yield path.read_text(encoding="utf-8", errors="ignore")
    from pydoc_data.topics import topics
    yield from topics.values()
    for path in modules():
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                yield (ast.get_docstring(node) or "") + "\n\n"


def code():
    headers = sorted(pathlib.Path("/usr/include").glob("c++/*/bits/*.h"))
    for pair in zip(modules(), headers + headers):
        for path in pair:
            yield path.read_text(encoding="utf-8", errors="ignore")


def translations(catalog):
    """The translated strings of a .mo file in UTF-8, its header left out (GNU gettext manual, "The Format of GNU MO Files")."""
    magic, _, count, _, table = struct.unpack_from("<5I", catalog)
    if magic != 0x950412DE or b"charset=UTF-8" not in catalog:
        return []
    places = [struct.unpack_from("<2I", catalog, table + 8 * i) for i in range(1, count)]
    return [catalog[begin:begin + length].decode("utf-8", "ignore") for length, begin in places]


def mixed():
    """Translated messages of every installed language in turn, with an emoji behind some of them."""
    rng = random.Random(1)
    by_language = []
    for folder in sorted(pathlib.Path("/usr/share/locale").iterdir()):
        messages = []
        for path in sorted(folder.glob("LC_MESSAGES/*.mo")):
            messages += translations(path.read_bytes())
            if len(messages) > 400:
                break
        if messages:
            by_language.append(messages)
    for row in range(max(map(len, by_language), default=0)):
        for messages in by_language:
            if row < len(messages):
                yield messages[row] + (" " + rng.choice(EMOJI) * rng.randint(1, 3) if rng.random() < 0.1 else "") + "\n"


def records():
    for point in range(0x20, 0x2FA1E):
        name = unicodedata.name(chr(point), None)
        if name and not name.startswith("CJK UNIFIED") and not name.startswith("HANGUL"):
            entry = {"code": point, "name": name.title(), "category": unicodedata.category(chr(point)),
                     "decomposition": unicodedata.decomposition(chr(point)).split(), "mirrored": bool(unicodedata.mirrored(chr(point))),
                     "weight": round(point / 7919, 5), "character": chr(point)}
            yield json.dumps(entry, ensure_ascii=point % 2 == 0, indent=2 if point % 3 == 0 else None) + ",\n"


def cut(parts):
    collected, size = [], 0
    for part in parts:
        collected.append(part)
        size += len(part.encode("utf-8", "ignore"))
        if size >= SIZE:
            break
    return "".join(collected).encode("utf-8", "ignore")[:SIZE].decode("utf-8", "ignore")


def make(folder):
    """Writes the texts into `folder`; {kind: path}."""
    paths = {}
    for kind, parts in (("prose", prose), ("code", code), ("mixed", mixed), ("JSON", records)):
        paths[kind] = pathlib.Path(folder) / f"{kind}.txt"
        paths[kind].write_text(cut(parts()), encoding="utf-8", newline="")
    return paths
