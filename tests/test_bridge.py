"""The bridge to Sherpa, BXA and XSPEC. Sherpa is built from source; where it isn't there, its tests are skipped with that reason,
unless XRT_NB_NEED_SHERPA is set, as on the machine that builds it."""

import logging
import os
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import rel_entr

from xrt_nb._optional import MissingExtra, installed
from xrt_nb.bridge import fetched_spectra, to_bxa, to_sherpa, whole_spectrum, write_xspec
from xrt_nb.ogip import Rmf, Spectrum, read_rmf, read_spectrum, simulated_response, write_arf, write_pha, write_rmf
from xrt_nb.products import fetch_products
from xrt_nb.spectra import fit_spectrum
from xrt_nb.spectral_models import Bins, SpectralModel

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT / os.environ.get("XRT_NB_SHARED", "../shared") / "data" / "xrt200515" / "spectrum"
needs_files = pytest.mark.skipif(not SHARED.exists(), reason="the real spectrum is not here (XRT_NB_SHARED)")
MUST = bool(os.environ.get("XRT_NB_NEED_SHERPA"))
needs_sherpa = pytest.mark.skipif(not (MUST or installed("sherpa")), reason="Sherpa is not installed (it is built from source)")
needs_bxa = pytest.mark.skipif(not (MUST or installed("bxa")), reason="BXA is not installed")
RMF, ARF = simulated_response(120, 256)


def photons(index=1.8, norm=5e-5, rmf=RMF):
    "A power law, integrated over energy bins."
    return norm * (rmf.energy_lo ** (1 - index) - rmf.energy_hi ** (1 - index)) / (index - 1)


def simulated(seed=0, background=True, first=1, full=False, **fields):
    "A simulated spectrum."
    rng, flux = np.random.default_rng(seed), photons()
    rmf = replace(RMF, first_channel=first)
    if full:
        rmf = Rmf(rmf.energy_lo, rmf.energy_hi, rmf.matrix * ARF.area[:, None], rmf.emin, rmf.emax, first, {"full": True})
    b = Spectrum(rmf.channels, rng.poisson(0.3, 256), 7000.0, backscal=8.0) if background else None
    s = Spectrum(rmf.channels, rng.poisson(2e4 * RMF.fold(flux * ARF.area)), 2e4, background=b, rmf=rmf, arf=None if full else ARF)
    return replace(s, **fields)


def c_statistic(s, flux):
    "Cash's statistic over groups."
    d, m = (np.add.reduceat(v, s.starts) for v in (s.counts, s.fold(flux)))
    return 2 * np.sum(m - d + rel_entr(d, m))


CASES = {
    "all channels": lambda: simulated(),
    "a range": lambda: simulated().select(0.5, 7),
    "groups": lambda: simulated().group(5),
    "a range in groups": lambda: simulated().select(0.5, 7).group(5),
    "groups in a range": lambda: simulated().group(5).select(0.5, 7),
    "channels from 0": lambda: simulated(first=0).select(0.5, 7).group(2),
    "no background": lambda: simulated(background=False).select(1, 3),
    "the area in the matrix": lambda: simulated(full=True).select(0.5, 7),
    "AREASCAL": lambda: simulated(areascal=0.7).select(0.5, 7).group(2),
    "AREASCAL by channel": lambda: simulated(areascal=np.linspace(0.5, 1, 256)).select(0.5, 7),
    "a gap": lambda: simulated(quality=np.where(np.arange(256) // 20 == 3, 5, 0)).select(0.5, 7).without_bad().group(2),
}


@pytest.mark.parametrize("case", CASES)
def test_all_channels_with_a_mark_are_the_same_spectrum(case):
    s = CASES[case]()
    whole = whole_spectrum(s)
    assert len(whole.channels) == 256
    back = whole.without_bad()
    assert back.channels.tolist() == s.channels.tolist() and back.starts.tolist() == s.starts.tolist()
    np.testing.assert_array_equal(back.fold(photons()), s.fold(photons()))


@pytest.mark.parametrize("case", CASES)
def test_files_for_xspec_are_the_same_spectrum(case, tmp_path):
    s = CASES[case]()
    *_, pha, script = write_xspec(s, tmp_path / "x", "a")
    lines = [line for line in script.read_text().splitlines() if not line.startswith("#")]
    assert lines[-3:] == ["data 1:1 a.pha", "ignore bad", "setplot energy"]
    got = read_spectrum(pha).without_bad()
    assert c_statistic(got, photons()) == pytest.approx(c_statistic(s, photons()), rel=1e-12)
    with pytest.raises(FileExistsError):
        write_xspec(s, tmp_path / "x", "a")


def test_without_sherpa_the_way_to_it_is_told(monkeypatch):
    monkeypatch.setattr("xrt_nb.bridge.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="sherpa is not installed: pip install sherpa .*built from source"):
        to_sherpa(simulated())


def test_spectra_of_the_catalog_by_way_of_its_service(tmp_path):
    "The file service is a stand-in on this machine; its files are simulated."
    from xrt_nb._standins import FileService

    folder = tmp_path / "served"
    folder.mkdir()
    s = simulated()
    for obsid in (1, 2, 3):
        stem = f"acisf0000{obsid}_000N001_r0001_"
        write_pha(s, folder / f"{stem}pha3.fits.gz")
        write_rmf(s.rmf if obsid != 2 else simulated_response(120, 100)[0], folder / f"{stem}rmf3.fits.gz")
        if obsid != 3:
            write_arf(s.arf, folder / f"{stem}arf3.fits.gz")
    with FileService(folder) as csc:
        got = fetch_products(["1_1", "2_1", "3_1"], tmp_path / "o", products=("pha3", "rmf3", "arf3"), base_url=csc.url, progress=False)
    spectra, refused = fetched_spectra(got)
    assert list(spectra) == ["1_1"], refused
    assert spectra["1_1"].counts.tolist() == s.counts.tolist() and spectra["1_1"].arf == s.arf
    assert "channels 1 to 256 of 256 are not those of" in refused["2_1"] and refused["3_1"] == "no arf3 came"


# --- with Sherpa ----------------------------------------------------------------------------------------------------


def sherpa_fit(pha, index=1.8, norm=5e-5, statistic="CStat"):
    "Sherpa's fit of a power law, not yet run."
    from sherpa import stats
    from sherpa.astro.instrument import Response1D
    from sherpa.fit import Fit
    from sherpa.models.basic import PowLaw1D
    from sherpa.optmethods import NelderMead

    logging.getLogger("sherpa").setLevel(logging.ERROR)
    model = PowLaw1D("p")
    model.gamma, model.ampl = index, norm
    return Fit(pha, Response1D(pha)(model), getattr(stats, statistic)(), NelderMead())


@needs_sherpa
@pytest.mark.parametrize("case", CASES)
def test_the_folded_model_and_the_statistic_are_those_of_sherpa(case):
    s = CASES[case]()
    fit = sherpa_fit(to_sherpa(s))
    ours = np.add.reduceat(s.fold(photons()), s.starts)
    np.testing.assert_allclose(fit.data.eval_model_to_fit(fit.model), ours, rtol=1e-6)
    np.testing.assert_array_equal(fit.data.get_dep(filter=True), np.add.reduceat(s.counts, s.starts))
    assert fit.calc_stat() == pytest.approx(c_statistic(s, photons()), abs=1e-6)


@needs_sherpa
@pytest.mark.parametrize("case", ["all channels", "a range in groups", "channels from 0", "AREASCAL", "a gap"])
def test_sherpa_reads_the_files_as_the_bridge_carries_them(case, tmp_path):
    from sherpa.astro.io import read_pha

    s = CASES[case]()
    *_, pha, _ = write_xspec(s, tmp_path / "x", "a")
    own = read_pha(str(pha))
    if s.grouping is not None:
        own.group()
    own.ignore_bad()
    for statistic in ("CStat", "WStat"):
        a, b = (sherpa_fit(p, statistic=statistic).calc_stat() for p in (own, to_sherpa(s)))
        assert a == pytest.approx(b, rel=1e-9)


@needs_sherpa
def test_what_sherpa_writes_is_read_here(tmp_path):
    from sherpa.astro.io import write_arf as sherpa_arf
    from sherpa.astro.io import write_pha as sherpa_pha
    from sherpa.astro.io import write_rmf as sherpa_rmf

    s = simulated().group(4)
    pha = to_sherpa(s)
    arf, rmf = pha.get_response()
    sherpa_rmf(str(tmp_path / "a.rmf"), rmf)
    sherpa_arf(str(tmp_path / "a.arf"), arf, ascii=False)
    sherpa_pha(str(tmp_path / "a.pha"), pha, ascii=False)
    got = read_spectrum(tmp_path / "a.pha", rmf=tmp_path / "a.rmf", arf=tmp_path / "a.arf", background=False)
    assert got.counts.tolist() == s.counts.tolist() and got.grouping.tolist() == s.grouping.tolist()
    np.testing.assert_allclose(got.fold(photons()), s.fold(photons()), rtol=1e-6)
    np.testing.assert_allclose(read_rmf(tmp_path / "a.rmf").matrix.toarray(), RMF.matrix.toarray(), rtol=1e-6)


@needs_sherpa
@pytest.mark.parametrize("least", [1, 3, 20])
def test_groups_are_those_of_sherpa(least):
    s = simulated(seed=4)
    pha = to_sherpa(s)
    pha.group_counts(least)
    got = s.group(least)
    assert got.grouping.tolist() == pha.grouping.tolist() and got.quality.tolist() == pha.quality.tolist()


@needs_sherpa
@pytest.mark.parametrize("seed", range(8))
def test_a_range_of_energies_takes_the_channels_of_sherpas_notice(seed):
    rng = np.random.default_rng(seed)
    s = simulated(seed)
    s = s.group(3) if seed % 2 else s
    lo = float(rng.choice([rng.uniform(0.1, 6), RMF.emin[rng.integers(5, 100)]]))
    hi = float(rng.choice([lo + rng.uniform(0.2, 6), RMF.emax[200]]))
    pha = to_sherpa(s)
    pha.notice()
    pha.ignore()
    pha.notice(lo, hi)
    assert s.select(lo, hi).channels.tolist() == pha.get_noticed_channels().astype(int).tolist()
    pha.notice()
    pha.ignore(lo, hi)
    left = pha.get_noticed_channels().astype(int).tolist()
    if left:
        assert s.ignore(lo, hi).channels.tolist() == left
    else:
        with pytest.raises(ValueError, match="no channel is left"):
            s.ignore(lo, hi)


@needs_sherpa
@needs_files
def test_the_real_spectrum_by_both_ways():
    from sherpa.astro.io import read_pha

    logging.getLogger("sherpa").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        s = read_spectrum(SHARED / "flaresp_grp1.pha.gz")
    own = read_pha(str(SHARED / "flaresp_grp1.pha.gz"))
    own.ignore()
    own.notice(0.3, 7)
    own.group_counts(1)
    across = to_sherpa(s.select(0.3, 7).group(1))
    for statistic in ("CStat", "WStat"):
        a, b = (sherpa_fit(p, 0.5, 2e-4, statistic) for p in (own, across))
        np.testing.assert_allclose(a.data.eval_model_to_fit(a.model), b.data.eval_model_to_fit(b.model), rtol=1e-6)
        assert a.calc_stat() == pytest.approx(b.calc_stat(), rel=1e-7)


@needs_sherpa
@needs_files
def test_the_published_recipe_takes_these_groups():
    "Ignore below 0.3 and above 8 keV, then notice 0.3 to 7, on the groups of the file: 141 of them."
    from sherpa.astro.io import read_pha

    logging.getLogger("sherpa").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        s = read_spectrum(SHARED / "flaresp_grp1.pha.gz")
    own = read_pha(str(SHARED / "flaresp_grp1.pha.gz"))
    own.ignore(0, 0.3)
    own.ignore(8, None)
    assert s.ignore(None, 0.3).ignore(8, None).channels.tolist() == own.get_noticed_channels().astype(int).tolist()
    own.notice(0.3, 7)
    noticed = own.get_noticed_channels().astype(int).tolist()
    assert s.select(0.3, 7.7).channels.tolist() == noticed and len(s.select(0.3, 7.7).starts) == 141


# --- the same fit ---------------------------------------------------------------------------------------------------


def sherpa_finds(pha, model, statistic):
    "The minimum that Sherpa's simplex finds, begun twice."
    from sherpa import stats
    from sherpa.astro.instrument import Response1D
    from sherpa.fit import Fit
    from sherpa.optmethods import NelderMead

    fit = Fit(pha, Response1D(pha)(model), getattr(stats, statistic)(), NelderMead())
    return min(fit.fit().statval for _ in range(2))


def power_law():
    "Sherpa's own power law, of a free index and normalization."
    from sherpa.models.basic import PowLaw1D

    model = PowLaw1D("p")
    model.gamma.set(1.5, -2, 9)
    model.ampl.set(1e-4, 1e-9, 1)
    model.ref.freeze()
    return model


def carried(text, start):
    "A model of this library as one of Sherpa's: absorption and black body are not in its build without XSPEC."
    from sherpa.models.model import ArithmeticModel
    from sherpa.models.parameter import Parameter as Par

    ours = SpectralModel(text)
    assert [n for n in ours.names] == list(start)

    class Carried(ArithmeticModel):
        def __init__(self, name="carried"):
            for p, (key, (value, low, high)) in enumerate(start.items()):
                setattr(self, f"p{p}", Par(name, f"p{p}", value, low, high, low, high))
            super().__init__(name, [getattr(self, f"p{p}") for p in range(len(start))])

        def calc(self, p, xlo, xhi=None, *args, **kwargs):
            return ours.photons(Bins(xlo, xhi), p)

    return Carried()


@needs_sherpa
@pytest.mark.parametrize("statistic", ["cstat", "wstat"])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_same_power_law_is_found(seed, statistic):
    s = simulated(seed).select(0.5, 7).group(2)
    ours = fit_spectrum(s, "powerlaw", energy_range=None, statistic=statistic)
    theirs = sherpa_finds(to_sherpa(s), power_law(), {"cstat": "CStat", "wstat": "WStat"}[statistic])
    assert ours.statistic == pytest.approx(theirs, abs=0.01)
    assert ours.dof == len(s.starts) - 2


@needs_sherpa
@needs_files
@pytest.mark.parametrize("to, text, start", [
    (7.0, "tbabs*powerlaw", {"nH": (0.1, 0, 10), "Gamma": (0.6, -2, 5), "norm": (1e-3, 1e-8, 1)}),
    (7.0, "tbabs*bbody", {"nH": (0.1, 0, 10), "kT": (1.5, 0.1, 10), "norm": (1e-4, 1e-9, 1)}),
    (7.7, "tbabs*bbody", {"nH": (0.1, 0, 10), "kT": (1.5, 0.1, 10), "norm": (1e-4, 1e-9, 1)}),
])
def test_the_same_fit_of_the_real_spectrum_is_found(to, text, start):
    "The last range is that of the published fit: its channels 1 to 529."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        s = read_spectrum(SHARED / "flaresp_grp1.pha.gz").select(0.3, to)
    ours = fit_spectrum(s, text, energy_range=None)
    theirs = sherpa_finds(to_sherpa(s), carried(text, start), "CStat")
    assert ours.statistic == pytest.approx(theirs, abs=0.01)
    assert ours.dof == len(s.starts) - 3


@needs_sherpa
@needs_bxa
def test_bxa_finds_the_index_that_was_simulated(tmp_path):
    from sherpa.models.basic import PowLaw1D

    model = PowLaw1D("p")
    model.gamma.set(1.5, 0, 4)
    model.ampl.set(5e-5, 1e-6, 1e-3)
    model.ref.freeze()
    s = simulated(2, background=False).select(0.5, 7).group(1)
    with pytest.raises(ValueError, match=r"`priors` must be one for each of 2 thawed parameters \(p.gamma, p.ampl\), got 1"):
        to_bxa(s, model, priors=[lambda u: u])
    solver = to_bxa(s, model, folder=tmp_path / "bxa")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = solver.run(resume=False, n_live_points=50, frac_remain=0.5)
    index = result["samples"][:, 0]
    assert abs(index.mean() - 1.8) < 4 * index.std() and index.std() < 0.5
