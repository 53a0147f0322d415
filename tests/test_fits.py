"""Event files of Chandra: golden numbers of XRT 200515, files put together by hand, and every way to be wrong."""
import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from xrt_nb.data import EventDataError, EventTable, XRTWarning, read_events
from xrt_nb.fits import EventFileError, Mission, Region, as_region, parse_id, read_event_list, read_fits_region, read_tables

SHARED = Path(__file__).parent.parent / os.environ.get("XRT_NB_SHARED", "../shared") / "data"
REAL = SHARED / "xrt200515"
EVT, REG, THEIRS = REAL / "acisf23022_000N027_r0122_regevt3.fits.gz", REAL / "acisf23022_000N020_r0122_reg3.fits.gz", REAL / "acisf23022_000N027_r0122_regevt6_filtered.fits"
needs_real = pytest.mark.skipif(not EVT.exists(), reason="the real files of XRT 200515 are not here (XRT_NB_SHARED)")


@pytest.fixture
def acis(tmp_path):
    "A maker of small Chandra-like files: acis(name, **header) -> path."
    def make(name="acis.fits", n=200, gti=((7, [(0, 400), (500, 1000)]), (6, [(0, 1000)])), drop=(), **keys):
        rng = np.random.default_rng(5)
        cols = {"time": ("D", np.sort(rng.uniform(0, 1000, n))), "ccd_id": ("I", np.where(np.arange(n) % 20, 7, 6)), "x": ("E", rng.uniform(0, 100, n)), "y": ("E", rng.uniform(0, 100, n)),
                "pha": ("J", rng.integers(30, 500, n)), "energy": ("E", rng.uniform(100, 9000, n)), "grade": ("I", rng.integers(0, 7, n))}
        ev = fits.BinTableHDU.from_columns([fits.Column(k, f, "eV" if k == "energy" else None, array=v) for k, (f, v) in cols.items() if k not in drop], name="EVENTS")
        ev.header.update({"TELESCOP": "CHANDRA", "INSTRUME": "ACIS", "OBS_ID": "00077", "MJDREF": 50814.0, "TIMESYS": "TT", "TSTART": 0.0, "TSTOP": 1000.0} | keys)
        hdus = [fits.PrimaryHDU(), ev]
        for chip, rows in gti:
            rows = np.reshape(rows, (-1, 2))
            h = fits.BinTableHDU.from_columns([fits.Column(c, "D", array=rows[:, k]) for k, c in enumerate(("START", "STOP"))], name="GTI", ver=chip)
            h.header["CCD_ID"] = chip
            hdus.append(h)
        fits.HDUList(hdus).writeto(tmp_path / name, overwrite=True)
        return tmp_path / name
    return make


@needs_real
def test_golden_numbers():
    ev = read_event_list(EVT, REG)
    assert ev.id == "23022_122"
    assert [ev.meta[k] for k in ("n_file", "n_region", "n_gti", "n_quality", "n_energy")] == [5813, 232, 232, 232, 188]
    assert ev.time[0] == pytest.approx(705932380.388303, abs=1e-6) and ev.span == pytest.approx(24122.964715, abs=1e-6)
    assert ev.light_curve(500).counts[40:49].tolist() == [1, 0, 0, 1, 0, 117, 43, 7, 2]
    assert ev.meta["ontime"] == pytest.approx(25062.340260506) and ev.meta["livetime"] == pytest.approx(24734.882334376)
    assert (ev.energy > 500).all() and (ev.energy < 7000).all()
    assert ev.start.isot.startswith("2020-05-15T12:05:30")


@needs_real
def test_time_stamps_of_the_authors():
    ours = read_event_list(EVT, REG, energy_range=None, quality=False, gti=None)
    with fits.open(THEIRS) as f: theirs = np.sort(f["EVENTS"].data["time"])
    assert np.array_equal(ours.time, theirs)
    assert np.array_equal(read_event_list(THEIRS).time, read_event_list(EVT, REG).time)


@needs_real
@pytest.mark.parametrize("band, n", [("B", 232), ("U", 226), ("S", 231), ("M", 232), ("H", 250)])
def test_bands(band, n):
    got = read_event_list(EVT, REG, band=band).meta["n_region"]
    assert 226 <= got <= 250 and (band != "B" or got == n)


@needs_real
def test_agrees_with_the_regions_package():
    regions = pytest.importorskip("regions")
    from astropy.table import QTable
    parsed = regions.Regions.parse(QTable.read(REG, hdu="ECF90REGB"), format="fits")
    a, b = read_event_list(EVT, REG), read_event_list(EVT, parsed, id="23022_122")
    assert np.array_equal(a.time, b.time)


@needs_real
def test_survives_a_round_trip(tmp_path):
    table = EventTable.from_lists([read_event_list(EVT, REG), read_event_list(EVT, REG, band="H", id="hard")])
    table.write(tmp_path / "a.parquet")
    back = read_events(tmp_path / "a.parquet")
    for i in ("23022_122", "hard"):
        assert back[i] == table[i]
        assert back[i].meta["n_file"] == 5813 and back[i].meta["energy_rule"] == "column energy [eV]"


def test_steps_by_hand(acis):
    ev = read_event_list(acis(), Region([[(True, "circle", (50, 50, 30))]]), id="a")
    with fits.open(acis()) as f: d = f["EVENTS"].data
    k = np.hypot(d["x"].astype(float) - 50, d["y"].astype(float) - 50) <= 30
    assert ev.meta["n_region"] == k.sum()
    k &= (d["time"] < 400) | (d["time"] >= 500)
    assert ev.meta["n_gti"] == k.sum()
    k &= d["pha"] > 40
    assert ev.meta["n_pha"] == k.sum()
    k &= (d["energy"] > 500) & (d["energy"] < 7000)
    assert np.array_equal(ev.time, d["time"][k]) and np.array_equal(ev.energy, d["energy"][k].astype(float))


def test_half_open_and_strict(acis, tmp_path):
    p = acis(n=4)
    with fits.open(p, mode="update") as f:
        f["EVENTS"].data["time"][:] = [0, 400, 500, 1000]
        f["EVENTS"].data["ccd_id"][:], f["EVENTS"].data["energy"][:], f["EVENTS"].data["pha"][:] = 7, [500.0, 500.01, 6999.9, 7000.0], 100
    assert read_event_list(p, energy_range=None, quality=False).time.tolist() == [0, 500]
    assert read_event_list(p, gti=None).energy.tolist() == pytest.approx([500.01, 6999.9], abs=1e-3)


def test_union_main_intersection(acis):
    n = {g: (len(e := read_event_list(acis(), energy_range=None, quality=False, gti=g)), e.gti.tolist()) for g in ("main", "union", "intersection")}
    assert n["main"][1] == n["intersection"][1] == [[0, 400], [500, 1000]] and n["union"][1] == [[0, 1000]]
    assert n["union"][0] > n["main"][0] == n["intersection"][0]


def test_unsorted_times_are_sorted_with_their_energies(acis):
    p, q = acis("a.fits"), acis("b.fits")
    with fits.open(q, mode="update") as f: f["EVENTS"].data[:] = f["EVENTS"].data[::-1].copy()
    assert read_event_list(p, id="x") == read_event_list(q, id="x")


def test_gz_and_plain_are_the_same(acis, tmp_path):
    p = acis()
    (tmp_path / "acis.fits.gz").write_bytes(gzip.compress(p.read_bytes()))
    assert read_event_list(p) == read_event_list(tmp_path / "acis.fits.gz")


@pytest.mark.parametrize("keys, says", [
    ({"TELESCOP": "LYNX"}, "no row of MISSIONS fits TELESCOP = 'LYNX'"), ({"TIMESYS": "LST"}, "TIMESYS = 'LST'"), ({"TIMEUNIT": "furlong"}, "TIMEUNIT = 'furlong'"),
    ({"MJDREF": "never"}, "MJDREF = 'never' is not a number"), ({"MJDREFI": 51544, "MJDREFF": 0.0}, "contradicts"), ({"TIMEZERO": "x"}, "TIMEZERO = 'x' is not a number"),
])
def test_headers_that_cannot_be(acis, keys, says):
    with pytest.raises(EventFileError, match=says) as err: read_event_list(acis(**keys))
    assert "acis.fits" in str(err.value) and isinstance(err.value, EventDataError)


@pytest.mark.parametrize("drop, says", [(["time"], "missing column time; it has ccd_id, x"), (["energy"], "Chandra ACIS wants energy, pi, the file has time"), (["ccd_id"], "no column 'ccd_id' to tell the chips apart")])
def test_columns_that_are_missing(acis, drop, says):
    with pytest.raises(EventFileError, match=says): read_event_list(acis(drop=drop))


def test_gtis_that_cannot_be(acis):
    for gti, says in (((), "no good time intervals"), (((7, [(5, 1)]),), "runs from 5.0 to 1.0"), (((7, [(np.nan, 1)]),), "runs from nan"), (((9, [(0, 1)]),), "events on chip 6 but no good time")):
        with pytest.raises(EventFileError, match=says): read_event_list(acis(gti=gti))
    with pytest.warns(XRTWarning, match="no event of source"): assert len(read_event_list(acis(gti=((7, []), (6, []))))) == 0


def test_the_generic_reader(acis):
    p = acis(TELESCOP="LYNX")
    lynx = Mission("Lynx", (), energy=(("pha", 10, 5),))
    ev = read_event_list(p, mission=lynx, energy_range=None, gti="union")
    with fits.open(p) as f: assert np.array_equal(np.sort(ev.energy), np.sort(f["EVENTS"].data["pha"] * 10.0 + 5))
    assert ev.meta["mission"] == "Lynx" and ev.meta["energy_rule"] == "pha * 10 eV +5 eV"


def test_ids(acis):
    assert parse_id("acisf23022_000N027_r0122_regevt3.fits.gz") == ("23022", "122")
    assert parse_id("acisf00315_002N021_x_r0007_regevt3.fits") == ("315", "7")
    assert parse_id("foo.fits") is None
    assert read_event_list(acis()).id == "77"
    assert read_event_list(acis("acisf00077_000N001_r0003_regevt3.fits")).id == "77_3"


def test_truncations_at_every_block(acis, tmp_path):
    whole, cut = acis().read_bytes(), tmp_path / "cut.fits"
    good = read_event_list(acis())
    for n in range(0, len(whole), 1440):
        cut.write_bytes(whole[:n])
        try: assert len(read_event_list(cut)) <= len(good), "a truncated file gave more events"
        except EventFileError as err: assert "cut.fits" in str(err)
        else: assert read_event_list(cut).time.tolist() == good.time.tolist(), n


def test_wrong_things_as_region(acis, tmp_path):
    (tmp_path / "empty.fits").write_bytes(b"")
    with pytest.raises(EventFileError, match="empty.fits: the file is empty"): read_fits_region(tmp_path / "empty.fits")
    with pytest.raises(EventFileError, match="does not exist"): read_event_list(acis(), tmp_path / "no.fits")
    with pytest.raises(ValueError, match="`region` must be"): as_region([])
    with pytest.raises(EventFileError, match="includes nothing"): Region([[(False, "circle", (1, 1, 1))]])


def test_reading_many_columns_equals_astropy(acis):
    p = acis()
    tables = read_tables(p, lambda h, columns, primary: columns)
    with fits.open(p) as f:
        for t, hdu in zip(tables, f[1:]):
            for c in t.columns: assert np.array_equal(t.get(c), hdu.data.field(c))


def test_missing_clock_is_refused_or_stated(acis):
    p = acis()
    with fits.open(p, mode="update") as f: f["EVENTS"].header.remove("TIMESYS")
    with pytest.raises(EventFileError, match="TIMESYS is missing, so the clock is unknown"): read_event_list(p)
    from dataclasses import replace
    from xrt_nb.fits import MISSIONS
    assert read_event_list(p, mission=replace(MISSIONS["Chandra ACIS"], timesys="TT")).meta["timesys"] == "tt"


def test_units_at_the_border(acis):
    import astropy.units as u
    assert read_event_list(acis(), energy_range=(0.5 * u.keV, 7 * u.keV)) == read_event_list(acis())


@pytest.mark.parametrize("gti", [[(5, 1)], [1, 2], [(0, np.nan)], "weekend"])
def test_intervals_that_cannot_be(acis, gti):
    with pytest.raises(ValueError, match="`gti` must be"): read_event_list(acis(), gti=gti)


def test_given_intervals(acis):
    ev = read_event_list(acis(), gti=[(100, 200), (150, 300)], energy_range=None, quality=False)
    assert ev.gti.tolist() == [[100, 300]] and (ev.time >= 100).all() and (ev.time < 300).all() and ev.meta["gti_rule"] == "given"


def test_bits_are_kept_as_whole_numbers(tmp_path):
    from make_mission_fixtures import swift, write
    case = write(swift("PHOTON", 5), tmp_path / "s.fits")
    ev = read_event_list(case.path, columns=("status", "grade"), quality=False, gti=None, energy_range=None)
    assert set(ev.columns["status"].tolist()) == {0, 1, 32}
    table = EventTable.from_lists([ev])
    table.write(tmp_path / "s.parquet")
    assert np.array_equal(read_events(tmp_path / "s.parquet")[ev.id].columns["status"], ev.columns["status"])
