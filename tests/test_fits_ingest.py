"""Ingest: pairs, lists, problems, parallel, killed and taken up again."""
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from make_mission_fixtures import make_all
from test_fits import EVT, REG, acis, needs_real # noqa: F401  (acis is a fixture)
from xrt_nb.data import XRTError, read_events
from xrt_nb.fits import read_event_list
from xrt_nb.ingest import find_inputs, ingest
from xrt_nb.regions import Region

WHOLE = Region([[(True, "box", (50, 50, 100, 100))]])
ROOT = Path(__file__).parent.parent


@pytest.fixture
def many(acis, tmp_path): # noqa: F811
    "A folder of 24 small files, one of them broken."
    folder = tmp_path / "files"
    folder.mkdir()
    data = acis().read_bytes()
    for k in range(24): (folder / f"acisf{k + 1:05d}_000N001_r0001_regevt3.fits").write_bytes(data)
    (folder / "acisf00005_000N001_r0001_regevt3.fits").write_bytes(data[:5000])
    return folder


def test_one_and_two_processes_give_the_same_bytes(many, tmp_path):
    a = ingest(many, tmp_path / "a.parquet", region=WHOLE, chunk=4, progress=False)
    b = ingest(many, tmp_path / "b.parquet", region=WHOLE, chunk=4, progress=False, n_jobs=2)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert (a.n_files, a.n_sources, len(a.problems), a.ok) == (24, 23, 1, False)
    assert "acisf00005" in a.problems.file[0] and "cut short" in a.problems.reason[0]
    assert b.problems.equals(a.problems) and not list(tmp_path.glob("*.parts"))


def test_archive_holds_what_reading_gives(many, tmp_path):
    ingest(many, tmp_path / "a.parquet", region=WHOLE, chunk=5, progress=False)
    table = read_events(tmp_path / "a.parquet")
    one = read_event_list(many / "acisf00003_000N001_r0001_regevt3.fits", WHOLE)
    assert table["3_1"] == one
    assert {k: table.meta.loc["3_1", k] for k in ("n_file", "n_region", "n_gti", "n_energy", "mission")} == {k: one.meta[k] for k in ("n_file", "n_region", "n_gti", "n_energy", "mission")}
    assert read_events(tmp_path / "a.parquet", ids=["7_1"])["7_1"] == table["7_1"]


def test_killed_and_taken_up_again(many, tmp_path):
    out, parts = tmp_path / "k.parquet", tmp_path / "k.parquet.parts"
    ingest(many, tmp_path / "whole.parquet", region=WHOLE, chunk=2, progress=False)
    code = ("import time, xrt_nb.ingest as i\nfrom xrt_nb.regions import Region\nread = i.read_event_list\n"
            "def slow(*a, **k): time.sleep(0.2); return read(*a, **k)\ni.read_event_list = slow\n"
            f"i.ingest({str(many)!r}, {str(out)!r}, region=Region({WHOLE.terms!r}), chunk=2, progress=False)")
    p = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True)
    end = time.monotonic() + 60
    while len(list(parts.glob("note-*.json"))) < 3 and p.poll() is None and time.monotonic() < end: time.sleep(0.02)
    os.killpg(p.pid, signal.SIGKILL)
    p.wait()
    assert not out.exists() and 3 <= len(list(parts.glob("note-*.json"))) < 12
    before = {f: f.stat().st_mtime_ns for f in parts.glob("part-*.parquet")}
    done = ingest(many, out, region=WHOLE, chunk=2, progress=False)
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert len(before) >= 3 and done.n_sources == 23


def test_same_id_twice_is_a_problem_of_the_later_file(acis, tmp_path): # noqa: F811
    data = acis().read_bytes()
    for n in ("a_evt2.fits", "b_evt2.fits"): (tmp_path / n).write_bytes(data)
    for chunk in (1, 9):
        done = ingest([tmp_path / "a_evt2.fits", tmp_path / "b_evt2.fits"], tmp_path / f"{chunk}.parquet", chunk=chunk, progress=False)
        assert done.n_sources == 1 and "its id 77 is also that of a_evt2.fits" in done.problems.reason[0]


def test_csv_of_files_regions_and_ids(acis, tmp_path): # noqa: F811
    p = acis("one_evt2.fits")
    (tmp_path / "half.reg").write_text("physical\nbox(25,50,50,100)\n")
    pd.DataFrame({"event_file": [p.name, p.name, "gone.fits"], "region_file": ["half.reg", None, None], "id": ["half", "all", "gone"]}).to_csv(tmp_path / "list.csv", index=False)
    done = ingest(tmp_path / "list.csv", tmp_path / "a.parquet", progress=False)
    table = read_events(tmp_path / "a.parquet")
    assert table.ids.tolist() == ["all", "half"] and table.counts[0] > table.counts[1] > 0
    assert done.problems.reason.tolist() == ["the file does not exist"]


def test_all_missions_into_one_archive(tmp_path):
    cases = make_all(tmp_path / "m")
    files = [c.path for c in cases.values() if not c.mission.startswith("Einstein")]
    done = ingest(files, tmp_path / "a.parquet", energy_range=None, progress=False)
    assert done.n_sources == len(files) - 2 # HRC has no energies, and two XMM files are of one observation and camera
    assert sorted("no energies" in r or "is also that of" in r for r in done.problems.reason) == [True, True]
    table = read_events(tmp_path / "a.parquet")
    assert table.meta.mission.nunique() == 8 and np.isfinite(table.windows()).all()
    times = ingest(files, tmp_path / "t.parquet", energy_range=None, times_only=True, progress=False)
    assert times.n_sources == len(files) - 1 and not read_events(tmp_path / "t.parquet").has_energy


def test_nothing_usable_leaves_nothing(tmp_path):
    (tmp_path / "x_evt2.fits").write_bytes(b"")
    with pytest.raises(XRTError, match="none of the 1 files could be used"): ingest(tmp_path / "x_evt2.fits", tmp_path / "a.parquet", progress=False)
    assert not (tmp_path / "a.parquet").exists()


@needs_real
def test_real_pair_from_its_folder(tmp_path):
    jobs = find_inputs(EVT.parent)
    assert (str(EVT), str(REG), None) in jobs
    done = ingest(EVT, tmp_path / "a.parquet", progress=False)
    assert done.n_events == 188 and read_events(tmp_path / "a.parquet").ids.tolist() == ["23022_122"]
