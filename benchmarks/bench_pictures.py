"""Maps, cubes and PCA on 10,000 simulated sources with about a million photons, each against the plain way, in one run.

    python benchmarks/bench_pictures.py [--sources 10000]

Prints ratios (the machine's speed cancels) and checks that the counts are identical.
"""

import argparse

import numpy as np
from sklearn.decomposition import PCA

from stopwatch import seconds

from xrt_nb.features import pca
from xrt_nb.representations import EtDtCube, EtMap, quality_table
from xrt_nb.simulation import simulate_archive

RANGE = [np.log10(500), np.log10(7000)]


def plain_maps(events, ok):
    "One numpy.histogram2d per source."
    out = np.zeros((len(events), 24, 16), dtype=np.float32)
    for s in np.flatnonzero(ok):
        rows = slice(events.offsets[s], events.offsets[s + 1])
        t = events.time[rows]
        out[s] = np.histogram2d((t - t.min()) / (t.max() - t.min()), np.log10(events.energy[rows]), bins=(24, 16), range=[[0, 1], RANGE])[0]
    return out


def plain_cubes(events, ok):
    "One numpy.histogramdd per source, dense."
    out = np.zeros((len(events), 24, 16, 16), dtype=np.float32)
    for s in np.flatnonzero(ok):
        rows = slice(events.offsets[s], events.offsets[s + 1])
        t, e = events.time[rows], np.log10(events.energy[rows])
        dt, t = np.diff(t), t[:-1]
        sample = np.c_[(t - t.min()) / (t.max() - t.min()), e[:-1], (dt - dt.min()) / (dt.max() - dt.min())]
        out[s] = np.histogramdd(sample, bins=(24, 16, 16), range=[[0, 1], RANGE, [0, 1]])[0]
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=int, default=10_000)
    n = parser.parse_args().sources
    events, _ = simulate_archive(n, random_state=11)
    q = quality_table(events)  # also compiles the kernels
    print(f"{len(events):,} simulated sources, {events.n_events:,} photons")

    slow, expected = seconds(lambda: plain_maps(events, q.map_ok))
    fast, maps = seconds(lambda: EtMap().transform(events), 5)
    print(f"E-t maps:    {slow / fast:6.1f} x faster than one histogram2d per source; {int((maps != expected).sum())} of {maps.size:,} bins differ")

    slow, expected = seconds(lambda: plain_cubes(events, q.cube_ok))
    fast, cubes = seconds(lambda: EtDtCube().transform(events), 5)
    size = cubes.data.nbytes + cubes.indices.nbytes + cubes.indptr.nbytes
    dense = expected.reshape(len(events), -1)
    differ = sum(int((cubes[a:a + 500].toarray() != dense[a:a + 500])[q.cube_ok.to_numpy()[a:a + 500]].sum()) for a in range(0, len(events), 500))
    print(f"E-t-dt cubes: {slow / fast:5.1f} x faster than one histogramdd per source, {dense.nbytes / size:.1f} x smaller; {differ} bins differ")

    fast, model = seconds(lambda: pca(22).fit(cubes), 3)
    slow, plain = seconds(lambda: PCA(22, random_state=11).fit(dense), 3)
    gap = abs(model[-1].explained_variance_ratio_.sum() - plain.explained_variance_ratio_.sum())
    print(f"PCA(22):      {slow / fast:5.1f} x faster on sparse cubes than on dense ones; explained variance differs by {gap:.1e}")


if __name__ == "__main__":
    main()
