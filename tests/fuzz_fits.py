"""Break an event file in a thousand ways, always the same ones, and see what reading makes of it.

    python tests/fuzz_fits.py [--seed 1] [--n 400] [--every 5]    prints a table of outcomes; used by test_fits_fuzz.py

Every broken file must end in one of three ways: the very events of the whole file; a list together with a warning; or an
`EventFileError` that names the file. It may take no more than 5 s, and all of it together no more than 1 GB of memory.
"""
import argparse
import collections
import gzip
import hashlib
import io
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from astropy.io import fits

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # also when it is run as a program

from tests.support.fuzzing import peak_memory  # noqa: E402
from xrt_nb.data import XRTWarning  # noqa: E402
from xrt_nb.fits import EventFileError, read_event_list, read_response  # noqa: E402
from xrt_nb.regions import Region  # noqa: E402

REGION = Region([[(True, "circle", (500, 500, 300))]])


def base_file(checksum, n=500):
    "The bytes of a good file."
    rng = np.random.default_rng(3)
    t = np.sort(1e8 + rng.uniform(0, 1e4, n))
    cols = [("time", "D", "s", t), ("ccd_id", "I", None, np.where(np.arange(n) % 9, 7, 6)), ("x", "E", "pixel", rng.uniform(0, 1000, n)), ("y", "E", "pixel", rng.uniform(0, 1000, n)), ("pha", "J", None, rng.integers(20, 900, n)),
            ("energy", "E", "eV", rng.lognormal(7.4, 0.8, n)), ("grade", "I", None, rng.integers(0, 7, n)), ("status", "32X", None, np.zeros((n, 32), bool))]
    ev = fits.BinTableHDU.from_columns([fits.Column(a, f, u, array=v) for a, f, u, v in cols], name="EVENTS")
    ev.header.update({"TELESCOP": "CHANDRA", "INSTRUME": "ACIS", "OBS_ID": "4711", "MJDREF": 50814.0, "TIMESYS": "TT", "TIMEUNIT": "s", "TIMEZERO": 0.0, "TSTART": 1e8, "TSTOP": 1e8 + 1e4, "DTCOR": 0.98,
                      "TCTYP3": "RA---TAN", "TCTYP4": "DEC--TAN", "TCRVL3": 10.0, "TCRVL4": 20.0, "TCRPX3": 500.5, "TCRPX4": 500.5, "TCDLT3": -1.4e-4, "TCDLT4": 1.4e-4})
    hdus = [fits.PrimaryHDU(), ev]
    for chip, rows in ((6, [(0, 1e4)]), (7, [(0, 4e3), (5e3, 1e4)])):
        h = fits.BinTableHDU.from_columns([fits.Column(c, "D", "s", array=1e8 + np.array(rows)[:, k]) for k, c in enumerate(("START", "STOP"))], name="GTI", ver=chip)
        h.header["CCD_ID"] = chip
        hdus.append(h)
    out = io.BytesIO()
    fits.HDUList(hdus).writeto(out, checksum=checksum)
    return out.getvalue()


def _card(data, key, value):
    "Replace the value of the first card with this keyword; strings as given."
    i = data.index(key.ljust(8).encode() + b"=")
    return data[:i] + f"{key:<8}= {value:>20}".ljust(80).encode()[:80] + data[i + 80:]


def _edit(data, change):
    "Change the parsed file with astropy and write it again."
    with fits.open(io.BytesIO(data)) as f:
        change(f)
        out = io.BytesIO()
        f.writeto(out, output_verify="ignore")
    return out.getvalue()


def mutants(seed, n):
    "Yield (kind, bytes, gz?, may the events differ silently?)."
    rng = np.random.default_rng(seed)
    plain, summed = base_file(False), base_file(True)
    header = [i for i in range(2880, len(plain), 80) if plain[i:i + 3] == b"TTY"][0] // 2880 * 2880
    for k in range(0, len(plain), 1440): yield "cut short", plain[:k], False, False
    packed = gzip.compress(plain, mtime=0)
    for k in np.linspace(0, len(packed) - 1, 25).astype(int): yield "gzip cut short", packed[:k], True, False
    for bad in ("'1Z      '", "'2D      '", "'1K      '", "'8A      '", "'2E      '", "'999999D '", "'        '", "'PD(9)   '", "-5", "'1L      '"):
        for col in (1, 2, 4, 5, 6): yield "wrong TFORM", _card(plain, f"TFORM{col}", bad), False, False
    for key, values in {"NAXIS2": (0, -1, 499, 490, 501, 10**6, 10**12, 10**19, "T", "'many'", 1.5), "NAXIS1": (0, 35, 37, -36, 10**9), "PCOUNT": (-1, 10**12, 8), "GCOUNT": (0, 5, -1), "BITPIX": (16, -64, 0), "NAXIS": (0, 1, 3, 999, -1),
                        "TFIELDS": (0, 3, 9, 10**6, -2), "XTENSION": ("'IMAGE   '", "'JUNK    '", 7), "TELESCOP": ("'LYNX    '", 3), "MJDREF": ("'x'", -1e400, "NaN"), "TIMEZERO": ("'x'", 1e9), "TIMEUNIT": ("'h'",), "EXTNAME": ("'EVENTZ  '", 5),
                        "TTYPE1": ("'tame    '", "'energy  '", 4), "TUNIT6": ("'erg     '", "'keV     '"), "TCTYP3": ("'FOO     '", "'DEC--TAN'", 3), "TCDLT3": (0.0, "NaN"), "DTCOR": (7, "'x'")}.items():
        for v in values: yield "header card", _card(plain, key, v), False, (key, v) in (("TUNIT6", "'keV     '"), ("TIMEZERO", 1e9), ("NAXIS2", 0))
    def times(v): return lambda f: f["EVENTS"].data["time"].__setitem__(rng.integers(0, 500, 3), v)
    for v in (np.nan, np.inf, -np.inf): yield "bad times", _edit(plain, times(v)), False, False
    def gti(k, col, v): return lambda f: f[k].data[col].__setitem__(0, v)
    for k, col, v in ((2, "START", np.nan), (3, "STOP", 0.0), (3, "START", 2e9), (2, "STOP", np.inf), (3, "STOP", -np.inf)): yield "bad GTI", _edit(plain, gti(k, col, v)), False, False
    for k in (2, 3): yield "missing GTI", _edit(plain, lambda f, k=k: f.pop(k)), False, False
    def none(f): del f[2:]
    yield "missing GTI", _edit(plain, none), False, False
    def swapped(f): f.insert(1, f.pop(3))
    yield "GTI first", _edit(plain, swapped), False, False
    def empty(f): f[1] = fits.BinTableHDU(f[1].data[:0], f[1].header)
    yield "zero rows", _edit(plain, empty), False, True
    for junk in (b"", b"S", b"SIMPLE", b"SIMPLE  = ", b"\x89PNG\r\n", b"%PDF-1.4", b"PK\x03\x04" + bytes(99), b"\0" * 5760, b"time,energy\n1,2\n", rng.bytes(50_000), plain[:2880] + rng.bytes(9_999), b"\x1f\x8b", b"\x1f\x8b" + rng.bytes(500)): yield "not FITS", junk, False, False
    zeros = bytes(1 << 22)
    def bomb(head, blocks):
        out = io.BytesIO()
        with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=9, mtime=0) as g:
            g.write(head)
            for _ in range(blocks): g.write(zeros)
        return out.getvalue()
    for rows_ in (10**8, 10**12): yield "gz bomb", bomb(_card(plain[:header + 5760], "NAXIS2", rows_), 200), True, False
    yield "gz bomb", bomb(plain, 150), True, False
    yield "gz bomb", bomb(b"", 150), True, False
    fixed = 0
    while fixed < max(n - 260, 60):
        fixed += 1
        what = fixed % 4
        data = bytearray(summed if what in (0, 1) else plain)
        if what in (0, 2): # a card of the events' header
            i = header + 80 * int(rng.integers(0, 60)) + int(rng.integers(0, 40))
            data[i] = int(rng.integers(32, 127))
            yield "flipped card" + (" (checksum)" if what == 0 else ""), bytes(data), False, False
        elif what == 1:
            data[int(rng.integers(8640, len(data)))] ^= 1 << int(rng.integers(0, 8))
            yield "flipped bit (checksum)", bytes(data), False, False
        else:
            squeezed = bytearray(packed)
            squeezed[int(rng.integers(10, len(squeezed)))] ^= 1 << int(rng.integers(0, 8))
            yield "flipped bit of gzip", bytes(squeezed), True, False


def outcome(path, whole):
    "What reading a file came to: same, warned, error; or what must not be."
    t = time.perf_counter()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try: ev, err = read_event_list(path, REGION), None
        except EventFileError as e: ev, err = None, e
        except BaseException as e: return f"LEAKED {type(e).__name__}: {e}", time.perf_counter() - t
    took = time.perf_counter() - t
    if took > 5: return f"SLOW {took:.1f} s", took
    if other := [w for w in said if not issubclass(w.category, XRTWarning)]: return f"LEAKED {other[0].category.__name__}: {other[0].message}", took
    if err is not None: return ("error" if str(path) in str(err) else f"UNNAMED {err}") + (f" UNFORESEEN {err}" if "unforeseen" in str(err) else ""), took
    if said: return "warned", took
    return ("same" if np.array_equal(ev.time, whole.time) and np.array_equal(ev.energy, whole.energy) and np.array_equal(ev.gti, whole.gti) else f"DIFFERENT {len(ev)} events, not {len(whole)}"), took


def many_tables(n=200):
    "Three tables of events with clocks of their own, and two of good times, all with checksums."
    rng, zero = np.random.default_rng(4), 1e8
    out = io.BytesIO()
    hdus = [fits.PrimaryHDU()]
    for k, (day, unit) in enumerate(((50814, 1.0), (50815, 1.0), (50814, 3600.0))):
        t = (np.sort(zero + rng.uniform(0, 1e4, n)) - 86400 * (day - 50814)) / unit
        cols = [("time", "D", {1.0: "s", 3600.0: "h"}[unit], t), ("pi", "I", None, rng.integers(60, 700, n)), ("event_flags", "8X", None, np.tile([0, 0, 0, 1, 1, 0, 0, 0], (n, 1)).astype(bool)),
                ("x", "E", None, rng.uniform(0, 1000, n)), ("y", "E", None, rng.uniform(0, 1000, n))]
        ev = fits.BinTableHDU.from_columns([fits.Column(a, f, u, array=v) for a, f, u, v in cols], name="EVENTS", ver=k + 1)
        ev.header.update({"TELESCOP": "NICER", "INSTRUME": "XTI", "OBS_ID": "4711", "MJDREFI": day, "MJDREFF": 0.25, "TIMESYS": "TT", "TIMEUNIT": "s", "TIMEZERO": 0.5, "RA_OBJ": 83.6, "DEC_OBJ": 22.0,
                          "EQUINOX": 1950.0, "EXPOSURE": 9e3, "TLMIN2": 0, "TLMAX2": 1500})
        hdus.append(ev)
    for name, rows in (("GTI", [(0, 4e3), (5e3, 9e3)]), ("GTI_EXTRA", [(0, 1e4)])):
        g = fits.BinTableHDU.from_columns([fits.Column(c, "D", "d", array=(zero + np.array(rows)[:, k]) / 86400) for k, c in enumerate(("START", "STOP"))], name=name)
        g.header.update({"MJDREF": 50814.25, "TIMESYS": "TT", "TIMEZERO": 0.5, "TIMEUNIT": "s"})
        hdus.append(g)
    fits.HDUList(hdus).writeto(out, checksum=True)
    return out.getvalue()


def response(extension="EBOUNDS", n=64):
    "A response with a matrix of variable length and a table of channels, or an effective area; with checksums."
    low = np.arange(n) * 10.0 / 1e3
    out, hdus = io.BytesIO(), [fits.PrimaryHDU()]
    keys = {"TELESCOP": "NICER", "INSTRUME": "XTI", "CHANTYPE": "PI", "DETCHANS": n}
    if extension == "EBOUNDS":
        rows = np.empty(n, dtype=object)
        for k in range(n): rows[k] = np.ones(k % 5 + 1, "f4")
        hdus.append(fits.BinTableHDU.from_columns([fits.Column("ENERG_LO", "E", "keV", array=low), fits.Column("MATRIX", "PE()", array=rows)], name="MATRIX"))
        cols = [("CHANNEL", "J", None, np.arange(n)), ("E_MIN", "E", "keV", low), ("E_MAX", "E", "keV", low + 0.01)]
    else: cols = [("ENERG_LO", "E", "keV", low), ("ENERG_HI", "E", "keV", low + 0.01), ("SPECRESP", "E", "cm**2", np.ones(n))]
    hdus.append(fits.BinTableHDU.from_columns([fits.Column(a, f, u, array=v) for a, f, u, v in cols], name=extension))
    for h in hdus[1:]: h.header.update(keys)
    fits.HDUList(hdus).writeto(out, checksum=True)
    return out.getvalue()


def digest(*arrays): return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()


def read_list(path):
    "What reading an event file gives, in one line."
    ev = read_event_list(path, REGION)
    return f"{len(ev)} events {digest(ev.time, ev.energy, ev.gti)} {ev.id} {ev.meta['ra']} {ev.meta['dec']} {ev.meta['livetime']}"


def read_rmf(path):
    "What reading a response gives, in one line."
    r = read_response(path)
    return f"{r.telescope} {r.instrument} {r.kind} {digest(r.channel, r.low, r.high)}"


def run(seed=1, n=400, every=1):
    "Read all mutants, or one in so many; return (kind, outcome, seconds) of each, and the peak of memory [MB]."
    results = []
    with tempfile.TemporaryDirectory() as tmp:
        good = Path(tmp) / "good.fits"
        good.write_bytes(base_file(False))
        whole = read_event_list(good, REGION)
        for k, (kind, data, gz, free) in enumerate(mutants(seed, n)):
            if k % every: continue
            path = Path(tmp) / f"mutant{k:04d}.fits{'.gz' if gz else ''}"
            path.write_bytes(data)
            what, took = outcome(path, whole)
            if free and what.startswith("DIFFERENT"): what = "different, as the header truly says"
            results.append((kind, what, took))
            path.unlink()
    return results, peak_memory()


if __name__ == "__main__":
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("--seed", type=int, default=1)
    a.add_argument("--n", type=int, default=400)
    a.add_argument("--every", type=int, default=1)
    a.add_argument("--json", action="store_true")
    o = a.parse_args()
    results, peak = run(o.seed, o.n, o.every)
    if o.json: json.dump({"results": results, "peak": peak}, sys.stdout)
    else:
        table = collections.Counter((kind, what.split(":")[0][:90]) for kind, what, _ in results)
        for (kind, what), m in sorted(table.items()): print(f"{kind:24} {m:4d}  {what}")
        print(f"{len(results)} files, slowest {max(r[2] for r in results):.2f} s, peak memory {peak:.0f} MB")
