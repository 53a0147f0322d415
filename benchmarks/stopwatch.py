"""What the benchmarks share: a stopwatch."""

import time

import numpy as np


def seconds(f, repeat=1):  # (best time, result)
    "Time a call, best of `repeat`."
    best, out = np.inf, None
    for _ in range(repeat):
        start = time.perf_counter()
        out = f()
        best = min(best, time.perf_counter() - start)
    return best, out
