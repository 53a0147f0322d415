"""Good times of many detections at once: the same bits as one detection after the other."""

import numpy as np
import pytest

from xrt_nb.data import EventTable, _begun, _done, _live, outside_gti


def drawn(seed, n=60):
    "Times on a coarse grid, so that they often fall on an edge, and intervals of any number."
    rng = np.random.default_rng(seed)
    time, gti, counts, n_gti = [], [], rng.integers(0, 30, n), rng.integers(0, 7, n)
    for k, g in zip(counts, n_gti):
        edge = np.sort(rng.choice(400, 2 * g, replace=False) / 4 - 5)
        gti.append(edge.reshape(-1, 2) + rng.choice([0, 1e-3, 0.1]))
        time.append(np.sort(rng.integers(-40, 400, k) / 4))
    offsets = [np.r_[0, np.cumsum(c)].astype(np.int64) for c in (counts, n_gti)]
    return np.concatenate(time), offsets[0], np.concatenate(gti), offsets[1]


@pytest.mark.parametrize("seed", range(20))
def test_all_at_once_is_one_after_the_other(seed):
    time, offsets, gti, gti_offsets = drawn(seed)
    outside, row, done = outside_gti(time, offsets, gti, gti_offsets), _begun(time, offsets, gti, gti_offsets), _done(gti, gti_offsets)
    for s in range(len(offsets) - 1):
        t, own = time[offsets[s] : offsets[s + 1]], gti[gti_offsets[s] : gti_offsets[s + 1]]
        r = np.searchsorted(own[:, 0], t, side="right") - 1
        if len(own):
            expected = (r < 0) | (t > own[np.maximum(r, 0), 1])
            np.testing.assert_array_equal(row[offsets[s] : offsets[s + 1]], gti_offsets[s] + r)
            np.testing.assert_array_equal(done[gti_offsets[s] : gti_offsets[s + 1]], np.r_[0, np.cumsum(own[:, 1] - own[:, 0])[:-1]])
        else:
            expected = np.zeros(len(t), bool)
        np.testing.assert_array_equal(outside[offsets[s] : offsets[s + 1]], expected)


def test_one_detection_with_very_many_intervals():
    n = 50_000
    start = np.arange(n) * 10.0
    t = np.sort(start[np.random.default_rng(1).integers(0, n, 1000)] + 2.5)
    table = EventTable(["a"], [0, len(t)], t, None, np.c_[start, start + 5], [0, n])
    np.testing.assert_array_equal(_live(table), (t // 10) * 5 + 2.5)
