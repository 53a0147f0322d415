"""Detectors and their nulls: against plain ways of counting, and against constant sources."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from stingray.pulse.pulsar import z_n

from xrt_nb import detectors as det
from xrt_nb import nulls
from xrt_nb.data import EventDataError, EventTable, XRTError
from xrt_nb.detectors import DETECTORS, Scan, detector_scores, pair_score, spread_clock, window_starts
from xrt_nb.nulls import cell_chances, false_alarm_probabilities, simulate_constant, uniform_lists
from xrt_nb.properties import gregory_loredo


def lists(seed, n_lists=5, most=200, gaps=True, frame=0.0):
    "Random photon lists, some with a gap."
    rng, out, gti = np.random.default_rng(seed), {}, []
    for s in range(n_lists):
        start, live = rng.uniform(0, 1e8), rng.uniform(2e3, 9e4)
        good = [[0, live / 3], [live / 2, live * 7 / 6]] if gaps and s % 2 else [[0, live]]
        x = np.sort(rng.uniform(0, live, rng.integers(5, most)))
        t = np.where(x > live / 3, x + live / 6, x) if len(good) > 1 else x
        out[f"7_{s}"] = start + (np.floor(t / frame) * frame if frame else t)
        gti.append(start + np.array(good))
    offsets, ends = (np.r_[0, np.cumsum([len(x) for x in y])] for y in (out.values(), gti))
    return EventTable(list(out), offsets, np.concatenate(list(out.values())), None, np.concatenate(gti), ends)


def tried(first, n):
    k = first
    while k < n:
        yield k
        k = max(k + 1, k * 9 // 8)


@given(st.integers(0, 10_000))
@settings(max_examples=8, deadline=None)
def test_scans_agree_with_all_intervals(seed):
    p = spread_clock(lists(seed, 3, 60))
    for kind, sign in {"excess": 1, "deficit": -1}.items():
        found = Scan(kind).intervals(p)
        for s in range(3):
            u = p.u[p.offsets[s]:p.offsets[s + 1]]
            n, best = len(u), 0.0
            x = u if sign > 0 else np.r_[0, u, 1]
            for k in tried(3 if sign > 0 else 0, n):
                gap = k - sign
                for w in x[gap:] - x[:-gap]:
                    if (k - n * w) * sign > 0: best = max(best, det.interval_score(k, w, n))
            np.testing.assert_allclose(found[s, 0], best, atol=1e-9)
            score, start, stop = found[s]
            if score > 0:
                inside = ((u >= start) & (u <= stop)).sum() if sign > 0 else ((u > start) & (u < stop)).sum()
                np.testing.assert_allclose(det.interval_score(inside, stop - start, n), score, atol=1e-6)


@given(st.floats(0, 400), st.floats(0, 400))
@settings(max_examples=60, deadline=None)
def test_log_chances(n, mu):
    for ours, scipys in ((det.log_at_most(n, mu), scipy.special.gammaincc(n + 1, mu)), (det.log_at_least(n, mu), scipy.special.gammainc(n, mu) if n else 1.0)):
        assert ours <= 1e-12
        if scipys > 1e-290: np.testing.assert_allclose(ours, np.log(scipys), atol=1e-9 + 1e-12 * abs(np.log(scipys)))


@given(st.floats(100, 3e5))
@settings(max_examples=40, deadline=None)
def test_windows_cover_every_moment(live):
    windows = window_starts(live, 20e3) * live
    assert (windows[0] == [0, live]).all() and (windows >= -1e-6).all() and (windows <= live + 1e-6).all()
    assert (np.diff(windows) <= max(20e3, live) + 1e-6).all()
    if live > 20e3:
        rest = windows[1:]
        moments = np.linspace(0, live, 200)
        assert ((rest[:, :1] <= moments + 1e-6) & (moments <= rest[:, 1:] + 1e-6)).any(axis=0).all()
        assert (np.diff(rest) >= 5e3 - 1e-6).all()
    else:
        assert len(windows) == 1


@given(st.integers(0, 300), st.integers(0, 300), st.floats(-0.5, 0.5))
@settings(max_examples=60, deadline=None)
def test_pairs_are_symmetric_and_ordered(a, b, tie):
    assert pair_score(float(a), float(b)) == pair_score(float(b), float(a))
    if a < b: assert pair_score(float(a), b + 1.0) >= pair_score(float(a), float(b)) - 1e-12


def test_gregory_loredo_is_the_librarys():
    table = lists(3, gaps=False)
    scorer = det.GregoryLoredoOdds(m_max=40)
    np.testing.assert_allclose(scorer.score_samples(table), [gregory_loredo(e, 40, time_axis="livetime").log_odds for e in table], atol=1e-9)


def test_z2_is_stingrays():
    table = lists(4, 3, 150)
    p = spread_clock(table)
    best, period, _ = DETECTORS["z2"].search(p)
    for s in range(3):
        m = det.pulse_cells(p.live)[s]
        t = (np.floor(p.u[p.offsets[s]:p.offsets[s + 1]] * m) + 0.5) / m * p.live[s]
        np.testing.assert_allclose(2 * best[s], z_n((t / period[s]) % 1, n=1), rtol=1e-4)


def test_a_frame_time_that_is_told_for_some_is_found_for_the_others():
    table = lists(5, 40, 400, gaps=False, frame=3.241)
    own = EventTable(table.ids, table.offsets, table.time, None, table.gti, table.gti_offsets,
                     meta=pd.DataFrame({"timedel": [3.241] + [np.nan] * 39}, index=table.ids))  # joined with one's own file
    np.testing.assert_allclose(det.frame_times_of(own), 3.241, atol=1e-6)
    told = own.meta.assign(timedel=[3.241, 0.0, -1.0, np.nan] + [np.nan] * 36, frame_time=3.2)
    np.testing.assert_allclose(det.told_frames(told), [3.241, 0.0, -1.0] + [3.2] * 37)
    p = false_alarm_probabilities(own)
    assert (p.p_z2 < 1e-3).sum() == 0  # frames are no period of a source


def test_spreading_keeps_photons_in_their_frame_and_order():
    table = lists(5, 4, 400, gaps=False, frame=3.241)
    np.testing.assert_allclose(det.frame_times_of(table), 3.241, atol=1e-6)
    p = spread_clock(table)
    for s in range(4):
        u, t = p.u[p.offsets[s]:p.offsets[s + 1]], table.time[table.offsets[s]:table.offsets[s + 1]]
        assert (np.diff(u) >= 0).all() and (u >= 0).all() and (u < 1).all()
        exact = (t - table.gti[s, 0]) / p.live[s]
        assert np.abs(u - exact).max() <= 3.241 / p.live[s]


@pytest.mark.parametrize("name", DETECTORS)
def test_scorers_have_scikit_learns_manners(name):
    scorer, table = DETECTORS[name], lists(6)
    twin = clone(scorer).fit(table)
    first = twin.score_samples(table)
    assert first.shape == (5,) and np.isfinite(first).all()
    np.testing.assert_array_equal(first, detector_scores(table)[name])
    np.testing.assert_allclose(twin.score_samples(table[["7_2"]]), first[2:3], rtol=1e-6)


@pytest.mark.parametrize("kind", ["peak", "eclipse"])
def test_cell_chances_against_draws(kind):
    rng = np.random.default_rng(0)
    for n, m in ((20, 50), (200, 20), (900, 100)):
        x = rng.multinomial(n, np.full(m, 1 / m), 40_000)
        x = x.max(axis=1) if kind == "peak" else x.min(axis=1)
        for k in np.unique(x):
            share, p = ((x >= k) if kind == "peak" else (x <= k)).mean(), float(cell_chances(k, n, m, kind))
            if p < 0.1: assert abs(share - p) < 0.06 * p + 4.5 * np.sqrt(p / 40_000)


def test_chance_of_power_of_few_photons():
    phases = np.random.default_rng(1).random((200_000, 20))
    power = np.abs(np.exp(2j * np.pi * phases).sum(axis=1)) ** 2 / 20
    for x in (1.0, 4.0, 7.0):
        share, p = (power > x).mean(), np.exp(nulls.log_chance_of_power(x, 20))
        assert abs(share - p) < 0.04 * p + 4.5 * np.sqrt(p / 200_000)


def test_uniform_chances_of_constant_sources():
    table = lists(7, 40, 300, frame=3.141)
    sim = simulate_constant(table, 150, random_state=1)
    found = false_alarm_probabilities(sim)
    for name in [c for c in found if c.startswith("p_")] + ["p"]:
        for level, wrong in ((0.3, 0.1), (0.05, 0.12), (0.01, 0.2)):
            share = (found[name] < level).mean()
            assert abs(share / level - 1) < wrong + 4.5 / np.sqrt(len(sim) * level), (name, level, share)


def test_q_is_benjamini_hochberg():
    found = false_alarm_probabilities(simulate_constant(lists(8, 30), 3))
    order = np.argsort(found.p.to_numpy())
    p, n = found.p.to_numpy()[order], len(found)
    q = np.minimum.accumulate((p * n / np.arange(1, n + 1))[::-1])[::-1]
    np.testing.assert_allclose(found.q.to_numpy()[order], np.minimum(q, 1))
    np.testing.assert_allclose(found.false_alarms, found.p * n)


def test_given_scores_give_the_same_chances():
    table = lists(9, 12)
    pd.testing.assert_frame_equal(false_alarm_probabilities(table), false_alarm_probabilities(table, detector_scores(table)))


def test_simulated_lists_are_inside_their_good_times_and_repeat():
    table = lists(10, 6, 200, frame=3.2)
    one, two = (simulate_constant(table, 2, random_state=4) for _ in range(2))
    assert one == two and one != simulate_constant(table, 2, random_state=5)
    assert (one.counts == np.repeat(table.counts, 2)).all()
    spread_clock(one)  # refuses photons outside good times


def test_tables_are_refused_when_touched(tmp_path):
    path = tmp_path / "nulls.npz"
    nulls.write_tables(path, nulls.make_tables(200, [10, 20]), "two rungs")
    assert np.isfinite(nulls.null_tables(str(path))["together"]).all()
    path.write_bytes(path.read_bytes()[:-7] + b"touched")
    nulls.null_tables.cache_clear()
    with pytest.raises(XRTError, match="SHA-256"): nulls.null_tables(str(path))


def test_nothing_is_guessed():
    bare = EventTable(["a"], [0, 6], np.arange(6.0))
    for call in (detector_scores, false_alarm_probabilities):
        with pytest.raises(EventDataError, match="exposure of 1 of 1"): call(bare)
    with pytest.raises(EventDataError, match="no good times"): simulate_constant(bare)
    with pytest.raises(EventDataError, match="enclose no time"): detector_scores(EventTable(["a"], [0, 3], np.full(3, 5.0), meta=pd.DataFrame({"t_start": [5.0], "t_stop": [5.0]}, index=["a"])))
    few = EventTable(["a", "b"], [0, 0, 1], [3.0], None, [[0, 9], [0, 9]], [0, 1, 2])
    found = false_alarm_probabilities(few)
    assert (found.p == 1).all() and found.note.str.contains("too few").all()
    assert not len(false_alarm_probabilities(few[[]]))


@pytest.mark.slow
def test_tables_can_be_made_again():
    made = nulls.make_tables(10_000, [20, 21])
    shipped = nulls.null_tables()
    g = int(np.flatnonzero(np.isclose(shipped["log_counts"], np.log(20)))[0])
    for name in (*nulls.TABULATED, "together"):
        np.testing.assert_allclose(made[name][0], shipped[name][g], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(made["windows"][:, 0], shipped["windows"][:, g], rtol=1e-3, atol=1e-6)


def test_no_odds_are_called_impossible():
    "The tail of log odds goes on at least exponentially: steps between chances of 1e-4, 1e-5 and 1e-6 don't shrink."
    first, second = np.diff(nulls.null_tables()["gregory_loredo"][:, -3:]).T
    assert (second > 0.97 * first).all() and (first > 0.1).all()
    bounded = np.random.default_rng(0).random(20_000)
    ends, goes_on = nulls.tail_quantiles(bounded), nulls.tail_quantiles(bounded, least=0.0)
    assert ends[-1] < 1.01 and goes_on[-1] > 1.1
    assert np.allclose(np.diff(goes_on[-3:], 2), 0) and np.array_equal(ends[:18], goes_on[:18])


def test_windows_are_calibrated_beside_whole_and_half_numbers_of_windows():
    "There three passes look at nearly the same photons; a table that interpolates across has chances a quarter too small."
    rng, low, n = np.random.default_rng(5), 0, 12_000
    for k, r in enumerate((1.57, 2.08, 2.55, 3.08)):
        p = uniform_lists(44 + 5 * k, np.full(n, r * det.Windows().width), rng)
        low += (nulls.chances_of_windows(p, nulls.null_tables(), rng.random(n)) < 0.01).sum()
    assert abs(low / (4 * n * 0.01) - 1) < 4.5 / np.sqrt(4 * n * 0.01)


def test_uniform_lists_are_sorted():
    p = uniform_lists(7, np.full(5, 100.0), np.random.default_rng(0))
    assert all((np.diff(p.u[a:b]) >= 0).all() for a, b in zip(p.offsets[:-1], p.offsets[1:]))


def test_a_list_of_no_observation_hides_nobodys_frames():
    rng = np.random.default_rng(2)
    t = [np.sort(rng.integers(0, 9000, 80) * 3.2), np.sort(rng.uniform(0, 28_800, 80))]
    table = EventTable(["framed", "loose"], [0, 80, 160], np.concatenate(t), None, [[0, 28_800]] * 2, [0, 1, 2])
    np.testing.assert_allclose(det.frame_times_of(table), [3.2, 0], atol=1e-6)


def test_likeness_to_known_ones_does_not_depend_on_the_lists_beside_it():
    table = lists(11, 6, 90)
    for score in ("learned", "label-free"):
        analog = det.Analog(score).fit(table[:2])
        np.testing.assert_allclose(analog.score_samples(table)[3:4], analog.score_samples(table[3:4]), atol=1e-4)
    with pytest.raises(ValueError, match="score"): det.Analog("fusion").fit(table)


def test_weights_of_all_together_are_those_of_the_detectors():
    assert list(nulls.WEIGHTS) == list(DETECTORS) and sum(nulls.WEIGHTS.values()) == pytest.approx(1)
    p = np.random.default_rng(0).uniform(1e-8, 1, (50, len(DETECTORS)))
    w = np.array(list(nulls.WEIGHTS.values()))
    np.testing.assert_allclose(nulls.log_evidence(p), np.log((w / p).sum(axis=1)), rtol=1e-9)
    better = p.copy()
    better[:, 3] /= 7
    assert (nulls.log_evidence(better) > nulls.log_evidence(p)).all()


@pytest.mark.parametrize("cut", [0.05, 0.01, 0.002])
def test_quantiles_of_a_known_distribution_from_any_cut(cut):
    x = np.random.default_rng(4).exponential(size=(10, 40_000))
    p = np.exp(-np.array([nulls.tail_quantiles(v, cut) for v in x])).mean(axis=0)
    level = nulls.LEVELS[1:]
    error = 4 / np.sqrt(400_000 * level) + 4 / np.sqrt(400_000 * cut)
    keep = level >= 1e-4
    assert (np.abs(p[1:] / level - 1) < error + 0.02)[keep].all()


class Most:
    "How many photons the fullest tenth of the good time holds: a scorer of one's own."

    def score_samples(self, X):
        p = spread_clock(X)
        return np.array([np.bincount((p.u[a:b] * 10).astype(int), minlength=10).max() + p.u[a] for a, b in zip(p.offsets, p.offsets[1:])])


def test_own_nulls_are_chances_and_stand_beside_the_others():
    table = lists(12, 30, 200, frame=3.2)
    null = nulls.OwnNull(Most(), n_sims=1500, counts=range(5, 201, 15)).fit(table)
    sim = simulate_constant(table, 100, random_state=9)
    p = null.chances(sim)
    for level in (0.3, 0.1, 0.02):
        assert abs((p < level).mean() / level - 1) < 0.15 + 4 / np.sqrt(3000 * level) + 4 / np.sqrt(1500 * 14 * level), level
    found = false_alarm_probabilities(table, others={"most": null})
    np.testing.assert_array_equal(found.p_most, null.chances(table))
    pd.testing.assert_frame_equal(found.drop(columns="p_most"), false_alarm_probabilities(table))
    assert list(false_alarm_probabilities(table[[]], others={"most": null})) == list(found)
