"""What fits of spectra must hold, by parts.

    python benchmarks/bench_spectra.py [golden] [absorption] [xspec] [coverage] [many] [sherpa] [--spectra 1000] [--jobs 2]

golden      the published fit of XRT 200515 (needs ../shared)
absorption  tbabs against the table it was made from (needs ../shared)
xspec       models against XSPEC's own routines (needs the package xspectrampoline, which brings XSPEC's library)
coverage    how often 68 % intervals hold the truth at 30, 150 and 1,000 counts, and how biased few counts are
many        the time for 1,000 sources of 100 counts
sherpa      folded model and C-stat against Sherpa's (needs Sherpa)
"""

import argparse
import ctypes
import importlib.util
import os
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed

from xrt_nb.data import XRTWarning
from xrt_nb.ogip import Spectrum, read_spectrum, simulated_response
from xrt_nb.spectra import fit_spectra, fit_spectrum, folded, simulate_spectrum
from xrt_nb.spectral_models import Bins, SpectralModel, cstat, tables, tbabs_sigma

SHARED = Path(__file__).resolve().parent.parent / os.environ.get("XRT_NB_SHARED", "../shared") / "data"
FILES = [SHARED / "xrt200515" / "spectrum" / n
         for n in ("flaresp_grp1.pha.gz", "flaresp_bkg.pi.gz", "flaresp.rmf.gz", "flaresp.corr.arf.gz")]
TRUTH = {"nH": 0.2, "Gamma": 1.8}


def blank():
    "A spectrum without counts, of the simulated detector."
    rmf, arf = simulated_response()
    return Spectrum(rmf.channels, np.zeros(rmf.n_channels, int), 20_000.0, rmf=rmf, arf=arf)


def xrt200515():
    "The real spectrum, or None."
    if not FILES[0].exists():
        return print("  skipped: ../shared is not here (XRT_NB_SHARED)")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*checksum", XRTWarning)
        return read_spectrum(*FILES)


def golden(args):
    s = xrt200515()
    if s is None:
        return
    for hi in (8.0, 7.0):
        for rule in ("middle", "overlap", "inside"):
            b, p = (fit_spectrum(s, f"tbabs*{m}", (0.3, hi), borders=rule) for m in ("bbody", "powerlaw"))
            print(f"  0.3-{hi:g} keV, {rule:7s}: dof {b.dof}; bbody C {b.statistic:.3f}, kT {b.parameters['kT']:.4f}, "
                  f"nH {b.parameters['nH']:.4f}; power law C {p.statistic:.3f}, Gamma {p.parameters['Gamma']:.3f}")
    print("  bars: 0.3-8 C 132.38 +- 0.02, dof 138, kT 1.85 +- 0.01, Gamma 0.50 +- 0.10; 0.3-7 C 128.42, 132.94 +- 0.02")


def absorption(args):
    path = SHARED / "absorption" / "tbabs_small.npz"
    if not path.exists():
        return print("  skipped: ../shared is not here (XRT_NB_SHARED)")
    with np.load(path) as z:
        print(f"  {len(z['E'])} nodes: largest relative difference {np.abs(tbabs_sigma(z['E']) / z['sigma'] - 1).max():.1e}")


def xspec_routine(lib, name, values, edges):
    "Call one of XSPEC's C routines."
    f = getattr(lib, name)
    array = ctypes.POINTER(ctypes.c_double)
    f.restype, f.argtypes = None, [array, ctypes.c_int, array, ctypes.c_int, array, array, ctypes.c_char_p]
    e, v, out, error = (np.ascontiguousarray(a, dtype=float) for a in (edges, values, np.zeros(len(edges) - 1), np.zeros(len(edges) - 1)))
    f(*(x if isinstance(x, (int, bytes)) else x.ctypes.data_as(array) for x in (e, len(out), v, 1, out, error, b"")))
    return out


def xspec(args):
    if importlib.util.find_spec("xspectrampoline") is None:
        return print("  skipped: the package xspectrampoline is not installed")
    import xspectrampoline
    lib = xspectrampoline.lib_XSFunctions
    lib.FPSOLR(b"wilm", ctypes.byref(ctypes.c_int(0)))
    edges = np.linspace(0.3, 11, 1071)
    bins = Bins(edges[:-1], edges[1:])
    for name, model, sets in (("C_powerLaw", "powerlaw", [[0.0], [1.0], [1.8]]), ("C_cutoffPowerLaw", "cutoffpl", [[0.0, 5.0], [1.8, 5.0]]),
                              ("C_bbody", "bbody", [[0.1], [0.5], [1.85]]), ("C_bremss", "bremss", [[0.1], [0.3], [1.0], [5.0], [20.0]])):
        worst = []
        for values in sets:
            theirs, ours = xspec_routine(lib, name, [*values, 1.0], edges), SpectralModel(model).photons(bins, [*values, 1.0])
            seen = theirs > 1e-12 * theirs.max()
            worst.append(np.abs(ours / theirs - 1)[seen].max())
        print(f"  {model}: worst bin of {len(edges) - 1} for {sets}: " + ", ".join(f"{w:.1e}" for w in worst))
    x = np.log(tables()["tbabs_energy"][[0, -1]])
    middle = np.exp(np.linspace(*x, 3762))
    step = np.exp((x[1] - x[0]) / 3761 / 2)
    grid = np.r_[middle / step, middle[-1] * step]
    kept = (middle > 0.3) & (middle < 9)
    off = np.abs(tbabs_sigma(middle) / (-np.log(xspec_routine(lib, "C_tbabs", [0.1], grid)) / 1e21) - 1)[kept]
    print(f"  tbabs on the geometric grid of {len(middle)} energies that the table was made from (bins of 0.098 %), 0.3-9 keV: "
          f"worst {100 * off.max():.2f} % (bar 0.5 %), median {100 * np.median(off):.3f} %")
    t = -np.log(xspec_routine(lib, "C_tbabs", [0.1], edges)) / 1e21
    off = np.abs(tbabs_sigma(bins.middle) / t - 1)[bins.middle < 9]
    print(f"  tbabs on bins of 10 eV: worst {100 * off.max():.1f} %, 99th percentile {100 * np.percentile(off, 99):.2f} %, "
          f"median {100 * np.median(off):.3f} % (XSPEC's own value depends on the bin's width at edges)")


def one_cover(s, n, seed):
    "Does the interval of each parameter hold the truth? With the value of Gamma."
    drawn = simulate_spectrum(s, "tbabs*powerlaw", TRUTH, counts=n, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XRTWarning)
        fit = fit_spectrum(drawn, "tbabs*powerlaw", (0.3, 7.0))
        table = fit.errors(["Gamma", "nH"])
        flux = fit.flux(0.5, 7.0, level=0.6827).value
    inside = [table.loc[k, "low"] <= v <= table.loc[k, "high"] for k, v in TRUTH.items()]
    return [*inside, flux[1] <= true_flux(s, n) <= flux[2], fit.parameters["Gamma"], fit.parameters["nH"] == 0]


def true_flux(s, n):
    "The flux that gives n counts."
    from xrt_nb.spectral_models import band_flux
    m = SpectralModel("tbabs*powerlaw")
    made = s.fold(m.photons(Bins(s.rmf.energy_lo, s.rmf.energy_hi), [0.2, 1.8, 1.0])).sum()
    return band_flux(m, [0.2, 1.8, n / made], 0.5, 7.0)


def coverage(args):
    s = blank()
    for n in (30, 150, 1000):
        begin = time.perf_counter()
        work = delayed(partial(one_cover, s, n))
        rows = np.array(Parallel(args.jobs, batch_size=25)(work(seed) for seed in range(args.spectra)), dtype=float)
        cover, spread = rows[:, :3].mean(axis=0), np.sqrt(0.68 * 0.32 / len(rows))
        g = rows[:, 3]
        print(f"  {n} counts, {len(rows)} spectra: 68 % intervals hold nH {cover[0]:.3f}, Gamma {cover[1]:.3f}, flux {cover[2]:.3f} "
              f"(+- {spread:.3f}; bar 0.64-0.72); fitted Gamma {g.mean():.2f} +- {g.std():.2f}, median {np.median(g):.2f} for 1.8; "
              f"nH at 0 in {100 * rows[:, 4].mean():.0f} %; {time.perf_counter() - begin:.0f} s", flush=True)


def many(args):
    s = blank()
    spectra = {f"s{k}": simulate_spectrum(s, "tbabs*powerlaw", TRUTH, counts=100, random_state=k) for k in range(args.spectra)}
    for errors in (False, True):
        begin = time.perf_counter()
        table = fit_spectra(spectra, n_jobs=args.jobs, progress=False, errors=errors)
        took = time.perf_counter() - begin
        print(f"  {len(table)} sources of 100 counts, {args.jobs} processes, errors={errors}: {took:.0f} s (bar 180 s for 1,000), "
              f"{(table.reason != '').sum()} not fitted", flush=True)


def sherpa(args):
    if importlib.util.find_spec("sherpa") is None:
        return print("  skipped: Sherpa is not installed")
    import logging
    logging.getLogger("sherpa").setLevel(logging.ERROR)
    from sherpa.astro.instrument import Response1D
    from sherpa.fit import Fit
    from sherpa.models.model import ArithmeticModel, Parameter
    from sherpa.stats import CStat
    from xrt_nb.bridge import to_sherpa
    s = xrt200515()
    if s is None:
        return
    model = SpectralModel("tbabs*bbody")

    class Ours(ArithmeticModel):
        "The model of this library in Sherpa."

        def __init__(self):
            self.values = [Parameter("ours", n, v) for n, v in zip(("nH", "kT", "norm"), (0.1, 1.7, 1e-4))]
            ArithmeticModel.__init__(self, "ours", tuple(self.values))

        def calc(self, p, lo, hi=None, *args, **kwargs):
            return model.photons(Bins(lo, hi), p)

    d = to_sherpa(s)
    d.notice(0.3, 7.0)
    folding = Response1D(d)(Ours())
    theirs, shown = d.eval_model_to_fit(folding), d.get_dep(filter=True)
    ours = folded(s, (0.3, 7.0), borders="overlap")
    mine = ours.matrix @ model.photons(ours.bins, [0.1, 1.7, 1e-4])
    print(f"  {len(mine)} groups, counts equal: {bool(np.array_equal(shown, ours.counts))}; "
          f"largest relative difference of the folded model {np.abs(mine / theirs - 1).max():.1e} (bar 1e-6)")
    their_c, my_c = Fit(d, folding, stat=CStat()).calc_stat(), cstat(ours.counts, mine).sum()
    print(f"  C-stat {my_c:.8f}, Sherpa's {their_c:.8f}, relative difference {abs(my_c / their_c - 1):.1e}")


PARTS = {f.__name__: f for f in (golden, absorption, xspec, coverage, many, sherpa)}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="all by default")
    parser.add_argument("--spectra", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    for part in given.parts or PARTS:
        print(part, flush=True)
        PARTS[part](given)
