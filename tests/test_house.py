"""What a maintainer wants to keep: few public names, explained; whole classes; short lines and cells; one vocabulary."""

import ast
import importlib
import inspect
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import xrt_nb

ROOT = Path(__file__).resolve().parent.parent
LIB = ROOT / "xrt_nb"
MODULES = sorted(p for p in LIB.glob("*.py") if p.name != "_modidx.py")
NOTEBOOKS = sorted((ROOT / "nbs").rglob("*.ipynb"))
WIDTH = 110  # characters of a line, in code cells and in the library
MEDIAN = 6  # lines of a code cell
MOST = 80  # public names


def cells(path, kind="code"):
    "The sources of a notebook's cells that hold something."
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [source for c in found if c["cell_type"] == kind and (source := "".join(c["source"])).strip()]


# --- public names -------------------------------------------------------------------------------------------------


def public_names():
    "{module: its public names}, from what every module declares."
    return {p.stem: importlib.import_module(f"xrt_nb.{p.stem}").__all__ for p in MODULES if p.stem[0] != "_"}


def test_public_names_are_few_and_come_from_the_package():
    declared = {name for names in public_names().values() for name in names}
    assert declared == set(xrt_nb.__all__)
    assert len(declared) <= MOST


def parameters_of(thing):
    "The parameters that a caller gives, without `self` and what is only passed on."
    try:
        found = inspect.signature(thing).parameters.values()
    except (TypeError, ValueError):
        return []
    passed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in found if p.kind not in passed and p.name != "self"]


def unexplained(thing):
    "Parameters of a function or class that its docstring does not list as `name : type` with a line below."
    text = inspect.getdoc(thing) or ""
    section = re.search(r"(?<=\n\n)Parameters\n-{10}\n(.*?)(?=^\w[^\n]*\n-{3,}$|\Z)", text, re.M | re.S)
    listed = set()
    for head in re.findall(r"^(\S[^\n]*?) ?: \S[^\n]*\n {4}\S", section[1] if section else "", re.M):
        listed |= {name.strip("*` ") for name in head.split(",")}
    return [name for name in parameters_of(thing) if name not in listed]


def explained_by(thing):
    "What a user reads the parameters of: the class itself, or the function."
    return not (isinstance(thing, type) and issubclass(thing, BaseException)) and callable(thing)


@pytest.mark.parametrize("name", sorted(xrt_nb.__all__))
def test_help_lists_every_parameter_with_its_type(name):
    thing = getattr(xrt_nb, name)
    assert len((inspect.getdoc(thing) or "").strip()) > 20, "help() shows nothing"
    if explained_by(thing):
        assert unexplained(thing) == []


def test_a_parameter_without_a_type_is_found():
    def scale(x, by, into):
        """Scale.

        Parameters
        ----------
        x : array of shape (N,)
            Values.
        by
            Factor.

        Returns
        -------
        into : float
            This is no parameter's line.
        """

    assert unexplained(scale) == ["by", "into"]


def methods():
    "Public methods with parameters of public classes, as `Class.method`."
    for name in sorted(xrt_nb.__all__):
        thing = getattr(xrt_nb, name)
        if isinstance(thing, type) and not issubclass(thing, BaseException):
            for key, value in vars(thing).items():
                value = inspect.unwrap(getattr(value, "__func__", value))
                if not key.startswith("_") and inspect.isfunction(value) and value.__module__.startswith("xrt_nb"):
                    yield pytest.param(value, id=f"{name}.{key}")


@pytest.mark.parametrize("method", list(methods()))
def test_methods_have_a_docstring(method):
    assert len((inspect.getdoc(method) or "").strip()) > 10


# --- classes and rooms --------------------------------------------------------------------------------------------


def patches(source):
    "Lines that give a class a method from outside."
    tree = ast.parse(source)
    classes = {n.name for n in ast.walk(tree) if isinstance(n, ast.ClassDef)}
    classes |= {a.asname or a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names if a.name[:1].isupper()}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found += [d.lineno for d in node.decorator_list if "patch" in ast.unparse(d)]
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "setattr" and ast.unparse(node.args[0]) in classes:
            found.append(node.lineno)
        if isinstance(node, ast.Assign):
            found += [t.lineno for t in node.targets if isinstance(t, ast.Attribute) and ast.unparse(t.value) in classes]
    return sorted(found)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_no_class_is_patched(path):
    assert patches(path.read_text(encoding="utf-8")) == []


def test_a_patched_class_is_found():
    source = "from xrt_nb.data import EventTable\n@patch_to(EventTable)\ndef f(self): pass\nEventTable.g = f\nsetattr(EventTable, 'h', f)"
    assert patches(source) == [2, 4, 5]


def private_imports(source, own):
    "Names with a leading underscore that a module takes from another one which is not below all rooms."
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            base = (node.module or "").removeprefix("xrt_nb").strip(".")
            ours = node.level or (node.module or "").startswith("xrt_nb")
            if ours and not base.startswith("_") and base != own:
                found += [f"{base}.{a.name}" for a in node.names if base and a.name.startswith("_")]
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_private_names_stay_in_their_room(path):
    assert private_imports(path.read_text(encoding="utf-8"), path.stem) == []


def test_a_private_import_is_found():
    source = "from xrt_nb.data import _bin, EventTable\nfrom xrt_nb._store import _any\nfrom .fits import _x\nfrom numpy import _y"
    assert private_imports(source, "views") == ["data._bin", "fits._x"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_take_nothing_from_the_tests(path):
    assert not re.search(r"^\s*(?:from|import) (?:tests|fake_\w+|browser_tools|support)\b", "\n".join(cells(path)), re.M)


# --- lines and cells ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_lines_are_short(path):
    assert [line for source in cells(path) for line in source.splitlines() if len(line) > WIDTH] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_lines_of_the_library_are_short(path):
    text = re.sub(r"^__all__ = \[.*?\]$", "", path.read_text(encoding="utf-8"), count=1, flags=re.M | re.S)  # nbdev's own
    assert [line for line in text.splitlines()[2:] if len(line) > WIDTH] == []  # the first is the notebook's subtitle


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_cells_are_small(path):
    assert statistics.median(len(source.splitlines()) for source in cells(path)) <= MEDIAN


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_expected_failures_can_fail(path):
    "`expect_fail` is a context manager: called with a function it checks nothing."
    calls = [n for s in cells(path) if not s.lstrip().startswith("%") for n in ast.walk(ast.parse(re.sub(r"(?m)^\s*[!%].*$", "pass", s)))
             if isinstance(n, ast.Expr) and isinstance(n.value, ast.Call) and getattr(n.value.func, "id", "") == "expect_fail"]
    assert [ast.unparse(n) for n in calls] == []


# --- one vocabulary -----------------------------------------------------------------------------------------------

BRITISH = re.compile(
    r"\w*colour\w*|\bcatalogues?\b|\bcentred?s?\b|\bgrey\w*|neighbour\w*|behaviour\w*|favour\w*"
    r"|\b\w*(?:normal|standard|recogn|summar|random|maxim|minim|optim|stabil|organ|general|initial)is(?:e|es|ed|ing|ation)\b", re.I)
OWN = re.compile(r"\bphoton lists?\b|\bis said\b|\bnobody (?!')|\bstrangers?\b", re.I)


def prose():
    "(place, text) of everything that people read: prose, docstrings, comments and messages in notebooks and pages."
    for path in NOTEBOOKS:
        for kind in ("markdown", "code"):
            for source in cells(path, kind):
                yield path.stem, source
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs" / "conventions.md"):
        yield path.stem, path.read_text(encoding="utf-8")


def test_spelling_is_american_and_words_are_the_fields():
    kept = ("--neighbours",)  # an option of 0.1 that goes on working
    found = {(place, word.lower()) for place, text in prose() for words in (BRITISH, OWN)
             for word in words.findall(text.replace(kept[0], ""))}
    assert sorted(found) == []


def test_a_foreign_word_is_found():
    assert BRITISH.findall("the colouring of catalogues, normalised") == ["colouring", "catalogues", "normalised"]
    assert not BRITISH.findall("color, catalog, center, otherwise, a supervised noise")


# --- what an editor sees ------------------------------------------------------------------------------------------

SCRIPT = '''"""A user's script of thirty lines: from an archive to analogs, a plot and a label."""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline

import xrt_nb
from xrt_nb import (EtMap, EventList, EventTable, Flatten, LearnedMetric, Run, TSNEMap, cluster, find_analogs,
                    read_events, read_run, search, simulate_archive)

events, truth = simulate_archive(200, random_state=1)
one: EventList = events[events.ids[0]]
print(one.time.max() - one.time.min(), len(one), truth["kind"].value_counts())
bright = events.filter(min_counts=20)
assert isinstance(bright, EventTable)
features = make_pipeline(EtMap(), Flatten(), PCA(5)).fit_transform(bright)
frame = pd.DataFrame(np.asarray(features), index=bright.ids)
hits: pd.DataFrame = find_analogs(frame, bright.ids[0], k=5)
best: pd.DataFrame = search(bright, bright.ids[0], k=5)
embedding = TSNEMap(random_state=1).fit_transform(frame)
groups = cluster(embedding, eps=2.5, min_samples=5)
print(hits["obsreg_id"].tolist(), best["score"].max(), groups.max())
bright.write(Path("bright.parquet"))
again = read_events("bright.parquet")
run: Run = read_run(xrt_nb.run("shape-metric", again, "my_run"))
print(run.features.shape, run.analogs.head(), run.embedding.columns)
placed = run.place(events, k=3)
metric = LearnedMetric()
print(placed, metric)
'''


def complaints(script, folder):
    "What pyright says of a script in which `xrt_nb` is this one."
    (folder / "script.py").write_text(script, encoding="utf-8")
    options = {"typeCheckingMode": "standard", "extraPaths": [str(ROOT)], "pythonVersion": "3.11",
               "include": ["script.py"]}
    (folder / "pyrightconfig.json").write_text(json.dumps(options), encoding="utf-8")
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=600)
    told = json.loads(done.stdout)["generalDiagnostics"]
    return [f"{d['range']['start']['line'] + 1}: {d['message']}" for d in told if d["severity"] == "error"]


def test_an_editor_understands_a_users_script(tmp_path):
    assert complaints(SCRIPT, tmp_path) == []


def test_an_editor_finds_a_wrong_name(tmp_path):
    wrong = 'import xrt_nb\nevents, truth = xrt_nb.simulate_archive(20)\nevents.fliter("n_events > 2")\n'
    assert len(complaints(wrong, tmp_path)) == 1
