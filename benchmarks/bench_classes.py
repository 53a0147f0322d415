#!/usr/bin/env python3
"""Classes of sources, measured: `python benchmarks/bench_classes.py [bars] [none] [speed] [apart] [choices] [cuts] [calibration]
[imputation] [loop] [recipes] [published]`, all without a name.

The labeled sources lie in `../shared` or where XRT_NB_SHARED says; without them a simulated table takes their place, and the page
says so. Every figure stands beside its bar, its baseline and its spread. One thread.
"""

import os
import sys
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from xrt_nb.classification import FILTERS, SourceClassifier, classify, features_of, read_measures, simulate_labeled
from xrt_nb.evaluation import bent, bootstrap, conformal_sets, folds, measures, sky_cells

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT / os.environ.get("XRT_NB_SHARED", "../shared") / "data"
SHOWN = ["accuracy", "balanced", "macro F1", "log loss", "Brier", "ECE", "class-wise ECE"]


def labeled():
    "The labeled table at hand, and what it is."
    path = SHARED / "muwclass" / "labelled_dev.csv.gz"
    return (pd.read_csv(path), "real") if path.exists() else (simulate_labeled(1500), "SIMULATED: no labeled sources at hand")


def out_of_fold(d, groups, seed=0, make=SourceClassifier, n_splits=5, **settings):
    "Probabilities of sources by models that have not seen them."
    y = d.True_Class
    p = np.zeros((len(d), y.nunique()))
    for train, test in folds(y, groups, n_splits, seed):
        model = make(**settings).fit(d.iloc[train], y.iloc[train])
        p[test] = model.predict_proba(d.iloc[test])
    return p, model.classes_


def line(name, m):
    print(f"  {name:34s}" + "  ".join(f"{m[c]:.4f}" for c in SHOWN), flush=True)


def head():
    print(f"  {'':34s}" + "  ".join(f"{c[:6]:6s}" for c in SHOWN))


def bars(d):
    "Log loss, ECE, macro F1 by source (three splits) and by sky cell, with intervals."
    cells, y = sky_cells(d.CSCv2_RA, d.CSCv2_DEC), d.True_Class
    head()
    line("shares of the classes", measures(y, np.tile(y.value_counts(normalize=True).sort_index(), (len(d), 1)), np.unique(y)))
    for how, groups in (("source", d.CSCv2_name), ("sky cell", cells)):
        got = []
        for seed in (0, 1, 2):
            p, classes = out_of_fold(d, groups, seed)
            got.append(measures(y, p, classes))
            line(f"by {how}, split {seed}", got[-1])
        print(f"  by {how}: mean and spread", {c: f"{np.mean([m[c] for m in got]):.4f} ± {np.std([m[c] for m in got]):.4f}" for c in SHOWN})
        interval = bootstrap(y, p, classes, groups)
        print("  95 % of sources drawn again:", {c: f"{r.low:.3f}–{r.high:.3f}" for c, r in interval.loc[["log loss", "ECE", "macro F1"]].iterrows()})
    print("  bars by source: log loss ≤ 0.26, ECE ≤ 0.02, macro F1 ≥ 0.72")
    print("  (MUWCLASS's own leave-one-out probabilities, all 2941 sources: log loss .339, Brier .161, ECE .050, macro F1 .677;")
    print("   source by source on some of them: part published)")


def choices(d):
    "The same by other settings: what each is worth."
    y = d.True_Class
    tries = {"as it is": {}, "no sky": dict(sky=False), "boosting": dict(kind="boosting"), "extra": dict(kind="extra")}
    tries |= {"random forest": dict(kind="forest"), "no temperature": dict(n_folds=0), "20 draws from the errors": dict(draws=20)}
    head()
    for name, settings in tries.items():
        line(name, measures(y, *out_of_fold(d, d.CSCv2_name, **settings)))


def cuts(d):
    "Training sources below a significance left out: how many are lost, of which class, and what it costs, for all and for bright sources."
    y, s, bright = d.True_Class, d["CSCv2_S/N"].to_numpy(), (d["CSCv2_S/N"] >= 6).to_numpy()
    print("  cuts in S/N of the training sources; below each, the same judged on sources of S/N ≥ 6 alone")
    for least in (0, 3, 6, 10):
        left = y[s >= least].value_counts()
        lost = (1 - left / y.value_counts()).fillna(1.0)
        p, classes = out_of_fold(d, d.CSCv2_name, min_significance=least)
        line(f"S/N ≥ {least}: {left.sum()} left, {lost.idxmax()} -{lost.max():.0%}", measures(y, p, classes))
        line("    S/N ≥ 6 alone", measures(y[bright], p[bright], classes))


def calibrations(d):
    "Temperature, sigmoid and isotonic of the boosted trees, each taught on inner folds."
    y = d.True_Class
    got = {how: np.zeros((len(d), y.nunique())) for how in ("boosting, bare", "temperature", "sigmoid", "isotonic")}
    for train, test in folds(y, d.CSCv2_name, 5, 0):
        t, yt = d.iloc[train], y.iloc[train]
        inner, classes = np.zeros((len(train), y.nunique())), np.unique(y)
        for a, b in folds(yt, t.CSCv2_name, 3, 0):
            inner[b] = SourceClassifier(kind="boosting", n_folds=0).fit(t.iloc[a], yt.iloc[a]).predict_proba(t.iloc[b])
        bare = SourceClassifier(kind="boosting", n_folds=0).fit(t, yt).predict_proba(d.iloc[test]).to_numpy()
        got["boosting, bare"][test] = bare
        got["temperature"][test] = SourceClassifier(kind="boosting").fit(t, yt).predict_proba(d.iloc[test])
        for how in ("sigmoid", "isotonic"):
            got[how][test] = bent(yt, inner, classes, bare, how)
    for how, p in got.items():
        line(how, measures(y, p, classes))


def imputations(d):
    "Missing values as they are, by the median, by an iterative regression."
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer, SimpleImputer

    y, x = d.True_Class, features_of(read_measures(d))
    x = x.dropna(axis=1, how="all")
    tries, losses = {"none": None, "median": SimpleImputer(strategy="median")}, []
    tries["iterative"] = IterativeImputer(max_iter=3, n_nearest_features=8, random_state=0)
    for name, imputer in tries.items():
        p = np.zeros((len(d), y.nunique()))
        for train, test in folds(y, d.CSCv2_name, 5, 0):
            a, b = x.iloc[train], x.iloc[test]
            if imputer is not None:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    a, b = imputer.fit_transform(a), imputer.transform(b)
            model = SourceClassifier().fit(np.asarray(a), y.iloc[train])
            p[test] = model.predict_proba(np.asarray(b))
        line(f"imputation: {name}", measures(y, p, model.classes_))
        loss = -np.log(np.maximum(p[np.arange(len(p)), np.searchsorted(model.classes_, y)], 1e-15))
        losses.append(loss)
        first = losses[0]
        print(f"      log loss grows by {(loss - first).mean():+.4f} ± {(loss - first).std() / len(loss) ** 0.5:.4f}", flush=True)


def taken_apart(d):
    "Brightness, missing counterparts, prediction sets."
    y = d.True_Class
    p, classes = out_of_fold(d, d.CSCv2_name)
    head()
    for name, part in zip(("faint", "medium", "bright"), np.array_split(np.argsort(d["CSCv2_S/N"].to_numpy()), 3)):
        line(f"{name} third, S/N to {d['CSCv2_S/N'].iloc[part].max():.1f}", measures(y.iloc[part], p[part], classes))
    seen = d[[f"{f}mag" for f in FILTERS]].notna().any(axis=1).to_numpy()
    for name, part in (("with a counterpart", seen), ("without", ~seen)):
        line(name, measures(y[part], p[part], classes))
    for alpha in (0.05, 0.1):
        prediction_sets(y.to_numpy(), p, [str(c) for c in classes], d.CSCv2_name, alpha)


def prediction_sets(y, p, classes, groups, alpha, n_splits=20):
    "How often the set holds the true class, over many halvings of the sources into calibration and judged ones."
    held, refused, size = {c: [] for c in classes}, dict.fromkeys(classes, 0), []
    for seed in range(n_splits):
        a, b = folds(y, groups, 2, seed)[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sets = conformal_sets(y[a], p[a], classes, alpha)
        got, refused = sets.sets(p[b]), {c: n + (c in sets.refused) for c, n in refused.items()}
        size.append(got.sum(axis=1).mean())
        for c in set(classes) - set(sets.refused):
            held[c].append(got.loc[y[b] == c, c].mean())
    print(f"  sets at {alpha:.0%}, {n_splits} halvings: mean size {np.mean(size):.2f}; the true class is in")
    for c in classes:
        told = f"{np.mean(held[c]):.3f} ± {np.std(held[c]):.3f}" if held[c] else "no sets"
        print(f"    {c:8s} {(y == c).sum():4d} sources: {told}; refused in {refused[c]} of {n_splits}")


def none(d):
    "Each class left out of training: AUC of the outlier score against sources of known classes not trained on."
    y, rows = d.True_Class, []
    for name in np.unique(y):
        known = d[y != name].reset_index(drop=True)
        for k, (train, test) in enumerate(folds(known.True_Class, known.CSCv2_name, 5, 0)[:2]):
            model = SourceClassifier().fit(known.iloc[train], known.True_Class.iloc[train])
            judged = pd.concat([known.iloc[test], d[y == name]])
            new = (judged.True_Class == name).to_numpy()
            plain = 1 - model.predict_proba(judged).max(axis=1)
            rows.append((name, k, roc_auc_score(new, model.outlier_score(judged)), roc_auc_score(new, plain)))
    f = pd.DataFrame(rows, columns=["left out", "fold", "outlier score", "1 - max p"])
    print(f.pivot_table(index="left out", values=["outlier score", "1 - max p"], aggfunc=["mean", "std"]).round(3).to_string())
    mean = f[["outlier score", "1 - max p"]].mean()
    print(f"  averaged over classes: outlier score {mean.iloc[0]:.3f}, 1 - max p {mean.iloc[1]:.3f}; bar 0.85, chance 0.5")


def speed(d):
    "300,000 rows in under a minute, one thread."
    model = SourceClassifier().fit(d, d.True_Class)
    many = d.iloc[np.random.default_rng(0).integers(0, len(d), 300_000)].reset_index(drop=True)
    model.predict_proba(many[:1000])
    for name, call in (("probabilities", model.predict_proba), ("the whole answer", lambda t: classify(model, t))):
        t, c = time.perf_counter(), time.process_time()
        call(many)
        print(f"  {name}: {len(many):,} rows in {time.perf_counter() - t:.1f} s ({time.process_time() - c:.1f} s of CPU); bar 60 s")


def loop(d):
    "Twenty labels, the first given: share of the class that is left among the next hundred looked at, against other orders."
    from xrt_nb._optional import installed
    from xrt_nb.features import summary_features
    from xrt_nb.shapes import search_features
    from xrt_nb.simulation import simulate_archive

    archive, truth = simulate_archive(1500, 32, edition=2, fractions=dict(dip=0.04, qpe=0.03, burst=0.03, flares=0.04))
    kinds = truth["kind"].where(truth["detectable"].astype(bool), "other")
    made, real = simulate_labeled(1500, 12).set_index("CSCv2_name", drop=False), d.set_index("CSCv2_name", drop=False)
    curves = ("dip", "qpe", "burst", "flares")
    sets = [("light curves, search features", search_features(archive), kinds, curves)]
    sets += [("light curves, summaries", summary_features(archive), kinds, curves)]
    sets += [("simulated catalog", features_of(read_measures(made)), made.True_Class, ("NS", "HMXB", "YSO"))]
    sets += [("labeled sources", features_of(read_measures(real)), real.True_Class, ("NS", "HMXB", "CV"))]
    print("  settings were chosen on flares of another archive, on LMXB and CV of another catalog, on LMXB and HM-STAR of the labeled ones")
    for name, x, y, wanted in sets:
        for w in wanted:
            got = pd.DataFrame([one_game(x, y.loc[x.index], w, seed, installed("coniferest") and seed == 0) for seed in (0, 1, 2)])
            members, mean, spread = int((y == w).sum()), got.mean(), got.std()
            told = {c: f"{mean[c]:.2f} ± {spread[c]:.2f}" for c in ("next hundred", "of all", "standing ranking")}
            rest = {c: f"{mean[c]:.2f}" for c in ("at most", "at random", "coniferest", "possible") if c in mean}
            print(f"  {name:30s} {w:7s} {members:3d} of {len(x)}, {mean['in twenty']:4.1f} in twenty:", told | rest, flush=True)
    print("  bar 0.80 in the next hundred for a planted class; 'possible': share of all in 120 by trees that know all labels but of what they judge")


def one_game(x, y, wanted, seed, beside):
    "One start: what the loop finds, what its ranking finds that learns no more, coniferest with the same labels, chance."
    from xrt_nb.active import ActiveLoop, anomaly_ranking, play, possible

    start = np.random.default_rng(seed).choice(y.index[(y == wanted).to_numpy()])
    game = ActiveLoop(x, {start: wanted}, random_state=seed)
    play(game, y, wanted, 19)
    left, n = (y == wanted).drop(list(game.labels)), (y == wanted).sum()
    out = {"in twenty": n - left.sum(), "standing ranking": left[game.ranking(wanted).index[:100]].sum() / max(left.sum(), 1)}
    if beside:
        out["coniferest"] = left[anomaly_ranking(game, wanted).index[:100]].sum() / max(left.sum(), 1)
    found = left[play(game, y, wanted, 100, batch=10)].sum()
    out |= {"next hundred": found / max(left.sum(), 1), "of all": (n - left.sum() + found) / n, "at random": 100 / len(left)}
    return out | {"at most": min(100, left.sum()) / max(left.sum(), 1)} | ({"possible": possible(game.z, y == wanted, 120)} if seed == 0 else {})


def recipes(d):
    "Two published recipes beside ours: same rows, same folds; and against what their authors published."
    from xrt_nb.classification import photon_hardness
    from xrt_nb.recipes import MixtureMahalanobis, MuwclassRecipe

    hard = photon_hardness(read_measures(d)).assign(name=d.CSCv2_name)
    only = dict(columns=("hard_hm", "hard_hs", "hard_ms"), n_components=3)
    tries = {"ours": (SourceClassifier, {}, d), "MUWCLASS's recipe": (MuwclassRecipe, {}, d)}
    tries |= {"MUWCLASS's, draws of one sigma": (MuwclassRecipe, dict(error_scale=1.0), d)}
    tries |= {"MUWCLASS's, without SMOTE": (MuwclassRecipe, dict(n_near=0), d)}
    tries |= {"umlcaxs' recipe, hardness": (MixtureMahalanobis, only, hard)}
    tries |= {"umlcaxs', hardness, Gaussian": (MixtureMahalanobis, only | dict(kind="gaussian"), hard)}
    y, classes, kept = d.True_Class, np.unique(d.True_Class), {}
    for how, groups in (("source", d.CSCv2_name), ("sky cell", sky_cells(d.CSCv2_RA, d.CSCv2_DEC))):
        print(f"  five folds by {how}")
        head()
        for name, (make, settings, table) in tries.items():
            p, ct = np.zeros((len(d), len(classes))), np.zeros(len(d))
            for train, test in folds(y, groups, 5, 0):
                model = make(**settings).fit(table.iloc[train], y.iloc[train])
                told = model.predict_proba(table.iloc[test])
                p[np.ix_(test, np.searchsorted(classes, told.columns))] = told
                if name == "MUWCLASS's recipe":
                    ct[test] = model.confidence(table.iloc[test])["ct"]
            kept[how, name] = p
            line(name, measures(y, p, classes))
            floor = np.maximum(p, 1e-3) / np.maximum(p, 1e-3).sum(axis=1, keepdims=True)
            interval = bootstrap(y, p, classes, groups).loc[["log loss", "Brier", "macro F1", "ECE"]]
            spans = "  ".join(f"{c} {r.low:.3f}-{r.high:.3f}" for c, r in interval.iterrows())
            print(f"      {spans}; log loss with a floor of .001: {measures(y, floor, classes)['log loss']:.4f}", flush=True)
            if name == "MUWCLASS's recipe":
                sure = ct >= 2
                line(f"  of these CT >= 2 ({sure.mean():.0%})", measures(y[sure], p[sure], classes))
    print("  published, 2941 sources, one by one: accuracy .886  balanced .699  macro F1 .677  log loss .339  Brier .161  ECE .050")
    print("  published, CT >= 2 (81 %):           accuracy .970  balanced .790  macro F1 .795  log loss .164  Brier .062  ECE .053")
    p = np.zeros((len(d), len(classes)))
    for train, test in folds(y, d.CSCv2_name, 20, 0):
        told = MuwclassRecipe(draws=5).fit(d.iloc[train], y.iloc[train]).predict_proba(d.iloc[test])
        p[np.ix_(test, np.searchsorted(classes, told.columns))] = told
    line("MUWCLASS's recipe, 20 folds", measures(y, p, classes))
    umlcaxs(d, pd.DataFrame(kept["source", "ours"], columns=classes), pd.DataFrame(kept["source", "MUWCLASS's recipe"], columns=classes))


def umlcaxs(d, ours, muwclass):
    "umlcaxs' recipe against its published answers; these against literature's classes."
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import PolynomialFeatures

    from xrt_nb.recipes import MixtureMahalanobis, agreement_of, mixture_values, recorded_answers, stretched

    path = SHARED / "csc" / "umlcaxs_classified.csv.gz"
    if not path.exists():
        print("  no published answers of umlcaxs at hand")
        return
    told = pd.read_csv(path)
    types = ["QSO", "AGN", "Seyfert_1", "Seyfert_2", "HMXB", "LMXB", "XB", "YSO", "TTau*", "Orion_V*"]
    recorded, one = recorded_answers(told, types), (told.detection_count == 1).to_numpy()
    for seed in (0, 1, 2):
        half = np.random.default_rng(seed).random(len(told)) < 0.5
        model = MixtureMahalanobis().fit(told, np.where(half & one, recorded.idxmax(axis=1), None))
        judged = one & ~half
        near = agreement_of(model.predict_proba(told[judged]).reindex(columns=types, fill_value=0.0), recorded[judged])
        base = np.abs(recorded[judged] - recorded[half].mean()).to_numpy().mean()
        print(f"  half {seed}: same class {near.loc['all', 'same class']:.3f}, mean difference {near.loc['all', 'difference']:.4f} (mean answer {base:.4f})")
    x = stretched(mixture_values(told), model.stretch_)
    cluster, free = model.mixture_.predict(x), np.zeros(recorded.shape)
    for c in np.unique(cluster):
        own, z = half & one & (cluster == c), (x - x[cluster == c].mean(0)) / (x[cluster == c].std(0) + 1e-9)
        q, w = PolynomialFeatures(2).fit_transform(z), recorded.to_numpy()[own].ravel()
        rows, kind = np.repeat(q[own], len(types), axis=0)[w > 0], np.tile(np.arange(len(types)), own.sum())[w > 0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted = LogisticRegression(C=3.0, max_iter=150).fit(rows, kind, sample_weight=w[w > 0])
        free[np.ix_(cluster == c, fitted.classes_)] = fitted.predict_proba(q[cluster == c])
    best = agreement_of(pd.DataFrame(free, columns=types)[judged], recorded[judged]).loc["all"]
    print(f"  any quadratic form in these clusters, fitted to the answers: same class {best['same class']:.3f}, difference {best['difference']:.4f}")
    joined = {"AGN": "AGN", "QSO": "AGN", "Seyfert_1": "AGN", "Seyfert_2": "AGN"} | dict.fromkeys(("HMXB", "LMXB", "XB", "CV", "NS"), "compact")
    joined |= dict.fromkeys(("YSO", "TTau*", "Orion_V*", "LM-STAR", "HM-STAR"), "star")
    both = d.CSCv2_name.isin(told.name).to_numpy()
    truth, published = d.True_Class[both].map(joined), recorded.set_axis(told.name).loc[d.CSCv2_name[both]]
    print(f"  {both.sum()} sources in both tables: {truth.value_counts().to_dict()}")
    head()
    for name, p in (("published by umlcaxs", published), ("MUWCLASS's recipe, out of fold", muwclass[both]), ("ours, out of fold", ours[both])):
        q = p.T.groupby(p.columns.map(joined)).sum().T.clip(lower=5e-4)
        line(name, measures(truth, q.div(q.sum(axis=1), axis=0), q.columns))


def published(d):
    """MUWCLASS's own probabilities, each source left out of its training, beside ours out of fold, on the same sources.

    `muwclass_published.csv` holds some of the rows of its table LOO_classes.csv (huiyang-astro/MUWCLASS_CSCv2 @ a956a7e): all
    sources of ten pieces of that file, at places fixed beforehand, that are in the labeled table too. `p_true` is its mean
    probability of the class of the literature, `class` the one it names, `p_class` the probability of that. Beside it, `MUWCLASS_LOO`
    may say where the whole table lies.
    """
    path = os.environ.get("MUWCLASS_LOO")
    theirs = _from_the_whole_table(path) if path else pd.read_csv(Path(__file__).with_name("muwclass_published.csv"))
    y = d.set_index("CSCv2_name").True_Class
    theirs = theirs[theirs.name.isin(y.index)].reset_index(drop=True)
    if not len(theirs):
        print("  none of those sources is in the table at hand")
        return
    truth = y[theirs.name].to_numpy()
    answers = {"published by MUWCLASS, one by one": theirs.set_index("name")}
    cells = sky_cells(d.CSCv2_RA, d.CSCv2_DEC)
    for how, groups, n_splits in (("10 folds by source", d.CSCv2_name, 10), ("10 folds by sky cell", cells, 10)):
        p, classes = out_of_fold(d, groups, n_splits=n_splits)
        p = pd.DataFrame(p, index=d.CSCv2_name, columns=classes).loc[theirs.name]
        own = p.to_numpy()[np.arange(len(p)), np.searchsorted(classes, truth)]
        answers[f"ours, {how}"] = pd.DataFrame({"p_true": own, "class": p.idxmax(axis=1), "p_class": p.max(axis=1)})
    print(f"  {len(theirs)} sources in both tables: {pd.Series(truth).value_counts().to_dict()}")
    first = next(iter(answers.values()))
    draws = np.random.default_rng(0).integers(0, len(theirs), (2000, len(theirs)))
    for name, f in answers.items():
        loss, right = -np.log(f["p_true"].clip(lower=1e-4).to_numpy()), f["class"].to_numpy() == truth
        off = abs(right.mean() - f["p_class"].mean())
        less = (-np.log(first["p_true"].clip(lower=1e-4).to_numpy()) - loss)[draws].mean(axis=1)
        told = "" if f is first else f"; log loss lower by {less.mean():.3f} ({np.percentile(less, 2.5):.3f} to {np.percentile(less, 97.5):.3f})"
        span = np.percentile(loss[draws].mean(axis=1), [2.5, 97.5])
        print(f"  {name:34s}accuracy {right.mean():.3f}, log loss {loss.mean():.3f} ({span[0]:.3f}-{span[1]:.3f}), certainty off by {off:.3f}{told}")
        kinds = pd.DataFrame({"kind": truth, "right": right, "loss": loss}).groupby("kind")
        print("     ", {k: f"{g.right.sum()}/{len(g)}, {g.loss.mean():.2f}" for k, g in kinds})


def _from_the_whole_table(path):
    "MUWCLASS's table of leave-one-out answers in the four columns that are compared."
    t = pd.read_csv(path).drop_duplicates("name")
    own = t[[f"P_{c}" for c in sorted(t.true_Class.unique())]]
    p_true = own.to_numpy()[np.arange(len(t)), own.columns.get_indexer("P_" + t.true_Class)]
    won = own.idxmax(axis=1).str.removeprefix("P_")
    return pd.DataFrame({"name": t.name, "p_true": p_true, "class": won, "p_class": own.max(axis=1)})


PARTS = {"loop": loop, "bars": bars, "none": none, "speed": speed, "choices": choices, "apart": taken_apart}
PARTS |= {"recipes": recipes, "cuts": cuts, "calibration": calibrations, "imputation": imputations}
PARTS |= {"published": published}

if __name__ == "__main__":
    table, what = labeled()
    print(f"{len(table)} labeled sources ({what})")
    for name in sys.argv[1:] or PARTS:
        print(f"{name}: {PARTS[name].__doc__.splitlines()[0]}")
        PARTS[name](table)
