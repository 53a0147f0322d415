"""Posteriors of spectral fits: priors, likelihood, evidence against a grid, and what must be refused."""

import numpy as np
import pytest

from xrt_nb._optional import MissingExtra, installed
from xrt_nb.ogip import Spectrum, simulated_response
from xrt_nb.posteriors import Belief, compare_models, sample_posterior
from xrt_nb.spectra import fit_spectrum, simulate_spectrum
from xrt_nb.spectral_models import SpectrumError

needs_nautilus = pytest.mark.skipif(not installed("nautilus"), reason="nautilus-sampler (extra fit) is not installed")


@pytest.fixture(scope="module")
def seen():
    rmf, arf = simulated_response()
    blank = Spectrum(rmf.channels, np.zeros(rmf.n_channels, int), 20_000.0, rmf=rmf, arf=arf)
    return simulate_spectrum(blank, "tbabs*powerlaw", {"nH": 0.2, "Gamma": 1.8}, counts=60, random_state=3)


def test_the_cube_covers_the_priors_and_the_counts(seen):
    fit = fit_spectrum(seen, "tbabs*(powerlaw+bbody)")
    belief = Belief(fit, {"Gamma": (0, 3)})
    low, high = belief.values(np.zeros(belief.n)), belief.values(np.ones(belief.n))
    k = fit.model.index("Gamma")
    assert (low[k], high[k]) == (pytest.approx(0), pytest.approx(3))
    d, shapes = fit.objective.full, fit.model.shapes(fit.objective.full.bins, high)
    made = high[fit.model.norms] * (shapes @ d.matrix.sum(axis=0))
    np.testing.assert_allclose(made, 3 * d.counts.sum(), rtol=1e-9)


def test_the_likelihood_is_the_statistic(seen):
    fit = fit_spectrum(seen)
    belief, rng = Belief(fit), np.random.default_rng(0)
    for cube in rng.uniform(0.2, 0.8, (5, belief.n)):
        v = belief.values(cube)
        assert belief.log_likelihood(cube) == pytest.approx(-0.5 * fit.objective.value(fit.objective.x_of(v)), rel=1e-6)


@needs_nautilus
def test_a_posterior_twice_is_the_same_and_holds_a_fixed_value(seen):
    fit = fit_spectrum(seen, fixed={"nH": 0.2})
    a, b = (sample_posterior(fit, n_live=100, n_eff=200, random_state=4) for _ in range(2))
    assert a.log_evidence == b.log_evidence and a.samples.equals(b.samples)
    assert (a.samples.nH == 0.2).all() and list(a.table().index) == ["Gamma", "norm"]
    assert abs(a.table().loc["Gamma", "median"] - fit.parameters["Gamma"]) < 0.3
    other = fit_spectrum(seen, energy_range=(1, 5))
    with pytest.raises(SpectrumError, match="same counts"):
        compare_models({"a": a, "b": type(a)(other, a.samples, 0.0, 1, {})})


@pytest.mark.parametrize(("priors", "why"), [
    ({"Gamma": (3, 1)}, "must rise"), ({"nH": (0, 1)}, "must rise above 0"), ({"norm": (1, 2)}, "is a norm or fixed"),
    ({"kT": (1, 2)}, "has no parameter"), ({"Gamma": 3}, "must be")])
def test_priors_that_cannot_be(seen, priors, why):
    with pytest.raises(SpectrumError, match=why):
        Belief(fit_spectrum(seen), priors)


def test_without_the_extra_the_command_is_said(seen, monkeypatch):
    import sys
    monkeypatch.setitem(sys.modules, "nautilus", None)
    with pytest.raises(MissingExtra, match="xrt_nb\\[fit\\]"):
        sample_posterior(fit_spectrum(seen))
    with pytest.raises(SpectrumError, match="needs free norms"):
        Belief(fit_spectrum(seen, fixed={"norm": 1e-4}))
