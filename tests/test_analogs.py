"""Neighbour search and retrieval against plain loops; selections and known lists from files."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xrt_nb import analogs
from xrt_nb.analogs import (MoreSources, Prepared, SameSource, closeness, compare_retrieval, find_analogs, find_class_analogs, published_transients, read_known, read_selection,
                            read_truth, retrieval, write_selection)
from xrt_nb.data import EventDataError, UnknownSourceError, XRTError, XRTWarning
from xrt_nb.scores import Euclidean

quiet = settings(deadline=None, max_examples=60)


@st.composite
def spaces(draw):
    "Features on a coarse grid, so that distances tie often; ids; source names."
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    n = draw(st.integers(3, 40))
    return rng.integers(0, 4, (n, draw(st.integers(1, 3)))).astype(float), [f"{i}_{rng.integers(9)}" for i in range(n)], [f"S{rng.integers(n // 2 + 1)}" for _ in range(n)]


@quiet
@given(space=spaces(), members=st.integers(1, 6), block=st.sampled_from([1, 50, 10**6]))
def test_a_class_in_blocks_is_the_class_at_once(space, members, block):
    x, ids, _ = space
    rows = np.arange(min(members, len(ids) - 1))
    apart = np.sqrt(((x[rows, None] - x[None]) ** 2).sum(axis=2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analogs, "BLOCK", block)
        hits = find_class_analogs(x, ids, [ids[r] for r in rows], len(ids)).set_index("obsreg_id")
    others = [i for r, i in enumerate(ids) if r not in rows]
    assert sorted(hits.index) == sorted(others)
    for r, i in enumerate(ids):
        if r not in rows:
            assert hits.distance[i] == pytest.approx(apart[:, r].min(), abs=1e-12)
            assert hits["query"][i] == ids[rows[apart[:, r].argmin()]]  # the first of equals


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
    with pytest.warns(XRTWarning, match="only the query itself is left out"):
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


# --- one source, several detections -------------------------------------------------------------------------------


def facts(draw_from, n, rng):
    "Random facts: names, positions and errors, some missing."
    frame = pd.DataFrame({"name": rng.choice(draw_from, n), "ra": 10 + rng.normal(0, 2e-4, n), "dec": -3 + rng.normal(0, 2e-4, n),
                          "pos_err": rng.choice([np.nan, 0.3, 1.0, -99], n)}, index=[f"{k}_1" for k in range(n)])
    frame.loc[rng.random(n) < 0.2, "ra"] = np.nan
    return frame


@quiet
@given(seed=st.integers(0, 10**6))
def test_same_source_against_the_rule_and_astropy(seed):
    from astropy import units as u
    from astropy.coordinates import SkyCoord
    rng = np.random.default_rng(seed)
    frame = facts(np.array(["A", "B", " A", "", None], dtype=object), 12, rng)
    same = SameSource(frame.index, frame)
    names = [None if pd.isna(v) or not v.strip() else v.strip() for v in frame.name]
    for i in range(12):
        for j in range(12):
            sure = [np.isfinite(frame.ra.iloc[k]) and frame.pos_err.iloc[k] > 0 for k in (i, j)]
            if i == j: expected = True
            elif names[i] and names[j]: expected = names[i] == names[j]
            elif all(sure):
                a, b = (SkyCoord(frame.ra.iloc[k], frame.dec.iloc[k], unit="deg") for k in (i, j))
                expected = a.separation(b) <= np.hypot(frame.pos_err.iloc[i], frame.pos_err.iloc[j]) * u.arcsec
            else: expected = False
            assert same.of(i)[j] == expected


def test_the_target_of_the_pointing_and_a_bare_position_tell_nothing():
    "A field of one target: nothing is left out but the query; a twin at the very place, without an error, stays."
    x, ids = np.arange(5.0)[:, None], [f"10027_{k}" for k in range(5)]
    meta = pd.DataFrame({"target": "M82", "name": None, "ra": 148.9, "dec": 69.7, "pos_err": np.nan}, index=ids)
    with pytest.warns(XRTWarning, match="nothing tells which those are"):
        hits = find_analogs(x, ids, ids[0], 4, exclude_same_source=True, sources=meta)
    assert list(hits.obsreg_id) == ids[1:]
    some = meta.assign(pos_err=[1, 1, np.nan, 1e-3, 1], ra=[148.9, 148.9, 148.9, 148.9, 149.9])
    assert list(find_analogs(x, ids, ids[0], 2, exclude_same_source=True, sources=some).obsreg_id) == [ids[2], ids[4]]


def test_new_detections_of_a_source_in_the_archive():
    frame = pd.DataFrame({"a": [0.0, 1.0, 2.0]}, index=["1_1", "2_1", "3_1"])
    new = pd.DataFrame({"a": [0.1]}, index=["9_1"])
    meta = pd.DataFrame({"name": ["S", "T", "U", "S"]}, index=["1_1", "2_1", "3_1", "9_1"])
    assert list(find_analogs(frame, new, k=2, exclude_same_source=True, sources=meta).obsreg_id) == ["2_1", "3_1"]
    assert list(find_analogs(frame, new, k=2, sources=meta).obsreg_id) == ["1_1", "2_1"]
    again = frame.iloc[[0]]
    assert list(find_analogs(frame, again, k=2).obsreg_id) == ["2_1", "3_1"]  # a detection is never its own analog
    for wrong in (new.rename(columns={"a": "b"}), new.assign(b=1.0)):
        with pytest.raises(EventDataError, match="not those of the archive"): find_analogs(frame, wrong)
    two = pd.DataFrame({"a": [0.0, 1], "b": [1.0, 0]}, index=["1_1", "2_1"])
    with pytest.raises(EventDataError, match="the order is another"): find_analogs(two, two[["b", "a"]], k=1)


# --- scores -------------------------------------------------------------------------------------------------------


@quiet
@given(space=spaces(), how=st.sampled_from(["min", "rank", "centroid"]), standardize=st.booleans())
def test_classes_by_scores_and_by_distances_agree(space, how, standardize):
    from xrt_nb.scores import Euclidean
    x, ids, _ = space
    x = x + np.random.default_rng(len(x)).normal(size=x.shape)  # no ties: those may fall either way in the last bit
    frame, queries = pd.DataFrame(x, index=ids), ids[: max(1, len(ids) // 3)]
    k = max(1, min(5, len(ids) - len(queries)))
    a = find_class_analogs(x, ids, queries, k, how, standardize=standardize)
    b = find_class_analogs(frame, queries=queries, k=k, how=how, score=Euclidean(standardize=standardize))
    pd.testing.assert_frame_equal(a, b)
    assert (np.diff(a.score) <= 0).all()


@pytest.mark.parametrize("k", [-3, 0, 2.5, "3", None, True, float("nan")])
def test_k_is_a_number_of_neighbors(k):
    x, ids = np.eye(3), ["a", "b", "c"]
    for search in (lambda: find_analogs(x, ids, "a", k), lambda: find_class_analogs(x, ids, ["a"], k), lambda: retrieval(x, ids, ids, ["a"], k)):
        with pytest.raises(ValueError, match="`k` must be a whole number"): search()


# --- lists and truth ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text, message", [("obsreg_id,kind,known\n1_1,flare,perhaps\n", "neither yes nor no"), ("obsreg_id,kind\n1_1,flare\n", "column 'known' missing"),
                                           ("obsreg_id,kind,known\n1_1,a,yes\n1_1,b,no\n", "'1_1' is listed twice"),
                                           ("obsreg_id,kind,known\n1_1,flare,yes,3\n", "has 4 fields")])
def test_ill_truths(text, message, tmp_path):
    (tmp_path / "truth.csv").write_text(text)
    with pytest.raises(EventDataError, match=message): read_truth(tmp_path / "truth.csv")


def test_a_truth_of_a_part_judges_that_part():
    "The rest of the archive is neither query nor answer; `known` as text is read as what it says."
    rng = np.random.default_rng(4)
    n = 300
    x = np.r_[rng.normal(0, 1, (240, 2)), rng.normal(8, 1, (60, 2))]
    truth = pd.DataFrame({"kind": ["steady"] * 240 + ["flare"] * 60, "known": [False] * 240 + [True] * 20 + [False] * 40}, index=[f"{i}_1" for i in range(n)])
    whole = compare_retrieval({"x": x}, truth.index, truth).groupby("ranking").precision.mean()["x"]
    part = truth.iloc[120:]
    with pytest.warns(XRTWarning, match="covers 180 of 300"):
        found = compare_retrieval({"x": x}, truth.index, part)
    assert set(found["query"]) == set(truth.index[truth.known]) and found.groupby("ranking").precision.mean()["x"] == whole == 1.0
    words = truth.assign(known=np.where(truth.known, "yes", "no"))
    pd.testing.assert_frame_equal(compare_retrieval({"x": x}, truth.index, words), compare_retrieval({"x": x}, truth.index, truth))
    with pytest.raises(EventDataError, match="none of its 300 ids"): compare_retrieval({"x": x}, [f"{i}_2" for i in range(n)], truth)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Arrow's handler of ill rows meets bytes that are no UTF-8
@pytest.mark.parametrize("name", ["known.csv", "known.json", "truth.csv"])
def test_mutated_lists_end_in_a_sentence(name, tmp_path):
    "Broken lists are read or refused in our own words."
    from support.fuzzing import mutants
    good = {"known.csv": "obsreg_id,class\n1_1,flare\n2_1,dip\nNA,\"a, b\"\n", "known.json": json.dumps({"flare": ["1_1"], "dip": ["2_1", "3_1"]}),
            "truth.csv": "obsreg_id,kind,known,detectable\n1_1,flare,yes,1\n2_1,steady,no,0\n"}[name]
    read, path = (read_truth if name == "truth.csv" else read_known), tmp_path / name
    for broken in mutants(good.encode(), 300, 7):
        path.write_bytes(bytes(broken[1] if isinstance(broken, tuple) else broken))
        try: found = read(path)
        except (XRTError, FileNotFoundError) as err: assert name in str(err) or "truth" in str(err), err
        else: assert found.index.is_unique and all(isinstance(i, str) and i for i in found.index)


@pytest.mark.parametrize("seed", range(4))
def test_new_detections_meet_their_sources_as_if_they_stood_in_the_archive(seed):
    "Names and positions looked through once tell the same as one look at all; so do counts in order."
    rng = np.random.default_rng(seed)
    n, ids = 60, [f"s{k}" for k in range(60)]
    known = pd.DataFrame({"name": rng.choice(["A", " A", "B ", "", None], n)}, index=ids)
    known["ra"], known["dec"] = rng.choice([359.9999, 0.0, 0.0002, 180], n), rng.choice([0, 90, -90, np.nan, 89.9999], n)
    known["pos_err"] = rng.choice([0.5, 1, 400, np.nan, -1], n)
    x = pd.DataFrame(rng.normal(size=(n, 3)), ids)
    old, new = ids[:50], ids[50:]
    judge = Euclidean().fit(x.loc[old])
    ready, counts = Prepared(old, judge.project(x.loc[old])), pd.Series(rng.integers(5, 99, n), ids)
    with pytest.warns(XRTWarning, match="no more sources"):
        plain = find_analogs(x.loc[old], x.loc[new], k=50, exclude_same_source=True, sources=known, score=judge, counts=counts)
        more = MoreSources(SameSource(old, known.loc[old]), new, known.loc[new])
        how = {"score": judge, "counts": counts.to_numpy()}
        quick = find_analogs(ready, x.loc[new], k=50, exclude_same_source=True, sources=more, **how)
    pd.testing.assert_frame_equal(plain, quick)
    assert 0 < len(plain) < 500


def test_counts_in_another_number_are_refused():
    x = pd.DataFrame(np.eye(4), list("abcd"))
    with pytest.raises(ValueError, match=r"one value per id, got \(3,\) and 4 ids"):
        find_analogs(x, "a", k=2, counts=np.ones(3))
    with pytest.raises(UnknownSourceError, match="no value for 'c'"):
        find_analogs(x, "a", k=2, counts={"a": 1, "b": 2, "d": 3})
