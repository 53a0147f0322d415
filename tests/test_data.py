"""The container: round trips, selections against brute force, and files that are ill in every way."""

import gzip
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from xrt_nb import data
from xrt_nb.data import EventDataError, EventList, EventTable, UnknownSourceError, XRTWarning, concat, livetime_at, merge_gti, read_events

quiet = settings(deadline=None, max_examples=40)


@st.composite
def tables(draw, empty_sources=True):
    "A table of up to six sources with GTIs, an extra column and meta."
    lists = []
    for n in range(draw(st.integers(1, 6))):
        k = draw(st.integers(0 if empty_sources else 1, 12))
        t = np.sort(draw(hnp.arrays(float, k, elements=st.floats(0, 1e9, allow_subnormal=False))))
        e = draw(hnp.arrays(float, k, elements=st.floats(1, 2e4)))
        stops = np.cumsum(draw(hnp.arrays(float, 2 * draw(st.integers(1, 3)), elements=st.floats(0.5, 1e4))))
        lists.append(EventList(t, e, f"{n + 1}_{draw(st.integers(0, 99))}", stops.reshape(-1, 2), {"name": f"source é {n}", "exposure": float(n)}, {"chipx": np.arange(k)}))
    return EventTable.from_lists(lists)


@quiet
@given(table=tables())
def test_parquet_keeps_everything(table, tmp_path_factory):
    path = table.write(tmp_path_factory.mktemp("p") / "t.parquet")
    back = read_events(path)
    assert back == table
    pd.testing.assert_frame_equal(back.meta, table.meta, check_dtype=False)


@quiet
@given(table=tables(empty_sources=False), zipped=st.booleans())
def test_csv_keeps_the_photons_to_the_last_bit(table, zipped, tmp_path_factory):
    path = tmp_path_factory.mktemp("c") / ("t.csv.gz" if zipped else "t.csv")
    with pytest.warns(XRTWarning, match="can't hold GTIs"):
        table.write(path)
    back = read_events(path)
    for name in ("time", "energy", "offsets"):
        assert np.array_equal(getattr(back, name), getattr(table, name))
    assert np.array_equal(back.columns["chipx"], table.columns["chipx"])


def test_the_same_table_gives_the_same_bytes(tmp_path):
    table = EventTable.from_dict({"a": ([1.0, 2], [600, 700])})
    for name in ("t.csv", "t.csv.gz", "t.parquet"):
        assert table.write(tmp_path / name).read_bytes() == table.write(tmp_path / f"again_{name}").read_bytes()


@quiet
@given(table=tables(), seed=st.integers(0, 99))
def test_rows_may_come_in_any_order_of_sources(table, seed):
    frame = table.to_frame()
    mixed = frame.iloc[np.random.default_rng(seed).permutation(len(frame))].sort_values("time", kind="stable") if len(frame) else frame
    if not len(frame):
        return
    back = EventTable.from_frame(mixed)
    for id in back.ids:
        assert np.array_equal(back[id].time, table[id].time)
        assert sorted(back[id].energy) == sorted(table[id].energy)


@quiet
@given(table=tables(), lo=st.floats(1, 1e4), width=st.floats(1, 1e4), start=st.floats(0, 5e8))
def test_filters_against_masks(table, lo, width, start):
    cut = table.filter(energy=(lo, lo + width), time=(start, start + 5e8))
    for ev in table:
        keep = (ev.energy >= lo) & (ev.energy <= lo + width) & (ev.time >= start) & (ev.time < start + 5e8)
        assert np.array_equal(cut[ev.id].time, ev.time[keep])
        g = np.clip(ev.gti, start, start + 5e8)
        assert np.array_equal(cut[ev.id].gti, g[g[:, 1] > g[:, 0]])
    assert (table.filter(min_counts=3).counts >= 3).all()


@quiet
@given(table=tables())
def test_selections_agree(table):
    mask = table.counts % 2 == 0
    assert table[mask] == table[list(table.ids[mask])] == table[np.flatnonzero(mask)]
    if len(table) > 1:
        assert concat([table[:1], table[1:]]) == table
    for ev in table:
        assert table[[ev.id]][ev.id] == ev
        assert table.livetimes()[table.position(ev.id)] == pytest.approx(ev.livetime)


@quiet
@given(gti=hnp.arrays(float, st.tuples(st.integers(1, 5), st.just(2)), elements=st.integers(0, 40).map(float)), t=hnp.arrays(float, 20, elements=st.integers(-5, 45).map(float)))
def test_livetime_against_counting_seconds(gti, t):
    gti = gti[gti[:, 1] > gti[:, 0]]
    merged = merge_gti(gti)
    good = np.array([((gti[:, 0] <= s) & (s < gti[:, 1])).any() for s in np.arange(-5, 46)])  # whole seconds
    expected = [good[: int(x) + 5].sum() for x in t]
    assert np.array_equal(livetime_at(t, merged), expected)
    assert np.array_equal(data.in_gti(t, merged), good[(t + 5).astype(int)])


def test_light_curve_bins_every_photon_once():
    rng = np.random.default_rng(2)
    for n in (1, 2, 50):
        ev = EventList(np.sort(rng.uniform(0, 1e4, n)), np.full(n, 900.0), "x", [[0, 1e4]])
        for bin_size in (0.3, 77, 1e4, 1e6):
            for origin in ("events", "exposure"):
                assert ev.light_curve(bin_size, origin).counts.sum() == n
    with pytest.raises(EventDataError, match="no photons"):
        EventList([], [], "x", [[0, 9]]).light_curve(1)
    assert EventList([], [], "x", [[0, 9]]).light_curve(3, "exposure").counts.tolist() == [0, 0, 0]


FRAME = pd.DataFrame({"obsreg_id": ["1_1", "1_1", "2_2"], "time": [1.0, 2, 3], "energy": [600.0, 700, 800]})


@pytest.mark.parametrize("change, message", [
    (lambda f: f.drop(columns="time"), "column 'time' missing"),
    (lambda f: f.drop(columns=["obsreg_id", "energy"]), "columns 'obsreg_id', 'energy' missing"),
    (lambda f: f.assign(time=["1", "late", "3"]), "source '1_1', column 'time' is not numeric: row 1 holds 'late'"),
    (lambda f: f.assign(energy=[1.0, np.inf, 3]), "source '1_1', column 'energy': the value in row 1 is infinite"),
    (lambda f: f.assign(time=[1.0, 2, np.nan]), "source '2_2', column 'time': the value in row 2 is missing"),
    (lambda f: f.assign(energy=[600.0, 0, 800]), "source '1_1', column 'energy': the value in row 1 is 0, energies must be positive"),
    (lambda f: f.assign(energy=[600.0, 700, -8]), "source '2_2', column 'energy': the value in row 2 is -8"),
    (lambda f: f.assign(obsreg_id=["1_1", None, "2_2"]), "column 'obsreg_id' is empty in row 1"),
])
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_ill_tables_are_refused_with_file_source_and_column(change, message, suffix, tmp_path):
    path, frame = tmp_path / f"ill{suffix}", change(FRAME)
    if suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False)
    with pytest.raises(EventDataError) as err:
        read_events(path)
    assert message in str(err.value) and str(path) in str(err.value)


def test_dropping_is_counted_and_said():
    with pytest.warns(XRTWarning, match="2 of 3 rows dropped"):
        t = EventTable.from_frame(FRAME.assign(energy=[600, np.nan, -1.0]), bad="drop")
    assert t.meta.n_dropped.tolist() == [1, 1] and t.counts.tolist() == [1, 0]


def test_files_cut_anywhere_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    table = EventTable.from_dict({f"{k}_1": (np.sort(rng.uniform(0, 1e4, 300)), rng.uniform(500, 7000, 300)) for k in range(3)})
    for name in ("t.csv.gz", "t.parquet"):
        whole = table.write(tmp_path / name).read_bytes()
        for at in np.linspace(0, len(whole) - 1, 60).astype(int):
            (tmp_path / f"cut_{name}").write_bytes(whole[:at])
            with pytest.raises(EventDataError, match="cut_t"):
                read_events(tmp_path / f"cut_{name}")


@pytest.mark.parametrize("content", [b"", b"\x00\x01\x02", b"\x80\x04\x95pickle", b"obsreg_id,time,energy\n1_1,2\n1_1,2,3,4,5\n"])
@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz", "x.parquet"])
def test_rubbish_is_refused_by_name(content, name, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(EventDataError, match="x\\."):
        read_events(tmp_path / name)


def test_a_damaged_footer_is_refused(tmp_path):
    import pyarrow.parquet as pq
    table = EventTable.from_dict({"a": ([1.0, 2], [600, 700])})
    rows = pq.read_table(table.write(tmp_path / "t.parquet"))
    pq.write_table(rows.replace_schema_metadata({"xrt_nb_sources": b"bm90IGFycm93"}), tmp_path / "odd.parquet")
    with pytest.raises(EventDataError, match="odd.parquet"):
        read_events(tmp_path / "odd.parquet")


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.parquet"])
def test_a_disk_error_leaves_nothing(name, tmp_path, monkeypatch):
    table = EventTable.from_dict({"a": ([1.0, 2], [600, 700])})

    def full(*_, **__):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr("os.link", full)  # a new file gets its name by one of the two
    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        table.write(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_existing_files_are_kept(tmp_path):
    table = EventTable.from_dict({"a": ([1.0], [600])})
    table.write(tmp_path / "t.csv")
    with pytest.raises(FileExistsError, match="t.csv exists"):
        table.write(tmp_path / "t.csv")
    table.write(tmp_path / "t.csv", overwrite=True)
    with pytest.raises(FileNotFoundError, match="make it first"):
        table.write(tmp_path / "no" / "t.csv")
    with pytest.raises(ValueError, match="extension must be"):
        table.write(tmp_path / "t.xlsx")


def test_one_source_is_read_without_the_rest(tmp_path, monkeypatch):
    import pyarrow.parquet as pq
    rng = np.random.default_rng(1)
    n, k = 4000, 200
    table = EventTable([f"{i}_1" for i in range(n)], np.arange(n + 1) * k, np.sort(rng.uniform(0, 1e4, (n, k)), axis=1).ravel(), rng.uniform(500, 7000, n * k))
    path, asked = table.write(tmp_path / "t.parquet"), []
    real = pq.ParquetFile.read_row_groups
    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", lambda self, groups, *a, **kw: asked.extend(groups) or real(self, groups, *a, **kw))
    some = read_events(path, ids=["3999_1", "7_1"])
    assert some == table[["3999_1", "7_1"]] and len(asked) == 2
    with pytest.raises(UnknownSourceError, match="no source 'x'"):
        read_events(path, ids=["x"])


def test_gzip_of_something_else(tmp_path):
    with gzip.open(tmp_path / "x.csv.gz", "wb") as f:
        f.write(b"a,b\n1,2\n")
    with pytest.raises(EventDataError, match="there are a, b"):
        read_events(tmp_path / "x.csv.gz")


def test_duplicates_across_tables_and_in_time():
    one = EventTable.from_dict({"a": ([1.0, 1.0, 1.0], [600, 700, 800])})
    assert one["a"].energy.tolist() == [600, 700, 800]  # equal times keep their order
    with pytest.raises(EventDataError, match="'a' stands in x.csv and in y.csv"):
        concat([one, one], ["x.csv", "y.csv"])


def test_many_unsorted_sources_are_sorted_and_said():
    rng = np.random.default_rng(3)
    t, e = rng.uniform(0, 9, 30), rng.uniform(500, 900, 30)
    with pytest.warns(XRTWarning, match="3 sources were not sorted"):
        table = EventTable(["a", "b", "c"], [0, 10, 20, 30], t, e)
    for k in range(3):
        order = np.argsort(t[10 * k:10 * k + 10], kind="stable")
        assert np.array_equal(table.energy[10 * k:10 * k + 10], e[10 * k:10 * k + 10][order])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        EventTable(["a", "b"], [0, 2, 4], [5.0, 6, 1, 2], [600] * 4)  # a new source may begin earlier


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_meta_has_one_type_each_whatever_brought_it(suffix, tmp_path):
    header = {"obsid": "00735", "region_id": 4.0, "ra": "10.5", "target": b"M31", "livetime": None, "note": 3}
    from_header = EventTable.from_lists([EventList([1.0], [700], "735_4", meta=header)])
    made = pd.DataFrame({"obsid": [900001], "region_id": [1], "ra": [1], "note": ["x"], "deep": [True]}, index=["900001_1"])
    simulated = EventTable(["900001_1"], [0, 1], [2.0], [800], meta=made)
    read = read_events(simulated.write(tmp_path / f"t{suffix}"))
    both = concat([from_header, read])
    assert both.meta.obsid.tolist() == ["00735", "900001"] and both.meta.region_id.tolist() == ["4", "1"]
    assert (both["735_4"].meta["obsid"], both["735_4"].meta["target"]) == ("00735", "M31")
    back = read_events(both.write(tmp_path / "both.parquet"))
    pd.testing.assert_frame_equal(back.meta, both.meta)
    for frame in (both.meta, back.meta):
        for c in frame.columns.intersection(data.WORDS):
            assert frame[c].dtype == object and all(v is None or type(v) is str for v in frame[c])
        for c in frame.columns.intersection(data.MEASURES):
            assert frame[c].dtype == np.float64
    if suffix == ".parquet":
        assert back.meta.note.tolist() == ["3", "x"] and back.meta.deep.tolist() == [None, True]


def test_a_measure_that_is_no_number_is_named():
    with pytest.raises(EventDataError, match="source '1_1': meta column 'exposure' must be a number, got 'UNKNOWN'"):
        EventList([1.0], [700], "1_1", meta={"exposure": "UNKNOWN"})
    with pytest.raises(EventDataError, match="meta column 'ra'"):
        EventTable(["a"], [0, 1], [1.0], meta=pd.DataFrame({"ra": ["0h42m"]}, index=["a"]))
    with pytest.raises(EventDataError, match="stands twice"):
        EventTable(["a"], [0, 1], [1.0], meta=pd.DataFrame([["x", "y"]], columns=["name", "name"], index=["a"]))


def test_a_missing_edge_of_the_window_is_no_edge():
    table = EventTable(["a", "b"], [0, 1, 2], [1.0, 2], meta=pd.DataFrame({"t_start": [0, None], "t_stop": [9, None]}, index=["a", "b"]))
    assert table["a"].window == (0.0, 9.0)
    with pytest.raises(EventDataError, match="exposure is unknown"):
        table["b"].window
