"""Hardness, odds, blocks and catalogue columns against brute force, other implementations and the real XRT 200515."""

import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from astropy.stats import bayesian_blocks as astropy_blocks
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import betainc

from xrt_nb import features as F
from xrt_nb import properties as pr
from xrt_nb.data import EventDataError, EventList, EventTable, XRTWarning, in_gti
from xrt_nb.fits import read_event_list
from xrt_nb.regions import region_from_text

quiet = settings(deadline=None, max_examples=30)
REAL = Path(__file__).parent.parent / os.environ.get("XRT_NB_SHARED", "../shared") / "data" / "xrt200515"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the real files of XRT 200515 are not here (XRT_NB_SHARED)")


# --- hardness -----------------------------------------------------------------------------------------------------


def marginal(n, b, r, bins=400):
    "Edges of a grid of source rates and the probability in each cell, the background rate integrated out."
    edges = (n + 9 * np.sqrt(n + 1) + 12) * np.linspace(0, 1, bins + 1) ** 2  # finer towards zero
    node, weight = np.polynomial.legendre.leggauss(80)
    xi = (node + 1) / 2 * (b + 9 * np.sqrt(b + 1) + 12) / r
    total = (edges[1:] + edges[:-1])[:, None] / 2 + xi
    p = np.exp(n * np.log(total / (n + 1)) - total + n) @ (weight * np.exp(b * np.log(r * xi / (b + 1)) - r * xi + b))
    p *= np.diff(edges)
    return edges, p / p.sum()


def brute_force(h, s, hb, sb, r, level=0.68, response=1.0):
    "Mean and equal-tailed limits of the hardness ratio from a two-dimensional integral over both source rates."
    (eh, ph), (es, ps) = marginal(h, hb, r), marginal(s, sb, r)
    lh, ls = (eh[1:] + eh[:-1]) / 2 / response, (es[1:] + es[:-1]) / 2
    x = np.linspace(-1, 1, 402)[1:-1]
    below = np.interp(np.outer((1 + x) / (1 - x) * response, ls), eh, np.r_[0, np.cumsum(ph)]) @ ps  # P(hard rate < that of this ratio)
    return ph @ ((lh[:, None] - ls) / (lh[:, None] + ls)) @ ps, *np.interp([(1 - level) / 2, (1 + level) / 2], below, x)


def test_hardness_against_two_dimensional_integration():
    rng = np.random.default_rng(12)
    cases = np.c_[rng.integers(0, 60, (200, 2)), rng.integers(0, 80, (200, 2))].astype(float)
    ratio = rng.uniform(1.5, 40, 200)
    ours = np.transpose(pr.hardness_ratio(*cases.T, ratio))
    assert np.abs(ours - [brute_force(*c, r) for c, r in zip(cases, ratio)]).max() < 1e-3


@pytest.mark.parametrize("response", [0.2, 4.0])
def test_hardness_of_fluxes(response):
    for case in ((3, 9, 4, 8, 6.0), (20, 5, 0, 3, 10.0), (0, 0, 2, 2, 5.0)):
        assert np.allclose(pr.hardness_ratio(*case, response=response), brute_force(*case, response=response), atol=1e-3)


@quiet
@given(h=st.integers(0, 100_000), s=st.integers(0, 100_000), hb=st.integers(0, 2000), sb=st.integers(0, 2000), r=st.floats(0.1, 1000))
def test_hardness_is_stable_and_symmetric(h, s, hb, sb, r):
    mean, low, high = pr.hardness_ratio(h, s, hb, sb, r)
    assert -1 <= low < mean < high <= 1 or math.isclose(low, high, abs_tol=1e-4)
    assert np.allclose(pr.hardness_ratio(s, h, sb, hb, r), (-mean, -high, -low), atol=1e-9)


def test_hardness_quantiles_are_quantiles():
    h, s, hb, sb, r = 20_000.0, 6_000.0, 4_000.0, 18_000.0, 5.0
    (k, v), (j, w) = pr._own_photons(h, hb, r), pr._own_photons(s, sb, r)
    for q, x in zip((0.16, 0.84), pr.hardness_ratio(h, s, hb, sb, r)[1:]):
        k_all, j_all = k + np.arange(len(v)), j + np.arange(len(w))
        cdf = sum(a * (w @ betainc(x_k + 1, j_all + 1, (x + 1) / 2)) for a, x_k in zip(v, k_all) if a > 1e-9)
        assert cdf == pytest.approx(q, abs=1e-6)


def test_hardness_without_background_is_that_of_the_features():
    h, s = np.random.default_rng(1).integers(0, 200, (2, 5, 7))
    for ours, theirs in zip(pr.hardness_ratio(h, s), F.hardness(h, s, 0.68)):
        assert ours.shape == (5, 7) and np.allclose(ours, theirs, atol=1e-10)
    assert isinstance(float(pr.hardness_ratio(3, 4)[0]), float) and np.ndim(pr.hardness_ratio(3, 4)[0]) == 0
    assert np.array_equal(pr.hardness_ratio(h, 3)[0], pr.hardness_ratio(h, np.full_like(h, 3))[0])


@pytest.mark.parametrize("args, says", [
    ((-1, 2), "`hard`"), ((1, 0.5), "`soft`"), ((np.nan, 1), "`hard`"), ((1, 2, np.inf), "`hard_bkg`"), ((1, 2, 0, -3), "`soft_bkg`"),
    ((1, 2, 0, 0, 0.0), "`area_ratio`"), ((1, 2, 0, 0, np.nan), "`area_ratio`"), ((1, 2, 0, 0, 1.0, 0.0), "`level`"), ((1, 2, 0, 0, 1.0, 1.0), "`level`")])
def test_hardness_refuses(args, says):
    with pytest.raises(ValueError, match=says):
        pr.hardness_ratio(*args)


# --- Gregory and Loredo ---------------------------------------------------------------------------------------------


def direct(u, m_max, gti=None):
    "The formula as it stands; `gti` as fractions of the window."
    out = []
    for m in range(2, m_max + 1):
        n = np.zeros(m, int)
        for x in u:
            n[min(int(x * m), m - 1)] += 1
        total = sum(math.lgamma(k + 1) for k in n) + len(u) * math.log(m) + math.lgamma(m) - math.lgamma(len(u) + m)
        if gti is not None:
            a = [sum(max(min(b, (j + 1) / m) - max(a, j / m), 0) for a, b in gti) * m for j in range(m)]
            mean = np.diff(gti).sum()
            total += sum(k * (math.log(mean) - math.log(x)) for k, x in zip(n, a) if k and x > 1e-6 * mean)
        out.append(total)
    return np.array(out)


@quiet
@given(n=st.sampled_from([1, 2, 7, 40, 300, 2500]), seed=st.integers(0, 10**6), m_max=st.integers(2, 60), gaps=st.integers(0, 4))
def test_odds_against_the_formula(n, seed, m_max, gaps):
    rng = np.random.default_rng(seed)
    edges = np.r_[0, np.sort(rng.uniform(0, 1e4, 2 * gaps)), 1e4].reshape(-1, 2)
    t = np.sort(rng.uniform(0, 1e4, n * (1 + gaps) * 4))
    t = t[in_gti(t, edges)][:n]
    if rng.random() < 0.5:
        t = np.floor(t)[in_gti(np.floor(t), edges)]  # read out in frames of a second
    if len(t) < 2:
        return
    ours = pr.gregory_loredo(EventList(t, id="x", gti=edges), m_max)
    expected = direct(t / 1e4, m_max, edges / 1e4 if gaps else None)
    assert np.allclose(ours.log_odds_m, expected, rtol=1e-9, atol=1e-9)
    c = np.logaddexp.accumulate(expected) - np.log(np.arange(1, m_max))
    used = np.flatnonzero(c >= c.max() - 0.5)[-1]
    assert ours.log_odds == pytest.approx(c[used], rel=1e-9, abs=1e-9) and ours.m_used == used + 2
    assert ours.probability == pytest.approx(1 / (1 + math.exp(-c[used])), abs=1e-9)


def test_a_gap_is_not_variability():
    rng = np.random.default_rng(3)
    gti = np.array([[0, 1e4], [3e4, 4e4]])
    t = np.sort(np.r_[rng.uniform(0, 1e4, 150), rng.uniform(3e4, 4e4, 150)])
    assert pr.gregory_loredo(EventList(t, gti=gti)).probability < 0.5
    assert pr.gregory_loredo(EventList(t, gti=[[0, 4e4]])).index == 10
    assert pr.gregory_loredo(EventList(t, gti=gti), time_axis="livetime").probability < 0.5


def test_the_best_light_curve():
    rng = np.random.default_rng(4)
    t = np.sort(np.r_[rng.uniform(0, 2e4, 200), rng.uniform(5e3, 1e4, 600)])
    gl = pr.gregory_loredo(EventList(t, gti=[[0, 2e4]]), 40)
    lc = gl.light_curve
    inside = lc.time_ks.between(5.5, 9.5)
    assert lc.rate[inside].mean() == pytest.approx(200 / 2e4 + 600 / 5e3, rel=0.1) and lc.rate[lc.time_ks > 11].mean() == pytest.approx(0.01, rel=0.2)
    assert (lc.sigma > 0).all() and lc.exposure.sum() == pytest.approx(2e4)
    flat = pr.gregory_loredo(EventList(np.sort(rng.uniform(0, 2e4, 2000)), gti=[[0, 2e4]]), 40)
    assert np.allclose(flat.light_curve.rate, 0.1, rtol=0.1) and flat.within == (1, 1) and flat.index == 0


def test_light_curve_against_the_formula():
    t = np.sort(np.random.default_rng(6).beta(2, 3, 50) * 1e4)
    gl = pr.gregory_loredo(EventList(t, gti=[[0, 1e4]]), 12, n_bins=30)
    weight = np.exp(gl.log_odds_m.to_numpy()[:gl.m_used - 1]) / (gl.m_used - 1) / (1 + np.exp(gl.log_odds))
    rate = np.full(30, 1 - weight.sum())
    for m, w in zip(range(2, gl.m_used + 1), weight):
        n = np.histogram(t, m, (0, 1e4))[0]
        rate += w * m / (50 + m) * (n[((np.arange(30) + 0.5) / 30 * m).astype(int)] + 1)
    assert np.allclose(gl.light_curve.rate, rate * 50 / 1e4, rtol=1e-9)


@pytest.mark.parametrize("p, flat, index", [(0.2, 0, 0), (0.5, 1, 0), (0.6, 1, 1), (0.7, 1, 2), (0.59, 0, 3), (0.65, 0, 4), (0.89, 0, 5), (0.95, 1, 6), (0.95, 0, 6)])
def test_index_table(p, flat, index):
    assert pr.variability_index(math.log(p / (1 - p)), flat, flat) == index
    assert pr.variability_index(math.log(10) * np.array([2, 5, 11, 40]), flat, flat).tolist() == [7, 8, 9, 10]


def archive(seed=0, sources=40):
    "Sources of all sorts, some with gaps, some without photons."
    rng, lists = np.random.default_rng(seed), []
    for k in range(sources):
        gti = np.array([[0, 6e3], [7e3, 9e3]]) if k % 3 else np.array([[0, 9e3]])
        t = np.sort(rng.beta(*((1, 1), (3, 3))[k % 2], rng.choice([0, 1, 2, 20, 200])) * 9e3)
        t = t[in_gti(t, gti)]
        lists.append(EventList(t, 10 ** rng.uniform(2.7, 3.8, len(t)), f"{k}_1", gti, {"area_ratio": 12.0}))
    return EventTable.from_lists(lists)


def test_the_table_is_the_single_sources():
    events = archive()
    table = pr.gregory_loredo_table(events)
    for ev in events:
        row = table.loc[ev.id]
        if len(ev) < 2:
            assert row.tolist()[:3] == [0, 0.5, 0]
            continue
        one = pr.gregory_loredo(ev)
        assert row.log_odds == pytest.approx(one.log_odds, abs=1e-9) and (row.var_index, row.m_used) == (one.index, one.m_used)
    assert len(pr.gregory_loredo_table(events[:0])) == 0
    pd.testing.assert_frame_equal(table.iloc[::-1], pr.gregory_loredo_table(events[::-1]))


def test_odds_refuse():
    ev = EventList([1.0, 2.0, 3.0], id="a", gti=[[0, 5000]])
    for wrong in (1, 0, 2.5):
        with pytest.raises(ValueError, match="`m_max`"):
            pr.gregory_loredo(ev, wrong)
    with pytest.raises(EventDataError, match="unknown"):
        pr.gregory_loredo(EventList([1.0, 2.0], id="a"))
    with pytest.raises(EventDataError, match="0 events"):
        pr.gregory_loredo(EventList([], id="a", gti=[[0, 1]]))
    with pytest.raises(EventDataError, match="detection 'a': 1 of 2 events .* lie outside its exposure"):
        pr.gregory_loredo(EventList([-9.0, 2.0], id="a", meta={"t_start": 0, "t_stop": 1000}))
    with pytest.raises(TypeError, match="gregory_loredo_table"):
        pr.gregory_loredo(archive())
    assert pr.gregory_loredo(EventList([1.0, 2.0, 9.0]), 5, time_axis="events").m_used <= 5


def test_probability_is_no_p_value_but_bounded():
    rng = np.random.default_rng(9)
    n, s = 60, 800
    t = np.sort(rng.uniform(0, 3e4, (s, n)), axis=1).ravel()
    flat = EventTable([str(k) for k in range(s)], np.arange(s + 1) * n, t, gti=np.tile([[0.0, 3e4]], (s, 1)), gti_offsets=np.arange(s + 1))
    odds = pr.gregory_loredo_table(flat, threshold=1e9)["log_odds"]  # all m: a proper Bayes factor, whose mean under a constant rate is 1
    assert (odds > math.log(20)).mean() < 1 / 20 and (odds > 0).mean() < 0.4


def test_chance_is_a_p_value():
    gti = np.array([[0, 1e4], [1.5e4, 2e4]])
    def one(k):
        rng = np.random.default_rng([5, k])
        t = np.sort(rng.uniform(0, 2e4, 40))
        return pr.chance_of_odds(EventList(t[in_gti(t, gti)], gti=gti), 99, rng, 60)
    p = np.array([one(k) for k in range(120)])
    assert scipy.stats.kstest(p, "uniform").pvalue > 1e-3 and p.min() >= 0.01
    ev = EventList(np.sort(np.random.default_rng(0).uniform(0, 9, 30)), gti=[[0, 9]])
    assert pr.chance_of_odds(ev, 50, 3) == pr.chance_of_odds(ev, 50, 3)


# --- Bayesian blocks ------------------------------------------------------------------------------------------------


@quiet
@given(n=st.sampled_from([2, 3, 10, 60, 200]), seed=st.integers(0, 10**6), frames=st.booleans())
def test_blocks_are_those_of_astropy(n, seed, frames):
    rng = np.random.default_rng(seed)
    t = np.sort(np.r_[rng.uniform(0, 1e4, n), rng.normal(5e3, 100, n)])
    t = np.floor(t / 3.2) * 3.2 if frames else t
    if np.ptp(t) == 0:
        return
    ours = pr.bayesian_blocks(EventList(t), time_axis="events")
    assert np.allclose(np.r_[ours.start, ours.stop.iloc[-1]], astropy_blocks(t, fitness="events", p0=0.01), atol=1e-6)
    assert ours.counts.sum() == len(t)


def test_blocks_know_the_silence_and_the_gaps():
    rng = np.random.default_rng(2)
    late = EventList(np.sort(rng.uniform(8e3, 1e4, 60)), gti=[[0, 1e4]])
    assert len(pr.bayesian_blocks(late)) == 2 and len(pr.bayesian_blocks(late, time_axis="events")) == 1
    gti = np.array([[0, 1e3], [9e3, 1e4], [2e4, 2.2e4]])
    t = np.sort(np.r_[rng.uniform(0, 1e3, 50), rng.uniform(9e3, 1e4, 50), rng.uniform(2e4, 2.2e4, 100)])
    one = pr.bayesian_blocks(EventList(t, gti=gti))
    assert len(one) == 1 and one.loc[0, ["start", "stop", "livetime", "counts"]].tolist() == [0, 2.2e4, 4e3, 200]
    assert len(pr.bayesian_blocks(EventList(t, gti=gti), time_axis="exposure")) > 1
    flare = pr.bayesian_blocks(EventList(np.sort(np.r_[t, rng.uniform(9.4e3, 9.5e3, 60)]), gti=gti))
    top = flare.loc[flare.rate.idxmax()]
    assert 9.35e3 < top.start < 9.45e3 < top.stop < 9.55e3 and flare.livetime.sum() == pytest.approx(4e3)
    assert ((flare.rate_low < flare.rate) & (flare.rate < flare.rate_high)).all()
    with pytest.raises(ValueError, match="`p0`"):
        pr.bayesian_blocks(late, 0)


# --- columns --------------------------------------------------------------------------------------------------------


def test_columns_against_plain_counting():
    events, background = archive(1), archive(1)
    c = pr.catalog_columns(events, background)
    assert list(c.index) == list(events.ids) and np.isfinite(c.to_numpy(float)).all()
    for ev in events:
        n = {b: int(((ev.energy >= lo) & (ev.energy < hi)).sum()) for b, (lo, hi) in pr.CATALOG_BANDS.items()}
        row = c.loc[ev.id]
        assert [row[f"cnts_aper_{b}"] for b in n] == list(n.values()) == [row[f"cnts_aperbkg_{b}"] for b in n]
        assert row.src_cnts_aper_b == pytest.approx(n["b"] * (1 - 1 / 12)) and row.src_cnts_aper_b_lolim <= row.src_cnts_aper_b < row.src_cnts_aper_b_hilim
        assert [row.hard_hm, row.hard_hm_lolim, row.hard_hm_hilim] == pytest.approx(pr.hardness_ratio(n["h"], n["m"], n["h"], n["m"], 12.0), abs=1e-9)
        keep = ev.energy < 1200
        if keep.sum() > 1:
            soft = pr.gregory_loredo(EventList(ev.time[keep], gti=ev.gti))
            if (ev.energy >= 500).all():
                assert row.var_prob_s == pytest.approx(soft.probability, abs=1e-9) and row.var_index_s == soft.index


def test_no_background_and_an_empty_background_differ():
    events = archive(2, 3)
    empty = EventTable.from_lists([EventList([], [], ev.id, ev.gti) for ev in events])
    none, zero = pr.catalog_columns(events), pr.catalog_columns(events, empty, 1.0)
    full = np.array(none.cnts_aper_h + none.cnts_aper_s > 0)
    assert "cnts_aperbkg_b" in zero and "cnts_aperbkg_b" not in none and full.any()
    assert not np.allclose(none.hard_hs[full], zero.hard_hs[full], atol=1e-4)


def test_columns_refuse():
    events = archive(3, 5)
    with pytest.raises(EventDataError, match="no detection '4_1'"):
        pr.catalog_columns(events, events[:4])
    with pytest.raises(ValueError, match="`areas` must name"):
        pr.catalog_columns(events, areas={"s": 1.0})
    with pytest.raises(ValueError, match="`area_ratio`"):
        pr.catalog_columns(events, events, -1)
    events.meta = events.meta.drop(columns="area_ratio")
    with pytest.raises(ValueError, match="`area_ratio`"):
        pr.catalog_columns(events, events)


def test_without_energies_timing_is_the_same_and_the_rest_is_missing():
    full = archive(6, 5)
    full.energy = np.full(full.n_events, 1000.0)
    bare = EventTable(full.ids, full.offsets, full.time, None, full.gti, full.gti_offsets, full.meta)
    want = pr.catalog_columns(full, full)
    with pytest.warns(XRTWarning, match="no energies"):
        have = pr.catalog_columns(bare, full)
    assert list(have) == list(want)
    timing = [c for c in have if c.endswith(("_b", "_b_lolim", "_b_hilim"))]
    pd.testing.assert_frame_equal(have[timing], want[timing])
    assert have.drop(columns=timing).isna().all(axis=None)


def test_what_the_catalogue_said_is_not_overwritten():
    events = archive(4, 4)
    events.meta["hard_hs"] = [0.1, 0.2, 0.3, 0.4]
    new = pd.DataFrame({"hard_hs": 9.0, "more": 1}, index=events.ids[::-1])
    with pytest.raises(EventDataError, match="hard_hs already"):
        pr.add_columns(events, new)
    both = pr.add_columns(events, new, suffix="_photons")
    assert both.meta["hard_hs"].tolist() == [0.1, 0.2, 0.3, 0.4] and (both.meta["hard_hs_photons"] == 9).all()
    assert (pr.add_columns(events, new, overwrite=True).meta["hard_hs"] == 9).all() and events.meta["hard_hs"].tolist() == [0.1, 0.2, 0.3, 0.4]
    assert both == events and list(both.meta.index) == list(events.ids)
    with pytest.raises(EventDataError, match="no row for 3 of 4"):
        pr.add_columns(events, new.iloc[:1])


@needs_real
def test_xrt_200515():
    annulus = region_from_text("physical\nannulus(2858.55,4712.93,60,200)")
    evt = REAL / "acisf23022_000N027_r0122_regevt3.fits.gz"
    ev = read_event_list(evt, REAL / "acisf23022_000N020_r0122_reg3.fits.gz", background=annulus)
    row = pr.catalog_columns(ev, read_event_list(evt, annulus, id=ev.id)).loc["23022_122"]
    assert (row.cnts_aper_b, row.cnts_aper_s, row.cnts_aper_m, row.cnts_aper_h) == (188, 7, 28, 153)
    assert row.var_index_b == 10 and row.var_prob_b == 1 and row.hard_hs > 0.85  # in counts; the catalogue's 0.607 is of fluxes
    assert row.cnts_aperbkg_b == ev.meta["n_background"]
    blocks = pr.bayesian_blocks(ev)
    top = blocks.loc[blocks.rate.idxmax()]
    assert top.start == pytest.approx(705955015, abs=10) and top.counts > 20


def test_the_chance_of_an_index_and_of_odds_are_those_of_constant_lists():
    from xrt_nb.properties import chance_of_index, constant_lists, gregory_loredo_table, odds_chances

    found = chance_of_index([20], 6, n_sims=200, rng=5).loc[20]
    by_hand = (gregory_loredo_table(constant_lists(20, 200, np.random.default_rng(5))).var_index >= 6).mean()
    assert found.chance == by_hand and found.low <= found.chance <= found.high
    lists = constant_lists(15, 60, 2)
    p = odds_chances(lists, 19, rng=1)
    assert p.between(1 / 20, 1).all() and (p * 20).round(9).isin(range(1, 21)).all()
    first = lists.ids[:7].tolist()
    assert odds_chances(lists[first], 19, rng=1).equals(odds_chances(lists[first], 19, rng=1))
    odds = gregory_loredo_table(lists).log_odds
    assert np.corrcoef(p.rank(), -odds.rank())[0, 1] > 0.9  # higher odds, smaller chance
