"""Counterparts: against brute force, across RA 0 and the poles, calibrated on known truth, and by TAP upload through PyVO to a small server."""
import io
import re
import warnings
from email import message_from_bytes

import numpy as np
import pandas as pd
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import votable
from astropy.table import MaskedColumn, QTable, Table
from astropy.time import Time
from astropy.utils.masked import Masked
from xrt_nb import counterparts as C
from tests.support.http_server import HTTPServer, Response
from xrt_nb.catalogs import CatalogError, Tap
from xrt_nb.counterparts import (CATALOGS, Positions, SkyCatalog, best_matches, catalog_positions, catalog_query, completeness_purity, covariance, fetch_catalog, likelihood,
                                 match, match_catalog, match_probability, moved, offsets, plot_reliability, positions, reliability, simulate_counterparts)
from xrt_nb.data import EventDataError, XRTWarning

PLACES = [(150.0, 2.0), (0.0, -30.0), (359.999, 60.0), (123.0, 90.0), (7.0, -90.0), (200.0, 89.9)]


def brute_force(a, b, n_sigma=5.0, outer=None, prior=0.7):
    "All pairs by astropy, one by one, with its own offset frames and matrices of numpy."
    top = lambda c: np.linalg.eigvalsh([[c[0], c[2]], [c[2], c[1]]])[-1]
    most = max(top(c) for c in b.cov)
    inner = [n_sigma * np.sqrt(top(c) + most) for c in a.cov]
    outer = outer or max(60.0, 2 * max(inner))
    there, rows, n, area = SkyCoord(b.ra, b.dec, unit="deg"), [], np.zeros(len(a)), []
    for k in range(len(a)):
        here = SkyCoord(a.ra[k], a.dec[k], unit="deg")
        sep = here.separation(there).arcsec
        n[k] = ((sep > inner[k]) & (sep <= outer)).sum()
        area.append(np.pi * (outer**2 - inner[k]**2))
        for j in np.flatnonzero(sep <= inner[k]):
            east, north = (v.to_value("arcsec") for v in here.spherical_offsets_to(there[j]))
            turn = (here.position_angle(there[j]) - there[j].position_angle(here)).rad + np.pi if sep[j] > 1e-7 else 0.0 # of north, on the way there
            rot = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
            cb = rot @ np.array([[b.cov[j, 0], b.cov[j, 2]], [b.cov[j, 2], b.cov[j, 1]]]) @ rot.T
            c = np.array([[a.cov[k, 0], a.cov[k, 2]], [a.cov[k, 2], a.cov[k, 1]]]) + cb
            d = np.array([east, north])
            q = d @ np.linalg.inv(c) @ d
            rows.append((k, j, sep[j], np.sqrt(q), np.exp(-q / 2) / (2 * np.pi * np.sqrt(np.linalg.det(c)))))
    area, mean = np.array(area), max(n.sum(), 1) / sum(area)
    out = []
    for k in range(len(a)):
        mine = [r for r in rows if r[0] == k]
        density = (n[k] + 1) / (area[k] + 1 / mean)
        odds = [prior * r[4] / density for r in mine]
        out += [(a.id[k], b.id[r[1]], r[2], r[3], o / (1 - prior + sum(odds)), len(mine), density) for r, o in zip(mine, odds)]
    return pd.DataFrame(out, columns=["id", "match", "separation", "normalized_distance", "p", "n_candidates", "density"])


@pytest.mark.parametrize("centre", PLACES)
def test_brute_force_agrees_everywhere_on_the_sky(centre):
    a, b, _ = simulate_counterparts(40, density=(0.005, 0.01), size=300, center=centre, rng=3)
    rng = np.random.default_rng(1)
    b.cov = covariance(rng.uniform(0.2, 1.5, len(b)), rng.uniform(0.05, 0.2, len(b)), rng.uniform(0, 180, len(b))) # long ellipses: their direction matters
    ours = match(a, b, prior=0.7)
    want = brute_force(a, b)
    both = ours.merge(want, on=["id", "match"], suffixes=("", "_want"))
    assert len(both) == len(ours) == len(want) > 40
    for c in ("separation", "normalized_distance", "p", "n_candidates", "density"): np.testing.assert_allclose(both[c], both[c + "_want"], rtol=2e-4, atol=1e-6, err_msg=c)


def test_the_textbook_formula_for_circles():
    "Budavari & Szalay 2008, eq. 16 and 17: B = 2/(s1^2+s2^2) exp(-psi^2/2(s1^2+s2^2)), posterior 1/(1 + (1-P0)/(B P0))."
    a = positions(pd.DataFrame({"ra": [10.0], "dec": [20.0]}), 0.5)
    b = positions(pd.DataFrame({"ra": [10.0003, 10.01], "dec": [20.0, 20.005]}), 0.3)
    got = match(a, b, prior=0.4)
    s2, psi = (0.5**2 + 0.3**2) / C.ARCSEC**2, got.separation[0] / C.ARCSEC
    bayes = 2 / s2 * np.exp(-psi**2 / 2 / s2)
    sky_density = got.density[0] * C.ARCSEC**2 # per steradian
    prior_odds = 0.4 / (4 * np.pi * sky_density) / (1 - 0.4)
    assert got.p[0] == pytest.approx(bayes * prior_odds / (1 + bayes * prior_odds), rel=1e-9)


def test_turning_the_sky_changes_nothing():
    "The same field over RA 0, at the equator and at mid-latitudes gives the same probabilities."
    results = []
    for centre in [(150.0, 0.0), (0.0, 0.0), (0.0, 45.0), (359.9999, -60.0)]:
        a, b, _ = simulate_counterparts(100, size=400, center=centre, rng=8)
        results.append(match(a, b))
    for r in results[1:]:
        assert r[["id", "match"]].equals(results[0][["id", "match"]])
        np.testing.assert_allclose(r[["separation", "p"]], results[0][["separation", "p"]], rtol=2e-2, atol=2e-3)


def test_order_of_rows_does_not_matter():
    a, b, _ = simulate_counterparts(80, size=400, rng=2)
    rng = np.random.default_rng(0)
    i, j = rng.permutation(len(a)), rng.permutation(len(b))
    one, two = match(a, b), match(a[i], b[j])
    key = ["id", "match"]
    pd.testing.assert_frame_equal(one.sort_values(key, ignore_index=True), two.sort_values(key, ignore_index=True), rtol=1e-9)
    assert one.attrs["prior"] == pytest.approx(two.attrs["prior"]) and match(a, b).equals(one)


def test_probabilities_are_probabilities():
    a, b, truth = simulate_counterparts(500, density=(0.01, 0.04), size=600, rng=5)
    pairs = match(a, b)
    assert pairs.p.between(0, 1).all() and (pairs.groupby("id").p.sum() <= 1 + 1e-9).all()
    np.testing.assert_allclose(pairs.groupby("id").p.sum(), pairs.groupby("id").p_any.first())
    assert (pairs.sort_values(["id", "rank"]).groupby("id").p.diff().dropna() <= 1e-15).all()
    best = best_matches(pairs, a)
    assert best.index.tolist() == a.id.tolist() and best.n_candidates.sum() == len(pairs)
    assert (best[best.n_candidates == 0].match == "").all() and pairs.attrs["n_sources"] == 500


@pytest.mark.parametrize("density, prior, centre", [((0.002, 0.02), 0.7, (0.0, 10.0)), ((0.01, 0.01), 0.3, (80.0, -67.0)), ((0.0005, 0.002), 0.95, (359.0, 30.0))])
def test_calibrated_on_known_truth(density, prior, centre):
    a, b, truth = simulate_counterparts(4000, density=density, prior=prior, center=centre, size=1800, rng=11)
    pairs = match(a, b)
    t = reliability(pairs, truth)
    t = t[t.n > 10]
    chi2 = (((t.fraction - t.mean_p) / t.error)**2).sum()
    assert chi2 < len(t) + 4 * np.sqrt(2 * len(t)), t
    assert abs(pairs.attrs["prior"] - len(truth) / len(a)) < 0.04
    assert pairs.p.sum() == pytest.approx((pairs.match == pairs.id.map(truth)).sum(), rel=0.05)


def test_a_wrong_error_is_found_out():
    "The test of calibration can fail: errors taken for half of what they are."
    a, b, truth = simulate_counterparts(4000, size=1800, rng=11)
    a.cov = a.cov / 4
    t = reliability(match(a, b), truth)
    t = t[t.n > 10]
    assert (((t.fraction - t.mean_p) / t.error)**2).sum() > 100


def test_completeness_and_purity(ax):
    a, b, truth = simulate_counterparts(1500, size=1200, rng=6)
    pairs = match(a, b)
    curve = completeness_purity(pairs, truth)
    assert (np.diff(curve.completeness) <= 0).all() and curve.purity.iloc[-1] > curve.purity.iloc[0]
    top = pairs[pairs["rank"] == 1]
    kept = top[top.p >= curve.cut[60]]
    right = (kept.match == kept.id.map(truth)).sum()
    assert (curve.completeness[60], curve.purity[60]) == pytest.approx((right / len(truth), right / len(kept)))
    assert plot_reliability(reliability(pairs, truth), ax) is ax and "probability" in ax.get_xlabel()


def test_proper_motions():
    rng = np.random.default_rng(3)
    n = 60
    ra, dec = rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
    dec[:2] = 89.9995, -89.9995
    stars = pd.DataFrame({"ra": ra, "dec": dec, "pmra": rng.normal(0, 800, n), "pmdec": rng.normal(0, 800, n)})
    b = positions(stars, 0.05, pmra="pmra", pmdec="pmdec", epoch=2016.0)
    then = np.round(rng.uniform(2000, 2016, n), 1)
    sky = SkyCoord(ra * u.deg, dec * u.deg, pm_ra_cosdec=stars.pmra.to_numpy() * u.mas / u.yr, pm_dec=stars.pmdec.to_numpy() * u.mas / u.yr, distance=10 * u.pc, obstime="J2016")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore") # "dubious year" of the space motion library
        seen = [s.apply_space_motion(new_obstime=Time(t, format="jyear")) for s, t in zip(sky, then)]
    a = positions(pd.DataFrame({"ra": [s.ra.deg for s in seen], "dec": [s.dec.deg for s in seen], "when": then}), 0.05, epoch="when")
    got = match(a, b, prior=0.9, density=1e-5, density_radius=30)
    best = best_matches(got, a)
    assert (best.match == best.index).all() and best.separation.max() < 0.02
    still = match(a, replace_epoch(b), prior=0.9, density=1e-5, density_radius=30)
    assert len(still) < n / 2
    back = moved(moved(b, 1980.0), 2016.0)
    assert offsets(b, back)[0].max() < 0.02


def replace_epoch(b): return Positions(b.name, b.id, b.ra, b.dec, b.cov)


def test_units_errors_and_confidence():
    t = Table({"ra": [1.0] * u.hourangle, "dec": [60.0] * u.arcmin, "e": [2447.7468] * u.mas})
    p = positions(t, "e", confidence=0.95)
    assert (p.ra[0], p.dec[0]) == pytest.approx((15.0, 1.0)) and np.sqrt(p.cov[0, 0]) == pytest.approx(1.0, rel=1e-4)
    assert positions(t, "e", confidence="radial").cov[0, 0] == pytest.approx(2.4477468**2 / 2)
    assert positions(t, 0.3, systematic=0.4).cov[0].tolist() == pytest.approx([0.25, 0.25, 0])
    assert positions(t, (3.0, 1.0, 90.0)).cov[0].tolist() == pytest.approx([9, 1, 0])
    draws = np.random.default_rng(0).normal(size=(20_000, 2))
    assert (np.hypot(*draws.T) < 1 / C._sigma(0.9)).mean() == pytest.approx(0.9, abs=0.01)
    with pytest.raises(ValueError, match="`confidence`"): positions(t, 1.0, confidence=2.0)


def test_bad_rows_are_refused_by_number():
    f = pd.DataFrame({"ra": [1.0, 2.0, np.nan], "dec": [0.0, 1.0, 2.0], "e": [1.0, 1.0, 1.0]})
    with pytest.raises(EventDataError, match="X: column 'ra' in row 2 is no number"): positions(f, "e", name="X")
    with pytest.raises(EventDataError, match="column 'dec' in row 1 is 91, beyond the pole"): positions(f.assign(ra=1, dec=[0, 91, 0]), "e")
    with pytest.raises(EventDataError, match="column 'e' in row 0"): positions(f.assign(ra=1, e=[np.inf, 1, 1]), "e")
    with pytest.raises(EventDataError, match="column 'e' in row 1 is -1, but an error must be positive"): positions(f.assign(ra=1, e=[1, -1, 1]), "e")
    with pytest.raises(EventDataError, match="column 'ra' in row 0"): positions(Table({"ra": np.ma.array([1.0, 2.0], mask=[1, 0]), "dec": [1.0, 1.0]}), 1.0)
    with pytest.raises(EventDataError, match="column 'ra' is not numeric: row 1 holds 'east'"): positions(pd.DataFrame({"ra": ["1", "east"], "dec": [0, 0]}), 1.0)
    with pytest.raises(EventDataError, match="no column 'err'"): positions(f[:2], "err")


def kinds_of(gone, unit):
    "A column with missing rows as every library writes it; what lies beneath a mask is always a number of somebody else's."
    gone = np.asarray(gone)
    yield "Table", lambda cols: Table({k: MaskedColumn(np.where(gone, 7777.0, c), mask=gone, unit=unit) for k, c in cols.items()})
    yield "QTable", lambda cols: QTable({k: MaskedColumn(np.where(gone, 7777.0, c), mask=gone, unit=unit) for k, c in cols.items()})
    yield "Masked quantity", lambda cols: QTable({k: Masked(np.where(gone, 7777.0, c) * u.Unit(unit), mask=gone) for k, c in cols.items()})
    yield "bare masked array", lambda cols: Table({k: np.ma.array(np.where(gone, 7777.0, c), mask=gone) for k, c in cols.items()}, masked=True)
    yield "pandas NaN", lambda cols: pd.DataFrame({k: np.where(gone, np.nan, c) for k, c in cols.items()})
    yield "pandas nullable", lambda cols: pd.DataFrame({k: pd.array(np.where(gone, np.nan, c)).astype("Float64") for k, c in cols.items()})
    yield "pandas Arrow", lambda cols: pd.DataFrame({k: pd.array(np.where(gone, np.nan, c), dtype="double[pyarrow]") for k, c in cols.items()})
    yield "pandas objects", lambda cols: pd.DataFrame({k: pd.Series([None if g else x for g, x in zip(gone, c)], dtype=object) for k, c in cols.items()})
    yield "big-endian", lambda cols: Table({k: MaskedColumn(np.where(gone, 7777.0, c).astype(">f4"), mask=gone, unit=unit) for k, c in cols.items()})


KINDS = [k for k, _ in kinds_of([False], "mas/yr")]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_beneath_a_mask_gets_out(kind):
    gone, east, north = np.array([True, False, True]), np.array([1.0, 300.0, 3.0]), np.array([2.0, 400.0, 4.0])
    t = dict(kinds_of(gone, "mas/yr"))[kind]({"pmra": east, "pmdec": north})
    for c, v in (("ra", [10.0, 20.0, 30.0]), ("dec", [1.0, 2.0, 3.0])): t[c] = v
    assert positions(t, 0.1, pmra="pmra", pmdec="pmdec").motion.tolist() == [[0, 0], [300, 400], [0, 0]]
    t = dict(kinds_of(gone, "deg"))[kind]({"x": east / 10})
    for c, v in (("ra", [10.0, 20.0, 30.0]), ("dec", [1.0, 2.0, 3.0])): t[c] = v
    for args in (dict(error=0.1, ra="x"), dict(error=0.1, dec="x"), dict(error="x", systematic=0.1), dict(error=("x", 0.1, 0.0), systematic=0.1)):
        with pytest.raises(EventDataError, match="column 'x' in row 0 is no number .2 such rows"): positions(t, **args)
    with pytest.raises(EventDataError, match="row 0|can't be turned"): positions(t, 0.1, epoch="x")
    with pytest.raises(EventDataError, match="the id in row 0 is missing .2 such rows"): positions(t, 0.1, id="x")


@pytest.mark.parametrize("value", [-9.0, -99.0, -999.0, -9999.0, -99.9, -1.0, 99.0, 99.99, 999.0, 999.9, 9999.0, np.float32(99.9), np.inf, -np.inf, np.nan])
def test_stand_ins_for_errors_are_named_never_used(value):
    t = pd.DataFrame({"ra": [1.0, 2.0], "dec": [3.0, 4.0], "e": [0.5, value], "f": [0.5, 0.5]})
    for error in ("e", ("e", "f", 0.0), ("f", "e", 0.0)):
        for systematic in (0.0, 0.3):
            with pytest.raises(EventDataError, match="column 'e' in row 1 .*1 such rows"): positions(t, error, systematic=systematic)


@pytest.mark.parametrize("column, value", [("ra", v) for v in (-99.0, -999.0, -9999.0, 999.0, 9999.0, 360.1, -181.0, np.inf)] + [("dec", v) for v in (-99.0, 99.0, -999.0, 90.1, np.inf)])
def test_stand_ins_for_places_are_named_never_used(column, value):
    t = pd.DataFrame({"ra": [1.0, 2.0], "dec": [3.0, 4.0]}).assign(**{column: [1.0, value]})
    with pytest.raises(EventDataError, match=f"column '{column}' in row 1"): positions(t, 0.5)


def test_honest_numbers_are_taken():
    t = pd.DataFrame({"ra": [-0.5, 99.0, 360.0, 9.9], "dec": [-90.0, 90.0, 9.99, -9.0], "e": [0.99, 9.0, 98.9, 1e-4], "pa": [99.0, -45.0, 180.0, 0.0]})
    p = positions(t, ("e", 0.1, "pa"))
    assert p.ra.tolist() == [359.5, 99.0, 0.0, 9.9] and p.dec.tolist() == t.dec.tolist()


def test_half_a_motion_and_impossible_ones():
    t = pd.DataFrame({"ra": [1.0, 2.0, 3.0], "dec": [3.0, 4.0, 5.0], "a": [5.0, -999.0, 7.0], "b": [np.nan, -999.0, 8.0]})
    with pytest.warns(XRTWarning, match="1 objects have a proper motion in one direction only"): got = positions(t, 0.5, pmra="a", pmdec="b").motion
    assert got.tolist() == [[0, 0], [0, 0], [7, 8]]
    with pytest.raises(EventDataError, match="faster than any star"): positions(t.assign(a=[1.0, 2.0, 30_000.0], b=1.0), 0.5, pmra="a", pmdec="b")
    for half in (dict(pmra="a"), dict(pmdec="b")):
        with pytest.raises(ValueError, match="belong together"): positions(t, 0.5, **half)


@pytest.mark.parametrize("epoch", [2004.0, 2004, "J2004.0", "2004-01-01T12:00:00", Time(2004.0, format="jyear"), Time([2004.0, 2004.0], format="jyear"), 2004.0 * u.yr, np.float32(2004)])
def test_epochs_of_every_kind(epoch):
    t = pd.DataFrame({"ra": [1.0, 2.0], "dec": [3.0, 4.0]})
    assert positions(t, 0.5, epoch=epoch).epoch == pytest.approx([2004.0, 2004.0], abs=0.003)
    table = QTable({"ra": [1.0, 2.0], "dec": [3.0, 4.0]})
    if not isinstance(epoch, Time) or epoch.shape: table["when"] = epoch if getattr(epoch, "shape", ()) else [epoch, epoch]
    if "when" in table.colnames and not isinstance(epoch, str): assert positions(table, 0.5, epoch="when").epoch == pytest.approx([2004.0, 2004.0], abs=0.003)


@pytest.mark.parametrize("epoch", [53005.0, 2453005.5, 0.0, -999.0, 4.0, np.nan, [2004.0, np.nan], "yesterday", Time(2004.0, format="jyear").mjd])
def test_epochs_that_are_no_years_are_named(epoch):
    t = pd.DataFrame({"ra": [1.0, 2.0], "dec": [3.0, 4.0], "when": epoch})
    with pytest.raises(EventDataError, match="no year|no number|no column|not numeric"): positions(t, 0.5, epoch="when")
    a = Positions("mine", np.array(["a"], dtype=object), np.array([1.0]), np.array([1.0]), np.array([[1.0, 1, 0]]), None, np.array([53005.0]))
    with pytest.raises(EventDataError, match="mine: column 'epoch' in row 0 is 53005, which is no year"): match(a, a, prior=0.5)


def test_motions_without_epochs_are_said():
    t = pd.DataFrame({"ra": [1.0], "dec": [3.0], "a": [5000.0], "b": [0.0]})
    x, star = positions(t, 0.5, name="mine"), positions(t, 0.5, pmra="a", pmdec="b", epoch=2016.0, name="stars")
    still = positions(t, 0.5, pmra="a", pmdec="b", name="stars")
    for a, b, who in ((x, star, "mine"), (x, still, "mine and stars"), (positions(t, 0.5, epoch=2004.0), still, "stars")):
        with pytest.warns(XRTWarning) as said: match(a, b, prior=0.5, density=1e-5)
        assert any(f"{who}: no epochs" in str(w.message) and "5 arcsec a year" in str(w.message) for w in said)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(XRTWarning, match="not one unrelated"): match(x, positions(t.assign(a=0.0), 0.5, pmra="a", pmdec="b"), prior=0.5)


def test_duplicates_and_empty_tables():
    f = pd.DataFrame({"ra": [10.0, 10.0], "dec": [5.0, 5.0], "n": ["a", "b"]})
    a, b = positions(f[:1], 1.0), positions(f, 0.1, id="n", name="other")
    with pytest.warns(XRTWarning) as said: got = match(a, b, prior=0.5)
    assert any("1 objects lie exactly where another one does" in str(w.message) for w in said) and any("not one unrelated object" in str(w.message) for w in said)
    assert got.p.tolist() == pytest.approx([got.p_any[0] / 2] * 2)
    with pytest.raises(EventDataError, match="no positions to match"): match(a[:0], b)
    with pytest.warns(XRTWarning, match="not one unrelated"): assert match(a, b[:0]).empty
    with pytest.raises(ValueError, match="`prior`"): match_probability(np.ones(1), np.zeros(1, int), 1, prior=0.0)
    with pytest.raises(ValueError, match="`n_sigma`"): match(a, b, n_sigma=0)


def test_likelihood_integrates_to_one():
    x = np.linspace(-12, 12, 481)
    d = np.stack(np.meshgrid(x, x), -1).reshape(-1, 2)
    for cov in ([1, 4, 0.5], [2, 2, -1.5]): assert likelihood(d, np.broadcast_to(np.array(cov, float), (len(d), 3)))[1].sum() * 0.05**2 == pytest.approx(1, abs=1e-4)


# --- a TAP server of this machine ----------------------------------------------------------------------------------


class TapServer:
    "Answers uploads with everything within the radius of the query, through the real PyVO client."
    def __init__(self, cat, frame, limit=1000): self.cat, self.frame, self.limit, self.queries = cat, frame, limit, []

    def answer(self, body, kind):
        parts = {p.get_param("name", header="content-disposition"): p.get_payload(decode=True) for p in message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body).get_payload()}
        adql, limit = parts["QUERY"].decode(), min(int(parts.get("MAXREC", self.limit)), self.limit)
        self.queries.append((adql, limit))
        assert parts["UPLOAD"].decode().startswith("positions,param:"), parts["UPLOAD"]
        up = votable.parse_single_table(io.BytesIO(parts[parts["UPLOAD"].decode().split("param:")[1]])).to_table()
        asked = re.findall(r'c\."([^"]+)"', adql.split("FROM")[0])
        if unknown := [c for c in asked if c not in self.frame]: return self.refuse(f"column {unknown[0]} not found")
        radius = float(re.search(r"CIRCLE\('ICRS', u.ra, u.dec, ([0-9.]+)\)", adql)[1])
        here, there = SkyCoord(up["ra"], up["dec"], unit="deg"), SkyCoord(self.frame[self.cat.ra], self.frame[self.cat.dec], unit="deg")
        rows = [(i, j) for i in range(len(up)) for j in np.flatnonzero(here[i].separation(there).deg <= radius)]
        i, j = np.array(rows[:limit], dtype=int).reshape(-1, 2).T
        t = Table({"n": np.asarray(up["n"])[i]} | {c: self.frame[c].to_numpy()[j] if self.frame[c].dtype.kind in "if" else self.frame[c].to_numpy(str)[j] for c in asked})
        out, raw = votable.from_table(t), io.BytesIO()
        out.resources[0].infos.append(votable.tree.Info(name="QUERY_STATUS", value="OVERFLOW" if len(rows) > limit else "OK"))
        out.to_xml(raw)
        return raw.getvalue()

    def refuse(self, text):
        return f"<VOTABLE version='1.3'><RESOURCE type='results'><INFO name='QUERY_STATUS' value='ERROR'>{text}</INFO></RESOURCE></VOTABLE>".encode()

    def __enter__(self):
        self.server = HTTPServer().__enter__()
        self.server.expect_request("/tap/sync").respond_with_handler(lambda r: Response(self.answer(r.data, r.headers["Content-Type"]), headers={"Content-Type": "application/x-votable+xml"}))
        self.url = self.server.url_for("/tap")
        return self

    def __exit__(self, *why): self.server.__exit__(*why)


@pytest.fixture(scope="module")
def gaia_like():
    a, b, truth = simulate_counterparts(60, density=(0.004, 0.008), size=400, center=(0.0, 40.0), rng=9)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"Source": 4_000_000_000_000_000_000 + np.arange(len(b)), "RA_ICRS": b.ra, "DE_ICRS": b.dec, "e_RA_ICRS": 1000 * np.sqrt(b.cov[:, 0]), "e_DE_ICRS": 1000 * np.sqrt(b.cov[:, 1])})
    return a, b, frame.assign(**{c: rng.normal(15, 1, len(b)) for c in ("Gmag", "BPmag", "RPmag", "Plx", "e_Plx")}, **dict.fromkeys(("pmRA", "pmDE"), np.where(np.arange(len(b)) % 3, 0.0, np.nan)))


def test_upload_through_pyvo_gives_the_local_match(gaia_like, tmp_path):
    a, b, frame = gaia_like
    with TapServer(CATALOGS["gaia"], frame, limit=300) as server:
        tap = Tap(server.url, cache=tmp_path / "kept")
        got = match_catalog(a, "gaia", 40, tap=tap, chunk=25, prior=0.7, progress=False)
        assert len(server.queries) > 6 # three chunks, and halves of those that were cut off
        asked = len(server.queries)
        again = match_catalog(a, "gaia", 40, tap=tap, chunk=25, prior=0.7, progress=False)
        assert len(server.queries) == asked and again.equals(got) # from the kept answers
    want = match(a, b, density_radius=40, prior=0.7)
    assert got["match"].tolist() == [str(4_000_000_000_000_000_000 + int(m[1:])) for m in want["match"]] # 19 digits survive
    np.testing.assert_allclose(got[["separation", "p"]], want[["separation", "p"]], rtol=1e-6)
    mags = frame.assign(id=frame.Source.astype(str)).set_index("id").Gmag
    np.testing.assert_allclose(got.Gmag, mags[got["match"]])
    assert server.queries[0][0] == catalog_query(CATALOGS["gaia"], 40)


def test_services_that_cut_or_refuse(gaia_like, tmp_path):
    a, b, frame = gaia_like
    with TapServer(CATALOGS["gaia"], frame, limit=5) as server, pytest.raises(CatalogError, match="alone are truncated at 5 rows"):
        fetch_catalog(a, "gaia", 40, tap=Tap(server.url, cache=False), progress=False)
    with TapServer(CATALOGS["gaia"], frame.drop(columns="Gmag")) as server, pytest.raises(CatalogError, match="column Gmag not found"):
        fetch_catalog(a, "gaia", 40, tap=Tap(server.url, cache=False), progress=False)
    with pytest.raises(ValueError, match="`catalog` must be one of"): match_catalog(a, "sloan", progress=False)
    with TapServer(CATALOGS["gaia"], frame[:0]) as server: assert match_catalog(a, "gaia", 40, tap=Tap(server.url, cache=False), progress=False).empty


@pytest.mark.parametrize("name", CATALOGS)
def test_every_catalog_of_the_list_can_be_read(name):
    cat = CATALOGS[name]
    q = catalog_query(cat, 10)
    assert q.count("TAP_UPLOAD.positions") == 1 and all(f'"{c}"' in q for c in (cat.id, cat.ra, cat.dec, *cat.error)) and "0.002777778" in q
    frame = pd.DataFrame({cat.id: ["x", "y"], cat.ra: [0.1, 359.9], cat.dec: [-5.0, 5.0]} | {c: [500.0 if cat.unit == "mas" else 0.5] * 2 for c in cat.error[:2]} | {c: [0.0, 10.0] for c in (*cat.error[2:], *cat.motion)})
    p = catalog_positions(frame, cat)
    assert p.cov[0, :2] == pytest.approx([0.125 if cat.confidence == "radial" else 0.25] * 2)
    frame.loc[1, list(cat.error[:2])] = np.nan
    if cat.default_error: assert catalog_positions(frame, cat).cov[1, 0] == pytest.approx(1.0)
    else:
        with pytest.warns(XRTWarning, match="1 of 2 objects have no position error"): assert len(catalog_positions(frame, cat)) == 1


def test_names_of_columns_are_quoted():
    assert 'c."a""b"' in catalog_query(SkyCatalog("x", "t", 'a"b', "ra", "dec", ("e",)), 1)
