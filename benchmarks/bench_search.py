"""How well the default search finds, on archives that nothing was developed on, and how fast.

    python benchmarks/bench_search.py [--archives 10] [--first-seed 9001] [--edition 2]
                                      [--parts simulated changed real speed]
    python benchmarks/bench_search.py --parts large          (archives of 10,000: kinds with ten members or more)
    python benchmarks/bench_search.py --parts stability      (of the ten neighbors when photons are drawn again)
    python benchmarks/bench_search.py --parts unseen --nets FOLDER [--kinds dip flares] [--size 1 --steps 1800]
                                      (metrics `without_KIND.npz`; those that aren't in FOLDER are trained first,
                                      four CPU-minutes for the simulation and half a minute for each kind)
    python benchmarks/bench_search.py --parts embedding      (openTSNE of 100,000 detections in the default space)

Precision among ten and recall among fifty as in the comparison notebook: queries are the known transients,
all others may be found but other observations of the query's own source; detectable members of the query's
kind are right. Every number with the standard deviation between archives, beside the distance of version
0.1.0, the score alone, and chance. Real lists (`$XRT_NB_SHARED/data/real_lists`, labels by eye) are queries and
archive in turn, whole and thinned; unclear ones are left out.

A kind never trained: what was tried. On archives of seeds 21 to 28 (judged is on others), with metrics that
never saw any of the five kinds, 600 steps, at most 4,000 shapes of a sort; precision of the default and of the
metric alone, one run each, so that differences of 0.01 say nothing.

    shapes of 02h and broader ones in equal parts (random steps, wandering rates, bumps in bumps,
        fading spectra, dips cut by an edge, members less alike)                             0.561  0.525
    the same; trends, pulsars and dithered ones no anchors of supervised contrast            0.573  0.550
    the same; plain sources (these and quiet ones) among the negatives of the shapes         0.597  0.570
    both, NT-Xent twice as heavy                                                             0.619  0.595
    both, NT-Xent four times as heavy                                                        0.623  0.612
    both, twice as heavy: the shapes of 02h alone (shipped, with 12,000 of them)             0.609  0.590
    both, twice as heavy: the broader shapes alone                                           0.612  0.581
    both, twice as heavy: the shapes of 02h with wider dips, cut by an edge                  0.608  0.583

So it wasn't the shapes. Without its own kind, a half-eclipse was drawn to the trends (63 % of its first ten, of
metrics trained without dips) and an eclipse that returns to the pulsars (51 %): supervised contrast gathers what
it knows, and what it doesn't know goes along, unless the shapes are told to stay away.
"""

import argparse
import json
import os
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
from sklearn.base import clone

from xrt_nb import simulation as sim
from xrt_nb.data import EventTable
from xrt_nb.default_search import default_score
from xrt_nb.features import summary_features
from xrt_nb.invariant import SortedProfile
from xrt_nb.metric import LearnedMetric, train_metric, training_parts
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
def old_features(events, others=None):
    "The best features of version 0.1.0: summary statistics, scaled, beside ten times the sorted profile."
    x = summary_features(events)
    middle, scale = x.mean(), x.std(ddof=0).replace(0, 1)
    events = events if others is None else others  # scaled as the archive is
    x = ((x if others is None else summary_features(others)) - middle) / scale
    profile = pd.DataFrame(SortedProfile(scale="sigma").transform(events), index=x.index).add_prefix("top")
    return x.join(10 * profile)


def found(truth, score, frame, only=None):
    "Precision among 10 and recall among 50 of known transients; a random order where `score` is None."
    kind, right = truth.kind.to_numpy(str), truth.detectable.to_numpy(bool)
    source, known = truth.source.to_numpy(str), truth.known.to_numpy(bool)
    rows, out = np.flatnonzero(known & np.isin(kind, [only] if only else RARE)), []
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
        out.append((kind[r], *right_ones, min(n, 10) / 10, n))
    return pd.DataFrame(out, columns=["kind", "precision", "recall", "best", "members"])


def scores_of(events):
    "Score and features of everything that is compared."
    old, new = old_features(events), search_features(events)
    return {"chance": (None, old), "Euclid, 0.1.0": (Euclidean(standardize=False), old),
            "score alone (A)": (CosineLogNorm(standardize=False), old), "label-free (B)": (default_score("label-free"), new),
            "learned (C)": (default_score("learned"), new), "default": (default_score(), new)}


def lines(tables):
    "Mean and spread between archives, and precision by kind."
    for name, parts in tables.items():
        each = pd.DataFrame([p[["precision", "recall", "best"]].mean() for p in parts])
        kinds = pd.concat(parts).groupby("kind").precision.mean().round(2).to_dict()
        mean, spread = each.mean(), each.std().fillna(0)
        print(f"{name:18s} P@10 {mean.precision:.3f} ± {spread.precision:.3f}  "
              f"R@50 {mean.recall:.3f} ± {spread.recall:.3f}  {kinds}")
        per_kind = pd.concat(parts).groupby("kind")[["precision", "best"]].mean()
        shares = (per_kind.precision / per_kind.best.where(per_kind.best > 0)).round(2).to_dict()
        print(f"{'':18s} of what a perfect search finds {mean.precision / mean.best:.3f}  {shares}")
    if "default" in tables:
        mine = pd.concat(tables["default"]).precision.to_numpy()
        for other in [name for name in tables if name not in ("default", "chance")]:
            more = mine - pd.concat(tables[other]).precision.to_numpy()
            print(f"default − {other}: {more.mean():+.3f} ± {more.std() / np.sqrt(len(more)):.3f} per query")
        bounds(pd.concat(tables["default"]))


def bounds(each):
    "What a perfect search would reach in the same archives, beside what the default does, kind by kind."
    print("P@10 can't exceed (members to be found) / 10; by kind, of the default:")
    for kind, rows in each.groupby("kind"):
        many = rows[rows.members >= 10]
        full = f"{many.precision.mean():.2f} ({len(many)} queries)" if len(many) else "no such query"
        print(f"  {kind:7s} {rows.members.mean():5.1f} members; a perfect search has {rows.best.mean():.2f}, "
              f"the default {rows.precision.mean():.2f}; where ten or more are there: {full}; "
              f"R@50 {rows.recall.mean():.2f}; {len(rows)} queries")
    eruptions = each[each.kind == "qpe"]
    if len(eruptions) and eruptions.best.mean() < 0.5:
        print(f"  so no search reaches 0.5 for eruptions in these archives ({eruptions.best.mean():.2f} at most): "
              "judge their recall, and their precision in --parts large")


def archives(make, seeds):
    "All scores on archives of all seeds."
    tables = {}
    for seed in seeds:
        events, truth = make(seed)
        for name, (score, frame) in scores_of(events).items():
            tables.setdefault(name, []).append(found(truth, score, frame))
    lines(tables)


def trained_nets(folder, kinds, size, steps):
    "A metric without each of the kinds; those that are missing are trained, from one simulation."
    folder, parts = Path(folder), None
    folder.mkdir(parents=True, exist_ok=True)
    paths = {kind: folder / f"without_{kind}.npz" for kind in kinds}
    for kind, path in paths.items():
        if not path.is_file():
            parts = parts or training_parts(0, size, progress=lambda text: print(f"  {text}", end="\r"))
            train_metric(path, 0, size, steps, exclude=[kind], parts=parts)
        told = json.loads(path.with_suffix(".json").read_text())
        if told["exclude"] != [kind]:
            raise SystemExit(f"{path} was trained without {told['exclude']}, not without {kind}")
        print(f"{path.name}: size {told['size']}, {told['steps']} steps, loss {told['loss']:.3f}")
    return paths


def unseen(nets, seeds, edition):
    "Each kind searched with a metric that never saw it, beside the scores that know no kinds."
    tables = {}
    for seed in seeds:
        events, truth = sim.simulate_archive(2500, seed, edition=edition)
        scores, parts = scores_of(events), {}
        for kind, path in nets.items():
            fused, frame = default_score(), scores["default"][1]
            fused.scores[1] = metric = LearnedMetric(path)
            own = {"learned (C)": (metric, frame), "default": (fused, frame)}
            for name, (score, x) in (scores | own).items():
                parts.setdefault(name, []).append(found(truth, score, x, kind))
        for name in scores:
            tables.setdefault(name, []).append(pd.concat(parts[name]))
    lines(tables)


# ---- stability
def drawn_again(events, rng):
    "The same lists with each photon there a Poisson number of times, moved to anywhere between its neighbors."
    times, energies, offsets = [], [], [0]
    for i in events.ids:
        one = events[i]
        n, gti = rng.poisson(1.0, len(one)), one.gti
        middle = np.r_[gti[0, 0], (one.time[1:] + one.time[:-1]) / 2, gti[-1, 1]]
        t = np.repeat(middle[:-1], n) + rng.random(n.sum()) * np.repeat(np.diff(middle), n)
        inside = (np.searchsorted(gti.ravel(), t, side="right") % 2).astype(bool)
        order = np.argsort(t[inside], kind="stable")
        times.append(t[inside][order])
        energies.append(np.repeat(one.energy, n)[inside][order])
        offsets.append(offsets[-1] + len(order))
    arrays = np.concatenate(times), np.concatenate(energies)
    return EventTable(events.ids, offsets, *arrays, events.gti, events.gti_offsets)


def stability(seeds, edition):
    "Share of a query's ten neighbors that stay when its photons are drawn again."
    kept = {}
    for seed in seeds:
        events, truth = sim.simulate_archive(2500, seed, edition=edition)
        queries = truth.index[truth.known & truth.kind.isin(RARE)].tolist()
        again = drawn_again(events[queries], np.random.default_rng(seed))
        old, new = old_features(events, again), search_features(again)
        rows = {"Euclid, 0.1.0": old, "score alone (A)": old}
        for name, (score, x) in scores_of(events).items():
            if score is None:
                continue
            own, other = score.fit(x).project(x), score.project(rows.get(name, new))
            for j, r in enumerate(x.index.get_indexer(queries)):
                s = np.stack([score.score(own.take([r]), own)[0], score.score(other.take([j]), own)[0]])
                s[:, r] = -np.inf
                ten = np.argsort(-s, axis=1, kind="stable")[:, :10]
                kept.setdefault(name, []).append(len(np.intersect1d(*ten)) / 10)
    for name, share in kept.items():
        print(f"{name:18s} {np.mean(share):.2f} ± {np.std(share) / np.sqrt(len(share)):.2f} of ten stay")


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
        tens, rows = {}, {"Euclid": (Euclidean(), old), "score alone (A)": (CosineLogNorm(), old)}
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
            in_ten, n = np.array(flare)[:, 0], 10 * len(quiet)
            error = in_ten.std(ddof=1) / np.sqrt(len(in_ten))
            print(f"  {name:16s} flaring of five: {f[0]:.2f} ± {error:.2f} in 10, {f[1]:.2f} in 50; "
                  f"usual or steady {np.mean(quiet):.1%} ({round(np.sum(quiet) * 10)} of {n}); "
                  f"dips of three: {d[0]:.2f} in 10, {d[1]:.2f} in 50")
            tens[name] = np.concatenate([in_ten, np.array(dips)[:, 0]])
        for name in [name for name in tens if name != "default"]:
            more = tens["default"] - tens[name]
            error = more.std(ddof=1) / np.sqrt(len(more))
            print(f"  default − {name}: {more.mean():+.2f} ± {error:.2f} right in ten per query")


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


def embedding(n):
    "Time and memory of openTSNE in the space of the default search."
    import resource

    from xrt_nb.embedding import embed
    from xrt_nb.runs import CASES, DEFAULT_CASE

    events, _ = sim.simulate_archive(5000, 9900, edition=1)
    case, rng = CASES[DEFAULT_CASE], np.random.default_rng(0)
    x = clone(case.features).fit_transform(search_features(events))
    many = np.tile(np.asarray(x), (-(-n // len(x)), 1))[:n]
    many = many + 0.05 * many.std(axis=0) * rng.standard_normal(many.shape)  # no two alike
    start, cpu = time.perf_counter(), time.process_time()
    embed(many, **case.embedding)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(f"{len(many)} detections, {many.shape[1]} coordinates: openTSNE {time.process_time() - cpu:.0f} CPU-s, "
          f"{time.perf_counter() - start:.0f} s, at most {peak:.2f} GB in this process")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archives", type=int, default=10, help="how many archives of 2,500 sources")
    parser.add_argument("--first-seed", type=int, default=9001, help="their seeds")
    parser.add_argument("--edition", type=int, default=2, help="of the simulated archives")
    parser.add_argument("--nets", help="folder of metrics without_KIND.npz; what is missing is trained")
    parser.add_argument("--kinds", nargs="+", choices=RARE, default=RARE, help="that are left out, each in turn")
    parser.add_argument("--size", type=float, default=1.0, help="factor on the sources of a training")
    parser.add_argument("--steps", type=int, default=1800, help="batches of a training")
    parts = ["simulated", "large", "changed", "unseen", "stability", "real", "speed", "embedding"]
    usual = ["simulated", "changed", "real", "speed"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=usual)
    parser.add_argument("--points", type=int, default=100_000, help="detections of the part embedding")
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
        if not args.nets:
            parser.error("--parts unseen needs --nets FOLDER")
        print("\nthe query's kind never trained")
        unseen(trained_nets(args.nets, args.kinds, args.size, args.steps), seeds, args.edition)
    if "stability" in args.parts:
        print("\nstability under resampling of the query's photons")
        stability(seeds, args.edition)
    folder = Path(os.environ.get("XRT_NB_SHARED", "../shared")) / "data/real_lists"
    if "real" in args.parts and folder.is_dir():
        print("\nreal lists")
        real(folder)
    if "speed" in args.parts:
        print("\nspeed")
        speed(100_000)
    if "embedding" in args.parts:
        print("\nembedding")
        embedding(args.points)


if __name__ == "__main__":
    main()
