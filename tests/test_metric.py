"""The learned metric: the shipped numbers, what it was taught by, and what it refuses."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import xrt_nb.shapes as shapes
from xrt_nb import metric as m
from xrt_nb.cli import main
from xrt_nb.scores import ScoreError
from xrt_nb.shapes import WeightsError, read_weights, search_features, without_energies
from xrt_nb.simulation import simulate_archive


@pytest.fixture(scope="module")
def archive():
    events, truth = simulate_archive(400, 77, edition=2, fractions={"flare": 0.08, "dip": 0.06, "qpe": 0.05})
    return events, truth, search_features(events)


def test_shipped_numbers_are_small_plain_and_whole():
    path = shapes.shipped_weights()
    assert path.stat().st_size + path.with_suffix(".json").stat().st_size < 1_000_000
    assert json.loads(path.with_suffix(".json").read_text())["random_state"] == 0
    assert all(a.dtype.kind in "fU" for a in read_weights().values())
    assert m.LearnedMetric().load().layers_[0][0].shape == (len(read_weights()["columns"]) + 2, 256)


def test_flares_are_nearer_to_flares_than_to_quiet_sources(archive):
    events, truth, frame = archive
    own = m.LearnedMetric().fit(frame).project(frame)
    flares = np.flatnonzero((truth.kind == "flare") & truth.detectable)
    quiet = np.flatnonzero(truth.kind == "steady")
    s = m.LearnedMetric().fit(frame).score(own.take(flares), own)
    assert np.median(s[:, flares]) > np.quantile(s[:, quiet], 0.98)


def test_energies_may_be_missing(archive):
    events, truth, frame = archive
    timing = search_features(without_energies(events))
    assert len(timing.columns) < len(frame.columns)
    score = m.LearnedMetric().fit(timing)
    masked = frame.copy()
    masked[[c for c in frame if c.startswith(m.ENERGY_COLUMNS)]] = 0
    np.testing.assert_allclose(score.score(timing[:5], timing), score.score(masked[:5], masked), atol=1e-4)


def test_a_missing_timing_column_is_refused_by_name(archive):
    with pytest.raises(ScoreError, match="sum_ks"):
        m.LearnedMetric().fit(archive[2].drop(columns="sum_ks"))


def test_what_it_has_not_seen_is_flagged(archive):
    frame = archive[2]
    assert m.unfamiliar(frame).mean() < 0.02
    bright, few, wild = frame.iloc[:1].copy(), frame.iloc[:1].copy(), frame.iloc[:1].copy()
    bright["log_counts"], few["log_counts"] = np.log10(35_000), np.log10(2)
    wild.iloc[:, :300] = 40.0
    assert m.unfamiliar(pd.concat([bright, few, wild])).all()


def test_weights_of_other_shapes_are_refused_by_name(tmp_path):
    arrays = read_weights()
    path = m.write_weights(tmp_path / "a.npz", arrays | {"b2": arrays["b2"][:-1]}, {})
    with pytest.raises(WeightsError, match="layer 2 of the metric"):
        m.LearnedMetric(path).load()
    path = m.write_weights(tmp_path / "b.npz", arrays | {"w0": arrays["w0"] * np.nan}, {})
    with pytest.raises(WeightsError, match="w0 holds values that are not finite"):
        m.LearnedMetric(path).load()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        m.write_weights(path, arrays, {})


def test_generic_pairs_repeat_and_are_detectable():
    a, b = m.generic_pairs(30, 4), m.generic_pairs(30, 4)
    assert a == b and len(a) == 60 and a != m.generic_pairs(30, 5)
    assert a.counts.min() >= 5 and a.counts.max() <= 8000


def test_quiet_is_what_cannot_be_seen():
    truth = pd.DataFrame({"kind": ["flare", "flare", "steady", "qpe"], "detectable": [True, False, False, True]})
    assert [m.CLASSES[k] for k in m.labels_of(truth)] == ["flare", "quiet", "quiet", "qpe"]


@pytest.mark.slow
def test_training_repeats_and_keras_agrees_with_numpy(tmp_path):
    parts, paths = m.training_parts(3, 0.02), [tmp_path / "a.npz", tmp_path / "b.npz"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        m.train_metric(paths[0], 3, 0.02, 30, parts=parts)
        given = ["metric", "train", str(paths[1]), "--seed", "3", "--size", "0.02", "--steps", "30"]
        done = CliRunner().invoke(main, given)  # simulates and trains anew
    assert done.exit_code == 0, done.output
    for suffix in (".npz", ".json"):
        assert paths[0].with_suffix(suffix).read_bytes() == paths[1].with_suffix(suffix).read_bytes()
    data = m.training_set(parts, shapes.search_names())
    layers = m.LearnedMetric(paths[0]).load().layers_
    network = m.build_network(len(data.columns), 3)
    network.set_weights([x for layer in layers for x in layer])
    out = np.asarray(network(data.first[:20], training=False))
    logits, v, _ = m.forward(layers, data.first[:20])
    np.testing.assert_allclose(np.c_[logits, v], out[:, :10], rtol=1e-3, atol=1e-3)


def test_a_fitted_metric_survives_being_put_away(archive):
    frame = archive[2]
    state = m.LearnedMetric().fit(frame).state()
    assert all(a.dtype.kind in "fU" for a in state.values())
    again = m.LearnedMetric("nowhere.npz").set_state(state)
    np.testing.assert_array_equal(again.score(frame[:3], frame), m.LearnedMetric().fit(frame).score(frame[:3], frame))


def test_the_archive_tells_how_many_vary():
    from xrt_nb.metric import TRAINED_SHARE, prior_shift

    rng, odds = np.random.default_rng(0), np.log(TRAINED_SHARE / (1 - TRAINED_SHARE))
    for share in (0.01, 0.05, 0.2):
        v = rng.normal(np.where(rng.random(50_000) < share, 2.0, -2.0), 2.0) + odds
        found = 1 / (1 + np.exp(prior_shift(v) - odds))
        assert abs(found / share - 1) < 0.25
