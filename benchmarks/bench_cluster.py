"""Two workers against one, in one run, and twenty workers killed at random moments: the bars of work in parts.

    python benchmarks/bench_cluster.py [--sources 2000] [--parts 24] [--repeats 3] [--kills 20]

Prints medians with their spread, and the load of the machine, without which a ratio says little.
"""

import argparse
import os
import signal
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd

from xrt_nb.default_search import search_features
from xrt_nb.scale import Cluster, map_parts, parts_of, read_part
from xrt_nb.simulation import simulate_archive
from xrt_nb.tables import ParquetEvents


def measure(part, again=0):
    "Search features of a part; `again` only tells calls apart."
    return search_features(read_part(part), "livetime")


def make_archive(path, sources, parts):
    "A simulated archive with a row group for every part."
    events, _ = simulate_archive(sources, random_state=1)
    with ParquetEvents(path) as out:
        for rows in np.array_split(np.arange(sources), parts):
            out.write(events[rows])
    return parts_of(path)


def seconds(parts, out, cluster, again):
    "How long a call takes on a cluster that is warm."
    begin = time.perf_counter()
    map_parts(measure, parts, out, cluster, again=again).complete()
    return time.perf_counter() - begin


def bytes_of(done):
    "Contents of all results."
    return [p.read_bytes() for p in done.complete()]


def speed(parts, folder, repeats):
    "Ratios of one worker to two, in turns, so that both see the same load."
    ratios = []
    with Cluster("local:1", folder) as one, Cluster("local:2", folder) as two:
        for name, cluster in (("warm1", one), ("warm2", two)):
            map_parts(measure, parts, folder / name, cluster).complete()
        for k in range(repeats):
            a = seconds(parts, folder / f"one{k}", one, k)
            b = seconds(parts, folder / f"two{k}", two, k)
            ratios.append(a / b)
            print(f"one worker {a:.2f} s, two {b:.2f} s, ratio {a / b:.2f}; load {os.getloadavg()[0]:.1f}", flush=True)
    return ratios


def kills(parts, folder, n, expected):
    "Kill workers at random moments while the parts are made again and again, until n are dead."
    killed, over, rng, rounds = [], threading.Event(), np.random.default_rng(), 0

    def shoot(cluster):
        while len(killed) < n and not over.wait(rng.uniform(0, 1.5)):
            if alive := [p for p in cluster.processes() if p not in killed]:
                killed.append(int(rng.choice(alive)))
                os.kill(killed[-1], signal.SIGKILL)

    with Cluster("local:2", folder) as cluster:
        shooter = threading.Thread(target=shoot, args=(cluster,))
        shooter.start()
        try:
            while len(killed) < n:
                done = map_parts(measure, parts, folder / f"round{rounds}", cluster, again=rounds)
                assert bytes_of(done) == expected, "results differ"
                rounds += 1
        finally:
            over.set()
            shooter.join()
    return len(killed), rounds


def main():
    told = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("sources", 2000), ("parts", 24), ("repeats", 3), ("kills", 20)):
        told.add_argument(f"--{name}", type=int, default=default)
    given = told.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        parts = make_archive(folder / "archive.parquet", given.sources, given.parts)
        begin = time.perf_counter()
        here = bytes_of(map_parts(measure, parts, folder / "here"))
        events = sum(p.events for p in parts)
        print(f"{len(parts)} parts, {events:,} events; serial, with compilation, {time.perf_counter() - begin:.1f} s")
        if given.repeats:
            ratios = pd.Series(speed(parts, folder, given.repeats))
            print(f"two workers are {ratios.median():.2f} times as fast as one ({ratios.min():.2f} to {ratios.max():.2f}); bar 1.6")
        if given.kills:
            n, rounds = kills(parts, folder, given.kills, here)
            print(f"{n} workers killed in {rounds} rounds of {len(parts)} parts: every result equal to serial, byte for byte")


if __name__ == "__main__":
    main()
