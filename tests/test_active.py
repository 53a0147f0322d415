"""The loop of looking and learning: what it finds against chance, labels as they come, bad input."""

import sys

import numpy as np
import pandas as pd
import pytest

from xrt_nb._optional import MissingExtra
from xrt_nb.active import ActiveLoop, anomaly_ranking, distance_to, play, possible, usefulness, with_background
from xrt_nb.data import EventDataError
from xrt_nb.labels import Labels


@pytest.fixture(scope="module")
def planted():
    "A cloud of 800 sources in six dimensions, 25 of which lie together somewhat outside."
    rng = np.random.default_rng(3)
    x = np.r_[rng.standard_t(4, size=(775, 6)), rng.normal([3, 3, 0, 0, 0, 0], 0.6, (25, 6))]
    x[rng.random(x.shape) < 0.05] = np.nan
    ids = [f"{k}_1" for k in rng.permutation(800)]
    kinds = pd.Series(np.repeat(["usual", "planted"], [775, 25]), ids)
    return pd.DataFrame(x, ids, columns=list("abcdef")), kinds


def test_twenty_labels_find_a_planted_class_among_the_next_hundred(planted):
    frame, kinds = planted
    found, shares = [], []
    for seed in (0, 1):
        first = kinds.index[kinds == "planted"][seed]
        loop = ActiveLoop(frame, {first: "planted"}, n_trees=45, random_state=seed)
        seen = play(loop, kinds, "planted", 19)
        assert len({first, *seen}) == len(loop.labels) == 20
        left = (kinds == "planted").drop(list(loop.labels))
        found.append(1 - left[loop.ranking("planted").index[100:]].sum() / 25)
        shares.append(left[loop.ranking("planted").index[:100]].sum() / max(left.sum(), 1))
    assert min(found) >= 0.8 > 5 * 120 / 800  # of all, in the looks and the next hundred
    assert np.mean(shares) > 4 * 100 / 780  # of those left after the looks


def test_the_hundred_after_the_twenty_are_looked_at_while_it_goes_on_learning(planted):
    frame, kinds = planted
    loop = ActiveLoop(frame, {kinds.index[kinds == "planted"][2]: "planted"}, n_trees=45)
    play(loop, kinds, "planted", 19)
    left = (kinds == "planted").drop(list(loop.labels))
    hundred = play(loop, kinds, "planted", 100, batch=25)
    assert len(set(hundred)) == 100 and len(loop.labels) == 120
    assert left[hundred].sum() >= 0.8 * left.sum() > 5 * left.sum() * 100 / 780


def test_looking_ends_where_the_archive_ends(planted):
    frame, kinds = planted
    few = frame.loc[[*kinds.index[:9], kinds.index[-1]]]
    loop = ActiveLoop(few, {kinds.index[-1]: "planted"}, n_trees=9)
    assert sorted(play(loop, kinds, "planted", 50, batch=4)) == sorted(kinds.index[:9])
    assert loop.suggest(3, "planted") == [] and loop.ranking("planted").empty


def test_a_background_is_never_one_of_the_labeled_and_weighs_as_promised():
    rng = np.random.default_rng(0)
    for own, others in [([3], []), ([3, 4], [5, 6, 7]), (list(range(6)), [40])]:
        free = np.setdiff1d(np.arange(60), [*own, *others])
        rows, y, weights, back = with_background(own, others, free, 300, rng)
        assert len(back) == len(free) // 5 and not set(back) & {*own, *others} and len(set(rows)) == len(rows)
        np.testing.assert_allclose([weights[y].sum(), weights[~y].sum()], [1, 1 if others else 0.5])


def test_what_is_possible_is_all_of_what_a_column_tells_and_chance_of_what_none_tells():
    rng, k = np.random.default_rng(1), np.arange(600) < 60
    assert possible(np.c_[k + 0.1 * rng.normal(size=600)], k, 60, n_trees=20) == 1
    assert possible(rng.normal(size=(600, 3)), k, 60, n_trees=20) < 0.35


def test_without_coniferest_a_sentence_says_how_to_get_it(planted, monkeypatch):
    monkeypatch.setitem(sys.modules, "coniferest", None)
    with pytest.raises(MissingExtra, match=r"coniferest is not installed: pip install .xrt_nb\[active\]"):
        anomaly_ranking(ActiveLoop(planted[0], {planted[0].index[0]: "planted"}), "planted")


def test_coniferest_ranks_what_has_no_label_by_the_same_labels(planted):
    pytest.importorskip("coniferest")
    frame, kinds = planted
    some = {i: kinds[i] for i in [*kinds.index[:10], *kinds.index[-10:]]}
    loop = ActiveLoop(frame, some)
    order = anomaly_ranking(loop, "planted")
    assert len(order) == 780 and not set(order.index) & set(some) and order.is_monotonic_decreasing
    assert order.equals(anomaly_ranking(loop, "planted"))
    assert (kinds[order.index[:100]] == "planted").sum() > 3 * 15 * 100 / 780  # three times chance


def test_the_same_seed_suggests_the_same_and_order_of_rows_is_no_matter(planted):
    frame, kinds = planted
    some = {i: kinds[i] for i in [*kinds.index[:5], *kinds.index[-5:]]}
    a, b = (ActiveLoop(f, some).suggest(4) for f in (frame, frame))
    assert a == b and len(set(a)) == 4 and not set(a) & set(some)
    assert ActiveLoop(frame, some).ranking("planted").equals(ActiveLoop(frame, some).ranking("planted"))


def test_novelty_is_the_distance_by_a_plain_loop():
    z = np.random.default_rng(1).normal(size=(40, 3))
    got = distance_to(z, [3, 7])
    want = [min(np.sqrt(np.mean((row - z[k]) ** 2)) for k in (3, 7)) for row in z]
    np.testing.assert_allclose(got, want)
    u = usefulness(None, got, 1.0)
    assert u.argmax() == got.argmax() and u.argmin() in (3, 7) and u.max() == 1


def test_labels_of_the_finder_are_taken_as_they_are(planted):
    frame, kinds = planted
    labels = Labels(frame.index)
    labels.mark(list(frame.index[:2]), "flare")
    labels.mark([frame.index[2]], "other")
    loop = ActiveLoop(frame).tell(labels.frame())
    assert loop.labels == {i: labels.label_of(i) for i in frame.index[:3]}
    assert set(loop.ranking("flare").index).isdisjoint(loop.labels)


def test_bad_labels_change_nothing(planted):
    frame, _ = planted
    loop = ActiveLoop(frame, {frame.index[0]: "flare"})
    for bad, said in [({"none_1": "dip"}, "no source none_1"), ({frame.index[1]: "FLARE"}, "several spellings")]:
        with pytest.raises(EventDataError, match=said):
            loop.tell(bad)
        assert loop.labels == {frame.index[0]: "flare"}
    with pytest.raises(ValueError, match="`wanted` must be one of 'flare'"):
        loop.ranking("dip")


@pytest.mark.parametrize("frame, said", [
    (pd.DataFrame({"x": [1.0, 2.0]}, index=["a", "a"]), "duplicated"),
    (pd.DataFrame({"x": ["1", "b"]}, index=["a", "b"]), "must be numbers"),
    (np.zeros((3, 2)), "must be a frame"),
    (pd.DataFrame({"x": [1.0]}, index=["a"]), "at least two sources"),
])
def test_bad_features_are_refused(frame, said):
    with pytest.raises(EventDataError, match=said):
        ActiveLoop(frame)
