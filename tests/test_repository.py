"""The house rules that a machine can check: the notebooks, the library made from them, the packaging, the make targets.

Every checker is also shown something bad, so that it is known to be able to fail.
"""

import ast
import base64
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import tarfile
import zipfile
from configparser import ConfigParser
from email.parser import Parser
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import check_cells  # noqa: E402
import parity  # noqa: E402
import readme  # noqa: E402

LIB = ROOT / "xrt_nb"
NOTEBOOKS = check_cells.notebooks(ROOT)
config = ConfigParser(delimiters=["="])
config.read(ROOT / "settings.ini", encoding="utf-8")
CFG = dict(config["DEFAULT"])

# The rooms in their order: a room imports only rooms above it. ONLY narrows that for rooms that work on plain arrays.
ROOMS = [
    "_text", "_store", "_checks", "_optional", "_style", "_glossary", "_conditions", "_columns", "_parameters",
    "data", "lightcurves", "tables", "regions", "fits", "ingest", "simulation", "ogip",
    "representations", "pairs", "invariant",
    "features", "properties", "training", "published", "autoencoder", "deepsets", "shapes", "scores", "metric",
    "embedding", "clustering", "evaluation", "spectral_models", "analogs", "default_search",
    "detectors", "nulls", "flags", "injection", "candidates", "index", "cards",
    "_http", "_votable", "_standins", "catalogs", "products", "counterparts", "hierarchy", "classification", "recipes",
    "spectra", "active",
    "posteriors", "bridge",
    "runs", "reference", "scale", "chunks", "sky", "cli", "labels", "views", "samp", "window", "finder", "app",
    "pipeline", "__main__",
]
ONLY = {"simulation": {"data"}, "representations": {"data"}, "embedding": {"_store", "data", "representations"},
        "clustering": {"_store", "data", "embedding"}}
LATER = {  # what a room imports from above only when asked: methods of a list and a table, and the window that shows a run
    "data": {"lightcurves", "tables", "fits"}, "runs": {"app", "chunks"}, "cli": {"app"},
}
MODULES = sorted(p for p in LIB.glob("*.py") if p.name not in ("__init__.py", "_modidx.py"))


def run(*command, **kwargs):
    "Run a program to its end and keep what it says."
    return subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, **kwargs)


# --- notebooks ----------------------------------------------------------------------------------------------------


def cell(source, kind="code", outputs=(), id="a1"):
    "One cell of a notebook."
    made = {"cell_type": kind, "id": id, "metadata": {}, "source": source.splitlines(keepends=True)}
    return made | ({"execution_count": None, "outputs": list(outputs)} if kind == "code" else {})


def notebook(path, *cells, title="# A title\n\n> A sentence.", metadata=None):
    "Write a notebook of these cells."
    kernel = {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}
    cells = [cell(title, "markdown", id="title"), *cells]
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"cells": cells, "metadata": metadata or kernel, "nbformat": 4, "nbformat_minor": 5}, indent=1, sort_keys=True)
    path.write_text(text + "\n")
    return path


def stream(text, name="stdout"):
    "Printed text."
    return {"output_type": "stream", "name": name, "text": [text]}


def display(**data):
    "A shown object."
    return {"output_type": "display_data", "metadata": {}, "data": {k.replace("__", "/"): v for k, v in data.items()}}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_cells_in_order(path):
    assert check_cells.check(path) == []


BAD = {
    "imports and other code": cell("import os\nprint(os.sep)"),
    "imports and other code: lazy": cell("def f():\n    import os\n    return os.sep\nf()"),
    "imports and other code: exported": cell("#| export\nimport os\nSEP = os.sep"),
    "stored stderr": cell("1", outputs=[stream("UserWarning", "stderr")]),
    "a stored error": cell("1/0", outputs=[{"output_type": "error", "ename": "ZeroDivisionError", "evalue": "", "traceback": []}]),
    "a path of this machine": cell("1", outputs=[stream("written to /home/me/x.csv")]),
    "a path of this machine: tmp": cell("1", outputs=[display(text__plain=["PosixPath('/tmp/abc')"])]),
    "a path of this machine: Windows": cell("1", outputs=[stream(r"C:\Users\me")]),
    "a path of one machine in the source": cell("p = '/root/data'"),
    "widget state": cell("1", outputs=[{"output_type": "display_data", "metadata": {}, "data": {"application/vnd.jupyter.widget-state+json": "{}"}}]),
    "a picture of": cell("1", outputs=[display(image__png=base64.b64encode(bytes(250_000)).decode())]),
    "an exported cell of 70 lines": cell("#| export\n" + "x = 1\n" * 69),
    "does not parse": cell("def f(:"),
    "a cell id is missing or stands twice": cell("1", id="title"),
}


@pytest.mark.parametrize("problem", BAD)
def test_the_checker_finds(problem, tmp_path):
    found = check_cells.check(notebook(tmp_path / "bad.ipynb", BAD[problem]))
    assert len(found) == 1 and problem.partition(": ")[0] in found[0]


def test_the_checker_wants_title_and_subtitle(tmp_path):
    assert "title" in check_cells.check(notebook(tmp_path / "a.ipynb", title="# Only a title"))[0].lower()
    state = {"widgets": {"application/vnd.jupyter.widget-state+json": {}}}
    assert "widget state" in check_cells.check(notebook(tmp_path / "b.ipynb", metadata=state))[0]


@pytest.mark.parametrize("source", [
    "import os\nfrom pathlib import Path", "#| export\ndef f():\n    import os\n    return os", "#| eval: false\nimport os\nf()",
    "%matplotlib inline\nimport os", "x = 1\nprint(x)", "!ls", "", "p = 'runs/home/x'", "u = 'see/tmp'", "c = Class()\nprint('a:/work')"])
def test_the_checker_leaves_good_cells_alone(source, tmp_path):
    assert check_cells.check(notebook(tmp_path / "good.ipynb", cell(source, outputs=[stream("3 rows of data/home")]))) == []


def test_the_checker_as_a_command(tmp_path):
    bad = notebook(tmp_path / "bad.ipynb", cell("import os\nprint(os.sep)"))
    done = run(sys.executable, ROOT / "tools" / "check_cells.py", bad)
    assert done.returncode == 1 and "bad.ipynb: cell a1: imports and other code" in done.stdout


def test_runner_shows_the_failing_cell(tmp_path):
    bad = notebook(tmp_path / "bad.ipynb", cell("before = 1"), cell("assert before == 2, 'not two'", id="b2"))
    done = run(sys.executable, ROOT / "tools" / "run_notebook.py", bad)
    assert done.returncode == 1
    assert "assert before == 2" in done.stderr and "not two" in done.stderr


def test_runner_respects_slow_and_eval(tmp_path):
    book = notebook(tmp_path / "book.ipynb", cell("#| slow\nraise ValueError('slow cell ran')"), cell("#| eval: false\n1/0", id="b2"))
    runner = ROOT / "tools" / "run_notebook.py"
    assert run(sys.executable, runner, book).returncode == 0
    assert "slow cell ran" in run(sys.executable, runner, book, "slow").stderr


# --- parity -------------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path):
    "A small project that is in order."
    root = tmp_path / "xrt_nb"
    notebook(root / "nbs" / "index.ipynb", cell("See [data](00_data.ipynb).", "markdown", id="b2"))
    notebook(root / "nbs" / "00_data.ipynb", cell("#| default_exp data"), cell("#| export\ndef one(): return 1", id="b2"))
    shutil.copy(ROOT / "settings.ini", root)
    assert parity.main(["--root", str(root), "--write"]) == 0
    assert parity.main(["--root", str(root)]) == 0
    return root


def judge(project, capsys, cure):
    "The gate fails, names `cure`, changes nothing; `--write` cures it."
    capsys.readouterr()
    before = parity.files_below(project)
    assert parity.main(["--root", str(project)]) == 1
    said = capsys.readouterr().out
    assert f"cure: {cure}" in said and said.count("FAILED") == 1
    assert parity.files_below(project) == before
    assert parity.main(["--root", str(project), "--write"]) == 0
    assert parity.main(["--root", str(project)]) == 0
    return said


def test_parity_notebook_changed_without_export(project, capsys):
    book = project / "nbs" / "00_data.ipynb"
    book.write_text(book.read_text().replace("return 1", "return 2"))
    assert "+def one(): return 2" in judge(project, capsys, "make export")


def test_parity_library_changed_by_hand(project, capsys):
    (project / "xrt_nb" / "data.py").write_text("def one(): return 3\n")
    assert "xrt_nb/data.py: differs" in judge(project, capsys, "make export")


def test_parity_orphan_module(project, capsys):
    (project / "xrt_nb" / "orphan.py").write_text("x = 1\n")
    assert "xrt_nb/orphan.py: no notebook makes this file" in judge(project, capsys, "make export")
    assert not (project / "xrt_nb" / "orphan.py").exists()


def test_parity_carries_data_and_refuses_code(project, capsys):
    shipped = project / "nbs" / "_package"
    (shipped / "weights").mkdir(parents=True)
    (shipped / "weights" / "net.npz").write_bytes(b"numbers")
    assert "xrt_nb/weights/net.npz: missing" in judge(project, capsys, "make export")
    assert (project / "xrt_nb" / "weights" / "net.npz").read_bytes() == b"numbers"
    (shipped / "smuggled.py").write_text("x = 1\n")
    with pytest.raises(SystemExit, match="holds data only.*smuggled.py"): parity.main(["--root", str(project)])


def test_parity_missing_module(project, capsys):
    (project / "xrt_nb" / "data.py").unlink()
    assert "xrt_nb/data.py: missing" in judge(project, capsys, "make export")


def test_parity_stale_readme(project, capsys):
    (project / "README.md").write_text("old\n")
    assert "README.md: differs" in judge(project, capsys, "make readme")


def test_parity_notebook_not_clean(project, capsys):
    book = project / "nbs" / "00_data.ipynb"
    book.write_text(book.read_text().replace('"execution_count": null', '"execution_count": 7', 1))
    assert "nbs/00_data.ipynb: differs" in judge(project, capsys, "make clean-nbs")


def test_readme_links_pictures_and_hidden_cells(tmp_path):
    png = base64.b64encode(b"picture").decode()
    text = "[a](00_data.ipynb) [b](../LICENSE) ![c](images/c.png) [d](https://example.org/x) `[e](f)` [g](#try)"
    book = notebook(tmp_path / "nbs" / "index.ipynb", cell(text, "markdown", id="b"), cell("#| hide\nsecret = 1", id="c"),
                    cell("#| echo: false\n1", outputs=[display(image__png=png, text__plain="<Figure>")], id="d"),
                    cell("print(2)", outputs=[stream("2\n")], id="e"))
    made = readme.render(book)
    page = made["README.md"].decode()
    assert "[a](nbs/00_data.ipynb) [b](LICENSE) ![c](nbs/images/c.png) [d](https://example.org/x) `[e](f)` [g](#try)" in page
    assert "secret" not in page and "<Figure>" not in page and "echo" not in page
    assert "```python\nprint(2)\n```\n\n```text\n2\n```" in page
    assert made["README_files/figure-1.png"] == b"picture" and "README_files/figure-1.png" in page


def test_readme_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#\s]+)", (ROOT / "README.md").read_text(encoding="utf-8")):
        assert re.match(r"https?://", target) or (ROOT / target).exists(), target


# --- the library --------------------------------------------------------------------------------------------------


def imports_of(path, top_level=False):
    "Names of the modules that a file imports, relative ones as `xrt_nb.x`."
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        if isinstance(node, ast.ImportFrom):
            base = ("xrt_nb." if node.level else "") + (node.module or "")
            found |= {f"{base.rstrip('.')}.{a.name}" for a in node.names} | {base.rstrip(".")}
    return found


def rooms_of(path):
    "The rooms of the house that a file imports, anywhere in it."
    return {name.split(".")[1] for name in imports_of(path) if name.startswith("xrt_nb.")} & {p.stem for p in MODULES}


def misplaced(room, rooms):
    "The rooms among `rooms` that `room` may not import."
    assert room in ROOMS, f"a new room: give xrt_nb.{room} its place in ROOMS"
    above = ROOMS[:ROOMS.index(room)]
    return sorted(rooms - ONLY.get(room, set(above)) - {r for r in above if r.startswith("_")} - LATER.get(room, set()))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_a_room_imports_only_rooms_above_it(path):
    assert misplaced(path.stem, rooms_of(path)) == []


def order_of_rooms():
    "The order as CONTRIBUTING shows it."
    words = ", ".join(f"`{room}`" for room in ROOMS)
    return textwrap.fill(words, 118, break_on_hyphens=False, break_long_words=False)


def test_the_contributing_page_shows_the_order():
    shown = re.search(r"<!-- order -->\n(.*?)<!-- /order -->", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.S)[1].strip()
    assert shown == order_of_rooms(), "paste this into CONTRIBUTING.md:\n" + order_of_rooms()


def test_a_misplaced_import_is_found():
    assert misplaced("data", {"analogs"}) == ["analogs"]
    assert misplaced("embedding", {"data", "features"}) == ["features"]
    assert misplaced(ROOMS[-1], set(ROOMS[:-1])) == []


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_exported_modules_need_no_notebook_tools(path):
    banned = {"fastcore", "nbdev", "execnb", "IPython", "nbformat", "pytest"}
    assert not {name.split(".")[0] for name in imports_of(path)} & banned
    heavy = {"matplotlib.pyplot", "keras", "jax", "jscatter", "ipywidgets", "pyvo", "dask", "stingray"}
    top = imports_of(path, top_level=True)
    assert not {h for h in heavy if any(name == h or name.startswith(h + ".") for name in top)}, "import it where it is used"


def test_import_is_fast_and_light():
    code = """
import sys, time
start = time.process_time()
import xrt_nb
print(time.process_time() - start, *{name.split(".")[0] for name in sys.modules})
"""
    answers = [run(sys.executable, "-c", code, cwd=ROOT).stdout.split() for _ in range(3)]
    assert min(float(a[0]) for a in answers) < 1
    loaded = set(answers[0][1:])
    assert "xrt_nb" in loaded
    heavy = {"sklearn", "keras", "jax", "matplotlib", "IPython", "ipywidgets", "nbdev", "fastcore", "pandas", "astropy", "openTSNE"}
    assert not loaded & heavy and not [name for name in loaded if name.startswith("jupyter")]


def test_ruff_finds_nothing():
    folders = [f for f in ("xrt_nb", "tools", "tests", "docs", "benchmarks", "setup.py") if (ROOT / f).exists()]
    done = run(sys.executable, "-m", "ruff", "check", "--no-cache", *folders, cwd=ROOT)
    assert done.returncode == 0, done.stdout


# --- packaging ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    "The library's wheel, built in a copy."
    tmp = tmp_path_factory.mktemp("wheel")
    for name in ("setup.py", "settings.ini", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp)
    shutil.copytree(LIB, tmp / "xrt_nb", ignore=shutil.ignore_patterns("__pycache__"))
    done = run(sys.executable, "-m", "pip", "wheel", "--no-index", "--no-deps", "--no-build-isolation", "--use-pep517", "-w", tmp / "dist", tmp,
               cwd=tmp, env=os.environ | {"PIP_CONFIG_FILE": os.devnull})
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(next((tmp / "dist").glob("*.whl"))) as archive:
        yield archive


def metadata(wheel, name="METADATA"):
    "A file of the wheel's own facts."
    return wheel.read(next(n for n in wheel.namelist() if n.endswith(f".dist-info/{name}"))).decode()


def test_wheel_holds_every_module(wheel):
    held = {p.relative_to(ROOT).as_posix() for p in LIB.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert held <= set(wheel.namelist()) and "xrt_nb/py.typed" in held
    assert not [n for n in wheel.namelist() if not n.startswith(("xrt_nb/", "xrt_nb-"))]
    assert "xrt-nb = xrt_nb.cli:main" in metadata(wheel, "entry_points.txt")


def test_source_distribution_builds_and_holds_its_facts(tmp_path):
    copy = tmp_path / "project"
    listed = run("git", "ls-files", "-z", cwd=ROOT).stdout.split("\0")
    for name in (n for n in listed if n and (n.startswith("xrt_nb/") or "/" not in n) and (ROOT / n).is_file()):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir"]
    done = run(*build, tmp_path / "dist", copy, cwd=tmp_path)  # a source distribution, and the wheel made from that
    assert done.returncode == 0, done.stdout + done.stderr
    (source,), (built,) = (list((tmp_path / "dist").glob(end)) for end in ("*.tar.gz", "*.whl"))
    with tarfile.open(source) as archive: inside = {n.partition("/")[2] for n in archive.getnames()}
    assert {"settings.ini", "setup.py", "README.md", "LICENSE", "xrt_nb/py.typed", "xrt_nb/data.py"} <= inside
    with zipfile.ZipFile(built) as archive: assert "xrt_nb/py.typed" in archive.namelist()


def test_the_package_is_a_command():
    done = run(sys.executable, "-m", "xrt_nb", "--version", cwd=ROOT)
    assert done.returncode == 0 and CFG["version"] in done.stdout


def test_wheel_asks_for_ranges_and_no_notebook_tools(wheel):
    facts = Parser().parsestr(metadata(wheel))
    needs = [Requirement(r) for r in facts.get_all("Requires-Dist")]
    user = [r for r in needs if r.marker is None]
    assert {r.name for r in user} == {Requirement(r).name for r in CFG["requirements"].split()}
    assert not [str(r) for r in user if any(s.operator in ("==", "===") for s in r.specifier)]
    assert not {r.name.lower() for r in user} & {"nbdev", "fastcore", "execnb", "jupyterlab", "ipython", "pytest", "keras", "jax"}
    assert facts["Requires-Python"] == ">=" + CFG["min_python"]
    assert facts["Version"] == CFG["version"]
    assert facts["License-Expression"] == "MIT" or facts["License"] == "MIT"


def test_every_group_of_requirements_is_an_extra(wheel):
    facts = Parser().parsestr(metadata(wheel))
    groups = {key.removesuffix("_requirements") for key in CFG if key.endswith("_requirements")}
    assert set(facts.get_all("Provides-Extra")) == groups | {"all"}
    for group in groups:
        asked = {Requirement(r).name.lower() for r in CFG[f"{group}_requirements"].split()}
        given = {r.name.lower() for r in map(Requirement, facts.get_all("Requires-Dist"))
                 if r.marker and r.marker.evaluate({"extra": group})}
        assert asked == given


def test_one_version_everywhere():
    assert re.search(r'__version__ = "(.*)"', (LIB / "__init__.py").read_text())[1] == CFG["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == CFG["version"]
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)[1] == CFG["version"]


def test_citation_names_the_paper():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    paper = cited["preferred-citation"]
    assert (paper["doi"], paper["volume"], paper["start"], paper["year"]) == ("10.1093/mnras/stae2808", 537, 931, 2025)
    assert paper["authors"][0]["family-names"] == "Dillmann"


def pins(name):
    "{package: [(version, marker)]} of a lock, each with its hashes."
    text = (ROOT / "requirements" / f"{name}-lock.txt").read_text()
    found = {}
    for block in re.split(r"\n(?=[A-Za-z0-9])", text)[1:]:
        assert "--hash=sha256:" in block, block
        need = Requirement(block.partition("\\")[0].strip())
        (pin,) = need.specifier
        assert pin.operator == "=="
        found.setdefault(re.sub(r"[-_.]+", "-", need.name).lower(), []).append((pin.version, str(need.marker or "")))
    return found


@pytest.mark.parametrize("name, groups", [("demo", ["requirements"]), ("dev", ["requirements", "dev_requirements", "docs_requirements"])])
def test_locks_hold_what_settings_ini_asks_for(name, groups):
    locked = pins(name)
    for need in (Requirement(r) for group in groups for r in CFG[group].split()):
        versions = locked.get(re.sub(r"[-_.]+", "-", need.name).lower())
        assert versions and all(need.specifier.contains(v) for v, _ in versions), f"{need}: run make lock"
    assert "setuptools" in locked  # the project is built with it, without asking any index
    assert not re.search(r"://|file:", (ROOT / "requirements" / f"{name}-lock.txt").read_text())


def test_locks_agree_and_the_demo_is_small():
    demo, dev = pins("demo"), pins("dev")
    assert all({v for v, _ in versions} <= {v for v, _ in dev[name]} for name, versions in demo.items())
    assert not demo.keys() & {"nbdev", "fastcore", "jupyterlab", "ipython", "pytest", "stingray", "keras", "jax"}


# --- make, CI -----------------------------------------------------------------------------------------------------


def test_workflows_and_hooks_use_what_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert {"demo", "test", "docs", "export", "parity", "clean-nbs", "readme", "lock", "lab", "bench", "help"} <= targets
    commands = [step["run"] for path in (ROOT / ".github" / "workflows").glob("*.yml")
                for job in yaml.safe_load(path.read_text())["jobs"].values() for step in job["steps"] if "run" in step]
    commands += [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line.startswith("make ")]
    called = {name for command in commands for name in re.findall(r"make ([a-z-]+)", command)}
    assert {"test", "docs", "parity"} <= called <= targets
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert [h["id"] for h in hooks] == ["cells", "clean", "parity", "ruff"]
    for hook in hooks:
        for word in hook["entry"].split():
            assert not word.startswith("tools/") or (ROOT / word).exists()


def test_ci_ends_with_the_tests():
    path = ROOT / ".ci" / "run"
    assert os.access(path, os.X_OK) and run("bash", "-n", path).returncode == 0
    assert path.read_text().splitlines()[-1].startswith("make test")


def test_make_alone_explains_itself():
    said = run("make", "--no-print-directory", cwd=ROOT, env={"PATH": os.environ["PATH"]}).stdout
    assert all(f"make {name} " in said for name in ("demo", "test", "docs", "export"))


@pytest.mark.parametrize("version, words", [("3.9", "too old"), ("3.12", "python3-venv")])
def test_no_usable_python_is_said_clearly(version, words, tmp_path):
    fake = tmp_path / "old-python"  # answers with its version; has neither venv nor ensurepip
    new_enough = int(version >= "3.11" and len(version) > 3)
    fake.write_text(f"""#!/bin/sh
case "$2" in
    *print*) echo {version} ;;
    *version_info*) exit {1 - new_enough} ;;
    *) exit 1 ;;
esac
""")
    fake.chmod(0o755)
    done = run(ROOT / "tools" / "venv.sh", tmp_path / "env", ROOT / "requirements" / "demo-lock.txt", env=os.environ | {"PYTHON": str(fake)})
    assert done.returncode == 1 and words in done.stderr and "apt-get install" in done.stderr
    assert not (tmp_path / "env").exists()
