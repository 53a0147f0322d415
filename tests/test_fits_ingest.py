"""Ingest: pairs, lists, problems, parallel, killed and taken up again."""
import errno
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from make_mission_fixtures import make_all
from test_fits import EVT, REG, acis, needs_real # noqa: F401  (acis is a fixture)
from astropy.io import fits
from xrt_nb import ingest as room
from xrt_nb._store import StoreError, StoreExists
from xrt_nb.data import EventTable, XRTError, XRTWarning, read_events
from xrt_nb.fits import MISSIONS, read_event_list
from xrt_nb.ingest import find_inputs, ingest, read_chunk, search_inputs
from xrt_nb.regions import EventFileError, Region

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
    assert "acisf00005" in a.problems.file[0] and "truncated" in a.problems.reason[0]
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
    while len(list(parts.glob("*.done"))) < 3 and p.poll() is None and time.monotonic() < end: time.sleep(0.02)
    os.killpg(p.pid, signal.SIGKILL)
    p.wait()
    assert not out.exists() and 3 <= len(list(parts.glob("*.done"))) < 12
    before = {f: f.stat().st_mtime_ns for f in parts.glob("part-*.parquet")}
    done = ingest(many, out, region=WHOLE, chunk=2, progress=False)
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert len(before) >= 2 and done.n_sources == 23


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


# --- what is read, and by which region ----------------------------------------------------------------------------


def _names(found): return {os.path.basename(e): r and os.path.basename(r) for e, r, _ in found.jobs}


def test_a_region_cuts_only_what_it_is_named_for(acis, tmp_path): # noqa: F811
    folder, data = tmp_path / "f", acis().read_bytes()
    (folder / "deep").mkdir(parents=True)
    for n in ("one_evt2.fits", "two_cl.evt", "Three_evt3.fits", "acisf00077_000N001_r0003_regevt3.fits", "deep/one_evt2.fits"): (folder / n).write_bytes(data)
    for n in ("two_cl_src.reg", "three_EVT3.REG", "other_evt2.reg", "one.reg"): (folder / n).write_text("physical\ncircle(50,50,20)\n")
    for n in ("field_reg3.fits", "deep/acisf00077_000N002_r0003_reg3.fits", "acisf00078_000N002_r0003_reg3.fits"): (folder / n).write_bytes(b"SIMPLE")
    found = search_inputs(folder)
    assert _names(found) == {"one_evt2.fits": None, "two_cl.evt": "two_cl_src.reg", "Three_evt3.fits": "three_EVT3.REG",
                             "acisf00077_000N001_r0003_regevt3.fits": "acisf00077_000N002_r0003_reg3.fits"}
    said = {os.path.basename(f): why for f, why in found.skipped}
    assert set(said) == {"other_evt2.reg", "one.reg", "field_reg3.fits", "acisf00078_000N002_r0003_reg3.fits"} and all("cuts nothing" in w for w in said.values())
    assert _names(search_inputs([folder / "two_cl.evt", folder / "one_evt2.fits"])) == {"two_cl.evt": "two_cl_src.reg", "one_evt2.fits": None}
    assert set(_names(search_inputs(folder, region="x.reg")).values()) == {"x.reg"}


def test_a_foreign_region_leaves_ordinary_files_whole(acis, tmp_path): # noqa: F811
    folder = tmp_path / "f"
    folder.mkdir()
    for k in range(3): (folder / f"f{k}_evt2.fits").write_bytes(acis().read_bytes())
    (folder / "else_reg3.fits").write_bytes(b"SIMPLE")
    chunk, notes = read_chunk(search_inputs(folder).jobs)
    assert len(chunk) == 3 and all(ev == read_event_list(folder / "f0_evt2.fits") for ev in chunk[:1])
    assert [kind for _, kind, _ in notes] == ["remark"] * 3 and all("the whole field is one detection" in why for *_, why in notes)


def test_everything_that_was_passed_over_is_named(acis, tmp_path): # noqa: F811
    folder, data = tmp_path / "f", acis().read_bytes()
    folder.mkdir()
    for n in ("a_evt2.fits", "P01_EMOS1_ImagingEvts.ds", "source.fits", "x.fits.gz", "y.ds", "img.FIT"): (folder / n).write_bytes(data)
    for n in ("notes.txt", "a.png"): (folder / n).write_text("no events")
    (folder / "list.csv").write_text("event_file\na_evt2.fits\n")
    (folder / "p.parquet").write_bytes(b"PAR1")
    (folder / "away_evt2.fits").symlink_to("nowhere")
    done = ingest(folder, tmp_path / "a.parquet", progress=False)
    said = dict(zip(done.skipped.file.map(os.path.basename), done.skipped.reason))
    assert set(said) == {"P01_EMOS1_ImagingEvts.ds", "source.fits", "x.fits.gz", "y.ds", "img.FIT", "list.csv", "p.parquet", "away_evt2.fits"}
    assert done.ok and done.n_files == 1 and "0 files failed, 1 remarks, 8 skipped" in repr(done)
    both = ingest([folder, folder / "source.fits"], tmp_path / "b.parquet", progress=False)
    assert "source.fits" not in set(both.skipped.file.map(os.path.basename)) and both.n_files == 2
    with pytest.raises(StoreError, match="no event file there .* it has 1 other files, as .*only.ds"):
        (tmp_path / "g").mkdir()
        (tmp_path / "g" / "only.ds").write_bytes(data)
        ingest(tmp_path / "g", tmp_path / "c.parquet")


def test_remarks_are_sentences_and_no_failures(acis, tmp_path, monkeypatch): # noqa: F811
    p = acis("one_evt2.fits")
    def talkative(path, region=None, **options):
        warnings.warn(f"{path}: extension EVENTS: a card is odd", XRTWarning)
        warnings.warn("overflow encountered", RuntimeWarning)
        return read_event_list(path, region, **options)
    monkeypatch.setattr(room, "read_event_list", talkative)
    done = ingest(p, tmp_path / "a.parquet", region=WHOLE, progress=False)
    assert done.ok and done.remarks.reason.tolist() == ["extension EVENTS: a card is odd", "a library warned: overflow encountered"]
    assert "unexpected" not in repr(done) and set(done.remarks.file) == {str(p)}


def test_remarks_do_not_count_as_failed_files(acis, tmp_path): # noqa: F811
    (tmp_path / "x_evt2.fits").write_bytes(b"")
    (tmp_path / "far.reg").write_text("physical\ncircle(1e5,1e5,1)\n# text(1,2)\n")
    p = acis("y_evt2.fits")
    with pytest.raises(XRTError, match="none of the 2 files could be used; the first: .*x_evt2.fits: the file is empty"): ingest([tmp_path / "x_evt2.fits", p], tmp_path / "a.parquet", region=tmp_path / "far.reg", progress=False)
    assert not [f for f in os.listdir(tmp_path) if f.startswith((".a", "a.parquet"))]


@pytest.mark.parametrize("text, says", [("event_file,region_file\na,b,c\n", "row 1 has 3 fields, the header 2"), ("event_file;region_file\na;b\n", "separated by commas"), ("\n", "it has nothing"), ('event_file\n"a\n', None)])
def test_a_table_of_files_is_read_with_care(tmp_path, text, says):
    (tmp_path / "l.csv").write_text(text)
    if says is None: return
    with pytest.raises((ValueError, EventFileError), match=says): find_inputs(tmp_path / "l.csv")


def test_a_table_of_files_with_a_mark_comments_and_blanks(acis, tmp_path): # noqa: F811
    p = acis("one_evt2.fits")
    (tmp_path / "l.csv").write_bytes(f"\ufeff# my files\r\nevent_file , id\r\n {p.name} , first \r\n\r\n".encode())
    assert find_inputs(tmp_path / "l.csv") == [(str(p), None, "first")]
    (tmp_path / "l.csv").write_bytes(b"event_file\n\xff\xfe\n")
    with pytest.raises(EventFileError, match="not a text in UTF-8"): find_inputs(tmp_path / "l.csv")


def test_pipes_sockets_and_devices_in_a_folder(acis, tmp_path): # noqa: F811
    folder = tmp_path / "f"
    folder.mkdir()
    shutil.copy(acis(), folder / "a_evt2.fits")
    os.mkfifo(folder / "b_evt2.fits")
    os.mkfifo(folder / "a_evt2.reg")
    (folder / "c_evt2.fits").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(folder / "d_evt2.fits"))
        done = ingest(folder, tmp_path / "a.parquet", progress=False)
        assert done.n_sources == 1 and set(done.skipped.file.map(os.path.basename)) == {"a_evt2.reg", "b_evt2.fits", "c_evt2.fits", "d_evt2.fits"}
        with pytest.raises(XRTError, match="a_evt2.reg: not a file but a pipe"): ingest(folder / "a_evt2.fits", tmp_path / "b.parquet", progress=False)
        (folder / "a_evt2.reg").unlink()
        for n in "bcd":
            with pytest.raises(XRTError, match="none of the 1 files could be used.*(not a|not an)"): ingest(folder / f"{n}_evt2.fits", tmp_path / "b.parquet", progress=False)
    os.mkfifo(tmp_path / "l.csv")
    with pytest.raises(EventFileError, match="not a file but a pipe"): ingest(tmp_path / "l.csv", tmp_path / "c.parquet")
    os.mkfifo(tmp_path / "t.parquet")
    done = ingest([folder / "a_evt2.fits", tmp_path / "t.parquet"], tmp_path / "d.parquet", progress=False)
    assert done.n_sources == 1 and len(done.problems) == 1


def test_names_that_are_no_text(acis, tmp_path): # noqa: F811
    folder = os.fsencode(tmp_path / "f")
    os.mkdir(folder)
    shutil.copy(acis(), os.path.join(folder, b"\xff_evt2.fits"))
    shutil.copy(acis(), os.path.join(folder, b"fine_evt2.fits"))
    done = ingest(os.fsdecode(folder), tmp_path / "a.parquet", progress=False)
    assert done.n_sources == 1 and done.problems.reason.tolist() == ["its name is no text in UTF-8; rename it"] and "_evt2" in repr(done)


# --- missions, modules, responses ---------------------------------------------------------------------------------


def test_a_mission_helps_where_the_header_is_silent(tmp_path):
    cases = make_all(tmp_path / "m")
    with fits.open(cases["nustar"].path) as f:
        for h in f:
            h.header["TELESCOP"] = "UNKNOWN"
        f.writeto(tmp_path / "lost_evt.fits", checksum=True)
    with pytest.raises(XRTError, match="no row of MISSIONS fits"): ingest(tmp_path / "lost_evt.fits", tmp_path / "a.parquet", progress=False)
    for name in ("NuSTAR", " nustar ", MISSIONS["NuSTAR"]):
        done = ingest([tmp_path / "lost_evt.fits", cases["swift_pc"].path], tmp_path / "a.parquet", mission=name, energy_range=None, progress=False, overwrite=True)
        table = read_events(tmp_path / "a.parquet")
        want = [read_event_list(cases[k].path, energy_range=None) for k in ("nustar", "swift_pc")]
        assert done.n_sources == 2 and sorted(table.meta.mission) == ["NuSTAR", "Swift XRT PC"]
        assert sorted(np.concatenate([ev.energy for ev in want])) == sorted(table.energy)
        assert any("Swift XRT PC, so it was read as that and not as NuSTAR" in r for r in done.remarks.reason)
    with pytest.raises(ValueError, match="no mission is called 'NuStarr'; choose one of Chandra ACIS, .*IXPE"): ingest(tmp_path / "lost_evt.fits", tmp_path / "b.parquet", mission="NuStarr")


@pytest.mark.parametrize("where", ["events", "primary"])
def test_two_modules_of_one_observation_are_two_detections(tmp_path, where):
    case = make_all(tmp_path / "m")["nustar"]
    for module in ("FPMA", "FPMB"):
        with fits.open(case.path) as f:
            if where == "primary": del f["EVENTS"].header["INSTRUME"]
            f[0 if where == "primary" else "EVENTS"].header["INSTRUME"] = module
            f.writeto(tmp_path / f"nu{module[-1]}01_cl.evt", checksum=True)
    done = ingest([tmp_path / "nuA01_cl.evt", tmp_path / "nuB01_cl.evt"], tmp_path / "a.parquet", energy_range=None, progress=False)
    assert done.ok and sorted(i[-4:] for i in read_events(tmp_path / "a.parquet").ids) == ["FPMA", "FPMB"]


def _response(path, telescope, instrument, first, n, low, step, unit=1.0):
    "A response matrix's EBOUNDS with n channels of `step` eV from `low` eV on."
    c = np.arange(n)
    h = fits.BinTableHDU.from_columns([fits.Column("CHANNEL", "J", array=first + c), fits.Column("E_MIN", "E", "keV", array=(low + step * c) / 1e3), fits.Column("E_MAX", "E", "keV", array=(low + step * (c + 1)) / 1e3)], name="EBOUNDS")
    h.header.update({"TELESCOP": telescope, "INSTRUME": instrument, "CHANTYPE": "PI", "DETCHANS": n})
    h.writeto(path)
    return path


def test_a_response_of_another_instrument_is_refused_by_name_in_a_mixed_folder(tmp_path):
    cases = make_all(tmp_path / "m")
    files = [cases[k].path for k in ("nustar", "swift_pc")]
    rmf = _response(tmp_path / "swift.rmf", "SWIFT", "XRT", 0, 1024, 0.0, 10.0)
    done = ingest(files, tmp_path / "a.parquet", rmf=rmf, energy_range=None, progress=False)
    assert done.n_sources == 1 and os.path.basename(done.problems.file[0]) == "nustar.fits" and "swift.rmf is not the response of this list" in done.problems.reason[0]
    forced = ingest(files, tmp_path / "b.parquet", rmf=rmf, energy_range=None, force_rmf=True, progress=False)
    assert forced.n_sources == 2
    os.replace(_response(tmp_path / "other.rmf", "SWIFT", "XRT", 0, 1024, 5.0, 10.0), rmf) # same name, other content: other settings
    plain = dict(region=None, times_only=False, bad="raise", mission=None)
    before = room._settings(**plain, options={"rmf": str(rmf)})
    os.replace(_response(tmp_path / "third.rmf", "SWIFT", "XRT", 0, 1024, 6.0, 10.0), rmf)
    assert room._settings(**plain, options={"rmf": str(rmf)}) != before


def test_times_of_an_instrument_without_an_energy_rule(tmp_path):
    cases = make_all(tmp_path / "m")
    files = [cases[k].path for k in ("ep_wxt", "hrc", "nustar")]
    done = ingest(files, tmp_path / "t.parquet", times_only=True, energy_range=(3000, 79000), progress=False)
    table = read_events(tmp_path / "t.parquet")
    assert done.ok and len(table) == 3 and not table.has_energy
    assert any("all its times were kept" in r for r in done.remarks.reason)
    band = read_event_list(cases["nustar"].path, energy_range=(3000, 79000))
    assert np.array_equal(table[band.id].time, band.time) # the band is cut where there are energies


# --- a folder of parts with one owner -----------------------------------------------------------------------------


def test_a_part_whose_input_changed_with_size_and_date_kept_is_read_again(many, tmp_path, monkeypatch):
    out, one = tmp_path / "a.parquet", many / "acisf00003_000N001_r0001_regevt3.fits"
    def dying(task, work=room._work):
        if task.name == "part-000005": raise KeyboardInterrupt
        return work(task)
    monkeypatch.setattr(room, "_work", dying)
    with pytest.raises(KeyboardInterrupt): ingest(many, out, region=WHOLE, chunk=3, progress=False)
    monkeypatch.undo()
    made = {p.name for p in (tmp_path / "a.parquet.parts").glob("*.done")}
    assert len(made) == 5
    there, data = one.stat(), bytearray(one.read_bytes())
    with fits.open(one) as f: at = f[1].fileinfo()["datLoc"]
    data[at + 7] ^= 1 # the last bit of the first time
    one.write_bytes(data)
    os.utime(one, ns=(there.st_atime_ns, there.st_mtime_ns))
    assert one.stat().st_size == there.st_size and one.stat().st_mtime_ns == there.st_mtime_ns
    read = []
    monkeypatch.setattr(room, "read_event_list", lambda path, *a, **k: read.append(os.path.basename(path)) or read_event_list(path, *a, **k))
    ingest(many, out, region=WHOLE, chunk=3, progress=False)
    assert len(read) == 24 - 15 + 3 and one.name in read # the missing parts, and the one that changed
    ingest(many, tmp_path / "b.parquet", region=WHOLE, chunk=3, progress=False)
    assert out.read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_a_file_that_grows_while_it_is_read(many, tmp_path, monkeypatch):
    path, times = many / "acisf00001_000N001_r0001_regevt3.fits", []
    def growing(p, *a, **k):
        ev = read_event_list(p, *a, **k)
        if p == str(path) and len(times) < limit:
            times.append(1)
            os.utime(path, ns=(1, len(times)))
        return ev
    monkeypatch.setattr(room, "read_event_list", growing)
    limit = 1
    assert ingest(many, tmp_path / "a.parquet", region=WHOLE, progress=False).n_sources == 23
    limit = 1000
    with pytest.raises(XRTError, match="changes while it is read; wait until it is complete, then restart"): ingest(many, tmp_path / "b.parquet", region=WHOLE, progress=False)
    limit = 0
    assert ingest(many, tmp_path / "b.parquet", region=WHOLE, progress=False).n_sources == 23


def test_a_damaged_part_is_made_again(many, tmp_path, monkeypatch):
    def dying(*a): raise KeyboardInterrupt
    monkeypatch.setattr(room, "_merge", dying)
    with pytest.raises(KeyboardInterrupt): ingest(many, tmp_path / "a.parquet", region=WHOLE, chunk=4, progress=False)
    monkeypatch.undo()
    parts = tmp_path / "a.parquet.parts"
    for name, change in (("part-000000.parquet", lambda d: d[:40] + bytes([d[40] ^ 4]) + d[41:]), ("part-000002.done", lambda d: d[:-9]), ("part-000003.parquet", None)):
        if change: (parts / name).write_bytes(change((parts / name).read_bytes()))
        else: (parts / name).unlink()
    ingest(many, tmp_path / "a.parquet", region=WHOLE, chunk=4, progress=False)
    ingest(many, tmp_path / "b.parquet", region=WHOLE, chunk=4, progress=False)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_links_in_the_way_are_left_alone(many, tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    for name in ("a.parquet.parts", ".a.parquet.partial", "a.parquet"):
        (tmp_path / name).symlink_to(precious)
        for restart in (False, True):
            try: ingest(many, tmp_path / "a.parquet", region=WHOLE, progress=False, restart=restart, overwrite=True)
            except StoreError as err: assert "restart" in str(err) or "link" in str(err), err
            else:
                assert name == ".a.parquet.partial"
                (tmp_path / "a.parquet").unlink()
        assert [p.name for p in precious.iterdir()] == ["thesis.txt"]
        (tmp_path / name).unlink()
    (tmp_path / "a.parquet.parts").mkdir()
    (tmp_path / "a.parquet.parts" / "mine.txt").write_text("a stranger's")
    with pytest.raises(StoreExists, match="in the way.*restart"): ingest(many, tmp_path / "a.parquet", region=WHOLE, progress=False, restart=True)
    assert (tmp_path / "a.parquet.parts" / "mine.txt").exists()


def test_parts_that_an_older_version_left(many, tmp_path):
    parts = tmp_path / "a.parquet.parts"
    parts.mkdir()
    for name in ("job.json", "part-000000.parquet", "note-000000.json"): (parts / name).write_text('{"fingerprint": "another"}')
    with pytest.raises(StoreExists, match="parts of another ingest.*pass restart=True"): ingest(many, tmp_path / "a.parquet", region=WHOLE, progress=False)
    assert ingest(many, tmp_path / "a.parquet", region=WHOLE, progress=False, restart=True).n_sources == 23 and not parts.exists()
    parts.mkdir()
    for name in ("job.json", "thesis.txt"): (parts / name).write_text("{}")
    parts.rename(tmp_path / "b.parquet.parts")
    with pytest.raises(StoreExists, match="in the way"): ingest(many, tmp_path / "b.parquet", region=WHOLE, progress=False, restart=True)
    assert (tmp_path / "b.parquet.parts" / "thesis.txt").exists()


def _slow_ingest(files, out, seconds=0.02, chunk=2, **more):
    "An ingest in a process of its own, with slow reading."
    code = ("import sys, time, xrt_nb.ingest as i\nfrom xrt_nb.regions import Region\nread = i.read_event_list\n"
            f"def slow(*a, **k): time.sleep({seconds}); return read(*a, **k)\ni.read_event_list = slow\n"
            f"try: i.ingest({[str(f) for f in files]!r}, {str(out)!r}, region=Region({WHOLE.terms!r}), chunk={chunk}, progress=False, **{more!r})\n"
            "except i.XRTError as err: sys.exit(str(err))")
    return subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True, stderr=subprocess.PIPE, text=True)


def test_two_ingests_on_one_output_never_mix(many, tmp_path):
    files, out = sorted(many.glob("*")), tmp_path / "both.parquet"
    halves = [files[:12], files[12:]]
    for k, half in enumerate(halves): ingest(half, tmp_path / f"{k}.parquet", region=WHOLE, chunk=2, progress=False)
    two = [_slow_ingest(half, out, 0.3) for half in halves]
    said = [p.communicate(timeout=240)[1] for p in two]
    codes = [p.returncode for p in two]
    assert sorted(codes) == [0, 1], said
    assert re.search("another program is at work|exists", said[codes.index(1)]) and "Traceback" not in said[codes.index(1)]
    assert out.read_bytes() == (tmp_path / f"{codes.index(0)}.parquet").read_bytes()
    assert not list(tmp_path.glob("both.parquet.*"))


def _forked_ingest(many, out, n_jobs):
    "An ingest in a forked child with a process group of its own: nothing has to be imported again."
    pid = os.fork()
    if pid: return pid
    code = 1
    try:
        os.setsid()
        code = 0 if ingest(many, out, region=WHOLE, chunk=2, progress=False, n_jobs=n_jobs).n_sources == 23 else 2
    finally: os._exit(code)


def _kill_often(many, tmp_path, n, seed):
    "Kill ingests at random moments, go on with them, and compare; with one process or two, also while parts are joined."
    rng, whole = random.Random(seed), tmp_path / "whole.parquet"
    begin = time.monotonic()
    ingest(many, whole, region=WHOLE, chunk=2, progress=False)
    longest, kills, archives = time.monotonic() - begin, 0, 0
    while kills < n:
        out = tmp_path / f"k{kills}.parquet"
        for _ in range(rng.randint(1, 5)): # so many deaths on the way to one archive
            if out.exists(): break
            pid = _forked_ingest(many, out, rng.choice((1, 2)))
            time.sleep(rng.uniform(0, 1.1 * longest))
            try: os.killpg(pid, signal.SIGKILL)
            except ProcessLookupError: pass # over, or not yet a group of its own
            try: os.kill(pid, signal.SIGKILL)
            except ProcessLookupError: pass
            kills += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        if not out.exists(): assert ingest(many, out, region=WHOLE, chunk=2, progress=False).n_sources == 23
        archives += 1
        assert out.read_bytes() == whole.read_bytes()
        def left(): return [f.name for f in tmp_path.iterdir() if f.name.startswith((out.name + ".", "." + out.name))]
        if left(): # killed between the archive's name and the end of its parts: the next call is not blocked
            ingest(many, out, region=WHOLE, chunk=2, progress=False, overwrite=True)
            assert left() == [] and out.read_bytes() == whole.read_bytes()
        out.unlink()
    assert archives >= n / 8


def test_killed_at_random_moments(many, tmp_path): _kill_often(many, tmp_path, 3, 1)


@pytest.mark.slow
def test_a_hundred_kills(many, tmp_path): _kill_often(many, tmp_path, 100, 2)


def test_what_was_written_is_read_back_before_parts_are_deleted(many, tmp_path, monkeypatch):
    "A disk that changes a byte on the way: no archive appears, and the parts stay."
    from xrt_nb import tables
    real = tables._read_back
    def faulty(archive, *more):
        path = Path(archive.path)
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 3] ^= 1
        path.write_bytes(raw)
        return real(archive, *more)
    monkeypatch.setattr(tables, "_read_back", faulty)
    def damaged():
        with pytest.raises(XRTError, match="parquet"): ingest(many, tmp_path / "a.parquet", region=WHOLE, chunk=4, progress=False)
        assert not (tmp_path / "a.parquet").exists()
    damaged() # the parts, each read back on its own
    monkeypatch.undo()
    def dying(*a): raise KeyboardInterrupt
    monkeypatch.setattr(room, "_merge", dying)
    with pytest.raises(KeyboardInterrupt): ingest(many, tmp_path / "a.parquet", region=WHOLE, chunk=4, progress=False)
    monkeypatch.undo()
    monkeypatch.setattr(tables, "_read_back", faulty)
    damaged() # the archive made of them
    assert len(list((tmp_path / "a.parquet.parts").glob("part-*.done"))) == 6
    monkeypatch.undo()
    assert ingest(many, tmp_path / "a.parquet", region=WHOLE, chunk=4, progress=False).n_sources == 23


def test_a_full_disk_names_path_and_cure(many, tmp_path):
    "The size of files is limited, as by a full disk, at ever larger sizes; nothing half-written is left, and it can be gone on with."
    out = tmp_path / "full.parquet"
    for limit in (200, 6_000):
        code = ("import resource, signal, sys, xrt_nb.ingest as i\nfrom xrt_nb.regions import Region\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
                f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
                f"try: i.ingest({str(many)!r}, {str(out)!r}, region=Region({WHOLE.terms!r}), chunk=4, progress=False)\nexcept i.XRTError as err: sys.exit(str(err))")
        p = subprocess.run([sys.executable, "-B", "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=600)
        assert p.returncode == 1 and "Traceback" not in p.stderr and "full.parquet" in p.stderr and not out.exists(), p.stderr
        assert re.search("full|larger|limit|room|space", p.stderr), p.stderr
    assert ingest(many, out, region=WHOLE, chunk=4, progress=False).n_sources == 23


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EDQUOT, errno.EROFS])
def test_errors_of_the_disk_while_the_archive_is_written(many, tmp_path, monkeypatch, number):
    class Failing(room.ParquetEvents):
        def write(self, table): raise OSError(number, os.strerror(number))
    monkeypatch.setattr(room, "ParquetEvents", Failing)
    with pytest.raises(StoreError, match="a.parquet"): ingest(many, tmp_path / "a.parquet", region=WHOLE, progress=False)
    monkeypatch.undo()
    assert ingest(many, tmp_path / "a.parquet", region=WHOLE, progress=False).n_sources == 23


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(many, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(StoreError, match="locked"): ingest(many, tmp_path / "locked" / "a.parquet", region=WHOLE, progress=False)


# --- tables of photons beside event files -------------------------------------------------------------------------


def test_tables_and_event_files_make_one_archive(acis, tmp_path): # noqa: F811
    p = acis("mine_evt2.fits")
    others = EventTable.from_lists([read_event_list(p, Region([[(True, "circle", (50, 50, 10 + k))]]), id=f"old_{k}") for k in range(40)])
    others.write(tmp_path / "old.parquet")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XRTWarning)
        others.write(tmp_path / "old.csv")
    for name, chunk in (("old.parquet", 50), ("old.csv", 1)):
        done = ingest([tmp_path / name, p], tmp_path / "a.parquet", chunk=chunk, progress=False, overwrite=True)
        table = read_events(tmp_path / "a.parquet")
        assert done.ok and (done.n_files, len(table)) == (2, 41) and table.gti is not None
        for i in ("old_0", "old_39"): assert np.array_equal(table[i].time, others[i].time) and np.allclose(table[i].energy, others[i].energy, rtol=1e-9)
        if name == "old.parquet": assert np.array_equal(table["old_7"].gti, others["old_7"].gti) and table.meta.loc["old_7", "obsid"] == others.meta.loc["old_7", "obsid"]
        else: assert any("no good times" in r for r in done.remarks.reason) and room._with_gti(others).gti.shape == (40, 2)
    times = ingest([tmp_path / "old.parquet", p], tmp_path / "t.parquet", times_only=True, progress=False)
    assert times.n_sources == 41 and not read_events(tmp_path / "t.parquet").has_energy
    (tmp_path / "bad.csv").write_text("obsreg_id,time,energy\n1_1,1,700\n1_1,x,700\n")
    done = ingest([tmp_path / "bad.csv", p], tmp_path / "b.parquet", progress=False)
    assert done.n_sources == 1 and "bad.csv" in done.problems.file[0]


def test_photons_of_a_filled_good_time_lie_in_it():
    t = EventTable.from_dict({"a": (np.array([1.0, 5.0, 5.0]), np.full(3, 900.0)), "b": (np.array([1e9]), np.array([900.0]))})
    filled = room._with_gti(t)
    assert all(((ev.time >= ev.gti[0, 0]) & (ev.time < ev.gti[0, 1])).all() and len(ev.gti) == 1 for ev in filled)
