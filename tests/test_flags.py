"Flags: what they find and leave alone on real lists, properties, other implementations, bad input."
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2, kstest

from xrt_nb.data import EventDataError, EventList, EventTable, XRTWarning
from xrt_nb.flags import (BESIDE, FLAGS, SWINGS, Seen, _dither_powers, _glowing, _most_visits, _near_edges, _power_at, background_list,
                          dither_chance, flag_table, non_unique, risen, shared_gain, single_frame_chance, with_photons)
from xrt_nb.fits import read_event_list
from xrt_nb.simulation import simulate_source

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))


@pytest.fixture(scope="module")
def constant():
    from bench_candidates import constant_lists

    return constant_lists(2000, 7)


@pytest.fixture(scope="module")
def real(shared):
    import os
    from unittest.mock import patch

    from bench_candidates import real_lists

    with patch.dict(os.environ, {"XRT_NB_SHARED": str(shared)}):
        events, label = real_lists()
    return events, label, flag_table(events)


def test_real_background_flares_are_common_mode(real):
    _, label, frame = real
    assert (label == "bkgflare").sum() == 16
    assert frame.flag_common_mode[label == "bkgflare"].fillna(False).all()


def test_real_dithers_are_flagged(real):
    _, label, frame = real
    assert frame.flag_dither[label == "dither"].mean() >= 0.8


def test_real_steady_lists_are_left_alone(real):
    # single_frame is apart: those lists hold real showers, see below
    _, label, frame = real
    rest = frame[label == "steady"].drop(columns=["flag_single_frame"])
    known = rest.loc[:, rest.notna().any()]
    assert len(known.columns) >= 7 and (known.mean() <= 0.03).all()


def test_single_frames_of_real_steady_lists_are_no_chance(real):
    # the same counts, good times and frames, but constant: hardly any; the real ones hold frames that no constant source fills
    from xrt_nb.nulls import simulate_constant

    events, label, frame = real
    steady = events[(label == "steady").to_numpy()]
    fake = FLAGS["single_frame"].of(simulate_constant(steady, 10, random_state=1))
    assert fake.notna().all() and fake.sum() <= 10  # nominal: 3.4 of 3,420
    assert frame.flag_single_frame[label == "steady"].sum() >= 10


def test_one_source_is_listed_twice_in_few_real_observations(real):
    _, label, frame = real
    assert frame.flag_non_unique.notna().all() and frame.flag_non_unique.mean() < 0.03


def test_the_real_burst_is_no_shower_and_its_background_is_read(shared):
    folder = shared / "data" / "xrt200515"
    path, region = folder / "acisf23022_000N027_r0122_regevt3.fits.gz", folder / "acisf23022_000N020_r0122_reg3.fits.gz"
    burst = read_event_list(path, region, columns=("chipx", "chipy", "ccd_id"))
    sky = background_list(path, region)
    assert sky.id == burst.id and np.array_equal(sky.gti, burst.gti) and 1 < sky.meta["area_ratio"] < 10 and len(sky) > 20
    frame = flag_table(burst, background=EventTable.from_lists([sky])).iloc[0]
    for name in ("single_frame", "hot_pixel", "afterglow", "dither", "edge_affected", "bkg_correlated"):
        assert frame[f"flag_{name}"] is False or frame[f"flag_{name}"] == np.False_, name
    assert frame.flag_start_or_end and frame.flag_pile_up  # the flare ends with the observation; 21 photons in a frame


def test_constant_lists_are_left_alone(constant):
    frame = flag_table(constant).drop(columns="flag_few_counts")
    assert (frame.mean().dropna() < 0.006).all()


def test_the_chance_of_dither_is_uniform_below(constant):
    # local levels make it conservative, never more frequent than stated beyond noise
    p, known = dither_chance(Seen(constant))
    for q in (0.3, 0.1, 0.03):
        n, k = known.sum(), (p[known] < q).sum()
        assert k <= n * q + 4 * np.sqrt(n * q)


def test_powers_against_noise_follow_chi_squared():
    rng = np.random.default_rng(2)
    gti = np.array([[0.0, 9e3], [12e3, 30e3]])
    power = []
    for _ in range(400):
        t = rng.uniform(0, 27e3, 200)
        power.append(_power_at(np.sort(t + 3e3 * (t > 9e3)), gti, 1e-3))
    assert kstest(power, chi2(2).cdf).pvalue > 1e-3


def test_power_agrees_with_stingray():
    pulse = pytest.importorskip("stingray.pulse.pulsar")
    t = np.sort(np.random.default_rng(1).uniform(0, 2e4, 500))
    ours = sum(_power_at(t, np.array([[0, 2e4]]), h / 1000.0) for h in (1, 2))
    assert ours == pytest.approx(float(np.squeeze(pulse.z_n(t * 1e-3 % 1, n=2))), rel=1e-6)


def test_order_and_company_dont_matter(constant):
    some = constant[:400]
    frame, order = flag_table(some), np.random.default_rng(0).permutation(400)
    assert flag_table(some[order]).loc[some.ids].equals(frame)
    assert flag_table(some).equals(frame)


def test_each_flag_alone_is_its_column(constant):
    some = constant[:120]
    frame = flag_table(some)
    for name, flag in FLAGS.items():
        alone = flag.of(some)
        assert alone.equals(frame[alone.name]) and alone.dtype == "boolean"
        assert flag.name == name and flag.about.endswith(".") and flag.needs


def test_visits_and_glows_by_hand():
    rng = np.random.default_rng(3)
    for _ in range(30):
        n = int(rng.integers(1, 60))
        t, code = np.sort(rng.integers(0, 500, n)).astype(float), rng.integers(0, 4, n)
        visits, pixels, glow, beside = (np.zeros(1, np.int64) for _ in range(4))
        _most_visits(t, code, np.array([0, n]), 20.0, visits, pixels)
        by_hand = max(1 + (np.diff(t[code == c]) > 20).sum() for c in np.unique(code))
        assert visits[0] == by_hand and pixels[0] == len(np.unique(code))
        _glowing(t, code, np.array([0, n]), np.array([30.0]), glow, beside)
        assert glow[0] == max(((code == c) & (t >= a) & (t <= a + 30)).sum() for c, a in zip(code, t))
        assert beside[0] >= glow[0]


def test_photons_near_edges_by_hand():
    rng = np.random.default_rng(4)
    gti = np.array([[0.0, 500.0], [700.0, 800.0], [1000.0, 3000.0]])
    t = np.sort(np.concatenate([rng.uniform(a, b, 40) for a, b in gti]))
    k, share = np.zeros(1, np.int64), np.zeros(1)
    _near_edges(t, np.array([0, 120]), gti, np.array([0, 3]), 60.0, k, share)
    near = [(min(x - a, b - x) < 60) for x in t for a, b in gti if a <= x < b]
    assert k[0] == sum(near) and share[0] == pytest.approx((120 + 100 + 120) / 2600)


def test_gain_of_a_shared_curve_is_never_negative_and_grows():
    height = np.r_[np.ones(100), np.full(28, 4.0)]
    rng = np.random.default_rng(5)
    steady = shared_gain(rng.poisson(1, (50, 128)).astype(float), height)
    follows = shared_gain(rng.poisson(height, (50, 128)).astype(float), height)
    assert (steady >= 0).all() and np.median(steady) < 3 and follows.min() > 15
    assert not shared_gain(np.ones((2, 128)), np.ones(128)).any()


def test_blocks_of_a_quiet_sum_are_flat():
    rng = np.random.default_rng(6)
    flat = [np.ptp(risen(rng.poisson(20, 128))) == 0 for _ in range(60)]
    assert np.mean(flat) > 0.85
    assert risen(np.r_[np.full(96, 20), np.full(32, 60)]).max() == pytest.approx(3)


def test_frame_times_are_told_or_found_or_unknown():
    framed = simulate_source(counts=200, frame_time=1.7, rng=1, id="a")
    bare = EventList(framed.time, id="b", gti=framed.gti)
    loose = EventList(np.sort(np.random.default_rng(0).uniform(0, 25e3, 200)), id="c", gti=framed.gti)
    other = EventList(framed.time, id="d", gti=framed.gti, meta={"timedel": 1.7})
    for one in (framed, bare, other):
        assert Seen(one).frame == pytest.approx([1.7], rel=1e-6)
    assert np.isnan(Seen(loose).frame).all() and FLAGS["single_frame"].of(loose).isna().all()


def swung(period, **meta):
    "A list of 400 photons that vanish each half period."
    rng = np.random.default_rng(8)
    t = rng.uniform(0, 40e3, 1200)
    t = np.sort(t[np.cos(2 * np.pi * t / period) > 0][:400]) + meta.pop("start", 0.0)
    return EventList(t, id="a_1", gti=[[t[0] - 1, t[-1] + 1]], meta=meta)


@pytest.mark.parametrize("period, meta, flagged", [
    (1000.0, {}, True), (1087.0, {}, True), (2000.0, {}, True), (1234.0, {}, False),
    (1000.0, {"instrument": "ACIS", "start": 5e7}, True), (1414.0, {"instrument": "ACIS", "start": 8e8}, True),
    (768.6, {"instrument": "HRC", "start": 5e7}, True), (1087.0, {"instrument": "ACIS", "start": 5e7}, False),
    (1000.0, {"mission": "XMM-Newton", "instrument": "EPIC"}, None),
])
def test_periods_follow_the_instrument(period, meta, flagged):
    answer = FLAGS["dither"].of(swung(period, **meta)).iloc[0]
    assert (answer is pd.NA) if flagged is None else bool(answer) == flagged


def test_every_axis_of_the_dither_kernel_is_used_once():
    t, periods = np.sort(np.random.default_rng(1).uniform(0, 3e4, 100)), np.array([1000.0, 707.1])
    gti, use, out = np.array([[0, 3e4]]), np.array([[True, False]]), np.zeros((1, 2))
    _dither_powers(t, np.array([0, 100]), gti, np.array([0, 1]), periods, use, np.array(BESIDE), out)
    level = [np.mean([_power_at(t, gti, h * r / 1000) for r in BESIDE]) for h in (1, 2)]
    assert out[0, 0] == pytest.approx(sum(_power_at(t, gti, h / 1000) / max(v / 2, 1) for h, v in zip((1, 2), level)))
    assert out[0, 1] == 0 and len(SWINGS) == 3


def test_non_unique_agrees_with_astropy():
    from astropy.coordinates import SkyCoord

    rng = np.random.default_rng(9)
    places = pd.DataFrame({"ra": 359.999 + rng.uniform(0, 0.004, 80), "dec": rng.uniform(-0.002, 0.002, 80)})
    places["ra"] %= 360
    ids = [f"{k % 4}_{k}" for k in range(80)]
    places.index = ids
    table = EventTable(ids, np.arange(81), np.arange(80.0))
    sky = SkyCoord(places.ra.to_numpy(), places.dec.to_numpy(), unit="deg")
    other = np.array([i.split("_")[0] for i in ids])
    near = (sky[:, None].separation(sky[None]).arcsec <= 2) & (other[:, None] == other) & ~np.eye(80, dtype=bool)
    assert FLAGS["non_unique"].of(table, positions=places).tolist() == near.any(axis=1).tolist()
    assert non_unique(Seen(table, None, places)).tolist() == near.any(axis=1).tolist()


def test_other_lists_dont_suffer_from_one_without_exposure(constant):
    some = constant[:40]
    table = EventTable.from_lists([EventList(x.time, id=x.id, gti=x.gti) for x in some])
    meta = pd.DataFrame({"t_start": [0.0] * 40 + [np.nan], "t_stop": [3e4] * 40 + [np.nan]}, index=[*table.ids, "lost"])
    times = np.r_[table.time.clip(0, 3e4), [1.0, 2.0, 3.0]]
    mixed = EventTable([*table.ids, "lost"], np.r_[table.offsets, len(times)], times, meta=meta)
    with pytest.warns(XRTWarning, match="1 of 41 detections have no known exposure"):
        frame = flag_table(mixed)
    alone = EventTable(table.ids, table.offsets, times[:-3], meta=meta.iloc[:40])
    assert flag_table(alone).equals(frame.iloc[:40]) and frame.loc["lost"].isna().sum() >= 14


def test_zero_exposure_and_photons_outside_it():
    meta = pd.DataFrame({"t_start": [0.0], "t_stop": [0.0]}, index=["a"])
    with pytest.warns(XRTWarning, match="no known exposure"):
        assert flag_table(EventTable(["a"], [0, 1], [0.0], meta=meta)).flag_dither.isna().all()
    outside = EventTable(["a"], [0, 2], [5.0, 99.0], meta=meta.assign(t_stop=10.0))
    with pytest.raises(EventDataError, match="'a'.*outside its exposure"):
        flag_table(outside)


def test_empty_table_and_bad_chip_columns():
    assert flag_table(EventTable([], [0], [])).shape == (0, len(FLAGS))
    x = EventList([1.0, 2, 3], id="a", gti=[[0, 9]], columns={"chipx": [1.0, np.nan, 3], "chipy": [1.0, 2, 3]})
    with pytest.raises(EventDataError, match="chipx"):
        flag_table(x)


def test_flags_never_change_the_events(constant):
    some = constant[:40]
    before = [a.copy() for a in (some.time, some.offsets, some.gti)]
    flag_table(some)
    assert all(np.array_equal(a, b) for a, b in zip(before, (some.time, some.offsets, some.gti)))


def test_a_shower_is_one_frame_and_a_burst_is_not():
    quiet = simulate_source(counts=100, rng=3, id="a")
    t0 = quiet.time[40]
    shower = with_photons(quiet, np.full(6, t0), "b")
    short = with_photons(quiet, t0 + 3.141 * np.repeat(np.arange(5), (2, 8, 4, 2, 1)), "c")
    assert FLAGS["single_frame"].of(EventTable.from_lists([quiet, shower, short])).tolist() == [False, True, False]


def test_the_chance_of_a_single_frame_is_never_too_small(constant):
    p, known = single_frame_chance(Seen(constant))
    assert known.all()
    for q in (0.3, 0.1, 0.03, 0.01):
        assert (p < q).sum() <= len(p) * q + 4 * np.sqrt(len(p) * q)


def test_the_chance_of_a_single_frame_by_hand():
    from scipy.stats import poisson

    frame, n_frames, rng = 2.0, 5000, np.random.default_rng(3)
    own = np.sort(rng.choice(np.arange(0, n_frames, 12), 60, replace=False))  # never two within twelve frames
    for k in (2, 3, 5):
        t = np.sort(np.r_[own, np.full(k - 1, own[30])]) * frame + frame / 2
        one = EventList(t, id="a_1", gti=[[0, n_frames * frame]], meta={"frame_time": frame})
        rate = max(len(t) / n_frames, *(((np.abs(own - own[30]) <= w).sum() - 1) / (2 * w) for w in (20, 80, 320)))
        by_hand = 1.0 if k < 3 else -np.expm1(n_frames * np.log1p(-poisson.sf(k - 1, rate)))
        assert single_frame_chance(Seen(one))[0][0] == pytest.approx(by_hand, rel=1e-6)


def test_the_frames_of_a_bright_flare_are_no_single_frames():
    "Flares up to one photon per frame for ten minutes: measured against the whole list each of them is impossible."
    rng, flares = np.random.default_rng(5), []
    for k in range(200):
        late = 12e3 + rng.exponential(400, 150)
        t = np.sort(np.floor(np.r_[rng.uniform(0, 25e3, 50), late] / 3.2) + 0.5) * 3.2
        flares.append(EventList(t, id=f"{k}_1", gti=[[0, 25.6e3]], meta={"frame_time": 3.2}))
    assert FLAGS["single_frame"].of(EventTable.from_lists(flares)).sum() <= 2


def test_no_warning_on_ordinary_input(constant):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flag_table(constant[:80])
