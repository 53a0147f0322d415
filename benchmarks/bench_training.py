"""Training on an ordinary computer: time and error of the convolutional autoencoder, memory of the dense one.

    python benchmarks/bench_training.py [--maps 3000] [--cubes 20000] [--epochs 60]

Each part runs in a process of its own, so that its peak memory is its own.
"""

import argparse
import resource
import subprocess
import sys
import time

import numpy as np


def conv(n: int, epochs: int):
    "Train on n maps, and compare the error on held-out sources with that of PCA(12)."
    from sklearn.decomposition import PCA

    from xrt_nb.autoencoder import ConvAutoencoder
    from xrt_nb.training import grouped_split
    from xrt_nb.representations import EtMap
    from xrt_nb.simulation import simulate_archive
    for seed in (5, 6, 7):
        events, _ = simulate_archive(n * 5 // 4, random_state=seed)
        maps = EtMap(normalize=True).transform(events)
        learn, held = grouped_split(events.meta["name"], 0.2, random_state=1)
        start = time.perf_counter()
        ae = ConvAutoencoder(epochs=epochs, random_state=2).fit(maps[learn], groups=events.meta["name"].iloc[learn])
        seconds, flat = time.perf_counter() - start, maps.reshape(len(maps), -1)
        p = PCA(12, random_state=0).fit(flat[learn])
        by_pca = ((p.inverse_transform(p.transform(flat[held])) - flat[held]) ** 2).mean()
        mean, error = ((flat[learn].mean(axis=0) - flat[held]) ** 2).mean(), ae.errors(maps[held]).mean()
        print(f"{len(learn)} maps, seed {seed}: {len(ae.history_)} epochs in {seconds:.0f} s; held-out error: mean map {mean:.5f}, PCA(12) {by_pca:.5f}, autoencoder {error:.5f} ({error / by_pca - 1:+.1%})", flush=True)


def dense(n: int, epochs: int):
    "Train on n sparse cubes and report the peak memory of the process."
    from xrt_nb.autoencoder import DenseAutoencoder
    from xrt_nb.representations import EtDtCube
    from xrt_nb.simulation import simulate_archive
    events, _ = simulate_archive(n, random_state=5)
    cubes = EtDtCube(normalize=True).transform(events)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    start = time.perf_counter()
    ae = DenseAutoencoder(epochs=min(epochs, 3), random_state=2).fit(cubes, groups=events.meta["name"])
    seconds = time.perf_counter() - start
    ae.errors(cubes[:5000])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{n} sparse cubes ({cubes.nnz * 8 / 1e6:.0f} MB; dense they would be {np.prod(cubes.shape) * 4 / 1e6:.0f} MB): {seconds / len(ae.history_):.1f} s an epoch, peak {peak:.2f} GB ({before:.2f} GB before training)", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--maps", type=int, default=3000)
    parser.add_argument("--cubes", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--part", choices=["conv", "dense"])
    args = parser.parse_args()
    if args.part: {"conv": lambda: conv(args.maps, args.epochs), "dense": lambda: dense(args.cubes, args.epochs)}[args.part]()
    else:
        for part in ("conv", "dense"):
            subprocess.run([sys.executable, __file__, "--part", part, "--maps", str(args.maps), "--cubes", str(args.cubes), "--epochs", str(args.epochs)], check=True)
