"""A whole archive on a laptop: 100,000 simulated sources, about ten million photons, step by step with peak memory.

    python benchmarks/bench_archive.py [--sources 100000]

Seconds depend on the machine; the last column is the ratio to reading the archive.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

from xrt_nb.analogs import find_analogs
from xrt_nb.data import read_events
from xrt_nb.features import pca, summary_features
from xrt_nb.representations import EtDtCube, EtMap, quality_table
from xrt_nb.simulation import simulate_archive


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=int, default=100_000)
    events, _ = simulate_archive(parser.parse_args().sources, random_state=11)
    print(f"{len(events):,} simulated sources, {events.n_events:,} photons")
    made, first = {}, None
    with tempfile.TemporaryDirectory() as folder:
        path = events.write(Path(folder) / "events.parquet")
        steps = {"read the archive": lambda: read_events(path), "read one source": lambda: read_events(path, ids=[events.ids[-1]]),
                 "quality table": lambda: quality_table(events), "E-t maps": lambda: EtMap().transform(events), "E-t-dt cubes": lambda: EtDtCube().transform(events),
                 "PCA(15) of maps": lambda: pca(15).fit_transform(made["E-t maps"]), "PCA(22) of cubes": lambda: pca(22).fit_transform(made["E-t-dt cubes"]),
                 "summary features": lambda: summary_features(events), "one query, exact": lambda: find_analogs(made["PCA(15) of maps"], events.ids, events.ids[0], 10)}
        for name, step in steps.items():
            start = time.perf_counter()
            made[name] = step()
            seconds = time.perf_counter() - start
            first = first or seconds
            print(f"{name:18s} {seconds:7.2f} s   peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:4.1f} GB   {seconds / first:6.2f} x reading")


if __name__ == "__main__":
    main()
