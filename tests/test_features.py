"""Summary features and PCA against scipy and brute force."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from xrt_nb import features as F
from xrt_nb.data import EventDataError, EventList, EventTable
from xrt_nb.representations import EtDtCube, EtMap
from xrt_nb.simulation import simulate_archive

quiet = settings(deadline=None, max_examples=40)


@st.composite
def archives(draw):
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    lists = []
    for k in range(draw(st.integers(1, 5))):
        n = draw(st.sampled_from([0, 1, 2, 3, 5, 40, 300]))
        t = np.sort(rng.integers(0, draw(st.sampled_from([1, 3, 50, 10**5])), n)) * 3.141
        lists.append(EventList(t, rng.choice([600.0, 900, 1500, 3000], n) if k % 2 else rng.uniform(500, 7000, n), f"{k}_1", [[0, 4e5]]))
    return EventTable.from_lists(lists)


@quiet
@given(table=archives(), axis=st.sampled_from(["events", "exposure", "livetime"]))
def test_always_finite_and_one_row_per_source(table, axis):
    f = F.summary_features(table, axis)
    assert f.shape == (len(table), len(F.SummaryFeatures().get_feature_names_out())) and np.isfinite(f.to_numpy()).all()
    assert list(f.index) == list(table.ids)


@quiet
@given(table=archives(), seed=st.integers(0, 99))
def test_the_order_of_photons_is_irrelevant(table, seed):
    frame = table.to_frame()
    if not len(frame):
        return
    mixed = frame.iloc[np.random.default_rng(seed).permutation(len(frame))].sort_values(["time", "energy"], kind="stable")
    again = EventTable.from_frame(mixed)
    a, b = F.summary_features(again, "events"), F.summary_features(table[list(again.ids)], "events")
    assert np.allclose(a, b, rtol=1e-9, atol=1e-9)


@quiet
@given(table=archives())
def test_each_number_against_scipy(table):
    f = F.summary_features(table, "exposure")
    for ev in table:
        if len(ev) < 3 or np.ptp(ev.energy) == 0 or ev.span == 0:
            continue
        row, e, u = f.loc[ev.id], np.log10(ev.energy), ev.time / 4e5
        expected = {"e_skew": scipy.stats.skew(e), "e_kurt": scipy.stats.kurtosis(e), "e_q25": np.quantile(e, 0.25), "rho_et": scipy.stats.spearmanr(ev.time, ev.energy).statistic,
                    "ks": np.sqrt(len(ev)) * scipy.stats.kstest(u, "uniform").statistic, "t_zscore": (u.mean() - 0.5) * np.sqrt(12 * len(u)),
                    "t90": np.quantile(u, 0.95) - np.quantile(u, 0.05), "dt_cv": np.diff(u).std() / np.diff(u).mean(), "half": ((u >= 0.5).sum() - (u < 0.5).sum()) / len(u)}
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, rel=1e-6, abs=1e-6), name


def test_faint_sources_are_neutral():
    t = EventTable.from_dict({"none": ([], []), "one": ([1.0], [900])})
    f = F.summary_features(t, "events")
    assert (f[["e_skew", "dt_prahl", "excess_var", "rho_et", "block_hardness"]] == 0).all(axis=None)
    assert f.loc["none", ["hard_hs", "gl_log_odds", "blocks"]].tolist() == [0, 0, 0]


def test_gregory_loredo_is_calibrated_on_constant_sources():
    rng = np.random.default_rng(4)
    n, s = 50, 2000
    t = EventTable([f"{i}_1" for i in range(s)], np.arange(s + 1) * n, np.sort(rng.uniform(0, 1, (s, n)), axis=1).ravel(), np.full(n * s, 900.0),
                   np.tile([[0.0, 1.0]], (s, 1)), np.arange(s + 1))
    odds = F.gregory_loredo_features(t.time, t.offsets)["gl_log_odds"]
    assert (odds > 1).mean() < 0.01  # odds of ten to one or more, by chance
    assert 10 ** odds.mean() < 1


def test_prahl_statistic_is_standard_normal():
    rng = np.random.default_rng(5)
    s, n = 1500, 200
    u = np.sort(rng.uniform(0, 1, (s, n)), axis=1)
    z = F.waiting_features(u.ravel(), np.arange(s + 1) * n)["dt_prahl"]
    assert abs(z.mean()) < 0.25 and 0.85 < z.std() < 1.15


@pytest.mark.parametrize("hard, soft", [(0, 0), (0, 5), (7, 2), (120, 300)])
def test_hardness_against_integration(hard, soft):
    u = np.linspace(0, 1, 200_001)
    p = scipy.stats.beta.pdf(u, hard + 1, soft + 1)
    mean = np.trapezoid((2 * u - 1) * p, u) / np.trapezoid(p, u)
    got, low, high = F.hardness(hard, soft, 0.68)
    assert got == pytest.approx(mean, abs=1e-4) and low < got < high


def test_pca_of_sparse_cubes_equals_dense():
    events, _ = simulate_archive(400, random_state=2)
    sparse, dense = EtDtCube().transform(events), EtDtCube(sparse=False).transform(events)
    a, b = F.pca(10), F.pca(10)
    x, y = a.fit_transform(sparse), b.fit_transform(dense)
    spread = F.pca(11).fit(dense)[-1].explained_variance_
    rounding = np.finfo(float).eps * spread[0] / -np.diff(spread).max()  # of a component, by its distance to the next
    assert np.abs(np.abs(x) - np.abs(y)).max() < 100 * rounding * np.abs(y).max()
    assert np.allclose(F.scree(a).share, F.scree(b).share, atol=1e-9)
    assert F.back_project(a, (24, 16, 16)).shape == (10, 24, 16)
    assert np.array_equal(x, F.pca(10).fit_transform(sparse))


def test_new_sources_are_projected_alone_as_in_company():
    events, _ = simulate_archive(200, random_state=2)
    model = F.pca(5).fit(EtMap().transform(events))
    together = model.transform(EtMap().transform(events))
    alone = model.transform(EtMap().transform(events[events.ids[7]]))
    assert np.allclose(together[7], alone[0])


def test_feature_frames_refuse_what_would_poison_distances():
    with pytest.raises(EventDataError, match="feature 'f00' of detection 'a' is not finite"):
        F.feature_frame([[np.inf]], ["a"])
    with pytest.raises(ValueError, match="one row per id"):
        F.feature_frame([[1.0]], ["a", "b"])
