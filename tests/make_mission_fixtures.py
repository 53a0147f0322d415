"""Small event files in the format of each mission, with what reading them must give.

For missions without a real file at hand these are put together from the missions' published format documents (column names, units,
keywords, names of the GTI extensions, meaning of the flags); they are simulated, and every number in them is random with a fixed seed.
The expected energies and counts are computed here on their own, without the reader's table of missions.

    python tests/make_mission_fixtures.py FOLDER
"""
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from astropy.io import fits

N, T0, SPAN = 400, 1.0e8, 10_000.0


@dataclass
class Case:
    "One simulated file and the truth about it."
    mission: str # the row it must be recognised as
    keys: dict # header of the events table
    columns: dict # name -> (FITS format, unit, values)
    gtis: dict = field(default_factory=lambda: {"GTI": [(0, SPAN)]}) # extension -> intervals since T0 [s]
    gti_keys: dict = field(default_factory=dict) # extension -> further header cards
    energy: np.ndarray | None = None # (N,) energies that reading must give [eV]
    quality: np.ndarray | None = None # (N,) bool, events that pass the filter
    good: np.ndarray | None = None # (N,) bool, events in good time
    livetime: float | None = None # [s]
    primary: dict = field(default_factory=dict)
    path: Path | None = None


def _base(seed, telescope, instrument, mjdref, **keys):
    "Random times and positions, and the keywords every event file has."
    rng = np.random.default_rng(seed)
    ref = {"MJDREF": mjdref} if np.isscalar(mjdref) else dict(zip(("MJDREFI", "MJDREFF"), mjdref))
    head = {"TELESCOP": telescope, "INSTRUME": instrument, "OBS_ID": "0099000101", "OBJECT": "simulated", **ref, "TIMESYS": "TT", "TIMEUNIT": "s", "TIMEZERO": 0.0, "TSTART": T0, "TSTOP": T0 + SPAN, **keys}
    t = np.sort(rng.uniform(0, SPAN, N))
    xy = {"X": ("E", "pixel", rng.uniform(0, 500, N)), "Y": ("E", "pixel", rng.uniform(0, 500, N))}
    return rng, head, t, {"TIME": ("D", "s", T0 + t)} | xy


def _inside(t, rows): return np.any([(t >= a) & (t < b) for a, b in rows], axis=0)


def hrc():
    rng, head, t, cols = _base(1, "CHANDRA", "HRC", 50814.0, DETNAM="HRC-I", DTCOR=0.99)
    cols |= {"PHA": ("I", None, rng.integers(0, 256, N)), "PI": ("I", None, rng.integers(0, 1024, N)), "CHIP_ID": ("I", None, np.zeros(N))}
    return Case("Chandra HRC", head, cols, {"GTI": [(0, 4000), (5000, SPAN)]}, good=_inside(t, [(0, 4000), (5000, SPAN)]), livetime=9000 * 0.99)


def xmm(camera, seed):
    rng, head, t, cols = _base(seed, "XMM", camera, 50814.0, DATAMODE="IMAGING")
    pi, ccd = rng.integers(150, 12000, N), rng.integers(1, 4, N)
    bad = {"EPN": 0x1, "EMOS1": 0x10000}[camera] # pn keeps FLAG == 0; MOS forgives some bits, but not this one
    forgiven = {"EPN": 0, "EMOS1": 0x1}[camera]
    flag, pattern = rng.choice([0, forgiven, 0x20000000 if camera == "EMOS1" else bad], N), rng.integers(0, 14, N)
    cols |= {"PI": ("J", "CHAN", pi), "FLAG": ("J", None, flag), "PATTERN": ("B", None, pattern), "CCDNR": ("B", None, ccd)}
    gtis = {"STDGTI01": [(0, SPAN)], "STDGTI02": [(0, 3000), (4000, SPAN)], "STDGTI03": [(2000, SPAN)]}
    good = np.any([(ccd == c) & _inside(t, gtis[f"STDGTI0{c}"]) for c in (1, 2, 3)], axis=0)
    quality = (flag == 0) & (pattern <= 4) if camera == "EPN" else (flag != 0x20000000) & (pattern <= 12)
    return Case("XMM EPIC-pn" if camera == "EPN" else "XMM EPIC-MOS", head, cols, gtis, energy=pi * 1.0, quality=quality, good=good, livetime=SPAN)


def xmm_filtered():
    "A pn file filtered against flares: the events' header says which table is for which CCD."
    case = xmm("EPN", 4)
    ccd, t = case.columns["CCDNR"][2], case.columns["TIME"][2] - T0
    case.keys |= {"DSTYP1": "CCDNR", "DSTYP2": "TIME"}
    for k, c in enumerate((1, 2, 3)):
        p = "" if k == 0 else str(k + 1)
        case.keys |= {f"{p}DSVAL1": str(c), f"{p}DSREF2": f":GTI0000{9 - c}", f"{p}DSVAL2": "TABLE"}
    case.gtis = {f"GTI0000{9 - c}": [(1000 * c, SPAN)] for c in (1, 2, 3)}
    case.good, case.livetime = np.any([(ccd == c) & (t >= 1000 * c) for c in (1, 2, 3)], axis=0), SPAN - 1000
    return case


def swift(mode, seed):
    rng, head, t, cols = _base(seed, "SWIFT", "XRT", (51910, 7.4287037e-4), DATAMODE=mode)
    pi, grade, status = rng.integers(30, 1000, N), rng.integers(0, 33 if mode == "PHOTON" else 16, N), rng.choice([0, 0, 0, 1, 32], N)
    cols |= {"PI": ("J", "chan", pi), "GRADE": ("I", None, grade), "STATUS": ("16X", None, ((status[:, None] >> np.arange(15, -1, -1)) & 1).astype(bool))}
    return Case("Swift XRT PC" if mode == "PHOTON" else "Swift XRT WT", head, cols, {"GTI": [(0, 900), (6000, 7500)]}, energy=pi * 10.0,
                quality=(status == 0) & (grade <= (12 if mode == "PHOTON" else 2)), good=_inside(t, [(0, 900), (6000, 7500)]), livetime=2400)


def erosita():
    rng, head, t, cols = _base(7, "eROSITA", "merged", 51543.875)
    pi, tm, flag, typ = rng.uniform(-500, 9000, N), rng.integers(1, 4, N), rng.choice([0, 0, 0x80000000, 0x10, 0x1], N).astype("u4").view("i4"), rng.integers(-1, 5, N)
    cols |= {"PI": ("E", "eV", pi), "TM_NR": ("B", None, tm), "FLAG": ("J", None, flag), "PAT_TYP": ("I", None, typ)}
    gtis = {"GTI1": [(0, SPAN)], "GTI2": [(0, 5000)], "GTI3": [(2500, SPAN)], "FLAREGTI1": [(0, 1)]}
    good = np.any([(tm == c) & _inside(t, gtis[f"GTI{c}"]) for c in (1, 2, 3)], axis=0)
    quality = (pi > 0) & np.isin(flag, [0, 1]) & (typ > 0)
    return Case("eROSITA", head, cols, gtis, energy=pi.astype("f4").astype(float), quality=quality, good=good, livetime=SPAN)


def nicer():
    rng, head, t, cols = _base(8, "NICER", "XTI", (56658, 7.77592592592593e-4), TIMEZERO=-1.0)
    for c in ("X", "Y"): cols.pop(c)
    pi, flags = rng.integers(20, 1500, N), rng.choice([0b00011000, 0b00010000, 0b00001000, 0b00010001, 0b00011100], N)
    cols |= {"PI": ("I", "chan", pi), "DET_ID": ("B", None, rng.integers(0, 68, N)), "EVENT_FLAGS": ("8X", None, ((flags[:, None] >> np.arange(7, -1, -1)) & 1).astype(bool))}
    return Case("NICER", head, cols, {"GTI": [(0, 500), (500, 800), (5600, 6200)]}, {"GTI": {"TIMEZERO": -1.0}}, energy=pi * 10.0, quality=np.isin(flags, [0b00011000, 0b00010000]),
                good=_inside(t, [(0, 800), (5600, 6200)]), livetime=1400)


def nustar():
    rng, head, t, cols = _base(9, "NuSTAR", "FPMA", (55197, 7.6601852e-4), LIVETIME=4500.0, ONTIME=5000.0)
    pi, grade, status = rng.integers(35, 1900, N), rng.integers(0, 33, N), rng.choice([0, 0, 0x8, 0x20, 0x1000], N)
    cols |= {"PI": ("J", "chan", pi), "GRADE": ("I", None, grade), "STATUS": ("16X", None, ((status[:, None] >> np.arange(15, -1, -1)) & 1).astype(bool))}
    return Case("NuSTAR", head, cols, {"GTI": [(0, 2000), (4000, 7000)]}, energy=1600.0 + 40 * pi, quality=(grade <= 26) & np.isin(status, [0, 0x8]), good=_inside(t, [(0, 2000), (4000, 7000)]), livetime=4500)


def einstein_probe(instrument, seed):
    rng, head, t, cols = _base(seed, "EP", instrument, 58849.0)
    cols |= {"PI": ("I", "chan", rng.integers(0, 512, N)), "PHA": ("I", None, rng.integers(0, 512, N))}
    return Case("Einstein Probe WXT" if instrument == "WXT" else "Einstein Probe FXT", head, cols, {"GTI": [(100, 9000)]}, energy=500 + 8.0 * cols["PI"][2] + 4, good=_inside(t, [(100, 9000)]), livetime=8900)


def ixpe():
    rng, head, t, cols = _base(12, "IXPE", "GPD", (57754, 8.0074074074074e-4), DETNAM="DU1")
    pi = rng.integers(25, 370, N)
    cols |= {"PI": ("E", "chan", pi)}
    return Case("IXPE", head, cols, energy=pi * 40.0, good=np.ones(N, dtype=bool), livetime=SPAN)


def write(case, path):
    "Write one case as a FITS file."
    def table(cols, name, keys):
        hdu = fits.BinTableHDU.from_columns([fits.Column(n, f, unit=u, array=np.asarray(v)) for n, (f, u, v) in cols.items()], name=name)
        hdu.header.update(keys)
        return hdu
    head = fits.PrimaryHDU()
    head.header.update(case.primary)
    zero = case.keys.get("TIMEZERO", 0.0)
    cols = {n: ((f, u, np.asarray(v) - zero) if n == "TIME" else (f, u, v)) for n, (f, u, v) in case.columns.items()}
    hdus = [head, table(cols, "EVENTS", case.keys | {"TSTART": T0 - zero, "TSTOP": T0 + SPAN - zero})]
    for name, rows in case.gtis.items():
        rows = np.array(rows, dtype=float).reshape(-1, 2) + T0 - zero
        hdus.append(table({"START": ("D", "s", rows[:, 0]), "STOP": ("D", "s", rows[:, 1])}, name, case.gti_keys.get(name, {})))
    fits.HDUList(hdus).writeto(path, overwrite=True, checksum=True)
    case.path = Path(path)
    return case


def write_rmf(path, channels=512, e0=500.0, width=8.0):
    "A response matrix with linear channels, in keV as they are written."
    c = np.arange(channels)
    hdu = fits.BinTableHDU.from_columns([fits.Column("CHANNEL", "J", array=c), fits.Column("E_MIN", "D", "keV", array=(e0 + width * c) / 1e3), fits.Column("E_MAX", "D", "keV", array=(e0 + width * (c + 1)) / 1e3)], name="EBOUNDS")
    hdu.header["CHANTYPE"] = "PI"
    hdu.writeto(path, overwrite=True)
    return Path(path)


def make_all(folder):
    "Write every case into a folder; return them by name."
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    cases = {"hrc": hrc(), "xmm_pn": xmm("EPN", 2), "xmm_mos": xmm("EMOS1", 3), "xmm_pn_filtered": xmm_filtered(), "swift_pc": swift("PHOTON", 5), "swift_wt": swift("WINDOWED", 6), "erosita": erosita(),
             "nicer": nicer(), "nustar": nustar(), "ep_wxt": einstein_probe("WXT", 10), "ep_fxt": einstein_probe("FXTA", 11), "ixpe": ixpe()}
    for name, case in cases.items(): write(case, folder / f"{name}.fits")
    write_rmf(folder / "ep.rmf")
    return cases


if __name__ == "__main__":
    if len(sys.argv) != 2: sys.exit(__doc__)
    for name, case in make_all(sys.argv[1]).items(): print(f"{name:16} {case.mission}")
