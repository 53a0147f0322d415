"""What a user installs is enough: the oldest versions that settings.ini allows, and the extras by themselves.

Each test makes an environment of its own, which takes minutes and the network, so all of them are slow.
"""
import os
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
UV = Path(sys.executable).with_name("uv")
USER = ("requirements", "ae_requirements", "finder_requirements", "catalogs_requirements", "fit_requirements",
        "ann_requirements", "scale_requirements", "notebooks_requirements")
config = ConfigParser(delimiters=["="])
config.read(ROOT / "settings.ini", encoding="utf-8")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not UV.exists(), reason="uv is not in this environment: make dev")]


def run(*command, timeout=1200, **env):
    "Run to the end; what it said is the message of a failure."
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "PYTHONPATH", "VIRTUAL_ENV"))}
    done = subprocess.run([str(c) for c in command], env=clean | env, cwd=env.get("HOME", ROOT), stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def environment(folder, *install):
    "A new environment with this project in it; the path of its programs."
    run(UV, "venv", "--quiet", "--python", sys.executable, "--no-python-downloads", folder)
    run(UV, "pip", "install", "--quiet", "--python", folder / "bin" / "python", *install)
    return folder / "bin"


@pytest.fixture(scope="module")
def oldest(tmp_path_factory):
    "Every direct requirement in its oldest version that settings.ini allows; nothing compiled."
    tmp = tmp_path_factory.mktemp("oldest")
    (tmp / "floors.in").write_text("\n".join(r for group in USER for r in config["DEFAULT"][group].split()))
    programs = environment(tmp / "env", "--resolution", "lowest-direct", "--only-binary", ":all:", "-r", tmp / "floors.in")
    run(UV, "pip", "install", "--quiet", "--python", programs / "python", "--no-deps", ROOT)
    return programs


def test_the_demo_runs_with_the_oldest_versions(oldest, tmp_path):
    said = run(oldest / "xrt-nb", "demo", "--out", tmp_path / "run", HOME=str(tmp_path), OMP_NUM_THREADS="1")
    assert "report" in said and (tmp_path / "run" / "report.html").stat().st_size > 50_000


IMPORTS = """
import ast, json, sys
from pathlib import Path
bad = []
for path in sorted(Path(sys.argv[1]).rglob("*.ipynb")):
    for cell in json.loads(path.read_text())["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] != "code" or text.lstrip().startswith("%"): continue
        try: body = ast.parse(text).body
        except SyntaxError: continue  # a shell command
        if not body or not all(isinstance(node, (ast.Import, ast.ImportFrom)) for node in body): continue
        try: exec(compile(text, path.name, "exec"), {"__name__": "cell", "__package__": "xrt_nb"})
        except Exception as err: bad.append(f"{path.name}: {type(err).__name__}: {err}")
print(*bad, sep="\\n")
"""


@pytest.mark.parametrize("which", ["oldest", "newest"])
def test_every_import_of_every_notebook_is_there(which, request, tmp_path):
    programs = request.getfixturevalue(which)
    said = run(programs / "python", "-W", "ignore", "-c", IMPORTS, ROOT / "nbs", HOME=str(tmp_path), KERAS_BACKEND="jax")
    missing = [line for line in said.splitlines() if line and "stingray" not in line]  # compared with where it is installed
    assert missing == []


@pytest.fixture(scope="module")
def newest(tmp_path_factory):
    "What `pip install .[all]` gives today."
    return environment(tmp_path_factory.mktemp("all") / "env", f"{ROOT}[all]")


@pytest.mark.parametrize("notebook", ["index", "00_data", "01_representations", "05_analogs", "tutorials/csc", "tutorials/xrt200515"])
def test_notebooks_run_with_all_extras(notebook, newest, tmp_path):
    script = "import sys, nbformat; from nbclient import NotebookClient as C; p = sys.argv[1]; " \
             "C(nbformat.read(p, 4), timeout=900, kernel_name='python3', resources={'metadata': {'path': sys.argv[2]}}).execute()"
    path = ROOT / "nbs" / f"{notebook}.ipynb"
    run(newest / "python", "-c", script, path, path.parent, HOME=str(tmp_path), XRT_NB_QUICK="1", KERAS_BACKEND="jax",
        PATH=f"{newest}{os.pathsep}{os.environ['PATH']}")
