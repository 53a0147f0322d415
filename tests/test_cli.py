"""The command line as a user meets it: a process of its own, exit status, what it says, what it leaves."""

import gzip
import inspect
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from xrt_nb.cli import main
from xrt_nb.data import EventTable, read_events


def shell(*args):
    return CliRunner().invoke(main, [str(a) for a in args], prog_name="xrt-nb")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def photons(folder):
    rng = np.random.default_rng(0)
    table = EventTable.from_dict({f"{k}_1": (np.sort(rng.uniform(0, 1e4, 40)), rng.uniform(500, 7000, 40)) for k in range(90)})
    table.write("photons.csv")
    return table


def test_help_comes_without_heavy_imports():
    code = "import sys; from xrt_nb.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\nprint(sorted({'sklearn','numba','matplotlib','astropy','openTSNE','pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.stdout.strip().endswith("[]") and "demo" in done.stdout


def test_the_console_script_is_installed():
    done = subprocess.run([sys.executable, "-c", "from importlib.metadata import entry_points; print([e.value for e in entry_points(group='console_scripts', name='xrt-nb')])"],
                          capture_output=True, text=True, timeout=600)
    assert "xrt_nb.cli:main" in done.stdout


CSV = "obsreg_id,time,energy\n1_1,1,700\n1_1,2,800\n"


@pytest.mark.parametrize("name, content, message", [
    ("empty.csv", b"", "empty.csv: the file is empty"),
    ("columns.csv", b"obsreg_id,t,energy\n1_1,1,700\n", "columns.csv: column 'time' missing"),
    ("text.csv", b"obsreg_id,time,energy\n1_1,1,bright\n", "text.csv: detection '1_1', column 'energy' is not numeric"),
    ("nan.csv", b"obsreg_id,time,energy\n1_1,,700\n", "nan.csv: detection '1_1', column 'time': the value in row 0 is missing"),
    ("inf.csv", b"obsreg_id,time,energy\n1_1,1,inf\n", "inf.csv: detection '1_1', column 'energy': the value in row 0 is infinite"),
    ("zero.csv", b"obsreg_id,time,energy\n1_1,1,0\n", "zero.csv: detection '1_1', column 'energy': the value in row 0 is 0"),
    ("cut.csv.gz", gzip.compress(CSV.encode(), mtime=0)[:-9], "cut.csv.gz: the gzip file is damaged or truncated"),
    ("cut.parquet", b"PAR1abc", "cut.parquet: not a complete Parquet file"),
    ("cut.fits", b"SIMPLE  =                    T", "cut.fits"),
    ("text.fits", b"hello", "text.fits"),
    ("cut.fits.gz", gzip.compress(b"SIMPLE  = " + b" " * 5000, mtime=0)[:-9], "cut.fits.gz"),
], ids=lambda v: v if isinstance(v, str) and "." in v[:12] and " " not in v else "")
def test_ill_files_end_in_one_sentence(name, content, message, folder):
    (folder / name).write_bytes(content)
    r = shell("ingest", name, "--out", "out.parquet")
    assert r.exit_code == 1 and message in r.stderr and "Traceback" not in r.output
    assert [p.name for p in folder.iterdir()] == [name]


def test_fits_without_events(folder):
    from astropy.io import fits
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns([fits.Column("a", "J", array=[1, 2])], name="SPECTRUM")]).writeto("spec.fits")
    r = shell("ingest", "spec.fits", "--out", "out.parquet")
    assert r.exit_code == 1 and "spec.fits" in r.stderr and "EVENTS" in r.stderr


def test_unsorted_times_are_sorted_and_said(folder):
    (folder / "u.csv").write_text("obsreg_id,time,energy\n1_1,2,700\n1_1,1,800\n")
    r = shell("ingest", "u.csv", "--out", "u.parquet")
    assert r.exit_code == 0 and "not sorted; sorted now" in r.stderr
    assert read_events("u.parquet")["1_1"].energy.tolist() == [800, 700]


def test_the_steps_one_by_one(photons, folder):
    for args in (["ingest", "photons.csv", "--out", "e.parquet"], ["represent", "e.parquet", "--representation", "cube", "--out", "c.npz"], ["features", "c.npz", "--out", "f.parquet"],
                 ["embed", "f.parquet", "-p", "10", "-lr", "100", "-iter", "250", "-exag", "1", "-init", "random", "-rs", "11", "--out", "m.csv"],
                 ["cluster", "m.csv", "-eps", "4", "-ms", "4", "--out", "k.csv"], ["analogs", "f.parquet", "3_1", "--out", "a.csv"]):
        r = shell(*args)
        assert r.exit_code == 0, (args, r.output)
    assert read_events("e.parquet") == photons
    assert list(pd.read_csv("m.csv", dtype=str).columns) == ["tsne1", "tsne2", "obsreg_id"]
    assert list(pd.read_csv("k.csv", dtype=str).columns) == ["tsne1", "tsne2", "obsreg_id", "cluster"]
    assert pd.read_parquet("f.parquet").shape == (90, 22) and len(pd.read_csv("a.csv")) == 10
    for args in (["represent", "e.parquet", "--out", "c.npz"], ["cluster", "m.csv", "--out", "k.csv"]):
        r = shell(*args)
        assert r.exit_code == 1 and "exists" in r.stderr and "--overwrite" in r.stderr
    r = shell("analogs", "f.parquet", "nobody")
    assert r.exit_code == 1 and "no source 'nobody' among the 90" in r.stderr
    r = shell("embed", "k.csv", "--out", "x.csv")
    assert r.exit_code == 1 and "k.csv: not a complete Parquet file" in r.stderr
    r = shell("features", "e.parquet", "--out", "x.parquet")
    assert r.exit_code == 1 and "e.parquet: not a complete file of maps" in r.stderr


def test_run_refuses_what_it_cannot_do(photons, folder):
    r = shell("run", "3D-PCA", "photons.csv", "--out", "ae", "--encoder", "photons.csv")
    assert r.exit_code == 1 and "`encoder` is for the cases 2D-AE and 3D-AE, not for 3D-PCA" in r.stderr
    r = shell("run", "5D", "photons.csv", "--out", "x")
    assert r.exit_code == 1 and "2D-PCA, 3D-PCA, 2D-AE, 3D-AE" in r.stderr
    r = shell("run", "2D-PCA", "photons.csv", "more.csv", "--out", "x")
    assert r.exit_code == 2 and "expected [CASE] EVENTS" in r.stderr
    r = shell("run", "nowhere.csv", "--out", "x")
    assert r.exit_code == 2 and "there is no nowhere.csv" in r.stderr
    r = shell("run", "2D-PCA", "photons.csv", "--out", "x", "-p", "500")
    assert r.exit_code == 1 and "perplexity" in r.stderr and not (folder / "x").exists()


def test_real_event_file_to_archive(shared, folder):
    d = shared / "data" / "xrt200515"
    r = shell("ingest", d / "acisf23022_000N027_r0122_regevt3.fits.gz", "--region", d / "acisf23022_000N020_r0122_reg3.fits.gz", "--out", "xrt.parquet")
    assert r.exit_code == 0, r.output
    ev = read_events("xrt.parquet")["23022_122"]
    assert len(ev) == 188 and len(ev.gti) and ev.meta["n_file"] == 5813 and ev.meta["n_region"] == 232


def small_event_file(path, n=20, seed=0):
    "A simulated ACIS event file."
    from astropy.io import fits
    rng = np.random.default_rng(seed)
    t = np.sort(7e8 + rng.uniform(0, 1e4, n))
    cols = [("time", "D", t), ("ccd_id", "I", np.full(n, 7)), ("x", "E", rng.normal(4000, 4, n)), ("y", "E", rng.normal(4000, 4, n)),
            ("pha", "J", np.full(n, 200)), ("grade", "I", np.zeros(n)), ("energy", "E", rng.uniform(600, 6000, n))]
    events = fits.BinTableHDU.from_columns([fits.Column(k, f, array=v, unit={"time": "s", "energy": "eV"}.get(k)) for k, f, v in cols], name="EVENTS")
    gti = fits.BinTableHDU.from_columns([fits.Column("START", "D", array=[7e8]), fits.Column("STOP", "D", array=[7e8 + 1e4])], name="GTI")
    for h in (events, gti):
        h.header.update({"TELESCOP": "CHANDRA", "INSTRUME": "ACIS", "OBS_ID": f"{70000 + seed}", "MJDREF": 50814.0, "TIMESYS": "TT", "TIMEZERO": 0.0, "TIMEUNIT": "s", "CCD_ID": 7})
    fits.HDUList([fits.PrimaryHDU(), events, gti]).writeto(path)


def test_some_bad_files_give_status_3_and_a_list(folder):
    for k in range(3):
        small_event_file(f"f{k}_evt2.fits", seed=k)
    (folder / "f1_evt2.fits").write_bytes((folder / "f1_evt2.fits").read_bytes()[:9000])
    (folder / "list.csv").write_text("event_file,region_file,id\nf0_evt2.fits,,first\nf1_evt2.fits,,\nf2_evt2.fits,,third\nmissing_evt2.fits,,\n")
    r = shell("ingest", "list.csv", "--jobs", "1", "--out", "a.parquet")
    assert r.exit_code == 3 and "2 detections" in r.stdout
    assert "2 of 4 files gave no detection" in r.stderr and "f1_evt2.fits: " in r.stderr and "missing_evt2.fits: " in r.stderr
    assert list(read_events("a.parquet").ids) == ["first", "third"]
    assert not (folder / "a.parquet.parts").exists()


def test_ones_own_event_joins_an_archive(photons, folder):
    small_event_file("f_evt2.fits")
    for name in ("photons.csv", "photons.parquet"):
        if name.endswith("parquet"): photons.write(name)
        r = shell("ingest", name, "f_evt2.fits", "--jobs", "1", "--out", f"joined_{name}.parquet")
        assert r.exit_code == 0, r.output
        assert "note: " in r.stderr and "it has no good times" in r.stderr and "xrt-nb run" in r.stdout
        table = read_events(f"joined_{name}.parquet")
        assert len(table) == 91 and set(photons.ids) < set(table.ids) and table.has_energy
        assert all(np.array_equal(table[i].time, photons[i].time) for i in photons.ids[::30])
        again = shell("ingest", f"joined_{name}.parquet", "f_evt2.fits", "--jobs", "1", "--out", "again.parquet", "--overwrite")
        assert again.exit_code == 3 and "is also that of f_evt2.fits" in again.stderr # the same event twice


def test_mission_offers_the_names(folder):
    from xrt_nb.fits import MISSIONS
    small_event_file("f_evt2.fits")
    r = shell("ingest", "f_evt2.fits", "--mission", "Hubble", "--out", "a.parquet")
    assert r.exit_code == 2 and all(m in r.stderr for m in MISSIONS)
    r = shell("ingest", "f_evt2.fits", "--mission", "chandra acis", "--jobs", "1", "--out", "a.parquet")
    assert r.exit_code == 0 and "1 detection," in r.stdout
    r = shell("ingest", "f_evt2.fits", "--mission", "NuSTAR", "--jobs", "1", "--out", "b.parquet")
    assert "its header names Chandra ACIS, so it was read as that and not as NuSTAR" in r.stderr
    assert read_events("a.parquet")["70000"] == read_events("b.parquet")["70000"]


def test_notes_and_skipped_files_are_named_once(folder):
    for k in range(5): small_event_file(f"f{k}_evt2.fits", seed=k)
    small_event_file("P01_ImagingEvts.ds")
    r = shell("ingest", ".", "--jobs", "1", "--out", "a.parquet")
    assert r.exit_code == 0 and r.stderr.count("no region: the whole field is one detection") == 1
    assert "note: f0_evt2.fits, f1_evt2.fits, f2_evt2.fits and 2 more: no region" in r.stderr
    assert "skipped: P01_ImagingEvts.ds: not named like an event file" in r.stderr and "unexpected" not in r.output


def test_nothing_to_ingest_is_a_sentence(folder):
    r = shell("ingest", "nowhere_evt2.fits", "--out", "a.parquet")
    assert r.exit_code == 1 and "nowhere_evt2.fits: no event file there" in r.stderr
    r = shell("ingest", "nowhere.csv", "--out", "a.parquet")
    assert r.exit_code == 1 and "nowhere.csv" in r.stderr and "Traceback" not in r.output


def test_metric_train_hands_its_options_on(folder, monkeypatch):
    from xrt_nb import metric
    asked = []
    monkeypatch.setattr(metric, "train_metric", lambda out, **options: (asked.append((out, options)), out)[1])
    r = shell("metric", "train", "m.npz", "--seed", 3, "--size", 0.5, "--steps", 7, "--exclude", "dip", "--exclude", "qpe", "--overwrite")
    assert r.exit_code == 0 and "The metric is in m.npz" in r.stdout and "next: " in r.stdout
    (out, options), = asked
    assert str(out) == "m.npz" and callable(options.pop("progress"))
    assert options == {"random_state": 3, "size": 0.5, "steps": 7, "exclude": ("dip", "qpe"), "overwrite": True}


def commands(group=main, words=()):
    "Every command that does something, with the words it is called by."
    for name, one in group.commands.items():
        if hasattr(one, "commands"):
            yield from commands(one, (*words, name))
        else:
            yield (*words, name), one


def says_next(function, seen):
    "Whether a function of the command line, or one that it calls, says what to do next."
    from xrt_nb import cli

    names = set(function.__code__.co_names)
    if "say_next" in names:
        return True
    called = [f for n in names - seen if callable(f := getattr(cli, n, None)) and hasattr(f, "__code__")]
    return any(says_next(f, seen | names) for f in called)


def test_every_command_says_what_to_do_next():
    "Except `app`, which serves until it is ended."
    silent = {words for words, one in commands() if not says_next(inspect.unwrap(one.callback), set())}
    assert silent == {("app",)}
