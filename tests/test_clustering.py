"""Clustering: properties and cross-checks against brute force, scikit-learn and scipy."""
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.cluster import DBSCAN, HDBSCAN

from xrt_nb import clustering as cl
from xrt_nb.clustering import cluster_quality, cluster_table
from xrt_nb.data import EventDataError, XRTError, XRTWarning


def dbscan_by_hand(y, eps, m):
    """DBSCAN from its definition: components of core points, border points to any core within reach."""
    near = np.linalg.norm(y[:, None] - y[None], axis=-1) <= eps
    core = near.sum(1) >= m
    label, n = np.zeros(len(y), int), 0
    for i in np.flatnonzero(core):
        if label[i]: continue
        n, stack = n + 1, [i]
        while stack:
            j = stack.pop()
            if label[j]: continue
            label[j] = n
            if core[j]: stack += list(np.flatnonzero(near[j] & (label == 0)))
    return label


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(0)
    y = np.vstack([rng.normal(c, 1, (80, 2)) for c in (0, 12, 24)] + [rng.uniform(-40, 60, (40, 2))])
    return y, np.repeat(["a", "b", "c", "dust"], [80, 80, 80, 40])


@given(st.integers(0, 10_000), st.floats(0.2, 4), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_cluster_is_dbscan_by_definition(seed, eps, m):
    y = np.random.default_rng(seed).normal(0, 3, (60, 2))
    ours, mine = cl.cluster(y, eps, m), dbscan_by_hand(y, eps, m)
    assert np.array_equal(ours == 0, mine == 0)  # the same outliers
    core = cl.k_distance(y, m) <= eps if m > 1 else np.ones(60, bool)
    assert len(set(zip(ours[core], mine[core]))) == len(set(ours[core])) == len(set(mine[core]))  # the same groups of cores


def test_labels_are_those_of_sklearn_plus_one(blobs):
    y, _ = blobs
    assert np.array_equal(cl.cluster(y), DBSCAN(eps=2.5, min_samples=25).fit_predict(y) + 1)
    assert np.array_equal(cl.cluster_hdbscan(y, 20, 5), HDBSCAN(min_cluster_size=20, min_samples=5, copy=True).fit_predict(y) + 1)
    assert cl.cluster(y).dtype == np.int64 and cl.cluster(y).min() == 0


def test_frame_and_array_agree_and_input_is_untouched(blobs):
    y, _ = blobs
    f, before = pd.DataFrame(y, columns=["tsne1", "tsne2"]).assign(z=1), y.copy()
    for function in (cl.cluster, cl.cluster_hdbscan, cl.k_distance):
        assert np.array_equal(function(f), function(y)) and np.array_equal(y, before)


def test_hdbscan_all_dust_and_one_group():
    y = np.random.default_rng(0).normal(size=(30, 2))
    assert not cl.cluster_hdbscan(y, 30).any()
    assert not cl.cluster(y, eps=1e-6, min_samples=2).any()
    assert (cl.cluster(y, eps=100, min_samples=2) == 1).all()


@pytest.mark.parametrize("call, message", [
    (lambda y: cl.cluster(y, eps=-1), "eps=-1"), (lambda y: cl.cluster(y, eps=np.nan), "eps=nan"), (lambda y: cl.cluster(y, eps=np.inf), "eps=inf"),
    (lambda y: cl.cluster(y, min_samples=0), "`min_samples` must be a whole number of at least 1, got 0"), (lambda y: cl.cluster(y, min_samples=2.5), "`min_samples` must be a whole number of at least 1, got 2.5"),
    (lambda y: cl.cluster(y[:, :1]), "(280, 1)"), (lambda y: cl.cluster(y[:0]), "(0, 2)"), (lambda y: cl.cluster(y[0]), "got (2,)"),
    (lambda y: cl.cluster_hdbscan(y, 1), "`min_cluster_size` must be a whole number of at least 2, got 1"), (lambda y: cl.cluster_hdbscan(y, 300), "280 sources"),
    (lambda y: cl.k_distance(y, 1), "`min_samples` must be a whole number of at least 2, got 1"), (lambda y: cl.k_distance(y, 281), "280 sources")])
def test_bad_parameters(blobs, call, message):
    with pytest.raises(ValueError) as error: call(blobs[0])
    assert message in str(error.value)


@pytest.mark.parametrize("function", [cl.cluster, cl.cluster_hdbscan, cl.k_distance])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_bad_positions_name_the_row(blobs, function, value):
    y = blobs[0].copy()
    y[[31, 50], 1] = value
    with pytest.raises(EventDataError, match="row 31 is .*; 2 of 280 rows"): function(y)


# --- quality ---------------------------------------------------------------------------------------------------------

def test_quality_by_hand():
    q = cl.cluster_quality([1, 1, 1, 2, 2, 0], list("aabbbc"))
    assert q["purity"] == 0.8 and q["n_clusters"] == 2 and q["noise_fraction"] == pytest.approx(1 / 6)
    assert cl.cluster_quality([7, 7, 3, 3], [1, 1, 0, 0])["ari"] == 1  # names do not matter


def test_quality_of_chance():
    rng = np.random.default_rng(0)
    q = cl.cluster_quality(rng.integers(1, 5, 4000), rng.integers(0, 4, 4000))
    assert abs(q["ari"]) < 0.01 and abs(q["ari_all"]) < 0.01 and q["purity"] == pytest.approx(q["purity_chance"], abs=0.03)
    assert cl.cluster_quality([1, 1, 2, 0], list("aabb")) == cl.cluster_quality([1, 1, 2, 0], list("aabb"))


# --- table -----------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def case(blobs):
    y, truth = blobs
    rng = np.random.default_rng(1)
    ids = np.array([f"{i}_7" for i in rng.permutation(len(y))])
    props = pd.DataFrame({"obsreg_id": ids, "hard": rng.normal(size=len(y)), "var_index": rng.integers(0, 11, len(y)).astype(float), "name": "x"})
    props.loc[::7, "var_index"] = np.nan
    known = {"flare": ids[truth == "a"][:9], "dip": [*ids[truth == "b"][:2], *ids[truth == "dust"][:1]]}
    return cl.cluster(y, 2.5, 10), props, known


def test_table_equals_groupby(case):
    labels, props, known = case
    t = cl.cluster_table(labels, props, "var_index", known)
    by = props.groupby(labels)
    assert t["size"].to_dict() == by.size().to_dict() and t["fraction"].sum() == pytest.approx(1)
    assert np.allclose(t["median_hard"].sort_index(), by["hard"].median())
    assert np.allclose(t["median_var_index"].sort_index(), by["var_index"].median())
    share = props.dropna().groupby(labels[props["var_index"].notna()])["var_index"].agg(lambda v: (v >= 6).mean())
    assert np.allclose(t["share_variable"].sort_index(), share)
    assert "median_name" not in t and t.index.name == "cluster" and t.index[-1] == 0
    assert t["size"].iloc[:-1].is_monotonic_decreasing


def test_known_counts_lift_and_p(case):
    labels, props, known = case
    t = cl.cluster_table(labels, props, known=known)
    every = {i: c for c, members in known.items() for i in members}
    for number, row in t.iterrows():
        mine = set(props["obsreg_id"][labels == number])
        assert row["n_known"] == len(mine & set(every)) == row["n_flare"] + row["n_dip"]
        assert sorted(row["known_ids"].split()) == sorted(mine & set(every))
        assert row["lift"] == pytest.approx(row["n_known"] / row["size"] / (12 / 280))
        low = stats.fisher_exact([[row["n_known"], row["size"] - row["n_known"]], [12 - row["n_known"], 268 - row["size"] + row["n_known"]]], "greater")[1]
        assert row["p_value"] == pytest.approx(low, rel=1e-6)
    assert (t["p_adjusted"] >= t["p_value"]).all() and t["n_known"].sum() == 12
    assert list(cl.transient_clusters(t).index) == [labels[np.flatnonzero(props["obsreg_id"] == known["flare"][0])[0]]]


def test_table_takes_ids_from_labels_or_index(case):
    labels, props, known = case
    a = cl.cluster_table(labels, props, known=known)["known_ids"]
    b = cl.cluster_table(pd.Series(labels, props["obsreg_id"]), known=known)["known_ids"]
    c = cl.cluster_table(labels, props.set_index("obsreg_id"), known=pd.Series({i: k for k, m in known.items() for i in m}))["known_ids"]
    assert a.equals(b) and a.equals(c)


def test_variable_as_bool_and_unknown(case):
    labels, props, _ = case
    flags = (props["var_index"] >= 6).astype(object).where(props["var_index"].notna(), None)
    a, b = cl.cluster_table(labels, props, flags), cl.cluster_table(labels, props, "var_index")
    assert np.allclose(a["share_variable"], b["share_variable"])
    unknown = cl.cluster_table([1, 1, 0], variable=[None, None, True])
    assert np.isnan(unknown.loc[1, "share_variable"]) and unknown.loc[0, "share_variable"] == 1
    with pytest.raises(ValueError, match="true or false"): cl.cluster_table([1, 1, 0], variable=[0, 1, 5])


def test_no_known_in_archive(case):
    labels, props, _ = case
    with pytest.warns(XRTWarning, match="2 of 2 known transients are not in this archive of 280"):
        t = cl.cluster_table(labels, props, known={"flare": ["x_1", "x_2"]})
    assert (t["n_known"] == 0).all() and (t["p_value"] == 1).all() and len(cl.transient_clusters(t)) == 0


@pytest.mark.parametrize("call, message", [
    (lambda g, p, k: cl.cluster_table(g, known=k), "known needs the ids"), (lambda g, p, k: cl.cluster_table(g[:5], p), "5 values, the frame 280 rows"),
    (lambda g, p, k: cl.cluster_table(g - 1, p), "raw DBSCAN labels need + 1"), (lambda g, p, k: cl.cluster_table(g * 1.0, p), "whole numbers"),
    (lambda g, p, k: cl.cluster_table(g, p, "flux"), "there are obsreg_id, hard, var_index, name"), (lambda g, p, k: cl.cluster_table(g, variable="flux"), "no properties are given"),
    (lambda g, p, k: cl.cluster_table(pd.Series(g, p["obsreg_id"][::-1]), p), "different order: row 0"),
    (lambda g, p, k: cl.transient_clusters(cl.cluster_table(g, p)), "known=...")])
def test_bad_tables(case, call, message):
    with pytest.raises(ValueError) as error: call(*case)
    assert message in str(error.value)


def test_random_lists_rarely_pass(case):
    labels, props, _ = case
    rng, alarms = np.random.default_rng(2), 0
    for _ in range(200):
        t = cl.cluster_table(labels, props[["obsreg_id"]], known={"any": rng.choice(props["obsreg_id"], 15, replace=False)})
        alarms += len(cl.transient_clusters(t)) > 0
    assert alarms <= 16  # 5 % of 200, and two standard deviations


# --- drawing ---------------------------------------------------------------------------------------------------------

def test_plot_draws_all_sorted_and_limited(ax, blobs):
    y = blobs[0]
    f = pd.DataFrame(y, columns=["tsne1", "tsne2"])
    labels = np.minimum(np.arange(280) // 10, 20)
    assert cl.plot_clusters(f, labels, ax=ax, max_legend=3, s=2) is ax
    assert sum(len(c.get_offsets()) for c in ax.collections) == 280
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["outliers (10)", "group 20 (80)", "group 1 (10)", "group 2 (10)", "and 17 smaller groups"]
    assert sorted(int(t.get_text()) for t in ax.texts) == list(range(1, 21))
    where = {t.get_text(): t.xy for t in ax.texts}["20"]
    assert np.allclose(where, np.median(y[labels == 20], axis=0))


def test_plot_with_known_and_without_groups(ax, blobs):
    f = pd.DataFrame(blobs[0], columns=["tsne1", "tsne2"]).assign(obsreg_id=[f"{i}_1" for i in range(280)], cluster=0)
    cl.plot_clusters(f, known={"flare": ["3_1"]}, ax=ax)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["outliers (280)", "known flare (1)"]


def test_answers_in_words_and_truth_with_holes():
    labels = np.array([1, 1, 2, 2, 0, 2])
    full = cluster_table(labels, variable=[True, False, True, True, False, True])
    assert full.equals(cluster_table(labels, variable=["yes", "no", "Yes", "TRUE", "0", "1"]))
    with pytest.raises(XRTError, match="neither yes nor no"): cluster_table(labels, variable=["yes", "no", "perhaps", "y", "n", "y"])
    truth = np.array(["a", "a", "b", None, "b", np.nan], dtype=object)
    assert cluster_quality(labels, truth) == cluster_quality(labels[[0, 1, 2, 4]], ["a", "a", "b", "b"])
