"""Networks on sets of photons: blind to order and padding, the same in Keras and in numpy, the same again from the same seed."""

import json
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from xrt_nb import deepsets
from xrt_nb._store import file_hash
from xrt_nb.data import EventDataError, EventList, EventTable, XRTWarning
from xrt_nb.deepsets import (LIMITS, TARGETS, DeepSets, EventSets, bucket_length, count_residuals, event_sets, forward, layer_sizes, length_batches, pad_sets,
                             set_network, set_targets)
from xrt_nb.features import summary_features
from xrt_nb.training import TrainingError, manifest_path, read_arrays
from xrt_nb.simulation import simulate_archive

quiet = settings(deadline=None, max_examples=40)
SMALL = dict(n_latent=5, phi=(16, 8), rho=(8,), max_events=64, batch_size=32, epochs=6, patience=6, learning_rate=5e-3, random_state=3)
WINDOW = [[0.0, 1000.0]]


@pytest.fixture(scope="module")
def archive(): return simulate_archive(320, random_state=77)


@pytest.fixture(scope="module")
def fitted(archive): return DeepSets(**SMALL).fit(archive[0])


@pytest.fixture(scope="module")
def other(): return simulate_archive(60, random_state=78)[0]


@st.composite
def archives(draw):
    "Up to five sources, often of very few photons, some at one instant, with and without gaps, some photons outside band and exposure."
    rng, lists = np.random.default_rng(draw(st.integers(0, 10**6))), []
    for k in range(draw(st.integers(1, 5))):
        n, gti = draw(st.sampled_from([0, 1, 2, 3, 30, 200])), draw(st.sampled_from([WINDOW, [[0, 100], [150, 300], [500, 960]], [[500, 500.001]]]))
        t, e = np.sort(rng.integers(-50, draw(st.sampled_from([-49, 1, 1100])), n)).astype(float), rng.choice([100.0, 500, 1234.5, 7000, 9000], n)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", XRTWarning)  # photons outside the intervals are left out
            lists.append(EventList(t, e, f"{k}_1", gti))
    return EventTable.from_lists(lists)


def random_sets(seed=0, n_sets=100, longest=300, width=3):
    rng = np.random.default_rng(seed)
    n = np.r_[0, 1, 2, 64, 65, rng.integers(0, longest, n_sets - 5)]
    return EventSets(np.array([f"{k}_1" for k in range(n_sets)]), np.r_[0, np.cumsum(n)], rng.normal(size=(n.sum(), width)).astype(np.float32), n, rng.normal(size=(n_sets, 2)).astype(np.float32))


def numbers(network, inputs): return np.asarray(network(list(inputs)))


# --- sets and batches -----------------------------------------------------------------------------------------------


def plain_rows(source, time_axis):
    "The rows of one source, photon by photon."
    clock = EventTable.from_lists([source]).livetime_clock() if time_axis == "livetime" else source.time
    if not len(source): return np.empty((0, 4))
    start, width = (clock[0], clock[-1] - clock[0]) if time_axis == "events" else (0.0, source.livetime) if time_axis == "livetime" else (source.window[0], np.diff(source.window)[0])
    out, n = [], len(source)
    u = [min(max((t - start) / width, 0), 1) if width > 0 else 0.5 for t in clock]
    for i in range(n):
        before = u[i] - u[i - 1] if i else u[i] if time_axis != "events" else None
        after = u[i + 1] - u[i] if i + 1 < n else 1 - u[i] if time_axis != "events" else None
        log = [0.0 if w is None or width <= 0 else np.clip(np.log10(max(n * w, 1e-3)), -3, 2) for w in (before, after)]
        out.append([u[i], np.clip(np.log(source.energy[i] / 500) / np.log(14), 0, 1), *log])
    return np.array(out)


@quiet
@given(table=archives(), axis=st.sampled_from(["livetime", "exposure", "events"]))
def test_rows_are_those_of_a_plain_loop_and_independent_of_company(table, axis):
    sets = event_sets(table, axis, neighbors=2)
    assert np.isfinite(sets.rows).all() and np.isfinite(sets.context).all() and sets.rows.dtype == sets.context.dtype == np.float32
    assert np.allclose(sets.rows, np.concatenate([plain_rows(s, axis) for s in table]).reshape(-1, 4), atol=2e-5)
    assert np.allclose(sets.context[:, 0], np.log1p(table.counts)) and np.array_equal(event_sets(table, axis).rows, sets.rows[:, :3])
    for few in (None, 2):
        whole = event_sets(table, axis, max_events=few or 512)
        for k, id in enumerate(table.ids.tolist()):
            alone = event_sets(table[[id]], axis, max_events=few or 512)
            assert np.array_equal(alone.rows, whole.rows[whole.offsets[k]:whole.offsets[k + 1]]) and np.array_equal(alone.context[0], whole.context[k])


def test_photons_listed_in_another_order_give_the_same_sets(archive):
    table = archive[0][:30]
    frame = table.to_frame().sample(frac=1, random_state=0)
    with pytest.warns(XRTWarning, match="not sorted"): mixed = EventTable.from_frame(frame)[table.ids]
    mixed = EventTable(mixed.ids, mixed.offsets, mixed.time, mixed.energy, table.gti, table.gti_offsets)
    ties = table.time[1:] == table.time[:-1]  # photons of one frame keep the order they are listed in
    a, b = event_sets(table).rows, event_sets(mixed).rows
    assert np.array_equal(a[:, [0, 2]], b[:, [0, 2]]) and (a[:, 1] != b[:, 1]).sum() <= 2 * ties.sum()


def test_a_bright_source_keeps_a_seeded_sample():
    rng = np.random.default_rng(1)
    table = EventTable.from_lists([EventList(np.sort(rng.uniform(0, 1000, n)), np.full(n, 1e3), f"{n}_1", WINDOW) for n in (10, 5000)])
    all_, some = event_sets(table, max_events=10**6), event_sets(table, max_events=100)
    assert np.diff(some.offsets).tolist() == [10, 100] and some.counts.tolist() == [10, 5000] and np.array_equal(some.context, all_.context)
    assert np.isin(some.rows.view("V12"), all_.rows.view("V12")).all() and abs(some.rows[10:, 0].mean() - 0.5) < 0.1
    assert np.array_equal(event_sets(table, max_events=100).rows, some.rows) and not np.array_equal(event_sets(table, max_events=100, random_state=1).rows, some.rows)


@quiet
@given(lengths=st.lists(st.integers(0, 3000), min_size=1, max_size=200), size=st.integers(1, 70), seed=st.one_of(st.none(), st.integers(0, 99)))
def test_every_set_is_in_one_batch_among_its_likes(lengths, size, seed):
    lengths = np.array(lengths)
    def make(): return length_batches(lengths, size, None if seed is None else np.random.default_rng(seed))
    full, again = make(), make()
    flat = np.concatenate(full)
    assert np.array_equal(np.sort(flat[flat >= 0]), np.arange(len(lengths))) and {len(b) for b in full} == {min(size, len(lengths))} and (flat < 0).sum() < len(full[0])
    assert all(map(np.array_equal, full, again))
    bucket = bucket_length(lengths)
    assert (bucket >= lengths).all() and (bucket <= np.maximum(64, 4 * lengths)).all()
    ranges = sorted((bucket[b[b >= 0]].min(), bucket[b[b >= 0]].max()) for b in full)
    assert all(a[1] <= b[0] for a, b in zip(ranges, ranges[1:]))  # no batch reaches into the lengths of another one's middle


def test_padding_loses_nothing():
    sets = random_sets()
    which = np.r_[7, -1, np.arange(20)]
    rows, mask, context = pad_sets(sets, which)
    for k, s in enumerate(which):
        own = sets.rows[sets.offsets[s]:sets.offsets[s + 1]] if s >= 0 else np.empty((0, 3))
        assert np.array_equal(rows[k][mask[k] > 0], own) and not rows[k][mask[k] == 0].any() and np.array_equal(context[k], sets.context[s] if s >= 0 else [0, 0])
    assert {a.dtype for a in (rows, mask, context)} == {np.dtype("float32")} and len(pad_sets(sets, [])[0]) == 0


def test_targets_are_summary_features(other):
    y, s = set_targets(other), summary_features(other)
    assert y.columns.tolist() == list(TARGETS) and np.array_equal(y.hard_hs, s.hard_hs) and np.array_equal(y.gl_log_odds, np.clip(s.gl_log_odds, -LIMITS["gl_log_odds"], LIMITS["gl_log_odds"]))
    for targets, message in (((), "is empty"), (("hardness",), "'hardness', which is not one of")):
        with pytest.raises(ValueError, match=message): set_targets(other, targets)


# --- the network ----------------------------------------------------------------------------------------------------


def plain_network(weights, sets):
    "Set by set, layer by layer."
    def dense(name, x): return x @ weights[f"{name}/kernel"].astype(float) + weights[f"{name}/bias"]
    def leaky(x): return np.maximum(x, 0) + 0.2 * np.minimum(x, 0)
    out = []
    for s in range(len(sets)):
        x = sets.rows[sets.offsets[s]:sets.offsets[s + 1]].astype(float)
        for k in range(sum(key.startswith("phi") for key in weights) // 2): x = leaky(dense(f"phi_{k}", x))
        x = np.r_[x.mean(axis=0), x.max(axis=0), sets.context[s]] if len(x) else np.r_[np.zeros(2 * x.shape[1]), sets.context[s]]
        for name in [*(f"rho_{k}" for k in range(sum(key.startswith("rho") for key in weights) // 2)), "latent"]: x = leaky(dense(name, x))
        out.append(np.r_[x, dense("targets", x)])
    return np.array(out)


@pytest.mark.parametrize("sizes", [{}, dict(n_rows=4, n_targets=2, n_latent=1, phi=(8,), rho=()), dict(phi=(5, 6, 7, 8), rho=(9, 10))], ids=["default", "least", "deep"])
def test_keras_numpy_and_a_plain_loop_agree(sizes):
    network, sets = set_network(seed=4, **sizes), random_sets(width=sizes.get("n_rows", 3))
    weights = {v.path: np.asarray(v) for v in network.weights}
    assert {k: v.shape for k, v in weights.items() if k.endswith("kernel")} == {f"{k}/kernel": v for k, v in layer_sizes(**sizes).items()}
    latent, predicted = forward(weights, sets)
    assert abs(np.hstack([latent, predicted]) - plain_network(weights, sets)).max() < 1e-5
    assert abs(numbers(network, pad_sets(sets, np.arange(100))) - predicted).max() < 1e-5
    for n in (1, 500): assert abs(forward(weights, sets, n)[1] - predicted).max() < 1e-5
    empty = EventSets(sets.ids[:0], sets.offsets[:1], sets.rows[:0], sets.counts[:0], sets.context[:0])
    assert [len(x) for x in forward(weights, empty)] == [0, 0]


def test_order_and_padding_change_nothing_for_100_random_sets():
    network, rng = set_network(seed=5), np.random.default_rng(6)
    sets = random_sets(seed=7)
    weights = {v.path: np.asarray(v) for v in network.weights}
    inputs = rows, mask, context = pad_sets(sets, np.arange(100))
    expected = numbers(network, inputs)
    longer = np.concatenate([rows, rng.normal(0, 1e3, (100, 700, 3)).astype(np.float32)], axis=1), np.pad(mask, [(0, 0), (0, 700)])
    longer[0][longer[1] == 0] = rng.normal(0, 1e3, (int((longer[1] == 0).sum()), 3))
    order = rng.permuted(np.tile(np.arange(longer[1].shape[1]), (100, 1)), axis=1)
    mixed = np.take_along_axis(longer[0], order[:, :, None], axis=1), np.take_along_axis(longer[1], order, axis=1)
    assert abs(numbers(network, (*mixed, context)) - expected).max() < 1e-5
    for s in range(100): sets.rows[sets.offsets[s]:sets.offsets[s + 1]] = rng.permutation(sets.rows[sets.offsets[s]:sets.offsets[s + 1]])
    assert abs(forward(weights, sets)[1] - expected).max() < 1e-5
    sets.rows[0] += 1  # and a photon that does change is seen
    assert abs(forward(weights, sets)[1] - expected)[1].max() > 1e-3


def test_sets_of_another_width_are_refused():
    weights = {v.path: np.asarray(v) for v in set_network(n_rows=4).weights}
    with pytest.raises(ValueError, match="3 numbers per event, the network was made for 4"): forward(weights, random_sets())
    sets = random_sets(width=4)
    wide = EventSets(sets.ids, sets.offsets, sets.rows, sets.counts, np.zeros((100, 3), np.float32))
    with pytest.raises(ValueError, match="3 context numbers, the network was made for 2"): forward(weights, wide)


# --- training -------------------------------------------------------------------------------------------------------


def test_it_learns_and_the_same_seed_gives_the_same_network(archive, fitted, other):
    again, third = (DeepSets(**SMALL | {"random_state": seed, "epochs": 6 if seed == 3 else 1}).fit(archive[0]) for seed in (3, 4))
    assert all(np.array_equal(again.arrays_[k], v) for k, v in fitted.arrays_.items()) and again.history_.equals(fitted.history_)
    assert not np.array_equal(third.arrays_["phi_0/kernel"], fitted.arrays_["phi_0/kernel"])
    assert fitted.history_.val_loss.min() < 0.75 * fitted.history_.val_loss[0]
    y, p = set_targets(other).to_numpy(), fitted.predict(other)
    assert p.shape == y.shape and np.mean((p[:, 0] - y[:, 0]) ** 2) < 0.5 * y[:, 0].var()
    assert fitted.transform(other).shape == (60, 5) and fitted.get_feature_names_out().tolist() == [f"ds0{k}" for k in range(5)]


def test_one_source_is_on_one_side(archive, fitted):
    table, truth = archive
    held = truth.source[fitted.arrays_["reference_ids"]]
    assert 0.1 < len(held) / len(table) < 0.35 and not set(held) & set(truth.source.drop(held.index)) and truth.source.duplicated().any()
    one = DeepSets(**SMALL | {"epochs": 1}).fit(table, groups=np.arange(320) // 160)
    assert len(one.arrays_["reference_ids"]) == 160
    bare = EventTable(table.ids, table.offsets, table.time, table.energy, table.gti, table.gti_offsets)
    missing = EventTable(table.ids, table.offsets, table.time, table.energy, table.gti, table.gti_offsets, pd.DataFrame({"name": [None, ""] * 160}, index=table.ids))
    for names in (deepsets.group_names(bare, None), deepsets.group_names(missing, None)): assert names.tolist() == table.ids.tolist()


def test_resumed_is_as_if_never_interrupted(archive, fitted, tmp_path):
    DeepSets(**SMALL | {"epochs": 3}).fit(archive[0], checkpoint=tmp_path / "state.npz")
    on = DeepSets(**SMALL).fit(archive[0], checkpoint=tmp_path / "state.npz")
    assert np.allclose(on.history_.loss, fitted.history_.loss, rtol=1e-4) and np.allclose(on.arrays_["latent/kernel"], fitted.arrays_["latent/kernel"], atol=1e-4)
    with pytest.raises(TrainingError, match="another training"): DeepSets(**SMALL | {"batch_size": 16}).fit(archive[0], checkpoint=tmp_path / "state.npz")


def test_a_loss_that_runs_away_stops_and_names_the_batch(archive):
    model = DeepSets(**SMALL | {"learning_rate": 1e30})
    with pytest.raises(TrainingError, match=r"epoch 0, in batch \d+"): model.fit(archive[0])
    with pytest.raises(NotFittedError): model.predict(archive[0])


def test_the_last_good_weights_are_kept(archive, monkeypatch):
    def train(model, *_):
        model.set_weights([w + 1 for w in model.get_weights()])
        raise TrainingError("stopped in epoch 3")
    monkeypatch.setattr(deepsets, "train", train)
    model = DeepSets(**SMALL)
    with pytest.raises(TrainingError, match="epoch 3"): model.fit(archive[0])
    assert np.all(model.arrays_["latent/bias"] == 1) and np.isfinite(model.predict(archive[0])).all()


@pytest.mark.parametrize("change, message", [
    ({"n_latent": 0}, "`n_latent`"), ({"n_latent": 1.5}, "`n_latent`"), ({"phi": ()}, "`phi`"), ({"phi": (8, 0)}, "`phi`"), ({"rho": (-1,)}, "`rho`"), ({"targets": ()}, "targets"),
    ({"neighbors": 3}, "`neighbors`"), ({"max_events": 0}, "`max_events`"), ({"batch_size": 0}, "`batch_size`"), ({"learning_rate": 0}, "`learning_rate`"),
    ({"learning_rate": np.nan}, "`learning_rate`"), ({"validation": 1}, "`fraction`"), ({"epochs": 0}, "`epochs`"), ({"patience": 0}, "`patience`"),
    ({"time_axis": "gps"}, "`time_axis`"), ({"energy_range": (2, 1)}, "`energy_range`"), ({"targets": ("color",)}, "`targets`")])
def test_bad_parameters_are_named(archive, change, message):
    with pytest.raises(ValueError, match=message): DeepSets(**SMALL | change).fit(archive[0][:40])


def test_bad_archives_are_refused(archive, fitted):
    table = archive[0]
    none = EventTable.from_lists([EventList([], [], f"{k}_1", WINDOW) for k in range(12)])
    for events, error, message in ((table[:1], TrainingError, "at least two sources"), (table[[]], TrainingError, "0 rows of 0 source"), (none, EventDataError, "none of the detections to train on has an event"),
                                   (EventTable(["1_1", "2_1"], [0, 2, 4], [1.0, 2, 1, 2], gti=WINDOW * 2, gti_offsets=[0, 1, 2]), EventDataError, "no energies")):
        with pytest.raises(error, match=message): DeepSets(**SMALL).fit(events)
    with pytest.raises(TrainingError, match="of 1 source"): DeepSets(**SMALL).fit(table, groups=["the same"] * 320)
    with pytest.raises(ValueError, match="one entry per event list, got 3 for 320"): DeepSets(**SMALL).fit(table, groups=[1, 2, 3])
    with pytest.raises(EventDataError, match="is unknown"): fitted.predict(EventList([1.0, 2], [900, 900]))
    with pytest.raises(NotFittedError): DeepSets().transform(table)
    with pytest.raises(NotFittedError): DeepSets().anomaly_score(table)


def test_scikit_learn(fitted):
    again = clone(fitted)
    assert again.get_params() == fitted.get_params() and not hasattr(again, "arrays_") and again.set_params(n_latent=2).n_latent == 2


# --- scores ---------------------------------------------------------------------------------------------------------


def test_odd_sources_have_finite_answers(fitted):
    rng = np.random.default_rng(0)
    odd = EventTable.from_lists([EventList([], [], "none", WINDOW), EventList([5.0], [900], "single", WINDOW), EventList([7.0] * 3, [900.0] * 3, "instant", WINDOW),
                                 EventList([1.0, 2], [100, 9e4], "out of band", WINDOW), EventList(np.sort(rng.uniform(0, 1000, 20_000)), np.full(20_000, 2e3), "bright", WINDOW)])
    assert np.isfinite(fitted.predict(odd)).all() and np.isfinite(fitted.transform(odd)).all()
    with pytest.warns(XRTWarning, match="of 5 detections get no score"): score = fitted.anomaly_score(odd)
    inside = score[~score.extrapolated]
    assert np.isfinite(inside.to_numpy(float)).all() and (inside.p > 0).all() and (inside.p <= 1).all() and score.index.tolist() == odd.ids.tolist()
    assert score.extrapolated["bright"] and score.drop(columns=["extrapolated", "counts"])[score.extrapolated].isna().all(axis=None)
    # alone or in company is another shape of batch, so another order of float32 sums: equal to rounding, not to the bit
    with warnings.catch_warnings(action="ignore", category=XRTWarning): alone = fitted.anomaly_score(odd["single"])
    assert np.allclose(alone.astype(float), score.loc[["single"]].astype(float), rtol=1e-4, atol=1e-4, equal_nan=True)
    assert len(fitted.anomaly_score(odd[[]])) == 0


def quietly(model, events):
    "Scores without the warning about those that get none."
    with warnings.catch_warnings(action="ignore", category=XRTWarning): return model.anomaly_score(events)


def test_scores_don_t_depend_on_company(fitted, other):
    whole, part = quietly(fitted, other), quietly(fitted, other[20:40][::-1])
    assert np.allclose(whole.loc[part.index].astype(float), part.astype(float), rtol=1e-4, atol=1e-4, equal_nan=True)
    assert whole.columns.tolist() == ["extrapolated", "z", "p", "error", "counts", *(f"z_{t}" for t in TARGETS)]
    assert np.allclose(whole.error, (whole[[f"z_{t}" for t in TARGETS]] ** 2).sum(axis=1, skipna=False), equal_nan=True) and np.array_equal(whole.counts, other.counts)


def test_a_source_like_no_other_scores_high(fitted, other):
    rng = np.random.default_rng(2)
    t = np.sort(np.r_[rng.uniform(0, 30e3, 30), 12e3 + rng.exponential(20, 270)])
    strange = fitted.anomaly_score(EventList(t, np.where(t > 12e3, 6000.0, 600.0), "strange", [[0, 30e3]]))
    assert strange.p.iloc[0] <= 0.05 and strange.z.iloc[0] > quietly(fitted, other).z.quantile(0.95)


@quiet
@given(seed=st.integers(0, 10**6), r=st.sampled_from([1, 3, 50, 300]), width=st.sampled_from([1, 20, 100]))
def test_residuals_are_judged_by_their_neighbors_in_counts(seed, r, width):
    rng = np.random.default_rng(seed)
    known = rng.permutation(1000)[:r]  # all different, so that the nearest are known
    ref, counts, res = rng.normal(size=(r, 2)), rng.integers(0, 1000, 20), rng.normal(size=(20, 2))
    z, rank = count_residuals(known, ref, counts, res, width), np.argsort(known)
    for s in range(20):
        w = min(width, r)
        a = np.clip((np.searchsorted(known[rank], counts[s]) + np.searchsorted(known[rank], counts[s], "right")) // 2 - w // 2, 0, r - w)
        near = ref[rank[a:a + w]]
        m = np.median(near, axis=0)
        assert np.allclose(z[s], (res[s] - m) / np.maximum(1.4826 * np.median(abs(near - m), axis=0), 1e-3))


def test_too_few_reference_sources_give_no_score(archive):
    few = DeepSets(**SMALL | {"epochs": 1}).fit(archive[0][:30])
    with pytest.raises(TrainingError, match="at least 10 reference detections"): few.anomaly_score(archive[0][:3])


# --- files ----------------------------------------------------------------------------------------------------------


def rewrite(path, arrays, **manifest):
    "Write other arrays, with a manifest whose hash is right."
    np.savez(path, **arrays)
    about = json.loads(manifest_path(path).read_text()) | {"sha256": file_hash(path)} | manifest
    about.pop("seal", None)  # version 0.1 wrote none
    manifest_path(path).write_text(json.dumps(about))


def test_saved_and_loaded_is_the_same(fitted, other, tmp_path):
    path = fitted.save(tmp_path / "sets.npz")
    again = DeepSets.load(path)
    assert np.array_equal(again.predict(other), fitted.predict(other)) and np.array_equal(again.transform(other), fitted.transform(other))
    assert quietly(again, other).equals(quietly(fitted, other)) and again.phi == fitted.phi and again.targets == fitted.targets
    with pytest.raises(FileExistsError): fitted.save(path)
    assert again.save(path, overwrite=True) == path and np.array_equal(DeepSets.load(path).predict(other), fitted.predict(other))
    with pytest.raises(ValueError, match="must be .npz"): fitted.save(tmp_path / "sets.pkl")


def test_files_that_don_t_fit_are_refused(fitted, tmp_path):
    path = fitted.save(tmp_path / "sets.npz")
    arrays = read_arrays(path)
    kernel = arrays["phi_0/kernel"]
    for change, message in (({"phi_0/kernel": kernel[:2]}, r"phi_0/kernel has shape \(2, 16\), the network needs \(3, 16\)"), ({"phi_0/kernel": kernel * np.nan}, "not finite"),
                            ({"lambda/kernel": kernel}, "lambda/kernel is not part"), ({"reference_errors": arrays["reference_errors"][:-1]}, "reference_errors has shape")):
        rewrite(path, arrays | change)
        with pytest.raises(EventDataError, match=message): DeepSets.load(path)
    rewrite(path, {k: v for k, v in arrays.items() if k != "y_std"})
    with pytest.raises(EventDataError, match="y_std is missing"): DeepSets.load(path)
    for manifest, message in (({"class": "ConvAutoencoder"}, "holds a ConvAutoencoder"), ({"params": None}, "no usable params"), ({"params": {"depth": 3}}, "unknown 'depth'")):
        rewrite(path, arrays, **{"class": "DeepSets", "params": {}} | manifest)
        with pytest.raises(EventDataError, match=message): DeepSets.load(path)


def test_a_network_of_version_0_1_is_read(fitted, other, tmp_path):
    path = fitted.save(tmp_path / "sets.npz")
    params = json.loads(manifest_path(path).read_text())["params"]
    params["neighbours"] = params.pop("neighbors")
    rewrite(path, read_arrays(path), **{"class": "DeepSets", "params": params})
    assert np.array_equal(DeepSets.load(path).predict(other), fitted.predict(other))


def test_another_file_than_the_manifest_s_is_refused(fitted, tmp_path):
    path = fitted.save(tmp_path / "sets.npz")
    np.savez(path, **{k: v for k, v in read_arrays(path).items()}, more=np.zeros(1))
    with pytest.raises(EventDataError, match="not the file its manifest describes"): DeepSets.load(path)
    manifest_path(path).unlink()
    with pytest.raises(EventDataError, match="no manifest"): DeepSets.load(path)


def test_applying_needs_no_keras(fitted, other, tmp_path):
    path, events = fitted.save(tmp_path / "sets.npz"), other.write(tmp_path / "events.parquet")
    code = f"""
import sys
sys.modules["keras"] = sys.modules["jax"] = None
from xrt_nb.data import read_events
from xrt_nb.deepsets import DeepSets
events = read_events({str(events)!r})
model = DeepSets.load({str(path)!r})
print(len(model.anomaly_score(events)), repr(float(model.predict(events)[7, 0])), model.transform(events).shape[1])
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert out.returncode == 0, out.stderr
    n, first, width = out.stdout.split()
    assert int(n) == 60 and float(first) == pytest.approx(float(fitted.predict(other)[7, 0]), abs=1e-5) and int(width) == 5
