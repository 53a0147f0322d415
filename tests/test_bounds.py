"Hostile tables: compiled loops give an error of ours or the right numbers, never those of a neighbour, never a crash."
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from xrt_nb.data import EventTable, XRTError, XRTWarning, checked_clock
from xrt_nb.features import summary_features
from xrt_nb.invariant import AlignedMap, PeakSpectrum, SortedProfile, WaveletPower
from xrt_nb.pairs import PairMap, pair_quality
from xrt_nb.properties import catalog_columns, gregory_loredo_table
from xrt_nb.representations import EtDtCube, EtMap, quality_table
from xrt_nb.shapes import SearchFeatures

AXES = ("events", "exposure", "livetime")
DOORS = {
    "summary": summary_features,
    "map": lambda t, axis: EtMap(time_axis=axis).transform(t),
    "cube": lambda t, axis: EtDtCube(time_axis=axis, sparse=False, n_time=6, n_energy=5, n_dt=7).transform(t),
    "log cube": lambda t, axis: EtDtCube(time_axis=axis, sparse=False, n_time=6, n_energy=5, n_dt=7, dt_scale="log").transform(t),
    "pairs": lambda t, axis: PairMap(time_axis=axis, output="excess").transform(t),
    "few pairs": lambda t, axis: PairMap(time_axis=axis, max_pairs=3).transform(t),
    "pair quality": pair_quality,
    "quality": lambda t, axis: quality_table(t, time_axis=axis),
    "sorted": lambda t, axis: SortedProfile(time_axis=axis, n_times=(12, 24)).transform(t),
    "aligned": lambda t, axis: AlignedMap(time_axis=axis).transform(t),
    "wavelets": lambda t, axis: WaveletPower(time_axis=axis).transform(t),
    "peak": lambda t, axis: PeakSpectrum(time_axis=axis).transform(t),
    "shapes": lambda t, axis: SearchFeatures().fit_transform(t),
    "odds": lambda t, axis: gregory_loredo_table(t, m_max=40, time_axis=axis),
    "catalog": lambda t, axis: catalog_columns(t, m_max=40, time_axis=axis),
}


def times(rng):
    "Times of one source, of every kind that a broken file may hold."
    n = int(rng.choice([0, 1, 2, 3, 30, 300]))
    kind = rng.integers(9)
    if kind == 0: return np.full(n, rng.choice([0.0, 7e8, -1e300]))
    if kind == 1: return np.sort(rng.choice([-1.7e308, -1e300, 0.0, 5e-324, 1e300, 1.7e308], n))
    if kind == 2: return np.sort(rng.uniform(0, 5e-310, n))
    if kind == 3: return 7e8 + np.sort(rng.integers(0, 5, n)) * np.spacing(7e8)
    if kind == 4: return np.sort(np.r_[rng.uniform(0, 1e4, n // 2), 1e18 * np.ones(n - n // 2)])
    if kind == 5: return np.sort(rng.uniform(-1e4, 3e4, n))
    return np.sort(rng.uniform(0, 1e4, n))


def intervals(rng, t):
    "Good times beside those photons: around them, partly, elsewhere, of one unit in the last place, none."
    kind = rng.integers(6)
    if kind == 0: return np.empty((0, 2))
    if kind == 1 and len(t) and t[-1] > t[0]: return np.array([[t[0], t[-1]]])
    if kind == 2 and len(t): return np.array([[t[0], np.nextafter(t[0], np.inf)], [np.nextafter(t[0], np.inf), max(t[-1], t[0] + 1) * (1 + 1e-12) + 1]])
    if kind == 3: return np.array([[2e3, 3e3], [3e3, 4e3], [9e3, 1e4]])
    if kind == 4: return np.array([[5e5, 6e5]])
    return np.array([[0.0, 1e4]])


def hostile(seed):
    "A table that no well-behaved reader would make, or the reason why even the constructor refuses it."
    rng = np.random.default_rng(seed)
    lists = [times(rng) for _ in range(rng.integers(1, 6))]
    gti = [intervals(rng, t) for t in lists] if rng.random() < 0.6 else None
    meta = None
    if rng.random() < 0.6:
        wrong = [0.0, 1e4, -1.0, 5e3, np.nan, np.inf, -1.7e308, 1.7e308, "noon", None, 7e8]
        meta = pd.DataFrame({c: pd.Series([wrong[i] for i in rng.integers(0, len(wrong), len(lists))], dtype=object) for c in ("t_start", "t_stop")})
        if rng.random() < 0.5: meta = pd.DataFrame({"t_start": rng.choice([0.0, 5e3], len(lists)), "t_stop": 1e4})
        meta.index = [str(k) for k in range(len(lists))]
    t = np.concatenate(lists)
    energy = None if rng.random() < 0.2 else rng.choice([5e-324, 499.9, 500.0, 1234.5, 7000.0, 1.7e308], len(t))
    off = lambda parts: np.r_[0, np.cumsum([len(p) for p in parts])]
    table = EventTable([str(k) for k in range(len(lists))], off(lists), t, energy, None if gti is None else np.concatenate(gti), None if gti is None else off(gti), meta)
    if rng.random() < 0.3 and table.n_events:  # changed after it was made
        table.time[rng.integers(table.n_events)] = rng.choice([np.nan, np.inf, -1e9, 1e9])
    elif rng.random() < 0.2: table.offsets = table.offsets + rng.choice([-1, 1, 10**6])
    elif rng.random() < 0.1 and energy is not None: table.energy = table.energy[:-1]
    return table


def judge(table, name, axis):
    "None after an error of ours, otherwise the finite result, the same as that of the first source alone."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XRTWarning)
        try: out = DOORS[name](table, axis)
        except XRTError: return None
        alone = DOORS[name](table[[0]], axis) if len(table) > 1 else out
    rows, own = (np.asarray(x.to_numpy(dtype=float) if hasattr(x, "to_numpy") else x, dtype=float) for x in (out, alone))
    assert len(rows) == len(table)
    if name != "catalog": assert np.isfinite(rows).all()
    assert np.allclose(rows[0], own[0], rtol=1e-5, atol=1e-6, equal_nan=True)  # float32 maps, and sums in another order
    return rows


def judge_all(seeds):
    "How many of the answers were numbers and how many refusals."
    answers, refusals = 0, 0
    for seed in seeds:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", XRTWarning)
            try: table = hostile(seed)
            except XRTError:
                refusals += 1
                continue
        for name in DOORS:
            for axis in AXES:
                done = judge(table, name, axis) is not None
                answers, refusals = answers + done, refusals + (not done)
    return answers, refusals


def test_hostile_tables_are_refused_or_right():
    answers, refusals = judge_all(range(40))
    assert answers > 200 and refusals > 200


@pytest.mark.slow
def test_many_hostile_tables():
    answers, refusals = judge_all(range(1000, 1400))
    assert answers > 2000 and refusals > 2000


@pytest.mark.parametrize("seed", range(200))
def test_the_clock_is_inside_its_axis(seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XRTWarning)
        try: table = hostile(seed)
        except XRTError: return
    for axis in AXES:
        try: clock, start, width = checked_clock(table, axis)
        except XRTError: continue
        assert np.isfinite(width).all() and (width >= 0).all()
        own = np.repeat(np.arange(len(table)), table.counts)
        assert ((clock >= start[own]) & (clock - start[own] <= width[own])).all()
        if axis != "events": assert (np.abs(width - np.array([table[i].livetime if axis == "livetime" else np.diff(table[i].window)[0] for i in table.ids])) <= 1e-9 * width).all()


def test_what_crashed_before():
    "The four cases that wrote outside their arrays: no good times, wrong times in meta, late headers, extreme times."
    n, rng = 400, np.random.default_rng(0)
    t, e, meta = np.sort(rng.uniform(0, 1e4, n)), rng.uniform(500, 7000, n), pd.DataFrame({"t_start": [5e3], "t_stop": [1e4]}, ["a"])
    late = EventTable(["a"], [0, n], t, e, meta=meta)
    for name in ("summary", "odds", "catalog", "sorted", "wavelets"):
        for axis in ("exposure", "livetime"):
            with pytest.raises(XRTError, match="detection 'a': .* of 400 events .* lie outside its exposure"): DOORS[name](late, axis)
    with pytest.raises(XRTError, match="unknown"): summary_features(EventTable(["a"], [0, n], t, e))
    extreme = EventTable(["x"], [0, 4], [-1.7e308, -1, 1, 1.7e308], [900.0] * 4)
    for name in DOORS:
        with pytest.raises(XRTError, match="detection 'x'"): DOORS[name](extreme, "events")


def in_checked_process(*arguments):
    "Run pytest in a process in which numba looks at every index."
    root = Path(__file__).parent.parent
    env = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "XRT_NB_INNER": "1", "PYTHONPATH": str(root)}
    return subprocess.run([sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *arguments], cwd=root, env=env, capture_output=True, text=True)


ROOMS = ["bounds", "representations", "pairs", "invariant", "features", "properties", "shapes"]


@pytest.mark.slow
@pytest.mark.skipif("XRT_NB_INNER" in os.environ, reason="already inside")
def test_the_loops_with_bounds_checked(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))  # machine code made without the check must not be used
    out = in_checked_process("-m", "not slow", *(f"tests/test_{r}.py" for r in ROOMS))
    assert out.returncode == 0, out.stdout[-3000:] + out.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.skipif("XRT_NB_INNER" in os.environ, reason="already inside")
def test_the_check_would_be_noticed(tmp_path):
    probe = tmp_path / "probe.py"
    probe.write_text("import numpy as np\nfrom xrt_nb.representations import _range\n_range(np.zeros(2), np.ones(2, bool), 0, 3)\n")
    env = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parent.parent)}
    assert "IndexError" in subprocess.run([sys.executable, str(probe)], env=env, capture_output=True, text=True).stderr
