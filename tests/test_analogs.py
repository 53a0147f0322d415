"""Neighbour search and retrieval against plain loops; selections and known lists from files."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xrt_nb.analogs import (closeness, compare_retrieval, find_analogs, find_class_analogs, published_transients, read_known, read_selection,
                            retrieval, write_selection)
from xrt_nb.data import EventDataError, UnknownSourceError, XRTWarning

quiet = settings(deadline=None, max_examples=60)


@st.composite
def spaces(draw):
    "Features on a coarse grid, so that distances tie often; ids; source names."
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    n = draw(st.integers(3, 40))
    return rng.integers(0, 4, (n, draw(st.integers(1, 3)))).astype(float), [f"{i}_{rng.integers(9)}" for i in range(n)], [f"S{rng.integers(n // 2 + 1)}" for _ in range(n)]


@quiet
@given(space=spaces(), k=st.integers(1, 12), same=st.booleans(), seed=st.integers(0, 99))
def test_neighbours_against_a_loop(space, k, same, seed):
    x, ids, names = space
    q = seed % len(ids)
    free = [i for i in range(len(ids)) if (names[i] != names[q] if same else i != q)]
    expected = sorted(free, key=lambda i: (np.sqrt(((x[i] - x[q]) ** 2).sum()), ids[i]))[:k]
    if len(expected) < k:
        with pytest.warns(XRTWarning, match=f"only {len(expected)} of {k}"):
            hits = find_analogs(x, ids, ids[q], k, same, names)
    else:
        hits = find_analogs(x, ids, ids[q], k, same, names)
    assert list(hits.obsreg_id) == [ids[i] for i in expected]
    assert list(hits["rank"]) == list(range(1, len(expected) + 1)) and (hits["query"] == ids[q]).all()
    assert np.allclose(hits.distance, [np.linalg.norm(x[i] - x[q]) for i in expected])


@quiet
@given(space=spaces(), seed=st.integers(0, 99))
def test_the_order_of_the_archive_is_irrelevant(space, seed):
    x, ids, names = space
    p = np.random.default_rng(seed).permutation(len(ids))
    a = find_analogs(x, ids, ids[0], 2)
    b = find_analogs(x[p], [ids[i] for i in p], ids[0], 2)
    pd.testing.assert_frame_equal(a, b)


@quiet
@given(space=spaces(), k=st.integers(1, 8))
def test_retrieval_against_a_loop(space, k):
    x, ids, names = space
    rng = np.random.default_rng(len(ids))
    kinds, queries = rng.choice(["a", "b"], len(ids)), ids[: max(1, len(ids) // 4)]
    per_query = retrieval(x, ids, kinds, queries, k, sources=names).set_index("query")
    for q in queries:
        i = ids.index(q)
        pool = [j for j in range(len(ids)) if ids[j] not in queries and names[j] != names[i]]
        members = [j for j in pool if kinds[j] == kinds[i]]
        first = sorted(pool, key=lambda j: (np.linalg.norm(x[j] - x[i]), ids[j]))[:k]
        found = len(set(first) & set(members))
        row = per_query.loc[q]
        assert row.found == found and row.precision == found / k and row.n_relevant == len(members)
        assert row.recall == found / max(min(k, len(members)), 1)
        assert row.chance == pytest.approx(len(members) / max(len(pool), 1))


def test_the_three_merges():
    x, ids = np.array([[0.0], [10], [1], [5], [9.5], [40]]), list("qpabcd")
    assert list(find_class_analogs(x, ids, ["q", "p"], 3).obsreg_id) == ["c", "a", "b"]
    assert list(find_class_analogs(x, ids, ["q", "p"], 1, "centroid").obsreg_id) == ["b"]
    assert set(find_class_analogs(x, ids, ["q", "p"], 3, "rank").obsreg_id) == {"a", "b", "c"}
    assert list(find_class_analogs(x, ids, ["q", "p"], 3)["query"]) == ["p", "q", "q"]


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "cityblock", "mahalanobis"])
def test_metrics(metric):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3)) + 5
    hits = find_analogs(x, [str(i) for i in range(50)], "0", 5, metric=metric)
    assert (np.diff(hits.distance) >= 0).all() and len(hits) == 5


def test_standardising_makes_units_irrelevant():
    rng = np.random.default_rng(0)
    x, ids = rng.normal(size=(60, 3)), [str(i) for i in range(60)]
    a = find_analogs(x, ids, "3", 5, standardize=True)
    b = find_analogs(x * [1, 1e6, 1e-6] + 7, ids, "3", 5, standardize=True)
    assert list(a.obsreg_id) == list(b.obsreg_id)


def test_bad_input():
    x, ids = np.eye(3), ["a", "b", "c"]
    with pytest.raises(UnknownSourceError, match="no source 'z' among the 3 ids \\(1 of 2 queries"):
        find_analogs(x, ids, ["a", "z"])
    with pytest.raises(EventDataError, match="unique"):
        find_analogs(x, ["a", "a", "b"], "a")
    with pytest.raises(ValueError, match="one row per id"):
        find_analogs(x, ids[:2], "a")
    with pytest.raises(ValueError, match="empty"):
        find_analogs(x, ids, [])
    with pytest.warns(XRTWarning, match="without `sources`"):
        find_analogs(x, ids, "a", 1, exclude_same_source=True)


def test_closeness_of_random_pairs_is_uniform():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(500, 4))
    d = np.linalg.norm(x[rng.integers(0, 250, 2000)] - x[rng.integers(250, 500, 2000)], axis=1)
    assert abs(closeness(d, x).mean() - 0.5) < 0.03


def test_chance_is_what_noise_gives():
    rng = np.random.default_rng(3)
    n = 800
    truth = pd.DataFrame({"kind": rng.choice(["steady", "flare"], n, p=[0.8, 0.2]), "known": False}, index=[f"{i}_1" for i in range(n)])
    truth.loc[rng.choice(truth.index[truth.kind == "flare"], 60, replace=False), "known"] = True
    r = compare_retrieval({"noise": rng.normal(size=(n, 5))}, truth.index, truth).groupby("ranking")[["precision", "recall"]].mean()
    assert r.precision["noise"] == pytest.approx(r.precision["chance"], abs=0.05)
    assert r.recall["noise"] == pytest.approx(r.recall["chance"], abs=0.05)
    with pytest.raises(EventDataError, match="nothing to search for"):
        compare_retrieval({"x": rng.normal(size=(n, 2))}, truth.index, truth.assign(known=False))


def test_the_published_list_is_the_published_list(shared):
    official = json.loads((shared / "data" / "official" / "bonafide_transients.json").read_text())
    ours = published_transients()
    names = {"Known Dips": "dip", "Known Flares": "flare", "Others": "other"}
    assert {c: set(ours.index[ours == c]) for c in names.values()} == {names[k]: set(v) for k, v in official.items()}


@pytest.mark.parametrize("text, message", [("obsreg_id\n1_1\n", "column 'class' missing"), ("obsreg_id,class\n1_1,\n", "row 0 has no id or no class"),
                                           ("obsreg_id,class\n1_1,dip\n1_1,flare\n", "in two classes")])
def test_ill_known_lists(text, message, tmp_path):
    (tmp_path / "known.csv").write_text(text)
    with pytest.raises(EventDataError, match=message):
        read_known(tmp_path / "known.csv")


def test_selections(tmp_path):
    path = write_selection(tmp_path / "s.csv", ["00123_4", "5_6"], "dip, or =cmd|' /C calc'!A0")
    assert list(read_selection(path).obsreg_id) == ["00123_4", "5_6"]
    with pytest.warns(XRTWarning, match="1 of 2 sources are not in this archive, first '5_6'"):
        assert list(read_selection(path, ["00123_4"], unknown="drop").obsreg_id) == ["00123_4"]
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(EventDataError, match="empty.csv"):
        read_selection(tmp_path / "empty.csv")
