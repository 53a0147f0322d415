"""What the finder keeps, broken in every way: labels, sessions and selections are read rightly or refused in one sentence that names the file."""

import os
from pathlib import Path

import pandas as pd
import pytest

from support.fuzzing import judge, mutants
from xrt_nb.analogs import write_selection
from xrt_nb.labels import Labels

MORE = int(os.environ.get("XRT_NB_FUZZ", "0"))  # further mutants of each kind of file
HERE = Path(__file__).resolve().parent / "support" / "desk_readers.py"


def whole(folder, kind):
    "A good file of a kind, and the function that reads it."
    if kind.startswith("labels"):
        made = Labels(run="f00d" * 16)
        made.mark(["1_1", "2_1", "=3"], "flare", note='a "quoted" note,\nof two lines', who="Ada")
        made.mark("4_1", "dïp", who="Ben")
        return made.save(folder / kind), "labels"
    if kind.startswith("session"):
        from support.desk_readers import desk
        desk().query("hard_hs > 0")
        desk().toggle_known("flare", True)
        return desk().save_session(folder / kind), "session"
    frame = pd.DataFrame({"obsreg_id": ["1_1", "NA", "=3"], "ra": [1.0, None, 3], "name": ["a", None, "M 31"]})
    return write_selection(folder / kind, frame), "selection"


KINDS = ["labels.csv", "labels.json", "session.json", "selection.csv", "selection.fits", "selection.vot", "selection.ecsv"]


def fuzz(kind, n, folder):
    path, function = whole(folder, kind)
    data = path.read_bytes()
    broken = list(mutants(data, n + MORE, seed=len(kind)))
    silent = tuple({k for k, _ in broken})  # texts without a checksum: a changed letter is another text
    report = judge(f"{HERE}:{function}", broken, suffix=path.suffix, whole=data, silent=silent)
    print(kind, dict(report.counts))
    bad = report.bad
    assert len(report.rows) == len(broken) and not bad, bad[:5]


@pytest.mark.parametrize("kind", ["labels.csv", "labels.json", "session.json"])
def test_broken_files(kind, tmp_path):
    fuzz(kind, 60, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_broken_files_in_depth(kind, tmp_path):
    fuzz(kind, 300, tmp_path)
