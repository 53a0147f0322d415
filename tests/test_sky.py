"""Archives by region: what a cone reads is what comparing every detection finds."""

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("astropy_healpix")

from xrt_nb._store import StoreExists, XRTError  # noqa: E402
from xrt_nb.data import EventDataError, EventTable  # noqa: E402
from xrt_nb.sky import cells_in, cells_of, file_of, opened, read_region, separations, write_by_sky  # noqa: E402


def sphere(n, seed):
    rng = np.random.default_rng(seed)
    return pd.DataFrame({"ra": rng.uniform(0, 360, n), "dec": np.degrees(np.arcsin(rng.uniform(-1, 1, n))), "n": np.arange(n)})


CONES = [(0, 0, 1), (360, 0, 3), (0.01, 45, 5), (359.99, -45, 5), (12, 90, 2), (300, -90, 7), (45, 89.5, 1), (180, 41.8, 0.3),
         (45, 0, 2), (90, 41.81, 2), (10, 20, 60), (77, -67, 90), (225, -41.8, 0.05)]


@pytest.mark.parametrize("order", [0, 2, 5])
def test_a_cone_is_what_brute_force_finds(order, tmp_path):
    table = sphere(500, order)
    crowd = sphere(200, 9)
    crowd["ra"], crowd["dec"] = (crowd.ra / 180) % 360, 89 + crowd.dec / 90  # a crowd at the pole
    table = pd.concat([table, crowd], ignore_index=True)
    out = write_by_sky(table, tmp_path / "sky", order=order)
    rng, most = np.random.default_rng(order), 0
    cones = CONES + [(*p, r) for p, r in zip(sphere(40, 77)[["ra", "dec"]].to_numpy(), rng.uniform(0.01, 20, 40))]
    for ra, dec, radius in cones[: None if order < 5 else 25]:
        got = read_region(out, ra, dec, radius)
        expected = table[separations(table, ra, dec) <= radius]
        assert sorted(got.index) == sorted(expected.index)
        most = max(most, len(got))
    assert most > 50


def test_every_position_of_a_cone_is_in_a_cell_of_it():
    "Where no files are: all cells of random positions inside the cone are among its cells."
    about = {"order": 5, "cells": {str(n): 1 for n in range(12 * 4**5)}}
    points = sphere(100_000, 3)
    cell = cells_of(points.ra, points.dec, 5, points.index)
    for ra, dec, radius in CONES:
        inside = separations(points, ra, dec) <= radius
        assert set(cell[inside]) <= set(cells_in(about, ra, dec, radius))


def test_only_the_cells_that_are_needed_are_read(tmp_path):
    out = write_by_sky(sphere(300, 1), tmp_path / "sky")
    needed = {file_of(5, c) for c in cells_in(opened(out), 100.0, 10.0, 14.0)}
    before = read_region(out, 100.0, 10.0, 14.0)
    for path in out.rglob("Npix=*.parquet"):
        if path.relative_to(out).as_posix() not in needed:
            path.unlink()
    assert read_region(out, 100.0, 10.0, 14.0).equals(before)
    assert 0 < len(needed) <= 250  # of 12,288; the cone covers 183 of them


def test_detections_without_a_position_are_kept_apart(tmp_path):
    table = sphere(50, 2)
    table.loc[::5, "ra"] = np.nan
    out = write_by_sky(table, tmp_path / "sky")
    assert pd.read_parquet(out / "nowhere.parquet").n.tolist() == list(range(0, 50, 5))
    whole = pd.concat([pd.read_parquet(p) for p in out.rglob("*.parquet")])
    assert sorted(whole.n) == list(range(50)) and opened(out)["cells"]["-1"] == 10


def test_events_come_back(tmp_path):
    meta = sphere(30, 4)[["ra", "dec"]].set_axis([f"{k}_1" for k in range(30)])
    t = np.tile(np.arange(7.0), 30)
    table = EventTable(list(meta.index), np.arange(31) * 7, t, t + 500, meta=meta)
    out = write_by_sky(table, tmp_path / "sky", order=1)
    got = read_region(out, *meta.iloc[3], 90)
    assert {i: got[i].time.tolist() for i in got.ids} == {
        i: table[i].time.tolist() for i in table.ids[separations(meta, *meta.iloc[3]) <= 90]}
    assert len(read_region(write_by_sky(table, tmp_path / "fine"), *(meta.iloc[3] + 0.5), 1e-6)) == 0


def test_the_same_bytes_twice(tmp_path):
    a, b = (write_by_sky(sphere(100, 5), tmp_path / n) for n in "ab")
    assert [p.read_bytes() for p in sorted(a.rglob("*.parquet"))] == [p.read_bytes() for p in sorted(b.rglob("*.parquet"))]


@pytest.mark.parametrize("column, value", [("ra", 361.0), ("ra", -400.0), ("dec", 90.1), ("dec", np.inf)])
def test_impossible_positions_are_named(column, value, tmp_path):
    table = sphere(5, 6).set_axis(list("abcde"))
    table.loc["c", column] = value
    with pytest.raises(EventDataError, match=f"'c': {column} is"):
        write_by_sky(table, tmp_path / "sky")
    assert not list(tmp_path.iterdir())


def test_refusals(tmp_path):
    table = sphere(5, 7)
    out = write_by_sky(table, tmp_path / "sky")
    with pytest.raises(StoreExists):
        write_by_sky(table, out)
    with pytest.raises(TypeError, match="EventTable or a DataFrame"):
        write_by_sky([1], tmp_path / "x")
    for bad in ((400, 0, 1), (0, 91, 1), (0, 0, 0), (0, 0, 91), (0, 0, float("nan"))):
        with pytest.raises(ValueError):
            read_region(out, *bad)
    (out / "manifest.json").write_text("{}")
    with pytest.raises(XRTError, match="write_by_sky"):
        read_region(out, 0, 0, 1)
    for order in (-1, 13, 2.5):
        with pytest.raises(ValueError, match="order"):
            write_by_sky(table, tmp_path / "x", order=order)


def test_without_the_extra_the_command_is_said(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "astropy_healpix", None)
    with pytest.raises(ImportError, match=r'pip install "xrt_nb\[scale\]"'):
        write_by_sky(sphere(3, 8), tmp_path / "sky")
