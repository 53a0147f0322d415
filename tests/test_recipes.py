"""Published recipes: SMOTE, draws and dust against what they must be, Mahalanobis against scipy, what is refused, other people's answers."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.table import Table
from scipy.spatial.distance import mahalanobis
from scipy.stats import truncnorm
from sklearn.base import clone

from xrt_nb.classification import hardness, photon_hardness, read_measures, simulate_labeled
from xrt_nb.data import EventDataError, XRTWarning
from xrt_nb.evaluation import measures
from xrt_nb.recipes import (
    DEEPEST, MIXTURE_COLUMNS, MixtureMahalanobis, MuwclassRecipe, agreement_of, at_place, dimmed, energy_hardness, extinction, let_through,
    mixture_values, muwclass_features, one_draw, oversampled, pooled, recorded_answers, redrawn, stretch_of, stretched,
)

SHARED = Path(__file__).resolve().parent.parent / os.environ.get("XRT_NB_SHARED", "../shared") / "data"
QUICK = dict(draws=2, n_trees=10)
HARD = ("hard_hm", "hard_hs", "hard_ms")


@pytest.fixture(scope="module")
def table():
    return simulate_labeled(400, random_state=5)


@pytest.fixture(scope="module")
def fitted(table):
    return MuwclassRecipe(**QUICK).fit(table[:300], table.True_Class[:300])


def detections(n=400, seed=0):
    rng = np.random.default_rng(seed)
    k = rng.integers(0, 2, n)
    out = {c: np.clip(rng.normal(0.4 * k - 0.2, 0.15), -1, 1) for c in HARD}
    out |= {"powlaw_gamma": rng.normal(1.5 + k, 0.2), "bb_kt": np.exp(rng.normal(k, 0.3))}
    out |= {f"var_prob_{b}": rng.random(n) for b in "bhs"} | {f"var_ratio_{b}": np.exp(rng.normal(-3 + k, 1)) for b in "bhs"}
    return pd.DataFrame(out | {"var_newq_b": np.exp(rng.normal(0.2 * k, 0.1))}), np.array(["AGN", "YSO"], dtype=object)[k]


# ---- MUWCLASS

def test_a_positive_draw_is_a_gaussian_cut_at_zero():
    rng = np.random.default_rng(1)
    for value, error in ((1.0, 2.0), (0.0, 1.0), (3.0, 0.5)):
        got = redrawn(np.full(40_000, value), np.full(40_000, error), rng, True)
        expected = truncnorm(-value / error, np.inf, value, error)
        assert (got > 0).all()
        assert abs(got.mean() - expected.mean()) < 5 * expected.std() / 200


def test_a_draw_keeps_what_has_no_error_columns_and_sums_the_bands(table):
    m = read_measures(table)
    got = one_draw(m, 2**0.5, np.random.default_rng(0))
    np.testing.assert_array_equal(got["kp_intra"], m.value["kp_intra"])
    np.testing.assert_allclose(got["flux_b"], got["flux_s"] + got["flux_m"] + got["flux_h"])
    still = one_draw(m, 0.0, np.random.default_rng(0))
    np.testing.assert_array_equal(still["G"], m.value["G"].where(m.low["G"].notna()))


def test_oversampling_makes_classes_equal_and_invents_only_between_members():
    rng = np.random.default_rng(3)
    x, k = rng.normal(size=(60, 3)), np.repeat([0, 1, 2], [40, 15, 5])
    x[k == 1, 2] = np.nan
    out, classes = oversampled(x, k, 4, rng)
    assert np.bincount(classes).tolist() == [40, 40, 40]
    np.testing.assert_array_equal(out[:60], x)
    new = out[60:][classes[60:] == 2]
    own = x[k == 2]
    for point in new:  # on the segment between two members
        a, b = own[:, None], own[None]
        on = np.abs(np.linalg.norm(a - point, axis=2) + np.linalg.norm(b - point, axis=2) - np.linalg.norm(a - b, axis=2))
        assert on.min() < 1e-9
    assert np.isnan(out[60:][classes[60:] == 1][:, 2]).all()


def test_features_are_the_ratios_they_are_named_for(table):
    m = read_measures(table)
    v = {c: m.value[c].to_numpy() for c in m.value}
    f = muwclass_features(v, len(table))
    assert f.shape == (400, 28) and not np.isinf(f.to_numpy()).any()
    np.testing.assert_allclose(f["log Fs/Fb"], np.log10(v["flux_s"] / v["flux_b"]))
    np.testing.assert_allclose(f["hard_hms"], (v["flux_h"] - v["flux_m"] - v["flux_s"]) / (v["flux_h"] + v["flux_m"] + v["flux_s"]))
    both = (v["G"] < DEEPEST["G"]) & (v["K"] < DEEPEST["K"])
    np.testing.assert_allclose(f["G-K"], np.where(both, v["G"] - v["K"], np.nan))


def test_extinction_is_fitzpatricks():
    # E(lambda - V) / E(B - V) + R_V of the curve for R_V = 3.1, Fitzpatrick 1999, Table 3
    for x, a in ((0.377, 0.265), (0.820, 0.829), (1.667, 2.688), (1.828, 3.055), (2.141, 3.806), (2.433, 4.315)):
        assert abs(extinction(1e4 / x) - a) < 0.02, x


def test_dust_takes_soft_x_rays_and_blue_light_first(table):
    v = {c: x.to_numpy() for c, x in read_measures(table).value.items()}
    rows = (table.True_Class == "AGN").to_numpy()
    got = dimmed(v, rows, 0.5)
    for b in "smh":
        np.testing.assert_allclose(got[f"flux_{b}"], np.where(rows, v[f"flux_{b}"] * let_through(b, 0.5), v[f"flux_{b}"]))
    np.testing.assert_allclose(got["K"] - v["K"], np.where(np.isnan(v["K"]), np.nan, np.where(rows, 0.5 * extinction(21590.0), 0.0)), atol=1e-9)


def test_probabilities_are_probabilities_and_repeat(table, fitted):
    p = fitted.predict_proba(table[300:])
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert list(p.columns) == sorted(table.True_Class.unique()) and p.index.equals(table.index[300:])
    again = clone(fitted).fit(table[:300], table.True_Class[:300]).predict_proba(Table.from_pandas(table[300:]))
    np.testing.assert_array_equal(again, p)
    other = MuwclassRecipe(**QUICK, random_state=1).fit(table[:300], table.True_Class[:300]).predict_proba(table[300:])
    assert np.abs(other - p).to_numpy().max() > 0.01
    assert (fitted.predict(table[300:]) == p.idxmax(axis=1)).all()


def test_the_recipe_learns_more_than_the_shares(table, fitted):
    shares = table.True_Class[:300].value_counts(normalize=True).sort_index()
    truth, p = table.True_Class[300:], fitted.predict_proba(table[300:])
    assert measures(truth, p, p.columns)["accuracy"] > 1.2 * shares.max()


def test_confidence_is_the_smallest_gap_in_units_of_both_spreads(table, fitted):
    told = fitted.confidence(table[300:], at_least=2.0)
    assert (told["confident"] == (told["ct"] >= 2)).all() and told["confident"].any() and not told["confident"].all()
    np.testing.assert_allclose(told["probability"], fitted.predict_proba(table[300:]).max(axis=1))


def test_reddening_changes_the_answers_and_only_by_the_classes_named(table):
    one = table[:200]
    plain = MuwclassRecipe(**QUICK).fit(one, one.True_Class).predict_proba(table[300:])
    red = MuwclassRecipe(**QUICK, ebv=1.0).fit(one, one.True_Class).predict_proba(table[300:])
    nobody = MuwclassRecipe(**QUICK, ebv=1.0, red_classes=()).fit(one, one.True_Class).predict_proba(table[300:])
    assert np.abs(red - plain).to_numpy().max() > 0.05
    np.testing.assert_array_equal(nobody, plain)


@pytest.mark.parametrize("settings, said", [
    (dict(draws=0), "draws"), (dict(n_trees=1.5), "n_trees"), (dict(error_scale=-1), "error_scale"), (dict(ebv="much"), "ebv"),
    (dict(n_near=-1), "n_near"), (dict(random_state=None), "random_state"),
])
def test_settings_that_cannot_be(table, settings, said):
    with pytest.raises(ValueError, match=said):
        MuwclassRecipe(**settings).fit(table, table.True_Class)


def test_bad_tables_and_labels(table, fitted):
    small = table[:20]
    with pytest.raises(EventDataError, match="no column that MUWCLASS's recipe knows; the table has a, b"):
        MuwclassRecipe().fit(pd.DataFrame({"a": [1.0, 2], "b": [1.0, 2]}), ["AGN", "CV"])
    with pytest.raises(EventDataError, match="several spellings"):
        MuwclassRecipe().fit(small, ["agn", "AGN"] * 10)
    with pytest.raises(EventDataError, match=r"fewer than 2 sources: CV \(1\)"):
        MuwclassRecipe().fit(small, ["AGN"] * 10 + ["YSO"] * 9 + ["CV"])
    with pytest.raises(EventDataError, match="not a single source has a label"):
        MuwclassRecipe().fit(small, [None] * 20)
    with pytest.raises(EventDataError, match="at least two classes"):
        MuwclassRecipe().fit(small, ["AGN"] * 20)
    with pytest.raises(ValueError, match="one entry for each of the 20 rows, got 3"):
        MuwclassRecipe().fit(small, ["AGN", "CV", "AGN"])
    with pytest.raises(EventDataError, match=r"lacks: 'Gmag' \(G\)"):
        fitted.predict_proba(table.drop(columns="Gmag"))
    with pytest.raises(EventDataError, match="row 0"):
        fitted.predict_proba(table.assign(Fs=1.0))
    with pytest.raises(EventDataError, match="duplicated"):
        MuwclassRecipe().fit(small.rename(columns={"Gmag": "Kmag"}), small.True_Class)


# ---- umlcaxs

def test_the_stretch_is_kept_for_single_sources():
    x, _ = detections()
    s = stretch_of(x)
    all_ = stretched(x, s)
    np.testing.assert_array_equal(stretched(x.iloc[[7]], s), all_[[7]])
    j = list(x.columns).index("bb_kt")
    logs = np.log(x["bb_kt"] + x["bb_kt"].min() / 10)
    np.testing.assert_allclose(all_[:, j], (logs - logs.min()) / (logs.max() - logs.min()))
    np.testing.assert_array_equal(all_[:, 0], x["hard_hm"])


def test_answers_are_softmin_of_scipys_mahalanobis():
    x, y = detections()
    model = MixtureMahalanobis(n_components=2).fit(x, y)
    p, z = model.predict_proba(x), stretched(x, model.stretch_)
    cluster = model.mixture_.predict(z)
    assert model.answered(x).all()
    for i in range(0, 400, 23):
        d = []
        for t in model.classes_:
            own = z[(cluster == cluster[i]) & (y == t)]
            d.append(mahalanobis(z[i], own.mean(0), np.linalg.pinv(np.cov(own.T))) ** 2 if len(own) >= 12 else np.inf)
        q = np.exp(-np.array(d))
        np.testing.assert_allclose(p.iloc[i], q / q.sum(), atol=1e-8)


def test_the_gaussian_kind_is_nearer_to_the_truth():
    rng = np.random.default_rng(4)
    y = np.array(["AGN", "YSO"], dtype=object)[rng.integers(0, 2, 1000)]
    x = pd.DataFrame({c: np.clip(rng.normal(0, np.where(y == "AGN", 0.1, 0.2)), -1, 1) for c in HARD})  # one within the other
    known = dict(columns=HARD, n_components=1)
    got = {k: MixtureMahalanobis(kind=k, **known).fit(x[:500], y[:500]).predict_proba(x[500:]) for k in ("published", "gaussian")}
    loss = {k: measures(y[500:], p, p.columns)["log loss"] for k, p in got.items()}
    assert loss["gaussian"] < min(np.log(2), loss["published"])


def test_rows_without_labels_shape_clusters_and_rows_without_a_column_get_the_shares():
    x, y = detections()
    half = np.where(np.arange(400) < 200, y, None)
    model = MixtureMahalanobis(n_components=2).fit(x, half)
    hole = x.copy()
    hole.loc[3, "bb_kt"] = np.nan
    assert model.answered(hole).drop(3).equals(model.answered(x).drop(3)) and not model.answered(hole)[3]
    np.testing.assert_allclose(model.predict_proba(hole).loc[3], model.shares_)
    assert np.isfinite(model.predict_proba(hole)).all(axis=None)
    assert (model.predict(x) == model.predict_proba(x).idxmax(axis=1)).all()


def test_a_class_with_few_members_in_a_cluster_never_wins_there():
    x, y = detections()
    y = y.copy()
    y[:5] = "CV"
    model = MixtureMahalanobis(n_components=1).fit(x, y)
    assert (model.predict_proba(x)["CV"] == 0).all()
    assert (MixtureMahalanobis(n_components=1, least=5).fit(x, y).predict_proba(x)["CV"] > 0).any()


def test_variability_ratios_of_the_catalogs_columns():
    t = pd.DataFrame({"var_sigma_h": [1.0, 0.0], "var_mean_h": [2.0, 0.0]})
    got = mixture_values(t, ["var_ratio_h"])["var_ratio_h"]
    assert got[0] == 0.5 and np.isnan(got[1])


@pytest.mark.parametrize("change, said", [
    (lambda x: x.drop(columns="bb_kt"), "no column bb_kt; the table has"), (lambda x: x.assign(hard_hm=5.0), "'hard_hm' in row 0 is 5"),
    (lambda x: x.assign(bb_kt=-1.0), "'bb_kt' in row 0 is -1"), (lambda x: x.assign(var_prob_b=2.0), "var_prob_b"),
    (lambda x: x.assign(powlaw_gamma=np.inf), "powlaw_gamma"), (lambda x: x.assign(bb_kt=np.nan), "0 rows have all columns"),
])
def test_bad_detections(change, said):
    x, y = detections()
    with pytest.raises(EventDataError, match=said):
        MixtureMahalanobis().fit(change(x), y)


def test_bad_settings_of_the_mixture():
    x, y = detections()
    for settings, said in ((dict(kind="other"), "kind"), (dict(n_components=0), "n_components"), (dict(least=1), "least")):
        with pytest.raises(ValueError, match=said):
            MixtureMahalanobis(**settings).fit(x, y)
    with pytest.raises(EventDataError, match="too few for 60 clusters"):
        MixtureMahalanobis(n_components=60).fit(x, y)


# ---- beside each other

def test_recorded_answers_and_agreement():
    t = pd.DataFrame({"AGN": ["0.9±0.1", "0.2±0.0"], "YSO": ["0.1±0.1", "0.8±0.0"]})
    p = recorded_answers(t, ["AGN", "YSO"])
    assert agreement_of(p, p).loc["all"].tolist() == [2, 1, 0]
    assert agreement_of(1 - p, p).loc["all", "same class"] == 0
    with pytest.raises(EventDataError, match="no column CV"):
        recorded_answers(t, ["CV"])


def test_sources_of_several_detections():
    p = pd.DataFrame({"AGN": [0.9, 0.7, 0.1], "YSO": [0.1, 0.3, 0.9]}, index=["x", "y", "z"])
    got = pooled(p, ["a", "a", "b"])
    assert got.loc["a", "AGN"] == pytest.approx(0.8) and got.loc["a", "e_AGN"] == pytest.approx(0.1)
    assert got["n_detections"].to_dict() == {"a": 2, "b": 1} and got["unique"].all()


def test_places_are_found_within_the_radius_only():
    assert at_place([0.0, 359.9999], [0.0, 0.0], (0.0001, 0.0)) == (0, pytest.approx(0.36, abs=0.01))
    assert at_place([10.0], [0.0], (10.01, 0.0), radius=1)[0] is None


def test_the_recipe_reads_the_catalogs_hardness_as_its_own(table):
    got = photon_hardness(read_measures(table))
    np.testing.assert_allclose(energy_hardness(got["hard_hm"], "h", "m"), hardness(table.Fh, table.Fm), atol=1e-9)
    np.testing.assert_allclose(energy_hardness(got["hard_ms"], "m", "s"), hardness(table.Fm, table.Fs), atol=1e-9)
    values = {c: got[c].to_numpy() for c in HARD}
    plain = {c: v.to_numpy() for c, v in read_measures(table).value.items()}
    for c in ("hard_hm", "hard_ms"):  # one table with fluxes, one with the catalog's hardness alone
        np.testing.assert_allclose(muwclass_features(values, len(table))[c], muwclass_features(plain, len(table))[c], atol=1e-9)


def test_the_recipe_takes_no_other_variability_for_its_own(fitted, table):
    other = table[300:].rename(columns={"P_intra": "var_prob_b"})
    with pytest.warns(XRTWarning, match=r"'P_intra' \(kp_intra\).*'var_prob_b' \(var_intra\) is another number"):
        got = fitted.predict_proba(other)
    pd.testing.assert_frame_equal(got, fitted.predict_proba(table[300:].assign(P_intra=np.nan)))


@pytest.mark.skipif(not (SHARED / "csc").is_dir(), reason="no published answers at hand (XRT_NB_SHARED)")
def test_the_recipe_is_nearer_to_published_answers_than_their_mean():
    told = pd.read_csv(SHARED / "csc" / "umlcaxs_classified.csv.gz")
    types = ["QSO", "AGN", "Seyfert_1", "Seyfert_2", "HMXB", "LMXB", "XB", "YSO", "TTau*", "Orion_V*"]
    recorded = recorded_answers(told, types)
    teach = np.where(np.arange(len(told)) % 2, recorded.idxmax(axis=1), None)
    p = MixtureMahalanobis().fit(told[list(MIXTURE_COLUMNS)], teach).predict_proba(told[::2]).reindex(columns=types, fill_value=0.0)
    assert agreement_of(p, recorded[::2]).loc["all", "difference"] < 0.8 * np.abs(recorded[::2] - recorded.mean()).to_numpy().mean()


# ---- MUWCLASS's own answers, for bench_classes.py published

BENCH = Path(__file__).resolve().parent.parent / "benchmarks"


def test_the_published_rows_agree_with_themselves_and_with_the_labeled_table():
    theirs = pd.read_csv(BENCH / "muwclass_published.csv")
    assert theirs.name.is_unique and (theirs.p_true <= theirs.p_class).all() and theirs.p_true.between(0, 1).all()
    path = SHARED / "muwclass" / "labelled_dev.csv.gz"
    if not path.exists():
        pytest.skip("the labeled sources are not at hand")
    truth = pd.read_csv(path).set_index("CSCv2_name").True_Class[theirs.name].to_numpy()
    assert ((theirs["class"] == truth) == (theirs.p_true == theirs.p_class)).all()


def test_the_whole_published_table_is_read_in_its_authors_form(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    from bench_classes import _from_the_whole_table

    rows = {"name": ["a", "b", "b"], "true_Class": ["AGN", "CV", "CV"], "P_AGN": [0.9, 0.6, 0.1], "P_CV": [0.1, 0.4, 0.9]}
    pd.DataFrame(rows).assign(P_median_AGN=1.0, e_P_AGN=0.1).to_csv(tmp_path / "loo.csv", index=False)
    got = _from_the_whole_table(tmp_path / "loo.csv")
    assert got.p_true.tolist() == [0.9, 0.4] and got["class"].tolist() == ["AGN", "AGN"] and got.p_class.tolist() == [0.9, 0.6]
