"""One test per notebook: each runs top to bottom in a process of its own and leaves nothing behind.

Notebooks that train networks for minutes take fewer sources and epochs when XRT_NB_QUICK is set; the stored outputs are those
of the whole.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RUNNER = ROOT / "tools" / "run_notebook.py"
NOTEBOOKS = sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)


def run(notebook, tmp_path, *flags):
    "Run `notebook` with a home and temporary folder of its own."
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "COV_"))}
    env.pop("MPLBACKEND", None)  # pictures go into the notebook, as for a reader
    env |= {"PYTHONDONTWRITEBYTECODE": "1", "IPYTHONDIR": str(tmp_path / "ipython"), "TMPDIR": str(tmp_path), "XRT_NB_QUICK": "1"}
    return subprocess.run([sys.executable, str(RUNNER), str(notebook), *flags], env=env, cwd=ROOT, timeout=600,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)


def files_of_notebooks():
    "Everything in the notebooks' folders and beside them, but no caches."
    found = {p for p in (ROOT / "nbs").rglob("*") if not {"__pycache__", ".ipynb_checkpoints"} & set(p.parts)}
    return found | set(ROOT.glob("*"))


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_notebook(notebook, tmp_path):
    before = files_of_notebooks()
    done = run(ROOT / notebook, tmp_path)
    assert done.returncode == 0, f"{notebook} failed:\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
    left = sorted(str(p.relative_to(ROOT)) for p in files_of_notebooks() - before if p.name not in {"__pycache__", ".pytest_cache"})
    assert not left, f"a notebook running now left files behind: {left}; write into a temporary folder"


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 2
