"""Catalogue queries against a real TAP server on this machine (tests/tap/server.py), through the real PyVO client.

The tables: the real sources of the CSC sample where XRT_NB_SHARED has them, simulated sources at RA 0 and at both poles, simulated detections.
pandas, on the same tables, says what every answer must be.
"""

import fcntl
import os
import shutil
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent / "tap"))

import server  # noqa: E402
from xrt_nb._standins import simulate_catalog, simulated_sources  # noqa: E402
from xrt_nb.catalogs import Catalog, CatalogError, LocalService, Tap, TapService, separation  # noqa: E402
from xrt_nb.data import XRTWarning  # noqa: E402
from xrt_nb.hierarchy import find_sources, property_table  # noqa: E402

DEFAULT, MOST = 5000, 40_000  # the server's row limits


def alive(pid):
    "Does a process exist?"
    return Path(f"/proc/{pid}").exists()


@contextmanager
def shared_by_workers(room, start, stop):
    "Start something once for all test workers; whoever started it waits for the others and stops it."
    note, mine, started = room / "tap.url", room / f"tap.user.{os.getpid()}", None
    mine.touch()
    try:
        with open(room / "tap.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not note.exists():
                started = start()
                note.write_text(started[1])
        yield note.read_text()
    finally:
        mine.unlink()
        if started:
            end = time.monotonic() + 300
            while time.monotonic() < end and any(alive(p.suffix[1:]) for p in room.glob("tap.user.*")):
                time.sleep(0.2)
            note.unlink()
            stop(started[0])


@pytest.fixture(scope="session")
def tables():
    "Five tables: real and simulated sources, simulated detections."
    rng = np.random.default_rng(11)
    real = Path(os.environ["XRT_NB_SHARED"]) / "data" / "csc" / "umlcaxs_classified.csv.gz"
    sources = simulated_sources(600 if real.exists() else 5000, rng)
    if real.exists():
        known = pd.read_csv(real).rename(columns={"var_prob_b": "var_intra_prob_b"})
        sources = pd.concat([sources, known[["name", "ra", "dec", "hard_hm", "hard_hs", "hard_ms", "var_intra_prob_b"]]], ignore_index=True).drop_duplicates("name")
        for c in ("hard_hm", "hard_hs", "hard_ms", "var_intra_prob_b"):
            sources[c] = sources[c].astype(float)
    return simulate_catalog(sources, random_state=11)


@pytest.fixture(scope="session")
def url(tables, tmp_path_factory):
    "The address of the server; one that runs already may be named in XRT_NB_TAP_URL (it must hold these tables)."
    if running := os.environ.get("XRT_NB_TAP_URL"):
        yield running
        return
    if why := server.missing():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(why)
    folder = Path(tempfile.mkdtemp(prefix="xrt_nb_tap_"))
    folder.chmod(0o755)  # root's server runs as another user

    def start():
        made = server.TapServer(folder / "tap", tables, DEFAULT, MOST)
        return made, made.__enter__()

    base = tmp_path_factory.getbasetemp()
    try:
        with shared_by_workers(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base, start, lambda made: made.stop()) as address:
            yield address
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def frames(tables):
    "The tables as pandas frames, by letter."
    return {k: tables[f"csc21.{n}"].to_pandas() for k, n in
            {"m": "master_source", "a": "master_stack_assoc", "s": "stack_source", "b": "stack_observation_assoc", "o": "observation_source"}.items()}


@pytest.fixture(scope="session")
def joined(frames):
    "The five-table join, by pandas: every row a detection of a master source."
    m, s, o = (frames[k].add_prefix(k + ".") for k in "mso")
    t = m.merge(frames["a"], left_on="m.name", right_on="name").merge(s, left_on=["detect_stack_id", "region_id"], right_on=["s.detect_stack_id", "s.region_id"])
    t = t.merge(frames["b"], on=["detect_stack_id", "region_id"]).merge(o, left_on=["obsid", "obi", "region_id"], right_on=["o.obsid", "o.obi", "o.region_id"])
    return t.assign(obsreg_id=t.obsid.astype(str) + "_" + t.region_id.astype(str))


COLUMNS = ["var_prob_b", "var_index_b", "hard_hs", "livetime", "instrument", "master.ra", "master.dec", "master.significance", "master.extent_flag", "a.match_type", "stack.flux_significance_b"]
ORIGIN = {"name": "m.name", "obsid": "o.obsid", "obi": "o.obi", "region_id": "o.region_id", "var_prob_b": "o.var_prob_b", "var_index_b": "o.var_index_b", "hard_hs": "o.hard_hs",
          "livetime": "o.livetime", "instrument": "o.instrument", "ra": "m.ra", "dec": "m.dec", "significance": "m.significance", "extent_flag": "m.extent_flag", "match_type": "match_type",
          "flux_significance_b": "s.flux_significance_b", "detect_stack_id": "s.detect_stack_id"}


def assert_same(got, want):
    "Two frames hold the same rows: same values to the last bit, missing where missing, in any order."
    want = want[list(ORIGIN.values())].set_axis(list(ORIGIN), axis=1)
    keys = ["name", "obsid", "obi", "region_id"]
    a, b = (f.sort_values(keys).reset_index(drop=True) for f in (got, want))
    assert len(a) == len(b)
    for c in ORIGIN:
        gone = b[c].isna().to_numpy()
        np.testing.assert_array_equal(a[c].isna().to_numpy(), gone, err_msg=c)
        np.testing.assert_array_equal(a[c][~gone].to_numpy(dtype=object), b[c][~gone].to_numpy(dtype=object), err_msg=c)


@pytest.mark.parametrize("upload, n", [(True, 1000), (False, 300)])
def test_join_of_many_ids_is_that_of_pandas(url, joined, upload, n):
    wanted = np.random.default_rng(5).choice(joined.obsreg_id.unique(), n, replace=False)
    csc = Catalog("2.1", url, cache=False, upload=upload, chunk=None if upload else 75)
    query = csc.query("observation", columns=COLUMNS, ids=wanted, match=None)
    got = query.frame()
    assert len(query.parts) == (1 if upload else 4)
    assert set(got.obsreg_id) == set(wanted)
    assert_same(got, joined[joined.obsreg_id.isin(wanted)])


CENTRES = [(0.0, 10.0, 400), (359.97, 9.99, 300), (0.02, 10.0, 240), (200.0, 90.0, 500), (31.0, 89.95, 300), (99.0, -90.0, 400), (180.0, -89.96, 250), (77.8222, -67.4322, 5), (10.684, 41.269, 600)]


@pytest.mark.parametrize("ra, dec, radius", CENTRES)
def test_cones_are_those_of_pandas(url, joined, ra, dec, radius):
    got = Catalog("2.1", url, cache=False).query("observation", columns=COLUMNS, near=(ra, dec), radius=radius, match=None).frame()
    far = separation(joined["m.ra"], joined["m.dec"], ra, dec)
    want = joined[far <= radius]
    assert (len(want) or ra == 10.684) and (np.diff(got.separation) >= 0).all()  # M 31 holds real sources only
    assert_same(got, want)


def test_cone_is_that_of_adqls_geometry(url, frames):
    for ra, dec, radius in CENTRES:
        ours = Catalog("2.1", url, cache=False).query(columns=[], near=(ra, dec), radius=radius).frame()
        theirs = Tap(url, cache=False).ask(f"SELECT name FROM csc21.master_source WHERE 1 = CONTAINS(POINT('ICRS', ra, dec), CIRCLE('ICRS', {ra}, {dec}, {radius / 3600!r}))")
        assert sorted(ours.name) == sorted(theirs["name"])


CUTS = {"var_prob_b > 0.9 and hard_hs < -0.5": lambda f: (f.var_prob_b > 0.9) & (f.hard_hs < -0.5),
        "0.2 < hard_hs <= 0.4 or theta < 1": lambda f: ((f.hard_hs > 0.2) & (f.hard_hs <= 0.4)) | (f.theta < 1),
        "instrument == 'HRC' and var_prob_b is None": lambda f: (f.instrument == "HRC") & f.var_prob_b.isna(),
        "var_index_b in (9, 10) and not instrument != 'ACIS'": lambda f: f.var_index_b.isin([9, 10]) & (f.instrument == "ACIS"),
        "var_index_b is not None and obi not in (0,) and hard_ms >= 1e-05": lambda f: f.var_index_b.notna() & (f.obi != 0) & (f.hard_ms >= 1e-5)}


@pytest.mark.parametrize("where", CUTS)
def test_cuts_are_those_of_pandas(url, frames, where):
    f = frames["o"]
    got = Catalog("2.1", url, cache=False).query("observation", columns=[], where=where).frame()
    want = f[CUTS[where](f).astype(bool)]
    assert 0 < len(want) == len(got)
    assert set(map(tuple, got[["obsid", "obi", "region_id"]].to_numpy())) == set(map(tuple, want[["obsid", "obi", "region_id"]].to_numpy()))


def test_flags_names_order_and_limit(url, frames):
    csc, m = Catalog("2.1", url, cache=False), frames["m"]
    f = csc.query(columns="significance", where="extent_flag == True", order="-significance", limit=7).frame()
    assert list(f.name) == list(m[m.extent_flag].sort_values("significance", ascending=False).name[:7])
    names = list(m.name[:300])
    assert list(csc.query(columns=[], names=names).frame().name) == sorted(names)
    assert list(Catalog("2.1", url, cache=False, upload=True).query(columns=[], names=names).frame().name) == sorted(names)


def test_a_local_service_answers_as_the_server_does(url, tables):
    far, near = Catalog("2.1", url, cache=False), Catalog("2.1", LocalService(tables), cache=False)
    for ask in (dict(level="observation", columns=COLUMNS, near=(0, 10), radius=300), dict(where="hard_hs > 0.95", order="hard_hs"), dict(level="stack", near=(5.0, -90.0), radius=400),
                dict(level="observation", ids=["23022_122", "1000_1"]), dict(names="nobody's source"), dict(level="observation", columns="hard_hs", order="-hard_hs", where="hard_hs > 0.99", limit=3)):
        a, b = far.query(**ask).frame(), near.query(**ask).frame()
        pd.testing.assert_frame_equal(a, b, check_dtype=False, check_index_type=False, check_exact=True)
        assert a.attrs["units"] == b.attrs["units"]


def test_columns_come_with_the_services_units_and_words(url, tables):
    for level, name in (("master", "master_source"), ("observation", "observation_source")):
        c = Catalog("2.1", url, cache=False).columns(level)
        t = tables[f"csc21.{name}"]
        assert sorted(c.index) == sorted(t.colnames)
        assert {k: c.description[k] for k in t.colnames} == {k: t[k].description for k in t.colnames}
        assert c.unit["hard_hs"] == "" or pd.isna(c.unit["hard_hs"])
    q = Catalog("2.1", url, cache=False).query("observation", ids="23022_122").table()
    assert str(q["livetime"].unit) == "s" and q["theta"].unit == "arcmin" and "off-axis" in q["theta"].info.description.lower()
    assert (q["hard_hs"][0], q["var_index_b"][0]) == (0.607, 10)


def test_what_is_cut_short_is_never_taken_for_whole(url, tables):
    csc, n = Catalog("2.1", url, cache=False), len(tables["csc21.observation_source"])
    assert DEFAULT < n < MOST
    with pytest.raises(CatalogError, match=f"truncated after {DEFAULT} rows"):
        csc.query("observation", columns=[]).table()
    with pytest.raises(CatalogError, match="truncated after 7 rows.* than 7"):  # PyVO says nothing here
        csc.query("observation", columns=[], maxrec=7).table()
    with pytest.warns(XRTWarning, match="truncated after 7 rows"):
        t = csc.query("observation", columns=[], maxrec=7).table(overflow="warn")
    assert len(t) == 7 and t.meta["complete"] is False
    whole = csc.query("observation", columns=[], maxrec=n + 1).table()
    assert len(whole) == n and whole.meta["complete"] is True
    for limit in (7, DEFAULT + 500):  # the second is above what the server sends by itself
        assert len(csc.query("observation", columns=[], limit=limit).table()) == limit


def test_jobs_answer_as_the_synchronous_service_and_leave_nothing_behind(url):
    ask = dict(level="observation", columns=["hard_hs", "var_index_b", "master.name"], where="var_prob_b > 0.97")
    csc = Catalog("2.1", url, cache=False, mode="async", wait=60)
    pd.testing.assert_frame_equal(csc.query(**ask).frame(), Catalog("2.1", url, cache=False).query(**ask).frame())
    with pytest.raises(CatalogError, match="truncated after 9 rows"):
        csc.query(**ask, maxrec=9).frame()
    with pytest.raises(CatalogError, match="no_such"):
        csc.query(columns="no_such").frame()
    with pytest.raises(CatalogError, match="the job is still"):
        Catalog("2.1", url, cache=False, mode="async", wait=0.0).query(**ask).frame()
    end = time.monotonic() + 30
    while left := TapService(url).service.get_job_list():  # a job that is deleted while it starts needs a moment to go
        assert time.monotonic() < end, left
        time.sleep(0.5)


def test_errors_of_the_service_arrive_in_its_own_words(url):
    csc = Catalog("2.1", url, cache=False)
    with pytest.raises(CatalogError, match="refuses the query.*no_such_column"):
        csc.query(columns="no_such_column").table()
    with pytest.raises(CatalogError, match="refuses the query.*csc2.master_source"):
        Catalog("2.0", url, cache=False).query().table()
    with pytest.raises(CatalogError, match="refuses the query"):
        Tap(url, cache=False).ask("SELECT FROM WHERE")
    with pytest.raises(CatalogError, match="no columns known"):
        Catalog("2.0", url, cache=False).columns()


@pytest.mark.parametrize("name", ["x' OR '1'='1", "'; DROP TABLE csc21.master_source; --", "''", "' UNION SELECT name FROM csc21.master_source --", "/* */ -- '", "100%_", "Ünïcode ★"])
def test_a_name_is_only_a_name(url, frames, name):
    csc = Catalog("2.1", url, cache=False)
    assert len(csc.query(columns=[], names=name).table()) == 0
    assert len(csc.query(columns=[], where=f"name == {name!r}").table()) == 0
    assert len(Catalog("2.1", url, cache=False, upload=True).query(columns=[], names=name).table()) == 0


def test_answers_of_the_server_replay_offline(url, tmp_path):
    ask = dict(level="observation", columns=["hard_hs", "var_index_b"], near=(0, 10), radius=200)
    first = Catalog("2.1", url, cache=tmp_path).query(**ask).frame()
    again = Catalog("2.1", url, cache=tmp_path, offline=True).query(**ask).frame()
    pd.testing.assert_frame_equal(first, again)
    assert first.attrs == again.attrs and len(list(tmp_path.iterdir())) == 2


def test_the_walk_from_sources_to_detections(url, tables, frames, joined):
    csc = Catalog("2.1", url, cache=False)
    h = find_sources(csc, where="significance > 6", near=(0, 10), radius=600, match=None)
    m = frames["m"]
    assert set(h.sources.index) == set(m.name[(m.significance > 6) & (separation(m.ra, m.dec, 0, 10) <= 600)]) != set()
    want = joined[joined["m.name"].isin(h.sources.index)]
    walked = sorted((s.name, d.key) for s in h for d in s.detections)
    assert walked == sorted(zip(want["m.name"], want.obsid.astype(str) + "." + want.obi.astype(str) + "." + want.region_id.astype(str)))
    ids = list(joined.obsreg_id.unique()[:40])
    here, there = (property_table(Catalog("2.1", service, cache=False), ids) for service in (LocalService(tables), url))
    pd.testing.assert_frame_equal(here, there, check_dtype=False)


def test_the_server_is_this_machines_own(url):
    def listening(file):
        rows = [line.split() for line in Path(file).read_text().splitlines()[1:]]
        return {int(r[1].split(":")[1], 16): r[1].split(":")[0] for r in rows if r[3] == "0A"}
    port = int(url.split(":")[2].split("/")[0])
    assert listening("/proc/net/tcp")[port] == "0100007F"  # 127.0.0.1
    assert port not in listening("/proc/net/tcp6")


def test_without_its_parts_the_reason_is_given(monkeypatch):
    monkeypatch.setattr(server, "postgres", lambda: None)
    assert "PostgreSQL with pgSphere" in server.missing() and "apt-get install" in server.missing()
