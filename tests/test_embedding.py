"""Embedding: properties and cross-checks against scikit-learn and openTSNE."""
import gzip
import pickle
import subprocess
import sys
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from openTSNE import TSNEEmbedding
from openTSNE.affinity import PerplexityBasedNN
from scipy import sparse
from sklearn import manifold
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.neighbors import NearestNeighbors
from sklearn.utils.estimator_checks import check_estimator
from threadpoolctl import threadpool_limits

from xrt_nb import embedding as em
from xrt_nb.data import EventDataError, XRTError, XRTWarning
from xrt_nb.embedding import TSNEMap, known_series, plot_embedding


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(0)
    return np.vstack([rng.normal(c, 1, (60, 6)) for c in (0, 3, 6)])


@pytest.fixture(scope="module")
def fitted(features):
    return em.TSNEMap(method="opentsne", perplexity=20, max_iter=300, random_state=1).fit(features)


def frame(n=5):
    return em.embedding_frame(np.random.default_rng(1).normal(size=(n, 2)), [f"{i}_1" for i in range(n)])


# --- maps ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("init", ["random", "pca", "array"])
def test_sklearn_engine_is_sklearn(features, init):
    start = np.random.default_rng(2).normal(0, 1e-4, (len(features), 2)).astype(np.float32) if init == "array" else init
    ours = em.embed(features, perplexity=20, max_iter=260, init=start, random_state=3)
    with threadpool_limits(1, user_api="openmp"):
        theirs = manifold.TSNE(2, perplexity=20, learning_rate=100, max_iter=260, early_exaggeration=1, init=start, random_state=3).fit_transform(features)
    assert np.array_equal(ours, em.center(theirs))


@pytest.mark.parametrize("method", ["sklearn", "opentsne"])
def test_repeatable_and_centered(features, method):
    a, b = (em.embed(features, method=method, perplexity=20, max_iter=260, random_state=3) for _ in range(2))
    assert np.array_equal(a, b) and a.dtype == np.float64
    assert np.allclose(a.max(0) + a.min(0), 0, atol=1e-10)
    assert not np.array_equal(a, em.embed(features, method=method, perplexity=20, max_iter=260, random_state=4))


@pytest.mark.parametrize("method", ["sklearn", "opentsne"])
def test_more_threads_give_the_same_map_up_to_rounding(features, method):
    a, b = (em.embed(features, method=method, perplexity=20, max_iter=260, n_jobs=n) for n in (1, 2))
    assert em.agreement(a, b)["procrustes"] > 0.99


def test_engines_agree_from_the_same_seed(features):
    a, b = (em.embed(features, method=m, perplexity=20, max_iter=250, learning_rate=1) for m in ("sklearn", "opentsne"))
    same = em.agreement(a, b)
    assert same["procrustes"] > 0.95 and same["knn_overlap"] > 0.8


def test_starting_points_are_those_of_sklearn(features, monkeypatch):
    seen = {}
    def stop(self, P, dof, n, X_embedded, **kw):
        seen["start"] = X_embedded.copy()
        return X_embedded
    monkeypatch.setattr(manifold.TSNE, "_tsne", stop)
    for init in ("random", "pca"):
        manifold.TSNE(2, perplexity=20, init=init, random_state=9).fit(features)
        assert np.array_equal(seen["start"], em.starting_points(features, init, 9))


def test_random_state_none_leaves_global_state_alone(features):
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    for method in ("sklearn", "opentsne"):
        em.embed(features[:40], method=method, perplexity=5, max_iter=250, random_state=None)
    assert np.array_equal(before, np.random.get_state()[1])


def test_progress_is_monotone_and_complete(features):
    for method in ("sklearn", "opentsne"):
        seen = []
        em.embed(features[:60], method=method, perplexity=10, max_iter=320, progress=lambda d, n: seen.append((d, n)))
        done = [d for d, _ in seen]
        assert done == sorted(done) and done[0] == 0 and done[-1] == 320 and {n for _, n in seen} == {320}


@pytest.mark.parametrize("bad, message", [
    (dict(perplexity=0), "perplexity=0"), (dict(perplexity=180), "below the number of detections, 180"), (dict(max_iter=249), "max_iter=249"),
    (dict(learning_rate=0), "learning_rate=0"), (dict(learning_rate=np.nan), "learning_rate=nan"), (dict(early_exaggeration=-2), "early_exaggeration=-2"),
    (dict(init="spectral"), "init='spectral'"), (dict(init=np.zeros((3, 2))), "shape (180, 2), got (3, 2)"), (dict(method="x"), "method='x'")])
def test_bad_settings(features, bad, message):
    with pytest.raises(ValueError) as error: em.embed(features, **bad)
    assert message in str(error.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_bad_features_name_row_and_column(features, value):
    x = pd.DataFrame(features, columns=list("abcdef"), index=[f"s{i}" for i in range(180)])
    x.iloc[17, 4] = value
    with pytest.raises(EventDataError, match=r"row 17 \(s17\), column 4 \(e\); 1 of 1080"): em.embed(x)
    with pytest.raises(EventDataError, match="row 17, column 4;"): em.embed(x.to_numpy())


def test_few_sources_warn(features):
    with pytest.warns(XRTWarning, match="looks at 60 neighbors"): em.embed(features[:50], perplexity=20, max_iter=250)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        em.embed(features[:61], perplexity=20, max_iter=250)


def test_published_settings():
    assert {c: em.published_tsne(c)["perplexity"] for c in em.PUBLISHED_TSNE} == {"2D-PCA": 50, "3D-PCA": 50, "2D-AE": 40, "3D-AE": 30}
    assert {c: em.published_tsne(c)["max_iter"] for c in em.PUBLISHED_TSNE} == {"2D-PCA": 1000, "3D-PCA": 1000, "2D-AE": 3000, "3D-AE": 2000}
    assert all(s["early_exaggeration"] == 1 and s["learning_rate"] == 100 and s["init"] == "random" for s in em.PUBLISHED_TSNE.values())


# --- agreement -------------------------------------------------------------------------------------------------------

def brute_overlap(a, b, k):
    def near(x):
        d = ((x[:, None] - x[None]) ** 2).sum(-1)
        np.fill_diagonal(d, np.inf)
        return np.argsort(d, axis=1)[:, :k]
    return np.mean([len(set(p) & set(q)) / k for p, q in zip(near(a), near(b))])


@pytest.mark.parametrize("k", [1, 5, 99])
def test_knn_overlap_is_brute_force(k):
    rng = np.random.default_rng(k)
    a = rng.normal(size=(100, 2))
    b = a + rng.normal(0, 0.3, a.shape)
    assert em.knn_overlap(a, b, k) == pytest.approx(brute_overlap(a, b, k), abs=1e-12)


def test_knn_overlap_chance_is_exact_on_average():
    rng = np.random.default_rng(0)
    values = [em.knn_overlap(rng.normal(size=(60, 2)), rng.normal(size=(60, 2)), 6) for _ in range(60)]
    assert np.mean(values) == pytest.approx(6 / 59, abs=0.006)


def test_agreement_is_symmetric_invariant_and_seeded():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, 80, 2))
    ab, ba = em.agreement(a, b), em.agreement(b, a)
    assert ab["procrustes"] == pytest.approx(ba["procrustes"]) and ab["knn_overlap"] == ba["knn_overlap"]
    moved = em.agreement(a, -4 * b[:, ::-1] + 7)
    assert moved["procrustes"] == pytest.approx(ab["procrustes"]) and moved["knn_overlap"] == ab["knn_overlap"]
    assert em.agreement(a, b) == ab and em.agreement(a, b, random_state=1)["procrustes_chance"] != ab["procrustes_chance"]
    assert set(ab) == {"procrustes", "procrustes_chance", "knn_overlap", "knn_overlap_chance"}
    assert ab["knn_overlap_chance"] == 10 / 79


@pytest.mark.parametrize("k", [1, 7, 40])
def test_trustworthiness_is_that_of_sklearn(k):
    rng = np.random.default_rng(k)
    high = rng.normal(size=(120, 8))
    for low in (high[:, :2], rng.normal(size=(120, 2))):
        assert em.trustworthiness(high, low, k) == pytest.approx(manifold.trustworthiness(high, low, n_neighbors=k), abs=1e-12)
        assert em.continuity(high, low, k) == pytest.approx(manifold.trustworthiness(low, high, n_neighbors=k), abs=1e-12)


def test_trustworthiness_in_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    high, low = rng.normal(size=(2100, 3)), rng.normal(size=(2100, 2))  # 2100^2 > 4e6: more than one block
    assert em.trustworthiness(high, low, 5) == pytest.approx(manifold.trustworthiness(high, low, n_neighbors=5), abs=1e-12)


# --- placing ---------------------------------------------------------------------------------------------------------

def test_place_equals_opentsne_with_full_affinities(features, fitted):
    """Our rebuilt object places as an openTSNE object that computed all its affinities."""
    new = features[::9] + 0.1
    full = TSNEEmbedding(fitted.embedding_.copy(), PerplexityBasedNN(features, perplexity=20, method="exact"), negative_gradient_method="fft")
    full.prepare_interpolation_grid()
    theirs = np.asarray(full.transform(new, perplexity=5))
    assert np.abs(fitted.place(new)[0] - theirs).max() < 1e-6 * np.ptp(fitted.embedding_)  # 250 steps let rounding grow


def test_place_leaves_the_map_and_follows_its_frame(features, fitted):
    shifted = em.TSNEMap.from_arrays(features, fitted.embedding_ + [1000, -30])
    before = shifted.embedding_.copy()
    new = features[:20] + 0.05
    a, b = fitted.place(new)[0], shifted.place(new)[0]
    assert np.abs(a + [1000, -30] - b).max() < 1e-6 * np.ptp(fitted.embedding_)
    assert np.array_equal(shifted.embedding_, before) and np.array_equal(shifted.features_, features)
    assert np.array_equal(shifted.place(new)[0], b)  # the second time as the first


def test_place_is_independent_of_the_batch(features, fitted):
    new = features[:30] + 0.2
    together, one = fitted.place(new), [fitted.place(new[i:i + 1]) for i in range(30)]
    assert np.abs(together[0] - np.vstack([p for p, _ in one])).max() < 1e-6 * np.ptp(fitted.embedding_)  # 250 steps let rounding grow
    assert np.array_equal(together[1], np.concatenate([f for _, f in one]))


@pytest.mark.parametrize("method", ["tsne", "median"])
def test_place_finds_home_and_flags_strangers(features, fitted, method):
    home, far = fitted.place(features, method=method)
    width = np.ptp(fitted.embedding_, axis=0).max()
    assert np.median(np.linalg.norm(home - fitted.embedding_, axis=1)) < 0.05 * width
    assert far.mean() < 0.05
    where, flag = fitted.place(features[:3] + 500, method=method)
    assert flag.all() and np.isfinite(where).all()


def test_flag_is_the_quantile_rule(features, fitted):
    rng = np.random.default_rng(4)
    new = rng.normal(3, 4, (200, 6))
    nn = NearestNeighbors(n_neighbors=15).fit(features)
    limit = np.quantile(nn.kneighbors()[0][:, -1], 0.99)
    assert np.array_equal(fitted.place(new, method="median")[1], nn.kneighbors(new)[0][:, -1] > limit)


def test_tiny_map_can_place():
    x = np.random.default_rng(0).normal(size=(8, 3))
    tiny = em.TSNEMap.from_arrays(x, x[:, :2])
    for method in ("tsne", "median"):
        assert np.isfinite(tiny.place(x[:2] + 0.01, method=method)[0]).all()


def test_identical_source_with_median_goes_to_its_twin(features, fitted):
    assert np.allclose(fitted.place(features[:5], method="median")[0], fitted.embedding_[:5])


def test_estimator_manners(features):
    e = em.TSNEMap(perplexity=-3)  # no check at construction
    assert clone(e).get_params() == e.get_params()
    e.set_params(perplexity=10, max_iter=250, random_state=2)
    first = e.fit(features[:90]).embedding_
    e.place(features[:2])
    e.fit(features[90:])  # forgets the first fit, its placing machinery included
    assert np.array_equal(e.features_, features[90:]) and not np.array_equal(first, e.embedding_)
    assert not e.place(features[90:93])[1].any()
    assert np.array_equal(em.embed(features[:90], perplexity=10, max_iter=250, random_state=2), first)
    with pytest.raises(XRTError, match="no embedding yet"): em.TSNEMap().place(features)


EXPECTED = {  # checks of scikit-learn that TSNEMap fails, and why it should
    "check_transformer_general": "t-SNE places rows anew: transform of the fitted rows is near their places, not on them",
    "check_transformer_data_not_an_array": "the same",
    "check_transformer_n_iter": "the engines may stop before max_iter, and openTSNE does not say when",
    "check_dtype_object": "our own sentence names the column that holds no numbers",
    "check_estimators_empty_data_messages": "our own sentence for an array without rows or columns",
    "check_fit2d_predict1d": "our own sentence for an array that is not two-dimensional",
}


def test_scikit_learn_accepts_the_estimator():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = check_estimator(TSNEMap(perplexity=2, max_iter=250, learning_rate=1), on_skip=None, expected_failed_checks=EXPECTED)
    failed = {r["check_name"] for r in done if r["status"] == "xfail"}
    assert failed == set(EXPECTED) and sum(r["status"] == "passed" for r in done) > 35


def test_transform_is_place_with_names(features, fitted):
    new = pd.DataFrame(features[:7] + 0.1, index=[f"{k}_1" for k in range(7)])
    assert np.array_equal(fitted.transform(new.to_numpy()), fitted.place(new.to_numpy())[0])
    framed = clone(fitted).set_output(transform="pandas")
    made = framed.fit_transform(pd.DataFrame(features))
    assert list(made) == list(framed.get_feature_names_out()) == ["tsne1", "tsne2"]
    assert np.array_equal(made, fitted.embedding_) and list(framed.transform(new).index) == list(new.index)
    with pytest.raises(NotFittedError, match="no embedding yet"): TSNEMap().transform(features)


def test_a_placed_map_survives_pickle(features, fitted):
    places = fitted.transform(features[:5])
    assert np.array_equal(pickle.loads(pickle.dumps(fitted)).transform(features[:5]), places)


@pytest.mark.parametrize("wrong, words", [(np.ones((30, 2)) * 1j, "Complex data"), (sparse.eye(30), "sparse"), (np.ones((1, 3)), "1 sample")])
def test_what_is_no_table_of_numbers_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words): em.embed(wrong, max_iter=250)


def test_map_keeps_copies(features):
    x, y = features.copy(), features[:, :2].copy()
    m = em.TSNEMap.from_arrays(x, y)
    x += 100; y += 100
    assert np.array_equal(m.features_, features) and np.array_equal(m.embedding_, features[:, :2])


# --- files and frames ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["e.csv", "e.csv.gz"])
def test_round_trip_is_exact(tmp_path, name):
    f = frame(200).assign(x=np.pi)
    f["tsne1"] *= 10.0 ** np.random.default_rng(0).integers(-12, 12, 200)
    back = em.read_embedding(em.write_embedding(f, tmp_path / name))
    for column in ("tsne1", "tsne2", "x"): assert np.array_equal(back[column], f[column])
    assert list(back["obsreg_id"]) == list(f["obsreg_id"]) and [p.name for p in tmp_path.iterdir()] == [name]


def test_ids_stay_text(tmp_path):
    f = em.embedding_frame(np.zeros((2, 2)), ["007", "1e5"])
    assert list(em.read_embedding(em.write_embedding(f, tmp_path / "e.csv"))["obsreg_id"]) == ["007", "1e5"]


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = em.write_embedding(frame(3), tmp_path / "e.csv")
    old = path.read_bytes()
    def fail(self, *a, **k): raise OSError("disk full")
    monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    with pytest.raises(OSError, match="disk full"): em.write_embedding(frame(4), path, overwrite=True)
    assert path.read_bytes() == old and [p.name for p in tmp_path.iterdir()] == ["e.csv"]


@pytest.mark.parametrize("text, message", [
    ("", "not a readable CSV"), ("tsne1,obsreg_id\n1,a\n", "columns ['tsne2'] are missing"), ("tsne1,tsne2,obsreg_id\n1,x,a\n", "column tsne2 of a is x"),
    ("tsne1,tsne2,obsreg_id\n1,,a\n", "column tsne2 of a"), ("tsne1,tsne2,obsreg_id\n1,inf,a\n", "column tsne2 of a is inf"),
    ("tsne1,tsne2,obsreg_id\n1,2,a\n3,4,a\n", "are duplicated, the first is a"), ("tsne1,tsne2,obsreg_id\n1,2,\n", "1 rows have no obsreg_id")])
def test_bad_files_are_named(tmp_path, text, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(EventDataError) as error: em.read_embedding(path)
    assert message in str(error.value) and "bad.csv" in str(error.value)


def test_cut_gzip_is_named(tmp_path):
    path = tmp_path / "cut.csv.gz"
    whole = gzip.compress(frame(500).to_csv(index=False).encode())
    path.write_bytes(whole[:len(whole) // 2])
    with pytest.raises(EventDataError, match="cut.csv.gz"): em.read_embedding(path)


def test_empty_ids_are_refused():
    with pytest.raises(EventDataError, match="1 rows have no obsreg_id"): em.embedding_frame(np.zeros((2, 2)), ["a", " "])


def test_properties_follow_their_ids():
    f = frame(6)
    props = f.sample(frac=1, random_state=1).assign(x=lambda p: p["obsreg_id"])
    for given in (props, props.set_index("obsreg_id"), props.reset_index(drop=True)):
        out = em.embedding_frame(np.zeros((6, 2)), f["obsreg_id"], given)
        assert list(out["x"]) == list(out["obsreg_id"]) and (out["tsne1"] == 0).all() and list(out)[:3] == ["tsne1", "tsne2", "obsreg_id"]
    with pytest.raises(ValueError, match="properties have 2 rows, ids 6"): em.embedding_frame(np.zeros((6, 2)), f["obsreg_id"], {"x": [1, 2]})
    with pytest.raises(ValueError, match="no row for 1 of 6 ids, the first is 3_1"): em.embedding_frame(np.zeros((6, 2)), f["obsreg_id"], props[props["x"] != "3_1"])


# --- drawing ---------------------------------------------------------------------------------------------------------

def legend(ax): return [t.get_text() for t in ax.get_legend().get_texts()] if ax.get_legend() else []


@pytest.mark.parametrize("color, expected", [
    (None, []), ([1.0, 2, np.nan, 4, np.inf], ["no value (2)"]), (["a", "b", None, "a", "b"], ["no value (1)", "a (2)", "b (2)"]),
    ([True, False, True, True, False], ["False (2)", "True (3)"]), (pd.array([1, None, 3, 4, 5], dtype="Int64"), ["no value (1)"])])
def test_colors_and_missing_values(ax, color, expected):
    assert legend(em.plot_embedding(frame(), color=color, ax=ax)) == expected


def test_every_point_is_drawn_once(ax):
    many = frame(300)
    em.plot_embedding(many, color=[f"class {i % 12}" for i in range(300)], ax=ax)
    assert sum(len(c.get_offsets()) for c in ax.collections) == 300 and legend(ax)[-1] == "5 other classes (125)"


def test_plot_returns_axes_takes_kwargs_and_overlays(ax):
    f = frame()
    with pytest.warns(XRTWarning, match="1 of 3 known"): out = em.plot_embedding(f, known={"flare": ["0_1", "2_1", "99_1"]}, ax=ax, s=3, color=None)
    assert out is ax and ax.collections[0].get_sizes()[0] == 3
    assert np.array_equal(ax.collections[-1].get_offsets(), f.loc[[0, 2], ["tsne1", "tsne2"]]) and legend(ax) == ["known flare (2)"]


def test_known_series_forms():
    s = em.known_series({"b": ["2", "1", "2"], "a": np.array(["3"])})
    assert s.to_dict() == {"1": "b", "2": "b", "3": "a"} and em.known_series(s).equals(s)
    for bad in ({"a": "1_1"}, ["1_1"], None):
        with pytest.raises(ValueError, match="known must be"): em.known_series(bad)


ONE_BY_ONE = """
import numpy as np, sys, warnings
from xrt_nb.embedding import TSNEMap, embed
from xrt_nb.data import XRTError
r = np.random.default_rng(0)
x = r.normal(size=(40, 5))
poor = dict(same=np.ones((40, 5)), zeros=np.zeros((40, 3)), one=x[:, :1], tiny=x * 1e-200, tinier=x * 1e-30, huge=x * 1e200, half=np.c_[np.ones(40), x[:, 0]])
warnings.simplefilter("ignore")
for name, f in poor.items():
    for method in ("sklearn", "opentsne"):
        try: print(name, method, np.isfinite(embed(f, method, perplexity=5, init="pca", max_iter=250)).all())
        except XRTError as e: print(name, method, "refused:", e)
for wrong in (dict(learning_rate=1e300), dict(early_exaggeration=1e300), dict(init=x[:, :2] * 1e300)):
    try: embed(x, perplexity=5, max_iter=250, **wrong)
    except ValueError as e: print("refused:", str(e)[:60])
far = TSNEMap.from_arrays(x, x[:, :2] * 20).place(x[:4] + np.array([[1e3], [1e30], [1e150], [1.7e308]]))
print("far", np.isfinite(far[0]).all(), far[1].all())
print("end")
"""


def test_no_features_end_the_process():
    out = subprocess.run([sys.executable, "-c", ONE_BY_ONE], capture_output=True, text=True)
    assert out.returncode == 0 and out.stdout.endswith("end\n"), out.stdout + out.stderr
    said = dict(line.split(" ", 1) for line in out.stdout.splitlines() if line.count(" ") > 1)
    assert all("refused: init='pca' needs two" in said[k] for k in ("same", "zeros", "one"))
    assert all(said[k] == "opentsne True" for k in ("tiny", "tinier", "huge", "half")) and said["far"] == "True True"
    assert out.stdout.count("refused:") == 6 + 3


def test_places_follow_names_not_order():
    rng = np.random.default_rng(4)
    frame = pd.DataFrame(rng.normal(size=(60, 4)), columns=["a", "b", "c", "d"])
    m = TSNEMap(perplexity=8, max_iter=250).fit(frame)
    new = pd.DataFrame(rng.normal(size=(9, 4)), columns=list("abcd"))
    for method in ("tsne", "median"):
        places = m.place(new, method)[0]
        assert np.array_equal(m.place(new[list("dbca")], method)[0], places) and np.array_equal(m.place(new.to_numpy(), method)[0], places)
    for wrong, word in ((new.drop(columns="b"), "'b'"), (new.assign(e=0), "'e'"), (new.rename(columns={"a": "z"}), "'a'"), (new[["a", "a", "b", "c"]], "duplicated")):
        with pytest.raises(EventDataError, match=word): m.place(wrong)


def test_known_as_answers():
    ids = [f"{k}_1" for k in range(6)]
    for answers in (["no", "yes", "No", None, "TRUE", "0"], [False, True, 0, np.nan, 1.0, False]):
        found = known_series(pd.Series(answers, index=ids, dtype=object))
        assert found.to_dict() == {"1_1": "known", "4_1": "known"}
    assert known_series(pd.Series(["no", "flare", None], index=ids[:3])).to_dict() == {"0_1": "no", "1_1": "flare"}  # classes, not answers


def test_names_are_drawn_as_they_stand():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"tsne1": rng.normal(size=30), "tsne2": rng.normal(size=30), "obsreg_id": [f"{k}_1" for k in range(30)]})
    frame["$x$" * 4000], frame["kind"] = rng.normal(size=30), np.where(np.arange(30) < 9, r"$\frac$", "_hidden\n" * 3000)
    for color in frame.columns[3:]:
        ax = plot_embedding(frame, color=color, known={r"$\sqrt$": ["1_1"]}, ax=plt.figure().gca())
        ax.figure.canvas.draw()
        assert all(len(t.get_text()) < 70 for t in ax.get_legend().get_texts())
