"""Gregory–Loredo odds and hardness ratios against the plain way, in one run.

    python benchmarks/bench_properties.py [--sources 2000]

Prints ratios (the machine's speed cancels) and how far the numbers agree.
"""

import argparse

import numpy as np
import pandas as pd
from scipy.special import betainc, gammaln
from scipy.stats import poisson

from stopwatch import seconds

from xrt_nb.data import EventList
from xrt_nb.properties import _own_photons, gregory_loredo, gregory_loredo_table, hardness_ratio
from xrt_nb.simulation import simulate_archive

SPAN = 25e3


def plain_odds(t, m_max):
    "One numpy.histogram for each number of bins."
    out = np.empty(m_max - 1)
    for m in range(2, m_max + 1):
        counts = np.histogram(t, m, (0, SPAN))[0]
        out[m - 2] = gammaln(counts + 1).sum() + len(t) * np.log(m) + gammaln(m) - gammaln(len(t) + m)
    return out


def plain_hardness(h, s, hb, sb, r, rng, n=20_000):
    "Draws from the two posteriors on a fine grid of rates: what one does without the mixture."
    draws = []
    for x, b in ((h, hb), (s, sb)):
        lam = (np.arange(2000) + 0.5) / 2000 * (x + 9 * np.sqrt(x + 1) + 5)
        xi = (np.arange(200) + 0.5) / 200 * (b + 9 * np.sqrt(b + 1) + 5) / r
        p = (poisson.pmf(x, lam[:, None] + xi) * poisson.pmf(b, r * xi)).sum(axis=1)
        draws.append(rng.choice(lam, n, p=p / p.sum()))
    hr = (draws[0] - draws[1]) / (draws[0] + draws[1])
    return hr.mean(), *np.quantile(hr, (0.16, 0.84))


def exact_cdf(u, h, s, hb, sb, r):
    "The mixture's cumulative distribution, term by term with scipy."
    (k, v), (j, w) = _own_photons(h, hb, r), _own_photons(s, sb, r)
    return (v[:, None] * w * betainc(k + 1 + np.arange(len(v))[:, None], j + 1 + np.arange(len(w)), u)).sum()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=int, default=2000)
    n_sources = parser.parse_args().sources
    rng = np.random.default_rng(11)

    for n in (20, 188, 1000, 10_000):
        t = np.sort(rng.uniform(0, SPAN, n))
        ev = EventList(t, id="flat", gti=[[0, SPAN]])
        gregory_loredo(ev)  # compiles
        slow, expected = seconds(lambda: plain_odds(t, 500), 2)
        fast, gl = seconds(lambda: gregory_loredo(ev, 500), 5)
        gap = np.abs(gl.log_odds_m - expected).max()
        print(f"{n:6,} photons, m up to 500: odds {slow / fast:6.1f} x faster than a numpy.histogram per m; largest difference {gap:.0e}")

    events, _ = simulate_archive(n_sources, random_state=11)
    slow, _ = seconds(lambda: [plain_odds(ev.time - ev.time[0], 500) for ev in events[:20]])
    fast, table = seconds(lambda: gregory_loredo_table(events, 500), 2)
    print(f"archive of {len(events):,} sources, {events.n_events:,} photons, m up to 500: {slow / 20 * len(events) / fast:.0f} x faster than a histogram per m; "
          f"{fast / len(events) * 1e3:.2f} ms per source")

    counts = [rng.poisson(m, 2000) for m in (20, 20, 30, 30)]
    slow, _ = seconds(lambda: [plain_hardness(*(c[i] for c in counts), 10.0, rng) for i in range(5)])
    fast, hr = seconds(lambda: hardness_ratio(*counts, 10.0), 2)
    off = max(abs(exact_cdf((hr[q + 1][i] + 1) / 2, *(float(c[i]) for c in counts), 10.0) - (0.16, 0.84)[q]) for i in range(100) for q in (0, 1))
    print(f"hardness ratios with background: {slow / 5 * 2000 / fast:.0f} x faster than drawing from two posteriors on a grid; {fast / 2000 * 1e3:.3f} ms each; "
          f"quantiles right to {off:.0e} in probability")
    for case in ((10**5, 10**5, 0, 0, 1.0), (10**5, 30_000, 10**5, 10**5, 10.0), (10**5, 10**5, 900_000, 900_000, 10.0)):
        took, out = seconds(lambda: hardness_ratio(*case))
        print(f"{case}: {took:.2f} s, " + pd.Series(out, ["mean", "low", "high"]).round(5).to_json())


if __name__ == "__main__":
    main()
