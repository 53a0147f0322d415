"Rate maps: the same numbers as by hand, masks, backgrounds, and what is refused."
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from xrt_nb.data import EventDataError, EventList, EventTable, livetime_at
from xrt_nb.invariant import time_profile
from xrt_nb.representations import CHANNELS, EtMap, Flatten, RateMap, exposure_map, good_time


@pytest.fixture(scope="module")
def table():
    "Lists of 0 to 300 photons with no gap, one or two, and energies."
    rng, lists = np.random.default_rng(4), []
    for k, n in enumerate([0, 1, 2, 40, 300, 120]):
        gti = np.array([[[0, 9e3], [12e3, 30e3]], [[0, 30e3]], [[0, 4e3], [5e3, 20e3], [29e3, 30e3]]][k % 3], float) + 1e8 * k
        u = np.sort(rng.uniform(0, np.diff(gti).sum(), n))
        edge = np.r_[0, np.cumsum(np.diff(gti)[:, 0])]
        row = np.searchsorted(edge, u, side="right") - 1
        lists.append(EventList(gti[row, 0] + u - edge[row], rng.uniform(600, 6900, n), f"1_{k}", gti))
    return EventTable.from_lists(lists)


def sky_of(table, seed=0, ratio=5.0, n=200):
    "Background lists: photons anywhere in good time."
    rng, lists = np.random.default_rng(seed), []
    for x in table:
        k = rng.integers(0, len(x.gti), n)
        lists.append(EventList(np.sort(rng.uniform(*x.gti[k].T)), rng.uniform(600, 6900, n), x.id, x.gti, {"area_ratio": ratio}))
    return EventTable.from_lists(lists)


@pytest.mark.parametrize("n_time, n_energy", [(24, 16), (7, 1), (1, 3)])
def test_channels_by_hand(table, n_time, n_energy):
    sky = sky_of(table)
    made = RateMap(n_time, n_energy, channels=CHANNELS, background=sky).transform(table)
    assert made.shape == (6, 4, n_time, n_energy) and made.dtype == np.float32 and np.isfinite(made).all()
    counts = EtMap(n_time, n_energy, time_axis="exposure").transform(table)
    for s, x in enumerate(table):
        edges = np.linspace(x.gti[0, 0], x.gti[-1, 1], n_time + 1)
        live = np.diff(livetime_at(edges, x.gti))
        seen = live >= 0.1 * np.diff(edges)
        band = np.geomspace(500, 7000, n_energy + 1)
        b = np.histogram2d(sky[s].time, sky[s].energy, (edges, band))[0] / 5
        c = counts[s] * seen[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            rate = np.where(seen[:, None], counts[s] / live[:, None], 0)
            back = np.where(seen[:, None], b / live[:, None], 0)
        b = b * seen[:, None]
        mean = np.maximum(c.sum(0) - b.sum(0), 0) * (live * seen / (live * seen).sum())[:, None] + b
        assert np.allclose(made[s, 0], rate, rtol=1e-5) and np.allclose(made[s, 1], seen[:, None])
        assert np.allclose(made[s, 2], back, rtol=1e-5)
        assert np.allclose(made[s, 3], (2 * np.sqrt(c + 0.375) - 2 * np.sqrt(mean + 0.375)) * seen[:, None], atol=1e-5)


def test_departures_of_constant_sources_are_noise_of_one():
    rng = np.random.default_rng(1)
    lists = []
    for k in range(300):
        t = np.sort(rng.uniform(0, 30e3, 400))
        lists.append(EventList(t[(t < 9e3) | (t > 15e3)], id=str(k), gti=[[0, 9e3], [15e3, 30e3]]))
    sigma = RateMap(20, 1, channels="sigma").transform(EventTable.from_lists(lists))[:, 0, :, 0]
    seen = RateMap(20, 1, channels="seen").transform(EventTable.from_lists(lists))[0, 0, :, 0] > 0
    assert seen.sum() == 16 and abs(sigma[:, seen].std() - 1) < 0.05 and (sigma[:, ~seen] == 0).all()


def test_without_gaps_the_rate_is_the_map_over_time(table):
    x = table["1_4"]
    rates = RateMap(channels="rate").transform(x)[0, 0]
    assert np.allclose(rates * 30e3 / 24, EtMap(time_axis="exposure").transform(x)[0], rtol=1e-6)


@pytest.mark.parametrize("axis", ["exposure", "livetime", "events"])
def test_every_axis_counts_every_photon(table, axis):
    good = good_time(table, 12, axis)
    rates = RateMap(12, 1, channels="rate", time_axis=axis, min_exposure=1e-9).transform(table)[:, 0, :, 0]
    width = good.sum(axis=1) > 0
    assert np.allclose((rates * good).sum(axis=1)[width], table.counts[width], rtol=1e-5)


def test_pipelines_names_and_clones(table):
    rows = make_pipeline(clone(RateMap(3, 2)), Flatten()).set_output(transform="pandas").fit_transform(table)
    assert rows.shape == (6, 12) and rows.columns[0] == "rate_t00_e00" and rows.columns[-1] == "seen_t02_e01"
    again = clone(RateMap(3, 1, channels="sigma", background=sky_of(table)))
    assert np.isfinite(again.transform(table)).all()


def test_times_alone(table):
    bare = EventTable(table.ids, table.offsets, table.time, None, table.gti, table.gti_offsets)
    assert np.array_equal(RateMap(9, 1).transform(bare), RateMap(9, 1).transform(table))
    with pytest.raises(EventDataError, match="n_energy=1"):
        RateMap(9, 2).transform(bare)


def test_refusals(table):
    sky = sky_of(table)
    with pytest.raises(EventDataError, match="'1_5' has no background"):
        RateMap(4, 1, background=sky[:5]).transform(table)
    with pytest.raises(ValueError, match="`channels`"):
        RateMap(channels=()).fit(table)
    with pytest.raises(ValueError, match="`min_exposure`"):
        RateMap(min_exposure=0).fit(table)
    with pytest.raises(EventDataError, match="no GTIs"):
        RateMap(4, 1).transform(EventList([1.0, 2], id="a"))
    zero = EventList([1.0], id="a", meta={"t_start": 1.0, "t_stop": 1.0})
    with pytest.raises(EventDataError, match="enclose no time"):
        RateMap(4, 1).transform(zero)


def test_one_place_for_good_time(table):
    good = good_time(table, 10)
    assert np.allclose(exposure_map(table, 10), good / good.mean(axis=1, keepdims=True))
    seen = time_profile(table, 10)[1]
    assert (seen == (good / 3000 >= 0.25)).all()
