"""Sources, detections, photons: the walk, its flat twin, and the join of properties, against pandas and against each other."""

import warnings

import numpy as np
import pandas as pd
import pytest
from astropy.table import Table
from xrt_nb._standins import FileService, make_products
from hypothesis import given, settings
from hypothesis import strategies as st

from xrt_nb._standins import simulate_catalog
from xrt_nb.catalogs import Catalog, CatalogError, LocalService
from xrt_nb.data import EventList, EventTable, UnknownSourceError, XRTWarning
from xrt_nb.hierarchy import PROPERTIES, Detection, Source, add_properties, find_sources, property_table


@pytest.fixture(scope="module")
def tables():
    return simulate_catalog(250, random_state=21)


@pytest.fixture(scope="module")
def csc(tables):
    return Catalog("2.1", LocalService(tables), cache=False)


@pytest.fixture(scope="module")
def frames(tables):
    return {k.split(".")[1]: t.to_pandas() for k, t in tables.items()}


def ids_of(frame):
    return frame.obsid.astype(str) + "_" + frame.region_id.astype(str)


def expected(frames, id):
    "The row that stands for an id: by a plain loop over everything the tables say."
    o = frames["observation_source"]
    best = None
    for row in o[ids_of(o) == id].itertuples():
        b = frames["stack_observation_assoc"]
        stacks = b[(b.obsid == row.obsid) & (b.obi == row.obi) & (b.region_id == row.region_id)]
        a = frames["master_stack_assoc"].merge(stacks[["detect_stack_id", "region_id"]])
        for link in a.itertuples():
            m = frames["master_source"].set_index("name").loc[link.name]
            rank = (link.match_type != "u", row.obi, -m.significance)
            if best is None or rank < best[0]:
                best = rank, row, link.name, m
    return best[1:]


def test_one_row_per_id_is_the_best_of_its_rows(csc, frames):
    ids = list(np.random.default_rng(2).permutation(ids_of(frames["observation_source"]).unique())[:60]) + ["23022_122"]
    got = property_table(csc, ids)
    assert list(got.index) == ids and got.index.name == "obsreg_id"
    for id in ids:
        row, name, m = expected(frames, id)
        g = got.loc[id]
        assert (g["name"], g["ra"], g["significance"], g["obi"], g["livetime"], g["instrument"]) == (name, m.ra, m.significance, row.obi, row.livetime, row.instrument)
        assert (pd.isna(g.hard_hs) and np.isnan(row.hard_hs)) or g.hard_hs == row.hard_hs
    assert {c.split(".")[-1] for c in PROPERTIES} <= set(got.columns)


def test_ambiguous_and_split_detections():
    "Two sources share a detection in two intervals: the unique association wins, then the first interval."
    link = Table({"name": ["A", "B"], "detect_stack_id": ["s", "s"], "region_id": [1, 1], "match_type": ["a", "u"]})
    local = LocalService({"csc21.master_source": Table({"name": ["A", "B"], "ra": [1.0, 2.0], "dec": [3.0, 4.0], "significance": [99.0, 1.0]}), "csc21.master_stack_assoc": link,
                          "csc21.stack_source": Table({"detect_stack_id": ["s"], "region_id": [1]}),
                          "csc21.stack_observation_assoc": Table({"detect_stack_id": ["s"] * 2, "region_id": [1, 1], "obsid": [5, 5], "obi": [1, 0]}),
                          "csc21.observation_source": Table({"obsid": [5, 5, 6], "obi": [1, 0, 0], "region_id": [1, 1, 1], "hard_hs": [0.9, 0.1, 0.5]})})
    csc = Catalog("2.1", local, cache=False)
    got = property_table(csc, ["5_1", "6_1"], columns=["hard_hs", "master.name", "master.significance"])
    assert got.loc["5_1", ["hard_hs", "name", "obi", "n_rows"]].tolist() == [0.1, "B", 0, 4]
    assert got.loc["6_1", "hard_hs"] == 0.5 and pd.isna(got.loc["6_1", "name"])  # without an association it keeps its own
    h = find_sources(csc, names=["A", "B"], match=None, source_columns=("ra", "dec", "significance"), columns=("hard_hs",))
    assert (h["5_1"].source.name, h["5_1"].key) == ("B", "5.0.1")
    assert [len(s.detections) for s in h] == [2, 2] and h.flat(one_per_id=True).loc["5_1", "source_ra"] == 2.0
    alike = [find_sources(csc, names="A", match=m, source_columns=("ra",), columns=("hard_hs",)).detections for m in ("u", "a")]
    assert [len(d) for d in alike] == [0, 2]


def test_walk_and_flat_hold_the_same(csc, frames):
    h = find_sources(csc, where="significance > 4", match=None)
    flat = h.flat()
    assert set(h.sources.index) == set(frames["master_source"].query("significance > 4").name)
    walked = [(s.name, d.id, int(d.properties.obi), s.ra, float(d.properties.hard_hs)) for s in h for d in s.detections]
    laid = list(flat[["name", "obsreg_id", "obi", "source_ra", "hard_hs"]].itertuples(index=False, name=None))
    assert sorted(map(repr, walked)) == sorted(map(repr, laid)) and len(walked) > 100
    for s in list(h)[:5]:
        assert isinstance(s, Source) and all(isinstance(d, Detection) and d.source.name == s.name for d in s.detections)
        assert s.name in h and h[s.name].dec == s.dec
    assert len(h) == len(h.sources) and "nobody" not in h
    with pytest.raises(UnknownSourceError, match="'nobody'"):
        h["nobody"]


def test_nothing_found(csc):
    h = find_sources(csc, near=(200, 1), radius=1)
    assert (len(h), len(h.detections), list(h)) == (0, 0, [])
    assert {"obsreg_id", "name", "hard_hs"} <= set(h.flat().columns) and "separation" in h.sources


def test_cone_keeps_the_separation(csc):
    h = find_sources(csc, near=(0, 10), radius=300)
    assert len(h) > 2 and h.sources.separation.is_monotonic_increasing


IDS = [f"{k}_1" for k in range(1, 6)]


def events_of(ids, meta=None):
    return EventTable.from_lists([EventList([1.0, 2.0 + k], [600, 700], i) for k, i in enumerate(ids)]) if meta is None else \
        EventTable(ids, np.arange(len(ids) + 1), np.arange(len(ids), dtype=float), meta=meta)


@settings(deadline=None, max_examples=60)
@given(st.permutations(IDS), st.permutations(IDS + ["9_9"]), st.lists(st.floats(-1, 1) | st.just(float("nan")), min_size=6, max_size=6), st.booleans())
def test_properties_follow_their_ids(order, listed, values, overwrite):
    table = pd.DataFrame({"hard_hs": values, "livetime": np.arange(6.0), "name": [f"S{i}" for i in listed]}, index=listed)
    meta = pd.DataFrame({"livetime": [np.nan if k % 2 else 100.0 + k for k in range(5)], "target": "the pointing", "name": None, "kind": "x"}, index=order)
    events = events_of(order, meta)
    out = add_properties(events, table, overwrite=overwrite)
    assert out == events and list(out.meta.index) == list(order) and list(events.meta.columns) == ["livetime", "target", "name", "kind"]
    for k, i in enumerate(order):
        row = out.meta.loc[i]
        assert row["name"] == f"S{i}" and row["target"] == "the pointing" and row["kind"] == "x"
        np.testing.assert_equal(row["hard_hs"], table.hard_hs[i])
        assert row["livetime"] == (table.livetime[i] if overwrite or k % 2 else 100.0 + k)
        assert out[i].meta["name"] == f"S{i}"


def test_missing_and_repeated_properties():
    events = events_of(IDS)
    table = pd.DataFrame({"hard_hs": [0.5], "n": pd.array([3], dtype="Int64")}, index=["2_1"])
    with pytest.warns(XRTWarning, match="no properties for 4 of 5 detections, first '1_1'"):
        out = add_properties(events, table)
    assert out.meta.hard_hs.notna().tolist() == [False, True, False, False, False] and out.meta.n["2_1"] == 3
    with pytest.raises(ValueError, match="'2_1' twice"):
        add_properties(events, pd.concat([table, table]))
    with pytest.warns(XRTWarning):
        assert list(add_properties(events, table, columns=["n"]).meta.columns) == ["n"]


def test_properties_survive_a_file(csc, tmp_path):
    from xrt_nb.data import read_events
    ids = ["23022_122", *csc.query("observation", columns=[], where="instrument == 'HRC' and obi == 0", limit=2).frame().obsreg_id]
    out = add_properties(events_of(ids), property_table(csc, ids))
    back = read_events(out.write(tmp_path / "e.parquet"))
    for c in out.meta:
        assert back.meta[c].isna().tolist() == out.meta[c].isna().tolist(), c
        assert back.meta[c].dropna().tolist() == out.meta[c].dropna().tolist(), c
    assert back.meta.var_index_b.isna().tolist() == [False, True, True]


@pytest.fixture(scope="module")
def served(tmp_path_factory, csc):
    "Files of all detections of twenty sources, but one."
    folder = tmp_path_factory.mktemp("served")
    f = csc.query("observation", columns="master.name", match=None, where="obi == 0").frame()
    names = list(dict.fromkeys(f["name"]))[:20]
    keep = f[f["name"].isin(names)].drop_duplicates("obsreg_id")
    for o, r in keep[["obsid", "region_id"]].iloc[1:].to_numpy():
        make_products(folder, [o], r)
    with FileService(folder) as service:
        yield service, names, keep.obsreg_id.iloc[0]


def test_photons_one_by_one_are_those_of_all_at_once(csc, served, tmp_path):
    service, names, lacking = served
    h = find_sources(csc, names=names, where="observation.obi == 0", folder=tmp_path, base_url=service.url)
    h.detections = h.detections[h.detections.obi == 0]
    with pytest.warns(XRTWarning, match=f"events of 1 of .* first '{lacking}'"):
        table = h.photons()
    flat = h.flat(one_per_id=True)
    assert list(table.ids) == [i for i in flat.index if i != lacking] and len(table) > 20
    asked = len(service.requests)
    for i in list(table.ids[:6]):
        one = h[i].events
        assert one == table[i]
        assert (one.meta["name"], one.meta["obsid"], one.meta["livetime"]) == (table.meta.loc[i, "name"], table.meta.loc[i, "obsid"], table.meta.loc[i, "livetime"])
        assert one.meta["name"] == flat.loc[i, "name"] and one.meta["target"].startswith("simulated")
    assert len(service.requests) == asked  # the files are there
    assert set(h[i].products) == {"regevt3", "reg3"} and h[i].products["reg3"].exists()
    with pytest.raises(CatalogError, match=f"{lacking}: no reg3, regevt3 came|{lacking}: no regevt3, reg3 came"):
        h[lacking].products
    some = h.photons(ids=list(table.ids[5:2:-1]))
    assert list(some.ids) == list(table.ids[5:2:-1])
    with pytest.raises(UnknownSourceError, match="no detection '1_1'"):
        h.photons(ids=["1_1"])


def test_a_folder_is_needed_for_files(csc):
    h = find_sources(csc, ids="23022_122")
    for ask in (lambda: h["23022_122"].events, h.photons):
        with pytest.raises(ValueError, match="no folder for files"):
            ask()


def test_unknown_ids_are_counted(csc):
    with pytest.warns(XRTWarning, match="doesn't know 2 of 3 ids, first '1_1'"):
        got = property_table(csc, ["1_1", "23022_122", "2_2"])
    assert got.hard_hs.isna().tolist() == [True, False, True]
    with pytest.warns(XRTWarning, match="2 of 2"), warnings.catch_warnings():
        assert property_table(csc, ["1_1", "2_2"]).isna().all(axis=None)
