"""Every mission's row against files put together from its format document, and against real files where there are some."""
import importlib.util
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from make_mission_fixtures import T0, make_all, write, xmm
from xrt_nb.data import XRTWarning
from xrt_nb.fits import MISSIONS, EventFileError, Mission, read_event_list

SHARED = Path(__file__).parent.parent / os.environ.get("XRT_NB_SHARED", "../shared") / "data"
NICER = SHARED / "nicer" / "ngc300nicer_bary.evt"
spec = importlib.util.find_spec("stingray")
STINGRAY = Path(spec.origin).parent / "tests" / "data" if spec else Path("no-stingray")
needs_stingray = pytest.mark.skipif(not STINGRAY.exists(), reason="stingray and its test files are not installed")
NAMES = ["hrc", "xmm_pn", "xmm_mos", "xmm_pn_filtered", "swift_pc", "swift_wt", "erosita", "nicer", "nustar", "ep_wxt", "ep_fxt", "ixpe"]


@pytest.fixture(scope="module")
def cases(tmp_path_factory): return make_all(tmp_path_factory.mktemp("missions"))


@pytest.mark.parametrize("name", NAMES)
def test_mission(cases, name):
    case = cases[name]
    rmf = case.path.parent / "ep.rmf" if name.startswith("ep_") else None
    ev = read_event_list(case.path, energy_range=None, rmf=rmf)
    n = len(case.good)
    quality = np.ones(n, dtype=bool) if case.quality is None else case.quality
    keep = case.good & quality
    assert ev.meta["mission"] == case.mission
    assert [ev.meta[k] for k in ("n_file", "n_region", "n_gti", "n_quality")] == [n, n, case.good.sum(), keep.sum()]
    assert np.allclose(ev.time, case.columns["TIME"][2][keep], rtol=0, atol=1e-6)
    if case.energy is None: assert ev.energy is None
    else: assert np.allclose(ev.energy, case.energy[keep], rtol=1e-6)
    assert ev.meta["livetime"] == pytest.approx(case.livetime)
    assert ev.gti[0, 0] >= T0 and 0 < len(ev) < n + 1


@pytest.mark.parametrize("name", ["ep_wxt", "ep_fxt"])
def test_no_rule_no_guess(cases, name):
    with pytest.raises(EventFileError, match=r"wants a response matrix \(rmf=...\), the file has time, x, y, pi, pha"): read_event_list(cases[name].path)


def test_every_row_is_tested(cases):
    assert {c.mission for c in cases.values()} | {"Chandra ACIS"} == set(MISSIONS)


def test_hrc_has_times_only(cases):
    ev = read_event_list(cases["hrc"].path)
    assert ev.energy is None and ev.meta["n_energy"] == len(ev) and "no energies" in ev.meta["energy_rule"]


def test_band_is_strict_for_all(cases):
    ev = read_event_list(cases["xmm_pn"].path, energy_range=MISSIONS["XMM EPIC-pn"].band)
    assert ev.energy.min() > 200 and ev.energy.max() < 12000


def test_missing_quality_column_is_said(tmp_path):
    case = xmm("EPN", 2)
    case.columns.pop("FLAG")
    write(case, tmp_path / "noflag.fits")
    with pytest.warns(XRTWarning, match="noflag.fits: extension EVENTS: no column for the quality filter flag == 0; it was not applied"): ev = read_event_list(case.path)
    assert ev.meta["quality_rule"] == "pattern <= 4 (not applied: flag == 0)"


def test_chip_without_good_times(tmp_path):
    case = xmm("EPN", 2)
    case.gtis.pop("STDGTI02")
    write(case, tmp_path / "lost.fits")
    with pytest.raises(EventFileError, match="events on chip 2 but no good time intervals for it"): read_event_list(case.path)


def test_region_needs_a_picture(cases):
    from xrt_nb.regions import Region
    with pytest.raises(EventFileError, match="missing column x, y"): read_event_list(cases["nicer"].path, Region([[(True, "circle", (1, 1, 1))]]))


@pytest.mark.skipif(not NICER.exists(), reason="the real NICER file is not here (XRT_NB_SHARED)")
def test_real_nicer():
    from astropy.io import fits
    ev = read_event_list(NICER, energy_range=None)
    with fits.open(NICER) as f:
        d, g = f["EVENTS"].data, f["GTI"].data
        assert np.array_equal(ev.time, d["TIME"]) and np.array_equal(ev.energy, d["PI"] * 10.0)
        assert ev.gti.tolist() == np.c_[g["START"], g["STOP"]].tolist()
    assert len(ev) == 2408 and len(ev.gti) == 8 and ev.meta["barycentred"] and ev.meta["timesys"] == "tdb"
    assert ev.start.scale == "tdb" and ev.start.isot.startswith("2018-02-06T15:57:4")
    assert ev.meta["ontime"] == pytest.approx(1536, abs=0.1)


def _theirs(path):
    "stingray's reader, whose import and log are noisy."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from stingray.io import load_events_and_gtis
        return load_events_and_gtis(str(path))


@needs_stingray
def test_chandra_against_stingray():
    p = STINGRAY / "chandra_test.fits"
    with pytest.warns(XRTWarning, match="its checksum disagrees"): read_event_list(p) # the file was cut down by hand
    warnings.simplefilter("ignore", XRTWarning)
    ev, them = read_event_list(p, energy_range=None, quality=False, gti=None), _theirs(p)
    assert len(ev) == 4612 and np.array_equal(ev.time, np.asarray(them.ev_list, float))
    assert np.allclose(ev.energy, np.asarray(them.energy_list, float) * 1e3, rtol=1e-6) # keV there
    banded = read_event_list(p, gti=None, quality=False)
    assert len(banded) == 3820
    assert np.allclose(read_event_list(p).gti, np.asarray(them.gti_list, float))
    assert float(them.mjdref) == ev.meta["mjdref"]


@needs_stingray
def test_chandra_without_energies_against_stingray():
    p = STINGRAY / "chandra_noener_test.fits"
    with pytest.warns(XRTWarning) as said: ev = read_event_list(p, energy_range=(0, 1e9), gti=None)
    assert any("quality filter pha > 40" in str(w.message) for w in said)
    them = _theirs(p)
    e = np.asarray(them.energy_list, float) * 1e3
    assert np.allclose(ev.energy, e[e > 0], rtol=1e-6) and ev.meta["energy_rule"] == "pi * 14.6 eV -14.6 eV"


@needs_stingray
@pytest.mark.skipif(not NICER.exists(), reason="the real NICER file is not here (XRT_NB_SHARED)")
def test_nicer_against_stingray():
    ev, them = read_event_list(NICER, energy_range=None), _theirs(NICER)
    assert np.allclose(ev.time, np.asarray(them.ev_list, float), rtol=0, atol=1e-7) # they move the stamps by half a time step, 2e-8 s
    assert np.allclose(ev.energy, np.asarray(them.energy_list, float) * 1e3)
    assert np.allclose(ev.gti, np.asarray(them.gti_list, float), rtol=0, atol=1e-6)


@needs_stingray
def test_simulated_xmm_and_nustar_against_stingray(cases):
    for name, shift in (("nustar", 20.0), ("xmm_pn", 0.0), ("ixpe", 0.0)):
        ev, them = read_event_list(cases[name].path, energy_range=None, quality=False, gti=None), _theirs(cases[name].path)
        assert np.allclose(ev.time, np.asarray(them.ev_list, float), rtol=0, atol=1e-6)
        assert np.allclose(ev.energy + shift, np.asarray(them.energy_list, float) * 1e3, rtol=1e-5) # NuSTAR: lower edge here, 1.62 keV = middle there


@needs_stingray
def test_rxte_is_unknown_but_readable():
    p = STINGRAY / "xte_gx_test.evt.gz"
    with pytest.raises(EventFileError, match="TELESCOP = 'XTE', INSTRUME = 'PCA'"): read_event_list(p)
    pca = Mission("RXTE PCA", (), spectrum="no", events="XTE_SE", merge="union")
    ev, them = read_event_list(p, mission=pca, gti=None, columns=("pha", "pcuid")), _theirs(p)
    assert len(ev) == len(them.ev_list) and np.allclose(ev.time, np.asarray(them.ev_list, float), rtol=0, atol=1e-5)
    with pytest.raises(EventFileError, match="wants energy, the file has time, event, pcuid"): read_event_list(p, mission=Mission("RXTE PCA", (), energy=(("energy", None, 0),), events="XTE_SE"))
