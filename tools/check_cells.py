#!/usr/bin/env python3
"""Check what every notebook promises a reader: `python tools/check_cells.py [NOTEBOOK ...]`, all of `nbs/` when none is named.

* no cell mixes imports with other code (building the documentation runs every cell that imports, and only those)
* stored outputs hold no stderr, no error, no path of the machine they were made on and no widget state
* a title and a one-sentence subtitle come first
* no picture above 200 kB, no exported cell above 60 lines (docstrings aside), no cell id twice
"""

import ast
import json
import re
import sys
from pathlib import Path

MAX_PICTURE = 200_000  # bytes
MAX_LINES = 60  # of an exported cell, docstrings not counted
DIRECTIVE = re.compile(r"^#\|\s*([\w-]+)(?::\s*(\S+))?", re.M)
MAGIC = re.compile(r"^\s*[%!].*$", re.M)
PATHS = re.compile(r"(?<![\w.~:/])/(?:root|home|tmp|work|Users|var/folders)(?:/|\b)|\b[A-Za-z]:\\\\?(?:Users|home|tmp)|file://")
TITLE = re.compile(r"\A(?:---\n.*?---\n)?#[ \t]+\S.*\n+>[ \t]*\S", re.S)
IMPORTS = (ast.Import, ast.ImportFrom)


TYPING = re.compile(r"(?:#.*\n)*if TYPE_CHECKING:\n(?:    .*\n?)+\Z")


def mixes_imports(source: str) -> bool:  # True for a cell that the documentation step cannot run
    "Does a cell import and do something else as well? A lazy import inside an exported definition is fine."
    directives = {name: value for name, value in DIRECTIVE.findall(source)}
    if directives.keys() & {"export", "exports", "exporti"} and TYPING.match(source):
        return False  # for type checkers only: a branch that Python never takes
    if directives.get("eval") == "false" or source.lstrip().startswith("%%"):
        return False
    body = ast.parse(MAGIC.sub("", source)).body
    top = [isinstance(node, IMPORTS) for node in body]
    if any(top):
        return not all(top)
    if directives.keys() & {"export", "exports", "exporti"}:
        return False
    imports = any(isinstance(inner, IMPORTS) for node in body for inner in ast.walk(node))
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return imports and not all(isinstance(node, definitions) for node in body)


def output_problems(output: dict) -> list:  # of str
    "What is wrong with one stored output."
    if output["output_type"] == "error":
        return [f"a stored error ({output.get('ename')}): catch it and show it as a tested failure"]
    if output.get("name") == "stderr":
        return [f"stored stderr: {''.join(output['text']).strip()[:80]!r}: cure its cause"]
    data = {"text": output["text"]} if "text" in output else output.get("data", {})
    problems = []
    for kind, value in data.items():
        text = "".join(value) if isinstance(value, list) else str(value)
        if kind.startswith("image/") and len(text) * 3 // 4 > MAX_PICTURE:
            problems.append(f"a picture of {len(text) * 3 // 4000} kB: keep it below {MAX_PICTURE // 1000} kB")
        elif "widget-state" in kind:
            problems.append("widget state: end with a static figure of the same result")
        elif not kind.startswith("image/") and (found := PATHS.search(text)):
            problems.append(f"a path of this machine: {text[max(0, found.start() - 20):found.end() + 30]!r}")
    return problems


def code_lines(source: str) -> int:
    "Lines of a cell without its docstrings."
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [n for n in ast.walk(ast.parse(MAGIC.sub("", source))) if isinstance(n, documented) and ast.get_docstring(n)]
    return len(source.splitlines()) - sum(n.body[0].end_lineno - n.body[0].lineno + 1 for n in nodes)


def cell_problems(cell: dict) -> list:  # of str
    "What is wrong with one cell."
    source = "".join(cell["source"])
    problems = []
    if found := PATHS.search(source):
        problems.append(f"a path of one machine in the source: {source[found.start():found.end() + 30].splitlines()[0]!r}")
    if cell["cell_type"] != "code":
        return problems
    try:
        if mixes_imports(source):
            problems.append("imports and other code in one cell: split it")
    except SyntaxError as error:
        return problems + [f"does not parse: {error}"]
    exported = {name for name, _ in DIRECTIVE.findall(source)} & {"export", "exports", "exporti"}
    if exported and (lines := code_lines(source)) > MAX_LINES:
        problems.append(f"an exported cell of {lines} lines: split it")
    return problems + [problem for output in cell["outputs"] for problem in output_problems(output)]


def check(path: Path) -> list:  # of str: "where: what"
    "Everything that is wrong with the notebook `path`."
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = notebook["cells"]
    problems = []
    first = next(("".join(c["source"]) for c in cells if c["cell_type"] == "markdown"), "")
    if not TITLE.match(first):
        problems.append("the first prose cell has to begin with '# Title' and '> one sentence'")
    if "widgets" in notebook["metadata"]:
        problems.append("widget state in the metadata: make clean-nbs")
    ids = [cell.get("id") for cell in cells]
    if len(set(ids)) < len(ids) or None in ids:
        problems.append("a cell id is missing or stands twice")
    for cell in cells:
        problems += [f"cell {cell.get('id')}: {problem}" for problem in cell_problems(cell)]
    return [f"{path.name}: {problem}" for problem in problems]


def notebooks(root: Path) -> list:  # of Path
    "Every notebook of the project."
    return sorted(p for p in (root / "nbs").rglob("*.ipynb") if not {".ipynb_checkpoints", "_proc"} & set(p.parts))


def main(argv: list) -> int:  # exit status
    "Check the notebooks named, or all."
    found = [Path(name) for name in argv] or notebooks(Path(__file__).resolve().parent.parent)
    problems = [problem for path in found for problem in check(path)]
    print("\n".join(problems) or f"{len(found)} notebooks: every cell is in order")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
