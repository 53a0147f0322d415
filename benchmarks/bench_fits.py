"""Reading event files against a bare astropy read, and ingest on one and two processes. Prints ratios; nothing here is a test.

    python benchmarks/bench_fits.py [--files 2000] [--rows 1000000]
"""
import argparse
import gzip
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from astropy.io import fits

from xrt_nb.data import XRTWarning, read_events
from xrt_nb.fits import read_event_list
from xrt_nb.ingest import ingest

NAMES = ("time", "ccd_id", "x", "y", "pha", "energy", "grade")


def best(*functions, n=15):
    "Shortest of n timings of each [s], taken in turns so that a busy machine is unfair to none."
    times = [[] for _ in functions]
    for _ in range(n):
        for f, spent in zip(functions, times):
            t = time.perf_counter()
            f()
            spent.append(time.perf_counter() - t)
    return [min(spent) for spent in times]


def bare(path, region=None):
    "The same columns of the same files by astropy alone: no check, no checksum, no cut."
    with fits.open(path) as f: out = [np.array(f["EVENTS"].data[c]) for c in NAMES] + [(np.array(h.data["START"]), np.array(h.data["STOP"])) for h in f if h.name == "GTI"]
    if region is None: return out
    with fits.open(region) as f: return out + [np.array(f["ECF90REGB"].data[c]) for c in ("SHAPE", "X", "Y", "R", "ROTANG", "COMPONENT")]


def acis_file(path, n, seed, obsid, spread=20):
    "A simulated ACIS file with the 17 columns of a real one."
    rng = np.random.default_rng(seed)
    t = np.sort(7e8 + rng.uniform(0, 3e4, n))
    cols = [("time", "D", "s", t), ("ccd_id", "I", None, np.full(n, 7)), ("node_id", "I", None, np.zeros(n)), ("expno", "J", None, (t - 7e8) // 3.2), ("chipx", "I", None, rng.integers(1, 1024, n)), ("chipy", "I", None, rng.integers(1, 1024, n)),
            ("detx", "E", None, rng.uniform(0, 8192, n)), ("dety", "E", None, rng.uniform(0, 8192, n)), ("x", "E", "pixel", rng.normal(4000, spread, n)), ("y", "E", "pixel", rng.normal(4000, spread, n)), ("pha", "J", None, rng.integers(30, 4000, n)),
            ("pha_ro", "J", None, rng.integers(30, 4000, n)), ("energy", "E", "eV", rng.lognormal(7.4, 0.7, n)), ("pi", "J", None, rng.integers(1, 1024, n)), ("fltgrade", "I", None, rng.integers(0, 255, n)), ("grade", "I", None, rng.integers(0, 7, n)),
            ("status", "32X", None, np.zeros((n, 32), dtype=bool))]
    ev = fits.BinTableHDU.from_columns([fits.Column(a, f, u, array=v) for a, f, u, v in cols], name="EVENTS")
    ev.header.update({"TELESCOP": "CHANDRA", "INSTRUME": "ACIS", "OBS_ID": str(obsid), "MJDREF": 50814.0, "TIMESYS": "TT", "TSTART": 7e8, "TSTOP": 7e8 + 3e4})
    for k in range(400): ev.header.add_history(f"simulated history card {k} of a real file's thousand")
    gti = fits.BinTableHDU.from_columns([fits.Column(c, "D", array=[v]) for c, v in (("START", 7e8), ("STOP", 7e8 + 3e4))], name="GTI")
    gti.header["CCD_ID"] = 7
    fits.HDUList([fits.PrimaryHDU(), ev, gti]).writeto(path, overwrite=True, checksum=True)
    return path


def reg_file(path):
    cols = [("SHAPE", "16A", ["Ellipse"]), ("X", "D", [4000.0]), ("Y", "D", [4000.0]), ("R", "2D", [[40.0, 30.0]]), ("ROTANG", "D", [30.0]), ("COMPONENT", "I", [1])]
    fits.BinTableHDU.from_columns([fits.Column(a, f, array=np.array(v)) for a, f, v in cols], name="ECF90REGB").writeto(path, overwrite=True)
    return path


def reading(tmp, rows):
    "Ratios of read_event_list to the bare read."
    warnings.simplefilter("ignore", XRTWarning)
    shared = Path(__file__).parent.parent / os.environ.get("XRT_NB_SHARED", "../shared") / "data" / "xrt200515"
    evt, reg = shared / "acisf23022_000N027_r0122_regevt3.fits.gz", shared / "acisf23022_000N020_r0122_reg3.fits.gz"
    pairs = [("XRT 200515, gz, with region file", evt, reg), ("XRT 200515, gz, no region", evt, None)] if evt.exists() else []
    r = reg_file(tmp / "big_reg3.fits")
    big = acis_file(tmp / "big.fits", rows, 1, 1, spread=600) # a field; the region holds about one event in a thousand
    (tmp / "big.fits.gz").write_bytes(gzip.compress(big.read_bytes(), 4))
    pairs += [(f"{rows:,} rows, plain, region", big, r), (f"{rows:,} rows, plain, all of it", big, None), (f"{rows:,} rows, gz, region", tmp / "big.fits.gz", r), ("200 rows, plain", acis_file(tmp / "small.fits", 200, 2, 2), r)]
    for name, path, region in pairs:
        a, b = best(lambda: read_event_list(path, region), lambda: bare(path, region), n=3 if "gz, region" in name and "000" in name else 15)
        print(f"{name:36} read_event_list {a * 1e3:8.1f} ms, bare astropy {b * 1e3:8.1f} ms, ratio {a / b:.2f}")


def ingesting(tmp, n):
    "Ingest n small files with one process and with two; kill one and go on."
    folder = tmp / "many"
    folder.mkdir()
    first = acis_file(folder / "acisf00001_000N001_r0001_regevt3.fits", 200, 3, 1).read_bytes()
    region = reg_file(folder / "acisf00001_000N001_r0001_reg3.fits").read_bytes()
    for k in range(2, n + 1):
        (folder / f"acisf{k:05d}_000N001_r0001_regevt3.fits").write_bytes(first)
        (folder / f"acisf{k:05d}_000N001_r0001_reg3.fits").write_bytes(region)
    seconds, busy = {}, {}
    for jobs in (1, 2) * 4:
        t, c = time.perf_counter(), os.times()
        done = ingest(folder, tmp / f"out{jobs}.parquet", n_jobs=jobs, progress=False, overwrite=True)
        seconds[jobs] = min(seconds.get(jobs, 1e9), time.perf_counter() - t)
        d = os.times()
        busy[jobs] = min(busy.get(jobs, (1e9, 0)), (d.user + d.system - c.user - c.system, d.children_user + d.children_system - c.children_user - c.children_system))
    same = (tmp / "out1.parquet").read_bytes() == (tmp / "out2.parquet").read_bytes()
    print(f"ingest of {n} files: {seconds[1]:.1f} s with one process, {seconds[2]:.1f} s with two, ratio {seconds[1] / seconds[2]:.2f}; same bytes: {same}; {done.n_sources} sources")
    print(f"  processor time of this process {busy[1][0]:.1f} s alone; {busy[2][0]:.1f} s beside a worker with {busy[2][1]:.1f} s: ratio on two idle cores about {busy[1][0] / max(busy[2]):.2f}")
    out = tmp / "killed.parquet"
    code = f"from xrt_nb.ingest import ingest; ingest({str(folder)!r}, {str(out)!r}, n_jobs=2, progress=False)"
    p = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    parts = tmp / "killed.parquet.parts"
    while p.poll() is None and len(list(parts.glob("note-*.json"))) < n // 100: time.sleep(0.02)
    os.kill(p.pid, signal.SIGKILL)
    p.wait()
    left = len(list(parts.glob("note-*.json")))
    t = time.perf_counter()
    ingest(folder, out, n_jobs=2, progress=False)
    print(f"killed after {left} of {n // 50} parts, then taken up in {time.perf_counter() - t:.1f} s; same bytes as the uninterrupted run: {out.read_bytes() == (tmp / 'out1.parquet').read_bytes()}")
    t = time.perf_counter()
    some = read_events(out, ids=[f"{n // 2}_1"])
    print(f"one source of the archive read back in {(time.perf_counter() - t) * 1e3:.0f} ms ({some.n_events} photons)")


if __name__ == "__main__":
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("--files", type=int, default=2000)
    a.add_argument("--rows", type=int, default=1_000_000)
    o = a.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        reading(Path(tmp), o.rows)
        ingesting(Path(tmp), o.files)
