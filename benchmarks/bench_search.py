"""How well the default search finds, on archives that nothing was developed on, and how fast.

    python benchmarks/bench_search.py [--archives 10] [--first-seed 9001] [--edition 2]
                                      [--parts simulated changed real speed]
    python benchmarks/bench_search.py --parts large          (archives of 10,000: kinds with ten members or more)
    python benchmarks/bench_search.py --parts unseen --nets FOLDER
                                      (metrics `without_KIND.npz`, made by `train_metric(..., exclude=[KIND])`)

Precision among ten and recall among fifty as in the comparison notebook: queries are the known transients,
all others may be found but other observations of the query's own source; detectable members of the query's
kind are right. Every number with the standard deviation between archives, beside the distance of version
0.1.0, the score alone, and chance. Real lists (`$XRT_NB_SHARED/data/real_lists`, labels by eye) are queries and
archive in turn, whole and thinned; unclear ones are left out.
"""

import argparse
import os
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd

from xrt_nb import simulation as sim
from xrt_nb.data import EventTable
from xrt_nb.default_search import default_score
from xrt_nb.features import summary_features
from xrt_nb.invariant import SortedProfile
from xrt_nb.metric import LearnedMetric
from xrt_nb.scores import CosineLogNorm, Euclidean
from xrt_nb.shapes import search_features, shared_flares

RARE = ["burst", "dip", "flare", "flares", "qpe"]


# ---- another simulator: other profiles, ranges and brightnesses than the metric was taught by
def flare(t, peak, rise, decay, amplitude):
    "Linear rise, power-law decay."
    x = t - peak
    late = (1 + np.maximum(x, 0) / decay) ** -2.0
    return np.ones(len(t)), amplitude * np.where(x < 0, np.clip(1 + x / rise, 0, 1), late)


def draw_flare(rng, t, period=None):
    decay = min(rng.lognormal(np.log(2500), 0.9), t[-1] / 2)
    rise = decay * rng.uniform(0.1, 0.8)
    return {"peak": float(rng.choice(t)), "rise": float(rise), "decay": float(decay),
            "amplitude": float(np.exp(rng.uniform(np.log(3), np.log(100))))}


def flares(t, peak, rise, decay, amplitude):
    "Gaussians."
    each = zip(peak, decay, amplitude)
    return np.ones(len(t)), sum(a * np.exp(-0.5 * ((t - p) / d) ** 2) for p, d, a in each)


def draw_flares(rng, t, period=None):
    n = int(rng.integers(2, 7))
    decay = np.minimum(rng.lognormal(np.log(900), 0.6, n), t[-1] / (5 * n))
    return {"peak": np.sort(rng.choice(t, n)), "rise": decay, "decay": decay,
            "amplitude": np.exp(rng.uniform(np.log(4), np.log(60), n))}


def burst(t, peak, width, spike, decay, period, wave, amplitude):
    "Exponential rise, stretched decay, no spike and no wave."
    x = t - peak
    e = np.where(x < 0, np.exp(np.minimum(x, 0) / width), np.exp(-np.sqrt(np.maximum(x, 0) / decay)))
    return np.ones(len(t)), e / e.sum() * len(t) * amplitude / (1 - amplitude)


def draw_burst(rng, t, period=None):
    return {"peak": float(rng.choice(t)), "width": float(rng.uniform(1, 20)), "spike": 0.0,
            "decay": float(np.exp(rng.uniform(np.log(15), np.log(200)))), "period": 1.0, "wave": 0.0,
            "amplitude": float(rng.uniform(0.5, 0.97))}


def dip(t, peak, duration, amplitude, edge, period=0):
    "Triangles, lopsided."
    x = sim.nearest_return(t, peak, period) / duration
    away = np.where(x < 0, -x / edge, x / (1.2 - edge))
    return 1 - amplitude * np.clip(1 - away, 0, 1), np.zeros(len(t))


def draw_dip(rng, t, period=None):
    p = sim.Dip().draw(rng, t, period)
    return p | {"edge": float(rng.uniform(0.3, 0.9)), "duration": p["duration"] * 1.2,
                "amplitude": float(rng.uniform(0.7, 1))}


def qpe(t, peak, period, duration, amplitude):
    "Fast exponential rise, slower decay."
    x = sim.nearest_return(t, peak, period) / duration
    early, late = np.exp(np.minimum(3 * x, 0)), np.exp(-1.2 * np.maximum(x, 0))
    return np.ones(len(t)), amplitude * np.where(x < 0, early, late)


def other(kind, shape, draw):
    "The same kind with another profile and other parameters."

    class Other(type(kind)):
        def shape(self, t, **params):
            return shape(t, **params)

        def draw(self, rng, t, period=None):
            return draw(rng, t, period)

        draw_second = draw

    return Other()


def changed_archive(n, seed):
    "An archive of the other simulator."
    new = {"flare": (flare, draw_flare), "flares": (flares, draw_flares), "burst": (burst, draw_burst),
           "dip": (dip, draw_dip), "qpe": (qpe, sim.Qpe().draw)}
    kinds = {k: other(sim.KINDS[k], shape, draw) for k, (shape, draw) in new.items()}
    numbers = dict(median_counts=45.0, median_exposure=40_000.0, exposure_scatter=0.6, counts_scatter=1.0)
    with patch.dict(sim.KINDS, kinds):
        return sim.simulate_archive(n, seed, edition=2, **numbers)


# ---- measures
def old_features(events):
    "The best features of version 0.1.0, scaled as there: summary statistics beside ten times the sorted profile."
    x = summary_features(events)
    x = (x - x.mean()) / x.std(ddof=0).replace(0, 1)
    profile = pd.DataFrame(SortedProfile(scale="sigma").transform(events), index=x.index).add_prefix("top")
    return x.join(10 * profile)


def found(truth, score, frame):
    "Precision among 10 and recall among 50 of every known transient; a random order where `score` is None."
    kind, right = truth.kind.to_numpy(str), truth.detectable.to_numpy(bool)
    source, known = truth.source.to_numpy(str), truth.known.to_numpy(bool)
    rows, out = np.flatnonzero(known), []
    if score is None:
        values = np.random.default_rng(0).random((len(rows), len(truth)))
    else:
        own = score.fit(frame).project(frame)
        values = score.score(own.take(rows), own)
    for r, value in zip(rows, values):
        free = ~known & (source != source[r])
        member = free & right & (kind == kind[r])
        first = np.argsort(-np.where(free, value, -np.inf), kind="stable")[:50]
        n = member.sum()
        right_ones = member[first[:10]].mean(), member[first].sum() / max(min(50, n), 1)
        out.append((kind[r], *right_ones, min(n, 10) / 10))
    return pd.DataFrame(out, columns=["kind", "precision", "recall", "best"])


def scores_of(events):
    "Score and features of everything that is compared."
    old, new = old_features(events), search_features(events)
    return {"chance": (None, old), "Euclid, 0.1.0": (Euclidean(standardize=False), old),
            "score alone (A)": (CosineLogNorm(standardize=False), old), "label-free (B)": (default_score("label-free"), new),
            "learned (C)": (default_score("learned"), new), "default": (default_score(), new)}


def lines(tables):
    "Mean and spread between archives, and precision by kind."
    for name, parts in tables.items():
        each = pd.DataFrame([p[["precision", "recall"]].mean() for p in parts])
        kinds = pd.concat(parts).groupby("kind").precision.mean().round(2).to_dict()
        mean, spread = each.mean(), each.std().fillna(0)
        print(f"{name:18s} P@10 {mean.precision:.3f} ± {spread.precision:.3f}  "
              f"R@50 {mean.recall:.3f} ± {spread.recall:.3f}  {kinds}")
    if "default" in tables and "Euclid, 0.1.0" in tables:
        mine = pd.concat(tables["default"]).precision.to_numpy()
        for other in [name for name in tables if name not in ("default", "chance")]:
            more = mine - pd.concat(tables[other]).precision.to_numpy()
            print(f"default − {other}: {more.mean():+.3f} ± {more.std() / np.sqrt(len(more)):.3f} per query")
        best = pd.concat(tables["default"]).groupby("kind").best.mean().round(2).to_dict()
        print(f"the best that can be, since some kinds have fewer than ten members: {best}")


def archives(make, seeds):
    "All scores on archives of all seeds."
    tables = {}
    for seed in seeds:
        events, truth = make(seed)
        for name, (score, frame) in scores_of(events).items():
            tables.setdefault(name, []).append(found(truth, score, frame))
    lines(tables)


def unseen(nets, seeds, edition):
    "Each kind searched with a metric that never saw it."
    tables = {"learned (C)": [], "default": []}
    for seed in seeds:
        events, truth = sim.simulate_archive(2500, seed, edition=edition)
        frame, parts = search_features(events), {k: [] for k in tables}
        for kind in RARE:
            metric = LearnedMetric(Path(nets) / f"without_{kind}.npz")
            fused = default_score()
            fused.scores[1] = metric
            for name, score in {"learned (C)": metric, "default": fused}.items():
                one = found(truth, score, frame)
                parts[name].append(one[one.kind == kind])
        for name in tables:
            tables[name].append(pd.concat(parts[name]))
    lines(tables)


# ---- real lists
def real_lists(folder):
    "Real photon lists without energies, and their labels."
    labels = pd.read_csv(folder / "labels.csv", dtype={"obsreg_id": str}).set_index("obsreg_id")["label"]
    photons = pd.read_parquet(folder / "times.parquet")
    gti = pd.read_csv(folder / "gti.csv.gz", dtype={"obsreg_id": str})
    offsets = []
    for frame in (photons, gti):
        frame["row"] = labels.index.get_indexer(frame.obsreg_id.astype(str))
        offsets.append(np.r_[0, np.cumsum(np.bincount(frame.row, minlength=len(labels)))])
    times = photons.sort_values(["row", "time"], kind="stable").time.to_numpy(float)
    good = gti.sort_values(["row", "start"], kind="stable")[["start", "stop"]].to_numpy(float)
    events = EventTable(labels.index.to_numpy(str), offsets[0], times, None, good, offsets[1])
    return events, labels.to_numpy(str)


def thinned(events, most, seed):
    "At most so many photons of each list, drawn at random."
    rng, keep = np.random.default_rng(seed), []
    for a, b in zip(events.offsets[:-1], events.offsets[1:]):
        keep.append(np.sort(rng.choice(np.arange(a, b), min(most, b - a), replace=False)))
    offsets = np.r_[0, np.cumsum([len(k) for k in keep])]
    return EventTable(events.ids, offsets, events.time[np.concatenate(keep)], None, events.gti, events.gti_offsets)


def real(folder):
    "Flaring and dipping real lists as queries among all others."
    events, label = real_lists(folder)
    clear, flaring = label != "unclear", np.isin(label, ["flare", "flares"])
    queries = np.flatnonzero(flaring | (label == "dip"))
    print(f"{clear.sum()} clear lists: {flaring.sum()} flaring, {(label == 'dip').sum()} dips")
    for most in (None, 300, 100, 30):
        some = events if most is None else thinned(events, most, most)
        frame = search_features(some)
        print("whole lists" if most is None else f"all lists thinned to {most} photons at most")
        old = frame[[c for c in frame if c.startswith(("sum_", "top"))]]
        rows = {"Euclid": (Euclidean(), old), "score alone (A)": (CosineLogNorm(), old)}
        rows |= {name: (default_score(key), frame) for name, key in
                 {"label-free (B)": "label-free", "learned (C)": "learned", "default": "fusion"}.items()}
        for name, (score, x) in rows.items():
            own = score.fit(x).project(x)
            flare, dips, quiet = [], [], []
            last = shared_flares(some).to_numpy() if name == "default" else np.zeros(len(label), bool)
            for r, value in zip(queries, score.score(own.take(queries), own)):
                free, value = clear.copy(), value - last * (np.ptp(value) + 1)
                free[r] = False
                first = np.argsort(-np.where(free, value, -np.inf), kind="stable")[:50]
                right = flaring if flaring[r] else label == "dip"
                (flare if flaring[r] else dips).append((right[first[:10]].sum(), right[first].sum()))
                if flaring[r]:
                    quiet.append(np.isin(label[first[:10]], ["usual", "steady"]).mean())
            f, d = np.mean(flare, axis=0), np.mean(dips, axis=0)
            print(f"  {name:16s} flaring of five: {f[0]:.2f} in 10, {f[1]:.2f} in 50; usual or steady in 10: "
                  f"{np.mean(quiet):.1%}; dips of three: {d[0]:.2f} in 10, {d[1]:.2f} in 50")


def speed(n):
    "CPU time and memory of features, metric and one query."
    import resource

    events, _ = sim.simulate_archive(5000, 9900, edition=1)
    copies = -(-n // len(events))
    search_features(events[events.ids[:50].tolist()])
    start = time.process_time()
    frame = search_features(events)
    once = time.process_time() - start
    many = pd.concat([frame] * copies).set_axis([f"s{k}" for k in range(copies * len(frame))])
    score, start = default_score().fit(many), time.process_time()
    own = score.project(many)
    project = time.process_time() - start
    start = time.process_time()
    for r in range(10):
        score.score(own.take([r]), own)
    query = (time.process_time() - start) / 10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(f"{len(many)} detections: features {once * copies:.1f} CPU-s (5000 measured), metric {project:.1f} CPU-s, "
          f"one query {query * 1000:.1f} ms, at most {peak:.2f} GB in this process")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archives", type=int, default=10, help="how many archives of 2,500 sources")
    parser.add_argument("--first-seed", type=int, default=9001, help="their seeds")
    parser.add_argument("--edition", type=int, default=2, help="of the simulated archives")
    parser.add_argument("--nets", help="folder with without_KIND.npz")
    parser.add_argument("--parts", nargs="+", default=["simulated", "changed", "real", "speed"])
    args = parser.parse_args()
    seeds = range(args.first_seed, args.first_seed + args.archives)
    if "simulated" in args.parts:
        print(f"\nsimulated archives, edition {args.edition}, seeds {seeds[0]} to {seeds[-1]}")
        archives(lambda seed: sim.simulate_archive(2500, seed, edition=args.edition), seeds)
    if "large" in args.parts:
        print("\narchives of 10,000, in which a kind is not short of members")
        archives(lambda seed: sim.simulate_archive(10_000, seed, edition=args.edition), seeds[:3])
    if "changed" in args.parts:
        print("\na changed simulator")
        archives(lambda seed: changed_archive(2500, seed), seeds)
    if "unseen" in args.parts:
        print("\nthe query's kind never trained")
        unseen(args.nets, seeds, args.edition)
    folder = Path(os.environ.get("XRT_NB_SHARED", "../shared")) / "data/real_lists"
    if "real" in args.parts and folder.is_dir():
        print("\nreal lists")
        real(folder)
    if "speed" in args.parts:
        print("\nspeed")
        speed(100_000)


if __name__ == "__main__":
    main()
