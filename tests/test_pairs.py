"""dE–dt maps against all pairs taken by brute force, the expectation of a constant source, sampling, and degenerate sources."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline

from xrt_nb.data import EventDataError, EventList, EventTable, in_gti
from xrt_nb.pairs import OUTPUTS, PairMap, pair_edges, pair_null, pair_quality, pairs_within, plot_pairs
from xrt_nb.representations import EtMap, Flatten

quiet = settings(deadline=None, max_examples=60)
GTI = np.array([[0.0, 100], [150, 300], [300, 420], [500, 1000]])


@st.composite
def archives(draw):
    "Up to four sources, times often equal, energies partly outside the band."
    rng, lists = np.random.default_rng(draw(st.integers(0, 10**6))), []
    for k in range(draw(st.integers(1, 4))):
        n = draw(st.sampled_from([0, 1, 2, 3, 7, 40]))
        t = 7e8 + np.sort(rng.integers(0, draw(st.sampled_from([1, 2, 25, 10**6])), n)) * draw(st.sampled_from([1.0, 3.141]))
        lists.append(EventList(t, rng.choice([100.0, 499.9, 500, 700, 1234.5, 3000, 7000, 7001], n), f"{k}_1"))
    return EventTable.from_lists(lists)


def brute_force(ev, edges, de_scale, signed, width=None, band=(500, 7000)):
    "One pair after the other."
    out, x, y = np.zeros((len(edges[0]) - 1, len(edges[1]) - 1)), *edges
    value = np.log10(ev.energy) if de_scale == "log" else ev.energy / (band[1] - band[0])
    width = ev.span if width is None else width
    use = np.flatnonzero((np.log10(ev.energy) >= np.log10(band[0])) & (np.log10(ev.energy) <= np.log10(band[1])))
    def bin_of(v, e): return int(np.clip(np.searchsorted(e, v, side="right") - 1, 0, len(e) - 2))
    for a, i in enumerate(use):
        for j in use[a + 1:]:
            dt, de = (ev.time[j] - ev.time[i]) / width, value[j] - value[i]
            ways = [abs(de)] if not signed else [de] if dt > 0 else [de, -de]
            for way in ways: out[bin_of(dt, x), bin_of(way, y)] += 1 / len(ways)
    return out


@quiet
@given(table=archives(), dt_scale=st.sampled_from(["log", "linear"]), de_scale=st.sampled_from(["log", "linear"]), signed=st.booleans(),
       n_dt=st.integers(1, 30), n_de=st.integers(1, 20))
def test_counts_equal_brute_force(table, dt_scale, de_scale, signed, n_dt, n_de):
    args = dict(n_dt=n_dt, n_de=n_de, dt_scale=dt_scale, de_scale=de_scale, signed=signed)
    maps, q = PairMap(output="counts", **args).transform(table), pair_quality(table)
    for s, ev in enumerate(table):
        expected = brute_force(ev, pair_edges(**args), de_scale, signed) if len(ev) and ev.span > 0 else np.zeros((n_dt, n_de))
        assert np.array_equal(maps[s], expected)
        assert maps[s].sum() == q.n_pairs.iloc[s] and q.pairs_ok.iloc[s] == maps[s].any()


@quiet
@given(table=archives(), axis=st.sampled_from(["events", "exposure", "livetime"]), kind=st.sampled_from(OUTPUTS), seed=st.integers(0, 99))
def test_never_nan_and_the_order_of_photons_and_sources_does_not_matter(table, axis, kind, seed):
    rng, gti = np.random.default_rng(seed), [[7e8, 7e8 + 10], [7e8 + 20, 7e8 + 4e6]]
    lists, shuffled = [], []
    for ev in table:
        p = rng.permutation(len(ev))
        p = p[np.argsort(ev.time[p], kind="stable")]  # sorted in time, ties in another order
        inside = (ev.time <= 7e8 + 10) | ((ev.time >= 7e8 + 20) & (ev.time <= 7e8 + 4e6))
        for out, energy in ((lists, ev.energy), (shuffled, ev.energy[p])): out.append(EventList(ev.time[inside], energy[inside], ev.id, gti))
    for max_pairs in (10**7, 5):
        maps = PairMap(output=kind, time_axis=axis, max_pairs=max_pairs)
        one, two = maps.transform(EventTable.from_lists(lists)), maps.transform(EventTable.from_lists(shuffled[::-1]))[::-1]
        assert np.isfinite(one).all() and np.array_equal(one, two)


def flare(n=400, seed=0):
    rng = np.random.default_rng(seed)
    t = np.sort(np.r_[rng.uniform(0, 1000, n // 2), 500 + rng.exponential(30, n - n // 2)])
    t = t[in_gti(t, GTI)]
    return EventList(t, rng.uniform(500, 7000, len(t)), "1_1", GTI)


def test_sampling_agrees_with_counting():
    ev, n_draw = flare(), 20_000
    exact = PairMap(output="counts").transform(ev)[0].astype(float)
    z = []
    for seed in range(20):
        drawn = PairMap(output="counts", max_pairs=n_draw, random_state=seed).transform(ev)[0].astype(float)
        assert drawn.sum() == pytest.approx(exact.sum(), rel=1e-5)
        assert not drawn[exact == 0].any()
        p = exact / exact.sum()
        big = p * n_draw > 20
        z.append((drawn - exact)[big] / np.sqrt(exact[big] * (1 - p[big]) * exact.sum() / n_draw))
    z = np.concatenate(z)
    assert abs(z.mean()) < 0.1 and 0.9 < z.std() < 1.1


def test_same_seed_same_map_and_the_same_in_company():
    ev, few = flare(), PairMap(max_pairs=1000, random_state=3)
    other = EventList(ev.time, ev.energy, "2_1", GTI)
    both = few.transform(EventTable.from_lists([other, ev]))
    assert np.array_equal(both[1], few.transform(ev)[0])
    assert not np.array_equal(both[0], both[1])  # another id, another sample
    assert not np.array_equal(few.transform(ev), clone(few).set_params(random_state=4).transform(ev))
    assert PairMap(max_pairs=10**6).transform(ev).tolist() == PairMap(max_pairs=10**7, random_state=9).transform(ev).tolist()


@quiet
@given(seed=st.integers(0, 10**6), n=st.integers(1, 8))
def test_pairs_within_against_quadrature(seed, n):
    rng = np.random.default_rng(seed)
    edges = np.cumsum(rng.uniform(0.1, 5, 2 * n)) + 7e8
    gti = edges.reshape(n, 2)
    fine = np.linspace(edges[0], edges[-1], 4001)
    t = (fine[1:] + fine[:-1]) / 2
    w = np.array([np.clip(np.minimum(fine[1:], b) - np.maximum(fine[:-1], a), 0, None) for a, b in gti]).sum(axis=0)
    auto = np.correlate(w, w, "full")[len(w) - 1:]
    auto[0] /= 2
    cdf, step = np.cumsum(auto) / auto.sum(), fine[1] - fine[0]
    dt = np.array([1, 10, 200, 1000, 3000]) * step
    assert np.allclose(pairs_within(gti, dt + step / 2), np.interp(dt, np.arange(len(t)) * step, cdf), atol=5e-3)
    assert pairs_within(gti, [0.0])[0] == 0 and pairs_within(gti, [edges[-1] - edges[0]])[0] == pytest.approx(1)
    assert (np.diff(pairs_within(gti, np.linspace(0, 50, 200))) >= -1e-12).all()


@pytest.mark.parametrize("axis", ["events", "exposure", "livetime"])
@pytest.mark.parametrize("n", [2, 3, 12])
@pytest.mark.parametrize("band", [(500, 7000), (500, 2000)])
def test_a_constant_source_has_no_excess(axis, n, band):
    rng, lists = np.random.default_rng(n), []
    while len(lists) < 3000:
        t = np.sort(rng.uniform(0, 1000, 3 * n))
        t = np.sort(rng.permutation(t[in_gti(t, GTI)])[:n])
        if len(t) == n: lists.append(EventList(t, rng.uniform(500, 4000, n), f"{len(lists)}_1", GTI))
    table = EventTable.from_lists(lists)
    args = dict(n_dt=8, n_de=2, dt_scale="linear", time_axis=axis, energy_range=band)
    ok = pair_quality(table, axis, band).pairs_ok.to_numpy()
    counts = PairMap(output="density", **args).transform(table)[ok].sum(axis=2)
    null = pair_null(table, pair_edges(8, 2, dt_scale="linear")[0], axis, band)[ok]
    assert np.allclose(null.sum(axis=1), 1) and (null > -1e-12).all()
    error = np.maximum(counts.std(axis=0) / np.sqrt(ok.sum()), 1e-4)
    assert (abs(counts.mean(axis=0) - null.mean(axis=0)) < 4.5 * error).all()
    excess = PairMap(output="excess", **args).transform(table)[ok]
    assert abs(excess.sum(axis=(1, 2))).max() < 1e-5
    assert (abs(excess.mean(axis=0)) < 4.5 * np.maximum(excess.std(axis=0) / np.sqrt(ok.sum()), 1e-4)).all()


def test_ratio_is_one_for_a_constant_source_and_large_for_a_flare():
    rng = np.random.default_rng(1)
    t = np.sort(rng.uniform(0, 1000, 3000))
    t = t[in_gti(t, GTI)]
    args = dict(n_dt=5, n_de=2, dt_scale="linear", output="ratio", time_axis="exposure")
    assert np.allclose(PairMap(**args).transform(EventList(t, rng.uniform(500, 7000, len(t)), "c", GTI)), 1, atol=0.1)
    assert PairMap(**args).transform(flare())[0, 0].min() > 1.3


def test_shift_and_stretch_of_time_change_nothing():
    ev = flare()
    ref = PairMap(time_axis="exposure", output="excess").transform(ev)
    shifted = EventList(ev.time + 4096.0, ev.energy, ev.id, GTI + 4096.0)
    stretched = EventList(ev.time * 8, ev.energy, ev.id, GTI * 8)
    assert np.allclose(PairMap(time_axis="exposure", output="excess").transform(shifted), ref, atol=1e-4)
    assert np.allclose(PairMap(time_axis="exposure", output="excess").transform(stretched), ref, atol=1e-6)


@pytest.mark.parametrize("bad, named", [
    (dict(output="log"), "output"), (dict(time_axis="gps"), "time_axis"), (dict(dt_scale="sqrt"), "dt_scale"), (dict(de_scale=1), "de_scale"),
    (dict(n_dt=0), "n_dt"), (dict(n_de=2.5), "n_de"), (dict(dt_min=0), "dt_min"), (dict(dt_min=1), "dt_min"), (dict(energy_range=(7000, 500)), "energy_range"),
    (dict(max_pairs=0), "max_pairs"), (dict(max_pairs=1.5), "max_pairs"), (dict(signed="yes"), "signed"), (dict(random_state=-1), "random_state"), (dict(random_state=None), "random_state")])
def test_bad_parameters_are_named(bad, named):
    with pytest.raises(ValueError, match=f"`{named}`"): PairMap(**bad).fit()
    with pytest.raises(ValueError, match=f"`{named}`"): PairMap(**bad).transform(flare())


def test_bad_data_are_refused():
    with pytest.raises(TypeError, match="expected an EventTable"): PairMap().transform([[1, 2]])
    with pytest.raises(EventDataError, match="no energies"): PairMap().transform(EventList([1.0, 2]))
    with pytest.raises(EventDataError, match="exposure of 1 of 1"): PairMap(time_axis="exposure").transform(EventList([1.0, 2], [900, 900]))
    elsewhere = EventList([1.0, 2], [900, 900], "1_1", [[0, 1], [2, 3]])  # from the end of one interval to the start of the next
    assert PairMap(output="excess").transform(elsewhere).sum() == pytest.approx(0, abs=1e-6)  # float32 sums of shares below 1
    assert PairMap().transform(elsewhere).sum() == pytest.approx(1)  # plain counting needs no GTIs


def test_empty_table_and_scikit_learn():
    empty = EventTable.from_lists([flare()])[[]]
    assert PairMap(output="excess").transform(empty).shape == (0, 24, 16) and len(pair_quality(empty)) == 0
    table = EventTable.from_lists([EventList(e.time, e.energy, f"{k}_1", GTI) for k, e in enumerate(flare(60, seed) for seed in range(12))])
    rows = make_pipeline(clone(PairMap(output="excess")), Flatten(), PCA(3)).fit_transform(table)
    assert rows.shape == (12, 3) and np.isfinite(rows).all()
    assert len(PairMap(5, 4).get_feature_names_out()) == 20 and PairMap(5, 4).transform(table).shape[1:] == (5, 4)
    assert EtMap().transform(table).shape == PairMap().transform(table).shape


def test_plot():
    m = PairMap().transform(flare())[0]
    ax = plot_pairs(m)
    assert ax.get_xscale() == "log" and "T" in ax.get_xlabel()
    assert plot_pairs(m, pair_edges(dt_scale="linear"), colorbar=False).get_xscale() in ("linear", "log")
    with pytest.raises(ValueError, match="`pairs` has shape"): plot_pairs(m, pair_edges(5, 5))
