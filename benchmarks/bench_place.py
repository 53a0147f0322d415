"""New detections into a finished run: 100 simulated ones against a run of 100,000, in CPU seconds, first and again.

    python benchmarks/bench_place.py [--sources 100000] [--new 100]

The map is drawn with few iterations: what is measured doesn't depend on how well it looks.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

from xrt_nb.runs import read_run, run
from xrt_nb.simulation import known_ids, simulate_archive


def cpu(f):  # (CPU seconds, result)
    "Time a call."
    start = time.process_time()
    out = f()
    return time.process_time() - start, out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=int, default=100_000)
    parser.add_argument("--new", type=int, default=100)
    given = parser.parse_args()
    events, truth = simulate_archive(given.sources, random_state=11)
    new = simulate_archive(2 * given.new, random_state=12)[0][: given.new]
    new.meta["name"] = None  # other sources, whatever the simulator calls them
    with tempfile.TemporaryDirectory() as folder:
        out = run("2D-PCA", events, Path(folder) / "run", known_ids(truth), method="opentsne", max_iter=250, init="pca")
        opened, r = cpu(lambda: read_run(out))
        first, placed = cpu(lambda: r.place(new))
        again, placed = cpu(lambda: r.place(new))
        one, _ = cpu(lambda: r.place(new[:1]))
        page, _ = cpu(lambda: placed.write(Path(folder) / "placed"))
    print(f"run of {given.sources:,}: opened {opened:.2f} s; {len(placed)} placed {first:.2f} s at first, {again:.2f} s again "
          f"({1e3 * again / len(placed):.0f} ms per detection); one alone {one:.2f} s; report {page:.2f} s; "
          f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB")


if __name__ == "__main__":
    main()
