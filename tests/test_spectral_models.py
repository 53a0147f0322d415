"""Models of spectra and the statistics of counts, each against a second way to the same number."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize, stats

from xrt_nb.spectral_models import (COMPONENTS, ERG, Bins, SpectralModel, SpectrumError, band_flux, bbody, bremss, cstat, cutoffpl,
                                    expected_cstat, gaunt, pgstat, pgstat_background, powerlaw, slope, tables, tbabs_sigma, wstat,
                                    wstat_background)

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / os.environ.get("XRT_NB_SHARED", "../shared") / "data" / "absorption" / "tbabs_small.npz"
LOW = np.linspace(0.3, 10, 41)
BINS = Bins(LOW, LOW + 0.01)  # as narrow as those of a CCD's response


def quad(density):
    "Integrals over the bins by an adaptive rule."
    return np.array([integrate.quad(density, a, b, epsrel=1e-11, epsabs=0)[0] for a, b in zip(BINS.low, BINS.high)])


# --- models -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [-3, 0, 1, 1 + 1e-12, 1.8, 10])
def test_a_power_law_is_integrated_exactly(gamma):
    np.testing.assert_allclose(powerlaw(BINS, gamma), quad(lambda e: e ** -gamma), rtol=1e-10)


@pytest.mark.parametrize("kT", [0.1, 0.5, 2, 100])
def test_a_black_body_agrees_with_an_adaptive_rule(kT):
    np.testing.assert_allclose(bbody(BINS, kT), quad(lambda e: 8.0525 * e**2 / (kT**4 * np.expm1(e / kT))), rtol=1e-9)


def test_a_norm_of_a_black_body_is_1e39_erg_at_10_kpc():
    e = np.geomspace(1e-3, 60, 20001)
    flux = ERG * bbody(Bins(e[:-1], e[1:]), 1.0) @ Bins(e[:-1], e[1:]).middle
    assert flux * 4 * np.pi * (10 * 3.0857e21) ** 2 == pytest.approx(1e39, rel=3e-3)  # XSPEC's 8.0525 is 0.25 % more than that


@pytest.mark.parametrize(("gamma", "cutoff"), [(0, 1), (2, 0.1), (-1, 500)])
def test_a_cut_off_agrees_with_an_adaptive_rule(gamma, cutoff):
    np.testing.assert_allclose(cutoffpl(BINS, gamma, cutoff), quad(lambda e: e ** -gamma * np.exp(-e / cutoff)), rtol=1e-9)


def test_a_cut_off_far_away_is_a_power_law():
    np.testing.assert_allclose(cutoffpl(BINS, 1.3, 1e9), powerlaw(BINS, 1.3), rtol=1e-6)


@pytest.mark.parametrize("kT", [0.05, 0.13, 0.3, 1, 5, 13, 20, 200])
def test_gaunt_factors_are_positive_and_fall(kT):
    g = gaunt(np.geomspace(0.3, 11, 400), kT)
    assert (g > 0).all() and np.isfinite(g).all()
    assert (np.diff(np.log(g)) < 0.02).all()
    assert np.isfinite(bremss(BINS, kT)).all()


def test_a_gaunt_factor_near_one_where_it_must_be():  # hydrogen, u = 1: Karzas & Latter's figure has about 1 at gamma2 ~ 0.1..1
    assert 0.8 < gaunt(0.1, 0.1) < 1.3


def test_models_are_not_nan_at_the_corners():
    low = Bins([0.0, 1e-3, 5.0, 99.0], [1e-3, 5.0, 99.0, 120.0])
    for c in COMPONENTS.values():
        for pick in ("low", "high", "default"):
            p = [getattr(q, pick) for q in c.parameters if q.name != "norm"]
            assert not np.isnan(c.photons(low, *p)).any(), (c.name, pick)


# --- absorption ---------------------------------------------------------------------------------------------------


def test_the_table_is_exact_at_its_nodes_and_positive_elsewhere():
    t = tables()
    np.testing.assert_allclose(tbabs_sigma(t["tbabs_energy"]), t["tbabs_sigma"], rtol=1e-12)
    wide = tbabs_sigma(np.geomspace(0.01, 100, 3000))
    assert (wide > 0).all() and np.isfinite(wide).all()


@pytest.mark.skipif(not TABLE.exists(), reason="the table of cross-sections is not here (XRT_NB_SHARED)")
def test_the_table_is_the_one_it_was_made_from():
    with np.load(TABLE) as z:
        np.testing.assert_allclose(tbabs_sigma(z["E"]), z["sigma"], rtol=1e-12)


# --- sentences ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [
    "", " ", "tbabs", "powerlaw*bbody", "tbabs+powerlaw", "tbabs*(powerlaw", "powerlaw()", "powerlaw.x", "powerlaw[0]", "-powerlaw",
    "2*powerlaw", "powerlaw/2", "lambda: powerlaw", "powerlaw, bbody", "powerlaw\nbbody", "'powerlaw'", "f'{powerlaw}'", "x:=powerlaw",
    "wabs*powerlaw", "tbabs*tbabs", "(" * 250 + "powerlaw" + ")" * 40, "powerlaw" + "+powerlaw" * 60, None, 7, b"powerlaw", "pöwerlaw\x00"])
def test_what_is_no_model_is_refused_in_one_sentence(text):
    with pytest.raises(SpectrumError, match="write it like") as caught:
        SpectralModel(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="tbabspowerlaw*+() \n.[]'0", max_size=40))
def test_any_text_is_a_model_or_refused(text):
    try:
        assert SpectralModel(text).norms
    except SpectrumError:
        pass


def test_products_are_multiplied_out():
    a, b = SpectralModel("tbabs*(powerlaw+tbabs*bbody)"), SpectralModel("(powerlaw+bbody*tbabs)*tbabs")
    assert a.names == ["tbabs1.nH", "Gamma", "powerlaw.norm", "tbabs2.nH", "kT", "bbody.norm"]
    values = {"Gamma": 2.0, "powerlaw.norm": 1.0, "kT": 0.7, "bbody.norm": 3.0}
    va, vb = (np.array([values.get(n, 0.4) for n in m.names]) for m in (a, b))
    np.testing.assert_allclose(a.photons(BINS, va), b.photons(BINS, vb), rtol=1e-13)
    np.testing.assert_allclose(a.photons(BINS, va, absorbed=False), powerlaw(BINS, 2.0) + 3 * bbody(BINS, 0.7), rtol=1e-13)


def test_a_flux_is_an_integral():
    m = SpectralModel("powerlaw")
    assert band_flux(m, [1.8, 1], 2, 10) / ERG == pytest.approx((10**0.2 - 2**0.2) / 0.2, rel=1e-5)
    assert band_flux(m, [1.8, 1], 2, 10, photons=True) == pytest.approx((2**-0.8 - 10**-0.8) / 0.8, rel=1e-9)


# --- statistics ---------------------------------------------------------------------------------------------------


counts = st.integers(0, 50).map(float)
positive = st.floats(1e-3, 50)


@settings(max_examples=200, deadline=None)
@given(counts, positive, counts, st.floats(0.05, 100))
def test_wstat_is_the_least_over_all_backgrounds(s, mu, b, r):
    def cost(x):
        return float(cstat(np.float64(s), mu + x) + cstat(np.float64(b), r * x))

    found = optimize.minimize_scalar(cost, bounds=(0, s + b / r + 1), method="bounded", options={"xatol": 1e-10})
    least = min(found.fun, cost(0.0))
    w = float(wstat(np.float64(s), mu, np.float64(b), r))
    assert w <= least + 1e-7 * (1 + abs(least))
    assert w == pytest.approx(cost(float(wstat_background(np.float64(s), mu, np.float64(b), r))), abs=1e-8)


@settings(max_examples=200, deadline=None)
@given(counts, positive, counts, st.floats(0.05, 100), st.floats(0.01, 10))
def test_pgstat_is_the_least_over_all_backgrounds(s, mu, b, r, sigma):
    def cost(x):
        return float(cstat(np.float64(s), mu + x) + ((b - r * x) / sigma) ** 2)

    found = optimize.minimize_scalar(cost, bounds=(0, s + b / r + 1 + 10 * sigma / r), method="bounded", options={"xatol": 1e-10})
    least, got = min(found.fun, cost(0.0)), float(pgstat(np.float64(s), mu, np.float64(b), r, sigma))
    assert got <= least + 1e-6 * (1 + abs(least))
    assert got == pytest.approx(cost(float(pgstat_background(np.float64(s), mu, np.float64(b), r, sigma))), abs=1e-8)


def test_statistics_without_counts_or_background():
    zero, one = np.zeros(1), np.ones(1)
    for stat in (cstat(zero, zero), wstat(zero, zero, zero, one), pgstat(zero, zero, zero, one, zero)):
        np.testing.assert_array_equal(stat, 0)
    assert np.isfinite(cstat(one, zero)).all() and cstat(one, zero)[0] > 100
    assert wstat(one, zero, zero, one)[0] == pytest.approx(2 * np.log(2))  # XSPEC: -2 (r m + S ln(1/(1+r)))
    np.testing.assert_allclose(pgstat(one, one, np.array([4.0]), np.array([4.0]), zero), cstat(one, one + 1))  # sigma 0: known


def test_large_background_ratio_knows_the_background():
    s, mu, b = np.arange(6.0), np.full(6, 1.3), np.full(6, 7e5)
    np.testing.assert_allclose(wstat(s, mu, b, 1e6), cstat(s, mu + 0.7), atol=1e-5)


def test_the_slope_is_the_derivative():
    rng = np.random.default_rng(0)
    s, mu = rng.poisson(3, 100).astype(float), rng.uniform(0.5, 6, 100)
    numeric = (cstat(s, mu + 1e-6) - cstat(s, mu - 1e-6)) / 2e-6
    np.testing.assert_allclose(slope(s, mu), numeric, atol=1e-7)


@pytest.mark.parametrize("mu", [1e-3, 0.1, 1.5, 30, 250])
def test_the_expected_statistic_is_its_mean(mu):
    n = np.random.default_rng(1).poisson(mu, 200_000).astype(float)
    c, (mean, variance) = cstat(n, np.full(len(n), mu)), expected_cstat(mu)
    assert abs(c.mean() - mean[0]) < 5 * np.sqrt(variance[0] / len(n)) + 0.005 * (mu >= 200)
    assert cstat(np.float64(3), 2.0) == pytest.approx(2 * (stats.poisson.logpmf(3, 3) - stats.poisson.logpmf(3, 2)))
