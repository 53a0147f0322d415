"""Events of known truth in steady lists: what is put in, what is lost, and what the efficiency fit says of it."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from xrt_nb.data import EventDataError, EventList, EventTable
from xrt_nb.injection import (PERIOD, efficiency_table, event_times, fit_efficiency, good_moments, inject, recover,
                              threshold_at)


def steady(n=6, counts=60, gti=((0, 4000), (7000, 13_000)), energies=True, frame=0.0, seed=3):
    "Lists with uniform photons in their good times."
    rng, gti = np.random.default_rng(seed), np.array(gti, float)
    ends, out = np.cumsum(gti[:, 1] - gti[:, 0]), []
    for k in range(n):
        at = np.sort(rng.uniform(0, ends[-1], counts))
        row = np.searchsorted(ends, at, side="right")
        time = gti[row, 1] - (ends[row] - at)
        meta = {"frame_time": frame} if frame else {}
        out.append(EventList(time, rng.uniform(500, 7000, counts) if energies else None, f"s{k}", gti, meta))
    return EventTable.from_lists(out)


@pytest.mark.parametrize("shape", ["box", "gauss", "fred", "eruptions"])
def test_every_old_photon_stays_and_new_ones_lie_in_good_time(shape):
    table = steady()
    new, truth = inject(table, shape, 30, 800, random_state=5)
    assert (new.counts - table.counts == truth["seen"]).all() and (truth["seen"] >= 0).all()
    for old, one in zip(table, new):
        assert np.isin(old.time, one.time).all() and np.isin(old.energy, one.energy).all()
        assert (one.time[:, None] >= one.gti[:, 0]).any(1).all()
        assert ((one.time[:, None] >= one.gti[:, 0]) & (one.time[:, None] <= one.gti[:, 1])).any(1).all()


def test_the_gaussian_is_scipys():
    wide = EventList([5e4], [1000.0], "a", [[0, 1e5]])
    new, _ = inject(wide, "gauss", 4000, 1000, peak=[5e4], random_state=1)
    own = new.time[new.time != 5e4]
    sigma = 1000 / (2 * stats.norm.ppf(0.95))
    assert stats.kstest(own, stats.norm(5e4, sigma).cdf).pvalue > 1e-3
    assert stats.poisson(4000).cdf(len(own)) > 1e-4 and stats.poisson(4000).sf(len(own)) > 1e-4


def test_a_fred_is_two_exponentials():
    x = event_times("fred", np.random.default_rng(2).uniform(size=20_000), 1.0)
    decay = x[x > 0].mean()
    assert stats.kstest(x[x > 0], stats.expon(scale=decay).cdf).pvalue > 1e-3
    assert (x > 0).mean() == pytest.approx(10 / 11, abs=0.02) and -x[x < 0].mean() == pytest.approx(decay / 10, rel=0.1)


def test_eruptions_return():
    wide = EventList([1.0], None, "a", [[0, 60_000]])
    new, _ = inject(wide, "eruptions", 3000, 300, peak=[30_000], random_state=1)
    phase = ((new.time - 30_000) / (PERIOD * 300) + 0.5) % 1 - 0.5
    assert (np.abs(phase) < 0.2).mean() > 0.99
    turns = np.unique(np.round((new.time[1:] - 30_000) / (PERIOD * 300)))
    assert len(turns) >= 30 and set(np.diff(turns)) == {1}


def test_gaps_take_their_share():
    "A box as long as the window loses what falls into the gap."
    table = steady(n=400, counts=5)
    width = 13_000 * 0.9
    _, truth = inject(table, "box", 20, width, peak=np.full(400, 6500.0), random_state=8)
    expected = 400 * 20 * 10 / 13
    assert abs(truth["seen"].sum() - expected) < 5 * np.sqrt(expected)


def test_a_total_dip_leaves_nothing_and_touches_nothing_else():
    table = steady(counts=300)
    new, truth = inject(table, "dip", 60, random_state=4)
    for old, one, row in zip(table, new, truth.itertuples()):
        inside = np.abs(old.time - row.peak_time) <= row.duration / 2
        assert row.seen == -inside.sum() and np.array_equal(one.time, old.time[~inside])
    shallow, part = inject(table, "dip", 60, 6000, random_state=4)
    assert (part["seen"] < 0).all() and (shallow.counts == table.counts + part["seen"]).all()


def test_impossible_dips_are_refused_by_name():
    with pytest.raises(EventDataError, match="'s0': a dip can't take away 61 photons where 60 are"):
        inject(steady(), "dip", 61)
    with pytest.raises(EventDataError, match="longer duration"):
        inject(steady(), "dip", 10, 100)


def test_photons_stay_on_frames_and_without_energies_none_appear():
    table = EventTable.from_lists([EventList(3.2 * np.arange(50.0), None, "a", [[0, 200]])])
    new, _ = inject(table, "box", 50, 100, frame_time=3.2, random_state=1)
    assert np.allclose(new.time / 3.2, np.round(new.time / 3.2)) and new.energy is None
    assert len(new.time) > 60


@pytest.mark.parametrize("name", ["timedel", "frame_time", None])
def test_frames_are_told_under_any_name_or_found(name):
    table = steady(counts=80)
    frame = 2.7
    time = np.sort(np.floor(table.time / frame) * frame)
    meta = None if name is None else pd.DataFrame({name: [frame] * len(table)}, index=table.ids)
    framed = EventTable(table.ids, table.offsets, np.maximum(time, 0), None, table.gti - [frame, 0], table.gti_offsets, meta)
    new, truth = inject(framed, "fred", 60, 500, random_state=2)
    phase = new.time / frame
    assert truth["seen"].sum() > 100 and np.abs(phase - np.round(phase)).max() < 0.01


def test_a_told_frame_time_of_none_is_honored():
    "Zero says that there are no frames, also where the photons seem to have some."
    table = EventTable.from_lists([EventList(3.2 * np.arange(50.0), None, "a", [[0, 200]], {"timedel": 0.0})])
    new, _ = inject(table, "box", 50, 100, random_state=1)
    own = new.time[~np.isin(new.time, table.time)] / 3.2
    assert (np.abs(own - np.round(own)) > 0.01).mean() > 0.9


def test_hardness_is_what_was_asked():
    table = steady(n=50, counts=1)
    new, _ = inject(table, "box", 100, 1000, hardness=-0.5, random_state=1)
    added = new.energy[~np.isin(new.energy, table.energy)]
    assert stats.binomtest(int((added > 2000).sum()), len(added), 0.25).pvalue > 1e-4
    assert added.min() >= 500 and added.max() <= 7000


def test_same_seed_same_lists():
    a, b = (inject(steady(), "fred", 30, 200, random_state=9) for _ in range(2))
    assert a[0] == b[0] and a[1].equals(b[1])
    assert inject(steady(), "fred", 30, 200, random_state=10)[0] != a[0]


def test_moments_are_uniform_in_good_time():
    table = steady(n=2000, counts=1)
    at = good_moments(table, np.random.default_rng(0).random(2000))
    live = np.where(at < 4000, at, at - 3000)
    assert not ((at > 4000) & (at < 7000)).any()
    assert stats.kstest(live, stats.uniform(0, 10_000).cdf).pvalue > 1e-3


def test_the_fit_is_logistic_regression_where_nothing_is_found_by_chance():
    from sklearn.linear_model import LogisticRegression
    rng = np.random.default_rng(4)
    f = rng.choice([5.0, 8, 13, 21, 34, 55], 3000)
    found = rng.random(3000) < 1 / (1 + np.exp(-(np.log(f) - np.log(18)) / 0.4))
    fit = fit_efficiency(efficiency_table(f, found))
    other = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(np.log(f)[:, None], found)
    assert fit.width == pytest.approx(1 / other.coef_[0, 0], rel=1e-3)
    assert np.log(fit.f50) == pytest.approx(-other.intercept_[0] / other.coef_[0, 0], abs=1e-3)
    assert np.log(fit.f90) == pytest.approx(np.log(fit.f50) + fit.width * np.log(9), abs=1e-6)
    assert fit.curve(fit.f90) == pytest.approx(0.9)


def test_the_floor_is_the_false_alarm_rate():
    f = np.repeat([5.0, 10, 20, 40, 80], 2000)
    k = np.array([0.1 + 0.9 / (1 + np.exp(-(np.log(x) - np.log(20)) / 0.3)) for x in (5, 10, 20, 40, 80)])
    found = np.concatenate([np.arange(2000) < round(2000 * e) for e in k])
    fit = fit_efficiency(efficiency_table(f, found), floor=0.1)
    assert fit.middle == pytest.approx(np.log(20), abs=0.01) and fit.curve(fit.f50) == pytest.approx(0.5)
    assert fit.f50 < 20  # chance helps


def test_extremes_are_told_in_words():
    all_ = fit_efficiency(efficiency_table(np.repeat([5.0, 10.0], 9), np.ones(18, bool)))
    assert all_.note.startswith("F50 below 5") and np.isnan(all_.f90)


def test_recover_reaches_the_rate_it_was_asked_for():
    table = steady(n=2000, counts=30)

    def scores(t):
        "Photons in the first half."
        return pd.DataFrame({"first": [float((one.time < 6500).sum()) for one in t]}, index=t.ids)

    found = recover(table, scores, "box", (40,), 500, rate=0.1, random_state=2)
    row = found[found["fluence"] == 0].iloc[0]
    assert row["injected"] == 1000 and row["efficiency"] <= 0.1 + 4 * np.sqrt(0.09 / 1000)
    assert found[found["fluence"] == 40]["efficiency"].iloc[0] > row["efficiency"] + 0.1


def test_thresholds_need_enough_steady_lists():
    with pytest.raises(ValueError, match="needs 1000 steady lists, got 999"):
        threshold_at(np.arange(999), 0.001)


@pytest.mark.parametrize("bad", [dict(shape="spike"), dict(fluence=np.nan), dict(fluence=[1.0, 2.0]), dict(duration=0),
                                 dict(duration=None), dict(hardness=2), dict(frame_time=-1), dict(peak=[np.inf] * 6)])
def test_numbers_that_cannot_be_used_are_refused(bad):
    with pytest.raises(ValueError):
        inject(steady(), **{"shape": "box", "fluence": 5, "duration": 100} | bad)


def test_an_unknown_exposure_is_refused():
    with pytest.raises(EventDataError, match="exposure"):
        inject(EventList([1.0, 2.0], id="a"), "box", 5, 100)
