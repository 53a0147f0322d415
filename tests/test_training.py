"""Training that stops, resumes and splits by source; files; scores against brute force."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xrt_nb.data import EventDataError, XRTWarning
from xrt_nb.training import (CountScore, TrainingError, batches, count_window, grouped_split, in_turn, judge_errors, load_weights, read_arrays,
                             read_network_manifest, require_keras, save_network, shuffled, train, weights_of, write_arrays)


@given(st.lists(st.integers(0, 12), min_size=2, max_size=80), st.floats(0.05, 0.95), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_a_split_never_shares_a_source(groups, fraction, seed):
    if len(set(groups)) < 2:
        with pytest.raises(TrainingError): grouped_split(groups, fraction, seed)
        return
    a, b = grouped_split(groups, fraction, seed)
    assert sorted([*a, *b]) == list(range(len(groups))) and len(a) and len(b)
    assert not set(np.take(groups, a)) & set(np.take(groups, b))


@given(st.integers(1, 300), st.integers(1, 70), st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_batches_cover_rows_once(n, size, epoch):
    rows = np.concatenate(shuffled(n, size, 3)(epoch))
    assert len(np.unique(rows)) == len(rows) > n - min(size, n)
    assert np.array_equal(np.concatenate(in_turn(n, size)(epoch)), np.arange(n))


@given(st.integers(0, 2 ** 31))
@settings(max_examples=25, deadline=None)
def test_scores_agree_with_a_loop(seed):
    rng = np.random.default_rng(seed)
    counts, errors = rng.integers(1, 50, 60).astype(float), rng.lognormal(0, 1, 60)
    counts[:2] = 1, 49  # the reference reaches as far as the questions
    model, k = CountScore(neighbors=20).fit(counts, errors), 20
    order = np.lexsort((errors, counts))
    c, e = counts[order], np.log(errors[order])
    for n, x in ((5.0, 1.0), (49.0, 3.0), (1.0, 0.1)):
        middle = (np.searchsorted(c, n, "left") + np.searchsorted(c, n, "right")) // 2
        lo = min(max(middle - k // 2, 0), 60 - k)
        near, logs = e[lo:lo + k], np.log1p(c[lo:lo + k])
        inside = np.abs(near - np.median(near)) <= 3 * 1.4826 * np.median(np.abs(near - np.median(near)))
        slope = np.polyfit(logs[inside], near[inside], 1)[0] if np.ptp(logs[inside]) > 0 else 0
        rest = near - slope * (logs - np.log1p(n))
        m = np.median(rest)
        z = (np.log(x) - m) / (1.4826 * np.median(np.abs(rest - m)))
        got = model.score([n], [x]).iloc[0]
        assert np.isclose(got.z, z, rtol=1e-6) and np.isclose(got.p, (1 + (rest >= np.log(x)).sum()) / 21)


@given(st.lists(st.integers(0, 40), min_size=10, max_size=90), st.sampled_from([10, 60, 200]), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_there_is_no_number_where_the_reference_has_no_such_counts(known, neighbors, seed):
    rng, asked = np.random.default_rng(seed), np.arange(-1, 60).clip(0)
    model = CountScore(neighbors=neighbors).fit(known, rng.lognormal(0, 1, len(known)))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        score = model.score(asked, np.ones(61))
    fewest = max(1, min(neighbors, len(known)) // 40)
    company = [min(sum(k <= n for k in known), sum(k >= n for k in known)) for n in asked]
    outside = np.array(company) < fewest
    assert score.columns.tolist() == ["extrapolated", "z", "p"] and np.array_equal(score.extrapolated, outside)
    assert np.array_equal(score.z.isna(), outside) and np.array_equal(score.p.isna(), outside) and np.isfinite(score[~outside]).all(axis=None)
    assert [str(w.message).startswith(f"{outside.sum()} of 61 detections get no score") for w in said if w.category is XRTWarning] == [True] * int(outside.any())


def test_bright_detections_are_not_called_strange_by_fainter_ones():
    rng = np.random.default_rng(1)
    counts = np.rint(10 ** rng.uniform(1, 3, 500))
    def errors(n): return np.maximum(n, 1) ** -0.5 + 0.02  # the error stops falling where the reference ends
    model = CountScore().fit(counts, errors(counts) * rng.lognormal(0, 0.1, 500))
    bright = np.geomspace(2e4, 1e5, 50)
    assert (judge_errors(model.counts_, model.log_errors_, bright, errors(bright))[0] > 3).mean() > 0.6  # what it would have said
    with pytest.warns(XRTWarning, match="50 of 50 detections get no score"): score = model.score(bright, errors(bright))
    assert score.extrapolated.all() and score.z.isna().all()


def test_windows_stay_inside():
    first, width = count_window(np.array([1., 1, 2, 3]), np.array([0., 1, 2.5, 99]), 200)
    assert width == 4 and (first == 0).all()


@pytest.fixture(scope="module")
def line():
    "A straight line to learn."
    x = np.linspace(-1, 1, 64, dtype=np.float32)[:, None]
    return x, (2 * x + 1).astype(np.float32)


def tiny(rate=0.05):
    "One unit."
    keras = require_keras()
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros", name="unit")], name="tiny")
    model.compile(keras.optimizers.Adam(rate), "mse")
    return model


def test_a_late_failure_keeps_the_best_weights(line, tmp_path):
    x, y = line
    def take(rows): return x[rows], y[rows]
    model, bad = tiny(), {"now": False}
    def spoiled(rows): return x[rows], y[rows] * np.float32(np.nan if bad["now"] else 1)
    good = batches(take, in_turn(64, 16))
    train(model, batches(spoiled, shuffled(64, 16, 1)), good, epochs=5, checkpoint=tmp_path / "c.npz")
    kept = weights_of(model)
    bad["now"] = True
    with pytest.raises(TrainingError, match="epoch 5, in batch 0 of 4 .*best weights so far"):
        train(model, batches(spoiled, shuffled(64, 16, 1)), good, epochs=9, checkpoint=tmp_path / "c.npz")
    assert all(np.array_equal(a, b) for a, b in zip(kept, weights_of(model)))


def test_training_stops_when_nothing_improves_and_lowers_its_rate(line):
    x, y = line
    data = batches(lambda rows: (x[rows], y[rows]), in_turn(64, 64))
    flat = batches(lambda rows: (x[rows], 0 * y[rows] + np.float32(1e3)), in_turn(64, 64))  # learning one thing, judged by another
    history = train(tiny(1e-9), data, flat, epochs=50, patience=4)
    assert len(history) <= 10 and history.learning_rate.iloc[-1] < history.learning_rate.iloc[0]


def test_damaged_checkpoints_are_refused(line, tmp_path):
    x, y = line
    data = batches(lambda rows: (x[rows], y[rows]), in_turn(64, 16))
    train(tiny(), data, data, epochs=2, checkpoint=tmp_path / "c.npz")
    whole = (tmp_path / "c.npz").read_bytes()
    for k in range(0, len(whole), 97):
        (tmp_path / "c.npz").write_bytes(whole[:k])
        with pytest.raises((EventDataError, TrainingError)):
            train(tiny(), data, data, epochs=3, checkpoint=tmp_path / "c.npz")


def test_networks_of_another_shape_are_refused(tmp_path):
    keras = require_keras()
    wide = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2, name="unit")], name="tiny")
    for name in ("n.npz", "n.keras"):
        save_network(tmp_path / name, tiny(), {"class": "tiny"})
        with pytest.raises(EventDataError): load_weights(tmp_path / name, wide)
    write_arrays(tmp_path / "more.npz", {"tiny/unit/kernel": np.zeros((1, 1)), "tiny/unit/bias": np.zeros(1), "other": np.zeros(1)}, {"class": "tiny"})
    with pytest.raises(EventDataError, match="other is not part of the network"): load_weights(tmp_path / "more.npz", tiny())


def test_manifests_are_checked_before_anything_is_read(tmp_path):
    path = write_arrays(tmp_path / "a.npz", {"x": np.arange(3.0)}, {"class": "A"})
    assert read_arrays(path)["x"].tolist() == [0, 1, 2]
    (tmp_path / "a.npz.json").write_text("[1, 2]")
    with pytest.raises(EventDataError, match="has no sha256"): read_network_manifest(path)
    (tmp_path / "a.npz.json").write_bytes(b"\xff\xfe")
    with pytest.raises(EventDataError, match="is not JSON"): read_network_manifest(path)
