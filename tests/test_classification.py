"""Classes of sources: what scikit-learn asks of an estimator, trees against its own, files, bad input, other people's table."""

import copy
import json
import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.io import votable
from astropy.io.votable.ucd import check_ucd
from astropy.table import Table
from click.testing import CliRunner
from scipy.integrate import quad
from sklearn.base import clone
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.inspection import permutation_importance
from sklearn.metrics import roc_auc_score
from sklearn.utils.estimator_checks import check_estimator

from xrt_nb._store import XRTError
from xrt_nb.cli import main
from xrt_nb.classification import (
    EDGES, SourceClassifier, boosted, boosting_arrays, classify, explain, facts_of, features_of, forest_arrays, hardness_error,
    hierarchical, model_hash, nearest_labeled, photon_hardness, read_measures, simulate_labeled, voted, write_classes,
)
from xrt_nb.data import EventDataError, XRTWarning
from xrt_nb.evaluation import folds, measures

QUICK = dict(n_rounds=12, n_trees=20, n_folds=2)
SHARED = Path(__file__).resolve().parent.parent / os.environ.get("XRT_NB_SHARED", "../shared") / "data" / "muwclass"


@pytest.fixture(scope="module")
def table():
    return simulate_labeled(500, random_state=3)


@pytest.fixture(scope="module")
def model(table):
    return SourceClassifier(**QUICK).fit(table[:350], table.True_Class[:350])


# --- the estimator ------------------------------------------------------------------------------------------------

OURS = {"check_fit_score_takes_y": "the second argument of fit is called labels, a name that others rely on"}


@pytest.mark.slow
def test_the_estimator_is_scikit_learns():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = check_estimator(SourceClassifier(n_rounds=20, n_trees=20, n_folds=2), on_skip=None, on_fail=None, expected_failed_checks=OURS)
    failed = {d["check_name"]: repr(d["exception"]) for d in done if d["status"] == "failed"}
    assert failed == {}


def test_parameters_clone_and_arrays():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(120, 4)), np.repeat(["a", "b", "c"], 40)
    x[y == "b", 0] += 3
    x[y == "c", 1] += 3
    x[rng.random(x.shape) < 0.1] = np.nan
    model = SourceClassifier(**QUICK, random_state=5)
    other = clone(model)
    assert other.get_params() == model.get_params()
    p, q = model.fit(x, y).predict_proba(x), other.fit(x, y).predict_proba(x)
    assert isinstance(p, np.ndarray) and np.array_equal(p, q)
    assert (model.predict(x) == y).mean() > 0.8 and model.score(x, y) > 0.8


def test_a_table_gives_a_table_whose_rows_sum_to_one(model, table):
    rows = table[350:].set_index("CSCv2_name", drop=False)
    p = model.predict_proba(rows)
    assert list(p.index) == list(rows.index) and list(p.columns) == sorted(table.True_Class.unique())
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-12)
    assert p.equals(SourceClassifier(**QUICK).fit(table[:350], table.True_Class[:350]).predict_proba(rows))


def test_an_astropy_table_with_units_answers_as_the_frame(model, table):
    rows = table[350:].reset_index(drop=True)
    t = Table.from_pandas(rows)
    for b in "smhb":
        t[f"F{b}"] = (np.asarray(t[f"F{b}"]) / 1000)
        t[f"F{b}"].unit = "W / m2"
        t[f"e_F{b}"] = (np.asarray(t[f"e_F{b}"]) / 1000)
        t[f"e_F{b}"].unit = "W / m2"
    np.testing.assert_allclose(model.predict_proba(t), model.predict_proba(rows), atol=1e-6)


def test_order_of_rows_and_columns_and_further_columns_do_not_matter(model, table):
    rows = table[350:]
    p = model.predict_proba(rows)
    shuffled = rows.sample(frac=1, random_state=1, axis=0).sample(frac=1, random_state=1, axis=1)
    q = model.predict_proba(shuffled.assign(comment="x", number=3.0))
    np.testing.assert_allclose(q.loc[p.index], p, atol=1e-12)


def test_chance_is_beaten_and_probabilities_are_calibrated(table):
    big = simulate_labeled(900, random_state=8)
    model = SourceClassifier(n_rounds=30, n_trees=60, n_folds=2).fit(table, table.True_Class)
    got = measures(big.True_Class, model.predict_proba(big), model.classes_)
    none = measures(big.True_Class, np.tile(model.shares_, (len(big), 1)), model.classes_)
    assert got["log loss"] < 0.6 * none["log loss"] and got["ECE"] < 0.08


def test_priors_move_answers_as_bayes_says(model, table):
    rows = table[350:]
    p = model.predict_proba(rows)
    wanted = {c: 1 / 8 for c in model.classes_}
    other = clone(model).set_params(priors=wanted).fit(table[:350], table.True_Class[:350]).predict_proba(rows)
    q = p / model.shares_
    np.testing.assert_allclose(other, q.div(q.sum(axis=1), axis=0), atol=1e-9)


def test_draws_from_the_errors_make_faint_sources_humbler(model, table):
    rows = table[350:]
    plain, drawn = model.predict_proba(rows), clone(model).set_params(draws=8).fit(table[:350], table.True_Class[:350])
    noisy = rows.assign(**{f"e_F{b}": rows[f"F{b}"] * 2 for b in "smhb"})
    assert drawn.predict_proba(noisy).max(axis=1).mean() < plain.max(axis=1).mean()
    assert drawn.predict_proba(noisy).equals(drawn.predict_proba(noisy))


def test_features_of_ones_own(table):
    rng = np.random.default_rng(1)
    own = pd.DataFrame({"a": rng.normal(size=200), "b": rng.normal(size=200), "text": "x"})
    y = np.where(own.a > 0, "up", "down")
    model = SourceClassifier(columns=["a", "b"], **QUICK).fit(own, y)
    assert (model.predict(own) == y).mean() > 0.9
    with pytest.raises(EventDataError, match="no column b"):
        model.predict_proba(own[["a"]])


# --- trees --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize("kind", [HistGradientBoostingClassifier, RandomForestClassifier, ExtraTreesClassifier])
def test_our_trees_answer_as_scikit_learns(kind, n_classes):
    rng = np.random.default_rng(n_classes)
    x = rng.normal(size=(300, 6)).round(1) * 10.0 ** rng.integers(-3, 4, 6)
    x[rng.random(x.shape) < 0.2] = np.nan
    y = rng.integers(0, n_classes, 300)
    boosting = kind is HistGradientBoostingClassifier
    model = kind(max_iter=8, random_state=0) if boosting else kind(15, random_state=0)
    theirs = model.fit(x, y).predict_proba(x)
    ours = boosted(boosting_arrays(model), x) if boosting else voted(forest_arrays(model), x)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


# --- files --------------------------------------------------------------------------------------------------------


def test_a_saved_model_answers_the_same_and_its_bytes_repeat(model, table, tmp_path):
    a, b = model.save(tmp_path / "a.npz"), model.save(tmp_path / "b.npz")
    assert a.read_bytes() == b.read_bytes() and a.with_suffix(".json").read_bytes() == b.with_suffix(".json").read_bytes()
    again = SourceClassifier.load(a)
    rows = table[350:]
    assert again.predict_proba(rows).equals(model.predict_proba(rows))
    assert again.outlier_score(rows).equals(model.outlier_score(rows))
    assert model_hash(again) == model_hash(model) == json.loads(a.with_suffix(".json").read_text())["hash"]
    with pytest.raises(FileExistsError, match="overwrite"):
        model.save(a)


def test_a_changed_or_broken_model_is_refused(model, tmp_path):
    path = model.save(tmp_path / "m.npz")
    raw = path.read_bytes()
    for damage in (raw[: len(raw) // 2], b"", raw[:100] + b"\x00" * 8 + raw[108:]):
        path.write_bytes(damage)
        with pytest.raises(XRTError, match="m.npz"):
            SourceClassifier.load(path)
    path.write_bytes(raw)
    arrays = dict(np.load(path))
    arrays["forest.feature"] = arrays["forest.feature"] + 1000
    np.savez_compressed(path, **arrays)
    with pytest.raises(XRTError, match="damaged"):
        SourceClassifier.load(path)
    np.savez_compressed(path, **(dict(np.load(path)) | {"known_names": np.array([{}], dtype=object)}))
    with pytest.raises(XRTError, match="no model of plain numbers"):
        SourceClassifier.load(path)
    with pytest.raises(XRTError, match="does not exist"):
        SourceClassifier.load(tmp_path / "none.npz")


@pytest.mark.parametrize("kind", [".vot", ".ecsv", ".parquet", ".csv"])
def test_results_come_back_from_files(model, table, tmp_path, kind):
    result = classify(model, table[350:400])
    path = write_classes(result, tmp_path / f"t{kind}", facts_of(model))
    readers = {".parquet": pd.read_parquet, ".csv": pd.read_csv}
    readers[".ecsv"] = lambda p: Table.read(p, format="ascii.ecsv").to_pandas()
    readers[".vot"] = lambda p: votable.parse(p).get_first_table().to_table(use_names_over_ids=True).to_pandas()
    back = readers[kind](path)
    assert list(back.columns) == list(result.columns)
    np.testing.assert_allclose(back["p_AGN"], result["p_AGN"], rtol=1e-15)
    assert list(back["class"].astype(str)) == list(result["class"])


def test_the_votable_is_valid_and_says_what_belongs_together(model, table, tmp_path):
    path = write_classes(classify(model, table[350:370]), tmp_path / "t.vot", facts_of(model))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        t = votable.parse(path, verify="exception").get_first_table()
    group = {g.name: [e.ref for e in g.entries] for g in t.groups}["class_probabilities"]
    fields = {f.ID: f for f in t.fields}
    assert [fields[r].name for r in group] == [f"p_{c}" for c in model.classes_]
    assert {fields[r].ucd for r in group} == {"stat.probability;src.class"}
    assert {p.name: p.value for p in t.params}["model_hash"] == model_hash(model)


# --- answers ------------------------------------------------------------------------------------------------------


def test_hierarchical_answers_by_hand():
    p = pd.DataFrame({"AGN": [0.9, 0.3, 0.4], "CV": [0.05, 0.5, 0.3], "NS": [0.05, 0.2, 0.3]})
    assert list(hierarchical(p, sure=0.6)) == ["AGN", "compact", "compact"]
    assert list(hierarchical(p, sure=0.8)) == ["AGN", "", ""]


def test_the_nearest_labeled_source_of_a_labeled_source_is_itself(model, table):
    near = nearest_labeled(model, table[:20], k=2)
    assert list(near[near["rank"] == 1].name) == list(table.CSCv2_name[:20])
    np.testing.assert_allclose(near[near["rank"] == 1].distance, 0, atol=1e-2)


def test_the_column_that_decides_is_named():
    rng = np.random.default_rng(2)
    x = pd.DataFrame({"decides": np.r_[rng.normal(0, 1, 100), rng.normal(6, 1, 100)], "noise": rng.normal(size=200)})
    model = SourceClassifier(columns=["decides", "noise"], **QUICK).fit(x, np.repeat(["low", "high"], 100))
    why = explain(model, x, row=3)
    assert why.index[0] == "decides" and why.gave["decides"] > 0.2 > abs(why.gave["noise"])


def test_a_kind_never_seen_looks_strange(table):
    known = table[table.True_Class != "YSO"]
    model = SourceClassifier(n_rounds=25, n_trees=40).fit(known[: len(known) // 2], known.True_Class[: len(known) // 2])
    new = pd.concat([known[len(known) // 2 :], table[table.True_Class == "YSO"]])
    assert roc_auc_score(new.True_Class == "YSO", model.outlier_score(new)) > 0.7


# --- the command line ---------------------------------------------------------------------------------------------


def shell(*arguments):
    return CliRunner().invoke(main, ["classify", *map(str, arguments)])


def test_the_command_trains_writes_and_applies_without_the_training_table(table, tmp_path):
    labeled, new = tmp_path / "labeled.csv", tmp_path / "new.csv"
    table[:350].to_csv(labeled, index=False)
    table[350:].drop(columns="True_Class").to_csv(new, index=False)
    model, out = tmp_path / "m.npz", tmp_path / "classes.vot"
    done = shell(new, "--model", model, "--train", labeled, "--out", out)
    assert done.exit_code == 0 and "350 labeled sources of 8 classes" in done.output, done.output
    labeled.unlink()
    again = shell(new, "--model", model, "--out", tmp_path / "classes.parquet")
    assert again.exit_code == 0, again.output
    a, b = Table.read(out)["p_AGN"], pd.read_parquet(tmp_path / "classes.parquet")["p_AGN"]
    np.testing.assert_allclose(a, b, rtol=1e-15)
    np.testing.assert_allclose(b, SourceClassifier.load(model).predict_proba(pd.read_csv(new))["AGN"], atol=1e-12)


def test_the_command_says_what_is_wrong(table, model, tmp_path):
    table.to_csv(tmp_path / "t.csv", index=False)
    pd.DataFrame({"name": ["x"], "label": ["AGN"]}).to_csv(tmp_path / "l.csv", index=False)
    for more, said in [((), "does not exist"), (("--train", tmp_path / "l.csv"), "none of the 1 labeled names")]:
        done = shell(tmp_path / "t.csv", "--model", tmp_path / "m.npz", "--out", tmp_path / "o.vot", *more)
        assert done.exit_code == 1 and said in done.output and not (tmp_path / "o.vot").exists(), done.output
    model.save(tmp_path / "m.npz")
    done = shell(tmp_path / "t.csv", "--model", tmp_path / "m.npz", "--out", tmp_path / "o.doc")
    assert done.exit_code == 1 and "classes are written as" in done.output


# --- bad input ----------------------------------------------------------------------------------------------------


def test_bad_tables_and_labels_are_refused_in_a_sentence(table):
    fit, y = SourceClassifier(**QUICK).fit, table.True_Class
    for labels, said in [
        (y.replace("CV", "AGN ").mask(y.index < 3, "agn"), "several spellings: 'AGN' and 'agn'"),
        (y.where(y.index != 5, "BLAZAR"), r"fewer than 2 sources: BLAZAR \(1\)"),
        ([None] * len(y), "not a single source has a label"),
        (y[:-1], "one entry for each of the 500 rows, got 499"),
        (["AGN"] * len(y), "only one class"),
    ]:
        with pytest.raises((EventDataError, ValueError), match=said):
            fit(table, labels)
    twice = table.assign(CSCv2_name=["same", "same", *table.CSCv2_name[2:]])
    with pytest.raises(EventDataError, match="several labels"):
        fit(twice, y.where(y.index > 1, ["AGN", "CV", *y[2:]]))
    with pytest.raises(EventDataError, match="duplicated"):
        fit(pd.concat([table, table[["Fs"]]], axis=1), y)


def test_columns_without_a_value_are_named_and_not_used(table):
    with pytest.warns(XRTWarning, match="not used: Jmag"):
        model = SourceClassifier(**QUICK).fit(table.assign(Jmag=np.nan), table.True_Class)
    assert np.isfinite(model.predict_proba(table[:50])).all(axis=None)


def test_missing_labels_are_counted_and_left_out(table):
    labels = table.True_Class.where(table.index % 2 == 0, None)
    with pytest.warns(XRTWarning, match="250 of 500 rows have no label"):
        model = SourceClassifier(**QUICK).fit(table, labels)
    half = SourceClassifier(**QUICK).fit(table[::2], table.True_Class[::2])
    assert model.predict_proba(table).equals(half.predict_proba(table))


def test_a_table_in_other_units_or_with_other_columns_is_refused(model, table):
    rows = table[350:]
    with pytest.raises(EventDataError, match="lacks: 'Gmag'"):
        model.predict_proba(rows.drop(columns="Gmag"))
    with pytest.raises(EventDataError, match="unit"):
        model.predict_proba(rows.assign(**{f"{e}F{b}": rows[f"{e}F{b}"] / 1e7 for b in "smhb" for e in ("", "e_")}))
    with pytest.raises(EventDataError, match="not an array"):
        model.predict_proba(rows.select_dtypes("number").to_numpy())
    for setting in (dict(kind="svm"), dict(n_folds=1), dict(n_trees=0), dict(draws=-1), dict(min_significance=-1)):
        with pytest.raises(ValueError, match=next(iter(setting))):
            SourceClassifier(**setting).fit(table, table.True_Class)


def test_shuffled_columns_are_answered_and_a_wrong_unit_still_refused(model, table):
    rows, columns = table[350:], sorted(set(model.columns_.values()))
    grew = permutation_importance(model, rows[columns], table.True_Class[350:], scoring="neg_log_loss", n_repeats=1, random_state=0)
    assert np.isfinite(grew.importances).all() and grew.importances.max() > 0.02
    with pytest.raises(EventDataError, match=r"column 'rgeo' \(logarithm of distance\).*another unit"):
        model.predict(rows.assign(rgeo=rows.rgeo / 1000))


def test_what_only_several_columns_together_show_is_refused_at_the_border(model, table):
    rows = table[350:]
    slow = copy.copy(model)
    slow.seen_ = model.seen_.copy()
    slow.seen_[:, model.features_.index("log speed")] = -5.0, -4.0  # motions and distances like these, never together
    assert slow.predict_proba(rows).equals(model.predict_proba(rows))
    with pytest.raises(EventDataError, match="feature 'log speed'"):
        classify(slow, rows)
    with pytest.raises(EventDataError, match="'Hmag' and 'Kmag'.*swapped"):
        read_measures(rows.rename(columns={"Jmag": "Kmag", "Kmag": "Jmag"}))


def test_columns_that_were_not_taught_are_not_looked_at(model, table):
    rows, rng = table[350:400].reset_index(drop=True), np.random.default_rng(4)
    more = {c: rng.uniform(-1, 1, 50) for c in ("hard_hm", "hard_hs", "hard_ms")}  # a catalog's own, of photon fluxes
    wide = rows.assign(**more, var_index_b=5.0, powlaw_gamma=rng.normal(2, 1, 50))
    assert model.predict_proba(wide).equals(model.predict_proba(rows))
    assert classify(model, wide).equals(classify(model, rows))
    assert explain(model, wide, 3).equals(explain(model, rows, 3))
    nowhere = table.drop(columns=["CSCv2_RA", "CSCv2_DEC"])
    bare = SourceClassifier(**QUICK).fit(nowhere[:350], table.True_Class[:350])
    there, here = classify(bare, rows), classify(bare, nowhere[350:400].reset_index(drop=True))
    assert there.drop(columns=["ra", "dec"]).equals(here)  # the position is written beside the answer, not used


def test_a_table_without_a_value_and_a_table_without_a_row(model, table):
    empty = table.assign(**dict.fromkeys(model.columns_.values(), np.nan))
    with pytest.raises(EventDataError, match="not a single value"):
        SourceClassifier(**QUICK).fit(empty, table.True_Class)
    for answer in (model.predict_proba(table[:0]), classify(model, table[:0]), nearest_labeled(model, table[:0])):
        assert len(answer) == 0
    assert list(classify(model, table[:0]).columns) == list(classify(model, table[:2]).columns)


def test_the_whole_answer_holds_what_its_parts_say(model, table):
    rows = table[350:400]
    whole, p, near = classify(model, rows), model.predict_proba(rows), nearest_labeled(model, rows)
    np.testing.assert_allclose(whole[[f"p_{c}" for c in p]], p, atol=1e-12)
    np.testing.assert_allclose(whole.outlier, model.outlier_score(rows), atol=1e-12)
    for own, said in (("name", "nearest"), ("label", "nearest_class")):
        assert whole[said].tolist() == [", ".join(w) for w in near[own].to_numpy().reshape(50, 3)]


def test_rows_beyond_all_labeled_sources_are_named_and_only_those(model, table):
    near, far = table[:40].reset_index(drop=True), table[:40].reset_index(drop=True)
    far.loc[3, "rgeo"], far.loc[3, "Plx"] = 9e5, np.nan
    here, there = classify(model, near)["beyond"], classify(model, far)["beyond"]
    assert (here == "").all() and there[3].startswith("log distance") and (there.drop(3) == "").all()
    small = SourceClassifier(**QUICK, columns=["Fb"]).fit(table.assign(Fb=table.Fb * 1e14), table.True_Class)
    assert classify(small, pd.DataFrame({"Fb": [1.0, 1e9, np.nan]}))["beyond"].tolist() == ["", "Fb", ""]


def test_every_column_of_a_result_has_a_ucd_that_the_vocabulary_knows(model, table, tmp_path):
    drawn = clone(model).set_params(draws=3).fit(table[:350], table.True_Class[:350])
    path = write_classes(classify(drawn, table[350:360]), tmp_path / "t.vot", facts_of(drawn))
    fields = votable.parse(path).get_first_table().fields
    assert {"ct", "e_p_AGN", "p_group_star"} <= {f.name for f in fields}
    assert [f.name for f in fields if not f.ucd or not check_ucd(f.ucd, check_controlled_vocabulary=True)] == []


def test_a_cut_in_significance_leaves_faint_sources_out(table):
    some = SourceClassifier(**QUICK, min_significance=5).fit(table, table.True_Class)
    bright = table["CSCv2_S/N"] >= 5
    assert len(some.known_) == bright.sum() < len(table)
    with pytest.raises(EventDataError, match="lower `min_significance`"):
        SourceClassifier(**QUICK, min_significance=1e9).fit(table, table.True_Class)


def test_limits_on_both_sides_and_names_of_the_catalog():
    rows = {"master_ra": [10.0], "master_dec": [-5.0], "name": ["x"], "flux_aper_b": [3e-14]}
    rows |= {"flux_aper_lolim_b": [2.5e-14], "flux_aper_hilim_b": [4e-14], "hard_hs": [0.2]}
    rows |= {"hard_hs_lolim": [0.1], "hard_hs_hilim": [0.5], "var_intra_prob_b": [0.3], "powlaw_gamma": [1.7]}
    m = read_measures(pd.DataFrame(rows))
    assert set(m.columns) == {"ra", "dec", "flux_b", "hard_hs", "var_intra", "powlaw_gamma"}
    np.testing.assert_allclose([m.low.hard_hs[0], m.high.hard_hs[0]], [0.1, 0.3])


# --- one meaning of hardness and of variability -------------------------------------------------------------------

HARD = ("hard_hm", "hard_hs", "hard_ms")


def power_law(slope):
    "Energy fluxes of a power law and the hardness of its photons, by numerical integration."
    flux, photons = {}, {}
    for b, (low, high) in EDGES.items():
        photons[b] = quad(lambda e: e**-slope, low, high)[0]
        flux[f"F{b}"] = [1e-14 * quad(lambda e: e ** (1 - slope), low, high)[0]]
    return pd.DataFrame(flux), {f"hard_{a}{b}": (photons[a] - photons[b]) / (photons[a] + photons[b]) for a, b in ("hm", "hs", "ms")}


@pytest.mark.parametrize("slope, allowed", [(2.0, 1e-9), (1.5, 0.05), (2.5, 0.05), (1.0, 0.1)])
def test_hardness_of_fluxes_is_that_of_photons(slope, allowed):
    fluxes, true = power_law(slope)
    got = features_of(read_measures(fluxes)).iloc[0]
    for c in HARD:
        assert abs(got[c] - true[c]) < allowed
    assert (fluxes.Fh[0] - fluxes.Fm[0]) / (fluxes.Fh[0] + fluxes.Fm[0]) - true["hard_hm"] > 0.25  # of energies


def test_a_catalogs_hardness_and_its_fluxes_are_the_same_feature(table):
    got = photon_hardness(read_measures(table))
    given = pd.concat([table.drop(columns=["Fs", "e_Fs"]), got[list(HARD)]], axis=1)
    a, b = features_of(read_measures(table))[list(HARD)], features_of(read_measures(given))[list(HARD)]
    np.testing.assert_allclose(a, b, atol=1e-12)
    some = given.assign(hard_hm=given.hard_hm.where(given.index % 2 == 0))  # the gaps are filled with numbers of the same meaning
    np.testing.assert_allclose(features_of(read_measures(some))["hard_hm"], a["hard_hm"], atol=1e-12)


def test_errors_of_hardness_are_those_of_draws(table):
    got, rng = photon_hardness(read_measures(table)), np.random.default_rng(2)
    k = (table.Fh / table.e_Fh + table.Fm / table.e_Fm).idxmax()
    h, m = (table[f"F{b}"][k] + table[f"e_F{b}"][k] * rng.normal(size=20_000) for b in "hm")
    made = photon_hardness(read_measures(pd.DataFrame({"Fs": m, "Fm": m, "Fh": h})))["hard_hm"]
    assert made.std() == pytest.approx(got["e_hard_hm"][k], rel=0.05)  # 1/sqrt(40000) is a tenth of it; the rest is curvature
    assert hardness_error(1.0, 0.0, 0.1, 0.2) == pytest.approx(0.4) and np.isnan(hardness_error(0.0, 0.0, 1.0, 1.0))
    with pytest.raises(EventDataError, match="no flux_h"):
        photon_hardness(read_measures(table.drop(columns="Fh")))


@pytest.mark.skipif(not (SHARED.parent / "csc").is_dir(), reason="the catalog's own hardness is not here (XRT_NB_SHARED)")
def test_hardness_is_the_catalogs_on_real_sources():
    real = pd.read_csv(SHARED / "labelled_dev.csv.gz")
    told = pd.read_csv(SHARED.parent / "csc" / "umlcaxs_classified.csv.gz")
    made = features_of(read_measures(real))[list(HARD)].assign(name=real.CSCv2_name, h=real.Fh, m=real.Fm)
    both = made.merge(told, on="name", suffixes=("", "_csc"))
    assert len(both) > 50
    for c, most in zip(HARD, (0.06, 0.06, 0.15)):
        assert abs((both[c] - both[f"{c}_csc"]).median()) < most and np.corrcoef(both[c], both[f"{c}_csc"])[0, 1] > 0.9
    assert ((both.h - both.m) / (both.h + both.m) - both.hard_hm_csc).median() > 0.25  # what it was, of energies
    fluxes = real.merge(told[["name", "hard_hs"]], left_on="CSCv2_name", right_on="name").drop(columns="name")
    read_measures(fluxes)
    with pytest.raises(EventDataError, match="'Fs' and 'Fh' fit 'hard_hs' only when exchanged"):
        read_measures(fluxes.rename(columns={"Fs": "Fh", "Fh": "Fs", "e_Fs": "e_Fh", "e_Fh": "e_Fs"}))


def test_two_probabilities_of_variation_are_two_measures(model, table):
    both = read_measures(pd.DataFrame({"P_intra": [0.8], "var_intra_prob_b": [0.1]}))
    assert (both.value.kp_intra[0], both.value.var_intra[0]) == (0.8, 0.1)
    for name in ("kp_prob_b", "kp_intra_prob_b"):
        assert read_measures(pd.DataFrame({name: [0.8]})).columns == {"kp_intra": name}
    rows = table[350:400]
    other = rows.rename(columns={"P_intra": "var_prob_b"})
    with pytest.warns(XRTWarning, match=r"knows 'P_intra' \(kp_intra\), which this table lacks; 'var_prob_b' \(var_intra\) is another number"):
        got = model.predict_proba(other)
    pd.testing.assert_frame_equal(got, model.predict_proba(rows.assign(P_intra=np.nan)))
    with pytest.warns(XRTWarning, match="taken as missing"):
        assert "P_intra" not in explain(model, other, 1).index and len(classify(model, other)) == 50
    with pytest.warns(XRTWarning, match="taken as missing"), pytest.raises(EventDataError, match="column 'rgeo'"):
        model.predict_proba(other.assign(rgeo=other.rgeo / 1e4))  # ranges stay with their columns when one is missing
    with pytest.raises(EventDataError, match="lacks: 'P_intra'"):
        model.predict_proba(rows.drop(columns="P_intra"))


def test_a_model_of_other_features_is_refused(model, tmp_path):
    old = copy.copy(model)
    old.features_ = [f for f in model.features_ if f != "kp_intra"]
    with pytest.raises(XRTError, match="made by another version"):
        SourceClassifier.load(old.save(tmp_path / "old.npz"))


def test_fluxes_that_cannot_be_are_refused_by_name(model, table):
    every = [f"{e}F{b}" for b in "smhb" for e in ("", "e_")]
    faint = table[table.Fb < 1e-12]
    for factor in (1e-6, 1e5):
        with pytest.raises(EventDataError, match="'F[sh]' has a median of .* in another unit"):
            read_measures(faint.assign(**{c: faint[c] * factor for c in every}))
    rng = np.random.default_rng(0)
    joined = table.assign(Fb=rng.permutation(table.Fb), e_Fb=table.Fb / 20)
    for ask in (lambda: SourceClassifier(**QUICK).fit(joined, table.True_Class), lambda: classify(model, joined)):
        with pytest.raises(EventDataError, match="'Fs', 'Fm', 'Fh', 'Fb': in .* of the rows"):
            ask()
    bad = table.assign(e_Fb=table.Fb * 2, Fb=table.Fb * 2.5)  # apart, but not beyond the errors
    classify(model, bad)
    swapped = table.assign(hard_hs=photon_hardness(read_measures(table))["hard_hs"])
    read_measures(swapped)
    with pytest.raises(EventDataError, match="are they swapped"):
        read_measures(swapped.rename(columns={"Fs": "Fh", "Fh": "Fs"}))


# --- real sources -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the labeled sources are not here (XRT_NB_SHARED)")
def test_the_labeled_sources_are_told_apart_with_probabilities_that_hold():
    d = pd.read_csv(SHARED / "labelled_dev.csv.gz")
    p = np.zeros((len(d), d.True_Class.nunique()))
    for train, test in folds(d.True_Class, d.CSCv2_name, 5):
        model = SourceClassifier().fit(d.iloc[train], d.True_Class.iloc[train])
        p[test] = model.predict_proba(d.iloc[test])
    got = measures(d.True_Class, p, model.classes_)
    assert got["log loss"] <= 0.26 and got["ECE"] <= 0.02 and got["macro F1"] >= 0.72, got
