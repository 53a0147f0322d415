"Reading region text for the fuzzer: what is watched, and what another parser makes of the same text."
import warnings

import numpy as np
from astropy.wcs import WCS

from xrt_nb.fits import as_region

GOOD = """# Region file format: DS9 version 4.1
global color=green dashlist=8 3 width=1 font="helvetica 10 normal" source=1
fk5
circle(83.01,-65.01,30") # text={the source}
-circle(5:32:04.5,-65:00:30,0.1')
ellipse(83.1d,-64.95,40",20",33) # tag={a;b}
box(82.9,-65.05,1.2',0.5',70)
annulus(83,-65,60",90",120") # background
polygon(82.95,-65.02,82.97,-65.02,82.96,-64.99)
# text(83,-65) text={a label}
physical;pie 4000 4000 100 200 10 80; point(4000,4000)
-box(4050p,4050p,30,40,0)
"""
CIAO = """# Region file format: CIAO version 1.0
circle(4100,4000,12)-circle(4105,4003,3)
rotbox(4150,4010,20,10,30)*circle(4150,4010,8)
rectangle(3000,3000,3100,3200)
+sector(4000,4000,10,20)&circle(4000,4000,300)
ellipse(5:32:04.5,-65:00:30,0.2',10",30)
"""
POINTS = np.random.default_rng(8).uniform(3000, 5200, (2, 20_000))


def sky():
    "The sky plane of an event file: half an arcsecond per pixel."
    w = WCS(naxis=2)
    w.wcs.ctype, w.wcs.crval, w.wcs.crpix = ["RA---TAN", "DEC--TAN"], [83.0, -65.0], [4096.5, 4096.5]
    w.wcs.cdelt = [-0.492 / 3600, 0.492 / 3600]
    return w


def read(path):
    "What is watched: the region of a file, in words and in points."
    region = as_region(path, wcs=sky())
    return f"{region!r} {int(region.contains(*POINTS).sum())}"


def theirs(text, wcs):
    "Which of the points the package regions finds inside; None where it refuses or passes over anything."
    from regions import PixCoord, Regions
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try: found = [r.to_pixel(wcs) if hasattr(r, "to_pixel") else r for r in Regions.parse(text, format="ds9")]
        except Exception: return None
    if not found or any(not hasattr(r, "area") or type(r).__name__.startswith(("Text", "Point", "Line")) for r in found): return None
    inside, at = np.zeros(POINTS.shape[1], bool), PixCoord(*(POINTS - 1))
    include = [str(r.meta.get("include", 1)) not in ("0", "False", "-") for r in found]
    if not any(include): inside[:] = True
    for r, yes in zip(found, include): inside |= r.contains(at) if yes and r.meta.setdefault("include", True) is not None else False
    for r, yes in zip(found, include):
        if not yes:
            r.meta["include"] = True
            inside &= ~r.contains(at)
    return inside
