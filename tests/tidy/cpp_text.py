"""Enough understanding of C++ text for the checks: code without comments and literals, and the line
span of every function. Not a parser: a block is a function when it opens at namespace or class level
and the text before it ends in a parameter list."""
import re

_TOKEN = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"(?P<delim>[^()\s\\]*)\(.*?\)(?P=delim)"|"(?:\\.|[^"\\\n])*"|'
    r"(?<![0-9A-Za-z_])(?:u8|[uUL])?'(?:\\.|[^'\\\n])+'", re.S)
_SCOPE = re.compile(r"\b(namespace|class|struct|union|enum|extern)\b")


def blank(text):
    """`text` with comments and literals blanked, the same length and line breaks."""
    def spaces(match):
        kept = match.group(0)
        filler = re.sub(r"[^\n]", " ", kept)
        return filler if kept.startswith("/") else '"' + filler[1:-1] + '"' if len(kept) > 1 else kept
    return _TOKEN.sub(spaces, text)


def without_directives(code):
    """Preprocessor lines blanked, with their continuations."""
    return re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*",
                  lambda match: re.sub(r"[^\n]", " ", match.group(0)), code, flags=re.M)


def functions(text):
    """Yields (first line, last line, name) of each function body in `text`, lines counted from 1."""
    code = without_directives(blank(text))
    # Suite macros are statements without a semicolon.
    code = re.sub(r"\bBOOST_(AUTO|FIXTURE)_TEST_SUITE(_END)?\([^)]*\)",
                  lambda match: ";" + " " * (len(match.group(0)) - 1), code)
    stack = []  # kind of each open block: "scope", "function" or "other"
    start = 0   # where the statement before the next brace begins
    parens = 0
    for match in re.finditer(r"[{}();]", code):
        position, char = match.start(), match.group(0)
        if char == "(":
            parens += 1
        elif char == ")":
            parens = max(0, parens - 1)
        elif char == ";":
            if parens == 0:
                start = position + 1
        elif char == "{":
            head = code[start:position]
            kind = _kind(head, stack)
            stack.append((kind, _first_line(code, start, position), head, parens))
            parens = 0
            if kind != "other":
                start = position + 1
        else:
            if stack:
                kind, line, head, parens = stack.pop()
                if kind == "function":
                    name = re.search(r"([~\w:]+|operator\S+)\s*\(", head)
                    yield line, code.count("\n", 0, position) + 1, name.group(1) if name else "?"
                if kind == "other":
                    continue  # an initializer: the statement round it goes on
            start = position + 1


def _kind(head, stack):
    if any(kind in ("function", "other") for kind, *_ in stack):
        return "inner"
    if re.search(r"\)\s*(noexcept\s*)?:[^:]", head):  # a constructor's initializers, or its body
        return "function" if head.rstrip()[-1] in ")}" else "other"
    if head.rstrip().endswith(")") or re.search(r"\)\s*(const|noexcept|override|final|mutable|&|->|:|requires)", head):
        if not re.match(r"\s*(namespace|extern)\b", head):
            return "function"
    if _SCOPE.search(head) and "=" not in head.split("{")[0].replace("==", ""):
        return "scope"
    return "other"


def _first_line(code, start, end):
    blank_prefix = re.match(r"\s*(?:(?:public|private|protected)\s*:\s*)*", code[start:end]).end()
    return code.count("\n", 0, start + blank_prefix) + 1
