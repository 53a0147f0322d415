"""The container: round trips, selections against brute force, and files that are ill in every way."""

import gzip
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.utils import _safe_indexing

from xrt_nb import _columns, data, lightcurves
from xrt_nb.data import EventDataError, EventList, EventTable, UnknownSourceError, XRTWarning, concat, livetime_at, merge_gti, read_events
from xrt_nb.fits import read_event_list
from xrt_nb.representations import EtMap, Flatten
from xrt_nb.simulation import simulate_archive
from xrt_nb.tables import read_table

quiet = settings(deadline=None, max_examples=40)


@st.composite
def tables(draw, empty_sources=True):
    "A table of up to six sources with GTIs, an extra column and meta."
    lists = []
    for n in range(draw(st.integers(1, 6))):
        k = draw(st.integers(0 if empty_sources else 1, 12))
        e = draw(hnp.arrays(float, k, elements=st.floats(100, 2e4)))
        stops = np.cumsum(draw(hnp.arrays(float, 2 * draw(st.integers(1, 3)), elements=st.floats(0.5, 1e4))))
        where = np.array(draw(st.lists(st.integers(0, len(stops) // 2 - 1), min_size=k, max_size=k)), dtype=int)
        begin, end = stops.reshape(-1, 2)[where].T
        t = np.sort(begin + draw(hnp.arrays(float, k, elements=st.floats(0, 0.999))) * (end - begin))
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


@quiet
@given(gti=hnp.arrays(float, st.tuples(st.integers(1, 5), st.just(2)), elements=st.integers(0, 40).map(float)), seed=st.integers(0, 999))
def test_photons_outside_the_good_times_are_left_out_and_counted(gti, seed):
    gti, rng = merge_gti(gti[gti[:, 1] > gti[:, 0]]), np.random.default_rng(seed)
    if not len(gti): return
    t = np.sort(rng.integers(-5, 45, rng.integers(1, 30))).astype(float)
    inside = np.array([any(a <= x <= b for a, b in gti) for x in t])
    other = EventList([1.0, 2.0], [900.0, 900.0], "other", [[0, 9]], columns={"row": [7, 8]})
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        one = EventList(t, t + 500, "one", gti, columns={"row": np.arange(len(t))})
    assert np.array_equal(one.time, t[inside]) and np.array_equal(one.energy, t[inside] + 500)
    assert np.array_equal(one.columns["row"], np.flatnonzero(inside))
    assert len(said) == (not inside.all()) and all(f"{(~inside).sum()} of {len(t)} events" in str(w.message) for w in said)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        table = EventTable(["one", "other", "unknown"], np.r_[0, len(t), len(t) + 2, len(t) + 3], np.r_[t, 1, 2, -99], None,
                           np.r_[gti, [[0, 9]]], [0, len(gti), len(gti) + 1, len(gti) + 1], columns={"row": np.r_[np.arange(len(t)), 7, 8, 9]})
    assert len(said) == (not inside.all())
    assert np.array_equal(table["one"].time, one.time) and np.array_equal(table["one"].columns["row"], one.columns["row"])
    assert np.array_equal(table["other"].time, other.time) and table["unknown"].columns["row"].tolist() == [9]


def test_light_curve_bins_every_photon_once():
    rng = np.random.default_rng(2)
    for n in (1, 2, 50):
        ev = EventList(np.sort(rng.uniform(0, 1e4, n)), np.full(n, 900.0), "x", [[0, 1e4]])
        for bin_size in (0.3, 77, 1e4, 1e6):
            for origin in ("events", "exposure"):
                assert ev.light_curve(bin_size, origin).counts.sum() == n
    with pytest.raises(EventDataError, match="no events"):
        EventList([], [], "x", [[0, 9]]).light_curve(1)
    assert EventList([], [], "x", [[0, 9]]).light_curve(3, "exposure").counts.tolist() == [0, 0, 0]


FRAME = pd.DataFrame({"obsreg_id": ["1_1", "1_1", "2_2"], "time": [1.0, 2, 3], "energy": [600.0, 700, 800]})


@pytest.mark.parametrize("change, message", [
    (lambda f: f.drop(columns="time"), "column 'time' missing"),
    (lambda f: f.drop(columns=["obsreg_id", "energy"]), "columns 'obsreg_id', 'energy' missing"),
    (lambda f: f.assign(time=["1", "late", "3"]), "detection '1_1', column 'time' is not numeric: row 1 holds 'late'"),
    (lambda f: f.assign(energy=[600.0, np.inf, 800]), "detection '1_1', column 'energy': the value in row 1 is infinite"),
    (lambda f: f.assign(time=[1.0, 2, np.nan]), "detection '2_2', column 'time': the value in row 2 is missing"),
    (lambda f: f.assign(energy=[600.0, 0, 800]), "detection '1_1', column 'energy': the value in row 1 is 0, energies must be positive"),
    (lambda f: f.assign(energy=[600.0, 700, -8]), "detection '2_2', column 'energy': the value in row 2 is -8"),
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
    real = pq.ParquetFile.read_row_group
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", lambda self, group, *a, **kw: asked.append(group) or real(self, group, *a, **kw))
    some = read_events(path, ids=["3999_1", "7_1"])
    assert some == table[["3999_1", "7_1"]] and len(asked) == 2
    with pytest.raises(UnknownSourceError, match="no detection 'x'"):
        read_events(path, ids=["x"])


def test_gzip_of_something_else(tmp_path):
    with gzip.open(tmp_path / "x.csv.gz", "wb") as f:
        f.write(b"a,b\n1,2\n")
    with pytest.raises(EventDataError, match="there are a, b"):
        read_events(tmp_path / "x.csv.gz")


def test_duplicates_across_tables_and_in_time():
    one = EventTable.from_dict({"a": ([1.0, 1.0, 1.0], [600, 700, 800])})
    assert one["a"].energy.tolist() == [600, 700, 800]  # equal times keep their order
    with pytest.raises(EventDataError, match="'a' is in x.csv and in y.csv"):
        concat([one, one], ["x.csv", "y.csv"])


def test_many_unsorted_sources_are_sorted_and_said():
    rng = np.random.default_rng(3)
    t, e = rng.uniform(0, 9, 30), rng.uniform(500, 900, 30)
    with pytest.warns(XRTWarning, match="3 detections were not sorted"):
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
        for c in frame.columns.intersection(_columns.WORDS):
            assert frame[c].dtype == object and all(v is None or type(v) is str for v in frame[c])
        for c in frame.columns.intersection(_columns.MEASURES):
            assert frame[c].dtype == np.float64
    if suffix == ".parquet":
        assert back.meta.note.tolist() == ["3", "x"] and back.meta.deep.tolist() == [None, True]


def test_a_measure_that_is_no_number_is_named():
    with pytest.raises(EventDataError, match="detection '1_1': meta column 'exposure' must be a number, got 'UNKNOWN'"):
        EventList([1.0], [700], "1_1", meta={"exposure": "UNKNOWN"})
    with pytest.raises(EventDataError, match="meta column 'ra'"):
        EventTable(["a"], [0, 1], [1.0], meta=pd.DataFrame({"ra": ["0h42m"]}, index=["a"]))
    with pytest.raises(EventDataError, match="is duplicated"):
        EventTable(["a"], [0, 1], [1.0], meta=pd.DataFrame([["x", "y"]], columns=["name", "name"], index=["a"]))


def test_a_missing_edge_of_the_window_is_no_edge():
    table = EventTable(["a", "b"], [0, 1, 2], [1.0, 2], meta=pd.DataFrame({"t_start": [0, None], "t_stop": [9, None]}, index=["a", "b"]))
    assert table["a"].window == (0.0, 9.0)
    with pytest.raises(EventDataError, match="exposure of 1 of 1 detections is unknown"):
        table["b"].window


def columns_of_every_kind(values, missing, unit):
    "The same numbers in `unit` as every library's column; entries of `missing` are masked, null or NA."
    import pyarrow as pa
    from astropy import units as u
    from astropy.table import Column, MaskedColumn, Table
    from astropy.utils.masked import Masked
    plain = [None if m else v for v, m in zip(values, missing)]
    poison = np.where(missing, 65535.0, values)
    yield "MaskedColumn", MaskedColumn(poison, mask=missing, unit=unit), True
    yield "column of a table", Table({"x": MaskedColumn(poison, mask=missing, unit=unit)})["x"], True
    yield "Masked(Quantity)", Masked(poison * u.Unit(unit), mask=missing), True
    yield "numpy masked", np.ma.array(poison, mask=missing), False
    yield "numpy masked, big-endian", np.ma.array(poison.astype(">f8"), mask=missing), False
    yield "Float64", pd.Series(plain, dtype="Float64"), False
    yield "Arrow dtype", pd.Series(plain, dtype=pd.ArrowDtype(pa.float64())), False
    yield "Arrow array", pa.array(plain), False
    yield "Arrow chunks", pa.chunked_array([plain[:1], plain[1:]], type=pa.float64()), False
    yield "objects", pd.Series(plain, dtype=object), False
    yield "list with None", plain, False
    yield "text", ["" if v is None else repr(v) for v in plain], False
    yield "bytes", np.array([b"" if v is None else repr(v).encode() for v in plain]), False
    yield "masked texts", np.ma.array([repr(float(v)) for v in poison], mask=missing), False
    if not any(missing):
        yield "Column", Column(values, unit=unit), True
        yield "Quantity", np.array(values) * u.Unit(unit), True
        yield "list of Quantities", [v * u.Unit(unit) for v in values], True
        yield "categories", pd.Series(pd.Categorical(values)), False
        yield "longdouble", np.array(values, dtype=np.longdouble), False


@settings(deadline=None, max_examples=15)
@given(values=st.lists(st.floats(0.5, 9e4), min_size=2, max_size=6), data_=st.data())
def test_columns_of_every_kind_give_the_same_numbers(values, data_):
    for missing in (np.zeros(len(values), bool), np.array(data_.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values))))):
        for kind, column, has_unit in columns_of_every_kind(values, missing, "keV"):
            got = _columns.as_column(column, "energy", unit="keV")
            assert np.allclose(got, np.where(missing, np.nan, np.array(values) * 1e3), rtol=1e-15, equal_nan=True), kind
            again = _columns.as_column(column, "energy")
            assert np.allclose(again, np.where(missing, np.nan, np.array(values) * (1e3 if has_unit else 1)), rtol=1e-15, equal_nan=True), kind
            if has_unit:
                with pytest.raises(EventDataError, match="is in 'keV', which can't be turned into s"):
                    _columns.as_column(column, "time")
            frame = {"obsreg_id": ["a"] * len(values), "time": np.arange(len(values)), "energy": column}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                kept = EventTable.from_frame(frame, bad="drop", energy_unit="keV")
            assert np.allclose(kept.energy, np.array(values)[~missing] * 1e3, rtol=1e-15), kind
            assert kept.meta.n_dropped.tolist() == [missing.sum()]


def test_columns_that_count_nothing_are_refused():
    from astropy import units as u
    from astropy.time import Time, TimeDelta
    dates = pd.date_range("2020-01-01", periods=2)
    for column in (Time([59000.0, 59001], format="mjd"), dates, pd.Series(dates), dates.tz_localize("UTC"), list(dates),
                   dates.to_pydatetime(), pd.Series(dates).dt.date, pd.Series(dates, dtype="timestamp[ns][pyarrow]")):
        with pytest.raises(EventDataError, match="column 'time'"):
            _columns.as_column(column)
    for column in (np.array([True, False]), pd.Series([True, None], dtype="boolean"), [1j, 2], np.zeros((2, 2)), 5.0, "abc",
                   np.zeros(2, dtype=[("a", float)]), [1, "1_000"], ["1,5", "2"], [[1], [2, 3]], [{}, []]):
        with pytest.raises(EventDataError, match="column 'time'"):
            _columns.as_column(column)
    assert _columns.as_column(TimeDelta([1.0, 2], format="jd")).tolist() == [86400, 172800]
    assert _columns.as_column(pd.to_timedelta([1, 2], unit="min")).tolist() == [60, 120]
    assert _columns.as_column(np.array([1, 2]) * u.min).tolist() == [60, 120]
    with pytest.raises(EventDataError, match="'Angstrom', which can't be turned into eV"):
        _columns.as_column(np.array([1.0]) * u.AA, "energy")


def test_ids_of_every_kind_are_the_same_source():
    t = np.arange(2.0)
    for ids in (["735_4"] * 2, np.array([b"735_4"] * 2), ["735_4 ", "\ufeff735_4"], pd.Categorical(["735_4"] * 2), pd.array(["735_4"] * 2, dtype="string"),
                np.ma.array(["735_4"] * 2), np.array(["735_4"] * 2, dtype=object), ["\t735_4", b" 735_4"]):
        assert EventTable.from_frame({"obsreg_id": ids, "time": t, "energy": t + 500}).ids.tolist() == ["735_4"]
    for ids in (np.array([735, 735], dtype=">i4"), [735.0, "735"], np.array([735.0, 735])):
        assert EventTable.from_frame({"obsreg_id": ids, "time": t, "energy": t + 500}).ids.tolist() == ["735"]
    for ids in (np.ma.array(["a", "b"], mask=[0, 1]), ["a", None], ["a", " "], [1.0, np.nan], pd.array(["a", None], dtype="string")):
        with pytest.raises(EventDataError, match="'obsreg_id' is empty in row 1"):
            EventTable.from_frame({"obsreg_id": ids, "time": t, "energy": t + 500})
    for make in (lambda i: EventTable([i], [0, 1], [1.0]), lambda i: EventList([1.0], id=i), lambda i: EventTable.from_dict({i: ([1.0], [500])}),
                 lambda i: EventTable.from_frame({"obsreg_id": [i], "time": [1.0], "energy": [500]})):
        with pytest.raises(EventDataError, match="control characters"):
            make("a\x00b")
        with pytest.raises(EventDataError, match="has 10000 characters"):
            make("a" * 10_000)
        make("$\\frac$ NA é")
    with pytest.raises(EventDataError, match="duplicated: a"):
        EventTable(["a", " a"], [0, 1, 2], [1.0, 2])


def test_masked_entries_of_further_columns_stay_missing():
    from astropy.table import MaskedColumn
    chip = MaskedColumn([3, 9999], mask=[0, 1])
    name = np.ma.array(["x", "neighbor"], mask=[0, 1])
    for table in (EventTable(["a"], [0, 2], [1.0, 2], columns={"chip": chip, "name": name}),
                  EventTable.from_frame({"obsreg_id": ["a", "a"], "time": [1.0, 2], "energy": [500, 600], "chip": chip, "name": name})):
        assert table.columns["chip"][0] == 3 and np.isnan(table.columns["chip"][1]) and table.columns["name"].tolist() == ["x", None]


def test_good_times_in_any_unit():
    from astropy import units as u
    from astropy.table import Table
    right = [[0.0, 1000], [2000, 3000]]
    for gti in (np.array(right) / 1e3 * u.ks, Table({"START": np.array([0, 2]) * u.ks, "STOP": np.array([1, 3]) * u.ks}), np.array(right, dtype=">f4"),
                pd.DataFrame({"start": [0, 2000], "stop": [1000, 3000]}), [(0, 1000), (2000, 3000)]):
        assert EventList([5.0], [500], "a", gti).gti.tolist() == right
        assert EventTable(["a"], [0, 1], [5.0], [500], gti, [0, 2]).gti.tolist() == right
    for gti in ([1, 2, 3], [[0, None]], np.ma.array([[0.0, 9]], mask=[[0, 1]]), [["a", "b"]], [[0.0, 1] * u.m]):
        with pytest.raises(EventDataError):
            EventList([5.0], [500], "a", gti)


def test_messages_are_short_and_printable():
    frame = pd.DataFrame({f"column {k} \x1b[31m": [1] for k in range(5000)})
    with pytest.raises(EventDataError) as err:
        EventTable.from_frame(frame)
    assert len(str(err.value)) < 1000 and str(err.value).isprintable()
    with pytest.raises(UnknownSourceError) as err:
        EventTable(["a"], [0, 1], [1.0])["\x07" * 10_000]
    assert len(str(err.value)) < 2000 and str(err.value).isprintable()


def test_energies_in_kev_and_times_in_days_are_noticed():
    body = {"obsreg_id": ["a"] * 3 + ["b"] * 3, "time": 59000 + np.arange(6) * 0.1, "energy": np.linspace(0.5, 7, 6)}
    with pytest.warns(XRTWarning) as said:
        EventTable.from_frame(body)
    text = " ".join(str(w.message) for w in said)
    assert "energy_unit='keV'" in text and "time_unit='d'" in text and "MJD" in text
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = EventTable.from_frame(body, energy_unit="keV", time_unit="d")
        EventTable.from_frame(body | {"time": np.arange(6) * 5000 + 4e4, "energy": body["energy"] * 1e3})
    assert np.allclose(table.energy, body["energy"] * 1e3) and np.allclose(table.time, body["time"] * 86400)


def read_text(tmp_path, text, name="e.csv", **kwargs):
    "Read such a file; its text in UTF-8, or its bytes."
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_events(tmp_path / name, **kwargs)


BODY = "obsreg_id,time,energy\n00123_4,10.0,1000\n00123_4,12.5,2000\nNA,3.0,1500\n"


@pytest.mark.parametrize("change", [
    lambda b: b, lambda b: "\ufeff" + b, lambda b: b.replace(",", ";"), lambda b: b.replace(",", "\t"), lambda b: b.replace(",", "|"), lambda b: b.replace(",", ", "),
    lambda b: "# by me\n#\n\n" + b, lambda b: "\ufeff# by me\r\n" + b, lambda b: b.replace("\n", "\n\n"), lambda b: b.replace("\n", "\r\n"), lambda b: b.replace("\n", "\r"),
    lambda b: b.replace("_4,", "_4  ,"), lambda b: b.replace("\nN", "\n  N"), lambda b: b.replace("00123_4", '"00123_4"'), lambda b: b.rstrip("\n"),
    lambda b: b.replace("00123_4,12", "\u200b00123_4,12"), lambda b: gzip.compress(b.encode()), lambda b: b.replace("\n", ",\n"),
])
def test_dialects_of_csv_give_the_same_photons(change, tmp_path):
    table = read_text(tmp_path, change(BODY))
    assert table.ids.tolist() == ["00123_4", "NA"] and table.offsets.tolist() == [0, 2, 3]
    assert table.time.tolist() == [10, 12.5, 3] and table.energy.tolist() == [1000, 2000, 1500] and not table.columns


@pytest.mark.parametrize("text, message", [
    ("obsreg_id,time,energy\n23022_122,1,5,1000\n", "row 1 below the header has 4 fields, the header 3; decimal commas"),
    (BODY + "9_9,1,5,1000\n", "row 4 below the header has 4 fields"),
    (BODY + "9_9,1\n", "row 4 below the header has 2 fields, the header 3"),
    ("obsreg_id,time\n23022_122,1,5\n", "column 'energy' missing"),
    (BODY.replace(",", ";").replace(".", ","), "holds '10,0' .*decimal=','"),
    (BODY.replace("1000", '"1,000"'), "holds '1,000'"),
    (BODY.replace("10.0", "10\x000"), "NUL bytes"),
    (BODY.encode("utf-16"), "UTF-16 text; save it as UTF-8"),
    (BODY.replace("NA", "é").encode("latin-1"), "not UTF-8 text"),
    (BODY.encode() + b"9_9,\xe9,1,5\n", "not UTF-8 text"),
    (BODY.replace("energy", "time", 1), "column 'time' is duplicated"),
    (BODY.replace("NA,", '"N\nA",'), "control characters"),
    (BODY.replace("NA,", '"NA,'), "e.csv"),
    (BODY.replace("00123_4,12", "  ,12"), "column 'obsreg_id' is empty in row 1"),
    (BODY.replace("00123_4", "x" * 10_000), "has 10000 characters"),
    (BODY.replace("12.5", "1_2"), "holds '1_2'"),
    (BODY.replace("12.5", "2020-01-01"), "holds '2020-01-01'"),
    ("\n\n", "the file is empty"),
    ("x" * 200_000, "first line of 200,000 bytes"),
    (",".join(f"c{k}" for k in range(5000)) + "\n", "missing|columns"),
    (BODY.replace("12.5", "0x1F"), "holds .0x1F."),
    ("# %ECSV 1.0\n# ---\n# {[}\na b\n", "not a readable ECSV table"),
])
def test_csv_that_cannot_be_right_is_refused_in_one_sentence(text, message, tmp_path):
    with pytest.raises(EventDataError, match=message) as err:
        read_text(tmp_path, text)
    assert "e.csv" in str(err.value) and len(str(err.value)) <= 1500 and str(err.value).isprintable()


def test_csv_with_decimal_commas_other_names_and_units(tmp_path):
    text = "Quelle;Zeit;E (keV);Bemerkung\n7;0,5;1,5;2020-01-02\n7;1,5;2,5;\n"
    table = read_text(tmp_path, text, id="Quelle", time="Zeit", energy="E (keV)", time_unit="ks", energy_unit="keV", decimal=",")
    assert table["7"].time.tolist() == [500, 1500] and table["7"].energy.tolist() == [1500, 2500]
    assert table.columns["Bemerkung"].tolist() == ["2020-01-02", None]
    with pytest.raises(ValueError, match="`decimal`"):
        read_text(tmp_path, text, decimal=";")
    with pytest.warns(XRTWarning, match="1 line below the header that begin with #"):
        assert read_text(tmp_path, BODY + "#x,1,2\n").n_events == 3


def test_an_ecsv_table_brings_its_units(tmp_path):
    from astropy import units as u
    from astropy.table import Table
    Table({"obsreg_id": ["a_1", "a_1"], "time": [1.0, 2] * u.min, "energy": [1.0, 2] * u.keV}).write(tmp_path / "e.csv", format="ascii.ecsv", delimiter=",")
    table = read_events(tmp_path / "e.csv")
    assert table.time.tolist() == [60, 120] and table.energy.tolist() == [1000, 2000]


def test_csv_ids_that_a_spreadsheet_would_compute_come_back(tmp_path):
    table = EventTable.from_dict({i: ([1.0], [600]) for i in ("=1+1", "#1", "'=x", "-2", "+a", "@b", 'say "x"', "a;b", "a,b")})
    path = table.write(tmp_path / "t.csv")
    assert read_events(path) == table
    assert "'=1+1" in path.read_text() and not any(line.startswith(("=", '"=', "#")) for line in path.read_text().splitlines())


def test_a_gzip_bomb_is_refused_before_it_unfolds(tmp_path):
    import tracemalloc
    bomb = gzip.compress(b"obsreg_id,time,energy\n" + b"1_1,1,600\n" * 20_000_000)
    assert len(bomb) < 1e6
    tracemalloc.start()
    with pytest.raises(EventDataError, match="bytes expand to more than"):
        read_text(tmp_path, bomb, "bomb.csv.gz")
    assert tracemalloc.get_traced_memory()[1] < 300e6
    tracemalloc.stop()


def test_what_is_no_file_is_refused(tmp_path):
    import os
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "folder.csv").mkdir()
    for name in ("pipe.csv", "folder.csv"):
        with pytest.raises(data.XRTError, match=name):
            read_events(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no.csv does not exist"):
        read_events(tmp_path / "no.csv")


def test_the_table_reader_keeps_texts_as_they_are(tmp_path):
    (tmp_path / "k.csv").write_text("obsreg_id,class,rank\n007_1 ,NA,1\n'=x,,2\n")
    frame = read_table(tmp_path / "k.csv", ["obsreg_id", "class"], ["obsreg_id", "class"])
    assert frame.obsreg_id.tolist() == ["007_1", "=x"] and frame["class"].tolist() == ["NA", None] and frame["rank"].tolist() == [1, 2]
    assert read_table(tmp_path / "k.csv", text=None)["rank"].tolist() == ["1", "2"]
    with pytest.raises(EventDataError, match="column 'kind' missing; there are obsreg_id, class, rank"):
        read_table(tmp_path / "k.csv", ["kind"])


@settings(deadline=None, max_examples=60)
@given(rows=st.lists(st.tuples(st.text(min_size=1, max_size=6).filter(lambda s: s.isprintable() and s.strip() == s and len(s.strip("\u200b\ufeff")) == len(s)),
                               st.floats(-1e9, 1e9), st.floats(100, 1e5)), min_size=1, max_size=8))
def test_any_id_and_number_survive_csv(rows, tmp_path_factory):
    frame = pd.DataFrame([(i, t % 1e4, e) for i, t, e in rows], columns=["obsreg_id", "time", "energy"]).sort_values("time", kind="stable")
    table = EventTable.from_frame(frame)
    path = table.write(tmp_path_factory.mktemp("c") / "t.csv")
    assert read_events(path) == table


@quiet
@given(gti=hnp.arrays(float, st.tuples(st.integers(1, 5), st.just(2)), elements=st.integers(0, 400).map(float)), seed=st.integers(0, 999),
       bin_size=st.sampled_from([7.0, 30.0, 111.0]), origin=st.sampled_from(["events", "exposure"]), least=st.sampled_from([0, 0.1, 0.9]))
def test_rates_are_counts_over_good_seconds(gti, seed, bin_size, origin, least):
    gti, rng = merge_gti(gti[gti[:, 1] > gti[:, 0]]), np.random.default_rng(seed)
    if not len(gti): return
    t = np.sort(np.concatenate([rng.uniform(a, b, 9) for a, b in gti]))
    ev = EventList(t, id="x", gti=gti)
    lc, t0 = ev.light_curve(bin_size, origin, min_exposure=least), t[0] if origin == "events" else gti[0, 0]
    for k in range(len(lc)):
        a, b = t0 + k * bin_size, t0 + (k + 1) * bin_size
        good = sum(max(min(b, stop) - max(a, start), 0) for start, stop in gti)
        assert lc.exposure[k] == pytest.approx(good, abs=1e-9)
        assert np.isnan(lc.rate[k]) == (good == 0 or good < least * bin_size)
        if not np.isnan(lc.rate[k]): assert lc.rate[k] * good == pytest.approx(lc.counts[k]) and lc.rate_error_high[k] * good == pytest.approx(lc.error_high[k])
    assert lc.counts.sum() == len(t) and (lc.rate_mean.isna() == lc.rate.isna()).all()


def test_a_steady_source_with_gaps_is_drawn_steady():
    gti = np.array([[0, 300], [1000, 1600], [2900, 2960], [3500, 5000]], float)
    t = np.concatenate([np.arange(a + 0.25, b, 0.5) for a, b in gti])  # two photons a second
    ax = EventList(t, id=r"$\frac$", gti=gti).plot_light_curve(500, "exposure")
    rate = ax.containers[0].lines[0].get_ydata(orig=False)
    assert np.allclose(rate[~np.isnan(rate)], 2) and np.isnan(rate).sum() == 3 and "counts/s" in ax.get_ylabel()
    axs = lightcurves.plot_light_curves([EventList(t, id=r"$\frac$", gti=gti), EventList(t[:9], id="_b", meta={"t_start": 0, "t_stop": 20})], 500, "exposure", share=True)
    assert axs[0].get_ylim() == axs[1].get_ylim() and axs[0].get_xlim() == axs[1].get_xlim()
    axs[0].figure.canvas.draw()
    with pytest.raises(ValueError, match="as many axes"): lightcurves.plot_light_curves([EventList(t)], axs=axs)


def test_a_real_nicer_source_has_one_rate_within_its_errors(shared):
    ev = read_event_list(shared / "data" / "nicer" / "ngc300nicer_bary.evt")
    lc = ev.light_curve(500, "exposure")
    assert lc.rate.isna().sum() > len(lc) / 2 and lc.rate.max() < 1.5 * lc.rate.min() and lc.counts.max() > 10 * lc.counts[lc.counts > 0].min()


def test_a_fits_record_array_brings_units_and_nulls():
    from astropy.io import fits
    columns = [fits.Column("ID", "10A", array=["735_4"] * 3), fits.Column("TIME", "D", unit="sec", array=[1.0, 2, 3]),
               fits.Column("ENERGY", "E", unit="KEV", array=[1, 2, 3]), fits.Column("PI", "J", null=-99, array=[5, -99, 7])]
    table = EventTable.from_frame(fits.BinTableHDU.from_columns(columns).data, "ID", "TIME", "ENERGY")
    assert table.ids.tolist() == ["735_4"] and table.energy.tolist() == [1000, 2000, 3000]
    assert np.isnan(table.columns["PI"][1]) and table.columns["PI"][2] == 7


def test_ids_that_were_printed_bytes(tmp_path):
    assert read_text(tmp_path, BODY.replace("00123_4", "b'00123_4'")).ids.tolist() == ["00123_4", "NA"]
    assert EventTable(["b'1_1'"], [0, 1], [1.0]).ids.tolist() == ["1_1"]


@pytest.mark.parametrize("table", [EventTable([], [0], [], []), EventTable(["a", "b"], [0, 0, 0], [], []),
                                   EventTable(["a"], [0, 0], [], None, np.empty((0, 2)), [0, 0])])
def test_tables_without_photons_are_kept(table, tmp_path):
    path = table.write(tmp_path / "t.parquet")
    assert read_events(path) == table and read_events(path, ids=[]) == table[[]]


def test_a_unit_for_a_file_that_has_its_own_is_refused(tmp_path):
    path = EventTable.from_dict({"a": ([1.0], [600])}).write(tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="leave the units out"):
        read_events(path, energy_unit="keV")


# --- rows for scikit-learn ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def archive():
    "A small simulated archive, and whether each detection is a flare."
    events, truth = simulate_archive(80, random_state=3)
    return events, truth.kind.ne("steady").to_numpy()


def test_a_text_is_an_id_and_a_number_a_position():
    table = EventTable(["2", "1", "x"], [0, 1, 2, 3], [1.0, 2, 3])
    assert table["1"].id == "1" and table[1].id == "1" and table[0].id == "2" and table[-3].id == "2"
    assert table[np.int8(2)] == table["x"] and table[np.array(2)] == table["x"]
    for key in ([2, 0], np.array([2, 0]), np.array([-1, -3]), ["x", "2"], np.array(["x", "2"], dtype=object), ("x", "2")):
        assert table[key].ids.tolist() == ["x", "2"]
    for key in ([True, False, True], slice(None, None, 2), slice(0, 3, 2)):
        assert table[key].ids.tolist() == ["2", "x"]
    assert len(table[[]]) == len(table[5:]) == 0 and table[:].shape == (3,) and "1" in table and 1 not in table
    for k in (3, -4, 10**30, np.int64(3)):
        with pytest.raises((IndexError, TypeError), match="position"): table[k]
    with pytest.raises(IndexError, match=r"no position 7 in a table of 3 detections; .* table\['7'\]"): table[[0, 7]]
    for key in (None, 1.0, True, [1.5], [[0, 1], [1, 2]], [None], np.nan, b"1"):
        with pytest.raises((TypeError, UnknownSourceError)): table[key]
    with pytest.raises(ValueError, match="twice"): table[[1, -2]]


@settings(deadline=None)
@given(st.data())
def test_drawing_by_positions_by_mask_and_by_id_agree(data):
    n = data.draw(st.integers(1, 8))
    counts = data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))
    table = EventTable([f"s{k}" for k in range(n)], np.r_[0, np.cumsum(counts)], np.arange(sum(counts), dtype=float))
    rows = data.draw(st.lists(st.integers(-n, n - 1), unique_by=lambda k: k % n))
    drawn = table[rows]
    assert drawn == table[[f"s{k % n}" for k in rows]] == _safe_indexing(table, np.array(rows, dtype=int))
    assert [x.time.tolist() for x in drawn] == [table[k].time.tolist() for k in rows]
    mask = np.isin(np.arange(n), np.array(rows, dtype=int) % n)
    assert table[mask] == table[sorted(k % n for k in rows)] == _safe_indexing(table, mask)


def test_scikit_learn_searches_over_events(archive):
    "Cross-validation, a grid search and a split see detections, and give what maps made beforehand give."
    events, flare = archive
    model = make_pipeline(EtMap(), Flatten(), PCA(5, random_state=0), LogisticRegression(max_iter=1000))
    grid = {"etmap__n_time": [8, 24], "pca__n_components": [3, 5]}
    found = GridSearchCV(model, grid, cv=3, error_score="raise").fit(events, flare)
    assert len(found.cv_results_["params"]) == 4 and found.predict(events).shape == flare.shape
    rows = make_pipeline(EtMap(n_time=24), Flatten()).fit_transform(events)
    scores = cross_val_score(make_pipeline(PCA(5, random_state=0), LogisticRegression(max_iter=1000)), rows, flare, cv=3)
    same = cross_val_score(model, events, flare, cv=3, error_score="raise")
    assert np.array_equal(same, scores)
    train, test, yes, no = train_test_split(events, flare, test_size=0.25, random_state=0, stratify=flare)
    assert isinstance(train, EventTable) and (len(train), len(test)) == (len(yes), len(no))
    assert sorted([*train.ids, *test.ids]) == sorted(events.ids) and train[0] == events[str(train.ids[0])]


def test_reading_is_at_hand_where_the_table_is():
    "`read_events` is imported from `data` as ever, and nothing else is conjured there."
    assert data.read_events is read_table.__globals__["read_events"]
    with pytest.raises(AttributeError, match="no attribute 'read_event'"): data.read_event
    with pytest.raises(ImportError): exec("from xrt_nb.data import read_all")


def test_a_further_column_never_takes_the_place_of_times_or_energies(tmp_path):
    frame = pd.DataFrame({"src": ["a"] * 4, "raw": 1.0, "t_corr": [7.0, 8, 9, 10], "time": [0.0, 1, 2, 3], "e": [900.0] * 4, "energy": 5.0})
    with pytest.warns(XRTWarning, match="columns 'time', 'energy' left out"):
        table = EventTable.from_frame(frame, id="src", time="t_corr", energy="e")
    assert list(table.columns) == ["raw"] and table.to_frame()["time"].tolist() == [7, 8, 9, 10]
    for name in ("t.csv", "t.parquet"):
        back = read_events(table.write(tmp_path / name))
        assert np.array_equal(back.time, table.time) and np.array_equal(back.energy, table.energy)
    assert not EventTable.from_frame(frame.drop(columns="time"), id="src", time="t_corr", energy=None).columns.keys() & {"energy"}
    for name in ("obsreg_id", "time", "energy"):
        with pytest.raises(EventDataError, match=f"can't be called '{name}'"): EventList([1.0], columns={name: [2.0]})
        with pytest.raises(EventDataError, match=f"can't be called '{name}'"): EventTable(["a"], [0, 1], [1.0], columns={name: [2.0]})
