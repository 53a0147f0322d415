"""One test per notebook: each runs top to bottom in a process of its own and leaves nothing behind.

Notebooks that train networks for minutes take fewer sources and epochs when XRT_NB_QUICK is set; the stored outputs are those
of the whole.
"""

import json
import os
from pathlib import Path

import pytest
from support.notebook_forks import Forks

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)


@pytest.fixture(scope="module")
def forks():
    "What runs notebooks, each in a process of its own."
    with Forks() as forks:
        yield forks


def environment(tmp_path):
    "A home and temporary folder of the notebook's own."
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "COV_"))}
    env.pop("MPLBACKEND", None)  # pictures go into the notebook, as for a reader
    return env | {"PYTHONDONTWRITEBYTECODE": "1", "IPYTHONDIR": str(tmp_path / "ipython"), "TMPDIR": str(tmp_path), "XRT_NB_QUICK": "1"}


def files_of_notebooks():
    "Everything in the notebooks' folders and beside them, but no caches."
    found = {p for p in (ROOT / "nbs").rglob("*") if not {"__pycache__", ".ipynb_checkpoints"} & set(p.parts)}
    return found | set(ROOT.glob("*"))


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_notebook(notebook, forks, tmp_path):
    before = files_of_notebooks()
    code, said = forks.run(ROOT / notebook, environment(tmp_path))
    assert code == 0, f"{notebook} failed with exit status {code}:\n{said[-8000:]}"
    left = sorted(str(p.relative_to(ROOT)) for p in files_of_notebooks() - before if p.name not in {"__pycache__", ".pytest_cache"})
    assert not left, f"a notebook running now left files behind: {left}; write into a temporary folder"


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 2


def bad_notebook(tmp_path, source):
    "A notebook of one cell."
    cell = {"cell_type": "code", "id": "a", "execution_count": None, "metadata": {}, "outputs": [], "source": source}
    path = tmp_path / "bad.ipynb"
    path.write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


def test_a_failing_notebook_fails_and_the_next_one_runs(forks, tmp_path):
    code, said = forks.run(bad_notebook(tmp_path, "x = 1\nassert x == 2, 'no'"), environment(tmp_path))
    assert code == 1 and "AssertionError: no" in said
    code, said = forks.run(bad_notebook(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"), environment(tmp_path))
    assert code == -9
    code, said = forks.run(bad_notebook(tmp_path, "import os; assert os.environ['TMPDIR']; y = 3"), environment(tmp_path))
    assert code == 0, said
    code, said = forks.run(bad_notebook(tmp_path, "assert 'y' not in globals()"), environment(tmp_path))
    assert code == 0, said


def test_a_notebook_without_end_is_ended(forks, tmp_path):
    with pytest.raises(TimeoutError, match="takes longer than 3 s"):
        forks.run(bad_notebook(tmp_path, "while True: pass"), environment(tmp_path), timeout=3)
    assert forks.run(bad_notebook(tmp_path, "1"), environment(tmp_path))[0] == 0


def test_nothing_of_ours_is_imported_before_a_notebook_does(forks, tmp_path):
    found = "import sys; found = [m for m in sys.modules if m.split('.')[0] in ('xrt_nb', 'keras', 'jax', 'dask', 'ipywidgets')]"
    code, said = forks.run(bad_notebook(tmp_path, found + "; assert not found, found"), environment(tmp_path))
    assert code == 0, said
