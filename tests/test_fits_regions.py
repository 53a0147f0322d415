"""Regions: shapes against the package `regions`, DS9 and CIAO text, backgrounds, and the way to stingray and back."""
import importlib.util

import numpy as np
import pytest
from test_fits import EVT, REG, acis, needs_real # noqa: F401  (acis is a fixture)
from xrt_nb.data import EventList
from xrt_nb.fits import read_event_list
from xrt_nb.regions import EventFileError, Region, region_from_objects, region_from_text


@pytest.mark.parametrize("text", ["circle(40,60,20)", "ellipse(50,50,30,10,33)", "box(50,50,40,10,-20)", "annulus(50,50,10,30)", "ellipse(50,50,10,5,20,10,33)", "box(50,50,10,5,20,10,33)", "polygon(10,10,90,15,70,80,30,60)"])
def test_shapes_against_regions(text):
    regions = pytest.importorskip("regions")
    x, y = np.random.default_rng(0).uniform(0, 100, (2, 20_000))
    theirs = regions.Regions.parse("image\n" + text, format="ds9")[0]
    assert np.array_equal(region_from_objects(theirs).contains(x, y), theirs.contains(regions.PixCoord(x, y)))
    ours = region_from_text("physical\n" + text) # image pixels of that package count from 0
    assert np.array_equal(ours.contains(x + 1, y + 1), theirs.contains(regions.PixCoord(x, y)))


def test_area_against_counting():
    rng = np.random.default_rng(2)
    x, y = rng.uniform(0, 100, (2, 400_000))
    for text in ("circle(50,50,20)-circle(60,50,5)", "pie(50,50,10,40,30,200)", "polygon(10,10,90,15,70,80)", "ellipse(50,50,40,10,20)*box(60,50,30,30,10)", "sector(50,50,0,90)*circle(50,50,30)"):
        r = region_from_text(text)
        assert r.area() == pytest.approx(r.contains(x, y).mean() * 1e4, rel=0.03)
        x0, y0, x1, y1 = r.bounds
        inside = r.contains(x, y)
        assert (x[inside] >= x0).all() and (x[inside] <= x1).all() and (y[inside] >= y0).all() and (y[inside] <= y1).all()


@pytest.mark.parametrize("text, says", [("image\ncircle(1,2,3)", "depends on how the picture was drawn"), ("physical\ncircle(1,2,3) junk", "line 2 is not understood"), ("fk5\ncircle(1,2,3\")", "sky region needs sky coordinates"), ("circle(1,2,3\")", "no sky coordinates"),
                                        ("physical\nfk5\ncircle(1,2,3)", "mixes sky and physical"), ("circle(1,2,x)", "'x' in a circle is not a number"), ("panda(1,2,3,4,5,6,7,8)", "a panda can't select events"), ("\n\n", "no shape")])
def test_text_that_cannot_be(text, says):
    with pytest.raises(EventFileError, match=says) as err: region_from_text(text, where="my.reg: ")
    assert str(err.value).startswith("my.reg: ")


def test_background(acis): # noqa: F811
    src, bkg = Region([[(True, "circle", (50, 50, 10))]]), Region([[(True, "annulus", (50, 50, 20, 40))]])
    ev = read_event_list(acis(n=4000), src, background=bkg)
    alone = read_event_list(acis(n=4000), bkg)
    assert ev.meta["area_ratio"] == pytest.approx((40**2 - 20**2) / 10**2) and ev.meta["n_background"] == pytest.approx(len(alone), abs=2)
    assert len(ev) == pytest.approx(ev.meta["n_background"] / ev.meta["area_ratio"], abs=4 * len(ev)**0.5)


@needs_real
def test_background_of_the_real_file(tmp_path):
    (tmp_path / "bkg.reg").write_text('# Region file format: CIAO version 1.0\nannulus(2858.55,4712.93,60,200)\n')
    ev = read_event_list(EVT, REG, background=tmp_path / "bkg.reg")
    assert len(ev) == 188 and 0 < ev.meta["n_background"] / ev.meta["area_ratio"] < 30
    (tmp_path / "sky.reg").write_text('# Region file format: DS9 version 4.1\nfk5\nellipse(77.82202,-67.43240,18.1",12.26",88.489)\n')
    assert len(read_event_list(EVT, tmp_path / "sky.reg")) == pytest.approx(188, abs=2)


@pytest.mark.skipif(importlib.util.find_spec("stingray") is None, reason="stingray is not installed")
@pytest.mark.filterwarnings("default")
def test_to_stingray_and_back(acis): # noqa: F811
    ev = read_event_list(acis(), energy_range=None, quality=False)
    there = ev.to_stingray()
    assert type(there).__module__.startswith("stingray") and np.array_equal(there.time, ev.time) and np.allclose(there.energy, ev.energy / 1e3) and np.array_equal(there.gti, ev.gti)
    assert there.mjdref == 50814.0 and there.to_lc(dt=100.0).counts.sum() > 0
    back = EventList.from_stingray(there)
    assert np.array_equal(back.time, ev.time) and np.allclose(back.energy, ev.energy) and np.array_equal(back.gti, ev.gti) and back.id == ev.id
    assert back.start.mjd == ev.start.mjd


def test_to_table(acis): # noqa: F811
    ev = read_event_list(acis(), columns=("x",))
    table = ev.to_table()
    assert table.colnames == ["time", "energy", "x"] and str(table["time"].unit) == "s" and str(table["energy"].unit) == "eV" and len(table) == len(ev) and table.meta["gti"] == ev.gti.tolist()
