"""Shapes: every loop against a plain way of counting, and what no photon list may break."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xrt_nb import shapes
from xrt_nb.data import EventDataError, EventTable
from xrt_nb.features import block_edges
from xrt_nb.shapes import CELLS, Clocked, SearchFeatures, ShapeFeatures, WeightsError, read_weights, search_features


def lists(seed, n_sources=6, most=300, energies=True, gaps=True):
    "Random photon lists, some with gaps in their exposure."
    rng, rows, gtis = np.random.default_rng(seed), [], []
    for s in range(n_sources):
        start, live = rng.uniform(0, 1e8), np.exp(rng.uniform(np.log(300), np.log(1e5)))
        n = int(np.exp(rng.uniform(np.log(2), np.log(most))))
        gti = np.array([[0, live * 0.4], [live * 0.7, live * 1.3]]) if gaps and s % 2 else np.array([[0, live]])
        x = np.sort(rng.uniform(0, live, n) if s % 3 else np.minimum(rng.exponential(live / 8, n), live * 0.99))
        first = gti[0, 1]
        time = np.where(x < first, x, x - first + gti[-1, 0]) if len(gti) > 1 else x
        rows.append((start + time, rng.uniform(500, 7000, n)))
        gtis.append(start + gti)
    offsets = np.r_[0, np.cumsum([len(t) for t, _ in rows])]
    time, energy = (np.concatenate([r[k] for r in rows]) for k in (0, 1))
    gti_offsets = np.r_[0, np.cumsum([len(g) for g in gtis])]
    ids = [f"s{k}" for k in range(n_sources)]
    return EventTable(ids, offsets, time, energy if energies else None, np.concatenate(gtis), gti_offsets)


def scan_by_hand(counts, sign):
    "Largest signed z per width, and the best penalized score, over all windows."
    n, z, best = counts.sum(), [], -np.inf
    for w in shapes.WIDTHS:
        mu = n * w / CELLS
        k = np.array([counts[s:s + w].sum() for s in range(CELLS - w + 1)], float)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(k > 0, k * np.log(k / mu), 0) + np.where(k < n, (n - k) * np.log((n - k) / (n - mu)), 0)
        one = sign * np.sign(k - mu) * np.sqrt(2 * np.maximum(ratio, 0))
        z.append(one.max())
        best = max(best, (np.maximum(one, 0) ** 2 / 2).max() - np.log(CELLS / w))
    return z, best


@given(st.integers(0, 10_000))
@settings(max_examples=4, deadline=None)
def test_scans_agree_with_all_windows_counted(seed):
    p = shapes.clocked(lists(seed))
    out, best = shapes.scan_shapes(p)
    for s in range(len(p.live)):
        counts = np.histogram(p.u[p.offsets[s]:p.offsets[s + 1]], CELLS, (0, 1))[0]
        for side, (name, sign) in enumerate({"up": 1, "down": -1}.items()):
            z, score = scan_by_hand(counts, sign)
            np.testing.assert_allclose([out[f"scan_{name}_{w}"][s] for w in shapes.WIDTHS], z, atol=1e-9)
            np.testing.assert_allclose(out[f"{name}_score"][s], score, atol=1e-9)
            first, last = best[s, side]
            assert 0 <= first < last <= CELLS


@given(st.integers(0, 10_000))
@settings(max_examples=4, deadline=None)
def test_seconds_agree_with_every_interval_tried(seed):
    p = shapes.clocked(lists(seed, most=60))
    raw = np.zeros((len(p.live), len(shapes.SECONDS) + 3))
    shapes._second_scans(p.u, p.offsets, p.live, np.array(shapes.SECONDS), raw)
    for s in range(len(p.live)):
        u = p.u[p.offsets[s]:p.offsets[s + 1]]
        n = len(u)
        for j, seconds in enumerate(shapes.SECONDS):
            w = seconds / p.live[s]
            if w < 0.5:
                k = max(np.sum((u - a >= 0) & (u - a <= w)) for a in u)
                z = max(shapes._signed_root(k, n * w, n), 0)
                np.testing.assert_allclose(raw[s, j], z**2 / 2 + np.log(w), atol=1e-9)
        for j, share in enumerate((0.25, 0.5)):
            m = max(int(np.ceil(n * share)), 2)
            np.testing.assert_allclose(raw[s, len(shapes.SECONDS) + j], min(u[m - 1:] - u[:n - m + 1]))
        np.testing.assert_allclose(raw[s, -1], max(u[0], 1 - u[-1], *np.diff(u)))


@given(st.integers(0, 10_000))
@settings(max_examples=4, deadline=None)
def test_blocks_and_excursions_agree_with_a_plain_count(seed):
    p = shapes.clocked(lists(seed))
    out = shapes.block_shapes(p, p0=0.01)
    for s in range(len(p.live)):
        cells = np.diff(p.total[s, ::CELLS // shapes.BLOCK_CELLS])
        edge = block_edges(cells)
        rate = np.add.reduceat(cells, edge[:-1]) / np.diff(edge)
        each = np.repeat(rate, np.diff(edge))
        base = max(np.median(each), 0.5 / len(cells))
        np.testing.assert_allclose(out["block_n"][s], np.log(len(rate)))
        for name, hit in {"rise": each > 1.3 * base, "drop": each < base / 1.3}.items():
            starts = np.flatnonzero(np.diff(np.r_[0, hit.astype(int)]) == 1)
            assert out[f"{name}_n"][s] == min(len(starts), 8)
            np.testing.assert_allclose(out[f"{name}_duty"][s], hit.mean())
            np.testing.assert_allclose(out[f"{name}_net"][s], np.abs(each - base)[hit].sum() / max(cells.sum(), 1))


@given(st.integers(0, 10_000))
@settings(max_examples=3, deadline=None)
def test_profiles_agree_with_photons_counted_in_cells(seed):
    p = shapes.clocked(lists(seed))
    _, best = shapes.scan_shapes(p)
    cells, middle = np.zeros((len(p.live), 2, 2, 7)), np.zeros((len(p.live), 2), np.int64)
    shapes._profiles(p.total, best, np.array(shapes.OCTAVES), middle, cells)
    for s in range(len(p.live)):
        counts = np.diff(p.total[s])
        n = counts.sum()
        for kind in (0, 1):
            at = middle[s, kind]
            assert best[s, kind, 0] <= at <= best[s, kind, 1]
            for j, (a, b) in enumerate(zip(shapes.OCTAVES[:-1], shapes.OCTAVES[1:])):
                sides = counts[max(at - b, 0):max(at - a, 0)], counts[at + a:at + b]
                want = [np.log((x.sum() + 1) / (n * len(x) / CELLS + 1)) for x in sides]
                np.testing.assert_allclose(cells[s, kind, :, j], want)


def test_timing_needs_no_energies_and_is_the_same_with_them():
    table = lists(3)
    bare = lists(3, energies=False)
    with_e, without = shapes.raw_search_columns(table), shapes.raw_search_columns(bare)
    assert set(without.columns) < set(with_e.columns)
    np.testing.assert_array_equal(with_e[without.columns], without)
    np.testing.assert_array_equal(ShapeFeatures(energies=False).transform(table), ShapeFeatures(energies=False).transform(bare))
    with pytest.raises(EventDataError, match="energies=False"):
        ShapeFeatures().transform(bare)


def test_when_the_observation_began_never_matters():
    table = lists(5)
    moved = EventTable(table.ids, table.offsets, table.time + 4096.0, table.energy, table.gti + 4096.0, table.gti_offsets)
    a, b = shapes.raw_search_columns(table), shapes.raw_search_columns(moved)
    # times near 1e8 s are known to 1.5e-8 s; a pulsation's phase at 3 s turns that into 1e-8 of a cycle
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_a_table_in_pieces_is_the_table_whole():
    table = lists(8, n_sources=9)
    whole = shapes.raw_search_columns(table)
    pieces = [shapes.raw_search_columns(table[[i]]) for i in table.ids]
    np.testing.assert_allclose(whole, np.vstack(pieces), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5])
def test_lists_of_few_events_have_finite_rows(n):
    rng = np.random.default_rng(n)
    time = np.sort(rng.uniform(0, 1000, n + 40))
    few = EventTable(["few", "more"], [0, n, n + 40], np.r_[time[:n], time[n:]], rng.uniform(500, 7000, n + 40),
                     np.array([[0, 1000.0], [0, 1000.0]]), [0, 1, 2])
    x = shapes.raw_search_columns(few)
    assert np.isfinite(x).all(axis=None)
    if n < 2:
        assert (x.loc["few"] == 0).all()
    frame = search_features(few)
    assert np.isfinite(frame).all(axis=None) and frame.dtypes.eq(np.float32).all()


def test_all_photons_at_one_moment():
    burst = EventTable(["one"], [0, 50], np.full(50, 500.0), np.full(50, 1000.0), np.array([[0, 1000.0]]), [0, 1])
    assert np.isfinite(search_features(burst)).all(axis=None)


def test_unknown_exposure_is_said_and_events_are_a_clock():
    bare = EventTable(["a"], [0, 4], np.array([0.0, 5, 40, 90]), np.full(4, 1000.0))
    with pytest.raises(EventDataError, match="time_axis='events'"):
        search_features(bare)
    assert np.isfinite(search_features(bare, time_axis="events")).all(axis=None)


def test_indices_stay_in_range_for_photons_at_the_edges():
    u = np.array([0.0, 0.0, 0.5, np.nextafter(1, 0), np.nextafter(1, 0)])
    total = np.zeros((1, CELLS + 1))
    shapes._running_total(u, np.array([0, 5]), total)
    assert total[0, -1] == 5 and total[0, 1] == 2 and np.diff(total[0])[-1] == 2
    p = Clocked(u, np.array([0, 5]), np.array([1000.0]), total)
    for part in (shapes.second_shapes, shapes.block_shapes, shapes.asymmetry_shapes, shapes.pulse_shapes):
        assert all(np.isfinite(v).all() for v in part(p).values())


def test_a_pulsar_as_fast_as_a_few_frames_is_found():
    rng = np.random.default_rng(0)
    frames = np.arange(0, 30_000, 3.241)
    rate = 1 + 0.7 * np.cos(2 * np.pi * frames / 19.86)
    time = rng.choice(frames, 1500, p=rate / rate.sum())
    steady = rng.choice(frames, 1500)
    table = EventTable(["pulsar", "steady"], [0, 1500, 3000], np.r_[np.sort(time), np.sort(steady)], None,
                       np.array([[0, 30_000.0]] * 2), [0, 1, 2])
    found = shapes.pulse_shapes(shapes.clocked(table))
    assert abs(10 ** found["pulse_period"][0] - 19.86) < 0.05
    assert found["pulse_power"][0] > 4 and found["pulse_power"][1] < 2.5


def test_dither_periods_stand_out():
    rng = np.random.default_rng(1)
    t = np.arange(0, 40_000, 3.2)
    rate = (np.cos(2 * np.pi * t / 707.1) < 0.3) + 0.05
    table = EventTable(["edge"], [0, 600], np.sort(rng.choice(t, 600, p=rate / rate.sum())), None, np.array([[0, 40_000.0]]), [0, 1])
    found = shapes.period_shapes(shapes.clocked(table), table.time)
    assert found["dither_707"][0] > 2 and found["dither_707"][0] > found["dither_1000"][0] + 1


def test_count_tables_standardize_and_refuse_too_few():
    rng = np.random.default_rng(2)
    counts = np.round(np.exp(rng.uniform(np.log(5), np.log(5000), 4000))).astype(int)
    x = rng.normal(3, 1, (4000, 2)) / np.sqrt(counts)[:, None]
    z = shapes.against_counts(x, counts, shapes.count_table(x, counts))
    for low, high in ((5, 50), (50, 5000)):
        some = z[(counts >= low) & (counts < high)]
        assert np.abs(np.median(some, axis=0)).max() < 0.15
    with pytest.raises(EventDataError, match="at least 30"):
        shapes.count_table(x[:10], counts[:10])


def test_weights_that_disagree_with_their_recipe_are_refused(tmp_path):
    shipped = shapes.shipped_weights()
    copy, recipe = tmp_path / "metric.npz", tmp_path / "metric.json"
    copy.write_bytes(shipped.read_bytes())
    with pytest.raises(WeightsError, match="metric.json beside it"):
        read_weights(copy)
    told = json.loads(shipped.with_suffix(".json").read_text())
    recipe.write_text(json.dumps(told))
    assert read_weights(copy)
    recipe.write_text(json.dumps(told | {"shapes": told["shapes"] | {"w0": [1, 2]}}))
    with pytest.raises(WeightsError, match="w0 has shape"):
        read_weights(copy)
    recipe.write_text(json.dumps(told))
    changed = bytearray(copy.read_bytes())
    changed[len(changed) // 2] ^= 1
    copy.write_bytes(bytes(changed))
    with pytest.raises(WeightsError, match="SHA-256"):
        read_weights(copy)
    recipe.write_text("not json")
    with pytest.raises(WeightsError, match="not JSON"):
        read_weights(copy)
    recipe.write_text("[1]")
    with pytest.raises(WeightsError, match="sha256"):
        read_weights(copy)


def test_the_shipped_table_knows_every_column():
    assert list(read_weights()["columns"]) == list(shapes.search_names())
    assert SearchFeatures().get_feature_names_out()[-1] == "log_live"
    assert shapes.block_weights(SearchFeatures().get_feature_names_out()).ge(0).all()
