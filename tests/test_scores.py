"""Scores: properties that must hold for any features, and what they refuse."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xrt_nb.scores import CosineLogNorm, Euclidean, RankFusion, ScoreError, random_pairs, ranks_of, upper_share


def features(seed, n=40, k=5):
    "A frame of seeded features, one column constant."
    x = np.random.default_rng(seed).normal(size=(n, k))
    x[:, -1] = 3.0
    return pd.DataFrame(x, index=[f"s{i}" for i in range(n)], columns=[f"f{j}" for j in range(k)])


def each():
    "One of every score."
    return [Euclidean(), CosineLogNorm(), RankFusion([Euclidean(), CosineLogNorm()])]


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_order_of_rows_and_columns_never_matters(seed):
    frame = features(seed)
    rows, columns = (np.random.default_rng(seed).permutation(n) for n in frame.shape)
    for score in each():
        score.fit(frame)
        straight = score.score(frame[:3], frame)
        turned = score.score(frame.iloc[:3, columns], frame.iloc[rows, columns])
        np.testing.assert_allclose(turned, straight[:, rows], rtol=1e-6, atol=1e-6)


@given(st.integers(0, 10_000), st.floats(0.1, 1000))
@settings(max_examples=15, deadline=None)
def test_the_unit_of_a_feature_never_matters(seed, unit):
    frame = features(seed)
    other = frame.assign(f1=frame.f1 * unit + 7)
    for a, b in zip(each(), each()):
        np.testing.assert_allclose(a.fit(frame).score(frame[:3], frame), b.fit(other).score(other[:3], other), rtol=1e-4, atol=1e-4)


def test_ranks_agree_with_scipy():
    from scipy.stats import rankdata

    values = np.random.default_rng(0).integers(0, 20, (6, 300)).astype(float)
    np.testing.assert_array_equal(ranks_of(values), rankdata(-values, method="min", axis=1) - 1)


def test_a_plainer_source_in_the_same_direction_is_nearer():
    score = CosineLogNorm(standardize=False).fit(np.eye(3))
    query = np.array([[1.0, 0.2, 0]])
    s = score.score(query, query * np.array([[0.5], [1], [3], [-1]]))[0]
    assert s[3] < 0 < s[0] < s[1] < s[2]


def test_chance_is_a_share_and_falls_with_the_score():
    frame = features(1, n=200)
    counts = np.random.default_rng(2).integers(5, 500, 200)
    for score in each():
        own = score.fit(frame).project(frame)
        p = score.chance(own.take([0]), own, own, counts[0], counts, n_pairs=2000)
        assert ((p > 0) & (p <= 1)).all()
        if not isinstance(score, RankFusion):
            order = np.argsort(-score.score(own.take([0]), own)[0])
            assert (np.diff(p[order]) >= 0).all()


@pytest.mark.parametrize("n", [3, 11, 60])
def test_no_chance_is_below_what_the_pairs_of_a_small_archive_allow(n):
    frame, counts = features(1, n=n), np.full(n, 20)
    for score in each():
        own = score.fit(frame).project(frame)
        for n_pairs in (2000, 20_000):  # drawn more often, the same pairs don't tell more
            a = random_pairs(n, 20, counts, n_pairs, 0)[0]
            p = score.chance(own.take([0]), own.take([0]), own, 20, counts, n_pairs=n_pairs)  # as near as can be
            assert p[0] >= 1 / (1 + len(set(a)) * (n - 1)) - 1e-12


def test_upper_share_counts_itself():
    np.testing.assert_allclose(upper_share(np.array([10.0]), np.zeros(99)), 0.01)


@pytest.mark.parametrize("score", each(), ids=lambda s: s.name)
def test_bad_features_are_refused_by_name(score):
    frame = features(0)
    holed = frame.copy()
    holed.iloc[3, 2] = np.nan
    with pytest.raises(ScoreError, match="source 's3', feature 'f2'"):
        score.fit(holed)
    score.fit(frame)
    with pytest.raises(ScoreError, match="lack the column 'f4'"):
        score.score(frame, frame.drop(columns="f4"))
    with pytest.raises(ScoreError, match="at least 3 sources"):
        score.chance(frame[:1], frame[:2], frame[:2], 5, [5, 6])


def test_constant_features_give_finite_scores():
    frame = pd.DataFrame(np.full((6, 3), 2.5))
    for score in each():
        assert np.isfinite(score.fit(frame).score(frame[:2], frame)).all()


def test_reordering_keeps_the_first_and_their_values():
    from xrt_nb.scores import reordered

    rng = np.random.default_rng(3)
    values, evidence = rng.normal(size=(4, 50)), rng.normal(size=50) * 3
    out = reordered(values, evidence, 12)
    for before, after in zip(values, out):
        first = np.argsort(-before)[:12]
        assert set(np.argsort(-after)[:12]) == set(first)
        np.testing.assert_array_equal(np.sort(after), np.sort(before))
        wanted = first[np.argsort(-(before[first] + evidence[first]))]
        np.testing.assert_array_equal(np.argsort(-after)[:12], wanted)
    turned = rng.permutation(50)
    np.testing.assert_array_equal(reordered(values[:, turned], evidence[turned], 12), out[:, turned])


def test_rows_in_parts_are_the_rows_and_the_whole_is_named():
    from xrt_nb.scores import matrix_in_parts
    x = np.random.default_rng(1).normal(size=(23, 4))
    frame = pd.DataFrame(x, columns=list("abcd"))
    starts, parts = zip(*matrix_in_parts(frame, ["c", "a"], 5))
    assert starts == (0, 5, 10, 15, 20) and np.array_equal(np.concatenate(parts), x[:, [2, 0]])
    assert [p.shape for _, p in matrix_in_parts(frame[:0], ["a"], 5)] == [(0, 1)]
    frame.iloc[[3, 17], 0] = np.nan
    with pytest.raises(ScoreError, match=r"source 3, feature 'a', is not finite \(2 such values\)"):
        list(matrix_in_parts(frame, ["c", "a"], 5))
    with pytest.raises(ScoreError, match="lack the column 'z'"):
        list(matrix_in_parts(frame[:0], ["z"], 5))


def test_fitting_the_default_score_makes_no_copies_of_the_archive(monkeypatch):
    "The same numbers as in one go, and less than two more archives in memory (three and a half before)."
    import tracemalloc

    from xrt_nb import metric
    from xrt_nb.default_search import default_score
    from xrt_nb.shapes import SearchFeatures
    columns, rng = SearchFeatures().get_feature_names_out(), np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(1.5, 1, (10_000, len(columns))), columns=columns)
    judge = default_score()
    judge.fit(frame[:50])
    tracemalloc.start()
    judge.fit(frame)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * frame.to_numpy().nbytes
    free, learned = judge.scores
    x = frame[list(free.columns_)].to_numpy()
    squares = (((x - free.mean_) / free.scale_ * free.root_) ** 2).sum(axis=1)
    assert free.noise_ == np.median(squares)
    parts = metric.inputs_from(frame[:5000], learned.inputs_, learned.scale_)
    monkeypatch.setattr(metric, "AT_A_TIME", 10_000)
    assert np.array_equal(parts, metric.inputs_from(frame[:5000], learned.inputs_, learned.scale_))
    assert learned.shift_ == default_score("learned").fit(frame).shift_
