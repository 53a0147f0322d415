"""What headers mean: clocks and units, sky frames, several tables of events, responses, cards that can't be right."""

import os
import warnings
from dataclasses import replace
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import FK4, FK5, SkyCoord
from astropy.io import fits
from astropy.time import Time
from astropy.wcs import WCS

from xrt_nb.data import XRTWarning
from xrt_nb.fits import (
    MISSIONS,
    EventFileError,
    Header,
    Mission,
    event_wcs,
    header_position,
    read_ebounds,
    read_event_list,
    read_response,
    time_unit,
)
from xrt_nb.regions import Region

SHARED = Path(__file__).parent.parent / os.environ.get("XRT_NB_SHARED", "../shared") / "data"
T0, N, DAY = 1.0e8, 50, 86400.0
SKY = {
    "TCTYP3": "RA---TAN",
    "TCTYP4": "DEC--TAN",
    "TCRPX3": 2000.5,
    "TCRPX4": 2000.5,
    "TCDLT3": -1e-3,
    "TCDLT4": 1e-3,
}


def table(name, columns, keys=()):
    "A binary table; columns are name -> (format, unit, values)."
    hdu = fits.BinTableHDU.from_columns(
        [fits.Column(n, f, unit=unit, array=np.asarray(v)) for n, (f, unit, v) in columns.items()], name=name
    )
    hdu.header.update({k: v for k, v in dict(keys).items() if v is not None})
    return hdu


def events(time=None, pi=None, unit="s", name="EVENTS", columns=(), **keys):
    "A table of events of NICER, one PI unit being 10 eV."
    t = T0 + np.linspace(1, 999, N) if time is None else np.asarray(time, dtype=float)
    n = len(t)
    flags = np.tile([0, 0, 0, 1, 1, 0, 0, 0], (n, 1)).astype(bool)
    cols = {
        "TIME": ("D", unit, t),
        "PI": ("J", "chan", np.full(n, 100) if pi is None else pi),
        "X": ("D", "pixel", np.full(n, 10.0)),
        "Y": ("D", "pixel", np.full(n, 10.0)),
        "EVENT_FLAGS": ("8X", None, flags),
        **dict(columns),
    }
    head = {
        "TELESCOP": "NICER",
        "INSTRUME": "XTI",
        "OBS_ID": "1",
        "MJDREFI": 56658,
        "MJDREFF": 7.775925925925925e-4,
        "TIMESYS": "TT",
        "TIMEUNIT": "s",
        "TIMEZERO": 0.0,
        "TSTART": T0,
        "TSTOP": T0 + 1000,
    }
    return table(name, cols, head | keys)


def good(rows, unit="s", name="GTI", **keys):
    rows = np.array(rows, dtype=float).reshape(-1, 2)
    return table(name, {"START": ("D", unit, rows[:, 0]), "STOP": ("D", unit, rows[:, 1])}, keys)


@pytest.fixture
def save(tmp_path):
    "save(*tables) -> path."

    def _save(*hdus, name="evt.fits", primary=()):
        head = fits.PrimaryHDU()
        head.header.update(dict(primary))
        fits.HDUList([head, *hdus]).writeto(tmp_path / name, overwrite=True)
        return tmp_path / name

    return _save


# clocks

UNITS = {"s": 1, "ms": 1e-3, "us": 1e-6, "min": 60, "h": 3600, "d": DAY, "ks": 1e3, "yr": 365.25 * DAY}


@pytest.mark.parametrize("column", ["s", "ms", "min", "h", "d"])
@pytest.mark.parametrize("header", ["s", "ms", "h", "d"])
@pytest.mark.parametrize("gti", ["s", "min", "d"])
def test_every_unit_of_time_gives_the_same_list(save, column, header, gti):
    t = np.linspace(10, 990, N)
    keys = {
        "MJDREFI": None,
        "MJDREFF": None,
        "MJDREF": 50000.25,
        "TIMEUNIT": header,
        "TIMEZERO": 7200 / UNITS[header],
        "TSTART": 0.0,
        "TSTOP": 1000 / UNITS[header],
        "TIMEDEL": 2 / UNITS[header],
    }
    p = save(
        events(t / UNITS[column], unit=column, **keys),
        good(np.array([[0, 400], [500, 1000]]) / UNITS[gti], unit=gti),
    )
    ev = read_event_list(p)
    keep = (t < 400) | (t >= 500)
    assert np.allclose(ev.time, 7200 + t[keep], rtol=0, atol=1e-5)
    assert np.allclose(ev.gti, 7200 + np.array([[0, 400], [500, 1000]]), rtol=0, atol=1e-5)
    assert np.allclose(
        [ev.meta["t_start"], ev.meta["t_stop"], ev.meta["timezero"], ev.meta["timedel"]],
        [7200, 8200, 7200, 2],
    )
    assert abs(ev.time_of(ev.time[0]).mjd - (50000.25 + (7200 + t[0]) / DAY)) < 1e-9


@pytest.mark.parametrize(
    "unit, zero",
    [
        ("MJD", 0),
        ("JD", -2400000.5),
        ("JD - 2451545, days", 51544.5),
        ("BJD-2454833", 54832.5),
        ("TJD", 40000),
    ],
)
@pytest.mark.parametrize("ref", [0.0, 50000.0, 51544.5])
def test_dates_are_dates_whatever_mjdref(save, unit, zero, ref):
    day = Time("2015-03-01T06:00:00", scale="tt").mjd
    t = day + np.linspace(10, 990, N) / DAY
    p = save(
        events(t - zero, unit=unit, MJDREFI=None, MJDREFF=None, MJDREF=ref, TSTART=None, TSTOP=None),
        good([[day - zero, day - zero + 500 / DAY]], unit=unit),
    )
    ev = read_event_list(p)
    assert len(ev) == (np.linspace(10, 990, N) < 500).sum()
    assert np.allclose(ev.time_of(ev.time).mjd, t[: len(ev)], rtol=0, atol=1e-9)
    assert ev.span == pytest.approx((t[len(ev) - 1] - t[0]) * DAY, abs=1e-3)


@pytest.mark.parametrize(
    "text, seconds",
    [
        *UNITS.items(),
        ("SECONDS", 1),
        ("sec", 1),
        ("msec", 1e-3),
        ("S", 1),
        ("Days", DAY),
        ("HOURS", 3600),
        ("1e-3 s", 1e-3),
    ],
)
def test_units(text, seconds):
    assert time_unit(text) == (pytest.approx(seconds), None)


@pytest.mark.parametrize(
    "text", ["m", "chan", "keV", "deg", "furlong", "s" * 100, "10**999 s", "-1 s", "0 s", "1 / s", ""]
)
def test_what_is_no_unit_of_time(text):
    assert time_unit(text) is None


def test_a_column_without_a_unit_counts_as_its_header_says(save):
    hours = save(
        events(np.linspace(1, 5, N), unit=None, TIMEUNIT="h", TSTART=0.0, TSTOP=9.0),
        good([[0, 3]], unit=None, TIMEUNIT="h"),
    )
    assert np.allclose(read_event_list(hours).time, np.linspace(1, 5, N)[np.linspace(1, 5, N) < 3] * 3600)
    assert np.allclose(read_event_list(hours).gti, [[0, 3 * 3600]])


def test_good_times_of_another_reference_day_and_offset(save):
    rows = np.array([[T0, T0 + 300], [T0 + 600, T0 + 1000]])
    plain = read_event_list(save(events(), good(rows)))
    for keys, shift in (
        ({"MJDREF": 56658 + 7.775925925925925e-4 + 2}, 2 * DAY),
        ({"MJDREFI": 56657, "MJDREFF": 7.775925925925925e-4}, -DAY),
        ({"TIMEZERO": 100.0}, 100),
        ({"TIMEUNIT": "d", "TIMEZERO": 1.0}, DAY),
        ({"MJDREFI": 56658, "MJDREFF": 7.77592593e-4}, 0),
    ):
        ev = read_event_list(save(events(), good(rows - shift, **keys)))
        assert np.array_equal(ev.time, plain.time) and np.allclose(ev.gti, plain.gti, rtol=0, atol=1e-5)


def test_good_times_of_another_time_system_are_moved_and_said(save):
    rows = [[T0 + 100, T0 + 300]]
    with pytest.warns(
        XRTWarning, match="its times are in UTC, those of the events in TT; they were moved by 69.184 s"
    ):
        ev = read_event_list(save(events(), good(rows, MJDREFI=56658, MJDREFF=0.0, TIMESYS="UTC")))
    there = Time(56658, (T0 + 100) / DAY, format="mjd", scale="utc")
    assert abs((ev.time_of(ev.gti[0, 0]) - there).to_value("s")) < 1e-4


def test_a_whole_part_with_a_fraction(save):
    ev = read_event_list(save(events(MJDREFI=56658.5, MJDREFF=0.75), good([[T0, T0 + 1000]])))
    assert (ev.meta["mjdrefi"], ev.meta["mjdreff"]) == (56659, 0.25)
    assert ev.start.mjd == pytest.approx(56659.25 + T0 / DAY)


@pytest.mark.parametrize(
    "keys, t",
    [
        ({"MJDREFI": None, "MJDREFF": None, "MJDREF": 0.0}, None),
        ({"MJDREFI": 0, "MJDREFF": 0.0}, None),
        ({"MJDREFI": 30000}, None),
        ({"TIMEUNIT": "d", "TSTART": None, "TSTOP": None}, np.linspace(40_000, 40_001, N)),
    ],
)
def test_dates_before_anything_flew_are_said(save, keys, t):
    unit = None if t is not None else "s"
    p = save(events(t, unit=unit, **keys), good([[0, 1e9]], unit=unit))
    with pytest.warns(XRTWarning, match="before 1957 or after 2100, so MJDREF"):
        read_event_list(p)


@pytest.mark.parametrize("said", ["1987.00", "MJD", "LST", "", "x" * 400])
def test_odd_time_systems_need_a_word_from_the_user(save, said):
    p = save(events(TIMESYS=said), good([[T0, T0 + 1000]], TIMESYS=said))
    with pytest.raises(EventFileError, match="timesys='TT'") as err:
        read_event_list(p)
    assert len(str(err.value)) < 500
    assert read_event_list(p, timesys="UTC").meta["timesys"] == "utc"
    with pytest.raises(ValueError, match="`timesys` must be one of"):
        read_event_list(p, timesys="noon")


@pytest.mark.parametrize(
    "said, scale", [("TT(TAI)", "tt"), ("utc", "utc"), ("UT", "utc"), ("TDT", "tt"), ("ET", "tdb")]
)
def test_spellings_of_time_systems(save, said, scale):
    assert read_event_list(save(events(TIMESYS=said), good([[T0, T0 + 1000]]))).meta["timesys"] == scale


def test_split_cards(save):
    keys = {
        "TIMEZERO": None,
        "TIMEZERI": 100,
        "TIMEZERF": 0.5,
        "TSTART": None,
        "TSTARTI": int(T0),
        "TSTARTF": 0.25,
        "TSTOP": None,
        "TSTOPI": int(T0) + 1000,
        "TSTOPF": 0.75,
    }
    ev = read_event_list(save(events(**keys), good([[T0, T0 + 1000]])), gti="header")
    assert ev.time[0] == T0 + 1 + 100.5
    assert ev.gti.tolist() == [[T0 + 100.75, T0 + 1101.25]] and ev.meta["timezero"] == 100.5


def test_good_times_that_were_not_carried_to_the_barycenter(save):
    with pytest.warns(XRTWarning, match="its times are LOCAL, those of the events SOLARSYSTEM"):
        read_event_list(save(events(TIMEREF="SOLARSYSTEM"), good([[T0, T0 + 1000]], TIMEREF="LOCAL")))


def test_times_beyond_all_ages(save):
    with pytest.raises(
        EventFileError, match=r"evt.fits: extension EVENTS: column 'time' reaches 1e\+30 s, so TIMEZERO"
    ):
        read_event_list(save(events(TIMEZERO=1e30), good([[T0, T0 + 1000]])))


def test_times_of_single_precision_are_said(save):
    t = T0 + np.linspace(1, 999, N)
    with pytest.warns(XRTWarning, match="has single precision, so its times are known to 8 s only"):
        read_event_list(save(events(columns={"TIME": ("E", "s", t)}), good([[T0, T0 + 1000]])))
    assert (
        len(
            read_event_list(
                save(events(columns={"TIME": ("E", "s", t - T0)}, MJDREFI=57815), good([[0, 1000]]))
            )
        )
        == N
    )


# several tables of events


def test_all_tables_are_read_each_by_its_own_clock(save):
    t = T0 + np.linspace(1, 999, N)
    a = events(t, np.arange(60, 60 + N))
    b = events(t - 3 * DAY + 0.1, np.arange(200, 200 + N), MJDREFI=56661)
    c = events(
        (t + 0.2) / DAY - 1,
        np.arange(400, 400 + N),
        unit="d",
        TIMEUNIT="d",
        TIMEZERO=1.0,
        TSTART=T0 / DAY,
        TSTOP=T0 / DAY + 0.01,
    )
    zero = events([], [])
    gti = good([[T0, T0 + 500]], MJDREFI=56658, MJDREFF=7.775925925925925e-4, TIMEZERO=0.0, TIMEUNIT="s")
    ev = read_event_list(save(zero, a, b, c, gti))
    every = np.r_[t, t + 0.1, t + 0.2]
    pi = np.r_[60 : 60 + N, 200 : 200 + N, 400 : 400 + N]
    order = np.argsort(every, kind="stable")
    order = order[every[order] < T0 + 500]
    assert np.allclose(ev.time, every[order], rtol=0, atol=1e-4)
    assert np.array_equal(ev.energy, pi[order] * 10.0) and ev.meta["n_file"] == 3 * N
    two = read_event_list(save(zero, a, b, c, gti), extension=3)
    assert np.allclose(
        two.time_of(two.time).mjd,
        Time(56658, 7.775925925925925e-4 + (t[t < T0 + 500 - 0.1] + 0.1) / DAY, format="mjd", scale="tt").mjd,
    )


def test_good_times_without_a_clock_among_several(save):
    t, one = T0 + np.linspace(1, 999, N), (T0 + np.linspace(1, 999, N) < T0 + 400).sum()
    a, b = (
        events(t),
        events(
            t - DAY + 2000,
            np.arange(100, 100 + N),
            MJDREFI=56659,
            TSTART=T0 + 2000 - DAY,
            TSTOP=T0 + 3000 - DAY,
        ),
    )
    with pytest.warns(XRTWarning, match=r"GTI: it has no MJDREF.*; it is taken to count as EVENTS \(1\)"):
        ev = read_event_list(save(a, b, good([[T0, T0 + 400], [T0 + 2000, T0 + 2400]])))
    assert len(ev) == 2 * one and ev.gti.tolist() == [[T0, T0 + 400], [T0 + 2000, T0 + 2400]]
    with pytest.warns(XRTWarning) as said:
        apart = read_event_list(
            save(a, good([[T0, T0 + 400]]), b, good([[T0 + 2000 - DAY, T0 + 2400 - DAY]]))
        )
    assert apart == ev and [str(w.message)[-10:] for w in said] == ["EVENTS (1)", "EVENTS (3)"]


def test_energies_of_each_table_by_its_own_unit(save):
    nu = Mission("Nu", ("NICER",), energy=(("energy", None, 0),))
    e = np.linspace(600, 6000, N)
    a, b = (
        events(columns={"ENERGY": ("D", "eV", e)}),
        events(T0 + np.linspace(1.5, 999.5, N), columns={"ENERGY": ("D", "keV", e / 1e3)}),
    )
    ev = read_event_list(save(a, b, good([[T0, T0 + 1000]])), mission=nu)
    assert (
        np.allclose(np.sort(ev.energy), np.sort(np.r_[e, e]))
        and ev.meta["energy_rule"] == "column energy [eV]; column energy [keV]"
    )


@pytest.mark.parametrize("name", ["EVENTS", "Q1"])
@pytest.mark.parametrize("empty", [0, 1])
def test_an_empty_table_hides_nothing(save, name, empty):
    full = events(name=name, HDUCLAS1="EVENTS")
    tables = [events([], [], name="EVENTS", TELESCOP="LYNX" if empty else "NICER", HDUCLAS1="EVENTS"), full]
    if not empty:
        tables.reverse()
    assert len(read_event_list(save(*tables, good([[T0, T0 + 1000]])))) == N


@pytest.mark.parametrize(
    "keys, why",
    [
        ({"INSTRUME": "XTJ"}, "INSTRUME is 'XTI' in the one and 'XTJ'"),
        ({"OBS_ID": "2"}, "OBS_ID is"),
        ({"TIMESYS": "UTC"}, "two clocks, TIMESYS tt and utc"),
        ({"TIMEREF": "SOLARSYSTEM"}, "two clocks, TIMEREF"),
        ({}, "repeats EVENTS"),
    ],
)
def test_tables_that_do_not_belong_together_are_refused(save, keys, why):
    t = None if not keys else T0 + np.linspace(2, 998, N)
    p = save(events(), events(t, **keys), good([[T0, T0 + 1000]]))
    with pytest.raises(EventFileError, match=why) as err:
        read_event_list(p)
    assert "extension=" in str(err.value)
    assert len(read_event_list(p, extension=1)) == len(read_event_list(p, extension=2)) == N


def test_a_table_whose_name_was_damaged_is_not_passed_over_in_silence(save):
    p = save(events(), events(T0 + np.linspace(2, 998, N), HDUCLAS1=" "), good([[T0, T0 + 1000]]))
    with fits.open(p) as f:
        f.writeto(p.with_name("sums.fits"), checksum=True)
    data = p.with_name("sums.fits").read_bytes()
    at = data.rindex(b"'EVENTS")
    p.write_bytes(data[:at] + b"'EVEOTS" + data[at + 7 :])
    with pytest.warns(XRTWarning, match="EVEOTS: its checksum disagrees"):
        assert len(read_event_list(p)) == N


def test_rejected_events_are_not_events(save):
    p = save(
        events(name="REJEVT", HDUCLAS1="EVENTS", HDUCLAS2="REJECTED"),
        events(T0 + np.linspace(2, 3, N)),
        good([[T0, T0 + 1000]]),
    )
    assert read_event_list(p).time[0] == T0 + 2
    assert read_event_list(p, extension="REJEVT").time[0] == T0 + 1


def test_two_tangent_points_and_one_region(save):
    a, b = (events(T0 + np.linspace(1 + k, 990, N), **SKY, TCRVL3=10.0 + k, TCRVL4=5.0) for k in (0, 1))
    p = save(a, b, good([[T0, T0 + 1000]]))
    with pytest.raises(
        EventFileError,
        match="the sky pixels of its tables of events EVENTS \\(1\\) and EVENTS \\(2\\) differ",
    ):
        read_event_list(p, Region([[(True, "circle", (10, 10, 5))]]))
    assert len(read_event_list(p)) == 2 * N


# skies


def on_sky(cards, lon, lat, ctype=("RA---TAN", "DEC--TAN"), n=40):
    "Events around a place, and some elsewhere, in a picture with these cards; the place as the cards see it."
    rng = np.random.default_rng(3)
    w = WCS(naxis=2)
    w.wcs.ctype, w.wcs.crval, w.wcs.crpix, w.wcs.cdelt = (
        ctype,
        [round(lon, 1), round(lat, 1)],
        [2000.5] * 2,
        [-1e-3, 1e-3],
    )
    x, y = w.wcs_world2pix([[lon, lat]], 1)[0]
    x, y = (np.r_[rng.normal(c, 3, n), rng.uniform(0, 4000, 60)] for c in (x, y))
    keys = (
        SKY
        | {"TCTYP3": ctype[0], "TCTYP4": ctype[1], "TCRVL3": w.wcs.crval[0], "TCRVL4": w.wcs.crval[1]}
        | cards
    )
    t = T0 + np.linspace(1, 999, n + 60)
    return events(t, columns={"X": ("D", "pixel", x), "Y": ("D", "pixel", y)}, **keys)


CRAB = SkyCoord(83.633, 22.0145, unit="deg", frame="icrs")
FRAMES = [
    ({}, "icrs"),
    ({"RADESYS": "ICRS"}, "icrs"),
    ({"EQUINOX": 2000.0}, FK5(equinox="J2000")),
    ({"RADECSYS": "FK5"}, FK5(equinox="J2000")),
    ({"RADESYS": "FK5", "EQUINOX": 1975.0}, FK5(equinox="J1975")),
    ({"EQUINOX": 1950.0}, FK4(equinox="B1950")),
    ({"EPOCH": 1950.0}, FK4(equinox="B1950")),
    ({"RADECSYS": "FK4"}, FK4(equinox="B1950")),
    ({"RADESYS": "FK4", "EQUINOX": "B1975.0"}, FK4(equinox="B1975")),
    ({"EQUINOX": "J2000"}, FK5(equinox="J2000")),
    ({"RADESYS": "ICRS", "EQUINOX": 1950.0}, "icrs"),
    ({"RADE3": "FK4", "EQUI3": 1950.0, "RADESYS": "ICRS"}, FK4(equinox="B1950")),
]


@pytest.mark.parametrize("cards, frame", FRAMES)
def test_frames_against_astropy(save, tmp_path, cards, frame):
    place = CRAB.transform_to(frame)
    (tmp_path / "r.reg").write_text('fk5\ncircle(83.633,22.0145,72")\n')
    at = (
        {"RA_OBJ": place.ra.deg, "DEC_OBJ": place.dec.deg}
        if "RADE3" not in cards
        else {"RA_OBJ": CRAB.ra.deg, "DEC_OBJ": CRAB.dec.deg}
    )
    p = save(on_sky(cards | at, place.ra.deg, place.dec.deg), good([[T0, T0 + 1000]]))
    ev = read_event_list(p, tmp_path / "r.reg")
    assert ev.meta["n_region"] == 40
    for got in (ev.meta, read_event_list(p).meta):
        assert SkyCoord(got["ra"], got["dec"], unit="deg").separation(CRAB).arcsec < 0.1


def test_the_frame_may_stand_in_the_primary_header(save, tmp_path):
    place = CRAB.transform_to(FK4(equinox="B1950"))
    (tmp_path / "r.reg").write_text('icrs\ncircle(83.633,22.0145,72")\n')
    p = save(on_sky({}, place.ra.deg, place.dec.deg), good([[T0, T0 + 1000]]), primary={"EQUINOX": 1950.0})
    assert read_event_list(p, tmp_path / "r.reg").meta["n_region"] == 40


def test_galactic_pictures(save, tmp_path):
    g = CRAB.galactic
    (tmp_path / "r.reg").write_text('fk5\ncircle(83.633,22.0145,72")\n')
    p = save(on_sky({}, g.l.deg, g.b.deg, ("GLON-TAN", "GLAT-TAN")), good([[T0, T0 + 1000]]))
    ev = read_event_list(p, tmp_path / "r.reg")
    assert (
        ev.meta["n_region"] == 40
        and SkyCoord(ev.meta["ra"], ev.meta["dec"], unit="deg").separation(CRAB).arcsec < 0.1
    )


def test_rotation_matrices_and_units_against_image_headers():
    "The same cards as those of an image give the same sky."
    layout = {"x": (3, None), "y": (4, None)}
    base = SKY | {"TCRVL3": 83.0, "TCRVL4": 22.0}
    image = {
        "NAXIS": 2,
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CRPIX1": 2000.5,
        "CRPIX2": 2000.5,
        "CDELT1": -1e-3,
        "CDELT2": 1e-3,
        "CRVAL1": 83.0,
        "CRVAL2": 22.0,
    }
    same = (
        ({"TCROT4": 35.0}, {"CROTA2": 35.0}),
        (
            {"TP3_3": 0.8, "TP3_4": 0.6, "TP4_3": -0.6, "TP4_4": 0.8},
            {"PC1_1": 0.8, "PC1_2": 0.6, "PC2_1": -0.6, "PC2_2": 0.8},
        ),
        ({"TPC3_4": 0.1}, {"PC1_2": 0.1}),
        (
            {"TC3_3": -8e-4, "TC3_4": 6e-4, "TC4_3": 6e-4, "TC4_4": 8e-4},
            {"CD1_1": -8e-4, "CD1_2": 6e-4, "CD2_1": 6e-4, "CD2_2": 8e-4},
        ),
        ({"LONP3": 150.0}, {"LONPOLE": 150.0}),
        (
            {
                "TCUNI3": "arcsec",
                "TCUNI4": "arcsec",
                "TCDLT3": -3.6,
                "TCDLT4": 3.6,
                "TCRVL3": 83 * 3600,
                "TCRVL4": 22 * 3600,
            },
            {},
        ),
    )
    xy = np.array([[1.0, 1], [2000, 100], [3500, 3900]])
    for ours, theirs in same:
        w, v = event_wcs(Header(base | ours), layout), WCS(fits.Header(image | theirs))
        assert np.allclose(w.all_pix2world(xy, 1), v.all_pix2world(xy, 1), rtol=0, atol=1e-9), ours


@pytest.mark.parametrize(
    "keys",
    [
        {"RADESYS": "GAPPT"},
        {"TCUNI3": "parsec"},
        {"TCDLT3": 0.0},
        {"TCTYP3": "FOO---TAN"},
        {"TCRPX3": "x"},
        {"TCDLT3": -2.46, "TCDLT4": 2.46},
    ],
)
def test_a_sky_that_can_not_be_costs_a_sky_region_only(save, tmp_path, keys):
    p = save(on_sky(keys, 83.6, 22.0), good([[T0, T0 + 1000]]))
    (tmp_path / "r.reg").write_text('fk5\ncircle(83.6,22.0,72")\n')
    with pytest.raises(EventFileError, match="evt.fits: extension EVENTS"):
        read_event_list(p, tmp_path / "r.reg")
    assert len(read_event_list(p)) == 100
    with pytest.warns(XRTWarning, match="left out"):
        ev = read_event_list(p, Region([[(True, "box", (2000, 2000, 8000, 8000))]]))
    assert len(ev) == 100 and np.isnan(ev.meta["ra"])


@pytest.mark.parametrize(
    "cards, right",
    [
        ({"RA_OBJ": 0.0, "DEC_OBJ": 0.0, "RA_NOM": 10.0, "DEC_NOM": 5.0}, (10, 5, "RA_NOM, DEC_NOM")),
        (
            {
                "RA_OBJ": fits.card.Undefined(),
                "DEC_OBJ": fits.card.Undefined(),
                "RA_PNT": 10.0,
                "DEC_PNT": 5.0,
            },
            (10, 5, "RA_PNT, DEC_PNT"),
        ),
        ({"RA_OBJ": 0.0, "DEC_OBJ": -12.0, "RA_CEN": 147.9, "DEC_CEN": 0.0}, (147.9, -12, "RA_CEN, DEC_OBJ")),
        (
            {"RA_OBJ": 0.0, "DEC_OBJ": 5.0, "RA_PNT": 0.01, "DEC_PNT": 5.02, "RA_CEN": 7.0, "DEC_CEN": 7.0},
            (0.01, 5.02, "RA_PNT, DEC_PNT"),
        ),
        (
            {"RA_OBJ": "INDEF", "DEC_OBJ": 5.0, "RA_NOM": "12:00:00", "DEC_NOM": "-30:30:00"},
            (180, -30.5, "RA_NOM, DEC_NOM"),
        ),
        ({"RA_OBJ": "83.6", "DEC_OBJ": "22.0"}, (83.6, 22, "RA_OBJ, DEC_OBJ")),
        ({"RA_OBJ": -10.0, "DEC_OBJ": 2.0}, (350, 2, "RA_OBJ, DEC_OBJ")),
        ({"RA_OBJ": 150.0, "DEC_OBJ": 0.0}, (150, 0, "RA_OBJ, DEC_OBJ")),
        ({"RA_OBJ": -999.0, "DEC_OBJ": -99.0, "RA_NOM": 3.0, "DEC_NOM": 4.0}, (3, 4, "RA_NOM, DEC_NOM")),
        ({"RA_OBJ": 0.0, "DEC_OBJ": 4.0}, (np.nan, np.nan, "")),
        ({"RA_OBJ": "05:34:99", "DEC_OBJ": 22.0}, (np.nan, np.nan, "")),
        ({}, (np.nan, np.nan, "")),
    ],
)
def test_where_a_position_comes_from(cards, right):
    got = header_position(Header(cards))
    assert got[2] == right[2] and np.allclose(got[:2], right[:2], equal_nan=True)


# responses


def rmf(path, low, width, first=0, **keys):
    "A response with channels of one width [eV]."
    n = np.arange(len(low))
    hdu = table(
        "EBOUNDS",
        {
            "CHANNEL": ("J", None, n + first),
            "E_MIN": ("D", "keV", low / 1e3),
            "E_MAX": ("D", "keV", (low + width) / 1e3),
        },
        keys,
    )
    hdu.writeto(path, overwrite=True)
    return path


def of_mission(save, telescope, instrument, pi, name="m.fits", **keys):
    return save(
        events(T0 + np.linspace(1, 999, len(pi)), pi, TELESCOP=telescope, INSTRUME=instrument, **keys),
        good([[T0, T0 + 1000]], name="STDGTI01" if telescope == "XMM" else "GTI"),
        name=name,
    )


PI = np.arange(20, 420, 4)
OWN = {
    "NICER": ("NICER", "XTI", 10, 0, 0),
    "NuSTAR": ("NuSTAR", "FPMA", 40, 1600, 0),
    "Swift XRT PC": ("SWIFT", "XRT", 10, 0, 0),
    "Chandra ACIS": ("CHANDRA", "ACIS", 14.6, -14.6, 1),
    "IXPE": ("IXPE", "GPD", 40, 0, 0),
}


@pytest.mark.parametrize("mission", OWN)
def test_a_missions_own_response_agrees_with_its_rule(save, tmp_path, mission):
    tel, ins, width, zero, first = OWN[mission]
    own = rmf(
        tmp_path / "own.rmf",
        (np.arange(1024) + first) * width + zero,
        width,
        first,
        TELESCOP=tel,
        INSTRUME=ins,
        CHANTYPE="PI",
    )
    p = of_mission(save, tel, ins, PI)
    a = read_event_list(p, energy_range=None, quality=False)
    b = read_event_list(p, energy_range=None, quality=False, rmf=own)
    assert np.allclose(b.energy - a.energy, width / 2, atol=1e-6)  # the middle of a channel, not its edge
    for shift in (-1, 1):
        off = rmf(
            tmp_path / "off.rmf",
            (np.arange(1024) + first) * width + zero,
            width,
            first + shift,
            TELESCOP=tel,
            INSTRUME=ins,
        )
        with pytest.raises(
            EventFileError, match="off.rmf is not the response of this list: its channel .* off by"
        ):
            read_event_list(p, rmf=off)


@pytest.mark.parametrize("mission", OWN)
@pytest.mark.parametrize("other", OWN)
def test_a_foreign_response_is_refused_unless_forced(save, tmp_path, mission, other):
    if mission == other:
        return
    tel, ins = OWN[other][:2]
    _, _, width, zero, first = OWN[other]
    foreign = rmf(
        tmp_path / "foreign.rmf",
        (np.arange(1024) + first) * width + zero,
        width,
        first,
        TELESCOP=tel,
        INSTRUME=ins,
    )
    p = of_mission(save, *OWN[mission][:2], PI)
    with pytest.raises(
        EventFileError, match="m.fits.*foreign.rmf is not the response of this list: it is for TELESCOP"
    ):
        read_event_list(p, rmf=foreign)
    forced = read_event_list(p, energy_range=None, quality=False, rmf=foreign, force_rmf=True)
    assert forced.meta["energy_rule"] == "pi by EBOUNDS of foreign.rmf (forced)"


@pytest.mark.parametrize(
    "telescope, instrument, width",
    [("XMM", "EPN", 5), ("XMM", "EMOS1", 5), ("XMM", "EMOS1", 15), ("eROSITA", "FM1", 12.5)],
)
def test_pi_in_ev_is_no_channel_number(save, tmp_path, telescope, instrument, width):
    own = rmf(
        tmp_path / "own.rmf",
        np.arange(0, 12000, width, dtype=float),
        width,
        0,
        TELESCOP=telescope,
        INSTRUME=instrument,
        CHANTYPE="PI",
    )
    pi = np.arange(150, 9000, 50)
    p = of_mission(save, telescope, instrument, pi)
    for keys in ({}, {"force_rmf": True}):
        ev = read_event_list(p, quality=False, rmf=own, **keys)
        assert np.array_equal(ev.energy, pi[(pi > 500) & (pi < 7000)])
        assert "it counts eV" in ev.meta["energy_rule"]


def test_instrument_and_kind_of_channels(save, tmp_path):
    low = np.arange(2400) * 5.0
    p = of_mission(save, "XMM", "EMOS2", np.arange(150, 9000, 50))
    mos1 = rmf(tmp_path / "mos1.rmf", low, 5, TELESCOP="XMM", INSTRUME="EMOS1")
    with pytest.raises(EventFileError, match="it is for INSTRUME = 'EMOS1', the list is from 'EMOS2'"):
        read_event_list(p, rmf=mos1)
    pha = rmf(
        tmp_path / "pha.rmf", np.arange(1024) * 10.0, 10, TELESCOP="NICER", INSTRUME="XTI", CHANTYPE="PHA"
    )
    q = save(events(columns={"PHA": ("J", None, np.full(N, 50))}), good([[T0, T0 + 1000]]))
    with pytest.raises(EventFileError, match="it is for PHA channels, NICER counts PI"):
        read_event_list(q, rmf=pha)
    assert set(read_event_list(q, rmf=pha, force_rmf=True).energy) == {505.0}


def test_channels_that_begin_elsewhere_where_no_rule_is_known(save, tmp_path):
    wxt = save(
        events(pi=np.arange(N) + 100, TELESCOP="EP", INSTRUME="WXT", TLMIN2=0, TLMAX2=511),
        good([[T0, T0 + 1000]]),
    )
    low = np.arange(512) * 8.0 + 500
    assert (
        len(read_event_list(wxt, rmf=rmf(tmp_path / "a.rmf", low, 8, 0, TELESCOP="EP", INSTRUME="WXT"))) == N
    )
    with pytest.raises(
        EventFileError, match=r"its channels begin with 1, those of the list with 0 \(TLMIN\)"
    ):
        read_event_list(wxt, rmf=rmf(tmp_path / "b.rmf", low, 8, 1, TELESCOP="EP", INSTRUME="WXT"))
    with pytest.warns(XRTWarning, match="events have channels that c.rmf doesn't list"):
        read_event_list(wxt, rmf=rmf(tmp_path / "c.rmf", low[:120], 8, 0, TELESCOP="EP", INSTRUME="WXT"))


@pytest.mark.parametrize(
    "column, values, why",
    [
        ("CHANNEL", [1, 2, 2, 4], "channel 2 is listed twice"),
        ("CHANNEL", [1, 2, np.nan, 4], "CHANNEL is not a finite number in row 2"),
        ("CHANNEL", [1, 2.5, 3, 4], "not whole numbers"),
        ("E_MIN", [0.1, np.nan, 0.3, 0.4], "E_MIN is not a finite number in row 1"),
        ("E_MAX", [0.2, np.inf, 0.4, 0.5], "E_MAX is not a finite number"),
        ("E_MAX", [0.0, 0.3, 0.4, 0.5], "channel 1 runs from 100 to 0 eV"),
        ("E_MIN", [0.1, 0.35, 0.2, 0.4], "neither rise nor fall"),
        ("CHANNEL", [1, 2, 3, 1e12], "not whole numbers"),
    ],
)
def test_responses_that_can_not_be(tmp_path, column, values, why):
    cols = {"CHANNEL": [1, 2, 3, 4], "E_MIN": [0.1, 0.2, 0.3, 0.4], "E_MAX": [0.2, 0.4, 0.4, 0.5]} | {
        column: values
    }
    table("EBOUNDS", {c: ("D", "keV" if c != "CHANNEL" else None, v) for c, v in cols.items()}).writeto(
        tmp_path / "bad.rmf"
    )
    with pytest.raises(EventFileError, match=why) as err:
        read_response(tmp_path / "bad.rmf")
    assert "bad.rmf" in str(err.value)


def test_responses_with_text_without_rows_and_with_two_tables(tmp_path):
    def ebounds(channel, form="J", unit="keV", **keys):
        low = np.arange(len(channel)) + 1.0
        return table(
            "EBOUNDS",
            {"CHANNEL": (form, None, channel), "E_MIN": ("D", unit, low), "E_MAX": ("D", "keV", low + 1)},
            keys,
        )

    for hdus, why in (
        ([ebounds(["one", "two"], "8A")], "CHANNEL must have one number per channel"),
        ([ebounds([])], "it lists no channels"),
        ([ebounds([1, 2]), ebounds([1, 2])], "2 tables EBOUNDS"),
        ([good([[1, 2]])], "no EBOUNDS table"),
        ([ebounds([1, 2], unit="erg")], "E_MIN has the unit 'erg'"),
        ([ebounds([1, 2], CHANTYPE="PHOTON")], "CHANTYPE = 'PHOTON' is neither PI nor PHA"),
    ):
        fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / "bad.rmf", overwrite=True)
        with pytest.raises(EventFileError, match=why):
            read_ebounds(tmp_path / "bad.rmf")


def test_energies_of_a_response_against_its_table(tmp_path):
    low = np.cumsum(np.random.default_rng(2).uniform(5, 15, 300))
    channel, mid, kind = read_ebounds(rmf(tmp_path / "a.rmf", low, 4.0, 7))
    assert kind == "pi" and np.array_equal(channel, np.arange(300) + 7) and np.allclose(mid, low + 2)
    r = read_response(tmp_path / "a.rmf")
    assert np.allclose(
        r.energies(np.array([7.0, 306.0, 6.0, 307.0, np.nan])),
        [low[0] + 2, low[-1] + 2, np.nan, np.nan, np.nan],
        equal_nan=True,
    )


# cards that can't be right, channels, bands


@pytest.mark.parametrize(
    "key, value",
    [
        ("EXPOSURE", "UNKNOWN"),
        ("EXPOSURE", -5.0),
        ("TIMEDEL", "INDEF"),
        ("TIMEPIXR", "N/A"),
        ("RA_OBJ", "somewhere"),
        ("DTCOR", "x"),
        ("DTCOR", 7.0),
        ("TSTOP", -4.6e33),
        ("TSTART", "never"),
        ("TLMIN2", "low"),
        ("EQUINOX", "now"),
        ("OBS_ID", "7" * 500),
    ],
)
def test_a_cosmetic_card_costs_itself(save, key, value):
    fine = read_event_list(save(events(), good([[T0, T0 + 1000]])))
    with pytest.warns(XRTWarning, match=f"{key}.*|left out") as said:
        ev = read_event_list(
            save(events(**{"RA_OBJ": 10.0, "DEC_OBJ": 5.0} | {key: value}), good([[T0, T0 + 1000]]))
        )
    fine.id = ev.id if key == "OBS_ID" else fine.id
    assert (
        ev == fine
        and len(ev.id) < 80
        and ev.livetime == fine.livetime
        and len(said) == 1
        and key in str(said[0].message)
    )


@pytest.mark.parametrize("key", ["EXPOSURE", "RA_OBJ", "TSTOP", "DTCOR", "TIMEDEL"])
def test_a_card_that_can_not_be_read_costs_itself(save, key):
    p = save(
        events(
            **{"RA_OBJ": 10.0, "DEC_OBJ": 5.0, "EXPOSURE": 9.5, "DTCOR": 1.0, "TIMEDEL": 0.5} | {key: 0.125}
        ),
        good([[T0, T0 + 1000]]),
    )
    data = p.read_bytes()
    at = data.index(key.ljust(8).encode() + b"=")
    p.write_bytes(data[: at + 10] + b"nonsense".ljust(70) + data[at + 80 :])
    with pytest.warns(XRTWarning, match=f"left out: {key} = 'unreadable'"):
        assert len(read_event_list(p)) == N


@pytest.mark.parametrize(
    "key, value", [("EXPOSURE", ""), ("RA_OBJ", " "), ("TIMEPIXR", fits.card.Undefined()), ("DEADC", "")]
)
def test_an_empty_card_is_no_card(save, key, value):
    assert (
        len(read_event_list(save(events(**{key: value}), good([[T0, T0 + 1000]])))) == N
    )  # and no warning, which would be an error here


def test_a_window_that_leaves_out_events_is_widened_and_said(save):
    p = save(events(TSTART=T0 + 500), good([[T0, T0 + 1000]]))
    with pytest.warns(XRTWarning, match="leave out events"):
        ev = read_event_list(p, gti=None)
    assert ev.window[0] <= ev.time[0] and ev.time[-1] < ev.window[1]
    with pytest.raises(EventFileError, match="is no exposure"):
        read_event_list(save(events(TSTOP=T0 - 1), good([[T0, T0 + 1000]])), gti="header")


def test_channels_outside_their_bounds_are_counted_and_dropped(save):
    pi = np.r_[np.full(3, -5), np.full(2, 1500), np.full(N - 5, 100)]
    ev = read_event_list(
        save(events(pi=pi, TLMIN2=0, TLMAX2=1499), good([[T0, T0 + 1000]])), energy_range=None
    )
    assert len(ev) == N - 5 and ev.meta["n_quality"] == N and ev.meta["n_channel"] == N - 5
    with pytest.warns(
        XRTWarning, match="45 of 50 events have no channel in 'pi', or one outside TLMIN to TLMAX"
    ):
        assert (
            len(
                read_event_list(
                    save(events(pi=pi, TLMIN2=200, TLMAX2=1500), good([[T0, T0 + 1000]])), energy_range=None
                )
            )
            == 2
        )
    nu = of_mission(save, "NuSTAR", "FPMA", np.r_[-10, -5, 0, 40, 100])
    assert read_event_list(nu, quality=False).energy.tolist() == [1600, 3200, 5600]


def test_the_band_of_a_mission_is_used(save):
    pi = np.r_[np.full(5, 50), np.full(40, 400)]
    p = of_mission(save, "NuSTAR", "FPMA", pi)
    with pytest.warns(
        XRTWarning,
        match="0.5 to 7 keV keeps 5 events and cuts 40 of the band of NuSTAR, 3 to 79 keV; energy_range='mission'",
    ):
        assert len(read_event_list(p, quality=False)) == 5
    assert len(read_event_list(p, quality=False, energy_range="mission")) == 45
    narrow = replace(MISSIONS["NuSTAR"], band=(3000, 5000))
    assert len(read_event_list(p, quality=False, energy_range="mission", mission=narrow)) == 5
    with pytest.raises(ValueError, match="`energy_range` must be"):
        read_event_list(p, energy_range="all")


def test_times_alone(save):
    p = save(events(TELESCOP="EP", INSTRUME="WXT"), good([[T0, T0 + 500]]))
    with pytest.raises(EventFileError, match="energies=False"):
        read_event_list(p)
    ev = read_event_list(p, energies=False)
    assert ev.energy is None and len(ev) == 25 and "times alone" in ev.meta["energy_rule"]


def test_target_and_detector_are_facts_of_the_pointing(save):
    meta = read_event_list(save(events(OBJECT="M31", DETNAM="Q2"), good([[T0, T0 + 1000]]))).meta
    assert meta["target"] == "M31" and meta["detector"] == "Q2" and not meta.get("name")
    bare = read_event_list(save(events(), good([[T0, T0 + 1000]]))).meta
    assert bare["target"] is None and bare["region_id"] is None


@pytest.mark.parametrize(
    "telescope, instrument, key, modules",
    [("NuSTAR", None, "INSTRUME", ("FPMA", "FPMB")), ("IXPE", "GPD", "DETNAM", ("DU1", "DU2")), ("EP", "FXT", "DETNAM", ("A", "B"))],
)
def test_two_modules_have_two_ids_also_by_the_primary_header(save, telescope, instrument, key, modules):
    ids = []
    for m in modules:
        evt = events(TELESCOP=telescope, INSTRUME=instrument)
        p = save(evt, good([[T0, T0 + 1000]]), primary={key: m})
        ids.append(read_event_list(p, quality=False, energies=False).id)
    assert ids == [f"1_{m}" for m in modules]


def test_lost_references_are_said(save):
    p = save(
        events(TELESCOP="XMM", INSTRUME="EPN", DSTYP1="TIME", DSREF1=":GTI00002"),
        fits.BinTableHDU(good([[T0, T0 + 1000]]).data, name="STDGTI01"),
    )
    with pytest.warns(
        XRTWarning,
        match="refers to good times in GTI00002, which the file doesn't have; the good times are those of STDGTI01",
    ):
        assert len(read_event_list(p, quality=False, energy_range=None)) == N


# real lists


def real(name):
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{name} is not here (XRT_NB_SHARED)")
    return path


def test_real_xmm_mos():
    path = real("missions/xmm_mos1_0201901401.fits.gz")
    ev = read_event_list(path, energy_range=None)
    with fits.open(path) as f:
        d = f["EVENTS"].data
        order = np.argsort(d["TIME"], kind="stable")
        assert np.array_equal(ev.time, d["TIME"][order]) and np.array_equal(
            ev.energy, d["PI"][order].astype(float)
        )
    assert (len(ev), len(read_event_list(path)), ev.meta["ontime"]) == (22124, 15305, 5150.0)
    assert ev.meta["livetime"] == pytest.approx(5020.9049) and ev.meta["target"] == "RXCJ0958.3-1103"
    assert (
        SkyCoord(ev.meta["ra"], ev.meta["dec"], unit="deg").separation(
            SkyCoord(149.5922925, -11.0597, unit="deg", frame="fk5")
        )
        < 1e-3 * u.arcsec
    )


def test_real_nustar():
    path = real("missions/nustar_A06_90410111001.evt.gz")
    with pytest.warns(XRTWarning, match="its checksum disagrees"):
        ev = read_event_list(path, energy_range=None)
    with warnings.catch_warnings(), fits.open(path) as f:
        warnings.simplefilter("ignore")  # odd cards of columns that nobody reads
        d = f["EVENTS"].data
        order = np.argsort(d["TIME"], kind="stable")
        assert np.array_equal(ev.time, d["TIME"][order]) and np.allclose(
            ev.energy, 1600 + 40.0 * d["PI"][order]
        )
    with pytest.warns(XRTWarning):
        assert (len(ev), len(read_event_list(path))) == (9442, 9201)
    assert ev.meta["exposure"] == pytest.approx(70.0321908915824) and ev.meta["livetime"] == pytest.approx(
        ev.meta["exposure"], abs=1e-3
    )


def test_real_response_with_its_list_and_another():
    path, evt = (
        real("xrt200515/spectrum/flaresp.rmf.gz"),
        real("xrt200515/acisf23022_000N027_r0122_regevt3.fits.gz"),
    )
    r = read_response(path)
    assert (r.telescope, r.instrument, r.kind, len(r.channel), r.channel[0]) == (
        "CHANDRA",
        "ACIS",
        "pi",
        1024,
        1,
    )
    a, b = (
        read_event_list(evt, gti=None, quality=False, energy_range=None),
        read_event_list(evt, gti=None, quality=False, energy_range=None, rmf=path),
    )
    assert len(b) <= len(a) == 5813
    pi = read_event_list(evt, gti=None, quality=False, energy_range=None, columns=("pi",), rmf=path)
    assert np.allclose(pi.energy, (pi.columns["pi"] - 0.5) * 14.6, atol=0.5)
    with pytest.raises(EventFileError, match="it is for TELESCOP = 'CHANDRA', the list is from 'NICER'"):
        read_event_list(real("nicer/ngc300nicer_bary.evt"), rmf=path)
