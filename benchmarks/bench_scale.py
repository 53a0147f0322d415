"""A million detections: references, searches and files, with CPU time beside wall time.

    python benchmarks/bench_scale.py --part reference [--rows 1000000] [--columns 60] [--new 100000] [--keep FOLDER]
    python benchmarks/bench_scale.py --part search [--rows 1000000]
    python benchmarks/bench_scale.py --part files [--small 200000] [--large 2000000]
    python benchmarks/bench_scale.py --part growth [--sizes 10000 100000 1000000] [--data FOLDER]
    python benchmarks/bench_scale.py --part sample [--rows 20000]

`growth` runs simulated archives in parts, from Parquet to report, each size in a process of its own; what it measured
stands in benchmarks/results/growth.json, and is not measured again. A run that was stopped goes on where it was.
`sample` compares the map of a sample, the rest placed, with the map of all.

The features of a million detections are drawn between those of neighbors among 20,000 simulated ones (--base), so
that they are as crowded as real ones; new detections are simulated anew. All seeds are printed. With --keep the large
reference stays in a folder, and is taken from there the next time. Neighbors are searched exactly, and by faiss.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np


def timed(what, f, n=1, unit="s"):
    "Call, and print wall and CPU time of one of `n`."
    wall, cpu = time.perf_counter(), time.process_time()
    out = f()
    wall, cpu = (time.perf_counter() - wall) / n, (time.process_time() - cpu) / n
    factor = {"s": 1, "ms": 1e3}[unit]
    print(f"{what}: {wall * factor:.3g} {unit} ({cpu * factor:.3g} {unit} CPU)", flush=True)
    return out


def peak():
    "Largest memory so far [GB]."
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=tuple(PARTS), required=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=60)
    parser.add_argument("--new", type=int, default=100_000)
    parser.add_argument("--base", type=int, default=20_000, help="simulated detections behind the million")
    parser.add_argument("--keep", type=Path, help="folder of the large reference")
    parser.add_argument("--small", type=int, default=200_000)
    parser.add_argument("--large", type=int, default=2_000_000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--sample", type=int, default=50_000, help="detections of which t-SNE is made")
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "xrt_nb_growth", help="keeps archives and runs")
    given = parser.parse_args()
    PARTS[given.part](given)


# ---- references
def between(x, n, rng):
    "n rows, each between a row and one of its seven nearest."
    from scipy.spatial import cKDTree

    near = cKDTree(x).query(x, 8)[1]
    i = rng.integers(0, len(x), n)
    return i, near[i, rng.integers(1, 8, n)], rng.random((n, 1))


def large_reference(folder, given):
    "A reference of many rows, by the files of a small one."
    from xrt_nb.reference import Reference, finish, write_array, write_frame
    from xrt_nb._store import WorkFolder
    from xrt_nb.runs import run
    from xrt_nb.simulation import known_ids, simulate_archive

    events, truth = simulate_archive(given.base, random_state=5)
    print("seeds: archive 5, rows 0, new detections 6")
    made = run(events, folder / "run", known=known_ids(truth), n_components=given.columns, max_iter=250)
    small, rng = Reference.build(made, folder / "small"), np.random.default_rng(0)
    a, b, u = between(small.array("features.npy"), given.rows, rng)
    ids = np.array([f"r{k}" for k in range(given.rows)])
    with WorkFolder(folder / "large", restart=True) as work:
        for name in small.manifest["files"]:
            if name.startswith(("fitted.", "pairs.")):
                write_array(work.path / name, [small.array(name)])
            elif name == "ids.npy":
                write_array(work.path / name, [ids])
            elif name.endswith(".npy"):
                x = small.array(name)
                parts = np.array_split(np.arange(given.rows), 50)
                w = [u[p].reshape(-1, *[1] * (x.ndim - 1)).astype(x.dtype) for p in parts]
                write_array(work.path / name, [x[a[p]] + v * (x[b[p]] - x[a[p]]) for p, v in zip(parts, w)])
        write_frame(work.path / "detections.parquet", small.detections.iloc[a].set_axis(ids))
        write_frame(work.path / "properties.parquet", small.properties.iloc[a].set_axis(ids))
        kept = {k: v for k, v in small.manifest.items() if k not in ("files", "seal", "base")}
        return finish(work, kept | {"n": given.rows, "n_fitted": given.rows}, folder / "large", True)


def with_index(path, out):
    "The same reference with an index of faiss; its other files are links."
    from xrt_nb._store import WorkFolder
    from xrt_nb.reference import Reference, finish, write_neighbors

    old = Reference(path).manifest
    with WorkFolder(out, restart=True) as work:
        for name in old["files"]:
            os.link(path / name, work.path / name)
        about = timed("index made", lambda: write_neighbors(work.path, True))
        kept = {k: v for k, v in old.items() if k not in ("files", "seal")}
        return finish(work, kept | {"neighbors": about}, out, True)


def placed(path, new):
    "Times of opening a reference and of placing one detection and many."
    from xrt_nb.reference import Reference, facts_about

    ref = timed("opened", lambda: Reference(path))
    print(f"neighbors are {facts_about(ref)['neighbors']}")
    timed("first detection placed", lambda: ref.place(new[:1], k=0))
    timed("first detection with its ten analogs", lambda: ref.place(new[:1], k=10))
    for what, n in (("placed (bar 50 ms)", 0), ("with its ten analogs", 10)):
        each = []
        for a in range(0, 50, 10):
            start = time.process_time()
            for k in range(a, a + 10):
                ref.place(new[k : k + 1], k=n)
            each.append((time.process_time() - start) * 100)
        print(f"one detection {what}, warm: {np.median(each):.0f} ms CPU ({min(each):.0f} to {max(each):.0f})", flush=True)
    at = timed(f"{len(new):,} detections placed (bar 120 s)", lambda: ref.place(new, k=0)).placement
    print(f"{at.extrapolated.mean():.1%} extrapolated; peak memory {peak():.1f} GB")
    return ref, at[["tsne1", "tsne2"]].to_numpy()


def reference(given):
    "Opening, verifying, placing one and many, by both searches for neighbors; analogs."
    from xrt_nb.simulation import simulate_archive

    with tempfile.TemporaryDirectory() as folder:
        folder = given.keep or Path(folder)
        path = folder / "large" if (folder / "large").is_dir() else large_reference(folder, given)
        size = sum(p.stat().st_size for p in path.iterdir()) / 1e9
        print(f"reference of {size:.1f} GB")
        new = simulate_archive(given.new, random_state=6)[0]
        new.meta["name"] = None
        ref, exact = placed(path, new)
        timed("every byte verified", ref.verify)
        quick = folder / "indexed"
        _, fast = placed(quick if quick.is_dir() else with_index(path, quick), new)
        apart = np.abs(exact - fast).max(axis=1)
        print(f"{(apart < 1e-4).mean():.3%} of the places are the same by both searches, {(apart < 1).mean():.3%} within 1")


# ---- searches
def search(given):
    "Exact neighbors among many rows on disk, and brute force on 1,000 queries."
    from scipy.spatial.distance import cdist
    from sklearn.decomposition import PCA
    from xrt_nb.index import ExactNeighbors, IndexedNeighbors, lists_needed, make_index, read_index
    from xrt_nb.reference import threads
    from xrt_nb.runs import SearchCoordinates
    from xrt_nb.shapes import search_features
    from xrt_nb.simulation import simulate_archive

    print("seeds: archive 5, rows 0, queries 1")
    found = search_features(simulate_archive(6_000, random_state=5)[0])
    x = PCA(given.columns, random_state=11).fit_transform(SearchCoordinates().fit_transform(found))
    old, queries = x[:5_000], x[5_000:]
    a, b, u = between(old, given.rows, np.random.default_rng(0))
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/rows.npy", old[a] + u * (old[b] - old[a]))
        np.save(f"{folder}/screen.npy", np.load(f"{folder}/rows.npy").astype(np.float32))
        rows, screen = (np.load(f"{folder}/{n}.npy", mmap_mode="r") for n in ("rows", "screen"))
        near = ExactNeighbors(rows, screen, threads())
        timed("first search", lambda: near.kneighbors(queries[:1], 15))
        timed("one query alone", lambda: [near.kneighbors(queries[k : k + 1], 15) for k in range(50)], 50, "ms")
        distance, index = timed("a query of 1,000", lambda: near.kneighbors(queries, 15), len(queries), "ms")
        same, worst = 0, 0.0
        for k in range(0, len(queries), 20):
            brute = cdist(queries[k : k + 20], rows)
            best = np.argpartition(brute, 15, axis=1)[:, :15]
            d = np.sort(np.take_along_axis(brute, best, 1), axis=1)
            same += sum(set(p) == set(q) for p, q in zip(best, index[k : k + 20]))
            worst = max(worst, np.abs(d - distance[k : k + 20]).max())
        print(f"{same} of {len(queries)} lists are those of brute force, distances to {worst:.1e}; peak {peak():.1f} GB")
        about = timed("index made", lambda: make_index(rows, screen, Path(folder) / "a.faiss", threads()))
        print(about)
        index = timed("index opened", lambda: read_index(f"{folder}/a.faiss"), unit="ms")
        near = IndexedNeighbors(rows, index, about["probes"], threads(), screen)
        near.all_rows.prepared
        a, b, u = between(old, len(queries), np.random.default_rng(1))
        alike = old[a] + u * (old[b] - old[a])
        exact = ExactNeighbors(rows, screen, threads())
        for how, search in (("exact", exact), ("index", near)):
            for what, q in (("like the rows", alike), ("simulated anew", queries)):
                each = lambda n: [search.kneighbors(q[k : k + n], 15) for k in range(0, 48, n)]
                timed(f"{how}: one query {what}", lambda: each(1), 48, "ms")
                timed(f"{how}: of eight together", lambda: each(8), 48, "ms")
                timed(f"{how}: of {len(q):,} together", lambda: search.kneighbors(q, 15), len(q), "ms")
        for what, q in (("drawn as the rows were", alike), ("simulated anew, unlike the crowded rows", queries)):
            true = exact.kneighbors(q, 15)[0]
            each = (timed(f"a query {what}", lambda: near.kneighbors(q, 15), len(q), "ms")[0] <= true[:, -1:]).mean(axis=1)
            needed = np.percentile(lists_needed(near.centers, q, true[:, -1] ** 2), (50, 90))
            print(f"  recall of 15 neighbors {each.mean():.5f} ± {each.std() / np.sqrt(len(each)):.5f} (bar 0.999); lists that "
                  f"can hold one: median {needed[0]:.0f}, nine of ten {needed[1]:.0f} at most of {about['lists']}")


# ---- files
ONE = """
import resource, sys, time
import numpy as np, pandas as pd
from xrt_nb.data import EventTable, checked_clock, read_events
n, intervals, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
rng = np.random.default_rng(0)
times = np.sort(rng.uniform(0, 3e4, (n, 5)), axis=1).ravel()
edge = np.linspace(0, 3e4, intervals + 1)
gti = np.tile(np.c_[edge[:-1], edge[1:]], (n, 1))
meta = pd.DataFrame({"ra": rng.uniform(0, 360, n), "mission": "none"}, index=[f"s{k}" for k in range(n)])
each = [np.arange(0, n * k + 1, k) for k in (5, intervals)]
table = EventTable(list(meta.index), each[0], times, rng.uniform(500, 7000, 5 * n), gti, each[1], meta)
del times, gti, meta, each
spent = []
for f in (lambda: table.write(path, overwrite=True), lambda: read_events(path), lambda: read_events(path, ids=["s7"]),
          lambda: checked_clock(table)):
    start, out = time.process_time(), None
    out = f()
    spent.append(time.process_time() - start)
    if isinstance(out, EventTable) and len(out) == n:
        assert out == table and out.meta.equals(table.meta)
print(*spent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2)
"""


def files(given):
    """Detections of five photons each, written, read back, one of them read, and put on the livetime clock.

    The peak is that of a process that holds the table it wrote beside the one it reads."""
    print("seed 0; CPU seconds, each size in a process of its own")
    for intervals in (1, 3):
        rows = []
        for n in (given.small, given.large):
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, "-c", ONE, str(n), str(intervals), f"{folder}/events.parquet"]
                told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            write, read, one, clock, memory = map(float, told)
            rows.append(np.array([write, read]) / n)
            print(f"{n:,} detections, {intervals} good times each: written {write:.1f}, read {read:.1f}, "
                  f"one of them {one:.2f}, clock {clock:.1f}; peak {memory:.2f} GB", flush=True)
        print(f"per detection, large over small: written {rows[1][0] / rows[0][0]:.2f}, read {rows[1][1] / rows[0][1]:.2f}")


# ---- growth
TOGETHER = 10_000  # detections that are simulated at once
RESULTS = Path(__file__).parent / "results" / "growth.json"


def renamed(table, k):
    "A simulated archive as the k-th part of a larger one: no observation or source is in two parts."
    from xrt_nb.data import EventTable

    meta = table.meta.copy()
    for column in ("obsid", "name"):
        meta[column] = [f"{k:03d}-{v}" for v in meta[column]]
    ids = meta.index = [f"{k:03d}-{i}" for i in table.ids]
    return EventTable(ids, table.offsets, table.time, table.energy, table.gti, table.gti_offsets, meta)


def simulated(path, n):
    "Simulate an archive of n detections piece by piece; 100 known transients of its beginning stand beside it."
    from xrt_nb._store import atomic
    from xrt_nb.simulation import known_ids, simulate_archive
    from xrt_nb.tables import ParquetEvents

    beside = path.with_suffix(".known.csv")
    with atomic(path) as tmp, ParquetEvents(tmp) as out:
        for k in range(0, n, TOGETHER):
            table, truth = simulate_archive(min(TOGETHER, n - k), random_state=1000 + k // TOGETHER)
            out.write(renamed(table, k // TOGETHER))
            if not k:
                known = known_ids(truth).iloc[:100].rename("class")
                known.set_axis([f"000-{i}" for i in known.index]).rename_axis("obsreg_id").to_csv(beside)


def spent():
    "CPU seconds so far, with those of processes that have ended."
    t = os.times()
    return t.user + t.system + t.children_user + t.children_system


def one(given):
    "Run one archive in parts; prints a line of JSON."
    import pandas as pd
    from xrt_nb.chunks import run_in_parts
    from xrt_nb.tables import EventFile

    path = given.data / f"{given.rows}.parquet"
    known = pd.read_csv(path.with_suffix(".known.csv"), index_col=0)["class"].iloc[:30]
    stages, now = {}, ["start", spent(), time.perf_counter()]

    def say(step, done, total):
        if step != now[0]:
            old = stages.setdefault(now[0], {"cpu": 0.0, "wall": 0.0, "peak": 0.0})
            old["cpu"] += spent() - now[1]
            old["wall"] += time.perf_counter() - now[2]
            old["peak"] = peak()
            now[:] = [step, spent(), time.perf_counter()]

    out = run_in_parts(path, given.data / f"run{given.rows}", known=known, progress=say, sample=given.sample, n_jobs=2)
    say("end", 0, 0)
    size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file() and p.name != "events.parquet")
    archive = EventFile(path)
    about = {"n": len(archive), "events": archive.n_events, "stages": stages, "sample": given.sample, "peak": peak()}
    about |= {"bytes": size / len(archive), "archive_bytes": path.stat().st_size / len(archive)}
    print(json.dumps(about | {"cpu": spent(), "date": str(date.today()), "load": os.getloadavg()[1]}))


def machine():
    "What class of machine this is."
    model = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    return f"{os.cpu_count()} cores ({model[0] if model else platform.machine()}), {platform.system()}"


def growth(given):
    "Each size once; then the growth, and ten million on a cluster."
    given.data.mkdir(exist_ok=True)
    RESULTS.parent.mkdir(exist_ok=True)
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for n in given.sizes:
        if str(n) in rows:
            continue
        if not (given.data / f"{n}.parquet").exists():
            timed(f"simulate {n:,}", lambda: simulated(given.data / f"{n}.parquet", n))
        command = [sys.executable, __file__, "--part", "one", "--rows", n, "--data", given.data, "--sample", given.sample]
        told = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True, check=True).stdout
        rows[str(n)] = json.loads(told.splitlines()[-1]) | {"machine": machine()}
        RESULTS.write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n")
        show(rows[str(n)])
    project([rows[k] for k in sorted(rows, key=int)])


def show(row):
    "One size, stage by stage."
    print(f"{row['n']:,} detections, {row['events']:,} events: {row['cpu']:.0f} s CPU, peak {row['peak']:.2f} GB, "
          f"{row['bytes']:,.0f} bytes per detection beside {row['archive_bytes']:,.0f} of events")
    for name, s in row["stages"].items():
        print(f"  {name:16s} {s['cpu']:8.1f} s CPU  {s['wall']:8.1f} s wall  peak {s['peak']:.2f} GB", flush=True)


FIXED = ("start", "map")  # stages that don't grow beyond the sample
SHARED = ("look", "sums", "pass", "compare", "transform", "place")  # passes, which a cluster shares out


def growing(row):
    "CPU seconds of what grows with the archive."
    return sum(s["cpu"] for name, s in row["stages"].items() if name not in FIXED)


def project(rows):
    "How the costs grow, and what ten million detections would take."
    for a, b in zip(rows[:-1], rows[1:]):
        each = (growing(b) / b["n"]) / (growing(a) / a["n"])
        print(f"{a['n']:,} to {b['n']:,}: CPU per detection, t-SNE of the sample aside, times {each:.2f}; "
              f"all CPU times {b['cpu'] / a['cpu']:.1f}, peak {a['peak']:.2f} to {b['peak']:.2f} GB")
    last, n, workers, worth = rows[-1], 10_000_000, 64, 0.8
    passes = sum(last["stages"].get(k, {"cpu": 0})["cpu"] for k in SHARED) / last["n"] * n
    alone = (growing(last) / last["n"] * n) - passes
    fixed = sum(s["cpu"] for k, s in last["stages"].items() if k in FIXED)
    slope = (last["peak"] - rows[-2]["peak"]) / (last["n"] - rows[-2]["n"]) if len(rows) > 1 else 0.0
    hours = (passes / workers / worth + alone + fixed) / 3600
    print(f"{n:,} detections from {last['n']:,}: passes {passes / 3600:.1f} CPU hours on {workers} workers of which each "
          f"is worth {worth}, {alone / 3600:.1f} h of joining, searching and drawing in one process, "
          f"t-SNE {fixed / 3600:.1f} h: {hours:.1f} h; {last['peak'] + max(slope, 0) * (n - last['n']):.0f} GB "
          f"in that process; {last['bytes'] * n / 1e9:.0f} GB of results on a disk that all share")


# ---- maps of a sample
def sample(given):
    "Maps of all against maps of a sample with the rest placed, and against another map of all."
    from xrt_nb.chunks import placed_at, Span, stratified
    from xrt_nb.embedding import embed, knn_overlap, trustworthiness
    from xrt_nb.runs import SHAPE_TSNE, SHAPES
    from xrt_nb.shapes import search_features
    from xrt_nb.simulation import simulate_archive
    from sklearn.base import clone

    n = min(given.rows, 20_000)
    print(f"seeds: archive 5, t-SNE 11, rows judged 0; {n:,} detections")
    events = simulate_archive(n, random_state=5)[0]
    x = clone(SHAPES).fit_transform(search_features(events))
    some = np.sort(np.random.default_rng(0).choice(n, min(n, 5000), replace=False))
    settings = SHAPE_TSNE | {"n_jobs": 2}
    maps = {"all": timed("t-SNE of all", lambda: embed(x, **settings))}
    maps["all, random start"] = embed(x, **settings | {"init": "random"})
    with tempfile.TemporaryDirectory() as folder:
        for m in (n // 2, n // 4):
            rows = stratified(x, events.counts, m, 11)
            y = timed(f"t-SNE of {m:,}", lambda: embed(x[rows], **settings))
            files = {k: Path(folder) / f"{k}.npy" for k in ("features", "rows", "places")}
            for path, a in zip(files.values(), (x, rows, y)):
                np.save(path, a)
            place = lambda: placed_at(Span("all", 0, n), **files, perplexity=50)["embedding"]
            maps[f"{m:,}, the rest placed"] = timed(f"{n - m:,} placed", place)
    for name, y in maps.items():
        print(f"{name:24s} trustworthiness {trustworthiness(x[some], y[some]):.4f}, of the ten nearest {knn_overlap(x, y):.4f} "
              f"as among the features, {knn_overlap(maps['all'], y):.4f} as on the map of all; chance {10 / (n - 1):.4f}")


PARTS = {"reference": reference, "search": search, "files": files, "growth": growth, "one": one, "sample": sample}

if __name__ == "__main__":
    main()
