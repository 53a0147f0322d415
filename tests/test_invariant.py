"""Representations that don't care when it happened: exact on a circle of time, finite always, independent of the other sources."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline

from xrt_nb.data import EventDataError, EventList, EventTable, XRTWarning, in_gti
from xrt_nb.invariant import SCALES, AlignedMap, PeakSpectrum, SortedProfile, WaveletPower, haar_power, sorted_noise, time_profile
from xrt_nb.representations import EtMap, Flatten

quiet = settings(deadline=None, max_examples=40)
ALL = [*(SortedProfile(scale=scale) for scale in SCALES), SortedProfile((12,), smooth=False), AlignedMap(), AlignedMap(align="faintest", stabilize=False),
       WaveletPower(), PeakSpectrum()]
named = pytest.mark.parametrize("rep", ALL, ids=lambda r: type(r).__name__ + str(getattr(r, "scale", getattr(r, "align", ""))))
WINDOW = np.array([[0.0, 960.0]])
GTI = np.array([[0.0, 100], [150, 300], [300, 420], [500, 960]])


def source(seed=0, n=300, gti=WINDOW, id="1_1", flare=400.0):
    rng = np.random.default_rng(seed)
    t = np.r_[rng.uniform(0, 960, n // 2), flare + rng.exponential(30, n - n // 2)]
    t = np.sort(t[in_gti(t, gti)])
    return EventList(t, rng.uniform(500, 7000, len(t)), id, gti)


def flat(rep, events): return rep.transform(events).reshape(1 if isinstance(events, EventList) else len(events), -1)


@named
@quiet
@given(seed=st.integers(0, 10**6), turns=st.integers(1, 23), n=st.sampled_from([3, 10, 60, 400]))
def test_turning_the_circle_of_time_changes_nothing(rep, seed, turns, n):
    rng = np.random.default_rng(seed)
    t, e = np.floor(rng.uniform(0, 960, n) ** 1.5 / 960**0.5) + 0.5, rng.uniform(500, 7000, n)  # half seconds stay off the bins' edges
    step = 960 / 64 if isinstance(rep, WaveletPower) else 960 / 12 if isinstance(rep, SortedProfile) else 960 / 24
    moved = (t + turns * step) % 960
    one, two = (EventList(np.sort(x), e[np.argsort(x, kind="stable")], "1_1", WINDOW) for x in (t, moved))
    if isinstance(rep, (AlignedMap, PeakSpectrum)):
        c = np.bincount((t // 40).astype(int), minlength=24)
        c = np.sort(np.roll(c, 1) + 2 * c + np.roll(c, -1))
        if c[0] == c[1] or c[-1] == c[-2]: return  # of equal bins the first one is taken, and which is first depends on the hour
    assert np.allclose(flat(rep, one), flat(rep, two), atol=1e-9)


@st.composite
def archives(draw):
    "Up to four sources, often of very few photons, with and without gaps, some photons outside band and exposure."
    rng, lists = np.random.default_rng(draw(st.integers(0, 10**6))), []
    for k in range(draw(st.integers(1, 4))):
        n = draw(st.sampled_from([0, 0, 1, 2, 3, 30, 300]))
        gti = draw(st.sampled_from([[[0, 1000]], GTI, [[0, 3], [997, 1000]], [[500, 500.001]], np.c_[np.arange(0, 1000, 100), np.arange(0, 1000, 100) + 5]]))
        t = np.sort(rng.integers(-50, draw(st.sampled_from([-49, 1, 1100])), n)).astype(float)
        e = rng.choice([100.0, 500, 1234.5, 7000, 9000], n)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", XRTWarning)  # photons outside the intervals are left out
            lists.append(EventList(t, e, f"{k}_1", gti))
    return EventTable.from_lists(lists)


@quiet
@given(table=archives(), axis=st.sampled_from(["exposure", "livetime", "events"]))
def test_finite_whatever_comes_and_independent_of_the_others(table, axis):
    order = np.arange(len(table))[::-1]
    for rep in ALL:
        rep = clone(rep).set_params(time_axis=axis)
        x = flat(rep, table)
        assert np.isfinite(x).all() and x.shape == (len(table), len(rep.get_feature_names_out()))
        assert np.allclose(flat(rep, table[order]), x[order], atol=1e-12)
        for s, id in enumerate(table.ids.tolist()): assert np.allclose(flat(rep, table[[id]])[0], x[s], atol=1e-12)
        assert np.array_equal(flat(rep, table), x)
    rate, seen = time_profile(table, time_axis=axis)
    assert np.all(np.isclose(rate.sum(axis=1), 1) | (rate.sum(axis=1) == 0)) and seen.any(axis=1).all() and (rate >= 0).all()


@named
def test_scikit_learn(rep):
    table = EventTable.from_lists([source(s, id=f"{s}_1") for s in range(10)])
    again = clone(rep).set_params(**rep.get_params())
    rows = make_pipeline(again, Flatten(), PCA(3)).fit_transform(table)
    assert rows.shape == (10, 3) and np.isfinite(rows).all()
    names = rep.get_feature_names_out()
    assert len(set(names)) == len(names) == flat(rep, table).shape[1]
    assert len(rep.transform(table[[]])) == 0


def test_gaps_are_not_silence():
    rng = np.random.default_rng(3)
    t = np.sort(rng.uniform(0, 960, 60_000))
    gap = EventList(t[in_gti(t, GTI)], np.full(in_gti(t, GTI).sum(), 1e3), "1_1", GTI)
    rate, seen = time_profile(gap, 24)
    assert 0 < (~seen).sum() < 6 and np.allclose(24 * rate, 1, atol=0.12)
    assert np.allclose(time_profile(gap, 24, time_axis="livetime")[0] * 24, 1, atol=0.12)
    assert np.allclose(time_profile(gap, 24, time_axis="events")[0] * 24, 1, atol=0.12)
    naive = EtMap(24, 1, time_axis="exposure").transform(gap)[0, :, 0]
    assert naive.min() == 0  # what a plain light curve would have shown
    assert abs(SortedProfile(energy_weight=0).transform(gap)).max() < 0.03
    assert AlignedMap().transform(gap).sum(axis=2).min() > 0.15
    assert abs(WaveletPower().transform(gap)[0, :6]).max() < 1 and abs(WaveletPower().transform(gap)[0, 6:]).max() < 0.05


def test_a_photon_of_another_band_changes_nothing():
    ev = source()
    more = EventList(np.r_[ev.time[:1], ev.time, ev.time[-1:]], np.r_[100.0, ev.energy, 9e4], ev.id, WINDOW)
    for rep in ALL: assert np.allclose(flat(rep, more), flat(rep, ev), atol=1e-12)


def test_early_and_late_flares_agree_and_differ_from_a_constant_source():
    early, late = (EventTable.from_lists([source(s + k, id=f"{s}_1", flare=at) for s in range(25)]) for k, at in ((0, 200.0), (100, 650.0)))
    still = EventTable.from_lists([source(s, 2, id=f"{s}_1") for s in range(25)])
    rng = np.random.default_rng(0)
    still = EventTable.from_lists([EventList(np.sort(rng.uniform(0, 960, 300)), rng.uniform(500, 7000, 300), i) for i in still.ids.tolist()])
    still = EventTable.from_lists([EventList(e.time, e.energy, e.id, WINDOW) for e in still])
    def distance(a, b): return np.linalg.norm(a[:, None] - b[None], axis=2).mean()
    for rep, contrast in ((SortedProfile(), 2), (SortedProfile(scale="sigma"), 2), (AlignedMap(), 1.1), (WaveletPower(), 3)):
        a, b, c = (flat(rep, t) for t in (early, late, still))
        assert distance(a, b) < 1.25 * distance(a, a) * 25 / 24 and distance(a, c) > contrast * distance(a, b)
    a, b, c = (flat(EtMap(time_axis="exposure"), t) for t in (early, late, still))
    assert distance(a, b) > distance(a, c) * 0.9  # the E–t map itself: as far as from a constant source


def test_haar_power_by_hand_and_without_bias():
    z2, power = haar_power(np.array([[4.0, 0, 0, 0]]), np.ones((1, 4)), 1)
    assert z2[0] == pytest.approx(4) and power[0] == pytest.approx((2 * (4 - 1)) / (2 * 4))  # two of four positions see the four photons, all on one side
    assert haar_power(np.zeros((1, 8)), np.ones((1, 8)), 2)[0][0] == 1
    rng, cover = np.random.default_rng(1), np.ones((3000, 32))
    cover[:, 5:9] = 0; cover[:, 20:24] = 0.4
    for mean in (0.3, 2, 30):
        for half in (1, 4):
            z2, power = haar_power(rng.poisson(mean * cover).astype(float), cover, half)
            assert abs(z2.mean() - 1) < 0.05 and abs(power.mean()) < 0.05


def test_noise_table_is_seeded_and_flattens():
    n, mean, std = sorted_noise(24)
    assert sorted_noise(24) is sorted_noise(24) and np.array_equal(sorted_noise.__wrapped__(24)[1], mean)
    assert n[0] == 1 and n[-1] == 10_000 and (np.diff(mean, axis=1) <= 1e-12).all() and np.allclose(mean[-1], 24**-0.5, atol=0.01)
    rng = np.random.default_rng(5)
    for count in (20, 300):
        table = EventTable.from_lists([EventList(np.sort(rng.uniform(0, 960, count)), np.full(count, 1e3), f"{k}_1", WINDOW) for k in range(400)])
        x = SortedProfile((24,), energy_weight=0).transform(table)[:, :24]
        assert abs(x.mean(axis=0)).max() < 0.012


@pytest.mark.parametrize("rep, argument", [
    (SortedProfile(n_times=()), "n_times"), (SortedProfile(n_times=(0,)), "n_time"), (SortedProfile(scale=None), "scale"), (SortedProfile(energy_weight=-1), "energy_weight"),
    (SortedProfile(energy_weight=np.nan), "energy_weight"), (SortedProfile(time_axis="gps"), "time_axis"), (SortedProfile(min_exposure=2), "min_exposure"),
    (AlignedMap(align="left"), "align"), (AlignedMap(n_energy=0), "n_energy"), (AlignedMap(energy_range=(2, 1)), "energy_range"), (WaveletPower(n_time=24), "n_time"),
    (WaveletPower(n_time=1), "n_time"), (WaveletPower(time_axis=None), "time_axis"), (PeakSpectrum(prior=0), "prior"), (PeakSpectrum(n_time=1.5), "n_time")])
def test_bad_parameters_are_named(rep, argument):
    for call in (lambda: rep.fit(), lambda: rep.transform(source())):
        with pytest.raises(ValueError, match=f"`{argument}`"): call()


@named
def test_bad_data_are_refused(rep):
    with pytest.raises(TypeError, match="expected an EventTable"): rep.transform([1, 2])
    bare = EventList([1.0, 2], gti=WINDOW)
    if isinstance(rep, (SortedProfile, WaveletPower)): assert np.isfinite(rep.transform(bare)).all()  # timing alone
    else:
        with pytest.raises(EventDataError, match="no energies"): rep.transform(bare)
    with pytest.raises(EventDataError, match="exposure of 1 of 1 detections is unknown"): rep.transform(EventList([1.0, 2], [900, 900]))
    assert np.isfinite(clone(rep).set_params(time_axis="events").transform(EventList([1.0, 2], [900, 900]))).all()
