"""Maps and cubes against numpy's own histograms, on random, frame-quantised and degenerate sources."""

import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import config_context
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from xrt_nb.data import EventDataError, EventList, EventTable, in_gti
from xrt_nb.representations import EtDtCube, EtMap, Flatten, bin_edges, exposure_map, quality_table

quiet = settings(deadline=None, max_examples=60)


@st.composite
def archives(draw):
    "Up to five sources; times on a coarse grid, so ties and edges are common; energies partly on bin edges and outside the band."
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    edges, lists = 10 ** bin_edges()[1], []
    for k in range(draw(st.integers(1, 5))):
        n = draw(st.sampled_from([0, 1, 2, 3, 4, 7, 30, 400]))
        t = 7e8 + np.sort(rng.integers(0, draw(st.sampled_from([1, 2, 25, 500, 10**6])), n)) * draw(st.sampled_from([1.0, 3.141, 1e-3]))
        e = np.where(rng.random(n) < 0.3, rng.choice([*edges, 499.999, 7000.001, 100.0], n), rng.uniform(400, 8000, n))
        lists.append(EventList(t, e, f"{k}_1"))
    return EventTable.from_lists(lists)


def numpy_map(ev, n_time=24, n_energy=16, band=(500, 7000)):
    with np.errstate(invalid="ignore"):
        tau = (ev.time - ev.time.min()) / (ev.time.max() - ev.time.min())
    return np.histogram2d(tau, np.log10(ev.energy), bins=(n_time, n_energy), range=[[0, 1], np.log10(band)])[0]


def numpy_cube(ev):
    dt, t = np.diff(ev.time), ev.time[:-1]
    sample = np.c_[(t - t.min()) / (t.max() - t.min()), np.log10(ev.energy[:-1]), (dt - dt.min()) / (dt.max() - dt.min())]
    return np.histogramdd(sample, bins=(24, 16, 16), range=[[0, 1], np.log10([500, 7000]), [0, 1]])[0]


@quiet
@given(table=archives())
def test_maps_equal_numpy_and_are_never_nan(table):
    maps, scaled, q = EtMap().transform(table), EtMap(normalize=True).transform(table), quality_table(table)
    assert np.isfinite(maps).all() and np.isfinite(scaled).all()
    for s, ev in enumerate(table):
        if len(ev) > 1 and ev.span > 0:
            assert np.array_equal(maps[s], numpy_map(ev))
        else:
            assert not maps[s].any() and q.iloc[s][["empty", "single", "constant_time"]].any()
        assert maps[s].any() == (scaled[s].any() or q.flat.iloc[s])


@quiet
@given(table=archives())
def test_cubes_equal_numpy_and_are_never_nan(table):
    cubes, dense, q = EtDtCube().transform(table), EtDtCube(sparse=False).transform(table), quality_table(table)
    scaled = EtDtCube(normalize=True).transform(table)
    assert np.isfinite(cubes.data).all() and np.isfinite(scaled.data).all() and scaled.has_canonical_format
    assert np.array_equal(cubes.toarray(), dense.reshape(len(table), -1))
    for s, ev in enumerate(table):
        if len(ev) > 2 and np.ptp(ev.time[:-1]) > 0 and np.ptp(np.diff(ev.time)) > 0:
            assert np.array_equal(dense[s], numpy_cube(ev))
            assert q.cube_ok.iloc[s] == dense[s].any()
        elif q.constant_dt.iloc[s]:
            assert dense[s][:, :, 1:].sum() == 0 and not q.cube_ok.iloc[s]
        else:
            assert not dense[s].any() and not q.cube_ok.iloc[s]


@quiet
@given(table=archives(), n_time=st.integers(1, 40), n_energy=st.integers(1, 30), lo=st.floats(100, 2000), factor=st.floats(1.1, 20))
def test_any_shape_and_band(table, n_time, n_energy, lo, factor):
    maps = EtMap(n_time, n_energy, (lo, lo * factor)).transform(table)
    for s, ev in enumerate(table):
        if len(ev) > 1 and ev.span > 0:
            assert np.array_equal(maps[s], numpy_map(ev, n_time, n_energy, (lo, lo * factor)))


def test_the_whole_archive_has_no_difference(root):
    "Ten thousand sources, a million photons: zero differences from one numpy histogram per source."
    sys.path.insert(0, str(root / "benchmarks"))
    from bench_pictures import plain_cubes, plain_maps

    from xrt_nb.simulation import simulate_archive
    events, _ = simulate_archive(10_000, random_state=11)
    q = quality_table(events)
    assert (EtMap().transform(events)[q.map_ok] == plain_maps(events, q.map_ok)[q.map_ok]).all()
    some = events[:3000]
    ok = q.cube_ok.to_numpy()[:3000]
    assert (EtDtCube(sparse=False).transform(some)[ok] == plain_cubes(some, ok)[ok]).all()


def with_gaps(n=200, seed=0):
    rng = np.random.default_rng(seed)
    gti = np.array([[0.0, 100], [150, 300], [300, 420], [500, 1000]])
    t = np.sort(rng.uniform(0, 1000, n))
    t = t[in_gti(t, gti)]
    return EventList(t, rng.uniform(500, 7000, len(t)), "1_1", gti)


def test_exposure_and_livetime_axes():
    ev = with_gaps()
    by_hand = np.histogram(ev.time / 1000, 24, (0, 1))[0]
    assert np.array_equal(EtMap(time_axis="exposure").transform(ev)[0].sum(axis=1), by_hand)
    live = np.array([sum(min(max(t - a, 0), b - a) for a, b in ev.gti) for t in ev.time]) / ev.livetime
    assert np.array_equal(EtMap(time_axis="livetime").transform(ev)[0].sum(axis=1), np.histogram(live, 24, (0, 1))[0])
    edges = np.linspace(0, 1000, 25)
    good = np.array([sum(max(0, min(b, hi) - max(a, lo)) for a, b in ev.gti) for lo, hi in zip(edges[:-1], edges[1:])])
    assert np.allclose(exposure_map(ev)[0], good / good.mean())


def test_a_constant_source_is_flat_on_the_live_clock():
    ev = with_gaps(200_000)
    counts = EtMap(time_axis="livetime").transform(ev)[0].sum(axis=1)
    chi2 = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    assert chi2 < 60  # 23 degrees of freedom, far tail


def test_pairs_across_gaps_are_left_out():
    ev = with_gaps()
    row = np.searchsorted(ev.gti[:, 0], ev.time, side="right")
    inside = (row[1:] == row[:-1]).sum()
    assert EtDtCube(across_gaps=False).transform(ev).sum() == inside
    assert EtDtCube(time_axis="exposure").transform(ev).sum() == inside
    assert EtDtCube().transform(ev).sum() == len(ev) - 1


def test_log_waiting_times():
    ev = EventList([0.0, 1, 1, 11, 111], [900] * 5, "1_1")
    dt = np.log10([1, 0.1, 10, 100])
    expected = np.histogram((dt - dt.min()) / (dt.max() - dt.min()), 16, (0, 1))[0]
    assert np.array_equal(EtDtCube(dt_scale="log", sparse=False).transform(ev)[0].sum(axis=(0, 1)), expected)


def test_scikit_learn_manners():
    for estimator in (EtMap(n_time=5, time_axis="exposure"), EtDtCube(n_dt=3), Flatten()):
        assert clone(estimator).get_params() == estimator.get_params()
    events = EventTable.from_lists([EventList(e.time, e.energy, f"{k}_1", e.gti) for k, e in enumerate(with_gaps(seed=s) for s in range(8))])
    pipe = make_pipeline(EtMap(), Flatten(), PCA(3, random_state=0))
    assert pipe.fit_transform(events).shape == (8, 3)
    assert len(EtDtCube(4, 3, 2).get_feature_names_out()) == 24 == EtDtCube(4, 3, 2).transform(events).shape[1]


def test_flatten_passes_the_examination_of_scikit_learn():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = check_estimator(Flatten(), on_fail=None, on_skip=None)
    failed = [d["check_name"] for d in done if d["status"] == "failed"]
    assert not failed and sum(d["status"] == "passed" for d in done) > 30


@pytest.mark.parametrize("rep", [EtMap(3, 2), EtMap(3, 2, normalize=True, time_axis="exposure"), EtDtCube(2, 3, 4, sparse=False)])
def test_frames_have_the_numbers_ids_and_names(rep):
    events = EventTable.from_lists([EventList(e.time, e.energy, f"{k}_1", e.gti) for k, e in enumerate(with_gaps(seed=s) for s in range(4))])
    frame = clone(rep).set_output(transform="pandas").fit_transform(events)
    assert list(frame.index) == list(events.ids) and frame.index.name == "obsreg_id"
    assert list(frame) == list(rep.get_feature_names_out()) and len(set(frame)) == frame.shape[1]
    assert np.array_equal(frame.to_numpy(), rep.fit(events).transform(events).reshape(4, -1))
    with config_context(transform_output="pandas"):
        assert rep.transform(events).equals(frame)
    with pytest.raises(ValueError, match="not 'polars'"), config_context(transform_output="polars"):
        rep.transform(events)
    with pytest.raises(ValueError, match="sparse=False"):
        EtDtCube().set_output(transform="pandas").transform(events)


def test_a_grid_search_goes_over_the_parameters_of_a_map():
    rng = np.random.default_rng(0)
    lists = [EventList(np.sort(rng.beta(*(1, 3)[:: 1 - 2 * (k % 2)], 80)), rng.uniform(500, 7000, 80), f"{k}_1") for k in range(24)]
    events, late = EventTable.from_lists(lists), np.arange(24) % 2
    pipe = make_pipeline(EtMap(4, 1, time_axis="events"), Flatten(), StandardScaler(), LogisticRegression())
    rows = [np.arange(12), np.arange(12, 24)]
    for n_time in (1, 4):
        model = clone(pipe).set_params(etmap__n_time=n_time).fit(events[rows[0]], late[rows[0]])
        assert (model.score(events[rows[1]], late[rows[1]]) > 0.9) == (n_time == 4)


@pytest.mark.parametrize("bad", [dict(n_time=0), dict(n_energy=-1), dict(energy_range=(0, 7000)), dict(energy_range=(700, 700)), dict(time_axis="x"), dict(normalize="yes")])
def test_bad_parameters(bad):
    for kind in (EtMap, EtDtCube):
        with pytest.raises(ValueError, match=next(iter(bad))):
            kind(**bad).fit(with_gaps())
        with pytest.raises(ValueError, match=next(iter(bad))):
            kind(**bad).transform(with_gaps())


def test_without_exposure_the_exposure_axis_is_refused():
    with pytest.raises(EventDataError, match="time_axis='events'"):
        EtMap(time_axis="exposure").transform(EventList([1.0, 2], [600, 700], "1_1"))
