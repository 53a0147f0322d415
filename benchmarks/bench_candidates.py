"""What candidates rest on, measured: one part per subject.

    python benchmarks/bench_candidates.py [--part flags efficiency candidates ...] [--lists 100000] [--random-state 0]

Each part prints its figures with their spread and is a function that `part` enters below. Real lists
(`$XRT_NB_SHARED/data/real_lists`, labels by eye) judge; nothing was chosen by them.
"""

import argparse
import os
import resource
import time
from pathlib import Path

import numpy as np
import pandas as pd
from astropy.stats import binom_conf_interval

from xrt_nb.data import EventTable

PARTS = {}


def part(run):
    "Enter a function of (arguments) as the part of its name."
    PARTS[run.__name__] = run
    return run


def share(k, n):
    "k of n with the 68 % interval, in words."
    if not n:
        return "unknown for all"
    low, high = binom_conf_interval(int(k), int(n), interval="jeffreys")
    return f"{int(k):6d} of {int(n):6d} = {k / n:7.2%} [{low:.2%}, {high:.2%}]"


def real_lists():
    "Real photon lists without energies, with positions in meta, and their labels; None where they are absent."
    folder = Path(os.environ.get("XRT_NB_SHARED", "../shared")) / "data" / "real_lists"
    if not folder.is_dir():
        print(f"no real lists: {folder} is absent (XRT_NB_SHARED)")
        return None
    told = pd.read_csv(folder / "labels.csv", dtype={"obsreg_id": str, "obsid": str}).set_index("obsreg_id")
    frames = [pd.read_parquet(folder / "times.parquet"), pd.read_csv(folder / "gti.csv.gz", dtype={"obsreg_id": str})]
    offsets = []
    for frame in frames:
        frame["row"] = told.index.get_indexer(frame.obsreg_id.astype(str))
        offsets.append(np.r_[0, np.cumsum(np.bincount(frame.row, minlength=len(told)))])
    times = frames[0].sort_values(["row", "time"], kind="stable").time.to_numpy(float)
    good = frames[1].sort_values(["row", "start"], kind="stable")[["start", "stop"]].to_numpy(float)
    meta = told[["obsid", "ra", "dec"]]
    return EventTable(told.index.to_numpy(str), offsets[0], times, None, good, offsets[1], meta), told["label"]


# ---- flags
def constant_lists(n, random_state, per_observation=40, median=60.0, exposure=25_000.0, frame=3.241):
    "Constant lists in observations of forty, in frames, with chip coordinates, a third of them with a gap."
    rng = np.random.default_rng(random_state)
    counts = np.clip(rng.lognormal(np.log(median), 1.1, n), 5, 5000).astype(int)
    offsets = np.r_[0, np.cumsum(counts)]
    observation = np.arange(n) // per_observation
    gap = np.where(observation % 3 == 0, 3000.0, 0.0)
    live = np.sort(rng.uniform(0, exposure, offsets[-1]) + np.repeat(np.arange(n) * 2 * exposure, counts))
    live -= np.repeat(np.arange(n) * 2 * exposure, counts)
    late = live > exposure / 3
    time_ = (np.floor((live + late * np.repeat(gap, counts)) / frame) + 0.5) * frame
    split = np.where(gap > 0, exposure / 3, exposure)
    first = np.column_stack([np.zeros(n) - frame, split + frame])
    second = np.column_stack([split + gap - frame, exposure + gap + 2 * frame])
    gti, gti_offsets = [], [0]
    for k in range(n):
        gti += [first[k], second[k]] if gap[k] else [[-frame, exposure + 2 * frame]]
        gti_offsets.append(len(gti))
    place = np.repeat(rng.uniform(50, 970, (n, 2)), counts, axis=0)
    columns = {}
    for j, (name, period) in enumerate({"chipx": 1000.0, "chipy": 707.1}.items()):
        swing = 16.3 * np.sin(2 * np.pi * time_ / period) + rng.normal(0, 1.2, len(time_))
        columns[name] = np.round(place[:, j] + swing).astype(np.int16)
    columns["ccd_id"] = np.full(len(time_), 7, np.int16)
    ids = [f"{o}_{k}" for k, o in enumerate(observation)]
    meta = pd.DataFrame({"ra": rng.uniform(0, 360, n), "dec": rng.uniform(-60, 60, n)}, index=ids)
    return EventTable(ids, offsets, time_, None, np.array(gti), np.array(gti_offsets), meta, columns)


def background_of(events, random_state, per_list=30):
    "Constant background lists, an area ten times the source's: frames drawn from all photons of their observation."
    rng, n, observation = np.random.default_rng(random_state), len(events), events.ids.astype(str)
    observation = np.char.partition(observation, "_")[:, 0].astype(int)
    first = events.offsets[np.searchsorted(np.sort(observation), observation)]  # lists of one observation lie together
    last = events.offsets[np.searchsorted(np.sort(observation), observation, side="right")]
    times = np.sort(events.time[rng.integers(first[:, None], last[:, None], (n, per_list))], axis=1).ravel()
    meta = pd.DataFrame({"area_ratio": 10.0}, index=events.ids)
    return EventTable(events.ids, np.arange(n + 1) * per_list, times, None, events.gti, events.gti_offsets, meta)


def dither_by_counts(n, seed):
    "Efficiency of the dither flag on the simulator's dithers, by photons."
    from xrt_nb.flags import FLAGS
    from xrt_nb.simulation import simulate_source

    for counts in (30, 60, 100, 200, 400):
        lists = [simulate_source("dither", counts, background=3, rng=seed + k, id=str(k)) for k in range(n)]
        print(f"  dither, {counts} photons: {share(FLAGS['dither'].of(EventTable.from_lists(lists)).sum(), n)}")


def single_frames(n, seed):
    "Single frames: found by photons of frame and list, and raised for nothing in lists that vary."
    from xrt_nb.flags import FLAGS, with_photons
    from xrt_nb.simulation import simulate_source

    rng = np.random.default_rng(seed)
    flag = lambda lists: FLAGS["single_frame"].of(EventTable.from_lists(lists)).sum()
    for counts in (30, 100, 300, 1000):
        quiet = [simulate_source("steady", counts, background=3, rng=seed + k, id=str(k)) for k in range(n)]
        for m in (3, 4, 5, 6, 8):
            shot = [with_photons(x, np.full(m, rng.choice(x.time))) for x in quiet]
            print(f"  single frame of {m} photons more, lists of {counts}: {share(flag(shot), n)}")
    for kind in ("flare", "flares", "burst", "qpe", "dip", "pulsar"):
        lists = [simulate_source(kind, 30 + 5 * (k % 100), background=3, rng=seed + k, id=str(k)) for k in range(n)]
        print(f"  single frame raised for nothing, {kind}: {share(flag(lists), n)}")


def real_flags():
    "Flags on the real lists by label, with the dither flag at periods that nothing has."
    from unittest.mock import patch

    from xrt_nb import flags
    from xrt_nb.nulls import simulate_constant

    found = real_lists()
    if found is None:
        return
    events, label = found
    frame = flags.flag_table(events)
    print(f"real lists, {len(events)}: flagged by label (unknown left out)")
    shown = [c for c in frame if frame[c].notna().any()]
    for c in shown:
        print(f"  {c.removeprefix('flag_'):17s}" + " ".join(
            f"{k} {int(v.sum())}/{int(v.count())}" for k, v in frame[c].groupby(label)))
    print("  bars: background flares in common mode", share(frame.flag_common_mode[label == "bkgflare"].sum(), (label == "bkgflare").sum()))
    print("        dithered lists flagged dither   ", share(frame.flag_dither[label == "dither"].sum(), (label == "dither").sum()))
    steady = label == "steady"
    print("        flags on steady lists, and on constant lists with their counts, good times and frames, ten each:")
    same = flags.flag_table(simulate_constant(events[steady.to_numpy()], 10, random_state=1))
    for c in shown:
        print(f"          {c.removeprefix('flag_'):17s}{share(frame[c][steady].sum(), frame[c][steady].count())}"
              f"   {share(same[c].sum(), same[c].count())}")
    never = {"acis before": (617.3, 873.1), "acis after": (1234.6, 1746.2), "hrc": (660.0, 947.0)}
    with patch.object(flags, "SWINGS", never):
        print("  dither at periods that nothing has:", share(flags.FLAGS["dither"].of(events).sum(), len(events)))
    print("  dither, usual lists:               ", share(frame.flag_dither[label == "usual"].sum(), (label == "usual").sum()))
    showers(events, frame)


def showers(events, frame):
    "Whether the full frames of real lists come together with those of lists close by, as a particle's shower does."
    from xrt_nb.flags import on_sphere

    rows = np.flatnonzero(frame.flag_single_frame.to_numpy(bool, na_value=False))
    at = []
    for k in rows:
        values, n = np.unique(np.round(events.time[events.offsets[k] : events.offsets[k + 1]], 1), return_counts=True)
        at.append(values[n.argmax()])
    x, obs = on_sphere(*events.meta[["ra", "dec"]].to_numpy(float).T), events.meta["obsid"].to_numpy(str)
    close = lambda i, j: np.degrees(np.linalg.norm(x[i] - x[j])) * 60 < 1
    pairs = [(a, b) for a in range(len(rows)) for b in range(a) if obs[rows[a]] == obs[rows[b]] and close(rows[a], rows[b])]
    same = sum(abs(at[a] - at[b]) < 4 for a, b in pairs)
    print(f"  single frames: {len(rows)} lists, {same} of {len(pairs)} pairs within 1 arcmin are the same frame (chance: one in thousands)")


@part
def flags(args):
    "Speed and memory, false flags on constant lists, real lists by label."
    from xrt_nb.flags import flag_table

    events = constant_lists(args.lists, args.random_state)
    sky = background_of(events, args.random_state + 1)
    flag_table(events[:80], background=sky[:80])
    start = time.process_time()
    frame = flag_table(events, background=sky)
    took, peak = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{len(events):,} lists, {events.n_events:,} photons, all flags: {took:.0f} s CPU, peak {peak:.2f} GB with the lists")
    print("constant lists flagged (few_counts is a fact):")
    for c, v in frame.items():
        print(f"  {c.removeprefix('flag_'):17s}{share(v.sum(), v.count())}")
    dither_by_counts(300, args.random_state)
    single_frames(300, args.random_state)
    real_flags()


# ---- efficiency
SHAPES = {  # name: shape, T90 [s], fluences [photons]
    "burst": ("fred", 200.0, (4, 6, 9, 13, 20, 30, 45)),
    "flare": ("fred", 3000.0, (6, 9, 14, 21, 32, 48, 72)),
    "eruptions": ("eruptions", 700.0, (10, 15, 22, 33, 50, 75, 110)),
    "dip": ("dip", None, (6, 9, 14, 21, 32, 48, 72)),
}
LEVELS = {"faint": 25, "bright": 200}  # photons of the steady list


def steady_lists(n, counts, random_state, live=30_000.0, frame=3.141):
    "Simulated constant lists of one exposure, a third with a gap, photons at frames."
    rng = np.random.default_rng(random_state)
    k = np.maximum(rng.poisson(counts, n), 5)
    offsets, owner = np.r_[0, np.cumsum(k)], np.repeat(np.arange(n), k)
    at = rng.uniform(0, live, offsets[-1])
    gap = np.where(np.arange(n) % 3 == 0, 4000.0, 0.0)
    clock = (np.floor((at + (at > live / 2) * gap[owner]) / frame) + 0.5) * frame
    order = np.lexsort((clock, owner))
    half, end = live / 2 + frame, live + frame
    gti = [g for x in gap for g in ([(0, half), (half + x - 2 * frame, end + x)] if x else [(0, end)])]
    parts = np.r_[0, np.cumsum(np.where(gap > 0, 2, 1))]
    ids = [f"{j}_1" for j in range(n)]
    energy = rng.choice(np.exp(rng.normal(np.log(1500), 0.5, 20_000)).clip(500, 7000), offsets[-1])
    meta = pd.DataFrame({"frame_time": frame, "timedel": frame}, index=ids)
    return EventTable(ids, offsets, clock[order], energy, np.array(gti, float), parts, meta)


def calibrated(table):
    "Minus log10 of every detector's chance, of all together, and the smallest chance of all, for comparison."
    from xrt_nb.nulls import false_alarm_probabilities

    found = false_alarm_probabilities(table)
    columns = [c for c in found if c.startswith("p_")]
    out = -np.log10(found[columns + ["p"]].clip(1e-300))
    out = out.set_axis([*(c[2:] for c in columns), "together"], axis=1)
    return out.assign(smallest=out[[c[2:] for c in columns]].max(axis=1))


def search_of(example, archive):
    "The default search for one example, as a detector: fused ranks among steady lists."
    from xrt_nb.default_search import default_score
    from xrt_nb.shapes import search_features

    frame, asked = search_features(archive), search_features(example)
    judges = [(default_score(name).fit(frame), w) for name, w in (("label-free", 1), ("learned", 2))]
    of = [np.sort(judge.score(asked, frame)[0]) for judge, _ in judges]

    def scores(table):
        rows, fused = search_features(table), 0.0
        for (judge, weight), steady in zip(judges, of):
            mine = judge.score(asked, rows)[0]
            above = len(steady) - np.searchsorted(steady, mine, side="right")
            fused = fused - weight * np.log(10 + above) + 1e-6 * mine
        return pd.DataFrame({"search": fused}, index=table.ids)

    return scores


def one_efficiency(name, level, n, rate, seed):
    "Efficiency of every detector and of the search for one shape in one sort of list: tidy frame."
    from xrt_nb.injection import inject, recover

    shape, t90, fluences = SHAPES[name]
    counts = LEVELS[level]
    if shape == "dip":
        fluences = tuple(f for f in fluences if f < 0.6 * counts)
    events = steady_lists(2 * n, counts, seed)
    example = inject(steady_lists(1, 60 if shape != "dip" else 400, seed + 1), shape, 150, t90, random_state=seed)[0]
    search = search_of(example, steady_lists(2 * n, counts, seed + 2))
    return recover(events, lambda t: calibrated(t).join(search(t)), shape, fluences, t90, rate, random_state=seed)


def draw_efficiency(frame, folder, rate):
    "One figure per sort of list with a panel per shape, and one per detector with all shapes."
    from matplotlib.figure import Figure

    from xrt_nb.injection import plot_efficiency

    for level, part_ in frame.groupby("level", sort=False):
        fig = Figure(figsize=(17, 11), layout="constrained")
        for ax, (name, one) in zip(fig.subplots(2, 2).flat, part_.groupby("event", sort=False)):
            plot_efficiency(one, ax, rate).set_title(f"{name}, {level} lists ({LEVELS[level]} photons)")
            ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
        fig.savefig(folder / f"efficiency_{level}.png", dpi=80)
    for detector, part_ in frame.groupby("detector", sort=False):
        fig = Figure(figsize=(6, 4), layout="constrained")
        as_lines = part_.assign(detector=part_["event"] + ", " + part_["level"])
        plot_efficiency(as_lines, fig.subplots(), rate).set_title(detector)
        fig.savefig(folder / f"efficiency_of_{detector}.png", dpi=80)


@part
def efficiency(args):
    "Injected events found at one false-alarm rate: F50 and F90 of each detector, of all together, of the search."
    from xrt_nb.injection import fit_efficiency

    rate, n, out = 0.01, max(args.lists // 50, 200), []
    print(f"{n} lists get an event, {n} others set each threshold: {rate:g} false alarms per list")
    for j, level in enumerate(LEVELS):
        for k, name in enumerate(SHAPES):
            if (name, level) == ("dip", "faint"):
                continue  # 25 photons can't lose many
            found = one_efficiency(name, level, n, rate, 1000 * args.random_state + 10 * j + k)
            out.append(found.assign(event=name, level=level))
            fits = {d: fit_efficiency(t.set_index("fluence"), rate) for d, t in found.groupby("detector", sort=False)}
            print(f"{name} in {level} lists: F50 and F90 [photons]; false alarms reached")
            for d, f in fits.items():
                alarms = found[(found.detector == d) & (found.fluence == 0)].iloc[0]
                said = f.note or f"{f.f50:6.1f} ± {f.f50_error:4.1f} {f.f90:7.1f} ± {f.f90_error:4.1f}"
                print(f"  {d:18s}{said:32s}{share(alarms.found, alarms.injected)}")
            single = {d: f for d, f in fits.items() if d not in ("together", "smallest", "search") and np.isfinite(f.f50)}
            best, all_ = min(single, key=lambda d: single[d].f50), fits["together"]
            ratio = all_.f50 / single[best].f50
            error = ratio * np.hypot(all_.f50_error / all_.f50, single[best].f50_error / single[best].f50)
            print(f"  together needs {ratio:.2f} ± {error:.2f} times the photons of the best one, {best}, which only who "
                  f"knows what will come can choose; the smallest chance of all nine {fits['smallest'].f50 / single[best].f50:.2f}")
    if args.figures:
        args.figures.mkdir(exist_ok=True)
        draw_efficiency(pd.concat(out, ignore_index=True), args.figures, rate)
        print(f"figures in {args.figures}")


def half_found(hits, fluences, rate):
    "F50 [photons] of which events were found (fluences, lists); NaN where half are found at none."
    from xrt_nb.injection import efficiency_table, fit_efficiency

    return fit_efficiency(efficiency_table(np.repeat(fluences, hits.shape[1]), hits.ravel()), rate).f50


def hits_of(name, level, n, rate, seed):
    "By detector, which lists with an event are found (fluences, n), at thresholds that 20 n steady lists set."
    from xrt_nb.injection import inject, threshold_at

    shape, t90, fluences = SHAPES[name]
    if shape == "dip":
        fluences = tuple(f for f in fluences if f < 0.6 * LEVELS[level])
    steady = calibrated(steady_lists(20 * n, LEVELS[level], seed))
    tie = np.random.default_rng(seed)  # few photons make few chances; equal ones are told apart by a draw
    drawn = lambda frame: frame + 1e-6 * tie.random(frame.shape)
    steady = drawn(steady)
    limit, stricter = (steady.apply(lambda x: threshold_at(x.to_numpy(), r)) for r in (rate, rate / 3))
    hits = {d: [] for d in (*limit.index, *(f"{d}, a third" for d in limit.index))}
    for k, f in enumerate(fluences):
        lists = inject(steady_lists(n, LEVELS[level], seed + 1 + k), shape, f, t90, random_state=seed + k)[0]
        found = drawn(calibrated(lists))
        for d in found:
            hits[d].append((found[d] > limit[d]).to_numpy())
            hits[f"{d}, a third"].append((found[d] > stricter[d]).to_numpy())
    return np.array(fluences, float), {d: np.array(v) for d, v in hits.items()}


@part
def price(args):
    "What all together pay for not knowing what will come: photons needed over the best detector's, on the same lists."
    rate, n = 0.01, max(args.lists // 50, 100)
    print(f"{n} lists per fluence, {20 * n} others set each threshold: {rate:g} false alarms per list; errors by lists drawn again")
    for j, level in enumerate(LEVELS):
        for k, name in enumerate(SHAPES):
            if (name, level) == ("dip", "faint"):
                continue
            f, hits = hits_of(name, level, n, rate, 100_000 + 1000 * args.random_state + 100 * j + 10 * k)
            f50 = {d: half_found(h, f, rate) for d, h in hits.items() if "third" not in d}
            best = min((d for d in f50 if d not in ("together", "smallest") and np.isfinite(f50[d])), key=f50.get)
            asked = "together", "smallest", f"{best}, a third"
            rng, again = np.random.default_rng(args.random_state), []
            for _ in range(20):
                rows = rng.integers(0, n, n)
                one = [half_found(hits[d][:, rows], f, rate) for d in (*asked, best)]
                again.append(np.array(one[:3]) / one[3])
            ratios, errors = [half_found(hits[d], f, rate) / f50[best] for d in asked], np.std(again, axis=0)
            said = [f"{r:.3f} ± {e:.3f}" for r, e in zip(ratios, errors)]
            print(f"  {name:9s} in {level:6s} lists: best {best}, F50 {f50[best]:.1f}; all together {said[0]} times that, the smallest "
                  f"chance of the nine {said[1]}; the best one with a third of the false alarms {said[2]}", flush=True)


# ---- candidates
def real_candidates():
    "Candidates among the real lists by label, and those that should be and are not."
    from xrt_nb.candidates import find_candidates

    if (found := real_lists()) is None:
        return
    events, label = found
    frame = find_candidates(events, n_resamples=0)
    print(f"real lists: {frame.candidate.sum()} candidates at q < 0.05, p up to {frame.p[frame.candidate].max():.2g}; "
          f"chance would bring {len(frame) * frame.p[frame.candidate].max():.1f}")
    for name, part_ in frame.groupby(label):
        print(f"  {name:10s}{share(part_.candidate.sum(), len(part_))}")
    lost = frame[~frame.candidate & label.isin(["flare", "flares", "dip", "pulsar"])]
    for row in lost.itertuples():
        print(f"  not found: {row.Index} ({label[row.Index]}), {row.n_events} photons, p {row.p:.2g}, q {row.q:.2g}, "
              f"event of {row.fluence:.0f} ± {row.fluence_error:.0f} photons")


def digest(folder):
    "One hash of all files of a folder, names included."
    import hashlib

    out = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        out.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return out.hexdigest()


def timed(table, out, **options):
    "`write_candidates` with the time at which each step ends, CPU seconds and peak memory."
    from xrt_nb.cards import write_candidates

    start, wall, last = time.process_time(), time.perf_counter(), [None]

    def say(step, done, total):
        if done == total or step != last[0]:
            last[0] = step
            print(f"  {time.perf_counter() - wall:6.0f} s, {time.process_time() - start:6.0f} s CPU: {step} {done} of {total}", flush=True)

    write_candidates(table, out, progress=say, **options)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"  in all {time.perf_counter() - wall:.0f} s, {time.process_time() - start:.0f} s CPU; peak {peak:.2f} GB; "
          f"{sum(p.stat().st_size for p in out.rglob('*')) / 1e6:.0f} MB written")


@part
def candidates(args):
    "Time and memory of `write_candidates` on many lists, end to end; the same bytes twice; the real lists by label."
    import tempfile

    from xrt_nb.simulation import simulate_archive

    base, truth = simulate_archive(min(args.lists, 5_000), args.random_state, edition=2)
    many = repeated(base, args.lists)
    known = truth.loc[truth["known"], "kind"]
    known.index = [f"0{i}" for i in known.index]
    print(f"{len(many):,} lists, {many.n_events:,} photons, {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB "
          "with them in memory")
    with tempfile.TemporaryDirectory() as folder:
        timed(many, Path(folder) / "all", known=known)
        told = pd.read_parquet(Path(folder) / "all" / "detections.parquet", columns=["candidate"])
        print(f"{told.candidate.sum():,} candidates")
        few = many[: min(len(many), 1000)]
        for name in ("once", "again"):
            timed(few, Path(folder) / name, known=known, most=20, cards=10)
        same = digest(Path(folder) / "once") == digest(Path(folder) / "again")
        print(f"{len(few):,} lists twice: {'the same bytes' if same else 'NOT the same bytes'}")
    del many, base
    real_candidates()


def repeated(table, n):
    "A table of n lists: its own again and again, in other observations."
    from xrt_nb.data import concat

    whole, rest = divmod(n, len(table))
    out = []
    for k in range(whole + (rest > 0)):
        t = table if k < whole else table[:rest]
        ids, obsid = ([f"{k}{i}" for i in x] for x in (t.ids, t.meta["obsid"]))
        meta = t.meta.set_axis(ids).assign(obsid=obsid)
        out.append(EventTable(ids, t.offsets, t.time, t.energy, t.gti, t.gti_offsets, meta))
    return concat(out)


# ---- calibration
def by_counts(found, counts, names, levels=(0.1, 0.01, 0.001)):
    "Share of constant lists below each level over nominal, by detector and photons, with counting errors."
    for low, high in ((5, 10**9), (5, 30), (30, 60), (60, 150), (150, 500), (500, 10**9)):
        rows = ((counts >= low) & (counts < high)).to_numpy()
        if rows.sum() < 100:
            continue
        several = [f"{level:g}: ±{1 / np.sqrt(rows.sum() * level):.2f}" for level in levels]
        title = "all" if high - low > 10**8 and low == 5 else f"{low} to {high - 1} photons" if high < 10**9 else f"{low} photons or more"
        print(f"  {title}: {rows.sum():,} lists; share below p over nominal (counting error {', '.join(several)})")
        for name in names:
            ratio = [(found[name].to_numpy()[rows] < level).mean() / level for level in levels]
            print(f"    {name:18s}" + "  ".join(f"{r:6.2f}" for r in ratio))


@part
def calibration(args):
    "Chances of constant lists with real counts and good times, of real steady lists, speed and memory."
    from xrt_nb.detectors import LEAST
    from xrt_nb.nulls import false_alarm_probabilities, simulate_constant

    real = real_lists()
    if real is None:
        return
    events, label = real
    n_sims = -(-2 * args.lists // len(events))
    start = time.process_time()
    sim = simulate_constant(events, n_sims, random_state=args.random_state)
    print(f"{len(sim):,} constant lists simulated: {(time.process_time() - start) / len(sim) * 1e5:.1f} s CPU per 100,000")
    counts = pd.Series(sim.counts, sim.ids)
    false_alarm_probabilities(events[:20])
    start = time.process_time()
    found = false_alarm_probabilities(sim, random_state=args.random_state)
    took, peak = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{len(sim):,} constant lists with real counts and good times: {took / len(sim) * 1e5:.0f} s CPU per 100,000, "
          f"peak {peak:.2f} GB with the lists")
    names = [c for c in found if c.startswith("p_")] + ["p"]
    print(" randomized ties (the default)")
    by_counts(found, counts, names)
    strict = false_alarm_probabilities(sim, ties="conservative", random_state=args.random_state)
    print(" conservative ties, where they differ")
    by_counts(strict, counts, [c for c in names if not strict[c].equals(found[c])])
    again = false_alarm_probabilities(sim, random_state=args.random_state)
    print(" the same bytes twice:", again.equals(found))
    print(f" lists with q < 0.05 among the constant ones: {(found.q < 0.05).sum()}")
    for shorter in (1e3, 5e3, 2e5):
        live = pd.DataFrame({"n": np.clip(events.counts, LEAST, None)})
        gti = np.tile([[0.0, shorter]], (len(live), 1))
        lists = EventTable(events.ids, events.offsets, np.sort(np.zeros(events.n_events)), None, gti, np.arange(len(live) + 1))
        other = false_alarm_probabilities(simulate_constant(lists, max(n_sims // 4, 1), random_state=1))
        print(f" {shorter / 1e3:g} ks: {len(other):,} lists, p over nominal at 0.01, 0.001:",
              [f"{(other.p < a).mean() / a:.2f}" for a in (0.01, 0.001)],
              "windows", [f"{(other.p_windows < a).mean() / a:.2f}" for a in (0.01, 0.001)])
    judged = false_alarm_probabilities(events)
    print(" real lists by label: share with p < 0.01 and q < 0.05")
    for name, ids in label.groupby(label).groups.items():
        one = judged.loc[ids]
        print(f"  {name:18s}{share((one.p < 0.01).sum(), len(one))}   {share((one.q < 0.05).sum(), len(one))}")
    steady = judged.loc[label.index[label == "steady"]]
    print(" real steady lists, share over nominal at 0.1 and 0.01:")
    for name in names:
        print(f"  {name:18s}" + "  ".join(f"{(steady[name] < a).mean() / a:6.2f}" for a in (0.1, 0.01)))
    without_showers(events[steady.index.tolist()], steady)
    own_nulls(events, sim, args)


def without_showers(events, judged):
    "Real steady lists without those that the flag for single frames marks: share with p < 0.01 over nominal."
    from xrt_nb.flags import flag_table

    flagged = flag_table(events).flag_single_frame.to_numpy(bool, na_value=False)
    for title, keep in {"all": flagged | ~flagged, "not flagged single_frame": ~flagged}.items():
        one, n = judged[["p_scan_excess", "p"]][keep] < 0.01, keep.sum()
        print(f" real steady lists, {title}: {n}; over nominal at 0.01: " + ", ".join(
            f"{c} {v.mean() / 0.01:.2f} ± {np.sqrt(max(v.sum(), 1)) / n / 0.01:.2f}" for c, v in one.items()))


def own_nulls(events, sim, args):
    "Likeness to simulated bursts, and distance from the usual, on constant lists with real counts and good times."
    from xrt_nb.detectors import Analog, Outlier
    from xrt_nb.nulls import OwnNull
    from xrt_nb.simulation import simulate_source

    bursts = [simulate_source("burst", counts=40 + 20 * k, exposure=25_000, rng=k, id=f"known_{k}") for k in range(8)]
    some = sim[np.random.default_rng(args.random_state).permutation(len(sim))[: args.lists // 5].tolist()]
    scorers = {"analog": Analog().fit(EventTable.from_lists(bursts)), "outlier": Outlier()}
    found = pd.DataFrame({k: OwnNull(v).fit(events).chances(some) for k, v in scorers.items()})
    print(" own nulls (analog to eight simulated bursts; outlier)")
    by_counts(found, pd.Series(some.counts), list(found))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--lists", type=int, default=100_000)
    parser.add_argument("--random-state", type=int, default=0)
    parser.add_argument("--figures", type=Path, help="folder for the figures of the efficiency")
    args = parser.parse_args()
    for name in args.part:
        print(f"== {name}")
        PARTS[name](args)


if __name__ == "__main__":
    main()
